"""BERT (Devlin et al. 2019, arXiv:1810.04805): a norm after each sum, learned positions, exact GELU, biases.

What stands on the layers decides the stock class that an export is written for:

    BertForMaskedLM         the layer before the output ("transform") and a bias for each token
    BertForPreTraining      the same, and the next-sentence head (`pair_head`)
    ElectraForPreTraining   the replaced-token head (`generator_layers`; Clark et al. 2020, arXiv:2003.10555); the
                            generator, and the output that it predicts with, are left out
    BertModel               nothing: `head` is "linear" and there is no output bias

Files hold more than their class says (BERT's own a next-sentence head beside BertForMaskedLM, a BertModel a pooler for
classifiers to come): what the class has no place for is left out, as the stock class leaves it out. A directory of
ELECTRA's is read as a trunk, for without a generator its head can not be trained any further.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.model.convert import Taken, expect, heads_and_size, number, split_qkv, stock_class
from gristmill.model.family import Family, Found

__all__ = ["EXPORT"]

FIXED: dict[str, Any] = {
    "norm": "layer",
    "norm_epsilon": 1e-12,
    "norm_place": "post",
    "positions": "learned",
    "rotary_base": 0.0,
    "activation": "gelu",
    "bias": True,
    "qk_norm": False,
    "embedding_norm": True,
    "token_types": 2,
    "head": "transform",
    "output_bias": True,
}

READ = ("BertForMaskedLM", "BertForPreTraining", "ElectraForPreTraining", "ElectraModel", "BertModel")
"""The stock classes that are read, the bare trunk last."""


def architecture(config: ModelConfig) -> str:
    """Returns the stock class that has the model's heads."""
    if config.generator_layers:
        if config.pair_head:
            raise InputError(
                "no class in transformers has both a next-sentence head and a replaced-token head",
                "train with one of the two objectives, or keep using the model with gristmill",
            )
        return "ElectraForPreTraining"
    if config.head == "linear":
        return "BertModel"
    return "BertForPreTraining" if config.pair_head else "BertForMaskedLM"


def canonical(theirs: Mapping[str, Any], state: Mapping[str, Tensor]) -> Found:
    """Returns the tensors by one name each, and the class by the tensors where config.json names none."""
    plain = {_plain(key): tensor for key, tensor in state.items()}
    if theirs.get("architectures"):
        return theirs, plain
    name = "BertModel"
    if "cls.predictions.bias" in plain:
        name = "BertForPreTraining" if "cls.seq_relationship.weight" in plain else "BertForMaskedLM"
    return {**theirs, "architectures": [name]}, plain


def to_config(config: ModelConfig) -> dict[str, Any]:
    """Returns the fields of config.json."""
    name = architecture(config)
    electra: dict[str, Any] = {"embedding_size": config.width}
    return {
        "architectures": [name],
        "model_type": "electra" if name.startswith("Electra") else "bert",
        "attention_probs_dropout_prob": 0.1,  # of who trains it on: 0.1 is what the papers fine-tune with
        "hidden_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_size": config.width,
        "initializer_range": 0.02,
        "intermediate_size": config.feed_forward,
        "layer_norm_eps": config.norm_epsilon,
        "max_position_embeddings": config.maximum_positions,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "pad_token_id": None,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "type_vocab_size": config.token_types,
        "vocab_size": config.vocab_size,
    } | (electra if name.startswith("Electra") else {})


def from_config(theirs: Mapping[str, Any]) -> ModelConfig:
    """Returns our config for a canonical config.json."""
    name = stock_class(theirs, READ)
    expect(theirs, "hidden_act", "gelu")
    expect(theirs, "position_embedding_type", "absolute")
    expect(theirs, "tie_word_embeddings", True)
    expect(theirs, "pruned_heads", {})
    for field in ("is_decoder", "add_cross_attention"):
        expect(theirs, field, False)
    heads, head_size = heads_and_size(theirs)
    if theirs.get("model_type") == "electra":
        expect(theirs, "embedding_size", heads * head_size)
    headed = name in ("BertForMaskedLM", "BertForPreTraining")
    return ModelConfig(
        **FIXED
        | {
            "norm_epsilon": float(theirs.get("layer_norm_eps", FIXED["norm_epsilon"])),
            "token_types": number({"type_vocab_size": FIXED["token_types"], **theirs}, "type_vocab_size"),
            "head": "transform" if headed else "linear",
            "output_bias": headed,
        },
        family="bert",
        kind="encoder",
        vocab_size=number(theirs, "vocab_size"),
        layers=number(theirs, "num_hidden_layers"),
        width=heads * head_size,
        heads=heads,
        kv_heads=heads,
        head_size=head_size,
        feed_forward=number(theirs, "intermediate_size"),
        maximum_positions=number(theirs, "max_position_embeddings"),
        tied=True,
        pair_head=name == "BertForPreTraining",
    )


def to_state(config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns their tensors."""
    name = architecture(config)
    prefix = {"BertModel": "", "ElectraForPreTraining": "electra."}.get(name, "bert.")
    theirs = {
        (prefix if in_trunk else "") + their_name: ours[our_name]
        for our_name, their_name, in_trunk in _names(config, name)
    }
    for i in range(config.layers):
        for part in ("weight", "bias"):
            whole = ours[f"blocks.{i}.attention.qkv.{part}"]
            for which, tensor in zip(("query", "key", "value"), split_qkv(config, whole), strict=True):
                theirs[f"{prefix}encoder.layer.{i}.attention.self.{which}.{part}"] = tensor
    return {key: tensor.contiguous() for key, tensor in theirs.items()}


def from_state(config: ModelConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns our tensors for a canonical state."""
    take = Taken(theirs)
    ours = {our_name: take(their_name) for our_name, their_name, _ in _names(config, architecture(config))}
    for i in range(config.layers):
        for part in ("weight", "bias"):
            parts = [f"encoder.layer.{i}.attention.self.{x}.{part}" for x in ("query", "key", "value")]
            ours[f"blocks.{i}.attention.qkv.{part}"] = torch.cat([take(key) for key in parts])
    take.ignore("embeddings.position_ids")  # 0, 1, 2, ..., which old files carry
    if config.head == "transform":
        take.same("cls.predictions.decoder.weight", ours["embedding.weight"])
        take.same("cls.predictions.decoder.bias", ours["output_bias"])
    for part in ("weight", "bias"):
        if not config.pair_head:
            take.ignore(f"pooler.dense.{part}")
            take.ignore(f"cls.seq_relationship.{part}")
        if config.head == "linear":
            for layer in ("dense", "dense_prediction"):
                take.ignore(f"discriminator_predictions.{layer}.{part}")
    take.finish()
    return ours


def _names(config: ModelConfig, name: str) -> list[tuple[str, str, bool]]:
    """Our name, theirs, and whether it is part of the trunk; queries, keys and values left out."""
    trunk = [
        ("embedding.weight", "embeddings.word_embeddings.weight"),
        ("positions.weight", "embeddings.position_embeddings.weight"),
        ("token_types.weight", "embeddings.token_type_embeddings.weight"),
    ]
    layers = [("embedding_norm", "embeddings.LayerNorm")]
    for i in range(config.layers):
        a, b = f"blocks.{i}.", f"encoder.layer.{i}."
        layers += [
            (a + "attention.out", b + "attention.output.dense"),
            (a + "attention_norm", b + "attention.output.LayerNorm"),
            (a + "feed_forward.up", b + "intermediate.dense"),
            (a + "feed_forward.down", b + "output.dense"),
            (a + "feed_forward_norm", b + "output.LayerNorm"),
        ]
    if name == "BertForPreTraining":
        layers.append(("pooler", "pooler.dense"))
    heads, names = [], []
    if name == "ElectraForPreTraining":
        heads = [
            ("detector.dense", "discriminator_predictions.dense"),
            ("detector.prediction", "discriminator_predictions.dense_prediction"),
        ]
    elif name != "BertModel":
        names = [("output_bias", "cls.predictions.bias")]
        heads = [
            ("transform.dense", "cls.predictions.transform.dense"),
            ("transform.norm", "cls.predictions.transform.LayerNorm"),
        ]
        if name == "BertForPreTraining":
            heads.append(("pair", "cls.seq_relationship"))
    return [
        *((mine, other, True) for mine, other in [*trunk, *_parts(layers)]),
        *((mine, other, False) for mine, other in [*names, *_parts(heads)]),
    ]


def _parts(layers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"{mine}.{part}", f"{other}.{part}") for mine, other in layers for part in ("weight", "bias")]


def _plain(name: str) -> str:
    """A tensor's name without what the classes with heads put before it, and with the norms' newer names."""
    name = name.removeprefix("bert.").removeprefix("electra.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


EXPORT = Family(
    fixed=FIXED,
    kind="encoder",
    feed_forward_ratio=4.0,
    head_size_is_width_over_heads=True,
    tied=True,
    pair_head=True,
    detection_head=True,
    canonical=canonical,
    architecture=architecture,
    to_config=to_config,
    from_config=from_config,
    to_state=to_state,
    from_state=from_state,
)
