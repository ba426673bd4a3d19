"""Search of settings: trials with other values, each trained and scored on the validation examples, by Optuna.

Values are chosen by the tree-structured Parzen estimator (Bergstra et al. 2011), from the trials that are finished; a trial that is
after an epoch below the median of the others at that epoch is given up (Golovin et al. 2017, section 3.2.2). Trials are kept in a
database, so a search that was killed goes on: what is finished is not done again, and what was under way is taken up where its
training stopped. The draws of a trial derive from the seed and its number, so with one worker the trials are the same ones.

One process speaks with the database, whatever the number of workers: they train, it asks and tells. So SQLite, which has one
writer at a time, is never waited for; several machines share a server's database.
"""

import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import shutil
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, final

import torch
from annotated_types import Gt

from gristmill import rng
from gristmill.config import from_dict
from gristmill.errors import GristmillError, InputError, RunError

__all__ = ["Dimension", "Pruned", "SearchSettings", "TrialRun", "applied", "dimensions", "search"]

Positive = Annotated[int, Gt(0)]
Number = float | int
DATABASE = "trials.db"
LOCKED_SECONDS = 60
"""How long another process may keep SQLite's file."""
ENOUGH_FOR_IMPORTANCE = 8
"""Finished trials below which it is not said what mattered."""
_INSTALL = 'install it: pip install "gristmill[search]"'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What settings are tried, and how often."""

    space: dict[str, Any]
    """Names of settings, each with { low, high, log, step } or { choices = [...] }: tune.learning_rate = { low = 1e-5, high = 1e-3,
    log = true }."""
    trials: Positive = 20
    """How many; those of earlier attempts count."""
    pruning: Literal["median", "none"] = "median"
    """Whether a trial is given up that is after an epoch worse than the median of the others."""
    workers: Positive = 1
    """Processes on this machine; with more than one, which trials come out depends on who is ready first."""
    storage: str | None = None
    """The URL of a database, for machines that search together: "postgresql://…"; by default a file beside the result."""

    def __post_init__(self) -> None:
        dimensions(self.space)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dimension:
    """The values that a setting may have."""

    low: Number | None = None
    """The lowest."""
    high: Number | None = None
    """The highest."""
    log: bool = False
    """Whether as many are tried from 1e-5 to 1e-4 as from 1e-4 to 1e-3."""
    step: Number | None = None
    """The distance between neighbours; by default 1 between whole numbers."""
    choices: tuple[Any, ...] | None = None
    """The values one by one; text, numbers, tables."""

    def __post_init__(self) -> None:
        if self.choices is not None:
            if (self.low, self.high, self.step) != (None, None, None) or self.log:
                raise InputError("choices stand alone", "leave low, high, log and step out")
            if len(self.choices) < 1:
                raise InputError("there are no choices", 'write { choices = ["a", "b"] }')
            return
        if self.low is None or self.high is None:
            raise InputError(
                "low and high are missing", "write { low = 1e-5, high = 1e-3 } or { choices = [...] }"
            )
        if self.low >= self.high:
            raise InputError(
                f"low = {self.low} is not below high = {self.high}",
                "exchange them, or leave this setting out",
            )
        if self.log and self.low <= 0:
            raise InputError(f"low = {self.low} has no logarithm", "raise it above 0, or leave log out")
        if self.log and self.step is not None:
            raise InputError("log and step exclude each other", "leave one of them out")
        if self.step is not None and self.step <= 0:
            raise InputError(f"step = {self.step} leads nowhere", "set it above 0")

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that all others are between, or all there are."""
        return (self.low, self.high) if self.choices is None else self.choices

    def suggested(self, trial: Any, name: str) -> Any:
        """Returns the value that a trial of Optuna gets."""
        if self.choices is not None:  # as JSON: Optuna knows no tables
            return json.loads(trial.suggest_categorical(name, [json.dumps(each) for each in self.choices]))
        if all(isinstance(each, int) for each in (self.low, self.high, self.step or 1)):
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


class Pruned(Exception):  # noqa: N818 - it says what happened to a trial, which is no error
    """Ends a trial that is not worth going on with."""


TrialRun = Callable[[Mapping[str, Any], Path, Callable[[int, float], None]], float]
"""Returns the score that a training reaches, more is better, given

- the values of the settings that are searched,
- a directory for checkpoints; what is there from an earlier attempt is gone on with,
- what is told the score after each epoch, the first of which is 0; it may raise `Pruned`.
"""


def dimensions(space: Mapping[str, Any], where: str = "") -> dict[str, Dimension]:
    """Returns the dimensions of a space by the full names of their settings, `tune.learning_rate`.

    Raises:
        InputError: there is none, or one is not as it should be.
    """
    found: dict[str, Dimension] = {}
    known = {field.name for field in dataclasses.fields(Dimension)}
    for key, value in space.items():
        name = f"{where}{key}"
        if not isinstance(value, Mapping):
            raise InputError(
                f"search.space: {name} is {value!r}, but it is a table",
                f"write {name} = {{ low = …, high = … }}",
            )
        if value and not known & set(value) and all(isinstance(inner, Mapping) for inner in value.values()):
            found |= dimensions(value, f"{name}.")
        else:
            found[name] = from_dict(Dimension, value, f"search.space: {name}")
    if not found:
        raise InputError(
            "search.space is empty", "write tune.learning_rate = { low = 1e-5, high = 1e-3, log = true }"
        )
    for name in found:
        inner = next((other for other in found if other.startswith(f"{name}.")), None)
        if inner is not None:
            raise InputError(
                f"search.space has {name} and {inner}, which is inside it",
                f'write the tables as choices of {name}: choices = [{{ name = "lora", rank = 4 }}, "full"]',
            )
    return found


def applied(table: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tables of a recipe with other values of some settings, given by their full names."""
    result = dict(table)
    for name, value in values.items():
        head, _, rest = name.partition(".")
        inner = result.get(head)
        if rest:
            inner = inner if isinstance(inner, Mapping) else {} if inner is None else {"name": inner}
            value = applied(inner, {rest: value})
        result[head] = value
    return result


def search(
    settings: SearchSettings,
    run: TrialRun,
    *,
    name: str,
    seed: int,
    directory: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Returns the facts of a search when all its trials are finished: `best` with its values, and `trials`.

    Args:
        settings: what is searched.
        run: trains and scores; with several workers it is sent to other processes.
        name: of the search in the database. Searches of the same name share their trials.
        seed: of the draws.
        directory: for the database and for what trials keep while they train.
        say: told of each trial.

    Raises:
        InputError: Optuna is not there, or the database.
        RunError: no trial has finished.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _study(settings, name, directory) as study:
        asked = _Asked(study, settings, seed, directory, say)
        if settings.workers == 1:
            _alone(asked, run)
        else:
            _together(asked, run, settings.workers)
        return asked.facts()


# --- trials -----------------------------------------------------------------------------------------------------------


class _Taken(NamedTuple):
    """A trial that is to be done."""

    trial: Any
    number: int
    values: Mapping[str, Any]
    directory: Path
    told: set[int]
    """The epochs of which the score is known, perhaps from an attempt that was killed."""
    began: float


@final
class _Asked:
    """The trials of a search: hands them out, and keeps what became of them."""

    def __init__(
        self, study: Any, settings: SearchSettings, seed: int, directory: Path, say: Callable[[str], None]
    ) -> None:
        import optuna

        self.study, self.settings, self.seed, self.directory, self.say = study, settings, seed, directory, say
        self.space = dimensions(settings.space)
        self.states = optuna.trial.TrialState
        self.owner = f"{socket.gethostname()}:{directory.resolve()}"
        self._left = [trial for trial in self._all() if self._is_left(trial)]

    def next(self) -> _Taken | None:
        """Returns what is to be done next: first what was under way when an earlier attempt ended; None when all is."""
        import optuna

        if self._left:
            left = self._left.pop(0)
            trial = optuna.trial.Trial(self.study, left._trial_id)  # there is no public way to take one up
            return self._taken(trial, left.intermediate_values)
        trials = self._all()
        failed = sum(trial.state == self.states.FAIL for trial in trials)
        if len(trials) - failed >= self.settings.trials:
            return None
        self.study.sampler = self._sampler(len(trials) - failed)
        trial = self.study.ask()
        self.study.sampler = self._sampler(trial.number - failed)  # another machine may have been faster
        trial.set_user_attr("owner", self.owner)
        return self._taken(trial, ())

    def report(self, taken: _Taken, epoch: int, score: float) -> bool:
        """Keeps the score after an epoch; returns whether to give up."""
        if epoch not in taken.told:
            taken.told.add(epoch)
            taken.trial.report(score, epoch)
        return self.settings.pruning == "median" and bool(taken.trial.should_prune())

    def finish(self, taken: _Taken, score: float | None, why: str = "") -> None:
        """Keeps the end of a trial: its score, or that it was given up and why."""
        if score is not None and not math.isfinite(score):
            score, why = None, f"the score is {score}"
        taken.trial.set_user_attr("elapsed_seconds", round(time.monotonic() - taken.began, 3))
        if score is None and why:
            taken.trial.set_user_attr("diverged", why)
        if score is None:
            # also where training diverged: a trial that counts as failed would be drawn again from the same place
            self.study.tell(taken.trial, state=self.states.PRUNED)
        else:
            self.study.tell(taken.trial, score)
        shutil.rmtree(taken.directory, ignore_errors=True)
        best = max((t.value for t in self._all() if t.state == self.states.COMPLETE), default=None)
        end = why or "given up" if score is None else f"{score:.4f}"
        self.say(
            f"trial {taken.number + 1} of {self.settings.trials}: {_in_words(taken.values)}: {end}"
            + ("" if best is None else f" (best {best:.4f})")
        )

    def facts(self) -> dict[str, Any]:
        """Returns what was found.

        Raises:
            RunError: nothing.
        """
        trials = [trial for trial in self._all() if trial.state != self.states.FAIL]
        complete = [trial for trial in trials if trial.state == self.states.COMPLETE]
        if not complete:
            reasons = [trial.user_attrs["diverged"] for trial in trials if "diverged" in trial.user_attrs]
            raise RunError(
                f"none of {len(trials)} trials has finished" + (f": {reasons[0]}" if reasons else ""),
                "search other values, lower learning rates for instance",
            )
        best = max(complete, key=lambda trial: (trial.value, -trial.number))
        return {
            "space": self.settings.space,
            "sampler": "tpe",
            "pruning": self.settings.pruning,
            "seed": self.seed,
            "best": {"number": best.number, "values": self._values(best), "score": best.value},
            "trials": [self._fact(trial) for trial in trials],
            "importance": self._importance(len(complete)),
        }

    def _fact(self, trial: Any) -> dict[str, Any]:
        state = {self.states.COMPLETE: "finished", self.states.PRUNED: "given up"}.get(
            trial.state, "elsewhere"
        )
        scores = [trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)]
        return {
            "number": trial.number,
            "state": "diverged" if "diverged" in trial.user_attrs else state,
            "values": self._values(trial),
            "score": trial.value if trial.state == self.states.COMPLETE else max(scores, default=None),
            "epochs": scores,
            "elapsed_seconds": trial.user_attrs.get("elapsed_seconds"),
        }

    def _importance(self, complete: int) -> dict[str, float] | None:
        """How much of the differences each setting explains (PED-ANOVA; Watanabe et al. 2023, arXiv:2304.10255)."""
        import optuna

        if complete < ENOUGH_FOR_IMPORTANCE or len(self.space) < 2:
            return None
        try:
            with _without_warnings():
                evaluator = optuna.importance.PedAnovaImportanceEvaluator()
                found = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        except (RuntimeError, ValueError):  # all scores are the same
            return None
        return {name: float(found[name]) for name in self.space if name in found}

    def _values(self, trial: Any) -> dict[str, Any]:
        choices = {name for name, each in self.space.items() if each.choices is not None}
        known = {name: trial.params[name] for name in self.space if name in trial.params}
        return {name: json.loads(value) if name in choices else value for name, value in known.items()}

    def _taken(self, trial: Any, told: Iterable[int]) -> _Taken:
        values = {name: each.suggested(trial, name) for name, each in self.space.items()}
        directory = self.directory / f"trial-{trial.number:04d}"
        return _Taken(trial, trial.number, values, directory, set(told), time.monotonic())

    def _is_left(self, trial: Any) -> bool:
        """Whether a trial was under way here; one whose values were not all drawn is drawn anew, to the same values."""
        if trial.state != self.states.RUNNING or trial.user_attrs.get("owner", self.owner) != self.owner:
            return False
        if set(trial.params) == set(self.space):
            return True
        if self.settings.storage is None or "owner" in trial.user_attrs:
            self.study.tell(trial.number, state=self.states.FAIL)
        return False

    def _all(self) -> Sequence[Any]:
        found: Sequence[Any] = self.study.get_trials(deepcopy=False)
        return found

    def _sampler(self, number: int) -> Any:
        import optuna

        drawn = rng.derive(self.seed, "search", number) % 2**32
        with _without_warnings():
            return optuna.samplers.TPESampler(seed=drawn, multivariate=True, constant_liar=True)


def _alone(asked: _Asked, run: TrialRun) -> None:
    while (taken := asked.next()) is not None:

        def report(epoch: int, score: float, taken: _Taken = taken) -> None:
            if asked.report(taken, epoch, score):
                raise Pruned

        try:
            score = run(taken.values, taken.directory, report)
        except Pruned:
            asked.finish(taken, None)
        except RunError as error:
            asked.finish(taken, None, error.message)
        except InputError as error:
            raise _with_values(taken, error.message, error.hint) from None
        else:
            asked.finish(taken, score)


def _with_values(taken: _Taken, message: str, hint: str | None) -> InputError:
    return InputError(f"with {_in_words(taken.values)}: {message}", hint)


def _in_words(values: Mapping[str, Any]) -> str:
    shown = {
        name: f"{value:.3g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }
    return ", ".join(f"{name} = {value}" for name, value in shown.items())


# --- processes --------------------------------------------------------------------------------------------------------


def _together(asked: _Asked, run: TrialRun, workers: int) -> None:
    """Trains in several processes; only this one speaks with the database."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // workers)
    busy: dict[Any, _Taken] = {}
    processes: list[Any] = []
    try:
        while len(processes) < workers and (taken := asked.next()) is not None:
            line, other = context.Pipe()
            processes.append(context.Process(target=_worker, args=(run, other, threads), daemon=True))
            processes[-1].start()
            other.close()
            busy[line] = taken
            line.send((taken.values, taken.directory))
        while busy:
            ready: list[Any] = connection.wait(list(busy))
            for line in ready:
                if not _answered(asked, line, busy[line]):
                    continue
                del busy[line]
                if (taken := asked.next()) is None:
                    line.close()
                else:
                    busy[line] = taken
                    line.send((taken.values, taken.directory))
    finally:
        for line in busy:
            line.close()
        for process in processes:
            process.terminate()
            process.join()


def _answered(asked: _Asked, line: Any, taken: _Taken) -> bool:
    """Takes what a worker says; returns whether its trial has ended."""
    try:
        what, *rest = line.recv()
    except EOFError:
        raise RunError(
            f"the process of trial {taken.number + 1} was killed",
            "with fewer workers there is more memory for each",
        ) from None
    if what == "epoch":
        line.send(asked.report(taken, *rest))
        return False
    if what == "input":
        raise _with_values(taken, *rest)
    if what == "broken":
        raise RunError(f"trial {taken.number + 1} failed: {rest[0]}")
    asked.finish(taken, *rest)
    return True


def _worker(run: TrialRun, line: Any, threads: int) -> None:
    """Trains what it is sent, until it is ended or nobody is left to send."""
    _end_with_parent()
    torch.set_num_threads(threads)

    def report(epoch: int, score: float) -> None:
        line.send(("epoch", epoch, score))
        if line.recv():
            raise Pruned

    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            values, directory = line.recv()
            said: tuple[Any, ...]
            try:
                said = ("end", run(values, directory, report))
            except Pruned:
                said = ("end", None)
            except InputError as error:
                said = ("input", error.message, error.hint)
            except GristmillError as error:
                said = ("end", None, error.message)
            except (EOFError, BrokenPipeError):
                raise
            except Exception:
                said = ("broken", traceback.format_exc())
            line.send(said)


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone: killed, it can't tell its children to stop."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


# --- the database -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _study(settings: SearchSettings, name: str, directory: Path) -> Iterator[Any]:
    try:
        import optuna
        import sqlalchemy.exc
    except ImportError:
        raise InputError("a search needs optuna, which is not installed", _INSTALL) from None
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _opened(settings.storage or f"sqlite:///{(directory / DATABASE).as_posix()}")
    enough = max(1, min(5, settings.trials // 4))
    try:
        yield optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=enough, n_warmup_steps=1),
            load_if_exists=True,
        )
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise RunError(
            f"the database of the search can't be used: {str(error).splitlines()[0]}",
            "the same command goes on where it stopped",
        ) from None
    finally:
        optuna.logging.set_verbosity(level)
        storage.remove_session()
        storage.engine.dispose()


def _opened(url: str) -> Any:
    """The storage behind a URL.

    Raises:
        InputError: there is none; the message does not show its password.
    """
    import optuna
    import sqlalchemy.exc

    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise InputError(
            "search.storage is no URL of a database",
            'write "postgresql://user@host/name", or "sqlite:///file"',
        ) from None
    waits = {"connect_args": {"timeout": LOCKED_SECONDS}} if parsed.get_backend_name() == "sqlite" else {}
    shown = parsed.render_as_string(hide_password=True)
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=waits)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise InputError(
            f"search.storage = {shown}: no driver for this kind of database",
            f"install one ({error.__cause__ or error})",
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise InputError(
            f"search.storage = {shown} can't be opened: {reason}", "look whether it is running"
        ) from None


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Optuna 4 calls experimental what is the default of Optuna 5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
