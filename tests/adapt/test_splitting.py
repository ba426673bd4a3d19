"""What stands in two splits is reported, dropped or refused; groups stay together; what is odd is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.adapt.intents import read_intents, recipe_table, write_rows

from gristmill.adapt.adapting import AdaptRecipe, Splits, prepare
from gristmill.adapt.data import groups_of
from gristmill.adapt.tables import Row
from gristmill.config import from_dict
from gristmill.errors import InputError


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    return read_intents(shared_data)


def prepared(folder: Path, rows: list[dict[str, Any]], **data: Any) -> Splits:
    """The splits of a recipe whose files hold rows, each split with some of the others' where `data` says."""
    table = recipe_table(folder, folder, rows, train_rows=100)
    table["data"] |= data
    return prepare(from_dict(AdaptRecipe, table))


def keys(examples: list[Any]) -> list[str]:
    return [example.key for example in examples]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("policy", "sizes", "dropped"), [("report", (100, 40, 40), 0), ("drop", (97, 39, 40), 4)]
)
def test_what_stands_in_two_splits(
    tmp_path: Path, rows: list[dict[str, Any]], policy: str, sizes: tuple[int, ...], dropped: int
) -> None:
    mixed = list(rows[:180])
    mixed[0] = mixed[1] = mixed[140] | {"text": f"  {mixed[140]['text'].upper()}"}  # two of train in test
    mixed[2] = mixed[101]  # one of train in valid
    mixed[100] = mixed[141]  # one of valid in test
    splits = prepared(tmp_path, mixed, leaks=policy)
    assert tuple(map(len, splits[:3])) == sizes
    assert (len(splits.leaks), splits.dropped) == (3, dropped)
    assert keys(splits.test) == [row["text"] for row in mixed[140:]]
    if policy == "drop":
        assert not set(keys(splits.train)) & set(keys(splits.valid) + keys(splits.test))


@pytest.mark.shared_data
def test_leaks_may_be_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    mixed = [rows[150], *rows[1:180]]
    with pytest.raises(
        InputError, match=r"1 texts or groups .*train\.jsonl, row 1 and .*test\.jsonl, row 11,"
    ) as error:
        prepared(tmp_path, mixed, leaks="refuse")
    assert 'data.leaks = "drop"' in str(error.value.hint)
    assert prepared(tmp_path, rows[:180], leaks="refuse").dropped == 0


@pytest.mark.shared_data
def test_dropping_everything_is_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    prepared(tmp_path, rows[:180])
    with pytest.raises(InputError, match=r"all of data\.train stands in another split"):
        prepared(tmp_path, rows[:180], leaks="drop", test=str(tmp_path / "train.jsonl"))


def with_persons(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Says of each row who wrote it: the length of its text stands for that."""
    return [row | {"person": len(row["text"])} for row in rows]


@pytest.mark.shared_data
def test_a_group_never_stands_in_two_splits(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    data = {"train": write_rows(tmp_path / "all.jsonl", with_persons(rows)), "group": "person"}
    table = {"name": "grouped", "base": "x", "task": "classification", "data": data | {"valid_fraction": 0.3}}
    splits = prepare(from_dict(AdaptRecipe, table))
    persons = [{len(example.key) for example in split} for split in (splits.train, splits.valid)]
    assert not persons[0] & persons[1]
    assert len(splits.train) + len(splits.valid) == len(rows)
    assert 0.1 * len(rows) < len(splits.valid) < 0.5 * len(rows)
    assert not splits.leaks


@pytest.mark.shared_data
def test_groups_in_two_files_are_leaks(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    persons = with_persons(rows[:180])
    reported = prepared(tmp_path, persons, group="person")
    assert reported.leaks
    dropped = prepared(tmp_path, persons, group="person", leaks="drop")
    groups = [{len(example.key) for example in split} for split in dropped[:3]]
    assert not groups[0] & (groups[1] | groups[2])
    assert not groups[1] & groups[2]
    assert len(dropped.test) == 40


@pytest.mark.shared_data
def test_a_row_without_its_group_is_named(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    persons = with_persons(rows[:180])
    persons[120].pop("person")
    with pytest.raises(InputError, match=r'valid\.jsonl, row 21: there is nothing in "person"'):
        prepared(tmp_path, persons, group="person")


def test_examples_of_a_part_of_a_row_have_its_group() -> None:
    rows = [Row("a.json, row 1", {"user": "x"}), Row("a.json, row 12", {"user": [1, 2]})]
    group = groups_of(rows, "user")
    assert group("a.json, row 1, turn 3, option 2") == "x"
    assert group("a.json, row 12") == json.dumps([1, 2])


@pytest.mark.shared_data
def test_a_class_with_one_example_is_named(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    assert prepared(tmp_path, rows[:180]).notes == ()
    mixed = [rows[0] | {"label": "rare"}, *rows[1:180]]
    assert prepared(tmp_path, mixed).notes == ('there is only one training example of "rare"',)
    many = [row | {"label": f"only {i}"} if i < 8 else row for i, row in enumerate(rows[:180])]
    assert prepared(tmp_path, many).notes[0].endswith('"only 4" and 3 more')


@pytest.mark.shared_data
def test_a_row_that_has_other_columns_than_the_rest_is_named(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    mixed = list(rows[:180])
    mixed[145] = {"sentence": mixed[145]["text"], "label": mixed[145]["label"]}
    with pytest.raises(InputError, match=r'test\.jsonl, row 6: there is nothing in "text"') as error:
        prepared(tmp_path, mixed)
    assert "sentence" in str(error.value.hint)
