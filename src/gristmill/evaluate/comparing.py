"""Whether figures of several runs differ, or only wobble: means over seeds, and differences with their intervals.

The seeds of one candidate are the sample; what another set of documents or sentences would have given is another
question, and has intervals of its own (`intervals.py`). With few seeds an interval is wide, as it should be.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Difference", "Mean", "compare_with", "figures_of", "mean_interval", "welch"]

ERROR = 0.05
"""How often, of columns in which nothing differs, one says that something does."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean of some runs and Student's interval of it, None for a single run."""

    mean: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A candidate's mean less the reference's, with Welch's interval, and what can be said of it."""

    reference: str
    mean: float
    interval: tuple[float, float] | None
    """Of the level `confidence`, so that it holds 0 exactly where the difference is within noise."""
    confidence: float
    """1 - 0.05 / m for m comparisons: all intervals of a column hold at once in 95 % of cases (Bonferroni)."""
    p: float | None
    """Corrected for the number of comparisons too: m times what it is alone, and at most 1."""
    within_noise: bool
    """Whether nothing is told from 0: the interval holds it, or can't be known."""


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


def compare_with(
    reference: str, values: Mapping[str, Sequence[float]], *, comparisons: int | None = None
) -> dict[str, Difference]:
    """Returns for every other candidate how it differs from the reference.

    Interval and p are corrected in the same way, Bonferroni's, so that they never contradict each other; Holm's p are
    a little smaller, but have no intervals.

    Args:
        reference: the name of one of the candidates.
        values: each candidate's figure, once for each seed.
        comparisons: how many are made and read together; by default one for each other candidate.
    """
    others = [name for name in values if name != reference]
    count = comparisons or max(1, len(others))
    confidence = 1 - ERROR / count
    found = {}
    for name in others:
        mean, interval, p = welch(values[name], values[reference], confidence)
        found[name] = Difference(
            reference=reference,
            mean=mean,
            interval=interval,
            confidence=confidence,
            p=None if p is None else min(1.0, count * p),
            within_noise=interval is None or interval[0] <= 0.0 <= interval[1],
        )
    return found


def figures_of(
    values: Mapping[str, Sequence[float]], groups: Sequence[Sequence[str]], reference: str
) -> dict[str, dict[str, Any]]:
    """Returns one column of a comparison as JSON values: each candidate's mean, and its difference where it has one.

    Args:
        values: each candidate's figure, once for each seed.
        groups: which candidates may be compared with each other.
        reference: whom the others of its group are compared with; in groups without it that is the first.
    """
    figures = {name: dataclasses.asdict(mean_interval(each)) for name, each in values.items()}
    comparisons = sum(len(group) - 1 for group in groups)
    for group in groups:
        first = reference if reference in group else group[0]
        compared = {name: values[name] for name in group}
        for name, difference in compare_with(first, compared, comparisons=comparisons or None).items():
            figures[name]["difference"] = dataclasses.asdict(difference)
    return figures
