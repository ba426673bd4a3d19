import time

import numpy as np
import pytest

from gristmill.corpus.rows import plan_epoch, read_rows
from gristmill.corpus.shards import TokenStore
from gristmill.errors import InputError


def store_of(*documents, tmp_path):
    tokens = np.concatenate([np.array(d, dtype=np.uint16) for d in documents])
    offsets = np.cumsum([0, *map(len, documents)])
    return TokenStore(tokens, offsets, np.ones(len(documents), dtype=np.int32), tmp_path / "ids")


def test_validation_rows_hold_the_documents_in_order_from_their_start(tmp_path):
    store = store_of([1, 10, 11, 12, 13, 14, 2], [1, 20, 2], [1, 30, 31, 2], tmp_path=tmp_path)
    plan = plan_epoch(store.lengths, 4, seed=0, epoch=0, shuffle=False)
    rows = read_rows(store, plan, range(plan.rows))
    assert rows.tokens.tolist() == [[1, 10, 11, 12], [13, 14, 1, 20], [1, 30, 31, 0]]
    assert rows.following.tolist() == [[10, 11, 12, 13], [14, 2, 20, 2], [30, 31, 2, -1]]
    assert rows.segments.tolist() == [[1, 1, 1, 1], [1, 1, 2, 2], [1, 1, 1, 0]]
    assert rows.documents == ((0,), (0, 1), (2,))
    assert plan.padding_share == pytest.approx(1 / 12)


def test_without_lookahead_the_last_token_is_there_and_nothing_follows_it(tmp_path):
    store = store_of([1, 10, 2], [1, 2], tmp_path=tmp_path)
    rows = read_rows(store, plan_epoch(store.lengths, 5, seed=0, epoch=0, shuffle=False, lookahead=0), [0])
    assert rows.tokens.tolist() == [[1, 10, 2, 1, 2]]
    assert rows.following.tolist() == [[10, 2, -1, 2, -1]]


def test_rows_are_read_in_the_order_asked_for(tmp_path):
    store = store_of(range(1, 40), range(50, 90), tmp_path=tmp_path)
    plan = plan_epoch(store.lengths, 8, seed=3, epoch=1)
    every = read_rows(store, plan, range(plan.rows)).tokens
    chosen = [4, 0, 4]
    assert (read_rows(store, plan, chosen).tokens == every[chosen]).all()


def test_a_corpus_smaller_than_one_row_says_what_to_do():
    with pytest.raises(InputError, match="2 documents give 14 positions") as caught:
        plan_epoch([8, 8], 64, seed=0, epoch=0)
    assert caught.value.hint == "add text, or set row_tokens to 3 or less"
    assert plan_epoch([8, 8], 64, seed=0, epoch=0, shuffle=False).rows == 1
    with pytest.raises(InputError, match="0 documents give 0 positions"):
        plan_epoch([], 64, seed=0, epoch=0, shuffle=False)


def test_a_long_document_is_cut_elsewhere_in_every_epoch():
    plans = [plan_epoch([1001], 100, seed=0, epoch=epoch) for epoch in range(8)]
    assert len({tuple(sorted(plan.starts.tolist())) for plan in plans}) == 8


def test_windows_bound_the_memory_and_change_no_conservation(monkeypatch):
    monkeypatch.setattr("gristmill.corpus.rows.WINDOW_DOCUMENTS", 10)
    lengths = np.arange(2, 102)
    plan = plan_epoch(lengths, 32, seed=0, epoch=0)
    assert plan.positions == (lengths - 1).sum()
    assert sorted(set(plan.documents.tolist())) == list(range(100))
    assert np.add.reduceat(plan.lengths, plan.row_offsets[:-1]).max() <= 32


@pytest.mark.parametrize("mean_log", [3, 5, 7])
def test_hardly_anything_is_padding(mean_log):
    lengths = np.random.default_rng(0).lognormal(mean_log, 1.0, 5000).astype(int) + 2
    assert plan_epoch(lengths, 256, seed=0, epoch=0).padding_share < 0.01


def test_a_million_documents_are_planned_in_seconds_and_rows_are_read_beside_a_step(tmp_path):
    lengths = np.random.default_rng(0).lognormal(5, 1.0, 1_000_000).astype(int) + 2
    started = time.process_time()
    plan = plan_epoch(lengths, 512, seed=0, epoch=0)
    assert time.process_time() - started < 10  # 1 to 2 on a quiet core
    offsets = np.append(0, np.cumsum(lengths))
    store = TokenStore(np.zeros(offsets[-1], dtype=np.uint16), offsets, lengths, tmp_path / "ids")
    started = time.process_time()
    for first in range(0, 160, 16):
        read_rows(store, plan, range(first, first + 16))
    assert time.process_time() - started < 0.2  # 10 batches of 16 rows: about 4 ms


@pytest.mark.shared_data
def test_real_lengths_leave_under_a_twentieth_as_padding(shared_data):
    lines = (shared_data / "tinyshakespeare" / "input.txt").read_text("utf-8").split("\n\n")
    plan = plan_epoch([len(line.encode()) + 2 for line in lines], 256, seed=0, epoch=0)
    assert plan.padding_share < 0.05
