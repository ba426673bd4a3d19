"""`gristmill corpus teach` and `gristmill corpus rewrite`: texts that models of ours write."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gristmill.cli._common import console, json_option, print_json, set_option
from gristmill.cli.generate_ import device_options

if TYPE_CHECKING:
    from gristmill.artifact import Artifact

__all__ = ["rewrite", "teach"]


@click.command("teach")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write.")
@click.option(
    "--prompts",
    multiple=True,
    metavar="SOURCE",
    help="A corpus, whose documents' beginnings are gone on from, or files of prompts; by default the run's corpus.",
)
@click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A corpus that must not be copied; repeatable. By default the run's, and that of the prompts.",
)
@click.option("--documents", type=click.IntRange(1), help="How many texts are made, before any is dropped.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same texts.")
@set_option
@device_options
@json_option
def teach(  # noqa: PLR0913 - each is an option
    run: Path,
    out: Path,
    prompts: tuple[str, ...],
    against: tuple[Path, ...],
    documents: int | None,
    seed: int,
    overrides: tuple[str, ...],
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Let the model of RUN write texts, for another model to learn from.

    \b
      gristmill corpus teach runs/big --out taught --documents 10000
      gristmill corpus teach runs/big --out taught --prompts beginnings.txt --set sampling.temperature=0.9

    Dropped is what is too short, what repeats itself, and what is in the training text. Keys of --set: prompt_tokens,
    keep_prompt, unfinished, licence, sampling.max_new_tokens, sampling.temperature, sampling.top_p,
    filters.minimum_characters, filters.rules, filters.near and others. A run that was killed goes on with the same
    command. Each text says in "synthetic" which model wrote it, after which prompt and how.

    Next: sources = {written = ["texts/"], taught = ["OUT/texts"]} in [corpus], and their shares in [pretrain.mix]
    """
    from gristmill.cli.generate_ import load
    from gristmill.config import from_dict, override
    from gristmill.corpus.store import Corpus
    from gristmill.errors import InputError
    from gristmill.synthesis.teaching import TeachConfig, prompts_of_corpus, prompts_of_files, teach

    table = override({} if documents is None else {"documents": documents}, overrides)
    config = from_dict(TeachConfig, table, "teach")
    corpora = [Corpus(_corpus_in(path)) for path in against]
    given = list(prompts)
    own = [run / "corpus"] if (run / "corpus" / "manifest.json").is_file() else []
    if not given:
        given = [str(path) for path in own]
    if not given:
        raise InputError(
            f"{run} has no corpus, so there is nothing to begin with", "name a corpus or a file: --prompts"
        )
    named = [path for path in map(_corpus_in, map(Path, given)) if (path / "manifest.json").is_file()]
    if named and len(given) > 1:
        raise InputError("a corpus of prompts is named beside other sources", "name one corpus, or files")
    if not against:
        paths = {path.resolve(): path for path in [*own, *named]}
        corpora = [Corpus(path) for path in paths.values()]
        if not corpora:
            click.echo("note: no corpus is known, so copies of its texts are not found: --against", err=True)
    loaded = load(run, dtype, device)
    chosen = (
        prompts_of_corpus(
            Corpus(named[0]), loaded.tokenizer, tokens=config.prompt_tokens, most=config.documents, seed=seed,
        )
        if named
        else prompts_of_files(given)
    )  # fmt: skip
    if not chosen:
        raise InputError(
            f"no document of {given[0]} is longer than {config.prompt_tokens} tokens",
            "make prompts shorter: --set prompt_tokens=4",
        )
    _say(out, _made(out, lambda progress: teach(
        loaded, chosen, config, out, against=corpora, seed=seed, progress=progress
    )), as_json)  # fmt: skip


@click.command("rewrite")
@click.argument("sources", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write.")
@click.option(
    "--with",
    "run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The model that rewrites: one that fills gaps, or with --back one that translates.",
)
@click.option(
    "--back",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The model that translates back what --with has translated.",
)
@click.option(
    "--characters",
    is_flag=True,
    help="Do without a model: noise in characters, as keyboards and eyes make it.",
)
@click.option("--copies", type=click.IntRange(1), help="How often each text is rewritten.")
@click.option("--text-column", help="The column that holds the text, where it is not found by its name.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same texts.")
@set_option
@device_options
@json_option
def rewrite(  # noqa: PLR0913 - each is an option
    sources: tuple[str, ...],
    out: Path,
    run: Path | None,
    back: Path | None,
    characters: bool,
    copies: int | None,
    text_column: str | None,
    seed: int,
    overrides: tuple[str, ...],
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Write the texts of SOURCES anew: paraphrased by a model of yours, translated there and back, or with noise.

    \b
      gristmill corpus rewrite reviews.jsonl --with runs/encoder --out rewritten --copies 4
      gristmill corpus rewrite reviews.jsonl --with runs/en-de --back runs/de-en --out rewritten
      gristmill corpus rewrite reviews.jsonl --characters --out rewritten --set characters.rate=0.1

    What else a row holds, such as its label, comes along; a paraphrase may change what a label says, so look at some.
    Keys of --set: paraphrase.rate, paraphrase.least_probability, translation.temperature, characters.operators,
    near and others. A run that was killed goes on with the same command.

    Next: gristmill corpus build OUT/texts SOURCES --out CORPUS
    """
    from gristmill.cli.generate_ import load
    from gristmill.config import from_dict, override
    from gristmill.errors import InputError
    from gristmill.synthesis.rewriting import RewriteConfig, read_rows
    from gristmill.synthesis.rewriting import rewrite as rewrite_rows

    if characters == (run is not None):
        raise InputError(
            "nothing is named that rewrites" if run is None else "--with and --characters are both given",
            "--with RUN for a model that fills gaps (train one: gristmill run recipes/tiny/masked_modernbert.toml), "
            "--with RUN --back RUN for two that translate, or --characters for noise, which needs no model",
        )
    if back is not None and run is None:
        raise InputError("--back is given without --with", "name the model of each way")
    config = from_dict(
        RewriteConfig, override({} if copies is None else {"copies": copies}, overrides), "rewrite"
    )
    rows = read_rows(sources, text_column)
    models = [load(path, dtype, device) for path in (run, back) if path is not None]
    _say(out, _made(out, lambda progress: rewrite_rows(
        rows, config, out, models=models, seed=seed, progress=progress
    )), as_json)  # fmt: skip


def _corpus_in(path: Path) -> Path:
    """The corpus of a run, or the one that the path is."""
    inside = path / "corpus"
    return inside if (inside / "manifest.json").is_file() else path


def _made(out: Path, make: Any) -> "Artifact":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from gristmill.artifact import exclusive

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with exclusive(out.absolute().parent), Progress(
        *columns, console=console(stderr=True), transient=True
    ) as bar:  # fmt: skip
        task = bar.add_task("writing", total=None)
        artifact: Artifact = make(lambda done, total: bar.update(task, completed=done, total=total))
        return artifact


def _say(out: Path, made: "Artifact", as_json: bool) -> None:
    metrics = made.manifest.metrics
    if as_json:
        print_json({"path": str(made.path), "content_hash": made.manifest.content_hash, **metrics})
        return
    click.echo(f"{metrics['kept']:,} of {metrics['made']:,} texts kept, {metrics['characters']:,} characters")
    for reason, count in metrics["dropped"].items():
        click.echo(f"dropped: {reason:<40} {count:,}")
    click.echo(f"\nnext: gristmill corpus build {out}/texts --out {out}-corpus")
