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
@pytest.mark.parametrize("shifts", [True, False])
def test_layer_norm_matches_its_formula(dtype, shifts):
    def reference(x, gain, shift=None):
        centred = x - x.mean(-1, keepdim=True)
        y = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * gain
        return y if shift is None else y + shift

    inputs = [3 + random(3, 37, 64), random(64, seed=1), random(64, seed=2)][: 3 if shifts else 2]
    assert_same(
        lambda x, gain, shift=None: ops.layer_norm(x, gain, shift, 1e-5), reference, *inputs, dtype=dtype
    )


FUNCTIONS = {
    "relu": lambda x: x.clamp(min=0),
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
}


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_activations_match_their_formulas(dtype, activation):
    assert_same(
        lambda x: ops.activate(x, activation), FUNCTIONS[activation], 3 * random(5, 19, 97), dtype=dtype
    )


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("activation", "function"), [("swiglu", "silu"), ("geglu", "gelu"), ("geglu_tanh", "gelu_tanh")]
)
def test_gated_activations_match_their_formulas(dtype, activation, function):
    assert_same(
        lambda x: ops.gated(x, activation),
        lambda x: FUNCTIONS[function](x[..., :48]) * x[..., 48:],
        3 * random(2, 19, 96),
        dtype=dtype,
    )


@needs_kernels
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_activations_and_their_slopes_are_those_of_torch_to_a_millionth(activation):
    x = torch.linspace(-12, 12, 10007).requires_grad_()
    (slope,) = torch.autograd.grad(ops.activate(x, activation).sum(), x)
    expected = ops.PLAIN[activation](x.double())  # torch's own slope of gelu_tanh is wrong by 1e-6 in float32
    (expected_slope,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(ops.activate(x, activation).double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(slope, expected_slope, rtol=1e-6, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(70, 33), (33, 70), (64, 64)])
def test_linear_matches_its_formula(dtype, biased, inputs, outputs):
    tensors = [random(2, 67, inputs), random(outputs, inputs, seed=1), random(outputs, seed=2)]
    assert_same(
        lambda x, w, b=None: ops.linear(x, w, b),
        lambda x, w, b=0: x @ w.T + b,
        *tensors[: 3 if biased else 2],
        dtype=dtype,
    )


@needs_kernels
def test_the_gradient_of_a_bias_is_summed_in_float32():
    """In bfloat16 a sum of ones stops at 256: half of the last place is lost each time."""
    bias = torch.zeros(4).requires_grad_()
    x, weight = torch.ones(1, 3000, 2).bfloat16(), torch.ones(4, 2).bfloat16().requires_grad_()
    ops.linear(x, weight, bias).sum().backward()
    assert torch.equal(bias.grad, torch.full((4,), 3000.0))


def rotated(x: Tensor, positions: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    c, s = cosines[positions][:, :, None].to(x), sines[positions][:, :, None].to(x)
    a, b = x.chunk(2, -1)
    return torch.cat([a * c - b * s, b * c + a * s], -1)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 0), (0, 2)])
def test_heads_are_normalised_and_turned_as_the_formula_says(dtype, norm, turned, heads):
    B, T, K = 2, 33, 16
    H, G = heads
    angles = torch.outer(torch.arange(64.0), 100.0 ** (-torch.arange(0, K, 2) / K))
    rotation = (angles.cos(), angles.sin())
    positions = torch.randint(64, (B, T), generator=torch.Generator().manual_seed(3))

    def mine(qkv, *gains):
        q, k, v = ops.split_heads(
            qkv,
            heads=H,
            kv_heads=G,
            gains=gains or None,
            epsilon=1e-6,
            rotation=rotation if turned else None,
            positions=positions,
        )
        return torch.cat([q, k, v], 1).float()

    def reference(qkv, *gains):
        q, k, v = qkv.view(B, T, H + 2 * G, K).split((H, G, G), 2)
        if gains:
            q, k = rms(q, gains[0]), rms(k, gains[1])
        if turned:
            q, k = rotated(q, positions, *rotation), rotated(k, positions, *rotation)
        return torch.cat([q, k, v], 2).transpose(1, 2)

    gains = (1 + 0.1 * random(K, seed=1), 1 + 0.1 * random(K, seed=2)) if norm else ()
    assert_same(mine, reference, random(B, T, (H + 2 * G) * K), *gains, dtype=dtype)


def documents(B: int, T: int) -> tuple[Tensor, Tensor]:
    """First and last + 1 of the document that each position of packed rows belongs to."""
    cut = torch.rand(B, T + 1, generator=torch.Generator().manual_seed(5)) < 0.05
    cut[:, 0] = cut[:, -1] = True
    index = torch.arange(T + 1)
    first = (index * cut).cummax(1).values[:, :-1]
    last = (index + (T - index) * ~cut).flip(1).cummin(1).values.flip(1)[:, 1:]
    return first.int(), last.int()


def spans_of(kind: str, B: int, T: int, S: int) -> tuple[Tensor, Tensor]:
    index, (first, last) = torch.arange(T, dtype=torch.int32).expand(B, T), documents(B, T)
    zero = torch.zeros_like(index)
    return {
        "causal": (zero, index + 1),
        "causal in documents": (first, index + 1),
        "documents": (first, last),
        "prefix": (first, torch.maximum(index + 1, (first + last) // 2)),
        "band": ((index - 20).clamp(min=0), (index + 3).clamp(max=T)),
        "source": (torch.arange(B, dtype=torch.int32)[:, None] * 7 + zero, S - zero),
        "nothing for some": (first, torch.where(index % 3 == 0, first, index + 1)),
    }[kind]


KINDS = ["causal", "causal in documents", "documents", "prefix", "band", "source", "nothing for some"]


def attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Attention as it is written in a paper; `visible` is (B, T, S)."""
    B, H, T, K = q.shape
    S, times = k.shape[2], H // k.shape[1]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    scores = q @ k.mT * scale
    if bias is not None:
        scores = scores + bias[:, torch.arange(S) - torch.arange(T)[:, None] + T - 1]
    p = scores.masked_fill(~visible[:, None], -math.inf).softmax(-1).nan_to_num(0.0)
    return (p @ v).transpose(1, 2).reshape(B, T, H * K)


def seen(spans: tuple[Tensor, Tensor], S: int) -> Tensor:
    return (torch.arange(S) >= spans[0][..., None]) & (torch.arange(S) < spans[1][..., None])


FEW = 5000  # scores that are kept, so that the others are computed again
WAYS = [
    pytest.param("tiles", torch.bfloat16, ops.MOST_SCORES, marks=needs_kernels),
    pytest.param("products", torch.bfloat16, ops.MOST_SCORES, marks=needs_kernels),
    pytest.param("products", torch.float32, ops.MOST_SCORES, marks=needs_kernels),
    pytest.param("products", torch.float32, FEW, marks=needs_kernels),
    ("plain", torch.float32, ops.MOST_SCORES),
    ("plain", torch.float32, FEW),
]


@pytest.mark.parametrize(("way", "dtype", "most_scores"), WAYS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("T", "kv_heads", "K"), [(3, 4, 16), (96, 1, 64), (300, 2, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_matches_its_formula(way, dtype, most_scores, biased, T, kv_heads, K, kind, monkeypatch):
    if way == "tiles" and not ops._tiles():
        pytest.skip("this processor has no tiles")
    if way == "products":
        monkeypatch.setattr(ops, "_tiles", lambda: False)
    if way == "plain":
        monkeypatch.setattr(ops, "kernels", lambda: None)
    monkeypatch.setattr(ops, "MOST_SCORES", most_scores)
    B, H = 2, 4
    S = T + 77 if kind == "source" else T
    spans = spans_of(kind, B, T, S)
    inputs = [
        random(B, H, T, K),
        random(B, kv_heads, S, K, seed=1),
        random(B, kv_heads, S, K, seed=2),
        random(H, T + S - 1, seed=3),
    ][: 4 if biased else 3]
    assert_same(
        lambda q, k, v, bias=None: ops.attend(q, k, v, spans=spans, bias=bias, scale=0.3),
        lambda q, k, v, bias=None: attention(q, k, v, seen(spans, S), bias, 0.3),
        *inputs,
        dtype=dtype,
    )


@pytest.mark.parametrize(("way", "dtype", "most_scores"), [w for w in WAYS if "tiles" not in str(w)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", [None, "documents", "source"])
def test_attention_with_a_mask_matches_its_formula(way, dtype, most_scores, biased, kind, monkeypatch):
    if way == "plain":
        monkeypatch.setattr(ops, "kernels", lambda: None)
    monkeypatch.setattr(ops, "MOST_SCORES", most_scores)
    B, H, T, K = 2, 4, 150, 16
    S = T + 77 if kind == "source" else T
    mask = torch.rand(B, 1, T, S, generator=torch.Generator().manual_seed(7)) < 0.3
    mask[0, :, 3] = False  # one sees nothing
    mask[1, :, :, S // 2 :] = False
    spans = None if kind is None else spans_of(kind, B, T, S)
    visible = mask[:, 0] if spans is None else mask[:, 0] & seen(spans, S)
    inputs = [random(B, H, T, K), *(random(B, 2, S, K, seed=i) for i in (1, 2)), random(H, T + S - 1, seed=3)]
    assert_same(
        lambda q, k, v, bias=None: ops.attend(q, k, v, mask=mask, spans=spans, bias=bias, scale=0.3),
        lambda q, k, v, bias=None: attention(q, k, v, visible, bias, 0.3),
        *inputs[: 4 if biased else 3],
        dtype=dtype,
    )


@pytest.mark.parametrize("native", [True, False])
def test_what_a_mask_hides_has_no_influence_at_all(native, monkeypatch):
    if not native:
        monkeypatch.setattr(ops, "kernels", lambda: None)
    q, k, v = (random(1, 2, 40, 8, seed=i).requires_grad_() for i in range(3))
    mask = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    mask[..., 7] = False
    before = ops.attend(q, k, v, mask=mask).detach()
    with torch.no_grad():
        k[:, :, 7] = 100.0
        v[:, :, 7] = -1e30
    out = ops.attend(q, k, v, mask=mask)
    assert torch.equal(out, before)
    out.square().sum().backward()
    assert not any(bool(x.grad[:, :, 7].any()) for x in (k, v))


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("how", ["spans", "mask"])
def test_layers_that_share_what_they_see_compute_what_each_computes_alone(native, how, monkeypatch):
    if not native:
        monkeypatch.setattr(ops, "kernels", lambda: None)
    T = 64
    spans = spans_of("documents", 2, T, T)
    visible = {"spans": spans} if how == "spans" else {"mask": seen(spans, T)[:, None]}
    inputs = [random(2, 2, T, 8, seed=i).requires_grad_() for i in range(3)]
    bias = random(2, 2 * T - 1, seed=3).requires_grad_()

    def twice(shared: ops.Shared | None) -> list[Tensor]:
        q, k, v = inputs
        y = ops.attend(q, k, v, bias=bias, shared=shared, **visible)
        y = y + ops.attend(2 * k, q, v, bias=bias, shared=shared, **visible)
        return [y, *torch.autograd.grad(y.square().sum(), (*inputs, bias))]

    for alone, together in zip(twice(None), twice(ops.Shared()), strict=True):
        torch.testing.assert_close(together, alone)


def test_without_kernels_all_layers_keep_one_mask(monkeypatch):
    monkeypatch.setattr(ops, "kernels", lambda: None)
    T, layers = 64, 3
    q, k, v = (random(2, 2, T, 8, seed=i).requires_grad_() for i in range(3))
    spans = spans_of("documents", 2, T, T)

    def matrices_kept(*shared: ops.Shared) -> int:
        kept = []

        def keep(x: Tensor) -> Tensor:
            kept.append(x)
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            ys = [ops.attend(q, k, v, spans=spans, shared=each) for each in shared]
        assert len(ys) == layers
        return len({x.untyped_storage().data_ptr() for x in kept if x.numel() >= 2 * T * T})

    assert matrices_kept(*[ops.Shared()] * layers) == 1
    assert matrices_kept(*(ops.Shared() for _ in range(layers))) == layers


@pytest.mark.parametrize("most_scores", [ops.MOST_SCORES, 1000])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_with_spans_is_attention_with_the_mask_they_stand_for(
    most_scores, biased, kind, monkeypatch
):
    monkeypatch.setattr(ops, "MOST_SCORES", most_scores)
    B, T, S = 2, 150, 170 if kind == "source" else 150
    q, k, v = random(B, 4, T, 8), random(B, 2, S, 8, seed=1), random(B, 2, S, 8, seed=2)
    bias = random(4, T + S - 1, seed=3) if biased else None
    spans = spans_of(kind, B, T, S)
    mask = seen(spans, S)[:, None]
    torch.testing.assert_close(
        ops.attend(q, k, v, spans=spans, bias=bias), ops.attend(q, k, v, mask=mask, bias=bias)
    )


@pytest.mark.parametrize("T", [1, 5, 12])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
def test_without_mask_and_spans_the_queries_are_the_last_positions(T, biased, gradient):
    S = 12
    q, k, v = random(2, 4, T, 8), random(2, 2, S, 8, seed=1), random(2, 2, S, 8, seed=2)
    bias = random(4, T + S - 1, seed=3) if biased else None
    visible = torch.ones(S, S, dtype=torch.bool).tril()[S - T :].expand(2, T, S)
    torch.testing.assert_close(
        ops.attend(q.requires_grad_(gradient), k, v, bias=bias),
        attention(q, k, v, visible, bias, 1 / math.sqrt(8)),
    )


@pytest.mark.parametrize("masked", [True, False])
def test_a_query_that_sees_nothing_gets_nothing_and_has_no_gradient(masked):
    q, k, v = (random(1, 2, 4, 8, seed=i).requires_grad_() for i in range(3))
    spans = torch.tensor([[0, 2, 0, 0]]).int(), torch.tensor([[1, 2, 0, 4]]).int()
    visible = {"mask": seen(spans, 4)[:, None]} if masked else {"spans": spans}
    out = ops.attend(q, k, v, **visible)
    out.square().sum().backward()
    assert torch.equal(out.detach().abs().sum(-1) > 0, torch.tensor([[True, False, False, True]]))
    assert bool((q.grad[:, :, 1:3] == 0).all())
    assert all(bool(x.grad.isfinite().all()) for x in (q, k, v))


def kept_numbers(y: Tensor) -> int:
    """How many numbers are kept for the backward pass."""
    return sum(x.numel() for x in y.grad_fn.saved_tensors if x is not None)


@needs_kernels
def test_long_rows_keep_no_matrix_of_all_queries_and_keys():
    T = 2304
    q, k, v = (random(1, 1, T, 8, seed=i).requires_grad_() for i in range(3))
    spans = torch.zeros(1, T, dtype=torch.int32), torch.full((1, T), T, dtype=torch.int32)
    y = ops.attend(q, k, v, spans=spans)
    assert kept_numbers(y) < 10 * q.numel()


@needs_kernels
def test_attention_to_a_neighbourhood_costs_no_more_than_the_neighbourhood():
    T, window = 4096, 128
    index = torch.arange(T, dtype=torch.int32)[None]
    spans = (index - window).clamp(min=0), (index + window).clamp(max=T)
    q, k, v = (random(1, 1, T, 8, seed=i).requires_grad_() for i in range(3))
    y = ops.attend(q, k, v, spans=spans)
    assert kept_numbers(y) < T * 5 * window  # what they see is two windows


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_to_what_is_not_a_number_is_not_a_number(dtype):
    q, k, v = (random(1, 2, 40, 16, seed=i).to(dtype).requires_grad_() for i in range(3))
    with torch.no_grad():
        k[0, :, 20] = math.nan
    out = ops.attend(q, k, v)
    assert torch.equal(out[0].isnan().all(-1), torch.arange(40) >= 20)
    assert not out[0, :20].isnan().any()


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_attention_do_not_depend_on_the_number_of_threads(dtype):
    q, k, v = (random(2, 4, 200, 16, seed=i).to(dtype).requires_grad_() for i in range(3))
    bias = random(4, 399, seed=3).requires_grad_()
    before, gradients = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = ops.attend(q, k, v, spans=spans_of("documents", 2, 200, 200), bias=bias)
            gradients.append(torch.autograd.grad(y.float().square().sum(), (q, k, v, bias)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_cross_entropy_matches_torch_also_in_chunks(dtype, native, biased, monkeypatch):
    monkeypatch.setattr(ops, "CHUNK_ELEMENTS", 50 * 7)  # 7 rows at a time
    if not native:
        monkeypatch.setattr(ops, "kernels", lambda: None)
    targets = torch.randint(50, (23,), generator=torch.Generator().manual_seed(1))
    weights = torch.rand(23, generator=torch.Generator().manual_seed(2))
    weights[3] = 0

    def reference(h, w, b=0):
        nats = F.cross_entropy(h @ w.T + b, targets, reduction="none")
        return (nats * weights.double()).sum()[None]

    inputs = [random(23, 32), random(50, 32, seed=1), random(50, seed=3)][: 3 if biased else 2]
    assert_same(
        lambda h, w, b=None: ops.cross_entropy(h, w, targets, weights, b)[0][None],
        reference,
        *inputs,
        dtype=dtype,
    )


def test_a_bias_alone_can_be_learned():
    hidden, output, bias = random(5, 8), random(10, 8, seed=1), torch.zeros(10).requires_grad_()
    targets = torch.tensor([3, 1, 4, 1, 5])
    total, _ = ops.cross_entropy(hidden, output, targets, torch.ones(5), bias)
    total.backward()
    expected = (hidden @ output.T).softmax(-1).sum(0) - F.one_hot(targets, 10).sum(0)
    torch.testing.assert_close(bias.grad, expected)


def test_binary_cross_entropy_is_that_of_the_logistic_function():
    logits, labels = torch.tensor([0.0, 2.0, -3.0, 100.0]).requires_grad_(), torch.tensor([1, 0, 0, 1])
    weights = torch.tensor([1.0, 0.5, 0.0, 2.0])
    total, each = ops.binary_cross_entropy(logits, labels, weights)
    expected = torch.tensor([math.log(2), math.log1p(math.exp(2)), math.log1p(math.exp(-3)), 0.0])
    torch.testing.assert_close(each, expected)
    torch.testing.assert_close(total, (weights * expected).sum())
    total.backward()
    torch.testing.assert_close(logits.grad, weights * (logits.detach().sigmoid() - labels))


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
@pytest.mark.parametrize("activation", ["swiglu", "geglu", "geglu_tanh"])
def test_gated_activations_hold_far_from_zero(dtype, activation):
    gates = torch.tensor([[-1e4, -500.0, -178.0, -90.0, 90.0, 178.0, 500.0, 1e4] * 4])
    inputs = torch.cat([gates, torch.ones_like(gates)], -1).to(dtype).requires_grad_()
    out = ops.gated(inputs, activation)
    torch.testing.assert_close(out.float(), inputs.detach()[..., :32].float().relu(), rtol=1e-2, atol=1e-6)
    out.sum().backward()
    assert bool(inputs.grad.isfinite().all())
