"""From a base model and labelled examples to a task model with honest figures.

    rows -> examples -> training, validation and test examples -> items -> a model for each seed -> the best of them

The best epoch, and of several seeds the one that is kept, are chosen by the validation examples; the test examples are looked
at once, when everything is decided.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import scipy.stats
from annotated_types import Ge, Gt
from torch import Tensor

from gristmill.adapt.augmenting import Augmentation, augmented
from gristmill.adapt.base import Base, load_base
from gristmill.adapt.data import DataSettings, Leak, divided, leaks, plain, read_split, some_of_each
from gristmill.adapt.encoding import Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.self_training import Pool, SelfTraining, labels_of, pool_of, said_of
from gristmill.adapt.task import Example, Item, Result, Task
from gristmill.adapt.tuner import Tuned, Tuner, TuneSettings, mean_loss
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
from gristmill.errors import InputError, did_you_mean
from gristmill.generate.load import TOKENIZER
from gristmill.model.build import make_model
from gristmill.model.checkpoint import save_model, write_tensors

__all__ = ["AdaptRecipe", "Splits", "adapt", "prepare"]

KIND, FORMAT = "adapted", 1
HEAD, PROMPT, TASK = "head.safetensors", "prompt.safetensors", "task.json"
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
    augment: Augmentation | None = None
    """Learn from noisy copies of the training examples as well."""
    self_training: SelfTraining | None = None
    """Learn from rows without labels, which the model labels itself."""
    maximum_tokens: Annotated[int, Ge(8)] | None = None
    """Longer examples are cut, or divided where the task allows; by default what the model reads, 512 at most."""
    seed: Annotated[int, Ge(0)] = 0
    """All randomness derives from it."""
    seeds: Annotated[int, Gt(0)] = 1
    """How many models are trained, from `seed` on; figures are then means with intervals, and the best by validation is kept."""
    choose_by: str | None = None
    """By which figure on the validation examples the best epoch and seed are chosen, or "loss"; by default the task's first."""

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in '/\\:*?"<>|') or self.name.startswith("."):
            raise InputError(
                f'name = "{self.name}" does not name a directory', 'use letters and digits: name = "mine"'
            )
        if self.data.train is None and self.tune.epochs:
            raise InputError('"data.train" is missing', "or set tune.epochs = 0, which learns nothing")
        if not self.tune.epochs and not self.task.untrained:
            raise InputError(
                "tune.epochs = 0, but this task answers nothing before it has learned",
                'set tune.epochs, or task.name = "prompted"',
            )


class Splits(NamedTuple):
    """The examples of a task."""

    train: list[Any]
    valid: list[Any]
    test: list[Any]
    leaks: list[Leak]
    outputs: tuple[str, ...]
    pool: Pool | None = None
    """What has no labels, for self-training."""


class _Items(NamedTuple):
    """The examples as the model reads them; made before anything is trained, for a label may be unknown."""

    train: list[Item]
    valid: list[Item]
    test: list[Item]
    pool: list[Item]


class _Trained(NamedTuple):
    """One seed's model, and how good it is."""

    seed: int
    tuned: Tuned
    score: float
    valid: Result
    test: Result | None
    net: Net
    """As it was trained; the weights of its model are in `weights`."""
    weights: Mapping[str, Tensor]
    learned: Mapping[str, Tensor]
    rounds: Sequence[Mapping[str, Any]] = ()
    """Of self-training."""


def prepare(recipe: AdaptRecipe) -> Splits:
    """Returns the examples of a recipe, divided and checked: all that can be told before a model is loaded.

    Raises:
        InputError: a file, a row or a label is not as it should be; the message names it.
    """
    rows = read_split(recipe.data)
    task = recipe.task
    train, valid, test = (task.read(each, labelled=True) for each in rows)
    if recipe.data.test_fraction is not None:
        train, test = divided(train, _group, _kind, recipe.data.test_fraction, recipe.seed ^ 1)
    if not valid and train:
        train, valid = divided(train, _group, _kind, recipe.data.valid_fraction, recipe.seed)
    if recipe.data.per_class is not None:
        train = some_of_each(train, _kind, recipe.data.per_class, recipe.seed)
    outputs = task.outputs(train)
    found = leaks([[(each.place, each.key) for each in split] for split in (train, valid, test)])
    pool = None
    if recipe.self_training is not None:
        pool = pool_of(task, recipe.self_training, train, [*valid, *test])
    return Splits(train, valid, test, found, outputs, pool)


def adapt(recipe: AdaptRecipe, out: Path, *, say: Callable[[str], None] = lambda message: None) -> Artifact:
    """Fine-tunes a base model on a task and returns what it wrote: weights, head, tokenizer, figures.

    Raises:
        InputError: something in the recipe or the data does not fit; found before anything is trained.
        RunError: training failed.
    """
    splits = prepare(recipe)
    base = load_base(Path(recipe.base))
    unlabelled = [recipe.self_training.unlabelled] if recipe.self_training is not None else []
    config = to_dict(recipe) | {"data_hashes": _hashes(recipe.data, *unlabelled)}
    parents = {"base": base.artifact} if base.artifact is not None else {}
    if base.artifact is None:
        config |= {"base_hash": hash_file(next(iter(sorted(Path(recipe.base).glob("*.safetensors")))))}
    made = find(out, artifact_key(KIND, FORMAT, config, parents, recipe.seed))
    if made is not None:
        return made
    for leak in splits.leaks[:3]:
        say(f"{leak.other} has the same text as {leak.one}: its score says less than it seems to")
    recipe = dataclasses.replace(recipe, task=recipe.task.settled(splits.train, recipe.seed))
    recipe.task.check(base.model.config, base.tokenizer)
    items = _Items(
        train=_to_learn(recipe, base, splits, splits.train, []),
        valid=_items(recipe, base, splits, splits.valid),
        test=_items(recipe, base, splits, splits.test),
        pool=_items(recipe, base, splits, splits.pool.examples) if splits.pool is not None else [],
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
        best: _Trained | None = None
        trained: list[_Trained] = []
        for i in range(recipe.seeds):
            seed = recipe.seed + i
            one = _self_trained(recipe, base, splits, items, seed, work.path / SCRATCH / f"seed-{seed}", say)
            if best is None or one.score > best.score:
                best = one
            trained.append(one._replace(weights={}, learned={}))
        assert best is not None
        _write(work.path, recipe, base, splits, best)
        facts = _facts(recipe, splits, trained, best.seed)
        write_json(work.path / "result.json", facts)
        write_text(work.path / "table.txt", (best.test or best.valid).table)
        work.metrics.update(facts["figures"])
    return open_artifact(out, KIND, verify=False)


# --- one model --------------------------------------------------------------------------------------------------------


def _self_trained(
    recipe: AdaptRecipe, base: Base, splits: Splits, items: _Items, seed: int, scratch: Path,
    say: Callable[[str], None],
) -> _Trained:  # fmt: skip
    """What is learned from the labelled examples, or the best round of those that follow with labels of its own."""
    settings, task = recipe.self_training, recipe.task
    best = now = _train(recipe, base, splits, items, seed, scratch, say)
    rounds: list[dict[str, Any]] = []
    if settings is not None and splits.pool is not None:
        pool = splits.pool
        tune = dataclasses.replace(recipe.tune, epochs=settings.epochs or recipe.tune.epochs)
        rounds = [{"round": 0, "score": best.score}]
        for number in range(1, settings.rounds + 1):
            folder, teacher = scratch / f"round-{number}", _whole(base, now)
            labels = labels_of(
                folder / "pseudo_labels.json", task, settings, pool,
                functools.partial(task.answers, teacher, items.pool, pool.examples, splits.outputs),
            )  # fmt: skip
            said = said_of(pool, labels)
            if not labels:
                say(
                    f"seed {seed}, round {number}: no row is told with a probability of {settings.threshold:g}"
                )
                break
            right = (
                "" if said["right"] is None else f", {said['right']:.1%} of those with a known label right"
            )
            say(
                f"seed {seed}, round {number}: {len(labels):,} of {len(pool.examples):,} rows are learned from{right}"
            )
            to_learn = _to_learn(recipe, base, splits, splits.train, [each.example for each in labels])
            student = dataclasses.replace(recipe, tune=tune)
            now = _train(student, base, splits, items._replace(train=to_learn), seed, folder, say)
            rounds.append({"round": number, **said, "score": now.score})
            if now.score < best.score:
                break
            best = now
    whole = _whole(base, best)
    test = _judged(task, whole, items.test, splits.test, splits.outputs) if splits.test else None
    return best._replace(test=test, rounds=rounds)


def _train(
    recipe: AdaptRecipe, base: Base, splits: Splits, items: _Items, seed: int, scratch: Path,
    say: Callable[[str], None],
) -> _Trained:  # fmt: skip
    task = recipe.task
    net = _net(recipe, base, splits, seed, dropout=recipe.tune.dropout)
    by = recipe.choose_by or task.chosen_by

    named = by

    def score(now: Net) -> float:
        nonlocal named
        if by == "loss":
            return -mean_loss(task, now, items.valid)
        result = _judged(task, now, items.valid, splits.valid, splits.outputs)
        named = by or next(iter(result.figures))
        return _chosen(result, by)

    def note(facts: Mapping[str, Any]) -> None:
        shown = f"validation loss {-facts['score']:.4f}" if by == "loss" else f"{named} {facts['score']:.4f}"
        say(f"seed {seed}, epoch {facts['epoch']}: loss {facts['loss']:.4f}, {shown}")

    task.begin(net, items.train)
    tuner = Tuner(
        directory=scratch, net=net, task=task, items=task.prepared(net, items.train),
        settings=recipe.tune, seed=seed, score=score if splits.valid else None, note=note,
    )  # fmt: skip
    tuned = tuner.run()
    learned = {name: tensor.detach().clone() for name, tensor in tuner.optimizer.masters.items()}
    weights = recipe.tune.way.plain(base.model.state_dict(), learned)
    trained = _Trained(
        seed, tuned, 0.0, Result({}), None, dataclasses.replace(tuner.net, model=base.model), weights, learned
    )
    final = _whole(base, trained)
    valid = _judged(task, final, items.valid, splits.valid, splits.outputs)
    value = 0.0
    if splits.valid:
        value = -mean_loss(task, final, items.valid) if by == "loss" else _chosen(valid, by)
    return trained._replace(score=value, valid=valid)


def _whole(base: Base, trained: _Trained) -> Net:
    """A trained net with its weights in place, ready to answer."""
    model = make_model(base.model.config)
    model.load_state_dict(dict(trained.weights))
    if trained.net.prompt is not None:
        trained.net.prompt.install(model)
    net = dataclasses.replace(trained.net, model=model)
    net.train(False)
    return net


def _net(recipe: AdaptRecipe, base: Base, splits: Splits, seed: int, *, dropout: float) -> Net:
    model = make_model(base.model.config, dropout=dropout)
    model.load_state_dict(base.model.state_dict())
    head = recipe.task.head(model.config, splits.outputs, dropout=dropout, seed=seed)
    return Net(
        model=model, tokenizer=base.tokenizer, visibility=base.visibility, head=head,
        reads_prompts=recipe.task.reads_prompts,
    )  # fmt: skip


def _judged(
    task: Task[Any], net: Net, items: Sequence[Item], examples: Sequence[Any], outputs: Sequence[str]
) -> Result:
    return task.result(examples, task.answers(net, items, examples, outputs)) if examples else Result({})


def _chosen(result: Result, by: str | None) -> float:
    name = by or next(iter(result.figures))
    if name not in result.figures:
        raise InputError(
            f'choose_by = "{name}" is no figure of this task', did_you_mean(name, [*result.figures, "loss"])
        )
    return result.figures[name].value


def _items(recipe: AdaptRecipe, base: Base, splits: Splits, examples: Sequence[Any]) -> list[Item]:
    encoder = Encoder(base.tokenizer.vocabulary(), base.model.config, _length(recipe, base))
    return recipe.task.items(examples, base.tokenizer, encoder, splits.outputs) if examples else []


def _to_learn(
    recipe: AdaptRecipe, base: Base, splits: Splits, labelled: Sequence[Any], told: Sequence[Any]
) -> list[Item]:
    """The items of examples that people have labelled and of those that a model has, and of noisy copies of both."""
    examples = [*labelled, *told]
    believed = recipe.self_training.weight if recipe.self_training is not None else 1.0
    weights = [1.0] * len(labelled) + [believed] * len(told)
    if recipe.augment is not None:
        examples += augmented(recipe.task, examples, recipe.augment, recipe.seed)
    return [
        item._replace(weight=item.weight * weights[item.example % len(weights)])
        for item in _items(recipe, base, splits, examples)
    ]


def _length(recipe: AdaptRecipe, base: Base) -> int:
    most = base.model.config.maximum_positions if base.model.config.core == "transformer" else 512
    most -= getattr(recipe.tune.way, "tokens", 0)  # what stands before each text
    return recipe.maximum_tokens or min(512, most)


def _write(directory: Path, recipe: AdaptRecipe, base: Base, splits: Splits, best: _Trained) -> None:
    save_model(directory, base.model.config, best.weights)
    for part, name in ((best.net.head, HEAD), (best.net.prompt, PROMPT)):
        if part is not None:
            write_tensors({key: p.detach() for key, p in part.state_dict().items()}, directory / name)
    (directory / TOKENIZER).mkdir(exist_ok=True)
    base.tokenizer.save(directory / TOKENIZER)
    prompt = best.net.prompt
    write_json(
        directory / TASK,
        {
            "task": to_dict(recipe.task), "outputs": splits.outputs, "maximum_tokens": _length(recipe, base),
            "visibility": base.visibility.value,
            "prompt": None if prompt is None else {"tokens": prompt.tokens, "deep": prompt.deep},
        },
    )  # fmt: skip


# --- facts ------------------------------------------------------------------------------------------------------------


def _facts(recipe: AdaptRecipe, splits: Splits, trained: Sequence[_Trained], kept: int) -> dict[str, Any]:
    results = [each.test or each.valid for each in trained]
    best = next(each for each in trained if each.seed == kept)
    return {
        "name": recipe.name,
        "measured_on": "test" if splits.test else "valid",
        "examples": {"train": len(splits.train), "valid": len(splits.valid), "test": len(splits.test)},
        "outputs": splits.outputs,
        "figures": {name: _over_seeds([each.figures[name] for each in results]) for name in results[0].figures},
        "seeds": [
            {
                "seed": each.seed, "best_epoch": each.tuned.best_epoch, "steps": each.tuned.steps,
                "losses": each.tuned.losses, "scores": each.tuned.scores,
                "valid": {k: v.value for k, v in each.valid.figures.items()},
                "test": {k: v.value for k, v in each.test.figures.items()} if each.test else None,
                "elapsed_seconds": each.tuned.elapsed_seconds,
                **({"rounds": each.rounds} if each.rounds else {}),
            }
            for each in trained
        ],
        "kept": kept,
        "weights": best.tuned.weights,
        "confusion": (best.test or best.valid).confusion,
        **({} if splits.pool is None else {"unlabelled": {
            "used": len(splits.pool.examples), "left_out": splits.pool.left_out}}),
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


def _hashes(data: DataSettings, *more: str) -> dict[str, Any]:
    found = {}
    for name in (data.train, data.valid, data.test, *more):
        if name is not None and Path(name).is_file():
            found[name] = hash_file(Path(name))
    return found


def _group(example: Example) -> str:
    return plain(example.group)


def _kind(example: Example) -> str:
    return example.kind
