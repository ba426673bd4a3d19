"""Exact match and F1 as the scripts of SQuAD 2.0 and CMRC 2018 give them."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.metrics.answers import AnswerScore, Protocol, answer_report, answer_score


@pytest.mark.parametrize(
    ("said", "answers", "protocol", "score"),
    [
        ("the Normans!", ["Normans"], "squad", (1, 1)),
        ("Normans of the North", ["Normans", "the North"], "squad", (0, 0.5)),
        ("", [], "squad", (1, 1)),
        ("Normans", [], "squad", (0, 0)),
        ("", ["Normans"], "squad", (0, 0)),
        ("the", ["a", "an"], "squad", (1, 1)),  # nothing is left of any: there is no answer
        ("《战国无双3》", ["战国无双 3"], "cmrc", (1, 1)),
        ("光荣", ["光荣和ω-force"], "cmrc", (0, 2 * 2 / (2 + 4))),
        ("甲乙丙丁", ["甲乙丁丙", "丙丁"], "cmrc", (0, 2 * 2 / (4 + 2))),
    ],
)
def test_what_counts_as_the_same(
    said: str, answers: list[str], protocol: Protocol, score: tuple[float, float]
) -> None:
    assert answer_score(said, answers, protocol) == AnswerScore(*score)


def questions(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Predictions that are nearly right, and true answers: of each third question none."""
    with gzip.open(folder / "valid.jsonl.gz", "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
            start = max(0, starts[-1] - number % 4)
            said = row["context"][start : starts[-1] + len(texts[-1]) + number % 3]
            yield "" if number % 7 == 0 else said, [] if number % 3 == 0 else texts


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "protocol", "exact", "f1"),
    [
        ("en_qa_squad", "squad", 0.2950310559006211, 0.5300801252704129),
        ("zh_qa_cmrc2018", "cmrc", 0.11055276381909548, 0.5137358976159715),
    ],
)
def test_the_figures_are_those_of_the_scripts(
    shared_data: Path, name: str, protocol: Protocol, exact: float, f1: float
) -> None:
    said, true = map(list, zip(*questions(shared_data / name), strict=True))
    report = answer_report(said, true, protocol)
    assert (report.exact, report.f1) == pytest.approx((exact, f1), abs=1e-12)
    assert report.unanswerable is not None
    assert report.answerable is not None
    assert report.f1_interval is not None
    assert report.f1_interval.low < report.f1 < report.f1_interval.high


def test_a_prediction_for_each_question() -> None:
    with pytest.raises(ValueError, match="1 predictions for 2 questions"):
        answer_report(["a"], [["a"], ["b"]])
