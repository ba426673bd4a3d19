"""Who sees whom, as tensors that attention understands: intervals of keys where they do, masks where they must.

Inside a packed row the positions of a document stand side by side. So what a position sees under causal, full and
prefix visibility, and under a local window, is an interval of keys: two numbers for each query, and no T x T mask.
Only factorization orders (`Visibility.RANKED`) need a mask.
"""

import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor

from gristmill.batch import Visibility

__all__ = [
    "Spans",
    "attention_mask",
    "cross_spans",
    "ranked_mask",
    "segment_positions",
    "segment_spans",
    "windowed_mask",
    "windowed_spans",
]

Spans = tuple[Int32[Tensor, "B T"], Int32[Tensor, "B T"]]
"""For each query the first key that it sees, and the first after it that it no longer sees."""


def segment_positions(segments: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Returns each position's distance from the start of its segment: [1,1,1,2,2,0] -> [0,1,2,0,1,0]."""
    T = segments.shape[1]
    index = torch.arange(T, device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    # padding stands nowhere: however long it is, a table of learned positions has a row for it
    return (index - (index * starts).cummax(dim=1).values).masked_fill(segments == 0, 0)


def segment_spans(
    segments: Int[Tensor, "B T"], visibility: Visibility, prefix: Bool[Tensor, "B T"] | None = None
) -> Spans:
    """Returns what each position sees: [1,1,1,2,2,0] is, seen in full, (0,0,0,3,3,5) to (3,3,3,5,5,6).

    Padding sees itself: a softmax over nothing would be uniform over everything, and no loss curve shows that.
    """
    first, last = _bounds(segments)
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    after = index + 1
    if visibility is Visibility.CAUSAL:
        last = after
    elif visibility is Visibility.PREFIX:
        if prefix is None:
            raise ValueError("prefix visibility needs Batch.prefix")
        # the prefix comes first in its segment, so it ends where the count of its positions says
        total = torch.zeros_like(segments)
        total[:, 1:] = prefix.long().cumsum(1)[:, :-1]
        total = torch.cat([total, total[:, -1:] + prefix[:, -1:].long()], dim=1)
        sizes = total.gather(1, last) - total.gather(1, first)
        last = torch.maximum(after, first + sizes)
    elif visibility is Visibility.RANKED:
        raise ValueError("ranked visibility is no interval")
    alone = segments == 0
    return (
        torch.where(alone, index, first).to(torch.int32),
        torch.where(alone, after, last).to(torch.int32),
    )


def cross_spans(segments: Int[Tensor, "B T"], source: Int[Tensor, "B S"]) -> Spans:
    """Returns which source positions each target position sees: those of its own segment, none where there is none."""
    B, S = source.shape
    largest = int(torch.maximum(segments.max(), source.max())) + 1
    index = torch.arange(S, device=source.device).expand(B, S)
    first = torch.full((B, largest), S, device=source.device).scatter_reduce(1, source, index, "amin")
    last = torch.zeros(B, largest, dtype=torch.long, device=source.device).scatter_reduce(
        1, source, index + 1, "amax"
    )
    first, last = first.gather(1, segments), last.gather(1, segments)
    nothing = (segments == 0) | (last <= first)
    return first.masked_fill(nothing, 0).to(torch.int32), last.masked_fill(nothing, 0).to(torch.int32)


def windowed_spans(spans: Spans, window: int) -> Spans:
    """Returns the spans cut to `window` positions on either side of each query."""
    first, last = spans
    index = torch.arange(first.shape[1], device=first.device, dtype=torch.int32)
    return torch.maximum(first, index - window), torch.minimum(last, index + window + 1)


def ranked_mask(
    segments: Int[Tensor, "B T"], ranks: Int[Tensor, "B T"], reach: Int[Tensor, "B T"]
) -> Bool[Tensor, "B 1 T T"]:
    """Returns who sees whom where i sees j if `ranks[j] <= reach[i]` and both are in one segment."""
    visible = (segments[:, :, None] == segments[:, None, :]) & (segments != 0)[:, None, :]
    visible &= ranks[:, None, :] <= reach[:, :, None]
    visible |= (segments == 0)[:, :, None] & torch.eye(
        segments.shape[1], dtype=torch.bool, device=segments.device
    )
    return visible[:, None]


def windowed_mask(
    mask: Bool[Tensor, "B 1 T S"], positions: Int[Tensor, "B T"], window: int
) -> Bool[Tensor, "B 1 T S"]:
    """Returns the mask without what is more than `window` positions away."""
    near = (positions[:, :, None] - positions[:, None, :]).abs() <= window
    return mask & near[:, None]


def attention_mask(segments: Int[Tensor, "B T"], visibility: Visibility) -> Bool[Tensor, "B 1 T T"] | None:
    """Returns the same as `segment_spans`, as a mask, or None where that is plain causal attention over whole rows."""
    whole = bool((segments == segments[:, :1]).all()) and bool((segments != 0).all())
    if whole and visibility is Visibility.CAUSAL:
        return None
    T = segments.shape[1]
    visible = segments[:, :, None] == segments[:, None, :]
    visible &= (segments != 0)[:, None, :]
    if visibility is Visibility.CAUSAL:
        visible &= torch.ones(T, T, dtype=torch.bool, device=segments.device).tril()
    visible |= torch.eye(T, dtype=torch.bool, device=segments.device)
    return visible[:, None]


def _bounds(segments: Int[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
    """The first position of each position's segment, and the first after it."""
    T = segments.shape[1]
    index = torch.arange(T, device=segments.device).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    ends = torch.ones_like(segments, dtype=torch.bool)
    ends[:, :-1] = begins[:, 1:]
    first = (index * begins).cummax(dim=1).values
    last = torch.where(ends, index + 1, T).flip(1).cummin(dim=1).values.flip(1)
    return first, last
