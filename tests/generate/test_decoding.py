"""Decoding with a cache gives what recomputing everything gives."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noisy import noisy

from gristmill.generate.decoding import (
    context_start,
    decode_one_token,
    keep_rows,
    prefill,
    prepare,
)
from gristmill.model.config import ModelSettings, NgramSettings, resolve
from gristmill.model.transformer import Transformer

WINDOW = 12
VOCAB = 50

KINDS = {
    "qwen3": ModelSettings(family="qwen3", depth=2, width=32, heads=4, kv_heads=2, head_size=8),
    "qwen3, one key head": ModelSettings(family="qwen3", depth=2, width=32, heads=4, kv_heads=1, tied=False),
    "llama": ModelSettings(family="llama", depth=2, width=32, heads=2, kv_heads=2),
    "gpt2": ModelSettings(family="gpt2", depth=2, width=32, heads=4),
    "n-grams": ModelSettings(
        family="qwen3", depth=2, width=32, heads=4, ngrams=NgramSettings(orders=(2, 4), buckets=64)
    ),
}


def random_model(model_settings: ModelSettings, seed: int = 0) -> Transformer:
    return noisy(Transformer(resolve(model_settings, vocab_size=VOCAB, row_tokens=WINDOW)), 0.2, seed=seed)


MODELS = {name: random_model(kind) for name, kind in KINDS.items()}
DECODERS = {name: prepare(model) for name, model in MODELS.items()}


@torch.inference_mode()
def recomputed(model: Transformer, sequence: list[int]) -> torch.Tensor:
    """The scores after a sequence, alone and from scratch."""
    context = sequence[context_start(len(sequence), WINDOW) :]
    return model.logits(model(torch.tensor([context]))[0, -1])


prompts = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20), min_size=1, max_size=4)


@pytest.mark.parametrize("native", ["compiled", "plain torch"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(prompts=prompts, steps=st.integers(1, 30), seed=st.integers(0, 1000))
def test_cached_decoding_equals_recomputing_everything(kind, native, prompts, steps, seed):
    model = MODELS[kind]
    decoder = DECODERS[kind]
    if native == "compiled":
        prompts = prompts[:1]  # the compiled step is for one sequence
        if decoder.native is None:
            pytest.skip("this machine has no C compiler")
    else:
        decoder = dataclasses.replace(decoder, native=None)
    generator = torch.Generator().manual_seed(seed)
    sequences = [list(prompt) for prompt in prompts]
    logits, state = prefill(decoder, sequences, room_tokens=steps)
    for step in range(steps + 1):
        for row, sequence in enumerate(sequences):
            torch.testing.assert_close(logits[row], recomputed(model, sequence), rtol=1e-4, atol=1e-4)
        if step < steps:
            tokens = torch.randint(VOCAB, (len(prompts),), generator=generator)
            for sequence, token in zip(sequences, tokens.tolist(), strict=True):
                sequence.append(token)
            logits, state = decode_one_token(decoder, state, tokens)
    assert state.lengths == tuple(len(sequence) for sequence in sequences)


def test_rows_can_be_left_out_when_they_are_finished():
    decoder = prepare(MODELS["qwen3"])
    _, state = prefill(decoder, [[1, 2, 3], [4], [5, 6, 7, 8, 9]], room_tokens=4)
    every, _ = decode_one_token(decoder, state, torch.tensor([7, 8, 9]))
    _, state = prefill(decoder, [[1, 2, 3], [4], [5, 6, 7, 8, 9]], room_tokens=4)
    some, _ = decode_one_token(decoder, keep_rows(state, [2, 0]), torch.tensor([9, 7]))
    torch.testing.assert_close(some, every[[2, 0]], rtol=1e-5, atol=1e-5)


def test_more_tokens_than_there_was_room_for_are_no_problem():
    model = MODELS["llama"]
    decoder = prepare(model)
    sequence = [3, 1]
    _, state = prefill(decoder, [sequence], room_tokens=0)
    for token in range(2, 40):
        sequence.append(token)
        logits, state = decode_one_token(decoder, state, torch.tensor([token]))
        torch.testing.assert_close(logits[0], recomputed(model, sequence), rtol=1e-4, atol=1e-4)
    assert state.tokens.shape[1] <= 3 * WINDOW


@pytest.mark.parametrize("native", ["compiled", "plain torch"])
def test_bfloat16_weights_decode_close_to_float32(native):
    model = random_model(KINDS["qwen3"])
    expected = recomputed(model, [1, 2, 3, 4])
    decoder = prepare(model.bfloat16())
    if native == "plain torch":
        decoder = dataclasses.replace(decoder, native=None)
    _, state = prefill(decoder, [[1, 2, 3]], room_tokens=1)
    logits, _ = decode_one_token(decoder, state, torch.tensor([4]))
    assert float((logits[0].float() - expected).abs().max() / expected.abs().max()) < 0.05


@pytest.mark.parametrize(("length", "start"), [(1, 0), (8, 0), (9, 4), (12, 4), (13, 8), (16, 8), (17, 12)])
def test_the_oldest_tokens_leave_the_context_half_a_window_at_a_time(length, start):
    assert context_start(length, 8) == start


def test_a_state_is_immutable_apart_from_its_tensors():
    _, state = prefill(prepare(MODELS["llama"]), [[1]], room_tokens=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.column = 3
