"""What is counted in a text: C and Python agree on anything, and the figures are those that a reader would count."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.corpus import features as module
from gristmill.corpus.features import FEATURES, features
from gristmill.native import library

needs_compiler = pytest.mark.skipif(library(module.SOURCE) is None, reason="this machine has no C compiler")
PIECES = st.sampled_from([
    *"aAbB.,'’-–—:/=<>+*@_&#~%$· \n…“”」；[]{}0159的國国あกé!?。•()", "\n\n", "don't ", "it's ", "...", "http://a.b/c. ",
    "[12]", "[edit]", "[citation needed]", "lorem ipsum ", "Javascript ", "use cookies ", "Terms of Use ", "privacy policy ", "The ", "of ", "and ", "的", "是",
    "\u0301", "\u200d", "\U0001f469", "\x00", "\u2028", "\ufeff", "क्षि", "ﬁ", "٣", "１２", "　",
])  # fmt: skip
REPEATED = st.lists(st.sampled_from(["a ", "b ", "the ", "国", "\n", ". ", "......"]), max_size=120)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=80).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    REPEATED.map("".join),
)


def of(text):
    """The figures of one text by name."""
    return dict(zip(FEATURES, features([text])[0].tolist(), strict=True))


@needs_compiler
@given(st.lists(TEXTS, max_size=5))
@example(["", " ", "\n", "a", "。"])
@example([f"one two three {c * n}.\n" for c in "a国あ" for n in (998, 999, 1000, 1001)])
@example(["one " + "国" * 9 + "a" * n + " three." for n in (998, 999, 1000)])
@example(["The cat's hat.\nThe cat's hat.\n\nThe cat's hat.", "well-known facts… 3.14 §5"])
def test_c_and_python_count_the_same(texts):
    found = features(texts)
    assert found.shape == (len(texts), len(FEATURES))
    for text, row in zip(texts, found.tolist(), strict=True):
        differ = {
            name: (c, python)
            for name, c, python in zip(FEATURES, row, module._features(text), strict=True)
            if c != python
        }
        assert differ == {}, text


def test_an_english_text_is_counted_as_a_reader_would():
    text = "The cat sat on the mat.\nIt's a well-known fact, isn't it?\n\n- one\n- two...\n"
    found = of(text)
    assert found["characters"] == len(text)
    assert found["newlines"] == found["lines"] == 5
    assert found["written_lines"] == 4
    assert found["ended_lines"] == 3
    assert found["bullet_lines"] == 2
    assert found["ellipsis_lines"] == 1
    assert found["paragraphs"] == 2
    assert found["stop_words"] == 1  # the; it has neither "to" nor "of"
    assert found["latin"] == sum(c.isalpha() for c in text)
    assert found["han"] == found["unspaced"] == 0
    assert found["longest_word"] == 5


def test_a_chinese_text_is_counted_by_characters():
    found = of("落霞與孤鶩齊飛，秋水共長天一色。\n这是简体字，不是繁體。\n")
    assert found["han"] == 23
    assert found["words"] == 27  # each character, and each mark, stands alone
    assert found["spelled_words"] == 23
    assert (found["traditional"], found["simplified"]) == (6, 2)  # 体 is in both standards
    assert found["written_lines"] == found["ended_lines"] == 2
    assert found["han_stop_words"] == 2  # 是 and 不


def test_repetition_is_measured_in_characters_and_in_units():
    line = "one two three four five six\n"
    found = of(line * 4)
    assert found["repeated_line_characters"] == 3 * (len(line) - 1)
    assert found["top_2"] == 4 * len("one two")
    assert found["repeated_blocks"] == 3
    assert of("all of these words differ here")["repeated_5"] == 0


def test_what_c4_takes_out_is_known_before_it_is_taken_out():
    text = "This line has enough words to be kept.\nshort.\nno mark at its end, though long enough\nPlease enable Javascript now.\nWe use cookies to see who you are.\n"
    found = of(text)
    assert found["c4_lines"] == 1
    assert found["c4_script_lines"] == 1
    assert found["c4_policy_lines"] == 1
    assert of("Some code here { is not prose at all.")["c4_brackets"] == 1


def test_of_a_very_long_text_the_beginning_is_examined(monkeypatch):
    long = "word " * 2_000_000
    found = of(long)
    assert 8 << 20 >= found["characters"] > 8_000_000


@needs_compiler
def test_features_do_not_depend_on_what_stands_beside_a_text():
    texts = ["One text.", "中文，另一个。", "", "third\n\nthird\n"]
    together = features(texts)
    assert (together == np.concatenate([features([text]) for text in texts])).all()
