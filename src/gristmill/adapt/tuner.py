"""Fine-tuning: a model and a head learn the items of a task, step by step, and the best of them is kept.

Examples stand side by side in one row, so no position is padding. As in pretraining, a step is a function of the weights,
the optimizer's state, the seed and the step's number: what was killed goes on to the same bytes.
"""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from gristmill import rng
from gristmill.adapt.adversarial import Adversarial
from gristmill.adapt.encoding import Item, in_parts
from gristmill.adapt.net import PREDICTION_TOKENS, Net, Precision, narrow
from gristmill.adapt.task import ScoredTask, Task
from gristmill.adapt.way import Way, layer_of, layers_of
from gristmill.adapt.ways.full import Full
from gristmill.batch import Loss
from gristmill.config import Part
from gristmill.errors import InputError, RunError
from gristmill.model.checkpoint import read_tensors, write_tensors
from gristmill.train import state
from gristmill.train.optimizer import AdamRule, Optimizer, Rule, norm_of, shrunk
from gristmill.train.schedule import Plan

__all__ = ["TuneSettings", "Tuned", "Tuner", "mean_loss"]

Positive = Annotated[int, Gt(0)]
Share = Annotated[float, Interval(ge=0, lt=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How a model is fine-tuned."""

    epochs: Annotated[int, Ge(0)] = 4
    """Passes over the training examples; 0 asks a task that needs no training what it knows."""
    batch_examples: Positive = 32
    """Examples in a step."""
    micro_batch_tokens: Positive = 16384
    """Positions that are in memory at a time; gradients of several parts of a step are summed."""
    way: Annotated[Way, Part("adapt.ways")] = Full()  # noqa: RUF009 - frozen
    """Which weights are learned; one of `gristmill list ways`."""
    learning_rate: Annotated[float, Gt(0)] | None = None
    """The highest; it rises in `warmup` and then falls to 0 in a straight line. By default what is usual for the way."""
    head_learning_rate: Annotated[float, Gt(0)] | None = None
    """Of the head; by default the same."""
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """The learning rate of each layer is that of the layer above times this (Howard and Ruder 2018, ULMFiT)."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """Of AdamW, on matrices and embeddings."""
    warmup: Share = 0.1
    """Share of the steps in which the learning rate rises."""
    dropout: Share = 0.1
    """Share of what is added to the residual stream, and of what the head reads, that is dropped in training."""
    consistency: Annotated[float, Ge(0)] = 0.0
    """How much the difference counts between what is said of a batch under two draws of dropout (R-Drop; Wu et al. 2021)."""
    adversarial: Adversarial | None = None
    """Learn, besides each batch, the same batch with word vectors moved to where it hurts most."""
    gradient_clip: Annotated[float, Ge(0)] = 1.0
    """Longer gradients are shortened to this norm; 0 is no limit."""
    patience: Positive | None = None
    """Epochs without a better score on the validation examples after which training ends; by default it does not."""
    precision: Precision = "auto"
    """In which layers compute, in training and in use; masters of all weights are float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where; "auto" is a GPU where there is one."""
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
    weights: Mapping[str, int]
    """How many weights the model has without its head, and how many were learned of it and of what is new."""
    elapsed_seconds: float


@final
class Tuner:
    """Fine-tunes one model and its head in a directory, resuming what is there."""

    def __init__(
        self,
        *,
        directory: Path,
        net: Net,
        task: Task[Any],
        items: Sequence[Item],
        settings: TuneSettings,
        seed: int,
        score: Callable[[Net], float] | None = None,
        note: Callable[[Mapping[str, Any]], None] = lambda facts: None,
    ) -> None:
        """Takes what is to be tuned, in place.

        Args:
            directory: for checkpoints.
            net: the base model, with the dropout that it is to have, and a head where the task wants one.
            task: what is learned.
            items: the training examples.
            settings: how long, how fast, which weights.
            seed: of the order, of dropout, and of what is new.
            score: how good the net is now, on examples that it does not learn from; more is better.
            note: told of each epoch.

        Raises:
            InputError: the settings do not fit task or model.
        """
        self.directory, self.task, self.settings, self.seed = directory, task, settings, seed
        self.score, self.note = score, note
        self.groups = [list(group) for _, group in itertools.groupby(items, key=lambda item: item.example)]
        self._size = sum(p.numel() for p in net.model.parameters())
        self.net, self.learned = settings.way.install(net, seed=seed)
        if settings.consistency and not isinstance(task, ScoredTask):
            raise InputError(
                "consistency compares scores, and this task has none", "set tune.consistency = 0"
            )
        if settings.adversarial is not None:
            settings.adversarial.check(self.learned)
        self.optimizer = Optimizer(self.learned, self._rules)  # its masters are the weights as they came
        for parameter in self.net.parameters().values():
            parameter.requires_grad_(False)
        narrow(self.net.model, settings.precision)
        steps = self.per_epoch * settings.epochs
        self.plan = Plan.trapezoid(steps, warmup=settings.warmup, cooldown=1 - settings.warmup, final=0.0)
        self.step, self.best_epoch = 0, 0
        self.scores: list[float] = []
        self.losses: list[float] = []
        self._sum = 0.0
        self._earlier = 0.0

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return -(-len(self.groups) // self.settings.batch_examples)

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
        self.net.train(False)
        return Tuned(
            steps=self.step,
            best_epoch=self.best_epoch or len(self.losses),
            scores=tuple(self.scores),
            losses=tuple(self.losses),
            weights={
                "model": self._size,
                "learned": sum(p.numel() for p in self.learned.values()),
                "head": sum(p.numel() for name, p in self.learned.items() if name.startswith("head.")),
            },
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
        self.net.train()
        epoch, within = divmod(self.step, self.per_epoch)
        order = rng.stream(self.seed, "order", epoch).permutation(len(self.groups))
        size = self.settings.batch_examples
        chosen = [
            item for i in order[within * size : (within + 1) * size].tolist() for item in self.groups[i]
        ]
        learned = {name: p for name, p in self.learned.items() if self._begins(name) <= self.step}
        for name, parameter in self.learned.items():
            parameter.requires_grad_(name in learned)
        total, gradients = self._gradients(chosen, learned)
        norm = norm_of(gradients)
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise RunError(
                f"the loss is {total} and the norm of the gradient {norm} at step {self.step + 1:,}",
                'lower tune.learning_rate, or set tune.precision = "float32"',
            )
        self.optimizer.step(gradients, self.plan.scale(self.step), shrunk(norm, self.settings.gradient_clip))
        self.step += 1
        self._sum += total

    def _gradients(
        self, chosen: Sequence[Item], learned: Mapping[str, Tensor]
    ) -> tuple[float, dict[str, Tensor]]:
        """The mean loss of a step, and its gradients, summed over parts that fit into memory."""
        parts = in_parts(chosen, self.settings.micro_batch_tokens)
        gradients: dict[str, Tensor] = {}
        total = weight = 0.0
        for number, part in enumerate(parts):
            loss = self._loss(part, number)
            total, weight = total + float(loss.total_nats.detach()), weight + float(loss.weight)
            share = 1.0 if len(parts) > 1 else 1 / max(weight, 1e-12)  # narrow gradients are rounded once
            (loss.total_nats * share).backward()  # type: ignore[no-untyped-call]
            if self.settings.adversarial is not None:
                again = functools.partial(self._total, part, number, share)
                self.settings.adversarial.backward(self.net.model.embedding.weight, again)
            for name, parameter in learned.items():
                if parameter.grad is not None:
                    before = gradients.get(name)
                    gradients[name] = parameter.grad if before is None else before.float() + parameter.grad
                    parameter.grad = None
        for name, parameter in learned.items():
            if name not in gradients:
                gradients[name] = torch.zeros_like(parameter)
        if len(parts) > 1:
            torch._foreach_mul_(list(gradients.values()), 1 / max(weight, 1e-12))
        return total / max(weight, 1e-12), gradients

    def _total(self, part: Sequence[Item], number: int, share: float) -> Tensor:
        return self._loss(part, number).total_nats * share

    def _loss(self, part: Sequence[Item], number: int) -> Loss:
        seed = rng.derive(self.seed, "dropout", self.step, number)
        if not self.settings.consistency:
            return self.task.loss(self.net, part, seed)
        assert isinstance(self.task, ScoredTask)
        one, other = self.net.scores(part, seed), self.net.scores(part, seed ^ 0x2545F491)
        losses = self.task.loss_of(one, part), self.task.loss_of(other, part)
        apart = self.settings.consistency * self.task.divergence(one, other, part)
        return Loss(
            total_nats=(losses[0].total_nats + losses[1].total_nats) / 2 + apart, weight=losses[0].weight
        )

    def _begins(self, name: str) -> int:
        """The step with which a weight begins to be learned."""
        return round(self.settings.way.begins(name, self.net.model.config) * self.per_epoch)

    def _rules(self, masters: Mapping[str, Tensor]) -> list[Rule]:
        """AdamW, with a learning rate and a beginning for each layer where they differ."""
        s, config = self.settings, self.net.model.config
        usual = s.learning_rate or s.way.learning_rate
        groups: dict[tuple[float, int], dict[str, Tensor]] = {}
        for name, master in masters.items():
            if name.startswith("head."):
                rate = s.head_learning_rate or usual
            else:
                rate = usual * s.layer_decay ** (layers_of(config) + 1 - layer_of(name, config))
            groups.setdefault((rate, self._begins(name)), {})[name] = master
        return [
            AdamRule(
                group,
                learning_rate=rate,
                betas=(0.9, 0.999),
                weight_decay=s.weight_decay,
                begins_after=begins,
            )
            for (rate, begins), group in groups.items()
        ]

    # --- epochs -----------------------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self.losses.append(self._sum / self.per_epoch)
        self._sum = 0.0
        facts: dict[str, Any] = {"epoch": len(self.losses), "loss": self.losses[-1]}
        if self.score is not None:
            self.net.train(False)
            self.scores.append(self.score(self.net))
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
def mean_loss(task: Task[Any], net: Net, items: Sequence[Item]) -> float:
    """Returns the mean loss of items, without dropout."""
    net.train(False)
    losses = [task.loss(net, part) for part in in_parts(items, PREDICTION_TOKENS)]
    weight = sum(float(loss.weight) for loss in losses)
    return sum(float(loss.total_nats) for loss in losses) / max(weight, 1e-12)
