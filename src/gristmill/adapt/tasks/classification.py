"""Telling the class of a text or of a pair of texts: sentiment, topic, intent, entailment.

A softmax over the classes and its cross-entropy; one example has one class.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gristmill.adapt.encoding import Encoded, Encoder
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import Example, Figure, Item, Result, ScoredTask, summed, weights_of
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.classes import confusion, label_report
from gristmill.metrics.intervals import wilson_interval
from gristmill.tokenizer import Tokenizer

__all__ = ["Classification", "TextExample", "encoded", "shares", "texts_of"]


@dataclasses.dataclass(frozen=True)
class TextExample(Example):
    """A text, or two, and the class."""

    texts: tuple[str, ...]
    label: str | None

    @property
    def key(self) -> str:
        """The text, or both."""
        return "\n".join(self.texts)

    @property
    def kind(self) -> str:
        """The class."""
        return self.label or ""

    def unlabelled(self) -> "TextExample":
        """Returns the example without its class."""
        return dataclasses.replace(self, label=None)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(ScoredTask[TextExample]):
    """One class for each text, or pair of texts."""

    text: str | tuple[str, str] = "text"
    """The column of the text, or of both texts of a pair."""
    label: str = "label"
    """The column of the class."""

    shape = "example"

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[TextExample]:
        """Returns the examples of rows.

        Raises:
            InputError: a text is missing or empty, or a class is.
        """
        found: list[TextExample] = []
        for row in rows:
            label = field_of(row, self.label) if labelled else row.fields.get(self.label)
            if isinstance(label, list | dict) or (label is not None and not str(label).strip()):
                raise InputError(
                    f'{row.place}: "{self.label}" is {label!r}, expected one class',
                    'of several classes for a text the task is "multi_label"',
                )
            found.append(
                TextExample(row.place, texts_of(row, self.text), None if label is None else str(label))
            )
        return found

    def outputs(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        """Returns the classes, sorted.

        Raises:
            InputError: there are fewer than two.
        """
        classes = Counter(str(example.label) for example in examples)
        if len(classes) < 2:
            raise InputError(
                f"the training examples have {len(classes)} class, so there is nothing to tell apart",
                "add examples of another class",
            )
        return tuple(sorted(classes))

    def items(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns an item for each example, with the number of its class.

        Raises:
            InputError: a class is none of those that are told apart.
        """
        numbers = {name: i for i, name in enumerate(outputs)}
        found = []
        for number, (example, each) in enumerate(
            zip(examples, encoded(examples, tokenizer, encoder), strict=True)
        ):
            if example.label is not None and example.label not in numbers:
                raise InputError(
                    f'{example.place}: no training example has the class "{example.label}"',
                    "add some, or take this example out",
                )
            found.append(Item(each, None if example.label is None else numbers[example.label], number))
        return found

    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the cross-entropy of each example."""
        targets = torch.tensor([item.target for item in items], device=scores.device)
        return summed(F.cross_entropy(scores, targets, reduction="none"), weights_of(items, scores))

    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[TextExample],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns the likeliest class of each example, and the share of the softmax that it has."""
        found: list[Mapping[str, Any]] = []
        for row in shares(np.stack(scores)):
            best = int(row.argmax())
            found.append({"label": outputs[best], "probability": float(row[best])})
        return found

    def result(self, examples: Sequence[TextExample], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns accuracy, and F1 on macro and weighted average."""
        true = [str(example.label) for example in examples]
        said = [each["label"] for each in predictions]
        report = label_report(true, said)
        right = sum(one == other for one, other in zip(true, said, strict=True))
        return Result(
            {
                "accuracy": Figure(right / len(true), wilson_interval(right, len(true))),
                "macro F1": Figure(report.average("macro").f1, report.interval("macro")),
                "weighted F1": Figure(report.average("weighted").f1, report.interval("weighted")),
            },
            report.layout(3),
            {
                label: {other: int(count) for other, count in zip(report.labels, row, strict=True) if count}
                for label, row in zip(report.labels, confusion(true, said, report.labels), strict=True)
            },
        )


def texts_of(row: Row, columns: str | tuple[str, ...]) -> tuple[str, ...]:
    """Returns the texts of a row.

    Raises:
        InputError: one is missing, empty, or no text.
    """
    found = []
    for column in (columns,) if isinstance(columns, str) else columns:
        text = field_of(row, column)
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f'{row.place}: "{column}" is {text!r}, expected a text', "mend this row, or take it out"
            )
        found.append(text)
    return tuple(found)


@runtime_checkable
class WithTexts(Protocol):
    """An example of one text, or of two."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts."""


def encoded(examples: Sequence[WithTexts], tokenizer: Tokenizer, encoder: Encoder) -> list[Encoded]:
    """Returns texts and pairs of texts as a model reads them."""
    if not examples:
        return []
    sides = [
        tokenizer.encode_batch([each.texts[i] for each in examples]) for i in range(len(examples[0].texts))
    ]
    if len(sides) == 1:
        return [encoder.text(tokens) for tokens in sides[0]]
    return [encoder.pair(one, other) for one, other in zip(*sides, strict=True)]


def shares(scores: Float[np.ndarray, "N outputs"]) -> Float[np.ndarray, "N outputs"]:
    """Returns the softmax of scores."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    divided: Float[np.ndarray, "N outputs"] = raised / raised.sum(axis=-1, keepdims=True)
    return divided


EXPORT = Classification
