"""`gristmill embed`: a vector for each text."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float


@click.command("embed")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls", "last"]),
    help="Of all positions (the default), of [CLS], or of the last token.",
)
@click.option("--normalise", is_flag=True, help="Make every vector of length 1.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a .npy array instead of JSON lines.")
def command(
    run: Path, texts: tuple[str, ...], pooling: str | None, normalise: bool, out: Path | None
) -> None:
    """Print a vector for each text as a line of JSON. Without TEXTS each line of stdin is one.

    \b
      gristmill embed runs/encoder "a sentence" "another" --normalise
      gristmill embed runs/encoder --out vectors.npy < sentences.txt

    Embeddings that `gristmill adapt` made have their own pooling, and vectors of length 1.

    Next: gristmill export RUN --out DIR --pooling mean, for sentence-transformers.
    """
    import numpy as np

    from gristmill.adapt.exporting import is_adapted
    from gristmill.artifact import disk_errors
    from gristmill.cli._common import read_lines

    chosen = read_lines(texts, "text")
    read = _adapted if is_adapted(run) else _pretrained
    vectors = read(run, chosen, pooling, normalise)
    if out is None:
        for text, vector in zip(chosen, vectors, strict=True):
            line = {"text": text, "vector": [round(float(x), 7) for x in vector]}
            click.echo(json.dumps(line, ensure_ascii=False))
        return
    with disk_errors(out), out.open("wb") as file:
        np.save(file, vectors)
    click.echo(f"wrote {out}: {vectors.shape[0]:,} vectors of {vectors.shape[1]:,} numbers")


def _pretrained(
    run: Path, texts: list[str], pooling: str | None, normalise: bool
) -> "Float[np.ndarray, 'N D']":
    from gristmill.evaluate.embed import embed, normalised
    from gristmill.generate import load_run
    from gristmill.objectives.trained import objective_of, visibility_for

    loaded = load_run(run)
    vectors = embed(
        loaded.model,
        loaded.tokenizer.vocabulary(),
        loaded.tokenizer.encode_batch(texts),
        pooling=pooling or "mean",  # type: ignore[arg-type]
        visibility=visibility_for(objective_of(loaded.artifact.manifest.config), loaded.config),
    )
    return normalised(vectors) if normalise else vectors


def _adapted(run: Path, texts: list[str], pooling: str | None, normalise: bool) -> "Float[np.ndarray, 'N D']":
    import numpy as np

    from gristmill.adapt.predicting import Predictor
    from gristmill.errors import InputError

    if pooling is not None:
        raise InputError(f"{run} is adapted, and its pooling is decided", "leave --pooling out")
    answers = list(Predictor(run).texts(texts))
    if not all("embedding" in answer for answer in answers):
        raise InputError(
            f"{run} is adapted to another task than embeddings", "ask it with `gristmill predict`"
        )
    return np.array([answer["embedding"] for answer in answers], dtype=np.float32)
