"""To and from the formats of others: directories of transformers, and llama2.c's single files.

An export is checked before it counts: it is loaded with the stock class, and its logits are compared.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import torch
from torch import Tensor

from gristmill import plugins
from gristmill.artifact import write_json
from gristmill.errors import CorruptArtifact, InputError, RunError
from gristmill.model.base import Model
from gristmill.model.build import make_model
from gristmill.model.checkpoint import read_tensors, write_tensors
from gristmill.model.config import ModelConfig
from gristmill.model.family import Family
from gristmill.model.transformer import Transformer

__all__ = [
    "ROUNDINGS",
    "TOLERANCE",
    "Pooling",
    "compare_with_transformers",
    "from_llama2c",
    "from_transformers",
    "largest_difference",
    "outputs_of_both",
    "pooler_in",
    "refuse_unportable",
    "special_token_fields",
    "to_sentence_transformers",
    "to_transformers",
]

TOLERANCE = 1e-5
"""Largest difference of a logit, in float32, relative to the largest logit where that is above 1."""

ROUNDINGS = 4.0
"""Weights can make more of float32's rounding than TOLERANCE: T5's attention, whose scores are not scaled, easily
does. The stock class is then that far from itself in float64, and a difference of so many times that is no error."""

Pooling = Literal["mean", "cls", "last"]
"""How one embedding is made of a text's hidden states."""

FAMILY_OF_TYPE = {"electra": "bert", "marian": "transformer"}
"""Families by the `model_type` of config.json, where that is not the family's own name."""


def to_transformers(model: Model, directory: Path, special_tokens: dict[str, int]) -> float:
    """Writes `config.json` and `model.safetensors` into a directory, loads them with the stock class, and compares.

    Args:
        model: float32 weights; its family decides the class.
        directory: exists; the caller makes the write atomic.
        special_tokens: ids by name; "bos", "eos" and "pad" go into the config, an encoder's others too.

    Returns:
        The largest difference between a logit of ours and theirs.

    Raises:
        InputError: the model has parts that the stock class does not, or transformers is not installed.
        RunError: the logits differ.
    """
    config = model.config
    refuse_unportable(config)
    family: Family = plugins.load("model.families", config.family)
    theirs: dict[str, Any] = family.to_config(config) | {"dtype": "float32", "torch_dtype": "float32"}
    theirs |= special_token_fields(config, special_tokens)
    write_json(directory / "config.json", theirs)
    if config.kind != "encoder":
        defaults = {key: value for key, value in theirs.items() if key.endswith("_token_id")}
        write_json(directory / "generation_config.json", {"_from_model_config": True, **defaults})
    state = family.to_state(config, {name: t.detach().float() for name, t in model.state_dict().items()})
    write_tensors(state, directory / "model.safetensors")
    difference = compare_with_transformers(model, directory)
    if not difference <= TOLERANCE and not difference <= ROUNDINGS * _rounding(model, directory):
        raise RunError(
            f"the exported model's logits differ from ours by {difference:.2g}, more than {TOLERANCE:g}",
            "nothing was written; please report this with the model's model.json",
        )
    return difference


def refuse_unportable(config: ModelConfig) -> None:
    """Raises InputError where a model has parts that no stock class has."""
    if config.ngrams is not None:
        raise InputError(
            f'the family "{config.family}" has no n-gram embeddings in transformers, so this model can not be exported',
            "train without [model.ngrams], or keep using it with gristmill",
        )


def special_token_fields(config: ModelConfig, special_tokens: dict[str, int]) -> dict[str, int | None]:
    """Returns the fields of config.json that name special tokens."""
    names = ("bos", "eos", "pad", *(("cls", "sep", "mask") if config.kind == "encoder" else ()))
    if config.kind != "encoder-decoder":
        return {f"{name}_token_id": special_tokens[name] for name in names if name in special_tokens}
    # none is stated too: the defaults of these classes are tokens that mean something else here
    fields = {f"{name}_token_id": special_tokens.get(name) for name in names}
    start = special_tokens.get("bos", special_tokens.get("pad"))
    return fields if start is None else {**fields, "decoder_start_token_id": start}


def to_sentence_transformers(
    config: ModelConfig, directory: Path, *, pooling: Pooling, maximum_tokens: int | None = None
) -> None:
    """Writes what `SentenceTransformer(directory)` needs beside an exported model: normalised embeddings of texts.

    The files are in the words of version 2, which later ones read too.

    Args:
        config: of the model.
        directory: where `to_transformers` has written it.
        pooling: the mean over a text's positions, its first and last token among them; its first ([CLS]), or its last.
        maximum_tokens: where longer texts are cut; by default what the model reads.
    """
    modules = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (path, name) in enumerate(modules.items())
        ],
        "sentence_bert_config.json": {
            "max_seq_length": maximum_tokens or config.maximum_positions,
            "do_lower_case": False,
        },
        "config_sentence_transformers.json": {"prompts": {}, "similarity_fn_name": "cosine"},
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.width,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            **({"pooling_mode_lasttoken": True} if pooling == "last" else {}),
        },
    }
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        write_json(directory / name, content)


def from_transformers(directory: Path) -> Model:
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
    name = FAMILY_OF_TYPE.get(name, name)
    if name not in plugins.names("model.families"):
        known = ", ".join(plugins.names("model.families"))
        raise InputError(f'the model in {directory} is of type "{name}"', f"families that are known: {known}")
    family: Family = plugins.load("model.families", name)
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        pickles = [*directory.glob("*.bin"), *directory.glob("*.pt*")]
        hint = "pickles are not loaded: save it again with safe_serialization=True" if pickles else None
        raise InputError(f"{directory} has no safetensors file", hint)
    tensors = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    theirs, found = family.canonical(theirs, tensors)
    config = family.from_config(theirs)
    return build_model(config, family.from_state(config, found))


def pooler_in(directory: Path) -> dict[str, Tensor]:
    """Returns weight and bias of the pooler that BERT's files may hold beside what `from_transformers` reads."""
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safetensors.safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                before, _, part = name.rpartition("pooler.dense.")
                if part in ("weight", "bias") and before in ("", "bert."):
                    found[part] = tensors.get_tensor(name)
    return found


def from_llama2c(path: Path) -> Model:
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
def compare_with_transformers(model: Model, directory: Path) -> float:
    """Returns the largest difference between our scores and those of the stock class, on random tokens."""
    try:
        import transformers
    except ImportError:
        raise InputError(
            "an export is compared with transformers, which is not installed",
            'pip install "gristmill[transformers]"',
        ) from None
    family: Family = plugins.load("model.families", model.config.family)
    # transformers 4.51 knows no argument `dtype`, and 5 warns of the older one
    stock = getattr(transformers, family.architecture(model.config)).from_pretrained(directory).float().eval()
    return max(largest_difference(ours, theirs) for ours, theirs in outputs_of_both(model, stock))


@torch.no_grad()
def _rounding(model: Model, directory: Path) -> float:
    """How far the scores of the stock class in float32 are from its own in float64, on the same tokens."""
    import transformers

    family: Family = plugins.load("model.families", model.config.family)
    stock = getattr(transformers, family.architecture(model.config)).from_pretrained(directory).float().eval()
    narrow = [theirs for _, theirs in outputs_of_both(model, stock)]
    wide = [theirs for _, theirs in outputs_of_both(model, stock.double())]
    return max(largest_difference(*pair) for pair in zip(narrow, wide, strict=True))


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Returns the largest difference, relative to the largest number where that is above 1."""
    return float((ours.double() - theirs.double()).abs().max() / max(1.0, float(theirs.abs().max())))


def outputs_of_both(model: Model, stock: Any) -> list[tuple[Tensor, Tensor]]:
    """Returns what a model and its stock class make of the same random tokens: logits, or hidden states and all heads' scores."""
    was_training = model.training
    pairs = _OUTPUTS[model.config.kind](model.eval(), stock)
    model.train(was_training)
    return pairs


def _decoder_outputs(model: Model, stock: Any) -> list[tuple[Tensor, Tensor]]:
    """Our logits and theirs."""
    tokens = _random_tokens(model, min(64, model.config.maximum_positions))
    return [(model.logits(model(tokens)), stock(tokens).logits)]


def _encoder_outputs(model: Model, stock: Any) -> list[tuple[Tensor, Tensor]]:
    """Our hidden states and theirs, and the scores of every head that the stock class has."""
    assert isinstance(model, Transformer)
    config = model.config
    # long enough for the local layers to leave something out
    tokens = _random_tokens(model, min(64 + 2 * config.window, config.maximum_positions))
    types, given = None, {}
    if config.token_types:
        types = (torch.arange(tokens.shape[1]) * config.token_types // tokens.shape[1]).expand_as(tokens)
        given = {"token_type_ids": types}
    hidden = model(tokens, token_types=types)
    theirs = stock(tokens, **given)
    pairs = [(hidden, stock.base_model(tokens, **given).last_hidden_state)]
    if config.generator_layers:
        pairs.append((model.detect(hidden), theirs.logits))
    elif config.pair_head:
        pairs.append((model.logits(hidden), theirs.prediction_logits))
        pairs.append((model.pair_logits(hidden[:, 0]), theirs.seq_relationship_logits))
    elif config.head == "transform":
        pairs.append((model.logits(hidden), theirs.logits))
    return pairs


def _encoder_decoder_outputs(model: Model, stock: Any) -> list[tuple[Tensor, Tensor]]:
    """Our logits and theirs, for targets that are shorter than their sources."""
    assert isinstance(model, Transformer)
    source = _random_tokens(model, min(64, model.config.maximum_positions))
    target = source.flip(0)[:, : max(1, 3 * source.shape[1] // 4)]
    hidden = model(target, memory=model.remember(model.encode(source)))
    return [(model.logits(hidden), stock(input_ids=source, decoder_input_ids=target).logits)]


_OUTPUTS: dict[str, Callable[[Model, Any], list[tuple[Tensor, Tensor]]]] = {
    "decoder": _decoder_outputs,
    "encoder": _encoder_outputs,
    "encoder-decoder": _encoder_decoder_outputs,
}


def _random_tokens(model: Model, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (2, length), generator=generator)


def build_model(config: ModelConfig, state: dict[str, Tensor]) -> Model:
    """Returns a float32 model with these weights.

    Raises:
        CorruptArtifact: a tensor has another shape than the config says.
    """
    with torch.device("meta"):
        model = make_model(config)
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
