"""One question, several answers: the same text, the same budget, other settings; as often as there are seeds.

A comparison is a recipe with a table `[compare]` that names candidates, each a few settings that differ:

    [compare.candidates]
    causal = { pretrain.objective = "causal" }
    masked = { pretrain.objective = "masked" }

What does not differ is done once: corpus, tokenizer, shards. Each candidate is trained with each seed, in processes
of their own, as many at a time as there are cores or GPUs, and measured in the same ways. What is finished stays: the
same command after a crash does only what is missing.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from gristmill import pipeline
from gristmill.artifact import Artifact, exclusive, hash_file, open_artifact, write_json
from gristmill.compare.cells import Cell, held_out_texts, run_cells
from gristmill.compare.collect import summarise, write_comparison
from gristmill.compare.equal import fit_parameters, with_equal_budgets, with_equal_parameters
from gristmill.compare.equal import flops_per_token as _flops_per_token
from gristmill.compare.settings import Comparison, check_lengths, digest, named, open_comparison
from gristmill.config import to_dict
from gristmill.model.config import resolve
from gristmill.pipeline import Listener, Recipe
from gristmill.train.hardware import describe_machine, has_bfloat16_units
from gristmill.train.settings import memory_of
from gristmill.train.trainer import pick_device

__all__ = [
    "Comparison",
    "compare",
    "fit_parameters",
    "held_out_texts",
    "open_comparison",
    "shared_stages",
    "summarise",
]

PROCESS_BYTES = 700_000_000
"""What a process takes before it holds a model."""


def compare(
    table: Mapping[str, Any], directory: Path, listener: Listener, *, jobs: int | None = None
) -> Artifact:
    """Trains and measures every candidate with every seed and returns the comparison.

    Args:
        table: the recipe's tables, `[compare]` among them.
        directory: where everything lies; what is there and still right is not done again.
        listener: told of stages and finished cells.
        jobs: processes at a time; by default one for each GPU, or for each core as far as there is memory.

    Raises:
        InputError: something does not fit; found before work starts, or, where that takes a tokenizer, before training.
        RunError: cells failed; the others are finished and stay.
    """
    base, comparison, recipes = open_comparison(table)
    for name, recipe in recipes.items():
        with named(name):
            pipeline.check_recipe(recipe, directory)
    with exclusive(directory):
        made: dict[Path, Artifact] = {}
        shared: dict[str, dict[str, Artifact]] = {}
        for name in dict.fromkeys([comparison.first, *recipes]):
            given, first = None, recipes[comparison.first]
            if comparison.one_tokenizer:
                recipes[name] = dataclasses.replace(recipes[name], tokenizer=first.tokenizer)
                if recipes[name].corpus != first.corpus:
                    given = shared[comparison.first]["tokenizer"]
            shared[name] = shared_stages(recipes[name], directory, made, listener, given)
        sizes = {name: stages["shards"].manifest.metrics["vocab_size"] for name, stages in shared.items()}
        recipes = with_equal_parameters(recipes, comparison, sizes)
        check_lengths(recipes, comparison, shared)
        flops = {name: _flops_per_token(recipe, shared[name]) for name, recipe in recipes.items()}
        recipes = with_equal_budgets(recipes, comparison, flops)
        recipes = _with_one_precision(recipes, directory, listener)
        jobs = jobs or _places(recipes, sizes)
        content = _content(comparison)
        cells = [
            Cell(
                name=name, seed=base.seed + i, recipe=recipe, directory=directory, comparison=comparison,
                shards=shared[name]["shards"].path, tokenizer=shared[name]["tokenizer"].path,
                corpus=shared[name]["corpus"].path, content=content, jobs=jobs, threads=max(1, _cores() // jobs),
                flops_per_token=flops[name],
            )
            for i in range(comparison.seeds)
            for name, recipe in recipes.items()
        ]  # fmt: skip
        gpus: list[str] = []
        if _gpus(recipes.values()):
            gpus = _gpu_names(os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count())
        run_cells(cells, jobs, gpus, listener)
        return write_comparison(base.name, comparison, cells, directory)


# --- what is done or decided once for all ---------------------------------------------------------------------------


def shared_stages(
    recipe: Recipe,
    directory: Path,
    made: dict[Path, Artifact],
    listener: Listener,
    tokenizer: Artifact | None = None,
) -> dict[str, Artifact]:
    """Corpus, tokenizer and shards of a candidate, in a directory that equal settings share.

    `made` is what the candidates before this one had made; what is among it is not looked at, nor told of, again.
    `tokenizer` is the one to take, where it is not trained on the candidate's own text.
    """
    kind = resolve(recipe.model, vocab_size=4096, row_tokens=recipe.pretrain.row_tokens).kind
    settings = {"corpus": to_dict(recipe.corpus), "tokenizer": to_dict(recipe.tokenizer), "seed": recipe.seed}
    if recipe.corpus.held_out is not None:  # where that lies does not matter
        reference = open_artifact(Path(recipe.corpus.held_out), "corpus", verify=False)
        settings["corpus"]["held_out"] = reference.manifest.content_hash
    if tokenizer is not None:
        settings["tokenizer"] = tokenizer.manifest.content_hash
    home = directory / "shared" / digest(settings)
    stages: dict[str, Artifact] = {}
    for name in ("corpus", "tokenizer", "shards"):
        # an encoder's documents begin and end with other tokens
        path = home / (
            f"shards-{'encoder' if kind == 'encoder' else 'decoder'}" if name == "shards" else name
        )
        if name == "tokenizer" and tokenizer is not None:
            stages[name] = tokenizer
            continue
        if path not in made:
            before = (path / "manifest.json").is_file()
            listener.stage(name, path)
            made[path] = pipeline.run_stage(name, recipe, path, stages, listener)
            listener.done(name, made[path], again=not before)
        stages[name] = made[path]
    return stages


def _content(comparison: Comparison) -> dict[str, Any]:
    """Hashes of the files that models are measured with: a changed file is another measurement, a moved one is not."""

    def folder(path: Path) -> str:
        files = sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")])
        return digest({file.name: hash_file(file) for file in files})

    task = comparison.probe
    return {
        "pairs": {Path(path).name: folder(Path(path)) for path in comparison.pairs},
        "probe": None if task is None else [hash_file(Path(task.train)), hash_file(Path(task.test))],
    }


def _with_one_precision(
    recipes: Mapping[str, Recipe], directory: Path, listener: Listener
) -> dict[str, Recipe]:
    """Decides "auto" once for all: each run would time it anew, beside others, and seeds could get different ones.

    What was decided is written down, so that the same command does not decide otherwise.
    """
    path = directory / "precision.json"
    decided: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    result = {}
    for name, recipe in recipes.items():
        settings = recipe.pretrain
        if settings.precision == "auto":
            device = pick_device(settings.device)
            if device.type not in decided:
                decided[device.type] = "bfloat16" if has_bfloat16_units(device) else "float32"
                listener.say(f"precision on {device.type}: {decided[device.type]}, for all")
            settings = dataclasses.replace(settings, precision=decided[device.type])  # type: ignore[arg-type]
        result[name] = dataclasses.replace(recipe, pretrain=settings)
    if decided:
        write_json(path, decided)
    return result


def _places(recipes: Mapping[str, Recipe], sizes: Mapping[str, int]) -> int:
    """How many runs fit beside each other: one for each GPU, or for each core as far as there is memory."""
    if _gpus(recipes.values()):
        return torch.cuda.device_count()
    memory, most = describe_machine()["memory_bytes"], 0
    for name, recipe in recipes.items():
        config = pipeline.config_of(recipe.model, recipe.pretrain, sizes[name])
        most = max(most, memory_of(recipe.pretrain, config) + PROCESS_BYTES)
    return _cores() if memory is None else max(1, min(_cores(), int(0.9 * memory // most)))


def _gpus(recipes: Iterable[Recipe]) -> bool:
    """Whether all of them are trained on a GPU."""
    return all(pick_device(recipe.pretrain.device).type == "cuda" for recipe in recipes)


def _gpu_names(inherited: str | None, count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES has to be for each of the GPUs that this process sees: numbers are those of its own."""
    names = [name.strip() for name in (inherited or "").split(",") if name.strip()]
    return names[:count] if names else [str(i) for i in range(count)]


def _cores() -> int:
    return int(describe_machine()["cores"] or 1)
