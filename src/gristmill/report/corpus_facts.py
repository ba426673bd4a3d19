"""The facts of a corpus: every number and every example of its page, as JSON values.

Decisions and attributes are read unit by unit, texts only where one is shown. What is shown is chosen by the hashes of the
texts, so the same corpus has the same page, and a corpus of a million documents has no larger one.
"""

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.artifact import Artifact
from gristmill.config import from_dict
from gristmill.corpus.decisions import DECISIONS
from gristmill.corpus.documents import ATTRIBUTES, BROKEN, TEXTS
from gristmill.corpus.provenance import LICENCES
from gristmill.corpus.rules import RuleSettings, columns_of
from gristmill.corpus.store import UNITS
from gristmill.errors import InputError
from gristmill.report.corpus_drops import Drops
from gristmill.report.corpus_duplicates import Clusters
from gristmill.report.corpus_excerpts import parse, shown, visit
from gristmill.report.corpus_inside import contamination_of, passages_of, private_of, read_edits_of
from gristmill.report.corpus_units import Home, Unit, home_of, units_of

__all__ = ["gather_corpus"]

FORMAT_VERSION = 1
MOST_FILES, MOST_LICENCES, MOST_BROKEN = 12, 12, 3
LICENCE_DOCUMENTS = 200_000
"""So many documents are asked for their licences, spread over the corpus."""
BINS_IN_TEN = 5
"""Of a histogram of lengths, for each power of ten."""
MODELS = ("quality", "perplexity")
"""Tables of a recipe that let a model judge texts."""
_VERIFIED = ("layout.json", "contamination.jsonl")


def gather_corpus(artifact: Artifact) -> dict[str, Any]:
    """Returns the facts of a corpus.

    Raises:
        CorruptArtifact: the layout or a list of findings is not the one that the manifest names.
    """
    path, manifest = artifact.path, artifact.manifest
    artifact.verify([name for name in _VERIFIED if name in manifest.files])
    layout = json.loads((path / "layout.json").read_text(encoding="utf-8"))
    config, metrics = manifest.config, manifest.metrics
    home = home_of(path, [unit["name"] for unit in layout["units"]])
    rules = _rules_of(config, home.attributes)
    composition, lengths, clusters = _Composition(layout["groups"]), _Lengths(), Clusters()
    drops = Drops(rules, config.get("minimum_characters", 1), {name: metrics.get(name) for name in MODELS})
    inside = read_edits_of(home)
    for unit in units_of(home, columns_of(rules) if rules else ()):
        for part in (composition, lengths, clusters, drops):
            part.add(unit)
        inside.see(unit)
    wanted: dict[int, list[Any]] = {}
    dropped = drops.facts(wanted)
    cut, private = passages_of(home, inside, wanted), private_of(home, config, inside, wanted)
    contamination = contamination_of(home, config, wanted)
    duplicates = clusters.facts(home, wanted)
    visit(home, wanted)
    return {
        "format_version": FORMAT_VERSION,
        "name": _name(path),
        "path": str(path),
        "content_hash": manifest.content_hash,
        "created_at": manifest.created_at,
        "gristmill_version": manifest.gristmill_version,
        "cost": manifest.cost,
        "documents": metrics["documents"],
        "characters": metrics["characters"],
        "text_bytes": metrics["text_bytes"],
        "lengths": metrics["lengths"],
        "splits": metrics["splits"],
        "validation": layout.get("validation"),
        "languages": metrics["languages"],
        "read": {**metrics["read"], **composition.read},
        "kept": composition.kept,
        "groups": composition.groups(),
        "scripts": metrics.get("scripts") or {},
        "histogram": lengths.facts(),
        "models": {name: metrics[name] for name in MODELS if metrics.get(name)},
        "rules": drops.rules(),
        "dropped": dropped,
        "duplicates": {**duplicates, "unique_bytes_lost": metrics.get("unique_bytes_lost")},
        "edits": inside.facts(),
        "passages": cut,
        "private": private,
        "contamination": contamination,
        "licences": _licences(home),
        "files": _files(metrics["sources"]),
        "broken": _broken(home),
        "changed": metrics["changed"],
        "problems": [shown(problem) for problem in metrics["problems"]],
        "settings": {name: value for name, value in config.items() if name != "inputs"},
    }


def _name(path: Path) -> str:
    """What a person calls it: the run that it belongs to, where it has no name of its own."""
    where = path.resolve()
    return where.parent.name if where.name == "corpus" and where.parent.name else where.name


def _rules_of(config: Mapping[str, Any], attributes: set[str]) -> RuleSettings | None:
    """The rules in use; None where there are none, or where another version knew others."""
    try:
        rules = from_dict(RuleSettings, config.get("rules") or {})
    except InputError:
        return None
    used = columns_of(rules)
    return rules if len(used) > 1 and attributes >= set(used) else None


class _Composition:
    """What of each group was read, and what is kept of it."""

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = groups
        self._read, self._kept, self._valid = (np.zeros((len(groups), 2), np.int64) for _ in range(3))

    def add(self, unit: Unit) -> None:
        sizes = unit.attributes["bytes"]
        for table, which in (
            (self._read, np.ones(len(sizes), bool)), (self._kept, unit.kept), (self._valid, unit.kept & unit.valid)
        ):  # fmt: skip
            for column, weights in enumerate((None, sizes[which])):
                counted = np.bincount(unit.group[which], weights, len(self._groups))
                table[:, column] += counted[: len(self._groups)].astype(np.int64)

    @property
    def read(self) -> dict[str, int]:
        """How many texts were found, and their bytes."""
        return dict(zip(("texts", "text_bytes"), self._read.sum(0).tolist(), strict=True))

    @property
    def kept(self) -> dict[str, int]:
        """What is kept, before anything is cut out of it."""
        return dict(zip(("documents", "text_bytes"), self._kept.sum(0).tolist(), strict=True))

    def groups(self) -> list[dict[str, Any]]:
        """A row for each group that something was read of."""
        rows = []
        for i, name in enumerate(self._groups):
            source, _, language = name.rpartition("/")
            (read, read_bytes), (kept, kept_bytes) = self._read[i].tolist(), self._kept[i].tolist()
            valid, valid_bytes = self._valid[i].tolist()
            if read:
                rows.append({
                    "group": name, "source": source, "language": language,
                    "read": {"documents": read, "text_bytes": read_bytes},
                    "kept": {"documents": kept, "text_bytes": kept_bytes},
                    "valid": {"documents": valid, "text_bytes": valid_bytes},
                })  # fmt: skip
        return rows


class _Lengths:
    """How long the documents are that are kept, before anything is cut out of them."""

    def __init__(self) -> None:
        self._of: dict[str, Any] = {}

    def add(self, unit: Unit) -> None:
        characters, sizes = unit.attributes["characters"], unit.attributes["bytes"]
        bins = np.floor(np.log10(np.maximum(characters, 1)) * BINS_IN_TEN + 1e-9).astype(np.int64)
        for number, language in enumerate(unit.languages):
            which = unit.kept & (unit.language == number)
            counted = self._of.setdefault(language, np.zeros((2, 12 * BINS_IN_TEN), np.int64))
            for row, weights in enumerate((None, sizes[which])):
                counted[row] += np.bincount(bins[which], weights, counted.shape[1]).astype(np.int64)

    def facts(self) -> dict[str, Any]:
        """Bins from the first that has a document to the last; the edges are in characters."""
        total = sum(table[0] for table in self._of.values())
        there = np.flatnonzero(total)
        first, last = (int(there[0]), int(there[-1])) if len(there) else (0, -1)
        edges = [round(10 ** (i / BINS_IN_TEN)) for i in range(first, last + 2)]
        series = {
            language: {
                "documents": table[0, first : last + 1].tolist(),
                "text_bytes": table[1, first : last + 1].tolist(),
            }
            for language, table in sorted(self._of.items(), key=lambda item: -int(item[1][1].sum()))
            if table[0].any()
        }
        return {"bins_in_ten": BINS_IN_TEN, "first": first, "edges": edges, "languages": series}


def _files(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the files are: by format and encoding, and the largest ones."""
    kinds: dict[tuple[str, str], collections.Counter[str]] = {}
    evidence: dict[str, collections.Counter[str]] = {}
    for source in sources:
        encoding = source.get("encoding") or ""
        counted = kinds.setdefault((source["format"], encoding), collections.Counter())
        counted.update(files=1, documents=source["documents"], text_bytes=source["text_bytes"])
        if encoding:
            evidence.setdefault(encoding, collections.Counter())[source.get("encoding_evidence") or "?"] += 1
    return {
        "files": len(sources),
        "kinds": [
            {"format": kind, "encoding": encoding or None, **counted}
            for (kind, encoding), counted in sorted(kinds.items(), key=lambda item: (-item[1]["text_bytes"], item[0]))
        ],
        "evidence": {name: dict(counted.most_common()) for name, counted in sorted(evidence.items())},
        "largest": [
            {name: source.get(name) for name in ("path", "format", "encoding", "text_column", "documents", "text_bytes")}
            for source in sorted(sources, key=lambda s: (-s["text_bytes"], s["path"]))[:MOST_FILES]
        ],
    }  # fmt: skip


def _broken(home: Home) -> list[dict[str, Any]]:
    """What gave no text, by reason, with the first of each."""
    found: dict[str, dict[str, Any]] = {}
    for name in home.names:
        with (home.path / UNITS / f"{name}.{BROKEN}").open(encoding="utf-8") as lines:
            for line in lines:
                entry = parse(line)
                if not entry:
                    continue
                reason = found.setdefault(
                    entry["reason"], {"reason": entry["reason"], "times": 0, "examples": []}
                )
                reason["times"] += 1
                if len(reason["examples"]) < MOST_BROKEN:
                    said = {name: shown(entry[name]) for name in ("message", "preview") if entry.get(name)}
                    reason["examples"].append({"source": entry["source"], "start": entry["start"], **said})
    return sorted(found.values(), key=lambda reason: (-reason["times"], reason["reason"]))


def _licences(home: Home) -> dict[str, Any]:
    """What the metadata of kept documents says of licences; of very many, some row groups are asked."""
    import pyarrow.parquet

    files = [home.path / UNITS / f"{name}.{TEXTS}" for name in home.names]
    total = sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
    step, number = max(1, -(-total // LICENCE_DOCUMENTS)), 0
    found: dict[str, collections.Counter[str]] = {}
    for name, path in zip(home.names, files, strict=True):
        kept, sizes = _kept_sizes(home.path, name)
        with pyarrow.parquet.ParquetFile(path) as file:
            begin = 0
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                which, begin, number = slice(begin, end), end, number + 1
                if (number - 1) % step or not kept[which].any():
                    continue
                column = file.read_row_group(group, columns=["metadata"])["metadata"].to_numpy()
                for text, size in zip(column[kept[which]], sizes[which][kept[which]].tolist(), strict=True):
                    found.setdefault(_licence_in(text), collections.Counter()).update(
                        documents=1, text_bytes=size
                    )
    rows = sorted(found.items(), key=lambda item: (-item[1]["text_bytes"], item[0]))
    return {
        "documents": sum(counted["documents"] for counted in found.values()),
        "stated": [
            {"licence": shown(name, 120) if name else None, **counted} for name, counted in rows[:MOST_LICENCES]
        ],
        "more": max(0, len(rows) - MOST_LICENCES),
    }  # fmt: skip


def _kept_sizes(path: Path, name: str) -> tuple[Any, Any]:
    import pyarrow.compute
    import pyarrow.parquet

    reason = pyarrow.parquet.read_table(path / DECISIONS / f"{name}.parquet", columns=["reason"])["reason"]
    sizes = pyarrow.parquet.read_table(path / UNITS / f"{name}.{ATTRIBUTES}", columns=["bytes"])["bytes"]
    return pyarrow.compute.equal(reason.cast("string"), "").to_numpy(), sizes.to_numpy()


def _licence_in(metadata: str) -> str:
    if len(metadata) < 3:
        return ""
    table = parse(metadata)
    value = next((table[name] for name in table if name.lower() in LICENCES), None)
    return "" if value is None else str(value)[:400]
