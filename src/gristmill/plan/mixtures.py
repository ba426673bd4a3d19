"""Which mixture of groups of text is best, from small runs on a few of them.

Many mixtures are drawn, each is what a small model is trained on once, and a regression says what any other would have given
(RegMix, Liu et al. 2024, arXiv 2407.01492). The regression is the mixing law of Ye et al. 2024 (arXiv 2403.16952) without
its constant: the logarithm of the loss on each group is linear in the shares, so that the loss on text of several groups
is a sum of exponentials: convex, with one best mixture.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from gristmill import rng
from gristmill.errors import InputError

__all__ = ["MixingLaw", "best_mixture", "draw_mixtures", "fit_mixing", "left_out_correlation"]

RIDGE = 1e-3
"""Keeps slopes small where runs are few; shares are of the order of 1, and so are the slopes."""
STRENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Dirichlet concentrations in units of the groups' own shares: from far-off mixtures to ones near the sizes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixingLaw:
    """The loss on each group as a function of the shares: exp(constant + slopes . shares)."""

    constants: Float[np.ndarray, " groups"]
    slopes: Float[np.ndarray, "groups shares"]

    def losses(self, shares: Float[np.ndarray, "mixtures shares"]) -> Float[np.ndarray, "mixtures groups"]:
        """Returns the nats per token on each group."""
        found: Float[np.ndarray, "mixtures groups"] = np.exp(self.constants + shares @ self.slopes.T)
        return found


def draw_mixtures(
    sizes: Float[np.ndarray, " groups"], count: int, seed: int, most: Float[np.ndarray, " groups"]
) -> Float[np.ndarray, "count groups"]:
    """Returns mixtures to try: the sizes' own shares first, then draws around them, none beyond the largest shares.

    Raises:
        InputError: fewer than two groups, or shares that can't fill a run.
    """
    natural = sizes / sizes.sum()
    if len(natural) < 2:
        raise InputError(
            "there is one group of text, so there is nothing to mix",
            'name sources: sources = {books = ["books/"], web = ["web/"]}',
        )
    if most.sum() < 1:
        raise InputError(
            "the groups can't fill the run within the most epochs",
            "raise mix_search.epochs, or train for less",
        )
    generator = rng.stream(seed, "mixtures")
    found = [_within(natural, most)]
    while len(found) < count:
        strength = STRENGTHS[len(found) % len(STRENGTHS)]
        # a group of next to nothing would never be tried
        base = 0.5 * natural + 0.5 / len(natural)
        drawn = generator.dirichlet(strength * len(natural) * base)
        found.append(_within(drawn, most))
    return np.array(found)


def _within(
    shares: Float[np.ndarray, " groups"], most: Float[np.ndarray, " groups"]
) -> Float[np.ndarray, " groups"]:
    """The nearest shares in proportion that stay within the largest ones."""
    shares = np.maximum(shares, 1e-9)
    fixed: Bool[np.ndarray, " groups"] = np.zeros(len(shares), dtype=bool)
    for _ in range(len(shares)):
        left = 1.0 - most[fixed].sum()
        scaled = np.where(fixed, most, shares * left / shares[~fixed].sum())
        over = scaled > most * (1 + 1e-12)
        if not over.any():
            break
        fixed |= over
    return np.asarray(scaled / scaled.sum())


def fit_mixing(
    shares: Float[np.ndarray, "runs shares"], losses: Float[np.ndarray, "runs groups"]
) -> MixingLaw:
    """Returns the law of some runs: ridge regression of the logarithms of losses on shares, a small ridge."""
    # shares sum to one, so a constant would be doubled: slopes are of what differs from the mean
    centre = shares.mean(axis=0)
    x, y = shares - centre, np.log(losses)
    middle = y.mean(axis=0)
    slopes = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - middle)).T
    return MixingLaw(constants=middle - slopes @ centre, slopes=slopes)


def left_out_correlation(
    shares: Float[np.ndarray, "runs shares"],
    losses: Float[np.ndarray, "runs groups"],
    weights: Float[np.ndarray, " groups"],
) -> float:
    """Returns Spearman's correlation of the loss with what the other runs predict of each run: 1 is a perfect order."""
    from scipy.stats import spearmanr

    predicted = []
    for left in range(len(shares)):
        rest = np.arange(len(shares)) != left
        law = fit_mixing(shares[rest], losses[rest])
        predicted.append(float((law.losses(shares[left : left + 1]) @ weights)[0]))
    return float(spearmanr(predicted, losses @ weights).statistic)


def best_mixture(
    law: MixingLaw,
    weights: Float[np.ndarray, " measured"],
    most: Float[np.ndarray, " groups"],
    start: Float[np.ndarray, " groups"],
) -> Float[np.ndarray, " groups"]:
    """Returns the shares with the lowest weighted loss that the law expects, none beyond the largest."""
    from scipy.optimize import minimize

    def loss(shares: Float[np.ndarray, " groups"]) -> float:
        return float((law.losses(shares[None]) @ weights)[0])

    found = minimize(
        loss, _within(start, most), method="SLSQP", bounds=[(0.0, min(1.0, m)) for m in most],
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1.0},
    )  # fmt: skip
    shares = np.clip(found.x, 0.0, None)
    return np.asarray(shares / shares.sum())
