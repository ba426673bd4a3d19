"""The page of a task model says what `gristmill adapt` has measured, and opens anywhere."""

import itertools
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.adapt.intents import make_base, read_intents, recipe_table

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.artifact import open_artifact
from gristmill.cli._main import gristmill
from gristmill.config import from_dict
from gristmill.errors import CorruptArtifact
from gristmill.report import build_report
from gristmill.report.adapted import gather_adapted
from gristmill.report.adapted_charts import confusion_map
from gristmill.report.adapted_page import render_adapted

SECTIONS = [
    "Figures", "Classes", "Confusions", "Mistakes", "Training", "Search", "More labels", "Examples", "Cost", "Do it again",
]  # fmt: skip
VOID = {"meta", "br", "hr", "path", "line", "rect", "circle", "polyline"}


class Tree(HTMLParser):
    """Which elements are open, and the titles of sections."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, name: str, attributes: Any) -> None:
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: Any) -> None:
        assert name in VOID

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(page: str) -> Tree:
    tree = Tree()
    tree.feed(page)
    assert tree.open == []
    return tree


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    return read_intents(shared_data)


@pytest.fixture(scope="module")
def made(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task model of four intents with a search and a learning curve; one text of the test is in training, too."""
    pytest.importorskip("optuna")
    folder = tmp_path_factory.mktemp("made")
    base = make_base([row["text"] for row in rows], folder)
    mixed = [rows[80], *rows[1:112]]
    table = recipe_table(folder, base, mixed, train_rows=32, seeds=2)
    table["tune"] |= {"epochs": 2, "batch_examples": 8}
    table["search"] = {
        "trials": 2,
        "space": {"tune": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}},
    }
    table["curve"] = {"seeds": 2}
    return adapt(from_dict(AdaptRecipe, table), folder / "runs" / "intents").path


@pytest.fixture(scope="module")
def facts(made: Path) -> dict[str, Any]:
    return gather_adapted(made)[0]


@pytest.fixture(scope="module")
def page(facts: dict[str, Any]) -> str:
    return render_adapted(facts)


@pytest.mark.shared_data
def test_the_page_is_whole_and_opens_offline(page: str) -> None:
    assert read(page).headings == SECTIONS
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<img|<iframe| src=", page)
    assert "default-src 'none'" in page
    assert page.count("<script>") == 1
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) >= 7
    assert all("<title>" in picture or 'aria-hidden="true"' in picture for picture in pictures)


@pytest.mark.shared_data
def test_the_page_says_the_numbers_of_the_result(made: Path, page: str) -> None:
    result = json.loads((made / "result.json").read_text())
    accuracy = result["figures"]["accuracy"]
    assert f'<div class="big">{accuracy["mean"]:.3f}</div>' in page
    assert f"95 % interval {accuracy['interval'][0]:.3f} to {accuracy['interval'][1]:.3f}, over seeds" in page
    assert "accuracy on 40 test examples" in page
    assert f"Of 40 test examples, {result['mistakes']} are not as expected" in page
    assert "1 text stands in two of the sets" in page
    assert "The mean of 2 models" in page
    for seed in result["seeds"]:
        assert f"{seed['test']['accuracy']:.3f}" in page


@pytest.mark.shared_data
def test_the_table_of_classes_is_that_of_scikit_learn(made: Path, page: str) -> None:
    body = re.sub("</?b>", "", page.split("<h2>Classes</h2>")[1].split("</section>")[0])
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", body)]
    shown = {row[0].replace("average", "avg"): row[1:] for row in rows[1:]}
    for line in (made / "table.txt").read_text().splitlines()[1:]:
        if line.strip():
            name, *numbers = re.split(r" {2,}", line.strip())
            assert [number for number in shown[name] if number] == numbers


@pytest.mark.shared_data
def test_trials_and_curve_are_shown(facts: dict[str, Any], page: str) -> None:
    best = facts["search"]["best"]
    assert f"The best, trial {best['number'] + 1}, reached {best['score']:.3f} (accuracy)" in page
    assert "What training examples bring" in page
    gain = facts["curve"]["twice"]["gain"]
    assert f"Twice the labels (64) would bring {gain:+.3f}" in page
    plain = render_adapted({**facts, "search": None, "curve": None})
    assert [title for title in SECTIONS if title not in read(plain).headings] == ["Search", "More labels"]


@pytest.mark.shared_data
def test_what_is_measured_on_validation_examples_is_said_to_be_so(facts: dict[str, Any]) -> None:
    result = facts["result"]
    seeds = [seed | {"test": None} for seed in result["seeds"]]
    changed = result | {
        "measured_on": "valid",
        "examples": {"train": 32, "valid": 40, "test": 0},
        "seeds": seeds,
    }
    page = render_adapted({**facts, "result": changed})
    assert "There are no test examples. The settings and the best epoch were chosen by these" in page
    assert "accuracy on 40 validation examples" in page


@pytest.mark.shared_data
def test_a_task_without_classes_shows_its_own_table(facts: dict[str, Any]) -> None:
    result = {key: value for key, value in facts["result"].items() if key != "confusion"}
    page = render_adapted({**facts, "result": result, "table": "entities\n  PER  0.9\n"})
    assert '<pre class="layout">entities\n  PER  0.9</pre>' in page
    assert "Confusions" not in read(page).headings
    nothing = render_adapted({**facts, "result": result, "table": "", "mistakes": []})
    assert read(nothing).headings[:2] == ["Figures", "Training"]


@pytest.mark.shared_data
def test_nothing_that_a_user_wrote_becomes_markup(facts: dict[str, Any]) -> None:
    bad = '<script>alert("x")</script>'
    result = facts["result"] | {
        "confusion": {bad: {bad: 3, "a": 1}, "a": {"a": 2}},
        "notes": [bad],
        "leaks": {"count": 1, "dropped": 0, "first": [{"text": bad, "one": bad, "other": bad}]},
    }
    mistake = {"place": bad, "text": bad, "expected": bad, "said": bad, "probability": 0.5}
    page = render_adapted({**facts, "name": bad, "result": result, "mistakes": [mistake]})
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;alert") >= 9
    read(page)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("classes", "with_numbers", "with_names"), [(4, True, True), (20, False, True), (150, False, False)]
)
def test_a_map_of_few_and_of_many_classes(
    shared_data: Path, classes: int, with_numbers: bool, with_names: bool
) -> None:
    """The class that is said of a text is that of the text before it in the alphabet."""
    names = sorted({row["label"] for row in read_intents(shared_data, AllClasses())})[:classes]
    ordered = sorted(read_intents(shared_data, names), key=lambda row: str(row["text"]))
    confusion: dict[str, Counter[str]] = {}
    for before, row in itertools.pairwise(ordered):
        confusion.setdefault(row["label"], Counter())[before["label"]] += 1
    picture = confusion_map(confusion)
    assert picture.count("<rect") == 1 + sum(map(len, confusion.values()))
    assert ('class="number' in picture) == with_numbers
    assert ('class="tick"' in picture) == with_names
    width, height = (float(side) for side in re.findall(r'viewBox="0 0 (\d+) (\d+)"', picture)[0])
    assert max(width, height) < 900
    assert f"{classes} classes" in picture
    read(picture)


class AllClasses(tuple[str, ...]):
    """Holds every class."""

    def __contains__(self, name: object) -> bool:
        return True


# --- verbs ------------------------------------------------------------------------------------------------------------


@pytest.mark.shared_data
def test_the_report_is_made_of_the_model_and_not_written_twice(made: Path, tmp_path: Path) -> None:
    report = build_report(made, tmp_path / "report")
    assert sorted(report.manifest.files) == ["report.html", "report.json"]
    assert list(report.manifest.parents) == ["model"]
    assert build_report(made, tmp_path / "report") == report
    assert report.manifest.metrics == open_artifact(made).manifest.metrics


@pytest.mark.shared_data
def test_verbs_know_a_task_model(made: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(gristmill, ["report", str(made), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert run.output.startswith("intents: accuracy 0.")
    assert run.output.endswith(f"{tmp_path / 'out' / 'report.html'}\n")
    listed = CliRunner().invoke(gristmill, ["runs", str(made.parent)])
    assert re.search(r"intents +\S+ \S+ +finished +0\.\d+ accuracy", listed.output)
    entry = json.loads(CliRunner().invoke(gristmill, ["runs", str(made.parent), "--json"]).output)[0]
    assert (entry["figure"], entry["state"]) == ("accuracy", "finished")
    assert CliRunner().invoke(gristmill, ["lineage", str(made)]).output.startswith("adapted ")
    checked = CliRunner().invoke(gristmill, ["check", str(made)])
    assert re.search(r"adapted, \d+ files, as written", checked.output)


@pytest.mark.shared_data
def test_a_changed_file_is_not_reported(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "changed")
    (tmp_path / "changed" / "result.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match=r"result\.json"):
        build_report(tmp_path / "changed", tmp_path / "report")
