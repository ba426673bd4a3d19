"""`gristmill plan`: what will come of a recipe, and of other sizes, before it is run."""

from pathlib import Path
from typing import Any

import click

from gristmill.cli._common import console, jobs_option, open_table, print_json, recipe_options

__all__ = ["command"]


@click.command()
@jobs_option("Small runs")
@recipe_options
def command(
    recipe: Path, out: Path | None, overrides: tuple[str, ...], as_json: bool, jobs: int | None
) -> None:
    """Predict the loss and the time of RECIPE, and of smaller and larger models for the same budget.

    \b
      gristmill plan mine.toml
      gristmill plan mine.toml --set pretrain.budget="2 h" --set plan.share=0.02

    A few small runs on your text fix how its loss falls with size, tokens and repetition; a few steps of each size tell
    the time. What they make is kept in runs/NAME-plan.

    Next: gristmill run RECIPE --set model.depth=…
    """
    from gristmill.cli._listener import Console
    from gristmill.plan import plan

    table, directory = open_table(recipe, out, overrides, "-plan")
    with Console() as listener:
        facts = plan(table, directory, listener, jobs=jobs)
    if as_json:
        print_json(facts)
        return
    _print(facts)
    depth = facts["best"]
    change = "" if depth == facts["depth"] else f" --set model.depth={depth}"
    if facts["regularisation"] and facts["regularisation"]["helps"]:
        change += "".join(f" --set pretrain.{key}" for key in _settings(facts["regularisation"]["settings"]))
    click.echo(f"\nnext: gristmill run {recipe}{change}")


def _settings(table: dict[str, Any], before: str = "") -> list[str]:
    """A table as key=value, with dots."""
    found = []
    for key, value in table.items():
        found += (
            _settings(value, f"{before}{key}.") if isinstance(value, dict) else [f"{before}{key}={value}"]
        )
    return found


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from gristmill.report.units import duration, rounded_count

    table = Table(box=None, pad_edge=False)
    for head in ("depth", "width", "parameters", "tokens", "epochs", "nats/token", "time", ""):
        table.add_column(head, header_style="dim", justify="left" if not head else "right")
    for option in facts["options"]:
        notes = []
        if option["depth"] == facts["depth"]:
            notes.append("the recipe")
        if option["depth"] == facts["best"]:
            notes.append("best")
        table.add_row(
            str(option["depth"]), str(option["width"]), rounded_count(option["parameters"]),
            rounded_count(option["tokens"]), f"{option['epochs']:.1f}", f"{option['loss']:.3f}",
            duration(option["seconds"]), ", ".join(notes),
        )  # fmt: skip
    console().print(table)
    click.echo(
        f"\n{rounded_count(facts['unique_tokens'])} tokens of text, budget {facts['budget']}; the small runs took "
        f"{100 * facts['share_of_flops']:.1f} % of the run's operations."
    )
    if regular := facts["regularisation"]:
        if facts["best_epochs"] is not None:
            click.echo(
                f"Without dropout and noise, loss falls up to some {facts['best_epochs']:.1f} epochs, and then rises."
            )
        verdict = "they help" if regular["helps"] else "they do not help"
        click.echo(
            f"With {' and '.join(_settings(regular['settings']))} a small run of {regular['epochs']:.1f} "
            f"epochs ends at {regular['loss']:.3f} nats, without at {regular['without']:.3f}: {verdict}."
        )
