"""From a base model and labelled examples to a task model with honest figures.

    rows -> examples -> training, validation and test examples -> items -> a model for each seed -> the best of them

The best epoch, and of several seeds the one that is kept, are chosen by the validation examples; the test examples are looked
at once, when everything is decided.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import scipy.stats
from annotated_types import Ge, Gt

from gristmill.adapt.base import Base, load_base
from gristmill.adapt.data import DataSettings, Leak, divided, leaks, plain, read_split, some_of_each
from gristmill.adapt.encoding import Encoder
from gristmill.adapt.heads import Head
from gristmill.adapt.task import Example, Item, Result, Task
from gristmill.adapt.tuner import Tuned, Tuner, TuneSettings, scores_of
from gristmill.artifact import (
    SCRATCH,
    Artifact,
    artifact_key,
    draft,
    find,
    hash_file,
    open_artifact,
    write_json,
    write_text,
)
from gristmill.config import Part, to_dict
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.checkpoint import save_model, write_tensors

__all__ = ["AdaptRecipe", "Splits", "adapt", "prepare"]

KIND, FORMAT = "adapted", 1
HEAD, TASK = "head.safetensors", "task.json"
SHOWN_LEAKS, SHOWN_ERRORS = 20, 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptRecipe:
    """A recipe of an adaptation: what is learned, from what, on which model."""

    name: str
    """Names the directory of the result."""
    base: str
    """The model to start from: the directory of a run, or one that `save_pretrained` of transformers wrote."""
    task: Annotated[Task[Any], Part("adapt.tasks")]
    """What is learned; one of `gristmill list tasks`."""
    data: DataSettings
    """The labelled examples."""
    tune: TuneSettings = dataclasses.field(default_factory=TuneSettings)
    """How the model is fine-tuned."""
    maximum_tokens: Annotated[int, Ge(8)] | None = None
    """Longer examples are cut, or divided where the task allows; by default what the model reads, 512 at most."""
    seed: Annotated[int, Ge(0)] = 0
    """All randomness derives from it."""
    seeds: Annotated[int, Gt(0)] = 1
    """How many models are trained, from `seed` on; figures are then means with intervals, and the best by validation is kept."""

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in '/\\:*?"<>|') or self.name.startswith("."):
            raise InputError(
                f'name = "{self.name}" does not name a directory', 'use letters and digits: name = "mine"'
            )


class Splits(NamedTuple):
    """The examples of a task."""

    train: list[Any]
    valid: list[Any]
    test: list[Any]
    leaks: list[Leak]
    outputs: tuple[str, ...]


class _Items(NamedTuple):
    """The examples as the model reads them; made before anything is trained, for a label may be unknown."""

    train: list[Item]
    valid: list[Item]
    test: list[Item]


class _Trained(NamedTuple):
    """One seed's model."""

    seed: int
    tuned: Tuned
    valid: Result
    head: Head
    weights: Mapping[str, Any]


def prepare(recipe: AdaptRecipe) -> Splits:
    """Returns the examples of a recipe, divided and checked: all that can be told before a model is loaded.

    Raises:
        InputError: a file, a row or a label is not as it should be; the message names it.
    """
    rows = read_split(recipe.data)
    task = recipe.task
    train, valid, test = (task.read(each, labelled=True) for each in rows)
    if not valid:
        train, valid = divided(train, _plain, _kind, recipe.data.valid_fraction, recipe.seed)
    if recipe.data.per_class is not None:
        train = some_of_each(train, _kind, recipe.data.per_class, recipe.seed)
    outputs = task.outputs(train)
    found = leaks([[(each.place, each.key) for each in split] for split in (train, valid, test)])
    return Splits(train, valid, test, found, outputs)


def adapt(recipe: AdaptRecipe, out: Path, *, say: Callable[[str], None] = lambda message: None) -> Artifact:
    """Fine-tunes a base model on a task and returns what it wrote: weights, head, tokenizer, figures.

    Raises:
        InputError: something in the recipe or the data does not fit; found before anything is trained.
        RunError: training failed.
    """
    splits = prepare(recipe)
    base = load_base(Path(recipe.base))
    config = to_dict(recipe) | {"data_hashes": _hashes(recipe.data)}
    parents = {"base": base.artifact} if base.artifact is not None else {}
    if base.artifact is None:
        config |= {"base_hash": hash_file(next(iter(sorted(Path(recipe.base).glob("*.safetensors")))))}
    made = find(out, artifact_key(KIND, FORMAT, config, parents, recipe.seed))
    if made is not None:
        return made
    for leak in splits.leaks[:3]:
        say(f"{leak.other} has the same text as {leak.one}: its score says less than it seems to")
    items = _Items(
        *(_items(recipe, base, splits, each) for each in (splits.train, splits.valid, splits.test))
    )
    with draft(
        out,
        kind=KIND,
        format_version=FORMAT,
        config=config,
        parents=parents,
        seed=recipe.seed,
        keep_partial=True,
    ) as work:
        trained = [
            _train(recipe, base, splits, items, recipe.seed + i, work.path / SCRATCH, say)
            for i in range(recipe.seeds)
        ]
        best = max(trained, key=lambda each: _first(each.valid))
        tests = [_tested(recipe, base, each, splits, items.test) for each in trained] if splits.test else []
        chosen = tests[trained.index(best)] if tests else None
        save_model(work.path, base.model.config, best.weights)
        write_tensors({name: p.detach() for name, p in best.head.state_dict().items()}, work.path / HEAD)
        (work.path / "tokenizer").mkdir(exist_ok=True)
        base.tokenizer.save(work.path / "tokenizer")
        write_json(
            work.path / TASK,
            {
                "task": to_dict(recipe.task), "outputs": splits.outputs, "maximum_tokens": _length(recipe, base),
                "visibility": base.visibility.value,
            },
        )  # fmt: skip
        facts = _facts(recipe, splits, trained, tests, best)
        write_json(work.path / "result.json", facts)
        write_text(work.path / "table.txt", (chosen or best.valid).table)
        work.metrics.update(facts["figures"])
    return open_artifact(out, KIND, verify=False)


# --- one model --------------------------------------------------------------------------------------------------------


def _train(
    recipe: AdaptRecipe, base: Base, splits: Splits, items: "_Items", seed: int, scratch: Path,
    say: Callable[[str], None],
) -> _Trained:  # fmt: skip
    task = recipe.task
    model = make_model(base.model.config, dropout=recipe.tune.dropout)
    model.load_state_dict(base.model.state_dict())
    head = Head(model.config, len(splits.outputs), task.shape, dropout=recipe.tune.dropout, seed=seed)
    last: list[Result] = []

    def score() -> float:
        found = scores_of(model, head, items.valid, base.visibility)
        said = task.predictions(found, items.valid, splits.valid, splits.outputs)
        last.append(task.result(splits.valid, said))
        return _first(last[-1])

    def note(facts: Mapping[str, Any]) -> None:
        name = next(iter(last[-1].figures))
        say(f"seed {seed}, epoch {facts['epoch']}: loss {facts['loss']:.4f}, {name} {facts['score']:.4f}")

    tuner = Tuner(
        directory=scratch / f"seed-{seed}", model=model, head=head, task=task, items=items.train, visibility=base.visibility,
        settings=recipe.tune, seed=seed, score=score, note=note,
    )  # fmt: skip
    tuned = tuner.run()
    score()
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in tuner.optimizer.masters.items()
        if name.startswith("model.")
    }
    return _Trained(seed, tuned, last[-1], head, {**model.state_dict(), **weights})


def _tested(
    recipe: AdaptRecipe, base: Base, trained: _Trained, splits: Splits, items: Sequence[Item]
) -> Result:
    model = make_model(base.model.config)
    model.load_state_dict(dict(trained.weights))
    scores = scores_of(model, trained.head, items, base.visibility)
    task = recipe.task
    return task.result(splits.test, task.predictions(scores, items, splits.test, splits.outputs))


def _items(recipe: AdaptRecipe, base: Base, splits: Splits, examples: Sequence[Any]) -> list[Item]:
    encoder = Encoder(base.tokenizer.vocabulary(), base.model.config, _length(recipe, base))
    return recipe.task.items(examples, base.tokenizer, encoder, splits.outputs) if examples else []


def _length(recipe: AdaptRecipe, base: Base) -> int:
    most = base.model.config.maximum_positions if base.model.config.core == "transformer" else 512
    return recipe.maximum_tokens or min(512, most)


# --- facts ------------------------------------------------------------------------------------------------------------


def _facts(
    recipe: AdaptRecipe, splits: Splits, trained: Sequence[_Trained], tests: Sequence[Result], best: _Trained
) -> dict[str, Any]:
    results = tests or [each.valid for each in trained]
    return {
        "name": recipe.name,
        "measured_on": "test" if tests else "valid",
        "examples": {"train": len(splits.train), "valid": len(splits.valid), "test": len(splits.test)},
        "outputs": splits.outputs,
        "figures": {name: _over_seeds([each.figures[name] for each in results]) for name in results[0].figures},
        "seeds": [
            {
                "seed": each.seed, "best_epoch": each.tuned.best_epoch, "steps": each.tuned.steps,
                "losses": each.tuned.losses, "valid": {k: v.value for k, v in each.valid.figures.items()},
                "elapsed_seconds": each.tuned.elapsed_seconds,
            }
            for each in trained
        ],
        "kept": best.seed,
        "confusion": results[trained.index(best)].confusion,
        "leaks": {
            "count": len(splits.leaks),
            "first": [leak._asdict() for leak in splits.leaks[:SHOWN_LEAKS]],
        },
    }  # fmt: skip


def _over_seeds(figures: Sequence[Any]) -> dict[str, Any]:
    """Mean and interval over seeds; of a single one its own interval over examples."""
    values = [figure.value for figure in figures]
    mean = statistics.fmean(values)
    if len(values) == 1:
        own = figures[0].interval
        return {"mean": mean, "interval": None if own is None else list(own), "over": "examples"}
    reach = scipy.stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": mean, "interval": [mean - reach, mean + reach], "over": "seeds", "values": values}


def _first(result: Result) -> float:
    return next(iter(result.figures.values())).value


def _hashes(data: DataSettings) -> dict[str, Any]:
    found = {}
    for name in (data.train, data.valid, data.test):
        if name is not None and Path(name).is_file():
            found[name] = hash_file(Path(name))
    return found


def _plain(example: Example) -> str:
    return plain(example.key)


def _kind(example: Example) -> str:
    return example.kind
