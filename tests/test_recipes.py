"""Every recipe that the project ships is right, and every tiny one runs from text to report."""

import json

import pytest

from gristmill import plugins
from gristmill.adapt.adapting import AdaptRecipe
from gristmill.cli import main
from gristmill.compare import open_comparison
from gristmill.compare.trial import Trial
from gristmill.config import from_dict, load, read_toml
from gristmill.pipeline import Recipe, settle
from tests.conftest import REPOSITORY

EVERY = sorted((REPOSITORY / "recipes").glob("**/*.toml"))
ADAPTING = [path for path in EVERY if path.parent.name == "adapt"]
COMPARING = [path for path in EVERY if "compare" in read_toml(path)]
TRYING = [path for path in EVERY if "trial" in read_toml(path)]
ADAPTING = [path for path in EVERY if "task" in read_toml(path)]
TINY = [path for path in EVERY if path.parent.name == "tiny" and path not in (*COMPARING, *TRYING)]


def test_the_tiny_recipes_hold_every_objective_and_every_family():
    recipes = [settle(load(Recipe, path)) for path in [*TINY, REPOSITORY / "recipes" / "demo.toml"]]
    objectives = {type(r.pretrain.objective).__module__.rsplit(".", 1)[-1] for r in recipes}
    assert objectives == set(plugins.names("objectives"))
    assert {r.model.family for r in recipes} == set(plugins.names("model.families"))


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_the_recipe_names_itself_and_is_right(path):
    if path in ADAPTING:
        assert load(AdaptRecipe, path).name == path.stem
        return
    if path in TRYING:  # tests/test_trial.py runs it
        table = read_toml(path)
        from_dict(Trial, table.pop("trial"), "trial")
        assert from_dict(Recipe, table).name == path.stem
        return
    if path in ADAPTING:
        assert load(AdaptRecipe, path).name == path.stem
        return
    if path not in COMPARING:
        assert load(Recipe, path).name == path.stem
        return
    table = read_toml(path)
    table["compare"].pop("pairs", None)  # folders that are not on every machine
    table["compare"].pop("probe", None)
    recipe, comparison, candidates = open_comparison(table)
    assert recipe.name == path.stem
    assert set(candidates) == set(comparison.candidates)


def test_the_comparison_of_objectives_holds_every_objective():
    table = read_toml(REPOSITORY / "recipes" / "compare_objectives.toml")
    table["compare"].pop("pairs")
    table["compare"].pop("probe")
    _, _, candidates = open_comparison(table)
    found = {type(r.pretrain.objective).__module__.rsplit(".", 1)[-1] for r in candidates.values()}
    assert found == set(plugins.names("objectives"))


@pytest.mark.slow
@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_the_tiny_recipe_runs_from_text_to_report(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(path), "--out", str(tmp_path / "run"), "--json"])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    result = json.loads(printed.out)
    overall = result["evaluation"]["overall"]
    assert overall["tokens"] > 100
    assert 0 < overall["nats_per_token"] < 8
    assert (tmp_path / "run" / "report" / "report.html").stat().st_size > 10_000
