"""Verbs run in this process, and the recipes that they are given."""

from pathlib import Path

import pytest
from tests.conftest import REPOSITORY

from gristmill.cli import main


def run_verb(capsys, *arguments: str | Path) -> tuple[int, str, str]:
    """Runs a verb and returns its exit status and what it printed on stdout and stderr."""
    capsys.readouterr()  # what a fixture printed
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(ended.value.code or 0), out, err


def written(recipe: str, folder: Path) -> Path:
    """Writes a recipe, the folder of the shipped texts put in for {texts}."""
    path = folder / "tiny.toml"
    path.write_text(recipe.format(texts=(REPOSITORY / "recipes" / "texts").as_posix()), encoding="utf-8")
    return path
