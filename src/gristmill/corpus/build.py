"""From sources to a corpus: read, normalise, decide what is kept, split, measure.

Texts are read and written once, by unit (`documents`); what is decided afterwards is a small table beside them. Another
threshold reads nothing again, and a run that was killed reads no more again than was being read.
"""

import collections
import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill import artifact
from gristmill.artifact import Artifact
from gristmill.config import from_dict, to_dict
from gristmill.corpus.deciding import Progress, WasRead, decide
from gristmill.corpus.decontaminate import decided_by
from gristmill.corpus.documents import FORMAT as DOCUMENTS_FORMAT
from gristmill.corpus.documents import (
    OUTCOME,
    SKIP_HINT,
    ReadJob,
    being_read,
    outcome_of,
    read_unit,
)
from gristmill.corpus.engine import run_all
from gristmill.corpus.files import Found, SourceFile, find_files
from gristmill.corpus.forgotten import Forgotten, obeyed
from gristmill.corpus.judgements import Judges
from gristmill.corpus.remote import RemotePath
from gristmill.corpus.settings import CorpusConfig
from gristmill.corpus.store import KIND, UNITS, Corpus
from gristmill.corpus.units import Piece, Unit, plan_units, stamp_of
from gristmill.errors import InputError, RunError

__all__ = ["CorpusConfig", "Progress", "build", "decide_again"]

FORMAT_VERSION = 2

_PROGRESS_SECONDS = 0.3


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
        _fill(work, out, WasRead(work.path, jobs, (), found, source_of, total), config, reference, report)
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
            jobs.append(
                ReadJob(Unit(number, ()), config.reading, config.on_error, directory, name, concerning)
            )
        _link(out / UNITS, work.path / UNITS, jobs)
        _fill(work, out, WasRead(work.path, jobs, (), found, source_of, total), config, reference, report)
    return artifact.open_artifact(out, KIND, verify=False)


def _fill(
    work: artifact.Draft, out: Path, read: WasRead, config: CorpusConfig, reference: Corpus | None, report: Progress
) -> None:  # fmt: skip
    """Reads what has not been read yet, whose outcomes are still missing, and decides about all of it."""
    judges = Judges(config.quality, config.perplexity, work.path, out)
    report("learning", 0, None)
    judges.learn()
    outcomes = _read(read.jobs, config, read.bytes, report)
    read = read._replace(outcomes=[outcomes[job.name] for job in read.jobs])
    work.metrics.update(decide(read, config, judges, reference, report))
    work.metrics["recipe"] = to_dict(config)


def recipe_of(corpus: Corpus) -> CorpusConfig:
    """Returns the table of the recipe that a corpus was built by.

    Raises:
        InputError: another version of gristmill built it.
    """
    manifest = corpus.artifact.manifest
    if manifest.format_version != FORMAT_VERSION or "recipe" not in manifest.metrics:
        raise InputError(
            f"{corpus.artifact.path} was built by another version of gristmill",
            "build it again with this one",
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
        what = [DOCUMENTS_FORMAT, tuple(config.reading), config.on_error]
        what += [(p.file.name, p.start, p.end, value) for p, value in zip(unit.pieces, hashes, strict=True)]
        name = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
        job = ReadJob(unit, config.reading, config.on_error, directory, name)
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


def _reference(config: CorpusConfig) -> Corpus | None:
    """The corpus that is to have the same validation text, if one is named, checked."""
    if config.held_out is None:
        return None
    reference = Corpus(artifact.open_artifact(Path(config.held_out), KIND, verify=False))
    if reference.reading != config.reading:
        raise InputError(
            f"the corpus {config.held_out} was read in another way, so that its documents are others",
            "encoding, header, text_column and document_separator have to be the same",
        )
    return reference


def _throttled(progress: Progress | None) -> Progress:
    last = 0.0

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if progress is not None and time.monotonic() - last > _PROGRESS_SECONDS:
            last = time.monotonic()
            progress(what, done, total)

    return report
