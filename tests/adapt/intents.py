"""Four intents of CLINC150 and a small BERT that has learned nothing: what experiments are tried on."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

CLASSES = ("translate", "transfer", "timer", "definition")


def read_intents(shared_data: Path, classes: Sequence[str] = CLASSES) -> list[dict[str, Any]]:
    """Returns their rows, mixed."""
    with gzip.open(shared_data / "en_intent_clinc150" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    chosen = [row for row in found if row["label"] in classes]
    return sorted(chosen, key=lambda row: hashlib.sha256(row["text"].encode()).digest())


def make_base(texts: Sequence[str], folder: Path) -> Path:
    """Writes a small BERT in the format of transformers."""
    train(TokenizerConfig(vocab_size=600), texts, folder / "tokenizer")
    tokenizer = Tokenizer.from_directory(folder / "tokenizer")
    config = resolve(
        ModelSettings(family="bert", depth=2, width=64), vocab_size=tokenizer.vocab_size, row_tokens=64
    )
    model = make_model(config)
    model.initialise(torch.Generator().manual_seed(0))
    (folder / "model").mkdir()
    to_transformers(model, folder / "model", dict(tokenizer.special))
    tokenizer.save(folder / "model")
    return folder / "model"


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Writes rows as JSON lines and returns where."""
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(file)


def recipe_table(
    folder: Path, base: Path, rows: Sequence[dict[str, Any]], *, train_rows: int = 160, **more: Any
) -> dict[str, Any]:
    """Returns a recipe of some rows to learn from, the next 40 to choose by and the next 40 to be judged by."""
    ends = train_rows + 40, train_rows + 80
    data = {
        "train": write_rows(folder / "train.jsonl", rows[:train_rows]),
        "valid": write_rows(folder / "valid.jsonl", rows[train_rows : ends[0]]),
        "test": write_rows(folder / "test.jsonl", rows[ends[0] : ends[1]]),
    }
    return {
        "name": "intents", "base": str(base), "task": "classification", "data": data,
        "tune": {"epochs": 3, "batch_examples": 16, "learning_rate": 3e-3, "precision": "float32"},
        **more,
    }  # fmt: skip
