"""The documents' pieces in packed rows, one after another without padding, and rows made of what became of them.

An objective that lengthens, shortens or shuffles text works on flat arrays, all pieces at once; rows come last. Two
rows, and the same as flat arrays:

    tokens     <bos> a b <bos> c           <bos> a b <bos> c d e <eos>
               d e <eos> -     -
    segments   1     1 1 2     2           1     1 1 2     2 1 1 1
               1 1 1     0     0
    numbers                                0     0 0 1     1 2 2 2
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gristmill.batch import Batch, Source, Visibility
from gristmill.errors import InputError
from gristmill.objectives.base import Rate
from gristmill.rows import Rows

__all__ = ["Flat", "Pieces", "check_shares", "first_of_each", "shuffled_within", "source_and_target"]

WIDTH = 16
"""Rows of sources and targets are a multiple of this wide: oneDNN keeps a program for each shape that it has met."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """All pieces of a batch as flat arrays, row by row, without padding."""

    tokens: Int[np.ndarray, " N"]
    rows: Int[np.ndarray, " N"]
    segments: Int[np.ndarray, " N"]
    numbers: Int[np.ndarray, " N"]
    """Which piece each token is in, from 0."""
    ordinary: Bool[np.ndarray, " N"]
    """Whether it stands for text."""
    count: int
    """How many pieces there are."""

    @classmethod
    def of(cls, rows: Rows) -> "Pieces":
        """Returns the pieces of packed rows."""
        filled = rows.segments != 0
        begins = np.ones_like(filled)
        begins[:, 1:] = rows.segments[:, 1:] != rows.segments[:, :-1]
        numbers = np.cumsum(begins[filled]) - 1
        tokens = rows.tokens[filled].astype(np.int64)
        return cls(
            tokens=tokens,
            rows=np.nonzero(filled)[0],
            segments=rows.segments[filled].astype(np.int64),
            numbers=numbers,
            ordinary=rows.words.is_ordinary[tokens],
            count=int(numbers[-1]) + 1 if len(numbers) else 0,
        )

    def sizes(self, places: Int[np.ndarray, " P"]) -> Int[np.ndarray, " pieces"]:
        """Returns how many of some places lie in each piece."""
        sizes: Int[np.ndarray, " pieces"] = np.bincount(self.numbers[places], minlength=self.count)
        return sizes


class Flat(NamedTuple):
    """Tokens of many rows without padding, row by row; segments number them within a row."""

    tokens: Int[np.ndarray, " N"]
    rows: Int[np.ndarray, " N"]
    segments: Int[np.ndarray, " N"]


def first_of_each(groups: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Returns where each group begins, of groups that stand side by side: [0, 0, 3, 3, 3] -> [1, 0, 1, 0, 0]."""
    begins: Bool[np.ndarray, " N"] = np.diff(groups, prepend=-1) != 0
    return begins


def shuffled_within(
    groups: Int[np.ndarray, " N"], rng: np.random.Generator, units: Int[np.ndarray, " N"] | None = None
) -> Int[np.ndarray, " N"]:
    """Returns an order in which each group is shuffled and stays where it is.

    Args:
        groups: ascending.
        rng: draws the order.
        units: what is moved as a whole, ascending from 0; None: each place alone.
    """
    keys = rng.random(len(groups)) if units is None else rng.random(int(units.max(initial=-1)) + 1)[units]
    return np.lexsort((keys, groups))


def source_and_target(source: Flat, target: Flat, *, rows: int, start: int) -> Batch:
    """Returns the batch in which each segment of `target` is written about the same segment of `source`.

    The decoder reads the start token and then all of the target but its last token. Rows are as wide as the fullest,
    rounded up.
    """
    before = np.roll(target.tokens, 1)
    before[first_of_each(target.rows) | first_of_each(target.segments)] = start
    targets, segments = _in_rows(target, rows)
    source_tokens, source_segments = _in_rows(source, rows)
    return Batch(
        tokens=_in_rows(target._replace(tokens=before), rows)[0],
        targets=targets,
        weights=(segments != 0).float(),
        segments=segments,
        visibility=Visibility.CAUSAL,
        source=Source(tokens=source_tokens, segments=source_segments),
    )


def check_shares(**rates: Rate) -> None:
    """Refuses rates that are no shares, at any time of the training.

    Raises:
        InputError: one is below 0 or above 1, or a schedule is empty.
    """
    for name, rate in rates.items():
        stops = rate if isinstance(rate, tuple) else (rate,)
        if not stops or not all(0 <= stop <= 1 for stop in stops):
            raise InputError(f"{name} is {rate}, expected a share of 0 to 1", "15 % is 0.15")


def _in_rows(flat: Flat, rows: int) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Tokens and segments as padded rows."""
    sizes = np.bincount(flat.rows, minlength=rows)
    width = -(-max(int(sizes.max()), 1) // WIDTH) * WIDTH
    places = np.arange(len(flat.rows)) + (np.arange(rows) * width - np.cumsum(sizes) + sizes)[flat.rows]
    tokens, segments = np.zeros((2, rows * width), dtype=np.int64)
    tokens[places], segments[places] = flat.tokens, flat.segments
    return torch.from_numpy(tokens.reshape(rows, width)), torch.from_numpy(segments.reshape(rows, width))
