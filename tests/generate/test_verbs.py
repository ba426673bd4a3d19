"""generate, chat, export and import as they are typed."""

import io
import json
import sys

import pytest
from tests.generate.test_portable import make_run, words  # noqa: F401 - a fixture

from gristmill.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory, words):  # noqa: F811
    return str(make_run(tmp_path_factory.mktemp("runs") / "run", words))


def gristmill(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def test_a_prompt_comes_back_with_its_continuation_streamed_or_not(run, capsys):
    plain = gristmill(capsys, "generate", run, "The", "--greedy", "--max-new-tokens", "5")
    streamed = gristmill(capsys, "generate", run, "The", "--greedy", "--max-new-tokens", "5", "--stream")
    assert plain[0] == 0
    assert plain[1].startswith("The")
    assert plain == streamed


def test_each_line_of_stdin_is_a_prompt_and_json_has_a_line_for_each(run, capsys, monkeypatch):
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO("One\n\n床前\n".encode()), encoding="utf-8")
    )
    status, out, err = gristmill(capsys, "generate", run, "-", "--json", "--max-new-tokens", "3")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert [line["prompt"] for line in lines] == ["One", "床前"]
    assert all(len(line["tokens"]) == 3 or line["finish"] == "end" for line in lines)


def test_a_text_that_outgrows_the_model_is_noted_once_on_stderr(run, capsys):
    _, _, err = gristmill(capsys, "generate", run, "The mill", "--max-new-tokens", "60", "--seed", "1")
    assert err.count("note: the model sees 32 tokens") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "nowhere", "x"], "there is no run"),
        (["generate", "RUN", "x", "--top-p", "3"], "top_p"),
        (["generate", "RUN", "x", "--greedy", "--temperature", "1"], "contradict"),
        (["generate", "RUN", "x", "--device", "abacus"], "abacus"),
        (["export", "nowhere", "--out", "OUT"], "there is no run"),
        (["import", "nowhere", "--out", "OUT"], "there is no nowhere"),
    ],
)
def test_wrong_input_is_one_line_with_a_hint_and_status_2(arguments, message, run, tmp_path, capsys):
    arguments = [{"RUN": run, "OUT": str(tmp_path / "out")}.get(argument, argument) for argument in arguments]
    status, out, err = gristmill(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "\nhint: " in err


def test_export_and_import_say_what_to_do_next(run, tmp_path, capsys):
    pytest.importorskip("transformers")
    status, out, err = gristmill(capsys, "export", run, "--out", str(tmp_path / "there"))
    assert (status, err) == (0, "")
    assert "next: " in out
    status, out, err = gristmill(
        capsys, "import", str(tmp_path / "there"), "--out", str(tmp_path / "back"), "--json"
    )
    assert (status, err) == (0, "")
    assert json.loads(out)["kind"] == "checkpoint"


def test_the_prompt_loop_goes_on_sets_and_ends(run, capsys, monkeypatch):
    lines = iter(["The", "", "/set temperature 0.5", "/set temprature 1", "/what", "/help", "/set", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    status, out, err = gristmill(capsys, "chat", run, "--max-new-tokens", "4")
    assert status == 0
    assert out.count("The") == 2
    assert "temperature = 0.5" in err
    assert 'did you mean "temperature"?' in err
    assert '"/what" is no command' in err


def test_an_interrupt_ends_a_text_and_not_the_loop(run, capsys, monkeypatch):
    import gristmill.generate as package

    lines = iter(["The", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))

    def interrupted(*arguments):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(package, "stream", interrupted)
    assert gristmill(capsys, "chat", run)[0] == 0
