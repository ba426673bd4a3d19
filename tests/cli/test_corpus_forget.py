import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.verbs import run_verb

from gristmill.corpus import Corpus
from gristmill.corpus.shards import Shards
from gristmill.tokenizer import Tokenizer

NAME = "Zaphod Beeblebrox"
RECIPE = """
name = "tiny"
corpus.sources = ["raw.jsonl"]
tokenizer.vocab_size = 300
model = { family = "gpt2", depth = 1, width = 32 }
pretrain = { objective = "causal", budget = "1 steps", row_tokens = 64, batch_tokens = 512 }
"""


@pytest.fixture
def run(tmp_path: Path, demo_texts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run as far as its shards."""
    from gristmill.config import from_dict, read_toml
    from gristmill.pipeline import Quiet, Recipe
    from gristmill.pipeline import run as do

    monkeypatch.chdir(tmp_path)
    text = (demo_texts / "king-james.txt").read_text(encoding="utf-8")
    parts = [part[:700] for part in text.split("\n") if len(part) > 400][:40]
    parts[7] = f"Dear sir, I am [b]{NAME}[/b] of Erewhon. {parts[7]}"
    Path("raw.jsonl").write_text("".join(json.dumps({"text": part}) + "\n" for part in parts))
    Path("tiny.toml").write_text(RECIPE)
    return do(from_dict(Recipe, read_toml(Path("tiny.toml"))), Path("runs/tiny"), Quiet(), until="shards")


def test_a_text_is_shown_first_and_then_forgotten(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = ("corpus", "forget", run, "--containing", "zaphod beeblebrox")
    status, shown, _ = run_verb(capsys, *request, "--dry-run")
    assert status == 0
    for expected in (
        "1 document to be forgotten", f"Dear sir, I am [b]{NAME}[/b] of Erewhon.", "raw.jsonl",
        f"holds it: shards {run / 'shards'}", f"learned from it: tokenizer {run / 'tokenizer'}",
    ):  # fmt: skip
        assert expected in shown
    table = json.loads(run_verb(capsys, *request, "--dry-run", "--json")[1])
    assert [document["why"] for document in table["documents"]] == ['contains "zaphod beeblebrox"']

    status, _, err = run_verb(capsys, *request)
    assert status == 2
    assert "error: nothing was forgotten yet" in err
    assert any(NAME in text for text in Corpus(run / "corpus").texts())

    status, out, _ = run_verb(capsys, *request, "--yes", "--note", "request 17", "--json")
    assert status == 0
    done = json.loads(out)
    assert done["units"] == {"all": 1, "written": 1}
    assert [(one["documents"], one["encoded"]) for one in done["shards"]] == [(39, 0)]
    assert [(one["kind"], one["how"]) for one in done["remaining"]] == [("tokenizer", "learned from it")]
    assert "request 17" in Path(done["list"]).read_text()
    assert not any(NAME in text for text in Corpus(run / "corpus").texts())
    tokenizer, shards = Tokenizer.from_directory(run / "tokenizer"), Shards(run / "shards")
    for split in ("train", "valid"):
        store = shards.split(split)
        edges = zip(store.offsets, store.offsets[1:], strict=False)
        stored = [np.asarray(store.tokens[begin + 1 : end - 1]).tolist() for begin, end in edges]
        assert stored == [tokenizer.encode(text) for _, text, _, _ in Corpus(run / "corpus").items(split)]


def test_a_build_obeys_and_the_same_request_finds_nothing_more(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ("corpus", "forget", run / "corpus", "--containing", NAME, "--yes")
    _, out, _ = run_verb(capsys, *request)
    assert "forgotten: 1 document; 1 of 1 unit written again" in out
    made = json.loads((run / "corpus" / "manifest.json").read_text())["created_at"]
    assert run_verb(capsys, "corpus", "build", "--recipe", "tiny.toml", "--out", run / "corpus")[0] == 0
    assert json.loads((run / "corpus" / "manifest.json").read_text())["created_at"] == made
    status, out, _ = run_verb(capsys, *request)
    assert status == 0
    assert "0 documents to be forgotten: no more are found" in out
    assert "0 of 1 unit written again" in out


def test_what_is_wrong_is_said_in_two_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([run], "has nothing to forget: its list is empty"),
        ([run, "ffffffffffffffff"], 'no document has the id "ffffffffffffffff"'),
        ([run, "--at", "raw.jsonl"], "nothing would be left"),
        (["nowhere", "--containing", "x"], "there is no directory nowhere"),
    ):
        status, _, err = run_verb(capsys, "corpus", "forget", *arguments, "--yes")
        assert (status, message in err) == (2, True), err
    assert not (run / "corpus.forgotten.json").exists()
