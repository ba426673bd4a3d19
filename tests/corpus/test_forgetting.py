"""A text that is forgotten is nowhere any more, does not come back, and nothing else is done again."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import REPOSITORY, contents

from gristmill import artifact
from gristmill.corpus import Corpus, CorpusConfig, build
from gristmill.corpus import forgetting as module
from gristmill.corpus import units as units_module
from gristmill.corpus.build import decide_again
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.corpus.engine import EngineSettings
from gristmill.corpus.forgetting import carry_out, plan
from gristmill.corpus.forgotten import Entry, Forgotten, ForgottenList, list_beside, read_list
from gristmill.corpus.normalise import digest_of
from gristmill.corpus.remains import artifacts_below
from gristmill.corpus.scrub import ScrubSettings
from gristmill.corpus.searching import Request, search
from gristmill.corpus.shards import Item, write_shards
from gristmill.errors import InputError

NAME = "Zaphod Beeblebrox"
FOOTER = "All rights reserved by the publishers of this very page"
ONE_WORKER = EngineSettings(workers=1)
BYTES = {"bos": 256, "eos": 257, "vocab_size": 258}


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(units_module, "MOST_BYTES", 8_000)


def write_raw(folder, texts):
    """Two files of lines: paragraphs, and among them a letter three times, one that is near it, and a broken row."""
    text = (texts / "king-james.txt").read_text(encoding="utf-8")
    parts = [part[:1500] for part in text.split("\n") if len(part) > 400][:44]
    letter = f"Dear sir, I am {NAME} of Erewhon, zaphod@example.org.\n{FOOTER}\n{parts[0]}"
    parts = [f"{part}\n{FOOTER}" for part in parts]
    parts[0] = letter.replace(f", I am {NAME} of Erewhon, zaphod@example.org", "")  # all but who it is from
    rows = [{"text": part, "number": i} for i, part in enumerate([*parts[:9], letter, *parts[9:], letter])]
    rows.append({"text": "A poem that somebody has written, of nine words.", "author": NAME.upper()})
    folder.mkdir()
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "a.jsonl").write_text("".join(lines[:30]), encoding="utf-8")
    (folder / "b.jsonl").write_text("".join(lines[30:]) + f"{{broken {NAME}\n", encoding="utf-8")


def config_of(**settings):
    return CorpusConfig(
        sources={"one": ("raw/a.jsonl",), "two": ("raw/b.jsonl",)}, dedup=DedupSettings(lines=3),
        scrub=ScrubSettings(kinds=("email",)), engine=ONE_WORKER,
        **settings,
    )  # fmt: skip


def encode(texts):
    data = [text.encode() for text in texts]
    return np.frombuffer(b"".join(data), np.uint8).astype(np.int64), np.cumsum([0, *map(len, data)])


def shards_of(corpus, tokenizer, out):
    documents = {split: map(Item._make, corpus.items(split)) for split in ("train", "valid")}
    parents = {"corpus": corpus.artifact, "tokenizer": tokenizer}
    return write_shards(
        out, documents=documents, encode=encode, groups=corpus.groups, parents=parents, **BYTES
    )


def artifact_of(out, kind, parents, config=None, **files):
    with artifact.draft(out, kind=kind, format_version=1, config=config or {}, parents=parents) as work:
        for name, text in files.items():
            (work.path / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return artifact.open_artifact(out)


@pytest.fixture(scope="module")
def template(tmp_path_factory, demo_texts):
    """Raw files and a run: the corpus, an older version of it, a tokenizer, shards and a model."""
    folder = tmp_path_factory.mktemp("template")
    out = folder / "runs" / "mine"
    out.mkdir(parents=True)
    (out / "run.json").write_text("{}")
    write_raw(folder / "raw", demo_texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(units_module, "MOST_BYTES", 8_000)
        build(config_of(minimum_characters=2), out / "corpus")
        corpus = build(config_of(), out / "corpus")
    tokenizer = artifact_of(out / "tokenizer", "tokenizer", {"corpus": corpus})
    shards = shards_of(Corpus(corpus), tokenizer, out / "shards")
    artifact_of(out / "model", "checkpoint", {"shards": shards, "tokenizer": tokenizer})
    return folder


@pytest.fixture
def run(template, tmp_path, monkeypatch):
    """A copy of the run in a folder where "raw" are its raw files."""
    shutil.copytree(template, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("runs/mine")


@pytest.fixture
def fresh(tmp_path):
    """Builds the corpus from the raw files elsewhere, with the list of another."""

    def built(run):
        out = tmp_path / "fresh" / "corpus"
        out.parent.mkdir()
        read_list(list_beside(run / "corpus")).write(list_beside(out))
        return build(config_of(), out)

    return built


def forget(run, **request):
    out = run / "corpus"
    artifact.find(out, "")
    counted = []

    def encoder_of(tokenizer):
        def counting(texts):
            counted.extend(texts)
            return encode(texts)

        return counting

    found = search(Corpus(out), Request(**request)) if request else None
    return carry_out(out, found, encoder_of=encoder_of), counted


def readable(folder):
    """Yields the path of each file and all that can be read in it, decompressed and decoded."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            columns = pyarrow.parquet.read_table(path).to_pydict()
            data = "\n".join(str(value) for values in columns.values() for value in values).encode()
        elif path.name.endswith("tokens.bin"):
            tokens = np.frombuffer(data, "<u2")
            data = bytes(tokens[tokens < 256].astype(np.uint8))
        yield path.relative_to(folder).as_posix(), " ".join(data.decode("utf-8", "replace").lower().split())


def holding(folder, words=NAME):
    return [path for path, text in readable(folder) if words.lower() in text]


def test_a_forgotten_text_is_in_no_byte_of_any_file(run):
    before = holding(run)
    assert {path.split("/")[0] for path in before} == {"corpus", "replaced", "shards"}
    assert sum(path.endswith("texts.parquet") for path in before) == 4  # two units, in two versions
    assert sum(path.endswith("broken.jsonl") for path in before) == 2
    letter = next(text for text in json_lines(Path("raw/a.jsonl")) if NAME in text)
    done, _ = forget(run, containing=(NAME,))
    assert holding(run) == []
    assert not (run / "replaced").exists()
    assert {path.name.rpartition("-")[0] for path in done.removed} == {"corpus", "shards"}
    # nor is there a hash of it but in the list
    for path in (run / "corpus").rglob("*.parquet"):
        columns = str(pyarrow.parquet.read_table(path).to_pydict())
        assert str(digest_of(letter)) not in columns
        assert str(int.from_bytes(digest_of(letter)[:8])) not in columns
    assert holding(run, digest_of(letter)[:8].hex()) == ["corpus.forgotten.json"]


def json_lines(path):
    return [
        json.loads(line)["text"] for line in path.read_text().splitlines() if not line.startswith("{broken")
    ]


def test_forgetting_gives_the_bytes_of_a_build_with_the_list(run, fresh):
    done, _ = forget(run, containing=(NAME,))
    built = fresh(run)
    assert contents(done.corpus.path) == contents(built.path)
    assert (built.manifest.key, built.manifest.metrics) == (
        done.corpus.manifest.key,
        done.corpus.manifest.metrics,
    )
    assert built.manifest.metrics["dropped"]["forgotten"]["documents"] == 3
    assert built.manifest.metrics["problems"] == ["raw/b.jsonl: forgotten"]
    again = shards_of(
        Corpus(built), artifact.open_artifact(run / "tokenizer"), built.path.with_name("shards")
    )
    assert contents(run / "shards") == contents(again.path)


def test_two_requests_are_one(run, fresh):
    forget(run, containing=("that somebody has written",))
    done, _ = forget(run, containing=(NAME,))
    listed = read_list(done.list_path)
    assert len(listed.entries) == 3  # the letter, the poem and the broken row
    ForgottenList(tuple(reversed(listed.entries))).write(done.list_path)
    built = fresh(run)
    assert contents(done.corpus.path) == contents(built.path)
    assert built.manifest.key == done.corpus.manifest.key


def test_what_the_raw_files_still_have_is_not_read_again(run):
    done, _ = forget(run, containing=(NAME,))
    same = build(config_of(), run / "corpus")
    assert same.manifest.created_at == done.corpus.manifest.created_at
    assert same.manifest.key == done.corpus.manifest.key
    with Path("raw/a.jsonl").open("a") as file:  # it is read anew
        file.write(json.dumps({"text": "Something new, and quite enough of it."}) + "\n")
    grown = build(config_of(), run / "corpus")
    assert holding(grown.path) == []
    assert "Something new" in "".join(Corpus(grown).texts())


def test_bytes_that_are_read_in_another_way_are_not_read_again_either(tmp_path):
    text = tmp_path / "letters.txt"
    text.write_text(f"One letter.\n%\nAnother, by {NAME},\n\nof two parts.\n%\n\nA third.\n")

    def built(separator):
        config = CorpusConfig(
            sources=(str(text),), document_separator=separator, valid_fraction=0.0, engine=ONE_WORKER
        )
        return Corpus(build(config, tmp_path / "run" / "corpus"))

    assert next(built("%").documents()).text == "One letter.\n"
    forget(tmp_path / "run", containing=(NAME,))
    # what reaches into the forgotten bytes goes with them
    assert [d.text for d in built("").documents()] == ["A third.\n"]


def test_only_the_units_that_hold_it_are_written_again(run, monkeypatch):
    corpus = Corpus(run / "corpus")
    holds = {path.split(".")[0] for path in holding(run / "corpus" / "units")}
    inodes = {path.name: path.stat().st_ino for path in (run / "corpus" / "units").iterdir()}
    looked = []
    look = sys.modules["gristmill.corpus.looks"]._look
    monkeypatch.setattr("gristmill.corpus.looks._look", lambda job: looked.append(job.unit) or look(job))
    done, _ = forget(run, containing=(NAME,))
    assert (done.units, done.units_written) == (len(corpus.units), len(holds)) == (10, 2)
    assert set(looked) == holds
    now = {path.name: path.stat().st_ino for path in (run / "corpus" / "units").iterdir()}
    assert {name.split(".")[0] for name in now if now[name] != inodes[name]} == holds


def test_only_documents_whose_text_changed_are_encoded_again(run):
    done, encoded = forget(run, containing=(NAME,))
    # the letter that was near is kept now, the line that is not repeated stays in it, and goes from the next document
    assert [text.split(".")[0][:23] for text in encoded] == ["Dear sir", "Thus the heavens and th"]
    assert [text.count(FOOTER) for text in encoded] == [1, 0]
    assert [(one.documents, one.encoded) for one in done.shards] == [(44, 2)]


def test_without_the_older_corpus_all_is_encoded(run):
    planned = plan(run / "corpus", search(Corpus(run / "corpus"), Request(containing=(NAME,))))
    planned.listed.write(planned.list_path)
    decide_again(run / "corpus")
    shutil.rmtree(run / "replaced")
    done, encoded = forget(run)
    assert done.shards[0].encoded == done.shards[0].documents == len(encoded) == 44
    assert holding(run) == []


def test_the_same_text_is_forgotten_too_and_what_is_near_only_if_asked(run):
    corpus = Corpus(run / "corpus")
    letter = next(d for d in corpus.documents() if NAME in d.text)
    found = search(corpus, Request(ids=(letter.id[:9],)))
    assert [(d.source, d.state) for d in found.documents] == [
        ("raw/a.jsonl", "train"),
        ("raw/b.jsonl", "dropped: duplicate"),
    ]
    (near,) = found.near
    assert near.document.state == "dropped: near duplicate"
    assert near.document.text.startswith("Dear sir.")
    assert near.cover > 0.98
    wider = search(corpus, Request(ids=(letter.id,), near=0.9))
    assert [d.text[:9] for d in wider.documents] == ["Dear sir.", "Dear sir,", "Dear sir,"]
    assert wider.near == ()
    forget(run, ids=(letter.id,), near=0.9)
    assert not any(d.text.startswith("Dear sir") for d in Corpus(run / "corpus").documents())


def test_it_is_found_by_id_key_place_and_what_is_in_it(run):
    corpus = Corpus(run / "corpus")
    found = search(corpus, Request(containing=("zaphod \n BEEBLEBROX",))).documents
    states = ["train", "dropped: broken row", "dropped: duplicate", "train"]
    assert [d.state for d in found] == states
    assert [d.preview[:9] for d in found] == ["Dear sir,", "{broken Z", "Dear sir,", "A poem th"]
    letter = found[0]
    key = next(key for id, _, key, _ in corpus.items() if id == letter.id)
    for request in (
        Request(keys=(key,)),
        Request(at=("raw/a.jsonl:10",)),
        Request(at=(f"{Path('raw').resolve()}/b.jsonl:16",)),
        Request(containing=("I am Zaphod",)),
        Request(containing=("erewhon, zaphod@example.org.",)),
    ):
        assert {d.digest for d in search(corpus, request).documents} == {letter.digest}
    (broken,) = search(corpus, Request(at=("raw/b.jsonl:18",))).documents
    assert (broken.row, broken.state) == (-1, "dropped: broken row")
    assert {d.source for d in search(corpus, Request(at=("raw/b.jsonl",))).documents} == {
        "raw/a.jsonl", "raw/b.jsonl"  # that has one of its texts
    }  # fmt: skip


@pytest.mark.parametrize("name", ["lines.txt.gz", "wide.txt", "rows.parquet"])
def test_a_line_is_one_of_the_decompressed_file(tmp_path, name):
    lines = ["One thing", "%", "Another 这是 Ċ thing", "%", "A third thing"]
    path = tmp_path / name
    if name == "wide.txt":
        path.write_bytes("\n".join(lines).encode("utf-16"))
    elif name == "rows.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": lines}), path)
    else:
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    separator = None if name == "rows.parquet" else "%"
    config = CorpusConfig(sources=(str(path),), document_separator=separator, engine=ONE_WORKER)
    corpus = Corpus(build(config, tmp_path / "corpus"))
    (found,) = search(corpus, Request(at=(f"{path}:3",))).documents
    assert found.text.strip() == lines[2]


def test_no_raw_file_is_needed(run):
    shutil.rmtree("raw")
    done, _ = forget(run, containing=(NAME,))
    assert holding(run) == []
    assert done.corpus.manifest.metrics["dropped"]["forgotten"]["documents"] == 3


def test_the_one_document_that_is_cut_is_found_by_the_ids_of_its_halves(tmp_path, demo_texts):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "long.txt").write_bytes((demo_texts / "king-james.txt").read_bytes()[:9_000])
    (raw / "short.txt").write_text(f"A note by {NAME}.")
    out, fresh = tmp_path / "run" / "corpus", tmp_path / "fresh" / "corpus"
    config = CorpusConfig(sources=(str(raw),), engine=ONE_WORKER)
    corpus = Corpus(build(config, out))
    (half,) = corpus.documents("valid")
    (found,) = search(corpus, Request(ids=(half.id,))).documents
    assert (found.source, found.state) == (half.source, "train, its end valid")
    forget(out.parent, containing=(NAME,))
    fresh.parent.mkdir()
    read_list(list_beside(out)).write(list_beside(fresh))
    assert contents(out) == contents(build(config, fresh).path)


# --- what else there is ---------------------------------------------------------------------------------------------


def test_what_learned_from_it_is_named(run):
    build(config_of(), run.parent / "other" / "corpus")
    done, _ = forget(run, containing=(NAME,))
    assert {(one.path.relative_to(run.parent).as_posix(), one.kind, one.how) for one in done.remaining} == {
        ("mine/model", "checkpoint", "learned from it"),
        ("mine/tokenizer", "tokenizer", "learned from it"),
        ("other/corpus", "corpus", "holds it"),
    }
    again, _ = forget(run)  # the corpus that they descend from is gone by now
    assert again.remaining == done.remaining


def test_samples_that_quote_it_are_removed(run):
    corpus, model = (artifact.open_artifact(run / name) for name in ("corpus", "model"))
    letter = next(d.text for d in Corpus(corpus).documents() if NAME in d.text)
    samples = {
        "prompted": {"prompt": letter[:24], "continuation": "x"},
        "recited": {"prompt": "Now", "continuation": f"and so {letter[300:380].upper()} …"},
        "filled": {"pieces": [letter[:9], letter[9:17], letter[17:40]]},
        "harmless": {"prompt": "Dear sir, I am", "continuation": "of these, and the Lord said"},
    }
    for name, sample in samples.items():
        made = artifact_of(
            run / name, "evaluation", {"model": model, "corpus": corpus},
            {"samples": {"prompts": ["Dear sir, I am"]}}, samples_jsonl=json.dumps(sample) + "\n",
        )  # fmt: skip
        artifact_of(run / f"{name}-report", "report", {"evaluation": made}, report_html=name)
    artifact_of(run / "page", "corpus page", {"corpus": corpus}, corpus_html="<p>nothing</p>")
    done, _ = forget(run, containing=(NAME,))
    assert {path.name for path in run.iterdir() if path.is_dir()} == {
        "corpus", "tokenizer", "shards", "model", "harmless", "harmless-report"
    }  # fmt: skip
    assert {(one.path.name, one.how) for one in done.remaining} == {
        ("harmless", "was made of it"), ("harmless-report", "was made of it"),
        ("model", "learned from it"), ("tokenizer", "learned from it"),
    }  # fmt: skip


def test_shards_whose_tokenizer_is_gone_are_removed(run):
    (run / "tokenizer" / "manifest.json").unlink()
    done, _ = forget(run, containing=(NAME,))
    assert done.shards == ()
    assert run / "shards" in done.removed
    assert holding(run) == []


def test_a_list_that_a_recipe_names_holds_for_several_corpora(run):
    config = config_of(forgotten="shared.json")
    with pytest.raises(InputError, match=r"corpus\.forgotten: there is no file"):
        build(config, Path("one/corpus"))
    Path("shared.json").write_text("{}")
    for name in ("one", "two"):
        build(config, Path(name, "corpus"))
    forget(Path("one"), containing=(NAME,))
    assert not list_beside(Path("one/corpus")).exists()
    assert holding(Path("two"))
    done, _ = forget(Path("two"))
    assert holding(Path("one")) == holding(Path("two")) == []
    assert done.units_written == 2


def test_unfinished_work_goes_and_training_is_named(run):
    (run / ".shards.partial").mkdir()
    (run / ".shards.partial" / "train.tokens.bin").write_bytes(np.array(list(NAME.encode()), "<u2").tobytes())
    (run / ".model.partial" / ".work").mkdir(parents=True)
    done, _ = forget(run, containing=(NAME,))
    assert holding(run) == []
    assert [one.path.name for one in done.remaining if one.how.startswith("unfinished")] == [".model.partial"]


def test_nothing_is_changed_by_a_plan(run):
    before = contents(run)
    planned = plan(run / "corpus", search(Corpus(run / "corpus"), Request(containing=(NAME,))))
    assert {one.path.name.partition("-")[0]: one.how for one in planned.affected} == {
        "corpus": "holds it", "shards": "holds it", "tokenizer": "learned from it", "model": "learned from it",
    }  # fmt: skip
    assert contents(run) == before


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said(run):
    corpus = Corpus(run / "corpus")
    with pytest.raises(InputError, match='no document has the id "zzz"'):
        search(corpus, Request(ids=("zzz",)))
    with pytest.raises(InputError, match='"" begins'):
        search(corpus, Request(ids=("",)))
    with pytest.raises(InputError, match="is no file that the corpus was read from"):
        search(corpus, Request(at=("elsewhere.txt:4",)))
    with pytest.raises(InputError, match="has no line 4,000"):
        search(corpus, Request(at=("raw/a.jsonl:4000",)))
    with pytest.raises(InputError, match="its list is empty"):
        plan(run / "corpus", None)
    with pytest.raises(InputError, match="nothing would be left"):
        forget(run, at=("raw/a.jsonl", "raw/b.jsonl"))
    assert not list_beside(run / "corpus").exists()


def test_a_list_that_is_gone_or_damaged_stops_a_build(run):
    forget(run, containing=(NAME,))
    path = list_beside(run / "corpus")
    saved = path.read_text()
    path.write_text(saved[:-40])
    with pytest.raises(InputError, match=r"corpus\.forgotten\.json is damaged"):
        build(config_of(), run / "corpus")
    path.unlink()
    with pytest.raises(InputError, match="was built with a list of forgotten documents"):
        build(config_of(), run / "corpus")
    path.write_text(saved.replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="a later version"):
        build(config_of(), run / "corpus")


def test_an_id_that_was_forgotten_is_no_error(run):
    letter = next(d for d in Corpus(run / "corpus").documents() if NAME in d.text)
    forget(run, ids=(letter.id,))
    done, encoded = forget(run, ids=(letter.id,))
    assert (done.units_written, done.shards, done.removed, encoded) == (0, (), (), [])


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=6),
    st.integers(0, 70),
    st.integers(0, 9),
)
def test_a_document_is_forgotten_where_it_overlaps_a_listed_place(places, start, length):
    entry = Entry("00" * 16, tuple(("raw", begin, begin + size) for begin, size in places))
    found = Forgotten((entry,)).of({"file": "raw", "other": "else"})
    mine = set(range(start, start + max(1, length)))
    expected = any(mine & set(range(begin, begin + max(1, size))) for begin, size in places)
    assert found.has(bytes(range(16)), "file", start, start + length) == expected
    assert not found.has(bytes(range(16)), "other", start, start + length)
    assert found.has(bytes(16), "other", start, start + length)


# --- interruptions --------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """What a test stops a command with."""


STAGES = ["decide_again", "reshard", "_renew_shards", "_remove", "_sweep", "_remaining"]


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_the_same_command_goes_on_after_any_stage(run, fresh, monkeypatch, is_after):
    for stage in STAGES:
        original = getattr(module, stage)

        def stop(*arguments, original=original, **named):
            if is_after:
                original(*arguments, **named)
            raise Stopped

        monkeypatch.setattr(module, stage, stop)
        with pytest.raises(Stopped):
            forget(run, containing=(NAME,))
        monkeypatch.setattr(module, stage, original)
        assert artifact.open_artifact(run / "corpus")  # the old one or the new one, whole
    forget(run, containing=(NAME,))
    assert holding(run) == []
    built = fresh(run)
    assert contents(run / "corpus") == contents(built.path)
    again = shards_of(
        Corpus(built), artifact.open_artifact(run / "tokenizer"), built.path.with_name("shards")
    )
    assert contents(run / "shards") == contents(again.path)
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
left = int(sys.argv[2])
CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "shutil.rmtree")

def count(event, arguments):
    global left
    is_write = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
    if armed and (is_write or event in CHANGES):
        left -= 1
        if left < 0:
            os._exit(9)

armed = False
sys.addaudithook(count)
from tests.corpus import test_forgetting as tests
tests.units_module.MOST_BYTES = 8_000
import daft
armed = True
tests.forget(Path(sys.argv[1]), containing=(tests.NAME,))
armed = False
"""


@pytest.mark.slow
def test_a_command_that_is_killed_again_and_again_ends_in_the_same_bytes(run, fresh):
    ended, kills = None, 0
    while ended != 0:
        # each time a little further, counted in files that are opened, renamed, linked or removed
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, run, str(3 + 29 * kills), REPOSITORY], check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        ).returncode  # fmt: skip
        assert ended in (0, 9)
        kills += ended == 9
    assert kills > 3
    assert holding(run) == []
    assert contents(run / "corpus") == contents(fresh(run).path)
    assert {one.path.name for one in artifacts_below(run)} == {"corpus", "tokenizer", "shards", "model"}
