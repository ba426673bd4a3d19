"""What a corpus must not hold any more: a list of hashes beside it, which every build there obeys.

`corpus.forgotten.json` beside `corpus` names texts by their SHA-256 (128 bits of it) and, in case the same bytes are read
in another way one day, by the hash of the raw file and the bytes where they stood. It holds no text; but who guesses a
short text can tell whether it is listed, so the list is kept as the texts were. A listed document keeps its row, empty, so
that the keys of the others do not change.
"""

import bisect
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.artifact import write_json
from gristmill.errors import InputError

__all__ = [
    "NO_DIGEST",
    "Entry",
    "Forgotten",
    "ForgottenList",
    "ToForget",
    "list_beside",
    "list_obeyed",
    "obeyed",
    "read_list",
]

FORMAT = 1
NO_DIGEST = bytes(16)
"""In place of the hash of a text that was forgotten."""
_RESTORE = "put the list back, or else what was forgotten is read again"


class Entry(NamedTuple):
    """A text that is forgotten."""

    text: str
    """Its hash as a corpus has it: 32 hexadecimal digits."""
    raw: tuple[tuple[str, int, int], ...] = ()
    """Where it stood: the hash of the raw file, as the manifest of the corpus has it, and the first and last byte."""
    asked_at: str = ""
    note: str = ""
    """What the request is known by."""


@dataclasses.dataclass(frozen=True)
class ForgottenList:
    """The file beside a corpus."""

    entries: tuple[Entry, ...] = ()
    held: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The content hashes of artifacts that held these texts, or learned from them, and the kind of each."""
    quoting: tuple[str, ...] = ()
    """Those among them that quote these texts in samples, and have to go."""

    def extended(
        self, entries: Iterable[Entry], held: Mapping[str, str], quoting: Iterable[str]
    ) -> "ForgottenList":
        """Returns the list with more in it; a text that is there already gets the places that are new."""
        by_text = {entry.text: entry for entry in self.entries}
        for entry in entries:
            before = by_text.setdefault(entry.text, entry)
            by_text[entry.text] = before._replace(raw=tuple(dict.fromkeys((*before.raw, *entry.raw))))
        return ForgottenList(
            tuple(by_text.values()), {**self.held, **held}, tuple(dict.fromkeys((*self.quoting, *quoting)))
        )

    def write(self, path: Path) -> None:
        """Writes the list: the old one stands until the new one is whole."""
        write_json(
            path,
            {
                "format": FORMAT,
                "forgotten": [entry._asdict() for entry in self.entries],
                "held": dict(self.held),
                "quoting": list(self.quoting),
            },
        )


class ToForget(NamedTuple):
    """What of a list concerns some files, as their reader has to know it."""

    digests: frozenset[bytes] = frozenset()
    ranges: Mapping[str, tuple[tuple[int, int], ...]] = {}
    """Of each file, by its name: ranges that end before the next one begins, ascending."""

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to forget."""
        return not self.digests and not self.ranges

    def has(self, digest: bytes, source: str, start: int, end: int) -> bool:
        """Returns whether a document is to be forgotten, given the hash of its text and where it stands."""
        return digest in self.digests or self._overlaps(source, start, end)

    def _overlaps(self, source: str, start: int, end: int) -> bool:
        ranges = self.ranges.get(source)
        if ranges is None:
            return False
        place = bisect.bisect_left(ranges, (max(end, start + 1), -1)) - 1
        return place >= 0 and ranges[place][1] > start


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """What the entries of one or several lists say."""

    entries: tuple[Entry, ...] = ()

    @functools.cached_property
    def identity(self) -> str:
        """A hash of what is to be forgotten, "" where that is nothing: it decides what a corpus is."""
        texts = sorted({entry.text for entry in self.entries})
        places = sorted({place for entry in self.entries for place in entry.raw})
        return hashlib.sha256(repr((texts, places)).encode()).hexdigest() if texts else ""

    @functools.cached_property
    def digests(self) -> frozenset[bytes]:
        """The hashes of the texts."""
        return frozenset(bytes.fromhex(entry.text) for entry in self.entries)

    @functools.cached_property
    def _places(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        found: dict[str, list[tuple[int, int]]] = {}
        for entry in self.entries:
            for raw, start, end in entry.raw:
                found.setdefault(raw, []).append((start, max(end, start + 1)))
        return {raw: _merged(ranges) for raw, ranges in found.items()}

    def of(self, files: Mapping[str, str]) -> ToForget:
        """Returns what concerns files, given the hash of each by its name."""
        if not self.entries:
            return ToForget()
        ranges = {name: self._places[raw] for name, raw in files.items() if raw in self._places}
        return ToForget(self.digests, ranges)


def list_beside(corpus: Path) -> Path:
    """Returns where the list of a corpus stands."""
    return corpus.with_name(f"{corpus.name}.forgotten.json")


def list_obeyed(corpus: Path, named: str | None) -> Path:
    """Returns where what is forgotten is written down: the list that a recipe names, or that beside the corpus."""
    return list_beside(corpus) if named is None else Path(named).expanduser()


def read_list(path: Path) -> ForgottenList:
    """Returns the list in a file, an empty one where there is no file.

    Raises:
        InputError: the file is damaged, or of a later version.
    """
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if table.get("format", FORMAT) > FORMAT:
            raise InputError(f"{path} is of a later version of gristmill", "install that one")
        entries = tuple(
            Entry(**{**entry, "raw": tuple((str(raw), int(a), int(b)) for raw, a, b in entry["raw"])})
            for entry in table.get("forgotten", [])
        )
        if any(len(bytes.fromhex(entry.text)) != len(NO_DIGEST) for entry in entries):
            raise ValueError("a hash of another length")
    except FileNotFoundError:
        return ForgottenList()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}", "it lists what is forgotten") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}", _RESTORE) from None
    return ForgottenList(entries, table.get("held", {}), tuple(table.get("quoting", [])))


def obeyed(corpus: Path, named: str | None, built_with: str | None) -> Forgotten:
    """Returns what a corpus has to forget: what the list beside it says, and one that its recipe names.

    Args:
        corpus: the directory of the corpus, whether or not it stands.
        named: the list that the recipe names.
        built_with: the identity of what the corpus that stands there has forgotten.

    Raises:
        InputError: a list is gone or damaged.
    """
    beside = list_beside(corpus)
    if named is not None and not Path(named).expanduser().is_file():
        raise InputError(
            f"corpus.forgotten: there is no file {named}", f"an empty list is {{}}: echo '{{}}' > {named}"
        )
    if built_with and named is None and not beside.is_file():
        raise InputError(
            f"{corpus} was built with a list of forgotten documents, and {beside} is gone", _RESTORE
        )
    lists = [read_list(beside)] + ([] if named is None else [read_list(Path(named).expanduser())])
    return Forgotten(tuple(entry for one in lists for entry in one.entries))


def _merged(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
