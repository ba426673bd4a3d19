"""Preferences: the losses of the papers, references from before training, and pairs that are learned."""

import dataclasses
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.adapt.writers import items_of, learned, made_net, made_tokenizer, saved, weights

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.net import Net
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.task import Item
from gristmill.adapt.tasks.preferences import Preferences
from gristmill.adapt.templates import Turn
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.tokenizer import Tokenizer

TASK = Preferences(max_new_tokens=64)


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[Row]:
    found = []
    for name in ("en_preference_dpo_demo", "zh_preference_dpo_demo"):
        every = read_table(str(shared_data / name / "train.jsonl.gz"))
        small = [
            row
            for row in every
            if max(len(row.fields[side]["value"]) for side in ("chosen", "rejected")) < 160
            and sum(len(turn["value"]) for turn in row.fields["conversations"]) < 200
        ]
        found += small[:12]
    return found


@pytest.fixture(scope="module")
def tokenizer(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [str(row.fields[side]["value"]) for row in rows for side in ("chosen", "rejected")]
    return made_tokenizer(texts, tmp_path_factory.mktemp("preferences") / "tokenizer", 600)


def moved(net: Net, by: float = 0.05) -> Net:
    """The net after some training, as it were."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return net


def log_probability(net: Net, item: Item) -> torch.Tensor:
    """That of an item's answer, one item at a time and with nothing but torch."""
    tokens = torch.tensor(item.encoded.tokens)
    scores = net.model.logits(net.model(tokens[None, :-1]))[0].log_softmax(-1)
    each = scores.gather(1, tokens[1:, None])[:, 0]
    return each[item.encoded.second - 1 :].sum()


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
@pytest.mark.parametrize(
    "changes", [{}, {"label_smoothing": 0.2, "sft": 0.5}, {"loss_kind": "ipo", "beta": 0.3}]
)
def test_loss_and_gradients_are_those_of_the_papers(
    tokenizer: Tokenizer, rows: list[Row], family: str, changes: dict[str, Any]
) -> None:
    task = dataclasses.replace(TASK, **changes)
    net = made_net(tokenizer, family, row_tokens=256)
    items = task.prepared(net, items_of(task, net, task.read(rows[:5], labelled=True), 256))
    with torch.no_grad():
        before = torch.stack([log_probability(net, item) for item in items])
    moved(net)
    now = torch.stack([log_probability(net, item) for item in items])
    ratio = (now - before)[0::2] - (now - before)[1::2]
    if task.loss_kind == "ipo":
        wanted = ((ratio - 1 / (2 * task.beta)) ** 2).sum()
    else:
        e = task.label_smoothing
        wanted = -(
            (1 - e) * torch.log(torch.sigmoid(task.beta * ratio))
            + e * torch.log(torch.sigmoid(-task.beta * ratio))
        ).sum()
    counts = torch.tensor([len(item.encoded.tokens) - item.encoded.second for item in items[0::2]])
    wanted = wanted - task.sft * (now[0::2] / counts).sum()
    found = task.loss(net, items)
    assert found.total_nats.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert found.weight.item() == 5
    with torch.no_grad():
        assert task.loss(net, items).total_nats.item() == pytest.approx(wanted.item(), rel=1e-4)
    parameters = list(net.model.parameters())
    ours = torch.autograd.grad(found.total_nats, parameters)
    theirs = torch.autograd.grad(wanted, parameters)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=2e-4 * max(1.0, float(other.abs().max())))


@pytest.mark.shared_data
def test_before_training_the_loss_is_ln_2(tokenizer: Tokenizer, rows: list[Row]) -> None:
    net = moved(made_net(tokenizer, "qwen3", row_tokens=256))
    items = TASK.prepared(net, items_of(TASK, net, TASK.read(rows[:6], labelled=True), 256))
    with torch.no_grad():
        assert TASK.loss(net, items).mean_nats.item() == pytest.approx(math.log(2), abs=1e-5)
        assert dataclasses.replace(TASK, label_smoothing=0.3).loss(
            net, items
        ).mean_nats.item() == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.shared_data
def test_only_the_answers_count_and_pairs_do_not_see_each_other(
    tokenizer: Tokenizer, rows: list[Row]
) -> None:
    net = made_net(tokenizer, "gpt2", row_tokens=256)
    earlier, last = rows[1].fields, rows[2].fields
    said = [*earlier["conversations"], earlier["chosen"], *last["conversations"]]
    long = Row("x", {**last, "conversations": said})
    items = items_of(TASK, net, TASK.read([long, rows[0]], labelled=True), 256)
    for item, side in zip(items, ("chosen", "rejected"), strict=False):
        told = [t for t, is_told in zip(item.encoded.tokens, item.target.told, strict=True) if is_told]
        assert tokenizer.decode(told) == long.fields[side]["value"].strip()
        assert told[-1] == tokenizer.special["eos"]
    prepared = TASK.prepared(net, items)
    moved(net)
    with torch.no_grad():
        together = TASK.loss(net, prepared).total_nats.item()
        alone = [TASK.loss(net, prepared[i : i + 2]).total_nats.item() for i in (0, 2)]
    assert together == pytest.approx(sum(alone), rel=1e-5)


@pytest.mark.shared_data
def test_pairs_are_learned(tokenizer: Tokenizer, rows: list[Row], tmp_path: Path) -> None:
    task = dataclasses.replace(TASK, sft=0.1)
    net = made_net(tokenizer, "qwen3", row_tokens=256)
    examples = task.read(rows[:16], labelled=True)
    items = task.prepared(net, items_of(task, net, examples, 256))
    untrained = task.result(examples, task.answers(net, items, examples, ()))
    assert untrained.figures["margin"].value == pytest.approx(0.0, abs=1e-4)
    tuner = learned(task, net, items, tmp_path, epochs=12, learning_rate=2e-3, batch_examples=8)
    losses = tuner.run().losses
    assert losses[-1] < 0.75 * losses[0]
    said = task.answers(tuner.net, items, examples, ())
    result = task.result(examples, said)
    assert result.figures["accuracy"].value > 0.9
    assert result.figures["margin"].value > 0.5
    assert result.figures["accuracy"].interval is not None
    assert "a token of chosen answers: " in result.table
    (text,) = task.answers(
        tuner.net, items_of(task, tuner.net, [examples[0].unlabelled()], 256), [examples[0].unlabelled()], ()
    )
    assert set(text) == {"text"}


@pytest.mark.shared_data
def test_what_was_killed_ends_in_the_same_bytes(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str, **changes: Any) -> Any:
        net = made_net(tokenizer, "gpt2", row_tokens=256, dropout=0.1)
        items = TASK.prepared(net, items_of(TASK, net, TASK.read(rows[:12], labelled=True), 256))
        return learned(TASK, net, items, tmp_path / name, epochs=3, batch_examples=4, **changes)

    whole, killed = made("whole"), made("killed", checkpoint_seconds=1e-9)
    losses = whole.run().losses
    step = killed._one_step

    def dies() -> None:
        if killed.step == 5:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(killed, "_one_step", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed = made("killed")
    assert resumed.run().losses == losses
    one, other = weights(whole.net), weights(resumed.net)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_rows_of_all_formats_give_the_same_pair() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {
            "conversations": [{"from": "human", "value": "a"}],
            "chosen": {"from": "gpt", "value": "b"},
            "rejected": {"from": "gpt", "value": " c "},
        },
        {
            "prompt": [{"role": "user", "content": "a"}],
            "chosen": [{"role": "assistant", "content": "b"}],
            "rejected": [{"role": "assistant", "content": "c"}],
        },
        {
            "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}],
        },
        {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"},
    ]
    found = TASK.read([Row("x", row) for row in rows], labelled=True)
    assert {(each.turns, each.chosen, each.rejected) for each in found} == {((Turn("user", "a"),), "b", "c")}
    assert len({each.key for each in found}) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b "}, "the chosen and the rejected answer are the same"),
        ({"prompt": "a", "chosen": "b"}, 'there is nothing in "rejected"'),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "\"chosen\" is '', expected a text"),
        ({"chosen": "a", "rejected": "b"}, "there is no conversation"),
        ({"prompt": "a", "chosen": [], "rejected": "b"}, '"chosen" is [], expected a text'),
        (
            {"prompt": "a", "chosen": {"from": "human", "value": "b"}, "rejected": "c"},
            '"chosen" is said by "user", expected the assistant',
        ),
        (
            {
                "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                "chosen": "c",
                "rejected": "d",
            },
            "before the answers stands a turn of the assistant",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        TASK.read([Row("t.jsonl, row 3", fields)], labelled=True)
    assert error.value.message.startswith("t.jsonl, row 3")
    assert message in error.value.message


@pytest.mark.shared_data
def test_a_base_or_settings_that_do_not_fit_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match='the task "preferences" needs a model that writes'):
        TASK.check(made_net(tokenizer, "t5").model.config, tokenizer)
    mixed = dataclasses.replace(TASK, loss_kind="ipo", label_smoothing=0.1)
    with pytest.raises(InputError, match="label_smoothing is of the loss"):
        mixed.check(made_net(tokenizer, "qwen3").model.config, tokenizer)


@pytest.mark.shared_data
def test_a_recipe_is_judged_by_pairs_that_it_has_not_seen(
    tokenizer: Tokenizer, shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "zh_preference_dpo_demo" / "train.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()[:24]
    (tmp_path / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = {
        "name": "kinder", "base": str(saved(made_net(tokenizer, "gpt2"), tmp_path / "base")),
        "task": {"name": "preferences", "max_new_tokens": 16},
        "data": {"train": str(tmp_path / "train.jsonl"), "valid_fraction": 0.25},
        "tune": {"epochs": 2, "batch_examples": 8, "precision": "float32", "dropout": 0.0},
    }  # fmt: skip
    made = adapt(from_dict(AdaptRecipe, recipe), tmp_path / "out")
    facts = json.loads((made.path / "result.json").read_text(encoding="utf-8"))
    assert set(facts["figures"]) == {"accuracy", "margin"}
    assert facts["examples"] == {"train": 18, "valid": 6, "test": 0}
    assert facts["seeds"][0]["losses"][0] == pytest.approx(math.log(2), rel=0.1)
    (answer,) = Predictor(made.path).texts(["你好"])
    assert set(answer) == {"text"}
