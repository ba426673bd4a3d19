"""Training a classifier of quality on a few hundred documents, and what can honestly be said of it.

Two ways to say what is good: documents that a person has labelled, good and bad; or a seed of good ones alone, which
is told from a random sample of the corpus (as GPT-3's and DCLM's filters were made). In the second way the sample holds
good documents too, so that the figures of the report are lower than the truth.

The model is logistic regression over hashed units and pairs, regularised with L2. How strongly, is chosen by cross
validation; every figure of the report is of documents that neither the weights nor that choice have seen. Margins become
probabilities by Platt's method (1999): two parameters, which a few hundred documents can bear; isotonic regression
needs some thousand (Niculescu-Mizil and Caruana 2005), and would make scores of steps.
"""

import collections
import dataclasses
import hashlib
import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gristmill import artifact
from gristmill.artifact import Artifact
from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.features import features
from gristmill.corpus.files import find_files, open_stream
from gristmill.corpus.language import languages_of
from gristmill.corpus.normalise import digest_of, normalise
from gristmill.corpus.quality import (
    BUCKET_BITS,
    HIGHEST_SCORE,
    KIND,
    LARGEST_WEIGHT,
    WEIGHT_UNIT,
    QualityClassifier,
    Units,
    buckets_of,
    distinct_of,
    passages_of,
    root_of,
    units_of,
)
from gristmill.corpus.read import ReadOptions, Record, inspect, records
from gristmill.errors import InputError

__all__ = [
    "Example",
    "QualityConfig",
    "area_interval",
    "area_under_curve",
    "check_count",
    "documents_of",
    "examples_of",
    "fit",
    "fit_to",
    "proportion_interval",
    "read_examples",
    "sample",
    "train_quality",
]

FORMAT_VERSION = 1
LEAST_DOCUMENTS = 20
"""Of each class; below that even a perfect classifier could not be told from a lucky one."""
FEW_DOCUMENTS = 100
STRENGTHS = (1e-2, 1e-3, 1e-4)
"""Of the regularisation: the factor of half the squared weights beside the mean log loss."""
SUSPICIOUS = 0.9
"""An area under the curve that something beside the point (length, language, one phrase) should not reach."""
SUSPICIOUS_LANGUAGE = 0.6
MOST_COLUMNS = 1 << 16
"""So many buckets, those of the most documents, are learned from: it bounds the seconds."""
TELLING = 20
SHOWN_SCORES = (250, 500, 750, 900)
_Z = 1.959963984540054


class Example(NamedTuple):
    """A text whose quality is known."""

    text: str
    is_good: bool
    source: str = ""
    """The file it came from, or whatever documents of one origin have in common."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """What a classifier is trained on: `good` and `bad`, or `seed` alone."""

    good: tuple[str, ...] = ()
    """Files, folders and globs of good documents."""
    bad: tuple[str, ...] = ()
    """The same of bad ones."""
    seed: tuple[str, ...] = ()
    """The same of documents that the corpus should have more of; they are told from a sample of the corpus."""
    exclude: tuple[str, ...] = ()
    text_column: str | None = None
    most_documents: int = 5000
    """Of more documents of a class a random sample is taken."""
    passages: int = 4
    """Of a longer document so many passages are learned from."""
    folds: int = 5

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if bool(self.seed) == bool(self.good or self.bad) or bool(self.good) != bool(self.bad):
            raise InputError(
                "a classifier of quality needs good and bad documents, or a seed of good ones alone",
                'set good = ["…"] and bad = ["…"], or seed = ["…"]',
            )
        if self.most_documents < LEAST_DOCUMENTS or self.passages < 1 or self.folds < 3:
            raise InputError(f"most_documents is {LEAST_DOCUMENTS} or more, passages 1, folds 3")


def train_quality(
    config: QualityConfig, out: Path, *, unlabelled: Iterable[tuple[str, str]] = (), seed: int = 0
) -> Artifact:
    """Returns a trained classifier in the directory `out`; its metrics are the report.

    `unlabelled` yields texts of the corpus and their sources, for a config with a `seed`.

    Raises:
        InputError: there are too few documents, or nothing tells good from bad.
    """
    examples = examples_of(config, unlabelled, seed=seed)
    content = hashlib.sha256(
        "".join(sorted(f"{digest_of(e.text).hex()}{e.is_good}{e.source}" for e in examples)).encode()
    )
    settings = {**dataclasses.asdict(config), "inputs": content.hexdigest()}
    key = artifact.artifact_key(KIND, FORMAT_VERSION, settings, None, seed)
    existing = artifact.find(out, key)
    if existing is not None:
        return existing
    with artifact.draft(out, kind=KIND, format_version=FORMAT_VERSION, config=settings, seed=seed) as work:
        classifier, report = fit_to(config, examples)
        classifier.write(work.path)
        work.metrics.update(report)
    return artifact.open_artifact(out, KIND, verify=False)


def examples_of(
    config: QualityConfig, unlabelled: Iterable[tuple[str, str]] = (), *, seed: int = 0
) -> list[Example]:
    """Returns what a classifier is trained on: labelled documents, or a seed and of `unlabelled` twice as many others.

    Raises:
        InputError: a source names nothing, or can't be read.
    """
    if not config.seed:
        good = read_examples(config.good, True, config, seed)
        return good + read_examples(config.bad, False, config, seed)
    good = read_examples(config.seed, True, config, seed)
    known = {digest_of(example.text) for example in good}
    wanted = len(good) + max(LEAST_DOCUMENTS, 2 * len(good))
    return good + [
        Example(text, False, source)
        for text, source in sample(unlabelled, seed, most=min(wanted, config.most_documents))
        if digest_of(text) not in known
    ]


def fit_to(config: QualityConfig, examples: Sequence[Example]) -> tuple[QualityClassifier, dict[str, Any]]:
    """Returns a classifier and the report on it, as `fit` does, by the settings of a config."""
    labels: Literal["labelled", "seed"] = "seed" if config.seed else "labelled"
    return fit(examples, labels=labels, folds=config.folds, passages=config.passages)


def read_examples(sources: Sequence[str], is_good: bool, config: QualityConfig, seed: int) -> list[Example]:
    """Returns the documents of sources, normalised; a sample where there are more than `most_documents`."""
    documents = documents_of(sources, config.exclude, config.text_column)
    return [
        Example(text, is_good, source) for text, source in sample(documents, seed, most=config.most_documents)
    ]


def documents_of(
    sources: Sequence[str], exclude: Sequence[str] = (), text_column: str | None = None
) -> Iterator[tuple[str, str]]:
    """Yields the documents of sources, normalised, and the files they are from; rows without a text are passed over.

    Raises:
        InputError: a file can't be read.
    """
    options = ReadOptions(text_column)
    for file in find_files(sources, exclude).files:
        try:
            layout = inspect(file, options)
            with open_stream(file) as stream:
                for item in records(stream, file, layout, options):
                    if isinstance(item, Record):
                        yield normalise(item.text).text, file.name
        except UnreadableError as error:
            raise InputError(error.message, error.hint or "leave it out with exclude") from None


def sample(
    texts: Iterable[tuple[str, str]], seed: int, *, most: int | None = None, most_bytes: int | None = None
) -> list[tuple[str, str]]:
    """Returns so many of the texts and their sources, or as few as make so many bytes, shuffled; equal texts once.

    Which ones, and their order, depend on the texts and the seed, not on the order they come in. No more than these
    are held in memory.
    """
    chosen: dict[int, tuple[str, str, int]] = {}
    ranks: list[int] = []  # of the chosen, the largest first, as a heap of negative numbers
    total = 0
    for text, source in texts:
        data = text.strip().encode()
        rank = int.from_bytes(hashlib.sha256(b"%d\n" % seed + data).digest()[:8], "big")
        if not data or rank in chosen:
            continue
        chosen[rank] = (text, source, len(data))
        heapq.heappush(ranks, -rank)
        total += len(data)
        while (most is not None and len(chosen) > most) or (
            most_bytes is not None and total - chosen[-ranks[0]][2] >= most_bytes
        ):
            total -= chosen.pop(-heapq.heappop(ranks))[2]
    return [chosen[rank][:2] for rank in sorted(chosen)]


def fit(
    examples: Sequence[Example],
    *,
    labels: Literal["labelled", "seed"] = "labelled",
    folds: int = 5,
    passages: int = 4,
) -> tuple[QualityClassifier, dict[str, Any]]:
    """Returns a classifier and the report on it.

    The same examples in another order give the same. Texts that stand in both classes are left out.

    Raises:
        InputError: there are too few documents, or nothing tells good from bad.
    """
    chosen, twofold = _unambiguous(examples)
    counts = [sum(example.is_good == is_good for example in chosen) for is_good in (True, False)]
    for count, name in zip(counts, ("good", "bad" if labels == "labelled" else "unlabelled"), strict=True):
        check_count(count, name)
    is_good = np.array([example.is_good for example in chosen])
    units = units_of([example.text for example in chosen])
    design = _design(units, passages)
    if not len(design.columns):
        raise InputError("no two documents have a word in common", "look at what the sources hold")
    fold = _folds(is_good, folds)
    held_out = _cross_validated(design, is_good, fold)
    area = area_under_curve(held_out.margins, is_good)
    slope, intercept = _platt(held_out.margins, is_good)
    if slope <= 0 or area_interval(area, *counts)[0] <= 0.5:
        raise InputError(
            f"nothing in the words tells good from bad: the area under the curve is {area:.2f}, chance is 0.5",
            "label more documents, or look whether the labels mean what they should",
        )
    weights, bias = _solve(design, is_good, held_out.strength, np.ones(len(is_good), dtype=bool))
    classifier = _as_integers(design, weights, bias, slope, intercept)
    written = _Written(units, [example.text for example in chosen])
    report = {
        "labels": labels,
        "documents": {"good": counts[0], "bad": counts[1], "in_both_classes": twofold},
        "features": len(design.columns),
        "strength": held_out.strength,
        **_measured(held_out.margins, is_good, fold),
        "telling": _telling(design, weights, is_good, written),
        "checks": {
            **_checks(chosen, is_good, design, written),
            "unseen_sources": _unseen_sources(chosen, is_good, design, area, held_out.strength),
        },
    }
    report["warnings"] = _warnings(report, labels)
    return classifier, report


def check_count(count: int, name: str) -> None:
    """Raises InputError where there are too few documents of a class."""
    if count < LEAST_DOCUMENTS:
        raise InputError(
            f"there are {count} {name} documents, expected {LEAST_DOCUMENTS} or more",
            "a few hundred of each class make a good classifier, 50 a rough one",
        )


def area_under_curve(
    values: Float[np.ndarray, " n"] | Int[np.ndarray, " n"], is_good: Bool[np.ndarray, " n"]
) -> float:
    """Returns how often a good one's value is above a bad one's; a tie counts half."""
    from scipy.stats import rankdata

    good = int(is_good.sum())
    pairs = good * (len(is_good) - good)
    return float((rankdata(values)[is_good].sum() - good * (good + 1) / 2) / pairs)


def area_interval(area: float, good: int, bad: int) -> tuple[float, float]:
    """Returns a 95 % interval of an area under the curve, by Newcombe's fifth method (2006).

    It holds at the ends too: of 20 and 20 documents that were told apart without error, the area is above 0.89.
    """
    from scipy.optimize import brentq

    size = (good + bad) / 2 - 1

    def away(theta: float) -> float:
        spread = 1 + size * (1 - theta) / (2 - theta) + size * theta / (1 + theta)
        variance = theta * (1 - theta) * spread / (good * bad)
        return float(abs(theta - area) - _Z * np.sqrt(variance))

    least, most = 1e-12, 1 - 1e-12
    low = 0.0 if area <= least or away(least) < 0 else brentq(away, least, min(area, most))
    high = 1.0 if area >= most or away(most) < 0 else brentq(away, max(area, least), most)
    return float(low), float(high)


def proportion_interval(count: int, total: int) -> tuple[float, float]:
    """Returns a 95 % interval of a proportion, by Wilson's method (1927)."""
    if total == 0:
        return 0.0, 1.0
    share, z = count / total, _Z
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


# --- documents to numbers -------------------------------------------------------------------------------------------


class _Design(NamedTuple):
    """What is learned from."""

    rows: Any
    """A sparse matrix, (passages, columns): 1 over the root of the passage's buckets where it has a bucket."""
    documents: Int[np.ndarray, " passages"]
    shares: Float[np.ndarray, " passages"]
    """One over the number of passages of the same document."""
    columns: Int[np.ndarray, " columns"]
    """The bucket of each column: those that most documents have, two at least."""
    total: int
    """How many documents there are; one without units has no passage."""


class _HeldOut(NamedTuple):
    margins: Float[np.ndarray, " documents"]
    """Of each document, from weights that were chosen without it."""
    strength: float


def _unambiguous(examples: Sequence[Example]) -> tuple[list[Example], int]:
    """Returns the examples, equal texts once, in an order of their own; and how many texts stand in both classes."""
    found: dict[bytes, Example] = {}
    classes: dict[bytes, set[bool]] = {}
    for example in sorted(examples):
        if example.text.strip():
            digest = digest_of(example.text)
            found.setdefault(digest, example)
            classes.setdefault(digest, set()).add(example.is_good)
    both = {digest for digest, values in classes.items() if len(values) > 1}
    return [found[digest] for digest in sorted(found) if digest not in both], len(both)


def _folds(is_good: Bool[np.ndarray, " documents"], folds: int) -> Int[np.ndarray, " documents"]:
    """Deals the documents of each class out in turn; they stand in the order of their hashes."""
    fold = np.empty(len(is_good), dtype=np.int64)
    for which in (is_good, ~is_good):
        fold[which] = np.arange(which.sum()) % folds
    return fold


def _design(units: Units, passages: int) -> _Design:
    import scipy.sparse

    lengths, owners = passages_of(units.counts)
    number = np.bincount(owners, minlength=len(units.counts))
    place = np.arange(len(owners)) - (np.cumsum(number) - number)[owners]
    wanted = np.minimum(number, passages)[owners]
    total = number[owners]
    is_chosen = (place * wanted) // total != ((place + 1) * wanted) // total  # evenly over the document
    _, buckets, distinct = buckets_of(units.hashes, lengths)
    row = np.repeat(np.arange(len(lengths)), distinct)
    keep = is_chosen[row]
    row, buckets = row[keep], buckets[keep]
    pairs = distinct_of(owners[row] << BUCKET_BITS | buckets)
    frequency = np.bincount(pairs & ((1 << BUCKET_BITS) - 1), minlength=1 << BUCKET_BITS)
    often = np.flatnonzero(frequency >= 2)
    columns = np.sort(often[np.argsort(-frequency[often], kind="stable")[:MOST_COLUMNS]])
    place_of = np.full(1 << BUCKET_BITS, -1, dtype=np.int64)
    place_of[columns] = np.arange(len(columns))
    known = place_of[buckets] >= 0
    row, buckets = row[known], buckets[known]
    values = (1 << 12) / root_of(np.maximum(distinct, 1))
    chosen = np.flatnonzero(is_chosen)
    renumbered = np.cumsum(is_chosen) - 1
    matrix = scipy.sparse.csr_matrix(
        (values[row], (renumbered[row], place_of[buckets])), shape=(len(chosen), len(columns))
    )
    documents = owners[chosen]
    share = 1 / np.bincount(documents, minlength=len(units.counts))[documents]
    return _Design(matrix, documents, share, columns, len(units.counts))


# --- learning -------------------------------------------------------------------------------------------------------


def _solve(
    design: _Design,
    is_good: Bool[np.ndarray, " documents"],
    strength: float,
    which: Bool[np.ndarray, " documents"],
    start: Any = None,
) -> tuple[Float[np.ndarray, " columns"], float]:
    """Returns the weights and the bias that fit the chosen documents; both classes count the same, whatever their size."""
    from scipy.optimize import minimize

    rows = np.flatnonzero(which[design.documents])
    matrix = design.rows[rows]
    transposed = matrix.T.tocsr()
    good = is_good[design.documents[rows]]
    sign = np.where(good, 1.0, -1.0)
    importance = design.shares[rows].copy()
    for kind in (good, ~good):
        importance[kind] /= 2 * importance[kind].sum()

    def loss(point: Any) -> tuple[float, Any]:
        weights = point[:-1]
        margin = sign * (matrix @ weights + point[-1])
        slope = -sign * importance * np.exp(-np.logaddexp(0, margin))
        value = importance @ np.logaddexp(0, -margin) + 0.5 * strength * (weights @ weights)
        return float(value), np.append(transposed @ slope + strength * weights, slope.sum())

    begin = np.zeros(matrix.shape[1] + 1) if start is None else np.append(*start)
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": 100, "ftol": 1e-7})
    return found.x[:-1], float(found.x[-1])


def _margins(design: _Design, weights: Any, bias: float) -> Float[np.ndarray, " documents"]:
    """Returns for each document the mean margin of its passages; of one without units, the bias."""
    return np.bincount(design.documents, design.shares * (design.rows @ weights), design.total) + bias


def _cross_validated(
    design: _Design, is_good: Bool[np.ndarray, " documents"], fold: Int[np.ndarray, " documents"]
) -> _HeldOut:
    """Returns margins of documents that had no part in them, not even in the choice of the strength.

    For a fold that is held out, the strength is that with the least loss on the other folds, each held out from
    models that have not seen the first either: one model for each pair of folds serves two of them.
    """
    folds = range(int(fold.max()) + 1)
    alone = {f: _path(design, is_good, fold != f) for f in folds}
    paired = {
        pair: _path(design, is_good, (fold != pair[0]) & (fold != pair[1]))
        for pair in itertools.combinations(folds, 2)
    }
    margins = np.empty(len(is_good))
    for f in folds:
        losses = np.zeros(len(STRENGTHS))
        for g in folds:
            if g != f:
                losses += _losses(paired[min(f, g), max(f, g)], is_good, fold == g)
        margins[fold == f] = alone[f][int(np.argmin(losses))][fold == f]
    overall = sum(_losses(alone[f], is_good, fold == f) for f in folds)
    return _HeldOut(margins, STRENGTHS[int(np.argmin(overall))])


def _path(design: _Design, is_good: Any, which: Any) -> list[Float[np.ndarray, " documents"]]:
    """Returns the margins of all documents for each strength, learned from the chosen ones."""
    found, start = [], None
    for strength in STRENGTHS:
        start = _solve(design, is_good, strength, which, start)
        found.append(_margins(design, *start))
    return found


def _losses(margins: Sequence[Any], is_good: Any, which: Any) -> Float[np.ndarray, " strengths"]:
    good = is_good[which]
    sign = np.where(good, 1.0, -1.0)
    importance = np.where(good, 0.5 / max(good.sum(), 1), 0.5 / max((~good).sum(), 1))
    return np.array([importance @ np.logaddexp(0, -sign * m[which]) for m in margins])


def _platt(
    margins: Float[np.ndarray, " documents"], is_good: Bool[np.ndarray, " documents"]
) -> tuple[float, float]:
    """Returns the slope and intercept that turn margins into log odds.

    Both classes count the same. Platt's targets, (n + 1) / (n + 2), keep the slope finite where nothing overlaps.
    """
    from scipy.optimize import minimize

    good, bad = int(is_good.sum()), int((~is_good).sum())
    target = np.where(is_good, (good + 1) / (good + 2), 1 / (bad + 2))
    importance = np.where(is_good, 0.5 / good, 0.5 / bad)
    scale = float(np.std(margins)) or 1.0
    values = margins / scale

    def loss(point: Any) -> tuple[float, Any]:
        odds = point[0] * values + point[1]
        slope = importance * (np.exp(-np.logaddexp(0, -odds)) - target)
        value = importance @ (np.logaddexp(0, odds) - target * odds)
        return float(value), np.array([slope @ values, slope.sum()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    return float(found[0]) / scale, float(found[1])


def _as_integers(
    design: _Design, weights: Any, bias: float, slope: float, intercept: float
) -> QualityClassifier:
    rounded = np.clip(np.rint(weights * WEIGHT_UNIT), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int64)
    chosen = np.flatnonzero(rounded)
    middle = (np.arange(1, HIGHEST_SCORE + 1) - 0.5) / HIGHEST_SCORE
    margins = (np.log(middle / (1 - middle)) - intercept) / slope
    limit = float(1 << 60)
    thresholds = np.ceil(np.clip(margins * WEIGHT_UNIT, -limit, limit)).astype(np.int64)
    return QualityClassifier(design.columns[chosen], rounded[chosen], round(bias * WEIGHT_UNIT), thresholds)


# --- the report -----------------------------------------------------------------------------------------------------


def _measured(margins: Any, is_good: Any, fold: Any) -> dict[str, Any]:
    """Returns figures of held-out documents; their probabilities come from the other folds' margins."""
    probability = np.empty(len(margins))
    for f in range(int(fold.max()) + 1):
        slope, intercept = _platt(margins[fold != f], is_good[fold != f])
        probability[fold == f] = np.exp(-np.logaddexp(0, -(slope * margins[fold == f] + intercept)))
    score = np.floor(probability * HIGHEST_SCORE + 0.5).astype(np.int64)
    good, bad = int(is_good.sum()), int((~is_good).sum())
    area = area_under_curve(margins, is_good)
    thresholds = []
    for least in SHOWN_SCORES:
        kept, right = int((score >= least).sum()), int((score[is_good] >= least).sum())
        thresholds.append(
            {
                "score": least,
                "precision": _share(right, kept),
                "recall": _share(right, good),
                "bad_kept": _share(kept - right, bad),
            }
        )
    importance = np.where(is_good, 0.5 / good, 0.5 / bad)
    place = np.minimum(score * 10 // HIGHEST_SCORE, 9)
    total = np.bincount(place, importance, 10)
    said = np.bincount(place, importance * probability, 10)
    true = np.bincount(place, importance * is_good, 10)
    bins = [
        {
            "said": round(said[i] / total[i], 4),
            "true": round(true[i] / total[i], 4),
            "documents": int((place == i).sum()),
        }
        for i in np.flatnonzero(total)
    ]
    return {
        "area_under_curve": {"value": round(area, 4), "interval": _rounded(area_interval(area, good, bad))},
        "thresholds": thresholds,
        "calibration": {"error": round(float(np.abs(said - true).sum()), 4), "bins": bins},
    }


def _share(count: int, total: int) -> dict[str, Any]:
    value = round(count / total, 4) if total else None
    return {
        "value": value,
        "interval": _rounded(proportion_interval(count, total)),
        "count": count,
        "of": total,
    }


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(value, 4) for value in interval]


class _Written:
    """What the buckets stand for in the texts."""

    def __init__(self, units: Units, texts: Sequence[str]) -> None:
        self._units, self._texts = units, texts
        self._table = buckets_of(units.hashes, passages_of(units.counts)[0])[0]
        self._ends = np.cumsum(units.counts)

    def __call__(self, bucket: int) -> str:
        """Returns what stands most often where a bucket is: two words may share one."""
        found: collections.Counter[str] = collections.Counter()
        for pair in (0, 1):
            for place in np.flatnonzero(self._table[pair] == bucket)[:50]:
                owner = int(np.searchsorted(self._ends, place, side="right"))
                last = min(int(place) + pair, int(self._ends[owner]) - 1)
                start, end = self._units.spans[place][0], self._units.spans[last][1]
                found[self._texts[owner][start:end].lower()] += 1
        return min(found, key=lambda written: (-found[written], len(written), written))


def _telling(
    design: _Design, weights: Any, is_good: Any, written: _Written
) -> dict[str, list[dict[str, Any]]]:
    """Returns the units and pairs that tell most: weight times the difference of their shares of documents."""
    good, bad = _frequencies(design, is_good)
    effect = weights * np.abs(good / is_good.sum() - bad / (~is_good).sum())
    order = np.argsort(effect, kind="stable")
    shown = {}
    for name, chosen in (("good", order[::-1][:TELLING]), ("bad", order[:TELLING])):
        shown[name] = [
            {
                "text": written(int(design.columns[i])),
                "weight": round(float(weights[i]), 4),
                "good_documents": int(good[i]),
                "bad_documents": int(bad[i]),
            }
            for i in chosen
            if (weights[i] > 0) == (name == "good") and weights[i] != 0
        ]
    return shown


def _frequencies(design: _Design, is_good: Any) -> tuple[Any, Any]:
    """Returns for each column how many good documents have its bucket, and how many bad ones."""
    passages = design.rows.tocoo()
    pairs = distinct_of(design.documents[passages.row] * len(design.columns) + passages.col)
    document, column = np.divmod(pairs, max(len(design.columns), 1))
    return tuple(
        np.bincount(column[which[document]], minlength=len(design.columns)) for which in (is_good, ~is_good)
    )  # type: ignore[return-value]


def _checks(examples: Sequence[Example], is_good: Any, design: _Design, written: _Written) -> dict[str, Any]:
    """Returns what beside the point might tell the classes apart, and how well."""
    length = area_under_curve(np.array([len(example.text) for example in examples]), is_good)
    languages = np.array(languages_of(features([example.text for example in examples])))
    spoken = {
        name: {
            language: int((which & (languages == language)).sum())
            for language in sorted(set(languages.tolist()))
        }
        for name, which in (("good", is_good), ("bad", ~is_good))
    }
    apart = 0.5 * sum(
        abs(spoken["good"][language] / is_good.sum() - spoken["bad"][language] / (~is_good).sum())
        for language in spoken["good"]
    )
    good, bad = _frequencies(design, is_good)
    apart_by_unit = np.abs(good / is_good.sum() - bad / (~is_good).sum())
    single = int(np.argmax(apart_by_unit))
    return {
        "length_alone": round(max(length, 1 - length), 4),
        "languages": spoken,
        "language_alone": round(0.5 + 0.5 * float(apart), 4),
        "one_unit_alone": {
            "area_under_curve": round(0.5 + 0.5 * float(apart_by_unit[single]), 4),
            "text": written(int(design.columns[single])),
        },
    }


def _unseen_sources(
    examples: Sequence[Example], is_good: Any, design: _Design, area: float, strength: float
) -> dict[str, Any] | None:
    """Returns the area under the curve where whole sources are held out; None where a class has only one source.

    What is learned of a source (its boilerplate, its subject) does not help there; what is learned of quality does.
    """
    sources = np.array([example.source for example in examples])
    kinds = [sorted(set(sources[which].tolist())) for which in (is_good, ~is_good)]
    if min(map(len, kinds)) < 2:
        return None
    folds = min(5, *map(len, kinds))
    fold_of = {source: i % folds for kind in kinds for i, source in enumerate(_by_size(kind, sources))}
    fold = np.array([fold_of[source] for source in sources])
    margins = np.empty(len(is_good))
    for f in range(folds):
        weights, bias = _solve(design, is_good, strength, fold != f)
        margins[fold == f] = _margins(design, weights, bias)[fold == f]
    areas = [
        area_under_curve(margins[fold == f], is_good[fold == f])
        for f in range(folds)
        if 0 < is_good[fold == f].sum() < (fold == f).sum()
    ]
    if not areas:
        return None
    mean = float(np.mean(areas))
    return {"area_under_curve": round(mean, 4), "folds": len(areas), "lost": round(area - mean, 4)}


def _by_size(kind: Sequence[str], sources: Any) -> list[str]:
    return sorted(kind, key=lambda source: (-int((sources == source).sum()), source))


def _warnings(report: dict[str, Any], labels: str) -> list[str]:
    """Returns a sentence for each reason to doubt the figures."""
    found = []
    checks, documents = report["checks"], report["documents"]
    fewest = min(documents["good"], documents["bad"])
    if fewest < FEW_DOCUMENTS:
        found.append(f"only {fewest} documents of one class: look at the intervals; more would narrow them")
    if checks["length_alone"] > SUSPICIOUS:
        found.append(
            f"length alone tells the classes apart (area {checks['length_alone']:.2f}): "
            "take good and bad documents of like lengths"
        )
    if checks["language_alone"] > SUSPICIOUS_LANGUAGE:
        found.append(
            f"the classes differ in language (area {checks['language_alone']:.2f}): "
            "the classifier may have learned that; take both classes in each language"
        )
    if (one := checks["one_unit_alone"])["area_under_curve"] > SUSPICIOUS:
        found.append(
            f'one phrase alone tells the classes apart (area {one["area_under_curve"]:.2f}): "{one["text"]}"; '
            "if it is boilerplate or the name of a source, remove it from the texts"
        )
    unseen = checks["unseen_sources"]
    if unseen is None:
        found.append(
            "a class comes from one source only: whether quality was learned or that source can't be told"
        )
    elif unseen["lost"] > 0.05:
        found.append(
            f"on sources that it has not seen the area is {unseen['lost']:.2f} lower: "
            "it has partly learned the sources; add more of them"
        )
    if twofold := documents["in_both_classes"]:
        found.append(f"{twofold} texts stand in both classes and were left out")
    if labels == "seed":
        found.append(
            "the sample of the corpus holds good documents too: the true figures are better than these"
        )
    return found
