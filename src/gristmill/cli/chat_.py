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
    from collections.abc import Callable, Iterator

    from gristmill.adapt.templates import Form, Turn
    from gristmill.generate import Piece, SamplingSettings

CONTINUING = """\
  type a beginning and the model goes on; it is a base model: it continues, it does not answer
  an empty line goes on from where the last text ended
  /set temperature 0.7   changes a setting; /set shows them all
  /quit                  ends; so does Ctrl-D. Ctrl-C stops a text that is being written"""
TALKING = """\
  say something and the model answers; it remembers what was said before
  /new                   begins another conversation
  /set temperature 0.7   changes a setting; /set shows them all
  /quit                  ends; so does Ctrl-D. Ctrl-C stops an answer that is being written"""


@click.command("chat")
@click.argument("run", type=click.Path(path_type=Path))
@sampling_options
@device_options
def command(run: Path, dtype: str, device: str, **sampling: Any) -> None:
    """A prompt loop: the model of RUN answers, or, where it has learned no conversations, goes on from a beginning.

    \b
      gristmill chat runs/assistant
      gristmill chat runs/demo --temperature 0.6 --max-new-tokens 80

    Next: `gristmill export runs/demo --out DIR` to use the model elsewhere.
    """
    settings = sampling_settings(**sampling)
    from gristmill.adapt.templates import stored_form
    from gristmill.generate import prepare

    loaded = load(run, dtype, device)
    decoder, form = prepare(loaded.model), stored_form(loaded.tokenizer)
    partner = (
        _Continuing(decoder, loaded.tokenizer) if form is None else _Talking(decoder, loaded.tokenizer, form)
    )
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - line editing and history for input()
    click.echo("/help shows what can be done here", err=True)
    turn = 0
    while True:
        try:
            line = input("> ")
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        try:
            if not line.startswith("/"):
                # another seed each turn, so that asking again gives something else; the first is the one that was set
                partner.say(line, dataclasses.replace(settings, seed=settings.seed + turn))
                turn += 1
            elif (changed := _command(line, settings, partner)) is None:
                return
            else:
                settings = changed
        except InputError as error:
            click.echo(f"{error.message}\n{error.hint or ''}".rstrip(), err=True)


class _Continuing:
    """A text that goes on."""

    help = CONTINUING

    def __init__(self, decoder: Any, tokenizer: Any) -> None:
        self._decoder, self._tokenizer = decoder, tokenizer
        self._text = ""

    def forget(self) -> None:
        """Begins again."""
        self._text = ""

    def say(self, line: str, settings: "SamplingSettings") -> None:
        """Writes a beginning, or the last text where there is none, and how the model goes on."""
        from gristmill.generate import stream

        self._text = line or self._text
        click.echo(self._text, nl=False)
        self._text += _shown(
            self._decoder, lambda: stream(self._decoder, self._tokenizer, [self._text], settings)
        )


class _Talking:
    """A conversation, written as the model has learned them."""

    help = TALKING

    def __init__(self, decoder: Any, tokenizer: Any, form: "Form") -> None:
        self._decoder, self._tokenizer, self._form = decoder, tokenizer, form
        self._turns: list[Turn] = []

    def forget(self) -> None:
        """Begins another conversation."""
        self._turns = []

    def say(self, line: str, settings: "SamplingSettings") -> None:
        """Writes the model's answer; what no longer fits is forgotten, round by round from the first."""
        from gristmill.adapt.conversations import fitted
        from gristmill.adapt.templates import Turn
        from gristmill.generate import stream_tokens

        if not line.strip():
            return
        turns = (*self._turns, Turn("user", line.strip()))
        window = self._decoder.window
        if window is not None:
            kept = fitted(
                turns, self._form, self._tokenizer, window - min(settings.max_new_tokens, window // 2)
            )
            if kept is None:
                raise InputError(
                    f"the model sees {window:,} tokens, too few to answer", "lower max_new_tokens with /set"
                )
            if kept != turns:
                click.echo(f"note: the model sees {window:,} tokens; not all that was said fits", err=True)
            turns = kept
        prompt, form = self._form.tokens(turns), self._form
        settings = dataclasses.replace(settings, stop=(*settings.stop, *form.stop))
        said = _shown(
            self._decoder,
            lambda: stream_tokens(self._decoder, self._tokenizer, [prompt], settings, ends=form.ends),
        ).strip()
        if said:
            self._turns = [*turns, Turn("assistant", said)]


def _shown(decoder: Any, pieces: "Callable[[], Iterator[Piece]]") -> str:
    """Writes a text as it comes, and returns it; Ctrl-C ends it early."""
    written, dropped = "", 0
    with contextlib.suppress(KeyboardInterrupt):
        for piece in pieces():
            click.echo(piece.text, nl=False)
            written += piece.text
            dropped = piece.completion.dropped_tokens if piece.completion else 0
    click.echo()
    note_dropped(dropped, decoder.model.config.maximum_positions)
    return written


def _command(
    line: str, settings: "SamplingSettings", partner: _Continuing | _Talking
) -> "SamplingSettings | None":
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
        click.echo(partner.help, err=True)
    elif word == "/new" and not rest:
        partner.forget()
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
        raise InputError(f'"{line}" is no command', did_you_mean(word, ["/help", "/new", "/set", "/quit"]))
    return settings
