"""Examples side by side are read as they are alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.adapt.encoding import Encoder, pack
from gristmill.batch import Visibility
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.objectives.base import hidden_states
from gristmill.vocabulary import Vocabulary

WORDS = Vocabulary(
    pieces=[b""] * 4 + [b"%d" % i for i in range(60)],
    special={"pad": 0, "cls": 1, "sep": 2, "bos": 3, "eos": 2},
)
TEXT = st.lists(st.integers(4, 63), min_size=1, max_size=9)


def config_of(family: str):
    return resolve(ModelSettings(family=family, depth=2, width=32), vocab_size=64, row_tokens=32)


def test_special_tokens_around_texts_and_between_them() -> None:
    bert, decoder = (Encoder(WORDS, config_of(family), 16) for family in ("bert", "gpt2"))
    assert bert.text([7, 8]).tokens == (1, 7, 8, 2)
    pair = bert.pair([7, 8], [9])
    assert (pair.tokens, pair.first, pair.second) == ((1, 7, 8, 2, 9, 2), 1, 4)
    assert decoder.text([7, 8]).tokens == (3, 7, 8)
    assert decoder.pair([7, 8], [9]).tokens == (3, 7, 8, 2, 9)


@given(TEXT, TEXT, st.integers(8, 16))
def test_what_is_too_long_is_cut_and_counted(one: list[int], other: list[int], most: int) -> None:
    found = Encoder(WORDS, config_of("bert"), most).pair(one, other)
    assert len(found.tokens) == min(most, len(one) + len(other) + 3)
    assert found.cut == max(0, len(one) + len(other) + 3 - most)
    kept = found.second - 2, len(found.tokens) - found.second - 1
    assert found.tokens[1 : found.second - 1] == tuple(one[: kept[0]])
    assert found.tokens[found.second : -1] == tuple(other[: kept[1]])
    if found.cut:  # no text loses anything while it is the shorter one
        assert abs(kept[0] - kept[1]) <= 1 or kept == (len(one), kept[1]) or kept == (kept[0], len(other))


@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2", "qwen3"])
@settings(max_examples=15, deadline=None)
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_side_by_side_examples_do_not_see_each_other(
    family: str, pairs: list[tuple[list[int], list[int]]]
) -> None:
    config = config_of(family)
    model = make_model(config)
    model.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    encoder = Encoder(WORDS, config, 32)
    examples = [encoder.pair(*each) for each in pairs]
    visibility = Visibility.FULL if config.kind == "encoder" else Visibility.CAUSAL
    packed = pack(examples, visibility, token_types=config.token_types > 0)
    together = hidden_states(model, packed.batch)[0]
    for each, start, end in zip(examples, packed.starts.tolist(), packed.ends.tolist(), strict=True):
        alone = hidden_states(model, pack([each], visibility, token_types=config.token_types > 0).batch)[0]
        torch.testing.assert_close(together[start:end], alone, atol=1e-5, rtol=1e-4)


def test_a_length_that_the_model_does_not_read_is_refused() -> None:
    with pytest.raises(InputError, match="maximum_tokens = 64, but the model reads 32"):
        Encoder(WORDS, config_of("bert"), 64)
