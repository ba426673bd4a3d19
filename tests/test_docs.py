"""The documentation is what the code says, and what it tells people to type works."""

import re
import subprocess
import sys
import tomllib

import pytest

from gristmill.adapt.adapting import AdaptRecipe
from gristmill.cli._main import VERBS
from gristmill.compare import open_comparison
from gristmill.compare.trial import Trial
from gristmill.config import from_dict
from gristmill.pipeline import Recipe, settle
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "README.zh.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
ADAPTING = {"task", "search", "curve"}
"""Tables that a recipe of an adaptation has, and one of a model does not."""
ADAPTED = {"name": "page", "base": "runs/demo", "task": "classification", "data": {"train": "train.jsonl"}}


def test_generated_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "tools/make_docs.py", "--check"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr + "\nhint: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_every_recipe_and_verb_in_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        table = tomllib.loads(block)
        if ADAPTING & set(table):
            assert from_dict(AdaptRecipe, {**ADAPTED, **table})
            continue
        table = {"name": "page", "corpus": {"sources": ["recipes/texts"]}, **table}
        table.get("compare", {}).pop("pairs", None)  # folders of the reader's own
        if "trial" in table:
            assert from_dict(Trial, table.pop("trial"), "trial").steps
        assert open_comparison(table) if "compare" in table else settle(from_dict(Recipe, table))
    for verb in re.findall(r"^(?:\| )?`?gristmill (\w+)", text, re.MULTILINE):
        assert verb in VERBS


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_readme_is_one_screen():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_every_verb_begins_its_help_with_examples_and_names_the_next(capsys):
    page = (REPOSITORY / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    for verb in VERBS:
        section = page.split(f"## gristmill {verb}\n", 1)[1].split("\n## ", 1)[0]
        assert section.count(f"gristmill {verb}") >= 2, verb
        assert "Next:" in section, verb


def test_help_answers_without_importing_a_stage():
    code = (
        "import sys\nfrom gristmill.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'tokenizers', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
