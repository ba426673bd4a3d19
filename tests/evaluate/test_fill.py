"""What stands in the gaps of a text, by every kind of model."""

import numpy as np
import pytest
import torch
from tests.evaluate.models import CLS, FIRST_SENTINEL, MASK, PIECES, SEP, VOCABULARY, random_model

from gristmill.errors import InputError
from gristmill.evaluate.fill import Guess, fill
from gristmill.evaluate.scoring import Pseudo, alone, asking_for, sentence_scores
from gristmill.objectives.base import Objective
from gristmill.objectives.causal import Causal
from gristmill.objectives.denoise import Denoise
from gristmill.objectives.detect import Detect
from gristmill.objectives.hybrid import Hybrid
from gristmill.objectives.masked import Masked
from gristmill.objectives.permuted import Permuted
from gristmill.objectives.prefix import Prefix
from gristmill.objectives.spans import Spans

ALL = len(PIECES)
TRAINED: dict[str, tuple[Objective, object]] = {
    "masked": (Masked(), random_model("bert")),
    "permuted": (Permuted(), random_model("modernbert")),
    "hybrid": (Hybrid(), random_model("qwen3")),
    "detect": (Detect(), random_model("bert", generator_layers=1)),
    "spans": (Spans(), random_model("t5")),
    "denoise": (Denoise(), random_model("transformer")),
}
ONE_BY_ONE = {"spans", "denoise"}


def guesses(name: str, tokens: list[int], top_k: int = ALL) -> list[list[Guess]]:
    objective, model = TRAINED[name]
    return fill(model, VOCABULARY, tokens, objective=objective, top_k=top_k)


def chances(found: list[Guess]) -> np.ndarray:
    return np.array([guess.probability for guess in sorted(found)])


@torch.no_grad()
def test_an_encoder_tells_all_gaps_in_one_pass():
    found = guesses("masked", [0, MASK, 7, MASK, 8], top_k=2)
    model = TRAINED["masked"][1]
    expected = model.logits(model(torch.tensor([[CLS, 0, MASK, 7, MASK, 8, SEP]])))[0].double().softmax(-1)
    for gap, column in zip(found, (2, 4), strict=True):
        best = expected[column, :ALL].topk(2)
        assert [guess.id for guess in gap] == best.indices.tolist()
        assert [guess.text.encode() for guess in gap] == [PIECES[guess.id] for guess in gap]
        np.testing.assert_allclose([guess.probability for guess in gap], best.values.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_a_gaps_probabilities_are_those_that_score_a_text(name):
    """So fill-in and pseudo-log-likelihood ask the same question."""
    objective, model = TRAINED[name]
    how = Pseudo(asking_for(objective, model.config), alone)
    (found,) = guesses(name, [MASK])
    scored = sentence_scores(model, VOCABULARY, [[i] for i in range(ALL)], how=how)
    np.testing.assert_allclose(chances(found), np.exp(scored), rtol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_the_likeliest_comes_first_and_special_tokens_never(name):
    for gap in guesses(name, [0, MASK, 7, MASK, MASK]):
        assert sorted(guess.id for guess in gap) == list(range(ALL))
        assert gap == sorted(gap, key=lambda guess: -guess.probability)
        assert 0 < sum(guess.probability for guess in gap) < 1  # special tokens have the rest


@pytest.mark.parametrize("name", TRAINED)
def test_what_follows_a_gap_changes_what_is_told(name):
    (before,), (after,) = guesses(name, [0, MASK, 7, 8]), guesses(name, [0, MASK, 7, 3])
    assert np.abs(chances(before) - chances(after)).max() > 1e-6


@pytest.mark.parametrize("name", sorted(ONE_BY_ONE))
def test_an_encoder_decoder_fills_from_left_to_right_with_the_likeliest(name):
    first, second, third = guesses(name, [0, MASK, MASK, 7, MASK])
    (*_, alone_second, alone_third) = guesses(name, [0, first[0].id, MASK, 7, MASK])
    assert (second, third) == (alone_second, alone_third)
    (last,) = guesses(name, [0, first[0].id, second[0].id, 7, MASK])
    assert third == last


@pytest.mark.parametrize("name", sorted(set(TRAINED) - ONE_BY_ONE))
def test_others_fill_each_gap_as_if_all_stayed_open(name):
    first, second = guesses(name, [0, MASK, 7, MASK])
    (changed,) = guesses(name, [0, first[0].id, 7, MASK])
    assert np.abs(chances(second) - chances(changed)).max() > 1e-6


def test_sentinels_are_gaps_too():
    assert guesses("spans", [0, FIRST_SENTINEL, 7, FIRST_SENTINEL + 1]) == guesses(
        "spans", [0, MASK, 7, MASK]
    )


@pytest.mark.parametrize("objective", [Causal(), Prefix(), None])
def test_a_causal_decoder_refuses(objective):
    model = random_model("qwen3")
    with pytest.raises(InputError, match="has not seen what follows") as raised:
        fill(model, VOCABULARY, [0, MASK], objective=objective)
    assert "gristmill generate" in str(raised.value.hint)


def test_what_can_not_be_filled_is_refused():
    with pytest.raises(InputError, match="no gap"):
        guesses("masked", [0, 1])
    with pytest.raises(InputError, match="30 tokens, and the model handles 24"):
        guesses("masked", [MASK] * 30)
    with pytest.raises(InputError, match="top_k is 0"):
        guesses("masked", [MASK], top_k=0)
    with pytest.raises(InputError, match="no head that predicts tokens"):
        fill(random_model("bert", head="linear", output_bias=False), VOCABULARY, [MASK])
