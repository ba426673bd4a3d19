"""Effective-data multipliers: facts that hold for any falling curve."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.compare.multiplier import amount_at, falling, multiplier

AMOUNTS = [0.5, 1.0, 1.5, 2.0]
drops = st.lists(st.floats(1e-3, 1.0), min_size=4, max_size=4)


def descending(steps: list[float]) -> list[float]:
    return [5.0 - sum(steps[: i + 1]) for i in range(len(steps))]


@given(drops)
def test_a_falling_curve_is_itself_and_is_met_at_its_points(steps: list[float]) -> None:
    losses = descending(steps)
    curve = falling(AMOUNTS, losses)
    assert curve.losses.tolist() == losses
    for amount, loss in zip(AMOUNTS, losses, strict=True):
        found, side = amount_at(curve, loss)
        assert found == pytest.approx(amount)
        assert side == 0


@given(st.lists(st.floats(1.0, 9.0), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_what_rises_is_pooled_into_the_nearest_falling_curve(losses: list[float], random: object) -> None:
    from scipy.optimize import isotonic_regression

    amounts = [1.5**i for i in range(len(losses))]
    curve = falling(amounts, losses)
    assert (np.diff(curve.losses) < 0).all()
    assert (np.diff(curve.logs) > 0).all()
    nearest = isotonic_regression(losses, increasing=False).x
    assert sorted(set(np.round(curve.losses, 9))) == sorted(set(np.round(nearest, 9)))


@given(drops, st.floats(0.0, 1.0), st.integers(0, 2))
def test_between_points_it_is_a_line_in_the_logarithm(steps: list[float], part: float, segment: int) -> None:
    losses = descending(steps)
    loss = losses[segment] + part * (losses[segment + 1] - losses[segment])
    expected = AMOUNTS[segment] ** (1 - part) * AMOUNTS[segment + 1] ** part
    assert amount_at(falling(AMOUNTS, losses), loss)[0] == pytest.approx(expected, rel=1e-6)


def test_beyond_the_curve_the_end_is_given_and_said_to_be_one() -> None:
    curve = {amount: [loss, loss + 0.01] for amount, loss in zip(AMOUNTS, (4.0, 3.5, 3.3, 3.2), strict=True)}
    better = multiplier(curve, [3.0, 3.0])
    assert (better.mean, better.above, better.below) == (pytest.approx(2.0), 2, 0)
    worse = multiplier(curve, [4.5, 3.51])
    assert (worse.values, worse.above, worse.below) == (pytest.approx((0.5, 1.0)), 0, 1)


def test_each_seed_is_read_off_its_own_curve_and_the_interval_is_that_of_logarithms() -> None:
    shifts = (0.0, 0.2, -0.1)  # what a seed does to all losses alike is no noise of the step
    curve = {a: [loss + s for s in shifts] for a, loss in zip(AMOUNTS, (4.0, 3.5, 3.3, 3.2), strict=True)}
    same = multiplier(curve, [3.5 + s for s in shifts])
    assert same.mean == pytest.approx(1.0)
    assert same.interval == pytest.approx((1.0, 1.0))
    assert multiplier(curve, [3.4]).interval is None
    halves = multiplier(curve, [4.0, 3.7, 3.1])
    logs = [math.log(0.5), 0.0, math.log(2.0)]
    reach = 4.302652729911275 * np.std(logs, ddof=1) / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert halves.interval is not None
    assert halves.interval == pytest.approx((math.exp(-reach), math.exp(reach)), rel=1e-6)
