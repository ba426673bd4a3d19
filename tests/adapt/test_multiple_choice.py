"""One of several choices: read in the forms that people have, scored side by side, judged."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from tests.adapt.small import FAMILIES, config_of, learned, net_of, tokenizer_of

from gristmill.adapt.encoding import Encoded, Encoder, in_parts
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.task import Item
from gristmill.adapt.tasks.multiple_choice import MultipleChoice
from gristmill.errors import InputError
from gristmill.model.exchange import to_transformers

XCOPA = MultipleChoice(query=("premise", "question"), choices=("choice1", "choice2"), gold="label")
SETS = {
    "eval_en_copa": MultipleChoice(),
    "eval_en_piqa": MultipleChoice(),
    "eval_en_arc_easy": MultipleChoice(),
    "eval_zh_xcopa": XCOPA,
    "en_rec_bigbench_movies": MultipleChoice(),
}
NOTHING = Encoded((1, 2), 1, 2, 0)


def rows_of(shared_data: Path, name: str, count: int) -> list[Row]:
    return list(itertools.islice(read_table(str(shared_data / name / "test.jsonl.gz")), count))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", SETS)
def test_certain_scores_choose_what_should_be(shared_data: Path, name: str) -> None:
    task = SETS[name]
    rows = rows_of(shared_data, name, 300)
    examples = task.read(rows, labelled=True)
    assert [example.gold for example in examples] == [row.fields[task.gold] for row in rows]
    items = [
        Item(NOTHING, choice == example.gold, number)
        for number, example in enumerate(examples)
        for choice in range(len(example.choices))
    ]
    scores = [np.array([30.0 * item.target], dtype=np.float32) for item in items]
    said = task.predictions(scores, items, examples, task.outputs(examples))
    result = task.result(examples, said)
    assert {name: figure.value for name, figure in result.figures.items()} == {
        "accuracy": 1.0,
        "mean reciprocal rank": 1.0,
    }
    loss = task.loss_of(torch.from_numpy(np.stack(scores)), items)
    assert (float(loss.weight), float(loss.mean_nats)) == (len(examples), pytest.approx(0.0, abs=1e-6))


def test_examples_may_have_any_number_of_choices() -> None:
    task, sizes = MultipleChoice(), [2, 5, 3, 4]
    items = [Item(NOTHING, i == 1, number) for number, size in enumerate(sizes) for i in range(size)]
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(sum(sizes), 1, generator=generator, requires_grad=True)
    other = torch.randn(sum(sizes), 1, generator=generator)
    apart = [each[:, 0] for each in scores.split(sizes)]
    expected = sum(F.cross_entropy(each, torch.tensor(1)) for each in apart)
    loss = task.loss_of(scores, items)
    torch.testing.assert_close(loss.total_nats, expected)
    torch.autograd.backward(loss.total_nats)
    assert scores.grad is not None
    assert [float(each.sum()) for each in scores.grad.split(sizes)] == pytest.approx([0.0] * 4, abs=1e-6)
    twice = sum(
        ((one.softmax(0) - two.softmax(0)) * (one.log_softmax(0) - two.log_softmax(0))).sum() / 2
        for one, two in zip(apart, [each[:, 0] for each in other.split(sizes)], strict=True)
    )
    torch.testing.assert_close(task.divergence(scores, other, items), twice)
    assert [len(part) for part in in_parts(items, 10)] == [2, 5, 3, 4]  # an example is never divided


def test_accuracy_and_reciprocal_ranks_are_those_of_the_rows() -> None:
    rows = [Row(f"{i}", {"query": "q", "choices": ["a", "b", "c"], "gold": i % 3}) for i in range(3)]
    task = MultipleChoice()
    examples = task.read(rows, labelled=True)
    items = [Item(NOTHING, None, number) for number in range(3) for _ in range(3)]
    scores = [np.array([score], dtype=np.float32) for score in (3, 2, 1, 3, 2, 1, 3, 2, 1)]
    said = task.predictions(scores, items, examples, ())
    assert [(each["number"], each["text"]) for each in said] == [(0, "a")] * 3
    assert [sum(each["probabilities"]) for each in said] == pytest.approx([1.0] * 3)
    result = task.result(examples, said)
    assert result.figures["accuracy"].value == pytest.approx(1 / 3)
    assert result.figures["mean reciprocal rank"].value == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert result.confusion == {"0": {"0": 1}, "1": {"0": 1}, "2": {"0": 1}}
    assert "        3     0.333      0.333          3" in result.table


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["eval_en_copa", "eval_zh_xcopa"])
def test_a_small_model_of_each_family_learns_choices_by_heart(
    shared_data: Path, tmp_path: Path, name: str, family: str
) -> None:
    task = SETS[name]
    examples = task.read(rows_of(shared_data, name, 100), labelled=True)
    tokenizer = tokenizer_of([example.key for example in examples], tmp_path / "tokenizer", 500)
    made = learned(task, examples[:16], family, tokenizer, tmp_path / "run", epochs=10)
    assert made.tuned.losses[0] == pytest.approx(np.log(2), rel=0.2)
    assert made.tuned.losses[-1] < 0.7 * made.tuned.losses[0]
    assert made.result.figures["accuracy"].value > 0.8


STOCK = {
    "bert": {"out": "classifier", "dense": "bert.pooler.dense"},
    "modernbert": {"out": "classifier", "dense": "head.dense", "norm": "head.norm"},
}


@pytest.mark.shared_data
@pytest.mark.parametrize("family", STOCK)
def test_the_stock_class_gives_the_same_scores(shared_data: Path, tmp_path: Path, family: str) -> None:
    task = MultipleChoice()
    examples = task.read(rows_of(shared_data, "eval_en_arc_easy", 50), labelled=True)
    tokenizer = tokenizer_of([example.key for example in examples], tmp_path / "tokenizer", 600)
    net = net_of(task, task.outputs(examples), family, tokenizer, 128)
    net.train(False)
    assert net.head is not None
    for parameter in net.parameters().values():
        parameter.detach().add_(
            torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02
        )
    encoder = Encoder(tokenizer.vocabulary(), config_of(family, tokenizer, 128), 128)
    items = task.items(examples[:1], tokenizer, encoder, ())
    (tmp_path / "model").mkdir()
    to_transformers(net.model, tmp_path / "model", dict(tokenizer.special))
    stock = transformers.AutoModelForMultipleChoice.from_pretrained(tmp_path / "model").eval()
    theirs = dict(stock.named_parameters())
    for name, parameter in net.head.named_parameters():
        part, _, kind = name.rpartition(".")
        theirs[f"{STOCK[family][part]}.{kind}"].data.copy_(parameter)
    longest = max(len(item.encoded.tokens) for item in items)
    padded = [[*item.encoded.tokens, *[0] * (longest - len(item.encoded.tokens))] for item in items]
    seen = [[float(i < len(item.encoded.tokens)) for i in range(longest)] for item in items]
    types = [[int(i >= item.encoded.second) for i in range(longest)] for item in items]
    inputs = {"input_ids": torch.tensor([padded]), "attention_mask": torch.tensor([seen])}
    if family == "bert":
        inputs["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        expected = stock(**inputs).logits[0]
    ours = torch.from_numpy(np.concatenate(net.scores_of(items)))
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


ARC = {"text": ["rock", "lava"], "label": ["1", "2"]}


@pytest.mark.parametrize(
    ("task", "fields", "gold"),
    [
        (MultipleChoice(), {"choices": ["x", "y"], "gold": 1}, 1),
        (MultipleChoice(), {"choices": ["x", "y"], "gold": "1"}, 1),
        (MultipleChoice(), {"choices": ["x", "y"], "gold": "B"}, 1),
        (MultipleChoice(), {"choices": ["x", "y"], "gold": "y"}, 1),
        (MultipleChoice(first_number=1), {"choices": ["x", "y"], "gold": 2}, 1),
        (MultipleChoice(), {"choices": ["1", "0"], "gold": 1}, 1),
        (MultipleChoice(gold_as="text"), {"choices": ["1", "0"], "gold": "1"}, 0),
        (MultipleChoice(gold_as="number"), {"choices": ["1", "0"], "gold": "1"}, 1),
        (MultipleChoice(), {"choices": ARC, "gold": "2"}, 1),
        (MultipleChoice(), {"choices": ARC, "gold": "rock"}, 0),
        (MultipleChoice(choices=("a", "b", "c")), {"a": "x", "b": "y", "c": None, "gold": 1}, 1),
        (MultipleChoice(choices=("a", "b", "c")), {"a": "x", "b": "y", "c": "", "gold": "y"}, 1),
        (MultipleChoice(), {"choices": ["x", "x"], "gold": 0}, 0),
    ],
)
def test_what_should_be_chosen_is_said_in_several_ways(
    task: MultipleChoice, fields: dict[str, Any], gold: int
) -> None:
    (example,) = task.read([Row("x", {"query": "q", **fields})], labelled=True)
    assert example.gold == gold
    (unlabelled,) = task.read([Row("x", {"query": "q", **fields})], labelled=False)
    assert unlabelled == example.unlabelled()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"choices": ["x", "y"], "gold": 2}, '"gold" is 2, which names none of the 2 choices'),
        ({"choices": ["x", "y"], "gold": -1}, '"gold" is -1, which names none of the 2 choices'),
        ({"choices": ["x", "y"], "gold": True}, '"gold" is True, which names none of the 2 choices'),
        ({"choices": ["x", "y"], "gold": "z"}, "\"gold\" is 'z', which names none of the 2 choices"),
        ({"choices": ["1", "0"], "gold": "1"}, "\"gold\" is '1', which names several of the 2 choices"),
        ({"choices": ["x", "x"], "gold": "x"}, "\"gold\" is 'x', which names several of the 2 choices"),
        ({"choices": ["x", "y"]}, 'there is nothing in "gold"'),
        ({"choices": ["x"], "gold": 0}, "1 choices"),
        ({"choices": ["x", " "], "gold": 0}, "the choices are ['x', ' '], expected a list of texts"),
        ({"choices": "x", "gold": 0}, "the choices are x, expected a list of texts"),
        ({"choices": {"text": ["x", "y"], "label": ["A"]}, "gold": 0}, "2 choices and 1 labels"),
        ({"gold": 0}, 'there is nothing in "choices"'),
        ({"query": " ", "choices": ["x", "y"], "gold": 0}, "\"query\" is ' ', expected a text"),
    ],
)
def test_what_does_not_fit_is_named_by_row(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        MultipleChoice().read([Row("t.csv, row 3", {"query": "q", **fields})], labelled=True)
    assert error.value.message == f"t.csv, row 3: {message}"


@pytest.mark.shared_data
def test_questions_about_one_text_stay_together(shared_data: Path) -> None:
    one, other = XCOPA.read(rows_of(shared_data, "eval_zh_xcopa", 2), labelled=True)
    assert (one.queries[1], one.group) == ("cause", one.queries[0])
    assert one.key != other.key
