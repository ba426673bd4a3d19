"""The report of a run or of a task model: one HTML page that opens offline, and the same numbers as JSON."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill import artifact
from gristmill.artifact import Artifact
from gristmill.report.adapted import KIND as ADAPTED
from gristmill.report.adapted import gather_adapted
from gristmill.report.adapted_page import render_adapted
from gristmill.report.collect import STAGES, find_stages, gather, read_json
from gristmill.report.page import render

__all__ = ["ADAPTED", "STAGES", "build_report", "find_stages", "read_json", "read_report"]

FORMAT_VERSION = 1


def build_report(directory: Path, out: Path) -> Artifact:
    """Writes `report.html` and `report.json` for a run or a task model, as an artifact at `out`.

    Stages of a run that have not run are shown so. The page is always rendered, and written only when it differs from the one
    that is there.

    Raises:
        InputError: there is neither in the directory.
        CorruptArtifact: a file that the report reads is not the one that its manifest names.
    """
    directory = Path(directory)
    if read_json(directory / artifact.MANIFEST).get("kind") == ADAPTED:
        facts, model = gather_adapted(directory)
        return _written(Path(out), facts, render_adapted(facts), {"model": model}, facts["result"]["figures"])
    facts, stages = gather(directory)
    return _written(Path(out), facts, render(facts), stages, facts["overall"] or {})


def _written(
    out: Path,
    facts: Mapping[str, Any],
    page: str,
    parents: Mapping[str, Artifact],
    metrics: Mapping[str, Any],
) -> Artifact:
    files = {"report.html": page, "report.json": json.dumps(facts, ensure_ascii=False, indent=1) + "\n"}
    config = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    key = artifact.artifact_key("report", FORMAT_VERSION, config, parents)
    present = artifact.find(out, key)
    if present is not None:
        return present
    with artifact.draft(
        out, kind="report", format_version=FORMAT_VERSION, config=config, parents=parents
    ) as work:
        for name, text in files.items():
            artifact.write_text(work.path / name, text)
        work.metrics.update(metrics)
    return artifact.open_artifact(out, "report")


def read_report(report: Artifact) -> dict[str, Any]:
    """Returns the numbers of a report."""
    return read_json(report.path / "report.json")
