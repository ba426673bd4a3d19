"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): pre-norm, rotary positions, GeGLU, local layers, no biases.

Every third layer sees everything, and turns by angles of a larger base; the others see a window. The stock class is
ModernBertForMaskedLM, or ModernBertModel for a trunk without a prediction head (`head` is "linear" and there is no
output bias).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.model.convert import Taken, expect, heads_and_size, number, stock_class
from gristmill.model.family import Family

__all__ = ["EXPORT"]

FIXED: dict[str, Any] = {
    "norm": "layer",
    "norm_epsilon": 1e-5,
    "norm_bias": False,
    "positions": "rotary",
    "rotary_base": 160_000.0,
    "local_rotary_base": 10_000.0,
    "activation": "geglu",
    "bias": False,
    "qk_norm": False,
    "embedding_norm": True,
    "window": 64,
    "global_every": 3,
    "head": "transform",
    "head_bias": False,
    "output_bias": True,
}

READ = ("ModernBertForMaskedLM", "ModernBertModel")
"""The stock classes that are read, the bare trunk last."""


def architecture(config: ModelConfig) -> str:
    """Returns the stock class that has the model's heads."""
    return "ModernBertModel" if config.head == "linear" else "ModernBertForMaskedLM"


def to_config(config: ModelConfig) -> dict[str, Any]:
    """Returns the fields of config.json: layers and angles in the words of transformers 4 and of 5."""
    return {
        "architectures": [architecture(config)],
        "model_type": "modernbert",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "classifier_activation": "gelu",
        "classifier_bias": config.head_bias,
        "cls_token_id": None,
        "decoder_bias": config.output_bias,
        "embedding_dropout": 0.0,
        "eos_token_id": None,
        "global_attn_every_n_layers": config.global_every,
        "global_rope_theta": config.rotary_base,
        "hidden_activation": "gelu",
        "hidden_size": config.width,
        "initializer_range": 0.02,
        "intermediate_size": config.feed_forward,
        "layer_types": [
            "sliding_attention" if config.is_local(i) else "full_attention" for i in range(config.layers)
        ],
        "local_attention": 2 * config.window,
        "local_rope_theta": config.local_rotary_base,
        "max_position_embeddings": config.maximum_positions,
        "mlp_bias": False,
        "mlp_dropout": 0.0,
        "norm_bias": config.norm_bias,
        "norm_eps": config.norm_epsilon,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "pad_token_id": None,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": config.rotary_base},
            "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rotary_base},
        },
        "sep_token_id": None,
        "tie_word_embeddings": True,
        "vocab_size": config.vocab_size,
    }


def from_config(theirs: Mapping[str, Any]) -> ModelConfig:
    """Returns our config; raises InputError, naming the field, for what the core does not do."""
    name = stock_class(theirs, READ)
    for field in ("hidden_activation", "classifier_activation"):
        expect(theirs, field, "gelu")
    for field in ("attention_bias", "mlp_bias"):
        expect(theirs, field, False)
    expect(theirs, "tie_word_embeddings", True)
    expect(theirs, "rope_scaling", None)
    heads, head_size = heads_and_size(theirs)
    expect(theirs, "head_dim", head_size)
    layers = number(theirs, "num_hidden_layers")
    headed = name == "ModernBertForMaskedLM"
    return ModelConfig(
        **FIXED
        | {
            "norm_epsilon": float(theirs.get("norm_eps", FIXED["norm_epsilon"])),
            "norm_bias": bool(theirs.get("norm_bias", False)),
            "rotary_base": _base(theirs, "full_attention"),
            "local_rotary_base": _base(theirs, "sliding_attention"),
            "window": _window(theirs),
            "global_every": _global_every(theirs, layers),
            "head": "transform" if headed else "linear",
            "head_bias": bool(theirs.get("classifier_bias", False)),
            "output_bias": headed and bool(theirs.get("decoder_bias", True)),
        },
        family="modernbert",
        kind="encoder",
        vocab_size=number(theirs, "vocab_size"),
        layers=layers,
        width=heads * head_size,
        heads=heads,
        kv_heads=heads,
        head_size=head_size,
        feed_forward=number(theirs, "intermediate_size"),
        maximum_positions=number(theirs, "max_position_embeddings"),
        tied=True,
    )


def to_state(config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns their tensors."""
    return {theirs: ours[mine].contiguous() for mine, theirs in _names(config)}


def from_state(config: ModelConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns our tensors; raises InputError for one that is missing, and for one that is unknown."""
    headed = config.head == "transform"
    bare = [key for key in theirs if not key.startswith(("model.", "head.", "decoder."))]
    take = Taken({f"model.{key}" if key in bare and not headed else key: theirs[key] for key in theirs})
    prefix = "" if headed else "model."
    ours = {mine: take(prefix + name) for mine, name in _names(config)}
    if headed:
        take.same("decoder.weight", ours["embedding.weight"])
    take.finish()
    return ours


def _names(config: ModelConfig) -> list[tuple[str, str]]:
    """Our names and theirs. Both put queries, keys and values into one matrix, and what GELU is applied to first."""
    headed = config.head == "transform"
    model = "model." if headed else ""
    names = [("embedding.weight", model + "embeddings.tok_embeddings.weight")]
    norms = [("embedding_norm", model + "embeddings.norm"), ("norm", model + "final_norm")]
    for i in range(config.layers):
        a, b = f"blocks.{i}.", f"{model}layers.{i}."
        names += [
            (a + "attention.qkv.weight", b + "attn.Wqkv.weight"),
            (a + "attention.out.weight", b + "attn.Wo.weight"),
            (a + "feed_forward.up.weight", b + "mlp.Wi.weight"),
            (a + "feed_forward.down.weight", b + "mlp.Wo.weight"),
        ]
        norms += [(a + "attention_norm", b + "attn_norm")] if i else []
        norms += [(a + "feed_forward_norm", b + "mlp_norm")]
    if headed:
        names.append(("transform.dense.weight", "head.dense.weight"))
        names += [("transform.dense.bias", "head.dense.bias")] if config.head_bias else []
        names += [("output_bias", "decoder.bias")] if config.output_bias else []
        norms.append(("transform.norm", "head.norm"))
    parts = ("weight", "bias") if config.norm_bias else ("weight",)
    return names + [(f"{mine}.{part}", f"{theirs}.{part}") for mine, theirs in norms for part in parts]


def _base(theirs: Mapping[str, Any], layer_type: str) -> float:
    """The base of the angles in one type of layer, as transformers 5 writes it, else as 4 did."""
    parameters = theirs.get("rope_parameters") or {}
    if set(parameters) - {"full_attention", "sliding_attention"}:
        raise InputError(
            f'config.json: rope_parameters is "{parameters}", expected full_attention and sliding_attention'
        )
    rope = parameters.get(layer_type) or {}
    if rope.get("rope_type", "default") != "default":
        raise InputError(f'config.json scales rotary positions ("{rope}"), which this core does not do')
    everywhere = theirs.get("global_rope_theta", FIXED["rotary_base"])
    if layer_type == "full_attention":
        return float(rope.get("rope_theta", everywhere))
    near = theirs.get("local_rope_theta", FIXED["local_rotary_base"])
    return float(rope.get("rope_theta", everywhere if near is None else near))


def _window(theirs: Mapping[str, Any]) -> int:
    """How many positions to each side local layers see: the file counts both sides together."""
    both = number({"local_attention": 2 * FIXED["window"], **theirs}, "local_attention")
    if both < 2:
        raise InputError(f"config.json: local_attention is {both}, expected at least 2")
    return both // 2


def _global_every(theirs: Mapping[str, Any], layers: int) -> int:
    """Which layers see everything: each so-manieth, the first among them."""
    stated = int(theirs.get("global_attn_every_n_layers") or FIXED["global_every"])
    types = theirs.get("layer_types")
    if types is None:
        return stated
    found = next((i for i, kind in enumerate(types) if i and kind == "full_attention"), layers)
    for every in (stated, found):
        if types == ["sliding_attention" if i % every else "full_attention" for i in range(layers)]:
            return every
    raise InputError(
        f"config.json: layer_types is {types}, which this core does not do",
        "it does layers that see everything at even distances, the first layer among them",
    )


EXPORT = Family(
    fixed=FIXED,
    kind="encoder",
    feed_forward_ratio=1.5,
    head_size_is_width_over_heads=True,
    tied=True,
    architecture=architecture,
    to_config=to_config,
    from_config=from_config,
    to_state=to_state,
    from_state=from_state,
)
