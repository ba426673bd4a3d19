"""Self-training: a classifier labels what nobody has labelled, and learns from what it is sure of.

    trained = self_train(fit, labelled, unlabelled, SelfTrainingSettings(threshold=0.95), validation=held_out)
    trained.predictor.probabilities(["a good text"]), trained.pseudo_labels, trained.stopped
    write(trained, Path("runs/mine/pseudo_labels"))

Each round labels all unlabelled examples anew, takes the surest of each class, and fits from the beginning on the labelled
ones and these (Yarowsky 1995; Lee 2013, pseudo-labels). What made it go wrong for others is bounded:

- a label has to be sure: the threshold is one of probabilities, so these have to be true, and a fit that has learned from
  its own labels finds them surer than they are. Where there are validation examples, or folds of the labelled ones, one
  number brings probabilities in line with what is right there (temperature scaling, Guo et al. 2017, arXiv:1706.04599).
- one class swallows the others: each has a quota (class-balanced self-training, Zou et al. 2018, arXiv:1810.07911).
- an error is learned and then confirmed: early rounds take few examples, labels are never kept for their own sake, and
  several fits or dropout passes may have to agree.
- it goes on for too long: it ends where nothing changes or validation gets worse, and the best round is what stays.

What it buys is little and has to be tried (benchmarks/self_training.py): with 100 labels of 9,900 Chinese reviews, a
classifier over words gains 0.009 ± 0.012 of accuracy with five folds, and loses 0.011 ± 0.014 without: of pseudo-labels
that it found 0.9 sure, 0.92 were right with folds and 0.81 without.

What a person has labelled is never overruled: such a text is not among the unlabelled, however often it stands there.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol, final, runtime_checkable

import numpy as np
from annotated_types import Ge, Gt, Interval, Le
from jaxtyping import Float, Int

from gristmill import rng
from gristmill.artifact import write_json, write_text
from gristmill.errors import InputError

__all__ = [
    "Example",
    "Fit",
    "Predictor",
    "PseudoLabel",
    "Round",
    "SelfTrained",
    "SelfTrainingSettings",
    "Voting",
    "hold_out",
    "self_train",
    "temperature_for",
    "write",
]

LABELS, ROUNDS = "pseudo_labels.jsonl", "rounds.json"
LEAST_FOR_TEMPERATURE = 20
"""Of fewer validation examples a temperature would say more about them than about the predictor."""
_LEAST_PROBABILITY = 1e-6
_HOTTEST = 20.0


class Example(NamedTuple):
    """A text and the class that it is of."""

    text: str
    label: str


@runtime_checkable
class Predictor(Protocol):
    """Tells how likely a text is of each class."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the columns below."""

    def probabilities(self, texts: Sequence[str], passes: int = 1) -> Float[np.ndarray, "passes N classes"]:
        """Returns the probability of each class for each text, as true as they can be had.

        Several passes differ where something in the predictor is random, as dropout is; one pass has nothing random.
        """


@runtime_checkable
class Fit(Protocol):
    """Learns a predictor from examples: all that self-training needs to know of a task."""

    def __call__(self, examples: Sequence[Example], seed: int) -> Predictor:
        """Returns a predictor, a function of the arguments alone; other seeds give others that are as good."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTrainingSettings:
    """How much is taken on trust."""

    shares: tuple[Annotated[float, Gt(0), Le(1)], ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """The most of the unlabelled examples that each round takes; there are as many rounds."""
    threshold: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """The least probability of a pseudo-label."""
    balance: Literal["labelled", "equal", "none"] = "labelled"
    """How a round's share is divided among the classes: as frequent as they are among the labelled examples, equally,
    or not at all. A class that has too few sure examples leaves its part unused."""
    members: Annotated[int, Ge(1)] = 1
    """Fits with different seeds, which vote."""
    passes: Annotated[int, Ge(1)] = 1
    """Passes of each member, which vote likewise; with dropout they differ."""
    agreement: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """The least share of the votes that a pseudo-label has."""
    folds: Annotated[int, Ge(0)] = 0
    """Without validation examples: so many parts of the labelled ones are predicted by fits that have not seen them, with
    the pseudo-labels that all have. It takes so many fits more; 0 does without."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if not self.shares or any(not 0 < share <= 1 for share in self.shares):
            raise InputError(
                f"shares is {list(self.shares)}, expected some above 0 and at most 1",
                "shares = [0.2, 0.5, 1.0] makes three rounds",
            )
        for name, value in (("threshold", self.threshold), ("agreement", self.agreement)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected 0 to 1")
        if self.members < 1 or self.passes < 1:
            raise InputError("members and passes are at least 1")
        if self.folds < 0 or self.folds == 1:
            raise InputError(f"folds is {self.folds}, expected 2 or more, or 0 for none")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabel:
    """A label that nobody has given, and where it comes from."""

    index: int
    """Of the example among the unlabelled ones, as they were given."""
    text: str
    label: str
    confidence: float
    """The mean of the votes' probabilities when it was last given."""
    agreement: float
    """The share of the votes that were for it."""
    round: int
    """Since which round it has had this label without a break."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round came to; round 0 has learned from the labelled examples alone."""

    number: int
    taken: dict[str, int]
    """Pseudo-labels of each class that it learned from."""
    changed: int
    """How many of these are new, or other ones than in the round before."""
    temperature: float
    """What logarithms of probabilities are divided by; above 1 the fit was surer than it was right."""
    accuracy: float | None
    """On the validation examples, or on the labelled ones by folds; None where there are neither."""
    loss_nats: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class SelfTrained:
    """What self-training came to: the best round's predictor and the pseudo-labels that it learned from."""

    predictor: "Voting"
    pseudo_labels: tuple[PseudoLabel, ...]
    rounds: tuple[Round, ...]
    best: int
    """The number of the best round; 0 where no pseudo-label was of use."""
    stopped: str
    """Why there were no more rounds."""


def self_train(
    fit: Fit,
    labelled: Sequence[Example],
    unlabelled: Sequence[str],
    settings: SelfTrainingSettings,
    *,
    validation: Sequence[Example] = (),
    seed: int = 0,
    progress: Callable[[Round], None] | None = None,
) -> SelfTrained:
    """Returns what a fit learns from labelled and unlabelled examples: a function of its arguments.

    Without validation examples or folds nothing tells whether it gets worse, and all rounds are made.

    Raises:
        InputError: the labelled examples have one class only, or the fit refuses them.
    """
    classes = tuple(sorted({example.label for example in labelled}))
    if len(classes) < 2:
        raise InputError(
            f"the labelled examples have {len(classes)} class, so there is nothing to tell apart",
            "label some of another class",
        )
    strange = {example.label for example in validation} - set(classes)
    if strange:
        raise InputError(f'validation examples have the class "{min(strange)}", and no labelled example has')
    pool = _pool(unlabelled, [*labelled, *validation])
    texts = [unlabelled[index] for index in pool]
    proportions = _proportions(labelled, classes, settings.balance)
    task = _Task(fit, list(labelled), classes, settings, list(validation), seed)
    latest, first = task.round(0, {}, 0)
    chosen: dict[int, PseudoLabel] = {}
    rounds = [first]
    best, stopped = SelfTrained(latest, (), (), 0, ""), "all rounds were made"
    if progress is not None:
        progress(rounds[0])
    for number, share in enumerate(settings.shares, start=1):
        limit = math.ceil(share * len(texts) - 1e-9)
        before, chosen = chosen, _choose(latest, texts, pool, limit, proportions, settings, number)
        for index, label in before.items():
            if index in chosen and chosen[index].label == label.label:
                chosen[index] = dataclasses.replace(chosen[index], round=label.round)
        changed = _changed(before, chosen)
        if not chosen:
            stopped = f"no pseudo-label reached {settings.threshold:g}, or the votes did not agree"
            break
        if not changed:
            stopped = "nothing changed"
            break
        try:
            latest, made = task.round(number, chosen, changed)
        except InputError as error:
            stopped = f"round {number} could not be learned: {error.message}"
            break
        rounds.append(made)
        if progress is not None:
            progress(rounds[-1])
        if _is_worse(rounds[-1], rounds[best.best]):
            stopped = "validation got worse"
            break
        best = SelfTrained(latest, tuple(chosen.values()), (), number, "")
    return dataclasses.replace(best, rounds=tuple(rounds), stopped=stopped)


def write(trained: SelfTrained, directory: Path) -> None:
    """Writes the pseudo-labels, a line of JSON each with its origin, and what the rounds came to.

    The lines have `text` and `label`, as files of labelled texts have.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lines = (
        {
            "text": label.text,
            "label": label.label,
            "origin": {
                "kind": "pseudo-label", "index": label.index, "round": label.round,
                "confidence": round(label.confidence, 4), "agreement": round(label.agreement, 4),
            },
        }
        for label in trained.pseudo_labels
    )  # fmt: skip
    write_text(directory / LABELS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    rounds = [dataclasses.asdict(made) for made in trained.rounds]
    write_json(directory / ROUNDS, {"best": trained.best, "stopped": trained.stopped, "rounds": rounds})


def hold_out(
    examples: Sequence[Example], share: float, *, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Returns the examples in two parts, the second with this share of each class: to learn from, and for validation.

    Which ones those are depends on the texts and the seed, not on their order.
    """
    chosen: set[int] = set()
    for label in sorted({example.label for example in examples}):
        members = [i for i, example in enumerate(examples) if example.label == label]
        members.sort(key=lambda i: rng.derive(seed, "hold out", examples[i].text))
        chosen.update(members[: round(share * len(members))])
    return [e for i, e in enumerate(examples) if i not in chosen], [examples[i] for i in sorted(chosen)]


def temperature_for(
    probabilities: Float[np.ndarray, "passes N classes"], truth: Int[np.ndarray, " N"]
) -> float:
    """Returns what logarithms of probabilities are to be divided by so that the truth is as likely as it can be.

    The loss has one minimum in 1/T (it is convex), which is found between 1/20 and 20 by ternary search.
    """
    logs = np.log(np.maximum(probabilities, _LEAST_PROBABILITY))

    def loss(log_temperature: float) -> float:
        return _loss(_tempered(logs, math.exp(log_temperature)).mean(axis=0), truth)

    low, high = -math.log(_HOTTEST), math.log(_HOTTEST)
    for _ in range(60):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        if loss(first) <= loss(second):
            high = second
        else:
            low = first
    return math.exp((low + high) / 2)


@final
class Voting:
    """Several predictors as one; each pass of each is a vote."""

    def __init__(
        self, members: Sequence[Predictor], classes: tuple[str, ...], temperature: float = 1.0
    ) -> None:
        """Takes predictors that may know fewer classes than there are, each in its own order."""
        self.members, self.temperature = tuple(members), temperature
        self._classes = classes

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the columns."""
        return self._classes

    def probabilities(self, texts: Sequence[str], passes: int = 1) -> Float[np.ndarray, "passes N classes"]:
        """Returns `passes` of each member, one member after the other."""
        found: Float[np.ndarray, "votes N classes"]
        found = np.zeros((len(self.members) * passes, len(texts), len(self._classes)))
        for number, member in enumerate(self.members):
            columns = [self._classes.index(name) for name in member.classes]
            if len(texts):
                part = member.probabilities(texts, passes)
                found[number * passes : (number + 1) * passes, :, columns] = part
        if self.temperature == 1.0:
            return found
        tempered: Float[np.ndarray, "votes N classes"]
        tempered = _tempered(np.log(np.maximum(found, _LEAST_PROBABILITY)), self.temperature)
        return tempered

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Returns the likeliest class of each text."""
        likeliest = self.probabilities(texts).mean(axis=0).argmax(axis=1)
        return [self._classes[i] for i in likeliest.tolist()]


# --- a round --------------------------------------------------------------------------------------------------------


def _pool(unlabelled: Sequence[str], known: Sequence[Example]) -> list[int]:
    """Which of the unlabelled texts are really without a label, equal ones once."""
    seen = {example.text.strip() for example in known}
    pool = []
    for index, text in enumerate(unlabelled):
        stripped = text.strip()
        if stripped and stripped not in seen:
            seen.add(stripped)
            pool.append(index)
    return pool


def _proportions(labelled: Sequence[Example], classes: Sequence[str], balance: str) -> list[float]:
    counts = Counter(example.label for example in labelled)
    if balance == "labelled":
        return [counts[name] / len(labelled) for name in classes]
    return [1 / len(classes) if balance == "equal" else 1.0] * len(classes)


def _choose(
    voting: Voting,
    texts: Sequence[str],
    pool: Sequence[int],
    limit: int,
    proportions: Sequence[float],
    settings: SelfTrainingSettings,
    number: int,
) -> dict[int, PseudoLabel]:
    """The surest of the examples by their index: a quota of each class, and no more than the limit."""
    if not texts:
        return {}
    votes = voting.probabilities(texts, settings.passes)
    mean = votes.mean(axis=0)
    label = mean.argmax(axis=1)
    confidence = mean[np.arange(len(texts)), label]
    agreement = (votes.argmax(axis=2) == label[None]).mean(axis=0)
    is_sure = (confidence >= settings.threshold) & (agreement >= settings.agreement - 1e-9)
    # ties are broken by the place in the pool
    ranked = np.lexsort((np.arange(len(texts)), -confidence))
    ranked = ranked[is_sure[ranked]]
    taken = np.concatenate([
        ranked[label[ranked] == which][: max(1, math.floor(limit * share + 1e-9))] for which, share in enumerate(proportions)
    ])  # fmt: skip
    taken = taken[np.argsort(-confidence[taken], kind="stable")][:limit]
    return {
        pool[i]: PseudoLabel(
            index=pool[i], text=texts[i], label=voting.classes[label[i]], confidence=float(confidence[i]),
            agreement=float(agreement[i]), round=number,
        )
        for i in np.sort(taken).tolist()
    }  # fmt: skip


def _changed(before: dict[int, PseudoLabel], now: dict[int, PseudoLabel]) -> int:
    labels = [{index: label.label for index, label in each.items()} for each in (before, now)]
    return sum(labels[0].get(index) != labels[1].get(index) for index in {**before, **now})


def _is_worse(made: Round, best: Round) -> bool:
    return made.accuracy is not None and best.accuracy is not None and made.accuracy < best.accuracy


@dataclasses.dataclass(frozen=True)
class _Task:
    """What all rounds have in common."""

    fit: Fit
    labelled: list[Example]
    classes: tuple[str, ...]
    settings: SelfTrainingSettings
    validation: list[Example]
    seed: int

    def round(self, number: int, chosen: dict[int, PseudoLabel], changed: int) -> tuple[Voting, Round]:
        """Returns what is learned from the labelled examples and some pseudo-labels, and what is to be said of it."""
        taken = [Example(label.text, label.label) for label in chosen.values()]
        members = self._members([*self.labelled, *taken])
        temperature, accuracy, loss = 1.0, None, None
        votes, truth = self._unseen(members, taken)
        if len(truth):
            if len(truth) >= LEAST_FOR_TEMPERATURE:
                temperature = temperature_for(votes, truth)
            mean = _tempered(np.log(np.maximum(votes, _LEAST_PROBABILITY)), temperature).mean(axis=0)
            accuracy, loss = float((mean.argmax(axis=1) == truth).mean()), _loss(mean, truth)
        counts = Counter(label.label for label in chosen.values())
        made = Round(
            number=number, taken={name: counts[name] for name in self.classes}, changed=changed,
            temperature=temperature, accuracy=accuracy, loss_nats=loss,
        )  # fmt: skip
        return Voting(members, self.classes, temperature), made

    def _members(self, examples: Sequence[Example]) -> list[Predictor]:
        seeds = [rng.derive(self.seed, "member", number) for number in range(1, self.settings.members)]
        return [self.fit(examples, seed) for seed in (self.seed, *seeds)]

    def _unseen(self, members: Sequence[Predictor], taken: Sequence[Example]) -> tuple[Any, Any]:
        """The votes about examples whose label no voter has seen, and these labels as numbers of classes."""
        if self.validation or not self.settings.folds:
            texts = [example.text for example in self.validation]
            return Voting(members, self.classes).probabilities(texts), _truth(self.validation, self.classes)
        fold = _folds(self.labelled, self.settings.folds, self.seed)
        votes = np.zeros((len(members), len(self.labelled), len(self.classes)))
        for number in range(self.settings.folds):
            seen = [e for e, own in zip(self.labelled, fold, strict=True) if own != number]
            unseen = [i for i, own in enumerate(fold) if own == number]
            if unseen:
                voting = Voting(self._members([*seen, *taken]), self.classes)
                votes[:, unseen] = voting.probabilities([self.labelled[i].text for i in unseen])
        return votes, _truth(self.labelled, self.classes)


def _folds(examples: Sequence[Example], folds: int, seed: int) -> list[int]:
    """Deals the examples of each class out in turn, equal texts to the same fold."""
    fold: dict[str, int] = {}
    order = sorted(
        range(len(examples)), key=lambda i: (examples[i].label, rng.derive(seed, "fold", examples[i].text))
    )
    for i in order:
        fold.setdefault(examples[i].text, len(fold) % folds)
    return [fold[example.text] for example in examples]


def _truth(examples: Sequence[Example], classes: Sequence[str]) -> Any:
    return np.array([classes.index(example.label) for example in examples], dtype=np.int64)


def _loss(mean: Any, truth: Any) -> float:
    return float(-np.log(np.maximum(mean[np.arange(len(truth)), truth], _LEAST_PROBABILITY)).mean())


def _tempered(logs: Any, temperature: float) -> Any:
    scaled = logs / temperature
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return scaled / scaled.sum(axis=-1, keepdims=True)
