"""Linguistic minimal pairs: of two sentences that differ in one point of grammar, which one the model finds likelier.

Warstadt et al. 2020 (BLiMP, arXiv:1912.00582) and its relatives (ZhoBLiMP). A paradigm is some hundred pairs made by
one template, and the figure is the mean over paradigms. Pairs of a paradigm resemble each other, so an interval draws
whole paradigms: it says how far the figure would move with other paradigms of the kind, and it is an order of
magnitude wider than one that takes pairs for independent. A tie counts half: counted for the model, as elsewhere, a
model that says the same of everything would have all right.
"""

import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from gristmill.errors import InputError
from gristmill.evaluate.scoring import Scoring, scoring_for, sentence_scores
from gristmill.metrics.intervals import ratio_interval, wilson_interval
from gristmill.model.base import Model
from gristmill.objectives.base import Objective
from gristmill.tokenizer import Tokenizer

__all__ = ["CHANCE", "Pair", "json_lines", "measure_pairs", "pair_figures", "read_pairs"]

CHANCE = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A sentence that is right, one that is not, and what they are an instance of."""

    good: str
    bad: str
    paradigm: str
    phenomenon: str


def measure_pairs(
    model: Model,
    tokenizer: Tokenizer,
    path: Path,
    *,
    objective: Objective | None = None,
    how: Scoring | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns how often the model finds the right sentence likelier, as JSON values: see `pair_figures`.

    `protocol` says how sentences were scored, without which such figures can't be compared. `by_length_alone` is what
    a model gets that finds all tokens equally likely, and so the sentence of fewer tokens likelier.

    Args:
        model: any kind.
        tokenizer: its tokenizer.
        path: a file or folder that `read_pairs` reads.
        objective: what the model was trained with; None for weights from elsewhere.
        how: how sentences are scored; by default as `scoring_for` says for the objective.
        limit: the most pairs of each paradigm, the first ones.
        seed: of the bootstrap.

    Raises:
        InputError: there are no pairs, or the model can't be asked so.
    """
    pairs = read_pairs(path, limit=limit)
    vocabulary = tokenizer.vocabulary()
    how = how or scoring_for(objective, model.config, vocabulary)
    texts = tokenizer.encode_batch([sentence for pair in pairs for sentence in (pair.good, pair.bad)])
    scores = sentence_scores(model, vocabulary, texts, how=how).reshape(-1, 2)
    lengths = np.array([len(text) for text in texts]).reshape(-1, 2)
    return {
        "protocol": how.protocol,
        **pair_figures(pairs, scores[:, 0], scores[:, 1], seed=seed),
        "by_length_alone": _by_length_alone(pairs, lengths),
    }


def pair_figures(
    pairs: Sequence[Pair],
    good: Float[np.ndarray, " pairs"] | Int[np.ndarray, " pairs"],
    bad: Float[np.ndarray, " pairs"] | Int[np.ndarray, " pairs"],
    *,
    seed: int,
) -> dict[str, Any]:
    """Returns accuracies with intervals: overall and by phenomenon means over paradigms, and of each paradigm.

    The intervals of means draw whole paradigms, and are None where there is one. That of a paradigm is Wilson's, of
    its pairs.

    Raises:
        InputError: there are no pairs.
        ValueError: a score is not a number.
    """
    if not pairs:
        raise InputError("there are no minimal pairs to score")
    if np.isnan(good).any() or np.isnan(bad).any():
        raise ValueError("a score is not a number, so it is neither more nor less than another")
    right = _right(good, bad)
    by_paradigm: dict[str, dict[str, Any]] = {
        name: {
            "phenomenon": pairs[members[0]].phenomenon,
            "accuracy": float(right[members].mean()),
            "interval": list(wilson_interval(int(right[members].sum()), len(members))),
            "pairs": len(members),
            "ties": int((good[members] == bad[members]).sum()),
        }
        for name, members in sorted(_paradigms(pairs).items())
    }
    phenomena: dict[str, list[dict[str, Any]]] = {}
    for figure in by_paradigm.values():
        phenomena.setdefault(figure["phenomenon"], []).append(figure)
    return {
        **_over_paradigms(list(by_paradigm.values()), seed),
        "chance": CHANCE,
        "by_phenomenon": {
            name: _over_paradigms(figures, seed) for name, figures in sorted(phenomena.items())
        },
        "by_paradigm": by_paradigm,
    }


def _right(good: np.ndarray, bad: np.ndarray) -> Float[np.ndarray, " pairs"]:
    right: Float[np.ndarray, " pairs"] = np.where(good == bad, 0.5, good > bad)
    return right


def _paradigms(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        members.setdefault(pair.paradigm, []).append(i)
    return members


def _by_length_alone(pairs: Sequence[Pair], lengths: Int[np.ndarray, "pairs 2"]) -> float:
    right = _right(-lengths[:, 0], -lengths[:, 1])
    return float(np.mean([right[members].mean() for members in _paradigms(pairs).values()]))


def _over_paradigms(figures: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    accuracies = [figure["accuracy"] for figure in figures]
    interval = ratio_interval(accuracies, [1] * len(accuracies), seed=seed)
    return {
        "accuracy": float(np.mean(accuracies)),
        "interval": None if interval is None else list(interval),
        "paradigms": len(figures),
        "pairs": sum(figure["pairs"] for figure in figures),
        "ties": sum(figure["ties"] for figure in figures),
    }


def read_pairs(path: Path, *, limit: int | None = None) -> list[Pair]:
    """Returns the pairs of a file, or of all `.jsonl` and `.jsonl.gz` files in a folder, in their order.

    A line is an object with `good`, `bad`, `uid` (the paradigm; by default the file's name) and `phenomenon` (by
    default the paradigm); the names that BLiMP's own files use are read too.

    Args:
        path: the file or folder.
        limit: the most pairs of each paradigm, the first ones; None takes all.

    Raises:
        InputError: there is no such file, or a line of it is no pair.
    """
    files = sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")]) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no minimal pairs", "its files should end in .jsonl or .jsonl.gz")
    counts: dict[str, int] = {}
    pairs = []
    for file in files:
        for where, row in json_lines(file):
            pair = _pair(row, where, file.name.split(".")[0])
            counts[pair.paradigm] = counts.get(pair.paradigm, 0) + 1
            if limit is None or counts[pair.paradigm] <= limit:
                pairs.append(pair)
    return pairs


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each line's place, for messages, and its object, of a `.jsonl` file that may be compressed (`.gz`).

    Raises:
        InputError: there is no such file, it is not text, or a line is no object.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}", "it should be JSON lines in UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{where} is {line.strip()[:40]}, but each line is an object")
        yield where, row


def _pair(row: dict[str, Any], where: str, file: str) -> Pair:
    good, bad = row.get("good", row.get("sentence_good")), row.get("bad", row.get("sentence_bad"))
    if not (isinstance(good, str) and isinstance(bad, str) and good and bad):
        raise InputError(
            f'{where} has no two sentences "good" and "bad"; it has {", ".join(sorted(row)) or "nothing"}'
        )
    paradigm = str(row.get("uid", row.get("UID", file)))
    phenomenon = str(row.get("phenomenon", row.get("linguistics_term", paradigm)))
    return Pair(good=good, bad=bad, paradigm=paradigm, phenomenon=phenomenon)
