r"""Preferences: of two answers to a prompt one is better, and the model learns to find it likelier than it did.

    Rafailov et al. 2023, arXiv:2305.18290 (DPO), equation 7: the loss "sigmoid"
    Azar et al. 2023, arXiv:2310.12036 (IPO), equation 17: the loss "ipo"
    Mitchell 2023, "A note on DPO with noisy preferences" (cDPO): label_smoothing
    Pang et al. 2024, arXiv:2404.19733, equation 1: sft

The reward of an answer is beta times how much its log-probability has grown since training began, and the margin of a pair is
the reward of the chosen answer less that of the rejected one. With the margin m and a pair's order wrong with probability e

    sigmoid   -(1 - e) log sigmoid(m) - e log sigmoid(-m)
    ipo       (m / beta - 1 / (2 beta))^2

and `sft` times the nats of a token of the chosen answer is added. Log-probabilities are summed over the tokens of the answer and
its end. Those of the model before training are computed once.

An answer that is longer than there is room for loses its end.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from jaxtyping import Bool, Float
from torch import Tensor

from gristmill.adapt.conversations import answer_of, conversation_of
from gristmill.adapt.encoding import Encoded, Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.tables import Row
from gristmill.adapt.talking import TalkingTask, rendered_to_fit
from gristmill.adapt.task import Example, Figure, Item, Mistake, Result
from gristmill.adapt.templates import TemplateName, Turn
from gristmill.adapt.writing import grouped, nats_of, prompt_room, read_items
from gristmill.batch import Batch, Loss
from gristmill.errors import InputError
from gristmill.metrics.intervals import ratio_interval, wilson_interval
from gristmill.model import ops
from gristmill.model.base import Model
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = ["Preference", "Preferences"]


@dataclasses.dataclass(frozen=True)
class Preference(Example):
    """A conversation to which the assistant is to say something, a better answer and a worse one; "" where none are known."""

    turns: tuple[Turn, ...]
    chosen: str
    rejected: str

    @property
    def key(self) -> str:
        """The conversation and both answers."""
        return "\n".join([self.group, self.chosen, self.rejected])

    @property
    def group(self) -> str:
        """The conversation: other answers to the same are in the same split."""
        return "\n".join(turn.text for turn in self.turns)

    def unlabelled(self) -> "Preference":
        """Returns the conversation alone."""
        return dataclasses.replace(self, chosen="", rejected="")


class _Answer(NamedTuple):
    """Which tokens of an item are its answer, and how likely the model found them before it was trained."""

    told: Bool[np.ndarray, " T"]
    reference: float | None


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Preferences(TalkingTask[Preference]):
    """Which of two answers is better."""

    beta: Annotated[float, Gt(0)] = 0.1
    """How much a reward is for a growth in log-probability: less lets the model go further from what it was."""
    loss_kind: Literal["sigmoid", "ipo"] = "sigmoid"
    """What is made of margins; "ipo" wants them to reach 1/2, and no more."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=0.5)] = 0.0
    """Share of the pairs that are thought to be in the wrong order; of "sigmoid"."""
    sft: Annotated[float, Ge(0)] = 0.0
    """How much the chosen answer's own loss counts besides: it keeps the chosen answers likely."""
    template: TemplateName | None = None
    """What stands around turns. By default what the base has learned already, "chatml" where its tokenizer has the tokens, or "plain"."""
    system: str = ""
    """What is said first in conversations that have no system turn."""
    prompt: str = "prompt"
    """The column of a prompt, in rows that have neither a list of turns nor an instruction."""
    chosen: str = "chosen"
    """The column of the better answer: a text, a turn, or a list of turns whose last it is."""
    rejected: str = "rejected"
    """The column of the worse one."""
    max_new_tokens: Annotated[int, Gt(0)] = 256
    """The most tokens of an answer; so many, but at most half of `maximum_tokens`, are kept free behind a conversation."""

    asks_base = True

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[Preference]:
        """Returns the examples of rows.

        Raises:
            InputError: one has no conversation before the answers, an answer is missing, or both are the same.
        """
        return [self._read(row, labelled) for row in rows]

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether a model can write, and whether the settings fit each other.

        Raises:
            InputError: they don't.
        """
        super().check(config, tokenizer)
        if self.label_smoothing and self.loss_kind == "ipo":
            raise InputError(
                'task.label_smoothing is of the loss "sigmoid", and task.loss_kind is "ipo"',
                "set task.label_smoothing = 0",
            )

    def items(
        self, examples: Sequence[Preference], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns two items for each example, that of the chosen answer first; one where no answers are known.

        Raises:
            InputError: a conversation can't be cut so short that it fits.
        """
        room, form = prompt_room(encoder, self.max_new_tokens), self.form(tokenizer)
        conversations: list[tuple[str, Sequence[Turn]]] = []
        owners = []
        for number, each in enumerate(examples):
            for answer in [each.chosen, each.rejected] if each.chosen else [None]:
                said = () if answer is None else (Turn("assistant", answer),)
                conversations.append((each.place, (*each.turns, *said)))
                owners.append(number)
        found = []
        fitting = rendered_to_fit(conversations, form, tokenizer, room)
        for number, (whole, cut) in zip(owners, fitting, strict=True):
            tokens = whole.tokens[: min(whole.end, encoder.maximum_tokens)]
            told = whole.told[: len(tokens)] & (np.arange(len(tokens)) >= whole.last)
            encoded = Encoded(tokens, 0, whole.last, cut + whole.end - len(tokens))
            found.append(Item(encoded, _Answer(told, None), number))
        return found

    def prepared(self, net: Net, items: Sequence[Item]) -> list[Item]:
        """Returns the items with how likely the model finds the answers now."""
        net.train(False)
        said = nats_of(net, _plain(items))
        return [
            item._replace(target=item.target._replace(reference=-one.nats))
            for item, one in zip(items, said, strict=True)
        ]

    def loss(self, net: Net, items: Sequence[Item], dropout_seed: int = 0) -> Loss:
        """Returns the loss of pairs, summed, and how many there are."""
        batch, hidden = read_items(net, _plain(items), dropout_seed)
        rows = _Rows.of(net.model, batch, hidden)
        with torch.no_grad():
            values = rows.log_probabilities(len(items))
        with torch.enable_grad():
            values.requires_grad_(True)
            total = self._pair_losses(values, items).sum()
            (shares,) = torch.autograd.grad(total, values)
        total = total.detach()
        if (
            torch.is_grad_enabled()
        ):  # scores of the whole vocabulary are never in memory, and so computed twice
            weighted = rows.weighted(shares)
            total = total + weighted - weighted.detach()
        return Loss(total_nats=total, weight=torch.tensor(len(items) / 2, device=total.device))

    def answers(
        self, net: Net, items: Sequence[Item], examples: Sequence[Preference], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Returns rewards of both answers where they are known, or what the assistant says next."""
        groups = grouped(items)
        alone = [group[0] for group in groups if len(group) == 1]
        texts = iter(self.written(net, alone))
        said = iter(nats_of(net, _plain([item for group in groups if len(group) == 2 for item in group])))
        found: list[Mapping[str, Any]] = []
        for group in groups:
            if len(group) == 1:
                found.append({"text": next(texts)})
                continue
            facts: dict[str, Any] = {}
            for name, item in zip(("chosen", "rejected"), group, strict=True):
                one = next(said)
                facts[name] = {
                    "nats": one.nats, "nats_before": -item.target.reference, "tokens": one.tokens,
                    "reward": self.beta * (-one.nats - item.target.reference),
                }  # fmt: skip
            found.append({**facts, "margin": facts["chosen"]["reward"] - facts["rejected"]["reward"]})
        return found

    def result(self, examples: Sequence[Preference], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns in how many pairs the chosen answer has the higher reward, and by how much."""
        margins = np.array([each["margin"] for each in predictions])
        ones, right = np.ones(len(margins)), int((margins > 0).sum())
        figures = {
            "accuracy": Figure(right / len(margins), wilson_interval(right, len(margins))),
            "margin": Figure(float(margins.mean()), ratio_interval(margins, ones, seed=0)),
        }
        lines = []
        for name in ("chosen", "rejected"):
            sums = {
                key: sum(each[name][key] for each in predictions) for key in ("nats", "nats_before", "tokens")
            }
            before, now = (sums[key] / max(1, sums["tokens"]) for key in ("nats_before", "nats"))
            lines.append(f"a token of {name} answers: {before:.4f} nats before training, {now:.4f} after")
        return Result(figures, "\n".join([*lines, ""]))

    def mistakes(
        self, examples: Sequence[Preference], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns the pairs whose rejected answer has the higher reward, that with the least margin first."""
        margins = [each["margin"] for each in predictions]
        return [
            Mistake(examples[i].place, examples[i].turns[-1].text, examples[i].chosen, examples[i].rejected)
            for i in sorted(range(len(margins)), key=lambda i: margins[i])
            if margins[i] <= 0
        ]

    def _read(self, row: Row, labelled: bool) -> Preference:
        answers = [answer_of(row, column) if labelled else "" for column in (self.chosen, self.rejected)]
        if labelled and answers[0] == answers[1]:
            raise InputError(
                f"{row.place}: the chosen and the rejected answer are the same, so there is nothing to learn",
                "take this row out",
            )
        turns = self._turns(row)
        if turns[-1].role == "assistant":
            raise InputError(
                f"{row.place}: before the answers stands a turn of the assistant, expected one of the user",
                f'the answers belong into "{self.chosen}" and "{self.rejected}" alone',
            )
        return Preference(row.place, turns, *answers)

    def _turns(self, row: Row) -> tuple[Turn, ...]:
        """What stands before both answers: of its own, or before the last turn of the chosen one."""
        whole = row.fields.get(self.chosen)
        has_own = any(
            row.fields.get(name) is not None
            for name in ("messages", "conversations", "conversation", "instruction", self.prompt)
        )
        if has_own or not isinstance(whole, list):
            return conversation_of(row, self.prompt, None)
        return conversation_of(Row(row.place, {**row.fields, "messages": whole[:-1]}), self.prompt, None)

    def _pair_losses(self, values: Float[Tensor, " N"], items: Sequence[Item]) -> Float[Tensor, " pairs"]:
        reference = torch.tensor(
            [item.target.reference for item in items], dtype=values.dtype, device=values.device
        )
        grown = values - reference
        apart = grown[0::2] - grown[1::2]
        if self.loss_kind == "ipo":
            losses = (apart - 1 / (2 * self.beta)).square()
        else:
            margins, wrong = self.beta * apart, self.label_smoothing
            losses = -(1 - wrong) * F.logsigmoid(margins) - wrong * F.logsigmoid(-margins)
        if self.sft:
            counts = [int(item.target.told.sum()) for item in items[0::2]]
            tokens = torch.tensor(counts, dtype=values.dtype, device=values.device)
            losses = losses - self.sft * values[0::2] / tokens
        return losses


class _Rows(NamedTuple):
    """The hidden states from which answers are told."""

    model: Model
    hidden: Float[Tensor, "M D"]
    targets: Tensor
    owners: Tensor
    """Of which item each is."""

    @classmethod
    def of(cls, model: Model, batch: Batch, hidden: Float[Tensor, "1 T D"]) -> "_Rows":
        chosen = batch.weights[0] != 0
        return cls(
            model, model.to_output(hidden[0][chosen]), batch.targets[0][chosen], batch.segments[0][chosen] - 1
        )

    def log_probabilities(self, items: int) -> Float[Tensor, " N"]:
        """Returns that of each item, without gradient."""
        _, nats = self._cross_entropy(torch.ones(len(self.targets), device=self.hidden.device))
        return torch.zeros(items, device=nats.device).index_add_(0, self.owners, -nats.float())

    def weighted(self, shares: Float[Tensor, " N"]) -> Float[Tensor, ""]:
        """Returns the sum of log-probabilities, each multiplied with a share."""
        total, _ = self._cross_entropy(-shares[self.owners])
        return total

    def _cross_entropy(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        model = self.model
        return ops.cross_entropy(self.hidden, model.output_weight, self.targets, weights, model.output_bias)


def _plain(items: Sequence[Item]) -> list[Item]:
    """Items whose targets are the tokens that are to be written."""
    return [item._replace(target=item.target.told) for item in items]


EXPORT = Preferences
