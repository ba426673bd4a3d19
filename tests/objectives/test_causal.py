"""Next-token prediction."""

import numpy as np
import torch

from gristmill.objectives.causal import Causal
from gristmill.rows import Rows
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
