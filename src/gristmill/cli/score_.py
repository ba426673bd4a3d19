"""`gristmill score`: how likely a model finds texts."""

import json
from pathlib import Path

import click


@click.command("score")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@click.option("--how", help="The way to score, where a model has several; by default the one that suits it.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each text.")
def command(run: Path, texts: tuple[str, ...], how: str | None, as_json: bool) -> None:
    """Print the log-likelihood, in nats, that the model of RUN gives each text. Without TEXTS each line of stdin is one.

    \b
      gristmill score runs/demo "The cats are asleep." "The cats is asleep."
      gristmill score runs/encoder --how pseudo --json < sentences.txt

    Decoders: the sum over tokens, each from those before it. Encoders, hybrids and encoder-decoders: the
    pseudo-log-likelihood, each token from all others, those after it in its own word hidden too
    (Kauf and Ivanova 2023). The two can't be compared with each other; sentences under one model can.

    Next: gristmill fill RUN "…" shows what else could stand in a place.
    """
    from gristmill.cli._common import read_lines
    from gristmill.errors import InputError, did_you_mean
    from gristmill.evaluate.scoring import scorings_for, sentence_scores
    from gristmill.generate import load_run
    from gristmill.objectives.trained import objective_of

    chosen = read_lines(texts, "text")
    loaded = load_run(run)
    vocabulary = loaded.tokenizer.vocabulary()
    ways = scorings_for(objective_of(loaded.artifact.manifest.config), loaded.config, vocabulary)
    name = how or next(iter(ways))
    if name not in ways:
        raise InputError(f'this model is not scored by "{name}"', did_you_mean(name, list(ways)))
    encoded = loaded.tokenizer.encode_batch(chosen)
    scores = sentence_scores(loaded.model, vocabulary, encoded, how=ways[name])
    for text, ids, score in zip(chosen, encoded, scores.tolist(), strict=True):
        if as_json:
            line = {"text": text, "nats": score, "tokens": len(ids), "how": name}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            click.echo(f"{score:10.3f}  {text}")
    if not as_json:
        click.echo(f"({name}; nats, higher is likelier)", err=True)
