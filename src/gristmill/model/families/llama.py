"""Llama (Touvron et al. 2023, arXiv:2302.13971): RMSNorm, rotary positions, SwiGLU, no biases."""

from gristmill.model.convert import llama_like

EXPORT = llama_like(
    architecture="LlamaForCausalLM",
    model_type="llama",
    qk_norm=False,
    norm_epsilon=1e-5,
    rotary_base=10_000.0,
)
