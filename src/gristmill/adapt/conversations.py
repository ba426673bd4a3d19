"""Conversations as people have them: rows of many formats, read as turns that follow each other as they should.

    Alpaca               instruction, input (joined with a line end), output; also system, history
    a prompt             prompt (a text, or a list of turns), response (the columns can be named)
    ShareGPT             conversations: [{from: human | gpt | system | function_call | observation, value}]; also system, tools
    OpenAI               messages: [{role: user | assistant | system | tool, content, tool_calls}]; also tools

A conversation begins with the user, after what the system says, and the user and the assistant take turns; the assistant may call
tools, whose answers come next.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import Example
from gristmill.adapt.templates import Form, Role, Turn, call_text, tools_text
from gristmill.adapt.writing import shortened
from gristmill.errors import InputError, did_you_mean
from gristmill.tokenizer import Tokenizer

__all__ = ["Conversation", "answer_of", "check_order", "conversation_of", "fitted"]

LISTS = ("messages", "conversations", "conversation")
ROLES: Mapping[str, Role] = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "function_call": "assistant", "observation": "tool", "tool": "tool", "function": "tool",
}  # fmt: skip
AFTER: Mapping[Role, tuple[Role, ...]] = {
    "system": ("user",), "tools": ("user",), "user": ("assistant",), "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}  # fmt: skip
"""Who may speak after whom."""


@dataclasses.dataclass(frozen=True)
class Conversation(Example):
    """What was said, one turn after the other."""

    turns: tuple[Turn, ...]

    @property
    def key(self) -> str:
        """All before the assistant's last turn."""
        return "\n".join(turn.text for turn in self.unlabelled().turns)

    def unlabelled(self) -> "Conversation":
        """Returns the conversation without the assistant's last turn, if it ends with it."""
        kept = self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns
        return dataclasses.replace(self, turns=kept)

    @property
    def answer(self) -> str:
        """The assistant's last turn."""
        return self.turns[-1].text


def conversation_of(row: Row, prompt: str = "prompt", response: str | None = "response") -> tuple[Turn, ...]:
    """Returns the turns of a row, in whatever format they are; what the assistant says last may be missing.

    Args:
        row: what was read.
        prompt: the column of a prompt, where there is no list of turns and no instruction.
        response: the column of its answer; None where it is of no interest.

    Raises:
        InputError: there are no turns, or they do not follow each other as they should; the message names row and turn.
    """
    fields = row.fields
    lists = (*LISTS, prompt) if isinstance(fields.get(prompt), list) else LISTS
    column = next((name for name in lists if fields.get(name) is not None), None)
    answer: Any = None
    if column is not None:
        turns = _listed(row, column)
    elif fields.get("instruction") is not None:
        said = [_text(row, "instruction"), str(fields.get("input") or "").strip()]
        turns = [*_history(row), Turn("user", "\n".join(filter(None, said)))]
        answer = fields.get("output") if response is not None else None
    elif fields.get(prompt) is not None:
        turns = [Turn("user", _text(row, prompt))]
        answer = fields.get(response) if response is not None else None
    else:
        known = [name for name, value in fields.items() if value is not None]
        raise InputError(
            f'{row.place}: there is no conversation: none of {", ".join(LISTS)}, "instruction" or "{prompt}"',
            f"{did_you_mean(prompt, known)}; name the columns with task.prompt and task.response",
        )
    if answer is not None:
        name = "output" if column is None and "instruction" in fields else str(response)
        turns.append(Turn("assistant", _text(row, name)))
    turns = _opened(row, turns)
    check_order(row.place, turns)
    return tuple(turns)


def answer_of(row: Row, column: str) -> str:
    """Returns an answer that stands in a column: a text, a turn, or the last of several turns.

    Raises:
        InputError: there is none, or it is none of the assistant.
    """
    value = field_of(row, column)
    if isinstance(value, list):
        value = value[-1] if value else None
    if not isinstance(value, Mapping):
        return _text(row, column)
    turn = _turn(f'{row.place}, "{column}"', value)
    if turn.role != "assistant":
        raise InputError(
            f'{row.place}: "{column}" is said by "{turn.role}", expected the assistant', "mend this row"
        )
    return turn.text


def check_order(place: str, turns: Sequence[Turn]) -> None:
    """Looks whether turns follow each other as they should.

    Raises:
        InputError: they don't; the message names the turn.
    """
    before: Role | None = None
    for number, (role, _) in enumerate(turns, 1):
        allowed = AFTER[before] if before is not None else ("system", "tools", "user")
        if before == "system":
            allowed = ("tools", "user")
        if role not in allowed:
            where = "first" if before is None else f"after a turn of the {before}"
            raise InputError(
                f"{place}, turn {number}: a turn of the {role} stands {where}, expected one of the {' or the '.join(allowed)}",
                "mend this row, or take it out",
            )
        before = role


def fitted(turns: Sequence[Turn], form: Form, tokenizer: Tokenizer, room: int) -> tuple[Turn, ...] | None:
    """Returns turns to which the assistant is to say something, so short that they fit: None where they can't be.

    Early rounds go as a whole; where the last alone is too long, the longest text is cut at its end, and then the next longest.

    Args:
        turns: the last one is not the assistant's.
        form: how they are written.
        tokenizer: of the model.
        room: how many tokens they may have.
    """

    def size(said: Sequence[Turn]) -> int:
        return len(form.tokens(said))

    opening = [turn for turn in turns if turn.role in ("system", "tools")]
    said = list(turns[len(opening) :])
    while size([*opening, *said]) > room and (rest := _without_first_round(said)):
        said = rest
    kept = [*opening, *said]
    for i in sorted(range(len(kept)), key=lambda i: -len(kept[i].text)):
        if size(kept) <= room:
            break
        size_with = functools.partial(_size_with, size, tuple(kept), i)
        shorter = shortened(kept[i].text, tokenizer, size_with, room)
        kept[i] = kept[i]._replace(text=(shorter or "").strip())
    return tuple(kept) if size(kept) <= room else None


def _size_with(size: Callable[[Sequence[Turn]], int], turns: Sequence[Turn], place: int, text: str) -> int:
    """How large turns are with another text in place of one."""
    return size([*turns[:place], turns[place]._replace(text=text), *turns[place + 1 :]])


def _without_first_round(said: Sequence[Turn]) -> list[Turn]:
    """What comes from the second turn of the user on; nothing where there is none."""
    second = next((i for i, turn in enumerate(said) if i and turn.role == "user"), len(said))
    return list(said[second:])


# --- formats ----------------------------------------------------------------------------------------------------------


def _listed(row: Row, column: str) -> list[Turn]:
    found = row.fields[column]
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = None
    if not isinstance(found, list) or not found or not all(isinstance(each, Mapping) for each in found):
        raise InputError(
            f'{row.place}: "{column}" is no list of turns',
            'expected [{"from": "human", "value": "…"}, …] or [{"role": "user", "content": "…"}, …]',
        )
    return [_turn(f"{row.place}, turn {number}", each) for number, each in enumerate(found, 1)]


def _turn(place: str, fields: Mapping[str, Any]) -> Turn:
    name = fields.get("role", fields.get("from"))
    if name not in ROLES:
        raise InputError(
            f"{place}: said by {name!r}, which is nobody that is known", f"one of {', '.join(ROLES)}"
        )
    text = fields.get("content", fields.get("value"))
    calls = fields.get("tool_calls") or []
    if not isinstance(text, str) and not (text is None and calls):
        raise InputError(f"{place}: it says {text!r}, expected a text", "mend this row, or take it out")
    said = [(text or "").strip()]
    if name == "function_call":
        said = [f"<tool_call>\n{said[0]}\n</tool_call>"] if said[0] else []
    for call in calls:
        function = call.get("function") or call
        if not isinstance(function.get("name"), str):
            raise InputError(f"{place}: a tool is called that has no name", "mend this row, or take it out")
        said.append(call_text(function["name"], function.get("arguments", {})))
    whole = "\n".join(filter(None, said))
    if not whole:
        raise InputError(f"{place}: nothing is said", "mend this row, or take it out")
    return Turn(ROLES[name], whole)


def _history(row: Row) -> list[Turn]:
    """Earlier rounds of an Alpaca row: [[instruction, answer], …]."""
    found = row.fields.get("history") or []
    if not isinstance(found, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) and t.strip() for t in pair)
        for pair in found
    ):
        raise InputError(f'{row.place}: "history" is no list of pairs', "expected [[instruction, answer], …]")
    return [
        turn for one, two in found for turn in (Turn("user", one.strip()), Turn("assistant", two.strip()))
    ]


def _opened(row: Row, turns: Sequence[Turn]) -> list[Turn]:
    """The turns with what columns of their own say of system and tools."""
    system, tools = row.fields.get("system"), row.fields.get("tools")
    opening = [turns[0]] if turns[0].role == "system" else []
    said = list(turns[len(opening) :])
    if not opening and isinstance(system, str) and system.strip():
        opening = [Turn("system", system.strip())]
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except ValueError:
            raise InputError(f'{row.place}: "tools" is no JSON', "expected a list of tools") from None
    if tools:
        if not isinstance(tools, list):
            raise InputError(f'{row.place}: "tools" is {tools!r}, expected a list of tools', "mend this row")
        opening.append(Turn("tools", tools_text(tools)))
    return [*opening, *said]


def _text(row: Row, column: str) -> str:
    value = field_of(row, column)
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f'{row.place}: "{column}" is {value!r}, expected a text', "mend this row, or take it out"
        )
    return value.strip()
