"""Which language a text is in, and which Chinese script: a few thresholds of its features, offline, in integers.

The labels answer what a corpus of English and Chinese asks. Of other languages they say only that: "other".
"""

from typing import Literal

import numpy as np
from jaxtyping import Int

from gristmill.corpus.features import FEATURES, features

__all__ = ["Language", "Script", "language_of", "languages_of", "script_of"]

Language = Literal["en", "zh", "mixed", "other"]
Script = Literal["simplified", "traditional", "both", ""]

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
    column = {name: figures[:, i].astype(np.int64) for i, name in enumerate(FEATURES)}
    latin, han = column["latin"], HAN_WEIGHT * column["han"]
    other = HAN_WEIGHT * (column["letters"] - column["latin"] - column["han"])
    total = latin + han + other
    words = column["alphabetic_words"] - column["han"] - column["unspaced"]
    is_english = words <= FREE_WORDS + WORDS_FOR_EACH * column["function_words"]
    found = np.where(han > latin, "zh", np.where(is_english, "en", "other"))
    found = np.where(5 * np.minimum(latin, han) >= total, "mixed", found)
    is_japanese = np.isin(found, ("zh", "mixed")) & (5 * column["unspaced"] > column["han"] + 5)
    is_other = (total == 0) | (10 * other > 3 * total) | is_japanese
    languages: list[Language] = np.where(is_other, "other", found).tolist()
    return languages


def script_of(figures: Int[np.ndarray, "texts features"]) -> list[Script]:
    """Returns for Chinese and mixed texts "simplified", "traditional" or "both" (neither under a fifth), else "".

    What tells is the characters that only one of GB 2312 and Big5 has; a short text without any of them gets "".
    """
    column = {name: figures[:, i].astype(np.int64) for i, name in enumerate(FEATURES)}
    simplified, traditional = column["simplified"], column["traditional"]
    total = simplified + traditional
    found = np.where(simplified > traditional, "simplified", "traditional")
    found = np.where(5 * np.minimum(simplified, traditional) >= total, "both", found)
    is_chinese = np.isin(languages_of(figures), ("zh", "mixed"))
    scripts: list[Script] = np.where((total == 0) | ~is_chinese, "", found).tolist()
    return scripts
