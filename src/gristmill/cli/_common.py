"""What verbs share: results on stdout, progress on stderr, `--json` and `--set`."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["console", "json_option", "print_json", "set_option"]

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


def print_json(value: Any) -> None:
    """Prints a value as JSON on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def console(*, stderr: bool = False) -> Any:
    """Returns a rich console; stderr is for progress, stdout for results."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)
