"""BLEU and chrF equal to sacrebleu's, ROUGE equal to rouge-score's."""

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from gristmill.metrics.summaries import ROUGES, rouge, rouge_scores
from gristmill.metrics.translations import bleu, chrf

WORDS = st.sampled_from(["the", "cat", "sat", "on", "mat,", "3.5", "naïve", "—", "猫", "坐着", "A-b", "(x)"])
TEXT = st.lists(WORDS, min_size=1, max_size=14).map(" ".join)
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), min_size=1, max_size=4).map("\n".join)
SETS = st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(SETS, st.sampled_from(["13a", "zh", "char"]))
def test_bleu_is_that_of_sacrebleu(rows: list[tuple[str, str, str]], cutting: str) -> None:
    texts, *others = map(list, zip(*rows, strict=True))
    wanted = sacrebleu.corpus_bleu(texts, others, tokenize=cutting).score
    assert bleu(texts, list(zip(*others, strict=True)), cutting).value == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(SETS)
def test_chrf_is_that_of_sacrebleu(rows: list[tuple[str, str, str]]) -> None:
    texts, *others = map(list, zip(*rows, strict=True))
    wanted = sacrebleu.corpus_chrf(texts, others).score
    assert chrf(texts, list(zip(*others, strict=True))).value == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(LINES, LINES)
def test_rouge_is_that_of_rouge_score(summary: str, reference: str) -> None:
    plain = [text.translate(dict.fromkeys(map(ord, "猫坐着ï—"), " ")) for text in (summary, reference)]
    wanted = RougeScorer(list(ROUGES)).score(plain[1], plain[0])
    assert rouge_scores(*plain) == pytest.approx({name: wanted[name].fmeasure for name in ROUGES})


def test_chinese_characters_are_words() -> None:
    assert rouge_scores("猫坐着", "猫在那里坐着")["rouge1"] == pytest.approx(2 * 3 / (3 + 6))


def test_means_have_intervals() -> None:
    found = rouge(["a b", "c d", "e f"] * 5, ["a b", "c x", "y z"] * 5)["rouge1"]
    assert found.value == pytest.approx(50)
    assert found.interval is not None
    assert 20 < found.interval.low < 50 < found.interval.high < 80


@pytest.mark.parametrize("figure", [bleu, chrf])
def test_what_is_missing_is_named(figure) -> None:
    with pytest.raises(ValueError, match="2 texts and references for 1"):
        figure(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="nothing to compare text 1 with"):
        figure(["a", "b"], [["a"], []])
