"""Texts as vectors."""

import numpy as np
import pytest
import torch
from tests.evaluate.models import BOS, CLS, EOS, PIECES, SEP, VOCABULARY, random_model

from gristmill.batch import Visibility
from gristmill.errors import InputError
from gristmill.evaluate.embed import embed, normalised
from gristmill.model.visibility import segment_spans
from gristmill.objectives.base import TokenObjective
from gristmill.objectives.causal import Causal
from gristmill.objectives.hybrid import Hybrid
from gristmill.objectives.masked import Masked
from gristmill.objectives.prefix import Prefix
from gristmill.objectives.trained import visibility_for
from gristmill.vocabulary import Vocabulary

TEXTS = [[0, 1, 2, 7, 8], [0, 3, 4, 5, 6, 7, 2], [9], [4, 5, 6]]
MODELS = {family: random_model(family) for family in ("bert", "modernbert", "qwen3", "gpt2", "lstm", "t5")}


@torch.no_grad()
def states(family: str, row: list[int], *, full: bool = False) -> np.ndarray:
    model, tokens = MODELS[family], torch.tensor([row])
    if family == "t5":
        return model.encode(tokens)[0].numpy()
    spans = segment_spans(torch.ones_like(tokens), Visibility.FULL) if full else None
    return model(tokens, spans=spans)[0].numpy()


@pytest.mark.parametrize("family", MODELS)
def test_the_mean_is_over_all_that_has_seen_text(family):
    expected = []
    for text in TEXTS:
        if family in ("bert", "modernbert"):
            expected.append(states(family, [CLS, *text, SEP]).mean(0))
        elif family == "t5":
            expected.append(states(family, [BOS, *text, EOS]).mean(0))
        else:
            expected.append(states(family, [BOS, *text])[1:].mean(0))
    found = embed(MODELS[family], VOCABULARY, TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_hybrid_reads_texts_in_both_directions():
    found = embed(MODELS["qwen3"], VOCABULARY, TEXTS, visibility=Visibility.FULL)
    expected = [states("qwen3", [BOS, *text], full=True).mean(0) for text in TEXTS]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_cls_is_the_first_state_and_last_that_of_the_last_token():
    found = embed(MODELS["bert"], VOCABULARY, TEXTS, pooling="cls")
    expected = [states("bert", [CLS, *text, SEP])[0] for text in TEXTS]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    found = embed(MODELS["gpt2"], VOCABULARY, TEXTS, pooling="last")
    expected = [states("gpt2", [BOS, *text])[-1] for text in TEXTS]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", MODELS)
def test_a_vector_depends_on_its_text_alone(family):
    together = embed(MODELS[family], VOCABULARY, TEXTS)
    each = np.concatenate([embed(MODELS[family], VOCABULARY, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, each, rtol=1e-4, atol=1e-5)
    small = embed(MODELS[family], VOCABULARY, TEXTS, batch_tokens=8)
    np.testing.assert_allclose(together, small, rtol=1e-4, atol=1e-5)


def test_narrow_weights_are_computed_in_float32():
    narrow = random_model("bert").bfloat16()
    wide = random_model("bert")
    wide.load_state_dict(narrow.state_dict())
    np.testing.assert_array_equal(embed(narrow, VOCABULARY, TEXTS), embed(wide, VOCABULARY, TEXTS))


def test_normalised_vectors_have_length_one_and_nothing_stays_nothing():
    vectors = normalised(np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], dtype=np.float32))
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]], rtol=1e-6)


def test_no_texts_give_no_vectors():
    assert embed(MODELS["bert"], VOCABULARY, []).shape == (0, 32)


def test_how_a_model_reads_follows_from_its_objective():
    decoder, encoder = MODELS["qwen3"].config, MODELS["bert"].config
    found = {
        (type(o).__name__, c.kind): visibility_for(o, c)
        for o, c in [(Causal(), decoder), (Hybrid(), decoder), (Prefix(), decoder), (None, decoder), (Masked(), encoder), (None, encoder)]
    }  # fmt: skip
    assert found == {
        ("Causal", "decoder"): Visibility.CAUSAL,
        ("Hybrid", "decoder"): Visibility.FULL,
        ("Prefix", "decoder"): Visibility.FULL,
        ("NoneType", "decoder"): Visibility.CAUSAL,
        ("Masked", "encoder"): Visibility.FULL,
        ("NoneType", "encoder"): Visibility.FULL,
    }


def test_an_objective_of_the_users_own_says_how_its_model_reads():
    class Own(TokenObjective):
        kinds = frozenset({"decoder"})
        reads_whole = True

        def prepare(self, rows, rng, progress=0.0):
            raise NotImplementedError

    assert visibility_for(Own(), MODELS["qwen3"].config) is Visibility.FULL


BARE = Vocabulary(pieces=PIECES, special={"bos": 0, "eos": 1})


@pytest.mark.parametrize(
    ("family", "pooling", "vocabulary", "message"),
    [
        ("qwen3", "cls", VOCABULARY, '"cls" needs an encoder'),
        ("t5", "cls", VOCABULARY, '"cls" needs an encoder'),
        ("bert", "cls", BARE, r"needs a tokenizer with \[CLS\]"),
        ("bert", "last", VOCABULARY, '"last" is for models that read from left to right'),
        ("t5", "last", VOCABULARY, '"last" is for models that read from left to right'),
    ],
)
def test_a_pooling_that_does_not_suit_the_model_is_refused(family, pooling, vocabulary, message):
    with pytest.raises(InputError, match=message):
        embed(MODELS[family], vocabulary, TEXTS, pooling=pooling)


def test_empty_and_too_long_texts_are_refused():
    with pytest.raises(InputError, match="text 1 is empty"):
        embed(MODELS["bert"], VOCABULARY, [[0], []])
    with pytest.raises(InputError, match="40 tokens, and the model handles 24"):
        embed(MODELS["bert"], VOCABULARY, [[0] * 40])
