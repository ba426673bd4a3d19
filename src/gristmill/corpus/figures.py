"""What is said of a corpus in numbers, when everything is decided; and what is said when nothing is left."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from gristmill.corpus.decisions import Decisions, Reasons
from gristmill.corpus.decode import REPAIRS
from gristmill.corpus.deduplicate import Units
from gristmill.corpus.documents import KEPT_PROBLEMS
from gristmill.corpus.edits import Edits
from gristmill.corpus.features import EXAMINED_BYTES
from gristmill.corpus.files import Found
from gristmill.corpus.normalise import CHANGES
from gristmill.corpus.read import DIVIDED
from gristmill.corpus.store import Cut
from gristmill.errors import InputError

__all__ = ["Sizes", "fail_with_nothing_left", "metrics_of", "sizes_of", "texts_of"]


class Sizes(NamedTuple):
    """How long the text of each document is when its edits are made."""

    characters: Any
    text_bytes: Any


def sizes_of(decisions: Decisions, edits: Edits) -> Sizes:
    """Returns the sizes of all documents."""
    characters = decisions.attribute("characters").astype(np.int64)
    text_bytes = decisions.attribute("bytes").astype(np.int64)
    for place, text in texts_of(decisions.units, np.flatnonzero(text_bytes > EXAMINED_BYTES).tolist()):
        characters[place] = len(text)  # of these no more than the beginning was looked at
    for place, text in texts_of(decisions.units, edits.documents):
        left = edits.apply(place, text)
        characters[place], text_bytes[place] = len(left), len(left.encode())
    return Sizes(characters, text_bytes)


def texts_of(units: Units, places: Sequence[int] | np.ndarray) -> Iterator[tuple[int, str]]:
    """Yields the texts of documents, given their places in the order of the sources, ascending."""
    import pyarrow.parquet

    chosen = np.asarray(places, dtype=np.int64)
    begin = 0
    for file in units.texts:
        with pyarrow.parquet.ParquetFile(file) as texts:
            for group in range(texts.num_row_groups):
                count = texts.metadata.row_group(group).num_rows
                rows = chosen[slice(*np.searchsorted(chosen, [begin, begin + count]))] - begin
                if len(rows):
                    column = texts.read_row_group(group, columns=["text"])["text"].take(rows)
                    yield from zip((rows + begin).tolist(), column.to_pylist(), strict=True)
                begin += count


def metrics_of(
    outcomes: Sequence[Mapping[str, Any]],
    decisions: Decisions,
    edits: Edits,
    lengths: Sizes,
    found: Found,
    total: int,
    cut: Cut | None,
) -> dict[str, Any]:
    """Returns the metrics of a corpus, given what was read and what was decided."""
    kept = decisions.kept
    characters, sizes = lengths
    splits = {
        name: {
            "documents": int(which.sum()),
            "characters": int(characters[which].sum()),
            "text_bytes": int(sizes[which].sum()),
        }
        for name, which in (("train", kept & ~decisions.valid), ("valid", kept & decisions.valid))
    }
    if cut is not None:
        moved = _held_out_part(decisions, edits, cut)
        for name, value in moved.items():
            splits["valid"][name] += value
            splits["train"][name] -= value if name != "documents" else 0
    languages, scripts = (_amounts_by(*decisions.words(name), kept, sizes) for name in ("language", "script"))
    dropped: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        for reason, count in outcome["lost"].items():
            dropped.setdefault(reason, {"documents": 0, "text_bytes": 0})["documents"] += count
    for code, reason in enumerate(decisions.reasons):
        which = decisions.reason == code
        if code and which.any():
            dropped[reason] = {"documents": int(which.sum()), "text_bytes": int(sizes[which].sum())}
    changed: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        changed.update(outcome["changed"])
    near = decisions.dropped(Reasons.NEAR_DUPLICATE)
    lost = float(((1 - decisions.cover[near]) * sizes[near]).sum())
    return {
        "documents": sum(entry["documents"] for entry in splits.values()),
        "characters": sum(entry["characters"] for entry in splits.values()),
        "text_bytes": sum(entry["text_bytes"] for entry in splits.values()),
        "read": {
            "files": len({source["path"] for outcome in outcomes for source in outcome["sources"]}),
            "bytes": total,
            "documents": sum(outcome["records"] for outcome in outcomes),
            "skipped_files": found.skipped,
        },
        "splits": splits,
        "sources": _sources(outcomes),
        "languages": languages,
        "scripts": scripts,
        "dropped": dict(sorted(dropped.items())),
        "unique_bytes_lost": round(lost),
        "edits": dict(sorted(edits.made.items())),
        "problems": [problem for outcome in outcomes for problem in outcome["problems"]][:KEPT_PROBLEMS],
        "changed": {name: changed[name] for name in (*REPAIRS, DIVIDED, *CHANGES)},
        "to_read_again": sum(outcome["changed_meanwhile"] for outcome in outcomes),
        "lengths": _percentiles(characters[kept]),
    }


def _amounts_by(numbers: Any, words: Sequence[str], kept: Any, sizes: Any) -> dict[str, dict[str, int]]:
    """Returns how much text of each word of an attribute is kept."""
    return {
        word: {"documents": int(which.sum()), "text_bytes": int(sizes[which].sum())}
        for number, word in enumerate(words)
        if (which := kept & (numbers == number)).any()
    }


def _held_out_part(decisions: Decisions, edits: Edits, cut: Cut) -> dict[str, int]:
    place = int(decisions.units.places(np.array([cut.key]))[0])
    ((_, text),) = texts_of(decisions.units, [place])
    part = edits.apply(place, text)[cut.character :]
    return {"documents": 1, "characters": len(part), "text_bytes": len(part.encode())}


def _sources(outcomes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what was read of each file; the ranges of a file that was divided are added up."""
    files: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        for source in outcome["sources"]:
            entry = files.setdefault(source["path"], {**source, "documents": 0, "text_bytes": 0})
            entry["documents"] += source["documents"]
            entry["text_bytes"] += source["text_bytes"]
    return list(files.values())


def fail_with_nothing_left(outcomes: Sequence[Mapping[str, Any]], decisions: Decisions) -> NoReturn:
    """Says why no document is left.

    Raises:
        InputError: always.
    """
    problems = [problem for outcome in outcomes for problem in outcome["problems"]]
    if problems and not sum(
        outcome["records"] for outcome in outcomes
    ):  # there is nothing to say but what went wrong
        raise InputError(problems[0], next(o["hint"] for o in outcomes if o["problems"]))
    counts: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        counts.update(outcome["lost"])
    counts.update(decisions.reasons[code] for code in decisions.reason.tolist())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    first = f"; the first: {problems[0]}" if problems else ""
    files = len({source["path"] for outcome in outcomes for source in outcome["sources"]})
    raise InputError(
        f"no documents are left of {files} files: {reasons or 'they hold none'}{first}",
        "look at text_column, minimum_characters and document_separator",
    )


def _percentiles(characters: Any) -> dict[str, int]:
    names = {
        "minimum": 0,
        "p10": 10,
        "p25": 25,
        "median": 50,
        "p75": 75,
        "p90": 90,
        "p99": 99,
        "maximum": 100,
    }
    values = np.percentile(characters, list(names.values()), method="nearest")
    return {name: int(value) for name, value in zip(names, values, strict=True)}
