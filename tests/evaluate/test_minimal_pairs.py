"""Minimal pairs: what is counted, and how files are read."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.evaluate.minimal_pairs import Pair, measure_pairs, pair_figures, read_pairs
from gristmill.evaluate.scoring import LeftToRight
from gristmill.model.base import Model
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train

PAIRS = [
    Pair(good=f"the cats sleep {i}", bad=f"the cats sleeps {i}", paradigm=paradigm, phenomenon=phenomenon)
    for paradigm, phenomenon, count in (("subject", "agreement", 4), ("object", "agreement", 2), ("gap", "islands", 1))
    for i in range(count)
]  # fmt: skip


def figures(good: list[float], bad: list[float]) -> dict:
    return pair_figures(PAIRS, np.array(good), np.array(bad), seed=0)


def test_a_constant_scorer_gets_exactly_one_half():
    found = figures([-7.0] * 7, [-7.0] * 7)
    assert found["accuracy"] == found["chance"] == 0.5
    assert found["interval"] == [0.5, 0.5]
    assert found["ties"] == found["pairs"] == 7
    assert {figure["accuracy"] for figure in found["by_paradigm"].values()} == {0.5}


def test_the_figure_is_the_mean_over_paradigms_and_not_over_pairs():
    found = figures([-1, -1, -1, -3, -1, -3, -3], [-2] * 7)
    assert {name: figure["accuracy"] for name, figure in found["by_paradigm"].items()} == {
        "gap": 0.0, "object": 0.5, "subject": 0.75,
    }  # fmt: skip
    assert found["accuracy"] == pytest.approx((0.0 + 0.5 + 0.75) / 3)
    assert found["by_phenomenon"]["agreement"]["accuracy"] == pytest.approx((0.5 + 0.75) / 2)
    assert found["by_phenomenon"]["agreement"]["paradigms"] == 2
    assert found["by_phenomenon"]["islands"]["interval"] is None  # one paradigm has no spread
    low, high = found["interval"]
    assert 0.0 <= low <= found["accuracy"] <= high <= 0.75
    assert json.loads(json.dumps(found)) == found


def test_a_tie_counts_half():
    found = figures([-1, -1, -2, -2, -1, -1, -1], [-2, -2, -2, -2, -2, -2, -2])
    assert found["by_paradigm"]["subject"] == {
        "phenomenon": "agreement",
        "accuracy": 0.75,
        "interval": pytest.approx([0.3006, 0.9544], abs=1e-4),  # Wilson's of 3 in 4
        "pairs": 4,
        "ties": 2,
    }
    assert found["ties"] == 2


def test_the_interval_draws_whole_paradigms():
    """Many pairs of few paradigms that disagree leave it as wide as the paradigms do."""
    pairs = [Pair(good="a", bad="b", paradigm=str(i % 10), phenomenon=str(i % 10)) for i in range(10_000)]
    right = np.array([float(int(pair.paradigm) < 5) for pair in pairs])
    low, high = pair_figures(pairs, right, np.full(10_000, 0.5), seed=0)["interval"]
    assert high - low > 0.5


def test_scores_that_are_no_numbers_and_no_pairs_are_refused():
    with pytest.raises(ValueError, match="not a number"):
        figures([float("nan")] * 7, [0.0] * 7)
    with pytest.raises(InputError, match="no minimal pairs"):
        pair_figures([], np.zeros(0), np.zeros(0), seed=0)


# --- files ------------------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[dict]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_a_folder_of_files_is_read_in_order(tmp_path):
    write(tmp_path / "b.jsonl", [{"good": "猫睡。", "bad": "睡猫。"}])
    write(
        tmp_path / "a.jsonl.gz",
        [
            {"good": "g1", "bad": "b1", "uid": "u", "phenomenon": "p", "field": "syntax"},
            {"sentence_good": "g2", "sentence_bad": "b2", "UID": "u", "linguistics_term": "p"},
        ],
    )
    assert read_pairs(tmp_path) == [
        Pair(good="g1", bad="b1", paradigm="u", phenomenon="p"),
        Pair(good="g2", bad="b2", paradigm="u", phenomenon="p"),
        Pair(good="猫睡。", bad="睡猫。", paradigm="b", phenomenon="b"),
    ]
    assert read_pairs(tmp_path / "b.jsonl") == read_pairs(tmp_path)[2:]
    assert [pair.good for pair in read_pairs(tmp_path, limit=1)] == ["g1", "猫睡。"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"good": "a"}', 'line 1 has no two sentences "good" and "bad"; it has good'),
        ("x.jsonl", b'\n{"good": "a", "bad": ""}', "line 2 has no two sentences"),
        ("x.jsonl", b"good,bad", "line 1 is not JSON"),
        ("x.jsonl", b"[1, 2]", "each line is an object"),
        ("x.jsonl", b"\xff\xfe", "can't be read"),
        ("x.jsonl.gz", b"plain", "can't be read"),
        ("x.txt", b"", "holds no minimal pairs"),
    ],
)
def test_files_that_are_no_pairs_are_refused_by_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_pairs(tmp_path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        read_pairs(tmp_path / "none.jsonl")


# --- with a model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    config = from_dict(TokenizerConfig, {"kind": "bytes"})
    return Tokenizer.from_directory(
        train(config, ["The cat sleeps."], tmp_path_factory.mktemp("t") / "bytes").path
    )


@pytest.fixture(scope="module")
def uniform(tokenizer) -> Model:
    """A model that finds all tokens equally likely."""
    settings = ModelSettings(depth=1, width=32, heads=2, tied=False)
    model = make_model(resolve(settings, vocab_size=tokenizer.vocab_size, row_tokens=256))
    model.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.output.weight.zero_()
    return model


def test_a_model_that_knows_nothing_gets_one_half_where_lengths_are_equal(tmp_path, tokenizer, uniform):
    rows = [{"good": f"cats {i:03} sleep", "bad": f"sleep {i:03} cats", "uid": str(i % 3)} for i in range(30)]
    found = measure_pairs(uniform, tokenizer, write(tmp_path / "x.jsonl", rows))
    assert found["accuracy"] == 0.5
    assert found["ties"] == 30
    assert found["protocol"] == LeftToRight().protocol


def test_what_length_alone_gives_is_told_beside(tmp_path, tokenizer, uniform):
    rows = [{"good": "cats", "bad": "cats sleep"}] * 3 + [{"good": "cats sleep", "bad": "cats"}]
    found = measure_pairs(uniform, tokenizer, write(tmp_path / "x.jsonl", rows))
    assert found["accuracy"] == found["by_length_alone"] == 0.75


@pytest.mark.shared_data
def test_blimp_and_zhoblimp_are_read_whole(shared_data):
    for name, pairs, paradigms in (("eval_en_blimp", 20_100, 67), ("eval_zh_zhoblimp", 17_700, 118)):
        found = read_pairs(shared_data / name)
        assert len(found) == pairs
        assert len({pair.paradigm for pair in found}) == paradigms
        assert len(read_pairs(shared_data / name, limit=3)) == 3 * paradigms
        figure = pair_figures(found, np.zeros(pairs), np.zeros(pairs), seed=0)
        assert figure["accuracy"] == 0.5
