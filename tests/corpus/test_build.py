import csv
import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from gristmill.artifact import Artifact
from gristmill.corpus import Corpus, CorpusConfig, Document, build
from gristmill.errors import InputError

Build = Callable[..., Corpus]

ROWS = [
    {"title": f"number {i}", "text": f"This is the text of the document number {i}, long enough."}
    for i in range(40)
]


@pytest.fixture
def make(tmp_path: Path) -> Build:
    """Builds a corpus of sources in a directory of its own."""

    def make(*sources: Path | str, out: str = "corpus", **settings: Any) -> Corpus:
        config = CorpusConfig(sources=tuple(map(str, sources)), **settings)
        return Corpus(build(config, tmp_path / "out" / out))

    return make


def compress(data: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(data, asbytes=True)


def as_csv(delimiter: str = ",") -> bytes:
    table = io.StringIO()
    writer = csv.DictWriter(table, ["title", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return table.getvalue().encode()


def as_lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


FORMATS = {
    "a.jsonl": as_lines(),
    "a.jsonl.gz": gzip.compress(as_lines()),
    "a.jsonl.zst": compress(as_lines()),
    "two frames.ndjson.zst": compress(as_lines()[:1000]) + compress(as_lines()[1000:]),
    "a.json": json.dumps(ROWS, indent=1).encode(),
    "one after another.json": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "utf16.jsonl": as_lines().decode().encode("utf-16"),
    "a.csv": as_csv(),
    "semicolons.csv": as_csv(";"),
    "a.tsv.gz": gzip.compress(as_csv("\t")),
    "utf16.csv": as_csv().decode().encode("utf-16"),
    "A.PARQUET": as_parquet(),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_documents(name: str, tmp_path: Path, make: Build) -> None:
    (tmp_path / name).write_bytes(FORMATS[name])
    corpus = make(tmp_path / name)
    documents = list(corpus.documents())
    assert {document.text for document in documents} == {row["text"] for row in ROWS}
    assert all(
        document.metadata == {"title": document.text.split(" the document ")[1].split(",")[0]}
        for document in documents
    )
    assert corpus.metrics["sources"][0]["text_column"] == "text"


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.endswith((".gz", ".zst", "PARQUET"))])
def test_the_byte_range_of_a_row_is_where_it_stands(name: str, tmp_path: Path, make: Build) -> None:
    data = FORMATS[name]
    (tmp_path / name).write_bytes(data)
    for document in make(tmp_path / name).documents():
        encoding = "utf-16-le" if "utf16" in name else "utf-8"
        row = data[document.start : document.end].decode(encoding)
        assert document.text in row
        assert row.count("number") == 2


def test_a_parquet_row_is_named_by_its_number(tmp_path: Path, make: Build) -> None:
    (tmp_path / "a.parquet").write_bytes(as_parquet())
    documents = list(make(tmp_path).documents())
    assert all(ROWS[document.start]["text"] == document.text for document in documents)
    assert all(document.end == document.start + 1 for document in documents)


def test_a_folder_is_read_to_its_bottom_in_a_fixed_order(tmp_path: Path, make: Build) -> None:
    (tmp_path / "in/b/c").mkdir(parents=True)
    (tmp_path / "in/b/c/deep.md").write_text("# deep")
    (tmp_path / "in/a.txt").write_text("shallow")
    (tmp_path / "in/.hidden.txt").write_text("hidden")
    (tmp_path / "in/picture.png").write_bytes(b"PNG")
    (tmp_path / "in/README.txt").write_text("read me")
    corpus = make(tmp_path / "in", exclude=("README*",), valid_fraction=0.0)
    assert [document.text for document in corpus.documents()] == ["shallow", "# deep"]
    assert corpus.metrics["read"]["skipped_files"] == {"ending .png": 1, "excluded": 1}
    again = make(
        tmp_path / "in/b/**/*.md", tmp_path / "in/a.txt", tmp_path / "in/b", out="2", valid_fraction=0.0
    )
    assert [document.id for document in again.documents()] == [document.id for document in corpus.documents()]


def test_one_document_is_cut_at_the_exact_character(tmp_path: Path, make: Build) -> None:
    text = "".join(f"line {number} é中\n" for number in range(997))
    (tmp_path / "one.txt").write_text(text, encoding="utf-8")
    corpus = make(tmp_path / "one.txt", valid_fraction=0.1)
    cut = int(0.9 * len(text))
    train, valid = (next(corpus.documents(split)) for split in ("train", "valid"))
    assert (train.text, valid.text) == (text[:cut], text[cut:])
    assert (train.start, train.end, valid.start, valid.end) == (
        0, len(text[:cut].encode()), len(text[:cut].encode()), len(text.encode()),
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_the_cut_is_found_in_a_source_that_was_repaired(encoding: str, tmp_path: Path, make: Build) -> None:
    text = "\r\n".join(f"第{number}行，我们在这里说的是中国的话\x07。" for number in range(300))
    data = f"\r\n\r\n{text}\r\n\r\n".encode(encoding)
    (tmp_path / "one.txt").write_bytes(data)
    train, valid = make(tmp_path / "one.txt", valid_fraction=0.25).documents()
    codec = {"utf-16": "utf-16-le", "utf-8-sig": "utf-8"}.get(encoding, encoding)
    for document in (train, valid):
        piece = data[document.start : document.end].decode(codec)
        assert piece.replace("\r\n", "\n").replace("\x07", "").strip() == document.text.strip()
    assert train.end == valid.start


def test_a_huge_document_among_few_is_cut_and_the_others_are_trained_on(tmp_path: Path, make: Build) -> None:
    (tmp_path / "a.txt").write_text("a small one")
    (tmp_path / "b.txt").write_text("word " * 10_000)
    corpus = make(tmp_path, valid_fraction=0.1)
    assert [(document.source[-5:], document.split) for document in corpus.documents()] == [
        ("a.txt", "train"), ("b.txt", "train"), ("b.txt", "valid"),
    ]  # fmt: skip


def test_duplicates_are_dropped_once_and_said_to_be(tmp_path: Path, make: Build) -> None:
    (tmp_path / "a.txt").write_bytes(b"same text\r\n")
    (tmp_path / "b.md").write_bytes("\ufeffsame text".encode())
    (tmp_path / "c.txt").write_bytes(b"other")
    corpus = make(tmp_path, valid_fraction=0.0)
    assert [document.text for document in corpus.documents()] == ["same text\n", "other"]
    (dropped,) = corpus.dropped()
    first = next(corpus.documents())
    assert dropped == {
        "id": first.id,
        "source": str(tmp_path / "b.md"),
        "start": 3,
        "end": 12,
        "reason": "duplicate",
        "preview": "same text",
        "by": first.id,
        "cover": 1.0,
    }
    assert corpus.metrics["dropped"] == {"duplicate": {"documents": 1, "text_bytes": 9}}


def test_empty_and_short_documents_are_dropped_with_their_reason(tmp_path: Path, make: Build) -> None:
    for name, text in {
        "zero.txt": "",
        "blank.txt": " \n\t",
        "short.txt": "abc",
        "long.txt": "abcdef",
    }.items():
        (tmp_path / name).write_text(text)
    corpus = make(tmp_path, minimum_characters=5)
    assert {entry["source"][len(str(tmp_path)) + 1 :]: entry["reason"] for entry in corpus.dropped()} == {
        "zero.txt": "empty", "blank.txt": "empty", "short.txt": "too short",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("separator", "text", "expected"),
    [
        ("%", "one\nline\n%\n%\ntwo\n%\n", ["one\nline\n", "two\n"]),
        ("", "one\n\n\ntwo\nmore\n", ["one\n", "two\nmore\n"]),
        (r"\* \* \*|-{3,}", "one\r\n* * *\r\ntwo\n----\nthree", ["one\n", "two\n", "three"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_separator_divides_a_file(
    separator: str, text: str, expected: list[str], encoding: str, tmp_path: Path, make: Build
) -> None:
    data = text.encode(encoding)
    (tmp_path / "many.txt").write_bytes(data)
    documents = list(make(tmp_path, document_separator=separator, valid_fraction=0.0).documents())
    assert [document.text for document in documents] == expected
    codec = "utf-16-le" if encoding == "utf-16" else "utf-8"
    slices = [
        data[document.start : document.end].decode(codec).replace("\r\n", "\n") for document in documents
    ]
    assert slices == expected


def test_the_same_sources_give_the_same_bytes_and_are_not_read_again(tmp_path: Path, make: Build) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_bytes(as_lines())
    (tmp_path / "in/b.jsonl").write_bytes(as_lines() + b"{broken\n")
    first = make(tmp_path / "in")
    assert make(tmp_path / "in").artifact.manifest == first.artifact.manifest  # the time of creation included
    again = make(tmp_path / "in/b.jsonl", tmp_path / "in/a.jsonl", out="again").artifact.manifest
    assert again.content_hash == first.artifact.manifest.content_hash
    (tmp_path / "in/a.jsonl").write_bytes(b'{"text": "changed"}\n')
    assert make(tmp_path / "in").artifact.manifest.key != first.artifact.manifest.key


def test_a_text_of_lines_is_joined(tmp_path: Path, make: Build) -> None:
    (tmp_path / "poems.json").write_text(json.dumps([{"author": "李白", "paragraphs": ["床前", "明月光"]}]))
    (document,) = make(tmp_path, valid_fraction=0.0).documents()
    assert (document.text, document.metadata) == ("床前\n明月光", {"author": "李白"})


def test_the_longest_column_is_the_text_where_no_name_says_so(tmp_path: Path, make: Build) -> None:
    (tmp_path / "a.csv").write_text('1,x,"A ""quoted"" text,\nof two lines"\n2,y,Another text that is long\n')
    corpus = make(tmp_path / "a.csv", valid_fraction=0.0)
    assert [document.text for document in corpus.documents()] == [
        'A "quoted" text,\nof two lines',
        "Another text that is long",
    ]
    assert corpus.metrics["sources"][0]["text_column"] == "column_3"
    named = make(tmp_path / "a.csv", out="2", text_column="column_2", header="absent", valid_fraction=0.0)
    assert [document.text for document in named.documents()] == ["x", "y"]


def test_odd_json_survives(tmp_path: Path, make: Build) -> None:
    lines = [
        '{"text": "half a pair \\ud800", "x": "\\udfff"}',
        '{"text": null}',
        '{"text": 5}',
        "",
        '{"text": "NaN", "n": NaN}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = make(tmp_path, valid_fraction=0.0)
    assert [document.text for document in corpus.documents()] == ["half a pair \ufffd", "NaN"]
    assert corpus.metrics["dropped"]["no text"]["documents"] == 2


# What is wrong with the input


def fails(make: Build, *sources: Path | str, match: str, hint: str = "", **settings: Any) -> InputError:
    with pytest.raises(InputError, match=match) as caught:
        make(*sources, **settings)
    assert hint in (caught.value.hint or "")
    return caught.value


def test_an_empty_folder(tmp_path: Path, make: Build) -> None:
    (tmp_path / "empty").mkdir()
    fails(make, tmp_path / "empty", match="no readable files in .*: no files at all", hint=".jsonl")
    assert not (tmp_path / "out").exists()


def test_sources_that_are_not_there_or_not_understood(tmp_path: Path, make: Build) -> None:
    (tmp_path / "a.png").write_bytes(b"PNG")
    fails(make, match="no sources")
    fails(make, tmp_path / "nowhere", match="no such file")
    fails(make, tmp_path / "*.txt", match="no such file")
    fails(make, tmp_path / "a.png", match=r"a\.png: this ending is not understood", hint=".parquet")
    fails(make, tmp_path, match=r"1 ending \.png", hint=".txt")


@pytest.mark.parametrize("broken", ['{"text": "cut', "{'text': 1}", "[1, 2]", '"text"', "{" * 100_000])
def test_a_broken_line_is_named_by_file_and_line(broken: str, tmp_path: Path, make: Build) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n\n' + broken + '\n{"text": "also good"}\n')
    corpus = make(tmp_path, valid_fraction=0.0)
    assert [document.text for document in corpus.documents()] == ["good", "also good"]
    assert corpus.metrics["dropped"]["broken row"]["documents"] == 1
    assert re.search(r"a\.jsonl: line 3: ", corpus.metrics["problems"][0])
    fails(make, tmp_path, match=r"a\.jsonl: line 3: ", hint='on_error = "skip"', on_error="fail", out="2")
    assert not (tmp_path / "out/2").exists()


def test_broken_rows_of_a_table_are_counted(tmp_path: Path, make: Build) -> None:
    (tmp_path / "a.csv").write_bytes(
        "id,text\n1,good\n2,too,many\n3,中文\n".encode() + b"4,\xff\xfe\n5,fine\n"
    )
    corpus = make(tmp_path, encoding="utf-8", valid_fraction=0.0)
    assert [document.text for document in corpus.documents()] == ["good", "中文", "fine"]
    assert {entry["reason"] for entry in corpus.dropped()} == {"broken row", "undecodable"}


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("latin.txt", "café à la crème, déjà vu".encode("latin-1"), "encoding is none of"),
        ("binary.txt", bytes(range(256)) * 4, "zero bytes"),
        ("cut.jsonl.gz", gzip.compress(as_lines())[:-30], "damaged or breaks off"),
        ("cut.jsonl.zst", compress(as_lines())[:-30], "damaged or breaks off"),
        ("no.txt.gz", b"plain text", "damaged or breaks off"),
        ("no.txt.zst", b"plain text", "damaged or breaks off"),
        ("no.parquet", b"plain text", "not a whole parquet file"),
        ("zero.parquet", b"", "not a whole parquet file"),
        ("cut.json", json.dumps(ROWS).encode()[:-40], "broken JSON"),
        ("unclosed.json", json.dumps(ROWS).encode()[:-1], "broken JSON"),
        ("object.json", b'{"version": "1", "data": []}', "one JSON object"),
    ],
)
def test_a_file_that_can_not_be_read_is_skipped_and_counted_or_fatal(
    name: str, data: bytes, match: str, tmp_path: Path, make: Build
) -> None:
    (tmp_path / "good.txt").write_text("a good text")
    (tmp_path / name).write_bytes(data)
    corpus = make(tmp_path, valid_fraction=0.0)
    assert "a good text" in [document.text for document in corpus.documents()]
    (problem,) = corpus.metrics["problems"]
    assert name in problem
    assert re.search(match, problem)
    assert sum(entry["documents"] for entry in corpus.metrics["dropped"].values()) == 1
    fails(make, tmp_path, match=f"{re.escape(name)}.*{match}", on_error="fail", out="2")


def test_a_file_that_can_not_be_opened(tmp_path: Path, make: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good.txt", "secret.txt"):
        (tmp_path / name).write_text(name)
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:  # permissions do not stop root
        if path.name == "secret.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    corpus = make(tmp_path, valid_fraction=0.0)
    assert corpus.metrics["dropped"]["unreadable file"]["documents"] == 1
    fails(make, tmp_path, match=r"secret\.txt can't be read: Permission denied", on_error="fail", out="2")


def test_links_pipes_and_odd_names(tmp_path: Path, make: Build) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a [1].txt").write_text("first")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("second")
    (folder / "loop").symlink_to(folder)
    (folder / "again.txt").symlink_to(folder / "a [1].txt")
    (folder / "broken.txt").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.txt")
    corpus = make(folder, folder / "a [1].txt", valid_fraction=0.0)
    assert [Path(document.source).name for document in corpus.documents()] == ["a [1].txt", "caf\\xe9.txt"]
    assert corpus.metrics["read"]["skipped_files"] == {"broken link": 1, "no regular file": 1}


def test_the_output_inside_the_sources_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    config = CorpusConfig(sources=(str(tmp_path),))
    first = build(config, tmp_path / "corpus").manifest
    assert build(config, tmp_path / "corpus").manifest.key == first.key


def test_the_text_column_has_to_be_clear(tmp_path: Path, make: Build) -> None:
    (tmp_path / "pairs.csv").write_text(
        "A man plays a flute.,A man is playing it.,5.0\nTwo dogs run.,Two dogs are running.,4.0\n"
    )
    error = fails(
        make, tmp_path, match="column_1.*column_2.*could both be the text.*column_3", hint="text_column = "
    )
    assert error.hint == 'choose one: text_column = "column_1"'
    fails(make, tmp_path, match='no column "column_9"', hint='did you mean "column_', text_column="column_9")
    (tmp_path / "pairs.csv").write_text("")
    (tmp_path / "numbers.jsonl").write_text('{"a": 1, "b": [1, 2]}\n')
    fails(make, tmp_path, match="no column of text; its columns: a, b", hint="exclude")


def test_nothing_left_says_why(tmp_path: Path, make: Build) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("abc")
    fails(
        make, tmp_path, match="no documents are left of 2 files: 1 empty, 1 too short", minimum_characters=9
    )
    assert not (tmp_path / "out/corpus").exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"valid_fraction": 1.0}, "valid_fraction"),
        ({"minimum_characters": 0}, "minimum_characters"),
        ({"encoding": "klingon"}, "klingon"),
        ({"document_separator": "***"}, "no regular expression"),
    ],
)
def test_impossible_settings_are_refused_at_once(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        CorpusConfig(sources=("x",), **settings)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    draw = random.Random(0)
    with gzip.open(tmp_path / "big.jsonl.gz", "wt", compresslevel=1) as file:
        file.writelines(f'{{"text": "{draw.randbytes(4600).hex(" ", 4)}"}}\n' for _ in range(20_000))
    # In a process of its own: what other tests have used does not count, nor do the type checks of this one.
    program = """
import resource, sys
from pathlib import Path
import ftfy, pyarrow.compute, pyarrow.parquet
from gristmill.corpus import CorpusConfig, build
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
corpus = build(CorpusConfig(sources=(sys.argv[1],)), Path(sys.argv[2]))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(corpus.manifest.metrics["text_bytes"], grown * 1024)
"""
    arguments = [sys.executable, "-c", program, tmp_path / "big.jsonl.gz", tmp_path / "corpus"]
    text_bytes, grown_bytes = map(
        int, subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    )
    assert text_bytes > 200e6
    assert grown_bytes < 160e6


# The real thing


@pytest.mark.shared_data
def test_tiny_shakespeare_is_cut_where_everybody_cuts_it(shared_data: Path, make: Build) -> None:
    text = (shared_data / "tinyshakespeare/input.txt").read_text()
    corpus = make(shared_data / "tinyshakespeare/input.txt", valid_fraction=0.1)
    assert list(corpus.texts("train")) == [text[: int(0.9 * len(text))]]
    assert list(corpus.texts("valid")) == [text[int(0.9 * len(text)) :]]


RAW_FORMATS = {  # file -> encoding, text column, documents, a beginning
    "book.md": ("utf-8", None, 1, "# Title: Emma\n\n## Author: Jane Austen"),
    "law.md": ("utf-8", None, 1, "# 中华人民共和国民法典"),
    "text.big5.txt": ("big5", None, 1, "白玉誰家郎，回車渡天津。\n看花東上陌"),
    "text.gb18030.txt": ("gb18030", None, 1, "○吏部\n【屡兼二品正卿】洪武间"),
    "text.utf16le_bom.txt": ("utf-16-le", None, 1, "○吏部\n【屡兼二品正卿】洪武间"),
    "relation_3line.semeval.TXT": ("utf-8", None, 1, '1\t"The system as described above'),
    "cls_header_quotes.shopping.csv": ("utf-8", "review", 197, "做父母一定要有刘墉这样的心态"),
    "cls_multilabel.goemotions_dev.tsv": ("utf-8", "column_1", 300, "Is this in New Orleans??"),
    "instruct_alpaca.json": ("utf-8", "output", 40, "细胞理论是生物科学的一个理论"),
    "ner_span_pretty_json.cluener.json": ("utf-8", "text", 74, "浙商银行企业信贷部叶老桂博士"),
    "poetry_traditional.json": ("utf-8", "paragraphs", 34, "秦川雄帝宅，函谷壯皇居。\n綺殿千尋起"),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", RAW_FORMATS)
def test_files_as_the_world_publishes_them(name: str, shared_data: Path, make: Build) -> None:
    corpus = make(shared_data / "raw_formats" / name, valid_fraction=0.0)
    encoding, column, documents, beginning = RAW_FORMATS[name]
    (source,) = corpus.metrics["sources"]
    assert (source["encoding"], source["text_column"], source["documents"]) == (encoding, column, documents)
    assert next(corpus.documents()).text.startswith(beginning)


@pytest.mark.shared_data
def test_poems_from_a_zstandard_file(shared_data: Path, tmp_path: Path, make: Build) -> None:
    packed = (shared_data / "pretrain_zh_poetry/train.jsonl.zst").open("rb")
    with packed, pyarrow.CompressedInputStream(packed, "zstd") as stream:
        (tmp_path / "poems.jsonl.zst").write_bytes(
            compress(b"\n".join(stream.read(2_000_000).split(b"\n")[:2000]))
        )
    metrics = make(tmp_path).metrics
    dropped = sum(entry["documents"] for entry in metrics["dropped"].values())
    assert metrics["documents"] + dropped == 2000
    assert metrics["languages"]["zh"]["documents"] >= metrics["documents"] - 5
    assert 0.03 < metrics["splits"]["valid"]["documents"] / metrics["documents"] < 0.07


def test_the_demo_texts(demo_texts: Path, make: Build) -> None:
    corpus = make(demo_texts, exclude=("README.md",), document_separator="%")
    documents: list[Document] = list(corpus.documents())
    assert {language: entry["documents"] for language, entry in corpus.metrics["languages"].items()} == {
        "en": 113,
        "zh": 597,
    }
    twice = list(corpus.dropped())  # three poems that stand there twice, a word or two different
    assert [entry["reason"] for entry in twice] == ["near duplicate"] * 3
    assert all(0.9 <= entry["cover"] < 1 for entry in twice)
    assert not any(corpus.metrics["changed"].values())
    assert any(document.text.startswith("In the beginning God created") for document in documents)
    assert isinstance(corpus.artifact, Artifact)
