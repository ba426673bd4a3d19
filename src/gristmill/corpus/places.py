"""From a place in a normalised text back to the byte of the file that it came from."""

from gristmill.corpus.files import SourceFile
from gristmill.corpus.normalise import normalise
from gristmill.corpus.read import Layout, read_range

__all__ = ["byte_in_source", "byte_of_character"]


def byte_in_source(
    file: SourceFile, layout: Layout, start: int, end: int, text: str, place: int
) -> int | None:
    """Returns the byte of a plain text file behind which the text goes on after `place` characters.

    None where there is no such byte: a row of a table is not cut by cutting its text.

    Args:
        file: that the document is in.
        layout: of the file.
        start: the byte where the document begins in it.
        end: the byte behind the document.
        text: the normalised text of the document.
        place: characters of the text before the place in question.
    """
    raw = read_range(file, layout, start, end)
    if raw is None or layout.encoding is None:
        return None
    low = place
    if raw != text:
        low = _shortest(raw, place)
        low += raw[low - 1 : low + 1] == "\r\n"
        if _beginning(raw[:low]) != text[:place]:
            return None
    return start + len(raw[:low].encode(layout.encoding.name))


def byte_of_character(
    file: SourceFile, layout: Layout, start: int, end: int, text: str, place: int
) -> int | None:
    """Returns the byte where the character of a text stands that has `place` others before it.

    The same as `byte_in_source` but for what was taken out before the character, white space for instance.
    """
    raw = read_range(file, layout, start, end)
    if raw is None or layout.encoding is None or place >= len(text):
        return byte_in_source(file, layout, start, end, text, place)
    low = place
    if raw != text:
        low = _shortest(raw, place + 1) - 1
        if low < 0 or _beginning(raw[: low + 1])[: place + 1] != text[: place + 1]:
            return None
    return start + len(raw[:low].encode(layout.encoding.name))


def _shortest(raw: str, characters: int) -> int:
    """How long the shortest beginning of a source is that gives so many characters of text."""
    low, high = 0, len(raw)
    while low < high:
        middle = (low + high) // 2
        if len(_beginning(raw[:middle])) < characters:
            low = middle + 1
        else:
            high = middle
    return low


def _beginning(raw: str) -> str:
    """The normal form of a text that goes on: what follows keeps the white space at its end."""
    return normalise(raw + "x").text[:-1]
