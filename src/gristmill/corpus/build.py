"""From sources to a corpus: read, normalise, decide what is kept, split, measure.

Texts are read and written once, by unit (`documents`); what is decided afterwards is a small table beside them. Another
threshold reads nothing again, and a run that was killed reads no more again than was being read.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import numpy as np
from annotated_types import Interval

from gristmill import artifact
from gristmill.artifact import Artifact
from gristmill.config import from_dict, to_dict
from gristmill.corpus.contamination import ContaminationSettings
from gristmill.corpus.decisions import Decisions, Reasons
from gristmill.corpus.decode import REPAIRS, UnreadableError, newline_of
from gristmill.corpus.decontaminate import decided_by, decontaminate
from gristmill.corpus.deduplicate import DedupSettings, Units, exact_duplicates, near_duplicates
from gristmill.corpus.documents import FORMAT as DOCUMENTS_FORMAT
from gristmill.corpus.documents import (
    KEPT_PROBLEMS,
    OUTCOME,
    SKIP_HINT,
    TEXTS,
    ReadJob,
    being_read,
    outcome_of,
    read_unit,
)
from gristmill.corpus.edits import Edits
from gristmill.corpus.engine import EngineSettings, run_all
from gristmill.corpus.features import EXAMINED_BYTES
from gristmill.corpus.files import Found, SourceFile, find_files
from gristmill.corpus.forgotten import Forgotten, obeyed
from gristmill.corpus.held_out import beside, held_out_by, share_of
from gristmill.corpus.judgements import Judges, PerplexitySettings, QualitySettings
from gristmill.corpus.normalise import CHANGES
from gristmill.corpus.passages import cut_repeated
from gristmill.corpus.places import byte_in_source
from gristmill.corpus.read import DIVIDED, ReadOptions, inspect
from gristmill.corpus.remote import RemotePath
from gristmill.corpus.rules import RuleSettings, columns_of, judge
from gristmill.corpus.scrub import ScrubSettings, scrub
from gristmill.corpus.split import SplitPlan, plan_split
from gristmill.corpus.store import KIND, UNITS, Corpus, Cut, write_layout
from gristmill.corpus.units import Piece, Unit, plan_units, stamp_of
from gristmill.errors import InputError, RunError

__all__ = ["CorpusConfig", "Progress", "build", "decide_again"]

FORMAT_VERSION = 2
Progress = Callable[[str, int, int | None], None]
"""What is being done, how many bytes of it are, and how many there are if that is known."""

_PROGRESS_SECONDS = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The [corpus] table of a recipe."""

    sources: tuple[str, ...] | dict[str, tuple[str, ...]]
    """Files, folders (with all that is below them), globs and URLs; `gristmill corpus build --help` lists the formats.
    Or a table of them by name, which a mix can weigh: sources = {books = ["books/"], web = ["web/*.jsonl"]}."""
    exclude: tuple[str, ...] = ()
    """Patterns such as "README*"; a file or folder whose name or path matches one is left out."""
    forgotten: str | None = None
    """A list that `gristmill corpus forget` writes: what is on it is left out. That beside the corpus is always obeyed."""
    text_column: str | None = None
    """The column or key that holds the text; found by its name or its length where it is not given."""
    encoding: str | None = None
    """The encoding of all files; found out for each file where it is not given."""
    header: Literal["detect", "present", "absent"] = "detect"
    """Whether the first row of a .csv or .tsv names its columns; without a header they are column_1, column_2, …"""
    document_separator: str | None = None
    """Regular expression for whole lines that divide a text file into documents: "" is a blank line, "%" fortunes."""
    on_error: Literal["skip", "fail"] = "skip"
    """What to do about a broken row or an unreadable file: leave it out and count it, or stop."""
    minimum_characters: int = 1
    """Shorter documents are dropped; white space around a text does not count."""
    valid_fraction: float = 0.05
    """The share of the documents (of the text, where there is only one) that is held out for validation."""
    valid_maximum_bytes: int = 8_000_000
    """Validation text beyond this goes to training instead."""
    held_out: str | None = None
    """The directory of another corpus of this text, whose validation text is this one's too. What of it is here, and what
    is superfluous beside it, is left out: models that learned from either can be measured on the same."""
    fraction: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """The share of the documents, by their bytes, that is used: what would less text give? Validation text stays."""

    rules: RuleSettings = dataclasses.field(default_factory=RuleSettings)
    """What of the documents is good enough; by default all."""
    quality: QualitySettings = dataclasses.field(default_factory=QualitySettings)
    """What a classifier that you train says is good enough; by default there is none."""
    perplexity: PerplexitySettings = dataclasses.field(default_factory=PerplexitySettings)
    """What an n-gram model of your own text foretells well enough; by default there is none."""
    contamination: ContaminationSettings = dataclasses.field(default_factory=ContaminationSettings)
    """Which evaluation sets must not be in the text."""
    scrub: ScrubSettings = dataclasses.field(default_factory=ScrubSettings)
    """Which personal data is replaced."""
    dedup: DedupSettings = dataclasses.field(default_factory=DedupSettings)
    """What of the documents is superfluous."""
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    """Where the work is done."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if not 0 <= self.valid_fraction < 1:
            raise InputError(
                f"valid_fraction is {self.valid_fraction}, expected 0 to 1", "0.05 holds out a twentieth"
            )
        if self.minimum_characters < 1 or self.valid_maximum_bytes < 1:
            raise InputError("minimum_characters and valid_maximum_bytes are at least 1")
        if self.encoding is not None:
            newline_of(self.encoding)
        try:
            re.compile(self.document_separator or "")
        except re.error as error:
            raise InputError(
                f'document_separator "{self.document_separator}" is no regular expression: {error}',
                r'special characters need a backslash: document_separator = "\\*\\*\\*"',
            ) from None

    @property
    def _reading(self) -> ReadOptions:
        return ReadOptions(self.text_column, self.encoding, self.header, self.document_separator)


def build(config: CorpusConfig, out: Path, *, seed: int = 0, progress: Progress | None = None) -> Artifact:
    """Returns the corpus of a config in the directory `out`, built unless it stands there for the same bytes.

    The seed is recorded and changes nothing: which documents are validation depends on the texts alone, so that
    runs with different seeds are measured on the same ones.

    Raises:
        InputError: nothing can be read, the text column is unclear, or (`on_error = "fail"`) something is broken.
        RunError: a worker died again and again; what was read stays, and the same command goes on.
    """
    report = _throttled(progress)
    config.scrub.check()
    config.quality.check()
    config.perplexity.check()
    found, source_of = _find(config)
    stamps = [stamp_of(file.path) for file in found.files]
    total = sum(size for size, _ in stamps)
    pieces = _hashed(plan_units(found.files, stamps), total, config, report)
    reference = _reference(config)
    inputs = _inputs(pieces)
    forgotten = obeyed(out, config.forgotten, _forgotten_by(out))
    settings = _settings(config, inputs, forgotten, reference)
    key = artifact.artifact_key(KIND, FORMAT_VERSION, settings, None, seed)
    existing = artifact.find(out, key)
    if existing is not None and not existing.manifest.metrics["to_read_again"]:
        return existing
    with artifact.draft(
        out, kind=KIND, format_version=FORMAT_VERSION, config=settings, seed=seed, keep_partial=True
    ) as work:
        jobs = [
            job._replace(forgotten=forgotten.of({p.file.name: inputs[p.file.name] for p in job.unit.pieces}))
            for job in _jobs(pieces, config, work.path / UNITS)
        ]
        _link(out / UNITS, work.path / UNITS, jobs)
        if reference is not None:
            _link(reference.artifact.path / UNITS, work.path / UNITS, jobs)
        judges = Judges(config.quality, config.perplexity, work.path, out)
        report("learning", 0, None)
        judges.learn()
        outcomes = _read(jobs, config, total, report)
        work.metrics.update(
            _decide(work.path, jobs, outcomes, found, source_of, total, config, report, reference, judges)
        )
        work.metrics["recipe"] = to_dict(config)
    return artifact.open_artifact(out, KIND, verify=False)


def decide_again(out: Path, *, progress: Progress | None = None) -> Artifact:
    """Returns the corpus in `out` without what its lists say is forgotten: no raw file is read.

    The same bytes as `build` would give. Units that hold nothing forgotten are taken over as they are.

    Raises:
        InputError: it is no corpus, one of an earlier version, or what its recipe names besides texts is gone.
    """
    report = _throttled(progress)
    before = Corpus(out)
    manifest = before.artifact.manifest
    config = recipe_of(before)
    for settings in (config.scrub, config.quality, config.perplexity):
        settings.check()
    reference = _reference(config)
    inputs: dict[str, str] = manifest.config["inputs"]
    forgotten = obeyed(out, config.forgotten, _forgotten_by(out))
    decided = _settings(config, inputs, forgotten, reference)
    existing = artifact.find(out, artifact.artifact_key(KIND, FORMAT_VERSION, decided, None, manifest.seed))
    if existing is not None:
        return existing
    total, found = manifest.metrics["read"]["bytes"], Found([], manifest.metrics["read"]["skipped_files"])
    files = before.files()
    source_of = {file: name for inside in files.values() for file, name in inside.items()}
    with artifact.draft(
        out, kind=KIND, format_version=FORMAT_VERSION, config=decided, seed=manifest.seed, keep_partial=True
    ) as work:
        jobs = []
        for number, (name, inside) in enumerate(files.items()):
            concerning = forgotten.of({file: inputs[file] for file in inside})
            directory = work.path / UNITS
            jobs.append(ReadJob(Unit(number, ()), config._reading, config.on_error, directory, name, concerning))
        _link(out / UNITS, work.path / UNITS, jobs)
        judges = Judges(config.quality, config.perplexity, work.path, out)
        report("learning", 0, None)
        judges.learn()
        outcomes = _read(jobs, config, total, report)
        work.metrics.update(
            _decide(work.path, jobs, outcomes, found, source_of, total, config, report, reference, judges)
        )
        work.metrics["recipe"] = to_dict(config)
    return artifact.open_artifact(out, KIND, verify=False)


def recipe_of(corpus: Corpus) -> CorpusConfig:
    """Returns the table of the recipe that a corpus was built by.

    Raises:
        InputError: another version of gristmill built it.
    """
    manifest = corpus.artifact.manifest
    if manifest.format_version != FORMAT_VERSION or "recipe" not in manifest.metrics:
        raise InputError(
            f"{corpus.artifact.path} was built by another version of gristmill", "build it again with this one"
        )
    table = {name: value for name, value in manifest.metrics["recipe"].items() if value is not None}
    return from_dict(CorpusConfig, table, "corpus")


def _settings(
    config: CorpusConfig, inputs: Mapping[str, str], forgotten: Forgotten, reference: Corpus | None
) -> dict[str, Any]:
    """Returns what decides a corpus."""
    settings: dict[str, Any] = to_dict(config)
    del settings["engine"]  # where it is done does not matter
    del settings["forgotten"]
    if forgotten.identity or config.forgotten is not None:
        settings["forgotten"] = {"list": config.forgotten, "identity": forgotten.identity}
    settings["inputs"] = dict(inputs)
    settings["scrub"] |= config.scrub.decided_by
    settings["quality"] |= config.quality.decided_by
    settings["perplexity"] |= config.perplexity.decided_by
    settings["contamination"] |= {"contents": decided_by(config.contamination)}
    if reference is not None:  # where it lies does not matter
        settings["held_out"] = reference.artifact.manifest.content_hash
    return settings


def _forgotten_by(out: Path) -> str | None:
    """The identity of what the corpus that stands there has forgotten."""
    try:
        config = artifact.open_artifact(out, KIND, verify=False).manifest.config
    except InputError:
        return None
    identity: str | None = config.get("forgotten", {}).get("identity")
    return identity


def _find(config: CorpusConfig) -> tuple[Found, dict[str, str]]:
    """Returns the files of all sources, and the name of each file's source."""
    if not isinstance(config.sources, Mapping):
        found = find_files(config.sources, config.exclude)
        return found, {file.name: "" for file in found.files}
    files: dict[str, SourceFile] = {}
    source_of: dict[str, str] = {}
    skipped: collections.Counter[str] = collections.Counter()
    for name, sources in config.sources.items():
        if not re.fullmatch(r"[\w.-]+", name):
            raise InputError(
                f'the source "{name}" has a name that is no word', "use letters, digits, - and _"
            )
        found = find_files(sources, config.exclude)
        skipped.update(found.skipped)
        for file in found.files:
            other = source_of.setdefault(file.name, name)
            if other != name:
                raise InputError(
                    f'{file.name} belongs to the sources "{other}" and "{name}"',
                    "a file has one source: narrow one of them",
                )
            files[file.name] = file
    if not files:
        raise InputError("there are no sources", 'name files, folders or globs: sources = ["texts/"]')
    return Found([files[name] for name in sorted(files)], dict(sorted(skipped.items()))), source_of


# --- reading --------------------------------------------------------------------------------------------------------


def _hashed(
    units: list[Unit], total: int, config: CorpusConfig, report: Progress
) -> list[tuple[Unit, list[str]]]:
    """Returns each unit with the hashes of its pieces."""
    hashed, done = [], 0
    for unit in units:
        hashes = []
        for piece in unit.pieces:
            report("hashing", done, total)
            done += piece.size_bytes
            try:
                hashes.append(_hash_piece(piece))
            except OSError as error:
                if config.on_error == "fail":
                    raise InputError(
                        f"{piece.file.name} can't be read: {error.strerror}", SKIP_HINT
                    ) from None
                hashes.append("unreadable")
        hashed.append((unit, hashes))
    return hashed


def _hash_piece(piece: Piece) -> str:
    """Returns what tells one content from another: a hash of the bytes, or what a store says of an object that is elsewhere."""
    path, (_, changed) = piece.file.path, piece.stamp
    if isinstance(path, RemotePath) and changed:  # its ETag, say: it need not be fetched twice
        return hashlib.sha256(f"{path.url} {piece.stamp}".encode()).hexdigest()
    if piece.end is None:
        return artifact.hash_file(piece.file.path)
    digest = hashlib.sha256()
    with piece.file.path.open("rb") as file:
        file.seek(piece.start)
        left = piece.end - piece.start
        while left and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        # the last record may end behind the range
        digest.update(file.readline(1 << 24))
    return digest.hexdigest()


def _inputs(pieces: Sequence[tuple[Unit, list[str]]]) -> dict[str, str]:
    """Returns the hash of each file: of its pieces' hashes where it has several."""
    parts: dict[str, list[str]] = {}
    for unit, hashes in pieces:
        for piece, value in zip(unit.pieces, hashes, strict=True):
            parts.setdefault(piece.file.name, []).append(value)
    return {
        name: values[0] if len(values) == 1 else hashlib.sha256("".join(values).encode()).hexdigest()
        for name, values in parts.items()
    }


def _jobs(pieces: Sequence[tuple[Unit, list[str]]], config: CorpusConfig, directory: Path) -> list[ReadJob]:
    jobs: list[ReadJob] = []
    taken: set[int] = set()
    for unit, hashes in pieces:
        what = [DOCUMENTS_FORMAT, tuple(config._reading), config.on_error]
        what += [(p.file.name, p.start, p.end, value) for p, value in zip(unit.pieces, hashes, strict=True)]
        name = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
        job = ReadJob(unit, config._reading, config.on_error, directory, name)
        while job.first_key in taken:  # one in a million corpora
            name = hashlib.sha256(name.encode()).hexdigest()[:16]
            job = job._replace(name=name)
        taken.add(job.first_key)
        jobs.append(job)
    return jobs


def _link(before: Path, now: Path, jobs: Sequence[ReadJob]) -> None:
    """Takes over what the corpus that stands there has read of the same bytes in the same way.

    A unit that is there already stays as it is: it may have forgotten what it still has there.
    """
    now.mkdir(parents=True, exist_ok=True)
    names = {job.name for job in jobs if not (now / f"{job.name}.{OUTCOME}").exists()}
    files = before.glob("*") if before.is_dir() else ()
    for file in sorted(files, key=lambda path: (path.suffix == f".{OUTCOME}", path.name)):  # the outcome last
        target = now / file.name
        if file.name.partition(".")[0] in names:
            target.unlink(missing_ok=True)
            try:
                os.link(file, target)
            except OSError:  # another file system, or one without links
                with contextlib.suppress(OSError):
                    shutil.copyfile(file, target)


def _read(
    jobs: Sequence[ReadJob], config: CorpusConfig, total: int, report: Progress
) -> dict[str, dict[str, Any]]:
    """Reads all units and returns the outcome of each by its name."""
    outcomes: dict[str, dict[str, Any]] = {}
    sizes = {job.name: sum(piece.size_bytes for piece in job.unit.pieces) for job in jobs}
    done = 0
    report("reading", 0, total)
    results = run_all(
        read_unit,
        jobs,
        config.engine,
        name_of=being_read,
        is_done=outcome_of,
    )
    for outcome in results:
        outcomes[outcome["name"]] = outcome
        done += sizes[outcome["name"]]
        report("reading", done, total)
    changed = [job for job in jobs if outcomes[job.name]["changed_meanwhile"]]
    if changed and config.on_error == "fail":
        raise RunError(outcomes[changed[0].name]["problems"][-1], "run the same command again")
    return outcomes


# --- deciding -------------------------------------------------------------------------------------------------------


def _decide(
    directory: Path,
    jobs: Sequence[ReadJob],
    outcomes: dict[str, dict[str, Any]],
    found: Found,
    source_of: Mapping[str, str],
    total: int,
    config: CorpusConfig,
    report: Progress,
    reference: Corpus | None,
    judges: Judges,
) -> dict[str, Any]:
    """Decides about every document, writes that down, and returns the metrics."""
    ordered = [outcomes[job.name] for job in jobs]
    units = Units(directory / UNITS, tuple(job.name for job in jobs), tuple(o["documents"] for o in ordered))
    decisions = Decisions(units)
    report("deciding", 0, None)
    decisions.drop(Reasons.FORGOTTEN, decisions.attribute("bytes") == 0)  # no other text is empty
    held = None if reference is None else held_out_by(reference)
    if held is not None:
        decisions.drop(Reasons.HELD_OUT, np.isin(decisions.attribute("hash"), held.hashes))
    if config.fraction < 1:
        rest, hashes = decisions.kept, decisions.attribute("hash")
        used = np.ones(len(rest), dtype=bool)
        used[rest] = share_of(hashes[rest], decisions.attribute("bytes")[rest], config.fraction)
        decisions.drop(Reasons.LEFT_OUT, ~used)
    decisions.drop(Reasons.TOO_SHORT, decisions.attribute("characters") < config.minimum_characters)
    if not config.rules.is_empty:
        tables = decisions.attributes(columns_of(config.rules))
        parts = [judge(table, config.rules) for table in tables]  # hundreds of bytes a document while it lasts
        codes = np.concatenate([np.array([], np.uint8), *(part.codes for part in parts)])
        for code, rule in enumerate(parts[0].names[1:] if parts else (), start=1):
            decisions.drop(rule, codes == code)
    if config.dedup.exact:
        decisions.drop_duplicates(Reasons.DUPLICATE, exact_duplicates(units, config.engine))
    judged = judges.drop(decisions, config.engine)
    if config.dedup.near or held is not None:
        is_held = decisions.dropped(Reasons.HELD_OUT)
        gone = np.sort(decisions.keys[~decisions.kept & ~is_held])
        dedup = dataclasses.replace(config.dedup, near=config.dedup.near or DedupSettings().near)
        near = near_duplicates(units, dedup, config.engine, gone)
        # of text that is measured on none is learned, whatever else is kept
        decisions.drop(Reasons.HELD_OUT, beside(units.places(near.keys), units.places(near.kept), is_held))
        if config.dedup.near:
            decisions.drop_duplicates(Reasons.NEAR_DUPLICATE, near)
    edits = Edits(units)

    def texts(chosen: Sequence[int]) -> Iterator[tuple[int, str]]:
        return _texts(units, chosen)

    contaminated = 0
    if config.contamination.sets:
        contaminated = decontaminate(directory, config.contamination, decisions, edits, texts, config.engine)
    for kind, most in (("paragraph", config.dedup.paragraphs), ("line", config.dedup.lines)):
        if most is not None:
            cut_repeated(units, kind, most, decisions.kept, edits, config.engine)  # type: ignore[arg-type]
    if config.scrub.kinds:
        scrub(units, config.scrub, decisions.kept, edits, texts, config.engine)
    sizes = _sizes(decisions, edits)
    decisions.drop(Reasons.TOO_SHORT, sizes.characters < config.minimum_characters)
    places = np.flatnonzero(decisions.kept)
    if not len(places):
        _fail_with_nothing_left(ordered, decisions)
    plan = plan_split(
        decisions.attribute("hash")[places],
        sizes.text_bytes[places],
        valid_fraction=config.valid_fraction if held is None else 0.0,
        valid_maximum_bytes=config.valid_maximum_bytes,
    )
    if reference is None:
        cut, validation = _cut_of(units, decisions, edits, places, plan, jobs), None
    else:
        cut = _same_cut(reference, decisions, edits)
        validation = os.path.relpath(reference.artifact.path, directory)  # a sibling of what it becomes
    decisions.split(plan.threshold)
    decisions.divide(source_of)
    decisions.write(directory)
    edits.write(directory)
    write_layout(directory, units, decisions.groups, cut, validation)
    metrics = _metrics(ordered, decisions, edits, sizes, found, total, cut) | judged
    if reference is not None:
        metrics["splits"]["valid"] = reference.metrics["splits"]["valid"]
    return metrics | ({"contaminated_documents": contaminated} if config.contamination.sets else {})


def _reference(config: CorpusConfig) -> Corpus | None:
    """The corpus that is to have the same validation text, if one is named, checked."""
    if config.held_out is None:
        return None
    reference = Corpus(artifact.open_artifact(Path(config.held_out), KIND, verify=False))
    if reference.reading != config._reading:
        raise InputError(
            f"the corpus {config.held_out} was read in another way, so that its documents are others",
            "encoding, header, text_column and document_separator have to be the same",
        )
    return reference


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


class _Sizes(NamedTuple):
    """How long the text of each document is when its edits are made."""

    characters: Any
    text_bytes: Any


def _sizes(decisions: Decisions, edits: Edits) -> _Sizes:
    characters = decisions.attribute("characters").astype(np.int64)
    text_bytes = decisions.attribute("bytes").astype(np.int64)
    for place, text in _texts(decisions.units, np.flatnonzero(text_bytes > EXAMINED_BYTES).tolist()):
        characters[place] = len(text)  # of these no more than the beginning was looked at
    for place, text in _texts(decisions.units, edits.documents):
        left = edits.apply(place, text)
        characters[place], text_bytes[place] = len(left), len(left.encode())
    return _Sizes(characters, text_bytes)


def _texts(units: Units, places: Sequence[int] | np.ndarray) -> Iterator[tuple[int, str]]:
    """Yields the texts of documents, given their places in the order of the sources, ascending."""
    import pyarrow.parquet

    chosen = np.asarray(places, dtype=np.int64)
    begin = 0
    for file in units.texts:
        with pyarrow.parquet.ParquetFile(file) as texts:
            for group in range(texts.num_row_groups):
                count = texts.metadata.row_group(group).num_rows
                rows = chosen[slice(*np.searchsorted(chosen, [begin, begin + count]))] - begin
                if len(rows):
                    column = texts.read_row_group(group, columns=["text"])["text"].take(rows)
                    yield from zip((rows + begin).tolist(), column.to_pylist(), strict=True)
                begin += count


def _cut_of(
    units: Units, decisions: Decisions, edits: Edits, places: Any, plan: SplitPlan, jobs: Sequence[ReadJob]
) -> Cut | None:
    """Returns where the one document is cut that is to be cut, if one is."""
    import pyarrow.parquet

    if plan.cut_document is None:
        return None
    place = int(places[plan.cut_document])
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


def _metrics(
    outcomes: Sequence[dict[str, Any]],
    decisions: Decisions,
    edits: Edits,
    lengths: _Sizes,
    found: Found,
    total: int,
    cut: Cut | None,
) -> dict[str, Any]:
    kept = decisions.kept
    characters, sizes = lengths
    splits = {
        name: {
            "documents": int(which.sum()),
            "characters": int(characters[which].sum()),
            "text_bytes": int(sizes[which].sum()),
        }
        for name, which in (("train", kept & ~decisions.valid), ("valid", kept & decisions.valid))
    }
    if cut is not None:
        moved = _held_out_part(decisions, edits, cut)
        for name, value in moved.items():
            splits["valid"][name] += value
            splits["train"][name] -= value if name != "documents" else 0
    languages, scripts = (
        _amounts_by(*decisions.words(name), kept, sizes) for name in ("language", "script")
    )
    dropped: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        for reason, count in outcome["lost"].items():
            dropped.setdefault(reason, {"documents": 0, "text_bytes": 0})["documents"] += count
    for code, reason in enumerate(decisions.reasons):
        which = decisions.reason == code
        if code and which.any():
            dropped[reason] = {"documents": int(which.sum()), "text_bytes": int(sizes[which].sum())}
    changed: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        changed.update(outcome["changed"])
    near = decisions.dropped(Reasons.NEAR_DUPLICATE)
    lost = float(((1 - decisions.cover[near]) * sizes[near]).sum())
    return {
        "documents": sum(entry["documents"] for entry in splits.values()),
        "characters": sum(entry["characters"] for entry in splits.values()),
        "text_bytes": sum(entry["text_bytes"] for entry in splits.values()),
        "read": {
            "files": len({source["path"] for outcome in outcomes for source in outcome["sources"]}),
            "bytes": total,
            "documents": sum(outcome["records"] for outcome in outcomes),
            "skipped_files": found.skipped,
        },
        "splits": splits,
        "sources": _sources(outcomes),
        "languages": languages,
        "scripts": scripts,
        "dropped": dict(sorted(dropped.items())),
        "unique_bytes_lost": round(lost),
        "edits": dict(sorted(edits.made.items())),
        "problems": [problem for outcome in outcomes for problem in outcome["problems"]][:KEPT_PROBLEMS],
        "changed": {name: changed[name] for name in (*REPAIRS, DIVIDED, *CHANGES)},
        "to_read_again": sum(outcome["changed_meanwhile"] for outcome in outcomes),
        "lengths": _percentiles(characters[kept]),
    }


def _amounts_by(numbers: Any, words: Sequence[str], kept: Any, sizes: Any) -> dict[str, dict[str, int]]:
    """Returns how much text of each word of an attribute is kept."""
    return {
        word: {"documents": int(which.sum()), "text_bytes": int(sizes[which].sum())}
        for number, word in enumerate(words)
        if (which := kept & (numbers == number)).any()
    }


def _held_out_part(decisions: Decisions, edits: Edits, cut: Cut) -> dict[str, int]:
    place = int(decisions.units.places(np.array([cut.key]))[0])
    ((_, text),) = _texts(decisions.units, [place])
    part = edits.apply(place, text)[cut.character :]
    return {"documents": 1, "characters": len(part), "text_bytes": len(part.encode())}


def _sources(outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what was read of each file; the ranges of a file that was divided are added up."""
    files: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        for source in outcome["sources"]:
            entry = files.setdefault(source["path"], {**source, "documents": 0, "text_bytes": 0})
            entry["documents"] += source["documents"]
            entry["text_bytes"] += source["text_bytes"]
    return list(files.values())


def _fail_with_nothing_left(outcomes: Sequence[dict[str, Any]], decisions: Decisions) -> NoReturn:
    problems = [problem for outcome in outcomes for problem in outcome["problems"]]
    if problems and not sum(
        outcome["records"] for outcome in outcomes
    ):  # there is nothing to say but what went wrong
        raise InputError(problems[0], next(o["hint"] for o in outcomes if o["problems"]))
    counts: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        counts.update(outcome["lost"])
    counts.update(decisions.reasons[code] for code in decisions.reason.tolist())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    first = f"; the first: {problems[0]}" if problems else ""
    files = len({source["path"] for outcome in outcomes for source in outcome["sources"]})
    raise InputError(
        f"no documents are left of {files} files: {reasons or 'they hold none'}{first}",
        "look at text_column, minimum_characters and document_separator",
    )


def _percentiles(characters: Any) -> dict[str, int]:
    names = {
        "minimum": 0,
        "p10": 10,
        "p25": 25,
        "median": 50,
        "p75": 75,
        "p90": 90,
        "p99": 99,
        "maximum": 100,
    }
    values = np.percentile(characters, list(names.values()), method="nearest")
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def _throttled(progress: Progress | None) -> Progress:
    last = 0.0

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if progress is not None and time.monotonic() - last > _PROGRESS_SECONDS:
            last = time.monotonic()
            progress(what, done, total)

    return report
