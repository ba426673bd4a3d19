"""Splits: stratified, grouped, reproducible; leaks are found."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.adapt.data import DataSettings, divided, leaks, read_split, some_of_each
from gristmill.errors import InputError

PAIRS = st.lists(
    st.tuples(st.text("abcd", min_size=1, max_size=3), st.sampled_from("xyz")), min_size=12, max_size=60
)


@given(PAIRS, st.floats(0.1, 0.6), st.integers(0, 9))
def test_nothing_is_lost_no_text_is_in_both_and_order_does_not_matter(
    pairs: list[tuple[str, str]], share: float, seed: int
) -> None:
    try:
        most, held = divided(pairs, lambda pair: pair[0], lambda pair: pair[1], share, seed)
    except InputError:
        assert len({text for text, _ in pairs}) <= 3  # of each class one text
        return
    assert Counter(most) + Counter(held) == Counter(pairs)
    assert not {text for text, _ in most} & {text for text, _ in held}
    again = divided(pairs[::-1], lambda pair: pair[0], lambda pair: pair[1], share, seed)
    assert Counter(again[1]) == Counter(held)


def test_each_class_gives_its_share() -> None:
    things = [
        (f"{kind}{i}", kind) for kind, count in (("a", 100), ("b", 30), ("c", 10)) for i in range(count)
    ]
    _, held = divided(things, lambda t: t[0], lambda t: t[1], 0.1, 0)
    assert Counter(kind for _, kind in held) == {"a": 10, "b": 3, "c": 1}


def test_of_few_documents_one_is_held_out() -> None:
    things = [(f"document {i % 4}", "") for i in range(20)]
    most, held = divided(things, lambda t: t[0], lambda t: t[1], 0.1, 0)
    assert (len(most), len(held)) == (15, 5)
    with pytest.raises(InputError, match="2 examples are too few"):
        divided([("one", "a"), ("two", "b")], lambda t: t[0], lambda t: t[1], 0.1, 0)


def test_a_class_of_one_example_is_learned_from() -> None:
    things = [("one", "rare"), *[(f"t{i}", "common") for i in range(20)]]
    most, held = divided(things, lambda t: t[0], lambda t: t[1], 0.1, 0)
    assert ("one", "rare") in most
    assert len(held) == 2


def test_texts_that_stand_in_two_splits_are_named() -> None:
    found = leaks(
        [[("train, row 1", "Hello  there"), ("train, row 2", "x")], [], [("test, row 1", "hello there")]]
    )
    assert [(leak.one, leak.other) for leak in found] == [("train, row 1", "test, row 1")]


def test_some_of_each_class() -> None:
    things = [(i, i % 3) for i in range(30)]
    found = some_of_each(things, lambda t: t[1], 4, 0)
    assert Counter(kind for _, kind in found) == {0: 4, 1: 4, 2: 4}
    assert found == sorted(found)
    assert found != some_of_each(things, lambda t: t[1], 4, 1)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "b.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"b\.jsonl holds no rows"):
        read_split(DataSettings(train=str(tmp_path / "a.jsonl"), test=str(tmp_path / "b.jsonl")))
