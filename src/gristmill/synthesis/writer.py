"""What is made is written in parts, each once it is whole: a run that was killed goes on with the part that it was at.

    texts/00000.jsonl      what is kept: text, the columns that came along, and "synthetic", which says who made it and how
    dropped/00000.jsonl    what is not, and why: nothing that was made is lost

What stands in a part depends on the numbers of its texts, on the settings and on the parts before it (no text copies an
earlier one), so the files are the same whether the run was killed or not. `[corpus] sources = ["OUT/texts"]` reads them;
"synthetic" comes along as metadata, so that a trace tells what nobody has written.
"""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from annotated_types import Ge, Gt, Le

from gristmill import artifact
from gristmill.artifact import SCRATCH, Artifact, write_text
from gristmill.corpus.features import FEATURES, features
from gristmill.corpus.near import shingles
from gristmill.corpus.rules import RuleSettings, judge
from gristmill.errors import CorruptArtifact
from gristmill.synthesis.copies import KnownTexts, MadeTexts, cut_copies

__all__ = ["DROPPED", "KIND", "TEXTS", "FilterSettings", "Made", "Maker", "Progress", "write_made"]

KIND = "synthetic"
FORMAT_VERSION = 1
TEXTS, DROPPED = "texts", "dropped"
Progress = Callable[[int, int], None]
"""How many texts have been made, of how many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """What of the texts that were made is good enough."""

    minimum_characters: Annotated[int, Ge(1)] = 100
    """What is new in a text is at least so long."""
    rules: tuple[str, ...] = ("gopher_repetition",)
    """Sets of rules of quality that what is new is judged by, as in [corpus.rules]."""
    near: Annotated[float, Gt(0), Le(1)] | Literal[False] = 0.9
    """Drop a text where a known one, or one made before, has this share of what is new in it; false compares whole
    texts only."""

    def __post_init__(self) -> None:
        """Checks the names of the rules."""
        RuleSettings(sets=self.rules)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A text that was made."""

    number: int
    text: str
    begins_at: int = 0
    """The character from which on the model has written it: that is what is judged."""
    columns: Mapping[str, Any]
    """What else its row gets."""
    reason: str = ""
    """Why it is dropped, where whoever made it already knows."""

    @property
    def new(self) -> str:
        """What the model has written."""
        return self.text[self.begins_at :]


@runtime_checkable
class Maker(Protocol):
    """Makes texts by their numbers."""

    def __call__(self, numbers: range) -> Sequence[Made]:
        """Returns the texts of these numbers, in order: a function of the numbers and of nothing made before."""


def write_made(  # noqa: PLR0913 - all but two named
    out: Path,
    make: Maker,
    *,
    count: int,
    part_texts: int,
    filters: FilterSettings,
    known: Iterable[tuple[str, str]],
    config: Mapping[str, Any],
    parents: Mapping[str, Artifact],
    seed: int,
    progress: Progress | None = None,
) -> Artifact:
    """Returns the artifact in `out`, made unless it stands there for the same settings, parents and seed.

    Args:
        out: its directory.
        make: makes the texts.
        count: how many are made, before any is dropped.
        part_texts: how many there are in a part.
        filters: what is dropped.
        known: names and texts that must not be copied; they are read once, at the beginning.
        config: all that decides what is made.
        parents: models and corpora by their roles.
        seed: of the whole.
        progress: is told after each part.
    """
    settings = {**config, "filters": dataclasses.asdict(filters), "count": count, "part_texts": part_texts}
    key = artifact.artifact_key(KIND, FORMAT_VERSION, settings, parents, seed)
    existing = artifact.find(out, key)
    if existing is not None:
        return existing
    with artifact.draft(
        out, kind=KIND, format_version=FORMAT_VERSION, config=settings, parents=parents, seed=seed, keep_partial=True
    ) as work:  # fmt: skip
        for folder in (TEXTS, DROPPED, SCRATCH):
            (work.path / folder).mkdir(exist_ok=True)
        parts = _Parts(work.path, filters, KnownTexts(known, work.path / SCRATCH / "shingles"))
        for first in range(0, count, part_texts):
            numbers = range(first, min(count, first + part_texts))
            if not parts.take_over(first // part_texts):
                parts.write(first // part_texts, make(numbers))
            if progress is not None:
                progress(numbers.stop, count)
        work.metrics.update(parts.metrics(count))
    return artifact.open_artifact(out, KIND, verify=False)


class _Parts:
    """The parts so far, and what must not be copied."""

    def __init__(self, directory: Path, filters: FilterSettings, known: KnownTexts) -> None:
        self._directory, self._filters, self._known = directory, filters, known
        self._made = MadeTexts()
        self._kept = self._characters = 0
        self._dropped: collections.Counter[str] = collections.Counter()

    def take_over(self, number: int) -> bool:
        """Counts a part that is already there; returns whether there is one."""
        if not self._file(TEXTS, number).is_file():
            return False
        for row in self._rows(DROPPED, number):
            self._dropped[row["reason"]] += 1
        rows = self._rows(TEXTS, number)
        news = [row["text"][row["synthetic"]["begins_at"] :] for row in rows]
        for row, own in zip(rows, _shingles_of(news), strict=True):
            self._count(str(row["synthetic"]["number"]), row["text"], own)
        return True

    def write(self, number: int, made: Sequence[Made]) -> None:
        """Writes a part: what is dropped first, so that a part whose texts are there is whole."""
        kept, dropped = [], []
        reasons = _judged([one.new for one in made], self._filters)
        for one, reason, own in zip(made, reasons, _shingles_of([one.new for one in made]), strict=True):
            row: dict[str, Any] = {"text": one.text, **one.columns}
            row["synthetic"] = {**row.get("synthetic", {}), "number": one.number, "begins_at": one.begins_at}
            reason, details = one.reason or reason, {}
            if not reason:
                copied = cut_copies(one.text, own, (self._known, self._made), self._filters.near)
                if copied is not None:
                    reason = copied.reason
                    details = {"of": copied.of, "share": round(copied.share, 4)}
            if reason:
                dropped.append({"reason": reason, **details, **row})
                self._dropped[reason] += 1
            else:
                kept.append(row)
                self._count(str(one.number), one.text, own)
        write_text(self._file(DROPPED, number), _lines(dropped))
        write_text(self._file(TEXTS, number), _lines(kept))

    def metrics(self, count: int) -> dict[str, Any]:
        """Returns what was counted."""
        return {
            "made": count, "kept": self._kept, "characters": self._characters,
            "dropped": dict(sorted(self._dropped.items())),
        }  # fmt: skip

    def _count(self, name: str, text: str, own: Any) -> None:
        self._made.add(f"made {name}", text, own)
        self._kept += 1
        self._characters += len(text)

    def _file(self, folder: str, number: int) -> Path:
        return self._directory / folder / f"{number:05d}.jsonl"

    def _rows(self, folder: str, number: int) -> list[dict[str, Any]]:
        file = self._file(folder, number)
        try:
            # only line feeds end a line: str.splitlines also cuts at characters that belong to texts
            return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        except (OSError, ValueError) as error:
            raise CorruptArtifact(f"{file} is damaged: {error}", "remove it: it is made again") from None


def _judged(texts: Sequence[str], filters: FilterSettings) -> list[str]:
    """Why each text is dropped by itself; "" where it is not."""
    if not texts:
        return []
    figures = features(texts)
    verdicts = judge(
        {name: figures[:, column] for column, name in enumerate(FEATURES)}, RuleSettings(sets=filters.rules)
    )
    reasons = [verdicts.names[code] for code in verdicts.codes.tolist()]
    for i, text in enumerate(texts):
        if "\ufffd" in text:  # tokens that are no whole character
            reasons[i] = "broken characters"
        elif len(text.strip()) < filters.minimum_characters:
            reasons[i] = "too short"
    return reasons


def _shingles_of(texts: Sequence[str]) -> list[Any]:
    found, counts = shingles(texts)
    ends = counts.cumsum()
    return [
        found[end - count : end].copy() for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
    ]


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
