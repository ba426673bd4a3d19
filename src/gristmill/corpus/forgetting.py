"""A request to forget: which documents are meant, and how every trace of them is taken out of what a recipe has made.

First the list beside the corpus is written (`forgotten`): from then on every build obeys it, and the same command goes on
wherever it was interrupted. Then the units that hold such a text are written without it, everything is decided again,
shards are written of what is new, and older versions that were kept are removed. No raw file is read or changed.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from gristmill.artifact import Artifact, open_artifact
from gristmill.corpus.build import Progress, decide_again, recipe_of
from gristmill.corpus.decisions import DECISIONS
from gristmill.corpus.documents import BROKEN, TEXTS
from gristmill.corpus.forgotten import Entry, Forgotten, ForgottenList, list_beside, list_obeyed, read_list
from gristmill.corpus.remains import (
    REPLACED,
    Remaining,
    artifacts_below,
    corpus_holds,
    descendants,
    how,
    is_quotable,
    is_training,
    quotes,
    unfinished_below,
)
from gristmill.corpus.reshard import Resharded, reshard
from gristmill.corpus.searching import Found, Search
from gristmill.corpus.shards import Encode
from gristmill.corpus.store import KIND, UNITS, Corpus
from gristmill.errors import InputError

__all__ = ["Done", "Plan", "carry_out", "plan"]

_GOING = ".forgotten"
"""The ending of directories that are about to go."""


@dataclasses.dataclass(frozen=True)
class Done:
    """What was done, and what could not be."""

    corpus: Artifact
    units: int
    units_written: int
    shards: tuple[Resharded, ...]
    removed: tuple[Path, ...]
    """Older versions, samples that quoted a text, and unfinished work."""
    remaining: tuple[Remaining, ...]
    list_path: Path
    below: Path
    """Where it was looked for what remains."""


class Plan(NamedTuple):
    """What a request means for what has been made."""

    list_path: Path
    listed: ForgottenList
    """What the list will say."""
    forgotten: Forgotten
    """What the corpus has to forget, of all its lists."""
    affected: tuple[Remaining, ...]
    """All that holds a text, quotes one, or has learned from one."""


def plan(out: Path, found: Search | None, *, below: Path | None = None, note: str = "") -> Plan:
    """Returns what forgetting would do and could not do; nothing is changed.

    Args:
        out: the directory of the corpus.
        found: what is forgotten; None only finishes what was begun, or does what a list that several corpora share says.
        below: where artifacts are looked for that learned from these texts; by default the folder of the runs.
        note: what the request is known by.

    Raises:
        InputError: there is nothing to forget, or nothing would be left.
    """
    corpus = Corpus(open_artifact(out, KIND, verify=False))
    home = list_obeyed(out, recipe_of(corpus).forgotten)
    listed = read_list(home)
    documents = () if found is None else found.documents
    _refuse_to_leave_nothing(corpus, documents)
    entries = _entries(corpus, documents, note)
    forgotten = Forgotten((*listed.entries, *entries, *read_list(list_beside(out)).entries))
    if not forgotten.entries:
        raise InputError(
            f"{out} has nothing to forget: its list is empty", "name documents, or a text that is in them"
        )
    made = _around(out, _folder_of_runs(out) if below is None else below)
    held = {
        one.manifest.content_hash: one.kind for one in made if one.kind == KIND and _holds(one, forgotten)
    }
    held |= descendants(made, {**listed.held, **held})
    listed = listed.extended(entries, held, ())
    mine = [one for one in made if one.manifest.content_hash in listed.held]
    texts = {document.text for document in documents}
    quoting = [one.manifest.content_hash for one in mine if is_quotable(one) and quotes(one, texts)]
    quoting += descendants([one for one in mine if is_quotable(one)], dict.fromkeys(quoting, ""))
    listed = listed.extended((), {}, quoting)
    affected = (
        Remaining(one.path, one.kind, _how(one, listed))
        for one in mine
        if one.path.resolve() != out.resolve()
    )
    return Plan(home, listed, forgotten, tuple(affected))


def carry_out(
    out: Path,
    found: Search | None,
    *,
    encoder_of: Callable[[Artifact], Encode],
    below: Path | None = None,
    note: str = "",
    progress: Progress | None = None,
) -> Done:
    """Forgets what was found in the corpus in `out`, and what its list names from before; returns what was done.

    Args:
        out: the directory of the corpus.
        found: as in `plan`.
        encoder_of: a function from a tokenizer to what encodes with it.
        below: as in `plan`.
        note: as in `plan`.
        progress: called with what is being done.

    Raises:
        InputError: nothing would be left, or the corpus can't be decided about.
    """
    below = _folder_of_runs(out) if below is None else below
    before = {name: entry["sha256"] for name, entry in open_artifact(out, KIND).manifest.files.items()}
    _, listed, forgotten, _ = planned = plan(out, found, below=below, note=note)
    listed.write(planned.list_path)  # from here on every build obeys it, and the same command goes on
    now = Corpus(decide_again(out, progress=progress))
    files = now.artifact.manifest.files
    changed = {
        name.split(".")[0]
        for name in files
        if name.startswith(f"{UNITS}/")
        and name.endswith((TEXTS, BROKEN))
        and before.get(name) != files[name]["sha256"]
    }
    shards, removed = _renew_shards(now, listed, encoder_of, progress)
    removed += _sweep(out, listed, forgotten)
    return Done(
        now.artifact, len(now.units), len(changed), tuple(shards), tuple(removed),
        tuple(_remaining(now, listed, forgotten, _around(out, below))), planned.list_path, below,
    )  # fmt: skip


def _around(out: Path, below: Path) -> list[Artifact]:
    """The artifacts below a folder, and those beside the corpus."""
    found = {one.path.resolve(): one for folder in (below, out.parent) for one in artifacts_below(folder)}
    return [found[path] for path in sorted(found)]


def _how(one: Artifact, listed: ForgottenList) -> str:
    return "quotes it" if one.manifest.content_hash in listed.quoting else how(one.kind)


def _refuse_to_leave_nothing(corpus: Corpus, documents: Sequence[Found]) -> None:
    gone = {document.digest for document in documents}
    if gone and all(digests <= gone for digests in _kept_digests(corpus)):
        raise InputError(
            f"nothing would be left of {corpus.artifact.path}",
            f"remove it as a whole, and what was made of it: rm -r {corpus.artifact.path}",
        )


def _kept_digests(corpus: Corpus) -> Iterator[set[bytes]]:
    """Yields the hashes of the documents that are kept in each unit."""
    import pyarrow.compute
    import pyarrow.parquet

    for unit in corpus.units:
        reasons = pyarrow.parquet.read_table(corpus.artifact.path / DECISIONS / f"{unit}.parquet")["reason"]
        path = corpus.artifact.path / UNITS / f"{unit}.{TEXTS}"
        digests = pyarrow.parquet.read_table(path, columns=["digest"])["digest"]
        yield set(digests.filter(pyarrow.compute.equal(reasons.cast("string"), "")).to_pylist())


def _entries(corpus: Corpus, documents: Sequence[Found], note: str) -> list[Entry]:
    inputs = corpus.artifact.manifest.config["inputs"]
    places: dict[bytes, list[tuple[str, int, int]]] = {}
    for document in documents:
        mine = places.setdefault(document.digest, [])
        raw = inputs.get(document.source, "unreadable")
        if raw != "unreadable":
            mine.append((raw, document.start, document.end))
    asked_at = datetime.now(UTC).isoformat(timespec="seconds")
    return [Entry(digest.hex(), tuple(raw), asked_at, note) for digest, raw in places.items()]


def _folder_of_runs(out: Path) -> Path:
    """Where runs lie beside the one that the corpus is of, or the folder of the corpus where it is of none."""
    parent = out.parent
    if not (parent / "run.json").is_file():
        return parent
    above = parent.absolute().parent
    return above if out.is_absolute() else Path(os.path.relpath(above))


def _holds(found: Artifact, forgotten: Forgotten) -> bool:
    with contextlib.suppress(InputError):  # it is named among what remains
        return corpus_holds(found, forgotten)
    return False


def _renew_shards(
    corpus: Corpus, listed: ForgottenList, encoder_of: Callable[[Artifact], Encode], progress: Progress | None
) -> tuple[list[Resharded], list[Path]]:
    """Writes the shards of a corpus again that were made of what it was; removes those that can't be."""
    out = corpus.artifact.path
    made = artifacts_below(out.parent)
    versions = {a.manifest.content_hash: a for a in made if a.kind == KIND}
    written, removed = [], []
    for shards in made:
        parents = shards.manifest.parents
        if (
            shards.kind != "shards"
            or REPLACED in shards.path.relative_to(out.parent).parts
            or "corpus" not in parents
        ):
            continue
        of, by = parents["corpus"], parents.get("tokenizer")
        is_mine = (shards.path / of["path"]).resolve() == out.resolve()
        if not is_mine or of["content_hash"] not in listed.held:
            continue
        tokenizer = None
        if by is not None:
            with contextlib.suppress(InputError):
                tokenizer = open_artifact((shards.path / by["path"]).resolve(), "tokenizer")
        if tokenizer is None or by is None or tokenizer.manifest.content_hash != by["content_hash"]:
            _remove(shards.path)
            removed.append(shards.path)
            continue
        old = versions.get(of["content_hash"])
        before = None if old is None else Corpus(old)
        written.append(reshard(shards, corpus, before, tokenizer, encoder_of(tokenizer), progress=progress))
    return written, removed


def _sweep(out: Path, listed: ForgottenList, forgotten: Forgotten) -> list[Path]:
    """Removes what holds a text and is not in use: older versions, samples that quote one, unfinished work."""
    folder = out.parent
    going = [path for path in unfinished_below(folder) if not is_training(path)]
    found = artifacts_below(folder)
    now = open_artifact(out, KIND, verify=False).manifest.content_hash
    for one in found:
        name, is_old = one.manifest.content_hash, REPLACED in one.path.relative_to(folder).parts
        if (
            name in listed.quoting
            or (is_old and one.kind == "shards" and name in listed.held)
            or (is_old and one.kind == KIND and (name == now or _holds(one, forgotten)))
        ):
            going.append(one.path)
    for path in going:
        _remove(path)
    for parent in {folder, folder / REPLACED, *(one.path.parent for one in found)}:
        for path in parent.glob(f".*{_GOING}"):  # where an earlier attempt was interrupted
            shutil.rmtree(path)
        if parent.name == REPLACED:
            with contextlib.suppress(OSError):
                parent.rmdir()  # if nothing is in it
    return going


def _remove(path: Path) -> None:
    """Removes a directory: it is there as a whole, or hidden and about to go."""
    aside = path.with_name(f".{path.name.lstrip('.')}{_GOING}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside)


def _remaining(
    corpus: Corpus, listed: ForgottenList, forgotten: Forgotten, left: Iterable[Artifact]
) -> Iterator[Remaining]:
    """Yields what holds such a text, or has learned from it, and was left as it is."""
    out = corpus.artifact.path
    for one in left:
        if one.path.resolve() == out.resolve():
            continue
        if one.kind == KIND:
            try:
                if corpus_holds(one, forgotten):
                    yield Remaining(one.path, one.kind, "holds it")
            except InputError:
                yield Remaining(one.path, one.kind, "can't be read: look yourself")
        elif one.manifest.content_hash in listed.held:
            yield Remaining(one.path, one.kind, _how(one, listed))
    for path in unfinished_below(out.parent):
        yield Remaining(path, "checkpoint", "unfinished, may have learned from it")
