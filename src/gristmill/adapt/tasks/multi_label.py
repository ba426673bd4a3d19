"""Telling which of several classes a text has: any number of them, or none.

Each class is a question of its own: a logistic function and its cross-entropy. A class is predicted where its probability is above
a half.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import Example, Figure, Item, Mistake, Result, ScoredTask, summed, weights_of
from gristmill.adapt.tasks.classification import changed, encoded, texts_of
from gristmill.augment.characters import Edit
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.classes import label_set_report
from gristmill.metrics.intervals import wilson_interval
from gristmill.tokenizer import Tokenizer

__all__ = ["MultiLabel", "SetExample"]


@dataclasses.dataclass(frozen=True)
class SetExample(Example):
    """A text, or two, and its classes."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] | None

    @property
    def key(self) -> str:
        """The text, or both."""
        return "\n".join(self.texts)

    @property
    def kind(self) -> str:
        """The classes."""
        return "\n".join(self.labels or ())

    def unlabelled(self) -> "SetExample":
        """Returns the example without its classes."""
        return dataclasses.replace(self, labels=None)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(ScoredTask[SetExample]):
    """Any number of classes for each text, or pair of texts."""

    text: str | tuple[str, str] = "text"
    """The column of the text, or of both texts of a pair."""
    labels: str = "labels"
    """The column of the classes: a list, or a text in which `separator` stands between them."""
    separator: str = ","
    """What stands between classes where they are one text."""

    shape = "example"

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[SetExample]:
        """Returns the examples of rows.

        Raises:
            InputError: a text is missing or empty, or the classes are no list.
        """
        found = []
        for row in rows:
            value = field_of(row, self.labels) if labelled else row.fields.get(self.labels)
            if isinstance(value, str):
                value = [part.strip() for part in value.split(self.separator) if part.strip()]
            if value is not None and not isinstance(value, list):
                raise InputError(
                    f'{row.place}: "{self.labels}" is {value!r}, expected a list of classes',
                    'of one class for each text the task is "classification"',
                )
            labels = None if value is None else tuple(sorted({str(each) for each in value}))
            found.append(SetExample(row.place, texts_of(row, self.text), labels))
        return found

    def outputs(self, examples: Sequence[SetExample]) -> tuple[str, ...]:
        """Returns the classes, sorted.

        Raises:
            InputError: there are none.
        """
        classes = Counter(label for example in examples for label in example.labels or ())
        if not classes:
            raise InputError("no training example has a class", "look at the column of classes")
        return tuple(sorted(classes))

    def items(
        self, examples: Sequence[SetExample], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns an item for each example, with a 1 for each class that it has.

        Raises:
            InputError: a class is none of those that are told apart.
        """
        numbers = {name: i for i, name in enumerate(outputs)}
        found = []
        for number, (example, each) in enumerate(
            zip(examples, encoded(examples, tokenizer, encoder), strict=True)
        ):
            target = np.zeros(len(outputs), dtype=np.float32)
            for label in example.labels or ():
                if label not in numbers:
                    raise InputError(
                        f'{example.place}: no training example has the class "{label}"',
                        "add some, or take this example out",
                    )
                target[numbers[label]] = 1.0
            found.append(Item(each, target, number))
        return found

    def noised(self, example: SetExample, change: Callable[[str], Sequence[Edit]]) -> SetExample:
        """Returns an example with its texts changed."""
        return dataclasses.replace(example, texts=changed(example.texts, change))

    def labelled(self, example: SetExample, prediction: Mapping[str, Any]) -> tuple[SetExample, float]:
        """Returns an example with the classes that are predicted, and the probability of the least certain yes or no."""
        sure = min(max(p, 1 - p) for p in prediction["probabilities"].values())
        return dataclasses.replace(example, labels=tuple(sorted(prediction["labels"]))), float(sure)

    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the mean cross-entropy over the classes, of each example."""
        targets = torch.from_numpy(np.stack([item.target for item in items])).to(scores.device)
        losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return summed(losses.mean(1), weights_of(items, scores))

    def divergence(
        self, scores: Float[Tensor, "N outputs"], other: Float[Tensor, "N outputs"], items: Sequence[Item]
    ) -> Float[Tensor, ""]:
        """Returns the mean of both Kullback-Leibler divergences of each class's probability, over the classes."""
        return ((scores.sigmoid() - other.sigmoid()) * (scores - other)).mean(1).sum() / 2

    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[SetExample],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns the classes of each example with a probability above a half, and the probabilities of all."""
        found: list[Mapping[str, Any]] = []
        for row in scores:
            shares = 1 / (1 + np.exp(-row.astype(np.float64)))
            said = [name for name, share in zip(outputs, shares, strict=True) if share > 0.5]
            found.append(
                {"labels": said, "probabilities": dict(zip(outputs, map(float, shares), strict=True))}
            )
        return found

    def result(self, examples: Sequence[SetExample], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns F1 on micro and macro average, and the share of examples of which all classes are right."""
        true = [example.labels or () for example in examples]
        said = [tuple(each["labels"]) for each in predictions]
        report = label_set_report(true, said)
        exact = sum(set(one) == set(other) for one, other in zip(true, said, strict=True))
        return Result(
            {
                "micro F1": Figure(report.average("micro").f1, report.interval("micro")),
                "macro F1": Figure(report.average("macro").f1, report.interval("macro")),
                "exact": Figure(exact / len(true), wilson_interval(exact, len(true))),
            },
            report.layout(3),
        )

    def mistakes(
        self, examples: Sequence[SetExample], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns the examples of which not all classes are right, by how sure the model is of what is wrong."""
        found = []
        for example, each in zip(examples, predictions, strict=True):
            true, said = set(example.labels or ()), set(each["labels"])
            if true == said:
                continue
            shares = each["probabilities"]
            sure = max(shares[label] if label in said else 1 - shares[label] for label in true ^ said)
            expected, answer = (", ".join(sorted(labels)) or "none" for labels in (true, said))
            found.append(Mistake(example.place, example.key, expected, answer, sure))
        return sorted(found, key=lambda mistake: -(mistake.probability or 0.0))


EXPORT = MultiLabel
