"""`gristmill export`."""

from pathlib import Path

import click

from gristmill.cli._common import json_option, print_json


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The directory to write.")
@click.option("--force", is_flag=True, help="Replace what is in the directory.")
@json_option
def command(run: Path, out: Path, force: bool, as_json: bool) -> None:
    """Write the model of RUN so that stock transformers loads it, logits and tokens compared before it counts.

    \b
      gristmill export runs/demo --out exported
      gristmill export runs/demo --out exported --force --json

    Next: `AutoModelForCausalLM.from_pretrained("exported")` in Python, or `gristmill import exported --out DIR`.
    """
    from gristmill.generate import load_run
    from gristmill.generate.portable import export_run, refuse_to_overwrite

    refuse_to_overwrite(out, force)
    result = export_run(load_run(run), out, force=force)
    if as_json:
        print_json(result)
        return
    click.echo(f"wrote {out}: {', '.join(result['files'])}")
    click.echo(f"logits differ from the stock class by at most {result['largest_logit_difference']:.1e}")
    click.echo(f'next: transformers.AutoModelForCausalLM.from_pretrained("{out}")')
