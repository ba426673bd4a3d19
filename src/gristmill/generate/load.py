"""From a run's directory to a model that answers."""

import dataclasses
from pathlib import Path

import torch

from gristmill.artifact import Artifact, open_artifact
from gristmill.errors import CorruptArtifact, InputError
from gristmill.model.base import Model
from gristmill.model.checkpoint import load_model
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = [
    "ADAPTED",
    "CHECKPOINT",
    "FORMAT",
    "HEAD",
    "TOKENIZER",
    "Loaded",
    "find_checkpoint",
    "find_model",
    "load_run",
    "opened",
]

CHECKPOINT = "checkpoint"
"""The kind of artifact that a model is."""
ADAPTED = "adapted"
"""The kind of artifact that a task model is: a checkpoint's files, and a head where the task has one."""
HEAD = "head.safetensors"
FORMAT = 1
TOKENIZER = "tokenizer"
"""Where a checkpoint keeps its tokenizer's files."""


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A model, the tokenizer that it was trained with, and where they came from."""

    model: Model
    tokenizer: Tokenizer
    artifact: Artifact

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.model.config


def load_run(path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Loaded:
    """Returns the model of a run (or of a checkpoint's own directory), its files' hashes compared before use.

    Raises:
        InputError: there is no run, its training is not finished, or the directory is something else.
        CorruptArtifact: a file was changed or cut off, or model and tokenizer do not belong together.
    """
    return opened(find_checkpoint(path), dtype=dtype, device=device)


def opened(
    artifact: Artifact, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Loaded:
    """Returns the model in an artifact that `find_checkpoint` or `find_model` found; errors are those of `load_run`."""
    tokenizer = Tokenizer.from_directory(artifact.path / TOKENIZER)
    model = load_model(artifact.path, dtype=dtype, device=device)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CorruptArtifact(
            f"the tokenizer in {artifact.path / TOKENIZER} has {tokenizer.vocab_size:,} tokens, "
            f"the model knows {model.config.vocab_size:,}",
            "they belong to different runs: copy the whole directory again",
        )
    return Loaded(model, tokenizer, artifact)


def find_checkpoint(path: Path) -> Artifact:
    """Returns the checkpoint in a run's directory, or the one that the directory is; also a task model that writes.

    Raises:
        InputError: there is none, or it is a task model that scores, and does not write.
    """
    artifact = find_model(path)
    if artifact.kind == ADAPTED and (artifact.path / HEAD).is_file():
        raise InputError(
            f"{path} is a task model: what it was adapted for is told by its head, and no longer by the model alone",
            f"gristmill predict {path} FILE",
        )
    return artifact


def find_model(path: Path) -> Artifact:
    """Returns the checkpoint in a run's directory, or the checkpoint or task model that the directory is.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir():
        raise InputError(f"there is no run {path}", "`gristmill runs` lists the runs below a folder")
    for directory in (path / "model", path):
        if (directory / "manifest.json").is_file():
            artifact = open_artifact(directory)
            if artifact.kind not in (CHECKPOINT, ADAPTED):
                raise InputError(f"{directory} is a {artifact.kind}, expected a {CHECKPOINT}")
            return artifact
    if (path / ".model.partial").is_dir():
        raise InputError(
            f"the training of {path} is not finished",
            "give the same `gristmill run` command again: it goes on where it stopped",
        )
    raise InputError(
        f"{path} holds no model: neither manifest.json nor model/manifest.json is there",
        "name the directory of a run, such as runs/demo, or one that `gristmill import` wrote",
    )
