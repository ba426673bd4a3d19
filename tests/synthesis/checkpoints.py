"""Checkpoints with random weights, written as training writes them, and a tokenizer of a few sentences."""

from pathlib import Path

import torch

from gristmill import artifact
from gristmill.config import to_dict
from gristmill.generate.load import CHECKPOINT, FORMAT, TOKENIZER
from gristmill.model.build import make_model
from gristmill.model.checkpoint import save_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.objectives.base import Objective
from gristmill.objectives.causal import Causal
from gristmill.objectives.denoise import Denoise
from gristmill.objectives.masked import Masked
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train

SENTENCES = [
    "The old king walked to the river and sat down under a tree.",
    "A small dog ran over the green hill and barked at the moon.",
    "She wrote a long letter to her brother, who lived by the sea.",
    "In the morning the market was full of people, fish and flowers.",
    "Nobody knew why the clock had stopped; it was a quiet night.",
    "他在河边坐下，看着天上的月亮，很久没有说话。",
]
FAMILIES: dict[type[Objective], str] = {Causal: "qwen3", Masked: "modernbert", Denoise: "transformer"}


def checkpoint(directory: Path, objective: Objective, seed: int = 0) -> Path:
    """Writes a checkpoint of a model that was (supposedly) trained with an objective."""
    special = {name: f"<|{name}|>" for name in ("pad", "bos", "eos", "mask", "cls", "sep")}
    trained = train(
        TokenizerConfig(vocab_size=420, special_tokens=special),
        SENTENCES * 20,
        directory.parent / f"{directory.name}-tokenizer",
    )
    tokenizer = Tokenizer.from_directory(trained.path)
    family = FAMILIES[type(objective)]
    settings = ModelSettings(family=family, depth=2, width=32, heads=2)
    model = make_model(resolve(settings, vocab_size=tokenizer.vocab_size, row_tokens=64))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.dim() == 1))
    table = {"pretrain": {"objective": to_dict(objective)}}
    with artifact.draft(directory, kind=CHECKPOINT, format_version=FORMAT, config=table) as work:
        save_model(work.path, model.config, model.state_dict())
        (work.path / TOKENIZER).mkdir()
        tokenizer.save(work.path / TOKENIZER)
    return directory
