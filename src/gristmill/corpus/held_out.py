"""Validation text that corpora share: what one holds out, others of the same sources leave out of their training text.

To say what a step of cleaning buys, models have to be measured on the same text, and none may have learned from it: so
the others leave out the documents that the one holds out, and, in both directions, what was superfluous beside them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64

from gristmill.corpus.store import Corpus, Cut
from gristmill.errors import InputError

__all__ = ["HeldOut", "beside", "held_out_by", "share_of"]

TOLERANCE = 0.2
"""By how much of it a share may be missed, since documents are left whole."""


class HeldOut(NamedTuple):
    """What a corpus holds out of training."""

    hashes: UInt64[np.ndarray, " documents"]
    """Of the texts, ascending."""
    cut: Cut | None
    """The document whose end is held out, if it is one."""


def held_out_by(corpus: Corpus) -> HeldOut:
    """Returns the documents that a corpus holds out, with all that it found to be duplicates of them.

    Raises:
        InputError: it takes its own validation text from another one, or has none.
    """
    if corpus.validation is not None:
        raise InputError(
            f"the corpus {corpus.artifact.path} has the validation text of another, {corpus.validation.artifact.path}",
            "name that one in corpus.held_out",
        )
    table = corpus.decided(("key", "hash"))
    valid = np.asarray(table["valid"] & (table["reason"] == ""), dtype=bool)
    if not valid.any() and corpus.cut is None:
        raise InputError(
            f"the corpus {corpus.artifact.path} holds nothing out", "build it with valid_fraction = 0.05"
        )
    held = _with_duplicates(table["key"], table["by"], valid)
    return HeldOut(np.unique(table["hash"][held].astype(np.uint64)), corpus.cut)


def _with_duplicates(
    keys: Int[np.ndarray, " documents"],
    by: Int[np.ndarray, " documents"],
    held: Bool[np.ndarray, " documents"],
) -> Bool[np.ndarray, " documents"]:
    """The held documents, and whatever a chain of duplicates joins to them."""
    pairs = np.flatnonzero(by >= 0)
    order = np.argsort(keys)
    others = order[np.searchsorted(keys, by[pairs], sorter=order)]
    held = held.copy()
    while True:
        touched = held[pairs] | held[others]
        if (held[pairs][touched].all()) and held[others][touched].all():
            return held
        held[pairs[touched]] = True
        held[others[touched]] = True


def beside(
    places: Int[np.ndarray, " duplicates"],
    kept: Int[np.ndarray, " duplicates"],
    held: Bool[np.ndarray, " documents"],
) -> Bool[np.ndarray, " documents"]:
    """Returns which documents have a duplicate among the held ones, or are one of them.

    Args:
        places: of what is superfluous, in the order of the sources.
        kept: of what each of those is superfluous beside.
        held: which documents are held out.
    """
    found = np.zeros(len(held), dtype=bool)
    found[places[held[kept]]] = True
    found[kept[held[places]]] = True
    return found


def share_of(
    hashes: Sequence[int] | Any, sizes: Sequence[int] | Any, share: float
) -> Bool[np.ndarray, " documents"]:
    """Returns which documents make up a share of the text: a smaller share is a part of a larger one.

    Equal texts are in together or out together. The order is that of hashes, mixed once more, since what is held out is
    chosen by the plain ones.

    Args:
        hashes: a 64-bit hash of each text.
        sizes: the bytes of each.
        share: of all bytes, above 0.

    Raises:
        InputError: the documents are so few and long that no choice of them comes near the share.
    """
    mixed = np.asarray(hashes, dtype=np.uint64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # the last steps of MurmurHash3
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(33)
    size = np.asarray(sizes, dtype=np.int64)
    distinct, inverse = np.unique(mixed, return_inverse=True)
    sums = np.cumsum(np.bincount(inverse, weights=size, minlength=len(distinct)))
    wanted = share * size.sum()
    count = int(np.abs(np.concatenate([[0.0], sums]) - wanted).argmin())
    reached = float(sums[count - 1]) if count else 0.0
    if abs(reached - wanted) > TOLERANCE * wanted:
        raise InputError(
            f"{len(size)} documents can't be divided so that {share:g} of their text is left",
            "give a document_separator, or another fraction",
        )
    return np.asarray(inverse < count)
