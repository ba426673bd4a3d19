"""The same figures, and the same table, as scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report, confusion_matrix
from sklearn.preprocessing import MultiLabelBinarizer

from gristmill.metrics.classes import confusion, label_report, label_set_report

LABEL = st.sampled_from(["greeting", "transfer", "余额", "a rather long name of a class"])
CERTAIN = ["greeting", "transfer"]
"""Told right once each: of a single class, or where nothing is right, scikit-learn warns or prints a support of 1.0."""
PAIRS = st.lists(st.tuples(LABEL, LABEL), max_size=40).map(
    lambda pairs: [*pairs, *zip(CERTAIN, CERTAIN, strict=True)]
)
SETS = st.lists(st.tuples(st.sets(LABEL), st.sets(LABEL)), max_size=40).map(
    lambda pairs: [*pairs, *(({each}, {each}) for each in CERTAIN)]
)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(1, 6))
def test_the_table_is_that_of_scikit_learn(pairs: list[tuple[str, str]], digits: int) -> None:
    true, predicted = map(list, zip(*pairs, strict=True))
    wanted = classification_report(true, predicted, digits=digits, zero_division=0.0)
    assert label_report(true, predicted).layout(digits) == wanted


@settings(max_examples=60, deadline=None)
@given(SETS)
def test_so_it_is_where_an_example_has_any_number_of_classes(pairs: list[tuple[set[str], set[str]]]) -> None:
    true, predicted = map(list, zip(*pairs, strict=True))
    labels = sorted(set().union(*true, *predicted))
    binary = MultiLabelBinarizer(classes=labels)
    wanted = classification_report(
        binary.fit_transform(true), binary.transform(predicted), target_names=labels, zero_division=0.0
    )
    without_samples = "".join(line for line in wanted.splitlines(True) if "samples avg" not in line)
    assert label_set_report(true, predicted).layout() == without_samples


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_the_confusion_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    true, predicted = map(list, zip(*pairs, strict=True))
    labels = sorted({*true, *predicted})
    assert (confusion(true, predicted, labels) == confusion_matrix(true, predicted, labels=labels)).all()


def test_an_interval_covers_what_other_examples_would_have_given() -> None:
    generator = np.random.default_rng(0)

    def drawn(count: int) -> tuple[list[str], list[str]]:
        true = generator.choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1])
        wrong = generator.choice(["a", "b", "c"], count)
        return list(true), list(np.where(generator.random(count) < 0.7, true, wrong))

    whole = label_report(*drawn(200_000)).average("macro").f1
    hits = 0
    for seed in range(100):
        interval = label_report(*drawn(400)).interval("macro", seed)
        assert interval is not None
        hits += interval.low <= whole <= interval.high
    assert hits >= 88


def test_accuracy_is_the_share_of_right_predictions() -> None:
    report = label_report(["a", "a", "b", "c"], ["a", "b", "b", "b"])
    assert (report.accuracy, report.average("macro").support) == (0.5, 4)


@pytest.mark.parametrize(
    ("true", "predicted", "labels", "message"),
    [
        (["a"], [], None, "0 predictions for 1 examples"),
        ([], [], None, "0 predictions for 0 examples"),
        (["a"], ["x"], ["a", "b"], "the class 'x' is not among a, b"),
    ],
)
def test_what_does_not_belong_together_is_refused(true, predicted, labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        label_report(true, predicted, labels)
