"""A trial: what is compared with what, that it is the same held-out text, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.artifact import open_artifact
from gristmill.compare.trial import Trial, trial, worth
from gristmill.config import from_dict, read_toml
from gristmill.corpus import Corpus
from gristmill.errors import InputError
from gristmill.pipeline import Quiet
from gristmill.report.trial import render_trial, summary
from tests.conftest import REPOSITORY

TINY = REPOSITORY / "recipes" / "tiny" / "trial.toml"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(REPOSITORY)
    return dict(read_toml(TINY))


@pytest.mark.slow
def test_a_trial_runs_and_all_are_measured_on_text_that_none_has_learned_from(
    table: dict[str, Any], tmp_path: Path
) -> None:
    table["trial"] = table["trial"] | {"curve": [1.0, 2.0]}
    made = trial(table, tmp_path, Quiet(), jobs=2)
    facts = json.loads((made.path / "trial.json").read_text())
    assert [point["amount"] for point in facts["curve"]] == [1.0, 2.0]
    assert [step["name"] for step in facts["steps"]] == ["rules", "noise"]
    once, twice = (point["unique_tokens"] for point in facts["curve"])
    assert twice == pytest.approx(2 * once, rel=0.1)
    assert all(len(step["multiplier"]["values"]) == 2 for step in facts["steps"])
    # a step that changes nothing in the text has the text as it is
    assert facts["steps"][1]["unique_tokens"] == once
    held = set(Corpus(open_artifact(tmp_path / "held_out" / "corpus")).texts("valid"))
    assert held
    shared = [path for path in (tmp_path / "shared").iterdir() if (path / "corpus").is_dir()]
    assert len(shared) == 3  # all of it; half of it, as it is and with noise; half of it with rules
    for path in shared:
        corpus = Corpus(open_artifact(path / "corpus"))
        assert set(corpus.texts("valid")) == held
        assert not set(corpus.texts("train")) & held
    assert len(list((tmp_path / "shared").glob("*/tokenizer"))) == 1
    assert "What each step is worth" in (made.path / "trial.html").read_text()
    again = trial(table, tmp_path, Quiet(), jobs=2)
    assert again.manifest.content_hash == made.manifest.content_hash


def test_what_a_trial_refuses(table: dict[str, Any], tmp_path: Path) -> None:
    def refused(match: str, **changes: Any) -> None:
        changed = table | {"trial": table["trial"] | changes}
        with pytest.raises(InputError, match=match):
            trial(changed, tmp_path, Quiet())

    refused("nothing to try", steps={})
    refused("no table", steps={"rules": 3})
    refused("changes tokenizer", steps={"small": {"tokenizer": {"vocab_size": 600}}})
    refused("row_tokens", steps={"long": {"pretrain": {"row_tokens": 128}}})
    refused("objective", steps={"other": {"pretrain": {"objective": "prefix"}}})
    refused("what a trial sets", steps={"less": {"corpus": {"fraction": 0.5}}})
    refused("step typo", steps={"typo": {"corpus": {"rulez": {}}}})
    refused("so is what they are compared with", steps={"as it is": {}})
    refused("no more than all", text=0.9)
    refused("holds 1", curve=[0.5, 2.0])
    refused("generator", proxy={"pretrain": {"objective": "detect"}})
    with pytest.raises(InputError, match="no \\[trial\\] table"):
        trial({key: value for key, value in table.items() if key != "trial"}, tmp_path, Quiet())
    assert not list(tmp_path.iterdir())


def figure(values: list[float]) -> dict[str, Any]:
    mean = sum(values) / len(values)
    return {"mean": mean, "interval": [mean - 0.01, mean + 0.01], "values": values}


def facts_of(losses: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "equal": "tokens",
        "machine": None,
        "rows": [
            {
                "name": name,
                "figures": {
                    "own loss, nats per predicted token": figure(values),
                    "unique tokens": figure([1000.0]),
                    "tokens": figure([4000.0]),
                    "CPU seconds": figure([2.0]),
                },
            }
            for name, values in losses.items()
        ],
    }


def test_what_a_step_is_worth_and_how_it_is_said() -> None:
    settings = from_dict(
        Trial,
        {
            "steps": {"good": {"a": 1}, "great <b>": {"a": 2}, "bad": {"a": 3}},
            "curve": [0.5, 1.0, 2.0],
            "seeds": 2,
        },
    )
    losses = {"x 0.5": [4.2, 4.0], "as it is": [4.0, 3.8], "x 2": [3.8, 3.6]}
    facts = worth(
        "mine", settings, facts_of(losses | {"good": [3.9, 3.7], "great <b>": [3.0, 3.1], "bad": [4.5, 4.4]})
    )
    by = {step["name"]: step["multiplier"] for step in facts["steps"]}
    assert by["good"]["mean"] == pytest.approx(2**0.5)
    heads, rows = summary(facts)
    assert [row[0] for row in rows] == ["great <b>", "good", "bad"]
    assert [row[1].split()[0] for row in rows] == ["over", "1.41", "under"]
    assert heads[1] == "worth text times"
    page = render_trial(facts)
    assert "great &lt;b&gt;" in page
    assert "great <b>" not in page
