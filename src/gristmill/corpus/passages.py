"""Lines and paragraphs that stand in many documents: menus, footers, licences, signatures.

A passage is known by a hash of its bytes without white space. Where one stands in more documents than a recipe allows, it
stays where it stands first and is cut from the others, white space after it included. Long documents, and passages that
are too short to tell anything, are left alone.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8

from gristmill.corpus.deduplicate import Units
from gristmill.corpus.edits import Edit, Edits
from gristmill.corpus.engine import EngineSettings
from gristmill.corpus.looks import Looked, look_at

__all__ = ["Passages", "cut_repeated", "passages_of_buffer"]

LEAST_BYTES = 20
"""Without white space: shorter passages, such as "Yes." and "}", are no boilerplate wherever they stand."""
PART_PASSAGES = 4_000_000
"""So many are compared at a time."""
_MULTIPLIER = 0x9E3779B97F4A7C15
_PIECE_BYTES = 8 << 20
_IS_SPACE = np.isin(np.arange(256), list(b" \t\r\n\x0b\x0c"))


@dataclasses.dataclass(frozen=True)
class Passages:
    """Looks for the lines, or the paragraphs, of texts."""

    kind: Literal["line", "paragraph"]

    @property
    def name(self) -> str:
        """What it is called in the names of files."""
        return self.kind

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the outcome."""
        return {"format": 1, "least_bytes": LEAST_BYTES}

    def columns(self, data: Any, offsets: Any) -> dict[str, Any]:
        """Returns document, start, end (bytes) and hash of each passage that is long enough."""
        document, start, end, value = passages_of_buffer(data, offsets, self.kind)
        return {"document": document, "start": start, "end": end, "hash": value}


def passages_of_buffer(
    data: UInt8[np.ndarray, " bytes"],
    offsets: Int[np.ndarray, " texts_and_one"],
    kind: Literal["line", "paragraph"],
) -> tuple[Any, Any, Any, Any]:
    """Returns the document, the first and last byte in it and the hash of each passage that is long enough."""
    columns: list[tuple[Any, ...]] = []
    begin = 0
    while (
        begin < len(offsets) - 1
    ):  # some megabytes at a time: the numbers take sixty bytes for each byte of text
        end = int(np.searchsorted(offsets, offsets[begin] + _PIECE_BYTES, side="right")) - 1
        end = min(max(end, begin + 1), len(offsets) - 1)
        document, start, stop, value = _found(
            data[offsets[begin] : offsets[end]], offsets[begin : end + 1] - offsets[begin], kind
        )
        columns.append((document + begin, start, stop, value))
        begin = end
    empty = (np.array([], np.int64),) * 3 + (np.array([], np.uint64),)
    document, start, stop, value = (np.concatenate(column) for column in zip(empty, *columns, strict=True))
    return document, start, stop, value


def cut_repeated(
    units: Units,
    kind: Literal["line", "paragraph"],
    most: int,
    kept: Any,
    edits: Edits,
    engine: EngineSettings,
) -> int:
    """Adds an edit for each passage of a kept document that stands in more than `most` of them, save where it is first.

    Returns how many bytes that cuts.
    """
    looked = look_at(units, Passages(kind), engine)
    cut = 0
    for document, start, end, value in _parts(looked, kept, most):
        order = np.lexsort((start, document, value))
        document, start, end, value = document[order], start[order], end[order], value[order]
        is_first = np.ones(len(value), bool)
        is_first[1:] = value[1:] != value[:-1]
        group = np.cumsum(is_first) - 1
        is_new = is_first.copy()
        is_new[1:] |= document[1:] != document[:-1]
        documents = np.bincount(group, weights=is_new).astype(np.int64)
        for i in np.flatnonzero((documents[group] > most) & ~is_first).tolist():
            if edits.add(int(document[i]), Edit(int(start[i]), int(end[i]), "", f"repeated {kind}")):
                cut += int(end[i] - start[i])
    return cut


def _parts(looked: Looked, kept: Any, most: int) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yields the passages of kept documents that stand there more than `most` times, those with the same hash together.

    As many at a time as memory is for: first the hashes alone, then the rest of the few whose hashes are frequent.
    """
    import pyarrow.parquet

    total = sum(pyarrow.parquet.read_metadata(file).num_rows for file in looked.files)
    parts = np.uint64(max(1, -(-total // PART_PASSAGES)))
    for part in range(int(parts)):
        values = [value[value % parts == part] for _, _, _, value in _tables(looked, kept)]
        hashes = np.sort(np.concatenate([np.array([], np.uint64), *values]))
        del values
        later = hashes[most:]
        frequent = np.unique(later[later == hashes[: len(later)]])
        del hashes
        if not len(frequent):
            continue
        columns = []
        for table in _tables(looked, kept):
            chosen = np.isin(table[3], frequent)
            columns.append(tuple(column[chosen] for column in table))
        document, start, end, value = (np.concatenate(column) for column in zip(*columns, strict=True))
        yield document, start, end, value


def _tables(looked: Looked, kept: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yields document, start, end and hash of the passages of kept documents, unit by unit."""
    firsts = np.cumsum([0, *looked.units.documents])
    for first, table in zip(firsts, looked.tables(), strict=False):
        document = table["document"].to_numpy() + int(first)
        chosen = kept[document]
        start, end, value = (table[name].to_numpy()[chosen] for name in ("start", "end", "hash"))
        yield document[chosen], start, end, value


def _found(data: Any, offsets: Any, kind: str) -> tuple[Any, Any, Any, Any]:
    is_end = data == 10
    if kind == "paragraph":  # a line feed behind which a blank line begins
        is_end[:-1] &= is_end[1:]
        is_end[-1:] = False
    texts = np.arange(len(offsets) - 1)
    starts = np.unique(np.concatenate([np.flatnonzero(is_end) + 1, offsets[:-1]]))
    starts = starts[starts < len(data)]
    ends = np.append(starts[1:], len(data))
    document = np.searchsorted(offsets, starts, side="right") - 1
    keep = document < len(texts)
    starts, ends, document = starts[keep], ends[keep], document[keep]
    written = ~_IS_SPACE[data]
    place = np.concatenate(
        [[0], np.cumsum(written)]
    )  # how many bytes that are no white space stand before each byte
    powers, inverses = _powers(int(place[-1]) + 1)
    with np.errstate(over="ignore"):
        terms = np.where(written, _byte_values()[data] * powers[place[:-1]], np.uint64(0))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        value = (sums[ends] - sums[starts]) * inverses[place[starts]]
        value ^= value >> np.uint64(32)
        value *= np.uint64(_MULTIPLIER)
        value ^= value >> np.uint64(29)
    long = place[ends] - place[starts] >= LEAST_BYTES
    base = offsets[document]
    return document[long], (starts - base)[long], (ends - base)[long], value[long]


def _powers(count: int) -> tuple[Any, Any]:
    """The powers of an odd number modulo 2^64, and their inverses: each text's hash does not depend on its place."""
    size = 1 << max(16, (count - 1).bit_length())
    first, second = _all_powers(size)
    return first[:count], second[:count]


@functools.lru_cache(maxsize=2)
def _all_powers(count: int) -> tuple[Any, Any]:
    def powers(base: int) -> Any:
        factors = np.full(count, base, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors, dtype=np.uint64)

    return powers(_MULTIPLIER), powers(pow(_MULTIPLIER, -1, 1 << 64))


@functools.cache
def _byte_values() -> Any:
    """A large odd number for each byte, the same for ever."""
    return np.random.Generator(np.random.PCG64(7)).integers(0, 1 << 63, 256, dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
