"""The head alone, on what the model makes of a text as it came: features."""

import dataclasses
from typing import final

from gristmill.adapt.net import Net
from gristmill.adapt.way import Installed, Way
from gristmill.errors import InputError

__all__ = ["Frozen"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen(Way):
    """The model stays as it is."""

    learning_rate = 1e-3

    def install(self, net: Net, *, seed: int) -> Installed:
        """Returns the head's weights.

        Raises:
            InputError: the task has no head, or one without weights.
        """
        learned = {} if net.head is None else {f"head.{name}": p for name, p in net.head.named_parameters()}
        if not learned:
            raise InputError(
                "this task has no head that learns: with a frozen model there is nothing to learn",
                'set tune.way = "lora" or "full"',
            )
        return Installed(net, learned)


EXPORT = Frozen
