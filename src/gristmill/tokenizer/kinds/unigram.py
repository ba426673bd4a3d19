"""Byte-level Unigram (Kudo 2018): the split that is most likely when tokens are drawn independently.

Training starts with more pieces than wanted and drops those that cost the least likelihood. The trainer of
`tokenizers` adds floating-point numbers in the order of a hash map, so its scores differ from run to run; on 1.7 MB
of Chinese that was not split it took over two minutes, and on 1 MB of English prose its 4,096 tokens held 3.16
bytes each. So the steps are taken here (half a minute, 3.73 bytes; byte pair encoding: 3.74), on integer counts of
best splits (hard instead of soft EM), each split by the `tokenizers` model itself: the same text, the same bytes.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer, decoders, models, trainers

from gristmill.errors import InputError
from gristmill.tokenizer.kinds import Sample
from gristmill.tokenizer.splitting import ALPHABET, byte_level

__all__ = ["Unigram"]

_BATCH_TEXTS = 256


@dataclass(frozen=True, kw_only=True)
class Unigram:
    """Byte-level Unigram."""

    seed_factor: int = 3
    """How many times the wanted pieces training starts with."""
    shrinking_factor: float = 0.75
    """The share of pieces that each round of pruning keeps."""

    smallest_size: ClassVar[int] = 256

    def __post_init__(self) -> None:
        """Checks the settings."""
        if self.seed_factor < 2:
            raise InputError(f"seed_factor is {self.seed_factor}, expected at least 2")
        if not 0 < self.shrinking_factor < 1:
            raise InputError(
                f"shrinking_factor is {self.shrinking_factor}, expected more than 0 and less than 1"
            )

    def train(self, sample: Sample) -> Any:
        """Returns the trained tokenizer."""
        size = sample.derived_size
        words = _count_words(sample)
        pieces = _score(_seed_pieces(sample, words, size * self.seed_factor))
        while len(pieces) > size:
            for _ in range(2):
                counts = _count_pieces(pieces, words)
                pieces = _score(counts)
            pieces = _prune(pieces, counts, max(size, int(len(pieces) * self.shrinking_factor)))
        pieces = _score(_count_pieces(pieces, words))
        learned = sorted(
            (piece for piece in pieces if len(piece) > 1), key=lambda piece: (-pieces[piece], piece)
        )
        result = _model({piece: pieces[piece] for piece in [*ALPHABET, *learned]})
        result.pre_tokenizer = byte_level(sample.cuts)
        result.decoder = decoders.ByteLevel()
        return result


def _model(pieces: dict[str, float]) -> Any:
    return Tokenizer(models.Unigram(list(pieces.items()), None))


def _count_words(sample: Sample) -> dict[str, int]:
    """How often each pre-token occurs, by string, counted by a word-level model on every core."""
    counter = Tokenizer(models.WordLevel(unk_token="?"))
    counter.pre_tokenizer = byte_level(sample.cuts)
    trainer = trainers.WordLevelTrainer(vocab_size=1 << 31, min_frequency=1, show_progress=False)
    counter.train_from_iterator(sample.texts, trainer)
    counts = np.zeros(counter.get_vocab_size(), dtype=np.int64)
    for first in range(0, len(sample.texts), _BATCH_TEXTS):
        for encoding in counter.encode_batch_fast(list(sample.texts[first : first + _BATCH_TEXTS])):
            counts += np.bincount(encoding.ids, minlength=len(counts))
    return {word: int(counts[i]) for word, i in sorted(counter.get_vocab().items())}


def _seed_pieces(sample: Sample, words: dict[str, int], size: int) -> dict[str, int]:
    """The first pieces: what byte pair encoding finds with a larger vocabulary, and how often each occurs."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = byte_level(sample.cuts)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=sample.minimum_frequency,
        initial_alphabet=ALPHABET,
        max_token_length=16,
        show_progress=False,
    )
    learner.train_from_iterator(sample.texts, trainer)
    found = sorted(learner.get_vocab())
    counts = dict.fromkeys(found, 0)
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(start + 16, len(word)) + 1):
                piece = word[start:end]
                if piece in counts:
                    counts[piece] += count
    return counts


def _score(counts: dict[str, int]) -> dict[str, float]:
    """Log-probabilities; a piece that was never the best keeps a small one until it is pruned."""
    total = math.log(sum(counts.values()) + 1)
    return {piece: math.log(max(count, 0.1)) - total for piece, count in counts.items()}


def _count_pieces(pieces: dict[str, float], words: dict[str, int]) -> dict[str, int]:
    """How often each piece is used when every word is split in the best way."""
    names = list(pieces)
    counts = np.zeros(len(names), dtype=np.int64)
    encodings = _model(pieces).encode_batch_fast(list(words))
    ids = [encoding.ids for encoding in encodings]
    np.add.at(
        counts,
        np.fromiter((i for row in ids for i in row), dtype=np.int64),
        np.repeat(np.fromiter(words.values(), dtype=np.int64), [len(row) for row in ids]),
    )
    return dict(zip(names, counts.tolist(), strict=True))


def _prune(pieces: dict[str, float], counts: dict[str, int], keep: int) -> dict[str, float]:
    """The pieces without those whose loss costs the least likelihood; bytes stay."""
    loss = {
        piece: counts[piece] * (score - _best_without(piece, pieces))
        for piece, score in pieces.items()
        if len(piece) > 1
    }
    by_loss = sorted(loss, key=lambda piece: (-loss[piece], piece))
    kept = set(by_loss[: keep - len(ALPHABET)])
    return {piece: score for piece, score in pieces.items() if len(piece) == 1 or piece in kept}


def _best_without(piece: str, pieces: dict[str, float]) -> float:
    """The log-probability of the best split of a piece into smaller ones."""
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            score = pieces.get(piece[start:end])
            if score is not None and end - start < len(piece):
                best[end] = max(best[end], best[start] + score)
    return best[-1]


EXPORT = Unigram
