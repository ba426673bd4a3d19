"""Parts are written whole, a killed run goes on, and what is dropped says why."""

import json
from pathlib import Path

import pytest

from gristmill.artifact import Artifact
from gristmill.errors import InputError
from gristmill.synthesis.writer import FilterSettings, Made, write_made
from tests.conftest import REPOSITORY

BOOK = (REPOSITORY / "recipes" / "texts" / "king-james.txt").read_text(encoding="utf-8")
TEXTS = [BOOK[at : at + 300].strip() for at in range(0, 300 * 20, 300)]


class Killed(BaseException):
    """What a kill looks like from inside."""


class Fake:
    """Makes the texts above; is killed before it makes a number."""

    def __init__(self, killed_at: int = 10**9) -> None:
        self.killed_at, self.asked = killed_at, []

    def __call__(self, numbers: range) -> list[Made]:
        self.asked.append(numbers.start)
        if self.killed_at in numbers:
            raise Killed
        return [Made(number=n, text=TEXTS[n % len(TEXTS)], columns={"label": str(n % 2)}) for n in numbers]


def write(out: Path, make, count: int = 24, **filters) -> Artifact:
    settings = FilterSettings(**{"rules": (), **filters})
    return write_made(
        out, make, count=count, part_texts=8, filters=settings, known=[("first", TEXTS[0])],
        config={"by": "fake"}, parents={}, seed=0,
    )  # fmt: skip


def rows(out: Path, folder: str) -> list[dict]:
    files = sorted((out / folder).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().split("\n") if line]


def test_what_is_kept_and_what_is_dropped_are_all_that_was_made(tmp_path: Path) -> None:
    made = write(tmp_path / "out", Fake())
    kept, dropped = rows(tmp_path / "out", "texts"), rows(tmp_path / "out", "dropped")
    assert sorted(row["synthetic"]["number"] for row in kept + dropped) == list(range(24))
    # 0 is known; from 20 on those that were made come again
    assert {row["synthetic"]["number"]: (row["reason"], row["of"]) for row in dropped} == {
        0: ("duplicate", "first"), 20: ("duplicate", "first"), 21: ("duplicate", "made 1"),
        22: ("duplicate", "made 2"), 23: ("duplicate", "made 3"),
    }  # fmt: skip
    assert kept[0] == {"text": TEXTS[1], "label": "1", "synthetic": {"number": 1, "begins_at": 0}}
    assert made.manifest.metrics == {
        "made": 24, "kept": 19, "characters": sum(len(row["text"]) for row in kept), "dropped": {"duplicate": 5},
    }  # fmt: skip


@pytest.mark.parametrize("killed_at", [0, 8, 17, 23])
def test_a_killed_run_goes_on_and_writes_the_same_bytes(tmp_path: Path, killed_at: int) -> None:
    whole = write(tmp_path / "whole", Fake())
    with pytest.raises(Killed):
        write(tmp_path / "out", Fake(killed_at))
    assert not (tmp_path / "out").exists(), "nothing half done stands there"
    again = Fake()
    made = write(tmp_path / "out", again)
    assert again.asked == [first for first in (0, 8, 16) if first + 8 > killed_at], "no part is made twice"
    assert made.manifest.content_hash == whole.manifest.content_hash
    assert made.manifest.metrics == whole.manifest.metrics
    nothing = Fake()
    assert write(tmp_path / "out", nothing).manifest == made.manifest
    assert nothing.asked == []


def test_a_part_that_was_being_written_is_made_again(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", Fake())
    with pytest.raises(Killed):
        write(tmp_path / "out", Fake(17))
    (tmp_path / ".out.partial" / "texts" / "00001.jsonl").unlink()  # dropped/ is written first
    assert write(tmp_path / "out", Fake()).manifest.content_hash == whole.manifest.content_hash


def test_what_repeats_itself_is_short_or_broken_is_dropped(tmp_path: Path) -> None:
    texts = ["He said so. " * 30, "Short.", TEXTS[1] + "\ufffd", TEXTS[2], TEXTS[3]]

    def make(numbers: range) -> list[Made]:
        return [
            Made(number=n, text=texts[n], columns={}, reason="unfinished" if n == 4 else "") for n in numbers
        ]

    write(tmp_path / "out", make, count=5, rules=("gopher_repetition",))
    reasons = [row["reason"] for row in rows(tmp_path / "out", "dropped")]
    assert reasons[0].startswith("gopher_repetition.")
    assert reasons[1:] == ["too short", "broken characters", "unfinished"]
    assert [row["text"] for row in rows(tmp_path / "out", "texts")] == [TEXTS[2]]


def test_only_what_is_new_is_judged(tmp_path: Path) -> None:
    """The prompt is of the training text and may be; a copy of what followed it there may not."""
    new = (
        "A wholly other story begins here, with a ship and a storm, and nobody on board could swim at all. "
        + TEXTS[9]
    )

    def make(numbers: range) -> list[Made]:
        return [
            Made(number=0, text=TEXTS[0][:60] + new, begins_at=60, columns={}),
            Made(number=1, text="Thus it was: " + TEXTS[0][60:], begins_at=13, columns={}),
        ]

    write(tmp_path / "out", make, count=2)
    assert [row["synthetic"]["number"] for row in rows(tmp_path / "out", "texts")] == [0]
    assert [row["reason"] for row in rows(tmp_path / "out", "dropped")] == ["near duplicate"]


def test_a_set_of_rules_has_to_exist() -> None:
    with pytest.raises(InputError, match="gopher"):
        FilterSettings(rules=("gophers",))
