"""Every family against the stock class of transformers: tiny random weights, both directions, float32."""

import logging

import pytest
import torch
from tests.noisy import noisy

from gristmill import plugins
from gristmill.batch import Visibility
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import TOLERANCE, from_transformers, to_transformers
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import segment_positions, segment_spans

transformers = pytest.importorskip("transformers")
VOCAB, LENGTH = 61, 24


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    yield
    transformers.utils.logging.set_verbosity(before)


SETTINGS = [
    pytest.param(
        ModelSettings(family=family, depth=2, width=32, heads=4, kv_heads=kv_heads, tied=tied),
        id=f"{family} {kv_heads} {tied}",
    )
    for family, shared in (("qwen3", (4, 2, 1)), ("llama", (4, 2, 1)), ("gpt2", (4,)))
    for kv_heads in shared
    for tied in (True, False)
]


def random_model(model_settings: ModelSettings) -> Transformer:
    return noisy(Transformer(resolve(model_settings, vocab_size=VOCAB, row_tokens=LENGTH)), 0.1)


def test_every_decoder_is_tested_here():
    # encoders and encoder-decoders have files of their own, and recurrent models no stock class
    families = {name: plugins.load("model.families", name) for name in plugins.names("model.families")}
    decoders = {name for name, f in families.items() if f.kind == "decoder" and f.core == "transformer"}
    assert {param.values[0].family for param in SETTINGS} == decoders


@pytest.mark.parametrize("model_settings", SETTINGS)
def test_ours_gives_the_logits_of_the_stock_class_and_comes_back_unchanged(model_settings, tmp_path):
    model = random_model(model_settings)
    assert to_transformers(model, tmp_path, {"bos": 1, "eos": 2, "pad": 0}) <= TOLERANCE
    back = from_transformers(tmp_path)
    assert back.config == model.config
    theirs, ours = back.state_dict(), model.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2"])
@torch.no_grad()
def test_weights_that_the_stock_class_saved_give_its_logits(kind, tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCAB,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=LENGTH,
            bos_token_id=1,
            eos_token_id=2,
        )
    elif kind == "llama":
        config = transformers.LlamaConfig(
            **sizes, num_key_value_heads=2, intermediate_size=48, max_position_embeddings=LENGTH
        )
    else:
        config = transformers.Qwen3Config(
            **sizes, num_key_value_heads=2, head_dim=16, intermediate_size=48, max_position_embeddings=LENGTH
        )
    stock = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in stock.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    stock.save_pretrained(tmp_path)
    model = from_transformers(tmp_path)
    tokens = torch.randint(VOCAB, (2, LENGTH))
    torch.testing.assert_close(model.logits(model(tokens)), stock(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_settings", SETTINGS[::2])
@torch.no_grad()
def test_packed_documents_get_the_logits_that_the_stock_class_gives_each_alone(model_settings, tmp_path):
    model = random_model(model_settings)
    to_transformers(model, tmp_path, {})
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(VOCAB, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    lengths = (5, 12, 4)  # and three of padding
    segments = torch.tensor([[1] * 5 + [2] * 12 + [3] * 4 + [0] * 3])
    visible = (segments[:, None, :] == segments[:, :, None]).tril()
    masked = model(tokens, mask=visible[:, None], positions=segment_positions(segments))
    started = model(
        tokens, spans=segment_spans(segments, Visibility.CAUSAL), positions=segment_positions(segments)
    )
    first = 0
    for length in lengths:
        alone = stock(tokens[:, first : first + length]).logits
        for hidden in (masked, started):
            torch.testing.assert_close(
                model.logits(hidden)[:, first : first + length], alone, rtol=1e-5, atol=1e-5
            )
        first += length
