"""Small models that have learned nothing, for tasks whose answers are written."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.tuner import Tuner, TuneSettings
from gristmill.batch import Visibility
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

FAMILIES = ["qwen3", "gpt2", "t5", "transformer"]
FAST = TuneSettings(epochs=80, batch_examples=8, learning_rate=4e-3, precision="float32", dropout=0.0)


def made_tokenizer(texts: list[str], folder: Path, vocab_size: int = 800) -> Tokenizer:
    train(TokenizerConfig(vocab_size=vocab_size), texts, folder)
    return Tokenizer.from_directory(folder)


def made_net(tokenizer: Tokenizer, family: str, *, row_tokens: int = 128, dropout: float = 0.0) -> Net:
    settings = ModelSettings(family=family, depth=2, width=64)
    config = resolve(settings, vocab_size=tokenizer.vocab_size, row_tokens=row_tokens)
    model = make_model(config, dropout=dropout)
    model.initialise(torch.Generator().manual_seed(0))
    model.train(False)
    return Net(model=model, tokenizer=tokenizer, visibility=Visibility.CAUSAL)


def encoder_of(net: Net, maximum_tokens: int = 128) -> Encoder:
    return Encoder(net.tokenizer.vocabulary(), net.model.config, maximum_tokens)


def items_of(task: Any, net: Net, examples: list[Any], maximum_tokens: int = 128) -> list[Any]:
    return list(task.items(examples, net.tokenizer, encoder_of(net, maximum_tokens), ()))


def learned(task: Any, net: Net, items: list[Any], directory: Path, **changes: Any) -> Tuner:
    settings = dataclasses.replace(FAST, **changes)
    return Tuner(directory=directory, net=net, task=task, items=items, settings=settings, seed=1)


def weights(net: Net) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.parameters().items()}


def saved(net: Net, folder: Path) -> Path:
    """Writes a net as `save_pretrained` would."""
    folder.mkdir(parents=True, exist_ok=True)
    to_transformers(net.model, folder, dict(net.tokenizer.special))
    net.tokenizer.save(folder)
    return folder
