"""`gristmill corpus teach` and `rewrite`: with a model, without one, and with what is none."""

import json
from pathlib import Path

import pytest
from tests.cli.verbs import run_verb
from tests.synthesis.checkpoints import SENTENCES, checkpoint

from gristmill.objectives.causal import Causal
from gristmill.objectives.masked import Masked


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    checkpoint(folder / "teacher", Causal())
    checkpoint(folder / "encoder", Masked())
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text, "label": n % 2}) + "\n" for n, text in enumerate(SENTENCES))
    )
    return path


def test_teach_writes_texts_and_says_what_was_dropped(models: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "prompts.txt").write_text("The old\nA small\n")
    arguments = [
        "corpus", "teach", models / "teacher", "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "taught",
        "--documents", 5, "--set", "sampling.max_new_tokens=8", "--set", "unfinished=keep",
        "--set", "filters.minimum_characters=1",
    ]  # fmt: skip
    status, out, err = run_verb(capsys, *arguments)
    assert status == 0
    assert "of 5 texts kept" in out
    assert f"next: gristmill corpus build {tmp_path}/taught/texts" in out
    assert "copies of its texts are not found" in err
    status, out, _ = run_verb(capsys, *arguments, "--json")
    metrics = json.loads(out)
    assert metrics["made"] == 5 == metrics["kept"] + sum(metrics["dropped"].values())


def test_rewrite_paraphrases_with_a_model_and_makes_noise_without(
    models: Path, reviews: Path, tmp_path: Path, capsys
) -> None:
    status, out, _ = run_verb(
        capsys, "corpus", "rewrite", reviews, "--with", models / "encoder", "--out", tmp_path / "new", "--copies", 2,
        "--set", "paraphrase.rate=0.6", "--set", "paraphrase.least_probability=0.0", "--json",
    )  # fmt: skip
    assert status == 0
    assert json.loads(out)["made"] == 12
    rows = [
        json.loads(line) for line in (tmp_path / "new" / "texts" / "00000.jsonl").read_text().splitlines()
    ]
    assert {row["synthetic"]["by"] for row in rows} == {"masked model"}
    assert all(row["label"] == row["synthetic"]["row"] % 2 for row in rows)
    status, out, _ = run_verb(
        capsys, "corpus", "rewrite", reviews, "--characters", "--out", tmp_path / "noisy", "--set", "characters.rate=0.2",
    )  # fmt: skip
    assert status == 0
    assert "texts kept" in out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["rewrite", "{reviews}"], "nothing is named that rewrites", "--characters for noise"),
        (["rewrite", "{reviews}", "--characters", "--with", "{models}/encoder"], "both given", "--with RUN"),
        (["rewrite", "{reviews}", "--characters", "--back", "{models}/encoder"], "--back is given without", "each way"),
        (["rewrite", "{reviews}", "--with", "{models}/teacher"], "a causal decoder can't rewrite", "corpus teach"),
        (["rewrite", "{reviews}", "--with", "nowhere"], "there is no run nowhere", "gristmill runs"),
        (
            ["rewrite", "{reviews}", "--with", "{models}/encoder", "--back", "{models}/encoder"],
            "translating takes an encoder-decoder",
            "each direction",
        ),
        (["rewrite", "nowhere.jsonl", "--characters"], "nowhere.jsonl: there is no such file", "relative"),
        (
            ["rewrite", "{reviews}", "--characters", "--set", "characters.rate=2.0"],
            '"rewrite.characters.rate" is 2.0',
            "",
        ),
        (["teach", "{models}/teacher"], "has no corpus, so there is nothing to begin with", "--prompts"),
        (["teach", "{models}/encoder", "--prompts", "{reviews}"], "does not continue texts", "fill"),
        (["teach", "{models}/teacher", "--prompts", "{reviews}", "--set", "temperature=1"], "unknown key", "known: batch"),
        (["teach", "{models}/teacher", "--prompts", "{reviews}", "--against", "{models}"], "not a finished artifact", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_two_lines(
    arguments: list[str], message: str, hint: str, models: Path, reviews: Path, tmp_path: Path, capsys,
) -> None:  # fmt: skip
    given = [argument.format(models=models, reviews=reviews) for argument in arguments]
    status, _, err = run_verb(capsys, "corpus", *given, "--out", tmp_path / "out")
    assert status == 2
    assert message in err
    assert hint in err
    assert not (tmp_path / "out").exists()
