"""`gristmill compare`: candidates that differ in some settings, at equal budget, over several seeds."""

import shutil
import textwrap
from pathlib import Path
from typing import Any

import click

from gristmill.cli._common import jobs_option, open_table, print_json, recipe_options

__all__ = ["command"]

WIDTH = 120
"""Columns of a table that is not shown in a terminal."""


@click.command()
@jobs_option("Runs")
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
    that several seeds can not tell from noise are said to be (~).

    Next: open runs/NAME/comparison/comparison.html
    """
    import json

    from gristmill.cli._listener import Console
    from gristmill.compare import compare

    table, directory = open_table(recipe, out, overrides)
    with Console() as console:
        artifact = compare(table, directory, console, jobs=jobs)
    facts = json.loads((artifact.path / "comparison.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(facts)
        return
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    click.echo("\n".join(_table(facts, max(width, 40))))
    click.echo(f"\npage: {artifact.path / 'comparison.html'}")


def _table(facts: dict[str, Any], width: int) -> list[str]:
    """The one table as lines; columns that a terminal has no room for follow below, the candidates named again."""
    from gristmill.report.comparison import SHORT, explanation, summary

    heads, rows = summary(facts)
    titles = [_lines(SHORT.get(head, head)) for head in heads]
    cells = list(zip(*rows, strict=True))
    sizes = [max(map(cell_len, (*title, *column))) for title, column in zip(titles, cells, strict=True)]
    bands: list[list[int]] = [[]]
    for column in range(1, len(heads)):
        taken = sizes[0] + sum(sizes[i] + 2 for i in bands[-1])
        if bands[-1] and taken + sizes[column] + 2 > width:
            bands.append([])
        bands[-1].append(column)
    lines: list[str] = []
    for band in bands:
        lines += [""] if lines else []
        height = max(len(titles[i]) for i in (0, *band))
        for level in range(-height, 0):
            head = [title[level] if len(title) >= -level else "" for title in titles]
            lines.append(_line(head, sizes, band))
        lines += [_line(row, sizes, band) for row in rows]
    return [*lines, "", *textwrap.wrap(explanation(facts), min(width, WIDTH))]


def _line(row: list[str], sizes: list[int], band: list[int]) -> str:
    name = row[0] + " " * (sizes[0] - cell_len(row[0]))
    return "  ".join([name, *[row[i] + " " * (sizes[i] - cell_len(row[i])) for i in band]]).rstrip()


def _lines(head: str) -> list[str]:
    """A head in lines that are hardly wider than the figures below it."""
    return [line for part in head.split(", ") for line in textwrap.wrap(part, 22)]


def cell_len(text: str) -> int:
    """Returns the columns that a text takes in a terminal, where Chinese characters take two."""
    from rich.cells import cell_len

    return cell_len(text)
