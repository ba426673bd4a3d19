"""Means over seeds and differences between candidates, against scipy's own tests and hand-made cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gristmill.evaluate.comparing import compare_with, holm, mean_interval, welch

numbers = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@given(numbers)
def test_the_interval_of_a_mean_is_students(values):
    result = mean_interval(values)
    if np.std(values) > 0:
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert result.interval == pytest.approx(expected, abs=1e-9)
    else:
        assert result.interval == pytest.approx((values[0], values[0]))


def test_one_run_has_no_interval():
    assert mean_interval([3.0]).interval is None
    assert welch([3.0], [2.0, 4.0])[1:] == (None, None)


@given(numbers, numbers)
def test_differences_are_welchs(a, b):
    difference, interval, p = welch(a, b)
    assert difference == pytest.approx(np.mean(a) - np.mean(b))
    if min(np.std(a), np.std(b)) > 1e-3:
        theirs = stats.ttest_ind(a, b, equal_var=False)
        assert p == pytest.approx(theirs.pvalue, abs=1e-9)
        assert interval == pytest.approx(theirs.confidence_interval(0.95), abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_makes_a_p_smaller_and_keeps_their_order(ps):
    corrected = holm(ps)
    assert all(0 <= p <= c <= 1 for p, c in zip(ps, corrected, strict=True))
    assert [corrected[i] for i in np.argsort(ps, kind="stable")] == sorted(corrected)
    assert min(corrected) == pytest.approx(min(1.0, len(ps) * min(ps)))


def test_what_overlaps_is_within_noise_and_what_is_far_apart_is_not():
    values = {"a": [1.0, 1.1, 0.9], "b": [1.05, 0.95, 1.1], "c": [3.0, 3.1, 2.9]}
    differences = compare_with("a", values)
    assert set(differences) == {"b", "c"}
    assert differences["b"].within_noise
    assert not differences["c"].within_noise
    assert differences["c"].mean == pytest.approx(2.0)
    assert compare_with("a", {"a": [1.0], "b": [2.0]})["b"].within_noise  # one seed each says nothing
