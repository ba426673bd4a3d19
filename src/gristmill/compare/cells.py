"""One candidate with one seed: trained and measured in a process of its own, as many at a time as there is room for."""

import dataclasses
import json
import math
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

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
from gristmill.compare.settings import Comparison, settled_objective
from gristmill.config import to_dict
from gristmill.corpus import Corpus
from gristmill.errors import GristmillError, InputError, RunError
from gristmill.evaluate.minimal_pairs import measure_pairs
from gristmill.evaluate.probe import probe
from gristmill.evaluate.scoring import Scoring, scorings_for, sentence_scores
from gristmill.generate import Loaded, load_run
from gristmill.objectives.base import Objective
from gristmill.pipeline import Listener, Quiet, Recipe
from gristmill.train.trainer import pick_device

__all__ = ["MEASUREMENT", "Cell", "held_out_texts", "run_cell", "run_cells"]

MEASUREMENT = "measurement.json"
MEASUREMENT_FORMAT = 1
PIECE_BYTES = 256
"""Of a piece of validation text whose likelihood is measured: some sixty tokens of English."""
WAYS = {
    "left_to_right": "left to right",
    "discriminated": "told from replaced",
    "pseudo_within_words": "filling in",
    "pseudo": "filling in",
}
"""How a sentence is scored, in the words of a column; of two ways with the same words a model's first one counts."""


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


def run_cells(cells: list[Cell], jobs: int, gpus: Sequence[str], listener: Listener) -> None:
    """Runs what is not finished, `jobs` processes at a time; one that fails does not stop the others.

    With `gpus`, values of CUDA_VISIBLE_DEVICES, each process gets one of them.

    Raises:
        RunError: cells failed; it names the first.
    """
    waiting = [cell for cell in cells if not _is_done(cell)]
    total, done = len(cells), len(cells) - len(waiting)
    if done:
        listener.say(f"{done} of {total} are there already")
    context = _context()
    running: dict[int, tuple[Any, Cell, float]] = {}
    failed: list[Cell] = []
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


# --- processes ------------------------------------------------------------------------------------------------------


def _context() -> Any:
    """How processes start: from one that has imported everything and done nothing, where there are such; it saves seconds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


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


def _error(cell: Cell) -> str:
    path = cell.path / "error.txt"
    return path.read_text(encoding="utf-8").splitlines()[0] if path.is_file() else "its process was killed"


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


# --- measuring ------------------------------------------------------------------------------------------------------


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


def _measure(cell: Cell, model: Artifact) -> dict[str, Any]:
    metrics = model.manifest.metrics
    loaded = load_run(model.path, device=pick_device(cell.recipe.pretrain.device))
    objective = settled_objective(cell.recipe)
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


def _curve(path: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {name: line[name] for name in ("tokens", "elapsed_seconds", "validation_nats_per_token")}
        for line in lines
        if "validation_nats_per_token" in line
    ]
