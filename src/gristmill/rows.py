"""Packed rows of tokens, the torch-free noun between the corpus and the objectives."""

import dataclasses

import numpy as np
from jaxtyping import Int

from gristmill.vocabulary import Vocabulary

__all__ = ["Rows"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Packed rows as the loader reads them: token ids, and which document each position belongs to.

    `following` is the token that comes after each position in its document, also where the document goes on in
    another row: the causal target of every position is there, so none is lost at a row's end.
    """

    tokens: Int[np.ndarray, "B T"]
    segments: Int[np.ndarray, "B T"]
    """The document within the row, from 1; 0 is padding."""
    following: Int[np.ndarray, "B T"]
    """The next token of the document, or -1 where there is none."""
    documents: tuple[tuple[int, ...], ...] = ()
    """The documents in each row by their number in the split, for messages about a batch."""
    vocabulary: Vocabulary | None = None
    """What the tokens stand for; objectives that look at more than ids need it."""

    @property
    def words(self) -> Vocabulary:
        """The vocabulary, where there has to be one."""
        if self.vocabulary is None:
            raise ValueError("these rows came without a vocabulary")
        return self.vocabulary
