"""Labelled examples divided into those to learn from, those to choose by, and those to be judged by once."""

import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
from annotated_types import Gt, Interval

from gristmill import rng
from gristmill.adapt.tables import Row, field_of, read_table
from gristmill.errors import InputError

__all__ = [
    "DataSettings",
    "Leak",
    "Split",
    "divided",
    "groups_of",
    "leaks",
    "nested",
    "read_split",
    "some_of_each",
    "without",
]

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
    group: str | None = None
    """The column whose equal values never stand in two splits, such as the document or the person that rows are from."""
    leaks: Literal["report", "drop", "refuse"] = "report"
    """What to do with texts, or groups, that stand in two splits: "drop" takes them out of the earlier one, so that the test
    stays what it is."""

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
    """A text, or a group, that stands in two splits."""

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
    if not held:  # of few documents one is better than none
        most_of_a_kind = max((names for _, names in sorted(by_kind.items(), key=str)), key=len)
        held.update(most_of_a_kind[:1] if len(most_of_a_kind) > 1 else ())
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


def without(things: Sequence[T], key: Callable[[T], str], others: Collection[T]) -> list[T]:
    """Returns the things whose text stands in none of the others."""
    there = {plain(key(other)) for other in others}
    return [thing for thing in things if plain(key(thing)) not in there]


def groups_of(rows: Sequence[Row], column: str) -> Callable[[str], str]:
    """Returns what gives the group of an example by its place, which is that of its row, or begins with it.

    Raises:
        InputError: a row has nothing in the column; the message names it.
    """
    groups = {row.place: _as_text(field_of(row, column)) for row in rows}

    def group(place: str) -> str:
        while place not in groups:
            place, comma, _ = place.rpartition(", ")
            assert comma, "a place begins with that of its row"
        return groups[place]

    return group


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


def nested(kinds: Sequence[Hashable], seed: int) -> tuple[list[int], list[int]]:
    """Returns an order of things, and the rank of each thing in its kind: what stands first is drawn first, at random.

    Every beginning of the order has of each kind about its share, and a longer one holds the shorter; so do the things
    whose rank is below a number.
    """
    counts = Counter(kinds)
    ranks = [0] * len(kinds)
    left: Counter[Hashable] = Counter()
    drawn = rng.stream(seed, "nested").permutation(len(kinds)).tolist()
    for i in drawn:
        ranks[i] = left[kinds[i]]
        left[kinds[i]] += 1
    place = {i: (ranks[i] + 0.5) / counts[kinds[i]] for i in drawn}
    return sorted(
        drawn, key=place.__getitem__
    ), ranks  # sorting is stable: where places are the same, as drawn


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
