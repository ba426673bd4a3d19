"""A text for each text: learned from the target alone, written by decoders and encoder-decoders, compared as people do."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.adapt.writers import (
    FAMILIES,
    items_of,
    learned,
    made_net,
    made_tokenizer,
    saved,
    weights,
)

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.tasks.sequences import Sequences, compared
from gristmill.adapt.tuner import mean_loss
from gristmill.adapt.writing import nats_of, prompt_of
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.framing import start_token

TASK = Sequences(source="en", target="zh", max_new_tokens=24)


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[Row]:
    found = list(read_table(str(shared_data / "en_zh_tatoeba" / "train.jsonl.gz")))[:400]
    seen: set[str] = set()
    return [row for row in found if not (row.fields["en"] in seen or seen.add(row.fields["en"]))]


@pytest.fixture(scope="module")
def tokenizer(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [str(row.fields[name]) for row in rows for name in ("en", "zh")]
    return made_tokenizer(texts, tmp_path_factory.mktemp("sequences") / "tokenizer")


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_each_target_alone(tokenizer: Tokenizer, rows: list[Row], family: str) -> None:
    net = made_net(tokenizer, family)
    items = items_of(TASK, net, TASK.read(rows[:12], labelled=True))
    with torch.no_grad():
        total = TASK.loss(net, items)
        alone = [TASK.loss(net, [item]) for item in items]
    assert float(total.total_nats) == pytest.approx(sum(float(one.total_nats) for one in alone), rel=1e-5)
    assert float(total.weight) == sum(int(item.target.sum()) for item in items)
    said = nats_of(net, items)
    assert [each.nats for each in said] == pytest.approx([float(one.total_nats) for one in alone], rel=1e-4)
    assert [each.tokens for each in said] == [int(one.weight) for one in alone]


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["qwen3", "t5"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy_as_torch_has_it(
    tokenizer: Tokenizer, rows: list[Row], family: str, smoothing: float
) -> None:
    net = made_net(tokenizer, family)
    task = dataclasses.replace(TASK, label_smoothing=smoothing)
    (item,) = items_of(task, net, task.read(rows[:1], labelled=True))
    net.train()
    prompt, target = prompt_of(item), item.encoded.tokens[item.encoded.second :]
    assert target[-1] == tokenizer.special["eos"]
    assert tokenizer.decode(target[:-1]) == rows[0].fields["zh"]
    if family == "t5":
        start = start_token(tokenizer.special)
        memory = net.model.remember(net.model.encode(torch.tensor([prompt])))  # type: ignore[operator]
        hidden = net.model(torch.tensor([[start, *target[:-1]]]), memory=memory)
    else:
        hidden = net.model(torch.tensor([item.encoded.tokens[:-1]]))[:, len(prompt) - 1 :]
    wanted = F.cross_entropy(
        net.model.logits(hidden)[0], torch.tensor(target), reduction="sum", label_smoothing=smoothing
    )
    assert task.loss(net, [item]).total_nats.item() == pytest.approx(wanted.item(), rel=1e-4)
    net.train(False)  # an unsmoothed loss can be compared with others
    assert task.loss(net, [item]).total_nats.item() == pytest.approx(TASK.loss(net, [item]).total_nats.item())


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["qwen3", "t5"])
def test_tokens_of_the_source_are_no_targets_and_gradients_of_a_smoothed_loss_are_right(
    tokenizer: Tokenizer, rows: list[Row], family: str
) -> None:
    net = made_net(tokenizer, family)
    item = items_of(TASK, net, TASK.read(rows[:1], labelled=True))[0]
    batch_targets = [token for token, told in zip(item.encoded.tokens, item.target, strict=True) if told]
    assert batch_targets == list(item.encoded.tokens[item.encoded.second :])
    smoothed = dataclasses.replace(TASK, label_smoothing=1e-12)
    gradients = []
    for task in (TASK, smoothed):
        net.train()
        task.loss(net, [item]).total_nats.backward()  # type: ignore[no-untyped-call]
        gradients.append(net.model.embedding.weight.grad.clone())  # type: ignore[union-attr]
        net.model.zero_grad()
    assert torch.allclose(*gradients, atol=1e-4)


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_learned_and_written(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path, family: str
) -> None:
    net = made_net(tokenizer, family)
    examples = TASK.read(rows[:8], labelled=True)
    items = items_of(TASK, net, examples)
    tuner = learned(TASK, net, items, tmp_path, epochs=80)
    found = tuner.run()
    assert found.losses[-1] < 0.1
    task = dataclasses.replace(TASK, metrics=("exact", "chrf", "bleu", "rouge"), beams=1)
    said = task.answers(tuner.net, items, examples, ())
    result = task.result(examples, said)
    assert result.figures["exact"].value > 0.8
    assert list(result.figures)[:5] == ["exact", "chrF", "BLEU", "ROUGE-1", "ROUGE-2"]
    assert "tok:zh" in result.table
    assert result.figures["nats per token"].value == pytest.approx(
        mean_loss(task, tuner.net, items), rel=1e-3
    )
    assert result.figures["perplexity"].value == pytest.approx(np.exp(result.figures["nats per token"].value))
    if net.model.config.kind == "encoder-decoder":
        searched = dataclasses.replace(task, beams=3).answers(tuner.net, items, examples, ())
        same = [one["text"] == other["text"] for one, other in zip(said, searched, strict=True)]
        assert np.mean(same) > 0.8
    unlabelled = [example.unlabelled() for example in examples]
    alone = task.answers(tuner.net, items_of(task, tuner.net, unlabelled), unlabelled, ())
    assert alone == [{"text": each["text"]} for each in said]


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["gpt2", "transformer"])
def test_what_was_killed_ends_in_the_same_bytes(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str, **changes: Any) -> Any:
        net = made_net(tokenizer, family, dropout=0.1)
        items = items_of(TASK, net, TASK.read(rows[:30], labelled=True))
        return learned(TASK, net, items, tmp_path / name, epochs=3, **changes)

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


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["qwen3", "transformer"])
def test_a_long_source_is_cut_and_leaves_room_for_its_answer(
    tokenizer: Tokenizer, rows: list[Row], family: str
) -> None:
    net = made_net(tokenizer, family)
    long = " ".join(str(row.fields["en"]) for row in rows[:60])
    row = Row("x", {"en": long, "zh": rows[0].fields["zh"]})
    task = dataclasses.replace(TASK, prefix="Say: ", separator=" = ")
    labelled, bare = (
        items_of(task, net, task.read([row], labelled=is_labelled), 64)[0] for is_labelled in (True, False)
    )
    assert prompt_of(labelled) == prompt_of(bare)
    assert len(prompt_of(bare)) <= (40 if family == "qwen3" else 64)
    assert len(prompt_of(bare)) > (36 if family == "qwen3" else 60)
    assert labelled.encoded.tokens[-1] == tokenizer.special["eos"]
    assert labelled.encoded.cut > 100
    text = tokenizer.decode(prompt_of(bare))
    assert text.startswith("Say: " + long[:20])
    assert text.endswith(" = ") == (family == "qwen3")


@pytest.mark.shared_data
def test_of_several_targets_each_is_learned_and_the_nearest_counts(
    tokenizer: Tokenizer, shared_data: Path
) -> None:
    task = Sequences(metrics=("rouge", "chrf"))
    table = list(read_table(str(shared_data / "en_summ_scitldr" / "test.jsonl.gz")))[:3]
    examples = task.read(table, labelled=True)
    assert [len(example.targets) for example in examples] == [2, 4, 3]
    net = made_net(tokenizer, "qwen3")
    items = items_of(task, net, examples)
    assert [item.example for item in items] == [0, 0, 1, 1, 1, 1, 2, 2, 2]
    said = [{"text": example.targets[-1], "target_nats": 1.0, "target_tokens": 1} for example in examples]
    assert task.result(examples, said).figures["ROUGE-L"].value == pytest.approx(100.0)


def test_chinese_is_compared_by_characters_and_other_text_by_words() -> None:
    _, notes = compared(["他走了"], [("他走了。",)], ("bleu",))
    assert "tok:zh" in notes[0]
    figures, notes = compared(["He has gone home ."], [("He has gone home.", "He left.")], ("bleu", "exact"))
    assert "tok:13a" in notes[0]
    assert figures["BLEU"].value == pytest.approx(100.0)
    assert figures["exact"].value == 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"en": "a"}, 'there is nothing in "zh"'),
        ({"en": "a", "zh": ""}, "\"zh\" is '', expected a text"),
        ({"en": "a", "zh": []}, '"zh" is [], expected a text'),
        ({"en": "a", "zh": ["b", " "]}, "\"zh\" is ['b', ' '], expected a text"),
        ({"en": ["a"], "zh": "b"}, "\"en\" is ['a'], expected a text"),
        ({"zh": "b"}, 'there is nothing in "en"'),
    ],
)
def test_a_row_that_does_not_fit_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        TASK.read([Row("t.tsv, row 3", fields)], labelled=True)
    assert error.value.message == f"t.tsv, row 3: {message}"


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {}, 'the task "sequences" needs a model that writes, and this base is of kind "encoder"'),
        ("qwen3", {"beams": 4}, "task.beams = 4, but the base is a decoder"),
        ("gpt2", {"separator": ""}, "without a separator a decoder can't tell where the source ends"),
    ],
)
def test_a_base_that_can_not_do_it_is_refused(
    tokenizer: Tokenizer, family: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        dataclasses.replace(TASK, **changes).check(made_net(tokenizer, family).model.config, tokenizer)
    assert error.value.message.startswith(message)
    assert error.value.hint


@pytest.mark.shared_data
def test_a_tokenizer_without_an_end_and_a_prefix_without_room_are_refused(
    tokenizer: Tokenizer, rows: list[Row]
) -> None:
    net = made_net(tokenizer, "qwen3")
    endless = Tokenizer(tokenizer._inner, {"bos": tokenizer.special["bos"]})
    with pytest.raises(InputError, match="no token that ends a text"):
        TASK.check(net.model.config, endless)
    wordy = dataclasses.replace(TASK, prefix="Translate what follows into Chinese, please, word by word: ")
    with pytest.raises(InputError, match="prefix and separator have"):
        items_of(wordy, net, wordy.read(rows[:1], labelled=True), 16)


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["gpt2", "transformer"])
def test_a_recipe_over_a_table_without_a_header_gives_a_model_that_translates(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path, family: str
) -> None:
    lines = [f"{row.fields['en']}\t{row.fields['zh']}\n" for row in rows[:8]]
    (tmp_path / "train.tsv").write_text("".join(lines), encoding="utf-8")
    same = str(tmp_path / "train.tsv")
    table = {
        "name": "translate", "base": str(saved(made_net(tokenizer, family), tmp_path / "base")),
        "task": {"name": "sequences", "source": "column_1", "target": "column_2", "max_new_tokens": 16},
        "data": {"train": same, "valid": same, "test": same},
        "tune": {"epochs": 60, "batch_examples": 8, "learning_rate": 5e-3, "precision": "float32", "dropout": 0.0},
    }  # fmt: skip
    made = adapt(from_dict(AdaptRecipe, table), tmp_path / "out")
    facts = json.loads((made.path / "result.json").read_text(encoding="utf-8"))
    assert set(facts["figures"]) == {"chrF", "BLEU", "nats per token", "perplexity"}
    assert facts["figures"]["chrF"]["interval"] is not None
    answers = [
        each["text"] for each in Predictor(made.path).texts([str(row.fields["en"]) for row in rows[:8]])
    ]
    assert np.mean([text == row.fields["zh"] for text, row in zip(answers, rows[:8], strict=True)]) > 0.6
