"""Muon on the matrices of the blocks, AdamW on embeddings, output and gains, Adagrad on rows of n-gram tables."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, final

from annotated_types import Ge, Gt, Interval
from torch import Tensor

from gristmill.model.base import is_matrix
from gristmill.train.optimizer import AdamRule, MuonRule, OptimizerSettings, RowRule, Rule

__all__ = ["Muon"]

Share = Annotated[float, Interval(ge=0, lt=1)]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(OptimizerSettings):
    """Muon for matrices, AdamW for the rest."""

    learning_rate: Annotated[float, Gt(0)] = 0.02
    """Of the matrices: how far each singular direction moves in a step."""
    momentum: Share = 0.95
    weight_decay: Annotated[float, Ge(0)] = 0.1
    """Decoupled: each step shrinks matrices by this share of the learning rate."""
    iterations: Annotated[int, Interval(ge=1, le=5)] = 5
    """Steps of the orthogonalising iteration."""
    adam_learning_rate: Annotated[float, Gt(0)] | None = None
    """Of embeddings, output and gains; by default it falls with the square root of the width."""
    adam_betas: tuple[Share, Share] = (0.9, 0.95)
    ngram_learning_rate: Annotated[float, Gt(0)] = 0.05

    def rules(
        self, masters: Mapping[str, Tensor], *, width: int, fused: Mapping[str, Sequence[int]]
    ) -> list[Rule]:
        """Returns the rules for a model whose parameters have these names."""
        tables = {n: m for n, m in masters.items() if n.startswith("ngrams.")}
        matrices = {n: m for n, m in masters.items() if is_matrix(n, m)}
        rest = {n: m for n, m in masters.items() if n not in tables and n not in matrices}
        rules: list[Rule] = [
            MuonRule(
                matrices,
                learning_rate=self.learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                iterations=self.iterations,
                fused=fused,
            ),
            AdamRule(
                rest,
                learning_rate=self.adam_learning_rate or 0.004 * (256 / width) ** 0.5,
                betas=self.adam_betas,
                weight_decay=0.0,
            ),
        ]
        if tables:
            rules.append(RowRule(tables, learning_rate=self.ngram_learning_rate))
        return rules


EXPORT = Muon
