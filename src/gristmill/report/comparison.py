"""The page of a comparison: what each candidate reached, with intervals, and which differences are more than noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.report.blocks import all_settings, data_table
from gristmill.report.charts import Line, interval_strip, line_chart, nice_ticks, strip_axis
from gristmill.report.markup import Markup, join, tag
from gristmill.report.page import document, masthead, section
from gristmill.report.units import Number, bytes_text, duration, flop, plural, rounded_count

__all__ = ["SHORT", "explanation", "mark", "render_comparison", "summary", "verdict"]

SHOWN = {
    "parameters": rounded_count,
    "tokens": rounded_count,
    "unique tokens": rounded_count,
    "operations": flop,
    "training seconds": duration,
    "CPU seconds": duration,
    "peak memory, bytes": bytes_text,
}
"""How a column that is no score is written; all others are numbers."""

TESTED = ("pairs", "probe", "held out")
"""Kinds of columns in which any two candidates that have a figure can be compared."""

SHORT = {
    "own loss, nats per predicted token": "own loss, nats/token",
    "own loss, bits per predicted byte": "own loss, bits/byte",
    "training seconds": "training",
    "peak memory, bytes": "memory",
}
"""Heads of columns where there is little room."""

IN_SUMMARY = ("training seconds", "peak memory, bytes")
"""Of what it took, what stands in the one table."""


def render_comparison(facts: Mapping[str, Any]) -> str:
    """Returns the page for the facts of a comparison, those of comparison.json."""
    name, rows = str(facts["name"]), facts["rows"]
    columns = facts["columns"]
    tested = [column for column in columns if columns[column]["kind"] in TESTED]
    losses = [column for column in columns if columns[column]["kind"] == "own loss"]
    rest = [column for column in columns if column in SHOWN]
    header = tag(
        "header",
        masthead("comparison"),
        tag("h1", name),
        tag(
            "p",
            f"{len(rows)} candidates, {plural(facts['seeds'], 'seed')} each, at equal {facts['equal']}.",
            class_="standfirst",
        ),
    )
    bodies = [section("All in one table", _whole(facts))]
    bodies += [section(_title(column), _scores(column, facts)) for column in tested]
    bodies += [
        section("Own losses", _losses(losses, rows)),
        section("Validation", _curves(facts)),
        section("What it took", _table(rest, facts)),
        section(
            "Settings",
            join(*[all_settings(candidate, table) or Markup("") for candidate, table in facts["settings"].items()]),
        ),
    ]  # fmt: skip
    footer = tag(
        "footer", tag("p", "The same numbers are in comparison.json, beside this page."), class_="end"
    )
    return document(f"{name}: a gristmill comparison", [header, tag("main", *bodies), footer])


def summary(facts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the one table: its heads, and a row of texts for each candidate; `explanation` says what marks mean.

    A figure that can be compared reads "mean [low, high] mark"; of own losses the interval is left out.
    """
    columns, names = facts["columns"], []
    for column, about in columns.items():
        if about["kind"] in (*TESTED, "own loss") or column in IN_SUMMARY:
            names.append(column)
    rows = [
        [row["name"], *[_summarised(column, row, facts) if column in row["figures"] else "" for column in names]]
        for row in facts["rows"]
    ]  # fmt: skip
    return ["candidate", *names], rows


def _summarised(column: str, row: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    figure = row["figures"][column]
    if column in SHOWN:
        return SHOWN[column](figure["mean"])
    own = facts["columns"][column]["kind"] == "own loss"
    number = f"{figure['mean']:.3f}" if own else _number(figure)
    return f"{number} {mark(column, row['name'], facts)}".rstrip()


def mark(column: str, candidate: str, facts: Mapping[str, Any]) -> str:
    """Returns what can be said of a figure in one sign: "*", "+", "-", "~", "?", or nothing where nothing is compared."""
    figures = {row["name"]: row["figures"][column] for row in facts["rows"] if column in row["figures"]}
    differences = {name: f["difference"] for name, f in figures.items() if "difference" in f}
    if candidate in {difference["reference"] for difference in differences.values()}:
        return "*"
    if candidate not in differences:
        return ""
    difference = differences[candidate]
    if difference["interval"] is None:
        return "?"
    if difference["within_noise"]:
        return "~"
    return "+" if (difference["mean"] > 0) == (facts["columns"][column]["better"] == "higher") else "-"


def explanation(facts: Mapping[str, Any]) -> str:
    """Returns what the marks and intervals of the one table mean, in words."""
    seeds = facts["seeds"]
    if seeds == 1:
        return "One seed: no difference can be told from noise (?). * is what the others of its column are compared with."
    return (
        f"+ better, - worse than the * of its column, ~ within noise. [low, high] are 95 % intervals of means over {seeds} "
        "seeds; differences are tested at 5 % for all candidates of a column at once (Welch, Bonferroni). Own losses "
        "are compared where objective, text and tokenizer are the same."
    )


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


def _whole(facts: Mapping[str, Any]) -> Markup | None:
    heads, rows = summary(facts)
    return join(
        data_table([heads[0], *[f"*{_title(head)}" for head in heads[1:]]], rows),
        tag("p", explanation(facts), class_="small soft"),
    )


def _floor(column: str, facts: Mapping[str, Any]) -> str:
    """What can be had without a model, in words; the way of scoring is named for each candidate."""
    details = {key.rsplit("/", 1)[0]: value for key, value in facts["details"].items()}
    kind = facts["columns"][column]["kind"]
    if kind == "held out":
        way = column.partition(", ")[2]
        return (
            "Pieces of validation text, each scored by itself; lower is better."
            if way == "left to right"
            else "A pseudo-likelihood, each token given what stands around it: lower is better, but no likelihood, and not to be "
            "compared with left to right."
        )
    first: Mapping[str, Any] = next(iter(details.values()))
    if kind == "probe":
        task = first["probe"]
        return f"Chance is {task['chance']:.3f}, always the commonest class {task['majority']:.3f}."
    suite = column.removeprefix("pairs ")
    details = {name: value for name, value in details.items() if suite in value["pairs"]}
    first = next(iter(details.values()))
    ways: dict[str, list[str]] = {}
    for name, value in details.items():
        ways.setdefault(str(value["pairs"][suite].get("protocol", "?")), []).append(name)
    said = "; ".join(f"{way}: {', '.join(names)}" for way, names in ways.items())
    alone = first["pairs"][suite]["by_length_alone"]
    return f"Chance is 0.5, always the sentence of fewer tokens {alone:.3f}. Scored by {said}."


def _scores(column: str, facts: Mapping[str, Any]) -> Markup | None:
    figures = {row["name"]: row["figures"][column] for row in facts["rows"] if column in row["figures"]}
    ends: list[Number] = [f["mean"] for f in figures.values()]
    ends += [end for f in figures.values() for end in (f["interval"] or ())]
    ticks = nice_ticks(min(ends), max(ends), 4)
    best = 1 if facts["columns"][column]["better"] == "lower" else -1
    ordered = sorted(figures.items(), key=lambda item: best * item[1]["mean"])
    body: list[Sequence[Any]] = [("", strip_axis(ticks), "", "")]
    body += [
        (
            name,
            interval_strip(f["mean"], f["interval"], ticks, name=f"{name}: {_number(f)}"),
            _number(f),
            "reference" if mark(column, name, facts) == "*" else verdict(f),
        )
        for name, f in ordered
    ]
    return join(
        data_table(("candidate", "", "*mean and 95 % interval", f"*difference{_level(figures)}"), body),
        tag("p", _floor(column, facts), class_="small soft"),
    )


def _level(figures: Mapping[str, Mapping[str, Any]]) -> str:
    levels = {f["difference"]["confidence"] for f in figures.values() if "difference" in f}
    return f" and {100 * levels.pop():.3g} % interval" if len(levels) == 1 else ""


def _losses(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    heads, body = ["candidate"], [[row["name"]] for row in rows]
    for column in columns:
        heads += [f"*{column.removeprefix('own loss, ')}", "*difference"]
        for cells, row in zip(body, rows, strict=True):
            figure = row["figures"][column]
            said = verdict(figure)
            cells += [_number(figure), f"to {figure['difference']['reference']}: {said}" if said else ""]
    note = (
        "Each objective's own loss on held-out text. Losses of different objectives are not comparable: what a model is "
        "told before it predicts differs. Differences are given where objective, text and tokenizer are the same, with "
        "intervals that hold for all of them at once; for replaced-token detection none are, since how hard its task is "
        "depends on each run's own generator."
    )
    return join(data_table(heads, body), tag("p", note, class_="small soft"))


def _table(columns: Sequence[str], facts: Mapping[str, Any]) -> Markup | None:
    rows = [
        (row["name"], *[SHOWN[column](row["figures"][column]["mean"]) for column in columns])
        for row in facts["rows"]
    ]
    return join(
        data_table(("candidate", *[f"*{column.partition(',')[0]}" for column in columns]), rows),
        tag("p", _conditions(facts), class_="small soft"),
    )


def _conditions(facts: Mapping[str, Any]) -> str:
    """Under what times and memory were measured."""
    found = {name: " or ".join(map(str, values)) for name, values in facts["conditions"].items()}
    machine = facts.get("machine")
    where = f" on {machine['gpu'] or machine['cpu']}" if machine else ""
    return (
        f"In {found['precision']}{where}, up to {found['jobs']} runs at a time, threads of each: {found['threads']}. "
        "Runs beside each other are slower than one alone."
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
    return column.removeprefix("pairs ").replace("_", " ")


def _number(figure: Mapping[str, Any]) -> str:
    interval = figure["interval"]
    between = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{figure['mean']:.3f}{between}"
