"""What a task is: how its examples are read, what is learned from them, and how good what was learned is."""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gristmill.adapt.encoding import Encoder, Item
from gristmill.adapt.heads import Head, Shape
from gristmill.adapt.net import Net
from gristmill.adapt.tables import Row
from gristmill.adapt.vectors import Vectors
from gristmill.augment.characters import Edit
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.intervals import Interval
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = [
    "NO_CHANCE",
    "SWAPPED",
    "Example",
    "Figure",
    "Item",
    "Mistake",
    "Result",
    "ScoredTask",
    "Task",
    "side_by_side",
    "summed",
    "weights_of",
]

NO_CHANCE = -1e9
"""The score of what can't be; finite, so that no difference of two is undefined."""

SWAPPED = "swapped words"
"""The operator of edits after which a word stands where another stood."""


@dataclasses.dataclass(frozen=True)
class Example(abc.ABC):
    """Abstract. What a row says, and where it stands; its label is None where there is none."""

    place: str

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """What makes it another example than others: its text or texts."""

    @property
    def kind(self) -> str:
        """Of which there should be as many in each split: its class, where it has one."""
        return ""

    @property
    def group(self) -> str:
        """What never stands in two splits: the document that it is from, by default its own text."""
        return self.key

    @abc.abstractmethod
    def unlabelled(self: "_Example") -> "_Example":
        """Returns the example without what is to be predicted."""


class Figure(NamedTuple):
    """A number of merit, and how far it would move with other examples of the same kind."""

    value: float
    interval: Interval | None = None


class Result(NamedTuple):
    """How good predictions are."""

    figures: Mapping[str, Figure]
    """By their names in the field; the first is what a model is chosen by."""
    table: str = ""
    """Class by class, for people."""
    confusion: Mapping[str, Mapping[str, int]] | None = None
    """True class -> predicted class -> how often, where that is a question."""


class Mistake(NamedTuple):
    """An example of which something else is said than what was expected, for people to look at."""

    place: str
    text: str
    expected: str
    said: str
    probability: float | None = None
    """How sure the model is of what it says."""


E = TypeVar("E", bound=Example)
T = TypeVar("T", bound="Task[Any]")


class Task(abc.ABC, Generic[E]):
    """Abstract. A frozen dataclass whose fields are its settings."""

    chosen_by: ClassVar[str | None] = None
    """By which figure the best epoch is chosen; None is the first, "loss" the loss on the validation examples."""
    reads_prompts: ClassVar[bool] = False
    """Whether a task without a head computes with `Net.hidden`, so that learned vectors before the text reach it."""
    asks_base: ClassVar[bool] = False
    """Whether `prepared` asks the model before it is trained."""
    untrained: ClassVar[bool] = False
    """Whether it answers as the model came, so that nothing needs to be learned."""

    @abc.abstractmethod
    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[E]:
        """Returns the examples of rows.

        Raises:
            InputError: a row lacks something, or says something that can't be; the message names it.
        """

    @abc.abstractmethod
    def outputs(self, examples: Sequence[E]) -> tuple[str, ...]:
        """Returns the names of what is scored: the classes of the training examples, say; none where it writes text.

        Raises:
            InputError: there is nothing to learn.
        """

    def settled(self: T, examples: Sequence[Any], seed: int) -> T:
        """Returns the task with what it needs to know of the training examples, so that its settings say all that it does."""
        return self

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether a model can do it, before anything is trained.

        Raises:
            InputError: it can't; the message says which can.
        """

    @abc.abstractmethod
    def items(
        self, examples: Sequence[E], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns the examples as a model reads them, in their order.

        Raises:
            InputError: a label is none of the outputs.
        """

    def head(
        self, config: ModelConfig, outputs: Sequence[str], *, dropout: float, seed: int
    ) -> Head | Vectors | None:
        """Returns what gives scores; None for a task whose answers the model writes itself."""
        return None

    def begin(self, net: Net, items: Sequence[Item]) -> None:
        """Gives the head its first weights in place, where they depend on the training examples."""
        return None

    def finished(self, tokenizer: Tokenizer) -> Tokenizer:
        """Returns the tokenizer as it is kept with the model, where the task adds how a text is written."""
        return tokenizer

    def noised(self, example: E, change: Callable[[str], Sequence[Edit]]) -> E:
        """Returns an example with its texts changed, and the same label.

        Raises:
            InputError: the label would not fit any more.
        """
        raise InputError(
            "examples of this task can't be changed without their labels", "take out the table [augment]"
        )

    def labelled(self, example: E, prediction: Mapping[str, Any]) -> tuple[E, float]:
        """Returns an example with what is predicted for it as its label, and how likely that is to be right.

        Raises:
            InputError: what is predicted is no label to learn from.
        """
        raise InputError("what this task predicts is not learned from", "take out the table [self_training]")

    def prepared(self, net: Net, items: Sequence[Item]) -> list[Item]:
        """Returns the items with what the model says of them before it is trained, where the loss needs it."""
        return list(items)

    @abc.abstractmethod
    def loss(self, net: Net, items: Sequence[Item], dropout_seed: int = 0) -> Loss:
        """Returns the loss of a batch: a sum and the weight to divide it by, so that parts of a step add up."""

    @abc.abstractmethod
    def answers(
        self, net: Net, items: Sequence[Item], examples: Sequence[E], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Returns what is predicted for each example, as JSON values."""

    def calibrated(self, examples: Sequence[E], predictions: Sequence[Mapping[str, Any]]) -> "Task[E]":
        """Returns the task as a trained model is used for it: with a threshold, say, that its validation examples tell.

        Args:
            examples: those by which the model was chosen, with labels.
            predictions: what it says of them.
        """
        return self

    @abc.abstractmethod
    def result(self, examples: Sequence[E], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns how good predictions are, for examples with labels."""

    def mistakes(self, examples: Sequence[E], predictions: Sequence[Mapping[str, Any]]) -> list[Mistake]:
        """Returns what is not as it should be, the worst first; none where that is no question of right and wrong."""
        return []


class ScoredTask(Task[E]):
    """Abstract. A task whose answers are read from scores that a head gives."""

    shape: ClassVar[Shape]

    def head(self, config: ModelConfig, outputs: Sequence[str], *, dropout: float, seed: int) -> Head:
        """Returns a head of the stock class, with a score for each output."""
        return Head(config, len(outputs), self.shape, dropout=dropout, seed=seed)

    def loss(self, net: Net, items: Sequence[Item], dropout_seed: int = 0) -> Loss:
        """Returns the loss of a batch."""
        return self.loss_of(net.scores(items, dropout_seed), items)

    def answers(
        self, net: Net, items: Sequence[Item], examples: Sequence[E], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Returns what is predicted for each example."""
        return self.predictions(net.scores_of(items), items, examples, outputs)

    @abc.abstractmethod
    def loss_of(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Loss:
        """Returns the loss of scores.

        Args:
            scores: of each item, or of each token of one item after the other, as `shape` says.
            items: the batch; each counts as much as its `weight`.
        """

    def divergence(
        self, scores: Float[Tensor, "N outputs"], other: Float[Tensor, "N outputs"], items: Sequence[Item]
    ) -> Float[Tensor, ""]:
        """Returns how far two sets of scores of the same items are apart, summed over what `loss_of` sums.

        By default the mean of both Kullback-Leibler divergences of their softmax, as in R-Drop
        (Wu et al. 2021, arXiv:2106.14448).
        """
        one, two = F.log_softmax(scores, -1), F.log_softmax(other, -1)
        return ((one.exp() - two.exp()) * (one - two)).sum() / 2

    @abc.abstractmethod
    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[E],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns what is predicted for each example, as JSON values; scores are those of each item."""


def summed(losses: Float[Tensor, " N"], weights: Float[Tensor, " N"]) -> Loss:
    """Returns the weighted sum of losses and the sum of weights."""
    return Loss(total_nats=(losses * weights).sum(), weight=weights.sum())


def side_by_side(
    scores: Float[Tensor, "N outputs"], lengths: Sequence[int]
) -> Float[Tensor, "groups longest outputs"]:
    """Returns the scores of groups that follow each other as a table of groups; what is missing has no chance."""
    groups = torch.split(scores, list(lengths))
    return nn.utils.rnn.pad_sequence(list(groups), batch_first=True, padding_value=NO_CHANCE)


def weights_of(items: Sequence[Item], like: Tensor) -> Float[Tensor, " N"]:
    """Returns how much each item counts."""
    return torch.tensor([item.weight for item in items], dtype=torch.float32, device=like.device)


_Example = TypeVar("_Example", bound=Example)
