"""The report of a run: one HTML page that opens offline, and the same numbers as JSON."""

import hashlib
import json
from pathlib import Path
from typing import Any

from gristmill import artifact
from gristmill.artifact import Artifact
from gristmill.report.collect import STAGES, find_stages, gather, read_json
from gristmill.report.page import render

__all__ = ["STAGES", "build_report", "find_stages", "read_json", "read_report"]

FORMAT_VERSION = 1


def build_report(run_directory: Path, out: Path) -> Artifact:
    """Writes `report.html` and `report.json` for a run, as an artifact at `out`; stages not run are shown so.

    The page is always rendered, and written only when it differs from the one that is there.

    Raises:
        InputError: there is no run in the directory.
        CorruptArtifact: a file that the report reads is not the one that its manifest names.
    """
    facts, stages = gather(Path(run_directory))
    files = {
        "report.html": render(facts),
        "report.json": json.dumps(facts, ensure_ascii=False, indent=1) + "\n",
    }
    config = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    key = artifact.artifact_key("report", FORMAT_VERSION, config, stages)
    present = artifact.find(Path(out), key)
    if present is not None:
        return present
    with artifact.draft(
        Path(out), kind="report", format_version=FORMAT_VERSION, config=config, parents=stages
    ) as work:
        for name, text in files.items():
            artifact.write_text(work.path / name, text)
        work.metrics |= facts["overall"] or {}
    return artifact.open_artifact(Path(out), "report")


def read_report(report: Artifact) -> dict[str, Any]:
    """Returns the numbers of a report."""
    return read_json(report.path / "report.json")
