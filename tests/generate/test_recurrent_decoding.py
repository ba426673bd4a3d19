"""Decoding with a carried state gives what reading everything again gives, however long the text."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generate.test_completing import Bytes, NoEnd
from tests.noisy import noisy

from gristmill.errors import InputError
from gristmill.generate import SamplingSettings, complete, decode_one_token, prefill, prepare, stream
from gristmill.generate.decoding import Decoder, keep_rows
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.recurrent import Recurrent

VOCAB, LONGEST = 258, 8
FAMILIES = ["lstm", "gru"]


def random_model(family: str) -> Recurrent:
    model_settings = ModelSettings(family=family, depth=2, width=24, feed_forward=20)
    return noisy(Recurrent(resolve(model_settings, vocab_size=VOCAB, row_tokens=LONGEST)), 0.3)


MODELS = {family: random_model(family) for family in FAMILIES}
DECODERS = {family: prepare(model) for family, model in MODELS.items()}


@torch.inference_mode()
def recomputed(family: str, sequence: list[int]) -> torch.Tensor:
    """The scores after a sequence, alone and from scratch."""
    model = MODELS[family]
    return model.logits(model(torch.tensor([sequence]))[0, -1])


prompts = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20), min_size=1, max_size=4)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=10)
@given(prompts=prompts, steps=st.integers(0, 20), seed=st.integers(0, 1000))
def test_decoding_with_a_state_equals_reading_everything_again(family, prompts, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    sequences = [list(prompt) for prompt in prompts]
    logits, state = prefill(DECODERS[family], sequences, room_tokens=steps)
    for step in range(steps + 1):
        for row, sequence in enumerate(sequences):
            torch.testing.assert_close(logits[row], recomputed(family, sequence), rtol=1e-5, atol=1e-5)
        if step < steps:
            tokens = torch.randint(VOCAB, (len(prompts),), generator=generator)
            for sequence, token in zip(sequences, tokens.tolist(), strict=True):
                sequence.append(token)
            logits, state = decode_one_token(DECODERS[family], state, tokens)
    assert state.lengths == tuple(len(sequence) for sequence in sequences)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_can_be_left_out_when_they_are_finished(family):
    _, state = prefill(DECODERS[family], [[1, 2, 3], [4], [5, 6, 7, 8, 9]], room_tokens=4)
    every, _ = decode_one_token(DECODERS[family], state, torch.tensor([7, 8, 9]))
    some, kept = decode_one_token(DECODERS[family], keep_rows(state, [2, 0]), torch.tensor([9, 7]))
    torch.testing.assert_close(some, every[[2, 0]], rtol=1e-5, atol=1e-5)
    assert kept.lengths == (6, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_weights_decode_close_to_float32(family):
    expected = recomputed(family, [1, 2, 3, 4])
    decoder = prepare(random_model(family).bfloat16())
    _, state = prefill(decoder, [[1, 2, 3]], room_tokens=1)
    logits, _ = decode_one_token(decoder, state, torch.tensor([4]))
    assert float((logits[0].float() - expected).abs().max() / expected.abs().max()) < 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_no_token_ever_leaves_the_context(family):
    greedy = SamplingSettings(max_new_tokens=5 * LONGEST, temperature=0.0)
    (completion,) = complete(DECODERS[family], NoEnd(), ["a text that is longer than a row"], greedy)
    assert len(completion.tokens) == 5 * LONGEST
    assert completion.dropped_tokens == 0
    sequence = [256, *b"a text that is longer than a row"]
    for token in completion.tokens:
        assert token == int(recomputed(family, sequence).argmax())
        sequence.append(token)


@settings(max_examples=10)
@given(st.lists(st.text(max_size=6), min_size=1, max_size=5), st.integers(1, 4))
def test_a_text_does_not_depend_on_its_company_nor_on_the_batch(prompts, batch_size):
    sampled = SamplingSettings(max_new_tokens=12, temperature=1.0, top_p=None, seed=3)
    together = complete(DECODERS["lstm"], Bytes(), prompts, sampled, batch_size=batch_size)
    for index, prompt in enumerate(prompts):
        if prompt not in prompts[:index]:
            assert together[index] == complete(DECODERS["lstm"], Bytes(), [prompt], sampled)[0]


def test_the_pieces_of_a_stream_make_up_the_text():
    sampled = SamplingSettings(max_new_tokens=12, temperature=1.0, seed=3)
    pieces = list(stream(DECODERS["gru"], Bytes(), ["one"], sampled))
    assert pieces[-1].completion is not None
    assert "".join(piece.text for piece in pieces) == pieces[-1].completion.text


@pytest.mark.parametrize("kind", ["encoder", "encoder-decoder"])
def test_a_model_that_continues_no_texts_is_refused(kind):
    model = make_model(resolve(ModelSettings(kind=kind, depth=1, width=32), vocab_size=VOCAB, row_tokens=8))
    with pytest.raises(InputError, match=f"an {kind} does not continue texts"):
        prepare(model)


def test_what_is_prepared_says_how_far_it_sees():
    attention = make_model(resolve(ModelSettings(depth=1, width=32), vocab_size=VOCAB, row_tokens=8))
    attention.initialise(torch.Generator())
    decoders: list[Decoder] = [prepare(attention), DECODERS["gru"]]
    assert [decoder.window for decoder in decoders] == [8, None]
