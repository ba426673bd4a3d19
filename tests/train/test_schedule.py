"""Budgets and learning-rate plans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.train.schedule import Budget, Plan, parse_budget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 min", Budget(amount=180.0, unit="seconds")),
        ("90s", Budget(amount=90.0, unit="seconds")),
        ("1.5 hours", Budget(amount=5400.0, unit="seconds")),
        ("2000 steps", Budget(amount=2000.0, unit="steps")),
        ("2,000 steps", Budget(amount=2000.0, unit="steps")),
        ("10M tokens", Budget(amount=10_000_000.0, unit="tokens")),
        ("1.2B tokens", Budget(amount=1_200_000_000.0, unit="tokens")),
        ("500k tokens", Budget(amount=500_000.0, unit="tokens")),
        ("4 epochs", Budget(amount=4.0, unit="epochs")),
        ("0.5 epoch", Budget(amount=0.5, unit="epochs")),
        ("1 step", Budget(amount=1.0, unit="steps")),
        ("3 minutes", Budget(amount=180.0, unit="seconds")),
    ],
)
def test_a_budget_is_an_amount_with_a_unit(text, expected):
    assert parse_budget(text) == expected


@pytest.mark.parametrize("text", ["", "3", "min", "-3 min", "0 steps", "3 parsecs", "three epochs"])
def test_what_is_no_budget_is_refused_with_an_example(text):
    with pytest.raises(InputError, match="budget") as caught:
        parse_budget(text)
    assert "3 min" in str(caught.value.hint)


def test_the_learning_rate_rises_holds_and_falls():
    plan = Plan.trapezoid(100, warmup=0.1, cooldown=0.5, final=0.0)
    scales = [plan.scale(step) for step in range(100)]
    assert scales[0] == pytest.approx(0.05)
    assert scales[10:50] == [1.0] * 40
    assert scales[99] == pytest.approx(0.01)
    assert scales[10:] == sorted(scales[10:], reverse=True)


@given(
    steps=st.integers(2, 500),
    at=st.floats(0, 1),
    new=st.integers(1, 800),
    cooldown=st.floats(0.05, 0.95),
    warmup=st.floats(0, 0.05),
)
def test_a_correction_leaves_the_past_and_ends_at_its_end(steps, at, new, cooldown, warmup):
    plan = Plan.trapezoid(steps, warmup=warmup, cooldown=cooldown, final=0.0)
    step = int(at * (steps - 1))
    corrected = plan.refit(step, new, cooldown=cooldown)
    assert [corrected.scale(s) for s in range(step)] == pytest.approx([plan.scale(s) for s in range(step)])
    assert corrected.steps >= max(new, step + 1)
    scales = [corrected.scale(s) for s in range(corrected.steps)]
    assert all(0 <= s <= 1 for s in scales)
    assert corrected.knots == sorted(corrected.knots)
    assert Plan.from_json(corrected.to_json()).knots == corrected.knots
