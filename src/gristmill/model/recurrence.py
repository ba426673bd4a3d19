"""A state that passes through documents, position by position: LSTM and GRU over packed rows.

In a packed row a document's positions stand side by side, and its state starts from zero at the first of them. So
rows fall into runs, which have nothing to do with each other. What the input contributes is one matrix product for
all positions; what the state contributes has to wait for the position before, and is done by compiled code that
takes runs of about equal length together (`recurrence.c`), or by torch's own LSTM and GRU over packed sequences
where there is no such code. Both are torch's equations, so weights move freely between this and `torch.nn`.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32
from torch import Tensor

from gristmill.model import ops
from gristmill.model.native import Kernels, library

__all__ = ["Runs", "find_runs", "gru", "lstm"]

SOURCE = Path(__file__).with_name("native") / "recurrence.c"

PANEL = 32
"""As in recurrence.c: columns of a matrix that are stored together."""

MOST_GROUP = 32
"""Runs that one thread takes together; more gain nothing, for the weights are then read seldom enough."""


@dataclasses.dataclass(frozen=True, slots=True)
class Runs:
    """Which positions a state passes through from zero, the longest runs first. Positions count through all rows."""

    first: Int[Tensor, " N"]
    sizes: Int[Tensor, " N"]

    @property
    def last(self) -> Int[Tensor, " N"]:
        """The last position of each."""
        return self.first + self.sizes - 1


def find_runs(first: Int32[Tensor, "B T"]) -> Runs:
    """Returns the runs of rows in which each position sees from `first` to itself (`segment_spans`).

    Every position is in exactly one of them; each position of padding is one of its own.
    """
    index = torch.arange(first.shape[1], device=first.device)
    begins = torch.nonzero((first == index).flatten())[:, 0]
    ends = torch.cat([begins[1:], begins.new_tensor([first.numel()])])
    sizes, order = torch.sort(ends - begins, descending=True, stable=True)
    return Runs(begins[order], sizes)


def lstm(
    x: Float[Tensor, "B T D"],
    runs: Runs,
    *,
    input_weight: Float[Tensor, "H4 D"],
    input_bias: Float[Tensor, " H4"],
    state_weight: Float[Tensor, "H4 H"],
) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "N H"], Float[Tensor, "N H"]]]:
    """Returns what an LSTM says at each position, and output and cell at the end of each run, in float32.

    i, f, o = sigmoid(W x + U h + b), g = tanh(W x + U h + b); c = f c + i g; h = o tanh(c), the gates in the rows of
    the matrices in the order i, f, g, o (Hochreiter and Schmidhuber 1997; Gers et al. 2000 for f).
    """
    B, T, _ = x.shape
    if _compiled(x) is None:
        weights = [input_weight, state_weight, input_bias, torch.zeros_like(input_bias)]
        return _plain(torch.lstm, x, runs, weights, states=2)  # type: ignore[return-value]
    gates = ops.linear(x, input_weight, input_bias)
    h, c = _LSTM.apply(gates.flatten(0, 1), state_weight, runs)
    return h.view(B, T, -1).to(x.dtype), (h.detach()[runs.last], c[runs.last])


def gru(
    x: Float[Tensor, "B T D"],
    runs: Runs,
    *,
    input_weight: Float[Tensor, "H3 D"],
    input_bias: Float[Tensor, " H3"],
    state_weight: Float[Tensor, "H3 H"],
    state_bias: Float[Tensor, " H"],
) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "N H"]]]:
    """Returns what a GRU says at each position, and the same at the end of each run, in float32.

    r, z = sigmoid(W x + U h + b), n = tanh(W x + b + r (U h + b')); h = (1 - z) n + z h, in the rows of the matrices
    in the order r, z, n. Cho et al. 2014 (arXiv:1406.1078) multiply h by r before U; after it, as torch and cuDNN do,
    the product need not wait for r. b' is the state's bias.
    """
    B, T, _ = x.shape
    if _compiled(x) is None:
        both = torch.cat([torch.zeros_like(input_bias[: 2 * len(state_bias)]), state_bias])
        return _plain(torch.gru, x, runs, [input_weight, state_weight, input_bias, both], states=1)  # type: ignore[return-value]
    gates = ops.linear(x, input_weight, input_bias)
    h = _GRU.apply(gates.flatten(0, 1), state_weight, state_bias, runs)
    return h.view(B, T, -1).to(x.dtype), (h.detach()[runs.last],)


def _plain(
    function: Any, x: Tensor, runs: Runs, weights: list[Tensor], *, states: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The same with torch's own recurrence, in float32."""
    steps = torch.arange(int(runs.sizes[0]), device=x.device)[:, None]
    going = steps < runs.sizes
    # the order of a PackedSequence: all first positions, all second ones, ...
    order = (runs.first + steps)[going]
    zero = x.new_zeros((1, len(runs.first), weights[1].shape[1]), dtype=torch.float32)
    # side by side in memory, as cuDNN wants them
    flat = torch.cat([weight.float().flatten() for weight in weights])
    parts = torch.split(flat, [weight.numel() for weight in weights])
    packed, *last = function(
        x.flatten(0, 1)[order].float(), going.sum(1).cpu(), (zero, zero) if states == 2 else zero,
        [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)], True, 1, 0.0, False, False,
    )  # fmt: skip
    y = packed[torch.argsort(order)].view(*x.shape[:2], -1)
    return y.to(x.dtype), tuple(state.detach()[0] for state in last)


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, runs: Runs) -> tuple[Tensor, Tensor]:
        N, H = len(gates), weight.shape[1]
        values, h, c = torch.empty(N, 4 * H), torch.empty(N, H), torch.empty(N, H)
        _call("lstm_forward", weight.T, runs, (gates.float().contiguous(),), (values, h, c), H)
        ctx.save_for_backward(weight, values, h, c)
        ctx.runs, ctx.dtype = runs, gates.dtype
        ctx.mark_non_differentiable(c)
        return h, c

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, values, h, c = ctx.saved_tensors
        d = torch.empty_like(values)
        _call("lstm_backward", weight, ctx.runs, (grads[0].contiguous(),), (values, c, d), weight.shape[1])
        d = d.to(ctx.dtype)
        return d, d.T @ _before(h, ctx.runs, weight.dtype), None


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, runs: Runs) -> Tensor:
        N, H = len(gates), weight.shape[1]
        values, h = torch.empty(N, 4 * H), torch.empty(N, H)
        wide = gates.float().contiguous()
        _call("gru_forward", weight.T, runs, (wide,), (bias.float().contiguous(), values, h), H)
        ctx.save_for_backward(weight, values, h)
        ctx.runs, ctx.dtype, ctx.bias_dtype = runs, gates.dtype, bias.dtype
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, values, h = ctx.saved_tensors
        H, d = weight.shape[1], torch.empty_like(values)
        _call("gru_backward", weight, ctx.runs, (grads[0].contiguous(),), (values, h, d), H)
        d_bias = d[:, 2 * H : 3 * H].sum(0).to(ctx.bias_dtype)
        d = d.to(ctx.dtype)
        d_gates = torch.cat([d[:, : 2 * H], d[:, 3 * H :]], dim=1)
        return d_gates, d[:, : 3 * H].T @ _before(h, ctx.runs, weight.dtype), d_bias, None


def _before(h: Tensor, runs: Runs, dtype: torch.dtype) -> Tensor:
    """Returns at each position the state of the one before, 0 where a run begins."""
    before = torch.empty_like(h, dtype=dtype)
    before[1:] = h[:-1]
    before[runs.first] = 0
    return before


def _call(
    name: str, weight: Tensor, runs: Runs, given: tuple[Tensor, ...], rest: tuple[Tensor, ...], H: int
) -> None:
    native = _kernels()
    assert native is not None  # _compiled was asked
    tiles = weight.dtype == torch.bfloat16 and _has_tiles()
    threads, long_runs = torch.get_num_threads(), int((runs.sizes > 1).sum())
    group = min(MOST_GROUP, max(1, -(-long_runs // threads)))
    # fmt: off
    native(name, given[0], _panels(weight, tiles), runs.first, runs.sizes, *rest, len(runs.first), group, H, int(tiles))
    # fmt: on


def _panels(weight: Tensor, tiles: bool) -> Tensor:
    """Returns a matrix (K, M) as recurrence.c reads it: columns in panels, in pairs of rows where it is for tiles."""
    K, M = weight.shape
    if tiles:
        whole = F.pad(weight, (0, -M % PANEL, 0, -K % PANEL))
        parts = whole.reshape(whole.shape[0] // 32, 16, 2, whole.shape[1] // PANEL, 2, 16)
        return parts.permute(3, 0, 4, 1, 5, 2).contiguous()
    whole = F.pad(weight.float(), (0, -M % PANEL))
    return whole.view(K, -1, PANEL).transpose(0, 1).contiguous()


def _compiled(x: Tensor) -> Kernels | None:
    usable = x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float32)
    return _kernels() if usable else None


@functools.cache
def _kernels() -> Kernels | None:
    found = library(SOURCE)
    return None if found is None else Kernels(found)


@functools.cache
def _has_tiles() -> bool:
    """Whether products with bfloat16 matrices have units of their own in this processor."""
    found = library(SOURCE)
    return found is not None and bool(found.has_tiles())
