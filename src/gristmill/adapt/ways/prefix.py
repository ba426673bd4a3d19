"""Vectors before the text in every layer: prefix tuning (Li and Liang 2021, arXiv:2101.00190; P-tuning v2, arXiv:2110.07602).

A layer's keys and values of the prefix are what its own matrices make of the vectors, so that a prefix is as large as its vectors
are and needs no other path through attention.
"""

import dataclasses
from typing import Annotated, final

from annotated_types import Gt

from gristmill.adapt.net import Net
from gristmill.adapt.way import Installed, Way
from gristmill.adapt.ways.soft_prompt import with_prompt

__all__ = ["Prefix"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefix(Way):
    """The model stays as it is, and each layer reads learned vectors first."""

    tokens: Annotated[int, Gt(0)] = 20
    """How many vectors in each layer."""

    learning_rate = 1e-2

    def install(self, net: Net, *, seed: int) -> Installed:
        """Puts vectors before each text in each layer; they and the head are learned."""
        return with_prompt(net, self.tokens, deep=True, seed=seed)


EXPORT = Prefix
