"""Reading comprehension: where in a text the answer to a question stands, or that it stands nowhere.

Rows are those of SQuAD: `question`, `context`, and `answers` with their texts and their first characters. The model reads the
question and then the context, a long one through a window that moves on. Of each window it tells with which token the answer
begins and with which it ends: two cross-entropies over the window's context and one position more, which stands for "not in
this window" (Devlin et al. 2019, sections 4.2 and 4.3): the first one, but of a decoder the last, which alone sees everything.
The first answer is learned; all of them count when a model is judged.

An answer's score is the logarithm of what both softmaxes give its ends, of all windows the highest; that of no answer is the
lowest of all windows. No answer is given where its score is more than a threshold above that of the best answer
(Rajpurkar et al. 2018); the threshold is learned from the validation examples. Where no training question lacks an answer,
there always is one.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from jaxtyping import Float, Int
from torch import Tensor

from gristmill.adapt.encoding import Encoded, Encoder
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import (
    NO_CHANCE,
    Example,
    Figure,
    Item,
    Mistake,
    Result,
    ScoredTask,
    side_by_side,
    summed,
    weights_of,
)
from gristmill.adapt.tasks.classification import texts_of
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.answers import AnswerReport, Protocol, answer_report, answer_score
from gristmill.tokenizer import Tokenizer

__all__ = ["Question", "Reading", "Window", "best_spans", "best_threshold"]

Positive = Annotated[int, Gt(0)]
NO_ANSWER = "(no answer)"
_CHINESE = re.compile(r"[\u3400-\u9fff]")


@dataclasses.dataclass(frozen=True)
class Question(Example):
    """A question, the text that may answer it, and the true answers: none where it does not, None where nobody knows."""

    question: str
    context: str
    answers: tuple[str, ...] | None
    start: int
    """The first character of the first answer; -1 where there is none."""
    document: str = ""
    """What the context is a part of, where the file says."""

    @property
    def key(self) -> str:
        """Question and context."""
        return f"{self.question}\n{self.context}"

    @property
    def kind(self) -> str:
        """Whether there is an answer."""
        return "no answer" if self.answers == () else ""

    @property
    def group(self) -> str:
        """The document, or the context."""
        return self.document or self.context

    def unlabelled(self) -> "Question":
        """Returns the example without its answers."""
        return dataclasses.replace(self, answers=None, start=-1)


class Window(NamedTuple):
    """What a model should say of a part of a context."""

    start: int
    """The position of the answer's first token, or `nowhere`."""
    end: int
    """The position of its last token, or `nowhere`."""
    nowhere: int
    """The position that stands for no answer in this window."""
    places: Int[np.ndarray, "n 2"]
    """Which characters of the context each of its tokens stands for; they begin where the second text does."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading(ScoredTask[Question]):
    """An answer to each question, cut out of its context."""

    question: str = "question"
    """The column of the question."""
    context: str = "context"
    """The column of the text that is read."""
    answer: str = "answers"
    """The column of the answers: {text = […], answer_start = […]}, a list of {text, answer_start}, or one text."""
    start: str = "answer_start"
    """The column of the answer's first character, where the answer is one text; characters are counted from 0."""
    document: str = "title"
    """The column of what contexts are parts of; where there is one, examples held out have other documents. Else other contexts."""
    repeated: Literal["refuse", "first"] = "refuse"
    """What to do with an answer of which no place is given and which occurs several times: take the first, or refuse it."""
    stride: Positive | None = None
    """Tokens from one window of a long context to the next; by default half of what fits behind the question."""
    maximum_answer_tokens: Positive = 30
    """No longer answers are given; 80 does for Chinese characters."""
    threshold: float | Literal["learned", "never"] = "learned"
    """How far the score of no answer must be above that of the best answer to be believed: the higher, the more answers."""
    candidates: Annotated[int, Ge(1)] = 1
    """How many answers are listed for each question, the best first."""
    language: Literal["auto", "en", "zh"] = "auto"
    """Whose rules decide what the same answer is: those of SQuAD (English), or of CMRC 2018 (Chinese, by characters)."""

    shape = "token"

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[Question]:
        """Returns the examples of rows.

        Raises:
            InputError: question or context is missing or empty, or the first answer does not stand where it should.
        """
        return [self._read(row, labelled) for row in rows]

    def _read(self, row: Row, labelled: bool) -> Question:
        question, context = texts_of(row, (self.question, self.context))
        document = row.fields.get(self.document)
        plain = Question(row.place, question, context, None, -1, str(document) if document else "")
        if not labelled:
            return plain
        if _is_true(row.fields.get("is_impossible")):
            return dataclasses.replace(plain, answers=())
        found = list(self._answers(row))
        if not found:
            return dataclasses.replace(plain, answers=())
        texts = tuple(text for text, _ in found)
        return dataclasses.replace(plain, answers=texts, start=self._place(row, context, *found[0]))

    def _answers(self, row: Row) -> Iterator[tuple[str, int | None]]:
        """The text of each answer, and its first character where that is known."""
        value = field_of(row, self.answer)
        if isinstance(value, str):
            value = [{"text": value, "answer_start": row.fields.get(self.start)}]
        if isinstance(value, Mapping):
            texts, starts = value.get("text"), value.get("answer_start")
            if not isinstance(texts, list) or (starts is not None and not isinstance(starts, list)):
                raise _no_answers(row, self.answer, value)
            if starts is not None and len(starts) != len(texts):
                raise InputError(
                    f"{row.place}: {len(texts)} answers and {len(starts)} places",
                    "text and answer_start are lists of the same length",
                )
            value = [
                {"text": text, "answer_start": start}
                for text, start in zip(texts, starts or [None] * len(texts), strict=True)
            ]
        if not isinstance(value, list):
            raise _no_answers(row, self.answer, value)
        for each in value:
            answer = {"text": each} if isinstance(each, str) else each
            if not isinstance(answer, Mapping) or not isinstance(answer.get("text"), str):
                raise _no_answers(row, self.answer, value)
            if not answer["text"].strip():
                raise InputError(
                    f"{row.place}: an answer is empty",
                    'a question without an answer has none: "answers": {"text": [], "answer_start": []}',
                )
            yield answer["text"], _number(row, answer.get("answer_start"))

    def _place(self, row: Row, context: str, text: str, start: int | None) -> int:
        """The first character of an answer.

        Raises:
            InputError: it does not stand there, or it isn't said which of several places is meant.
        """
        shown = text if len(text) < 60 else f"{text[:57]}…"
        first, count = context.find(text), context.count(text)
        if start is None:
            if first < 0:
                raise InputError(
                    f'{row.place}: the answer "{shown}" does not occur in the context',
                    "write it as it stands there, or take this example out",
                )
            if count > 1 and self.repeated == "refuse":
                raise InputError(
                    f'{row.place}: the answer "{shown}" occurs {count} times, and no place is given',
                    'add answer_start, or set task.repeated = "first"',
                )
            return first
        if context[start : start + len(text)] != text:
            where = "it occurs nowhere" if first < 0 else f"it occurs at {first}"
            found = context[start : start + len(text)][:60]
            raise InputError(
                f'{row.place}: the answer "{shown}" should begin at {start}, where "{found}" stands; {where}',
                "answer_start counts characters (not bytes) from 0; null is looked up",
            )
        return start

    def outputs(self, examples: Sequence[Question]) -> tuple[str, ...]:
        """Returns the two ends of an answer.

        Raises:
            InputError: no question has an answer.
        """
        if not any(example.answers for example in examples):
            raise InputError("no training question has an answer", "look at the column of answers")
        return ("start", "end")

    def settled(self, examples: Sequence[Question], seed: int) -> "Reading":
        """Returns the task such that there always is an answer where no training question lacks one."""
        if self.threshold != "learned" or not all(example.answers for example in examples):
            return self
        return dataclasses.replace(self, threshold="never")

    # --- windows ----------------------------------------------------------------------------------------------------

    def items(
        self, examples: Sequence[Question], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns an item for each window of each example.

        Raises:
            InputError: windows would leave something out, or no token stands for an answer.
        """
        contexts = list(dict.fromkeys(example.context for example in examples))
        known = {
            context: (ids, np.array(places, dtype=np.int32).reshape(-1, 2))
            for context, (ids, places) in zip(contexts, tokenizer.encode_with_places(contexts), strict=True)
        }
        questions = tokenizer.encode_batch([example.question for example in examples])
        found = []
        for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
            ids, places = known[example.context]
            for encoded, window in self._windows(example, question, ids, places, encoder):
                found.append(Item(encoded, window, number))
        return found

    def _windows(
        self,
        example: Question,
        question: Sequence[int],
        ids: Sequence[int],
        places: Int[np.ndarray, "n 2"],
        encoder: Encoder,
    ) -> Iterator[tuple[Encoded, Window]]:
        closing = encoder.between if encoder.kind == "decoder" else ()
        question = question[: encoder.pair_room // 2]
        room = encoder.pair_room - len(question) - len(closing)
        stride = self.stride or max(1, room // 2)
        if len(ids) > room < stride:
            raise InputError(
                f"{example.place}: {room} tokens of the context fit behind the question, and stride is {stride}",
                f"set task.stride to {room} or less, or raise maximum_tokens",
            )
        first, last = _ends(example, places)
        for begin in range(0, max(len(ids) - room, 0) + stride, stride):
            part = ids[begin : begin + room]
            encoded = encoder.pair(question, [*part, *closing])
            nowhere = len(encoded.tokens) - 1 if closing else 0
            inside = begin <= first and last < begin + len(part)
            move = encoded.second - begin
            start, end = (first + move, last + move) if inside else (nowhere, nowhere)
            yield encoded, Window(start, end, nowhere, places[begin : begin + room])

    # --- learning and answering -------------------------------------------------------------------------------------

    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the mean of both cross-entropies of each window."""
        targets = torch.tensor([[item.target.start, item.target.end] for item in items], device=scores.device)
        losses = F.cross_entropy(_competing(scores, items), targets, reduction="none")
        return summed(losses.mean(-1), weights_of(items, scores))

    def divergence(
        self, scores: Float[Tensor, "N outputs"], other: Float[Tensor, "N outputs"], items: Sequence[Item]
    ) -> Float[Tensor, ""]:
        """Returns the mean of both divergences of each window, summed."""
        one, two = (F.log_softmax(_competing(each, items), 1) for each in (scores, other))
        return ((one.exp() - two.exp()) * (one - two)).sum() / 4

    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[Question],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns the best answer of each example, or ""; `start` and `end` are its characters in the context."""
        spans: list[dict[tuple[int, int], float]] = [{} for _ in examples]
        nowhere = [0.0] * len(examples)
        for row, item in zip(scores, items, strict=True):
            window, second = item.target, item.encoded.second
            ends = _log_shares(row, item)
            nowhere[item.example] = min(nowhere[item.example], float(ends[window.nowhere].sum()))
            inside = ends[second : second + len(window.places)]
            for score, first, last in best_spans(inside, self.maximum_answer_tokens, self.candidates):
                place = int(window.places[first, 0]), int(window.places[last, 1])
                known = spans[item.example]
                known[place] = max(score, known.get(place, -np.inf))
        return [
            self._answer(example.context, found, none)
            for example, found, none in zip(examples, spans, nowhere, strict=True)
        ]

    def _answer(self, context: str, spans: Mapping[tuple[int, int], float], none: float) -> Mapping[str, Any]:
        listed = [
            {**_cut(context, *place), "score": score}
            for place, score in sorted(spans.items(), key=lambda each: (-each[1], each[0]))
        ][: self.candidates]
        nothing: dict[str, Any] = {"text": "", "start": None, "end": None, "score": float(NO_CHANCE)}
        best = listed[0] if listed else nothing
        threshold = self.threshold
        if isinstance(threshold, str):
            threshold = {"never": np.inf, "learned": 0.0}[threshold]  # it is learned when the model is
        given = nothing if none - best["score"] > threshold else best
        return {
            **{name: given[name] for name in ("text", "start", "end")},
            "score": best["score"], "null_score": none, "candidates": listed,
        }  # fmt: skip

    # --- judging ----------------------------------------------------------------------------------------------------

    def calibrated(self, examples: Sequence[Question], predictions: Sequence[Mapping[str, Any]]) -> "Reading":
        """Returns the task with the threshold that gives the best F1 on validation examples."""
        if self.threshold != "learned" or not examples:
            return self
        protocol = self._protocol(examples)
        above = np.array([each["null_score"] - each["score"] for each in predictions])
        gains = [
            answer_score(_first_text(each), example.answers or (), protocol).f1
            for example, each in zip(examples, predictions, strict=True)
        ]
        nothing = [float(example.answers == ()) for example in examples]
        best = best_threshold(above, np.array(gains), np.array(nothing))
        return dataclasses.replace(self, threshold=best)

    def result(self, examples: Sequence[Question], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns F1 and exact match, and both apart for questions with and without an answer where there are both."""
        protocol = self._protocol(examples)
        report = answer_report(
            [each["text"] for each in predictions], [example.answers or () for example in examples], protocol
        )
        figures = {
            "F1": Figure(report.f1, report.f1_interval),
            "exact match": Figure(report.exact, report.exact_interval),
        }
        if report.answerable is not None and report.unanswerable is not None:
            figures |= {
                "F1 with answer": Figure(report.answerable.f1),
                "exact with answer": Figure(report.answerable.exact),
                "without answer": Figure(report.unanswerable.exact),
            }
        return Result(figures, _layout(report, protocol, examples))

    def mistakes(
        self, examples: Sequence[Question], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns the questions whose answer is no true one, those first that have least in common with one."""
        protocol, found = self._protocol(examples), []
        for example, each in zip(examples, predictions, strict=True):
            score = answer_score(each["text"], example.answers or (), protocol)
            if not score.exact:
                true = " | ".join(dict.fromkeys(example.answers or ())) or NO_ANSWER
                sure = math.exp(each["score"]) if each["text"] else math.exp(each["null_score"])
                said = each["text"] or NO_ANSWER
                found.append((score.f1, Mistake(example.place, example.key, true, said, sure)))
        return [mistake for _, mistake in sorted(found, key=lambda each: (each[0], -(each[1][4] or 0.0)))]

    def _protocol(self, examples: Sequence[Question]) -> Protocol:
        if self.language == "auto":
            letters = [sign for example in examples for sign in example.question if sign.isalnum()]
            is_chinese = 2 * len(_CHINESE.findall("".join(letters))) > len(letters)
            return "cmrc" if is_chinese else "squad"
        return "cmrc" if self.language == "zh" else "squad"


def best_spans(ends: Float[np.ndarray, "n 2"], longest: int, count: int) -> list[tuple[float, int, int]]:
    """Returns the spans with the highest sums of start and end: score, first and last position, the best first.

    >>> best_spans(np.array([[0.0, 0.0], [3.0, 1.0], [2.0, 2.0]]), 2, 1)
    [(5.0, 1, 2)]

    Args:
        ends: how likely each position is the start (column 0) and the end (column 1) of it.
        longest: the most positions of a span.
        count: how many to return; there may be fewer.
    """
    n = len(ends)
    width = min(longest, n)
    sums = np.full((n, width), -np.inf)
    for more in range(width):
        sums[: n - more, more] = ends[: n - more, 0] + ends[more:, 1]
    flat = sums.ravel()
    kept = np.argpartition(-flat, count - 1)[:count] if count < len(flat) else np.arange(len(flat))
    kept = kept[np.lexsort((kept, -flat[kept]))]
    return [
        (float(flat[i]), i // width, i // width + i % width) for i in kept.tolist() if np.isfinite(flat[i])
    ]


def best_threshold(
    above: Float[np.ndarray, " n"], gains: Float[np.ndarray, " n"], nothing: Float[np.ndarray, " n"]
) -> float:
    """Returns how far no answer should be above the best answer to be given, so that most is gained.

    Args:
        above: by how much it is above.
        gains: what the best answer gains.
        nothing: what no answer gains.
    """
    order = np.argsort(above, kind="stable")
    change = np.concatenate([[0.0], np.cumsum((gains - nothing)[order])])  # the first k are answered
    edges = np.concatenate([[above[order[0]] - 2.0], above[order], [above[order[-1]] + 2.0]])
    between = (edges[:-1] + edges[1:]) / 2
    tied = np.concatenate([[False], edges[1:-2] == edges[2:-1], [False]])
    return float(between[np.where(tied, -np.inf, change).argmax()])


def _competing(
    scores: Float[Tensor, "N outputs"], items: Sequence[Item]
) -> Float[Tensor, "windows longest outputs"]:
    """The scores of each window's context and of "nowhere"; what else is in it has no chance."""
    allowed = torch.from_numpy(np.concatenate([_allowed(item) for item in items])).to(scores.device)
    lengths = [len(item.encoded.tokens) for item in items]
    return side_by_side(scores.masked_fill(~allowed[:, None], NO_CHANCE), lengths)


def _allowed(item: Item) -> np.ndarray:
    allowed = np.zeros(len(item.encoded.tokens), dtype=bool)
    allowed[item.encoded.second : item.encoded.second + len(item.target.places)] = True
    allowed[item.target.nowhere] = True
    return allowed


def _log_shares(scores: Float[np.ndarray, "T 2"], item: Item) -> Float[np.ndarray, "T 2"]:
    """The logarithm of the softmax over what may be an end."""
    some = np.where(_allowed(item)[:, None], scores.astype(np.float64), NO_CHANCE)
    some -= some.max(0)
    shares: Float[np.ndarray, "T 2"] = some - np.log(np.exp(some).sum(0))
    return shares


def _ends(example: Question, places: Int[np.ndarray, "n 2"]) -> tuple[int, int]:
    """The first and the last token of the first answer; -1 where there is none."""
    if not example.answers:
        return -1, -1
    end = example.start + len(example.answers[0])
    tokens = np.flatnonzero((places[:, 0] < end) & (places[:, 1] > example.start))
    if not len(tokens):
        raise InputError(
            f'{example.place}: no token stands for the answer "{example.answers[0]}"',
            "the tokenizer drops these characters: take this example out",
        )
    return int(tokens[0]), int(tokens[-1])


def _cut(context: str, start: int, end: int) -> dict[str, Any]:
    """A piece of a context without white space around it."""
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    return {"text": text.strip(), "start": start, "end": start + len(text.strip())}


def _first_text(prediction: Mapping[str, Any]) -> str:
    listed = prediction["candidates"]
    return str(listed[0]["text"]) if listed else ""


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "1", "yes"))


def _number(row: Row, value: Any) -> int | None:
    """An answer's first character; None where it isn't known."""
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        value = int(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(
            f"{row.place}: answer_start is {value!r}, expected a whole number",
            "it counts characters of the context from 0",
        )
    return value if value >= 0 else None


def _no_answers(row: Row, column: str, value: Any) -> InputError:
    return InputError(
        f'{row.place}: "{column}" is {str(value)[:80]}, expected answers',
        'write {"text": ["…"], "answer_start": [12]}, or one text',
    )


def _layout(report: AnswerReport, protocol: Protocol, examples: Sequence[Question]) -> str:
    none = sum(not example.answers for example in examples)
    lines = [f"{'':14} {'exact':>9} {'F1':>9} {'questions':>10}", ""]
    for name, score, count in (
        ("with answer", report.answerable, len(examples) - none),
        ("without", report.unanswerable, none),
    ):
        if score is not None:
            lines.append(f"{name:>14} {score.exact:>9.3f} {score.f1:>9.3f} {count:>10}")
    lines += [f"{'all':>14} {report.exact:>9.3f} {report.f1:>9.3f} {len(examples):>10}", ""]
    rules = {"squad": "SQuAD: words", "cmrc": "CMRC 2018: Chinese by characters"}
    return "\n".join([*lines, f"the rules are those of {rules[protocol]}", ""])


EXPORT = Reading
