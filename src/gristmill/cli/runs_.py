"""`gristmill runs`: the runs and task models below a folder."""

from pathlib import Path
from typing import Any

import click

from gristmill.cli._common import json_option, print_json


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@json_option
def command(folder: Path, as_json: bool) -> None:
    """List the runs and task models below a folder, "runs" by default, the newest first.

    \b
      gristmill runs
      gristmill runs experiments --json

    Next: `gristmill report RUN`, or `gristmill run RECIPE` to finish one that was interrupted.
    """
    from gristmill.errors import InputError
    from gristmill.report.units import MISSING, bytes_text, figure

    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}", "`gristmill run recipes/demo.toml` makes the first run"
        )
    places = [
        folder,
        *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")),
    ]
    runs = [_describe(path) for path in places if _is_run(path)]
    runs.sort(key=lambda run: run["started_at"] or "", reverse=True)
    if as_json:
        print_json(runs)
        return
    if not runs:
        click.echo(f"no runs in {folder}")
        return
    rows = [["run", "started", "state", "figure", "size", "directory"]]
    for run in runs:
        started = str(run["started_at"] or MISSING)[:16].replace("T", " ")
        name = run.get("figure", "bits per byte")
        value = run["value"] if "value" in run else run["bits_per_byte"]
        shown = MISSING if value is None else f"{figure(value)} {name}"
        rows.append([run["name"], started, run["state"], shown, bytes_text(run["size_bytes"]), run["path"]])
    for line in _aligned(rows, right={3, 4}):
        click.echo(line)


def _aligned(rows: list[list[str]], right: set[int]) -> list[str]:
    """Rows as lines; unlike a rich table, never cut to the width of a terminal: paths are there to be copied."""
    from rich.cells import cell_len  # a Chinese character is two columns wide

    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        pads = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [
            pad + cell if i in right else cell + pad
            for i, (cell, pad) in enumerate(zip(row, pads, strict=True))
        ]
        lines.append("   ".join(cells).rstrip())
    return lines


def _is_run(path: Path) -> bool:
    """A run has run.json from its first second; one that was copied without it is known by its stages."""
    from gristmill.artifact import MANIFEST
    from gristmill.report import STAGES

    if _is_adapted(path) or (path / "run.json").is_file():
        return True
    return any((path / stage / MANIFEST).is_file() for stage in STAGES)


def _is_adapted(path: Path) -> bool:
    from gristmill.artifact import MANIFEST
    from gristmill.errors import InputError
    from gristmill.report import ADAPTED, read_json

    try:
        return read_json(path / MANIFEST).get("kind") == ADAPTED
    except InputError:
        return False


def _describe_adapted(path: Path) -> dict[str, Any]:
    from gristmill.artifact import open_artifact
    from gristmill.report import ADAPTED

    manifest = open_artifact(path, ADAPTED, verify=False).manifest
    name, found = next(iter(manifest.metrics.items()))
    return {
        "name": manifest.config["name"],
        "path": str(path),
        "started_at": manifest.created_at,
        "state": "finished",
        "bits_per_byte": None,
        "bits_per_byte_interval": None,
        "figure": name,
        "value": found["mean"],
        "interval": found["interval"],
        "size_bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
    }


def _describe(path: Path) -> dict[str, Any]:
    from gristmill.errors import InputError
    from gristmill.report import find_stages, read_json

    if _is_adapted(path):
        return _describe_adapted(path)
    try:
        run, stages = read_json(path / "run.json"), find_stages(path)
    except InputError:
        run, stages, state = {}, {}, "damaged"
    else:
        state = _state(path, finished="model" in stages)
    figures: dict[str, Any] = {}
    if "model" in stages:
        figures = stages["model"].manifest.metrics.get("validation") or {}
    if "evaluation" in stages:
        figures = stages["evaluation"].manifest.metrics.get("overall") or figures
    created = [artifact.manifest.created_at for artifact in stages.values()]
    return {
        "name": run.get("name") or path.resolve().name,
        "path": str(path),
        "started_at": run.get("started_at") or min(created, default=None),
        "state": state,
        "bits_per_byte": figures.get("bits_per_byte"),
        "bits_per_byte_interval": figures.get("bits_per_byte_interval"),
        "size_bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
    }


def _state(path: Path, *, finished: bool) -> str:
    from gristmill.artifact import is_held

    if is_held(path):
        return "running"
    return "finished" if finished and not any(path.glob(".*.partial")) else "interrupted"
