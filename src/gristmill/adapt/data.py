"""Labelled examples divided into those to learn from, those to choose by, and those to be judged by once."""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, NamedTuple, TypeVar

import numpy as np
from annotated_types import Gt, Interval

from gristmill import rng
from gristmill.adapt.tables import Row, read_table
from gristmill.errors import InputError

__all__ = ["DataSettings", "Leak", "Split", "divided", "leaks", "read_split", "some_of_each"]

Positive = Annotated[int, Gt(0)]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The files of a task."""

    train: str | None = None
    """Examples to learn from: a file, a folder or a glob of .jsonl, .json, .csv, .tsv, .parquet or .conll."""
    valid: str | None = None
    """Examples by which the best epoch is chosen; by default some of `train`."""
    test: str | None = None
    """Examples that are looked at once, at the end; nothing is chosen by them."""
    valid_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Share of `train` that is held out where `valid` is not given: of each class, and of a text all copies."""
    test_fraction: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Share of `train` that is held out to be judged by, where `test` is not given; by default none."""
    per_class: Positive | None = None
    """No more training examples of each class than these, drawn at random with the seed: what few labels are worth."""

    def __post_init__(self) -> None:
        if self.train is None and self.test is None:
            raise InputError(
                '"data.train" is missing',
                "name a file of labelled examples; with tune.epochs = 0 data.test alone will do",
            )
        if self.test is not None and self.test_fraction is not None:
            raise InputError("data.test and data.test_fraction both say what is judged by", "leave one out")


class Split(NamedTuple):
    """The rows of a task."""

    train: list[Row]
    valid: list[Row]
    test: list[Row]


class Leak(NamedTuple):
    """A text that stands in two splits."""

    text: str
    one: str
    """Where: file and row."""
    other: str


def read_split(settings: DataSettings) -> Split:
    """Returns the rows of the files; `valid` is empty where it is to be made.

    Raises:
        InputError: a file can't be read, or has no rows.
    """
    found = []
    for name in (settings.train, settings.valid, settings.test):
        rows = list(read_table(name)) if name is not None else []
        if name is not None and not rows:
            raise InputError(f"{name} holds no rows", "each example is a row")
        found.append(rows)
    return Split(*found)


def divided(
    things: Sequence[T], group: Callable[[T], str], kind: Callable[[T], Hashable], share: float, seed: int
) -> tuple[list[T], list[T]]:
    """Returns most things and a share of them, of each kind about as many, and a group never in both.

    A pure function of groups, kinds and seed: where the things stand in a file does not matter.

    Raises:
        InputError: there are too few to divide.
    """
    groups: dict[str, list[T]] = defaultdict(list)
    for thing in things:
        groups[group(thing)].append(thing)
    by_kind: dict[Hashable, list[str]] = defaultdict(list)
    for name, members in groups.items():
        counts = Counter(map(kind, members))
        by_kind[min(counts, key=lambda each: (-counts[each], str(each)))].append(name)
    held: set[str] = set()
    spare = 0.0
    for _, names in sorted(by_kind.items(), key=lambda item: str(item[0])):
        wanted = len(names) * share + spare  # what rounding leaves goes to the next kind
        count = min(round(wanted), len(names) - 1)
        spare = min(1.0, max(-1.0, wanted - count))
        names.sort(key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())
        held.update(names[:count])
    if not held:
        raise InputError(
            f"{len(groups)} examples are too few to hold some out",
            "name a file: valid = …, or raise valid_fraction",
        )
    most = [thing for thing in things if group(thing) not in held]
    return most, [thing for thing in things if group(thing) in held]


def leaks(splits: Sequence[Sequence[tuple[str, str]]]) -> list[Leak]:
    """Returns the texts of later splits that stand in an earlier one; each split is of (place, text)."""
    seen: dict[str, tuple[int, str]] = {}
    found = []
    for number, split in enumerate(splits):
        for place, text in split:
            key = plain(text)
            before = seen.setdefault(key, (number, place))
            if before[0] != number:
                found.append(Leak(text, before[1], place))
    return found


def plain(text: str) -> str:
    """Returns a text without what does not make it another one: case and white space."""
    return " ".join(text.casefold().split())


def some_of_each(things: Sequence[T], kind: Callable[[T], Hashable], count: int, seed: int) -> list[T]:
    """Returns no more things of each kind than `count`, drawn at random, in their order."""
    kept = []
    left: Counter[Hashable] = Counter()
    for i in rng.stream(seed, "per class").permutation(len(things)).tolist():
        left[kind(things[i])] += 1
        if left[kind(things[i])] <= count:
            kept.append(i)
    return [things[i] for i in np.sort(np.array(kept, dtype=np.int64)).tolist()]
