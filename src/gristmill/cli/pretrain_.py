"""`gristmill pretrain`: the training stage of a recipe, and what it needs."""

from pathlib import Path

import click

from gristmill.cli._common import next_for, open_recipe, print_json, recipe_options

__all__ = ["command"]


@click.command()
@recipe_options
def command(recipe: Path, out: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train the model of RECIPE, after the stages that it needs; resumes where it was interrupted.

    \b
      gristmill pretrain recipes/demo.toml
      gristmill pretrain mine.toml --set pretrain.optimizer=adamw --set pretrain.budget="5 epochs"

    Next: gristmill run RECIPE, which adds evaluation and report
    """
    from gristmill.artifact import open_artifact
    from gristmill.cli._listener import Console
    from gristmill.pipeline import run

    resolved, directory, words = open_recipe("pretrain", recipe, out, overrides)
    with Console() as console:
        run(resolved, directory, console, command=words, until="model")
    metrics = open_artifact(directory / "model", verify=False).manifest.metrics
    if as_json:
        print_json({"run": str(directory), **metrics})
        return
    validation = metrics["validation"]
    click.echo(
        f"validation: {validation['nats_per_token']:.4f} nats per token, {validation['bits_per_byte']:.4f} bits per byte"
    )
    click.echo(f"next: {next_for(directory, directory / 'model')}")
