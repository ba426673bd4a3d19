"""The Transformer of 2017 (Vaswani et al., arXiv:1706.03762), which lives on in transformers as Marian.

LayerNorm after each sum, sinusoidal positions, ReLU, biases, one embedding for source, target and output, multiplied
by the square root of the width. Marian adds a bias to the output; where a checkpoint has one that is not zero, so
has the model here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.model.convert import Taken, expect, number, split_qkv
from gristmill.model.family import Family, Found
from gristmill.model.transformer import PositionTables

FIXED: dict[str, Any] = {
    "norm": "layer",
    "norm_epsilon": 1e-5,
    "norm_place": "post",
    "positions": "sinusoidal",
    "rotary_base": 0.0,
    "activation": "relu",
    "bias": True,
    "qk_norm": False,
    "embedding_scale": True,
}

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh"}
"""Their `activation_function`: our activation."""

SIDES = ("encoder", "decoder")

TABLES = ("model.shared.weight", *(f"model.{side}.embed_tokens.weight" for side in SIDES), "lm_head.weight")
"""The names that the one embedding goes by."""

PARTS = ("weight", "bias")


def to_config(config: ModelConfig) -> dict[str, Any]:
    """Returns the fields of config.json."""
    functions = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    if config.activation not in functions:
        raise InputError(f'the family "transformer" has no activation "{config.activation}" in transformers')
    both = {
        f"{side}_{field}": value
        for side in SIDES
        for field, value in (
            ("attention_heads", config.heads),
            ("ffn_dim", config.feed_forward),
            ("layerdrop", 0.0),
        )
    }
    return both | {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "activation_dropout": 0.0,
        "activation_function": functions[config.activation],
        "add_bias_logits": config.output_bias,  # nothing in transformers reads it; it comes back on import
        "attention_dropout": 0.0,
        "d_model": config.width,
        "decoder_layers": config.layers,
        "decoder_vocab_size": config.vocab_size,
        "dropout": 0.0,
        "encoder_layers": config.encoder_layers,
        "forced_eos_token_id": None,
        "init_std": 0.02,
        "is_encoder_decoder": True,
        "max_position_embeddings": config.maximum_positions,
        "scale_embedding": config.embedding_scale,
        "share_encoder_decoder_embeddings": True,
        "static_position_embeddings": True,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def canonical(theirs: Mapping[str, Any], state: Mapping[str, Tensor]) -> Found:
    """Returns the config with `add_bias_logits` true where the tensors have a bias that is not zero."""
    bias = state.get("final_logits_bias")
    biased = bool(theirs.get("add_bias_logits")) or (bias is not None and bool(bias.any()))
    return {**theirs, "add_bias_logits": biased}, state


def from_config(theirs: Mapping[str, Any]) -> ModelConfig:
    """Returns our config for a canonical config.json."""
    for field in ("share_encoder_decoder_embeddings", "tie_word_embeddings", "static_position_embeddings"):
        expect(theirs, field, True)
    for field in ("normalize_before", "normalize_embedding", "add_final_layer_norm", "is_decoder"):
        expect(theirs, field, False)
    expect(theirs, "is_encoder_decoder", True)
    function = theirs.get("activation_function", "gelu")
    if function not in ACTIVATIONS:
        raise InputError(
            f'config.json: activation_function is "{function}", expected one of: {", ".join(ACTIVATIONS)}'
        )
    vocab_size, heads = number(theirs, "vocab_size"), number(theirs, "encoder_attention_heads")
    width, feed_forward = number(theirs, "d_model"), number(theirs, "encoder_ffn_dim")
    expect(theirs, "decoder_vocab_size", vocab_size)
    expect(theirs, "decoder_attention_heads", heads)
    expect(theirs, "decoder_ffn_dim", feed_forward)
    return ModelConfig(
        family="transformer",
        kind="encoder-decoder",
        vocab_size=vocab_size,
        layers=number(theirs, "decoder_layers"),
        encoder_layers=number(theirs, "encoder_layers"),
        width=width,
        heads=heads,
        kv_heads=heads,
        head_size=width // heads,
        feed_forward=feed_forward,
        maximum_positions=number(theirs, "max_position_embeddings"),
        tied=True,
        output_bias=bool(theirs.get("add_bias_logits")),
        **FIXED
        | {
            "activation": ACTIVATIONS[function],
            "embedding_scale": bool(theirs.get("scale_embedding", False)),
        },
    )


def to_state(config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns their tensors."""
    table = ours["embedding.weight"]
    bias = ours["output_bias"] if config.output_bias else table.new_zeros(config.vocab_size)
    theirs = {"model.shared.weight": table, "final_logits_bias": bias[None]}
    for a, b, crossed in _blocks(config):
        for part in PARTS:
            for x, tensor in zip("qkv", split_qkv(config, ours[f"{a}attention.qkv.{part}"]), strict=True):
                theirs[f"{b}self_attn.{x}_proj.{part}"] = tensor
            if crossed:
                k, v = ours[f"{a}cross.kv.{part}"].chunk(2)
                theirs[f"{b}encoder_attn.k_proj.{part}"] = k
                theirs[f"{b}encoder_attn.v_proj.{part}"] = v
            for mine, name in _layers(crossed):
                theirs[f"{b}{name}.{part}"] = ours[f"{a}{mine}.{part}"]
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


def from_state(config: ModelConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns our tensors for a canonical state."""
    theirs = dict(theirs)
    for side in SIDES:
        _expect_sinusoids(config, theirs.pop(f"model.{side}.embed_positions.weight", None))
    take = Taken(theirs)
    ours = {"embedding.weight": take.one_of(*TABLES)}
    if config.output_bias:
        ours["output_bias"] = take("final_logits_bias")[0]
    else:
        take.ignore("final_logits_bias")
    for a, b, crossed in _blocks(config):
        for part in PARTS:
            ours[f"{a}attention.qkv.{part}"] = torch.cat(
                [take(f"{b}self_attn.{x}_proj.{part}") for x in "qkv"]
            )
            if crossed:
                ours[f"{a}cross.kv.{part}"] = torch.cat(
                    [take(f"{b}encoder_attn.{x}_proj.{part}") for x in "kv"]
                )
            for mine, name in _layers(crossed):
                ours[f"{a}{mine}.{part}"] = take(f"{b}{name}.{part}")
    take.finish()
    return ours


def _blocks(config: ModelConfig) -> Iterator[tuple[str, str, bool]]:
    """What each block's names begin with, ours and theirs, and whether it reads a source."""
    for i in range(config.encoder_layers):
        yield f"encoder.blocks.{i}.", f"model.encoder.layers.{i}.", False
    for i in range(config.layers):
        yield f"blocks.{i}.", f"model.decoder.layers.{i}.", True


def _layers(crossed: bool) -> Iterator[tuple[str, str]]:
    """The layers that are the same here and there, by name."""
    yield "attention.out", "self_attn.out_proj"
    yield "attention_norm", "self_attn_layer_norm"
    yield "feed_forward.up", "fc1"
    yield "feed_forward.down", "fc2"
    yield "feed_forward_norm", "final_layer_norm"
    if crossed:
        yield "cross.q", "encoder_attn.q_proj"
        yield "cross.out", "encoder_attn.out_proj"
        yield "cross_norm", "encoder_attn_layer_norm"


def _expect_sinusoids(config: ModelConfig, table: Tensor | None) -> None:
    """Refuses positions that are not those of the paper; older files carry the table."""
    if table is None:
        return
    ours = PositionTables(config).sinusoids(len(table), table.device)[: len(table)]
    if table.shape != ours.shape or not torch.allclose(table.float(), ours, atol=1e-3):
        raise InputError(
            "the table of positions in the weights is not the sinusoidal one",
            "a model with learned positions is of another family",
        )


EXPORT = Family(
    fixed=FIXED,
    kind="encoder-decoder",
    feed_forward_ratio=4.0,
    head_size_is_width_over_heads=True,
    tied=True,
    canonical=canonical,
    architecture=lambda config: "MarianMTModel",
    to_config=to_config,
    from_config=from_config,
    to_state=to_state,
    from_state=from_state,
)
