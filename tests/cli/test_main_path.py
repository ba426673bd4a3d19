"""The main path through the command line, on the shipped texts and nothing else: text in, model out, moved, measured."""

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.verbs import run_verb, written

from gristmill.artifact import open_artifact
from gristmill.cli import main

pytestmark = pytest.mark.slow

TINY = """
name = "tiny"
seed = 3

[corpus]
sources = ["{texts}"]
exclude = ["README.md"]
document_separator = "%"

[tokenizer]
vocab_size = 600

[model]
depth = 1
width = 32
heads = 2

[pretrain]
budget = "12 steps"
row_tokens = 64
batch_tokens = 512
validations = 2
precision = "float32"
threads = 2

[samples]
prompts = ["In the beginning ", "床前"]

[samples.sampling]
max_new_tokens = 12
"""


def call(capsys, *arguments: str | Path, status: int = 0) -> tuple[str, str]:
    """Runs a verb in this process and returns what it printed on stdout and stderr."""
    code, out, err = run_verb(capsys, *arguments)
    assert code == status, err
    return out, err


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return written(TINY, tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, recipe) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(recipe), "--out", str(folder)])
    assert ended.value.code == 0
    return folder


def test_a_run_leaves_six_whole_stages_and_a_report(finished):
    stages = ["corpus", "tokenizer", "shards", "model", "evaluation", "report"]
    for stage in stages:
        open_artifact(finished / stage).verify()
    evaluation = open_artifact(finished / "evaluation").manifest.metrics
    assert set(evaluation["by_language"]) == {"en", "zh"}
    low, high = evaluation["overall"]["bits_per_byte_interval"]
    assert low < evaluation["overall"]["bits_per_byte"] < high
    page = next((finished / "report").glob("*.html")).read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_a_second_run_does_nothing_again_and_prints_the_same(finished, recipe, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and "report" not in p.parts}
    out, err = call(capsys, "run", recipe, "--out", finished, "--json")
    assert err.count("unchanged") >= 5
    assert json.loads(out)["evaluation"]["overall"]["documents"] > 10
    after = {p: p.stat().st_mtime_ns for p in before}
    changed = {p.name for p in before if before[p] != after[p]}
    assert changed <= {"run.json", ".lock"}


def test_a_changed_setting_runs_only_the_stages_that_it_touches(finished, recipe, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    weights = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    _, err = call(capsys, "run", recipe, "--out", folder, "--set", "samples.sampling.max_new_tokens=3")
    assert err.count("unchanged") == 4
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == weights
    assert (folder / "replaced").is_dir()  # what stood there before is kept


def test_generate_gives_the_same_text_for_the_same_seed(finished, capsys):
    arguments = ["generate", finished, "In the beginning ", "--max-new-tokens", "8", "--seed", "5"]
    first, _ = call(capsys, *arguments)
    second, _ = call(capsys, *arguments)
    assert first == second
    assert first.startswith("In the beginning ")


def test_evaluate_on_the_run_itself_gives_the_figures_of_its_evaluation(finished, capsys):
    out, _ = call(capsys, "evaluate", finished, "--json")
    stored = open_artifact(finished / "evaluation").manifest.metrics["overall"]
    measured = json.loads(out)["overall"]
    assert measured["bits_per_byte"] == pytest.approx(stored["bits_per_byte"], rel=1e-5)
    assert measured["documents"] == stored["documents"]


def test_evaluate_on_files(finished, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text(
        "And God said, Let there be light: and there was light.\n", encoding="utf-8"
    )
    (tmp_path / "诗.txt").write_text("床前明月光，疑是地上霜。\n", encoding="utf-8")
    out, _ = call(capsys, "evaluate", finished, tmp_path, "--json")
    assert set(json.loads(out)["by_language"]) == {"en", "zh"}
    table, _ = call(capsys, "evaluate", finished, tmp_path)
    assert "bits/byte" in table


def test_explain_says_every_number_and_writes_nothing(recipe, tmp_path, capsys):
    out, _ = call(capsys, "explain", recipe, "--out", tmp_path / "none", "--json")
    facts = json.loads(out)
    assert (
        facts["model"]["parameters"]["total"] == 600 * 32 + 32 * 96 + 32 * 32 + 32 * 128 * 3 + 3 * 32 + 2 * 16
    )
    assert facts["batch"] == {"tokens": 512, "rows": 8, "micro_batch_rows": 8}
    assert facts["predicted"]["steps"] == 12
    assert not (tmp_path / "none").exists()
    text, _ = call(capsys, "explain", recipe, "--out", tmp_path / "none")
    assert "FLOPs per token" in text


def test_explain_counts_the_parameters_that_the_model_has(finished, recipe, capsys):
    out, _ = call(capsys, "explain", recipe, "--out", finished, "--json")
    metrics = open_artifact(finished / "model").manifest.metrics
    assert json.loads(out)["model"]["parameters"]["total"] == metrics["parameters"]["total"]
    assert json.loads(out)["flops_per_token"] == metrics["flops_per_token"]


def test_lineage_goes_back_to_the_text(finished, capsys):
    out, _ = call(capsys, "lineage", finished / "evaluation", "--json")
    assert "corpus" in out
    assert "unchanged" in out


def test_check_finds_a_changed_byte(finished, tmp_path, capsys):
    call(capsys, "check", finished)
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    weights = folder / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    out, err = call(capsys, "check", folder, status=2)
    assert "model.safetensors" in out + err
    _, err = call(capsys, "generate", folder, "x", status=2)
    assert "model.safetensors" in err
    assert "hint:" in err


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (["modle.depth=3"], 'unknown key "modle"', 'did you mean "model"'),
        (["pretrain.budgett=3"], "pretrain.budgett", 'did you mean "budget"'),
        (["pretrain.objective=causl"], 'no objective called "causl"', 'did you mean "causal"'),
        (["model.family=qwen"], 'no family called "qwen"', "qwen3"),
        (["pretrain.budget=soon"], "budget", "3 min"),
        (["model.depth=0"], "model.depth", ""),
        (["model.heads=5"], "does not divide", "model.width = 35"),
        (["model.depth=400", "model.width=16384", "model.heads=128"], "memory", "lower"),
        (['corpus.sources=["nowhere/at/all"]'], "nowhere/at/all", ""),
        (["tokenizer.vocab_size=100"], "vocab_size", ""),
        (["tokenizer.vocab_size=900000"], "vocab_size", "less"),
        (["pretrain.row_tokens=1000000", "pretrain.batch_tokens=1000000"], "row", "row_tokens"),
        (["corpus.valid_fraction=0.0"], "validation", "valid_fraction"),
    ],
)
def test_bad_recipes_are_refused_with_the_next_step(recipe, tmp_path, capsys, changes, message, hint):
    sets = [part for change in changes for part in ("--set", change)]
    _, err = call(capsys, "run", recipe, "--out", tmp_path / "run", *sets, status=2)
    assert message in err
    assert hint in err


def test_what_is_no_recipe_is_refused(tmp_path, capsys):
    _, err = call(capsys, "run", tmp_path / "none.toml", status=2)
    assert "there is no recipe" in err
    (tmp_path / "broken.toml").write_text("name = demo")
    _, err = call(capsys, "run", tmp_path / "broken.toml", status=2)
    assert "not valid TOML" in err


def test_two_runs_in_one_directory_are_refused(finished, recipe, capsys):
    import subprocess
    import sys

    code = (
        "import sys, time; from pathlib import Path; from gristmill.artifact import exclusive\n"
        f"with exclusive(Path({str(finished)!r})):\n    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        _, err = call(capsys, "run", recipe, "--out", finished, status=2)
        assert "another run" in err
        assert "--out" in err
    finally:
        other.kill()
        other.communicate()


def test_a_truncated_shard_is_found_before_training(finished, recipe, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    tokens = folder / "shards" / "train.tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-10])
    _, err = call(capsys, "run", recipe, "--out", folder, status=2)
    assert "train.tokens.bin" in err
    assert "run the same command again" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runn"], 'did you mean "run"'),
        (["generate", "no/such/run", "x"], "no/such/run"),
        (["run"], "RECIPE"),
        (["list", "objectivs"], "objectivs"),
    ],
)
def test_mistyped_commands_say_what_is_known(capsys, arguments, message):
    _, err = call(capsys, *arguments, status=2)
    assert message in err
    assert "hint:" in err


def test_list_names_every_part(capsys):
    out, _ = call(capsys, "list", "--json")
    decoders, others = {"gpt2", "llama", "qwen3", "lstm", "gru"}, {"bert", "modernbert", "t5", "transformer"}
    assert json.loads(out)["families"].keys() == decoders | others
    assert set(json.loads(out)["tokenizers"]) == {"bpe", "unigram", "wordpiece", "characters", "bytes"}


def test_the_schema_knows_every_table(capsys):
    out, _ = call(capsys, "schema")
    schema = json.loads(out)
    assert schema["properties"]["pretrain"]["properties"]["budget"]["default"] == "4 epochs"
    assert schema["additionalProperties"] is False
