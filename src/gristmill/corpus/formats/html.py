"""Web pages: their main text as trafilatura finds it, and the encoding that they are in rather than say they are.

Recall is favoured: what is wrongly kept, rules and duplicates can still remove; what is left out here is lost.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Any

from gristmill.corpus.decode import Encoding, UnreadableError, common_share, detect
from gristmill.corpus.formats.common import Broken, Record, Row, join_lines, one_line, preview

__all__ = ["MAXIMUM_PAGE_BYTES", "document", "encoding_of", "main_text"]

MAXIMUM_PAGE_BYTES = 8 << 20
"""Longer pages are refused."""
MAXIMUM_TAGS = 400_000
"""And so are those of more tags: it is they that take time (half a minute then) and memory (half a gigabyte)."""

_HEAD_BYTES = 4096  # the standard asks for the declaration in the first 1024
_DECLARATION = re.compile(
    rb"""<(?:meta\b[^>]*?charset|\?xml\b[^>]*?encoding)\s*=\s*["']?\s*([\w.:\-]+)""", re.I
)
# What the labels of web pages mean is the superset that their software used (WHATWG Encoding Standard).
_MEANINGS = {
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "gb18030": ("gb18030",),
    "big5": ("cp950", "big5hkscs"),
    "cp950": ("cp950", "big5hkscs"),
    "big5hkscs": ("big5hkscs", "cp950"),
    "ascii": ("cp1252", "latin-1"),
    "iso8859-1": ("cp1252", "latin-1"),
    "iso8859-9": ("cp1254",),
    "tis-620": ("cp874",),
    "shift_jis": ("cp932",),
    "euc_kr": ("cp949",),
}
_ALIASES = {"x-gbk": "gbk", "gb_2312-80": "gb2312", "x-sjis": "shift_jis", "ks_c_5601-1987": "euc_kr"}
_TEXT_CODEC = re.compile(
    r"(utf-8|utf-16(-[lb]e)?|gb|hz|big5|cp\d|iso8859|iso2022|koi8|shift_jis|euc|mac|johab|tis).*"
)
_CHINESE = ("gb18030", "cp950", "big5", "big5hkscs")
_SEVERAL_BYTES = (*_CHINESE, "hz", "cp932", "cp949", "johab", "euc", "iso2022", "utf")
_LEAST_LEAD = (
    2.0  # the declared one of GB18030 and Big5 is a lie where the other has twice its common characters
)
_MOST_DAMAGE = 0.02  # of the characters beyond ASCII: a page is not lost for one that was cut in two

_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_PREFORMATTED = re.compile(r"<(/?)(?:pre|listing|textarea)\b", re.I)
_ROOT = re.compile(r"<(?:html|body)\b", re.I)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
# Where trafilatura finds no article it takes all that a short page shows: fields and buttons are no text.
_SHORT_CHARACTERS = 250
_SENTENCE_CHARACTERS, _LINE_CHARACTERS = 40, 100  # with punctuation, and without
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_WIDE_COUNTS = 3  # a Chinese character says as much as three letters
_PUNCTUATION = re.compile("[,.!?;:…，。！？；：、]")


def document(
    page: bytes, encoding: Encoding, start: int = 0, end: int | None = None, url: str | None = None
) -> Record | Broken:
    """Returns the main text of a page, with its title, address, date and licence where it names them.

    `start` and `end` are the bytes that the page takes in its file; by default it is the file.
    """
    begin = start + encoding.mark_bytes if end is None else start
    last = start + len(page) if end is None else end
    text = page[encoding.mark_bytes :].decode(encoding.name, "replace")
    if (tags := text.count("<")) > MAXIMUM_TAGS:
        return Broken("too large", f"a page of {tags:,} tags", begin, last, preview(text))
    try:
        found = main_text(text, url)
    except Exception as error:  # of a library that is given what anybody wrote
        message = f"trafilatura can't read the page: {type(error).__name__}: {one_line(error)}"
        return Broken("broken page", message, begin, last, preview(text))
    if found is None or (len(found[0]) < _SHORT_CHARACTERS and not _has_sentence(found[0])):
        seen = "" if found is None else found[0]
        return Broken(
            "no text",
            "the page has no main text (a login page, a menu, a script?)",
            begin,
            last,
            preview(seen),
        )
    return Record(found[0], begin, last, found[1])


def main_text(page: str, url: str | None = None) -> tuple[str, Row] | None:
    """Returns the main text of a page and what it says of itself, or None where it has none."""
    from trafilatura import bare_extraction

    page = _unwrapped(_CONTROL.sub("", _XML_DECLARATION.sub("", page)))
    if not _ROOT.search(page):  # a fragment is taken for no HTML at all
        page = f"<html><body><div>{page}</div></body></html>"
    found: Any = bare_extraction(
        page,
        url=url,
        favor_recall=True,
        include_comments=False,
        with_metadata=True,
        # Only what the page states, and not by today's date: the same page gives the same record next year.
        date_extraction_params={"extensive_search": False, "original_date": True, "max_date": "2200-01-01"},
    )
    if found is None or not (found.text or "").strip():
        return None
    fields = {"title": found.title, "url": url or found.url, "date": found.date, "license": found.license}
    return found.text.strip() + "\n", {name: value for name, value in fields.items() if value}


def encoding_of(page: bytes, declared: str | None = None) -> Encoding:
    """Returns the encoding of a page; `declared` is the charset that its HTTP header names, if there was one.

    UTF-8 proves itself and needs no declaration. Another encoding that is declared is taken where it decodes all of the
    page, unless it is one of single bytes (these decode anything) and the bytes read as Chinese, or it is one of GB18030
    and Big5 and the page clearly reads as the other. Otherwise it is found out as for a text.

    Raises:
        UnreadableError: no decoder takes it, or what comes out is no text.
    """
    names = list(_declared(page, declared))
    if page.isascii() and b"\x1b" not in page and b"~{" not in page:
        return Encoding("utf-8", 0, "ASCII")
    guess, refused = None, None
    try:
        guess = detect(page, complete=True)
    except UnreadableError as error:
        refused = error
    if guess is not None and (guess.mark_bytes or guess.evidence == "valid UTF-8"):
        return guess
    for name in names:
        if _decodes(page, name):
            if guess is not None and _is_lie(page, name, guess):
                break
            return Encoding(name, 0, "declared by the page")
    if guess is not None and guess.evidence != "ASCII":
        seen = f"; it declares {names[0]}" if names else ""
        return guess._replace(evidence=guess.evidence + seen)
    for name in [*names, "utf-8"]:
        damage = _damage(page, name)
        if damage <= _MOST_DAMAGE:
            return Encoding(name, 0, f"{damage:.2%} of the characters beyond ASCII are damaged")
    if refused is not None:
        raise refused
    return Encoding("utf-8", 0, "ASCII")


def _unwrapped(page: str) -> str:
    """Returns a page whose lines break at its tags only: within a paragraph a line feed means a space."""
    parts: list[str] = []
    begin, within = 0, False
    for match in _PREFORMATTED.finditer(page):
        opens = not match.group(1)
        if opens == within:  # one in another, or an end without a beginning
            continue
        parts.append(page[begin : match.start()] if within else join_lines(page[begin : match.start()]))
        begin, within = match.start(), opens
    parts.append(page[begin:] if within else join_lines(page[begin:]))
    return "".join(parts)


def _has_sentence(text: str) -> bool:
    return any(
        len(line) + (_WIDE_COUNTS - 1) * len(_WIDE.findall(line))
        >= (_SENTENCE_CHARACTERS if _PUNCTUATION.search(line) else _LINE_CHARACTERS)
        and not line.lower().startswith(("©", "copyright", "版权"))
        for line in map(str.strip, text.split("\n"))
    )


def _declared(page: bytes, header: str | None) -> Iterator[str]:
    """Yields the codecs that a page is declared to be in, the surest first, each once."""
    labels = [header] if header else []
    labels += [match.group(1).decode("latin-1") for match in _DECLARATION.finditer(page[:_HEAD_BYTES])]
    seen = set()
    for label in labels:
        label = label.strip().strip("\"'").lower()
        try:
            codec = codecs.lookup(_ALIASES.get(label, label)).name
        except (LookupError, ValueError):
            continue
        for name in _MEANINGS.get(codec, (codec,)):
            if name not in seen and _TEXT_CODEC.fullmatch(name):
                seen.add(name)
                yield name


def _is_lie(page: bytes, name: str, guess: Encoding) -> bool:
    if guess.evidence == "ASCII":  # of ISO-2022-JP and HZ
        return False
    if name in _CHINESE:
        same = (name == "gb18030") == (guess.name == "gb18030")
        return not same and _share(page, guess.name) >= _LEAST_LEAD * _share(page, name)
    return not name.startswith(_SEVERAL_BYTES)


def _share(page: bytes, name: str) -> float:
    return common_share(page.decode(name, "replace"))


def _decodes(page: bytes, name: str) -> bool:
    try:
        page.decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _damage(page: bytes, name: str) -> float:
    """The share of what can't be decoded among the characters beyond ASCII."""
    text = page.decode(name, "replace")
    beyond = sum(not character.isascii() for character in text)
    return text.count("\ufffd") / beyond if beyond else 0.0
