"""Predict the rest of a text from its beginning, which is read in both directions (Raffel et al. 2020, section 3.2).

A prefix language model (arXiv:1910.10683, section 3.2.1; Dong et al. 2019, arXiv:1905.03197). Seven tokens, of which
three are the prefix:

    tokens     <bos> a   b   c   d   e   f
    targets    a     b   c   d   e   f   <eos>
    prefix     1     1   1   0   0   0   0
    weights    0     0   1   1   1   1   1       (b, the last of the prefix, tells what follows it)
"""

import dataclasses
from typing import Annotated, ClassVar, final

import numpy as np
import torch
from annotated_types import Interval

from gristmill.batch import Batch, Visibility
from gristmill.errors import InputError
from gristmill.model.config import Kind
from gristmill.objectives.base import TokenObjective
from gristmill.objectives.choosing import piece_bounds
from gristmill.rows import Rows

__all__ = ["Prefix"]

Share = Annotated[float, Interval(ge=0, le=1)]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefix(TokenObjective):
    """Prefix language modelling."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"decoder"})
    family: ClassVar[str] = "qwen3"
    lookahead: ClassVar[int] = 1
    reads_whole: ClassVar[bool] = True

    share: tuple[Share, Share] = (0.0, 1.0)
    """How much of each text is prefix: a share drawn between these two. All shares are as likely in the paper; a
    smaller second one leaves more to predict. One token is prefix and one is predicted in any case."""

    def __post_init__(self) -> None:
        low, high = self.share
        if low > high:
            raise InputError(f"share = {list(self.share)} is no range", f"set share = [{high}, {low}]")

    @property
    def scored_share(self) -> float:
        """What comes after the prefix."""
        return 1 - sum(self.share) / 2

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the batch in which each piece begins with a prefix, and what follows it is predicted."""
        first, after = piece_bounds(rows.segments)
        sizes = after - first
        shares = rng.uniform(*self.share, size=len(sizes))
        # of n tokens 1 to n are prefix: the last one tells the token after it, which may be in the next row
        prefixes = 1 + np.minimum((shares * sizes).astype(np.int64), sizes - 1)
        T = rows.tokens.shape[1]
        place = np.arange(rows.tokens.size) % T
        ends = np.zeros(
            rows.tokens.size, dtype=np.int64
        )  # where the prefix ends, for each position of a piece
        filled = rows.segments.ravel() != 0
        ends[filled] = np.repeat(first % T + prefixes, sizes)
        told = filled & (place >= ends - 1) & (rows.following.ravel() >= 0)
        shape = rows.tokens.shape
        return Batch(
            tokens=torch.from_numpy(rows.tokens.astype(np.int64)),
            targets=torch.from_numpy(rows.following.astype(np.int64)).clamp(min=0),
            weights=torch.from_numpy(told.reshape(shape)).float(),
            segments=torch.from_numpy(rows.segments.astype(np.int64)),
            visibility=Visibility.PREFIX,
            prefix=torch.from_numpy((place < ends).reshape(shape)),
        )


EXPORT = Prefix
