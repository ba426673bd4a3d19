"""The verbs that train what judges texts, and what a corpus that was judged prints."""

import json
import random

import pytest

from gristmill.cli import main

PLAIN = "river rose slowly over stones villagers had laid when their parents were children mill water"
LOUD = "buy cheap best deal click here now free offer limited price order today discount online shop"
COMMON = "the of and to a in is that it was for with as on"


def gristmill(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(list(map(str, arguments)))
    return int(exit_.value.code or 0)


def write(path, words, count, seed):
    generator = random.Random(seed)
    choices = words.split(), COMMON.split()
    texts = [" ".join(generator.choice(generator.choice(choices)) for _ in range(60)) for _ in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.jsonl", PLAIN, 40, 1)


@pytest.fixture
def bad(tmp_path):
    return write(tmp_path / "bad.jsonl", LOUD, 40, 2)


def test_a_classifier_is_trained_its_figures_printed_and_a_corpus_judged(good, bad, tmp_path, capsys):
    out = tmp_path / "quality"
    assert gristmill("corpus", "quality", "--good", good, "--bad", bad, "--out", out) == 0
    printed = capsys.readouterr().out
    for expected in (
        "40 good documents, 40 bad",
        "area under the curve",
        "chance is 0.5",
        "tells good",
        "warning only 40",
    ):
        assert expected in printed
    assert any(word in printed for word in PLAIN.split())
    assert f"quality.model={out}" in printed.replace("\n", "")
    assert gristmill("corpus", "quality", "--good", good, "--bad", bad, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["documents"] == {"good": 40, "bad": 40, "in_both_classes": 0}

    texts = write(tmp_path / "texts.jsonl", f"{PLAIN} {LOUD}", 20, 3)
    settings = (f"quality.model={out}", "quality.keep=0.5", f'perplexity.trained_on=["{good}"]')
    sets = [part for setting in settings for part in ("--set", setting)]
    assert gristmill("corpus", "build", texts, "--out", tmp_path / "corpus", *sets) == 0
    printed = capsys.readouterr().out
    assert "dropped: quality" in printed
    assert "score, en: " in printed
    assert "bits for a character, en: " in printed
    assert "nothing is dropped" in printed


def test_a_seed_is_told_from_a_corpus(good, tmp_path, capsys):
    texts = write(tmp_path / "texts.jsonl", LOUD, 60, 3)
    assert gristmill("corpus", "build", texts, "--out", tmp_path / "corpus") == 0
    arguments = ("--good", good, "--corpus", tmp_path / "corpus", "--out", tmp_path / "quality")
    assert gristmill("corpus", "quality", *arguments) == 0
    assert "unlabelled" in capsys.readouterr().out


def test_an_n_gram_model_is_trained(good, tmp_path, capsys):
    out = tmp_path / "ngrams"
    assert gristmill("corpus", "perplexity", good, "--out", out, "--set", "characters=3") == 0
    printed = capsys.readouterr().out
    assert "bits for each byte" in printed
    assert "learned from 38 documents: en" in printed
    assert gristmill("corpus", "perplexity", good, "--out", out, "--set", "characters=3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["training"]["documents"] == 38


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quality", "--good", "x"], "error: good documents are told from bad ones, or from a corpus"),
        (["quality", "--good", "x", "--bad", "y", "--corpus", "z"], "give --bad or --corpus"),
        (
            ["quality", "--good", "nowhere", "--bad", "nowhere"],
            "error: nowhere: there is no such file or folder",
        ),
        (["quality", "--good", "x", "--bad", "y", "--set", "fold=3"], 'unknown key "quality.fold"'),
        (["perplexity", "nowhere"], "error: nowhere: there is no such file or folder"),
        (["perplexity", "x", "--set", "characters=99"], "characters is 0 to 16"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines(arguments, message, tmp_path, capsys):
    assert gristmill("corpus", *arguments, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
