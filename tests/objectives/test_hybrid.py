"""Causal and masked rows in one batch."""

import dataclasses

import numpy as np
import pytest
import torch

from gristmill.errors import InputError
from gristmill.objectives.causal import Causal
from gristmill.objectives.choosing import Masking
from gristmill.objectives.hybrid import Hybrid
from gristmill.rng import stream
from tests.objectives.suite import SPECIAL, check_objective, example_rows, random_model, tiny_config

HALF = Hybrid(causal_share=0.5, masking=Masking(rate=0.3))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_hybrid_is_an_objective(share):
    objective = dataclasses.replace(HALF, causal_share=share)
    hiding = dataclasses.replace(objective, masking=Masking(rate=0.3, mask_share=0.8, random_share=0.2))
    check_objective(objective, hiding=hiding, predicts_special=share > 0)


def test_in_causal_rows_it_is_causal():
    rows = example_rows("decoder", 1)
    batch, causal = HALF.prepare(rows, stream(0, "hybrid")), Causal().prepare(rows, stream(0, "any"))
    assert batch.prefix is not None
    of_rows = ~batch.prefix.any(1)
    assert 0 < int(of_rows.sum()) < len(of_rows)
    for name in ("tokens", "targets", "weights"):
        assert torch.equal(getattr(batch, name)[of_rows], getattr(causal, name)[of_rows])


def test_in_masked_rows_a_token_is_told_one_position_before_it():
    rows = example_rows("decoder", 1)
    batch = Hybrid(causal_share=0.0, masking=Masking(rate=0.2, mask_share=1.0, random_share=0.0)).prepare(
        rows, stream(0, "hybrid")
    )
    masked = batch.tokens == SPECIAL["mask"]
    assert torch.equal((batch.weights != 0)[:, :-1], masked[:, 1:])
    assert not (batch.weights != 0)[:, -1].any()
    originals = torch.from_numpy(rows.tokens.copy())
    assert torch.equal(batch.targets[:, :-1][masked[:, 1:]], originals[:, 1:][masked[:, 1:]])
    assert torch.equal(batch.tokens[~masked], originals[~masked])
    assert batch.prefix is not None
    assert torch.equal(batch.prefix, batch.segments != 0)


def test_rows_of_both_kinds_count_as_many_tokens_as_they_have():
    rows = example_rows("decoder", 1)
    batch = HALF.prepare(rows, stream(0, "hybrid"))
    followed = torch.from_numpy(rows.following >= 0)
    assert batch.prefix is not None
    for kind in (batch.prefix.any(1), ~batch.prefix.any(1)):
        torch.testing.assert_close(batch.weights[kind].sum(), followed[kind].sum().float())


def test_the_share_of_causal_rows_holds_on_average_and_may_change_with_the_training():
    rows = example_rows("decoder", 1)
    objective = Hybrid(causal_share=(0.1, 0.75))

    def share(progress: float) -> float:
        counts = []
        for draw in range(200):
            batch = objective.prepare(rows, stream(0, "share", draw), progress)
            assert batch.prefix is not None
            counts.append(float((~batch.prefix.any(1)).float().mean()))
        return float(np.mean(counts))

    assert share(0.0) == pytest.approx(0.1, abs=0.02)
    assert share(1.0) == pytest.approx(0.75, abs=0.02)


@torch.no_grad()
def test_with_causal_rows_alone_its_loss_is_that_of_the_causal_objective():
    rows, model = example_rows("decoder", 1), random_model(tiny_config("decoder"))
    causal, hybrid = Causal(), Hybrid(causal_share=1.0)
    one, other = (o.loss(model, o.prepare(rows, stream(0, "loss"))) for o in (causal, hybrid))
    torch.testing.assert_close(other.mean_nats, one.mean_nats)
    assert set(other.parts) == {"causal"}


@torch.no_grad()
def test_the_parts_are_the_two_halves_of_the_loss():
    rows, model = example_rows("decoder", 1), random_model(tiny_config("decoder"))
    batch = HALF.prepare(rows, stream(0, "parts"))
    loss, scores = HALF.loss(model, batch), HALF.scores(model, batch)
    assert batch.prefix is not None
    for name, of_rows in (("masked", batch.prefix.any(1)), ("causal", ~batch.prefix.any(1))):
        nats, weight = loss.parts[name]
        torch.testing.assert_close(nats / weight, scores.nats[of_rows][scores.counted[of_rows]].mean())
    torch.testing.assert_close(sum(nats for nats, _ in loss.parts.values()), loss.total_nats)


@torch.no_grad()
def test_rows_of_both_kinds_count_alike_in_the_scores_and_each_kind_is_told():
    rows, model = example_rows("decoder", 1), random_model(tiny_config("decoder"))
    batch = HALF.prepare(rows, stream(0, "scores"))
    loss, scores = HALF.loss(model, batch), HALF.scores(model, batch)
    torch.testing.assert_close((scores.nats * scores.weights).sum() / scores.weights.sum(), loss.mean_nats)
    for name, positions in scores.parts.items():
        nats, weight = loss.parts[name]
        torch.testing.assert_close(scores.nats[positions].mean(), nats / weight)
    assert set(scores.parts) == {"causal", "masked"}


def test_a_share_beyond_one_is_refused():
    with pytest.raises(InputError, match="causal_share"):
        Hybrid(causal_share=1.5)
