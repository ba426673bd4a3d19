"""`gristmill explain`: every number that follows from a recipe, before anything runs."""

from pathlib import Path
from typing import Any

import click

from gristmill.cli._common import console, open_recipe, print_json, recipe_options

__all__ = ["command"]


@click.command()
@recipe_options
def command(recipe: Path, out: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what RECIPE comes to: sizes, parameters, tokens, FLOPs, memory, time. Nothing is run or written.

    \b
      gristmill explain recipes/demo.toml
      gristmill explain mine.toml --set model.depth=12 --json

    Next: gristmill run RECIPE
    """
    from gristmill.pipeline import explain

    resolved, directory, _ = open_recipe("explain", recipe, out, overrides)
    facts = explain(resolved, directory)
    if as_json:
        print_json(facts)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in _rows(facts):
        table.add_row(name, value)
    console().print(table)
    click.echo(f"\nnext: gristmill run {recipe}")


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    model, batch, predicted, peak = facts["model"], facts["batch"], facts["predicted"], facts["peak_flops"]
    counts = model["parameters"]
    kinds = {k.replace("_", " "): v for k, v in counts.items() if v and k != "total"}
    settings = facts["recipe"]["pretrain"]
    unknown = "known once the text is tokenized"

    def number(value: float | int | None, unit: str = "") -> str:
        return unknown if value is None else f"{value:,.0f}{unit}"

    return [
        ("stages", ", ".join(f"{name}: {state}" for name, state in facts["stages"].items())),
        ("family", f"{model['family']} ({model['kind']})"),
        ("size", f"{model['layers']} layers, {model['width']} wide, {model['heads']} heads of {model['head_size']} "
                 f"({model['kv_heads']} for keys and values), feed-forward {model['feed_forward']:,}"),
        ("vocabulary", f"{model['vocab_size']:,}" + ("" if facts["train_tokens"] else " (assumed until it is trained)")),
        ("parameters", f"{counts['total']:,}: " + ", ".join(f"{name} {n:,}" for name, n in kinds.items())),
        ("objective", settings["objective"]["name"]),
        ("optimizer", ", ".join(f"{k} {v}" for k, v in settings["optimizer"].items() if v is not None)),
        ("step", f"{batch['tokens']:,} tokens: {batch['rows']} rows of {settings['row_tokens']}, {batch['micro_batch_rows']} at a time"),
        ("budget", settings["budget"]),
        ("training text", number(facts["train_tokens"], " tokens")),
        ("will see", number(predicted["tokens"], " tokens") + ("" if predicted["epochs"] is None else f", {predicted['epochs']} epochs")),
        ("steps", number(predicted["steps"])),
        ("FLOPs per token", f"{facts['flops_per_token']:,}"),
        ("FLOPs", unknown if predicted["flops"] is None else f"{predicted['flops']:.3g}"),
        ("peak, measured", f"{peak['float32'] / 1e9:,.0f} GFLOP/s in float32, {peak['bfloat16'] / 1e9:,.0f} in bfloat16"),
        ("memory", f"about {facts['memory_bytes'] / 1e6:,.0f} MB besides Python and torch"),
        ("speed", f"about {predicted['tokens_per_second']:,} tokens/s, at {100 * predicted['utilisation']:.0f} % of the peak"),
        ("time", number(predicted["seconds"], " s of training")),
    ]  # fmt: skip
