"""The page of a trial: what each step buys, in loss and in text."""

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.report.blocks import all_settings, data_table
from gristmill.report.charts import Line, interval_strip, line_chart, nice_ticks, strip_axis
from gristmill.report.comparison import verdict
from gristmill.report.markup import Markup, join, tag
from gristmill.report.page import document, masthead, section
from gristmill.report.units import plural, rounded_count

__all__ = ["explanation", "render_trial", "summary", "worth_text"]


def summary(facts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the one table: its heads, and a row of texts for each step, the best first."""
    rows = [
        [
            step["name"],
            worth_text(step["multiplier"]),
            _loss(step["loss"]),
            verdict(step["loss"]),
            rounded_count(step["unique_tokens"]),
            f"{step['cpu_seconds']:.2f}",
        ]
        for step in sorted(facts["steps"], key=lambda step: -step["multiplier"]["mean"])
    ]
    return ["step", "worth text times", "nats/token", "difference", "unique tokens", "CPU time"], rows


def worth_text(found: Mapping[str, Any]) -> str:
    """Returns a multiplier in words: its mean and interval, and whether it lies beyond what was measured."""
    sign = "over " if found["above"] else "under " if found["below"] else ""
    interval = found["interval"]
    if interval is None:
        return f"{sign}{found['mean']:.2f}"
    return f"{sign}{found['mean']:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def explanation(facts: Mapping[str, Any]) -> str:
    """Returns what the figures mean, in words."""
    amounts = ", ".join(f"{point['amount']:g}" for point in facts["curve"])
    return (
        f"Each step is tried on {100 * facts['text']:.0f} % of the text, {plural(facts['seeds'], 'seed')}, at equal "
        f"{facts['equal']}. The recipe as it is was trained on {amounts} times that much text; 1.4 means that a step reaches "
        "what it reaches on 1.4 times the text. Intervals are 95 % over seeds; those of differences hold for all steps at "
        'once. "over" and "under": beyond the curve for some seed. CPU time is that of the recipe as it is = 1.'
    )


def render_trial(facts: Mapping[str, Any]) -> str:
    """Returns the page for the facts of a trial, those of trial.json."""
    header = tag(
        "header",
        masthead("trial"),
        tag("h1", str(facts["name"])),
        tag("p", f"What {plural(len(facts['steps']), 'step')} would buy.", class_="standfirst"),
    )
    settings = [all_settings(step["name"], step["changes"]) or Markup("") for step in facts["steps"]]
    main = tag(
        "main",
        section("What each step is worth", _worth(facts)),
        section("What text is worth", _curve(facts)),
        section("What the steps change", join(*settings)),
    )
    footer = tag("footer", tag("p", "The same numbers are in trial.json, beside this page."), class_="end")
    return document(f"{facts['name']}: a gristmill trial", [header, main, footer])


def _worth(facts: Mapping[str, Any]) -> Markup | None:
    steps = sorted(facts["steps"], key=lambda step: -step["multiplier"]["mean"])
    ends = [1.0]
    for step in steps:
        ends += [step["multiplier"]["mean"], *(step["multiplier"]["interval"] or ())]
    ticks = nice_ticks(min(ends), max(ends), 4)
    rows: list[Sequence[Any]] = [("", strip_axis(ticks), "", "", "", "", "")]
    for step, row in zip(steps, summary(facts)[1], strict=True):
        found = step["multiplier"]
        strip = interval_strip(found["mean"], found["interval"], ticks, name=f"{row[0]}: {row[1]}")
        rows.append((row[0], strip, *row[1:]))
    heads = ("step", "", "*worth text times", "*nats/token", "*difference", "*unique tokens", "*CPU time")
    return join(data_table(heads, rows), tag("p", explanation(facts), class_="small soft"))


def _curve(facts: Mapping[str, Any]) -> Markup | None:
    points = [(point["unique_tokens"], point["loss"]["mean"]) for point in facts["curve"]]
    band = [
        (point["unique_tokens"], *point["loss"]["interval"])
        for point in facts["curve"]
        if point["loss"]["interval"]
    ]
    chart = line_chart(
        "As it is, on less and on more text",
        [Line(name="", points=points, tone="first", band=band, dots=True)],
        x_name="unique tokens",
        y_name="nats per predicted token",
        x_scale="log",
    )
    table = data_table(
        ("text", "*unique tokens", "*tokens seen", "*nats/token"),
        [
            (
                f"x {point['amount']:g}",
                rounded_count(point["unique_tokens"]),
                rounded_count(point["tokens"]),
                _loss(point["loss"]),
            )
            for point in facts["curve"]
        ],
    )
    return join(tag("div", chart, class_="charts"), table)


def _loss(figure: Mapping[str, Any]) -> str:
    interval = figure["interval"]
    return f"{figure['mean']:.3f}" + ("" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]")
