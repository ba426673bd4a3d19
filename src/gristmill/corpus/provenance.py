"""From a token back to the file that it came from, and what was decided on the way.

A token of the shards has a document, the document a key: its unit of work and its row there. One row group of that unit's
texts is read, some megabytes, so the way back takes milliseconds whatever the size of the corpus.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.edits import Edit, read_edits
from gristmill.corpus.files import SourceFile, find_files
from gristmill.corpus.places import byte_of_character
from gristmill.corpus.read import inspect
from gristmill.corpus.shards import TokenStore
from gristmill.corpus.store import Corpus, StoredText
from gristmill.errors import InputError

__all__ = ["Trace", "as_json", "document_of_token", "trace"]

LICENCES = ("license", "licence", "rights", "copyright")
"""Under which names of metadata a licence stands."""


class Trace(NamedTuple):
    """Where a piece of a document came from."""

    id: str
    source: str
    group: str
    start: int
    """Where the record of the document begins in the decompressed file, in bytes; in a parquet file, its row."""
    end: int
    licence: str | None
    metadata: dict[str, Any]
    split: str
    byte: int | None
    """Where in that file the piece begins, where it is plain text and the way back is exact."""
    text_byte: int | None
    """Where in the document's text it begins, in bytes of UTF-8 after all edits."""
    edits: list[Edit]
    """What was replaced in the document."""
    duplicates: list[dict[str, Any]]
    """Documents that were dropped because this one has them: id, reason and cover."""


def document_of_token(store: TokenStore, position: int) -> tuple[int, int]:
    """Returns the document of a stored token, and how many stored tokens of it stand before (the first is bos).

    Raises:
        InputError: there is no such token.
    """
    total = int(store.offsets[-1])
    if not 0 <= position < total:
        raise InputError(
            f"there is no token {position:,}: the split has {total:,}", "tokens are counted from 0"
        )
    document = int(np.searchsorted(store.offsets, position, side="right")) - 1
    return document, position - int(store.offsets[document])


def trace(corpus: Corpus, key: int, before: bytes | None = None) -> Trace:
    """Returns where a document came from.

    Args:
        corpus: that it belongs to.
        key: of the document.
        before: the text of the document that stands before the piece in question, as tokens decode to; None asks for
            the document as a whole.

    Raises:
        InputError: the corpus has no such document.
    """
    stored = corpus.stored(key)
    edits = list(read_edits(corpus.artifact.path, stored.unit).get(stored.row, []))
    place = None if before is None else len(before)
    return Trace(
        id=stored.id, source=stored.source, group=stored.group, start=stored.start, end=stored.end,
        licence=next((str(stored.metadata[n]) for n in stored.metadata if n.lower() in LICENCES), None),
        metadata=stored.metadata, split=stored.split,
        byte=None if place is None else _in_file(corpus, stored, edits, place), text_byte=place, edits=edits,
        duplicates=list(corpus.superfluous_beside(key)),
    )  # fmt: skip


def _in_file(corpus: Corpus, stored: StoredText, edits: Sequence[Edit], place: int) -> int | None:
    """The byte of the source where a byte of the edited text begins."""
    text, shift = stored.text.encode(), 0
    for edit in edits:  # back over what was replaced before it
        size = len(edit.replacement.encode())
        if edit.start + shift + size > place:
            break
        shift += size - (edit.end - edit.start)
    raw_place = place - shift
    file = _file_of(stored.source)
    if file is None or not 0 <= raw_place <= len(text):
        return None
    try:
        layout = inspect(file, corpus.reading)
        # a token may begin inside a character: the character is where it belongs
        character = len(text[:raw_place].decode("utf-8", "ignore"))
        return byte_of_character(file, layout, stored.start, stored.end, stored.text, character)
    except (UnreadableError, InputError, OSError):
        return None


def _file_of(name: str) -> SourceFile | None:
    try:
        return find_files([name]).files[0]
    except InputError:
        return None  # it was moved since


def as_json(found: Trace) -> dict[str, Any]:
    """Returns a trace as JSON values."""
    table: dict[str, Any] = json.loads(json.dumps(found._asdict(), default=str))
    table["edits"] = [edit._asdict() for edit in found.edits]
    return table
