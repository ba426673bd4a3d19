"""AdamW for everything (Loshchilov and Hutter 2019), the field's default; Adagrad on rows of n-gram tables."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, final

from annotated_types import Ge, Gt, Interval
from torch import Tensor

from gristmill.train.optimizer import AdamRule, OptimizerSettings, RowRule, Rule

__all__ = ["AdamW"]

Share = Annotated[float, Interval(ge=0, lt=1)]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(OptimizerSettings):
    """AdamW for all parameters."""

    learning_rate: Annotated[float, Gt(0)] = 0.001
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: Annotated[float, Ge(0)] = 0.1
    """Decoupled, on matrices and embeddings; not on gains and biases."""
    ngram_learning_rate: Annotated[float, Gt(0)] = 0.05

    def rules(
        self, masters: Mapping[str, Tensor], *, width: int, fused: Mapping[str, Sequence[int]]
    ) -> list[Rule]:
        """Returns the rules for a model whose parameters have these names."""
        tables = {n: m for n, m in masters.items() if n.startswith("ngrams.")}
        rest = {n: m for n, m in masters.items() if n not in tables}
        adam = AdamRule(
            rest, learning_rate=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )
        return [adam, RowRule(tables, learning_rate=self.ngram_learning_rate)] if tables else [adam]


EXPORT = AdamW
