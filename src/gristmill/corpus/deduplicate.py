"""Which documents are superfluous: the same as another, or nearly.

Exact: of the texts with the same SHA-256 (128 bits of it, white space around them aside) the first stays.

Near: texts that share a MinHash band are compared, and one is dropped where a text that stays has nearly all of it, or
less, but with words changed here and there only (`near.lack`). The longest come first, so what stays has the most; a text
is compared with those that share a band with it, never with the friends of its friends: no chain of small differences
joins what differs.

Memory holds some forty bytes for each document that shares a band with another. What is compared lies on the disk
meanwhile, in a file that goes with the process.
"""

import array
import collections
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Int, Int32, UInt32

from gristmill.corpus.documents import ATTRIBUTES, ROW_BITS, TEXTS, buffers_of
from gristmill.corpus.engine import EngineSettings, groups
from gristmill.corpus.near import BANDS, SHINGLE, Sorted, lack, shingles_of_buffer, sorted_shingles

__all__ = ["DedupSettings", "Duplicates", "Units", "exact_duplicates", "near_duplicates"]

MOST_COMPARED = 64
"""A text is compared with so many that stay, those that share the most bands with it."""
MOST_IN_BAND = 256
"""So many of the texts that stay are known by a band that they share, the longest ones: thousands of pages from one
template would all be compared with each other."""
MOST_GAP = 2 * SHINGLE
"""Where words were changed here and there, so many units in a row are missing at most: what is between two changes that
are no shingle apart counts as missing."""
EDGES, MEMBERS, HELD_SHINGLES = 4_000_000, 100_000, 8 << 20
"""What is in memory at a time: pairs, documents of which the bands are, and shingles."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DedupSettings:
    """The `[corpus.dedup]` table."""

    exact: bool = True
    """Drop documents that are the same."""
    near: Annotated[float, Gt(0), Le(1)] | Literal[False] = 0.95
    """Drop a document where one that stays has this share of it; near = false drops none of these."""
    edited: Annotated[float, Gt(0), Le(1)] | Literal[False] = 0.9
    """Drop it too where that has this share of it and lacks ten words in a row nowhere: words were changed here and there.
    False does without, and so does near = false."""
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
    empty = np.array([], dtype=np.int64)
    if not settings.near:
        return Duplicates(empty, empty, np.array([]))
    labels, keys = _clusters(units, engine, superfluous)
    found = _Found(array.array("q"), array.array("q"), array.array("d"))
    with tempfile.TemporaryFile(dir=units.directory, prefix=".near.") as file:
        members = _Members(units, keys, file)
        order = np.lexsort((units.places(keys), -members.counts, labels)) if len(keys) else empty
        for clusters in _batches(labels[order]):
            _compare(members, [order[a:b] for a, b in clusters], settings, found)
    columns = [np.array(column) for column in found]
    by_key = np.argsort(columns[0], kind="stable")
    return Duplicates(*(column[by_key] for column in columns))


class _Found(NamedTuple):
    """The columns of Duplicates while they grow."""

    keys: Any
    kept: Any
    cover: Any


def _clusters(units: Units, engine: EngineSettings, superfluous: Any) -> tuple[Any, Any]:
    """Returns a label for each document that shares a band with another, and its key: equal labels are compared.

    Pairs are made a forest whenever there are many: one edge for a document, whatever it shares with how many.
    """
    edges, waiting = [np.empty((2, 0), np.int64)], 0
    for band in range(BANDS):
        for keys, counts in groups(
            units.attributes, f"band_{band:02d}", engine, documents=sum(units.documents)
        ):
            stays = ~_contains(superfluous, keys)
            group = np.repeat(np.arange(len(counts)), counts)[stays]
            keys = keys[stays]
            same = group[1:] == group[:-1]
            edges.append(np.stack([keys[:-1][same], keys[1:][same]]))
            waiting += edges[-1].shape[1]
        if waiting > EDGES:
            labels, keys = _components(np.concatenate(edges, axis=1))
            _, first = np.unique(labels, return_index=True)
            edges, waiting = [np.stack([keys, keys[first[labels]]])], 0
    return _components(np.concatenate(edges, axis=1))


def _components(pairs: Int[np.ndarray, "2 pairs"]) -> tuple[Any, Any]:
    """Returns a label for each key of some pairs, the same for those that pairs connect, and the keys, ascending."""
    import scipy.sparse
    import scipy.sparse.csgraph

    keys, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(2, -1)
    graph = scipy.sparse.coo_matrix(
        (np.ones(ends.shape[1], bool), (ends[0], ends[1])), shape=(len(keys), len(keys))
    )
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1], keys


def _batches(labels: Any) -> Iterator[list[tuple[int, int]]]:
    """Yields the borders of runs of equal labels, as many runs at a time as make MEMBERS labels, or one that is longer."""
    borders = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [len(labels)]]).tolist()
    batch: list[tuple[int, int]] = []
    for begin, end in itertools.pairwise(borders):
        if batch and end - batch[0][0] > MEMBERS:
            yield batch
            batch = []
        batch.append((begin, end))
    if len(labels):
        yield batch


def _contains(ascending: Any, keys: Any) -> Any:
    if not len(ascending):
        return np.zeros(len(keys), bool)
    places = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return ascending[places] == keys


class _Members:
    """The bands and shingles of the texts that are to be compared, in a file; each is known by its place in `keys`."""

    def __init__(self, units: Units, keys: Int[np.ndarray, " members"], file: Any) -> None:
        """Reads them from the texts, unit by unit, and writes them down."""
        self.keys = keys
        self.counts = np.zeros(len(keys), dtype=np.int32)
        """How many shingles each has."""
        self._starts = np.zeros(len(keys), dtype=np.int64)
        self._file = file
        self._held: dict[int, Sorted] = {}
        self._held_count = written = 0
        for name in units.names:
            first = int(name[:8], 16) >> 1 << ROW_BITS
            begin, end = np.searchsorted(keys, [first, first + (1 << ROW_BITS)]).tolist()
            rows = keys[begin:end] - first
            for member, (bands, found) in enumerate(_of_unit(units.directory, name, rows), begin):
                self.counts[member], self._starts[member] = len(found), written
                written += file.write(bands.tobytes()) + file.write(found.tobytes())
        file.flush()

    def bands(self, chosen: Int[np.ndarray, " some"]) -> UInt32[np.ndarray, "some bands"]:
        """Returns a number for each band of some texts, equal where they share it; 0 where a text has none."""
        found = np.empty((len(chosen), BANDS), dtype=np.uint32)
        for row, member in enumerate(chosen.tolist()):
            values = self._read(int(self._starts[member]), BANDS * 8, np.uint64)
            found[row] = values >> np.uint64(32)  # half of it is enough among so few, and half the memory
        return found

    def shingles(self, member: int) -> Sorted:
        """Returns the shingles of a text; those that were asked for last are held."""
        found = self._held.pop(member, None)
        if found is None:
            start = int(self._starts[member]) + BANDS * 8
            found = sorted_shingles(self._read(start, int(self.counts[member]) * 4, np.uint32))
            self._held_count += len(found.values)
        self._held[member] = found
        while self._held_count > HELD_SHINGLES and len(self._held) > 1:
            self._held_count -= len(self._held.pop(next(iter(self._held))).values)
        return found

    def _read(self, start: int, size: int, kind: Any) -> Any:
        self._file.seek(start)
        return np.frombuffer(self._file.read(size), dtype=kind)


def _of_unit(directory: Path, name: str, rows: Any) -> Iterator[tuple[Any, Any]]:
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
                for i in range(len(chosen)):
                    yield matrix[i], found[ends[i] - counts[i] : ends[i]]
            begin = end


def _compare(
    members: _Members, clusters: Sequence[Int[np.ndarray, " _"]], settings: DedupSettings, found: _Found
) -> None:
    """Adds to `found` what is superfluous of clusters of texts that may be near each other, the longest texts first."""
    shared = _shared_bands(members.bands(np.concatenate(clusters)))
    begin = 0
    for cluster in clusters:
        staying: list[int] = []
        by_band: dict[int, list[int]] = {}
        for member, own in zip(cluster.tolist(), shared[begin : begin + len(cluster)], strict=True):
            bands = own[own >= 0].tolist()
            counts = collections.Counter(place for band in bands for place in by_band.get(band, ()))
            nominated = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_COMPARED]
            kept, cover = _superfluous_beside(members, member, [staying[i] for i, _ in nominated], settings)
            if kept is not None:
                found.keys.append(int(members.keys[member]))
                found.kept.append(int(members.keys[kept]))
                found.cover.append(cover)
                continue
            for band in bands:
                known = by_band.setdefault(band, [])
                if len(known) < MOST_IN_BAND:
                    known.append(len(staying))
            staying.append(member)
        begin += len(cluster)


def _superfluous_beside(
    members: _Members, member: int, others: Sequence[int], settings: DedupSettings
) -> tuple[int | None, float]:
    """Returns which other text has enough of one, that with the most where several have, and how much."""
    best, best_cover = None, 0.0
    for other in others:
        cover, gap = lack(members.shingles(member), members.shingles(other))
        is_edited = settings.edited and cover >= settings.edited and gap <= MOST_GAP
        if (cover >= settings.near or is_edited) and cover > best_cover:
            best, best_cover = other, cover
        if best_cover == 1:
            break
    return best, best_cover


def _shared_bands(bands: UInt32[np.ndarray, "texts bands"]) -> Int32[np.ndarray, "texts bands"]:
    """Returns a number for each band that one of these texts shares with another of them, -1 where it shares none."""
    numbers = bands.view(np.int32)  # in its place
    first = 0
    for band in range(BANDS):
        each, number, counts = np.unique(bands[:, band], return_inverse=True, return_counts=True)
        is_shared = (counts > 1) & (each != 0)
        numbers[:, band] = np.where(is_shared, first + np.arange(len(each)), -1)[number]
        first += len(each)
    return numbers
