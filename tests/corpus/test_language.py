import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.corpus.features import FEATURES, features
from gristmill.corpus.language import language_of, languages_of, script_of

ENGLISH = "It was the best of times, it was the worst of times, it was the age of wisdom."
GERMAN = "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche und sehen auf ihre Hände."
FRENCH = (
    "Longtemps, je me suis couché de bonne heure. Parfois, à peine ma bougie éteinte, mes yeux se fermaient."
)
SPANISH = (
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que vivía un hidalgo."
)
SIMPLIFIED = "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？"
TRADITIONAL = "學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        ("Good morning!", "en"),
        (ENGLISH + " おはよう is good morning.", "en"),
        (SIMPLIFIED, "zh"),
        (TRADITIONAL, "zh"),
        ("我们用 Python 来写这个程序。", "zh"),
        ("使用 PyTorch 的 DataLoader 加载数据，然后 train the model with the optimizer", "mixed"),
        (GERMAN, "other"),
        (FRENCH, "other"),
        (SPANISH, "other"),
        ("こんにちは、世界。今日はいい天気ですね。", "other"),
        ("Привет, мир, как дела", "other"),
        ("안녕하세요", "other"),
        ("สวัสดีชาวโลก", "other"),
        ("123 456 --- 789", "other"),
        ("", "other"),
    ],
)
def test_language_of_a_text(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (SIMPLIFIED, "simplified"),
        (TRADITIONAL, "traditional"),
        (SIMPLIFIED + TRADITIONAL, "both"),
        ("人山人海", "han"),
        (f"{SIMPLIFIED} {'word ' * 10}", "simplified"),  # mixed: which Chinese is there
        (f"{SIMPLIFIED} {ENGLISH * 8}", "latin"),
        ("日本語の文章です。漢字とかなが交じる。", "unspaced"),
        ("สวัสดีชาวโลก", "unspaced"),
        ("か", "unspaced"),
        (ENGLISH, "latin"),
        (GERMAN, "latin"),
        ("Привет, мир, как дела", "other"),
        ("Привет, мир: 世界和平", "other"),
        ("안녕하세요", "other"),
        ("123 456 --- 789", "none"),
        ("", "none"),
    ],
)
def test_script_of_a_text(text, script):
    assert script_of(features([text])) == [script]


def test_many_texts_are_judged_one_by_one():
    texts = [ENGLISH, SIMPLIFIED, GERMAN, ""]
    assert languages_of(features(texts)) == [language_of(text) for text in texts]
    figures = features(texts)
    assert script_of(figures) == [script_of(features([text]))[0] for text in texts]
    assert script_of(figures, languages_of(figures)) == script_of(figures)
    assert languages_of(np.empty((0, len(FEATURES)), dtype=np.int64)) == []
    assert script_of(np.empty((0, len(FEATURES)), dtype=np.int64)) == []


SIGNS = st.text(alphabet="abc the 学学习習说說人的かなไทยпривет안녕 12.,。", max_size=30)


@given(SIGNS)
def test_a_text_has_a_script_of_its_letters_and_chinese_has_a_chinese_one(text):
    figures = features([text])
    (script,), (language,) = script_of(figures), languages_of(figures)
    column = dict(zip(FEATURES, figures[0].tolist(), strict=True))
    assert (script == "none") == (column["letters"] == 0)
    if language in ("zh", "mixed"):
        assert script in ("simplified", "traditional", "both", "han")
    if script == "latin":
        assert column["latin"]
    if script in ("simplified", "both"):
        assert column["simplified"]
    if script in ("traditional", "both"):
        assert column["traditional"]
    if script == "han":
        assert column["simplified"] == column["traditional"] == 0 < column["han"]


def test_a_function_word_in_eight_makes_latin_script_english_and_borders_are_exact():
    text = "gato " * 14 + "the "
    assert language_of(text) == "other"  # 15 words, one of them a function word: 14 would do
    assert language_of("gato " * 13 + "the ") == "en"
    assert language_of("gato " * 7) == "other"
    assert language_of("gato " * 6) == "en"
    assert language_of("山" * 1 + "abcd" * 4) == "mixed"  # a fifth
    assert language_of("山" * 1 + "abcd" * 4 + "e") == "en"


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("path", "key", "language", "least"),
    [
        ("pretrain_en_wikipedia/valid.jsonl.zst", "text", "en", 0.99),
        ("en_zh_tatoeba/valid.jsonl.gz", "en", "en", 0.99),
        ("en_zh_tatoeba/valid.jsonl.gz", "zh", "zh", 0.99),
        ("pretrain_zh_wiki/train.jsonl.zst", "text", "zh", 0.99),
    ],
)
def test_languages_of_real_texts(shared_data, path, key, language, least):
    import json

    import pyarrow

    codec = {"gz": "gzip", "zst": "zstd"}[path.rpartition(".")[2]]
    with pyarrow.input_stream(str(shared_data / path), compression=codec) as stream:
        texts = [json.loads(line)[key] for line in stream.read().decode().splitlines()]
    found = languages_of(features(texts))
    assert found.count(language) >= least * len(found)


@pytest.mark.shared_data
def test_german_is_neither_english_nor_chinese(shared_data):
    import gzip
    import json

    with gzip.open(shared_data / "en_de_multi30k" / "valid.jsonl.gz", "rt", encoding="utf-8") as lines:
        german = [json.loads(line)["de"] for line in lines]
    runs = [" ".join(german[i : i + 5]) for i in range(0, 1000, 5)]
    assert languages_of(features(runs)).count("other") == len(runs)
    assert languages_of(features(german)).count("other") > 0.6 * len(german)
