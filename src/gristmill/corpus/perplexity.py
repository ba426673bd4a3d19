"""How well a small model of language foretells a text, in thousandths of a bit per byte.

The model is an n-gram model of bytes with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999). Before
each byte stand the bytes of its own character and up to five whole characters: so its memory is as long in Chinese,
with three bytes to a character, as in English, and what it gives is always a distribution over 256 bytes. It is
trained in seconds on text that a corpus should be like. Probabilities are integers, so that the figures, and what is
decided by them, are the same on every machine.

As CCNet (Wenzek et al. 2020) does, the documents of each language are divided by the figure into head, middle and tail.
"""

import collections
import ctypes
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from gristmill import artifact
from gristmill.artifact import Artifact, open_artifact, write_json
from gristmill.corpus.features import EXAMINED_BYTES, address, features, packed
from gristmill.corpus.features import SOURCE as TEXT_SOURCE
from gristmill.corpus.language import languages_of
from gristmill.corpus.quality import SOURCE, distinct_of, mixed_array, read_arrays
from gristmill.corpus.quality_training import documents_of, sample
from gristmill.errors import CorruptArtifact, InputError
from gristmill.native import library

__all__ = [
    "KIND",
    "THIRDS",
    "NgramConfig",
    "NgramModel",
    "Scorer",
    "context_keys",
    "millibits_by",
    "open_ngrams",
    "report_on",
    "texts_of",
    "thirds_of",
    "train_ngrams",
    "train_on",
]

KIND = "ngrams"
FORMAT = 2
ARRAYS, SETTINGS = "ngrams.safetensors", "ngrams.json"
THIRDS = ("head", "middle", "tail")

Scorer = Callable[[Sequence[str]], Sequence[float]]
"""What gives the bits per byte of texts. A checkpoint can be one as well: its nats over the bytes, over log 2."""

MOST_CHARACTERS = 16
ONE_BITS, SHARE_BITS, REST_BITS = 44, 24, 20
"""A probability is a number of 2^-44; the share of a symbol in its context of 2^-24; what a context leaves to shorter
ones of 2^-20."""
LOGARITHM_BITS = 20
KEY_BITS = 56
LEAST_REST = 1 << 10
"""However sure a context is, so much (a thousandth) is left to shorter ones: nothing is impossible."""
ALWAYS_KEPT = 2
"""Contexts of so many characters are kept however rare they are."""
_BEGIN = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """What a model of language is trained on, and how large it may be."""

    sources: tuple[str, ...]
    """Files, folders and globs of text that the corpus should be like."""
    exclude: tuple[str, ...] = ()
    text_column: str | None = None
    characters: int = 5
    """How many characters before the present one are looked at."""
    least: int = 2
    """Longer contexts that occur less often are left out."""
    training_bytes: int = 8_000_000
    """Of more text a random sample of the documents is taken."""
    valid_fraction: float = 0.05
    """The share of the documents that is held out, to say how good the model is."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if not 0 <= self.characters <= MOST_CHARACTERS or self.least < 1 or self.training_bytes < 1:
            raise InputError(f"characters is 0 to {MOST_CHARACTERS}, least and training_bytes at least 1")
        if not 0 < self.valid_fraction < 1:
            raise InputError(f"valid_fraction is {self.valid_fraction}, expected a share between 0 and 1")


class NgramModel:
    """Contexts in the order of their keys, each with what may follow and what it leaves to shorter ones."""

    def __init__(self, arrays: dict[str, Any], characters: int) -> None:
        """Takes keys and rests of contexts, how many entries each has, and these: a symbol and its share, as one number."""
        self.characters = characters
        self.arrays = arrays
        count = len(arrays["keys"])
        self._begins = np.concatenate([[0], np.cumsum(arrays["counts"], dtype=np.int64)])
        self._first_bits = max(1, min(26, count.bit_length()))
        borders = np.arange((1 << self._first_bits) + 1, dtype=np.uint64) << np.uint64(
            KEY_BITS - self._first_bits
        )
        self._firsts = np.searchsorted(arrays["keys"], borders).astype(np.uint32)
        layout = np.dtype([("key", np.uint64), ("begin", np.uint32), ("rest", np.uint32)])
        self._contexts = np.zeros(count + 1, dtype=layout)
        self._contexts["key"][:-1], self._contexts["rest"][:-1] = arrays["keys"], arrays["rests"]
        self._contexts["begin"] = self._begins

    def millibits(self, texts: Sequence[str]) -> Int[np.ndarray, " texts"]:
        """Returns the thousandths of a bit that the model needs for each byte of a text; 0 for one without bytes."""
        return self.millibits_of_buffer(*packed(texts))

    def millibits_of_buffer(
        self, data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]
    ) -> Int[np.ndarray, " texts"]:
        """Returns the same for texts that lie one after the other in UTF-8, as Arrow has them."""
        starts, ends = _examined(data, offsets)
        bits = self.bits_of_buffer(data, offsets).astype(np.int64)
        millibits: Int[np.ndarray, " texts"] = bits * 1000 // (np.maximum(ends - starts, 1) << LOGARITHM_BITS)
        return millibits.astype(np.int32)

    def millibits_by_character(
        self, data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]
    ) -> Int[np.ndarray, " texts"]:
        """Returns the thousandths of a bit for each character instead."""
        bits = self.bits_of_buffer(data, offsets).astype(np.int64)
        is_first = (data & 0xC0) != 0x80
        places = zip(*_examined(data, offsets), strict=True)
        characters = np.array([np.count_nonzero(is_first[start:end]) for start, end in places], np.int64)
        millibits: Int[np.ndarray, " texts"] = bits * 1000 // (np.maximum(characters, 1) << LOGARITHM_BITS)
        return millibits.astype(np.int32)

    def bits_of_buffer(
        self, data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]
    ) -> UInt64[np.ndarray, " texts"]:
        """Returns the bits of each text, in units of 2^-20."""
        compiled = library(SOURCE, include=TEXT_SOURCE)
        out = np.zeros(len(offsets) - 1, dtype=np.uint64)
        if compiled is None:
            for text, (start, end) in enumerate(zip(*_examined(data, offsets), strict=True)):
                piece = data[start:end]
                keys = context_keys(piece, np.array([0, len(piece)]), self.characters)
                out[text] = bits_of(self.probabilities(keys, piece)).sum(dtype=np.uint64)
            return out
        compiled.gristmill_bits(
            address(data), address(offsets), ctypes.c_int64(len(out)), address(self._firsts),
            ctypes.c_int64(self._first_bits), address(self._contexts), address(self.arrays["entries"]),
            ctypes.c_int64(self.characters), address(logarithms()), address(out),
        )  # fmt: skip
        return out

    def probabilities(
        self, contexts: Iterable[UInt64[np.ndarray, " n"]], symbols: UInt8[np.ndarray, " n"]
    ) -> UInt64[np.ndarray, " n"]:
        """Returns the probabilities of bytes, in units of 2^-44, given the keys of their contexts, the shortest first."""
        found = np.full(len(symbols), 1 << (ONE_BITS - 8), dtype=np.uint64)
        is_known = np.ones(len(symbols), dtype=bool)
        keys, entries = self.arrays["keys"], self.arrays["entries"].astype(np.uint64)
        context = np.repeat(np.arange(len(keys), dtype=np.uint64), self.arrays["counts"])
        known = context << np.uint64(8) | entries & np.uint64(255)
        order = np.argsort(known)
        known, shares = known[order], entries[order] >> np.uint64(8)
        for asked in contexts:
            place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
            is_known &= keys[place] == asked
            rest = self.arrays["rests"][place].astype(np.uint64)
            entry = place.astype(np.uint64) << np.uint64(8) | symbols.astype(np.uint64)
            at = np.minimum(np.searchsorted(known, entry), len(known) - 1)
            share = np.where(known[at] == entry, shares[at], np.uint64(0))
            better = (found * rest >> np.uint64(REST_BITS)) + (share << np.uint64(ONE_BITS - SHARE_BITS))
            found = np.where(is_known, better, found)
        return np.maximum(found, np.uint64(1))

    def write(self, directory: Path) -> None:
        """Writes the model's two files."""
        from safetensors.numpy import save_file

        save_file(self.arrays, directory / ARRAYS)
        write_json(directory / SETTINGS, {"format": FORMAT, "characters": self.characters})

    @classmethod
    def read(cls, directory: Path) -> "NgramModel":
        """Returns the model whose files lie in a directory.

        Raises:
            CorruptArtifact: they are not what `write` writes.
        """
        path = directory / ARRAYS
        types = {
            "keys": np.uint64,
            "rests": np.uint32,
            "counts": np.uint16,
            "entries": np.uint32,
        }
        arrays = read_arrays(path, types)
        try:
            settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
            form, characters = settings["format"], settings["characters"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"{directory / SETTINGS} is damaged: {error}", "train it again") from None
        if form != FORMAT:
            raise InputError(f"{directory} was written by another version", "train the model again")
        if type(characters) is not int or not 0 <= characters <= MOST_CHARACTERS or not _is_whole(arrays):
            raise CorruptArtifact(f"{path} does not hold a model of language", "train it again")
        return cls(arrays, characters)


def open_ngrams(opened: Artifact | Path) -> NgramModel:
    """Returns the model of an artifact, or of the path of one, whose files are then verified."""
    return NgramModel.read((open_artifact(opened, KIND) if isinstance(opened, Path) else opened).path)


def millibits_by(scorer: Scorer, texts: Sequence[str]) -> Int[np.ndarray, " texts"]:
    """Returns the bits per byte that a scorer gives texts, a checkpoint for instance, in thousandths.

    Raises:
        InputError: it gave something else than a finite number for each text.
    """
    values = np.asarray(scorer(texts), dtype=np.float64)
    if values.shape != (len(texts),) or not np.isfinite(values).all() or (values < 0).any():
        raise InputError(
            f"the scorer gave {values.shape} values for {len(texts)} texts, or some that are no bits"
        )
    return np.rint(values * 1000).astype(np.int32)


def thirds_of(millibits: Int[np.ndarray, " texts"], languages: Sequence[str]) -> Int[np.ndarray, " texts"]:
    """Returns for each text 0 (head), 1 (middle) or 2 (tail): thirds of those of its language, the likeliest first.

    Equal figures fall into the same third, the better one.
    """
    found = np.zeros(len(millibits), dtype=np.int8)
    spoken = np.array(languages, dtype=object)
    for language in sorted(set(languages)):
        which = spoken == language
        ordered = np.sort(millibits[which])
        borders = ordered[[(len(ordered) - 1) // 3, 2 * (len(ordered) - 1) // 3]]
        found[which] = np.searchsorted(borders, millibits[which], side="left")
    return found


# --- training -------------------------------------------------------------------------------------------------------


def train_ngrams(config: NgramConfig, out: Path, *, seed: int = 0) -> Artifact:
    """Returns a model of language in the directory `out`, trained on a config's sources.

    Raises:
        InputError: the sources hold no text.
    """
    chosen, held_out = texts_of(config, seed=seed)
    digest = hashlib.sha256(json.dumps([chosen, held_out]).encode()).hexdigest()
    settings = {**dataclasses.asdict(config), "inputs": digest}
    existing = artifact.find(out, artifact.artifact_key(KIND, FORMAT, settings, None, seed))
    if existing is not None:
        return existing
    with artifact.draft(out, kind=KIND, format_version=FORMAT, config=settings, seed=seed) as work:
        model = train_on(chosen, characters=config.characters, least=config.least)
        model.write(work.path)
        work.metrics.update(report_on(model, chosen, held_out))
    return artifact.open_artifact(out, KIND, verify=False)


def texts_of(config: NgramConfig, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Returns the texts that a model is trained on, and those that are held out.

    Raises:
        InputError: the sources hold no text.
    """
    documents = documents_of(config.sources, config.exclude, config.text_column)
    wanted = round(config.training_bytes / (1 - config.valid_fraction))
    texts = [text for text, _ in sample(documents, seed, most_bytes=wanted)]
    if not texts:
        raise InputError(
            "the sources hold no text to train a model of language on", "look at sources and text_column"
        )
    held_out = texts[: max(1, round(config.valid_fraction * len(texts)))] if len(texts) > 1 else []
    chosen, left = [], config.training_bytes
    for text in texts[len(held_out) :]:
        chosen.append(text.encode()[:left].decode("utf-8", "ignore"))
        left -= len(chosen[-1].encode())
    return chosen, held_out


def report_on(model: NgramModel, chosen: Sequence[str], held_out: Sequence[str]) -> dict[str, Any]:
    """Returns what can be said of a model that was trained on the chosen texts: how large, in which languages, how good."""
    sizes = [len(text.encode()) for text in chosen]
    spoken: collections.Counter[str] = collections.Counter()
    for language, size in zip(languages_of(features(chosen)), sizes, strict=True):
        spoken[language] += size
    return {
        "training": {
            "documents": len(chosen),
            "text_bytes": sum(sizes),
            "languages": dict(sorted(spoken.items())),
        },
        "contexts": len(model.arrays["keys"]),
        "entries": len(model.arrays["entries"]),
        "held_out": {"documents": len(held_out), "millibits_per_byte": _together(model, held_out)},
    }


def train_on(texts: Sequence[str], *, characters: int = 5, least: int = 2) -> NgramModel:
    """Returns a model trained on texts.

    The counts of the longest contexts are of occurrences; those of shorter ones of how many longer ones they are the
    end of (Kneser and Ney 1995). Sources of that: Chen and Goodman (1999), equations 26 to 28.
    """
    data, offsets = packed(texts)
    data = data[: offsets[-1]]
    keys = list(context_keys(data, offsets, characters))
    places, raw = np.arange(len(data)), np.ones(len(data), dtype=np.int64)
    levels = []
    for length in range(characters, -1, -1):
        grams = keys[length][places] << np.uint64(8) | data[places]
        keys[length] = None  # type: ignore[call-overload]
        order = np.argsort(grams, kind="stable")
        grams = grams[order]
        starts = (
            np.flatnonzero(np.concatenate([[True], grams[1:] != grams[:-1]]))
            if len(grams)
            else np.array([], int)
        )
        counts = np.diff(np.append(starts, len(grams)))
        raw = np.add.reduceat(raw[order], starts) if len(starts) else raw
        places = places[order[starts]]
        kept = least if length > ALWAYS_KEPT else 1
        levels.append(_level(grams[starts], counts, raw, kept))
    joined = [np.concatenate(parts) for parts in zip(*levels, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    counts = joined[2][order]
    begins = np.cumsum(joined[2]) - joined[2]
    entries = np.repeat(begins[order] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    arrays = {
        "keys": joined[0][order],
        "rests": joined[1][order].astype(np.uint32),
        "counts": counts.astype(np.uint16),
        "entries": joined[3][entries].astype(np.uint32),
    }
    return NgramModel({name: np.ascontiguousarray(array) for name, array in arrays.items()}, characters)


class _Level(NamedTuple):
    """The contexts of one length, and their entries one context after the other, in each the largest first."""

    keys: Any
    rests: Any
    counts: Any
    entries: Any


def discounts(counts: Int[np.ndarray, " grams"]) -> tuple[float, float, float]:
    """Returns what is taken off counts of 1, 2, and 3 or more.

    Where too few grams have small counts to say, 0.5, 1 and 1.5 (the fallback of KenLM).
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    if (n[1:5] == 0).any():
        return 0.5, 1.0, 1.5
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
    if not all(0 < value < k for k, value in zip((1, 2, 3), found, strict=True)):
        return 0.5, 1.0, 1.5
    return found[0], found[1], found[2]


def _level(grams: Any, counts: Any, raw: Any, least: int) -> _Level:
    """Turns the counts of grams (context and symbol, sorted) into shares of contexts that occur `least` times."""
    contexts = grams >> np.uint64(8)
    starts = (
        np.flatnonzero(np.concatenate([[True], contexts[1:] != contexts[:-1]]))
        if len(grams)
        else np.array([], int)
    )
    sizes = np.diff(np.append(starts, len(grams)))
    off = np.array([0.0, *discounts(counts)])
    if len(starts):
        is_kept = np.add.reduceat(raw, starts) >= least
        totals = np.add.reduceat(counts, starts)
    else:
        is_kept, totals = np.array([], dtype=bool), np.array([], dtype=np.int64)
    share = (counts - off[np.minimum(counts, 3)]) / np.repeat(totals, sizes)
    wanted = np.repeat(is_kept, sizes)
    starts, sizes = starts[is_kept], sizes[is_kept]
    grams, share = grams[wanted], share[wanted]
    begins = np.cumsum(sizes) - sizes
    given = np.add.reduceat(share, begins) if len(begins) else share
    most = 1 - LEAST_REST / (1 << REST_BITS)
    share = share * np.repeat(np.minimum(1, most / np.maximum(given, 1e-300)), sizes)
    shares = np.floor(share * (1 << SHARE_BITS)).astype(np.int64)
    left = (1 << SHARE_BITS) - (np.add.reduceat(shares, begins) if len(begins) else shares)
    rests = left >> (SHARE_BITS - REST_BITS)
    # what does not fit a rest of 2^-20 goes to the first symbol, so that all is given
    shares[begins] += left - (rests << (SHARE_BITS - REST_BITS))
    order = np.lexsort((-shares, np.repeat(np.arange(len(sizes)), sizes)))
    entries = shares << 8 | (grams & np.uint64(255)).astype(np.int64)
    return _Level(contexts[wanted][begins], rests, sizes, entries[order])


def _together(model: NgramModel, texts: Sequence[str]) -> int | None:
    data, offsets = packed(texts)
    starts, ends = _examined(data, offsets)
    size = int((ends - starts).sum())
    return (
        sum(map(int, model.bits_of_buffer(data, offsets))) * 1000 // (size << LOGARITHM_BITS)
        if size
        else None
    )


def _is_whole(arrays: dict[str, Any]) -> bool:
    """Whether every context gives away just what there is."""
    keys, rests, counts, entries = (arrays[name] for name in ("keys", "rests", "counts", "entries"))
    sizes = counts.astype(np.int64)
    if not 0 < len(keys) == len(rests) == len(counts) or len(entries) != sizes.sum() or (sizes < 1).any():
        return False
    given = np.add.reduceat((entries >> 8).astype(np.int64), np.cumsum(sizes) - sizes)
    left = rests.astype(np.int64) << (SHARE_BITS - REST_BITS)
    symbols = distinct_of(np.repeat(np.arange(len(keys)), sizes) << 8 | (entries & 255))
    is_ordered = (keys[1:] > keys[:-1]).all() and not int(keys[-1]) >> KEY_BITS
    return bool(
        is_ordered
        and (given + left == 1 << SHARE_BITS).all()
        and len(symbols) == len(entries)
        and rests.all()
    )


# --- bytes and their contexts ---------------------------------------------------------------------------------------


def context_keys(data: Any, offsets: Any, characters: int) -> Iterator[UInt64[np.ndarray, " bytes"]]:
    """Yields the key of the context of each byte, with no character before its own, with one, and so on.

    Before the beginning of a text stand characters of the number 0; others have one more than their code point.
    """
    is_first = (data & 0xC0) != 0x80
    first = np.flatnonzero(is_first)
    character = np.cumsum(is_first) - 1
    points = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    begin = np.searchsorted(first, offsets[:-1])[np.searchsorted(offsets, first, side="right") - 1]
    begun = np.zeros(len(data), dtype=np.uint64)
    inside = np.arange(len(data)) - first[character]
    for place in (1, 2, 3):
        here = np.flatnonzero(inside == place)
        before = begun[here - 1]
        begun[here] = np.where(before == 0, np.uint64(256), before << np.uint64(8)) | data[here - 1]
    number = np.arange(len(first))
    hashes = np.full(len(first), _BEGIN, dtype=np.uint64)
    for length in range(characters + 1):
        if length:
            is_there = number - length >= begin
            before = np.where(is_there, points[np.maximum(number - length, 0)] + np.uint64(1), np.uint64(0))
            hashes = mixed_array(hashes * np.uint64(31) + before)
        here = hashes[character]
        keys: UInt64[np.ndarray, " bytes"] = np.where(
            begun > 0, mixed_array(here + begun), here
        ) >> np.uint64(8)
        yield keys


def _examined(data: Any, offsets: Any) -> tuple[Any, Any]:
    """Returns where the part of each text that is looked at begins and ends."""
    starts, ends = offsets[:-1], np.minimum(offsets[1:], offsets[:-1] + EXAMINED_BYTES)
    for text in np.flatnonzero(ends < offsets[1:]):
        while data[ends[text]] & 0xC0 == 0x80:
            ends[text] -= 1
    return starts, ends


def bits_of(probabilities: UInt64[np.ndarray, " bytes"]) -> UInt64[np.ndarray, " bytes"]:
    """Returns how many bits events of these probabilities (of 2^-44) tell, in units of 2^-20."""
    top = np.zeros(len(probabilities), dtype=np.uint64)
    for step in (32, 16, 8, 4, 2, 1):
        is_above = (probabilities >> (top + np.uint64(step))) > 0
        top += np.where(is_above, np.uint64(step), np.uint64(0))
    one = np.uint64(ONE_BITS)
    fraction = (probabilities << (one - top)) - (np.uint64(1) << one)
    at, within = fraction >> np.uint64(34), fraction >> np.uint64(14) & np.uint64((1 << 20) - 1)
    table = logarithms().astype(np.uint64)
    low, high = table[at], table[at + np.uint64(1)]
    found: UInt64[np.ndarray, " bytes"] = (one - top) << np.uint64(LOGARITHM_BITS)
    found -= low + ((high - low) * within >> np.uint64(20))
    return found


@functools.cache
def logarithms() -> Any:
    """Returns the binary logarithms of 1, 1 + 1/1024, … 2 in units of 2^-20, found by squaring whole numbers."""
    found = []
    for i in range(1024):
        value, logarithm = (1024 + i) << 50, 0  # 60 bits behind the point
        for _ in range(LOGARITHM_BITS):
            value = value * value >> 60
            logarithm <<= 1
            if value >> 61:
                value >>= 1
                logarithm |= 1
        found.append(logarithm)
    table = np.array([*found, 1 << LOGARITHM_BITS], dtype=np.uint32)
    table.flags.writeable = False
    return table
