"""A classifier and an n-gram model in the building of a corpus: what they drop, and what is not done twice."""

import importlib
import json
import random
from fractions import Fraction

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.config import from_dict
from gristmill.corpus import Corpus, CorpusConfig, build, documents, judgements, perplexity, quality_training
from gristmill.corpus.deduplicate import DedupSettings, Units
from gristmill.corpus.engine import EngineSettings
from gristmill.corpus.judgements import MODELS, PerplexitySettings, QualitySettings, border
from gristmill.corpus.language import language_of
from gristmill.corpus.perplexity import NgramConfig, NgramModel, train_ngrams
from gristmill.corpus.quality import QualityClassifier
from gristmill.corpus.quality_training import QualityConfig, train_quality
from gristmill.corpus.rules import RuleSettings
from gristmill.corpus.store import UNITS
from gristmill.errors import CorruptArtifact, InputError

PLAIN = "river rose slowly over stones villagers had laid when their parents were children mill water"
LOUD = "buy cheap best deal click here now free offer limited price order today discount online shop"
COMMON = "the of and to a in is that it was for with as on"
CHINESE = [
    f"第{i}条　国家保护公民的合法权利，任何组织和个人不得侵犯。第{i}款另有规定的除外。" for i in range(12)
]


def texts(words, count, seed):
    """Texts of 60 words, half of them of a kind, no two the same."""
    generator = random.Random(seed)
    choices = words.split(), COMMON.split()
    return [" ".join(generator.choice(generator.choice(choices)) for _ in range(60)) for _ in range(count)]


@pytest.fixture
def write(tmp_path):
    def write(name, *groups):
        path = tmp_path / f"{name}.jsonl"
        lines = [json.dumps({"text": text}) + "\n" for group in groups for text in group]
        path.write_text("".join(lines), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def seeds(write):
    return {
        "good": (write("good", texts(PLAIN, 40, 1)),),
        "bad": (write("bad", texts(LOUD, 40, 2)),),
    }


@pytest.fixture
def make(tmp_path, write):
    """Builds a corpus of ten plain texts, ten loud ones and two in Chinese."""
    source = write("texts", texts(PLAIN, 10, 3), texts(LOUD, 10, 4), CHINESE[:2])

    def make(out="corpus", sources=(source,), **settings):
        settings = {"valid_fraction": 0.0, "dedup": DedupSettings(near=False), **settings}
        settings.setdefault("engine", EngineSettings(workers=1))
        return Corpus(build(CorpusConfig(sources=sources, **settings), tmp_path / out))

    return make


def kinds(corpus):
    """How many documents are plain, loud and Chinese."""
    kept = [document.text for document in corpus.documents()]
    words = [set(text.split()) for text in kept]
    plain = sum(len(found & {*PLAIN.split()}) > len(found & {*LOUD.split()}) for found in words)
    chinese = sum("国" in text for text in kept)
    return plain, len(kept) - plain - chinese, chinese


def contents(corpus):
    return {
        path.relative_to(corpus.artifact.path).as_posix(): path.read_bytes()
        for path in sorted(corpus.artifact.path.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


# --- thresholds -----------------------------------------------------------------------------------------------------


@given(
    documents=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 1000)), min_size=1, max_size=12),
    keep=st.one_of(st.floats(0, 1, exclude_min=True), st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0])),
)
def test_the_border_keeps_the_share_and_no_more_than_it_has_to(documents, keep):
    figures, sizes = (np.array(column) for column in zip(*documents, strict=True))
    found = border(figures, sizes, keep)
    wanted = Fraction(keep) * int(sizes.sum())
    assert int(sizes[figures >= found].sum()) >= wanted
    assert int(sizes[figures > found].sum()) < wanted
    assert found in figures


def test_a_share_that_is_met_exactly_needs_nothing_more():
    assert border(np.array([1, 2, 3, 4]), np.array([10, 10, 10, 10]), 0.5) == 3


# --- quality --------------------------------------------------------------------------------------------------------


def test_what_looks_like_the_bad_documents_is_dropped_and_other_languages_are_left_alone(make, seeds):
    corpus = make(quality=QualitySettings(**seeds, minimum=500))
    assert kinds(corpus) == (10, 0, 2)
    metrics = corpus.metrics
    assert metrics["dropped"]["quality"]["documents"] == 10
    said = metrics["quality"]
    assert said["minimum_score"] == {"en": 500}
    assert said["not_judged"] == {"zh": 2}
    assert any("leaves alone: 2 zh" in warning for warning in said["warnings"])
    assert said["training"][0]["documents"] == {"good": 40, "bad": 40, "in_both_classes": 0}
    assert said["training"][0]["area_under_curve"]["value"] > 0.9
    assert {entry["reason"] for entry in corpus.dropped()} == {"quality"}


def test_scores_are_whole_numbers_beside_the_texts_and_those_of_the_model(make, seeds):
    corpus = make(quality=QualitySettings(**seeds))
    assert kinds(corpus) == (10, 10, 2)  # no threshold, nothing dropped
    (file,) = (corpus.artifact.path / UNITS).glob("*.quality-*.parquet")
    table = pyarrow.parquet.read_table(file)
    assert table["score"].type == pyarrow.int32()
    (home,) = (corpus.artifact.path / MODELS).iterdir()
    kept = [document.text for document in corpus.documents()]
    assert table["document"].to_pylist() == list(range(22))
    assert table["score"].to_pylist() == QualityClassifier.read(home).scores(kept).tolist()
    english = sorted(table["score"].to_pylist()[:20])
    assert corpus.metrics["quality"]["scores"]["en"]["p90"] == english[17]


def test_a_share_is_kept_of_each_language_that_was_learned(make, seeds, write):
    corpus = make(quality=QualitySettings(**seeds, keep=0.25))
    plain, loud, chinese = kinds(corpus)
    assert (loud, chinese) == (0, 2)
    (file,) = (corpus.artifact.path / UNITS).glob("*.quality-*.parquet")
    scores = pyarrow.parquet.read_table(file)["score"].to_pylist()
    read = [row["text"] for row in _stored(corpus)]
    english = [
        (score, len(text)) for score, text in zip(scores, read, strict=True) if language_of(text) == "en"
    ]
    total, least = sum(size for _, size in english), corpus.metrics["quality"]["minimum_score"]["en"]
    assert sum(size for score, size in english if score >= least) >= total / 4
    assert sum(size for score, size in english if score > least) < total / 4
    assert plain == sum(score >= least for score, _ in english)
    both = {
        "good": (write("good_2", texts(PLAIN, 40, 1), CHINESE),),
        "bad": (write("bad_2", texts(LOUD, 40, 2), [text.replace("国家", "商店") for text in CHINESE]),),
    }
    source = write("both", texts(PLAIN, 10, 3), texts(LOUD, 10, 4), [text + "完" for text in CHINESE[:4]])
    corpus = make("both", sources=(source,), quality=QualitySettings(**both, keep=0.5))
    assert kinds(corpus)[2] >= 2
    assert set(corpus.metrics["quality"]["minimum_score"]) == {"en", "zh"}
    assert corpus.metrics["quality"]["not_judged"] == {}


def forbid(monkeypatch, *places):
    def never(*arguments, **named):
        raise AssertionError("this was not to be done")

    for owner, name in places:
        monkeypatch.setattr(owner, name, never)


def test_another_threshold_reads_learns_and_scores_nothing_again(make, seeds, monkeypatch):
    first = make(quality=QualitySettings(**seeds, minimum=500))
    fresh = make("fresh", quality=QualitySettings(**seeds, keep=0.25))
    forbid(
        monkeypatch,
        (quality_training, "fit"), (quality_training, "read_examples"), (documents, "normalise"),
        (QualityClassifier, "scores_of_buffer"),
    )  # fmt: skip
    again = make(quality=QualitySettings(**seeds, keep=0.25))
    assert first.artifact.manifest.key != again.artifact.manifest.key
    assert contents(again) == contents(fresh)
    assert again.metrics == fresh.metrics


def test_a_model_that_was_damaged_is_learned_again(make, seeds):
    corpus = make(quality=QualitySettings(**seeds, minimum=500))
    (weights,) = (corpus.artifact.path / MODELS).glob("*/*.safetensors")
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert kinds(make(quality=QualitySettings(**seeds, minimum=499))) == (10, 0, 2)
    assert weights.read_bytes() == right


def test_workers_give_the_same_bytes(make, seeds, write, monkeypatch):
    sources = tuple(write(f"part_{i}", texts(PLAIN, 8, 10 + i), texts(LOUD, 8, 20 + i)) for i in range(3))
    monkeypatch.setattr("gristmill.corpus.units.MOST_BYTES", 1000)
    settings = {
        "quality": QualitySettings(good=seeds["good"], keep=0.5),
        "perplexity": PerplexitySettings(trained_on=seeds["good"], keep=0.9),
    }
    alone = make("alone", sources, **settings)
    assert len(list((alone.artifact.path / UNITS).glob("*.quality-*"))) > 1
    together = make("together", sources, engine=EngineSettings(workers=2), **settings)
    assert contents(alone) == contents(together)


def test_a_seed_is_told_from_the_corpus_and_no_text_is_judged_by_what_learned_it(make, seeds, write):
    """All texts of this corpus are in the samples; one that is good must not score low for that."""
    source = write("web", texts(PLAIN, 60, 5), texts(LOUD, 120, 6))
    corpus = make(sources=(source,), quality=QualitySettings(good=seeds["good"], keep=0.3))
    plain, loud, _ = kinds(corpus)
    assert plain >= 50
    assert loud <= 10
    first, second = corpus.metrics["quality"]["training"]
    assert first["labels"] == "seed"
    assert first["documents"]["bad"] + second["documents"]["bad"] == 180
    homes = {home.name: home for home in (corpus.artifact.path / MODELS).iterdir()}
    assert len(homes) == 2
    reports = [json.loads((home / "report.json").read_text()) for home in homes.values()]
    (file,) = (corpus.artifact.path / UNITS).glob("*.quality-*.parquet")
    (attributes,) = (corpus.artifact.path / UNITS).glob("*.attributes.parquet")
    odd = (pyarrow.parquet.read_table(attributes)["hash_2"].to_numpy() & np.uint64(1)).astype(bool)
    found = pyarrow.parquet.read_table(file)["score"].to_numpy()
    texts_of = np.array([row["text"] for row in _stored(corpus)], dtype=object)
    for home, report in zip(homes.values(), reports, strict=True):
        # the one that has learned from odd ones judges the even ones, and the other way round
        judged = ~odd if report["documents"]["bad"] == odd.sum() else odd
        assert found[judged].tolist() == QualityClassifier.read(home).scores(list(texts_of[judged])).tolist()
    assert odd.sum() * 2 != len(odd)


def test_samples_of_a_corpus_are_of_one_half_each_and_have_equal_texts_once(make):
    corpus = make()
    directory = corpus.artifact.path / UNITS
    names = tuple(file.name.split(".")[0] for file in directory.glob("*.texts.parquet"))
    units = Units(directory, names, (22,) * len(names))
    hashes = pyarrow.parquet.read_table(units.attributes[0])["hash_2"].to_numpy()
    for parity in (0, 1):
        places, _ = judgements._sampled(units, parity)
        assert places.tolist() == np.flatnonzero(hashes & np.uint64(1) == parity).tolist()
    twice = Units(directory, names * 2, (22, 22))
    assert judgements._sampled(twice, 1)[0].max() < 22
    changed = pyarrow.parquet.read_table(units.attributes[0])
    sizes = changed["bytes"].to_numpy().copy()
    sizes[:11] = 0  # forgotten
    place = changed.column_names.index("bytes")
    pyarrow.parquet.write_table(changed.set_column(place, "bytes", [sizes]), units.attributes[0])
    before, now = ((judgements._sampled(u, 1)) for u in (twice, units))
    assert now[0].min() >= 11
    assert (before[1] == now[1]) == (before[0].tolist() == now[0].tolist())


# --- models by name -------------------------------------------------------------------------------------------------


def test_a_corpus_is_of_a_model_s_bytes_and_not_of_where_it_lies(make, seeds, tmp_path):
    train_quality(QualityConfig(**seeds), tmp_path / "a")
    first = make(quality=QualitySettings(model=str(tmp_path / "a"), minimum=500))
    assert kinds(first) == (10, 0, 2)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = make(quality=QualitySettings(model=str(tmp_path / "b"), minimum=500))
    assert moved.artifact.manifest.created_at == first.artifact.manifest.created_at
    other = QualityConfig(good=seeds["bad"], bad=seeds["good"])
    train_quality(other, tmp_path / "a")
    turned = make(quality=QualitySettings(model=str(tmp_path / "a"), minimum=500))
    assert kinds(turned) == (0, 10, 2)
    assert not (turned.artifact.path / MODELS).exists()


def test_the_seeds_contents_decide(make, seeds, write):
    first = make(quality=QualitySettings(**seeds, minimum=500))
    write("bad", texts(LOUD, 41, 2))
    assert (
        make(quality=QualitySettings(**seeds, minimum=500)).artifact.manifest.key
        != first.artifact.manifest.key
    )


# --- perplexity -----------------------------------------------------------------------------------------------------


@pytest.fixture
def like(write):
    return (write("like", texts(PLAIN, 60, 7)),)


def bits(corpus):
    (file,) = (corpus.artifact.path / UNITS).glob("*.perplexity-*.parquet")
    return pyarrow.parquet.read_table(file)["millibits"].to_pylist()


def test_what_is_not_foretold_and_what_is_foretold_too_well_is_dropped(make, like, write):
    odd = [
        "the of "
        + " ".join("".join(random.Random(i * j).sample("bcdfgjklmnpqrstvwxz", 5)) + " the" for j in range(40))
        for i in range(3)
    ]
    source = write("mixed", texts(PLAIN, 10, 3), odd, ["the mill and the water " * 30], CHINESE[:2])
    scored = make(sources=(source,), perplexity=PerplexitySettings(trained_on=like))
    assert "perplexity" not in scored.metrics["dropped"]
    found = bits(scored)
    plain, strange, repeated = found[:10], found[10:13], found[13]
    assert repeated < min(plain) <= max(plain) < min(strange)
    low, high = (repeated + min(plain)) / 2000, (max(plain) + min(strange)) / 2000
    corpus = make(
        sources=(source,), perplexity=PerplexitySettings(trained_on=like, minimum=low, maximum=high)
    )
    assert kinds(corpus) == (10, 0, 2)
    said = corpus.metrics["perplexity"]
    assert (said["too_low"], said["too_high"], said["not_judged"]) == (1, 3, {"zh": 2})
    assert [entry["reason"] for entry in corpus.dropped()] == ["perplexity"] * 4


def test_bits_are_those_of_characters_and_thresholds_can_be_of_a_language(make, write):
    both = (write("like", texts(PLAIN, 40, 7), CHINESE * 3),)
    corpus = make(perplexity=PerplexitySettings(trained_on=both, maximum={"zh": 0.5}))
    (home,) = (corpus.artifact.path / MODELS).iterdir()
    read = [row["text"] for row in _stored(corpus)]
    model = NgramModel.read(home)
    by_byte = model.millibits(read)
    for text, by_character, of_bytes in zip(read, bits(corpus), by_byte, strict=True):
        assert by_character == pytest.approx(of_bytes * len(text.encode()) / len(text), abs=3)
    assert kinds(corpus) == (10, 10, sum(value <= 500 for value in bits(corpus)[20:]))
    assert corpus.metrics["perplexity"]["maximum_millibits"] == {"zh": 500}


def _stored(corpus):
    (file,) = (corpus.artifact.path / UNITS).glob("*.texts.parquet")
    return pyarrow.parquet.read_table(file).to_pylist()


def test_the_share_that_is_best_foretold_is_kept_of_what_is_not_foretold_too_well(make, like, write):
    source = write("mixed", texts(PLAIN, 10, 3), texts(LOUD, 10, 4), ["the mill and the water " * 30])
    least = min(bits(make(sources=(source,), perplexity=PerplexitySettings(trained_on=like)))[:20]) / 1000
    settings = PerplexitySettings(trained_on=like, minimum=least, keep=0.5)
    corpus = make(sources=(source,), perplexity=settings)
    figures = bits(corpus)
    border_ = corpus.metrics["perplexity"]["maximum_millibits"]["en"]
    kept = {document.text for document in corpus.documents()}
    for row, figure in zip(_stored(corpus), figures, strict=True):
        assert (row["text"] in kept) == (1000 * least <= figure <= border_)
    assert kinds(corpus)[0] >= 9
    assert corpus.metrics["dropped"]["perplexity"]["documents"] == 21 - len(kept)


def test_another_limit_of_perplexity_looks_at_nothing_again(make, like, monkeypatch):
    make(perplexity=PerplexitySettings(trained_on=like, maximum=2.0))
    forbid(
        monkeypatch,
        (perplexity, "train_on"), (perplexity, "documents_of"), (documents, "normalise"), (NgramModel, "bits_of_buffer"),
    )  # fmt: skip
    make(perplexity=PerplexitySettings(trained_on=like, keep=0.5))


def test_a_trained_model_of_language_is_used(make, like, tmp_path):
    train_ngrams(NgramConfig(sources=like), tmp_path / "ngrams")
    corpus = make(perplexity=PerplexitySettings(model=str(tmp_path / "ngrams"), keep=0.5))
    assert kinds(corpus)[0] >= 9
    assert corpus.metrics["perplexity"]["not_judged"] == {"zh": 2}


# --- order ----------------------------------------------------------------------------------------------------------


def test_rules_come_first_and_near_duplicates_last(make, seeds, write):
    good = texts(PLAIN, 4, 3)
    loud = texts(LOUD, 4, 4)
    near = [text + " again and again" for text in (*good, *loud)]
    source = write("near", good, loud, near, ["Kurz."], CHINESE[:1])
    corpus = make(
        sources=(source,),
        dedup=DedupSettings(near=0.9),
        rules=RuleSettings(scripts=("latin",)),
        quality=QualitySettings(**seeds, minimum=500),
    )
    dropped = {reason: entry["documents"] for reason, entry in corpus.metrics["dropped"].items()}
    short = dropped.pop("quality") - 8  # whether one word is good is hard to say
    assert short in (0, 1)
    assert dropped == {"script": 1, "near duplicate": 4}
    assert corpus.metrics["quality"]["not_judged"] == {}  # the Chinese text is gone by then


def test_the_scripts_of_what_is_kept_are_counted(make, write):
    traditional = "學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？"
    source = write("scripts", texts(PLAIN, 2, 3), CHINESE[:3], [traditional])
    metrics = make(sources=(source,)).metrics
    assert {name: entry["documents"] for name, entry in metrics["scripts"].items()} == {
        "latin": 2,
        "simplified": 3,
        "traditional": 1,
    }
    kept = make(sources=(source,), rules=RuleSettings(scripts=("traditional", "latin")))
    assert kept.metrics["dropped"]["script"]["documents"] == 3
    assert set(kept.metrics["scripts"]) == {"latin", "traditional"}


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "given_table", "message"),
    [
        ("quality", {"model": "a", "good": ["b"]}, "both a model and good"),
        ("quality", {"model": "a", "good": ["b"], "bad": ["c"]}, "both a model and good and bad"),
        ("quality", {"good": [], "bad": ["c"]}, "good is empty"),
        ("quality", {"good": ["c"], "bad": []}, "bad is empty"),
        ("quality", {"bad": ["c"]}, "no good ones"),
        ("quality", {"model": "a", "minimum": 1001}, "minimum is 1001"),
        ("quality", {"model": "a", "minimum": -1}, "minimum is -1"),
        ("quality", {"model": "a", "keep": 0.0}, "keep is 0.0"),
        ("quality", {"model": "a", "keep": 1.5}, "keep is 1.5"),
        ("quality", {"model": "a", "keep": 0.5, "minimum": 10}, "both `minimum` and `keep`"),
        ("quality", {"minimum": 10}, "nothing that gives scores"),
        ("perplexity", {"model": "a", "trained_on": ["b"]}, "both a model and trained_on"),
        ("perplexity", {"trained_on": []}, "trained_on is empty"),
        ("perplexity", {"model": "a", "maximum": 0.0}, "maximum is 0.0"),
        ("perplexity", {"model": "a", "maximum": {"en": 2.0, "zh": -1.0}}, "maximum is -1.0"),
        ("perplexity", {"model": "a", "minimum": 3.0, "maximum": {"en": 2.0}}, "above the maximum"),
        ("perplexity", {"model": "a", "maximum": {"french": 2.0}}, "perplexity.maximum"),
        ("perplexity", {"model": "a", "maximum": 2.0, "keep": 0.5}, "both `maximum` and `keep`"),
        ("perplexity", {"keep": 0.5}, "no model"),
    ],
)
def test_what_a_recipe_has_wrong_is_named(table, given_table, message):
    with pytest.raises(InputError) as caught:
        from_dict(CorpusConfig, {"sources": ["texts"], table: given_table}, "corpus")
    assert message in caught.value.message
    assert f"corpus.{table}" in caught.value.message


def test_what_is_missing_or_something_else_is_missed_before_anything_is_read(
    make, seeds, write, tmp_path, monkeypatch
):
    plain = make("plain").artifact.path
    train_ngrams(NgramConfig(sources=seeds["good"]), tmp_path / "ngrams")
    train_quality(QualityConfig(**seeds), tmp_path / "classifier")
    weights = tmp_path / "classifier" / "quality.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    (tmp_path / "empty").mkdir()
    few = (write("few", texts(PLAIN, 5, 9)),)
    blank = (write("blank", ["", " "]),)
    forbid(
        monkeypatch,
        (documents, "read_unit"),
        (importlib.import_module("gristmill.corpus.build"), "read_unit"),
    )
    nowhere, empty = str(tmp_path / "nowhere"), (str(tmp_path / "empty"),)
    for settings, message in (
        ({"quality": QualitySettings(model=nowhere)}, "corpus.quality: there is no directory"),
        ({"quality": QualitySettings(model=str(plain))}, "is a corpus, expected a quality"),
        ({"quality": QualitySettings(model=str(tmp_path / "ngrams"))}, "is a ngrams, expected a quality"),
        ({"quality": QualitySettings(good=(nowhere,))}, "corpus.quality: .*there is no such file"),
        ({"quality": QualitySettings(good=seeds["good"], bad=empty)}, "corpus.quality: no readable files"),
        ({"quality": QualitySettings(good=few)}, "corpus.quality: there are 5 good documents, expected 20"),
        ({"quality": QualitySettings(good=seeds["good"], bad=few)}, "there are 5 bad documents"),
        ({"quality": QualitySettings(good=seeds["good"], bad=seeds["good"])}, "there are 0 good documents"),
        ({"perplexity": PerplexitySettings(model=nowhere)}, "corpus.perplexity: there is no directory"),
        ({"perplexity": PerplexitySettings(model=str(plain))}, "is a corpus, expected a ngrams"),
        ({"perplexity": PerplexitySettings(trained_on=blank)}, "corpus.perplexity: the sources hold no text"),
    ):
        with pytest.raises(InputError, match=message):
            make(**settings)
        assert not (tmp_path / "corpus").exists()
    with pytest.raises(CorruptArtifact, match=r"quality\.safetensors has"):
        make(quality=QualitySettings(model=str(tmp_path / "classifier")))


def test_a_corpus_that_is_too_small_for_a_sample_says_so(make, seeds):
    with pytest.raises(InputError, match=r"corpus.quality: there are \d+ unlabelled documents, expected 20"):
        make(quality=QualitySettings(good=seeds["good"], keep=0.5))
