"""Intervals for what was measured: pure functions of sums per document, or of counts.

Tokens of one document are not independent, so a document is drawn or left out as a whole. An interval says how
far the figure would move with other documents of the same kind; it says nothing about another training seed.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gristmill import rng

__all__ = ["Interval", "figure_interval", "ratio_interval", "wilson_interval"]

MOST_CLUSTERS = (
    10_000  # beyond, documents are drawn in groups: the same variance, and time that stays bounded
)
CELLS_AT_ONCE = 4_000_000  # of the matrix resamples x clusters, to bound memory at 32 MB


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def ratio_interval(
    numerators: Sequence[float | int] | np.ndarray,
    denominators: Sequence[float | int] | np.ndarray,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval | None:
    """Returns the bootstrap interval of `sum(numerators) / sum(denominators)`, drawing whole documents.

    One entry per document: nats and tokens give nats per token; nats / ln 2 and bytes give bits per byte. A long
    document weighs more, as it does in the ratio itself. The percentile interval (Efron and Tibshirani 1993,
    section 13.3) is a little too short below about thirty documents; the number of documents is printed beside
    it for that reason. None where there are fewer than
    two documents: their spread can't be known. A document may add nothing to a denominator, all of them may not.

        >>> ratio_interval([10.0, 10.0, 10.0], [5, 5, 5], seed=0)
        Interval(low=2.0, high=2.0)

    Raises:
        ValueError: the lengths differ, a denominator is negative, or a number is not finite.
    """
    over, under = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if over.ndim != 1 or over.shape != under.shape:
        raise ValueError(f"numerators of shape {over.shape}, but denominators of shape {under.shape}")
    sums = np.stack([over, under], axis=1)
    if not np.isfinite(sums).all() or (sums[:, 1] < 0).any():
        raise ValueError("every entry must be finite, and no denominator negative")
    if not sums[:, 1].any():
        return None

    def ratio(drawn: Float[np.ndarray, "resamples 2"]) -> Float[np.ndarray, " resamples"]:
        ratios: Float[np.ndarray, " resamples"] = drawn[:, 0] / drawn[:, 1]
        return ratios

    return figure_interval(
        sums, ratio, seed=seed, name="ratio_interval", confidence=confidence, resamples=resamples
    )


def figure_interval(
    sums: Float[np.ndarray, "n c"],
    figure: Callable[[Float[np.ndarray, "resamples c"]], Float[np.ndarray, " resamples"]],
    *,
    seed: int,
    name: str = "figure_interval",
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval | None:
    """Returns the bootstrap interval of a figure that follows from sums over documents, drawing whole documents.

    Args:
        sums: what each document adds to each sum, one row per document.
        figure: the figures of several draws, given the sums of each. One that is not finite is left out.
        seed: of the draws.
        name: what is drawn: other figures of the same documents get other draws.
        confidence: the share of draws between the two ends.
        resamples: how often documents are drawn.

    None where there are fewer than two documents.
    """
    _check_confidence(confidence)
    if len(sums) < 2:
        return None
    generator = rng.stream(seed, name)
    sums = _grouped(sums, generator)
    clusters = len(sums)
    figures = np.empty(resamples)
    step = max(1, CELLS_AT_ONCE // clusters)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        counts = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            figures[start : start + rows] = figure(counts @ sums)
    tail = (1 - confidence) / 2
    low, high = np.quantile(figures[np.isfinite(figures)], [tail, 1 - tail])
    return Interval(float(low), float(high))


def wilson_interval(successes: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Returns the score interval of a proportion (Wilson 1927), which stays inside [0, 1] and holds at 0 and 1.

    Raises:
        ValueError: there is nothing to count, or more successes than trials.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"{successes} of {total} is not a proportion")
    _check_confidence(confidence)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / total
    shrink = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / shrink
    reach = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At 0 and at all the end is exact in theory, and off by a rounding error in floating point.
    low = 0.0 if successes == 0 else max(0.0, middle - reach)
    high = 1.0 if successes == total else min(1.0, middle + reach)
    return Interval(low, high)


def _grouped(sums: Float[np.ndarray, "n c"], generator: np.random.Generator) -> Float[np.ndarray, "m c"]:
    """Deals documents at random to at most MOST_CLUSTERS groups, and sums within each."""
    if len(sums) <= MOST_CLUSTERS:
        return sums
    group = generator.permutation(len(sums)) % MOST_CLUSTERS
    return np.stack([np.bincount(group, weights=column) for column in sums.T], axis=1)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
