"""T5 v1.1 (Raffel et al. 2020, arXiv:1910.10683; Shazeer 2020, arXiv:2002.05202): relative positions, GeGLU, no biases.

The original T5 has ReLU and ties its output, which it reads from hidden states divided by the square root of the
width. It is imported too: that factor goes into the gain of the last norm, so the scores are the same, and the
decoder's last hidden states are smaller by it.

`tie_word_embeddings` tells nothing of the tying in transformers 5, where false means that outputs are not scaled,
and the output is tied unless the file has an `lm_head.weight` that differs; in transformers 4 it means both. What is
written here is right in both: false, and an `lm_head.weight` in any case.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.model.convert import Taken, expect, number, split_qkv
from gristmill.model.family import Family, Found

FIXED: dict[str, Any] = {
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "positions": "relative",
    "relative_buckets": 32,
    "relative_distance": 128,
    "rotary_base": 0.0,
    "activation": "geglu_tanh",
    "bias": False,
    "qk_norm": False,
    "attention_scale": False,
}

PROJECTIONS = {
    "gated-gelu": "geglu_tanh",
    "gated-gelu_new": "geglu_tanh",
    "gated-silu": "swiglu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
}
"""Their `feed_forward_proj`: our activation."""


def to_config(config: ModelConfig) -> dict[str, Any]:
    """Returns the fields of config.json."""
    projections = {ours: theirs for theirs, ours in reversed(PROJECTIONS.items())}
    if config.activation not in projections:
        raise InputError(f'the family "t5" has no activation "{config.activation}" in transformers')
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "classifier_dropout": 0.0,
        "d_ff": config.feed_forward,
        "d_kv": config.head_size,
        "d_model": config.width,
        "dropout_rate": 0.0,
        "feed_forward_proj": projections[config.activation],
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "layer_norm_epsilon": config.norm_epsilon,
        "n_positions": config.maximum_positions,  # nothing in transformers reads it; it comes back on import
        "num_decoder_layers": config.layers,
        "num_heads": config.heads,
        "num_layers": config.encoder_layers,
        "relative_attention_max_distance": config.relative_distance,
        "relative_attention_num_buckets": config.relative_buckets,
        "scale_decoder_outputs": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def canonical(theirs: Mapping[str, Any], state: Mapping[str, Tensor]) -> Found:
    """Returns the config with `tie_word_embeddings` as the tensors have it, and a state whose outputs are unscaled."""
    scaled = theirs.get("scale_decoder_outputs")
    if scaled is None:
        scaled = theirs.get("tie_word_embeddings") is not False
    state = dict(state)
    last = "decoder.final_layer_norm.weight"
    if scaled and last in state:
        state[last] = state[last].float() * number(theirs, "d_model") ** -0.5
    tables = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    table = next((state[name] for name in tables if name in state), None)
    output = state.get("lm_head.weight")
    tied = output is None or (table is not None and torch.equal(output, table))
    return {**theirs, "scale_decoder_outputs": False, "tie_word_embeddings": tied}, state


def from_config(theirs: Mapping[str, Any]) -> ModelConfig:
    """Returns our config for a canonical config.json."""
    expect(theirs, "is_encoder_decoder", True)
    expect(theirs, "is_decoder", False)
    expect(theirs, "scale_decoder_outputs", False)
    projection = theirs.get("feed_forward_proj", "relu")
    if projection not in PROJECTIONS:
        raise InputError(
            f'config.json: feed_forward_proj is "{projection}", expected one of: {", ".join(PROJECTIONS)}'
        )
    optional = {
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "n_positions": 512,
    }
    full = {**optional, **theirs}
    buckets, distance = (number(full, field) for field in list(optional)[:2])
    if buckets < 4 or buckets % 2 or distance <= buckets // 2:
        raise InputError(
            f"config.json: {buckets} buckets for relative positions up to {distance} leave some distances without one",
            "relative_attention_num_buckets is even and at least 4, and less than twice relative_attention_max_distance",
        )
    heads, encoder_layers = number(theirs, "num_heads"), number(theirs, "num_layers")
    return ModelConfig(
        family="t5",
        kind="encoder-decoder",
        vocab_size=number(theirs, "vocab_size"),
        layers=theirs.get("num_decoder_layers") or encoder_layers,
        encoder_layers=encoder_layers,
        width=number(theirs, "d_model"),
        heads=heads,
        kv_heads=heads,
        head_size=number(theirs, "d_kv"),
        feed_forward=number(theirs, "d_ff"),
        maximum_positions=number(full, "n_positions"),
        tied=bool(theirs.get("tie_word_embeddings", True)),
        **FIXED
        | {
            "norm_epsilon": float(theirs.get("layer_norm_epsilon", 1e-6)),
            "activation": PROJECTIONS[projection],
            "relative_buckets": buckets,
            "relative_distance": distance,
        },
    )


def to_state(config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns their tensors."""
    theirs = {
        "shared.weight": ours["embedding.weight"],
        # their own copy where it is tied: see above
        "lm_head.weight": ours["embedding.weight"].clone() if config.tied else ours["output.weight"],
        "encoder.final_layer_norm.weight": ours["encoder.norm.weight"],
        "decoder.final_layer_norm.weight": ours["norm.weight"],
    }
    for a, b in _biases():
        theirs[b] = ours[a]
    for a, b, crossed in _blocks(config):
        for x, part in zip("qkv", split_qkv(config, ours[a + "attention.qkv.weight"]), strict=True):
            theirs[f"{b}0.SelfAttention.{x}.weight"] = part
        theirs[b + "0.SelfAttention.o.weight"] = ours[a + "attention.out.weight"]
        theirs[b + "0.layer_norm.weight"] = ours[a + "attention_norm.weight"]
        if crossed:
            k, v = ours[a + "cross.kv.weight"].chunk(2)
            theirs[b + "1.EncDecAttention.q.weight"] = ours[a + "cross.q.weight"]
            theirs[b + "1.EncDecAttention.k.weight"] = k
            theirs[b + "1.EncDecAttention.v.weight"] = v
            theirs[b + "1.EncDecAttention.o.weight"] = ours[a + "cross.out.weight"]
            theirs[b + "1.layer_norm.weight"] = ours[a + "cross_norm.weight"]
        last = f"{b}{2 if crossed else 1}."
        ups = _ups(config)
        for name, part in zip(ups, ours[a + "feed_forward.up.weight"].chunk(len(ups)), strict=True):
            theirs[f"{last}DenseReluDense.{name}.weight"] = part
        theirs[last + "DenseReluDense.wo.weight"] = ours[a + "feed_forward.down.weight"]
        theirs[last + "layer_norm.weight"] = ours[a + "feed_forward_norm.weight"]
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


def from_state(config: ModelConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns our tensors for a canonical state."""
    take = Taken(theirs)
    ours = {
        "embedding.weight": take.one_of(
            "shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
        ),
        "encoder.norm.weight": take("encoder.final_layer_norm.weight"),
        "norm.weight": take("decoder.final_layer_norm.weight"),
    }
    if config.tied:
        take.ignore("lm_head.weight")
    else:
        ours["output.weight"] = take("lm_head.weight")
    for a, b in _biases():
        ours[a] = take(b)
    # the published checkpoints carry biases of cross-attention that nothing reads
    take.ignore("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight")
    for a, b, crossed in _blocks(config):
        ours |= {
            a + "attention.qkv.weight": torch.cat([take(f"{b}0.SelfAttention.{x}.weight") for x in "qkv"]),
            a + "attention.out.weight": take(b + "0.SelfAttention.o.weight"),
            a + "attention_norm.weight": take(b + "0.layer_norm.weight"),
        }
        if crossed:
            ours |= {
                a + "cross.q.weight": take(b + "1.EncDecAttention.q.weight"),
                a + "cross.kv.weight": torch.cat([take(f"{b}1.EncDecAttention.{x}.weight") for x in "kv"]),
                a + "cross.out.weight": take(b + "1.EncDecAttention.o.weight"),
                a + "cross_norm.weight": take(b + "1.layer_norm.weight"),
            }
        last = f"{b}{2 if crossed else 1}."
        ours |= {
            a + "feed_forward.up.weight": torch.cat(
                [take(f"{last}DenseReluDense.{name}.weight") for name in _ups(config)]
            ),
            a + "feed_forward.down.weight": take(last + "DenseReluDense.wo.weight"),
            a + "feed_forward_norm.weight": take(last + "layer_norm.weight"),
        }
    take.finish()
    return ours


def _blocks(config: ModelConfig) -> Iterator[tuple[str, str, bool]]:
    """What each block's names begin with, ours and theirs, and whether it reads a source."""
    for i in range(config.encoder_layers):
        yield f"encoder.blocks.{i}.", f"encoder.block.{i}.layer.", False
    for i in range(config.layers):
        yield f"blocks.{i}.", f"decoder.block.{i}.layer.", True


def _biases() -> Iterator[tuple[str, str]]:
    """The relative biases of each stack, ours and theirs, which keep them in the first layer."""
    for a, b in (("encoder.", "encoder"), ("", "decoder")):
        yield f"{a}relative.weight", f"{b}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def _ups(config: ModelConfig) -> tuple[str, ...]:
    return ("wi_0", "wi_1") if config.gated else ("wi",)


EXPORT = Family(
    fixed=FIXED,
    kind="encoder-decoder",
    feed_forward_ratio=8 / 3,  # T5 v1.1 has 2.5 to 4, by size
    head_size_is_width_over_heads=False,
    canonical=canonical,
    architecture=lambda config: "T5ForConditionalGeneration",
    to_config=to_config,
    from_config=from_config,
    to_state=to_state,
    from_state=from_state,
)
