"""The sections of the page of a corpus on what was found inside texts: repeated passages, personal data, evaluation sets."""

from gristmill.report.blocks import Facts, data_table
from gristmill.report.corpus_blocks import excerpt, nothing, place
from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import bytes_text, count, figure, percent, plural

__all__ = ["contamination", "inside", "private"]

EVIDENCE = {
    "run": "a long run of words",
    "whole": "the whole of a short text",
    "cover": "most of a text, with small changes",
    "common": "common",
}
ACTIONS = {
    "drop": "Such documents were dropped.",
    "cut": "The matching text, and some around it, was cut out.",
    "report": "Nothing was done about it: it is only reported.",
}


def inside(facts: Facts) -> Markup | None:
    """Repeated lines and paragraphs that were cut."""
    rows = [row for row in facts["edits"] if row["reason"].startswith("repeated")]
    if not rows:
        return nothing("No repeated lines or paragraphs were cut.", "corpus.dedup.lines = 10")
    settings = facts["settings"].get("dedup") or {}
    table = [
        [row["reason"].removeprefix("repeated ") + "s",
         f"more than {settings.get(row['reason'].removeprefix('repeated ') + 's', '?')} documents",
         count(row["edits"]), count(row["documents"]), bytes_text(row["text_bytes"])]
        for row in rows
    ]  # fmt: skip
    found = [
        excerpt(row["text"], join(tag("b", f"cut {plural(row['times'], 'time')}, {bytes_text(row['text_bytes'])}"), f" · {row['kind']}, as in ", place(row)))
        for row in facts["passages"] if "text" in row
    ]  # fmt: skip
    return join(
        tag("p", "A passage that stands in too many documents stays where it is first, and is cut from the others when texts are read out.", class_="soft"),
        data_table(["Cut", "Stood in", "*Times", "*Documents", "*Text"], table),
        tag("h3", "What took most") if found else None,
        tag("div", *found, class_="excerpts") if found else None,
    )  # fmt: skip


def private(facts: Facts) -> Markup | None:
    """Personal data by kind, with examples that are masked."""
    table = facts["private"]
    if not table["kinds"]:
        return nothing("No personal data was looked for.", 'corpus.scrub.kinds = ["email", "phone"]')
    characters = facts["characters"] or 1
    found = [row for row in table["kinds"] if row["found"]]
    others = [row["kind"].replace("_", " ") for row in table["kinds"] if not row["found"]]
    how = "a made-up value of the same shape" if table["method"] == "surrogate" else "its kind, as in [EMAIL]"
    total = sum(row["found"] for row in found)
    lead = (
        f"{plural(total, 'piece')} of personal data in documents that are kept; each is replaced by {how}, when texts are read out."
        if total else "No personal data was found in the documents that are kept."
    )  # fmt: skip
    rows = [
        [tag("span", row["kind"].replace("_", " "), title=row["what"]), count(row["found"]), count(row["documents"]),
         figure(1e6 * row["found"] / characters, 1), ", ".join(f"{why}: {count(n)}" for why, n in row["evidence"].items())]
        for row in sorted(found, key=lambda row: -row["found"])
    ]  # fmt: skip
    examples = [
        excerpt(example["text"], join(tag("b", row["kind"].replace("_", " ")), " · ", place(example)))
        for row in sorted(found, key=lambda row: -row["found"]) for example in row["examples"]
    ]  # fmt: skip
    return join(
        tag("p", lead, class_="lead"),
        data_table(["Kind", "*Found", "*Documents", "*In a million characters", "What makes it so"], rows),
        tag("p", f"Looked for and not found: {', '.join(others)}.", class_="small soft") if others else None,
        tag("h3", "Where it stood") if examples else None,
        tag("div", *examples, class_="excerpts") if examples else None,
        tag("p", "This page masks the personal data that it recognises in every text that it shows, whatever the recipe asks for.", class_="small soft"),
    )  # fmt: skip


def contamination(facts: Facts) -> Markup | None:
    """What of which evaluation set is in the text."""
    table = facts["contamination"]
    if table is None:
        return nothing(
            "No evaluation sets were looked for.", "[[corpus.contamination.sets]] with files and columns"
        )
    rows = [
        [row["set"], ", ".join(row.get("columns") or []), count(row["documents"]), count(row["items"]),
         ", ".join(f"{EVIDENCE.get(kind, kind)}: {count(n)}" for kind, n in row["kinds"].items()), count(row["common"])]
        for row in table["sets"]
    ]  # fmt: skip
    lead = (
        f"{plural(table['documents'], 'document')} had text of an evaluation set. {ACTIONS.get(table['action'], '')}"
        if table["documents"] else "No document had text of an evaluation set."
    )  # fmt: skip
    examples = [
        excerpt(
            example["text"],
            join(tag("b", f"{example['set']}, item {count(example['item'])}"),
                 f": {EVIDENCE.get(example['kind'], example['kind'])}, {example['words']:.0f} words in a row, "
                 f"{percent(example['cover'])} of the item · ", place(example)),
            kind="nearest",
        )
        for example in table["examples"] if "text" in example
    ]  # fmt: skip
    return join(
        tag("p", lead, class_="lead"),
        data_table(
            ["Evaluation set", "Columns", "*Documents", "*Items found", "By", "*Common, left alone"], rows
        ),
        tag("h3", "The longest finds") if examples else None,
        tag("div", *examples, class_="excerpts") if examples else None,
    )
