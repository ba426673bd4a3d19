"""What a task calls a mistake, and in which order people get to see them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.task import Mistake
from gristmill.adapt.tasks.classification import Classification
from gristmill.adapt.tasks.multi_label import MultiLabel
from gristmill.adapt.tasks.similarity import Similarity
from gristmill.adapt.tasks.tagging import Tagging


def first(shared_data: Path, name: str, count: int) -> list[Row]:
    return [row for row, _ in zip(read_table(str(shared_data / name)), range(count), strict=False)]


def shown(mistakes: Iterable[Mistake]) -> list[tuple[Any, ...]]:
    return [(each.place.rpartition(" ")[2], each.expected, each.said, each.probability) for each in mistakes]


@pytest.mark.shared_data
def test_of_classes_the_surest_come_first(shared_data: Path) -> None:
    task = Classification()
    examples = task.read(first(shared_data, "en_sentiment_mr/test.jsonl.gz", 4), labelled=True)
    truth = [str(example.label) for example in examples]
    said = [
        {"label": truth[0], "probability": 0.9}, {"label": "x", "probability": 0.6},
        {"label": "y", "probability": 0.8}, {"label": truth[3], "probability": 0.5},
    ]  # fmt: skip
    found = task.mistakes(examples, said)
    assert shown(found) == [("3", truth[2], "y", 0.8), ("2", truth[1], "x", 0.6)]
    assert found[0].text == examples[2].key


@pytest.mark.shared_data
def test_of_several_classes_those_differ(shared_data: Path) -> None:
    task = MultiLabel(labels="emotions")
    examples = task.read(first(shared_data, "en_emotion_goemotions/test.jsonl.gz", 3), labelled=True)
    truth = [set(example.labels or ()) for example in examples]
    said = [
        {"labels": sorted(truth[0]), "probabilities": {}},
        {"labels": [], "probabilities": dict.fromkeys(truth[1], 0.3)},
        {"labels": [*truth[2], "odd"], "probabilities": {"odd": 0.9}},
    ]
    assert shown(task.mistakes(examples, said)) == [
        ("3", ", ".join(sorted(truth[2])), ", ".join(sorted(truth[2] | {"odd"})), 0.9),
        ("2", ", ".join(sorted(truth[1])), "none", 0.7),
    ]


@pytest.mark.shared_data
def test_of_numbers_the_furthest_come_first(shared_data: Path) -> None:
    task = Similarity()
    examples = task.read(first(shared_data, "en_sts_stsb/test.jsonl.gz", 2), labelled=True)
    near, far = [float(example.score or 0) for example in examples]
    found = task.mistakes(examples, [{"score": near + 0.1}, {"score": far + 2}])
    assert shown(found) == [
        ("2", f"{far:g}", f"{far + 2:.2f}", None),
        ("1", f"{near:g}", f"{near + 0.1:.2f}", None),
    ]


@pytest.mark.shared_data
def test_of_tags_the_entities_that_differ_are_told(shared_data: Path) -> None:
    task = Tagging()
    examples = task.read(first(shared_data, "en_ner_wikigold/test.jsonl.gz", 40), labelled=True)
    example = next(each for each in examples if any(tag.startswith("B-") for tag in each.tags or ()))
    tags = list(example.tags or ())
    at = next(i for i, tag in enumerate(tags) if tag.startswith("B-"))
    wrong = ["O" if tag.endswith(tags[at][2:]) else tag for tag in tags]
    found = task.mistakes([example, example], [{"tags": tags}, {"tags": wrong}])
    assert len(found) == 1
    start = example.words[at][0]
    assert found[0].expected.startswith(example.text[start : start + 2])
    assert f"({tags[at][2:]})" in found[0].expected
    assert found[0].said == ""


def test_tags_without_a_prefix_are_told_word_by_word() -> None:
    task = Tagging()
    fields = {"tokens": ["the", "mill", "grinds"], "tags": ["DT", "NN", "VB"]}
    examples = task.read([Row("a.conll, sentence 1", fields)], labelled=True)
    found = task.mistakes(examples, [{"tags": ["DT", "VB", "VB"]}])
    assert [(each.expected, each.said) for each in found] == [("mill (NN)", "mill (VB)")]
