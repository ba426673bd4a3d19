"""Telling how two marked entities of a text are related: cause and effect, part and whole, employer and employee.

A text marks them with <e1> … </e1> and <e2> … </e2>, or two columns say where they begin and end. What the model reads has
punctuation around them instead, which every tokenizer knows and every model has seen, as in "a @ fire @ caused by # lightning #",
and where a type is given the type too: "@ * person * Curie @ of # ^ city ^ Paris #" (Zhou and Chen 2022, arXiv:2102.01373).
The class is told from the states of both opening marks, side by side (Baldini Soares et al. 2019, arXiv:1906.03158); of a
decoder from those of the closing marks, for its opening marks have not seen the entity.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.heads import Head
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import Example, Figure, Item, Mistake, Result, ScoredTask, summed, weights_of
from gristmill.adapt.tasks.classification import likeliest_class, texts_of
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.classes import ClassReport, confusion, item_report
from gristmill.metrics.intervals import wilson_interval
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = ["Entity", "Related", "Relation", "official_report"]

_DIRECTED = re.compile(r"(.*)(\((?:e1,e2|e2,e1)\))", re.DOTALL)
_TAG = re.compile(r"</?e[12]>")
_CHINESE = re.compile(r"[\u3400-\u9fff]")
TYPE_MARKS = ("*", "^")
"""Around the types of the first and the second entity (Zhou and Chen 2022, table 2)."""


class Entity(NamedTuple):
    """A piece of a text, the end excluded, and of what type it is."""

    start: int
    end: int
    type: str = ""


@dataclasses.dataclass(frozen=True)
class Related(Example):
    """A text, two entities in it, and how they are related."""

    text: str
    entities: tuple[Entity, Entity]
    label: str | None

    @property
    def key(self) -> str:
        """The text with both entities marked."""
        return marked(self.text, self.entities, ("<e1>", "</e1>", "<e2>", "</e2>"))[0]

    @property
    def kind(self) -> str:
        """The class."""
        return self.label or ""

    @property
    def group(self) -> str:
        """The text, whichever entities are marked."""
        return self.text

    def unlabelled(self) -> "Related":
        """Returns the example without its class."""
        return dataclasses.replace(self, label=None)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Relation(ScoredTask[Related]):
    """One class for each pair of marked entities."""

    text: str = "text"
    """The column of the text, with entities marked by <e1> … </e1> and <e2> … </e2>, or plain."""
    first: str = "head"
    """The column of the first entity of a plain text: {start, end} in characters, the end excluded; and its `type`, if any."""
    second: str = "tail"
    """The column of the second entity."""
    label: str = "label"
    """The column of the class; what ends with (e1,e2) or (e2,e1) has a direction."""
    excluded: str | None = "Other"
    """The class that says that there is no relation; it is learned, and left out of F1."""
    marks: tuple[str, str] = ("@", "#")
    """What stands around the first and the second entity when the model reads them."""
    read_at: Literal["entities", "text"] = "entities"
    """What the class is told from: the marks of both entities, or what stands for the whole text, as the stock classes do."""

    shape = "example"

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[Related]:
        """Returns the examples of rows.

        Raises:
            InputError: a text is missing, or does not have two entities.
        """
        found = []
        for row in rows:
            label = field_of(row, self.label) if labelled else None
            if isinstance(label, list | dict) or (label is not None and not str(label).strip()):
                raise InputError(f'{row.place}: "{self.label}" is {label!r}, expected one class', None)
            (text,) = texts_of(row, self.text)
            if self.first in row.fields or self.second in row.fields:
                one, other = _entity(row, text, self.first), _entity(row, text, self.second)
            else:
                text, (one, other) = _unmarked(row, text)
            if one[:2] == other[:2]:
                raise InputError(
                    f"{row.place}: both entities are the characters {one.start} to {one.end}",
                    "a relation is between two different ones",
                )
            found.append(Related(row.place, text, (one, other), None if label is None else str(label)))
        return found

    def outputs(self, examples: Sequence[Related]) -> tuple[str, ...]:
        """Returns the classes, sorted.

        Raises:
            InputError: there are fewer than two.
        """
        classes = Counter(str(example.label) for example in examples)
        if len(classes) < 2:
            raise InputError(
                f"the training examples have {len(classes)} class, so there is nothing to tell apart",
                "add examples of another class",
            )
        return tuple(sorted(classes))

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether the tokenizer knows the marks.

        Raises:
            InputError: it does not.
        """
        unknown = tokenizer.special.get("unk")
        for mark in self.marks:
            ids = tokenizer.encode(mark)
            if not ids or unknown in ids:
                raise InputError(
                    f'the tokenizer does not know the mark "{mark}"',
                    'choose two signs that it knows: task.marks = ["(", "["]',
                )

    def items(
        self, examples: Sequence[Related], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns an item for each example, with the number of its class; a long text is cut around its entities.

        Raises:
            InputError: a class is none of those that are told apart, or the entities are too far from each other.
        """
        numbers = {name: i for i, name in enumerate(outputs)}
        texts = [marked(each.text, each.entities, _signs(self.marks, each)) for each in examples]
        found = []
        for number, (example, (_, edges), (ids, places)) in enumerate(
            zip(examples, texts, tokenizer.encode_with_places([text for text, _ in texts]), strict=True)
        ):
            if example.label is not None and example.label not in numbers:
                raise InputError(
                    f'{example.place}: no training example has the class "{example.label}"',
                    "add some, or take this example out",
                )
            opening, closing = _tokens(example, edges, places)
            begin = _begin(example, min(opening), max(closing) + 1, len(ids), encoder.room)
            encoded = encoder.text(ids[begin : begin + encoder.room])
            read = closing if encoder.kind == "decoder" else opening
            move = encoded.first - begin
            item = dataclasses.replace(encoded, places=tuple(at + move for at in read))
            found.append(Item(item, None if example.label is None else numbers[example.label], number))
        return found

    # --- learning and answering -------------------------------------------------------------------------------------

    def head(self, config: ModelConfig, outputs: Sequence[str], *, dropout: float, seed: int) -> Head:
        """Returns a head that reads both marks, or that of the stock class."""
        if self.read_at == "text":
            return super().head(config, outputs, dropout=dropout, seed=seed)
        return Head(config, len(outputs), "places", dropout=dropout, seed=seed, places=2)

    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the cross-entropy of each example."""
        targets = torch.tensor([item.target for item in items], device=scores.device)
        return summed(F.cross_entropy(scores, targets, reduction="none"), weights_of(items, scores))

    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[Related],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns the likeliest class of each example, the share of the softmax that it has, and the entities' texts."""
        found: list[Mapping[str, Any]] = []
        for example, said in zip(examples, likeliest_class(np.stack(scores), outputs), strict=True):
            one, other = (example.text[each.start : each.end] for each in example.entities)
            found.append({**said, "head": one, "tail": other})
        return found

    def result(self, examples: Sequence[Related], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns F1 on macro and micro average over relations, and accuracy over all classes."""
        true = [str(example.label) for example in examples]
        said = [each["label"] for each in predictions]
        report = official_report(true, said, self.excluded)
        labels = sorted({*true, *said})
        counts = confusion(true, said, labels)
        right = int(np.trace(counts))
        left_out = "" if self.excluded is None else f'; "{self.excluded}" is left out'
        return Result(
            {
                "macro F1": Figure(report.average("macro").f1, report.interval("macro")),
                "micro F1": Figure(report.average("micro").f1, report.interval("micro")),
                "accuracy": Figure(right / len(true), wilson_interval(right, len(true))),
            },
            f"{report.layout(3)}\na wrong direction is a wrong answer{left_out}\n",
            {
                label: {other: int(count) for other, count in zip(labels, row, strict=True) if count}
                for label, row in zip(labels, counts, strict=True)
                if row.any()
            },
        )

    def mistakes(
        self, examples: Sequence[Related], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns the examples of which another class is told, the surest first."""
        found = [
            Mistake(example.place, example.key, str(example.label), each["label"], each["probability"])
            for example, each in zip(examples, predictions, strict=True)
            if each["label"] != example.label
        ]
        return sorted(found, key=lambda mistake: -(mistake.probability or 0.0))


def official_report(true: Sequence[str], said: Sequence[str], excluded: str | None) -> ClassReport:
    """Returns the report by relation whose macro F1 is the official figure of SemEval-2010 task 8.

    Both directions of a relation count as one class (Hendrickx et al. 2010, section 4.3, and the scorer that came with the data):

        precision = right in relation and direction / said to be the relation, in whichever direction
        recall    = right in relation and direction / of the relation, in whichever direction

    F1 is their harmonic mean, and the figure its mean over relations; the excluded class is none of them, though what was
    taken for a relation wrongly counts there. A relation that neither occurs nor was said is not counted.

    Args:
        true: the class of each example; what ends with (e1,e2) or (e2,e1) has a direction.
        said: what was predicted.
        excluded: the class that says that there is no relation.
    """

    def parts(label: str) -> list[tuple[str, str]]:
        found = _DIRECTED.fullmatch(label)
        return [] if label == excluded else [(label, "") if found is None else (found[1], found[2])]

    return item_report(list(map(parts, true)), list(map(parts, said)), exclusive=False)


def marked(
    text: str, entities: tuple[Entity, Entity], signs: tuple[str, str, str, str]
) -> tuple[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Returns a text with signs around two entities, and where in it each entity's opening begins and its closing ends.

    >>> marked("fire and ice", (Entity(0, 4), Entity(9, 12)), ("@ ", " @", "# ", " #"))
    ('@ fire @ and # ice #', ((0, 7), (13, 19)))

    Args:
        text: plain.
        entities: one may stand inside the other.
        signs: before and behind the first, before and behind the second.
    """
    edges = []
    for number, each in enumerate(entities):
        edges.append((each.start, 1, -each.end, 2 * number))  # what is longer opens first and closes last
        edges.append((each.end, 0, -each.start, 2 * number + 1))
    pieces, places, before, length = [], {}, 0, 0
    for at, _, _, which in sorted(edges):
        pieces += [text[before:at], signs[which]]
        length += at - before
        places[which] = length if which % 2 == 0 else length + len(signs[which]) - 1
        length, before = length + len(signs[which]), at
    return "".join([*pieces, text[before:]]), ((places[0], places[1]), (places[2], places[3]))


def _signs(marks: tuple[str, str], example: Related) -> tuple[str, str, str, str]:
    """What stands before and behind both entities; with spaces where words have them."""
    found = []
    for mark, around, entity in zip(marks, TYPE_MARKS, example.entities, strict=True):
        inside = example.text[entity.start : entity.end]
        type_ = f" {around} {entity.type} {around}" if entity.type else ""
        spaces = ["" if _CHINESE.match(sign) else " " for sign in (inside[0], inside[-1])]
        found += [f"{mark}{type_}{spaces[0]}", f"{spaces[1]}{mark}"]
    return found[0], found[1], found[2], found[3]


def _tokens(
    example: Related, edges: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """The tokens of both opening marks, and of both closing ones."""
    firsts, ends = np.array(places).T
    found = []
    for character in [edge[i] for i in (0, 1) for edge in edges]:
        tokens = np.flatnonzero((firsts <= character) & (character < ends))
        if not len(tokens):
            raise InputError(f"{example.place}: no token stands for a mark", "choose other signs: task.marks")
        found.append(int(tokens[0]))
    return found[:2], found[2:]


def _begin(example: Related, first: int, end: int, count: int, room: int) -> int:
    """Where the part of a text begins that is read: both entities are in it, about in the middle."""
    if end - first > room:
        raise InputError(
            f"{example.place}: from one entity to the other there are {end - first} tokens, and {room} fit",
            "raise maximum_tokens, or take this example out",
        )
    return max(0, min(first - (room - end + first) // 2, count - room))


def _unmarked(row: Row, text: str) -> tuple[str, tuple[Entity, Entity]]:
    """A text without its tags, and what they mark."""
    places: dict[str, int] = {}
    pieces, before, length = [], 0, 0
    for found in _TAG.finditer(text):
        pieces.append(text[before : found.start()])
        length += found.start() - before
        before = found.end()
        if found[0] in places:
            raise InputError(f"{row.place}: {found[0]} stands there twice", "a row has one pair of entities")
        places[found[0]] = length
    plain = "".join([*pieces, text[before:]])
    entities = []
    for name in ("e1", "e2"):
        start, end = places.get(f"<{name}>", -1), places.get(f"</{name}>", -1)
        if start < 0 or end < 0 or not plain[start:end].strip():
            raise InputError(
                f"{row.place}: no entity stands between <{name}> and </{name}>",
                "mark both: <e1>…</e1> and <e2>…</e2>, or give their places in columns (task.first, task.second)",
            )
        entities.append(Entity(start, end))
    return plain, (entities[0], entities[1])


def _entity(row: Row, text: str, column: str) -> Entity:
    value = field_of(row, column)
    if not isinstance(value, Mapping) or not {"start", "end"} <= set(value):
        raise InputError(f'{row.place}: "{column}" is {value!r}, which is no span', "expected start and end")
    start, end, type_ = value["start"], value["end"], value.get("type")
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
        raise InputError(
            f'{row.place}: "{column}" is from {start} to {end}, and the text has {len(text)} characters',
            "start and end count characters from 0, and the end is excluded",
        )
    wanted = value.get("text")
    if not text[start:end].strip() or (isinstance(wanted, str) and wanted != text[start:end]):
        raise InputError(
            f'{row.place}: from {start} to {end} stands "{text[start:end]}", and not "{wanted or "an entity"}"',
            "start and end count characters (not bytes) from 0, and the end is excluded",
        )
    return Entity(start, end, str(type_ or ""))


EXPORT = Relation
