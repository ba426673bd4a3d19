"""The units of work of a corpus, as its facts are counted in them: an array for each column, a place for each document."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.corpus.decisions import DECISIONS
from gristmill.corpus.documents import ATTRIBUTES
from gristmill.corpus.store import UNITS

__all__ = ["Home", "Unit", "home_of", "units_of"]

_ALWAYS = ("key", "hash", "bytes", "language", "characters")
_FIGURES = {"quality": "score", "perplexity": "millibits"}
"""Looks that give each text a figure, and the column that it is in."""


class Unit(NamedTuple):
    """What was decided about the documents of a unit, and what is known of each."""

    name: str
    key: Any
    reasons: tuple[str, ...]
    reason: Any
    """A place in `reasons`; "" is kept."""
    by: Any
    cover: Any
    valid: Any
    group: Any
    languages: tuple[str, ...]
    language: Any
    """A place in `languages`."""
    attributes: Mapping[str, Any]
    figures: Mapping[str, Any]
    """What models said of each text, by the name of the look."""

    @property
    def kept(self) -> Any:
        """Whether each document is."""
        return self.dropped_as("")

    def dropped_as(self, reason: str) -> Any:
        """Returns which documents have this reason."""
        number = self.reasons.index(reason) if reason in self.reasons else -1
        return self.reason == number


class Home(NamedTuple):
    """Where a corpus lies, and what there is of each unit."""

    path: Path
    names: tuple[str, ...]
    """Of the units, in their order."""
    looks: Mapping[str, tuple[str, ...]]
    """What was looked for in the texts: the endings of the files, by the name of the look."""

    @property
    def attributes(self) -> set[str]:
        """Which attributes the documents have; another version knew others."""
        import pyarrow.parquet

        if not self.names:
            return set()
        return set(pyarrow.parquet.read_schema(self.path / UNITS / f"{self.names[0]}.{ATTRIBUTES}").names)

    def looked(self, name: str, look: str, columns: Sequence[str]) -> dict[str, Any] | None:
        """Returns what a look has found in a unit, all its files one after the other; None where there is none."""
        import pyarrow
        import pyarrow.parquet

        files = [self.path / UNITS / f"{name}.{ending}" for ending in self.looks.get(look, ())]
        tables = [pyarrow.parquet.read_table(file, columns=list(columns)) for file in files if file.is_file()]
        if not tables:
            return None
        table = pyarrow.concat_tables(tables)
        return {column: table[column].to_numpy() for column in columns}


def home_of(corpus: Path, names: Sequence[str]) -> Home:
    """Returns where a corpus lies, its directory looked through once."""
    endings: dict[str, set[str]] = {}
    for file in (corpus / UNITS).iterdir():
        found = re.fullmatch(r"[0-9a-f]+\.(([a-z_]+)-[0-9a-f]+\.parquet)", file.name)
        if found:
            endings.setdefault(found[2], set()).add(found[1])
    return Home(corpus, tuple(names), {look: tuple(sorted(found)) for look, found in endings.items()})


def units_of(home: Home, attributes: Sequence[str]) -> Iterator[Unit]:
    """Yields the units that have documents, with these attributes beside what is always needed."""
    import pyarrow.parquet

    wanted = list(dict.fromkeys((*_ALWAYS, *attributes)))
    for name in home.names:
        decisions = pyarrow.parquet.read_table(home.path / DECISIONS / f"{name}.parquet")
        if not decisions.num_rows:
            continue
        table = pyarrow.parquet.read_table(home.path / UNITS / f"{name}.{ATTRIBUTES}", columns=wanted)
        reasons, reason = _encoded(decisions["reason"])
        languages, language = _encoded(table["language"])
        yield Unit(
            name=name,
            key=table["key"].to_numpy(),
            reasons=reasons,
            reason=reason,
            languages=languages,
            language=language,
            attributes={column: table[column].to_numpy() for column in wanted if column not in ("key", "language")},
            figures=_figures(home, name, decisions.num_rows),
            **{column: decisions[column].to_numpy() for column in ("by", "cover", "valid", "group")},
        )  # fmt: skip


def _encoded(column: Any) -> tuple[tuple[str, ...], Any]:
    encoded = column.cast("string").combine_chunks().dictionary_encode()
    return tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy().astype(np.int64)


def _figures(home: Home, name: str, documents: int) -> dict[str, Any]:
    """The figures of a unit's texts; of two models of a kind it can't be told which one decided."""
    found = {}
    for look, column in _FIGURES.items():
        table = home.looked(name, look, [column]) if len(home.looks.get(look, ())) == 1 else None
        if table is not None and len(table[column]) == documents:
            found[look] = table[column]
    return found
