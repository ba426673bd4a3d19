"""Which documents are superfluous: the same as another, or nearly.

Exact: of the texts with the same SHA-256 (128 bits of it, white space around them aside) the first stays.

Near: texts that share a MinHash band are compared, and one is dropped where a text that stays has nine tenths of it
(`near.cover`). The longest come first, so what stays has the most; a text is compared with those that share a band with
it, never with the friends of its friends: no chain of small differences joins what differs.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Int

from gristmill.corpus.documents import ATTRIBUTES, ROW_BITS, TEXTS, buffers_of
from gristmill.corpus.engine import EngineSettings, groups
from gristmill.corpus.near import BANDS, cover, shingles_of_buffer

__all__ = ["DedupSettings", "Duplicates", "Units", "exact_duplicates", "near_duplicates"]

MOST_COMPARED = 64
"""A text is compared with so many that stay, those that share the most bands with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DedupSettings:
    """The `[corpus.dedup]` table."""

    exact: bool = True
    """Drop documents that are the same."""
    near: Annotated[float, Gt(0), Le(1)] | Literal[False] = 0.9
    """Drop a document where one that stays has this share of it; near = false drops none of these."""
    paragraphs: Annotated[int, Ge(1)] | None = None
    """Cut a paragraph that stands in more documents than this, save where it is first; by default none."""
    lines: Annotated[int, Ge(1)] | None = None
    """The same of lines: menus, footers, signatures."""


class Duplicates(NamedTuple):
    """Documents that are superfluous, ascending by key."""

    keys: Int[np.ndarray, " documents"]
    kept: Int[np.ndarray, " documents"]
    """The document that each one is superfluous beside."""
    cover: Any
    """How much of each one that has: float64, 1 where they are the same."""


class Units(NamedTuple):
    """Where the documents are: the units in the order of the sources."""

    directory: Path
    names: tuple[str, ...]
    documents: tuple[int, ...]

    @property
    def attributes(self) -> list[Path]:
        """Their files of attributes."""
        return [self.directory / f"{name}.{ATTRIBUTES}" for name in self.names]

    @property
    def texts(self) -> list[Path]:
        """Their files of texts."""
        return [self.directory / f"{name}.{TEXTS}" for name in self.names]

    def places(self, keys: Any) -> Any:
        """Returns the number of each document in the order of the sources."""
        prefixes = np.array([int(name[:8], 16) >> 1 for name in self.names])
        firsts = np.cumsum([0, *self.documents])[:-1]
        order = np.argsort(prefixes)
        unit = order[np.searchsorted(prefixes, keys >> ROW_BITS, sorter=order)]
        return firsts[unit] + (keys & ((1 << ROW_BITS) - 1))


def exact_duplicates(units: Units, engine: EngineSettings) -> Duplicates:
    """Returns the documents that are the same as an earlier one."""
    dropped, kept = [], []
    for keys, counts in groups(units.attributes, "hash", engine, documents=sum(units.documents)):
        group = np.repeat(np.arange(len(counts)), counts)
        keys = keys[np.lexsort((units.places(keys), group))]
        first = np.repeat(keys[np.cumsum(counts) - counts], counts)
        dropped.append(keys[keys != first])
        kept.append(first[keys != first])
    empty = np.array([], dtype=np.int64)
    all_dropped, all_kept = np.concatenate([empty, *dropped]), np.concatenate([empty, *kept])
    order = np.argsort(all_dropped)
    return Duplicates(all_dropped[order], all_kept[order], np.ones(len(order)))


def near_duplicates(
    units: Units,
    settings: DedupSettings,
    engine: EngineSettings,
    superfluous: Int[np.ndarray, " keys"],
) -> Duplicates:
    """Returns the documents of which one that stays has enough; `superfluous` (ascending) are left out beforehand."""
    labels, keys = _clusters(units, engine, superfluous)
    if not settings.near or not len(keys):
        empty = np.array([], dtype=np.int64)
        return Duplicates(empty, empty, np.array([]))
    members = _read_members(units, keys)
    found: list[tuple[int, int, float]] = []
    order = np.argsort(labels, kind="stable")
    place = dict(zip(keys.tolist(), units.places(keys).tolist(), strict=True))
    for cluster in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        found += _compare([members[int(keys[i])] for i in cluster], settings.near, place)
    found.sort()
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    return Duplicates(
        np.array(columns[0], np.int64), np.array(columns[1], np.int64), np.array(columns[2], float)
    )


class _Member(NamedTuple):
    """A text that may be superfluous, or make others so."""

    key: int
    bands: Any
    shingles: Any


def _clusters(units: Units, engine: EngineSettings, superfluous: Any) -> tuple[Any, Any]:
    """Returns a label for each document that shares a band with another, and its key: equal labels are compared."""
    import scipy.sparse
    import scipy.sparse.csgraph

    edges = []
    for band in range(BANDS):
        for keys, counts in groups(
            units.attributes, f"band_{band:02d}", engine, documents=sum(units.documents)
        ):
            stays = ~_contains(superfluous, keys)
            group = np.repeat(np.arange(len(counts)), counts)[stays]
            keys = keys[stays]
            same = group[1:] == group[:-1]
            edges.append(np.stack([keys[:-1][same], keys[1:][same]]))
    pairs = np.concatenate([np.empty((2, 0), np.int64), *edges], axis=1)
    keys, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(2, -1)
    graph = scipy.sparse.coo_matrix(
        (np.ones(ends.shape[1], bool), (ends[0], ends[1])), shape=(len(keys), len(keys))
    )
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1], keys


def _contains(ascending: Any, keys: Any) -> Any:
    if not len(ascending):
        return np.zeros(len(keys), bool)
    places = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return ascending[places] == keys


def _read_members(units: Units, keys: Any) -> dict[int, _Member]:
    members = {}
    for name in units.names:
        first = int(name[:8], 16) >> 1 << ROW_BITS
        rows = keys[keys >> ROW_BITS == first >> ROW_BITS] - first
        for row, bands, found in _of_unit(units.directory, name, rows):
            members[first + row] = _Member(first + row, bands, found)
    return members


def _of_unit(directory: Path, name: str, rows: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yields the bands and shingles of rows (ascending) of a unit; only the row groups that hold them are read."""
    import pyarrow.parquet

    columns = [f"band_{band:02d}" for band in range(BANDS)]
    with (
        pyarrow.parquet.ParquetFile(directory / f"{name}.{TEXTS}") as texts,
        pyarrow.parquet.ParquetFile(directory / f"{name}.{ATTRIBUTES}") as attributes,
    ):
        begin = 0
        for group in range(texts.num_row_groups):
            end = begin + texts.metadata.row_group(group).num_rows
            chosen = rows[(rows >= begin) & (rows < end)] - begin
            if len(chosen):
                column = texts.read_row_group(group, columns=["text"])["text"].take(chosen).combine_chunks()
                bands = attributes.read_row_group(group, columns=columns).take(chosen)
                matrix = np.stack([bands[band].to_numpy() for band in columns], axis=1)
                found, counts = shingles_of_buffer(*buffers_of(column))
                ends = np.cumsum(counts)
                for i, row in enumerate(chosen):
                    yield begin + int(row), matrix[i], found[ends[i] - counts[i] : ends[i]].copy()
            begin = end


def _compare(
    members: list[_Member], share: float, place: Mapping[int, int]
) -> Iterator[tuple[int, int, float]]:
    """Yields (key, key of the one that stays, cover) for the superfluous of texts that may be near each other."""
    by_band: dict[tuple[int, int], list[int]] = {}
    staying: list[tuple[int, Any]] = []
    for member in sorted(members, key=lambda m: (-len(m.shingles), place[m.key])):
        own = [(band, int(value)) for band, value in enumerate(member.bands) if value]
        shared = collections.Counter(i for band in own for i in by_band.get(band, ()))
        best, best_key = 0.0, -1
        for i, _ in sorted(shared.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_COMPARED]:
            key, theirs = staying[i]
            places = np.minimum(np.searchsorted(theirs, member.shingles), len(theirs) - 1)
            value = cover(theirs[places] == member.shingles)
            if value > best:
                best, best_key = value, key
            if best == 1:
                break
        if best >= share:
            yield member.key, best_key, best
        else:
            for band in own:
                by_band.setdefault(band, []).append(len(staying))
            staying.append((member.key, np.unique(member.shingles)))
