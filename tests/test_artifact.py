import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from gristmill import artifact as artifacts
from gristmill.artifact import (
    Artifact,
    artifact_key,
    draft,
    exclusive,
    find,
    hash_file,
    is_held,
    lineage,
    open_artifact,
    write_json,
    write_text,
)
from gristmill.errors import CorruptArtifact, InputError, RunError


def make(path: Path, text: str = "hello", **settings: Any) -> Artifact:
    settings = {"kind": "corpus", "format_version": 1, "config": {"text": text}, **settings}
    with draft(path, **settings) as work:
        (work.path / "inner").mkdir(exist_ok=True)
        (work.path / "inner" / "a.txt").write_text(text)
        work.metrics["length"] = len(text)
    return open_artifact(path)


def key_of(text: str) -> str:
    return artifact_key("corpus", 1, {"text": text})


def test_an_artifact_says_what_it_is_and_what_it_was_made_of(tmp_path: Path) -> None:
    corpus = make(tmp_path / "corpus")
    tokenizer = make(tmp_path / "tokenizer", kind="tokenizer", parents={"corpus": corpus}, seed=7)
    assert dataclasses.replace(
        tokenizer.manifest, cost={}, created_at="", gristmill_version=""
    ) == artifacts.Manifest(
        kind="tokenizer",
        format_version=1,
        key=artifact_key("tokenizer", 1, {"text": "hello"}, {"corpus": corpus}, 7),
        content_hash=corpus.manifest.content_hash,  # the same bytes
        config={"text": "hello"},
        parents={
            "corpus": {"path": "../corpus", "kind": "corpus", "content_hash": corpus.manifest.content_hash}
        },
        seed=7,
        metrics={"length": 5},
        cost={},
        files={"inner/a.txt": {"sha256": hash_file(corpus.path / "inner/a.txt"), "size_bytes": 5}},
        created_at="",
        gristmill_version="",
    )
    assert set(tokenizer.manifest.cost) == {"elapsed_seconds", "cpu_seconds"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "tokenizer"]


def test_the_key_follows_from_everything_that_decides_the_content(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two", "other")
    base = {"kind": "corpus", "format_version": 1, "config": {"a": 1}, "parents": {"x": one}, "seed": 0}
    changes: list[dict[str, Any]] = [
        {},
        {"kind": "shards"},
        {"format_version": 2},
        {"config": {"a": 2}},
        {"parents": {"x": two}},
        {"parents": {"y": one}},
        {"parents": {}},
        {"seed": 1},
    ]
    keys = [artifact_key(**{**base, **change}) for change in changes]
    assert len(set(keys)) == len(keys)
    assert keys[0] == artifact_key(**base)


def test_work_that_is_done_is_found(tmp_path: Path) -> None:
    assert find(tmp_path / "corpus", key_of("hello")) is None
    made = make(tmp_path / "corpus")
    assert find(tmp_path / "corpus", key_of("hello")) == made
    assert find(tmp_path / "corpus", key_of("other")) is None


def test_a_damaged_file_is_found_before_use(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    for damage, message in (
        (lambda f: f.write_text("jello"), r"a\.txt was changed"),
        (lambda f: f.write_text("hell"), r"a\.txt has 4 bytes, expected 5"),
        (lambda f: f.unlink(), r"a\.txt is missing"),
    ):
        make(path)
        damage(path / "inner" / "a.txt")
        with pytest.raises(CorruptArtifact, match=message) as error:
            open_artifact(path)
        assert (
            error.value.hint == f"move {path} away and run the same command again: only this stage is rebuilt"
        )
        with pytest.raises(CorruptArtifact):
            find(path, key_of("hello"))


def test_only_the_files_that_are_read_may_be_verified(tmp_path: Path) -> None:
    made = make(tmp_path / "corpus")
    (made.path / "inner" / "a.txt").write_text("jello")
    made.verify(["b.txt"])
    with pytest.raises(CorruptArtifact):
        made.verify(["inner/a.txt"])


@pytest.mark.parametrize(
    "change", [{"config": {"text": "x"}}, {"seed": 1}, {"content_hash": "0"}, {"key": "0"}]
)
def test_a_manifest_that_was_edited_is_found(tmp_path: Path, change: dict[str, Any]) -> None:
    made = make(tmp_path / "corpus")
    write_json(made.path / "manifest.json", dataclasses.asdict(made.manifest) | change)
    with pytest.raises(CorruptArtifact, match=r"manifest\.json was changed"):
        open_artifact(made.path)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"kind": "corpus"}', '{"unknown": 1}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    made = make(tmp_path / "corpus")
    (made.path / "manifest.json").write_text(text)
    with pytest.raises(CorruptArtifact, match=r"manifest\.json is damaged"):
        open_artifact(made.path)


def test_what_is_not_an_artifact_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no directory"):
        open_artifact(tmp_path / "none")
    make(tmp_path / "corpus")
    with pytest.raises(InputError, match="is not a finished artifact") as error:
        open_artifact(tmp_path)
    assert error.value.hint == "it holds: corpus"
    with pytest.raises(InputError, match="is a corpus, expected a shards"):
        open_artifact(tmp_path / "corpus", "shards")


def test_what_stood_there_is_kept(tmp_path: Path) -> None:
    first = make(tmp_path / "corpus", "first")
    make(tmp_path / "corpus", "second")
    third = make(tmp_path / "corpus", "third")
    kept = sorted((tmp_path / "replaced").iterdir())
    assert {open_artifact(path).manifest.config["text"] for path in kept} == {"first", "second"}
    assert f"corpus-{first.manifest.content_hash[:8]}" in {path.name for path in kept}
    assert open_artifact(tmp_path / "corpus") == third


def test_an_error_leaves_the_old_one_and_no_trace(tmp_path: Path) -> None:
    old = make(tmp_path / "corpus", "old")
    with pytest.raises(TypeError), draft(old.path, kind="corpus", format_version=1, config={}) as work:
        (work.path / "half").write_text(b"bytes")  # type: ignore[arg-type]
    assert open_artifact(old.path) == old
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_a_partial_directory_is_kept_for_the_same_key_only(tmp_path: Path) -> None:
    def attempt(config: dict[str, int], *, fail: bool) -> tuple[bool, list[str]]:
        settings: dict[str, Any] = {
            "kind": "checkpoint",
            "format_version": 1,
            "config": config,
            "keep_partial": True,
        }
        try:
            with draft(tmp_path / "model", **settings) as work:
                found = sorted(p.name for p in work.path.iterdir() if p.name != ".key")
                (work.path / f"step-{len(found)}").write_text("x")
                if fail:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        return work.resumed, found

    assert attempt({"a": 1}, fail=True) == (False, [])
    assert attempt({"a": 1}, fail=True) == (True, ["step-0"])
    assert attempt({"a": 2}, fail=True) == (False, [])
    assert attempt({"a": 2}, fail=False) == (True, ["step-0"])
    assert sorted(open_artifact(tmp_path / "model").manifest.files) == ["step-0", "step-1"]
    assert not (tmp_path / ".model.partial").exists()


def test_what_a_killed_attempt_left_is_not_part_of_the_artifact(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"kind": "corpus", "format_version": 1, "config": {}, "keep_partial": True}
    with pytest.raises(ZeroDivisionError), draft(tmp_path / "corpus", **settings) as work:
        raise ZeroDivisionError
    (work.path / ".state.json.tmp").write_text("cut of")
    (work.path / "manifest.json").write_text("{}")  # killed between the manifest and the rename
    with draft(tmp_path / "corpus", **settings) as work:
        assert work.resumed
        (work.path / "a").write_text("a")
    assert list(open_artifact(tmp_path / "corpus").manifest.files) == ["a"]


KILLED = """
    import json, os, shutil, sys
    from pathlib import Path
    from gristmill.artifact import find
    sys.path.insert(0, sys.argv[2])
    from test_artifact import key_of, make

    folder, counter, limit = Path(sys.argv[1]), 0, None

    def kill(event, arguments):  # every file operation of the child is a moment to be killed at
        global counter
        if limit is not None and event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            counter += 1
            if counter == limit:
                os._exit(9)

    sys.addaudithook(kill)
    outcomes = []
    for moment in range(1, 1000):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(folder / "corpus", "old")
        child = os.fork()
        if child == 0:
            limit = moment
            make(folder / "corpus", "new")
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        present = [t for t in ("old", "new") if find(folder / "corpus", key_of(t))]
        finished = make(folder / "corpus", "new")
        outcomes.append((present, finished.manifest.config["text"]))
    print(json.dumps(outcomes))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_killed_at_any_moment_there_is_the_old_one_or_the_new_one_whole(tmp_path: Path) -> None:
    script = textwrap.dedent(KILLED)
    arguments = [sys.executable, "-c", script, str(tmp_path / "run"), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 12
    assert all(present in (["old"], ["new"]) and finished == "new" for present, finished in outcomes)
    assert outcomes[0][0] == ["old"]
    assert outcomes[-1][0] == ["new"]


def test_a_text_file_has_the_old_content_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(artifacts.os, "fsync", _full_disk)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"


def test_a_number_that_json_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a", {"loss": float("nan")})
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_a_plain_error_and_nothing_built_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make(tmp_path / "corpus", "old")
    with monkeypatch.context() as patch:
        patch.setattr(artifacts.os, "fsync", _full_disk)
        with pytest.raises(RunError, match="no space left on the disk") as error:
            make(tmp_path / "corpus", "new")
    assert error.value.exit_status == 1
    assert open_artifact(tmp_path / "corpus") == old
    make(tmp_path / "corpus", "new")


def test_a_disk_that_fills_while_a_stage_writes_is_a_plain_error(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match="no space left"),
        draft(tmp_path / "a", kind="a", format_version=1, config={}),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_can_not_be_written_is_the_users_to_change(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="locked can't be used: Permission denied") as error,
        artifacts.disk_errors(tmp_path),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "locked"))
    assert error.value.exit_status == 2


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), artifacts.disk_errors(tmp_path):
        tmp_path.read_text()


HOLDER = """
    import sys
    from pathlib import Path
    from gristmill.artifact import exclusive
    with exclusive(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_a_directory_belongs_to_one_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert not is_held(run)
    arguments = [sys.executable, "-c", textwrap.dedent(HOLDER), str(run)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_held(run)
        with pytest.raises(InputError, match=f"process {other.pid}"), exclusive(run):
            pass
        other.kill()
        other.communicate()
        assert not is_held(run)  # however it ends
    with exclusive(run):
        assert is_held(run)
        with pytest.raises(InputError, match=re.escape(f"process {os.getpid()}")), exclusive(run):
            pass
    with exclusive(run):
        pass


def test_lineage_goes_back_to_the_text_and_notices_changes(tmp_path: Path) -> None:
    corpus = make(tmp_path / "corpus")
    tokenizer = make(tmp_path / "tokenizer", kind="tokenizer", parents={"corpus": corpus})
    shards = make(tmp_path / "shards", kind="shards", parents={"corpus": corpus, "tokenizer": tokenizer})
    tree = lineage(shards)
    assert (tree["kind"], list(tree["parents"])) == ("shards", ["corpus", "tokenizer"])
    assert tree["parents"]["tokenizer"]["parents"]["corpus"]["state"] == "unchanged"
    make(tmp_path / "corpus", "other")
    assert lineage(shards)["parents"]["corpus"]["state"] == "replaced since"
    (tmp_path / "tokenizer").rename(tmp_path / "gone")
    assert lineage(shards)["parents"]["tokenizer"]["state"] == "missing"


def test_a_run_that_is_moved_keeps_its_lineage(tmp_path: Path) -> None:
    corpus = make(tmp_path / "run" / "corpus")
    make(tmp_path / "run" / "shards", kind="shards", parents={"corpus": corpus})
    (tmp_path / "run").rename(tmp_path / "moved")
    assert lineage(open_artifact(tmp_path / "moved" / "shards"))["parents"]["corpus"]["state"] == "unchanged"


def _full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
