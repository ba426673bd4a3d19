"""Every stage writes one directory with a `manifest.json`, whole or not at all.

While a stage works, its files lie in `.NAME.partial` beside the directory that it will become. When it is done,
every file is hashed, the manifest is written, and the directory is renamed into place: a crash at any moment
leaves the last good state. A stage that is run again with the same kind, format, config, seed and parents has
the same `key`, and finds its work done (or, if it keeps progress in the partial directory, half done).
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import gristmill
from gristmill.config import to_dict
from gristmill.errors import CorruptArtifact, InputError, RunError

__all__ = [
    "SCRATCH",
    "Artifact",
    "Draft",
    "Manifest",
    "artifact_key",
    "cpu_seconds",
    "disk_errors",
    "draft",
    "exclusive",
    "find",
    "hash_file",
    "is_held",
    "lineage",
    "open_artifact",
    "write_json",
    "write_text",
]

MANIFEST = "manifest.json"

SCRATCH = ".work"
"""Below a draft: what is needed to resume and is no part of the artifact; removed once the artifact stands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artifact is, what it was made of, and what it cost."""

    kind: str
    """What the directory holds: "corpus", "tokenizer", "shards", "checkpoint", "evaluation", "report"."""
    format_version: int
    """Raised whenever the files of this kind change their meaning."""
    key: str
    """Hash of kind, format, config, seed and parents: what would be computed, whether or not it has been."""
    content_hash: str
    """Hash of the files' hashes: what was computed."""
    config: dict[str, Any]
    """The full resolved configuration."""
    parents: dict[str, dict[str, str]]
    """Role -> path (relative to this directory where it can be), kind and content_hash of each artifact read."""
    seed: int
    metrics: dict[str, Any]
    """What was measured."""
    cost: dict[str, float]
    """elapsed_seconds and cpu_seconds at least."""
    files: dict[str, dict[str, Any]]
    """Path -> sha256 and size_bytes."""
    created_at: str
    gristmill_version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact:
    """A finished directory and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        """What the directory holds."""
        return self.manifest.kind

    def verify(self, names: Collection[str] | None = None) -> None:
        """Hashes every file (or those named) and compares with the manifest.

        Raises:
            CorruptArtifact: a file is missing, shorter, longer or changed; it is named.
        """
        for problem in self.problems(names):
            raise CorruptArtifact(problem, _rebuild_hint(self.path))

    def problems(self, names: Collection[str] | None = None) -> Iterator[str]:
        """Yields one sentence for each thing that is not as the manifest says, the manifest itself included."""
        manifest = self.manifest
        hashes = {name: entry["sha256"] for name, entry in manifest.files.items()}
        parents = {role: entry["content_hash"] for role, entry in manifest.parents.items()}
        key = _key(manifest.kind, manifest.format_version, manifest.config, parents, manifest.seed)
        if _hash_json(hashes) != manifest.content_hash or key != manifest.key:
            yield f"{self.path / MANIFEST} was changed since it was written (its hashes do not agree)"
        for name, entry in manifest.files.items():
            if names is not None and name not in names:
                continue
            file = self.path / name
            if not file.is_file():
                yield f"{file} is missing"
            elif (size := file.stat().st_size) != entry["size_bytes"]:
                yield f"{file} has {size:,} bytes, expected {entry['size_bytes']:,}"
            elif hash_file(file) != entry["sha256"]:
                yield f"{file} was changed since it was written (its hash differs)"


@dataclasses.dataclass(slots=True)
class Draft:
    """An artifact in the making: write files below `path`, fill in `metrics`, and leave the `with` block."""

    path: Path
    key: str
    resumed: bool
    """True when the partial directory of an interrupted run with the same key was found and kept."""
    metrics: dict[str, Any]
    cost: dict[str, float]
    """Costs of earlier, interrupted attempts may be added; elapsed and CPU seconds of this one are added on exit."""


@contextlib.contextmanager
def draft(
    path: Path,
    *,
    kind: str,
    format_version: int,
    config: Any,
    parents: Mapping[str, Artifact] | None = None,
    seed: int = 0,
    keep_partial: bool = False,
) -> Iterator[Draft]:
    """Opens an artifact for writing; it appears at `path`, hashed and whole, when the block ends without error.

    With `keep_partial` the partial directory of an interrupted attempt with the same key is kept, and again
    kept when this attempt fails; otherwise each attempt starts empty. What stood at `path` is moved to
    `replaced/` beside it, never deleted.
    """
    parents = parents or {}
    config = to_dict(config)
    key = artifact_key(kind, format_version, config, parents, seed)
    partial = _partial(path)
    key_file = partial / ".key"
    _finish_rename(path)
    resumed = keep_partial and key_file.is_file() and key_file.read_text() == key
    with disk_errors(path):
        if not resumed:
            if (partial / SCRATCH).is_dir():  # another run's progress, perhaps hours of it
                _move_aside(partial, path.parent / "replaced" / f"{path.name}-unfinished")
            elif partial.exists():
                shutil.rmtree(partial)
            partial.mkdir(parents=True)
            write_text(key_file, key)
        (partial / MANIFEST).unlink(missing_ok=True)
    started, cpu_started = time.monotonic(), cpu_seconds()
    work = Draft(path=partial, key=key, resumed=resumed, metrics={}, cost={})
    with disk_errors(path):
        try:
            yield work
        except BaseException:
            if not keep_partial:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        for name, spent in (
            ("elapsed_seconds", time.monotonic() - started),
            ("cpu_seconds", cpu_seconds() - cpu_started),
        ):
            work.cost[name] = round(work.cost.get(name, 0.0) + spent, 3)
        for leftover in partial.rglob(".*.tmp"):  # of write_text, where an earlier attempt was killed
            if leftover.is_file():
                leftover.unlink()
        files = {
            file.relative_to(partial).as_posix(): {
                "sha256": hash_file(file),
                "size_bytes": file.stat().st_size,
            }
            for file in sorted(partial.rglob("*"))
            if file.is_file() and file != key_file and SCRATCH not in file.relative_to(partial).parts
        }
        manifest = Manifest(
            kind=kind,
            format_version=format_version,
            key=key,
            content_hash=_hash_json({name: entry["sha256"] for name, entry in files.items()}),
            config=config,
            parents={
                role: {
                    "path": _relative(parent.path, path),
                    "kind": parent.kind,
                    "content_hash": parent.manifest.content_hash,
                }
                for role, parent in parents.items()
            },
            seed=seed,
            metrics=work.metrics,
            cost=work.cost,
            files=files,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            gristmill_version=gristmill.__version__,
        )
        write_json(
            partial / MANIFEST,
            {field.name: getattr(manifest, field.name) for field in dataclasses.fields(manifest)},
        )
        _replace_directory(partial, path)
        _tidy(path)  # last: until the rename the work can still be resumed


def artifact_key(
    kind: str, format_version: int, config: Any, parents: Mapping[str, Artifact] | None = None, seed: int = 0
) -> str:
    """Returns the hash of everything that decides an artifact's content."""
    hashes = {role: parent.manifest.content_hash for role, parent in (parents or {}).items()}
    return _key(kind, format_version, to_dict(config), hashes, seed)


def find(path: Path, key: str) -> Artifact | None:
    """Returns the artifact at `path` if it is whole and was made for `key`, else None: the stage has to run."""
    _finish_rename(path)
    if not (path / MANIFEST).is_file():
        return None
    artifact = open_artifact(path, verify=False)
    if artifact.manifest.key != key:
        return None
    artifact.verify()
    return artifact


def open_artifact(path: Path, kind: str | None = None, *, verify: bool = True) -> Artifact:
    """Returns the artifact in a directory, its files checked against the manifest's hashes before use.

    Raises:
        InputError: there is no artifact, or it is of another kind.
        CorruptArtifact: a file is missing, truncated or changed.
    """
    path = Path(path)
    try:
        table = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(**table)
    except FileNotFoundError:
        if not path.exists():
            raise InputError(
                f"there is no directory {path}", "`gristmill runs` lists the runs below a folder"
            ) from None
        inside = sorted(p.parent.name for p in path.glob(f"*/{MANIFEST}"))
        hint = (
            f"it holds: {', '.join(inside)}"
            if inside
            else "a stage that was interrupted is resumed by the same command"
        )
        raise InputError(f"{path} is not a finished artifact: it has no {MANIFEST}", hint) from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise CorruptArtifact(f"{path / MANIFEST} is damaged: {error}", _rebuild_hint(path)) from None
    if kind is not None and manifest.kind != kind:
        raise InputError(f"{path} is a {manifest.kind}, expected a {kind}")
    artifact = Artifact(path, manifest)
    if verify:
        artifact.verify()
    return artifact


def lineage(artifact: Artifact) -> dict[str, Any]:
    """Returns the artifact and, below "parents", all that it was made of, back to the text."""
    parents = {}
    for role, entry in artifact.manifest.parents.items():
        parent_path = (artifact.path / entry["path"]).resolve()
        try:
            parent = open_artifact(parent_path, verify=False)
        except InputError:
            parents[role] = {**entry, "state": "missing"}
            continue
        same = parent.manifest.content_hash == entry["content_hash"]
        parents[role] = {**lineage(parent), "state": "unchanged" if same else "replaced since"}
    manifest = artifact.manifest
    return {
        "path": str(artifact.path),
        "kind": manifest.kind,
        "content_hash": manifest.content_hash,
        "created_at": manifest.created_at,
        "parents": parents,
    }


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds a directory for one run; the lock goes with the process, however it ends.

    Raises:
        InputError: another process works in the directory.
    """
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        handle = (directory / ".lock").open("a+")
    try:
        try:
            _lock(handle.fileno())
        except OSError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise InputError(
                f"another run (process {holder}) is working in {directory}",
                "wait for it, stop it, or choose another directory with --out",
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
    finally:
        handle.close()


def is_held(directory: Path) -> bool:
    """Returns whether a process works in the directory at this moment; False where that can't be known."""
    try:
        import fcntl

        with (directory / ".lock").open() as handle:
            fcntl.flock(handle.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):  # Windows; never locked; not ours to read
        return False
    return False


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into a plain error that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"no space left on the disk while writing {path}",
                "free some space and run the same command again: finished stages and checkpoints are kept",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise InputError(
                f"{error.filename or path} can't be used: {error.strerror}",
                "check its permissions, or choose another directory with --out",
            ) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    encoder = json.JSONEncoder(ensure_ascii=False, indent=2, allow_nan=False)
    _write(
        path, itertools.chain(encoder.iterencode(value), "\n")
    )  # the manifest of a million files is 300 MB


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: afterwards it has the old content or the new, never a part."""
    _write(path, (text,))


def _write(path: Path, parts: Iterable[str]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@runtime_checkable
class Openable(Protocol):
    """What can be opened for reading: a path, or a place elsewhere."""

    def open(self, mode: Literal["rb"], /) -> Any:
        """Returns a file to read bytes from."""


def hash_file(path: Openable) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace_directory(partial: Path, path: Path) -> None:
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if path.exists():
        old = "unknown"
        with contextlib.suppress(OSError, ValueError, KeyError):
            old = json.loads((path / MANIFEST).read_text())["content_hash"][:8]
        aside = path.parent / "replaced" / f"{path.name}-{old}"
        if old != "unknown" and aside.exists():
            shutil.rmtree(aside)  # the same content, by its hash
        _move_aside(path, aside)
    partial.rename(path)


def _partial(path: Path) -> Path:
    return path.parent / f".{path.name}.partial"


def _finish_rename(path: Path) -> None:
    """Puts a finished artifact in place where a crash fell between the two renames of _replace_directory."""
    if not path.exists() and (_partial(path) / MANIFEST).is_file():
        with contextlib.suppress(CorruptArtifact):  # cut off by a power failure: it is not finished after all
            open_artifact(_partial(path))
            _partial(path).rename(path)
            _tidy(path)


def _tidy(path: Path) -> None:
    shutil.rmtree(path / SCRATCH, ignore_errors=True)
    (path / ".key").unlink(missing_ok=True)


def _move_aside(path: Path, target: Path) -> None:
    """Renames a directory to `target`, or to that with a number where there is one already."""
    target.parent.mkdir(exist_ok=True)
    number = 1
    free = target
    while free.exists():
        number += 1
        free = target.with_name(f"{target.name}-{number}")
    path.rename(free)


def _key(kind: str, format_version: int, config: Any, parents: Mapping[str, str], seed: int) -> str:
    return _hash_json(
        {
            "kind": kind,
            "format_version": format_version,
            "config": config,
            "parents": dict(parents),
            "seed": seed,
        }
    )


def _relative(target: Path, start: Path) -> str:
    try:
        return Path(os.path.relpath(target, start)).as_posix()
    except ValueError:  # another drive on Windows
        return str(target.resolve())


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def cpu_seconds() -> float:
    """Returns what this process and its finished children have computed, in seconds of one core."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _rebuild_hint(path: Path) -> str:
    return f"move {path} away and run the same command again: only this stage is rebuilt"


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
