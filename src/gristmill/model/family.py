"""What a published family fixes, and how its weights are named and laid out elsewhere."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

if TYPE_CHECKING:
    from gristmill.model.config import ModelConfig

__all__ = ["Family"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A published architecture as settings of the one core, and its translation to and from transformers."""

    norm: Literal["rms", "layer"]
    norm_epsilon: float
    positions: Literal["rotary", "learned"]
    rotary_base: float
    activation: Literal["swiglu", "gelu_tanh"]
    bias: bool
    qk_norm: bool
    feed_forward_ratio: float
    """The usual inner size of the feed-forward layers, in widths."""
    head_size_is_width_over_heads: bool
    """Whether the family's configuration has no head size of its own."""
    architecture: str
    """The class in transformers that loads an export of this family."""
    to_config: "Callable[[ModelConfig], dict[str, Any]]"
    """Our config -> the fields of the family's config.json."""
    from_config: "Callable[[Mapping[str, Any]], ModelConfig]"
    """A config.json -> ours; raises InputError, naming the field, for what the core does not do."""
    to_state: "Callable[[ModelConfig, Mapping[str, Tensor]], dict[str, Tensor]]"
    """Our tensors -> theirs."""
    from_state: "Callable[[ModelConfig, Mapping[str, Tensor]], dict[str, Tensor]]"
    """Their tensors -> ours."""
