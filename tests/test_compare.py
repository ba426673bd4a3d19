"""Candidates at equal text and parameters: what is shared, what is done again, what is said of differences."""

import json

import pytest

from gristmill.compare import Comparison, compare, open_comparison, summarise
from gristmill.config import read_toml
from gristmill.errors import InputError, RunError
from gristmill.pipeline import Quiet
from tests.conftest import REPOSITORY

TINY = REPOSITORY / "recipes" / "tiny" / "compare_two.toml"


class Notes(Quiet):
    """A listener that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.slow
def test_a_comparison_runs_is_not_done_twice_and_does_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    table = read_toml(TINY)
    first = compare(table, tmp_path, Notes(), jobs=2)
    facts = json.loads((first.path / "comparison.json").read_text())
    assert [row["name"] for row in facts["rows"]] == ["causal", "masked"]
    for row in facts["rows"]:
        figures = row["figures"]
        assert abs(figures["parameters"]["mean"] - 180_000) < 0.02 * 180_000
        assert len(figures["own loss, nats per predicted token"]["values"]) == 2
        assert len(set(figures["own loss, nats per predicted token"]["values"])) == 2  # seeds differ
    assert "2 seeds each" in (first.path / "comparison.html").read_text()

    notes = Notes()
    again = compare(table, tmp_path, notes, jobs=2)
    assert again.manifest.content_hash == first.manifest.content_hash
    assert notes.said == ["4 of 4 are there already"]

    notes = Notes()
    table["compare"]["seeds"] = 3
    more = compare(table, tmp_path, notes, jobs=1)  # another number of jobs changes nothing that is done
    assert notes.said[0] == "4 of 6 are there already"
    assert len(notes.said) == 3
    wider = json.loads((more.path / "comparison.json").read_text())
    losses = "own loss, nats per predicted token"
    for old, new in zip(facts["rows"], wider["rows"], strict=True):
        assert new["figures"][losses]["values"][:2] == old["figures"][losses]["values"]


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    table = read_toml(TINY)
    table["compare"]["seeds"] = 1
    diverging = {"optimizer": {"name": "adamw", "learning_rate": 1e30}}
    table["compare"]["candidates"] = {"fine": {}, "broken": {"pretrain": diverging}}
    with pytest.raises(RunError) as raised:
        compare(table, tmp_path, Notes(), jobs=2)
    assert "1 of 2 failed. broken, seed 0: the" in raised.value.message
    assert (tmp_path / "cells" / "fine" / "seed-0" / "measurement" / "manifest.json").is_file()
    assert (tmp_path / "cells" / "broken" / "seed-0" / "error.txt").is_file()


def test_bad_comparisons_are_refused_before_any_work(tmp_path):
    table = read_toml(TINY)
    with pytest.raises(InputError, match=r"no \[compare\] table"):
        open_comparison({"name": "x", "corpus": {"sources": ["a"]}})
    wrong = {**table, "compare": {"candidates": {"a": {"pretrain": {"objectiv": "causal"}}}}}
    with pytest.raises(InputError, match=r'candidate a: unknown key "pretrain.objectiv"'):
        open_comparison(wrong)
    wrong = {**table, "compare": {"candidates": {"a": {}}, "reference": "b"}}
    with pytest.raises(InputError, match='there is no candidate "b"'):
        open_comparison(wrong)
    mismatch = {"a": {"pretrain": {"objective": "spans"}, "model": {"family": "llama"}}}
    with pytest.raises(InputError, match='candidate a: objective "spans" needs an encoder-decoder'):
        compare({**table, "compare": {"candidates": mismatch}}, tmp_path, Quiet())
    assert not list(tmp_path.iterdir())


def test_all_candidates_share_a_tokenizer_with_the_sentinels_that_one_of_them_needs():
    table = read_toml(TINY)
    table["compare"]["candidates"] = {"causal": {}, "spans": {"pretrain": {"objective": "spans"}}}
    _, _, recipes = open_comparison(table)
    assert {recipe.tokenizer.sentinels for recipe in recipes.values()} == {100}
    assert [recipe.model.family for recipe in recipes.values()] == ["qwen3", "t5"]


def measured(value: float) -> dict:
    return {
        "pairs": {"suite": {"accuracy": value}}, "probe": None, "curve": [], "parameters": 10, "tokens": 100,
        "flops": 1e9, "training_seconds": 1.0, "memory_peak_bytes": 5,
        "validation": {"nats_per_token": 2.0, "bits_per_byte": 1.0},
    }  # fmt: skip


def test_differences_are_to_the_reference_and_noise_is_called_noise():
    comparison = Comparison(candidates={"a": {}, "b": {}, "c": {}}, seeds=3)
    values = {"a": (0.60, 0.61, 0.62), "b": (0.61, 0.60, 0.63), "c": (0.80, 0.81, 0.82)}
    cells = {(name, seed): measured(v) for name, each in values.items() for seed, v in enumerate(each)}
    facts = summarise("x", comparison, cells, {})
    figures = {row["name"]: row["figures"]["pairs suite"] for row in facts["rows"]}
    assert "difference" not in figures["a"]
    assert figures["b"]["difference"]["within_noise"]
    assert not figures["c"]["difference"]["within_noise"]
    assert figures["c"]["difference"]["mean"] == pytest.approx(0.2)
