"""What of evaluation sets is in a corpus, and what is done about it: reported, dropped, or cut out.

Every text is looked at once; what was found is decided about when duplicates are gone, so that copies of one leak do not
look like something that everybody has.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.artifact import hash_file
from gristmill.config import to_dict
from gristmill.corpus.contamination import (
    ContaminationSettings,
    Findings,
    Hits,
    Index,
    cuts,
    dropped,
    find,
    index_of,
    joined,
    read_items,
    rows,
    settle,
)
from gristmill.corpus.decisions import Decisions
from gristmill.corpus.edits import Edit, Edits
from gristmill.corpus.engine import EngineSettings
from gristmill.corpus.files import find_files
from gristmill.corpus.looks import look_at

__all__ = ["FOUND", "REASON", "decided_by", "decontaminate"]

FORMAT = 1
"""Raised whenever the same texts would give other hits."""
FOUND = "contamination.jsonl"
REASON = "contamination"


def decided_by(settings: ContaminationSettings) -> Mapping[str, Any]:
    """Returns what beside the settings decides the outcome: hashes of the evaluation files.

    Raises:
        InputError: there is no such file.
    """
    files = [file for evaluation in settings.sets for file in find_files(evaluation.files).files]
    return {file.name: hash_file(file.path) for file in files}


class _Shared:
    """Looks for texts of evaluation sets."""

    name = "contamination"

    def __init__(self, settings: ContaminationSettings, files: Mapping[str, Any]) -> None:
        self._settings, self._files = settings, files

    @property
    def identity(self) -> Mapping[str, Any]:
        wanted = ("sets", "words", "least_words", "cover")
        return {"format": FORMAT, "files": self._files} | {
            n: to_dict(getattr(self._settings, n)) for n in wanted
        }

    def columns(self, data: Any, offsets: Any) -> dict[str, Any]:
        return find(_index(self._settings), data, offsets)._asdict()


@functools.lru_cache(maxsize=1)
def _index(settings: ContaminationSettings) -> Index:
    return index_of((item for evaluation in settings.sets for item in read_items(evaluation)), settings)


def decontaminate(
    directory: Path,
    settings: ContaminationSettings,
    decisions: Decisions,
    edits: Edits,
    texts: Any,
    engine: EngineSettings,
) -> int:
    """Decides about documents that have something of an evaluation set, writes what was found, and returns how many.

    Args:
        directory: where `contamination.jsonl` is written: a line for each document and item.
        settings: of the recipe.
        decisions: documents that are dropped already are left out.
        edits: where cuts are added.
        texts: a function from documents, ascending, to pairs of a document and its text.
        engine: where the work is done.
    """
    look = _Shared(settings, decided_by(settings))
    index = _index(settings)
    tables = look_at(decisions.units, look, engine).tables()
    findings = settle(index, joined(list(_of_kept(tables, decisions))))
    _write(directory / FOUND, index, findings, decisions)
    places = dropped(findings)
    if settings.action == "drop":
        which = np.zeros(len(decisions.keys), dtype=bool)
        which[places] = True
        decisions.drop(REASON, which)
    elif settings.action == "cut":
        spans = cuts(findings, settings.margin)
        for document, text in texts(list(spans)):
            for start, end in spans[document]:
                before, inside = text[:start].encode(), text[start:end].encode()
                edits.add(document, Edit(len(before), len(before) + len(inside), "", REASON))
    return len(places)


def _of_kept(tables: Iterator[Any], decisions: Decisions) -> Iterator[Hits]:
    kept, first = decisions.kept, 0
    for table, count in zip(tables, decisions.units.documents, strict=True):
        hits = Hits(*(table[name].to_numpy() for name in Hits._fields))
        hits = hits._replace(document=hits.document + first)
        chosen = kept[hits.document]
        yield Hits(*(column[chosen] for column in hits))
        first += count


def _write(path: Path, index: Index, findings: Findings, decisions: Decisions) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows(index, findings):
            row["key"] = int(decisions.keys[row.pop("document")])
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
