"""Decoding as two pure steps over an explicit state: `prefill` reads the prompts, `decode_one_token` goes on.

    decoder = prepare(model)
    logits, state = prefill(decoder, [[1, 17, 4], [1, 9]], room_tokens=100)
    logits, state = decode_one_token(decoder, state, logits.argmax(-1))

A recurrent model carries its state (`recurrent.py`); the rest of this file is the Transformer's way.

Rows of different lengths are padded on the left, so that the newest token of every row stands in the same column
of the cache: it is written in place and read as a view. Everything that does not depend on the layer (rotary
angles times the weights of QK-norm) is computed once per token for all layers, and one token has no module calls:
at these sizes PyTorch's cost per call is what there is to save (benchmarks/decoding.py).

Context: a model sees at most `maximum_positions` tokens. A sequence that outgrows them loses its oldest tokens,
half a window at a time (`context_start`), and what is left is read again from position 0.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gristmill.batch import Visibility
from gristmill.errors import InputError
from gristmill.generate.native import NativeStep, native_step
from gristmill.model.base import Model
from gristmill.model.ngrams import ngram_rows
from gristmill.model.transformer import LayerNorm, Rotary, Transformer
from gristmill.model.visibility import segment_positions, segment_spans

__all__ = [
    "Decoder",
    "State",
    "context_start",
    "decode_one_token",
    "keep_rows",
    "prefill",
    "prepare",
]

Function = Callable[[Tensor], Tensor]
Adder = Callable[[Tensor, Tensor], Tensor]


class State(abc.ABC):
    """Abstract. Where a batch of sequences stands. Decoding may write into its tensors: use the newest state only."""

    __slots__ = ()

    lengths: tuple[int, ...]
    """Tokens of each sequence so far, also those that are no longer in its context."""

    @abc.abstractmethod
    def keep_rows(self, rows: Sequence[int]) -> "State":
        """Returns the state of some of the sequences."""


class Decoder(abc.ABC):
    """Abstract. A model prepared for decoding. It reads the model's weights as they were when it was prepared."""

    __slots__ = ()

    model: Model

    @property
    @abc.abstractmethod
    def window(self) -> int | None:
        """How many tokens it sees at most; None where there is no limit."""

    @abc.abstractmethod
    def prefill(
        self, sequences: Sequence[Sequence[int]], *, room_tokens: int
    ) -> tuple[Float[Tensor, "B V"], State]:
        """Returns the scores of what comes after each sequence, and where they stand."""

    @abc.abstractmethod
    def decode_one_token(self, state: State, tokens: Int[Tensor, " B"]) -> tuple[Float[Tensor, "B V"], State]:
        """Returns the scores of what comes after one more token of each sequence, and where they stand then."""


def prepare(model: Model) -> Decoder:
    """Returns a decoder-only model as what decoding one token needs.

    Raises:
        InputError: the model is of another kind.
    """
    if model.config.kind != "decoder":
        article = "an" if model.config.kind[0] in "aeiou" else "a"
        raise InputError(
            f"{article} {model.config.kind} does not continue texts", "let it fill gaps: `gristmill fill`"
        )
    if isinstance(model, Transformer):
        return _prepare(model)
    from gristmill.generate.recurrent import RecurrentDecoder
    from gristmill.model.recurrent import Recurrent

    assert isinstance(model, Recurrent)
    return RecurrentDecoder(model)


@torch.inference_mode()
def prefill(
    decoder: Decoder, sequences: Sequence[Sequence[int]], *, room_tokens: int
) -> tuple[Float[Tensor, "B V"], State]:
    """Reads whole sequences (at least one token each) and returns the scores of what comes after each.

    Args:
        decoder: from `prepare`.
        sequences: token ids; what no longer fits the context is left out.
        room_tokens: how many tokens will be decoded at most; more than two windows are never held.
    """
    return decoder.prefill(sequences, room_tokens=room_tokens)


@torch.inference_mode()
def decode_one_token(
    decoder: Decoder, state: State, tokens: Int[Tensor, " B"]
) -> tuple[Float[Tensor, "B V"], State]:
    """Adds one token to each sequence and returns the scores of what comes after it."""
    return decoder.decode_one_token(state, tokens)


@torch.inference_mode()
def keep_rows(state: State, rows: Sequence[int]) -> State:
    """Returns the state of some of the sequences, for when others are finished."""
    return state.keep_rows(rows)


def context_start(length: int, window: int) -> int:
    """Returns how many of a sequence's oldest tokens no longer fit the window: whole halves, as few as possible.

    With a window of 8: 0 for lengths up to 8, then 4 for 9 to 12, 8 for 13 to 16.
    """
    step = max(1, window // 2)
    return max(0, -(-(length - window) // step) * step)


# --- the Transformer ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One block as functions of (B, D) tensors: views of the model's weights, no copies."""

    attention_norm: Function
    qkv: Function
    attention_out: Adder
    """(stream, gathered) -> the stream with attention's output added."""
    feed_forward_norm: Function
    up: Function
    down: Adder


@dataclasses.dataclass(frozen=True, slots=True)
class Rotation:
    """Rotary positions and QK-norm for all layers at once (N query and key heads)."""

    cosines: Float[Tensor, "P K"]
    sines: Float[Tensor, "P K"]
    """With the sign of the turn: the first half is negative."""
    straight: Float[Tensor, "L 1 N K"]
    """What QK-norm's weights contribute at each layer to an element's own part."""
    crossed: Float[Tensor, "L 1 N K"]
    """What they contribute to the part that comes from the other half of the head."""
    epsilon: Tensor | None
    """sqrt(K * epsilon) of QK-norm, or None where a model has none."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class AttentionDecoder(Decoder):
    """A Transformer prepared for decoding."""

    model: Transformer
    layers: tuple[Layer, ...]
    norm: Function
    rotation: Rotation | None
    native: NativeStep | None
    """The same step for a single sequence as one call of compiled code, where this machine has it."""

    @property
    def window(self) -> int:
        """How many tokens it sees at most."""
        return self.model.config.maximum_positions

    def prefill(
        self, sequences: Sequence[Sequence[int]], *, room_tokens: int
    ) -> tuple[Float[Tensor, "B V"], State]:
        """Returns the scores of what comes after each sequence, and a cache of what was read."""
        return _prefill(self, sequences, room_tokens=room_tokens)

    def decode_one_token(self, state: State, tokens: Int[Tensor, " B"]) -> tuple[Float[Tensor, "B V"], State]:
        """Returns the scores of what comes after one more token of each sequence, and the cache with it."""
        assert isinstance(state, AttentionState)
        return _decode_one_token(self, state, tokens)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class AttentionState(State):
    """Keys and values of what was read. `decode_one_token` writes into its tensors: use the newest state only."""

    cache: tuple[Float[Tensor, "B N S K"], ...]
    """For each layer the keys, then the values, of every column (N is twice the key heads)."""
    tokens: Int[Tensor, "B S"]
    padding: tuple[int, ...]
    """Columns of padding before each row's context."""
    lengths: tuple[int, ...]
    """Tokens of each sequence so far, also those that are no longer in its context."""
    column: int
    """Columns that are filled."""
    starts: Int[Tensor, " B"]
    """`padding` as a tensor."""
    mask: Float[Tensor, "B 1 1 S"] | None
    """0 where a row's context is, minus infinity in its padding; None where no row has any."""

    def keep_rows(self, rows: Sequence[int]) -> "AttentionState":
        """Returns the state of some of the sequences."""
        index = torch.tensor(rows, device=self.tokens.device)
        padding = tuple(self.padding[row] for row in rows)
        return AttentionState(
            cache=tuple(layer[index] for layer in self.cache),
            tokens=self.tokens[index],
            padding=padding,
            lengths=tuple(self.lengths[row] for row in rows),
            column=self.column,
            starts=self.starts[index],
            mask=None if self.mask is None or not any(padding) else self.mask[index],
        )


@torch.inference_mode()
def _prepare(model: Transformer) -> AttentionDecoder:
    """Returns the model as the few functions and tables that decoding one token needs."""
    like = torch.empty(0, dtype=model.compute_dtype, device=model.embedding.weight.device)
    blocks: list[Any] = list(model.blocks)
    layers = tuple(
        Layer(
            attention_norm=_norm(block.attention_norm, like),
            qkv=_product(block.attention.qkv),
            attention_out=_added_product(block.attention.out),
            feed_forward_norm=_norm(block.feed_forward_norm, like),
            up=_product(block.feed_forward.up),
            down=_added_product(block.feed_forward.down),
        )
        for block in blocks
    )
    rotation = _rotation(model, like) if model.config.positions == "rotary" else None
    assert model.norm is not None  # decoders are pre-norm
    return AttentionDecoder(model, layers, _norm(model.norm, like), rotation, native_step(model))


def _prefill(
    decoder: AttentionDecoder, sequences: Sequence[Sequence[int]], *, room_tokens: int
) -> tuple[Tensor, AttentionState]:
    model, config = decoder.model, decoder.model.config
    window = config.maximum_positions
    contexts = [sequence[context_start(len(sequence), window) :] for sequence in sequences]
    B, T = len(contexts), max(len(context) for context in contexts)
    padding = tuple(T - len(context) for context in contexts)
    S = min(T + room_tokens, 2 * window)
    like = torch.empty(0, dtype=model.compute_dtype, device=model.embedding.weight.device)
    tokens = torch.zeros(B, S, dtype=torch.long, device=like.device)
    segments = torch.zeros(B, T, dtype=torch.long, device=like.device)
    for row, context in enumerate(contexts):
        tokens[row, padding[row] : T] = torch.tensor(context, device=like.device)
        segments[row, padding[row] :] = 1
    shape = (B, 2 * config.kv_heads, S, config.head_size)
    # zeros, not empty: a padded column's value is multiplied by a weight of 0, and 0 * nan is nan
    cache = tuple(like.new_zeros(shape) for _ in decoder.layers)
    hidden = model(
        tokens[:, :T],
        spans=segment_spans(segments, Visibility.CAUSAL) if any(padding) else None,
        positions=segment_positions(segments),
        caches=[_Writer(layer) for layer in cache],
    )
    lengths = tuple(len(sequence) for sequence in sequences)
    state = AttentionState(cache, tokens, padding, lengths, T, *_padding_tensors(padding, S, like))
    return model.logits(hidden[:, -1]), state


def _decode_one_token(
    decoder: AttentionDecoder, state: AttentionState, tokens: Tensor
) -> tuple[Tensor, AttentionState]:
    window = decoder.model.config.maximum_positions
    if state.column == state.tokens.shape[1]:
        state = _make_room(decoder, state)
    state.tokens[:, state.column] = tokens
    outgrown = [b for b, padding in enumerate(state.padding) if state.column - padding == window]
    if len(outgrown) < len(state.padding):
        logits = _step(decoder, state, tokens)
    else:
        logits = state.cache[0].new_empty(len(outgrown), decoder.model.config.vocab_size)
    column, lengths = state.column + 1, tuple(length + 1 for length in state.lengths)
    state = dataclasses.replace(state, column=column, lengths=lengths)
    for row in outgrown:
        logits[row], state = _read_again(decoder, state, row)
    return logits, state


def _step(
    decoder: AttentionDecoder, state: AttentionState, tokens: Int[Tensor, " B"]
) -> Float[Tensor, "B V"]:
    model, config, column = decoder.model, decoder.model.config, state.column
    B, H, G, K = len(state.padding), config.heads, config.kv_heads, config.head_size
    # rows that have outgrown the window are computed as if they had not, and then read again
    positions = (column - state.starts).clamp_(max=config.maximum_positions - 1)
    x = F.embedding(tokens, model.embedding.weight)
    if model.ngrams is not None:
        first = max(0, column + 1 - max(model.ngrams.settings.orders))
        back = torch.arange(first - column, 1, device=tokens.device)
        rows = ngram_rows(
            state.tokens[:, first : column + 1], positions[:, None] + back, model.ngrams.settings
        )
        x = x + F.embedding(rows[:, -1], model.ngrams.weight).sum(dim=-2)
    if model.positions is not None:
        x = x + F.embedding(positions, model.positions.weight)
    if decoder.native is not None and B == 1:
        return decoder.native(x, state.cache, first=state.padding[0], column=column)
    x = x.to(state.cache[0].dtype)
    turns: Sequence[tuple[Tensor, Tensor]] = ()
    rotation = decoder.rotation
    if rotation is not None:
        straight = rotation.cosines[positions][:, None] * rotation.straight
        crossed = rotation.sines[positions][:, None] * rotation.crossed
        turns = list(zip(straight.unbind(), crossed.unbind(), strict=True))
    mask = None if state.mask is None else state.mask[..., : column + 1]
    for i, layer in enumerate(decoder.layers):
        qkv = layer.qkv(layer.attention_norm(x)).view(B, H + 2 * G, K)
        if rotation is not None:
            qk = qkv[:, : H + G]
            if rotation.epsilon is not None:
                norms = torch.linalg.vector_norm(qk, dim=-1, keepdim=True)
                qk.div_(torch.hypot(norms, rotation.epsilon))
            turned = qk.roll(K // 2, dims=-1)
            qk.mul_(turns[i][0]).addcmul_(turned, turns[i][1])
        cache = state.cache[i]
        cache[:, :, column] = qkv[:, H:]
        # the query heads that share keys stand where queries of several positions would: nothing is repeated
        q = qkv[:, :H].view(B, G, H // G, K)
        seen = cache[:, :, : column + 1]
        y = F.scaled_dot_product_attention(q, seen[:, :G], seen[:, G:], attn_mask=mask)
        x = layer.attention_out(x, y.reshape(B, H * K))
        h = layer.up(layer.feed_forward_norm(x))
        if config.activation == "swiglu":
            gate, h = h.chunk(2, dim=-1)
            h = F.silu(gate).mul_(h)
        else:
            h = F.gelu(h, approximate="tanh")
        x = layer.down(x, h)
    return model.logits(decoder.norm(x))


def _read_again(decoder: AttentionDecoder, state: AttentionState, row: int) -> tuple[Tensor, AttentionState]:
    """Cuts one row's context to its newest tokens and reads them from position 0."""
    window = decoder.model.config.maximum_positions
    start = state.padding[row] + context_start(state.column - state.padding[row], window)
    context = state.tokens[row, start : state.column].tolist()
    logits, alone = _prefill(decoder, [context], room_tokens=0)
    for ours, theirs in zip(state.cache, alone.cache, strict=True):
        ours[row, :, start : state.column] = theirs[0]
    padding = (*state.padding[:row], start, *state.padding[row + 1 :])
    starts, mask = _padding_tensors(padding, state.tokens.shape[1], state.cache[0])
    return logits[0], dataclasses.replace(state, padding=padding, starts=starts, mask=mask)


def _make_room(decoder: AttentionDecoder, state: AttentionState) -> AttentionState:
    """Moves the columns that some row still sees to the front; doubles the cache where that gains too little."""
    drop, S = min(state.padding), state.tokens.shape[1]
    size = S if 2 * drop >= S else min(2 * S, S - drop + decoder.model.config.maximum_positions)
    tokens = state.tokens.new_zeros(len(state.padding), size)
    tokens[:, : S - drop] = state.tokens[:, drop:]
    cache = []
    for layer in state.cache:
        moved = layer.new_zeros(*layer.shape[:2], size, layer.shape[3])
        moved[:, :, : S - drop] = layer[:, :, drop:]
        cache.append(moved)
    padding = tuple(columns - drop for columns in state.padding)
    starts, mask = _padding_tensors(padding, size, state.cache[0])
    return AttentionState(tuple(cache), tokens, padding, state.lengths, state.column - drop, starts, mask)


def _padding_tensors(padding: Sequence[int], S: int, like: Tensor) -> tuple[Tensor, Tensor | None]:
    starts = torch.tensor(padding, device=like.device)
    if not any(padding):
        return starts, None
    mask = like.new_zeros(len(padding), 1, 1, S)
    mask.masked_fill_((torch.arange(S, device=like.device) < starts[:, None])[:, None, None], -torch.inf)
    return starts, mask


def _rotation(model: Transformer, like: Tensor) -> Rotation:
    config = model.config
    H, G, K = config.heads, config.kv_heads, config.head_size
    cosines, sines = (
        table[: config.maximum_positions].to(like.dtype)
        for table in Rotary(config.head_size, config.rotary_base)(config.maximum_positions, like.device)
    )
    straight, epsilon = like.new_ones(config.layers, 1, H + G, K), None
    if config.qk_norm:
        epsilon = like.new_tensor(math.sqrt(K * config.norm_epsilon))
        blocks: list[Any] = list(model.blocks)
        for layer, block in enumerate(blocks):
            straight[layer, 0, :H] = block.attention.query_norm.weight * math.sqrt(K)
            straight[layer, 0, H:] = block.attention.key_norm.weight * math.sqrt(K)
    return Rotation(
        cosines=torch.cat((cosines, cosines), dim=-1),
        sines=torch.cat((-sines, sines), dim=-1),
        straight=straight,
        crossed=straight.roll(K // 2, dims=-1),
        epsilon=epsilon,
    )


def _norm(norm: nn.Module, like: Tensor) -> Function:
    weight, epsilon = norm.weight.to(like.dtype), norm.epsilon
    assert isinstance(weight, Tensor)
    assert isinstance(epsilon, float)
    size = weight.shape[0]
    if isinstance(norm, LayerNorm):
        bias = None if norm.bias is None else norm.bias.to(like.dtype)
        return lambda x: F.layer_norm(x, (size,), weight, bias, epsilon)
    # x w / sqrt(|x|^2 / D + e) = x w sqrt(D) / hypot(|x|, sqrt(D e)): half the time of F.rms_norm's seven calls
    scaled, floor = weight * math.sqrt(size), like.new_tensor(math.sqrt(size * epsilon))
    return lambda x: (x * scaled).div_(torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor))


def _product(linear: nn.Linear) -> Function:
    weight, bias = linear.weight.t(), cast(Tensor | None, linear.bias)
    if bias is None:
        return lambda x: torch.mm(x, weight)
    return lambda x: torch.addmm(bias, x, weight)


def _added_product(linear: nn.Linear) -> Adder:
    weight, bias = linear.weight.t(), cast(Tensor | None, linear.bias)
    if bias is None:
        return lambda stream, x: torch.addmm(stream, x, weight)
    return lambda stream, x: torch.addmm(stream + bias, x, weight)


@final
class _Writer:
    """Writes the keys and values of a prefill to the front of a layer's cache."""

    def __init__(self, cache: Tensor) -> None:
        self._keys, self._values = cache.chunk(2, dim=1)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        T = keys.shape[2]
        self._keys[:, :, :T] = keys
        self._values[:, :, :T] = values
        return keys, values
