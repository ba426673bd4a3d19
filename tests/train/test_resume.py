"""A run that is killed, at any moment and more than once, ends in the bytes of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gristmill.artifact import hash_file
from gristmill.train import state
from tests.conftest import REPOSITORY
from tests.train.tiny import tiny_trainer

pytestmark = pytest.mark.slow

# Runs are compared in epoch 0, 1 and 2: 8 documents of 300 to 448 bytes give about 24 steps an epoch.
MOMENTS = [
    ("mid-accumulation", 3),
    ("mid-accumulation", 30),
    ("in-checkpoint", 5),
    ("in-checkpoint", 33),
    ("after-tensors", 40),
    ("in-best", 20),
    ("at-end", 0),
    ("after-save", 0),
    ("in-hash", 0),
    ("between-renames", 0),
]


def start(folder: Path, *moment: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.train.run_tiny", str(folder), *moment]
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE)


def finish(folder: Path, *moment: str) -> int:
    process = start(folder, *moment)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    assert finish(folder) == 0
    return result(folder)


def result(folder: Path) -> dict[str, str]:
    """The weights' hash, and the curve without what the clock decides."""
    lines = [json.loads(line) for line in (folder / "model" / "curve.jsonl").read_text().splitlines()]
    curve = [
        (line["step"], line["tokens"], line["loss_nats"], line.get("validation_nats_per_token"))
        for line in lines
    ]
    weights = {file.name: hash_file(file) for file in (folder / "model").glob("*.safetensors")}
    return {"curve": json.dumps(curve), **weights}


def test_a_run_killed_at_each_telling_moment_ends_in_the_same_bytes(tmp_path, uninterrupted):
    """All moments strike one run, one after the other: every resume is of a run that was resumed before."""
    killed = 0
    for moment, step in MOMENTS:
        killed += finish(tmp_path, moment, str(step)) == -signal.SIGKILL
    assert killed == len(MOMENTS)
    assert finish(tmp_path) == 0
    assert result(tmp_path) == uninterrupted


def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(tmp_path, uninterrupted):
    clock = random.Random(os.getpid())
    kills = 0
    for _ in range(40):
        process = start(tmp_path)
        curve = tmp_path / ".model.partial" / "curve.jsonl"
        size = curve.stat().st_size if curve.exists() else 0
        while (
            process.poll() is None and (curve.stat().st_size if curve.exists() else 0) == size and kills < 4
        ):
            time.sleep(0.01)  # imports take most of the time: wait until it trains
        time.sleep(clock.random() * 0.4)
        if kills < 4 and process.poll() is None:
            process.kill()
            kills += 1
        process.communicate(timeout=120)
        if process.returncode == 0:
            break
    assert kills >= 1
    assert result(tmp_path) == uninterrupted


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    said: list[str] = []
    trainer = tiny_trainer(tmp_path / "model", budget="6 steps", checkpoint_seconds=1e-6, say=said.append)
    saved = trainer.save_checkpoint

    class StopError(Exception):
        pass

    def stop_after_four():
        path = saved()
        if trainer.step == 4:
            raise StopError
        return path

    trainer.save_checkpoint = stop_after_four
    with pytest.raises(StopError):
        trainer.run()
    newest, _ = state.newest_checkpoint(trainer.checkpoints)
    assert newest is not None
    assert newest.name == "step-00000004"
    file = newest / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    again = tiny_trainer(tmp_path / "model", budget="6 steps", say=said.append)
    again.run()
    assert any("step-00000004 is damaged" in message for message in said)
    assert any("resuming at step 3" in message for message in said)
