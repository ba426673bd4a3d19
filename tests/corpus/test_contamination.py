"""Evaluation items in training text: what is found is there, what is there is found, and phrases are no evidence."""

import gzip
import json
import random

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from gristmill.config import from_dict
from gristmill.corpus import contamination, near
from gristmill.corpus.contamination import (
    ContaminationSettings,
    EvaluationSet,
    Item,
    cuts,
    dropped,
    find,
    fold,
    index_of,
    joined,
    read_items,
    rows,
    settle,
    units,
    without,
)
from gristmill.corpus.features import packed, word_hash
from gristmill.errors import InputError

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "Natalia sell altogether in April and May?"
)
MARKET = "小明的妈妈昨天在集市上买了三斤苹果和两斤梨，回家以后发现少了一个苹果，她一共带回家多少斤水果？"
MILL = (
    "The mill on the river has been grinding grain for two hundred years, and nobody remembers who built it. "
)
RIVER = "河边的磨坊已经磨了两百年的粮食，山谷里的人们至今还把小麦送到那里去。"


def index(*texts, **changes):
    return index_of(
        [Item("exam", i, (text,)) for i, text in enumerate(texts)], ContaminationSettings(**changes)
    )


def look(found_in, documents):
    """The settled findings in some documents."""
    return settle(found_in, find(found_in, *packed(documents)))


def kinds(found_in, documents):
    """(document, item, kind) of each row."""
    return [(row["document"], row["item"], row["kind"]) for row in rows(found_in, look(found_in, documents))]


@given(st.text("aB é É ß İ ａＢ０ 7 中文カナ。，.'-\n\U00020000Жж", max_size=40))
def test_units_are_those_of_near_duplicates(text):
    start, end, weight = units(text)
    assert [word_hash(near._ascii_lower(text[a:b])) for a, b in zip(start, end, strict=True)] == near._units(
        text
    )
    assert set(weight.tolist()) <= {5, 8}


@given(st.text(max_size=30))
def test_folding_keeps_every_character_in_its_place(text):
    folded = fold(text)
    assert len(folded) == len(text)
    assert fold(folded) == folded
    assert fold("ＡＢＣ１２３ É Ж") == "abc123 é ж"


@pytest.mark.parametrize(("item", "host"), [(CLIPS, MILL), (MARKET, RIVER)])
def test_an_item_is_found_where_it_stands_whatever_it_looks_like(item, host):
    wide = str.maketrans(
        {",": "，", ".": "。", "?": "？", "4": "４", "8": "８", "，": ", ", "。": ". ", "？": "? "}
    )
    looks = [
        item,
        item.upper(),
        item.translate(wide),
        item.replace(" ", "\n"),
        item.replace(",", "").replace("，", ""),
    ]
    documents = [host * 3 + look + " " + host for look in looks]
    exam = index(item, "An item about nothing that stands anywhere in these documents, of enough words.")
    findings = look(exam, documents)
    found = list(rows(exam, findings))
    assert [(row["document"], row["item"], row["kind"], row["cover"]) for row in found] == [
        (i, 0, "run", 1.0) for i in range(len(looks))
    ]
    for row, document, text in zip(found, documents, looks, strict=True):
        (span,) = row["spans"]
        stripped = text.rstrip("?？ \n")
        assert document[span["start"] : span["end"]] == stripped
        assert document.encode()[span["start_byte"] : span["end_byte"]].decode() == stripped
    assert dropped(findings).tolist() == list(range(len(looks)))


words = st.lists(st.sampled_from(["a", "b", "c"]), min_size=5, max_size=24)
characters = st.lists(st.sampled_from(["中", "文", "x"]), min_size=8, max_size=40)


@settings(max_examples=150)
@given(st.one_of(st.tuples(words, words), st.tuples(characters, characters)), st.integers(5, 9))
def test_a_run_is_found_if_and_only_if_both_have_it(pair, least):
    """Against a search of every run, in texts of so few words that many runs come twice."""
    document, item = pair
    weight = {"中": 5, "文": 5}

    def weigh(run):
        return sum(weight.get(unit, 8) for unit in run)

    def has(run):
        return any(document[i : i + len(run)] == run for i in range(len(document)))

    assume(weigh(item) >= 8 * least)
    runs = [item[i:j] for i in range(len(item)) for j in range(i + 1, len(item) + 1)]
    expected = any(weigh(run) >= 8 * least and has(run) for run in runs)
    exam = index(" ".join(item), words=least, least_words=5, cover=False, most_documents=10**6)
    assert (kinds(exam, [" ".join(document)]) != []) == expected


def changed(text, share, generator):
    """The text with this share of its units replaced by others of it."""
    start, end, _ = units(text)
    pieces = [text[a:b] for a, b in zip(start, end, strict=True)]
    out, at = [], 0
    for a, b, piece in zip(start.tolist(), end.tolist(), pieces, strict=True):
        out += [text[at:a], generator.choice(pieces) if generator.random() < share else piece]
        at = b
    return "".join([*out, text[at:]])


@pytest.mark.parametrize(("item", "host"), [(CLIPS, MILL), (MARKET, RIVER)])
def test_an_item_with_a_change_in_its_middle_is_found_by_its_cover(item, host):
    start, end, _ = units(item)
    middle = len(start) // 2
    document = host + item[: start[middle]] + "X" + item[end[middle] :] + host
    exam = index(item, words=26)  # no run is long enough
    (row,) = rows(exam, look(exam, [document]))
    assert (row["kind"], len(row["spans"])) == ("cover", 2)
    assert row["cover"] == pytest.approx(1 - 1 / len(start))
    assert kinds(index(item, words=26, cover=False), [document]) == []
    assert (
        kinds(index(item, words=26), [host + item[: start[middle]] + host]) == []
    )  # half of it is not enough


def test_words_put_in_or_left_out_do_not_hide_an_item():
    document = (
        MILL
        + CLIPS.replace("and then she", "and then, as we all know, she").replace("as many clips ", "")
        + MILL
    )
    (row,) = rows(index(CLIPS), look(index(CLIPS), [document]))
    assert (row["kind"], row["words"]) == ("run", 13)
    assert row["cover"] == pytest.approx(25 / 31)  # "she sold half" is too short to count


def test_a_passage_that_two_columns_share_between_them_counts_for_the_whole_item():
    exam = index_of(
        [Item("exam", 7, (CLIPS, "72", "She sold 48 clips in April and 24 clips in May, 72 in all."))]
    )
    (row,) = rows(exam, look(exam, [MILL + CLIPS]))
    total = len(units(CLIPS)[0]) + 1 + 14
    assert (row["set"], row["item"]) == ("exam", 7)
    assert row["cover"] == pytest.approx(len(units(CLIPS)[0]) / total)
    assert exam.short == 1


def test_a_short_text_counts_only_as_a_whole_and_a_shorter_one_not_at_all():
    exam = index("Who should Derek hug after shocking Richard and Mary?", "Was she there?")
    assert exam.short == 1
    assert kinds(
        exam, [MILL + "who should Derek hug after shocking Richard and Mary", MILL + "Was she there?"]
    ) == [(0, 0, "whole")]
    assert kinds(exam, ["Who should Derek hug after shocking Richard and John?"]) == []


def test_what_many_documents_have_is_a_phrase_and_no_evidence():
    exam = index(CLIPS, most_documents=3)
    assert {kind for _, _, kind in kinds(exam, [MILL + CLIPS] * 3)} == {"run"}
    many = look(exam, [MILL + CLIPS] * 4)
    assert {row["kind"] for row in rows(exam, many)} == {"common"}
    assert len(dropped(many)) == 0
    assert cuts(many) == {}


def test_what_many_items_have_is_a_template_and_no_evidence():
    template = "Read the passage below with care and then say which of the four answers is the right one: "
    tails = [
        " ".join(
            f"{word}{i}"
            for word in (
                "water",
                "wheel",
                "grain",
                "stone",
                "flour",
                "dam",
                "gear",
                "sack",
                "sieve",
                "mule",
                "barn",
                "hay",
            )
        )
        for i in range(5)
    ]
    items = [template + tail for tail in tails]
    exam = index(*items, most_documents=4)
    assert kinds(exam, [MILL + template + MILL]) == [(0, i, "common") for i in range(5)]
    found = kinds(exam, [MILL + items[3] + MILL])
    assert [row for row in found if row[2] != "common"] == [(0, 3, "run")]


def test_a_passage_that_many_questions_share_is_one_text():
    exam = index_of([Item("exam", i, (CLIPS, f"question {i}")) for i in range(20)])
    assert kinds(exam, [MILL, CLIPS]) == [(1, i, "run") for i in range(20)]


def test_batches_and_keys_make_no_difference():
    generator = random.Random(4)
    texts = [CLIPS, MARKET, MILL * 2, RIVER]
    documents = ["".join(generator.choice(texts) for _ in range(generator.randint(0, 4))) for _ in range(30)]
    keys = np.arange(30) * 1000 + 5
    exam = index(CLIPS, MARKET, most_documents=100)
    together = list(rows(exam, settle(exam, find(exam, *packed(documents), keys))))
    parts = [find(exam, *packed(documents[i : i + 7]), keys[i : i + 7]) for i in range(0, 30, 7)]
    assert list(rows(exam, settle(exam, joined(parts)))) == together
    expected = {5 + 1000 * i for i, text in enumerate(documents) if CLIPS in text or MARKET in text}
    assert {row["document"] for row in together} == expected


def test_a_long_document_is_looked_at_in_pieces(monkeypatch):
    document = "".join([MILL * 20, RIVER * 30, CLIPS, MILL * 7, RIVER * 40, MARKET, RIVER * 60, CLIPS])
    exam = index(CLIPS, MARKET)
    whole = list(rows(exam, look(exam, [RIVER, document, MILL])))
    monkeypatch.setattr(contamination, "WINDOW_BYTES", 3000)
    monkeypatch.setattr(contamination, "OVERLAP_BYTES", 700)
    assert list(rows(exam, look(exam, [RIVER, document, MILL]))) == whole
    assert [len(row["spans"]) for row in whole] == [2, 1]
    for row in whole:
        for span in row["spans"]:
            found = document[span["start"] : span["end"]]
            assert found in CLIPS + MARKET
            assert document.encode()[span["start_byte"] : span["end_byte"]].decode() == found


def test_the_same_is_found_without_a_compiler(monkeypatch):
    documents = [MILL + CLIPS, RIVER + MARKET.replace("苹果", "苹 果"), MILL, RIVER]
    compiled = kinds(index(CLIPS, MARKET), documents)
    monkeypatch.setattr(near, "library", lambda _: None)
    assert kinds(index(CLIPS, MARKET), documents) == compiled == [(0, 0, "run"), (1, 1, "run")]


def test_what_is_found_can_be_cut_out_with_a_margin():
    document = MILL + CLIPS + " " + MILL
    exam = index(CLIPS)
    findings = look(exam, [RIVER, document])
    ((number, spans),) = cuts(findings).items()
    assert (number, without(document, spans)) == (1, MILL + "? " + MILL)
    ((_, wide),) = cuts(findings, margin=10).items()
    assert wide == [(spans[0][0] - 10, spans[0][1] + 10)]
    ((_, all_of_it),) = cuts(findings, margin=1000).items()
    assert without(document, all_of_it) == ""
    twice = look(exam, [CLIPS + "\n" + CLIPS])
    assert [len(found) for found in (*cuts(twice).values(), *cuts(twice, margin=5).values())] == [2, 1]


def test_nothing_is_found_in_nothing():
    empty = index_of([])
    assert list(rows(empty, look(empty, [CLIPS]))) == []
    exam = index(CLIPS)
    assert kinds(exam, []) == kinds(exam, ["", " ", "a", "。"]) == []
    assert dropped(settle(exam, joined([]))).tolist() == []


def test_items_are_read_from_named_columns(tmp_path):
    questions = [{"question": CLIPS, "answer": "72", "id": 1}, {"question": MARKET, "answer": "", "id": 2}]
    with gzip.open(tmp_path / "test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(question, ensure_ascii=False) + "\n" for question in questions)
    (tmp_path / "more.csv").write_text(f'question,answer\n"{MILL}",yes\n', encoding="utf-8")
    found = list(
        read_items(EvaluationSet(files=(str(tmp_path),), columns=("question", "answer"), name="exam"))
    )
    assert found == [
        Item("exam", 0, (MILL, "yes")),
        Item("exam", 1, (CLIPS, "72")),
        Item("exam", 2, (MARKET, "")),
    ]


def test_paragraphs_of_a_text_file_are_items(tmp_path):
    path = tmp_path / "exam.txt"
    path.write_text(f"{CLIPS}\n\n{MARKET}\n", encoding="utf-8")
    assert [(item.number, item.parts[0].strip()) for item in read_items(EvaluationSet(files=(str(path),)))] == [
        (0, CLIPS), (1, MARKET)
    ]  # fmt: skip


def test_a_recipe_s_table_becomes_settings():
    table = {"sets": [{"files": ["exams/*.jsonl"], "columns": ["question"]}], "cover": False, "action": "cut"}
    expected = EvaluationSet(files=("exams/*.jsonl",), columns=("question",))
    assert from_dict(ContaminationSettings, table) == ContaminationSettings(
        sets=(expected,), cover=False, action="cut"
    )


def test_what_a_recipe_has_wrong_is_named(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"question": "Who?"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="columns are missing"):
        list(read_items(EvaluationSet(files=(str(tmp_path),))))
    with pytest.raises(InputError, match="questions"):
        list(read_items(EvaluationSet(files=(str(tmp_path),), columns=("questions",))))
    for table in (
        {"words": 4},
        {"cover": 1.5},
        {"action": "delete"},
        {"words": 6, "least_words": 7},
    ):
        with pytest.raises(InputError):
            from_dict(ContaminationSettings, table)


@pytest.mark.shared_data
def test_real_questions_in_real_pages_are_found_and_nothing_else(shared_data):
    def read(name, file, column):
        with gzip.open(shared_data / name / file, "rt", encoding="utf-8") as lines:
            return [json.loads(line)[column] for line in lines]

    questions = read("eval_en_gsm8k", "test.jsonl.gz", "context") + read(
        "eval_zh_zhoblimp", "test.jsonl.gz", "good"
    )
    pages = read("pretrain_en_web", "c4_demo.jsonl.gz", "text")
    exam = index(*questions)
    assert kinds(exam, pages) == []
    generator = random.Random(3)
    chosen = generator.sample(range(1319), 40)
    planted = [
        page[: len(page) // 2] + changed(questions[i], 0.01, generator) + page[len(page) // 2 :]
        for i, page in zip(chosen, pages, strict=False)
    ]
    found = {(document, item) for document, item, kind in kinds(exam, planted) if kind != "common"}
    assert found == set(enumerate(chosen))
