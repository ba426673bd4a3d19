"""Which documents hold what a model is to be tested with: found by runs of units, verified on the text.

A unit is that of `near`: a word, or one character where a script has no spaces. Capitals, full width and punctuation
make no difference. What counts as evidence that a document holds a text of an evaluation set:

    run     13 words in a row that both have (Brown et al. 2020, appendix C), or as much: a Chinese character weighs
            five eighths of a word, so that it takes 21 of them
    whole   a shorter text that the document has from end to end; under 6 words, 10 characters, texts are not looked for
    cover   seven tenths of the text stand in runs of five units or more, near each other (the share that Chowdhery et
            al. 2022, section 8, ask of runs of eight words), with one run of 6 words: a text of 13 words or more with
            small changes

A run that more than ten documents have, or more than ten different texts of the evaluation sets, is a phrase, a quotation
or a template: it is no evidence. Such finds are kept, and marked.

The index holds the evaluation sets; training text streams past. The five eighths: translations have 1.34 to 1.5
characters for a word of English, words of Chinese 1.5 to 2.1; 1.6 is taken, the careful side: of runs in an English
encyclopedia 26 in a million of 8 words and 22 of 13 words stand in 40 novels too, of runs in Chinese articles 8 of 13
characters and none of 21 in old novels.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Int, UInt8

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.features import CLASS, DIGIT, HAN, LETTER, MARK, UNSPACED, character_classes, packed
from gristmill.corpus.files import find_files, open_stream
from gristmill.corpus.near import SHINGLE, shingles_of_buffer
from gristmill.corpus.read import ReadOptions, Record, inspect, records
from gristmill.errors import InputError

__all__ = [
    "ContaminationSettings",
    "EvaluationSet",
    "Findings",
    "Hits",
    "Index",
    "Item",
    "cuts",
    "dropped",
    "find",
    "index_of",
    "joined",
    "read_items",
    "rows",
    "settle",
    "without",
]

WORD, CHARACTER = 8, 5
"""What units weigh: 13 words are 104, for which it takes 21 characters."""
WINDOW_BYTES, OVERLAP_BYTES = 4 << 20, 1 << 18
"""A longer document is looked at in pieces, so that memory stays bounded; a match is seen whole where it is shorter than
what two of them share."""

Kind = Literal["run", "whole", "cover", "common"]
KINDS: tuple[Kind, ...] = ("run", "whole", "cover", "common")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """A `[[corpus.contamination.sets]]` table: texts that must not be trained on."""

    files: tuple[str, ...]
    """Files, folders and globs, as sources are named."""
    columns: tuple[str, ...] = ()
    """The columns whose texts are looked for, each by itself: ["question", "answer"]. Leave out passages that are public
    anyway. Of a text file each paragraph is an item."""
    name: str | None = None
    """What a report calls it; the first of the files where it is not given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContaminationSettings:
    """The `[corpus.contamination]` table."""

    sets: tuple[EvaluationSet, ...] = ()
    """What is looked for; nothing where there are none."""
    words: Annotated[int, Ge(5)] = 13
    """A run of so many words is evidence."""
    least_words: Annotated[int, Ge(5)] = 6
    """Shorter texts are not looked for; a text with small changes has a run of so many words left."""
    cover: Annotated[float, Gt(0), Le(1)] | Literal[False] = 0.7
    """This share of a text in runs of five is evidence too; cover = false looks for long runs only."""
    most_documents: Annotated[int, Ge(1)] = 10
    """What more documents than these have, or more texts of the evaluation sets, is no evidence."""
    action: Literal["report", "drop", "cut"] = "drop"
    """What is done about a document: nothing, it is dropped, or what matches is cut out of it."""
    margin: Annotated[int, Ge(0)] = 200
    """So many characters on either side are cut too."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if self.least_words > self.words:
            raise InputError(
                f"least_words is {self.least_words}, more than words, {self.words}",
                "shorter texts are looked for whole",
            )


class Item(NamedTuple):
    """One question, or sentence, or passage of an evaluation set."""

    set: str
    number: int
    """Its row in the set, from 0."""
    parts: tuple[str, ...]
    """The texts of its columns."""


class Index(NamedTuple):
    """The texts of evaluation sets, such that a document can be looked up in them."""

    items: tuple[Item, ...]
    settings: ContaminationSettings
    parts: tuple[tuple[int, ...], ...]
    """The items that have each text. Texts that differ in nothing that counts are one."""
    first: Int[np.ndarray, " parts_and_one"]
    """Where the units of each text begin."""
    text: str
    """All texts, folded."""
    start: Int[np.ndarray, " units"]
    """Where each unit begins in it, and ends."""
    end: Int[np.ndarray, " units"]
    weight: Int[np.ndarray, " units_and_one"]
    """What the units before weigh."""
    gram_end: Int[np.ndarray, " units"]
    """The unit behind the shortest run from here that is evidence; -1 where its text ends before."""
    gram: Int[np.ndarray, " units"]
    """A number for that run, the same wherever it stands; -1."""
    shared: Bool[np.ndarray, " grams"]
    """Whether a run stands in more texts than are allowed."""
    keys: Any
    """The hashes of the shingles, ascending: uint32."""
    places: Int[np.ndarray, " shingles"]
    """The unit at which each of them begins."""
    table: Bool[np.ndarray, " slots"]
    """Whether a hash that begins with these bits is among the keys."""
    units_of_item: Int[np.ndarray, " items"]
    short: int
    """Texts that are too short to be looked for."""


class Hits(NamedTuple):
    """Runs that documents and texts of the index have in common, one after the other; equal occurrences belong together."""

    document: Int[np.ndarray, " runs"]
    """The document's key, or its number where no keys are given."""
    part: Int[np.ndarray, " runs"]
    occurrence: Int[np.ndarray, " runs"]
    first: Int[np.ndarray, " runs"]
    """The unit of the index at which the run begins, and the one behind its end."""
    last: Int[np.ndarray, " runs"]
    start: Int[np.ndarray, " runs"]
    """The character of the document at which it begins, and the one behind its end."""
    end: Int[np.ndarray, " runs"]
    start_byte: Int[np.ndarray, " runs"]
    end_byte: Int[np.ndarray, " runs"]


class Findings(NamedTuple):
    """What the hits come to, one for each occurrence of a text in a document."""

    hits: Hits
    """Sorted by occurrence."""
    kind: UInt8[np.ndarray, " occurrences"]
    """Of KINDS."""
    cover: Any
    """The share of the text's units that stand there: float64."""
    words: Any
    """The longest run, in words: float64."""
    begin: Int[np.ndarray, " occurrences_and_one"]
    """Where the runs of each occurrence begin in the hits."""


# --- the evaluation sets --------------------------------------------------------------------------------------------


def read_items(evaluation: EvaluationSet) -> Iterator[Item]:
    """Yields the items of a set.

    Raises:
        InputError: a file can't be read, or a column is not there.
    """
    name = evaluation.name or evaluation.files[0]
    number = 0
    for file in find_files(evaluation.files).files:
        if file.format != "text" and not evaluation.columns:
            raise InputError(
                f"{name}: columns are missing", 'say which texts are looked for: columns = ["question"]'
            )
        columns = evaluation.columns if file.format != "text" else (None,)
        texts = []
        for column in columns:
            options = ReadOptions(text_column=column, document_separator=None if column else "")
            try:
                layout = inspect(file, options)
                with open_stream(file) as stream:
                    texts.append([
                        record.text if isinstance(record, Record) else ""
                        for record in records(stream, file, layout, options)
                    ])  # fmt: skip
            except UnreadableError as error:
                raise InputError(error.message, error.hint) from None
        for parts in zip(*texts, strict=True):
            yield Item(name, number, tuple(parts))
            number += 1


def index_of(items: Iterable[Item], settings: ContaminationSettings | None = None) -> Index:
    """Returns the index of items."""
    settings = settings or ContaminationSettings()
    items = tuple(items)
    places: dict[tuple[str, ...], int] = {}
    owners: list[list[int]] = []
    texts: list[str] = []
    units_of_item = np.zeros(len(items), dtype=np.int64)
    short = 0
    for i, item in enumerate(items):
        for part in item.parts:
            folded = fold(part)
            start, end, weight = units(folded)
            units_of_item[i] += len(start)
            if weight.sum() < WORD * settings.least_words:
                short += len(start) > 0
                continue
            place = places.setdefault(tuple(folded[a:b] for a, b in zip(start, end, strict=True)), len(texts))
            if place == len(texts):
                texts.append(folded)
                owners.append([])
            if i not in owners[place][-1:]:
                owners[place].append(i)
    return _indexed(items, settings, texts, owners, units_of_item, short)


def _indexed(
    items: tuple[Item, ...],
    settings: ContaminationSettings,
    texts: list[str],
    owners: list[list[int]],
    units_of_item: Any,
    short: int,
) -> Index:
    text = "\n".join(texts)
    start, end, weights = units(text)
    bounds = np.cumsum([0, *(len(part) + 1 for part in texts)])
    first = np.searchsorted(start, bounds)
    weight = np.concatenate([[0], np.cumsum(weights)])
    hashes, counts = shingles_of_buffer(*packed(texts))
    assert (counts == np.diff(first) - SHINGLE + 1).all()  # both cut units alike
    owner = np.repeat(np.arange(len(texts)), counts)
    places = np.arange(len(hashes)) + owner * (SHINGLE - 1)
    gram_end = _gram_ends(settings.words, first, weight)
    gram, in_texts = _grams(gram_end, hashes, places, first)
    order = np.argsort(hashes, kind="stable")
    table = np.zeros(1 << max(10, min(26, int(len(hashes) * 16).bit_length())), dtype=bool)
    table[hashes >> _shift(table)] = True
    return Index(
        items, settings, tuple(map(tuple, owners)), first, text, start, end, weight, gram_end, gram,
        in_texts > settings.most_documents, hashes[order], places[order], table, units_of_item, short,
    )  # fmt: skip


def _shift(table: Any) -> Any:
    return np.uint32(32 - (len(table).bit_length() - 1))


def _gram_ends(words: int, first: Any, weight: Any) -> Any:
    """The unit behind the shortest evidence from each unit on: a run of words, or a text that is shorter, as a whole."""
    sizes = np.diff(first)
    part_end = np.repeat(first[1:], sizes)
    found = np.searchsorted(weight, weight[:-1] + WORD * words)
    is_whole = np.repeat(weight[first[1:]] - weight[first[:-1]] < WORD * words, sizes)
    begins = np.zeros(len(part_end), dtype=bool)
    begins[first[:-1]] = True
    return np.where(found <= part_end, found, np.where(is_whole & begins, part_end, -1))


def _grams(gram_end: Any, hashes: Any, places: Any, first: Any) -> tuple[Any, Any]:
    """Returns a number for each run of evidence, by the hashes of its shingles, and how many texts have each."""
    at = np.zeros(len(gram_end) + 1, dtype=np.uint64)
    at[places] = hashes.astype(np.uint64) + np.uint64(1)
    at ^= at >> np.uint64(15)
    powers = np.cumprod(np.full(len(at), 0x9E3779B97F4A7C15, dtype=np.uint64))  # odd: it has an inverse
    inverse = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
    inverses = np.cumprod(np.full(len(at), inverse, dtype=np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(at * powers)])
    gram = np.full(len(gram_end), -1, dtype=np.int64)
    chosen = np.flatnonzero(gram_end >= 0)
    behind = gram_end[chosen] - SHINGLE + 1
    value = (sums[behind] - sums[chosen]) * inverses[chosen]
    length = (gram_end[chosen] - chosen).astype(np.uint64)
    _, gram[chosen] = np.unique(value * np.uint64(31) + length, return_inverse=True)
    part = np.searchsorted(first, chosen, side="right") - 1
    pairs = np.unique(np.stack([gram[chosen], part]), axis=1)
    return gram, np.bincount(pairs[0]) if len(chosen) else np.zeros(0, np.int64)


# --- text -----------------------------------------------------------------------------------------------------------


@functools.cache
def _folding() -> Any:
    """For each code point the one that it counts as: capitals as small letters, full width as ASCII."""
    table = np.arange(0x110000, dtype=np.uint32)
    for point in (*range(0x41, 0x5B), *range(0xC0, 0xDF), *range(0x100, 0x580)):
        lower = chr(point).lower()
        if len(lower) == 1:
            table[point] = ord(lower)
    for point in range(0xFF10, 0xFF5B):
        table[point] = ord(chr(point - 0xFEE0).lower())
    table.flags.writeable = False
    return table


def _points(text: str) -> Any:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def fold(text: str) -> str:
    """Returns a text of the same length in which capitals and full width make no difference."""
    folded: bytes = _folding()[_points(text)].astype("<u4").tobytes()
    return folded.decode("utf-32-le", "surrogatepass")


def units(text: str) -> tuple[Any, Any, Any]:
    """Returns where the units of a text begin, where they end, and what they weigh: those of `near`."""
    kinds = character_classes()[_points(text)] & CLASS
    alone = (kinds == HAN) | (kinds == UNSPACED)
    inside = np.zeros(len(kinds) + 2, dtype=bool)
    inside[1:-1] = (kinds == LETTER) | (kinds == MARK) | (kinds == DIGIT)
    starts = alone | (inside[1:-1] & ~inside[:-2])
    ends = alone | (inside[1:-1] & ~inside[2:])
    start = np.flatnonzero(starts)
    return start, np.flatnonzero(ends) + 1, np.where(alone[start], CHARACTER, WORD)


# --- finding --------------------------------------------------------------------------------------------------------


def find(
    index: Index,
    data: UInt8[np.ndarray, " bytes"],
    offsets: Int[np.ndarray, " texts_and_one"],
    keys: Int[np.ndarray, " texts"] | None = None,
) -> Hits:
    """Returns what documents, that lie one after the other in UTF-8, have in common with the texts of an index.

    Only what may be evidence; `settle` says what is, when all documents have been looked at.
    """
    numbers = np.arange(len(offsets) - 1) if keys is None else keys
    if not len(index.keys):
        return joined([])
    is_long = np.diff(offsets) > WINDOW_BYTES
    is_odd = _folds(data, offsets) & ~is_long
    found: list[Hits] = []
    for chosen in _stretches(~is_odd & ~is_long):
        span = offsets[chosen.start : chosen.stop + 1]
        found += _find_in(index, data, span, numbers[chosen.start : chosen.stop])
    for odd in _batches(np.flatnonzero(is_odd), offsets):
        found += _find_folded(index, [_text(data, offsets, i) for i in odd.tolist()], numbers[odd])
    for i in np.flatnonzero(is_long).tolist():
        found += _find_in_pieces(index, data[offsets[i] : offsets[i + 1]], int(numbers[i]))
    return joined(found)


def joined(hits: Sequence[Hits]) -> Hits:
    """Returns the hits of several batches as one."""
    if not hits:
        empty = np.zeros(0, dtype=np.int64)
        return Hits(*[empty] * len(Hits._fields))
    columns = {
        name: np.concatenate([getattr(part, name) for part in hits])
        for name in Hits._fields
        if name != "occurrence"
    }
    before = np.cumsum([0, *(int(part.occurrence.max(initial=-1)) + 1 for part in hits)])
    occurrence = np.concatenate([part.occurrence + n for part, n in zip(hits, before, strict=False)])
    return Hits(**columns, occurrence=occurrence)


def _folds(data: Any, offsets: Any) -> Any:
    """Whether each text has a letter that folds and is not ASCII."""
    begin, stop = int(offsets[0]), int(offsets[-1])
    part = data[begin:stop]
    places = [np.flatnonzero((part >= 0xC4) & (part <= 0xD5))]
    latin = np.flatnonzero(part[:-1] == 0xC3)
    places.append(latin[part[latin + 1] <= 0x9E])
    wide = np.flatnonzero(part[:-2] == 0xEF)
    second, third = part[wide + 1], part[wide + 2]
    is_digit_or_capital = (second == 0xBC) & (
        ((third >= 0x90) & (third <= 0x99)) | ((third >= 0xA1) & (third <= 0xBA))
    )
    places.append(wide[is_digit_or_capital | ((second == 0xBD) & (third >= 0x81) & (third <= 0x9A))])
    found = np.zeros(len(offsets) - 1, dtype=bool)
    found[np.searchsorted(offsets, np.concatenate(places) + begin, side="right") - 1] = True
    return found


def _stretches(chosen: Any) -> Iterator[range]:
    bounds = [0, *(np.flatnonzero(np.diff(chosen)) + 1).tolist(), len(chosen)]
    for a, b in itertools.pairwise(bounds):
        if b > a and chosen[a]:
            yield range(a, b)


def _batches(chosen: Any, offsets: Any) -> Iterator[Any]:
    """Yields the numbers of documents, so many together as one window has room for."""
    batch = np.cumsum(np.diff(offsets)[chosen]) // WINDOW_BYTES
    yield from np.split(chosen, np.flatnonzero(np.diff(batch)) + 1) if len(chosen) else ()


def _text(data: Any, offsets: Any, i: int) -> str:
    text: str = data[offsets[i] : offsets[i + 1]].tobytes().decode()
    return text


def _find_folded(index: Index, texts: list[str], numbers: Any) -> Iterator[Hits]:
    """Yields the hits of texts that are folded first; their places are those in the texts as they are."""
    at = {int(number): i for i, number in enumerate(numbers)}
    for hits in _find_in(index, *packed([fold(text) for text in texts]), numbers):
        places = _byte_places(texts[at[int(hits.document[0])]])
        yield hits._replace(start_byte=places[hits.start], end_byte=places[hits.end])


def _find_in_pieces(index: Index, data: Any, number: int) -> Iterator[Hits]:
    """Yields the hits of one long document."""
    begin = before = 0
    while True:
        stop = min(begin + WINDOW_BYTES, len(data))
        while stop < len(data) and data[stop] & 0xC0 == 0x80:
            stop -= 1
        text = data[begin:stop].tobytes().decode()
        for hits in _find_folded(index, [text], np.array([number])):
            yield hits._replace(
                start=hits.start + before, end=hits.end + before,
                start_byte=hits.start_byte + begin, end_byte=hits.end_byte + begin,
            )  # fmt: skip
        if stop == len(data):
            return
        behind = begin + WINDOW_BYTES - OVERLAP_BYTES
        while data[behind] & 0xC0 == 0x80:
            behind += 1
        before += len(data[begin:behind].tobytes().decode())
        begin = behind


def _byte_places(text: str) -> Any:
    """The byte in UTF-8 at which each character begins, and where the text ends."""
    points = _points(text)
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])


class _Runs(NamedTuple):
    """Equal runs of shingles in a document and a text: all columns but the first are in units."""

    document: Any
    part: Any
    diagonal: Any
    """Where the text would begin in the document, less where its units begin in the index."""
    first: Any
    """The unit of the index at which a run begins."""
    units: Any
    cluster: Any
    """Runs of one number are of one text at one place in a document."""


def _find_in(index: Index, data: Any, offsets: Any, numbers: Any) -> Iterator[Hits]:
    """Yields the hits of documents that need no folding."""
    hashes, counts = shingles_of_buffer(data, offsets)
    ends = np.cumsum(counts)
    places = np.flatnonzero(index.table[hashes >> _shift(index.table)])
    left = np.searchsorted(index.keys, hashes[places])
    is_key = index.keys[np.minimum(left, len(index.keys) - 1)] == hashes[places]
    places, left = places[is_key], left[is_key]
    document = np.searchsorted(ends, places, side="right")
    # evidence has a run of least_words units, or of more characters
    need = index.settings.least_words - SHINGLE
    together = (places[need:] - places[: len(places) - need] == need) & (
        document[need:] == document[: len(places) - need]
    )
    chosen = np.isin(document, np.unique(document[need:][together]))
    if not chosen.any():
        return
    runs = _runs(index, hashes, places[chosen], left[chosen], document[chosen], ends - counts)
    runs = _evidence(index, runs)
    for number in np.unique(runs.document).tolist():
        text = data[offsets[number] : offsets[number + 1]].tobytes().decode()
        hits = _verified(
            index, text, _Runs(*(column[runs.document == number] for column in runs)), numbers[number]
        )
        if len(hits.part):
            yield hits


def _runs(index: Index, hashes: Any, places: Any, left: Any, document: Any, begins: Any) -> _Runs:
    """Returns the runs of shingles that documents and texts have in common, those of one place together."""
    right = np.searchsorted(index.keys, hashes[places], side="right")
    times = right - left
    which = np.repeat(np.arange(len(places)), times)
    entry = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times) + left[which]
    unit = index.places[entry]
    at = (places - begins[document])[which]
    part = np.searchsorted(index.first, unit, side="right") - 1
    diagonal = at - unit
    order = np.lexsort((unit, diagonal, part, document[which]))
    document, part, diagonal, unit = document[which][order], part[order], diagonal[order], unit[order]
    new_pair = np.concatenate([[True], (np.diff(document) != 0) | (np.diff(part) != 0)])
    new_run = new_pair | np.concatenate([[True], (np.diff(diagonal) != 0) | (np.diff(unit) != 1)])
    heads = np.flatnonzero(new_run)
    sizes = np.diff(np.append(heads, len(unit))) + SHINGLE - 1
    # a text with words put in or left out goes on at another diagonal, not far away
    reach = np.maximum(SHINGLE, np.diff(index.first)[part[heads]] // 4)
    jump = np.concatenate([[0], np.diff(diagonal[heads])])
    cluster = np.cumsum(new_pair[heads] | (jump > reach)) - 1
    return _Runs(document[heads], part[heads], diagonal[heads], unit[heads], sizes, cluster)


def _evidence(index: Index, runs: _Runs) -> _Runs:
    """Returns the runs of those clusters that are evidence, unless they turn out to be common."""
    settings = index.settings
    whole = index.weight[index.first[1:]] - index.weight[index.first[:-1]]
    heads = np.flatnonzero(np.diff(runs.cluster, prepend=-1))
    if not len(heads):
        return runs
    weights = index.weight[runs.first + runs.units] - index.weight[runs.first]
    longest = np.maximum.reduceat(weights, heads)
    part = runs.part[heads]
    keep = longest >= np.minimum(WORD * settings.words, whole[part])
    if settings.cover:
        is_long = whole[part] >= WORD * settings.words  # of a short one seven tenths are a phrase
        for i in np.flatnonzero(~keep & is_long & (longest >= WORD * settings.least_words)):
            span = slice(heads[i], heads[i + 1] if i + 1 < len(heads) else None)
            size = index.first[part[i] + 1] - index.first[part[i]]
            keep[i] = _covered(runs.first[span], runs.first[span] + runs.units[span]) >= settings.cover * size
    return _Runs(*(column[keep[runs.cluster]] for column in runs))


def _covered(first: Any, last: Any) -> int:
    """How many units stand in at least one of some runs."""
    total, end = 0, -1
    for a, b in sorted(zip(first.tolist(), last.tolist(), strict=True)):
        total += max(0, b - max(a, end))
        end = max(end, b)
    return total


def _verified(index: Index, text: str, runs: _Runs, number: Any) -> Hits:
    """Returns the runs that are the same, letter by letter, with their places in the text."""
    folded = fold(text)
    start, end, _ = units(folded)
    at = runs.diagonal + runs.first
    same = np.array([
        all(
            folded[start[a + k] : end[a + k]] == index.text[index.start[b + k] : index.end[b + k]]
            for k in range(size)
        )
        for a, b, size in zip(at.tolist(), runs.first.tolist(), runs.units.tolist(), strict=True)
    ], dtype=bool)  # fmt: skip
    runs, at = _Runs(*(column[same] for column in runs)), at[same]
    places = _byte_places(text)
    first, last = start[at], end[at + runs.units - 1]
    _, occurrence = np.unique(runs.cluster, return_inverse=True)
    return Hits(
        np.full(len(at), number, dtype=np.int64), runs.part, occurrence, runs.first, runs.first + runs.units,
        first, last, places[first], places[last],
    )  # fmt: skip


# --- deciding -------------------------------------------------------------------------------------------------------


def settle(index: Index, hits: Hits) -> Findings:
    """Returns what the hits of all documents come to; what too many documents or texts have is marked as common."""
    settings = index.settings
    hits = Hits(*(column[np.argsort(hits.occurrence, kind="stable")] for column in hits))
    heads = np.flatnonzero(np.diff(hits.occurrence, prepend=-1))
    begin = np.append(heads, len(hits.part))
    part, document = hits.part[heads], hits.document[heads]
    size = (index.first[1:] - index.first[:-1])[part]
    covered = np.array([
        _covered(hits.first[a:b], hits.last[a:b]) for a, b in itertools.pairwise(begin.tolist())
    ], dtype=np.int64)  # fmt: skip
    weights = index.weight[hits.last] - index.weight[hits.first]
    longest = np.maximum.reduceat(weights, heads) if len(heads) else weights

    occurrence = np.repeat(np.arange(len(heads)), np.diff(begin))
    has_run = _has_rare_gram(index, hits, occurrence, len(heads))
    whole = index.weight[index.first[1:]] - index.weight[index.first[:-1]]
    is_short = whole[part] < WORD * settings.words
    covers = np.zeros(len(heads), dtype=bool)
    if settings.cover:
        covers = (covered >= settings.cover * size) & (~is_short | (covered == size))
        pairs = np.unique(np.stack([part[covers], document[covers]]), axis=1)
        documents = np.bincount(pairs[0], minlength=len(index.parts))
        covers &= documents[part] <= settings.most_documents
    kind = np.select([has_run & is_short, has_run, covers], [1, 0, 2], 3).astype(np.uint8)
    return Findings(hits, kind, covered / np.maximum(size, 1), longest / WORD, begin)


def rows(index: Index, findings: Findings) -> Iterator[dict[str, Any]]:
    """Yields a row for each document and item: set, item, document, kind, cover, words, spans.

    `cover` is the share of the item that the document has, all its columns taken together; `words` is the longest run.
    A span has the characters and bytes of the document where it begins and ends. What is common comes last.
    """
    hits, begin = findings.hits, findings.begin
    found: dict[tuple[bool, int, int], list[int]] = {}
    for i, kind in enumerate(findings.kind.tolist()):
        document, part = int(hits.document[begin[i]]), int(hits.part[begin[i]])
        for owner in index.parts[part]:
            found.setdefault((KINDS[kind] == "common", document, owner), []).append(i)
    for (_, document, number), occurrences in sorted(found.items()):
        chosen = np.concatenate([np.arange(begin[i], begin[i + 1]) for i in occurrences])
        item = index.items[number]
        spans = zip(*(column[chosen].tolist() for column in hits[5:]), strict=True)
        yield {
            "set": item.set,
            "item": item.number,
            "document": document,
            "kind": KINDS[min(int(findings.kind[i]) for i in occurrences)],
            "cover": _covered(hits.first[chosen], hits.last[chosen])
            / max(1, int(index.units_of_item[number])),
            "words": max(float(findings.words[i]) for i in occurrences),
            "spans": [dict(zip(hits._fields[5:], span, strict=True)) for span in sorted(set(spans))],
        }


def dropped(findings: Findings) -> Int[np.ndarray, " documents"]:
    """Returns the documents that hold something of an evaluation set, ascending."""
    evident = np.flatnonzero(findings.kind != KINDS.index("common"))
    documents: Int[np.ndarray, " documents"] = np.unique(findings.hits.document[findings.begin[evident]])
    return documents


def cuts(findings: Findings, margin: int = 0) -> dict[int, list[tuple[int, int]]]:
    """Returns for each document the characters to cut out of it, with a margin on both sides, in order and apart.

    What lies between the runs of one occurrence goes too. The last end may lie behind the text's.
    """
    hits, begin = findings.hits, findings.begin
    spans: dict[int, list[tuple[int, int]]] = {}
    for i in np.flatnonzero(findings.kind != KINDS.index("common")).tolist():
        runs = slice(begin[i], begin[i + 1])
        span = (max(0, int(hits.start[runs].min()) - margin), int(hits.end[runs].max()) + margin)
        spans.setdefault(int(hits.document[begin[i]]), []).append(span)
    return {document: _apart(sorted(found)) for document, found in sorted(spans.items())}


def without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Returns a text without some spans of its characters."""
    kept, at = [], 0
    for start, end in spans:
        kept.append(text[at:start])
        at = end
    return "".join([*kept, text[at:]])


def _apart(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _has_rare_gram(index: Index, hits: Hits, occurrence: Any, count: int) -> Any:
    """Whether each occurrence has a run of evidence that neither too many documents nor too many texts have."""
    sizes = hits.last - hits.first
    run = np.repeat(np.arange(len(sizes)), sizes)
    unit = np.arange(len(run)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + hits.first[run]
    is_evidence = (index.gram_end[unit] >= 0) & (index.gram_end[unit] <= hits.last[run])
    run, gram = run[is_evidence], index.gram[unit[is_evidence]]
    pairs = np.unique(np.stack([gram, hits.document[run]]), axis=1)
    documents = np.bincount(pairs[0], minlength=len(index.shared))
    rare = (documents[gram] <= index.settings.most_documents) & ~index.shared[gram]
    found = np.zeros(count, dtype=bool)
    found[occurrence[run[rare]]] = True
    return found
