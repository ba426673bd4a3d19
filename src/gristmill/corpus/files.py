"""Which files a recipe's sources mean, and how each is opened."""

import bz2
import collections
import contextlib
import errno
import fnmatch
import glob
import gzip
import io
import lzma
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, cast

from gristmill.corpus import formats, remote
from gristmill.corpus.decode import UnreachableError, UnreadableError
from gristmill.corpus.remote import RemotePath
from gristmill.errors import InputError

__all__ = [
    "ENDINGS",
    "UNREACHABLE",
    "Found",
    "SourceFile",
    "Stream",
    "find_files",
    "open_stream",
    "unreachable",
]

Format = Literal[
    "text",
    "code",
    "json_lines",
    "json",
    "csv",
    "tsv",
    "parquet",
    "html",
    "warc",
    "wiki",
    "pdf",
    "docx",
    "rest",
]
Compression = Literal["", ".gz", ".bz2", ".xz", ".zst"]
Place = Path | RemotePath

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
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".warc": "warc",
    ".wet": "warc",
    ".xml": "wiki",
    ".pdf": "pdf",
    ".docx": "docx",
    ".docm": "docx",
    ".doc": "docx",  # some are; of the others the reader says what to do
    ".rst": "rest",
    ".rest": "rest",
}
_CODE = (
    ".py", ".pyi", ".js", ".jsx", ".mjs", ".ts", ".tsx", ".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".cs", ".java",
    ".kt", ".scala", ".go", ".rs", ".swift", ".rb", ".php", ".pl", ".pm", ".lua", ".sql", ".sh", ".bash", ".r", ".jl", ".hs", ".ml",
    ".ex", ".erl", ".clj", ".lisp", ".el", ".f90", ".tex",
)  # fmt: skip
_COMPRESSIONS: tuple[Compression, ...] = (".gz", ".bz2", ".xz", ".zst")
_UNCOMPRESSED = ("parquet", "pdf", "docx")
"""Formats that are compressed within, and read from their end."""
_WIKIEXTRACTOR = re.compile(r"wiki_\d+")
ENDINGS = (
    f"{', '.join(ending for ending in _FORMATS if ending != '.doc')}; source code ({', '.join(_CODE)}); "
    f"all but .parquet, .pdf and Word files also with {', '.join(_COMPRESSIONS[:-1])} or {_COMPRESSIONS[-1]}"
)
"""The file endings that are understood, in words."""
_HINTS = {
    ".zip": "unpack it: what is in it is then read by its ending",
    ".rtf": "save it as .docx",
    ".odt": "save it as .docx",
    ".epub": "save it as .html or .txt",
}

UNREACHABLE = (
    errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED,
    errno.ECONNABORTED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EPIPE,
)  # fmt: skip
"""Errors of what a file lies on, not of the file."""

_BUFFER_BYTES = 1 << 20
_XZ_MEMORY_BYTES = 256 << 20  # `xz -9` needs 65 MiB; a header can ask for 4 GiB
_SMALL_BYTES, _MOST_EXPANSION = (
    64 << 20,
    200,
)  # text shrinks to a tenth, the same line again and again to a thousandth


class SourceFile(NamedTuple):
    """A file to read, and what its ending says about it."""

    name: str
    """The path as the sources give it, printable: bytes that are not UTF-8 are written as \\xNN."""
    path: Place
    format: Format
    compression: Compression


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
    """Returns the files that paths, folders (with all below), globs and URLs name, each once, in an order of their own.

    Hidden files and folders are passed over, and so are the artifacts of this program: their texts have been read
    once. A symbolic link is followed, a loop of them is not. A folder that `exclude` matches is not looked into.

    Raises:
        InputError: a source names nothing, a file named by itself has an unknown ending, nothing is left, or what
            a format needs is not installed.
    """
    if not sources:
        raise InputError("there are no sources", 'name files, folders or globs: sources = ["texts/"]')
    chosen: dict[Any, SourceFile] = {}
    resolved: dict[str, str] = {}
    skipped: collections.Counter[str] = collections.Counter()
    candidates = sorted(
        {pair for source in sources for pair in _expand(source, exclude)},
        key=lambda pair: (os.fsencode(pair[0].as_posix()), pair[1]),
    )
    for path, named in candidates:
        reason = _reason_to_skip(path, exclude)
        file = None if reason else _classify(path)
        if file is not None:
            chosen.setdefault(_identity(path, resolved) if isinstance(path, Path) else path, file)
        elif named and not reason:
            raise InputError(
                f"{_printable(path)}: this ending is not understood",
                _HINTS.get(_ending(path).lower(), f"understood: {ENDINGS}"),
            )
        else:
            skipped[reason or f"ending {_ending(path)}"] += 1
    if not chosen:
        passed = (
            ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "no files at all"
        )
        raise InputError(
            f"no readable files in {', '.join(map(_shown, sources))}: {passed}", f"understood: {ENDINGS}"
        )
    formats.require(file.format for file in chosen.values())
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
        if error.errno in UNREACHABLE:
            raise unreachable(file, error) from None
        raise UnreadableError(
            f"{file.name} can't be opened: {remote.reason_of(error)}", "check its permissions"
        ) from None
    with raw:
        if file.compression:
            with io.BufferedReader(_Bounded(_unpacking(file, raw), raw), _BUFFER_BYTES) as content:
                yield Stream(content, raw)
        else:
            yield Stream(raw, raw)


def unreachable(file: SourceFile, error: OSError) -> UnreachableError:
    """Returns what to raise when a file can't be read now and perhaps can later."""
    return UnreachableError(
        f"{file.name} can't be read at the moment: {remote.reason_of(error)}", "run the same command again"
    )


def _unpacking(file: SourceFile, raw: io.BufferedReader) -> Any:
    if file.compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if file.compression == ".bz2":
        return bz2.BZ2File(raw)
    if file.compression == ".xz":
        return _Unxz(raw)
    import pyarrow

    return pyarrow.CompressedInputStream(raw, "zstd")


class _Bounded(io.RawIOBase):
    """What is unpacked, as long as it is no bomb: a few megabytes that would fill memory and disk."""

    def __init__(self, unpacked: Any, raw: io.BufferedReader) -> None:
        self._unpacked, self._raw = unpacked, raw
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._unpacked.readinto(buffer) or 0)
        self._size += count
        if self._size > _SMALL_BYTES and self._size > _MOST_EXPANSION * self._raw.tell():
            raise UnreadableError(
                f"it expands to more than {_MOST_EXPANSION} times its size (a bomb?)",
                "unpack it, if it is what it should be: files that are not compressed have no such limit",
            )
        return count

    def close(self) -> None:
        if not self.closed:
            self._unpacked.close()
        super().close()


class _Unxz(io.RawIOBase):
    """An .xz file, decompressed in a bounded memory; `lzma.LZMAFile` takes as much as the file asks for."""

    def __init__(self, raw: io.BufferedIOBase) -> None:
        self._raw = raw
        self._decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        try:
            while not data:
                if self._decompressor.eof:  # one stream may follow another, with zeros between them
                    rest = self._decompressor.unused_data.lstrip(b"\0")
                    while not rest and (more := self._raw.read(_BUFFER_BYTES)):
                        rest = more.lstrip(b"\0")
                    if not rest:
                        return 0
                    self._decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)
                    data = self._decompressor.decompress(rest, len(buffer))
                    continue
                packed = self._raw.read(_BUFFER_BYTES) if self._decompressor.needs_input else b""
                if not packed and self._decompressor.needs_input:
                    raise EOFError("the compressed data end before their end-of-stream marker")
                data = self._decompressor.decompress(packed, len(buffer))
        except lzma.LZMAError as error:  # no OSError, though gzip's and bz2's are
            raise OSError(str(error)) from None
        buffer[: len(data)] = data
        return len(data)


def _expand(source: str, exclude: Sequence[str]) -> Iterator[tuple[Place, bool]]:
    """Yields the places that a source means, and whether it names each by itself."""
    source = source.removeprefix("file://")
    if remote.is_remote(source):
        yield from remote.expand(source)
        return
    path = Path(source).expanduser()
    if path.is_dir():
        yield from ((inner, False) for inner in _below(path, exclude))
    elif path.exists() or path.is_symlink():
        yield path, True
    else:
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
        if not matches:
            raise InputError(
                f"{source}: there is no such file or folder", "a path is relative to where you are"
            )
        for match in map(Path, matches):
            below = ((inner, False) for inner in _below(match, exclude))
            yield from below if match.is_dir() else [(match, False)]


def _below(folder: Path, exclude: Sequence[str]) -> Iterator[Path]:
    visited: set[Path] = set()
    for directory, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_list):
        real = Path(directory).resolve()
        if real in visited or _is_artifact(real):  # a loop of links, or a second way to the same place
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not _is_excluded(Path(directory, name), exclude, "/")
        )
        yield from (Path(directory, name) for name in files if not name.startswith("."))


def _is_artifact(folder: Path) -> bool:
    try:
        with (folder / "manifest.json").open(encoding="utf-8") as file:
            beginning = file.read(200)
    except (OSError, UnicodeDecodeError):
        return False
    return '"kind"' in beginning and '"format_version"' in beginning


def _identity(path: Path, resolved: dict[str, str]) -> str:
    """Returns where a file really is; what folders are is looked up once, for a million files may be in a hundred."""
    if path.is_symlink():
        return os.path.realpath(path)
    folder = os.path.dirname(path)  # noqa: PTH120 - Path.parent makes an object for each
    if folder not in resolved:
        resolved[folder] = os.path.realpath(folder)
    return f"{resolved[folder]}/{path.name}"


def _cannot_list(error: OSError) -> None:
    raise InputError(
        f"{error.filename} can't be listed: {error.strerror}",
        f'check its permissions, or leave it out: exclude = ["{Path(error.filename).name}"]',
    )


def _reason_to_skip(path: Place, exclude: Sequence[str]) -> str | None:
    if _is_excluded(path, exclude):
        return "excluded"
    if isinstance(path, RemotePath):
        return None
    try:
        mode = path.stat().st_mode
    except OSError:
        return "broken link"
    return None if stat.S_ISREG(mode) else "no regular file"


def _is_excluded(path: Place, exclude: Sequence[str], end: str = "") -> bool:
    """Whether a pattern matches a file's name or path; a folder's also with a slash at its end."""
    names = {path.name, path.as_posix(), path.as_posix() + end} if exclude else ()
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude for name in names)


def _classify(path: Place) -> SourceFile | None:
    name = path.name.lower()
    compression: Compression = next((ending for ending in _COMPRESSIONS if name.endswith(ending)), "")
    bare = name.removesuffix(compression)
    ending = PurePosixPath(bare).suffix
    known = _FORMATS.get(ending) or ("code" if ending in _CODE else None)
    if known is None and _WIKIEXTRACTOR.fullmatch(bare):
        known = "text"
    if known is None or (known in _UNCOMPRESSED and compression):
        return None
    return SourceFile(_printable(path), path, known, compression)


def _ending(path: Place) -> str:
    suffixes = PurePosixPath(path.name).suffixes
    keep = 2 if suffixes and suffixes[-1].lower() in _COMPRESSIONS else 1
    return _printable(PurePosixPath("".join(suffixes[-keep:]) or "(none)"))


def _printable(path: Place | PurePosixPath) -> str:
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _shown(source: str) -> str:
    return RemotePath(source).as_posix() if remote.is_remote(source) else source
