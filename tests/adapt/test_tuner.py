"""Fine-tuning learns, resumes to the byte, and does not depend on how a step is divided."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.heads import Head
from gristmill.adapt.net import Net
from gristmill.adapt.tables import read_table
from gristmill.adapt.task import Item
from gristmill.adapt.tasks.classification import Classification
from gristmill.adapt.tuner import Tuned, Tuner, TuneSettings
from gristmill.batch import Visibility
from gristmill.model.build import make_model
from gristmill.model.config import ModelConfig, ModelSettings, resolve
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

CLASSES = ("translate", "transfer", "timer", "definition")
FAST = TuneSettings(epochs=3, batch_examples=16, learning_rate=3e-3, precision="float32")


@dataclasses.dataclass
class Made:
    """The items of four intents, to learn from and to be asked, and how long texts may be."""

    train: list[Item]
    valid: list[Item]
    tokenizer: Tokenizer
    classes: int = len(CLASSES)

    def config(self, family: str) -> ModelConfig:
        return resolve(
            ModelSettings(family=family, depth=2, width=64),
            vocab_size=self.tokenizer.vocab_size,
            row_tokens=64,
        )


@pytest.fixture(scope="module")
def made(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = shared_data / "en_intent_clinc150"
    rows = [row for row in read_table(str(folder / "train.jsonl.gz")) if row.fields["label"] in CLASSES]
    out = tmp_path_factory.mktemp("tuner") / "tokenizer"
    train(TokenizerConfig(vocab_size=600), [row.fields["text"] for row in rows], out)
    tokenizer, task = Tokenizer.from_directory(out), Classification()
    examples = task.read(rows, labelled=True)
    config = resolve(ModelSettings(family="bert", depth=1), vocab_size=600, row_tokens=64)
    items = task.items(
        examples, tokenizer, Encoder(tokenizer.vocabulary(), config, 64), task.outputs(examples)
    )
    mixed = [items[i] for i in np.random.default_rng(0).permutation(len(items))]
    return Made(mixed[:160], mixed[160:240], tokenizer)


def tuner(
    made: Made, directory: Path, settings: TuneSettings = FAST, family: str = "bert", score: bool = True
) -> Tuner:
    config = made.config(family)
    model = make_model(config, dropout=settings.dropout)
    model.initialise(torch.Generator().manual_seed(0))
    head = Head(config, made.classes, "example", dropout=settings.dropout, seed=0)
    visibility = Visibility.FULL if config.kind == "encoder" else Visibility.CAUSAL

    def accuracy(net: Net) -> float:
        found = net.scores_of(made.valid)
        return float(
            np.mean([row.argmax() == item.target for row, item in zip(found, made.valid, strict=True)])
        )

    return Tuner(
        directory=directory, net=Net(model=model, tokenizer=made.tokenizer, visibility=visibility, head=head),
        task=Classification(), items=made.train,
        settings=settings, seed=1, score=accuracy if score else None,
    )  # fmt: skip


def weights(of: Tuner) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in of.net.parameters().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3", "gpt2"])
def test_classes_are_learned(made: Made, tmp_path: Path, family: str) -> None:
    found = tuner(made, tmp_path, dataclasses.replace(FAST, epochs=6), family).run()
    assert max(found.scores) > 0.8  # chance is 0.25
    assert found.losses[-1] < found.losses[0] / 2


@pytest.mark.shared_data
@pytest.mark.parametrize("stop", [1, 13, 20])
def test_what_was_killed_ends_in_the_same_bytes(
    made: Made, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tuner(made, tmp_path / "whole")
    wanted = dataclasses.replace(whole.run(), elapsed_seconds=0.0)
    halved = tuner(made, tmp_path / "killed", dataclasses.replace(FAST, checkpoint_seconds=1e-9))
    step: Callable[[], None] = halved._one_step

    def killed() -> None:
        if halved.step == stop:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(halved, "_one_step", killed)
    with pytest.raises(KeyboardInterrupt):
        halved.run()
    resumed = tuner(made, tmp_path / "killed")
    assert dataclasses.replace(resumed.run(), elapsed_seconds=0.0) == wanted
    assert same(weights(resumed), weights(whole))


@pytest.mark.shared_data
def test_a_step_may_be_divided(made: Made, tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, epochs=1, dropout=0.0)
    divided = dataclasses.replace(settings, micro_batch_tokens=40)
    one, other = tuner(made, tmp_path / "a", settings), tuner(made, tmp_path / "b", divided)
    assert one.run().losses == pytest.approx(other.run().losses, rel=1e-4)


@pytest.mark.shared_data
def test_the_best_weights_are_kept_and_patience_ends(made: Made, tmp_path: Path) -> None:
    patient = tuner(made, tmp_path, dataclasses.replace(FAST, epochs=8, patience=2), score=False)
    answers = itertools.chain([0.1, 0.9, 0.5, 0.4], itertools.repeat(0.0))
    kept: list[dict[str, Tensor]] = []

    def score(net: Net) -> float:
        kept.append(weights(patient))
        return next(answers)

    patient.score = score
    found: Tuned = patient.run()
    assert (found.best_epoch, list(found.scores)) == (2, [0.1, 0.9, 0.5, 0.4])
    assert same(weights(patient), kept[1])


@pytest.mark.shared_data
def test_lower_layers_may_learn_more_slowly_and_frozen_ones_do_not(made: Made, tmp_path: Path) -> None:
    slow = tuner(made, tmp_path, dataclasses.replace(FAST, epochs=1, layer_decay=0.1), score=False)
    rates = {name: rule.learning_rate for rule in slow.optimizer.rules for name in rule.masters}
    assert rates["head.out.weight"] == pytest.approx(3e-3)
    assert rates["model.blocks.1.attention.qkv.weight"] == pytest.approx(3e-4)
    assert rates["model.blocks.0.attention.qkv.weight"] == pytest.approx(3e-5)
    assert rates["model.embedding.weight"] == pytest.approx(3e-6)
    before = weights(slow)
    slow.run()
    after = weights(slow)
    moved = {
        name: float((after[name] - before[name]).abs().max())
        for name in ("model.embedding.weight", "head.out.weight")
    }
    assert 0 < moved["model.embedding.weight"] < moved["head.out.weight"] / 50
