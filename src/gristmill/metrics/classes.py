"""Precision, recall and F1 for each class and on average, with intervals, and the layout that people know.

    precision = right / predicted,    recall = right / true,    F1 = 2 right / (predicted + true)

Each is 0 where its denominator is. Averages: micro (of the sums over classes), macro (each class counts the same) and
weighted (each counts as often as it is true): van Rijsbergen 1979; Manning et al. 2008, section 13.6. The F1 of the macro
average is the mean of the classes' F1 (Opitz and Burst 2019, arXiv 1911.03347), as in scikit-learn.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from gristmill.metrics.intervals import Interval, figure_interval

__all__ = ["Average", "ClassReport", "Row", "confusion", "item_report", "label_report", "label_set_report"]

Average = Literal["micro", "macro", "weighted"]
AVERAGES: tuple[Average, ...] = ("micro", "macro", "weighted")
MOST_UNITS = 10_000
"""Beyond, examples are summed in groups before any is drawn for an interval."""


class Row(NamedTuple):
    """The figures of one class, or of an average."""

    precision: float
    recall: float
    f1: float
    support: int
    """How often it is true."""


@final
class ClassReport:
    """What was predicted, counted for each class and example."""

    def __init__(
        self,
        labels: Sequence[str],
        right: Int[np.ndarray, "n k"],
        predicted: Int[np.ndarray, "n k"],
        true: Int[np.ndarray, "n k"],
        *,
        exclusive: bool,
    ) -> None:
        """Takes the counts of each example, or group of examples, for each class.

        Args:
            labels: the classes' names.
            right: how often it was predicted where it is true.
            predicted: how often it was predicted.
            true: how often it is true.
            exclusive: whether each thing has one class and gets one: precision, recall and F1 on micro average are then
                the same number, accuracy.
        """
        self.labels = tuple(labels)
        self.exclusive = exclusive
        self._counts = np.stack([right, predicted, true]).astype(np.float64)

    @property
    def rows(self) -> dict[str, Row]:
        """The figures of each class."""
        right, predicted, true = self._counts.sum(1, keepdims=True)
        precision, recall, f1 = _figures(right, predicted, true)
        return {
            label: Row(float(precision[0, i]), float(recall[0, i]), float(f1[0, i]), int(true[0, i]))
            for i, label in enumerate(self.labels)
        }

    def average(self, how: Average) -> Row:
        """Returns the figures of an average."""
        right, predicted, true = self._counts.sum(1, keepdims=True)
        precision, recall, f1 = _averaged(right, predicted, true, how)
        return Row(float(precision[0]), float(recall[0]), float(f1[0]), int(true.sum()))

    @property
    def accuracy(self) -> float:
        """The share of what is true that was predicted: F1 on micro average where classes exclude each other."""
        return self.average("micro").recall

    def interval(self, how: Average, seed: int = 0) -> Interval | None:
        """Returns the 95 % interval of an average's F1, drawing whole examples; None where there are fewer than two."""
        K = len(self.labels)

        def f1(sums: Float[np.ndarray, "resamples c"]) -> Float[np.ndarray, " resamples"]:
            return _averaged(sums[:, :K], sums[:, K : 2 * K], sums[:, 2 * K :], how)[2]

        return figure_interval(np.concatenate(self._counts, axis=1), f1, seed=seed, name=f"{how} F1")

    def layout(self, digits: int = 2) -> str:
        """Returns the table that scikit-learn's `classification_report` prints, to the character."""
        names = [*self.labels, "weighted avg"]
        width = max([*map(len, names), digits])
        lines = [
            f"{'':>{width}s}  {'precision':>9} {'recall':>9} {'f1-score':>9} {'support':>9}",
            "",
            *(_line(label, row, width, digits) for label, row in self.rows.items()),
            "",
        ]
        for how in AVERAGES:
            row = self.average(how)
            if how == "micro" and self.exclusive:
                blank = f"{'':>9} {'':>9}"
                lines.append(f"{'accuracy':>{width}s}  {blank} {row.f1:>9.{digits}f} {row.support:>9}")
            else:
                lines.append(_line(f"{how} avg", row, width, digits))
        return "\n".join([*lines, ""])


def label_report(
    true: Sequence[str], predicted: Sequence[str], labels: Sequence[str] | None = None
) -> ClassReport:
    """Returns the report of examples that have one class each.

    Args:
        true: the class of each example.
        predicted: what was predicted for it.
        labels: the classes in the order to list them; by default all that occur, sorted.

    Raises:
        ValueError: there are none, as many predictions are missing, or a class is not among `labels`.
    """
    return item_report(
        [[(label,)] for label in true], [[(label,)] for label in predicted], labels, exclusive=True
    )


def label_set_report(
    true: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str] | None = None
) -> ClassReport:
    """Returns the report of examples that have any number of classes; the arguments are those of `label_report`."""
    return item_report(
        [[(label,) for label in set(each)] for each in true],
        [[(label,) for label in set(each)] for each in predicted],
        labels,
        exclusive=False,
    )


def item_report(
    true: Sequence[Collection[tuple[Any, ...]]],
    predicted: Sequence[Collection[tuple[Any, ...]]],
    labels: Sequence[str] | None = None,
    *,
    exclusive: bool,
) -> ClassReport:
    """Returns the report of examples with any number of items each, of which the first part is the class.

    A predicted item is right if the same one, with all of its parts, is true.

    Args:
        true: the items of each example.
        predicted: what was predicted for it.
        labels: the classes in the order to list them; by default all that occur, sorted.
        exclusive: see `ClassReport`.

    Raises:
        ValueError: there are no examples, as many predictions are missing, or a class is not among `labels`.
    """
    if len(true) != len(predicted) or not true:
        raise ValueError(f"{len(predicted)} predictions for {len(true)} examples")
    names = (
        sorted({item[0] for each in (*true, *predicted) for item in each}) if labels is None else list(labels)
    )
    number = {name: i for i, name in enumerate(names)}
    right, said, there = (np.zeros((min(len(true), MOST_UNITS), len(names)), np.int64) for _ in range(3))
    try:
        for unit, (wanted, got) in enumerate(zip(true, predicted, strict=True)):
            row, known = unit % MOST_UNITS, set(wanted)
            for item in wanted:
                there[row, number[item[0]]] += 1
            for item in got:
                said[row, number[item[0]]] += 1
                right[row, number[item[0]]] += item in known
    except KeyError as error:
        raise ValueError(f"the class {error} is not among {', '.join(names)}") from None
    return ClassReport(names, right, said, there, exclusive=exclusive)


def confusion(true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Int[np.ndarray, "k k"]:
    """Returns how often each class (row) was taken for each (column)."""
    number = {name: i for i, name in enumerate(labels)}
    found = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(found, ([number[label] for label in true], [number[label] for label in predicted]), 1)
    return found


def _figures(
    right: Float[np.ndarray, "n k"], predicted: Float[np.ndarray, "n k"], true: Float[np.ndarray, "n k"]
) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Precision, recall and F1 of each class."""
    return _share(right, predicted), _share(right, true), _share(2 * right, predicted + true)


def _averaged(
    right: Float[np.ndarray, "n k"], predicted: Float[np.ndarray, "n k"], true: Float[np.ndarray, "n k"], how: Average
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:  # fmt: skip
    if how == "micro":
        sums = (counts.sum(-1, keepdims=True) for counts in (right, predicted, true))
        precision, recall, f1 = _figures(*sums)
        return precision[..., 0], recall[..., 0], f1[..., 0]
    weights = true if how == "weighted" else np.ones_like(true)
    whole = weights.sum(-1)
    precision, recall, f1 = (
        _share((figure * weights).sum(-1), whole) for figure in _figures(right, predicted, true)
    )
    return precision, recall, f1


def _share(part: Float[np.ndarray, "..."], whole: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    share = np.zeros_like(part)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def _line(name: str, row: Row, width: int, digits: int) -> str:
    figures = " ".join(f"{figure:>9.{digits}f}" for figure in row[:3])
    return f"{name:>{width}s}  {figures} {row.support:>9}"
