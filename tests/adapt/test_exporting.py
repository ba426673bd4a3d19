"""What a task model says, the stock class of transformers says too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.base import load_base
from gristmill.adapt.encoding import Encoded, pack
from gristmill.adapt.exporting import export_task, export_updates
from gristmill.adapt.heads import Head
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.stock import stock_for
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.tasks.classification import shares
from gristmill.batch import Visibility
from gristmill.cli._main import gristmill
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.objectives.base import hidden_states
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.shared_data

FAMILIES = ("bert", "modernbert", "gpt2", "llama", "qwen3")
CLASSES = ("translate", "transfer", "timer", "definition")
Fit = Callable[..., Path]


@pytest.fixture(scope="module")
def tables(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Some rows of each set."""

    def some(folder: str, step: int) -> list[dict[str, Any]]:
        rows = [dict(row.fields) for row in read_table(str(shared_data / folder / "train.jsonl.gz"))]
        return [row for row in rows if row.get("label", CLASSES[0]) in CLASSES][::step][:80]

    return {
        "intents": some("en_intent_clinc150", 5),
        "pairs": some("en_sts_stsb", 17),
        "entities": some("en_ner_wikigold", 11),
        "emotions": some("en_emotion_goemotions", 17),
    }


@pytest.fixture(scope="module")
def words(tables: dict[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [row["text"] for row in tables["intents"]] + [
        " ".join(row["tokens"]) for row in tables["entities"]
    ]
    return train(TokenizerConfig(vocab_size=700), texts, tmp_path_factory.mktemp("words") / "tokenizer").path


@pytest.fixture(scope="module")
def fit(
    tables: dict[str, list[dict[str, Any]]], words: Path, tmp_path_factory: pytest.TempPathFactory
) -> Fit:
    """Returns the directory of a small model of a family that was adapted to some rows for some steps."""

    def base(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        tokenizer = Tokenizer.from_directory(words)
        settings = ModelSettings(
            family=family, depth=2, width=64, **({"kv_heads": 1, "heads": 2} if family == "llama" else {})
        )
        model = make_model(resolve(settings, vocab_size=tokenizer.vocab_size, row_tokens=192))
        model.initialise(torch.Generator().manual_seed(0))
        to_transformers(model, folder, dict(tokenizer.special))
        tokenizer.save(folder)
        return folder

    def make(family: str, rows: str | list[dict[str, Any]], task: Any, **tune: Any) -> Path:
        model = base(family)
        given = tables[rows] if isinstance(rows, str) else rows
        (model / "rows.jsonl").write_text("\n".join(map(json.dumps, given)))
        recipe = {
            "name": "x", "base": str(model), "task": task, "data": {"train": str(model / "rows.jsonl")},
            "tune": {"epochs": 3, "learning_rate": 3e-3, "batch_examples": 8, "precision": "float32", **tune}, "maximum_tokens": 192,
        }  # fmt: skip
        return adapt(from_dict(AdaptRecipe, recipe), model / "out").path

    return make


def pipeline(kind: str, directory: Path, **settings: Any) -> Any:
    return transformers.pipeline(
        kind, model=str(directory), tokenizer=str(directory), device="cpu", **settings
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pipeline_tells_the_same_classes(
    family: str, fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    adapted = fit(family, "intents", "classification")
    export_task(adapted, tmp_path / "out")
    texts = [row["text"] for row in tables["intents"]]
    ours = list(Predictor(adapted).texts(texts))
    assert len({answer["label"] for answer in ours}) > 1
    for size in (1, 7):
        theirs = pipeline("text-classification", tmp_path / "out", batch_size=size)(texts)
        assert [each["label"] for each in theirs] == [each["label"] for each in ours]
        assert [each["score"] for each in theirs] == pytest.approx(
            [each["probability"] for each in ours], abs=1e-4
        )


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_a_pipeline_tells_the_same_of_pairs(
    family: str, fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    rows = [row | {"label": "near" if row["score"] > 2.5 else "far"} for row in tables["pairs"]]
    adapted = fit(family, rows, {"name": "classification", "text": ["text1", "text2"]})
    export_task(adapted, tmp_path / "out")
    ours = [answer for _, answer in Predictor(adapted).rows(Row("x", row) for row in rows)]
    asked = [{"text": row["text1"], "text_pair": row["text2"]} for row in rows]
    theirs = pipeline("text-classification", tmp_path / "out", batch_size=5)(asked, truncation=True)
    assert [each["label"] for each in theirs] == [each["label"] for each in ours]
    assert [each["score"] for each in theirs] == pytest.approx(
        [each["probability"] for each in ours], abs=1e-4
    )


@pytest.mark.parametrize("family", ["modernbert", "gpt2"])
def test_numbers_come_on_their_own_scale(
    family: str, fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    rows = tables["pairs"]
    adapted = fit(family, rows, "similarity")
    export_task(adapted, tmp_path / "out")
    ours = [answer["score"] for _, answer in Predictor(adapted).rows(Row("x", row) for row in rows)]
    asked = [{"text": row["text1"], "text_pair": row["text2"]} for row in rows]
    theirs = pipeline("text-classification", tmp_path / "out", batch_size=5)(asked, truncation=True)
    assert [each["score"] for each in theirs] == pytest.approx(ours, abs=1e-4)


def test_several_classes_come_with_their_probabilities(
    fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    adapted = fit("bert", "emotions", {"name": "multi_label", "labels": "emotions"})
    export_task(adapted, tmp_path / "out")
    texts = [row["text"] for row in tables["emotions"]]
    ours = [answer["probabilities"] for answer in Predictor(adapted).texts(texts)]
    theirs = pipeline("text-classification", tmp_path / "out", top_k=None)(texts, truncation=True)
    for mine, other in zip(ours, theirs, strict=True):
        assert {each["label"]: each["score"] for each in other} == pytest.approx(mine, abs=1e-4)


@pytest.mark.parametrize("family", [*FAMILIES, "t5"])
def test_a_pipeline_tells_the_same_tags(
    family: str, fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    adapted = fit(family, "entities", "tagging")
    export_task(adapted, tmp_path / "out")
    predictor, rows = Predictor(adapted), [Row("x", row) for row in tables["entities"]]
    examples = predictor.task.read(rows, labelled=False)
    items = predictor.task.items(examples, predictor.net.tokenizer, predictor.encoder, predictor.outputs)
    short = [item for item in items if [other.example for other in items].count(item.example) == 1]
    texts = [examples[item.example].text for item in short]
    theirs = pipeline("token-classification", tmp_path / "out", ignore_labels=[], batch_size=6)(texts)
    for item, scores, said in zip(short, predictor.net.scores_of(short), theirs, strict=True):
        of_text = slice(item.encoded.first, item.encoded.first + len(said))
        probabilities = shares(scores)[of_text]
        assert [each["entity"] for each in said] == [predictor.outputs[i] for i in probabilities.argmax(1)]
        np.testing.assert_allclose([each["score"] for each in said], probabilities.max(1), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["ForQuestionAnswering", "ForMultipleChoice"])
def test_heads_of_reading_and_of_choices_fit_into_their_classes(family: str, end: str) -> None:
    config = resolve(ModelSettings(family=family, depth=2, width=64), vocab_size=300, row_tokens=64)
    task = {"ForQuestionAnswering": "reading", "ForMultipleChoice": "multiple_choice"}[end]
    if task == "multiple_choice" and config.kind == "decoder":
        with pytest.raises(InputError, match=f'no class in transformers is a "{family}"') as error:
            stock_for(task, config)
        assert "adapt a model of one of the families bert, modernbert" in str(error.value.hint)
        return
    model = make_model(config)
    model.initialise(torch.Generator().manual_seed(0))
    head = Head(config, 2, "token", dropout=0.0, seed=0)
    if task == "multiple_choice":
        head = Head(config, 1, "example", dropout=0.0, seed=0)
    stock = stock_for(task, config)
    assert stock.architecture.endswith(end)
    made = getattr(transformers, stock.architecture)
    theirs = made(made.config_class(**stock.fields() | {"classifier_pooling": "cls"})).eval()
    missing, unknown = theirs.load_state_dict(
        stock.state(model.state_dict()) | stock.head_state(head), strict=False
    )
    assert (missing, unknown) == ([], [])
    rows = torch.randint(300, (3, 20), generator=torch.Generator().manual_seed(1))
    encoded = [Encoded(tuple(row), 1, 20, 0) for row in rows.tolist()]
    visibility = Visibility.FULL if config.kind == "encoder" else Visibility.CAUSAL
    packed = pack(encoded, visibility, token_types=config.token_types > 0)
    with torch.no_grad():
        ours = head(hidden_states(model, packed.batch)[0], packed)
        said = theirs(rows[None]).logits[0][:, None] if task == "multiple_choice" else theirs(rows)
        if task == "reading":
            said = torch.stack([said.start_logits, said.end_logits], -1).flatten(0, 1)
    torch.testing.assert_close(ours, said, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 asks transformers 5 for it
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_makes_of_base_and_updates_what_we_do(
    family: str, fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    way = {
        "name": "lora",
        "rank": 4,
        "matrices": ["attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down"],
    }
    adapted = fit(family, "intents", "classification", way=way)
    export_task(adapted, tmp_path / "whole")
    result = export_updates(adapted, tmp_path / "updates")
    assert sorted(result["files"]) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (
        result["files"]["adapter_model.safetensors"]
        < (tmp_path / "whole" / "model.safetensors").stat().st_size / 2
    )
    texts = [row["text"] for row in tables["intents"]]
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "whole")(
        texts, padding=True, return_tensors="pt"
    )
    predictor = Predictor(adapted)
    examples = predictor.task.read([Row("x", {"text": text}) for text in texts], labelled=False)
    items = predictor.task.items(examples, predictor.net.tokenizer, predictor.encoder, predictor.outputs)
    ours = np.stack(predictor.net.scores_of(items))
    base = transformers.AutoModelForSequenceClassification.from_pretrained(adapted.parent, num_labels=4)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = peft.PeftModel.from_pretrained(base, tmp_path / "updates").eval()
    with torch.no_grad():
        np.testing.assert_allclose(model(**inputs).logits.numpy(), ours, atol=1e-4)
        merged = model.merge_and_unload()
        np.testing.assert_allclose(merged(**inputs).logits.numpy(), ours, atol=1e-4)
    after = merged.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) >= 9  # the four matrices of both blocks, and the head


def test_a_head_begins_with_the_pooler_of_the_checkpoint(
    fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path, words: Path
) -> None:
    tokenizer = Tokenizer.from_directory(words)
    config = transformers.BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    theirs = transformers.BertModel(config)
    theirs.save_pretrained(tmp_path / "bert")
    tokenizer.save(tmp_path / "bert")
    base = load_base(tmp_path / "bert")
    head = Head(base.model.config, 4, "example", dropout=0.0, seed=0)
    new = head.out.weight.clone()
    head.begin_with(base.layer)
    assert head.dense is not None
    assert torch.equal(head.dense.weight, theirs.pooler.dense.weight)
    assert torch.equal(head.dense.bias, theirs.pooler.dense.bias)
    assert torch.equal(head.out.weight, new)
    assert Head(base.model.config, 4, "token", dropout=0.0, seed=0).dense is None


def test_a_head_begins_with_the_layer_before_the_output_as_the_stock_class_does(
    fit: Fit, tmp_path: Path
) -> None:
    adapted = fit("modernbert", "intents", "classification", way="frozen", learning_rate=1e-9)
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(adapted.parent, num_labels=4)
    head = Predictor(adapted).net.head
    assert isinstance(head, Head)
    assert head.dense is not None
    torch.testing.assert_close(head.dense.weight, stock.head.dense.weight, atol=1e-5, rtol=0.0)
    assert float(stock.head.dense.weight.detach().std()) > 0


def test_what_no_class_has_is_refused(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = fit("bert", "intents", "classification", way={"name": "prefix", "tokens": 4})
    with pytest.raises(InputError, match="learned vectors stand before each text"):
        export_task(adapted, tmp_path / "out")
    with pytest.raises(InputError, match="was not adapted with LoRA"):
        export_updates(adapted, tmp_path / "out")
    t5 = fit("t5", "intents", "classification", way="frozen")
    with pytest.raises(InputError, match='no class in transformers is a "t5" with the head of the task'):
        export_task(t5, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_numbers_that_begin_elsewhere_than_at_0_need_a_bias(
    fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    adapted = fit(
        "gpt2", [row | {"score": row["score"] + 1} for row in tables["pairs"]], "similarity", way="frozen"
    )
    with pytest.raises(InputError, match="the numbers begin at 1, and the class of this family has no bias"):
        export_task(adapted, tmp_path / "out")


def test_the_command_line_says_what_comes_next(fit: Fit, tmp_path: Path) -> None:
    adapted = fit("bert", "intents", "classification", way="frozen")
    run = CliRunner().invoke(gristmill, ["export", str(adapted), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert (
        f'next: transformers.BertForSequenceClassification.from_pretrained("{tmp_path / "out"}")'
        in run.output
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {str(i): name for i, name in enumerate(sorted(CLASSES))}
    for options, message in (
        (["--pooling", "mean"], "its pooling is decided"),
        (["--adapter"], "not adapted with LoRA"),
    ):
        run = CliRunner().invoke(gristmill, ["export", str(adapted), "--out", str(tmp_path / "no"), *options])
        assert isinstance(run.exception, InputError) or message in run.output


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 asks transformers 5 for it
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_writes_its_answers_itself_stays_what_it_was_pretrained_as(
    family: str, fit: Fit, tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    adapted = fit(family, "intents", "tests.adapt.continuing", way="lora")
    assert "class" not in export_task(adapted, tmp_path / "whole")
    export_updates(adapted, tmp_path / "updates")
    texts = [row["text"] for row in tables["intents"]]
    ours = [answer["nats"] for answer in Predictor(adapted).texts(texts)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "whole")
    base = transformers.AutoModelForCausalLM.from_pretrained(adapted.parent)
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    for model in (whole, peft.PeftModel.from_pretrained(base, tmp_path / "updates").eval()):
        with torch.no_grad():
            rows = [tokenizer(text, return_tensors="pt")["input_ids"] for text in texts]
            assert [float(model(input_ids=row, labels=row).loss) for row in rows] == pytest.approx(
                ours, abs=1e-4
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_class_for_answers_finds_the_same_ends(
    family: str, fit: Fit, shared_data: Path, tmp_path: Path
) -> None:
    rows = [dict(row.fields) for row in read_table(str(shared_data / "en_qa_squad" / "train.jsonl.gz"))]
    rows.sort(key=lambda row: len(row["context"]) + len(row["question"]))
    rows = [row | {"title": None} for row in rows[:40]]
    adapted = fit(family, rows, "reading")
    assert export_task(adapted, tmp_path / "out")["class"].endswith("ForQuestionAnswering")
    predictor = Predictor(adapted)
    examples = predictor.task.read([Row("x", row) for row in rows], labelled=False)
    items = predictor.task.items(examples, predictor.net.tokenizer, predictor.encoder, predictor.outputs)
    whole = [item for item in items if [other.example for other in items].count(item.example) == 1]
    assert len(whole) > 5
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out").eval()
    for item, ours in zip(whole, predictor.net.scores_of(whole), strict=True):
        row = rows[item.example]
        inputs = tokenizer(row["question"], row["context"], return_tensors="pt")
        with torch.no_grad():
            said = model(**inputs)
        theirs = torch.stack([said.start_logits[0], said.end_logits[0]], -1)
        assert inputs["input_ids"][0].tolist() == list(item.encoded.tokens)
        np.testing.assert_allclose(theirs, ours, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_class_for_choices_chooses_the_same(
    family: str, fit: Fit, shared_data: Path, tmp_path: Path
) -> None:
    rows = [dict(row.fields) for row in read_table(str(shared_data / "eval_en_arc_easy" / "test.jsonl.gz"))]
    rows = sorted((row for row in rows if len(row["choices"]) == 4), key=lambda row: len(str(row)))[:60]
    adapted = fit(family, rows, "multiple_choice")
    export_task(adapted, tmp_path / "out")
    answers = [answer for _, answer in Predictor(adapted).rows(Row("x", row) for row in rows)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForMultipleChoice.from_pretrained(tmp_path / "out").eval()
    for row, answer in zip(rows, answers, strict=True):
        inputs = tokenizer(
            [row["query"]] * 4, row["choices"], padding=True, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            theirs = model(**{name: tensor[None] for name, tensor in inputs.items()}).logits[0].softmax(0)
        np.testing.assert_allclose(theirs, answer["probabilities"], atol=1e-4)


def test_relations_have_no_class(fit: Fit, shared_data: Path, tmp_path: Path) -> None:
    rows = [
        dict(row.fields)
        for row in read_table(str(shared_data / "en_relation_semeval10t8" / "train.jsonl.gz"))
    ]
    adapted = fit("bert", rows[:60], "relation", way="frozen")
    with pytest.raises(InputError, match='no class in transformers has the head of the task "relation"'):
        export_task(adapted, tmp_path / "out")
