"""Personal data in texts: where it is, and the texts without it.

What is found is told as spans; nothing is taken out of a text until it is read (`replace`). A batch of texts is searched
for triggers first, all at once with numpy: runs of digits of a telling shape, an @, a long token, a word such as
"password". Only there are the rules of `private_rules` tried. So a text without any costs next to nothing.

Names are found by whoever knows them: `Names` has a list, a model that marks names is another `Tagger`.
"""

import bisect
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from gristmill.corpus import private_rules as rules
from gristmill.corpus.features import packed
from gristmill.corpus.private_fakes import FOLD, fake
from gristmill.errors import InputError

__all__ = [
    "DEFAULT_KINDS",
    "KINDS",
    "Found",
    "Method",
    "Names",
    "Span",
    "Tagger",
    "find_spans",
    "replace",
    "spans_of_buffer",
    "to_characters",
]

KINDS = {
    "secret": "keys, tokens and passwords: known prefixes, private key blocks, a value behind a word that announces it",
    "url_user": "user and password in a URL",
    "email": "e-mail addresses",
    "iban": "international bank account numbers, by length and check digits",
    "bank_card": "payment cards, by issuer, length and check digit",
    "id_number": "identity numbers: China, Taiwan, Hong Kong, Spain and Brazil by check digit; US and UK by form",
    "ip": "public IP addresses",
    "ip_local": "IP addresses that are private, local or for documentation",
    "plate": "Chinese number plates",
    "passport": "passport numbers behind a word that announces them",
    "account": "QQ and WeChat accounts behind such a word",
    "phone": "telephone numbers: China, North America, Britain, France, and any with a country's code",
    "address": "street addresses, English and Chinese",
    "name": "names of persons, as a list or a tagger knows them",
}
"""Kind -> what it is. Where two overlap, the one that stands first here is kept."""
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != "ip_local")
Method = Literal["mask", "surrogate"]

_NAMES = tuple(KINDS)
_PIECE_BYTES, _MARGIN_BYTES = 1 << 20, 8192


class Span(NamedTuple):
    """Personal data in a text: its place in characters."""

    kind: str
    start: int
    end: int
    evidence: str = "tagger"
    """What makes it so: check digit, form, word before, list or tagger."""


class Found(NamedTuple):
    """The spans of many texts, in their order; they do not overlap."""

    documents: Int[np.ndarray, " spans"]
    """Which text."""
    kinds: UInt8[np.ndarray, " spans"]
    """Which of KINDS."""
    starts: Int[np.ndarray, " spans"]
    """Bytes of UTF-8 before it in its text."""
    ends: Int[np.ndarray, " spans"]
    evidence: UInt8[np.ndarray, " spans"]
    """Which of private_rules.EVIDENCE."""


Tagger = Callable[[str], Iterable[Span]]
"""Marks spans in a text, in characters."""


def find_spans(text: str, kinds: Sequence[str] = DEFAULT_KINDS, taggers: Sequence[Tagger] = ()) -> list[Span]:
    """Returns the personal data in a text, in its order, without overlaps.

    Raises:
        InputError: a kind is not one of KINDS.
    """
    found = spans_of_buffer(*packed([text]), kinds, taggers)
    return to_characters(text, found.kinds, found.starts, found.ends, found.evidence)


def to_characters(
    text: str,
    kinds: Int[np.ndarray, " spans"] | UInt8[np.ndarray, " spans"],
    starts: Int[np.ndarray, " spans"],
    ends: Int[np.ndarray, " spans"],
    evidence: Int[np.ndarray, " spans"] | UInt8[np.ndarray, " spans"],
) -> list[Span]:
    """Returns the spans of one text, in characters, from what `spans_of_buffer` says of it in bytes."""
    if text.isascii():
        places = list(zip(starts.tolist(), ends.tolist(), strict=True))
    else:
        data = text.encode()
        borders = sorted({*starts.tolist(), *ends.tolist()})
        lengths = (len(data[a:b].decode()) for a, b in itertools.pairwise([0, *borders]))
        characters = dict(zip(borders, itertools.accumulate(lengths), strict=True))
        places = [(characters[a], characters[b]) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    return [
        Span(_NAMES[kind], a, b, rules.EVIDENCE[why])
        for kind, (a, b), why in zip(kinds.tolist(), places, evidence.tolist(), strict=True)
    ]


def replace(text: str, spans: Iterable[Span], method: Method, key: bytes = b"") -> str:
    """Returns the text with something else in the place of each span, which may not overlap.

    "mask" writes the kind: `[EMAIL]`. "surrogate" writes a value of the same shape that belongs to nobody, where such are
    known; the same value always becomes the same surrogate under one key, and can't be found from it without the key.
    """
    if method == "surrogate" and not key:
        raise InputError(
            "surrogates need a key: without a secret one anybody can undo them",
            "pass key=secrets.token_bytes(32)",
        )
    pieces, done = [], 0
    for span in sorted(spans, key=lambda span: span.start):
        if span.start < done:
            raise InputError(
                f"two spans overlap at character {span.start}", "find_spans gives spans that do not"
            )
        value = text[span.start : span.end]
        pieces += [
            text[done : span.start],
            f"[{span.kind.upper()}]" if method == "mask" else fake(span.kind, value, key),
        ]
        done = span.end
    return "".join([*pieces, text[done:]])


class Names:
    """A tagger that knows a list of names: "Jane Doe", "王小明", "Doe"."""

    def __init__(self, names: Iterable[str]) -> None:
        """Takes names as they are written; where a script has spaces they are found as whole words."""
        self._by_start: dict[str, set[str]] = {}
        for name in names:
            if len(name.strip()) > 1:
                self._by_start.setdefault(name.strip()[:2], set()).add(name.strip())
        self._lengths = {
            start: sorted({len(name) for name in names}, reverse=True)
            for start, names in self._by_start.items()
        }

    def __call__(self, text: str) -> Iterator[Span]:
        """Yields the names in a text, the longest where several begin."""
        lengths, by_start, done = self._lengths, self._by_start, 0
        for place, two in enumerate(map("".join, itertools.pairwise(text))):
            if two not in lengths or place < done:
                continue
            for length in lengths[two]:
                end = place + length
                if text[place:end] in by_start[two] and _is_whole(text, place, end):
                    yield Span("name", place, end, "list")
                    done = end
                    break


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether no word is cut, where words are divided by spaces."""
    return not (
        (start > 0 and _is_spelled(text[start - 1]) and _is_spelled(text[start]))
        or (end < len(text) and _is_spelled(text[end - 1]) and _is_spelled(text[end]))
    )


def _is_spelled(c: str) -> bool:
    return c.isalnum() and c < "\u2e80"


# --- triggers -------------------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """The rules of one trigger, and how many bytes around it they may look at."""

    rules: tuple[rules.Rule, ...]
    before: int
    after: int


_GROUPS = {
    "numbers": _Group(rules.NUMBERS, 24, 80),
    "context": _Group(rules.CONTEXT, 120, 80),
    "codes": _Group(rules.CODES, 120, 120),
    "ips": _Group(rules.IPS, 64, 80),
    "addresses": _Group(rules.ADDRESSES, 80, 200),
    "han": _Group(rules.HAN_ADDRESSES, 130, 160),
    "mail": _Group(rules.MAIL, 200, 260),
    "blocks": _Group(rules.BLOCKS, 64, 8000),
    "tokens": _Group(rules.TOKENS, 8, 2400),
    "assigned": _Group(rules.ASSIGNED, 40, 140),
}
_TRIGGERS = tuple(_GROUPS)


def _table(characters: bytes) -> Bool[np.ndarray, " bytes"]:
    table = np.zeros(256, dtype=bool)
    table[list(characters)] = True
    return table


_UPPERS = bytes(range(65, 91))
_ALNUMS = _UPPERS + bytes(range(97, 123)) + bytes(range(48, 58))
_IS_DIGIT, _IS_UPPER, _IS_ALNUM = _table(bytes(range(48, 58))), _table(_UPPERS), _table(_ALNUMS)
_IS_HEX = _table(b"0123456789abcdefABCDEF")
_IS_SEPARATOR = _table(b" -.()/\xc2\xa0")
_TOKEN_BYTES = 16
_MONTHS = np.array([int.from_bytes(m.encode(), "big") for m in ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")])  # fmt: skip
_HAN_UNITS = np.array([int.from_bytes(c.encode(), "big") for c in "号號弄栋棟幢座单單层層楼樓室巷组"])
_HAN_NUMERALS = np.array([int.from_bytes(c.encode(), "big") for c in "一二三四五六七八九十百〇零"])
_HAN_SIGNS = np.array([int.from_bytes(c.encode(), "big") for c in "号號"])
_LONG = 19
_SHAPES = (
    (3, 4, 4), (3, 3, 4), (1, 3, 3), (2, 3, 4), (2, 11, None), (3, 7, None), (3, 8, None), (4, 7, None), (4, 8, None), (4, 3, 4),
    (4, 4, 4), (4, 6, 4), (4, 6, 5), (6, 13, None), (6, 8, 3), (6, 8, 4), (3, 3, 3), (3, 2, 4), (5, 5, None), (5, 6, None),
    (5, 3, 3), (4, 3, 3), (3, 4, 3), (2, 2, 2), (4, 6, None), (2, 4, 4), (3, 3, 2),
)  # fmt: skip
"""How many digits stand in three runs that follow each other, in the numbers which the rules know."""


@functools.cache
def _shape_table() -> Bool[np.ndarray, "first second third"]:
    table = np.zeros((_LONG + 1,) * 3, dtype=bool)
    table[9:] = True
    for first, second, third in _SHAPES:
        table[first, second, slice(None) if third is None else third] = True
    return table


_DIGIT, _AT, _COLON, _EQUALS, _SIGN = range(1, 6)
_CLASSES = bytes(
    _DIGIT if 48 <= i < 58 else {0x40: _AT, 0x3A: _COLON, 0x3D: _EQUALS, 0xE5: _SIGN, 0xE8: _SIGN}.get(i, 0)
    for i in range(256)
)
_IN_TOKENS = _table(_ALNUMS + b"_-.+/=").tobytes()
_IS_QUOTE = _table(b" \"'`")
_WIDE_COLON = "：".encode()
_WORD_ENDS = np.array(
    [
        int.from_bytes(end.encode(), "big")
        for end in (
            "ord",
            "pwd",
            "swd",
            "ode",
            "ase",
            "ret",
            "ken",
            "key",
            "码",
            "碼",
            "令",
            "号",
            "號",
            "信",
            "hat",
            "xin",
            " id",
        )
    ]
)
"""Of rules.ASSIGNED's words: password, passwd, passcode, passphrase, secret, token, key, 密码, 微信号, wechat …"""


def _triggers(chunk: bytes) -> tuple[Int[np.ndarray, " triggers"], Int[np.ndarray, " triggers"]]:
    """Returns where rules are to be tried, and which. The chunk begins and ends with eight zero bytes or more."""
    data = np.frombuffer(chunk, dtype=np.uint8)
    classes = np.frombuffer(chunk.translate(_CLASSES), dtype=np.uint8)
    found: dict[str, list[Any]] = {name: [] for name in _TRIGGERS}
    found["mail"].append(np.flatnonzero(classes == _AT))
    found["tokens"].append(_long_tokens(chunk))
    colons = np.flatnonzero(classes == _COLON)
    _find_sixes(data, colons, found)
    wide = np.flatnonzero(data == _WIDE_COLON[0])
    wide = wide[_three(data, wide) == int.from_bytes(_WIDE_COLON, "big")]
    _find_announced(data, np.concatenate([colons, np.flatnonzero(classes == _EQUALS), wide]), found)
    found["blocks"].append(_places(chunk, b"PRIVATE KEY"))
    _find_han_numerals(data, np.flatnonzero(classes == _SIGN), found)
    digits = np.flatnonzero(classes == _DIGIT)
    if len(digits):
        _find_numbers(data, digits, found)
    joined = {name: np.concatenate([np.array([], np.int64), *parts]) for name, parts in found.items()}
    places = np.concatenate(list(joined.values()))
    kinds = np.repeat(np.arange(len(joined)), [len(part) for part in joined.values()])
    order = np.lexsort((kinds, places))
    return places[order], kinds[order]


def _places(chunk: bytes, word: bytes) -> Any:
    places, place = [], chunk.find(word)
    while place >= 0:
        places.append(place)
        place = chunk.find(word, place + 1)
    return np.array(places, dtype=np.int64)


def _long_tokens(chunk: bytes) -> Any:
    """Returns where tokens begin that are long and have what keys begin with.

    A run of 15 characters or more fills three aligned blocks of four, which are compared as one number each.
    """
    mask = chunk.translate(_IN_TOKENS)
    full = np.frombuffer(mask, dtype=np.uint32, count=len(mask) // 4) == 0x01010101
    places, end = [], 0
    for place in (4 * np.flatnonzero(full[:-2] & full[1:-1] & full[2:])).tolist():
        if place >= end:
            start, end = mask.rfind(b"\0", 0, place) + 1, mask.find(b"\0", place)
            if end - start >= _TOKEN_BYTES and rules.KEY_STARTS.search(chunk, start, end):
                places.append(start)
    return np.array(places, dtype=np.int64)


def _find_sixes(data: Any, colons: Any, found: dict[str, list[Any]]) -> None:
    if len(colons):
        near = np.diff(colons, prepend=-9, append=colons[-1] + 9) <= 5
        first = colons[~near[:-1] & near[1:]]
        first = first[
            _IS_HEX[data[first - 1]]
            & _IS_HEX[data[first - 2]]
            & _IS_HEX[data[first - 3]]
            & _IS_HEX[data[first - 4]]
        ]
        found["ips"].append(first - 4)


def _find_announced(data: Any, signs: Any, found: dict[str, list[Any]]) -> None:
    """Finds words such as "password" before a colon or an equals sign, where one or two signs may stand between."""
    for _ in range(2):
        signs = np.where(_IS_QUOTE[data[signs - 1]], signs - 1, signs)
    ends = _three(data, signs - 3) | np.where(_IS_UPPER[data[signs - 1]], 0x202020, 0)  # PASSWORD
    found["assigned"].append(signs[np.isin(ends, _WORD_ENDS) | np.isin(_three(data, signs - 3), _WORD_ENDS)])


def _find_han_numerals(data: Any, lead: Any, found: dict[str, list[Any]]) -> None:
    """Finds addresses whose number is written in words: 中山路十二号."""
    at = lead[np.isin(_three(data, lead), _HAN_SIGNS)]
    at = at[np.isin(_three(data, at - 3), _HAN_NUMERALS)]
    for _ in range(5):
        at = np.where(np.isin(_three(data, np.maximum(at - 3, 0)), _HAN_NUMERALS), at - 3, at)
    found["han"].append(at)


def _three(data: Any, places: Any) -> Any:
    """The three bytes at each place as one number: a Chinese character."""
    return data[places].astype(np.int64) << 16 | data[places + 1].astype(np.int64) << 8 | data[places + 2]


def _find_numbers(data: Any, digits: Any, found: dict[str, list[Any]]) -> None:
    breaks = np.flatnonzero(np.diff(digits) > 1)
    starts = digits[np.concatenate([[0], breaks + 1])]
    ends = digits[np.concatenate([breaks, [len(digits) - 1]])] + 1
    lengths = ends - starts
    gaps = np.concatenate([starts[1:], [len(data)]]) - ends
    joined = (gaps <= 3) & _IS_SEPARATOR[data[ends]]
    joined &= (gaps < 2) | _IS_SEPARATOR[data[ends + 1]]
    joined &= (gaps < 3) | _IS_SEPARATOR[data[ends + 2]]
    before, after = data[starts - 1], data[ends]
    opened = (before == ord("+")) | (before == ord("("))

    clipped = np.minimum(lengths, _LONG)
    second = np.where(joined, np.append(clipped[1:], 0), 0)
    third = np.where(second > 0, np.append(second[1:], 0), 0)
    shaped = _shape_table()[clipped, second, third] | (opened & (clipped + second + third > 3))
    twice = opened & ((data[starts - 2] == ord("+")) | (data[starts - 2] == ord("(")))
    found["numbers"] += [starts[shaped], (starts - 1)[shaped & opened], (starts - 2)[shaped & twice]]

    first = ~np.concatenate([[False], joined[:-1]])
    enough = clipped + second + third > 4
    found["context"].append((starts - opened)[(first | opened | (lengths > 8)) & enough])

    dotted = (gaps == 1) & (after == ord("."))
    quads = (
        dotted[:-3] & dotted[1:-2] & dotted[2:-1] & (lengths[:-3] <= 3)
        if len(starts) > 3
        else np.array([], bool)
    )
    found["ips"].append(starts[: len(quads)][quads])
    _find_codes(data, starts, ends, lengths, found)
    _find_addresses(data, starts, ends, lengths, found)


def _find_codes(data: Any, starts: Any, ends: Any, lengths: Any, found: dict[str, list[Any]]) -> None:
    upper = [_IS_UPPER[data[starts - i]] for i in range(5)]
    inner = [_IS_ALNUM[data[starts - i]] for i in range(5)]
    two = upper[1] & upper[2] & ~inner[3]
    spaced = (data[starts - 1] == ord(" ")) & upper[2] & upper[3] & ~inner[4] & (lengths == 2)
    one = upper[1] & ~inner[2]
    hyphen = (data[starts - 1] == ord("-")) & upper[2] & ~inner[3] & (lengths == 7)
    behind = _IS_UPPER[data[ends]] | ((data[ends] == ord("-")) & _IS_UPPER[data[ends + 1]])
    codes = found["codes"]
    codes.append((starts - 2)[two & (lengths != 3) & (lengths != 4)])
    codes.append((starts - 3)[spaced])
    codes.append((starts - 1)[one & (lengths >= 6) & (lengths <= 9)])
    codes.append((starts - 2)[hyphen])
    codes.append(starts[(lengths == 8) & behind])
    high = [data[starts - i] >= 0x80 for i in range(6)]
    codes.append((starts - 4)[upper[1] & high[2]])
    codes.append((starts - 5)[upper[1] & upper[2] & high[3]])
    codes.append((starts - 6)[upper[1] & upper[2] & upper[3] & high[4]])
    codes.append((starts - 6)[(data[starts - 1] == 0xB7) & upper[3] & high[4]])  # 京A·12345
    codes.append((starts - 7)[upper[1] & (data[starts - 2] == 0xB7) & upper[4] & high[5]])


def _find_addresses(data: Any, starts: Any, ends: Any, lengths: Any, found: dict[str, list[Any]]) -> None:
    code = _three(data, ends)
    found["han"].append(starts[(data[ends] >= 0xE4) & np.isin(code, _HAN_UNITS) & (data[starts - 1] >= 0x80)])
    left = ~_IS_ALNUM[data[starts - 1]] & ~np.isin(data[starts - 1], list(b"$#.,:/-'"))
    space = np.where(_IS_ALNUM[data[ends]] | (data[ends] == ord(",")), ends + 1, ends)  # 221B
    space = np.minimum(space, len(data) - 4)
    next_code = _three(data, space + 1)
    street = (data[space] == ord(" ")) & _IS_UPPER[data[space + 1]] & ~np.isin(next_code, _MONTHS)
    following = np.append(ends[1:], 0)  # 5 42nd Street
    ordinal = (
        (np.append(starts[1:], 0) == ends + 1)
        & (data[ends] == ord(" "))
        & np.isin(data[following], list(b"snrt"))
    )
    hyphen = (
        (data[ends] == ord("-")) & (np.append(starts[1:], 0) == ends + 1) & _IS_UPPER[data[following + 1]]
    )
    found["addresses"].append(starts[left & (lengths <= 5) & (street | ordinal | hyphen)])
    zip_code = (
        (lengths == 5)
        & (data[starts - 1] == ord(" "))
        & _IS_UPPER[data[starts - 2]]
        & _IS_UPPER[data[starts - 3]]
    )
    box = (data[starts - 1] == ord(" ")) & (data[starts - 2] == ord("x")) & (data[starts - 3] == ord("o"))
    found["addresses"].append(starts[zip_code | box])


# --- the search -----------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A text, or a part of a long one."""

    document: int
    offset: int
    """Where in the text it begins."""
    data: bytes
    core: tuple[int, int]
    """Finds that begin here are this piece's; what lies around is another's too."""


class _Hit(NamedTuple):
    rank: int
    start: int
    end: int
    evidence: int


def spans_of_buffer(
    data: UInt8[np.ndarray, " bytes"],
    offsets: Int[np.ndarray, " texts_and_one"],
    kinds: Sequence[str] = DEFAULT_KINDS,
    taggers: Sequence[Tagger] = (),
) -> Found:
    """Returns the personal data in texts that lie one after the other in UTF-8, as Arrow has them.

    Raises:
        InputError: a kind is not one of KINDS.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f'"{unknown[0]}" is no kind of personal data', f"one of: {', '.join(KINDS)}")
    wanted = _wanted(tuple(kinds))
    hits: dict[int, list[_Hit]] = {}
    batch: list[_Piece] = []
    size = 0
    for piece in _pieces(data, offsets):
        batch.append(piece)
        size += len(piece.data)
        if size >= _PIECE_BYTES:
            _search(batch, wanted, hits)
            batch, size = [], 0
    if batch:
        _search(batch, wanted, hits)
    if taggers:
        for document, (a, b) in enumerate(itertools.pairwise(offsets.tolist())):
            _tag(document, data[a:b].tobytes(), taggers, frozenset(kinds), hits)
    rows = [
        (document, hit.rank, hit.start, hit.end, hit.evidence)
        for document in sorted(hits)
        for hit in _without_overlaps(hits[document])
    ]
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 5)
    return Found(
        table[:, 0].copy(),
        table[:, 1].astype(np.uint8),
        table[:, 2].copy(),
        table[:, 3].copy(),
        table[:, 4].astype(np.uint8),
    )


@functools.lru_cache(32)
def _wanted(kinds: tuple[str, ...]) -> tuple[_Group, ...]:
    return tuple(
        group._replace(rules=tuple(rule for rule in group.rules if rule.kind in kinds))
        for group in _GROUPS.values()
    )


def _pieces(data: Any, offsets: Any) -> Iterator[_Piece]:
    for document, (start, end) in enumerate(itertools.pairwise(offsets.tolist())):
        for begin in range(start, max(end, start + 1), _PIECE_BYTES):
            first = max(start, begin - _MARGIN_BYTES)
            last = min(end, begin + _PIECE_BYTES + _MARGIN_BYTES)
            while first > start and data[first] & 0xC0 == 0x80:
                first -= 1
            core = (begin - first, begin - first + _PIECE_BYTES)
            yield _Piece(document, first - start, data[first:last].tobytes(), core)


def _search(pieces: list[_Piece], wanted: tuple[_Group, ...], hits: dict[int, list[_Hit]]) -> None:
    """Adds what the rules find in these pieces to the hits of their texts."""
    border = bytes(8)
    folded = [_folded(piece.data) for piece in pieces]
    characters: dict[int, tuple[Any, Any]] = {}
    chunk = b"".join([border, b"\0".join(folded), border])
    starts = np.cumsum([len(border), *(len(data) + 1 for data in folded)])
    places, groups = _triggers(chunk)
    owners = np.searchsorted(starts, places, side="right") - 1
    for place, group_number, owner in zip(places.tolist(), groups.tolist(), owners.tolist(), strict=True):
        group = wanted[group_number]
        if not group.rules or (_TRIGGERS[group_number] == "context" and not _is_announced(chunk, place)):
            continue
        piece, begin = pieces[owner], int(starts[owner])
        found = _try(chunk, place, group, begin, begin + len(folded[owner]))
        for rule, start, end in found:
            start, end = start - begin, end - begin
            if folded[owner] is not piece.data:
                if owner not in characters:
                    characters[owner] = _characters(folded[owner]), _characters(piece.data)
                after, before = characters[owner]
                start, end = (int(before[np.searchsorted(after, at)]) for at in (start, end))
            if piece.core[0] <= start < piece.core[1]:
                hit = _Hit(
                    _NAMES.index(rule.kind),
                    piece.offset + start,
                    piece.offset + end,
                    rules.EVIDENCE.index(rule.evidence),
                )
                hits.setdefault(piece.document, []).append(hit)


def _is_announced(chunk: bytes, place: int) -> bool:
    return rules.CONTEXT_WORDS.search(chunk[max(0, place - rules.CONTEXT_BYTES) : place].lower()) is not None


_ALIKE = {0xA0: " ", 0x2007: " ", 0x202F: " ", 0x2010: "-", 0x2011: "-"}
"""Spaces and hyphens that do not break: in a number they mean the same."""
_HAS_ALIKE = re.compile("[\xa0\u2007\u202f\u2010\u2011]")


def _try(
    chunk: bytes, place: int, group: _Group, first: int, last: int
) -> Iterator[tuple[rules.Rule, int, int]]:
    """Yields what the rules of a group find at a place, in bytes; `first` and `last` are the borders of the text."""
    if (
        chunk[place] & 0xC0 == 0x80
    ):  # within a character: where a province's sign would begin, something longer stands
        return
    start, end = max(first, place - group.before), min(last, place + group.after)
    head, tail = chunk[start:place].decode("utf-8", "ignore"), chunk[place:end].decode("utf-8", "ignore")
    if not tail:
        return
    plain = head + tail
    window = plain.translate(_ALIKE) if not plain.isascii() and _HAS_ALIKE.search(plain) else plain
    middle = len(head)
    for rule in group.rules:
        if rule.first and tail[0] not in rule.first:
            continue
        found = rule.find(window, middle)
        if found:
            begin, finish = (
                place - len(plain[at:middle].encode())
                if at < middle
                else place + len(plain[middle:at].encode())
                for at in found
            )
            yield rule, begin, finish


def _folded(data: bytes) -> bytes:
    """Returns the text with ASCII characters for full-width ones, where it has numbers in these or an @."""
    if b"\xef\xbc" not in data or rules.WIDE.search(data) is None:
        return data
    return data.decode("utf-8", "ignore").translate(FOLD).encode()


def _characters(data: bytes) -> Int[np.ndarray, " characters_and_one"]:
    """Returns where each character begins, and the end."""
    starts = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) & 0xC0 != 0x80)
    return np.append(starts, len(data))


def _tag(
    document: int, data: bytes, taggers: Sequence[Tagger], kinds: frozenset[str], hits: dict[int, list[_Hit]]
) -> None:
    text = data.decode()
    for tagger in taggers:
        for span in tagger(text):
            if span.kind in kinds and 0 <= span.start < span.end <= len(text):
                start = len(text[: span.start].encode())
                end = start + len(text[span.start : span.end].encode())
                hit = _Hit(_NAMES.index(span.kind), start, end, rules.EVIDENCE.index(span.evidence))
                hits.setdefault(document, []).append(hit)


def _without_overlaps(hits: list[_Hit]) -> list[_Hit]:
    """Returns the hits in their order; of two that overlap the one of higher rank, or the longer one."""
    kept: list[tuple[int, _Hit]] = []
    for hit in sorted(set(hits), key=lambda hit: (hit.rank, hit.start - hit.end, hit.start)):
        at = bisect.bisect_left(kept, (hit.start,))
        if (at == 0 or kept[at - 1][1].end <= hit.start) and (at == len(kept) or kept[at][0] >= hit.end):
            kept.insert(at, (hit.start, hit))
    return [hit for _, hit in kept]
