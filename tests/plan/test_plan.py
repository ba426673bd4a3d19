"""Plans and mixes from recipe to figures: what small runs there are, what they may cost, what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import REPOSITORY

from gristmill.config import from_dict, read_toml
from gristmill.errors import InputError
from gristmill.model.config import ModelSettings
from gristmill.pipeline import Quiet, Recipe
from gristmill.plan import plan
from gristmill.plan.mixing import search_mix
from gristmill.plan.pilots import LEAST_STEPS, resized, shrunk


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(REPOSITORY)
    return dict(read_toml(REPOSITORY / "recipes" / "tiny" / "plan.toml"))


def test_another_depth_keeps_the_shape() -> None:
    given = ModelSettings(depth=4, width=192)
    assert resized(given, 2) == dataclasses.replace(given, depth=2, width=96)
    assert resized(ModelSettings(depth=4), 8) == ModelSettings(depth=8)
    assert resized(ModelSettings(depth=2, encoder_depth=4), 1).encoder_depth == 2


def test_a_pilot_has_two_layers_at_least_where_the_model_has() -> None:
    assert shrunk(ModelSettings(depth=12), 1 / 3) == ModelSettings(depth=4, width=256)
    assert shrunk(ModelSettings(depth=3, width=192), 1 / 3) == ModelSettings(depth=2, width=64)
    assert shrunk(ModelSettings(depth=1, width=192), 1 / 3) == ModelSettings(depth=1, width=64)
    assert shrunk(ModelSettings(depth=3, encoder_depth=6, width=192), 2 / 3).encoder_depth == 4


@pytest.mark.slow
def test_a_plan_says_what_the_run_then_shows(table: dict[str, Any], tmp_path: Path) -> None:
    facts = plan(table, tmp_path, Quiet(), jobs=2)
    assert facts["best"] in {option["depth"] for option in facts["options"]}
    own = next(option for option in facts["options"] if option["depth"] == facts["depth"])
    assert own["tokens"] == 80_384  # 157 steps of 512
    for option in facts["options"]:  # the same operations, to a step
        assert option["loss"] > 0
        assert option["seconds"] > 0
    assert len(facts["pilots"]) == 4  # the run itself is no longer than they are
    assert {(pilot["depth"], pilot["width"]) for pilot in facts["pilots"]} == {(2, 32), (2, 96)}
    assert min(pilot["tokens"] for pilot in facts["pilots"]) >= LEAST_STEPS * 512
    for pilot in facts["pilots"]:
        assert pilot["expected"] == pytest.approx(pilot["loss"], rel=0.05)
    assert facts["regularisation"] is None  # the text is not repeated
    assert plan(table, tmp_path, Quiet(), jobs=2)["options"] == facts["options"]  # nothing is done again


@pytest.mark.slow
def test_where_the_text_is_repeated_pilots_repeat_it_and_say_whether_noise_helps(
    table: dict[str, Any], tmp_path: Path
) -> None:
    table["pretrain"] = table["pretrain"] | {"budget": "8 epochs"}
    table["corpus"] = table["corpus"] | {"fraction": 0.5}
    facts = plan(table | {"plan": {"sizes": [1.0]}}, tmp_path, Quiet(), jobs=2)
    once, again = facts["pilots"][:4], facts["pilots"][4:]
    assert all(pilot["fraction"] == 1 and not pilot["regularised"] for pilot in once)
    assert [pilot["width"] for pilot in again] == [32, 96, 96]
    assert [pilot["regularised"] for pilot in again] == [False, False, True]
    for pilot in again:  # as many epochs of a part as the run makes of all, as near as whole documents allow
        epochs = pilot["tokens"] / pilot["unique_tokens"]
        assert epochs == pytest.approx(facts["options"][0]["epochs"], rel=0.3)
    assert facts["regularisation"]["loss"] == again[2]["loss"]
    assert facts["regularisation"]["without"] == again[1]["loss"]
    assert facts["law"]["exponents"]["overfitting"] > 0


def test_what_can_not_be_planned(table: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="generator"):
        plan(
            table | {"pretrain": table["pretrain"] | {"objective": "detect"}, "model": {"depth": 2}},
            tmp_path,
            Quiet(),
        )
    with pytest.raises(InputError, match="share"):
        plan(table | {"plan": {"share": 2.0}}, tmp_path, Quiet())
    with pytest.raises(InputError, match="wall time"):
        search_mix(
            table | {"pretrain": table["pretrain"] | {"budget": "10 s"}} | {"corpus": sources()},
            tmp_path,
            Quiet(),
        )
    with pytest.raises(InputError, match="one group"):
        search_mix(table, tmp_path, Quiet())


def sources() -> dict[str, Any]:
    return {
        "sources": {"bible": ["recipes/texts/king-james.txt"], "poems": ["recipes/texts/*.jsonl"]},
        "document_separator": "%",
    }


@pytest.mark.slow
def test_a_mix_is_searched_within_its_share(table: dict[str, Any], tmp_path: Path) -> None:
    table["corpus"] = sources() | {"valid_fraction": 0.1}
    table["pretrain"] = table["pretrain"] | {"budget": "300k tokens"}
    with pytest.raises(InputError, match="pays for"):
        search_mix(table | {"mix_search": {"share": 0.01}}, tmp_path, Quiet())
    with pytest.raises(InputError, match='no group "book"'):
        search_mix(table | {"mix_search": {"target": "book"}}, tmp_path, Quiet())
    search = {"share": 0.5, "runs": 4, "seeds": 1, "target": "bible"}
    facts = search_mix(table | {"mix_search": search}, tmp_path, Quiet(), jobs=2)
    assert facts["share_of_flops"] <= 0.5
    assert sum(facts["weights"]) == pytest.approx(1.0, abs=1e-3)
    assert len(facts["runs"]) == 4
    assert facts["difference"]["interval"] is None  # one seed
    recipe = from_dict(
        Recipe,
        table
        | {
            "pretrain": table["pretrain"]
            | {"mix": {"weights": dict(zip(facts["groups"], facts["weights"], strict=True))}}
        },
    )
    assert recipe.pretrain.mix is not None  # what is printed is a mix
