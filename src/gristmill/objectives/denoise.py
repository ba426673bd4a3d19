"""Write a text as it was, having read it with noise (Lewis et al. 2020, BART, arXiv:1910.13461, section 2.2).

Two documents in one row; in the first the sentences have changed places and a span was left out, in the second two
spans were, one of them empty:

    rows       <bos> a b . c d e . <eos> <bos> f g h
    source     <bos> c <mask> . a b . <eos> <bos> f <mask> <mask> h     segments 1 1 1 1 1 1 1 1 2 2 2 2 2
    target     a b . c d e . <eos> f g h                                segments 1 1 1 1 1 1 1 1 2 2 2
    decoder    <bos> a b . c d e . <bos> f g                            (the target, one position later)

The target is the whole text, and all of it counts. It has the end where the text has it, so not where it goes on in
another row.

    token masking          masking
    token deletion         deletion
    text infilling         infilling, mean_length
    sentence permutation   sentence_shuffling
    (not in the paper)     insertion, replacement: random tokens; reordering: tokens in a wrong order nearby

The paper's document rotation, which hurt there (table 1), is left out.
"""

import dataclasses
from typing import Annotated, ClassVar, NamedTuple, final

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Int

from gristmill.batch import Batch
from gristmill.errors import InputError
from gristmill.model.config import Kind
from gristmill.objectives.base import HowHidden, Rate, TokenObjective, at
from gristmill.objectives.pieces import (
    Flat,
    Pieces,
    check_shares,
    first_of_each,
    shuffled_within,
    source_and_target,
)
from gristmill.objectives.sentences import sentence_ends
from gristmill.rows import Rows
from gristmill.vocabulary import Vocabulary

__all__ = ["Denoise"]


class Noisy(NamedTuple):
    """The text of all pieces on its way to the source, without special tokens."""

    tokens: Int[np.ndarray, " N"]
    places: Int[np.ndarray, " N"]
    """At which token of the batch each stands, ascending; so they belong to a piece, and special tokens fall between."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoise(TokenObjective):
    """Denoising of whole texts (BART); without settings the two noises of BART's own final model."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder-decoder"})
    family: ClassVar[str] = "transformer"
    special: ClassVar[tuple[str, ...]] = ("bos", "mask")
    hidden: ClassVar[HowHidden] = "rewritten"

    sentence_shuffling: Rate = 1.0
    """Share of the texts whose sentences are put in random order."""
    reordering: Rate = 0.0
    """Share of the text whose tokens are put in random order, each near its place."""
    reordering_window: Annotated[int, Ge(2)] = 8
    """How many tokens, side by side, are put in random order together."""
    infilling: Rate = 0.3
    """Share of the text that is left out in spans, each of which one mask token stands for."""
    mean_length: Annotated[float, Gt(0)] = 3.0
    """Tokens of such a span, which are Poisson distributed; for a span of none a mask token is inserted."""
    masking: Rate = 0.0
    """Share of the tokens in place of which a mask token stands."""
    replacement: Rate = 0.0
    """Share of the tokens in place of which a random token stands."""
    deletion: Rate = 0.0
    """Share of the tokens that are left out without a trace."""
    insertion: Rate = 0.0
    """Random tokens that are inserted, for each token that is there. What the source so has more than the text is cut
    from its end."""

    def __post_init__(self) -> None:
        check_shares(
            sentence_shuffling=self.sentence_shuffling,
            reordering=self.reordering,
            infilling=self.infilling,
            masking=self.masking,
            replacement=self.replacement,
            deletion=self.deletion,
            insertion=self.insertion,
        )
        rates = (self.masking, self.replacement, self.deletion)
        # between the stops of all three the sum is a straight line, so it is highest at one of them
        counts = [len(rate) if isinstance(rate, tuple) else 1 for rate in rates]
        stops = np.concatenate([np.linspace(0.0, 1.0, count) for count in counts]).tolist()
        if (total := max(sum(self._single(stop)) for stop in stops)) > 1 + 1e-9:
            raise InputError(
                f"masking, replacement and deletion together hit {total:.2f} of the tokens",
                "choose shares whose sum is at most 1",
            )

    @property
    def positions_per_token(self) -> float:
        """The text is read and written; what noise leaves out is counted too."""
        return 2.0

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the texts with noise as the source, and the texts as what is to be written."""
        words, pieces = rows.words, Pieces.of(rows)
        places = np.flatnonzero(pieces.ordinary)
        noisy = Noisy(pieces.tokens[places], places)
        noisy = _shuffle_sentences(noisy, pieces, at(self.sentence_shuffling, progress), words, rng)
        noisy = _reorder(noisy, pieces, at(self.reordering, progress), self.reordering_window, rng)
        noisy = _infill(noisy, pieces, at(self.infilling, progress), self.mean_length, words.id("mask"), rng)
        noisy = _hit(noisy, self._single(progress), words, rng)
        noisy = _insert(noisy, at(self.insertion, progress), words, rng)
        start = words.id("bos")
        kept = ~(first_of_each(pieces.numbers) & (pieces.tokens == start))  # the decoder has read it already
        return source_and_target(
            _source(_cut(noisy, pieces), pieces),
            Flat(pieces.tokens[kept], pieces.rows[kept], pieces.segments[kept]),
            rows=len(rows.tokens),
            start=start,
        )

    def _single(self, progress: float) -> tuple[float, float, float]:
        return at(self.masking, progress), at(self.replacement, progress), at(self.deletion, progress)


def _shuffle_sentences(
    noisy: Noisy, pieces: Pieces, share: float, vocabulary: Vocabulary, rng: np.random.Generator
) -> Noisy:
    """Sentences in random order, in a share of the pieces."""
    if share == 0.0:
        return noisy
    numbers = pieces.numbers[noisy.places]
    begins = first_of_each(numbers)
    begins[1:] |= sentence_ends(noisy.tokens, vocabulary)[:-1]
    # a piece that keeps its order is moved as one
    begins &= (rng.random(pieces.count) < share)[numbers] | first_of_each(numbers)
    order = shuffled_within(numbers, rng, units=np.cumsum(begins) - 1)
    return noisy._replace(tokens=noisy.tokens[order])


def _reorder(noisy: Noisy, pieces: Pieces, share: float, window: int, rng: np.random.Generator) -> Noisy:
    """Tokens in random order within windows that are a share of the text; where windows begin is random."""
    if share == 0.0:
        return noisy
    begins = first_of_each(pieces.numbers[noisy.places])
    phases = rng.integers(0, window, size=pieces.count)[pieces.numbers[noisy.places]]
    begins |= (np.arange(len(noisy.tokens)) + phases) % window == 0
    windows = np.cumsum(begins) - 1
    chosen = (rng.random(len(noisy.tokens)) < share)[windows]
    # a window that is not chosen is moved as one
    units = np.cumsum(begins | chosen) - 1
    return noisy._replace(tokens=noisy.tokens[shuffled_within(windows, rng, units=units)])


def _infill(
    noisy: Noisy, pieces: Pieces, share: float, mean: float, mask_id: int, rng: np.random.Generator
) -> Noisy:
    """A mask token in place of each span; spans and the tokens between them stand in random order.

    As many tokens of each piece are left out as the share asks for (rounded at random), the last span being cut to
    that; so no two spans overlap, as they may in the paper's published code.
    """
    if share == 0.0:
        return noisy
    sizes = pieces.sizes(noisy.places)
    wanted = (sizes * share + rng.random(pieces.count)).astype(np.int64).clip(max=sizes)
    # twice as many as are needed on average, and some: should they not do, a few tokens less are left out
    draws = np.where(wanted > 0, np.ceil(2 * wanted / mean).astype(np.int64) + 8, 0)
    owners = np.repeat(np.arange(pieces.count), draws)
    lengths = rng.poisson(mean, size=len(owners))
    before = np.cumsum(lengths) - lengths
    before -= before[(np.cumsum(draws) - draws)[owners]]
    needed = before < wanted[owners]
    owners, lengths = owners[needed], np.minimum(lengths, wanted[owners] - before)[needed]
    kept = sizes - np.bincount(owners, weights=lengths, minlength=pieces.count).astype(np.int64)

    groups = np.concatenate([np.repeat(np.arange(pieces.count), kept), owners])
    order = shuffled_within(groups, rng)
    groups = groups[order]
    lengths = np.concatenate([np.ones(int(kept.sum()), dtype=np.int64), lengths])[order]
    is_span = order >= int(kept.sum())
    # a span of none at the end of a piece would stand at the start of the next
    first = np.minimum(np.cumsum(lengths) - lengths, np.cumsum(sizes)[groups] - 1)
    return Noisy(np.where(is_span, mask_id, noisy.tokens[first]), noisy.places[first])


def _hit(
    noisy: Noisy, shares: tuple[float, float, float], vocabulary: Vocabulary, rng: np.random.Generator
) -> Noisy:
    """Single tokens masked, replaced, or left out: each token of the text has one fate at most."""
    masked, replaced, deleted = np.cumsum(shares).tolist()
    if deleted == 0.0:
        return noisy
    # what stands for a span is no token of the text
    fate = np.where(vocabulary.is_ordinary[noisy.tokens], rng.random(len(noisy.tokens)), 1.0)
    tokens = np.where(fate < replaced, _random_tokens(len(fate), vocabulary, rng), noisy.tokens)
    if masked > 0.0:
        tokens = np.where(fate < masked, vocabulary.id("mask"), tokens)
    stays = (fate < replaced) | (fate >= deleted)
    return Noisy(tokens[stays], noisy.places[stays])


def _insert(noisy: Noisy, share: float, vocabulary: Vocabulary, rng: np.random.Generator) -> Noisy:
    """Random tokens before a share of the tokens."""
    if share == 0.0:
        return noisy
    source = np.repeat(np.arange(len(noisy.tokens)), 1 + (rng.random(len(noisy.tokens)) < share))
    new = np.append(source[:-1] == source[1:], False)[: len(source)]
    tokens = np.where(new, _random_tokens(len(source), vocabulary, rng), noisy.tokens[source])
    return Noisy(tokens, noisy.places[source])


def _random_tokens(count: int, vocabulary: Vocabulary, rng: np.random.Generator) -> Int[np.ndarray, " N"]:
    chosen: Int[np.ndarray, " N"] = rng.choice(vocabulary.ordinary, size=count)
    return chosen


def _cut(noisy: Noisy, pieces: Pieces) -> Noisy:
    """No piece longer than it was: it so fits where the rows fit, however it shares its row."""
    numbers = pieces.numbers[noisy.places]
    sizes = np.bincount(numbers, minlength=pieces.count)
    within = np.arange(len(numbers)) - (np.cumsum(sizes) - sizes)[numbers]
    fits = within < np.bincount(pieces.numbers[pieces.ordinary], minlength=pieces.count)[numbers]
    return Noisy(noisy.tokens[fits], noisy.places[fits])


def _source(noisy: Noisy, pieces: Pieces) -> Flat:
    """What became of the text, and the special tokens where they were."""
    special = np.flatnonzero(~pieces.ordinary)
    places = np.concatenate([noisy.places, special])
    order = np.argsort(places, kind="stable")
    places = places[order]
    tokens = np.concatenate([noisy.tokens, pieces.tokens[special]])[order]
    return Flat(tokens, pieces.rows[places], pieces.segments[places])


EXPORT = Denoise
