"""What a task is: how its examples are read, what is learned from them, and how good what was learned is."""

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from gristmill.adapt.encoding import Encoded, Encoder
from gristmill.adapt.tables import Row
from gristmill.metrics.intervals import Interval
from gristmill.tokenizer import Tokenizer

__all__ = ["Example", "Figure", "Item", "Result", "Shape", "Task"]

Shape = Literal["example", "token"]
"""What scores are given for: an example, or each of its tokens."""


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


class Item(NamedTuple):
    """An example, or a part of a long one, as the model reads it, and what it should say."""

    encoded: Encoded
    target: Any
    example: int
    """The number of the example."""


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


E = TypeVar("E", bound=Example)


class Task(abc.ABC, Generic[E]):
    """Abstract. A frozen dataclass whose fields are its settings."""

    shape: ClassVar[Shape]

    @abc.abstractmethod
    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[E]:
        """Returns the examples of rows.

        Raises:
            InputError: a row lacks something, or says something that can't be; the message names it.
        """

    @abc.abstractmethod
    def outputs(self, examples: Sequence[E]) -> tuple[str, ...]:
        """Returns the names of what is scored: the classes of the training examples, say.

        Raises:
            InputError: there is nothing to learn.
        """

    @abc.abstractmethod
    def items(
        self, examples: Sequence[E], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns the examples as a model reads them."""

    @abc.abstractmethod
    def loss(self, scores: Float[Tensor, "N outputs"], items: Sequence[Item]) -> Float[Tensor, ""]:
        """Returns the mean loss of a batch.

        Args:
            scores: of each item, or of each token of one item after the other, as `shape` says.
            items: the batch.
        """

    @abc.abstractmethod
    def predictions(
        self,
        scores: Sequence[Float[np.ndarray, "... outputs"]],
        items: Sequence[Item],
        examples: Sequence[E],
        outputs: Sequence[str],
    ) -> list[Mapping[str, Any]]:
        """Returns what is predicted for each example, as JSON values; scores are those of each item."""

    @abc.abstractmethod
    def result(self, examples: Sequence[E], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns how good predictions are, for examples with labels."""
