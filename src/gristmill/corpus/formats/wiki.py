"""Wikipedias: the XML dumps of MediaWiki, and what wikiextractor made of one.

Of a dump the articles are taken, each in its last revision: not redirects, talk, templates, categories or scripts.
Format: https://www.mediawiki.org/wiki/Help:Export
"""

import html
import io
import re
from collections.abc import Iterator

from gristmill.corpus.decode import Encoding, UnreadableError
from gristmill.corpus.formats.common import Broken, Record, preview
from gristmill.corpus.formats.wikitext import plain_text
from gristmill.corpus.formats.xml_events import End, Event, Start, events

__all__ = ["extracted", "pages"]

MAXIMUM_CHARACTERS = 16 << 20
"""Of the markup of a page; MediaWiki itself allows two million bytes."""
_MOST_LINE_BYTES = 64 << 20
_FIELDS = ("title", "ns", "id", "timestamp", "model", "text")
_DOCUMENT = re.compile(rb'<doc\b((?:\s+\w+="[^"]*")*)\s*>\s*')
_ATTRIBUTE = re.compile(rb'(\w+)="([^"]*)"')
_END = b"</doc>"


def pages(content: io.BufferedIOBase) -> Iterator[Record | Broken]:
    """Yields the articles of a dump as plain text, with title, page number and date.

    Raises:
        UnreadableError: it is other XML, or breaks off.
    """
    reader = _Dump()
    for event in events(content):
        item = reader.take(event)
        if item is not None:
            yield item
    if reader.passed:
        listed = ", ".join(f"{count:,} {what}" for what, count in sorted(reader.passed.items()))
        yield Broken("no text", f"pages that are no articles: {listed}", 0, 0, "")


class _Dump:
    """What is known of the page that is being read."""

    def __init__(self) -> None:
        self.passed: dict[str, int] = {}
        """Pages that are no articles, by what they are."""
        self._path: list[str] = []
        self._site = ""
        self._forget(0)

    def _forget(self, start: int) -> None:
        self._start = start
        self._fields: dict[str, str] = {}
        self._parts: list[str] = []
        self._characters = 0
        self._redirect = self._overlong = False

    def take(self, event: Event) -> Record | Broken | None:
        if isinstance(event, Start):
            self._open(event.name.rpartition(" ")[2], event)
        elif isinstance(event, End):
            name = self._path.pop()
            if name in _FIELDS and self._path[-1:] in (["page"], ["revision"]):
                self._fields.setdefault(name, "".join(self._parts))
                self._overlong = self._overlong or self._characters > MAXIMUM_CHARACTERS
            elif name == "base":
                self._site = "".join(self._parts)
            elif name == "page":
                return self._page(event.place + len("</page>"))
        else:
            self._characters += len(event.text)
            if self._characters <= MAXIMUM_CHARACTERS:
                self._parts.append(event.text)
        return None

    def _open(self, name: str, event: Start) -> None:
        if not self._path and name != "mediawiki":
            raise UnreadableError(
                f"it is XML of another kind (<{name[:50]}>), expected a dump of MediaWiki",
                "take the texts out of it into .jsonl, or leave it out with exclude",
            )
        if name == "page":
            self._forget(event.place)
        elif name == "revision":  # a later one: of a page's history the last counts
            for field in ("timestamp", "model", "text"):
                self._fields.pop(field, None)
        elif name == "redirect":
            self._redirect = True
        if name in _FIELDS or name == "base":
            self._parts, self._characters = [], 0
        self._path.append(name)

    def _page(self, end: int) -> Record | Broken | None:
        fields = self._fields
        space, model = fields.get("ns", "0").strip(), fields.get("model", "wikitext").strip()
        kind = "of another namespace" if space not in ("", "0") else "redirects" if self._redirect else ""
        kind = kind or ("of another content model" if model not in ("", "wikitext") else "")
        if kind:
            self.passed[kind] = self.passed.get(kind, 0) + 1
            return None
        title, text = fields.get("title", "").strip(), fields.get("text", "")
        if self._overlong:
            message = f"{title}: markup of more than {MAXIMUM_CHARACTERS:,} characters"
            return Broken("too large", message, self._start, end, preview(text))
        plain = plain_text(text)
        if not plain:
            return Broken("no text", f"{title}: no text beside templates", self._start, end, preview(text))
        metadata = {
            "title": title,
            "page": fields.get("id", "").strip(),
            "date": fields.get("timestamp", "").strip(),
        }
        if self._site and title:
            metadata["url"] = self._site.rpartition("/")[0] + "/" + title.replace(" ", "_")
        return Record(
            f"{title}\n\n{plain}" if title else plain,
            self._start,
            end,
            {name: value for name, value in metadata.items() if value},
        )


def extracted(content: io.BufferedIOBase, encoding: Encoding) -> Iterator[Record | Broken]:
    """Yields the texts between <doc …> and </doc>, which wikiextractor writes, with title and address.

    A text's bytes are those between the tags, so that a range of the file is the text.
    """
    content.read(encoding.mark_bytes)
    offset = encoding.mark_bytes
    attributes: bytes | None = None
    parts: list[bytes] = []
    start = size = 0
    while line := content.readline(_MOST_LINE_BYTES):
        begin, offset = offset, offset + len(line)
        match = _DOCUMENT.fullmatch(line)
        if match:
            if attributes is not None:
                yield _article(attributes, parts, start, begin, encoding)
            attributes, parts, start, size = match.group(1), [], offset, 0
        elif line.strip() == _END and attributes is not None:
            yield _article(attributes, parts, start, begin, encoding)
            attributes = None
        elif attributes is not None:
            size += len(line)
            if size > MAXIMUM_CHARACTERS:
                raise UnreadableError("a <doc> of it does not end", "get the file again")
            parts.append(line)
        elif line.strip():
            yield Broken(
                "broken record",
                f"byte {begin:,}: outside of <doc>",
                begin,
                offset,
                preview(line.decode("utf-8", "replace")),
            )
    if attributes is not None:
        yield _article(attributes, parts, start, offset, encoding)


def _article(
    attributes: bytes, parts: list[bytes], start: int, end: int, encoding: Encoding
) -> Record | Broken:
    data = b"".join(parts)
    try:
        text = data.decode(encoding.name)
    except UnicodeDecodeError as error:
        message = f"byte {start + error.start:,} is not {encoding.name}: {error.reason}"
        return Broken("undecodable", message, start, end, preview(data.decode(encoding.name, "replace")))
    found = {
        name.decode(): html.unescape(value.decode(encoding.name, "replace"))
        for name, value in _ATTRIBUTE.findall(attributes)
    }
    metadata = {"title": found.get("title"), "url": found.get("url"), "page": found.get("id")}
    if "&" in text:  # it escapes what it writes
        text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return Record(text, start, end, {name: value for name, value in metadata.items() if value})
