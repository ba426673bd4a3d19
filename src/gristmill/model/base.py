"""What every model is, whatever computes in it: tokens in, hidden states out, scores from hidden states."""

import abc
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gristmill.model import ops
from gristmill.model.config import ModelConfig
from gristmill.model.visibility import Spans

__all__ = [
    "Dropout",
    "KeysValues",
    "LayerNorm",
    "Linear",
    "Memory",
    "Model",
    "RMSNorm",
    "is_matrix",
    "make_norm",
]


@runtime_checkable
class KeysValues(Protocol):
    """Where one layer keeps the keys and values of earlier positions."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values (B, H, T, K) and returns those of all positions so far."""


class Memory:
    """What a decoder sees of a source that an encoder has read: keys and values for each of its layers."""

    def __init__(self, keys_values: Sequence[tuple[Tensor, Tensor]], spans: Spans | None) -> None:
        """Takes keys and values (B, G, S, K) by layer, and which source positions each target position sees."""
        self.keys_values = tuple(keys_values)
        self.spans = spans
        """None: every target position sees the whole source."""


class Model(nn.Module, abc.ABC):
    """Abstract. `model(tokens)` gives hidden states; `model.logits(hidden)` gives scores over the vocabulary."""

    config: ModelConfig
    embedding: nn.Embedding
    output: nn.Linear | None
    transform: "Transform | None"
    output_bias: nn.Parameter | None

    @abc.abstractmethod
    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B 1 T S"] | None = None,
        spans: Spans | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        token_types: Int[Tensor, "B T"] | None = None,
        memory: Memory | None = None,
        caches: Sequence[KeysValues] | None = None,
        dropout_seed: int = 0,
    ) -> Float[Tensor, "B T D"]:
        """Returns the hidden state of every position, ready for `logits`.

        Args:
            tokens: ids below `config.vocab_size`.
            mask: True where a position (T) may look at another (S).
            spans: the same as intervals of keys, which cost less; from `segment_spans`. Without mask and spans a
                decoder sees what stands before, and an encoder everything.
            positions: where each token stands in its document; None is 0, 1, 2, ...
            token_types: 0 or 1 where the model tells the texts of a pair apart; None is 0.
            memory: what an encoder-decoder writes about, from `remember`.
            caches: one for each layer when decoding; S then counts the cached positions too.
            dropout_seed: what dropout drops in training is a function of this number.
        """

    @abc.abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights anew."""

    @abc.abstractmethod
    def fused_matrices(self) -> dict[str, list[int]]:
        """Returns the rows of each matrix in the parameters that hold several, one below the other."""

    def reset_buffers(self, device: torch.device | None) -> None:
        """Computes what is not stored with the weights, after they were loaded into a model without memory."""

    def to_output(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Returns what the output matrix is multiplied with: the hidden states, or a layer of their own on them."""
        return hidden if self.transform is None else self.transform(hidden)

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Returns scores over the vocabulary; call it only for the positions whose scores are needed."""
        bias = None if self.output_bias is None else self.output_bias.to(hidden.dtype)
        return F.linear(self.to_output(hidden), self.output_weight.to(hidden.dtype), bias)

    @property
    def output_weight(self) -> Float[Tensor, "V D"]:
        """The output matrix, which is the token embedding where they are tied."""
        return self.embedding.weight if self.output is None else self.output.weight

    @property
    def compute_dtype(self) -> torch.dtype:
        """The storage type of the matrices, and so of the activations; embeddings and norms may be wider."""
        return next(p.dtype for name, p in self.named_parameters() if is_matrix(name, p))


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Returns whether a parameter is a matrix of a block: stored narrow in training, and updated by Muon.

    Embeddings, norms, and the layers at the very end are not.
    """
    return ("blocks." in name) and parameter.dim() == 2


class Dropout:
    """Dropout on what is added to the residual stream; each use in a pass draws its own numbers."""

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.seed, self.uses = rate, seed, 0

    def __call__(self, x: Tensor | None, branch: Tensor) -> Tensor:
        """Returns x + dropout(branch), or dropout(branch) alone."""
        if self.rate == 0.0:
            return branch if x is None else x + branch
        self.uses += 1
        return ops.dropout_add(
            torch.zeros_like(branch) if x is None else x, branch, self.rate, self.seed + self.uses
        )


class Linear(nn.Linear):
    """A linear layer of a block, computed as `ops.linear` does."""

    def forward(self, input: Float[Tensor, "*N in"]) -> Float[Tensor, "*N out"]:
        """Returns W x + b."""
        return ops.linear(input, self.weight, self.bias)


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Returns x normalised over its last axis, stored as x is."""
        return ops.rms_norm(x, self.weight, self.epsilon)


class LayerNorm(nn.Module):
    """(x - mean) / deviation * weight + bias (Ba et al. 2016, arXiv:1607.06450), computed in float32."""

    def __init__(self, size: int, epsilon: float, shifted: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if shifted else None
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Returns x normalised over its last axis, stored as x is."""
        return ops.layer_norm(x, self.weight, self.bias, self.epsilon)


def make_norm(config: ModelConfig, size: int) -> nn.Module:
    """Returns the norm that the config names."""
    if config.norm == "rms":
        return RMSNorm(size, config.norm_epsilon)
    return LayerNorm(size, config.norm_epsilon, config.norm_bias)


def make_embedding(rows: int, width: int) -> nn.Embedding:
    """Returns a table of vectors; on the meta device without drawing any, for which torch would import its compiler."""
    if torch.get_default_device().type == "meta":
        return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
    return nn.Embedding(rows, width)


class Transform(nn.Module):
    """A layer with GELU and a norm before the output matrix (Devlin et al. 2019, as in BERT's published code)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width, bias=config.head_bias)
        self.norm = make_norm(config, config.width)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Returns what the output matrix reads."""
        bias = None if self.dense.bias is None else self.dense.bias.to(x.dtype)
        inner: Tensor = self.norm(ops.activate(F.linear(x, self.dense.weight.to(x.dtype), bias), "gelu"))
        return inner


def draw(parameter: Tensor, deviation: float, generator: torch.Generator) -> None:
    """Fills a parameter with normal numbers."""
    parameter.normal_(0.0, deviation, generator=generator)


def draw_common(model: Model, name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Draws a parameter that all models have: gains, biases, embeddings, matrices.

    Matrices are normal with standard deviation 1/sqrt(inputs). A token embedding of its own has deviation 1; one that
    is the output matrix too has 0.02, for at first every token predicts itself; one that is multiplied by
    sqrt(width) has 1/sqrt(width).
    """
    config = model.config
    if parameter.dim() < 2:
        parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    elif name == "embedding.weight":
        deviation = 0.02 if config.tied else 1.0
        draw(parameter, config.width**-0.5 if config.embedding_scale else deviation, generator)
    elif name.startswith(("positions", "token_types")):
        draw(parameter, 0.02, generator)
    else:
        draw(parameter, 1 / math.sqrt(parameter.shape[1]), generator)
