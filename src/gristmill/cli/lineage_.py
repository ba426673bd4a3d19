"""`gristmill lineage`: what an artifact was made of, back to the text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gristmill.cli._common import json_option, print_json


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@json_option
def command(directory: Path, as_json: bool) -> None:
    """Show what an artifact was made of, back to the text.

    \b
      gristmill lineage runs/demo/model
      gristmill lineage runs/demo --json

    DIRECTORY is an artifact, or a run: then its last stage is shown.

    Next: `gristmill check DIRECTORY` compares every file with its hash.
    """
    from gristmill.artifact import MANIFEST, lineage, open_artifact
    from gristmill.report import find_stages

    if not (directory / MANIFEST).is_file() and (stages := find_stages(directory)):
        last = list(stages.values())[-1]
    else:
        last = open_artifact(directory, verify=False)
    tree = lineage(last)
    if as_json:
        print_json(tree)
        return
    click.echo(_node(tree))
    for line in _branches(tree["parents"], "", set()):
        click.echo(line)


def _branches(parents: Mapping[str, Any], indent: str, shown: set[str]) -> Iterator[str]:
    """The lines below an artifact; what an artifact was made of is written once."""
    for i, (role, parent) in enumerate(parents.items()):
        last = i == len(parents) - 1
        state = "" if parent["state"] == "unchanged" else f"  ({parent['state']})"
        above, below = parent["content_hash"] in shown, parent.get("parents", {})
        more = "  (see above)" if above and below else ""
        yield f"{indent}{'└── ' if last else '├── '}{role}: {_node(parent)}{state}{more}"
        shown.add(parent["content_hash"])
        if not above:
            yield from _branches(below, indent + ("    " if last else "│   "), shown)


def _node(entry: Mapping[str, Any]) -> str:
    made = f"  {entry['created_at']}" if "created_at" in entry else ""
    return f"{entry['kind']} {entry['content_hash'][:12]}{made}  {entry['path']}"
