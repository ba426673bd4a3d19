"""Changing a token never changes an output that can not see it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noisy import noisy

from gristmill.batch import Visibility
from gristmill.model.config import ModelSettings, NgramSettings, resolve
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import (
    is_text_order,
    segment_positions,
    segment_spans,
    window_mask,
    windowed_spans,
)

VOCAB, LENGTH = 40, 16

KINDS = {
    "qwen3": ModelSettings(family="qwen3", depth=2, width=32, heads=4, kv_heads=2),
    "llama": ModelSettings(family="llama", depth=2, width=32, heads=2),
    "gpt2": ModelSettings(family="gpt2", depth=2, width=32, heads=4),
    "n-grams": ModelSettings(
        family="qwen3", depth=2, width=32, heads=4, ngrams=NgramSettings(orders=(2, 3, 5), buckets=97)
    ),
}


def random_model(model_settings: ModelSettings) -> Transformer:
    return noisy(Transformer(resolve(model_settings, vocab_size=VOCAB, row_tokens=LENGTH)), 0.2)


MODELS = {kind: random_model(model_settings) for kind, model_settings in KINDS.items()}


@st.composite
def rows(draw):
    """Tokens and segments of two rows: documents side by side, padding on the right or the left."""
    all_segments = []
    for _ in range(2):
        lengths = draw(st.lists(st.integers(1, LENGTH), min_size=1, max_size=4))
        documents = [number for number, length in enumerate(lengths, 1) for _ in range(length)][:LENGTH]
        padding = [0] * (LENGTH - len(documents))
        all_segments.append(padding + documents if draw(st.booleans()) else documents + padding)
    tokens = torch.tensor(
        draw(
            st.lists(
                st.lists(st.integers(0, VOCAB - 1), min_size=LENGTH, max_size=LENGTH), min_size=2, max_size=2
            )
        )
    )
    return tokens, torch.tensor(all_segments)


@torch.no_grad()
def outputs(
    kind: str, tokens: torch.Tensor, segments: torch.Tensor, visibility: Visibility, how: str = "mask"
) -> torch.Tensor:
    positions = segment_positions(segments)
    if how == "spans":
        return MODELS[kind](tokens, spans=segment_spans(segments, visibility), positions=positions)
    return MODELS[kind](tokens, mask=as_mask(segments, visibility), positions=positions)


def as_mask(segments: torch.Tensor, visibility: Visibility) -> torch.Tensor:
    """What `sees` says, for all rows and positions; padding sees itself."""
    visible = (segments[:, :, None] == segments[:, None, :]) & (segments != 0)[:, None, :]
    if visibility is Visibility.CAUSAL:
        visible = visible.tril()
    return (visible | torch.eye(segments.shape[1], dtype=torch.bool))[:, None]


def sees(kind: str, segments: torch.Tensor, visibility: Visibility, row: int, changed: int) -> torch.Tensor:
    """Which positions of a row may see the changed one, said once more in the plainest way."""
    same = (segments[row] == segments[row, changed]) & (segments[row] != 0)
    at = torch.arange(LENGTH)
    if visibility is Visibility.CAUSAL:
        same &= at >= changed
    if segments[row, changed] == 0 and KINDS[kind].ngrams is not None:
        same |= (segments[row] == 0) & (
            at >= changed
        )  # padding may look at padding: nobody reads its outputs
    return same | (at == changed)


@pytest.mark.parametrize(
    ("visibility", "how"),
    [(visibility, how) for visibility in (Visibility.CAUSAL, Visibility.FULL) for how in ("mask", "spans")],
)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(
    data=rows(), row=st.integers(0, 1), changed=st.integers(0, LENGTH - 1), token=st.integers(0, VOCAB - 1)
)
def test_a_token_changes_no_output_that_can_not_see_it(kind, visibility, how, data, row, changed, token):
    tokens, segments = data
    before = outputs(kind, tokens, segments, visibility, how)
    other = tokens.clone()
    other[row, changed] = token
    after = outputs(kind, other, segments, visibility, how)
    unseen = torch.ones(2, LENGTH, dtype=torch.bool)
    unseen[row] = ~sees(kind, segments, visibility, row, changed)
    torch.testing.assert_close(after[unseen], before[unseen], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_position_does_see_what_it_may_see(kind):
    """The test above would pass for a model that sees nothing."""
    tokens = torch.randint(VOCAB, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    segments = torch.tensor([[1] * 8 + [2] * 8])
    for visibility, first in ((Visibility.CAUSAL, 10), (Visibility.FULL, 8)):
        other = tokens.clone()
        other[0, 10] = (tokens[0, 10] + 1) % VOCAB
        moved = (
            outputs(kind, other, segments, visibility) - outputs(kind, tokens, segments, visibility)
        ).abs().amax(-1)[0] > 0
        assert moved.tolist() == [False] * first + [True] * (LENGTH - first)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(data=rows(), padding=st.integers(1, 5))
def test_padding_does_not_change_the_outputs(kind, data, padding):
    tokens, segments = data
    for visibility in (Visibility.CAUSAL, Visibility.FULL):
        plain = outputs(kind, tokens, segments, visibility)
        wide = torch.nn.functional.pad(tokens, (0, padding)), torch.nn.functional.pad(segments, (0, padding))
        padded = outputs(kind, *wide, visibility)[:, :LENGTH]
        real = segments != 0
        torch.testing.assert_close(padded[real], plain[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(data=rows())
def test_the_order_of_rows_does_not_change_the_outputs(kind, data):
    tokens, segments = data
    for visibility in (Visibility.CAUSAL, Visibility.FULL):
        plain = outputs(kind, tokens, segments, visibility)
        turned = outputs(kind, tokens.flip(0), segments.flip(0), visibility).flip(0)
        torch.testing.assert_close(turned, plain, rtol=1e-5, atol=1e-5)


# --- intervals ------------------------------------------------------------------------------------------------------


def within(spans: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    index = torch.arange(spans[0].shape[1])
    return (index >= spans[0][..., None]) & (index < spans[1][..., None])


@settings(max_examples=30, deadline=None)
@given(data=rows())
def test_spans_say_what_masks_say(data):
    _, segments = data
    for visibility in (Visibility.CAUSAL, Visibility.FULL):
        assert torch.equal(within(segment_spans(segments, visibility)), as_mask(segments, visibility)[:, 0])


@settings(max_examples=30, deadline=None)
@given(data=rows(), window=st.integers(0, 5), seed=st.integers(0, 99))
def test_a_window_is_one_of_positions_and_an_interval_where_these_stand_in_order(data, window, seed):
    _, segments = data
    spans, positions = segment_spans(segments, Visibility.FULL), segment_positions(segments)
    assert is_text_order(spans, positions)
    near = within(spans) & window_mask(positions, window)[:, 0]
    assert torch.equal(within(windowed_spans(spans, window)), near)
    order = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(seed))
    moved = positions[:, order]
    if is_text_order(spans, moved):  # what no other position sees may have any number
        near = within(spans) & window_mask(moved, window)[:, 0]
        assert torch.equal(within(windowed_spans(spans, window)), near)


def test_positions_out_of_order_are_noticed_where_they_are_seen():
    first, last = torch.tensor([[0, 0, 0, 3]]).int(), torch.tensor([[3, 3, 3, 4]]).int()
    assert is_text_order((first, last), torch.tensor([[5, 6, 7, 0]]))
    assert not is_text_order((first, last), torch.tensor([[0, 2, 1, 3]]))
    assert not is_text_order((first[:, [0, 1, 2, 2]], last[:, [0, 1, 2, 2]]), torch.tensor([[0, 1, 2, 1]]))
    nothing = torch.zeros_like(first)
    assert is_text_order((nothing, nothing), torch.tensor([[3, 1, 2, 0]]))
