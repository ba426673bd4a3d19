"""`gristmill embed`: a vector for each text."""

import json
from pathlib import Path

import click


@click.command("embed")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls", "last"]),
    default="mean",
    show_default=True,
    help="Of all positions, of [CLS], or of the last token.",
)
@click.option("--normalise", is_flag=True, help="Make every vector of length 1.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a .npy array instead of JSON lines.")
def command(run: Path, texts: tuple[str, ...], pooling: str, normalise: bool, out: Path | None) -> None:
    """Print a vector for each text as a line of JSON. Without TEXTS each line of stdin is one.

    \b
      gristmill embed runs/encoder "a sentence" "another" --normalise
      gristmill embed runs/encoder --out vectors.npy < sentences.txt

    Next: gristmill export RUN --out DIR --pooling mean, for sentence-transformers.
    """
    import numpy as np

    from gristmill.artifact import disk_errors
    from gristmill.cli._common import read_lines
    from gristmill.evaluate.embed import embed, normalised
    from gristmill.generate import load_run
    from gristmill.objectives.trained import objective_of, visibility_for

    chosen = read_lines(texts, "text")
    loaded = load_run(run)
    vectors = embed(
        loaded.model,
        loaded.tokenizer.vocabulary(),
        loaded.tokenizer.encode_batch(chosen),
        pooling=pooling,  # type: ignore[arg-type]
        visibility=visibility_for(objective_of(loaded.artifact.manifest.config), loaded.config),
    )
    vectors = normalised(vectors) if normalise else vectors
    if out is None:
        for text, vector in zip(chosen, vectors, strict=True):
            line = {"text": text, "vector": [round(float(x), 7) for x in vector]}
            click.echo(json.dumps(line, ensure_ascii=False))
        return
    with disk_errors(out), out.open("wb") as file:
        np.save(file, vectors)
    click.echo(f"wrote {out}: {vectors.shape[0]:,} vectors of {vectors.shape[1]:,} numbers")
