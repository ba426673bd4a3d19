"""The page of a task model: how good it is and how sure that is, what it takes for what, how it came about.

`render_adapted` is a pure function of the facts of `gather_adapted`. A part that the recipe did not ask for, a search or a learning
curve, has no section.
"""

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from gristmill.report import adapted_sections as sections
from gristmill.report.adapted_sections import interval_words, is_share, main_figure
from gristmill.report.blocks import Facts, file_name
from gristmill.report.markup import Markup, tag
from gristmill.report.page import document, masthead, section
from gristmill.report.units import (
    Number,
    count,
    duration,
    figure,
    moment,
    percent,
    plural,
    rounded_count,
)

__all__ = ["render_adapted"]

Section = Callable[[Facts], Markup | None]


def render_adapted(facts: Facts) -> str:
    """Returns the whole page."""
    bodies: list[tuple[str, Section]] = [
        ("Figures", sections.figures),
        ("Classes", sections.classes),
        ("Confusions", sections.confusions),
        ("Mistakes", sections.mistakes),
        ("Training", sections.training),
        ("Search", sections.search),
        ("More labels", sections.curve),
        ("Examples", sections.examples),
        ("Cost", sections.cost),
        ("Do it again", sections.reproduce),
    ]
    written = [(title, write(facts)) for title, write in bodies]
    version = f" {facts['version']}" if facts.get("version") else ""
    page = document(
        f"{facts['name']}: a gristmill task model",
        [
            _header(facts),
            tag("main", *[section(title, body) for title, body in written if body is not None]),
            tag(
                "footer",
                tag(
                    "p",
                    f"Written by gristmill{version}. The same numbers are in report.json, beside this page.",
                ),
                class_="end",
            ),
        ],
    )
    style = resources.files("gristmill.report").joinpath("adapted_page.css").read_text(encoding="utf-8")
    return page.replace("</head>", tag("style", Markup(style)) + "</head>", 1)


def _header(facts: Facts) -> Markup:
    return tag(
        "header",
        masthead(f"task model, made {moment(facts['created_at'])}"),
        tag("h1", facts["name"]),
        tag("p", _what_it_is(facts), class_="standfirst"),
        _headline(facts),
        _key_facts(facts),
    )


def _what_it_is(facts: Facts) -> str:
    result, task = facts["result"], str(facts["recipe"]["task"]["name"]).rsplit(".", 1)[-1].replace("_", " ")
    size = rounded_count(result["weights"]["model"])
    examples = plural(result["examples"]["train"], "example")
    return (
        f"A model for {task}: {file_name(facts['recipe']['base'])}, {size} weights, fine-tuned on {examples}."
    )


def _headline(facts: Facts) -> Markup:
    result = facts["result"]
    name, found = main_figure(result)
    measured = result["examples"][result["measured_on"]]
    what = "test" if result["measured_on"] == "test" else "validation"
    gauge = [
        Markup(f'<div class="gauge" aria-hidden="true"><i style="width:{100 * max(0.0, found["mean"]):.2f}%"></i></div>'),
        tag("p", tag("span", "0"), tag("span", "1: all right"), class_="gauge-ends"),
    ]  # fmt: skip
    return tag(
        "div",
        tag(
            "div",
            tag("div", figure(found["mean"], 3), class_="big"),
            tag("p", f"{name} on {plural(measured, f'{what} example')}", class_="big-unit"),
            tag("p", interval_words(found), class_="big-range"),
            *(gauge if is_share(found) else []),
        ),
        tag("div", *[tag("p", sentence) for sentence in _reading(facts)], class_="reading"),
        class_="headline",
    )


def _reading(facts: Facts) -> list[str]:
    """What the figure means and what it does not, in plain words."""
    result = facts["result"]
    _, found = main_figure(result)
    sentences = [_of_seeds(len(result["seeds"]), found), _of_examples(facts)]
    total, majority = _majority(result)
    if total and next(iter(result["figures"])) == "accuracy":
        sentences.append(f"Always telling the commonest class would be right in {percent(majority)}.")
    leaks = result["leaks"]
    if leaks["count"] and not leaks["dropped"]:
        stand = "stands" if leaks["count"] == 1 else "stand"
        sentences.append(
            f"{plural(leaks['count'], 'text')} {stand} in two of the sets, so the figure says less than it seems to."
        )
    twice = (facts.get("curve") or {}).get("twice")
    if twice and twice["gain_interval"]:
        low, high = twice["gain_interval"]
        sentences.append(f"Twice the labels would bring {twice['gain']:+.3f} ({low:+.3f} to {high:+.3f}).")
    return sentences


def _of_seeds(seeds: int, found: Facts) -> str:
    if seeds > 1:
        return (
            f"The mean of {seeds} models that differ in their seeds alone. The interval says how far it would move with other "
            "seeds; other examples would move it, too."
        )
    between = "how far it would move with other examples of the same kind" if found["interval"] else ""
    return f"One model. {f'The interval says {between}. ' if between else ''}With another seed it would be another figure: seeds = 3 in the recipe says by how much."


def _of_examples(facts: Facts) -> str:
    if facts["result"]["measured_on"] == "test":
        return (
            "The test examples were looked at once, when everything was decided; nothing was chosen by them."
        )
    chosen = "the settings and the best epoch were" if facts.get("search") else "the best epoch was"
    return (
        f"There are no test examples. {chosen.capitalize()} chosen by these, so on new ones it will be less."
    )


def _majority(result: Facts) -> tuple[int, Number]:
    sums = [sum(row.values()) for row in (result.get("confusion") or {}).values()]
    return sum(sums), max(sums, default=0) / max(1, sum(sums))


def _key_facts(facts: Facts) -> Markup:
    result = facts["result"]
    kept = next(each for each in result["seeds"] if each["seed"] == result["kept"])
    spent = sum(each["elapsed_seconds"] for each in result["seeds"])
    pairs: Sequence[tuple[str, Any]] = [
        ("Training examples", count(result["examples"]["train"])),
        ("Classes", count(len(result["confusion"])) if result.get("confusion") else None),
        ("Models", f"{len(result['seeds'])}, seed {result['kept']} kept" if len(result["seeds"]) > 1 else "1"),
        ("Best epoch", f"{kept['best_epoch']} of {len(kept['losses'])}"),
        ("Weights learned", rounded_count(result["weights"]["learned"])),
        ("Training time", duration(spent)),
    ]  # fmt: skip
    return tag(
        "dl", *[tag("div", tag("dt", n), tag("dd", v)) for n, v in pairs if v is not None], class_="key"
    )
