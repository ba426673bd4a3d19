"""What can be counted in a text: the figures that the rules of quality are thresholds of.

One pass over a text gives all of them, as integers, so that a decision is the same on every machine and a threshold
can be moved later without reading the text again. `native/text.c` does it at some ten megabytes a second; the
Python below gives the same, slowly, where there is no C compiler, and is what the tests compare it with.

Words are cut nearly as spaCy's rules cut English: signs around a word stand alone, don't is do and n't, hyphens
between letters divide. A Chinese character, and a letter of the other scripts without spaces, is a word of its own.
"""

import ctypes
import functools
import itertools
import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8, UInt16

from gristmill.native import library

__all__ = [
    "EXAMINED_BYTES",
    "FEATURES",
    "FUNCTION_WORDS",
    "HAN_STOP_WORDS",
    "STOP_WORDS",
    "character_classes",
    "features",
]

SOURCE = Path(__file__).with_name("native") / "text.c"
EXAMINED_BYTES = 8 << 20
"""Of a longer text the beginning is looked at, so that memory stays bounded."""

FEATURES = {
    "characters": "code points",
    "letters": "of any script, marks among them",
    "digits": "and other numbers",
    "spaces": "white space, line feeds among it",
    "punctuation": "of a Unicode category P",
    "symbols": "of a Unicode category S, and what is not assigned",
    "controls": "control and format characters",
    "latin": "letters of the Latin script",
    "han": "Chinese characters",
    "unspaced": "letters of other scripts that are written without spaces: Kana, Thai, Lao, Khmer, Burmese, Tibetan",
    "simplified": "Chinese characters that only simplified writing has",
    "traditional": "Chinese characters that only traditional writing has",
    "words": "signs that stand alone among them",
    "spelled_words": "words that are no punctuation",
    "spelled_characters": "the characters of these",
    "alphabetic_words": "words with a letter in them",
    "longest_word": "its characters",
    "function_words": "words that no English text goes without, by how often they stand there",
    "stop_words": "how many of Gopher's eight stop words occur",
    "han_stop_words": "how many of eight frequent Chinese characters occur",
    "hashes": "characters #",
    "ellipses": "… and ...",
    "newlines": "line feeds",
    "lines": "what line feeds end",
    "bullet_lines": "lines that begin with • or -",
    "ellipsis_lines": "lines that end with … or ...",
    "paragraphs": "what two line feeds or more divide",
    "repeated_paragraphs": "paragraphs that stood there before",
    "repeated_paragraph_characters": "the characters of these",
    "blocks": "what line feeds, one or more, divide",
    "repeated_blocks": "blocks that stood there before",
    "repeated_block_characters": "the characters of these",
    "written_lines": "lines that are not blank",
    "ended_lines": "of these those that end with a terminal mark, such as . ! ? and 。",
    "short_lines": "of these those of at most 30 characters",
    "repeated_line_characters": "the characters of these in lines that stood there before",
    "top_2": "characters in the most frequent pair of words, wherever it stands",
    "top_3": "the same for three words",
    "top_4": "the same for four words",
    "repeated_5": "characters in runs of five words that stood there before",
    "repeated_6": "the same for six words",
    "repeated_7": "the same for seven words",
    "repeated_8": "the same for eight words",
    "repeated_9": "the same for nine words",
    "repeated_10": "the same for ten words",
    "c4_lines": "lines that C4's rules keep",
    "c4_sentences": "the sentences of these",
    "c4_lorem_ipsum": '1 where such a line says "lorem ipsum"',
    "c4_brackets": "1 where such a line has a {",
    "c4_script_lines": "lines that speak of Javascript",
    "c4_policy_lines": "lines that speak of cookies or terms of use",
}
"""Name -> what is counted. The order is that of the columns."""

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Of Gopher's rule that a text has two of them (Rae et al. 2021, A.1.1)."""
HAN_STOP_WORDS = "的是在不了有之而"
"""Their Chinese counterparts: one or another is in all Chinese prose, modern and classical."""
FUNCTION_WORDS = (
    "the", "of", "and", "to", "a", "in", "i", "is", "that", "it", "was", "for", "with", "as", "his", "her",
    "he", "she", "not", "are", "be", "this", "have", "you", "at", "by", "from", "but", "on", "or",
)  # fmt: skip

SYMBOL, LETTER, MARK, DIGIT, SPACE, PUNCTUATION, HAN, UNSPACED, CONTROL = range(9)
CLASS = 15
SIMPLIFIED, TRADITIONAL, TERMINAL, UPPER, LOWER, PREFIX, SUFFIX, QUOTE, BEFORE_STOP, SIGN, ICON, CURRENCY = (
    1 << bit for bit in range(4, 16)
)
_TERMINALS = ".!?。！？｡．﹒﹖﹗‼‽⁇⁈⁉؟۔։।॥።፧"
_MARKS = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
_CURRENCIES = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
"""The signs that spaCy's rules take off a word, as three lists."""
_UNSPACED = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0xFF66, 0xFF9F),
)
_HAN = ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def features(texts: Sequence[str]) -> Int[np.ndarray, "texts features"]:
    """Returns the figures of each text, a column for each of FEATURES."""
    compiled = library(SOURCE)
    if compiled is None:
        return np.array([_features(text) for text in texts], dtype=np.int64).reshape(
            len(texts), len(FEATURES)
        )
    data, offsets = packed(texts)
    return features_of_buffer(data, offsets)


def features_of_buffer(
    data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]
) -> Int[np.ndarray, "texts features"]:
    """Returns the figures of texts that lie one after the other in UTF-8, as Arrow has them."""
    compiled = library(SOURCE)
    if compiled is None:
        pieces = [data[a:b].tobytes().decode() for a, b in itertools.pairwise(offsets)]
        return np.array([_features(text) for text in pieces], dtype=np.int64).reshape(
            len(pieces), len(FEATURES)
        )
    out = np.empty((len(offsets) - 1, len(FEATURES)), dtype=np.int64)
    stops, functions, han = _lists()
    whole = compiled.gristmill_features(
        address(data), address(offsets), ctypes.c_int64(len(offsets) - 1), address(character_classes()),
        address(stops), ctypes.c_int64(len(stops)), address(functions), ctypes.c_int64(len(functions)),
        address(han), ctypes.c_int64(len(han)), address(out),
    )  # fmt: skip
    if not whole:
        raise MemoryError("counting the features of a text")
    return out


@functools.cache
def character_classes() -> UInt16[np.ndarray, " code_points"]:
    """Returns a class and flags for each code point, from Python's Unicode tables and two national standards.

    A Chinese character that GB 2312 has and Big5 has not is simplified; the other way round it is traditional.
    """
    by_category = {"L": LETTER, "M": MARK, "N": DIGIT, "P": PUNCTUATION, "Z": SPACE, "S": SYMBOL}
    flags = {"Lu": UPPER, "Ll": LOWER, "So": ICON | PREFIX | SUFFIX}
    classes = np.zeros(sys.maxunicode + 1, dtype=np.uint16)
    for first, last in (
        (0, 0xE000),
        (0xF900, 0x323B0),
        (0xE0000, 0xE01F0),
    ):  # what is beyond is private or not assigned
        for point in range(first, last):
            category = unicodedata.category(chr(point))
            kind = by_category.get(category[0], CONTROL if category in ("Cc", "Cf") else SYMBOL)
            classes[point] = kind | flags.get(category, 0) | (SIGN if kind in (PUNCTUATION, CONTROL) else 0)
    for point in range(0x3000):
        if chr(point).isspace():
            classes[point] = SPACE
    for spans, value in ((_UNSPACED, UNSPACED), (_HAN, HAN)):
        for first, last in spans:
            span = classes[first : last + 1]
            span[np.isin(span & CLASS, (LETTER, MARK, DIGIT) if value == HAN else (LETTER, MARK))] = value
    for point in range(0x4E00, 0xA000):
        simplified, traditional = (_encodes(chr(point), codec) for codec in ("gb2312", "big5"))
        if simplified != traditional:
            classes[point] |= SIMPLIFIED if simplified else TRADITIONAL
    for signs, flag in (
        (_TERMINALS, TERMINAL), (_MARKS, PREFIX | SUFFIX | BEFORE_STOP), (_QUOTES, PREFIX | SUFFIX | QUOTE),
        (_CURRENCIES, PREFIX | CURRENCY), ("—–", PREFIX | SUFFIX), ("§%=", PREFIX), ("%²-+|", BEFORE_STOP),
        ("$+<=>^`|~´∶►", SIGN),
    ):  # fmt: skip
        for sign in signs:
            classes[ord(sign)] |= flag
    classes.flags.writeable = False
    return classes


def _encodes(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def packed(texts: Sequence[str]) -> tuple[Any, Any]:
    """Returns texts one after the other in UTF-8, and where each begins, as Arrow has them."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(data) for data in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded) + b"\0", dtype=np.uint8), offsets


def address(array: np.ndarray) -> ctypes.c_void_p:
    """Returns where the numbers of an array lie, for C."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


@functools.cache
def _lists() -> tuple[Any, Any, Any]:
    return (
        np.array([word_hash(word) for word in STOP_WORDS], dtype=np.uint64),
        np.array(sorted(word_hash(word) for word in FUNCTION_WORDS), dtype=np.uint64),
        np.array([ord(character) for character in HAN_STOP_WORDS], dtype=np.uint32),
    )


def word_hash(word: str) -> int:
    """Returns the hash that text.c gives a word."""
    value = 0x9E3779B97F4A7C15
    for character in word:
        value = (value ^ ord(character)) * 0x100000001B3 % (1 << 64)
    return mixed(value)


def mixed(value: int) -> int:
    """Returns a 64-bit number that looks random, for each a different one (the finaliser of a hash function)."""
    for _ in range(2):
        value = (value ^ value >> 32) * 0xD6E8FEB86659FD93 % (1 << 64)
    return value ^ value >> 32


# --- the same in Python ---------------------------------------------------------------------------------------------


def _features(text: str) -> list[int]:
    if len(text) * 4 > EXAMINED_BYTES:
        text = text.encode()[:EXAMINED_BYTES].decode("utf-8", "ignore")
    kinds = [int(character_classes()[ord(c)]) for c in text]
    plain = [kind & CLASS for kind in kinds]
    words = _words(text, kinds)
    count: dict[str, int] = dict.fromkeys(FEATURES, 0)
    count["characters"] = len(text)
    count["letters"] = sum(kind in (LETTER, MARK, HAN, UNSPACED) for kind in plain)
    names = (
        ("digits", DIGIT),
        ("spaces", SPACE),
        ("punctuation", PUNCTUATION),
        ("symbols", SYMBOL),
        ("controls", CONTROL),
    )
    for name, kind in (*names, ("han", HAN), ("unspaced", UNSPACED)):
        count[name] = plain.count(kind)
    count["latin"] = sum(kind == LETTER and ord(c) < 0x250 for c, kind in zip(text, plain, strict=True))
    for name, flag in (("simplified", SIMPLIFIED), ("traditional", TRADITIONAL)):
        count[name] = sum(kind & CLASS == HAN and bool(kind & flag) for kind in kinds)
    count["words"] = len(words)
    spelled = [end - start for start, end, is_spelled, _ in words if is_spelled]
    count["spelled_words"], count["spelled_characters"] = len(spelled), sum(spelled)
    count["longest_word"] = max(spelled, default=0)
    alphabetic = [text[start:end] for start, end, _, is_alphabetic in words if is_alphabetic]
    count["alphabetic_words"] = len(alphabetic)
    short = [word for word in alphabetic if len(word) <= 6]
    count["function_words"] = sum(_ascii_lower(word) in FUNCTION_WORDS for word in short)
    count["stop_words"] = len(set(STOP_WORDS) & set(short))
    count["han_stop_words"] = len(set(HAN_STOP_WORDS) & set(text))
    count["hashes"], count["ellipses"] = text.count("#"), text.count("...") + text.count("…")
    count["newlines"] = text.count("\n")
    _count_lines(text, kinds, words, count)
    pieces = [text[start:end] for start, end, _, _ in words]
    for n in (2, 3, 4):
        count[f"top_{n}"] = _top(pieces, n)
    for n in range(5, 11):
        count[f"repeated_{n}"] = _repeated(pieces, n)
    return list(count.values())


def _ascii_lower(word: str) -> str:
    return "".join(c.lower() if c < "\x80" else c for c in word)


Word = tuple[int, int, bool, bool]


def _words(text: str, kinds: list[int]) -> list[Word]:
    """Returns (start, end, is no punctuation, has a letter) of each word."""
    spans: list[tuple[int, int]] = []
    i = 0
    while i < len(text):
        if _is_blank(kinds[i]):
            i += 1
        elif _is_alone(kinds[i]):
            spans.append((i, i + 1))
            i += 1
        else:
            start = i
            while i < len(text) and not _is_blank(kinds[i]) and not _is_alone(kinds[i]):
                i += 1
            spans += _chunk(text, kinds, start, i)
    return [
        (
            start,
            end,
            any(not kind & SIGN for kind in kinds[start:end]),
            any(kind & CLASS in (LETTER, HAN, UNSPACED) for kind in kinds[start:end]),
        )
        for start, end in spans
    ]


def _chunk(text: str, kinds: list[int], start: int, end: int) -> list[tuple[int, int]]:
    """Cuts what stands between white space, or between Chinese characters, as spaCy does.

    Signs before and after it go one by one, unless a rule of its own says otherwise; then what divides the rest.
    """
    front: list[tuple[int, int]] = []
    back: list[tuple[int, int]] = []
    while start < end and _special(text[start:end], kinds[start:end]) is None:
        before = _prefix(text[start:end], kinds[start:end])
        if (
            before
            and start + before < end
            and _special(text[start + before : end], kinds[start + before : end]) is not None
        ):
            front.append((start, start + before))
            start += before
            continue
        rest = start + before
        after = _suffix(text[rest:end], kinds[rest:end]) if rest < end else 0
        if not before and not after:
            break
        if after:
            back.append((end - after, end))
            if _special(text[start : end - after], kinds[start : end - after]) is not None:
                before = 0
            end -= after
        if before:
            front.append((start, start + before))
            start += before
    if start < end:
        cut = _special(text[start:end], kinds[start:end])
        if cut is not None:
            front += [(start, start + cut)] + ([(start + cut, end)] if start + cut < end else [])
        elif _isaddress(text[start:end], kinds[start:end]):
            front.append((start, end))
        else:
            front += _divided(text, kinds, start, end)
    return front + back[::-1]


def _divided(text: str, kinds: list[int], start: int, end: int) -> list[tuple[int, int]]:
    """Cuts a word at the signs inside it, hyphens for instance."""
    found: list[tuple[int, int]] = []
    at = i = start
    while i < end:
        sign = _infix(text, kinds, start, i, end)
        if sign and i > start:
            found += ([(at, i)] if i > at else []) + [(i, i + sign)]
            at = i + sign
        i += sign or 1
    return found + ([(at, end)] if at < end else [])


def _is_blank(kind: int) -> bool:
    return kind & CLASS in (SPACE, CONTROL)


def _is_alone(kind: int) -> bool:
    return kind & CLASS in (HAN, UNSPACED)


def _is_alnum(kind: int) -> bool:
    return kind & CLASS in (LETTER, DIGIT, MARK)


def _is_alpha(kind: int) -> bool:
    return kind & CLASS in (LETTER, MARK)


_ABBREVIATIONS = frozenset([
    "Adm.", "Ak.", "Ala.", "Apr.", "Ariz.", "Ark.", "Aug.", "Bros.", "Calif.", "Co.", "Colo.", "Conn.",
    "Corp.", "D.C.", "Dec.", "Del.", "Dr.", "E.G.", "E.g.", "Feb.", "Fla.", "Ga.", "Gen.", "Gov.", "I.E.",
    "I.e.", "Ia.", "Id.", "Ill.", "Inc.", "Ind.", "Jan.", "Jr.", "Jul.", "Jun.", "Kan.", "Kans.", "Ky.",
    "La.", "Ltd.", "Mar.", "Mass.", "Md.", "Messrs.", "Mich.", "Minn.", "Miss.", "Mo.", "Mont.", "Mr.",
    "Mrs.", "Ms.", "Mt.", "N.C.", "N.D.", "N.H.", "N.J.", "N.M.", "N.Y.", "Neb.", "Nebr.", "Nev.", "Nov.",
    "Oct.", "Okla.", "Ore.", "Pa.", "Ph.D.", "Prof.", "Rep.", "Rev.", "S.C.", "Sen.", "Sep.", "Sept.",
    "St.", "Tenn.", "Va.", "Wash.", "Wis.", "a.m.", "co.", "e.g.", "i.e.", "p.m.", "v.s.", "vs.", "and/or",
])  # fmt: skip
_UNITS = frozenset(
    [
        "km",
        "m",
        "dm",
        "cm",
        "mm",
        "ha",
        "nm",
        "yd",
        "in",
        "ft",
        "kg",
        "g",
        "mg",
        "t",
        "lb",
        "oz",
        "m/s",
        "km/h",
        "kmh",
        "mph",
        "hPa",
        "Pa",
        "mbar",
        "mb",
        "MB",
        "kb",
        "KB",
        "gb",
        "GB",
        "tb",
        "TB",
        "T",
        "G",
        "M",
        "K",
        "%",
    ]
)
_CONTRACTION = re.compile("(.+?)([nN]['’][tT]|['’](?:[dDmM]|[rR][eE]|[vV][eE]|[lL][lL]))", re.DOTALL)


def _special(chunk: str, kinds: list[int]) -> int | None:
    """Where a chunk with a rule of its own is cut (its length: not at all), or None where it has none."""
    if not 2 <= len(chunk) <= 12:
        return None
    if chunk in _ABBREVIATIONS or (len(chunk) == 2 and "a" <= chunk[0] <= "z" and chunk[1] == "."):
        return len(chunk)
    if chunk in ("cannot", "Cannot"):
        return 3
    found = _CONTRACTION.fullmatch(chunk)
    if found and all(kind & CLASS == LETTER for kind in kinds[: found.end(1)]):
        return found.end(1)
    return None


def _prefix(chunk: str, kinds: list[int]) -> int:
    if chunk[0] == ".":
        dots = len(chunk) - len(chunk.lstrip("."))
        return dots if dots > 1 else 0
    if chunk[0] == "+":
        return int(not "0" <= chunk[1:2] <= "9")
    return int(bool(kinds[0] & PREFIX))


def _suffix(chunk: str, kinds: list[int]) -> int:
    last, before = chunk[-1], chunk[-2:-1]
    follows_digit = "0" <= before <= "9"
    if last == ".":
        dots = len(chunk) - len(chunk.rstrip("."))
        if dots > 1:
            return dots
        if not before:
            return 0
        if follows_digit or kinds[-2] & (LOWER | BEFORE_STOP | QUOTE):
            return 1
        return int(len(chunk) > 2 and bool(kinds[-2] & UPPER) and bool(kinds[-3] & UPPER))
    if kinds[-1] & SUFFIX:
        return 1
    if last in "sS" and before and before in "'’":
        return 2
    if follows_digit and (last == "+" or kinds[-1] & CURRENCY):
        return 1
    for size in (4, 3, 2, 1):
        if len(chunk) > size and "0" <= chunk[-size - 1] <= "9" and chunk[-size:] in _UNITS:
            return size
    return 0


def _isaddress(chunk: str, kinds: list[int]) -> bool:
    """Whether it is scheme://…, or names divided by stops, the last of two letters or more, then perhaps : or / ."""
    label, labels, letters, i = 0, 0, True, 0
    for i, c in enumerate(chunk):
        if chunk.startswith("://", i):
            return i > 1
        if c == "@" and i > 0 and labels + letters > 0:
            label, labels, letters = i + 1, 0, True
            continue
        if c in ":/":
            break
        if c == ".":
            if i == label:
                return False
            label, labels, letters = i + 1, labels + 1, True
        elif not _is_alnum(kinds[i]) and c not in "-_":
            return False
        elif kinds[i] & CLASS != LETTER:
            letters = False
    else:
        i = len(chunk)
    return labels > 0 and letters and i - label >= 2


def _infix(text: str, kinds: list[int], start: int, i: int, end: int) -> int:
    """The length of the sign at i that divides a chunk, or 0."""
    c = text[i]
    if c == ".":
        j = i
        while j < end and text[j] == ".":
            j += 1
        if j - i > 1:
            return j - i
        inside = i > start and i + 1 < end
        return int(inside and bool(kinds[i - 1] & (LOWER | QUOTE)) and bool(kinds[i + 1] & (UPPER | QUOTE)))
    if c == "…" or kinds[i] & ICON:
        return 1
    if i == start or i + 1 >= end:
        return 0
    if c in "+-*^" and "0" <= text[i - 1] <= "9" and (text[i + 1] == "-" or "0" <= text[i + 1] <= "9"):
        return 1
    if c == ",":
        return int(_is_alpha(kinds[i - 1]) and _is_alpha(kinds[i + 1]))
    if c in "-–—~" and _is_alnum(kinds[i - 1]):
        j = i + 1
        while j < end and j < i + {"-": 3, "—": 2}.get(c, 1) and text[j] == c:
            j += 1
        return j - i if j < end and _is_alpha(kinds[j]) else 0
    return int(c in ":<>=/" and _is_alnum(kinds[i - 1]) and _is_alpha(kinds[i + 1]))


def _top(pieces: list[str], n: int) -> int:
    """Characters of the most frequent n-gram, spaces between the words counted, times how often it stands there."""
    found: dict[tuple[str, ...], int] = {}
    for i in range(len(pieces) - n + 1):
        found[tuple(pieces[i : i + n])] = found.get(tuple(pieces[i : i + n]), 0) + 1
    if not found:
        return 0
    best = max(found, key=lambda gram: found[gram])
    return found[best] * (sum(map(len, best)) + n - 1)


def _repeated(pieces: list[str], n: int) -> int:
    """Characters in n-grams that stood there before, none counted twice."""
    seen: set[tuple[str, ...]] = set()
    total, i = 0, 0
    while i + n <= len(pieces):
        gram = tuple(pieces[i : i + n])
        if gram in seen:
            total += sum(map(len, gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return total


def _twice(pieces: Sequence[str]) -> tuple[int, int]:
    """How many stood there before, and their characters."""
    again = [piece for piece, first in zip(pieces, _first_places(pieces), strict=True) if not first]
    return len(again), sum(map(len, again))


def _first_places(pieces: Sequence[str]) -> list[bool]:
    seen: set[str] = set()
    return [not (piece in seen or seen.add(piece)) for piece in pieces]  # type: ignore[func-returns-value]


def _count_lines(text: str, kinds: list[int], words: list[Word], count: dict[str, int]) -> None:
    lines, start = [], 0
    for line in text.split("\n") if text else []:
        lines.append((start, start + len(line)))
        start += len(line) + 1
    if text.endswith("\n"):
        lines.pop()
    count["lines"] = len(lines)
    written = []
    for start, end in lines:
        first, last = start, end
        while first < last and kinds[first] & CLASS == SPACE:
            first += 1
        while last > first and kinds[last - 1] & CLASS == SPACE:
            last -= 1
        if first == last:
            continue
        bare = text[first:last]
        count["bullet_lines"] += bare[0] in "•-"
        count["ellipsis_lines"] += bare.endswith(("…", "..."))
        written.append(text[start:end])
        count["ended_lines"] += bool(kinds[end - 1] & TERMINAL)
        count["short_lines"] += end - start <= 30
        inside = [word for word in words if first <= word[0] < last]
        _c4_line(text, kinds, first, last, inside, count)
    count["written_lines"], count["repeated_line_characters"] = len(written), _twice(written)[1]
    if not text:
        return
    blocks = re.split("\n+", text)
    if text.startswith("\n"):
        blocks[0] = ""
    count["blocks"] = len(blocks)
    count["repeated_blocks"], count["repeated_block_characters"] = _twice(blocks)
    begin, stop = 0, len(text)
    while begin < stop and kinds[begin] & CLASS == SPACE:
        begin += 1
    while stop > begin and kinds[stop - 1] & CLASS == SPACE:
        stop -= 1
    paragraphs = re.split("\n{2,}", text[begin:stop])
    count["paragraphs"] = len(paragraphs)
    count["repeated_paragraphs"], count["repeated_paragraph_characters"] = _twice(paragraphs)


_CITATIONS = re.compile(r"(?:\[[0-9]*\]|\[[eE][dD][iI][tT]\]|\[citation needed\])+$")
_POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


def _c4_line(
    text: str, kinds: list[int], start: int, end: int, words: list[Word], count: dict[str, int]
) -> None:
    """The rules of C4 for one line without the white space around it (Raffel et al. 2020, 2.2)."""
    pieces, longest, run = 0, 0, 0
    for i in range(start, end):
        kind = kinds[i] & CLASS
        if kind == SPACE:
            run = 0
        else:
            pieces += run == 0 or kind in (HAN, UNSPACED)
            run = 1 if kind == HAN else run + 1
            longest = max(longest, run)
    if longest > 1000:
        return
    line = _CITATIONS.sub("", text[start:end])
    stop = start + len(line)
    if not line:
        return
    is_ended = kinds[stop - 1] & TERMINAL or line[-1] in "\"'”」；"
    if not is_ended or line.endswith("...") or pieces < 3:
        return
    lower = _ascii_lower(line)
    count["c4_brackets"] |= "{" in line
    count["c4_lorem_ipsum"] |= "lorem ipsum" in lower
    if "javascript" in lower:
        count["c4_script_lines"] += 1
        return
    if any(phrase in lower for phrase in _POLICIES):
        count["c4_policy_lines"] += 1
        return
    count["c4_lines"] += 1
    is_ending = True
    for first, _, is_spelled, _ in words:
        if first >= stop:
            break
        is_sign = not is_spelled
        if is_sign and kinds[first] & TERMINAL:
            is_ending = True
        elif is_ending and not is_sign:
            count["c4_sentences"] += 1
            is_ending = False
