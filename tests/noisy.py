"""Models for tests whose blocks do something: at the start of training they add nothing to the stream."""

from typing import TypeVar

import torch

from gristmill.model.base import Model

M = TypeVar("M", bound=Model)


@torch.no_grad()
def noisy(model: M, deviation: float, seed: int = 0) -> M:
    """The model with its weights drawn as for training, and noise on every one of them."""
    generator = torch.Generator().manual_seed(seed)
    model.initialise(generator)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * deviation)
    return model.eval()
