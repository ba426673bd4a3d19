"""Gaps in a text filled by an encoder-decoder, in the way of the objective that it was trained with.

    infill(model, tokenizer, ["The ___ sat on the ___."], SamplingSettings(temperature=0.0))
        -> [Filling(text="The cat sat on the mat.", gaps=(" cat", " mat"), finish="end")]

Spaces before a gap belong to what fills it: tokens begin with the space before a word.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal, Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from gristmill.errors import InputError
from gristmill.generate.completing import Vocabulary
from gristmill.generate.sampling import SamplingSettings
from gristmill.generate.sequences import (
    BeamSettings,
    Rule,
    Written,
    generate_sequences,
    search_sequences,
)
from gristmill.model.base import Model
from gristmill.objectives.base import Objective
from gristmill.tokenizer.framing import frame, start_token

__all__ = ["GAP", "Filling", "Mask", "Sentinels", "Way", "Words", "infill", "split_at_gaps", "way_for"]

GAP = "___"
"""What marks a gap in a text where nothing else is said."""


@runtime_checkable
class Words(Vocabulary, Protocol):
    """What infilling needs of a tokenizer."""

    @property
    def sentinels(self) -> Sequence[int]:
        """Ids of the tokens that stand for spans left out, in their order."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """A text whose gaps were filled."""

    text: str
    gaps: tuple[str, ...] | None
    """What stands in each gap; None where the model did not keep the text around them as it was."""
    finish: Literal["end", "length"]
    """Whether the model came to its end, or had written as many tokens as it may."""


@runtime_checkable
class Way(Protocol):
    """How gaps are shown to a model, and how its answer is read."""

    def source(self, pieces: Sequence[Sequence[int]]) -> list[int]:
        """Returns the source for the tokens between the gaps."""

    def rule(self, ordinary: Bool[Tensor, " V"], gaps: int) -> Rule:
        """Returns which tokens may come next in an answer about so many gaps, given those that stand for text."""

    def filling(self, tokenizer: Words, pieces: Sequence[str], written: Written) -> Filling:
        """Returns the text that an answer makes of the pieces."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Sentinels:
    """As objective "spans": each gap is a sentinel, the answer names each and what stands there (Raffel et al. 2020).

    The answer is held to that form: the sentinels come in their order, and text after each.
    """

    sentinels: Sequence[int]
    end: int | None

    def source(self, pieces: Sequence[Sequence[int]]) -> list[int]:
        """Returns the tokens with a sentinel in each gap."""
        gaps = len(pieces) - 1
        if gaps > len(self.sentinels):
            raise InputError(
                f"the text has {gaps} gaps, and the tokenizer has {len(self.sentinels)} sentinel tokens",
                "fill fewer gaps at a time",
            )
        tokens = list(pieces[0])
        for sentinel, piece in zip(self.sentinels, pieces[1:], strict=False):
            tokens += [sentinel, *piece]
        return tokens

    def rule(self, ordinary: Bool[Tensor, " V"], gaps: int) -> Rule:
        """Returns the rule: first a sentinel, then text or the next one, and the end after the last one's text."""
        named = frozenset(self.sentinels)

        def rule(tokens: Sequence[int]) -> Bool[Tensor, " V"]:
            opened = sum(token in named for token in tokens)
            allowed = ordinary.clone() if opened else torch.zeros_like(ordinary)
            if opened < gaps:
                allowed[self.sentinels[opened]] = True
            elif self.end is not None:
                allowed[self.end] = True
            return allowed

        return rule

    def filling(self, tokenizer: Words, pieces: Sequence[str], written: Written) -> Filling:
        """Returns the pieces with what was written after each sentinel between them."""
        named = {sentinel: gap for gap, sentinel in enumerate(self.sentinels)}
        data, gap = [b""] * (len(pieces) - 1), 0
        for token in written.tokens:
            if token in named:
                gap = named[token]
            else:
                data[gap] += tokenizer.token_bytes(token)
        gaps = tuple(each.decode(errors="replace") for each in data)
        text = pieces[0] + "".join(a + b for a, b in zip(gaps, pieces[1:], strict=True))
        return Filling(text=text, gaps=gaps, finish=written.finish)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Mask:
    """As objective "denoise": each gap is a mask token, the answer is the whole text (Lewis et al. 2020)."""

    mask: int
    end: int | None

    def source(self, pieces: Sequence[Sequence[int]]) -> list[int]:
        """Returns the tokens with a mask token in each gap."""
        return [token for piece in pieces for token in (self.mask, *piece)][1:]

    def rule(self, ordinary: Bool[Tensor, " V"], gaps: int) -> Rule:
        """Returns the rule: text, or the end."""
        allowed = ordinary.clone()
        if self.end is not None:
            allowed[self.end] = True
        return lambda tokens: allowed

    def filling(self, tokenizer: Words, pieces: Sequence[str], written: Written) -> Filling:
        """Returns the answer, and what it has between the pieces if it has them all, in their order."""
        data = b"".join(tokenizer.token_bytes(token) for token in written.tokens)
        text = data.decode(errors="replace")
        between = "(.*?)".join(map(re.escape, pieces))
        found = re.fullmatch(between, text, flags=re.DOTALL)
        return Filling(text=text, gaps=found.groups() if found else None, finish=written.finish)


def way_for(objective: Objective | None, tokenizer: Words) -> Way:
    """Returns the way of the objective that a model was trained with.

    Without one (weights from elsewhere) it is what the tokenizer is made for: sentinels, or else a mask token.

    Raises:
        InputError: the objective leaves no gaps, or the tokenizer has nothing to show one with.
    """
    end = tokenizer.special.get("eos")
    hidden = None if objective is None else objective.hidden
    if objective is not None and hidden not in ("by sentinel", "rewritten"):
        name = type(objective).__module__.rsplit(".", 1)[-1]
        raise InputError(
            f'the model was trained with objective "{name}", which leaves no gaps in a source',
            'fill gaps with a model that was trained with objective "spans" or "denoise"',
        )
    if tokenizer.sentinels and hidden != "rewritten":
        return Sentinels(tuple(tokenizer.sentinels), end)
    if "mask" in tokenizer.special and hidden != "by sentinel":
        return Mask(tokenizer.special["mask"], end)
    raise InputError(
        "the tokenizer has neither sentinel tokens nor a mask token, so nothing can stand for a gap",
        'fill gaps with a model that was trained with objective "spans" or "denoise"',
    )


def infill(
    model: Model,
    tokenizer: Words,
    texts: Sequence[str],
    settings: SamplingSettings | BeamSettings,
    *,
    way: Way | None = None,
    gap: str = GAP,
    batch_size: int = 16,
    seeds: Sequence[int] | None = None,
) -> list[Filling]:
    """Returns each text with its gaps filled, in their order.

    Args:
        model: an encoder-decoder.
        tokenizer: the one that it was trained with.
        texts: each with one `gap` or more.
        settings: how the answer is drawn or searched for; `max_new_tokens` is for all gaps of a text together.
        way: how the model was trained to fill gaps, from `way_for`; by default what the tokenizer is made for.
        gap: what marks a gap in the texts.
        batch_size: texts that are filled together.
        seeds: one for each text, in place of that of the sampling settings.

    Raises:
        InputError: a text has no gap or too many, the tokenizer lacks what is needed, or the model is of another
            kind.
    """
    way = way or way_for(None, tokenizer)
    start, edges = start_token(tokenizer.special), frame(tokenizer.special, "encoder-decoder")
    split = [split_at_gaps(text, gap) for text in texts]
    sources = [edges.around(way.source([tokenizer.encode(p) for p in pieces])) for pieces in split]
    ordinary = _ordinary(tokenizer, model.config.vocab_size)
    rules = [way.rule(ordinary, len(pieces) - 1) for pieces in split]
    end = tokenizer.special.get("eos")
    written: Sequence[Written]
    if isinstance(settings, BeamSettings):
        found = search_sequences(
            model, sources, settings, start=start, end=end, rules=rules, batch_size=batch_size
        )
        written = [best[0] for best in found]
    else:
        written = generate_sequences(
            model, sources, settings, start=start, end=end, rules=rules, batch_size=batch_size, seeds=seeds
        )
    return [way.filling(tokenizer, *each) for each in zip(split, written, strict=True)]


def split_at_gaps(text: str, gap: str) -> list[str]:
    """Returns what stands before, between and after the gaps of a text, without the spaces before a gap.

    Raises:
        InputError: there is no gap.
    """
    *before, last = text.split(gap)
    if not before:
        raise InputError(f'the text "{text[:40]}" has no gap', f'mark what is to be filled in with "{gap}"')
    return [*(piece.rstrip(" ") for piece in before), last]


def _ordinary(tokenizer: Words, size: int) -> Bool[Tensor, " V"]:
    """Which tokens stand for text; a model may have more rows than there are tokens."""
    ordinary = torch.zeros(size, dtype=torch.bool)
    for token in range(min(size, tokenizer.vocab_size)):
        ordinary[token] = len(tokenizer.token_bytes(token)) > 0
    return ordinary
