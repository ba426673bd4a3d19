from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gristmill.corpus.rows import plan_epoch, read_rows
from gristmill.corpus.shards import TokenStore

lengths_and_row = st.tuples(st.lists(st.integers(0, 70), min_size=1, max_size=40), st.integers(1, 24)).filter(
    lambda pair: sum(max(n - 1, 0) for n in pair[0]) >= pair[1]
)
seeds = st.integers(0, 1000)


def store_of(lengths):
    """Every token is another number, so that a token says which document and position it is."""
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
    return TokenStore(np.arange(offsets[-1], dtype=np.uint32), offsets, np.array(lengths), Path("unused"))


def best_fit_decreasing(lengths, capacity):
    """The textbook loop, one piece at a time: how many rows it takes."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(capacity - length)
    return len(rooms)


@given(lengths_and_row, seeds, st.integers(0, 5), st.booleans())
def test_packing_conserves_every_position_with_the_token_that_follows_it(sizes, seed, epoch, shuffle):
    lengths, row_tokens = sizes
    store = store_of(lengths)
    plan = plan_epoch(lengths, row_tokens, seed=seed, epoch=epoch, shuffle=shuffle)
    rows = read_rows(store, plan, range(plan.rows))
    real = rows.segments > 0
    expected = [t for a, n in zip(store.offsets, lengths, strict=False) for t in range(a, a + n - 1)]
    assert sorted(rows.tokens[real].tolist()) == expected
    assert (rows.following[real] == rows.tokens[real] + 1).all()
    assert (rows.following[~real] == -1).all()


@given(lengths_and_row, seeds, st.booleans())
def test_a_segment_is_one_unbroken_piece_of_one_document(sizes, seed, shuffle):
    lengths, row_tokens = sizes
    store = store_of(lengths)
    plan = plan_epoch(lengths, row_tokens, seed=seed, epoch=0, shuffle=shuffle)
    rows = read_rows(store, plan, range(plan.rows))
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    for tokens, segments, documents in zip(rows.tokens, rows.segments, rows.documents, strict=True):
        assert len(tokens) == row_tokens
        filled = int((segments > 0).sum())
        assert (segments[filled:] == 0).all()  # padding only at the end
        assert sorted(set(segments[:filled].tolist())) == list(range(1, len(documents) + 1))
        for segment, document in enumerate(documents, start=1):
            piece = tokens[segments == segment]
            assert set(document_of[piece].tolist()) == {document}
            assert (np.diff(piece) == 1).all()


@given(lengths_and_row, seeds, st.integers(0, 5))
def test_a_plan_is_a_pure_function_of_seed_and_epoch(sizes, seed, epoch):
    lengths, row_tokens = sizes
    first, again = (plan_epoch(lengths, row_tokens, seed=seed, epoch=epoch) for _ in range(2))
    for name in ("documents", "starts", "lengths", "row_offsets"):
        assert (getattr(first, name) == getattr(again, name)).all()


@given(lengths_and_row, seeds)
def test_validation_rows_do_not_depend_on_seed_or_epoch(sizes, seed):
    lengths, row_tokens = sizes
    one = plan_epoch(lengths, row_tokens, seed=0, epoch=0, shuffle=False)
    two = plan_epoch(lengths, row_tokens, seed=seed, epoch=seed, shuffle=False)
    assert (one.documents == two.documents).all()
    assert (one.starts == two.starts).all()


@given(lengths_and_row, seeds)
def test_packing_many_at_once_takes_as_many_rows_as_one_at_a_time(sizes, seed):
    lengths, row_tokens = sizes
    plan = plan_epoch(lengths, row_tokens, seed=seed, epoch=0)
    assert plan.rows == best_fit_decreasing(plan.lengths.tolist(), row_tokens)


def test_other_epochs_and_seeds_compose_other_rows():
    lengths = [20] * 200
    composed = Counter()
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        plan = plan_epoch(lengths, 64, seed=seed, epoch=epoch)
        composed.update(tuple(row.tolist()) for row in np.split(plan.documents, plan.row_offsets[1:-1]))
    assert composed.most_common(1)[0][1] <= 2
