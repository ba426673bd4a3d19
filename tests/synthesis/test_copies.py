"""A text that is a copy of a known one is found, however little of that it is; one that only resembles it is not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.corpus.near import shingles
from gristmill.synthesis.copies import WINDOW, KnownTexts, MadeTexts, cut_copies
from tests.conftest import REPOSITORY

BOOK = (REPOSITORY / "recipes" / "texts" / "king-james.txt").read_text(encoding="utf-8")[:60_000]
OTHERS = [BOOK[at : at + 4000] for at in range(0, 40_000, 4000)]


def own(text: str):
    return shingles([text])[0]


@pytest.fixture
def known(tmp_path: Path) -> KnownTexts:
    return KnownTexts([(f"chapter {i}", text) for i, text in enumerate(OTHERS)], tmp_path / "shingles")


def test_a_passage_out_of_a_long_text_is_a_copy(known: KnownTexts) -> None:
    """A tenth of a chapter: its Jaccard index with the chapter is far below what MinHash finds."""
    passage = OTHERS[3][1000:1400]
    found = cut_copies("And so: " + passage, own(passage), [known], 0.9)
    assert found is not None
    assert found.reason == "near duplicate"
    assert found.of == "chapter 3"
    assert found.share > 0.95


def test_the_same_text_is_a_copy_whatever_its_length_and_white_space(
    known: KnownTexts, tmp_path: Path
) -> None:
    short = KnownTexts([("a", "Yes."), ("b", "不。")], tmp_path / "short")
    assert cut_copies(" Yes.\n", own("Yes."), [short], 0.9) == ("duplicate", 1.0, "a")
    assert cut_copies("不。", own("不。"), [short], False) == ("duplicate", 1.0, "b")
    assert cut_copies("No.", own("No."), [short], 0.9) is None
    assert cut_copies(OTHERS[0] + "\n", own(OTHERS[0]), [known], False) == ("duplicate", 1.0, "chapter 0")


def test_half_a_copy_is_one_only_where_half_is_enough(known: KnownTexts) -> None:
    half = OTHERS[2][500:1000] + BOOK[50_000:50_500]
    assert cut_copies(half, own(half), [known], 0.9) is None
    found = cut_copies(half, own(half), [known], 0.4)
    assert found is not None
    assert found.of == "chapter 2"
    assert 0.4 < found.share < 0.6


def test_texts_of_the_same_book_are_no_copies(known: KnownTexts) -> None:
    for at in range(41_000, 59_000, 3000):
        text = BOOK[at : at + 1500]
        assert cut_copies(text, own(text), [known], 0.9) is None


@settings(max_examples=30)
@given(begin=st.integers(0, 3500), extra=st.integers(0, 8))
def test_window_shingles_in_common_always_nominate(begin: int, extra: int) -> None:
    """Winnowing's guarantee, of the shortest passages: WINDOW shingles in a row and no more."""
    words = OTHERS[1].split()
    begin = min(begin, len(words) - WINDOW - 4)
    passage = " ".join(words[begin : begin + WINDOW + 4])
    shingle = own(passage)
    if len(shingle) < WINDOW:
        return
    texts = MadeTexts()
    texts.add("whole", OTHERS[1], own(OTHERS[1]))
    assert texts.near(shingle, 0.99) is not None


def test_what_was_made_before_is_known_too() -> None:
    made = MadeTexts()
    made.add("made 0", OTHERS[0], own(OTHERS[0]))
    again = OTHERS[0].replace("God", "Lord")
    found = cut_copies(again, own(again), [made], 0.5)
    assert found is not None
    assert found.of == "made 0"
    assert cut_copies(OTHERS[4], own(OTHERS[4]), [made], 0.5) is None


def test_without_any_known_text_nothing_is_a_copy(tmp_path: Path) -> None:
    assert cut_copies("text", np.zeros(0, np.uint32), [KnownTexts([], tmp_path / "none")], 0.9) is None
