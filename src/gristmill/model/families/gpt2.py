"""GPT-2 (Radford et al. 2019): LayerNorm before each layer, learned positions, GELU, biases, tied output."""

from gristmill.model.convert import gpt2_like

EXPORT = gpt2_like()
