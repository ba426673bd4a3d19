"""What was dropped, by reason, with examples; and what each rule would drop by itself.

Of each reason some examples are chosen by the hashes of the texts, so at random and yet always the same; of a rule also the
document that was dropped by the smallest margin and the one that was kept by the smallest.
"""

import collections
import heapq
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gristmill.corpus.decisions import Reasons
from gristmill.corpus.rules import (
    LANGUAGE,
    SCRIPT,
    Rule,
    RuleSettings,
    all_reasons,
    columns_of,
    describe,
    writings_of,
)
from gristmill.report.corpus_excerpts import Stored, excerpt
from gristmill.report.corpus_units import Unit

__all__ = ["Drops"]

EXAMPLES, MORE_EXAMPLES = 2, 4
"""Where the nearest to a threshold are shown too, and where there is none."""
MOST_TOGETHER = 8
_WITH_OTHERS = (Reasons.DUPLICATE, Reasons.NEAR_DUPLICATE)
"""Whose examples are shown beside what they are superfluous beside."""
_BEFORE = (Reasons.FORGOTTEN, Reasons.HELD_OUT, Reasons.LEFT_OUT)
"""What rules don't come to judge."""


class _Chosen(NamedTuple):
    """A document to be shown: the smallest ranks are."""

    rank: float
    key: int
    why: dict[str, Any]


class Drops:
    """What is counted of dropped documents, unit by unit."""

    def __init__(
        self,
        rules: RuleSettings | None,
        minimum_characters: int,
        models: Mapping[str, Mapping[str, Any] | None],
    ) -> None:
        """Takes what the corpus was judged by: rules if it was, the least characters, what models had to say."""
        self._settings, self._minimum, self._models = rules, minimum_characters, models
        self._rules = {rule.key: rule for rule in rules.rules} if rules else {}
        drops = {line.rule: line.drops for line in describe(rules)} if rules else {}
        self._named = {name: drops[name].rsplit(" ", 2)[0].replace("_", " ") for name in self._rules}
        self._dropped: dict[str, collections.Counter[str]] = {}
        self._examples: dict[tuple[str, str], list[_Chosen]] = {}
        self._judged = 0
        self._by_rule: dict[str, collections.Counter[str]] = {}
        self._by_set: dict[str, collections.Counter[str]] = {}
        self._agreeing: collections.Counter[int] = collections.Counter()
        self._together: collections.Counter[int] = collections.Counter()
        self._names: tuple[str, ...] = ()

    def add(self, unit: Unit) -> None:
        """Counts a unit."""
        for reason in unit.reasons:
            which = unit.dropped_as(reason)
            if reason and which.any():
                counted = self._dropped.setdefault(reason, collections.Counter())
                counted.update(
                    documents=int(which.sum()), text_bytes=int(unit.attributes["bytes"][which].sum())
                )
                self._choose(unit, reason, which)
        if self._settings is not None:
            self._judge(unit, self._settings)

    def facts(self, wanted: dict[int, list[Any]]) -> list[dict[str, Any]]:
        """Returns a row for each reason, most text first; the texts of its examples come when `wanted` is visited."""
        rows = []
        for reason, counted in sorted(
            self._dropped.items(), key=lambda item: (-item[1]["text_bytes"], item[0])
        ):
            examples: list[dict[str, Any]] = []
            for kind in ("sample", "nearest", "kept"):
                taken = {example["key"] for example in examples}
                most = EXAMPLES if (reason, "nearest") in self._examples else MORE_EXAMPLES
                for chosen in sorted(self._examples.get((reason, kind), []), key=lambda one: one[:2])[:most]:
                    if chosen.key not in taken:
                        examples.append(_example(kind, chosen, wanted))
            order = ("nearest", "kept", "sample")
            examples.sort(key=lambda example: order.index(example["kind"]))
            rows.append({"reason": reason, **counted, "examples": examples})
        return rows

    def rules(self) -> dict[str, Any] | None:
        """Returns what each rule would drop and what it alone would, or None where there are no rules."""
        if self._settings is None:
            return None
        described = {line.rule: line for line in describe(self._settings)}
        wanted = {LANGUAGE: self._settings.languages, SCRIPT: self._settings.scripts}
        rows = []
        for name in self._names:
            rule, line = self._rules.get(name), described.get(name)
            rows.append({
                "rule": name, "set": rule.set if rule else None, "name": rule.name if rule else name,
                "drops": line.drops if line else f"none of {', '.join(wanted.get(name, ()))}",
                "source": line.source if line else None,
                **{key: self._by_rule[name][key] for key in _COUNTED},
                "first": self._dropped.get(name, collections.Counter())["documents"],
            })  # fmt: skip
        ordered = sorted(self._together.items(), key=lambda item: (-item[1], item[0]))[:MOST_TOGETHER]
        return {
            "judged": self._judged,
            "sets": {name: dict(counted) for name, counted in self._by_set.items()},
            "rows": rows,
            "agreeing": {str(number): count for number, count in sorted(self._agreeing.items())},
            "together": [
                {"rules": [name for i, name in enumerate(self._names) if bits >> i & 1], "documents": count}
                for bits, count in ordered
            ],
        }

    def _judge(self, unit: Unit, settings: RuleSettings) -> None:
        figures = {name: unit.attributes[name] for name in columns_of(settings)}
        bits, self._names = all_reasons(figures, settings)
        judged = unit.attributes["characters"] >= self._minimum
        for reason in _BEFORE:
            judged &= ~unit.dropped_as(reason)
        bits = np.where(judged, bits, np.uint64(0))
        self._judged += int(judged.sum())
        found = [(bits >> np.uint64(i) & np.uint64(1)).astype(bool) for i in range(len(self._names))]
        agreeing = np.sum(found, axis=0)
        self._agreeing.update({int(n): int(c) for n, c in zip(*np.unique(agreeing, return_counts=True), strict=True) if n})  # fmt: skip
        several, counts = np.unique(bits[agreeing > 1], return_counts=True)
        self._together.update(dict(zip(map(int, several), map(int, counts), strict=True)))
        sizes = unit.attributes["bytes"]
        for name, which in zip(self._names, found, strict=True):
            _count(self._by_rule.setdefault(name, collections.Counter()), which, agreeing == 1, sizes)
        for name in settings.sets:
            mine = np.sum(
                [f for n, f in zip(self._names, found, strict=True) if n.startswith(f"{name}.")], axis=0
            )
            _count(self._by_set.setdefault(name, collections.Counter()), mine > 0, agreeing == mine, sizes)
        self._near_misses(unit, figures)

    def _near_misses(self, unit: Unit, figures: Mapping[str, Any]) -> None:
        """Chooses for each rule what is kept and next to its threshold."""
        writings = writings_of(figures)
        for rule in self._rules.values():
            judged = np.logical_or.reduce([writings[name] for name in rule.writings])
            self._take_next(unit, rule.key, "kept", unit.kept & judged)

    def _choose(self, unit: Unit, reason: str, which: Any) -> None:
        if reason not in _WITH_OTHERS:
            ranks = unit.attributes["hash"].astype(np.float64)
            self._take(unit, (reason, "sample"), which, ranks, MORE_EXAMPLES)
        if reason in self._rules or reason in self._models:
            self._take_next(unit, reason, "nearest", which)
        if reason in self._models:
            self._take_next(unit, reason, "kept", unit.kept)

    def _take_next(self, unit: Unit, reason: str, kind: str, which: Any) -> None:
        """Chooses what is next to the threshold."""
        figure = self._figure(reason, unit)
        if figure is not None:
            margin = np.abs(figure.values - figure.threshold)
            self._take(unit, (reason, kind), which & np.isfinite(margin), margin, 1)

    def _take(self, unit: Unit, place: tuple[str, str], which: Any, ranks: Any, most: int) -> None:
        rows = np.flatnonzero(which & (unit.attributes["bytes"] > 0))
        if len(rows) > most:
            rows = rows[np.argpartition(ranks[rows], most - 1)[:most]]
        figure = self._figure(place[0], unit)
        mine = [
            _Chosen(float(ranks[row]), int(unit.key[row]), self._why(place[0], unit, row, figure))
            for row in rows.tolist()
        ]
        chosen = [*self._examples.get(place, []), *mine]
        self._examples[place] = heapq.nsmallest(most, chosen, key=lambda one: one[:2])

    def _figure(self, reason: str, unit: Unit) -> "_Figure | None":
        """What of each document was compared with what, where that is known."""
        rule, model = self._rules.get(reason), self._models.get(reason)
        if rule is not None:
            return _Figure(
                self._named[reason], _value(rule, unit.attributes), rule.threshold, rule.is_minimum
            )
        if model and reason in unit.figures:
            return _of_model(reason, unit, model)
        return None

    def _why(self, reason: str, unit: Unit, row: int, figure: "_Figure | None") -> dict[str, Any]:
        if figure is not None:
            threshold, least = (
                column[row] if isinstance(column, np.ndarray) else column
                for column in (figure.threshold, figure.least)
            )
            if not np.isfinite(threshold):
                return {}
            value = float(figure.values[row])
            return {
                "figure": figure.name,
                "value": value,
                "threshold": float(threshold),
                "least": bool(least),
            }
        if reason in (LANGUAGE, SCRIPT):
            return {"figure": "language", "value": unit.languages[int(unit.language[row])]}
        if reason == Reasons.TOO_SHORT:
            characters = int(unit.attributes["characters"][row])
            return {"figure": "characters", "value": characters, "threshold": self._minimum, "least": True}
        return {}


class _Figure(NamedTuple):
    """What was compared with what: an array each, or one value for all documents."""

    name: str
    values: Any
    threshold: Any
    least: Any
    """Whether the threshold is the least that is kept, not the most."""


def _of_model(reason: str, unit: Unit, said: Mapping[str, Any]) -> _Figure:
    """The scores of a classifier, or the bits for each character, with the thresholds of each language."""

    def limits(name: str, scale: int = 1) -> Any:
        of = [(said.get(name) or {}).get(language, np.nan) for language in unit.languages]
        return np.array(of, np.float64)[unit.language] / scale

    values = unit.figures[reason].astype(np.float64)
    if reason == "quality":
        return _Figure("score", values, limits("minimum_score"), True)
    low, high = limits("minimum_millibits", 1000), limits("maximum_millibits", 1000)
    is_low = np.isnan(high) | (values / 1000 < low)
    return _Figure("bits for a character", values / 1000, np.where(is_low, low, high), is_low)


_COUNTED = ("documents", "text_bytes", "alone", "alone_text_bytes")


def _count(counted: collections.Counter[str], which: Any, alone: Any, sizes: Any) -> None:
    alone = which & alone
    numbers = (which.sum(), sizes[which].sum(), alone.sum(), sizes[alone].sum())
    counted.update(dict(zip(_COUNTED, map(int, numbers), strict=True)))


def _value(rule: Rule, figures: Mapping[str, Any]) -> Any:
    """The figure of each document; infinite where there is nothing to divide by."""
    top, per = (
        sum(factor * figures[name].astype(np.int64) for name, factor in terms.items())
        for terms in (rule.top, rule.per)
    )
    if not rule.per:
        return np.asarray(top, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(per == 0, np.inf, top / per)


def _example(kind: str, chosen: _Chosen, wanted: dict[int, list[Any]]) -> dict[str, Any]:
    example: dict[str, Any] = {"kind": kind, "key": chosen.key, "why": chosen.why}

    def fill(document: Stored) -> None:
        example.update(document.place, text=excerpt(document.text, document.private))

    wanted.setdefault(chosen.key, []).append(fill)
    return example
