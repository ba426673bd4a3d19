"""What a model was trained with, and how it therefore reads."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from gristmill.batch import Visibility
from gristmill.config import Part, from_dict
from gristmill.model.config import ModelConfig
from gristmill.objectives.base import Objective

__all__ = ["objective_of", "visibility_for"]


def objective_of(config: Mapping[str, Any]) -> Objective | None:
    """Returns the objective in a checkpoint's manifest (its `config`), or None for weights from elsewhere."""
    table = config.get("pretrain", {}).get("objective")
    return None if table is None else from_dict(_Trained, {"objective": table}).objective


@dataclasses.dataclass(frozen=True)
class _Trained:
    objective: Annotated[Objective, Part("objectives")]


def visibility_for(objective: Objective | None, config: ModelConfig) -> Visibility:
    """Returns how a model that was trained with an objective reads a text that is all there.

    Encoders see all of it. So do decoders that saw all of a text in training: with "hybrid" the half that is masked,
    with "prefix" the prefix, which the text then is. Others see what stands before.
    """
    if config.kind == "decoder" and not (objective is not None and objective.reads_whole):
        return Visibility.CAUSAL
    return Visibility.FULL
