"""Conversations: learned from what the assistant says, packed, cut by whole rounds, and talked to afterwards."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.adapt.writers import items_of, learned, made_net, made_tokenizer, saved, weights
from tests.cli.verbs import run_verb

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.base import load_base
from gristmill.adapt.conversations import fitted
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.tasks.chat import Chat
from gristmill.adapt.templates import Form, Turn, stored_form
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.tokenizer import Tokenizer

TASK = Chat(max_new_tokens=40)


def short(rows: list[Row], count: int) -> list[Row]:
    """Rows of Alpaca with answers of a few words."""
    return [row for row in rows if len(row.fields["output"]) < 24 and not row.fields["input"]][:count]


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[Row]:
    return list(read_table(str(shared_data / "zh_instruct_alpaca" / "train.jsonl.gz")))


@pytest.fixture(scope="module")
def talks(shared_data: Path) -> list[Row]:
    return list(read_table(str(shared_data / "en_toolcall_glaive_demo" / "train.jsonl.gz")))


@pytest.fixture(scope="module")
def tokenizer(rows: list[Row], talks: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [f"{row.fields['instruction']}\n{row.fields['output']}" for row in short(rows, 200)]
    texts += [str(turn["value"]) for row in talks[:60] for turn in row.fields["conversations"]]
    return made_tokenizer(texts, tmp_path_factory.mktemp("chat") / "tokenizer", 1200)


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["qwen3", "gpt2", "lstm"])
def test_the_loss_is_that_of_the_assistants_turns_side_by_side_or_alone(
    tokenizer: Tokenizer, talks: list[Row], family: str
) -> None:
    net = made_net(tokenizer, family, row_tokens=1024)
    examples = TASK.read(talks[:4], labelled=True)
    items = items_of(TASK, net, examples, 1024)
    with torch.no_grad():
        together = TASK.loss(net, items)
        wanted, count = 0.0, 0
        for item in items:
            tokens = torch.tensor(item.encoded.tokens)
            nats = F.cross_entropy(
                net.model.logits(net.model(tokens[None, :-1]))[0], tokens[1:], reduction="none"
            )
            wanted += float(nats[torch.from_numpy(item.target[1:])].sum())
            count += int(item.target.sum())
    assert together.total_nats.item() == pytest.approx(wanted, rel=1e-4)
    assert together.weight.item() == count
    text = net.tokenizer.decode(
        [t for t, told in zip(items[0].encoded.tokens, items[0].target, strict=True) if told]
    )
    said = [turn.text for turn in examples[0].turns if turn.role == "assistant"]
    assert text == "".join(said)
    assert items[0].encoded.tokens[-1] == tokenizer.special["eos"]


@pytest.mark.shared_data
@pytest.mark.parametrize(("family", "template"), [("qwen3", "plain"), ("gpt2", "chatml")])
def test_answers_are_learned_and_written(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path, family: str, template: Any
) -> None:
    task = dataclasses.replace(
        TASK, template=template, written_examples=6, metrics=("exact", "rouge", "chrf")
    )
    net = made_net(tokenizer, family)
    examples = task.read(short(rows, 10), labelled=True)
    items = items_of(task, net, examples)
    tuner = learned(task, net, items, tmp_path, batch_examples=10)
    assert tuner.run().losses[-1] < 0.2
    said = task.answers(tuner.net, items, examples, ())
    assert ["text" in each for each in said] == [True] * 6 + [False] * 4
    result = task.result(examples, said)
    assert result.figures["exact"].value > 0.8
    assert list(result.figures)[:3] == ["nats per token", "perplexity", "exact"]
    assert "written: " in result.table
    unlabelled = [example.unlabelled() for example in examples]
    again = task.answers(tuner.net, items_of(task, tuner.net, unlabelled), unlabelled, ())
    assert [each["text"] for each in again[:6]] == [each["text"] for each in said[:6]]


@pytest.mark.shared_data
def test_what_was_killed_ends_in_the_same_bytes(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str, **changes: Any) -> Any:
        net = made_net(tokenizer, "qwen3", dropout=0.1)
        items = items_of(TASK, net, TASK.read(short(rows, 24), labelled=True))
        return learned(TASK, net, items, tmp_path / name, epochs=2, **changes)

    whole, killed = made("whole"), made("killed", checkpoint_seconds=1e-9)
    losses = whole.run().losses
    step = killed._one_step

    def dies() -> None:
        if killed.step == 4:
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
def test_of_a_long_conversation_early_rounds_go(tokenizer: Tokenizer, talks: list[Row]) -> None:
    form = Form("plain", tokenizer)
    turns = TASK.read(talks[:1], labelled=True)[0].unlabelled().turns
    roles = ["tools", "user", "assistant", "user", "assistant", "tool", "assistant", "user"]
    assert [turn.role for turn in turns] == roles
    whole = len(form.tokens(turns))
    left = {}
    for room in (whole, whole - 1, 200, 120, 40):
        kept = fitted(turns, form, tokenizer, room)
        assert kept is not None
        assert len(form.tokens(kept)) <= room
        left[room] = [turn.role for turn in kept]
    assert left == {
        whole: roles, whole - 1: ["tools", *roles[3:]], 200: ["tools", "user"], 120: ["tools", "user"], 40: ["tools", "user"]
    }  # fmt: skip
    kept = fitted(turns, form, tokenizer, 120)
    assert kept is not None
    assert turns[0].text.startswith(kept[0].text)  # the longest text is cut, and at its end
    assert kept[1] == turns[-1]
    assert fitted(turns, form, tokenizer, 5) is None


@pytest.mark.shared_data
def test_a_long_prompt_is_cut_in_the_same_way_whatever_its_answer_and_a_long_answer_loses_its_end(
    tokenizer: Tokenizer, rows: list[Row]
) -> None:
    net = made_net(tokenizer, "qwen3")
    task = Chat(max_new_tokens=16)
    long = "。".join(str(row.fields["instruction"]) for row in rows[:40])
    made = [Row("x", {"prompt": long, "response": answer}) for answer in ("好", long)]
    one, other = items_of(task, net, task.read(made, labelled=True), 64)
    (bare,) = items_of(task, net, task.read(made[:1], labelled=False), 64)
    assert one.encoded.tokens[: one.encoded.second] == bare.encoded.tokens
    assert other.encoded.tokens[: other.encoded.second] == bare.encoded.tokens
    assert 40 < len(bare.encoded.tokens) <= 48
    assert (len(other.encoded.tokens), other.encoded.tokens[-1] == tokenizer.special["eos"]) == (64, False)
    assert other.target.sum() == 64 - len(bare.encoded.tokens)
    assert other.encoded.cut > one.encoded.cut > 100
    assert one.encoded.tokens[-1] == tokenizer.special["eos"]
    with pytest.raises(InputError, match=r"x: what stands around the turns alone"):
        items_of(task, net, task.read(made[:1], labelled=True), 8)


def turns(*said: tuple[str, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": what} for who, what in said]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"instruction": "a", "input": "", "output": ""}, "\"output\" is '', expected a text"),
        ({"instruction": "a"}, "there is no turn of the assistant"),
        ({"prompt": "a", "response": " "}, "\"response\" is ' ', expected a text"),
        ({"question": "a", "answer": "b"}, "there is no conversation"),
        (turns(("human", "a")), "there is no turn of the assistant"),
        (turns(("human", "a"), ("gpt", "")), "turn 2: nothing is said"),
        (turns(("human", "a"), ("gpt", None)), "turn 2: it says None, expected a text"),
        (turns(("human", "a"), ("human", "b"), ("gpt", "c")), "turn 2: a turn of the user stands after a turn of the user"),
        (turns(("gpt", "a"), ("human", "b")), "turn 1: a turn of the assistant stands first"),
        (turns(("human", "a"), ("gpt", "b"), ("system", "c")), "turn 3: a turn of the system stands after"),
        (turns(("human", "a"), ("observation", "b"), ("gpt", "c")), "turn 2: a turn of the tool stands after"),
        (turns(("human", "a"), ("wizard", "b")), "turn 2: said by 'wizard', which is nobody that is known"),
        ({"conversations": []}, '"conversations" is no list of turns'),
        ({"conversations": "hello"}, '"conversations" is no list of turns'),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "turn 2: a tool is called that has no name"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, '"history" is no list of pairs'),
        ({"instruction": "a", "output": "b", "tools": "{"}, '"tools" is no JSON'),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        TASK.read([Row("t.jsonl, row 3", fields)], labelled=True)
    assert error.value.message.startswith("t.jsonl, row 3")
    assert message in error.value.message


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_base_that_is_no_decoder_is_refused(tokenizer: Tokenizer, family: str) -> None:
    with pytest.raises(
        InputError, match='the task "chat" needs a model that writes, and this base is of kind'
    ):
        TASK.check(made_net(tokenizer, family).model.config, tokenizer)


@pytest.mark.shared_data
def test_an_end_that_is_an_ordinary_token_is_refused(tokenizer: Tokenizer) -> None:
    plain = Tokenizer(tokenizer._inner, {**tokenizer.special, "eos": tokenizer.encode("a")[0]})
    with pytest.raises(InputError, match="eos of the tokenizer is no special token"):
        TASK.check(made_net(tokenizer, "qwen3").model.config, plain)


@pytest.fixture(scope="module")
def assistant(tokenizer: Tokenizer, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows eight answers by heart."""
    folder = tmp_path_factory.mktemp("assistant")
    table = [dict(row.fields) for row in short(rows, 8)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
    same = str(folder / "train.jsonl")
    recipe = {
        "name": "assistant", "base": str(saved(made_net(tokenizer, "qwen3"), folder / "base")),
        "task": {"name": "chat", "max_new_tokens": 32, "system": "你很友善。"},
        "data": {"train": same, "valid": same},
        "tune": {"epochs": 80, "batch_examples": 8, "learning_rate": 5e-3, "precision": "float32", "dropout": 0.0},
    }  # fmt: skip
    return adapt(from_dict(AdaptRecipe, recipe), folder / "assistant").path


@pytest.mark.shared_data
def test_a_recipe_gives_a_model_to_talk_to(
    assistant: Path, rows: list[Row], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = json.loads((assistant / "result.json").read_text(encoding="utf-8"))
    assert facts["figures"]["perplexity"]["mean"] < 1.3
    known = [(str(row.fields["instruction"]), str(row.fields["output"])) for row in short(rows, 8)]
    answers = [each["text"] for each in Predictor(assistant).texts([one for one, _ in known])]
    right = [text == two for text, (_, two) in zip(answers, known, strict=True)]
    assert np.mean(right) > 0.8
    at = right.index(True)
    lines = iter(
        [known[at][0], "  ", "/new", known[at][0], "/help", "/nwe", "/set max_new_tokens 8", "谢谢", "/quit"]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    status, out, err = run_verb(capsys, "chat", assistant, "--greedy", "--max-new-tokens", "32")
    assert status == 0
    assert out.splitlines()[:2] == [known[at][1]] * 2
    assert 'did you mean "/new"' in err
    assert "it remembers what was said before" in err
    form = stored_form(load_base(assistant).tokenizer)
    assert form is not None
    prompt = form.text([Turn("user", known[at][0])], opened=True)
    assert prompt.startswith("<|bos|>你很友善。")
    status, out, _ = run_verb(
        capsys, "generate", assistant, prompt.removeprefix("<|bos|>"), "--greedy", "--max-new-tokens", "32"
    )
    assert status == 0
    assert out.rstrip().endswith(known[at][1])


@pytest.mark.shared_data
def test_a_conversation_longer_than_the_model_sees_goes_on(
    assistant: Path, rows: list[Row], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter([*(str(row.fields["instruction"]) for row in short(rows, 8)), "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    status, _, err = run_verb(capsys, "chat", assistant, "--greedy", "--max-new-tokens", "24")
    assert status == 0
    assert "note: the model sees 128 tokens; not all that was said fits" in err


@pytest.mark.shared_data
def test_what_was_adapted_can_be_a_base_and_be_exported(assistant: Path, tmp_path: Path) -> None:
    import transformers

    from gristmill.generate import load_run
    from gristmill.generate.portable import export_run

    base = load_base(assistant)
    assert (base.note, base.artifact and base.artifact.kind) == ("", "adapted")
    assert Chat().form(base.tokenizer).system == "你很友善。"
    export_run(load_run(assistant), tmp_path / "exported")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    turns = [Turn("user", "你好")]
    ids = theirs.apply_chat_template(
        [{"role": "user", "content": "你好"}], add_generation_prompt=True, return_dict=False
    )
    assert list(Chat().form(base.tokenizer).tokens(turns)) == ids


@pytest.mark.shared_data
def test_a_model_with_a_head_is_a_base_without_it_and_does_not_talk(
    tokenizer: Tokenizer, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = list(read_table(str(shared_data / "zh_sentiment_waimai" / "valid.jsonl.gz")))[:40]
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(dict(row.fields)) for row in table))
    recipe = {
        "name": "opinions", "base": str(saved(made_net(tokenizer, "gpt2"), tmp_path / "base")),
        "task": "classification", "data": {"train": str(tmp_path / "train.jsonl")},
        "tune": {"epochs": 1, "precision": "float32"},
    }  # fmt: skip
    made = adapt(from_dict(AdaptRecipe, recipe), tmp_path / "opinions").path
    base = load_base(made)
    assert "its head is left out" in base.note
    assert torch.equal(base.model.embedding.weight, Predictor(made).net.model.embedding.weight)
    for verb in ("chat", "generate"):
        status, _, err = run_verb(capsys, verb, made, *(["a"] if verb == "generate" else []))
        assert status == 2
        assert "is a task model: what it was adapted for is told by its head" in err
        assert f"hint: gristmill predict {made} FILE" in err
