"""Classes by the word in a gap: the scores are those of the stock models, with no label, with few, and with learned vectors."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.encoding import Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.tables import Row
from gristmill.adapt.tasks.prompted import Prompted, Shot
from gristmill.batch import Visibility
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import from_transformers, to_transformers
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

WORDS = {"timer": ("timer", "clock"), "translate": "translate", "transfer": "send money"}
TEMPLATE = "{text} It is about {mask}"
WHOLE = {"dropout": 0.0, "batch_examples": 128, "epochs": 5}
"""All examples in each step, so that the loss falls also where little can be learned."""


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    with gzip.open(shared_data / "en_intent_clinc150" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return sorted((row for row in found if row["label"] in WORDS), key=lambda row: row["text"])


@pytest.fixture(scope="module")
def base(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small model of a family that has learned nothing, in the format of transformers."""
    folder = tmp_path_factory.mktemp("bases")
    train(TokenizerConfig(vocab_size=600, sentinels=2), [row["text"] for row in rows], folder / "tokenizer")
    tokenizer = Tokenizer.from_directory(folder / "tokenizer")

    def made(family: str) -> Path:
        out = folder / family
        if not out.exists():
            settings = ModelSettings(family=family, depth=2, width=64)
            model = make_model(resolve(settings, vocab_size=tokenizer.vocab_size, row_tokens=256))
            model.initialise(generator := torch.Generator().manual_seed(0))
            with torch.no_grad():  # at the beginning of training it would say nearly the same of all words
                for parameter in model.parameters():
                    if parameter.dim() == 2:
                        parameter.normal_(0.0, 0.1, generator=generator)
            out.mkdir()
            to_transformers(model, out, dict(tokenizer.special))
            tokenizer.save(out)
        return out

    return made


def scores(base: Path, task: Prompted, rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    model, tokenizer = from_transformers(base), Tokenizer.from_directory(base)
    task.check(model.config, tokenizer)
    examples = task.read([Row(f"row {i}", row) for i, row in enumerate(rows)], labelled=False)
    encoder = Encoder(tokenizer.vocabulary(), model.config, 200)
    items = task.items(examples, tokenizer, encoder, tuple(sorted(WORDS)))
    visibility = Visibility.CAUSAL if model.config.kind == "decoder" else Visibility.FULL
    with torch.no_grad():
        return task._scores(Net(model=model, tokenizer=tokenizer, visibility=visibility), items)


class Stock:
    """The published class, asked for one word after the other and one text at a time."""

    def __init__(self, base: Path, kind: Any) -> None:
        self.model = kind.from_pretrained(base).eval()
        self.tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(base)
        self.special = Tokenizer.from_directory(base).special

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    @torch.no_grad()
    def said(self, ids: list[int], places: Sequence[int], tokens: Sequence[int], **more: Any) -> float:
        logits = self.model(input_ids=torch.tensor([ids]), **more).logits[0].log_softmax(-1)
        return float(logits[list(places), list(tokens)].mean())


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_an_encoder_is_asked_as_the_stock_class_is(
    base: Callable[[str], Path], rows: list[dict[str, Any]], family: str
) -> None:
    kind = {"bert": transformers.BertForMaskedLM, "modernbert": transformers.ModernBertForMaskedLM}[family]
    stock = Stock(base(family), kind)

    def of(text: str, word: str) -> float:
        tokens, before = stock.ids(f" {word}"), stock.ids(f"{text} It is about")
        ids = [stock.special["cls"], *before, *[stock.special["mask"]] * len(tokens), *stock.ids(", is it?")]
        first = 1 + len(before)
        return stock.said([*ids, stock.special["sep"]], range(first, first + len(tokens)), tokens)

    wanted = [
        [np.logaddexp(of(t, "timer"), of(t, "clock")) - np.log(2), of(t, "send money"), of(t, "translate")]
        for t in (row["text"] for row in rows[:4])
    ]
    found = scores(base(family), Prompted(template=TEMPLATE + ", is it?", words=WORDS), rows[:4])
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_decoder_is_asked_as_the_stock_class_is(
    base: Callable[[str], Path], rows: list[dict[str, Any]], family: str, calibrated: bool
) -> None:
    kind = {"gpt2": transformers.GPT2LMHeadModel, "qwen3": transformers.Qwen3ForCausalLM}[family]
    stock = Stock(base(family), kind)
    shown = f"{rows[5]['text']} It is about {rows[5]['label']}\n\n"

    def of(text: str, word: str) -> float:
        before = stock.ids(f"{shown}{text} It is about")
        whole = stock.ids(f"{shown}{text} It is about {word}")
        assert whole[: len(before)] == before
        places = range(len(before), len(whole))
        return stock.said([stock.special["bos"], *whole], places, whole[len(before) :]) * len(places)

    words = {"timer": "timer", "transfer": "send money", "translate": "translate"}
    wanted = np.array([[of(row["text"], word) for word in words.values()] for row in rows[:3]])
    if calibrated:
        empty = np.array([of("", word) for word in words.values()])
        wanted -= empty - np.logaddexp.reduce(empty)
    task = Prompted(
        template=TEMPLATE, words=words, length="sum", calibration=("",) if calibrated else (),
        examples=(Shot(texts=(rows[5]["text"],), label=rows[5]["label"]),),
    )  # fmt: skip
    np.testing.assert_allclose(scores(base(family), task, rows[:3]), wanted, atol=5e-5)


@pytest.mark.shared_data
def test_an_encoder_decoder_is_asked_as_the_stock_class_is(
    base: Callable[[str], Path], rows: list[dict[str, Any]]
) -> None:
    stock = Stock(base("t5"), transformers.T5ForConditionalGeneration)
    gap = Tokenizer.from_directory(base("t5")).sentinels[0]

    def of(text: str, word: str) -> float:
        tokens = stock.ids(f" {word}")
        source = [stock.special["bos"], *stock.ids(f"{text} It is about"), gap, stock.special["eos"]]
        decoder = torch.tensor([[stock.special["bos"], gap, *tokens[:-1]]])
        return stock.said(source, range(1, 1 + len(tokens)), tokens, decoder_input_ids=decoder)

    words = {"timer": "timer", "transfer": "send money", "translate": "translate"}
    wanted = [[of(row["text"], word) for word in words.values()] for row in rows[:3]]
    found = scores(base("t5"), Prompted(template=TEMPLATE, words=words), rows[:3])
    np.testing.assert_allclose(found, wanted, atol=5e-5)


def recipe(
    folder: Path, base: Path, rows: list[dict[str, Any]], task: dict[str, Any], tune: dict[str, Any]
) -> AdaptRecipe:
    mixed = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, mixed[:120])))
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, mixed[120:240])))
    return from_dict(
        AdaptRecipe,
        {
            "name": "prompted", "base": str(base), "task": {"name": "prompted", "template": TEMPLATE, **task},
            "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")},
            "tune": {"batch_examples": 16, "precision": "float32", **tune},
        },
    )  # fmt: skip


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("family", "task", "tune"),
    [
        ("bert", {"words": {**WORDS, "timer": list(WORDS["timer"])}}, {"learning_rate": 5e-3, "epochs": 5}),
        ("bert", {}, {"way": "soft_prompt", "learning_rate": 0.03, **WHOLE}),
        ("gpt2", {}, {"way": {"name": "prefix", "tokens": 5}, "learning_rate": 0.03, **WHOLE}),
        ("qwen3", {"shots": 3, "words": {name: name for name in WORDS}}, {"way": "lora", "learning_rate": 5e-3, **WHOLE}),
        ("t5", {"calibration": [""]}, {"learning_rate": 5e-3, **WHOLE}),
    ],
)  # fmt: skip
def test_labels_are_learned_and_what_is_kept_answers_the_same(
    tmp_path: Path,
    base: Callable[[str], Path],
    rows: list[dict[str, Any]],
    family: str,
    task: dict[str, Any],
    tune: dict[str, Any],
) -> None:
    made = adapt(recipe(tmp_path, base(family), rows, task, {"epochs": 3, **tune}), tmp_path / "out")
    facts = json.loads((made.path / "result.json").read_text())
    assert facts["seeds"][0]["losses"][-1] < facts["seeds"][0]["losses"][0], facts["seeds"][0]["losses"]
    if not tune.items() >= WHOLE.items():
        assert facts["figures"]["accuracy"]["mean"] > 0.6, facts["seeds"]  # chance is a third
    predictor = Predictor(made.path)
    test = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    answers = list(predictor.texts([row["text"] for row in test]))
    right = np.mean([answer["label"] == row["label"] for answer, row in zip(answers, test, strict=True)])
    assert right == facts["figures"]["accuracy"]["mean"]
    assert len(predictor.task.examples) == task.get("shots", 0)


@pytest.mark.shared_data
def test_without_labels_nothing_is_learned(
    tmp_path: Path, base: Callable[[str], Path], rows: list[dict[str, Any]]
) -> None:
    asked = recipe(tmp_path, base("gpt2"), rows, {"words": {n: n for n in WORDS}}, {"epochs": 0})
    said = adapt(asked, tmp_path / "one")
    alone = from_dict(
        AdaptRecipe,
        {
            "name": "alone", "base": asked.base, "tune": {"epochs": 0},
            "task": {"name": "prompted", "template": TEMPLATE, "words": {n: n for n in WORDS}},
            "data": {"test": str(asked.data.test)},
        },
    )  # fmt: skip
    same = adapt(alone, tmp_path / "other")
    one, other = (json.loads((made.path / "result.json").read_text()) for made in (said, same))
    assert one["figures"] == other["figures"]
    assert (one["seeds"][0]["steps"], other["examples"]["train"]) == (0, 0)
    assert torch.equal(
        from_transformers(base("gpt2")).embedding.weight,
        Predictor(said.path).net.model.embedding.weight,
    )


@pytest.mark.shared_data
def test_shots_are_of_each_class_and_none_is_the_text_itself(
    base: Callable[[str], Path], rows: list[dict[str, Any]]
) -> None:
    task = Prompted(template=TEMPLATE, shots=6)
    examples = task.read([Row("x", row) for row in rows], labelled=True)
    settled = task.settled(examples, seed=1)
    assert sorted(shot.label for shot in settled.examples) == sorted([*WORDS, *WORDS])
    assert settled == task.settled(examples, seed=1) != task.settled(examples, seed=2)
    tokenizer = Tokenizer.from_directory(base("gpt2"))
    config = from_transformers(base("gpt2")).config
    own = next(each for each in examples if each.texts == settled.examples[0].texts)
    items = settled.items(
        [own, examples[-1]], tokenizer, Encoder(tokenizer.vocabulary(), config, 256), tuple(sorted(WORDS))
    )
    shown = [tokenizer.decode(item.encoded.tokens) for item in items[:1] + items[-1:]]
    assert [text.count("It is about") for text in shown] == [6, 7]
    assert shown[1].startswith(f"{settled.examples[0].texts[0]} It is about {settled.examples[0].label}\n\n")


@pytest.mark.shared_data
def test_of_a_text_that_is_too_long_the_template_stays(
    base: Callable[[str], Path], rows: list[dict[str, Any]]
) -> None:
    tokenizer, config = Tokenizer.from_directory(base("bert")), from_transformers(base("bert")).config
    task = Prompted(template="{a} {mask}, {b}!", text=("one", "other"))
    long, short = " ".join(row["text"] for row in rows[:20]), rows[30]["text"]
    examples = task.read(
        [Row("x", {"one": long, "other": short, "label": name}) for name in ("no", "yes")], labelled=True
    )
    encoder = Encoder(tokenizer.vocabulary(), config, 40)
    item, *_ = task.items(examples, tokenizer, encoder, ("no", "yes"))
    shown = tokenizer.decode(item.encoded.tokens)
    assert len(item.encoded.tokens) == 40
    assert shown.endswith(f", {short}!")
    assert long.startswith(shown.partition(",")[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "It was {mask}."}, r"should hold \{text\} and \{mask\} once each"),
        ({"template": "{text} is {word}"}, r"it names \{word\}"),
        ({"template": "{text} {mask} {mask}"}, "once each"),
        ({"template": "{text} {mask}", "text": ("x", "y")}, r"\{a\} and \{b\} and \{mask\}"),
        ({"template": TEMPLATE, "examples": (Shot(texts=("a", "b"), label="timer"),)}, "has 2 texts"),
    ],
)
def test_a_template_that_can_not_be_filled_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Prompted(**settings)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("family", "task", "tune", "message"),
    [
        ("bert", {"words": {"timer": "a", "transfer": "b"}}, {}, 'no word for the class "translate"'),
        ("bert", {"words": {"timer": "a", "transfer": "a", "translate": "b"}}, {}, 'have the same word "a"'),
        ("gpt2", {"template": "{text}, about {mask}, I think"}, {}, "something follows"),
        ("gpt2", {"shots": 500}, {}, "task.shots = 500, and there are 108"),
        ("gpt2", {"shots": 50}, {}, "leave no room: there are 255 tokens"),
        ("bert", {}, {"way": "frozen"}, "has no head"),
        ("bert", {}, {"consistency": 1.0}, "has none"),
        ("t5", {}, {"way": "soft_prompt"}, "writes its answers"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(
    tmp_path: Path,
    base: Callable[[str], Path],
    rows: list[dict[str, Any]],
    family: str,
    task: dict[str, Any],
    tune: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        adapt(recipe(tmp_path, base(family), rows, task, tune), tmp_path / "out")


@pytest.mark.shared_data
def test_a_model_without_a_masked_head_and_a_task_with_one_of_its_own_are_refused(
    tmp_path: Path, base: Callable[[str], Path], rows: list[dict[str, Any]]
) -> None:
    stock = transformers.BertForMaskedLM.from_pretrained(base("bert")).bert
    stock.save_pretrained(tmp_path / "bare")
    Tokenizer.from_directory(base("bert")).save(tmp_path / "bare")
    with pytest.raises(InputError, match="no head that predicts tokens"):
        adapt(recipe(tmp_path, tmp_path / "bare", rows, {}, {}), tmp_path / "out")
    table = {"name": "x", "base": "x", "data": {"train": "x"}, "tune": {"epochs": 0}}
    with pytest.raises(InputError, match="answers nothing before it has learned"):
        from_dict(AdaptRecipe, {**table, "task": "classification"})
    with pytest.raises(InputError, match=r'"data\.train" is missing'):
        from_dict(AdaptRecipe, {**table, "task": "classification", "data": {"test": "x"}, "tune": {}})
