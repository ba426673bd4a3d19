"""What a model is: its family, and every size resolved to a number."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from gristmill import plugins
from gristmill.errors import InputError
from gristmill.model.family import Family

__all__ = ["HEAD_SIZE", "ModelConfig", "ModelSettings", "NgramSettings", "resolve"]

HEAD_SIZE = 64
"""The head size that the depth dial uses; the published families use 64 to 128."""

MULTIPLE = 64
"""Sizes that the dial derives are multiples of this: tiles of matrix units divide them evenly."""

Positive = Annotated[int, Gt(0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NgramSettings:
    """Hashed n-gram embeddings added to the token embedding (Pagnoni et al. 2024, Byte Latent Transformer, 3.2.1)."""

    orders: Annotated[tuple[Annotated[int, Ge(2)], ...], MinLen(1)] = (2, 3, 4, 5)
    """Lengths of the n-grams, each with a table of its own."""
    buckets: Positive = 16384
    """Rows of each table; n-grams are hashed onto them."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Share of the positions that do without all their n-grams in training: tables learn text by heart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The `[model]` table of a recipe: a family, one dial, and explicit sizes where wanted."""

    family: Annotated[str, "a file in model/families"] = "qwen3"
    """Which published architecture: its weights load into the class of the same name in transformers."""
    depth: Positive = 4
    """The one dial: layers. Width, heads, feed-forward size, learning rates and batch follow from it."""
    width: Positive | None = None
    """Size of the residual stream; by default 64 for each layer."""
    heads: Positive | None = None
    """Attention heads; by default as many as heads of size 64 fill the width."""
    kv_heads: Positive | None = None
    """Heads of keys and values, shared by groups of heads; by default as many as heads."""
    head_size: Positive | None = None
    """By default width / heads."""
    feed_forward: Positive | None = None
    """Inner size of the feed-forward layers; by default the family's multiple of the width."""
    tied: bool | None = None
    """Whether the output matrix is the token embedding; by default tied below a depth of 12."""
    rotary_base: Annotated[float, Gt(1)] | None = None
    """Base of the rotary frequencies; by default the family's."""
    maximum_positions: Positive | None = None
    """The longest sequence that the model promises to handle; by default the length of a training row."""
    ngrams: NgramSettings | None = None
    """Hashed n-gram embeddings; not portable to transformers, see docs/log.md for what they buy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model with every number resolved; saved beside its weights.

    Raises:
        InputError: on construction, when sizes do not fit together.
    """

    family: str
    vocab_size: Positive
    layers: Positive
    width: Positive
    heads: Positive
    kv_heads: Positive
    head_size: Positive
    feed_forward: Positive
    maximum_positions: Positive
    tied: bool
    norm: Literal["rms", "layer"]
    norm_epsilon: Annotated[float, Gt(0), Lt(1)]
    positions: Literal["rotary", "learned"]
    rotary_base: float
    activation: Literal["swiglu", "gelu_tanh"]
    bias: bool
    qk_norm: bool
    ngrams: NgramSettings | None = None
    kind: Literal["decoder"] = "decoder"

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise InputError(
                f"model.heads = {self.heads} is not a multiple of model.kv_heads = {self.kv_heads}",
                f"set model.kv_heads to a divisor of {self.heads}",
            )
        if self.positions == "rotary" and self.head_size % 2:
            raise InputError(
                f"model.head_size = {self.head_size} is odd, and rotary positions turn pairs",
                "set model.head_size to an even number",
            )


def resolve(settings: ModelSettings, *, vocab_size: int, row_tokens: int) -> ModelConfig:
    """Returns the model that a `[model]` table describes, with every size that it leaves open derived.

    Raises:
        InputError: the sizes contradict each other.
    """
    family: Family = plugins.load("model.families", settings.family)
    width = settings.width or MULTIPLE * settings.depth
    if settings.heads is None and settings.head_size is None:
        heads = max(1, width // HEAD_SIZE)
        while width % heads:
            heads -= 1
    else:
        heads = settings.heads or max(1, width // (settings.head_size or HEAD_SIZE))
    if settings.head_size is None and width % heads:
        raise InputError(
            f"model.width = {width} does not divide into model.heads = {heads}",
            f"set model.width = {-(-width // heads) * heads}, or give model.head_size",
        )
    head_size = settings.head_size or width // heads
    if family.head_size_is_width_over_heads and head_size * heads != width:
        raise InputError(
            f'the family "{settings.family}" has heads of size width / heads; {heads} heads of {head_size} are not {width}',
            'leave model.head_size out, or use the family "qwen3"',
        )
    if family.head_size_is_width_over_heads and settings.kv_heads not in (None, heads):
        raise InputError(
            f'the family "{settings.family}" does not share keys and values between heads',
            "leave model.kv_heads out",
        )
    feed_forward = settings.feed_forward or _round_up(family.feed_forward_ratio * width)
    maximum_positions = settings.maximum_positions or row_tokens
    if maximum_positions < row_tokens:
        raise InputError(
            f"model.maximum_positions = {maximum_positions} is less than pretrain.row_tokens = {row_tokens}",
            "leave it out, or raise it",
        )
    return ModelConfig(
        family=settings.family,
        vocab_size=vocab_size,
        layers=settings.depth,
        width=width,
        heads=heads,
        kv_heads=settings.kv_heads or heads,
        head_size=head_size,
        feed_forward=feed_forward,
        maximum_positions=maximum_positions,
        tied=settings.tied if settings.tied is not None else settings.depth < 12,
        norm=family.norm,
        norm_epsilon=family.norm_epsilon,
        positions=family.positions,
        rotary_base=settings.rotary_base or family.rotary_base,
        activation=family.activation,
        bias=family.bias,
        qk_norm=family.qk_norm,
        ngrams=settings.ngrams,
    )


def _round_up(size: float) -> int:
    return -(-int(size) // MULTIPLE) * MULTIPLE
