"""A tiny corpus of the shipped texts as shards in memory, and a tiny model: what the training tests share."""

from pathlib import Path

import numpy as np

from gristmill.corpus.shards import TokenStore
from gristmill.model.config import ModelConfig, ModelSettings, NgramSettings, resolve
from gristmill.train.settings import PretrainSettings
from gristmill.train.trainer import Trainer
from gristmill.vocabulary import Vocabulary

BOS, EOS, MASK, VOCABULARY = 256, 257, 258, 265
TEXTS = Path(__file__).resolve().parents[2] / "recipes" / "texts"


def byte_store(texts: list[str], folder: Path, name: str) -> TokenStore:
    """Documents as their UTF-8 bytes between two special tokens, in two groups by turns."""
    stored = [np.array([BOS, *text.encode(), EOS], dtype=np.uint16) for text in texts]
    (folder / f"{name}.documents.txt").write_text("".join(f"{name}-{i}\n" for i in range(len(texts))))
    np.save(folder / f"{name}.groups.npy", np.arange(len(texts)) % 2)
    return TokenStore(
        tokens=np.concatenate(stored),
        offsets=np.concatenate([[0], np.cumsum([len(s) for s in stored])]).astype(np.int64),
        text_bytes=np.array([len(text.encode()) for text in texts], dtype=np.int32),
        path=folder / name,
        group_names=("even/en", "odd/en"),
    )


def byte_vocabulary() -> Vocabulary:
    """256 bytes, four special tokens (bos is cls, and eos is sep, so that one store serves all kinds), sentinels."""
    return Vocabulary(
        pieces=(*(bytes([i]) for i in range(256)), *[b""] * (VOCABULARY - 256)),
        special={"bos": BOS, "eos": EOS, "cls": BOS, "sep": EOS, "mask": MASK, "pad": 259},
        sentinels=(260, 261, 262, 263, 264),
    )


def paragraphs(count: int, size: int = 300) -> list[str]:
    """Pieces of the shipped English text, of unequal length."""
    text = (TEXTS / "king-james.txt").read_text(encoding="utf-8")
    return [text[i * 700 : i * 700 + size + 37 * (i % 5)] for i in range(count)]


def tiny_model(*, ngrams: bool = True, family: str = "qwen3", row_tokens: int = 32) -> ModelConfig:
    settings = ModelSettings(
        family=family,
        depth=2,
        width=32,
        heads=2,
        ngrams=NgramSettings(orders=(2, 3), buckets=64) if ngrams else None,
    )
    return resolve(settings, vocab_size=VOCABULARY, row_tokens=row_tokens)


def tiny_trainer(
    folder: Path, *, seed: int = 0, hooks=(), say=lambda message: None, model=None, **settings
) -> Trainer:
    """A trainer of byte-level text that takes a few seconds at most."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {
        "budget": "2 epochs",
        "row_tokens": 32,
        "batch_tokens": 128,
        "micro_batch_tokens": 64,
        "dropout": 0.1,
        "average": 0.9,
        "precision": "bfloat16",
        "validations": 3,
        "threads": 1,
        "device": "cpu",
    }
    return Trainer(
        directory=folder,
        model_config=model or tiny_model(),
        settings=PretrainSettings(**{**defaults, **settings}),
        train=byte_store(paragraphs(8), folder.parent, "train"),
        valid=byte_store(paragraphs(11)[8:], folder.parent, "valid"),
        vocabulary=byte_vocabulary(),
        seed=seed,
        hooks=tuple(hooks),
        say=say,
    )
