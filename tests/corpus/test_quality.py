import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gristmill.corpus.quality as quality
from gristmill.corpus.features import mixed, packed
from gristmill.corpus.near import shingles
from gristmill.corpus.quality import (
    BUCKET_BITS,
    HIGHEST_SCORE,
    PASSAGE_UNITS,
    QualityClassifier,
    open_quality,
    passages_of,
    units_of,
)
from gristmill.corpus.quality_training import (
    Example,
    QualityConfig,
    area_interval,
    area_under_curve,
    fit,
    proportion_interval,
    sample,
    train_quality,
)
from gristmill.errors import CorruptArtifact, InputError

PLAIN = [
    "the",
    "river",
    "rose",
    "slowly",
    "over",
    "stones",
    "that",
    "the",
    "villagers",
    "had",
    "laid",
    "when",
    "their",
    "parents",
    "were",
    "children",
]
LOUD = [
    "buy",
    "cheap",
    "best",
    "deal",
    "click",
    "here",
    "now",
    "free",
    "offer",
    "limited",
    "price",
    "order",
    "today",
    "discount",
    "online",
    "shop",
]
COMMON = [
    "and",
    "of",
    "with",
    "from",
    "about",
    "under",
    "some",
    "many",
    "other",
    "these",
    "which",
    "while",
    "before",
    "after",
    "again",
]
MIXED = st.text(alphabet="abc the, don't 学而时习之 สวัสดี かな 12 é😀\n", max_size=60)


def document(words, generator, length=60):
    return " ".join(generator.choice(words if generator.random() < 0.5 else COMMON) for _ in range(length))


def examples(count=60, *, good=PLAIN, bad=LOUD, seed=0, length=(60, 60)):
    generator = random.Random(seed)
    return [
        Example(document(words, generator, size), is_good, f"{is_good}{i % 3}")
        for i in range(count)
        for words, is_good, size in ((good, True, length[0]), (bad, False, length[1]))
    ]


@pytest.fixture(scope="module")
def fitted():
    return fit(examples())


@pytest.fixture
def classifier():
    generator = np.random.default_rng(0)
    weights = generator.integers(-(1 << 20), 1 << 20, 1 << BUCKET_BITS)
    return QualityClassifier(
        np.arange(1 << BUCKET_BITS),
        weights,
        -12345,
        np.linspace(-(1 << 19), 1 << 19, HIGHEST_SCORE).astype(np.int64),
    )


@given(texts=st.lists(MIXED, max_size=4), times=st.integers(1, 40))
@settings(max_examples=40)
def test_c_and_python_give_the_same_margins_units_and_scores(texts, times):
    assert quality.library(quality.SOURCE, include=quality.TEXT_SOURCE) is not None, "no C compiler"
    generator = np.random.default_rng(0)
    weights = generator.integers(-(1 << 20), 1 << 20, 1 << BUCKET_BITS)
    classifier = QualityClassifier(np.arange(1 << BUCKET_BITS), weights, 7, np.arange(HIGHEST_SCORE) * 1000)
    texts = [text * times for text in texts]
    margins, units = classifier.margins_of_buffer(*packed(texts)), units_of(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "library", lambda *_, **__: None)
        assert classifier.margins_of_buffer(*packed(texts)).tolist() == margins.tolist()
        slow = units_of(texts)
    for name in ("hashes", "spans", "counts"):
        assert getattr(slow, name).tolist() == getattr(units, name).tolist()


def test_units_are_words_and_characters_and_know_where_they_stand():
    text = "Don't stop: 学习3 ideas, สวัส"
    units = units_of([text, "", "STOP"])
    assert [text[a:b] for a, b in units.spans[: units.counts[0]]] == (
        ["Don", "t", "stop", "学", "习", "3", "ideas", "ส", "ว", "ั", "ส"]
    )
    assert units.counts.tolist() == [11, 0, 1]
    assert units.hashes[2] == units.hashes[11]  # case makes no difference
    shingle = int(mixed(int(units.hashes[11])) >> 32)
    assert shingles(["stop"])[0].tolist() == [
        shingle
    ]  # the same units, and the same hashes, as near duplicates have


@given(st.lists(st.integers(0, 3000), max_size=6))
def test_a_text_is_divided_evenly_into_as_few_passages_as_can_be(counts):
    lengths, owners = passages_of(np.array(counts, dtype=np.int64))
    for text, count in enumerate(counts):
        own = lengths[owners == text]
        assert own.sum() == count
        assert len(own) == -(-count // PASSAGE_UNITS)
        assert len(own) == 0 or own.max() - own.min() <= 1


def test_length_alone_changes_no_score(classifier):
    generator = random.Random(1)
    passage = document(PLAIN + LOUD, generator, PASSAGE_UNITS)
    once, often = classifier.scores([passage, " ".join([passage] * 9)])
    assert once == often
    assert 0 < once < HIGHEST_SCORE


def test_a_score_is_the_number_of_thresholds_that_the_margin_reaches(classifier):
    texts = [document(PLAIN, random.Random(i), 5) for i in range(50)]
    margins = classifier.margins_of_buffer(*packed(texts))
    assert classifier.scores(texts).tolist() == [int((classifier.thresholds <= m).sum()) for m in margins]
    assert classifier.scores(["", " \n"]).tolist() == [int((classifier.thresholds <= -12345).sum())] * 2


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_area_under_curve_is_the_share_of_pairs_in_order(pairs):
    values, is_good = (np.array(column) for column in zip(*pairs, strict=True))
    if 0 < is_good.sum() < len(is_good):
        wins = [(g > b) + 0.5 * (g == b) for g, b in itertools.product(values[is_good], values[~is_good])]
        assert area_under_curve(values, is_good) == pytest.approx(np.mean(wins))


@given(st.floats(0, 1), st.integers(5, 500), st.integers(5, 500))
@settings(max_examples=30)
def test_an_interval_of_an_area_holds_it_and_narrows(area, good, bad):
    low, high = area_interval(area, good, bad)
    assert 0 <= low <= area <= high <= 1
    assert (low, high) != (area, area)
    narrower = area_interval(area, 4 * good, 4 * bad)
    assert narrower[1] - narrower[0] < high - low


def test_intervals_of_proportions_are_wilsons():
    from scipy.stats import binomtest

    for count, total in ((0, 10), (3, 10), (10, 10), (450, 500)):
        expected = binomtest(count, total).proportion_ci(method="wilson")
        assert proportion_interval(count, total) == pytest.approx((expected.low, expected.high))
    assert proportion_interval(0, 0) == (0.0, 1.0)


def test_good_and_bad_are_told_apart_and_the_reasons_are_named(fitted):
    classifier, report = fitted
    generator = random.Random(99)
    good, bad = ([document(words, generator) for _ in range(20)] for words in (PLAIN, LOUD))
    assert min(classifier.scores(good)) > 500 > max(classifier.scores(bad))
    assert report["area_under_curve"]["value"] > 0.99
    assert report["documents"] == {"good": 60, "bad": 60, "in_both_classes": 0}
    for kind, words in (("good", PLAIN), ("bad", LOUD)):
        named = [set(entry["text"].split()) for entry in report["telling"][kind]]
        assert all(parts & set(words) for parts in named[:10])
    recalls = [entry["recall"]["value"] for entry in report["thresholds"]]
    assert recalls == sorted(recalls, reverse=True)


def test_the_order_of_the_examples_makes_no_difference(fitted):
    shuffled = examples()
    random.Random(5).shuffle(shuffled)
    again, report = fit(shuffled)
    assert report == fitted[1]
    for name in ("buckets", "weights", "thresholds", "bias"):
        assert np.array_equal(getattr(again, name), getattr(fitted[0], name))


def test_labels_that_mean_nothing_are_refused():
    generator = random.Random(3)
    texts = [document(PLAIN + LOUD, generator) for _ in range(200)]
    with pytest.raises(InputError, match="nothing in the words"):
        fit([Example(text, i % 2 == 0) for i, text in enumerate(texts)])


def test_held_out_figures_are_those_of_new_documents():
    few = examples(40, good=PLAIN + LOUD[:12], bad=LOUD + PLAIN[:12], length=(25, 25))
    classifier, report = fit(few)
    new = examples(1000, good=PLAIN + LOUD[:12], bad=LOUD + PLAIN[:12], length=(25, 25), seed=77)
    scores, is_good = classifier.scores([e.text for e in new]), np.array([e.is_good for e in new])
    low, high = report["area_under_curve"]["interval"]
    assert low <= area_under_curve(scores, is_good) <= high
    assert high < 1
    sure = scores >= 750
    assert is_good[sure].mean() > 0.75  # a score is a probability, or an understatement


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (examples(30, length=(120, 20)), "length alone"),
        (examples(30, bad=["价格", "优惠", "点击", "购买", "便宜", "快来", "下单", "今天"]), "language"),
        ([e._replace(text="Project Gutenberg " * e.is_good + e.text) for e in examples(30)], "one phrase"),
        ([e._replace(source="one") for e in examples(30)], "one source only"),
        (examples(30), "only 30 documents"),
    ],
)
def test_what_beside_the_point_tells_the_classes_apart_is_said(made, word):
    _, report = fit(made)
    assert any(word in warning for warning in report["warnings"]), report["warnings"]


def test_what_is_learned_of_sources_is_told_from_what_is_learned_of_quality():
    generator = random.Random(8)
    names = ["alder", "birch", "cedar", "elm", "fir", "gum", "hazel", "juniper"]
    made = [
        Example(document(COMMON, generator, 20) + " " + " ".join(generator.choices([names[i % 8]], k=3)), i % 8 < 4, names[i % 8])
        for i in range(240)
    ]  # fmt: skip
    _, report = fit(made)
    assert report["area_under_curve"]["value"] > 0.95
    assert report["checks"]["unseen_sources"]["area_under_curve"] < 0.75
    assert any("sources that it has not seen" in warning for warning in report["warnings"])


def test_texts_in_both_classes_are_left_out_and_copies_count_once():
    made = examples(30)
    both = [Example("the same words in both", True), Example("the same words in both ", False)]
    _, report = fit([*made, *made, *both])
    assert report["documents"] == {"good": 30, "bad": 30, "in_both_classes": 1}


def test_too_few_documents_or_one_class_are_refused():
    for made in (examples(10), [e for e in examples(60) if e.is_good], []):
        with pytest.raises(InputError, match="expected 20 or more"):
            fit(made)


@given(st.lists(st.text(max_size=5), max_size=30), st.integers(1, 10), st.randoms(use_true_random=False))
def test_a_sample_depends_on_the_texts_and_not_on_their_order(texts, most, generator):
    chosen = sample([(text, "a") for text in texts], 7, most=most)
    shuffled = generator.sample(texts, len(texts))
    assert [text.strip() for text, _ in sample([(text, "a") for text in shuffled], 7, most=most)] == (
        [text.strip() for text, _ in chosen]
    )
    assert len(chosen) == min(most, len({text.strip() for text in texts} - {""}))


def test_a_sample_of_bytes_is_as_small_as_can_be():
    texts = [("x" * i, "a") for i in range(1, 50)]
    chosen = sample(texts, 0, most_bytes=200)
    sizes = [len(text) for text, _ in chosen]
    assert sum(sizes) >= 200 > sum(sizes[:-1])
    assert chosen == sample(texts, 0)[: len(chosen)]


def test_a_classifier_is_read_as_it_was_written_or_not_at_all(fitted, tmp_path):
    from safetensors.numpy import save_file

    classifier, _ = fitted
    classifier.write(tmp_path)
    texts = [example.text for example in examples(5)]
    assert QualityClassifier.read(tmp_path).scores(texts).tolist() == classifier.scores(texts).tolist()
    right = {name: getattr(classifier, name) for name in ("buckets", "weights", "thresholds")}
    for change in (
        {"buckets": right["buckets"][::-1].copy()}, {"weights": right["weights"][:-1]},
        {"weights": right["weights"].astype(np.int64)}, {"thresholds": right["thresholds"][::-1].copy()},
        {"more": right["weights"]},
    ):  # fmt: skip
        save_file({**right, **change}, tmp_path / quality.WEIGHTS)
        with pytest.raises(CorruptArtifact):
            QualityClassifier.read(tmp_path)
    (tmp_path / quality.WEIGHTS).write_bytes(b"\x80\x04N.")
    with pytest.raises(CorruptArtifact):
        QualityClassifier.read(tmp_path)
    classifier.write(tmp_path)
    (tmp_path / quality.SETTINGS).write_text("{}")
    with pytest.raises(CorruptArtifact):
        QualityClassifier.read(tmp_path)


def written(folder, made):
    folder.mkdir()
    for i, example in enumerate(made):
        (folder / f"{i}.txt").write_text(example.text)
    return str(folder)


def test_a_classifier_is_trained_from_labelled_files_once(tmp_path):
    made = examples(30)
    good = written(tmp_path / "good", [e for e in made if e.is_good])
    bad = written(tmp_path / "bad", [e for e in made if not e.is_good])
    config = QualityConfig(good=(good,), bad=(bad,))
    first = train_quality(config, tmp_path / "quality")
    assert first.manifest.metrics["labels"] == "labelled"
    assert train_quality(config, tmp_path / "quality").manifest.created_at == first.manifest.created_at
    assert open_quality(tmp_path / "quality").scores([" ".join(PLAIN)])[0] > 500


def test_a_seed_is_told_from_a_sample_of_the_corpus(tmp_path):
    made = examples(40)
    seed = written(tmp_path / "seed", [e for e in made if e.is_good][:30])
    corpus = [(e.text, "corpus") for e in made]  # the seed stands in it, and ten more that are as good
    artifact = train_quality(QualityConfig(seed=(seed,)), tmp_path / "quality", unlabelled=corpus)
    metrics = artifact.manifest.metrics
    assert metrics["documents"] == {"good": 30, "bad": 50, "in_both_classes": 0}
    assert any("holds good documents too" in warning for warning in metrics["warnings"])
    good, bad = open_quality(artifact).scores([" ".join(PLAIN), " ".join(LOUD)])
    assert good > bad


def test_a_config_has_labels_or_a_seed():
    for wrong in ({}, {"good": ("a",)}, {"bad": ("a",)}, {"good": ("a",), "bad": ("b",), "seed": ("c",)}):
        with pytest.raises(InputError):
            QualityConfig(**wrong)


@pytest.mark.shared_data
def test_wikipedia_is_told_from_the_web(shared_data):
    import gzip
    import json

    import pyarrow

    with gzip.open(shared_data / "pretrain_en_web" / "c4_demo.jsonl.gz", "rt", encoding="utf-8") as lines:
        web = [json.loads(line)["text"] for line in lines]
    path = shared_data / "pretrain_en_wikipedia" / "valid.jsonl.zst"
    with pyarrow.input_stream(str(path), compression="zstd") as stream:
        wiki = [json.loads(line)["text"][:1500] for line in stream.read().decode().splitlines()]
    _, report = fit([Example(text, True) for text in wiki[:60]] + [Example(text, False) for text in web[:60]])
    assert report["area_under_curve"]["value"] > 0.85
