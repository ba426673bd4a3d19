"""What stands on a model that makes a vector of each text: nothing that is learned."""

from typing import Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gristmill.adapt.encoding import Packed
from gristmill.adapt.heads import Shape, pooled

__all__ = ["Pooling", "Vectors"]

Pooling = Literal["first", "last", "mean"]
"""Of what a text's vector is made: its first position, its last, or all."""


@final
class Vectors(nn.Module):
    """A vector of length 1 for each example, in the place of a head's scores."""

    shape: Shape = "example"

    def __init__(self, pooling: Pooling) -> None:
        """Takes what the vector is made of."""
        super().__init__()
        self.pooling = pooling

    def forward(
        self, hidden: Float[Tensor, "T D"], packed: Packed, dropout_seed: int = 0
    ) -> Float[Tensor, "N D"]:
        """Returns the vectors of examples that stand side by side, in float32; nothing is dropped here."""
        return F.normalize(pooled(hidden.float(), packed, self.pooling), dim=1)
