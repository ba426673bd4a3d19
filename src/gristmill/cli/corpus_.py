"""`gristmill corpus`: build a cleaned corpus from files, and look at it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gristmill.cli._common import (
    console,
    jobs_option,
    json_option,
    open_table,
    print_json,
    recipe_options,
    set_option,
)
from gristmill.cli._synthesis import rewrite, teach

if TYPE_CHECKING:
    from gristmill.artifact import Artifact

_SHOWN_SOURCES = 15
_SHOWN_DROPS = 20
_SHOWN_TELLING = 12
_SHOWN_FORGOTTEN = 30


@click.group()
def command() -> None:
    """Build a cleaned corpus from files, and look at it.

    \b
      gristmill corpus build texts/ --out runs/mine/corpus
      gristmill corpus show runs/mine/corpus

    Next: gristmill tokenizer train runs/mine/corpus --out runs/mine/tokenizer
    """


command.add_command(teach)
command.add_command(rewrite)


@command.command()
@click.argument("sources", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write.")
@click.option("--recipe", type=click.Path(path_type=Path), help="Take the [corpus] table of a recipe.")
@set_option
@json_option
def build(
    sources: tuple[str, ...], out: Path, recipe: Path | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Read SOURCES (files, folders, globs, URLs), clean them and write a corpus.

    \b
      gristmill corpus build texts/ more/*.jsonl.zst --out runs/mine/corpus
      gristmill corpus build reviews.csv --out corpus --set text_column=review --set valid_fraction=0.1
      gristmill corpus build --recipe mine.toml --out runs/mine/corpus

    Reads text (.txt .md), rows (.jsonl .json .csv .tsv .parquet), web pages and archives (.html .warc .wet), Word (.docx),
    PDF with a text layer, reStructuredText, MediaWiki dumps and source code; most of them also packed (.gz .bz2 .xz .zst),
    in UTF-8, UTF-16, GB18030 and Big5, here or at a URL (s3://bucket/folder). Pages and documents need the extra
    `documents`, URLs the extra `remote`. A file that can't be read is left out, counted and named.

    The keys of --set are those of a recipe's [corpus] table, whose tables say what is done with the texts: rules, quality,
    perplexity, dedup, contamination, scrub, engine. Sources that have not changed are not read again, and a build that was
    killed goes on where it was.

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
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where to write the page; by default DIRECTORY-page."
)
@json_option
def show(directory: Path, identity: str | None, dropped: bool, out: Path | None, as_json: bool) -> None:
    """Write a page about a corpus and print its statistics; or print one of its documents, or what was dropped.

    \b
      gristmill corpus show runs/demo/corpus
      gristmill corpus show runs/demo/corpus --dropped
      gristmill corpus show runs/demo/corpus --out page --json > facts.json

    The page opens offline in any browser: composition, lengths, what each rule buys, what was dropped with examples, which
    document stands for which, personal data (masked), text of evaluation sets, licences, files. --json alone prints the
    statistics and writes nothing; with --out it prints all that the page says.

    Next: gristmill tokenizer train DIRECTORY --out TOKENIZER
    """
    import itertools

    from gristmill.artifact import open_artifact
    from gristmill.corpus import Corpus

    if identity is None and not dropped:
        _show_page(open_artifact(directory, "corpus", verify=False), out, as_json)
        return
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
            click.echo(f"{_SHOWN_DROPS} of {total:,}; all of them with --json")


def _show_page(corpus: "Artifact", out: Path | None, as_json: bool) -> None:
    if as_json and out is None:
        _print(corpus, as_json)
        return
    from gristmill.report.collect import read_json
    from gristmill.report.corpus_page import FACTS, PAGE, build_corpus_page

    if not as_json:
        _print(corpus, as_json)
    page = build_corpus_page(corpus, out or corpus.path.with_name(f"{corpus.path.name}-page"))
    if as_json:
        print_json(read_json(page.path / FACTS))
    else:
        click.echo(f"page: {page.path / PAGE}")


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("identities", nargs=-1, metavar="[ID]...")
@click.option("--key", "keys", type=int, multiple=True, help="A document by its key, as traces print it.")
@click.option(
    "--at", multiple=True, metavar="FILE[:LINE]", help="What was read from a raw file, or a line of it."
)
@click.option(
    "--containing",
    multiple=True,
    metavar="TEXT",
    help="All documents with this in them, or in their metadata.",
)
@click.option(
    "--near",
    type=click.FloatRange(0.5, 1),
    metavar="SHARE",
    help="Also documents that have this share of one of them, or of which it has that.",
)
@click.option("--note", default="", help="What the request is known by, for the list.")
@click.option(
    "--below",
    type=click.Path(path_type=Path),
    help="Where to look for what was made of these texts; by default where the run lies.",
)
@click.option("--dry-run", is_flag=True, help="Show what is meant and what it touches, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(  # noqa: PLR0913 - each is an option
    directory: Path,
    identities: tuple[str, ...],
    keys: tuple[int, ...],
    at: tuple[str, ...],
    containing: tuple[str, ...],
    near: float | None,
    note: str,
    below: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take documents out of a corpus, and every trace of them out of what was made of it.

    \b
      gristmill corpus forget runs/mine --containing "Erika Mustermann" --dry-run
      gristmill corpus forget runs/mine 9d807d9bcc7aa9bd --note "request 17" --yes

    DIRECTORY is a corpus, or a run. All documents with the same text are meant; those that are near are shown. What they
    touch is written again and nothing else: their units, what was decided, the shards, whose other documents keep their
    tokens. Older versions in replaced/ that have them are removed. A list of hashes beside the corpus keeps every later
    build from reading them again. What can't be undone is named: models that have learned from them. Raw files are yours to
    change. A command that was interrupted goes on when it is given again, also without documents.

    Next: gristmill run RECIPE trains tokenizer and model anew
    """
    from gristmill.artifact import MANIFEST, exclusive, find
    from gristmill.corpus import Corpus
    from gristmill.corpus.forgetting import carry_out, plan
    from gristmill.corpus.searching import Request, search
    from gristmill.errors import InputError
    from gristmill.tokenizer import Tokenizer
    from gristmill.tokenizer.fast import encoder

    out = directory
    if not (out / MANIFEST).is_file() and any(
        (out / name).is_dir() for name in ("corpus", ".corpus.partial")
    ):
        out = out / "corpus"
    request = Request(ids=identities, keys=keys, at=at, containing=containing, near=near)
    with exclusive(out.absolute().parent):
        find(out, "")  # puts in place what a crash left between two renames
        found = None if request.is_empty else search(Corpus(out), request)
        planned = plan(out, found, below=below, note=note)
        if dry_run or not as_json:
            _print_request(found, planned, as_json)
        if dry_run:
            return
        if not yes and not as_json and sys.stdin.isatty():
            click.confirm("Forget them? This can't be undone", abort=True, err=True)
        elif not yes:
            raise InputError("nothing was forgotten yet", "look at what --dry-run shows, and add --yes")
        with _Bar() as bar:
            done = carry_out(
                out,
                found,
                encoder_of=lambda tokenizer: encoder(Tokenizer.from_directory(tokenizer.path)),
                below=below,
                note=note,
                progress=bar.show,
            )
    _print_forgotten(done, found, as_json)


def _print_request(found: Any, planned: Any, as_json: bool) -> None:
    from rich.markup import escape

    documents, near = (found.documents, found.near) if found is not None else ((), ())
    if as_json:
        print_json(
            {
                "documents": [_described(document) for document in documents],
                "near": [
                    {**_described(other.document), "cover": round(other.cover, 4), "beside": other.beside}
                    for other in near
                ],
                "affected": [
                    {"path": str(one.path), "kind": one.kind, "how": one.how} for one in planned.affected
                ],
            }
        )
        return
    out = console()
    if found is not None:
        out.print(
            f"{_count(len(documents), 'document')} to be forgotten"
            + ("" if documents else ": no more are found")
        )
    for document in documents[:_SHOWN_FORGOTTEN]:
        out.print(
            f"  [bold]{_name(document)}[/]  {escape(document.state)}, {escape(_place(document))}; {escape(document.why)}"
        )
        out.print(f"    [dim]{escape(document.preview)}[/]")
    if len(documents) > _SHOWN_FORGOTTEN:
        out.print(f"… and {len(documents) - _SHOWN_FORGOTTEN:,} more: --dry-run --json lists them all")
    if near:
        out.print(
            f"{_count(len(near), 'document')} near them stay; --near SHARE takes those from a share on:"
        )
    for other in near[:_SHOWN_FORGOTTEN]:
        what = other.document
        out.print(
            f"  [bold]{what.id}[/]  {escape(what.state)}, {escape(_place(what))}; {other.cover:.2f} beside {other.beside}"
        )
        out.print(f"    [dim]{escape(what.preview)}[/]")
    for one in planned.affected:
        out.print(f"{one.how}: {one.kind} {escape(str(one.path))}")


def _print_forgotten(done: Any, found: Any, as_json: bool) -> None:
    from rich.markup import escape

    documents = () if found is None else found.documents
    raw = sorted({_place(document) for document in documents})
    if as_json:
        print_json(
            {
                "corpus": str(done.corpus.path),
                "documents": len(documents),
                "units": {"all": done.units, "written": done.units_written},
                "shards": [
                    {"path": str(one.path), "documents": one.documents, "encoded": one.encoded}
                    for one in done.shards
                ],
                "removed": [str(path) for path in done.removed],
                "remaining": [
                    {"path": str(one.path), "kind": one.kind, "how": one.how} for one in done.remaining
                ],
                "looked_below": str(done.below),
                "raw": raw,
                "list": str(done.list_path),
            }
        )
        return
    out = console()
    out.print(
        f"\nforgotten: {_count(len(documents), 'document')}; "
        f"{done.units_written:,} of {_count(done.units, 'unit')} written again"
    )
    for one in done.shards:
        out.print(
            f"shards {escape(str(one.path))}: {one.encoded:,} of {_count(one.documents, 'document')} made tokens of again"
        )
    for path in done.removed:
        out.print(f"removed: {escape(str(path))}")
    for one in done.remaining:
        out.print(f"[yellow]remains[/] {one.kind} {escape(str(one.path))}: {one.how}")
    out.print(f"looked below {escape(str(done.below))} for what was made of it; --below looks elsewhere")
    for place in raw[:_SHOWN_FORGOTTEN]:
        out.print(f"[yellow]remains[/] in the raw file, as far as it is still there: {escape(place)}")
    if len(raw) > _SHOWN_FORGOTTEN:
        out.print(f"… and {len(raw) - _SHOWN_FORGOTTEN:,} more places in raw files: --json lists them all")
    out.print(f"the list: {escape(str(done.list_path))}; without it they would be read again")


def _described(document: Any) -> dict[str, Any]:
    names = ("id", "source", "start", "end", "state", "why", "preview")
    return {name: getattr(document, name) for name in names}


def _name(document: Any) -> str:
    return str(document.id) if document.row >= 0 else "a broken row"


def _place(document: Any) -> str:
    return f"{document.source} {document.start:,}-{document.end:,}"


@command.command()
@jobs_option("Runs")
@recipe_options
def trial(
    recipe: Path, out: Path | None, overrides: tuple[str, ...], as_json: bool, jobs: int | None
) -> None:
    """Train small models with and without each step that RECIPE's table [trial] names, and say what it buys.

    \b
      gristmill corpus trial mine.toml
      gristmill corpus trial mine.toml --jobs 2 --set trial.seeds=3

    A step is any settings that differ: rules of quality, deduplication, a mix, noise, epochs. What it buys is said in
    loss, with an interval, and in text: 1.4 means that it reaches what 1.4 times the text would have. Finished runs are
    not done again, and an interrupted one goes on where it stopped.

    Next: open runs/NAME-trial/trial/trial.html
    """
    import json

    from gristmill.cli._listener import Console
    from gristmill.compare.trial import trial as run_trial

    table, directory = open_table(recipe, out, overrides, "-trial")
    with Console() as listener:
        made = run_trial(table, directory, listener, jobs=jobs)
    facts = json.loads((made.path / "trial.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(facts)
        return
    _print_trial(facts)
    click.echo(f"\npage: {made.path / 'trial.html'}")


@command.command()
@jobs_option("Small runs")
@recipe_options
def mix(recipe: Path, out: Path | None, overrides: tuple[str, ...], as_json: bool, jobs: int | None) -> None:
    """Search weights for the sources or languages of RECIPE's text by small runs on drawn mixtures.

    \b
      gristmill corpus mix mine.toml
      gristmill corpus mix mine.toml --set mix_search.target=books --set mix_search.runs=12

    Each mixture is what a small model is trained on once; a regression says which would be best; that one and the text
    as it is are then trained with several seeds, so that it is known whether they differ.

    Next: put the printed [pretrain.mix] into RECIPE
    """
    from gristmill.cli._listener import Console
    from gristmill.plan.mixing import search_mix

    table, directory = open_table(recipe, out, overrides, "-mix")
    with Console() as listener:
        facts = search_mix(table, directory, listener, jobs=jobs)
    if as_json:
        print_json(facts)
        return
    _print_mix(facts)


def _print_mix(facts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in ("group", "tokens", "as it is", "chosen"):
        table.add_column(head, header_style="dim", justify="left" if head == "group" else "right")
    for name, tokens, natural, weight in zip(
        facts["groups"], facts["tokens"], facts["natural"], facts["weights"], strict=True
    ):
        table.add_row(name, f"{tokens:,}", f"{natural:.3f}", f"{weight:.3f}")
    console().print(table)
    found, seeds = facts["difference"], len(facts["chosen"]["values"])
    said = f"{facts['chosen']['mean']:.4f} against {facts['as_it_is']['mean']:.4f} nats per token as it is"
    if found["interval"] is None:
        said += ": one seed, no difference can be told from noise"
    else:
        low, high = found["interval"]
        verdict = "within noise" if low <= 0 <= high else "better" if high < 0 else "worse"
        said += f", {found['mean']:+.4f} [{low:+.4f}, {high:+.4f}] over {_count(seeds, 'seed')}: {verdict}"
    click.echo(
        f"\n{said}\n{len(facts['runs'])} mixtures; the order of each, told from the others, correlates "
        f"{facts['left_out_correlation']:.2f} with the measured one; all took {100 * facts['share_of_flops']:.1f} % of the run."
    )
    weights = ", ".join(f'"{n}" = {w:g}' for n, w in zip(facts["groups"], facts["weights"], strict=True))
    click.echo(f"\n[pretrain.mix]\nweights = {{ {weights} }}")


def _print_trial(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from gristmill.report.trial import explanation, summary

    heads, rows = summary(facts)
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, header_style="dim")
    for row in rows:
        table.add_row(*row)
    console().print(table)
    click.echo("\n" + explanation(facts))


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


@command.command()
@click.option(
    "--good", multiple=True, metavar="FILES", required=True, help="Good documents: files, folders or globs."
)
@click.option("--bad", multiple=True, metavar="FILES", help="Bad documents, likewise.")
@click.option(
    "--corpus",
    type=click.Path(path_type=Path),
    help="In place of --bad: tell good ones from a sample of a corpus.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write.")
@set_option
@json_option
def quality(
    good: tuple[str, ...],
    bad: tuple[str, ...],
    corpus: Path | None,
    out: Path,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a classifier of quality on documents that you call good and bad, and say how far to trust it.

    \b
      gristmill corpus quality --good good/ --bad bad/ --out runs/mine/quality
      gristmill corpus quality --good essays.jsonl --corpus runs/mine/corpus --out runs/mine/quality

    Some hundred documents of each make a good one, in each language that it is to judge. All figures are of documents that
    it has not learned from. Texts of a sample (--corpus) have been learned to be bad, and score too low themselves: to build
    that corpus with it, rather name the good ones in its recipe, corpus.quality.good, which takes care of that. Keys of --set: exclude, text_column, most_documents, passages, folds.

    Next: gristmill corpus build SOURCES --set quality.model=OUT --set quality.keep=0.5 --out CORPUS
    """
    from gristmill.artifact import exclusive
    from gristmill.config import from_dict, override
    from gristmill.corpus import Corpus
    from gristmill.corpus.quality_training import QualityConfig, train_quality
    from gristmill.errors import InputError

    if bool(bad) == (corpus is not None):
        raise InputError("good documents are told from bad ones, or from a corpus", "give --bad or --corpus")
    table = {"good": list(good), "bad": list(bad)} if bad else {"seed": list(good)}
    config = from_dict(QualityConfig, override(table, overrides), "quality")
    sample = ((d.text, d.source) for d in Corpus(corpus).documents("train")) if corpus else iter(())
    with exclusive(out.absolute().parent):
        trained = train_quality(config, out, unlabelled=sample)
    if as_json:
        print_json(
            {
                "path": str(trained.path),
                "content_hash": trained.manifest.content_hash,
                **trained.manifest.metrics,
            }
        )
        return
    _print_quality(trained)
    click.echo(
        f"\nnext: gristmill corpus build SOURCES --set quality.model={out} --set quality.keep=0.5 --out CORPUS"
    )


@command.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write.")
@set_option
@json_option
def perplexity(sources: tuple[str, ...], out: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train an n-gram model on SOURCES, text that a corpus should be like.

    \b
      gristmill corpus perplexity essays/ --out runs/mine/ngrams
      gristmill corpus perplexity laws.jsonl --out runs/mine/ngrams --set training_bytes=20000000

    Keys of --set: exclude, text_column, characters, least, training_bytes, valid_fraction.

    Next: gristmill corpus build SOURCES --set perplexity.model=OUT --set perplexity.keep=0.67 --out CORPUS
    """
    from gristmill.artifact import exclusive
    from gristmill.config import from_dict, override
    from gristmill.corpus.perplexity import NgramConfig, train_ngrams

    config = from_dict(NgramConfig, override({"sources": list(sources)}, overrides), "perplexity")
    with exclusive(out.absolute().parent):
        trained = train_ngrams(config, out)
    metrics = trained.manifest.metrics
    if as_json:
        print_json({"path": str(trained.path), "content_hash": trained.manifest.content_hash, **metrics})
        return
    languages = ", ".join(f"{name} {_bytes(size)}" for name, size in metrics["training"]["languages"].items())
    click.echo(f"n-gram model {out}  {trained.manifest.content_hash[:12]}")
    click.echo(f"learned from {_count(metrics['training']['documents'], 'document')}: {languages}")
    if (found := metrics["held_out"]["millibits_per_byte"]) is not None:
        documents = _count(metrics["held_out"]["documents"], "document")
        click.echo(f"{found / 1000:.2f} bits for each byte of {documents} held out")
    click.echo(
        f"\nnext: gristmill corpus build SOURCES --set perplexity.model={out} --set perplexity.keep=0.67 --out CORPUS"
    )


def _print_quality(trained: "Artifact") -> None:
    """Prints what is known of a classifier."""
    import itertools

    from rich.markup import escape

    metrics, out = trained.manifest.metrics, console()
    area, checks, documents = metrics["area_under_curve"], metrics["checks"], metrics["documents"]
    bad = "bad" if metrics["labels"] == "labelled" else "unlabelled"
    out.print(f"[bold]quality[/] {escape(str(trained.path))}  [dim]{trained.manifest.content_hash[:12]}[/]")
    out.print(
        f"{documents['good']:,} good documents, {documents['bad']:,} {bad}; {metrics['features']:,} features\n"
    )
    out.print(
        f"area under the curve {area['value']:.3f} ({area['interval'][0]:.3f} to {area['interval'][1]:.3f}), chance is 0.5; "
        f"probabilities are off by {metrics['calibration']['error']:.3f}"
    )
    if unseen := checks["unseen_sources"]:
        out.print(f"on sources that it has not seen: {unseen['area_under_curve']:.3f}")
    table = _table("score from", "good of those", "of all good", f"of all {bad}")
    for row in metrics["thresholds"]:
        table.add_row(str(row["score"]), *(_share(row[name]) for name in ("precision", "recall", "bad_kept")))
    out.print(table)
    telling = _table("tells good", f"good : {bad}", f"tells {bad}", f"good : {bad}")
    shown = [metrics["telling"][name][:_SHOWN_TELLING] for name in ("good", "bad")]
    for pair in itertools.zip_longest(*shown):
        cells = [
            cell
            for one in pair
            for cell in (
                (escape(one["text"]), f"{one['good_documents']} : {one['bad_documents']}")
                if one
                else ("", "")
            )
        ]
        telling.add_row(*cells)
    out.print(telling)
    for warning in metrics["warnings"]:
        out.print(f"[yellow]warning[/] {escape(warning)}")


def _share(share: dict[str, Any]) -> str:
    if share["value"] is None:
        return "none is"
    low, high = share["interval"]
    return f"{share['value']:.2f} ({low:.2f} to {high:.2f})"


def _print_judged(metrics: dict[str, Any], out: Any) -> None:
    """Prints what models said of the texts, where they were asked."""
    from rich.markup import escape

    for name, figures, limits, scale, what in (
        ("quality", "scores", ("minimum_score",), 1, "score"),
        (
            "perplexity",
            "millibits_per_character",
            ("minimum_millibits", "maximum_millibits"),
            1000,
            "bits for a character",
        ),
    ):
        said = metrics.get(name)
        if not said:
            continue
        digits = ",.0f" if scale == 1 else ",.2f"
        for language, found in said[figures].items():
            least, most = (found[end] / scale for end in ("p10", "p90"))
            borders = [
                f"{'at least' if limit.startswith('minimum') else 'at most'} {said[limit][language] / scale:{digits}}"
                for limit in limits
                if language in said[limit]
            ]
            kept = f"; kept: {' and '.join(borders)}" if borders else "; nothing is dropped"
            out.print(f"{what}, {language}: {least:{digits}} to {most:{digits}} in eight of ten{kept}")
        for warning in said["warnings"]:
            out.print(f"[yellow]{name}[/] {escape(warning)}")


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
    if set(metrics.get("scripts", {})) - {"latin"}:
        table.add_section()
        for name, entry in metrics["scripts"].items():
            table.add_row(f"script: {name}", *_amounts(entry, total))
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
    _print_judged(metrics, out)

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
