"""Byte-level WordPiece (as in BERT): the longest token that fits is taken, from left to right.

A token inside a word begins with `##`. So that no token of plain text does, each `#` is a word of its own; and a
word has at most 32 characters, since the longest match costs the square of the word's length.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from gristmill.tokenizer.kinds import Sample
from gristmill.tokenizer.splitting import ALPHABET, byte_level

__all__ = ["Wordpiece"]

_WORD_CHARACTERS = 32


@dataclass(frozen=True, kw_only=True)
class Wordpiece:
    """Byte-level WordPiece."""

    smallest_size: ClassVar[int] = 512

    def train(self, sample: Sample) -> Any:
        """Returns the trained tokenizer."""
        learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        learner.pre_tokenizer = byte_level(
            [
                pre_tokenizers.Split("#", "isolated"),
                *sample.cuts,
                pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{_WORD_CHARACTERS}}}"), "isolated"),
            ]
        )
        trainer = trainers.WordPieceTrainer(
            vocab_size=sample.derived_size,
            min_frequency=sample.minimum_frequency,
            initial_alphabet=ALPHABET,
            # Named here, the inner bytes are all there and numbered in order; the trainer would number those that
            # it meets in the order of a hash map, and break ties between pairs by these numbers (tokenizers#1794).
            special_tokens=["##" + character for character in ALPHABET],
            continuing_subword_prefix="##",
            show_progress=False,
        )
        learner.train_from_iterator(sample.texts, trainer)
        model = models.WordPiece(
            vocab=json.loads(learner.to_str())["model"]["vocab"],
            unk_token="[UNK]",  # the model asks for one; no byte is unknown, so it needs no id
            max_input_chars_per_word=4 * _WORD_CHARACTERS,
            continuing_subword_prefix="##",
        )
        result = Tokenizer(model)
        result.pre_tokenizer = learner.pre_tokenizer
        result.decoder = decoders.Sequence([decoders.Replace(Regex("^##"), ""), decoders.ByteLevel()])
        return result


EXPORT = Wordpiece
