"""What was made of texts that are forgotten: which artifacts hold them, quote them, or have learned from them.

Artifacts know their parents by content hash, so what descends from a corpus is found wherever it lies, also when the corpus
has been replaced since.
"""

import html
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.artifact import MANIFEST, SCRATCH, Artifact, open_artifact
from gristmill.corpus.documents import ReadJob, holds
from gristmill.corpus.forgotten import Forgotten
from gristmill.corpus.read import ReadOptions
from gristmill.corpus.store import KIND, UNITS, Corpus
from gristmill.corpus.units import Unit
from gristmill.errors import InputError

__all__ = [
    "REPLACED",
    "Remaining",
    "artifacts_below",
    "corpus_holds",
    "descendants",
    "how",
    "is_quotable",
    "is_training",
    "quotes",
    "unfinished_below",
]

REPLACED = "replaced"
"""The folder beside artifacts where older versions of them are kept."""
DEPTH = 6
"""So many folders deep artifacts are looked for."""
ANCHOR_BYTES = 30
"""A quotation has one of the pieces that a text is cut into, of so many bytes without white space, at every half of it:
so a run of 45 letters or 15 Chinese characters is always found, and chance is no quotation."""
PROMPT_BYTES = 12
"""A string of so many bytes or more that begins as a text does was taken from it."""
_WRITTEN = ("evaluation", "report", "measurement", "comparison", "trial")
_PAGE = "corpus page"
_READABLE = (".json", ".jsonl", ".html", ".txt", ".md", ".csv")


class Remaining(NamedTuple):
    """Something that forgetting leaves as it is."""

    path: Path
    kind: str
    how: str
    """"holds it", "learned from it", "was made of it" or "quotes it"."""


def artifacts_below(folder: Path) -> list[Artifact]:
    """Returns the finished artifacts below a folder, older versions too, in the order of their paths."""
    found = []
    for directory, folders, files in os.walk(folder):
        path = Path(directory)
        if MANIFEST in files:
            try:
                found.append(open_artifact(path, verify=False))
                folders.clear()
            except InputError:  # of something else, or damaged
                pass
        if len(path.relative_to(folder).parts) >= DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return found


def unfinished_below(folder: Path) -> Iterator[Path]:
    """Yields the directories of work in `folder` that was interrupted, those moved to `replaced/` among them."""
    yield from sorted(path for path in folder.glob(".*.partial") if path.is_dir())
    yield from sorted(path for path in (folder / REPLACED).glob("*-unfinished*") if path.is_dir())


def is_training(path: Path) -> bool:
    """Whether the work of an unfinished directory is the training of a model."""
    return (path / SCRATCH).is_dir()


def descendants(artifacts: Sequence[Artifact], held: Mapping[str, str]) -> dict[str, str]:
    """Returns the content hash and the kind of all that is made of something in `held`, and of that.

    Shards that a tokenizer wrote hold nothing of what the tokenizer learned from.
    """
    found = dict(held)
    while True:
        new = {
            artifact.manifest.content_hash: artifact.kind
            for artifact in artifacts
            if artifact.manifest.content_hash not in found and _parents(artifact) & found.keys()
        }
        if not new:
            return {name: kind for name, kind in found.items() if name not in held}
        found |= new


def how(kind: str) -> str:
    """Returns what an artifact of a kind has to do with a text that it descends from."""
    if kind in (KIND, "shards"):
        return "holds it"
    return "was made of it" if kind in (*_WRITTEN, _PAGE) else "learned from it"


def is_quotable(artifact: Artifact) -> bool:
    """Whether an artifact is one for people to read, in which there may be pieces of texts."""
    return artifact.kind in (*_WRITTEN, _PAGE)


def corpus_holds(artifact: Artifact, forgotten: Forgotten) -> bool:
    """Returns whether a text that is to be forgotten is in what a corpus has read.

    Raises:
        InputError: the corpus is damaged.
    """
    inputs = artifact.manifest.config.get("inputs", {})
    try:
        for unit, files in Corpus(artifact).files().items():
            wanted = forgotten.of({name: inputs[name] for name in files if name in inputs})
            if holds(ReadJob(Unit(0, ()), ReadOptions(), "skip", artifact.path / UNITS, unit, wanted)):
                return True
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the corpus {artifact.path} can't be read: {error}") from None
    return False


def quotes(artifact: Artifact, texts: Collection[str]) -> bool:
    """Returns whether a file of an artifact has a piece of one of these texts, long enough to be no chance."""
    if (
        artifact.kind == _PAGE
    ):  # personal data in it is masked, so that it is not found; it is written again in seconds
        return True
    known = {_folded(value) for value in _strings(artifact.manifest.config)}  # prompts that a recipe names
    folded = [_folded(text) for text in texts]
    anchors = {
        text[begin : begin + ANCHOR_BYTES]
        for text in folded
        for begin in range(0, max(1, len(text) - ANCHOR_BYTES + 1), ANCHOR_BYTES // 2)
    } - {b""}
    short = [text for text in folded if PROMPT_BYTES <= len(text) < ANCHOR_BYTES]
    beginnings = {text[:PROMPT_BYTES] for text in folded}
    for name in artifact.manifest.files:
        if not name.endswith(_READABLE):
            continue
        for value in map(_folded, _strings_of(artifact.path / name)):
            if value in known or len(value) < PROMPT_BYTES:
                continue
            if value[:PROMPT_BYTES] in beginnings and any(text.startswith(value) for text in folded):
                return True
            if any(text in value for text in short):
                return True
            if any(value[i : i + ANCHOR_BYTES] in anchors for i in range(len(value) - ANCHOR_BYTES + 1)):
                return True
    return False


def _parents(artifact: Artifact) -> set[str]:
    return {
        entry["content_hash"]
        for role, entry in artifact.manifest.parents.items()
        if artifact.kind != "shards" or role != "tokenizer"
    }


def _folded(text: str) -> bytes:
    return "".join(text.split()).casefold().encode("utf-8", "replace")


def _strings_of(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if path.suffix == ".html":
        yield html.unescape(text)
    elif path.suffix in (".json", ".jsonl"):
        for line in [text] if path.suffix == ".json" else text.split("\n"):
            try:
                yield from _strings(json.loads(line))
            except ValueError:
                yield line
    else:
        yield text


def _strings(value: Any) -> Iterator[str]:
    """Yields the strings in JSON values; those of a list are also one: a text that was taken apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, Iterable):
        inside = [string for inner in value for string in _strings(inner)]
        yield from inside
        yield "".join(inside)
