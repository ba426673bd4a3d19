"""Texts that are nearly the same: shingles, MinHash bands that nominate pairs, and cover, which decides.

A shingle is five units in a row; a unit is a word (letters and digits, in lower case), or one character where a
script has no spaces. The bands (Broder 1997; Indyk and Motwani 1998) bring together nearly all pairs whose shingles
have a Jaccard index of 0.5. Whether one text makes another superfluous is then counted: `cover` is the share of its
units that stand in a shingle which the other has too, so one minus it is what would be lost; `gap` is how many units in a
row would be lost at most, which tells a text with words changed here and there from one with a passage of its own.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8, UInt32, UInt64

from gristmill.corpus.features import (
    CLASS,
    DIGIT,
    HAN,
    LETTER,
    MARK,
    SOURCE,
    UNSPACED,
    address,
    character_classes,
    mixed,
    packed,
    word_hash,
)
from gristmill.native import library

__all__ = [
    "BANDS",
    "ROWS",
    "SHINGLE",
    "Lack",
    "Sorted",
    "bands_of_buffer",
    "cover",
    "lack",
    "shingles",
    "shingles_of_buffer",
    "sorted_shingles",
]

SHINGLE = 5
BANDS, ROWS = 28, 4
"""A pair with Jaccard index j is nominated with probability 1 - (1 - j^4)^28: 0.99 at 0.63, 0.84 at 0.5, 0.2 at 0.3."""
LEAST_SHINGLES = 16
"""Of twenty units: shorter texts are compared whole only, as one word in them is much."""
MOST_BYTES = 8 << 20
"""Larger texts are compared whole only (exactly), so that memory stays bounded."""
_MODULUS = 1 << 64


def shingles(texts: Sequence[str]) -> tuple[UInt32[np.ndarray, " shingles"], Int[np.ndarray, " texts"]]:
    """Returns the hashes of the shingles of texts, one text after the other in their order, and how many each has."""
    return shingles_of_buffer(*packed(texts))


def shingles_of_buffer(
    data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]
) -> tuple[UInt32[np.ndarray, " shingles"], Int[np.ndarray, " texts"]]:
    """Returns the same for texts that lie one after the other in UTF-8; texts that are too large have none."""
    compiled = library(SOURCE)
    texts = len(offsets) - 1
    sizes = np.diff(offsets)
    if compiled is None or (sizes > MOST_BYTES).any():
        found = [
            np.array([], np.uint32) if size > MOST_BYTES else _shingles(data[a : a + size].tobytes().decode())
            for a, size in zip(offsets, sizes, strict=False)
        ]
        return np.concatenate([np.array([], np.uint32), *found]), np.array(
            [len(part) for part in found], np.int64
        )
    counts = np.zeros(texts, dtype=np.int64)
    out = np.empty(int(sizes.sum()) + 1, dtype=np.uint32)
    compiled.gristmill_shingles.restype = ctypes.c_int64
    total = compiled.gristmill_shingles(
        address(data), address(offsets), ctypes.c_int64(texts), address(character_classes()), ctypes.c_int64(SHINGLE),
        address(counts), address(out), ctypes.c_int64(len(out)),
    )  # fmt: skip
    if total < 0:
        raise MemoryError("finding the shingles of a text")
    return out[:total], counts


def bands_of_buffer(
    data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]
) -> UInt64[np.ndarray, "texts bands"]:
    """Returns the hash of each band of each text's MinHash signature: 0 in all for a text that is too short."""
    found, counts = shingles_of_buffer(data, offsets)
    multipliers, additions = _functions()
    out = np.zeros((len(counts), BANDS), dtype=np.uint64)
    compiled = library(SOURCE)
    if compiled is not None:
        compiled.gristmill_bands(
            address(np.ascontiguousarray(found)), address(counts), ctypes.c_int64(len(counts)), address(multipliers),
            address(additions), ctypes.c_int64(BANDS), ctypes.c_int64(ROWS), ctypes.c_int64(LEAST_SHINGLES), address(out),
        )  # fmt: skip
        return out
    ends = np.cumsum(counts)
    for text, (end, count) in enumerate(zip(ends, counts, strict=True)):
        if count >= LEAST_SHINGLES:
            out[text] = _bands(found[end - count : end], multipliers, additions)
    return out


class Sorted(NamedTuple):
    """The shingles of a text, ascending, and where in it each stands."""

    values: UInt32[np.ndarray, " shingles"]
    places: Int32[np.ndarray, " shingles"]


def sorted_shingles(found: UInt32[np.ndarray, " shingles"]) -> Sorted:
    """Returns the shingles of a text for `lack`."""
    places = np.argsort(found).astype(np.int32)
    return Sorted(found[places], places)


class Lack(NamedTuple):
    """What another text has of one, and lacks."""

    cover: float
    """The share of its units in shingles that the other has too; 0 where it has none."""
    gap: int
    """How many units in a row are in none of these, at most."""


def lack(text: Sorted, other: Sorted) -> Lack:
    """Returns how much of a text another one has."""
    compiled = library(SOURCE)
    if compiled is None:
        has = np.zeros(len(text.values), dtype=bool)
        has[text.places] = np.isin(text.values, other.values)
        return _lack(_covered(has))
    compiled.gristmill_lack.restype = ctypes.c_int64
    gap = ctypes.c_int64(0)
    units = len(text.values) + SHINGLE - 1 if len(text.values) else 0
    covered = compiled.gristmill_lack(
        address(text.values), address(text.places), ctypes.c_int64(len(text.values)), address(other.values),
        ctypes.c_int64(len(other.values)), ctypes.c_int64(SHINGLE), ctypes.byref(gap),
    )  # fmt: skip
    if covered < 0:
        raise MemoryError("comparing two texts")
    return Lack(covered / units if units else 0.0, gap.value)


def cover(has: Bool[np.ndarray, " shingles"]) -> float:
    """Returns the share of a text's units in shingles that another has too, given which of its shingles that has."""
    return _lack(_covered(has)).cover


def _covered(has: Bool[np.ndarray, " shingles"]) -> Bool[np.ndarray, " units"]:
    """Whether each unit stands in a shingle of those."""
    if len(has) == 0:
        return np.zeros(0, dtype=bool)
    changes = np.zeros(len(has) + SHINGLE, dtype=np.int64)
    places = np.flatnonzero(has)
    changes[places] += 1
    changes[places + SHINGLE] -= 1
    covered: Bool[np.ndarray, " units"] = np.cumsum(changes[:-1]) > 0
    return covered


def _lack(covered: Bool[np.ndarray, " units"]) -> Lack:
    borders = np.flatnonzero(np.diff(covered, prepend=True, append=True))
    gaps = borders[1::2] - borders[::2]
    return Lack(float(covered.mean()) if len(covered) else 0.0, int(gaps.max(initial=0)))


@functools.cache
def _functions() -> tuple[Any, Any]:
    """The multipliers (odd) and additions of the hash functions, the same for ever."""
    generator = np.random.Generator(np.random.PCG64(20260101))
    count = BANDS * ROWS
    multipliers = generator.integers(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return multipliers, generator.integers(0, 1 << 32, count, dtype=np.uint32)


# --- the same in Python ---------------------------------------------------------------------------------------------


def _units(text: str) -> list[int]:
    kinds = (character_classes()[[ord(c) for c in text]] & CLASS).tolist()
    found, start = [], 0
    for i, (c, kind) in enumerate(zip(text, kinds, strict=True)):
        if kind in (LETTER, MARK, DIGIT):
            continue
        if i > start:
            found.append(word_hash(_ascii_lower(text[start:i])))
        if kind in (HAN, UNSPACED):
            found.append(word_hash(c))
        start = i + 1
    return [*found, word_hash(_ascii_lower(text[start:]))] if start < len(text) else found


def _ascii_lower(word: str) -> str:
    return "".join(c.lower() if c < "\x80" else c for c in word)


def _shingles(text: str) -> UInt32[np.ndarray, " shingles"]:
    units = _units(text) if text else []
    runs = [units[i : i + SHINGLE] for i in range(max(1, len(units) - SHINGLE + 1))] if units else []
    return np.array([functools.reduce(_next, run, 0) >> 32 for run in runs], dtype=np.uint32)


def _next(value: int, unit: int) -> int:
    return mixed((value * 31 + unit) % _MODULUS)


def _bands(found: Any, multipliers: Any, additions: Any) -> list[int]:
    h = found[:, None].astype(np.uint32) * multipliers[None] + additions[None]
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    minima = h.min(axis=0).reshape(BANDS, ROWS)
    return [functools.reduce(_next, map(int, row), band + 1) for band, row in enumerate(minima)]
