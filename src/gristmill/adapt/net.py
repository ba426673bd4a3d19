"""A model and what stands on it: all that a task computes with."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gristmill.adapt.encoding import Item, Packed, evened, in_parts, pack
from gristmill.adapt.heads import Head
from gristmill.adapt.prompts import SoftPrompt
from gristmill.adapt.vectors import Vectors
from gristmill.batch import Visibility
from gristmill.model.base import Model, is_matrix
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import segment_positions, segment_spans
from gristmill.objectives.base import hidden_states
from gristmill.tokenizer import Tokenizer
from gristmill.train.hardware import has_bfloat16_units

__all__ = ["PREDICTION_TOKENS", "Net", "Precision", "narrow"]

Precision = Literal["auto", "float32", "bfloat16"]
"""In which layers compute; "auto" is bfloat16 where the processor has units for it."""

PREDICTION_TOKENS = 8192
"""Positions in a pass without gradient."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """A model, its tokenizer, how it reads a text, and what a task has put on it."""

    model: Model
    tokenizer: Tokenizer
    visibility: Visibility
    head: Head | Vectors | None = None
    """What gives scores; None for tasks whose answers the model writes itself."""
    prompt: SoftPrompt | None = None
    """Vectors that are read before each text."""
    reads_prompts: bool = False
    """Whether a task without a head computes with `hidden`, so that they reach it."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    def parameters(self) -> dict[str, nn.Parameter]:
        """Returns all weights by name: `model.…`, `head.…` and `prompt.…`."""
        parts = {"model": self.model, "head": self.head, "prompt": self.prompt}
        return {
            f"{part}.{name}": parameter
            for part, module in parts.items()
            if module is not None
            for name, parameter in module.named_parameters()
        }

    def train(self, training: bool = True) -> None:
        """Switches dropout on or off."""
        for module in (self.model, self.head, self.prompt):
            if module is not None:
                module.train(training)

    def pack(self, items: Sequence[Item]) -> Packed:
        """Returns items side by side in one row, on the model's device."""
        packed = pack(
            [item.encoded for item in items], self.visibility, token_types=self.model.config.token_types > 0
        )
        return packed._replace(batch=packed.batch.to(self.device))

    def hidden(self, packed: Packed, dropout_seed: int = 0) -> Float[Tensor, "T D"]:
        """Returns the hidden states of items that stand side by side; of an encoder-decoder those of its encoder."""
        batch, kept = packed.batch, None
        if self.prompt is not None:
            batch, kept = self.prompt.inserted(packed)
        size = batch.tokens.shape[1]
        batch = evened(batch)
        if isinstance(self.model, Transformer) and self.model.config.kind == "encoder-decoder":
            states = self.model.encode(
                batch.tokens,
                spans=segment_spans(batch.segments, Visibility.FULL),
                positions=segment_positions(batch.segments),
                dropout_seed=dropout_seed,
            )
        else:
            states = hidden_states(self.model, batch, dropout_seed)
        return states[0, :size] if kept is None else states[0][kept]

    def scores(self, items: Sequence[Item], dropout_seed: int = 0) -> Float[Tensor, "N outputs"]:
        """Returns the head's scores of each item, or of all of their tokens, one item after the other."""
        assert self.head is not None
        packed = self.pack(items)
        scores: Tensor = self.head(self.hidden(packed, dropout_seed), packed, dropout_seed ^ 1)
        return scores

    @torch.no_grad()
    def features_of(self, items: Sequence[Item]) -> Float[np.ndarray, "N features"]:
        """Returns what the last layer of the head reads of each item, or of all of their tokens, without dropout."""
        head = self.head
        assert isinstance(head, Head)
        self.train(False)
        found = []
        for part in in_parts(items, PREDICTION_TOKENS):
            packed = self.pack(part)
            found.append(head.features(self.hidden(packed), packed).cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    def scores_of(self, items: Sequence[Item]) -> list[Float[np.ndarray, "... outputs"]]:
        """Returns the scores of each item, or of each of its tokens, however many items there are."""
        assert self.head is not None
        found: list[Any] = []
        for part in in_parts(items, PREDICTION_TOKENS):
            scores = self.scores(part).cpu().numpy()
            if self.head.shape == "token":
                ends = np.cumsum([len(item.encoded.tokens) for item in part])
                found += np.split(scores, ends[:-1])
            else:
                found += list(scores)
        return found


def narrow(model: Model, precision: Precision) -> None:
    """Stores the matrices of a model's blocks as a precision wants them, in place."""
    device = next(model.parameters()).device
    if precision == "bfloat16" or (precision == "auto" and has_bfloat16_units(device)):
        for name, parameter in model.named_parameters():
            if is_matrix(name, parameter):
                parameter.data = parameter.data.to(torch.bfloat16)
