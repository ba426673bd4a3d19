"""A teacher's texts: a function of seed and number, and each says where it is from."""

import json
from pathlib import Path

import pytest

from gristmill.corpus import Corpus, CorpusConfig, build
from gristmill.corpus.provenance import trace
from gristmill.errors import InputError
from gristmill.generate.completing import Completion
from gristmill.generate.load import Loaded, load_run
from gristmill.objectives.causal import Causal
from gristmill.objectives.masked import Masked
from gristmill.synthesis import teaching
from gristmill.synthesis.teaching import (
    Prompt,
    TeachConfig,
    _finished,
    prompts_of_corpus,
    prompts_of_files,
    teach,
)
from tests.synthesis.checkpoints import SENTENCES, checkpoint

TABLE = {"unfinished": "keep", "part_documents": 4}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_run(checkpoint(tmp_path_factory.mktemp("teacher") / "model", Causal()))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("texts")
    lines = [
        {"text": f"{sentence} {number}. {SENTENCES[number % 5]}", "license": "CC0-1.0"}
        for number, sentence in enumerate(SENTENCES * 2)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Corpus(build(CorpusConfig(sources=(str(folder),), valid_fraction=0.0), folder / "corpus"))


def config(documents: int = 10, **changes) -> TeachConfig:
    from gristmill.config import from_dict

    table = {
        **TABLE, "documents": documents, "sampling": {"max_new_tokens": 12},
        "filters": {"minimum_characters": 1, "rules": []},
    }  # fmt: skip
    return from_dict(TeachConfig, {**table, **changes})


def rows(out: Path) -> dict[int, dict]:
    files = [*(out / "texts").glob("*.jsonl"), *(out / "dropped").glob("*.jsonl")]
    lines = [json.loads(line) for file in files for line in file.read_text().split("\n") if line]
    return {line["synthetic"]["number"]: line for line in lines}


PROMPTS = [Prompt(text=text, source="p.txt") for text in ("The old", "A small", "他")]


def test_a_text_depends_on_seed_and_number_alone(teacher: Loaded, tmp_path: Path) -> None:
    few, many, other = (
        rows(teach(teacher, PROMPTS, config(n), tmp_path / str(n + seed), seed=seed).path)
        for n, seed in ((4, 0), (10, 0), (4, 1))
    )
    assert [few[n]["text"] for n in range(4)] == [many[n]["text"] for n in range(4)]
    assert [few[n]["text"] for n in range(4)] != [other[n]["text"] for n in range(4)]
    assert len({many[n]["text"] for n in range(10)}) > 5, (
        "the same prompt is not gone on from in the same way"
    )


def test_prompts_are_taken_in_turn(teacher: Loaded, tmp_path: Path) -> None:
    made = rows(teach(teacher, PROMPTS, config(9), tmp_path / "out").path)
    prompts = [made[n]["synthetic"]["prompt"] for n in range(9)]
    for turn in range(3):
        assert sorted(prompts[3 * turn : 3 * turn + 3]) == sorted(p.text for p in PROMPTS)


def test_a_text_says_who_wrote_it_and_after_what(teacher: Loaded, corpus: Corpus, tmp_path: Path) -> None:
    prompts = prompts_of_corpus(corpus, teacher.tokenizer, tokens=4, most=5)
    assert len(prompts) == 5
    documents = {document.id: document for document in corpus.documents()}
    for prompt in prompts:
        assert documents[prompt.document].text.startswith(prompt.text)
    made = teach(teacher, prompts, config(5), tmp_path / "out", against=[corpus], seed=3)
    row = next(iter(rows(made.path).values()))
    origin = row["synthetic"]
    assert row["text"].startswith(origin["prompt"])
    assert row["licence"] == "CC0-1.0", "that of the document it begins with"
    assert origin["model"] == teacher.artifact.manifest.content_hash
    assert (origin["by"], origin["seed"], origin["temperature"], origin["top_p"]) == ("teacher", 3, 1.0, 0.95)
    assert origin["begins_at"] == len(origin["prompt"])
    assert set(made.manifest.parents) == {"teacher", "against_1"}


def test_a_corpus_reads_them_and_a_trace_tells_that_nobody_wrote_them(
    teacher: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fluent(decoder, tokenizer, prompts, settings, *, seeds, batch_size):
        return [
            Completion(
                prompt=prompt, text=f" {SENTENCES[seed % 6]} {seed}.", tokens=(), prompt_tokens=0, finish="end", dropped_tokens=0,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]  # fmt: skip

    monkeypatch.setattr(teaching, "complete", fluent)
    made = teach(teacher, PROMPTS, config(6, licence="ours"), tmp_path / "out")
    sources = {"taught": (str(made.path / "texts"),)}
    read = Corpus(build(CorpusConfig(sources=sources, valid_fraction=0.0), tmp_path / "corpus"))
    assert read.metrics["documents"] == made.manifest.metrics["kept"] > 0
    key = next(key for _, _, key, _ in read.items())
    found = trace(read, key)
    assert found.metadata["synthetic"]["by"] == "teacher"
    assert found.licence == "ours"
    assert found.group.startswith("taught/")


def test_prompts_come_from_lines_and_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Once\n\nTwice upon\n")
    (tmp_path / "b.jsonl").write_text('{"text": "Thrice", "licence": "CC0-1.0"}\n')
    assert [(p.text, p.licence) for p in prompts_of_files([str(tmp_path)])] == [
        ("Once", None), ("Twice upon", None), ("Thrice", "CC0-1.0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("One. Two and", "One."),
        ("“No!” he said, and", "“No!”"),
        ("他说。然后", "他说。"),
        ("a title\nand half a", "a title"),
        ("no end at all", ""),
        ("", ""),
    ],
)
def test_what_is_cut_off_ends_with_its_last_sentence(text: str, finished: str) -> None:
    assert _finished(text) == finished


def test_bad_input_is_refused(teacher: Loaded, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prompts"):
        teach(teacher, [], config(), tmp_path / "out")
    with pytest.raises(InputError, match=r'"sampling.temperature" is -1'):
        config(sampling={"temperature": -1.0})
    with pytest.raises(InputError, match='"documents" is 0'):
        config(documents=0)
    encoder = load_run(checkpoint(tmp_path / "encoder", Masked()))
    with pytest.raises(InputError, match="does not continue texts"):
        teach(encoder, PROMPTS, config(), tmp_path / "out")
