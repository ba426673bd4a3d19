"""One question, several answers: the same text, the same budget, other settings; as often as there are seeds.

A comparison is a recipe with a table `[compare]` that names candidates, each a few settings that differ:

    [compare.candidates]
    causal = { pretrain.objective = "causal" }
    masked = { pretrain.objective = "masked" }

What does not differ is done once: corpus, tokenizer, shards. Each candidate is trained with each seed, in processes
of their own, as many at a time as there are cores or GPUs, and measured in the same ways. What is finished stays: the
same command after a crash does only what is missing.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

import torch
from annotated_types import Gt
from torch import Tensor

from gristmill import pipeline
from gristmill.artifact import (
    Artifact,
    artifact_key,
    draft,
    exclusive,
    find,
    hash_file,
    open_artifact,
    write_json,
    write_text,
)
from gristmill.config import from_dict, to_dict
from gristmill.corpus import Corpus
from gristmill.corpus.shards import Shards
from gristmill.errors import GristmillError, InputError, RunError, did_you_mean
from gristmill.evaluate.comparing import figures_of
from gristmill.evaluate.minimal_pairs import measure_pairs, read_pairs
from gristmill.evaluate.probe import ProbeSettings, probe, read_examples
from gristmill.evaluate.scoring import Scoring, scorings_for, sentence_scores
from gristmill.generate import Loaded, load_run
from gristmill.model import ops
from gristmill.model.build import make_model
from gristmill.model.config import ModelConfig, ModelSettings, resolve
from gristmill.model.count import parameter_counts, training_bytes, training_flops_per_token
from gristmill.objectives.base import Objective
from gristmill.pipeline import Listener, Quiet, Recipe
from gristmill.report.comparison import render_comparison
from gristmill.tokenizer import Tokenizer
from gristmill.train.hardware import describe_machine, matmul_peak
from gristmill.train.loader import Cursor, Loader
from gristmill.train.schedule import Budget, parse_budget
from gristmill.train.settings import resolve_batch
from gristmill.train.trainer import pick_device

__all__ = ["Comparison", "compare", "fit_parameters", "held_out_texts", "open_comparison", "summarise"]

MEASUREMENT_FORMAT = 1
COMPARISON_FORMAT = 1
STEP = 8
"""Sizes of feed-forward layers that are fitted to a number of parameters are multiples of this."""
ROUNDING = 0.02
"""What differs by no more than this share is equal: steps and layers can not be divided."""
PIECE_BYTES = 256
"""Of a piece of validation text whose likelihood is measured: some sixty tokens of English."""
PROCESS_BYTES = 700_000_000
"""What a process takes before it holds a model."""
USELESS = ("name", "seed", "samples")
"""Keys of a recipe that a candidate can't change: nothing that is compared would."""
WAYS = {
    "left_to_right": "left to right",
    "discriminated": "told from replaced",
    "pseudo_within_words": "filling in",
    "pseudo": "filling in",
}
"""How a sentence is scored, in the words of a column; of two ways with the same words a model's first one counts."""

Positive = Annotated[int, Gt(0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The `[compare]` table: what is compared, how often, and by what."""

    candidates: dict[str, Any]
    """Name -> the tables of the recipe that it changes."""
    seeds: Positive = 3
    """How many times each is trained; the recipe's seed is the first."""
    equal: Literal["tokens", "flops"] = "tokens"
    """What all candidates get equally much of: tokens of text, or operations of matrix products."""
    parameters: Positive | None = None
    """Parameters that every candidate has, as nearly as feed-forward layers can be fitted; by default as they come."""
    reference: str | None = None
    """The candidate that the others are compared with, and whose operations set an equal budget of FLOPs; by default
    the first. In a column that it has no figure in, it is the first that has one."""
    pairs: tuple[str, ...] = ()
    """Folders of linguistic minimal pairs, BLiMP for instance."""
    pairs_per_paradigm: Positive | None = None
    """At most so many pairs of each paradigm; by default all."""
    held_out_pieces: Positive = 200
    """So many pieces of validation text, two or three sentences each, are scored in every way that a model can be."""
    probe: ProbeSettings | None = None
    """A labelled task that each model is fine-tuned on."""

    def __post_init__(self) -> None:
        if len(self.candidates) < 1:
            raise InputError("there is nothing to compare", "write compare.candidates.causal = { … }")
        for name in self.candidates:
            if not name or any(c in name for c in '/\\:*?"<>|') or name.startswith("."):
                raise InputError(
                    f'the candidate "{name}" does not name a directory', "use letters and digits"
                )
        if self.reference is not None and self.reference not in self.candidates:
            raise InputError(
                f'there is no candidate "{self.reference}"',
                did_you_mean(self.reference, list(self.candidates)),
            )
        for folder in self.pairs:
            if not Path(folder).is_dir():
                raise InputError(f"there is no folder of minimal pairs {folder}", "name one, or leave it out")
        names = [Path(folder).name for folder in self.pairs]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise InputError(
                f'two folders of minimal pairs are called "{doubled[0]}", and a column is called as its folder is',
                "rename one",
            )

    @property
    def first(self) -> str:
        """The candidate that the others are compared with."""
        return self.reference or next(iter(self.candidates))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One candidate with one seed, and all that its process needs."""

    name: str
    seed: int
    recipe: Recipe
    directory: Path
    shards: Path
    tokenizer: Path
    corpus: Path
    comparison: Comparison
    content: Mapping[str, Any]
    """Hashes of the files that it is measured with."""
    jobs: int
    """How many run at a time, at most."""
    threads: int
    flops_per_token: float

    @property
    def path(self) -> Path:
        """Where its model and its measurements are."""
        return self.directory / "cells" / self.name / f"seed-{self.seed}"


def open_comparison(table: Mapping[str, Any]) -> tuple[Recipe, Comparison, dict[str, Recipe]]:
    """Returns the recipe, what it compares, and each candidate's own recipe, everything checked.

    Raises:
        InputError: there is no `[compare]` table, a candidate's settings do not fit (it is named), budgets are not
            equal, or a file of minimal pairs or labelled texts is not what it should be.
    """
    if "compare" not in table:
        raise InputError("the recipe has no [compare] table", "`gristmill run` is for recipes of one model")
    base = {key: value for key, value in table.items() if key != "compare"}
    comparison = from_dict(Comparison, table["compare"], "compare")
    recipes, amounts = {}, {}
    for name, changes in comparison.candidates.items():
        if not isinstance(changes, Mapping):
            raise InputError(f"compare.candidates.{name} is no table", '{ pretrain.objective = "causal" }')
        with _named(name):
            if useless := [key for key in USELESS if key in changes]:
                raise InputError(
                    f'"{useless[0]}" is no setting of a candidate',
                    "compare.seeds says how often each is trained, with the same seeds"
                    if useless[0] == "seed"
                    else "leave it out",
                )
            recipes[name] = pipeline.settle(from_dict(Recipe, _merged(base, changes)))
            amounts[name] = _amount(recipes[name])
    _check_amounts(comparison, amounts)
    _check_files(comparison)
    # one tokenizer for all: with as many sentinels as the most demanding of them needs
    most = max(recipe.tokenizer.sentinels for recipe in recipes.values())
    recipes = {
        name: dataclasses.replace(r, tokenizer=dataclasses.replace(r.tokenizer, sentinels=most))
        for name, r in recipes.items()
    }
    return from_dict(Recipe, base), comparison, recipes


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
        with _named(name):
            pipeline.check_recipe(recipe, directory)
    with exclusive(directory):
        shared = {name: _shared_stages(recipe, directory, listener) for name, recipe in recipes.items()}
        sizes = {name: stages["shards"].manifest.metrics["vocab_size"] for name, stages in shared.items()}
        recipes = _with_equal_parameters(recipes, comparison, sizes)
        _check_lengths(recipes, comparison, shared)
        flops = {name: _flops_per_token(recipe, shared[name]) for name, recipe in recipes.items()}
        recipes = _with_equal_budgets(recipes, comparison, flops)
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
        _run_cells(cells, jobs, listener)
        return _collect(base.name, comparison, cells, directory)


# --- what is checked ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Says of what is wrong inside which candidate it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"candidate {name}: {error.message}", error.hint) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Amount:
    """How much a candidate's own recipe trains it."""

    budget: Budget
    tokens: int | None
    """In whole steps; None where that can't be known before the text is read, or ever."""
    text: str
    """Epochs of which text, in which tokens."""

    def __str__(self) -> str:
        if self.tokens is None:
            return f"{self.budget.amount:g} {self.budget.unit} of its own text"
        return f"{self.tokens:,} tokens"


def _amount(recipe: Recipe) -> _Amount:
    budget, tokens = parse_budget(recipe.pretrain.budget), None
    if budget.unit in ("steps", "tokens"):
        row_tokens = recipe.pretrain.row_tokens
        rows, _ = resolve_batch(
            recipe.pretrain, resolve(recipe.model, vocab_size=4096, row_tokens=row_tokens)
        )
        steps = budget.amount / (1 if budget.unit == "steps" else rows * row_tokens)
        tokens = max(2, math.ceil(steps)) * rows * row_tokens
    text = _digest({"corpus": to_dict(recipe.corpus), "tokenizer": to_dict(recipe.tokenizer)})
    return _Amount(budget=budget, tokens=tokens, text=text)


def _check_amounts(comparison: Comparison, amounts: Mapping[str, _Amount]) -> None:
    """Refuses budgets with which candidates would not get equally much."""
    reference = amounts[comparison.first]
    for name, amount in amounts.items():
        if amount.budget.unit == "seconds":
            raise InputError(
                f"candidate {name}: a budget of wall time gives each candidate what it has time for, not equally much",
                'write pretrain.budget = "5M tokens"',
            )
        if comparison.equal == "flops":
            if reference.tokens is None:
                raise InputError(
                    'compare.equal = "flops" needs a budget in tokens, but that of '
                    f"{comparison.first} is in {reference.budget.unit}",
                    'write pretrain.budget = "5M tokens": the reference gets them, the others what costs as much',
                )
            if amount.budget != reference.budget:
                raise InputError(
                    f'candidate {name}: with compare.equal = "flops" its budget follows from that of {comparison.first}',
                    "leave its pretrain.budget out",
                )
        elif not _equal(amount, reference):
            raise InputError(
                f'compare.equal = "tokens", but {comparison.first} gets {reference}, and {name} {amount}',
                'give all the same pretrain.budget, such as "5M tokens", of many steps; or set compare.equal = "flops"',
            )


def _equal(a: _Amount, b: _Amount) -> bool:
    if a.tokens is None or b.tokens is None:
        return (a.budget, a.text) == (b.budget, b.text)
    return abs(a.tokens - b.tokens) <= ROUNDING * max(a.tokens, b.tokens)


def _check_files(comparison: Comparison) -> None:
    """Reads what is measured with, so that a line that is wrong does not come to light after hours of training."""
    for folder in comparison.pairs:
        read_pairs(Path(folder), limit=comparison.pairs_per_paradigm)
    if comparison.probe is not None:
        classes = {example.label for example in read_examples(Path(comparison.probe.train))}
        if len(classes) < 2:
            raise InputError(
                f"all texts of {comparison.probe.train} have the label {classes.pop()}, so there is nothing to tell apart",
                "a probe needs examples of two classes at least",
            )
        read_examples(Path(comparison.probe.test))


def _check_lengths(
    recipes: Mapping[str, Recipe], comparison: Comparison, shared: Mapping[str, Mapping[str, Artifact]]
) -> None:
    """Refuses minimal pairs that a model can't read whole."""
    longest: dict[tuple[Path, str], tuple[int, str]] = {}
    for name, recipe in recipes.items():
        config = _config(recipe, shared[name])
        if config.core != "transformer":
            continue
        path = shared[name]["tokenizer"].path
        for folder in comparison.pairs:
            if (path, folder) not in longest:
                longest[path, folder] = _longest(path, folder, comparison.pairs_per_paradigm)
            tokens, sentence = longest[path, folder]
            if tokens + 2 > config.maximum_positions:
                raise InputError(
                    f'candidate {name}: "{sentence[:60]}" of {folder} has {tokens:,} tokens, and the model handles '
                    f"{config.maximum_positions:,} positions, two special ones among them",
                    f"set model.maximum_positions = {tokens + 2}, or leave the folder out",
                )


def _longest(tokenizer: Path, folder: str, limit: int | None) -> tuple[int, str]:
    pairs = read_pairs(Path(folder), limit=limit)
    sentences = list(dict.fromkeys(sentence for pair in pairs for sentence in (pair.good, pair.bad)))
    encoded = Tokenizer.from_directory(tokenizer).encode_batch(sentences)
    return max(zip(map(len, encoded), sentences, strict=True))


def _content(comparison: Comparison) -> dict[str, Any]:
    """Hashes of the files that models are measured with: a changed file is another measurement, a moved one is not."""

    def folder(path: Path) -> str:
        files = sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")])
        return _digest({file.name: hash_file(file) for file in files})

    task = comparison.probe
    return {
        "pairs": {Path(path).name: folder(Path(path)) for path in comparison.pairs},
        "probe": None if task is None else [hash_file(Path(task.train)), hash_file(Path(task.test))],
    }


# --- what is shared -------------------------------------------------------------------------------------------------


def _shared_stages(recipe: Recipe, directory: Path, listener: Listener) -> dict[str, Artifact]:
    """Corpus, tokenizer and shards of a candidate, in a directory that equal settings share."""
    kind = resolve(recipe.model, vocab_size=4096, row_tokens=recipe.pretrain.row_tokens).kind
    settings = {"corpus": to_dict(recipe.corpus), "tokenizer": to_dict(recipe.tokenizer), "seed": recipe.seed}
    home = directory / "shared" / _digest(settings)
    stages: dict[str, Artifact] = {}
    for name in ("corpus", "tokenizer", "shards"):
        # an encoder's documents begin and end with other tokens
        path = home / (
            f"shards-{'encoder' if kind == 'encoder' else 'decoder'}" if name == "shards" else name
        )
        before = (path / "manifest.json").is_file()
        listener.stage(name, path)
        stages[name] = pipeline.run_stage(name, recipe, path, stages, listener)
        listener.done(name, stages[name], again=not before)
    return stages


def _config(recipe: Recipe, stages: Mapping[str, Artifact]) -> ModelConfig:
    return pipeline.config_of(recipe.model, recipe.pretrain, stages["shards"].manifest.metrics["vocab_size"])


def _with_equal_parameters(
    recipes: Mapping[str, Recipe], comparison: Comparison, sizes: Mapping[str, int]
) -> dict[str, Recipe]:
    if comparison.parameters is None:
        return dict(recipes)
    return {
        name: dataclasses.replace(
            recipe, model=fit_parameters(recipe, comparison.parameters, sizes[name], name)
        )
        for name, recipe in recipes.items()
    }


def fit_parameters(recipe: Recipe, wanted: int, vocab_size: int, name: str) -> ModelSettings:
    """Returns the model's settings with the inner size that brings its parameters nearest to a number.

    Raises:
        InputError: no size comes within 2 %.
    """

    def sized(steps: int) -> ModelSettings:
        return dataclasses.replace(recipe.model, feed_forward=STEP * steps)

    def count(steps: int) -> int:
        return parameter_counts(pipeline.config_of(sized(steps), recipe.pretrain, vocab_size))["total"]

    low, high = 1, 2
    while count(high) < wanted and high < 1 << 16:
        high *= 2
    while low < high:  # the smallest size with at least so many parameters
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= wanted else (middle + 1, high)
    best = min((max(low - 1, 1), low), key=lambda steps: abs(count(steps) - wanted))
    if abs(count(best) - wanted) > 0.02 * wanted:
        raise InputError(
            f"candidate {name}: the nearest to compare.parameters = {wanted:,} is {count(best):,}",
            "set its model.depth or model.width so that layers take about what is left",
        )
    return sized(best)


def _objective(recipe: Recipe) -> Objective:
    assert recipe.pretrain.objective is not None  # settled
    return recipe.pretrain.objective


def _with_equal_budgets(
    recipes: Mapping[str, Recipe], comparison: Comparison, flops: Mapping[str, float]
) -> dict[str, Recipe]:
    if comparison.equal == "tokens":
        return dict(recipes)
    tokens = _amount(recipes[comparison.first]).tokens
    assert tokens is not None  # checked when the recipe was read
    work = tokens * flops[comparison.first]
    return {
        name: dataclasses.replace(
            recipe,
            pretrain=dataclasses.replace(recipe.pretrain, budget=f"{round(work / flops[name])} tokens"),
        )
        for name, recipe in recipes.items()
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
                decided[device.type] = _precision(device)
                listener.say(f"precision on {device.type}: {decided[device.type]}, for all")
            settings = dataclasses.replace(settings, precision=decided[device.type])  # type: ignore[arg-type]
        result[name] = dataclasses.replace(recipe, pretrain=settings)
    if decided:
        write_json(path, decided)
    return result


def _precision(device: torch.device) -> str:
    """Returns bfloat16 where the processor has units for it, and products in it are not emulated."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    peak = matmul_peak(device, 0.15)
    return "bfloat16" if peak.bfloat16 > 1.2 * peak.float32 else "float32"


def _places(recipes: Mapping[str, Recipe], sizes: Mapping[str, int]) -> int:
    """How many runs fit beside each other: one for each GPU, or for each core as far as there is memory."""
    if _gpus(recipes.values()):
        return torch.cuda.device_count()
    memory, most = describe_machine()["memory_bytes"], 0
    for name, recipe in recipes.items():
        settings = recipe.pretrain
        config = pipeline.config_of(recipe.model, settings, sizes[name])
        _, micro = resolve_batch(settings, config)
        needed = training_bytes(
            config, micro_tokens=micro * settings.row_tokens, bfloat16=settings.precision != "float32"
        )
        most = max(most, needed + PROCESS_BYTES)
    return _cores() if memory is None else max(1, min(_cores(), int(0.9 * memory // most)))


def _gpus(recipes: Iterable[Recipe]) -> bool:
    """Whether all of them are trained on a GPU."""
    return all(pick_device(recipe.pretrain.device).type == "cuda" for recipe in recipes)


# --- operations -----------------------------------------------------------------------------------------------------


def _flops_per_token(recipe: Recipe, stages: Mapping[str, Artifact]) -> float:
    """The operations of matrix products for each token of text, forward and backward, counted on one step.

    Of attention they are those of what positions see, whichever kernel computes it. A rate that follows a schedule is
    taken halfway.
    """
    from torch.utils.flop_counter import FlopCounterMode

    config = _config(recipe, stages)
    if config.core != "transformer":  # its recurrence is no product that the counter knows
        return float(training_flops_per_token(config, recipe.pretrain.row_tokens))
    objective = _objective(recipe)
    rows, micro = resolve_batch(recipe.pretrain, config)
    model = make_model(config).train()
    model.initialise(torch.Generator().manual_seed(0))
    with Loader(
        Shards(stages["shards"]).split("train"), objective, row_tokens=recipe.pretrain.row_tokens, rows=rows,
        micro_rows=micro, seed=recipe.seed,
        vocabulary=Tokenizer.from_directory(stages["tokenizer"].path).vocabulary(),
    ) as loader:  # fmt: skip
        step = loader.step(Cursor(0, 0), 1, 2)
    with FlopCounterMode(display=False) as counter, _attention_counted() as attention:
        for batch in step.batches:
            objective.loss(model, batch, 0).total_nats.backward()
    return float((counter.get_total_flops() + sum(attention)) / step.tokens)


@contextlib.contextmanager
def _attention_counted() -> Iterator[list[float]]:
    """While entered, the operations of attention are counted instead of done: the list gets those of each call.

    A counter of what is done would miss fused kernels and count what a slower one does in vain, so that the same model
    would cost more on one machine than on another. Each of H heads multiplies 2 K numbers for a score and as many for
    its value, and twice both backward.
    """
    found: list[float] = []

    def counted(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        spans: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        scale: float | int | None = None,
        shared: object = None,
    ) -> Tensor:
        B, H, T, K = q.shape
        factor = 12 if torch.is_grad_enabled() else 4
        found.append(float(factor * H * K * _pairs_seen(B, T, k.shape[2], mask, spans)))
        # no values that mean anything, but gradients that flow to all three
        return q.transpose(1, 2).reshape(B, T, H * K) + k.mean() + v.mean()

    with mock.patch.object(ops, "attend", counted):
        yield found


def _pairs_seen(B: int, T: int, S: int, mask: Tensor | None, spans: tuple[Tensor, Tensor] | None) -> int:
    """How many (query, key) pairs there are in all rows where the query sees the key (see `ops.attend`)."""
    if mask is None and spans is None:
        return B * sum(range(S - T + 1, S + 1))
    if mask is None:
        assert spans is not None
        return int((spans[1] - spans[0]).clamp(min=0).sum())
    visible = mask.expand(B, 1, T, S)[:, 0]
    if spans is not None:
        index = torch.arange(S, device=mask.device)
        visible = visible & (index >= spans[0][..., None]) & (index < spans[1][..., None])
    return int(visible.sum())


# --- the cells ------------------------------------------------------------------------------------------------------


def _run_cells(cells: list[Cell], jobs: int, listener: Listener) -> None:
    """Runs what is not finished, `jobs` processes at a time; one that fails does not stop the others."""
    waiting = [cell for cell in cells if not _is_done(cell)]
    total, done = len(cells), len(cells) - len(waiting)
    if done:
        listener.say(f"{done} of {total} are there already")
    context = multiprocessing.get_context("spawn")
    running: dict[int, tuple[Any, Cell, float]] = {}
    failed: list[Cell] = []
    gpus: list[str] = []
    if _gpus(cell.recipe for cell in cells):
        gpus = _gpu_names(os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count())
    try:
        while waiting or running:
            free = [slot for slot in range(jobs) if slot not in running]
            while waiting and free:
                cell, slot = waiting.pop(0), free.pop(0)
                gpu = gpus[slot % len(gpus)] if gpus else None
                process = context.Process(target=_cell_process, args=(cell, gpu), daemon=True)
                process.start()
                running[slot] = (process, cell, time.monotonic())
            time.sleep(0.2)
            for slot, (process, cell, began) in list(running.items()):
                if process.is_alive():
                    continue
                process.join()
                del running[slot]
                done += 1
                spent = time.monotonic() - began
                if process.exitcode == 0 and _is_done(cell):
                    listener.say(f"{done}/{total}  {cell.name}, seed {cell.seed}: {spent:.0f} s")
                else:
                    failed.append(cell)
                    listener.say(f"{done}/{total}  {cell.name}, seed {cell.seed}: failed")
                listener.progress("cells", done, total)
    finally:
        for process, _, _ in running.values():
            process.terminate()
    if failed:
        reasons = [f"{c.name}, seed {c.seed}: {_error(c)}" for c in failed]
        raise RunError(
            f"{len(failed)} of {total} failed. {reasons[0]}",
            "the others are finished; the same command does what is missing (error.txt in the cell's folder has more)",
        )


def _gpu_names(inherited: str | None, count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES has to be for each of the GPUs that this process sees: numbers are those of its own."""
    names = [name.strip() for name in (inherited or "").split(",") if name.strip()]
    return names[:count] if names else [str(i) for i in range(count)]


def _cell_process(cell: Cell, gpu: str | None) -> None:
    _end_with_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(cell.threads)
    cell.path.mkdir(parents=True, exist_ok=True)
    (cell.path / "error.txt").unlink(missing_ok=True)
    try:
        with exclusive(cell.path):
            run_cell(cell)
    except Exception as error:
        message = error.message if isinstance(error, GristmillError) else f"{type(error).__name__}: {error}"
        write_text(cell.path / "error.txt", f"{message}\n\n{traceback.format_exc()}")
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone: killed, it can't tell its children to stop."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_cell(cell: Cell) -> Artifact:
    """Trains one candidate with one seed and measures it."""
    settings = dataclasses.replace(cell.recipe.pretrain, threads=cell.recipe.pretrain.threads or cell.threads)
    shards, tokenizer = (open_artifact(path, verify=False) for path in (cell.shards, cell.tokenizer))
    model = pipeline.pretrain(
        cell.recipe.model, settings, shards=shards, tokenizer=tokenizer, out=cell.path / "model", seed=cell.seed,
        listener=Quiet(),
    )  # fmt: skip
    parts = _measurement_parts(cell, model)
    existing = find(cell.path / "measurement", artifact_key(**parts))
    if existing is not None:
        return existing
    with draft(cell.path / "measurement", **parts) as work:
        write_json(work.path / MEASUREMENT, _measure(cell, model))
    return open_artifact(cell.path / "measurement", verify=False)


MEASUREMENT = "measurement.json"


def _measurement_parts(cell: Cell, model: Artifact) -> dict[str, Any]:
    comparison = cell.comparison
    task = None if comparison.probe is None else to_dict(comparison.probe)
    return {
        "kind": "measurement",
        "format_version": MEASUREMENT_FORMAT,
        "config": {
            "files": dict(cell.content),
            "pairs_per_paradigm": comparison.pairs_per_paradigm,
            "held_out_pieces": comparison.held_out_pieces,
            "probe": task and {name: value for name, value in task.items() if name not in ("train", "test")},
        },
        "parents": {"model": model},
        "seed": cell.seed,
    }


def _is_done(cell: Cell) -> bool:
    try:
        model = open_artifact(cell.path / "model", "checkpoint", verify=False)
    except InputError:
        return False
    config = pipeline.checkpoint_parts(
        cell.recipe.model,
        dataclasses.replace(cell.recipe.pretrain, threads=cell.recipe.pretrain.threads or cell.threads),
        shards=open_artifact(cell.shards, verify=False),
        tokenizer=open_artifact(cell.tokenizer, verify=False),
        seed=cell.seed,
    )
    if find(cell.path / "model", artifact_key(**config)) is None:
        return False
    return find(cell.path / "measurement", artifact_key(**_measurement_parts(cell, model))) is not None


def _error(cell: Cell) -> str:
    path = cell.path / "error.txt"
    return path.read_text(encoding="utf-8").splitlines()[0] if path.is_file() else "its process was killed"


def _measure(cell: Cell, model: Artifact) -> dict[str, Any]:
    metrics = model.manifest.metrics
    loaded = load_run(model.path, device=pick_device(cell.recipe.pretrain.device))
    objective = _objective(cell.recipe)
    ways = _ways(objective, loaded)
    result: dict[str, Any] = {
        "parameters": metrics["parameters"]["total"],
        "tokens": metrics["tokens"],
        "flops": metrics["tokens"] * cell.flops_per_token,
        "training_seconds": metrics["elapsed_seconds"],
        "memory_peak_bytes": metrics["memory_peak_bytes"],
        "tokens_per_second": metrics["tokens_per_second"],
        "conditions": {
            "precision": metrics["precision"]["compute"],
            "threads": metrics["threads"],
            "jobs": cell.jobs,
        },
        "validation": metrics["validation"],
        "is_loss_comparable": objective.comparable_over_time,
        "held_out": _held_out(cell, loaded, ways),
        "pairs": {},
        "curve": _curve(model.path / "curve.jsonl"),
    }
    for folder in cell.comparison.pairs:
        for name, how in ways.items():
            result["pairs"][f"{Path(folder).name}, {name}"] = measure_pairs(
                loaded.model, loaded.tokenizer, Path(folder), objective=objective, how=how,
                limit=cell.comparison.pairs_per_paradigm,
            )  # fmt: skip
    if cell.comparison.probe is not None:
        result["probe"] = probe(
            loaded.model, loaded.tokenizer, cell.comparison.probe, objective=objective, seed=cell.seed
        )
    return result


def _ways(objective: Objective, loaded: Loaded) -> dict[str, Scoring]:
    """Every way to score a sentence with a model, by the words of its column."""
    ways: dict[str, Scoring] = {}
    for name, how in scorings_for(objective, loaded.config, loaded.tokenizer.vocabulary()).items():
        ways.setdefault(WAYS[name], how)
    return ways


def _held_out(cell: Cell, loaded: Loaded, ways: Mapping[str, Scoring]) -> dict[str, float]:
    """Bits for each byte of pieces of validation text, by every way that gives a (pseudo-)likelihood."""
    documents = Corpus(open_artifact(cell.corpus, verify=False)).texts("valid")
    texts = held_out_texts(documents, cell.comparison.held_out_pieces)
    config, encoded = loaded.config, loaded.tokenizer.encode_batch(texts)
    most = config.maximum_positions - 2 if config.core == "transformer" else max(map(len, encoded))
    # what is too long is read in parts, so that the bytes are the same for every tokenizer and model
    parts = [ids[i : i + most] for ids in encoded for i in range(0, len(ids), most)]
    size = sum(len(text.encode()) for text in texts)
    result = {}
    for name, how in ways.items():
        if name == WAYS["discriminated"]:
            continue  # that a token was not replaced is no likelihood of the text
        nats = -sentence_scores(loaded.model, loaded.tokenizer.vocabulary(), parts, how=how).sum()
        result[name] = float(nats / math.log(2) / size)
    return result


def held_out_texts(documents: Iterable[str], count: int) -> list[str]:
    """Returns pieces of documents, the first of each, then the second of each, until there are so many.

    They are cut by bytes, so that they are the same whatever the tokenizer; a character at the cut is left out.
    """
    contents = [document.encode() for document in documents]
    pieces: list[str] = []
    first = 0
    while len(pieces) < count and any(len(content) > first for content in contents):
        cut = (content[first : first + PIECE_BYTES].decode("utf-8", "ignore").strip() for content in contents)
        pieces += [piece for piece in cut if piece]
        first += PIECE_BYTES
    return pieces[:count]


def _curve(path: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {name: line[name] for name in ("tokens", "elapsed_seconds", "validation_nats_per_token")}
        for line in lines
        if "validation_nats_per_token" in line
    ]


# --- the end --------------------------------------------------------------------------------------------------------


def _collect(name: str, comparison: Comparison, cells: list[Cell], directory: Path) -> Artifact:
    measured = {(c.name, c.seed): open_artifact(c.path / "measurement", verify=False) for c in cells}
    settings = {c.name: to_dict(c.recipe) for c in cells}
    out = directory / "comparison"
    parts: dict[str, Any] = {
        "kind": "comparison",
        "format_version": COMPARISON_FORMAT,
        "config": {"compare": to_dict(comparison), "candidates": settings},
        "parents": {f"{n}, seed {seed}": artifact for (n, seed), artifact in measured.items()},
    }
    existing = find(out, artifact_key(**parts))
    if existing is not None:
        return existing
    figures = {
        cell: json.loads((artifact.path / MEASUREMENT).read_text(encoding="utf-8"))
        for cell, artifact in measured.items()
    }
    facts = summarise(name, comparison, figures, settings)
    facts["machine"] = describe_machine(pick_device(cells[0].recipe.pretrain.device))
    with draft(out, **parts) as work:
        write_json(work.path / "comparison.json", facts)
        write_text(work.path / "comparison.html", render_comparison(facts))
        work.metrics.update({"candidates": len(facts["rows"]), "seeds": comparison.seeds})
    return open_artifact(out, "comparison", verify=False)


def summarise(
    name: str,
    comparison: Comparison,
    measured: Mapping[tuple[str, int], Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Returns every figure of every candidate as a mean over seeds with its interval, and what differs from what.

    Args:
        name: of the recipe.
        comparison: what is compared.
        measured: what `_measure` found, for each candidate and seed.
        settings: each candidate's recipe: own losses are compared where objective, text and tokenizer are the same.
    """
    names = list(dict.fromkeys(candidate for candidate, _ in measured))
    found = {column.name: column for metrics in measured.values() for column in _columns(metrics)}
    columns = sorted(found.values(), key=lambda column: KINDS.index(column.kind))
    rows: dict[str, dict[str, Any]] = {candidate: {} for candidate in names}
    for column in columns:
        values: dict[str, list[float]] = {}
        for (candidate, _), metrics in measured.items():
            if (value := _dig(metrics, column.path)) is not None:
                values.setdefault(candidate, []).append(float(value))
        groups = _groups(column, list(values), measured, settings)
        for candidate, figure in figures_of(values, groups, comparison.first).items():
            rows[candidate][column.name] = figure
    conditions: list[Mapping[str, Any]] = [metrics["conditions"] for metrics in measured.values()]
    budgets = {parse_budget(table["pretrain"]["budget"]).unit for table in settings.values()}
    return {
        "name": name,
        "reference": comparison.first,
        "equal": "epochs" if budgets == {"epochs"} else {"tokens": "tokens", "flops": "FLOPs"}[comparison.equal],
        "seeds": comparison.seeds,
        "conditions": {key: sorted({each[key] for each in conditions}) for key in conditions[0]},
        "columns": {column.name: {"kind": column.kind, "better": column.better} for column in columns},
        "rows": [{"name": candidate, "figures": figures} for candidate, figures in rows.items()],
        "curves": {f"{c}/{seed}": m["curve"] for (c, seed), m in measured.items()},
        "details": {f"{c}/{seed}": {"pairs": m["pairs"], "probe": m.get("probe")} for (c, seed), m in measured.items()},
        "settings": dict(settings),
    }  # fmt: skip


KINDS = ("pairs", "probe", "held out", "own loss", "cost")


@dataclasses.dataclass(frozen=True, slots=True)
class _Column:
    """One figure: what it is called, where it is in a measurement, and which way is better."""

    name: str
    path: tuple[str, ...]
    kind: str
    better: Literal["higher", "lower"] | None = None


def _columns(metrics: Mapping[str, Any]) -> Iterator[_Column]:
    for suite in metrics["pairs"]:
        yield _Column(f"pairs {suite}", ("pairs", suite, "accuracy"), "pairs", "higher")
    if metrics.get("probe"):
        yield _Column("probe accuracy", ("probe", "accuracy"), "probe", "higher")
    for way in metrics["held_out"]:
        yield _Column(f"held-out bits per byte, {way}", ("held_out", way), "held out", "lower")
    for unit, key in (
        ("nats per predicted token", "nats_per_token"),
        ("bits per predicted byte", "bits_per_byte"),
    ):
        yield _Column(f"own loss, {unit}", ("validation", key), "own loss", "lower")
    yield _Column("parameters", ("parameters",), "cost")
    yield _Column("tokens", ("tokens",), "cost")
    yield _Column("operations", ("flops",), "cost")
    yield _Column("training seconds", ("training_seconds",), "cost")
    yield _Column("peak memory, bytes", ("memory_peak_bytes",), "cost")


def _groups(
    column: _Column,
    names: Sequence[str],
    measured: Mapping[tuple[str, int], Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[list[str]]:
    """Returns which candidates may be compared in a column."""
    if column.kind == "cost":
        return []
    groups: dict[str, list[str]] = {}
    comparable = {candidate: metrics["is_loss_comparable"] for (candidate, _), metrics in measured.items()}
    for name in names:
        table, same = settings[name], []
        if column.kind in ("held out", "own loss"):
            same = [table["corpus"]]
        if column.kind == "own loss":
            same += [table["tokenizer"], table["pretrain"]["objective"], table["pretrain"]["row_tokens"]]
            same += [] if comparable[name] else [name]
        groups.setdefault(_digest(same), []).append(name)
    return list(groups.values())


def _dig(table: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = table
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes laid over it, table by table; a part that is changed by name is replaced whole."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        replaced = isinstance(value, Mapping) and "name" in value
        if isinstance(value, Mapping) and isinstance(before, Mapping) and not replaced:
            result[key] = _merged(before, value)
        else:
            result[key] = value
    return result


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _cores() -> int:
    return int(describe_machine()["cores"] or 1)
