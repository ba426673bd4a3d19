"""Whether figures of several runs differ, or only wobble: means over seeds, and differences with their intervals.

The seeds of one candidate are the sample; what another set of documents or sentences would have given is another
question, and has intervals of its own (`intervals.py`). With few seeds an interval is wide, as it should be.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["Difference", "Mean", "compare_with", "holm", "mean_interval", "welch"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean of some runs and Student's interval of it, None for a single run."""

    mean: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A candidate's mean less the reference's, with Welch's interval, and what can be said of it."""

    mean: float
    interval: tuple[float, float] | None
    p: float | None
    """Corrected for the number of candidates (Holm 1979)."""
    within_noise: bool
    """Whether the corrected p is above 0.05, or can't be known."""


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """Returns the mean with Student's t interval: mean ± t s / sqrt(n), n - 1 degrees of freedom (Student 1908)."""
    from scipy import stats

    numbers = np.asarray(values, dtype=np.float64)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Mean(mean=mean, interval=None, values=tuple(numbers.tolist()))
    reach = float(
        stats.t.ppf((1 + confidence) / 2, len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers))
    )
    return Mean(mean=mean, interval=(mean - reach, mean + reach), values=tuple(numbers.tolist()))


def welch(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None, float | None]:
    """Returns mean(a) - mean(b), its interval, and the two-sided p of no difference (Welch 1947: unequal variances).

    Interval and p are None where a side has fewer than two runs. Two sides without any spread differ surely (p = 0)
    or not at all (p = 1).
    """
    from scipy import stats

    x, y = (np.asarray(side, dtype=np.float64) for side in (a, b))
    difference = float(x.mean() - y.mean())
    if len(x) < 2 or len(y) < 2:
        return difference, None, None
    u, v = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    if u + v == 0.0:
        return difference, (difference, difference), float(difference == 0.0)
    freedom = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1))
    error = math.sqrt(u + v)
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom) * error)
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return difference, (difference - reach, difference + reach), p


def holm(ps: Sequence[float]) -> list[float]:
    """Returns the p values corrected for their number, step by step (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(ps, kind="stable")
    corrected, running = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order.tolist()):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = running
    return corrected


def compare_with(reference: str, values: Mapping[str, Sequence[float]]) -> dict[str, Difference]:
    """Returns for every other candidate how it differs from the reference, corrected for how many there are."""
    others = [name for name in values if name != reference]
    raw = {name: welch(values[name], values[reference]) for name in others}
    known = [name for name in others if raw[name][2] is not None]
    corrected = dict(zip(known, holm([raw[name][2] or 0.0 for name in known]), strict=True))
    return {
        name: Difference(
            mean=raw[name][0],
            interval=raw[name][1],
            p=corrected.get(name),
            within_noise=corrected.get(name, 1.0) > 0.05,
        )
        for name in others
    }
