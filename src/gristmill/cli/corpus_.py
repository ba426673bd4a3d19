"""`gristmill corpus`: build a cleaned corpus from files, and look at it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gristmill.cli._common import console, json_option, print_json, set_option

if TYPE_CHECKING:
    from gristmill.artifact import Artifact

_SHOWN_SOURCES = 15
_SHOWN_DROPS = 20


@click.group()
def command() -> None:
    """Build a cleaned corpus from files, and look at it.

    \b
      gristmill corpus build texts/ --out runs/mine/corpus
      gristmill corpus show runs/mine/corpus

    Next: gristmill tokenizer train runs/mine/corpus --out runs/mine/tokenizer
    """


@command.command()
@click.argument("sources", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write.")
@click.option("--recipe", type=click.Path(path_type=Path), help="Take the [corpus] table of a recipe.")
@set_option
@json_option
def build(
    sources: tuple[str, ...], out: Path, recipe: Path | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Read SOURCES (files, folders, globs), clean them and write a corpus.

    \b
      gristmill corpus build texts/ more/*.jsonl.zst --out runs/mine/corpus
      gristmill corpus build reviews.csv --out corpus --set text_column=review --set valid_fraction=0.1

    Reads .txt .md .jsonl .json .csv .tsv and .parquet, plain or .gz/.zst, in UTF-8, UTF-16, GB18030 and Big5. The
    keys of --set are those of a recipe's [corpus] table. Sources that have not changed are not read again.

    Next: gristmill corpus show OUT
    """
    from gristmill.artifact import exclusive
    from gristmill.config import from_dict, override, read_toml
    from gristmill.corpus import CorpusConfig
    from gristmill.corpus import build as build_corpus

    table: dict[str, Any] = dict(read_toml(recipe).get("corpus", {})) if recipe else {}
    if sources:
        table["sources"] = list(sources)
    config = from_dict(CorpusConfig, override(table, overrides), "corpus")
    with exclusive(out.absolute().parent), _Bar() as bar:
        built = build_corpus(config, out, progress=bar.show)
    _print(built, as_json)
    if not as_json:
        click.echo(f"\nnext: gristmill corpus show {out}")


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--document", "identity", metavar="ID", help="Print one document; the beginning of its id will do."
)
@click.option("--dropped", is_flag=True, help="Print what was dropped, and why.")
@json_option
def show(directory: Path, identity: str | None, dropped: bool, as_json: bool) -> None:
    """Print the statistics of a corpus, one of its documents, or what was dropped.

    \b
      gristmill corpus show runs/demo/corpus
      gristmill corpus show runs/demo/corpus --dropped

    Next: gristmill tokenizer train DIRECTORY --out TOKENIZER
    """
    import itertools

    from gristmill.corpus import Corpus

    corpus = Corpus(directory)
    if identity is not None:
        document = corpus.document(identity)._asdict()
        if as_json:
            print_json(document)
        else:
            text = document.pop("text")
            for name, value in document.items():
                click.echo(f"{name + ':':<10} {value}", err=True)
            click.echo(text)
    elif dropped and as_json:
        print_json(list(corpus.dropped()))
    elif dropped:
        from rich.markup import escape

        total = sum(entry["documents"] for entry in corpus.metrics["dropped"].values())
        table = _table("reason", "source", "bytes", "preview")
        for entry in itertools.islice(corpus.dropped(), _SHOWN_DROPS):
            where = "" if entry["start"] is None else f"{entry['start']:,}-{entry['end']:,}"
            said = (entry.get("message") or entry["preview"])[:60]
            table.add_row(*map(escape, (entry["reason"], entry["source"], where, said)))
        console().print(table if total else "nothing was dropped")
        if total > _SHOWN_DROPS:
            click.echo(
                f"{_SHOWN_DROPS} of {total:,}; all of them with --json, or in {directory / 'dropped.jsonl'}"
            )
    else:
        _print(corpus.artifact, as_json)


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--token", type=int, help="A token of the shards, counted from 0.")
@click.option("--split", default="train", show_default=True, help="Of which split.")
@click.option("--step", type=int, help="A step of the training, counted from 1; with --row and --position.")
@click.option("--row", type=int, default=0, show_default=True, help="Of the step's batch.")
@click.option("--position", type=int, default=0, show_default=True, help="In the row.")
@json_option
def trace(
    directory: Path, token: int | None, split: str, step: int | None, row: int, position: int, as_json: bool
) -> None:
    """Say where a token came from: file, byte, licence, what was decided and replaced, which duplicates it stands for.

    DIRECTORY is a run, or the shards or the model of one.

    \b
      gristmill corpus trace runs/demo --token 123456
      gristmill corpus trace runs/demo --step 40 --row 3 --position 17
    """
    from gristmill.artifact import open_artifact
    from gristmill.corpus.shards import Shards
    from gristmill.errors import InputError
    from gristmill.train import tracing

    if (token is None) == (step is None):
        raise InputError("name one token", "--token N, or --step S --row R --position P")
    home = directory if (directory / "manifest.json").is_file() else None
    if step is not None:
        shards, place = tracing.token_of_step(
            open_artifact(home or directory / "model", "checkpoint", verify=False), step, row, position
        )
        split = "train"
    else:
        assert token is not None
        shards, place = Shards(open_artifact(home or directory / "shards", "shards", verify=False)), token
    found = tracing.trace_token(shards, split, place)
    if as_json:
        print_json(tracing.as_json(found))
        return
    origin = found.trace
    lines = {
        "token": f"{found.token} {found.piece!r}, number {found.position:,} of {found.split}",
        "document": f"{origin.id}, {origin.split}, group {origin.group}",
        "file": f"{origin.source}, bytes {origin.start:,} to {origin.end:,}",
        "byte": "not told: no plain text" if origin.byte is None else f"{origin.byte:,}",
        "licence": origin.licence or "none stated",
        "metadata": ", ".join(f"{name}: {value}" for name, value in origin.metadata.items()),
        "replaced": ", ".join(f"{edit.reason} at {edit.start:,}" for edit in origin.edits),
        "stands for": ", ".join(f"{other['id']} ({other['reason']})" for other in origin.duplicates),
    }
    for name, value in lines.items():
        if value:
            click.echo(f"{name + ':':<12}{value}")


def _print(corpus: "Artifact", as_json: bool) -> None:
    metrics = corpus.manifest.metrics
    if as_json:
        print_json({"path": str(corpus.path), "content_hash": corpus.manifest.content_hash, **metrics})
        return
    from rich.markup import escape

    out = console()
    out.print(f"[bold]corpus[/] {escape(str(corpus.path))}  [dim]{corpus.manifest.content_hash[:12]}[/]")
    read = metrics["read"]
    skipped = ", ".join(f"{count} ({reason})" for reason, count in read["skipped_files"].items())
    out.print(
        f"read {_count(read['files'], 'file')}, {_bytes(read['bytes'])}, {_count(read['documents'], 'document')}"
        + (f"; passed over {skipped}" if skipped else "")
    )
    lengths = metrics["lengths"]
    out.print(
        f"characters in a document: {lengths['minimum']:,} to {lengths['maximum']:,}, "
        f"half of them between {lengths['p25']:,} and {lengths['p75']:,}\n"
    )
    table = _table("", "documents", "characters", "text", "share")
    total = max(1, metrics["text_bytes"])
    for name, entry in metrics["splits"].items():
        table.add_row(name, *_amounts(entry, total))
    table.add_section()
    for name, entry in metrics["languages"].items():
        table.add_row(name, *_amounts(entry, total))
    table.add_section()
    for name, entry in metrics["dropped"].items():
        table.add_row(
            f"dropped: {name}",
            f"{entry['documents']:,}",
            "",
            _bytes(entry["text_bytes"]) if entry["text_bytes"] else "",
            "",
        )
    for name, count in metrics["changed"].items():
        if count:
            table.add_row(f"repaired: {name.replace('_', ' ')}", f"{count:,}", "", "", "")
    out.print(table)

    paths = [source["path"] for source in metrics["sources"]]
    folder = f"{os.path.commonpath(paths)}/" if len(paths) > 1 and os.path.commonpath(paths) else ""
    files = _table(
        f"source{' below ' if folder else ''}{folder}", "encoding", "text column", "documents", "text"
    )
    for source in metrics["sources"][:_SHOWN_SOURCES]:
        files.add_row(
            escape(source["path"].removeprefix(folder)),
            source["encoding"] or "",
            escape(source["text_column"] or ""),
            f"{source['documents']:,}",
            _bytes(source["text_bytes"]),
        )
    out.print(files)
    if len(metrics["sources"]) > _SHOWN_SOURCES:
        out.print(f"… and {len(metrics['sources']) - _SHOWN_SOURCES:,} more: --json lists them all")
    for problem in metrics["problems"][:5]:
        out.print(f"[yellow]skipped[/] {escape(problem)}")


def _table(*columns: str) -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    numbers = {"documents", "characters", "text", "share", "bytes"}
    for column in columns:
        table.add_column(escape(column), justify="right" if column in numbers else "left", overflow="fold")
    return table


def _amounts(entry: dict[str, int], total: int) -> list[str]:
    characters = f"{entry['characters']:,}" if "characters" in entry else ""
    return [
        f"{entry['documents']:,}",
        characters,
        _bytes(entry["text_bytes"]),
        f"{entry['text_bytes'] / total:.1%}",
    ]


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95 or unit == "GB":
            break
    return f"{size:,.1f} {unit}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


class _Bar:
    """A progress bar on stderr."""

    def __enter__(self) -> "_Bar":
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:>8}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console(stderr=True), transient=True)
        self._progress.__enter__()
        self._task: Any = None
        self._what = ""
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def show(self, what: str, done: int, total: int | None) -> None:
        if what != self._what:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._what = self._progress.add_task(what, total=total), what
        self._progress.update(self._task, completed=done, total=total)
