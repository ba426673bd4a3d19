"""The `[pretrain]` table of a recipe."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from gristmill import plugins
from gristmill.augment.tokens import Noise
from gristmill.config import Part
from gristmill.corpus.mix import Mix
from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.model.count import activation_bytes_per_token, training_bytes, training_flops_per_token
from gristmill.objectives.base import Objective
from gristmill.train.optimizer import OptimizerSettings
from gristmill.train.optimizers.muon import Muon
from gristmill.train.schedule import parse_budget

__all__ = [
    "OBJECTIVE_OF_KIND",
    "PretrainSettings",
    "default_objective",
    "flops_of_token",
    "memory_of",
    "resolve_batch",
]

ACTIVATION_BYTES = 600_000_000
"""What the activations of a micro-batch may take; beyond a few thousand tokens larger ones are hardly faster."""

Positive = Annotated[int, Gt(0)]
Share = Annotated[float, Interval(ge=0, le=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """How a model is trained, and for how long."""

    objective: Annotated[Objective | None, Part("objectives")] = None
    """What the model learns to predict; one of `gristmill list objectives`. By default what suits the model: causal
    for decoders, masked for encoders, spans for encoder-decoders."""
    budget: str = "4 epochs"
    """An amount of "steps", "tokens" or "epochs", or wall time such as "3 min"; the schedule is fitted to it."""
    mix: Mix | None = None
    """How much of which text, in what order; by default every document comes once in each epoch."""
    noise: Noise = dataclasses.field(default_factory=Noise)
    """Noise in what the model reads: mask = 0.1, replace = [0.05, 0.0]; what it has to say stays the true text."""
    row_tokens: Annotated[int, Ge(8)] = 256
    """Positions in a row: how far the model looks back in training."""
    batch_tokens: Positive | None = None
    """Tokens in an optimizer step; by default derived from the size of the model."""
    micro_batch_tokens: Positive | None = None
    """Tokens that are in memory at a time; gradients of several micro-batches are summed."""
    optimizer: Annotated[OptimizerSettings, Part("train.optimizers")] = dataclasses.field(
        default_factory=Muon
    )
    """How gradients become updates: "muon", or "adamw"."""
    warmup: Share = 0.02
    """Share of the steps in which the learning rate rises."""
    cooldown: Share = 0.7
    """Share of the steps, at the end, in which the learning rate falls."""
    final_learning_rate: Share = 0.02
    """The learning rate at the end, as a share of the highest."""
    gradient_clip: Annotated[float, Ge(0)] = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of what is added to the residual stream that is dropped in training."""
    average: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights that is validated and kept; 0 keeps the weights."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What matrices are multiplied in; "auto" measures a step in each. Masters are float32 always."""
    validations: Annotated[int, Ge(1)] = 10
    """How often the whole validation set is measured, spread evenly, the end included."""
    checkpoint_seconds: Annotated[float, Gt(0)] = 60.0
    """Time between checkpoints to resume from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; "auto" takes a GPU if there is one."""
    threads: Positive | None = None
    """Threads of a CPU; by default as many as there are cores. Another number may give other last bits."""

    def __post_init__(self) -> None:
        parse_budget(self.budget)
        if self.batch_tokens is not None and self.batch_tokens < self.row_tokens:
            raise InputError(
                f"batch_tokens = {self.batch_tokens} does not hold one row of row_tokens = {self.row_tokens}",
                f"set batch_tokens to {self.row_tokens} or more, or row_tokens to less",
            )
        if self.warmup + self.cooldown > 1:
            raise InputError(
                f"warmup = {self.warmup} and cooldown = {self.cooldown} are more than the whole run",
                f"set cooldown to {1 - self.warmup:g} or less",
            )


OBJECTIVE_OF_KIND = {"decoder": "causal", "encoder": "masked", "encoder-decoder": "spans"}


def default_objective(kind: str) -> Objective:
    """Returns the objective that a kind of model is trained with where a recipe names none."""
    objective: Objective = plugins.load("objectives", OBJECTIVE_OF_KIND[kind])()
    return objective


def memory_of(settings: PretrainSettings, config: ModelConfig) -> int:
    """Returns an estimate of the bytes that training takes, with as many rows at a time as it would have."""
    objective = settings.objective or default_objective(config.kind)
    _, micro = resolve_batch(settings, config)
    return training_bytes(
        config,
        micro_tokens=micro * settings.row_tokens,
        bfloat16=settings.precision != "float32",
        positions=objective.positions_per_token,
    )


def flops_of_token(settings: PretrainSettings, config: ModelConfig) -> int:
    """Returns the operations of matrix products for each token of a row, forward and backward."""
    objective = settings.objective or default_objective(config.kind)
    return training_flops_per_token(
        config, settings.row_tokens, scored=objective.scored_share, positions=objective.positions_per_token
    )


def resolve_batch(settings: PretrainSettings, config: ModelConfig) -> tuple[int, int]:
    """Returns rows in a step and rows in a micro-batch.

    Small models on little text want many small steps: 4,096 tokens up to a width of 256, growing with it.
    """
    tokens = settings.batch_tokens or 4096 * max(1, config.width // 256)
    rows = max(1, round(tokens / settings.row_tokens))
    positions = 1.0 if settings.objective is None else settings.objective.positions_per_token
    fits = ACTIVATION_BYTES // activation_bytes_per_token(config, bfloat16=True, positions=positions)
    micro_tokens = settings.micro_batch_tokens or min(8192, fits)
    micro = max(1, min(rows, micro_tokens // settings.row_tokens))
    while rows % micro:
        micro -= 1
    return rows, micro
