"""The operations between matrix products, each as one pass over memory where the machine lets us.

Every function computes what its few lines of plain torch say (`_plain` below each). On a CPU with compiled kernels
(`gristmill.model.native`) a fused version with a hand-written backward is used:
eager torch on a CPU spends more time between the matrix products of a small model than in them. Measurements are in
docs/log.md; tests compare values and gradients of both.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from gristmill.model.native import kernels

__all__ = [
    "attend",
    "cross_entropy",
    "dropout_add",
    "embed_rows",
    "linear",
    "rms_norm",
    "split_heads",
    "swiglu",
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


# --- SwiGLU ---------------------------------------------------------------------------------------------------------


def swiglu(gate_up: Float[Tensor, "*N F2"]) -> Float[Tensor, "*N F"]:
    """Returns silu(gate) * up for the two halves of the last axis (Shazeer 2020)."""
    if _fused(gate_up):
        y: Tensor = _SwiGLU.apply(gate_up)
        return y
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        size = gate_up.shape[-1] // 2
        y = gate_up.new_empty((*gate_up.shape[:-1], size))
        _call("swiglu", gate_up, y, y.numel() // size, size)
        ctx.save_for_backward(gate_up)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        size = gate_up.shape[-1] // 2
        d = torch.empty_like(gate_up)
        _call("swiglu_backward", gate_up, grads[0].contiguous(), d, d.numel() // (2 * size), size)
        return d


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

    `rotation` holds cosines and sines of the angles, a row for each position and a column for each pair.
    """
    head_size = qkv.shape[-1] // (heads + 2 * kv_heads)
    if rotation is not None and head_size <= MOST_HEAD_SIZE and _fused(qkv):
        q, k, v = _SplitHeads.apply(
            qkv, *(gains or (None, None)), *rotation, positions, heads, kv_heads, epsilon
        )
        return q, k, v
    B, T, _ = qkv.shape
    q, k, v = qkv.view(B, T, heads + 2 * kv_heads, -1).split((heads, kv_heads, kv_heads), dim=2)
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
        ctx: Any, qkv: Tensor, q_gain: Tensor | None, k_gain: Tensor | None, cosines: Tensor, sines: Tensor,
        positions: Tensor, heads: int, kv_heads: int, epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        qkv, positions = qkv.contiguous(), positions.contiguous()
        B, T, size = qkv.shape
        H, G, K = heads, kv_heads, size // (heads + 2 * kv_heads)
        q, k, v = qkv.new_empty(B, H, T, K), qkv.new_empty(B, G, T, K), qkv.new_empty(B, G, T, K)
        gains = [None if g is None else g.float().contiguous() for g in (q_gain, k_gain)]
        rstd = torch.empty(B * T * (H + G)) if q_gain is not None else None
        shape = (B, T, H, G, K)
        _call(
            "split_heads",
            qkv,
            *gains,
            cosines,
            sines,
            positions,
            q,
            k,
            v,
            rstd,
            *shape,
            1.0,
            float(epsilon),
            int(rstd is not None),
        )
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
            dk_gain, *ctx.shape, 1.0, int(rstd is not None),
        )  # fmt: skip
        if q_gain is None:
            return d, *[None] * 8
        return d, dq_gain.sum(0).to(ctx.gain_dtype), dk_gain.sum(0).to(ctx.gain_dtype), *[None] * 6


# --- attention ------------------------------------------------------------------------------------------------------


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    mask: Bool[Tensor, "B 1 T S"] | None,
    starts: Int32[Tensor, "B T"] | None,
) -> Float[Tensor, "B T HK"]:
    """Returns softmax(q k / sqrt(K)) v over what each position may see, heads side by side.

    Position i sees what `mask` says; without a mask, `starts[i]` to i; without either, everything up to i, where
    the queries are the last T of S positions.

    `scaled_dot_product_attention` does it, but for training on a CPU: its backward there reaches a sixth of the speed
    of the four matrix products that it consists of (measured: 67 against 400 GFLOP/s in bfloat16), so they are
    written out.
    """
    B, H, T, K = q.shape
    if mask is None and k.shape[2] == T <= LONGEST_WRITTEN_OUT and q.requires_grad and _fused(q):
        if starts is None:
            starts = torch.zeros(B, T, dtype=torch.int32)
        y: Tensor = _Attend.apply(q, k, v, starts)
    else:
        if mask is None and starts is not None:
            index = torch.arange(T, device=q.device)
            mask = ((index >= starts[..., None]) & (index <= index[:, None]))[:, None]
        causal = mask is None and T > 1  # one query, the last, sees all keys
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=k.shape[1] != H
        )
    return y.transpose(1, 2).reshape(B, T, H * K)


LONGEST_WRITTEN_OUT = 2048
"""As MOST_KEYS in kernels.c. Beyond it the scores, T x T for each head, would cost more memory than the speed is worth."""


class _Attend(torch.autograd.Function):
    """Causal attention in blocks of queries: a block meets only the keys up to its end, which saves the upper half."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
        B, H, T, K = q.shape
        G = k.shape[1]
        q = q.reshape(B * H, T, K)
        k, v = _repeat(k, H // G).reshape(B * H, T, K), _repeat(v, H // G).reshape(B * H, T, K)
        starts = starts.contiguous()
        out, saved = torch.empty_like(q), []
        for first, last in _query_blocks(T):
            p = torch.bmm(q[:, first:last], k[:, :last].transpose(1, 2))
            _call("softmax", p, starts, B, H, last - first, last, T, first, 1 / math.sqrt(K))
            out[:, first:last] = torch.bmm(p, v[:, :last])
            saved.append(p)
        ctx.save_for_backward(q, k, v, starts, *saved)
        ctx.shape = (B, H, G, T, K)
        return out.view(B, H, T, K)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, starts, *saved = ctx.saved_tensors
        B, H, G, T, K = ctx.shape
        d = grads[0].reshape(B * H, T, K)
        dq = torch.empty_like(q)
        dk = dv = torch.empty(0)
        blocks = list(zip(_query_blocks(T), saved, strict=True))
        for (first, last), p in reversed(
            blocks
        ):  # the last block meets all keys, so its gradients start the sums
            g, queries = d[:, first:last], q[:, first:last]
            ds = torch.bmm(g, v[:, :last].transpose(1, 2))
            _call("softmax_backward", p, ds, starts, B, H, last - first, last, T, first, 1 / math.sqrt(K))
            dq[:, first:last] = torch.bmm(ds, k[:, :last])
            dk_block, dv_block = torch.bmm(ds.transpose(1, 2), queries), torch.bmm(p.transpose(1, 2), g)
            if last == T:
                dk, dv = dk_block, dv_block
            else:
                dk[:, :last] += dk_block
                dv[:, :last] += dv_block
        if G != H:
            dk, dv = (x.view(B, G, H // G, T, K).sum(2) for x in (dk, dv))
        return dq.view(B, H, T, K), dk.view(B, G, T, K), dv.view(B, G, T, K), None


def _query_blocks(T: int) -> list[tuple[int, int]]:
    size = max(128, -(-T // 4))
    return [(first, min(first + size, T)) for first in range(0, T, size)]


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
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
    """Returns the weighted sum of the nats of `targets`, and (without gradient) the nats of each position.

    The gradient of the logits is made in place of the logits in the forward pass, as soon as a chunk of them is
    there (the idea of Hsu et al. 2024, arXiv:2410.10989): no more than one chunk is ever in memory.
    """
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or output.requires_grad)
    total, nats = _CrossEntropy.apply(hidden, output, targets, weights, wanted)
    return total, nats


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, output: Tensor, targets: Tensor, weights: Tensor, wants: bool
    ) -> tuple[Tensor, Tensor]:
        matrix = output.to(hidden.dtype)
        N, V = len(hidden), len(output)
        nats = torch.empty(N, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if wants else None
        d_output = torch.zeros(output.shape, device=hidden.device) if wants else None
        native = kernels() if hidden.device.type == "cpu" else None
        step = max(1, CHUNK_ELEMENTS // V)
        for i in range(0, N, step):
            h, t, w = hidden[i : i + step], targets[i : i + step], weights[i : i + step]
            logits = h @ matrix.T
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
        ctx.mark_non_differentiable(nats)
        ctx.save_for_backward(d_hidden, d_output)
        ctx.output_dtype = output.dtype
        return (nats * weights).sum(), nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_hidden, d_output = ctx.saved_tensors
        factor = float(grads[0])  # as a number: a bfloat16 tensor times it is computed in float32
        return d_hidden * factor, (d_output * factor).to(ctx.output_dtype), None, None, None


def _kernels() -> Any:
    native = kernels()
    assert native is not None  # _fused was asked
    return native


def _call(name: str, tensor: Tensor, *arguments: Tensor | int | float | None) -> None:
    _kernels().typed(name, tensor, *arguments)


# --- linear ---------------------------------------------------------------------------------------------------------


def linear(
    x: Float[Tensor, "B T D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"] | None
) -> Float[Tensor, "B T F"]:
    """Returns x W^T + b.

    The gradient of W is a product of two tall matrices, of which oneDNN reads one against its grain: on a CPU, in
    bfloat16, it is two thirds of the speed of the other products unless the smaller one is turned around first.
    """
    if x.dtype == torch.bfloat16 and weight.requires_grad and _fused(x):
        y: Tensor = _Linear.apply(x, weight)
        return y if bias is None else y + bias.to(y.dtype)
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        g = grads[0]
        flat_g, flat_x = g.reshape(-1, g.shape[-1]).contiguous(), x.reshape(-1, x.shape[-1]).contiguous()
        return g @ weight, _tall_product(flat_g, flat_x)


def _tall_product(g: Tensor, x: Tensor) -> Tensor:
    """Returns g^T x for two tall bfloat16 matrices, contiguous."""
    if x.shape[1] <= g.shape[1]:
        return _turned(_turned(x) @ g)
    return _turned(g) @ x


def _turned(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[1], x.shape[0])
    _kernels()("transpose_bf16", x, y, *x.shape)
    return y
