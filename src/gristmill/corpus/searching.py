"""Which documents of a corpus a request to forget means: by id, by key, by where they stood, by what is in them.

Documents that were dropped are found too, since a corpus keeps their text, and broken rows as far as it keeps theirs.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.corpus.build import recipe_of
from gristmill.corpus.decisions import DECISIONS
from gristmill.corpus.decode import UnreadableError, newline_of
from gristmill.corpus.documents import ATTRIBUTES, BROKEN, ROW_BITS, TEXTS, buffers_of
from gristmill.corpus.edits import apply_edits, read_edits
from gristmill.corpus.files import find_files, open_stream
from gristmill.corpus.forgotten import NO_DIGEST, list_obeyed, read_list
from gristmill.corpus.near import BANDS, cover, shingles_of_buffer
from gristmill.corpus.normalise import digest_of
from gristmill.corpus.read import inspect
from gristmill.corpus.store import UNITS, Corpus, identity_of
from gristmill.errors import InputError

__all__ = ["Found", "Near", "Request", "Search", "search"]

LEAST_COVER = 0.5
"""Documents that have less in common are not listed."""
PREVIEW_CHARACTERS = 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Which documents are to be forgotten."""

    ids: tuple[str, ...] = ()
    """Ids, or their beginnings."""
    keys: tuple[int, ...] = ()
    at: tuple[str, ...] = ()
    """Raw files, FILE or FILE:LINE."""
    containing: tuple[str, ...] = ()
    """Strings; case and the length of white space do not matter."""
    near: float | None = None
    """Also documents of which one of these has this share, or that have this share of one."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.ids or self.keys or self.at or self.containing)


class Found(NamedTuple):
    """A document that is meant."""

    digest: bytes
    unit: str
    row: int
    """-1 where it is no document but a broken row, of which only the beginning is kept."""
    source: str
    start: int
    end: int
    state: str
    """"train", "valid", or why it was dropped."""
    why: str
    text: str
    preview: str

    @property
    def id(self) -> str:
        """Its id in the corpus."""
        return self.digest[:8].hex()


class Near(NamedTuple):
    """A document that has much of one that is meant, or of which that has much."""

    document: Found
    cover: float
    beside: str
    """The id of the one that is meant."""


class Search(NamedTuple):
    """What a request means in a corpus."""

    documents: tuple[Found, ...]
    near: tuple[Near, ...]
    """What stays unless the request says otherwise."""


def search(corpus: Corpus, request: Request) -> Search:
    """Returns the documents that a request means, with all that have the same text, and those that are near them.

    Raises:
        InputError: an id is unknown or begins several, or a file or line is not there.
    """
    found = {(d.unit, d.row, d.start): d for d in _asked_for(corpus, request)}
    texts = {d.digest: d for d in found.values() if d.row >= 0}
    for document in _with(corpus, lambda table: _is_one_of(table, texts), "the same text"):
        found.setdefault((document.unit, document.row, document.start), document)
    near = _near(corpus, [d for d in found.values() if d.row >= 0])
    if request.near is not None:
        for other in near:
            if other.cover >= request.near:
                why = f"near: {other.cover:.2f} of it"
                key = (other.document.unit, other.document.row, other.document.start)
                found[key] = other.document._replace(why=why)
        near = [other for other in near if other.cover < request.near]
    order = {name: number for number, name in enumerate(corpus.units)}
    documents = sorted(found.values(), key=lambda d: (order[d.unit], d.row, d.start))
    return Search(tuple(documents), tuple(sorted(near, key=lambda n: -n.cover)))


def _asked_for(corpus: Corpus, request: Request) -> list[Found]:
    found: list[Found] = []
    for name in request.ids:
        mine = _by_id(corpus, name.lower())
        if len({document.digest for document in mine}) > 1:
            raise InputError(
                f'"{name}" begins {len({d.id for d in mine})} ids', "write more of the one you mean"
            )
        if not mine and not _is_listed(corpus, name.lower()):
            known = next(corpus.documents()).id
            raise InputError(f'no document has the id "{name}"', f"an id looks like {known}")
        found += mine
    for key in request.keys:
        stored = corpus.stored(key)
        row = key & ((1 << ROW_BITS) - 1)
        found += _documents(corpus, stored.unit, np.array([row]), "asked for")
    for place in request.at:
        found += _at(corpus, place)
    for string in request.containing:
        found += _containing(corpus, string)
    return found


def _by_id(corpus: Corpus, name: str) -> list[Found]:
    cut = corpus.cut
    if cut is not None:  # its halves have ids of their own
        stored = corpus.stored(cut.key)
        text = apply_edits(stored.text, read_edits(corpus.artifact.path, stored.unit).get(stored.row, []))
        halves = (text[: cut.character], text[cut.character :])
        if any(identity_of(half).startswith(name) for half in halves):
            return list(_documents(corpus, stored.unit, np.array([stored.row]), "asked for"))

    def has_it(table: Any) -> Any:
        return np.array(
            [d != NO_DIGEST and d[:8].hex().startswith(name) for d in table["digest"].to_pylist()], dtype=bool
        )

    return list(_with(corpus, has_it, "asked for"))


def _is_listed(corpus: Corpus, name: str) -> bool:
    """Whether an id is one that was forgotten before, perhaps by this very command."""
    return any(
        entry.text.startswith(name)
        for entry in read_list(list_obeyed(corpus.artifact.path, recipe_of(corpus).forgotten)).entries
    )


def _at(corpus: Corpus, place: str) -> list[Found]:
    """The documents that stand in a line of a raw file, or in all of it."""
    files = {file for inside in corpus.files().values() for file in inside}
    name, line = place, None
    if _source_named(place, files) is None and (parted := re.fullmatch(r"(.+):(\d+)", place)):
        name, line = parted[1], int(parted[2])
    source = _source_named(name, files)
    if source is None:
        raise InputError(
            f"{name} is no file that the corpus was read from", "`gristmill corpus show` lists its sources"
        )
    start, end = (0, None) if line is None else _range_of(corpus, source, line)

    def stands_there(begin: int, stop: int) -> bool:
        return (end is None or begin < end) and max(stop, begin + 1) > start

    def is_there(table: Any) -> Any:
        columns = (table[column].to_pylist() for column in ("digest", "source", "start", "end"))
        return np.array(
            [
                d != NO_DIGEST and s == source and stands_there(a, b)
                for d, s, a, b in zip(*columns, strict=True)
            ],
            bool,
        )

    found = list(_with(corpus, is_there, "asked for"))
    return found + [
        broken
        for broken in _broken(corpus, "asked for")
        if broken.source == source and stands_there(broken.start, broken.end)
    ]


def _source_named(name: str, files: Iterable[str]) -> str | None:
    resolved = Path(name).resolve()
    return next((file for file in files if file == name or Path(file).resolve() == resolved), None)


def _range_of(corpus: Corpus, source: str, line: int) -> tuple[int, int]:
    """The first and last byte of a line, counted from 1; of a table in columns its row."""
    file = find_files([source]).files[0]
    if file.format == "parquet":
        return line - 1, line
    try:
        encoding = inspect(file, corpus.reading).encoding
        begin = 0
        with open_stream(file) as stream:
            lengths = _line_lengths(stream.content, encoding and encoding.name)
            for number, length in enumerate(lengths, 1):
                if number == line:
                    return begin, begin + length
                begin += length
    except UnreadableError as error:
        raise InputError(error.message, "name a document by its id, or by a text that is in it") from None
    raise InputError(f"{source} has no line {line:,}", "lines are counted from 1")


def _line_lengths(content: Any, encoding: str | None) -> Iterator[int]:
    """Yields how many bytes each line has, its line feed with it."""
    if encoding is None or len(newline_of(encoding)) == 1:
        yield from map(len, content)
        return
    codec = "utf-16-le" if encoding == "utf-16" else encoding
    for line in content.read().decode(codec, "surrogatepass").split("\n"):
        yield len(f"{line}\n".encode(codec, "surrogatepass"))


def _containing(corpus: Corpus, string: str) -> list[Found]:
    import pyarrow.compute

    words = string.split()
    if not words:
        raise InputError(
            "the text that documents should contain is empty", 'write it in quotes: --containing "…"'
        )
    pattern = r"[\s\pZ]+".join(map(_quoted, words))
    expression = re.compile(r"\s+".join(map(re.escape, words)), re.IGNORECASE)

    def has_it(table: Any) -> Any:
        found = np.zeros(table.num_rows, dtype=bool)
        for name in ("text", "metadata"):
            is_in = pyarrow.compute.match_substring_regex(table[name], pattern, ignore_case=True)
            found |= is_in.to_numpy()
        return found

    def shown(document: Found) -> Found:
        place = expression.search(document.text)
        begin = 0 if place is None else max(0, place.start() - PREVIEW_CHARACTERS // 3)
        return document._replace(preview=_preview(document.text[begin:], begin > 0))

    why = f'contains "{string}"'
    found = [shown(document) for document in _with(corpus, has_it, why, ("text", "metadata"))]
    return found + [broken for broken in _broken(corpus, why) if expression.search(broken.text)]


def _quoted(word: str) -> str:
    """A word as a regular expression of RE2."""
    return "".join(c if c.isalnum() else rf"\x{{{ord(c):x}}}" for c in word)


def _is_one_of(table: Any, texts: Mapping[bytes, Any]) -> Any:
    return np.array([digest in texts for digest in table["digest"].to_pylist()], dtype=bool)


def _with(
    corpus: Corpus, chosen: Callable[[Any], Any], why: str, columns: Sequence[str] = ()
) -> Iterator[Found]:
    """Yields the documents that a function of a table of texts chooses; tables have what is named and where texts stood."""
    import pyarrow.parquet

    for unit in corpus.units:
        rows, begin = [], 0
        with pyarrow.parquet.ParquetFile(corpus.artifact.path / UNITS / f"{unit}.{TEXTS}") as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["digest", "source", "start", "end", *columns])
                rows.append(begin + np.flatnonzero(chosen(table)))
                begin += table.num_rows
        yield from _documents(corpus, unit, np.concatenate([np.array([], np.int64), *rows]), why)


def _documents(corpus: Corpus, unit: str, rows: Any, why: str) -> Iterator[Found]:
    import pyarrow.parquet

    if not len(rows):
        return
    decided = pyarrow.parquet.read_table(corpus.artifact.path / DECISIONS / f"{unit}.parquet").take(rows)
    first = int(unit[:8], 16) >> 1 << ROW_BITS
    states = zip(rows.tolist(), decided["reason"].to_pylist(), decided["valid"].to_pylist(), strict=True)
    for (row, reason, valid), values in zip(states, _read(corpus, unit, rows, TEXTS), strict=True):
        if values["digest"] == NO_DIGEST:
            continue
        state = f"dropped: {reason}" if reason else "valid" if valid else "train"
        if corpus.cut is not None and corpus.cut.key == first + row:
            state = "train, its end valid"
        yield Found(
            values["digest"], unit, row, values["source"], values["start"], values["end"], state, why, values["text"],
            _preview(values["text"]),
        )  # fmt: skip


def _read(
    corpus: Corpus, unit: str, rows: Any, ending: str, columns: Sequence[str] | None = None
) -> Iterator[Any]:
    """Yields rows of a file of a unit, ascending; parts without any are not read."""
    import pyarrow.parquet

    begin = 0
    with pyarrow.parquet.ParquetFile(corpus.artifact.path / UNITS / f"{unit}.{ending}") as file:
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            mine = rows[(rows >= begin) & (rows < end)] - begin
            if len(mine):
                yield from file.read_row_group(group, columns=columns).take(mine).to_pylist()
            begin = end


def _broken(corpus: Corpus, why: str) -> Iterator[Found]:
    """Yields what gave no text and of which something is still told."""
    for unit in corpus.units:
        with (corpus.artifact.path / UNITS / f"{unit}.{BROKEN}").open(
            encoding="utf-8", newline="\n"
        ) as lines:
            for entry in map(json.loads, lines):
                text = entry["preview"] or entry.get("message", "")
                if text:
                    yield Found(
                        digest_of(text), unit, -1, entry["source"], entry["start"], entry["end"],
                        f"dropped: {entry['reason']}", why, text, _preview(text),
                    )  # fmt: skip


def _preview(text: str, is_inside: bool = False) -> str:
    line = " ".join(text[: 4 * PREVIEW_CHARACTERS].split())
    return "…" * is_inside + line[:PREVIEW_CHARACTERS] + "…" * (len(line) > PREVIEW_CHARACTERS)


def _near(corpus: Corpus, chosen: Sequence[Found]) -> list[Near]:
    """The documents that share a MinHash band with one of these and have half of it, or of which it has half."""
    import pyarrow.parquet

    names = [f"band_{band:02d}" for band in range(BANDS)]
    mine = {(document.unit, document.row) for document in chosen}
    texts = {document.digest for document in chosen}
    wanted: list[dict[int, list[Found]]] = [collections.defaultdict(list) for _ in names]
    for unit, documents in _by_unit(chosen).items():
        rows = np.array([document.row for document in documents])
        for document, values in zip(documents, _read(corpus, unit, rows, ATTRIBUTES, names), strict=True):
            for band, value in enumerate(values.values()):
                if value:
                    wanted[band][value].append(document)
    lists = [np.fromiter(band, np.uint64, len(band)) for band in wanted]
    shingles = {document.digest: _shingles(document.text) for document in chosen}
    near: list[Near] = []
    for unit in corpus.units if any(map(len, lists)) else ():
        beside: dict[int, set[Found]] = collections.defaultdict(set)
        begin = 0
        with pyarrow.parquet.ParquetFile(corpus.artifact.path / UNITS / f"{unit}.{ATTRIBUTES}") as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=names)
                for band, name in enumerate(names):
                    values = table[name].to_numpy()
                    for row in np.flatnonzero(np.isin(values, lists[band])).tolist():
                        beside[begin + row].update(wanted[band][int(values[row])])
                begin += table.num_rows
        rows = np.array(sorted(row for row in beside if (unit, row) not in mine), dtype=np.int64)
        for document in _documents(corpus, unit, rows, "near"):
            if document.digest in texts:
                continue
            own = _shingles(document.text)
            best, other = max(
                ((_either(own, shingles[meant.digest]), meant.id) for meant in beside[document.row]),
                default=(0.0, ""),
            )
            if best >= LEAST_COVER:
                near.append(Near(document, best, other))
    return near


def _by_unit(documents: Iterable[Found]) -> dict[str, list[Found]]:
    """Documents by their unit, ascending."""
    found: dict[str, list[Found]] = collections.defaultdict(list)
    for document in sorted(documents, key=lambda d: d.row):
        found[document.unit].append(document)
    return found


def _shingles(text: str) -> Any:
    import pyarrow

    return shingles_of_buffer(*buffers_of(pyarrow.array([text], pyarrow.large_string())))[0]


def _either(one: Any, other: Any) -> float:
    """How much of the one text the other has, or the other way round."""
    return max(cover(np.isin(one, other)), cover(np.isin(other, one)))
