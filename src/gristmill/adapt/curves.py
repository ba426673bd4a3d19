"""What labels are worth: how the score grows with the number of training examples, and what twice as many would bring.

Models are trained on parts of the training examples, smaller parts within larger ones, several times with other draws. Scores are
those on the validation examples, by which the best epoch is chosen, too: a little too good, the more so the fewer epochs differ by
more than noise; the test examples are not looked at. Through them goes

    score(n) = a - b n^-c,    b >= 0

(a power law with a ceiling: Hestness et al. 2017, arXiv:1712.00409; Rosenfeld et al. 2020, arXiv:1909.12673). What it says of
twice the examples has an interval of two parts: seeds are drawn with replacement, each with all its sizes (as wide as Student's t is,
since seeds are few); and by how much the law, put through the smaller sizes, was off at the largest.
"""

import dataclasses
import json
import math
import shutil
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import scipy.stats
from annotated_types import Gt
from jaxtyping import Float

from gristmill import rng
from gristmill.adapt.data import nested
from gristmill.artifact import write_json
from gristmill.errors import InputError

__all__ = ["CurveRun", "CurveSettings", "Law", "fit_law", "learning_curve", "subsets"]

Positive = Annotated[int, Gt(0)]
Number = float | int
LEAST_SIZES = 4
"""Sizes for a law with three numbers, so that the largest can be left out to see how far it is off."""
POWERS = np.geomspace(0.05, 2.0, 80)
"""The exponents that are tried."""
RESAMPLES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """On how many examples models are trained, to see what labels are worth."""

    sizes: tuple[Annotated[float, Gt(0)], ...] = (0.125, 0.25, 0.5, 1.0)
    """How many examples, in `unit`."""
    unit: Literal["share", "examples", "per_class"] = "share"
    """Shares of the training examples, their number, or how many of each class."""
    seeds: Positive = 3
    """Models for each size, each with its own draw."""
    equal: Literal["epochs", "steps"] = "epochs"
    """What all sizes have in common: passes over their examples, or steps, so that few examples are seen more often."""

    def __post_init__(self) -> None:
        if len(set(self.sizes)) < 2:
            raise InputError(
                "curve.sizes are fewer than two", "a curve has several: sizes = [0.25, 0.5, 1.0]"
            )
        if self.unit == "share" and max(self.sizes) > 1:
            raise InputError(
                f"curve.sizes has {max(self.sizes):g}, which is no share",
                'for numbers of examples set unit = "examples"',
            )
        if self.unit != "share" and any(size != int(size) for size in self.sizes):
            raise InputError("curve.sizes are not whole numbers of examples", 'for shares set unit = "share"')


CurveRun = Callable[[Sequence[int], int, Path], Mapping[str, float]]
"""Returns the figures on the validation examples of a model that was trained, given

- the numbers of the training examples that it learns from, rising,
- the seed of the training,
- a directory for checkpoints; what is there from an earlier attempt is gone on with.
"""


class Law(NamedTuple):
    """score(n) = ceiling - scale n^-power."""

    ceiling: float
    scale: float
    power: float

    def at(self, examples: Number) -> float:
        """Returns the score with so many examples."""
        return self.ceiling - self.scale * math.pow(examples, -self.power)


def subsets(settings: CurveSettings, kinds: Sequence[Hashable], seed: int) -> list[list[int]]:
    """Returns the numbers of the examples of each size, the smallest first and each within the next.

    Raises:
        InputError: there are not so many.
    """
    order, ranks = nested(kinds, seed)
    if settings.unit == "per_class" and set(kinds) == {""}:
        raise InputError('curve.unit = "per_class", but this task has no classes', 'set unit = "examples"')
    if settings.unit == "per_class":
        found = [[i for i, rank in enumerate(ranks) if rank < size] for size in sorted(set(settings.sizes))]
        most = max(ranks) + 1
    else:
        whole = len(kinds) if settings.unit == "share" else 1
        counts = [max(1, round(size * whole)) for size in sorted(set(settings.sizes))]
        found = [sorted(order[:count]) for count in counts]
        most = len(kinds)
    if settings.unit != "share" and max(settings.sizes) > most:
        what = "of any class" if settings.unit == "per_class" else "to learn from"
        raise InputError(
            f"curve.sizes has {max(settings.sizes):g}, but there are {most} examples {what}",
            f"set sizes up to {most}",
        )
    return [part for i, part in enumerate(found) if i == 0 or len(part) > len(found[i - 1])]


def learning_curve(
    settings: CurveSettings,
    kinds: Sequence[Hashable],
    run: CurveRun,
    *,
    figure: str,
    seed: int,
    directory: Path,
    known: Mapping[int, Mapping[str, float]],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Returns the facts of a curve when all its models are trained.

    Args:
        settings: which sizes.
        kinds: of each training example, what there should be its share of: its class.
        run: trains and measures.
        figure: the name of the one that the law is put through.
        seed: of the first model; the next ones have the numbers behind it.
        directory: for what is finished and for what is under way.
        known: the figures of models that were trained on all examples, by their seeds.
        say: told of each model.
    """
    points = []
    for one in range(seed, seed + settings.seeds):
        for chosen in subsets(settings, kinds, one):
            if len(chosen) == len(kinds) and one in known:
                figures = dict(known[one])
            else:
                figures = _kept(run, chosen, one, directory)
            say(f"{len(chosen):,} examples, seed {one}: {figure} {figures[figure]:.4f}")
            points.append({"examples": len(chosen), "seed": one, "figures": figures})
    table = _table(points, figure)
    return {
        "figure": figure,
        "unit": settings.unit,
        "equal": settings.equal,
        "all": len(kinds),
        "points": points,
        "means": [
            {"examples": size, **_mean(scores, _most(table))} for size, scores in zip(table.sizes, table.scores.T.tolist(), strict=True)
        ],
        **_law_facts(table, len(kinds), seed),
    }  # fmt: skip


def fit_law(sizes: Float[np.ndarray, " n"], scores: Float[np.ndarray, " n"], most: float = math.inf) -> Law:
    """Returns the law with the least squared error, of those that rise and never pass `most`."""
    best, law = math.inf, Law(float(scores.mean()), 0.0, 1.0)
    for power in POWERS.tolist():
        x = sizes**-power
        spread = ((x - x.mean()) ** 2).sum()
        slope = -((x - x.mean()) * (scores - scores.mean())).sum() / max(spread, 1e-30)
        ceiling = scores.mean() + slope * x.mean()
        if ceiling > most:
            ceiling, slope = most, ((most - scores) * x).sum() / (x * x).sum()
        if slope < 0:
            ceiling, slope = scores.mean(), 0.0
        error = ((ceiling - slope * x - scores) ** 2).sum()
        if error < best * (1 - 1e-9):
            best, law = error, Law(float(ceiling), float(slope), power)
    return law


# --- points -----------------------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """Scores by seed and size."""

    sizes: list[int]
    scores: Float[np.ndarray, "seeds sizes"]


def _kept(run: CurveRun, chosen: Sequence[int], seed: int, directory: Path) -> dict[str, float]:
    """The figures of a model, trained unless an earlier attempt did."""
    file = directory / f"{len(chosen)}-{seed}.json"
    if file.is_file():
        kept: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    work = directory / f"{len(chosen)}-{seed}"
    figures = dict(run(chosen, seed, work))
    write_json(file, figures)
    shutil.rmtree(work, ignore_errors=True)
    return figures


def _table(points: Sequence[Mapping[str, Any]], figure: str) -> _Table:
    sizes = sorted({point["examples"] for point in points})
    seeds = sorted({point["seed"] for point in points})
    scores = np.empty((len(seeds), len(sizes)))
    for point in points:
        scores[seeds.index(point["seed"]), sizes.index(point["examples"])] = point["figures"][figure]
    return _Table(sizes, scores)


def _mean(scores: Sequence[float], most: float) -> dict[str, Any]:
    mean = statistics.fmean(scores)
    if len(scores) < 2:
        return {"mean": mean, "interval": None}
    reach = _quantile(len(scores)) * statistics.stdev(scores) / len(scores) ** 0.5
    return {"mean": mean, "interval": [mean - reach, min(most, mean + reach)]}


def _quantile(count: int) -> float:
    return float(scipy.stats.t.ppf(0.975, count - 1))


# --- the law ----------------------------------------------------------------------------------------------------------


def _law_facts(table: _Table, examples: int, seed: int) -> dict[str, Any]:
    """The law, what it says of twice the examples, and how far it would have been off at the largest size."""
    if len(table.sizes) < LEAST_SIZES:
        return {"law": None, "twice": None, "check": None}
    without, size = _Table(table.sizes[:-1], table.scores[:, :-1]), table.sizes[-1]
    said, measured = _through(without).at(size), float(table.scores[:, -1].mean())
    off = abs(said - measured)
    law, drawn, most = _through(table), _drawn(table, seed), _most(table)
    twice = law.at(2 * examples)
    gain = twice - law.at(examples)
    return {
        "law": law._asdict(),
        "twice": {
            "examples": 2 * examples,
            "mean": twice,
            "interval": _interval([each.at(2 * examples) for each in drawn], twice, table, off, most),
            "gain": gain,
            "gain_interval": _interval(
                [each.at(2 * examples) - each.at(examples) for each in drawn], gain, table, off
            ),
        },
        "check": {"examples": size, "said": said, "measured": measured},
    }


def _through(table: _Table, seeds: Sequence[int] | None = None) -> Law:
    scores = table.scores if seeds is None else table.scores[seeds]
    sizes = np.tile(np.array(table.sizes, dtype=np.float64), len(scores))
    return fit_law(sizes, scores.ravel(), _most(table))


def _drawn(table: _Table, seed: int) -> list[Law]:
    count = len(table.scores)
    if count < 2:
        return []
    generator = rng.stream(seed, "curve")
    weights = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    laws: dict[tuple[int, ...], Law] = {}  # of few seeds there are few draws
    found = []
    for row in map(tuple, weights.tolist()):
        if row not in laws:
            laws[row] = _through(table, np.repeat(np.arange(count), row).tolist())
        found.append(laws[row])
    return found


def _interval(
    drawn: Sequence[float], middle: float, table: _Table, off: float, most: float = math.inf
) -> list[float] | None:
    """The interval of draws, as wide as it is for so few seeds, and wider by what the law is off."""
    if not drawn:
        return None
    count = len(table.scores)
    # the quantiles of a bootstrap are those of a normal distribution, and its spread is too small by (n - 1) / n
    factor = _quantile(count) / float(scipy.stats.norm.ppf(0.975)) * (count / (count - 1)) ** 0.5
    low, high = np.quantile(np.asarray(drawn), [0.025, 0.975]).tolist()
    reaches = [math.hypot(max(0.0, each) * factor, off) for each in (middle - low, high - middle)]
    return [middle - reaches[0], min(most, middle + reaches[1])]


def _most(table: _Table) -> float:
    """What can't be passed: figures that have not passed 1 are shares or correlations."""
    return 1.0 if table.scores.max() <= 1 else math.inf
