"""Leave spans out of a text, and write them one after another (Raffel et al. 2020, T5, arXiv:1910.10683).

Span corruption as in section 3.1.4 and figure 2. In the source each span becomes one sentinel token, the first <0>,
the second <1>, and so on; the target names each sentinel and what stood there. Two documents in one row:

    rows       <bos> a b c d e f <eos> <bos> g h i
    source     <bos> a <0> d <1> f <eos> <bos> g <0> i         segments 1 1 1 1 1 1 1 2 2 2 2
    target     <0> b c <1> e <eos> <0> h <eos>                 segments 1 1 1 1 1 1 2 2 2
    decoder    <bos> <0> b c <1> e <bos> <0> h                 (the target, one position later)

All of the target counts. Special tokens are left in the source.
"""

import dataclasses
from typing import Annotated, ClassVar, final

import numpy as np
from annotated_types import Ge
from jaxtyping import Bool, Int

from gristmill.batch import Batch
from gristmill.errors import InputError
from gristmill.model.config import Kind
from gristmill.objectives.base import HowHidden, Rate, TokenObjective, at, average
from gristmill.objectives.pieces import (
    Flat,
    Pieces,
    check_shares,
    first_of_each,
    shuffled_within,
    source_and_target,
)
from gristmill.rows import Rows
from gristmill.tokenizer.framing import start_token
from gristmill.vocabulary import Vocabulary

__all__ = ["Spans"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans(TokenObjective):
    """Span corruption (T5)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder-decoder"})
    family: ClassVar[str] = "t5"
    special: ClassVar[tuple[str, ...]] = ("eos",)
    hidden: ClassVar[HowHidden] = "by sentinel"

    rate: Rate = 0.15
    """Share of the text that is left out."""
    mean_length: Rate = 3.0
    """Tokens of a span, on average over each piece of text."""
    sentinels: Annotated[int, Ge(1)] = 100
    """How many spans a piece of text may have; longer texts have longer ones."""

    def __post_init__(self) -> None:
        check_shares(rate=self.rate)
        lengths = self.mean_length if isinstance(self.mean_length, tuple) else (self.mean_length,)
        if not lengths or min(lengths) < 1:
            raise InputError(f"mean_length is {self.mean_length}, expected 1 or more", "T5's is 3.0")

    @property
    def positions_per_token(self) -> float:
        """Each token is read or written, and each sentinel both."""
        return 1 + 2 * average(self.rate) / average(self.mean_length)

    @property
    def scored_share(self) -> float:
        """What is written: the tokens that are left out, and a sentinel for each span."""
        return average(self.rate) * (1 + 1 / average(self.mean_length))

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the texts without some spans as the source, and the spans as what is to be written."""
        words, pieces = rows.words, Pieces.of(rows)
        left_out = np.zeros(len(pieces.tokens), dtype=bool)
        places = np.flatnonzero(pieces.ordinary)
        counts = self._counts(pieces, places, progress)
        left_out[places] = _spans(pieces.numbers[places], pieces.sizes(places), *counts, rng)
        begins = _begins(pieces, left_out)
        nth = np.cumsum(begins) - 1
        nth -= np.maximum.accumulate(np.where(first_of_each(pieces.numbers), nth + ~begins, 0))
        # special tokens inside a text, or the turn in _spans with a single sentinel, may make more of them
        left_out &= nth < self.sentinels
        begins &= left_out
        sentinels = np.asarray(words.sentinels, dtype=np.int64)[np.minimum(nth, self.sentinels - 1)]
        return source_and_target(
            _source(pieces, left_out, begins, sentinels),
            _target(pieces, left_out, begins, sentinels, words.id("eos")),
            rows=len(rows.tokens),
            start=start_token(words.special),
        )

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Refuses a vocabulary without an end, sentinels, or what the decoder begins with.

        Raises:
            InputError: one is missing.
        """
        super().check_vocabulary(vocabulary)
        start_token(vocabulary.special)

    def _counts(
        self, pieces: Pieces, places: Int[np.ndarray, " places"], progress: float
    ) -> tuple[Int[np.ndarray, " pieces"], Int[np.ndarray, " pieces"]]:
        """How many tokens each piece is without, and in how many spans.

        A target is at most as long as its piece, so that all targets fit where the rows fit: it has the tokens, a
        sentinel for each span, of which there may be one more than asked for (`_spans`), and the end.
        """
        sizes, first = pieces.sizes(places), first_of_each(pieces.numbers)
        # a special token inside the text may cut a span in two, so the place that it takes is not counted
        ends = np.flatnonzero((first | np.roll(first, -1)) & ~pieces.ordinary)
        lengths = sizes + pieces.sizes(ends)
        tokens = np.rint(sizes * at(self.rate, progress)).astype(np.int64).clip(min=1)
        tokens = np.minimum(tokens, np.minimum(sizes - 1, np.maximum(lengths - 3, 1)))
        tokens[(lengths < 3) | (sizes < 2)] = 0
        spans = np.rint(tokens / at(self.mean_length, progress)).astype(np.int64)
        most = np.minimum(np.minimum(sizes - tokens, lengths - tokens - 2), self.sentinels - 1)
        return tokens, np.where(tokens > 0, np.clip(spans, 1, most.clip(min=1)), 0)


def _spans(
    numbers: Int[np.ndarray, " places"],
    sizes: Int[np.ndarray, " pieces"],
    tokens: Int[np.ndarray, " pieces"],
    spans: Int[np.ndarray, " pieces"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, " places"]:
    """Which tokens are left out: `tokens` of each piece's `sizes`, in so many `spans`.

    What is left out is cut at random into spans, and what is kept into as many, each way to do so equally likely; the
    two alternate (random_spans_noise_mask in T5's published code). Then the piece is turned by a random distance, its
    end coming before its start (random_roll there): each token is then left out equally often, and not the last one
    always and the first one never. A span that is cut in two by that counts as two.
    """
    kept = _cut_at_random(sizes - tokens, np.where(tokens > 0, spans, sizes > 0).astype(np.int64), rng)
    gone = _cut_at_random(tokens, spans, rng)
    which = np.repeat([False, True], [len(kept), len(gone)])
    pieces = np.arange(len(sizes))
    owners = np.concatenate([np.repeat(pieces, sizes - tokens), np.repeat(pieces, tokens)])
    # by piece, then by the number of the span, kept before left out
    which = which[np.lexsort((which, np.concatenate([kept, gone]), owners))]
    starts = np.cumsum(sizes) - sizes
    turn = rng.integers(0, sizes.clip(min=1))
    within = (np.arange(len(numbers)) - starts[numbers] + turn[numbers]) % sizes[numbers]
    turned: Bool[np.ndarray, " places"] = which[starts[numbers] + within]
    return turned


def _cut_at_random(
    sizes: Int[np.ndarray, " pieces"], parts: Int[np.ndarray, " pieces"], rng: np.random.Generator
) -> Int[np.ndarray, " total"]:
    """The part of each item, from 0, where `sizes` items are cut into `parts` that are not empty."""
    owners = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    first = np.zeros(len(owners), dtype=bool)
    first[starts[sizes > 0]] = True
    # of the places where a part could begin, the first of a random order; the piece's own start is one already
    candidates = np.flatnonzero(~first)
    order = candidates[shuffled_within(owners[candidates], rng)]
    nth = np.arange(len(order)) - (starts - np.cumsum(sizes > 0) + (sizes > 0))[owners[order]]
    begins = np.zeros(len(owners), dtype=np.int64)
    begins[order[nth < parts[owners[order]] - 1]] = 1
    total = np.cumsum(begins)
    part: Int[np.ndarray, " total"] = total - total[starts[owners]]
    return part


def _begins(pieces: Pieces, left_out: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Where a span begins."""
    begins = left_out.copy()
    begins[1:] &= ~left_out[:-1] | first_of_each(pieces.numbers)[1:]
    return begins


def _source(
    pieces: Pieces,
    left_out: Bool[np.ndarray, " N"],
    begins: Bool[np.ndarray, " N"],
    sentinels: Int[np.ndarray, " N"],
) -> Flat:
    stays = ~left_out | begins
    tokens = np.where(begins, sentinels, pieces.tokens)
    return Flat(tokens[stays], pieces.rows[stays], pieces.segments[stays])


def _target(
    pieces: Pieces,
    left_out: Bool[np.ndarray, " N"],
    begins: Bool[np.ndarray, " N"],
    sentinels: Int[np.ndarray, " N"],
    end: int,
) -> Flat:
    last = np.roll(first_of_each(pieces.numbers), -1)
    something = np.bincount(pieces.numbers[left_out], minlength=pieces.count) > 0
    last &= something[pieces.numbers]
    sizes = left_out.astype(np.int64) + begins + last
    after = np.cumsum(sizes)
    tokens = np.empty(int(after[-1]) if len(after) else 0, dtype=np.int64)
    tokens[(after - last - 1)[left_out]] = pieces.tokens[left_out]
    tokens[(after - sizes)[begins]] = sentinels[begins]
    tokens[after[last] - 1] = end
    return Flat(tokens, np.repeat(pieces.rows, sizes), np.repeat(pieces.segments, sizes))


EXPORT = Spans
