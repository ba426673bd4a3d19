"""The model that a task starts from: one of ours, adapted or not, or a directory that `save_pretrained` wrote."""

import json
from pathlib import Path
from typing import NamedTuple

from gristmill.artifact import Artifact
from gristmill.batch import Visibility
from gristmill.errors import CorruptArtifact, InputError
from gristmill.generate.load import ADAPTED, HEAD, find_model, opened
from gristmill.model.base import Model
from gristmill.model.exchange import from_transformers
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
        return Base(model, tokenizer, visibility_for(None, model.config), None)
    if not path.is_dir():
        raise InputError(
            f"there is no model {path}", "name the directory of a run, or one that `save_pretrained` wrote"
        )
    loaded = opened(find_model(path))
    artifact, visibility = loaded.artifact, visibility_for(None, loaded.config)
    if artifact.kind != ADAPTED:
        visibility = visibility_for(objective_of(artifact.manifest.config), loaded.config)
        return Base(loaded.model, loaded.tokenizer, visibility, artifact)
    stored = json.loads((artifact.path / TASK).read_text(encoding="utf-8"))
    gone = [what for name, what in _PARTS.items() if (artifact.path / name).is_file()]
    note = f"{path} was adapted for another task; its {' and '.join(gone)} left out" if gone else ""
    return Base(loaded.model, loaded.tokenizer, Visibility(stored["visibility"]), artifact, note)


_PARTS = {HEAD: "head is", PROMPT: "learned vectors are"}
