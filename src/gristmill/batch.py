"""The nouns that cross borders: batches and losses.

Shapes, one legend for the whole project: B rows, T positions, S source positions, D width, H heads, K head
size, F feed-forward, V vocabulary, N examples.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Batch", "Loss", "Pairs", "Source", "Visibility"]


class Visibility(enum.Enum):
    """Who may look at whom, inside one segment."""

    CAUSAL = "causal"
    """Each position sees itself and what stands before it."""
    FULL = "full"
    """Each position sees all of its segment."""
    PREFIX = "prefix"
    """Positions of the segment's prefix (`Batch.prefix`) are seen by all of it, the others as in CAUSAL."""
    RANKED = "ranked"
    """Position i sees j where `Batch.ranks[j] <= Batch.reach[i]`: factorization orders and two streams."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What an encoder-decoder reads before it writes."""

    tokens: Int[Tensor, "B S"]
    segments: Int[Tensor, "B S"]
    """As `Batch.segments`: a target position sees the source positions of the same segment."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of texts inside the rows, each with a class that is told from its first position."""

    rows: Int[Tensor, " N"]
    columns: Int[Tensor, " N"]
    """Where each pair begins: the position of [CLS]."""
    labels: Int[Tensor, " N"]
    """0: the second text follows the first (as in BERT's own files); 1: it does not."""
    weights: Float[Tensor, " N"]
    """How much each pair counts beside a token of `Batch.weights`; settled for a whole step, before it is split."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What an objective makes of rows, and all that a model and a loss need."""

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    """What the model should say at each position; any valid id where the weight is 0."""
    weights: Float[Tensor, "B T"]
    """How much each position counts; 0 is not at all."""
    segments: Int[Tensor, "B T"]
    """The document within the row, from 1; 0 is padding. Positions of different segments never see each other."""
    visibility: Visibility
    positions: Int[Tensor, "B T"] | None = None
    """Where each token stands in its document; None counts from the start of its segment."""
    prefix: Bool[Tensor, "B T"] | None = None
    """For PREFIX: which positions are in the prefix of their segment; they come first in it."""
    ranks: Int[Tensor, "B T"] | None = None
    """For RANKED: when each position becomes visible. What is ever seen of a segment stands side by side, by rank."""
    reach: Int[Tensor, "B T"] | None = None
    """For RANKED: up to which rank each position sees."""
    token_types: Int[Tensor, "B T"] | None = None
    """0 or 1: the first or the second text of a pair."""
    detection_weights: Float[Tensor, "B T"] | None = None
    """How much it counts, beside a token of `weights`, to tell whether each token was replaced; settled as in `Pairs`."""
    source: Source | None = None
    pairs: Pairs | None = None

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on a device."""
        return _changed(self, lambda tensor: tensor.to(device, non_blocking=True))

    def split(self, rows: int) -> tuple["Batch", ...]:
        """Returns the batch as batches of so many rows each, whose losses add up to that of the whole."""
        return tuple(self._rows(first, first + rows) for first in range(0, len(self.tokens), rows))

    def _rows(self, first: int, after: int) -> "Batch":
        part = _changed(dataclasses.replace(self, pairs=None), lambda tensor: tensor[first:after])
        if self.pairs is None:
            return part
        inside = (self.pairs.rows >= first) & (self.pairs.rows < after)
        pairs = _changed(self.pairs, lambda tensor: tensor[inside])
        return dataclasses.replace(part, pairs=dataclasses.replace(pairs, rows=pairs.rows - first))


_Part = TypeVar("_Part", bound=Batch | Source | Pairs)


def _changed(part: _Part, change: Callable[[Tensor], Tensor]) -> _Part:
    """The part with every tensor changed, those of its own parts too."""
    changes: dict[str, object] = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = change(value)
        elif isinstance(value, Source | Pairs):
            changes[field.name] = _changed(value, change)
    return dataclasses.replace(part, **changes)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A sum of weighted losses and the sum of the weights, so that means over many batches come out right."""

    total_nats: Float[Tensor, ""]
    weight: Float[Tensor, ""]
    parts: Mapping[str, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)
    """What the total consists of, by name: a sum of nats and its weight each, without gradient."""

    @property
    def mean_nats(self) -> Float[Tensor, ""]:
        """The loss per unit of weight, usually per token; 0 where nothing counts."""
        return self.total_nats / self.weight.clamp(min=1e-12)
