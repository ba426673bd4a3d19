"""The recurrent baselines: LSTM and GRU language models, which carry in a state what attention looks up again.

Each block passes a state over the normalised stream, and adds a projection of it to the stream, so that nothing but
the recurrence differs from what surrounds attention in `transformer.py`:

    x = x + dropout(out(recurrence(norm(x))))

Stacked as in Zaremba et al. 2014 (arXiv:1409.2329) and AWD-LSTM (Merity et al. 2018, arXiv:1708.02182), layer on
layer without norms and sums, the same weights learn far more slowly here: 1.64 against 1.20 nats per byte after 200
steps of 4,096 bytes of the English demo text (LSTM of width 128, 444 thousand parameters, Muon; with norms alone 1.21,
with sums of a state as wide as the stream and no projection 1.23; a GRU 1.18, a Transformer of 460 thousand 1.23).
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gristmill.errors import InputError
from gristmill.model import ops
from gristmill.model.base import Dropout, KeysValues, Memory, Model, draw_common, make_embedding, make_norm
from gristmill.model.config import ModelConfig
from gristmill.model.family import Family
from gristmill.model.recurrence import Runs, find_runs, gru, lstm
from gristmill.model.visibility import Spans

__all__ = ["GRU", "LSTM", "Cell", "Recurrent", "States", "recurrent_family"]

States = tuple[tuple[Float[Tensor, "N H"], ...], ...]
"""What each layer carries from one position to the next, in float32: an LSTM's output and cell, a GRU's output."""


@final
class Recurrent(Model):
    """A language model with a state instead of attention; it sees only what stands before."""

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        if config.ngrams is not None:
            raise InputError(
                f'the family "{config.family}" has no n-gram embeddings here', "leave model.ngrams out"
            )
        self.config = config
        self.dropout = dropout
        D = config.width
        self.embedding = make_embedding(config.vocab_size, D)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = make_norm(config, D)
        self.transform = None
        self.output = None if config.tied else nn.Linear(D, config.vocab_size, bias=False)
        self.output_bias = None

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B 1 T S"] | None = None,
        spans: Spans | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        token_types: Int[Tensor, "B T"] | None = None,
        memory: Memory | None = None,
        caches: Sequence[KeysValues] | None = None,
        dropout_seed: int = 0,
    ) -> Float[Tensor, "B T D"]:
        """Returns the hidden state of every position (see `Model.forward`).

        `spans` say where the state starts from zero; positions are not needed, and there is nothing to cache.

        Raises:
            InputError: a position is to see what stands after it, or what no state holds.
        """
        if mask is not None or memory is not None or caches is not None:
            raise InputError(
                f'the family "{self.config.family}" has no attention, so nothing can be masked, read or cached',
                'use the family "qwen3"',
            )
        if spans is None:
            first = torch.zeros_like(tokens, dtype=torch.int32)
        else:
            first, last = spans
            after = torch.arange(1, tokens.shape[1] + 1, device=last.device)
            if not bool((last == after).all()):
                raise InputError(
                    f'the family "{self.config.family}" sees only what stands before a position',
                    'use objective "causal", or another family',
                )
        hidden, _ = self.read(tokens, find_runs(first), dropout_seed=dropout_seed)
        return hidden

    def read(
        self, tokens: Int[Tensor, "B T"], runs: Runs, *, dropout_seed: int = 0
    ) -> tuple[Float[Tensor, "B T D"], States]:
        """Returns the hidden state of every position, and what the layers carry at the end of each run."""
        dropout = Dropout(self.dropout if self.training else 0.0, dropout_seed)
        x = dropout(None, self.embedding(tokens).to(self.compute_dtype))
        states = []
        for block in self._blocks:
            y, state = block.recurrence(block.norm(x), runs)
            x = dropout(x, ops.linear(y, block.recurrence.out.weight, None))
            states.append(state)
        return self.norm(x), tuple(states)

    def step(self, tokens: Int[Tensor, " N"], states: States) -> tuple[Float[Tensor, "N D"], States]:
        """Returns the hidden state of one more token of each sequence, and what the layers carry then."""
        x, after = self.embedding(tokens).to(self.compute_dtype), []
        for block, state in zip(self._blocks, states, strict=True):
            carried = block.recurrence.step(block.norm(x), state)
            x = x + F.linear(carried[0].to(x.dtype), block.recurrence.out.weight)
            after.append(carried)
        return self.norm(x), tuple(after)

    def fused_matrices(self) -> dict[str, list[int]]:
        """Returns the rows of each matrix in the parameters that hold several: those of the gates."""
        H = self.config.feed_forward
        return {
            name: [H] * (len(parameter) // H)
            for name, parameter in self.named_parameters()
            if name.endswith(("recurrence.input.weight", "recurrence.state.weight"))
        }

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights anew.

        Projections to the stream start at zero, so that every block is the identity at first. An LSTM's forget gates
        start open: with a bias of 1 (Jozefowicz et al. 2015, section 2.2).
        """
        for name, parameter in self.named_parameters():
            if name.endswith("out.weight"):
                parameter.zero_()
            else:
                draw_common(self, name, parameter, generator)
        H = self.config.feed_forward
        for block in self._blocks:
            if isinstance(block.recurrence, LSTM):
                block.recurrence.input.bias[H : 2 * H] = 1.0

    @property
    def _blocks(self) -> "list[Block]":
        return cast("list[Block]", list(self.blocks))


@final
class Block(nn.Module):
    """One layer: a norm, and a recurrence whose output goes back into the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = make_norm(config, config.width)
        cell = {"lstm": LSTM, "gru": GRU}[config.core]
        self.recurrence: Cell = cell(config.width, config.feed_forward)


class Cell(nn.Module, abc.ABC):
    """Abstract. A recurrence from inputs of one size to a state of another, and the projection back."""

    def __init__(self, inputs: int, size: int, *, gates: int) -> None:
        super().__init__()
        # the gates' rows one below the other, and two matrices: the first is multiplied for all positions at once
        self.input = nn.Linear(inputs, gates * size)
        self.state = nn.Linear(size, gates * size, bias=False)
        self.out = nn.Linear(size, inputs, bias=False)

    @abc.abstractmethod
    def forward(
        self, x: Float[Tensor, "B T D"], runs: Runs
    ) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "N H"], ...]]:
        """Returns its output at each position, and what it carries at the end of each run."""

    @abc.abstractmethod
    def step(
        self, x: Float[Tensor, "N D"], state: tuple[Float[Tensor, "N H"], ...]
    ) -> tuple[Float[Tensor, "N H"], ...]:
        """Returns what it carries after one more position; the output is the first of it."""


@final
class LSTM(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997) with forget gates; the equations are in `lstm`."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__(inputs, size, gates=4)

    def forward(
        self, x: Float[Tensor, "B T D"], runs: Runs
    ) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "N H"], ...]]:
        """Returns its output at each position, and output and cell at the end of each run."""
        return lstm(
            x,
            runs,
            input_weight=self.input.weight,
            input_bias=self.input.bias,
            state_weight=self.state.weight,
        )

    def step(
        self, x: Float[Tensor, "N D"], state: tuple[Float[Tensor, "N H"], ...]
    ) -> tuple[Float[Tensor, "N H"], ...]:
        """Returns output and cell after one more position."""
        h, c = state
        said = F.linear(x, self.input.weight, self.input.bias.to(x.dtype))
        gates = said + F.linear(h.to(x.dtype), self.state.weight)
        i, f, g, o = gates.float().chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


@final
class GRU(Cell):
    """The gated recurrent unit (Cho et al. 2014, arXiv:1406.1078); the equations are in `gru`."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__(inputs, size, gates=3)
        self.state_bias = nn.Parameter(torch.zeros(size))

    def forward(
        self, x: Float[Tensor, "B T D"], runs: Runs
    ) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "N H"], ...]]:
        """Returns its output at each position, and the same at the end of each run."""
        return gru(
            x,
            runs,
            input_weight=self.input.weight,
            input_bias=self.input.bias,
            state_weight=self.state.weight,
            state_bias=self.state_bias,
        )

    def step(
        self, x: Float[Tensor, "N D"], state: tuple[Float[Tensor, "N H"], ...]
    ) -> tuple[Float[Tensor, "N H"], ...]:
        """Returns its output after one more position."""
        (h,) = state
        said = F.linear(x, self.input.weight, self.input.bias.to(x.dtype)).float()
        kept = F.linear(h.to(x.dtype), self.state.weight).float()
        H = h.shape[-1]
        r, z = torch.sigmoid(said[:, : 2 * H] + kept[:, : 2 * H]).chunk(2, dim=-1)
        n = torch.tanh(said[:, 2 * H :] + r * (kept[:, 2 * H :] + self.state_bias))
        return (n + z * (h - n),)


def recurrent_family(core: Literal["lstm", "gru"], *, state_ratio: float) -> Family:
    """Returns the family of a recurrence, which has no class in transformers to be exported to.

    Args:
        core: the recurrence.
        state_ratio: the size of the state, in widths. It is `feed_forward` in the config; heads, windows and
            activations are settings of attention, and mean nothing here.
    """

    def refuse(*_: object) -> NoReturn:
        raise InputError(
            f'the family "{core}" has no class in transformers, so nothing can be exported to it or imported from it',
            "use it with gristmill (generate, chat, evaluate), or take a family with attention",
        )

    fixed: Mapping[str, Any] = {
        "core": core, "norm": "rms", "norm_epsilon": 1e-6, "positions": "none", "rotary_base": 10_000.0,
        "activation": "gelu", "bias": True, "qk_norm": False,
    }  # fmt: skip
    return Family(
        fixed=fixed,
        kind="decoder",
        feed_forward_ratio=state_ratio,
        head_size_is_width_over_heads=False,
        architecture=refuse,
        to_config=refuse,
        from_config=refuse,
        to_state=refuse,
        from_state=refuse,
    )
