"""The first half of a corpus: every text once, normalised, with what can be told of each by itself.

For each unit of work some files, named by the hash of what was read and how: `NAME.texts.parquet` (texts, and where they
stood), `NAME.attributes.parquet` (a row for each text: features, language, script, hashes, MinHash bands), `NAME.broken.jsonl`
(what gave no text) and `NAME.json` (counts, and the hashes of the others). Nothing is decided here.
"""

import collections
import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from gristmill.artifact import hash_file, write_json
from gristmill.corpus.decode import UnreachableError, UnreadableError
from gristmill.corpus.features import FEATURES, features_of_buffer
from gristmill.corpus.files import SourceFile, open_stream
from gristmill.corpus.forgotten import NO_DIGEST, ToForget
from gristmill.corpus.language import languages_of, script_of
from gristmill.corpus.near import BANDS, bands_of_buffer
from gristmill.corpus.normalise import digest_of, normalise
from gristmill.corpus.read import Broken, Layout, ReadOptions, Record, inspect, read_some, records
from gristmill.corpus.remote import RemotePath
from gristmill.corpus.units import Piece, Unit, stamp_of
from gristmill.errors import CorruptArtifact, InputError

__all__ = [
    "ATTRIBUTES",
    "BROKEN",
    "FORMAT",
    "KEPT_PROBLEMS",
    "ROW_BITS",
    "SKIP_HINT",
    "TEXTS",
    "ReadJob",
    "being_read",
    "holds",
    "outcome_of",
    "read_unit",
]

FORMAT = 4
"""Raised whenever the same bytes would give other documents or attributes."""
FORGOTTEN = "forgotten"
TEXTS, ATTRIBUTES, OUTCOME, BROKEN = "texts.parquet", "attributes.parquet", "json", "broken.jsonl"
FETCHED = "fetched"
BATCH_BYTES, BATCH_DOCUMENTS = 4 << 20, 4000
KEPT_PROBLEMS, PROBLEMS_OF_A_FILE = 20, 3
ROW_BITS = 32
"""A document's key is 31 bits of its unit's name and, in so many bits, its row there: known before all is read."""
SKIP_HINT = 'on_error = "skip" leaves such things out and counts them'


class ReadJob(NamedTuple):
    """A unit and what a worker has to know to read it."""

    unit: Unit
    options: ReadOptions
    on_error: Literal["skip", "fail"]
    directory: Path
    name: str
    """Hash of what decides the outcome, 16 hexadecimal digits: the bytes of the pieces, their names, the options."""
    forgotten: ToForget = ToForget()
    """What of it is left empty. It is not in the name: the keys of the other documents stay as they are."""

    @property
    def first_key(self) -> int:
        """The key of the unit's first document: 31 bits of its name and, in the last 32, its row, 0."""
        return int(self.name[:8], 16) >> 1 << ROW_BITS


def outcome_of(job: ReadJob) -> dict[str, Any] | None:
    """Returns what reading this unit came to, if that has been done, its files are whole and nothing is to be forgotten."""
    outcome = _stored(job)
    return None if outcome is None or holds(job) else outcome


def _stored(job: ReadJob) -> dict[str, Any] | None:
    try:
        outcome: dict[str, Any] = json.loads(_file(job, OUTCOME).read_text(encoding="utf-8"))
        if outcome["name"] != job.name or outcome["changed_meanwhile"]:
            return None
        whole = all(hash_file(job.directory / name) == digest for name, digest in outcome["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return outcome if whole else None


def holds(job: ReadJob) -> bool:
    """Returns whether something that is to be forgotten is in what is stored of a unit."""
    import pyarrow.parquet

    if job.forgotten.nothing:
        return False

    columns = ["digest", "source", "start", "end"]
    with pyarrow.parquet.ParquetFile(_file(job, TEXTS)) as texts:
        for group in range(texts.num_row_groups):
            if len(_rows_to_forget(job, texts.read_row_group(group, columns=columns))):
                return True
    return any(
        _is_forgotten(job, source, item)
        for _, source, item in _broken_lines(job)
        if item.preview or item.message
    )


def read_unit(job: ReadJob) -> dict[str, Any]:
    """Reads a unit, writes its files and returns the outcome; one that has been read is only emptied of what is forgotten.

    Raises:
        InputError: with `on_error = "fail"`, something can't be read.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    stored = _stored(job)
    if stored is None and not job.unit.pieces:
        raise CorruptArtifact(f"the unit {job.name} in {job.directory} is damaged", "build the corpus again")
    with contextlib.ExitStack() as stack:
        unit = _Unit(job, stack)
        if stored is not None:
            unit.take_over(stored)
        else:
            reading = stack.enter_context(_reading(job).open("w", encoding="utf-8"))
            for piece in job.unit.pieces:
                reading.seek(0)
                reading.truncate()
                reading.write(piece.file.name)
                reading.flush()
                unit.read(piece)
            unit.flush()
    outcome = unit.outcome()
    _file(job, OUTCOME).unlink(missing_ok=True)  # first: without it nothing of the unit counts
    for look in job.directory.glob(f"{job.name}.*"):  # at texts that may have been others
        look.unlink()
    for name in (TEXTS, ATTRIBUTES, BROKEN):
        _temporary(job, name).replace(_file(job, name))
    outcome["files"] = {
        _file(job, name).name: hash_file(_file(job, name)) for name in (TEXTS, ATTRIBUTES, BROKEN)
    }
    write_json(_file(job, OUTCOME), outcome)
    _reading(job).unlink(missing_ok=True)
    return outcome


def being_read(job: ReadJob) -> str:
    """Returns the file that was being read when the work stopped, the unit's first one where that can't be told."""
    try:
        return _reading(job).read_text(encoding="utf-8") or job.name
    except OSError:
        return job.unit.pieces[0].file.name if job.unit.pieces else job.name


def _reading(job: ReadJob) -> Path:
    return job.directory / f".{job.name}.reading.tmp"


def _file(job: ReadJob, ending: str) -> Path:
    return job.directory / f"{job.name}.{ending}"


def _temporary(job: ReadJob, ending: str) -> Path:
    return job.directory / f".{job.name}.{ending}.{os.getpid()}.tmp"


@contextlib.contextmanager
def _at_hand(piece: Piece, target: Path) -> Iterator[SourceFile]:
    """A file that is elsewhere is fetched once, whole, for it is looked at several times; of a big one only the range is read."""
    file = piece.file
    if not isinstance(file.path, RemotePath) or piece.end is not None:
        yield file
        return
    try:
        with open_stream(file._replace(compression="")) as there, target.open("wb") as here:
            while data := read_some(there.content, file):
                here.write(data)
        yield file._replace(path=target)
    finally:
        target.unlink(missing_ok=True)


class _Unit:
    """One unit while it is read, and what it counts."""

    def __init__(self, job: ReadJob, stack: contextlib.ExitStack) -> None:
        import pyarrow
        import pyarrow.parquet

        self._job = job
        self._texts = stack.enter_context(
            pyarrow.parquet.ParquetWriter(
                _temporary(job, TEXTS), _text_schema(), compression="zstd", use_dictionary=["source"], write_statistics=False
            )
        )  # fmt: skip
        self._attributes = stack.enter_context(
            pyarrow.parquet.ParquetWriter(
                _temporary(job, ATTRIBUTES), _attribute_schema(), compression="zstd", use_dictionary=["language", "script"],
                write_statistics=False,
            )
        )  # fmt: skip
        self._broken: IO[str] = stack.enter_context(
            _temporary(job, BROKEN).open("w", encoding="utf-8", newline="\n")
        )
        self._rows: dict[str, list[Any]] = {name: [] for name in _text_schema().names}
        self._row_bytes = 0
        self._sources: list[dict[str, Any]] = []
        self._problems: list[str] = []
        self._hint: str | None = None
        self._lost: collections.Counter[str] = collections.Counter()
        self._changed: collections.Counter[str] = collections.Counter()
        self._documents = self._records = self._bytes = 0
        self._changed_meanwhile = False
        self._said: collections.Counter[str] = collections.Counter()

    def read(self, piece: Piece) -> None:
        """Takes the documents of a file, or of a range of one."""
        file, start, end = piece.file, piece.start, piece.end
        source: dict[str, Any] = {"path": file.name, "format": file.format, "documents": 0, "text_bytes": 0}
        source |= _described(Layout(None, None))
        self._sources.append(source)
        try:
            with _at_hand(piece, _temporary(self._job, FETCHED)) as near:
                layout = inspect(near, self._job.options, start, end)
                source |= _described(layout)
                with open_stream(near) as stream:
                    for item in records(stream, near, layout, self._job.options, start, end):
                        self._receive(file, item, source)
        except UnreadableError as error:
            self._problem(error.message, error.hint)
            reason = "file cut short" if source["documents"] else "unreadable file"
            self._lose(file, Broken(reason, error.message, start, end or start, ""))
            self._changed_meanwhile |= isinstance(error, UnreachableError)
        if stamp_of(file.path) != piece.stamp:  # what was read is not what the unit's name stands for
            self._changed_meanwhile = True
            self._problem(
                f"{file.name} was changed or removed while it was read", "run the same command again"
            )

    def _receive(self, file: SourceFile, item: Record | Broken, source: dict[str, Any]) -> None:
        self._records += 1
        if isinstance(item, Record):
            self._take(file, item, source)
            return
        if item.reason != "no text":  # an empty cell is no accident
            is_gone = _is_forgotten(self._job, file.name, item)
            self._problem(f"{file.name}: {FORGOTTEN if is_gone else item.message}", SKIP_HINT)
        self._lose(file, item)

    def _take(self, file: SourceFile, record: Record, source: dict[str, Any]) -> None:
        text, changed = normalise(record.text)
        self._changed.update((*changed, *record.repairs))
        if record.note:
            self._problem(f"{file.name}: {record.note}", SKIP_HINT)
        if not text.strip():
            self._lose(file, Broken("empty", "", record.start, record.end, ""))
            return
        data = text.encode()
        digest = digest_of(text)
        place = (file.name, record.start, record.end)
        row: tuple[Any, ...] = (NO_DIGEST, "", *place, "{}")
        if not self._job.forgotten.has(digest, *place):
            row = (digest, text, *place, _to_json(record.metadata))
            source["documents"] += 1
            source["text_bytes"] += len(data)
            self._bytes += len(data)
        for column, value in zip(self._rows.values(), row, strict=True):
            column.append(value)
        self._row_bytes += len(data)  # of a forgotten one too: where batches end must not depend on it
        if self._row_bytes >= BATCH_BYTES or len(self._rows["text"]) >= BATCH_DOCUMENTS:
            self.flush()

    def flush(self) -> None:
        """Writes the texts that wait, and what can be told of them."""
        import pyarrow

        if not self._rows["text"]:
            return
        table = pyarrow.table({
            field.name: pyarrow.array(self._rows[field.name], field.type) for field in _text_schema()
        })  # fmt: skip
        self._texts.write_table(table, row_group_size=table.num_rows)
        first = self._job.first_key + self._documents
        attributes = attributes_of(table["text"].combine_chunks(), self._rows["digest"], first)
        self._attributes.write_table(attributes, row_group_size=table.num_rows)
        self._documents += table.num_rows
        self._rows = {name: [] for name in self._rows}
        self._row_bytes = 0

    def take_over(self, stored: Mapping[str, Any]) -> None:
        """Takes what was read before, and leaves out what is forgotten: the same bytes as if it were read again."""
        self._records, self._problems, self._hint = (
            stored["records"],
            list(stored["problems"]),
            stored["hint"],
        )
        self._bytes, self._sources = stored["text_bytes"], [dict(source) for source in stored["sources"]]
        self._lost.update(stored["lost"])
        self._changed.update(stored["changed"])
        source_of = {source["path"]: source for source in self._sources}
        for table, attributes in _row_groups(self._job):
            rows = _rows_to_forget(self._job, table)
            if len(rows):
                for row in table.take(rows).to_pylist():
                    size = len(row["text"].encode())
                    self._bytes -= size
                    source_of[row["source"]]["text_bytes"] -= size
                    source_of[row["source"]]["documents"] -= 1
                table = _emptied(table, rows)
                first = self._job.first_key + self._documents
                attributes = attributes_of(table["text"].combine_chunks(), table["digest"].to_pylist(), first)
            self._texts.write_table(table, row_group_size=table.num_rows)
            self._attributes.write_table(attributes, row_group_size=table.num_rows)
            self._documents += table.num_rows
        for line, source, item in _broken_lines(self._job):
            if not _is_forgotten(self._job, source, item):
                self._broken.write(line)
                continue
            self._write_broken(source, item)
            said, instead = f"{source}: {item.message}", f"{source}: {FORGOTTEN}"
            self._problems = [instead if problem == said else problem for problem in self._problems]

    def outcome(self) -> dict[str, Any]:
        return {
            "name": self._job.name,
            "changed_meanwhile": self._changed_meanwhile,
            "records": self._records,
            "documents": self._documents,
            "text_bytes": self._bytes,
            "sources": self._sources,
            "lost": dict(sorted(self._lost.items())),
            "problems": self._problems,
            "hint": self._hint,
            "changed": dict(sorted(self._changed.items())),
        }

    def _problem(self, message: str, hint: str | None) -> None:
        if self._job.on_error == "fail":
            raise InputError(message, hint)
        self._hint = self._hint or hint
        path = self._sources[-1]["path"]
        self._said[path] += 1
        if self._said[path] <= PROBLEMS_OF_A_FILE and len(self._problems) < KEPT_PROBLEMS:
            self._problems.append(message)

    def _lose(self, file: SourceFile, item: Broken) -> None:
        self._lost[item.reason] += 1
        self._write_broken(file.name, item)

    def _write_broken(self, source: str, item: Broken) -> None:
        if _is_forgotten(self._job, source, item):
            item = item._replace(message="", preview="")
        line = {"source": source, "start": item.start, "end": item.end, "reason": item.reason}
        extra = {"message": item.message} if item.message else {}
        self._broken.write(_to_json({**line, "preview": item.preview, **extra}) + "\n")


def _row_groups(job: ReadJob) -> Iterator[tuple[Any, Any]]:
    """Yields the stored texts of a unit, and what was told of them, in the parts that they were written in."""
    import pyarrow.parquet

    with (
        pyarrow.parquet.ParquetFile(_file(job, TEXTS)) as texts,
        pyarrow.parquet.ParquetFile(_file(job, ATTRIBUTES)) as attributes,
    ):
        for group in range(texts.num_row_groups):
            yield texts.read_row_group(group), attributes.read_row_group(group)


def _rows_to_forget(job: ReadJob, table: Any) -> Any:
    """The rows of a table of texts that are to be forgotten and are not empty yet, ascending."""
    import pyarrow
    import pyarrow.compute

    wanted = np.array([int.from_bytes(digest[:8]) for digest in job.forgotten.digests], dtype=np.uint64)
    digests = table["digest"].combine_chunks()
    halves = np.frombuffer(digests.buffers()[1], dtype=">u8").reshape(-1, 2)
    chosen = np.isin(halves[digests.offset : digests.offset + len(digests), 0].astype(np.uint64), wanted)
    if job.forgotten.ranges:
        files = pyarrow.array(list(job.forgotten.ranges), pyarrow.string())
        chosen |= pyarrow.compute.is_in(table["source"], files).to_numpy()
    rows = np.flatnonzero(chosen)
    few = table.select(["digest", "source", "start", "end"]).take(rows).to_pylist()
    return rows[
        np.array([row["digest"] != NO_DIGEST and job.forgotten.has(*row.values()) for row in few], dtype=bool)
    ]


def _emptied(table: Any, rows: Any) -> Any:
    """A table of texts with nothing in some rows but where they stood."""
    import pyarrow

    for name, nothing in (("digest", NO_DIGEST), ("text", ""), ("metadata", "{}")):
        values = table[name].to_pylist()
        for row in rows.tolist():
            values[row] = nothing
        place, field = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, field, pyarrow.array(values, field.type))
    return table


def _broken_lines(job: ReadJob) -> Iterator[tuple[str, str, Broken]]:
    """Yields what gave no text: the line of the file, its source, and what it says."""
    with _file(job, BROKEN).open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            entry = json.loads(line)
            source = entry.pop("source")
            yield line, source, Broken(**{"message": "", **entry})


def _is_forgotten(job: ReadJob, source: str, item: Broken) -> bool:
    """Whether what gave no text is to be forgotten."""
    forgotten = job.forgotten
    return not forgotten.nothing and forgotten.has(digest_of(item.preview), source, item.start, item.end)


def attributes_of(texts: Any, digests: Sequence[bytes], first: int) -> Any:
    """Returns a table of what can be told of each text: features, language, script, hashes, MinHash bands.

    `first` is the key of the first one.
    """
    import pyarrow

    data, offsets = buffers_of(texts)
    figures = features_of_buffer(data, offsets)
    hashes = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    bands = bands_of_buffer(data, offsets)
    languages = languages_of(figures)
    columns: dict[str, Any] = {
        "key": first + np.arange(len(texts), dtype=np.int64),
        "hash": hashes[:, 0],
        "hash_2": hashes[:, 1],
        "bytes": np.diff(offsets),
        "language": pyarrow.array(languages, pyarrow.string()),
        "script": pyarrow.array(script_of(figures, languages), pyarrow.string()),
    }
    columns |= {name: figures[:, i].astype(np.int32) for i, name in enumerate(FEATURES)}
    columns |= {f"band_{i:02d}": bands[:, i] for i in range(BANDS)}
    return pyarrow.table(columns, schema=_attribute_schema())


def buffers_of(texts: Any) -> tuple[Any, Any]:
    """Returns the bytes and offsets of an Arrow array of large strings, without copying the bytes."""
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, dtype=np.uint8), np.ascontiguousarray(places)


@functools.cache
def _text_schema() -> Any:
    import pyarrow

    return pyarrow.schema([
        ("digest", pyarrow.binary(16)), ("text", pyarrow.large_string()), ("source", pyarrow.string()),
        ("start", pyarrow.int64()), ("end", pyarrow.int64()), ("metadata", pyarrow.string()),
    ])  # fmt: skip


@functools.cache
def _attribute_schema() -> Any:
    import pyarrow

    return pyarrow.schema([
        ("key", pyarrow.int64()), ("hash", pyarrow.uint64()), ("hash_2", pyarrow.uint64()), ("bytes", pyarrow.int64()), ("language", pyarrow.string()),
        ("script", pyarrow.string()),
        *((name, pyarrow.int32()) for name in FEATURES),
        *((f"band_{i:02d}", pyarrow.uint64()) for i in range(BANDS)),
    ])  # fmt: skip


def _described(layout: Layout) -> dict[str, Any]:
    encoding = layout.encoding
    return {
        "encoding": encoding.name if encoding else None,
        "encoding_evidence": encoding.evidence if encoding else None,
        "text_column": layout.text_column,
    }


@functools.cache
def _encoder() -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, default=str)  # dates and decimals of a parquet file


def _to_json(value: Mapping[str, Any]) -> str:
    """Returns JSON that is valid UTF-8 whatever the strings hold."""
    return "{}" if not value else _encoder().encode(value).encode("utf-8", "replace").decode()
