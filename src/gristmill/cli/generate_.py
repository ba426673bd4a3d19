"""`gristmill generate`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gristmill.cli._common import read_lines
from gristmill.errors import InputError

if TYPE_CHECKING:
    from gristmill.generate import Completion, SamplingSettings


def sampling_options(function: Any) -> Any:
    """Adds the options that say how a text is continued."""
    for option in reversed(
        [
            click.option("--max-new-tokens", type=int, metavar="N", help="The most tokens to add."),
            click.option("--greedy", is_flag=True, help="Always take the likeliest token."),
            click.option("--temperature", type=float, metavar="X", help="Below 1 safer, above 1 wilder."),
            click.option("--top-k", type=int, metavar="K", help="Draw from the K likeliest tokens."),
            click.option(
                "--top-p", type=float, metavar="P", help="Draw from the likeliest tokens that make up P."
            ),
            click.option(
                "--min-p", type=float, metavar="P", help="Draw from tokens at least P times the likeliest."
            ),
            click.option("--repetition-penalty", type=float, metavar="X", help="Above 1, less repetition."),
            click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; repeatable."),
            click.option("--seed", type=int, metavar="N", help="The same seed gives the same text."),
        ]
    ):
        function = option(function)
    return function


def device_options(function: Any) -> Any:
    """Adds where and in what precision the model runs."""
    for option in (
        click.option(
            "--device", default="cpu", show_default=True, help="Where the model runs: cpu, cuda, mps."
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16"]),
            default="float32",
            show_default=True,
            help="How weights are kept; bfloat16 takes half the memory.",
        ),
    ):
        function = option(function)
    return function


@click.command("generate")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1)
@sampling_options
@device_options
@click.option(
    "--batch", "batch_size", type=click.IntRange(1), default=16, show_default=True, help="Prompts at a time."
)
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Show the text as it comes; so it is for one prompt in a terminal.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each prompt.")
def command(
    run: Path,
    prompts: tuple[str, ...],
    batch_size: int,
    stream: bool | None,
    as_json: bool,
    dtype: str,
    device: str,
    **sampling: Any,
) -> None:
    """Continue each prompt with the model of RUN. Without a prompt, or with `-`, each line of stdin is one.

    \b
      gristmill generate runs/demo "In the beginning"
      gristmill generate runs/demo --greedy --max-new-tokens 40 --json < prompts.txt

    Next: `gristmill chat runs/demo` to try one prompt after another.
    """
    settings = sampling_settings(**sampling)
    chosen = read_lines(prompts, "prompt")
    from gristmill.generate import complete, prepare
    from gristmill.generate import stream as stream_text

    loaded = load(run, dtype, device)
    decoder = prepare(loaded.model)
    if stream is None:
        stream = len(chosen) == 1 and not as_json and sys.stdout.isatty()
    if as_json:
        for first in range(0, len(chosen), batch_size):
            group = chosen[first : first + batch_size]
            for completion in complete(decoder, loaded.tokenizer, group, settings, batch_size=batch_size):
                click.echo(json.dumps(dataclasses.asdict(completion), ensure_ascii=False))
        return
    completions: list[Completion] = []
    if stream:
        for prompt in chosen:
            click.echo(prompt, nl=False)
            for piece in stream_text(decoder, loaded.tokenizer, [prompt], settings):
                click.echo(piece.text, nl=False)
                completions += [piece.completion] if piece.completion else []
            click.echo()
    else:
        completions = complete(decoder, loaded.tokenizer, chosen, settings, batch_size=batch_size)
        for number, completion in enumerate(completions):
            click.echo("\n" * (number > 0) + completion.prompt + completion.text)
    note_dropped(
        max(completion.dropped_tokens for completion in completions), loaded.config.maximum_positions
    )


def sampling_settings(*, greedy: bool = False, **given: Any) -> "SamplingSettings":
    """Returns the settings of the options that were given; the others keep their defaults."""
    from gristmill.generate.sampling import SamplingSettings

    if greedy and given.get("temperature"):
        raise InputError("--greedy and --temperature contradict each other", "give one of them")
    given = {name: value for name, value in given.items() if value not in (None, ())}
    return SamplingSettings(**given | ({"temperature": 0.0} if greedy else {}))


def load(run: Path, dtype: str, device: str) -> Any:
    """Returns the model of a run, in a precision and on a device that were named."""
    import torch

    from gristmill.generate import load_run

    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f'the device "{device}" can not be used: {reason}', "leave --device out for the CPU"
        ) from None
    return load_run(run, dtype=getattr(torch, dtype), device=where)


def note_dropped(dropped_tokens: int, window: int) -> None:
    """Says on stderr that the beginning of a text was no longer seen at its end."""
    if dropped_tokens:
        click.echo(
            f"note: the model sees {window:,} tokens; at the end the oldest {dropped_tokens:,} were out of its sight",
            err=True,
        )
