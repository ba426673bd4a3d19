"""Answers are found where they stand, whatever the tokenizer, the window and the family."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.small import FAMILIES, config_of, learned, net_of, tokenizer_of

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.encoding import Encoder
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.task import Item
from gristmill.adapt.tasks.reading import Question, Reading, best_spans, best_threshold
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.model.exchange import to_transformers
from gristmill.tokenizer import Tokenizer

SETS = ("en_qa_squad", "zh_qa_cmrc2018")


def rows_of(shared_data: Path, name: str, count: int | None = None) -> list[Row]:
    return list(itertools.islice(read_table(str(shared_data / name / "valid.jsonl.gz")), count))


@pytest.fixture(scope="module", params=SETS)
def asked(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Question], Tokenizer]:
    """Questions of a set, every fifth of them asked of another text, and a tokenizer."""
    examples = Reading().read(rows_of(shared_data, request.param, 200), labelled=True)
    other = examples[-1].context
    mixed = [
        dataclasses.replace(example, context=other, answers=(), start=-1)
        if number % 5 == 0 and example.context != other
        else example
        for number, example in enumerate(examples)
    ]
    texts = [example.key for example in examples]
    return mixed, tokenizer_of(texts, tmp_path_factory.mktemp("reading") / "tokenizer")


def encoder_of(tokenizer: Tokenizer, family: str, most: int) -> Encoder:
    return Encoder(tokenizer.vocabulary(), config_of(family, tokenizer, 1024), most)


def certain(item: Item) -> np.ndarray:
    """Scores by which the true ends of a window are the only ones."""
    scores = np.zeros((len(item.encoded.tokens), 2), dtype=np.float32)
    scores[item.target.start, 0] = scores[item.target.end, 1] = 40.0
    return scores


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["bert", "qwen3", "t5"])
@pytest.mark.parametrize("most", [96, 1024])
def test_certain_scores_give_the_true_answers_back(
    asked: tuple[list[Question], Tokenizer], family: str, most: int
) -> None:
    examples, tokenizer = asked
    task = Reading(maximum_answer_tokens=500)
    items = task.items(examples, tokenizer, encoder_of(tokenizer, family, most), task.outputs(examples))
    assert max(len(item.encoded.tokens) for item in items) <= most
    assert all(item.encoded.cut == 0 for item in items)
    assert (len(items) > 3 * len(examples)) == (most == 96)
    found = task.predictions([certain(item) for item in items], items, examples, ("start", "end"))
    inside = {item.example for item in items if item.target.start != item.target.nowhere}
    same = 0
    for number, (example, each) in enumerate(zip(examples, found, strict=True)):
        if number not in inside:  # there is no answer, or no window holds the whole of it
            assert each["text"] == ""
            assert each["start"] is None
            continue
        assert example.answers
        assert example.context[each["start"] : each["end"]] == each["text"]
        assert example.answers[0].strip() in each["text"]  # tokens may hold more than the answer
        same += each["text"] == example.answers[0].strip()
    assert len(inside) > 0.9 * sum(bool(example.answers) for example in examples)
    assert same > 0.8 * len(inside)
    loss = task.loss_of(torch.from_numpy(np.concatenate([certain(item) for item in items])), items)
    assert float(loss.mean_nats) == pytest.approx(0.0, abs=1e-6)
    assert float(loss.weight) == len(items)


@pytest.mark.shared_data
def test_every_token_of_the_context_is_in_a_window(asked: tuple[list[Question], Tokenizer]) -> None:
    examples, tokenizer = asked
    encoder = encoder_of(tokenizer, "bert", 64)
    for stride in (None, 7):
        items = Reading(stride=stride).items(examples[:20], tokenizer, encoder, ())
        for number, group in itertools.groupby(items, key=lambda item: item.example):
            context = examples[number].context
            seen = {tuple(place) for item in group for place in item.target.places.tolist()}
            ((ids, places),) = tokenizer.encode_with_places([context])
            assert seen == set(places)
            assert len(ids) == len(places)


@pytest.mark.shared_data
def test_what_the_model_reads_is_question_and_context(asked: tuple[list[Question], Tokenizer]) -> None:
    examples, tokenizer = asked
    special = tokenizer.special
    question = tokenizer.encode(examples[1].question)
    for family, before, between, after in (
        ("bert", [special["cls"]], [special["sep"]], [special["sep"]]),
        ("qwen3", [special["bos"]], [special["eos"]], [special["eos"]]),
        ("t5", [special["bos"]], [special["eos"]], [special["eos"]]),
    ):
        (item,) = Reading().items(examples[1:2], tokenizer, encoder_of(tokenizer, family, 1024), ())
        context = tokenizer.encode(examples[1].context)
        assert list(item.encoded.tokens) == [*before, *question, *between, *context, *after]
        assert item.target.nowhere == (len(item.encoded.tokens) - 1 if family == "qwen3" else 0)
        assert item.encoded.second == len(before) + len(question) + len(between)


@pytest.mark.shared_data
def test_the_loss_is_the_mean_of_two_cross_entropies_over_the_context(
    asked: tuple[list[Question], Tokenizer],
) -> None:
    examples, tokenizer = asked
    task = Reading()
    items = task.items(examples[:6], tokenizer, encoder_of(tokenizer, "bert", 96), ())
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(sum(len(item.encoded.tokens) for item in items), 2, generator=generator)
    expected, begin = 0.0, 0
    for item in items:
        own = scores[begin : begin + len(item.encoded.tokens)]
        begin += len(own)
        inside = range(item.encoded.second, item.encoded.second + len(item.target.places))
        allowed = [item.target.nowhere, *inside]
        for column, target in enumerate((item.target.start, item.target.end)):
            place = torch.tensor(allowed.index(target))
            expected += float(F.cross_entropy(own[allowed, column], place)) / 2
    assert float(task.loss_of(scores, items).total_nats) == pytest.approx(expected, rel=1e-5)
    assert float(task.divergence(scores, scores, items)) == 0.0
    assert float(task.divergence(scores, -scores, items)) > 1.0


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 5), st.integers(0, 9999))
def test_the_best_spans_are_the_best_of_all(n: int, longest: int, count: int, seed: int) -> None:
    ends = np.random.default_rng(seed).normal(size=(n, 2))
    every = sorted(
        ((ends[i, 0] + ends[j, 1], i, j) for i in range(n) for j in range(i, min(n, i + longest))),
        reverse=True,
    )
    found = best_spans(ends, longest, count)
    assert [each[1:] for each in found] == [each[1:] for each in every[:count]]
    assert [each[0] for each in found] == pytest.approx([each[0] for each in every[:count]])


@given(st.lists(st.tuples(st.integers(-3, 3), st.floats(0, 1), st.booleans()), min_size=1, max_size=9))
def test_no_threshold_gains_more_than_the_best(rows: list[tuple[int, float, bool]]) -> None:
    above, gains = (np.array([row[i] for row in rows], dtype=np.float64) for i in (0, 1))
    nothing = np.array([float(row[2]) for row in rows])

    def gained(threshold: float) -> float:
        return float(np.where(above > threshold, nothing, gains).sum())

    best = gained(best_threshold(above, gains, nothing))
    assert best == pytest.approx(max(gained(each / 2) for each in range(-9, 10)))


@pytest.mark.shared_data
def test_whether_there_is_no_answer_is_learned_from_the_validation_examples(
    asked: tuple[list[Question], Tokenizer],
) -> None:
    examples, tokenizer = asked
    task = Reading(maximum_answer_tokens=500)
    items = task.items(examples, tokenizer, encoder_of(tokenizer, "bert", 1024), ())
    scores = []
    for item in items:  # "nowhere" is always 5 too high
        rows = certain(item)
        rows[item.target.nowhere] += 45.0 if item.target.start != item.target.nowhere else 20.0
        scores.append(rows)
    said = task.predictions(scores, items, examples, ())
    assert {each["text"] for each in said} == {""}
    calibrated = task.calibrated(examples, said)
    assert isinstance(calibrated.threshold, float)
    assert 10 < calibrated.threshold < 120
    answers = calibrated.predictions(scores, items, examples, ())
    result = calibrated.result(examples, answers)
    assert len(calibrated.mistakes(examples, answers)) < 0.2 * len(examples)
    worst = task.mistakes(examples, said)[0]
    assert worst.said == "(no answer)" != worst.expected
    assert result.figures["without answer"].value == 1.0
    assert result.figures["F1 with answer"].value > 0.9
    assert result.figures["F1"].value > task.result(examples, said).figures["F1"].value
    given = Reading(threshold=1.5)
    assert given.calibrated(examples, said) is given.settled(examples, 0) is given
    assert task.settled(examples, 0) is task
    answerable = [example for example in examples if example.answers]
    never = task.settled(answerable, 0)
    assert never.calibrated(examples, said) is never
    assert "" not in {each["text"] for each in never.predictions(scores, items, examples, ())}


@pytest.mark.shared_data
def test_the_rules_are_those_of_the_language(shared_data: Path) -> None:
    for name, rules in zip(SETS, ("SQuAD: words", "CMRC 2018: Chinese by characters"), strict=True):
        examples = Reading().read(rows_of(shared_data, name, 40), labelled=True)
        first = [{"text": (example.answers or ("",))[0]} for example in examples]
        result = Reading().result(examples, first)
        assert f"the rules are those of {rules}\n" in result.table
        assert [result.figures[each].value for each in ("F1", "exact match")] == [1.0, 1.0]
    (row,) = [Row("x", {"question": "谁?", "context": "某人", "answers": "某人"})]
    assert (
        "SQuAD" in Reading(language="en").result(Reading().read([row], labelled=True), [{"text": ""}]).table
    )


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_model_of_each_family_learns_answers_by_heart(
    shared_data: Path, tmp_path: Path, family: str
) -> None:
    rows = sorted(rows_of(shared_data, "en_qa_squad"), key=lambda row: len(row.fields["context"]))[:8]
    task = Reading()
    examples = task.read(rows, labelled=True)
    tokenizer = tokenizer_of([example.key for example in examples], tmp_path / "tokenizer", 400)
    made = learned(task, examples, family, tokenizer, tmp_path / "run", epochs=24)
    assert made.tuned.losses[-1] < 0.7 * made.tuned.losses[0]
    assert made.result.figures["F1"].value > 0.4


@pytest.mark.shared_data
def test_a_recipe_learns_when_there_is_no_answer_and_the_model_keeps_it(
    shared_data: Path, tmp_path: Path
) -> None:
    rows = sorted(rows_of(shared_data, "en_qa_squad"), key=lambda row: len(row.fields["context"]))[:40]
    fields = [dict(row.fields, title="") for row in rows]
    for number in range(0, 40, 4):  # asked of another text
        fields[number] |= {
            "context": fields[number - 9]["context"],
            "answers": {"text": [], "answer_start": []},
        }
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, fields)), encoding="utf-8")
    examples = Reading().read(read_table(str(tmp_path / "rows.jsonl")), labelled=True)
    tokenizer = tokenizer_of([example.key for example in examples], tmp_path / "t", 500)
    (tmp_path / "base").mkdir()
    net = net_of(Reading(), ("start", "end"), "bert", tokenizer, 128)
    to_transformers(net.model, tmp_path / "base", dict(tokenizer.special))
    tokenizer.save(tmp_path / "base")
    table = {
        "name": "questions", "base": str(tmp_path / "base"), "task": "reading",
        "data": {"train": str(tmp_path / "rows.jsonl"), "valid_fraction": 0.3, "test": str(tmp_path / "rows.jsonl")},
        "tune": {"epochs": 1, "learning_rate": 1e-3, "precision": "float32"},
    }  # fmt: skip
    made = adapt(from_dict(AdaptRecipe, table), tmp_path / "out")
    stored = json.loads((made.path / "task.json").read_text())["task"]
    assert isinstance(stored["threshold"], float)
    facts = json.loads((made.path / "result.json").read_text())
    assert {"F1", "exact match", "F1 with answer", "without answer"} <= set(facts["figures"])
    predictor = Predictor(made.path)
    answers = [answer for _, answer in predictor.rows(read_table(str(tmp_path / "rows.jsonl")))]
    above = [answer["null_score"] - answer["score"] > stored["threshold"] for answer in answers]
    assert [answer["text"] == "" for answer in answers] == above
    result = predictor.task.result(examples, answers)
    assert result.figures["F1"].value == pytest.approx(facts["figures"]["F1"]["mean"])


STOCK = {
    "bert": {"out": "qa_outputs"},
    "modernbert": {"out": "classifier", "dense": "head.dense", "norm": "head.norm"},
    "qwen3": {"out": "qa_outputs"},
    "gpt2": {"out": "qa_outputs"},
}


@pytest.mark.shared_data
@pytest.mark.parametrize("family", STOCK)
def test_the_stock_class_gives_the_same_scores(
    asked: tuple[list[Question], Tokenizer], tmp_path: Path, family: str
) -> None:
    examples, tokenizer = asked
    task = Reading()
    net = net_of(task, ("start", "end"), family, tokenizer, 256)
    net.train(False)
    assert net.head is not None
    for parameter in net.parameters().values():
        parameter.detach().add_(
            torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02
        )
    items = task.items(examples[:2], tokenizer, encoder_of(tokenizer, family, 256), ())
    to_transformers(net.model, tmp_path, dict(tokenizer.special))
    trunk = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
    stock = transformers.AutoModelForQuestionAnswering.from_config(trunk.config).eval()
    stock.base_model.load_state_dict(trunk.state_dict(), strict=False)  # BERT's has no pooler
    theirs = dict(stock.named_parameters())
    for name, parameter in net.head.named_parameters():
        part, _, kind = name.rpartition(".")
        theirs[f"{STOCK[family][part]}.{kind}"].data.copy_(parameter)
    for item, ours in zip(items, net.scores_of(items), strict=True):
        types = {"token_type_ids": net.pack([item]).batch.token_types} if family == "bert" else {}
        with torch.no_grad():
            said = stock(torch.tensor([item.encoded.tokens]), **types)
        expected = torch.stack([said.start_logits[0], said.end_logits[0]], dim=-1)
        torch.testing.assert_close(torch.from_numpy(ours), expected, atol=2e-5, rtol=1e-4)


def question(**fields: Any) -> Row:
    context = "The Amazon is a river. The Nile is a river too."
    return Row("t.json, row 3", {"question": "What?", "context": context, **fields})


@pytest.mark.parametrize(
    ("fields", "texts", "start"),
    [
        ({"answers": {"text": ["Nile", "The Nile"], "answer_start": [27, 23]}}, ("Nile", "The Nile"), 27),
        ({"answers": {"text": ["Nile"]}}, ("Nile",), 27),
        ({"answers": {"text": ["Nile"], "answer_start": [-1]}}, ("Nile",), 27),
        ({"answers": [{"text": "Nile", "answer_start": None}]}, ("Nile",), 27),
        ({"answers": ["Nile", "no river"]}, ("Nile", "no river"), 27),
        ({"answers": "a river", "answer_start": "35"}, ("a river",), 35),
        ({"answers": {"text": [], "answer_start": []}}, (), -1),
        ({"answers": None, "is_impossible": True}, (), -1),
        ({"answers": {"text": ["Nile"], "answer_start": [27]}, "is_impossible": "True"}, (), -1),
    ],
)
def test_answers_are_read_in_the_forms_that_people_have(
    fields: dict[str, Any], texts: tuple[str, ...], start: int
) -> None:
    (example,) = Reading().read([question(**fields)], labelled=True)
    assert (example.answers, example.start) == (texts, start)
    (unlabelled,) = Reading().read([question(**fields)], labelled=False)
    assert unlabelled == example.unlabelled()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"answers": {"text": ["Nile"], "answer_start": [4]}},
            'the answer "Nile" should begin at 4, where "Amaz" stands; it occurs at 27',
        ),
        (
            {"answers": {"text": ["Rhine"], "answer_start": [4]}},
            'the answer "Rhine" should begin at 4, where "Amazo" stands; it occurs nowhere',
        ),
        ({"answers": ["Rhine"]}, 'the answer "Rhine" does not occur in the context'),
        ({"answers": "a river"}, 'the answer "a river" occurs 2 times, and no place is given'),
        ({"answers": {"text": ["Nile"], "answer_start": []}}, "1 answers and 0 places"),
        (
            {"answers": {"text": ["Nile"], "answer_start": [2.5]}},
            "answer_start is 2.5, expected a whole number",
        ),
        ({"answers": {"text": [" "], "answer_start": [3]}}, "an answer is empty"),
        ({"answers": {"start": 3}}, "\"answers\" is {'start': 3}, expected answers"),
        ({"answers": [3]}, '"answers" is [3], expected answers'),
        ({"answers": 3}, '"answers" is 3, expected answers'),
        ({}, 'there is nothing in "answers"'),
        ({"answers": "Nile", "context": " "}, "\"context\" is ' ', expected a text"),
        ({"answers": "Nile", "question": ""}, "\"question\" is '', expected a text"),
    ],
)
def test_what_does_not_fit_is_named_by_row(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Reading().read([question(**fields)], labelled=True)
    assert error.value.message == f"t.json, row 3: {message}"
    assert error.value.hint or "nothing in" in message


def test_of_several_places_the_first_may_be_meant() -> None:
    (example,) = Reading(repeated="first").read([question(answers="a river")], labelled=True)
    assert example.start == 14


def test_no_answers_at_all_are_nothing_to_learn() -> None:
    examples = Reading().read([question(answers=[])], labelled=True)
    with pytest.raises(InputError, match="no training question has an answer"):
        Reading().outputs(examples)


@pytest.mark.shared_data
def test_windows_that_leave_something_out_are_refused(asked: tuple[list[Question], Tokenizer]) -> None:
    examples, tokenizer = asked
    with pytest.raises(InputError, match=r"tokens of the context fit behind the question, and stride is 99"):
        Reading(stride=99).items(examples[:1], tokenizer, encoder_of(tokenizer, "bert", 64), ())


def test_questions_of_one_document_stay_together_and_the_same_context_always_does() -> None:
    one, other = Reading().read([question(title="Rivers"), question()], labelled=False)
    assert (one.group, other.group) == ("Rivers", other.context)
    assert one.key == other.key == f"What?\n{one.context}"


@pytest.mark.shared_data
def test_the_nested_form_of_a_published_set_is_read(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "raw_formats" / "qa_squad_nested.cmrc2018_dev.json"
    rows = list(read_table(str(source)))
    examples = Reading().read(rows, labelled=True)
    assert all(example.answers for example in examples)
    nested = json.loads(source.read_text(encoding="utf-8"))
    asked = nested["data"][0]["paragraphs"][0]["qas"]
    del asked[0]["answers"]
    asked[1] = {**asked[1], "answers": [], "is_impossible": True}
    (tmp_path / "changed.json").write_text(json.dumps(nested), encoding="utf-8")
    changed = list(read_table(str(tmp_path / "changed.json")))
    with pytest.raises(InputError, match=r'question DEV_0_QUERY_0: there is nothing in "answers"'):
        Reading().read(changed, labelled=True)
    assert Reading().read(changed[1:2], labelled=True)[0].answers == ()


def test_an_answer_that_the_tokenizer_drops_is_named(tmp_path: Path) -> None:
    inner = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": {name: i for i, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "a"])}},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(inner))
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    tokenizer = Tokenizer.from_directory(tmp_path)
    row = Row("x", {"question": "what", "context": "a \x01\x02 a", "answers": "\x01\x02"})
    with pytest.raises(InputError, match="x: no token stands for the answer"):
        Reading().items(
            Reading().read([row], labelled=True), tokenizer, encoder_of(tokenizer, "bert", 64), ()
        )


def test_the_score_of_an_answer_is_a_logarithm_of_shares(tmp_path: Path) -> None:
    (example,) = Reading().read([question()], labelled=False)
    tokenizer = tokenizer_of([example.key], tmp_path / "t", 270)
    task = Reading(candidates=4)
    (item,) = task.items([example], tokenizer, encoder_of(tokenizer, "bert", 256), ())
    scores = np.random.default_rng(0).normal(size=(len(item.encoded.tokens), 2)).astype(np.float32)
    (said,) = task.predictions([scores], [item], [example], ())
    assert len(said["candidates"]) == 4
    assert said["text"] == said["candidates"][0]["text"]
    assert said["score"] == max(each["score"] for each in said["candidates"])
    assert 0 < sum(math.exp(each["score"]) for each in said["candidates"]) < 1
