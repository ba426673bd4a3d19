"""The core: tokens in, hidden states out, under the visibility that the batch gives. It never sees a loss.

Read top-down. The published families differ in settings of this one file (`ModelConfig`): norms and where they stand,
positions, the feed-forward layer, biases, windows, an encoder before the decoder. Queries, keys and values are one
matrix, and so are the gate and the up-projection: one large product is faster than three small ones.

    Vaswani et al. 2017, arXiv:1706.03762 (transformer) · Devlin et al. 2019, arXiv:1810.04805 (bert) ·
    Radford et al. 2019 (gpt2: pre-norm) · Raffel et al. 2020, arXiv:1910.10683 (t5) ·
    Touvron et al. 2023, arXiv:2302.13971 (llama) · Warner et al. 2024, arXiv:2412.13663 (modernbert) ·
    Yang et al. 2025, arXiv:2505.09388 (qwen3: QK-norm)
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gristmill.model import ops
from gristmill.model.base import (
    Dropout,
    KeysValues,
    LayerNorm,
    Linear,
    Memory,
    Model,
    RMSNorm,
    Transform,
    draw_common,
    make_embedding,
    make_norm,
)
from gristmill.model.config import ModelConfig
from gristmill.model.ngrams import NgramEmbedding
from gristmill.model.visibility import Spans, is_text_order, window_mask, windowed_spans

__all__ = ["LayerNorm", "Rotary", "Transformer", "relative_buckets"]


@final
class Transformer(Model):
    """The one core, as decoder, encoder or encoder-decoder."""

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        D = config.width
        self.embedding = make_embedding(config.vocab_size, D)
        self.ngrams = NgramEmbedding(config.ngrams, D) if config.ngrams else None
        learned = config.positions == "learned"
        self.positions = make_embedding(config.maximum_positions, D) if learned else None
        self.token_types = make_embedding(config.token_types, D) if config.token_types else None
        self.embedding_norm = make_norm(config, D) if config.embedding_norm else None
        self.encoder = Stack(config, config.encoder_layers) if config.encoder_layers else None
        crossed = config.kind == "encoder-decoder"
        self.blocks = nn.ModuleList(Block(config, i, crossed=crossed) for i in range(config.layers))
        self.norm = make_norm(config, D) if config.norm_place == "pre" else None
        self.relative = make_relative(config)
        self.generator = Stack(config, config.generator_layers) if config.generator_layers else None
        self.transform = Transform(config) if config.head == "transform" else None
        self.output = None if config.tied else nn.Linear(D, config.vocab_size, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.output_bias else None
        self.pooler = nn.Linear(D, D) if config.pair_head else None
        self.pair = nn.Linear(D, 2) if config.pair_head else None
        self.detector = Detector(config) if config.generator_layers else None
        self._tables = PositionTables(config)

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

        Raises:
            ValueError: an encoder-decoder is not given what it read.
        """
        if self.encoder is not None and memory is None:
            raise ValueError(
                "an encoder-decoder writes about a source: memory = model.remember(model.encode(source))"
            )
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if mask is None and spans is None and self.config.kind == "encoder":
            spans = _everything(tokens, tokens.shape[1])
        dropout = Dropout(self.dropout if self.training else 0.0, dropout_seed)
        x = self._embed(tokens, positions, token_types, dropout)
        context = self._context(mask, spans, positions, self.relative, dropout)
        return self._through(self.blocks, self.norm, x, context, memory, caches)

    def encode(
        self,
        tokens: Int[Tensor, "B S"],
        *,
        spans: Spans | None = None,
        positions: Int[Tensor, "B S"] | None = None,
        dropout_seed: int = 0,
    ) -> Float[Tensor, "B S D"]:
        """Returns what the encoder of an encoder-decoder makes of a source; without spans every position sees all."""
        assert self.encoder is not None
        return self._read(self.encoder, tokens, spans, positions, dropout_seed)

    def remember(self, states: Float[Tensor, "B S D"], spans: Spans | None = None) -> Memory:
        """Returns what each layer of the decoder reads of an encoded source: keys and values, computed once."""
        return Memory([block.cross.keys_values(states) for block in self.blocks], spans)  # type: ignore[union-attr, operator]

    def propose(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        spans: Spans | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        dropout_seed: int = 0,
    ) -> Float[Tensor, "B T D"]:
        """Returns the generator's hidden states (Clark et al. 2020); it shares the embeddings with the model."""
        assert self.generator is not None
        return self._read(self.generator, tokens, spans, positions, dropout_seed)

    def pair_logits(self, first: Float[Tensor, "N D"]) -> Float[Tensor, "N 2"]:
        """Returns the scores of a pair's two classes from the hidden state of its first position (BERT's pooler)."""
        assert self.pooler is not None
        assert self.pair is not None
        pooled: Tensor = self.pair(torch.tanh(self.pooler(first.float())))
        return pooled

    def detect(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
        """Returns for each position the score of its token having been replaced."""
        assert self.detector is not None
        scores: Tensor = self.detector(hidden)
        return scores

    def fused_matrices(self) -> dict[str, list[int]]:
        """Returns the rows of each matrix in the parameters that hold several, one below the other."""
        c, fused = self.config, {}
        q, kv, F = c.heads * c.head_size, c.kv_heads * c.head_size, c.feed_forward
        for name, _ in self.named_parameters():
            if name.endswith("attention.qkv.weight"):
                fused[name] = [q, kv, kv]
            elif name.endswith("cross.kv.weight"):
                fused[name] = [kv, kv]
            elif name.endswith("feed_forward.up.weight") and c.gated:
                fused[name] = [F, F]
        return fused

    def reset_buffers(self, device: torch.device | None) -> None:
        """Computes what is not stored with the weights, after they were loaded into a model without memory."""
        self._tables = PositionTables(self.config)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights anew.

        Matrices that write to the residual stream start at zero, so that every block is the identity at first (as in
        modded-nanogpt, record 5). Rows of n-gram tables start at zero: those never seen say nothing. So do relative
        biases. Where scores are not divided by the square root of the head size, queries begin that much smaller
        (as in T5's published code).
        """
        written = ("attention.out.weight", "cross.out.weight", "feed_forward.down.weight")
        for name, parameter in self.named_parameters():
            if name.startswith("ngrams") or name.endswith((*written, "relative.weight")):
                parameter.zero_()
                continue
            draw_common(self, name, parameter, generator)
            if not self.config.attention_scale and name.endswith(("attention.qkv.weight", "cross.q.weight")):
                parameter[: self.config.heads * self.config.head_size] *= self.config.head_size**-0.5

    def _read(
        self, stack: "Stack", tokens: Tensor, spans: Spans | None, positions: Tensor | None, dropout_seed: int
    ) -> Tensor:
        """What a stack beside the model's own blocks makes of tokens; without spans every position sees all."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if spans is None:
            spans = _everything(tokens, tokens.shape[1])
        dropout = Dropout(self.dropout if self.training else 0.0, dropout_seed)
        x = self._embed(tokens, positions, None, dropout)
        context = self._context(None, spans, positions, stack.relative, dropout)
        return self._through(stack.blocks, stack.norm, x, context, None, None)

    def _embed(
        self, tokens: Tensor, positions: Tensor, token_types: Tensor | None, dropout: Dropout
    ) -> Tensor:
        x = self.embedding(tokens)
        if self.config.embedding_scale:
            x = x * math.sqrt(self.config.width)
        if self.ngrams is not None:
            x = x + self.ngrams(tokens, positions, dropout.seed)
        if self.positions is not None:
            x = x + self.positions(positions)
        if self.config.positions == "sinusoidal":
            x = x + self._tables.sinusoids(int(positions.max()) + 1, x.device)[positions]
        if self.token_types is not None:
            # the first row's gradient is the same wherever types are all 0
            x = x + self.token_types(torch.zeros_like(tokens) if token_types is None else token_types)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        # the sums above, and their gradients, are better off in the tables' precision
        return dropout(None, x.to(self.compute_dtype))

    def _context(
        self,
        mask: Tensor | None,
        spans: Spans | None,
        positions: Tensor,
        relative: "Relative | None",
        dropout: Dropout,
    ) -> "Context":
        length = int(positions.max()) + 1
        rotary = self.config.positions == "rotary"
        everywhere = Sight(
            mask, spans, self._tables.rotation(length, positions.device, local=False) if rotary else None
        )
        near = everywhere
        if window := self.config.window:
            if spans is not None and is_text_order(spans, positions):
                spans = windowed_spans(spans, window)
            else:
                assert mask is not None or spans is not None  # no decoder has windows
                close = window_mask(positions, window)
                mask = close if mask is None else mask & close
            rotation = self._tables.rotation(length, positions.device, local=True) if rotary else None
            near = Sight(mask, spans, rotation)
        return Context(everywhere, near, positions, relative, dropout)

    def _through(
        self,
        blocks: nn.ModuleList,
        norm: nn.Module | None,
        x: Tensor,
        context: "Context",
        memory: Memory | None,
        caches: Sequence[KeysValues] | None,
    ) -> Tensor:
        for layer, block in enumerate(blocks):
            x = block(
                x,
                context,
                None if caches is None else caches[layer],
                None if memory is None else (*memory.keys_values[layer], memory.spans),
            )
        return x if norm is None else norm(x)


@final
class Stack(nn.Module):
    """Blocks beside the model's own: the encoder of an encoder-decoder, or a generator."""

    def __init__(self, config: ModelConfig, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, i, crossed=False) for i in range(layers))
        self.norm = make_norm(config, config.width) if config.norm_place == "pre" else None
        both = dataclasses.replace(config, kind="encoder", encoder_layers=0)
        self.relative = make_relative(both)


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """What layers see, and by which angles they turn: layers that see everything, or those that see a window."""

    mask: Tensor | None
    spans: Spans | None
    rotation: tuple[Tensor, Tensor] | None
    shared: ops.Shared = dataclasses.field(default_factory=ops.Shared)


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What all blocks of one forward pass share."""

    everywhere: Sight
    near: Sight
    positions: Tensor
    relative: "Relative | None"
    dropout: Dropout
    to_source: ops.Shared = dataclasses.field(default_factory=ops.Shared)
    """What attention to the source has in common in all layers."""

    def bias(self, queries: int, keys: int) -> Float[Tensor, "H R"] | None:
        """Returns the biases that all layers add to their scores, where there are any."""
        if self.relative is None:
            return None
        biases: Tensor = self.everywhere.shared.once("bias", functools.partial(self.relative, queries, keys))
        return biases


@final
class Block(nn.Module):
    """Attention, attention to a source where there is one, and a feed-forward layer, each added to the stream.

    Pre-norm layers read a normalised stream (Xiong et al. 2020, arXiv:2002.04745); post-norm ones normalise the sum.
    """

    def __init__(self, config: ModelConfig, layer: int, *, crossed: bool) -> None:
        super().__init__()
        self.pre = config.norm_place == "pre"
        # embeddings that are normalised need not be once more (ModernBERT)
        bare = layer == 0 and config.embedding_norm and self.pre
        self.attention_norm = None if bare else make_norm(config, config.width)
        self.attention = Attention(config, local=config.is_local(layer))
        self.cross_norm = make_norm(config, config.width) if crossed else None
        self.cross = CrossAttention(config) if crossed else None
        self.feed_forward_norm = make_norm(config, config.width)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: Context,
        cache: KeysValues | None,
        memory: tuple[Tensor, Tensor, Spans | None] | None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the stream after this block."""
        inner = self.attention(self._before(self.attention_norm, x), context, cache)
        x = self._after(self.attention_norm, context.dropout(x, inner))
        if self.cross is not None:
            assert memory is not None  # `Transformer.forward` has asked for it
            inner = self.cross(self._before(self.cross_norm, x), *memory, context.to_source)
            x = self._after(self.cross_norm, context.dropout(x, inner))
        inner = self.feed_forward(self._before(self.feed_forward_norm, x))
        return self._after(self.feed_forward_norm, context.dropout(x, inner))

    def _before(self, norm: nn.Module | None, x: Tensor) -> Tensor:
        return norm(x) if self.pre and norm is not None else x

    def _after(self, norm: nn.Module | None, x: Tensor) -> Tensor:
        return x if self.pre or norm is None else norm(x)


@final
class Attention(nn.Module):
    """Multi-head attention, with fewer heads for keys and values where `kv_heads` says so.

    With 4 heads and 2 kv_heads, queries 0 and 1 read keys 0, queries 2 and 3 read keys 1
    (Ainslie et al. 2023, arXiv:2305.13245).
    """

    def __init__(self, config: ModelConfig, *, local: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.epsilon = config.heads, config.kv_heads, config.norm_epsilon
        self.scale = None if config.attention_scale else 1.0
        self.local = local
        inner = config.heads * config.head_size
        self.qkv = Linear(config.width, inner + 2 * config.kv_heads * config.head_size, bias=config.bias)
        self.out = Linear(inner, config.width, bias=config.bias)
        self.query_norm = RMSNorm(config.head_size, config.norm_epsilon) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_size, config.norm_epsilon) if config.qk_norm else None

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: KeysValues | None
    ) -> Float[Tensor, "B T D"]:
        """Returns what each position gathers from those that it may see."""
        sight = context.near if self.local else context.everywhere
        gains = None
        if self.query_norm is not None and self.key_norm is not None:
            gains = (self.query_norm.weight, self.key_norm.weight)
        q, k, v = ops.split_heads(
            self.qkv(x),
            heads=self.heads,
            kv_heads=self.kv_heads,
            gains=gains,
            epsilon=self.epsilon,
            rotation=sight.rotation,
            positions=context.positions,
        )
        if cache is not None:
            k, v = cache.append(k, v)
        bias = context.bias(q.shape[2], k.shape[2])
        y = ops.attend(
            q, k, v, mask=sight.mask, spans=sight.spans, bias=bias, scale=self.scale, shared=sight.shared
        )
        gathered: Tensor = self.out(y)
        return gathered


@final
class CrossAttention(nn.Module):
    """Attention from what is written to what was read (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_size
        self.scale = None if config.attention_scale else 1.0
        inner = config.heads * config.head_size
        self.q = Linear(config.width, inner, bias=config.bias)
        self.kv = Linear(config.width, 2 * config.kv_heads * config.head_size, bias=config.bias)
        self.out = Linear(inner, config.width, bias=config.bias)

    def keys_values(
        self, states: Float[Tensor, "B S D"]
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
        """Returns the keys and values of encoded positions."""
        B, S, _ = states.shape
        kv = self.kv(states).view(B, S, 2 * self.kv_heads, self.head_size)
        k, v = kv.transpose(1, 2).chunk(2, dim=1)
        return k, v

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        keys: Float[Tensor, "B G S K"],
        values: Float[Tensor, "B G S K"],
        spans: Spans | None,
        shared: ops.Shared,
    ) -> Float[Tensor, "B T D"]:
        """Returns what each target position gathers from the source positions that it may see."""
        B, T, _ = x.shape
        q = self.q(x).view(B, T, self.heads, self.head_size).transpose(1, 2)
        if spans is None:
            spans = _everything(x[..., 0], keys.shape[2])
        y = ops.attend(q, keys, values, spans=spans, scale=self.scale, shared=shared)
        gathered: Tensor = self.out(y)
        return gathered


@final
class FeedForward(nn.Module):
    """Two matrices with a non-linearity between them, or a gate (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation, self.gated = config.activation, config.gated
        self.up = Linear(config.width, config.feed_forward * (2 if self.gated else 1), bias=config.bias)
        self.down = Linear(config.feed_forward, config.width, bias=config.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Returns the layer's output for each position on its own."""
        inner = self.up(x)
        inner = ops.gated(inner, self.activation) if self.gated else ops.activate(inner, self.activation)
        outer: Tensor = self.down(inner)
        return outer


@final
class Detector(nn.Module):
    """Tells from a hidden state whether its token was replaced (Clark et al. 2020, arXiv:2003.10555)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.prediction = nn.Linear(config.width, 1)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
        """Returns a score for each position, in float32."""
        inner = F.gelu(self.dense(x.to(self.dense.weight.dtype)))
        scores: Tensor = self.prediction(inner)[..., 0]
        return scores.float()


class PositionTables:
    """Tables that follow from positions alone, computed once and grown on demand."""

    def __init__(self, config: ModelConfig) -> None:
        self._width = config.width
        bases = {False: config.rotary_base, True: config.local_rotary_base or config.rotary_base}
        self._rotary = (
            {local: Rotary(config.head_size, base) for local, base in bases.items()}
            if config.positions == "rotary"
            else {}
        )
        self._sinusoids = torch.empty(0, config.width)

    def rotation(self, length: int, device: torch.device, *, local: bool) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines of the angles of positions below `length`."""
        return self._rotary[local](length, device)

    def sinusoids(self, length: int, device: torch.device) -> Float[Tensor, "P D"]:
        """Returns the sinusoidal positions (Vaswani et al. 2017, section 3.5): all sines, then all cosines.

        The paper alternates them; the two differ in the order of coordinates alone, and Marian's order is taken.
        """
        if len(self._sinusoids) < length or self._sinusoids.device != device:
            size = 1 << max(length - 1, 255).bit_length()
            columns = torch.arange(0, self._width, 2, dtype=torch.float64)
            angles = torch.outer(
                torch.arange(size, dtype=torch.float64), 10_000.0 ** (-columns / self._width)
            )
            self._sinusoids = (
                torch.cat([angles.sin(), angles.cos()], dim=1)[:, : self._width].float().to(device)
            )
        return self._sinusoids


class Rotary:
    """Cosines and sines of rotary positions (Su et al. 2021, arXiv:2104.09864), computed once and grown on demand."""

    def __init__(self, head_size: int, base: float) -> None:
        exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device="cpu") / head_size
        self._frequencies = 1.0 / (base**exponents)
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


@final
class Relative(nn.Module):
    """Biases of attention scores by distance (Raffel et al. 2020, section 2.1), shared by all layers of a stack."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.relative_buckets, config.heads))
        self.both_ways = config.kind == "encoder"
        self.distance = config.relative_distance

    def forward(self, queries: int, keys: int) -> Float[Tensor, "H R"]:
        """Returns the bias of each head and distance, for the last `queries` of `keys` positions.

        Column r is for a key that stands r - keys + 1 positions after its query.
        """
        distances = torch.arange(queries + keys - 1, device=self.weight.device) - keys + 1
        buckets = relative_buckets(
            distances, buckets=len(self.weight), distance=self.distance, both_ways=self.both_ways
        )
        return self.weight[buckets].T


def make_relative(config: ModelConfig) -> Relative | None:
    """Returns the relative biases of a stack, where the config has them."""
    return Relative(config) if config.positions == "relative" else None


def relative_buckets(
    distances: Int[Tensor, " R"], *, buckets: int, distance: int, both_ways: bool
) -> Int[Tensor, " R"]:
    """Returns the bucket of each distance (key minus query): exact when near, by its logarithm when far.

    Half of the buckets hold one distance each, the others grow up to `distance`; what is farther shares the last
    one. An encoder has half of them for keys before the query and half for those after it; for a decoder, which sees
    nothing after it, all are for those before (Raffel et al. 2020, section 2.1, and T5's published code).
    """
    offset = torch.zeros_like(distances)
    if both_ways:
        buckets //= 2
        offset = (distances > 0).long() * buckets
        away = distances.abs()
    else:
        away = (-distances).clamp(min=0)
    exact = buckets // 2
    far = exact + (
        (away.float().clamp(min=1) / exact).log() / math.log(distance / exact) * (buckets - exact)
    ).long().clamp(max=buckets - exact - 1)
    return offset + torch.where(away < exact, away, far)


def _everything(tokens: Tensor, keys: int) -> Spans:
    shape = tokens.shape
    return (
        torch.zeros(shape, dtype=torch.int32, device=tokens.device),
        torch.full(shape, keys, dtype=torch.int32, device=tokens.device),
    )
