"""Parameters, floating-point operations and bytes, counted from the config before anything is made."""

from gristmill.model.config import ModelConfig

__all__ = ["activation_bytes_per_token", "parameter_counts", "training_bytes", "training_flops_per_token"]


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Returns parameters by part, and their total."""
    D, F, K = config.width, config.feed_forward, config.head_size
    inner, qkv = config.heads * K, (config.heads + 2 * config.kv_heads) * K
    gated = 2 if config.activation == "swiglu" else 1
    attention = D * qkv + inner * D + (config.bias and qkv + D)
    feed_forward = D * F * gated + F * D + (config.bias and F * gated + D)
    norm = D * (2 if config.norm == "layer" else 1)
    norms = (2 * config.layers + 1) * norm + (2 * K * config.layers if config.qk_norm else 0)
    parts = {
        "token_embedding": config.vocab_size * D,
        "position_embedding": config.maximum_positions * D if config.positions == "learned" else 0,
        "ngram_embedding": len(config.ngrams.orders) * config.ngrams.buckets * D if config.ngrams else 0,
        "attention": attention * config.layers,
        "feed_forward": feed_forward * config.layers,
        "norms": norms,
        "output": 0 if config.tied else config.vocab_size * D,
    }
    return {**parts, "total": sum(parts.values())}


def training_flops_per_token(config: ModelConfig, row_tokens: int) -> int:
    """Returns the operations of matrix products per token, forward and backward.

    6 for each weight that is multiplied, and attention's two products over half a row, for it is causal (Kaplan et
    al. 2020, arXiv:2001.08361, table 1).
    """
    counts = parameter_counts(config)
    multiplied = counts["attention"] + counts["feed_forward"] + config.vocab_size * config.width
    scores = 6 * config.layers * config.heads * config.head_size * row_tokens
    return int(6 * multiplied + scores)


def training_bytes(config: ModelConfig, *, micro_tokens: int, bfloat16: bool) -> int:
    """Returns an estimate of the memory of training: weights, optimizer, gradients, and activations of a micro-batch."""
    counts = parameter_counts(config)
    tables, total = counts["ngram_embedding"], counts["total"]
    weights = (total - tables) * (16 if not bfloat16 else 18) + 8 * tables
    return int(weights + micro_tokens * activation_bytes_per_token(config, bfloat16=bfloat16))


def activation_bytes_per_token(config: ModelConfig, *, bfloat16: bool) -> int:
    """Returns what the forward pass keeps for the backward pass, attention's scores left out."""
    inner = (config.heads + 2 * config.kv_heads) * config.head_size
    gated = 2 if config.activation == "swiglu" else 1
    kept = 6 * config.width + 2 * inner + (gated + 1) * config.feed_forward
    return config.layers * kept * (2 if bfloat16 else 4)
