"""The page: the facts of a run as one HTML file that needs nothing else, not even a script, to be read.

`render` is a pure function of the facts, which are those of report.json. Every fact may be missing: a run can be
half done, or its stages written by an older version.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from gristmill.report import sections
from gristmill.report.blocks import LANGUAGES, Facts, dig
from gristmill.report.markup import Markup, tag
from gristmill.report.training import training
from gristmill.report.units import (
    bytes_text,
    count,
    duration,
    figure,
    moment,
    percent,
    plural,
    range_text,
    rounded_count,
)

__all__ = ["document", "masthead", "render", "section"]

THEME_SCRIPT = Markup(
    "const b=document.querySelector('button'),r=document.documentElement;b.hidden=false;b.onclick=()=>{"
    "const dark=r.dataset.theme?r.dataset.theme==='dark':matchMedia('(prefers-color-scheme: dark)').matches;"
    "r.dataset.theme=dark?'light':'dark'}"
)


def render(facts: Facts) -> str:
    """Returns the whole page."""
    name = str(facts["name"])
    bodies: list[tuple[str, Callable[[Facts], Markup | None]]] = [
        ("What went in", sections.corpus),
        ("Tokenizer", sections.tokenizer),
        ("Shards", sections.shards),
        ("Model", sections.model),
        ("Training", training),
        ("Validation", sections.validation),
        ("Samples", sections.samples),
        ("Cost", sections.cost),
        ("Lineage", sections.lineage),
        ("Do it again", sections.reproduce),
    ]
    return document(
        f"{name}: a gristmill report",
        [
            _header(name, facts),
            tag("main", *[section(title, write(facts)) for title, write in bodies]),
            _footer(facts),
        ],
    )


def document(title: str, parts: Sequence[Markup]) -> str:
    """Returns a whole page of these parts, with the project's style."""
    style = Markup(resources.files("gristmill.report").joinpath("page.css").read_text(encoding="utf-8"))
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return "<!doctype html>\n" + tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            tag("title", title),
            tag("style", style),
        ),
        tag("body", *parts, tag("script", THEME_SCRIPT)),
        lang="en",
    )


def masthead(words: str) -> Markup:
    """Returns the line at the top of a page, and the button between light and dark."""
    return tag(
        "div",
        tag("span", tag("b", "gristmill"), f" {words}"),
        tag("button", "Light / dark", type="button", hidden="hidden"),
        class_="masthead",
    )


def _header(name: str, facts: Facts) -> Markup:
    started = facts.get("started_at")
    return tag(
        "header",
        masthead(f"report{', run of ' + moment(started) if started else ''}"),
        tag("h1", name),
        tag("p", _what_it_is(facts), class_="standfirst"),
        _headline(facts),
        _key_facts(facts),
    )


def _what_it_is(facts: Facts) -> str:
    parameters, metrics = dig(facts, "model", "parameters", "total"), facts.get("model") or {}
    if not facts.get("model"):
        waiting = facts.get("interrupted") or []
        if waiting:
            return f"This run was interrupted in its {waiting[0]} stage. The same command goes on where it stopped."
        return "No model has been trained in this run yet."
    family = dig(facts, "settings", "model", "family")
    size = f"{rounded_count(parameters)} parameters" if parameters else "unknown size"
    text = f"A language model of {size}" + (f" in the {family} family" if family else "")
    train_bytes = dig(facts, "corpus", "splits", "train", "text_bytes")
    if train_bytes:
        names = [LANGUAGES.get(code, code) for code in _by_size(dig(facts, "corpus", "languages") or {})]
        spoken = [n for n in names if n not in ("mixed", "other")]
        text += f", trained on {bytes_text(train_bytes)} of {' and '.join(spoken[:2]) + ' ' if spoken else ''}text"
    if metrics.get("elapsed_seconds"):
        text += f" in {duration(metrics['elapsed_seconds'])}"
    return text + "."


def _headline(facts: Facts) -> Markup | None:
    overall = facts.get("overall") or {}
    bits = overall.get("bits_per_byte")
    if bits is None:
        return None
    interval = overall.get("bits_per_byte_interval")
    return tag(
        "div",
        tag(
            "div",
            tag("div", figure(bits, 3), class_="big"),
            tag("p", _unit(facts), class_="big-unit"),
            tag(
                "p",
                f"95 % interval {range_text(interval)}" if interval else "too few documents for an interval",
                class_="big-range",
            ),
            Markup(
                f'<div class="gauge" aria-hidden="true"><i style="width:{min(100.0, bits / 0.08):.2f}%"></i></div>'
            ),
            tag(
                "p",
                tag("span", f"{percent(bits / 8)} of the text's size" if _is_whole(facts) else ""),
                tag("span", "8 bits: as it is stored"),
                class_="gauge-ends",
            ),
        ),
        tag("div", *[tag("p", sentence) for sentence in _reading(facts, overall)], class_="reading"),
        class_="headline",
    )


def _objective(facts: Facts) -> str:
    """The name of what the model learned to predict; runs of older versions do not say, and were causal."""
    return dig(facts, "settings", "pretrain", "objective", "name") or "causal"


def _is_whole(facts: Facts) -> bool:
    """Whether every byte of the text was predicted, so that the figure is the text's own."""
    whole = dig(facts, "evaluation", "whole")
    return _objective(facts) == "causal" if whole is None else bool(whole)  # older runs do not say


def _unit(facts: Facts) -> str:
    if _is_whole(facts):
        return "bits per byte on text it has never seen"
    return f"bits per byte of what it had to predict ({_objective(facts)}), in text it has never seen"


def _reading(facts: Facts, overall: Mapping[str, Any]) -> list[str]:
    """What bits per byte and nats per token mean, in plain words."""
    bits, nats = overall["bits_per_byte"], overall.get("nats_per_token")
    if _is_whole(facts):
        sentences = [
            f"A byte of text takes 8 bits to write down. Someone who shares this model could send the validation text "
            f"in {figure(bits, 2)} bits a byte, {percent(bits / 8)} of its size: the less is left, the more the model "
            "has understood. The figure does not depend on the tokenizer, so any two models can be compared by it."
        ]
    else:
        sentences = [
            f'Trained to predict as "{_objective(facts)}" does, the model needs {figure(bits, 2)} bits for each byte '
            "that it has to predict, knowing the rest of the text as that objective shows it. The figure can be compared "
            "with runs of the same objective and settings, not with other objectives: `gristmill compare` is for that."
        ]
    if nats is not None:
        sentences.append(
            f"Before each token the model is as unsure as someone choosing evenly among {figure(math.exp(nats), 1)} "
            f"tokens (its perplexity; {figure(nats, 3)} nats per token)."
        )
    if overall.get("documents"):
        scope = f"Measured on {plural(overall['documents'], 'document')}"
        sentences.append(
            f"{scope}, {bytes_text(overall.get('text_bytes'))}, {plural(overall.get('tokens') or 0, 'token')}, "
            "all of them held back from training."
        )
    return sentences


def _key_facts(facts: Facts) -> Markup | None:
    model = facts.get("model") or {}
    pairs = [
        ("Parameters", rounded_count(dig(model, "parameters", "total"))),
        ("Vocabulary", count(dig(facts, "tokenizer", "vocab_size"))),
        ("Text for training", bytes_text(dig(facts, "corpus", "splits", "train", "text_bytes"))),
        ("Tokens seen", rounded_count(model.get("tokens"))),
        ("Epochs", figure(model.get("epochs"), 1)),
        ("Training time", duration(model.get("elapsed_seconds"))),
    ]
    known = [(name, value) for name, value in pairs if value != "–"]
    return (
        tag("dl", *[tag("div", tag("dt", n), tag("dd", v)) for n, v in known], class_="key")
        if known
        else None
    )


def section(title: str, body: Markup | None) -> Markup:
    """Returns a section with its title at its side; without a body it says that nothing was run."""
    if body is None:
        return tag(
            "section", tag("h2", title), tag("div", tag("p", "Not run."), class_="body"), class_="not-run"
        )
    return tag("section", tag("h2", title), tag("div", body, class_="body"))


def _footer(facts: Facts) -> Markup:
    version = dig(facts, "versions", "gristmill")
    made = "Written by gristmill" + (f" {version}" if version else "")
    return tag(
        "footer", tag("p", f"{made}. The same numbers are in report.json, beside this page."), class_="end"
    )


def _by_size(languages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return sorted(languages, key=lambda code: -(languages[code].get("text_bytes") or 0))
