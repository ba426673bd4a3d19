"""The fine-tuned probe as what self-training fits."""

import json

import numpy as np
import pytest
from tests.synthesis.checkpoints import checkpoint

from gristmill.augment.selftraining import Example, Fit, SelfTrainingSettings, self_train
from gristmill.evaluate.probe import ProbeFit, ProbeSettings
from gristmill.generate.load import load_run
from gristmill.objectives.masked import Masked


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> ProbeFit:
    folder = tmp_path_factory.mktemp("probe")
    loaded = load_run(checkpoint(folder / "model", Masked()))
    path = folder / "none.jsonl"
    path.write_text(json.dumps({"text": "a", "label": 0}) + "\n")
    settings = ProbeSettings(
        train=str(path), test=str(path), epochs=5, batch_examples=8, learning_rate=0.003, dropout=0.2
    )
    return ProbeFit(loaded.model, loaded.tokenizer, settings, objective=Masked())


def examples(count: int, seed: int) -> list[Example]:
    """A text about a dog or a king, among other words."""
    generator = np.random.default_rng(seed)
    common = ["river", "tree", "night", "moon", "and", "the", "by"]
    found = []
    for number in range(count):
        words = generator.choice(common, 5).tolist()
        words.insert(int(generator.integers(6)), ["dog", "king"][number % 2])
        found.append(Example(" ".join(words), ["animal", "person"][number % 2]))
    return found


def test_it_is_a_fit_and_its_predictor_votes_with_dropout(fit: ProbeFit) -> None:
    assert isinstance(fit, Fit)
    predictor = fit(examples(48, 0), 0)
    texts = [example.text for example in examples(10, 1)]
    once, votes = predictor.probabilities(texts), predictor.probabilities(texts, passes=4)
    assert once.shape == (1, 10, 2)
    assert votes.shape == (4, 10, 2)
    assert votes.sum(axis=2) == pytest.approx(1.0)
    assert (predictor.probabilities(texts) == once).all()
    assert (predictor.probabilities(texts, passes=4) == votes).all(), (
        "dropout is drawn from the number of the pass"
    )
    assert len({vote.tobytes() for vote in votes}) == 4
    assert (fit(examples(48, 0), 0).probabilities(texts) == once).all()
    assert (fit(examples(48, 0), 1).probabilities(texts) != once).any()


def test_it_trains_itself(fit: ProbeFit) -> None:
    truth = examples(40, 2)
    settings = SelfTrainingSettings(shares=(0.5,), threshold=0.5, passes=2, balance="equal")
    trained = self_train(fit, examples(48, 0), [example.text for example in truth], settings)
    assert trained.best == 1
    right = [label.label == truth[label.index].label for label in trained.pseudo_labels]
    assert len(right) >= 10
    assert np.mean(right) > 0.8
