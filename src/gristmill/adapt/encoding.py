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

from gristmill.batch import Batch, Source, Visibility
from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.tokenizer.framing import document_frame, frame
from gristmill.vocabulary import Vocabulary

__all__ = ["Encoded", "Encoder", "Item", "Packed", "evened", "in_parts", "pack"]


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
    places: tuple[int, ...] = ()
    """What a head reads that reads some positions only."""


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
        self.between = document_frame(vocabulary.special, config.kind).after

    @property
    def room(self) -> int:
        """The most tokens of one text that fit."""
        return self.maximum_tokens - self._outer.size

    @property
    def pair_room(self) -> int:
        """The most tokens of two texts together that fit."""
        return self.room - len(self.between)

    def text(self, tokens: Sequence[int]) -> Encoded:
        """Returns one text between its special tokens."""
        before, after = self._outer.before, self._outer.after
        kept = tokens[: self.room]
        whole = (*before, *kept, *after)
        return Encoded(whole, len(before), len(whole), len(tokens) - len(kept))

    def pair(self, one: Sequence[int], other: Sequence[int]) -> Encoded:
        """Returns two texts with special tokens around and between them."""
        before, after = self._outer.before, self._outer.after
        room = self.pair_room
        half = (room + (len(one) > len(other))) // 2
        of_one = max(half, room - len(other))
        kept = one[:of_one], other[: room - min(len(one), of_one)]
        head = (*before, *kept[0], *self.between)
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
    places: Int[Tensor, "N K"]
    """What of it a head reads that reads some positions only."""


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
    places = starts[:, None] + np.array([each.places for each in examples], dtype=np.int64)
    return Packed(batch, *map(torch.from_numpy, (starts, ends, firsts, places)))


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


def evened(batch: Batch) -> Batch:
    """Returns a row, and its source, with padding behind it up to one of few lengths, a sixteenth longer at most or 63 tokens.

    The matrix products of a CPU are programs, one for each length that was met: with another length in each step they are written
    anew all the time (13 % of a step of 32 short texts) and all kept (100 MB more in 20 steps).
    """
    row = batch.tokens.shape[1]
    parts: dict[str, Tensor] = {
        name: getattr(batch, name) for name in ("tokens", "targets", "weights", "segments")
    }
    if batch.token_types is not None:
        parts["token_types"] = batch.token_types
    changed = dataclasses.replace(batch, **{n: _longer(t, _even(row)) for n, t in parts.items()})  # type: ignore[arg-type]
    if batch.source is None:
        return changed
    size = _even(batch.source.tokens.shape[1])
    source = Source(tokens=_longer(batch.source.tokens, size), segments=_longer(batch.source.segments, size))
    return dataclasses.replace(changed, source=source)


def _even(length: int) -> int:
    step = max(64, 1 << max(0, length.bit_length() - 5))
    return -(-length // step) * step


def _longer(row: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(row, (0, size - row.shape[1]))
