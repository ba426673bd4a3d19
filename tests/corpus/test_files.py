import bz2
import errno
import gzip
import importlib.util
import io
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.files import SourceFile, find_files, open_stream
from gristmill.corpus.remote import RemotePath
from gristmill.errors import InputError


def found(*sources: str | Path, exclude: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    return {
        file.name.rpartition("/")[2]: (file.format, file.compression)
        for file in find_files([str(source) for source in sources], exclude).files
    }


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all that the formats need were there."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
def test_endings_say_what_a_file_is(tmp_path: Path) -> None:
    expected = {
        "a.HTML": ("html", ""),
        "a.htm.gz": ("html", ".gz"),
        "a.xhtml": ("html", ""),
        "a.txt.bz2": ("text", ".bz2"),
        "a.jsonl.xz": ("json_lines", ".xz"),
        "crawl.warc.gz": ("warc", ".gz"),
        "crawl.warc.wet.gz": ("warc", ".gz"),
        "dump.xml.bz2": ("wiki", ".bz2"),
        "wiki_00": ("text", ""),
        "wiki_17.bz2": ("text", ".bz2"),
        "paper.pdf": ("pdf", ""),
        "letter.docx": ("docx", ""),
        "letter.doc": ("docx", ""),
        "pep.rst": ("rest", ""),
        "main.py": ("code", ""),
        "query.SQL.zst": ("code", ".zst"),
        "paper.tex": ("code", ""),
    }
    for name in (*expected, "picture.png", "paper.pdf.gz", "wiki", "a.zip", "noending"):
        (tmp_path / name).write_bytes(b"")
    assert found(tmp_path) == expected
    assert find_files([str(tmp_path)]).skipped == {
        "ending (none)": 2,
        "ending .pdf.gz": 1,
        "ending .png": 1,
        "ending .zip": 1,
    }


@pytest.mark.parametrize(
    ("name", "hint"), [("a.zip", "unpack it"), ("a.rtf", "save it as .docx"), ("a.png", ".docx")]
)
def test_an_ending_that_is_not_understood_says_what_to_do(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="this ending is not understood") as caught:
        find_files([str(tmp_path / name)])
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "module"),
    [("a.html", "trafilatura"), ("a.pdf", "pypdf"), ("a.rst", "docutils"), ("a.warc.gz", "trafilatura")],
)
def test_what_is_not_installed_is_said_before_any_work(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(b"text")
    (tmp_path / "a.docx").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"not installed:.*{module} \(for ") as caught:
        find_files([str(tmp_path)])
    assert 'pip install "gristmill[documents]"' in (caught.value.hint or "")
    assert set(found(tmp_path, exclude=(name,))) == {"a.txt", "a.docx"}


TEXT = b"".join(b"line %d\n" % i for i in range(50_000))


@pytest.mark.parametrize(
    ("ending", "data"),
    [
        (".gz", gzip.compress(TEXT)),
        (".bz2", bz2.compress(TEXT)),
        (".bz2", bz2.compress(TEXT[:1000]) + bz2.compress(TEXT[1000:])),
        (".xz", lzma.compress(TEXT)),
        (".xz", lzma.compress(TEXT[:1000]) + bytes(4) + lzma.compress(TEXT[1000:])),
        (".xz", lzma.compress(TEXT, format=lzma.FORMAT_ALONE)),
    ],
)
def test_compressed_files_are_read_whole(ending: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / f"a.txt{ending}").write_bytes(data)
    (file,) = find_files([str(tmp_path)]).files
    with open_stream(file) as stream:
        assert stream.content.read() == TEXT


@pytest.mark.parametrize(
    ("ending", "data"),
    [
        (".bz2", bz2.compress(TEXT)[:-30]),
        (".xz", lzma.compress(TEXT)[:-30]),
        (".bz2", b"plain text"),
        (".xz", b"plain text"),
        (".xz", lzma.compress(TEXT) + b"garbage"),
        (".xz", lzma.compress(TEXT)[:500] + bytes(50) + lzma.compress(TEXT)[550:]),
    ],
)
def test_damage_is_an_os_error_or_an_early_end(ending: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / f"a.txt{ending}").write_bytes(data)
    (file,) = find_files([str(tmp_path)]).files
    with open_stream(file) as stream, pytest.raises((OSError, EOFError)):
        stream.content.read()


def test_an_xz_file_can_not_ask_for_any_memory(tmp_path: Path) -> None:
    data = bytearray(lzma.compress(b"text", format=lzma.FORMAT_ALONE))
    data[1:5] = (1 << 31).to_bytes(4, "little")  # of the dictionary
    (tmp_path / "a.txt.xz").write_bytes(data)
    (file,) = find_files([str(tmp_path)]).files
    with open_stream(file) as stream, pytest.raises(OSError, match=r"[Mm]emory"):
        stream.content.read()


# --- elsewhere ------------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[Any]:
    fsspec = pytest.importorskip("fsspec")
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    for name in filesystem.find("/"):
        filesystem.rm(name)


def test_prefixes_globs_and_single_objects(store: Any) -> None:
    for name in ("b/one.txt", "b/deep/two.jsonl.gz", "b/.hidden/no.txt", "b/three.bin", "c/four.txt"):
        store.pipe(f"/{name}", b"text")
    assert set(found("memory://b")) == {"one.txt", "two.jsonl.gz"}
    assert set(found("memory://b/")) == {"one.txt", "two.jsonl.gz"}
    assert set(found("memory://*/*.txt")) == {"one.txt", "four.txt"}
    assert found("memory://b/one.txt", "memory://b") == {
        "one.txt": ("text", ""),
        "two.jsonl.gz": ("json_lines", ".gz"),
    }
    assert set(found("memory://b", exclude=("*.gz",))) == {"one.txt"}
    assert find_files(["memory://b"]).skipped == {"ending .bin": 1}
    with pytest.raises(InputError, match="no such file or folder"):
        find_files(["memory://nowhere"])
    with pytest.raises(InputError, match="ending is not understood"):
        find_files(["memory://b/three.bin"])


def test_our_own_artifacts_are_passed_over_elsewhere_too(store: Any) -> None:
    store.pipe("/b/one.txt", b"text")
    store.pipe("/b/corpus/manifest.json", b'{"kind": "corpus", "format_version": 2}')
    store.pipe("/b/corpus/units/a.txt", b"text")
    store.pipe("/b/other/manifest.json", b'[{"text": "of somebody else"}]')
    assert set(found("memory://b")) == {"one.txt", "manifest.json"}


def test_an_object_is_read_as_a_file_is(store: Any) -> None:
    store.pipe("/b/a.txt.gz", gzip.compress(TEXT))
    (file,) = find_files(["memory://b/a.txt.gz"]).files
    assert isinstance(file.path, RemotePath)
    assert file.path.stat().st_size == len(gzip.compress(TEXT))
    with open_stream(file) as stream:
        assert stream.content.read() == TEXT
        assert stream.raw.tell() > 0
    with file.path.open("rb") as raw:
        raw.seek(10)
        assert raw.read(5) == gzip.compress(TEXT)[10:15]
        assert raw.seek(-3, io.SEEK_END) == len(gzip.compress(TEXT)) - 3


def test_a_stamp_changes_with_its_object(store: Any) -> None:
    store.pipe("/b/a.txt", b"text")
    path = RemotePath("memory:///b/a.txt")
    before = path.stat()
    assert path.stat() == before
    store.pipe("/b/a.txt", b"next")
    assert path.stat() != before
    store.rm("/b/a.txt")
    with pytest.raises(FileNotFoundError):
        path.stat()
    with (
        pytest.raises(UnreadableError, match=r"a\.txt can't be opened"),
        open_stream(SourceFile("a.txt", path, "text", "")),
    ):
        pass


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text")
    (file,) = find_files([f"file://{tmp_path}", str(tmp_path)]).files
    assert file.path == tmp_path / "a.txt"


def test_what_fsspec_can_not_reach_is_said() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(InputError, match="nonsense://b can't be reached"):
        find_files(["nonsense://b"])


def test_what_a_store_raises_is_an_os_error(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class ClientError(Exception):
        """As of a store's own library."""

    def fail(*_: object, **__: object) -> None:
        raise ClientError("AccessDenied\nwhen calling")

    store.pipe("/b/a.txt", b"text")
    monkeypatch.setattr(type(store), "info", fail)
    with pytest.raises(OSError, match="ClientError: AccessDenied when calling") as caught:
        RemotePath("memory:///b/a.txt").stat()
    assert caught.value.errno == errno.EIO
    monkeypatch.setattr(type(store), "isfile", fail)
    with pytest.raises(InputError, match="can't be listed: ClientError: AccessDenied") as refused:
        find_files(["memory://b"])
    assert "credentials" in (refused.value.hint or "")


def test_passwords_and_signatures_are_not_shown() -> None:
    assert RemotePath("ftp://user:secret@host/a.txt").as_posix() == "ftp://host/a.txt"
    assert RemotePath("https://host/a.txt?signature=secret").as_posix() == "https://host/a.txt"
    assert RemotePath("s3://bucket/what?.txt").as_posix() == "s3://bucket/what?.txt"
    assert RemotePath("https://host/a.txt?signature=secret").name == "a.txt"
