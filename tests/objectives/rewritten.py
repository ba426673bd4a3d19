"""Rows with any pieces of documents, and what an objective makes of each: for objectives that rewrite text."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from gristmill.batch import Batch
from gristmill.rows import Rows
from tests.objectives.suite import SPECIAL, VOCABULARY

BOS, EOS = SPECIAL["bos"], SPECIAL["eos"]

ORDINARY = st.lists(st.integers(0, 255), min_size=1, max_size=30)
PIECE = st.one_of(
    ORDINARY.map(lambda text: [BOS, *text, EOS]),
    ORDINARY,
    st.lists(st.one_of(st.integers(0, 255), st.sampled_from([BOS, EOS])), min_size=1, max_size=12),
)
"""Any piece of a document: with special tokens at both ends, at none, or anywhere."""

PIECES = st.lists(st.lists(PIECE, min_size=1, max_size=4), min_size=1, max_size=3)
"""The pieces in each of some rows."""


def rows_of_pieces(pieces: list[list[list[int]]]) -> Rows:
    """Rows that hold these pieces, each row a list of them, with padding at their ends."""
    width = max(sum(map(len, row)) for row in pieces)
    tokens = np.zeros((len(pieces), width), dtype=np.int64)
    segments = np.zeros_like(tokens)
    for i, row in enumerate(pieces):
        flat = [token for piece in row for token in piece]
        tokens[i, : len(flat)] = flat
        segments[i, : len(flat)] = np.repeat(np.arange(len(row)) + 1, [len(piece) for piece in row])
    return Rows(tokens=tokens, segments=segments, following=np.full_like(tokens, -1), vocabulary=VOCABULARY)


def documents(text: bytes | list[int], copies: int = 1) -> Rows:
    """Rows of one whole document each."""
    return rows_of_pieces([[[BOS, *text, EOS]]] * copies)


def source(batch: Batch, row: int = 0, number: int = 1) -> list[int]:
    """What the encoder reads of a segment."""
    assert batch.source is not None
    return _segment(batch.source.tokens, batch.source.segments, row, number)


def decoder_input(batch: Batch, row: int = 0, number: int = 1) -> list[int]:
    """What the decoder reads of it."""
    return _segment(batch.tokens, batch.segments, row, number)


def target(batch: Batch, row: int = 0, number: int = 1) -> list[int]:
    """What the decoder writes."""
    return _segment(batch.targets, batch.segments, row, number)


def _segment(tokens: Tensor, segments: Tensor, row: int, number: int) -> list[int]:
    inside: list[int] = tokens[row, torch.eq(segments[row], number)].tolist()
    return inside
