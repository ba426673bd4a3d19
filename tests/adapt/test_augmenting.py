"""Noisy copies of training examples: labels stay, tags move with their words, and the order of examples does not matter."""

from pathlib import Path

import numpy as np
import pytest

from gristmill import rng
from gristmill.adapt.augmenting import Augmentation, augmented
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.task import Task
from gristmill.adapt.tasks.classification import Classification
from gristmill.adapt.tasks.multi_label import MultiLabel
from gristmill.adapt.tasks.similarity import Similarity
from gristmill.adapt.tasks.tagging import Tagging, words_of
from gristmill.augment.characters import CharacterNoise, Edit, edited
from gristmill.errors import InputError

WORDS = Augmentation(copies=2, deleted_words=0.2, swapped_words=0.2)
CHINESE = Augmentation(
    deleted_words=0.1, characters=CharacterNoise(rate=0.2, operators=("replace", "delete"))
)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("task", "name", "settings"),
    [
        (Classification(), "en_intent_clinc150", WORDS),
        (Classification(), "zh_topic_tnews", CHINESE),
        (Similarity(), "en_sts_stsb", WORDS),
        (MultiLabel(labels="emotions"), "en_emotion_goemotions", WORDS),
    ],
)
def test_texts_change_and_labels_do_not(
    shared_data: Path, task: Task, name: str, settings: Augmentation
) -> None:
    rows = list(read_table(str(shared_data / name / "train.jsonl.gz")))[:100]
    examples = task.read(rows, labelled=True)
    found = augmented(task, examples, settings, seed=3)
    assert len(found) == settings.copies * len(examples)
    assert [each.key for each in augmented(task, examples[::-1], settings, seed=3)[: len(examples)]] == [
        each.key for each in found[: len(examples)]
    ][::-1]
    changed = 0
    for i, each in enumerate(found):
        came = examples[i % len(examples)]
        assert type(each)(**{**vars(each), "texts": came.texts}) == came
        assert all(text.strip() for text in each.texts)
        changed += each.texts != came.texts
    assert changed / len(found) > 0.7
    if settings.copies == 2:
        assert found[: len(examples)] != found[len(examples) :]


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["en_ner_wnut17", "zh_ner_cluener"])
def test_tags_move_with_their_words(shared_data: Path, name: str) -> None:
    task = Tagging()
    rows = list(read_table(str(shared_data / name / "train.jsonl.gz")))[:150]
    examples = task.read(rows, labelled=True)
    settings = Augmentation(
        deleted_words=0.15, characters=CharacterNoise(rate=0.05, operators=("delete", "insert"))
    )
    tags = set(task.outputs(examples))
    for came, each in zip(examples, augmented(task, examples, settings, seed=0), strict=True):
        assert len(each.words) == len(each.tags) <= len(came.words)
        assert set(each.tags) <= tags
        assert all(each.text[start:end].strip() for start, end in each.words)
        assert sum(tag.startswith("B-") for tag in each.tags) <= sum(t.startswith("B-") for t in came.tags)
    nothing = [task.noised(example, lambda text: ()) for example in examples]
    assert nothing == examples


def test_an_entity_that_loses_its_first_word_begins_with_the_next() -> None:
    task = Tagging()
    row = {"tokens": ["in", "New", "York", "City", "."], "tags": ["O", "B-place", "I-place", "I-place", "O"]}
    (example,) = task.read([Row("x", row)], labelled=True)
    start = example.text.index("New ")
    shorter = task.noised(example, lambda text: (Edit(start, start + 4, "", "deleted words"),))
    assert [shorter.text[a:b] for a, b in shorter.words] == ["in", "York", "City", "."]
    assert shorter.tags == ("O", "B-place", "I-place", "O")


def test_words_are_left_out_as_often_as_is_said_and_never_all() -> None:
    text = "please tell me how to say good morning in 中文 now"
    draws = [edited(text, Augmentation(deleted_words=0.3).of_words(text, rng.stream(i))) for i in range(2000)]
    left = [len(words_of(each)) for each in draws]
    assert np.mean(left) == pytest.approx(0.7 * len(words_of(text)), rel=0.02)
    assert all(
        edited("go", Augmentation(deleted_words=0.99).of_words("go", rng.stream(i))) == "go"
        for i in range(50)
    )
    swapped = Augmentation(swapped_words=0.999).of_words("one two, three", rng.stream(0))
    assert edited("one two, three", swapped) == "two one, three"


def test_what_can_not_be_changed_is_refused() -> None:
    with pytest.raises(InputError, match="nothing is changed"):
        Augmentation()
    task = Tagging()
    examples = task.read([Row("x", {"tokens": ["a", "b", "c"], "tags": ["O", "B-x", "O"]})], labelled=True)
    with pytest.raises(InputError, match="each other's tags"):
        augmented(task, examples, Augmentation(swapped_words=0.99), 0)
