"""What the tokens of a vocabulary stand for, without the tokenizer that made them: all that objectives need."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from gristmill.errors import InputError

__all__ = ["Vocabulary"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """Ids, the bytes that they stand for, and which are special."""

    pieces: Sequence[bytes]
    """The bytes of each token; none for a special one."""
    special: Mapping[str, int]
    """Ids of special tokens by name: "pad", "bos", "eos", "mask", "cls", "sep"."""
    sentinels: Sequence[int] = ()
    """Ids of the tokens that stand for a span left out, the first span's first (Raffel et al. 2020)."""

    @property
    def size(self) -> int:
        """How many ids there are."""
        return len(self.pieces)

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " V"]:
        """How many bytes of text each token stands for."""
        return np.array([len(piece) for piece in self.pieces], dtype=np.int64)

    @functools.cached_property
    def ordinary(self) -> Int[np.ndarray, " tokens"]:
        """The ids that stand for text, ascending."""
        return np.flatnonzero(self.lengths > 0)

    @functools.cached_property
    def is_ordinary(self) -> Bool[np.ndarray, " V"]:
        """Whether each id stands for text."""
        table: Bool[np.ndarray, " V"] = self.lengths > 0
        return table

    @functools.cached_property
    def has_spaces(self) -> bool:
        """Whether tokens hold the spaces of the text; those of WordPiece do not, so that the text is not told whole."""
        return any(b" " in piece for piece in self.pieces)

    def id(self, name: str) -> int:
        """Returns the id of a special token.

        Raises:
            InputError: the tokenizer has none of that name.
        """
        if name not in self.special:
            raise InputError(
                f'the tokenizer has no "{name}" token',
                f'add {name} = "<|{name}|>" to [tokenizer.special_tokens], and train it again',
            )
        return self.special[name]
