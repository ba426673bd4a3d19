"""What a way to adapt a model is: which of its weights are learned, from when on, and how they become a plain model again."""

import abc
import re
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from gristmill.adapt.net import Net
from gristmill.model.config import ModelConfig

__all__ = ["Installed", "Way", "layer_of", "layers_of", "used"]

_UNUSED_BY_HEADS = ("output.", "output_bias", "transform.", "pooler.", "pair.", "generator.", "detector.")
_UNUSED_BY_WRITERS = ("pooler.", "pair.", "generator.", "detector.")
_DECODER = ("blocks.", "norm.", "relative.")


class Installed(NamedTuple):
    """A net that is trained in some way, and what is learned of it."""

    net: Net
    learned: dict[str, nn.Parameter]
    """By name: `model.…`, `head.…` or `prompt.…`; all others stay as they are."""


class Way(abc.ABC):
    """Abstract. A frozen dataclass whose fields are its settings."""

    learning_rate: ClassVar[float]
    """Where the recipe does not say."""

    @abc.abstractmethod
    def install(self, net: Net, *, seed: int) -> Installed:
        """Makes a net ready to be trained this way; the model may be changed in place.

        Raises:
            InputError: this model can't be.
        """

    def begins(self, name: str, config: ModelConfig) -> float:
        """Returns after how many epochs a weight begins to be learned."""
        return 0.0

    def plain(self, base: Mapping[str, Tensor], learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weights of the model without what was installed.

        Args:
            base: of the model as it came, float32.
            learned: what was learned, by its names in `Installed`.
        """
        found = {name.removeprefix("model."): t for name, t in learned.items() if name.startswith("model.")}
        return {name: found.get(name, tensor) for name, tensor in base.items()}

    def kept(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what is worth keeping beside the plain weights: by default nothing.

        Args:
            learned: what was learned, by its names in `Installed`.
        """
        return {}


def used(net: Net) -> dict[str, nn.Parameter]:
    """Returns the weights that a task's loss depends on: without a head the output matrix is, with one it is not."""
    skipped: tuple[str, ...] = _UNUSED_BY_WRITERS if net.head is None else _UNUSED_BY_HEADS
    if net.head is not None and net.model.config.kind == "encoder-decoder":
        skipped += _DECODER
    return {
        name: parameter
        for name, parameter in net.parameters().items()
        if not name.removeprefix("model.").startswith(skipped) or not name.startswith("model.")
    }


def layers_of(config: ModelConfig) -> int:
    """Returns how many layers there are, one above the other."""
    return config.encoder_layers + config.layers


def layer_of(name: str, config: ModelConfig) -> int:
    """Returns in which layer a weight is: 0 is the embeddings, and what stands on the last layer is one above it."""
    found = re.match(r"model\.(encoder\.)?blocks\.(\d+)\.", name)
    if found is not None:
        return int(found[2]) + 1 + (0 if found[1] else config.encoder_layers)
    is_below = name.startswith(("model.embedding", "model.positions", "model.token_types", "model.ngrams"))
    if is_below or name.startswith("prompt."):
        return 0
    return config.encoder_layers if name.startswith("model.encoder.") else layers_of(config) + 1
