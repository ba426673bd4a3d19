"""Tags and spans: read, put on tokens, told under constraints, and given back as they were."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.tasks.tagging import NOT_ASKED, Tagging, likeliest, may_follow, words_of
from gristmill.errors import InputError
from gristmill.metrics.entities import entities, strict_entities
from gristmill.model.config import ModelSettings, resolve
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

SETS = ["en_ner_wnut17", "en_ner_wikigold", "zh_ner_weibo", "zh_ner_cluener", "en_slots_restaurant8k"]
COLUMNS = {"en_slots_restaurant8k": "slots"}


@pytest.fixture(scope="module")
def tokenizer(demo_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("tagging") / "tokenizer"
    texts = [path.read_text(encoding="utf-8") for path in sorted(demo_texts.rglob("*.txt"))]
    train(TokenizerConfig(vocab_size=1500), texts, out)
    return Tokenizer.from_directory(out)


def encoder(tokenizer: Tokenizer, maximum_tokens: int) -> Encoder:
    config = resolve(
        ModelSettings(family="bert", depth=1), vocab_size=tokenizer.vocab_size, row_tokens=maximum_tokens
    )
    return Encoder(tokenizer.vocabulary(), config, maximum_tokens)


@pytest.mark.shared_data
@pytest.mark.parametrize("maximum_tokens", [16, 256])
@pytest.mark.parametrize("name", SETS)
def test_certain_scores_give_the_true_tags_and_spans_back(
    shared_data: Path, tokenizer: Tokenizer, name: str, maximum_tokens: int
) -> None:
    task = Tagging(entities=COLUMNS.get(name, "entities"), overlap="longest")
    rows = list(itertools.islice(read_table(str(shared_data / name / "train.jsonl.gz")), 300))
    examples = task.read(rows, labelled=True)
    outputs = task.outputs(examples)
    items = task.items(examples, tokenizer, encoder(tokenizer, maximum_tokens), outputs)
    assert max(len(item.encoded.tokens) for item in items) <= maximum_tokens
    scores = []
    for item in items:
        wanted = item.target[0]
        certain = np.zeros((len(wanted), len(outputs)), dtype=np.float32)
        asked = np.flatnonzero(wanted != NOT_ASKED)
        certain[asked, wanted[asked]] = 9.0
        scores.append(certain)
    found = task.predictions(scores, items, examples, outputs)
    result = task.result(examples, found)
    assert result.figures["entity F1"].value > 0.99  # not all true tags of zh_ner_weibo are well formed
    for row, example, each in zip(rows, examples, found, strict=True):
        if example.spans and list(each["tags"]) == list(example.tags or ()):
            spans = {(e["start"], e["end"], e["type"], e["text"]) for e in each["entities"]}
            true = {
                (e["start"], e["end"], e.get("type", e.get("slot")), e.get("text", e.get("value")))
                for e in row.fields[task.entities]
            }
            assert spans <= true


@settings(max_examples=60, deadline=None)
@given(data=st.data(), scheme=st.sampled_from(["BI", "BIES"]))
def test_the_likeliest_sequence_is_well_formed_and_the_best_of_those(
    data: st.DataObject, scheme: str
) -> None:
    outputs = ["O", *(f"{prefix}-{kind}" for kind in ("X", "Y") for prefix in scheme)]
    length = data.draw(st.integers(1, 4))
    scores = np.random.default_rng(data.draw(st.integers(0, 99999))).normal(size=(length, len(outputs)))
    path = likeliest(scores, may_follow(outputs))
    allowed = may_follow(outputs)

    def total(tags: tuple[int, ...]) -> float:
        fits = allowed[-1, tags[0]] and all(allowed[a, b] for a, b in itertools.pairwise(tags))
        return float(scores[np.arange(length), list(tags)].sum()) if fits else -np.inf

    best = max(itertools.product(range(len(outputs)), repeat=length), key=total)
    assert tuple(path.tolist()) == best
    tags = [outputs[i] for i in path]
    if scheme == "BI":
        assert entities(tags) == strict_entities(tags, "IOB2")


def test_words_are_joined_as_they_are_written() -> None:
    (example,) = Tagging().read(
        [Row("x", {"tokens": ["我", "在", "New", "York", "，", "ok"]})], labelled=False
    )
    assert example.text == "我在New York，ok"
    assert [example.text[a:b] for a, b in example.words] == ["我", "在", "New", "York", "，", "ok"]
    assert [text[a:b] for text in ["在New York 3月"] for a, b in words_of(text)] == [
        "在",
        "New",
        "York",
        "3",
        "月",
    ]


def test_a_span_may_cut_a_word() -> None:
    row = Row("x", {"text": "Nov5th", "entities": [{"start": 0, "end": 3, "type": "month", "text": "Nov"}]})
    (example,) = Tagging().read([row], labelled=True)
    assert (example.words, example.tags) == (((0, 3), (3, 6)), ("B-month", "O"))


SPAN = {"start": 0, "end": 4, "type": "X"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "t.csv, row 3: 2 words and 1 tags"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, '"tokens" is no list of words'),
        ({"tokens": ["a"]}, 'there is nothing in "tags"'),
        ({"text": "abcd"}, 'there is nothing in "entities"'),
        ({"text": " ", "entities": []}, "\"text\" is ' ', expected a text"),
        ({"text": "abc", "entities": [SPAN]}, "the span 0 to 4 of type 'X' is not within its 3 characters"),
        ({"text": "abcd", "entities": [SPAN | {"text": "ab"}]}, 'from 0 to 4 stands "abcd", and not "ab"'),
        ({"text": "abcd", "entities": [{"start": 1}]}, "is no span"),
        (
            {"text": "abcde f", "entities": [SPAN, {"start": 2, "end": 5, "type": "Y"}]},
            "overlap, and a word has one tag",
        ),
    ],
)
def test_what_does_not_fit_is_named_by_row(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Tagging().read([Row("t.csv, row 3", fields)], labelled=True)
    assert message in error.value.message
    assert "t.csv, row 3" in error.value.message


def test_of_overlapping_spans_the_longest_may_be_kept() -> None:
    spans = [{"start": 0, "end": 2, "type": "X"}, {"start": 1, "end": 5, "type": "Y"}]
    (example,) = Tagging(overlap="longest").read(
        [Row("x", {"text": "a bcd", "entities": spans})], labelled=True
    )
    assert example.tags == ("O", "O") or example.tags == ("O", "B-Y")


def test_tags_without_any_entity_are_nothing_to_learn() -> None:
    task = Tagging()
    with pytest.raises(InputError, match="no word of the training examples has a tag but O"):
        task.outputs(task.read([Row("x", {"tokens": ["a"], "tags": ["O"]})], labelled=True))
