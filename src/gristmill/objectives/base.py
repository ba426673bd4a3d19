"""What an objective is: a way to make batches of rows, and a loss over what a model makes of them."""

import abc
import itertools
from collections.abc import Mapping
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gristmill import plugins
from gristmill.batch import Batch, Loss, Visibility
from gristmill.errors import InputError
from gristmill.model import ops
from gristmill.model.base import Memory, Model
from gristmill.model.config import Kind, ModelConfig
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import cross_spans, ranked_spans, segment_positions, segment_spans
from gristmill.rows import Rows
from gristmill.vocabulary import Vocabulary

__all__ = [
    "HowHidden",
    "Objective",
    "Rate",
    "Scores",
    "TokenObjective",
    "at",
    "average",
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


def average(rate: Rate) -> float:
    """Returns the mean of a rate over the whole training: (0.3, 0.15) is 0.225."""
    if not isinstance(rate, tuple) or len(rate) == 1:
        return at(rate, 0.0)
    return float(np.mean([(one + other) / 2 for one, other in itertools.pairwise(rate)]))


HowHidden = Literal["in place", "one before", "in order", "by sentinel", "rewritten", "by generator"]
"""The ways to ask for hidden tokens, one class each in `evaluate/scoring.py`."""


class Scores:
    """What each position of a batch costs, for validation, and how much it counts."""

    def __init__(
        self,
        nats: Float[Tensor, "B T"],
        weights: Float[Tensor, "B T"],
        parts: Mapping[str, Bool[Tensor, "B T"]] | None = None,
    ) -> None:
        self.nats, self.weights = nats, weights
        self.parts = parts or {}
        """Which positions belong to each part that is reported on its own."""

    @property
    def counted(self) -> Bool[Tensor, "B T"]:
        """Which positions count at all."""
        return self.weights != 0


_Objective = TypeVar("_Objective", bound="Objective")


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
    recurrent: ClassVar[bool] = False
    """Whether a model without attention can learn it: each token from those before it alone."""
    hidden: ClassVar[HowHidden | None] = None
    """How a model that learned it is asked for hidden tokens; None leaves it to the kind of model."""
    reads_whole: ClassVar[bool] = False
    """Whether a decoder that learned it may see all of a text that is only read, as it did in training."""
    comparable_over_time: ClassVar[bool] = True
    """Whether a lower validation loss is a better model. Where what is asked grows harder in the course of the
    training, the last weights are kept and not those with the lowest loss."""
    special: ClassVar[tuple[str, ...]] = ()
    """The special tokens that it needs."""
    sentinels: int = 0
    """How many sentinel tokens it needs; the tokenizer is trained with that many."""

    @property
    def positions_per_token(self) -> float:
        """How many positions the model computes for each token of a row, about; for counts of operations and bytes."""
        return 1.0

    @property
    def scored_share(self) -> float:
        """For how many of a row's tokens scores over the vocabulary are computed, about; for counts of operations."""
        return 1.0

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

    def settled(self: _Objective) -> _Objective:
        """Returns the objective with what its settings name read, so that they say all that it does."""
        return self

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
                f'set model.family = "{self.family}" (or leave it out), or use objective {_suiting(config)}',
            )
        if config.core != "transformer" and not self.recurrent:
            raise InputError(
                f'objective "{name}" needs attention, but the family "{config.family}" has none',
                f"use objective {_suiting(config)}",
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


def _suiting(config: ModelConfig) -> str:
    """The objectives that can train a model, as words of a sentence."""
    every = {name: plugins.load("objectives", name)() for name in plugins.names("objectives")}
    *names, last = (f'"{name}"' for name, objective in every.items() if _suits(objective, config))
    return f"{', '.join(names)} or {last}" if names else last


def _suits(objective: Objective, config: ModelConfig) -> bool:
    if config.kind not in objective.kinds or not (objective.recurrent or config.core == "transformer"):
        return False
    try:
        objective.check(config)
        objective.refine(config)
    except InputError:
        return False
    return True


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
    total, _, _, weights = _token_nats(model, batch, hidden)
    return Loss(total_nats=total, weight=weights.sum())


def token_scores(model: Model, batch: Batch, hidden: Float[Tensor, "B T D"]) -> Scores:
    """Returns the nats of each target with a weight."""
    _, each, chosen, _ = _token_nats(model, batch, hidden)
    if chosen is not None:
        flat = torch.zeros(batch.targets.numel(), device=each.device)
        each = flat.index_copy_(0, chosen, each.float())
    return Scores(each.float().view(batch.targets.shape), batch.weights)


def _token_nats(
    model: Model, batch: Batch, hidden: Float[Tensor, "B T D"]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """The weighted sum of nats, those of each chosen position, which positions those are, and their weights."""
    chosen, targets, weights = _chosen(batch)
    flat = hidden.flatten(0, 1)
    read = model.to_output(flat if chosen is None else flat[chosen])
    total, each = ops.cross_entropy(read, model.output_weight, targets, weights, model.output_bias)
    return total, each, chosen, weights


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
    spans = None
    if batch.visibility is Visibility.RANKED:
        assert batch.ranks is not None
        assert batch.reach is not None
        spans = ranked_spans(batch.segments, batch.ranks, batch.reach)
    elif not plain:
        spans = segment_spans(batch.segments, batch.visibility, batch.prefix)
    hidden: Tensor = model(
        batch.tokens,
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
