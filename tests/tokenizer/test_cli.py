import json

import pytest

from gristmill.cli import main

ENGLISH = "In the beginning was the Word, and the Word was with God. "


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["tokenizer", *map(str, arguments)])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def folder(tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    for i in range(40):
        text = f"{i}. {ENGLISH}" * 3 if i % 2 else f"{i}。床前明月光，疑是地上霜。" * 5
        (tmp_path / "texts" / f"{i}.txt").write_text(text, "utf-8")
    status, out, err = run(
        capsys, "train", tmp_path / "texts", "--out", tmp_path / "t", "--set", "vocab_size=300"
    )
    assert status == 0, err
    assert "bpe, 300 tokens" in out
    assert "next: gristmill tokenizer show" in out
    return tmp_path


def test_a_tokenizer_is_trained_on_a_corpus_that_exists(folder, capsys):
    status, out, _ = run(
        capsys, "train", folder / "t-corpus", "--out", folder / "u", "--set", "kind=bytes", "--json"
    )
    assert status == 0
    table = json.loads(out)
    assert table["vocab_size"] == 262
    assert {entry["bytes_per_token"] for entry in table["languages"].values()} == {1.0}


def test_a_sentence_is_shown_as_it_is_split(folder, capsys):
    status, out, _ = run(capsys, "show", folder / "t", "the Word 龍")
    assert status == 0
    assert "│·Word│·│<0xE9>│<0xBE>│<0x8D>" in out
    assert "bytes per token" in out


def test_figures_are_printed_and_as_json(folder, capsys):
    status, out, _ = run(capsys, "show", folder / "t", "--text", folder / "texts" / "1.txt")
    assert status == 0
    for shown in ("validation text", "bytes per token", "longest", "<|bos|>", "file"):
        assert shown in out
    status, out, _ = run(capsys, "show", folder / "t", "a", "--text", folder / "texts" / "1.txt", "--json")
    table = json.loads(out)
    assert status == 0
    assert [piece["text"] for piece in table["split"]] == ["a"]
    assert len(table["files"]) == 1


def test_what_a_user_can_get_wrong_is_one_error_and_one_hint(folder, capsys):
    wrong = {
        "kind=bep": 'did you mean "bpe"?',
        "vocab_size=90000": "tokens at most",
        "vocab_size=7": "the alphabet and the special tokens",
        "vocabsize=300": 'did you mean "vocab_size"?',
    }
    for setting, expected in wrong.items():
        status, _, err = run(capsys, "train", folder / "t-corpus", "--out", folder / "t", "--set", setting)
        assert status == 2
        assert expected in err
        assert "Traceback" not in err
    assert run(capsys, "show", folder / "t")[0] == 0  # what stood there still does
