"""Encoders against the stock classes of transformers: tiny random weights, both directions, float32."""

import dataclasses
import json
import logging

import pytest
import safetensors.torch
import torch
from tests.noisy import noisy

from gristmill import plugins
from gristmill.batch import Visibility
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.generate import load_run
from gristmill.generate.portable import export_run, import_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import (
    TOLERANCE,
    from_transformers,
    to_transformers,
)
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import segment_positions, segment_spans
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train

transformers = pytest.importorskip("transformers")
VOCAB, LENGTH = 61, 48
IDS = {"pad": 0, "bos": 1, "eos": 2, "mask": 3, "cls": 4, "sep": 5}

FAMILIES = {"bert", "modernbert"}
"""The families that are proven here; the other golden files name theirs."""


@pytest.fixture(autouse=True)
def _quiet():
    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    yield
    transformers.utils.logging.set_verbosity(before)


BERT = ModelSettings(family="bert", depth=2, width=32, heads=4)
MODERN = ModelSettings(family="modernbert", depth=4, width=32, heads=4, window=4)

MODELS = {
    "bert": (BERT, {}),
    "bert, deeper": (ModelSettings(family="bert", depth=3, width=48, heads=2, feed_forward=40), {}),
    "bert with pairs": (BERT, {"pair_head": True}),
    "electra": (BERT, {"generator_layers": 1}),
    "bert, bare": (BERT, {"head": "linear", "output_bias": False}),
    "modernbert": (MODERN, {}),
    "modernbert, all layers global": (dataclasses.replace(MODERN, window=None, global_every=1), {}),
    "modernbert, one layer": (dataclasses.replace(MODERN, depth=1), {}),
    "modernbert, every second": (dataclasses.replace(MODERN, global_every=2, width=40, heads=2), {}),
    "modernbert, published window": (dataclasses.replace(MODERN, window=None), {}),
    "modernbert, bare": (MODERN, {"head": "linear", "output_bias": False}),
}


def random_model(name: str, length: int = LENGTH) -> Transformer:
    settings, changes = MODELS[name]
    config = dataclasses.replace(resolve(settings, vocab_size=VOCAB, row_tokens=length), **changes)
    return noisy(Transformer(config), 0.1)


def random_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(1))


def stock_class(directory):
    (name,) = json.loads((directory / "config.json").read_text())["architectures"]
    return getattr(transformers, name)


def loaded(directory):
    """The stock model, every tensor of which came out of the file."""
    model, report = stock_class(directory).from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True
    )
    pooler = {"pooler.dense.weight", "pooler.dense.bias"}  # of a trunk that never had one
    assert set(report["missing_keys"]) <= (pooler if type(model).__name__ == "BertModel" else set())
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return model.eval()


def outputs(model: Transformer, stock, tokens, *, mask=None, **ours):
    """The last hidden states and the scores of every head: ours and theirs."""
    types = ours.get("token_types")
    given = {} if types is None else {"token_type_ids": types}
    hidden = model(tokens, **ours)
    theirs = stock(tokens, attention_mask=mask, **given)
    trunk = stock.base_model(tokens, attention_mask=mask, **given)
    found = {"hidden": (hidden, trunk.last_hidden_state)}
    if isinstance(stock, transformers.BertForPreTraining):
        found["logits"] = (model.logits(hidden), theirs.prediction_logits)
        found["pair"] = (model.pair_logits(hidden[:, 0]), theirs.seq_relationship_logits)
    elif isinstance(stock, transformers.ElectraForPreTraining):
        found["detected"] = (model.detect(hidden), theirs.logits)
    elif not isinstance(stock, transformers.BertModel | transformers.ModernBertModel):
        found["logits"] = (model.logits(hidden), theirs.logits)
    return found


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", "BertForMaskedLM"),
        ("bert with pairs", "BertForPreTraining"),
        ("electra", "ElectraForPreTraining"),
        ("bert, bare", "BertModel"),
        ("modernbert", "ModernBertForMaskedLM"),
        ("modernbert, bare", "ModernBertModel"),
    ],
)
def test_the_heads_decide_the_stock_class(name, expected, tmp_path):
    to_transformers(random_model(name), tmp_path, IDS)
    assert stock_class(tmp_path) is getattr(transformers, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert {key: getattr(config, f"{key}_token_id") for key in IDS} == IDS


@pytest.mark.parametrize("name", [name for name in MODELS if name != "electra"])
def test_an_export_comes_back_unchanged(name, tmp_path):
    model = random_model(name)
    assert to_transformers(model, tmp_path, IDS) <= TOLERANCE
    back = from_transformers(tmp_path)
    assert back.config == model.config
    theirs, ours = back.state_dict(), model.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_no_special_token_is_needed_for_an_export(tmp_path):
    # the stock classes have ids of their own, which a small vocabulary does not reach
    for name in ("bert", "modernbert", "electra"):
        assert to_transformers(random_model(name), tmp_path, {}) <= TOLERANCE


@pytest.mark.parametrize("name", list(MODELS))
@torch.no_grad()
def test_hidden_states_and_scores_are_those_of_the_stock_class(name, tmp_path):
    model = random_model(name)
    to_transformers(model, tmp_path, IDS)
    stock = loaded(tmp_path)
    for length in (1, 7, LENGTH):
        for pair in outputs(model, stock, random_tokens(3, length)).values():
            close(*pair)


@pytest.mark.parametrize("name", list(MODELS))
@torch.no_grad()
def test_padding_changes_nothing(name, tmp_path):
    model = random_model(name)
    to_transformers(model, tmp_path, IDS)
    stock = loaded(tmp_path)
    tokens, lengths = random_tokens(3, LENGTH), (LENGTH, 20, 3)
    segments = torch.stack([(torch.arange(LENGTH) < length).long() for length in lengths])
    found = outputs(model, stock, tokens, mask=segments, spans=segment_spans(segments, Visibility.FULL))
    for which, (ours, theirs) in found.items():
        for row, length in enumerate(lengths):
            close(ours[row], theirs[row]) if which == "pair" else close(
                ours[row, :length], theirs[row, :length]
            )


@pytest.mark.parametrize("name", list(MODELS))
@torch.no_grad()
def test_each_document_of_a_packed_row_gets_what_the_stock_class_gives_it_alone(name, tmp_path):
    model = random_model(name)
    to_transformers(model, tmp_path, IDS)
    stock = loaded(tmp_path)
    tokens, lengths = random_tokens(1, LENGTH), (5, 30, 8)  # and five of padding
    segments = torch.repeat_interleave(torch.tensor([1, 2, 3, 0]), torch.tensor([*lengths, 5]))[None]
    hidden = model(
        tokens, spans=segment_spans(segments, Visibility.FULL), positions=segment_positions(segments)
    )
    first = 0
    for length in lengths:
        piece = hidden[:, first : first + length]
        alone = outputs(model, stock, tokens[:, first : first + length])
        close(piece, alone["hidden"][1])
        if "logits" in alone:
            close(model.logits(piece), alone["logits"][1])
        if "pair" in alone:
            close(model.pair_logits(piece[:, 0]), alone["pair"][1])
        if "detected" in alone:
            close(model.detect(piece), alone["detected"][1])
        first += length


@pytest.mark.parametrize("name", ["bert", "bert with pairs", "electra", "bert, bare"])
@torch.no_grad()
def test_token_types_tell_the_texts_of_a_pair_apart(name, tmp_path):
    model = random_model(name)
    to_transformers(model, tmp_path, IDS)
    tokens = random_tokens(2, 16)
    types = (torch.arange(16) >= 9).long().expand_as(tokens)
    for ours, theirs in outputs(model, loaded(tmp_path), tokens, token_types=types).values():
        close(ours, theirs)
    assert not torch.allclose(model(tokens), model(tokens, token_types=types), atol=1e-2)


@torch.no_grad()
def test_a_local_layer_sees_four_positions_to_each_side(tmp_path):
    # of two layers the second is local: what is five away reaches a position only through the first, global one
    settings, _ = MODELS["modernbert"]
    config = resolve(dataclasses.replace(settings, depth=2), vocab_size=VOCAB, row_tokens=LENGTH)
    model = Transformer(config)
    model.initialise(torch.Generator().manual_seed(0))
    for parameter in model.blocks[1].parameters():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.3)
    model.eval()  # the first block writes nothing yet, so nothing but the local layer moves anything
    tokens = random_tokens(1, LENGTH)
    changed = tokens.clone()
    changed[0, 20] = (tokens[0, 20] + 1) % VOCAB
    moved = (model(tokens) - model(changed)).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero()[:, 0].tolist() == list(range(16, 25))


STOCK = {
    "BertForMaskedLM": transformers.BertConfig,
    "BertForPreTraining": transformers.BertConfig,
    "BertModel": transformers.BertConfig,
    "ElectraForPreTraining": transformers.ElectraConfig,
    "ElectraModel": transformers.ElectraConfig,
    "ModernBertForMaskedLM": transformers.ModernBertConfig,
    "ModernBertModel": transformers.ModernBertConfig,
}


def stock_model(name: str, **changes):
    sizes = {
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 40, "max_position_embeddings": LENGTH, "pad_token_id": 0,
    }  # fmt: skip
    if name.startswith("Electra"):
        sizes["embedding_size"] = 32
    if name.startswith("Modern"):
        sizes |= {
            "local_attention": 8,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        }
    torch.manual_seed(0)
    model = getattr(transformers, name)(STOCK[name](**sizes | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("name", list(STOCK))
@torch.no_grad()
def test_weights_that_the_stock_class_saved_give_its_outputs(name, tmp_path):
    stock = stock_model(name)
    stock.save_pretrained(tmp_path)
    model = from_transformers(tmp_path)
    tokens = random_tokens(2, LENGTH)
    theirs = stock(tokens)
    hidden = model(tokens)
    close(hidden, stock.base_model(tokens).last_hidden_state)
    if name.endswith("MaskedLM"):
        close(model.logits(hidden), theirs.logits)
    elif name == "BertForPreTraining":
        close(model.logits(hidden), theirs.prediction_logits)
        close(model.pair_logits(hidden[:, 0]), theirs.seq_relationship_logits)
    else:  # a trunk: what stands on it is left behind
        assert (model.config.head, model.config.output_bias, model.config.generator_layers) == (
            "linear",
            False,
            0,
        )
    again = tmp_path / "again"
    again.mkdir()
    to_transformers(model, again, {})
    close(loaded(again).base_model(tokens).last_hidden_state, hidden)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_bias": True, "classifier_bias": True},
        {"decoder_bias": False},
        {"norm_eps": 1e-3},
        {"layer_types": ["full_attention", "sliding_attention"] * 2},
        {"layer_types": ["full_attention", *["sliding_attention"] * 3]},
        {"layer_types": ["full_attention"] * 4},
        {"global_attn_every_n_layers": 2},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500.0},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}},
    ],
)  # fmt: skip
@torch.no_grad()
def test_what_a_modernbert_may_differ_in_is_read(changes, tmp_path):
    stock = stock_model("ModernBertForMaskedLM", **changes)
    stock.save_pretrained(tmp_path)
    model = from_transformers(tmp_path)
    tokens = random_tokens(2, LENGTH)
    close(model.logits(model(tokens)), stock(tokens).logits)
    again = tmp_path / "again"
    again.mkdir()
    assert to_transformers(model, again, {}) <= TOLERANCE
    assert from_transformers(again).config == model.config


def rewritten(directory, change):
    """Changes the config.json of a directory."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_a_modernbert_config_of_transformers_4_says_the_same(tmp_path):
    model = random_model("modernbert")
    to_transformers(model, tmp_path, IDS)

    def older(config):
        del config["rope_parameters"], config["layer_types"]
        config |= {"global_rope_theta": 700.0, "local_rope_theta": 70.0}

    rewritten(tmp_path, older)
    back = from_transformers(tmp_path).config
    assert (back.rotary_base, back.local_rotary_base, back.global_every) == (700.0, 70.0, 3)
    rewritten(tmp_path, lambda config: config.update(local_rope_theta=None))
    assert from_transformers(tmp_path).config.local_rotary_base == 700.0


def test_names_of_older_bert_files_are_read(tmp_path):
    model = random_model("bert")
    to_transformers(model, tmp_path, IDS)
    path = tmp_path / "model.safetensors"
    state = safetensors.torch.load_file(path)
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in state.items()
    }
    extra = {
        "bert.embeddings.position_ids": torch.arange(LENGTH)[None],
        "cls.predictions.decoder.weight": state["bert.embeddings.word_embeddings.weight"].clone(),
        "bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32),
        "cls.seq_relationship.weight": torch.ones(2, 32), "cls.seq_relationship.bias": torch.ones(2),
    }  # fmt: skip
    safetensors.torch.save_file(older | extra, path)
    back = from_transformers(tmp_path).state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())

    extra["cls.predictions.decoder.weight"] += 1
    safetensors.torch.save_file(older | extra, path)
    with pytest.raises(InputError, match=r"cls\.predictions\.decoder\.weight.*differs"):
        from_transformers(tmp_path)


@pytest.mark.parametrize("name", ["bert", "bert with pairs", "bert, bare"])
def test_the_tensors_tell_the_class_where_an_older_bert_config_names_none(name, tmp_path):
    model = random_model(name)
    to_transformers(model, tmp_path, IDS)
    rewritten(tmp_path, lambda config: config.pop("architectures"))
    assert from_transformers(tmp_path).config == model.config


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("bert", "hidden_act", "relu"),
        ("bert", "position_embedding_type", "relative_key"),
        ("bert", "is_decoder", True),
        ("bert", "add_cross_attention", True),
        ("bert", "tie_word_embeddings", False),
        ("bert", "pruned_heads", {"0": [1]}),
        ("bert", "num_attention_heads", 5),
        ("bert", "architectures", ["BertForSequenceClassification"]),
        ("electra", "embedding_size", 16),
        ("modernbert", "hidden_activation", "relu"),
        ("modernbert", "classifier_activation", "relu"),
        ("modernbert", "attention_bias", True),
        ("modernbert", "mlp_bias", True),
        ("modernbert", "tie_word_embeddings", False),
        ("modernbert", "head_dim", 4),
        ("modernbert", "rope_scaling", {"type": "linear", "factor": 2.0}),
        ("modernbert", "rope_parameters", {"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}),
        ("modernbert", "rope_parameters", {"rope_type": "default", "rope_theta": 1e4}),
        ("modernbert", "layer_types", ["sliding_attention"] * 4),
        ("modernbert", "local_attention", 1),
        ("modernbert", "architectures", ["ModernBertForTokenClassification"]),
        ("modernbert", "architectures", None),
    ],
)
def test_what_the_core_does_not_do_is_refused_by_name(name, field, value, tmp_path):
    to_transformers(random_model(name), tmp_path, IDS)
    rewritten(tmp_path, lambda config: config.update({field: value}))
    named = {"rope_parameters": "rotary|rope_parameters"}.get(field, field)
    with pytest.raises(InputError, match=named):
        from_transformers(tmp_path)


@pytest.mark.parametrize("name", ["bert", "modernbert, bare"])
def test_an_unknown_tensor_is_refused(name, tmp_path):
    to_transformers(random_model(name), tmp_path, IDS)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path) | {"adapter.weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match=r"adapter\.weight"):
        from_transformers(tmp_path)


def test_a_model_with_two_extra_heads_has_no_stock_class(tmp_path):
    config = dataclasses.replace(random_model("electra").config, pair_head=True)
    model = Transformer(config)
    model.initialise(torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="both a next-sentence head and a replaced-token head"):
        to_transformers(model, tmp_path, IDS)


TEXTS = [
    "The mill turns.",
    "床前明月光，疑是地上霜。",
    "It grinds 1984 grains, slowly; and then it stands still.",
]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    return Tokenizer.from_directory(train(from_dict(TokenizerConfig, {"kind": "bytes"}), TEXTS, folder).path)


def exported(family: str, words: Tokenizer, folder, **options):
    """A checkpoint of a tiny encoder, and its export."""
    settings = ModelSettings(family=family, depth=2, width=32, heads=2)
    model = Transformer(resolve(settings, vocab_size=words.vocab_size, row_tokens=96))
    model.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    (folder / "stock").mkdir(parents=True)
    to_transformers(model.eval(), folder / "stock", dict(words.special))
    words.save(folder / "stock")
    import_model(folder / "stock", folder / "checkpoint")
    loaded = load_run(folder / "checkpoint")
    export_run(loaded, folder / "exported", **options)
    return loaded.model, folder / "exported"


def framed(words: Tokenizer, text: str) -> torch.Tensor:
    return torch.tensor([[words.special["cls"], *words.encode(text), words.special["sep"]]])


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_an_exported_checkpoint_fills_in_from_text(family, words, tmp_path):
    model, folder = exported(family, words, tmp_path)
    stock = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.mask_token_id == words.special["mask"]
    assert tokenizer.model_max_length == 96
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt")
        assert given["input_ids"].tolist() == framed(words, text).tolist()
        close(stock(**given).logits, model.logits(model(given["input_ids"])))
    given = tokenizer(TEXTS[0], TEXTS[1], return_tensors="pt")
    second = [*words.encode(TEXTS[1]), words.special["sep"]]
    assert given["input_ids"].tolist() == [[*framed(words, TEXTS[0])[0].tolist(), *second]]
    types = given.get("token_type_ids")
    assert (types is None) == (family == "modernbert")
    if types is not None:
        assert types.sum() == len(second)
    close(stock(**given).logits, model.logits(model(given["input_ids"], token_types=types)))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_sentence_transformers_gives_our_embeddings(family, pooling, words, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model, folder = exported(family, words, tmp_path, pooling=pooling)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    hidden = [model(framed(words, text))[0] for text in TEXTS]
    pooled = torch.stack([h.mean(0) if pooling == "mean" else h[0] for h in hidden])
    close(torch.from_numpy(theirs), torch.nn.functional.normalize(pooled))


def test_the_families_here_are_the_encoders():
    kinds = {name: plugins.load("model.families", name).kind for name in plugins.names("model.families")}
    assert {name for name, kind in kinds.items() if kind == "encoder"} == FAMILIES
