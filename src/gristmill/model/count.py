"""Parameters, floating-point operations and bytes, counted from the config before anything is made."""

import functools

import torch

from gristmill.model.build import make_model
from gristmill.model.config import ModelConfig

__all__ = ["activation_bytes_per_token", "parameter_counts", "training_bytes", "training_flops_per_token"]


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Returns parameters by part, and their total."""
    return dict(_parameter_counts(config))


@functools.lru_cache(maxsize=64)
def _parameter_counts(config: ModelConfig) -> dict[str, int]:
    with torch.device("meta"):
        model = make_model(config)
    parts = dict.fromkeys(
        ("token_embedding", "position_embedding", "ngram_embedding", "attention", "feed_forward", "norms", "output"), 0
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        parts[_part(name)] += parameter.numel()
    return {**parts, "total": sum(parts.values())}


def _part(name: str) -> str:
    if name.startswith("embedding."):
        return "token_embedding"
    if name.startswith(("positions.", "token_types.")):
        return "position_embedding"
    if name.startswith("ngrams"):
        return "ngram_embedding"
    if "norm" in name:
        return "norms"
    if ".feed_forward." in name:
        return "feed_forward"
    if ".attention." in name or ".cross." in name or "relative" in name or ".recurrence." in name:
        return "attention"
    return "output"


def training_flops_per_token(
    config: ModelConfig, row_tokens: int, *, scored: float | int = 1.0, positions: float | int = 1.0
) -> int:
    """Returns the operations of matrix products per token of a row, forward and backward.

    6 for each weight that is multiplied, and attention's two products over what a position sees: half a row where it
    is causal, a window where it is local (Kaplan et al. 2020, arXiv:2001.08361, table 1). Of an encoder-decoder, a
    position is one that is read or one that is written, and passes through one half of the model.

    Args:
        config: the model; a generator beside it counts too.
        row_tokens: how long rows are.
        scored: the share of the tokens for which scores over the vocabulary are computed (`Objective.scored_share`).
        positions: positions that are computed for each token (`Objective.positions_per_token`).
    """
    counts = parameter_counts(config)
    multiplied = counts["attention"] + counts["feed_forward"]
    layers = config.layers
    if config.encoder_layers:
        share = config.encoder_layers / (config.encoder_layers + config.layers)
        multiplied = int(max(share, 1 - share) * multiplied)
        layers = max(config.layers, config.encoder_layers)
    seen = 0.0
    for layer in (*range(layers), *range(config.generator_layers)) if config.core == "transformer" else ():
        whole = row_tokens * (0.5 if config.kind == "decoder" else 1.0)
        seen += min(whole, 2 * config.window + 1) if config.is_local(layer) else whole
    scores = 12 * config.heads * config.head_size * seen
    return int(positions * (6 * multiplied + scores) + 6 * scored * config.vocab_size * config.width)


def training_bytes(
    config: ModelConfig, *, micro_tokens: int, bfloat16: bool, positions: float | int = 1.0
) -> int:
    """Returns an estimate of the memory of training: weights, optimizer, gradients, and activations of a micro-batch.

    `positions` is how many positions are computed for each token (`Objective.positions_per_token`).
    """
    counts = parameter_counts(config)
    tables, total = counts["ngram_embedding"], counts["total"]
    weights = (total - tables) * (16 if not bfloat16 else 18) + 8 * tables
    kept = activation_bytes_per_token(config, bfloat16=bfloat16, positions=positions)
    return int(weights + micro_tokens * kept)


def activation_bytes_per_token(config: ModelConfig, *, bfloat16: bool, positions: float | int = 1.0) -> int:
    """Returns what the forward pass keeps for the backward pass, attention's scores left out."""
    inner = (config.heads + 2 * config.kv_heads) * config.head_size
    kept = 6 * config.width + 2 * inner + ((2 if config.gated else 1) + 1) * config.feed_forward
    layers = max(config.layers, config.encoder_layers) + config.generator_layers
    return int(positions * layers * kept * (2 if bfloat16 else 4))
