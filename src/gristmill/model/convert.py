"""How the families' configurations and tensors are written in transformers, both ways.

Nothing is guessed: every field that changes what is computed is read or refused by name, and an unknown tensor
is an error. Golden tests compare the logits with the stock classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.model.family import Family

__all__ = [
    "Taken",
    "expect",
    "gpt2_like",
    "heads_and_size",
    "llama_like",
    "number",
    "split_qkv",
    "stock_class",
]


def llama_like(  # noqa: C901 - four short functions that belong together
    *, architecture: str, model_type: str, qk_norm: bool, norm_epsilon: float, rotary_base: float
) -> Family:
    """Returns a family whose tensors are named as Llama's."""

    def to_config(config: ModelConfig) -> dict[str, Any]:
        return {
            "architectures": [architecture],
            "model_type": model_type,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "head_dim": config.head_size,
            "hidden_act": "silu",
            "hidden_size": config.width,
            "initializer_range": 0.02,
            "intermediate_size": config.feed_forward,
            "max_position_embeddings": config.maximum_positions,
            "num_attention_heads": config.heads,
            "num_hidden_layers": config.layers,
            "num_key_value_heads": config.kv_heads,
            "rms_norm_eps": config.norm_epsilon,
            "rope_theta": config.rotary_base,  # where transformers 4 looks
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},  # where 5 looks
            "tie_word_embeddings": config.tied,
            "use_cache": True,
            "vocab_size": config.vocab_size,
        }

    def from_config(theirs: Mapping[str, Any]) -> ModelConfig:
        expect(theirs, "hidden_act", "silu")
        for field in ("attention_bias", "mlp_bias", "use_sliding_window"):
            expect(theirs, field, False)
        rope = theirs.get("rope_parameters") or theirs.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise InputError(f'config.json scales rotary positions ("{rope}"), which this core does not do')
        heads = number(theirs, "num_attention_heads")
        width = number(theirs, "hidden_size")
        return ModelConfig(
            family=model_type,
            vocab_size=number(theirs, "vocab_size"),
            layers=number(theirs, "num_hidden_layers"),
            width=width,
            heads=heads,
            kv_heads=theirs.get("num_key_value_heads") or heads,
            head_size=theirs.get("head_dim") or width // heads,
            feed_forward=number(theirs, "intermediate_size"),
            maximum_positions=number(theirs, "max_position_embeddings"),
            tied=bool(theirs.get("tie_word_embeddings", False)),
            norm="rms",
            norm_epsilon=float(theirs.get("rms_norm_eps", norm_epsilon)),
            positions="rotary",
            rotary_base=float(rope.get("rope_theta") or theirs.get("rope_theta") or 10_000.0),
            activation="swiglu",
            bias=False,
            qk_norm=qk_norm,
        )

    def to_state(config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        theirs = {
            "model.embed_tokens.weight": ours["embedding.weight"],
            "model.norm.weight": ours["norm.weight"],
        }
        if not config.tied:
            theirs["lm_head.weight"] = ours["output.weight"]
        for i in range(config.layers):
            a, b = f"blocks.{i}.", f"model.layers.{i}."
            q, k, v = split_qkv(config, ours[a + "attention.qkv.weight"])
            gate, up = ours[a + "feed_forward.up.weight"].chunk(2)
            theirs |= {
                b + "self_attn.q_proj.weight": q,
                b + "self_attn.k_proj.weight": k,
                b + "self_attn.v_proj.weight": v,
                b + "self_attn.o_proj.weight": ours[a + "attention.out.weight"],
                b + "mlp.gate_proj.weight": gate,
                b + "mlp.up_proj.weight": up,
                b + "mlp.down_proj.weight": ours[a + "feed_forward.down.weight"],
                b + "input_layernorm.weight": ours[a + "attention_norm.weight"],
                b + "post_attention_layernorm.weight": ours[a + "feed_forward_norm.weight"],
            }
            if qk_norm:
                theirs[b + "self_attn.q_norm.weight"] = ours[a + "attention.query_norm.weight"]
                theirs[b + "self_attn.k_norm.weight"] = ours[a + "attention.key_norm.weight"]
        return {name: tensor.contiguous() for name, tensor in theirs.items()}

    def from_state(config: ModelConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        take = Taken(theirs)
        ours = {
            "embedding.weight": take("model.embed_tokens.weight"),
            "norm.weight": take("model.norm.weight"),
        }
        if config.tied:
            take.ignore("lm_head.weight")
        else:
            ours["output.weight"] = take("lm_head.weight")
        for i in range(config.layers):
            a, b = f"blocks.{i}.", f"model.layers.{i}."
            ours |= {
                a + "attention.qkv.weight": torch.cat([take(f"{b}self_attn.{x}_proj.weight") for x in "qkv"]),
                a + "attention.out.weight": take(b + "self_attn.o_proj.weight"),
                a + "feed_forward.up.weight": torch.cat(
                    [take(f"{b}mlp.{x}_proj.weight") for x in ("gate", "up")]
                ),
                a + "feed_forward.down.weight": take(b + "mlp.down_proj.weight"),
                a + "attention_norm.weight": take(b + "input_layernorm.weight"),
                a + "feed_forward_norm.weight": take(b + "post_attention_layernorm.weight"),
            }
            take.ignore(b + "self_attn.rotary_emb.inv_freq")
            if qk_norm:
                ours[a + "attention.query_norm.weight"] = take(b + "self_attn.q_norm.weight")
                ours[a + "attention.key_norm.weight"] = take(b + "self_attn.k_norm.weight")
        take.finish()
        return ours

    return Family(
        fixed={
            "norm": "rms",
            "norm_epsilon": norm_epsilon,
            "positions": "rotary",
            "rotary_base": rotary_base,
            "activation": "swiglu",
            "bias": False,
            "qk_norm": qk_norm,
        },
        feed_forward_ratio=8 / 3,
        head_size_is_width_over_heads=False,
        shares_keys=True,
        architecture=lambda config: architecture,
        to_config=to_config,
        from_config=from_config,
        to_state=to_state,
        from_state=from_state,
    )


def gpt2_like() -> Family:  # noqa: C901 - four short functions that belong together
    """Returns GPT-2, whose linear layers are stored transposed (`Conv1D`)."""

    def to_config(config: ModelConfig) -> dict[str, Any]:
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "initializer_range": 0.02,
            "layer_norm_epsilon": config.norm_epsilon,
            "n_ctx": config.maximum_positions,
            "n_embd": config.width,
            "n_head": config.heads,
            "n_inner": config.feed_forward,
            "n_layer": config.layers,
            "n_positions": config.maximum_positions,
            "tie_word_embeddings": config.tied,
            "use_cache": True,
            "vocab_size": config.vocab_size,
        }

    def from_config(theirs: Mapping[str, Any]) -> ModelConfig:
        if theirs.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
            raise InputError(
                f'config.json: activation_function is "{theirs["activation_function"]}", expected "gelu_new"'
            )
        expect(theirs, "scale_attn_weights", True)
        expect(theirs, "scale_attn_by_inverse_layer_idx", False)
        expect(theirs, "add_cross_attention", False)
        width, heads = number(theirs, "n_embd"), number(theirs, "n_head")
        return ModelConfig(
            family="gpt2",
            vocab_size=number(theirs, "vocab_size"),
            layers=number(theirs, "n_layer"),
            width=width,
            heads=heads,
            kv_heads=heads,
            head_size=width // heads,
            feed_forward=theirs.get("n_inner") or 4 * width,
            maximum_positions=number(theirs, "n_positions"),
            tied=bool(theirs.get("tie_word_embeddings", True)),
            norm="layer",
            norm_epsilon=float(theirs.get("layer_norm_epsilon", 1e-5)),
            positions="learned",
            rotary_base=0.0,
            activation="gelu_tanh",
            bias=True,
            qk_norm=False,
        )

    # ours, theirs, transposed
    layers = [
        ("attention_norm", "ln_1", False),
        ("attention.qkv", "attn.c_attn", True),
        ("attention.out", "attn.c_proj", True),
        ("feed_forward_norm", "ln_2", False),
        ("feed_forward.up", "mlp.c_fc", True),
        ("feed_forward.down", "mlp.c_proj", True),
    ]

    def to_state(config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        theirs = {
            "transformer.wte.weight": ours["embedding.weight"],
            "transformer.wpe.weight": ours["positions.weight"],
        }
        if not config.tied:
            theirs["lm_head.weight"] = ours["output.weight"]
        for part in ("weight", "bias"):
            theirs[f"transformer.ln_f.{part}"] = ours[f"norm.{part}"]
            for i in range(config.layers):
                for mine, name, transposed in layers:
                    tensor = ours[f"blocks.{i}.{mine}.{part}"]
                    theirs[f"transformer.h.{i}.{name}.{part}"] = (
                        tensor.T if transposed and part == "weight" else tensor
                    )
        return {name: tensor.contiguous() for name, tensor in theirs.items()}

    def from_state(config: ModelConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # GPT-2's own files leave out the prefix that the class with a head adds
        take = Taken(
            {
                name if name.startswith(("transformer.", "lm_head")) else f"transformer.{name}": tensor
                for name, tensor in theirs.items()
            }
        )
        ours = {
            "embedding.weight": take("transformer.wte.weight"),
            "positions.weight": take("transformer.wpe.weight"),
        }
        if config.tied:
            take.ignore("lm_head.weight")
        else:
            ours["output.weight"] = take("lm_head.weight")
        for part in ("weight", "bias"):
            ours[f"norm.{part}"] = take(f"transformer.ln_f.{part}")
            for i in range(config.layers):
                take.ignore(f"transformer.h.{i}.attn.bias")  # the causal mask that old files carry
                take.ignore(f"transformer.h.{i}.attn.masked_bias")
                for mine, name, transposed in layers:
                    tensor = take(f"transformer.h.{i}.{name}.{part}")
                    ours[f"blocks.{i}.{mine}.{part}"] = (
                        tensor.T.contiguous() if transposed and part == "weight" else tensor
                    )
        take.finish()
        return ours

    return Family(
        fixed={
            "norm": "layer",
            "norm_epsilon": 1e-5,
            "positions": "learned",
            "rotary_base": 0.0,
            "activation": "gelu_tanh",
            "bias": True,
            "qk_norm": False,
        },
        feed_forward_ratio=4.0,
        head_size_is_width_over_heads=True,
        architecture=lambda config: "GPT2LMHeadModel",
        to_config=to_config,
        from_config=from_config,
        to_state=to_state,
        from_state=from_state,
    )


class Taken:
    """Takes tensors out of a state by name, and complains of what is missing or left over."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._left = dict(state)

    def __call__(self, name: str) -> Tensor:
        """Returns a tensor, which is then no longer there; InputError where it is not."""
        if name not in self._left:
            raise InputError(
                f'the weights have no tensor "{name}"',
                "config.json and the weights belong to different models",
            )
        return self._left.pop(name)

    def one_of(self, *names: str) -> Tensor:
        """Returns the tensor that goes by several names, of which some are there; all of these have to agree."""
        found = [name for name in names if name in self._left]
        tensor = self(found[0] if found else names[0])
        for name in found[1:]:
            if not torch.equal(self(name), tensor):
                raise InputError(
                    f'the tensors "{found[0]}" and "{name}" differ, and in this family they are one',
                    "a model with separate tables for these can not be imported",
                )
        return tensor

    def ignore(self, name: str) -> None:
        """Takes a tensor that says nothing new, where there is one."""
        self._left.pop(name, None)

    def same(self, name: str, tensor: Tensor) -> None:
        """Takes a tensor that a tied model stores twice, and complains where the two differ."""
        again = self._left.pop(name, None)
        if again is not None and not torch.equal(again, tensor):
            raise InputError(
                f'the weights\' "{name}" differs from the tensor that this family ties it to',
                "a model whose output matrix is not its embedding can not be held by this family",
            )

    def finish(self) -> None:
        """Complains of tensors that nobody took."""
        if self._left:
            few = ", ".join(sorted(self._left)[:3])
            raise InputError(
                f"the weights hold {len(self._left)} tensors that this family does not have: {few}, …"
            )


def split_qkv(config: ModelConfig, qkv: Tensor) -> tuple[Tensor, ...]:
    """Returns queries, keys and values of the matrix, or the bias, that holds all three."""
    sizes = [config.heads * config.head_size, *[config.kv_heads * config.head_size] * 2]
    return torch.split(qkv, sizes)


def number(theirs: Mapping[str, Any], field: str) -> int:
    """Returns a field that has to be a positive whole number."""
    value = theirs.get(field)
    if not isinstance(value, int) or value <= 0:
        raise InputError(f"config.json: {field} is {value!r}, expected a positive whole number")
    return value


def heads_and_size(theirs: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the heads of a model whose heads share its width evenly, and their size."""
    width, heads = number(theirs, "hidden_size"), number(theirs, "num_attention_heads")
    if width % heads:
        raise InputError(f"config.json: hidden_size {width} does not divide into num_attention_heads {heads}")
    return heads, width // heads


def stock_class(theirs: Mapping[str, Any], known: Sequence[str]) -> str:
    """Returns the class that wrote a model, which says what heads it has, where that is one of those known."""
    classes = theirs.get("architectures") or []
    if len(classes) != 1 or classes[0] not in known:
        found = ", ".join(map(str, classes)) or "nothing"
        raise InputError(
            f"config.json: architectures names {found}, expected one of {', '.join(known)}",
            "name the class that wrote the weights; of a model with another head the trunk alone can be read: "
            "save it with AutoModel.from_pretrained(...).save_pretrained(...)",
        )
    return str(classes[0])


def expect(theirs: Mapping[str, Any], field: str, value: Any) -> None:
    """Refuses a field that has another value than the only one that the core does."""
    if theirs.get(field, value) not in (value, None):
        raise InputError(
            f"config.json: {field} is {theirs[field]!r}, which this core does not do (it does {value!r})"
        )
