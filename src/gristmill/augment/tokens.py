"""Noise in the tokens that a model reads; what it has to say stays the true text.

A model that reads the same text many times reads it differently each time, and learns longer from it (Xie et al. 2017,
arXiv:1703.02573: blank and unigram noising). The noise of a step is a function of (seed, step): it is drawn for the
whole step, before that is split into what fits into memory. What happens at a position is a hash of the step's key and
the position's number, so `native/noise.c` and the NumPy below, which stands in where there is no compiler, agree to the
bit.

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

import ctypes
import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from gristmill.batch import Batch, Source, Visibility
from gristmill.errors import InputError
from gristmill.native import library
from gristmill.objectives.base import Objective, Rate, at
from gristmill.objectives.pieces import check_shares
from gristmill.vocabulary import Vocabulary

__all__ = ["Noise"]

SOURCE = Path(__file__).with_name("native") / "noise.c"
GOLDEN = 0x9E3779B97F4A7C15
REPLACED, INSERTED, FOLLOWING, SWAPPED, SHIFTED, LEFT_OUT = range(1, 7)
"""What is drawn, beside the fate of each token."""
DELETED, FOLLOWED = 1, 2
"""Marks of a position: its token is not read; something new is read after it."""
TRIES = 32
"""A random place of a step may be no text; then another is drawn."""
_WHOLE, _MASK_64 = 1 << 32, (1 << 64) - 1
_SOURCE = 7


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

    def apply(self, batch: Batch, key: int, progress: float, vocabulary: Vocabulary) -> Batch:
        """Returns a batch with noise in what the model reads: a pure function of its arguments.

        Args:
            batch: as an objective has prepared it, for a whole step and on the CPU.
            key: all that is random derives from it: 63 or 64 bits, as `rng.derive` gives them.
            progress: the share of the training that is done.
            vocabulary: tells which tokens are text.
        """
        source = batch.source
        own = dataclasses.replace(
            batch,
            tokens=_copied(batch.tokens),
            targets=_copied(batch.targets),
            weights=_copied(batch.weights),
            source=None if source is None else dataclasses.replace(source, tokens=_copied(source.tokens)),
        )
        return self.into(own, key, progress, vocabulary)

    def into(self, batch: Batch, key: int, progress: float, vocabulary: Vocabulary) -> Batch:
        """Returns the same as `apply`, and may write over the tokens, targets and weights that it is given.

        For a batch that nobody else has, where each of these has memory of its own. It spares a loader a copy of
        everything.
        """
        limits = self._steady or self._limits(progress)
        if not any(limits):
            return batch
        choice = vocabulary.ordinary if self.drawn == "uniform" else None
        mask = vocabulary.id("mask") if limits.masked else 0
        text = _Text(batch, vocabulary, key & _MASK_64, choice)
        if not (limits.inserted or limits.swapped or limits.deleted > limits.replaced):
            _write(text, limits, mask, batch.tokens)
            if batch.source is not None:
                # another text: what happens in it has nothing to do with what happens at the same place here
                read = _Text(batch.source, vocabulary, _key_for(text.key, _SOURCE), choice)
                _write(read, limits, mask, batch.source.tokens)
            return batch
        assert batch.visibility in (Visibility.CAUSAL, Visibility.PREFIX)
        assert batch.source is None
        assert batch.pairs is None
        noisy = _copied(batch.tokens)  # what is random is drawn from the text as it was
        marks = _write(text, limits, mask, noisy)
        if limits.swapped:
            _swap(batch, noisy, text, limits.swapped, marks)
        if limits.inserted or limits.deleted > limits.replaced:
            return _rebuilt(dataclasses.replace(batch, tokens=noisy), _sequence(text, marks))
        return dataclasses.replace(batch, tokens=noisy)

    @property
    def _rates(self) -> dict[str, Rate]:
        return {name: getattr(self, name) for name in ("mask", "replace", "delete", "insert", "swap")}

    @functools.cached_property
    def _steady(self) -> "_Limits | None":
        """The limits, where they are the same throughout the training: computed once."""
        return None if any(isinstance(rate, tuple) for rate in self._rates.values()) else self._limits(0.0)

    def _limits(self, progress: float) -> "_Limits":
        masked = at(self.mask, progress)
        replaced = masked + at(self.replace, progress)
        deleted = replaced + at(self.delete, progress)
        sums = (masked, replaced, deleted, at(self.insert, progress), at(self.swap, progress))
        return _Limits(*(min(_WHOLE, round(value * _WHOLE)) for value in sums))


class _Limits(NamedTuple):
    """Shares in 2^32ths; those of the first three, of which a token has one at most, are added up."""

    masked: int
    replaced: int
    deleted: int
    inserted: int
    swapped: int


class _Given(ctypes.Structure):
    """A text as C takes it."""

    _fields_ = (
        ("tokens", ctypes.c_void_p),
        ("segments", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("ordinary", ctypes.c_void_p),
        ("key", ctypes.c_uint64),
        ("choice", ctypes.c_void_p),
        ("choices", ctypes.c_int64),
    )


@final
class _Text:
    """The positions of a step, and what decides about them."""

    def __init__(
        self, read: Batch | Source, vocabulary: Vocabulary, key: int, choice: np.ndarray | None
    ) -> None:
        """Takes the step's key, and what random tokens are drawn from: None for the text itself."""
        self.tokens, self.segments = read.tokens.contiguous(), read.segments.contiguous()
        self.is_ordinary, self.key, self.choice = vocabulary.is_ordinary, key, choice
        self.given = _Given(
            self.tokens.data_ptr(), self.segments.data_ptr(), *self.tokens.shape, _address(self.is_ordinary), key,
            *(() if choice is None else (_address(choice), len(choice))),
        )  # fmt: skip

    @property
    def columns(self) -> int:
        """How many there are in a row."""
        return self.tokens.shape[1]

    @functools.cached_property
    def true(self) -> Any:
        """The tokens, one row after the other."""
        return self.tokens.numpy().ravel()

    @functools.cached_property
    def pieces(self) -> Any:
        """The segments, likewise."""
        return self.segments.numpy().ravel()

    def is_text(self, places: Any) -> Any:
        """Whether text stands at some places, neither padding nor a special token."""
        return self.is_ordinary[self.true[places]] & (self.pieces[places] != 0)


class _Sequence(NamedTuple):
    """How noisy rows are put together. Places count through the rows laid end to end."""

    runs: Int[np.ndarray, "runs 3"]
    """What stays side by side: the place of its first token before and after, and its length."""
    fresh: Int[np.ndarray, "new 2"]
    """What is new: its place after, and the token."""


@functools.cache
def _compiled() -> ctypes.CDLL | None:
    compiled = library(SOURCE)
    if compiled is not None:
        text, address, number, bits = ctypes.POINTER(_Given), ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64
        results = {"noise": ctypes.c_int, "sequence": number}
        for name, *arguments in (
            ("noise", text, bits, bits, bits, bits, number, address, address),
            ("swap", text, bits, address, address, address, address),
            ("sequence", text, address, address, address, address),
            ("move", address, number, number, address, number, address),
        ):
            function = getattr(compiled, f"gristmill_{name}")
            function.argtypes, function.restype = arguments, results.get(name)
    return compiled


def _write(text: _Text, limits: _Limits, mask: int, onto: Tensor) -> UInt8[np.ndarray, " positions"]:
    """Masks and replaces some of the tokens `onto`; returns marks where others are deleted or followed by something new.

    Without any of these there are no marks. `onto` may be the text's own tokens.
    """
    assert onto.is_contiguous()
    has_marks = limits.inserted or limits.swapped or limits.deleted > limits.replaced
    marks = np.zeros(onto.numel() if has_marks else 0, dtype=np.uint8)
    compiled = _compiled()
    if compiled is not None:
        if not compiled.gristmill_noise(text.given, *limits[:4], mask, onto.data_ptr(), _address(marks)):
            raise MemoryError("putting noise into a step")
        return marks
    hit, fates = _hits(text.key, limits.deleted, onto.numel())
    fates, hit = fates[text.is_text(hit)], hit[text.is_text(hit)]
    replaced = hit[(fates >= limits.masked) & (fates < limits.replaced)]
    drawn = _random(text, replaced, REPLACED)
    followed, _ = _hits(_key_for(text.key, FOLLOWING), limits.inserted, onto.numel())
    followed = followed[text.is_text(followed)]
    flat = onto.numpy().ravel()
    flat[hit[fates < limits.masked]] = mask
    flat[replaced] = drawn
    if has_marks:
        marks[hit[fates >= limits.replaced]] |= DELETED
        marks[followed] |= FOLLOWED
    return marks


def _swap(
    batch: Batch, noisy: Tensor, text: _Text, limit: int, marks: UInt8[np.ndarray, " positions"]
) -> None:
    """Puts some neighbours of the noisy tokens in each other's place; both get the target and the weight of the later.

    Tokens are taken in pairs, in each row from the first or the second place on, so each is swapped once at most and with
    the same chance, but for the first and the last of a piece, which may have no neighbour.
    """
    assert batch.targets.is_contiguous()
    assert batch.weights.is_contiguous()
    compiled = _compiled()
    if compiled is not None:
        compiled.gristmill_swap(
            text.given,
            limit,
            _address(marks),
            noisy.data_ptr(),
            batch.targets.data_ptr(),
            batch.weights.data_ptr(),
        )
        return
    rows, T = noisy.shape
    slots = (T + 1) // 2
    chosen, _ = _hits(_key_for(text.key, SWAPPED), limit, rows * slots)
    row = chosen // slots
    shift = _hashes(_key_for(text.key, SHIFTED), row) >> np.uint64(63)
    column = 2 * (chosen % slots) + shift.astype(np.int64)
    earlier = (row * T + column)[column + 1 < T]
    may = text.is_text(earlier) & text.is_text(earlier + 1)
    may &= (marks[earlier] | marks[earlier + 1]) & DELETED == 0
    earlier = earlier[may & (text.pieces[earlier] == text.pieces[earlier + 1])]
    flat = noisy.numpy().ravel()
    flat[earlier], flat[earlier + 1] = flat[earlier + 1], flat[earlier]
    for told in (batch.targets.numpy().ravel(), batch.weights.numpy().ravel()):
        told[earlier] = told[earlier + 1]


def _sequence(text: _Text, marks: UInt8[np.ndarray, " positions"]) -> _Sequence:
    """How the noisy rows are put together: what is new belongs to the place that it is inserted after."""
    compiled = _compiled()
    if compiled is not None:
        marked = int(
            np.count_nonzero(marks)
        )  # each ends a run, may begin one of its own and make a stretch go
        runs = np.empty((len(text.tokens) + 3 * marked, 3), dtype=np.int64)
        fresh = np.empty((marked, 2), dtype=np.int64)
        count = ctypes.c_int64()
        run_count = compiled.gristmill_sequence(
            text.given, _address(marks), _address(runs), _address(fresh), ctypes.addressof(count)
        )
        return _Sequence(runs[:run_count], fresh[: count.value])
    places, is_new = _placed(text, marks)
    T, rows = text.columns, len(text.tokens)
    row = places // T
    sizes = np.bincount(row, minlength=rows)
    to = np.arange(len(places)) + (np.arange(rows) * T - np.cumsum(sizes) + sizes)[row]
    breaks = (np.diff(places) != 1) | (np.diff(to) != 1) | is_new[1:]
    first = np.flatnonzero(np.concatenate([[True], breaks]))[: len(places)]
    runs = np.stack([places[first], to[first], np.diff(np.append(first, len(places)))], axis=1)
    return _Sequence(runs, np.stack([to[is_new], _random(text, places[is_new], INSERTED)], axis=1))


def _placed(text: _Text, marks: UInt8[np.ndarray, " positions"]) -> tuple[Any, Any]:
    """The place of the text that each token of the noisy pieces belongs to, and which tokens are new."""
    segments = text.pieces.reshape(-1, text.columns)
    begins = np.ones(segments.shape, dtype=bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    begins = begins.ravel()
    filled = text.pieces != 0
    added = np.flatnonzero(marks & FOLLOWED)
    counts = filled.astype(np.int64)
    counts[(marks & DELETED != 0) & ~begins] = 0
    counts[added] += 1
    places = np.repeat(np.arange(len(counts)), counts)
    is_new = np.zeros(len(places), dtype=bool)
    is_new[np.cumsum(counts)[added] - 1] = True
    first = np.flatnonzero(begins)
    excess = np.maximum(np.add.reduceat(counts - filled, first), 0)
    # one stretch of each piece that has grown is left out; it grew by at most as many tokens as may be left out
    pieces = (np.cumsum(begins) - 1)[places]
    loose = text.is_text(places) & (np.diff(pieces, prepend=-1) == 0)
    before = np.cumsum(loose) - loose
    loose_of_piece = np.bincount(pieces[loose], minlength=len(first))
    rank = before - (np.cumsum(loose_of_piece) - loose_of_piece)[pieces]
    room = np.maximum(loose_of_piece - excess, 0)
    begin = _below(_hashes(_key_for(text.key, LEFT_OUT), first), room + 1)[pieces]
    stays = ~(loose & (rank >= begin) & (rank < begin + excess[pieces]))
    return places[stays], is_new[stays]


def _rebuilt(batch: Batch, sequence: _Sequence) -> Batch:
    """The batch with all of its tensors moved as a sequence says, and new tokens among them."""
    compiled, runs = _compiled(), sequence.runs
    moved: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if not isinstance(value, Tensor):
            continue
        value = value.contiguous()
        if compiled is not None:
            new = moved[field.name] = torch.empty_like(value)
            compiled.gristmill_move(
                value.data_ptr(),
                value.element_size(),
                value.numel(),
                _address(runs),
                len(runs),
                new.data_ptr(),
            )
            continue
        old = value.numpy().ravel()
        array, within = np.zeros_like(old), _within(runs[:, 2])
        array[np.repeat(runs[:, 1], runs[:, 2]) + within] = old[np.repeat(runs[:, 0], runs[:, 2]) + within]
        moved[field.name] = torch.from_numpy(array.reshape(value.shape))
    moved["tokens"].numpy().ravel()[sequence.fresh[:, 0]] = sequence.fresh[:, 1]
    return dataclasses.replace(batch, **moved)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _address(array: np.ndarray) -> int:
    """Where the numbers of an array that may be written to lie; `array.ctypes` takes eight times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data)) if array.size else 0


def _ever(rate: Rate) -> bool:
    return any(rate) if isinstance(rate, tuple) else rate != 0


# --- draws ----------------------------------------------------------------------------------------------------------


def _hits(key: int, limit: int, count: int) -> tuple[Any, Any]:
    """Which of so many numbers are drawn, with the chance limit / 2^32 each, and what was drawn for them."""
    hashes = _hashes(key, np.arange((count + 1) // 2))
    low, high = hashes & np.uint64(_WHOLE - 1), hashes >> np.uint64(32)
    drawn = np.stack([low, high], axis=1).ravel()[:count].astype(np.int64)
    hit = np.flatnonzero(drawn < limit)
    return hit, drawn[hit]


def _random(text: _Text, places: Int[np.ndarray, " count"], purpose: int) -> Int[np.ndarray, " count"]:
    """A random token for each place: as frequent as in the text, or each as frequent."""
    key = _key_for(text.key, purpose)
    if text.choice is not None:
        chosen: Int[np.ndarray, " count"] = text.choice[
            _below(_hashes(key, places * TRIES), len(text.choice))
        ]
        return chosen
    drawn: Int[np.ndarray, " count"] = text.true[places]
    waiting = np.arange(len(places))
    for nth in range(TRIES):
        origin = _below(_hashes(key, places[waiting] * TRIES + nth), len(text.true))
        found = text.is_text(origin)
        drawn[waiting[found]] = text.true[origin[found]]
        waiting = waiting[~found]
    return drawn


def _key_for(key: int, purpose: int) -> int:
    return int(_mixed(np.array([key + purpose & _MASK_64], dtype=np.uint64))[0])


def _hashes(key: int, numbers: Any) -> Any:
    """A hash of each number."""
    return _mixed(np.uint64(key) + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN))


def _below(hashes: Any, count: Any) -> Any:
    """A number from 0 to below a count, which is less than 2^32, for each hash."""
    return ((hashes >> np.uint64(32)) * np.asarray(count, dtype=np.uint64) >> np.uint64(32)).astype(np.int64)


def _mixed(x: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _within(sizes: Any) -> Any:
    """Counts up from 0 within each of some stretches: [2, 3] -> [0, 1, 0, 1, 2]."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
