"""What is taken out of texts, or put in its place, when they are read out: the texts themselves stay as they were.

A table for each unit of work that has edits, `edits/NAME.parquet`: row (of the text), start and end (bytes of its UTF-8),
replacement, reason. In a text they follow each other and do not overlap.
"""

import bisect
import collections
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from gristmill.corpus.deduplicate import Units

__all__ = ["EDITS", "Edit", "Edits", "apply_edits", "read_edits"]

EDITS = "edits"
MOST_OPEN = 100_000
"""So many edits are held as Python objects, which take ten times the memory."""


class Edit(NamedTuple):
    """A piece of a text that is replaced."""

    start: int
    """Bytes of UTF-8 before it."""
    end: int
    replacement: str
    reason: str


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """Returns a text with its edits made; they are in order and do not overlap."""
    data, pieces, done = text.encode(), [], 0
    for edit in edits:
        pieces += [data[done : edit.start], edit.replacement.encode()]
        done = edit.end
    return b"".join([*pieces, data[done:]]).decode()


class Edits:
    """The edits of all documents of some units, collected before they are written, in some thirty bytes each."""

    def __init__(self, units: Units) -> None:
        """There are none at first."""
        self._units = units
        self._settled = _Columns(*(np.array([], np.int64) for _ in _Columns._fields))
        self._open: dict[int, list[Edit]] = {}
        """All edits of the documents that were touched last; the others' are settled."""
        self._count = 0
        self._words: list[str] = []
        """Replacements and reasons, each once."""
        self._number_of: dict[str, int] = {}
        self.made: collections.Counter[str] = collections.Counter()
        """How many there are of each reason."""

    def add(self, document: int, edit: Edit) -> bool:
        """Adds an edit to a document (its place in the order of the sources), and returns whether there was room.

        What overlaps an edit that is there already is left out: who comes first decides.
        """
        mine = self._of(document)
        place = bisect.bisect(mine, edit)
        if (place and mine[place - 1].end > edit.start) or (
            place < len(mine) and mine[place].start < edit.end
        ):
            return False
        mine.insert(place, edit)
        self._count += len(mine) if document not in self._open else 1
        self._open[document] = mine
        self.made[edit.reason] += 1
        if self._count > MOST_OPEN:
            self._settle()
        return True

    def apply(self, document: int, text: str) -> str:
        """Returns the text of a document with its edits made."""
        return apply_edits(text, self._of(document))

    @property
    def documents(self) -> Int[np.ndarray, " documents"]:
        """The documents that have edits, in the order of the sources."""
        self._settle()
        return np.unique(self._settled.document)

    def write(self, directory: Path) -> None:
        """Writes a table for each unit that has edits, below `edits/`."""
        import pyarrow
        import pyarrow.parquet

        self._settle()
        folder = directory / EDITS
        folder.mkdir(exist_ok=True)
        firsts = np.cumsum([0, *self._units.documents])
        borders = np.searchsorted(self._settled.document, firsts)
        words = pyarrow.array(self._words, pyarrow.string())
        for unit, (begin, end) in enumerate(itertools.pairwise(borders.tolist())):
            if begin == end:
                continue
            mine = _Columns(*(column[begin:end] for column in self._settled))
            table = pyarrow.table({
                "row": mine.document - firsts[unit],
                "start": mine.start,
                "end": mine.end,
                "replacement": words.take(mine.replacement),
                "reason": words.take(mine.reason).dictionary_encode(),
            })  # fmt: skip
            pyarrow.parquet.write_table(
                table, folder / f"{self._units.names[unit]}.parquet", compression="zstd"
            )

    def _of(self, document: int) -> list[Edit]:
        """The edits of a document, in order."""
        if document in self._open:
            return self._open[document]
        begin, end = np.searchsorted(self._settled.document, [document, document + 1]).tolist()
        if begin == end:
            return []
        words = self._words
        rows = zip(*(column[begin:end].tolist() for column in self._settled[1:]), strict=True)
        return [
            Edit(start, stop, words[replacement], words[reason]) for start, stop, replacement, reason in rows
        ]

    def _settle(self) -> None:
        """Puts what is open into columns, ascending by document and place."""
        if not self._open:
            return
        rows = [
            (document, *edit[:2], *map(self._number, edit[2:]))
            for document, edits in self._open.items()
            for edit in edits
        ]
        touched = np.isin(self._settled.document, np.fromiter(self._open, np.int64, len(self._open)))
        columns = [
            np.concatenate([before[~touched], np.array(new, before.dtype)])
            for before, new in zip(self._settled, zip(*rows, strict=True), strict=True)
        ]
        order = np.argsort(columns[0], kind="stable")
        self._settled = _Columns(*(column[order] for column in columns))
        self._open, self._count = {}, 0

    def _number(self, word: str) -> int:
        number = self._number_of.setdefault(word, len(self._words))
        if number == len(self._words):
            self._words.append(word)
        return number


class _Columns(NamedTuple):
    """Edits in columns; replacements and reasons are numbers."""

    document: Any
    start: Any
    end: Any
    replacement: Any
    reason: Any


def read_edits(directory: Path, unit: str) -> Mapping[int, list[Edit]]:
    """Returns the edits of a unit's texts by row."""
    import pyarrow.parquet

    path = directory / EDITS / f"{unit}.parquet"
    found: dict[int, list[Edit]] = collections.defaultdict(list)
    if path.is_file():
        columns = pyarrow.parquet.read_table(path).to_pydict()
        for row, *edit in zip(*columns.values(), strict=True):
            found[row].append(Edit(*edit))
    return found
