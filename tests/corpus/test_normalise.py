import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.corpus.language import language_of
from gristmill.corpus.normalise import _repaired, normalise

MESSY = st.text(
    st.sampled_from("aé中e\u0301\r\n\t \x00\x1b[31mÃ©â€™\x92\ufeff\u2028\u3000\ud800\udc00"), max_size=60
)


@pytest.mark.parametrize(
    ("text", "expected", "changed"),
    [
        ("plain\ntext\n", "plain\ntext\n", set()),
        ("two spaces  \nare a line break in Markdown", "two spaces  \nare a line break in Markdown", set()),
        ("\ufeffmark inside\ufeff", "mark inside", {"control"}),
        ("one\r\ntwo\rthree\x0cfour\u2028five", "one\ntwo\nthree\nfour\nfive", {"line_endings"}),
        ("cafe\u0301", "café", {"nfc"}),
        ("\x1b[32m《感遇》\x1b[m\x00", "《感遇》", {"control"}),
        ("\n \n  indented\n\n\n", "  indented\n", {"edges"}),
        ("trailing   ", "trailing", {"edges"}),
        (" \n\t\u3000", "", {"edges"}),
        ("a \ud83d\ude00 b \ud800", "a \U0001f600 b \ufffd", {"surrogates"}),
        ("itâ€™s a cafÃ©\nüber naïve “quotes”", "it’s a café\nüber naïve “quotes”", {"mojibake"}),
        ("ä½\xa0å¥½ï¼Œä¸–ç•Œ", "你好，世界", {"mojibake"}),
        ("he said \x93yes\x94", "he said “yes”", {"mojibake"}),
    ],
)
def test_each_repair_by_its_name(text: str, expected: str, changed: set[str]) -> None:
    assert normalise(text) == (expected, changed)


@pytest.mark.parametrize(
    "text",
    [
        "Él está aquí, à Noël — « déjà » l’été",
        "Ärger über Öl",
        "Привет, мир",
        "こんにちは世界",
        "½ × ¾ ÷ £5",
        "中文，“引号”",
    ],
)
def test_good_text_of_many_languages_is_left_alone(text: str) -> None:
    assert normalise(text) == (text, frozenset())


@given(st.one_of(st.text(), MESSY, st.binary().map(lambda data: data.decode("latin-1"))))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text).text
    assert normalise(once) == (once, frozenset())
    assert normalise(text) == _repaired(text)  # whether or not it looks clean at first
    once.encode()  # valid Unicode whatever came in


def test_a_long_line_of_spaces_takes_linear_time() -> None:
    began = time.process_time()
    normalise("a" + " " * 3_000_000 + "b" + " " * 3_000_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("In the beginning God created the heaven and the earth.", "en"),
        ("白日依山盡，黃河入海流。", "zh"),
        ("使用 PyTorch 的 DataLoader 加载数据，然后 train the model with the optimizer", "mixed"),
        ("こんにちは、せかい", "other"),
        ("Привет, мир, как дела", "other"),
        ("123 456 --- 789", "other"),
        ("Das Haus steht an der Straße und die Kinder spielen im Garten, " * 4, "other"),
        ("", "other"),
    ],
)
def test_language_by_script(text: str, language: str) -> None:
    assert language_of(text) == language
