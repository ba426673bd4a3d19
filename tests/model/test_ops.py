"""The fused operations compute what plain torch computes, values and gradients, in both precisions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gristmill.model import ops
from gristmill.model.native import kernels

DTYPES = [torch.float32, torch.bfloat16]
# float32: rounding of another order of summation; bfloat16: one unit in the last place (2^-8), more after sums
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}

needs_kernels = pytest.mark.skipif(kernels() is None, reason="this machine has no C compiler")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same(function, reference, *inputs: Tensor, dtype: torch.dtype) -> None:
    """Compares values and gradients of `function` on inputs of `dtype` with `reference` in float64."""
    mine = [x.to(dtype if x.dim() > 1 else torch.float32).requires_grad_() for x in inputs]
    theirs = [x.detach().double().requires_grad_() for x in mine]
    out, expected = function(*mine), reference(*theirs)
    direction = random(*out.shape, seed=9)
    (out.float() * direction).sum().backward()
    (expected * direction.double()).sum().backward()
    pairs = [(out, expected), *((x.grad, y.grad) for x, y in zip(mine, theirs, strict=True))]
    for got, want in pairs:
        error = (got.double() - want).norm() / want.norm().clamp(min=1e-30)
        assert float(error.detach()) < TOLERANCE[dtype]


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_matches_its_formula(dtype):
    assert_same(
        lambda x, g: ops.rms_norm(x, g, 1e-6), rms, random(3, 37, 64), random(64, seed=1), dtype=dtype
    )


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu_matches_its_formula(dtype):
    assert_same(ops.swiglu, lambda x: F.silu(x[..., :48]) * x[..., 48:], 3 * random(2, 19, 96), dtype=dtype)


@needs_kernels
@pytest.mark.parametrize(("inputs", "outputs"), [(70, 33), (33, 70), (64, 64)])
def test_linear_matches_its_formula(inputs, outputs):
    assert_same(
        lambda x, w: ops.linear(x, w, None),
        lambda x, w: x @ w.T,
        random(2, 67, inputs),
        random(outputs, inputs, seed=1),
        dtype=torch.bfloat16,
    )


def rotated(x: Tensor, positions: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    c, s = cosines[positions][:, :, None].to(x), sines[positions][:, :, None].to(x)
    a, b = x.chunk(2, -1)
    return torch.cat([a * c - b * s, b * c + a * s], -1)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_heads_are_normalised_and_turned_as_the_formula_says(dtype, norm, kv_heads):
    B, T, H, G, K = 2, 33, 4, kv_heads, 16
    angles = torch.outer(torch.arange(64.0), 100.0 ** (-torch.arange(0, K, 2) / K))
    rotation = (angles.cos(), angles.sin())
    positions = torch.randint(64, (B, T), generator=torch.Generator().manual_seed(3))

    def mine(qkv, q_gain, k_gain):
        gains = (q_gain, k_gain) if norm else None
        q, k, v = ops.split_heads(
            qkv, heads=H, kv_heads=G, gains=gains, epsilon=1e-6, rotation=rotation, positions=positions
        )
        used = 0 * (q_gain.sum() + k_gain.sum())
        return torch.cat([q, k, v], 1).float() + used

    def reference(qkv, q_gain, k_gain):
        q, k, v = qkv.view(B, T, H + 2 * G, K).split((H, G, G), 2)
        if norm:
            q, k = rms(q, q_gain), rms(k, k_gain)
        parts = [rotated(q, positions, *rotation), rotated(k, positions, *rotation), v]
        return torch.cat(parts, 2).transpose(1, 2) + 0 * (q_gain.sum() + k_gain.sum())

    gains = 1 + 0.1 * random(K, seed=1), 1 + 0.1 * random(K, seed=2)
    if norm:
        assert_same(mine, reference, random(B, T, (H + 2 * G) * K), *gains, dtype=dtype)
    else:
        fixed = [g.detach() for g in gains]
        assert_same(
            lambda x: mine(x, *fixed),
            lambda x: reference(x, *[g.double() for g in fixed]),
            random(B, T, (H + 2 * G) * K),
            dtype=dtype,
        )


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("T", [1, 96, 300])
def test_attention_written_out_matches_scaled_dot_product_attention(dtype, kv_heads, T):
    B, H, K = 2, 4, 16
    generator = torch.Generator().manual_seed(5)
    boundaries = torch.rand(B, T, generator=generator) < 0.05
    starts = (torch.arange(T) * boundaries).cummax(1).values.to(torch.int32)
    index = torch.arange(T)
    mask = ((index >= starts[..., None]) & (index <= index[:, None]))[:, None]

    def reference(q, k, v):
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return y.transpose(1, 2).reshape(B, T, H * K)

    inputs = random(B, H, T, K), random(B, kv_heads, T, K, seed=1), random(B, kv_heads, T, K, seed=2)
    assert_same(
        lambda q, k, v: ops.attend(q, k, v, mask=None, starts=starts), reference, *inputs, dtype=dtype
    )


def test_attention_with_starts_is_attention_with_the_mask_they_stand_for():
    q, k, v = random(1, 2, 6, 8), random(1, 2, 6, 8, seed=1), random(1, 2, 6, 8, seed=2)
    starts = torch.tensor([[0, 0, 2, 2, 2, 5]], dtype=torch.int32)
    mask = torch.tensor([[starts[0, i] <= j <= i for j in range(6)] for i in range(6)])[None, None]
    torch.testing.assert_close(
        ops.attend(q, k, v, mask=None, starts=starts), ops.attend(q, k, v, mask=mask, starts=None)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("native", [True, False])
def test_cross_entropy_matches_torch_also_in_chunks(dtype, native, monkeypatch):
    monkeypatch.setattr(ops, "CHUNK_ELEMENTS", 50 * 7)  # 7 rows at a time
    if not native:
        monkeypatch.setattr(ops, "kernels", lambda: None)
    targets = torch.randint(50, (23,), generator=torch.Generator().manual_seed(1))
    weights = torch.rand(23, generator=torch.Generator().manual_seed(2))
    weights[3] = 0

    def reference(h, w):
        return (F.cross_entropy(h @ w.T, targets, reduction="none") * weights.double()).sum()[None]

    inputs = random(23, 32), random(50, 32, seed=1)
    assert_same(
        lambda h, w: ops.cross_entropy(h, w, targets, weights)[0][None], reference, *inputs, dtype=dtype
    )


def test_a_weight_of_zero_gives_no_gradient():
    h = random(4, 8).requires_grad_()
    ops.cross_entropy(
        h, random(10, 8, seed=1), torch.zeros(4, dtype=torch.long), torch.tensor([1.0, 0, 1, 0])
    )[0].backward()
    assert h.grad is not None
    assert torch.equal(h.grad.abs().sum(-1) > 0, torch.tensor([True, False, True, False]))


@pytest.mark.parametrize("native", [True, False])
def test_row_embeddings_have_a_sparse_gradient_equal_to_the_dense_one(native, monkeypatch):
    if not native:
        monkeypatch.setattr(ops, "kernels", lambda: None)
    rows = torch.randint(9, (2, 11, 3), generator=torch.Generator().manual_seed(1))
    table, direction = random(9, 5).requires_grad_(), random(2, 11, 5, seed=2)
    out = ops.embed_rows(rows, table)
    (out * direction).sum().backward()
    assert table.grad is not None
    assert table.grad.is_sparse
    dense = table.detach().clone().requires_grad_()
    expected = F.embedding(rows, dense).sum(-2)
    (expected * direction).sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(table.grad.to_dense(), dense.grad)


@pytest.mark.parametrize("native", [True, False])
def test_dropout_keeps_the_mean_drops_the_rate_and_depends_on_the_seed_alone(native, monkeypatch):
    if not native:
        monkeypatch.setattr(ops, "kernels", lambda: None)
    x, branch = torch.zeros(200, 500), torch.ones(200, 500).requires_grad_()
    first, again, other = (ops.dropout_add(x, branch, 0.25, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    dropped = float((first == 0).float().mean())
    assert abs(dropped - 0.25) < 5 * math.sqrt(0.25 * 0.75 / x.numel())
    assert torch.allclose(first[first != 0], torch.tensor(1 / 0.75))
    first.sum().backward()
    assert torch.equal(branch.grad, first.detach())  # what is dropped forward is dropped backward


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu_holds_far_from_zero(dtype):
    gates = torch.tensor([[-1e4, -500.0, -178.0, -90.0, 90.0, 178.0, 500.0, 1e4] * 4])
    inputs = torch.cat([gates, torch.ones_like(gates)], -1).to(dtype).requires_grad_()
    out = ops.swiglu(inputs)
    torch.testing.assert_close(out.float(), F.silu(inputs[..., :32].float()).detach(), rtol=1e-2, atol=1e-6)
    out.sum().backward()
    assert bool(inputs.grad.isfinite().all())
