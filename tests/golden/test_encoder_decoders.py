"""T5 and the Transformer of 2017 against the stock classes of transformers: tiny random weights, float32."""

import dataclasses
import json
import logging
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.noisy import noisy

from gristmill import plugins
from gristmill.batch import Visibility
from gristmill.errors import InputError, RunError
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import TOLERANCE, from_transformers, to_transformers
from gristmill.model.transformer import Transformer, relative_buckets
from gristmill.model.visibility import cross_spans, segment_positions, segment_spans

transformers = pytest.importorskip("transformers")

VOCAB, LENGTH = 61, 48
NEAR = {"relative_buckets": 8, "relative_distance": 12}
"""So that rows of LENGTH reach every bucket, and go beyond the distance where all share the last."""

FAMILIES = ("t5", "transformer")

SETTINGS = [
    pytest.param(settings, changes, id=" ".join([settings.family, *names]))
    for settings, changes, *names in [
        (ModelSettings(family="t5", depth=2, width=32, heads=4, tied=False), NEAR, "untied"),
        (ModelSettings(family="t5", depth=2, width=32, heads=4, tied=True), NEAR, "tied"),
        (
            ModelSettings(family="t5", depth=1, encoder_depth=3, width=32, heads=3, head_size=10),
            {},
            "1:3 layers",
        ),
        (ModelSettings(family="t5", depth=2, width=32, heads=4), {**NEAR, "activation": "relu"}, "relu"),
        (ModelSettings(family="t5", depth=1, width=32, heads=4), {**NEAR, "activation": "swiglu"}, "swiglu"),
        (ModelSettings(family="transformer", depth=2, width=32, heads=4), {}, "2:2 layers"),
        (ModelSettings(family="transformer", depth=3, encoder_depth=1, width=32, heads=2), {}, "3:1 layers"),
        (
            ModelSettings(family="transformer", depth=1, width=32, heads=4),
            {"output_bias": True},
            "output bias",
        ),
        (
            ModelSettings(family="transformer", depth=1, width=32, heads=4),
            {"activation": "gelu", "embedding_scale": False},
            "gelu, unscaled",
        ),
    ]
]


@pytest.fixture(autouse=True)
def _quiet():
    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    yield
    transformers.utils.logging.set_verbosity(before)


def random_model(model_settings: ModelSettings, changes: dict[str, object]) -> Transformer:
    config = resolve(model_settings, vocab_size=VOCAB, row_tokens=LENGTH)
    return noisy(Transformer(dataclasses.replace(config, **changes)), 0.1)


def random_tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def stock_class(directory):
    config = transformers.AutoConfig.from_pretrained(directory)
    kind = getattr(transformers, config.architectures[0])
    return kind.from_pretrained(directory, dtype=torch.float32).eval()


def stock_states(stock, source, target, source_mask=None):
    """The stock class's last hidden states of both stacks, and its logits."""
    out = stock(input_ids=source, attention_mask=source_mask, decoder_input_ids=target)
    decoder = stock.get_decoder()(
        input_ids=target,
        encoder_hidden_states=out.encoder_last_hidden_state,
        encoder_attention_mask=source_mask,
    )
    return out.encoder_last_hidden_state, decoder.last_hidden_state, out.logits


def our_states(model, source, target, source_segments=None):
    spans = None if source_segments is None else segment_spans(source_segments, Visibility.FULL)
    states = model.encode(source, spans=spans)
    across = None
    if source_segments is not None:
        across = cross_spans(torch.ones_like(target), source_segments)
    hidden = model(target, memory=model.remember(states, across))
    return states, hidden, model.logits(hidden)


def assert_equal(ours, theirs):
    """1e-5 as exports are checked: of the largest number where that is above 1, as T5's unscaled logits are."""
    for mine, stock in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, stock, rtol=0.0, atol=TOLERANCE * max(1.0, float(stock.abs().max())))


def test_the_families_here_are_the_encoder_decoders():
    kinds = {name: plugins.load("model.families", name).kind for name in plugins.names("model.families")}
    assert {name for name, kind in kinds.items() if kind == "encoder-decoder"} == set(FAMILIES)


@pytest.mark.parametrize(("model_settings", "changes"), SETTINGS)
def test_an_export_gives_our_logits_in_the_stock_class_and_comes_back_unchanged(
    model_settings, changes, tmp_path
):
    model = random_model(model_settings, changes)
    assert to_transformers(model, tmp_path, {"bos": 1, "eos": 2, "pad": 0}) <= TOLERANCE
    back = from_transformers(tmp_path)
    assert back.config == model.config
    theirs, ours = back.state_dict(), model.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_weights_that_make_much_of_rounding_are_exported_and_wrong_ones_are_not(tmp_path, monkeypatch):
    model = random_model(ModelSettings(family="t5", depth=3, width=32, heads=4), NEAR)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv.weight[:64] *= 4.0  # scores of attention that nearly choose one key
    difference = to_transformers(model, tmp_path, {})
    # the weights are the reason: the stock class is as far from itself in float64
    assert TOLERANCE < difference < 1e-3
    family = plugins.load("model.families", "t5")
    wrong = dataclasses.replace(
        family, to_config=lambda c: {**family.to_config(c), "layer_norm_epsilon": 0.01}
    )
    monkeypatch.setattr(plugins, "load", lambda package, name: wrong)
    with pytest.raises(RunError, match="logits differ from ours"):
        to_transformers(model, tmp_path, {})


@pytest.mark.parametrize(("model_settings", "changes"), SETTINGS)
@torch.no_grad()
def test_hidden_states_of_both_stacks_and_logits_are_those_of_the_stock_class(
    model_settings, changes, tmp_path
):
    model = random_model(model_settings, changes)
    to_transformers(model, tmp_path, {})
    source, target = random_tokens(2, LENGTH), random_tokens(2, 31, seed=2)
    assert_equal(our_states(model, source, target), stock_states(stock_class(tmp_path), source, target))


@pytest.mark.parametrize(("model_settings", "changes"), SETTINGS)
@torch.no_grad()
def test_a_padded_source_is_read_as_the_stock_class_reads_it_under_an_attention_mask(
    model_settings, changes, tmp_path
):
    model = random_model(model_settings, changes)
    to_transformers(model, tmp_path, {})
    source, target = random_tokens(3, LENGTH), random_tokens(3, 20, seed=2)
    segments = (torch.arange(LENGTH) < torch.tensor([LENGTH, 17, 1])[:, None]).long()
    read, written, logits = our_states(model, source, target, segments)
    expected = stock_states(stock_class(tmp_path), source, target, segments)
    read_here = segments.bool()
    assert_equal((read[read_here], written, logits), (expected[0][read_here], *expected[1:]))


@pytest.mark.parametrize(("model_settings", "changes"), SETTINGS)
@torch.no_grad()
def test_each_packed_pair_gets_what_the_stock_class_gives_it_alone(model_settings, changes, tmp_path):
    model = random_model(model_settings, changes)
    to_transformers(model, tmp_path, {})
    stock = stock_class(tmp_path)
    source, target = random_tokens(1, LENGTH), random_tokens(1, 40, seed=2)
    # as objectives pack them: a segment has the same number on both sides, and places of its own
    read, written = (21, 1, 19), (6, 21, 10)
    source_segments = torch.tensor([[1] * 21 + [2] + [3] * 19 + [0] * 7])
    segments = torch.tensor([[1] * 6 + [2] * 21 + [3] * 10 + [0] * 3])
    states = model.encode(
        source,
        spans=segment_spans(source_segments, Visibility.FULL),
        positions=segment_positions(source_segments),
    )
    hidden = model(
        target,
        spans=segment_spans(segments, Visibility.CAUSAL),
        positions=segment_positions(segments),
        memory=model.remember(states, cross_spans(segments, source_segments)),
    )
    logits = model.logits(hidden)
    s = t = 0
    for reads, writes in zip(read, written, strict=True):
        expected = stock_states(stock, source[:, s : s + reads], target[:, t : t + writes])
        ours = (states[:, s : s + reads], hidden[:, t : t + writes], logits[:, t : t + writes])
        assert_equal(ours, expected)
        s, t = s + reads, t + writes


T5 = {
    "vocab_size": VOCAB, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "decoder_start_token_id": 0,
}  # fmt: skip
MARIAN = {
    "vocab_size": VOCAB, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "max_position_embeddings": LENGTH,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "activation_function": "relu", "scale_embedding": True,
    "pad_token_id": 0, "eos_token_id": 2, "forced_eos_token_id": 2, "decoder_start_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 12), (64, 500), (4, 7)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_every_distance_has_the_bucket_that_it_has_in_the_published_code(buckets, distance, both_ways):
    distances = torch.arange(-3000, 3001)
    stock = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    expected = stock(distances, bidirectional=both_ways, num_buckets=buckets, max_distance=distance)
    ours = relative_buckets(distances, buckets=buckets, distance=distance, both_ways=both_ways)
    assert torch.equal(ours, expected)


@torch.no_grad()
def random_stock(kind: str, fields: dict[str, object], directory, *, output_bias: bool = False):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**fields)
    name = "T5ForConditionalGeneration" if kind == "T5" else "MarianMTModel"
    stock = getattr(transformers, name)(config).eval()
    for parameter_name, parameter in stock.named_parameters():
        if "embed_positions" not in parameter_name:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    if output_bias:
        stock.final_logits_bias += torch.randn(VOCAB)
    stock.save_pretrained(directory)
    return stock


@pytest.mark.parametrize(
    ("kind", "fields", "output_bias"),
    [
        pytest.param(
            "T5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, False, id="v1.1"
        ),
        pytest.param("T5", {**T5, "feed_forward_proj": "gated-gelu"}, False, id="v1.1, outputs scaled"),
        pytest.param("T5", {**T5, "feed_forward_proj": "relu"}, False, id="original T5"),
        pytest.param("T5", {**T5, "feed_forward_proj": "gated-silu"}, False, id="T5 with SwiGLU"),
        pytest.param("Marian", MARIAN, False, id="Marian"),
        pytest.param("Marian", MARIAN, True, id="Marian with output bias"),
        pytest.param(
            "Marian", {**MARIAN, "activation_function": "gelu", "scale_embedding": False}, False, id="gelu"
        ),
    ],
)
@torch.no_grad()
def test_weights_that_the_stock_class_saved_give_its_states_and_logits(kind, fields, output_bias, tmp_path):
    stock = random_stock(kind, fields, tmp_path, output_bias=output_bias)
    model = from_transformers(tmp_path)
    source, target = random_tokens(2, LENGTH), random_tokens(2, 31, seed=2)
    ours, theirs = our_states(model, source, target), stock_states(stock, source, target)
    if kind == "T5" and stock.config.scale_decoder_outputs:
        theirs = (
            theirs[0],
            theirs[1] * stock.config.d_model**-0.5,
            theirs[2],
        )  # the factor is in our last norm
    assert_equal(ours, theirs)


@torch.no_grad()
def test_a_t5_whose_output_is_no_copy_of_its_embedding_is_imported_untied(tmp_path):
    fields = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    random_stock("T5", fields, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["lm_head.weight"] = torch.randn(VOCAB, 32)  # as in the published files of v1.1
    state["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.randn(8, 4)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = from_transformers(tmp_path)
    assert not model.config.tied
    source, target = random_tokens(2, LENGTH), random_tokens(2, 31, seed=2)
    assert_equal(our_states(model, source, target), stock_states(stock_class(tmp_path), source, target))


@torch.no_grad()
def test_the_table_of_positions_in_older_files_is_compared_with_the_formula(tmp_path):
    stock = random_stock("Marian", MARIAN, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    table = stock.model.encoder.embed_positions.weight
    name = "model.encoder.embed_positions.weight"
    save_file({**state, name: table.clone()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source, target = random_tokens(2, LENGTH), random_tokens(2, 31, seed=2)
    assert_equal(our_states(from_transformers(tmp_path), source, target), stock_states(stock, source, target))
    save_file(
        {**state, name: table.flip(0).clone()}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(InputError, match="not the sinusoidal one"):
        from_transformers(tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("T5", {"feed_forward_proj": "gated-relu"}, 'feed_forward_proj is "gated-relu"'),
        ("T5", {"is_encoder_decoder": False}, "is_encoder_decoder is False"),
        ("T5", {"relative_attention_max_distance": 4}, "8 buckets for relative positions up to 4"),
        ("T5", {"d_kv": 0}, "d_kv is 0"),
        ("Marian", {"activation_function": "swish"}, 'activation_function is "swish"'),
        ("Marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings is False"),
        ("Marian", {"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ("Marian", {"static_position_embeddings": False}, "static_position_embeddings is False"),
        ("Marian", {"normalize_before": True}, "normalize_before is True"),
        ("Marian", {"decoder_vocab_size": 62}, "decoder_vocab_size is 62"),
        ("Marian", {"decoder_attention_heads": 2}, "decoder_attention_heads is 2"),
        ("Marian", {"decoder_ffn_dim": 50}, "decoder_ffn_dim is 50"),
    ],
)
def test_what_the_core_does_not_do_is_refused_by_name(kind, changes, message, tmp_path):
    random_stock(kind, {**T5, "feed_forward_proj": "gated-gelu"} if kind == "T5" else MARIAN, tmp_path)
    theirs = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(theirs | changes))
    with pytest.raises(InputError, match=message):
        from_transformers(tmp_path)


@pytest.mark.parametrize(("kind", "fields"), [("T5", T5), ("Marian", MARIAN)])
def test_unknown_and_missing_tensors_are_refused(kind, fields, tmp_path):
    random_stock(kind, fields, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "adapter.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"1 tensors that this family does not have: adapter\.weight"):
        from_transformers(tmp_path)
    missing = sorted(state)[5]
    del state[missing]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f'have no tensor "{re.escape(missing)}"'):
        from_transformers(tmp_path)


def test_two_embeddings_where_the_family_has_one_are_refused(tmp_path):
    random_stock("Marian", MARIAN, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "lm_head.weight": torch.zeros(VOCAB, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r'"model\.shared\.weight" and "lm_head\.weight" differ'):
        from_transformers(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_says_which_tokens_begin_and_end_a_text(family, tmp_path):
    model = random_model(ModelSettings(family=family, depth=1, width=32, heads=4), {})
    to_transformers(model, tmp_path, {"bos": 5, "eos": 6, "pad": 7})
    expected = {"bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 7, "decoder_start_token_id": 5}
    for name in ("config.json", "generation_config.json"):
        written = json.loads((tmp_path / name).read_text())
        assert {field: written[field] for field in expected} == expected
    generation = stock_class(tmp_path).generation_config
    assert (generation.decoder_start_token_id, generation.forced_eos_token_id) == (5, None)
