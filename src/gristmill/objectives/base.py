"""What an objective is: a way to make batches of rows, and a loss over what a model makes of them."""

import abc
import itertools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gristmill.batch import Batch, Loss, Visibility
from gristmill.errors import InputError
from gristmill.model import ops
from gristmill.model.base import Memory, Model
from gristmill.model.config import Kind, ModelConfig
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import cross_spans, ranked_mask, segment_positions, segment_spans
from gristmill.rows import Rows
from gristmill.vocabulary import Vocabulary

__all__ = [
    "Objective",
    "Rate",
    "Scores",
    "TokenObjective",
    "at",
    "document_pieces",
    "hidden_states",
    "token_loss",
    "token_scores",
]

Rate = float | tuple[float, ...]
"""A number, or numbers between which it moves in even, straight lines from the start of training to its end."""


def at(rate: Rate, progress: float) -> float:
    """Returns a rate at a share of the way through training: (0.3, 0.15) is 0.3 at 0, 0.225 at 0.5, 0.15 at 1."""
    if not isinstance(rate, tuple):
        return float(rate)
    return float(np.interp(progress, np.linspace(0.0, 1.0, len(rate)), rate)) if len(rate) > 1 else rate[0]


class Scores:
    """What each position of a batch costs, for validation, and which positions count."""

    def __init__(self, nats: Float[Tensor, "B T"], counted: Bool[Tensor, "B T"]) -> None:
        self.nats, self.counted = nats, counted


class Objective(abc.ABC):
    """Abstract. A frozen dataclass whose fields are its settings; `prepare` is pure, `loss` differentiable."""

    kinds: ClassVar[frozenset[Kind]]
    """The kinds of model that it can train; checked when the recipe is read."""
    family: ClassVar[str]
    """The family that a recipe trains with it where it names none."""
    lookahead: ClassVar[int] = 0
    """1 where the last token of a document is only ever a target, so that packed rows need no place for it."""
    whole: ClassVar[bool] = False
    """Whether each token of the text is predicted exactly once, so that nats add up to the likelihood of a text."""
    special: ClassVar[tuple[str, ...]] = ()
    """The special tokens that it needs."""
    sentinels: int = 0
    """How many sentinel tokens it needs; the tokenizer is trained with that many."""

    @abc.abstractmethod
    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the batch for some rows: a pure function of its arguments, run beside the training step.

        Args:
            rows: packed documents, and the vocabulary that they are written in.
            rng: all that is random derives from it.
            progress: the share of the training that is done, for rates that follow a schedule.
        """

    @abc.abstractmethod
    def loss(self, model: Model, batch: Batch, dropout_seed: int = 0) -> Loss:
        """Returns the sum of the losses of a batch."""

    @abc.abstractmethod
    def scores(self, model: Model, batch: Batch) -> Scores:
        """Returns what each position costs, without gradient."""

    def refine(self, config: ModelConfig) -> ModelConfig:
        """Returns the config with what this objective adds to a model, heads for instance.

        Raises:
            InputError: the family has no place for it.
        """
        return config

    def check(self, config: ModelConfig) -> None:
        """Refuses a model that it can't train, before work starts.

        Raises:
            InputError: the model is of another kind, or its family lacks what is needed.
        """
        name = type(self).__module__.rsplit(".", 1)[-1]
        if config.kind not in self.kinds:
            needed = " or ".join(sorted(self.kinds))
            article = "an" if needed[0] in "aeiou" else "a"
            raise InputError(
                f'objective "{name}" needs {article} {needed}, but model.kind is "{config.kind}"',
                f'set model.family = "{self.family}" (or leave it out), or use objective {_OF_KIND[config.kind]}',
            )
        if config.core != "transformer" and name != "causal":
            raise InputError(
                f'objective "{name}" needs attention, but the family "{config.family}" has none',
                'use objective "causal"',
            )

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Refuses a vocabulary without the special tokens that it needs.

        Raises:
            InputError: one is missing.
        """
        name = type(self).__module__.rsplit(".", 1)[-1]
        for token in self.special:
            if token not in vocabulary.special:
                raise InputError(
                    f'objective "{name}" needs a tokenizer with a {token} token, and this one has none',
                    f'add {token} = "<|{token}|>" to [tokenizer.special_tokens] and train it again',
                )
        if len(vocabulary.sentinels) < self.sentinels:
            raise InputError(
                f'objective "{name}" needs {self.sentinels} sentinel tokens, and the tokenizer has '
                f"{len(vocabulary.sentinels)}",
                f"set tokenizer.sentinels = {self.sentinels} and train it again",
            )


_OF_KIND = {
    "decoder": '"causal", "prefix" or "hybrid"',
    "encoder": '"masked"',
    "encoder-decoder": '"spans" or "denoise"',
}


class TokenObjective(Objective):
    """Abstract. Objectives whose loss is the weighted cross-entropy of `targets`."""

    def loss(self, model: Model, batch: Batch, dropout_seed: int = 0) -> Loss:
        """Returns the weighted sum of nats; scores are not computed where many positions have weight 0."""
        return token_loss(model, batch, hidden_states(model, batch, dropout_seed))

    def scores(self, model: Model, batch: Batch) -> Scores:
        """Returns the nats of each target that counts."""
        return token_scores(model, batch, hidden_states(model, batch))


def token_loss(model: Model, batch: Batch, hidden: Float[Tensor, "B T D"]) -> Loss:
    """Returns the weighted cross-entropy of a batch's targets under its hidden states."""
    chosen, targets, weights = _chosen(batch)
    flat = hidden.flatten(0, 1)
    total, _ = ops.cross_entropy(
        model.to_output(flat if chosen is None else flat[chosen]),
        model.output_weight,
        targets,
        weights,
        model.output_bias,
    )
    return Loss(total_nats=total, weight=weights.sum())


def token_scores(model: Model, batch: Batch, hidden: Float[Tensor, "B T D"]) -> Scores:
    """Returns the nats of each target with a weight."""
    chosen, targets, weights = _chosen(batch)
    flat = hidden.flatten(0, 1)
    _, each = ops.cross_entropy(
        model.to_output(flat if chosen is None else flat[chosen]),
        model.output_weight,
        targets,
        weights,
        model.output_bias,
    )
    if chosen is not None:
        each = torch.zeros(len(flat), device=flat.device).index_copy_(0, chosen, each.float())
    return Scores(each.float().view(batch.targets.shape), batch.weights != 0)


def _chosen(batch: Batch) -> tuple[Tensor | None, Tensor, Tensor]:
    """The positions whose scores are computed (None: all), their targets and weights."""
    targets, weights = batch.targets.flatten(), batch.weights.flatten()
    counted = int((weights != 0).sum())
    if counted >= 0.75 * len(weights):
        return None, targets, weights
    # a number of rows that is seldom new: oneDNN keeps a program for each shape that it has met
    size = min(len(weights), -(-counted // 256) * 256)
    chosen = torch.argsort(weights == 0, stable=True)[:size]
    return chosen, targets[chosen], weights[chosen]


def hidden_states(model: Model, batch: Batch, dropout_seed: int = 0) -> Float[Tensor, "B T D"]:
    """Returns the hidden states of a batch's tokens under its visibility, and under its source where it has one."""
    memory = _read(model, batch, dropout_seed) if batch.source is not None else None
    plain = batch.visibility is Visibility.CAUSAL and bool((batch.segments == 1).all())
    positions = batch.positions
    if positions is None and not plain:
        positions = segment_positions(batch.segments)
    mask = spans = None
    if batch.visibility is Visibility.RANKED:
        assert batch.ranks is not None
        assert batch.reach is not None
        mask = ranked_mask(batch.segments, batch.ranks, batch.reach)
    elif not plain:
        spans = segment_spans(batch.segments, batch.visibility, batch.prefix)
    hidden: Tensor = model(
        batch.tokens,
        mask=mask,
        spans=spans,
        positions=positions,
        token_types=batch.token_types,
        memory=memory,
        dropout_seed=dropout_seed,
    )
    return hidden


def _read(model: Model, batch: Batch, dropout_seed: int) -> Memory:
    assert batch.source is not None
    assert isinstance(model, Transformer)
    segments = batch.source.segments
    states = model.encode(
        batch.source.tokens,
        spans=segment_spans(segments, Visibility.FULL),
        positions=segment_positions(segments),
        # the encoder draws other numbers than the decoder, whose layers count on from the same seed
        dropout_seed=dropout_seed ^ 0x5DEECE66D,
    )
    return model.remember(states, cross_spans(batch.segments, segments))


def document_pieces(rows: Rows) -> Sequence[tuple[int, int, int, int]]:
    """Returns (row, first, last, segment) of each document's piece in the rows, padding left out."""
    found = []
    for row, segments in enumerate(rows.segments):
        edges = np.flatnonzero(np.diff(segments)) + 1
        bounds = [0, *edges.tolist(), len(segments)]
        found += [
            (row, first, last, int(segments[first]))
            for first, last in itertools.pairwise(bounds)
            if segments[first] != 0
        ]
    return found
