"""`gristmill run`: every stage of a recipe."""

from pathlib import Path

import click

from gristmill.cli._common import open_recipe, print_json, recipe_options

__all__ = ["command"]


@click.command()
@recipe_options
def command(recipe: Path, out: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Do every stage of RECIPE: corpus, tokenizer, shards, model, evaluation, report.

    \b
      gristmill run recipes/demo.toml
      gristmill run mine.toml --set pretrain.budget="30 min" --out runs/longer

    Stages whose inputs are unchanged are not run again; training that was interrupted goes on where it stopped, to
    the same bytes. Paths in a recipe are relative to the folder you are in.

    Next: gristmill generate runs/NAME "…"
    """
    import json

    from gristmill.artifact import open_artifact
    from gristmill.cli._listener import Console
    from gristmill.pipeline import run

    resolved, directory, words = open_recipe("run", recipe, out, overrides)
    with Console() as console:
        run(resolved, directory, console, command=words)
    evaluation = open_artifact(directory / "evaluation", verify=False).manifest.metrics
    samples = [
        json.loads(line)
        for line in (directory / "evaluation" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    report = next((directory / "report").glob("*.html"))
    if as_json:
        print_json(
            {"run": str(directory), "report": str(report), "evaluation": evaluation, "samples": samples}
        )
        return
    for sample in samples:
        click.echo()
        if "gaps" in sample:
            for piece, gap in zip(sample["pieces"], [*sample["gaps"], None], strict=True):
                click.echo(piece, nl=False)
                if gap is not None:
                    click.secho(gap["guesses"][0][0], bold=True, nl=False)
            click.echo()
            continue
        click.secho(sample["prompt"], bold=True, nl=False)
        click.echo(sample["continuation"])
    click.echo(f"\nreport: {report}")
    if samples and "gaps" in samples[0]:
        from gristmill.generate.infilling import GAP

        text = GAP.join(samples[0]["pieces"]).strip().replace('"', "'")
        click.echo(f'next:   gristmill fill {directory} "{text}"')
        return
    example = samples[0]["prompt"].strip().replace('"', "'") if samples else "Once upon a time"
    click.echo(f'next:   gristmill generate {directory} "{example}"')
