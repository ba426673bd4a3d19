"""Which language a text is in, and which script: a few thresholds of its features, offline, in integers.

The labels answer what a corpus of English and Chinese asks. Of other languages they say only that: "other".
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from gristmill.corpus.features import FEATURES, features

__all__ = ["OF_LANGUAGE", "OF_SCRIPT", "Language", "Script", "language_of", "languages_of", "script_of"]

Language = Literal["en", "zh", "mixed", "other"]
Script = Literal["latin", "simplified", "traditional", "both", "han", "unspaced", "other", "none"]

OF_LANGUAGE = ("letters", "latin", "han", "unspaced", "alphabetic_words", "function_words")
"""The features that languages are told by."""
OF_SCRIPT = (*OF_LANGUAGE, "simplified", "traditional")
"""Those that scripts are told by."""
HAN_WEIGHT = 4
"""A Chinese character weighs as much as so many Latin letters: about a word."""
FREE_WORDS = 6
"""So many words in Latin script are taken for English, whatever they are: "Good morning!" has no function word."""
WORDS_FOR_EACH = 8
"""Of the words beyond, one in so many has to be a function word of English, of which it has one in three.

German sentences of 11 words are then told from English ones in 66 of 100 cases, texts of 60 words in all of them; of
English sentences of 10 to 20 words 0.2 to 1.5 in 100 are lost.
"""


def language_of(text: str) -> Language:
    """Returns "en", "zh", "mixed" or "other"; `languages_of` of one text."""
    return languages_of(features([text]))[0]


def languages_of(figures: Int[np.ndarray, "texts features"]) -> list[Language]:
    """Returns for texts with these features "en", "zh", "mixed" (both, neither under a fifth) or "other"."""
    column = _columns(figures)
    latin, han = column["latin"], HAN_WEIGHT * column["han"]
    other = HAN_WEIGHT * (column["letters"] - column["latin"] - column["han"])
    total = latin + han + other
    words = column["alphabetic_words"] - column["han"] - column["unspaced"]
    is_english = words <= FREE_WORDS + WORDS_FOR_EACH * column["function_words"]
    found = np.where(han > latin, "zh", np.where(is_english, "en", "other"))
    found = np.where(5 * np.minimum(latin, han) >= total, "mixed", found)
    is_japanese = np.isin(found, ("zh", "mixed")) & _has_kana(column)
    is_other = (total == 0) | (10 * other > 3 * total) | is_japanese
    languages: list[Language] = np.where(is_other, "other", found).tolist()
    return languages


def script_of(
    figures: Int[np.ndarray, "texts features"], languages: Sequence[Language] | None = None
) -> list[Script]:
    """Returns which script outweighs the others in texts with these features; of mixed texts, which Chinese one is there.

    Chinese is "simplified", "traditional" or "both" (neither under a fifth), by the characters that only one of GB 2312
    and Big5 has, and "han" where none of them is there. The others are "latin", "unspaced" (Kana, Thai, Khmer …, the
    Chinese characters of Japanese with them), "other", and "none" where there are no letters.

    `languages` saves finding them again.
    """
    column = _columns(figures)
    simplified, traditional = column["simplified"], column["traditional"]
    total = simplified + traditional
    chinese = np.where(simplified > traditional, "simplified", "traditional")
    chinese = np.where(5 * np.minimum(simplified, traditional) >= total, "both", chinese)
    chinese = np.where(total == 0, "han", chinese)
    unspaced = HAN_WEIGHT * (column["han"] + column["unspaced"])
    others = HAN_WEIGHT * column["letters"] - HAN_WEIGHT * column["latin"] - unspaced
    heaviest = np.argmax(np.stack([column["latin"], unspaced, others]), axis=0)
    is_chinese = np.isin(languages_of(figures) if languages is None else languages, ("zh", "mixed"))
    is_chinese |= (heaviest == 1) & (column["han"] > 0) & ~_has_kana(column)
    found = np.where(is_chinese, chinese, np.array(["latin", "unspaced", "other"])[heaviest])
    scripts: list[Script] = np.where(column["letters"] == 0, "none", found).tolist()
    return scripts


def _columns(figures: Int[np.ndarray, "texts features"]) -> dict[str, Int[np.ndarray, " texts"]]:
    return {name: figures[:, i].astype(np.int64) for i, name in enumerate(FEATURES) if name in OF_SCRIPT}


def _has_kana(column: Mapping[str, Int[np.ndarray, " texts"]]) -> Bool[np.ndarray, " texts"]:
    """Whether there is more of Kana (or Thai …) beside Chinese characters than a quoted word."""
    has_kana: Bool[np.ndarray, " texts"] = 5 * column["unspaced"] > column["han"] + 5
    return has_kana
