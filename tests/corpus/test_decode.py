import codecs
from pathlib import Path

import pytest

from gristmill.corpus.decode import UnreadableError, declared, detect, newline_of
from gristmill.errors import InputError

SIMPLIFIED = "明月几时有？把酒问青天。不知天上宫阙，今夕是何年。我们的学校在城市的东边，那里有很多学生。"
TRADITIONAL = "明月幾時有？把酒問青天。不知天上宮闕，今夕是何年。我們的學校在城市的東邊，那裡有很多學生。"


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("plain", "ascii", "utf-8"),
        ("naïve 中文", "utf-8", "utf-8"),
        ("中文", "utf-8-sig", "utf-8"),
        ("中文", "utf-16", "utf-16-le"),
        (SIMPLIFIED, "gb18030", "gb18030"),
        (SIMPLIFIED, "gbk", "gb18030"),
        (TRADITIONAL, "gb18030", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
    ],
)
def test_encodings_are_recognised_and_give_the_text_back(text: str, encoding: str, expected: str) -> None:
    data = text.encode(encoding)
    found = detect(data, complete=True)
    assert found.name == expected
    assert data[found.mark_bytes :].decode(found.name) == text


def test_big_endian_utf_16_needs_its_mark() -> None:
    assert detect(codecs.BOM_UTF16_BE + "中文".encode("utf-16-be"), complete=True)[:2] == ("utf-16-be", 2)
    with pytest.raises(UnreadableError, match="zero bytes"):
        detect("plain".encode("utf-16-be"), complete=True)


def test_a_character_cut_by_the_end_of_the_sample_is_no_error() -> None:
    for encoding in ("utf-8", "gb18030"):
        data = SIMPLIFIED.encode(encoding)[:-1]
        assert detect(data, complete=False).name == encoding
    with pytest.raises(UnreadableError):
        detect("中".encode()[:-1] + b"\xff", complete=True)


@pytest.mark.parametrize(
    "data", [codecs.BOM_UTF32_LE + "a".encode("utf-32-le"), "café à la crème".encode("latin-1"), b"\x80\xff"]
)
def test_what_is_nothing_we_know_is_refused_with_a_way_out(data: bytes) -> None:
    with pytest.raises(UnreadableError) as caught:
        detect(data, complete=True)
    assert caught.value.hint is not None
    assert "encoding = " in caught.value.hint


def test_a_declared_encoding_overrules() -> None:
    assert declared("cp1252", b"caf\xe9") == ("cp1252", 0, "declared")
    assert declared("utf-8", codecs.BOM_UTF8 + b"a") == ("utf-8", 3, "declared")
    assert declared("utf-16", "中".encode("utf-16-be")).name == "utf-16-le"
    assert declared("utf-16", codecs.BOM_UTF16_BE).name == "utf-16-be"


def test_encodings_in_which_lines_can_not_be_found_are_refused() -> None:
    assert newline_of("utf-16") == b"\n\0"
    assert newline_of("UTF-8-SIG") == b"\n"
    for name in ("utf-32", "klingon", "rot13"):
        with pytest.raises(InputError):
            newline_of(name)


@pytest.mark.shared_data
@pytest.mark.parametrize("length", [20, 60, 300, 5000])
def test_gb18030_and_big5_are_told_apart_on_real_text(shared_data: Path, length: int) -> None:
    folder = shared_data / "raw_formats"
    for file, encoding in (("text.gb18030.txt", "gb18030"), ("text.big5.txt", "big5")):
        text = (folder / file).read_bytes().decode(encoding)
        for start in range(0, len(text) - length, max(length, 500)):
            piece = text[start : start + length]
            assert detect(piece.encode(encoding), complete=True).name == encoding, piece
