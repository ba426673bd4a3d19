"""What a model is: its family, and every size resolved to a number."""

import dataclasses
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from gristmill import plugins
from gristmill.errors import InputError
from gristmill.model.family import Family

__all__ = ["FAMILY_OF_KIND", "HEAD_SIZE", "Kind", "ModelConfig", "ModelSettings", "NgramSettings", "resolve"]

HEAD_SIZE = 64
"""The head size that the depth dial uses; the published families use 64 to 128."""

MULTIPLE = 64
"""Sizes that the dial derives are multiples of this: tiles of matrix units divide them evenly."""

Positive = Annotated[int, Gt(0)]
Kind = Literal["decoder", "encoder", "encoder-decoder"]

FAMILY_OF_KIND: dict[str, str] = {"decoder": "qwen3", "encoder": "modernbert", "encoder-decoder": "t5"}
"""The family of a kind where a recipe names none."""


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

    family: Annotated[str, "a file in model/families"] | None = None
    """Which published architecture: its weights load into the class of the same name in transformers. By default
    what suits the objective: qwen3 for decoders, modernbert for encoders, t5 for encoder-decoders."""
    kind: Kind | None = None
    """Whether it writes (decoder), reads (encoder), or reads and then writes; by default what the family is."""
    depth: Positive = 4
    """The one dial: layers. Width, heads, feed-forward size, learning rates and batch follow from it."""
    encoder_depth: Positive | None = None
    """Layers of an encoder-decoder's encoder; by default as many as its decoder has."""
    width: Positive | None = None
    """Size of the residual stream; by default 64 for each layer."""
    heads: Positive | None = None
    """Attention heads; by default as many as heads of size 64 fill the width."""
    kv_heads: Positive | None = None
    """Heads of keys and values, shared by groups of heads; by default as many as heads."""
    head_size: Positive | None = None
    """By default width / heads."""
    feed_forward: Positive | None = None
    """Inner size of the feed-forward layers, or of the state of a recurrent family; by default the family's multiple
    of the width."""
    tied: bool | None = None
    """Whether the output matrix is the token embedding; by default tied below a depth of 12, and where the family is."""
    rotary_base: Annotated[float, Gt(1)] | None = None
    """Base of the rotary frequencies; by default the family's."""
    window: Positive | None = None
    """How many positions to each side the local layers of a family see (modernbert); by default the family's."""
    global_every: Positive | None = None
    """Which layers of such a family see everything: each so-manieth, the first among them; by default the family's."""
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
    """Of an encoder-decoder, the decoder's."""
    width: Positive
    heads: Positive
    kv_heads: Positive
    head_size: Positive
    feed_forward: Positive
    maximum_positions: Positive
    tied: bool
    norm: Literal["rms", "layer"]
    norm_epsilon: Annotated[float, Gt(0), Lt(1)]
    positions: Literal["rotary", "learned", "sinusoidal", "relative", "none"]
    rotary_base: float
    activation: Literal["swiglu", "geglu", "geglu_tanh", "relu", "gelu", "gelu_tanh"]
    bias: bool
    qk_norm: bool
    ngrams: NgramSettings | None = None
    kind: Kind = "decoder"
    core: Literal["transformer", "lstm", "gru"] = "transformer"
    """Attention, or a recurrence as the baseline that attention is measured against."""
    encoder_layers: Annotated[int, Ge(0)] = 0
    """Of an encoder-decoder; 0 otherwise."""
    norm_place: Literal["pre", "post"] = "pre"
    """Before each layer (pre-norm), or after its sum with the stream (post-norm, as in 2017)."""
    norm_bias: bool = True
    """Whether LayerNorm has a shift."""
    embedding_norm: bool = False
    """Whether embeddings are normalised before the first layer, whose own norm a pre-norm model then leaves out."""
    embedding_scale: bool = False
    """Whether token embeddings are multiplied by the square root of the width (Vaswani et al. 2017, section 3.4)."""
    attention_scale: bool = True
    """Whether scores are divided by the square root of the head size; T5 leaves that to its initial weights."""
    window: Annotated[int, Ge(0)] = 0
    """How many positions to each side a local layer sees; 0: all layers see everything."""
    global_every: Positive = 1
    """Layer i sees everything where i is a multiple of this."""
    local_rotary_base: float = 0.0
    """Base of the rotary frequencies in local layers."""
    relative_buckets: Annotated[int, Ge(0)] = 0
    """Of relative position biases (Raffel et al. 2020, section 2.1)."""
    relative_distance: Annotated[int, Ge(0)] = 0
    """Beyond it all positions share a bucket."""
    token_types: Annotated[int, Ge(0)] = 0
    """Embeddings that tell the texts of a pair apart."""
    head: Literal["linear", "transform"] = "linear"
    """What stands before the output matrix: nothing, or a layer with a non-linearity and a norm (BERT)."""
    head_bias: bool = True
    """Whether that layer has a bias."""
    output_bias: bool = False
    """Whether the output has a bias for each token."""
    pair_head: bool = False
    """Whether there is a pooler and a classifier for pairs of texts (BERT's next-sentence prediction)."""
    generator_layers: Annotated[int, Ge(0)] = 0
    """Layers of the generator whose replacements the model learns to detect (ELECTRA); 0 is no detection head."""

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
        if (self.kind == "encoder-decoder") != (self.encoder_layers > 0):
            raise InputError(f"a model of kind {self.kind} can not have {self.encoder_layers} encoder layers")

    def is_local(self, layer: int) -> bool:
        """Returns whether a layer sees its window only."""
        return self.window > 0 and layer % self.global_every != 0

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layers multiply by a gate."""
        return self.activation in ("swiglu", "geglu", "geglu_tanh")


def resolve(settings: ModelSettings, *, vocab_size: int, row_tokens: int) -> ModelConfig:
    """Returns the model that a `[model]` table describes, with every size that it leaves open derived.

    Raises:
        InputError: the sizes contradict each other, or the family can't express a setting.
    """
    name = settings.family or FAMILY_OF_KIND[settings.kind or "decoder"]
    family: Family = plugins.load("model.families", name)
    _check_expressible(settings, name, family)
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
            f'the family "{name}" has heads of size width / heads; {heads} heads of {head_size} are not {width}',
            'leave model.head_size out, or use the family "qwen3"',
        )
    maximum_positions = settings.maximum_positions or row_tokens
    if maximum_positions < row_tokens:
        raise InputError(
            f"model.maximum_positions = {maximum_positions} is less than pretrain.row_tokens = {row_tokens}",
            "leave it out, or raise it",
        )
    fixed = dict(family.fixed)
    for field in ("rotary_base", "window", "global_every"):
        if getattr(settings, field) is not None:
            fixed[field] = getattr(settings, field)
    tied = settings.depth < 12 if family.tied is None else family.tied
    return ModelConfig(
        family=name,
        kind=family.kind,
        vocab_size=vocab_size,
        layers=settings.depth,
        encoder_layers=(settings.encoder_depth or settings.depth) if family.kind == "encoder-decoder" else 0,
        width=width,
        heads=heads,
        kv_heads=settings.kv_heads or heads,
        head_size=head_size,
        feed_forward=settings.feed_forward or _round_up(family.feed_forward_ratio * width),
        maximum_positions=maximum_positions,
        tied=settings.tied if settings.tied is not None else tied,
        ngrams=settings.ngrams,
        **fixed,
    )


def _check_expressible(settings: ModelSettings, name: str, family: Family) -> None:
    """Refuses what the family's published form has no place for, by name."""
    if settings.kind not in (None, family.kind):
        fitting = [n for n in plugins.names("model.families") if _kind(n) == settings.kind]
        raise InputError(
            f'the family "{name}" is a model of kind {family.kind}, but model.kind is "{settings.kind}"',
            f"leave model.kind out, or set model.family to one of: {', '.join(fitting)}",
        )
    refusals: list[tuple[Any, bool, str]] = [
        (settings.encoder_depth, family.kind == "encoder-decoder", "is no encoder-decoder"),
        (settings.kv_heads not in (None, settings.heads) or None, family.shares_keys,
         "does not share keys and values between heads"),
        (settings.rotary_base, family.fixed["positions"] == "rotary", "has no rotary positions"),
        (settings.window, bool(family.fixed.get("window")), "has no local layers"),
        (settings.global_every, bool(family.fixed.get("window")), "has no local layers"),
        (settings.ngrams, family.kind == "decoder" and family.core == "transformer", "has no n-gram embeddings here"),
        (settings.tied is False or None, family.tied is not True, "has its output tied to the embedding"),
        (settings.maximum_positions, family.core == "transformer", "has no positions that could be used up"),
        (settings.heads, family.core == "transformer", "has no attention heads"),
        (settings.head_size, family.core == "transformer", "has no attention heads"),
    ]  # fmt: skip
    fields = (
        "encoder_depth", "kv_heads", "rotary_base", "window", "global_every", "ngrams", "tied", "maximum_positions",
        "heads", "head_size",
    )  # fmt: skip
    for field, (wanted, possible, reason) in zip(fields, refusals, strict=True):
        if wanted is not None and not possible:
            raise InputError(f'the family "{name}" {reason}', f"leave model.{field} out")
    if settings.window is not None and settings.global_every == 1:
        raise InputError(
            f"model.window = {settings.window} is of no use: with model.global_every = 1 all layers see everything",
            "leave model.window out, or set model.global_every = 2 or more",
        )


def _kind(family: str) -> str:
    kind: str = plugins.load("model.families", family).kind
    return kind


def _round_up(size: float) -> int:
    return -(-int(size) // MULTIPLE) * MULTIPLE
