"""Checkpoints to resume from: everything that decides the next step, in safetensors and JSON, whole or absent.

A checkpoint is a directory `step-00001200` that is written under another name and then renamed; its JSON holds the
hash of its tensors. What was being written when the process died has no such name and is swept away.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from gristmill.artifact import disk_errors, hash_file, write_json
from gristmill.model.checkpoint import write_tensors

__all__ = ["newest_checkpoint", "read_checkpoint", "write_checkpoint"]

KEPT = 2


def write_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """Writes a checkpoint; the one before it is kept until the next, older ones are removed."""
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    with disk_errors(target):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        file = temporary / "state.safetensors"
        write_tensors({n: t.contiguous().cpu() for n, t in tensors.items()}, file)
        write_json(temporary / "state.json", {**facts, "step": step, "sha256": hash_file(file)})
        if target.exists():
            shutil.rmtree(target)  # the same step again, after a resume
        temporary.rename(target)
    for old in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[Path]]:
    """Returns the newest whole checkpoint, and those newer ones that turned out damaged."""
    for temporary in folder.glob(".*.tmp"):
        shutil.rmtree(temporary, ignore_errors=True)
    damaged: list[Path] = []
    for path in reversed(_checkpoints(folder)):
        try:
            facts = json.loads((path / "state.json").read_text())
            if hash_file(path / "state.safetensors") == facts["sha256"]:
                return path, damaged
        except (OSError, ValueError, KeyError):
            pass
        damaged.append(path)
    return None, damaged


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the facts of a checkpoint that `newest_checkpoint` found whole."""
    facts: dict[str, Any] = json.loads((path / "state.json").read_text())
    return safetensors.torch.load_file(path / "state.safetensors"), facts


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
