"""Telling how alike two texts are, as a number: a regression.

Scores are brought to a spread of about 1 by the ends of those in training, and learned by their squared error. What counts is their
order: the correlations of Spearman (1904) and Pearson with what people said.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.heads import Head
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import Example, Figure, Item, Mistake, Result, ScoredTask, summed, weights_of
from gristmill.adapt.tasks.classification import changed, encoded, texts_of
from gristmill.augment.characters import Edit
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.intervals import Interval
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = ["RatedExample", "Similarity"]


@dataclasses.dataclass(frozen=True)
class RatedExample(Example):
    """Two texts and a number."""

    texts: tuple[str, ...]
    score: float | None

    @property
    def key(self) -> str:
        """Both texts."""
        return "\n".join(self.texts)

    def unlabelled(self) -> "RatedExample":
        """Returns the example without its number."""
        return dataclasses.replace(self, score=None)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Similarity(ScoredTask[RatedExample]):
    """One number for each pair of texts."""

    text: tuple[str, str] = ("text1", "text2")
    """The columns of the two texts."""
    score: str = "score"
    """The column of the number."""

    shape = "example"

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[RatedExample]:
        """Returns the examples of rows.

        Raises:
            InputError: a text is missing or empty, or there is no number.
        """
        found = []
        for row in rows:
            value = field_of(row, self.score) if labelled else row.fields.get(self.score)
            try:
                score = None if value is None else float(value)
            except (TypeError, ValueError):
                score = math.nan
            if score is not None and not math.isfinite(score):
                raise InputError(
                    f'{row.place}: "{self.score}" is {value!r}, expected a number', "mend this row"
                )
            found.append(RatedExample(row.place, texts_of(row, self.text), score))
        return found

    def outputs(self, examples: Sequence[RatedExample]) -> tuple[str, ...]:
        """Returns the lowest and the highest number, as texts: what 0 and 1 stand for.

        Raises:
            InputError: all numbers are the same.
        """
        scores = [example.score for example in examples if example.score is not None]
        low, high = min(scores), max(scores)
        if low == high:
            raise InputError(f"all training examples have the score {low}", "look at the column of scores")
        return (repr(low), repr(high))

    def items(
        self, examples: Sequence[RatedExample], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns an item for each example; the target is 0 for the lowest number in training and 1 for the highest."""
        low, high = map(float, outputs)
        return [
            Item(each, None if example.score is None else (example.score - low) / (high - low), number)
            for number, (example, each) in enumerate(
                zip(examples, encoded(examples, tokenizer, encoder), strict=True)
            )
        ]

    def noised(self, example: RatedExample, change: Callable[[str], Sequence[Edit]]) -> RatedExample:
        """Returns an example with its texts changed."""
        return dataclasses.replace(example, texts=changed(example.texts, change))

    def head(self, config: ModelConfig, outputs: Sequence[str], *, dropout: float, seed: int) -> Head:
        """Returns a head with one score."""
        return Head(config, 1, self.shape, dropout=dropout, seed=seed)

    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the squared error of each example."""
        targets = torch.tensor([item.target for item in items], device=scores.device)
        return summed((scores[:, 0] - targets).square(), weights_of(items, scores))

    def divergence(
        self, scores: Float[Tensor, "N outputs"], other: Float[Tensor, "N outputs"], items: Sequence[Item]
    ) -> Float[Tensor, ""]:
        """Returns the squared differences."""
        return (scores - other).square().sum()

    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[RatedExample],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns the number of each example."""
        low, high = map(float, outputs)
        return [{"score": low + float(row[0]) * (high - low)} for row in scores]

    def result(self, examples: Sequence[RatedExample], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns Spearman's and Pearson's correlation, with the intervals of Fisher's z (Bonett and Wright 2000)."""
        true = np.array([example.score for example in examples], dtype=np.float64)
        said = np.array([each["score"] for each in predictions], dtype=np.float64)
        if len(true) < 3 or np.ptp(true) == 0 or np.ptp(said) == 0:
            return Result({"spearman": Figure(0.0), "pearson": Figure(0.0)})
        spearman = float(scipy.stats.spearmanr(true, said).statistic)
        pearson = float(scipy.stats.pearsonr(true, said).statistic)
        return Result(
            {
                "spearman": Figure(spearman, _interval(spearman, len(true), 1 + spearman**2 / 2)),
                "pearson": Figure(pearson, _interval(pearson, len(true), 1.0)),
            }
        )

    def mistakes(
        self, examples: Sequence[RatedExample], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns the pairs, those first whose number is furthest from what was said."""
        apart = [
            (abs(each["score"] - (example.score or 0.0)), example, each["score"])
            for example, each in zip(examples, predictions, strict=True)
        ]
        return [
            Mistake(example.place, example.key, f"{example.score:g}", f"{said:.2f}")
            for _, example, said in sorted(apart, key=lambda entry: -entry[0])
        ]


def _interval(correlation: float, count: int, variance: float) -> Interval | None:
    if count < 5:
        return None
    z = math.atanh(max(-0.999999, min(0.999999, correlation)))
    reach = 1.959964 * math.sqrt(variance / (count - 3))
    return Interval(math.tanh(z - reach), math.tanh(z + reach))


EXPORT = Similarity
