"""What all tests share."""

import os
from pathlib import Path

import hypothesis
import pytest

# machines are shared: a slow example is no failure
hypothesis.settings.register_profile("gristmill", deadline=None)
hypothesis.settings.load_profile("gristmill")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; a test that asks for it is skipped where it is absent."""
    folder = Path(os.environ.get("GRISTMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the shared data sets are not on this machine (set GRISTMILL_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def demo_texts() -> Path:
    """The public-domain texts that the project ships."""
    return REPOSITORY / "recipes" / "texts"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a corpus but its manifest, which has times in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
