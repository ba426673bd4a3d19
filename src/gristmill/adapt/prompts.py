"""Soft prompts: vectors that a model reads before each text, learned while the model stays as it is.

    Lester et al. 2021, arXiv:2104.08691: vectors in place of the embeddings of words
    Li and Liang 2021, arXiv:2101.00190; Liu et al. 2022, arXiv:2110.07602: vectors in every layer

They are tokens beyond the vocabulary. In a pass, a table of their own gives their vectors; with `deep`, their hidden states are
replaced in front of each block by vectors of that block, so that keys and values of every layer are learned. Nothing else in the
model changes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gristmill import rng
from gristmill.adapt.encoding import Packed
from gristmill.batch import Batch
from gristmill.errors import InputError
from gristmill.model.base import Model
from gristmill.model.transformer import Transformer

__all__ = ["SoftPrompt"]


@final
class SoftPrompt(nn.Module):
    """Some vectors, and with `deep` as many for each layer; installed in a model, which then knows more tokens."""

    def __init__(self, model: Model, tokens: int, *, deep: bool, seed: int) -> None:
        """Begins with the vectors of tokens of the vocabulary, drawn with the seed (Lester et al., section 3.2).

        Raises:
            InputError: the model is no Transformer, or reads no more than these.
        """
        super().__init__()
        if not isinstance(model, Transformer):
            raise InputError("soft prompts are read by Transformers", 'set tune.way = "full" for this model')
        if model.config.maximum_positions <= tokens + 8:
            raise InputError(
                f"{tokens} vectors leave no room for a text: the model reads {model.config.maximum_positions} positions",
                "set fewer: tune.way.tokens = 20",
            )
        self.first, self.tokens, self.deep = model.config.vocab_size, tokens, deep
        chosen = rng.stream(seed, "soft prompt").choice(model.config.vocab_size, tokens, replace=False)
        table = model.embedding.weight.detach()
        vectors = table[torch.from_numpy(chosen).to(table.device)].float().clone()
        self.vectors = nn.Parameter(vectors)
        blocks = self._blocks(model)
        spread = float(vectors.std())
        generator = torch.Generator().manual_seed(rng.derive(seed, "deep prompt"))
        self.layers = (
            nn.Parameter(
                spread * torch.randn(len(blocks) - 1, tokens, model.config.width, generator=generator)
            )
            if deep and len(blocks) > 1
            else None
        )

    def install(self, model: Model) -> None:
        """Makes a model read tokens beyond its vocabulary as these vectors."""
        model.embedding = _Extended(model.embedding, self)  # type: ignore[assignment]
        if self.layers is not None:
            for layer, block in enumerate(self._blocks(model)[1:]):
                block.register_forward_pre_hook(self._replacing(layer))

    def inserted(self, packed: Packed) -> tuple[Batch, Int[Tensor, " T"]]:
        """Returns a batch with the vectors' tokens before each text, and where the tokens stand that were there before."""
        batch = packed.batch
        device = batch.tokens.device
        lengths = packed.ends - packed.starts
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        old = torch.arange(len(owner))
        moved = old + owner * self.tokens + (old >= packed.firsts[owner]) * self.tokens
        size = len(owner) + len(lengths) * self.tokens
        tokens = (torch.arange(self.first, self.first + self.tokens)).repeat(len(lengths)) if size else old
        places = torch.ones(size, dtype=torch.bool).index_fill_(0, moved, False)
        moved, places, tokens = moved.to(device), places.to(device), tokens.to(device)

        def widened(values: Tensor, filling: Tensor) -> Tensor:
            wide = torch.empty(1, size, dtype=values.dtype, device=device)
            wide[0, moved] = values[0]
            wide[0, places] = filling.to(values.dtype)
            return wide

        none = torch.zeros(int(places.sum()), device=device)
        number = torch.arange(1, len(lengths) + 1, device=device).repeat_interleave(self.tokens)
        return dataclasses.replace(
            batch,
            tokens=widened(batch.tokens, tokens),
            targets=widened(batch.targets, none),
            weights=widened(batch.weights, none),
            segments=widened(batch.segments, number),
            token_types=None if batch.token_types is None else widened(batch.token_types, none),
        ), moved

    def _blocks(self, model: Model) -> list[nn.Module]:
        """The blocks that read the text: of an encoder-decoder those of its encoder."""
        assert isinstance(model, Transformer)
        return list((model.blocks if model.encoder is None else model.encoder.blocks).children())

    def _replacing(self, layer: int) -> Callable[[nn.Module, Any], Any]:
        def replace(block: nn.Module, arguments: Any) -> Any:
            x, *rest = arguments
            places = self.places
            if places.shape != x.shape[:2] or not bool(places.any()):
                return None
            assert self.layers is not None
            vectors = self.layers[layer].to(x.dtype).repeat(int(places.sum()) // self.tokens, 1)
            flat = x.reshape(-1, x.shape[-1]).index_put((places.flatten().nonzero()[:, 0],), vectors)
            return (flat.view(x.shape), *rest)

        return replace

    places: Bool[Tensor, "B T"]
    """Where the vectors stand in the pass that goes on."""


class _Extended(nn.Module):
    """An embedding that knows a prompt's tokens too; `weight` is still that of the vocabulary."""

    def __init__(self, base: nn.Embedding, prompt: SoftPrompt) -> None:
        super().__init__()
        self.base = base
        self._prompt = [prompt]  # in a list, so that its weights are not the model's

    @property
    def weight(self) -> Tensor:
        """The table of the vocabulary."""
        return self.base.weight

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Returns the vector of each token."""
        prompt = self._prompt[0]
        places = tokens >= prompt.first
        prompt.places = places
        x = F.embedding(tokens.masked_fill(places, 0), self.base.weight)
        own = F.embedding((tokens - prompt.first).clamp(min=0), prompt.vectors)
        return torch.where(places[..., None], own.to(x.dtype), x)
