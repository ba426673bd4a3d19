"""The page of a comparison: what each candidate reached, with intervals, and which differences are more than noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.report.blocks import all_settings, data_table
from gristmill.report.charts import Line, interval_strip, line_chart, nice_ticks, strip_axis
from gristmill.report.markup import Markup, join, tag
from gristmill.report.page import document, masthead, section
from gristmill.report.units import Number, bytes_text, duration, flop, rounded_count

__all__ = ["render_comparison", "verdict"]

SHOWN = {
    "parameters": rounded_count,
    "tokens": rounded_count,
    "operations": flop,
    "training seconds": duration,
    "peak memory, bytes": bytes_text,
}
"""How a column that is no score is written; all others are numbers."""


def render_comparison(facts: Mapping[str, Any]) -> str:
    """Returns the page for the facts of a comparison, those of comparison.json."""
    name, rows = str(facts["name"]), facts["rows"]
    tested = [column for column in facts["columns"] if column.startswith(("pairs", "probe"))]
    losses = [column for column in facts["columns"] if column.startswith("own loss")]
    rest = [column for column in facts["columns"] if column in SHOWN]
    seeds = facts["seeds"]
    header = tag(
        "header",
        masthead("comparison"),
        tag("h1", name),
        tag(
            "p",
            f"{len(rows)} candidates, {seeds} {'seed' if seeds == 1 else 'seeds'} each, at equal {facts['equal']}. "
            "Intervals are 95 % over seeds; differences are to "
            f"{facts['reference']}, corrected for their number (Welch, Holm).",
            class_="standfirst",
        ),
    )
    bodies = [
        section(_title(column), _scores(column, rows, facts["reference"], _floor(column, facts)))
        for column in tested
    ]
    bodies.append(section("Own losses", _losses(losses, rows)))
    bodies.append(section("Validation", _curves(facts)))
    bodies.append(section("What it took", _table(rest, rows)))
    bodies.append(
        section(
            "Settings",
            join(*[all_settings(candidate, table) or Markup("") for candidate, table in facts["settings"].items()]),
        )
    )  # fmt: skip
    footer = tag(
        "footer", tag("p", "The same numbers are in comparison.json, beside this page."), class_="end"
    )
    return document(f"{name}: a gristmill comparison", [header, tag("main", *bodies), footer])


def verdict(figure: Mapping[str, Any]) -> str:
    """Returns what can be said of a figure's difference to the reference, in words."""
    difference = figure.get("difference")
    if difference is None:
        return ""
    if difference["interval"] is None:
        return f"{difference['mean']:+.3f}, one seed: can't be told from noise"
    low, high = difference["interval"]
    kind = "within noise" if difference["within_noise"] else f"p = {difference['p']:.2g}"
    return f"{difference['mean']:+.3f} [{low:+.3f}, {high:+.3f}], {kind}"


def _floor(column: str, facts: Mapping[str, Any]) -> str:
    """What can be had without a model, in words; the way of scoring is named for each candidate."""
    details = {key.rsplit("/", 1)[0]: value for key, value in facts["details"].items()}
    first: Mapping[str, Any] = next(iter(details.values()))
    if column.startswith("probe"):
        probe = first["probe"]
        return f"Chance is {probe['chance']:.3f}, always the commonest class {probe['majority']:.3f}."
    suite = column.removeprefix("pairs ")
    details = {name: value for name, value in details.items() if suite in value["pairs"]}
    first = next(iter(details.values()))
    ways: dict[str, list[str]] = {}
    for name, value in details.items():
        ways.setdefault(str(value["pairs"][suite].get("protocol", "?")), []).append(name)
    said = "; ".join(f"{way}: {', '.join(names)}" for way, names in ways.items())
    alone = first["pairs"][suite]["by_length_alone"]
    return f"Chance is 0.5, always the sentence of fewer tokens {alone:.3f}. Scored by {said}."


def _scores(column: str, rows: Sequence[Mapping[str, Any]], reference: str, floor: str) -> Markup | None:
    figures = {row["name"]: row["figures"][column] for row in rows if column in row["figures"]}
    ends: list[Number] = [f["mean"] for f in figures.values()]
    ends += [end for f in figures.values() for end in (f["interval"] or ())]
    ticks = nice_ticks(min(ends), max(ends), 4)
    ordered = sorted(figures.items(), key=lambda item: -item[1]["mean"])
    body: list[Sequence[Any]] = [("", strip_axis(ticks), "", "")]
    body += [
        (
            name,
            interval_strip(f["mean"], f["interval"], ticks, name=f"{name}: {_number(f)}"),
            _number(f),
            verdict(f) if name != reference else "reference",
        )
        for name, f in ordered
    ]
    return join(
        data_table(("candidate", "", "*mean and interval", f"*difference to {reference}"), body),
        tag("p", floor, class_="small soft"),
    )


def _losses(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    table = data_table(
        ("candidate", *[f"*{column.removeprefix('own loss, ')}" for column in columns]),
        [(row["name"], *[_number(row["figures"][column]) for column in columns]) for row in rows],
    )
    note = (
        "Each objective's own loss on held-out text. They are not comparable with each other: what a model is told "
        "before it predicts differs. What can be compared is above."
    )
    return join(table, tag("p", note, class_="small soft"))


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    return data_table(
        ("candidate", *[f"*{column.partition(',')[0]}" for column in columns]),
        [
            (row["name"], *[SHOWN[column](row["figures"][column]["mean"]) for column in columns])
            for row in rows
        ],
    )


def _curves(facts: Mapping[str, Any]) -> Markup | None:
    """The validation losses of each candidate's first seed over the tokens seen."""
    charts = []
    for row in facts["rows"]:
        runs = [curve for key, curve in facts["curves"].items() if key.startswith(f"{row['name']}/")]
        points = [(p["tokens"], p["validation_nats_per_token"]) for p in runs[0]]
        charts.append(
            line_chart(
                row["name"],
                [Line(name="", points=points, tone="first", dots=True)],
                x_name="tokens of text",
                y_name="nats per predicted token",
            )
        )
    return tag("div", *charts, class_="charts") if any(charts) else None


def _title(column: str) -> str:
    return (
        column.removeprefix("pairs ").replace("_", " ") if column.startswith("pairs") else "Fine-tuned probe"
    )


def _number(figure: Mapping[str, Any]) -> str:
    interval = figure["interval"]
    between = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{figure['mean']:.3f}{between}"
