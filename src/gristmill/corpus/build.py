"""From sources to a corpus: read, normalise, drop what is empty or twice, split, measure.

Two passes, so that memory stays bounded whatever the size: the first writes what is kept to a spool and remembers
a hash and a length of every document; the second, knowing all hashes, writes each document into its split.
"""

import array
import collections
import dataclasses
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

import numpy as np

from gristmill import artifact
from gristmill.artifact import Artifact
from gristmill.config import to_dict
from gristmill.corpus.decode import UnreadableError, newline_of
from gristmill.corpus.files import Found, SourceFile, find_files, open_stream
from gristmill.corpus.language import language_of
from gristmill.corpus.normalise import CHANGES, normalise
from gristmill.corpus.read import Broken, Layout, ReadOptions, Record, inspect, read_range, records
from gristmill.corpus.split import SplitPlan, plan_split
from gristmill.corpus.store import DROPPED, KIND, DocumentWriter
from gristmill.errors import InputError

__all__ = ["CorpusConfig", "Progress", "build"]

FORMAT_VERSION = 1
Progress = Callable[[str, int, int | None], None]
"""What is being done, how many bytes of it are, and how many there are if that is known."""

_BATCH_BYTES = 4 << 20
_BATCH_DOCUMENTS = 2000
_PROGRESS_SECONDS = 0.3
_KEPT_PROBLEMS = 20
_SKIP_HINT = 'on_error = "skip" leaves such things out and counts them'


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The [corpus] table of a recipe."""

    sources: tuple[str, ...]
    """Files, folders (with all that is below them) and globs: .txt .md .jsonl .json .csv .tsv .parquet, .gz, .zst."""
    exclude: tuple[str, ...] = ()
    """Patterns such as "README*"; a file whose name or path matches one is left out."""
    text_column: str | None = None
    """The column or key that holds the text; found by its name or its length where it is not given."""
    encoding: str | None = None
    """The encoding of all files; found out for each file where it is not given."""
    header: Literal["detect", "present", "absent"] = "detect"
    """Whether the first row of a .csv or .tsv names its columns; without a header they are column_1, column_2, …"""
    document_separator: str | None = None
    """Regular expression for whole lines that divide a text file into documents: "" is a blank line, "%" fortunes."""
    on_error: Literal["skip", "fail"] = "skip"
    """What to do about a broken row or an unreadable file: leave it out and count it, or stop."""
    minimum_characters: int = 1
    """Shorter documents are dropped; white space around a text does not count."""
    valid_fraction: float = 0.05
    """The share of the documents (of the text, where there is only one) that is held out for validation."""
    valid_maximum_bytes: int = 8_000_000
    """Validation text beyond this goes to training instead."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if not 0 <= self.valid_fraction < 1:
            raise InputError(
                f"valid_fraction is {self.valid_fraction}, expected 0 to 1", "0.05 holds out a twentieth"
            )
        if self.minimum_characters < 1 or self.valid_maximum_bytes < 1:
            raise InputError("minimum_characters and valid_maximum_bytes are at least 1")
        if self.encoding is not None:
            newline_of(self.encoding)
        try:
            re.compile(self.document_separator or "")
        except re.error as error:
            raise InputError(
                f'document_separator "{self.document_separator}" is no regular expression: {error}',
                r'special characters need a backslash: document_separator = "\\*\\*\\*"',
            ) from None

    @property
    def _reading(self) -> ReadOptions:
        return ReadOptions(self.text_column, self.encoding, self.header, self.document_separator)


def build(config: CorpusConfig, out: Path, *, seed: int = 0, progress: Progress | None = None) -> Artifact:
    """Returns the corpus of a config in the directory `out`, built unless it stands there for the same bytes.

    The seed is recorded and changes nothing: which documents are validation depends on the texts alone, so that
    runs with different seeds are measured on the same ones.

    Raises:
        InputError: nothing can be read, the text column is unclear, or (`on_error = "fail"`) something is broken.
    """
    report = _throttled(progress)
    found = find_files(config.sources, config.exclude)
    inputs = _hash_inputs(found.files, config, report)
    settings = {**to_dict(config), "inputs": inputs}
    key = artifact.artifact_key(KIND, FORMAT_VERSION, settings, None, seed)
    existing = artifact.find(out, key)
    if existing is not None:
        return existing
    with (
        artifact.draft(out, kind=KIND, format_version=FORMAT_VERSION, config=settings, seed=seed) as work,
        (work.path / DROPPED).open("w", encoding="utf-8", newline="\n") as dropped,
    ):
        work.metrics.update(_Build(config, work.path, dropped, report).run(found))
    return artifact.open_artifact(out, KIND, verify=False)


class _Build:
    """One run of the two passes and what it counts."""

    def __init__(self, config: CorpusConfig, directory: Path, dropped: IO[str], report: Progress) -> None:
        self._config, self._directory, self._dropped_file, self._report = config, directory, dropped, report
        self._spool = DocumentWriter(directory, "spool", compression="lz4")
        self._batch: dict[str, list[Any]] = {name: [] for name in _SCHEMA}
        self._batch_bytes = 0
        self._digests: set[bytes] = set()
        self._hashes, self._bytes, self._characters = array.array("Q"), array.array("Q"), array.array("Q")
        self._origins: list[tuple[SourceFile, Layout]] = []
        self._documents_read = 0
        self._sources: list[dict[str, Any]] = []
        self._problems: list[str] = []
        self._first_hint: str | None = None
        self._dropped: dict[str, dict[str, int]] = {}
        self._changed: collections.Counter[str] = collections.Counter()

    def run(self, found: Found) -> dict[str, Any]:
        """Reads and writes everything, and returns the metrics."""
        layouts = [(file, self._inspect(file)) for file in found.files]
        total = sum(file.path.stat().st_size for file, layout in layouts if layout is not None)
        done = 0
        for file, layout in layouts:
            if layout is not None:
                self._read(file, layout, done, total)
                done += file.path.stat().st_size
        self._flush()
        self._spool.close()
        if not self._hashes:
            self._fail_with_nothing_left()
        config = self._config
        plan = plan_split(
            self._hashes,
            self._bytes,
            valid_fraction=config.valid_fraction,
            valid_maximum_bytes=config.valid_maximum_bytes,
        )
        splits, languages = self._write(plan)
        return {
            "documents": sum(entry["documents"] for entry in splits.values()),
            "characters": sum(entry["characters"] for entry in splits.values()),
            "text_bytes": sum(entry["text_bytes"] for entry in splits.values()),
            "read": {
                "files": len(self._sources),
                "bytes": total,
                "documents": self._documents_read,
                "skipped_files": found.skipped,
            },
            "splits": splits,
            "sources": self._sources,
            "languages": languages,
            "dropped": dict(sorted(self._dropped.items())),
            "problems": self._problems,
            "changed": {name: self._changed[name] for name in CHANGES},
            "lengths": _percentiles(self._characters),
        }

    def _inspect(self, file: SourceFile) -> Layout | None:
        try:
            return inspect(file, self._config._reading)
        except UnreadableError as error:
            self._problem(error.message, error.hint)
            self._drop("unreadable file", file.name, None, None, None, error.message, 0)
            return None

    def _read(self, file: SourceFile, layout: Layout, done: int, total: int) -> None:
        source: dict[str, Any] = {
            "path": file.name,
            "format": file.format,
            "encoding": layout.encoding.name if layout.encoding else None,
            "encoding_evidence": layout.encoding.evidence if layout.encoding else None,
            "text_column": layout.text_column,
            "documents": 0,
            "text_bytes": 0,
        }
        self._sources.append(source)
        try:
            with open_stream(file) as stream:
                for item in records(stream, file, layout, self._config._reading):
                    self._documents_read += 1
                    if isinstance(item, Record):
                        kept = self._keep(file, layout, item)
                        source["documents"] += kept > 0
                        source["text_bytes"] += kept
                    else:
                        self._broken(file, item)
                    self._report("reading", done + stream.raw.tell(), total)
        except UnreadableError as error:
            self._problem(error.message, error.hint)
            self._drop("file cut short", file.name, None, None, None, error.message, 0)

    def _keep(self, file: SourceFile, layout: Layout, record: Record) -> int:
        """Returns the bytes of the document that was kept, 0 where it was dropped."""
        text, changed = normalise(record.text)
        self._changed.update(changed)
        bare = text.strip()
        data = text.encode()
        digest = hashlib.sha256(data if len(bare) == len(text) else bare.encode()).digest()[:16]
        size, identity = len(data), digest[:8].hex()
        reason = (
            "empty"
            if not bare
            else "too short"
            if len(bare) < self._config.minimum_characters
            else "duplicate"
            if digest in self._digests
            else None
        )
        if reason is not None:
            self._drop(reason, file.name, identity, record.start, record.end, bare, size)
            return 0
        self._digests.add(digest)
        self._hashes.append(int.from_bytes(digest[:8], "big"))
        self._bytes.append(size)
        self._characters.append(len(text))
        if len(self._origins) < 20:  # a document is cut only where there are few
            self._origins.append((file, layout))
        row = (
            identity,
            text,
            file.name,
            record.start,
            record.end,
            language_of(text),
            _to_json(record.metadata),
        )
        for column, value in zip(self._batch.values(), row, strict=True):
            column.append(value)
        self._batch_bytes += size
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch["id"]) >= _BATCH_DOCUMENTS:
            self._flush()
        return size

    def _flush(self) -> None:
        if self._batch["id"]:
            self._spool.write(_table(self._batch), "spool")
            self._batch = {name: [] for name in _SCHEMA}
            self._batch_bytes = 0

    def _broken(self, file: SourceFile, item: Broken) -> None:
        message = f"{file.name}: {item.message}"
        if item.reason != "no text":  # an empty cell is no accident
            self._problem(message, _SKIP_HINT)
        self._drop(item.reason, file.name, None, item.start, item.end, item.preview, 0, item.message)

    def _problem(self, message: str, hint: str | None) -> None:
        if self._config.on_error == "fail":
            raise InputError(message, hint)
        self._first_hint = self._first_hint or hint
        if len(self._problems) < _KEPT_PROBLEMS:
            self._problems.append(message)

    def _drop(
        self,
        reason: str,
        source: str,
        identity: str | None,
        start: int | None,
        end: int | None,
        preview: str,
        text_bytes: int,
        message: str | None = None,
    ) -> None:
        entry = self._dropped.setdefault(reason, {"documents": 0, "text_bytes": 0})
        entry["documents"] += 1
        entry["text_bytes"] += text_bytes
        line = {"id": identity, "source": source, "start": start, "end": end, "reason": reason}
        preview = " ".join(preview[:400].split())[:160]
        self._dropped_file.write(
            _to_json({**line, "preview": preview, **({"message": message} if message else {})}) + "\n"
        )

    def _write(self, plan: SplitPlan) -> tuple[dict[str, Any], dict[str, Any]]:
        """Moves the spool into the final files, and returns the counts per split and per language."""
        import pyarrow
        import pyarrow.compute

        writer = DocumentWriter(self._directory, "documents", compression="zstd")
        splits = {split: {"documents": 0, "characters": 0, "text_bytes": 0} for split in ("train", "valid")}
        languages: dict[str, dict[str, int]] = {}
        for first, batch in self._spooled():
            hashes = np.asarray(self._hashes[first : first + batch.num_rows], dtype=np.uint64)
            valid = np.array([int(value) < plan.threshold for value in hashes])
            parts = [
                (batch.filter(pyarrow.array(~valid)), "train"),
                (batch.filter(pyarrow.array(valid)), "valid"),
            ]
            if plan.cut_document is not None and first <= plan.cut_document < first + batch.num_rows:
                parts = self._cut(batch, plan.cut_document - first, plan)
            for part, split in parts:
                sizes = pyarrow.compute.binary_length(part["text"].cast(pyarrow.large_binary())).to_numpy()
                characters = pyarrow.compute.sum(pyarrow.compute.utf8_length(part["text"])).as_py() or 0
                counts = {
                    "documents": part.num_rows,
                    "characters": characters,
                    "text_bytes": int(sizes.sum()),
                }
                for name, value in counts.items():
                    splits[split][name] += value
                spoken = np.array(part["language"].to_pylist())
                for language in np.unique(spoken):
                    entry = languages.setdefault(str(language), {"documents": 0, "text_bytes": 0})
                    entry["documents"] += int((spoken == language).sum())
                    entry["text_bytes"] += int(sizes[spoken == language].sum())
                column = pyarrow.array([split] * part.num_rows, pyarrow.string())
                writer.write(part.add_column(5, "split", column), split)
        writer.close()
        for path in self._directory.glob("spool-*.parquet"):
            path.unlink()
        return splits, dict(sorted(languages.items()))

    def _spooled(self) -> Iterator[tuple[int, Any]]:
        import pyarrow
        import pyarrow.parquet

        first, total = 0, sum(self._bytes)
        done = 0
        for path in sorted(self._directory.glob("spool-*.parquet")):
            with pyarrow.parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    yield first, table
                    done += sum(self._bytes[first : first + table.num_rows])
                    first += table.num_rows
                    self._report("writing", done, total)

    def _cut(self, table: Any, index: int, plan: SplitPlan) -> list[tuple[Any, str]]:
        """Returns the rows of a table, the document at `index` cut in two, each part with its split."""
        row = table.slice(index, 1).to_pylist()[0]
        text = row["text"]
        place = int((1 - plan.cut_fraction) * len(text))
        if not text[:place].strip() or not text[place:].strip():
            return [(table, "train")]
        file, layout = self._origins[plan.cut_document or 0]
        middle = _cut_in_source(file, layout, row["start"], row["end"], text, place)
        halves = []
        for part, start, end in ((text[:place], row["start"], middle), (text[place:], middle, row["end"])):
            identity = hashlib.sha256(part.strip().encode()).digest()[:8].hex()
            span = (row["start"], row["end"]) if middle is None else (start, end)
            half = {**row, "id": identity, "text": part, "start": span[0], "end": span[1]}
            halves.append(_table({name: [value] for name, value in half.items()}))
        before, after = table.slice(0, index), table.slice(index + 1)
        return [(before, "train"), (halves[0], "train"), (after, "train"), (halves[1], "valid")]

    def _fail_with_nothing_left(self) -> NoReturn:
        if self._problems and not self._documents_read:  # there is nothing to say but what went wrong
            raise InputError(self._problems[0], self._first_hint)
        reasons = ", ".join(
            f"{entry['documents']} {reason}" for reason, entry in sorted(self._dropped.items())
        )
        first = f"; the first: {self._problems[0]}" if self._problems else ""
        raise InputError(
            f"no documents are left of {len(self._sources)} files: {reasons or 'they hold none'}{first}",
            "look at text_column, minimum_characters and document_separator",
        )


_SCHEMA = {
    "id": "string",
    "text": "string",
    "source": "string",
    "start": "int64",
    "end": "int64",
    "language": "string",
    "metadata": "string",
}


def _table(columns: dict[str, list[Any]]) -> Any:
    import pyarrow

    return pyarrow.table({name: pyarrow.array(columns[name], kind) for name, kind in _SCHEMA.items()})


def _cut_in_source(
    file: SourceFile, layout: Layout, start: int, end: int, text: str, place: int
) -> int | None:
    """Returns the byte of a plain text file where character `place` of its normalised text begins.

    None where there is no such byte: a row of a table is not cut by cutting its text.
    """
    raw = read_range(file, layout, start, end)
    if raw is None or layout.encoding is None:
        return None
    low = place
    if raw != text:
        high = len(raw)
        while low < high:  # the shortest beginning of the source that gives the beginning of the text
            middle = (low + high) // 2
            if len(_beginning(raw[:middle])) < place:
                low = middle + 1
            else:
                high = middle
        low += raw[low - 1 : low + 1] == "\r\n"
        if _beginning(raw[:low]) != text[:place]:
            return None
    return start + len(raw[:low].encode(layout.encoding.name))


def _beginning(raw: str) -> str:
    """The normal form of a text that goes on: what follows keeps the white space at its end."""
    return normalise(raw + "x").text[:-1]


def _hash_inputs(files: list[SourceFile], config: CorpusConfig, report: Progress) -> dict[str, str]:
    inputs = {}
    total = sum(file.path.stat().st_size for file in files)
    done = 0
    for file in files:
        report("hashing", done, total)
        done += file.path.stat().st_size
        try:
            inputs[file.name] = artifact.hash_file(file.path)
        except OSError as error:
            if config.on_error == "fail":
                raise InputError(f"{file.name} can't be read: {error.strerror}", _SKIP_HINT) from None
            inputs[file.name] = "unreadable"
    return inputs


def _percentiles(characters: "array.array[int]") -> dict[str, int]:
    names = {
        "minimum": 0,
        "p10": 10,
        "p25": 25,
        "median": 50,
        "p75": 75,
        "p90": 90,
        "p99": 99,
        "maximum": 100,
    }
    values = np.percentile(np.asarray(characters), list(names.values()), method="nearest")
    return {name: int(value) for name, value in zip(names, values, strict=True)}


@functools.cache
def _encoder() -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, default=str)  # dates and decimals of a parquet file


def _to_json(value: dict[str, Any]) -> str:
    """Returns JSON that is valid UTF-8 whatever the strings hold."""
    return "{}" if not value else _encoder().encode(value).encode("utf-8", "replace").decode()


def _throttled(progress: Progress | None) -> Progress:
    last = 0.0

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if progress is not None and time.monotonic() - last > _PROGRESS_SECONDS:
            last = time.monotonic()
            progress(what, done, total)

    return report
