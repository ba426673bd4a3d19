"""`gristmill tokenizer`: train a tokenizer, and see how it splits text."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gristmill.cli._common import console, json_option, print_json, set_option

if TYPE_CHECKING:
    from gristmill.artifact import Artifact
    from gristmill.tokenizer import Tokenizer


@click.group()
def command() -> None:
    """Train a tokenizer, and see how it splits text.

    \b
      gristmill tokenizer train runs/mine/corpus --out runs/mine/tokenizer
      gristmill tokenizer show runs/mine/tokenizer "In the beginning"

    Next: gristmill run recipes/demo.toml
    """


@command.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write.")
@click.option("--recipe", type=click.Path(path_type=Path), help="Take the [tokenizer] table of a recipe.")
@set_option
@json_option
def train(
    sources: tuple[str, ...], out: Path, recipe: Path | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Train a tokenizer on a corpus, or on SOURCES (files, folders, globs).

    \b
      gristmill tokenizer train runs/mine/corpus --out runs/mine/tokenizer
      gristmill tokenizer train texts/ --out tokenizer --set kind=unigram --set vocab_size=4096

    The keys of --set are those of a recipe's [tokenizer] table; kinds are bpe, unigram, wordpiece, characters and
    bytes. From SOURCES a corpus is built first, beside OUT.

    Next: gristmill tokenizer show OUT "a sentence"
    """
    from gristmill.artifact import exclusive
    from gristmill.config import from_dict, override, read_toml
    from gristmill.tokenizer import Tokenizer, TokenizerConfig
    from gristmill.tokenizer import train as train_tokenizer

    table: dict[str, Any] = dict(read_toml(recipe).get("tokenizer", {})) if recipe else {}
    config = from_dict(TokenizerConfig, override(table, overrides), "tokenizer")
    with exclusive(out.absolute().parent), console(stderr=True).status("") as status:

        def show_progress(what: str, done: int, total: int | None) -> None:
            status.update(f"{what} {100 * done // total} %" if total else what)

        corpus = _corpus(sources, out, show_progress)
        artifact = train_tokenizer(
            config,
            corpus.texts("train"),
            out,
            validation=((document.language, document.text) for document in corpus.documents("valid")),
            parents={"corpus": corpus.artifact},
            progress=show_progress,
        )
    tokenizer = Tokenizer.from_directory(out)
    if as_json:
        print_json(_as_json(out, tokenizer, artifact))
    else:
        _print(out, tokenizer, artifact)
        click.echo(f'\nnext: gristmill tokenizer show {out} "a sentence"')


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("sentence", required=False)
@click.option(
    "--text", "files", multiple=True, metavar="FILE", help="Measure compression on a file; repeatable."
)
@json_option
def show(directory: Path, sentence: str | None, files: tuple[str, ...], as_json: bool) -> None:
    """Print a tokenizer's figures, and how it splits SENTENCE.

    \b
      gristmill tokenizer show runs/demo/tokenizer "In the beginning 天地玄黃"
      gristmill tokenizer show runs/demo/tokenizer --text mine.txt --text reviews.csv

    DIRECTORY may be any that holds a Hugging Face tokenizer.json. In a split, · is a space and <0xE4> a byte of a
    character that has no token of its own.

    Next: gristmill generate RUN "a sentence"
    """
    from gristmill.artifact import MANIFEST, open_artifact
    from gristmill.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(directory)
    artifact = open_artifact(directory, verify=False) if (directory / MANIFEST).is_file() else None
    measured = {file: tokenizer.measure(_texts(file)).to_dict() for file in files}
    pieces = None if sentence is None else tokenizer.pieces(sentence)
    if as_json:
        result = _as_json(directory, tokenizer, artifact)
        if files:
            result["files"] = measured
        if pieces is not None:
            result["split"] = [{"id": i, "text": text} for i, text in pieces]
        print_json(result)
        return
    if pieces is not None and not files:
        _print_split(sentence or "", pieces)
        return
    _print(directory, tokenizer, artifact)
    if measured:
        _print_compression("file", measured)
    if pieces is not None:
        _print_split(sentence or "", pieces)


def _corpus(sources: tuple[str, ...], out: Path, progress: Any) -> Any:
    """The corpus that the one source is, or one built from the sources."""
    from gristmill.artifact import MANIFEST
    from gristmill.corpus import Corpus, CorpusConfig, build

    if len(sources) == 1 and (Path(sources[0]) / MANIFEST).is_file():
        return Corpus(Path(sources[0]))
    return Corpus(
        build(CorpusConfig(sources=sources), out.with_name(f"{out.name}-corpus"), progress=progress)
    )


def _texts(source: str) -> Iterator[str]:
    """The texts of a file as they stand in it."""
    from gristmill.corpus.files import find_files, open_stream
    from gristmill.corpus.read import ReadOptions, Record, inspect, records

    for file in find_files([source]).files:
        layout = inspect(file, ReadOptions())
        with open_stream(file) as stream:
            for record in records(stream, file, layout, ReadOptions()):
                if isinstance(record, Record):
                    yield record.text


def _as_json(path: Path, tokenizer: "Tokenizer", artifact: "Artifact | None") -> dict[str, Any]:
    figures = {} if artifact is None else {k: artifact.manifest.metrics[k] for k in ("read", "languages")}
    return {"path": str(path), **tokenizer.describe(), **figures}


def _print(path: Path, tokenizer: "Tokenizer", artifact: "Artifact | None") -> None:
    from rich.markup import escape

    out = console()
    facts = tokenizer.describe()
    kind = facts["model"] if artifact is None else artifact.manifest.config["kind"]["name"]
    out.print(f"[bold]tokenizer[/] {escape(str(path))}  [dim]{facts['sha256'][:12]}[/]")
    out.print(f"{kind}, {facts['vocab_size']:,} tokens", end="")
    if artifact is not None:
        read = artifact.manifest.metrics["read"]
        share = (
            ""
            if read["sample_bytes"] == read["text_bytes"]
            else f", {read['sample_bytes'] / 1e6:,.1f} MB sampled"
        )
        out.print(
            f", learned from {read['documents']:,} documents, {read['text_bytes'] / 1e6:,.1f} MB{share}",
            end="",
        )
    out.print()
    special = "  ".join(
        f"{name} {escape(entry['text'])} {entry['id']}" for name, entry in facts["special_tokens"].items()
    )
    out.print(f"special  [dim]{special}[/]")
    out.print(
        "longest  [dim]" + escape("  ".join(entry["text"] for entry in facts["longest_tokens"])) + "[/]"
    )
    if artifact is not None and artifact.manifest.metrics["languages"]:
        _print_compression("validation text", artifact.manifest.metrics["languages"])


def _print_compression(title: str, measured: dict[str, dict[str, Any]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, overflow="fold")
    for column in ("bytes", "tokens", "bytes per token", "tokens per character"):
        table.add_column(column, justify="right")
    for name, entry in measured.items():
        table.add_row(
            escape(name),
            f"{entry['text_bytes']:,}",
            f"{entry['tokens']:,}",
            f"{entry['bytes_per_token']:.2f}",
            f"{entry['tokens_per_character']:.3f}",
        )
    console().print(table)


def _print_split(sentence: str, pieces: list[tuple[int, str]]) -> None:
    from rich.text import Text

    out = console()
    shown = Text()
    for nth, (_, text) in enumerate(pieces):
        shown.append("│" if nth else "", style="dim").append(text, style="bold cyan" if nth % 2 else "bold")
    out.print(shown)
    out.print(Text(" ".join(str(i) for i, _ in pieces), style="dim"))
    size = len(sentence.encode(errors="replace"))
    if pieces:
        out.print(
            f"{len(pieces):,} tokens, {len(sentence):,} characters, {size / len(pieces):.2f} bytes per token"
        )
