"""What a published family fixes, and how its weights are named and laid out elsewhere."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

if TYPE_CHECKING:
    from gristmill.model.config import ModelConfig

__all__ = ["Family", "Found"]

Found = tuple[Mapping[str, Any], Mapping[str, Tensor]]
"""A config.json and the tensors beside it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A published architecture as settings of the one core, and its translation to and from transformers."""

    fixed: Mapping[str, Any]
    """The fields of ModelConfig that make it this family: norms, positions, activation, biases, heads."""
    kind: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    feed_forward_ratio: float
    """The usual inner size of the feed-forward layers, in widths."""
    head_size_is_width_over_heads: bool
    """Whether the family's configuration has no head size of its own."""
    shares_keys: bool = False
    """Whether several heads may share keys and values."""
    tied: bool | None = None
    """Whether the output matrix always is (True) the embedding; None leaves it to the size."""
    pair_head: bool = False
    """Whether it has a place for a next-sentence head."""
    detection_head: bool = False
    """Whether it has a place for a replaced-token head."""
    canonical: "Callable[[Mapping[str, Any], Mapping[str, Tensor]], Found]" = lambda *found: found
    """A config.json and its tensors as they were found -> the one form that `from_config` and `from_state` read;
    for what only the tensors tell, and for what can be written in several ways."""
    architecture: "Callable[[ModelConfig], str]"
    """The class in transformers that loads an export of this family."""
    to_config: "Callable[[ModelConfig], dict[str, Any]]"
    """Our config -> the fields of the family's config.json."""
    from_config: "Callable[[Mapping[str, Any]], ModelConfig]"
    """A config.json -> ours; raises InputError, naming the field, for what the core does not do."""
    to_state: "Callable[[ModelConfig, Mapping[str, Tensor]], dict[str, Tensor]]"
    """Our tensors -> theirs."""
    from_state: "Callable[[ModelConfig, Mapping[str, Tensor]], dict[str, Tensor]]"
    """Their tensors -> ours."""

    @property
    def core(self) -> str:
        """What computes: "transformer", or a recurrence."""
        core: str = self.fixed.get("core", "transformer")
        return core
