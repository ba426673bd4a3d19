"""Task models in the words of transformers: which class, and what its weights are called.

    bert          a pooler (example) or nothing (token), then `classifier` or `qa_outputs`
    modernbert    `head.dense`, `head.norm`, `classifier` in every class
    gpt2          `score` (example), `classifier` (token), `qa_outputs`
    llama, qwen3  `score` (both), `qa_outputs`, whose classes call the model `transformer`
    t5            `classifier` (token), on the encoder alone

Its class for examples reads T5's decoder, and neither Marian nor a recurrence has a class with a head.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, final

from torch import Tensor

from gristmill import plugins
from gristmill.adapt.heads import Head
from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.model.family import Family

__all__ = ["TASKS", "Stock", "stock_for"]

TASKS: Mapping[str, tuple[str, str | None]] = {
    "classification": ("ForSequenceClassification", "single_label_classification"),
    "multi_label": ("ForSequenceClassification", "multi_label_classification"),
    "similarity": ("ForSequenceClassification", "regression"),
    "tagging": ("ForTokenClassification", None),
    "reading": ("ForQuestionAnswering", None),
    "multiple_choice": ("ForMultipleChoice", None),
    "embeddings": ("Model", None),
}
"""The end of the class's name, and its `problem_type`, for each task whose head transformers has."""

_STEMS = {
    "bert": "Bert", "modernbert": "ModernBert", "gpt2": "GPT2", "llama": "Llama", "qwen3": "Qwen3", "t5": "T5",
}  # fmt: skip
_TRUNKS = {
    "bert": "bert.", "modernbert": "model.", "gpt2": "transformer.", "llama": "model.", "qwen3": "model.",
    "t5": "transformer.",
}  # fmt: skip
"""What stands before the names of the model's own weights in a class with a head."""

_POOLER = {"dense": "bert.pooler.dense", "out": "classifier"}
_LAYER = {"dense": "head.dense", "norm": "head.norm", "out": "classifier"}
_SCORE, _CLASSIFIER, _ANSWERS = {"out": "score"}, {"out": "classifier"}, {"out": "qa_outputs"}
_HEADS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "ForSequenceClassification": {
        "bert": _POOLER, "modernbert": _LAYER, "gpt2": _SCORE, "llama": _SCORE, "qwen3": _SCORE,
    },
    "ForTokenClassification": {
        "bert": _CLASSIFIER, "modernbert": _LAYER, "gpt2": _CLASSIFIER, "llama": _SCORE, "qwen3": _SCORE,
        "t5": _CLASSIFIER,
    },
    "ForQuestionAnswering": {
        "bert": _ANSWERS, "modernbert": _LAYER, "gpt2": _ANSWERS, "llama": _ANSWERS, "qwen3": _ANSWERS,
    },
    "ForMultipleChoice": {"bert": _POOLER, "modernbert": _LAYER},
    "Model": {family: {} for family in _STEMS},
}  # fmt: skip
"""By the end of the class's name and the family: our layers of a head, and theirs."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Stock:
    """A class of transformers, and where the weights of a model and its head are in it."""

    config: ModelConfig
    """Of the model without the heads of its pretraining."""
    end: str
    """Of the class's name: "ForTokenClassification"; empty for the class that the model was pretrained in."""
    head: Mapping[str, str]
    """Our layers of a head, and theirs."""

    @property
    def architecture(self) -> str:
        """The name of the class."""
        if not self.end:
            return self._family.architecture(self.config)
        end = "EncoderModel" if (self.config.family, self.end) == ("t5", "Model") else self.end
        return _STEMS[self.config.family] + end

    def fields(self) -> dict[str, Any]:
        """Returns the fields of config.json that the model's sizes decide."""
        return self._family.to_config(self.config) | {"architectures": [self.architecture]}

    def state(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the model's weights by their names in this class; those of other heads are left out."""
        theirs = self._family.to_state(self.config, weights)
        if not self.end:
            return theirs
        own = {"gpt2": "transformer.", "llama": "model.", "qwen3": "model."}.get(self.config.family, "")
        return {
            self._trunk + name.removeprefix(own): tensor
            for name, tensor in theirs.items()
            if not name.startswith(("lm_head.", "decoder."))
        }

    def head_state(self, head: Head) -> dict[str, Tensor]:
        """Returns the head's weights by their names in this class.

        Raises:
            InputError: this head reads something else than the class's.
        """
        place = "first" if self.config.kind == "encoder" else "last"
        layers = {name.rpartition(".")[0] for name in head.state_dict()}
        if layers != set(self.head) or (head.shape == "example" and head.pooling != place):
            raise InputError(
                f"the head is another than that of {self.architecture}, which scores the {place} position of a text",
                "adapt the model with the family's own head to export it; this one is used with `gristmill predict`",
            )
        found = {}
        for name, tensor in head.state_dict().items():
            layer, _, part = name.rpartition(".")
            found[f"{self.head[layer]}.{part}"] = tensor.contiguous()
        return found

    @property
    def _trunk(self) -> str:
        if self.end == "Model":
            return ""
        if self.end == "ForQuestionAnswering" and self.config.family in ("llama", "qwen3"):
            return "transformer."
        return _TRUNKS[self.config.family]

    @property
    def _family(self) -> Family:
        family: Family = plugins.load("model.families", self.config.family)
        return family


def stock_for(task: str | None, config: ModelConfig) -> Stock:
    """Returns the class that a task's head and a model's family fit into; of no task the one of its pretraining.

    Raises:
        InputError: there is none; the message says which there are.
    """
    if task is None:
        return Stock(config=config, end="", head={})
    if task not in TASKS:
        raise InputError(
            f'no class in transformers has the head of the task "{task}", so it can not be exported',
            f"these can: {', '.join(sorted(TASKS))}; use it with `gristmill predict`",
        )
    end = TASKS[task][0]
    if config.family not in _HEADS[end]:
        raise InputError(
            f'no class in transformers is a "{config.family}" with the head of the task "{task}"',
            f"adapt a model of one of the families {', '.join(_HEADS[end])} to export it; "
            "this one is used with `gristmill predict`",
        )
    bare = config
    if config.kind == "encoder":
        bare = dataclasses.replace(
            config, head="linear", output_bias=False, pair_head=False, generator_layers=0
        )
    return Stock(config=bare, end=end, head=_HEADS[end][config.family])
