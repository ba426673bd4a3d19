"""Which documents are held out for validation: decided by their hashes, so by nothing but the texts.

The documents whose hash, as a fraction of all hashes, lies below `valid_fraction` are validation: adding files
later moves none of them to the other side. The exceptions, for small and for huge corpora:

- With one document, or fewer than 20 of which one holds half of the text or more, the end of the longest one is
  held out: from character int((1 - valid_fraction) * length). A split by documents would be lopsided.
- Where no hash is low enough, the document with the lowest is taken: there is always something to measure on.
- Beyond `valid_maximum_bytes` the documents with the highest of the chosen hashes go back to training (or the cut
  moves on): a validation set need not grow with the corpus. One document stays, whatever its size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["SplitPlan", "plan_split"]

FEW_DOCUMENTS = 20
_HASHES = 1 << 64


class SplitPlan(NamedTuple):
    """Documents whose hash is below `threshold` are validation, and the end of one document may be."""

    threshold: int
    cut_document: int | None = None
    """The index of the document that is cut in two."""
    cut_fraction: float = 0.0


def plan_split(
    hashes: Sequence[int] | np.ndarray,
    text_bytes: Sequence[int] | np.ndarray,
    *,
    valid_fraction: float,
    valid_maximum_bytes: int,
) -> SplitPlan:
    """Returns the plan for documents with these 64-bit hashes and sizes."""
    count = len(hashes)
    if valid_fraction == 0 or count == 0:
        return SplitPlan(0)
    sizes = np.asarray(text_bytes, dtype=np.int64)
    if count == 1 or (count < FEW_DOCUMENTS and sizes.max() * 2 >= sizes.sum()):
        longest = int(sizes.argmax())
        share = min(valid_fraction, valid_maximum_bytes / max(1, int(sizes[longest])))
        return SplitPlan(0, longest, share)
    values = np.asarray(hashes, dtype=np.uint64)
    low = np.flatnonzero(values.astype(np.float64) < valid_fraction * _HASHES)
    if not low.size:
        low = np.array([values.argmin()])
    low = low[np.argsort(values[low], kind="stable")]
    kept = max(1, int(np.searchsorted(np.cumsum(sizes[low]), valid_maximum_bytes, side="right")))
    kept = min(kept, count - 1)  # something to train on
    return SplitPlan(int(values[low[kept - 1]]) + 1)
