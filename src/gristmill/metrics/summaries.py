"""ROUGE (Lin 2004): how much of a reference summary is in a summary, and the other way round.

rouge1 and rouge2 count words and pairs of words in common, rougeL the longest sequence of words in common, rougeLsum that of
each sentence of the reference with all of the summary, united. The figure is F1, averaged over summaries. Words are runs of
ASCII letters and digits in small letters, without stemming, as rouge-score has them by default; Chinese and other
characters, which that passes over, are words of their own.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gristmill.metrics.intervals import ratio_interval
from gristmill.metrics.translations import Score

__all__ = ["ROUGES", "rouge", "rouge_scores"]

_WORD = re.compile(r"[a-z0-9]+|[^\W\x00-\x7f_]")
Words = list[str]


def rouge_scores(summary: str, reference: str) -> dict[str, float]:
    """Returns the F1 of each kind, from 0 to 1.

    >>> rouge_scores("the cat sat", "the cat was here")
    {'rouge1': 0.5714285714285715, 'rouge2': 0.4, 'rougeL': 0.5714285714285715, 'rougeLsum': 0.5714285714285715}
    """
    return {name: score(summary, reference) for name, score in _KINDS.items()}


def rouge(summaries: Sequence[str], references: Sequence[str], *, seed: int = 0) -> Mapping[str, Score]:
    """Returns the mean F1 of each kind, from 0 to 100 as it is quoted, with intervals over summaries.

    Raises:
        ValueError: there are no summaries, or as many references are missing.
    """
    if len(summaries) != len(references) or not summaries:
        raise ValueError(f"{len(summaries)} summaries and {len(references)} references")
    rows = [rouge_scores(one, other) for one, other in zip(summaries, references, strict=True)]
    ones = np.ones(len(rows))
    found = {}
    for name in ROUGES:
        values = 100 * np.array([row[name] for row in rows])
        found[name] = Score(float(values.mean()), ratio_interval(values, ones, seed=seed), "F1|no stemming")
    return found


def _words(text: str) -> Words:
    return _WORD.findall(text.lower())


def _by_runs(n: int) -> Callable[[str, str], float]:
    def score(summary: str, reference: str) -> float:
        said, wanted = (
            Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
            for words in (_words(summary), _words(reference))
        )
        return _f1((said & wanted).total(), said.total(), wanted.total())

    return score


def _by_sequence(summary: str, reference: str) -> float:
    said, wanted = _words(summary), _words(reference)
    return _f1(len(_common_places(wanted, said)), len(said), len(wanted))


def _by_sentences(summary: str, reference: str) -> float:
    said, wanted = ([_words(line) for line in text.split("\n") if line] for text in (summary, reference))
    said, wanted = [words for words in said if words], [words for words in wanted if words]
    left = Counter(word for words in said for word in words)
    there = Counter(word for words in wanted for word in words)
    sizes = left.total(), there.total()
    hits = 0
    for sentence in wanted:
        places = {place for each in said for place in _common_places(sentence, each)}
        for place in sorted(places):
            word = sentence[place]
            if left[word] > 0 and there[word] > 0:
                hits += 1
                left[word] -= 1
                there[word] -= 1
    return _f1(hits, *sizes)


def _common_places(one: Words, other: Words) -> list[int]:
    """The places in the first of a longest sequence of words that both have."""
    lengths = np.zeros((len(one) + 1, len(other) + 1), np.int64)
    for i, word in enumerate(one, 1):
        for j, each in enumerate(other, 1):
            lengths[i, j] = (
                lengths[i - 1, j - 1] + 1 if word == each else max(lengths[i - 1, j], lengths[i, j - 1])
            )
    places, i, j = [], len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            places.append(i - 1)
            i, j = i - 1, j - 1
        elif lengths[i, j - 1] > lengths[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return places[::-1]


def _f1(same: int, said: int, wanted: int) -> float:
    if not same:
        return 0.0
    precision, recall = same / said, same / wanted
    return 2 * precision * recall / (precision + recall)


_KINDS: dict[str, Callable[[str, str], float]] = {
    "rouge1": _by_runs(1),
    "rouge2": _by_runs(2),
    "rougeL": _by_sequence,
    "rougeLsum": _by_sentences,
}
ROUGES = tuple(_KINDS)
