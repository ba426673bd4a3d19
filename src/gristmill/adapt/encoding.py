"""Texts and pairs of texts as a model reads them, and many of them side by side in one batch without padding.

                     one text                a pair
    encoder          [CLS] a [SEP]           [CLS] a [SEP] b [SEP]     (token types 0 and 1 where the model has them)
    decoder          bos a                   bos a eos b               (bos or eos, whichever the tokenizer has)
    encoder-decoder  (bos) a eos             (bos) a eos b eos         (read by the encoder)

What is too long is cut at its end, of a pair the longer text first (as `truncation=True` does in transformers).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from gristmill.batch import Batch, Visibility
from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.tokenizer.framing import document_frame, frame
from gristmill.vocabulary import Vocabulary

__all__ = ["Encoded", "Encoder", "Item", "Packed", "in_parts", "pack"]


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """One example as the model reads it."""

    tokens: tuple[int, ...]
    first: int
    """Where the first text begins; before it stand special tokens."""
    second: int
    """Where the second text begins; behind the last token where there is none."""
    cut: int
    """How many tokens did not fit."""


class Item(NamedTuple):
    """An example, or a part of a long one, as the model reads it, and what it should say."""

    encoded: Encoded
    target: Any
    example: int
    """The number of the example; items of one example follow each other and are never in different batches."""
    weight: float = 1.0
    """How much it counts in the loss."""


@final
class Encoder:
    """Puts special tokens around texts, and cuts them to a length."""

    def __init__(self, vocabulary: Vocabulary, config: ModelConfig, maximum_tokens: int) -> None:
        """Takes what the tokens stand for, the model that will read them, and the most tokens of an example.

        Raises:
            InputError: the model reads no sequences as long, or the tokenizer lacks a special token.
        """
        if config.core == "transformer" and maximum_tokens > config.maximum_positions:
            raise InputError(
                f"adapt.maximum_tokens = {maximum_tokens}, but the model reads {config.maximum_positions}",
                f"set adapt.maximum_tokens to {config.maximum_positions} or less",
            )
        self.maximum_tokens, self.kind = maximum_tokens, config.kind
        self._outer = frame(vocabulary.special, config.kind)
        self._between = document_frame(vocabulary.special, config.kind).after

    @property
    def room(self) -> int:
        """The most tokens of one text that fit."""
        return self.maximum_tokens - self._outer.size

    def text(self, tokens: Sequence[int]) -> Encoded:
        """Returns one text between its special tokens."""
        before, after = self._outer.before, self._outer.after
        kept = tokens[: self.room]
        whole = (*before, *kept, *after)
        return Encoded(whole, len(before), len(whole), len(tokens) - len(kept))

    def pair(self, one: Sequence[int], other: Sequence[int]) -> Encoded:
        """Returns two texts with special tokens around and between them."""
        before, after = self._outer.before, self._outer.after
        room = self.maximum_tokens - len(before) - len(self._between) - len(after)
        half = (room + (len(one) > len(other))) // 2
        of_one = max(half, room - len(other))
        kept = one[:of_one], other[: room - min(len(one), of_one)]
        head = (*before, *kept[0], *self._between)
        cut = len(one) + len(other) - len(kept[0]) - len(kept[1])
        return Encoded((*head, *kept[1], *after), len(before), len(head), cut)


class Packed(NamedTuple):
    """Examples side by side in one row."""

    batch: Batch
    starts: Int[Tensor, " N"]
    """Where each example begins."""
    ends: Int[Tensor, " N"]
    """Behind its last token."""
    firsts: Int[Tensor, " N"]
    """Where its text begins, behind the special tokens."""


def pack(examples: Sequence[Encoded], visibility: Visibility, *, token_types: bool) -> Packed:
    """Returns examples laid end to end in one row; positions of different ones never see each other."""
    lengths = np.array([len(each.tokens) for each in examples])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    tokens = torch.tensor([[token for each in examples for token in each.tokens]])
    segments = torch.from_numpy(np.repeat(np.arange(1, len(examples) + 1), lengths))[None]
    types = None
    if token_types:
        inside = np.arange(ends[-1]) - np.repeat(starts, lengths)
        types = torch.from_numpy(inside >= np.repeat([each.second for each in examples], lengths))[
            None
        ].long()
    batch = Batch(
        tokens=tokens,
        targets=tokens,
        weights=torch.zeros(tokens.shape),
        segments=segments,
        visibility=visibility,
        token_types=types,
    )
    firsts = starts + np.array([each.first for each in examples])
    return Packed(batch, torch.from_numpy(starts), torch.from_numpy(ends), torch.from_numpy(firsts))


def in_parts(items: Sequence[Item], most_tokens: int) -> list[list[Item]]:
    """Cuts items into runs of at most so many tokens, but one example at least: its items stay together."""
    parts: list[list[Item]] = []
    filled = most_tokens + 1
    for _, group in itertools.groupby(items, key=lambda item: item.example):
        together = list(group)
        length = sum(len(item.encoded.tokens) for item in together)
        if filled + length > most_tokens:
            parts.append([])
            filled = 0
        parts[-1] += together
        filled += length
    return parts
