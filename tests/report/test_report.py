import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixture_run import make_run

from gristmill.artifact import exclusive, open_artifact
from gristmill.cli import lineage_, main, report_, runs_
from gristmill.errors import CorruptArtifact, InputError
from gristmill.report import build_report
from gristmill.report.collect import gather, thin_curve
from gristmill.report.page import render

SECTIONS = [
    "What went in",
    "Tokenizer",
    "Shards",
    "Model",
    "Training",
    "Validation",
    "Samples",
    "Cost",
    "Lineage",
    "Do it again",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return render(gather(run)[0])


def test_a_report_is_an_artifact_made_of_every_stage(run: Path, tmp_path: Path) -> None:
    report = build_report(run, tmp_path / "report")
    assert report == open_artifact(tmp_path / "report", "report")
    assert sorted(report.manifest.files) == ["report.html", "report.json"]
    assert list(report.manifest.parents) == ["corpus", "tokenizer", "shards", "model", "evaluation"]
    assert report.manifest.metrics["bits_per_byte"] == 1.412


def test_the_same_run_gives_the_same_report_and_it_is_not_written_twice(run: Path, tmp_path: Path) -> None:
    first = build_report(run, tmp_path / "report")
    assert build_report(run, tmp_path / "report") == first
    assert not (tmp_path / "replaced").exists()


def test_the_page_opens_offline(page: str) -> None:
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<img|<iframe| src=", page)
    assert "default-src 'none'" in page


def test_the_page_is_well_formed_and_has_every_section(page: str) -> None:
    parser = _Tree()
    parser.feed(page)
    assert parser.open == []
    assert parser.headings == SECTIONS
    assert "Not run." not in page


def test_the_page_and_the_json_say_the_same_numbers(run: Path, page: str) -> None:
    facts = gather(run)[0]
    assert facts["overall"]["bits_per_byte_interval"] == pytest.approx([1.381, 1.443])
    for text in (
        "1.412",
        "1.381 to 1.443",
        "3.41 million",
        "3,412,224",
        "662 kB",
        "gb18030",
        "exact duplicate",
    ):
        assert text in page
    assert "46 % of the measured peak: 304 GFLOP/s of 653 GFLOP/s" in page
    assert facts["cost"]["energy"]["watt_hours"] == pytest.approx(
        facts["cost"]["cpu_seconds"] * 10 / 3600, abs=1e-3
    )
    assert "10 W for each busy CPU core" in page


def test_every_picture_has_a_name_for_those_who_hear_the_page(page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) > 8
    assert all("<title>" in p or 'aria-hidden="true"' in p for p in pictures)
    assert page.count("<desc>nats per token over") == 2


def test_chinese_is_marked_as_chinese(page: str) -> None:
    assert '<p lang="zh-Hans"><b>明月</b>何时照我还' in page
    assert "PingFang SC" in page


def test_settings_that_are_not_set_are_not_shown(run: Path) -> None:
    facts = gather(run)[0]
    settings = {"temperature": 0.8, "stop": [], "top_k": None}
    page = render({**facts, "samples": [{"prompt": "a", "continuation": "b", "settings": settings}]})
    assert "<footer>temperature 0.8</footer>" in page


def test_pieces_of_a_sentence_join_to_the_sentence(run: Path) -> None:
    splits = gather(run)[0]["splits"]
    assert [s["language"] for s in splits] == ["en", "zh"]
    for split in splits:
        assert "".join(piece["text"] for piece in split["pieces"]) == split["text"]
        assert sum(piece["tokens"] for piece in split["pieces"]) == split["tokens"]


def test_nothing_that_a_user_wrote_becomes_markup(tmp_path: Path) -> None:
    page = render(gather(make_run(tmp_path / "hostile", steps=24, hostile=True))[0])
    assert '<script>alert("x")' not in page
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;alert") >= 7
    parser = _Tree()
    parser.feed(page)
    assert parser.open == []


@pytest.mark.parametrize("stage", ["corpus", "tokenizer", "shards", "model", "evaluation"])
def test_a_stage_that_has_not_run_is_shown_so(stage: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", steps=24)
    (run / stage).rename(run / f".{stage}.partial")
    facts, stages = gather(run)
    assert stage not in stages
    assert facts[stage] is None
    page = render(facts)
    sections = {"model": 2, "evaluation": 1}  # model and training; samples (the trainer has validated, too)
    assert page.count("Not run.") == sections.get(stage, 1)


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"name": "early"}', encoding="utf-8")
    page = render(gather(tmp_path)[0])
    assert page.count("Not run.") == len(SECTIONS)
    assert "No model has been trained in this run yet." in page


def test_an_interrupted_run_says_where(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / ".model.partial").mkdir()
    assert "interrupted in its model stage" in render(gather(tmp_path)[0])


@pytest.mark.parametrize("stage", ["corpus", "tokenizer", "shards", "model", "evaluation"])
def test_metrics_that_are_missing_are_left_out(stage: str, run: Path) -> None:
    facts = gather(run)[0]
    render({**facts, stage: {}, "overall": facts["overall"] if stage != "evaluation" else {}, "settings": {}})


def test_stages_taken_from_another_run_are_found_through_their_children(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", steps=24)
    (tmp_path / "second").mkdir()
    (run / "evaluation").rename(tmp_path / "second" / "evaluation")
    assert list(gather(tmp_path / "second")[1]) == [
        "evaluation"
    ]  # parents are named from where the child was made
    (tmp_path / "second" / "evaluation").rename(run / "evaluation")
    moved = tmp_path / "demo" / "elsewhere"
    (run / "corpus").rename(moved)
    assert "corpus" not in gather(run)[1]


def test_a_parent_that_was_replaced_since_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", steps=24)
    make_run(tmp_path / "other", steps=48)
    (run / "model").rename(run / "old")
    (tmp_path / "other" / "model").rename(run / "model")
    assert "model replaced since" in render(gather(run)[0])


def test_a_curve_that_was_changed_is_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", steps=24)
    with (run / "model" / "curve.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(CorruptArtifact, match=r"curve\.jsonl has"):
        build_report(run, tmp_path / "report")


@pytest.mark.parametrize("text", ["[]", "{", '"x"'])
def test_a_damaged_run_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.json"):
        gather(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        build_report(tmp_path, tmp_path / "report")
    with pytest.raises(InputError, match="there is no directory"):
        build_report(tmp_path / "none", tmp_path / "report")


def test_a_curve_is_thinned_to_means_and_their_range() -> None:
    lines = [{"step": s, "loss_nats": float(s), "learning_rate": 1.0} for s in range(1, 1001)]
    lines.append({"step": 500, "validation_nats_per_token": 2.0})
    lines.append({"step": 1000, "loss_nats": float("nan"), "tokens_per_second": float("inf")})
    curve = thin_curve(lines, points=100)
    assert len(curve["training"]) == 100
    assert curve["training"][0] == {
        "step": 5.5,
        "loss_nats": 5.5,
        "learning_rate": 1.0,
        "loss_nats_low": 1.0,
        "loss_nats_high": 10.0,
    }
    assert [v["step"] for v in curve["validation"]] == [500]


def test_steps_that_a_resumed_run_writes_again_count_once() -> None:
    lines = [{"step": s, "loss_nats": 1.0} for s in (1, 2, 3)] + [
        {"step": s, "loss_nats": 2.0} for s in (2, 3, 4)
    ]
    assert [p["loss_nats"] for p in thin_curve(lines)["training"]] == [1.0, 2.0, 2.0, 2.0]


# The verbs.


def test_report_prints_the_figure_and_the_path(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(report_.command, [str(run), "--out", str(tmp_path / "out")])
    assert (
        result.output
        == f"demo: 1.412 bits per byte (95 % interval 1.381 to 1.443)\n{tmp_path}/out/report.html\n"
    )
    as_json = CliRunner().invoke(report_.command, [str(run), "--out", str(tmp_path / "out"), "--json"])
    assert json.loads(as_json.output)["model"]["steps"] == 1200


def test_lineage_goes_back_to_the_corpus(run: Path) -> None:
    result = CliRunner().invoke(lineage_.command, [str(run / "shards")])
    lines = [re.sub(r"[0-9a-f]{12}  \S+  \S+", "*", line) for line in result.output.splitlines()]
    assert lines == [
        "shards *",
        "├── corpus: corpus *",
        "└── tokenizer: tokenizer *",
        "    └── corpus: corpus *",
    ]
    whole = json.loads(CliRunner().invoke(lineage_.command, [str(run), "--json"]).output)
    assert whole["kind"] == "evaluation"
    assert whole["parents"]["model"]["parents"]["tokenizer"]["state"] == "unchanged"


def test_check_names_every_damaged_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "demo", steps=24)
    monkeypatch.chdir(tmp_path)
    assert _exit(["check", "demo"]) == 0
    assert "demo/model: checkpoint, 2 files, as written" in capsys.readouterr().out
    (tmp_path / "demo/model/model.safetensors").write_text("changed")
    (tmp_path / "demo/shards/train.tokens.bin").write_text("short")
    assert _exit(["check", "demo"]) == 2
    printed = capsys.readouterr()
    assert "demo/shards: shards, 1 file, 1 damaged" in printed.out
    assert printed.err.splitlines() == [
        "error: demo/model/model.safetensors was changed since it was written (its hash differs)",
        "       demo/shards/train.tokens.bin has 5 bytes, expected 999",
        "hint: move demo/model, demo/shards away and run the same recipe again: only that is rebuilt",
    ]


def test_check_finds_a_damaged_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "demo", steps=24)
    (run / "corpus" / "manifest.json").write_text('{"kind": "corp')
    assert _exit(["check", str(run), "--json"]) == 2
    results = json.loads(capsys.readouterr().out)
    assert [bool(r["problems"]) for r in results] == [True, False, False, False, False]


def test_check_of_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit(["check", str(tmp_path)]) == 2
    assert "is not a finished artifact" in capsys.readouterr().err
    assert _exit(["check", str(tmp_path / "none")]) == 2


def test_runs_are_listed_with_their_state(tmp_path: Path) -> None:
    make_run(tmp_path / "done", steps=24)
    make_run(tmp_path / "half", steps=24)
    (tmp_path / "half" / "model").rename(tmp_path / "half" / ".model.partial")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "no run").mkdir()
    runs = json.loads(CliRunner().invoke(runs_.command, [str(tmp_path), "--json"]).output)
    states = {Path(run["path"]).name: (run["state"], run["bits_per_byte"]) for run in runs}
    assert states == {
        "done": ("finished", 1.412),
        "half": ("interrupted", 1.412),
        "broken": ("damaged", None),
    }
    with exclusive(tmp_path / "half"):
        runs = json.loads(CliRunner().invoke(runs_.command, [str(tmp_path), "--json"]).output)
    assert {Path(run["path"]).name: run["state"] for run in runs}["half"] == "running"
    assert "2026-11-22 04:27" in CliRunner().invoke(runs_.command, [str(tmp_path)]).output


def test_a_folder_without_runs_is_said_to_have_none(tmp_path: Path) -> None:
    assert CliRunner().invoke(runs_.command, [str(tmp_path)]).output == f"no runs in {tmp_path}\n"
    assert _exit(["runs", str(tmp_path / "none")]) == 2


def _exit(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


class _Tree(HTMLParser):
    """Follows which elements are open, and collects the sections' headings."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """SVG elements without content close themselves."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
