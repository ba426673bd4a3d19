"""Numbers and sets of classes: read, scored, judged."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gristmill.adapt.encoding import Encoded
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.task import Item
from gristmill.adapt.tasks.multi_label import MultiLabel
from gristmill.adapt.tasks.similarity import Similarity
from gristmill.errors import InputError

NOTHING = Encoded((1, 2), 1, 2, 0)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["en_sts_stsb", "zh_sts_stsb"])
def test_numbers_come_back_on_their_own_scale(shared_data: Path, name: str) -> None:
    task = Similarity()
    examples = task.read(list(read_table(str(shared_data / name / "test.jsonl.gz")))[:400], labelled=True)
    outputs = task.outputs(examples)
    assert outputs == ("0.0", "5.0")
    items = [Item(NOTHING, example.score / 5.0, i) for i, example in enumerate(examples)]  # type: ignore[operator]
    scores = [np.array([item.target, 0.0], dtype=np.float32) for item in items]
    said = task.predictions(scores, items, examples, outputs)
    assert [each["score"] for each in said] == pytest.approx(
        [example.score for example in examples], abs=1e-5
    )
    result = task.result(examples, said)
    assert result.figures["spearman"].value == pytest.approx(1.0)
    loss = task.loss_of(torch.tensor(np.stack(scores)), items)
    assert float(loss.mean_nats) == pytest.approx(0.0, abs=1e-12)


def test_the_interval_of_a_correlation_covers_what_other_examples_would_give() -> None:
    generator, task, hits = np.random.default_rng(0), Similarity(), 0
    for _ in range(200):
        true = generator.normal(size=120)
        said = 0.8 * true + 0.6 * generator.normal(size=120)
        rows = [
            Row(f"row {i}", {"text1": "a", "text2": "b", "score": s}) for i, s in enumerate(true.tolist())
        ]
        result = task.result(task.read(rows, labelled=True), [{"score": s} for s in said.tolist()])
        low, high = result.figures["spearman"].interval or (math.nan, math.nan)
        hits += (
            low <= 0.786 <= high
        )  # (6 / pi) asin(0.8 / 2), the Spearman of a normal pair with 0.8 (Pearson 1907)
    assert hits >= 182


@pytest.mark.shared_data
def test_several_classes_of_a_text(shared_data: Path) -> None:
    task = MultiLabel(labels="emotions")
    rows = list(read_table(str(shared_data / "en_emotion_goemotions" / "test.jsonl.gz")))[:500]
    examples = task.read(rows, labelled=True)
    outputs = task.outputs(examples)
    assert "neutral" in outputs
    scores = [
        np.array([8.0 if name in (example.labels or ()) else -8.0 for name in outputs], dtype=np.float32)
        for example in examples
    ]
    items = [Item(NOTHING, (row > 0).astype(np.float32), i) for i, row in enumerate(scores)]
    said = task.predictions(scores, items, examples, outputs)
    assert [tuple(each["labels"]) for each in said] == [example.labels for example in examples]
    result = task.result(examples, said)
    assert result.figures["exact"].value == result.figures["micro F1"].value == 1.0
    assert float(task.loss_of(torch.from_numpy(np.stack(scores)), items).mean_nats) < 0.001


def test_classes_may_be_one_text() -> None:
    (example,) = MultiLabel(separator="|").read(
        [Row("x", {"text": "a", "labels": "joy | anger"})], labelled=True
    )
    assert example.labels == ("anger", "joy")
    (example,) = MultiLabel().read([Row("x", {"text": "a", "labels": []})], labelled=True)
    assert example.labels == ()


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        (
            Similarity(),
            {"text1": "a", "text2": "b", "score": "high"},
            "\"score\" is 'high', expected a number",
        ),
        (Similarity(), {"text1": "a", "text2": "b", "score": math.inf}, '"score" is inf, expected a number'),
        (Similarity(), {"text1": "a", "score": 1}, 'there is nothing in "text2"'),
        (MultiLabel(), {"text": "a", "labels": 3}, '"labels" is 3, expected a list of classes'),
        (MultiLabel(), {"text": "a"}, 'there is nothing in "labels"'),
    ],
)
def test_what_does_not_fit_is_named_by_row(task: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        task.read([Row("t.csv, row 3", fields)], labelled=True)
    assert error.value.message == f"t.csv, row 3: {message}"


def test_numbers_that_are_all_the_same_and_no_classes_at_all_are_nothing_to_learn() -> None:
    rows = [Row("x", {"text1": "a", "text2": "b", "score": 1, "text": "a", "labels": []})] * 3
    with pytest.raises(InputError, match=r"all training examples have the score 1\.0"):
        Similarity().outputs(Similarity().read(rows, labelled=True))
    with pytest.raises(InputError, match="no training example has a class"):
        MultiLabel().outputs(MultiLabel().read(rows, labelled=True))
