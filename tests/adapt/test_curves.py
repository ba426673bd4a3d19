"""Learning curves: nested parts, what is finished is kept, and a law that says how far it can be trusted."""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.intents import make_base, read_intents, recipe_table

from gristmill.adapt.adapting import AdaptRecipe, adapt, prepare
from gristmill.adapt.curves import CurveSettings, Law, fit_law, learning_curve, subsets
from gristmill.adapt.data import nested
from gristmill.config import from_dict
from gristmill.errors import InputError


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(0, 9))
def test_every_beginning_has_its_share_of_each_class(kinds: list[str], seed: int) -> None:
    order, ranks = nested(kinds, seed)
    assert sorted(order) == list(range(len(kinds)))
    counts = Counter(kinds)
    for count in range(len(kinds) + 1):
        there = Counter(kinds[i] for i in order[:count])
        for kind, whole in counts.items():
            assert abs(there[kind] - count * whole / len(kinds)) <= len(counts)
    for kind, whole in counts.items():
        assert sorted(rank for rank, other in zip(ranks, kinds, strict=True) if other == kind) == list(
            range(whole)
        )


@pytest.mark.parametrize(
    ("unit", "sizes", "counts"),
    [
        ("share", (0.5, 0.1, 1.0), [4, 20, 40]),
        ("examples", (7.0, 40.0), [7, 40]),
        ("per_class", (1.0, 5.0, 30.0), [2, 10, 40]),
    ],
)
def test_smaller_parts_are_within_larger_ones(unit: Any, sizes: tuple[float, ...], counts: list[int]) -> None:
    kinds = ["a"] * 10 + ["b"] * 30
    settings = CurveSettings(sizes=sizes, unit=unit)
    parts = subsets(settings, kinds, 0)
    assert [len(part) for part in parts] == counts
    for smaller, larger in itertools.pairwise(parts):
        assert set(smaller) < set(larger)
    assert parts[0] != subsets(settings, kinds, 1)[0]
    if unit == "per_class":
        assert Counter(kinds[i] for i in parts[1]) == {"a": 5, "b": 5}


@pytest.mark.parametrize("law", [Law(0.93, 2.0, 0.5), Law(0.9, 0.8, 0.3), Law(0.99, 30.0, 1.1)])
def test_a_law_is_found_again(law: Law) -> None:
    sizes = np.array([50.0, 100.0, 200.0, 400.0, 800.0])
    scores = np.array([law.at(size) for size in sizes.tolist()])
    found = fit_law(sizes, scores)
    assert found.at(1600) == pytest.approx(law.at(1600), abs=2e-3)
    assert found.power == pytest.approx(law.power, rel=0.1)


def test_a_law_neither_falls_nor_passes_what_can_not_be_passed() -> None:
    sizes = np.array([10.0, 20.0, 40.0, 80.0])
    assert fit_law(sizes, np.array([0.9, 0.8, 0.7, 0.6])).at(160) == pytest.approx(0.75)
    steep = np.array([0.1, 0.3, 0.6, 0.9])
    assert fit_law(sizes, steep).at(10**6) > 1
    assert fit_law(sizes, steep, most=1.0).at(10**6) <= 1


class Runs:
    """Stands for trainings: scores that follow a law, a little better for every next seed."""

    def __init__(self, stops_after: int = 99) -> None:
        self.done: list[tuple[int, int]] = []
        self.stops_after = stops_after

    def __call__(self, chosen: Sequence[int], seed: int, directory: Path) -> Mapping[str, float]:
        if len(self.done) == self.stops_after:
            raise KeyboardInterrupt
        self.done.append((len(chosen), seed))
        return {"accuracy": Law(0.9, 2.0, 0.5).at(len(chosen)) + 0.01 * (seed % 3)}


def curve(
    folder: Path, runs: Runs, known: Mapping[int, Mapping[str, float]] | None = None, **more: Any
) -> Any:
    folder.mkdir(exist_ok=True)
    settings = CurveSettings(**{"sizes": (0.125, 0.25, 0.5, 1.0), **more})
    return learning_curve(
        settings, ["a", "b"] * 200, runs, figure="accuracy", seed=3, directory=folder, known=known or {},
        say=lambda message: None,
    )  # fmt: skip


def test_a_killed_curve_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    whole = curve(tmp_path / "whole", Runs())
    assert len(whole["points"]) == 12
    with pytest.raises(KeyboardInterrupt):
        curve(tmp_path / "killed", Runs(stops_after=5))
    rest = Runs()
    assert curve(tmp_path / "killed", rest) == whole
    assert len(rest.done) == 7


def test_models_that_are_there_are_not_trained_again(tmp_path: Path) -> None:
    runs = Runs()
    facts = curve(tmp_path, runs, known={3: {"accuracy": 0.5}, 4: {"accuracy": 0.6}})
    assert [seed for size, seed in runs.done if size == 400] == [5]
    assert [p["figures"]["accuracy"] for p in facts["points"] if p["examples"] == 400][:2] == [0.5, 0.6]


def test_what_twice_the_labels_bring_has_an_interval(tmp_path: Path) -> None:
    facts = curve(tmp_path / "a", Runs())
    twice = facts["twice"]
    truth = Law(0.91, 2.0, 0.5)
    assert twice["examples"] == 800
    assert twice["mean"] == pytest.approx(truth.at(800), abs=0.005)
    assert twice["interval"][0] < truth.at(800) < twice["interval"][1]
    assert twice["gain"] == pytest.approx(truth.at(800) - truth.at(400), abs=0.005)
    assert facts["check"]["measured"] == pytest.approx(facts["check"]["said"], abs=0.01)
    assert curve(tmp_path / "b", Runs(), seeds=1)["twice"]["interval"] is None


def test_a_law_that_was_off_at_the_largest_size_has_a_wide_interval(tmp_path: Path) -> None:
    off = curve(tmp_path, Runs(), known={seed: {"accuracy": 0.6} for seed in (3, 4, 5)})
    low, high = off["twice"]["interval"]
    assert off["check"]["said"] - off["check"]["measured"] > 0.15
    assert high - low > 2 * 0.15
    assert off["twice"]["gain_interval"][0] < 0 < off["twice"]["gain_interval"][1]


def test_of_three_sizes_nothing_is_foretold(tmp_path: Path) -> None:
    facts = curve(tmp_path, Runs(), sizes=(0.25, 0.5, 1.0))
    assert facts["law"] is None
    assert facts["twice"] is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sizes": [0.5]}, "fewer than two"),
        ({"sizes": [0.5, 2]}, "2, which is no share"),
        ({"sizes": [0.5, 20], "unit": "examples"}, "not whole numbers"),
        ({"sizes": [0.0, 0.5]}, "greater than 0"),
        ({"seeds": 0}, "greater than 0"),
        ({"unit": "rows"}, '"curve.unit" is "rows"'),
    ],
)
def test_a_curve_that_can_not_be_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        from_dict(CurveSettings, table, "curve")
    assert message in error.value.message


@pytest.mark.parametrize(
    ("settings", "kinds", "message"),
    [
        (
            CurveSettings(sizes=(5.0, 41.0), unit="examples"),
            ["a"] * 40,
            "there are 40 examples to learn from",
        ),
        (
            CurveSettings(sizes=(5.0, 41.0), unit="per_class"),
            ["a"] * 40,
            "there are 40 examples of any class",
        ),
        (CurveSettings(sizes=(5.0, 10.0), unit="per_class"), [""] * 40, "this task has no classes"),
    ],
)
def test_sizes_that_the_examples_do_not_have_are_refused(
    settings: CurveSettings, kinds: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        subsets(settings, kinds, 0)


# --- with a recipe ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    return read_intents(shared_data)


@pytest.fixture(scope="module")
def base(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base([row["text"] for row in rows], tmp_path_factory.mktemp("base"))


@pytest.mark.shared_data
def test_a_recipe_gives_a_curve_that_ends_in_the_model(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]]
) -> None:
    table = recipe_table(tmp_path, base, rows, train_rows=64)
    table |= {"curve": {"sizes": [8, 16, 64], "unit": "examples", "seeds": 2, "equal": "steps"}}
    table["tune"] |= {"epochs": 2}
    said: list[str] = []
    made = adapt(from_dict(AdaptRecipe, table), tmp_path / "out", say=said.append)
    facts = json.loads((made.path / "curve.json").read_text())
    result = json.loads((made.path / "result.json").read_text())
    assert [mean["examples"] for mean in facts["means"]] == [8, 16, 64]
    assert (facts["measured_on"], facts["valid_examples"]) == ("valid", 40)
    whole = [point for point in facts["points"] if point["examples"] == 64]
    assert whole[0]["figures"] == result["seeds"][0]["valid"]
    assert sum(line.startswith(("8 ", "16 ", "64 ")) for line in said) == 6
    assert "curve.json" in made.manifest.files


@pytest.mark.shared_data
def test_sizes_are_looked_at_before_anything_is_trained(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]]
) -> None:
    table = recipe_table(tmp_path, base, rows, curve={"sizes": [10, 400], "unit": "examples"})
    recipe = from_dict(AdaptRecipe, table)
    assert len(prepare(recipe).train) == 160
    with pytest.raises(InputError, match="there are 160 examples"):
        adapt(recipe, tmp_path / "out")
    assert not (tmp_path / ".out.partial").exists()
