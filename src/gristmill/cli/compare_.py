"""`gristmill compare`: candidates that differ in some settings, at equal budget, over several seeds."""

from pathlib import Path

import click

from gristmill.cli._common import print_json, recipe_options

__all__ = ["command"]

SHORT = {
    "own loss, nats per predicted token": "nats/token",
    "own loss, bits per predicted byte": "bits/byte",
    "training seconds": "training",
    "peak memory, bytes": "memory",
}
"""What a terminal has room for."""


@click.command()
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Runs at a time; by default one for each GPU, or each core."
)
@recipe_options
def command(
    recipe: Path, out: Path | None, overrides: tuple[str, ...], as_json: bool, jobs: int | None
) -> None:
    """Train what RECIPE's table [compare] names, with several seeds, and say what differs from what.

    \b
      gristmill compare recipes/compare_objectives.toml
      gristmill compare mine.toml --jobs 2 --set compare.seeds=5

    Every candidate sees the same text, and equally many tokens or FLOPs. Finished runs are not done again, and an
    interrupted one goes on where it stopped. At the end stand a table with intervals and a page; differences
    that several seeds can not tell from noise are said to be.

    Next: open runs/NAME/comparison/comparison.html
    """
    import json

    from gristmill.cli._listener import Console
    from gristmill.compare import compare
    from gristmill.config import override, read_toml
    from gristmill.errors import InputError

    table = override(read_toml(recipe), overrides)
    name = table.get("name")
    if not isinstance(name, str):
        raise InputError('"name" is missing', 'write name = "objectives" at the top of the recipe')
    directory = out or Path("runs") / name
    with Console() as console:
        artifact = compare(table, directory, console, jobs=jobs)
    facts = json.loads((artifact.path / "comparison.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(facts)
        return
    _show(facts)
    click.echo(f"\npage: {artifact.path / 'comparison.html'}")


def _show(facts: dict) -> None:  # type: ignore[type-arg]
    from rich.table import Table

    from gristmill.cli._common import console
    from gristmill.report.comparison import SHOWN, verdict

    output = console()
    tested = [column for column in facts["columns"] if column.startswith(("pairs", "probe"))]
    for column in tested:
        table = Table(title=column, title_justify="left", box=None, pad_edge=False)
        for head, justify in (
            ("candidate", "left"),
            ("mean", "right"),
            ("interval", "right"),
            ("difference", "left"),
        ):
            table.add_column(head, justify=justify)  # type: ignore[arg-type]
        asked = [row for row in facts["rows"] if column in row["figures"]]
        for row in sorted(asked, key=lambda r: -r["figures"][column]["mean"]):
            figure = row["figures"][column]
            low_high = figure["interval"]
            interval = f"{low_high[0]:.3f} to {low_high[1]:.3f}" if low_high else "–"
            said = "reference" if row["name"] == facts["reference"] else verdict(figure)
            table.add_row(row["name"], f"{figure['mean']:.3f}", interval, said)
        output.print(table)
        output.print()
    rest = [column for column in facts["columns"] if column not in tested]
    table = Table(box=None, pad_edge=False)
    table.add_column("candidate")
    for column in rest:
        table.add_column(SHORT.get(column, column), justify="right", no_wrap=True)
    for row in facts["rows"]:
        cells = [row["figures"][column]["mean"] for column in rest]
        texts = [SHOWN[c](v) if c in SHOWN else f"{v:.3f}" for c, v in zip(rest, cells, strict=True)]
        table.add_row(row["name"], *texts)
    output.print(table)
