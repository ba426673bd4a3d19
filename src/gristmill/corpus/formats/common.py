"""What all readers share: a record, what takes its place when there is none, and how a document is put together."""

import io
import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from gristmill.corpus.decode import UnreadableError

__all__ = [
    "Block",
    "Broken",
    "Record",
    "Row",
    "join_blocks",
    "join_lines",
    "one_line",
    "preview",
    "read_whole",
]

Row = dict[str, Any]

# Between these no space is written: Chinese and Japanese characters and their punctuation.
_WIDE = "\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_IS_WIDE = re.compile(f"[{_WIDE}]")


class Record(NamedTuple):
    """A text as it stands in its file, decoded and nothing else."""

    text: str
    start: int
    end: int
    metadata: Row
    repairs: tuple[str, ...] = ()
    """What had to be done to read it at all, by the names that it is counted by."""
    note: str = ""
    """The same in words where somebody should know."""


class Broken(NamedTuple):
    """A row that gives no record, and why."""

    reason: str
    message: str
    start: int
    end: int
    preview: str


class Block(NamedTuple):
    """A paragraph, a heading or the like; of a list or a table one line."""

    text: str
    group: Literal["", "list", "table", "notes"] = ""
    """What it is a part of; lines of the same follow each other without a blank line."""


def join_blocks(blocks: Iterable[Block]) -> str:
    """Returns a text of blocks with a blank line between them, but none within a list or a table."""
    parts: list[str] = []
    group = ""
    for block in blocks:
        if not block.text.strip():
            continue
        if parts:
            parts.append("\n" if group and group == block.group else "\n\n")
        parts.append(block.text.rstrip())
        group = block.group
    return "".join(parts) + "\n" if parts else ""


def join_lines(text: str) -> str:
    """Returns a wrapped paragraph in one line: with a space for a line break, with none between Chinese characters."""
    parts: list[str] = []
    for line in text.split("\n"):
        line = line.strip(" \t\r")
        if not line:
            continue
        if parts and not (_IS_WIDE.match(parts[-1][-1]) and _IS_WIDE.match(line)):
            parts.append(" ")
        parts.append(line)
    return "".join(parts)


def read_whole(content: io.BufferedIOBase, most: int) -> bytes:
    """Returns all that is left of a stream, which is one document.

    Raises:
        UnreadableError: it is more than `most` bytes.
    """
    data = content.read(most + 1)
    if len(data) > most:
        raise UnreadableError(
            f"it is one document of more than {most >> 20} MiB", "divide it, or save it as plain text"
        )
    return data


def one_line(error: object) -> str:
    """Returns what an error says, in one line of moderate length."""
    return " ".join(str(error).split())[:300]


def preview(text: str) -> str:
    """Returns the beginning of a text, in one line."""
    return " ".join(text[:200].split())[:80]
