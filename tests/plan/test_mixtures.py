"""Mixtures: they are shares, the law is found again, and its best mixture is the best."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.plan.mixtures import (
    MixingLaw,
    best_mixture,
    draw_mixtures,
    fit_mixing,
    left_out_correlation,
)

SIZES = np.array([8.0, 1.0, 1.0])
FREE = np.ones(3)
LAW = MixingLaw(
    constants=np.log([3.0, 4.0, 5.0]), slopes=np.array([[-0.4, 0.0, 0.0], [0.1, -0.9, 0.0], [0.0, 0.1, -0.6]])
)


@given(
    st.lists(st.floats(0.01, 100.0), min_size=2, max_size=6), st.integers(2, 30), st.integers(0, 5), st.data()
)
def test_mixtures_are_shares_within_their_bounds(
    sizes: list[float], count: int, seed: int, data: st.DataObject
) -> None:
    most = np.array(data.draw(st.lists(st.floats(0.3, 1.0), min_size=len(sizes), max_size=len(sizes))))
    if most.sum() < 1:
        with pytest.raises(InputError, match="can't fill"):
            draw_mixtures(np.array(sizes), count, seed, most)
        return
    found = draw_mixtures(np.array(sizes), count, seed, most)
    assert found.shape == (count, len(sizes))
    assert np.allclose(found.sum(axis=1), 1.0)
    assert (found >= 0).all()
    assert (found <= most + 1e-6).all()
    assert (found == draw_mixtures(np.array(sizes), count, seed, most)).all()


def test_without_bounds_the_first_is_the_text_as_it_is() -> None:
    assert draw_mixtures(SIZES, 3, 0, FREE)[0] == pytest.approx(SIZES / SIZES.sum())


def test_one_group_can_not_be_mixed() -> None:
    with pytest.raises(InputError, match="nothing to mix"):
        draw_mixtures(np.ones(1), 4, 0, np.ones(1))


def test_a_law_is_found_again_and_orders_what_it_has_not_seen() -> None:
    shares = draw_mixtures(SIZES, 16, 0, FREE)
    losses = LAW.losses(shares)
    found = fit_mixing(shares, losses)
    fresh = draw_mixtures(SIZES, 50, 1, FREE)
    assert found.losses(fresh) == pytest.approx(LAW.losses(fresh), rel=0.01)
    assert left_out_correlation(shares, losses, np.full(3, 1 / 3)) > 0.95


def test_noise_alone_orders_nothing() -> None:
    generator = np.random.default_rng(0)
    shares = draw_mixtures(SIZES, 40, 0, FREE)
    losses = np.exp(generator.normal(1.0, 0.01, shares.shape))
    assert left_out_correlation(shares, losses, np.full(3, 1 / 3)) < 0.4


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3),
    st.lists(st.floats(0.4, 1.0), min_size=3, max_size=3),
)
def test_no_mixture_within_bounds_is_better_than_the_best(weights: list[float], most: list[float]) -> None:
    weight, bounds = np.array(weights), np.array(most)
    best = best_mixture(LAW, weight, bounds, SIZES / SIZES.sum())
    assert best.sum() == pytest.approx(1.0)
    assert (best <= bounds + 1e-6).all()
    others = np.random.default_rng(0).dirichlet(np.ones(3), size=20_000)
    others = others[(others <= bounds).all(axis=1)]
    assert (LAW.losses(best[None]) @ weight)[0] <= (LAW.losses(others) @ weight).min() + 1e-4
