"""Work done elsewhere gives what it gives here; a worker that dies costs what it was doing."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.corpus import engine
from gristmill.corpus.engine import EngineSettings, groups, run_all
from gristmill.errors import InputError, RunError


class Job:
    """Writes its number to a file; the one that `dies` kills its process so many times first."""

    def __init__(self, folder, number, dies=0):
        self.folder, self.number, self.dies = str(folder), number, dies

    @property
    def path(self):
        return Path(self.folder, f"{self.number}.json")


def work(job):
    marks = len(list(Path(job.folder).glob(f"died-{job.number}-*")))
    if marks < job.dies:
        Path(job.folder, f"died-{job.number}-{marks}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    outcome = {"number": job.number, "process": os.getpid()}
    job.path.write_text(json.dumps(outcome))
    return outcome


def is_done(job):
    return json.loads(job.path.read_text()) if job.path.is_file() else None


def run(jobs, **options):
    return list(
        run_all(
            work, jobs, EngineSettings(**options), name_of=lambda job: f"job {job.number}", is_done=is_done
        )
    )


def test_one_worker_works_here(tmp_path):
    outcomes = run([Job(tmp_path, i) for i in range(5)], workers=1)
    assert [outcome["number"] for outcome in outcomes] == list(range(5))
    assert {outcome["process"] for outcome in outcomes} == {os.getpid()}


@pytest.mark.slow
def test_several_work_in_processes_of_their_own_and_what_is_done_is_not_done_again(tmp_path):
    run([Job(tmp_path, i) for i in range(3)], workers=1)
    outcomes = run([Job(tmp_path, i) for i in range(8)], workers=2)
    assert sorted(outcome["number"] for outcome in outcomes) == list(range(8))
    processes = {outcome["process"] for outcome in outcomes}
    assert len(processes - {os.getpid()}) == 2
    here = [outcome["number"] for outcome in outcomes if outcome["process"] == os.getpid()]
    assert sorted(here) == [0, 1, 2]


@pytest.mark.slow
def test_the_work_of_a_worker_that_dies_is_done_by_another(tmp_path):
    outcomes = run([Job(tmp_path, i, dies=int(i == 4)) for i in range(8)], workers=2)
    assert sorted(outcome["number"] for outcome in outcomes) == list(range(8))
    assert (tmp_path / "died-4-0").exists()


@pytest.mark.slow
def test_work_that_kills_its_worker_twice_ends_the_run_and_keeps_the_rest(tmp_path):
    with pytest.raises(RunError, match="a worker died 2 times while job 2 was read: signal 9") as caught:
        run([Job(tmp_path, i, dies=9 if i == 2 else 0) for i in range(4)], workers=2)
    assert "goes on from here" in caught.value.hint
    assert not (tmp_path / "2.json").exists()


class Refusal:
    path = Path("never")

    def __init__(self, number):
        self.number = number


def refuse(job):
    raise InputError(f"job {job.number} is wrong", "leave it out")


def test_what_work_raises_is_raised_here(tmp_path):
    for workers in (1, 2):
        with pytest.raises(InputError, match=r"job . is wrong") as caught:
            list(
                run_all(
                    refuse,
                    [Refusal(0), Refusal(1)],
                    EngineSettings(workers=workers),
                    name_of=str,
                    is_done=is_done,
                )
            )
        assert caught.value.hint == "leave it out"


@settings(max_examples=20)
@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 3))
def test_groups_are_those_of_equal_numbers_other_than_zero(tmp_path_factory, values, files):
    folder = tmp_path_factory.mktemp("groups")
    paths = []
    for i in range(files):
        mine = [(key, value) for key, value in enumerate(values) if key % files == i]
        table = pyarrow.table({
            "key": pyarrow.array([key for key, _ in mine], pyarrow.int64()),
            "hash": pyarrow.array([value << 40 for _, value in mine], pyarrow.uint64()),
        })  # fmt: skip
        paths.append(folder / f"{i}.parquet")
        pyarrow.parquet.write_table(table, paths[-1])
    found = listed(groups(paths, "hash", EngineSettings(workers=1), documents=len(values)))
    expected = {}
    for key, value in enumerate(values):
        if value:
            expected.setdefault(value, []).append(key)
    assert found == sorted(keys for keys in expected.values() if len(keys) > 1)


def listed(parts):
    return [
        group.tolist()
        for keys, counts in parts
        for group in np.split(keys, np.cumsum(counts)[:-1])
        if len(group)
    ]


@pytest.mark.parametrize("parts", [1, 3])
def test_daft_makes_the_same_groups(tmp_path, parts):
    values = np.random.default_rng(0).integers(0, 300, 400).astype(np.uint64) << np.uint64(33)
    keys = np.random.default_rng(1).permutation(400)
    pyarrow.parquet.write_table(pyarrow.table({"key": keys, "hash": values}), tmp_path / "a.parquet")
    files = [tmp_path / "a.parquet"]
    ours = engine._by_sorting(files, "hash", parts)
    theirs = engine._by_daft(files, "hash", EngineSettings(), parts)
    assert sorted(map(sorted, listed(ours))) == sorted(map(sorted, listed(theirs)))


def test_parts_of_bounded_size_have_the_same_groups(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 50, 400).astype(np.uint64)
    table = pyarrow.table({"key": np.arange(400), "hash": values})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")

    def found():
        return {
            tuple(part.tolist())
            for keys, counts in groups([tmp_path / "a.parquet"], "hash", EngineSettings(), documents=400)
            for part in np.split(keys, np.cumsum(counts)[:-1])
        }

    whole = found()
    monkeypatch.setattr(engine, "PART_DOCUMENTS", 60)
    assert found() == whole
