"""Word files (.docx): what a reader sees, from top to bottom; and what to do about those that are none.

A .docx is a zip of XML parts. Read here, not by a library, because a part may expand to anything: what is decompressed is
counted while it is read. Paragraphs, headings, lists with their numbers, tables (a line a row), text boxes, foot- and
endnotes are kept; deleted and hidden text, field codes, tables of contents, page heads and comments are not.
Format: ECMA-376 part 1 (WordprocessingML).
"""

import contextlib
import io
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.formats.common import Block, Broken, Record, Row, join_blocks, one_line
from gristmill.corpus.formats.numbering import Numbering, read_numbering
from gristmill.corpus.formats.xml_events import End, Readable, Start, Text, events

__all__ = ["document"]

MAXIMUM_BYTES = 192 << 20
"""Of all parts that are read, decompressed: a novel takes ten, a bomb gigabytes."""
_MAXIMUM_PARTS = 100_000

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_WORD = (
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "http://purl.oclc.org/ooxml/wordprocessingml/main",
)
_MATH = (
    "http://schemas.openxmlformats.org/officeDocument/2006/math",
    "http://purl.oclc.org/ooxml/officeDocument/math",
)
_PREFIXES = {
    **dict.fromkeys(_WORD, "w:"),
    **dict.fromkeys(_MATH, "m:"),
    "http://schemas.openxmlformats.org/markup-compatibility/2006": "mc:",
}
_SKIPPED = (
    "w:del",
    "w:moveFrom",
    "w:rt",
    "mc:Fallback",
    "w:sectPr",
    "w:pPrChange",
    "w:rPrChange",
    "w:numberingChange",
)
"""Elements whose text nobody sees: deleted, moved away, how a character is read, what older programs show instead."""
_SIGNS = {"w:br": "\n", "w:cr": "\n", "w:tab": "\t", "w:ptab": "\t", "w:noBreakHyphen": "-"}
_CONTENTS = re.compile(r"(?:toc|目录|目錄)\s*\d*", re.I)
_OFF = ("0", "false", "off", "none")


class _Style(NamedTuple):
    name: str
    parent: str | None
    number: tuple[str, int] | None


class _Paragraph:
    """A paragraph while it is read."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.runs: list[bool] = []
        """Of each run that is open whether it is hidden."""
        self.style: str | None = None
        self.number: str | None = None
        self.level: int | None = None


def document(content: io.BufferedIOBase) -> Record | Broken:
    """Returns the text of a Word file, with its title and date.

    Raises:
        UnreadableError: it is none, is damaged, is protected with a password, or expands to more than is sane.
    """
    size = content.seek(0, io.SEEK_END)
    content.seek(0)
    beginning = content.read(8192)
    if beginning.startswith(_OLE):
        content.seek(0)
        if "EncryptedPackage".encode("utf-16-le") in content.read(1 << 20):
            raise UnreadableError("it is protected with a password", "save it without one")
        raise UnreadableError("it is a file of an old Word (.doc)", "open it and save it as .docx")
    if not beginning.startswith(b"PK"):
        kind = "RTF" if beginning.startswith(b"{\\rtf") else "no Word file"
        raise UnreadableError(f"it is {kind}, whatever its ending says", "open it and save it as .docx")
    content.seek(0)
    try:
        package = _Package(content)
        text = _text(package)
        metadata = _metadata(package)
    except (
        zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, KeyError, ValueError, struct.error,
    ) as error:  # fmt: skip
        raise UnreadableError(f"it is no whole Word file: {one_line(error)}", "get the file again") from None
    if not text:
        return Broken("no text", "a document without text (pictures only?)", 0, size, "")
    return Record(text, 0, size, metadata)


# --- the package ----------------------------------------------------------------------------------------------------


class _Package:
    """The parts of a file, of which no more is decompressed than `MAXIMUM_BYTES`."""

    def __init__(self, content: io.BufferedIOBase) -> None:
        self._zip = zipfile.ZipFile(content)
        self._left = MAXIMUM_BYTES
        names = self._zip.namelist()
        if len(names) > _MAXIMUM_PARTS:
            raise UnreadableError(f"it has {len(names):,} parts", "leave the file out with exclude")
        self._names = set(names)

    def has(self, name: str) -> bool:
        return name in self._names

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Readable]:
        if self._zip.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableError("it is compressed as no Word file is", "open it and save it anew")
        with self._zip.open(name) as part:
            yield _Counted(part, self)

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise UnreadableError(
                f"it expands to more than {MAXIMUM_BYTES >> 20} MiB", "leave the file out with exclude"
            )

    def related(self, part: str) -> dict[str, str]:
        """Returns the parts that a part refers to, by the last word of their relation (styles, numbering, …)."""
        folder, name = posixpath.split(part)
        relations = posixpath.join(folder, "_rels", f"{name}.rels")
        found: dict[str, str] = {}
        if self.has(relations):
            with self.open(relations) as stream:
                for event in events(stream):
                    if isinstance(event, Start) and event.name.endswith(" Relationship"):
                        kind = event.attributes.get("Type", "").rpartition("/")[2]
                        target = posixpath.normpath(
                            posixpath.join("/", folder, event.attributes.get("Target", ""))
                        )
                        found.setdefault(kind, target.lstrip("/"))
        return {kind: target for kind, target in found.items() if self.has(target)}


class _Counted:
    """A part whose bytes are counted as they come, for a header can say anything."""

    def __init__(self, part: Readable, package: _Package) -> None:
        self._part = part
        self._package = package

    def read(self, size: int, /) -> bytes:
        data = self._part.read(size)
        self._package.spend(len(data))
        return data


def _text(package: _Package) -> str:
    main = package.related("").get("officeDocument", "word/document.xml")
    if not package.has(main):
        raise UnreadableError("it is a zip, but no Word file", "unpack it")
    parts = package.related(main)
    body = _Body(_styles(package, parts.get("styles")), _numbering(package, parts.get("numbering")))
    with package.open(main) as stream:
        body.read(stream)
    for kind in ("footnotes", "endnotes"):
        if kind in parts and body.notes[kind]:
            with package.open(parts[kind]) as stream:
                body.read_notes(stream, kind)
    return join_blocks(body.blocks)


def _numbering(package: _Package, name: str | None) -> Numbering:
    if name is None:
        return Numbering({}, {}, {})
    with package.open(name) as stream:
        return read_numbering(events(stream))


def _styles(package: _Package, name: str | None) -> dict[str, _Style]:
    styles: dict[str, _Style] = {}
    if name is None:
        return styles
    key, title, parent, number, level = "", "", None, None, 0
    with package.open(name) as stream:
        for event in events(stream):
            if isinstance(event, Text):
                continue
            tag = event.name.rpartition(" ")[2]
            if isinstance(event, End):
                if tag == "style" and key:
                    styles[key] = _Style(title, parent, (number, level) if number else None)
                continue
            value = _attribute(event, "val")
            if tag == "style":
                key, title, parent, number, level = _attribute(event, "styleId"), "", None, None, 0
            elif tag == "name":
                title = value
            elif tag == "basedOn":
                parent = value
            elif tag == "numId":
                number = value
            elif tag == "ilvl":
                level = _number(value)
    return styles


def _metadata(package: _Package) -> Row:
    name = package.related("").get("core-properties")
    metadata: Row = {}
    if name is None:
        return metadata
    tag = ""
    fields: dict[str, str] = {}
    with package.open(name) as stream:
        for event in events(stream):
            if isinstance(event, Start):
                tag = event.name.rpartition(" ")[2]
            elif isinstance(event, End):
                tag = ""
            elif tag in ("title", "created", "modified"):
                fields[tag] = fields.get(tag, "") + event.text
    if fields.get("title", "").strip():
        metadata["title"] = fields["title"].strip()[:1000]
    date = fields.get("created") or fields.get("modified")
    if date:
        metadata["date"] = date.strip()[:10]
    return metadata


# --- the text -------------------------------------------------------------------------------------------------------


class _Body:
    """The text of a document while its events pass."""

    def __init__(self, styles: dict[str, _Style], numbering: Numbering) -> None:
        self.blocks: list[Block] = []
        self.notes: dict[str, dict[str, int]] = {"footnotes": {}, "endnotes": {}}
        """Number in the text of each note that is referred to."""
        self._styles = styles
        self._numbering = numbering
        self._paragraphs: list[_Paragraph] = []
        self._tables: list[list[list[Block]]] = []
        """Of each table that is open the cells of its row, of each cell the blocks."""
        self._skipping = 0
        self._in_text = False

    def read(self, stream: Readable) -> None:
        for event in events(stream):
            self._take(event)

    def read_notes(self, stream: Readable, kind: str) -> None:
        """Takes the notes that are referred to, each with its number before it."""
        known = self.notes[kind]
        outside, self.blocks = self.blocks, []
        key: str | None = None
        for event in events(stream):
            name = "" if isinstance(event, Text) else event.name.rpartition(" ")[2]
            if name in ("footnote", "endnote"):
                if isinstance(event, Start):
                    key = _attribute(event, "id")
                    self.blocks = []
                elif key in known:
                    text = "\n".join(block.text.strip() for block in self.blocks)
                    outside.append(Block(f"[{known[key]}] {text}", "notes"))
            self._take(event)
        self.blocks = outside

    def _take(self, event: Start | End | Text) -> None:
        if isinstance(event, Text):
            if self._in_text and not self._skipping and self._paragraphs:
                paragraph = self._paragraphs[-1]
                if not any(paragraph.runs[-1:]):
                    paragraph.parts.append(event.text)
            return
        space, _, local = event.name.rpartition(" ")
        name = _PREFIXES.get(space, "?:") + local
        if name in _SKIPPED:
            self._skipping += 1 if isinstance(event, Start) else -1
        elif not self._skipping:
            if isinstance(event, Start):
                self._start(name, event)
            else:
                self._end(name)

    def _start(self, name: str, event: Start) -> None:
        if name == "w:p":
            self._paragraphs.append(_Paragraph())
        elif name in ("w:t", "m:t"):
            self._in_text = True
        elif name == "w:tbl":
            self._tables.append([])
        elif name == "w:tr" and self._tables:
            self._tables[-1] = []
        elif name == "w:tc" and self._tables:
            self._tables[-1].append([])
        elif self._paragraphs:
            self._within(name, event, self._paragraphs[-1])

    def _within(self, name: str, event: Start, paragraph: _Paragraph) -> None:
        if name == "w:r":
            paragraph.runs.append(False)
        elif paragraph.runs:
            if name in _SIGNS:
                paragraph.parts.append(_SIGNS[name])
            elif name == "w:vanish":
                paragraph.runs[-1] = _attribute(event, "val") not in _OFF
            elif name in ("w:footnoteReference", "w:endnoteReference"):
                notes = self.notes[name[2:-9] + "s"]
                number = notes.setdefault(_attribute(event, "id"), sum(map(len, self.notes.values())) + 1)
                paragraph.parts.append(f"[{number}]")
        elif name == "w:pStyle":
            paragraph.style = _attribute(event, "val")
        elif name == "w:numId":
            paragraph.number = _attribute(event, "val")
        elif name == "w:ilvl":
            paragraph.level = _number(_attribute(event, "val"))

    def _end(self, name: str) -> None:
        if name == "w:p" and self._paragraphs:
            self._finish(self._paragraphs.pop())
        elif name == "w:r" and self._paragraphs:
            del self._paragraphs[-1].runs[-1:]
        elif name in ("w:t", "m:t"):
            self._in_text = False
        elif name == "w:tr" and self._tables:
            self._finish_row(self._tables[-1])
        elif name == "w:tbl" and self._tables:
            self._tables.pop()

    def _finish(self, paragraph: _Paragraph) -> None:
        text = "".join(paragraph.parts).strip("\n")
        styles = list(self._lineage(paragraph.style))
        if not text.strip() or any(_CONTENTS.fullmatch(style.name) for style in styles):
            return
        inherited = next((style.number for style in styles if style.number), None)
        number = paragraph.number or (inherited[0] if inherited else None)
        level = paragraph.level if paragraph.level is not None else inherited[1] if inherited else 0
        label = self._numbering.label(number, level) if number else None
        if label is None:
            self._put(Block(text))
        else:
            self._put(Block(f"{label} {text.lstrip()}".strip(), "" if _is_heading(styles) else "list"))

    def _lineage(self, style: str | None) -> Iterator[_Style]:
        for _ in range(20):  # a style may name itself as its parent
            if style is None or style not in self._styles:
                return
            yield self._styles[style]
            style = self._styles[style].parent

    def _put(self, block: Block) -> None:
        cells = self._tables[-1] if self._tables else None
        if cells:
            cells[-1].append(block)
        else:
            self.blocks.append(block)

    def _finish_row(self, cells: list[list[Block]]) -> None:
        """Puts a row where its table stands: cells side by side, or the blocks of the only one that has any."""
        filled = [cell for cell in cells if cell]
        self._tables[-1] = []
        outer = self._tables[-2] if len(self._tables) > 1 else None
        target = outer[-1] if outer else self.blocks
        if len(filled) == 1:
            target.extend(filled[0])
        elif filled:
            texts = (" ".join(" ".join(block.text.split()) for block in cell) for cell in cells)
            target.append(Block(" | ".join(texts).strip(), "table"))


def _is_heading(styles: list[_Style]) -> bool:
    return any(style.name.lower().startswith(("heading", "title", "标题", "標題")) for style in styles)


def _attribute(event: Start, name: str) -> str:
    """Returns an attribute by its name without its namespace, "" where there is none."""
    for key, value in event.attributes.items():
        if key.rpartition(" ")[2] == name:
            return value
    return ""


def _number(value: str) -> int:
    return int(value) if re.fullmatch("[0-9]{1,2}", value) else 0
