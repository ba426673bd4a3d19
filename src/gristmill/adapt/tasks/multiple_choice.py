"""Choosing one of several texts: the answer to a question, the likelier end of a story, what fits best.

Each choice is read with the question, as a pair, and gets one score; the loss is the cross-entropy of a softmax over the choices
of an example (Radford et al. 2018, section 3.3; Zellers et al. 2018), of which there may be any number. All choices
of an example stand in the same step.
"""

import dataclasses
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import Example, Figure, Item, Mistake, Result, ScoredTask, side_by_side, summed
from gristmill.adapt.tasks.classification import shares, texts_of
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.intervals import ratio_interval, wilson_interval
from gristmill.tokenizer import Tokenizer

__all__ = ["Choice", "MultipleChoice"]


@dataclasses.dataclass(frozen=True)
class Choice(Example):
    """A question, what may be chosen, and the number of what should be."""

    queries: tuple[str, ...]
    choices: tuple[str, ...]
    names: tuple[str, ...]
    """What the choices are called, such as A, B, C; or none."""
    gold: int | None
    """From 0."""

    @property
    def key(self) -> str:
        """The question and all choices."""
        return "\n".join([*self.queries, *self.choices])

    @property
    def group(self) -> str:
        """The first text of the question: of an article with several questions the article."""
        return self.queries[0]

    def unlabelled(self) -> "Choice":
        """Returns the example without what should be chosen."""
        return dataclasses.replace(self, gold=None)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoice(ScoredTask[Choice]):
    """One of several choices for each question."""

    query: str | tuple[str, ...] = "query"
    """The column of the question; or several (an article and a question), joined by a space. Examples held out have others in the first."""
    choices: str | tuple[str, ...] = "choices"
    """The column of the choices: a list, or {text = […], label = […]}; or a column for each."""
    gold: str = "gold"
    """The column of what should be chosen."""
    gold_as: Literal["auto", "number", "text", "name"] = "auto"
    """How it is said: by number, by the choice's text, or by its name (its label, or A, B, C); by default what fits."""
    first_number: int = 0
    """The number of the first choice."""

    shape = "example"

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[Choice]:
        """Returns the examples of rows.

        Raises:
            InputError: there are fewer than two choices, one is empty, or it isn't clear which should be chosen.
        """
        found = []
        for row in rows:
            queries = texts_of(row, self.query)
            choices, names = self._choices(row)
            gold = field_of(row, self.gold) if labelled else None
            number = None if gold is None else self._number(row, gold, choices, names)
            found.append(Choice(row.place, queries, choices, names, number))
        return found

    def _choices(self, row: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts and the names of the choices."""
        names: Any = ()
        found: Any
        if isinstance(self.choices, str):
            found = field_of(row, self.choices)
            if isinstance(found, Mapping):
                found, names = found.get("text"), found.get("label") or ()
        else:
            found = [row.fields.get(column) for column in self.choices]
            while found and (found[-1] is None or found[-1] == ""):  # some questions have fewer
                found.pop()
        if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
            raise InputError(
                f"{row.place}: the choices are {str(found)[:80]}, expected a list of texts",
                'mend this row; choices in columns of their own are named by task.choices = ["A", "B"]',
            )
        if len(found) < 2 or (names and len(names) != len(found)):
            raise InputError(
                f"{row.place}: {len(found)} choices" + (f" and {len(names)} labels" if names else ""),
                "an example has two choices at least, each with a label or none with one",
            )
        return tuple(found), tuple(map(str, names))

    def _number(self, row: Row, gold: Any, choices: Sequence[str], names: Sequence[str]) -> int:
        """Which of the choices is meant, from 0."""
        text = str(gold).strip()
        known = names or string.ascii_uppercase[: len(choices)]
        by_number = int(text) - self.first_number if text.lstrip("-").isdecimal() else -1
        found = {
            "name": [i for i, name in enumerate(known) if name == text],
            "text": [i for i, choice in enumerate(choices) if choice == gold or choice.strip() == text],
            "number": [by_number] if 0 <= by_number < len(choices) else [],
        }
        if self.gold_as != "auto":
            numbers = set(found[self.gold_as])
        elif isinstance(gold, int) and not names:
            numbers = set(found["number"])
        else:
            numbers = set().union(*(found["name"], found["text"], *([] if names else [found["number"]])))
        if len(numbers) != 1 or isinstance(gold, bool):
            which = "several" if len(numbers) > 1 else "none"
            last = self.first_number + len(choices) - 1
            raise InputError(
                f'{row.place}: "{self.gold}" is {gold!r}, which names {which} of the {len(choices)} choices',
                f"expected a number from {self.first_number} to {last}, a text, or one of {', '.join(known)}; "
                'task.gold_as = "number" (or "text", "name") says which is meant',
            )
        return numbers.pop()

    def outputs(self, examples: Sequence[Choice]) -> tuple[str, ...]:
        """Returns the name of the only score."""
        return ("score",)

    # --- learning and answering -------------------------------------------------------------------------------------

    def items(
        self, examples: Sequence[Choice], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns an item for each choice of each example; the target is whether it should be chosen."""
        queries = tokenizer.encode_batch([" ".join(example.queries) for example in examples])
        choices = iter(tokenizer.encode_batch([each for example in examples for each in example.choices]))
        return [
            Item(encoder.pair(query, next(choices)), place == example.gold, number)
            for number, (example, query) in enumerate(zip(examples, queries, strict=True))
            for place in range(len(example.choices))
        ]

    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the cross-entropy of each example over its choices."""
        firsts, lengths = _examples(items)
        golds = [item.target for item in items]
        targets = [golds.index(True, first) - first for first in firsts]
        weights = torch.tensor([items[first].weight for first in firsts], device=scores.device)
        table = side_by_side(scores, lengths)[..., 0]
        losses = F.cross_entropy(table, torch.tensor(targets, device=scores.device), reduction="none")
        return summed(losses, weights)

    def divergence(
        self, scores: Float[Tensor, "N outputs"], other: Float[Tensor, "N outputs"], items: Sequence[Item]
    ) -> Float[Tensor, ""]:
        """Returns the divergences of the softmax over the choices."""
        _, lengths = _examples(items)
        one, two = (side_by_side(each, lengths)[..., 0] for each in (scores, other))
        return super().divergence(one, two, items)

    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[Choice],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns the likeliest choice of each example, and what share of the softmax each has."""
        found: list[Mapping[str, Any]] = []
        for example, first in zip(examples, _examples(items)[0], strict=True):
            row = shares(np.concatenate(scores[first : first + len(example.choices)])[None])[0]
            best = int(row.argmax())
            found.append(
                {
                    "number": self.first_number + best,
                    **({"name": example.names[best]} if example.names else {}),
                    "text": example.choices[best],
                    "probability": float(row[best]),
                    "probabilities": row.tolist(),
                }
            )
        return found

    def result(self, examples: Sequence[Choice], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns accuracy, and the mean of 1 / rank of what should be chosen (Voorhees 1999)."""
        golds = [int(example.gold) for example in examples if example.gold is not None]
        said = [each["number"] - self.first_number for each in predictions]
        right = [one == other for one, other in zip(golds, said, strict=True)]
        ranks = np.array(
            [_rank(each["probabilities"], gold) for each, gold in zip(predictions, golds, strict=True)]
        )
        interval = ratio_interval(1 / ranks, np.ones(len(ranks)), seed=0)
        return Result(
            {
                "accuracy": Figure(sum(right) / len(right), wilson_interval(sum(right), len(right))),
                "mean reciprocal rank": Figure(float((1 / ranks).mean()), interval),
            },
            _layout([len(example.choices) for example in examples], right),
            {
                str(self.first_number + gold): {
                    str(self.first_number + other): count for other, count in sorted(row.items())
                }
                for gold, row in sorted(_counts(golds, said).items())
            },
        )

    def mistakes(self, examples: Sequence[Choice], predictions: Sequence[Mapping[str, Any]]) -> list[Mistake]:
        """Returns the questions for which something else is chosen, the surest first."""
        found = [
            Mistake(
                example.place, example.key, example.choices[example.gold], each["text"], each["probability"]
            )
            for example, each in zip(examples, predictions, strict=True)
            if example.gold is not None and each["number"] != example.gold + self.first_number
        ]
        return sorted(found, key=lambda mistake: -(mistake.probability or 0.0))


def _examples(items: Sequence[Item]) -> tuple[list[int], list[int]]:
    """The first item of each example, and how many it has."""
    numbers = np.array([item.example for item in items])
    firsts = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
    return firsts.tolist(), np.diff(np.append(firsts, len(items))).tolist()


def _rank(probabilities: Sequence[float], gold: int) -> float:
    """The place of a choice among all, the likeliest first; of those that are as likely the middle one."""
    row = np.array(probabilities)
    return float((row > row[gold]).sum() + ((row == row[gold]).sum() + 1) / 2)


def _counts(golds: Sequence[int], said: Sequence[int]) -> dict[int, Counter[int]]:
    found: dict[int, Counter[int]] = {}
    for gold, other in zip(golds, said, strict=True):
        found.setdefault(gold, Counter())[other] += 1
    return found


def _layout(sizes: Sequence[int], right: Sequence[bool]) -> str:
    lines = [f"{'choices':>9} {'accuracy':>9} {'by chance':>10} {'questions':>10}", ""]
    for size in sorted(set(sizes)):
        own = [each for each, many in zip(right, sizes, strict=True) if many == size]
        lines.append(f"{size:>9} {sum(own) / len(own):>9.3f} {1 / size:>10.3f} {len(own):>10}")
    chance = sum(1 / size for size in sizes) / len(sizes)
    lines += ["", f"{'all':>9} {sum(right) / len(right):>9.3f} {chance:>10.3f} {len(sizes):>10}", ""]
    return "\n".join(lines)


EXPORT = MultipleChoice
