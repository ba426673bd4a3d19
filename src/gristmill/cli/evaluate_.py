"""`gristmill evaluate`: how well a model predicts texts."""

from pathlib import Path
from typing import Any

import click

from gristmill.cli._common import console, json_option, print_json, set_option

__all__ = ["command"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1)
@click.option(
    "--row-tokens",
    type=click.IntRange(min=8),
    help="How far the model looks back; by default as in training (2,048 at most for an imported model).",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap behind the intervals.")
@set_option
@json_option
def command(
    run: Path,
    sources: tuple[str, ...],
    row_tokens: int | None,
    seed: int,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure bits per byte of the model of RUN on SOURCES: files, folders or globs, read as a corpus is.

    \b
      gristmill evaluate runs/demo notes.txt
      gristmill evaluate runs/demo "held-out/*.jsonl.zst" --set text_column=body --json

    Bits per byte compare models with different tokenizers; the lower the better. A model that was not trained
    causally is measured by its own objective. Intervals (95 %) say how the figure
    would move with other documents of the same kind. Without SOURCES, the validation part of the run is measured.
    Keys of --set are those of a recipe's [corpus] table.

    Next: gristmill report RUN
    """
    from gristmill.errors import InputError
    from gristmill.evaluate.likelihood import figures, score_texts
    from gristmill.evaluate.scoring import name_of
    from gristmill.generate import load_run
    from gristmill.objectives.trained import objective_of
    from gristmill.train.settings import default_objective

    loaded = load_run(run)
    documents = _documents(run, sources, overrides)
    most = loaded.config.maximum_positions
    if row_tokens is not None and row_tokens > most and loaded.config.positions == "learned":
        raise InputError(
            f"--row-tokens is {row_tokens}, but the model has {most} positions", f"give {most} or less"
        )
    trained_on = loaded.artifact.manifest.config.get("pretrain", {}).get("row_tokens")
    row_tokens = row_tokens or trained_on or min(most, 2048)
    objective = objective_of(loaded.artifact.manifest.config) or default_objective(loaded.config.kind)
    scores = score_texts(
        loaded.model, loaded.tokenizer, documents, row_tokens=row_tokens, objective=objective
    )
    result = figures(
        scores, seed=seed, languages=[d.language for d in documents], sources=[d.source for d in documents]
    )
    result["row_tokens"] = row_tokens
    result["objective"] = name_of(objective)
    if as_json:
        print_json(result)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in (
        "",
        "documents",
        "tokens",
        "bytes",
        "nats/token",
        "perplexity",
        "bits/byte",
        "95 % interval",
    ):
        table.add_column(name, justify="left" if not name else "right")
    _add(table, "all", result["overall"])
    for group in ("by_language", "by_source"):
        for label, figure in result[group].items():
            if len(result[group]) > 1:
                _add(table, label, figure)
    console().print(table)
    if not objective.whole:
        click.echo(
            f'what is predicted is what objective "{result["objective"]}" hides: compare with runs of it alone'
        )


def _documents(run: Path, sources: tuple[str, ...], overrides: tuple[str, ...]) -> Any:
    import tempfile

    from gristmill.config import from_dict, override
    from gristmill.corpus import Corpus, CorpusConfig, build
    from gristmill.errors import InputError
    from gristmill.evaluate.likelihood import Scored

    if not sources:
        if not (run / "corpus").is_dir():
            raise InputError(f"{run} has no corpus of its own", "name the files to measure")
        found = list(Corpus(run / "corpus").documents("valid"))
    else:
        table = {"sources": list(sources), "valid_fraction": 0.0}
        config = from_dict(CorpusConfig, override(table, overrides), "corpus")
        with tempfile.TemporaryDirectory() as folder:
            found = list(Corpus(build(config, Path(folder) / "corpus")).documents("train"))
    return [Scored(text=d.text, source=d.source, language=d.language) for d in found]


def _add(table: Any, label: str, f: dict[str, Any]) -> None:
    interval = f["bits_per_byte_interval"]
    table.add_row(
        label,
        f"{f['documents']:,}",
        f"{f['tokens']:,}",
        f"{f['text_bytes']:,}",
        f"{f['nats_per_token']:.4f}",
        f"{f['perplexity']:.2f}",
        f"{f['bits_per_byte']:.4f}",
        f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "one document",
    )
