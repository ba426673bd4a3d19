"""The sections of the page of a task model. Each takes the facts and returns its body, or None where there is nothing to say."""

import json
import operator
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gristmill.report.adapted_charts import confusion_map
from gristmill.report.blocks import (
    Facts,
    all_settings,
    data_table,
    definitions,
    file_name,
    language_tag,
    share_bar,
    share_of,
)
from gristmill.report.charts import Line, interval_strip, line_chart, nice_ticks, strip_axis
from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import Number, count, duration, figure, percent, plural, range_text, rounded_count

__all__ = [
    "classes",
    "confusions",
    "cost",
    "curve",
    "examples",
    "figures",
    "interval_words",
    "is_share",
    "main_figure",
    "mistakes",
    "reproduce",
    "search",
    "training",
]

SHOWN_CLASSES, SHOWN_MISTAKES, SHOWN_CONFUSIONS, SHOWN_TRIALS = 30, 10, 15, 20
MISTAKE_CHARACTERS = 160
"""Of what was expected and said; a text may hold many entities."""
SPLITS = {"train": "training", "valid": "validation", "test": "test"}


def main_figure(result: Facts) -> tuple[str, Facts]:
    """Returns the name of the first figure, and the figure."""
    name: str = next(iter(result["figures"]))
    return name, result["figures"][name]


def is_share(found: Facts) -> bool:
    """Returns whether a figure is one between 0 and 1, as far as can be seen."""
    return bool(0 <= found["mean"] <= 1)


def interval_words(found: Facts) -> str:
    """Returns the interval of a figure, and what it is over."""
    if not found["interval"]:
        return "without an interval"
    return f"95 % interval {range_text(found['interval'])}, over {found['over']}"


def figures(facts: Facts) -> Markup | None:
    """All figures, with their intervals and the value of each seed."""
    found: Mapping[str, Facts] = facts["result"]["figures"]
    ends = [end for each in found.values() for end in (each["mean"], *(each["interval"] or ()))]
    drawn = all(-1.5 <= end <= 1.5 for end in ends)  # side by side only where they are of one kind
    ticks = nice_ticks(min(ends), max(ends), 4)
    several = any("values" in each for each in found.values())
    heads = [
        "figure",
        *([""] if drawn else []),
        "*mean and 95 % interval",
        *(["*of each seed"] if several else []),
    ]
    rows: list[Sequence[Any]] = [["", strip_axis(ticks), *[""] * (len(heads) - 2)]] if drawn else []
    for name, each in found.items():
        strip = interval_strip(each["mean"], each["interval"], ticks, name=f"{name}: {figure(each['mean'])}")
        interval = f" [{', '.join(figure(end) for end in each['interval'])}]" if each["interval"] else ""
        seeds = ", ".join(figure(value) for value in each.get("values", ()))
        cells = [
            name,
            *([strip] if drawn else []),
            figure(each["mean"]) + interval,
            *([seeds] if several else []),
        ]
        rows.append(cells)
    return tag("div", data_table(heads, rows), class_="with-strips" if drawn else None)


def classes(facts: Facts) -> Markup | None:
    """Precision, recall and F1 of each class and on average, in the order of scikit-learn's table."""
    confusion = facts["result"].get("confusion")
    if not confusion:
        return tag("pre", facts["table"].rstrip("\n"), class_="layout") if facts["table"].strip() else None
    rows = _class_rows(confusion)
    several = len(facts["result"]["seeds"]) > 1
    lead = tag("p", "Of the model that is kept.", class_="soft") if several else None
    heads = ("class", "*precision", "*recall", "*F1", "*support")
    averages = _averages(rows)
    if len(rows) <= SHOWN_CLASSES:
        return join(lead, data_table(heads, [*map(_class_cells, rows), *averages]))
    worst = sorted(rows, key=lambda row: (row.f1, row.name))[: SHOWN_CLASSES // 2]
    return join(
        lead,
        tag(
            "p",
            f"The {len(worst)} classes of {len(rows)} with the lowest F1, and the averages of all.",
            class_="soft",
        ),
        data_table(heads, [*map(_class_cells, worst), *averages]),
        tag(
            "details",
            tag("summary", f"All {len(rows)} classes"),
            data_table(heads, list(map(_class_cells, rows))),
        ),
    )


def confusions(facts: Facts) -> Markup | None:
    """What is taken for what, as a picture, and the largest confusions."""
    confusion: Mapping[str, Mapping[str, int]] | None = facts["result"].get("confusion")
    if not confusion:
        return None
    wrong = [
        (number, true, said)
        for true, row in confusion.items()
        for said, number in row.items()
        if said != true
    ]
    shown = sorted(wrong, key=lambda entry: (-entry[0], entry[1], entry[2]))[:SHOWN_CONFUSIONS]
    whole = {true: sum(row.values()) for true, row in confusion.items()}
    table = data_table(
        ("true class", "taken for", "*times", "*share of the class"),
        [(true, said, count(number), percent(share_of(number, whole[true]))) for number, true, said in shown],
    )
    many = len(wrong) > len(shown)
    lead = (
        "A row for each true class, a column for each that was said. The stronger a square, the larger its share of the row: blue is right, "
        "red is wrong."
    )
    return join(
        tag("p", lead, class_="soft"),
        confusion_map(confusion),
        tag("h3", "The largest" if many else "All of them") if shown else tag("p", "Nothing is confused."),
        table if shown else None,
    )


def mistakes(facts: Facts) -> Markup | None:
    """Examples of which something else is said than what was expected, the worst first."""
    found: Sequence[Facts] = facts["mistakes"]
    if not found:
        return None
    result = facts["result"]
    whole, measured = result["examples"][result["measured_on"]], SPLITS[result["measured_on"]]
    if result["mistakes"] == whole:  # where there is more or less of it, and no right or wrong
        lead = f"Of {plural(whole, f'{measured} example')} those that are furthest from what was expected."
    else:
        lead = f"Of {plural(whole, f'{measured} example')}, {count(result['mistakes'])} are not as expected, by the model that is kept."
        is_sure = found[0]["probability"] is not None
        lead += (
            " The surest come first: among them are labels that are wrong."
            if is_sure
            else " The worst come first."
        )
    rest = found[SHOWN_MISTAKES:]
    more = tag("details", tag("summary", f"{len(rest)} more"), *map(_mistake, rest)) if rest else None
    return join(tag("p", lead, class_="soft"), *map(_mistake, found[:SHOWN_MISTAKES]), more)


def training(facts: Facts) -> Markup | None:
    """Loss and score of each epoch, and what became of each seed."""
    result = facts["result"]
    seeds: Sequence[Facts] = result["seeds"]
    by = result["chosen_by"]
    sign = -1.0 if by == "loss" else 1.0
    charts = [
        _epochs("Training loss", "loss, nats", [each["losses"] for each in seeds]),
        _epochs(
            "On the validation examples",
            "loss, nats" if by == "loss" else by,
            [[sign * score for score in each["scores"]] for each in seeds],
        ),
    ]
    names = list(result["figures"])[:1]
    heads = ["seed", "*best epoch", "*steps", "*time"]
    heads += [f"*{name}, {SPLITS[split]}" for split in ("valid", "test") for name in names if seeds[0][split]]
    rows = []
    for each in seeds:
        kept = " (kept)" if each["seed"] == result["kept"] and len(seeds) > 1 else ""
        cells = [
            f"{each['seed']}{kept}",
            f"{each['best_epoch']} of {len(each['losses'])}",
            count(each["steps"]),
        ]
        cells.append(duration(each["elapsed_seconds"]))
        cells += [figure(each[split][name]) for split in ("valid", "test") for name in names if each[split]]
        rows.append(cells)
    lines = "lines are means over seeds, bands reach from the lowest to the highest" if len(seeds) > 1 else ""
    lead = f"The best epoch and seed are chosen by {by} on the validation examples" + (
        f"; {lines}." if lines else "."
    )
    settings = facts["result"]["settings"]["tune"]
    return join(
        tag("p", lead, class_="soft"),
        tag("div", *charts, class_="charts") if any(charts) else None,
        data_table(heads, rows),
        all_settings("Every setting of the training", settings),
    )


def search(facts: Facts) -> Markup | None:
    """Which settings were tried, and what they reached."""
    found = facts.get("search")
    if not found:
        return None
    sign = -1.0 if found["figure"] == "loss" else 1.0
    trials: Sequence[Facts] = found["trials"]
    best = found["best"]
    states = {
        state: sum(trial["state"] == state for trial in trials)
        for state in ("finished", "given up", "diverged")
    }
    counted = ", ".join(f"{number} {state}" for state, number in states.items() if number)
    chosen = ", ".join(f"{name} = {_setting(value)}" for name, value in best["values"].items())
    lead = (
        f"{plural(len(trials), 'trial')}: {counted}. The best, trial {best['number'] + 1}, reached {figure(sign * best['score'])} "
        f"({found['figure']}) on the validation examples with {chosen}; all seeds were trained with that. Trials have a seed of their own."
    )
    names = list(best["values"])
    ordered = sorted(
        trials, key=lambda trial: (-(trial["score"] if trial["score"] is not None else -1e9), trial["number"])
    )
    heads = ("trial", *[f"*{name}" for name in names], f"*{found['figure']}", "*epochs", "", "*time")
    rows = [
        (
            str(trial["number"] + 1),
            *[_setting(trial["values"].get(name)) for name in names],
            figure(None if trial["score"] is None else sign * trial["score"]),
            str(len(trial["epochs"])),
            "best" if trial["number"] == best["number"] else trial["state"],
            duration(trial["elapsed_seconds"]),
        )
        for trial in ordered
    ]
    rest = rows[SHOWN_TRIALS:]
    return join(
        tag("p", lead),
        tag("div", _scores_of(trials, sign, found["figure"]), class_="charts"),
        share_bar("What the differences come from", found["importance"], percent)
        if found["importance"]
        else None,
        data_table(heads, rows[:SHOWN_TRIALS]),
        tag("details", tag("summary", f"{len(rest)} more"), data_table(heads, rest)) if rest else None,
    )


def curve(facts: Facts) -> Markup | None:
    """How the figure grows with the number of labels, and what twice as many would bring."""
    found = facts.get("curve")
    if not found:
        return None
    means: Sequence[Facts] = found["means"]
    lines = [
        Line(
            name="", points=[(mean["examples"], mean["mean"]) for mean in means], tone="first", dots=True,
            band=[(mean["examples"], *mean["interval"]) for mean in means if mean["interval"]],
        )
    ]  # fmt: skip
    if found["law"]:
        lines.append(Line(name="law", points=_law_points(found), tone="second"))
    chart = line_chart(
        "What training examples bring: measured, and by the law" if found["law"] else "What training examples bring", lines, x_name="training examples (logarithmic)", y_name=found["figure"],
        x_scale="log", y_format=_tick,
    )  # fmt: skip
    rows = [
        (count(mean["examples"]), figure(mean["mean"]), range_text(mean["interval"]) or "one seed")
        for mean in means
    ]
    equal = "the same number of steps" if found["equal"] == "steps" else "the same number of epochs"
    note = (
        f"Measured on the {count(found['valid_examples'])} validation examples, by which the best epoch is chosen, too; the test examples are "
        f"not looked at. All sizes have {equal}; smaller parts are within larger ones, and each seed draws its own."
    )
    return join(
        *_foretold(found),
        tag("div", chart, class_="charts"),
        data_table(("training examples", f"*{found['figure']}", "*95 % interval over seeds"), rows),
        tag("p", note, class_="small soft"),
    )


def examples(facts: Facts) -> Markup | None:
    """How many there are, how long they are, how many had to be cut, and which stand in two splits."""
    result, data = facts["result"], facts["recipe"]["data"]
    lengths = result.get("lengths") or {}
    rows = []
    for split, number in result["examples"].items():
        if not number:
            continue
        size = lengths.get(split) or {}
        source = file_name(data[split]) if data.get(split) else f"from {file_name(data['train'])}"
        cut = None if "cut" not in size else f"{count(size['cut'])} ({percent(size['cut'] / number)})"
        tokens = [count(size.get(name)) for name in ("median", "longest_tenth", "longest")]
        rows.append((SPLITS[split], source, count(number), *tokens, cut))
    heads = ("split", "file", "*examples", "*median tokens", "*a tenth has more than", "*longest", "*cut")
    leaks = result["leaks"]
    said = [*result.get("notes", ())]
    if lengths:
        said.append(
            f"longer texts than {count(lengths['maximum_tokens'])} tokens are cut, or divided where the task allows"
        )
    sentences = [tag("p", f"{text[:1].upper()}{text[1:]}.") for text in said]
    return join(data_table(heads, rows), *sentences, *_leaks(leaks))


def cost(facts: Facts) -> Markup | None:
    """Time, weights and energy."""
    result, spent = facts["result"], facts["cost"]
    weights = result["weights"]
    seeds = sum(each["elapsed_seconds"] for each in result["seeds"])
    trials = (facts.get("search") or {}).get("trials", ())
    energy = spent["energy"]
    return definitions(
        {
            "In all": f"{duration(spent['elapsed_seconds'])}, {duration(spent.get('cpu_seconds'))} of one core",
            "Models that are measured": f"{plural(len(result['seeds']), 'model')}, {duration(seeds)}",
            "Search": f"{plural(len(trials), 'trial')}, {duration(sum(t['elapsed_seconds'] or 0.0 for t in trials))}"
            if trials
            else None,
            "Weights learned": f"{rounded_count(weights['learned'])}, {count(weights['head'])} of them in the head; the model has "
            f"{rounded_count(weights['model'])}",
            "Energy": f"about {energy['watt_hours']:.2g} Wh, an estimate: {energy['assumption']}",
        }
    )


def reproduce(facts: Facts) -> Markup | None:
    """What it was made of, and the recipe."""
    parents = {
        f"Made of: {role}": f"{parent['kind']} {parent['content_hash'][:16]} in {parent['path']}"
        for role, parent in facts["parents"].items()
    }
    recipe = {
        name: value for name, value in facts["recipe"].items() if name not in ("data_hashes", "base_hash")
    }
    hashes = {
        f"{file_name(name)}, sha256": value[:16] for name, value in facts["recipe"]["data_hashes"].items()
    }
    base = facts["recipe"].get("base_hash")
    return join(
        definitions(
            {
                "Base": str(facts["recipe"]["base"]),
                "Weights of the base, sha256": base[:16] if base else None,
                **parents,
                **hashes,
                "This model": facts["content_hash"][:16],
            }
        ),
        all_settings("The whole recipe, every default resolved", recipe),
    )


# --- parts ------------------------------------------------------------------------------------------------------------


class _ClassRow(NamedTuple):
    """The figures of one class."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def _class_rows(confusion: Mapping[str, Mapping[str, int]]) -> list[_ClassRow]:
    """Each class with precision, recall, F1 and support; 0 where there is nothing to divide by, as in scikit-learn."""
    names = sorted({*confusion, *(name for row in confusion.values() for name in row)})
    predicted = {name: sum(row.get(name, 0) for row in confusion.values()) for name in names}
    rows = []
    for name in names:
        support, right = sum(confusion.get(name, {}).values()), confusion.get(name, {}).get(name, 0)
        f1 = 2 * right / max(1, support + predicted[name])
        rows.append(_ClassRow(name, right / max(1, predicted[name]), right / max(1, support), f1, support))
    return rows


def _averages(rows: Sequence[_ClassRow]) -> list[tuple[str, ...]]:
    support = sum(row.support for row in rows)
    columns = [[row.precision for row in rows], [row.recall for row in rows], [row.f1 for row in rows]]
    weights = [row.support / max(1, support) for row in rows]
    weighted = [sum(map(operator.mul, column, weights)) for column in columns]
    return [
        (tag("b", "accuracy"), "", "", figure(weighted[1]), count(support)),
        (
            tag("b", "macro average"),
            *(figure(statistics.fmean(column)) for column in columns),
            count(support),
        ),
        (tag("b", "weighted average"), *map(figure, weighted), count(support)),
    ]


def _class_cells(row: _ClassRow) -> tuple[str, ...]:
    return (row.name, figure(row.precision), figure(row.recall), figure(row.f1), count(row.support))


def _mistake(mistake: Facts) -> Markup:
    sure = mistake["probability"]
    return tag(
        "div",
        tag("p", mistake["text"], lang=language_tag(mistake["text"]), dir="auto"),
        tag(
            "footer",
            "expected ", tag("b", _cut(mistake["expected"])), ", said ", tag("b", _cut(mistake["said"]), class_="said"),
            f" ({percent(sure)} sure)" if sure is not None else None,
            f" · {file_name(mistake['place'])}",
        ),
        class_="mistake",
    )  # fmt: skip


def _cut(text: str) -> str:
    return (
        text
        if 0 < len(text) <= MISTAKE_CHARACTERS
        else f"{text[:MISTAKE_CHARACTERS]}…"
        if text
        else "nothing"
    )


def _epochs(title: str, y_name: str, seeds: Sequence[Sequence[Number]]) -> Markup:
    """The mean over seeds after each epoch, and from where to where they reach; some may have ended sooner."""
    longest = max(map(len, seeds), default=0)
    there = [[values[i] for values in seeds if len(values) > i] for i in range(longest)]
    points = [(i + 1, statistics.fmean(values)) for i, values in enumerate(there)]
    band = [(i + 1, min(values), max(values)) for i, values in enumerate(there)] if len(seeds) > 1 else []
    line = Line(name="", points=points, tone="first", band=band, dots=True)
    return line_chart(title, [line], x_name="epoch", y_name=y_name, y_format=_tick)


def _scores_of(trials: Sequence[Facts], sign: Number, y_name: str) -> Markup:
    scored = [(trial["number"] + 1, trial["score"]) for trial in trials if trial["state"] == "finished"]
    best: list[tuple[Number, Number]] = []
    for number, score in scored:
        best.append((number, sign * max(score, sign * best[-1][1] if best else score)))
    lines = [
        Line(name="trial", points=[(number, sign * score) for number, score in scored], tone="first", dots=True, joined=False),
        Line(name="best", points=best, tone="second"),
    ]  # fmt: skip
    return line_chart("Finished trials", lines, x_name="trial", y_name=y_name, y_format=_tick)


def _law_points(found: Facts) -> list[tuple[Number, Number]]:
    law, first = found["law"], found["means"][0]["examples"]
    last = found["twice"]["examples"]
    sizes = [first * (last / first) ** (i / 24) for i in range(25)]
    return [(size, law["ceiling"] - law["scale"] * size ** -law["power"]) for size in sizes]


def _foretold(found: Facts) -> list[Markup]:
    """What the law says, and how far it was off where that can be seen."""
    twice, check, law = found["twice"], found["check"], found["law"]
    if not twice:
        return [tag("p", "Of fewer than four sizes nothing is foretold.")]
    interval = twice["gain_interval"]
    between = ", of one seed, so nobody knows how sure that is"
    if interval:
        between = f", 95 % interval {interval[0]:+.3f} to {interval[1]:+.3f}"
    gain = f"Twice the labels ({count(twice['examples'])}) would bring {twice['gain']:+.3f}{between}: to about {figure(twice['mean'])}."
    checked = (
        f" for n examples. Put through the smaller sizes alone, this kind of line says {figure(check['said'])} for "
        f"{count(check['examples'])} examples, where {figure(check['measured'])} was measured; the interval is wider by as much."
    )
    formula = join(f"{figure(law['ceiling'])} − {law['scale']:.3g} n", tag("sup", f"−{law['power']:.2g}"))
    return [tag("p", gain), tag("p", "The law is ", formula, checked)]


def _leaks(leaks: Facts) -> list[Markup | None]:
    if not leaks["count"]:
        return [tag("p", "No text stands in two splits.")]
    became = (
        f"{plural(leaks['dropped'], 'example')} were taken out of the earlier split"
        if leaks["dropped"]
        else "they were left there"
    )
    lead = f"{plural(leaks['count'], 'text')} stand in two splits, compared without case and white space; {became}."
    rows = [(leak["text"][:160], file_name(leak["one"]), file_name(leak["other"])) for leak in leaks["first"]]
    table = data_table(("text", "stands in", "and in"), rows, more=leaks["count"] - len(rows))
    return [tag("p", lead), tag("details", tag("summary", "Which"), table)]


def _tick(value: Number) -> str:
    return (
        f"{value:.3f}"
        if round(value, 2) != value
        else f"{value:.2f}"
        if round(value, 1) != value
        else f"{value:.1f}"
    )


def _setting(value: Any) -> str:
    return (
        f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    )
