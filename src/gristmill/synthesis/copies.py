"""Whether a text is a copy: the same as a known one, or so much of it stands in one that little is new.

As in `corpus.deduplicate`, something cheap nominates and `near.cover` decides. MinHash compares whole texts and would not
find a page that is learned by heart out of a book; so texts are nominated by some of their shingles. Of every WINDOW
shingles in a row the least is chosen (winnowing: Schleimer, Wilkerson and Aiken 2003), so two texts that have WINDOW
shingles in a row in common have a chosen one in common: none of them is missed.
"""

import collections
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from gristmill.corpus.near import LEAST_SHINGLES, cover, shingles
from gristmill.corpus.normalise import normalise

__all__ = ["WINDOW", "Copied", "KnownTexts", "MadeTexts", "cut_copies"]

WINDOW = LEAST_SHINGLES
MOST_COMPARED = 64
"""A text is compared with so many known ones, those that share the most with it."""
_BATCH = 256


class Copied(NamedTuple):
    """That a text is a copy of another."""

    reason: str
    """"duplicate" or "near duplicate"."""
    share: float
    """How much of it the other has."""
    of: str
    """Which known text it is, as whoever gave them calls it."""


@final
class KnownTexts:
    """Texts that nothing should copy. Their shingles lie in a file; in memory are some of them."""

    def __init__(self, texts: Iterable[tuple[str, str]], scratch: Path) -> None:
        """Takes names and texts, and a file for their shingles, which is written anew: 4 bytes for each word."""
        self._digests: dict[bytes, int] = {}
        self._names: list[str] = []
        counts: list[int] = []
        chosen: list[Any] = []
        owners: list[Any] = []
        with scratch.open("wb") as file:
            for batch in _batches(texts):
                found, sizes = shingles([text for _, text in batch])
                ends = np.cumsum(sizes)
                for (name, text), end, size in zip(batch, ends.tolist(), sizes.tolist(), strict=True):
                    number = len(self._names)
                    self._names.append(name)
                    self._digests.setdefault(_digest(text), number)
                    some = _some(found[end - size : end])
                    chosen.append(some)
                    owners.append(np.full(len(some), number, dtype=np.uint32))
                    counts.append(size)
                file.write(np.ascontiguousarray(found).tobytes())
        self._offsets = np.concatenate([[0], np.cumsum(np.array(counts, dtype=np.int64))])
        total = int(self._offsets[-1])
        self._shingles: Any = (
            np.memmap(scratch, dtype=np.uint32, mode="r") if total else np.zeros(0, np.uint32)
        )
        hashes = np.concatenate([np.zeros(0, np.uint32), *chosen])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._owners = np.concatenate([np.zeros(0, np.uint32), *owners])[order]

    def same(self, text: str) -> Copied | None:
        """Returns the known text that is the same, white space around it aside."""
        number = self._digests.get(_digest(text))
        return None if number is None else Copied("duplicate", 1.0, self._names[number])

    def near(self, own: Any, share: float) -> Copied | None:
        """Returns the known text that has the most of a text with these shingles, if that is enough."""
        some = np.unique(_some(own))
        first = np.searchsorted(self._hashes, some, side="left")
        after = np.searchsorted(self._hashes, some, side="right")
        owners = [self._owners[a:b] for a, b in zip(first.tolist(), after.tolist(), strict=True) if b > a]
        if not owners:
            return None
        numbers, counts = np.unique(np.concatenate(owners), return_counts=True)
        ranked = numbers[np.argsort(-counts, kind="stable")[:MOST_COMPARED]]
        return _best(own, ((self._names[n], self._of(n)) for n in ranked.tolist()), share)

    def _of(self, number: int) -> Any:
        return np.asarray(self._shingles[self._offsets[number] : self._offsets[number + 1]])


@final
class MadeTexts:
    """The texts that were made so far, which those that come later should not copy either."""

    def __init__(self) -> None:
        self._digests: dict[bytes, int] = {}
        self._shingles: list[Any] = []
        self._by_shingle: dict[int, list[int]] = collections.defaultdict(list)
        self._names: list[str] = []

    def add(self, name: str, text: str, own: Any) -> None:
        """Adds a text with its shingles."""
        number = len(self._names)
        self._names.append(name)
        self._digests.setdefault(_digest(text), number)
        self._shingles.append(own)
        for value in np.unique(_some(own)).tolist():
            self._by_shingle[value].append(number)

    def same(self, text: str) -> Copied | None:
        """Returns the text that is the same."""
        number = self._digests.get(_digest(text))
        return None if number is None else Copied("duplicate", 1.0, self._names[number])

    def near(self, own: Any, share: float) -> Copied | None:
        """Returns the text that has the most of one with these shingles, if that is enough."""
        counts = collections.Counter(
            number for value in np.unique(_some(own)).tolist() for number in self._by_shingle.get(value, ())
        )
        ranked = sorted(counts, key=lambda number: (-counts[number], number))[:MOST_COMPARED]
        return _best(own, ((self._names[n], self._shingles[n]) for n in ranked), share)


def cut_copies(
    whole: str, own: Any, sets: Sequence[KnownTexts | MadeTexts], share: float | bool
) -> Copied | None:
    """Returns what a text is a copy of, the first found in some sets of texts.

    Args:
        whole: the text, which is compared with whole texts.
        own: the shingles of what of it is new.
        sets: texts that it must not copy.
        share: how much of it another has to have; False compares whole texts only.
    """
    for texts in sets:
        found = texts.same(whole)
        if found is None and share and len(own) >= LEAST_SHINGLES:
            found = texts.near(own, float(share))
        if found is not None:
            return found
    return None


def _best(own: Any, others: Iterable[tuple[str, Any]], share: float) -> Copied | None:
    best = Copied("near duplicate", 0.0, "")
    for name, theirs in others:
        value = cover(np.isin(own, theirs))
        if value > best.share:
            best = Copied("near duplicate", value, name)
        if value == 1:
            break
    return best if best.share >= share else None


def _some(found: Any) -> Any:
    """The least of each WINDOW shingles in a row; none of a text that has fewer."""
    if len(found) < WINDOW:
        return found[:0]
    windows = np.lib.stride_tricks.sliding_window_view(found, WINDOW).min(axis=1)
    return windows[np.concatenate([[True], windows[1:] != windows[:-1]])]


def _digest(text: str) -> bytes:
    """What documents of a corpus are told apart by: 128 bits of a hash, of the normal form without white space around."""
    return hashlib.sha256(normalise(text).text.encode().strip()).digest()[:16]


def _batches(texts: Iterable[tuple[str, str]]) -> Iterable[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for pair in texts:
        batch.append(pair)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
