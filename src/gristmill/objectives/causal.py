"""Predict each token from those before it (Radford et al. 2019; Shannon 1951).

Eight tokens, two documents in one row, the second going on in another row:

    tokens     <bos> a   b   c   <bos> d   e   f
    targets    a     b   c   <eos> d   e   f   g        (g is the first token of the other row)
    segments   1     1   1   1   2     2   2   2
    weights    1     1   1   1   1     1   1   1
"""

import dataclasses
from typing import ClassVar, final

import numpy as np
import torch

from gristmill.batch import Batch, Visibility
from gristmill.model.config import Kind
from gristmill.objectives.base import TokenObjective
from gristmill.rows import Rows

__all__ = ["Causal"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Causal(TokenObjective):
    """Next-token prediction; it has no settings."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"decoder"})
    family: ClassVar[str] = "qwen3"
    lookahead: ClassVar[int] = 1
    whole: ClassVar[bool] = True
    recurrent: ClassVar[bool] = True

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the batch in which every position's target is the token that follows in its document."""
        following = torch.from_numpy(rows.following.astype(np.int64))
        return Batch(
            tokens=torch.from_numpy(rows.tokens.astype(np.int64)),
            targets=following.clamp(min=0),
            weights=(following >= 0).float(),
            segments=torch.from_numpy(rows.segments.astype(np.int64)),
            visibility=Visibility.CAUSAL,
        )


EXPORT = Causal
