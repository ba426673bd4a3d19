"""What classification can do besides the cross-entropy of labels that are all right and as frequent: weights, doubt, a start."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.centroids import nearest_mean
from gristmill.adapt.encoding import Encoded, Encoder
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.tables import Row
from gristmill.adapt.task import Item
from gristmill.adapt.tasks.classification import Classification
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

CLASSES = ("translate", "transfer", "timer", "definition")
NOTHING = Encoded((1, 2), 1, 2, 0)


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    with gzip.open(shared_data / "en_intent_clinc150" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    kept = sorted((row for row in found if row["label"] in CLASSES), key=lambda row: row["text"])
    return [row for i, row in enumerate(kept) if row["label"] != "timer" or i % 5 == 0]


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


@pytest.mark.shared_data
def test_balanced_weights_are_those_of_scikit_learn(base: Path, rows: list[dict[str, Any]]) -> None:
    task = Classification(class_weights="balanced")
    examples = task.read([Row("x", row) for row in rows], labelled=True)
    labels = [row["label"] for row in rows]
    wanted = compute_class_weight("balanced", classes=np.array(sorted(CLASSES)), y=labels)
    settled = task.settled(examples, 0)
    assert settled.class_weights == pytest.approx(dict(zip(sorted(CLASSES), wanted.tolist(), strict=True)))
    tokenizer = Tokenizer.from_directory(base)
    config = resolve(ModelSettings(family="bert", depth=1), vocab_size=600, row_tokens=64)
    encoder = Encoder(tokenizer.vocabulary(), config, 64)
    items = settled.items(examples, tokenizer, encoder, sorted(CLASSES))
    total = dict.fromkeys(CLASSES, 0.0)
    for item, label in zip(items, labels, strict=True):
        total[label] += item.weight
    assert list(total.values()) == pytest.approx([len(rows) / 4] * 4)
    with pytest.raises(InputError, match=r'task\.class_weights has "timr"'):
        Classification(class_weights={"timr": 2.0}).settled(examples, 0)


@pytest.mark.parametrize("q", [0.05, 0.7, 1.0])
def test_the_doubting_loss_is_that_of_the_paper(q: float) -> None:
    scores = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    items = [Item(NOTHING, i % 4, i, 1.0 + i) for i in range(7)]
    p = torch.softmax(scores, 1)[range(7), [i % 4 for i in range(7)]]
    wanted = ((1 - p**q) / q * torch.arange(1.0, 8.0)).sum()
    assert torch.allclose(Classification(criterion="gce", gce_q=q).loss_of(scores, items).total_nats, wanted)
    plain = Classification().loss_of(scores, items).total_nats
    assert torch.allclose(plain, (-p.log() * torch.arange(1.0, 8.0)).sum())


def test_smoothed_labels_are_those_of_the_paper() -> None:
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.full((3, 4), 0.2 / 4)
    targets[range(3), [2, 0, 1]] += 0.8
    items = [Item(NOTHING, target, i) for i, target in enumerate([2, 0, 1])]
    found = Classification(label_smoothing=0.2).loss_of(scores, items).total_nats
    assert torch.allclose(found, -(targets * scores.log_softmax(1)).sum())
    with pytest.raises(InputError, match="two answers"):
        Classification(label_smoothing=0.2, criterion="gce")


@pytest.mark.parametrize("centred", [False, True])
def test_the_layer_tells_the_class_mean_with_the_highest_cosine(centred: bool) -> None:
    generator = np.random.default_rng(0)
    classes = np.repeat(np.arange(5), 8)
    features = 3.0 + generator.normal(size=(5, 16))[classes] + 0.8 * generator.normal(size=(40, 16))
    weight, bias = nearest_mean(features, classes, 5, centred=centred)
    moved = features - features.mean(0) * centred
    units = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    means = np.stack([units[classes == c].mean(0) for c in range(5)])
    cosines = units @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    assert ((features @ weight.T + bias).argmax(1) == cosines.argmax(1)).all()
    assert centred == bool(np.abs(bias).max() > 0)
    one, _ = nearest_mean(
        features[::8], classes[::8], 5, centred=centred
    )  # one of each: none can be left out
    assert np.isfinite(one).all()


@pytest.mark.shared_data
@pytest.mark.parametrize("pooling", ["mean", "family"])
def test_a_head_that_begins_at_class_means_needs_no_step(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]], pooling: str
) -> None:
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows[::2])))
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows[1::2])))
    recipe = from_dict(
        AdaptRecipe,
        {
            "name": "means", "base": str(base), "tune": {"epochs": 0},
            "task": {"name": "classification", "head_start": "centroids", "pooling": pooling},
            "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl"), "per_class": 10},
        },
    )  # fmt: skip
    made = adapt(recipe, tmp_path / "out")
    facts = json.loads((made.path / "result.json").read_text())
    accuracy = facts["figures"]["accuracy"]["mean"]
    assert facts["seeds"][0]["steps"] == 0
    if pooling == "mean":  # the first token of an untrained model says nothing
        assert accuracy > 0.7
    answers = Predictor(made.path).texts([row["text"] for row in rows[1::2]])
    right = [answer["label"] == row["label"] for answer, row in zip(answers, rows[1::2], strict=True)]
    assert np.mean(right) == pytest.approx(accuracy)
