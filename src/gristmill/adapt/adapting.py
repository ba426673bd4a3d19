"""From a base model and labelled examples to a task model with honest figures.

    rows -> examples -> training, validation and test examples -> items -> a model for each seed -> the best of them

The best epoch, and of several seeds the one that is kept, are chosen by the validation examples; the test examples are looked
at once, when everything is decided.
"""

import dataclasses
import functools
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import scipy.stats
from annotated_types import Ge, Gt
from torch import Tensor

from gristmill import rng
from gristmill.adapt.augmenting import Augmentation, augmented
from gristmill.adapt.base import PROMPT, TASK, Base, load_base
from gristmill.adapt.curves import CurveSettings, learning_curve, subsets
from gristmill.adapt.data import (
    DataSettings,
    Leak,
    divided,
    groups_of,
    leaks,
    plain,
    read_split,
    some_of_each,
    without,
)
from gristmill.adapt.encoding import Encoder
from gristmill.adapt.heads import Head
from gristmill.adapt.net import Net, narrow
from gristmill.adapt.searching import SearchSettings, applied, dimensions, search
from gristmill.adapt.self_training import Pool, SelfTraining, labels_of, pool_of, said_of
from gristmill.adapt.task import Example, Item, Mistake, Result, Task
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
from gristmill.config import Part, from_dict, to_dict
from gristmill.errors import InputError, did_you_mean
from gristmill.generate.load import ADAPTED, HEAD, TOKENIZER
from gristmill.model.build import make_model
from gristmill.model.checkpoint import save_model, write_tensors
from gristmill.train.trainer import pick_device

__all__ = ["AdaptRecipe", "Splits", "adapt", "prepare"]

KIND, FORMAT = ADAPTED, 1
SEARCH, CURVE, MISTAKES = "search.json", "curve.json", "mistakes.jsonl"
UPDATES = "updates.safetensors"
"""What the way to adapt keeps beside the weights that it became part of: LoRA its A and B."""
SHOWN_LEAKS, SHOWN_MISTAKES, SHOWN_CLASSES = 20, 50, 5
MISTAKE_CHARACTERS = 2000
SEARCHED = ("tune", "task", "maximum_tokens")
"""What does not change the examples, or is looked at whether it does."""


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
    search: SearchSettings | None = None
    """Settings to search first, by validation examples; the best are then used for all seeds."""
    curve: CurveSettings | None = None
    """Parts of the training examples to train on besides, to see what labels are worth."""

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
    dropped: int = 0
    """Examples that were taken out since they stand in a later split, too."""
    notes: tuple[str, ...] = ()
    """What is odd about them, in words."""
    pool: Pool | None = None
    """What has no labels, for self-training."""


class _Items(NamedTuple):
    """The examples as the model reads them; made before anything is trained, for a label may be unknown."""

    train: list[Item]
    valid: list[Item]
    test: list[Item]
    pool: Sequence[Item] = ()
    """Of self-training."""


class _Trained(NamedTuple):
    """One seed's model, and how good it is."""

    seed: int
    task: Task[Any]
    """With what was learned for it from the validation examples, such as a threshold."""
    tuned: Tuned
    score: float
    valid: Result
    test: Result | None
    net: Net
    """As it was trained; the weights of its model are in `weights`."""
    weights: Mapping[str, Tensor]
    learned: Mapping[str, Tensor]
    mistakes: Sequence[Mistake] = ()
    """On the test examples, or those for validation where there are no others."""
    rounds: Sequence[Mapping[str, Any]] = ()
    """Of self-training."""


def prepare(recipe: AdaptRecipe) -> Splits:
    """Returns the examples of a recipe, divided and checked: all that can be told before a model is loaded.

    Raises:
        InputError: a file, a row or a label is not as it should be; the message names it.
    """
    data, task = recipe.data, recipe.task
    rows = read_split(data)
    train, valid, test = (task.read(each, labelled=True) for each in rows)
    group = _group
    if data.group is not None:
        of_place = groups_of([row for split in rows for row in split], data.group)
        group = lambda example: of_place(example.place)  # noqa: E731
    if data.test_fraction is not None:
        train, test = divided(train, group, _kind, data.test_fraction, recipe.seed ^ 1)
    if not valid and train:
        train, valid = divided(train, group, _kind, data.valid_fraction, recipe.seed)
    kept, found = _without_leaks(data, [train, valid, test], group)
    dropped = len(train) + len(valid) - len(kept[0]) - len(kept[1])
    train, valid = kept[:2]
    if data.per_class is not None:
        train = some_of_each(train, _kind, data.per_class, recipe.seed)
    outputs = task.outputs(train)
    pool = None
    if recipe.self_training is not None:
        pool = pool_of(task, recipe.self_training, train, [*valid, *test])
    return Splits(train, valid, test, found, outputs, dropped, _notes(train, outputs), pool)


def _without_leaks(
    data: DataSettings, splits: Sequence[list[Any]], group: Callable[[Any], str]
) -> tuple[list[list[Any]], list[Leak]]:
    """The splits as the recipe wants them, and what stands in two of them."""
    keys: list[Callable[[Any], str]] = [lambda example: example.key]
    if data.group is not None:
        keys.append(group)
    found = [
        leak
        for key in keys
        for leak in leaks([[(each.place, key(each)) for each in split] for split in splits])
    ]
    if found and data.leaks == "refuse":
        raise InputError(
            f"{len(found):,} texts or groups stand in two splits: {found[0].one} and {found[0].other}, for instance",
            'set data.leaks = "drop" to take them out of the training examples, or take them out of the files',
        )
    kept = list(splits)
    if data.leaks == "drop":
        for key in keys:
            kept[1] = without(kept[1], key, kept[2])
            kept[0] = without(kept[0], key, [*kept[1], *kept[2]])
        for name, before, after in zip(("train", "valid"), splits, kept, strict=False):
            if before and not after:
                raise InputError(
                    f"all of data.{name} stands in another split, too",
                    "look whether the same file is named twice",
                )
    return kept, found


def _notes(train: Sequence[Any], outputs: Sequence[str]) -> tuple[str, ...]:
    """What can be told of training examples that people should know."""
    counts = Counter(name for example in train for name in example.kind.split("\n") if name in outputs)
    single = [name for name, count in sorted(counts.items()) if count == 1]
    if not single:
        return ()
    more = f" and {len(single) - SHOWN_CLASSES:,} more" if len(single) > SHOWN_CLASSES else ""
    names = ", ".join(f'"{name}"' for name in single[:SHOWN_CLASSES])
    return (f"there is only one training example of {names}{more}",)


def adapt(recipe: AdaptRecipe, out: Path, *, say: Callable[[str], None] = lambda message: None) -> Artifact:
    """Fine-tunes a base model on a task and returns what it wrote: weights, head, tokenizer, figures.

    Raises:
        InputError: something in the recipe or the data does not fit; found before anything is trained.
        RunError: training failed.
    """
    if recipe.search is not None:
        _check_search(recipe)
    splits = prepare(recipe)
    base = load_base(Path(recipe.base))
    config = _config(recipe)
    parents = {"base": base.artifact} if base.artifact is not None else {}
    if base.artifact is None:
        config |= {"base_hash": hash_file(next(iter(sorted(Path(recipe.base).glob("*.safetensors")))))}
    made = find(out, artifact_key(KIND, FORMAT, config, parents, recipe.seed))
    if made is not None:
        return made
    _say_what_is_odd(recipe, base, splits, say)
    recipe = dataclasses.replace(recipe, task=recipe.task.settled(splits.train, recipe.seed))
    recipe.task.check(base.model.config, base.tokenizer)
    items = _all_items(recipe, base, splits)
    if recipe.curve is not None:
        subsets(recipe.curve, [example.kind for example in splits.train], recipe.seed)
    with draft(
        out,
        kind=KIND,
        format_version=FORMAT,
        config=config,
        parents=parents,
        seed=recipe.seed,
        keep_partial=True,
    ) as work:
        scratch, searched = work.path / SCRATCH, None
        if recipe.search is not None:
            searched = search(
                recipe.search,
                _Experiment(recipe, splits._replace(test=[], leaks=[], pool=None), base),
                name=_study_name(recipe, config, base),
                seed=recipe.seed,
                directory=scratch / "search",
                say=say,
            )
            recipe = _with_values(recipe, searched["best"]["values"])
            items = _all_items(recipe, base, splits)
        best: _Trained | None = None
        trained: list[_Trained] = []
        for i in range(recipe.seeds):
            seed = recipe.seed + i
            one = _best_round(recipe, base, splits, items, seed, scratch / f"seed-{seed}", say)
            if best is None or one.score > best.score:
                best = one
            trained.append(one._replace(weights={}, learned={}))
        assert best is not None
        _write(work.path, recipe, base, splits, best)
        if recipe.curve is not None:
            write_json(work.path / CURVE, _curve(recipe, base, splits, trained, scratch / "curve", say))
        facts = _facts(recipe, splits, trained, best.seed) | {"lengths": _lengths(recipe, base, items)}
        if searched is not None:
            write_json(work.path / SEARCH, {"figure": facts["chosen_by"], "measured_on": "valid", **searched})
        write_json(work.path / "result.json", facts)
        write_text(work.path / "table.txt", (best.test or best.valid).table)
        write_text(work.path / MISTAKES, "".join(_lines(best.mistakes)))
        work.metrics.update(facts["figures"])
    return open_artifact(out, KIND, verify=False)


def _say_what_is_odd(recipe: AdaptRecipe, base: Base, splits: Splits, say: Callable[[str], None]) -> None:
    for note in (*splits.notes, *([base.note] if base.note else [])):
        say(note)
    for leak in splits.leaks[:3] if recipe.data.leaks == "report" else []:
        say(f"{leak.other} has the same text as {leak.one}: its score says less than it seems to")
    if splits.dropped:
        say(f"{splits.dropped:,} examples are left out, since they stand in a later set, too")


def _config(recipe: AdaptRecipe) -> dict[str, Any]:
    """What decides the result.

    Of a search neither where trials are kept, which may name a password, nor how many processes make them: those may change
    before it goes on.
    """
    more = [recipe.self_training.unlabelled] if recipe.self_training is not None else []
    config: dict[str, Any] = to_dict(recipe) | {"data_hashes": _hashes(recipe.data, *more)}
    if recipe.search is not None:
        config["search"] = {k: v for k, v in config["search"].items() if k not in ("storage", "workers")}
    return config


# --- search and curve -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Experiment:
    """Trains models that are not kept. It has no test examples, and can be sent to another process."""

    recipe: AdaptRecipe
    splits: Splits
    base: Base | None = None
    _items: tuple[Any, _Items] | None = None
    """What they were made with, and the items."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"base": None, "_items": None}

    def __call__(
        self, values: Mapping[str, Any], directory: Path, report: Callable[[int, float], None]
    ) -> float:
        """Returns the best score on the validation examples with other settings."""
        recipe = _with_values(self.recipe, values)
        # of another seed than the models that are kept: settings that a seed's luck has chosen would flatter its model
        seed = rng.derive(recipe.seed, "search")

        def note(facts: Mapping[str, Any]) -> None:
            report(facts["epoch"] - 1, facts["score"])

        tuner = self._tuner(recipe, self.splits, seed, directory, note)
        return max(tuner.run().scores)

    def figures(self, chosen: Sequence[int], seed: int, directory: Path) -> Mapping[str, float]:
        """Returns the figures on the validation examples of a model that learns from some of the training examples."""
        assert self.recipe.curve is not None
        recipe, whole = self.recipe, len(self.splits.train)
        if self.recipe.curve.equal == "steps":
            epochs = max(1, round(recipe.tune.epochs * whole / len(chosen)))
            recipe = dataclasses.replace(recipe, tune=dataclasses.replace(recipe.tune, epochs=epochs))
        splits = self.splits._replace(train=[self.splits.train[i] for i in chosen])
        tuner = self._tuner(recipe, splits, seed, directory, lambda facts: None)
        tuner.run()
        items = self._read(recipe, splits)
        result, _ = _judged(recipe.task, tuner.net, items.valid, splits.valid, splits.outputs)
        return {name: figure.value for name, figure in result.figures.items()}

    def _tuner(
        self, recipe: AdaptRecipe, splits: Splits, seed: int, directory: Path,
        note: Callable[[Mapping[str, Any]], None],
    ) -> Tuner:  # fmt: skip
        items = self._read(recipe, splits)
        assert self.base is not None
        return _tuner(recipe, self.base, splits, items, seed, directory, note)

    def _read(self, recipe: AdaptRecipe, splits: Splits) -> _Items:
        self.base = self.base or load_base(Path(recipe.base))
        key = (recipe.task, _length(recipe, self.base), [example.place for example in splits.train])
        if self._items is None or self._items[0] != key:
            self._items = key, _all_items(recipe, self.base, splits)
        return self._items[1]


def _check_search(recipe: AdaptRecipe) -> None:
    """Looks at the ends of what is searched before anything is trained."""
    assert recipe.search is not None
    plain_recipe = dataclasses.replace(recipe, search=None, curve=None)
    for name, dimension in dimensions(recipe.search.space).items():
        for value in dimension.ends:
            try:
                other = _with_values(plain_recipe, {name: value})
            except InputError as error:
                raise InputError(f"search.space: {error.message}", error.hint) from None
            if name.partition(".")[0] not in SEARCHED:
                raise InputError(
                    f"search.space: {name} can't be searched: all trials are judged on the same examples",
                    "what can be searched are maximum_tokens and the settings of tune and task",
                )
            if name.startswith("task") and not _same_examples(recipe, other):
                raise InputError(
                    f"search.space: with {name} = {value!r} there are other examples, and scores can't be compared",
                    "leave it out of the search",
                )


def _same_examples(recipe: AdaptRecipe, other: AdaptRecipe) -> bool:
    one, two = prepare(recipe), prepare(other)
    return (one.train, one.valid, one.outputs) == (two.train, two.valid, two.outputs)


def _with_values(recipe: AdaptRecipe, values: Mapping[str, Any]) -> AdaptRecipe:
    return from_dict(AdaptRecipe, applied(to_dict(recipe), values))


def _study_name(recipe: AdaptRecipe, config: Mapping[str, Any], base: Base) -> str:
    """Names a search by what its scores depend on, wherever that lies: so machines find it, and more trials are added to it."""
    rest = {
        key: value for key, value in config.items() if key not in ("name", "base", "data", "seeds", "curve")
    }
    hashes = rest.pop("data_hashes")
    files = [getattr(recipe.data, split) for split in ("train", "valid", "test")]
    rest["files"] = [hashes.get(file, file) for file in files]
    rest["data"] = {key: value for key, value in config["data"].items() if value not in files}
    rest["base"] = None if base.artifact is None else base.artifact.manifest.content_hash
    rest["search"] = config["search"]["space"]
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False)
    return f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _curve(
    recipe: AdaptRecipe, base: Base, splits: Splits, trained: Sequence[_Trained], directory: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """The facts of the learning curve; the models that were trained on all examples are its end."""
    assert recipe.curve is not None
    directory.mkdir(parents=True, exist_ok=True)
    run = _Experiment(recipe, splits._replace(test=[], leaks=[], pool=None), base)
    known = {each.seed: {k: v.value for k, v in each.valid.figures.items()} for each in trained}
    by = recipe.choose_by or recipe.task.chosen_by
    figure = next(iter(trained[0].valid.figures)) if by in (None, "loss") else by
    facts = learning_curve(
        recipe.curve, [example.kind for example in splits.train], run.figures,
        figure=figure, seed=recipe.seed, directory=directory, known=known, say=say,
    )  # fmt: skip
    return {"measured_on": "valid", "valid_examples": len(splits.valid), **facts}


# --- one model --------------------------------------------------------------------------------------------------------


def _best_round(
    recipe: AdaptRecipe, base: Base, splits: Splits, items: _Items, seed: int, scratch: Path,
    say: Callable[[str], None],
) -> _Trained:  # fmt: skip
    """What is learned from labelled examples, or, with self-training, the best of that and of its students."""
    best = _train(recipe, base, splits, items, seed, scratch, say)
    if recipe.self_training is not None:
        best = _self_trained(recipe, base, splits, items, best, scratch, say)
    net = _whole(recipe, base, best)
    asked = splits.test or splits.valid
    of_asked = items.test if splits.test else items.valid
    result, answers = _judged(best.task, net, of_asked, asked, splits.outputs)
    return best._replace(test=result if splits.test else None, mistakes=best.task.mistakes(asked, answers))


def _self_trained(
    recipe: AdaptRecipe, base: Base, splits: Splits, items: _Items, first: _Trained, scratch: Path,
    say: Callable[[str], None],
) -> _Trained:  # fmt: skip
    """The best of a teacher and its students, who are trained until one is worse than the one before."""
    settings, pool, task = recipe.self_training, splits.pool, recipe.task
    assert settings is not None
    assert pool is not None
    tune = dataclasses.replace(recipe.tune, epochs=settings.epochs or recipe.tune.epochs)
    best = now = first
    rounds: list[dict[str, Any]] = [{"round": 0, "score": first.score}]
    for number in range(1, settings.rounds + 1):
        folder, who = scratch / f"round-{number}", f"seed {first.seed}, round {number}"
        teacher = _whole(recipe, base, now)
        ask = functools.partial(task.answers, teacher, items.pool, pool.examples, splits.outputs)
        labels = labels_of(folder / "pseudo_labels.json", task, settings, pool, ask)
        if not labels:
            say(f"{who}: no row is told with a probability of {settings.threshold:g}")
            break
        said = said_of(pool, labels)
        right = "" if said["right"] is None else f", {said['right']:.1%} of those with a known label right"
        say(f"{who}: {len(labels):,} of {len(pool.examples):,} rows are learned from{right}")
        to_learn = _to_learn(recipe, base, splits, [each.example for each in labels])
        student = dataclasses.replace(recipe, tune=tune)
        now = _train(student, base, splits, items._replace(train=to_learn), first.seed, folder, say)
        rounds.append({"round": number, **said, "score": now.score})
        if now.score < best.score:
            break
        best = now
    return best._replace(rounds=rounds)


def _train(
    recipe: AdaptRecipe, base: Base, splits: Splits, items: "_Items", seed: int, scratch: Path,
    say: Callable[[str], None],
) -> _Trained:  # fmt: skip
    task, by = recipe.task, recipe.choose_by or recipe.task.chosen_by

    def note(facts: Mapping[str, Any]) -> None:
        shown = (
            f"validation loss {-facts['score']:.4f}"
            if by == "loss"
            else f"{by or 'score'} {facts['score']:.4f}"
        )
        say(f"seed {seed}, epoch {facts['epoch']}: loss {facts['loss']:.4f}, {shown}")

    tuner = _tuner(recipe, base, splits, items, seed, scratch, note)
    tuned = tuner.run()
    learned = {name: tensor.detach().clone() for name, tensor in tuner.optimizer.masters.items()}
    weights = recipe.tune.way.plain(base.model.state_dict(), {n: t.cpu() for n, t in learned.items()})
    net = dataclasses.replace(tuner.net, model=base.model)
    trained = _Trained(seed, task, tuned, 0.0, Result({}), None, net, weights, learned)
    final = _whole(recipe, base, trained)
    valid, answers = _judged(task, final, items.valid, splits.valid, splits.outputs)
    if (calibrated := task.calibrated(splits.valid, answers)) is not task:
        task = calibrated
        valid, _ = _judged(task, final, items.valid, splits.valid, splits.outputs)
    value = 0.0
    if splits.valid:
        value = -mean_loss(task, final, items.valid) if by == "loss" else _chosen(valid, by)
    return trained._replace(task=task, score=value, valid=valid)


def _whole(recipe: AdaptRecipe, base: Base, trained: _Trained) -> Net:
    """A trained net with its weights in place, as it will be used."""
    model = make_model(base.model.config)
    model.load_state_dict(dict(trained.weights))
    if trained.net.prompt is not None:
        trained.net.prompt.install(model)
    model.to(pick_device(recipe.tune.device))
    narrow(model, recipe.tune.precision)
    net = dataclasses.replace(trained.net, model=model)
    net.train(False)
    return net


def _tuner(
    recipe: AdaptRecipe, base: Base, splits: Splits, items: "_Items", seed: int, directory: Path,
    note: Callable[[Mapping[str, Any]], None],
) -> Tuner:  # fmt: skip
    """What trains one model; it looks at no test examples."""
    task, by = recipe.task, recipe.choose_by or recipe.task.chosen_by
    net = _net(recipe, base, splits, seed, dropout=recipe.tune.dropout)
    task.begin(net, items.train)

    def score(now: Net) -> float:
        if by == "loss":
            return -mean_loss(task, now, items.valid)
        return _chosen(_judged(task, now, items.valid, splits.valid, splits.outputs)[0], by)

    return Tuner(
        directory=directory, net=net, task=task, items=items.train,
        settings=recipe.tune, seed=seed, score=score if splits.valid else None, note=note,
    )  # fmt: skip


def _net(recipe: AdaptRecipe, base: Base, splits: Splits, seed: int, *, dropout: float) -> Net:
    model = make_model(base.model.config, dropout=dropout)
    model.load_state_dict(base.model.state_dict())
    head = recipe.task.head(model.config, splits.outputs, dropout=dropout, seed=seed)
    if isinstance(head, Head):
        head.begin_with(base.layer)
    device = pick_device(recipe.tune.device)
    model.to(device)
    if head is not None:
        head.to(device)
    return Net(
        model=model, tokenizer=base.tokenizer, visibility=base.visibility, head=head,
        reads_prompts=recipe.task.reads_prompts,
    )  # fmt: skip


def _judged(
    task: Task[Any], net: Net, items: Sequence[Item], examples: Sequence[Any], outputs: Sequence[str]
) -> tuple[Result, Sequence[Mapping[str, Any]]]:
    if not examples:
        return Result({}), []
    answers = task.answers(net, items, examples, outputs)
    return task.result(examples, answers), answers


def _chosen(result: Result, by: str | None) -> float:
    name = by or next(iter(result.figures))
    if name not in result.figures:
        raise InputError(
            f'choose_by = "{name}" is no figure of this task', did_you_mean(name, [*result.figures, "loss"])
        )
    return result.figures[name].value


def _all_items(recipe: AdaptRecipe, base: Base, splits: Splits) -> _Items:
    items = _Items(
        train=_to_learn(recipe, base, splits, []),
        valid=_items(recipe, base, splits, splits.valid),
        test=_items(recipe, base, splits, splits.test),
        pool=_items(recipe, base, splits, splits.pool.examples) if splits.pool is not None else (),
    )
    if not recipe.task.asks_base:
        return items
    net = _net(recipe, base, splits, recipe.seed, dropout=0.0)
    narrow(net.model, recipe.tune.precision)
    return _Items(*(recipe.task.prepared(net, each) for each in items))


def _to_learn(recipe: AdaptRecipe, base: Base, splits: Splits, told: Sequence[Any]) -> list[Item]:
    """The items of the training examples, of those that a model has labelled, and of noisy copies of both."""
    examples = [*splits.train, *told]
    believed = recipe.self_training.weight if recipe.self_training is not None else 1.0
    weights = [1.0] * len(splits.train) + [believed] * len(told)
    if recipe.augment is not None:
        examples += augmented(recipe.task, examples, recipe.augment, recipe.seed)
    return [
        item._replace(weight=item.weight * weights[item.example % len(weights)])
        for item in _items(recipe, base, splits, examples)
    ]


def _items(recipe: AdaptRecipe, base: Base, splits: Splits, examples: Sequence[Any]) -> list[Item]:
    encoder = Encoder(base.tokenizer.vocabulary(), base.model.config, _length(recipe, base))
    return recipe.task.items(examples, base.tokenizer, encoder, splits.outputs) if examples else []


def _length(recipe: AdaptRecipe, base: Base) -> int:
    most = base.model.config.maximum_positions if base.model.config.core == "transformer" else 512
    most -= getattr(recipe.tune.way, "tokens", 0)  # what stands before each text
    return recipe.maximum_tokens or min(512, most)


def _write(directory: Path, recipe: AdaptRecipe, base: Base, splits: Splits, best: _Trained) -> None:
    save_model(directory, base.model.config, best.weights)
    for part, name in ((best.net.head, HEAD), (best.net.prompt, PROMPT)):
        if part is not None:
            write_tensors({key: p.detach().cpu() for key, p in part.state_dict().items()}, directory / name)
    kept = recipe.tune.way.kept(best.learned)
    if kept:
        write_tensors({key: tensor.contiguous() for key, tensor in kept.items()}, directory / UPDATES)
    (directory / TOKENIZER).mkdir(exist_ok=True)
    recipe.task.finished(base.tokenizer).save(directory / TOKENIZER)
    prompt = best.net.prompt
    write_json(
        directory / TASK,
        {
            "task": to_dict(best.task), "outputs": splits.outputs, "maximum_tokens": _length(recipe, base),
            "visibility": base.visibility.value, "precision": recipe.tune.precision,
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
        "chosen_by": recipe.choose_by or recipe.task.chosen_by or next(iter(results[0].figures)),
        "settings": to_dict(dataclasses.replace(recipe, search=None, curve=None)),
        "weights": best.tuned.weights,
        "confusion": (best.test or best.valid).confusion,
        "mistakes": len(best.mistakes),
        "notes": splits.notes,
        "unlabelled": None if splits.pool is None else {
            "used": len(splits.pool.examples), "left_out": splits.pool.left_out,
        },
        "leaks": {
            "count": len(splits.leaks),
            "dropped": splits.dropped,
            "first": [leak._asdict() for leak in splits.leaks[:SHOWN_LEAKS]],
        },
    }  # fmt: skip


def _lengths(recipe: AdaptRecipe, base: Base, items: _Items) -> dict[str, Any]:
    """How long examples are, in tokens, and how many had to be cut."""
    found: dict[str, Any] = {"maximum_tokens": _length(recipe, base)}
    for name, each in items._asdict().items():
        lengths = sorted(len(item.encoded.tokens) + item.encoded.cut for item in each)
        if lengths:
            found[name] = {
                "median": lengths[len(lengths) // 2],
                "longest_tenth": lengths[len(lengths) * 9 // 10],
                "longest": lengths[-1],
                "cut": len({item.example for item in each if item.encoded.cut}),
            }
    return found


def _lines(mistakes: Sequence[Mistake]) -> list[str]:
    shown = (each._replace(text=each.text[:MISTAKE_CHARACTERS]) for each in mistakes[:SHOWN_MISTAKES])
    return [f"{json.dumps(each._asdict(), ensure_ascii=False)}\n" for each in shown]


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
