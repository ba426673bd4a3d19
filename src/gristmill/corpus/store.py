"""A corpus on the disk: documents as parquet, what was dropped as JSON lines, figures in the manifest."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gristmill.artifact import Artifact, open_artifact
from gristmill.corpus.language import Language
from gristmill.errors import InputError

__all__ = ["DROPPED", "KIND", "Corpus", "Document", "DocumentWriter", "Split"]

KIND = "corpus"
DROPPED = "dropped.jsonl"
Split = Literal["train", "valid"]

_GROUP_BYTES = 8 << 20
_FILE_BYTES = 1 << 30


class Document(NamedTuple):
    """A text, what it is called, and where it came from."""

    id: str
    """16 hexadecimal digits: a hash of the text without the white space around it."""
    text: str
    source: str
    start: int
    """Where it begins in the decompressed source file, in bytes; in a parquet file, the number of its row."""
    end: int
    split: Split
    language: Language
    metadata: dict[str, Any]


class Corpus:
    """The documents of a finished corpus, streamed from the disk."""

    def __init__(self, artifact: Artifact | Path) -> None:
        """Takes an open artifact, or a path whose files are then verified."""
        self.artifact = open_artifact(artifact, KIND) if isinstance(artifact, Path) else artifact
        if self.artifact.kind != KIND:
            raise InputError(f"{self.artifact.path} is a {self.artifact.kind}, expected a {KIND}")

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured when the corpus was built."""
        return self.artifact.manifest.metrics

    def documents(self, split: Split | None = None) -> Iterator[Document]:
        """Yields the documents of a split, or of both, always in the same order."""
        for row in self._rows(
            split, ("id", "text", "source", "start", "end", "split", "language", "metadata")
        ):
            yield Document(**{**row, "metadata": json.loads(row["metadata"])})

    def texts(self, split: Split | None = None) -> Iterator[str]:
        """Yields the texts alone, which is twice as fast."""
        for row in self._rows(split, ("text", "split")):
            yield row["text"]

    def document(self, id: str) -> Document:
        """Returns the document whose id begins with `id`.

        Raises:
            InputError: no document has this id, or more than one.
        """
        found = [row["id"] for row in self._rows(None, ("id", "split")) if row["id"].startswith(id)]
        if len(found) != 1:
            known = next(self._rows(None, ("id", "split")))["id"]
            message = f'no document has the id "{id}"' if not found else f'"{id}" begins {len(found)} ids'
            raise InputError(message, f"an id looks like {known}; dropped documents are in {DROPPED}")
        return next(document for document in self.documents() if document.id == found[0])

    def dropped(self) -> Iterator[dict[str, Any]]:
        """Yields what was dropped: id, source, start, end, reason, preview, and a message where there is one."""
        with (self.artifact.path / DROPPED).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def _rows(self, split: Split | None, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet

        for path in sorted(self.artifact.path.glob("documents-*.parquet")):
            with pyarrow.parquet.ParquetFile(path) as file:
                place = file.schema_arrow.get_field_index("split")
                for group in range(file.num_row_groups):
                    # A row group holds documents of one split: the others need not be decompressed.
                    held = file.metadata.row_group(group).column(place).statistics.min
                    if split in (None, held):
                        for batch in file.iter_batches(256, row_groups=[group], columns=list(columns)):
                            yield from batch.to_pylist()


class DocumentWriter:
    """Writes tables of documents as `PREFIX-00000.parquet` and so on, with bounded memory.

    The rows of different splits go into different row groups, each in the order in which they came.
    """

    def __init__(self, directory: Path, prefix: str, *, compression: str) -> None:
        self._directory, self._prefix, self._compression = directory, prefix, compression
        self._waiting: dict[str, list[Any]] = {}
        self._file: Any = None
        self._files = 0
        self._file_bytes = 0

    def write(self, table: Any, split: str) -> None:
        """Adds a table, all of whose rows belong to one split."""
        if table.num_rows:
            waiting = self._waiting.setdefault(split, [])
            waiting.append(table)
            if sum(part.nbytes for part in waiting) >= _GROUP_BYTES:
                self._flush(split)

    def close(self) -> None:
        """Writes what waits."""
        for split in sorted(self._waiting):
            self._flush(split)
        self._close_file()

    def _flush(self, split: str) -> None:
        import pyarrow
        import pyarrow.parquet

        parts = self._waiting.pop(split)
        if self._file is None:
            path = self._directory / f"{self._prefix}-{self._files:05d}.parquet"
            known = {"source", "split", "language"} & set(parts[0].column_names)
            self._file = pyarrow.parquet.ParquetWriter(
                path,
                parts[0].schema,
                compression=self._compression,
                use_dictionary=sorted(known),
                write_statistics=["split"] if "split" in known else False,
            )
            self._files += 1
        table = pyarrow.concat_tables(parts)
        self._file.write_table(table, row_group_size=table.num_rows)
        self._file_bytes += table.nbytes
        if self._file_bytes >= _FILE_BYTES:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._file_bytes = None, 0
