"""Candidates at equal text and parameters: what is shared, what is done again, what is said of differences."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gristmill import compare as comparing
from gristmill.artifact import Artifact, exclusive, open_artifact
from gristmill.cli.compare_ import _table
from gristmill.compare import (
    Comparison,
    compare,
    fit_parameters,
    held_out_texts,
    open_comparison,
    summarise,
)
from gristmill.config import read_toml
from gristmill.corpus.shards import Shards
from gristmill.errors import InputError, RunError
from gristmill.model.build import make_model
from gristmill.model.config import ModelConfig
from gristmill.pipeline import Quiet, Recipe, config_of
from gristmill.report.comparison import explanation, mark, render_comparison, summary, verdict
from gristmill.tokenizer import Tokenizer
from gristmill.train.loader import Cursor, Loader
from gristmill.train.settings import resolve_batch
from tests.conftest import REPOSITORY

TINY = REPOSITORY / "recipes" / "tiny" / "compare_two.toml"
PAIRS = [
    {"good": "And he went up.", "bad": "And he go up.", "uid": "tense"},
    {"good": "They went out.", "bad": "They goes out.", "uid": "agreement"},
]
LABELLED = [{"text": f"{word} of the king", "label": word} for word in ("house", "son") for _ in range(3)]


class Notes(Quiet):
    """A listener that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.made: list[str] = []

    def done(self, name: str, artifact: Artifact, *, again: bool) -> None:
        self.made.append(name)

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
        assert min(figures["CPU seconds"]["values"]) > 0
        assert len(set(figures["own loss, nats per predicted token"]["values"])) == 2  # seeds differ
    assert facts["conditions"]["jobs"] == [2]
    assert len(facts["conditions"]["precision"]) == 1  # decided once, for all
    assert "2 seeds each" in (first.path / "comparison.html").read_text()

    notes = Notes()
    again = compare(table, tmp_path, notes, jobs=2)
    assert again.manifest.content_hash == first.manifest.content_hash
    assert notes.said == ["4 of 4 are there already"]
    # each once, but shards of two kinds: for an encoder and for a decoder
    assert notes.made == ["corpus", "tokenizer", "shards", "shards"]

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


@pytest.mark.slow
def test_with_equal_flops_what_costs_less_sees_more_text_and_every_way_has_a_column(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    table = read_toml(TINY)
    table["pretrain"] |= {"budget": "40k tokens", "batch_tokens": 512}
    table["compare"] |= {
        "seeds": 1, "equal": "flops", "pairs": [str(write_pairs(tmp_path))], "probe": write_probe(tmp_path),
        "candidates": {name: {"pretrain": {"objective": name}} for name in ("causal", "masked", "detect")},
    }  # fmt: skip
    artifact = compare(table, tmp_path / "out", Quiet(), jobs=2)
    facts = json.loads((artifact.path / "comparison.json").read_text())
    figures = {row["name"]: row["figures"] for row in facts["rows"]}
    operations = {name: each["operations"]["mean"] for name, each in figures.items()}
    assert operations["masked"] == pytest.approx(operations["causal"], rel=0.02)
    assert operations["detect"] == pytest.approx(operations["causal"], rel=0.02)
    # a masked model scores 15 % of what it reads, a detector's generator comes on top
    assert figures["masked"]["tokens"]["mean"] > figures["causal"]["tokens"]["mean"]
    assert figures["detect"]["tokens"]["mean"] < figures["masked"]["tokens"]["mean"]
    columns = {name: [column for column in each if "own" not in column] for name, each in figures.items()}
    assert columns["causal"][:3] == [
        "pairs pairs, left to right", "probe accuracy", "held-out bits per byte, left to right",
    ]  # fmt: skip
    assert columns["masked"][:3] == [
        "pairs pairs, filling in", "probe accuracy", "held-out bits per byte, filling in"
    ]  # fmt: skip
    assert columns["detect"][:4] == [
        "pairs pairs, filling in", "pairs pairs, told from replaced", "probe accuracy",
        "held-out bits per byte, filling in",
    ]  # fmt: skip
    assert "at equal FLOPs" in (artifact.path / "comparison.html").read_text()


@pytest.mark.slow
def test_a_comparison_that_is_killed_takes_its_runs_with_it_and_goes_on_where_it_stopped(tmp_path):
    changes = [
        "compare.seeds=1", "compare.candidates={causal={}}", "pretrain.budget=120 steps",
        "pretrain.checkpoint_seconds=0.2",
    ]  # fmt: skip
    command = [sys.executable, "-c", "from gristmill.cli import main; main()", "compare", str(TINY)]
    command += ["--out", str(tmp_path), *[f"--set={change}" for change in changes]]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    cell = tmp_path / "cells" / "causal" / "seed-0"
    checkpoints = cell / ".model.partial" / ".work" / "checkpoints"
    try:
        wait_for(lambda: any(checkpoints.glob("step-*")))  # a whole one: others begin with a dot
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: free(cell))  # the lock goes with the process that trained
    assert not (cell / "model").exists()
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert open_artifact(cell / "model").manifest.metrics["resumed"] == 1
    assert "causal" in ended.stdout


@pytest.mark.slow
def test_a_run_that_another_process_works_on_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    table = read_toml(TINY)
    table["compare"] |= {"seeds": 1, "candidates": {"causal": {}}}
    with exclusive(tmp_path / "cells" / "causal" / "seed-0"), pytest.raises(RunError) as raised:
        compare(table, tmp_path, Quiet(), jobs=1)
    assert f"another run (process {os.getpid()}) is working in" in raised.value.message


def wait_for(condition, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def free(directory: Path) -> bool:
    try:
        with exclusive(directory):
            return True
    except InputError:
        return False


def write_pairs(folder: Path, lines: list | None = None, name: str = "pairs") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "x.jsonl").write_text("\n".join(map(json.dumps, lines or PAIRS)))
    return folder / name


def write_probe(folder: Path, lines: list | None = None) -> dict:
    path = folder / "probe.jsonl"
    path.write_text("\n".join(map(json.dumps, lines or LABELLED)))
    return {"train": str(path), "test": str(path), "epochs": 1}


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
    wrong = {**table, "compare": {"candidates": {"a": {"seed": 7}}}}
    with pytest.raises(InputError, match='candidate a: "seed" is no setting of a candidate'):
        open_comparison(wrong)
    mismatch = {"a": {"pretrain": {"objective": "spans"}, "model": {"family": "llama"}}}
    with pytest.raises(InputError, match='candidate a: objective "spans" needs an encoder-decoder'):
        compare({**table, "compare": {"candidates": mismatch}}, tmp_path, Quiet())
    assert not list(tmp_path.iterdir())


def with_candidates(equal: str = "tokens", **candidates) -> dict:
    table = read_toml(TINY)
    table["compare"] = {"equal": equal, "candidates": candidates}
    return table


def budget(text: str, **settings) -> dict:
    return {"pretrain": {"budget": text, **settings}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (with_candidates(a=budget("3 min")), "candidate a: a budget of wall time gives each candidate what it has time"),
        (
            with_candidates(a={}, b=budget("40k tokens")),
            'compare.equal = "tokens", but a gets 20,480 tokens, and b 40,960 tokens',
        ),
        (  # as many steps, of batches that grow with the width
            with_candidates(
                a=budget("20 steps", batch_tokens=1024), b=budget("20 steps", batch_tokens=2048)
            ),
            "a gets 20,480 tokens, and b 40,960 tokens",
        ),
        (
            with_candidates(a=budget("2 epochs"), b={**budget("2 epochs"), "tokenizer": {"vocab_size": 512}}),
            "a gets 2 epochs of its own text, and b 2 epochs of its own text",
        ),
        (
            with_candidates("flops", a=budget("2 epochs"), b=budget("2 epochs")),
            'compare.equal = "flops" needs a budget in tokens, but that of a is in epochs',
        ),
        (
            with_candidates("flops", a={}, b=budget("40k tokens")),
            'candidate b: with compare.equal = "flops" its budget follows from that of a',
        ),
    ],
)  # fmt: skip
def test_budgets_that_are_not_equal_are_refused(table, message):
    with pytest.raises(InputError) as raised:
        open_comparison(table)
    assert message in raised.value.message


def test_equal_budgets_may_be_written_in_different_units():
    open_comparison(with_candidates(a=budget("20480 tokens"), b=budget("20 steps")))
    open_comparison(with_candidates(a=budget("2 epochs"), b=budget("2 epochs")))


def test_files_that_candidates_are_measured_with_are_read_before_any_work(tmp_path):
    table = with_candidates(a={})
    table["compare"]["pairs"] = [str(write_pairs(tmp_path, [{"good": "a"}], name="torn"))]
    with pytest.raises(InputError, match=r'line 1 has no two sentences "good" and "bad"'):
        open_comparison(table)
    table["compare"]["pairs"] = [str(write_pairs(tmp_path / n)) for n in ("one", "two")]
    with pytest.raises(InputError, match='two folders of minimal pairs are called "pairs"'):
        open_comparison(table)
    table["compare"]["pairs"] = []
    table["compare"]["probe"] = write_probe(tmp_path, LABELLED[:3])
    with pytest.raises(InputError, match="have the label house, so there is nothing to tell apart"):
        open_comparison(table)
    table["compare"]["probe"] = write_probe(tmp_path, [{"text": "no label"}])
    with pytest.raises(InputError, match='line 1 has no "text" with a "label"'):
        open_comparison(table)


def test_a_pair_that_is_too_long_for_a_model_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    table = read_toml(TINY)
    table["compare"]["pairs"] = [
        str(write_pairs(tmp_path, [{"good": "word " * 100, "bad": "a", "uid": "x"}]))
    ]
    with pytest.raises(
        InputError, match=r'candidate causal: "word word .* and the model handles 64 positions'
    ):
        compare(table, tmp_path / "out", Quiet(), jobs=1)
    assert not (tmp_path / "out" / "cells").exists()


def test_a_number_of_parameters_that_no_layer_can_have_is_refused():
    _, _, recipes = open_comparison(read_toml(TINY))
    with pytest.raises(InputError) as raised:
        fit_parameters(recipes["masked"], 1000, 1024, "masked")
    assert "candidate masked: the nearest to compare.parameters = 1,000 is" in raised.value.message


def test_a_measurement_is_of_the_content_of_files_not_of_their_place(tmp_path):
    first, same = write_pairs(tmp_path / "a"), write_pairs(tmp_path / "b")
    other = write_pairs(tmp_path / "c", PAIRS[:1])
    found = [
        comparing._content(Comparison(candidates={"x": {}}, pairs=(str(p),))) for p in (first, same, other)
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize(
    ("inherited", "names"), [(None, ["0", "1"]), ("4,7", ["4", "7"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_each_run_gets_one_of_the_gpus_that_the_comparison_was_given(inherited, names):
    assert comparing._gpu_names(inherited, 2) == names


def test_as_many_runs_at_a_time_as_there_is_memory_for(monkeypatch):
    _, _, recipes = open_comparison(read_toml(TINY))
    sizes = dict.fromkeys(recipes, 1024)

    def with_memory(memory: int | None) -> int:
        monkeypatch.setattr(comparing, "describe_machine", lambda: {"memory_bytes": memory, "cores": 16})
        return comparing._places(recipes, sizes)

    assert with_memory(1 << 40) == 16
    assert 1 < with_memory(8 << 30) < 16
    assert with_memory(1 << 20) == 1
    assert with_memory(None) == 16


def test_precision_is_decided_once_and_the_same_command_decides_the_same(tmp_path, monkeypatch):
    _, _, recipes = open_comparison(read_toml(TINY))
    monkeypatch.setattr(comparing, "has_bfloat16_units", lambda device: True)
    first = comparing._with_one_precision(recipes, tmp_path, Quiet())
    monkeypatch.setattr(comparing, "has_bfloat16_units", lambda device: False)
    again = comparing._with_one_precision(recipes, tmp_path, Quiet())
    assert {r.pretrain.precision for r in [*first.values(), *again.values()]} == {"bfloat16"}


def test_pieces_of_validation_text_are_the_same_for_every_tokenizer_and_whole_characters():
    texts = ["a" * 300, "天" * 200, "short"]
    assert held_out_texts(texts, 4) == ["a" * 256, "天" * 85, "short", "a" * 44]
    assert held_out_texts(texts, 100)[3:] == ["a" * 44, "天" * 84, "天" * 29]


@pytest.mark.parametrize("objective", ["causal", "masked", "permuted", "prefix"])
def test_operations_are_those_of_weights_that_are_multiplied_and_of_what_positions_see(
    objective, tmp_path, monkeypatch
):
    monkeypatch.chdir(REPOSITORY)
    table = read_toml(TINY)
    table["compare"] = {"candidates": {"a": {"pretrain": {"objective": objective}}}}
    _, _, recipes = open_comparison(table)
    recipe = recipes["a"]
    stages = comparing.shared_stages(recipe, tmp_path, {}, Quiet())
    config = config_of(recipe.model, recipe.pretrain, stages["shards"].manifest.metrics["vocab_size"])
    batch, tokens = first_batch(recipe, stages, config)
    weights = {n: p for n, p in make_model(config).named_parameters() if p.dim() == 2}
    inside = sum(p.numel() for n, p in weights.items() if n.startswith("blocks."))
    counted = int((batch.weights != 0).sum())
    scored = batch.weights.numel()
    if counted < 0.75 * scored:
        scored = min(scored, -(-counted // 256) * 256)
    head = sum(p.numel() for n, p in weights.items() if n.startswith("transform"))
    products = 6 * (inside * batch.tokens.numel() + scored * (head + config.vocab_size * config.width))
    attention = 12 * config.heads * config.head_size * config.layers * pairs_seen(batch)
    found = comparing._flops_per_token(recipe, stages)
    assert found == pytest.approx((products + attention) / tokens, rel=1e-6)


def first_batch(recipe: Recipe, stages: dict, config: ModelConfig):
    """The step that operations are counted on, in one batch."""
    rows, micro = resolve_batch(recipe.pretrain, config)
    assert rows == micro
    with Loader(
        Shards(stages["shards"]).split("train"), recipe.pretrain.objective, row_tokens=recipe.pretrain.row_tokens,
        rows=rows, micro_rows=micro, seed=recipe.seed,
        vocabulary=Tokenizer.from_directory(stages["tokenizer"].path).vocabulary(),
    ) as loader:  # fmt: skip
        step = loader.step(Cursor(0, 0), 1, 2)
    return step.batches[0], step.tokens


def pairs_seen(batch) -> int:
    """By definition, pair by pair."""
    segments = batch.segments
    seen = (segments[:, :, None] == segments[:, None, :]) & (segments != 0)[:, None, :]
    T = segments.shape[1]
    before = torch.ones(T, T, dtype=torch.bool).tril()
    name = batch.visibility.name
    if name == "CAUSAL":
        seen &= before
    elif name == "PREFIX":
        seen &= before | batch.prefix[:, None, :]
    elif name == "RANKED":
        seen &= batch.ranks[:, None, :] <= batch.reach[:, :, None]
    return int((seen | ((segments == 0)[:, :, None] & torch.eye(T, dtype=torch.bool))).sum())


def test_all_candidates_share_a_tokenizer_with_the_sentinels_that_one_of_them_needs():
    table = read_toml(TINY)
    table["compare"]["candidates"] = {"causal": {}, "spans": {"pretrain": {"objective": "spans"}}}
    _, _, recipes = open_comparison(table)
    assert {recipe.tokenizer.sentinels for recipe in recipes.values()} == {100}
    assert [recipe.model.family for recipe in recipes.values()] == ["qwen3", "t5"]


def measured(value: float, way: str = "left to right", loss: float = 2.0, **changes) -> dict:
    return {
        "pairs": {f"suite, {way}": {"accuracy": value, "by_length_alone": 0.5, "protocol": way}}, "probe": None,
        "held_out": {way: 2 - value}, "curve": [], "parameters": 10, "tokens": 100, "flops": 1e9,
        "training_seconds": 1.0, "cpu_seconds": 2.0, "memory_peak_bytes": 5, "is_loss_comparable": True,
        "conditions": {"jobs": 2, "threads": 1, "precision": "float32"},
        "validation": {"nats_per_token": loss, "bits_per_byte": loss / 2}, **changes,
    }  # fmt: skip


def settings_of(objective: str, corpus: str = "text") -> dict:
    return {
        "corpus": {"sources": [corpus]}, "tokenizer": {"vocab_size": 100},
        "pretrain": {"objective": {"name": objective}, "row_tokens": 64, "budget": "1M tokens"},
    }  # fmt: skip


def facts_of(cells: dict, objectives: dict, seeds: int = 3) -> dict:
    comparison = Comparison(candidates={name: {} for name in objectives}, seeds=seeds)
    settings = {name: settings_of(objective) for name, objective in objectives.items()}
    return summarise("x", comparison, cells, settings)


def figures_in(facts: dict, column: str) -> dict:
    return {row["name"]: row["figures"][column] for row in facts["rows"] if column in row["figures"]}


def test_differences_are_to_the_reference_and_noise_is_called_noise():
    values = {"a": (0.60, 0.61, 0.62), "b": (0.61, 0.60, 0.63), "c": (0.80, 0.81, 0.82)}
    cells = {(name, seed): measured(v) for name, each in values.items() for seed, v in enumerate(each)}
    facts = facts_of(cells, dict.fromkeys("abc", "causal"))
    column = "pairs suite, left to right"
    figures = figures_in(facts, column)
    assert "difference" not in figures["a"]
    assert figures["b"]["difference"]["within_noise"]
    assert not figures["c"]["difference"]["within_noise"]
    assert figures["c"]["difference"]["mean"] == pytest.approx(0.2)
    assert [mark(column, name, facts) for name in "abc"] == ["*", "~", "+"]
    # of bits per byte fewer are better
    assert [mark("held-out bits per byte, left to right", name, facts) for name in "abc"] == ["*", "~", "+"]
    assert "within noise" in verdict(figures["b"])


def test_each_way_of_scoring_is_a_column_with_a_reference_of_its_own():
    ways = {"causal": ["left to right"], "masked": ["filling in"], "hybrid": ["left to right", "filling in"]}
    cells = {}
    for name, each in ways.items():
        for seed in range(3):
            cell = measured(0.6 + seed / 100, each[0])
            for way in each[1:]:
                cell["pairs"] |= measured(0.7 + seed / 100, way)["pairs"]
            cells[name, seed] = cell
    facts = facts_of(cells, {name: name for name in ways})
    right, filling = (figures_in(facts, f"pairs suite, {way}") for way in ("left to right", "filling in"))
    assert right["hybrid"]["difference"]["reference"] == "causal"
    assert filling["hybrid"]["difference"]["reference"] == "masked"
    assert set(right) == {"causal", "hybrid"}
    assert set(filling) == {"masked", "hybrid"}


def test_own_losses_are_compared_where_objective_text_and_tokenizer_are_the_same():
    objectives = {"causal": "causal", "lstm": "causal", "masked": "masked", "slower": "masked"}
    losses = {"causal": 2.0, "lstm": 3.0, "masked": 1.0, "slower": 1.0}
    cells = {
        (name, seed): measured(0.6, loss=losses[name] + (seed * 7 % 3) / 100)
        for name in objectives
        for seed in range(3)
    }
    facts = facts_of(cells, objectives)
    column = "own loss, nats per predicted token"
    references = {
        name: figure.get("difference", {}).get("reference")
        for name, figure in figures_in(facts, column).items()
    }
    assert references == {"causal": None, "lstm": "causal", "masked": None, "slower": "masked"}
    assert [mark(column, name, facts) for name in objectives] == ["*", "-", "*", "~"]


def test_losses_against_a_generator_of_their_own_are_not_compared():
    cells = {
        (name, seed): measured(0.6, loss=seed + 1.0, is_loss_comparable=False)
        for name in ("a", "b")
        for seed in range(3)
    }
    facts = facts_of(cells, {"a": "detect", "b": "detect"})
    figures = figures_in(facts, "own loss, nats per predicted token")
    assert all("difference" not in figure for figure in figures.values())


def many() -> dict:
    """Twelve candidates with a figure in every column."""
    cells = {}
    for number in range(12):
        for seed in range(3):
            cell = measured(0.5 + number / 100 + seed / 1000, "left to right")
            for way in ("filling in", "told from replaced"):
                cell["pairs"] |= measured(0.6 + seed / 1000, way)["pairs"]
            cell["held_out"]["filling in"] = 1.1 + seed / 100
            cell["probe"] = {"accuracy": 0.7 + seed / 1000, "chance": 0.5, "majority": 0.5}
            cells[f"candidate {number}", seed] = cell
    return facts_of(cells, {f"candidate {number}": "causal" for number in range(12)})


def test_the_terminal_shows_one_table_that_fits_in_120_columns():
    lines = _table(many(), 120)
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("candidate 11 ") for line in lines) == 2  # what has no room follows below
    assert "* of its column" in " ".join(lines)
    wide = _table(many(), 400)
    row = next(line for line in wide if line.startswith("candidate 11 "))
    assert "0.611 [0.609, 0.613] +" in row
    assert "1.00 s" in row


def test_the_page_begins_with_the_same_table():
    facts = many()
    page = render_comparison(facts)
    heads, rows = summary(facts)
    assert len(rows) == 12
    assert page.index("All in one table") < page.index('class="strip"')
    for cell in rows[-1]:  # an interval stands below its number
        assert re.sub(r"(.+?) (\[.+\])(.*)", r"\1\3<br><small>\2</small>", cell) in page
    assert len(heads) == len(rows[0])


def test_of_one_seed_nothing_is_said():
    facts = facts_of(
        {("a", 0): measured(0.1), ("b", 0): measured(0.9)}, {"a": "causal", "b": "causal"}, seeds=1
    )
    assert mark("pairs suite, left to right", "b", facts) == "?"
    assert explanation(facts).startswith("One seed")
