"""All measurements in one table: means over seeds with their intervals, and what differs from what."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gristmill.artifact import Artifact, artifact_key, draft, find, open_artifact, write_json, write_text
from gristmill.compare.cells import MEASUREMENT, Cell
from gristmill.compare.settings import Comparison, digest
from gristmill.config import to_dict
from gristmill.evaluate.comparing import figures_of
from gristmill.report.comparison import render_comparison
from gristmill.train.hardware import describe_machine
from gristmill.train.schedule import parse_budget
from gristmill.train.trainer import pick_device

__all__ = ["OWN_LOSS", "summarise", "write_comparison"]

COMPARISON_FORMAT = 2
EQUAL = {"tokens": "tokens", "flops": "FLOPs", "nothing": "seeds"}
KINDS = ("pairs", "probe", "held out", "own loss", "cost")
OWN_LOSS = "own loss, nats per predicted token"
"""The column of what a run was trained for, on held-out text."""


def write_comparison(name: str, comparison: Comparison, cells: list[Cell], directory: Path) -> Artifact:
    """Writes figures and page of what was measured, unless they are there, and returns the comparison."""
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
    # runs beside each other are in each other's way: what they computed tells more than their clock
    for cell in cells:
        cost = open_artifact(cell.path / "model", verify=False).manifest.cost
        figures[cell.name, cell.seed]["cpu_seconds"] = cost["cpu_seconds"]
        shards = open_artifact(cell.shards, verify=False).manifest.metrics["splits"]["train"]
        figures[cell.name, cell.seed]["unique_tokens"] = shards["tokens"]
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
        measured: what `run_cell` measured, for each candidate and seed.
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
        "equal": "epochs" if budgets == {"epochs"} else EQUAL[comparison.equal],
        "seeds": comparison.seeds,
        "conditions": {key: sorted({each[key] for each in conditions}) for key in conditions[0]},
        "columns": {column.name: {"kind": column.kind, "better": column.better} for column in columns},
        "rows": [{"name": candidate, "figures": figures} for candidate, figures in rows.items()],
        "curves": {f"{c}/{seed}": m["curve"] for (c, seed), m in measured.items()},
        "details": {f"{c}/{seed}": {"pairs": m["pairs"], "probe": m.get("probe")} for (c, seed), m in measured.items()},
        "settings": dict(settings),
    }  # fmt: skip


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
    yield _Column(OWN_LOSS, ("validation", "nats_per_token"), "own loss", "lower")
    yield _Column("own loss, bits per predicted byte", ("validation", "bits_per_byte"), "own loss", "lower")
    yield _Column("parameters", ("parameters",), "cost")
    yield _Column("tokens", ("tokens",), "cost")
    if "unique_tokens" in metrics:
        yield _Column("unique tokens", ("unique_tokens",), "cost")
    yield _Column("operations", ("flops",), "cost")
    yield _Column("training seconds", ("training_seconds",), "cost")
    yield _Column("CPU seconds", ("cpu_seconds",), "cost")
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
            # corpora that share their validation text are measured on the same
            same = [table["corpus"].get("held_out") or table["corpus"]]
        if column.kind == "own loss":
            same += [table["tokenizer"], table["pretrain"]["objective"], table["pretrain"]["row_tokens"]]
            same += [] if comparable[name] else [name]
        groups.setdefault(digest(same), []).append(name)
    return list(groups.values())


def _dig(table: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = table
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
