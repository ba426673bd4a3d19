"""What is taken out of texts, or put in its place, when they are read out: the texts themselves stay as they were.

A table for each unit of work that has edits, `edits/NAME.parquet`: row (of the text), start and end (bytes of its UTF-8),
replacement, reason. In a text they follow each other and do not overlap.
"""

import bisect
import collections
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gristmill.corpus.deduplicate import Units

__all__ = ["EDITS", "Edit", "Edits", "apply_edits", "read_edits"]

EDITS = "edits"


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
    """The edits of all documents of some units, collected before they are written."""

    def __init__(self, units: Units) -> None:
        """There are none at first."""
        self._units = units
        self._of: dict[int, list[Edit]] = collections.defaultdict(list)
        self.made: collections.Counter[str] = collections.Counter()
        """How many there are of each reason."""

    def add(self, document: int, edit: Edit) -> bool:
        """Adds an edit to a document (its place in the order of the sources), and returns whether there was room.

        What overlaps an edit that is there already is left out: who comes first decides.
        """
        mine = self._of[document]
        place = bisect.bisect(mine, edit)
        if (place and mine[place - 1].end > edit.start) or (
            place < len(mine) and mine[place].start < edit.end
        ):
            return False
        mine.insert(place, edit)
        self.made[edit.reason] += 1
        return True

    def apply(self, document: int, text: str) -> str:
        """Returns the text of a document with its edits made."""
        return apply_edits(text, self._of.get(document, []))

    def sizes(self, texts: Mapping[int, str]) -> dict[int, tuple[int, int]]:
        """Returns the characters and bytes that are left of each of these texts."""
        left = {document: self.apply(document, text) for document, text in texts.items()}
        return {document: (len(text), len(text.encode())) for document, text in left.items()}

    @property
    def documents(self) -> list[int]:
        """The documents that have edits, in the order of the sources."""
        return sorted(self._of)

    def write(self, directory: Path) -> None:
        """Writes a table for each unit that has edits, below `edits/`."""
        import pyarrow
        import pyarrow.parquet

        folder = directory / EDITS
        folder.mkdir(exist_ok=True)
        firsts = np.cumsum([0, *self._units.documents])
        by_unit = itertools.groupby(
            sorted(self._of), key=lambda d: int(np.searchsorted(firsts, d, side="right")) - 1
        )
        for unit, documents in by_unit:
            rows = [(d - int(firsts[unit]), *edit) for d in documents for edit in self._of[d]]
            columns = list(zip(*rows, strict=True))
            table = pyarrow.table({
                "row": pyarrow.array(columns[0], pyarrow.int64()),
                "start": pyarrow.array(columns[1], pyarrow.int64()),
                "end": pyarrow.array(columns[2], pyarrow.int64()),
                "replacement": columns[3],
                "reason": pyarrow.array(columns[4]).dictionary_encode(),
            })  # fmt: skip
            pyarrow.parquet.write_table(
                table, folder / f"{self._units.names[unit]}.parquet", compression="zstd"
            )


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
