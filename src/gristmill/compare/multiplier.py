"""How much unique text something is worth: the text that, used plainly, would have given the same loss.

The same recipe is trained on several amounts of text; the loss falls along them. A step that is tried at the amount 1
and reaches the loss that the recipe reaches at the amount 1.4 has an effective-data multiplier of 1.4. Between
amounts the curve is a line in the logarithm of the amount.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gristmill.evaluate.comparing import mean_interval

__all__ = ["Multiplier", "amount_at", "falling", "multiplier"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Multiplier:
    """The geometric mean over seeds, with Student's interval of the logarithms."""

    mean: float
    interval: tuple[float, float] | None
    """None for a single seed."""
    values: tuple[float, ...]
    above: int
    """Seeds whose loss lies below the whole curve: their value is the largest amount, and the true one is larger."""
    below: int
    """Seeds whose loss lies above the whole curve."""


class Curve(NamedTuple):
    """Knots of a falling curve."""

    logs: Float[np.ndarray, " knots"]
    """Logarithms of amounts, ascending."""
    losses: Float[np.ndarray, " knots"]
    """Strictly descending."""


def falling(amounts: Sequence[float], losses: Sequence[float]) -> Curve:
    """Returns the falling curve nearest to the points: pool adjacent violators (Ayer et al. 1955).

    Neighbours that rise, or are level, become one knot at the means of their losses and of the logarithms of their amounts.
    """
    blocks: list[tuple[float, float, int]] = []  # sums of losses and logarithms, and how many
    for amount, loss in sorted(zip(amounts, losses, strict=True)):
        blocks.append((loss, math.log(amount), 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][2] <= blocks[-1][0] / blocks[-1][2]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append((last[0] + before[0], last[1] + before[1], last[2] + before[2]))
    return Curve(
        np.array([logs / count for _, logs, count in blocks]),
        np.array([loss / count for loss, _, count in blocks]),
    )


def amount_at(curve: Curve, loss: float) -> tuple[float, int]:
    """Returns the amount at which a curve has a loss, and 1, -1 or 0: whether the loss lies below it, above it, or on it."""
    log = float(np.interp(-loss, -curve.losses, curve.logs))
    side = int(loss < curve.losses[-1]) - int(loss > curve.losses[0])
    return math.exp(log), side


def multiplier(curve: Mapping[float, Sequence[float]], losses: Sequence[float]) -> Multiplier:
    """Returns what a step is worth that was tried with the amount 1.

    Args:
        curve: the losses without the step, one for each seed, by the amount of text.
        losses: those with the step, with the same seeds in the same order.
    """
    values, sides = [], []
    for seed, loss in enumerate(losses):
        own = falling(list(curve), [each[seed] for each in curve.values()])
        value, side = amount_at(own, loss)
        values.append(value)
        sides.append(side)
    logs = mean_interval([math.log(value) for value in values])
    interval = None if logs.interval is None else (math.exp(logs.interval[0]), math.exp(logs.interval[1]))
    return Multiplier(
        mean=math.exp(logs.mean),
        interval=interval,
        values=tuple(values),
        above=sides.count(1),
        below=sides.count(-1),
    )
