"""Adversarial training on word vectors: the loss of a batch once more, with the vectors moved to where it is higher.

    FGM    one move along the gradient, of length epsilon (Miyato et al. 2017, arXiv:1605.07725)
    PGD    several shorter ones, never farther than epsilon (Madry et al. 2018, arXiv:1706.06083)

The table of the vocabulary is moved, so that a word moves alike wherever it stands.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, final

import torch
from annotated_types import Gt
from torch import Tensor

from gristmill.errors import InputError

__all__ = ["Adversarial"]

_TABLE = ("model.embedding.weight", "model.embedding.base.weight")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial:
    """How word vectors are moved."""

    epsilon: Annotated[float, Gt(0)] = 1.0
    """How far the whole table may be moved (its L2 norm)."""
    moves: Annotated[int, Gt(0)] = 1
    """1 is FGM; with more (PGD, usually 3) each is epsilon times `move_share` long."""
    move_share: Annotated[float, Gt(0)] = 0.4
    """Length of a move of PGD, as a share of epsilon."""

    def check(self, learned: Mapping[str, Any]) -> None:
        """Looks whether the table is learned, for its gradient is what moves it.

        Raises:
            InputError: it is not.
        """
        if not any(name in learned for name in _TABLE):
            raise InputError(
                "adversarial training moves word vectors along their gradient, and this way does not learn them",
                'set tune.way = "full" without frozen_layers, or take out tune.adversarial',
            )

    def backward(self, table: Tensor, loss: Callable[[], Tensor]) -> None:
        """Adds the gradients of the loss with moved vectors to those that are there, and moves the vectors back.

        Args:
            table: word vectors, whose `grad` is that of the loss where they stand.
            loss: computes it anew.
        """
        own = table.grad
        if own is None:
            return
        came = table.detach().clone()
        length = self.epsilon * (1.0 if self.moves == 1 else self.move_share)
        gradient = own
        for move in range(self.moves):
            norm = gradient.norm()
            if not (torch.isfinite(norm) and norm > 0):
                break
            with torch.no_grad():
                table.add_(gradient * (length / norm))
                away = table - came
                far = away.norm()
                if far > self.epsilon:
                    table.copy_(came + away * (self.epsilon / far))
            if move == self.moves - 1:
                loss().backward()  # type: ignore[no-untyped-call]
            else:
                gradient = torch.autograd.grad(loss(), table)[0]
        with torch.no_grad():
            table.copy_(came)
