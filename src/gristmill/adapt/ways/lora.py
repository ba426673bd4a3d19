"""Low-rank updates of matrices: W + (alpha / r) B A, of which only A and B are learned.

    Hu et al. 2021, arXiv:2106.09685

A begins with small random numbers and B with zeros, so that at first nothing has changed; a finished model has the sum of both, and
is as fast as the one that it came from.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal, final

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor, nn

from gristmill import rng
from gristmill.adapt.net import Net
from gristmill.adapt.way import Installed, Way
from gristmill.errors import InputError
from gristmill.model import ops
from gristmill.model.base import Linear
from gristmill.model.transformer import Transformer

__all__ = ["Lora", "LoraLinear"]

Matrix = Literal["attention.qkv", "attention.out", "cross.q", "cross.kv", "cross.out", "feed_forward.up", "feed_forward.down"]  # fmt: skip


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(Way):
    """Low-rank updates of the matrices of all blocks."""

    rank: Annotated[int, Gt(0)] = 8
    """Rows of A and columns of B."""
    alpha: Annotated[float, Gt(0)] = 16.0
    """Updates are multiplied by alpha / rank."""
    matrices: tuple[Matrix, ...] = ("attention.qkv", "cross.q", "cross.kv")
    """Which are updated, of those that the model has."""

    learning_rate = 1e-3

    def install(self, net: Net, *, seed: int) -> Installed:
        """Puts A and B beside each matrix; they and the head are learned.

        Raises:
            InputError: the model is no Transformer, or has none of these matrices.
        """
        model = net.model
        if not isinstance(model, Transformer):
            raise InputError("low-rank updates are for Transformers", 'set tune.way = "full" for this model')
        generator = torch.Generator().manual_seed(rng.derive(seed, "lora"))
        found = [
            name
            for name, module in model.named_modules()
            if name.endswith(self.matrices) and isinstance(module, Linear)
        ]
        if net.head is not None and model.encoder is not None:
            found = [name for name in found if name.startswith("encoder.")]
        if not found:
            raise InputError(f"the model has none of {', '.join(self.matrices)}", "look at tune.way.matrices")
        learned: dict[str, nn.Parameter] = {}
        for name in found:
            parent, _, last = name.rpartition(".")
            holder = model.get_submodule(parent)
            updated = LoraLinear(getattr(holder, last), self.rank, self.alpha, generator)
            setattr(holder, last, updated)
            learned |= {f"model.{name}.a": updated.a, f"model.{name}.b": updated.b}
        if net.head is not None:
            learned |= {f"head.{name}": p for name, p in net.head.named_parameters()}
        return Installed(net, learned)

    def plain(self, base: Mapping[str, Tensor], learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weights with their updates added."""
        found = dict(base)
        for name, b in learned.items():
            if name.endswith(".b"):
                own = name.removeprefix("model.").removesuffix("b")
                found[f"{own}weight"] = base[f"{own}weight"] + self.alpha / self.rank * (
                    b @ learned[f"{name[:-1]}a"]
                )
        return found

    def kept(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns A and B of each matrix, `NAME.a` and `NAME.b`, so that they can be exported for `peft`."""
        return {
            name.removeprefix("model."): tensor
            for name, tensor in learned.items()
            if name.startswith("model.") and name.endswith((".a", ".b"))
        }


@final
class LoraLinear(nn.Module):
    """A linear layer and a low-rank update of its matrix."""

    def __init__(self, base: Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        """Takes the layer as it came, which stays as it is."""
        super().__init__()
        self.base, self.scale = base, alpha / rank
        bound = 1 / math.sqrt(base.in_features)  # as in `peft`: Kaiming's uniform with a = sqrt(5)
        self.a = nn.Parameter(
            torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        )
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The matrix with its update."""
        return self.base.weight + (self.scale * (self.b.float() @ self.a.float())).to(self.base.weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        """As it came."""
        return self.base.bias

    def forward(self, x: Float[Tensor, "*N in"]) -> Float[Tensor, "*N out"]:
        """Returns W x + (alpha / r) B A x + bias."""
        y: Tensor = self.base(x)
        return y + self.scale * ops.linear(ops.linear(x, self.a, None), self.b, None)


EXPORT = Lora
