"""A classifier of quality that a user has trained (`quality_training`), and the score that it gives a text.

A passage, some 256 units of a text, is the set of its units and of the pairs of neighbours among them, hashed into
buckets; a unit is a word, or one character of a script without spaces. Each bucket has a weight. The sum of the weights,
divided by the root of the number of buckets, is the margin of the passage; the mean over its passages is that of a
text, so that length alone makes no text better or worse; and a table turns margins into scores from 0 to 1000. All of
it is integers, so a score is the same on every machine.
"""

import ctypes
import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from gristmill.artifact import Artifact, open_artifact, write_json
from gristmill.corpus.features import (
    CLASS,
    DIGIT,
    EXAMINED_BYTES,
    HAN,
    LETTER,
    MARK,
    UNSPACED,
    address,
    character_classes,
    packed,
    word_hash,
)
from gristmill.corpus.features import SOURCE as TEXT_SOURCE
from gristmill.errors import CorruptArtifact, InputError
from gristmill.native import library

__all__ = [
    "BUCKET_BITS",
    "HIGHEST_SCORE",
    "KIND",
    "LARGEST_WEIGHT",
    "PASSAGE_UNITS",
    "WEIGHT_UNIT",
    "QualityClassifier",
    "Units",
    "buckets_of",
    "distinct_of",
    "mixed_array",
    "open_quality",
    "passages_of",
    "read_arrays",
    "root_of",
    "units_of",
]

KIND = "quality"
FORMAT = 1
SOURCE = TEXT_SOURCE.with_name("quality.c")
WEIGHTS, SETTINGS = "quality.safetensors", "quality.json"
BUCKET_BITS = 20
HIGHEST_SCORE = 1000
PASSAGE_UNITS = 256
WEIGHT_UNIT = 1 << 16
"""A weight of one, as an integer; the margin has the same unit."""
LARGEST_WEIGHT = 1 << 30
_FORM = {"format": FORMAT, "bucket_bits": BUCKET_BITS, "passage_units": PASSAGE_UNITS}


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of some texts, one text after the other."""

    hashes: UInt64[np.ndarray, " units"]
    spans: Int[np.ndarray, "units 2"]
    """Where each begins and ends in its text, in characters."""
    counts: Int[np.ndarray, " texts"]
    """How many each text has."""


class QualityClassifier:
    """Weights of buckets, and a table from margins to scores."""

    def __init__(self, buckets: Any, weights: Any, bias: int, thresholds: Any) -> None:
        """Takes the buckets that have a weight, in order; and the least margin of each score from 1 to 1000."""
        self.buckets = np.ascontiguousarray(buckets, dtype=np.uint32)
        self.weights = np.ascontiguousarray(weights, dtype=np.int32)
        self.bias = bias
        self.thresholds = np.ascontiguousarray(thresholds, dtype=np.int64)
        self._table = np.zeros(1 << BUCKET_BITS, dtype=np.int32)
        self._table[self.buckets] = self.weights

    def scores(self, texts: Sequence[str]) -> Int[np.ndarray, " texts"]:
        """Returns a score from 0 to 1000 for each text: the probability, in thousandths, that it is a good one.

        It is the probability where good and bad texts are equally frequent. A text without units has that of the bias.
        """
        return self.scores_of_buffer(*packed(texts))

    def scores_of_buffer(
        self, data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]
    ) -> Int[np.ndarray, " texts"]:
        """Returns the same for texts that lie one after the other in UTF-8, as Arrow has them."""
        margins = self.margins_of_buffer(data, offsets)
        return np.searchsorted(self.thresholds, margins, side="right").astype(np.int32)

    def margins_of_buffer(
        self, data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]
    ) -> Int[np.ndarray, " texts"]:
        """Returns the margins before they become scores, in units of 2^-16."""
        compiled = library(SOURCE, include=TEXT_SOURCE)
        if compiled is None:
            return self._margins(units_of_buffer(data, offsets)) + self.bias
        margins = np.zeros(len(offsets) - 1, dtype=np.int64)
        whole = compiled.gristmill_quality(
            address(data), address(offsets), ctypes.c_int64(len(margins)), address(character_classes()),
            address(self._table), ctypes.c_int64(BUCKET_BITS), ctypes.c_int64(PASSAGE_UNITS), address(margins),
        )  # fmt: skip
        if not whole:
            raise MemoryError("scoring a text")
        return margins + self.bias

    def _margins(self, units: Units) -> Int[np.ndarray, " texts"]:
        lengths, owners = passages_of(units.counts)
        _, buckets, distinct = buckets_of(units.hashes, lengths)
        passages = np.repeat(np.arange(len(lengths)), distinct)
        sums = np.zeros(len(lengths), dtype=np.int64)
        np.add.at(sums, passages, self._table[buckets].astype(np.int64))
        totals = np.zeros(len(units.counts), dtype=np.int64)
        np.add.at(totals, owners, (sums << 12) // root_of(distinct))
        return totals // np.maximum(np.bincount(owners, minlength=len(totals)), 1)

    def write(self, directory: Path) -> None:
        """Writes the classifier's two files."""
        from safetensors.numpy import save_file

        arrays: dict[str, Any] = {
            "buckets": self.buckets,
            "weights": self.weights,
            "thresholds": self.thresholds,
        }
        save_file(arrays, directory / WEIGHTS)
        write_json(directory / SETTINGS, {**_FORM, "bias": self.bias})

    @classmethod
    def read(cls, directory: Path) -> "QualityClassifier":
        """Returns the classifier whose files lie in a directory.

        Raises:
            CorruptArtifact: they are not what `write` writes.
        """
        path = directory / WEIGHTS
        arrays = read_arrays(path, {"buckets": np.uint32, "weights": np.int32, "thresholds": np.int64})
        try:
            settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
            bias, form = settings.pop("bias"), settings
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptArtifact(f"{directory / SETTINGS} is damaged: {error}", "train it again") from None
        if form != _FORM:
            raise InputError(f"{directory} was written by another version", "train the classifier again")
        buckets, weights, thresholds = arrays["buckets"], arrays["weights"], arrays["thresholds"]
        is_right = (
            type(bias) is int
            and len(buckets) == len(weights)
            and (np.diff(buckets.astype(np.int64)) > 0).all()
            and (not len(buckets) or int(buckets[-1]) < 1 << BUCKET_BITS)
            and (np.abs(weights.astype(np.int64)) <= LARGEST_WEIGHT).all()
            and len(thresholds) == HIGHEST_SCORE
            and (np.diff(thresholds) >= 0).all()
        )
        if not is_right:
            raise CorruptArtifact(f"{path} does not hold a classifier", "train it again")
        return cls(buckets, weights, bias, thresholds)


def open_quality(artifact: Artifact | Path) -> QualityClassifier:
    """Returns the classifier of an artifact, or of the path of one, whose files are then verified."""
    opened = open_artifact(artifact, KIND) if isinstance(artifact, Path) else artifact
    return QualityClassifier.read(opened.path)


def root_of(distinct: Int[np.ndarray, " passages"]) -> Int[np.ndarray, " passages"]:
    """Returns 2^12 times the root of numbers of at least 1, rounded down: exactly, as roots are in IEEE arithmetic."""
    return np.sqrt((distinct << 24).astype(np.float64)).astype(np.int64)


def passages_of(
    counts: Int[np.ndarray, " texts"],
) -> tuple[Int[np.ndarray, " passages"], Int[np.ndarray, " passages"]]:
    """Returns how many units each passage has, of texts with so many units, and which text it is of.

    A text is divided evenly into as few passages as can be.
    """
    passages = -(-counts // PASSAGE_UNITS)
    owners = np.repeat(np.arange(len(counts)), passages)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(passages) - passages, passages)
    units, parts = counts[owners], passages[owners]
    return units * (number + 1) // parts - units * number // parts, owners


def units_of(texts: Sequence[str]) -> Units:
    """Returns the units of texts."""
    return units_of_buffer(*packed(texts))


def units_of_buffer(data: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " texts_and_one"]) -> Units:
    """Returns the units of texts that lie one after the other in UTF-8."""
    compiled = library(SOURCE, include=TEXT_SOURCE)
    texts = len(offsets) - 1
    if compiled is None:
        found = [_units(data[a:b].tobytes().decode()) for a, b in itertools.pairwise(offsets)]
        return Units(
            np.array([value for part in found for value in part[0]], dtype=np.uint64),
            np.array([span for part in found for span in part[1]], dtype=np.int32).reshape(-1, 2),
            np.array([len(part[0]) for part in found], dtype=np.int64),
        )
    room = int(offsets[-1] - offsets[0]) + 1
    hashes, spans = np.empty(room, dtype=np.uint64), np.empty((room, 2), dtype=np.int32)
    counts = np.zeros(texts, dtype=np.int64)
    compiled.gristmill_units.restype = ctypes.c_int64
    total = compiled.gristmill_units(
        address(data), address(offsets), ctypes.c_int64(texts), address(character_classes()), address(counts),
        address(hashes), address(spans),
    )  # fmt: skip
    if total < 0:
        raise MemoryError("finding the units of a text")
    return Units(hashes[:total].copy(), spans[:total].copy(), counts)


def buckets_of(
    hashes: UInt64[np.ndarray, " units"], lengths: Int[np.ndarray, " passages"]
) -> tuple[Any, Any, Any]:
    """Returns the buckets of all units and pairs, the distinct ones of each passage, and how many it has.

    The first are (2, units): of each unit, and of the pair that begins there. The last unit of a passage begins none;
    its own bucket stands in that place.
    """
    pairs = hashes.copy()
    if len(hashes):
        pairs = mixed_array(hashes * np.uint64(31) + np.append(hashes[1:], np.uint64(0)))
        last = np.cumsum(lengths) - 1
        pairs[last] = hashes[last]
    table = np.stack([hashes, pairs]) >> np.uint64(64 - BUCKET_BITS)
    passage = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    keys = distinct_of(((passage << np.uint64(BUCKET_BITS)) | table).ravel())
    distinct = np.bincount((keys >> np.uint64(BUCKET_BITS)).astype(np.int64), minlength=len(lengths))
    return table.astype(np.int64), (keys & np.uint64((1 << BUCKET_BITS) - 1)).astype(np.int64), distinct


def distinct_of(values: Any) -> Any:
    """Returns the different numbers of a vector in order; `np.unique` hashes, which takes five times as long."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def mixed_array(values: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Returns `features.mixed` of each number."""
    half, factor = np.uint64(32), np.uint64(0xD6E8FEB86659FD93)
    for _ in range(2):
        values = (values ^ (values >> half)) * factor
    mixed: UInt64[np.ndarray, "*shape"] = values ^ (values >> half)
    return mixed


def read_arrays(path: Path, types: dict[str, Any]) -> dict[str, Any]:
    """Returns the vectors of a safetensors file: just these names, with these types.

    Raises:
        CorruptArtifact: the file is damaged or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CorruptArtifact(f"{path} is not a whole safetensors file: {error}", "train it again") from None
    found = {name: (array.dtype, array.ndim) for name, array in arrays.items()}
    if found != {name: (np.dtype(kind), 1) for name, kind in types.items()}:
        raise CorruptArtifact(f"{path} holds other arrays than {', '.join(types)}", "train it again")
    return arrays


# --- the same in Python ---------------------------------------------------------------------------------------------


def _units(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    if len(text) * 4 > EXAMINED_BYTES:
        text = text.encode()[:EXAMINED_BYTES].decode("utf-8", "ignore")
    kinds = (character_classes()[[ord(c) for c in text]] & CLASS).tolist() if text else []
    spans, start = [], 0
    for i, kind in enumerate(kinds):
        if kind in (LETTER, MARK, DIGIT):
            continue
        if i > start:
            spans.append((start, i))
        if kind in (HAN, UNSPACED):
            spans.append((i, i + 1))
        start = i + 1
    if start < len(text):
        spans.append((start, len(text)))
    return [word_hash(_ascii_lower(text[start:end])) for start, end in spans], spans


def _ascii_lower(word: str) -> str:
    return "".join(c.lower() if c < "\x80" else c for c in word)
