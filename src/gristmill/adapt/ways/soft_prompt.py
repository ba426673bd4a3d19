"""Vectors before the text, in place of the embeddings of words (Lester et al. 2021, arXiv:2104.08691)."""

import dataclasses
from typing import Annotated, final

from annotated_types import Gt

from gristmill.adapt.net import Net
from gristmill.adapt.prompts import SoftPrompt
from gristmill.adapt.way import Installed, Way
from gristmill.errors import InputError

__all__ = ["SoftPrompts", "with_prompt"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftPrompts(Way):
    """The model stays as it is, and reads learned vectors first."""

    tokens: Annotated[int, Gt(0)] = 20
    """How many vectors."""

    learning_rate = 1e-2

    def install(self, net: Net, *, seed: int) -> Installed:
        """Puts vectors before each text; they and the head are learned."""
        return with_prompt(net, self.tokens, deep=False, seed=seed)


def with_prompt(net: Net, tokens: int, *, deep: bool, seed: int) -> Installed:
    """Returns a net that reads new vectors before each text; they and its head, if it has one, are learned.

    Raises:
        InputError: the model can't read any, or the task's answers are written and not scored.
    """
    if net.head is None and (not net.reads_prompts or net.model.config.kind == "encoder-decoder"):
        raise InputError(
            "learned vectors are for tasks that read a text, and this one writes its answers",
            'set tune.way = "lora" or "full"',
        )
    prompt = SoftPrompt(net.model, tokens, deep=deep, seed=seed)
    prompt.install(net.model)
    prompt.to(net.device)
    whole = dataclasses.replace(net, prompt=prompt)
    return Installed(
        whole, {name: p for name, p in whole.parameters().items() if name.startswith(("prompt.", "head."))}
    )


EXPORT = SoftPrompts
