"""The core: tokens in, hidden states out, under the visibility that the batch gives. It never sees a loss.

Read top-down. The published families differ in settings of this one file (`ModelConfig`): the norm, the
positions, the feed-forward layer, biases. Queries, keys and values are one matrix, and so are the gate and the
up-projection: one large product is faster than three small ones.

    Vaswani et al. 2017, arXiv:1706.03762 (attention) · Radford et al. 2019 (gpt2: pre-norm) ·
    Touvron et al. 2023, arXiv:2302.13971 (llama) · Yang et al. 2025, arXiv:2505.09388 (qwen3: QK-norm)
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor, nn

from gristmill.batch import Visibility
from gristmill.model import ops
from gristmill.model.config import ModelConfig
from gristmill.model.ngrams import NgramEmbedding

__all__ = ["KeysValues", "Transformer", "attention_mask", "segment_positions", "segment_starts"]


@runtime_checkable
class KeysValues(Protocol):
    """Where one layer keeps the keys and values of earlier positions."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values (B, H, T, K) and returns those of all positions so far."""


@final
class Transformer(nn.Module):
    """The one core. `model(tokens)` gives hidden states; `model.logits(hidden)` gives scores over the vocabulary."""

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.ngrams = NgramEmbedding(config.ngrams, config.width) if config.ngrams else None
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.maximum_positions, config.width) if learned else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = make_norm(config, config.width)
        self.output = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        self._rotary = None if learned else Rotary(config)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B 1 T S"] | None = None,
        starts: Int32[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        caches: Sequence[KeysValues] | None = None,
        dropout_seed: int = 0,
    ) -> Float[Tensor, "B T D"]:
        """Returns the hidden state of every position, normalised, ready for `logits`.

        Args:
            tokens: ids below `config.vocab_size`.
            mask: True where a position (T) may look at another (S), from `attention_mask`. None is causal attention.
            starts: for causal attention in packed rows: the first position that each one sees, from
                `segment_starts`. It says the same as a mask, and costs less.
            positions: where each token stands in its document; None is 0, 1, 2, ...
            caches: one for each layer when decoding; S then counts the cached positions too.
            dropout_seed: what dropout drops in training is a function of this number.
        """
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        x = self.embedding(tokens)
        if self.ngrams is not None:
            x = x + self.ngrams(tokens, positions, dropout_seed)
        if self.positions is not None:
            x = x + self.positions(positions)
        x = x.to(
            self.compute_dtype
        )  # the sums above, and their gradients, are better off in the tables' precision
        rotation = None if self._rotary is None else self._rotary(int(positions.max()) + 1, x.device)
        dropout = Dropout(self.dropout if self.training else 0.0, dropout_seed)
        x = dropout(None, x)
        context = Context(mask, starts, positions, rotation, dropout)
        for layer, block in enumerate(self.blocks):
            x = block(x, context, None if caches is None else caches[layer])
        hidden: Tensor = self.norm(x)
        return hidden

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Returns scores over the vocabulary; call it only for the positions whose scores are needed."""
        return F.linear(hidden, self.output_weight.to(hidden.dtype))

    @property
    def output_weight(self) -> Float[Tensor, "V D"]:
        """The output matrix, which is the token embedding where they are tied."""
        return self.embedding.weight if self.output is None else self.output.weight

    @property
    def compute_dtype(self) -> torch.dtype:
        """The storage type of the matrices, and so of the activations; embeddings and norms may be wider."""
        return next(p.dtype for name, p in self.blocks.named_parameters() if name.endswith("out.weight"))

    def fused_matrices(self) -> dict[str, list[int]]:
        """Returns the rows of each matrix in the parameters that hold several, one below the other."""
        c, fused = self.config, {}
        for i in range(c.layers):
            fused[f"blocks.{i}.attention.qkv.weight"] = [
                n * c.head_size for n in (c.heads, c.kv_heads, c.kv_heads)
            ]
            if c.activation == "swiglu":
                fused[f"blocks.{i}.feed_forward.up.weight"] = [c.feed_forward, c.feed_forward]
        return fused

    def reset_buffers(self, device: torch.device | None) -> None:
        """Computes what is not stored with the weights, after they were loaded into a model without memory."""
        if self._rotary is not None:
            self._rotary = Rotary(self.config)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights anew.

        Matrices are normal with standard deviation 1/sqrt(inputs); those that write to the residual stream start
        at zero, so that every block is the identity at first (as in modded-nanogpt, record 5). A token embedding of
        its own has deviation 1; one that is the output matrix too has 0.02, for at first every token predicts itself.
        Rows of n-gram tables start at zero: those never seen say nothing.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.startswith("ngrams") or name.endswith(
                ("attention.out.weight", "feed_forward.down.weight")
            ):
                parameter.zero_()
            elif name.startswith("embedding"):
                parameter.normal_(0.0, 0.02 if self.config.tied else 1.0, generator=generator)
            elif name.startswith("positions"):
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What all blocks of one forward pass share."""

    mask: Tensor | None
    starts: Tensor | None
    positions: Tensor
    rotation: tuple[Tensor, Tensor] | None
    dropout: "Dropout"


class Dropout:
    """Dropout on what is added to the residual stream; each use in a pass draws its own numbers."""

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.seed, self.uses = rate, seed, 0

    def __call__(self, x: Tensor | None, branch: Tensor) -> Tensor:
        """Returns x + dropout(branch), or dropout(branch) alone."""
        if self.rate == 0.0:
            return branch if x is None else x + branch
        self.uses += 1
        return ops.dropout_add(
            torch.zeros_like(branch) if x is None else x, branch, self.rate, self.seed + self.uses
        )


@final
class Block(nn.Module):
    """Attention and a feed-forward layer, each reading a normalised stream and adding to it (pre-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config, config.width)
        self.attention = Attention(config)
        self.feed_forward_norm = make_norm(config, config.width)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: KeysValues | None
    ) -> Float[Tensor, "B T D"]:
        """Returns the stream after this block."""
        x = context.dropout(x, self.attention(self.attention_norm(x), context, cache))
        return context.dropout(x, self.feed_forward(self.feed_forward_norm(x)))


@final
class Attention(nn.Module):
    """Multi-head attention, with fewer heads for keys and values where `kv_heads` says so.

    With 4 heads and 2 kv_heads, queries 0 and 1 read keys 0, queries 2 and 3 read keys 1
    (Ainslie et al. 2023, arXiv:2305.13245).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.epsilon = config.heads, config.kv_heads, config.norm_epsilon
        inner = config.heads * config.head_size
        self.qkv = nn.Linear(config.width, inner + 2 * config.kv_heads * config.head_size, bias=config.bias)
        self.out = nn.Linear(inner, config.width, bias=config.bias)
        self.query_norm = RMSNorm(config.head_size, config.norm_epsilon) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_size, config.norm_epsilon) if config.qk_norm else None

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: KeysValues | None
    ) -> Float[Tensor, "B T D"]:
        """Returns what each position gathers from those that it may see."""
        gains = None
        if self.query_norm is not None and self.key_norm is not None:
            gains = (self.query_norm.weight, self.key_norm.weight)
        q, k, v = ops.split_heads(
            ops.linear(x, self.qkv.weight, self.qkv.bias),
            heads=self.heads,
            kv_heads=self.kv_heads,
            gains=gains,
            epsilon=self.epsilon,
            rotation=context.rotation,
            positions=context.positions,
        )
        if cache is not None:
            k, v = cache.append(k, v)
        y = ops.attend(q, k, v, mask=context.mask, starts=context.starts)
        return ops.linear(y, self.out.weight, self.out.bias)


@final
class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202), or GELU in its tanh approximation as in GPT-2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        self.up = nn.Linear(config.width, config.feed_forward * (2 if self.gated else 1), bias=config.bias)
        self.down = nn.Linear(config.feed_forward, config.width, bias=config.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Returns the layer's output for each position on its own."""
        inner = ops.linear(x, self.up.weight, self.up.bias)
        inner = ops.swiglu(inner) if self.gated else F.gelu(inner, approximate="tanh")
        return ops.linear(inner, self.down.weight, self.down.bias)


@final
class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Returns x normalised over its last axis, stored as x is."""
        return ops.rms_norm(x, self.weight, self.epsilon)


@final
class LayerNorm(nn.Module):
    """(x - mean) / deviation * weight + bias (Ba et al. 2016, arXiv:1607.06450), computed in float32."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Returns x normalised over its last axis, stored as x is."""
        return F.layer_norm(x.float(), x.shape[-1:], self.weight.float(), self.bias.float(), self.epsilon).to(
            x.dtype
        )


class Rotary:
    """Cosines and sines of rotary positions (Su et al. 2021, arXiv:2104.09864), computed once and grown on demand."""

    def __init__(self, config: ModelConfig) -> None:
        exponents = torch.arange(0, config.head_size, 2, dtype=torch.float32, device="cpu") / config.head_size
        self._frequencies = 1.0 / (config.rotary_base**exponents)
        self._tables: tuple[Tensor, Tensor] | None = None

    def __call__(
        self, length: int, device: torch.device
    ) -> tuple[Float[Tensor, "P K2"], Float[Tensor, "P K2"]]:
        """Returns two tables with a row for each position below `length` (or more) and a column for each pair."""
        if self._tables is None or len(self._tables[0]) < length or self._tables[0].device != device:
            # float32 whatever the weights are: in bfloat16 positions beyond 256 are no longer distinct
            size = 1 << max(length - 1, 255).bit_length()
            angles = torch.outer(torch.arange(size, dtype=torch.float32), self._frequencies)
            self._tables = angles.cos().to(device), angles.sin().to(device)
        return self._tables


def make_norm(config: ModelConfig, size: int) -> nn.Module:
    """Returns the norm that the config names."""
    return (
        RMSNorm(size, config.norm_epsilon) if config.norm == "rms" else LayerNorm(size, config.norm_epsilon)
    )


def attention_mask(segments: Int[Tensor, "B T"], visibility: Visibility) -> Bool[Tensor, "B 1 T T"] | None:
    """Returns who may look at whom, or None where that is plain causal attention over whole rows.

    Positions see their own segment only. Padding (segment 0) sees itself: a softmax over nothing would be
    uniform over everything, and no loss curve shows that.
    """
    whole = bool((segments == segments[:, :1]).all()) and bool((segments != 0).all())
    if whole and visibility is Visibility.CAUSAL:
        return None
    T = segments.shape[1]
    visible = segments[:, :, None] == segments[:, None, :]
    visible &= (segments != 0)[:, None, :]
    if visibility is Visibility.CAUSAL:
        visible &= torch.ones(T, T, dtype=torch.bool, device=segments.device).tril()
    visible |= torch.eye(T, dtype=torch.bool, device=segments.device)
    return visible[:, None]


def segment_positions(segments: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Returns each position's distance from the start of its segment: [1,1,1,2,2,0] -> [0,1,2,0,1,0]."""
    T = segments.shape[1]
    index = torch.arange(T, device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    # padding stands nowhere: however long it is, a table of learned positions has a row for it
    return (index - (index * starts).cummax(dim=1).values).masked_fill(segments == 0, 0)


def segment_starts(segments: Int[Tensor, "B T"]) -> Int32[Tensor, "B T"]:
    """Returns the first position of each position's segment: [1,1,1,2,2,0] -> [0,0,0,3,3,5]. Padding sees itself."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    return torch.where(segments == 0, index, index - segment_positions(segments)).to(torch.int32)
