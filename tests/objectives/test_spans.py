"""Span corruption: nothing of a text is lost between source and target."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.objectives.spans import Spans
from gristmill.rng import stream
from gristmill.vocabulary import Vocabulary
from tests.objectives.rewritten import (
    BOS,
    EOS,
    PIECES,
    decoder_input,
    documents,
    rows_of_pieces,
    source,
    target,
)
from tests.objectives.suite import SPECIAL, VOCABULARY, check_objective, example_rows, tiny_config

SENTINELS = list(VOCABULARY.sentinels)


def spans_of(written: list[int]) -> dict[int, list[int]]:
    """What a target says of each sentinel."""
    found: dict[int, list[int]] = {}
    for token in written[:-1]:
        if token in SENTINELS:
            found[token] = []
        else:
            found[list(found)[-1]].append(token)
    return found


def filled_in(read: list[int], written: list[int]) -> list[int]:
    """The source with each sentinel replaced by what the target says of it."""
    spans = spans_of(written)
    return [inner for token in read for inner in spans.get(token, [token])]


def left_out(read: list[int], written: list[int]) -> list[bool]:
    """Which tokens of the text are not in the source."""
    spans = spans_of(written)
    return [gone for token in read for gone in ([True] * len(spans[token]) if token in spans else [False])]


def test_spans_is_an_objective():
    check_objective(Spans(), predicts_special=True)


def test_a_model_with_other_positions_learns_it_too():
    check_objective(Spans(), tiny_config("encoder-decoder", family="transformer"), predicts_special=True)


@given(
    pieces=PIECES,
    seed=st.integers(0, 1 << 30),
    rate=st.floats(0.0, 1.0),
    mean_length=st.floats(1.0, 8.0),
    sentinels=st.integers(1, 100),
)
def test_source_and_target_together_are_the_text(pieces, seed, rate, mean_length, sentinels):
    objective = Spans(rate=rate, mean_length=mean_length, sentinels=sentinels)
    data = rows_of_pieces(pieces)
    batch = objective.prepare(data, np.random.default_rng(seed))
    for row, numbers in enumerate(data.segments):
        for number in range(1, numbers.max() + 1):
            text = data.tokens[row, numbers == number].tolist()
            read, written = source(batch, row, number), target(batch, row, number)
            used = [token for token in read if token in SENTINELS]
            assert used == SENTINELS[: len(used)]
            assert used == [token for token in written if token in SENTINELS]
            assert filled_in(read, written) == text
            assert written[-1:] == ([EOS] if used else [])
            assert len(written) <= len(text), "targets fit where the rows fit"
            assert len(read) <= len(text)
            spans = spans_of(written).values()
            assert all(span and max(span) < 256 for span in spans), "special tokens stay in the source"


@given(pieces=PIECES, seed=st.integers(0, 1 << 30))
def test_the_decoder_reads_the_target_one_position_later(pieces, seed):
    data = rows_of_pieces(pieces)
    batch = Spans(rate=0.3).prepare(data, np.random.default_rng(seed))
    for row in range(len(data.tokens)):
        for number in range(1, int(batch.segments[row].max()) + 1):
            written = target(batch, row, number)
            assert decoder_input(batch, row, number) == [BOS, *written[:-1]][: len(written)]
    assert torch.equal(batch.weights != 0, batch.segments != 0), "all of the target counts"


@pytest.mark.parametrize(("size", "tokens", "spans"), [(500, 75, 25), (40, 6, 2), (8, 1, 1), (2, 1, 1)])
def test_share_and_number_of_spans_are_those_of_the_paper(size, tokens, spans):
    text = [i % 256 for i in range(size)]
    batch = Spans().prepare(documents(text, copies=50), stream(0, "spans"))
    for row in range(50):
        written = target(batch, row)
        assert sum(token < 256 for token in written) == tokens
        assert sum(token in SENTINELS for token in written) in (spans, spans + 1), (
            "one more where it is turned"
        )


def test_every_token_is_left_out_equally_often():
    batch = Spans(rate=0.25).prepare(documents(list(range(12)), copies=4000), stream(0, "spans"))
    gone = np.array([left_out(source(batch, row), target(batch, row)) for row in range(4000)])
    assert not gone[:, [0, -1]].any()
    assert np.abs(gone[:, 1:-1].mean(0) - 0.25).max() < 0.03


def test_lengths_of_spans_are_random():
    """Four tokens in two spans: 1 and 3, 2 and 2, 3 and 1 are equally likely, seen around the end."""
    objective = Spans(rate=0.5, mean_length=2.0)
    batch = objective.prepare(documents(list(range(8)), copies=3000), stream(0, "spans"))
    halves = 0
    for row in range(3000):
        gone = np.array(left_out(source(batch, row), target(batch, row))[1:-1])
        gone = np.roll(gone, -int(np.argmin(gone)))  # begins with a token that is there
        edges = np.flatnonzero(np.diff(gone.astype(int), append=0))
        lengths = (edges[1::2] - edges[::2]).tolist()
        assert sum(lengths) == 4
        halves += lengths == [2, 2]
    assert halves / 3000 == pytest.approx(1 / 3, abs=0.04)


def test_with_few_sentinels_spans_are_longer():
    text = [i % 256 for i in range(400)]
    objective = Spans(rate=0.5, sentinels=4)
    batch = objective.prepare(documents(text, copies=20), stream(0, "spans"))
    for row in range(20):
        spans = spans_of(target(batch, row))
        assert len(spans) in (3, 4)
        assert sum(map(len, spans.values())) == 200


def test_what_is_too_short_is_read_and_nothing_written():
    batch = Spans(rate=1.0).prepare(rows_of_pieces([[[BOS, 7, EOS], [8, 9], [BOS]]]), stream(0, "spans"))
    assert [source(batch, 0, number) for number in (1, 2, 3)] == [[BOS, 7, EOS], [8, 9], [BOS]]
    assert not batch.segments.any()
    assert not batch.weights.any()


def test_rates_follow_a_schedule():
    data = documents(list(range(200)))
    objective = Spans(rate=(0.4, 0.1), mean_length=(2.0, 5.0))

    def counts(progress: float) -> tuple[int, bool]:
        spans = spans_of(target(objective.prepare(data, stream(0, "spans"), progress), 0))
        return sum(map(len, spans.values())), len(spans) in (expected[progress], expected[progress] + 1)

    expected = {0.0: 40, 0.5: 14, 1.0: 4}
    assert [counts(progress) for progress in expected] == [(80, True), (50, True), (20, True)]


def test_sources_and_targets_are_as_wide_as_the_fullest_row_needs():
    data = example_rows("encoder-decoder", 0, 256)
    batch = Spans().prepare(data, stream(0, "spans"))
    assert batch.source is not None
    for segments in (batch.segments, batch.source.segments):
        fullest = int((segments != 0).sum(1).max())
        assert fullest <= segments.shape[1] < fullest + 16
    assert batch.segments.shape[1] < data.tokens.shape[1] / 3


def test_the_order_of_rows_changes_no_row_s_text():
    """Spans are drawn for all rows at once; what row a text stands in is kept."""
    data = example_rows("encoder-decoder", 0)
    turned = dataclasses.replace(data, tokens=data.tokens[::-1].copy(), segments=data.segments[::-1].copy())
    batch = Spans().prepare(turned, stream(0, "spans"))
    texts = Counter(
        tuple(filled_in(source(batch, row, number), target(batch, row, number)))
        for row, numbers in enumerate(turned.segments)
        for number in range(1, numbers.max() + 1)
    )
    assert texts == Counter(
        tuple(data.tokens[row, numbers == number].tolist())
        for row, numbers in enumerate(data.segments)
        for number in range(1, numbers.max() + 1)
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 1.5}, "rate is 1.5"),
        ({"rate": ()}, "rate is"),
        ({"mean_length": (3.0, 0.5)}, "mean_length is"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Spans(**wrong)


def test_a_tokenizer_with_too_few_sentinels_is_refused():
    few = Vocabulary(pieces=VOCABULARY.pieces, special=SPECIAL, sentinels=VOCABULARY.sentinels[:50])
    with pytest.raises(InputError, match="needs 100 sentinel tokens, and the tokenizer has 50"):
        Spans().check_vocabulary(few)
    Spans(sentinels=50).check_vocabulary(few)
