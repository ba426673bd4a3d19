"""Answers of reading comprehension: whether they are the same, and how much of them is.

Two protocols. `squad`, the script of SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018): case, punctuation, English articles and
white space do not count; F1 is that of the bags of words. `cmrc`, that of CMRC 2018 (Cui et al. 2019): Chinese characters are
compared one by one and other text by words, most punctuation does not count, and F1 is that of the longest run in common
(other text is cut at white space and around signs; the script has NLTK do that, which knows more exceptions). Of
several true answers the best counts; that there is none is the answer "".
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from gristmill.metrics.intervals import Interval, ratio_interval

_Overlap = Callable[[Sequence[str], Sequence[str]], int]
__all__ = ["AnswerReport", "AnswerScore", "Protocol", "answer_report", "answer_score"]

Protocol = Literal["squad", "cmrc"]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CMRC_PIECE = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+(?:[.,]\d+)*|[^\w\s]")


class AnswerScore(NamedTuple):
    """How one prediction does."""

    exact: float
    """1 if it is a true answer, else 0."""
    f1: float
    """How much of it is, of the true answer that it is nearest to."""


class AnswerReport(NamedTuple):
    """How predictions do on average, in all and apart where there is an answer and where there is none."""

    exact: float
    f1: float
    exact_interval: Interval | None
    f1_interval: Interval | None
    questions: int
    answerable: AnswerScore | None
    unanswerable: AnswerScore | None


def answer_score(prediction: str, answers: Sequence[str], protocol: Protocol = "squad") -> AnswerScore:
    """Returns how a prediction does.

    >>> answer_score("The Norman people", ["Normans", "the Norman people of France"])
    AnswerScore(exact=0.0, f1=0.6666666666666666)

    Args:
        prediction: what was answered; "" for that there is no answer.
        answers: the true ones; none where there is no answer.
        protocol: whose rules.
    """
    pieces, between, overlap = _PROTOCOLS[protocol]
    there = [found for found in map(pieces, answers) if found] or [[]]
    said = pieces(prediction)
    return AnswerScore(
        float(between.join(said) in {between.join(each) for each in there}),
        max(_f1(said, each, overlap) for each in there),
    )


def answer_report(
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    protocol: Protocol = "squad",
    *,
    seed: int = 0,
) -> AnswerReport:
    """Returns how predictions do on average, with 95 % intervals over questions.

    Args:
        predictions: one for each question.
        answers: the true ones of each question.
        protocol: whose rules.
        seed: of the intervals.

    Raises:
        ValueError: there are no questions, or predictions are missing.
    """
    if len(predictions) != len(answers) or not predictions:
        raise ValueError(f"{len(predictions)} predictions for {len(answers)} questions")
    scores = np.array(
        [answer_score(said, true, protocol) for said, true in zip(predictions, answers, strict=True)]
    )
    has_answer = np.array([any(map(_PROTOCOLS[protocol][0], true)) for true in answers])
    ones = np.ones(len(scores))

    def mean(of: np.ndarray) -> AnswerScore | None:
        return AnswerScore(*scores[of].mean(0).tolist()) if of.any() else None

    return AnswerReport(
        exact=float(scores[:, 0].mean()),
        f1=float(scores[:, 1].mean()),
        exact_interval=ratio_interval(scores[:, 0], ones, seed=seed),
        f1_interval=ratio_interval(scores[:, 1], ones, seed=seed),
        questions=len(scores),
        answerable=mean(has_answer),
        unanswerable=mean(~has_answer),
    )


def _f1(
    said: Sequence[str], true: Sequence[str], overlap: Callable[[Sequence[str], Sequence[str]], int]
) -> float:
    if not said or not true:
        return float(said == true)
    same = overlap(said, true)
    return 2 * same / (len(said) + len(true))


def _squad_pieces(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _cmrc_pieces(text: str) -> list[str]:
    kept = "".join(character for character in text.lower() if character not in _CMRC_PUNCTUATION)
    return _CMRC_PIECE.findall(kept)


def _common_words(one: Sequence[str], other: Sequence[str]) -> int:
    return sum((Counter(one) & Counter(other)).values())


def _longest_run(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest run that both have."""
    longest, before = 0, [0] * (len(other) + 1)
    for piece in one:
        now = [0]
        now += [before[place] + 1 if piece == each else 0 for place, each in enumerate(other)]
        longest, before = max(longest, *now), now
    return longest


_PROTOCOLS: dict[Protocol, tuple[Callable[[str], list[str]], str, _Overlap]] = {
    "squad": (_squad_pieces, " ", _common_words),
    "cmrc": (_cmrc_pieces, "", _longest_run),
}
"""How an answer is cut into pieces, what joins them again, and how many two answers share."""
