"""How loss falls with the size of a model, the tokens it sees, and how many of them are new.

    L(N, D, U) = E + A / N^alpha + B / D'^beta,    D' = D, and where D > U, with k = D / U - 1 repetitions,
    D' = U (1 + R (1 - exp(-k / R))) exp(-o k^0.8 N^0.1 / U^0.4),    N and U in millions

Hoffmann et al. 2022 (arXiv 2203.15556, eq. 2) for text that is new all along; Muennighoff et al. 2023 (arXiv 2305.16264,
eq. 5) for text that is repeated: a token that is seen again is worth less each time, and R times the unique text is all
that repetition can add to it. They kept models small enough for their text; with one that learns its text by heart, loss rises
again, the sooner the less text there is: the last factor, which is ours: of the powers that were tried, these fit the
repeated runs of `benchmarks/planner.py fit` best (that script itself fits alpha and beta only). The exponents
are much the same from text to text and are given; E, A and B are the text's own, and linear: a few small runs fix them. So
is o, where runs see their text more than once.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gristmill.errors import InputError

__all__ = [
    "EXPONENTS",
    "REGULARISATION",
    "Exponents",
    "Law",
    "Point",
    "best_epochs",
    "fit_exponents",
    "fit_law",
    "fit_overfitting",
    "worth_of",
]

REGULARISATION: dict[str, Any] = {"dropout": 0.1, "noise": {"replace": 0.1}}
"""What keeps repeated text worth more: settings of `[pretrain]`."""
REPEATED = 1.2
"""Epochs from which on a text counts as repeated."""
WEIGHT = 0.5
"""The power of a run's operations that it counts with."""
OF_REPETITIONS, OF_SIZE, OF_TEXT = 0.8, 0.1, 0.4
"""The powers of overfitting."""
LEAST_OVERFITTING, MOST_OVERFITTING = 0.001, 3.0
"""Of less is said that repetition costs nothing, and no more is looked for."""
PRIOR = 0.01
"""A relative error that counts as much as an exponent that is e times what it was at the start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponents:
    """What is much the same for all text."""

    alpha: float
    """Of the size of the model."""
    beta: float
    """Of the tokens seen."""
    repetition: float
    """R: after so many repetitions another one adds 1/e of what it added at first."""
    overfitting: float = 0.0
    """o: about the share of all worth that a repetition costs, of a million tokens and with a million parameters."""


PUBLISHED = Exponents(alpha=0.34, beta=0.28, repetition=15.39)
"""Those of the two papers."""
EXPONENTS = Exponents(alpha=0.25, beta=0.14, repetition=15.39)
"""With which runs of some 0.4M parameters and 400,000 tokens foretell larger ones best (benchmarks/planner.py fit): so small,
loss still falls much as a power of everything."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run."""

    parameters: float
    """Those that multiply activations: all but tables that are only looked up."""
    tokens: float
    """Seen, repeated ones counted each time."""
    unique: float
    """Tokens of the training text."""
    loss: float = math.nan
    """Nats per token of held-out text."""
    regularised: bool = False
    """Whether it is trained with REGULARISATION."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
    """The loss of one kind of text under one kind of training."""

    exponents: Exponents
    floor: float
    """E: what no model would go below."""
    of_size: float
    """A."""
    of_tokens: float
    """B."""

    def loss(self, parameters: float, tokens: float, unique: float) -> float:
        """Returns the nats per token that a run is expected to reach."""
        point = Point(parameters=parameters, tokens=tokens, unique=unique)
        return float(_terms([point], self.exponents)[0] @ [self.floor, self.of_size, self.of_tokens])


def worth_of(tokens: float, unique: float, exponents: Exponents, parameters: float = 1e6) -> float:
    """Returns how many new tokens are worth what so many tokens of so much unique text are: D'."""
    if tokens <= unique:
        return tokens
    again, R = tokens / unique - 1, exponents.repetition
    lost = (
        exponents.overfitting
        * again**OF_REPETITIONS
        * (parameters / 1e6) ** OF_SIZE
        / (unique / 1e6) ** OF_TEXT
    )
    return unique * (1 + R * -math.expm1(-again / R)) * math.exp(-lost)


def best_epochs(unique: float, parameters: float, exponents: Exponents) -> float:
    """Returns how often text is seen best: more is worth less; infinity where nothing speaks against repetition."""
    if exponents.overfitting <= LEAST_OVERFITTING:
        return math.inf
    epochs = np.geomspace(1, 1000, 3000)
    return float(epochs[np.argmax([worth_of(e * unique, unique, exponents, parameters) for e in epochs])])


def fit_law(points: Sequence[Point], exponents: Exponents) -> Law:
    """Returns the law of some runs: least squares of relative errors, with no term below 0.

    A run counts as the square root of its operations: what is asked for is larger still, and the shortest runs say more of
    their warm-up than of their text.

    Raises:
        InputError: the runs are fewer than three, or all of one size or of one length.
    """
    sizes, lengths = {p.parameters for p in points}, {p.tokens for p in points}
    if len(points) < 3 or len(sizes) < 2 or len(lengths) < 2:
        raise InputError(
            f"{len(points)} runs of {len(sizes)} sizes and {len(lengths)} lengths do not fix a law",
            "it takes three runs at least, of two sizes and of two lengths",
        )
    from scipy.optimize import nnls

    losses = np.array([p.loss for p in points])
    weights = np.array([p.parameters * p.tokens for p in points]) ** WEIGHT
    weights /= weights.max()
    terms = _terms(points, exponents) * (weights / losses)[:, None]
    scale = np.linalg.norm(terms, axis=0)
    found, _ = nnls(terms / scale, weights)
    floor, of_size, of_tokens = (found / scale).tolist()
    return Law(exponents=exponents, floor=floor, of_size=of_size, of_tokens=of_tokens)


def fit_overfitting(points: Sequence[Point], exponents: Exponents) -> Exponents:
    """Returns the exponents with the o that fits some runs best; as they are where no run repeats its text."""
    if all(p.tokens <= REPEATED * p.unique for p in points):
        return exponents
    from scipy.optimize import minimize_scalar

    def at(value: float) -> Exponents:
        return dataclasses.replace(exponents, overfitting=float(value))

    def error(value: float) -> float:
        return float(np.square(_errors(fit_law(points, at(value)), points)).sum())

    return at(minimize_scalar(error, bounds=(0.0, MOST_OVERFITTING), method="bounded").x)


def fit_exponents(
    texts: Sequence[tuple[Sequence[Point], Sequence[Point]]], start: Exponents
) -> tuple[Exponents, float]:
    """Returns alpha and beta with which small runs foretell large ones best, and the root mean square of relative errors.

    What the runs leave open stays near the start.

    Args:
        texts: for each text its small runs, which fix its law, and the large ones, which that foretells; none repeats text.
        start: where to begin.
    """
    from scipy.optimize import least_squares

    def given(logs: Float[np.ndarray, "2"]) -> Exponents:
        alpha, beta = np.exp(logs).tolist()
        return dataclasses.replace(start, alpha=alpha, beta=beta)

    def errors(logs: Float[np.ndarray, "2"]) -> Float[np.ndarray, " runs"]:
        exponents = given(logs)
        return np.concatenate([_errors(fit_law(small, exponents), large) for small, large in texts])

    def residuals(logs: Float[np.ndarray, "2"]) -> Float[np.ndarray, " residuals"]:
        return np.concatenate([errors(logs), PRIOR * (logs - begin)])

    begin = np.log([start.alpha, start.beta])
    found = least_squares(residuals, begin, bounds=(np.log([0.02, 0.02]), np.log([2.0, 2.0])))
    return given(found.x), float(np.sqrt(np.mean(errors(found.x) ** 2)))


def _errors(law: Law, points: Sequence[Point]) -> Float[np.ndarray, " points"]:
    return np.array([law.loss(p.parameters, p.tokens, p.unique) / p.loss - 1 for p in points])


def _terms(points: Sequence[Point], exponents: Exponents) -> Float[np.ndarray, "points 3"]:
    """What E, A and B are multiplied with."""
    rows = [
        (
            1.0,
            p.parameters**-exponents.alpha,
            worth_of(p.tokens, p.unique, exponents, p.parameters) ** -exponents.beta,
        )
        for p in points
    ]
    return np.array(rows)
