"""What is counted before anything runs is what is computed: operations, and what is kept for the backward pass."""

import dataclasses

import numpy as np
import pytest
from tests.objectives.suite import example_rows, random_model, tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gristmill.model import ops
from gristmill.model.config import Kind
from gristmill.model.count import activation_bytes_per_token, training_bytes, training_flops_per_token
from gristmill.objectives.base import Objective, average
from gristmill.objectives.causal import Causal
from gristmill.objectives.denoise import Denoise
from gristmill.objectives.detect import Detect
from gristmill.objectives.hybrid import Hybrid
from gristmill.objectives.masked import Masked
from gristmill.objectives.permuted import Permuted
from gristmill.objectives.prefix import Prefix
from gristmill.objectives.spans import Spans
from gristmill.rng import stream

OBJECTIVES: dict[str, tuple[Objective, Kind, int]] = {
    "causal": (Causal(), "decoder", 64),
    "prefix": (Prefix(share=(0.4, 0.8)), "decoder", 64),
    "hybrid": (Hybrid(), "decoder", 64),
    "masked": (Masked(), "encoder", 64),
    "detect": (Detect(), "encoder", 64),
    # in long rows, so that what is rounded up is little beside what is there
    "permuted": (Permuted(), "encoder", 512),
    "spans": (Spans(), "encoder-decoder", 512),
    "denoise": (Denoise(), "encoder-decoder", 64),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_operations_are_those_that_torch_counts(name, monkeypatch):
    monkeypatch.setattr(ops, "kernels", lambda: None)  # the counter does not see into them
    objective, kind, row_tokens = OBJECTIVES[name]
    config = objective.refine(dataclasses.replace(tiny_config(kind, width=64), vocab_size=2000))
    rows = example_rows(kind, objective.lookahead, row_tokens)
    copies = 4096 // rows.tokens.size
    rows = dataclasses.replace(
        rows, **{f: np.tile(getattr(rows, f), (copies, 1)) for f in ("tokens", "segments", "following")}
    )
    batch = objective.prepare(rows, stream(0, "counted"), 0.5)
    model = random_model(config).train()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        objective.loss(model, batch, 0).total_nats.backward()
    expected = training_flops_per_token(
        config, row_tokens, scored=objective.scored_share, positions=objective.positions_per_token
    )
    # the counter takes whole matrices of attention, also what is hidden in them, and all that is rounded up
    assert counter.get_total_flops() / rows.tokens.size == pytest.approx(expected, rel=0.12)


def test_a_generator_is_kept_for_the_backward_pass_too():
    config = tiny_config("encoder", depth=4)
    both = Detect(generator_depth=0.5).refine(config)
    alone, together = (activation_bytes_per_token(c, bfloat16=True) for c in (config, both))
    assert together == alone * 6 / 4


def test_positions_beside_the_text_take_memory():
    config = tiny_config("encoder")

    def activations(objective: Objective) -> int:
        weights, all_of_it = (
            training_bytes(
                config, micro_tokens=tokens, bfloat16=True, positions=objective.positions_per_token
            )
            for tokens in (0, 6000)
        )
        return all_of_it - weights

    assert activations(Permuted(predicted=0.5)) == 1.5 * activations(Masked())


def test_a_rate_that_is_gone_through_has_the_mean_of_its_lines():
    assert average(0.3) == average((0.3,)) == 0.3
    assert average((0.3, 0.1)) == pytest.approx(0.2)
    assert average((1.0, 0.0, 0.0)) == pytest.approx(0.25)
