"""A cluster gives what this machine gives, to the byte: corpus, tokenizer and shards."""

import importlib.util
import os
import subprocess
import sys

import pytest
from tests.conftest import REPOSITORY, contents

SCRIPT = """
import sys
from pathlib import Path
from gristmill.config import from_dict
from gristmill.corpus import units
from gristmill.pipeline import Quiet, Recipe, run

units.LEAST_BYTES = units.MOST_BYTES = 40_000  # so that there is work for two
table = {
    "name": "shards",
    "corpus": {"sources": ["recipes/texts"], "document_separator": "%", "engine": {"name": sys.argv[1], "workers": 2}},
    "tokenizer": {"vocab_size": 700},
}
if __name__ == "__main__":
    run(from_dict(Recipe, table), Path(sys.argv[2]), Quiet(), until="shards")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_two_workers_of_a_ray_cluster_write_the_same_bytes_as_two_processes(tmp_path):
    said = {}
    for engine in ("native", "ray"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, engine, tmp_path / engine],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=500,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert done.returncode == 0, done.stderr
        said[engine] = done.stderr
    assert said["native"] == ""  # nothing that a user could take for an error
    for stage in ("corpus", "tokenizer", "shards"):
        here, there = contents(tmp_path / "native" / stage), contents(tmp_path / "ray" / stage)
        assert len(here) > 1
        assert there == here, stage
    assert len(list((tmp_path / "ray" / "corpus" / "units").glob("*.texts.parquet"))) > 5
