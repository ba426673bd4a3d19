"""What people's folders hold beside texts: nothing is lost silently, nothing is half written, the report says what happened."""

import bz2
import errno
import gzip
import json
import lzma
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import REPOSITORY, contents

from gristmill.cli import main
from gristmill.corpus import Corpus, CorpusConfig, build, documents, files, read
from gristmill.corpus.decode import UnreadableError, decode, detect
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.corpus.documents import ReadJob, being_read, outcome_of, read_unit
from gristmill.corpus.files import SourceFile, find_files, open_stream
from gristmill.corpus.read import Broken, ReadOptions, Record, inspect, read_range, records
from gristmill.corpus.remote import RemotePath
from gristmill.corpus.units import Piece, Unit, stamp_of
from gristmill.errors import InputError, RunError

CHINESE = "这是一个真实的中文文本，说的是人们的生活和他们的事情。我们在这里看到的，都是有来历的。"
ENGLISH = "It says something about the sea, and the wind that comes from the hills in the evening."


def one(folder: Path) -> SourceFile:
    (file,) = find_files([str(folder)]).files
    return file


def items(file: SourceFile, **options: Any) -> list[Record | Broken]:
    layout = inspect(file, ReadOptions(**options))
    with open_stream(file) as stream:
        return list(records(stream, file, layout, ReadOptions(**options)))


def texts(found: list[Record | Broken]) -> list[str]:
    return [item.text for item in found if isinstance(item, Record)]


# --- mixed and lying encodings ---------------------------------------------------------------------------------------

LINES = st.lists(
    st.tuples(st.sampled_from([CHINESE, CHINESE[::-1], ENGLISH]), st.booleans()), min_size=2, max_size=12
)


@given(LINES)
def test_lines_in_several_encodings_are_all_read(lines: list[tuple[str, bool]]) -> None:
    data = b"".join(line.encode("gb18030" if other else "utf-8") + b"\n" for line, other in lines)
    encoding = detect(data, complete=True)
    found = decode(data, encoding.name)
    assert found is not None
    assert found.text == "".join(f"{line}\n" for line, _ in lines)
    codecs = {other for line, other in lines if line != ENGLISH}
    assert found.repairs == (("mixed_encodings",) if len(codecs) == 2 else ())
    assert bool(found.note) == bool(found.repairs)


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "big5"])
def test_a_broken_character_does_not_lose_a_text(codec: str) -> None:
    text = CHINESE * 8 if codec != "big5" else "這是一個真實的中文文本，說的是人們的生活。" * 16
    data = text.encode(codec)[:-1]  # cut off, as by a full disk
    encoding = detect(data, complete=True)
    assert (encoding.name, encoding.evidence) == (codec, "most of it; damaged characters, shown as U+FFFD: 1")
    found = decode(data, encoding.name)
    assert found is not None
    assert found.text == text[:-1] + "\ufffd"
    assert found.repairs == ("damaged_characters",)


def test_more_damage_than_a_slip_is_another_encoding() -> None:
    french = "Où êtes-vous allés, à l'école de la région ? Ils étaient déjà là. "
    for data in (french.encode("latin-1"), french.encode("latin-1") * 50, random.Random(0).randbytes(3000)):
        with pytest.raises(UnreadableError):
            detect(data.replace(b"\0", b"\1"), complete=True)
    mixed = (french.encode() + b"\n") * 9 + "la région\n".encode("latin-1")
    found = decode(mixed, "utf-8")
    assert found is not None
    assert found.text == (french + "\n") * 9 + "la r\ufffdgion\n"  # "r間ion", were it taken for GB18030


def test_a_byte_order_mark_can_lie() -> None:
    data = b"\xef\xbb\xbf" + (CHINESE * 5).encode("gb18030")
    encoding = detect(data, complete=True)
    assert (encoding.name, encoding.mark_bytes) == ("gb18030", 3)
    assert data[3:].decode(encoding.name) == CHINESE * 5


def test_rows_in_several_encodings_are_read_and_said_to_be(tmp_path: Path) -> None:
    rows = [{"text": f"{number} {CHINESE}"} for number in range(20)]
    lines = [
        json.dumps(row, ensure_ascii=False).encode("gb18030" if number % 3 == 0 else "utf-8")
        for number, row in enumerate(rows)
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "in/b.csv").write_bytes(
        b"id,text\n" + b"\n".join(b"x," + line[10:-2] for line in lines) + b"\n"
    )
    dedup = DedupSettings(exact=False, near=False)
    config = CorpusConfig(sources=(str(tmp_path / "in"),), valid_fraction=0.0, dedup=dedup)
    corpus = Corpus(build(config, tmp_path / "out"))
    assert {document.text.strip() for document in corpus.documents()} == {row["text"] for row in rows}
    assert corpus.metrics["changed"]["mixed_encodings"] == 14
    problems = corpus.metrics["problems"]
    assert len(problems) == 6  # three of a file are enough to know it by
    assert "a.jsonl: line 1: it is gb18030, not utf-8" in problems[0]


def test_a_mixed_text_has_no_range_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes((CHINESE + "\n").encode() + (CHINESE + "\n").encode("gb18030"))
    file = one(tmp_path)
    (item,) = items(file)
    assert isinstance(item, Record)
    assert item.text == f"{CHINESE}\n{CHINESE}\n"
    layout = inspect(file, ReadOptions())
    assert read_range(file, layout, item.start, item.end) is None
    assert read_range(file, layout, 0, len((CHINESE + "\n").encode())) == CHINESE + "\n"


def test_zeros_at_the_end_of_a_file_of_lines_cost_no_more_than_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "a plain line"}\n' * 50_000 + bytes(20_000)
    )  # a crash leaves these
    found = items(one(tmp_path))
    assert len(texts(found)) == 50_000
    assert [item.reason for item in found if isinstance(item, Broken)] == ["broken row"]


def test_a_range_of_a_big_file_is_looked_at_and_not_the_rest(tmp_path: Path) -> None:
    line = json.dumps({"text": ENGLISH}) + "\n"
    count = (3 << 20) // len(line)
    (tmp_path / "a.jsonl").write_bytes(line.encode() * count + b'{"text": "\xff\xff"}\n')
    file, half = one(tmp_path), len(line) * (count // 2) + 5
    whole = len(line) * count
    assert inspect(file, ReadOptions(), 0, half).encoding == (("utf-8", 0, "ASCII"))
    assert inspect(file, ReadOptions(), half, whole + 20).encoding == (
        "utf-8",
        0,
        "ASCII in its first mebibyte",
    )
    layout = inspect(file, ReadOptions(), half, whole + 20)
    with open_stream(file) as stream:
        found = list(records(stream, file, layout, ReadOptions(), half, whole + 20))
    assert len(texts(found)) == count - count // 2 - 1
    assert [item.reason for item in found if isinstance(item, Broken)] == ["undecodable"]


# --- bombs and enormous lines ----------------------------------------------------------------------------------------

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
}


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.html"])
def test_a_bomb_is_not_unpacked(
    ending: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SMALL_BYTES", 1 << 18)
    (tmp_path / (name + ending)).write_bytes(PACK[ending](b"a\n" * (1 << 20)))
    with pytest.raises(UnreadableError, match="expands to more than 200 times its size") as caught:
        items(one(tmp_path))
    assert "unpack it" in (caught.value.hint or "")


@pytest.mark.parametrize("ending", PACK)
def test_a_text_that_repeats_itself_is_no_bomb(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SMALL_BYTES", 1 << 16)
    word = random.Random(0).choices(ENGLISH.split(), k=100_000)
    (tmp_path / f"a.txt{ending}").write_bytes(PACK[ending](" ".join(word).encode()))
    assert texts(items(one(tmp_path))) == [" ".join(word)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """The longest document, in bytes, made small."""
    monkeypatch.setattr(read, "MAXIMUM_DOCUMENT_BYTES", 4000)
    return 4000


@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_a_line_that_is_too_long_is_passed_over_and_the_next_is_read(
    codec: str, small: int, tmp_path: Path
) -> None:
    rows = ["first", "x" * 3 * small, "second", "y" * (2 * small + 1), "third"]
    for name, text in {
        "a.jsonl": "".join(json.dumps({"text": row}) + "\n" for row in rows),
        "b.csv": "id,text\n" + "".join(f"1,{row}\n" for row in rows),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(text.encode(codec))
        found = items(one(folder))
        assert texts(found) == ["first", "second", "third"]
        broken = [item for item in found if isinstance(item, Broken)]
        assert [item.reason for item in broken] == ["too large", "too large"]
        assert "MiB that a document may have" in broken[0].message
        data = (folder / name).read_bytes()
        for item, row in zip(broken, (rows[1], rows[3]), strict=True):
            assert row in data[item.start : item.end].decode("utf-16-le" if codec == "utf-16" else codec)


@settings(max_examples=30)
@given(
    st.lists(st.text(alphabet="ab 中\n", max_size=30), max_size=60),
    st.sampled_from(["utf-8", "gb18030", "utf-16"]),
    st.sampled_from([None, "%"]),
)
def test_a_long_text_is_divided_and_every_character_kept(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], codec: str, separator: str | None
) -> None:
    text = "\n".join(parts) + "\n"
    folder = tmp_path_factory.mktemp("long")
    (folder / "a.txt").write_bytes(text.encode(codec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "MAXIMUM_DOCUMENT_BYTES", 200)
        layout_encoding = "utf-8" if text.isascii() and codec != "utf-16" else codec
        found = items(one(folder), document_separator=separator, encoding=layout_encoding)
    assert "".join(texts(found)) == text
    assert len(found) == len(texts(found))
    if len(text.encode(codec)) > 210:
        assert len(found) > 1
        assert all("divided" in item.repairs for item in found[1:-1] if isinstance(item, Record))
    file = one(folder)
    layout = inspect(file, ReadOptions(encoding=layout_encoding))
    for item in found:
        assert read_range(file, layout, item.start, item.end) == item.text  # type: ignore[union-attr]


def test_a_text_without_an_end_of_line_is_divided_at_a_space_or_refused(small: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * small)
    assert "".join(texts(items(one(tmp_path)))) == "word " * small
    (tmp_path / "a.txt").write_text("x" * 2 * small)
    with pytest.raises(UnreadableError, match="without a line break or a space"):
        items(one(tmp_path))


def test_a_cell_of_parquet_and_an_object_of_json_can_be_too_long_too(small: int, tmp_path: Path) -> None:
    rows = [{"text": "first"}, {"text": "x" * 3 * small}, {"text": "third"}]
    (tmp_path / "a.parquet").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet/a.parquet")
    assert texts(items(one(tmp_path / "a.parquet"))) == ["first", "third"]


def test_of_a_long_document_every_character_is_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("word and word\n" * 700_000)
    corpus = build(CorpusConfig(sources=(str(tmp_path / "in"),), valid_fraction=0.0), tmp_path / "out")
    assert corpus.manifest.metrics["characters"] == 14 * 700_000


# --- folders ---------------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_passed_over_and_loops_end(tmp_path: Path) -> None:
    inner = tmp_path / "in/inner"
    inner.mkdir(parents=True)
    (inner / "a.txt").write_text(ENGLISH)
    os.mkfifo(tmp_path / "in/pipe.txt")
    (tmp_path / "in/zero.txt").symlink_to("/dev/zero")
    (tmp_path / "in/itself.txt").symlink_to("itself.txt")
    (tmp_path / "in/again.txt").symlink_to(inner / "a.txt")
    (inner / "loop").symlink_to(tmp_path / "in")
    (inner / "self").symlink_to(inner)
    (tmp_path / "outside").symlink_to(tmp_path / "in")
    found = find_files([str(tmp_path / "in"), str(tmp_path / "outside")])
    assert [file.path.name for file in found.files] == ["again.txt"]  # by its first name
    assert found.skipped == {"broken link": 2, "no regular file": 4}
    with pytest.raises(InputError, match=r"no readable files in .*: 1 no regular file"):
        find_files([str(tmp_path / "in/pipe.txt")])


def test_a_folder_that_may_not_be_listed_stops_before_any_work_unless_it_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open", "closed", "closed/deeper"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    scan = os.scandir

    def refuse(path: Any) -> Any:  # permissions do not stop root
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"closed can't be listed: Permission denied") as caught:
        find_files([str(tmp_path)])
    assert 'exclude = ["closed"]' in (caught.value.hint or "")
    for pattern in ("closed", "*/closed", "*/closed/*"):
        assert [file.path.parent.name for file in find_files([str(tmp_path)], (pattern,)).files] == ["open"]


def test_the_command_shows_files_that_it_could_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/good.txt").write_text(ENGLISH)
    (tmp_path / "in/picture.txt").write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    (tmp_path / "in/mail.docx").write_bytes(b"{\\rtf1 no Word file}")
    with pytest.raises(SystemExit) as ended:
        main(["corpus", "build", str(tmp_path / "in"), "--out", str(tmp_path / "out/corpus")])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    shown = " ".join(printed.out.split())
    assert "dropped: unreadable file 2" in shown
    assert "mail.docx: it is RTF, whatever its ending says" in shown
    assert "picture.txt: it holds zero bytes" in shown


# --- what happens meanwhile ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five texts, and nothing else."""
    made = tmp_path / "in"
    made.mkdir()
    for number in range(5):
        (made / f"{number}.txt").write_text("".join(random.Random(number).choices(ENGLISH + "\n", k=3000)))
    return made


def test_a_source_that_vanishes_midway_is_named_and_read_when_it_is_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CorpusConfig(sources=(str(folder),))
    whole = contents(build(config, tmp_path / "whole").path)
    kept = (folder / "3.txt").read_bytes(), (folder / "3.txt").stat()

    def vanish(file: SourceFile, *arguments: Any) -> Any:
        if file.path.name == "2.txt":
            (folder / "3.txt").unlink()
        return inspect(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(documents, "inspect", vanish)
        metrics = build(config, tmp_path / "out").manifest.metrics
    assert metrics["dropped"]["unreadable file"]["documents"] == 1
    assert metrics["to_read_again"] == 1
    assert any("3.txt was changed or removed while it was read" in problem for problem in metrics["problems"])
    (folder / "3.txt").write_bytes(kept[0])
    os.utime(folder / "3.txt", ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))
    again = build(config, tmp_path / "out")
    assert again.manifest.metrics["to_read_again"] == 0
    assert contents(again.path) == whole


def test_a_share_that_does_not_answer_is_asked_again_the_next_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CorpusConfig(sources=(str(folder),))
    whole = contents(build(config, tmp_path / "whole").path)

    def fail(file: SourceFile, *arguments: Any) -> Any:
        if file.path.name == "2.txt":
            with read._naming(file):
                raise OSError(errno.EIO, "Input/output error", file.name)
        return inspect(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(documents, "inspect", fail)
        metrics = build(config, tmp_path / "out").manifest.metrics
    assert any(
        "2.txt can't be read at the moment: Input/output error" in problem for problem in metrics["problems"]
    )
    assert contents(build(config, tmp_path / "out").path) == whole


DYING = """
import os, signal, sys
from pathlib import Path
from gristmill.corpus import CorpusConfig, build, documents

read = documents.inspect

def die(file, *arguments):
    if file.path.name == "3.txt":
        os.kill(os.getpid(), signal.SIGKILL)
    return read(file, *arguments)

documents.inspect = die
build(CorpusConfig(sources=(sys.argv[1],)), Path(sys.argv[2]))
"""


def test_the_file_over_which_a_worker_dies_is_known(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING, folder, tmp_path / "out"], cwd=REPOSITORY, check=False
    )
    assert done.returncode < 0
    units = tmp_path / ".out.partial/units"
    name = next(units.glob(".*.reading.tmp")).name.removeprefix(".").removesuffix(".reading.tmp")
    found = find_files([str(folder)]).files
    pieces = tuple(Piece(file, 0, 0, None, stamp_of(file.path)) for file in found)
    job = ReadJob(Unit(0, pieces), ReadOptions(), "skip", units, name)
    assert being_read(job) == found[3].name
    assert outcome_of(job) is None
    read_unit(job)
    assert not list(units.glob("*.reading.tmp"))
    assert being_read(job) == found[0].name
    whole = build(CorpusConfig(sources=(str(folder),)), tmp_path / "whole").path
    finished = build(CorpusConfig(sources=(str(folder),)), tmp_path / "out").path
    assert contents(finished) == contents(whole)


FULL = """
mount -t tmpfs -o size=$3 tmpfs "$2" || exit 77
"$0" -c "$1" "$4" "$2" && exit 9
ls "$2"/run/corpus 2>/dev/null && exit 2
mount -o remount,size=64m "$2" || exit 3
"$0" -c "$1" "$4" "$2" || exit 4
cp -r "$2"/run/corpus "$5"
"""
BUILD = """
import sys
from pathlib import Path
from gristmill.corpus import CorpusConfig, build
from gristmill.errors import RunError
try:
    build(CorpusConfig(sources=(sys.argv[1],)), Path(sys.argv[2]) / "run" / "corpus")
except RunError as error:
    assert error.message.startswith("no space left on the disk"), error
    assert "free some space and run the same command again" in error.hint
    sys.exit(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["60k", "300k"])
def test_a_disk_that_is_full_ends_a_build_which_goes_on_when_there_is_space(
    size: str, folder: Path, tmp_path: Path
) -> None:
    for number in range(40):
        (folder / f"more {number}.txt").write_text(
            json.dumps(random.Random(number).choices(range(10_000), k=4000))
        )
    (tmp_path / "disk").mkdir()
    arguments = ["sh", "-c", FULL, sys.executable, BUILD, tmp_path / "disk", size, folder, tmp_path / "copy"]
    try:
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", *arguments], cwd=REPOSITORY, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no `unshare`")
    if done.returncode in (1, 77):  # of `unshare`, of `mount`
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0
    whole = build(CorpusConfig(sources=(str(folder),)), tmp_path / "whole").path
    assert contents(tmp_path / "copy") == contents(whole)


def test_a_disk_that_is_full_leaves_no_corpus_and_no_half_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = CorpusConfig(sources=(str(folder),))
    with monkeypatch.context() as patch:
        patch.setattr(documents, "attributes_of", full)
        with pytest.raises(RunError, match="no space left on the disk"):
            build(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert contents(build(config, tmp_path / "out").path) == contents(build(config, tmp_path / "whole").path)


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Any:
    """A store in memory with a folder `bucket`, which fsspec reaches as it reaches any other."""
    fsspec = pytest.importorskip("fsspec")
    made = fsspec.filesystem("memory")
    made.store.clear()
    yield made
    made.store.clear()


def test_an_object_that_is_elsewhere_is_fetched_once(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "a.txt": (CHINESE * 40).encode("gb18030"),
        "b.csv": ("id,text\n" + f"1,{ENGLISH}\n" * 40).encode(),
        "c.jsonl.gz": gzip.compress(f'{{"text": "{ENGLISH[::-1]}"}}\n'.encode() * 40),
    }
    for name, data in texts.items():
        store.pipe_file(f"/bucket/{name}", data)
        (tmp_path / name).write_bytes(data)
    opened: list[str] = []
    open_ = RemotePath.open

    def count(path: RemotePath, *arguments: Any, **options: Any) -> Any:
        opened.append(path.name)
        return open_(path, *arguments, **options)

    monkeypatch.setattr(RemotePath, "open", count)
    config = CorpusConfig(sources=("memory://bucket",), valid_fraction=0.0)
    there = Corpus(build(config, tmp_path / "out/there"))
    assert sorted(opened) == sorted(texts)
    local = CorpusConfig(sources=(str(tmp_path / "*.*"),), valid_fraction=0.0)
    here = Corpus(build(local, tmp_path / "out/here"))
    assert set(there.texts()) == set(here.texts())
    build(config, tmp_path / "out/there")
    assert len(opened) == 3  # what the store says of them has not changed
    store.pipe_file("/bucket/a.txt", texts["a.txt"] * 2)
    build(config, tmp_path / "out/there")
    assert len(opened) == 6
    assert not list((tmp_path / "out").rglob("*fetched*"))


def test_an_object_that_can_not_be_fetched_is_named_and_asked_for_again(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        store.pipe_file(f"/bucket/{number}.txt", f"{number} {ENGLISH}".encode())
    whole = contents(build(CorpusConfig(sources=("memory://bucket",)), tmp_path / "out/whole").path)
    open_ = RemotePath.open

    def fail(path: RemotePath, *arguments: Any, **options: Any) -> Any:
        if path.name == "1.txt":
            raise OSError(errno.ETIMEDOUT, "Connection timed out", path.as_posix())
        return open_(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "open", fail)
        metrics = build(CorpusConfig(sources=("memory://bucket",)), tmp_path / "out/corpus").manifest.metrics
    assert metrics["to_read_again"] == 1
    assert any("1.txt" in problem and "Connection timed out" in problem for problem in metrics["problems"])
    assert contents(build(CorpusConfig(sources=("memory://bucket",)), tmp_path / "out/corpus").path) == whole


def test_a_quote_that_does_not_end_costs_its_row_and_no_other(tmp_path: Path) -> None:
    rows = [f"{number},row {number} of a table of rivers\n" for number in range(40)]
    rows[7] = '7,"row 7 of a table of rivers\n'  # all that follows would be one cell
    rows[3] = '3,"row 3\nof a table of ""rivers"""\n'  # which does end
    (tmp_path / "b.csv").write_text("id,text\n" + "".join(rows), encoding="utf-8")
    found = items(one(tmp_path))
    bad = [item for item in found if isinstance(item, Broken)]
    assert texts(found) == [
        f"row {number} of a table of rivers" if number != 3 else 'row 3\nof a table of "rivers"'
        for number in range(40)
        if number != 7
    ]
    (broken,) = bad
    assert broken.reason == "broken row"
    assert broken.message.endswith("a quote begins here and does not end")
    assert (tmp_path / "b.csv").read_bytes()[broken.start : broken.end].decode() == rows[7]
