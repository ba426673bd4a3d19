"""Files that are elsewhere, reached through fsspec: s3://, gs://, az://, hdfs://, https://, memory:// and more.

A `RemotePath` offers what reading uses of a `Path`: `open`, `stat`, `name`, `as_posix`. It is a string that any process
can take; who may read it is settled where fsspec looks (AWS_ACCESS_KEY_ID, ~/.aws, ~/.config/fsspec), never in a recipe.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gristmill.errors import InputError

__all__ = ["RemotePath", "expand", "is_remote"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
# What stores say of an object's content or age, under the names that they give it.
_STAMPS = (
    "ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum", "generation", "version_id", "VersionId",
    "LastModified", "last_modified", "Last-Modified", "updated", "modified", "mtime", "created",
)  # fmt: skip
_BUFFER_BYTES = 1 << 20


class Status(NamedTuple):
    """Size in bytes, and a number that changes when the object does (of its ETag, or its time of change)."""

    st_size: int
    st_mtime_ns: int


@dataclasses.dataclass(frozen=True, order=True)
class RemotePath:
    """An object in a store, by its URL."""

    url: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.as_posix().rstrip("/").rpartition("/")[2]

    def as_posix(self) -> str:
        """Returns the URL as it may be shown: without a password, and of https:// without what follows the path."""
        scheme, _, rest = self.url.partition("://")
        if scheme.lower() in ("http", "https"):
            rest = re.split("[?#]", rest, maxsplit=1)[0]
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"

    def stat(self) -> Status:
        """Returns its size and a stamp.

        Raises:
            OSError: it is gone, or can't be reached.
        """
        with _as_os_errors(self):
            filesystem, path = _filesystem(self.url)
            information = filesystem.info(path)
        stamps = [f"{name}={information[name]}" for name in _STAMPS if information.get(name) is not None]
        digest = hashlib.blake2b("\n".join(stamps).encode(), digest_size=7).digest()
        return Status(int(information.get("size") or 0), int.from_bytes(digest, "big") if stamps else 0)

    def open(self, mode: str = "rb", buffering: int = _BUFFER_BYTES) -> io.BufferedReader:
        """Opens it for reading bytes.

        Raises:
            OSError: it is gone, or can't be reached.
        """
        assert mode == "rb"
        with _as_os_errors(self):
            filesystem, path = _filesystem(self.url)
            filesystem.invalidate_cache(path)  # what it was when it was listed may not hold any more
            return io.BufferedReader(_Raw(filesystem.open(path, "rb"), self), max(buffering, 1))


def is_remote(source: str) -> bool:
    """Whether a source is a URL."""
    return _SCHEME.match(source) is not None


def expand(source: str) -> list[tuple[RemotePath, bool]]:
    """Returns the objects that a URL, a prefix or a glob means, and whether it names each by itself.

    What is hidden below a prefix is passed over, and so are the artifacts of this program.

    Raises:
        InputError: there is nothing, it can't be reached, or a package that this scheme needs is not installed.
    """
    place = RemotePath(source)
    try:
        with _as_os_errors(place):
            filesystem, path = _filesystem(source)
            if filesystem.isfile(path):
                return [(place, True)]
            found = _below(filesystem, path)
            if not found and any(character in path for character in "*?["):
                for match in filesystem.glob(path):
                    found += [(match, True)] if filesystem.isfile(match) else _below(filesystem, match)
            urls = [(RemotePath(filesystem.unstrip_protocol(name)), named) for name, named in found]
    except OSError as error:
        raise InputError(f"{place.as_posix()} can't be listed: {reason_of(error)}", _hint(error)) from None
    if not urls:
        raise InputError(f"{place.as_posix()}: there is no such file or folder", "look at bucket and prefix")
    return urls


def reason_of(error: OSError) -> str:
    """Returns what went wrong in words; stores leave out what the system would say."""
    return error.strerror or " ".join(str(error).split())[:300] or type(error).__name__


class _Raw(io.RawIOBase):
    """An fsspec file as the io module knows files: what goes wrong is an OSError, whatever the store calls it."""

    def __init__(self, file: Any, place: RemotePath) -> None:
        self._file = file
        self._place = place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        with _as_os_errors(self._place):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _as_os_errors(self._place):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(Exception):  # it was only read
                self._file.close()
        super().close()


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec.core
    except ImportError:
        raise InputError(
            f"{RemotePath(url).as_posix()} needs fsspec, which is not installed",
            'pip install "gristmill[remote]"',
        ) from None
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # fsspec names the package that the scheme needs
        raise InputError(f"{RemotePath(url).as_posix()} can't be reached: {error}", _hint(error)) from None
    return filesystem, str(path)


def _below(filesystem: Any, folder: str) -> list[tuple[str, bool]]:
    try:
        names = sorted(filesystem.find(folder))
    except FileNotFoundError:
        return []
    root = folder.rstrip("/")
    names = [name for name in names if not any(part.startswith(".") for part in name[len(root) :].split("/"))]
    artifacts = tuple(
        name.removesuffix("manifest.json")
        for name in names
        if name.endswith("/manifest.json") and _is_manifest(filesystem, name)
    )
    return [(name, False) for name in names if not (artifacts and name.startswith(artifacts))]


def _is_manifest(filesystem: Any, name: str) -> bool:
    with filesystem.open(name, "rb") as file:
        beginning = file.read(200)
    return b'"kind"' in beginning and b'"format_version"' in beginning


@contextlib.contextmanager
def _as_os_errors(place: RemotePath) -> Iterator[None]:
    try:
        yield
    except (OSError, InputError):
        raise
    except Exception as error:  # botocore, aiohttp and others have exceptions of their own
        detail = " ".join(str(error).split())[:300]
        raise OSError(errno.EIO, f"{type(error).__name__}: {detail}", place.as_posix()) from None


def _hint(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return "install the package that it names"
    if isinstance(error, ValueError):
        return "examples: s3://bucket/folder/*.jsonl.zst, gs://bucket/folder, https://host/file.parquet"
    return "look at the address and at the credentials (for s3: AWS_ACCESS_KEY_ID, or ~/.aws/credentials)"
