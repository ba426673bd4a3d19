"""The sections of the page of a corpus on what was dropped: rules, models, reasons with examples, duplicates."""

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.report.blocks import Facts, data_table, file_name, language_name, share_of
from gristmill.report.corpus_blocks import REASONS, excerpt, legend, measured, nothing, place, why
from gristmill.report.corpus_charts import Row, Segment, bar_rows, columns_chart
from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import Number, bytes_text, count, percent, plural

__all__ = ["dropped", "duplicates", "models", "rules"]

OPEN = 2
"""So many of the reasons for which most was dropped show their examples at once."""


def rules(facts: Facts) -> Markup | None:
    """What each rule would drop, and what it alone would."""
    table = facts["rules"]
    if table is None:
        return nothing(
            "No rules of quality were applied.", 'corpus.rules.sets = ["gopher_quality", "gopher_repetition"]'
        )
    used = [row for row in table["rows"] if row["documents"]]
    unused = [_rule_name(row["rule"]) for row in table["rows"] if not row["documents"]]
    buys, adds = ([row for row in used if bool(row["alone"]) is wanted] for wanted in (True, False))
    rejected, alone = sum(table["agreeing"].values()), table["agreeing"].get("1", 0)
    lead = (
        f"{count(rejected)} of {plural(table['judged'], 'document')} break a rule; {count(alone)} of them break one only. "
        "What a rule alone drops is what it buys: without it, the rest would be dropped all the same."
    )
    return join(
        tag("p", lead, class_="lead"),
        legend({"taken": "this rule, or set of rules, alone", "part": "others drop it too"}),
        _rule_rows(buys, table["sets"]),
        tag(
            "details",
            tag("summary", f"{plural(len(adds), 'rule')} drop nothing that no other rule drops"),
            _rule_rows(adds, {}),
        ) if adds else None,
        tag("details", tag("summary", f"{plural(len(unused), 'rule')} drop nothing here"), tag("p", ", ".join(unused) + "."))
        if unused else None,
        tag("h3", "Rules that agree") if table["agreeing"] else None,
        _agreement(table),
    )  # fmt: skip


def _rule_rows(used: Sequence[Mapping[str, Any]], sets: Mapping[str, Mapping[str, int]]) -> Markup | None:
    """A row for each rule below that of its set; bars are shares of the largest."""
    most = max((row["documents"] for row in (*used, *sets.values())), default=0) or 1

    def bar(row: Mapping[str, Any]) -> list[Segment]:
        alone = row["alone"] / most
        return [Segment(0, alone, "taken"), Segment(alone, row["documents"] / most - alone, "part")]

    def numbers(row: Mapping[str, Any]) -> list[str]:
        alone = count(row["alone"]) if row["alone"] else "–"
        return [count(row["documents"]), alone, bytes_text(row["alone_text_bytes"]) if row["alone"] else "–"]

    rows, last = [], object()
    order = {name: i for i, name in enumerate(sorted(sets, key=lambda name: -sets[name]["documents"]))}
    for row in sorted(used, key=lambda row: (order.get(row["set"], -1), row["set"] or "", -row["documents"])):
        if row["set"] != last:
            last = row["set"]
            if last in sets:
                whole = sets[last]
                rows.append(
                    Row(f"All of {last.replace('_', ' ')}", None, bar(whole), numbers(whole), "group")
                )
            elif last:
                rows.append(Row(last.replace("_", " "), None, [], [], "group"))
        rows.append(
            Row(row["name"].replace("_", " "), row["drops"].replace("_", " "), bar(row), numbers(row))
        )
    return bar_rows(["Rule, and what it drops", "Breaks it", "It alone", "Text of these"], rows)


def _rule_name(rule: str) -> str:
    return rule.partition(".")[2].replace("_", " ") or rule


def _agreement(table: Mapping[str, Any]) -> Markup | None:
    if not table["agreeing"]:
        return None
    numbers = {int(number): documents for number, documents in table["agreeing"].items()}
    most = max(numbers)
    heights = [numbers.get(i, 0) for i in range(1, most + 1)]
    chart = columns_chart(
        "How many rules drop a document", {"documents": heights},
        ticks=[(i - 0.5, str(i)) for i in range(1, most + 1) if most < 13 or i % 2],
        hovers=[f"{plural(i + 1, 'rule')}: {plural(h, 'document')}" for i, h in enumerate(heights)],
        x_name="rules that agree", y_name="documents",
    )  # fmt: skip
    together = data_table(
        ["Most often together", "*Documents"],
        [[_joined([_rule_name(rule) for rule in row["rules"]]), count(row["documents"])] for row in table["together"]],
    )  # fmt: skip
    return tag("div", chart, together, class_="charts")


def _joined(names: Sequence[str], most: int = 4) -> str:
    rest = len(names) - most
    return " + ".join(names[:most]) + (f" and {plural(rest, 'other')}" if rest > 0 else "")


def models(facts: Facts) -> Markup | None:
    """What a classifier and an n-gram model said of the texts."""
    said = facts["models"]
    if not said:
        return nothing("No model has judged the texts.", 'corpus.quality.good = ["good/"]')
    parts: list[Markup | None] = []
    for name, title, figures, scale, limits in (
        ("quality", "A classifier: scores from 0 to 1000", "scores", 1, ("minimum_score",)),
        ("perplexity", "An n-gram model: bits for each character", "millibits_per_character", 1000, ("minimum_millibits", "maximum_millibits")),
    ):  # fmt: skip
        table = said.get(name)
        if not table:
            continue
        rows = [
            [language_name(language), *[measured(values[p] / scale) for p in ("p10", "p25", "median", "p75", "p90")],
             *[measured(table[limit][language] / scale) if language in (table.get(limit) or {}) else None for limit in limits]]
            for language, values in (table.get(figures) or {}).items()
        ]  # fmt: skip
        parts += [
            tag("h3", title),
            data_table(
                ["Language", "*10 %", "*25 %", "*Half", "*75 %", "*90 %", *[f"*{'At least' if n.startswith('min') else 'At most'}" for n in limits]],
                rows,
            ),
            *[tag("p", f"{str(warning)[:1].upper()}{str(warning)[1:]}.", class_="small soft") for warning in table.get("warnings") or ()],
        ]  # fmt: skip
    return join(
        tag("p", "Of the texts that were judged, this share has a figure of at most so much.", class_="soft"),
        *parts,
    )


def dropped(facts: Facts) -> Markup | None:
    """Every reason with examples: at random, and next to the threshold on both sides."""
    if not facts["dropped"]:
        return tag("p", "Nothing was dropped.")
    drops = {row["rule"]: row for row in (facts["rules"] or {"rows": []})["rows"]}
    parts = [
        _reason(row, drops.get(row["reason"]), is_open=i < OPEN) for i, row in enumerate(facts["dropped"])
    ]
    lead = (
        "A document is counted under the first reason that drops it. Examples are drawn at random, always the same ones; of a "
        "threshold the nearest on either side are shown too, to see whether it stands where it should."
    )
    return join(tag("p", lead, class_="soft"), *parts)


def _reason(row: Mapping[str, Any], rule: Mapping[str, Any] | None, *, is_open: bool) -> Markup:
    reason = row["reason"]
    name = _rule_name(reason) if "." in reason else REASONS.get(reason, reason)
    belongs = f" · {reason.partition('.')[0].replace('_', ' ')}" if "." in reason else ""
    said = (
        f"{rule['drops'].replace('_', ' ')}" + (f" ({rule['source']})" if rule["source"] else "")
        if rule
        else None
    )
    titles = {
        "nearest": "Dropped by the smallest margin",
        "kept": "Kept by the smallest margin",
        "sample": None,
    }
    examples = [
        excerpt(
            example["text"], join(tag("b", why(example["why"])), " · " if example["why"] else "", place(example)),
            title=titles[example["kind"]], kind={"nearest": "nearest", "kept": "stays"}.get(example["kind"], ""),
        )
        for example in row["examples"] if "text" in example
    ]  # fmt: skip
    elsewhere = (
        tag("p", "The texts stand below, beside what they are superfluous beside.")
        if reason in ("duplicate", "near duplicate") and not examples
        else None
    )
    return tag(
        "details",
        tag("summary", tag("b", name, tag("small", belongs) if belongs else None),
            tag("span", plural(row["documents"], "document")), tag("span", bytes_text(row["text_bytes"]))),
        tag("p", f"Drops where {said}.") if said else None,
        elsewhere,
        tag("div", *examples, class_="excerpts") if examples else None,
        class_="drop",
        open="open" if is_open and (examples or said) else None,
    )  # fmt: skip


# --- duplicates -----------------------------------------------------------------------------------------------------------


def duplicates(facts: Facts) -> Markup | None:
    """How much was superfluous, how much was unique of it, which document stands for which."""
    table = facts["duplicates"]
    exact, near, lost = table["exact"], table["near"], table["unique_bytes_lost"] or 0
    if not exact["documents"] + near["documents"]:
        return tag("p", "No document was superfluous beside another.")
    whole = exact["text_bytes"] + near["text_bytes"]
    lead = (
        f"{plural(table['clusters'], 'document')} {'stands' if table['clusters'] == 1 else 'stand'} for "
        f"{plural(exact['documents'] + near['documents'], 'other')}, {_same(exact['documents'], near['documents'])}. "
        f"Of {bytes_text(whole)} that went, {bytes_text(lost)} ({percent(share_of(lost, whole))}) is not in the texts that "
        "stand for them, and is lost."
    )
    return join(
        tag("p", lead, class_="lead"),
        tag("div", _cover_chart(table["covers"]), _size_table(table["sizes"]), class_="charts"),
        tag("p", "A text is dropped where one that stays has nearly all of it, counted by the words (or Chinese characters) that "
            "stand in a run of five which both have. What only one of the two has is ", tag("mark", "marked", class_="only"), ".",
            class_="small soft"),
        tag("h3", "The largest clusters"),
        *[_cluster(cluster) for cluster in table["largest"]],
        tag("h3", "Beside these: where most was lost") if table["lost"] else None,
        *[_pair(pair) for pair in table["lost"]],
    )  # fmt: skip


def _cover_chart(covers: Mapping[str, Any]) -> Markup:
    edges = covers["edges"]
    return columns_chart(
        "How much of a near duplicate stays", {"documents": covers["documents"]},
        ticks=[(i, percent(edge)) for i, edge in enumerate(edges) if i % 2 == 0],
        hovers=[
            f"{percent(low)} to {percent(high)}: {plural(n, 'document')}"
            for low, high, n in zip(edges, edges[1:], covers["documents"], strict=False)
        ],
        x_name="share of its words in what stands for it", y_name="documents",
    )  # fmt: skip


def _size_table(sizes: Sequence[Mapping[str, Any]]) -> Markup | None:
    def name(row: Mapping[str, Any]) -> str:
        if row["most"] is None:
            return f"more than {row['least'] - 1}"
        return str(row["least"]) if row["least"] == row["most"] else f"{row['least']} to {row['most']}"

    return data_table(
        ["Documents in a cluster", "*Clusters"],
        [[name(row), count(row["clusters"])] for row in sizes if row["clusters"]],
    )


def _cluster(cluster: Mapping[str, Any]) -> Markup:
    head = cluster["head"]
    title = (
        f"One document stands for {plural(cluster['documents'] - 1, 'other')}, {_same(cluster['same'], cluster['near'])}: "
        f"{bytes_text(cluster['text_bytes'])}"
    )
    places = ", ".join(f"{file_name(p['source'])}, from {p['start']:,}" for p in cluster["places"])
    rest = cluster["same"] - len(cluster["places"])
    body = [_pair(member) for member in cluster["members"]]
    if not cluster["members"] and "text" in head:
        body = [tag("div", excerpt(head["text"], join("Stays: ", place(head)), kind="stays"), class_="pair")]
    return tag(
        "div",
        tag("h4", title),
        *body,
        tag("p", f"The same text stood in {places}" + (f" and {plural(rest, 'other place')}" if rest > 0 else "") + ".", class_="places")
        if places else None,
        tag("p", f"What stood for them was dropped afterwards: {REASONS.get(head['reason'], head['reason'])}.", class_="places")
        if head.get("reason") else None,
        class_="cluster",
    )  # fmt: skip


def _same(same: int, near: int) -> str:
    if same and near:
        return f"{count(same)} of them the same and {count(near)} nearly"
    return "the same" if same else "nearly the same"


def _pair(pair: Mapping[str, Any]) -> Markup:
    lost = f", {bytes_text(pair['lost_bytes'])} lost" if pair.get("lost_bytes") else ""
    return tag(
        "div",
        excerpt(pair["kept"]["text"], join("Stays: ", place(pair["kept"])), kind="stays"),
        excerpt(
            pair["dropped"]["text"],
            join(tag("b", f"{_cover(pair['cover'])} of it stays{lost}"), " · ", place(pair["dropped"])),
            kind="nearest",
        ),
        class_="pair",
    )


def _cover(cover: Number) -> str:
    return "all" if cover == 1 else f"{100 * cover:.1f} %"
