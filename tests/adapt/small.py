"""Small models that learn a few examples of a task by heart: whether all of its parts fit together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.task import Item, Result, Task
from gristmill.adapt.tuner import Tuned, Tuner, TuneSettings
from gristmill.batch import Visibility
from gristmill.model.build import make_model
from gristmill.model.config import ModelConfig, ModelSettings, resolve
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

FAMILIES = ("bert", "modernbert", "qwen3", "t5")


class Learned(NamedTuple):
    """A net that has learned examples, and what it says of them."""

    net: Net
    items: list[Item]
    tuned: Tuned
    answers: list[Any]
    result: Result


def tokenizer_of(texts: Sequence[str], directory: Path, vocab_size: int = 1000) -> Tokenizer:
    """Returns a tokenizer that was trained on texts."""
    train(TokenizerConfig(vocab_size=vocab_size), list(texts), directory)
    return Tokenizer.from_directory(directory)


def config_of(family: str, tokenizer: Tokenizer, positions: int) -> ModelConfig:
    """Returns the config of a small model."""
    return resolve(
        ModelSettings(family=family, depth=2, width=64),
        vocab_size=tokenizer.vocab_size,
        row_tokens=positions,
    )


def net_of(task: Task[Any], outputs: Sequence[str], family: str, tokenizer: Tokenizer, positions: int) -> Net:
    """Returns a small model that has learned nothing, with the head of a task."""
    config = config_of(family, tokenizer, positions)
    model = make_model(config)
    model.initialise(torch.Generator().manual_seed(0))
    return Net(
        model=model,
        tokenizer=tokenizer,
        visibility=Visibility.CAUSAL if config.kind == "decoder" else Visibility.FULL,
        head=task.head(config, outputs, dropout=0.0, seed=0),
    )


def learned(
    task: Task[Any],
    examples: Sequence[Any],
    family: str,
    tokenizer: Tokenizer,
    directory: Path,
    *,
    epochs: int,
    positions: int = 128,
    learning_rate: float = 2e-3,
) -> Learned:
    """Returns a small model after so many epochs on examples."""
    task, outputs = task.settled(examples, 0), task.outputs(examples)
    net = net_of(task, outputs, family, tokenizer, positions)
    task.check(net.model.config, tokenizer)
    items = task.items(
        examples, tokenizer, Encoder(tokenizer.vocabulary(), net.model.config, positions), outputs
    )
    settings = TuneSettings(
        epochs=epochs, batch_examples=4, learning_rate=learning_rate, dropout=0.0, precision="float32"
    )
    tuned = Tuner(directory=directory, net=net, task=task, items=items, settings=settings, seed=1).run()
    answers = task.answers(net, items, examples, outputs)
    return Learned(net, items, tuned, answers, task.result(examples, answers))
