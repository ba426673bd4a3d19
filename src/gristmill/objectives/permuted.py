"""Predict tokens one after another in random orders, each from what comes before it in the order.

Factorization orders and two-stream attention are those of Yang et al. 2019 (XLNet, arXiv:1906.08237, sections 2.2 to
2.4). The paper computes two states for each position: the content stream h, which knows the position's token, and the
query stream g, which knows the position alone and predicts the token. Both go through the same weights, and keys and
values are those of h. Here the queries are positions of their own at the row's end: their token is <mask> (its
embedding is the paper's vector w), they stand at the position of what they predict, and nobody sees them. So one pass
through a plain encoder computes both streams, and the query stream only where something is predicted:

    the paper                                          here
    g_t = Attention(Q = g_t, KV = h of ranks < t)      a query sees content of ranks below its target's
    h_t = Attention(Q = h_t, KV = h of ranks <= t)     content sees content of ranks up to its own

The first tokens of an order are context only: not predicted, and visible to all (as in the paper's published code,
which leaves them in no order among themselves). They have rank 0, and so have special tokens. Each text stands in
the order in which it becomes visible, so that what a position sees is the text's beginning, an interval and no mask:
where a token is from, only its position says. The text <cls> a b d e <sep>, in which d is predicted from a b e, and
then b from a d e; the queries are the last two positions:

    tokens     <cls> a   e   <sep> d   b   | <mask> <mask>
    positions  0     1   4   5     3   2   | 2      3
    targets                                | b      d
    weights    0     0   0   0     0   0   | 1      1
    ranks      0     0   0   0     1   2   | never  never      (when it becomes visible)
    reach      0     0   0   0     1   2   | 1      0          (up to which rank it sees)
"""

import dataclasses
from typing import Annotated, ClassVar, final

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Bool, Int
from torch import Tensor

from gristmill.batch import Batch, Visibility
from gristmill.errors import InputError
from gristmill.model.config import Kind, ModelConfig
from gristmill.model.visibility import segment_positions
from gristmill.objectives.base import HowHidden, Rate, TokenObjective, at, average
from gristmill.objectives.choosing import framed
from gristmill.objectives.pieces import Pieces, check_shares, first_of_each, shuffled_within
from gristmill.rows import Rows

__all__ = ["Permuted", "predict_given"]

QUERIES = 32
"""The queries of a batch are a multiple of this many: oneDNN keeps a program for each shape that it has met."""

NEVER = 1 << 30
"""The rank of a query: above every reach."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Permuted(TokenObjective):
    """Permutation language modelling (XLNet)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder"})
    family: ClassVar[str] = "modernbert"
    special: ClassVar[tuple[str, ...]] = ("mask",)
    hidden: ClassVar[HowHidden] = "in order"

    predicted: Rate = 1 / 6
    """Share of the text that is predicted, the last of each order; the paper's is 1/6 (K = 6)."""
    span_tokens: Annotated[int, Ge(1)] = 5
    """The longest span that is predicted as a whole. Spans have 1 to this many tokens, each length as often; with 1
    every order of the tokens is equally likely."""

    def __post_init__(self) -> None:
        check_shares(predicted=self.predicted)

    @property
    def positions_per_token(self) -> float:
        """The text, and a query for each token that is predicted."""
        return 1 + self.scored_share

    @property
    def scored_share(self) -> float:
        """What is predicted."""
        return average(self.predicted)

    def check(self, config: ModelConfig) -> None:
        """Refuses a model that it can't train: queries stand at their row's end, and biases go by where they stand.

        Raises:
            InputError: the model is no encoder, or its positions are relative biases.
        """
        super().check(config)
        if config.positions == "relative":
            raise InputError(
                f'objective "permuted" has no relative position biases, but the family "{config.family}" has',
                f'set model.family = "{self.family}"',
            )

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the rows with a query for each of the last tokens of random orders."""
        rows = dataclasses.replace(rows, tokens=framed(rows.tokens, rows.segments, rows.words))
        pieces = Pieces.of(rows)
        ranks = np.zeros(rows.tokens.shape, dtype=np.int64)
        ranks[rows.segments != 0] = _orders(pieces, at(self.predicted, progress), self.span_tokens, rng)
        return _with_queries(
            torch.from_numpy(rows.tokens.astype(np.int64)),
            torch.from_numpy(rows.segments.astype(np.int64)),
            torch.from_numpy(ranks),
            rows.words.id("mask"),
        )


def predict_given(
    tokens: Int[Tensor, "B T"], segments: Int[Tensor, "B T"], wanted: Bool[Tensor, "B T"], mask_id: int
) -> Batch:
    """Returns the batch in which each wanted token is predicted from all tokens that are not wanted, and no other.

    They are the last of the order, all with the same reach. The positions of the batch with a weight are the wanted
    ones, row by row in the order of the text. Their own tokens are never seen, so any id will do where they are not
    known; a segment that is wanted as a whole is predicted from nothing.
    """
    return _with_queries(tokens, segments, (wanted & (segments != 0)).long(), mask_id)


def _with_queries(
    tokens: Int[Tensor, "B T"], segments: Int[Tensor, "B T"], ranks: Int[Tensor, "B T"], mask_id: int
) -> Batch:
    """The two streams as one: segments in the order of their ranks, and a query for each token of a rank above 0."""
    B = len(tokens)
    rows, columns = (ranks > 0).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=B)
    # the n-th query of a row stands in column n of what is appended
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    width = -(-max(int(counts.max()), 1) // QUERIES) * QUERIES

    def appended(content: Tensor, queries: Tensor) -> Tensor:
        block = content.new_zeros(B, width)
        block[rows, places] = queries
        return torch.cat([content, block], dim=1)

    here = (rows, columns)
    positions, nothing = segment_positions(segments), torch.zeros_like(tokens)
    order = _by_rank(segments, ranks)
    shown = ranks.gather(1, order)
    return Batch(
        tokens=appended(tokens.gather(1, order), torch.full_like(rows, mask_id)),
        targets=appended(nothing, tokens[here]),
        weights=appended(nothing, torch.ones_like(rows)).float(),
        segments=appended(segments, segments[here]),
        visibility=Visibility.RANKED,
        positions=appended(positions.gather(1, order), positions[here]),
        ranks=appended(shown, torch.full_like(rows, NEVER)),
        reach=appended(shown, ranks[here] - 1),
    )


def _by_rank(segments: Int[Tensor, "B T"], ranks: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The columns of each row, those of a segment by rank and otherwise as they were."""
    pieces = torch.zeros_like(segments)
    pieces[:, 1:] = (segments[:, 1:] != segments[:, :-1]).cumsum(1)
    return torch.argsort(pieces * (ranks.max() + 1) + ranks, dim=1, stable=True)


def _orders(pieces: Pieces, share: float, longest: int, rng: np.random.Generator) -> Int[np.ndarray, " N"]:
    """The rank of each token: 0 for context, from 1 for what is predicted, in random order.

    Each piece of text is cut into spans of random length, and those that come last in a random order of the spans
    are predicted, the first of them in part, so that as many tokens are predicted as the share asks for (rounded at
    random). The paper instead draws one span in each stretch of K times its length.
    """
    places = np.flatnonzero(pieces.ordinary)
    numbers, sizes = pieces.numbers[places], pieces.sizes(places)
    # something is always seen: a piece without special tokens keeps a token of its text as context
    most = np.where(np.bincount(pieces.numbers, minlength=pieces.count) > sizes, sizes, sizes - 1)
    counts = np.minimum(sizes * share + rng.random(pieces.count), most.clip(min=0)).astype(np.int64)

    begins = first_of_each(numbers)
    ends = np.cumsum(rng.integers(1, longest, size=len(places), endpoint=True))
    begins[ends[ends < len(places)]] = True
    order = shuffled_within(numbers, rng, units=np.cumsum(begins) - 1)
    last = np.arange(len(places)) >= (np.cumsum(sizes) - counts)[numbers]
    predicted = np.sort(places[order[last]])

    numbers = pieces.numbers[predicted]
    ranks = np.zeros(len(pieces.tokens), dtype=np.int64)
    ranks[predicted[shuffled_within(numbers, rng)]] = (
        np.arange(len(predicted)) - (np.cumsum(counts) - counts)[numbers] + 1
    )
    return ranks


EXPORT = Permuted
