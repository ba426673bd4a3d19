"""From a config to the model that it describes."""

from gristmill.model.base import Model
from gristmill.model.config import ModelConfig
from gristmill.model.transformer import Transformer

__all__ = ["make_model"]


def make_model(config: ModelConfig, *, dropout: float = 0.0) -> Model:
    """Returns a model with uninitialised weights: the Transformer, or the recurrent baseline that the config names."""
    if config.core == "transformer":
        return Transformer(config, dropout=dropout)
    from gristmill.model.recurrent import Recurrent

    return Recurrent(config, dropout=dropout)
