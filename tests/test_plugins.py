import sys
from pathlib import Path

import pytest

from gristmill import plugins
from gristmill.errors import InputError


@pytest.fixture
def my_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "my_parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield package  # type: ignore[misc]
    for name in [name for name in sys.modules if name.split(".")[0] == "my_parts"]:
        del sys.modules[name]


def test_a_file_is_a_name() -> None:
    families = plugins.names("model.families")
    assert {"gpt2", "llama", "qwen3"} <= set(families)
    assert families == sorted(families)
    assert "causal" in plugins.names("objectives")
    assert "base" not in plugins.names("objectives")  # it has no EXPORT


def test_a_part_is_what_its_file_exports() -> None:
    from gristmill.objectives.causal import Causal

    assert plugins.load("objectives", "causal") is Causal


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(InputError) as error:
        plugins.load("objectives", "casual")
    assert (error.value.message, error.value.hint) == (
        'there is no objective called "casual"',
        'did you mean "causal"?',
    )


def test_a_name_that_is_like_none_lists_all() -> None:
    with pytest.raises(InputError) as error:
        plugins.load("model.families", "zzz")
    assert error.value.hint == f"known: {', '.join(plugins.names('model.families'))}"


def test_a_part_of_the_users_own_is_named_by_its_import_path(my_package: Path) -> None:
    (my_package / "shiny.py").write_text("EXPORT = 'shiny'\n")
    assert plugins.load("objectives", "my_parts.shiny") == "shiny"


def test_a_module_that_is_not_there_is_the_users_to_install(my_package: Path) -> None:
    with pytest.raises(InputError, match=r'the module "my_parts.none" can not be imported') as error:
        plugins.load("objectives", "my_parts.none")
    assert error.value.hint is not None
    assert "PYTHONPATH" in error.value.hint


@pytest.mark.parametrize("missing", ["not_installed_here", "my"])
def test_a_part_that_imports_what_is_missing_shows_its_own_error(my_package: Path, missing: str) -> None:
    (my_package / "needs.py").write_text(f"import {missing}\nEXPORT = 1\n")
    with pytest.raises(ModuleNotFoundError, match=missing):
        plugins.load("objectives", "my_parts.needs")


def test_a_module_without_an_export_is_told_what_to_add(my_package: Path) -> None:
    (my_package / "empty.py").write_text("")
    with pytest.raises(InputError, match="has no EXPORT") as error:
        plugins.load("objectives", "my_parts.empty")
    assert error.value.hint == "end it with EXPORT = <your objective>"


def test_a_package_that_is_none_is_a_bug_of_ours() -> None:
    with pytest.raises(ValueError, match="is not a package"):
        plugins.names("errors")
