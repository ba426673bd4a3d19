"""Every example runs."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.py")), ids=lambda p: p.name)
def test_the_example_runs(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(path), str(tmp_path / "run"), "3"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "And God said" in done.stdout
