"""A recipe gives a task model, its figures and its answers; what is wrong is said before anything is trained."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from gristmill.adapt.adapting import AdaptRecipe, adapt, prepare
from gristmill.adapt.predicting import Predictor
from gristmill.cli._main import gristmill
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

CLASSES = ("translate", "transfer", "timer", "definition")


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    with gzip.open(shared_data / "en_intent_clinc150" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return [row for row in found if row["label"] in CLASSES]


@pytest.fixture(scope="module")
def base(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT that has learned nothing, in the format of transformers."""
    folder = tmp_path_factory.mktemp("base")
    train(TokenizerConfig(vocab_size=600), [row["text"] for row in rows], folder / "tokenizer")
    tokenizer = Tokenizer.from_directory(folder / "tokenizer")
    config = resolve(
        ModelSettings(family="bert", depth=2, width=64), vocab_size=tokenizer.vocab_size, row_tokens=64
    )
    model = make_model(config)
    model.initialise(torch.Generator().manual_seed(0))
    (folder / "model").mkdir()
    to_transformers(model, folder / "model", dict(tokenizer.special))
    tokenizer.save(folder / "model")
    return folder / "model"


def table(folder: Path, base: Path, rows: list[dict[str, Any]], **data: Any) -> dict[str, Any]:
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows[:300])))
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows[300:])))
    return {
        "name": "intents", "base": str(base), "task": "classification",
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"), **data},
        "tune": {"epochs": 6, "batch_examples": 16, "learning_rate": 3e-3, "precision": "float32"},
    }  # fmt: skip


@pytest.mark.shared_data
def test_a_recipe_gives_a_model_that_answers(tmp_path: Path, base: Path, rows: list[dict[str, Any]]) -> None:
    mixed = sorted(rows, key=lambda row: row["text"])
    recipe = from_dict(AdaptRecipe, table(tmp_path, base, mixed) | {"seeds": 2})
    said: list[str] = []
    made = adapt(recipe, tmp_path / "out", say=said.append)
    facts = json.loads((made.path / "result.json").read_text())
    assert facts["figures"]["accuracy"]["mean"] > 0.7
    assert facts["figures"]["accuracy"]["over"] == "seeds"
    assert len(facts["seeds"]) == 2
    assert sum("epoch 6" in line for line in said) == 2
    assert sum(sum(row.values()) for row in facts["confusion"].values()) == facts["examples"]["test"]
    predictor = Predictor(made.path)
    answers = list(predictor.texts([row["text"] for row in mixed[300:]]))
    right = sum(answer["label"] == row["label"] for answer, row in zip(answers, mixed[300:], strict=True))
    kept = next(i for i, each in enumerate(facts["seeds"]) if each["seed"] == facts["kept"])
    assert right / len(answers) == pytest.approx(facts["figures"]["accuracy"]["values"][kept])
    assert list(predictor.texts([])) == []
    again = adapt(recipe, tmp_path / "out", say=said.append)
    assert again.manifest.created_at == made.manifest.created_at


@pytest.mark.shared_data
def test_the_command_line(tmp_path: Path, base: Path, rows: list[dict[str, Any]]) -> None:
    tables = table(tmp_path, base, sorted(rows, key=lambda row: row["text"]))
    lines = [f'name = "{tables["name"]}"', f'base = "{base}"', 'task = "classification"', "[data]"]
    lines += [f'{key} = "{value}"' for key, value in tables["data"].items()]
    lines += ["[tune]", "epochs = 2", "learning_rate = 3e-3", "batch_examples = 16"]
    (tmp_path / "intents.toml").write_text("\n".join(lines))
    run = CliRunner().invoke(
        gristmill, ["adapt", str(tmp_path / "intents.toml"), "--out", str(tmp_path / "out")]
    )
    assert run.exit_code == 0, run.output
    assert "macro avg" in run.output
    assert f"next: gristmill predict {tmp_path / 'out'} FILE" in run.output
    predict = [
        "predict",
        str(tmp_path / "out"),
        str(tmp_path / "test.jsonl"),
        "--out",
        str(tmp_path / "a.jsonl"),
    ]
    run = CliRunner().invoke(gristmill, predict)
    assert run.exit_code == 0, run.output
    answered = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert [row["text"] for row in answered] == [row["text"] for row in given]
    assert set(answered[0]["predicted"]) == {"label", "probability"}
    run = CliRunner().invoke(
        gristmill, ["predict", str(tmp_path / "out"), "-"], input='{"text": "set a timer"}\n'
    )
    assert json.loads(run.output)["predicted"]["label"] in CLASSES


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, 'row 2: there is nothing in "label"'),
        ({"text": " "}, "row 2: \"text\" is ' ', expected a text"),
        ({"label": ["a", "b"]}, "expected one class"),
    ],
)
def test_a_row_that_does_not_fit_is_named(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]], change: dict[str, Any], message: str
) -> None:
    wrong = [rows[0], rows[1] | change, *rows[2:]]
    with pytest.raises(InputError) as error:
        prepare(from_dict(AdaptRecipe, table(tmp_path, base, wrong)))
    assert message in error.value.message


@pytest.mark.shared_data
def test_a_class_only_in_the_test_and_texts_in_both_are_told(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]]
) -> None:
    recipe = from_dict(
        AdaptRecipe, table(tmp_path, base, [*rows[:300], rows[0], rows[-1] | {"label": "new"}])
    )
    splits = prepare(recipe)
    assert [leak.other.rpartition(", ")[2] for leak in splits.leaks] == ["row 1"]
    with pytest.raises(InputError, match='no training example has the class "new"'):
        adapt(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.shared_data
def test_one_class_is_nothing_to_tell_apart(tmp_path: Path, base: Path, rows: list[dict[str, Any]]) -> None:
    same = [row | {"label": "x"} for row in rows]
    with pytest.raises(InputError, match="have 1 class"):
        prepare(from_dict(AdaptRecipe, table(tmp_path, base, same)))
