"""Ways to adapt: what is learned is what they say, and what they leave is a plain model."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gristmill.adapt.adapting import AdaptRecipe, adapt
from gristmill.adapt.adversarial import Adversarial
from gristmill.adapt.encoding import Encoder, Item
from gristmill.adapt.net import Net
from gristmill.adapt.predicting import Predictor
from gristmill.adapt.tables import read_table
from gristmill.adapt.tasks.classification import Classification
from gristmill.adapt.tuner import Tuner, TuneSettings
from gristmill.adapt.way import Way, layer_of
from gristmill.adapt.ways.frozen import Frozen
from gristmill.adapt.ways.full import Full
from gristmill.adapt.ways.lora import Lora, LoraLinear
from gristmill.adapt.ways.prefix import Prefix
from gristmill.adapt.ways.soft_prompt import SoftPrompts
from gristmill.batch import Visibility
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

CLASSES = ("translate", "transfer", "timer", "definition")
FAST = TuneSettings(epochs=2, batch_examples=16, learning_rate=3e-3, precision="float32")
FAMILIES = ["bert", "modernbert", "qwen3", "gpt2", "t5"]


@dataclasses.dataclass
class Made:
    """Texts of four intents and a tokenizer for them."""

    rows: list[dict[str, Any]]
    tokenizer: Tokenizer
    folder: Path

    def net(self, family: str, depth: int = 2) -> Net:
        config = resolve(
            ModelSettings(family=family, depth=depth, width=64),
            vocab_size=self.tokenizer.vocab_size,
            row_tokens=64,
        )
        model = make_model(config, dropout=0.1)
        generator = torch.Generator().manual_seed(0)
        model.initialise(generator)
        with torch.no_grad():
            for parameter in model.parameters():  # nothing is zero, so that everything would show
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        head = Classification().head(config, CLASSES, dropout=0.1, seed=0)
        visibility = Visibility.CAUSAL if config.kind == "decoder" else Visibility.FULL
        return Net(model=model, tokenizer=self.tokenizer, visibility=visibility, head=head)

    def items(self, net: Net, count: int = 64) -> list[Item]:
        task = Classification()
        rows = list(read_table(str(self.folder / "train.jsonl")))[:count]
        encoder = Encoder(self.tokenizer.vocabulary(), net.model.config, 40)
        return task.items(task.read(rows, labelled=True), self.tokenizer, encoder, sorted(CLASSES))


@pytest.fixture(scope="module")
def made(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    source = shared_data / "en_intent_clinc150" / "train.jsonl.gz"
    rows = [dict(row.fields) for row in read_table(str(source)) if row.fields["label"] in CLASSES]
    rows.sort(key=lambda row: row["text"])
    folder = tmp_path_factory.mktemp("ways")
    train(TokenizerConfig(vocab_size=600), [row["text"] for row in rows], folder / "tokenizer")
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows[:200])))
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows[200:260])))
    return Made(rows, Tokenizer.from_directory(folder / "tokenizer"), folder)


def tuner(made: Made, net: Net, directory: Path, **settings: Any) -> Tuner:
    return Tuner(
        directory=directory, net=net, task=Classification(), items=made.items(net),
        settings=dataclasses.replace(FAST, **settings), seed=1,
    )  # fmt: skip


def snapshot(net: Net) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.parameters().items()}


def changed(before: dict[str, Tensor], net: Net) -> set[str]:
    after = snapshot(net)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", [Frozen(), Lora(rank=2), SoftPrompts(tokens=4), Prefix(tokens=4)])
def test_the_model_stays_as_it_is(made: Made, tmp_path: Path, family: str, way: Way) -> None:
    of = tuner(made, made.net(family), tmp_path, way=way)
    before = snapshot(of.net)
    of.run()
    moved = changed(before, of.net)
    assert moved == set(of.learned)
    assert all(not name.startswith("model.") or name.endswith((".a", ".b")) for name in moved)
    assert of.losses[-1] < of.losses[0]


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
def test_low_rank_updates_begin_with_nothing_and_end_in_the_weights(
    made: Made, tmp_path: Path, family: str
) -> None:
    net = made.net(family)
    base = {name: t.clone() for name, t in net.model.state_dict().items()}
    items = made.items(net)
    net.train(False)
    before = net.scores(items)
    matrices = ("attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down")
    of = tuner(made, net, tmp_path, way=Lora(rank=3, matrices=matrices))
    of.net.train(False)
    torch.testing.assert_close(of.net.scores(items), before)
    of.run()
    of.net.train(False)
    plain = make_model(net.model.config)
    plain.load_state_dict(of.settings.way.plain(base, dict(of.optimizer.masters)))
    merged = dataclasses.replace(net, model=plain)
    merged.train(False)
    torch.testing.assert_close(merged.scores(items), of.net.scores(items), atol=2e-4, rtol=1e-3)
    assert float((merged.scores(items) - before).detach().abs().max()) > 0.01


@pytest.mark.shared_data
def test_the_weight_of_an_updated_layer_is_what_it_computes_with(made: Made, tmp_path: Path) -> None:
    of = tuner(made, made.net("qwen3"), tmp_path, way=Lora(rank=2))
    of.run()
    layer = of.net.model.get_submodule("blocks.0.attention.qkv")
    assert isinstance(layer, LoraLinear)
    x = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.shared_data
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", [SoftPrompts(tokens=3), Prefix(tokens=3)])
def test_each_text_reads_the_vectors_and_no_other_text(
    made: Made, tmp_path: Path, family: str, way: Way
) -> None:
    net = made.net(family)
    items = made.items(net, 6)
    net.train(False)
    bare = net.scores(items)
    of = tuner(made, net, tmp_path, way=way)
    of.run()
    of.net.train(False)
    together = of.net.scores(items)
    alone = torch.cat([of.net.scores([item]) for item in items])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert float((together - bare).detach().abs().max()) > 1e-3


@pytest.mark.shared_data
def test_layers_are_unfrozen_from_the_top(made: Made, tmp_path: Path) -> None:
    net = made.net("bert", depth=3)
    of = tuner(made, net, tmp_path, way=Full(unfreeze_epochs=1.0), epochs=3)
    config, seen = net.model.config, []
    before = snapshot(of.net)
    step: Callable[[], None] = of._one_step

    def watched() -> None:
        step()
        seen.append({layer_of(name, config) for name in changed(before, of.net)})

    of._one_step = watched  # type: ignore[method-assign]
    of.run()
    # the first step of a warm-up has the learning rate 0 for nothing
    assert [seen[of.per_epoch - 1], seen[2 * of.per_epoch - 1], seen[-1]] == [{4}, {3, 4}, {2, 3, 4}]


@pytest.mark.shared_data
def test_frozen_layers_stay_as_they_are(made: Made, tmp_path: Path) -> None:
    of = tuner(made, made.net("bert", depth=3), tmp_path, way=Full(frozen_layers=2))
    before = snapshot(of.net)
    of.run()
    assert {layer_of(name, of.net.model.config) for name in changed(before, of.net)} == {3, 4}


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "settings",
    [
        {"way": Full(unfreeze_epochs=0.5)},
        {"way": Lora(rank=2)},
        {"way": Prefix(tokens=2)},
        {"consistency": 1.0, "adversarial": Adversarial(epsilon=0.5)},
        {"adversarial": Adversarial(epsilon=0.5, moves=3)},
    ],
)
def test_what_was_killed_goes_on_to_the_same_bytes(
    made: Made, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = tuner(made, made.net("bert"), tmp_path / "whole", epochs=3, **settings)
    whole.run()
    killed = tuner(made, made.net("bert"), tmp_path / "killed", epochs=3, checkpoint_seconds=1e-9, **settings)
    step: Callable[[], None] = killed._one_step

    def dying() -> None:
        if killed.step == 6:
            raise KeyboardInterrupt
        step()

    killed._one_step = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed = tuner(made, made.net("bert"), tmp_path / "killed", epochs=3, **settings)
    resumed.run()
    one, other = snapshot(whole.net), snapshot(resumed.net)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.shared_data
def test_two_draws_of_dropout_are_pulled_together(made: Made, tmp_path: Path) -> None:
    def apart(consistency: float) -> float:
        of = tuner(made, made.net("bert"), tmp_path / str(consistency), consistency=consistency, epochs=6)
        of.run()
        of.net.train()
        items = made.items(of.net)
        with torch.no_grad():
            one, other = of.net.scores(items, 1), of.net.scores(items, 2)
            return float(Classification().divergence(one, other, items)) / len(items)

    assert apart(5.0) < 0.5 * apart(0.0)


@pytest.mark.shared_data
def test_without_dropout_both_draws_are_the_same_loss(made: Made, tmp_path: Path) -> None:
    losses = []
    for consistency in (0.0, 3.0):
        net = made.net("bert")
        net.model.dropout = net.head.dropout = 0.0  # type: ignore[union-attr, assignment]
        of = tuner(made, net, tmp_path / str(consistency), consistency=consistency)
        losses.append(of.run().losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_an_adversary_moves_along_the_gradient_no_farther_than_told_and_back() -> None:
    table = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
    target = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    for adversary, reach in ((Adversarial(epsilon=0.5), 0.5), (Adversarial(epsilon=0.5, moves=3), 0.5)):
        table.grad = None
        (table - target).square().sum().backward()
        came, own = table.detach().clone(), table.grad.clone()  # type: ignore[attr-defined]
        places: list[Tensor] = []

        def loss(places: list[Tensor] = places) -> Tensor:
            places.append(table.detach().clone())
            return (table - target).square().sum()

        adversary.backward(table, loss)
        direction = own / own.norm()
        torch.testing.assert_close(places[-1], came + reach * direction)
        assert torch.equal(table.detach(), came)
        torch.testing.assert_close(table.grad, own + 2 * places[-1])


@pytest.mark.shared_data
@pytest.mark.parametrize("way", ["lora", "soft_prompt", "prefix", "frozen"])
def test_what_was_adapted_answers_as_it_did_when_it_was_judged(made: Made, tmp_path: Path, way: str) -> None:
    net = made.net("bert")
    (tmp_path / "base").mkdir()
    to_transformers(net.model, tmp_path / "base", dict(made.tokenizer.special))
    made.tokenizer.save(tmp_path / "base")
    recipe = from_dict(
        AdaptRecipe,
        {
            "name": "intents", "base": str(tmp_path / "base"), "task": "classification",
            "data": {"train": str(made.folder / "train.jsonl"), "test": str(made.folder / "test.jsonl")},
            "tune": {"epochs": 3, "batch_examples": 16, "way": way, "precision": "float32"},
        },
    )  # fmt: skip
    facts = json.loads((adapt(recipe, tmp_path / "out").path / "result.json").read_text())
    rows = list(read_table(str(made.folder / "test.jsonl")))
    said = [answer["label"] for _, answer in Predictor(tmp_path / "out").rows(rows)]
    right = sum(one == row.fields["label"] for one, row in zip(said, rows, strict=True)) / len(rows)
    assert right == pytest.approx(facts["figures"]["accuracy"]["mean"])
    assert 0 < facts["weights"]["learned"] < facts["weights"]["model"]


@pytest.mark.shared_data
def test_what_does_not_fit_is_said_before_training(made: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frozen_layers = 2, but the model has 2 layers"):
        tuner(made, made.net("bert"), tmp_path, way=Full(frozen_layers=2))
    with pytest.raises(InputError, match="this way does not learn them"):
        tuner(made, made.net("bert"), tmp_path, way=Lora(), adversarial=Adversarial())
    with pytest.raises(InputError, match="60 vectors leave no room"):
        tuner(made, made.net("bert"), tmp_path, way=SoftPrompts(tokens=60))
    lstm = made.net("lstm")
    for way in (Lora(), SoftPrompts()):
        with pytest.raises(InputError, match=r"for Transformers|read by Transformers"):
            tuner(made, lstm, tmp_path, way=way)
