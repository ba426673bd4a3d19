"""A search finds better settings, goes on where it was killed, and knows nothing of the test examples."""

import dataclasses
import json
import math
import os
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.adapt.intents import make_base, read_intents, recipe_table, write_rows

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.searching import Dimension, SearchSettings, TrialRun, applied, dimensions, search
from gristmill.config import from_dict
from gristmill.errors import InputError, RunError

pytest.importorskip("optuna")

SPACE: dict[str, Any] = {
    "tune": {
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "batch_examples": {"choices": [8, 16, 32]},
        "epochs": {"low": 2, "high": 6, "step": 2},
    }
}


@dataclasses.dataclass
class Nearer:
    """Stands for a training of four epochs that is the better the nearer its learning rate is to 0.001."""

    ends_at: tuple[int, int] | None = None
    """The trial and epoch in which it is killed."""
    runs: int = 0

    def __call__(
        self, values: Mapping[str, Any], directory: Path, report: Callable[[int, float], None]
    ) -> float:
        self.runs += 1
        directory.mkdir(parents=True, exist_ok=True)
        best = 1 - abs(math.log10(values["tune.learning_rate"]) + 3) / 5
        for epoch in range(4):
            if self.ends_at == (self.runs - 1, epoch):
                raise KeyboardInterrupt
            report(epoch, best * (epoch + 1) / 4)
        return best


class Dying(Nearer):
    """Its process ends."""

    def __call__(
        self, values: Mapping[str, Any], directory: Path, report: Callable[[int, float], None]
    ) -> float:
        os._exit(9)


class Undefined(Nearer):
    """Ends with no number."""

    def __call__(
        self, values: Mapping[str, Any], directory: Path, report: Callable[[int, float], None]
    ) -> float:
        return math.nan if values["tune.epochs"] == 2 else super().__call__(values, directory, report)


class Diverging(Nearer):
    """Loses its way where the learning rate is high."""

    def __call__(
        self, values: Mapping[str, Any], directory: Path, report: Callable[[int, float], None]
    ) -> float:
        if values["tune.learning_rate"] > 1e-4:
            raise RunError("the loss is nan")
        return super().__call__(values, directory, report)


def found(
    folder: Path, run: TrialRun | None = None, name: str = "it", seed: int = 0, **settings: Any
) -> dict[str, Any]:
    chosen = SearchSettings(**{"space": SPACE, "trials": 8, **settings})
    facts = search(chosen, run or Nearer(), name=name, seed=seed, directory=folder, say=lambda message: None)
    for trial in facts["trials"]:
        del trial["elapsed_seconds"]
    return facts


def test_the_best_of_all_trials_is_told_and_none_leaves_files(tmp_path: Path) -> None:
    facts = found(tmp_path)
    assert [trial["number"] for trial in facts["trials"]] == list(range(8))
    scores = {trial["number"]: trial["score"] for trial in facts["trials"] if trial["state"] == "finished"}
    assert facts["best"]["score"] == max(scores.values()) == scores[facts["best"]["number"]]
    assert facts["best"]["values"] == facts["trials"][facts["best"]["number"]]["values"]
    assert abs(math.log10(facts["best"]["values"]["tune.learning_rate"]) + 3) < 1
    assert {trial["values"]["tune.epochs"] for trial in facts["trials"]} <= {2, 4, 6}
    assert {trial["values"]["tune.batch_examples"] for trial in facts["trials"]} <= {8, 16, 32}
    assert [path.name for path in tmp_path.iterdir()] == ["trials.db"]


def test_what_is_worse_than_the_median_is_given_up(tmp_path: Path) -> None:
    facts = found(tmp_path / "a")
    given_up = [trial for trial in facts["trials"] if trial["state"] == "given up"]
    assert given_up
    assert all(len(trial["epochs"]) < 4 for trial in given_up)
    assert all(trial["state"] == "finished" for trial in found(tmp_path / "b", pruning="none")["trials"])


def test_what_mattered_is_told(tmp_path: Path) -> None:
    importance = found(tmp_path, pruning="none")["importance"]
    assert max(importance, key=importance.__getitem__) == "tune.learning_rate"
    assert found(tmp_path / "few", trials=3)["importance"] is None


@pytest.mark.parametrize("ends_at", [(0, 0), (3, 2), (7, 1)])
def test_a_killed_search_goes_on_with_the_same_trials(tmp_path: Path, ends_at: tuple[int, int]) -> None:
    whole = found(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path / "killed", Nearer(ends_at))
    rest = Nearer()
    assert found(tmp_path / "killed", rest) == whole
    assert rest.runs == 8 - ends_at[0]


def test_one_that_was_killed_while_values_were_drawn_draws_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found(tmp_path / "whole")
    suggested, drawn = Dimension.suggested, 0

    def killed(self: Dimension, trial: Any, name: str) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 3 * len(dimensions(SPACE)):
            raise KeyboardInterrupt
        return suggested(self, trial, name)

    monkeypatch.setattr(Dimension, "suggested", killed)
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path / "killed")
    monkeypatch.undo()
    facts = found(tmp_path / "killed")
    assert [each["values"] for each in facts["trials"]] == [each["values"] for each in whole["trials"]]
    assert facts["best"]["values"] == whole["best"]["values"]


def test_another_seed_tries_other_values(tmp_path: Path) -> None:
    one, other = found(tmp_path / "a", trials=3), found(tmp_path / "b", trials=3, seed=1)
    assert [each["values"] for each in one["trials"]] != [each["values"] for each in other["trials"]]


def test_two_workers_do_as_many_trials(tmp_path: Path) -> None:
    facts = found(tmp_path, workers=2)
    assert len(facts["trials"]) == 8
    assert {trial["state"] for trial in facts["trials"]} <= {"finished", "given up"}
    values = {json.dumps(trial["values"]) for trial in facts["trials"]}
    assert len(values) == 8


def test_a_worker_that_is_killed_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the process of trial 1 was killed"):
        found(tmp_path, Dying(), workers=2, trials=1)


def test_machines_share_a_database_and_more_trials_are_added(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    with pytest.raises(KeyboardInterrupt):  # one that stops for good: its trial is not touched by others
        found(tmp_path / "a", Nearer((4, 1)), storage=storage)
    other = Nearer()
    facts = found(tmp_path / "b", other, storage=storage)
    assert other.runs == 3
    assert [trial["state"] for trial in facts["trials"]].index("elsewhere") == 4
    assert len(found(tmp_path / "a", storage=storage)["trials"]) == 8
    more = Nearer()
    assert len(found(tmp_path / "c", more, storage=storage, trials=10)["trials"]) == 10
    assert more.runs == 2
    assert len(found(tmp_path / "c", name="another", storage=storage, trials=2)["trials"]) == 2


def test_training_that_diverges_is_a_trial_of_no_worth(tmp_path: Path) -> None:
    facts = found(tmp_path, Diverging())
    states = {trial["state"] for trial in facts["trials"]}
    assert "diverged" in states
    assert facts["best"]["values"]["tune.learning_rate"] < 1e-4
    too_high = {"tune": {"learning_rate": {"low": 0.1, "high": 1.0}}}
    with pytest.raises(RunError, match="none of 2 trials has finished: the loss is nan"):
        found(tmp_path, Diverging(), name="high", space=too_high, trials=2)


def test_a_score_that_is_no_number_is_a_trial_of_no_worth(tmp_path: Path) -> None:
    trials = found(tmp_path, Undefined())["trials"]
    assert {trial["state"] for trial in trials if trial["values"]["tune.epochs"] == 2} == {"diverged"}


def test_values_are_put_into_tables() -> None:
    table = {"tune": {"way": "lora", "epochs": 2}, "task": "tagging"}
    values = {"tune.way.rank": 8, "tune.epochs": 4, "maximum_tokens": 64}
    assert applied(table, values) == {
        "tune": {"way": {"name": "lora", "rank": 8}, "epochs": 4},
        "task": "tagging",
        "maximum_tokens": 64,
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "search.space is empty"),
        ({"tune.epochs": 3}, "tune.epochs is 3, but it is a table"),
        ({"tune": {"epochs": {"low": 3}}}, "low and high are missing"),
        ({"tune": {"epochs": {"low": 3, "high": 3}}}, "low = 3 is not below high = 3"),
        ({"tune": {"learning_rate": {"low": 0, "high": 1.0, "log": True}}}, "low = 0 has no logarithm"),
        ({"tune": {"dropout": {"low": 0.1, "high": 0.3, "step": 0}}}, "step = 0 leads nowhere"),
        ({"tune": {"dropout": {"low": 0.1, "high": 0.3, "step": 0.1, "log": True}}}, "exclude each other"),
        ({"tune": {"epochs": {"choices": []}}}, "there are no choices"),
        ({"tune": {"epochs": {"choices": [1], "low": 1}}}, "choices stand alone"),
        ({"tune": {"epochs": {"low": 1, "hihg": 2}}}, 'unknown key "search.space: tune.epochs.hihg"'),
        (
            {"tune": {"way": {"choices": ["lora"]}}, "tune.way.rank": {"low": 1, "high": 8}},
            "tune.way.rank, which is inside it",
        ),
    ],
)
def test_a_space_that_can_not_be_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        from_dict(SearchSettings, {"space": space}, "search")
    assert message in error.value.message
    assert error.value.hint


def test_no_trials_are_refused() -> None:
    with pytest.raises(InputError, match=r'"search.trials" is 0'):
        from_dict(SearchSettings, {"space": SPACE, "trials": 0}, "search")


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("trials.db", "search.storage is no URL of a database"),
        ("nothing://me:secret@host/db", "no driver for this kind of database"),
        ("sqlite:////nowhere/at/all.db", "can't be opened: unable to open database file"),
    ],
)
def test_a_database_that_is_not_there_is_named_without_its_password(
    tmp_path: Path, storage: str, message: str
) -> None:
    with pytest.raises(InputError) as error:
        found(tmp_path, storage=storage)
    assert message in error.value.message
    assert "secret" not in str(error.value)


def test_without_optuna_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match="needs optuna") as error:
        found(tmp_path)
    assert "gristmill[search]" in str(error.value.hint)


# --- with a recipe ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    return read_intents(shared_data)


@pytest.fixture(scope="module")
def base(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base([row["text"] for row in rows], tmp_path_factory.mktemp("base"))


def searching(folder: Path, base: Path, rows: list[dict[str, Any]], **space: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    settings = {"trials": 3, "space": space or {"tune": {"learning_rate": {"choices": [1e-6, 3e-3]}}}}
    table = recipe_table(folder, base, rows, train_rows=64, search=settings)
    table["tune"] |= {"epochs": 1, "batch_examples": 4, "learning_rate": 1e-4}
    return table


@pytest.mark.shared_data
def test_the_best_settings_are_used_and_the_test_examples_change_nothing(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]]
) -> None:
    curve = {"sizes": [0.5, 1.0], "seeds": 1}
    table = searching(tmp_path / "a", base, rows) | {"curve": curve}
    made = adapt(from_dict(AdaptRecipe, table), tmp_path / "a" / "out")
    facts = json.loads((made.path / "result.json").read_text())
    trials = json.loads((made.path / "search.json").read_text())
    best = max(trials["trials"], key=lambda trial: (trial["score"], -trial["number"]))
    assert trials["best"] == {name: best[name] for name in ("number", "values", "score")}
    assert facts["settings"]["tune"]["learning_rate"] == best["values"]["tune.learning_rate"]
    assert made.manifest.config["tune"]["learning_rate"] == 1e-4
    assert trials["figure"] == "accuracy"

    wrong = searching(tmp_path / "b", base, rows) | {"curve": curve}
    labels = [row["label"] for row in rows[104:144]]
    random.Random(0).shuffle(labels)
    shuffled = [row | {"label": label} for row, label in zip(rows[104:144], labels, strict=True)]
    write_rows(tmp_path / "b" / "test.jsonl", shuffled)
    other = adapt(from_dict(AdaptRecipe, wrong), tmp_path / "b" / "out")
    again = json.loads((other.path / "search.json").read_text())
    for trial in [*trials["trials"], *again["trials"]]:
        del trial["elapsed_seconds"]
    assert again == trials
    assert (other.path / "curve.json").read_bytes() == (made.path / "curve.json").read_bytes()
    assert (other.path / "model.safetensors").read_bytes() == (made.path / "model.safetensors").read_bytes()
    assert (other.path / "mistakes.jsonl").read_bytes() != (made.path / "mistakes.jsonl").read_bytes()


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("space", "message", "hint"),
    [
        (
            {"tune": {"lerning_rate": {"low": 1e-5, "high": 1e-3}}},
            'unknown key "tune.lerning_rate"',
            'did you mean "learning_rate"',
        ),
        ({"tune": {"epochs": {"low": 0.5, "high": 2.5}}}, '"tune.epochs" is 0.5', ""),
        ({"tune": {"dropout": {"low": 0.0, "high": 1.5}}}, '"tune.dropout" is 1.5', ""),
        ({"data": {"per_class": {"low": 1, "high": 5}}}, "data.per_class can't be searched", "tune and task"),
        ({"seed": {"low": 1, "high": 5}}, "seed can't be searched", "tune and task"),
        ({"task": {"label": {"choices": ["label", "domain"]}}}, "there are other examples", "leave it out"),
    ],
)
def test_what_can_not_be_searched_is_said_before_anything_is_trained(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]], space: dict[str, Any], message: str, hint: str
) -> None:
    table = searching(tmp_path, base, rows, **space)
    with pytest.raises(InputError) as error:
        adapt(from_dict(AdaptRecipe, table), tmp_path / "out")
    assert message in error.value.message
    assert hint in str(error.value.hint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl", "valid.jsonl"]


@pytest.mark.shared_data
def test_values_that_do_not_fit_each_other_are_named(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]]
) -> None:
    table = searching(tmp_path, base, rows, maximum_tokens={"low": 300, "high": 400})
    with pytest.raises(InputError, match="with maximum_tokens = 3"):
        adapt(from_dict(AdaptRecipe, table), tmp_path / "out")


@pytest.mark.shared_data
def test_the_database_and_the_workers_may_change_before_it_goes_on(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]]
) -> None:
    table = searching(tmp_path, base, rows)
    made = adapt(from_dict(AdaptRecipe, table), tmp_path / "out")
    table["search"] |= {"workers": 7, "storage": "postgresql://me:secret@host/db"}
    again = adapt(from_dict(AdaptRecipe, table), tmp_path / "out")
    assert again.manifest == made.manifest
    assert set(made.manifest.config["search"]) == {"space", "trials", "pruning"}


@pytest.mark.shared_data
def test_the_same_examples_elsewhere_are_the_same_search(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]]
) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    trials = []
    for place in ("a", "b"):
        table = searching(tmp_path / place, base, rows)
        table["search"] |= {"storage": storage, "trials": 2}
        said: list[str] = []
        adapt(from_dict(AdaptRecipe, table), tmp_path / place / "out", say=said.append)
        trials.append(sum(line.startswith("trial ") for line in said))
    assert trials == [2, 0]
