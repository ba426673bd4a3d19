"""The page of a corpus: what is in it, what was dropped and why with examples, what stands for what, what was found.

One HTML file that needs nothing else to be read, and the same facts as JSON. Both hold beginnings of texts, personal data
masked; so they are an artifact made of the corpus, and what is forgotten there is known to be here too.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from gristmill import artifact
from gristmill.artifact import Artifact, open_artifact
from gristmill.report import corpus_sections as sections
from gristmill.report import corpus_sections_dropped as on_drops
from gristmill.report import corpus_sections_found as on_finds
from gristmill.report.blocks import Facts, language_name, share_of
from gristmill.report.corpus_facts import gather_corpus
from gristmill.report.markup import Markup, join, tag
from gristmill.report.page import document, masthead, section
from gristmill.report.units import bytes_text, count, moment, percent, plural

__all__ = ["FACTS", "KIND", "PAGE", "build_corpus_page", "render_corpus"]

KIND = "corpus page"
PAGE, FACTS = "corpus.html", "corpus.json"
FORMAT_VERSION = 1

Section = Callable[[Facts], Markup | None]


def build_corpus_page(corpus: Artifact | Path, out: Path) -> Artifact:
    """Writes `corpus.html` and `corpus.json` about a corpus, as an artifact at `out`.

    The page is always rendered, and written only when it differs from the one that is there.

    Raises:
        InputError: there is no corpus in the directory.
        CorruptArtifact: a file that the page takes facts from is not the one that the manifest names.
    """
    corpus = open_artifact(corpus, "corpus", verify=False) if isinstance(corpus, Path) else corpus
    facts = gather_corpus(corpus)
    files = {PAGE: render_corpus(facts), FACTS: json.dumps(facts, ensure_ascii=False, indent=1) + "\n"}
    config = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    parents = {"corpus": corpus}
    present = artifact.find(out, artifact.artifact_key(KIND, FORMAT_VERSION, config, parents))
    if present is not None:
        return present
    with artifact.draft(
        out, kind=KIND, format_version=FORMAT_VERSION, config=config, parents=parents
    ) as work:
        for name, text in files.items():
            artifact.write_text(work.path / name, text)
        work.metrics.update({name: facts[name] for name in ("documents", "text_bytes")})
    return open_artifact(out, KIND)


def render_corpus(facts: Facts) -> str:
    """Returns the whole page: a pure function of the facts of `gather_corpus`."""
    bodies: list[tuple[str, Section]] = [
        ("What became of it", sections.flow),
        ("What is in it", sections.composition),
        ("Lengths", sections.lengths),
        ("What each rule buys", on_drops.rules),
        ("Judged by models", on_drops.models),
        ("What was dropped", on_drops.dropped),
        ("Duplicates", on_drops.duplicates),
        ("Cut from texts", on_finds.inside),
        ("Personal data", on_finds.private),
        ("Evaluation sets", on_finds.contamination),
        ("Licences", sections.licences),
        ("Files", sections.files),
        ("How it was made", sections.settings),
    ]
    page = document(
        f"{facts['name']}: a gristmill corpus",
        [
            _header(facts),
            tag("main", *[section(title, write(facts)) for title, write in bodies]),
            tag("footer", tag("p", f"Written by gristmill. The same facts are in {FACTS}, beside this page."), class_="end"),
        ],
    )  # fmt: skip
    style = resources.files("gristmill.report").joinpath("corpus_page.css").read_text(encoding="utf-8")
    return page.replace("</head>", tag("style", Markup(style)) + "</head>", 1)


def _header(facts: Facts) -> Markup:
    return tag(
        "header",
        masthead(f"corpus, built {moment(facts['created_at'])}"),
        tag("h1", facts["name"]),
        tag("p", _what_it_is(facts), class_="standfirst"),
        _headline(facts),
        _key_facts(facts),
    )


def _what_it_is(facts: Facts) -> str:
    languages = sorted(facts["languages"], key=lambda name: -facts["languages"][name]["text_bytes"])
    names = [language_name(name) for name in languages if name not in ("mixed", "other")]
    spoken = f"{' and '.join(names[:2])} " if names else ""
    return (
        f"{plural(facts['documents'], 'document')} with {bytes_text(facts['text_bytes'])} of {spoken}text, "
        f"from {plural(facts['read']['files'], 'file')}."
    )


def _headline(facts: Facts) -> Markup:
    whole = facts["read"]["text_bytes"]
    kept = facts["kept"]["text_bytes"] - sum(row["text_bytes"] for row in facts["edits"])
    share = share_of(kept, whole) or 0.0
    return tag(
        "div",
        tag(
            "div",
            tag("div", percent(share), class_="big"),
            tag("p", "of the text that was read is kept", class_="big-unit"),
            tag("p", f"{bytes_text(kept)} of {bytes_text(whole)}", class_="big-range"),
            Markup(f'<div class="gauge" aria-hidden="true"><i style="width:{100 * share:.2f}%"></i></div>'),
            tag("p", tag("span", "kept"), tag("span", "all that was read"), class_="gauge-ends"),
        ),
        tag("div", *[tag("p", sentence) for sentence in _reading(facts)], class_="reading"),
        class_="headline",
    )


def _reading(facts: Facts) -> list[str | Markup]:
    """The figure in plain words: what took most, what was lost with duplicates, what was changed inside texts."""
    whole = facts["read"]["text_bytes"] or 1
    steps = sections.steps_of(facts)
    largest = sorted((s for s in steps if s["whole"]), key=lambda s: -s["text_bytes"])[:3]
    sentences: list[str | Markup] = []
    if largest:
        named = [f"{_lower(s['step'])} ({percent(s['text_bytes'] / whole)})" for s in largest]
        sentences.append(f"Of what was read, most went to {_listed(named)}.")
    else:
        sentences.append("No document was dropped.")
    table = facts["duplicates"]
    gone = table["exact"]["text_bytes"] + table["near"]["text_bytes"]
    if gone:
        lost = table["unique_bytes_lost"] or 0
        sentences.append(
            f"Duplicates were {bytes_text(gone)}. {bytes_text(lost)} of that, {percent(lost / gone)}, is not in the texts that "
            "stand for them: the unique text that deduplication cost, counted word by word."
        )
    cut = sum(row["text_bytes"] for row in facts["edits"] if row["reason"].startswith("repeated"))
    pieces = sum(row["found"] for row in facts["private"]["kinds"])
    inside = [f"{bytes_text(cut)} of repeated lines and paragraphs were cut"] * bool(cut)
    inside += [f"{plural(pieces, 'piece')} of personal data replaced"] * bool(pieces)
    if inside:
        sentences.append(f"Inside the documents that are kept {_listed(inside)}.")
    found = (facts["contamination"] or {}).get("documents")
    if found:
        sentences.append(f"{plural(found, 'document')} had text of an evaluation set.")
    return sentences


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _key_facts(facts: Facts) -> Markup:
    splits: dict[str, Any] = facts["splits"]
    pairs = [
        ("Documents", count(facts["documents"])),
        ("Characters", count(facts["characters"])),
        ("For training", bytes_text(splits["train"]["text_bytes"])),
        ("Held out", bytes_text(splits.get("valid", {}).get("text_bytes"))),
        ("Documents dropped", count(facts["read"]["texts"] - facts["kept"]["documents"])),
        ("Unique text lost", bytes_text(facts["duplicates"]["unique_bytes_lost"] or 0)),
    ]
    return tag(
        "dl", *[tag("div", join(tag("dt", name), tag("dd", value))) for name, value in pairs], class_="key"
    )
