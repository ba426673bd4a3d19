"""Instructions and conversations: the model learns to say what the assistant says.

The loss is that of the assistant's turns alone, the end of each among them. Formats are those of `adapt/conversations.py`, what
stands around turns is that of `adapt/templates.py`, and the model is saved with it, so that `gristmill chat` and stock tokenizers
write conversations as they were learned.

Of a conversation that is too long, early rounds go as a whole; where the last round alone is too long, its longest text is cut at
its end, and an answer that does not fit loses its end.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, final

from annotated_types import Ge, Gt, Interval

from gristmill.adapt.conversations import Conversation, conversation_of
from gristmill.adapt.encoding import Encoded, Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.tables import Row
from gristmill.adapt.talking import TalkingTask, rendered_to_fit
from gristmill.adapt.task import Item, Mistake, Result
from gristmill.adapt.tasks.sequences import Comparison, check_comparisons, compared, furthest
from gristmill.adapt.templates import TemplateName
from gristmill.adapt.writing import Said, likelihood, nats_of, prompt_room
from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = ["Chat"]

SHOWN = 5


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat(TalkingTask[Conversation]):
    """What an assistant says."""

    template: TemplateName | None = None
    """What stands around turns. By default what the base has learned already, "chatml" where its tokenizer has the tokens, or "plain"."""
    system: str = ""
    """What is said first in conversations that have no system turn."""
    prompt: str = "prompt"
    """The column of a prompt, in rows that have neither a list of turns nor an instruction."""
    response: str = "response"
    """The column of its answer."""
    max_new_tokens: Annotated[int, Gt(0)] = 256
    """The most tokens of an answer; so many, but at most half of `maximum_tokens`, are kept free behind a conversation."""
    written_examples: Annotated[int, Ge(0)] = 0
    """To how many of the examples that it is judged by the model writes an answer, which is compared with the one that is known."""
    metrics: tuple[Comparison, ...] = ("rouge", "chrf")
    """By what those are compared."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of each target that is spread over the vocabulary in training."""

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[Conversation]:
        """Returns the conversations of rows; what comes after the assistant's last turn is left out.

        Raises:
            InputError: one is no conversation, or the assistant says nothing in it.
        """
        found = []
        for row in rows:
            turns = conversation_of(row, self.prompt, self.response if labelled else None)
            if labelled:
                said = [number for number, turn in enumerate(turns, 1) if turn.role == "assistant"]
                if not said:
                    raise InputError(
                        f"{row.place}: there is no turn of the assistant, so there is nothing to learn",
                        "mend this row, or take it out",
                    )
                turns = turns[: said[-1]]
            found.append(Conversation(row.place, turns))
        return found

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether a model can write, and whether what it writes can be compared.

        Raises:
            InputError: it can't.
        """
        super().check(config, tokenizer)
        if self.written_examples:
            check_comparisons(self.metrics)

    def items(
        self, examples: Sequence[Conversation], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns an item for each conversation; one that does not end with the assistant is opened for its turn.

        Raises:
            InputError: one can't be cut so short that it fits.
        """
        room = prompt_room(encoder, self.max_new_tokens)
        form = self.form(tokenizer)
        found = []
        for number, (each, cut) in enumerate(
            rendered_to_fit([(e.place, e.turns) for e in examples], form, tokenizer, room)
        ):
            whole = each.end
            tokens = each.tokens[: min(whole, encoder.maximum_tokens)]
            encoded = Encoded(tokens, 0, each.last, cut + whole - len(tokens))
            found.append(Item(encoded, each.told[: len(tokens)], number))
        return found

    def answers(
        self, net: Net, items: Sequence[Item], examples: Sequence[Conversation], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Returns how likely the known answers are, or what the assistant says next where there are none."""
        known = [i for i, example in enumerate(examples) if example.turns[-1].role == "assistant"]
        found: list[dict[str, Any]] = [{} for _ in examples]
        for i, said in zip(known, nats_of(net, [items[i] for i in known]), strict=True):
            found[i] = {"answer_nats": said.nats, "answer_tokens": said.tokens}
        asked = sorted({*range(len(examples))} - {*known[self.written_examples :]})
        for i, text in zip(asked, self.written(net, [items[i] for i in asked]), strict=True):
            found[i]["text"] = text
        return list(found)

    def result(self, examples: Sequence[Conversation], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns how likely the known answers are, and on request how near to them those are that are written."""
        figures = likelihood([Said(each["answer_nats"], each["answer_tokens"]) for each in predictions])
        written = _written(examples, predictions)
        if not written:
            return Result(figures)
        near, notes = compared(
            [text for _, text in written], [(example.answer,) for example, _ in written], self.metrics
        )
        shown = [
            f"{example.turns[-2].text}\n  written: {text}\n  wanted:  {example.answer}\n"
            for example, text in written[:SHOWN]
        ]
        return Result({**figures, **near}, "\n".join([*shown, *notes]))

    def mistakes(
        self, examples: Sequence[Conversation], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns what was written and is not the answer that is known, that with the least chrF first."""
        written = _written(examples, predictions)
        return furthest(
            [(example.place, example.turns[-2].text, (example.answer,)) for example, _ in written],
            [text for _, text in written],
        )


def _written(
    examples: Sequence[Conversation], predictions: Sequence[Mapping[str, Any]]
) -> list[tuple[Conversation, str]]:
    return [
        (example, each["text"]) for example, each in zip(examples, predictions, strict=True) if "text" in each
    ]


EXPORT = Chat
