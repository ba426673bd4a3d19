"""Every recipe that the project ships is right, and every tiny one runs from text to report."""

import json

import pytest

from gristmill import plugins
from gristmill.cli import main
from gristmill.config import load, read_toml
from gristmill.pipeline import Recipe, settle
from tests.conftest import REPOSITORY

TINY = sorted((REPOSITORY / "recipes" / "tiny").glob("*.toml"))
WHOLE = sorted((REPOSITORY / "recipes").glob("*.toml"))


def test_the_tiny_recipes_hold_every_objective_and_every_family():
    recipes = [settle(load(Recipe, path)) for path in [*TINY, REPOSITORY / "recipes" / "demo.toml"]]
    objectives = {type(r.pretrain.objective).__module__.rsplit(".", 1)[-1] for r in recipes}
    assert objectives == set(plugins.names("objectives"))
    assert {r.model.family for r in recipes} == set(plugins.names("model.families"))


@pytest.mark.parametrize("path", [*TINY, *WHOLE], ids=lambda path: path.stem)
def test_the_recipe_names_itself_and_is_right(path):
    table = read_toml(path)
    if "compare" in table:
        pytest.importorskip("gristmill.compare").open_comparison(
            {**table, "compare": {**table["compare"], "pairs": []}}
        )
    else:
        assert load(Recipe, path).name == path.stem


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
