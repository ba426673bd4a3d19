"""The sections of the page but the one on training: each returns its body, or None where its stage has not run."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.report.blocks import (
    MOST_ROWS,
    Facts,
    all_settings,
    brief,
    data_table,
    definitions,
    dig,
    file_name,
    language_name,
    language_tag,
    plain,
    share_bar,
    share_of,
)
from gristmill.report.charts import interval_strip, nice_ticks, strip_axis
from gristmill.report.lineage import diagram
from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import (
    Number,
    bytes_text,
    count,
    duration,
    figure,
    flop,
    percent,
    plural,
    range_text,
    rounded_count,
)

__all__ = ["corpus", "cost", "lineage", "model", "reproduce", "samples", "shards", "tokenizer", "validation"]


def corpus(facts: Facts) -> Markup | None:
    """Sources, languages, what was dropped and why, and the split."""
    corpus = facts.get("corpus")
    if corpus is None:
        return None
    sources, languages = corpus.get("sources") or [], corpus.get("languages") or {}
    read, splits = corpus.get("read") or {}, corpus.get("splits") or {}
    lead = f"{plural(corpus.get('documents') or 0, 'document')} with {bytes_text(corpus.get('text_bytes'))} of text"
    if read.get("files"):
        lead += f", from {plural(read['files'], 'file')} of {bytes_text(read.get('bytes'))}"
    held_back = dig(splits, "valid", "text_bytes")
    if held_back:
        lead += f". {bytes_text(held_back)} in {plural(splits['valid'].get('documents') or 0, 'document')} were held back"
        lead += " for validation"
    changed = {name: n for name, n in (corpus.get("changed") or {}).items() if n}
    return join(
        tag("p", lead + ".", class_="lead"),
        share_bar(
            "Languages, by bytes of text",
            {language_name(k): v.get("text_bytes", 0) for k, v in languages.items()},
        ),
        tag("h3", "Sources") if sources else None,
        data_table(
            ["File", "Format", "Encoding", "*Documents", "*Text"],
            [
                [
                    file_name(s.get("path")),
                    s.get("format"),
                    s.get("encoding"),
                    count(s.get("documents")),
                    bytes_text(s.get("text_bytes")),
                ]
                for s in sorted(sources, key=lambda s: -(s.get("text_bytes") or 0))[:MOST_ROWS]
            ],
            more=len(sources) - MOST_ROWS,
        ),
        tag("h3", "What was dropped, and why"),
        _dropped(corpus.get("dropped") or {}, corpus.get("text_bytes") or 0),
        tag(
            "p",
            "Repaired: " + ", ".join(f"{n} in {plural(v, 'document')}" for n, v in changed.items()) + ".",
            class_="small soft",
        )
        if changed
        else None,
        tag("h3", "Training and validation"),
        data_table(
            ["Split", "*Documents", "*Characters", "*Text", "*Share"],
            [
                [
                    {"train": "training", "valid": "validation"}.get(name, name),
                    count(split.get("documents")),
                    count(split.get("characters")),
                    bytes_text(split.get("text_bytes")),
                    percent(share_of(split.get("text_bytes"), corpus.get("text_bytes"))),
                ]
                for name, split in splits.items()
            ],
        ),
    )


def _dropped(dropped: Mapping[str, Any], kept_bytes: int) -> Markup | None:
    if not any((entry.get("documents") or 0) for entry in dropped.values()):
        return tag("p", "Nothing.")
    return data_table(
        ["Reason", "*Documents", "*Text", "*Against what was kept"],
        [
            [
                reason,
                count(d.get("documents")),
                bytes_text(d.get("text_bytes")),
                percent(share_of(d.get("text_bytes"), kept_bytes)),
            ]
            for reason, d in sorted(dropped.items(), key=lambda item: -(item[1].get("text_bytes") or 0))
        ],
    )


def tokenizer(facts: Facts) -> Markup | None:
    """The vocabulary, bytes per token, and a sentence in its pieces."""
    tokenizer = facts.get("tokenizer")
    if tokenizer is None:
        return None
    kind = tokenizer.get("kind")
    rates = {code: _rate(value) for code, value in (tokenizer.get("languages") or {}).items()}
    lead = f"{count(tokenizer.get('vocab_size'))} pieces" + (
        f" of the kind {kind}" if isinstance(kind, str) else ""
    )
    return join(
        tag(
            "p",
            lead + ". A piece stands for more bytes where the tokenizer knows the language better.",
            class_="lead",
        ),
        data_table(
            ["Language", "*Bytes per token"],
            [[language_name(code), figure(rate, 2)] for code, rate in rates.items() if rate is not None],
        ),
        *[
            join(
                tag(
                    "h3",
                    f"{language_name(split['language'])}: {plural(split['tokens'], 'token')} for {plural(len(split['text']), 'character')}",
                ),
                tag(
                    "p",
                    *[
                        tag(
                            "span",
                            p["text"],
                            tag("sup", str(p["tokens"])) if p["tokens"] > 1 else None,
                            class_=f"p{i % 4}",
                        )
                        for i, p in enumerate(split["pieces"])
                    ],
                    class_="pieces",
                    lang=language_tag(split["text"]),
                ),
            )
            for split in facts.get("splits") or []
        ],
        tag(
            "p",
            "A small figure counts the tokens of a character that takes more than one.",
            class_="small soft",
        )
        if any(p["tokens"] > 1 for split in facts.get("splits") or [] for p in split["pieces"])
        else None,
    )


def shards(facts: Facts) -> Markup | None:
    """Tokens, rows and padding."""
    shards = facts.get("shards")
    if shards is None:
        return None
    splits = {
        name: split for name, split in (shards.get("splits") or shards).items() if isinstance(split, Mapping)
    }
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        ("Documents", "documents", count),
        ("Tokens", "tokens", count),
        ("Text", "text_bytes", bytes_text),
        ("Bytes per token", "bytes_per_token", lambda value: figure(value, 2)),
        ("Rows", "rows", count),
        ("Padding", "padding_share", percent),
    ]
    known = [c for c in columns if any(c[1] in split for split in splits.values())]
    return join(
        tag(
            "p",
            "Documents are packed into rows without cropping or dropping a token; those in one row do not see each other.",
        ),
        data_table(
            ["Split", *["*" + title for title, _, _ in known]],
            [
                [
                    {"train": "training", "valid": "validation"}.get(name, name),
                    *[show(split.get(key)) for _, key, show in known],
                ]
                for name, split in splits.items()
            ]
            if known
            else [],
        ),
    )


def model(facts: Facts) -> Markup | None:
    """Parameters by part, work per token, memory, and sizes."""
    model = facts.get("model")
    if model is None:
        return None
    parameters = model.get("parameters") or {}
    flops, settings = model.get("flops_per_token"), dig(facts, "settings", "model") or {}
    sizes = {name: value for name, value in settings.items() if not isinstance(value, Mapping | list)}
    parts = {
        name.replace("_", " "): value
        for name, value in parameters.items()
        if name != "total" and isinstance(value, int | float) and value
    }
    return join(
        tag("p", f"{count(parameters.get('total'))} parameters.", class_="lead")
        if parameters.get("total")
        else None,
        share_bar("Parameters by part", parts, rounded_count) if len(parts) > 1 else None,
        definitions(
            {
                "Work per token": f"{flop(flops)}, forward and backward" if flops else None,
                "Memory at its peak": bytes_text(model["memory_peak_bytes"])
                if model.get("memory_peak_bytes")
                else None,
            }
        ),
        definitions(plain(sizes), pairs_in_a_line=2),
    )


def validation(facts: Facts) -> Markup | None:
    """Every figure with its interval, on one axis."""
    overall = facts.get("overall")
    if not overall:
        return None
    evaluation = facts.get("evaluation") or {}
    groups = [
        (title, {naming(key): value for key, value in (evaluation.get(key_name) or {}).items()})
        for title, key_name, naming in (
            ("By language", "by_language", language_name),
            ("By source", "by_source", file_name),
        )
    ]
    groups = [("", {"all of it": overall}), *[(title, group) for title, group in groups if group]]
    ends = [v for _, group in groups for entry in group.values() for v in _reach(entry)]
    ticks = nice_ticks(min(ends), max(ends), 4) if ends else []
    note = (
        "Intervals are 95 % bootstrap intervals that draw whole documents. They say how far a figure would "
        "move with other documents of the same kind, not with another training seed. "
    )
    if "zh" in (evaluation.get("by_language") or {}):
        note += "A Chinese character is three bytes: multiply by three for bits per character."
    return join(_figures(groups, ticks), tag("p", note, class_="small soft"))


def _figures(
    groups: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]], ticks: Sequence[Number]
) -> Markup:
    """One table, so that the figures of all groups stand below each other on one axis."""
    names = ["Bits per byte", "95 % interval", None, "Nats per token", "Perplexity", "Documents", "Tokens"]
    heads = [
        tag("th", name, scope="col", class_="n")
        if name
        else tag("th", strip_axis(ticks) if ticks else None, scope="col")
        for name in names
    ]
    rows = []
    for title, group in groups:
        if title:
            rows.append(tag("tr", tag("th", title, colspan="8", scope="colgroup"), class_="group"))
        for name, entry in list(group.items())[:MOST_ROWS]:
            bits, nats, interval = (
                entry.get(key) for key in ("bits_per_byte", "nats_per_token", "bits_per_byte_interval")
            )
            between = range_text(interval)
            spoken = f"{name}: {figure(bits)}" + (f", {between}" if between else "")
            cells = [
                figure(bits),
                between or "–",
                interval_strip(bits, interval, ticks, name=spoken) if bits is not None else None,
                figure(nats),
                figure(math.exp(nats), 1) if nats is not None else "–",
                count(entry.get("documents")),
                count(entry.get("tokens")),
            ]
            kinds = ["n", "n", None, "n", "n", "n", "n"]
            columns = [tag("td", cell, class_=kind) for cell, kind in zip(cells, kinds, strict=True)]
            rows.append(tag("tr", tag("th", name, scope="row"), *columns, class_=None if title else "total"))
    table = tag("table", tag("thead", tag("tr", tag("td"), *heads)), tag("tbody", *rows), class_="figures")
    return tag("div", table, class_="scroll")


def samples(facts: Facts) -> Markup | None:
    """What the model wrote, and how it was sampled."""
    samples = facts.get("samples") or []
    if not samples:
        return None
    if "gaps" in samples[0]:
        return _gaps(samples)
    return join(
        tag(
            "p",
            "The beginning of each is given, in colour; the model wrote the rest.",
            class_="soft",
        ),
        *[
            tag(
                "div",
                tag(
                    "p",
                    tag("b", str(s.get("prompt") or "")),
                    str(s.get("continuation") or ""),
                    lang=language_tag(f"{s.get('prompt')}{s.get('continuation')}"),
                ),
                tag("footer", brief(s.get("settings")) or ""),
                class_="sample",
            )
            for s in samples
        ],
    )


def _gaps(samples: Sequence[Mapping[str, Any]]) -> Markup:
    """What the model put into gaps: its first guess in colour, and below it all of them beside the truth."""
    blocks = []
    for sample in samples:
        text = [Markup("")]
        for piece, gap in zip(sample["pieces"], [*sample["gaps"], None], strict=True):
            text += [join(piece), tag("b", gap["guesses"][0][0])] if gap else [join(piece)]
        notes = [
            f"{' · '.join(f'{guess.strip()} {percent(chance)}' for guess, chance in gap['guesses'])}"
            + (f" (it was: {gap['truth'].strip()})" if gap["truth"] is not None else "")
            for gap in sample["gaps"]
        ]
        whole = "".join(sample["pieces"])
        blocks.append(
            tag(
                "div",
                tag("p", *text, lang=language_tag(whole)),
                tag("footer", "; ".join(notes)),
                class_="sample",
            )
        )
    lead = "Tokens were hidden from the model; what it thinks stood there is in colour, its first guesses are below."
    return join(tag("p", lead, class_="soft"), *blocks)


def cost(facts: Facts) -> Markup | None:
    """Time by stage, and the energy that it may have taken."""
    cost = facts["cost"]
    if not cost["stages"]:
        return None
    rows = [
        [
            stage["stage"],
            duration(stage.get("elapsed_seconds")),
            duration(stage.get("cpu_seconds")),
            percent(share_of(stage.get("cpu_seconds"), cost["cpu_seconds"])),
        ]
        for stage in cost["stages"]
    ]
    total = [
        "all stages",
        duration(cost["elapsed_seconds"]),
        duration(cost["cpu_seconds"]),
        percent(1.0) if cost["cpu_seconds"] else "–",
    ]
    energy = cost["energy"]
    return join(
        data_table(["Stage", "*Elapsed", "*CPU time", "*Share"], [*rows, total], total=True),
        tag(
            "p",
            f"About {_watt_hours(energy['watt_hours'])}, an estimate that was not metered: it assumes {energy['assumption']}.",
        ),
    )


def lineage(facts: Facts) -> Markup | None:
    """Which stage was made of which, by hash."""
    rows = facts.get("lineage") or []
    if not rows:
        return None
    return join(
        tag("p", "Each directory names what it was made of by the hash of its content.", class_="soft"),
        diagram(rows),
        tag(
            "p",
            "Compare every file with its hash: ",
            tag("code", "gristmill check"),
            " and the run's directory.",
            class_="small soft",
        ),
    )


def reproduce(facts: Facts) -> Markup | None:
    """The command, the machine, the versions and the whole recipe."""
    machine, versions = facts.get("machine") or {}, facts.get("versions") or {}
    if not (facts.get("command") or machine or versions):
        return None
    described = {
        "Processor": machine.get("cpu"),
        "Cores": machine.get("cores"),
        "Memory": bytes_text(machine["memory_bytes"]) if machine.get("memory_bytes") else None,
        "GPU": brief(machine.get("gpu")) if machine.get("gpu") else "none",
        "Features": brief(machine.get("features")),
    }
    known = {"cpu", "cores", "memory_bytes", "gpu", "features"}
    described |= plain({k: v for k, v in machine.items() if k not in known})
    return join(
        tag("pre", tag("code", str(facts["command"]))) if facts.get("command") else None,
        tag("h3", "The machine") if machine else None,
        definitions(described) if machine else None,
        tag("h3", "Versions") if versions else None,
        definitions(plain(versions)) if versions else None,
        all_settings("The whole recipe, every default resolved", facts.get("recipe") or {}),
    )


def _reach(entry: Mapping[str, Any]) -> list[Number]:
    bits = entry.get("bits_per_byte")
    return [] if bits is None else [bits, *(entry.get("bits_per_byte_interval") or [])]


def _rate(value: Any) -> Number | None:
    """Bytes per token of a language, given as the number or in a table."""
    value = value.get("bytes_per_token") if isinstance(value, Mapping) else value
    return float(value) if isinstance(value, int | float) else None


def _watt_hours(value: Number) -> str:
    return (
        f"{value / 1000:,.2f} kWh"
        if value >= 1000
        else f"{value:.2g} Wh"
        if value < 10
        else f"{value:,.0f} Wh"
    )
