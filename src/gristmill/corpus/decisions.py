"""What is decided about each document: kept or dropped, why, beside which other one, and which split.

A table for each unit of work, a row for each document, in `decisions/NAME.parquet`: reason ("" where it is kept), `by`
(the key of the document that makes it superfluous, or -1), `cover` (how much of it that has), split, and its group: the
source and the language that it belongs to.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt16

from gristmill.corpus.deduplicate import Duplicates, Units

__all__ = ["DECISIONS", "Decisions", "Reasons"]

DECISIONS = "decisions"
PART_ROWS = 1 << 16


class Reasons:
    """Why a document is dropped; the rules of quality have names of their own."""

    TOO_SHORT = "too short"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near duplicate"
    HELD_OUT = "held out"
    LEFT_OUT = "left out"
    FORGOTTEN = "forgotten"


class Decisions:
    """The decisions about all documents of some units, in the order of the sources."""

    def __init__(self, units: Units) -> None:
        """All are kept, and training text, until something else is said."""
        self.units = units
        self.keys: Int[np.ndarray, " documents"] = self.attribute("key")
        count = len(self.keys)
        self.reason = np.zeros(count, dtype=np.uint8)
        """A place in `reasons`."""
        self.reasons = [""]
        self.by = np.full(count, -1, dtype=np.int64)
        self.cover = np.zeros(count, dtype=np.float32)
        self.valid = np.zeros(count, dtype=bool)
        self.group = np.zeros(count, dtype=np.uint16)
        self.groups: tuple[str, ...] = ("",)

    @property
    def kept(self) -> Bool[np.ndarray, " documents"]:
        """Whether each document is kept."""
        kept: Bool[np.ndarray, " documents"] = self.reason == 0
        return kept

    def attribute(self, name: str) -> Any:
        """Returns an attribute of all documents."""
        import pyarrow.parquet

        parts = []
        for file in self.units.attributes:
            with pyarrow.parquet.ParquetFile(file) as attributes:
                parts.append(attributes.read(columns=[name], use_threads=False)[name].to_numpy())
        return np.concatenate(parts) if parts else np.array([], np.int64)

    def attributes(self, names: Sequence[str]) -> Iterator[Any]:
        """Yields tables of some attributes, in the order of the documents, as many rows at a time as memory is for."""
        import pyarrow.parquet

        for file in self.units.attributes:
            with pyarrow.parquet.ParquetFile(file) as attributes:
                yield from attributes.iter_batches(PART_ROWS, columns=list(names), use_threads=False)

    def words(self, name: str) -> tuple[UInt16[np.ndarray, " documents"], tuple[str, ...]]:
        """Returns an attribute that is one of a few words: the number of each document's, and the words, sorted."""
        import pyarrow.parquet

        number: dict[str, int] = {}
        parts = [np.array([], np.uint16)]
        for file in self.units.attributes:
            with pyarrow.parquet.ParquetFile(file, read_dictionary=[name]) as attributes:
                for chunk in attributes.read(columns=[name], use_threads=False)[name].chunks:
                    known = [number.setdefault(word, len(number)) for word in chunk.dictionary.to_pylist()]
                    parts.append(np.array(known, np.uint16)[chunk.indices.to_numpy()])
        names = sorted(number)
        place = np.array([names.index(word) for word in number], np.uint16)
        return place[np.concatenate(parts)], tuple(names)

    def drop(self, reason: str, which: Bool[np.ndarray, " documents"]) -> None:
        """Drops the chosen ones of those that are still kept."""
        self.reason[self.kept & which] = self._code(reason)

    def dropped(self, reason: str) -> Bool[np.ndarray, " documents"]:
        """Returns which documents are dropped for a reason."""
        which: Bool[np.ndarray, " documents"] = self.reason == self._code(reason)
        return which

    def _code(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def drop_duplicates(self, reason: str, found: Duplicates) -> None:
        """Drops what is superfluous beside another document, where it is still kept."""
        places = self.units.places(found.keys)
        still = self.kept[places]
        places = places[still]
        self.reason[places] = self._code(reason)
        self.by[places] = found.kept[still]
        self.cover[places] = found.cover[still]

    def split(self, threshold: int) -> None:
        """Makes validation of the kept documents whose hash lies below a threshold."""
        self.valid = self.kept & (self.attribute("hash") < np.uint64(min(threshold, (1 << 64) - 1)))

    def divide(self, source_of: Mapping[str, str]) -> None:
        """Puts each document into the group of its source and language, "books/en"; "en" where sources have no names.

        `source_of` gives the name of a file's source.
        """
        names = sorted(set(source_of.values()))
        number = {file: names.index(name) for file, name in source_of.items()}
        languages, known = self.words("language")
        pairs = self._sources(number) * len(known) + languages
        is_gone = self.attribute("bytes") == 0  # forgotten: of no language
        pairs[is_gone] = pairs[~is_gone].min() if is_gone.any() else 0
        present, group = np.unique(pairs, return_inverse=True)
        self.group = group.astype(np.uint16)
        self.groups = tuple(
            "/".join(part for part in (names[pair // len(known)], known[pair % len(known)]) if part)
            for pair in present.tolist()
        )

    def _sources(self, number: Mapping[str, int]) -> Any:
        """The number of each document's source."""
        import pyarrow.parquet

        parts = [np.array([], np.int64)]
        for file in self.units.texts:
            column = pyarrow.parquet.read_table(file, columns=["source"], read_dictionary=["source"])[
                "source"
            ]
            for chunk in column.chunks:
                # of a file of which all is forgotten nothing may be known any more
                numbers = np.array([number.get(name, 0) for name in chunk.dictionary.to_pylist()], np.int64)
                parts.append(numbers[chunk.indices.to_numpy()])
        return np.concatenate(parts)

    def write(self, directory: Path) -> None:
        """Writes a table for each unit below `decisions/`."""
        import pyarrow
        import pyarrow.parquet

        folder = directory / DECISIONS
        folder.mkdir(exist_ok=True)
        begin = 0
        names = pyarrow.array(self.reasons)
        for name, documents in zip(self.units.names, self.units.documents, strict=True):
            rows = slice(begin, begin + documents)
            begin += documents
            table = pyarrow.table({
                "reason": pyarrow.DictionaryArray.from_arrays(pyarrow.array(self.reason[rows]), names),
                "by": self.by[rows],
                "cover": self.cover[rows],
                "valid": self.valid[rows],
                "group": self.group[rows],
            })  # fmt: skip
            pyarrow.parquet.write_table(table, folder / f"{name}.parquet", compression="zstd")
