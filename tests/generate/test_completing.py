"""Prompts in, text out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noisy import noisy

from gristmill.errors import InputError
from gristmill.generate import SamplingSettings, complete, prepare, stream
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.transformer import Transformer

EOS = 257


class Bytes:
    """A tokenizer whose tokens are bytes."""

    special = {"bos": 256, "eos": EOS}  # noqa: RUF012
    vocab_size = 258

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        return bytes([id]) if id < 256 else b""


class NoBeginning(Bytes):
    special = {"bos": EOS, "eos": EOS}  # noqa: RUF012


def model(row_tokens: int = 32) -> Transformer:
    config = resolve(ModelSettings(depth=1, width=32, heads=2), vocab_size=258, row_tokens=row_tokens)
    return noisy(Transformer(config), 0.1, seed=1)


DECODER = prepare(model())


SAMPLED = SamplingSettings(max_new_tokens=12, temperature=1.0, top_p=None, seed=3)
GREEDY = SamplingSettings(max_new_tokens=12, temperature=0.0)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(max_size=6), min_size=1, max_size=5), st.integers(1, 4))
def test_a_text_does_not_depend_on_its_company_nor_on_the_batch(prompts, batch_size):
    together = complete(DECODER, Bytes(), prompts, SAMPLED, batch_size=batch_size)
    alone = [complete(DECODER, Bytes(), [prompt], SAMPLED)[0] for prompt in prompts]
    for index, prompt in enumerate(prompts):
        if prompt not in prompts[:index]:
            assert together[index] == alone[index]


def test_the_pieces_of_a_stream_make_up_the_text():
    shown = ["", ""]
    completions = {}
    for piece in stream(DECODER, Bytes(), ["a", "bcd"], SAMPLED):
        shown[piece.index] += piece.text
        if piece.completion:
            completions[piece.index] = piece.completion
    assert [completions[index].text for index in range(2)] == shown
    assert [completions[index] for index in range(2)] == complete(DECODER, Bytes(), ["a", "bcd"], SAMPLED)


def test_the_seed_decides_the_text():
    first, again, other = (
        complete(DECODER, Bytes(), ["x"], SamplingSettings(max_new_tokens=20, temperature=1.0, seed=seed))[
            0
        ].tokens
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_same_prompt_twice_gives_two_texts_when_sampling_and_one_when_greedy():
    one, two = complete(DECODER, Bytes(), ["x", "x"], SAMPLED)
    assert one.tokens != two.tokens
    one, two = complete(DECODER, Bytes(), ["x", "x"], GREEDY)
    assert one == two


def test_a_text_ends_with_the_end_token():
    made = model()
    with torch.no_grad():
        made.norm.weight.zero_()  # all scores are 0
    (completion,) = complete(prepare(made), EndsAtOnce(), ["x"], GREEDY)
    assert (completion.text, completion.tokens, completion.finish) == ("", (0,), "end")


class EndsAtOnce(Bytes):
    """All scores are equal, the first token is taken, and it is the end."""

    special = {"bos": 256, "eos": 0}  # noqa: RUF012


def test_the_length_is_limited():
    (completion,) = complete(DECODER, NoEnd(), ["x"], GREEDY)
    assert len(completion.tokens) == 12
    assert completion.finish == "length"
    assert completion.prompt_tokens == 2
    assert completion.dropped_tokens == 0


class NoEnd(Bytes):
    special = {"bos": 256}  # noqa: RUF012


def test_a_context_that_is_used_up_slides_and_the_completion_says_so():
    (completion,) = complete(
        DECODER, NoEnd(), ["x" * 20], SamplingSettings(max_new_tokens=60, temperature=0.0)
    )
    assert len(completion.tokens) == 60
    assert completion.dropped_tokens == 48


def test_a_stop_string_ends_the_text_before_it():
    (free,) = complete(DECODER, NoEnd(), ["x"], GREEDY)
    stop = free.text[3:5]
    (stopped,) = complete(
        DECODER, NoEnd(), ["x"], SamplingSettings(max_new_tokens=12, temperature=0.0, stop=(stop,))
    )
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish == "stop"


def test_an_empty_prompt_needs_a_token_that_begins_texts():
    assert complete(DECODER, Bytes(), [""], GREEDY)[0].prompt_tokens == 1
    with pytest.raises(InputError, match="empty prompt"):
        complete(DECODER, NoBeginning(), [""], GREEDY)
