"""`gristmill import`."""

import dataclasses
from pathlib import Path

import click

from gristmill.cli._common import json_option, next_for, print_json


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The checkpoint directory to write."
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A directory with tokenizer.json, or a llama2.c tokenizer; by default SOURCE has it.",
)
@click.option("--force", is_flag=True, help="Move what is at --out aside, to replaced/.")
@json_option
def command(source: Path, out: Path, tokenizer: Path | None, force: bool, as_json: bool) -> None:
    """Read a model that others trained: a directory of transformers (safetensors), or a llama2.c file.

    \b
      gristmill import ./Qwen3-0.6B --out runs/qwen
      gristmill import stories260K.bin --tokenizer tok512.bin --out runs/stories

    Next: `gristmill generate runs/stories "Once upon a time"`.
    """
    from gristmill.generate.portable import import_model

    artifact = import_model(source, out, tokenizer=tokenizer, force=force)
    if as_json:
        print_json({"path": str(out), **dataclasses.asdict(artifact.manifest)})
        return
    model = artifact.manifest.config["model"]
    click.echo(
        f"wrote {out}: {model['family']}, {model['layers']} layers, {artifact.manifest.metrics['parameters']:,} parameters"
    )
    click.echo(f"next: {next_for(out, out)}")
