"""Packing: which piece of which document stands where in which row, in every epoch.

A document of n stored tokens has n - lookahead positions: the last `lookahead` tokens are only ever targets. A
document longer than a row is cut into pieces; pieces are packed into rows of `row_tokens` without cropping or
dropping a single position. All of it is a pure function of the lengths, the seed and the epoch.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gristmill.corpus.shards import TokenStore
from gristmill.errors import InputError
from gristmill.rng import derive, stream
from gristmill.rows import Rows

__all__ = ["Plan", "places_of_rows", "plan_epoch", "plan_round", "read_rows"]

WINDOW_DOCUMENTS = 1 << 20  # documents packed together: bounds the working memory, costs nothing in padding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Every piece of an epoch, row after row: row r holds the pieces `row_offsets[r]` to `row_offsets[r + 1]`."""

    row_tokens: int
    lookahead: int
    documents: Int[np.ndarray, " pieces"]
    """The document of each piece, by its number in the split."""
    starts: Int[np.ndarray, " pieces"]
    """Where the piece begins in its document, in stored tokens."""
    lengths: Int[np.ndarray, " pieces"]
    row_offsets: Int[np.ndarray, " rows_and_one"]

    @property
    def rows(self) -> int:
        """How many rows the epoch has."""
        return len(self.row_offsets) - 1

    @property
    def positions(self) -> int:
        """How many positions are not padding."""
        return int(self.lengths.sum())

    @property
    def padding_share(self) -> float:
        """The share of all positions that is padding."""
        return 1.0 - self.positions / (self.rows * self.row_tokens)


def plan_epoch(
    lengths: Int[np.ndarray, " documents"] | Sequence[int],
    row_tokens: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    lookahead: int = 1,
) -> Plan:
    """Returns the rows of one epoch over documents of these lengths in stored tokens.

    With `shuffle`, a long document is cut at a phase drawn from (seed, epoch, document), and rows are composed
    and ordered anew in every epoch. Without, which is for validation, each long document is cut from its start
    and the rows go by their first document, whatever the seed and the epoch.

    Raises:
        InputError: there are fewer positions than one row holds (with `shuffle`), or none at all.
    """
    if row_tokens < 1:
        raise InputError(f"row_tokens is {row_tokens}, expected at least 1")
    positions = np.maximum(np.asarray(lengths, dtype=np.int64) - lookahead, 0)
    _check_size(int(positions.sum()), len(positions), row_tokens, training=shuffle)
    order = np.flatnonzero(positions)
    if shuffle:
        order = stream(seed, "documents", epoch).permutation(order)
    windows = []
    rows = 0
    for window, first in enumerate(range(0, len(order), WINDOW_DOCUMENTS)):
        documents = order[first : first + WINDOW_DOCUMENTS]
        phases = _phases(documents, row_tokens, derive(seed, "phase", epoch)) if shuffle else None
        pieces = _cut(documents, positions[documents], row_tokens, phases)
        if shuffle:
            mixed = stream(seed, "pieces", epoch, window).permutation(len(pieces[0]))
            pieces = tuple(column[mixed] for column in pieces)
        row_of_piece, count = _best_fit_decreasing(pieces[2], row_tokens)
        windows.append((*pieces, row_of_piece + rows))
        rows += count
    columns = [np.concatenate(column) for column in zip(*windows, strict=True)]
    generator = stream(seed, "rows", epoch) if shuffle else None
    return _plan_of(columns, rows, row_tokens, lookahead, generator)


def plan_round(
    lengths: Int[np.ndarray, " documents"],
    row_tokens: int,
    *,
    members: Sequence[Int[np.ndarray, " _"]],
    begins: Float[np.ndarray, " groups"],
    ends: Float[np.ndarray, " groups"],
    seed: int,
    number: int,
    lookahead: int = 1,
) -> Plan:
    """Returns the rows of a round over groups of documents: the pieces whose turn comes in its window of each group.

    Args:
        lengths: of all documents, in stored tokens.
        row_tokens: of a row.
        members: the documents of each group.
        begins: the epochs of each group that were due before the round.
        ends: those that are due after it. Piece p of pass k comes at k + u, with u in [0, 1) a hash of (seed, k, p).
        seed: of the run.
        number: of the round.
        lookahead: how many tokens at the end of a document are only ever targets.
    """
    positions = np.maximum(np.asarray(lengths, dtype=np.int64) - lookahead, 0)
    chosen = [np.empty((3, 0), dtype=np.int64)]
    for documents, begin, end in zip(members, begins, ends, strict=True):
        documents = documents[positions[documents] > 0]
        for nth in range(math.floor(begin), math.ceil(end)):
            phases = _phases(documents, row_tokens, derive(seed, "phase", nth))
            pieces = np.stack(_cut(documents, positions[documents], row_tokens, phases))
            turn = nth + _uniform(_mixed(pieces[0], derive(seed, "turn", nth)) ^ _mixed(pieces[1], nth))
            chosen.append(pieces[:, (begin <= turn) & (turn < end)])
    mixed = np.concatenate(chosen, axis=1)
    mixed = mixed[:, stream(seed, "pieces", number).permutation(mixed.shape[1])]
    row_of_piece, rows = _best_fit_decreasing(mixed[2], row_tokens)
    return _plan_of([*mixed, row_of_piece], rows, row_tokens, lookahead, stream(seed, "rows", number))


def _plan_of(
    columns: Sequence[Any], rows: int, row_tokens: int, lookahead: int, generator: np.random.Generator | None
) -> Plan:
    """The plan of pieces (document, start, length) and the row of each; without a generator in the documents' order."""
    documents, starts, sizes, row_of_piece = columns
    row_of_piece = _order_rows(row_of_piece, rows, documents, generator)
    by_row = np.argsort(row_of_piece, kind="stable")  # inside a row the pieces keep their (shuffled) order
    row_offsets = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(row_of_piece, minlength=rows), out=row_offsets[1:])
    return Plan(
        row_tokens=row_tokens,
        lookahead=lookahead,
        documents=documents[by_row],
        starts=starts[by_row],
        lengths=sizes[by_row],
        row_offsets=row_offsets,
    )


def read_rows(store: TokenStore, plan: Plan, row_indices: Sequence[int] | Int[np.ndarray, " B"]) -> Rows:
    """Returns these rows of the plan, with the token that follows each position in its document."""
    T = plan.row_tokens
    indices = np.asarray(row_indices, dtype=np.int64)
    read = _reading(store, plan, indices)
    sources, places, documents, sizes = read.sources, read.places, read.documents, read.sizes

    tokens = np.zeros(len(indices) * T, dtype=np.int64)
    segments = np.zeros(len(indices) * T, dtype=np.int64)
    following = np.full(len(indices) * T, -1, dtype=np.int64)
    tokens[places] = store.tokens[sources]
    segments[places] = np.repeat(read.nth_in_row + 1, sizes)
    if plan.lookahead >= 1:
        following[places] = store.tokens[sources + 1]
    else:
        inside = sources + 1 < np.repeat(store.offsets[documents + 1], sizes)
        following[places[inside]] = store.tokens[sources[inside] + 1]
    shape = (len(indices), T)
    return Rows(
        tokens=tokens.reshape(shape),
        segments=segments.reshape(shape),
        following=following.reshape(shape),
        documents=tuple(tuple(part.tolist()) for part in np.split(documents, np.cumsum(read.counts)[:-1])),
    )


def places_of_rows(
    store: TokenStore, plan: Plan, row_indices: Sequence[int] | Int[np.ndarray, " B"]
) -> Int[np.ndarray, "B T"]:
    """Returns where in the store the token of each position of these rows is: -1 for padding."""
    indices = np.asarray(row_indices, dtype=np.int64)
    read = _reading(store, plan, indices)
    found = np.full(len(indices) * plan.row_tokens, -1, dtype=np.int64)
    found[read.places] = read.sources
    return found.reshape(len(indices), plan.row_tokens)


class _Reading(NamedTuple):
    """Which stored token goes where in some rows."""

    sources: Any
    """The stored token of each position that is no padding."""
    places: Any
    """The position, counted through all rows."""
    documents: Any
    """Of each piece."""
    sizes: Any
    """Of each piece, in tokens."""
    nth_in_row: Any
    """0 for the first piece of each row."""
    counts: Any
    """The pieces of each row."""


def _reading(store: TokenStore, plan: Plan, indices: Any) -> _Reading:
    T = plan.row_tokens
    first, last = plan.row_offsets[indices], plan.row_offsets[indices + 1]
    counts = last - first
    pieces = np.repeat(first - _sums_before(counts), counts) + np.arange(int(counts.sum()))
    sizes = plan.lengths[pieces]
    documents = plan.documents[pieces]
    nth_in_row = pieces - np.repeat(first, counts)  # 0 for the first piece of each row
    before = _sums_before(sizes)
    row_begins = np.repeat(before[_sums_before(counts)], counts)  # every row has at least one piece
    targets_at = np.repeat(np.arange(len(indices)), counts) * T + before - row_begins
    within = np.arange(int(sizes.sum())) - np.repeat(before, sizes)
    sources = np.repeat(store.offsets[documents] + plan.starts[pieces], sizes) + within
    places = np.repeat(targets_at, sizes) + within
    return _Reading(sources, places, documents, sizes, nth_in_row, counts)


def _check_size(positions: int, documents: int, row_tokens: int, *, training: bool) -> None:
    if positions >= (row_tokens if training else 1):
        return
    raise InputError(
        f"{documents:,} documents give {positions:,} positions to learn from, which does not fill one row of "
        f"{row_tokens:,}",
        f"add text, or set row_tokens to {max(positions // 4, 1):,} or less" if positions else "add text",
    )


def _phases(documents: Any, row_tokens: int, key: int) -> Any:
    """The length of the first piece of each long document, 1 to row_tokens: a hash, so no order matters."""
    return (_mixed(documents, key) % np.uint64(row_tokens)).astype(np.int64) + 1


def _mixed(numbers: Any, key: int) -> Any:
    """A hash of each number: splitmix64 (Steele, Lea, Flood 2014), one round of it, all at once."""
    x = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uniform(hashes: Any) -> Any:
    """Numbers in [0, 1) from the upper bits of hashes."""
    return (hashes >> np.uint64(11)).astype(float) * 2.0**-53


def _cut(documents: Any, positions: Any, row_tokens: int, phases: Any | None) -> tuple[Any, ...]:
    """The pieces (document, start, length) of documents: one each, or more where it is longer than a row."""
    first = np.full(len(documents), row_tokens, dtype=np.int64) if phases is None else phases
    first = np.where(positions > row_tokens, first, positions)
    counts = 1 + -(-(positions - first) // row_tokens)
    nth = np.arange(int(counts.sum())) - np.repeat(_sums_before(counts), counts)
    first = np.repeat(first, counts)
    starts = np.where(nth > 0, first + (nth - 1) * row_tokens, 0)
    ends = np.minimum(first + nth * row_tokens, np.repeat(positions, counts))
    return np.repeat(documents, counts), starts, ends - starts


def _best_fit_decreasing(lengths: Any, row_tokens: int) -> tuple[Any, int]:
    """The row of each piece, and the number of rows: longest pieces first, each where the least room remains.

    The same packing as piece by piece, but all pieces of one length go at once into all rows with the same
    room, so the cost is that of a sort (the idea of Krell et al. 2021, arXiv:2107.02027, packing histograms).
    """
    row_of_piece = np.empty(len(lengths), dtype=np.int64)
    by_length = np.argsort(-lengths, kind="stable")
    sizes, begins = np.unique(-lengths[by_length], return_index=True)
    ends = [*begins[1:].tolist(), len(lengths)]
    rows = 0
    rooms: dict[int, list[Any]] = {}  # free positions -> rows that have so many
    room_exists = np.zeros(row_tokens + 1, dtype=bool)
    for length, begin, end in zip((-sizes).tolist(), begins.tolist(), ends, strict=True):
        while begin < end:
            room = length + int(room_exists[length:].argmax())
            if room_exists[room]:
                open_rows = np.concatenate(rooms.pop(room))
                room_exists[room] = False
            else:
                room = row_tokens
                fresh = -(-(end - begin) // (room // length))
                open_rows = np.arange(rows, rows + fresh)
                rows += fresh
            # A row that took one piece has the least room of all, so it takes pieces until none fits any more.
            each = room // length
            full, rest = divmod(end - begin, each)
            full = min(full, len(open_rows))
            placed = np.repeat(open_rows[:full], each)
            left = [(room - each * length, open_rows[:full])]
            if full < len(open_rows):
                partly = 1 if rest else 0
                placed = np.concatenate([placed, np.repeat(open_rows[full : full + partly], rest)])
                left.append((room - rest * length, open_rows[full : full + partly]))
                left.append((room, open_rows[full + partly :]))
            row_of_piece[by_length[begin : begin + len(placed)]] = placed
            begin += len(placed)
            for free, which in left:
                if free and len(which):
                    rooms.setdefault(free, []).append(which)
                    room_exists[free] = True
    return row_of_piece, rows


def _order_rows(row_of_piece: Any, rows: int, documents: Any, generator: np.random.Generator | None) -> Any:
    """The rows' new numbers: shuffled, or by the first document in each."""
    if generator is not None:
        return generator.permutation(rows)[row_of_piece]
    least = np.full(rows, np.iinfo(np.int64).max)
    np.minimum.at(least, row_of_piece, documents)
    place = np.empty(rows, dtype=np.int64)
    place[np.argsort(least, kind="stable")] = np.arange(rows)
    return place[row_of_piece]


def _sums_before(counts: Any) -> Any:
    return np.cumsum(counts) - counts
