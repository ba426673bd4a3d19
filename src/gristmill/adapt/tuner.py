"""Fine-tuning: a model and a head learn the items of a task, step by step, and the best of them is kept.

Examples stand side by side in one row, so no position is padding. As in pretraining, a step is a function of the weights,
the optimizer's state, the seed and the step's number: what was killed goes on to the same bytes.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float
from torch import Tensor, nn

from gristmill import rng
from gristmill.adapt.encoding import pack
from gristmill.adapt.heads import Head
from gristmill.adapt.task import Item, Task
from gristmill.batch import Visibility
from gristmill.errors import RunError
from gristmill.model.base import Model, is_matrix
from gristmill.model.checkpoint import read_tensors, write_tensors
from gristmill.objectives.base import hidden_states
from gristmill.train import state
from gristmill.train.hardware import has_bfloat16_units
from gristmill.train.optimizer import AdamRule, Optimizer, Rule
from gristmill.train.schedule import Plan
from gristmill.train.trainer import clip

__all__ = ["TuneSettings", "Tuned", "Tuner", "scores_of"]

Positive = Annotated[int, Gt(0)]
Share = Annotated[float, Interval(ge=0, lt=1)]
PREDICTION_TOKENS = 8192
"""Positions in a pass without gradient."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How a model is fine-tuned."""

    epochs: Positive = 4
    """Passes over the training examples."""
    batch_examples: Positive = 32
    """Examples in a step."""
    micro_batch_tokens: Positive = 16384
    """Positions that are in memory at a time; gradients of several parts of a step are summed."""
    learning_rate: Annotated[float, Gt(0)] = 5e-5
    """The highest, of what the base model brought; it rises in `warmup` and then falls to 0 in a straight line."""
    head_learning_rate: Annotated[float, Gt(0)] | None = None
    """Of the new layers; by default the same."""
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """The learning rate of each layer is that of the layer above times this (Howard and Ruder 2018, ULMFiT)."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """Of AdamW, on matrices and embeddings."""
    warmup: Share = 0.1
    """Share of the steps in which the learning rate rises."""
    dropout: Share = 0.1
    """Share of what is added to the residual stream, and of what the head reads, that is dropped in training."""
    gradient_clip: Annotated[float, Ge(0)] = 1.0
    """Longer gradients are shortened to this norm; 0 is no limit."""
    patience: Positive | None = None
    """Epochs without a better score on the validation examples after which training ends; by default it does not."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """In which layers compute; masters of all weights are float32."""
    checkpoint_seconds: Annotated[float, Gt(0)] = 120.0
    """How much of a run may be lost."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a finished run has found out; the best weights are in the model and head that it was given."""

    steps: int
    best_epoch: int
    scores: Sequence[float]
    """On the validation examples after each epoch; none where there are no such examples."""
    losses: Sequence[float]
    """The mean training loss of each epoch."""
    elapsed_seconds: float


@final
class Tuner:
    """Fine-tunes one model and its head in a directory, resuming what is there."""

    def __init__(  # noqa: PLR0913 - all named
        self,
        *,
        directory: Path,
        model: Model,
        head: Head,
        task: Task[Any],
        items: Sequence[Item],
        visibility: Visibility,
        settings: TuneSettings,
        seed: int,
        score: Callable[[], float] | None = None,
        note: Callable[[Mapping[str, Any]], None] = lambda facts: None,
    ) -> None:
        """Takes what is to be tuned, in place.

        Args:
            directory: for checkpoints.
            model: the base model, with the dropout that it is to have.
            head: what scores are made with.
            task: what is learned.
            items: the training examples.
            visibility: how the model reads a text.
            settings: how long, how fast.
            seed: of the order and of dropout.
            score: how good the model and head are now, on examples that it does not learn from; more is better.
            note: told of each epoch.
        """
        self.directory, self.model, self.head, self.task = directory, model, head, task
        self.items, self.visibility, self.settings, self.seed = items, visibility, settings, seed
        self.score, self.note = score, note
        self.device = next(model.parameters()).device
        self.both = nn.ModuleDict({"model": model, "head": head})
        trained = {name: p for name, p in self.both.named_parameters() if p.requires_grad}
        self.optimizer = Optimizer(trained, self._rules)  # its masters are the weights as they came
        if settings.precision == "bfloat16" or (
            settings.precision == "auto" and has_bfloat16_units(self.device)
        ):
            for name, parameter in model.named_parameters():
                if is_matrix(name, parameter):
                    parameter.data = parameter.data.to(torch.bfloat16)
        self.per_epoch = -(-len(items) // settings.batch_examples)
        steps = self.per_epoch * settings.epochs
        self.plan = Plan.trapezoid(steps, warmup=settings.warmup, cooldown=1 - settings.warmup, final=0.0)
        self.step, self.best_epoch = 0, 0
        self.scores: list[float] = []
        self.losses: list[float] = []
        self._sum = 0.0
        self._earlier = 0.0

    def run(self) -> Tuned:
        """Trains to the end, or until patience runs out, and puts the best weights in place."""
        self._began = time.perf_counter()
        saved = self._began
        self._resume()
        while self.step < self.plan.steps and not self._is_over():
            self._one_step()
            if self.step % self.per_epoch == 0:
                self._end_epoch()
            if time.perf_counter() - saved > self.settings.checkpoint_seconds:
                self.save()
                saved = time.perf_counter()
        self.save()  # other seeds may come after it
        if self.scores and self.best_epoch < len(self.scores):
            self.optimizer.load_masters(read_tensors(self._best))
        self.model.eval()
        self.head.eval()
        return Tuned(
            steps=self.step,
            best_epoch=self.best_epoch or len(self.losses),
            scores=tuple(self.scores),
            losses=tuple(self.losses),
            elapsed_seconds=self._elapsed(),
        )

    def save(self) -> None:
        """Writes all that decides the next step."""
        facts = {
            "best_epoch": self.best_epoch, "scores": self.scores, "losses": self.losses, "sum": self._sum,
            "elapsed_seconds": self._elapsed(),
        }  # fmt: skip
        state.write_checkpoint(self.directory / "checkpoints", self.step, self.optimizer.state(), facts)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _one_step(self) -> None:
        self.both.train()
        epoch, within = divmod(self.step, self.per_epoch)
        order = rng.stream(self.seed, "order", epoch).permutation(len(self.items))
        size = self.settings.batch_examples
        chosen = [self.items[i] for i in order[within * size : (within + 1) * size].tolist()]
        gradients: dict[str, Tensor] = {}
        total = 0.0
        for number, part in enumerate(_parts(chosen, self.settings.micro_batch_tokens)):
            seed = rng.derive(self.seed, "dropout", self.step, number)
            loss = self.task.loss(self._scores(part, seed), part) * (len(part) / len(chosen))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            for name, parameter in self.optimizer.parameters.items():
                if parameter.grad is not None:
                    before = gradients.get(name)
                    gradients[name] = parameter.grad if before is None else before.float() + parameter.grad
                    parameter.grad = None
        for name, parameter in self.optimizer.parameters.items():
            if name not in gradients:
                gradients[name] = torch.zeros_like(parameter)
        norm = clip(gradients, self.settings.gradient_clip)
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise RunError(
                f"the loss is {total} and the norm of the gradient {norm} at step {self.step + 1:,}",
                'lower adapt.tune.learning_rate, or set adapt.tune.precision = "float32"',
            )
        self.optimizer.step(gradients, self.plan.scale(self.step))
        self.step += 1
        self._sum += total

    def _scores(self, items: Sequence[Item], dropout_seed: int) -> Float[Tensor, "N outputs"]:
        packed = pack(
            [item.encoded for item in items], self.visibility, token_types=self.model.config.token_types > 0
        )
        hidden = hidden_states(self.model, packed.batch.to(self.device), dropout_seed)
        scores: Tensor = self.head(hidden[0], packed, dropout_seed ^ 1)
        return scores

    def _rules(self, masters: Mapping[str, Tensor]) -> list[Rule]:
        """AdamW, with a learning rate for each layer where they differ."""
        s, layers = self.settings, self.model.config.layers
        groups: dict[float, dict[str, Tensor]] = {}
        for name, master in masters.items():
            if name.startswith("head."):
                rate = s.head_learning_rate or s.learning_rate
            else:
                place = name.removeprefix("model.").split(".")
                layer = (
                    int(place[1]) + 1 if place[0] == "blocks" else 0 if "embedding" in name else layers + 1
                )
                rate = s.learning_rate * s.layer_decay ** (layers + 1 - layer)
            groups.setdefault(rate, {})[name] = master
        return [
            AdamRule(group, learning_rate=rate, betas=(0.9, 0.999), weight_decay=s.weight_decay)
            for rate, group in groups.items()
        ]

    # --- epochs -----------------------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self.losses.append(self._sum / self.per_epoch)
        self._sum = 0.0
        facts: dict[str, Any] = {"epoch": len(self.losses), "loss": self.losses[-1]}
        if self.score is not None:
            self.both.eval()
            self.scores.append(self.score())
            facts["score"] = self.scores[-1]
            if self.scores[-1] > max(self.scores[:-1], default=-math.inf):
                self.best_epoch = len(self.scores)
                self.directory.mkdir(parents=True, exist_ok=True)
                write_tensors(
                    {name: m.contiguous() for name, m in self.optimizer.masters.items()}, self._best
                )
        self.note(facts)

    def _is_over(self) -> bool:
        patience = self.settings.patience
        return patience is not None and bool(self.scores) and len(self.scores) - self.best_epoch >= patience

    @property
    def _best(self) -> Path:
        return self.directory / "best.safetensors"

    def _resume(self) -> None:
        found, _ = state.newest_checkpoint(self.directory / "checkpoints")
        if found is None:
            return
        tensors, facts = state.read_checkpoint(found)
        self.optimizer.load_state(tensors, facts["step"])
        self.step, self.best_epoch, self._sum = facts["step"], facts["best_epoch"], facts["sum"]
        self.scores, self.losses = facts["scores"], facts["losses"]
        self._earlier = facts["elapsed_seconds"]

    def _elapsed(self) -> float:
        return self._earlier + time.perf_counter() - self._began


@torch.no_grad()
def scores_of(
    model: Model, head: Head, items: Sequence[Item], visibility: Visibility
) -> list[Float[np.ndarray, "... outputs"]]:
    """Returns the scores of each item, or of each of its tokens; items of all lengths go side by side."""
    was_training = model.training
    model.eval()
    head.eval()
    device = next(model.parameters()).device
    found: list[Any] = []
    for part in _parts(items, PREDICTION_TOKENS):
        packed = pack([item.encoded for item in part], visibility, token_types=model.config.token_types > 0)
        scores = head(hidden_states(model, packed.batch.to(device))[0], packed).cpu().numpy()
        if head.shape == "example":
            found += list(scores)
        else:
            found += [scores[a:b] for a, b in zip(packed.starts.tolist(), packed.ends.tolist(), strict=True)]
    model.train(was_training)
    return found


def _parts(items: Sequence[Item], most_tokens: int) -> list[Sequence[Item]]:
    """Cuts items into runs of at most so many tokens, but one item at least."""
    parts: list[list[Item]] = []
    filled = most_tokens + 1
    for item in items:
        length = len(item.encoded.tokens)
        if filled + length > most_tokens:
            parts.append([])
            filled = 0
        parts[-1].append(item)
        filled += length
    return list(parts)
