"""`gristmill fill`: what a model would put in the gaps of a text."""

from pathlib import Path

import click

from gristmill.cli._common import json_option, print_json


@click.command("fill")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("text")
@click.option("--gap", default="___", show_default=True, help="What marks a gap in TEXT.")
@click.option(
    "--top-k", type=click.IntRange(1), default=5, show_default=True, help="Tokens to show for each gap."
)
@json_option
def command(run: Path, text: str, gap: str, top_k: int, as_json: bool) -> None:
    """Show what the model of RUN would put in the gaps of TEXT, with probabilities.

    \b
      gristmill fill runs/encoder "In the ___ God created the heaven and the ___."
      gristmill fill runs/encoder "床前明＿月光" --gap ＿ --top-k 10 --json

    Encoders, hybrid decoders and encoder-decoders can; a causal decoder has not seen what follows. An encoder fills
    each gap with one token; an encoder-decoder also writes what it would put there in full.

    Next: gristmill score RUN "…" compares whole texts.
    """
    from gristmill.evaluate.fill import check_fills, fill, gap_token
    from gristmill.generate import load_run
    from gristmill.generate.infilling import split_at_gaps
    from gristmill.objectives.trained import objective_of

    loaded = load_run(run)
    objective = objective_of(loaded.artifact.manifest.config)
    check_fills(objective, loaded.config)
    vocabulary = loaded.tokenizer.vocabulary()
    pieces, hole = split_at_gaps(text, gap), gap_token(vocabulary)
    tokens = list(loaded.tokenizer.encode(pieces[0]))
    for piece in pieces[1:]:
        tokens += [hole, *loaded.tokenizer.encode(piece)]
    gaps = fill(loaded.model, vocabulary, tokens, objective=objective, top_k=top_k)
    whole = None
    if loaded.config.kind == "encoder-decoder":
        from gristmill.generate.infilling import infill, way_for
        from gristmill.generate.sequences import BeamSettings

        way = way_for(objective, loaded.tokenizer)
        whole = infill(loaded.model, loaded.tokenizer, [text], BeamSettings(), way=way, gap=gap)[0].text
    if as_json:
        print_json(
            {
                "text": text,
                "gaps": [[guess._asdict() for guess in guesses] for guesses in gaps],
                "filled": whole,
            }
        )
        return
    for number, guesses in enumerate(gaps, 1):
        click.secho(f"gap {number}", bold=True)
        for guess in guesses:
            click.echo(f"  {guess.probability:6.1%}  {guess.text!r}")
    if whole is not None:
        click.echo(f"\n{whole}")
