r"""How a conversation is written as one text: a few templates as data, and as the Jinja text of stock tokenizers.

    plain    User:\n…\n\n                          Assistant:\n…<eos>\n\n
    alpaca   ### Instruction:\n…\n\n               ### Response:\n…<eos>\n\n
    chatml   <|im_start|>user\n…<|im_end|>\n       <|im_start|>assistant\n…<|im_end|>\n

In front stands the token that begins a text, where the tokenizer has one of its own. `plain` and `alpaca` need no new tokens.
Those of `chatml` are used where the tokenizer has them; elsewhere they are spelled out, which costs some tokens a turn.

What is written here and what `apply_chat_template` of transformers writes with the Jinja text are the same, token by token, but
for one case: special tokens in what people say are text here, and tokens there.
"""

import ast
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, final

import numpy as np
from jaxtyping import Bool

from gristmill.generate.completing import prompt_tokens
from gristmill.tokenizer import Tokenizer

__all__ = [
    "TEMPLATES",
    "Form",
    "Rendered",
    "Role",
    "Template",
    "TemplateName",
    "Turn",
    "form_of",
    "stored_form",
]

Role = Literal["system", "tools", "user", "assistant", "tool"]
TemplateName = Literal["plain", "alpaca", "chatml"]
OPENING: tuple[Role, ...] = ("system", "tools")
"""What stands first, as one turn."""
EOS = "{eos}"


class Turn(NamedTuple):
    """What someone says; "tools" is which tools there are, "tool" the answer of one that the assistant called."""

    role: Role
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template:
    """What stands around what is said."""

    before: Mapping[Role, str]
    after: Mapping[Role, str]
    end: str
    """What the assistant ends its turn with; it stands before what is after it."""


def _chatml(role: str) -> str:
    return f"<|im_start|>{role}\n"


TEMPLATES: Mapping[TemplateName, Template] = {
    "plain": Template(
        before={"system": "", "user": "User:\n", "assistant": "Assistant:\n", "tool": "Result:\n"},
        after={"system": "\n\n", "user": "\n\n", "assistant": "\n\n", "tool": "\n\n"},
        end=EOS,
    ),
    "alpaca": Template(
        before={
            "system": "",
            "user": "### Instruction:\n",
            "assistant": "### Response:\n",
            "tool": "### Result:\n",
        },
        after={"system": "\n\n", "user": "\n\n", "assistant": "\n\n", "tool": "\n\n"},
        end=EOS,
    ),
    "chatml": Template(
        before={
            "system": _chatml("system"),
            "user": _chatml("user"),
            "assistant": _chatml("assistant"),
            "tool": _chatml("tool"),
        },
        after={"system": "<|im_end|>\n", "user": "<|im_end|>\n", "assistant": "\n", "tool": "<|im_end|>\n"},
        end="<|im_end|>",
    ),
}


class Rendered(NamedTuple):
    """A conversation as the model reads it."""

    tokens: tuple[int, ...]
    told: Bool[np.ndarray, " T"]
    """Which of them the assistant says, the end of its turns among them."""
    last: int
    """Where the last turn of the assistant begins: behind all tokens, where it is still to be written."""

    @property
    def end(self) -> int:
        """Where it ends: what stands behind it is nothing to be written, and nothing comes after it."""
        return int(np.flatnonzero(self.told)[-1]) + 1 if self.last < len(self.tokens) else self.last


class _Piece(NamedTuple):
    text: str
    is_said: bool
    """What someone said, and no mark."""
    is_told: bool


@final
class Form:
    """A template in the words of a tokenizer."""

    def __init__(self, name: TemplateName, tokenizer: Tokenizer, system: str = "") -> None:
        """Takes what is said first in conversations without a system turn, too; the tokenizer has an eos."""
        self.name, self.system, self.template = name, system.strip(), TEMPLATES[name]
        self._tokenizer = tokenizer
        self._eos = tokenizer.name(tokenizer.special["eos"])
        self._has_bos = bool(prompt_tokens(tokenizer, ""))
        self._bos = tokenizer.name(tokenizer.special["bos"]) if self._has_bos else ""

    @property
    def ends(self) -> tuple[int, ...]:
        """The token that ends a turn of the assistant, where it is one."""
        found = self._tokenizer.spelled.get(self._marked(self.template.end))
        return () if found is None else (found,)

    @property
    def stop(self) -> tuple[str, ...]:
        """The text that ends a turn of the assistant, where it is no token."""
        return () if self.ends else (self._marked(self.template.end),)

    def text(self, turns: Sequence[Turn], *, opened: bool) -> str:
        """Returns a conversation as one text, special tokens spelled out.

        Args:
            turns: what was said.
            opened: whether it ends with what stands before a turn of the assistant.
        """
        return "".join(piece.text for piece in self._pieces(turns, opened=opened))

    def tokens(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Returns what the model reads before it says something to these turns."""
        return self.rendered([turns])[0].tokens

    def rendered(self, conversations: Sequence[Sequence[Turn]]) -> list[Rendered]:
        """Returns conversations as the model reads them; one that does not end with the assistant is opened for it."""
        every = [self._pieces(turns, opened=turns[-1].role != "assistant") for turns in conversations]
        encoded = self._tokenizer.encode_spelled(["".join(p.text for p in pieces) for pieces in every])
        return [
            _marked(pieces, *(self._apart(pieces) if self._has_special(pieces) else found))
            for pieces, found in zip(every, encoded, strict=True)
        ]

    def jinja(self) -> str:
        """Returns the template as stock tokenizers have it."""
        head, tail = self._jinja_around()
        return head + _literal(self.system) + tail

    def system_in(self, jinja: str) -> str | None:
        """Returns what is said first by a text in Jinja; None where that is not this template."""
        head, tail = self._jinja_around()
        if not (jinja.startswith(head) and jinja.endswith(tail)):
            return None
        found: str = ast.literal_eval(jinja[len(head) : len(jinja) - len(tail)])
        return found

    def _pieces(self, turns: Sequence[Turn], *, opened: bool) -> list[_Piece]:
        template = self.template
        pieces = [_Piece(self._bos, False, False)]
        opening: dict[Role, str] = {
            "system": self.system,
            **{turn.role: turn.text for turn in turns if turn.role in OPENING},
        }
        system = "\n\n".join(opening[role] for role in OPENING if opening.get(role))
        said = [turn for turn in turns if turn.role not in OPENING]
        for role, text in [*([Turn("system", system)] if system else []), *said]:
            by_model = role == "assistant"
            pieces += [_Piece(template.before[role], False, False), _Piece(text, True, by_model)]
            if by_model:
                pieces.append(_Piece(self._marked(template.end), False, True))
            pieces.append(_Piece(template.after[role], False, False))
        if opened:
            pieces.append(_Piece(template.before["assistant"], False, False))
        return pieces

    def _marked(self, mark: str) -> str:
        return mark.replace(EOS, self._eos)

    def _has_special(self, pieces: Sequence[_Piece]) -> bool:
        return any(
            piece.is_said and mark in piece.text for piece in pieces for mark in self._tokenizer.spelled
        )

    def _apart(self, pieces: Sequence[_Piece]) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens and their places, each piece on its own, so that nothing that is said is read as a special token."""
        tokens: list[int] = []
        places: list[tuple[int, int]] = []
        at = 0
        for piece in pieces:
            encode = self._tokenizer.encode_with_places if piece.is_said else self._tokenizer.encode_spelled
            ((ids, spans),) = encode([piece.text])
            tokens += ids
            places += [(at + first, at + after) for first, after in spans]
            at += len(piece.text)
        return tokens, places

    def _jinja_around(self) -> tuple[str, str]:
        """The template in Jinja, before and after the literal of what is said first."""

        def around(role: Role, text: str, end: str = "") -> str:
            marks = _expression(self.template.before[role]), _expression(end + self.template.after[role])
            return "{{- " + " + ".join(part for part in (marks[0], text, marks[1]) if part) + " -}}"

        begin = "{{- bos_token -}}" if self._has_bos else ""
        head = begin + "{%- set ns = namespace(text='', system="
        tail = (
            ") -%}"
            "{%- if messages and messages[0]['role'] == 'system' -%}"
            "{%- set ns.system = messages[0]['content'] | trim -%}{%- endif -%}"
            "{%- if tools -%}{%- set ns.system = (ns.system + '\\n\\nTools:') | trim -%}"
            "{%- for tool in tools -%}{%- set ns.system = ns.system + '\\n' + (tool | tojson) -%}{%- endfor -%}{%- endif -%}"
            "{%- if ns.system -%}" + around("system", "ns.system") + "{%- endif -%}"
            "{%- for message in messages -%}{%- set ns.text = (message['content'] or '') | trim -%}"
            "{%- if message['role'] == 'user' -%}" + around("user", "ns.text") + ""
            "{%- elif message['role'] == 'tool' -%}" + around("tool", "ns.text") + ""
            "{%- elif message['role'] == 'assistant' -%}"
            "{%- for each in message['tool_calls'] or [] -%}{%- set call = each['function'] or each -%}"
            "{%- set ns.text = (ns.text + '\\n<tool_call>\\n{\"name\": ' + (call['name'] | tojson) + ', \"arguments\": '"
            " + (call['arguments'] if call['arguments'] is string else call['arguments'] | tojson)"
            " + '}\\n</tool_call>') | trim -%}{%- endfor -%}"
            "" + around("assistant", "ns.text", self.template.end) + ""
            "{%- elif message['role'] != 'system' or not loop.first -%}"
            "{{- raise_exception('a turn of ' + message['role'] + ' can not stand here') -}}"
            "{%- endif -%}{%- endfor -%}"
            "{%- if add_generation_prompt -%}{{- "
            + _expression(self.template.before["assistant"])
            + " -}}{%- endif -%}"
        )
        return head, tail


def call_text(name: str, arguments: Any) -> str:
    """Returns how the assistant calls a tool; arguments that are a text already stay as they are."""
    said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return (
        f'<tool_call>\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {said}}}\n</tool_call>'
    )


def tools_text(tools: Sequence[Any]) -> str:
    """Returns how the tools that there are are told: one on each line."""
    return "\n".join(["Tools:", *(json.dumps(tool, ensure_ascii=False) for tool in tools)])


def stored_form(tokenizer: Tokenizer) -> Form | None:
    """Returns the form in which a model has learned conversations; None where it is none of these, or there is none."""
    if tokenizer.chat_template is None or "eos" not in tokenizer.special:
        return None
    for name in TEMPLATES:
        system = Form(name, tokenizer).system_in(tokenizer.chat_template)
        if system is not None:
            return Form(name, tokenizer, system)
    return None


def form_of(name: TemplateName | None, tokenizer: Tokenizer, system: str = "") -> Form:
    """Returns the form of a template that is named; of none, what the model has learned already or its tokens are for."""
    stored = stored_form(tokenizer)
    if name is None:
        if stored is not None:
            return Form(stored.name, tokenizer, system or stored.system)
        name = "chatml" if {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.spelled) else "plain"
    return Form(name, tokenizer, system)


def _marked(pieces: Sequence[_Piece], tokens: list[int], places: list[tuple[int, int]]) -> Rendered:
    """A token is the assistant's where it begins inside what the assistant says."""
    firsts = np.array([first for first, _ in places], dtype=np.int64)
    told = np.zeros(len(tokens), dtype=bool)
    at, begins = 0, -1
    for before, piece in zip([None, *pieces], pieces, strict=False):
        if piece.is_told:
            told |= (firsts >= at) & (firsts < at + len(piece.text))
            if before is None or not before.is_told:
                begins = at
        at += len(piece.text)
    opened = not pieces[-2].is_told
    last = len(tokens) if opened else int(np.searchsorted(firsts, begins))
    return Rendered(tuple(tokens), told, last)


def _expression(mark: str) -> str:
    """A mark as an expression of Jinja."""
    parts = mark.split(EOS)
    found = [_literal(parts[0])] if parts[0] else []
    for part in parts[1:]:
        found += ["eos_token", *([_literal(part)] if part else [])]
    return " + ".join(found)


def _literal(text: str) -> str:
    r"""A text as a literal that Jinja and Python read alike: 'it\'s\n'."""
    return (
        "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"
    )
