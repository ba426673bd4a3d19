"""Vectors are learned from pairs, scores, classes and texts alone, and are those that sentence-transformers makes."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gristmill.adapt.adapting import AdaptRecipe, adapt, prepare
from gristmill.adapt.encoding import Encoder
from gristmill.adapt.exporting import export_task, export_updates
from gristmill.adapt.net import Net
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.tables import Row, read_table
from gristmill.adapt.task import Item
from gristmill.adapt.tasks.embeddings import Embeddings, ranks
from gristmill.batch import Visibility
from gristmill.cli._main import gristmill
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

CLASSES = ("translate", "transfer", "timer", "definition", "weather", "alarm")
PAIR = {"text1": "a", "text2": "b"}


@dataclasses.dataclass
class Data:
    """Rows of pairs with scores in English and Chinese, and of texts with classes; a tokenizer for all."""

    tables: dict[str, list[dict[str, Any]]]
    tokenizer: Tokenizer

    def net(self, family: str, task: Embeddings, dropout: float = 0.0) -> Net:
        config = resolve(
            ModelSettings(family=family, depth=2, width=64),
            vocab_size=self.tokenizer.vocab_size,
            row_tokens=96,
        )
        model = make_model(config, dropout=dropout)
        model.initialise(torch.Generator().manual_seed(0))
        visibility = Visibility.CAUSAL if config.kind == "decoder" else Visibility.FULL
        head = task.head(config, (), dropout=dropout, seed=0)
        return Net(model=model, tokenizer=self.tokenizer, visibility=visibility, head=head)

    def items(self, net: Net, task: Embeddings, rows: list[dict[str, Any]]) -> list[Item]:
        examples = task.read([Row(f"row {i}", row) for i, row in enumerate(rows)], labelled=True)
        encoder = Encoder(self.tokenizer.vocabulary(), net.model.config, 96)
        return task.items(examples, self.tokenizer, encoder, ())


@pytest.fixture(scope="module")
def data(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    def rows(folder: str) -> list[dict[str, Any]]:
        return [dict(row.fields) for row in read_table(str(shared_data / folder / "train.jsonl.gz"))]

    tables = {
        "english": rows("en_sts_stsb")[::25],
        "chinese": rows("zh_sts_stsb")[::25],
        "classes": [row for row in rows("en_intent_clinc150") if row["label"] in CLASSES][::3],
    }
    texts = [row[name] for row in tables["english"] + tables["chinese"] for name in ("text1", "text2")]
    out = tmp_path_factory.mktemp("embeddings") / "tokenizer"
    train(TokenizerConfig(vocab_size=1500), texts + [row["text"] for row in tables["classes"]], out)
    return Data(tables, Tokenizer.from_directory(out))


@pytest.fixture(scope="module")
def fit(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns the directory of a small model of a family that was adapted to some rows."""

    def make(rows: list[dict[str, Any]], task: Any = "embeddings", family: str = "bert", **tune: Any) -> Path:
        folder = tmp_path_factory.mktemp(family)
        model = data.net(family, Embeddings()).model
        to_transformers(model, folder, dict(data.tokenizer.special))
        data.tokenizer.save(folder)
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        recipe = {
            "name": "x", "base": str(folder), "task": task, "data": {"train": str(folder / "rows.jsonl"), "valid_fraction": 0.25},
            "tune": {"epochs": 6, "learning_rate": 2e-3, "precision": "float32", **tune}, "maximum_tokens": 64,
        }  # fmt: skip
        return adapt(from_dict(AdaptRecipe, recipe), folder / "out").path

    return make


def figures(made: Path) -> dict[str, float]:
    facts = json.loads((made / "result.json").read_text())
    return {name: each["mean"] for name, each in facts["figures"].items()}


# --- what is learned ----------------------------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_texts_of_a_class_come_near_each_other(data: Data, fit: Callable[..., Path], family: str) -> None:
    made = fit(data.tables["classes"], family=family)
    found = figures(made)
    assert list(found) == ["accuracy@1", "recall@10", "MRR"]
    assert found["accuracy@1"] > 0.7  # chance is a sixth
    assert found["accuracy@1"] <= found["MRR"] <= found["recall@10"]
    for each in json.loads((made / "result.json").read_text())["figures"].values():
        assert each["interval"][0] <= each["mean"] <= each["interval"][1]


@pytest.mark.shared_data
@pytest.mark.parametrize("table", ["english", "chinese"])
def test_the_order_of_scores_is_learned(data: Data, fit: Callable[..., Path], table: str) -> None:
    rows = data.tables[table]
    task = Embeddings()
    examples = task.read([Row("x", row) for row in rows], labelled=True)
    net = data.net("bert", task)
    before = task.result(examples, task.answers(net, data.items(net, task, rows), examples, ()))
    made = fit(rows, epochs=4)
    after = [answer for _, answer in Predictor(made).rows(Row("x", row) for row in rows)]
    assert list(before.figures) == ["spearman", "pearson"]
    gained = task.result(examples, after).figures["spearman"].value - before.figures["spearman"].value
    assert gained > 0.1  # of the rows that it has learned from, for the most part


@pytest.mark.shared_data
def test_pairs_that_say_the_same_are_found(data: Data, fit: Callable[..., Path]) -> None:
    made = fit(data.tables["english"], {"name": "embeddings", "positive_from": 3.5}, epochs=2)
    assert list(figures(made)) == ["spearman", "pearson", "accuracy@1", "recall@10", "MRR"]
    assert "texts searched for among" in (made / "table.txt").read_text()


@pytest.mark.shared_data
def test_texts_alone_are_spread_by_dropout(data: Data, fit: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"text": row["text"]} for row in data.tables["classes"]]
    made = fit(rows, epochs=2)
    assert list(figures(made)) == ["uniformity"]
    untrained = data.net("bert", Embeddings())
    items = data.items(untrained, Embeddings(), rows)
    examples = Embeddings().read([Row("x", row) for row in rows], labelled=True)
    before = Embeddings().result(examples, Embeddings().answers(untrained, items, examples, ()))
    assert figures(made)["uniformity"] > before.figures["uniformity"].value + 0.1


# --- the loss -----------------------------------------------------------------------------------------------------------


@pytest.mark.shared_data
def test_the_loss_of_pairs_is_the_cross_entropy_over_all_second_texts_and_negatives(data: Data) -> None:
    task = Embeddings(temperature=0.1)
    rows = [{name: row[name] for name in ("text1", "text2")} for row in data.tables["english"][:6]]
    rows[2]["negatives"] = [rows[0]["text1"], "some other text"]
    net = data.net("bert", task)
    net.train(False)
    items = data.items(net, task, rows)
    loss = task.loss(net, items)
    vectors = {
        item.encoded.tokens: torch.from_numpy(v) for item, v in zip(items, net.scores_of(items), strict=True)
    }
    assert all(float(vector.norm()) == pytest.approx(1.0, abs=1e-5) for vector in vectors.values())
    of = {
        name: [v.encoded.tokens for v in items if v.target.part == name]
        for name in ("anchor", "positive", "negative")
    }
    expected = 0.0
    for i, anchor in enumerate(of["anchor"]):
        candidates = [
            text for text in of["positive"] + of["negative"] if text != anchor
        ]  # itself is no wrong one
        cosines = torch.stack([vectors[anchor] @ vectors[text] for text in candidates]) / 0.1
        expected += float(F.cross_entropy(cosines, torch.tensor(candidates.index(of["positive"][i]))))
    assert float(loss.total_nats.detach()) == pytest.approx(expected, abs=1e-3)
    assert float(loss.weight) == 6


@pytest.mark.shared_data
@pytest.mark.parametrize("scored", [False, True])
def test_the_losses_are_those_of_sentence_transformers(data: Data, scored: bool) -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    task = Embeddings(temperature=0.05)
    net = data.net("bert", task)
    net.train(False)
    rows = data.tables["english"][:32]
    if not scored:  # and no text twice, which they would take for a wrong one
        count = Counter(row[name] for row in data.tables["english"] for name in ("text1", "text2"))
        rows = [row for row in data.tables["english"] if count[row["text1"]] == count[row["text2"]] == 1][:32]
        rows = [{name: row[name] for name in ("text1", "text2")} for row in rows]
    items = data.items(net, task, rows)
    vectors = torch.from_numpy(np.stack(net.scores_of(items)))
    kind = losses.CoSENTLoss if scored else losses.MultipleNegativesRankingLoss
    theirs = kind(torch.nn.Identity(), scale=20.0).compute_loss_from_embeddings(
        [vectors[::2], vectors[1::2]], torch.tensor([row.get("score", 0.0) for row in rows])
    )
    assert float(task.loss(net, items).mean_nats.detach()) == pytest.approx(float(theirs), abs=1e-4)


@pytest.mark.shared_data
def test_texts_of_the_same_class_and_copies_are_no_wrong_ones(data: Data) -> None:
    task = Embeddings()
    net = data.net("bert", task)
    net.train(False)
    one, other = (next(r for r in data.tables["classes"] if r["label"] == label) for label in CLASSES[:2])
    second = [r for r in data.tables["classes"] if r["label"] == CLASSES[0]][1]
    for rows in (
        [
            {"text": row["text"], "label": row["label"]} for row in (one, second)
        ],  # one class: nothing is wrong
        [{"text": one["text"]}] * 3,
        [{"text1": one["text"], "text2": second["text"]}, {"text1": one["text"], "text2": second["text"]}],
    ):
        assert float(task.loss(net, data.items(net, task, rows)).total_nats.detach()) == pytest.approx(
            0.0, abs=1e-5
        )
    mixed = [{"text": row["text"], "label": row["label"]} for row in (one, second, other)]
    assert float(task.loss(net, data.items(net, task, mixed)).total_nats.detach()) > 0.01


@pytest.mark.shared_data
def test_pairs_below_the_bound_are_wrong_ones_only(data: Data) -> None:
    task = Embeddings(positive_from=4.0)
    net = data.net("bert", task)
    net.train(False)
    rows = data.tables["english"][:40]
    loss = task.loss(net, data.items(net, task, rows))
    assert float(loss.weight) == sum(row["score"] >= 4 for row in rows)
    none = task.loss(net, data.items(net, task, [row for row in rows if row["score"] < 4]))
    assert (float(none.total_nats.detach()), float(none.weight)) == (0.0, 0.0)


@pytest.mark.shared_data
def test_the_loss_of_scores_is_low_where_their_order_is_right(data: Data) -> None:
    task = Embeddings(temperature=0.05)
    net = data.net("bert", task)
    net.train(False)
    rows = data.tables["english"][:12]
    items = data.items(net, task, rows)
    examples = task.read([Row("x", row) for row in rows], labelled=True)
    cosines = [each["similarity"] for each in task.answers(net, items, examples, ())]

    def loss(scores: list[float]) -> float:
        scored = data.items(net, task, [row | {"score": s} for row, s in zip(rows, scores, strict=True)])
        return float(task.loss(net, scored).mean_nats.detach())

    right, reversed_ = loss(cosines), loss([-x for x in cosines])
    apart = [(b - a) / 0.05 for a in cosines for b in cosines if a > b]
    assert right == pytest.approx(float(np.log1p(np.exp(apart).sum())), abs=1e-3)
    assert right < reversed_


@given(st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=2, max_size=8), st.data())
def test_ranks_are_those_of_sorting(rows: list[list[int]], choose: st.DataObject) -> None:
    vectors = np.array(rows, dtype=np.float64)
    right = [[choose.draw(st.integers(0, len(rows) - 1))] for _ in rows]
    for query, gold, rank in zip(vectors, right, ranks(vectors, vectors, right), strict=True):
        scores = vectors @ query
        order = sorted(range(len(rows)), key=lambda i: (-scores[i], i in gold))
        assert order.index(gold[0]) + 1 == rank


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text1": "a"}, 'row 3: there is nothing in "text2"'),
        ({"text1": "a", "text2": 3}, 'row 3: "text2" is 3, expected a text'),
        (PAIR | {"score": "high"}, "row 3: \"score\" is 'high', expected a number"),
        (PAIR | {"score": float("nan")}, 'row 3: "score" is nan, expected a number'),
        (PAIR | {"label": "entailment"}, "do the two say the same?"),
        (PAIR | {"negatives": [""]}, "row 3: \"negatives\" is [''], expected texts"),
        (PAIR | {"negatives": {"x": 1}}, "expected texts"),
        ({"sentence": "a"}, 'row 3: there is neither "text1" nor "text"'),
        ({"text": "  "}, "expected a text"),
        ({"text": "a", "label": ["x"]}, "row 3: \"label\" is ['x'], expected one class"),
    ],
)
def test_what_does_not_fit_is_named_by_row(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Embeddings().read([Row("t.csv, row 3", fields)], labelled=True)
    assert message in error.value.message


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        (Embeddings(), [PAIR | {"score": 1}] * 2, "all pairs have the score 1.0"),
        (
            Embeddings(positive_from=4.0),
            [PAIR | {"score": 1}],
            "no pair has a score of 4 or more: the highest is 1",
        ),
        (Embeddings(), [{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "have one class"),
        (Embeddings(), [{"text": "a"}] * 2, "there is one text"),
    ],
)
def test_nothing_to_learn_is_said(task: Embeddings, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError) as error:
        task.outputs(task.read([Row("x", row) for row in rows], labelled=True))
    assert message in error.value.message


@pytest.mark.shared_data
@pytest.mark.parametrize(("family", "pooling"), [("qwen3", "first"), ("bert", "last"), ("t5", "last")])
def test_a_position_that_has_not_read_the_text_makes_no_vector(data: Data, family: str, pooling: Any) -> None:
    task = Embeddings(pooling=pooling)
    config = data.net(family, Embeddings()).model.config
    with pytest.raises(InputError, match=f'pooling = "{pooling}"'):
        task.check(config, data.tokenizer)


@pytest.mark.shared_data
def test_a_frozen_model_learns_nothing(data: Data, fit: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="no head that learns"):
        fit(data.tables["classes"], way="frozen")


# --- what is made of it -------------------------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2", "llama", "t5"])
def test_sentence_transformers_makes_the_same_vectors(
    data: Data, fit: Callable[..., Path], family: str, tmp_path: Path
) -> None:
    theirs = pytest.importorskip("sentence_transformers")
    made = fit(data.tables["classes"][:80], family=family, epochs=1)
    assert export_task(made, tmp_path / "out")["family"] == family
    texts = [row["text"] for row in data.tables["classes"][:20]] + [
        " ".join(r["text"] for r in data.tables["classes"][:30])
    ]
    ours = [answer["embedding"] for answer in Predictor(made).texts(texts)]
    model = theirs.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(model.encode(texts, batch_size=4), ours, atol=1e-5)


@pytest.mark.shared_data
@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 asks transformers 5 for it
@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_updates_go_to_peft(data: Data, fit: Callable[..., Path], family: str, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    made = fit(data.tables["classes"][:80], family=family, epochs=1, way="lora")
    assert export_updates(made, tmp_path / "updates")["class"].endswith("Model")
    model = peft.PeftModel.from_pretrained(
        transformers.AutoModel.from_pretrained(made.parent), tmp_path / "updates"
    ).eval()
    predictor = Predictor(made)
    tokens = predictor.encoder.text(data.tokenizer.encode("how much is on my account")).tokens
    with torch.no_grad():
        states = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
    pooled = states.mean(0) if family == "bert" else states[-1]
    (answer,) = predictor.texts(["how much is on my account"])
    np.testing.assert_allclose(F.normalize(pooled, dim=0), answer["embedding"], atol=1e-4)


@pytest.mark.shared_data
def test_the_verbs(data: Data, fit: Callable[..., Path], tmp_path: Path) -> None:
    made = fit(data.tables["classes"][:80], epochs=1)
    run = CliRunner().invoke(gristmill, ["embed", str(made), "set a timer", "what does it mean"])
    assert run.exit_code == 0, run.output
    lines = [json.loads(line) for line in run.output.splitlines()]
    assert [line["text"] for line in lines] == ["set a timer", "what does it mean"]
    ours = [answer["embedding"] for answer in Predictor(made).texts(["set a timer", "what does it mean"])]
    np.testing.assert_allclose([line["vector"] for line in lines], ours, atol=1e-6)
    run = CliRunner().invoke(gristmill, ["embed", str(made), "a", "--pooling", "mean"])
    assert isinstance(run.exception, InputError)
    (tmp_path / "rows.jsonl").write_text(json.dumps(data.tables["english"][0]))
    run = CliRunner().invoke(gristmill, ["predict", str(made), str(tmp_path / "rows.jsonl")])
    predicted = json.loads(run.output)["predicted"]
    one, other = map(np.array, predicted["embeddings"])
    assert predicted["similarity"] == pytest.approx(float(one @ other), abs=1e-5)


@pytest.mark.shared_data
def test_examples_held_out_share_no_first_text(data: Data, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in data.tables["english"] * 2))
    recipe = {
        "name": "x",
        "base": "none",
        "task": "embeddings",
        "data": {"train": str(tmp_path / "rows.jsonl")},
    }
    splits = prepare(from_dict(AdaptRecipe, recipe))
    assert not {each.texts[0] for each in splits.train} & {each.texts[0] for each in splits.valid}
