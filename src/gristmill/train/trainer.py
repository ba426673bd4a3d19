"""The training loop: steps, accumulation, validation, checkpoints. It knows no objective by name.

Everything that a step computes is a function of the weights, the optimizer's state, the seed and the step's number. A
run that is killed at any moment and started again reads the newest checkpoint, does the steps after it once more, and
ends in the same bytes. What depends on the clock (how many steps fit into a budget of wall time, which precision is the
faster) is decided once, written down before it is used, and read back.
"""

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gristmill.artifact import SCRATCH, cpu_seconds, disk_errors, hash_file, write_json, write_text
from gristmill.augment.tokens import Noise
from gristmill.corpus.shards import TokenStore
from gristmill.errors import InputError, RunError
from gristmill.model.base import Model, is_matrix
from gristmill.model.build import make_model
from gristmill.model.checkpoint import read_tensors, save_model, write_tensors
from gristmill.model.config import ModelConfig
from gristmill.model.native import kernels
from gristmill.rng import derive
from gristmill.train import state
from gristmill.train.hardware import (
    Peak,
    has_bfloat16_units,
    keep_memory,
    matmul_peak,
    median_seconds,
    peak_memory_bytes,
)
from gristmill.train.loader import Cursor, Loader, Step, schedule_of
from gristmill.train.optimizer import Optimizer, norm_of, shrunk
from gristmill.train.schedule import Budget, Plan, parse_budget
from gristmill.train.settings import PretrainSettings, default_objective, flops_of_token, resolve_batch
from gristmill.train.validate import DocumentScores, score_documents
from gristmill.vocabulary import Vocabulary

__all__ = ["Hook", "Progress", "Trained", "Trainer", "pick_device"]

VALIDATION_SHARE = 0.1
"""Of a budget of wall time, what validations may take."""

REFIT_SHARE = 0.02
"""A wall-time plan is corrected when the projected end is off by more than this share of the budget."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a hook is told after every step."""

    step: int
    steps: int
    tokens: int
    epoch: int
    loss_nats: float
    learning_rate_scale: float
    tokens_per_second: float
    utilisation: float
    """Share of this machine's measured matrix-multiplication peak in the precision that is used."""
    elapsed_seconds: float
    remaining_seconds: float
    validation: DocumentScores | None = None
    """Set when the validation set was measured after this step."""


@runtime_checkable
class Hook(Protocol):
    """Called after every step; what is shown and logged while training is a hook."""

    def __call__(self, progress: Progress) -> None:
        """Takes note of a step."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a finished run says of itself, for its manifest."""

    metrics: dict[str, Any]
    validation: DocumentScores
    earlier: dict[str, float]
    """What attempts that were interrupted have cost, as far as their checkpoints know."""


@final
class Trainer:
    """Trains one model in one directory, resuming what is there."""

    def __init__(  # noqa: PLR0913 - all named
        self,
        *,
        directory: Path,
        model_config: ModelConfig,
        settings: PretrainSettings,
        train: TokenStore,
        valid: TokenStore,
        vocabulary: Vocabulary,
        seed: int,
        say: Callable[[str], None] = lambda message: None,
        hooks: tuple[Hook, ...] = (),
    ) -> None:
        self.directory, self.config, self.settings = directory, model_config, settings
        self.train_store, self.valid_store, self.vocabulary, self.seed = train, valid, vocabulary, seed
        self.say, self.hooks = say, hooks
        self.device = pick_device(settings.device)
        self.objective = settings.objective or default_objective(model_config.kind)
        self.objective.check(model_config)
        self.objective.check_vocabulary(vocabulary)
        settings.noise.check(self.objective)
        settings.noise.check_vocabulary(vocabulary)
        if vocabulary.size > model_config.vocab_size:
            raise InputError(
                f"the tokenizer has {vocabulary.size:,} tokens, the model's vocabulary {model_config.vocab_size:,}",
                "they belong to different runs: name the tokenizer that the shards were written with",
            )
        self.rows, self.micro_rows = resolve_batch(settings, model_config)
        self.budget = parse_budget(settings.budget)
        self.scratch = directory / SCRATCH
        self.checkpoints = self.scratch / "checkpoints"
        self.curve = directory / "curve.jsonl"
        self.step = 0

    def run(self) -> Trained:
        """Trains to the end of the budget and leaves weights, config and curve in the directory."""
        with self._open(), _memory_errors():
            self._prepare()
            while self.step < self.plan.steps:
                self._one_step()
            if not self._is_saved:
                self.save_checkpoint()  # until the artifact stands, this is what the run goes on from
            return self._finish()

    # --- beginning --------------------------------------------------------------------------------------------------

    def _open(self) -> Loader:
        """Starts the clocks, and what prepares batches."""
        torch.set_num_threads(self.settings.threads or _cores())
        keep_memory()
        self._began = time.perf_counter()
        self._began_cpu = cpu_seconds()
        self._earlier = {"elapsed_seconds": 0.0, "cpu_seconds": 0.0}
        self.loader = Loader(
            self.train_store,
            self.objective,
            row_tokens=self.settings.row_tokens,
            rows=self.rows,
            micro_rows=self.micro_rows,
            seed=self.seed,
            vocabulary=self.vocabulary,
            mix=schedule_of(self.settings, self.train_store, self.objective, self.rows),
            noise=self.settings.noise if self.settings.noise != Noise() else None,
        )
        return self.loader

    def _prepare(self) -> None:
        found, damaged = state.newest_checkpoint(self.checkpoints)
        for path in damaged:
            self.say(f"checkpoint {path.name} is damaged and is not used")
        self.decisions = self._decide()
        self.peak = Peak(**self.decisions["peak_flops"])
        self.dtype = getattr(torch, self.decisions["precision"])
        self.model = self._new_model(self.dtype)
        self.optimizer = Optimizer.of(self.model, self.settings.optimizer)
        self.average = (
            {name: master.clone() for name, master in self.optimizer.masters.items()}
            if self.settings.average
            else None
        )
        self.step, self.tokens, self.cursor = 0, 0, Cursor(0, 0)
        self.best: dict[str, Any] | None = None
        self._last_scores: DocumentScores | None = None
        self._best_before: str | None = None
        self._is_saved = False
        self.resumed = 0
        self._seconds_per_step = self.decisions["seconds_per_step"]
        self._validation_seconds = self.decisions["validation_seconds"]
        self._followed_until = self._last_noted_step()
        if found is not None:
            self._restore(found)
        self.plan = self._plan_from(self.decisions) or self._first_plan()
        self._trim_curve()
        self._checkpointed_at = time.perf_counter()
        self._flops_per_token = flops_of_token(self.settings, self.config)

    def _decide(self) -> dict[str, Any]:
        """Reads, or makes and writes down, what depends on the machine and the clock."""
        path = self.directory / "plan.json"
        if path.is_file():
            decisions: dict[str, Any] = json.loads(path.read_text())
            if decisions["threads"] != torch.get_num_threads():
                self.say(
                    f"this run was begun with {decisions['threads']} threads and goes on with {torch.get_num_threads()}: "
                    "the last bits may differ from those of an uninterrupted run"
                )
            return decisions
        peak = matmul_peak(self.device, 0.15)
        precision, reason, seconds = self._choose_precision(peak)
        self.say(f"precision: {precision} ({reason})")
        if kernels() is None and self.device.type == "cpu":
            self.say("no C compiler was found: training goes on without fused kernels, slower")
        decisions = {
            "precision": precision,
            "reason": reason,
            "seconds_per_step": seconds,
            "peak_flops": dataclasses.asdict(peak),
            "threads": torch.get_num_threads(),
            "validations": self.settings.validations,
            "validation_seconds": 0.0,
            "plans": [],
        }
        if self.budget.unit == "seconds":
            decisions |= self._choose_validations(getattr(torch, precision))
        write_json(path, decisions)
        return decisions

    def _choose_validations(self, dtype: torch.dtype) -> dict[str, Any]:
        """Times one validation; of a budget of wall time, validations take a tenth at most."""
        model, store, T = self._new_model(dtype), self.valid_store, self.settings.row_tokens
        rows, sample = -(-int((np.diff(store.offsets) - 1).sum()) // T), max(1, 8192 // T)
        seconds = median_seconds(lambda: self._score(model, maximum_rows=sample), 1) * max(1.0, rows / sample)
        affordable = max(1, math.floor(VALIDATION_SHARE * self.budget.amount / seconds))
        if affordable < self.settings.validations:
            self.say(
                f"a validation takes {seconds:.1f} s: there will be {affordable}, not {self.settings.validations}"
            )
        return {"validations": min(affordable, self.settings.validations), "validation_seconds": seconds}

    def _choose_precision(self, peak: Peak) -> tuple[str, str, float]:
        """Times the gradient of a micro-batch in each precision that the settings allow; the faster one is it.

        Where the processor has units for bfloat16 and float32 yet looks faster, both are timed twice more in turn and
        each one's best counts: a machine that others use too may have stood still at that moment, and the choice is
        for the whole run.
        """
        wanted = self.settings.precision
        candidates = ["float32", "bfloat16"] if wanted == "auto" else [wanted]
        if wanted == "auto" and not has_bfloat16_units(self.device, peak):
            candidates = ["float32"]  # bfloat16 would be emulated
        elif wanted == "auto" and self.device.type == "cuda":
            candidates = ["bfloat16"]
        whole = self.loader.step(Cursor(0, 0), 0, 1)
        part = dataclasses.replace(whole, batches=whole.batches[:1])

        def timed(name: str) -> float:
            model = self._new_model(getattr(torch, name))  # one at a time: memory counts
            return median_seconds(lambda: self._gradients(model, part), 1) * len(whole.batches)

        seconds = {name: timed(name) for name in candidates}
        for _ in range(2):
            if len(seconds) == 1 or seconds["bfloat16"] <= seconds["float32"]:
                break
            seconds = {name: min(before, timed(name)) for name, before in seconds.items()}
        best = min(seconds, key=lambda name: seconds[name])
        if len(seconds) == 1:
            reason = (
                "as the recipe says"
                if wanted != "auto"
                else "bfloat16 products are no faster on this machine"
            )
            if self.device.type == "cuda" and wanted == "auto":
                reason = "what this GPU is made for"
        else:
            reason = (
                ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in seconds.items())
                + " for a step, measured"
            )
        return best, reason, seconds[best]

    def _new_model(self, dtype: torch.dtype) -> Model:
        model = make_model(self.config, dropout=self.settings.dropout)
        model.initialise(torch.Generator().manual_seed(derive(self.seed, "init")))
        model.to(self.device)
        for name, parameter in model.named_parameters():
            if is_matrix(name, parameter):
                # tables and gains stay float32: they are cheap, and sums
                parameter.data = parameter.data.to(dtype)
        return model.train()

    def _restore(self, path: Path) -> None:
        tensors, facts = state.read_checkpoint(path)
        self.optimizer.load_state(tensors, facts["step"])
        if self.average is not None:
            for name, tensor in self.average.items():
                tensor.copy_(tensors[f"average.{name}"])
        self.step, self.tokens = facts["step"], facts["tokens"]
        self.cursor = Cursor(**facts["cursor"])
        self.best, self.resumed, self._is_saved = facts["best"], facts["resumed"] + 1, True
        if self.best is not None and not self._is_whole(self.best):
            self.say(f"the best weights, of step {self.best['step']:,}, are damaged and are not used")
            self.best = None
        # checkpoints of before had no CPU seconds, and are resumed all the same
        self._earlier = {name: facts.get(name, 0.0) for name in self._earlier}
        self._seconds_per_step = facts["seconds_per_step"]
        self._validation_seconds = facts["validation_seconds"]
        self.say(f"resuming at step {self.step:,}")

    # --- the plan -------------------------------------------------------------------------------------------------

    def _plan_from(self, decisions: dict[str, Any]) -> Plan | None:
        """The plan in force at this step: later corrections by a run that died are followed again when they are due."""
        due = [entry for entry in decisions["plans"] if entry["from_step"] <= self.step]
        # by step: of two runs that died, the first may have got further than the second
        due.sort(key=lambda entry: entry["from_step"])
        return Plan.from_json(due[-1]["plan"]) if due else None

    def _first_plan(self) -> Plan:
        steps = self._steps_in(self.budget)
        plan = Plan.trapezoid(
            steps,
            warmup=self.settings.warmup,
            cooldown=self.settings.cooldown,
            final=self.settings.final_learning_rate,
        )
        self._write_plan(plan)
        return plan

    def _positions(self) -> Any:
        """How many positions each training document has."""
        return np.maximum(self.train_store.lengths - self.objective.lookahead, 0)

    def _steps_in(self, budget: Budget) -> int:
        tokens_per_step = self.rows * self.settings.row_tokens
        if budget.unit == "steps":
            steps = budget.amount
        elif budget.unit == "tokens":
            steps = budget.amount / tokens_per_step
        elif budget.unit == "epochs" and self.settings.mix is not None:  # as much text as so many epochs have
            first = self.loader.plan(0)
            rows_each = int(self._positions().sum()) * first.rows / first.positions
            steps = budget.amount * rows_each / self.rows
        elif budget.unit == "epochs":
            whole = math.ceil(budget.amount)
            rows = (
                [self.loader.plan(epoch).rows for epoch in range(whole)]
                if whole <= 64
                else [self.loader.plan(0).rows] * whole
            )
            steps = (sum(rows) - (whole - budget.amount) * rows[-1]) / self.rows
        else:
            steps = self._steps_until(budget.amount)
        return max(2, math.ceil(steps))

    def _steps_until(self, seconds: float) -> float:
        """Steps in all, those done included, that end at this time: validations take their share."""
        left = seconds - self._elapsed()
        validations: int = self.decisions["validations"]
        total: float = self.step + left / self._seconds_per_step
        for _ in range(5):  # how many validations lie ahead depends on the total, which depends on them
            ahead = validations - self._validations_by(self.step, total)
            total = self.step + max(0.0, left - ahead * self._validation_seconds) / self._seconds_per_step
        return total

    def _write_plan(self, plan: Plan) -> None:
        self.decisions["plans"].append({"from_step": self.step, "plan": plan.to_json()})
        write_json(self.directory / "plan.json", self.decisions)

    def _follow(self) -> bool:
        """Goes on by the plan that was written down at this step, if one was, and returns whether one was."""
        written = [entry for entry in self.decisions["plans"] if entry["from_step"] == self.step]
        if written:
            self.plan = Plan.from_json(written[-1]["plan"])
        return bool(written)

    def _is_refit_due(self) -> bool:
        """Whether a wall-time plan is looked at again; never where a run that died came by and let it be."""
        if self.budget.unit != "seconds" or self.step <= self._followed_until:
            return False
        return self.step % 10 == 0 or self._seconds_per_step > REFIT_SHARE / 2 * self.budget.amount

    def _refit(self) -> None:
        """Corrects a wall-time plan by what steps and validations have really taken."""
        total = self._steps_until(self.budget.amount)
        error = abs(total - self.plan.steps) * self._seconds_per_step
        if error > REFIT_SHARE * self.budget.amount or error > 0.2 * (self.budget.amount - self._elapsed()):
            self.plan = self.plan.refit(
                self.step, max(self.step + 1, round(total)), cooldown=self.settings.cooldown
            )
            self._write_plan(self.plan)

    # --- a step ---------------------------------------------------------------------------------------------------

    def _one_step(self) -> None:
        if not self._follow() and self._is_refit_due():
            self._refit()
        started = time.perf_counter()
        step = self.loader.step(self.cursor, self.step, self.plan.steps)
        gradients, loss, parts = self._gradients(self.model, step)
        norm = norm_of(gradients)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._not_finite(loss, norm, step)
        scale = self.plan.scale(self.step)
        self.optimizer.step(gradients, scale, shrunk(norm, self.settings.gradient_clip))
        self.step, self.tokens, self.cursor = self.step + 1, self.tokens + step.tokens, step.after
        self._is_saved = False
        if self.average is not None:
            self._update_average()
        spent = time.perf_counter() - started
        self._seconds_per_step += (spent - self._seconds_per_step) / min(20, max(2, self.step))
        validation = self._validate() if self._is_validation_due() else None
        self._note(loss, parts, scale, step.tokens / spent, validation)
        if (
            time.perf_counter() - self._checkpointed_at > self.settings.checkpoint_seconds
            and self.step < self.plan.steps
        ):
            self.save_checkpoint()

    def _gradients(self, model: Model, step: Step) -> tuple[dict[str, Tensor], float, dict[str, float]]:
        """Returns the gradient of the mean loss over the step's micro-batches, that loss, and what it consists of."""
        weight = max(sum(float(batch.weights.sum()) for batch in step.batches), 1e-12)
        total = 0.0
        sums: dict[str, Tensor] = {}
        parts: dict[str, tuple[float, float]] = {}
        for micro, batch in enumerate(step.batches):
            dropout_seed = derive(self.seed, "dropout", self.step, micro)
            loss = self.objective.loss(model, batch.to(self.device), dropout_seed)
            (loss.total_nats / weight).backward()
            total += float(loss.total_nats.detach())
            for name, (nats, counted) in loss.parts.items():
                before = parts.get(name, (0.0, 0.0))
                parts[name] = before[0] + float(nats), before[1] + float(counted)
            for name, parameter in model.named_parameters():
                if parameter.grad is None:
                    continue
                if len(step.batches) == 1:
                    sums[name] = parameter.grad
                elif name in sums:
                    # in float32: many small sums in bfloat16 would lose the small ones
                    sums[name] += parameter.grad
                else:
                    sums[name] = parameter.grad.float()
                parameter.grad = None
        for name, parameter in model.named_parameters():
            if name not in sums:  # a head that nothing in this step spoke to
                sums[name] = torch.zeros_like(parameter)
        return sums, total / weight, {n: nats / max(counted, 1e-12) for n, (nats, counted) in parts.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        assert self.average is not None
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        names = list(self.average)
        torch._foreach_lerp_(
            [self.average[n] for n in names], [self.optimizer.masters[n] for n in names], 1 - decay
        )

    def _not_finite(self, loss: float, norm: float, step: Step) -> RunError:
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
        shown = ", ".join(step.documents[:5]) + (", …" if len(step.documents) > 5 else "")
        last, _ = state.newest_checkpoint(self.checkpoints)
        kept = (
            f"the checkpoint of step {int(last.name[5:]):,} stands" if last else "there is no checkpoint yet"
        )
        return RunError(
            f"{what} at step {self.step + 1:,}; the batch held the documents {shown}; {kept}",
            'lower the optimizer\'s learning_rate, raise warmup, or set pretrain.precision = "float32"; '
            "`gristmill corpus show … --document ID` shows a document",
        )

    # --- validation, notes, checkpoints -------------------------------------------------------------------------

    def _is_validation_due(self) -> bool:
        if self.step >= self.plan.steps:
            return True
        return self._validations_by(self.step, self.plan.steps) > self._validations_by(
            self.step - 1, self.plan.steps
        )

    def _validations_left(self) -> int:
        return int(self.decisions["validations"]) - self._validations_by(self.step, self.plan.steps)

    def _validations_by(self, step: int, steps: float | int) -> int:
        """How many validations a run of so many steps has had when it reaches one of them."""
        validations: int = self.decisions["validations"]
        return min(validations, math.floor(validations * step / max(steps, 1)))

    @torch.no_grad()
    def _validate(self) -> DocumentScores:
        started = time.perf_counter()
        with self._averaged():
            scores = self._score(self.model)
        if not math.isfinite(scores.nats_per_token):
            raise RunError(
                f"the validation loss is {scores.nats_per_token} after step {self.step:,}",
                "lower the optimizer's learning_rate, or raise warmup",
            )
        later_is_better = not self.objective.comparable_over_time
        if self.best is None or later_is_better or scores.nats_per_token < self.best["nats_per_token"]:
            name = f"best-{self.step:08d}.safetensors"
            self._save_weights(self.scratch / name)
            self.best = {
                "step": self.step,
                "nats_per_token": scores.nats_per_token,
                "file": name,
                "sha256": hash_file(self.scratch / name),
            }
        self._validation_seconds = time.perf_counter() - started
        self._last_scores = scores
        return scores

    def _score(self, model: Model, maximum_rows: int | None = None) -> DocumentScores:
        return score_documents(
            model,
            self.valid_store,
            row_tokens=self.settings.row_tokens,
            vocabulary=self.vocabulary,
            objective=self.objective,
            maximum_rows=maximum_rows,
        )

    def _averaged(self) -> "_Averaged":
        return _Averaged(self.optimizer, self.average)

    def _weights(self) -> dict[str, Tensor]:
        return self.average if self.average is not None else self.optimizer.masters

    def _save_weights(self, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
            write_tensors({n: t.cpu().contiguous() for n, t in self._weights().items()}, temporary)
            temporary.replace(path)

    def _is_whole(self, best: dict[str, Any]) -> bool:
        path = self.scratch / best["file"]
        return path.is_file() and bool(hash_file(path) == best["sha256"])

    def _note(
        self,
        loss: float,
        parts: dict[str, float],
        scale: float,
        tokens_per_second: float,
        validation: DocumentScores | None,
    ) -> None:
        progress = Progress(
            step=self.step,
            steps=self.plan.steps,
            tokens=self.tokens,
            epoch=self.cursor.epoch,
            loss_nats=loss,
            learning_rate_scale=scale,
            tokens_per_second=tokens_per_second,
            utilisation=tokens_per_second * self._flops_per_token / self.peak.of(self.dtype),
            elapsed_seconds=self._elapsed(),
            remaining_seconds=(self.plan.steps - self.step) * self._seconds_per_step
            + self._validations_left() * self._validation_seconds,
            validation=validation,
        )
        line: dict[str, Any] = {
            "step": progress.step,
            "tokens": progress.tokens,
            "elapsed_seconds": round(progress.elapsed_seconds, 3),
            "loss_nats": round(loss, 6),
            "learning_rate": round(scale, 6),
            "tokens_per_second": round(tokens_per_second),
        }
        if parts:
            line["parts_nats"] = {name: round(value, 6) for name, value in parts.items()}
        if validation is not None:
            line["validation_nats_per_token"] = validation.nats_per_token
            line["validation_bits_per_byte"] = validation.bits_per_byte
            if validation.parts_nats:
                line["validation_parts_nats"] = dict(validation.parts_nats)
        with disk_errors(self.curve), self.curve.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for hook in self.hooks:
            hook(progress)

    def save_checkpoint(self) -> Path:
        """Writes a checkpoint of the present step."""
        tensors = self.optimizer.state()
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        facts = {
            "tokens": self.tokens,
            "cursor": dataclasses.asdict(self.cursor),
            "best": self.best,
            "resumed": self.resumed,
            "elapsed_seconds": self._elapsed(),
            "cpu_seconds": self._earlier["cpu_seconds"] + cpu_seconds() - self._began_cpu,
            "seconds_per_step": self._seconds_per_step,
            "validation_seconds": self._validation_seconds,
        }
        path = state.write_checkpoint(self.checkpoints, self.step, tensors, facts)
        best = None if self.best is None else self.best["file"]
        # what this checkpoint and the one before name is kept
        for old in self.scratch.glob("best-*.safetensors"):
            if old.name not in (best, self._best_before):
                old.unlink()
        self._best_before = best
        self._checkpointed_at, self._is_saved = time.perf_counter(), True
        return path

    def _last_noted_step(self) -> int:
        """The last step that this run, or one that died, has noted in the curve."""
        lines = self.curve.read_text().splitlines() if self.curve.is_file() else []
        for line in reversed(lines):
            try:
                return int(json.loads(line)["step"])
            except (ValueError, KeyError):
                continue  # half a line
        return -1

    def _trim_curve(self) -> None:
        """Forgets what was noted after the checkpoint: those steps are done again."""
        if not self.curve.is_file():
            return
        kept = []
        for line in self.curve.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line)
            except (ValueError, KeyError):
                break  # the line that was being written when the process died
        write_text(self.curve, "".join(line + "\n" for line in kept))

    # --- the end --------------------------------------------------------------------------------------------------

    def _finish(self) -> Trained:
        """Saves the best weights; what a resume needs stays until the artifact stands."""
        if self._last_scores is None:  # resumed after the last step
            with self._averaged():
                self._last_scores = self._score(self.model)
        if self.best is None:  # its weights were damaged after the last step: those of the last step stand
            self.best = {"step": self.step, "nats_per_token": self._last_scores.nats_per_token}
        last = scores = self._last_scores
        (self.directory / "last.safetensors").unlink(missing_ok=True)
        if self.best["step"] == self.step:
            save_model(self.directory, self.config, self._weights())
        else:
            self._save_weights(self.directory / "last.safetensors")
            tensors = read_tensors(self.scratch / self.best["file"])
            save_model(self.directory, self.config, tensors)
            with _Averaged(self.optimizer, tensors):
                scores = self._score(self.model)
        elapsed = self._elapsed()
        sizes = {name: p.numel() for name, p in self.model.named_parameters()}
        tables = sum(
            n
            for name, n in sizes.items()
            if name.startswith(("embedding.", "positions", "token_types", "ngrams", "output."))
        )
        metrics = {
            "parameters": {
                "total": sum(sizes.values()),
                "embedding": tables,
                "non_embedding": sum(sizes.values()) - tables,
            },
            "flops_per_token": self._flops_per_token,
            "memory_peak_bytes": peak_memory_bytes(),
            "steps": self.step,
            "tokens": self.tokens,
            "epochs": round(self.tokens / max(1, int((np.diff(self.train_store.offsets) - 1).sum())), 3),
            "elapsed_seconds": round(elapsed, 3),
            "tokens_per_second": round(self.tokens / elapsed, 1),
            "utilisation": round(self.tokens / elapsed * self._flops_per_token / self.peak.of(self.dtype), 4),
            "peak_flops": self.decisions["peak_flops"],
            "precision": {"compute": self.decisions["precision"], "reason": self.decisions["reason"]},
            "kernels": "compiled" if kernels() is not None and self.device.type == "cpu" else "torch",
            "threads": self.decisions["threads"],
            "batch": {
                "rows": self.rows,
                "micro_rows": self.micro_rows,
                "row_tokens": self.settings.row_tokens,
            },
            "best": {"step": self.best["step"], "nats_per_token": self.best["nats_per_token"]},
            "last": {"step": self.step, "nats_per_token": last.nats_per_token},
            "resumed": self.resumed,
        }
        if scores.parts_nats:
            metrics["validation_parts_nats"] = dict(scores.parts_nats)
        return Trained(metrics=metrics, validation=scores, earlier=self._earlier)

    def _elapsed(self) -> float:
        return self._earlier["elapsed_seconds"] + time.perf_counter() - self._began


class _Averaged:
    """While entered, the model computes with the averaged weights, if there are any."""

    def __init__(self, optimizer: Optimizer, average: dict[str, Tensor] | None) -> None:
        self.optimizer, self.average = optimizer, average
        self.kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def __enter__(self) -> None:
        if self.average is not None:
            self.kept = {name: master.clone() for name, master in self.optimizer.masters.items()}
            self._use(self.average)

    def __exit__(self, *_: object) -> None:
        if self.average is not None:
            self._use(self.kept)

    @torch.no_grad()
    def _use(self, tensors: dict[str, Tensor]) -> None:
        self.optimizer.load_masters(tensors)


@torch.no_grad()
@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (
            isinstance(error, MemoryError)
            or "out of memory" in str(error)
            or "can't allocate memory" in str(error)
        ):
            raise RunError(
                "there is not enough memory for a training step",
                "set pretrain.micro_batch_tokens lower, or model.depth; the last checkpoint stands",
            ) from error
        raise


def pick_device(name: str) -> torch.device:
    """Returns the device that a recipe names; "auto" is a GPU where there is one.

    Raises:
        InputError: "cuda" is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            'the recipe asks for device = "cuda", and torch finds no GPU', 'set pretrain.device = "auto"'
        )
    return torch.device(name)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
