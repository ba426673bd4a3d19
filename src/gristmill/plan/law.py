"""How loss falls with the size of a model, the tokens it sees, and how many of them are new.

    L(N, D, U) = E + A / N^alpha + B / D'^beta,    D' = U + U R (1 - exp(-(D / U - 1) / R)) where D > U, else D

Hoffmann et al. 2022 (arXiv 2203.15556, eq. 2) for text that is new all along; Muennighoff et al. 2023 (arXiv 2305.16264,
eq. 5) for text that is repeated: a token that is seen again is worth less each time, and R times the unique text is all
that repetition can add to it. The exponents are much the same from text to text and are given; E, A
and B are the text's own, and linear: a few small runs fix them. R is the text's own too, where runs see it more than once:
a text of many short documents bears more than one book.
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
    "fit_exponents",
    "fit_law",
    "fit_repetition",
    "worth_of",
]

REGULARISATION: dict[str, Any] = {"dropout": 0.1, "noise": {"replace": 0.1}}
"""What keeps repeated text worth more: settings of `[pretrain]`."""
REPEATED = 1.2
"""Epochs from which on a text counts as repeated."""
REPETITIONS = (0.1, 100.0)
"""Between which R is looked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponents:
    """What is much the same for all text."""

    alpha: float
    """Of the size of the model."""
    beta: float
    """Of the tokens seen."""
    repetition: float
    """R: after so many repetitions another one adds 1/e of what it added at first."""


EXPONENTS = Exponents(alpha=0.34, beta=0.28, repetition=15.39)
"""Those of the two papers."""


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


def worth_of(tokens: float, unique: float, repetition: float) -> float:
    """Returns how many new tokens are worth what so many tokens of so much unique text are: D'."""
    if tokens <= unique:
        return tokens
    return unique * (1 + repetition * -math.expm1(-(tokens / unique - 1) / repetition))


def fit_law(points: Sequence[Point], exponents: Exponents) -> Law:
    """Returns the law of some runs: least squares of relative errors, with no term below 0.

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
    terms = _terms(points, exponents) / losses[:, None]
    scale = np.linalg.norm(terms, axis=0)
    found, _ = nnls(terms / scale, np.ones(len(points)))
    floor, of_size, of_tokens = (found / scale).tolist()
    return Law(exponents=exponents, floor=floor, of_size=of_size, of_tokens=of_tokens)


def fit_repetition(points: Sequence[Point], exponents: Exponents) -> Exponents:
    """Returns the exponents with the R that fits some runs best; as they are where no run sees text a second time."""
    if all(p.tokens <= REPEATED * p.unique for p in points):
        return exponents
    from scipy.optimize import minimize_scalar

    def at(log: float) -> Exponents:
        return dataclasses.replace(exponents, repetition=float(np.exp(log)))

    def error(log: float) -> float:
        law = fit_law(points, at(log))
        return sum((law.loss(p.parameters, p.tokens, p.unique) / p.loss - 1) ** 2 for p in points)

    return at(minimize_scalar(error, bounds=np.log(REPETITIONS), method="bounded").x)


def fit_exponents(texts: Sequence[Sequence[Point]], start: Exponents) -> tuple[Exponents, float]:
    """Returns the exponents with which each text's own law fits its runs best, and the root mean square of relative errors.

    Args:
        texts: the runs of each text, which has its own R; what is returned is their geometric mean.
        start: where to begin; R stays as it is there for a text that no run sees a second time.
    """
    from scipy.optimize import least_squares

    def given(logs: Float[np.ndarray, "2"]) -> Exponents:
        alpha, beta = np.exp(logs).tolist()
        return dataclasses.replace(start, alpha=alpha, beta=beta)

    def residuals(logs: Float[np.ndarray, "2"]) -> Float[np.ndarray, " runs"]:
        parts = []
        for points in texts:
            law = fit_law(points, fit_repetition(points, given(logs)))
            parts.append([law.loss(p.parameters, p.tokens, p.unique) / p.loss - 1 for p in points])
        return np.concatenate(parts)

    begin = np.log([start.alpha, start.beta])
    found = least_squares(residuals, begin, bounds=(np.log([0.05, 0.05]), np.log([1.5, 1.5])))
    fitted = given(found.x)
    logs = [math.log(fit_repetition(points, fitted).repetition) for points in texts]
    repetition = math.exp(sum(logs) / len(logs))
    return dataclasses.replace(fitted, repetition=repetition), float(np.sqrt(np.mean(found.fun**2)))


def _terms(points: Sequence[Point], exponents: Exponents) -> Float[np.ndarray, "points 3"]:
    """What E, A and B are multiplied with."""
    rows = [
        (
            1.0,
            p.parameters**-exponents.alpha,
            worth_of(p.tokens, p.unique, exponents.repetition) ** -exponents.beta,
        )
        for p in points
    ]
    return np.array(rows)
