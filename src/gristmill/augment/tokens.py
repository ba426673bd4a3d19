"""Noise in the tokens that a model reads; what it has to say stays the true text.

A model that reads the same text many times reads it differently each time, and learns longer from it (Xie et al. 2017,
arXiv:1703.02573: blank and unigram noising). The noise of a step is a function of (seed, step): it is drawn for the
whole step, before that is split into what fits into memory.

A noisy position has read some of its document's places. Its target is the true token that follows the furthest of
them. So no position has its own target before its eyes, and every target is a token of the text:

    text       <bos> a   b   c   d   e                       targets of these: a b c d e f
    mask b     <bos> a   _   c   d   e                       a   b   c   d   e   f
    replace b  <bos> a   x   c   d   e                       a   b   c   d   e   f
    delete b   <bos> a   c   d   e                           a   b   d   e   f            (c is not asked for)
    insert x   <bos> a   b   x   c   d   e                   a   b   c   c   d   e   f    (c is asked for twice)
    swap b, c  <bos> a   c   b   d   e                       a   b   d   d   e   f        (c has been read: d, twice)

Masking and replacing keep each token in its place. They suit every objective, since targets and weights are made before
the noise. The others make a sequence of its own of each piece, and need targets that are the next token and nothing else.
A piece never grows: what it would have too much after insertions is left out as one stretch, at a random place. One that
shrinks leaves padding at the end of its row.

Special tokens are never touched, nor is a document's piece ever left without a token.
"""

import dataclasses
import math
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gristmill.batch import Batch, Source, Visibility
from gristmill.errors import InputError
from gristmill.objectives.base import Objective, Rate, at
from gristmill.objectives.pieces import check_shares
from gristmill.vocabulary import Vocabulary

__all__ = ["Noise"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """How much noise of which kind. A rate is a number, or several that it moves between in the course of training."""

    mask: Rate = 0.0
    """Share of the tokens in place of which the model reads the mask token."""
    replace: Rate = 0.0
    """Share of the tokens in place of which it reads another one, drawn at random."""
    delete: Rate = 0.0
    """Share of the tokens that it does not read."""
    insert: Rate = 0.0
    """Random tokens that it reads besides, for each token of the text."""
    swap: Rate = 0.0
    """Share of the tokens that change places with a neighbour."""
    drawn: Literal["unigram", "uniform"] = "unigram"
    """How random tokens are drawn: as often as they are in the text (of the same step), or each as often."""

    def __post_init__(self) -> None:
        rates = self._rates
        check_shares(**rates)
        single = [rates[name] for name in ("mask", "replace", "delete")]
        # between the stops of all three the sum is a straight line, so it is highest at one of them
        counts = [len(rate) if isinstance(rate, tuple) else 1 for rate in single]
        stops = np.concatenate([np.linspace(0.0, 1.0, count) for count in counts]).tolist()
        if (total := max(sum(at(rate, stop) for rate in single) for stop in stops)) > 1 + 1e-9:
            raise InputError(
                f"mask, replace and delete together hit {total:.2f} of the tokens",
                "choose shares whose sum is at most 1",
            )

    @property
    def special(self) -> tuple[str, ...]:
        """The special tokens that it needs."""
        return ("mask",) if _ever(self.mask) else ()

    def check(self, objective: Objective) -> None:
        """Refuses an objective whose targets it would spoil, before work starts.

        Raises:
            InputError: tokens change their places, and targets are not just the next tokens.
        """
        moving = [name for name in ("delete", "insert", "swap") if _ever(self._rates[name])]
        if moving and not (objective.lookahead == 1 and objective.hidden is None):
            name = type(objective).__module__.rsplit(".", 1)[-1]
            raise InputError(
                f'noise.{moving[0]} moves tokens, and objective "{name}" asks for those at a place',
                "use noise.mask and noise.replace, which suit every objective",
            )

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Refuses a vocabulary without the mask token, if that is needed.

        Raises:
            InputError: it is missing.
        """
        for name in self.special:
            vocabulary.id(name)

    def apply(self, batch: Batch, rng: np.random.Generator, progress: float, vocabulary: Vocabulary) -> Batch:
        """Returns a batch with noise in what the model reads: a pure function of its arguments.

        Args:
            batch: as an objective has prepared it, for a whole step and on the CPU.
            rng: all that is random derives from it.
            progress: the share of the training that is done.
            vocabulary: tells which tokens are text.
        """
        rates = {name: at(rate, progress) for name, rate in self._rates.items()}
        if not any(rates.values()):
            return batch
        tokens, deleted = self._in_place(batch, rates, rng, vocabulary)
        source = batch.source
        if source is not None:
            source = dataclasses.replace(source, tokens=self._in_place(source, rates, rng, vocabulary)[0])
        noisy = dataclasses.replace(batch, tokens=tokens, source=source)
        if not (rates["delete"] or rates["insert"] or rates["swap"]):
            return noisy
        assert batch.visibility in (Visibility.CAUSAL, Visibility.PREFIX)
        assert batch.source is None
        assert batch.pairs is None
        text = vocabulary.is_ordinary[batch.tokens.numpy()] & (batch.segments.numpy() != 0)
        if rates["swap"]:
            noisy = _swapped(noisy, text, deleted, rates["swap"], rng)
        if rates["delete"] or rates["insert"]:
            added = _hits(text.size, rates["insert"], rng)
            places, is_new = _sequence(batch, text, deleted, added[text.ravel()[added]], rng)
            noisy = _rebuilt(noisy, places)
            where = np.flatnonzero(noisy.segments.numpy())[is_new]
            drawn = self._random(len(where), batch.tokens.numpy()[text], rng, vocabulary)
            noisy.tokens.numpy().ravel()[where] = drawn
        return noisy

    @property
    def _rates(self) -> dict[str, Rate]:
        return {name: getattr(self, name) for name in ("mask", "replace", "delete", "insert", "swap")}

    def _in_place(
        self, read: Batch | Source, rates: dict[str, float], rng: np.random.Generator, vocabulary: Vocabulary
    ) -> tuple[Tensor, Int[np.ndarray, " D"]]:
        """The tokens, some of them masked or replaced, and where others are to be deleted: each has one fate."""
        true, segments = read.tokens.numpy().ravel(), read.segments.numpy().ravel()
        tokens = read.tokens.clone()
        noisy = tokens.numpy().ravel()
        ordinary, touched = vocabulary.is_ordinary, np.zeros(len(true), dtype=bool)
        left, deleted = 1.0, np.empty(0, dtype=np.int64)
        for name in ("mask", "replace", "delete"):
            if not rates[name]:
                continue
            # as likely as the rate says, among those that nothing has happened to
            hit = _hits(len(true), min(1.0, rates[name] / left) if left > 0 else 0.0, rng)
            hit = hit[ordinary[true[hit]] & (segments[hit] != 0) & ~touched[hit]]
            if name == "mask":
                noisy[hit] = vocabulary.id("mask")
            elif name == "replace":
                noisy[hit] = self._random(len(hit), true[hit], rng, vocabulary)
            else:
                deleted = hit
            touched[hit] = True
            left -= rates[name]
        return tokens, deleted

    def _random(
        self, count: int, text: Int[np.ndarray, " N"], rng: np.random.Generator, vocabulary: Vocabulary
    ) -> Int[np.ndarray, " count"]:
        """So many random tokens; `text` is where they are drawn from if they are to be as frequent as in it."""
        if self.drawn == "uniform":
            text = vocabulary.ordinary
        elif count == len(text):
            # what is replaced is itself a sample of the text, and needs but another order
            return rng.permutation(text)
        drawn: Int[np.ndarray, " count"] = text[rng.integers(len(text), size=count)]
        return drawn


def _swapped(
    batch: Batch,
    text: Bool[np.ndarray, "B T"],
    deleted: Int[np.ndarray, " D"],
    rate: float,
    rng: np.random.Generator,
) -> Batch:
    """The batch with some neighbours in each other's place; both have the target of the later one.

    Tokens are taken in pairs, in each row from the first or the second place on, so each is swapped once at most and with
    the same chance, but for the first and the last of a piece, which may have no neighbour.
    """
    rows, T = text.shape
    may = text.copy()
    may.ravel()[deleted] = False
    slots = (T + 1) // 2
    first = _hits(rows * slots, rate, rng)
    row = first // slots
    begins_at: Int[np.ndarray, " B"] = rng.integers(2, size=(rows,))
    column = 2 * (first % slots) + begins_at[row]
    inside = column + 1 < T
    row, column = row[inside], column[inside]
    segments = batch.segments.numpy()
    pairs = may[row, column] & may[row, column + 1] & (segments[row, column] == segments[row, column + 1])
    row, column = row[pairs], column[pairs]
    earlier = row * T + column
    tokens, targets, weights = batch.tokens.clone(), batch.targets.clone(), batch.weights.clone()
    read, written = batch.tokens.numpy().ravel(), tokens.numpy().ravel()
    written[earlier], written[earlier + 1] = read[earlier + 1], read[earlier]
    for told in (targets.numpy().ravel(), weights.numpy().ravel()):
        told[earlier] = told[earlier + 1]
    return dataclasses.replace(batch, tokens=tokens, targets=targets, weights=weights)


def _sequence(
    batch: Batch,
    text: Bool[np.ndarray, "B T"],
    deleted: Int[np.ndarray, " D"],
    added: Int[np.ndarray, " A"],
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    """The place of the text that each token of the noisy pieces belongs to, and which tokens are new.

    Places count through the rows laid end to end. A new token belongs to the place that it is inserted after.
    """
    segments = batch.segments.numpy()
    begins = np.ones(segments.shape, dtype=bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    filled = segments.ravel() != 0
    counts = filled.astype(np.int64)
    counts[deleted[~begins.ravel()[deleted]]] = 0
    if not len(added):
        places = np.flatnonzero(counts)
        return places, np.zeros(len(places), dtype=bool)
    counts[added] += 1
    places = np.repeat(np.arange(len(counts)), counts)
    is_new = np.zeros(len(places), dtype=bool)
    is_new[np.cumsum(counts)[added] - 1] = True
    first = np.flatnonzero(begins)
    excess = np.maximum(np.add.reduceat(counts - filled, first), 0)
    if not excess.any():
        return places, is_new
    # one stretch of each piece that has grown is left out; it grew by at most as many tokens as may be left out
    pieces = (np.cumsum(begins.ravel()) - 1)[places]
    loose = text.ravel()[places] & (np.diff(pieces, prepend=-1) == 0)
    before = np.cumsum(loose) - loose
    loose_of_piece = np.bincount(pieces[loose], minlength=len(first))
    rank = before - (np.cumsum(loose_of_piece) - loose_of_piece)[pieces]
    start = rng.integers(0, np.maximum(loose_of_piece - excess, 0) + 1)[pieces]
    stays = ~(loose & (rank >= start) & (rank < start + excess[pieces]))
    return places[stays], is_new[stays]


def _rebuilt(batch: Batch, places: Int[np.ndarray, " M"]) -> Batch:
    """The batch with what stands at some of its places, ascending, moved to the left of its rows."""
    rows, T = batch.tokens.shape
    row = places // T
    sizes = np.bincount(row, minlength=rows)
    to = np.arange(len(places)) + (np.arange(rows) * T - np.cumsum(sizes) + sizes)[row]
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            old = value.numpy()
            new = np.zeros(old.size, dtype=old.dtype)
            new[to] = old.ravel()[places]
            changes[field.name] = torch.from_numpy(new.reshape(old.shape))
    return dataclasses.replace(batch, **changes)


def _ever(rate: Rate) -> bool:
    return any(rate) if isinstance(rate, tuple) else rate != 0


def _hits(count: int, rate: float, rng: np.random.Generator) -> Int[np.ndarray, " N"]:
    """Places, each there with the chance `rate` and independently of the others; some are there more than once.

    How often each place is drawn is Poisson distributed with the mean -ln(1 - rate), so it is drawn at all with the chance
    `rate`. That takes as many numbers as there are hits, not as there are places.
    """
    if rate >= 1:
        return np.arange(count)
    drawn: Int[np.ndarray, " N"] = rng.integers(count, size=rng.poisson(-count * math.log1p(-rate)))
    return drawn
