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
@json_option
def command(run: Path, out: Path, force: bool, pooling: str | None, as_json: bool) -> None:
    """Write the model of RUN so that stock transformers loads it, logits and tokens compared before it counts.

    \b
      gristmill export runs/demo --out exported
      gristmill export runs/encoder --out exported --pooling mean
      gristmill export runs/demo --out exported --force --json

    Next: load it with the class that is printed, or `gristmill import exported --out DIR`.
    """
    from gristmill.generate import load_run
    from gristmill.generate.portable import export_run, refuse_to_overwrite

    refuse_to_overwrite(out, force)
    result = export_run(load_run(run), out, pooling=pooling, force=force)  # type: ignore[arg-type]
    if as_json:
        print_json(result)
        return
    click.echo(f"wrote {out}: {', '.join(result['files'])}")
    click.echo(f"logits differ from the stock class by at most {result['largest_logit_difference']:.1e}")
    if pooling is not None:
        click.echo(f'next: sentence_transformers.SentenceTransformer("{out}")')
        return
    architecture = json.loads((out / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    click.echo(f'next: transformers.{architecture}.from_pretrained("{out}")')
