"""Shingles, bands and cover: the same in C and in Python, and what brings near texts together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.corpus import near
from gristmill.corpus.features import packed
from gristmill.corpus.near import (
    BANDS,
    LEAST_SHINGLES,
    SHINGLE,
    Lack,
    bands_of_buffer,
    cover,
    lack,
    shingles,
    sorted_shingles,
)
from gristmill.native import library

needs_compiler = pytest.mark.skipif(library(near.SOURCE) is None, reason="this machine has no C compiler")
TEXTS = st.one_of(
    st.lists(st.sampled_from([*"aB 1.，的國あก\n", "word ", "é", "\u0301", "don't "]), max_size=60).map(
        "".join
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)


@needs_compiler
@given(st.lists(TEXTS, max_size=4))
def test_c_and_python_give_the_same_shingles_and_bands(texts):
    found, counts = shingles(texts)
    parts = [near._shingles(text) for text in texts]
    assert counts.tolist() == [len(part) for part in parts]
    assert found.tolist() == [value for part in parts for value in part.tolist()]
    functions = near._functions()
    bands = bands_of_buffer(*packed(texts))
    for part, row in zip(parts, bands.tolist(), strict=True):
        expected = near._bands(part, *functions) if len(part) >= LEAST_SHINGLES else [0] * BANDS
        assert row == expected


def test_a_shingle_is_five_words_or_five_characters_where_there_are_no_spaces():
    assert shingles(["one two three four five six"])[1].tolist() == [2]
    assert shingles(["落霞与孤鹜齐飞"])[1].tolist() == [3]
    assert shingles(["用 GPU 训练 model"])[1].tolist() == [1]  # five units: 用, gpu, 训, 练, model
    assert shingles(["one two"])[1].tolist() == [1]
    assert shingles(["", "。。 !"])[1].tolist() == [0, 0]


def test_case_and_punctuation_do_not_matter():
    one, two = (shingles([t])[0].tolist() for t in ("One, two; THREE four five!", "one two three four five"))
    assert one == two


@given(st.lists(st.booleans(), max_size=40))
def test_cover_is_the_share_of_units_that_stand_in_a_shared_shingle(has):
    units = np.zeros(len(has) + SHINGLE - 1 if has else 0, bool)
    for i, there in enumerate(has):
        units[i : i + SHINGLE] |= there
    assert cover(np.array(has, bool)) == (pytest.approx(units.mean()) if has else 0.0)


@given(st.lists(st.integers(0, 30), max_size=60), st.lists(st.integers(0, 30), max_size=60))
def test_what_another_text_lacks_is_the_same_in_c_and_in_python(one, two):
    text, other = (np.array(values, dtype=np.uint32) for values in (one, two))
    has = np.isin(text, other)
    covered = np.zeros(len(has) + SHINGLE - 1 if len(has) else 0, bool)
    for i in np.flatnonzero(has):
        covered[i : i + SHINGLE] = True
    gaps = "".join("x" if there else " " for there in covered).split("x")
    expected = Lack(float(covered.mean()) if len(covered) else 0.0, max(map(len, gaps)))
    assert lack(sorted_shingles(text), sorted_shingles(other)) == pytest.approx(expected)
    assert near._lack(near._covered(has)) == pytest.approx(expected)


def test_one_edited_word_costs_itself_and_not_its_neighbours():
    text = " ".join(f"w{i}" for i in range(100))
    edited = text.replace("w50 ", "other ")
    (a, b), counts = shingles([text, edited]), shingles([text, edited])[1]
    one, two = np.split(a, [counts[0]])
    assert b.tolist() == [96, 96]
    assert cover(np.isin(two, one)) == pytest.approx(0.99)


def test_bands_nominate_as_often_as_the_formula_says():
    """Of pairs with Jaccard index j, 1 - (1 - j^4)^28 share a band."""
    rng = np.random.default_rng(0)
    length, changed = 200, 8
    texts = []
    for _ in range(400):
        words = rng.integers(0, 1 << 30, length).astype(str)
        other = words.copy()
        other[rng.choice(length, changed, replace=False)] = rng.integers(0, 1 << 30, changed).astype(str)
        texts += [" ".join(words), " ".join(other)]
    found, counts = shingles(texts)
    parts = [set(part.tolist()) for part in np.split(found, np.cumsum(counts)[:-1])]
    bands = bands_of_buffer(*packed(texts))
    expected, seen = [], []
    for i in range(0, len(texts), 2):
        j = len(parts[i] & parts[i + 1]) / len(parts[i] | parts[i + 1])
        expected.append(1 - (1 - j**4) ** BANDS)
        seen.append(bool((bands[i] == bands[i + 1]).any()))
    assert abs(np.mean(seen) - np.mean(expected)) < 0.03
    assert 0.9 < np.mean(expected) < 1
    # texts that have nothing in common share none
    assert not (bands[0:-2:2] == bands[2::2]).any()
