"""Samplers change scores; `choose` draws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.generate.sampling import (
    SamplingSettings,
    choose,
    min_p,
    repetition_penalty,
    samplers,
    temperature,
    top_k,
    top_p,
)

SCORES = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.97, 0.01, 0.01, 0.01]]).log()
NOTHING: list[list[int]] = [[], []]


def kept(scores: torch.Tensor) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in scores.isfinite()]


def test_temperature_divides_the_scores():
    torch.testing.assert_close(temperature(0.5)(SCORES, NOTHING), SCORES * 2)


def test_top_k_keeps_the_likeliest_and_ties_of_the_last():
    assert kept(top_k(2)(SCORES, NOTHING)) == [[2, 3], [0, 1, 2, 3]]
    assert kept(top_k(9)(SCORES, NOTHING)) == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_top_p_keeps_the_token_that_reaches_the_share():
    assert kept(top_p(0.5)(SCORES, NOTHING)) == [[2, 3], [0]]
    assert kept(top_p(0.75)(SCORES, NOTHING)) == [[1, 2, 3], [0]]


def test_min_p_keeps_what_is_likely_relative_to_the_likeliest():
    assert kept(min_p(0.6)(SCORES, NOTHING)) == [[2, 3], [0]]


def test_repetition_penalty_lowers_scores_of_either_sign():
    changed = repetition_penalty(2.0)(torch.tensor([[1.0, -1.0, 3.0]]), [[0, 1, 1]])
    assert changed.tolist() == [[0.5, -2.0, 3.0]]


def test_the_settings_name_the_samplers_in_the_order_of_transformers():
    everything = SamplingSettings(repetition_penalty=1.1, temperature=0.5, top_k=5, top_p=0.9, min_p=0.1)
    names = [sampler.__qualname__.split(".")[0] for sampler in samplers(everything)]
    assert names == ["repetition_penalty", "temperature", "top_k", "top_p", "min_p"]
    assert samplers(SamplingSettings(temperature=0.0)) == []


def test_our_samplers_do_what_those_of_transformers_do():
    transformers = pytest.importorskip("transformers")
    scores = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) * 3
    sequences = torch.randint(40, (3, 9), generator=torch.Generator().manual_seed(1))
    pairs = [
        (repetition_penalty(1.3), transformers.RepetitionPenaltyLogitsProcessor(1.3)),
        (temperature(0.7), transformers.TemperatureLogitsWarper(0.7)),
        (top_k(7), transformers.TopKLogitsWarper(7)),
        (top_p(0.8), transformers.TopPLogitsWarper(0.8)),
        (min_p(0.1), transformers.MinPLogitsWarper(0.1)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours(scores, sequences.tolist()), theirs(sequences, scores.clone()))


def test_tokens_are_drawn_as_often_as_they_are_likely():
    generator = torch.Generator().manual_seed(0)
    drawn = [int(choose(SCORES[:1], [generator])) for _ in range(4000)]
    shares = [drawn.count(token) / len(drawn) for token in range(4)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)


@given(st.integers(0, 1000))
def test_what_is_ruled_out_is_never_drawn(seed):
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, -50.0, -torch.inf]])
    assert int(choose(scores, [torch.Generator().manual_seed(seed)])) == 1


def test_a_row_draws_the_same_alone_and_in_company():
    together = choose(SCORES, [torch.Generator().manual_seed(5), torch.Generator().manual_seed(6)])
    alone = choose(SCORES[1:], [torch.Generator().manual_seed(6)])
    assert together[1] == alone[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 2.0},
        {"max_new_tokens": 0},
        {"repetition_penalty": 0.0},
        {"stop": ("",)},
    ],
)
def test_a_number_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SamplingSettings(**wrong)
