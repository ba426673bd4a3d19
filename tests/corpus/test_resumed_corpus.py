"""A corpus whose build was killed is finished by the same command, and is the same to the byte."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.conftest import REPOSITORY, contents

from gristmill.corpus import CorpusConfig, build
from gristmill.corpus import units as units_module
from gristmill.corpus.store import UNITS

SCRIPT = """
import sys
from pathlib import Path
from gristmill.corpus import CorpusConfig, build, units
units.MOST_BYTES = 20_000
build(CorpusConfig(sources=(sys.argv[1],)), Path(sys.argv[2]))
"""


@pytest.fixture
def source(tmp_path, demo_texts):
    """A file of lines that is read as several units: paragraphs of the shipped text, some twice, some nearly."""
    text = (demo_texts / "king-james.txt").read_text(encoding="utf-8")
    parts = [part for part in text.split("\n") if len(part) > 200][:800]
    parts += parts[:50] + [part.replace(" the ", " a ", 1) for part in parts[50:100]]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": part}) + "\n" for part in parts), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_build_that_is_killed_again_and_again_ends_in_the_same_bytes(source, tmp_path, monkeypatch):
    monkeypatch.setattr(units_module, "MOST_BYTES", 20_000)
    whole = build(CorpusConfig(sources=(str(source),)), tmp_path / "whole").path
    out, seen, kills = tmp_path / "out", 0, 0
    while not (out / "manifest.json").is_file():
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, source, out], cwd=REPOSITORY)
        while process.poll() is None:
            done = len(list(tmp_path.glob(f"*out*/{UNITS}/*.json")))
            if done > seen and kills < 4:  # each time a little further
                os.kill(process.pid, signal.SIGKILL)
                seen, kills = done, kills + 1
            time.sleep(0.002)
        process.wait()
    assert kills == 4
    assert contents(out) == contents(whole)


def test_a_unit_that_was_damaged_is_read_again(source, tmp_path, monkeypatch):
    monkeypatch.setattr(units_module, "MOST_BYTES", 20_000)
    corpus = build(CorpusConfig(sources=(str(source),)), tmp_path / "out").path
    before = contents(corpus)
    damaged = sorted(corpus.glob(f"{UNITS}/*.texts.parquet"))[2]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (corpus / "manifest.json").unlink()  # as if it had never been finished
    assert contents(build(CorpusConfig(sources=(str(source),)), corpus).path) == before


def test_another_threshold_reads_nothing_again(source, tmp_path, monkeypatch):
    from gristmill.corpus import build as module
    from gristmill.corpus.deduplicate import DedupSettings

    out = tmp_path / "out"
    build(CorpusConfig(sources=(str(source),)), out)

    def refuse(job):
        raise AssertionError(f"{job.name} is read again")

    monkeypatch.setattr(sys.modules["gristmill.corpus.build"], "read_unit", refuse)
    again = build(CorpusConfig(sources=(str(source),), dedup=DedupSettings(near=False)), out)
    assert "near duplicate" not in again.manifest.metrics["dropped"]
    assert callable(module)


def test_the_number_of_workers_changes_nothing(source, tmp_path, monkeypatch):
    from gristmill.corpus.engine import EngineSettings

    monkeypatch.setattr(units_module, "MOST_BYTES", 20_000)
    one = build(CorpusConfig(sources=(str(source),), engine=EngineSettings(workers=1)), tmp_path / "one").path
    two = build(CorpusConfig(sources=(str(source),), engine=EngineSettings(workers=2)), tmp_path / "two").path
    assert contents(one) == contents(two)
