"""Means over seeds and differences between candidates, against scipy's own tests and hand-made cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gristmill.evaluate.comparing import compare_with, figures_of, mean_interval, welch

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


@given(st.lists(numbers, min_size=2, max_size=6))
def test_what_is_said_and_the_interval_that_is_printed_never_contradict(candidates):
    values = {str(i): each for i, each in enumerate(candidates)}
    for difference in compare_with("0", values).values():
        low, high = difference.interval
        assert difference.within_noise == (low <= 0 <= high)
        if abs(difference.p - 0.05) > 1e-6:  # at the edge itself rounding decides
            assert difference.within_noise == (difference.p > 0.05)


def test_with_more_candidates_an_interval_is_wider_so_that_all_hold_at_once():
    values = {"a": [1.0, 1.1, 0.9], "b": [1.4, 1.3, 1.45]}
    alone = compare_with("a", values)["b"]
    among = compare_with("a", {**values, "c": [1.0, 1.1, 1.2], "d": [1.0, 0.9, 1.2]})["b"]
    assert alone.confidence == pytest.approx(0.95)
    assert among.confidence == pytest.approx(1 - 0.05 / 3)
    assert among.p == pytest.approx(3 * alone.p)
    assert among.interval[0] < alone.interval[0] < alone.interval[1] < among.interval[1]


def test_what_overlaps_is_within_noise_and_what_is_far_apart_is_not():
    values = {"a": [1.0, 1.1, 0.9], "b": [1.05, 0.95, 1.1], "c": [3.0, 3.1, 2.9]}
    differences = compare_with("a", values)
    assert set(differences) == {"b", "c"}
    assert differences["b"].within_noise
    assert not differences["c"].within_noise
    assert differences["c"].mean == pytest.approx(2.0)
    assert compare_with("a", {"a": [1.0], "b": [2.0]})["b"].within_noise  # one seed each says nothing


def test_each_group_has_a_reference_of_its_own_and_nothing_is_compared_across_groups():
    values = {name: [float(i), i + 0.1] for i, name in enumerate("abcde")}
    figures = figures_of(values, [["a", "c"], ["b", "d"], ["e"]], reference="c")
    references = {name: figure.get("difference", {}).get("reference") for name, figure in figures.items()}
    assert references == {"a": "c", "b": None, "c": None, "d": "b", "e": None}
    assert figures["a"]["difference"]["confidence"] == pytest.approx(1 - 0.05 / 2)
