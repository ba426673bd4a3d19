"""The sources cut into units of work: runs of small files, ranges of big ones.

The borders follow from the files' names and sizes alone, and a file that is added or removed moves those of its
neighbours only: a unit ends behind a file whose name, hashed, says so.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gristmill.corpus.files import Place, SourceFile

__all__ = ["LEAST_BYTES", "MOST_BYTES", "Piece", "Unit", "plan_units", "stamp_of"]

LEAST_BYTES = 32 << 20
MOST_BYTES = 96 << 20
"""A unit has no less than the one (the last one may) and little more than the other, counted decompressed as far as
that can be told beforehand."""
MOST_FILES = 20_000
_EXPANSION = {"": 1, ".gz": 4, ".zst": 4, ".bz2": 5, ".xz": 5}
_DIVISIBLE = ("json_lines",)
"""Formats of which a range can be read: each record is a line."""


class Piece(NamedTuple):
    """A file, or the range of bytes in which its records begin."""

    file: SourceFile
    size_bytes: int
    start: int
    end: int | None
    """None where it is the whole file."""
    stamp: tuple[int, int] = (0, 0)
    """Size and time of change when it was looked at."""


class Unit(NamedTuple):
    """What one worker reads at a time."""

    number: int
    pieces: tuple[Piece, ...]


def stamp_of(path: Place) -> tuple[int, int]:
    """Returns size and time of change of a file, (0, 0) where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def plan_units(files: Sequence[SourceFile], stamps: Sequence[tuple[int, int]]) -> list[Unit]:
    """Returns the units of files with these sizes and times of change, in the order of the files."""
    units: list[Unit] = []
    waiting: list[Piece] = []
    filled = 0
    for piece in _pieces(files, stamps):
        part = piece.end is not None
        expected = piece.size_bytes if part else _expected(piece)
        if waiting and (part or filled + expected > MOST_BYTES):
            units.append(Unit(len(units), tuple(waiting)))
            waiting, filled = [], 0
        waiting.append(piece)
        filled += expected
        if (
            part
            or filled >= MOST_BYTES
            or len(waiting) >= MOST_FILES
            or (filled >= LEAST_BYTES and _ends(piece))
        ):
            units.append(Unit(len(units), tuple(waiting)))
            waiting, filled = [], 0
    return [*units, Unit(len(units), tuple(waiting))] if waiting else units


def _pieces(files: Sequence[SourceFile], stamps: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    for file, stamp in zip(files, stamps, strict=True):
        size = stamp[0]
        if file.format in _DIVISIBLE and not file.compression and size > MOST_BYTES:
            count = -(-size // MOST_BYTES)
            borders = [size * i // count for i in range(count + 1)]
            for start, end in itertools.pairwise(borders):
                yield Piece(file, end - start, start, end, stamp)
        else:
            yield Piece(file, size, 0, None, stamp)


def _expected(piece: Piece) -> int:
    return piece.size_bytes * (4 if piece.file.format == "parquet" else _EXPANSION[piece.file.compression])


def _ends(piece: Piece) -> bool:
    """Whether a unit that is large enough ends behind this file: for one name in eight."""
    return hashlib.blake2b(piece.file.name.encode(), digest_size=1).digest()[0] < 32
