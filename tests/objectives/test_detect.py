"""Which tokens a generator has replaced."""

import dataclasses

import pytest
import torch

from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.objectives import detect
from gristmill.objectives.base import hidden_states
from gristmill.objectives.detect import Detect, ForGenerator
from gristmill.rng import stream
from tests.objectives.suite import SPECIAL, check_objective, example_rows, random_model, tiny_config

CONFIG = Detect().refine(tiny_config("encoder"))


def test_detect_is_an_objective():
    check_objective(Detect(), part="detector", draws=True, falls_to=0.7)


def test_what_the_generator_reads_is_masked_and_what_it_should_say_is_the_text():
    rows = example_rows("encoder", 0)
    batch = Detect().prepare(rows, stream(0, "detect"))
    assert torch.equal(batch.tokens == SPECIAL["mask"], batch.weights != 0)
    assert torch.equal(batch.tokens[batch.weights == 0], batch.targets[batch.weights == 0])


@torch.no_grad()
def test_only_masked_tokens_are_replaced_and_the_seed_decides_by_what():
    model = random_model(CONFIG)
    batch = Detect().prepare(example_rows("encoder", 0), stream(0, "detect"))
    replaced, _, _ = detect._replace(model, batch, 1)
    assert torch.equal(replaced[batch.weights == 0], batch.targets[batch.weights == 0])
    assert (replaced != batch.targets).any()
    assert torch.equal(detect._replace(model, batch, 1)[0], replaced)
    assert not torch.equal(detect._replace(model, batch, 2)[0], replaced)


@torch.no_grad()
def test_the_loss_is_the_generators_and_fifty_times_the_detectors():
    model = random_model(CONFIG)
    batch = Detect().prepare(example_rows("encoder", 0), stream(0, "detect"))
    loss = Detect().loss(model, batch, dropout_seed=3)
    generator, detector = (nats / weight for nats, weight in loss.parts.values())
    torch.testing.assert_close(loss.mean_nats, generator + 50 * detector)
    # the detector's mean is that over all tokens
    batches = dataclasses.replace(batch, detection_weights=(batch.segments != 0).float())
    nats, count = Detect().loss(model, batches, dropout_seed=3).parts["detector"]
    assert count == (batch.segments != 0).sum()
    torch.testing.assert_close(nats / count, detector)


def test_rows_count_alike_whether_they_are_in_memory_together_or_not(monkeypatch):
    """What the generator says is drawn; here it is its first guess, so that it is the same in both."""

    def first_guess(model, states, seed):
        return torch.nn.functional.linear(states, model.output_weight, model.output_bias).argmax(-1)

    monkeypatch.setattr(detect, "_said", first_guess)
    batch = Detect().prepare(example_rows("encoder", 0), stream(0, "split"))
    results = []
    for batches in ([batch], batch.split(1)):
        model = random_model(CONFIG)
        total = torch.stack([Detect().loss(model, one).total_nats for one in batches]).sum()
        total.backward()
        results.append((total.detach(), [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
    for apart, together in zip(results[1][1], results[0][1], strict=True):
        torch.testing.assert_close(apart, together, rtol=1e-3, atol=1e-4 * float(together.abs().max()))


def test_detection_teaches_the_generator_nothing():
    batch = Detect().prepare(example_rows("encoder", 0), stream(0, "detect"))
    gradients = []
    for weight in (0.0, 50.0):
        model = random_model(CONFIG)
        Detect(detection_weight=weight).loss(model, batch).mean_nats.backward()
        assert model.generator is not None
        gradients.append([parameter.grad for parameter in model.generator.parameters()])
    for without, with_detection in zip(*gradients, strict=True):
        torch.testing.assert_close(with_detection, without)


@torch.no_grad()
def test_a_token_that_the_generator_guessed_counts_as_the_original(monkeypatch):
    model = random_model(CONFIG)
    batch = Detect().prepare(example_rows("encoder", 0), stream(0, "detect"))
    originals = batch.targets[batch.weights != 0]

    def guess(model, states, seed):
        return torch.cat([originals, originals.new_zeros(len(states) - len(originals))])

    monkeypatch.setattr(detect, "_said", guess)
    assert torch.equal(detect._replace(model, batch, 0)[0], batch.targets)
    logits = model.detect(hidden_states(model, dataclasses.replace(batch, tokens=batch.targets)))
    scores = Detect().scores(model, batch)
    torch.testing.assert_close(
        scores.nats[scores.counted], torch.nn.functional.softplus(logits)[scores.counted]
    )


@pytest.mark.parametrize(
    ("layers", "share", "expected"), [(4, 0.5, 2), (3, 0.5, 2), (12, 0.25, 3), (1, 0.1, 1)]
)
def test_the_generator_has_a_share_of_the_layers_rounded_up(layers, share, expected):
    config = tiny_config("encoder", depth=layers)
    assert Detect(generator_depth=share).refine(config).generator_layers == expected


def test_a_family_without_a_place_for_the_detector_is_refused():
    with pytest.raises(InputError, match='"qwen3" has none') as caught:
        Detect().refine(tiny_config("decoder"))
    assert caught.value.hint == 'set model.family = "bert" (or leave it out)'


def test_rates_are_those_of_its_masking():
    rows = example_rows("encoder", 0)
    few, many = (
        Detect(masking=ForGenerator(rate=rate)).prepare(rows, stream(0, "rate")) for rate in (0.1, 0.4)
    )
    assert many.weights.sum() > 3 * few.weights.sum()


def test_what_a_recipe_says_of_its_masking_leaves_the_rest_as_in_the_paper():
    assert from_dict(Detect, {"masking": {"unit": "word"}}).masking == ForGenerator(
        rate=0.15, mask_share=1.0, random_share=0.0, unit="word"
    )
