"""Hashed n-gram embeddings: what the last few tokens were, looked up instead of computed.

The embedding of each position gains one table row per order n, chosen by a hash of its last n tokens (Pagnoni et
al. 2024, arXiv:2412.09871, section 3.2.1). A look-up costs no multiplications, and most of a table is not
touched in a step, which is why the trainer updates only the rows that were read.
"""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gristmill.model.config import NgramSettings
from gristmill.model.ops import embed_rows

__all__ = ["NgramEmbedding", "ngram_rows"]

_MULTIPLIER = 1_000_003


@final
class NgramEmbedding(nn.Module):
    """One table of all orders; rows are chosen by `ngram_rows`."""

    def __init__(self, settings: NgramSettings, width: int) -> None:
        super().__init__()
        self.settings = settings
        self.weight = nn.Parameter(torch.empty(len(settings.orders) * settings.buckets, width))

    def forward(
        self, tokens: Int[Tensor, "B T"], positions: Int[Tensor, "B T"], dropout_seed: int
    ) -> Float[Tensor, "B T D"]:
        """Returns the sum over the orders of the row for the tokens that end at each position."""
        found = embed_rows(ngram_rows(tokens, positions, self.settings), self.weight)
        if not self.training or self.settings.dropout == 0.0:
            return found
        generator = torch.Generator(tokens.device).manual_seed(dropout_seed)
        kept = (
            torch.rand((*tokens.shape, 1), generator=generator, device=tokens.device) >= self.settings.dropout
        )
        return found * (kept / (1 - self.settings.dropout))


def ngram_rows(
    tokens: Int[Tensor, "B T"], positions: Int[Tensor, "B T"], settings: NgramSettings
) -> Int[Tensor, "B T N"]:
    """Returns the table row of each order's n-gram at each position.

    An n-gram never reaches over the start of its document: what would lie before it counts as one and the same
    absent token, so that changing a token never changes a row of another document.
    """
    hashes = tokens + 1
    rows = []
    shifted = hashes
    for n in range(2, max(settings.orders) + 1):
        # the token n - 1 places back; 0 where that is before the document's start
        shifted = F.pad(shifted[:, :-1], (1, 0))
        shifted = shifted.masked_fill(positions < n - 1, 0)
        hashes = hashes * _MULTIPLIER + shifted + 1
        if n in settings.orders:
            mixed = hashes ^ (hashes >> 29)
            mixed = mixed * 0x2545F4914F6CDD1D
            bucket = (mixed >> 32).remainder(settings.buckets)
            rows.append(bucket + settings.orders.index(n) * settings.buckets)
    return torch.stack(rows, dim=-1)
