"""The nouns that cross borders: batches and losses.

Shapes, one legend for the whole project: B rows, T positions, S source positions, D width, H heads, K head
size, F feed-forward, V vocabulary.
"""

import dataclasses
import enum

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Batch", "Loss", "Visibility"]


class Visibility(enum.Enum):
    """Who may look at whom, inside one segment. A position always sees itself."""

    CAUSAL = "causal"
    FULL = "full"


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

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on a device."""
        return dataclasses.replace(
            self,
            tokens=self.tokens.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            weights=self.weights.to(device, non_blocking=True),
            segments=self.segments.to(device, non_blocking=True),
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A sum of weighted losses and the sum of the weights, so that means over many batches come out right."""

    total_nats: Float[Tensor, ""]
    weight: Float[Tensor, ""]

    @property
    def mean_nats(self) -> Float[Tensor, ""]:
        """The loss per unit of weight, usually per token; 0 where nothing counts."""
        return self.total_nats / self.weight.clamp(min=1e-12)
