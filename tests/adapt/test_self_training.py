"""Rows without labels: which are learned from, that judged texts are not among them, and that a killed run ends in the same bytes."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gristmill.adapt.adapting import AdaptRecipe, adapt, prepare
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.self_training import SelfTraining, chosen, pool_of, said_of
from gristmill.adapt.tables import Row
from gristmill.adapt.tasks.classification import Classification
from gristmill.adapt.tasks.multi_label import MultiLabel
from gristmill.adapt.tasks.tagging import Tagging
from gristmill.adapt.tuner import Tuner
from gristmill.artifact import hash_file
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
    kept = [{"text": row["text"], "label": row["label"]} for row in found if row["label"] in CLASSES]
    return sorted(kept, key=lambda row: row["text"])


@pytest.fixture(scope="module")
def base(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT that has learned nothing, but whose vectors of words differ."""
    folder = tmp_path_factory.mktemp("base")
    train(TokenizerConfig(vocab_size=600), [row["text"] for row in rows], folder / "tokenizer")
    tokenizer = Tokenizer.from_directory(folder / "tokenizer")
    settings = ModelSettings(family="bert", depth=2, width=64)
    model = make_model(resolve(settings, vocab_size=tokenizer.vocab_size, row_tokens=64))
    model.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.embedding.weight.mul_(10.0)
    (folder / "model").mkdir()
    to_transformers(model, folder / "model", dict(tokenizer.special))
    tokenizer.save(folder / "model")
    return folder / "model"


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def recipe(folder: Path, base: Path, rows: list[dict[str, Any]], **more: Any) -> AdaptRecipe:
    return from_dict(
        AdaptRecipe,
        {
            "name": "few", "base": str(base),
            "task": {"name": "classification", "head_start": "centroids", "pooling": "mean"},
            "data": {
                "train": write(folder / "train.jsonl", rows[:40]), "valid": write(folder / "valid.jsonl", rows[40:80]),
                "test": write(folder / "test.jsonl", rows[80:120]),
            },
            "tune": {"epochs": 3, "batch_examples": 16, "learning_rate": 1e-3, "precision": "float32"},
            "augment": {"deleted_words": 0.1},
            "self_training": {
                "unlabelled": write(folder / "unlabelled.jsonl", rows[120:320]), "threshold": 0.5, "rounds": 2,
                "weight": 0.5, "epochs": 1,
            },
            **more,
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def mixed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in an order in which all classes stand everywhere."""
    return [row for i in range(80) for row in rows[i::80]]


@pytest.mark.shared_data
def test_the_pool_has_no_text_that_is_judged_or_labelled(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    task = Classification()
    labelled, judged = (
        task.read([Row("x", row) for row in some], labelled=True) for some in (rows[:30], rows[30:60])
    )
    loud = {"text": f"  {rows[40]['text'].upper()} ", "label": "?"}
    file = write(tmp_path / "more.jsonl", [*rows[20:90], loud, rows[89], {"text": "no label here"}])
    pool = pool_of(task, SelfTraining(unlabelled=file), labelled, judged)
    texts = list(dict.fromkeys(row["text"] for row in rows[60:90]))
    assert [each.texts[0] for each in pool.examples] == [*texts, "no label here"]
    assert pool.left_out == {
        "in training": 10,
        "in validation or test": 31,
        "there before": 1 + 30 - len(texts),
    }
    assert {each.label for each in pool.examples} == {None}
    with pytest.raises(InputError, match="has no text that is not in the labelled data"):
        pool_of(task, SelfTraining(unlabelled=write(tmp_path / "same.jsonl", rows[:30])), labelled, judged)


@pytest.mark.shared_data
def test_the_surest_of_each_class_are_chosen(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    task = Classification()
    file = write(tmp_path / "more.jsonl", rows[:8])
    pool = pool_of(task, SelfTraining(unlabelled=file), [], [])
    said = [
        {"label": "timer" if i < 5 else "transfer", "probability": p}
        for i, p in enumerate([0.9, 0.95, 0.6, 0.9, 0.99, 0.7, 0.8, 0.4])
    ]

    def numbers(**settings: Any) -> list[int]:
        found = chosen(task, SelfTraining(unlabelled=file, **settings), pool, said)
        assert all(each.example.label == said[each.number]["label"] for each in found)
        return [each.number for each in found]

    assert numbers(threshold=0.0) == list(range(8))
    assert numbers(threshold=0.75) == [0, 1, 3, 4, 6]
    assert numbers(threshold=0.0, share=0.5) == [0, 1, 4, 5, 6]  # 3 of 5, 2 of 3
    assert numbers(threshold=0.75, per_class=2) == [1, 4, 6]
    right = sum(row["label"] == each["label"] for row, each in zip(rows[:8], said, strict=True))
    facts = said_of(pool, chosen(task, SelfTraining(unlabelled=file, threshold=0.0), pool, said))
    assert facts == {
        "pseudo_labels": 8, "by_class": {"timer": 5, "transfer": 3},
        "confidence": {"least": 0.4, "mean": pytest.approx(0.78)}, "right": right / 8,
    }  # fmt: skip


@pytest.mark.shared_data
def test_students_learn_and_the_best_round_is_kept(
    tmp_path: Path, base: Path, mixed: list[dict[str, Any]]
) -> None:
    said: list[str] = []
    made = adapt(recipe(tmp_path, base, mixed), tmp_path / "out", say=said.append)
    facts = json.loads((made.path / "result.json").read_text())
    first, *later = facts["seeds"][0]["rounds"]
    assert first["round"] == 0
    assert later[0]["pseudo_labels"] == sum(later[0]["by_class"].values()) > 20
    assert later[0]["confidence"]["least"] >= 0.5
    assert later[0]["right"] > 0.5  # chance is a quarter
    assert facts["unlabelled"]["used"] + sum(facts["unlabelled"]["left_out"].values()) == 200
    assert facts["seeds"][0]["valid"]["accuracy"] == max(each["score"] for each in (first, *later))
    assert any("rows are learned from" in line for line in said)
    answers = Predictor(made.path).texts([row["text"] for row in mixed[80:120]])
    right = [answer["label"] == row["label"] for answer, row in zip(answers, mixed[80:120], strict=True)]
    assert sum(right) / 40 == pytest.approx(facts["figures"]["accuracy"]["mean"])


@pytest.mark.shared_data
def test_what_was_killed_in_a_round_ends_in_the_same_bytes_and_labels_that_are_there_are_not_learned(
    tmp_path: Path, base: Path, mixed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"tune": {"epochs": 1, "batch_examples": 16, "learning_rate": 1e-3, "precision": "float32"}}
    whole = adapt(recipe(tmp_path, base, mixed, **short), tmp_path / "whole")
    steps, step = 0, Tuner._one_step

    def killed(self: Tuner) -> None:
        nonlocal steps
        steps += 1
        if steps > 10:  # 5 are the teacher's
            raise KeyboardInterrupt
        step(self)

    wrong = [*mixed[:120], *({**row, "label": "timer"} for row in mixed[120:320])]
    monkeypatch.setattr(Tuner, "_one_step", killed)
    with pytest.raises(KeyboardInterrupt):
        adapt(recipe(tmp_path, base, wrong, **short), tmp_path / "killed")
    monkeypatch.setattr(Tuner, "_one_step", step)
    again = adapt(recipe(tmp_path, base, wrong, **short), tmp_path / "killed")
    for name in ("model.safetensors", "head.safetensors"):
        assert hash_file(again.path / name) == hash_file(whole.path / name)


@pytest.mark.shared_data
def test_what_can_not_be_learned_from_is_said(
    tmp_path: Path, base: Path, mixed: list[dict[str, Any]]
) -> None:
    said: list[str] = []
    sure = recipe(tmp_path, base, mixed).self_training
    table = {"unlabelled": sure.unlabelled, "threshold": 1.0}
    made = adapt(recipe(tmp_path, base, mixed, self_training=table), tmp_path / "out", say=said.append)
    assert any("no row is told with a probability of 1" in line for line in said)
    assert len(json.loads((made.path / "result.json").read_text())["seeds"][0]["rounds"]) == 1
    with pytest.raises(InputError, match="is not learned from"):
        pool_of(Tagging(), sure, [], [])
    missing = recipe(tmp_path, base, mixed, self_training={"unlabelled": str(tmp_path / "none.jsonl")})
    with pytest.raises(InputError, match=r"none\.jsonl"):
        prepare(missing)


def test_sets_of_classes_are_as_sure_as_their_least_certain_class() -> None:
    (example,) = MultiLabel().read([Row("x", {"text": "a"})], labelled=False)
    told, sure = MultiLabel().labelled(
        example, {"labels": ["b", "a"], "probabilities": {"a": 0.9, "b": 0.7, "c": 0.2}}
    )
    assert (told.labels, sure) == (("a", "b"), 0.7)
