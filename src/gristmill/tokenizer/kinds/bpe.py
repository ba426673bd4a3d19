"""Byte-level byte pair encoding (Sennrich et al. 2016; bytes as in GPT-2): the pair seen most is joined."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenizers import Tokenizer, decoders, models, trainers

from gristmill.tokenizer.kinds import Sample
from gristmill.tokenizer.splitting import ALPHABET, byte_level

__all__ = ["Bpe"]


@dataclass(frozen=True, kw_only=True)
class Bpe:
    """Byte-level byte pair encoding."""

    smallest_size: ClassVar[int] = 256

    def train(self, sample: Sample) -> Any:
        """Returns the trained tokenizer."""
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = byte_level(sample.cuts)
        trainer = trainers.BpeTrainer(
            vocab_size=sample.derived_size,
            min_frequency=sample.minimum_frequency,
            initial_alphabet=ALPHABET,
            show_progress=False,
        )
        learner.train_from_iterator(sample.texts, trainer)
        learned = json.loads(learner.to_str())["model"]
        result = Tokenizer(
            models.BPE(vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]])
        )
        result.pre_tokenizer = learner.pre_tokenizer
        result.decoder = decoders.ByteLevel()
        return result


EXPORT = Bpe
