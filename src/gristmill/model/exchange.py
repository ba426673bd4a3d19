"""To and from the formats of others: directories of transformers, and llama2.c's single files.

An export is checked before it counts: it is loaded with the stock class, and its logits are compared.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gristmill import plugins
from gristmill.artifact import write_json
from gristmill.errors import CorruptArtifact, InputError, RunError
from gristmill.model.checkpoint import read_tensors, write_tensors
from gristmill.model.config import ModelConfig
from gristmill.model.family import Family
from gristmill.model.transformer import Transformer

__all__ = ["TOLERANCE", "compare_with_transformers", "from_llama2c", "from_transformers", "to_transformers"]

TOLERANCE = 1e-5
"""Largest difference of a logit, in float32, relative to the largest logit where that is above 1."""


def to_transformers(model: Transformer, directory: Path, special_tokens: dict[str, int]) -> float:
    """Writes `config.json` and `model.safetensors` into a directory, loads them with the stock class, and compares.

    Args:
        model: float32 weights; its family decides the class.
        directory: exists; the caller makes the write atomic.
        special_tokens: ids by name; "bos", "eos" and "pad" go into the config.

    Returns:
        The largest difference between a logit of ours and theirs.

    Raises:
        InputError: the model has parts that the stock class does not, or transformers is not installed.
        RunError: the logits differ.
    """
    config = model.config
    if config.ngrams is not None:
        raise InputError(
            f'the family "{config.family}" has no n-gram embeddings in transformers, so this model can not be exported',
            "train without [model.ngrams], or keep using it with gristmill",
        )
    family: Family = plugins.load("model.families", config.family)
    theirs: dict[str, Any] = family.to_config(config) | {"dtype": "float32", "torch_dtype": "float32"}
    theirs |= {
        f"{name}_token_id": special_tokens[name] for name in ("bos", "eos", "pad") if name in special_tokens
    }
    write_json(directory / "config.json", theirs)
    defaults = {key: value for key, value in theirs.items() if key.endswith("_token_id")}
    write_json(directory / "generation_config.json", {"_from_model_config": True, **defaults})
    state = family.to_state(config, {name: t.detach().float() for name, t in model.state_dict().items()})
    write_tensors(state, directory / "model.safetensors")
    difference = compare_with_transformers(model, directory)
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported model's logits differ from ours by {difference:.2g}, more than {TOLERANCE:g}",
            "nothing was written; please report this with the model's model.json",
        )
    return difference


def from_transformers(directory: Path) -> Transformer:
    """Returns the model in a directory of transformers: config.json and safetensors, whole or in shards.

    Raises:
        InputError: the architecture is not one of the families, or something in it is not done here.
        CorruptArtifact: the weights are damaged.
    """
    try:
        theirs = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{directory} has no config.json", "name a directory that `save_pretrained` wrote"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptArtifact(f"{directory / 'config.json'} is damaged: {error}") from None
    name = theirs.get("model_type", "")
    if name not in plugins.names("model.families"):
        known = ", ".join(plugins.names("model.families"))
        raise InputError(f'the model in {directory} is of type "{name}"', f"families that are known: {known}")
    family: Family = plugins.load("model.families", name)
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        pickles = [*directory.glob("*.bin"), *directory.glob("*.pt*")]
        hint = "pickles are not loaded: save it again with safe_serialization=True" if pickles else None
        raise InputError(f"{directory} has no safetensors file", hint)
    config = family.from_config(theirs)
    return build_model(
        config, family.from_state(config, {k: v for file in files for k, v in read_tensors(file).items()})
    )


def from_llama2c(path: Path) -> Transformer:
    """Returns the model in a llama2.c file, version 0: seven int32 of header, then float32 tensors in a fixed order.

    llama2.c turns pairs (2i, 2i + 1) of a head where we turn (i, i + K/2): the rows of queries and keys are
    put in our order, which leaves every product between them as it was.
    """
    data = path.read_bytes() if path.is_file() else b""
    if len(data) < 28:
        raise InputError(f"{path} is not a llama2.c model: it has {len(data)} bytes")
    D, F, L, H, G, V, T = struct.unpack("<7i", data[:28])
    tied, V = V > 0, abs(V)
    if min(D, F, L, H, G, V, T) <= 0 or D % H or H % G or max(D, F, T) > 1 << 20:
        raise InputError(f"{path} is not a llama2.c model: its header is {(D, F, L, H, G, V, T)}")
    K = D // H
    shapes = {
        "embedding": (V, D), "attention_norm": (L, D), "q": (L, H * K, D), "k": (L, G * K, D), "v": (L, G * K, D),
        "out": (L, D, H * K), "feed_forward_norm": (L, D), "gate": (L, F, D), "down": (L, D, F), "up": (L, F, D),
        "norm": (D,), "cosines": (T, K // 2), "sines": (T, K // 2),
    }  # fmt: skip
    if not tied:
        shapes["output"] = (V, D)
    expected = 28 + 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    if len(data) != expected:
        raise CorruptArtifact(
            f"{path} has {len(data):,} bytes, its header promises {expected:,}", "copy it again"
        )
    flat, parts, at = torch.from_numpy(np.frombuffer(data, np.float32, offset=28).copy()), {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        parts[name] = flat[at : at + size].view(shape)
        at += size
    ours: dict[str, Tensor] = {"embedding.weight": parts["embedding"], "norm.weight": parts["norm"]}
    if not tied:
        ours["output.weight"] = parts["output"]
    for i in range(L):
        block = f"blocks.{i}."
        qkv = [_halves(parts["q"][i], H), _halves(parts["k"][i], G), parts["v"][i]]
        ours |= {
            block + "attention.qkv.weight": torch.cat(qkv),
            block + "attention.out.weight": parts["out"][i],
            block + "feed_forward.up.weight": torch.cat([parts["gate"][i], parts["up"][i]]),
            block + "feed_forward.down.weight": parts["down"][i],
            block + "attention_norm.weight": parts["attention_norm"][i],
            block + "feed_forward_norm.weight": parts["feed_forward_norm"][i],
        }
    config = ModelConfig(
        family="llama", vocab_size=V, layers=L, width=D, heads=H, kv_heads=G, head_size=K, feed_forward=F,
        maximum_positions=T, tied=tied, norm="rms", norm_epsilon=1e-5, positions="rotary", rotary_base=10_000.0,
        activation="swiglu", bias=False, qk_norm=False,
    )  # fmt: skip
    return build_model(config, ours)


@torch.no_grad()
def compare_with_transformers(model: Transformer, directory: Path) -> float:
    """Returns the largest difference between our logits and those of the stock class, on random tokens."""
    try:
        import transformers
    except ImportError:
        raise InputError(
            "an export is compared with transformers, which is not installed",
            'pip install "gristmill[transformers]"',
        ) from None
    config = model.config
    family: Family = plugins.load("model.families", config.family)
    stock = getattr(transformers, family.architecture).from_pretrained(directory, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    length = min(64, config.maximum_positions)
    tokens = torch.randint(config.vocab_size, (2, length), generator=generator)
    was_training = model.training
    ours = model.eval().logits(model(tokens)).float()
    model.train(was_training)
    theirs = stock(tokens).logits
    return float((ours - theirs).abs().max() / max(1.0, float(theirs.abs().max())))


def build_model(config: ModelConfig, state: dict[str, Tensor]) -> Transformer:
    """Returns a float32 model with these weights.

    Raises:
        CorruptArtifact: a tensor has another shape than the config says.
    """
    with torch.device("meta"):
        model = Transformer(config)
    try:
        model.load_state_dict(
            {name: tensor.float().contiguous() for name, tensor in state.items()}, assign=True
        )
    except RuntimeError as error:
        raise CorruptArtifact(
            f"the weights do not fit the config: {str(error).splitlines()[-1].strip()}"
        ) from None
    model.reset_buffers(None)
    return model.eval()


def _halves(matrix: Tensor, heads: int) -> Tensor:
    """Rows of each head from (0,1),(2,3),... order to even ones first, then odd ones."""
    rows, width = matrix.shape
    return matrix.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)
