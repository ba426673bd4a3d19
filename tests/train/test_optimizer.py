"""The update rules against their references."""

import pytest
import torch

from gristmill.model.transformer import Transformer
from gristmill.train.optimizer import (
    AdamRule,
    MuonRule,
    Optimizer,
    RowRule,
    norm_of,
    orthogonalise,
    plain_adam,
    shrunk,
)
from gristmill.train.optimizers.adamw import AdamW
from gristmill.train.optimizers.muon import Muon
from tests.train.tiny import tiny_model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sparse(rows: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=True)


def test_adam_is_torchs_adamw():
    master = torch.randn(7, 5, generator=generator())
    reference = master.clone().requires_grad_()
    theirs = torch.optim.AdamW([reference], lr=0.01, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.1)
    ours = AdamRule({"w": master}, learning_rate=0.02, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(1, 6):
        gradient = torch.randn(7, 5, generator=generator(step))
        reference.grad = gradient.clone()
        theirs.step()
        ours.step({"w": gradient}, 0.5, step)
        torch.testing.assert_close(master, reference.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 63, 5000])
def test_the_compiled_update_is_the_plain_one(dtype, size):
    gradient = torch.randn(size, generator=generator()).to(dtype)
    compiled = {
        n: torch.rand(size, generator=generator(i)) for i, n in enumerate(("master", "mean", "square"))
    }
    plain = {n: t.clone() for n, t in compiled.items()}
    rule = AdamRule({"w": compiled["master"]}, learning_rate=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    rule.state = {"mean.w": compiled["mean"], "square.w": compiled["square"]}
    rule.step({"w": gradient}, 0.5, 3, 0.7)
    keep, root = 1.0, (1 - 0.99**3) ** -0.5  # a vector is not decayed
    plain_adam(gradient, *plain.values(), 0.7, keep, 0.005 / (1 - 0.9**3), root, 0.9, 0.99, 1e-10)
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-5, atol=1e-7)


def test_a_weight_may_begin_later_and_then_begins_as_others_do():
    late, early = torch.ones(4, 4), torch.ones(4, 4)
    settings = {"learning_rate": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.1}
    waiting, begun = AdamRule({"w": late}, **settings, begins_after=2), AdamRule({"w": early}, **settings)
    for step in (1, 2):
        waiting.step({}, 1.0, step)
    assert torch.equal(late, torch.ones(4, 4))
    for step in (1, 2, 3):
        gradient = {"w": torch.randn(4, 4, generator=generator(step))}
        waiting.step(gradient, 1.0, step + 2)
        begun.step(gradient, 1.0, step)
    assert torch.equal(late, early)


def test_the_norm_is_that_of_all_gradients_together():
    one, two = torch.randn(70, 90, generator=generator()), torch.randn(5000, generator=generator(1))
    rows = sparse(torch.tensor([3, 3, 5]), torch.ones(3, 2), (9, 2))  # 2 + 2 in each column of row 3
    gradients = {"one": one, "two": two.bfloat16(), "three": rows, "four": torch.ones(3, dtype=torch.float64)}
    wanted = (one.square().sum() + two.bfloat16().float().square().sum() + 4 + 4 + 1 + 1 + 3).sqrt()
    assert norm_of(gradients) == pytest.approx(float(wanted), rel=1e-6)
    assert norm_of({"one": torch.tensor([float("nan")])}) != norm_of({"one": torch.tensor([1.0])})
    assert norm_of({"one": torch.tensor([float("inf"), 1.0])}) == float("inf")
    assert (shrunk(4.0, 1.0), shrunk(0.5, 1.0), shrunk(4.0, 0.0)) == (0.25, 1.0, 1.0)


def test_rows_that_were_not_touched_stay_and_the_others_are_torchs_adagrad():
    master = torch.randn(10, 4, generator=generator())
    before, reference = master.clone(), master.clone().requires_grad_()
    theirs = torch.optim.Adagrad([reference], lr=0.1)
    ours = RowRule({"t": master}, learning_rate=0.1)
    for step in range(1, 4):
        rows = torch.tensor([1, 4, 7])
        values = torch.randn(3, 4, generator=generator(step))
        dense = torch.zeros(10, 4).index_copy_(0, rows, values)
        reference.grad = dense
        theirs.step()
        ours.step({"t": sparse(rows, values, (10, 4))}, 1.0, step)
    torch.testing.assert_close(master, reference.detach(), rtol=1e-5, atol=1e-6)
    untouched = [0, 2, 3, 5, 6, 8, 9]
    assert torch.equal(master[untouched], before[untouched])


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 96, 32)])
def test_singular_values_of_an_orthogonalised_matrix_are_near_one(shape):
    g = torch.randn(*shape, generator=generator())
    update = orthogonalise(g, 5).float()
    values = torch.linalg.svdvals(update)
    # Polar Express with five iterations in bfloat16: within a few per cent above the smallest singular values
    assert float(values.max()) < 1.15
    assert float(values.median()) > 0.9
    # the directions are those of the exact polar factor
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    assert float((update * (u @ vh)).sum() / update.norm() / (u @ vh).norm()) > 0.98


def test_muon_treats_queries_keys_and_values_as_three_matrices():
    g = torch.randn(96, 32, generator=generator())
    together, apart = torch.zeros(96, 32), [torch.zeros(32, 32) for _ in range(3)]
    settings = {"learning_rate": 0.1, "momentum": 0.95, "weight_decay": 0.0, "iterations": 5}
    MuonRule({"qkv": together}, fused={"qkv": [32, 32, 32]}, **settings).step({"qkv": g}, 1.0, 1)
    for i, part in enumerate(apart):
        MuonRule({"w": part}, fused={}, **settings).step({"w": g[32 * i : 32 * i + 32]}, 1.0, 1)
    torch.testing.assert_close(together, torch.cat(apart))


def test_a_wide_matrix_is_updated_as_its_transpose():
    g = torch.randn(16, 48, generator=generator())
    wide, tall = torch.zeros(16, 48), torch.zeros(48, 16)
    settings = {"learning_rate": 0.1, "momentum": 0.95, "weight_decay": 0.0, "iterations": 5, "fused": {}}
    MuonRule({"w": wide}, **settings).step({"w": g}, 1.0, 1)
    MuonRule({"w": tall}, **settings).step({"w": g.T}, 1.0, 1)
    # the same direction; the size of the update goes by the shape: sqrt(rows / columns) where that is above 1
    torch.testing.assert_close(tall, wide.T * 3**0.5)


@pytest.mark.parametrize("settings", [Muon(), AdamW()])
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_every_parameter_has_exactly_one_rule(settings, family):
    model = Transformer(tiny_model(family=family, ngrams=family == "qwen3"))
    optimizer = Optimizer.of(model, settings)
    covered = [name for rule in optimizer.rules for name in rule.masters]
    assert sorted(covered) == sorted(name for name, _ in model.named_parameters())


def test_a_bfloat16_parameter_follows_its_float32_master():
    model = Transformer(tiny_model())
    model.initialise(generator())
    model.blocks.to(torch.bfloat16)
    optimizer = Optimizer.of(model, AdamW(learning_rate=1e-5, weight_decay=0.0))
    name = "blocks.0.attention.qkv.weight"
    gradients = {
        n: torch.ones_like(p, dtype=torch.float32) for n, p in model.named_parameters() if "ngrams" not in n
    }
    gradients["ngrams.weight"] = sparse(torch.tensor([0]), torch.ones(1, 32), (128, 32))
    before = optimizer.masters[name].clone()
    for _ in range(3):
        optimizer.step(gradients, 1.0)
    # steps far below bfloat16's resolution add up in the master
    assert torch.allclose(before - optimizer.masters[name], torch.tensor(3e-5), rtol=1e-2)
    assert torch.equal(model.blocks[0].attention.qkv.weight, optimizer.masters[name].bfloat16())
