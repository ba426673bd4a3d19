"""Relations of marked entities: where the marks stand, what is read, and the figure that the organisers of the task compute."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support
from tests.adapt.small import FAMILIES, config_of, learned, net_of, tokenizer_of

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.tasks.relation import Entity, Related, Relation, marked, official_report
from gristmill.errors import InputError
from gristmill.tokenizer import Tokenizer

SIGNS = ("<e1>", "</e1>", "<e2>", "</e2>")


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[Row]:
    folder = shared_data / "en_relation_semeval10t8"
    return list(itertools.islice(read_table(str(folder / "test.jsonl.gz")), 600))


@pytest.fixture(scope="module")
def examples(rows: list[Row]) -> list[Related]:
    return Relation().read(rows, labelled=True)


@pytest.fixture(scope="module")
def tokenizer(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [row.fields["text"] for row in rows]
    return tokenizer_of(texts, tmp_path_factory.mktemp("relation") / "tokenizer", 800)


@pytest.mark.shared_data
def test_marks_are_taken_out_and_put_back(rows: list[Row], examples: list[Related]) -> None:
    assert [example.key for example in examples] == [row.fields["text"] for row in rows]
    first = examples[0]
    assert first.text == "The most common audits were about waste and recycling."
    assert [first.text[each.start : each.end] for each in first.entities] == ["audits", "waste"]
    assert first.label == first.kind == "Message-Topic(e1,e2)"


@given(st.data())
def test_signs_stand_around_entities_wherever_they_are(data: st.DataObject) -> None:
    text = "一二 three four, 五六."
    ends = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).filter(
        lambda each: each[0] < each[1]
    )
    ends = ends.filter(lambda each: bool(text[slice(*each)].strip()))
    entities = Entity(*data.draw(ends)), Entity(*data.draw(ends))
    found, places = marked(text, entities, SIGNS)
    for sign in SIGNS:
        assert found.count(sign) == 1
    for number, (entity, (opens, closes)) in enumerate(zip(entities, places, strict=True)):
        one, other = SIGNS[2 * number : 2 * number + 2]
        assert found[opens:].startswith(one)
        assert found[: closes + 1].endswith(other)
        inside = found[opens + len(one) : closes + 1 - len(other)]
        for sign in SIGNS:
            inside = inside.replace(sign, "")
        assert inside == text[entity.start : entity.end]
    if entities[0][:2] != entities[1][:2]:
        (example,) = Relation().read([Row("x", {"text": found})], labelled=False)
        assert (example.text, example.entities) == (text, entities)


@pytest.mark.parametrize(
    ("entities", "text"),
    [
        (({"start": 0, "end": 5}, {"start": 9, "end": 14}), "@ Curie @ of # Paris #"),
        (({"start": 9, "end": 14}, {"start": 0, "end": 5}), "# Curie # of @ Paris @"),
        (
            ({"start": 0, "end": 5, "type": "person"}, {"start": 9, "end": 14, "type": "city"}),
            "@ * person * Curie @ of # ^ city ^ Paris #",
        ),
        (({"start": 0, "end": 14}, {"start": 9, "end": 14}), "@ Curie of # Paris # @"),
    ],
)
def test_the_model_reads_signs_of_punctuation(
    tokenizer: Tokenizer, entities: tuple[dict[str, Any], dict[str, Any]], text: str
) -> None:
    row = Row("x", {"text": "Curie of Paris", "head": entities[0], "tail": entities[1], "label": "at"})
    task = Relation()
    (example,) = task.read([row], labelled=True)
    for family in ("bert", "qwen3"):
        config = config_of(family, tokenizer, 64)
        encoder = Encoder(tokenizer.vocabulary(), config, 64)
        (item,) = task.items([example], tokenizer, encoder, ("at", "in"))
        assert tokenizer.decode(item.encoded.tokens) == text
        read = [tokenizer.decode([item.encoded.tokens[place]]).strip() for place in item.encoded.places]
        assert read == ["@", "#"]
        before = [
            tokenizer.decode(item.encoded.tokens[:place]).count(sign)
            for place, sign in zip(item.encoded.places, "@#", strict=True)
        ]
        assert before == ([1, 1] if family == "qwen3" else [0, 0])  # what has not been read can't be told


def test_chinese_has_no_spaces_around_signs(tmp_path: Path) -> None:
    text = "鲁迅生于绍兴"
    row = Row("x", {"text": text, "head": {"start": 0, "end": 2}, "tail": {"start": 4, "end": 6}})
    tokenizer = tokenizer_of([text], tmp_path / "t", 262)
    encoder = Encoder(tokenizer.vocabulary(), config_of("bert", tokenizer, 64), 64)
    (item,) = Relation().items(Relation().read([row], labelled=False), tokenizer, encoder, ())
    assert tokenizer.decode(item.encoded.tokens) == "@鲁迅@生于#绍兴#"


@pytest.mark.shared_data
def test_a_long_text_is_cut_around_its_entities(examples: list[Related], tokenizer: Tokenizer) -> None:
    encoder = Encoder(tokenizer.vocabulary(), config_of("bert", tokenizer, 64), 40)
    whole = Encoder(tokenizer.vocabulary(), config_of("bert", tokenizer, 1024), 1024)
    task = Relation()
    outputs = task.outputs(examples)
    near = [each for each in examples if 0 < each.entities[1].start - each.entities[0].end < 40]
    there, found = (task.items(near, tokenizer, each, outputs) for each in (whole, encoder))
    assert max(len(item.encoded.tokens) for item in found) <= 40
    assert sum(len(item.encoded.tokens) for item in found) < sum(len(item.encoded.tokens) for item in there)
    for one, other in zip(found, there, strict=True):
        assert [one.encoded.tokens[place] for place in one.encoded.places] == [
            other.encoded.tokens[place] for place in other.encoded.places
        ]
    far = max(examples, key=lambda each: each.entities[1].start - each.entities[0].end)
    with pytest.raises(InputError, match="from one entity to the other there are") as error:
        task.items([far], tokenizer, encoder, outputs)
    assert far.place in error.value.message


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
def test_the_scores_are_read_at_both_marks_whatever_stands_beside(
    examples: list[Related], tokenizer: Tokenizer, family: str
) -> None:
    task = Relation()
    outputs = task.outputs(examples)
    net = net_of(task, outputs, family, tokenizer, 256)
    net.train(False)
    encoder = Encoder(tokenizer.vocabulary(), net.model.config, 256)
    items = task.items(examples[:5], tokenizer, encoder, outputs)
    together = np.stack(net.scores_of(items))
    assert net.head is not None
    for item, scores in zip(items, together, strict=True):
        packed = net.pack([item])
        states = net.hidden(packed)[list(item.encoded.places)].flatten()
        expected = net.head.out(states).detach().numpy()
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("read_at", ["entities", "text"])
def test_a_small_model_of_each_family_learns_relations_by_heart(
    examples: list[Related], tokenizer: Tokenizer, tmp_path: Path, family: str, read_at: Any
) -> None:
    task = Relation(read_at=read_at)
    made = learned(task, examples[:16], family, tokenizer, tmp_path, epochs=12)
    assert made.tuned.losses[-1] < 0.8 * made.tuned.losses[0]
    assert made.result.figures["accuracy"].value > 0.5  # of twelve classes
    assert made.answers[0]["head"] == "audits"


@pytest.mark.shared_data
@settings(max_examples=12)
@given(seed=st.integers(0, 9999), wrong=st.floats(0, 1))
def test_the_figure_is_that_of_the_scorer(examples: list[Related], seed: int, wrong: float) -> None:
    true = [str(example.label) for example in examples]
    labels = sorted(set(true))
    generator = np.random.default_rng(seed)
    said = [
        str(generator.choice(labels)) if generator.random() < wrong else label for label in true
    ]  # now and then a relation is right and its direction wrong
    found = official_report(true, said, "Other")
    names = sorted({label.partition("(")[0] for label in (*true, *said)} - {"Other"})
    assert list(found.rows) == names
    each = [
        precision_recall_fscore_support(
            true, said, labels=[f"{name}(e1,e2)", f"{name}(e2,e1)"], average="micro", zero_division=0
        )[:3]
        for name in names
    ]
    for name, (precision, recall, f1) in zip(names, each, strict=True):
        assert found.rows[name][:3] == pytest.approx((precision, recall, f1))
    assert found.average("macro").f1 == pytest.approx(float(np.mean([f1 for _, _, f1 in each])))


def test_the_figure_by_hand() -> None:
    true = ["A(e1,e2)", "A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "Other", "Other"]
    said = ["A(e1,e2)", "A(e2,e1)", "Other", "B(e1,e2)", "B(e2,e1)", "Other"]
    report = official_report(true, said, "Other")
    assert report.rows["A"][:3] == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    assert report.rows["B"][:3] == pytest.approx((1 / 2, 1.0, 2 / 3))
    examples = [Related("x", "a b", (Entity(0, 1), Entity(2, 3)), label) for label in true]
    result = Relation().result(examples, [{"label": label} for label in said])
    assert result.figures["macro F1"].value == pytest.approx((2 / 5 + 2 / 3) / 2)
    assert result.figures["micro F1"].value == pytest.approx(2 * 2 / (4 + 4))
    assert result.figures["accuracy"].value == pytest.approx(3 / 6)
    assert result.confusion == {
        "A(e1,e2)": {"A(e1,e2)": 1, "A(e2,e1)": 1}, "A(e2,e1)": {"Other": 1}, "B(e1,e2)": {"B(e1,e2)": 1},
        "Other": {"B(e2,e1)": 1, "Other": 1},
    }  # fmt: skip
    all_ = Relation(excluded=None).result(examples, [{"label": label} for label in said])
    assert all_.figures["micro F1"].value == pytest.approx(3 / 6)
    assert "Other" not in result.table.replace('"Other"', "")
    assert "Other" in all_.table


SPAN = {"start": 0, "end": 4}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "<e1>a</e1> b"}, "no entity stands between <e2> and </e2>"),
        ({"text": "<e1> </e1> <e2>b</e2>"}, "no entity stands between <e1> and </e1>"),
        ({"text": "</e1>a<e1> <e2>b</e2>"}, "no entity stands between <e1> and </e1>"),
        ({"text": "<e1>a</e1> <e1>b</e1>"}, "<e1> stands there twice"),
        ({"text": "plain"}, "no entity stands between <e1> and </e1>"),
        ({"text": " "}, "\"text\" is ' ', expected a text"),
        ({"text": "<e1>a</e1> <e2>b</e2>", "label": None}, 'there is nothing in "label"'),
        ({"text": "<e1>a</e1> <e2>b</e2>", "label": ["x"]}, "\"label\" is ['x'], expected one class"),
        ({"text": "some text", "head": SPAN}, 'there is nothing in "tail"'),
        (
            {"text": "some text", "head": SPAN, "tail": {"start": 5, "end": 99}},
            '"tail" is from 5 to 99, and the text has 9 characters',
        ),
        ({"text": "some text", "head": SPAN, "tail": SPAN}, "both entities are the characters 0 to 4"),
        ({"text": "some text", "head": [0, 4], "tail": SPAN}, '"head" is [0, 4], which is no span'),
        (
            {"text": "some text", "head": SPAN, "tail": {"start": 5, "end": 9, "text": "some"}},
            'from 5 to 9 stands "text", and not "some"',
        ),
        (
            {"text": "some text", "head": SPAN, "tail": {"start": 4, "end": 5}},
            'from 4 to 5 stands " ", and not "an entity"',
        ),
    ],
)
def test_what_does_not_fit_is_named_by_row(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Relation().read([Row("t.csv, row 3", {"label": "x", **fields})], labelled=True)
    assert error.value.message == f"t.csv, row 3: {message}"


@pytest.mark.shared_data
def test_one_class_and_a_new_class_are_refused(examples: list[Related], tokenizer: Tokenizer) -> None:
    task = Relation()
    with pytest.raises(InputError, match="the training examples have 1 class"):
        task.outputs(examples[:1])
    encoder = Encoder(tokenizer.vocabulary(), config_of("bert", tokenizer, 256), 256)
    with pytest.raises(InputError, match='no training example has the class "new"'):
        task.items(
            [dataclasses.replace(examples[0], label="new")], tokenizer, encoder, task.outputs(examples)
        )


def test_marks_that_the_tokenizer_does_not_know_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = config_of("bert", tokenizer, 64)
    Relation().check(config, tokenizer)
    (tmp_path / "tokenizer.json").write_text(
        '{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,'
        ' "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,'
        ' "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "@": 1, "[CLS]": 2, "[SEP]": 3}}}'
    )
    (tmp_path / "tokenizer_config.json").write_text(
        '{"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}'
    )
    with pytest.raises(InputError, match='does not know the mark "#"'):
        Relation().check(config, Tokenizer.from_directory(tmp_path))


def test_a_sentence_with_two_pairs_stays_together() -> None:
    text = "a b c"
    one = Related("x", text, (Entity(0, 1), Entity(2, 3)), "r")
    other = dataclasses.replace(one, entities=(Entity(0, 1), Entity(4, 5)))
    assert one.group == other.group == text
    assert one.key != other.key
