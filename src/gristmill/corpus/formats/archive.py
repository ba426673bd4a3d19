"""Web archives: WARC files as crawlers write them, and the WET files of Common Crawl.

Read here, in a hundred lines, because a record is to be named by its bytes in the decompressed file, a damaged one must not
end the archive, and no length is believed. Format: ISO 28500 (WARC 1.1), RFC 9112 for the HTTP message within.
"""

import io
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.formats import html
from gristmill.corpus.formats.common import Broken, Record, Row, one_line, preview

__all__ = ["pages"]

MAXIMUM_MESSAGE_BYTES = 64 << 20
_MOST_HEADER_BYTES = 256 << 10
_CHUNK_BYTES = 1 << 20
_TYPES = ("response", "resource", "conversion")
"""Types of records that can hold a text; requests, metadata and repetitions do not."""
_HTML = ("text/html", "application/xhtml+xml")
_LOOKS_LIKE_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.I)
_BEGINNING_BYTES = 1024
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:\-]+)", re.I)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")

Headers = dict[str, str]


class _Message(NamedTuple):
    body: bytes
    kind: str
    """Media type, in lower case, "" where none is named."""
    charset: str | None


class _NoTextError(Exception):
    """A record that holds nothing to read, which is no accident."""


def pages(content: io.BufferedIOBase) -> Iterator[Record | Broken]:
    """Yields the text of each page: of HTML its main text, of plain text and PDF all.

    Raises:
        UnreadableError: it is no web archive.
        EOFError: it ends in the middle of a record.
    """
    offset, lost = 0, None
    records = 0
    while line := content.readline(_MOST_HEADER_BYTES):
        start, offset = offset, offset + len(line)
        if not line.startswith(b"WARC/"):
            if line.strip() and lost is None:
                if not records:
                    raise UnreadableError("it is no web archive", "a WARC file begins with WARC/1.0")
                lost = start
            continue
        if lost is not None:
            yield _gap(lost, start)
            lost = None
        headers, size = _headers(content)
        offset += size
        length = headers.get("content-length", "")
        if not re.fullmatch("[0-9]{1,15}", length):
            yield Broken(
                "broken record", f"byte {start:,}: it has no length", start, offset, preview(str(headers))
            )
            lost = offset
            records += 1
            continue
        records += 1
        end = offset + int(length)
        if headers.get("warc-type") not in _TYPES:
            _skip(content, int(length))
        elif int(length) > MAXIMUM_MESSAGE_BYTES:
            _skip(content, int(length))
            yield Broken("too large", f"byte {start:,}: {int(length):,} bytes", start, end, "")
        else:
            yield _page(headers, _read(content, int(length)), start, end)
        offset = end
    if lost is not None:
        yield _gap(lost, offset)


def _gap(start: int, end: int) -> Broken:
    return Broken(
        "broken record", f"byte {start:,}: {end - start:,} bytes belong to no record", start, end, ""
    )


def _headers(content: io.BufferedIOBase) -> tuple[Headers, int]:
    """Returns the fields up to the next blank line, names in lower case, and the bytes that they take."""
    headers: Headers = {}
    size, last = 0, ""
    while line := content.readline(_MOST_HEADER_BYTES):
        size += len(line)
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text.strip():
            break
        if size > _MOST_HEADER_BYTES:
            break  # what follows belongs to no record
        if text[0] in " \t" and last:
            headers[last] += " " + text.strip()
            continue
        name, _, value = text.partition(":")
        last = name.strip().lower()
        headers.setdefault(last, value.strip())
    return headers, size


def _skip(content: io.BufferedIOBase, length: int) -> None:
    while length:
        length -= len(_read(content, min(length, _CHUNK_BYTES)))


def _read(content: io.BufferedIOBase, length: int) -> bytes:
    data = content.read(length)
    if len(data) < length:
        raise EOFError("it ends in the middle of a record")
    return data


def _page(headers: Headers, data: bytes, start: int, end: int) -> Record | Broken:
    url = headers.get("warc-target-uri", "").strip("<>")
    metadata: Row = {"url": url} if url else {}
    if headers.get("warc-date"):
        metadata["date"] = headers["warc-date"]
    try:
        message = _message(headers, data)
        item = _text_of(message, start, end, url or None)
    except _NoTextError as error:
        return Broken("no text", f"{url}: {error}", start, end, "")
    except (UnreadableError, OSError, EOFError, zlib.error, ValueError) as error:
        what = error.message if isinstance(error, UnreadableError) else one_line(error)
        return Broken("unreadable page", f"{url or start}: {what}", start, end, "")
    if isinstance(item, Broken):
        return item._replace(message=f"{url}: {item.message}")
    return item._replace(metadata={**metadata, **item.metadata})


def _text_of(message: _Message, start: int, end: int, url: str | None) -> Record | Broken:
    body, kind = message.body, message.kind
    if kind in _HTML or (not kind and _LOOKS_LIKE_HTML.search(body[:_BEGINNING_BYTES])):
        if len(body) > html.MAXIMUM_PAGE_BYTES:
            return Broken("too large", f"a page of {len(body):,} bytes", start, end, "")
        return html.document(body, html.encoding_of(body, message.charset), start, end, url)
    if kind == "application/pdf":
        from gristmill.corpus.formats import pdf

        return pdf.document(io.BytesIO(body))._replace(start=start, end=end)
    if kind != "text/plain":
        raise _NoTextError(kind or "no media type")
    encoding = html.encoding_of(body, message.charset)
    return Record(body[encoding.mark_bytes :].decode(encoding.name, "replace"), start, end, {})


def _message(headers: Headers, data: bytes) -> _Message:
    """Returns what a record holds, without the HTTP message around it."""
    kind, charset = _media_type(headers.get("content-type", ""))
    if headers.get("warc-type") != "response" or kind != "application/http":
        return _Message(data, kind, charset)
    stream = io.BytesIO(data)
    status = stream.readline(_MOST_HEADER_BYTES).split()
    fields, _ = _headers(stream)
    if len(status) < 2 or not status[0].startswith(b"HTTP/"):
        raise ValueError("it holds no HTTP message")
    if not status[1].startswith(b"2"):
        raise _NoTextError(f"HTTP status {status[1].decode('latin-1')}")
    body = data[stream.tell() :]
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _joined(body)
    for coding in reversed(fields.get("content-encoding", "").lower().split(",")):
        body = _decompressed(body, coding.strip())
    return _Message(body, *_media_type(fields.get("content-type", "")))


def _media_type(value: str) -> tuple[str, str | None]:
    charset = _CHARSET.search(value)
    return value.partition(";")[0].strip().lower(), charset.group(1) if charset else None


def _joined(body: bytes) -> bytes:
    """Returns a chunked body in one piece; some crawlers join it and keep the header."""
    parts: list[bytes] = []
    place = 0
    while match := _CHUNK_SIZE.match(body, place):
        size = int(match.group(1), 16)
        parts.append(body[match.end() : match.end() + size])
        place = match.end() + size
        if not size:
            break
        if body.startswith(b"\r\n", place):
            place += 2
        elif place < len(body):
            return body  # that was no length
    return b"".join(parts) if parts else body


def _decompressed(body: bytes, coding: str) -> bytes:
    """Returns a decompressed body; some crawlers decompress it and keep the header."""
    if coding in ("", "identity"):
        return body
    if coding in ("gzip", "x-gzip"):
        if not body.startswith(b"\x1f\x8b"):
            return body
        decompressor = zlib.decompressobj(wbits=31)
    elif coding == "deflate":  # zlib's format, or what is in it: both are sent
        decompressor = zlib.decompressobj(wbits=15 if body[:1] == b"\x78" else -15)
    elif _LOOKS_LIKE_HTML.search(body[:_BEGINNING_BYTES]):
        return body
    else:
        raise ValueError(f'it is compressed as "{coding}", which is not understood')
    data = decompressor.decompress(body, MAXIMUM_MESSAGE_BYTES)
    if decompressor.unconsumed_tail:
        raise ValueError(f"it expands to more than {MAXIMUM_MESSAGE_BYTES >> 20} MiB")
    return data
