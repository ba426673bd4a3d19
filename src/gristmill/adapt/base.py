"""The model that a task starts from: one of ours, adapted or not, or a directory that `save_pretrained` wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from gristmill.artifact import Artifact
from gristmill.batch import Visibility
from gristmill.errors import CorruptArtifact, InputError
from gristmill.generate.load import ADAPTED, HEAD, find_model, opened
from gristmill.model.base import Model
from gristmill.model.exchange import from_transformers, pooler_in
from gristmill.objectives.trained import objective_of, visibility_for
from gristmill.tokenizer import Tokenizer

__all__ = ["PROMPT", "TASK", "Base", "load_base"]

PROMPT, TASK = "prompt.safetensors", "task.json"


class Base(NamedTuple):
    """A pretrained model, its tokenizer, and how it reads a text."""

    model: Model
    tokenizer: Tokenizer
    visibility: Visibility
    artifact: Artifact | None
    """What it is kept in, where that is one of our directories."""
    layer: Mapping[str, Tensor]
    """The weights of the layer that stands before its own heads, by the names that they have in `Head`; none where it has none."""
    note: str = ""
    """What of it is left out."""


def load_base(path: Path) -> Base:
    """Returns the model in a directory: a run or a task model of ours, or safetensors with `config.json` and `tokenizer.json`.

    Raises:
        InputError: there is no such directory, or it holds no model that is known here.
        CorruptArtifact: a file was changed or cut off.
    """
    if (path / "config.json").is_file() and not (path / "manifest.json").is_file():
        model, tokenizer = from_transformers(path), Tokenizer.from_directory(path)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise CorruptArtifact(
                f"the tokenizer in {path} has {tokenizer.vocab_size:,} tokens, the model knows {model.config.vocab_size:,}",
                "they belong to different models: fetch the whole directory again",
            )
        return Base(
            model, tokenizer, visibility_for(None, model.config), None, _layer(model, pooler_in(path))
        )
    if not path.is_dir():
        raise InputError(
            f"there is no model {path}", "name the directory of a run, or one that `save_pretrained` wrote"
        )
    loaded = opened(find_model(path))
    artifact, layer = loaded.artifact, _layer(loaded.model, {})
    if artifact.kind != ADAPTED:
        visibility = visibility_for(objective_of(artifact.manifest.config), loaded.config)
        return Base(loaded.model, loaded.tokenizer, visibility, artifact, layer)
    visibility = Visibility(json.loads((artifact.path / TASK).read_text(encoding="utf-8"))["visibility"])
    gone = [what for name, what in _PARTS.items() if (artifact.path / name).is_file()]
    note = f"{path} was adapted for another task; its {' and '.join(gone)} left out" if gone else ""
    return Base(loaded.model, loaded.tokenizer, visibility, artifact, layer, note)


_PARTS = {HEAD: "head is", PROMPT: "learned vectors are"}


def _layer(model: Model, left_over: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BERT's pooler, which is the model's own or was left over of its files, or the layer before ModernBERT's output."""
    state = model.state_dict()
    if model.config.family == "modernbert":
        parts = ("dense.weight", "dense.bias", "norm.weight", "norm.bias")
        return {part: state[f"transform.{part}"] for part in parts if f"transform.{part}" in state}
    own = {name.removeprefix("pooler."): t for name, t in state.items() if name.startswith("pooler.")}
    return {f"dense.{part}": tensor for part, tensor in (own or left_over).items()}
