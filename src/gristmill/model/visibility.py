"""Who sees whom, as tensors that attention understands: intervals of keys where they do, masks where they must.

Inside a packed row the positions of a document stand side by side. So what a position sees under causal, full and
prefix visibility, and under a local window, is an interval of keys: two numbers for each query, and no T x T mask.
So it is for factorization orders (`Visibility.RANKED`), for which positions stand in the order in which they become
visible. Only their local windows need a mask: what is near in the text is no longer near in the row.
"""

import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor

from gristmill.batch import Visibility

__all__ = [
    "Spans",
    "cross_spans",
    "is_text_order",
    "ranked_spans",
    "segment_positions",
    "segment_spans",
    "window_mask",
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
        raise ValueError("ranked visibility needs ranks: see ranked_spans")
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


def ranked_spans(segments: Int[Tensor, "B T"], ranks: Int[Tensor, "B T"], reach: Int[Tensor, "B T"]) -> Spans:
    """Returns what each position sees where i sees j if `ranks[j] <= reach[i]` and both are in one segment.

    Of each segment, what is seen at all stands side by side, by rank; what nobody sees may stand anywhere. With the
    ranks [0, 0, 1, 2, 9] and the reaches [0, 0, 1, 2, 1] of one segment it is (0, 0, 0, 0, 0) to (2, 2, 3, 4, 3).

    Raises:
        ValueError: it stands in another order.
    """
    T = segments.shape[1]
    index = torch.arange(T, device=segments.device).expand_as(segments)
    step = reach.amax() + 1
    shown = (segments != 0) & (ranks < step)
    # one number for segment and rank: how many are no larger is what one search in their order says
    ordered = torch.where(shown, segments * step + ranks, torch.iinfo(torch.long).max).sort(dim=1).values
    largest = int(segments.max()) + 1
    begins = torch.full((len(segments), largest), T, device=segments.device)
    first = begins.scatter_reduce(1, segments * shown, index, "amin").gather(1, segments)
    before = torch.searchsorted(ordered, segments * step)

    def last(rank: Tensor) -> Tensor:
        return first + torch.searchsorted(ordered, segments * step + rank, right=True) - before

    if bool((shown & (index >= last(ranks))).any()):
        raise ValueError("under ranked visibility the positions of a segment stand by rank, side by side")
    alone = segments == 0
    return (
        torch.where(alone, index, first).to(torch.int32),
        torch.where(alone, index + 1, last(reach)).to(torch.int32),
    )


def windowed_spans(spans: Spans, window: int) -> Spans:
    """Returns the spans cut to `window` positions on either side of each query, where `is_text_order`."""
    first, last = spans
    index = torch.arange(first.shape[1], device=first.device, dtype=torch.int32)
    return torch.maximum(first, index - window), torch.minimum(last, index + window + 1)


def window_mask(positions: Int[Tensor, "B T"], window: int) -> Bool[Tensor, "B 1 T T"]:
    """Returns which positions are at most `window` apart, in whatever order they stand."""
    positions = positions.to(torch.int32)
    return ((positions[:, :, None] - positions[:, None, :]).abs() <= window)[:, None]


def is_text_order(spans: Spans, positions: Int[Tensor, "B T"]) -> bool:
    """Returns whether positions count up by one through all that any query sees, and to the query itself."""
    first, last = (x.long() for x in spans)
    offsets = positions - torch.arange(positions.shape[1], device=positions.device)
    breaks = torch.zeros_like(offsets)
    breaks[:, 1:] = (offsets[:, 1:] != offsets[:, :-1]).cumsum(1)
    # a span that is empty begins anywhere
    first = first.clamp(max=positions.shape[1] - 1)
    even = breaks.gather(1, (last - 1).clamp(min=0)) == breaks.gather(1, first)
    return bool(((even & (offsets.gather(1, first) == offsets)) | (last <= first)).all())


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
