"""What verbs share: results on stdout, progress on stderr, `--json` and `--set`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gristmill.pipeline import Recipe

__all__ = [
    "console",
    "jobs_option",
    "json_option",
    "next_for",
    "open_recipe",
    "open_table",
    "print_json",
    "read_lines",
    "recipe_options",
    "set_option",
]

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Adds `--json`: print the result as JSON on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def set_option(function: F) -> F:
    """Adds `--set a.b=1`, any number of times."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="A.B=VALUE",
        help="Override one value of the recipe; repeatable.",
    )(function)


def recipe_options(function: F) -> F:
    """Adds the argument RECIPE, `--out`, `--set` and `--json`: what every verb on a recipe takes."""
    out = click.option(
        "--out", type=click.Path(path_type=Path), help="Directory of the run; by default runs/NAME."
    )
    return click.argument("recipe", type=click.Path(path_type=Path))(out(set_option(json_option(function))))


def next_for(directory: Path, checkpoint: Path) -> str:
    """Returns the command to try next with the model of a directory, whose checkpoint is given: what its kind can."""
    from gristmill.artifact import open_artifact
    from gristmill.evaluate.scoring import can_fill
    from gristmill.model.checkpoint import load_config
    from gristmill.objectives.trained import objective_of

    config = load_config(checkpoint)
    if config.kind == "decoder":
        return f'gristmill generate {directory} "Once upon a time"'
    if can_fill(objective_of(open_artifact(checkpoint, verify=False).manifest.config), config):
        return f'gristmill fill {directory} "Once upon a ___"'
    return f'gristmill embed {directory} "Once upon a time"'


def open_recipe(
    verb: str, recipe: Path, out: Path | None, overrides: tuple[str, ...]
) -> "tuple[Recipe, Path, list[str]]":
    """Returns the recipe with its overrides, the run's directory, and the command that gives them again."""
    from gristmill.config import from_dict, override, read_toml
    from gristmill.errors import InputError
    from gristmill.pipeline import Recipe

    table = override(read_toml(recipe), overrides)
    if "compare" in table:
        raise InputError(
            f"{recipe} compares several models, and `gristmill {verb}` is for one",
            f"gristmill compare {recipe}, or a recipe without the [compare] table",
        )
    resolved = from_dict(Recipe, table)
    words = ["gristmill", verb, recipe.as_posix(), *(f"--set={item}" for item in overrides)]
    if out is not None:
        words += ["--out", out.as_posix()]
    return resolved, out or Path("runs") / resolved.name, words


def jobs_option(what: str) -> Callable[[F], F]:
    """Adds `--jobs`: how many of `what` at a time."""
    text = f"{what} at a time; by default one for each GPU, or for each core as far as there is memory."
    return click.option("--jobs", type=click.IntRange(min=1), help=text)


def open_table(
    recipe: Path, out: Path | None, overrides: tuple[str, ...], suffix: str = ""
) -> tuple[dict[str, Any], Path]:
    """Returns the tables of a recipe that has more of them than a run takes, and the directory: runs/NAME and the suffix.

    Raises:
        InputError: the recipe has no name, or one that is no text.
    """
    from gristmill.config import override, read_toml
    from gristmill.errors import InputError

    table = override(read_toml(recipe), overrides)
    name = table.get("name")
    if not isinstance(name, str):
        found = '"name" is missing' if name is None else f'"name" is {name!r}, but it is a text'
        raise InputError(found, 'write name = "mine" at the top of the recipe')
    return table, out or Path("runs") / f"{name}{suffix}"


def read_lines(given: tuple[str, ...], what: str) -> list[str]:
    """Returns what was given, or each line of stdin that is not blank; `what` is how errors name one.

    Raises:
        InputError: nothing was given, or stdin is not UTF-8.
    """
    from gristmill.errors import InputError

    if given and given != ("-",):
        return list(given)
    if not given and sys.stdin.isatty():
        raise InputError(
            f"there is no {what}", f"write one behind the run, in quotes, or give a {what} a line on stdin"
        )
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"stdin is not UTF-8: {error}", "convert it first: iconv -f gb18030 -t utf-8"
        ) from None
    # split at line ends only: str.splitlines also cuts at characters that belong to texts
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not lines:
        raise InputError(f"stdin has no line with a {what}", f"write one {what} on each line")
    return lines


def print_json(value: Any) -> None:
    """Prints a value as JSON on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def console(*, stderr: bool = False) -> Any:
    """Returns a rich console; stderr is for progress, stdout for results."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)
