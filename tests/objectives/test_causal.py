"""Next-token prediction, and what the shared suite finds in an objective that is wrong."""

import dataclasses

import numpy as np
import pytest
import torch

from gristmill.batch import Visibility
from gristmill.objectives.causal import Causal
from gristmill.rows import Rows
from tests.objectives import suite
from tests.objectives.suite import check_objective


def test_causal_is_an_objective():
    check_objective(Causal(), predicts_special=True)


def test_the_target_at_a_row_s_end_is_the_token_that_the_other_row_begins_with():
    rows = Rows(
        tokens=np.array([[9, 1, 2, 9, 4, 5]]),
        segments=np.array([[1, 1, 1, 2, 2, 2]]),
        following=np.array([[1, 2, 8, 4, 5, 6]]),
    )
    batch = Causal().prepare(rows, np.random.default_rng(0))
    assert batch.targets.tolist() == [[1, 2, 8, 4, 5, 6]]
    assert torch.equal(batch.weights, torch.ones(1, 6))


def test_what_has_no_follower_does_not_count():
    rows = Rows(
        tokens=np.array([[9, 1, 0]]), segments=np.array([[1, 1, 0]]), following=np.array([[1, -1, -1]])
    )
    assert Causal().prepare(rows, np.random.default_rng(0)).weights.tolist() == [[1.0, 0.0, 0.0]]


def wrong(change) -> suite.Case:
    """A case of the causal objective whose batches are changed."""

    class Wrong(Causal):
        def prepare(self, rows, rng, progress=0.0):
            return change(super().prepare(rows, rng, progress), rng)

    return suite.Case(objective=Wrong(), hiding=Wrong(), config=suite.tiny_config("decoder"))


def test_the_suite_finds_targets_that_are_visible():
    case = wrong(lambda batch, rng: dataclasses.replace(batch, visibility=Visibility.FULL))
    with pytest.raises(AssertionError, match="not close"):
        suite.check_no_target_is_visible_where_it_is_predicted(case)


def test_the_suite_finds_segments_that_see_each_other():
    joined = wrong(lambda batch, rng: dataclasses.replace(batch, segments=torch.ones_like(batch.segments)))
    separate = wrong(lambda batch, rng: batch)
    suite.check_segments_never_see_each_other(separate)
    with pytest.raises(AssertionError):
        suite.check_segments_never_see_each_other(joined)


def test_the_suite_finds_padding_that_counts_and_randomness_of_its_own():
    counted = wrong(lambda batch, rng: dataclasses.replace(batch, weights=torch.ones_like(batch.weights)))
    with pytest.raises(AssertionError):
        suite.check_weights_leave_out_padding_and_special_tokens(counted)
    own = np.random.default_rng()
    random = wrong(
        lambda batch, rng: dataclasses.replace(batch, tokens=batch.tokens + int(own.integers(1 << 40)))
    )
    with pytest.raises(AssertionError):
        suite.check_prepare_is_a_pure_function(random)


def test_the_suite_tells_an_objective_from_which_nothing_is_learned():
    noise = wrong(
        lambda batch, rng: dataclasses.replace(
            batch, targets=torch.from_numpy(rng.integers(0, 256, size=tuple(batch.targets.shape)))
        )
    )
    with pytest.raises(AssertionError, match="nats"):
        suite.check_the_loss_falls(noise)
