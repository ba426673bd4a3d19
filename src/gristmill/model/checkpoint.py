"""Weights on disk: safetensors and JSON, never pickles."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gristmill.artifact import write_json
from gristmill.config import from_dict, to_dict
from gristmill.errors import CorruptArtifact, InputError
from gristmill.model.base import Model
from gristmill.model.build import make_model
from gristmill.model.config import ModelConfig

__all__ = ["CONFIG", "WEIGHTS", "load_config", "load_model", "read_tensors", "save_model", "write_tensors"]

WEIGHTS = "model.safetensors"
CONFIG = "model.json"


def save_model(directory: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Writes the weights and their config into a directory (a draft: the caller makes it atomic)."""
    write_json(directory / CONFIG, to_dict(config))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_tensors(tensors, directory / WEIGHTS)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file and waits until it is on the disk.

    Raises:
        OSError: with its number, also where safetensors hides it: a full disk is told from a broken file.
    """
    try:
        safetensors.torch.save_file(dict(tensors), path, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), str(error), str(path)) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())


def load_config(directory: Path) -> ModelConfig:
    """Returns the config of the model in a directory."""
    try:
        table = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{directory} holds no model: {CONFIG} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptArtifact(f"{directory / CONFIG} is damaged: {error}") from None
    return from_dict(ModelConfig, table)


def load_model(
    directory: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Model:
    """Returns the model in a directory, ready to answer; its weights are memory-mapped until they are converted.

    Raises:
        InputError: the directory holds no model.
        CorruptArtifact: the weights are truncated, or do not fit the config.
    """
    config = load_config(directory)
    with torch.device("meta"):
        model = make_model(config)
    tensors = read_tensors(directory / WEIGHTS)
    tensors = {name: tensor.to(device=device, dtype=dtype) for name, tensor in tensors.items()}
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CorruptArtifact(
            f"{directory / WEIGHTS} does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}"
        ) from None
    model.reset_buffers(device)
    return model.eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise CorruptArtifact(
            f"{path} is not a whole safetensors file: {error}", "copy or export it again"
        ) from None
