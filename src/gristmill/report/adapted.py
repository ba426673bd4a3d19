"""The facts of a task model: every number of its page, read from what `gristmill adapt` wrote."""

import json
from pathlib import Path
from typing import Any

from gristmill.artifact import Artifact, lineage, open_artifact
from gristmill.report.collect import energy, read_json

__all__ = ["KIND", "gather_adapted"]

KIND = "adapted"
FORMAT_VERSION = 1
READ = ("result.json", "table.txt", "mistakes.jsonl", "search.json", "curve.json")


def gather_adapted(directory: Path) -> tuple[dict[str, Any], Artifact]:
    """Returns the facts of a task model as JSON values, and the artifact that they were read from.

    Raises:
        InputError: there is none in the directory.
        CorruptArtifact: a file that the report reads is not the one that its manifest names.
    """
    model = open_artifact(directory, KIND, verify=False)
    manifest = model.manifest
    model.verify([name for name in READ if name in manifest.files])
    elapsed, cpu = manifest.cost.get("elapsed_seconds", 0.0), manifest.cost.get("cpu_seconds", 0.0)
    facts = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "name": manifest.config["name"],
        "created_at": manifest.created_at,
        "version": manifest.gristmill_version,
        "recipe": manifest.config,
        "result": read_json(directory / "result.json"),
        "table": _text(model, "table.txt"),
        "mistakes": [json.loads(line) for line in _text(model, "mistakes.jsonl").split("\n") if line],
        "search": read_json(directory / "search.json") or None,
        "curve": read_json(directory / "curve.json") or None,
        "cost": {**manifest.cost, "elapsed_seconds": elapsed, "energy": energy(cpu, 0.0)},
        "content_hash": manifest.content_hash,
        "parents": lineage(model)["parents"],
    }
    return facts, model


def _text(model: Artifact, name: str) -> str:
    return (model.path / name).read_text(encoding="utf-8") if name in model.manifest.files else ""
