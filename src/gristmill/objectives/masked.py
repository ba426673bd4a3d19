"""Predict tokens that are hidden from those around them, on both sides (Devlin et al. 2019, arXiv:1810.04805).

Eight tokens, of which c and f are chosen; c becomes the mask, and f the random token k:

    tokens     <cls> a   b  <mask> <sep>  <cls> k   e  <sep>  -
    targets    <cls> a   b   c     <sep>  <cls> f   e  <sep>  -
    weights    0     0   0   1     0      0     1   0  0      0
    segments   1     1   1   1     1      2     2   2  2      0

Everything in a segment sees everything in it. Whole words are masked together as in BERT's later code (in Chinese
words: Cui et al. 2019, arXiv:1906.08101), spans as in SpanBERT (Joshi et al. 2020, arXiv:1907.10529, section 3.1),
names as in ERNIE (Sun et al. 2019, arXiv:1904.09223, section 3.2).
"""

import dataclasses
from typing import ClassVar, final

import numpy as np
import torch

from gristmill.batch import Batch, Visibility
from gristmill.model.config import Kind
from gristmill.objectives.base import HowHidden, TokenObjective
from gristmill.objectives.choosing import Masking, MaskingObjective, framed, maskable
from gristmill.rows import Rows

__all__ = ["Masked"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Masked(Masking, MaskingObjective, TokenObjective):
    """Masked language modelling."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder"})
    family: ClassVar[str] = "modernbert"
    hidden: ClassVar[HowHidden] = "in place"

    @property
    def masking(self) -> Masking:  # type: ignore[override]
        """What is masked: these settings themselves."""
        return self

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the batch in which some tokens are masked, and these are the targets that count."""
        segments, vocabulary = rows.segments.astype(np.int64), rows.words
        tokens = framed(rows.tokens.astype(np.int64), segments, vocabulary)
        eligible = maskable(tokens, segments, vocabulary)
        masked, chosen = self.mask(tokens, segments, eligible, vocabulary, rng, progress)
        return Batch(
            tokens=torch.from_numpy(masked),
            targets=torch.from_numpy(tokens),
            weights=torch.from_numpy(chosen).float(),
            segments=torch.from_numpy(segments),
            visibility=Visibility.FULL,
        )


EXPORT = Masked
