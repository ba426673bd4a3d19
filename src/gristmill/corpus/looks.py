"""Second looks at texts: what costs more than reading does and only some recipes ask for.

A look is a function from the bytes and offsets of texts, as Arrow has them, to columns with a row for each thing found. What
it finds in a unit is written once, beside the texts, under the hash of what it looks for; so another threshold, or
another look, is no reason to look again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from gristmill.config import to_dict
from gristmill.corpus.deduplicate import Units
from gristmill.corpus.documents import TEXTS, buffers_of
from gristmill.corpus.engine import EngineSettings, run_all

__all__ = ["Look", "Looked", "look_at"]


@runtime_checkable
class Look(Protocol):
    """Something to be found in texts. A frozen dataclass: its fields decide what is found, and go to other processes."""

    @property
    def name(self) -> str:
        """What it is called in the names of files."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the outcome beside the texts, as JSON values: a hash of it is in the names of files."""

    def columns(self, data: Any, offsets: Any) -> dict[str, Any]:
        """Returns what is found in texts that lie one after the other in UTF-8.

        "document" is the number of the text that a row is about, counted from the first; the others are the look's own.
        """


class Looked(NamedTuple):
    """What a look has found: a parquet file for each unit, in whose column "document" is the row of the text."""

    units: Units
    ending: str

    @property
    def files(self) -> list[Path]:
        """The file of each unit."""
        return [self.units.directory / f"{name}.{self.ending}" for name in self.units.names]

    def tables(self) -> Iterator[Any]:
        """Yields the table of each unit."""
        import pyarrow.parquet

        for file in self.files:
            yield pyarrow.parquet.read_table(file)


class _Job(NamedTuple):
    directory: Path
    unit: str
    ending: str
    look: Look


def look_at(units: Units, look: Look, engine: EngineSettings) -> Looked:
    """Returns what a look finds in all units; what it has found before is not looked for again.

    Raises:
        RunError: a worker died twice over one unit; what is finished stays.
    """
    settings = json.dumps(to_dict(look.identity), sort_keys=True, ensure_ascii=False)
    ending = f"{look.name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.parquet"
    jobs = [_Job(units.directory, name, ending, look) for name in units.names]
    for _ in run_all(_look, jobs, engine, name_of=lambda job: job.unit, is_done=_is_done):
        pass
    return Looked(units, ending)


def _is_done(job: _Job) -> dict[str, Any] | None:
    return {} if (job.directory / f"{job.unit}.{job.ending}").is_file() else None


def _look(job: _Job) -> dict[str, Any]:
    import pyarrow
    import pyarrow.parquet

    parts: list[dict[str, Any]] = []
    with pyarrow.parquet.ParquetFile(job.directory / f"{job.unit}.{TEXTS}") as texts:
        begin = 0
        for group in range(texts.num_row_groups):
            column = texts.read_row_group(group, columns=["text"])["text"].combine_chunks()
            found = job.look.columns(*buffers_of(column))
            parts.append({**found, "document": np.asarray(found["document"], np.int64) + begin})
            begin += len(column)
        if not parts:
            found = job.look.columns(np.zeros(1, np.uint8), np.zeros(1, np.int64))
            parts.append(found)
    table = pyarrow.concat_tables([pyarrow.table(part) for part in parts])
    target = job.directory / f"{job.unit}.{job.ending}"
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    pyarrow.parquet.write_table(table, temporary, compression="zstd")
    temporary.replace(target)
    return {}


def spread(tables: Sequence[Any], documents: Sequence[int], column: str, missing: int) -> Any:
    """Returns a column with a number for each document of all units; `missing` where a look has no row about one."""
    values = np.full(sum(documents), missing, dtype=np.int64)
    begin = 0
    for table, count in zip(tables, documents, strict=True):
        values[begin + table["document"].to_numpy()] = table[column].to_numpy()
        begin += count
    return values
