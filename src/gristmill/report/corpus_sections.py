"""The sections of the page of a corpus on the whole of it: what became of the text, what is in it, where it is from."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.report.blocks import (
    Facts,
    all_settings,
    brief,
    data_table,
    definitions,
    file_name,
    language_name,
    share_bar,
    share_of,
)
from gristmill.report.corpus_blocks import REASONS, excerpt, legend, passage
from gristmill.report.corpus_charts import Row, Segment, bar_rows, columns_chart, key
from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import bytes_text, count, duration, moment, percent, plural, short

__all__ = ["composition", "files", "flow", "lengths", "licences", "settings", "steps_of"]

SCRIPTS = {
    "simplified": "simplified Chinese", "traditional": "traditional Chinese", "both": "both Chinese scripts",
    "han": "Chinese, either script", "latin": "Latin", "unspaced": "without spaces (Kana, Thai, …)", "other": "other scripts",
    "none": "no letters",
}  # fmt: skip
CHANGES = {
    "mixed_encodings": "text in several encodings was decoded line by line",
    "damaged_characters": "single damaged characters became U+FFFD",
    "divided": "parts of texts that were too long",
    "surrogates": "halves of UTF-16 pairs were joined",
    "mojibake": "text that had been read in a wrong encoding was put right (â€™ for ’)",
    "line_endings": "line ends were made \\n",
    "control": "control characters and terminal colours were taken out",
    "nfc": "composed characters were written in one form (Unicode NFC)",
    "edges": "blank lines before and white space behind the text were taken off",
}


def steps_of(facts: Facts) -> list[dict[str, Any]]:
    """Returns what each step took: a name, documents, bytes of text, and whether it took whole documents."""
    by_step: dict[str, dict[str, Any]] = {}
    known = list(REASONS)
    for row in facts["dropped"]:
        reason = row["reason"]
        is_rule = "." in reason
        name = (
            f"Rules of {reason.partition('.')[0].replace('_', ' ')}"
            if is_rule
            else REASONS.get(reason, reason)
        )
        order = (
            known.index(reason) if reason in known else known.index("duplicate") - (0.6 if is_rule else 0.3)
        )
        step = by_step.setdefault(
            name, {"step": name, "documents": 0, "text_bytes": 0, "whole": True, "order": order}
        )
        step["documents"] += row["documents"]
        step["text_bytes"] += row["text_bytes"]
    kinds = {row["kind"] for row in facts["private"]["kinds"]}
    for row in facts["edits"]:
        name = "Personal data that was replaced" if row["reason"] in kinds else (
            "Cut: text of an evaluation set" if row["reason"] == "contamination" else f"Cut: {row['reason']}s"
        )  # fmt: skip
        step = by_step.setdefault(
            name, {"step": name, "documents": 0, "text_bytes": 0, "whole": False, "order": len(known)}
        )
        step["documents"] += row["documents"]
        step["text_bytes"] += row["text_bytes"]
    steps = list(by_step.values())
    return sorted(steps, key=lambda step: (step["order"], -step["text_bytes"], step["step"]))


def flow(facts: Facts) -> Markup | None:
    """From all that was read, step by step, to what is kept."""
    total = facts["read"]["text_bytes"] or 1
    rows = [
        Row("All that was read", None, [Segment(0, 1, "pale")],
            [count(facts["read"]["texts"]), bytes_text(facts["read"]["text_bytes"]), percent(1.0)], "total")
    ]  # fmt: skip
    left = facts["read"]["text_bytes"]
    for step in steps_of(facts):
        left -= step["text_bytes"]
        size = step["text_bytes"] / total
        rows.append(
            Row(
                step["step"], None if step["whole"] else "inside documents that are kept",
                [Segment(max(left, 0) / total, max(size, 0.0), "taken")],
                [f"−{count(step['documents'])}" if step["whole"] else f"in {count(step['documents'])}",
                 f"−{bytes_text(step['text_bytes'])}" if step["text_bytes"] >= 0 else f"+{bytes_text(-step['text_bytes'])}",
                 percent(max(size, 0.0))],
            )
        )  # fmt: skip
    valid = 0 if facts["validation"] else facts["splits"].get("valid", {}).get("text_bytes", 0)
    segments = [
        Segment(0, max(left - valid, 0) / total, "kept"),
        Segment(max(left - valid, 0) / total, valid / total, "held"),
    ]
    note = f"{bytes_text(valid)} of it held out for validation" if valid else None
    rows.append(
        Row("Kept", note, segments, [count(facts["kept"]["documents"]), bytes_text(left), percent(left / total)], "total")
    )  # fmt: skip
    lost = sum(row["times"] for row in facts["broken"])
    return join(
        bar_rows(["", "Documents", "Text", "Of all"], rows),
        legend({"taken": "taken away", "kept": "kept for training", "held": "held out for validation"} if valid
                else {"taken": "taken away", "kept": "kept"}),
        tag("p", f"{plural(lost, 'record')} or files gave no text at all: see the files below.", class_="small soft") if lost else None,
    )  # fmt: skip


# --- what is in it --------------------------------------------------------------------------------------------------------


def composition(facts: Facts) -> Markup | None:
    """Languages, scripts, sources and the split."""
    languages = sorted(facts["languages"], key=lambda name: -facts["languages"][name]["text_bytes"])
    scripts = {SCRIPTS.get(k, k): v["text_bytes"] for k, v in facts["scripts"].items()}
    splits = [
        [{"train": "training", "valid": "validation"}.get(name, name), count(split["documents"]), count(split["characters"]),
         bytes_text(split["text_bytes"]), percent(share_of(split["text_bytes"], facts["text_bytes"]))]
        for name, split in facts["splits"].items()
    ]  # fmt: skip
    return join(
        share_bar("Languages, by bytes of text", {language_name(name): facts["languages"][name]["text_bytes"] for name in languages}),
        share_bar("Scripts", scripts) if len(scripts) > 1 else None,
        tag("h3", "Sources"),
        _sources(facts["groups"], languages),
        tag("h3", "Training and validation"),
        data_table(["Split", "*Documents", "*Characters", "*Text", "*Share"], splits),
        tag("p", f"The validation text is that of another corpus, {facts['validation']}: both can be measured on the same.", class_="small soft")
        if facts["validation"] else None,
    )  # fmt: skip


def _sources(groups: Sequence[Mapping[str, Any]], languages: Sequence[str]) -> Markup | None:
    """A bar for each source: what is kept in the colours of the languages, what was dropped pale."""
    sources: dict[str, dict[str, Any]] = {}
    for group in groups:
        source = sources.setdefault(group["source"], {"read": 0, "kept": 0, "documents": 0, "languages": {}})
        source["read"] += group["read"]["text_bytes"]
        source["kept"] += group["kept"]["text_bytes"]
        source["documents"] += group["kept"]["documents"]
        source["languages"][group["language"]] = group["kept"]["text_bytes"]
    most = max((source["read"] for source in sources.values()), default=0) or 1
    whole = sum(source["kept"] for source in sources.values()) or 1
    rows = []
    for name, source in sorted(sources.items(), key=lambda item: (-item[1]["kept"], item[0])):
        segments, at = [Segment(0, source["read"] / most, "pale")], 0.0
        for number, language in enumerate(languages):
            size = source["languages"].get(language, 0) / most
            if size:
                segments.append(Segment(at, size, f"tone-{min(number, 5)}"))
                at += size
        figures = [
            count(source["documents"]), bytes_text(source["kept"]), percent(source["kept"] / whole),
            percent(source["kept"] / source["read"] if source["read"] else 0.0),
        ]  # fmt: skip
        rows.append(Row(name or "all of it", None, segments, figures))
    return join(
        bar_rows(["", "Documents", "Text kept", "Of the corpus", "Kept of it"], rows),
        tag("p", "Pale: what was read and dropped. Sizes as they were read, before anything is cut inside texts.", class_="small soft"),
    )  # fmt: skip


def lengths(facts: Facts) -> Markup | None:
    """How long the documents are, and where the text is."""
    table, middle = facts["histogram"], facts["lengths"]
    edges = table["edges"]
    if len(edges) < 2:
        return tag("p", "There are no documents.")
    step = table["bins_in_ten"]
    ticks = [(i, short(edge)) for i, edge in enumerate(edges) if (table["first"] + i) % step == 0]
    if len(ticks) < 2:
        ticks = [(i, short(edge)) for i, edge in enumerate(edges)][:: max(1, len(edges) // 5)]
    between = [f"{low:,} to {high:,} characters" for low, high in itertools.pairwise(edges)]
    charts = []
    for title, name, show in (
        ("Documents by length", "documents", count), ("Text by the length of its documents", "text_bytes", bytes_text)
    ):  # fmt: skip
        stacks = {language: series[name] for language, series in table["languages"].items()}
        totals = [sum(values) for values in zip(*stacks.values(), strict=True)]
        charts.append(
            columns_chart(
                title, stacks, ticks=ticks,
                hovers=[f"{where}: {show(total)}" for where, total in zip(between, totals, strict=True)],
                x_name="characters (logarithmic)", y_name="documents" if name == "documents" else "bytes of text",
            )
        )  # fmt: skip
    lead = (
        f"Half of the documents have {middle['p25']:,} to {middle['p75']:,} characters, one in ten more than {middle['p90']:,}; "
        f"the shortest has {middle['minimum']:,}, the longest {middle['maximum']:,}."
    )
    return join(
        tag("p", lead, class_="lead"),
        tag("div", *charts, class_="charts"),
        key([language_name(name) for name in table["languages"]]),
    )


def files(facts: Facts) -> Markup | None:
    """Formats, encodings, what was changed to get plain text, and what gave none."""
    table = facts["files"]
    kinds = [
        [kind["format"].replace("_", " "), kind["encoding"] or ("its own" if kind["documents"] else "–"),
         ", ".join(table["evidence"].get(kind["encoding"], {})), count(kind["files"]), count(kind["documents"]), bytes_text(kind["text_bytes"])]
        for kind in table["kinds"]
    ]  # fmt: skip
    largest = [
        [tag("span", file_name(s["path"]), title=s["path"]), s["format"].replace("_", " "), s["text_column"] or "–",
         count(s["documents"]), bytes_text(s["text_bytes"])]
        for s in table["largest"]
    ]  # fmt: skip
    more = table["files"] - len(largest)
    changed = [
        [CHANGES.get(name, name), count(number)] for name, number in facts["changed"].items() if number
    ]
    return join(
        data_table(["Format", "Encoding", "Told by", "*Files", "*Documents", "*Text"], kinds),
        tag("h3", "The largest"),
        data_table(["File", "Format", "Text column", "*Documents", "*Text"], largest),
        tag("p", f"and {plural(more, 'other file')}.", class_="small soft") if more > 0 else None,
        tag("h3", "What was put right"),
        data_table(["To make the texts alike", "*Documents"], changed) or tag("p", "Nothing had to be."),
        *_trouble(facts),
    )


def _trouble(facts: Facts) -> list[Markup | None]:
    skipped = facts["read"].get("skipped_files") or {}
    parts: list[Markup | None] = [tag("h3", "What gave no text")]
    if not facts["broken"] and not skipped:
        return [*parts, tag("p", "Everything could be read.")]
    parts.append(
        data_table(
            ["Reason", "*Times"],
            [[row["reason"], count(row["times"])] for row in facts["broken"]]
            + [[f"passed over: {reason}", count(number)] for reason, number in skipped.items()],
        )
    )  # fmt: skip
    examples = [
        excerpt(
            example.get("preview") or example.get("message") or [["(nothing)", "more"]],
            join(tag("b", row["reason"]), " · ", passage(example["message"]) if example.get("preview") and example.get("message") else "",
                 " · " if example.get("preview") and example.get("message") else "", tag("span", file_name(example["source"]), title=example["source"])),
        )
        for row in facts["broken"] for example in row["examples"]
    ]  # fmt: skip
    return [*parts, tag("div", *examples, class_="excerpts") if examples else None]


def licences(facts: Facts) -> Markup | None:
    """What the documents say of their licence."""
    table = facts["licences"]
    whole = sum(row["text_bytes"] for row in table["stated"])
    if all(row["licence"] is None for row in table["stated"]):
        return tag("p", "No document states a licence (a column license, licence, rights or copyright).")
    rows = [
        [passage(row["licence"]) if row["licence"] else tag("span", "none stated", class_="soft"), count(row["documents"]),
         bytes_text(row["text_bytes"]), percent(share_of(row["text_bytes"], whole))]
        for row in table["stated"]
    ]  # fmt: skip
    sampled = table["documents"] < facts["kept"]["documents"]
    note = (
        f"Of {plural(table['documents'], 'document')} that were asked, spread over the corpus. "
        if sampled
        else ""
    )
    return join(
        data_table(["Licence", "*Documents", "*Text", "*Share"], rows),
        tag("p", note + (f"And {plural(table['more'], 'other licence')}." if table["more"] else ""), class_="small soft")
        if note or table["more"] else None,
    )  # fmt: skip


def settings(facts: Facts) -> Markup | None:
    """Which artifact this is, and everything that decided it."""
    cost = facts["cost"] or {}
    return join(
        definitions({
            "Directory": facts["path"],
            "Content": facts["content_hash"],
            "Built": f"{moment(facts['created_at'])}, by gristmill {facts['gristmill_version']}",
            "It took": duration(cost.get("elapsed_seconds")) + f", {duration(cost.get('cpu_seconds'))} of CPU time" if cost else None,
            "Sources": brief(facts["settings"].get("sources")),
        }),
        all_settings("Every setting, defaults resolved", facts["settings"]),
    )  # fmt: skip
