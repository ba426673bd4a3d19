"""From scores to the next token: a list of plain functions that change the scores, then one draw for each row.

A sampler takes the scores (B, V) and the tokens of each sequence so far, and returns new scores; what it rules out
becomes minus infinity. The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int
from torch import Tensor

from gristmill.errors import InputError

__all__ = [
    "Sampler",
    "SamplingSettings",
    "choose",
    "min_p",
    "repetition_penalty",
    "samplers",
    "temperature",
    "top_k",
    "top_p",
]

Sampler = Callable[[Float[Tensor, "B V"], Sequence[Sequence[int]]], Float[Tensor, "B V"]]

Share = Annotated[float, Gt(0), Le(1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How a text is continued.

    Raises:
        InputError: on construction, when a number is out of its range.
    """

    max_new_tokens: Annotated[int, Gt(0)] = 256
    """The most tokens that are added to a prompt."""
    temperature: Annotated[float, Ge(0)] = 0.8
    """Divides the scores: below 1 likely tokens become likelier; 0 is greedy, always the likeliest."""
    top_k: Annotated[int, Gt(0)] | None = None
    """Draw from the k likeliest tokens only."""
    top_p: Share | None = 0.95
    """Draw from the likeliest tokens that together have this probability (Holtzman et al. 2020, nucleus)."""
    min_p: Share | None = None
    """Draw from tokens at least this likely relative to the likeliest (Nguyen et al. 2024, arXiv:2407.01082)."""
    repetition_penalty: Annotated[float, Gt(0)] = 1.0
    """Above 1, tokens that were there before become less likely (Keskar et al. 2019, CTRL)."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these strings."""
    seed: int = 0
    """The same seed and prompt give the same text, whatever other prompts there are."""

    def __post_init__(self) -> None:
        checks = [
            ("max_new_tokens", self.max_new_tokens > 0, "at least 1"),
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_k", self.top_k is None or self.top_k > 0, "at least 1"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p is None or 0 < self.min_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0 (1 is no penalty)"),
            ("stop", all(self.stop), "strings of at least one character"),
        ]
        for name, holds, expected in checks:
            if not holds:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, expected {expected}", "leave it out for the default"
                )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


def samplers(settings: SamplingSettings) -> list[Sampler]:
    """Returns the functions that these settings ask for, in order."""
    found: list[Sampler] = []
    if settings.repetition_penalty != 1:
        found.append(repetition_penalty(settings.repetition_penalty))
    if settings.greedy:
        return found
    if settings.temperature != 1:
        found.append(temperature(settings.temperature))
    if settings.top_k is not None:
        found.append(top_k(settings.top_k))
    if settings.top_p is not None and settings.top_p < 1:
        found.append(top_p(settings.top_p))
    if settings.min_p is not None:
        found.append(min_p(settings.min_p))
    return found


def choose(scores: Float[Tensor, "B V"], generators: Sequence[torch.Generator] | None) -> Int[Tensor, " B"]:
    """Returns a token for each row: drawn with the row's own generator, or the likeliest where there is none.

    One number is drawn for each row and looked up in the row's cumulative distribution, so what a sequence gets
    depends on nothing but its own generator and its own scores.
    """
    if generators is None:
        return scores.argmax(dim=-1)
    # float64: in float32 the sum over a large vocabulary is off by more than an unlikely token's probability
    cumulative = torch.softmax(scores.double(), dim=-1).cumsum(dim=-1)
    drawn = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators]).to(
        scores.device
    )
    chosen = torch.searchsorted(cumulative, (drawn * cumulative[:, -1])[:, None], right=True)[:, 0]
    return chosen.clamp_(max=scores.shape[-1] - 1)


def temperature(value: float) -> Sampler:
    """Returns the sampler that divides the scores."""
    return lambda scores, _: scores / value


def top_k(count: int) -> Sampler:
    """Returns the sampler that keeps the `count` likeliest tokens, and those that are as likely as the last."""

    def sampler(scores: Tensor, _: Sequence[Sequence[int]]) -> Tensor:
        least = scores.topk(min(count, scores.shape[-1]), dim=-1).values[:, -1:]
        return scores.masked_fill(scores < least, -torch.inf)

    return sampler


def top_p(share: float) -> Sampler:
    """Returns the sampler that keeps the likeliest tokens up to and with the one that reaches `share`."""

    def sampler(scores: Tensor, _: Sequence[Sequence[int]]) -> Tensor:
        ordered, order = scores.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        ordered = ordered.masked_fill(before >= share, -torch.inf)
        return torch.empty_like(scores).scatter_(-1, order, ordered)

    return sampler


def min_p(share: float) -> Sampler:
    """Returns the sampler that keeps tokens whose probability is at least `share` of the likeliest one's."""

    def sampler(scores: Tensor, _: Sequence[Sequence[int]]) -> Tensor:
        probabilities = scores.softmax(dim=-1)
        return scores.masked_fill(
            probabilities < share * probabilities.amax(dim=-1, keepdim=True), -torch.inf
        )

    return sampler


def repetition_penalty(factor: float) -> Sampler:
    """Returns the sampler that lowers the scores of all tokens of the prompt and the text so far."""

    def sampler(scores: Tensor, sequences: Sequence[Sequence[int]]) -> Tensor:
        scores = scores.clone()
        for row, sequence in enumerate(sequences):
            seen = torch.tensor(sorted(set(sequence)), device=scores.device)
            score = scores[row, seen]
            scores[row, seen] = torch.where(score < 0, score * factor, score / factor)
        return scores

    return sampler
