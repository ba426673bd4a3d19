"""From files to records: a text, where it stood, and what else its row said. Everything streams.

A file is looked at first (`inspect`: its encoding, its columns, whether there is a header), so that what is wrong
with a recipe is found before any work is done; then it is read (`records`).

    format        one record is               start and end are
    .txt, .md     the file, or a part of it   bytes of the decompressed file
    .jsonl .json  an object                   bytes of the decompressed file
    .csv .tsv     a row                       bytes of the decompressed file
    .parquet      a row                       the row's number and the next
    .html .rst    the file                    bytes of the decompressed file
    .warc .wet    a page                      bytes of the decompressed file, its headers with it
    .xml          a page of a MediaWiki dump  bytes of the decompressed file, its tags with it
    .pdf .docx    the file                    bytes of the file
    source code   the file                    bytes of the decompressed file

A .txt that wikiextractor wrote is divided at its <doc> elements; one of more than 32 MiB where a line ends.
"""

import codecs
import collections
import contextlib
import csv
import io
import itertools
import json
import re
import statistics
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from gristmill.corpus.decode import (
    Encoding,
    UnreadableError,
    declared,
    decode,
    detect,
    newline_of,
)
from gristmill.corpus.files import UNREACHABLE, SourceFile, Stream, open_stream, unreachable
from gristmill.corpus.formats.common import Broken, Record, Row, one_line, preview, read_whole
from gristmill.errors import InputError, did_you_mean

__all__ = [
    "DIVIDED",
    "Broken",
    "Layout",
    "ReadOptions",
    "Record",
    "inspect",
    "read_range",
    "read_some",
    "records",
    "table_rows",
]

DIVIDED = "divided"
"""What a text is counted by that is a part of one that was too long."""

TEXT_COLUMNS = (
    "text",
    "content",
    "body",
    "document",
    "article",
    "passage",
    "paragraphs",
    "story",
    "review",
    "sentence",
)
"""Names under which a text usually stands, the surest first."""

_TABULAR = ("json_lines", "json", "csv", "tsv", "parquet")
MAXIMUM_DOCUMENT_BYTES = 32 << 20
"""A text or row of more is not taken in: it would take half a gigabyte of memory. Whole encyclopedias have been one line."""
_HEAD_BYTES = 1 << 20
_SAMPLE_ROWS = 200
_SAMPLE_CHARACTERS = 2_000_000
_CLEAR_LEAD = 1.25  # the longest column is taken for the text when it is this much longer than the second

_BATCH_BYTES = 16 << 20  # of parquet rows that are unpacked at a time

_BETWEEN_OBJECTS = re.compile(r"[ \t\r\n,]*")

_PLAIN = ("text", "code")
_WITHOUT_ENCODING = ("parquet", "warc", "wiki", "pdf", "docx")
"""Formats that say themselves, or piece by piece, how their texts are encoded."""


class ReadOptions(NamedTuple):
    """What a recipe says about reading."""

    text_column: str | None = None
    encoding: str | None = None
    header: Literal["detect", "present", "absent"] = "detect"
    document_separator: str | None = None


class Layout(NamedTuple):
    """What looking at a file found out."""

    encoding: Encoding | None
    """None for formats that have none of their own (parquet, PDF, …)."""
    text_column: str | None
    """None for what has no columns."""
    columns: tuple[str, ...] = ()
    header: bool = False
    delimiter: str = ","


def inspect(file: SourceFile, options: ReadOptions, start: int = 0, end: int | None = None) -> Layout:
    """Returns the encoding and columns of a file, of which a range of bytes is to be read.

    Raises:
        UnreadableError: this file can't be read; the message names it.
        InputError: the recipe has to say more: no column is clearly the text, or the one it names is not there.
    """
    with _naming(file):
        encoding = None if file.format in _WITHOUT_ENCODING else _encoding(file, options, start, end)
        layout = Layout(encoding, None)
        if file.format not in _TABULAR:
            return layout
        if file.format in ("csv", "tsv"):
            layout = _table_layout(file, layout, options)
        with open_stream(file) as stream:
            rows = (item.row for item in _rows(stream.content, file, layout) if not isinstance(item, Broken))
            return layout._replace(text_column=_text_column(file, rows, options))


def records(
    stream: Stream,
    file: SourceFile,
    layout: Layout,
    options: ReadOptions,
    start: int = 0,
    end: int | None = None,
) -> Iterator[Record | Broken]:
    """Yields the records of a file that was inspected, in order; of .jsonl those that begin in a range of its bytes.

    Raises:
        UnreadableError: the file breaks off or is damaged; what came before has been yielded.
    """
    with _naming(file):
        if file.format not in _TABULAR:
            yield from _documents(stream.content, file, layout, options)
            return
        column = layout.text_column
        if column is None:  # no rows
            return
        for item in _rows(stream.content, file, layout, start, end):
            if isinstance(item, Broken):
                yield item
                continue
            first, last, row, repairs, note = item
            text = _as_text(row.get(column))
            if text is None:
                yield Broken("no text", f'column "{column}" holds no text', first, last, preview(str(row)))
            elif len(text) > MAXIMUM_DOCUMENT_BYTES:
                yield _too_large(f"byte {first:,}", first, last, text[:1000])
            else:
                rest = {key: value for key, value in row.items() if key != column}
                yield Record(text, first, last, rest, repairs, note)


def table_rows(file: SourceFile, options: ReadOptions) -> Iterator[Row | Broken]:
    """Yields the rows of a table with all of their fields: JSON lines, an array of JSON objects, CSV, TSV or parquet.

    Raises:
        UnreadableError: the file can't be read, breaks off or is damaged; what came before has been yielded.
    """
    assert file.format in _TABULAR
    with _naming(file):
        encoding = None if file.format in _WITHOUT_ENCODING else _encoding(file, options, 0, None)
        layout = Layout(encoding, None)
        if file.format in ("csv", "tsv"):
            layout = _table_layout(file, layout, options)
        with open_stream(file) as stream:
            for item in _rows(stream.content, file, layout):
                yield item if isinstance(item, Broken) else item.row


def read_range(file: SourceFile, layout: Layout, start: int, end: int) -> str | None:
    """Returns the text of a byte range of a plain text file, or None where a range means something else.

    That is also so where a part of it is damaged or in another encoding.
    """
    if file.format not in _PLAIN or layout.encoding is None:
        return None
    with open_stream(file) as stream:
        for skipped in range(0, start, _HEAD_BYTES):  # what is decompressed can't be seeked
            stream.content.read(min(_HEAD_BYTES, start - skipped))
        found = decode(stream.content.read(end - start), layout.encoding.name)
        return None if found is None or found.repairs else found.text


def read_some(content: io.BufferedIOBase, file: SourceFile) -> bytes:
    """Returns the next bytes of a file, whatever they are; what goes wrong names it."""
    with _naming(file):
        return content.read(_HEAD_BYTES)


def _encoding(file: SourceFile, options: ReadOptions, start: int, end: int | None) -> Encoding:
    """Looks at the first mebibyte, and where that is ASCII throughout, at the first in the range that is not.

    No further than the range: of a big file that is all ASCII each range would else be looked for in all of it.
    """
    with open_stream(file) as stream:
        if file.format == "html":
            from gristmill.corpus.formats import html

            page = read_whole(stream.content, html.MAXIMUM_PAGE_BYTES)
            return declared(options.encoding, page) if options.encoding else html.encoding_of(page)
        first = head = stream.content.read(_HEAD_BYTES)
        if options.encoding is not None:
            return declared(options.encoding, head)
        place = len(head)
        if start > place and head.isascii():
            stream.content.seek(start)
            place = start + len(stream.content.readline(_HEAD_BYTES))
        while head.isascii() and b"\0" not in head and (end is None or place < end):
            more = stream.content.read(_HEAD_BYTES)
            place += len(more)
            if not more:
                break
            # A line feed is never a part of a character, so the last line is a safe place to go on from.
            head = head[head.rfind(b"\n") + 1 :][-_HEAD_BYTES:] + more
        try:
            return detect(head, complete=len(head) < _HEAD_BYTES)
        except UnreadableError:
            if head is first or file.format not in _TABULAR:
                raise
            return Encoding(
                "utf-8", 0, "ASCII in its first mebibyte"
            )  # what is wrong later is wrong in its rows


def _documents(
    content: io.BufferedIOBase, file: SourceFile, layout: Layout, options: ReadOptions
) -> Iterator[Record | Broken]:
    """Yields what is no row of a table; each reader is imported when the first of its files is met."""
    if file.format in _PLAIN:
        if (
            "." not in file.path.name
            and isinstance(content, io.BufferedReader)
            and content.peek(1)[:1] == b"{"
        ):
            raise UnreadableError("it holds JSON, and its name does not say so", "give it the ending .jsonl")
        yield from _texts(content, layout, options)
    elif file.format == "html":
        from gristmill.corpus.formats import html

        assert layout.encoding is not None
        yield html.document(read_whole(content, html.MAXIMUM_PAGE_BYTES), layout.encoding)
    elif file.format == "warc":
        from gristmill.corpus.formats import archive

        yield from archive.pages(content)
    elif file.format == "wiki":
        from gristmill.corpus.formats import wiki

        yield from wiki.pages(content)
    elif file.format == "pdf":
        from gristmill.corpus.formats import pdf

        yield pdf.document(content)
    elif file.format == "docx":
        from gristmill.corpus.formats import docx

        yield docx.document(content)
    else:
        from gristmill.corpus.formats import rest

        assert layout.encoding is not None
        yield rest.document(read_whole(content, rest.MAXIMUM_BYTES), layout.encoding)


def _texts(content: io.BufferedIOBase, layout: Layout, options: ReadOptions) -> Iterator[Record | Broken]:
    assert layout.encoding is not None
    codec, mark = layout.encoding.name, layout.encoding.mark_bytes
    if options.document_separator is None:
        # Nothing else begins like that, and as one text the tags would be learnt with it.
        if isinstance(content, io.BufferedReader) and content.peek(1)[mark:].startswith(b'<doc id="'):
            from gristmill.corpus.formats import wiki

            yield from wiki.extracted(content, layout.encoding)
            return
        content.read(mark)
        yield from _whole(content, mark, codec)
        return
    separator = re.compile(options.document_separator)
    start, size, divided = mark, 0, False
    parts: list[bytes] = []
    for line in _lines(content, layout.encoding):
        ends = line.is_cut or separator.fullmatch(line.data.decode(codec, "replace").rstrip("\r\n"))
        if ends or size + len(line.data) > MAXIMUM_DOCUMENT_BYTES:
            divided = divided or not ends
            if parts:
                yield _decoded(b"".join(parts), start, codec, divided)
            start, size, parts = line.end if ends else line.start, 0, []
        if line.is_cut:
            yield _too_large(f"byte {line.start:,}", line.start, line.end, line.data.decode(codec, "replace"))
        if ends:
            divided = False
        else:
            parts.append(line.data)
            size += len(line.data)
    yield from [_decoded(b"".join(parts), start, codec, divided)] if parts else []


def _whole(content: io.BufferedIOBase, start: int, codec: str) -> Iterator[Record | Broken]:
    """Yields a text, or the parts of one that is too long: divided behind a blank line, a line, or a space."""
    data = content.read(MAXIMUM_DOCUMENT_BYTES + 1)
    divided = len(data) > MAXIMUM_DOCUMENT_BYTES
    while len(data) > MAXIMUM_DOCUMENT_BYTES:
        signs = (sign.encode(codec) for sign in ("\n\n", "\n", " "))
        size = next(filter(None, (_behind(data, sign) for sign in signs)), 0)
        if not size:
            raise UnreadableError(
                f"it has more than {MAXIMUM_DOCUMENT_BYTES >> 20} MiB without a line break or a space",
                "divide it into lines or files, if it is a text",
            )
        yield _decoded(data[:size], start, codec, divided)
        start += size
        data = data[size:] + content.read(MAXIMUM_DOCUMENT_BYTES + 1 - len(data) + size)
    yield _decoded(data, start, codec, divided)


def _behind(data: bytes, sign: bytes) -> int:
    """Returns the place behind the last sign that is whole and not the end of all, 0 where there is none."""
    place = data.rfind(sign, len(data) // 2, MAXIMUM_DOCUMENT_BYTES)
    while place > 0 and place % (len(sign) if b"\0" in sign else 1):
        place = data.rfind(sign, len(data) // 2, place + len(sign) - 1)
    return place + len(sign) if place > 0 else 0


def _decoded(data: bytes, start: int, codec: str, divided: bool) -> Record | Broken:
    end = start + len(data)
    found = decode(data, codec)
    if found is not None:
        return Record(found.text, start, end, {}, found.repairs + (DIVIDED,) * divided, found.note)
    return Broken(
        "undecodable", _why(data, start, codec), start, end, preview(data[:1000].decode(codec, "replace"))
    )


def _why(data: bytes, start: int, codec: str) -> str:
    try:
        data.decode(codec)
    except UnicodeDecodeError as error:
        return f"byte {start + error.start:,} is not {codec}, and it is not the only one: {error.reason}"
    return ""


def _too_large(place: str, start: int, end: int, beginning: str) -> Broken:
    message = f"{place}: {end - start:,} bytes, more than the {MAXIMUM_DOCUMENT_BYTES >> 20} MiB that a document may have"
    return Broken("too large", message, start, end, preview(beginning))


class _Row(NamedTuple):
    """A row, where it stands, and what had to be done to read it."""

    start: int
    end: int
    row: Row
    repairs: tuple[str, ...] = ()
    note: str = ""


def _rows(
    content: io.BufferedIOBase, file: SourceFile, layout: Layout, start: int = 0, end: int | None = None
) -> Iterator[_Row | Broken]:
    if file.format == "parquet":
        return (_Row(number, number + 1, row) for number, row in _parquet_rows(content))
    assert layout.encoding is not None
    if file.format == "json_lines":
        return _json_lines(content, layout.encoding, start, end)
    if file.format == "json":
        return _json_objects(content, layout.encoding)
    return _table_rows(content, layout)


def _json_lines(
    content: io.BufferedIOBase, encoding: Encoding, first: int, last: int | None
) -> Iterator[_Row | Broken]:
    for number, line in enumerate(_lines(content, encoding, first, last), 1):
        start, end = line.start, line.end
        place = f"byte {start:,}" if first else f"line {number:,}"
        if line.is_cut:
            yield _too_large(place, start, end, line.data.decode(encoding.name, "replace"))
            continue
        found = decode(line.data, encoding.name)
        if found is None:
            message = f"{place}: {_why(line.data, start, encoding.name)}"
            yield Broken(
                "undecodable", message, start, end, preview(line.data.decode(encoding.name, "replace"))
            )
            continue
        if not found.text.strip():
            continue
        try:
            row = json.loads(found.text)
        except (ValueError, RecursionError) as error:
            yield Broken("broken row", f"{place}: {error}", start, end, preview(found.text))
        else:
            if isinstance(row, dict):
                yield _Row(start, end, row, found.repairs, f"{place}: {found.note}" if found.note else "")
            else:
                yield Broken("broken row", f"{place}: not an object", start, end, preview(found.text))


def _json_objects(content: io.BufferedIOBase, encoding: Encoding) -> Iterator[_Row | Broken]:
    """Reads an array of objects, or objects one after another, holding no more than one of them in memory."""
    content.read(encoding.mark_bytes)
    decoder, scanner = codecs.getincrementaldecoder(encoding.name)(), json.JSONDecoder()
    buffer, place, wanted, finished = "", 0, _HEAD_BYTES, False
    offset, line = encoding.mark_bytes, 1  # of `place` in the file
    is_array, objects = False, 0
    first: _Row | Broken | None = None
    while True:
        begin = _BETWEEN_OBJECTS.match(buffer, place).end()  # type: ignore[union-attr]
        if buffer.startswith("[", begin) and not objects and not is_array:
            is_array, begin = True, _BETWEEN_OBJECTS.match(buffer, begin + 1).end()  # type: ignore[union-attr]
        offset += len(buffer[place:begin].encode(encoding.name))
        line += buffer.count("\n", place, begin)
        place = begin
        try:
            row, begin = scanner.raw_decode(buffer, place)
        except (ValueError, RecursionError) as error:
            if not finished and wanted <= MAXIMUM_DOCUMENT_BYTES:
                data = content.read(wanted)
                finished, wanted = not data, wanted * 2  # doubled while an object is longer than that
                buffer, place = buffer[place:] + decoder.decode(data, finished), 0
                continue
            if buffer[place:].strip() == ("]" if is_array else ""):
                break
            if not finished:
                raise UnreadableError(
                    f"line {line:,}: an object of more than {MAXIMUM_DOCUMENT_BYTES >> 20} MiB, or broken JSON",
                    "in .jsonl only the broken line would be lost",
                ) from None
            raise UnreadableError(
                f"line {line:,}: broken JSON: {error}", "in .jsonl only the broken line would be lost"
            ) from None
        end = offset + len(buffer[place:begin].encode(encoding.name))
        item: _Row | Broken = _Row(offset, end, row)
        if not isinstance(row, dict):
            item = Broken(
                "broken row", f"line {line:,}: not an object", offset, end, preview(buffer[place:begin])
            )
        line += buffer.count("\n", place, begin)
        offset, place, wanted, objects = end, begin, _HEAD_BYTES, objects + 1
        if objects == 1 and not is_array:
            first = item  # one object alone is a table of contents, not a document: wait for the second
            continue
        if first is not None:
            yield first
            first = None
        yield item
    if first is not None:
        raise UnreadableError(
            "it is one JSON object, expected an array of objects", "take the texts out of it into .jsonl"
        )


def _table_layout(file: SourceFile, layout: Layout, options: ReadOptions) -> Layout:
    assert layout.encoding is not None
    encoding = layout.encoding
    layout = layout._replace(delimiter="\t" if file.format == "tsv" else ",")
    with open_stream(file) as stream:
        line = next((line.data for line in _lines(stream.content, encoding)), b"").decode(
            encoding.name, "replace"
        )
    if layout.delimiter not in line:
        layout = layout._replace(delimiter=max(",;\t|", key=line.count))
    with open_stream(file) as stream:
        cells = next((row.cells for row in _cells(stream.content, layout) if isinstance(row, _Cells)), [])
    header = _is_header(cells) if options.header == "detect" else options.header == "present"
    names = cells if header else [f"column_{number}" for number in range(1, len(cells) + 1)]
    return layout._replace(header=header, columns=tuple(name.strip() for name in names))


def _is_header(cells: Sequence[str]) -> bool:
    """Whether a first row names columns: short, distinct words, no numbers, no sentences."""
    names = [cell.strip().lower() for cell in cells]
    if len(set(names)) < len(names):
        return False
    if any(name in TEXT_COLUMNS or name in ("id", "label", "title", "author") for name in names):
        return True
    return all(
        re.fullmatch(r"[^\W\d][\w\-./()#:]{0,30}( [\w\-./()#:]{1,30}){0,2}(?<!\.)", name) for name in names
    )


def _table_rows(content: io.BufferedIOBase, layout: Layout) -> Iterator[_Row | Broken]:
    rows = _cells(content, layout)
    if layout.header:
        next(rows, None)
    for row in rows:
        if isinstance(row, Broken):
            yield row
        elif len(row.cells) > len(layout.columns):
            message = f"byte {row.start:,}: {len(row.cells)} cells, expected {len(layout.columns)}"
            yield Broken("broken row", message, row.start, row.end, preview(layout.delimiter.join(row.cells)))
        elif row.cells:
            cells = dict(zip(layout.columns, row.cells, strict=False))
            yield _Row(row.start, row.end, cells, row.repairs, row.note)


class _Cells(NamedTuple):
    """The cells of a row, the bytes that it takes, and what had to be done to read it."""

    cells: list[str]
    start: int
    end: int
    repairs: tuple[str, ...]
    note: str


def _cells(content: io.BufferedIOBase, layout: Layout) -> Iterator[_Cells | Broken]:
    """Yields the cells of each row: the reader pulls lines only as it needs them.

    A quote that nothing closes makes a row of all that follows: then its first line is given up, and the next one begins a
    row.
    """
    assert layout.encoding is not None
    encoding = layout.encoding
    end = encoding.mark_bytes
    broken: list[Broken] = []
    repairs: dict[str, None] = {}
    note = ""
    held: list[_Line] = []
    waiting: collections.deque[_Line] = collections.deque()
    source = _lines(content, encoding)
    is_open = False

    def lines() -> Iterator[str]:
        nonlocal end, note, is_open
        while not is_open:
            line = waiting.popleft() if waiting else next(source, None)
            is_open = line is None or (bool(held) and line.end - held[0].start > MAXIMUM_DOCUMENT_BYTES)
            if line is None:
                return
            held.append(line)
            end = line.end
            found = None if line.is_cut else decode(line.data, encoding.name)
            if found is not None:
                repairs.update(dict.fromkeys(found.repairs))
                note = note or (found.note and f"byte {line.start:,}: {found.note}")
                yield found.text
                continue
            text = line.data.decode(encoding.name, "replace")
            if line.is_cut:
                broken.append(_too_large(f"byte {line.start:,}", line.start, line.end, text))
            else:
                why = _why(line.data, line.start, encoding.name)
                broken.append(Broken("undecodable", why, line.start, line.end, preview(text)))
            yield text  # raised here it would end the reader: only the row is lost

    # .tsv knows no quotes (IANA text/tab-separated-values): one that is not closed would swallow all that follows.
    quoting: Any = csv.QUOTE_NONE if layout.delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines(), delimiter=layout.delimiter, quoting=quoting)
    with _long_fields():
        while True:
            start, note = end, ""
            broken.clear()
            repairs.clear()
            held.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Broken("broken row", f"byte {start:,}: {error}", start, end, "")
            else:
                if is_open:
                    first, is_open, end = held[0], False, held[0].end
                    waiting.extendleft(reversed(held[1:]))
                    reader = csv.reader(lines(), delimiter=layout.delimiter, quoting=quoting)
                    why = f"byte {start:,}: a quote begins here and does not end"
                    beginning = first.data.decode(encoding.name, "replace")
                    yield Broken("broken row", why, start, end, preview(beginning))
                elif broken:
                    yield broken[0]._replace(start=start, end=end)
                else:
                    yield _Cells(cells, start, end, tuple(repairs), note)


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Lifts the csv module's limit of 128 KiB per cell, which is one for the whole process, while we read."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(content: io.BufferedIOBase) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(content)
        columns = [
            field.name for field in table.schema_arrow if "binary" not in str(field.type)
        ]  # pictures and such
        number = 0
        meta = table.metadata
        stored = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        rows = max(1, min(1024, _BATCH_BYTES * meta.num_rows // max(1, stored)))
        for batch in table.iter_batches(batch_size=rows, columns=columns):
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except pyarrow.ArrowException as error:
        raise UnreadableError(
            f"it is not a whole parquet file: {one_line(error)}", "write it again"
        ) from None


def _text_column(file: SourceFile, rows: Iterable[Row], options: ReadOptions) -> str | None:
    lengths: dict[str, list[int]] = {}
    names: dict[str, None] = {}
    total = count = 0
    for row in itertools.islice(rows, _SAMPLE_ROWS):
        count += 1
        names.update(dict.fromkeys(row))
        for name, value in row.items():
            text = _as_text(value)
            if text is not None:
                lengths.setdefault(name, []).append(len(text))
                total += len(text)
        if total > _SAMPLE_CHARACTERS:
            break
    if not count:
        return None
    wanted = options.text_column
    if wanted is not None:
        if wanted not in names:
            raise InputError(f'{file.name} has no column "{wanted}"', did_you_mean(wanted, names))
        return wanted
    for name in TEXT_COLUMNS:
        found = next((column for column in lengths if column.lower() == name), None)
        if found is not None:
            return found
    means = {name: statistics.fmean(found) * len(found) / count for name, found in lengths.items()}
    ranked = sorted(means, key=lambda name: -means[name])
    listed = ", ".join(names)
    if not ranked:
        raise InputError(
            f"{file.name} has no column of text; its columns: {listed}", "leave the file out with exclude"
        )
    if len(ranked) > 1 and means[ranked[0]] < _CLEAR_LEAD * means[ranked[1]]:
        one, other = (f'"{name}"' for name in names if name in ranked[:2])
        raise InputError(
            f"{file.name}: {one} and {other} could both be the text; its columns: {listed}",
            f"choose one: text_column = {one}",
        )
    return ranked[0]


def _as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return None


class _Line(NamedTuple):
    """A line with its line feed, or the beginning of one that is too long."""

    data: bytes
    start: int
    end: int
    """Behind its line feed."""

    @property
    def is_cut(self) -> bool:
        """Whether it is too long and its end was passed over."""
        return self.end - self.start > len(self.data)


def _lines(
    content: io.BufferedIOBase, encoding: Encoding, first: int = 0, last: int | None = None
) -> Iterator[_Line]:
    """Yields each line; those that begin in a range of bytes.

    Where a line feed is two bytes, all lines belong to the range that begins with the file.
    """
    newline = newline_of(encoding.name)
    start = encoding.mark_bytes
    if len(newline) > 1:
        first, last = (0, None) if first == 0 else (0, 0)
    if first > start:
        content.seek(first - 1)  # a line that begins before the range is not ours
        start = first - 1 + _pass_over(content)
    else:
        content.read(start)
    for data, size in _byte_lines(content) if len(newline) == 1 else _wide_lines(content, newline):
        if last is not None and start >= last:
            return
        yield _Line(data, start, start + size)
        start += size


def _byte_lines(content: io.BufferedIOBase) -> Iterator[tuple[bytes, int]]:
    while line := content.readline(MAXIMUM_DOCUMENT_BYTES):
        if len(line) < MAXIMUM_DOCUMENT_BYTES or line.endswith(b"\n"):
            yield line, len(line)
        else:
            yield line[:1000], len(line) + _pass_over(content)


def _pass_over(content: io.BufferedIOBase) -> int:
    """Goes to the end of a line and returns how many bytes that were."""
    passed = 0
    while data := content.readline(_HEAD_BYTES):
        passed += len(data)
        if data.endswith(b"\n"):
            break
    return passed


def _wide_lines(content: io.BufferedIOBase, newline: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields the lines of UTF-16, whose line feed is two bytes, the first of them at an even place."""
    rest = b""
    cut = 0  # bytes of a line that is too long, of which `rest` is no more than the beginning
    while chunk := content.read(_HEAD_BYTES):
        rest += chunk
        begin = search = 0
        while (found := rest.find(newline, search)) >= 0:
            search = found + 1
            if found % 2 == 0:
                search = found + 2
                yield rest[begin : begin + 1000 if cut else search], cut + search - begin
                begin, cut = search, 0
        rest = rest[begin:]
        keep = 1000 + len(rest) % 2
        if (len(rest) > MAXIMUM_DOCUMENT_BYTES or cut) and len(rest) > keep:
            cut += len(rest) - keep
            rest = rest[:1000] + rest[len(rest) - len(rest) % 2 :]
    if rest:
        yield rest, cut + len(rest)


@contextlib.contextmanager
def _naming(file: SourceFile) -> Iterator[None]:
    """Names the file in whatever goes wrong while it is read."""
    try:
        yield
    except UnreadableError as error:
        if error.message.startswith(file.name):
            raise
        raise UnreadableError(f"{file.name}: {error.message}", error.hint) from None
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"{file.name} is not {error.encoding} throughout: {error.reason}", "name its encoding"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in UNREACHABLE:
            raise unreachable(file, error) from None
        raise UnreadableError(
            f"{file.name} is damaged or breaks off: {one_line(error)}", "get the file again"
        ) from None
