"""Telling the class of a text or of a pair of texts: sentiment, topic, intent, entailment.

A softmax over the classes and its cross-entropy; one example has one class. What settings change of that:

    label_smoothing   the true class has a share of 1 - s + s / C, the others s / C each (Szegedy et al. 2016, arXiv:1512.00567)
    criterion "gce"   (1 - p^q) / q of the true class's probability p, which learns less from examples that are against all
                      that was learned before: labels may be wrong (Zhang and Sabuncu 2018, arXiv:1805.07836)
    head_start        "centroids": the scores begin as those of the nearest class mean (`adapt/centroids.py`)
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, final, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Gt, Interval
from jaxtyping import Float
from torch import Tensor

from gristmill.adapt.centroids import nearest_mean
from gristmill.adapt.encoding import Encoded, Encoder
from gristmill.adapt.heads import Head, Pooling
from gristmill.adapt.net import Net
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import Example, Figure, Item, Mistake, Result, ScoredTask, summed, weights_of
from gristmill.augment.characters import Edit, edited
from gristmill.batch import Loss
from gristmill.errors import InputError, did_you_mean
from gristmill.metrics.classes import confusion, label_report
from gristmill.metrics.intervals import wilson_interval
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = ["Classification", "TextExample", "changed", "encoded", "likeliest_class", "shares", "texts_of"]


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
    class_weights: Literal["balanced"] | Mapping[str, Annotated[float, Gt(0)]] | None = None
    """How much the examples of a class count, each 1 by default; "balanced": those of all classes as much, however many."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    criterion: Literal["cross_entropy", "gce"] = "cross_entropy"
    """What is made small; "gce" where labels may be wrong."""
    gce_q: Annotated[float, Interval(gt=0, le=1)] = 0.7
    """Of "gce": near 0 it is the cross-entropy, 1 is the mean absolute error."""
    pooling: Pooling = "family"
    """What of a text the head reads: as the family's stock class does, or "mean", which sentence encoders were trained for."""
    head_start: Literal["random", "centroids"] = "random"
    """With which weights the head begins: drawn, or such that the nearest class mean of the training examples is told."""

    shape = "example"

    def __post_init__(self) -> None:
        if self.label_smoothing and self.criterion == "gce":
            raise InputError(
                'task.label_smoothing and task.criterion = "gce" are two answers to the same question',
                "set one",
            )

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

    @property
    def untrained(self) -> bool:  # type: ignore[override]
        """Whether it answers before it has learned."""
        return self.head_start == "centroids"

    def settled(self, examples: Sequence[TextExample], seed: int) -> "Classification":
        """Returns the task with a weight for each class where they are to be balanced.

        Raises:
            InputError: a weight is of no class.
        """
        if self.class_weights is None:
            return self
        counts = Counter(str(example.label) for example in examples)
        if self.class_weights == "balanced":
            even = len(examples) / max(1, len(counts))
            return dataclasses.replace(
                self, class_weights={name: even / n for name, n in sorted(counts.items())}
            )
        unknown = sorted(set(self.class_weights) - set(counts))
        if unknown:
            raise InputError(
                f'task.class_weights has "{unknown[0]}", and no training example is of that class',
                did_you_mean(unknown[0], list(counts)),
            )
        return self

    def head(self, config: ModelConfig, outputs: Sequence[str], *, dropout: float, seed: int) -> Head:
        """Returns a head with a score for each class."""
        return Head(config, len(outputs), self.shape, dropout=dropout, seed=seed, pooling=self.pooling)

    def begin(self, net: Net, items: Sequence[Item]) -> None:
        """Gives the head its first weights, where they are not drawn."""
        if self.head_start == "random" or not items:
            return
        assert isinstance(net.head, Head)
        out = net.head.out
        targets = np.array([item.target for item in items])
        weight, bias = nearest_mean(
            net.features_of(items), targets, out.out_features, centred=out.bias is not None
        )
        with torch.no_grad():
            out.weight.copy_(torch.from_numpy(weight))
            if out.bias is not None:
                out.bias.copy_(torch.from_numpy(bias))

    def items(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns an item for each example, with the number of its class.

        Raises:
            InputError: a class is none of those that are told apart.
        """
        numbers = {name: i for i, name in enumerate(outputs)}
        counts = self.class_weights if isinstance(self.class_weights, Mapping) else {}
        found = []
        for number, (example, each) in enumerate(
            zip(examples, encoded(examples, tokenizer, encoder), strict=True)
        ):
            if example.label is not None and example.label not in numbers:
                raise InputError(
                    f'{example.place}: no training example has the class "{example.label}"',
                    "add some, or take this example out",
                )
            target = None if example.label is None else numbers[example.label]
            found.append(Item(each, target, number, counts.get(str(example.label), 1.0)))
        return found

    def noised(self, example: TextExample, change: Callable[[str], Sequence[Edit]]) -> TextExample:
        """Returns an example with its texts changed."""
        return dataclasses.replace(example, texts=changed(example.texts, change))

    def labelled(self, example: TextExample, prediction: Mapping[str, Any]) -> tuple[TextExample, float]:
        """Returns an example with the class that is predicted, and its probability."""
        return dataclasses.replace(example, label=str(prediction["label"])), float(prediction["probability"])

    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the cross-entropy of each example, or what stands in its place."""
        targets = torch.tensor([item.target for item in items], device=scores.device)
        nats = F.cross_entropy(scores, targets, reduction="none", label_smoothing=self.label_smoothing)
        if self.criterion == "gce":
            nats = -torch.expm1(-self.gce_q * nats) / self.gce_q
        return summed(nats, weights_of(items, scores))

    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[TextExample],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns the likeliest class of each example, and the share of the softmax that it has."""
        return likeliest_class(np.stack(scores), outputs)

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

    def mistakes(
        self, examples: Sequence[TextExample], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns the examples of which another class is told, the surest first: among them are wrong labels."""
        found = [
            Mistake(example.place, example.key, str(example.label), each["label"], each["probability"])
            for example, each in zip(examples, predictions, strict=True)
            if each["label"] != example.label
        ]
        return sorted(found, key=lambda mistake: -(mistake.probability or 0.0))


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


def changed(texts: Sequence[str], change: Callable[[str], Sequence[Edit]]) -> tuple[str, ...]:
    """Returns texts with their changes made; one of which nothing would be left stays as it is."""
    found = [edited(text, change(text)) for text in texts]
    return tuple(new if new.strip() else old for new, old in zip(found, texts, strict=True))


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


def likeliest_class(
    scores: Float[np.ndarray, "N outputs"], outputs: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Returns the class with the highest score of each example, and the share of the softmax that it has."""
    found: list[Mapping[str, Any]] = []
    for row in shares(scores):
        best = int(row.argmax())
        found.append({"label": outputs[best], "probability": float(row[best])})
    return found


def shares(scores: Float[np.ndarray, "N outputs"]) -> Float[np.ndarray, "N outputs"]:
    """Returns the softmax of scores."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    divided: Float[np.ndarray, "N outputs"] = raised / raised.sum(axis=-1, keepdims=True)
    return divided


EXPORT = Classification
