"""Where sentences end, told from the bytes that tokens stand for."""

import re

import numpy as np
from jaxtyping import Bool, Int

from gristmill.vocabulary import Vocabulary

__all__ = ["sentence_ends"]

# a class of characters beyond ASCII would be a class of their bytes
_STOPS, _CLOSING = "[.!?]+", "(?:[\"')\\]]|”|’|»)*"
_OTHERS = "(?:。|！|？)+(?:”|’|」|』|）)*|\\n+"
_END = re.compile(f"{_STOPS}{_CLOSING}(?=\\s|\\Z)|{_OTHERS}".encode())
_END_WITHOUT_SPACES = re.compile(f"{_STOPS}{_CLOSING}|{_OTHERS}".encode())


def sentence_ends(tokens: Int[np.ndarray, " N"], vocabulary: Vocabulary) -> Bool[np.ndarray, " N"]:
    """Returns which tokens are the last of a sentence: those with the end of . ! ? or 。！？ or of a line.

    Closing quotes belong to the sentence. A full stop, which may be part of a number or of an abbreviation, needs a
    space after it, unless the vocabulary has no spaces at all (WordPiece). A character may be spread over several
    tokens; the last of them counts. A special token is a space: a sentence ends at the end of its document.
    """
    text = b"".join([vocabulary.pieces[token] or b" " for token in tokens.tolist()])
    pattern = _END if vocabulary.has_spaces else _END_WITHOUT_SPACES
    last_bytes = np.array([match.end() - 1 for match in pattern.finditer(text)], dtype=np.int64)
    ends = np.zeros(len(tokens), dtype=bool)
    after = np.cumsum(np.maximum(vocabulary.lengths[tokens], 1))
    ends[np.searchsorted(after, last_bytes, side="right")] = True
    return ends
