"""The group of verbs, and the one place where errors become messages and exit statuses."""

import importlib
import os
import sys

import click

from gristmill import __version__
from gristmill.errors import GristmillError, did_you_mean

VERBS = {
    "run": "do every stage of a recipe, from text to report",
    "explain": "show every derived number of a recipe, before anything runs",
    "plan": "predict loss and time of a recipe, and of other sizes, by a few small runs",
    "corpus": "build a cleaned corpus from files, and look at it",
    "tokenizer": "train a tokenizer, and see how it splits text",
    "pretrain": "train a model as a recipe says, resuming where it stopped",
    "adapt": "fine-tune a model for a task on labelled examples",
    "predict": "answer rows with a task model",
    "generate": "continue a text with a trained model",
    "chat": "a prompt loop: type a beginning, the model goes on",
    "fill": "show what a model would put in the gaps of a text",
    "score": "print how likely a model finds texts",
    "embed": "turn texts into vectors",
    "evaluate": "measure bits per byte on any files",
    "compare": "train candidates that differ, over several seeds, and say what differs",
    "report": "write the report of a run as one HTML page and JSON",
    "export": "write a model in the format of transformers",
    "import": "read a model in the format of transformers or llama2.c",
    "list": "list objectives, tokenizers, model families, tasks",
    "runs": "list the runs below a folder",
    "lineage": "show what an artifact was made of, back to the text",
    "check": "compare every file of an artifact or a run with its hash",
    "schema": "print the JSON schema of a recipe, for editors",
}


class _Verbs(click.Group):
    """Imports the file of a verb only when the verb is called, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"gristmill.cli.{name}_").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f'there is no verb "{args[0]}"\nhint: {did_you_mean(args[0], VERBS)}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `gristmill run recipes/demo.toml`. Every verb has --help with examples.",
)
@click.version_option(__version__, prog_name="gristmill")
def gristmill() -> None:
    """Turn the text you have into a language model, and know what it is worth.

    \b
      gristmill run recipes/demo.toml
      gristmill generate runs/demo "In the beginning"
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs a verb and exits: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted."""
    # before torch loads OpenMP: threads that wait for each other must not spin, which on a shared machine costs tenfold
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = gristmill.main(args=arguments, prog_name="gristmill", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", "run the same command again to go on where it stopped", 130)
    except click.ClickException as error:
        message, _, hint = error.format_message().partition("\nhint: ")
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "gristmill"
        _fail(message, hint or f"see `{path} --help`", 2)
    except GristmillError as error:
        _fail(error.message, error.hint, error.exit_status)
    except KeyboardInterrupt:
        _fail("interrupted", "run the same command again to go on where it stopped", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, hint: str | None, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the edge is where printing belongs
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201
    sys.exit(status)
