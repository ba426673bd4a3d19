"""What an objective is: a way to make batches of rows, and a loss over what a model makes of them."""

import abc
from typing import ClassVar

import numpy as np
import torch

from gristmill.batch import Batch, Loss, Visibility
from gristmill.model import ops
from gristmill.model.transformer import Transformer, attention_mask, segment_positions, segment_starts
from gristmill.rows import Rows

__all__ = ["Objective", "TokenObjective", "hidden_states"]


class Objective(abc.ABC):
    """Abstract. A frozen dataclass whose fields are its settings; `prepare` is pure, `loss` differentiable."""

    kinds: ClassVar[frozenset[str]]
    """The kinds of model that it can train; checked when the recipe is read."""
    lookahead: ClassVar[int]
    """1 where the last token of a document is only ever a target, so that packed rows need no place for it."""

    @abc.abstractmethod
    def prepare(self, rows: Rows, rng: np.random.Generator) -> Batch:
        """Returns the batch for some rows: a pure function of both, run beside the training step."""

    @abc.abstractmethod
    def loss(self, model: Transformer, batch: Batch, dropout_seed: int = 0) -> Loss:
        """Returns the sum of the losses of a batch."""


class TokenObjective(Objective):
    """Abstract. Objectives whose loss is the weighted cross-entropy of `targets`."""

    def loss(self, model: Transformer, batch: Batch, dropout_seed: int = 0) -> Loss:
        """Returns the weighted sum of nats; scores are not computed where many positions have weight 0."""
        hidden = hidden_states(model, batch, dropout_seed).flatten(0, 1)
        targets, weights = batch.targets.flatten(), batch.weights.flatten()
        counted = int((weights != 0).sum())
        if counted < 0.75 * len(weights):
            # a number of rows that is seldom new: oneDNN keeps a program for each shape that it has met
            size = min(len(weights), -(-counted // 256) * 256)
            chosen = torch.argsort(weights == 0, stable=True)[:size]
            hidden, targets, weights = hidden[chosen], targets[chosen], weights[chosen]
        total, _ = ops.cross_entropy(hidden, model.output_weight, targets, weights)
        return Loss(total_nats=total, weight=weights.sum())


def hidden_states(model: Transformer, batch: Batch, dropout_seed: int = 0) -> torch.Tensor:
    """Returns the hidden states (B, T, D) of a batch's tokens under its visibility."""
    one_segment = bool((batch.segments == 1).all())
    positions = None if one_segment else segment_positions(batch.segments)
    starts = mask = None
    if batch.visibility is not Visibility.CAUSAL:
        mask = attention_mask(batch.segments, batch.visibility)
    elif not one_segment:
        starts = segment_starts(batch.segments)
    hidden: torch.Tensor = model(
        batch.tokens, mask=mask, starts=starts, positions=positions, dropout_seed=dropout_seed
    )
    return hidden
