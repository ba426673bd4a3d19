"""Where words and names begin and end, told from the bytes that tokens stand for.

The text of all tokens is put together and cut as text; the cuts are then told in tokens. So it does not matter how
a tokenizer spells the space before a word, or whether a character is spread over several tokens.
"""

import functools
import importlib
import importlib.util
import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int

from gristmill.vocabulary import Vocabulary

__all__ = ["Names", "Text", "has_chinese", "has_jieba", "jieba_words", "words_go_on"]

_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
# the first two bytes of each of them in UTF-8: a token may hold a part of a character
_CHINESE_BYTES = re.compile(rb"[\xe4-\xe9][\x80-\xbf]|\xe3[\x90-\xbf]|\xef[\xa4-\xab]|\xf0[\xa0-\xbf]")
_APOSTROPHES = (ord("'"), ord("’"))
_REMEMBERED = 200_000  # stretches of Chinese text whose words are kept, about 50 MB


@final
class Text:
    """The text of some tokens, and which characters each token begins and ends with."""

    def __init__(self, tokens: Int[np.ndarray, " N"], vocabulary: Vocabulary) -> None:
        """Takes ids; a special token is a line end, which nothing reaches across."""
        pieces = [vocabulary.pieces[token] or b"\n" for token in tokens.tolist()]
        # of a character that is cut off at the edge of a row, each byte counts as a character
        self.text = b"".join(pieces).decode("utf-8", "surrogateescape")
        self.code = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        sizes = 1 + (self.code >= 0x80).astype(np.int64) + (self.code >= 0x800) + (self.code >= 0x10000)
        sizes[(self.code >= 0xD800) & (self.code < 0xE000)] = 1
        begins = np.cumsum(sizes) - sizes
        ends = np.cumsum(np.maximum(vocabulary.lengths[tokens], 1))
        starts = np.append(0, ends)[:-1]
        self._first = np.searchsorted(begins, starts, side="right") - 1
        self._last = np.searchsorted(begins, ends, side="left")
        self._broken = begins[self._first] != starts

    def tokens_go_on(self, characters: Bool[np.ndarray, " C"]) -> Bool[np.ndarray, " N"]:
        """Returns which tokens belong to the one before them, told from the characters that do; so do broken ones."""
        found: Bool[np.ndarray, " N"] = self._broken | characters[self._first]
        return found

    def tokens_with(self, characters: Bool[np.ndarray, " C"]) -> Bool[np.ndarray, " N"]:
        """Returns which tokens hold one of some characters, or a part of it."""
        counts = np.append(0, np.cumsum(characters))
        held: Bool[np.ndarray, " N"] = counts[self._last] > counts[self._first]
        return held


def words_go_on(text: Text, *, chinese: str) -> Bool[np.ndarray, " C"]:
    """Returns which characters are in one word with the one before: letters and digits, and apostrophes between them.

    Chinese characters side by side are cut into words by "jieba", or are a word each ("characters"). Where jieba is not
    installed they are a word each too: only text that is not Chinese comes here without it (`Masking.check_words`).
    """
    letters = _letters(text.code)
    before, after = np.append(False, letters)[:-1], np.append(letters, False)[1:]
    between = np.isin(text.code, _APOSTROPHES) & before & after
    goes_on: Bool[np.ndarray, " C"] = (
        (letters & before) | between | (letters & np.append(False, between)[:-1])
    )
    runs = list(_CHINESE.finditer(text.text)) if chinese == "jieba" else []
    if runs and has_jieba():
        for match in runs:
            start, after_run = match.span()
            goes_on[start:after_run] = True
            goes_on[[start + begin for begin in jieba_words()(match[0])]] = False
    return goes_on


def _letters(code: np.ndarray) -> Bool[np.ndarray, " C"]:
    """Which characters are letters or digits, Chinese ones aside."""
    known, where = np.unique(code, return_inverse=True)
    characters = known.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    table = np.array([c.isalnum() and not _CHINESE.match(c) for c in characters], dtype=bool)
    return table[where]


@final
class JiebaWords:
    """Cuts Chinese text by jieba's dictionary. Not by its guesses at words that are not there: they double the time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}

    def __call__(self, run: str) -> tuple[int, ...]:
        """Returns where the words of Chinese characters without anything between them begin."""
        if (begins := self._known.get(run)) is None:
            sizes = [len(word) for word in self._tokenizer.cut(run, HMM=False)]
            begins = tuple((np.cumsum(sizes) - sizes).tolist())
            if (
                len(self._known) < _REMEMBERED
            ):  # the first ones stay: an epoch meets all before it meets one again
                self._known[run] = begins
        return begins


def has_jieba() -> bool:
    """Returns whether jieba is installed."""
    return importlib.util.find_spec("jieba") is not None


@functools.cache
def jieba_words() -> JiebaWords:
    """Returns the words of jieba's own dictionary, which is loaded once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its code is older than some warnings of Python
        jieba = importlib.import_module("jieba")
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.initialize()
    return JiebaWords(tokenizer)


def has_chinese(pieces: Iterable[bytes]) -> bool:
    """Returns whether a vocabulary has tokens for Chinese characters or for parts of them, single bytes aside."""
    return any(_CHINESE_BYTES.search(piece) for piece in pieces)


@final
class Names:
    """A list of names, found in a text from left to right, the longest first."""

    def __init__(self, names: Sequence[str]) -> None:
        self.listed = tuple(name for name in names if name)
        self._names = frozenset(self.listed)
        sizes: dict[str, set[int]] = {}
        for name in self._names:
            sizes.setdefault(name[0], set()).add(len(name))
        self._sizes = {first: sorted(found, reverse=True) for first, found in sizes.items()}
        self._first = re.compile("[" + "".join(map(re.escape, sizes)) + "]") if sizes else None

    def in_text(self, text: str) -> tuple[Bool[np.ndarray, " C"], Bool[np.ndarray, " C"]]:
        """Returns which characters are in a name, and which in the same name as the character before them.

        "Ann" is not in "Annual": a name does not end inside a word, but for Chinese ones, whose words have no ends.
        """
        held, goes_on = np.zeros(len(text), dtype=bool), np.zeros(len(text), dtype=bool)
        after = 0
        for match in self._first.finditer(text) if self._first else ():
            start = match.start()
            if start < after:
                continue
            for size in self._sizes[match[0]]:
                end = start + size
                if text[start:end] in self._names and not (_in_word(text, start) or _in_word(text, end)):
                    held[start:end] = goes_on[start + 1 : end] = True
                    after = end
                    break
        return held, goes_on


def _in_word(text: str, at: int) -> bool:
    """Whether letters or digits stand on both sides of a place, Chinese ones aside."""
    return 0 < at < len(text) and all(c.isalnum() and not _CHINESE.match(c) for c in text[at - 1 : at + 1])
