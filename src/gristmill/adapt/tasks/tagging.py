"""Telling a tag for each word: names of people and places, parts of speech, slots of a request.

Two forms of data: words with a tag each (columns of CoNLL, or lists `tokens` and `tags`), and texts with spans
(`entities`, each with start, end and type in characters). Words are joined as they are written, with spaces but not between
Chinese characters, and a tag is told from the first token of its word. Of a text with spans each character is a word where
it is Chinese, and letters and digits side by side are one.

Predicted tags are the likeliest sequence in which every entity is well formed (in IOB2: no I without a B or I of its type
before it), found by the algorithm of Viterbi over the scores alone: no transitions are learned.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import SWAPPED, Example, Figure, Item, Mistake, Result, ScoredTask, summed
from gristmill.adapt.tasks.classification import shares
from gristmill.augment.characters import Edit, edited, moved
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.entities import Entity, entities, entity_report, prefix_and_type, tag_report
from gristmill.tokenizer import Tokenizer

__all__ = ["TaggedExample", "Tagging", "likeliest", "may_follow", "words_of"]

_WORD = re.compile(r"[^\W\u2e80-\u9fff\uf900-\ufaff]+|[^\s]")
_NO_SPACE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\u3000-\u303f\uff00-\uffef]")
NOT_ASKED = -100
"""The target of tokens that no tag is told from."""


@dataclasses.dataclass(frozen=True)
class TaggedExample(Example):
    """A text, where its words are in it, and their tags."""

    text: str
    words: tuple[tuple[int, int], ...]
    """First and last character of each, the last one excluded."""
    tags: tuple[str, ...] | None
    spans: bool
    """Whether it came with spans, and is to be answered with spans."""

    document: str = ""
    """What it is a part of, where the file says."""

    @property
    def key(self) -> str:
        """The text."""
        return self.text

    @property
    def group(self) -> str:
        """The document, or the text."""
        return self.document or self.text

    def unlabelled(self) -> "TaggedExample":
        """Returns the example without its tags."""
        return dataclasses.replace(self, tags=None)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagging(ScoredTask[TaggedExample]):
    """One tag for each word, or spans with a type each."""

    tokens: str = "tokens"
    """The column of the words."""
    tags: str = "tags"
    """The column of their tags."""
    text: str = "text"
    """The column of the text, where there are spans in place of tags."""
    entities: str = "entities"
    """The column of its spans: objects with `start`, `end` (in characters, the end excluded) and `type`."""
    overlap: Literal["refuse", "longest"] = "refuse"
    """What to do with spans that overlap, since a word has one tag: keep the longest, or refuse them."""

    shape = "token"

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[TaggedExample]:
        """Returns the examples of rows.

        Raises:
            InputError: words and tags are not as many, or a span does not fit its text.
        """
        return [
            self._of_words(row, labelled) if self.tokens in row.fields else self._of_spans(row, labelled)
            for row in rows
        ]

    def outputs(self, examples: Sequence[TaggedExample]) -> tuple[str, ...]:
        """Returns the tags: "O", then of each type that occurs B and I, or whatever prefixes occur.

        Raises:
            InputError: no word has a tag other than "O".
        """
        found = {tag for example in examples for tag in example.tags or ()}
        if not found - {"O"}:
            raise InputError("no word of the training examples has a tag but O", "look at the column of tags")
        inside = {f"B-{tag[2:]}" for tag in found if tag.startswith("I-")}
        return ("O", *sorted((found | inside) - {"O"}))

    def items(
        self,
        examples: Sequence[TaggedExample],
        tokenizer: Tokenizer,
        encoder: Encoder,
        outputs: Sequence[str],
    ) -> list[Item]:
        """Returns an item for each example, or several where it is too long; the target is a number for each token.

        Raises:
            InputError: a tag is none of those that are told apart.
        """
        numbers = {name: i for i, name in enumerate(outputs)}
        found: list[Item] = []
        for number, (example, (ids, places)) in enumerate(
            zip(examples, tokenizer.encode_with_places([each.text for each in examples]), strict=True)
        ):
            asked = _first_tokens(example.words, places)
            for first, after in _stretches(asked, len(ids), encoder.room):
                encoded = encoder.text(ids[first:after])
                target = np.full(len(encoded.tokens), NOT_ASKED, dtype=np.int64)
                words = np.full(len(encoded.tokens), -1, dtype=np.int64)
                inside = [(word, at) for word, at in enumerate(asked) if first <= at < after]
                for word, at in inside:
                    place = encoded.first + at - first
                    words[place] = word
                    if example.tags is not None:
                        tag = example.tags[word]
                        if tag not in numbers:
                            raise InputError(
                                f'{example.place}: no training example has the tag "{tag}"',
                                "add some, or take this example out",
                            )
                        target[place] = numbers[tag]
                found.append(Item(encoded, (target, words), number))
        return found

    def noised(self, example: TaggedExample, change: Callable[[str], Sequence[Edit]]) -> TaggedExample:
        """Returns an example with its text changed; words of which nothing is left are gone, with their tags.

        Raises:
            InputError: words were swapped, and each would have the other's tag.
        """
        edits = change(example.text)
        if any(edit.operator == SWAPPED for edit in edits):
            raise InputError(
                "words that change places would have each other's tags", "set augment.swapped_words = 0"
            )
        text, words, tags = edited(example.text, edits), [], []
        gone = False  # the word with which an entity began
        for (start, end), tag in zip(example.words, example.tags or ["O"] * len(example.words), strict=True):
            first, last = moved(start, edits), moved(end, edits)
            if not text[first:last].strip():
                gone = gone or tag.startswith("B-")
                continue
            words.append((first, last))
            tags.append(f"B-{tag[2:]}" if gone and tag.startswith("I-") else tag)
            gone = False
        if not words:
            return example
        return dataclasses.replace(
            example, text=text, words=tuple(words), tags=None if example.tags is None else tuple(tags)
        )

    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the cross-entropy of each word."""
        asked, targets, weights = _asked(items, scores.device)
        return summed(F.cross_entropy(scores[asked], targets, reduction="none"), weights)

    def divergence(
        self, scores: Float[Tensor, "N outputs"], other: Float[Tensor, "N outputs"], items: Sequence[Item]
    ) -> Float[Tensor, ""]:
        """Returns the divergences of the words' scores."""
        asked, _, _ = _asked(items, scores.device)
        return super().divergence(scores[asked], other[asked], items)

    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[TaggedExample],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns the tags of each example, or its spans; words that no token stands for are outside."""
        allowed = may_follow(outputs)
        tags = [["O"] * len(example.words) for example in examples]
        by_example: dict[int, dict[int, Any]] = {}
        for row, item in zip(scores, items, strict=True):
            words = item.target[1]
            for place in np.flatnonzero(words >= 0).tolist():
                by_example.setdefault(item.example, {})[int(words[place])] = row[place]
        for number, rows in by_example.items():
            order = sorted(rows)
            path = likeliest(np.log(shares(np.stack([rows[word] for word in order])) + 1e-12), allowed)
            for word, tag in zip(order, path.tolist(), strict=True):
                tags[number][word] = outputs[tag]
        return [_answer(example, each) for example, each in zip(examples, tags, strict=True)]

    def result(self, examples: Sequence[TaggedExample], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns F1 of whole entities on micro average, and of single tags."""
        true = [list(example.tags or ()) for example in examples]
        said = [list(each["tags"]) for each in predictions]
        whole, single = entity_report(true, said), tag_report(true, said)
        micro = whole.average("micro")
        return Result(
            {
                "entity F1": Figure(micro.f1, whole.interval("micro")),
                "entity precision": Figure(micro.precision),
                "entity recall": Figure(micro.recall),
                "tag accuracy": Figure(single.accuracy, single.interval("micro")),
                "tag macro F1": Figure(single.average("macro").f1, single.interval("macro")),
            },
            f"entities\n{whole.layout(3)}\ntags\n{single.layout(3)}",
        )

    def mistakes(
        self, examples: Sequence[TaggedExample], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns the texts of which not all entities are right, those with most of them wrong first."""
        found = []
        for example, each in zip(examples, predictions, strict=True):
            true, said = _named(example.tags or ()), _named(each["tags"])
            if true != said:
                words = (_in_words(example, true - said), _in_words(example, said - true))
                found.append((len(true ^ said), Mistake(example.place, example.text, *words)))
        return [mistake for _, mistake in sorted(found, key=lambda entry: -entry[0])]

    # --- reading ----------------------------------------------------------------------------------------------------

    def _of_words(self, row: Row, labelled: bool) -> TaggedExample:
        words = field_of(row, self.tokens)
        if (
            not isinstance(words, list)
            or not words
            or not all(isinstance(w, str) and w.strip() for w in words)
        ):
            raise InputError(f'{row.place}: "{self.tokens}" is no list of words', "none of them may be empty")
        tags = field_of(row, self.tags) if labelled else row.fields.get(self.tags)
        if tags is not None and (not isinstance(tags, list) or len(tags) != len(words)):
            count = len(tags) if isinstance(tags, list) else "no list of"
            raise InputError(f"{row.place}: {len(words)} words and {count} tags", "each word has one tag")
        return self._plain(row, words, None if tags is None else [str(tag) for tag in tags])

    def _plain(self, row: Row, words: Sequence[str], tags: Sequence[str] | None) -> TaggedExample:
        text, places = "", []
        for word in words:
            if text and not (_NO_SPACE.match(text[-1]) or _NO_SPACE.match(word[0])):
                text += " "
            places.append((len(text), len(text) + len(word)))
            text += word
        return TaggedExample(
            row.place, text, tuple(places), None if tags is None else tuple(tags), spans=False
        )

    def _of_spans(self, row: Row, labelled: bool) -> TaggedExample:
        text = field_of(row, self.text)
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f'{row.place}: "{self.text}" is {text!r}, expected a text', "mend this row, or take it out"
            )
        spans = field_of(row, self.entities) if labelled else row.fields.get(self.entities)
        if spans is None:
            return TaggedExample(row.place, text, words_of(text), None, spans=True)
        found = self._apart([_span(row, text, span) for span in spans], row)
        words = _divided(words_of(text), {edge for start, end, _ in found for edge in (start, end)})
        tags = ["O"] * len(words)
        for start, end, kind in found:
            inside = [i for i, (first, last) in enumerate(words) if first >= start and last <= end]
            for i in inside:
                tags[i] = f"{'B' if i == inside[0] else 'I'}-{kind}"
        return TaggedExample(row.place, text, words, tuple(tags), spans=True)

    def _apart(self, spans: Sequence[tuple[int, int, str]], row: Row) -> list[tuple[int, int, str]]:
        kept: list[tuple[int, int, str]] = []
        for span in sorted(set(spans), key=lambda each: (each[0] - each[1], each[0])):
            other = next((each for each in kept if span[0] < each[1] and each[0] < span[1]), None)
            if other is None:
                kept.append(span)
            elif self.overlap == "refuse":
                raise InputError(
                    f"{row.place}: the spans {other[:2]} and {span[:2]} overlap, and a word has one tag",
                    'mend this row, or set overlap = "longest"',
                )
        return sorted(kept)


def _asked(items: Sequence[Item], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of which tokens a tag is told, what it should be, and how much it counts."""
    targets = np.concatenate([item.target[0] for item in items])
    weights = np.repeat([item.weight for item in items], [len(item.target[0]) for item in items])
    asked = np.flatnonzero(targets != NOT_ASKED)
    return (
        torch.from_numpy(asked).to(device),
        torch.from_numpy(targets[asked]).to(device),
        torch.from_numpy(weights[asked].astype(np.float32)).to(device),
    )


def words_of(text: str) -> tuple[tuple[int, int], ...]:
    """Returns where the words of a text are: runs of letters and digits, and each other sign; Chinese by characters."""
    return tuple(found.span() for found in _WORD.finditer(text))


def may_follow(outputs: Sequence[str]) -> Bool[np.ndarray, "before outputs"]:
    """Returns whether each tag (column) may stand behind each tag (row), or at the beginning: the last row."""
    parts = [prefix_and_type(tag) for tag in outputs]
    ends = any(prefix in ("E", "S", "L", "U") for prefix, _ in parts)
    table = np.ones((len(parts) + 1, len(parts)), dtype=bool)
    for before, (last, kind) in enumerate([*parts, ("O", "")]):
        goes_on = last in ("B", "I")
        for after, (prefix, type_) in enumerate(parts):
            inside = prefix in ("I", "E", "L")
            if inside:
                table[before, after] = goes_on and kind == type_
            elif ends and goes_on:
                table[before, after] = False  # what has begun has to be ended
    return table


def likeliest(
    scores: Float[np.ndarray, "T outputs"], allowed: Bool[np.ndarray, "before outputs"]
) -> Int[np.ndarray, " T"]:
    """Returns the sequence with the highest sum of scores of which each tag may follow the one before (Viterbi 1967)."""
    between = np.where(allowed[:-1], 0.0, -1e9)
    best = scores[0] + np.where(allowed[-1], 0.0, -1e9)
    came = np.zeros(scores.shape, dtype=np.int64)
    for t in range(1, len(scores)):
        through = best[:, None] + between
        came[t] = through.argmax(0)
        best = through.max(0) + scores[t]
    path = np.empty(len(scores), dtype=np.int64)
    path[-1] = best.argmax()
    for t in range(len(scores) - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path


def _span(row: Row, text: str, span: Any) -> tuple[int, int, str]:
    if not isinstance(span, Mapping) or not {"start", "end"} <= set(span):
        raise InputError(f"{row.place}: {span!r} is no span", "expected start, end and type")
    start, end, kind = span["start"], span["end"], span.get("type", span.get("label", span.get("slot")))
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)) or not kind:
        raise InputError(
            f"{row.place}: the span {start} to {end} of type {kind!r} is not within its {len(text)} characters",
            "start and end count characters from 0, and the end is excluded",
        )
    wanted = span.get("text", span.get("value"))
    if isinstance(wanted, str) and wanted != text[start:end]:
        raise InputError(
            f'{row.place}: from {start} to {end} stands "{text[start:end]}", and not "{wanted}"',
            "start and end count characters (not bytes) from 0, and the end is excluded",
        )
    return start, end, str(kind)


def _divided(words: Sequence[tuple[int, int]], edges: set[int]) -> tuple[tuple[int, int], ...]:
    """The words, cut where a span begins or ends inside one."""
    found = []
    for start, end in words:
        cuts = [start, *sorted(edge for edge in edges if start < edge < end), end]
        found += list(itertools.pairwise(cuts))
    return tuple(found)


def _first_tokens(words: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]]) -> list[int]:
    """The first token of each word; -1 where no token stands for it."""
    found, token = [], 0
    for start, end in words:
        while token < len(places) and places[token][1] <= start:
            token += 1
        found.append(token if token < len(places) and places[token][0] < end else -1)
    return found


def _stretches(asked: Sequence[int], count: int, room: int) -> list[tuple[int, int]]:
    """Cuts tokens into runs of at most `room`, each beginning with a word where it can."""
    firsts = sorted({at for at in asked if at > 0})
    cuts, begin = [], 0
    while count - begin > room:
        ends = [at for at in firsts if begin < at <= begin + room]
        cuts.append((begin, ends[-1] if ends else begin + room))
        begin = cuts[-1][1]
    return [*cuts, (begin, count)]


def _named(tags: Sequence[str]) -> set[Entity]:
    """Entities; tags without a prefix, such as parts of speech, are one for each word."""
    found = entities(tags)
    return {each._replace(type=tags[each.start]) if each.type == "_" else each for each in found}


def _in_words(example: TaggedExample, found: Collection[Entity]) -> str:
    """Entities with their types, in the order of the text."""
    return "; ".join(
        f"{example.text[example.words[each.start][0] : example.words[each.end - 1][1]]} ({each.type})"
        for each in sorted(found, key=lambda entity: entity.start)
    )


def _answer(example: TaggedExample, tags: list[str]) -> dict[str, Any]:
    if not example.spans:
        return {"tags": tags}
    found = [
        {
            "type": each.type, "start": example.words[each.start][0], "end": example.words[each.end - 1][1],
            "text": example.text[example.words[each.start][0] : example.words[each.end - 1][1]],
        }
        for each in entities(tags)
    ]  # fmt: skip
    return {"entities": found, "tags": tags}


EXPORT = Tagging
