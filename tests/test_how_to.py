"""What the how-tos tell people to do works, and prints what they say."""

import re
import shlex
import tomllib

import pytest

from gristmill.cli import main
from gristmill.config import load, read_toml
from gristmill.pipeline import Quiet, Recipe, run
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "how-to" / "corpus.md"
TINY = REPOSITORY / "recipes" / "tiny" / "mixed.toml"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_recipe_of_the_page_is_the_one_that_is_shipped():
    shown, shipped = tomllib.loads(blocks("toml")[0])["corpus"], read_toml(TINY)["corpus"]
    assert set(shown["sources"]) == set(shipped["sources"])
    for table in (shown, shipped):
        del table["sources"]
    assert shown == shipped


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The run of the page up to its shards, which takes seconds."""
    for module in ("trafilatura", "pypdf", "docutils"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("how_to") / "mixed"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        run(load(Recipe, TINY), folder, Quiet(), until="shards")
    return folder


@pytest.mark.slow
def test_every_command_about_the_mixed_folder_prints_what_the_page_shows(mixed, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("COLUMNS", "200")
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if "runs/mixed" in line and "--step" not in line]  # that needs a model
    assert len(commands) == 4
    printed = []
    for command in commands:
        words = shlex.split(command.replace("runs/mixed", str(mixed)))
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        result = capsys.readouterr()
        assert ended.value.code == 0, (command, result.err)
        printed.append(result.out)
    statistics, dropped, trace, forget = printed
    assert re.search(r"dropped: unreadable file +2", statistics)
    assert "picture.txt: it holds zero bytes" in statistics
    assert "genesis 03.docx" in dropped
    assert "login page" in dropped
    said = blocks("text")
    assert trace == next(block for block in said if block.startswith("token:"))
    expected = next(block for block in said if block.startswith("1 document to be forgotten")).splitlines()
    assert forget.splitlines()[:3] == expected[:3]
    assert (mixed / "corpus-page" / "corpus.html").stat().st_size > 10_000


@pytest.mark.slow
def test_what_the_page_says_of_the_mixed_folder_is_so(mixed):
    from gristmill.corpus import Corpus

    corpus = Corpus(mixed / "corpus")
    metrics = corpus.metrics
    assert metrics["dropped"]["near duplicate"]["documents"] == 1
    assert (
        metrics["dropped"]["unreadable file"]["documents"] == 2
    )  # the picture, and the archive that breaks off
    assert metrics["dropped"]["empty"]["documents"] == 1
    assert metrics["edits"] == {"email": 1, "phone": 1}
    encodings = {source["path"]: source["encoding"] for source in metrics["sources"]}
    assert encodings["recipes/mixed/web/poems.htm"] == "gb18030"
    assert {encodings[path] for path in encodings if "/chinese/" in path} == {"gb18030"}
    texts = "\n".join(corpus.texts())
    assert "write to [EMAIL] or call [PHONE]" in texts
    assert not re.search("typist@|Cookies|DRAFT|Home.*Books.*News", texts)
    assert set(corpus.groups) == {"word/en", "web/en", "web/zh", "chinese/zh"}
