"""How text is cut into pre-tokens before a vocabulary is learned: no token ever crosses such a cut.

Everything is byte-level: a pre-token's UTF-8 bytes are written with GPT-2's alphabet of 256 visible characters,
so nothing is unknown, nothing is normalised away, and any text comes back exactly.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

__all__ = ["ALPHABET", "BYTE_OF", "byte_level", "one_cut", "splitters"]

ALPHABET: list[str] = sorted(pre_tokenizers.ByteLevel.alphabet())
"""The 256 characters that stand for bytes, by code point."""


def _byte_of() -> dict[str, int]:
    # Bytes that are visible in Latin-1 stand for themselves; the others follow from U+0100 on, in order.
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(0x100 + i): b for i, b in enumerate(hidden)}


BYTE_OF: dict[str, int] = _byte_of()
"""The byte that each character of the alphabet stands for."""

# Letters with one space or mark before them; numbers; punctuation; line ends; spaces. After cl100k (tiktoken),
# with combining marks among the letters, as Indic scripts and decomposed accents need.
_WORDS = (
    r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CJK = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"


def splitters(*, split_digits: int, split_cjk: bool) -> list[Any]:
    """Returns the pre-tokenizers that cut text, in order; `byte_level` makes one of them all."""
    cuts = []
    if split_cjk:
        cuts.append(_CJK)
    if split_digits:
        cuts.append(rf"\p{{N}}{{1,{split_digits}}}")
    return [pre_tokenizers.Split(Regex(cut), "isolated") for cut in [*cuts, _WORDS]]


def one_cut(cuts: Sequence[str]) -> str | None:
    """Returns one pattern that cuts as those of `splitters` do one after the other; None where they are not these.

    The scripts are written as ranges of characters, as engines differ on whether 。 is of the Han script.
    """
    *first, words = cuts or [""]
    digits = re.fullmatch(r"\\p\{N\}(\{1,\d+\})", first[-1]) if first else None
    has_cjk = first[:1] == [_CJK]
    if words != _WORDS or len(first) != has_cjk + (digits is not None):
        return None
    cjk = _cjk_ranges() if has_cjk else ""
    other = rf"(?![{cjk}])" if has_cjk else ""
    ends = cjk + (r"\p{N}" if digits else "")
    return "|".join([
        *([rf"[{cjk}]"] if has_cjk else []),
        rf"(?:{other}\p{{N}}){digits[1] if digits else '+'}",
        rf"[^\r\n\p{{L}}\p{{M}}\p{{N}}{cjk}]?(?:{other}[\p{{L}}\p{{M}}])+",
        rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}{cjk}]+[\r\n]*",
        r"\s*[\r\n]+",
        *([rf"\s+(?=[{ends}])"] if ends else []),
        r"\s+(?!\S)",
        r"\s+",
    ])  # fmt: skip


@functools.cache
def _cjk_ranges() -> str:
    """The characters of _CJK as `tokenizers` understands it, for a class of a pattern."""
    points = [*range(0x80, 0xD800), *range(0xE000, 0x32400)]
    left = set(normalizers.Replace(Regex(_CJK), "").normalize_str("".join(map(chr, points))))
    inside = [point for point in points if chr(point) not in left]
    known = set(inside)
    firsts = [point for point in inside if point - 1 not in known]
    lasts = [point for point in inside if point + 1 not in known]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(firsts, lasts, strict=True))


def byte_level(cuts: list[Any]) -> Any:
    """Returns the pre-tokenizer that makes all cuts and then writes bytes as characters."""
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*cuts, last])
