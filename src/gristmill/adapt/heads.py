"""What stands on a model for a task: from hidden states to scores, as the family's stock classes have it.

    bert          examples: pooler (a layer and tanh on [CLS]), dropout, linear       tokens: dropout, linear
    modernbert    both: a layer, GELU and LayerNorm on [CLS] or each token, linear
    decoders      examples: linear without bias on the last token                     tokens: linear
    others        examples: linear on the mean of all positions                       tokens: linear

So what is fine-tuned here loads into `BertForSequenceClassification` and its like. Where a checkpoint holds a layer for heads to
come (BERT's pooler, the one before ModernBERT's output), the head begins with it, as those classes do. No stock class has
two others: with pooling "mean" it is one linear layer on the mean of all positions, as sentence encoders have it; of places, on
the states at some positions of an example, one behind the other (Baldini Soares et al. 2019, arXiv:1906.03158).
"""

from collections.abc import Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gristmill import rng
from gristmill.adapt.encoding import Packed
from gristmill.model.config import ModelConfig

__all__ = ["Head", "Pooling", "Shape", "pooled"]

Shape = Literal["example", "token", "places"]
"""What scores are given for: an example, each of its tokens, or an example by what stands at some places of it."""

Pooling = Literal["family", "mean"]
"""What of an example is read: as the family's stock class does, or the mean of all positions."""

SPREAD = 0.02
"""Standard deviation of new weights, as in BERT."""


@final
class Head(nn.Module):
    """Scores from hidden states."""

    def __init__(
        self,
        config: ModelConfig,
        outputs: int,
        shape: Shape,
        *,
        dropout: float,
        seed: int,
        pooling: Pooling = "family",
        places: int = 1,
    ) -> None:
        """Takes the model's config, how many scores there are, for what (of how many places), and the new weights' seed."""
        super().__init__()
        D, family = config.width, config.family if pooling == "family" else ""
        self.shape, self.dropout = shape, dropout
        self.pooling = {"bert": "first", "modernbert": "first"}.get(
            family, "last" if config.kind == "decoder" and pooling == "family" else "mean"
        )
        has_layer = shape != "places" and (
            family == "modernbert" or (family == "bert" and shape == "example")
        )
        bias = family == "bert" or config.head_bias
        self.dense = nn.Linear(D, D, bias=bias) if has_layer else None
        self.norm = (
            nn.LayerNorm(D, eps=config.norm_epsilon, bias=config.norm_bias)
            if has_layer and family == "modernbert"
            else None
        )
        self.out = nn.Linear(D * places, outputs, bias=not (self.pooling == "last" and shape == "example"))
        generator = torch.Generator().manual_seed(rng.derive(seed, "head"))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                elif parameter.dim() == 2:
                    parameter.normal_(0.0, SPREAD, generator=generator)

    def forward(
        self, hidden: Float[Tensor, "T D"], packed: Packed, dropout_seed: int = 0
    ) -> Float[Tensor, "N outputs"]:
        """Returns the scores of examples that stand side by side, or of all of their tokens, in float32."""
        x = self.features(hidden, packed)
        if self.training and self.dropout:
            generator = torch.Generator(x.device).manual_seed(dropout_seed)
            kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.dropout
            x = x * kept / (1 - self.dropout)
        scores: Tensor = self.out(x)
        return scores

    def features(self, hidden: Float[Tensor, "T D"], packed: Packed) -> Float[Tensor, "N features"]:
        """Returns what the last layer reads."""
        x = hidden.float()
        if self.shape == "example":
            x = pooled(x, packed, self.pooling)
        elif self.shape == "places":
            assert packed.places is not None
            x = x[packed.places.to(x.device)].flatten(1)
        if self.dense is not None:
            x = self.dense(x)
            x = torch.tanh(x) if self.norm is None else self.norm(F.gelu(x))
        return x

    @torch.no_grad()
    def begin_with(self, layer: Mapping[str, Tensor]) -> None:
        """Takes over the weights of a pretrained layer, as far as this head has one; by the names that they have here."""
        for name, parameter in self.named_parameters():
            if name in layer:
                parameter.copy_(layer[name])


def pooled(x: Float[Tensor, "T D"], packed: Packed, pooling: str) -> Float[Tensor, "N D"]:
    """Returns a vector for each of the examples that stand side by side: of its "first" position, its "last", or the "mean"."""
    starts, ends = packed.starts.to(x.device), packed.ends.to(x.device)
    if pooling == "first":
        return x[starts]
    if pooling == "last":
        return x[ends - 1]
    sums = torch.zeros(len(starts), x.shape[1], device=x.device)
    lengths = ends - starts
    owner = torch.repeat_interleave(torch.arange(len(starts), device=x.device), lengths)
    return sums.index_add(0, owner, x) / lengths[:, None]
