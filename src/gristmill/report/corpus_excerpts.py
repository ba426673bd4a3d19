"""Pieces of texts to look at: read by key, shortened, marked, and with nothing personal in the clear.

A passage is a list of pairs of a text and what it is: "" (as it stands), "hidden" (personal data, its kind in brackets),
"only" (the other text of a pair has it not), "found" (an evaluation set has it), "cut" (it is taken out) or "more" (something
was left out). What is personal is looked for in every text that is shown, whether or not a recipe asks for it.
"""

import collections
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gristmill.corpus.contamination import units
from gristmill.corpus.documents import ROW_BITS, TEXTS
from gristmill.corpus.near import shingles
from gristmill.corpus.private import KINDS, find_spans
from gristmill.corpus.store import UNITS
from gristmill.report.corpus_units import Home

__all__ = [
    "LENGTH",
    "Mark",
    "Passage",
    "Stored",
    "character_of",
    "excerpt",
    "only_here",
    "parse",
    "shown",
    "texts_of",
    "visit",
]

LENGTH = 300
"""So many letters of a text are shown, a Chinese character counted as two, a mask as what it hides."""
LINES = 7
_WIDE = "\u2e80"
"""From here on characters are as wide as two letters."""
_LEAD, _RIM = 60, 1500
"""What is shown before the place in question; how far around it personal data is looked for, as it may begin outside."""
_VOTERS, _MOST_VOTES = 200, 20
_LONGEST = 400_000
"""Of longer texts the beginnings are compared with each other, in characters."""
_KINDS = tuple(kind for kind in KINDS if kind != "name")  # names take a list: the look at the corpus had it
_NAMES = tuple(KINDS)

Passage = list[list[str]]


class Mark(NamedTuple):
    """A piece of a text, in characters, and what it is."""

    start: int
    end: int
    what: str


class Stored(NamedTuple):
    """A document as it was read."""

    key: int
    id: str
    text: str
    source: str
    start: int
    end: int
    private: list[Mark]
    """The personal data that was looked for when the corpus was built, in bytes of UTF-8."""

    @property
    def place(self) -> dict[str, Any]:
        """Where it stands, as JSON values."""
        return {"id": self.id, "source": self.source, "start": self.start, "end": self.end}


def visit(home: Home, wanted: Mapping[int, Sequence[Callable[[Stored], None]]]) -> None:
    """Calls the functions of each key with its document, one document in memory at a time."""
    for document in texts_of(home, wanted):
        for function in wanted[document.key]:
            function(document)


def texts_of(home: Home, keys: Iterable[int]) -> Iterator[Stored]:
    """Yields the documents of some keys, unit by unit; only the row groups that hold them are read."""
    import pyarrow.parquet

    chosen = np.unique(np.fromiter(keys, np.int64))
    for name in home.names:
        first = int(name[:8], 16) >> 1 << ROW_BITS
        rows = chosen[chosen >> ROW_BITS == first >> ROW_BITS] - first
        if not len(rows):
            continue
        private = _private_of(home, name, rows)
        begin = 0
        with pyarrow.parquet.ParquetFile(home.path / UNITS / f"{name}.{TEXTS}") as file:
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                here = rows[(rows >= begin) & (rows < end)]
                if len(here):
                    columns = ["digest", "text", "source", "start", "end"]
                    table = file.read_row_group(group, columns=columns).take(here - begin)
                    for row, values in zip(here.tolist(), _rows(table), strict=True):
                        yield Stored(
                            first + row, values["digest"][:8].hex(), values["text"], values["source"],
                            values["start"], values["end"], private.get(row, []),
                        )  # fmt: skip
                begin = end


def excerpt(
    text: str,
    private: Sequence[Mark] = (),
    *,
    focus: int = 0,
    marks: Sequence[Mark] = (),
    length: int = LENGTH,
) -> Passage:
    """Returns a piece of a text, personal data in it masked.

    Args:
        text: the whole text.
        private: what of it is known to be personal, in bytes.
        focus: the character that is to be seen.
        marks: what else is to be told apart, in characters; they do not overlap.
        length: in letters.
    """
    begin = 0 if focus <= 2 * _LEAD else _word_start(text, focus - _LEAD)
    end = begin + _fitting(text[begin : begin + length], length)
    breaks = list(itertools.islice(re.finditer("\n+", text[begin:end]), LINES))
    if len(breaks) == LINES:
        end = begin + max(breaks[-1].start(), min(focus - begin + 1, length))
    hidden = _hidden(text, private, begin, end)
    for mark in hidden:  # a mask is shown whole or not at all
        if mark.start < begin < mark.end:
            begin = mark.start
        if mark.start < end < mark.end:
            end = mark.end
    pieces = [["…", "more"]] if begin else []
    pieces += _pieces(text, begin, end, hidden, marks)
    return [*pieces, ["…", "more"]] if text[end:].strip() else pieces


def shown(text: str, length: int = LENGTH) -> Passage:
    """Returns the beginning of what is no document: a broken row, a message, a licence."""
    return excerpt(text.encode("utf-8", "replace").decode(), length=length)


def only_here(text: str, other: str) -> tuple[list[Mark], int, int]:
    """Returns what of a text another has not, and where to look: a place in the text, and the same in the other.

    It is counted as for near duplicates: by units that stand in no run of five which both have.
    """
    text, other = text[:_LONGEST], other[:_LONGEST]
    own, theirs = shingles([text])[0], shingles([other])[0]
    starts, ends, _ = units(text)
    has = np.isin(own, theirs)
    covered = np.zeros(len(starts), dtype=bool)
    for offset in range(len(starts) - len(own) + 1):
        covered[offset : offset + len(own)] |= has
    borders = np.flatnonzero(np.diff(np.concatenate([[True], covered, [True]])))
    marks = [
        Mark(int(starts[a]), int(ends[b - 1]), "only")
        for a, b in zip(borders[::2], borders[1::2], strict=True)
    ]
    if not marks:
        return [], 0, 0
    focus = _most_of(marks)
    return marks, focus, _counterpart(own, theirs, int(np.searchsorted(starts, focus)), units(other)[0])


def character_of(text: str, byte: int) -> int:
    """Returns the character of a text at which a byte of its UTF-8 stands."""
    return byte if text.isascii() else len(text.encode()[:byte].decode("utf-8", "ignore"))


def _most_of(marks: Sequence[Mark]) -> int:
    """The beginning of the mark from which on most of what is marked can be seen."""
    best, best_size, first = 0, 0, 0
    sizes = np.cumsum([0, *(mark.end - mark.start for mark in marks)])
    for last, mark in enumerate(marks):
        while mark.end - marks[first].start > LENGTH - _LEAD and first < last:
            first += 1
        size = int(sizes[last + 1] - sizes[first])
        if size > best_size:
            best, best_size = marks[first].start, size
    return best


def _counterpart(own: Any, theirs: Any, unit: int, starts: Any) -> int:
    """The character of another text that stands where a unit of a text does: what both have around it votes for a shift."""
    order = np.argsort(theirs, kind="stable")
    ordered = theirs[order]
    votes: collections.Counter[int] = collections.Counter()
    for run in range(max(0, unit - _VOTERS), min(len(own), unit + _VOTERS)):
        first, last = np.searchsorted(ordered, own[run]), np.searchsorted(ordered, own[run], side="right")
        votes.update((order[first : min(last, first + _MOST_VOTES)] - run).tolist())
    if not votes:
        return 0
    shift = min(votes, key=lambda shift: (-votes[shift], abs(shift)))
    return int(starts[min(max(unit + shift, 0), len(starts) - 1)])


def _fitting(text: str, length: int) -> int:
    """How many characters of a text have room."""
    widths = itertools.accumulate(2 if c >= _WIDE else 1 for c in text)
    return next((i for i, width in enumerate(widths) if width > length), len(text))


def _word_start(text: str, place: int) -> int:
    """A place from which no word is cut in two, if one is near."""
    found = re.compile(r"\s").search(text, place, place + 20)
    return found.end() if found else place


def _hidden(text: str, private: Sequence[Mark], begin: int, end: int) -> list[Mark]:
    """What is personal in a piece of a text, in characters, in order and apart."""
    low, high = max(0, begin - _RIM), min(len(text), end + _RIM)
    found = [Mark(low + span.start, low + span.end, span.kind) for span in find_spans(text[low:high], _KINDS)]
    if private:
        found += [
            Mark(character_of(text, mark.start), character_of(text, mark.end), mark.what) for mark in private
        ]
    apart: list[Mark] = []
    for mark in sorted(mark for mark in found if mark.end > begin and mark.start < end):
        if apart and mark.start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(apart[-1].end, mark.end))
        else:
            apart.append(mark)
    return apart


def _pieces(text: str, begin: int, end: int, hidden: Sequence[Mark], marks: Sequence[Mark]) -> Passage:
    edges = {begin, end, *(place for mark in (*hidden, *marks) for place in mark[:2] if begin < place < end)}
    ordered = sorted(edges)
    pieces: Passage = []
    for start, stop in itertools.pairwise(ordered):
        cover = next((mark for mark in hidden if mark.start <= start and stop <= mark.end), None)
        what = next((mark.what for mark in marks if mark.start <= start and stop <= mark.end), "")
        if cover is None:
            piece = [re.sub("\\s*\n\\s*\n", "\n", text[start:stop]), what]
        elif start == cover.start:
            piece = [f"[{cover.what.upper()}]", "hidden"]
        else:
            continue
        if pieces and pieces[-1][1] == piece[1] != "hidden":
            pieces[-1][0] += piece[0]
        else:
            pieces.append(piece)
    return pieces


def _private_of(home: Home, name: str, rows: Any) -> dict[int, list[Mark]]:
    """What looks found to be personal in some rows of a unit."""
    table = home.looked(name, "private", ["document", "start", "end", "kind"])
    found: dict[int, list[Mark]] = {}
    if table is not None:
        chosen = np.flatnonzero(np.isin(table["document"], rows))
        for document, start, end, kind in zip(
            *(column[chosen].tolist() for column in table.values()), strict=True
        ):
            found.setdefault(document, []).append(Mark(start, end, _NAMES[kind]))
    return found


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=64):
        yield from batch.to_pylist()


def parse(line: str) -> dict[str, Any]:
    """Returns a JSON object, empty where it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
