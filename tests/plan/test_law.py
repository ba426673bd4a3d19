"""The law of loss: what it says where it is known, and that it is found again from runs that follow it."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.plan.law import (
    PUBLISHED,
    Exponents,
    Law,
    Point,
    best_epochs,
    fit_exponents,
    fit_law,
    fit_overfitting,
    worth_of,
)

CHINCHILLA = Law(
    exponents=Exponents(alpha=0.34, beta=0.28, repetition=15.39), floor=1.69, of_size=406.4, of_tokens=410.7
)


def test_the_published_law_gives_the_published_loss() -> None:
    # Hoffmann et al. 2022, appendix D.2: Gopher (280B, 300B tokens) 1.993, Chinchilla (70B, 1.4T) 1.936, by their formula
    for parameters, tokens, loss in ((280e9, 300e9, 1.993), (70e9, 1.4e12, 1.936)):
        assert CHINCHILLA.loss(parameters, tokens, tokens) == pytest.approx(loss, abs=0.002)


def test_repetition_is_nearly_free_to_four_epochs_and_worth_nothing_in_the_end() -> None:
    # Muennighoff et al. 2023: with R = 15.39, four epochs are worth 3.7 times the text, forty 15 times, more hardly more
    assert worth_of(4.0, 1.0, PUBLISHED) == pytest.approx(3.73, abs=0.01)
    assert worth_of(1e6, 1.0, PUBLISHED) == pytest.approx(16.39)


@given(st.floats(1.0, 1e9), st.floats(1.0, 1e9), st.floats(0.5, 100))
def test_a_repeated_token_is_worth_less_than_a_new_one_and_more_than_nothing(
    tokens: float, unique: float, value: float
) -> None:
    repetition = Exponents(alpha=0.3, beta=0.3, repetition=value)
    worth = worth_of(tokens, unique, repetition)
    assert worth <= tokens * (1 + 1e-9)
    assert worth >= min(tokens, unique) * (1 - 1e-9)
    assert worth_of(tokens * 1.1, unique, repetition) >= worth * (1 - 1e-9)
    assert worth_of(tokens, unique * 1.1, repetition) >= worth * (1 - 1e-9)


def grid(law: Law) -> list[Point]:
    return [
        Point(parameters=n, tokens=d, unique=u, loss=law.loss(n, d, u))
        for n, d, u in itertools.product((3e5, 1e6, 3e6), (3e5, 1e6, 4e6), (2e5, 1e6, 1e8))
    ]


laws = st.builds(
    Law,
    exponents=st.builds(
        Exponents, alpha=st.floats(0.2, 0.6), beta=st.floats(0.2, 0.6), repetition=st.floats(3.0, 30.0)
    ),
    floor=st.floats(0.5, 3.0),
    of_size=st.floats(5.0, 100.0),
    of_tokens=st.floats(20.0, 400.0),
)


@given(laws)
def test_three_terms_are_found_again_with_the_exponents_known(law: Law) -> None:
    found = fit_law(grid(law), law.exponents)
    assert (found.floor, found.of_size, found.of_tokens) == pytest.approx(
        (law.floor, law.of_size, law.of_tokens), rel=1e-5
    )


@settings(max_examples=15, deadline=None)
@given(laws)
def test_small_runs_foretell_large_ones_of_two_texts(law: Law) -> None:
    other = Law(exponents=law.exponents, floor=1.0, of_size=30.0, of_tokens=90.0)
    start = Exponents(alpha=0.35, beta=0.35, repetition=law.exponents.repetition)
    pairs = []
    for each in (law, other):
        once = [p for p in grid(each) if p.tokens <= p.unique]
        small = [p for p in once if p.parameters < 3e6 and p.tokens < 4e6]
        pairs.append((small, [p for p in once if p not in small]))
    found, error = fit_exponents(pairs, start)
    assert error < 2e-3
    assert found.alpha == pytest.approx(law.exponents.alpha, rel=0.5)
    assert found.beta == pytest.approx(law.exponents.beta, rel=0.5)
    assert found.repetition == start.repetition


def test_too_few_runs_fix_nothing() -> None:
    point = Point(parameters=1e6, tokens=1e6, unique=1e6, loss=4.0)
    with pytest.raises(InputError, match="two sizes"):
        fit_law([point] * 5, CHINCHILLA.exponents)


def test_what_repetition_costs_is_found_again() -> None:
    given = Exponents(alpha=0.3, beta=0.4, repetition=15.39, overfitting=0.25)
    law = Law(exponents=given, floor=1.5, of_size=20.0, of_tokens=300.0)

    def points(unique: tuple[float, ...]) -> list[Point]:
        grid = itertools.product((1e5, 1e6), (1e5, 1e6), unique)
        return [Point(parameters=n, tokens=d, unique=u, loss=law.loss(n, d, u)) for n, d, u in grid]

    start = dataclasses.replace(given, overfitting=0.0)
    assert fit_overfitting(points((1e5, 1e7)), start).overfitting == pytest.approx(0.25, abs=1e-3)
    assert fit_overfitting(points((1e7,)), start) == start  # nothing is seen twice
    assert worth_of(8e5, 1e5, given) < worth_of(4e5, 1e5, given)  # by heart


@given(st.floats(0.01, 2.0), st.floats(1.0, 50.0))
def test_no_number_of_epochs_is_worth_more_than_the_best(overfitting: float, repetition: float) -> None:
    given = Exponents(alpha=0.3, beta=0.3, repetition=repetition, overfitting=overfitting)
    best = best_epochs(2e6, 5e5, given)
    for epochs in (0.9 * best, 1.1 * best, best + 1, best + 10):
        worth = worth_of(max(1.0, epochs) * 2e6, 2e6, given, 5e5)
        assert worth <= worth_of(best * 2e6, 2e6, given, 5e5) * 1.001
