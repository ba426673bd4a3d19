"""`gristmill check`: compares every file of an artifact or a run with its hash."""

from pathlib import Path
from typing import Any

import click

from gristmill.cli._common import json_option, print_json


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@json_option
def command(directory: Path, as_json: bool) -> None:
    """Compare every file of an artifact or a run with its hash.

    \b
      gristmill check runs/demo
      gristmill check runs/demo/model --json

    Every artifact below DIRECTORY is read in full. Exits with 2 when a file is missing, cut short or changed.

    Next: `gristmill lineage DIRECTORY` shows what it was made of.
    """
    from gristmill.artifact import MANIFEST, open_artifact
    from gristmill.errors import CorruptArtifact, InputError
    from gristmill.report.units import plural

    if not directory.is_dir():
        raise InputError(
            f"there is no directory {directory}", "`gristmill runs` lists the runs below a folder"
        )
    paths = sorted(
        manifest.parent for manifest in directory.rglob(MANIFEST) if ".partial" not in manifest.parent.name
    )
    if not paths:
        open_artifact(directory)  # says what is there instead
    results: list[dict[str, Any]] = []
    for path in paths:
        try:
            artifact = open_artifact(path, verify=False)
        except CorruptArtifact as error:
            results.append({"path": str(path), "kind": None, "files": 0, "problems": [error.message]})
            continue
        problems = list(artifact.problems())
        results.append(
            {
                "path": str(path),
                "kind": artifact.kind,
                "files": len(artifact.manifest.files),
                "problems": problems,
            }
        )
        if not as_json:
            state = f"{len(problems)} damaged" if problems else "as written"
            click.echo(f"{path}: {artifact.kind}, {plural(len(artifact.manifest.files), 'file')}, {state}")
    if as_json:
        print_json(results)
    damaged = [result for result in results if result["problems"]]
    if damaged:
        lines = [problem for result in damaged for problem in result["problems"]]
        places = ", ".join(result["path"] for result in damaged)
        raise CorruptArtifact(
            "\n       ".join(lines), f"move {places} away and run the same recipe again: only that is rebuilt"
        )
