"""Which language a text is in, by its script: a count of bytes, offline, at the speed of memory."""

import re
from typing import Literal

import numpy as np
from jaxtyping import Int

from gristmill.corpus.features import FEATURES

__all__ = ["Language", "language_of", "languages_of"]

Language = Literal["en", "zh", "mixed", "other"]

_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HAN = bytes(range(0xE4, 0xEA))  # lead bytes of U+4000 to U+9FFF
_OTHER = bytes([*range(0xC4, 0xE2), *range(0xEA, 0xEE)])  # Latin Extended, Greek, Cyrillic … Thai; Hangul
_KANA = re.compile(rb"\xe3[\x81-\x83]")
_FUNCTION_WORDS = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "a",
        "i",
        "is",
        "that",
        "it",
        "was",
        "for",
        "with",
        "as",
        "his",
        "her",
        "he",
        "she",
        "not",
        "are",
        "be",
        "this",
        "have",
        "you",
        "at",
        "by",
        "from",
        "but",
        "on",
    ]
)
_SAMPLE_CHARACTERS = 20_000


def language_of(text: str) -> Language:
    """Returns "en", "zh", "mixed" (both, neither under a fifth) or "other".

    A Chinese character weighs as much as four Latin letters: about a word. Latin script counts as English unless
    twenty words or more hold hardly any of the words that no English text goes without.
    """
    if len(text) > 3 * _SAMPLE_CHARACTERS:
        middle = len(text) // 2
        text = (
            text[:_SAMPLE_CHARACTERS]
            + text[middle : middle + _SAMPLE_CHARACTERS]
            + text[-_SAMPLE_CHARACTERS:]
        )
    data = text.encode()
    latin = (len(data) - len(data.translate(None, _LETTERS))) / 4
    han = len(data) - len(data.translate(None, _HAN))
    other = len(data) - len(data.translate(None, _OTHER))
    kana = len(_KANA.findall(data)) if b"\xe3" in data else 0
    total = latin + han + other + kana
    if total == 0 or other + kana > 0.3 * total or kana > 0.2 * han + 1:
        return "other"
    if min(latin, han) >= 0.2 * total:
        return "mixed"
    if han > latin:
        return "zh"
    words = text[:_SAMPLE_CHARACTERS].lower().split()
    common = sum(word in _FUNCTION_WORDS for word in words)
    return "other" if len(words) >= 20 and common < 0.04 * len(words) else "en"


def languages_of(figures: Int[np.ndarray, "texts features"]) -> list[Language]:
    """Returns the same for many texts, from their features."""
    column = {name: figures[:, i] for i, name in enumerate(FEATURES)}
    latin, han = column["latin"] / 4, column["han"].astype(float)
    other = (column["letters"] - column["latin"] - column["han"]).astype(float)
    total = latin + han + other
    few = column["function_words"] < 0.04 * column["alphabetic_words"]
    found = np.where(han > latin, "zh", np.where((column["alphabetic_words"] >= 20) & few, "other", "en"))
    found = np.where(np.minimum(latin, han) >= 0.2 * total, "mixed", found)
    found = np.where(
        (total == 0) | (other > 0.3 * total) | (column["unspaced"] > 0.2 * han + 1), "other", found
    )
    return found.tolist()
