"""`gristmill list`: the parts that a recipe can name."""

import click

from gristmill.cli._common import json_option, print_json

__all__ = ["command"]

KINDS = {
    "objectives": "objectives",
    "optimizers": "train.optimizers",
    "tokenizers": "tokenizer.kinds",
    "families": "model.families",
    "tasks": "adapt.tasks",
    "ways": "adapt.ways",
}


@click.command()
@click.argument("kind", required=False, type=click.Choice(list(KINDS)))
@json_option
def command(kind: str | None, as_json: bool) -> None:
    """List the objectives, optimizers, tokenizers, model families, tasks and ways to adapt that a recipe can name.

    \b
      gristmill list
      gristmill list objectives --json

    The name is the file's name; a part of your own is named by its import path, "my_package.my_objective".

    Next: gristmill explain RECIPE
    """
    from gristmill import plugins

    found = {
        name: {part: _first_line(package, part) for part in plugins.names(package)}
        for name, package in KINDS.items()
        if kind in (None, name)
    }
    if as_json:
        print_json(found)
        return
    for name, parts in found.items():
        click.secho(name, bold=True)
        for part, doc in parts.items():
            click.echo(f"  {part:<12} {doc}")


def _first_line(package: str, part: str) -> str:
    """The first line of a module's docstring, read from its source: nothing is imported for a list."""
    import ast
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec(f"gristmill.{package}")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0]) / f"{part}.py"
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").partition("\n")[0]
