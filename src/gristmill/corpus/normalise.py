r"""Text as it should have been written: one form for what looks the same, and nothing that nobody can see.

What is repaired, in this order, and counted by these names:

    surrogates     halves of UTF-16 pairs (from JSON escapes) are joined, lone ones become U+FFFD
    mojibake       UTF-8 that was read as Latin-1, Windows-1252 and the like ("â€™", "Ã©"), line by line, by ftfy
    line_endings   \r\n, \r, form feeds and the Unicode line separators become \n
    control        control characters, terminal colours and byte order marks go
    nfc            composed characters (Unicode NFC)
    edges          blank lines before the text and white space behind it go; one final newline stays

White space at the end of inner lines is kept: in Markdown it is a line break, in a benchmark it is counted.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["CHANGES", "Normalised", "digest_of", "normalise"]

_CONTROL_BYTES = bytes([*range(9), *range(11, 32), 127])
_CONTROL = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
_LATE_CONTROL = re.compile("[\x80-\x9f]")
_LINE_ENDS = "\r\x0b\x0c\x85\u2028\u2029"
_LINE_END = re.compile(f"\r\n|[{_LINE_ENDS}]")
# The lead byte of a UTF-8 sequence and one that continues it, as Latin-1 or Windows-1252 show them (both in UTF-8
# here); then three pairs from other code pages, and control characters that Windows-1252 has letters for. ftfy's own
# test reads 2 MB/s; these let through the few lines that deserve it. Each begins with one literal byte: that is fast.
_SUSPECTS = tuple(
    re.compile(pattern)
    for pattern in (
        rb"\xc3[\x82-\xb4](?:\xc2|\xc5[\x92\x93\xa0\xa1\xb8\xbd\xbe]|\xc6\x92|\xcb[\x86\x9c]|\xe2(?:\x80|\x82\xac|\x84\xa2))",
        rb"\xd0\xb2\xd0\x82",
        rb"\xce\x93\xc3\x87",
        rb"\xe2\x80\x9a\xc3\x84",
        rb"\xc2[\x80-\x9f]",
    )
)


_NOTHING: frozenset[str] = frozenset()
_EDGES = frozenset({"edges"})


class Normalised(NamedTuple):
    """A text in its normal form, and the names of what was changed to get there."""

    text: str
    changed: frozenset[str]


def normalise(text: str) -> Normalised:
    """Returns the normal form of a text. Normalising twice changes nothing more.

    One repair can uncover another (a control character inside a broken sequence), so the steps are repeated
    until nothing changes. They end: every step but NFC shortens the text or takes characters out of it that no
    step puts back.
    """
    if _is_clean(text):
        trimmed = _trim(text)
        return Normalised(trimmed, _NOTHING if trimmed is text else _EDGES)
    return _repaired(text)


def digest_of(text: str) -> bytes:
    """Returns the 16 bytes that a text is known by: of its SHA-256, without the white space around it.

    An indented first line (of Chinese paragraphs, two ideographic spaces) makes no other text.
    """
    return hashlib.sha256(text.strip().encode()).digest()[:16]


def _is_clean(text: str) -> bool:
    """Whether there is nothing to do but at the edges, as with nearly all texts: quick to see in their bytes."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return False
    if len(data.translate(None, _CONTROL_BYTES)) < len(data):
        return False
    if len(data) == len(text):  # ASCII
        return True
    if b"\xe2\x80\xa8" in data or b"\xe2\x80\xa9" in data or b"\xef\xbb\xbf" in data:
        return False
    if _has_leads(data) and any(suspect.search(data) for suspect in _SUSPECTS):
        return False
    return unicodedata.is_normalized("NFC", text)


def _has_leads(data: bytes) -> bool:
    """Whether one of the bytes is there that are in every suspect."""
    return b"\xc3" in data or b"\xc2" in data or b"\xd0\x82" in data


def _repaired(text: str) -> Normalised:
    changed: set[str] = set()
    while True:
        before = text
        for name, step in _STEPS.items():
            after = step(text)
            if after != text:  # a step that finds nothing returns the object it was given: this costs nothing
                changed.add(name)
                text = after
        if text == before:
            return Normalised(text, frozenset(changed))


def _join_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _repair_mojibake(text: str) -> str:
    if text.isascii():
        return text
    data = text.encode()
    if not _has_leads(data):
        return text
    starts = {
        data.rfind(b"\n", 0, match.start()) + 1 for suspect in _SUSPECTS for match in suspect.finditer(data)
    }
    pieces, done = [], 0
    for start in sorted(starts):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        pieces += [data[done:start], _repair_line(data[start:end].decode()).encode()]
        done = end
    return b"".join([*pieces, data[done:]]).decode() if pieces else text


def _repair_line(line: str) -> str:
    import ftfy  # 60 ms: only when a line looks broken
    import ftfy.badness

    return ftfy.fix_encoding(line) if ftfy.badness.is_bad(line) or _LATE_CONTROL.search(line) else line


def _unify_line_endings(text: str) -> str:
    return _LINE_END.sub("\n", text) if any(end in text for end in _LINE_ENDS) else text


def _remove_controls(text: str) -> str:
    data = text.encode()
    late = not text.isascii() and (
        b"\xef\xbb\xbf" in data or (b"\xc2" in data and _LATE_CONTROL.search(text))
    )
    if not late and len(data.translate(None, _CONTROL_BYTES)) == len(data):
        return text
    return _CONTROL.sub("", text)


def _compose(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def _trim(text: str) -> str:
    body = text.rstrip()
    if not body:
        return ""
    final = "\n" if "\n" in text[len(body) :] else ""
    indent = len(body) - len(body.lstrip())
    start = body.rfind("\n", 0, indent) + 1
    if start == 0 and len(body) + len(final) == len(text):
        return text
    return body[start:] + final


_STEPS: dict[str, Callable[[str], str]] = {
    "surrogates": _join_surrogates,
    "mojibake": _repair_mojibake,
    "line_endings": _unify_line_endings,
    "control": _remove_controls,
    "nfc": _compose,
    "edges": _trim,
}

CHANGES = tuple(_STEPS)
"""The names of what can be changed."""
