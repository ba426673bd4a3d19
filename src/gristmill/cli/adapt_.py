"""`gristmill adapt`: from a base model and labelled examples to a task model."""

from pathlib import Path
from typing import Any

import click

from gristmill.cli._common import open_table, print_json, recipe_options

__all__ = ["command"]


@click.command()
@recipe_options
def command(recipe: Path, out: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Fine-tune a model on the labelled examples that RECIPE names, and say how good it is.

    \b
      gristmill adapt intents.toml
      gristmill adapt intents.toml --set base=runs/demo --set tune.epochs=8 --set seeds=3

    The best epoch is chosen by validation examples, held out if there are none; test examples are looked at once, at the end. What
    was interrupted goes on where it stopped. A table [search] looks for better settings first, a table [curve] says what
    more labels would bring: docs/how-to/experiments.md.

    Next: gristmill predict runs/NAME FILE
    """
    from gristmill.adapt.adapting import AdaptRecipe, adapt
    from gristmill.artifact import exclusive
    from gristmill.config import from_dict

    table, directory = open_table(recipe, out, overrides)
    settled = from_dict(AdaptRecipe, table)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(directory.parent / f".{directory.name}.lock"):
        made = adapt(settled, directory, say=lambda message: click.echo(message, err=True))
    import json

    facts = json.loads((made.path / "result.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(facts)
        return
    _print(facts, (made.path / "table.txt").read_text(encoding="utf-8"))
    click.echo(f"\nnext: gristmill predict {directory} FILE, or gristmill report {directory}")


def _print(facts: dict[str, Any], table: str) -> None:
    click.echo(table)
    count = facts["examples"][facts["measured_on"]]
    click.echo(f"{count:,} {'test' if facts['measured_on'] == 'test' else 'validation'} examples:")
    for name, figure in facts["figures"].items():
        interval = figure["interval"]
        shown = "" if interval is None else f"  [{interval[0]:.4f}, {interval[1]:.4f}] over {figure['over']}"
        click.echo(f"  {name:<18} {figure['mean']:.4f}{shown}")
    if facts["leaks"]["count"]:
        first = facts["leaks"]["first"][0]
        dropped = facts["leaks"]["dropped"]
        became = f"; {dropped:,} examples were left out for that" if dropped else ""
        click.echo(
            f"\n{facts['leaks']['count']:,} texts stand in two of the sets, such as {first['one']} and {first['other']}{became}.",
            err=True,
        )
