"""The page of a corpus: its figures are those of the corpus, its texts can do no harm, and it stays small."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.artifact import open_artifact
from gristmill.cli import main
from gristmill.corpus import Corpus, CorpusConfig, build
from gristmill.corpus.contamination import ContaminationSettings, EvaluationSet
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.corpus.engine import EngineSettings
from gristmill.corpus.features import FEATURES, features
from gristmill.corpus.near import cover, shingles
from gristmill.corpus.rules import RuleSettings, judge
from gristmill.corpus.scrub import ScrubSettings
from gristmill.errors import InputError
from gristmill.report import corpus_excerpts
from gristmill.report.corpus_blocks import passage
from gristmill.report.corpus_charts import columns_chart
from gristmill.report.corpus_excerpts import LENGTH, Mark, excerpt, only_here
from gristmill.report.corpus_facts import gather_corpus
from gristmill.report.corpus_page import build_corpus_page, render_corpus
from gristmill.report.corpus_sections import steps_of

SECTIONS = [
    "What became of it",
    "What is in it",
    "Lengths",
    "What each rule buys",
    "Judged by models",
    "What was dropped",
    "Duplicates",
    "Cut from texts",
    "Personal data",
    "Evaluation sets",
    "Licences",
    "Files",
    "How it was made",
]
SECRETS = ("jane.doe@corp-mail.com", "carla@corp-mail.com", "415 555 2671", "hunter2secretX9z", "13812345678")
HOSTILE = '<script>alert("x")</script> <img src=x onerror=alert(1)> &amp; '
FOOTER = "Subscribe to the letter of our mill and read it first.\n"
QUESTION = "Who wrote the play about the prince of Denmark that everybody in our town knows by heart today?"


def prose(number: int, words: int = 70) -> str:
    """English prose that no other number gives."""
    generator = np.random.default_rng(number)
    names = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("nd", "rd", "sh", "lt", "mp")]
    small = ("the", "of", "and", "to", "with", "that", "have", "be")
    text = ""
    for i, name in enumerate(generator.choice(names, words).tolist()):
        text += f"{small[generator.integers(len(small))]} {name}" if i % 3 == 0 else name
        text += ".\n" if i % 16 == 15 else ". " if i % 8 == 7 else " "
    return text.strip() + "."


def texts() -> list[dict[str, Any]]:
    page = prose(1, 300)
    words = page.split(" ")
    changed = " ".join([*words[:20], "Nobody", "knows", "what", "barns", "do", *words[24:]])
    rows: list[str] = [
        page,
        page,
        page + "\n",
        changed,
        *[prose(i) + "\n" + FOOTER for i in range(10, 20)],
        "Too few words.",
        "the and of " * 60,
        "# # # # " * 30 + prose(2),
        *[
            start + prose(50 + i).replace(".\n", "...\n")
            for i, start in enumerate((HOSTILE, "\u202eoverride \u200b", ""))
        ],
        "שלום עולם, זה טקסט בעברית. " * 8,
        "床前明月光，疑是地上霜。举头望明月，低头思故乡。电话 13812345678。" * 3,
        f"Write to {SECRETS[0]} or call +1 415 555 2671. " + prose(5),
        f"password: {SECRETS[3]}! " + prose(6),
        QUESTION + " " + prose(7),
        "x" * 30_000,
    ]
    metadata = [{}, {"license": "CC0-1.0"}, {"licence": f"<b>mine</b> {SECRETS[1]}"}]
    return [{"text": text, **metadata[i % 3]} for i, text in enumerate(rows)]


CONFIG: dict[str, Any] = {
    "rules": RuleSettings(sets=("gopher_quality", "gopher_repetition")),
    "dedup": DedupSettings(lines=3),
    "scrub": ScrubSettings(kinds=("email", "phone", "secret")),
}


def make(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Corpus:
    source = folder / "texts"
    source.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (source / "a<i>b&.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = CorpusConfig(sources=(str(source),), engine=EngineSettings(workers=1), **settings)
    return Corpus(build(config, folder / "corpus"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("mill")
    (folder / "texts").mkdir()
    (folder / "texts" / "broken.jsonl").write_text(
        f'{{"text": "ha<i>lf {SECRETS[0]}\n{{"id": 1}}\n{{"text": "So few."}}\n'
    )
    (folder / "texts" / "big.txt").write_bytes(prose(30).encode("utf-16"))
    (folder / "texts" / "sheet.xlsx").write_bytes(b"PK")
    questions = folder / "questions.jsonl"
    questions.write_text(json.dumps({"question": QUESTION}))
    found = EvaluationSet(files=(str(questions),), columns=("question",), name="<i>plays</i>")
    return make(folder, texts(), contamination=ContaminationSettings(sets=(found,)), **CONFIG)


@pytest.fixture(scope="module")
def facts(corpus: Corpus) -> dict[str, Any]:
    return gather_corpus(corpus.artifact)


@pytest.fixture(scope="module")
def page(facts: dict[str, Any]) -> str:
    return render_corpus(facts)


def test_the_page_is_well_formed_has_every_section_and_opens_offline(page: str) -> None:
    parser = _Tree()
    parser.feed(page)
    assert parser.open == []
    assert parser.headings == SECTIONS
    assert not re.search(r"url\(|@import|<link|<img|<iframe", page)
    assert parser.attributes.isdisjoint({"src", "href", "srcset", "action"})
    assert "default-src 'none'" in page


def test_every_document_and_every_byte_is_accounted_for(corpus: Corpus, facts: dict[str, Any]) -> None:
    steps = steps_of(facts)
    documents = sum(step["documents"] for step in steps if step["whole"])
    assert facts["read"]["texts"] - documents == facts["documents"] == len(list(corpus.documents()))
    taken = sum(step["text_bytes"] for step in steps)
    assert facts["read"]["text_bytes"] - taken == facts["text_bytes"] == corpus.metrics["text_bytes"]
    read = Counter({"documents": 0, "text_bytes": 0})
    for group in facts["groups"]:
        read.update(group["read"])
    assert read == {"documents": facts["read"]["texts"], "text_bytes": facts["read"]["text_bytes"]}
    histogram = facts["histogram"]["languages"]
    assert {name: sum(series["documents"]) for name, series in histogram.items()} == {
        name: entry["documents"] for name, entry in facts["languages"].items()
    }


def test_what_a_rule_alone_drops_is_what_would_be_kept_without_it(facts: dict[str, Any]) -> None:
    rows = [*(row["text"] for row in texts()), prose(30), "So few."]
    figures = {name: column for name, column in zip(FEATURES, features(rows).T, strict=True)}  # noqa: C416
    rules = CONFIG["rules"]
    whole = judge(figures, rules).codes > 0
    table = facts["rules"]
    assert sum(table["agreeing"].values()) == sum(row["first"] for row in table["rows"]) == whole.sum()
    assert table["judged"] == len(rows)
    for row in table["rows"]:
        without = RuleSettings(sets=rules.sets, change={row["set"]: {row["name"]: False}})
        saved = whole & (judge(figures, without).codes == 0)
        assert row["alone"] == saved.sum(), row["rule"]
        assert row["alone_text_bytes"] == sum(len(rows[i].encode()) for i in np.flatnonzero(saved))
    for name, entry in table["sets"].items():
        others = RuleSettings(sets=tuple(other for other in rules.sets if other != name))
        assert entry["alone"] == (whole & (judge(figures, others).codes == 0)).sum()
    assert any(row["alone"] for row in table["rows"])


def test_examples_say_what_decided_and_stand_on_the_right_side_of_it(facts: dict[str, Any]) -> None:
    seen = Counter()
    for row in facts["dropped"]:
        for example in row["examples"]:
            why = example["why"]
            if "threshold" in why:
                is_inside = (
                    why["value"] >= why["threshold"] if why["least"] else why["value"] <= why["threshold"]
                )
                assert is_inside == (example["kind"] == "kept"), (row["reason"], why)
                seen[example["kind"]] += 1
            assert example["text"]
    assert min(seen[kind] for kind in ("nearest", "kept", "sample")) > 0


def test_duplicates_name_what_stands_for_them_and_what_only_they_have(
    corpus: Corpus, facts: dict[str, Any], page: str
) -> None:
    table = facts["duplicates"]
    assert (table["exact"]["documents"], table["near"]["documents"], table["clusters"]) == (2, 1, 1)
    assert table["unique_bytes_lost"] == corpus.metrics["unique_bytes_lost"] > 0
    (cluster,) = table["largest"]
    assert (cluster["documents"], cluster["same"], cluster["near"]) == (4, 2, 1)
    assert len(cluster["places"]) == 2
    assert cluster["head"]["reason"] == ""
    (pair,) = cluster["members"]
    (lost,) = [text for text, what in pair["dropped"]["text"] if what == "only"]
    assert lost == "Nobody knows what barns do"
    (instead,) = [text for text, what in pair["kept"]["text"] if what == "only"]
    assert instead == " ".join(prose(1, 300).split(" ")[20:24])
    assert 0.97 < pair["cover"] < 1
    assert "One document stands for 3 others, 2 of them the same and 1 nearly" in page


def test_what_was_cut_and_replaced_is_counted_as_in_the_corpus(corpus: Corpus, facts: dict[str, Any]) -> None:
    assert {row["reason"]: row["edits"] for row in facts["edits"]} == corpus.metrics["edits"]
    (cut,) = facts["passages"]
    assert cut["times"] == corpus.metrics["edits"]["repeated line"] == 9
    assert cut["text"] == [[FOOTER.strip(), ""]]
    kinds = {row["kind"]: row for row in facts["private"]["kinds"]}
    for kind, row in kinds.items():
        assert row["found"] == corpus.metrics["edits"].get(kind, 0) == sum(row["evidence"].values())
        assert all([f"[{kind.upper()}]", "hidden"] in example["text"] for example in row["examples"])
    assert kinds["email"]["found"] == 1


def test_text_of_evaluation_sets_is_shown_where_it_stood(facts: dict[str, Any]) -> None:
    table = facts["contamination"]
    assert table["documents"] == 1
    (example,) = table["examples"]
    assert (example["set"], example["item"], example["kind"]) == ("<i>plays</i>", 0, "run")
    assert [text for text, what in example["text"] if what == "found"] == [QUESTION[:-1]]


def test_no_personal_data_is_on_the_page_or_in_its_facts(facts: dict[str, Any], page: str) -> None:
    everything = page + json.dumps(facts, ensure_ascii=False)
    for secret in SECRETS:
        assert secret not in everything
    assert "[EMAIL]" in page
    assert "[PHONE]" in page


def test_it_is_masked_also_where_a_recipe_does_not_ask_for_it(tmp_path: Path) -> None:
    found = gather_corpus(make(tmp_path, texts(), rules=CONFIG["rules"]).artifact)
    everything = render_corpus(found) + json.dumps(found, ensure_ascii=False)
    assert not [secret for secret in SECRETS if secret in everything]


def test_names_that_only_the_list_of_a_recipe_knows_are_masked(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("Erika Mustermann\n")
    rows = [{"text": "Erika Mustermann reads."}, {"text": "Here Erika Mustermann writes. " + prose(8)}]
    scrub = ScrubSettings(kinds=("name",), names=str(names))
    corpus = make(tmp_path, rows, scrub=scrub, rules=CONFIG["rules"])
    names.unlink()  # the page does not need it
    page = render_corpus(gather_corpus(corpus.artifact))
    assert "Mustermann" not in page
    assert page.count("[NAME]") >= 2


def test_what_users_wrote_can_not_become_markup(page: str) -> None:
    parser = _Tree()
    parser.feed(page)
    assert parser.tags.isdisjoint({"img", "iframe", "a"})
    assert parser.scripts == 1  # the button between light and dark
    for hostile in ("<script>alert", "<i>", "<b>mine", "ha<i>lf", "\u202e", "\u200b"):
        assert hostile not in page, hostile
    for shown in ("&lt;script&gt;alert", "a&lt;i&gt;b&amp;.jsonl", "&lt;i&gt;plays&lt;/i&gt;", "U+202E"):
        assert shown in page, shown


def test_characters_that_nobody_sees_are_written_out() -> None:
    assert passage([["a\u202eb\x07", ""], ["\u200b", "only"], ["[EMAIL]", "hidden"]]) == (
        'a<span class="unseen">U+202E</span>b<span class="unseen">U+0007</span>'
        '<mark class="only"><span class="unseen">U+200B</span></mark><span class="hidden">[EMAIL]</span>'
    )


# --- excerpts ---------------------------------------------------------------------------------------------------------


def plain(pieces: list[list[str]]) -> str:
    return "".join(text for text, what in pieces if what not in ("hidden", "more"))


@given(st.text(max_size=900), st.integers(0, 900))
def test_an_excerpt_is_a_short_piece_of_the_text(text: str, focus: int) -> None:
    pieces = excerpt(text, focus=min(focus, max(len(text) - 1, 0)))
    assert len(plain(pieces)) <= LENGTH + 60

    def squeezed(value: str) -> str:
        return re.sub(r"\s+", "", value)

    rest = squeezed(text)
    for piece, what in pieces:
        if what not in ("hidden", "more"):
            place = rest.find(squeezed(piece))
            assert place >= 0
            rest = rest[place:]


def test_an_excerpt_shows_what_it_is_about_and_says_that_there_is_more() -> None:
    text = prose(9, 600)
    place = text.index("the ", 2000)
    pieces = excerpt(text, focus=place, marks=[Mark(place, place + 8, "found")])
    assert pieces[0] == pieces[-1] == ["…", "more"]
    assert [text[place : place + 8], "found"] in pieces
    assert excerpt("short") == [["short", ""]]
    assert excerpt("") == []
    wide = plain(excerpt("床" * 1000))
    assert len(wide) == LENGTH // 2


@given(st.integers(LENGTH - 60, LENGTH + 10), st.integers(0, 40))
@settings(max_examples=60)
def test_personal_data_is_masked_also_where_an_excerpt_ends_inside_it(before: int, after: int) -> None:
    text = ("w " * LENGTH)[:before] + " " + SECRETS[0] + " " + "v " * after
    pieces = excerpt(text)
    assert "corp-mail" not in plain(pieces)
    assert "jane" not in plain(pieces)
    assert pieces == excerpt(text, focus=0)
    begins_inside = excerpt("w " * 400 + SECRETS[0] + " v" * 50, focus=800 + before % 20)
    assert "corp-mail" not in plain(begins_inside)


UNITS = st.lists(st.sampled_from(["mill", "river", "baker", "of", "the", "床", "前", "明"]), max_size=60)


@given(UNITS, UNITS, UNITS)
def test_what_only_one_text_has_is_what_cover_counts(
    start: list[str], own: list[str], end: list[str]
) -> None:
    text, other = " ".join([*start, *own, *end]), " ".join([*start, *end])
    marks, focus, there = only_here(text, other)
    assert 0 <= focus <= len(text)
    assert 0 <= there <= len(other)
    left = text
    for mark in reversed(marks):
        left = left[: mark.start] + left[mark.end :]
    found = shingles([text])[0]
    units = len(start) + len(own) + len(end)
    expected = cover(np.isin(found, shingles([other])[0])) if len(found) and units >= 5 else None
    if expected is not None:
        assert len(left.split()) == round(expected * units)


def test_both_texts_are_shown_from_the_same_place() -> None:
    page = prose(40, 1200)
    place = page.index(". ", 3000) + 2
    marks, focus, there = only_here(
        page[:place] + "A sentence that nobody else has ever had here. " + page[place:], page
    )
    assert [mark.what for mark in marks] == ["only"]
    assert abs(focus - place) <= 2
    assert abs(there - place) <= 60


# --- size, units, the artifact ------------------------------------------------------------------------------------------


def many(count: int) -> list[dict[str, Any]]:
    """Documents with all kinds of faults, `count` of each."""
    rows = []
    for i in range(count):
        rows += [
            prose(1000 + i, 60 + i % 40) + f"\n{FOOTER}",
            f"Few words {i}.",
            f"the and of {i} " * 30,
            "<" * 3000 + str(i),
            prose(1000 + i // 2, 60 + i // 2 % 40) + f"\n{FOOTER}",
            f"请联系 user{i}@corp-mail.com，床前明月光{i}，疑是地上霜。" * 12,
        ]
    return [{"text": text, "license": f"own {i % 100}"} for i, text in enumerate(rows)]


def test_a_large_corpus_has_a_small_page_that_reads_few_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.corpus.documents.BATCH_DOCUMENTS", 10)
    corpus = make(tmp_path, many(300), **CONFIG)
    keys: list[int] = []
    texts_of = corpus_excerpts.texts_of

    def counted(home: Any, chosen: Any) -> Any:
        for document in texts_of(home, chosen):
            keys.append(document.key)
            yield document

    for module in ("corpus_excerpts", "corpus_duplicates"):
        monkeypatch.setattr(f"gristmill.report.{module}.texts_of", counted)
    found = gather_corpus(corpus.artifact)
    assert len(set(keys)) < 200 < found["read"]["texts"] == 1800
    page = render_corpus(found)
    assert len(page.encode()) < 300_000
    assert len(json.dumps(found)) < 300_000
    assert found["licences"]["more"] > 0
    assert gather_corpus(corpus.artifact) == found


def test_several_units_come_to_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = many(12)
    one = gather_corpus(make(tmp_path / "one", rows, **CONFIG).artifact)
    monkeypatch.setattr("gristmill.corpus.units.MOST_BYTES", 9_000)
    corpus = make(tmp_path / "several", rows, **CONFIG)
    several = gather_corpus(corpus.artifact)
    assert len(list((corpus.artifact.path / "units").glob("*.texts.parquet"))) > 3
    for name in (
        "documents",
        "splits",
        "read",
        "kept",
        "groups",
        "histogram",
        "rules",
        "edits",
        "licences",
        "scripts",
    ):
        assert several[name] == one[name], name
    for name in ("exact", "near", "clusters", "sizes", "covers"):
        assert several["duplicates"][name] == one["duplicates"][name], name
    assert [row["times"] for row in several["passages"]] == [row["times"] for row in one["passages"]]

    def chosen(found: dict[str, Any]) -> list[Any]:
        return [
            (row["reason"], sorted(e["id"] for e in row["examples"] if e["kind"] == "sample"))
            for row in found["dropped"]
        ]

    assert chosen(several) == chosen(one)


def test_a_plain_corpus_says_what_was_not_looked_for(tmp_path: Path) -> None:
    page = render_corpus(gather_corpus(make(tmp_path, [{"text": prose(i)} for i in range(5)]).artifact))
    for said in (
        "100 %", "No document was dropped.", "Nothing was dropped.", "No rules of quality were applied.",
        "No personal data was looked for.", "No evaluation sets were looked for.", "No document states a licence",
    ):  # fmt: skip
        assert said in page, said


def test_the_page_is_an_artifact_made_of_the_corpus_and_not_written_twice(
    corpus: Corpus, tmp_path: Path
) -> None:
    page = build_corpus_page(corpus.artifact, tmp_path / "page")
    assert sorted(page.manifest.files) == ["corpus.html", "corpus.json"]
    assert page.manifest.parents["corpus"]["content_hash"] == corpus.artifact.manifest.content_hash
    assert build_corpus_page(corpus.artifact.path, tmp_path / "page") == page
    assert not (tmp_path / "replaced").exists()
    with pytest.raises(InputError, match="there is no directory"):
        build_corpus_page(tmp_path / "nothing", tmp_path / "page")


def test_the_verb_writes_the_page_and_prints_its_facts(
    corpus: Corpus, facts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus.artifact.path
    for arguments in (["--json", "--out", str(tmp_path / "page")], []):
        with pytest.raises(SystemExit) as exit_:
            main(["corpus", "show", str(path), *arguments])
        assert not exit_.value.code
        said = capsys.readouterr().out
        if arguments:
            assert json.loads(said) == json.loads(json.dumps(facts))
    assert f"page: {path.parent / 'corpus-page' / 'corpus.html'}" in said.replace("\n", "")
    assert (
        open_artifact(path.parent / "corpus-page", "corpus page").manifest.metrics["documents"]
        == facts["documents"]
    )


def test_columns_are_as_high_as_their_numbers() -> None:
    chart = columns_chart(
        "Lengths", {"en": [1, 0], "zh": [1, 4]}, ticks=[(0, "10"), (2, "1k")], hovers=["a", "b"], x_name="x", y_name="y"
    )  # fmt: skip
    heights = [float(value) for value in re.findall(r'class="column tone-\d"[^>]*? height="([\d.]+)"', chart)]
    assert heights == pytest.approx([heights[0], heights[0], 4 * heights[0]], abs=0.02)
    assert columns_chart("", {"en": [0]}, ticks=[], hovers=[""], x_name="", y_name="") == ""


class _Tree(HTMLParser):
    """Checks that every element is closed in its turn, and notes headings, tags, attributes and scripts."""

    VOID = ("meta", "br", "hr", "path", "line", "rect", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.scripts += tag == "script"
        self.attributes |= {name for name, _ in attrs}
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
