"""Which files a recipe's sources mean, and how each is opened."""

import collections
import contextlib
import fnmatch
import glob
import gzip
import io
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from gristmill.corpus.decode import UnreadableError
from gristmill.errors import InputError

__all__ = ["ENDINGS", "Found", "SourceFile", "Stream", "find_files", "open_stream"]

Format = Literal["text", "json_lines", "json", "csv", "tsv", "parquet"]

_FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_COMPRESSIONS = (".gz", ".zst")
ENDINGS = f"{', '.join(_FORMATS)}; all but .parquet also with {' or '.join(_COMPRESSIONS)}"
"""The file endings that are understood, in words."""

_BUFFER_BYTES = 1 << 20


class SourceFile(NamedTuple):
    """A file to read, and what its ending says about it."""

    name: str
    """The path as the sources give it, printable: bytes that are not UTF-8 are written as \\xNN."""
    path: Path
    format: Format
    compression: Literal["", ".gz", ".zst"]


class Found(NamedTuple):
    """The files to read, sorted by name, and what was passed over."""

    files: list[SourceFile]
    skipped: dict[str, int]
    """Reason (an unknown ending, "excluded", …) -> number of files."""


class Stream(NamedTuple):
    """A decompressed file, and the file below it, whose position tells the progress."""

    content: io.BufferedIOBase
    raw: io.BufferedIOBase


def find_files(sources: Sequence[str], exclude: Sequence[str] = ()) -> Found:
    """Returns the files that paths, folders (with all below) and globs name, each once, in an order of their own.

    Hidden files and folders are passed over, and so are the artifacts of this program: their texts have been read
    once. A symbolic link is followed, a loop of them is not.

    Raises:
        InputError: a source names nothing, a file named by itself has an unknown ending, or nothing is left.
    """
    if not sources:
        raise InputError("there are no sources", 'name files, folders or globs: sources = ["texts/"]')
    chosen: dict[Path, SourceFile] = {}
    skipped: collections.Counter[str] = collections.Counter()
    candidates = sorted(
        {pair for source in sources for pair in _expand(source)}, key=lambda pair: os.fsencode(pair[0])
    )
    for path, named in candidates:
        reason = _reason_to_skip(path, exclude)
        file = None if reason else _classify(path)
        if file is not None:
            chosen.setdefault(path.resolve(), file)
        elif named and not reason:
            raise InputError(f"{_printable(path)}: this ending is not understood", f"understood: {ENDINGS}")
        else:
            skipped[reason or f"ending {_ending(path)}"] += 1
    if not chosen:
        passed = (
            ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "no files at all"
        )
        raise InputError(f"no readable files in {', '.join(sources)}: {passed}", f"understood: {ENDINGS}")
    return Found(list(chosen.values()), dict(sorted(skipped.items())))


@contextlib.contextmanager
def open_stream(file: SourceFile) -> Iterator[Stream]:
    """Opens a file for streaming, decompressed.

    Raises:
        UnreadableError: the system does not let us.
    """
    try:
        raw = cast("io.BufferedReader", file.path.open("rb", buffering=_BUFFER_BYTES))
    except OSError as error:
        raise UnreadableError(
            f"{file.name} can't be opened: {error.strerror}", "check its permissions"
        ) from None
    with raw:
        if file.compression == ".gz":
            with (
                gzip.GzipFile(fileobj=raw) as unzipped,
                io.BufferedReader(unzipped, _BUFFER_BYTES) as content,
            ):  # type: ignore[arg-type, type-var, unused-ignore]
                yield Stream(content, raw)
        elif file.compression == ".zst":
            import pyarrow

            with io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), _BUFFER_BYTES) as content:
                yield Stream(content, raw)
        else:
            yield Stream(raw, raw)


def _expand(source: str) -> Iterator[tuple[Path, bool]]:
    """Yields the paths that a source means, and whether it names each by itself."""
    path = Path(source).expanduser()
    if path.is_dir():
        yield from ((inner, False) for inner in _below(path))
    elif path.exists() or path.is_symlink():
        yield path, True
    else:
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
        if not matches:
            raise InputError(
                f"{source}: there is no such file or folder", "a path is relative to where you are"
            )
        for match in map(Path, matches):
            yield from ((inner, False) for inner in _below(match)) if match.is_dir() else [(match, False)]


def _below(folder: Path) -> Iterator[Path]:
    visited: set[Path] = set()
    for directory, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_list):
        real = Path(directory).resolve()
        if real in visited or _is_artifact(real):  # a loop of links, or a second way to the same place
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(directory, name) for name in files if not name.startswith("."))


def _is_artifact(folder: Path) -> bool:
    try:
        with (folder / "manifest.json").open(encoding="utf-8") as file:
            beginning = file.read(200)
    except (OSError, UnicodeDecodeError):
        return False
    return '"kind"' in beginning and '"format_version"' in beginning


def _cannot_list(error: OSError) -> None:
    raise InputError(f"{error.filename} can't be listed: {error.strerror}", "check its permissions")


def _reason_to_skip(path: Path, exclude: Sequence[str]) -> str | None:
    if any(
        fnmatch.fnmatchcase(name, pattern) for pattern in exclude for name in (path.name, path.as_posix())
    ):
        return "excluded"
    try:
        mode = path.stat().st_mode
    except OSError:
        return "broken link"
    return None if stat.S_ISREG(mode) else "no regular file"


def _classify(path: Path) -> SourceFile | None:
    name = path.name.lower()
    compression: Literal["", ".gz", ".zst"] = (
        ".gz" if name.endswith(".gz") else ".zst" if name.endswith(".zst") else ""
    )
    known = _FORMATS.get(Path(name.removesuffix(compression)).suffix)
    if known is None or (known == "parquet" and compression):
        return None
    return SourceFile(_printable(path), path, known, compression)


def _ending(path: Path) -> str:
    suffixes = path.suffixes
    keep = 2 if suffixes and suffixes[-1].lower() in _COMPRESSIONS else 1
    return _printable(Path("".join(suffixes[-keep:]) or "(none)"))


def _printable(path: Path) -> str:
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
