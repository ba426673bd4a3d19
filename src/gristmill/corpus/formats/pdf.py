"""PDF: the text layer as pypdf finds it, its lines joined to paragraphs again.

A PDF says where letters stand, not what a paragraph is. What is undone here: running heads and page numbers (lines at the
edge of a third of the pages that differ in digits only), line breaks in full lines, hyphens at line ends. A page whose
lines look like verse or a table keeps its lines.
"""

import collections
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.formats.common import (
    Block,
    Broken,
    Record,
    Row,
    join_blocks,
    join_lines,
    one_line,
)

__all__ = ["document", "paragraphs"]

MAXIMUM_OPERATORS = 20_000_000
"""Of all pages together; a page of prose has some thousands. pypdf's own limits hold for a page."""
MAXIMUM_CHARACTERS = 128 << 20
_LIMITS = {
    "zlib_maximum_output_length": 64 << 20,
    "lzw_maximum_output_length": 64 << 20,
    "array_based_stream_maximum_output_length": 64 << 20,
    "xform_maximum_invocations_per_extraction": 1_000,
}
_BEGINNING_BYTES = 1024
_DATE = re.compile(r"D:(\d{4})(\d{2})?(\d{2})?")

_EDGE_LINES = 3
_LEAST_PAGES = 3
_RUNNING_SHARE = 1 / 3
_LEAST_LEFT = 0.5  # of a page's lines: where less would be left, they are no running lines
_NUMBERS = re.compile(r"\d+|(?<![A-Za-z])[ivxlcIVXLC]+(?![A-Za-z])")
_FULL_SHARE = 0.8  # of the width of a page's long lines: beyond it, a line was broken because the page ended
_LEAST_COLUMNS = 40  # narrower lines are verse, slides, cells
_VERSE_SHARE = 0.8  # of the lines begin with a capital; in prose a fifth do
_DIGIT_SHARE = 0.25  # lines with more are rows of a table
_ITEM = re.compile(
    r"\s*(?:[•·▪■●○◦‣–—*\-]\s|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)、．]|[（(][一二三四五六七八九十]+[)）]"
    r"|[一二三四五六七八九十]+、|第[一二三四五六七八九十百千\d]+[章节節条條款])"
)
_LEADERS = re.compile(r"(?:\. ?){5}|…{2}|·{5}")  # of a table of contents
_HYPHEN = re.compile(r"[^\W\d_]-$")


class _TooMuchError(Exception):
    """The document takes more work than any honest one does."""


def document(content: io.BufferedIOBase) -> Record | Broken:
    """Returns the text of a PDF, with its title, date and number of pages.

    Raises:
        UnreadableError: it is none, is damaged beyond what pypdf repairs, or is protected with a password.
    """
    import pypdf

    size = content.seek(0, io.SEEK_END)
    content.seek(0)
    if b"%PDF-" not in content.read(_BEGINNING_BYTES):
        raise UnreadableError("it is no PDF, or its beginning is lost", "get the file again")
    content.seek(0)
    with pypdf.apply_configuration(**_LIMITS):
        try:
            reader = pypdf.PdfReader(content)
            if reader.is_encrypted and not reader.decrypt(""):
                raise UnreadableError("it is protected with a password", "save it without one")
            pages, unreadable = _pages(reader)
            metadata = _metadata(reader)
        except UnreadableError:
            raise
        except _TooMuchError as error:
            return Broken("too large", str(error), 0, size, "")
        except Exception as error:  # of a library that is given what anybody wrote
            if type(error).__name__ == "DependencyError":  # AES without the package `cryptography`
                raise UnreadableError(
                    f"it is encrypted: {one_line(error)}", 'pip install "gristmill[documents]"'
                ) from None
            raise UnreadableError(
                f"pypdf can't read it: {type(error).__name__}: {one_line(error)}",
                "open it and print it to a new PDF",
            ) from None
    metadata["pages"] = len(pages)
    if unreadable == len(pages) > 0:
        raise UnreadableError("none of its pages can be read", "open it and print it to a new PDF")
    if unreadable:
        metadata["unreadable_pages"] = unreadable
    empty = sum(not page.strip() for page in pages)
    if empty == len(pages):
        return Broken(
            "no text layer (a scan?)",
            f"{len(pages)} pages without text: recognise it (OCR) first",
            0,
            size,
            "",
        )
    if empty > unreadable:
        metadata["pages_without_text"] = empty - unreadable
    return Record(paragraphs(pages), 0, size, metadata)


def paragraphs(pages: Sequence[str]) -> str:
    """Returns the text of pages, line by line as they were set, in paragraphs."""
    lines = [[line.rstrip() for line in page.split("\n") if line.strip()] for page in pages]
    blocks: list[list[str]] = []
    goes_on = False
    for page in _without_running_lines(lines):
        width = _width(page)
        for line in page:
            if goes_on and not _ITEM.match(line):
                _append(blocks[-1], line.strip())
            else:
                blocks.append([line.strip()])
            goes_on = bool(width) and _columns(line) >= _FULL_SHARE * width and not _is_row(line)
    return join_blocks(Block("".join(block)) for block in blocks)


def _pages(reader: Any) -> tuple[list[str], int]:
    """Returns the text of each page, and how many could not be read."""
    texts: list[str] = []
    unreadable = characters = operators = 0

    def count(*_: object) -> None:
        nonlocal operators
        operators += 1
        if operators > MAXIMUM_OPERATORS:
            raise _TooMuchError(f"more than {MAXIMUM_OPERATORS:,} drawing operators")

    for page in reader.pages:
        try:
            text = page.extract_text(visitor_operand_before=count)
        except (_TooMuchError, MemoryError):
            raise
        except Exception:  # one page is broken: the others are not
            unreadable += 1
            text = ""
        count()  # what it raises within a form is swallowed there
        characters += len(text)
        if characters > MAXIMUM_CHARACTERS:
            raise _TooMuchError(f"more than {MAXIMUM_CHARACTERS:,} characters")
        texts.append(text)
    return texts, unreadable


def _metadata(reader: Any) -> Row:
    metadata: Row = {}
    try:
        information = reader.metadata or {}
        title = str(information.get("/Title") or "").strip()
        date = _DATE.match(str(information.get("/CreationDate") or ""))
    except Exception:  # a title is not worth a document
        return metadata
    if title:
        metadata["title"] = title[:1000]
    if date:
        metadata["date"] = "-".join(part for part in date.groups() if part)
    return metadata


def _without_running_lines(pages: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yields the lines of each page without the heads and feet that many pages have."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for page in pages:
        counts.update({("head", _key(line)) for line in page[:_EDGE_LINES]})
        counts.update({("foot", _key(line)) for line in page[-_EDGE_LINES:]})
    least = max(_LEAST_PAGES, _RUNNING_SHARE * len(pages))
    for page in pages:
        first, last = 0, len(page)
        while first < min(_EDGE_LINES, last) and counts["head", _key(page[first])] >= least:
            first += 1
        while last > max(first, len(page) - _EDGE_LINES) and counts["foot", _key(page[last - 1])] >= least:
            last -= 1
        yield list(page[first:last] if last - first >= _LEAST_LEFT * len(page) else page)


def _key(line: str) -> str:
    return _NUMBERS.sub("#", " ".join(line.split()))


def _width(lines: Sequence[str]) -> int:
    """The columns of a page's long lines, 0 where lines are kept as they are."""
    if len(lines) < 2:
        return 0
    starts = [line.lstrip()[:1] for line in lines]
    if sum(start.isupper() for start in starts) > _VERSE_SHARE * len(lines):
        return 0
    width = sorted(map(_columns, lines))[int(0.9 * (len(lines) - 1))]
    return width if width >= _LEAST_COLUMNS else 0


def _columns(line: str) -> int:
    return len(line) if line.isascii() else sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line)


def _is_row(line: str) -> bool:
    return bool(_LEADERS.search(line)) or sum(character.isdigit() for character in line) > _DIGIT_SHARE * len(
        line
    )


def _append(block: list[str], line: str) -> None:
    if _HYPHEN.search(block[-1]) and line[:1].islower():
        block[-1] = block[-1][:-1]
    elif len(join_lines(f"{block[-1][-1:]}\n{line[:1]}")) > 2:  # a space stands between the two
        block.append(" ")
    block.append(line)
