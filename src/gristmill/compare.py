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
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt

from gristmill import pipeline
from gristmill.artifact import (
    Artifact,
    artifact_key,
    draft,
    exclusive,
    find,
    open_artifact,
    write_json,
    write_text,
)
from gristmill.config import from_dict, to_dict
from gristmill.corpus.shards import Shards
from gristmill.errors import GristmillError, InputError, RunError, did_you_mean
from gristmill.evaluate.comparing import Mean, compare_with, mean_interval
from gristmill.evaluate.minimal_pairs import measure_pairs
from gristmill.evaluate.probe import ProbeSettings, probe
from gristmill.evaluate.scoring import scorings_for
from gristmill.generate import load_run
from gristmill.model.build import make_model
from gristmill.model.config import ModelConfig, ModelSettings, resolve
from gristmill.model.count import parameter_counts, training_flops_per_token
from gristmill.objectives.base import Objective
from gristmill.pipeline import Listener, Quiet, Recipe
from gristmill.report.comparison import render_comparison
from gristmill.tokenizer import Tokenizer
from gristmill.train.loader import Cursor, Loader
from gristmill.train.schedule import parse_budget
from gristmill.train.settings import resolve_batch

__all__ = ["Comparison", "compare", "open_comparison"]

MEASUREMENT_FORMAT = 1
COMPARISON_FORMAT = 1
STEP = 8
"""Sizes of feed-forward layers that are fitted to a number of parameters are multiples of this."""

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
    the first."""
    pairs: tuple[str, ...] = ()
    """Folders of linguistic minimal pairs, BLiMP for instance."""
    pairs_per_paradigm: Positive | None = None
    """At most so many pairs of each paradigm; by default all."""
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
    threads: int
    flops_per_token: float

    @property
    def path(self) -> Path:
        """Where its model and its measurements are."""
        return self.directory / "cells" / self.name / f"seed-{self.seed}"


def open_comparison(table: Mapping[str, Any]) -> tuple[Recipe, Comparison, dict[str, Recipe]]:
    """Returns the recipe, what it compares, and each candidate's own recipe, everything checked.

    Raises:
        InputError: there is no `[compare]` table, or a candidate's settings do not fit; it is named.
    """
    if "compare" not in table:
        raise InputError("the recipe has no [compare] table", "`gristmill run` is for recipes of one model")
    base = {key: value for key, value in table.items() if key != "compare"}
    comparison = from_dict(Comparison, table["compare"], "compare")
    recipes = {}
    for name, changes in comparison.candidates.items():
        if not isinstance(changes, Mapping):
            raise InputError(f"compare.candidates.{name} is no table", '{ pretrain.objective = "causal" }')
        try:
            recipe = from_dict(Recipe, _merged(base, changes))
            recipes[name] = pipeline.settle(recipe)
        except InputError as error:
            raise InputError(f"candidate {name}: {error.message}", error.hint) from None
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
        jobs: processes at a time; by default one for each GPU, or for each core.

    Raises:
        InputError: something does not fit; found before work starts.
        RunError: cells failed; the others are finished and stay.
    """
    base, comparison, recipes = open_comparison(table)
    for name, recipe in recipes.items():
        try:
            pipeline.check_recipe(recipe, directory)
        except InputError as error:
            raise InputError(f"candidate {name}: {error.message}", error.hint) from None
    jobs = jobs or _places()
    with exclusive(directory):
        shared = {name: _shared_stages(recipe, directory, listener) for name, recipe in recipes.items()}
        recipes = _with_equal_parameters(recipes, comparison, shared)
        flops = {name: _flops_per_token(recipe, shared[name]) for name, recipe in recipes.items()}
        recipes = _with_equal_budgets(recipes, comparison, flops)
        threads = max(1, _cores() // jobs)
        cells = [
            Cell(
                name=name, seed=base.seed + i, recipe=recipe, directory=directory, comparison=comparison,
                shards=shared[name]["shards"].path, tokenizer=shared[name]["tokenizer"].path,
                corpus=shared[name]["corpus"].path, threads=threads, flops_per_token=flops[name],
            )
            for i in range(comparison.seeds)
            for name, recipe in recipes.items()
        ]  # fmt: skip
        _run_cells(cells, jobs, listener)
        return _collect(base.name, comparison, cells, directory)


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


def _with_equal_parameters(
    recipes: Mapping[str, Recipe], comparison: Comparison, shared: Mapping[str, Mapping[str, Artifact]]
) -> dict[str, Recipe]:
    if comparison.parameters is None:
        return dict(recipes)
    return {
        name: dataclasses.replace(
            recipe,
            model=fit_parameters(
                recipe, comparison.parameters, shared[name]["shards"].manifest.metrics["vocab_size"], name
            ),
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
        return parameter_counts(_config(sized(steps), recipe, vocab_size))["total"]

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


def _config(model: ModelSettings, recipe: Recipe, vocab_size: int) -> ModelConfig:
    config = resolve(model, vocab_size=vocab_size, row_tokens=recipe.pretrain.row_tokens)
    return _objective(recipe).refine(config)


def _objective(recipe: Recipe) -> Objective:
    assert recipe.pretrain.objective is not None  # settled
    return recipe.pretrain.objective


def _flops_per_token(recipe: Recipe, stages: Mapping[str, Artifact]) -> float:
    """The operations of matrix products for each token of text, counted on one batch, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    config = _config(recipe.model, recipe, stages["shards"].manifest.metrics["vocab_size"])
    if config.core != "transformer":  # its recurrence is no product that the counter knows
        return float(training_flops_per_token(config, recipe.pretrain.row_tokens))
    objective = _objective(recipe)
    store = Shards(stages["shards"]).split("train")
    vocabulary = Tokenizer.from_directory(stages["tokenizer"].path).vocabulary()
    rows, micro = resolve_batch(recipe.pretrain, config)
    model = make_model(config)
    model.initialise(torch.Generator().manual_seed(0))
    with Loader(
        store, objective, row_tokens=recipe.pretrain.row_tokens, rows=rows, micro_rows=micro, seed=recipe.seed,
        vocabulary=vocabulary,
    ) as loader:  # fmt: skip
        step = loader.step(Cursor(0, 0), 0, 2)
    with FlopCounterMode(display=False) as counter:
        objective.loss(model.train(), step.batches[0], 0).total_nats.backward()
    tokens = step.tokens / len(step.batches)
    return float(counter.get_total_flops() / tokens)


def _with_equal_budgets(
    recipes: Mapping[str, Recipe], comparison: Comparison, flops: Mapping[str, float]
) -> dict[str, Recipe]:
    if comparison.equal == "tokens":
        return dict(recipes)
    result = {}
    for name, recipe in recipes.items():
        budget = parse_budget(recipe.pretrain.budget)
        if budget.unit != "tokens":
            raise InputError(
                f'compare.equal = "flops" needs a budget in tokens, but pretrain.budget is "{recipe.pretrain.budget}"',
                'write pretrain.budget = "5M tokens": what the reference gets; the others get what costs as much',
            )
        tokens = round(budget.amount * flops[comparison.first] / flops[name])
        result[name] = dataclasses.replace(
            recipe, pretrain=dataclasses.replace(recipe.pretrain, budget=f"{tokens} tokens")
        )
    return result


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
    gpus = list(range(torch.cuda.device_count()))
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


def _cell_process(cell: Cell, gpu: int | None) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    torch.set_num_threads(cell.threads)
    cell.path.mkdir(parents=True, exist_ok=True)
    (cell.path / "error.txt").unlink(missing_ok=True)
    try:
        run_cell(cell)
    except Exception as error:
        message = error.message if isinstance(error, GristmillError) else f"{type(error).__name__}: {error}"
        write_text(cell.path / "error.txt", f"{message}\n\n{traceback.format_exc()}")
        raise SystemExit(1) from None


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
        work.metrics.update(_measure(cell, model))
    return open_artifact(cell.path / "measurement", verify=False)


def _measurement_parts(cell: Cell, model: Artifact) -> dict[str, Any]:
    comparison = to_dict(cell.comparison)
    return {
        "kind": "measurement",
        "format_version": MEASUREMENT_FORMAT,
        "config": {name: comparison[name] for name in ("pairs", "pairs_per_paradigm", "probe")},
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
    loaded = load_run(model.path)
    objective = _objective(cell.recipe)
    result: dict[str, Any] = {
        "parameters": metrics["parameters"]["total"],
        "tokens": metrics["tokens"],
        "flops": metrics["tokens"] * cell.flops_per_token,
        "training_seconds": metrics["elapsed_seconds"],
        "memory_peak_bytes": metrics["memory_peak_bytes"],
        "tokens_per_second": metrics["tokens_per_second"],
        "validation": metrics["validation"],
        "curve": _curve(model.path / "curve.jsonl"),
        "pairs": {},
    }
    ways = scorings_for(objective, loaded.config)
    for folder in cell.comparison.pairs:
        for column, how in ((Path(folder).name, next(iter(ways))), *_other_ways(Path(folder).name, ways)):
            result["pairs"][column] = measure_pairs(
                loaded.model, loaded.tokenizer, Path(folder), objective=objective, how=ways[how],
                limit=cell.comparison.pairs_per_paradigm,
            )  # fmt: skip
    if cell.comparison.probe is not None:
        result["probe"] = probe(
            loaded.model, loaded.tokenizer, cell.comparison.probe, objective=objective, seed=cell.seed
        )
    return result


def _other_ways(suite: str, ways: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A second column for models that can also be asked for each token given all the others, hybrids among them."""
    two = [name for name in ways if name == "pseudo_within_words"]
    return [(f"{suite}, filling in", name) for name in two if name != next(iter(ways))]


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
    facts = summarise(
        name,
        comparison,
        {cell: artifact.manifest.metrics for cell, artifact in measured.items()},
        {c.name: to_dict(c.recipe) for c in cells},
    )
    out = directory / "comparison"
    parts: dict[str, Any] = {
        "kind": "comparison",
        "format_version": COMPARISON_FORMAT,
        "config": {"compare": to_dict(comparison), "candidates": facts["settings"]},
        "parents": {f"{n}, seed {seed}": artifact for (n, seed), artifact in measured.items()},
    }
    existing = find(out, artifact_key(**parts))
    if existing is not None:
        return existing
    with draft(out, **parts) as work:
        write_json(work.path / "comparison.json", facts)
        write_text(work.path / "comparison.html", render_comparison(facts))
        work.metrics.update({"candidates": len(facts["rows"]), "seeds": comparison.seeds})
    return open_artifact(out, "comparison", verify=False)


def summarise(
    name: str,
    comparison: Comparison,
    measured: Mapping[tuple[str, int], Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns every figure of every candidate as a mean over seeds with its interval, and what differs from what."""
    names = list(dict.fromkeys(candidate for candidate, _ in measured))
    columns = {column: path for metrics in measured.values() for column, path in _columns(metrics)}
    order = [column for column in columns if column.startswith(("pairs", "probe"))]
    order += [column for column in columns if column not in order]
    table: dict[str, dict[str, Mean]] = {}
    for column in order:
        values: dict[str, list[float]] = {candidate: [] for candidate in names}
        for (candidate, _), metrics in measured.items():
            value = _dig(metrics, columns[column])
            values[candidate] += [] if value is None else [float(value)]
        # not every model can be asked in every way
        table[column] = {candidate: mean_interval(each) for candidate, each in values.items() if each}
    rows: list[dict[str, Any]] = [{"name": candidate, "figures": {}} for candidate in names]
    for column, means in table.items():
        tested = column.startswith(("pairs", "probe")) and comparison.first in means
        each = {candidate: mean.values for candidate, mean in means.items()}
        differences = compare_with(comparison.first, each) if tested else {}
        for row in rows:
            if row["name"] in means:
                row["figures"][column] = dataclasses.asdict(means[row["name"]])
            if row["name"] in differences:
                row["figures"][column]["difference"] = dataclasses.asdict(differences[row["name"]])
    return {
        "name": name,
        "reference": comparison.first,
        "equal": comparison.equal,
        "seeds": comparison.seeds,
        "columns": order,
        "rows": rows,
        "curves": {f"{c}/{seed}": m["curve"] for (c, seed), m in measured.items()},
        "details": {f"{c}/{seed}": {"pairs": m["pairs"], "probe": m.get("probe")} for (c, seed), m in measured.items()},
        "settings": dict(settings),
    }  # fmt: skip


def _columns(metrics: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The name of each figure, and where it is in a measurement."""
    for suite in metrics["pairs"]:
        yield f"pairs {suite}", ("pairs", suite, "accuracy")
    if metrics.get("probe"):
        yield "probe accuracy", ("probe", "accuracy")
    yield "own loss, nats per predicted token", ("validation", "nats_per_token")
    yield "own loss, bits per predicted byte", ("validation", "bits_per_byte")
    yield "parameters", ("parameters",)
    yield "tokens", ("tokens",)
    yield "operations", ("flops",)
    yield "training seconds", ("training_seconds",)
    yield "peak memory, bytes", ("memory_peak_bytes",)


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
    import hashlib

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _places() -> int:
    return torch.cuda.device_count() or _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
