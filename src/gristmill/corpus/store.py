"""A corpus on the disk: the texts of its units, what was decided about them, and figures in the manifest.

units/NAME.texts.parquet       every text that was read, dropped ones too, and where it stood
units/NAME.attributes.parquet  a row for each: features, language, hashes
units/NAME.broken.jsonl        what gave no text
decisions/NAME.parquet         a row for each: kept or dropped, why, which split
edits/NAME.parquet             what is replaced in texts when they are read out
layout.json                    the units in their order, the groups, the one document that is cut in two, if one is, and
                               the corpus that the validation text is that of, if it is another's
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from gristmill.artifact import Artifact, open_artifact, write_json
from gristmill.corpus.decisions import DECISIONS, Reasons
from gristmill.corpus.deduplicate import Units
from gristmill.corpus.documents import ATTRIBUTES, BROKEN, OUTCOME, ROW_BITS, TEXTS
from gristmill.corpus.edits import apply_edits, read_edits
from gristmill.corpus.language import Language
from gristmill.corpus.normalise import digest_of
from gristmill.corpus.read import ReadOptions
from gristmill.errors import InputError

__all__ = ["KIND", "UNITS", "Corpus", "Cut", "Document", "Split", "StoredText", "identity_of", "write_layout"]

KIND = "corpus"
UNITS = "units"
LAYOUT = "layout.json"
Split = Literal["train", "valid"]


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


class StoredText(NamedTuple):
    """A text as it was read, dropped or not, and what was decided about it."""

    id: str
    text: str
    unit: str
    row: int
    source: str
    start: int
    end: int
    metadata: dict[str, Any]
    group: str
    split: Split


class Cut(NamedTuple):
    """The document whose end is held out, where there are too few to hold out whole ones."""

    key: int
    character: int
    """Where the text for validation begins."""
    byte: int | None
    """The same in the source file, where there is such a place."""


def identity_of(text: str) -> str:
    """Returns the id of a text."""
    return digest_of(text)[:8].hex()


def write_layout(
    directory: Path, units: Units, groups: Sequence[str], cut: Cut | None, validation: str | None = None
) -> None:
    """Writes down the units in their order, the names of groups, what is cut, and where validation text lies."""
    table = [{"name": name, "documents": n} for name, n in zip(units.names, units.documents, strict=True)]
    layout = {
        "units": table, "groups": list(groups), "cut": None if cut is None else cut._asdict(), "validation": validation,
    }  # fmt: skip
    write_json(directory / LAYOUT, layout)


class Corpus:
    """The documents of a finished corpus, streamed from the disk."""

    def __init__(self, artifact: Artifact | Path) -> None:
        """Takes an open artifact, or a path whose files are then verified."""
        self.artifact = open_artifact(artifact, KIND) if isinstance(artifact, Path) else artifact
        if self.artifact.kind != KIND:
            raise InputError(f"{self.artifact.path} is a {self.artifact.kind}, expected a {KIND}")
        layout = json.loads((self.artifact.path / LAYOUT).read_text(encoding="utf-8"))
        self._units: list[str] = [unit["name"] for unit in layout["units"]]
        self.groups: tuple[str, ...] = tuple(layout["groups"])
        """Sources and languages, "books/en"; "en" where sources have no names."""
        self.cut = None if layout["cut"] is None else Cut(**layout["cut"])
        """The document whose end is held out, if it is one."""
        self.validation = None if layout["validation"] is None else self._at(layout["validation"])
        """The corpus that the validation text is that of, if it is another's."""
        if self.validation is not None:
            self.groups = tuple(dict.fromkeys((*self.groups, *self.validation.groups)))

    def _at(self, place: str) -> "Corpus":
        path = Path(os.path.normpath(self.artifact.path / place))
        try:
            return Corpus(open_artifact(path, KIND, verify=False))
        except InputError as error:
            raise InputError(
                f"{self.artifact.path} has the validation text of {path}, which is gone: {error.message}",
                "put it back, or build the corpus anew",
            ) from None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured when the corpus was built."""
        return self.artifact.manifest.metrics

    def documents(self, split: Split | None = None) -> Iterator[Document]:
        """Yields the documents of a split, or of both, always in the same order."""
        columns = ("digest", "text", "source", "start", "end", "metadata")
        for key, row, is_valid, group in self._rows(self._own(split), columns):
            document = Document(
                row["digest"][:8].hex(), row["text"], row["source"], row["start"], row["end"],
                "valid" if is_valid else "train", _language_in(self.groups[group]), json.loads(row["metadata"]),
            )  # fmt: skip
            yield from self._halves(key, document, self._own(split))
        for other in self._others(split):
            yield from other.documents("valid")

    def items(self, split: Split | None = None) -> Iterator[tuple[str, str, int, int]]:
        """Yields the id, the text, the key and the number of the group of each document, which is faster."""
        for key, row, _, group in self._rows(self._own(split), ("digest", "text")):
            for part in self._parts(key, row["text"], self._own(split)):
                name = row["digest"][:8].hex() if part is row["text"] else identity_of(part)
                yield name, part, key, group
        for other in self._others(split):
            for name, part, key, group in other.items("valid"):
                yield name, part, key, self.groups.index(other.groups[group])

    def texts(self, split: Split | None = None) -> Iterator[str]:
        """Yields the texts alone, which is faster."""
        for key, row, _, _ in self._rows(self._own(split), ("text",)):
            yield from self._parts(key, row["text"], self._own(split))
        for other in self._others(split):
            yield from other.texts("valid")

    def _own(self, split: Split | None) -> Split | Literal["none"] | None:
        """What of a split is in this corpus itself."""
        if self.validation is None:
            return split
        return "none" if split == "valid" else "train"

    def _others(self, split: Split | None) -> "list[Corpus]":
        return [] if self.validation is None or split == "train" else [self.validation]

    def decided(self, attributes: Sequence[str] = ()) -> dict[str, Any]:
        """Returns what was decided about all documents that were read, and attributes of them: an array for each column."""
        import pyarrow.parquet

        columns: dict[str, list[Any]] = {name: [] for name in ("reason", "by", "valid", *attributes)}
        for unit in self._units:
            decisions = self._decisions(unit)
            for name in ("by", "valid"):
                columns[name].append(decisions[name].to_numpy())
            columns["reason"].append(decisions["reason"].cast("string").to_numpy().astype(object))
            path = self.artifact.path / UNITS / f"{unit}.{ATTRIBUTES}"
            table = pyarrow.parquet.read_table(path, columns=list(attributes))
            for name in attributes:
                columns[name].append(table[name].to_numpy())
        return {name: np.concatenate(parts) if parts else np.array([]) for name, parts in columns.items()}

    def document(self, id: str) -> Document:
        """Returns the document whose id begins with `id`.

        Raises:
            InputError: no document has this id, or more than one.
        """
        found = [document for document in self.documents() if document.id.startswith(id)]
        if len(found) != 1:
            message = f'no document has the id "{id}"' if not found else f'"{id}" begins {len(found)} ids'
            known = next(self.documents()).id
            raise InputError(message, f"an id looks like {known}; --dropped lists what was dropped")
        return found[0]

    def dropped(self) -> Iterator[dict[str, Any]]:
        """Yields what was dropped: id, source, start, end, reason, preview, and what makes it superfluous."""
        for name in self._units:
            with (self.artifact.path / UNITS / f"{name}.{BROKEN}").open(encoding="utf-8") as lines:
                yield from ({"id": None, **json.loads(line)} for line in lines)
            decisions = self._decisions(name)
            reasons = decisions["reason"].to_pylist()
            columns = ("digest", "text", "source", "start", "end")
            wanted = np.array([bool(reason) for reason in reasons])
            for row_number, row in self._of_unit(name, wanted, columns):
                preview = " ".join(row["text"][:400].split())[:160]
                entry = {
                    "id": row["digest"][:8].hex(), "source": row["source"], "start": row["start"], "end": row["end"],
                    "reason": reasons[row_number], "preview": preview,
                }  # fmt: skip
                by = decisions["by"][row_number].as_py()
                if by >= 0:
                    entry |= {
                        "by": self._identity(by),
                        "cover": round(decisions["cover"][row_number].as_py(), 4),
                    }
                yield entry

    def _parts(self, key: int, text: str, split: Split | Literal["none"] | None) -> list[str]:
        """The text, or of one that is cut the halves that belong to a split."""
        if self.cut is None or key != self.cut.key:
            return [text]
        place = self.cut.character
        return [text[:place]] * (split != "valid") + [text[place:]] * (split != "train")

    @property
    def reading(self) -> ReadOptions:
        """How the sources were read."""
        config = self.artifact.manifest.config
        return ReadOptions(**{name: config[name] for name in ReadOptions._fields})

    def stored(self, key: int) -> StoredText:
        """Returns the text of a key as it is stored, before any edit.

        Raises:
            InputError: there is none.
        """
        import pyarrow.parquet

        name = next((name for name in self._units if int(name[:8], 16) >> 1 == key >> ROW_BITS), None)
        row = key & ((1 << ROW_BITS) - 1)
        decisions = None if name is None else self._decisions(name)
        if name is None or decisions is None or row >= decisions.num_rows:
            raise InputError(
                f"the corpus {self.artifact.path} has no document {key}", "is it the shards' own corpus?"
            )
        begin = 0
        with pyarrow.parquet.ParquetFile(self.artifact.path / UNITS / f"{name}.{TEXTS}") as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if row < begin + count:
                    values = file.read_row_group(group).slice(row - begin, 1).to_pylist()[0]
                    break
                begin += count
        decided = decisions.slice(row, 1).to_pylist()[0]
        return StoredText(
            id=values["digest"][:8].hex(), text=values["text"], unit=name, row=row, source=values["source"],
            start=values["start"], end=values["end"], metadata=json.loads(values["metadata"]),
            group=self.groups[decided["group"]], split="valid" if decided["valid"] else "train",
        )  # fmt: skip

    @property
    def units(self) -> tuple[str, ...]:
        """The names of its units, in their order."""
        return tuple(self._units)

    def files(self) -> dict[str, dict[str, str]]:
        """Returns for each unit the files that were read, and the name of the source of each, "" where it has none."""
        import pyarrow.compute
        import pyarrow.parquet

        table: Any = self.artifact.manifest.config["sources"]
        found: dict[str, dict[str, str]] = {}
        for unit in self._units:
            outcome = json.loads(
                (self.artifact.path / UNITS / f"{unit}.{OUTCOME}").read_text(encoding="utf-8")
            )
            found[unit] = {source["path"]: "" for source in outcome["sources"]}
            if not isinstance(table, Mapping):
                continue
            decisions = self._decisions(unit)
            path = self.artifact.path / UNITS / f"{unit}.{TEXTS}"
            rows = pyarrow.parquet.read_table(path, columns=["source"]).append_column(
                "group", decisions["group"]
            )
            # a row without text is in any group
            known = pyarrow.compute.not_equal(decisions["reason"].cast("string"), Reasons.FORGOTTEN)
            few = rows.filter(known).group_by("source").aggregate([("group", "min")]).to_pylist()
            found[unit] |= {row["source"]: self.groups[row["group_min"]].rpartition("/")[0] for row in few}
        return found

    def superfluous_beside(self, key: int) -> Iterator[dict[str, Any]]:
        """Yields the documents that were dropped because this one has them."""
        for name in self._units:
            decisions = self._decisions(name)
            for row in np.flatnonzero(decisions["by"].to_numpy() == key).tolist():
                other = (int(name[:8], 16) >> 1 << ROW_BITS) + row
                yield {
                    "key": other, "id": self._identity(other), "reason": decisions["reason"][row].as_py(),
                    "cover": round(decisions["cover"][row].as_py(), 4),
                }  # fmt: skip

    def _halves(
        self, key: int, document: Document, split: Split | Literal["none"] | None
    ) -> Iterator[Document]:
        """Yields the document, or the halves of one that is cut which belong to a split."""
        cut = self.cut
        if cut is None or key != cut.key:
            yield document
            return
        first, second = document.text[: cut.character], document.text[cut.character :]
        middle = (document.end, document.start) if cut.byte is None else (cut.byte, cut.byte)
        if split != "valid":
            yield document._replace(id=identity_of(first), text=first, end=middle[0], split="train")
        if split != "train":
            yield document._replace(id=identity_of(second), text=second, start=middle[1], split="valid")

    def _decisions(self, name: str) -> Any:
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.artifact.path / DECISIONS / f"{name}.parquet")

    def _rows(
        self, split: Split | Literal["none"] | None, columns: tuple[str, ...]
    ) -> Iterator[tuple[int, dict[str, Any], bool, int]]:
        """Yields the key of each kept document, the columns asked for, whether it is validation, and its group."""
        import pyarrow.compute
        import pyarrow.parquet

        for name in self._units if split != "none" else ():
            decisions = self._decisions(name)
            kept = pyarrow.compute.equal(decisions["reason"].cast("string"), "").to_numpy()
            valid = decisions["valid"].to_numpy()
            first = int(name[:8], 16) >> 1 << ROW_BITS
            wanted = kept if split is None else kept & (valid if split == "valid" else ~valid)
            if split == "valid" and self.cut is not None and self.cut.key >> ROW_BITS == first >> ROW_BITS:
                wanted = wanted.copy()
                wanted[self.cut.key - first] = True
            groups = decisions["group"].to_numpy()
            edits = read_edits(self.artifact.path, name) if "text" in columns else {}
            for row, values in self._of_unit(name, wanted, columns):
                if row in edits:
                    values["text"] = apply_edits(values["text"], edits[row])
                yield first + row, values, bool(valid[row]), int(groups[row])

    def _of_unit(
        self, name: str, wanted: Any, columns: tuple[str, ...]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the wanted rows of a unit's texts; row groups without any are not read."""
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.artifact.path / UNITS / f"{name}.{TEXTS}") as file:
            begin = 0
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                rows = np.flatnonzero(wanted[begin:end])
                if len(rows):
                    table = file.read_row_group(group, columns=list(columns))
                    if len(rows) < table.num_rows:
                        table = table.take(rows)
                    done = 0
                    for batch in table.to_batches(max_chunksize=256):
                        for values in batch.to_pylist():
                            yield begin + int(rows[done]), values
                            done += 1
                begin = end

    def _identity(self, key: int) -> str:
        import pyarrow.parquet

        name = next(name for name in self._units if int(name[:8], 16) >> 1 == key >> ROW_BITS)
        path = self.artifact.path / UNITS / f"{name}.{TEXTS}"
        digests = pyarrow.parquet.read_table(path, columns=["digest"])["digest"]
        return str(digests[key & ((1 << ROW_BITS) - 1)].as_py()[:8].hex())


def _language_in(group: str) -> Language:
    language: Any = group.rsplit("/", 1)[-1]
    return cast("Language", language)
