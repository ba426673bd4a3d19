"""BLEU and chrF of texts against references, over a whole set, with intervals over its sentences.

BLEU (Papineni et al. 2002) depends on how sentences are cut into words more than on anything else, so the cutting and the
counting are sacrebleu's (Post 2018), and the signature says which. chrF (Popovic 2015) is the F2 of runs of up to six
characters, precision and recall averaged over the lengths; white space does not count. Both from 0 to 100, as they are quoted.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from gristmill.errors import InputError
from gristmill.metrics.intervals import Interval, figure_interval

__all__ = ["Score", "bleu", "chrf"]

Cutting = Literal["13a", "zh", "char"]
ORDERS, CHARACTERS = 4, 6
RECALL = 2
"""How much more recall counts than precision in chrF: beta."""


class Score(NamedTuple):
    """A figure of a whole set."""

    value: float
    interval: Interval | None
    """At 95 %, over sentences."""
    signature: str
    """What has to be the same for two figures to be compared."""


def bleu(
    texts: Sequence[str], references: Sequence[Sequence[str]], cutting: Cutting = "13a", *, seed: int = 0
) -> Score:
    """Returns the BLEU of texts.

    Args:
        texts: what was written.
        references: for each text those that it is compared with, one at least.
        cutting: "13a" for languages with spaces, "zh" for Chinese by characters, "char" for any text by characters.
        seed: of the interval.

    Raises:
        InputError: sacrebleu is not installed.
        ValueError: there is nothing to compare, or something to compare it with is missing.
    """
    _check(texts, references)
    try:
        import sacrebleu
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise InputError("BLEU needs sacrebleu", 'pip install "gristmill[translation]"') from None
    metric = BLEU(tokenize=cutting, effective_order=True)
    rows = []
    for text, each in zip(texts, references, strict=True):
        counted = metric.sentence_score(text, each)
        rows.append([counted.sys_len, counted.ref_len, *counted.counts, *counted.totals])
    sums = np.array(rows, np.float64)
    return Score(
        float(_bleu(sums.sum(0, keepdims=True))[0]),
        figure_interval(sums, _bleu, seed=seed, name="BLEU"),
        f"tok:{cutting}|smooth:exp|sacrebleu:{sacrebleu.__version__}",
    )


def chrf(texts: Sequence[str], references: Sequence[Sequence[str]], *, seed: int = 0) -> Score:
    """Returns the chrF2 of texts; the arguments are those of `bleu`. Of several references the nearest counts."""
    _check(texts, references)
    sums = np.array(
        [
            max((_overlaps(text, each) for each in several), key=lambda row: float(_chrf(row[None])[0]))
            for text, several in zip(texts, references, strict=True)
        ]
    )
    value = float(_chrf(sums.sum(0, keepdims=True))[0])
    return Score(
        value, figure_interval(sums, _chrf, seed=seed, name="chrF"), f"nc:{CHARACTERS}|nw:0|space:no"
    )


def _check(texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(texts) != len(references) or not texts:
        raise ValueError(f"{len(texts)} texts and references for {len(references)}")
    for number, each in enumerate(references):
        if not each:
            raise ValueError(f"there is nothing to compare text {number} with")


def _bleu(sums: Float[np.ndarray, "n 10"]) -> Float[np.ndarray, " n"]:
    """Of lengths of texts and references, and of right and of all runs of one to four words; smoothed as by NIST."""
    length, wanted = sums[:, 0], sums[:, 1]
    right, all_ = sums[:, 2 : 2 + ORDERS], sums[:, 2 + ORDERS :]
    halved = 2.0 ** np.cumsum((right == 0) & (all_ > 0), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(right > 0, right, 1 / halved) / all_
        mean = np.exp(np.log(precisions).mean(axis=1))
        brevity = np.exp(np.minimum(0.0, 1 - wanted / length))
    return np.where((all_ > 0).all(1) & right.any(1), 100 * brevity * mean, 0.0)


def _overlaps(text: str, reference: str) -> Float[np.ndarray, " 18"]:
    """Of each length: the runs of a text, of its reference, and those in both."""
    row = []
    one, other = "".join(text.split()), "".join(reference.split())
    for n in range(1, CHARACTERS + 1):
        said, wanted = _runs(one, n), _runs(other, n)
        row += [said.total() if wanted else 0, wanted.total(), (said & wanted).total()]
    return np.array(row, np.float64)


def _runs(text: str, n: int) -> "Counter[Any]":
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _chrf(sums: Float[np.ndarray, "n 18"]) -> Float[np.ndarray, " n"]:
    said, wanted, same = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    counts = (said > 0) & (wanted > 0)
    used = np.maximum(counts.sum(1), 1)
    precision = np.divide(same, said, out=np.zeros_like(same), where=counts).sum(1) / used
    recall = np.divide(same, wanted, out=np.zeros_like(same), where=counts).sum(1) / used
    below = RECALL**2 * precision + recall
    above = (1 + RECALL**2) * precision * recall
    score: Float[np.ndarray, " n"] = np.divide(100 * above, below, out=np.zeros_like(above), where=below > 0)
    return score
