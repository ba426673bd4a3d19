import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pytest

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.files import SourceFile, find_files, open_stream
from gristmill.corpus.formats.common import Broken, Record
from gristmill.corpus.read import ReadOptions, inspect, read_range, records

for module in ("trafilatura", "pypdf", "docutils"):
    pytest.importorskip(module)

ENGLISH = (
    "Attila, frequently referred to as Attila the Hun, was the ruler of the Huns from 434 until his death in March 453. "
    "Attila was a leader of the Hunnic Empire, which stretched from the Ural River to the Rhine River and from the Danube "
    "River to the Baltic Sea. During his reign, he was one of the most feared enemies of the Roman Empires."
)
POEM = "秦川雄帝宅，函谷壯皇居。綺殿千尋起，離宮百雉餘。連薨遙接漢，飛觀迥凌虛。雲日隱層闕，風煙出綺疏。"
PAGE = f"<html><head><title>T</title></head><body><p>{ENGLISH}</p><p>{ENGLISH}</p></body></html>"
SHARD = f'<doc id="1" url="http://a" title="A">\nA\n\n{ENGLISH}\n</doc>\n<doc id="2" url="http://b" title="B">\nB\n\n{POEM}\n</doc>\n'
DUMP = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><page><title>A</title><ns>0</ns><revision><text>'
    f"''{ENGLISH}''</text></revision></page></mediawiki>"
)
WARC = f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: {len(ENGLISH)}\r\n\r\n{ENGLISH}\r\n\r\n"


def docx_of(text: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
        file.writestr(
            "word/document.xml",
            f'<w:document xmlns:w="{namespace}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>',
        )
    return out.getvalue()


def read(file: SourceFile, options: ReadOptions | None = None) -> list[Record | Broken]:
    options = options or ReadOptions()
    layout = inspect(file, options)
    with open_stream(file) as stream:
        return list(records(stream, file, layout, options))


MIXED = {
    "a.html": (PAGE.encode(), f"{ENGLISH}\n{ENGLISH}\n"),
    "b.htm.gz": (gzip.compress(PAGE.replace(ENGLISH, POEM).encode("big5")), f"{POEM}\n{POEM}\n"),
    "c.warc.gz": (gzip.compress(WARC.encode()), ENGLISH),
    "d.xml.bz2": (bz2.compress(DUMP.encode()), f"A\n\n{ENGLISH}\n"),
    "e.docx": (docx_of(ENGLISH), f"{ENGLISH}\n"),
    "f.doc": (docx_of(POEM), f"{POEM}\n"),  # many are
    "g.rst": (f"Title\n=====\n\n{ENGLISH}\n".encode(), f"Title\n\n{ENGLISH}\n"),
    "h.rst.xz": (lzma.compress(POEM.encode("utf-16")), f"{POEM}\n"),
    "i.py": (b"def f():\n    return 1\n", "def f():\n    return 1\n"),
    "j.sql.bz2": (
        bz2.compress("-- 这个查询是为了看出有多少人".encode("gb18030") + b"\nselect 1;\n"),
        "-- 这个查询是为了看出有多少人\nselect 1;\n",
    ),
    "k.txt": (POEM.encode("big5"), POEM),
    "l.txt.xz": (lzma.compress(POEM.encode("gb18030")), POEM),
}
BROKEN = {
    "empty.html": (b"", "no text"),
    "login.html": (b"<form><input type=password></form>", "no text"),
    "picture.html": (b"\x89PNG" + bytes(range(256)) * 40, "zero bytes"),
    "cut.html.gz": (gzip.compress(PAGE.encode())[:-20], "damaged or breaks off"),
    "empty.pdf": (b"", "it is no PDF"),
    "empty.docx": (b"", "it is no Word file"),
    "old.doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a file of an old Word"),
    "cut.docx": (docx_of(ENGLISH)[:-10], "no whole Word file"),
    "other.xml": (b"<rss></rss>", "XML of another kind"),
    "cut.xml.bz2": (bz2.compress(DUMP.encode())[:-20], "damaged or breaks off"),
    "no.xml.bz2": (DUMP.encode(), "damaged or breaks off"),
    "no.warc": (ENGLISH.encode(), "no web archive"),
    "cut.warc": (WARC.encode()[:-50], "breaks off"),
    "binary.py": (bytes(range(256)) * 4, "zero bytes"),
    "latin.rst": ("déjà vu".encode("latin-1"), "encoding is none of"),
    "wiki_00": (b'{"id": "1", "text": "a"}\n', "it holds JSON"),
}


def outcome_of(file: SourceFile) -> str:
    """Returns the text of a file of one document, or what was wrong with it."""
    try:
        (item,) = read(file)
    except UnreadableError as error:
        return (
            error.message
            if error.message.startswith(file.name) and error.hint
            else "which file, and what now?"
        )
    return item.text if isinstance(item, Record) else item.reason


def test_a_folder_of_mixed_things(tmp_path: Path) -> None:
    for name, (data, _) in (MIXED | BROKEN).items():
        (tmp_path / name).write_bytes(data)
    outcomes: dict[str, str] = {}
    for file in find_files([str(tmp_path)]).files:
        outcomes[file.path.name] = outcome_of(file)
    assert set(outcomes) == set(MIXED | BROKEN)
    assert {name: outcomes[name] for name in MIXED} == {name: text for name, (_, text) in MIXED.items()}
    for name, (_, reason) in BROKEN.items():
        assert reason in outcomes[name], name


def test_an_empty_archive_or_shard_holds_nothing(tmp_path: Path) -> None:
    for name in ("a.warc", "wiki_00", "a.py"):
        (tmp_path / name).write_bytes(b"")
    items = [read(file) for file in find_files([str(tmp_path)]).files]
    assert [[item.text for item in found if isinstance(item, Record)] for found in items] == [[""], [], [""]]


def test_a_shard_of_wikiextractor_is_its_articles(tmp_path: Path) -> None:
    (tmp_path / "wiki_00").write_bytes(SHARD.encode())
    (tmp_path / "shard.txt").write_bytes(b"\xef\xbb\xbf" + SHARD.encode())
    for file in find_files([str(tmp_path)]).files:
        items = read(file)
        assert [item.metadata["title"] for item in items if isinstance(item, Record)] == ["A", "B"]
        layout = inspect(file, ReadOptions())
        for item in items:
            assert isinstance(item, Record)
            assert read_range(file, layout, item.start, item.end) == item.text
    assert len(read(file, ReadOptions(document_separator="</doc>"))) == 2  # what the recipe says comes first
    (tmp_path / "prose.txt").write_text("A text about <doc id=...> is a text.\n" + SHARD)
    assert len(read(next(f for f in find_files([str(tmp_path)]).files if "prose" in f.name))) == 1


def test_a_range_of_source_code_is_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\nb = 2\n")
    (file,) = find_files([str(tmp_path)]).files
    assert read_range(file, inspect(file, ReadOptions()), 6, 12) == "b = 2\n"


def test_a_recipe_names_the_encoding_of_pages_too(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(
        PAGE.replace(ENGLISH, "Ça déjà vu à la crème brûlée, où l’été dure. " * 6).encode("cp1252")
    )
    (file,) = find_files([str(tmp_path)]).files
    with pytest.raises(UnreadableError, match="encoding is none of"):
        inspect(file, ReadOptions())
    (item,) = read(file, ReadOptions(encoding="cp1252"))
    assert isinstance(item, Record)
    assert "où l’été" in item.text


@pytest.mark.parametrize("name", ["a.html", "a.rst"])
def test_documents_of_any_length_are_not_taken_in(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"a " * (5 << 20))
    (file,) = find_files([str(tmp_path)]).files
    with pytest.raises(UnreadableError, match=r"more than [48] MiB") as caught:
        read(file)
    assert "divide it" in (caught.value.hint or "")


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "documents", "beginning"),
    [
        ("page.html", 1, "The Amazon rainforest (Portuguese"),
        ("pep.rst", 1, "Style Guide for Python Code\n\nIntroduction\n\nThis document gives"),
        ("wikiextractor_shard.txt", 4, "Attila\n\nAttila ( or ; fl. 434–453), frequently"),
        ("text.gb18030.txt", 1, "○吏部"),
        ("text.big5.txt", 1, "白玉誰家郎"),
    ],
)
def test_files_as_the_world_publishes_them(
    name: str, documents: int, beginning: str, shared_data: Path
) -> None:
    (file,) = find_files([str(shared_data / "raw_formats" / name)]).files
    items = read(file)
    assert len(items) == documents
    assert isinstance(items[0], Record)
    assert items[0].text.startswith(beginning)
