"""Bits per byte of texts: what is counted, and how it is grouped."""

import math

import numpy as np
import pytest
import torch

from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.evaluate.likelihood import Scored, figures, score_texts
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.transformer import Transformer
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train
from gristmill.train.validate import DocumentScores

TEXTS = [
    Scored(text="In the beginning God created the heaven and the earth.", source="a.txt", language="en"),
    Scored(text="床前明月光，疑是地上霜。", source="b.txt", language="zh"),
    Scored(text="And the earth was without form, and void.", source="a.txt", language="en"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    config = from_dict(TokenizerConfig, {"kind": "bytes"})
    out = tmp_path_factory.mktemp("tokenizer") / "bytes"
    return Tokenizer.from_directory(train(config, [t.text for t in TEXTS], out).path)


@pytest.fixture(scope="module")
def model(tokenizer) -> Transformer:
    settings = ModelSettings(depth=1, width=32, heads=2)
    built = Transformer(resolve(settings, vocab_size=tokenizer.vocab_size, row_tokens=64))
    built.initialise(torch.Generator().manual_seed(0))
    return built.eval()


@torch.no_grad()
def test_a_text_that_fits_a_row_costs_the_sum_of_its_tokens(model, tokenizer):
    scores = score_texts(model, tokenizer, TEXTS, row_tokens=64)
    for i, document in enumerate(TEXTS):
        tokens = torch.tensor([[tokenizer.special["bos"], *tokenizer.encode(document.text)]])
        logits = model.logits(model(tokens[:, :-1]))
        nats = torch.nn.functional.cross_entropy(logits[0].double(), tokens[0, 1:], reduction="sum")
        assert scores.nats[i] == pytest.approx(float(nats), rel=1e-5)
        assert scores.tokens[i] == scores.text_bytes[i] == len(document.text.encode())


def test_the_end_token_costs_nothing_because_it_stands_for_no_text(model, tokenizer):
    whole = score_texts(model, tokenizer, TEXTS, row_tokens=64)
    assert whole.bits_per_byte == pytest.approx(whole.nats.sum() / math.log(2) / whole.text_bytes.sum())


def test_figures_of_groups_add_up_to_those_of_all(model, tokenizer):
    scores = score_texts(model, tokenizer, TEXTS, row_tokens=64)
    result = figures(scores, seed=0, languages=[t.language for t in TEXTS], sources=[t.source for t in TEXTS])
    assert set(result) == {"overall", "by_language", "by_source"}
    for group in ("by_language", "by_source"):
        assert sum(f["tokens"] for f in result[group].values()) == result["overall"]["tokens"]
        bits = sum(f["bits_per_byte"] * f["text_bytes"] for f in result[group].values())
        assert bits / result["overall"]["text_bytes"] == pytest.approx(result["overall"]["bits_per_byte"])
    assert result["by_language"]["zh"]["bits_per_byte_interval"] is None  # one document has no spread
    low, high = result["overall"]["bits_per_byte_interval"]
    assert low <= result["overall"]["bits_per_byte"] <= high


def test_a_uniform_model_needs_the_logarithm_of_the_vocabulary():
    scores = DocumentScores(
        nats=np.array([math.log(256) * 10, math.log(256) * 30]),
        tokens=np.array([10, 30]),
        text_bytes=np.array([10, 30]),
    )
    figure = figures(scores, seed=0)["overall"]
    assert figure["bits_per_byte"] == pytest.approx(8.0)
    assert figure["perplexity"] == pytest.approx(256.0)
    assert figure["bits_per_byte_interval"] == pytest.approx([8.0, 8.0])


def test_nothing_to_measure_is_refused(model, tokenizer):
    with pytest.raises(InputError, match="no text"):
        score_texts(model, tokenizer, [Scored(text="", source="x", language="en")], row_tokens=64)
