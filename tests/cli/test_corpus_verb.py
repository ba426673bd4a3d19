import json
from pathlib import Path

import pytest

from gristmill.cli import main


def gristmill(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(list(map(str, arguments)))
    return int(exit_.value.code or 0)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("The first of the texts.\n")
    (folder / "b [draft].jsonl").write_text(
        '{"text": "白日依山盡，黃河入海流。", "author": "王之渙"}\n{broken\n'
    )
    (folder / "again.md").write_text("The first of the texts.")
    return folder


def test_build_prints_figures_and_the_next_command(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gristmill("corpus", "build", texts, "--out", tmp_path / "corpus") == 0
    out = capsys.readouterr().out
    for expected in (
        "dropped: duplicate",
        "dropped: broken row",
        "b [draft].jsonl",
        "line 2",
        f"next: gristmill corpus show {tmp_path}",
    ):
        assert expected in out.replace("\n", "") or expected in out


def test_show_prints_statistics_documents_and_what_was_dropped(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gristmill("corpus", "build", texts, "--out", tmp_path / "corpus", "--json", "--set", "valid_fraction=0.5")
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["documents"] == sum(split["documents"] for split in metrics["splits"].values())
    gristmill("corpus", "show", tmp_path / "corpus", "--json")
    assert json.loads(capsys.readouterr().out) == metrics
    gristmill("corpus", "show", tmp_path / "corpus", "--dropped", "--json")
    dropped = json.loads(capsys.readouterr().out)
    assert sorted(entry["reason"] for entry in dropped) == ["broken row", "duplicate"]
    gristmill("corpus", "show", tmp_path / "corpus", "--dropped")
    assert "duplicate" in capsys.readouterr().out
    duplicate = next(entry["id"] for entry in dropped if entry["reason"] == "duplicate")
    if gristmill("corpus", "show", tmp_path / "corpus", "--document", duplicate[:8]) == 0:
        assert "first of the texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "nowhere"], "error: nowhere: there is no such file or folder"),
        (["build", "."], "error: no readable files in ."),
        (["build"], 'error: "corpus.sources" is missing'),
        (
            ["build", ".", "--set", "text_colum=x"],
            'error: unknown key "corpus.text_colum"\nhint: did you mean "text_column"?',
        ),
        (
            ["build", ".", "--set", "valid_fraction=2.0"],
            "error: corpus: valid_fraction is 2.0, expected 0 to 1",
        ),
    ],
)
def test_what_is_wrong_is_said_in_two_lines(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert gristmill("corpus", *arguments, "--out", "out/corpus") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_recipe_gives_the_table(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.toml").write_text(f'[corpus]\nsources = ["{texts.as_posix()}"]\nexclude = ["*.jsonl"]\n')
    assert (
        gristmill("corpus", "build", "--recipe", tmp_path / "r.toml", "--out", tmp_path / "corpus", "--json")
        == 0
    )
    assert json.loads(capsys.readouterr().out)["read"]["files"] == 2
