"""The section on training: curves, speed against the measured peak, and the choices made for the machine."""

from gristmill.report.blocks import Facts, all_settings, brief, definitions, dig
from gristmill.report.charts import Line, line_chart
from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import Number, count, duration, figure, flop, percent, plural, rounded_count

__all__ = ["training"]

NATS = "nats per token"


def training(facts: Facts) -> Markup | None:
    """Curves, speed and choices."""
    model = facts.get("model")
    if model is None:
        return None
    return join(
        tag("p", _lead(model), class_="lead"),
        _curves(facts),
        definitions(_facts(facts, model)),
        all_settings("Every setting of the training", dig(facts, "settings", "pretrain") or {}),
    )


def _lead(model: Facts) -> str:
    lead = f"{plural(model.get('steps') or 0, 'step')} over {rounded_count(model.get('tokens'))} tokens"
    if model.get("epochs"):
        lead += f", {figure(model['epochs'], 1)} times through the training text"
    if model.get("elapsed_seconds"):
        lead += f", in {duration(model['elapsed_seconds'])}"
    best = model.get("best") or {}
    if best.get("nats_per_token") is not None:
        lead += f". The best validation, {figure(best['nats_per_token'])} nats per token, came at step {count(best.get('step'))}"
    return lead + "."


def _facts(facts: Facts, model: Facts) -> dict[str, str | None]:
    """What the machine did: speed against its measured peak, and the choices that were made for it."""
    peak, precision = model.get("peak_flops") or {}, model.get("precision") or {}
    settings = dig(facts, "settings", "pretrain") or {}
    compute, rate, flops = (
        precision.get("compute"),
        model.get("tokens_per_second"),
        model.get("flops_per_token"),
    )
    used = (
        f"{percent(model['utilisation'])} of the measured peak"
        if model.get("utilisation") is not None
        else None
    )
    if used and rate and flops:
        used += f": {flop(rate * flops)}/s"
    if used and peak.get(compute):
        used += f" of {flop(peak[compute])}/s"
    resumed = model.get("resumed")
    return {
        "Throughput": f"{count(rate)} tokens a second" if rate else None,
        "Utilisation": used,
        "Peak measured here": ", ".join(f"{kind} {flop(value)}/s" for kind, value in peak.items() if value)
        or None,
        "Precision": ": ".join(str(part) for part in (compute, precision.get("reason")) if part) or None,
        "Optimizer": brief(settings.get("optimizer")),
        "Budget": brief(settings.get("budget")),
        "Batch": brief(model.get("batch")),
        "Threads": brief(model.get("threads")),
        "Resumed": None
        if resumed is None
        else "never, in one go"
        if resumed == 0
        else "once"
        if resumed == 1
        else f"{resumed} times",
    }


def _curves(facts: Facts) -> Markup | None:
    curve = facts.get("curve") or {}
    training, validation = curve.get("training") or [], curve.get("validation") or []

    def loss(x: str, after: Number = 0.0) -> list[Line]:
        there = [t for t in training if t.get(x, -1.0) >= after]
        held = [v for v in validation if v.get(x, -1.0) >= after]
        return [
            Line(
                name="training",
                points=[(t[x], t["loss_nats"]) for t in there],
                band=[(t[x], t["loss_nats_low"], t["loss_nats_high"]) for t in there],
                tone="first",
            ),
            Line(
                name="validation",
                points=[(v[x], v["validation_nats_per_token"]) for v in held],
                tone="second",
                dots=True,
            ),
        ]

    def one(key: str) -> list[Line]:
        return [Line(name="", points=[(t["step"], t[key]) for t in training if key in t], tone="first")]

    best = min(validation, key=lambda v: v["validation_nats_per_token"], default=None)
    ring = None
    if best is not None and best is not validation[-1] and "elapsed_seconds" in best:
        ring = (
            best["elapsed_seconds"],
            best["validation_nats_per_token"],
            f"best, {figure(best['validation_nats_per_token'])}",
        )
    # The first steps fall so far that nothing else is seen beside them: once on a logarithmic axis, once without.
    start = 0.1 * max((t.get("elapsed_seconds", 0.0) for t in training), default=0.0)
    highest = max((t["learning_rate"] for t in training if "learning_rate" in t), default=0.0)
    charts = [
        line_chart(
            "Loss over steps",
            loss("step"),
            x_name="step (logarithmic)",
            y_name=NATS,
            x_scale="log",
            y_format=_loss,
        ),
        line_chart(
            "Loss over time, after the first tenth",
            loss("elapsed_seconds", start),
            x_name="time",
            y_name=NATS,
            x_scale="seconds",
            y_format=_loss,
            ring=ring,
        ),
        line_chart(
            "Learning rate",
            one("learning_rate"),
            x_name="step",
            y_name="share of its peak" if highest == 1.0 else "rate",
            y_format=_rate_text,
            y_from_zero=True,
        ),
        line_chart(
            "Throughput",
            one("tokens_per_second"),
            x_name="step",
            y_name="tokens per second",
            y_from_zero=True,
        ),
    ]
    return tag("div", *charts, class_="charts") if any(charts) else None


def _loss(value: Number) -> str:
    return f"{value:.3f}" if round(value, 1) != value else f"{value:.1f}"


def _rate_text(value: Number) -> str:
    return f"{value:.3g}"
