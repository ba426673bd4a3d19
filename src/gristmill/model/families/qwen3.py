"""Qwen3 (Yang et al. 2025, arXiv:2505.09388): RMSNorm on queries and keys, rotary positions, SwiGLU, no biases."""

from gristmill.model.convert import llama_like

EXPORT = llama_like(
    architecture="Qwen3ForCausalLM",
    model_type="qwen3",
    qk_norm=True,
    norm_epsilon=1e-6,
    rotary_base=1_000_000.0,
)
