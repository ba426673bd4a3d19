"""Which documents stand for which: clusters, largest first, and what would be lost with the near duplicates."""

from typing import Any

import numpy as np

from gristmill.corpus.decisions import DECISIONS, Reasons
from gristmill.corpus.documents import ROW_BITS
from gristmill.report.corpus_excerpts import Stored, excerpt, only_here, texts_of
from gristmill.report.corpus_units import Home, Unit

__all__ = ["Clusters"]

MOST_CLUSTERS, MOST_PAIRS, MOST_LOST = 6, 2, 4
"""Clusters that are shown, pairs among them, and near duplicates of which most is lost."""
MEMBERS, PLACES = 2, 5
"""Of a cluster that is shown: near duplicates beside the text that stays, and places of those that are the same."""
COVER_BINS = 10
_SIZES = ((2, 2), (3, 3), (4, 5), (6, 10), (11, 100), (101, None))


class Clusters:
    """The documents that are superfluous, collected unit by unit."""

    def __init__(self) -> None:
        """There are none at first."""
        self._parts: list[dict[str, Any]] = []

    def add(self, unit: Unit) -> None:
        """Takes those of a unit."""
        rows = np.flatnonzero(unit.by >= 0)
        self._parts.append({
            "key": unit.key[rows], "by": unit.by[rows], "cover": unit.cover[rows].astype(np.float64),
            "near": unit.dropped_as(Reasons.NEAR_DUPLICATE)[rows], "bytes": unit.attributes["bytes"][rows],
        })  # fmt: skip

    def facts(self, home: Home, wanted: dict[int, list[Any]]) -> dict[str, Any]:
        """Returns counts, clusters and what was lost; texts that need no other beside them come with `wanted`."""
        empty = {"key": np.array([], np.int64), "near": np.array([], bool)}
        table = {
            name: np.concatenate([part[name] for part in self._parts])
            if self._parts
            else empty.get(name, np.array([]))
            for name in ("key", "by", "cover", "near", "bytes")
        }
        near, sizes = table["near"], table["bytes"]
        root = _roots(table["key"], table["by"])
        heads, inverse, counts = np.unique(root, return_inverse=True, return_counts=True)
        order = np.lexsort((heads, -np.bincount(inverse, sizes, len(heads)), -counts))
        shown = order[: max(MOST_PAIRS, int((counts[order[:MOST_CLUSTERS]] > 1).sum()))]
        lost = (1 - table["cover"]) * sizes
        largest = [
            self._cluster(
                home, int(head), {name: column[root == head] for name, column in table.items()}, wanted
            )
            for head in heads[shown].tolist()
        ]
        seen = {pair["dropped"]["key"] for cluster in largest for pair in cluster["members"]}
        by_loss = np.lexsort((table["key"], -lost))[: MOST_LOST + len(seen)].tolist()
        most = [i for i in by_loss if round(float(lost[i])) and int(table["key"][i]) not in seen][:MOST_LOST]
        return {
            **{
                name: {"documents": int(which.sum()), "text_bytes": int(sizes[which].sum())}
                for name, which in (("exact", ~near), ("near", near))
            },
            "clusters": len(heads),
            "sizes": [
                {"least": low, "most": high, "clusters": int(((counts + 1 >= low) & (counts < (high or np.inf))).sum())}
                for low, high in _SIZES
            ],
            "covers": _covers(table["cover"][near]),
            "largest": largest,
            "lost": [
                self._pair(home, int(table["key"][i]), int(table["by"][i]), float(table["cover"][i]), round(float(lost[i])))
                for i in most
            ],
        }  # fmt: skip

    def _cluster(
        self,
        home: Home,
        head: int,
        members: dict[str, Any],
        wanted: dict[int, list[Any]],
    ) -> dict[str, Any]:
        near = members["near"]
        cluster: dict[str, Any] = {
            "documents": len(near) + 1, "same": int((~near).sum()), "near": int(near.sum()),
            "text_bytes": int(members["bytes"].sum()), "head": {"reason": _reason_of(home, head)}, "places": [],
        }  # fmt: skip
        rows = np.flatnonzero(near)
        rows = rows[np.lexsort((members["key"][rows], members["cover"][rows]))][:MEMBERS]
        cluster["members"] = [
            self._pair(home, int(members["key"][i]), int(members["by"][i]), float(members["cover"][i]))
            for i in rows.tolist()
        ]  # fmt: skip

        def fill(document: Stored) -> None:
            cluster["head"] |= {**document.place, "text": excerpt(document.text, document.private)}

        def place(document: Stored) -> None:
            cluster["places"].append(document.place)

        wanted.setdefault(head, []).append(fill)
        for key in np.sort(members["key"][~near])[:PLACES].tolist():
            wanted.setdefault(key, []).append(place)
        return cluster

    def _pair(self, home: Home, key: int, by: int, cover: float, lost: int | None = None) -> dict[str, Any]:
        """Both texts from where they differ most, or from their beginnings, with what only one of them has."""
        both = {document.key: document for document in texts_of(home, (key, by))}
        dropped, kept = both[key], both[by]
        own, focus, there = only_here(dropped.text, kept.text)
        return {
            "cover": round(cover, 4), "lost_bytes": lost,
            "dropped": {**dropped.place, "key": key, "text": excerpt(dropped.text, dropped.private, focus=focus, marks=own)},
            "kept": {
                **kept.place,
                "text": excerpt(kept.text, kept.private, focus=there, marks=only_here(kept.text, dropped.text)[0]),
            },
        }  # fmt: skip


def _roots(keys: Any, by: Any) -> Any:
    """The document that stands in the end for each: the one that it is superfluous beside may be so itself."""
    order = np.argsort(keys)
    ordered, root = keys[order], by.copy()
    for _ in range(len(keys)):
        places = np.minimum(np.searchsorted(ordered, root), max(len(keys) - 1, 0))
        again = ordered[places] == root
        if not again.any():
            break
        root[again] = by[order[places[again]]]
    return root


def _covers(covers: Any) -> dict[str, Any]:
    """How many near duplicates have which cover, from a round figure below the lowest."""
    low = int(min(covers.min(initial=1.0) * COVER_BINS, COVER_BINS - 1)) / COVER_BINS
    counts, edges = np.histogram(np.minimum(covers, 1.0), COVER_BINS, (low, 1.0))
    return {"edges": [round(float(edge), 3) for edge in edges], "documents": counts.tolist()}


def _reason_of(home: Home, key: int) -> str:
    """Why the document that stands for others was dropped later on; "" where it is kept."""
    import pyarrow.parquet

    name = next(name for name in home.names if int(name[:8], 16) >> 1 == key >> ROW_BITS)
    reasons = pyarrow.parquet.read_table(home.path / DECISIONS / f"{name}.parquet", columns=["reason"])[
        "reason"
    ]
    return str(reasons[key & ((1 << ROW_BITS) - 1)].as_py())
