"""Tasks in which the model is an assistant: its turns are written between the marks of a template that it is saved with."""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from gristmill.adapt.conversations import fitted
from gristmill.adapt.encoding import Item
from gristmill.adapt.net import Net
from gristmill.adapt.task import Example
from gristmill.adapt.templates import Form, Rendered, TemplateName, Turn, form_of
from gristmill.adapt.writing import WritingTask, prompt_of, write
from gristmill.errors import InputError
from gristmill.model.config import Kind, ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = ["TalkingTask", "rendered_to_fit"]

E = TypeVar("E", bound=Example)


class TalkingTask(WritingTask[E]):
    """Abstract. A decoder learns what an assistant says."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"decoder"})
    template: TemplateName | None
    system: str
    prompt: str
    max_new_tokens: int

    @property
    def text(self) -> str:
        """The column that a text stands in that comes alone."""
        return self.prompt

    def form(self, tokenizer: Tokenizer) -> Form:
        """Returns how conversations are written."""
        return form_of(self.template, tokenizer, self.system)

    def finished(self, tokenizer: Tokenizer) -> Tokenizer:
        """Returns the tokenizer with the template."""
        return tokenizer.with_chat_template(self.form(tokenizer).jinja())

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether a model can write, and its tokenizer mark the end of a turn.

        Raises:
            InputError: it can't.
        """
        super().check(config, tokenizer)
        for name in ("bos", "eos"):
            if name in tokenizer.special and tokenizer.name(tokenizer.special[name]) not in tokenizer.spelled:
                raise InputError(
                    f"{name} of the tokenizer is no special token, so it can't mark the end of a turn",
                    'set "special": true where it stands in "added_tokens" of tokenizer.json',
                )

    def written(self, net: Net, items: Sequence[Item]) -> list[str]:
        """Returns what the assistant says in place of its last turn, or next."""
        form = self.form(net.tokenizer)
        prompts = [prompt_of(item) for item in items]
        return write(net, prompts, max_new_tokens=self.max_new_tokens, ends=form.ends, stop=form.stop)


def rendered_to_fit(
    conversations: Sequence[tuple[str, Sequence[Turn]]], form: Form, tokenizer: Tokenizer, room: int
) -> list[tuple[Rendered, int]]:
    """Returns conversations as the model reads them, what comes before the last answer cut to a room, and by how much.

    Raises:
        InputError: one can't be cut so short; the message names its place.
    """
    found = []
    rendered = form.rendered([turns for _, turns in conversations])
    for (place, turns), each in zip(conversations, rendered, strict=True):
        cut = 0
        if each.last > room:
            answer = turns[-1:] if turns[-1].role == "assistant" else ()
            shorter = fitted(turns[: len(turns) - len(answer)], form, tokenizer, room)
            if shorter is None:
                raise InputError(
                    f"{place}: what stands around the turns alone is longer than the {room:,} tokens that there is room for",
                    "raise maximum_tokens, lower task.max_new_tokens, or take a base that reads more",
                )
            whole = each.last
            (each,) = form.rendered([[*shorter, *answer]])
            cut = whole - each.last
        found.append((each, cut))
    return found
