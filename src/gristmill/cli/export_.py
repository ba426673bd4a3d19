"""`gristmill export`."""

import json
from pathlib import Path

import click

from gristmill.cli._common import json_option, print_json


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The directory to write.")
@click.option("--force", is_flag=True, help="Replace what is in the directory.")
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls"]),
    help="Of an encoder: also write what sentence-transformers reads, with this pooling.",
)
@click.option("--adapter", is_flag=True, help="Of a model adapted with LoRA: only its updates, for peft.")
@json_option
def command(run: Path, out: Path, force: bool, pooling: str | None, adapter: bool, as_json: bool) -> None:
    """Write the model of RUN so that stock transformers loads it, logits and tokens compared before it counts.

    A task model that `gristmill adapt` wrote goes into the class of its task, embeddings into sentence-transformers.

    \b
      gristmill export runs/demo --out exported
      gristmill export runs/encoder --out exported --pooling mean
      gristmill export runs/intents --out exported --force --json
      gristmill export runs/intents --out exported --adapter

    Next: load it with the class that is printed, or `gristmill import exported --out DIR`.
    """
    from gristmill.adapt.exporting import export_task, export_updates, is_adapted
    from gristmill.errors import InputError
    from gristmill.generate import load_run
    from gristmill.generate.portable import export_run, refuse_to_overwrite

    refuse_to_overwrite(out, force)
    if not is_adapted(run):
        if adapter:
            raise InputError(f"{run} is no adapted model", "leave --adapter out to export the whole model")
        result = export_run(load_run(run), out, pooling=pooling, force=force)  # type: ignore[arg-type]
    elif pooling is not None:
        raise InputError(
            f"{run} is adapted to a task, and its pooling is decided",
            "leave --pooling out: embeddings bring theirs",
        )
    else:
        result = (export_updates if adapter else export_task)(run, out, force=force)
    if as_json:
        print_json(result)
        return
    click.echo(f"wrote {out}: {', '.join(result['files'])}")
    click.echo(f"logits differ from the stock class by at most {result['largest_logit_difference']:.1e}")
    if adapter:
        click.echo(
            f'next: peft.PeftModel.from_pretrained(BASE, "{out}"), with BASE a transformers.{result["class"]}'
        )
        return
    if (out / "modules.json").is_file():
        click.echo(f'next: sentence_transformers.SentenceTransformer("{out}")')
        return
    architecture = json.loads((out / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    click.echo(f'next: transformers.{architecture}.from_pretrained("{out}")')
