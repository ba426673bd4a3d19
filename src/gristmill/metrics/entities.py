"""Entities in sequences of tags: which there are, and how many of them were found.

A tag is "O" or a prefix and a type: "B-PER". Two ways to read them:

- as `conlleval` does (Tjong Kim Sang and Buchholz 2002), which takes any sequence: an entity begins with B or S, behind E or S
  and O, and where the type changes, and so does what a wrong I begins. It is the default of seqeval, and what papers report.
- strictly, in the scheme IOB2, IOBES or BILOU: only what is well formed is an entity.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from gristmill.metrics.classes import ClassReport, item_report

__all__ = [
    "Entity",
    "Scheme",
    "entities",
    "entity_report",
    "prefix_and_type",
    "strict_entities",
    "tag_report",
]

Scheme = Literal["IOB2", "IOBES", "BILOU"]
OUTSIDE = "O"
_COMMON = {"L": "E", "U": "S"}
"""BILOU's letters for what IOBES calls end and single."""


class Entity(NamedTuple):
    """Some tags side by side, of one type."""

    type: str
    start: int
    """The first tag."""
    end: int
    """Behind the last tag."""


def prefix_and_type(tag: str) -> tuple[str, str]:
    """Returns the two parts of a tag: ("B", "PER") of "B-PER", ("O", "") of "O", ("B", "_") of "B"."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, _, type_ = tag.partition("-")
    return prefix, type_ or "_"


def entities(tags: Sequence[str]) -> list[Entity]:
    """Returns the entities of any sequence of tags, as `conlleval` reads them.

    >>> entities(["I-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [Entity(type='PER', start=0, end=2), Entity(type='LOC', start=3, end=4), Entity(type='LOC', start=4, end=5)]
    """
    found: list[Entity] = []
    begin, last, kind = 0, OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, type_ = prefix_and_type(tag)
        prefix = _COMMON.get(prefix, prefix)
        goes_on = prefix in ("I", "E") and last in ("B", "I") and type_ == kind
        if last != OUTSIDE and not goes_on:
            found.append(Entity(kind, begin, place))
        if not goes_on:
            begin = place
        last, kind = prefix, type_
    return found


def strict_entities(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """Returns the entities that are well formed in a scheme.

    >>> strict_entities(["I-PER", "O", "B-LOC", "I-PER"], "IOB2")
    [Entity(type='LOC', start=2, end=3)]

    Raises:
        ValueError: a tag is not one of the scheme.
    """
    allowed = {"IOB2": "BIO", "IOBES": "IOBES", "BILOU": "BILOU"}[scheme]
    parts = [prefix_and_type(tag) for tag in tags]
    for (prefix, _), tag in zip(parts, tags, strict=True):
        if prefix not in tuple(allowed):
            raise ValueError(f'the tag "{tag}" is none of {scheme}: {", ".join(allowed)}')
    return list(_well_formed([(_COMMON.get(prefix, prefix), type_) for prefix, type_ in parts], scheme))


def _well_formed(parts: Sequence[tuple[str, str]], scheme: Scheme) -> Iterator[Entity]:
    place = 0
    while place < len(parts):
        prefix, kind = parts[place]
        start, place = place, place + 1
        if prefix == "S":
            yield Entity(kind, start, place)
        elif prefix == "B":
            while place < len(parts) and parts[place] == ("I", kind):
                place += 1
            if scheme == "IOB2":
                yield Entity(kind, start, place)
            elif place < len(parts) and parts[place] == ("E", kind):
                place += 1
                yield Entity(kind, start, place)


def entity_report(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme | None = None
) -> ClassReport:
    """Returns precision, recall and F1 of whole entities, by type; one is right if its type and both ends are.

    Args:
        true: the tags of each sentence.
        predicted: what was predicted; as many for each sentence.
        scheme: to count only what is well formed in it; by default as `conlleval` does.

    Raises:
        ValueError: sentences or tags are missing, or a tag is not one of the scheme.
    """
    _check(true, predicted)

    def read(tags: Sequence[str]) -> list[Entity]:
        return entities(tags) if scheme is None else strict_entities(tags, scheme)

    return item_report([read(tags) for tags in true], [read(tags) for tags in predicted], exclusive=False)


def tag_report(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], labels: Sequence[str] | None = None
) -> ClassReport:
    """Returns precision, recall and F1 of single tags, "O" among them; the arguments are those of `entity_report`."""
    _check(true, predicted)
    single = [
        [[Entity(tag, at, at + 1) for at, tag in enumerate(tags)] for tags in each]
        for each in (true, predicted)
    ]
    return item_report(single[0], single[1], labels, exclusive=True)


def _check(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> None:
    for number, (wanted, got) in enumerate(zip(true, predicted, strict=False)):
        if len(wanted) != len(got):
            raise ValueError(f"sentence {number} has {len(wanted)} tags, and {len(got)} were predicted")
