"""The fine-tuned probe: what it learns, what it leaves alone, and what is reported."""

import json

import numpy as np
import pytest
import torch
from tests.evaluate.models import VOCABULARY

from gristmill import rng
from gristmill.batch import Visibility
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.evaluate.probe import (
    Labelled,
    ProbeSettings,
    _batches,
    _Classifier,
    probe,
    probe_figures,
    probe_labelled,
    read_examples,
)
from gristmill.model.base import Model
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, NgramSettings, resolve
from gristmill.objectives.hybrid import Hybrid
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train

FAMILIES = ["modernbert", "qwen3", "lstm", "t5"]


def new_model(family: str = "qwen3", **settings: object) -> Model:
    heads = None if family == "lstm" else 2
    chosen = ModelSettings(family=family, depth=2, width=32, heads=heads, **settings)
    model = make_model(resolve(chosen, vocab_size=VOCABULARY.size, row_tokens=24))
    model.initialise(torch.Generator().manual_seed(0))
    return model.eval()


def task(count: int, seed: int) -> Labelled:
    """Two of three texts hold a cat, the others a dog, among other words."""
    generator = np.random.default_rng(seed)
    tokens, labels = [], []
    for i in range(count):
        text = generator.choice([0, 2, 4, 5, 6, 7, 8], size=generator.integers(1, 12)).tolist()
        text.insert(int(generator.integers(0, len(text) + 1)), 3 if i % 3 == 0 else 1)
        tokens.append(text)
        labels.append("dog" if i % 3 == 0 else "cat")
    return Labelled(tokens=tokens, labels=labels)


@pytest.fixture
def settings(tmp_path) -> ProbeSettings:
    for name in ("train", "test"):
        lines = [{"text": "good" if i % 2 else "bad", "label": i % 2} for i in range(10)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ProbeSettings(
        train=str(tmp_path / "train.jsonl"),
        test=str(tmp_path / "test.jsonl"),
        epochs=6,
        batch_examples=8,
        learning_rate=0.005,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_model_learns_a_task_and_stays_as_it_was(settings, family):
    model = new_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = probe_labelled(model, VOCABULARY, settings, task(160, 0), task(60, 1), seed=0)
    assert found["accuracy"] > 0.9
    assert found["majority"] == pytest.approx(2 / 3)
    assert found["chance"] == 0.5
    assert (found["classes"], found["train_examples"], found["test_examples"]) == (2, 160, 60)
    low, high = found["interval"]
    assert low < found["accuracy"] <= high
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_seed_decides_everything_and_global_random_numbers_nothing(settings):
    model = new_model()
    runs = []
    for seed in (0, 0, 1):
        torch.rand(3)
        runs.append(probe_labelled(model, VOCABULARY, settings, task(48, 0), task(150, 1), seed=seed))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_tables_of_ngrams_are_left_as_they_are(settings):
    model = new_model(ngrams=NgramSettings(orders=(2,), buckets=16))
    classifier = _Classifier(model, 2, Visibility.CAUSAL, dropout=0.1, seed=0)
    assert not classifier.model.ngrams.weight.requires_grad
    found = probe_labelled(model, VOCABULARY, settings, task(24, 0), task(60, 1), seed=0)
    assert found["test_examples"] == 60  # AdamW has no rule for their sparse gradients


def test_narrow_weights_are_fine_tuned_in_float32(settings):
    narrow = new_model().bfloat16()
    wide = new_model()
    wide.load_state_dict(narrow.state_dict())
    found = [
        probe_labelled(m, VOCABULARY, settings, task(48, 0), task(90, 1), seed=0) for m in (narrow, wide)
    ]
    assert found[0] == found[1]


def test_long_texts_are_cut_to_what_the_model_takes(settings):
    long = Labelled(tokens=[[1] * 200, [3] * 5] * 8, labels=["cat", "dog"] * 8)
    found = probe_labelled(new_model("gpt2"), VOCABULARY, settings, long, long, seed=0)
    assert found["train_examples_cut"] == 8


def test_a_class_that_training_did_not_have_is_never_right(settings):
    unknown = Labelled(tokens=[[1], [3], [9]], labels=["cat", "dog", "bird"])
    found = probe_labelled(new_model(), VOCABULARY, settings, task(24, 0), unknown, seed=0)
    assert found["accuracy"] <= 2 / 3
    assert found["classes"] == 2


def test_one_class_is_nothing_to_tell_apart(settings):
    with pytest.raises(InputError, match="1 class"):
        probe_labelled(
            new_model(), VOCABULARY, settings, Labelled(tokens=[[1]], labels=["a"]), task(3, 0), seed=0
        )


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_of_a_worked_example():
    """By hand, and as scikit-learn's f1_score(average="macro") has it: a 2/3, b 1/2, c 0."""
    found = probe_figures(list("aaabbc"), list("aabbaa"), majority="a")
    assert found == {
        "accuracy": 0.5,
        "interval": pytest.approx([0.1876, 0.8124], abs=1e-4),
        "macro_f1": pytest.approx((4 / 7 + 2 / 4 + 0) / 3),
        "majority": pytest.approx(4 / 6),
        "most_predicted": 0.5,
        "test_examples": 6,
    }


def test_a_constant_answer_shows_as_one():
    found = probe_figures(["a"] * 5, list("aaabb"), majority="a")
    assert found["accuracy"] == found["majority"] == 0.6
    assert found["most_predicted"] == 1.0
    assert found["macro_f1"] == pytest.approx((2 * 3 / (5 + 3)) / 2)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_draw_each_example_once_and_near_in_length():
    lengths = np.random.default_rng(0).integers(5, 100, size=1000)
    drawn = list(_batches(lengths, 32, rng.stream(0, "test")))
    assert sorted(np.concatenate(drawn).tolist()) == list(range(1000))
    places = sum(len(chosen) * int(lengths[chosen].max()) for chosen in drawn)
    assert places < 1.1 * lengths.sum()  # in batches at random it is 1.8
    first = [int(lengths[chosen].max()) for chosen in drawn[:16]]
    assert first != sorted(first)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    config = from_dict(TokenizerConfig, {"kind": "bytes"})
    return Tokenizer.from_directory(train(config, ["good bad"], tmp_path_factory.mktemp("t") / "bytes").path)


def test_a_task_in_files_is_probed(settings, tokenizer):
    model = make_model(
        resolve(ModelSettings(depth=1, width=32, heads=2), vocab_size=tokenizer.vocab_size, row_tokens=32)
    )
    model.initialise(torch.Generator().manual_seed(0))
    found = probe(model, tokenizer, settings, seed=0)
    assert found["accuracy"] == 1.0
    assert found["train_examples"] == found["test_examples"] == 10
    limited = probe(
        model,
        tokenizer,
        ProbeSettings(train=settings.train, test=settings.test, limit=6),
        objective=Hybrid(),
        seed=0,
    )
    assert limited["train_examples"] == 6
    expected = probe_labelled(
        model,
        tokenizer.vocabulary(),
        settings,
        *[Labelled(tokens=tokenizer.encode_batch(["bad", "good"] * 5), labels=["0", "1"] * 5)] * 2,
        seed=0,
        visibility=Visibility.CAUSAL,
    )
    assert found == expected


def test_files_that_are_no_task_are_refused(tmp_path, settings):
    with pytest.raises(InputError, match="no file of labelled texts"):
        ProbeSettings(train=str(tmp_path / "none.jsonl"), test=settings.test)
    for line, message in (
        ('{"text": "a"}', 'line 1 has no "text" with a "label"; it has text'),
        ('{"text": "a", "label": 0.5}', "line 1 has no"),
        ('{"text": " ", "label": 1}', "holds no labelled texts"),
    ):
        (tmp_path / "x.jsonl").write_text(line)
        with pytest.raises(InputError, match=message):
            read_examples(tmp_path / "x.jsonl")


@pytest.mark.shared_data
def test_the_shared_tasks_are_read(shared_data):
    for name, examples, classes in (
        ("en_sentiment_mr", 800, 2),
        ("zh_sentiment_waimai", 1087, 2),
        ("zh_topic_tnews", 2010, 15),
    ):
        found = read_examples(shared_data / name / "test.jsonl.gz")
        assert len(found) == examples
        assert len({example.label for example in found}) == classes
