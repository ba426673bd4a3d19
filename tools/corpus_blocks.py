"""The blocks of benchmarks/README.md that tell of the corpus, of plans and of what text is worth."""

from typing import Any

from blocks import machine, markdown, of


@of("deduplication")
def deduplication(table: dict[str, Any]) -> str:
    rows = []
    for r in table["rows"]:
        found = [
            " / ".join(f"{r[f'found, {language}'][str(rate)]:.2f}" for rate in (0.01, 0.02, 0.05))
            for language in ("English", "Chinese")
        ]
        lost = [
            f"{each['removed']:,} of {each['documents']:,}: {each['beside']:.1%}, {each['anywhere']:.1%}"
            for name, each in r.items()
            if name.startswith("lost, ")
        ]
        rows.append([r["method"], *found, *lost])
    sets = [name.removeprefix("lost, ") for name in table["rows"][0] if name.startswith("lost, ")]
    columns = [
        "method",
        "found, English",
        "found, Chinese",
        *(f"{each}: removed, unique of it" for each in sets),
    ]
    return markdown(columns, rows) + f"\n\n{machine(table)}."


@of("corpus_clean")
def clean(table: dict[str, Any]) -> str:
    rows = [
        [
            r["set"], f"{r['documents']:,}", f"{r['bytes_a_document']:,}", f"{r['documents_a_cpu_second']:,}",
            r["megabytes_a_cpu_second"], r.get("datatrove", ""), r.get("times", ""), f"{r['equal']:.2%}" if "equal" in r else "",
        ]
        for r in table["rows"]
    ]  # fmt: skip
    columns = [
        "set", "documents", "bytes each", "documents a CPU-second", "MB a CPU-second", "datatrove, documents", "times",
        "decisions equal",
    ]  # fmt: skip
    return markdown(columns, rows) + f"\n\n{machine(table)}."


@of("corpus_memory")
def corpus_memory(table: dict[str, Any]) -> str:
    rows = [
        [
            r["input"], f"{r['gigabytes']:g} GB", f"{r['read']:,}", f"{r['kept']:,}", f"{r['peak_megabytes']:,} MB",
            f"{r['elapsed_seconds']:,.0f}", f"{r['cpu_seconds']:,.0f}",
        ]
        for r in table["rows"]
    ]  # fmt: skip
    differ = len(table["files_that_differ"])
    killed = ", ".join(f"{each:g}" for each in table["killed_after_seconds"])
    return (
        markdown(
            ["input", "text", "documents", "kept", "peak, all processes", "seconds", "CPU-seconds"], rows
        )
        + f"\n\nThe peak grows by {table['growth']:.1%}. Killed after {killed} seconds of {len(table['killed_after_seconds'])} "
        f"attempts: {differ} of {table['files']} files differ from those of the build that was left alone. {machine(table)}."
    )


@of("tokenization")
def tokenization(table: dict[str, Any]) -> str:
    rows = [
        [
            r["language"], f"{r['megabytes']:g}", f"{r['vocab_size']:,}", r["megabytes_a_cpu_second"], r["tokenizers"], r["times"],
            f"{r['documents_with_the_same_ids']:,} of {r['documents']:,}",
        ]
        for r in table["rows"]
    ]  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in table["versions"].items())
    columns = ["language", "MB", "vocabulary", "MB a CPU-second", "`tokenizers`", "times", "same ids"]
    return markdown(columns, rows) + f"\n\n{versions}. {machine(table)}."


@of("corpus_rules")
def rules(table: dict[str, Any]) -> str:
    parts = table["rows"]
    rows = []
    for r in [*parts["english"], *parts["chinese"]]:
        equal = ", ".join(f"{name} {share:.1%}" for name, share in r["equal"].items())
        rows.append(
            [
                r["set"],
                r["documents"],
                equal,
                r.get("documents_a_cpu_second", ""),
                r.get("documents_a_cpu_second_datatrove", ""),
            ]
        )
    return (
        markdown(["set", "documents", "decisions equal", "documents a CPU-second", "datatrove"], rows)
        + f"\n\n{machine(table)}."
    )


@of("private")
def private(table: dict[str, Any]) -> str:
    shown = [r for r in table["rows"] if r["recall"] is not None]
    rows = [
        [r["language"], r["kind"], r["planted"], f"{r['recall']:.3f}", f"{r['exactly']:.3f}"] for r in shown
    ]
    natural = [
        [
            r["set"],
            r["kind"],
            f"{r['million_characters']:g}",
            r["finds"],
            f"{r['looked_at'] - r['false']} of {r['looked_at']}",
        ]
        for r in table["found_where_little_is"]
        if r["looked_at"]
    ]
    passages = [
        [r["split"], r["with"], r["passages"], f"{r['precision']:.3f}", f"{r['recall']:.3f}"]
        for r in table["enterprise"]
    ]
    return "\n\n".join([
        markdown(["language", "kind", "planted", "recall", "exactly"], rows),
        "What is found in real texts, looked at by hand:",
        markdown(["set", "kind", "million characters", "finds", "right"], natural),
        "Passages of `en_pii_enterprise` that hold personal data, told from those that do not (nearly all of it is names):",
        markdown(["split", "with", "passages", "precision", "recall"], passages),
        f"{machine(table)}.",
    ])  # fmt: skip


@of("corpus_quality")
def quality(table: dict[str, Any]) -> str:
    parts = table["rows"]
    classified = [
        [
            r["task"],
            r["labelled"],
            f"{r['area']:.3f}",
            f"{r['least']:.3f}",
            r["inside_interval"],
            r["training_cpu_seconds"],
        ]
        for r in parts["classifier"]
    ]
    surprised = [
        [r["seed"], r["against"], f"{r['area']:.3f}", f"{r['interval'][0]:.3f} to {r['interval'][1]:.3f}"]
        for r in parts["perplexity"]
    ]
    spoken = [[r["texts"], r["language"], r["count"], f"{r['gristmill']:.3f}"] for r in parts["language"]]
    speeds = [
        [r["what"], r["documents"], r["documents_per_cpu_second"], r["megabytes_per_cpu_second"]]
        for r in parts["speed"]
    ]
    return "\n\n".join([
        markdown(["classifier: task", "labelled", "area under the curve", "worst", "inside its interval", "CPU-seconds"], classified),
        markdown(["perplexity: model of", "good against", "area under the curve", "95 % interval"], surprised),
        markdown(["language of", "is", "texts", "recognised"], spoken),
        markdown(["speed of", "documents", "documents a CPU-second", "MB a CPU-second"], speeds),
        f"{machine(table)}.",
    ])  # fmt: skip


@of("planner")
def planner(table: dict[str, Any]) -> str:
    rows = [
        [
            r["recipe"], f"{r['depth']} x {r['width']}", r["budget"], f"{r['epochs']:.1f}", f"{r['share_of_flops']:.1%}",
            f"{r['loss']:.3f}", f"{r['foretold_loss']:.3f}", f"{r['loss_error']:+.1%}",
            f"{r['seconds']:.0f}", f"{r['foretold_seconds']:.0f}", f"{r['seconds_error']:+.1%}",
        ]
        for r in table["rows"]
    ]  # fmt: skip
    columns = [
        "recipe", "depth, width", "budget", "epochs", "cost of the plan", "loss", "foretold", "off", "seconds", "foretold", "off",
    ]  # fmt: skip
    return markdown(columns, rows) + f"\n\n{machine(table)}."


@of("multiplier")
def multiplier(table: dict[str, Any]) -> str:
    rows, tried = [], []
    for r in table["rows"]:
        step = r["steps"][0]
        worth = step["multiplier"]
        low, high = worth["interval"]
        rows.append(
            [
                r["text"], r["chosen"], f"{worth['mean']:.2f}", f"{low:.2f} to {high:.2f}", f"{step['loss']['mean']:.3f}",
                f"{step['tokens']:,}", f"{step['cpu_seconds']:.1f}",
            ]
        )  # fmt: skip
        tried += [
            [r["text"], each["name"], f"{each['loss']['mean']:.3f}"]
            for each in sorted(r["choosing"], key=lambda each: each["loss"]["mean"])
        ]
    columns = [
        "text", "chosen", "worth text times", "95 % interval, five seeds", "nats/token", "tokens seen", "CPU time",
    ]  # fmt: skip
    return (
        f"{markdown(columns, rows)}\n\n{machine(table)}; the recipe as it comes takes a CPU time of 1.\n\n"
        f"What was tried, once each:\n\n{markdown(['text', 'step', 'nats/token'], tried)}"
    )


CORPUS_BLOCKS = {
    "deduplication": deduplication,
    "corpus-clean": clean,
    "corpus-memory": corpus_memory,
    "tokenization": tokenization,
    "corpus-rules": rules,
    "private": private,
    "corpus-quality": quality,
    "planner": planner,
    "multiplier": multiplier,
}
