"""`gristmill chat`."""

import contextlib
import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gristmill.cli.generate_ import device_options, load, note_dropped, sampling_options, sampling_settings
from gristmill.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from gristmill.generate import SamplingSettings

HELP = """\
  type a beginning and the model goes on; it is a base model: it continues, it does not answer
  an empty line goes on from where the last text ended
  /set temperature 0.7   changes a setting; /set shows them all
  /quit                  ends; so does Ctrl-D. Ctrl-C stops a text that is being written"""


@click.command("chat")
@click.argument("run", type=click.Path(path_type=Path))
@sampling_options
@device_options
def command(run: Path, dtype: str, device: str, **sampling: Any) -> None:
    """A prompt loop: type a beginning, the model of RUN goes on.

    \b
      gristmill chat runs/demo
      gristmill chat runs/demo --temperature 0.6 --max-new-tokens 80

    Next: `gristmill export runs/demo --out DIR` to use the model elsewhere.
    """
    settings = sampling_settings(**sampling)
    from gristmill.generate import prepare

    loaded = load(run, dtype, device)
    decoder = prepare(loaded.model)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - line editing and history for input()
    click.echo("/help shows what can be done here", err=True)
    text, turn = "", 0
    while True:
        try:
            line = input("> ")
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        if line.startswith("/"):
            try:
                if (changed := _command(line, settings)) is None:
                    return
                settings = changed
            except InputError as error:
                click.echo(f"{error.message}\n{error.hint or ''}".rstrip(), err=True)
            continue
        text = line or text
        # another seed each turn, so that asking again gives something else; the first is the one that was set
        turn_settings = dataclasses.replace(settings, seed=settings.seed + turn)
        text += _answer(decoder, loaded.tokenizer, text, turn_settings)
        turn += 1


def _answer(decoder: Any, tokenizer: Any, text: str, settings: "SamplingSettings") -> str:
    """Writes the continuation as it comes; Ctrl-C ends it early."""
    from gristmill.generate import stream

    written, dropped = "", 0
    click.echo(text, nl=False)
    with contextlib.suppress(KeyboardInterrupt):
        for piece in stream(decoder, tokenizer, [text], settings):
            click.echo(piece.text, nl=False)
            written += piece.text
            dropped = piece.completion.dropped_tokens if piece.completion else 0
    click.echo()
    note_dropped(dropped, decoder.model.config.maximum_positions)
    return written


def _command(line: str, settings: "SamplingSettings") -> "SamplingSettings | None":
    """Returns the settings after a command, or None when the loop is over."""
    from gristmill.config import from_dict, override, to_dict
    from gristmill.generate import SamplingSettings

    try:
        word, *rest = shlex.split(line)
    except ValueError as error:
        raise InputError(f"the line can not be read: {error}", "close the quotes") from None
    if word in ("/quit", "/exit"):
        return None
    if word == "/help":
        click.echo(HELP, err=True)
    elif word == "/set" and len(rest) == 2:
        name, value = rest[0].replace("-", "_"), rest[1]
        table = {key: inner for key, inner in to_dict(settings).items() if inner is not None}
        table = override(table, [f"{name}={value}"])
        if name == "stop":
            table["stop"] = [value]
        if value == "none":
            del table[name]
        return from_dict(SamplingSettings, table)
    elif word == "/set" and not rest:
        for name, value in to_dict(settings).items():
            click.echo(f"  {name} = {'none' if value is None else value}", err=True)
    else:
        raise InputError(f'"{line}" is no command', did_you_mean(word, ["/help", "/set", "/quit"]))
    return settings
