"""The model that a task starts from: one of ours, or a directory that `save_pretrained` wrote."""

from pathlib import Path
from typing import NamedTuple

from gristmill.artifact import Artifact
from gristmill.batch import Visibility
from gristmill.errors import CorruptArtifact, InputError
from gristmill.generate.load import load_run
from gristmill.model.base import Model
from gristmill.model.exchange import from_transformers
from gristmill.objectives.trained import objective_of, visibility_for
from gristmill.tokenizer import Tokenizer

__all__ = ["Base", "load_base"]


class Base(NamedTuple):
    """A pretrained model, its tokenizer, and how it reads a text."""

    model: Model
    tokenizer: Tokenizer
    visibility: Visibility
    artifact: Artifact | None
    """What it is kept in, where that is one of our directories."""


def load_base(path: Path) -> Base:
    """Returns the model in a directory: a run of ours, or safetensors with `config.json` and `tokenizer.json`.

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
    loaded = load_run(path)
    objective = objective_of(loaded.artifact.manifest.config)
    return Base(loaded.model, loaded.tokenizer, visibility_for(objective, loaded.config), loaded.artifact)
