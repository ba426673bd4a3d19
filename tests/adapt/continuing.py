"""A task without a head, as small as one can be: the model says a text itself."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.tables import Row
from gristmill.adapt.task import Figure, Item, Result, Task
from gristmill.adapt.tasks.classification import TextExample, encoded, texts_of
from gristmill.batch import Loss
from gristmill.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuing(Task[TextExample]):
    """How likely a decoder finds texts."""

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[TextExample]:
        return [TextExample(row.place, texts_of(row, "text"), None) for row in rows]

    def outputs(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        return ()

    def items(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        return [Item(each, None, number) for number, each in enumerate(encoded(examples, tokenizer, encoder))]

    def loss(self, net: Net, items: Sequence[Item], dropout_seed: int = 0) -> Loss:
        packed = net.pack(items)
        logits = net.model.logits(net.hidden(packed, dropout_seed)).float()
        same = packed.batch.segments[0, 1:] == packed.batch.segments[0, :-1]
        losses = F.cross_entropy(logits[:-1], packed.batch.tokens[0, 1:], reduction="none")
        return Loss(total_nats=(losses * same).sum(), weight=same.float().sum())

    def answers(
        self, net: Net, items: Sequence[Item], examples: Sequence[TextExample], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        return [{"nats": float(self.loss(net, [item]).mean_nats.detach())} for item in items]

    def result(self, examples: Sequence[TextExample], predictions: Sequence[Mapping[str, Any]]) -> Result:
        return Result({"likelihood": Figure(-sum(each["nats"] for each in predictions) / len(predictions))})


EXPORT = Continuing
