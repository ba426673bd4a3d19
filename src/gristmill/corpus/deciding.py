"""What is decided about documents that have been read: which are kept, which are held out, what is cut inside them."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from gristmill.corpus.decisions import Decisions, Reasons
from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.decontaminate import decontaminate
from gristmill.corpus.deduplicate import DedupSettings, Units, exact_duplicates, near_duplicates
from gristmill.corpus.documents import TEXTS, ReadJob
from gristmill.corpus.edits import Edits
from gristmill.corpus.figures import Sizes, fail_with_nothing_left, metrics_of, sizes_of, texts_of
from gristmill.corpus.files import Found, find_files
from gristmill.corpus.held_out import beside, held_out_by, share_of
from gristmill.corpus.judgements import Judges
from gristmill.corpus.passages import cut_repeated
from gristmill.corpus.places import byte_in_source
from gristmill.corpus.read import inspect
from gristmill.corpus.rules import columns_of, judge
from gristmill.corpus.scrub import scrub
from gristmill.corpus.settings import CorpusConfig
from gristmill.corpus.split import SplitPlan, plan_split
from gristmill.corpus.store import UNITS, Corpus, Cut, write_layout
from gristmill.errors import InputError

__all__ = ["Progress", "WasRead", "decide"]

Progress = Callable[[str, int, int | None], None]
"""What is being done, how many bytes of it are, and how many there are if that is known."""


class WasRead(NamedTuple):
    """What is decided about."""

    directory: Path
    """Of the corpus that is being made."""
    jobs: Sequence[ReadJob]
    outcomes: Sequence[Mapping[str, Any]]
    """Of each job."""
    found: Found
    source_of: Mapping[str, str]
    """The name of each file's source."""
    bytes: int
    """Of all files."""

    @property
    def units(self) -> Units:
        """Where the documents are."""
        documents = tuple(outcome["documents"] for outcome in self.outcomes)
        return Units(self.directory / UNITS, tuple(job.name for job in self.jobs), documents)


def decide(
    read: WasRead, config: CorpusConfig, judges: Judges, reference: Corpus | None, report: Progress
) -> dict[str, Any]:
    """Decides about every document, writes that down, and returns the metrics.

    Args:
        read: the documents.
        config: by what they are judged.
        judges: what scores them, where something does.
        reference: the corpus whose validation text is this one's too, if it is another's.
        report: told of what is being done.

    Raises:
        InputError: nothing is left.
    """
    report("deciding", 0, None)
    units = read.units
    decisions = Decisions(units)
    _leave_out(decisions, config, reference)
    _judge(decisions, config)
    if config.dedup.exact:
        decisions.drop_duplicates(Reasons.DUPLICATE, exact_duplicates(units, config.engine))
    judged = judges.drop(decisions, config.engine)
    _drop_near_duplicates(decisions, config, reference)
    edits = Edits(units)
    contaminated = _edit(read.directory, decisions, edits, config)
    sizes = sizes_of(decisions, edits)
    decisions.drop(Reasons.TOO_SHORT, sizes.characters < config.minimum_characters)
    if not decisions.kept.any():
        fail_with_nothing_left(read.outcomes, decisions)
    cut, validation = _split(read, decisions, edits, sizes, config, reference)
    decisions.divide(read.source_of)
    decisions.write(read.directory)
    edits.write(read.directory)
    write_layout(read.directory, units, decisions.groups, cut, validation)
    metrics = metrics_of(read.outcomes, decisions, edits, sizes, read.found, read.bytes, cut) | judged
    if reference is not None:
        metrics["splits"]["valid"] = reference.metrics["splits"]["valid"]
    return metrics | ({"contaminated_documents": contaminated} if config.contamination.sets else {})


def _leave_out(decisions: Decisions, config: CorpusConfig, reference: Corpus | None) -> None:
    """Drops what is not looked at further: forgotten, held out by another corpus, beyond the share that is used."""
    decisions.drop(Reasons.FORGOTTEN, decisions.attribute("bytes") == 0)  # no other text is empty
    if reference is not None:
        held = held_out_by(reference)
        decisions.drop(Reasons.HELD_OUT, np.isin(decisions.attribute("hash"), held.hashes))
    if config.fraction < 1:
        rest, hashes = decisions.kept, decisions.attribute("hash")
        used = np.ones(len(rest), dtype=bool)
        used[rest] = share_of(hashes[rest], decisions.attribute("bytes")[rest], config.fraction)
        decisions.drop(Reasons.LEFT_OUT, ~used)


def _judge(decisions: Decisions, config: CorpusConfig) -> None:
    decisions.drop(Reasons.TOO_SHORT, decisions.attribute("characters") < config.minimum_characters)
    if config.rules.is_empty:
        return
    tables = decisions.attributes(columns_of(config.rules))
    parts = [judge(table, config.rules) for table in tables]  # hundreds of bytes a document while it lasts
    codes = np.concatenate([np.array([], np.uint8), *(part.codes for part in parts)])
    for code, rule in enumerate(parts[0].names[1:] if parts else (), start=1):
        decisions.drop(rule, codes == code)


def _drop_near_duplicates(decisions: Decisions, config: CorpusConfig, reference: Corpus | None) -> None:
    if not config.dedup.near and reference is None:
        return
    is_held = decisions.dropped(Reasons.HELD_OUT)
    gone = np.sort(decisions.keys[~decisions.kept & ~is_held])
    dedup = dataclasses.replace(config.dedup, near=config.dedup.near or DedupSettings().near)
    near = near_duplicates(decisions.units, dedup, config.engine, gone)
    # of text that is measured on none is learned, whatever else is kept
    places, kept = (decisions.units.places(keys) for keys in (near.keys, near.kept))
    decisions.drop(Reasons.HELD_OUT, beside(places, kept, is_held))
    if config.dedup.near:
        decisions.drop_duplicates(Reasons.NEAR_DUPLICATE, near)


def _edit(directory: Path, decisions: Decisions, edits: Edits, config: CorpusConfig) -> int:
    """Cuts and replaces inside texts, and returns how many had text of an evaluation set."""
    units, contaminated = decisions.units, 0

    def texts(chosen: Sequence[int]) -> Iterator[tuple[int, str]]:
        return texts_of(units, chosen)

    if config.contamination.sets:
        contaminated = decontaminate(directory, config.contamination, decisions, edits, texts, config.engine)
    repeated: tuple[tuple[Literal["paragraph", "line"], int | None], ...]
    repeated = (("paragraph", config.dedup.paragraphs), ("line", config.dedup.lines))
    for kind, most in repeated:
        if most is not None:
            cut_repeated(units, kind, most, decisions.kept, edits, config.engine)
    if config.scrub.kinds:
        scrub(units, config.scrub, decisions.kept, edits, texts, config.engine)
    return contaminated


def _split(
    read: WasRead, decisions: Decisions, edits: Edits, sizes: Sizes, config: CorpusConfig, reference: Corpus | None
) -> tuple[Cut | None, str | None]:  # fmt: skip
    """Holds out validation text; returns the document that is cut for it, and where another corpus has it."""
    if reference is not None:
        # the draft is a sibling of what it becomes
        return _same_cut(reference, decisions, edits), os.path.relpath(
            reference.artifact.path, read.directory
        )
    places = np.flatnonzero(decisions.kept)
    plan = plan_split(
        decisions.attribute("hash")[places],
        sizes.text_bytes[places],
        valid_fraction=config.valid_fraction,
        valid_maximum_bytes=config.valid_maximum_bytes,
    )
    decisions.split(plan.threshold)
    return _cut_of(decisions, edits, places, plan, read.jobs), None


def _same_cut(reference: Corpus, decisions: Decisions, edits: Edits) -> Cut | None:
    """Returns where the document is cut that another corpus cuts, if it does and the document is here."""
    if reference.cut is None:
        return None
    text = reference.stored(reference.cut.key)
    whole = sum(len(half) for _, half, key, _ in reference.items() if key == reference.cut.key)
    hashes = decisions.attribute("hash")
    here = np.flatnonzero(decisions.kept & (hashes == np.uint64(int(text.id, 16))))
    if not len(here):
        return None
    if whole != len(text.text) or here[0] in edits.documents:
        raise InputError(
            "the one document, whose end is held out, is edited, so that its end is not the same text",
            "give a document_separator, so that there are documents to hold out",
        )
    return reference.cut._replace(key=int(decisions.keys[here[0]]))


def _cut_of(
    decisions: Decisions, edits: Edits, places: Any, plan: SplitPlan, jobs: Sequence[ReadJob]
) -> Cut | None:
    """Returns where the one document is cut that is to be cut, if one is."""
    import pyarrow.parquet

    if plan.cut_document is None:
        return None
    units, place = decisions.units, int(places[plan.cut_document])
    firsts = np.cumsum([0, *units.documents])
    unit = int(np.searchsorted(firsts, place, side="right")) - 1
    table = pyarrow.parquet.read_table(
        units.directory / f"{units.names[unit]}.{TEXTS}", columns=["text", "source", "start", "end"]
    )
    row = table.slice(place - int(firsts[unit]), 1).to_pylist()[0]
    raw, text = row["text"], edits.apply(place, row["text"])
    character = int((1 - plan.cut_fraction) * len(text))
    if not text[:character].strip() or not text[character:].strip():
        return None
    byte = None
    if raw == text:
        with contextlib.suppress(UnreadableError, InputError, OSError):  # gone since it was read
            pieces = jobs[unit].unit.pieces
            files = [piece.file for piece in pieces] or find_files([row["source"]]).files
            file = next(file for file in files if file.name == row["source"])
            layout = inspect(file, jobs[unit].options)
            byte = byte_in_source(file, layout, row["start"], row["end"], text, character)
    return Cut(int(decisions.keys[place]), character, byte)
