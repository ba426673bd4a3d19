"""From the `[model]` table to a model with every size resolved."""

import pytest

from gristmill.errors import InputError
from gristmill.model.config import ModelConfig, ModelSettings, resolve


def resolved(**given) -> ModelConfig:
    return resolve(ModelSettings(**given), vocab_size=1000, row_tokens=128)


def test_the_depth_decides_every_size():
    config = resolved(depth=6)
    assert (config.width, config.heads, config.head_size, config.feed_forward) == (384, 6, 64, 1024)
    assert config.tied
    assert not resolved(depth=12).tied


def test_explicit_sizes_win():
    config = resolved(depth=2, width=96, heads=6, kv_heads=2, feed_forward=100, tied=False)
    assert (config.width, config.heads, config.kv_heads, config.head_size) == (96, 6, 2, 16)
    assert (config.feed_forward, config.tied) == (100, False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"family": "qwen4"}, "qwen4"),
        ({"width": 100, "heads": 3}, "does not divide"),
        ({"heads": 4, "kv_heads": 3}, "not a multiple"),
        ({"family": "gpt2", "heads": 4, "kv_heads": 2}, "does not share keys"),
        ({"family": "gpt2", "width": 64, "heads": 2, "head_size": 16}, "width / heads"),
        ({"maximum_positions": 64}, "less than pretrain.row_tokens"),
        ({"width": 64, "heads": 2, "head_size": 15}, "odd"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused_with_the_next_step(given, message):
    with pytest.raises(InputError, match=message) as caught:
        resolved(**given)
    assert caught.value.hint
