"""The operations between matrix products, each as one pass over memory where the machine lets us.

Every function computes what its few lines of plain torch say (`_plain` below each). On a CPU with compiled kernels
(`gristmill.model.native`) a fused version with a hand-written backward is used:
eager torch on a CPU spends more time between the matrix products of a small model than in them. Measurements are in
docs/log.md; tests compare values and gradients of both.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int32, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gristmill.model.native import kernels

__all__ = [
    "Shared",
    "activate",
    "attend",
    "binary_cross_entropy",
    "cross_entropy",
    "dropout_add",
    "embed_rows",
    "gated",
    "layer_norm",
    "linear",
    "rms_norm",
    "split_heads",
]

MOST_HEAD_SIZE = 1024
"""As in kernels.c, which has buffers of this size."""

PARTS = 32
"""As in kernels.c: gradients of gains are summed in this many fixed parts."""


def _fused(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float32) and kernels() is not None


# --- RMSNorm --------------------------------------------------------------------------------------------------------


def rms_norm(x: Float[Tensor, "*N D"], gain: Float[Tensor, " D"], epsilon: float) -> Float[Tensor, "*N D"]:
    """Returns x / rms(x) * gain, computed in float32 and stored as x is (Zhang and Sennrich 2019)."""
    if _fused(x):
        y: Tensor = _RMSNorm.apply(x, gain, epsilon)
        return y
    return _rms_norm_plain(x, gain, epsilon)


def _rms_norm_plain(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * gain.float()).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        x = x.contiguous()
        D = x.shape[-1]
        wide_gain = gain.float().contiguous()
        y, rstd = torch.empty_like(x), torch.empty(x.numel() // D)
        _call("rms_norm", x, wide_gain, y, rstd, len(rstd), D, float(epsilon))
        ctx.save_for_backward(x, wide_gain, rstd)
        ctx.gain_dtype = gain.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, rstd = ctx.saved_tensors
        D = x.shape[-1]
        dx, dgain = torch.empty_like(x), torch.empty(PARTS, D)
        _call("rms_norm_backward", grads[0].contiguous(), x, gain, rstd, dx, dgain, len(rstd), D)
        return dx, dgain.sum(0).to(ctx.gain_dtype), None


# --- LayerNorm ------------------------------------------------------------------------------------------------------


def layer_norm(
    x: Float[Tensor, "*N D"], gain: Float[Tensor, " D"], shift: Float[Tensor, " D"] | None, epsilon: float
) -> Float[Tensor, "*N D"]:
    """Returns (x - mean) / deviation * gain + shift, computed in float32 and stored as x is (Ba et al. 2016)."""
    if _fused(x):
        y: Tensor = _LayerNorm.apply(x, gain, shift, epsilon)
        return y
    return _layer_norm_plain(x, gain, shift, epsilon)


def _layer_norm_plain(x: Tensor, gain: Tensor, shift: Tensor | None, epsilon: float) -> Tensor:
    wide_shift = None if shift is None else shift.float()
    return F.layer_norm(x.float(), x.shape[-1:], gain.float(), wide_shift, epsilon).to(x.dtype)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor | None, epsilon: float) -> Tensor:
        x = x.contiguous()
        D = x.shape[-1]
        N = x.numel() // D
        wide_gain = gain.float().contiguous()
        wide_shift = None if shift is None else shift.float().contiguous()
        y, means, rstd = torch.empty_like(x), torch.empty(N), torch.empty(N)
        _call("layer_norm", x, wide_gain, wide_shift, y, means, rstd, N, D, float(epsilon))
        ctx.save_for_backward(x, wide_gain, means, rstd)
        ctx.dtypes = gain.dtype, None if shift is None else shift.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, means, rstd = ctx.saved_tensors
        D = x.shape[-1]
        gain_dtype, shift_dtype = ctx.dtypes
        dx, dgain = torch.empty_like(x), torch.empty(PARTS, D)
        dshift = None if shift_dtype is None else torch.empty(PARTS, D)
        g = grads[0].contiguous()
        _call("layer_norm_backward", g, x, gain, means, rstd, dx, dgain, dshift, len(rstd), D)
        return (
            dx,
            dgain.sum(0).to(gain_dtype),
            None if dshift is None else dshift.sum(0).to(shift_dtype),
            None,
        )


# --- activations ----------------------------------------------------------------------------------------------------

GATES = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_tanh"}
"""The function that each gated activation applies to its gate (Shazeer 2020, arXiv:2002.05202)."""

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
}


def gated(gate_up: Float[Tensor, "*N F2"], activation: str) -> Float[Tensor, "*N F"]:
    """Returns act(gate) * up for the two halves of the last axis, the gate first; `GATES` says which act it is."""
    function = GATES[activation]
    if _fused(gate_up):
        y: Tensor = _Gated.apply(gate_up, function)
        return y
    gate, up = gate_up.chunk(2, dim=-1)
    return PLAIN[function](gate) * up


def activate(x: Float[Tensor, "*N F"], activation: str) -> Float[Tensor, "*N F"]:
    """Returns "relu", "gelu" (x times the normal distribution function) or "gelu_tanh" (its approximation) of x.

    GELU: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
    """
    if _fused(x):
        y: Tensor = _Activate.apply(x, activation)
        return y
    return PLAIN[activation](x)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, function: str) -> Tensor:
        gate_up = gate_up.contiguous()
        size = gate_up.shape[-1] // 2
        y = gate_up.new_empty((*gate_up.shape[:-1], size))
        _call(f"{function}_gated", gate_up, y, y.numel() // size, size)
        ctx.save_for_backward(gate_up)
        ctx.function = function
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (gate_up,) = ctx.saved_tensors
        size = gate_up.shape[-1] // 2
        d, g = torch.empty_like(gate_up), grads[0].contiguous()
        _call(f"{ctx.function}_gated_backward", gate_up, g, d, d.numel() // (2 * size), size)
        return d, None


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: str) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        _call(function, x, y, x.numel())
        ctx.save_for_backward(x)
        ctx.function = function
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        d = torch.empty_like(x)
        _call(f"{ctx.function}_backward", x, grads[0].contiguous(), d, x.numel())
        return d, None


# --- heads ----------------------------------------------------------------------------------------------------------


def split_heads(
    qkv: Float[Tensor, "B T HK"],
    *,
    heads: int,
    kv_heads: int,
    gains: tuple[Tensor, Tensor] | None,
    epsilon: float,
    rotation: tuple[Float[Tensor, "P K2"], Float[Tensor, "P K2"]] | None,
    positions: Int[Tensor, "B T"],
) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B G T K"], Float[Tensor, "B G T K"]]:
    """Returns queries, keys and values by head: the first two normalised by `gains` and turned by their positions.

    `rotation` holds cosines and sines of the angles, a row for each position and a column for each pair; without it
    nothing is turned. `heads` or `kv_heads` may be 0, where queries come from elsewhere than keys and values.
    """
    head_size = qkv.shape[-1] // (heads + 2 * kv_heads)
    if head_size <= MOST_HEAD_SIZE and _fused(qkv):
        q, k, v = _SplitHeads.apply(
            qkv, *(gains or (None, None)), *(rotation or (None, None)), positions, heads, kv_heads, epsilon
        )
        return q, k, v
    B, T, _ = qkv.shape
    q, k, v = qkv.view(B, T, heads + 2 * kv_heads, head_size).split((heads, kv_heads, kv_heads), dim=2)
    if gains is not None:
        q, k = _rms_norm_plain(q, gains[0], epsilon), _rms_norm_plain(k, gains[1], epsilon)
    if rotation is not None:
        cosines, sines = (table[positions][:, :, None].to(qkv.dtype) for table in rotation)
        q, k = _rotate(q, cosines, sines), _rotate(k, cosines, sines)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turns each pair (i, i + K/2) by its position's angle (Su et al. 2021; pairs as in transformers)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913 - what autograd passes on
        ctx: Any, qkv: Tensor, q_gain: Tensor | None, k_gain: Tensor | None, cosines: Tensor | None,
        sines: Tensor | None, positions: Tensor, heads: int, kv_heads: int, epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        qkv, positions = qkv.contiguous(), positions.contiguous()
        B, T, size = qkv.shape
        H, G, K = heads, kv_heads, size // (heads + 2 * kv_heads)
        q, k, v = qkv.new_empty(B, H, T, K), qkv.new_empty(B, G, T, K), qkv.new_empty(B, G, T, K)
        gains = [None if g is None else g.float().contiguous() for g in (q_gain, k_gain)]
        rstd = torch.empty(B * T * (H + G)) if q_gain is not None else None
        shape = (B, T, H, G, K)
        _call(
            "split_heads", qkv, *gains, cosines, sines, positions, q, k, v, rstd, *shape, float(epsilon),
            int(rstd is not None),
        )  # fmt: skip
        ctx.save_for_backward(qkv, *gains, rstd, cosines, sines, positions)
        ctx.shape, ctx.gain_dtype = shape, None if q_gain is None else q_gain.dtype
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, q_gain, k_gain, rstd, cosines, sines, positions = ctx.saved_tensors
        K = ctx.shape[-1]
        d = torch.empty_like(qkv)
        dq_gain, dk_gain = torch.empty(PARTS, K), torch.empty(PARTS, K)
        dq, dk, dv = (g.contiguous() for g in grads)
        _call(
            "split_heads_backward", dq, dk, dv, qkv, q_gain, k_gain, rstd, cosines, sines, positions, d, dq_gain,
            dk_gain, *ctx.shape, int(rstd is not None),
        )  # fmt: skip
        if q_gain is None:
            return d, *[None] * 8
        return d, dq_gain.sum(0).to(ctx.gain_dtype), dk_gain.sum(0).to(ctx.gain_dtype), *[None] * 6


# --- attention ------------------------------------------------------------------------------------------------------


MOST_SCORES = 1 << 22
"""Of each head, the scores that are kept for the backward pass, and the entries of a mask that exist at a time.

Beyond it, which is 2,048 queries that see 2,048 keys, they are computed again: memory grows with T, not with T squared.
"""


HIDDEN = -1e30
"""The score of a key that a mask hides: a number, for minus infinity less itself is none."""

_Made = TypeVar("_Made")


@final
class Shared:
    """What attention makes of the same masks, spans and biases: the first layer of a pass makes it, the others keep it.

    A mask of T x S entries would otherwise be made, and kept for the backward pass, by every layer.
    """

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], _Made]) -> _Made:
        """Returns what `make` returned when it was first asked for by this name."""
        if name not in self._made:
            self._made[name] = make()
        made: _Made = self._made[name]
        return made


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    mask: Bool[Tensor, "B 1 T S"] | None = None,
    spans: tuple[Int32[Tensor, "B T"], Int32[Tensor, "B T"]] | None = None,
    bias: Float[Tensor, "H T+S-1"] | None = None,
    scale: float | int | None = None,
    shared: Shared | None = None,
) -> Float[Tensor, "B T HK"]:
    """Returns softmax(q k scale + bias) v over what each position may see, heads side by side; 0 where it sees nothing.

    `scaled_dot_product_attention` does it, but for training on a CPU: its backward there reaches a sixth of the speed
    of the four matrix products that it consists of (measured: 67 against 400 GFLOP/s in bfloat16), so they are
    written out; and where the processor multiplies tiles of bfloat16, `kernels.c` does all of it in one pass.

    Args:
        q: queries, `H` heads of them.
        k: keys of `G` heads, where G divides H: head h reads those of head h // (H // G).
        v: values, likewise.
        mask: True where a query may see a key.
        spans: first and last: query i of row b sees the keys j with first <= j < last. Causal, full, local and prefix
            attention over packed rows, and attention to another sequence, are all spans, and cost less than masks.
            With a mask too, a query sees what both let it see. Without mask and spans the queries are the last T of S
            positions and see all up to themselves.
        bias: what is added to the scaled score of query i and key j, in column j - i + T - 1 (Raffel et al. 2020,
            arXiv:1910.10683, section 2.1).
        scale: None is 1/sqrt(K).
        shared: kept by calls that have shapes, mask, spans and bias in common, the layers of one pass for instance.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    inputs = (q, k, v) if bias is None else (q, k, v, bias)
    shared = shared or Shared()
    y: Tensor
    if _fused(q):
        if mask is None and q.dtype == torch.bfloat16 and q.shape[2] > 1 and _tiles():
            y = _AttendTiles.apply(q, k, v, *(spans or _causal_spans(q, k)), bias, scale)
            return y
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            seen = shared.once("keys", lambda: _Keys.of(q, k, mask, spans))
            y = _AttendProducts.apply(q, k, v, *seen, bias, scale)
            return y
    return _attend_plain(q, k, v, _Sight(mask, spans, bias), scale, shared)


def within(
    spans: tuple[Int32[Tensor, "B T"], Int32[Tensor, "B T"]], after: int, first: int = 0
) -> Bool[Tensor, "B T S"]:
    """Returns which of the keys from `first` to before `after` lie in each query's span."""
    index = torch.arange(first, after, device=spans[0].device)
    return (index >= spans[0][..., None]) & (index < spans[1][..., None])


def _causal_spans(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    B, T, S = q.shape[0], q.shape[2], k.shape[2]
    last = torch.arange(S - T + 1, S + 1, dtype=torch.int32, device=q.device).expand(B, T)
    return torch.zeros_like(last), last


class _Block(NamedTuple):
    """Some queries, and the keys that they meet: q0 .. q1 - 1 and k0 .. k1 - 1."""

    q0: int
    q1: int
    k0: int
    k1: int


class _Sight(NamedTuple):
    """What queries see, as it was said."""

    mask: Tensor | None
    spans: tuple[Tensor, Tensor] | None
    bias: Tensor | None


def _attend_plain(q: Tensor, k: Tensor, v: Tensor, sight: _Sight, scale: float, shared: Shared) -> Tensor:
    B, H, T, K = q.shape
    S = k.shape[2]
    mask, spans, bias = sight
    if mask is None and spans is None and bias is None and T in (1, S):  # one query, the last, sees all keys
        y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1, scale=scale, enable_gqa=k.shape[1] != H)
        return y.transpose(1, 2).reshape(B, T, H * K)
    if mask is None and spans is None:
        sight = sight._replace(spans=_causal_spans(q, k))
    k, v = _repeat(k, H // k.shape[1]), _repeat(v, H // v.shape[1])  # few devices take both groups and a mask
    step = T if T * S <= MOST_SCORES else max(1, MOST_SCORES // S)
    blocks = [_Block(i, min(i + step, T), 0, S) for i in range(0, T, step)]
    if len(blocks) == 1:
        added, seen = shared.once("added", lambda: _added(sight, T, q.dtype, blocks[0]))
        return _attend_block(q, k, v, added, seen, scale)
    if sight.spans is not None:
        blocks = _meet(blocks, *sight.spans, S)

    def attend_some(q: Tensor, k: Tensor, v: Tensor, block: _Block) -> Tensor:
        keys = slice(block.k0, block.k1)
        added, seen = _added(sight, T, q.dtype, block)
        return _attend_block(q[:, :, block.q0 : block.q1], k[:, :, keys], v[:, :, keys], added, seen, scale)

    again = functools.partial(checkpoint, attend_some, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(q, k, v, block) for block in blocks], dim=1)


def _added(sight: _Sight, T: int, dtype: torch.dtype, block: _Block) -> tuple[Tensor, Tensor]:
    """What is added to the scores of a block, minus infinity where nothing is seen, and which queries see something."""
    mask, spans, bias = sight
    queries, keys = slice(block.q0, block.q1), slice(block.k0, block.k1)
    visible = None if mask is None else mask[:, :, queries, keys]
    if spans is not None:
        first, last = (x[:, queries] for x in spans)
        inside = within((first, last), block.k1, block.k0)[:, None]
        visible = inside if visible is None else visible & inside
    assert visible is not None
    seen = visible.any(-1, keepdim=True)
    hidden = ~visible & seen  # a softmax over nothing is nan or uniform, as the device has it
    table = torch.zeros(1, 1, dtype=dtype, device=hidden.device)
    if bias is not None:
        part = bias[:, block.k0 - block.q1 + T : block.k1 - block.q0 + T - 1]
        part = part.float()  # many gradients meet in it
        table = part.unfold(1, block.k1 - block.k0, 1).flip(1).to(dtype)  # H, queries, keys
    return table[None].masked_fill(hidden, -math.inf), seen


def _attend_block(q: Tensor, k: Tensor, v: Tensor, added: Tensor, seen: Tensor, scale: float) -> Tensor:
    B, H, T, K = q.shape
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale)
    return y.masked_fill(~seen, 0.0).transpose(1, 2).reshape(B, T, H * K)


@functools.cache
def _tiles() -> bool:
    """Returns whether this processor multiplies tiles (AMX) and the system lets us use them."""
    answer = torch.zeros(1, dtype=torch.int64)
    _kernels()("tiles_allowed", answer)
    return bool(answer)


class _AttendTiles(torch.autograd.Function):
    """Attention in one pass: what is kept for the backward pass is a number for each query."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor, bias: Tensor | None, scale: float
    ) -> Tensor:  # fmt: skip
        B, H, T, K = q.shape
        G, S = k.shape[1:3]
        q, k, v, first, last = (x.contiguous() for x in (q, k, v, first, last))
        wide_bias = None if bias is None else bias.float().contiguous()
        ctx.shape, ctx.scale = (B, H, G, T, S, K, T + S - 1), float(scale)
        ctx.bias_dtype = None if bias is None else bias.dtype
        out, logs = q.new_empty(B, T, H * K), torch.empty(B, H, T)
        _kernels()("attend_tiles", q, k, v, wide_bias, first, last, out, logs, *ctx.shape, ctx.scale)
        ctx.save_for_backward(q, k, v, wide_bias, first, last, out, logs)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        B, H, *_, R = ctx.shape
        dq, dk, dv = (torch.empty_like(x) for x in saved[:3])
        d_bias = torch.empty(B, H, R) if ctx.needs_input_grad[5] else None
        d = grads[0].contiguous()
        _kernels()("attend_tiles_backward", *saved, d, dq, dk, dv, d_bias, *ctx.shape, ctx.scale)
        return dq, dk, dv, None, None, None if d_bias is None else d_bias.sum(0).to(ctx.bias_dtype), None


class _Keys(NamedTuple):
    """The first key that each query sees, the first after the last, and which of those between are hidden."""

    first: Tensor
    last: Tensor
    hidden: Tensor | None

    @classmethod
    def of(cls, q: Tensor, k: Tensor, mask: Tensor | None, spans: tuple[Tensor, Tensor] | None) -> "_Keys":
        if mask is None:
            first, last = spans or _causal_spans(q, k)
            return cls(first.contiguous(), last.contiguous(), None)
        S = k.shape[2]
        index = torch.arange(S, dtype=torch.int32)
        visible = mask[:, 0].expand(len(q), q.shape[2], S)
        if spans is not None:
            visible = visible & within(spans, S)
        first = torch.where(visible, index, S).amin(-1)
        last = torch.where(visible, index + 1, 0).amax(-1)
        return cls(first, last, ~visible)


class _AttendProducts(torch.autograd.Function):
    """Attention in blocks of queries: a block meets only the keys from the first to the last that one of them sees.

    Causal attention so saves its upper half, and local attention all but a band.
    """

    @staticmethod
    def forward(  # noqa: PLR0913 - what autograd passes on
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor, hidden: Tensor | None,
        bias: Tensor | None, scale: float,
    ) -> Tensor:  # fmt: skip
        B, H, T, K = q.shape
        G, S = k.shape[1:3]
        q = q.reshape(B * H, T, K)
        k, v = _repeat(k, H // G).reshape(B * H, S, K), _repeat(v, H // G).reshape(B * H, S, K)
        keys = _Keys(first, last, hidden)
        wide_bias = None if bias is None else bias.float().contiguous()
        blocks = _blocks(first, last, S)
        kept = sum((b.q1 - b.q0) * (b.k1 - b.k0) for b in blocks) <= MOST_SCORES
        ctx.shape, ctx.scale, ctx.blocks = (B, H, G, T, S, K), float(scale), blocks
        ctx.bias_dtype = None if bias is None else bias.dtype
        out, saved = q.new_empty(B, T, H, K), []
        for block in blocks:
            p = _probabilities(q, k, keys, wide_bias, ctx.scale, block)
            y = torch.bmm(p, v[:, block.k0 : block.k1])
            out[:, block.q0 : block.q1] = y.view(B, H, -1, K).transpose(1, 2)
            if kept:
                saved.append(p)
        ctx.save_for_backward(q, k, v, *keys, wide_bias, *saved)
        return out.view(B, T, H * K)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, first, last, hidden, bias, *saved = ctx.saved_tensors
        B, H, G, T, S, K = ctx.shape
        d = grads[0].view(B, T, H, K)
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(B * H, S, K) for _ in range(2))  # float32: each block adds to them
        d_bias = torch.zeros_like(bias) if ctx.needs_input_grad[6] else None
        for block, p in itertools.zip_longest(ctx.blocks, saved):
            q0, q1, k0, k1 = block
            if p is None:
                p = _probabilities(q, k, _Keys(first, last, hidden), bias, ctx.scale, block)
            g = d[:, q0:q1].transpose(1, 2).reshape(B * H, q1 - q0, K)
            ds = torch.bmm(g, v[:, k0:k1].transpose(1, 2))
            diagonals = None if d_bias is None else torch.empty(B, H, q1 - q0 + k1 - k0 - 1)
            _call(
                "softmax_backward", p, ds, diagonals, first, last, B, H, q1 - q0, k1 - k0, T, q0, k0, ctx.scale
            )  # fmt: skip
            if d_bias is not None and diagonals is not None:
                d_bias[:, k0 - q1 + T : k1 - q0 + T - 1] += diagonals.sum(0)
            dq[:, q0:q1] = torch.bmm(ds, k[:, k0:k1])
            for sums, part in (
                (dk, torch.bmm(ds.transpose(1, 2), q[:, q0:q1])),
                (dv, torch.bmm(p.transpose(1, 2), g)),
            ):
                _call("add_rows", part, sums, B * H, S, K, k0, k1 - k0)
        if G != H:
            dk, dv = (x.view(B, G, H // G, S, K).sum(2) for x in (dk, dv))
        dk, dv = (x.to(k.dtype).view(B, G, S, K) for x in (dk, dv))
        return (
            dq.view(B, H, T, K),
            dk,
            dv,
            None,
            None,
            None,
            None if d_bias is None else d_bias.to(ctx.bias_dtype),
            None,
        )


def _probabilities(
    q: Tensor, k: Tensor, keys: _Keys, bias: Tensor | None, scale: float, block: _Block
) -> Tensor:
    """Returns softmax(q k scale + bias) for some queries and all keys that they meet."""
    B, T = keys.first.shape
    q0, q1, k0, k1 = block
    p = torch.bmm(q[:, q0:q1], k[:, k0:k1].transpose(1, 2))
    H, R = len(q) // B, 0 if bias is None else bias.shape[1]
    hidden = None if keys.hidden is None else keys.hidden[:, None, q0:q1, k0:k1]
    by_row = p.view(B, H, q1 - q0, k1 - k0)
    if hidden is not None:
        by_row.masked_fill_(hidden, HIDDEN)
    _call("softmax", p, bias, keys.first, keys.last, B, H, q1 - q0, k1 - k0, T, q0, k0, R, scale)
    if hidden is not None:
        by_row.masked_fill_(hidden, 0.0)  # the kernel's exponential never is
    return p


QUERIES, GRAIN, WIDTHS = 128, 64, 32
"""Queries in a block, what the keys that it meets are rounded to, and how many numbers of keys there may be.

oneDNN keeps a program of 0.8 MB for each shape of product that it has seen in bfloat16.
"""


def _blocks(first: Tensor, last: Tensor, S: int) -> list[_Block]:
    T = first.shape[1]
    size = QUERIES if T <= 8 * QUERIES else 2 * QUERIES
    return _meet([_Block(i, min(i + size, T), 0, S) for i in range(0, T, size)], first, last, S)


def _meet(blocks: list[_Block], first: Tensor, last: Tensor, S: int) -> list[_Block]:
    """Returns the blocks, each with the keys that any row's queries in it see, from and to a multiple of the grain."""
    grain = -(-S // (GRAIN * WIDTHS)) * GRAIN
    empty = last <= first
    lows = first.masked_fill(empty, S).amin(0).tolist()
    highs = last.masked_fill(empty, 0).amax(0).tolist()
    out = []
    for q0, q1, _, _ in blocks:
        k0, k1 = min(lows[q0:q1]) // grain * grain, -(-max(highs[q0:q1]) // grain) * grain
        out.append(_Block(q0, q1, k0, min(k1, S)) if k0 < k1 else _Block(q0, q1, 0, min(grain, S)))
    return out


def _repeat(x: Tensor, times: int) -> Tensor:
    return x if times == 1 else x.repeat_interleave(times, dim=1)


# --- residual dropout -----------------------------------------------------------------------------------------------


def dropout_add(
    x: Float[Tensor, "*N D"], branch: Float[Tensor, "*N D"], rate: float, seed: int
) -> Float[Tensor, "*N D"]:
    """Returns x + dropout(branch). What is dropped is a function of `seed` and of the place, nothing else."""
    if rate == 0.0:
        return x + branch
    if _fused(x):
        y: Tensor = _DropoutAdd.apply(x, branch, rate, seed)
        return y
    generator = torch.Generator(x.device).manual_seed(seed)
    keep = torch.rand(branch.shape, generator=generator, device=x.device) >= rate
    return x + branch * keep / (1 - rate)


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, rate: float, seed: int) -> Tensor:
        x, branch, y = x.contiguous(), branch.contiguous(), torch.empty_like(x)
        _call("dropout_add", x, branch, y, x.numel(), rate, seed)
        ctx.rate, ctx.seed = rate, seed
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g = grads[0].contiguous()
        d = torch.empty_like(g)
        suffix = "bf16" if g.dtype == torch.bfloat16 else "f32"
        _kernels()(f"dropout_add_{suffix}", None, g, d, g.numel(), ctx.rate, ctx.seed)
        return g, d, None, None


# --- embeddings of rows that few positions share -----------------------------------------------------------------


def embed_rows(rows: Int[Tensor, "B T N"], table: Float[Tensor, "R D"]) -> Float[Tensor, "B T D"]:
    """Returns the sum of the table's rows at each position; the table's gradient is sparse, its rows summed."""
    y: Tensor = _EmbedRows.apply(rows, table)
    return y


class _EmbedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.table_shape = table.shape
        flat = rows.reshape(-1, rows.shape[-1])
        native = kernels() if table.device.type == "cpu" and table.dtype == torch.float32 else None
        if native is None:
            return F.embedding_bag(flat, table, mode="sum").view(*rows.shape[:-1], -1)
        out = table.new_empty(len(flat), table.shape[1])
        native("sum_rows", table, flat.contiguous(), out, *flat.shape, table.shape[1])
        return out.view(*rows.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        (rows,) = ctx.saved_tensors
        N, D = rows.shape[-1], ctx.table_shape[1]
        g = grads[0].reshape(-1, D).float().contiguous()
        ordered, order = torch.sort(rows.reshape(-1), stable=True)
        unique, counts = torch.unique_consecutive(ordered, return_counts=True)
        native = kernels() if g.device.type == "cpu" else None
        if native is None:
            which = torch.repeat_interleave(torch.arange(len(unique), device=g.device), counts)
            sums = g.new_zeros(len(unique), D).index_add_(0, which, g[order // N])
        else:
            sums, starts = g.new_empty(len(unique), D), F.pad(counts.cumsum(0), (1, 0))
            native("sum_segments", g, order, starts, sums, len(unique), N, D)
        return None, torch.sparse_coo_tensor(
            unique[None], sums, ctx.table_shape, is_coalesced=True, check_invariants=False
        )


# --- cross-entropy --------------------------------------------------------------------------------------------------

CHUNK_ELEMENTS = 1 << 23
"""Logits held at a time: the loss and its gradient are computed chunk by chunk, so memory does not grow with V."""


def cross_entropy(
    hidden: Float[Tensor, "N D"],
    output: Float[Tensor, "V D"],
    targets: Int[Tensor, " N"],
    weights: Float[Tensor, " N"],
    bias: Float[Tensor, " V"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
    """Returns the weighted sum of the nats of `targets`, and (without gradient) the nats of each position.

    The scores are hidden output^T + bias.

    The gradient of the logits is made in place of the logits in the forward pass, as soon as a chunk of them is
    there (the idea of Hsu et al. 2024, arXiv:2410.10989): no more than one chunk is ever in memory.
    """
    inputs = (hidden, output) if bias is None else (hidden, output, bias)
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    total, nats = _CrossEntropy.apply(hidden, output, targets, weights, bias, wanted)
    return total, nats


def binary_cross_entropy(
    logits: Float[Tensor, " N"],
    labels: Shaped[Tensor, " N"],
    weights: Float[Tensor, " N"],
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
    """Returns the weighted sum of the nats of yes (1) or no (0), and (without gradient) the nats of each position.

    The loss of replaced-token detection (Clark et al. 2020, arXiv:2003.10555, section 3), computed in float32.
    """
    nats = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
    return (nats * weights).sum(), nats.detach()


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        output: Tensor,
        targets: Tensor,
        weights: Tensor,
        bias: Tensor | None,
        wants: bool,
    ) -> tuple[Tensor, Tensor]:
        matrix = output.to(hidden.dtype)
        N, V = len(hidden), len(output)
        nats = torch.empty(N, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if wants else None
        d_output = torch.zeros(output.shape, device=hidden.device) if wants else None
        d_bias = torch.zeros(V, device=hidden.device) if wants and bias is not None else None
        native = kernels() if hidden.device.type == "cpu" else None
        step = max(1, CHUNK_ELEMENTS // V)
        for i in range(0, N, step):
            h, t, w = hidden[i : i + step], targets[i : i + step], weights[i : i + step]
            logits = F.linear(h, matrix, None if bias is None else bias.to(h.dtype))
            if native is not None and logits.dtype in (torch.bfloat16, torch.float32):
                native.typed(
                    "cross_entropy", logits, t.contiguous(), w.contiguous(), nats[i : i + step], *logits.shape
                )
                g = logits
            else:
                scores = torch.log_softmax(logits.float(), -1)
                nats[i : i + step] = -scores.gather(1, t[:, None])[:, 0]
                scores = scores.exp_().mul_(w[:, None])
                g = scores.scatter_add_(1, t[:, None], -w[:, None].to(scores.dtype)).to(hidden.dtype)
            if d_hidden is not None and d_output is not None:
                torch.mm(g, matrix, out=d_hidden[i : i + step])
                d_output += (
                    _tall_product(g, h) if g.dtype == torch.bfloat16 and native is not None else g.T @ h
                )
            if d_bias is not None:
                d_bias += _column_sums(g)
        ctx.mark_non_differentiable(nats)
        ctx.save_for_backward(d_hidden, d_output, d_bias)
        ctx.output_dtype, ctx.bias_dtype = output.dtype, None if bias is None else bias.dtype
        return (nats * weights).sum(), nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_output, d_bias = ctx.saved_tensors
        factor = float(grads[0])  # as a number: a bfloat16 tensor times it is computed in float32
        d_output = (d_output * factor).to(ctx.output_dtype)
        return (
            d_hidden * factor,
            d_output,
            None,
            None,
            None if d_bias is None else (d_bias * factor).to(ctx.bias_dtype),
            None,
        )


def _kernels() -> Any:
    native = kernels()
    assert native is not None  # _fused was asked
    return native


def _call(name: str, tensor: Tensor, *arguments: Tensor | int | float | None) -> None:
    _kernels().typed(name, tensor, *arguments)


# --- linear ---------------------------------------------------------------------------------------------------------


def linear(
    x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"] | None
) -> Float[Tensor, "*N F"]:
    """Returns x W^T + b.

    The gradient of W is a product of two tall matrices, of which oneDNN reads one against its grain: on a CPU, in
    bfloat16, it is two thirds of the speed of the other products unless the smaller one is turned around first.
    """
    if x.dtype == torch.bfloat16 and weight.requires_grad and _fused(x):
        y: Tensor = _Linear.apply(x, weight, bias)
        return y
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = grads[0]
        flat_g, flat_x = g.reshape(-1, g.shape[-1]).contiguous(), x.reshape(-1, x.shape[-1]).contiguous()
        d_bias = _column_sums(flat_g).to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None
        return g @ weight if ctx.needs_input_grad[0] else None, _tall_product(flat_g, flat_x), d_bias


def _column_sums(x: Tensor) -> Tensor:
    """Returns the sum of each column of a contiguous matrix, added up in float32."""
    if not _fused(x):
        return x.sum(0, dtype=torch.float32)
    parts = torch.empty(PARTS, x.shape[1])
    _call("column_sums", x, parts, *x.shape)
    return parts.sum(0)


def _tall_product(g: Tensor, x: Tensor) -> Tensor:
    """Returns g^T x for two tall bfloat16 matrices, contiguous."""
    if x.shape[1] <= g.shape[1]:
        return _turned(_turned(x) @ g)
    return _turned(g) @ x


def _turned(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[1], x.shape[0])
    _kernels()("transpose_bf16", x, y, *x.shape)
    return y
