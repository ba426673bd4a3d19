"""Permutation language modelling: equal to the paper's two streams, and blind to what it predicts."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.batch import Batch, Visibility
from gristmill.errors import InputError
from gristmill.model.transformer import Attention, Block, Transformer
from gristmill.model.visibility import ranked_spans, segment_positions, window_mask
from gristmill.objectives.base import hidden_states
from gristmill.objectives.permuted import NEVER, Permuted, predict_given
from gristmill.rng import stream
from gristmill.rows import Rows
from tests.objectives.suite import (
    SPECIAL,
    VOCABULARY,
    check_objective,
    example_rows,
    modernbert_config,
    random_model,
    tiny_config,
)

CLS, SEP, MASK = SPECIAL["cls"], SPECIAL["sep"], SPECIAL["mask"]
MODELS = {"bert": tiny_config("encoder"), "modernbert": modernbert_config()}


def one_piece(text: list[int], copies: int = 1, framed: bool = True) -> Rows:
    """Rows of one short piece each."""
    tokens = np.array([[CLS, *text, SEP] if framed else text] * copies)
    return Rows(
        tokens=tokens,
        segments=np.ones_like(tokens),
        following=np.full_like(tokens, -1),
        vocabulary=VOCABULARY,
    )


def content(batch: Batch, rows: Rows) -> Batch:
    """The part of a batch that is not queries, as it stands in the text."""
    segments = torch.tensor(rows.segments)
    index = torch.arange(segments.shape[1]).expand_as(segments)
    places = index - segment_positions(segments) + batch.positions[:, : segments.shape[1]]
    order = torch.where(segments == 0, index, places).argsort(1)
    names = ("tokens", "targets", "weights", "segments", "positions", "ranks", "reach")
    return dataclasses.replace(batch, **{name: getattr(batch, name).gather(1, order) for name in names})


def ranked_mask(batch: Batch) -> torch.Tensor:
    """Who sees whom, said in the plainest way; padding sees itself."""
    segments, T = batch.segments, batch.tokens.shape[1]
    visible = (segments[:, :, None] == segments[:, None, :]) & (segments != 0)[:, :, None]
    visible &= batch.ranks[:, None, :] <= batch.reach[:, :, None]
    return visible | ((segments == 0)[:, :, None] & torch.eye(T, dtype=torch.bool))


def as_mask(batch: Batch) -> torch.Tensor:
    """Who sees whom, as the spans say."""
    first, last = ranked_spans(batch.segments, batch.ranks, batch.reach)
    index = torch.arange(batch.tokens.shape[1])
    return (index >= first[..., None]) & (index < last[..., None])


@pytest.mark.parametrize("family", MODELS)
def test_permuted_is_an_objective(family):
    check_objective(Permuted(), MODELS[family])


# --- the paper's two streams, written down naively ------------------------------------------------------------------


@torch.no_grad()
def two_streams(model: Transformer, tokens: torch.Tensor, ranks: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The content stream h and the query stream g of one text (Yang et al. 2019, section 2.3 and appendix A.2)."""
    positions = torch.arange(len(tokens))
    h = embedded(model, tokens, positions)
    g = embedded(model, torch.full_like(tokens, MASK), positions)
    up_to_itself = ranks[None, :] <= ranks[:, None]
    before_itself = ranks[None, :] < ranks[:, None]
    for layer, block in enumerate(model.blocks):
        near = (positions[:, None] - positions[None, :]).abs() <= model.config.window
        local = model.config.is_local(layer)
        sees_h = up_to_itself & near if local else up_to_itself
        sees_g = before_itself & near if local else before_itself
        # both streams are updated from the content stream of the layer below
        g, h = update(model, block, g, h, sees_g), update(model, block, h, h, sees_h)
    return (h, g) if model.norm is None else (model.norm(h), model.norm(g))


def embedded(model: Transformer, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    x = model.embedding.weight[tokens]
    if model.positions is not None:
        x = x + model.positions.weight[positions]
    if model.token_types is not None:
        x = x + model.token_types.weight[0]
    return x if model.embedding_norm is None else model.embedding_norm(x)


def update(
    model: Transformer, block: Block, x: torch.Tensor, h: torch.Tensor, sees: torch.Tensor
) -> torch.Tensor:
    """One layer: queries from x, keys and values from h."""
    if block.pre:
        norm = block.attention_norm or (lambda states: states)
        x = x + attention(model, block.attention, norm(x), norm(h), sees)
        return x + block.feed_forward(block.feed_forward_norm(x)[None])[0]
    x = block.attention_norm(x + attention(model, block.attention, x, h, sees))
    return block.feed_forward_norm(x + block.feed_forward(x[None])[0])


def attention(
    model: Transformer, layer: Attention, x: torch.Tensor, h: torch.Tensor, sees: torch.Tensor
) -> torch.Tensor:
    heads, size = model.config.heads, model.config.head_size
    weights = layer.qkv.weight.chunk(3)
    biases = (0.0, 0.0, 0.0) if layer.qkv.bias is None else layer.qkv.bias.chunk(3)
    q, k, v = (
        (states @ weight.T + bias).view(-1, heads, size)
        for states, weight, bias in zip((x, h, h), weights, biases, strict=True)
    )
    if model.config.positions == "rotary":
        base = model.config.local_rotary_base if layer.local else model.config.rotary_base
        q, k = turned(q, base), turned(k, base)
    scores = torch.einsum("ihk,jhk->hij", q, k) / size**0.5
    # the first of an order, and in a window the first of those near, see nothing and gather nothing
    p = scores.masked_fill(~sees, -torch.inf).softmax(-1).nan_to_num(0.0)
    return layer.out(torch.einsum("hij,jhk->ihk", p, v).reshape(len(x), -1))


def turned(x: torch.Tensor, base: float) -> torch.Tensor:
    size = x.shape[-1]
    angles = torch.arange(len(x))[:, None] * base ** (-torch.arange(0, size, 2) / size)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]
    pairs = torch.complex(x[..., : size // 2].contiguous(), x[..., size // 2 :].contiguous()) * turns
    return torch.cat([pairs.real, pairs.imag], dim=-1)


@pytest.mark.parametrize("predicted", [1 / 6, 1.0], ids=["a sixth is predicted", "everything is predicted"])
@pytest.mark.parametrize("family", MODELS)
@torch.no_grad()
def test_queries_in_the_row_are_the_query_stream_of_the_paper(family, predicted):
    model, rows = random_model(MODELS[family]), example_rows("encoder", 0)
    batch = Permuted(predicted=predicted).prepare(rows, stream(0, "orders"))
    states = hidden_states(model, batch)
    compared = 0
    for row, segments in enumerate(rows.segments):
        for segment in range(1, segments.max() + 1):
            mine = F.pad(torch.tensor(segments == segment), (0, batch.tokens.shape[1] - len(segments)))
            text = content(batch, rows)
            h, g = two_streams(
                model, text.tokens[row, segments == segment], text.ranks[row, segments == segment]
            )
            queries = (batch.segments[row] == segment) & (batch.weights[row] > 0)
            predicted_here = batch.positions[row, queries]
            h_here = h[batch.positions[row, mine]]
            torch.testing.assert_close(states[row, mine], h_here, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(states[row, queries], g[predicted_here], rtol=1e-5, atol=1e-5)
            compared += len(predicted_here)
    assert compared == int(batch.weights.sum()) > 20


# --- who sees whom --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", MODELS)
@settings(max_examples=15)
@given(seed=st.integers(0, 1000), pick=st.integers(0, 10_000), token=st.integers(0, 255))
@torch.no_grad()
def test_a_token_is_seen_by_predictions_that_come_after_it_in_the_order_and_by_no_other(
    family, seed, pick, token
):
    model, rows = random_model(MODELS[family]), example_rows("encoder", 0)
    batch = Permuted(predicted=0.5).prepare(rows, stream(seed, "orders"))
    predicted = (batch.ranks > 0) & (batch.ranks < NEVER)
    row, column = predicted.nonzero()[pick % int(batch.weights.sum())].tolist()
    tokens = batch.tokens.clone()
    tokens[row, column] = (token + 1) % 256 if int(tokens[row, column]) == token else token
    before, after = (
        hidden_states(model, batch),
        hidden_states(model, dataclasses.replace(batch, tokens=tokens)),
    )
    unseen = torch.ones_like(batch.weights, dtype=torch.bool)
    later = batch.reach[row] >= batch.ranks[row, column]
    unseen[row] = (batch.segments[row] != batch.segments[row, column]) | ~later
    predictions = batch.weights > 0
    itself = predictions[row] & (batch.positions[row] == batch.positions[row, column]) & ~later
    assert (itself & (batch.segments[row] == batch.segments[row, column])).sum() == 1
    torch.testing.assert_close(after[unseen], before[unseen], rtol=0, atol=0)
    if model.config.window == 0:
        moved = (after - before).abs().amax(-1)
        assert (moved[predictions & ~unseen] > 0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), predicted=st.floats(0.0, 1.0))
def test_what_each_position_sees_is_an_interval(seed, predicted):
    rows = example_rows("encoder", seed % 3)
    batch = Permuted(predicted=predicted).prepare(rows, stream(seed, "orders"))
    assert torch.equal(as_mask(batch), ranked_mask(batch))
    empty = dataclasses.replace(
        rows, tokens=rows.tokens[:, ::-1].copy(), segments=rows.segments[:, ::-1].copy()
    )
    batch = Permuted(predicted=predicted).prepare(empty, stream(seed, "orders"))  # padding first
    assert torch.equal(as_mask(batch), ranked_mask(batch))


def test_text_and_positions_are_those_of_the_rows():
    rows = example_rows("encoder", 0)
    batch = content(Permuted(predicted=0.5).prepare(rows, stream(0, "orders")), rows)
    segments = torch.tensor(rows.segments).long()
    assert torch.equal(batch.positions, segment_positions(segments))
    assert torch.equal(batch.segments, segments)
    assert (batch.tokens.numpy() == rows.tokens)[rows.segments != 0].mean() > 0.9, (
        "all but what frames the pieces"
    )


def test_positions_that_do_not_stand_by_rank_are_refused():
    segments = torch.ones(1, 3, dtype=torch.long)
    ranks = torch.tensor([[1, 0, 2]])
    with pytest.raises(ValueError, match="stand by rank"):
        ranked_spans(segments, ranks, ranks)


def test_what_is_near_is_near_the_text_and_not_the_row_s_end():
    rows = example_rows("encoder", 0)
    batch = Permuted(predicted=0.5).prepare(rows, stream(0, "orders"))
    near = as_mask(batch) & window_mask(batch.positions, 3)[:, 0]
    for row, query in batch.weights.nonzero().tolist():
        columns = near[row, query].nonzero()[:, 0]
        assert (columns < rows.tokens.shape[1]).all()
        assert ((batch.positions[row, columns] - batch.positions[row, query]).abs() <= 3).all()
        assert (batch.segments[row, columns] == batch.segments[row, query]).all()
        assert (batch.ranks[row, columns] <= batch.reach[row, query]).all()


# --- the orders -----------------------------------------------------------------------------------------------------


def orders(batch: Batch, rows: Rows) -> np.ndarray:
    return content(batch, rows).ranks.numpy()


def test_every_order_is_equally_likely():
    rows = one_piece([1, 2, 3], copies=6000)
    ranks = orders(Permuted(predicted=1.0, span_tokens=1).prepare(rows, stream(0, "orders")), rows)
    assert (ranks[:, [0, -1]] == 0).all(), "special tokens come first"
    counts = [int((ranks[:, 1:4] == order).all(1).sum()) for order in itertools.permutations([1, 2, 3])]
    assert sum(counts) == 6000
    assert max(abs(count - 1000) for count in counts) < 4 * 1000**0.5


@pytest.mark.parametrize("span_tokens", [1, 5])
def test_the_share_that_is_predicted_is_the_one_asked_for(span_tokens):
    rows = one_piece(list(range(20)), copies=3000)
    ranks = orders(Permuted(predicted=0.17, span_tokens=span_tokens).prepare(rows, stream(0, "orders")), rows)
    assert set((ranks > 0).sum(1)) == {3, 4}, "rounded at random: 3.4 tokens"
    assert (ranks > 0).sum() == pytest.approx(0.17 * 20 * 3000, rel=0.01)
    each = (ranks[:, 1:-1] > 0).mean(0)
    assert np.abs(each - 0.17).max() < (0.03 if span_tokens == 1 else 0.06)


def test_spans_are_predicted_as_a_whole():
    rows = one_piece([i % 256 for i in range(2000)])

    def mean_run(span_tokens: int) -> float:
        batch = Permuted(predicted=0.05, span_tokens=span_tokens).prepare(rows, stream(0, "orders"))
        predicted = orders(batch, rows)[0] > 0
        return float(predicted.sum() / (np.diff(predicted.astype(int)) == 1).sum())

    assert 1.0 <= mean_run(1) < 1.2
    assert 2.5 < mean_run(5) < 3.7, "lengths of 1 to 5, some side by side"


def test_a_share_that_follows_a_schedule():
    rows, objective = one_piece(list(range(100))), Permuted(predicted=(0.5, 0.1))
    counts = [
        int(objective.prepare(rows, stream(0, "orders"), progress).weights.sum()) for progress in (0.0, 1.0)
    ]
    assert counts == [50, 10]


def test_something_is_always_seen():
    rows = one_piece([1, 2, 3, 4, 5], framed=False)
    batch = Permuted(predicted=1.0).prepare(rows, stream(0, "orders"))
    assert sorted(orders(batch, rows)[0].tolist()) == [0, 1, 2, 3, 4]
    seen = as_mask(batch)
    assert (seen[batch.weights > 0].sum(1) > 0).all()


@torch.no_grad()
def test_a_text_of_one_token_predicts_nothing_and_costs_nothing():
    rows, objective = one_piece([1], framed=False), Permuted(predicted=1.0)
    batch = objective.prepare(rows, stream(0, "orders"))
    assert not batch.weights.any()
    loss = objective.loss(random_model(MODELS["bert"]), batch)
    assert (float(loss.total_nats), float(loss.weight)) == (0.0, 0.0)


# --- predictions of given places ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", MODELS)
@torch.no_grad()
def test_wanted_tokens_are_predicted_from_all_others_and_from_none_of_the_wanted(family):
    rows = example_rows("encoder", 0)
    tokens, segments = torch.tensor(rows.tokens), torch.tensor(rows.segments)
    wanted = (
        torch.from_numpy(np.random.default_rng(0).random(tokens.shape) < 0.3)
        & (tokens < 256)
        & (segments > 0)
    )
    batch = predict_given(tokens, segments, wanted, MASK)
    predictions = batch.weights > 0
    assert torch.equal(batch.targets[predictions], tokens[wanted])
    assert torch.equal(batch.segments[predictions], segments[wanted])
    assert (batch.tokens[predictions] == MASK).all()
    model = random_model(MODELS[family])
    states = hidden_states(model, batch)[predictions]
    unknown = predict_given(tokens.masked_fill(wanted, 0), segments, wanted, MASK)
    torch.testing.assert_close(hidden_states(model, unknown)[predictions], states, rtol=0, atol=0)
    seen, positions = as_mask(batch), segment_positions(segments)
    for row, query in predictions.nonzero().tolist():
        visible = (segments[row] == batch.segments[row, query]) & ~wanted[row]
        assert torch.equal(
            batch.positions[row, seen[row, query]].sort().values, positions[row, visible].sort().values
        )


@torch.no_grad()
def test_one_wanted_token_is_predicted_as_in_training():
    rows, model = one_piece([7, 8, 9, 10, 11]), random_model(MODELS["modernbert"])
    trained = Permuted(predicted=0.2, span_tokens=1).prepare(rows, stream(0, "orders"))
    tokens, segments = torch.tensor(rows.tokens), torch.tensor(rows.segments)
    given_others = predict_given(tokens, segments, content(trained, rows).ranks == 1, MASK)
    assert trained.visibility is given_others.visibility is Visibility.RANKED
    one, other = (hidden_states(model, batch)[batch.weights > 0] for batch in (trained, given_others))
    assert len(one) == 1
    torch.testing.assert_close(one, other, rtol=0, atol=0)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_relative_biases_are_refused():
    config = dataclasses.replace(
        MODELS["bert"], positions="relative", relative_buckets=32, relative_distance=128
    )
    with pytest.raises(InputError, match="relative position biases"):
        Permuted().check(config)


@pytest.mark.parametrize("share", [1.5, -0.1, (), (0.1, 2.0)])
def test_a_share_of_the_text_is_0_to_1(share):
    with pytest.raises(InputError, match="predicted is"):
        Permuted(predicted=share)
