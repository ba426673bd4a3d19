"""Tokenizers: learned from a corpus, exact on any text, and portable as `tokenizer.json`."""

from gristmill.tokenizer.tokenizer import Compression, Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

__all__ = ["Compression", "Tokenizer", "TokenizerConfig", "train"]
