"""All weights, or those above some layer, from the start or one layer after the other from the top.

Howard and Ruder 2018, arXiv:1801.06146 (ULMFiT), section 3.3: gradual unfreezing
"""

import dataclasses
from typing import Annotated, final

from annotated_types import Ge, Gt

from gristmill.adapt.net import Net
from gristmill.adapt.way import Installed, Way, layer_of, layers_of, used
from gristmill.errors import InputError
from gristmill.model.config import ModelConfig

__all__ = ["Full"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Full(Way):
    """Fine-tuning of the model itself."""

    frozen_layers: Annotated[int, Ge(0)] = 0
    """The embeddings and so many layers above them stay as they are; what is frozen costs half as much, and no memory."""
    unfreeze_epochs: Annotated[float, Gt(0)] | None = None
    """Begin with the head, and add the next layer below after so many epochs each; by default all are learned from the start."""

    learning_rate = 5e-5

    def install(self, net: Net, *, seed: int) -> Installed:
        """Returns what is above the frozen layers.

        Raises:
            InputError: there are no layers above.
        """
        config = net.model.config
        if self.frozen_layers >= layers_of(config):
            raise InputError(
                f"frozen_layers = {self.frozen_layers}, but the model has {layers_of(config)} layers",
                'to learn the head alone set tune.way = "frozen"',
            )
        lowest = self.frozen_layers + 1 if self.frozen_layers else 0
        return Installed(net, {n: p for n, p in used(net).items() if layer_of(n, config) >= lowest})

    def begins(self, name: str, config: ModelConfig) -> float:
        """Returns after how many epochs a weight begins to be learned."""
        return (self.unfreeze_epochs or 0.0) * (layers_of(config) + 1 - layer_of(name, config))


EXPORT = Full
