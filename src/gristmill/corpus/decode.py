"""Which encoding a file is in: byte order marks, strict decoders, and how Chinese the result reads.

UTF-8 proves itself: hardly any other text is valid UTF-8 by accident. GB18030 and Big5 do not, each decodes much
of what the other encoded, so both are tried and the one whose text is made of common characters wins. The
evidence is kept, because a wrong guess is silent and ruins a model.

A file that several people wrote may be in several encodings, and one broken character is no reason to lose a book: what no
decoder takes as a whole is decoded line by line, and of the characters beyond ASCII two in a hundred may be damaged.
"""

import codecs
from typing import NamedTuple

from gristmill.errors import InputError

__all__ = [
    "REPAIRS",
    "Decoded",
    "Encoding",
    "UnreachableError",
    "UnreadableError",
    "common_share",
    "declared",
    "decode",
    "detect",
    "newline_of",
]

MIXED, DAMAGED = "mixed_encodings", "damaged_characters"
REPAIRS = (MIXED, DAMAGED)
"""What a text is counted by that was not in one encoding throughout."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the other's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CHINESE = ("gb18030", "big5", "cp950", "big5hkscs")  # the last two: Big5 as Windows and Hong Kong extend it
_MOST_DAMAGE = 0.02  # of the characters beyond ASCII: two in a hundred are a slip, more are another encoding
_LEAST_COMMON_SHARE = 0.2  # classical poems, the hardest case, have 0.5; the wrong one of the two, below 0.1
_LEAST_CHARACTERS = 8  # fewer are no evidence: "région" in Latin-1 is "r間ion" in GB18030
# Frequent characters of modern (simplified and traditional) and classical Chinese, and punctuation.
_COMMON = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
    "日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员"
    "解水名真论处走义各入几口认条平系气题活更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完"
    "设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运這個們來為國說時會對過發後裡種經麼學現當沒動還進樣開從實軍無與長機關點業將兩間問戰頭體見產東聲員論處義幾認條係氣"
    "題變總電數報結務場計萬覺術領確傳師觀識導爭運應並邊張該規讓帶區隊書則聽卻達強難權設記類據決馬於著裏話給門兒資許統曰矣焉乎哉乃若夫兮云花春風风秋夜君江雲歸归雨酒愁夢梦落寒香玉樓楼千飛飞草雪青紅红黃黄客故"
    "朝暮古城舟雁柳煙烟霜露石林松鳥鸟深遠远閑闲獨独悲憶忆淚泪侯臣帝皇父母兄弟官府縣县州兵，。、；：？！「」『』（）《》“”‘’…—·　○"
)


class UnreadableError(InputError):
    """One file can't be read as what it seems to be; `on_error` decides whether that ends the build."""


class UnreachableError(UnreadableError):
    """What a file lies on did not answer; another time it may."""


class Decoded(NamedTuple):
    """A text, and what of it was not as its encoding says."""

    text: str
    repairs: tuple[str, ...] = ()
    note: str = ""
    """The same in words, "" where nothing was wrong."""
    odd_bytes: int = 0
    """How many bytes the lines have that are not in this encoding."""


class Encoding(NamedTuple):
    """The name of a codec, the length of the byte order mark before the text, and why we think so."""

    name: str
    mark_bytes: int
    evidence: str


def detect(head: bytes, *, complete: bool) -> Encoding:
    """Returns the encoding of a file from its beginning, or from all of it when `complete`.

    Raises:
        UnreadableError: no decoder takes it, or what comes out is no text.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            if name.startswith("utf-32"):
                break
            if name == "utf-8" and _decode(head, name, complete) is None:  # a mark can be put before anything
                return detect(head[len(mark) :], complete=complete)._replace(mark_bytes=len(mark))
            return Encoding(name, len(mark), "byte order mark")
    if head.count(0) > len(head) // 1000:
        raise UnreadableError(
            "it holds zero bytes, so it is no text, or UTF-16 or UTF-32 without a mark that we know",
            'name the encoding (encoding = "utf-16-le"), or leave the file out with exclude',
        )
    if _decode(head, "utf-8", complete) is not None:
        return Encoding("utf-8", 0, "ASCII" if head.isascii() else "valid UTF-8")
    shares: dict[str, float] = {}
    for name in _CHINESE:
        text = _decode(head, name, complete)
        if text is not None:
            shares[name] = common_share(text)
    best = max(shares, key=lambda name: shares[name], default=None)
    if best is None or shares[best] < _LEAST_COMMON_SHARE:
        mixed = _mixed(head, complete)
        if mixed is not None:
            return mixed
        tried = ", ".join(f"{name} ({share:.0%} common characters)" for name, share in shares.items())
        raise UnreadableError(
            "its encoding is none of UTF-8, UTF-16 with a byte order mark, GB18030 and Big5"
            + (f"; it decodes as {tried}, but that does not read as Chinese" if tried else ""),
            'name the encoding (encoding = "cp1252"), or leave the file out with exclude',
        )
    seen = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Encoding(best, 0, f"common characters: {seen}")


def decode(data: bytes, name: str) -> Decoded | None:
    """Returns the text of bytes that are in an encoding, or nearly; None where too much of them is not.

    Lines that are not in it are taken for what they read as: UTF-8, or GB18030 or Big5 where that gives common characters.
    What is left is damaged, and stands as U+FFFD in the text.
    """
    try:
        return Decoded(data.decode(name))
    except UnicodeDecodeError:
        pass
    lines = [data] if name.startswith("utf-16") else data.splitlines(keepends=True)
    odd = [number for number, line in enumerate(lines) if _decode(line, name, True) is None]
    other = _other(b"".join(lines[number] for number in odd), name)
    texts = [line.decode(name, "replace") for line in lines]
    sign = "\ufffd".encode(name, "ignore")
    mixed = damaged = 0
    for number in odd:
        text = _decode(lines[number], other, True) if other else None
        if text is not None:
            texts[number] = text
            mixed += 1
        else:  # some hold the sign already, of an earlier accident
            damaged += texts[number].count("\ufffd") - (lines[number].count(sign) if sign else 0)
    text = "".join(texts)
    if damaged > _MOST_DAMAGE * sum(character > "\x7f" for character in text):
        return None
    whole = f"it is {other}, not {name}" if len(lines) == 1 else ""
    notes = [whole or f"{mixed:,} of its {len(lines):,} lines are {other}, the others {name}"] * (mixed > 0)
    notes += [f"damaged characters, shown as U+FFFD: {damaged:,}"] * (damaged > 0)
    return Decoded(
        text,
        (MIXED,) * (mixed > 0) + (DAMAGED,) * (damaged > 0),
        "; ".join(notes),
        sum(len(lines[number]) for number in odd),
    )


def declared(name: str, head: bytes) -> Encoding:
    """Returns the encoding that a recipe names, with the length of a byte order mark if there is one."""
    codec = codecs.lookup(name).name
    for mark, marked in _MARKS:
        family = codec.removesuffix("-le").removesuffix("-be").removesuffix("-sig")
        if head.startswith(mark) and marked.startswith(family):
            return Encoding(marked, len(mark), "declared")
    return Encoding({"utf-16": "utf-16-le", "utf-8-sig": "utf-8"}.get(codec, codec), 0, "declared")


def newline_of(name: str) -> bytes:
    """Returns the bytes of a line feed in an encoding, in which lines can be found without decoding.

    Raises:
        InputError: the encoding is unknown, or a byte of another character could pass for a line feed.
    """
    try:
        newline = "\n".encode({"utf-16": "utf-16-le"}.get(codecs.lookup(name).name, name))
    except (LookupError, UnicodeError):
        raise InputError(
            f'there is no encoding "{name}"', "examples: utf-8, utf-16, gb18030, big5, cp1252"
        ) from None
    newline = newline.removeprefix(codecs.BOM_UTF8)
    if newline not in (b"\n", b"\n\0", b"\0\n"):
        raise InputError(f'the encoding "{name}" is not supported', "convert the files to UTF-8 first")
    return newline


def _mixed(head: bytes, complete: bool) -> Encoding | None:
    """Returns the encoding that most of a text is in whose lines are in several, or that is slightly damaged."""
    if not complete:
        head = head[: head.rfind(b"\n") + 1] or head[:-8]  # the last line may be cut within a character
    best: tuple[int, str, Decoded] | None = None
    for name in ("utf-8", *_CHINESE):
        found = decode(head, name)
        if found is None or (name != "utf-8" and common_share(found.text) < _LEAST_COMMON_SHARE):
            continue
        if best is None or found.odd_bytes < best[0]:
            best = (found.odd_bytes, name, found)
    return None if best is None else Encoding(best[1], 0, f"most of it; {best[2].note}")


def _other(data: bytes, name: str) -> str | None:
    """Returns the encoding that bytes read as which are not in the one named, None where there is none."""
    shares = {}
    for other in ("utf-8", *_CHINESE):
        text = data.decode(other, "replace")
        beyond = [character for character in text if character > "\x7f"]
        if other == name or len(beyond) < _LEAST_CHARACTERS:
            continue
        shares[other] = 1 - beyond.count("\ufffd") / len(beyond) if other == "utf-8" else common_share(text)
    best = max(shares, key=lambda other: shares[other], default=None)
    return best if best is not None and shares[best] >= _LEAST_COMMON_SHARE else None


def _decode(data: bytes, name: str, complete: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder(name)("strict").decode(data, complete)
    except UnicodeDecodeError:
        return None


def common_share(text: str) -> float:
    """Returns the share of frequent characters in what is not ASCII: high where Chinese was decoded rightly."""
    beyond_ascii = [character for character in text if character > "\x7f"]
    return sum(character in _COMMON for character in beyond_ascii) / max(1, len(beyond_ascii))
