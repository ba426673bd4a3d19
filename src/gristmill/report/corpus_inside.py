"""What was changed inside texts: repeated passages that were cut, personal data, what evaluation sets have."""

import collections
import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.corpus.decontaminate import FOUND, REASON
from gristmill.corpus.documents import ROW_BITS
from gristmill.corpus.edits import EDITS
from gristmill.corpus.private import KINDS
from gristmill.corpus.private_rules import EVIDENCE
from gristmill.report.corpus_excerpts import Mark, Stored, character_of, excerpt, parse
from gristmill.report.corpus_units import Home, Unit

__all__ = ["Inside", "contamination_of", "passages_of", "private_of", "read_edits_of"]

REPEATED = {"repeated paragraph": "paragraph", "repeated line": "line"}
MOST_PASSAGES, MOST_EXAMPLES, MOST_FOUND, MOST_COMMON = 5, 2, 8, 2
_PASSAGE, _AROUND = 220, 150
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Inside:
    """The edits of a corpus, and which documents have them."""

    def __init__(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes the edits of each unit."""
        self.tables = tables
        self.chosen: dict[str, list[tuple[int, int, int, int]]] = {}
        """Of each reason edits to look at: rank, key, start, end."""
        self._kept: dict[str, Any] = {}

    def see(self, unit: Unit) -> None:
        """Leaves out the edits of documents that were dropped afterwards, and chooses some to look at."""
        table = self.tables.get(unit.name)
        if table is None:
            return
        kept = unit.kept[table["row"]]
        self._kept[unit.name] = kept
        ranks = unit.attributes["hash"][table["row"]] >> np.uint64(1)
        for code, reason in enumerate(table["reasons"]):
            rows = np.flatnonzero(kept & (table["reason"] == code))
            _, first = np.unique(table["row"][rows], return_index=True)  # one of each document
            rows = rows[first]
            rows = rows[np.argsort(ranks[rows], kind="stable")[:MOST_EXAMPLES]]
            mine = [
                (int(ranks[i]), int(unit.key[table["row"][i]]), int(table["start"][i]), int(table["end"][i]))
                for i in rows.tolist()
            ]
            self.chosen[reason] = heapq.nsmallest(MOST_EXAMPLES, [*self.chosen.get(reason, []), *mine])

    def kept(self, name: str) -> Any:
        """Returns which edits of a unit are made in documents that are kept."""
        return self._kept.get(name, np.zeros(len(self.tables[name]["row"]), bool))

    def facts(self) -> list[dict[str, Any]]:
        """Returns for each reason the edits, the documents that have them, and the bytes that the text lost by them."""
        counted: dict[str, collections.Counter[str]] = {}
        for name, table in self.tables.items():
            kept = self.kept(name)
            for code, reason in enumerate(table["reasons"]):
                which = kept & (table["reason"] == code)
                if which.any():
                    counted.setdefault(reason, collections.Counter()).update(
                        edits=int(which.sum()), documents=len(np.unique(table["row"][which])),
                        text_bytes=int((table["end"] - table["start"] - table["added"])[which].sum()),
                    )  # fmt: skip
        rows = [{"reason": reason, **counts} for reason, counts in counted.items()]
        return sorted(rows, key=lambda row: (-row["text_bytes"], row["reason"]))


def read_edits_of(home: Home) -> Inside:
    """Returns the edits of a corpus: arrays by unit, with the reasons that they refer to."""
    import pyarrow.compute
    import pyarrow.parquet

    tables: dict[str, dict[str, Any]] = {}
    for name in home.names:
        path = home.path / EDITS / f"{name}.parquet"
        if not path.is_file():
            continue
        table = pyarrow.parquet.read_table(path)
        reason = table["reason"].cast("string").combine_chunks().dictionary_encode()
        tables[name] = {
            **{column: table[column].to_numpy() for column in ("row", "start", "end")},
            "added": pyarrow.compute.binary_length(table["replacement"].cast("binary"))
            .to_numpy()
            .astype(np.int64),
            "reason": reason.indices.to_numpy(),
            "reasons": tuple(reason.dictionary.to_pylist()),
        }
    return Inside(tables)  # fmt: skip


def passages_of(home: Home, inside: Inside, wanted: dict[int, list[Any]]) -> list[dict[str, Any]]:
    """Returns the passages that were cut most, those that take most text first; what they say comes with `wanted`."""
    rows = []
    for reason, kind in REPEATED.items():
        parts = [np.empty((4, 0), np.int64)]
        for name, table in inside.tables.items():
            chosen = np.flatnonzero(inside.kept(name) & _is(table, reason))
            found, at = _found_at(home, name, kind, ("hash",), table, chosen)
            if found is not None:
                chosen, start, end = chosen[at >= 0], table["start"], table["end"]
                key = (int(name[:8], 16) >> 1 << ROW_BITS) + table["row"][chosen]
                value = found["hash"][at[at >= 0]].view(np.int64)
                parts.append(np.stack([value, key, start[chosen], end[chosen]]))
        value, key, start, end = np.concatenate(parts, axis=1)
        _, first, inverse, times = np.unique(
            value, return_index=True, return_inverse=True, return_counts=True
        )
        sizes = np.bincount(inverse, end - start, len(first)).astype(np.int64)
        for i in np.lexsort((first, -sizes))[:MOST_PASSAGES].tolist():
            row: dict[str, Any] = {
                "kind": kind, "times": int(times[i]), "text_bytes": int(sizes[i]), "distinct": len(first)
            }  # fmt: skip
            where = first[i]
            wanted.setdefault(int(key[where]), []).append(_passage(row, int(start[where]), int(end[where])))
            rows.append(row)
    return sorted(rows, key=lambda row: -row["text_bytes"])


def _found_at(
    home: Home, name: str, look: str, columns: Sequence[str], table: Mapping[str, Any], chosen: Any
) -> tuple[dict[str, Any] | None, Any]:
    """What a look has found in a unit, and where each chosen edit is in that; -1 where it is not."""
    found = home.looked(name, look, ("document", "start", *columns)) if len(chosen) else None
    if found is None or not len(found["start"]):
        return None, np.full(len(chosen), -1)
    reach = int(max(found["start"].max(), table["start"][chosen].max())) + 1
    known = found["document"] * reach + found["start"]
    order = np.argsort(known, kind="stable")
    sought = table["row"][chosen] * reach + table["start"][chosen]
    places = order[np.minimum(np.searchsorted(known, sought, sorter=order), len(order) - 1)]
    return found, np.where(known[places] == sought, places, -1)


def _passage(row: dict[str, Any], start: int, end: int) -> Any:
    def fill(document: Stored) -> None:
        places = [character_of(document.text, place) for place in (start, end)]
        text = excerpt(document.text[places[0] : places[1]].strip("\n"), length=_PASSAGE)
        row.update(document.place, text=text)

    return fill


def _is(table: Mapping[str, Any], reason: str) -> Any:
    code = table["reasons"].index(reason) if reason in table["reasons"] else -1
    return table["reason"] == code


def private_of(
    home: Home, config: Mapping[str, Any], inside: Inside, wanted: dict[int, list[Any]]
) -> dict[str, Any]:
    """Returns what personal data was looked for and replaced, by kind, and some of its places, masked."""
    settings = config.get("scrub") or {}
    evidence = _evidence(home, inside)
    counted = {row["reason"]: row for row in inside.facts() if row["reason"] in KINDS}
    kinds = []
    for kind in (kind for kind in KINDS if kind in (settings.get("kinds") or ())):
        row: dict[str, Any] = {
            "kind": kind, "what": KINDS[kind], "found": counted.get(kind, {}).get("edits", 0),
            "documents": counted.get(kind, {}).get("documents", 0), "evidence": dict(evidence.get(kind, {})), "examples": [],
        }  # fmt: skip
        for _, key, start, _ in inside.chosen.get(kind, []):
            wanted.setdefault(key, []).append(_around(row["examples"], start))
        kinds.append(row)
    return {"method": settings.get("method"), "kinds": kinds}


def _around(examples: list[dict[str, Any]], start: int) -> Any:
    def fill(document: Stored) -> None:
        place = character_of(document.text, start)
        text = excerpt(
            document.text, document.private, focus=place if place > _AROUND // 2 else 0, length=_AROUND
        )
        examples.append({**document.place, "text": text})

    return fill


def _evidence(home: Home, inside: Inside) -> dict[str, collections.Counter[str]]:
    """What makes each kind of personal data so, for what is replaced in documents that are kept."""
    names, counted = tuple(KINDS), dict[str, collections.Counter[str]]()
    for name, table in inside.tables.items():
        codes = [code for code, reason in enumerate(table["reasons"]) if reason in KINDS]
        chosen = np.flatnonzero(inside.kept(name) & np.isin(table["reason"], codes))
        found, at = _found_at(home, name, "private", ("kind", "evidence"), table, chosen)
        if found is not None:
            pairs = np.stack([found[column][at[at >= 0]] for column in ("kind", "evidence")])
            for (kind, why), count in zip(*_unique(pairs), strict=True):
                counted.setdefault(names[kind], collections.Counter())[EVIDENCE[why]] += count
    return counted


def _unique(pairs: Any) -> tuple[list[list[int]], list[int]]:
    different, counts = np.unique(pairs, axis=1, return_counts=True)
    return different.T.tolist(), counts.tolist()


def contamination_of(
    home: Home, config: Mapping[str, Any], wanted: dict[int, list[Any]]
) -> dict[str, Any] | None:
    """Returns what of which evaluation set was found, the longest finds as examples; None where none was looked for."""
    settings = config.get("contamination") or {}
    if not settings.get("sets"):
        return None
    tables: dict[str, dict[str, Any]] = {}
    for entry in settings["sets"]:
        name = entry.get("name") or entry["files"][0]
        tables[name] = {
            "set": name, "files": entry["files"], "columns": entry.get("columns") or [], "documents": set(), "items": set(),
            "common": 0, "kinds": collections.Counter(),
        }  # fmt: skip
    best: dict[bool, dict[tuple[str, int], tuple[float, int, dict[str, Any]]]] = {True: {}, False: {}}
    documents: set[int] = set()
    for number, row in enumerate(_lines(home.path / FOUND)):
        table = tables.setdefault(
            row["set"],
            {
                "set": row["set"],
                "documents": set(),
                "items": set(),
                "common": 0,
                "kinds": collections.Counter(),
            },
        )
        is_common = row["kind"] == "common"
        if is_common:
            table["common"] += 1
        else:
            table["documents"].add(row["key"])
            table["items"].add(row["item"])
            table["kinds"][row["kind"]] += 1
            documents.add(row["key"])
        rank = -row["words"] * (0.5 + row["cover"])  # long runs first, and of these what is most of its item
        mine, item = best[is_common], (row["set"], row["item"])
        if item not in mine or rank < mine[item][0]:
            mine[item] = rank, number, row
    examples = []
    for row in (*_different(best[False], MOST_FOUND), *_different(best[True], MOST_COMMON)):
        example: dict[str, Any] = {name: row[name] for name in ("set", "item", "kind", "cover", "words")}
        wanted.setdefault(row["key"], []).append(_found(example, row["spans"]))
        examples.append(example)
    return {
        "action": settings.get("action"),
        "reason": REASON,
        "documents": len(documents),
        "sets": [
            {**table, "documents": len(table["documents"]), "items": len(table["items"]), "kinds": dict(table["kinds"])}
            for table in tables.values()
        ],
        "examples": examples,
    }  # fmt: skip


def _different(best: Mapping[Any, tuple[float, int, dict[str, Any]]], most: int) -> list[dict[str, Any]]:
    """Of the best finds those in different documents, at most half of them from one set."""
    chosen: list[dict[str, Any]] = []
    for _, _, row in sorted(best.values()):
        of_set = sum(other["set"] == row["set"] for other in chosen)
        if all(other["key"] != row["key"] for other in chosen) and 2 * of_set < most:
            chosen.append(row)
    return chosen[:most]


def _lines(path: Path) -> Any:
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from filter(None, map(parse, lines))


def _found(example: dict[str, Any], spans: Sequence[Mapping[str, int]]) -> Any:
    def fill(document: Stored) -> None:
        marks = [Mark(span["start"], span["end"], "found") for span in spans]
        longest = max(marks, key=lambda mark: mark.end - mark.start)
        example.update(
            document.place,
            text=excerpt(document.text, document.private, focus=longest.start, marks=marks),
        )

    return fill
