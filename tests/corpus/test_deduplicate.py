"""Superfluous documents: found, named with what they are superfluous beside, and nothing else lost."""

import json

import numpy as np
import pytest

from gristmill.corpus import CorpusConfig, build, deduplicate
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.corpus.store import Corpus

WORDS = [f"word{i}" for i in range(3000)]


def prose(start, count):
    return " ".join(WORDS[start : start + count])


def corpus_of(texts, folder, **dedup):
    source = folder / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = CorpusConfig(sources=(str(source),), valid_fraction=0.0, dedup=DedupSettings(**dedup))
    return Corpus(build(config, folder / "corpus"))


def kept(corpus):
    return [document.text.strip() for document in corpus.documents()]


def test_of_equal_texts_the_first_stays_and_the_others_name_it(tmp_path):
    corpus = corpus_of(["a text", "another", "  a text\n", "a text"], tmp_path)
    assert kept(corpus) == ["a text", "another"]
    first = next(corpus.documents()).id
    assert [(d["reason"], d["by"], d["cover"]) for d in corpus.dropped()] == [("duplicate", first, 1.0)] * 2
    assert corpus.metrics["dropped"]["duplicate"]["documents"] == 2


def test_a_text_that_another_has_nearly_all_of_is_dropped_with_what_is_lost(tmp_path):
    whole = prose(0, 200)
    part = prose(20, 95) + " five words stand only here"
    corpus = corpus_of([part, whole], tmp_path)
    assert kept(corpus) == [whole]  # the longer one stays, wherever it stands
    (dropped,) = corpus.dropped()
    assert dropped["reason"] == "near duplicate"
    assert dropped["cover"] == 0.95
    assert corpus.metrics["unique_bytes_lost"] == pytest.approx(0.05 * len(part), abs=1)


def test_a_passage_of_its_own_saves_a_text_and_changed_words_do_not(tmp_path):
    whole = prose(0, 200)
    words = whole.split()
    passage = " ".join([*words[:92], *WORDS[2000:2012], *words[104:]])  # twelve words in a row
    changed = words.copy()
    changed[8:200:16] = WORDS[2000:2012]  # twelve words, here and there
    texts = [whole, passage, " ".join(changed)]
    assert kept(corpus_of(texts, tmp_path)) == texts[:2]
    for folder, settings, left in (("a", {"edited": False}, 3), ("b", {"near": 0.93}, 1)):
        (tmp_path / folder).mkdir()
        assert len(kept(corpus_of(texts, tmp_path / folder, **settings))) == left


def test_a_text_with_more_of_its_own_stays(tmp_path):
    texts = [prose(0, 200), prose(0, 80) + " " + prose(2000, 20)]
    assert kept(corpus_of(texts, tmp_path)) == texts
    (tmp_path / "other").mkdir()
    assert kept(corpus_of(texts, tmp_path / "other", near=0.75)) == texts[:1]


def test_no_chain_of_small_differences_joins_what_differs(tmp_path):
    texts = [prose(start, 300) for start in range(0, 300, 12)]  # each has 0.96 of the next one
    stays = kept(corpus_of(texts, tmp_path))
    assert 4 <= len(stays) < len(texts)
    words = set().union(*(text.split() for text in stays))
    assert len(set(WORDS[:588]) - words) <= 0.05 * 300  # what the last one has more, at most


def test_what_is_dropped_does_not_depend_on_what_is_in_memory_at_a_time(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    texts = []
    for start in range(0, 2000, 100):
        words = np.array(WORDS[start : start + 100])
        for changes in (0, 1, 2, 3, 30):
            copy = words.copy()
            copy[rng.choice(100, changes, replace=False)] = rng.choice(WORDS, changes)
            texts.append(" ".join(copy))
    texts += [f"{text} and more" for text in texts[:7]]

    def dropped(folder):
        folder.mkdir()
        return [{**entry, "source": ""} for entry in corpus_of(texts, folder).dropped()]

    expected = dropped(tmp_path / "one")
    assert len(expected) > 40
    for name in ("EDGES", "MEMBERS", "HELD_SHINGLES"):
        monkeypatch.setattr(deduplicate, name, 1)
    assert dropped(tmp_path / "other") == expected


def test_of_pages_from_one_template_a_bounded_number_is_compared(tmp_path, monkeypatch):
    template = prose(0, 60)
    texts = [f"{template} {' '.join(WORDS[100 + 40 * i : 140 + 40 * i])}" for i in range(30)]
    texts.append(texts[-1].replace("word5 ", "changed "))
    for most in (256, 3):
        monkeypatch.setattr(deduplicate, "MOST_IN_BAND", most)
        folder = tmp_path / str(most)
        folder.mkdir()
        assert kept(corpus_of(texts, folder)) == texts[:30]


def test_short_texts_are_compared_whole_only(tmp_path):
    texts = ["Yes, it is.", "Yes, it was.", "他说是。", "他说不是。"]
    assert kept(corpus_of(texts, tmp_path)) == texts


def test_near_and_exact_can_be_left_out(tmp_path):
    texts = ["a text", "a text", prose(0, 100), prose(0, 99)]
    assert len(kept(corpus_of(texts, tmp_path, exact=False, near=False))) == 4


@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_planted_edits_are_found(tmp_path, language):
    rng = np.random.default_rng(0)
    if language == "English":
        texts = [rng.choice(WORDS, 150) for _ in range(60)]
        other, space = WORDS, " "
    else:
        other, space = [chr(c) for c in range(0x4E00, 0x4E00 + 3000)], ""
        texts = [rng.choice(other, 218) for _ in range(60)]
    for rate, least in ((0.01, 0.97), (0.02, 0.92), (0.05, 0.6)):
        copies = []
        for text in texts:
            copy = text.copy()
            places = rng.choice(len(copy), max(1, round(rate * len(copy))), replace=False)
            copy[places] = rng.choice(other, len(places))
            copies.append(copy)
        folder = tmp_path / str(rate)
        folder.mkdir()
        stays = set(kept(corpus_of([space.join(t) for t in [*texts, *copies]], folder)))
        pairs = zip(texts, copies, strict=True)
        found = np.mean([not {space.join(one), space.join(two)} <= stays for one, two in pairs])
        assert found >= least, rate


def test_a_line_that_stands_in_many_documents_is_cut_save_where_it_is_first(tmp_path):
    footer = "All rights reserved by the publishers of this page"
    texts = [f"Document {i} has its own words.\n{footer}\nAnd it ends here, {i}." for i in range(6)]
    texts += [footer]
    corpus = corpus_of(texts, tmp_path, lines=3, near=False)
    stays = kept(corpus)
    assert stays[0] == texts[0]
    assert stays[1:] == [f"Document {i} has its own words.\nAnd it ends here, {i}." for i in range(1, 6)]
    metrics = corpus.metrics
    assert metrics["edits"] == {"repeated line": 6}
    assert metrics["dropped"]["too short"]["documents"] == 1  # of the last document nothing is left
    assert metrics["text_bytes"] == sum(len(text) for text in corpus.texts())
    assert metrics["characters"] == metrics["text_bytes"]
    assert all(
        document.text.count(footer) == (document.id == next(corpus.documents()).id)
        for document in corpus.documents()
    )


def test_what_is_seldom_is_not_cut(tmp_path):
    texts = [
        f"Number {i}, which is alone in this.\nThis line stands in three documents only." for i in range(3)
    ]
    assert kept(corpus_of(texts, tmp_path, lines=3, near=False)) == texts
