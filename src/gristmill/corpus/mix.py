"""How much of which text: shares of groups, temperature, most epochs of each, a curriculum over the run.

A run sees its text in rounds. In each round a group gives the pieces whose turn it is: piece p of its k-th pass comes at
the time k + u, where u is a hash of (seed, k, p) in [0, 1), and a round covers the times C to C' of a group, C being the
epochs of it that were due by then. So over any stretch of a run a group has its share, to a row; every pass over it sees
each piece once, in another order and cut elsewhere; and what a round holds is a function of its number, the seed and
the settings alone.

A group is the text of one source in one language, "books/en"; where sources have no names, "en". A mix may name it whole,
or by a part: "books" are all groups of that source, "en" all of that language, with the shares that their sizes have.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float, Int

from gristmill.errors import InputError, did_you_mean

__all__ = ["Mix", "Schedule", "Stage", "schedule"]

Weight = Annotated[float, Ge(0)]
LEAST_ROWS = 2048
"""A round has at least so many, as its last rows are filled badly, or all the text there is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a run with weights of its own."""

    until: Annotated[float, Interval(gt=0, le=1)]
    """The share of the run's tokens at which it ends."""
    weights: dict[str, Weight]
    """Group -> its share of what is seen, in any unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mix:
    """The `[pretrain.mix]` table: by default every document comes equally often."""

    weights: dict[str, Weight] | None = None
    """Group -> its share of the tokens, in any unit: {books = 2, web = 1}. A group that is not named is not seen."""
    temperature: Annotated[float, Gt(0)] | None = None
    """Shares are sizes to the power of one over it: 1 is what is there, 2 evens it out, 1000 makes all equal."""
    epochs: dict[str, Annotated[float, Gt(0)]] = dataclasses.field(default_factory=dict)
    """Group -> how often its text is seen at most; what it does not take goes to the others."""
    stages: tuple[Stage, ...] = ()
    """A curriculum: weights that hold until a share of the run; the last stage ends at 1."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        ways = [name for name in ("weights", "temperature", "stages") if getattr(self, name)]
        if len(ways) > 1:
            raise InputError(f"mix has {' and '.join(ways)}", "each of them says the shares: keep one")
        for weights in [self.weights, *(stage.weights for stage in self.stages)]:
            if weights is not None and not sum(weights.values()) > 0:
                raise InputError("the weights of a mix are all 0", "give a group a weight above 0")
        ends = [stage.until for stage in self.stages]
        if ends and (ends[-1] != 1 or any(a >= b for a, b in itertools.pairwise(ends))):
            raise InputError(
                f"the stages of a mix end at {', '.join(f'{end:g}' for end in ends)}",
                "their `until` ascend, and the last is 1",
            )

    @property
    def needs_length(self) -> bool:
        """Whether the shares depend on how long the run is."""
        return bool(self.stages or self.epochs)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which epochs of which group each round covers."""

    groups: tuple[str, ...]
    sizes: Int[np.ndarray, " groups"]
    """Positions of each group, once through."""
    ends: Float[np.ndarray, " stages"]
    """Positions of the run at which each stage ends; the last stage goes on for ever."""
    shares: Float[np.ndarray, "stages groups"]
    """Of each stage, summing to one."""
    round_positions: int

    def epochs_by(self, position: int | float) -> Float[np.ndarray, " groups"]:
        """Returns how many epochs of each group are due when so many positions of the run have been seen."""
        begins = np.concatenate([[0.0], self.ends[:-1]])
        lasts = np.concatenate([self.ends[:-1], [np.inf]])
        within = np.clip(np.minimum(position, lasts) - begins, 0, None)
        due: Float[np.ndarray, " groups"] = (within[:, None] * self.shares).sum(0) / np.maximum(self.sizes, 1)
        return due

    def window(self, number: int) -> tuple[Any, Any]:
        """Returns the epochs of each group that are due when a round begins, and when it ends."""
        return self.epochs_by(number * self.round_positions), self.epochs_by(
            (number + 1) * self.round_positions
        )


def schedule(
    mix: Mix, groups: Sequence[str], sizes: Sequence[int], *, row_tokens: int, positions: int | None
) -> Schedule:
    """Returns the schedule of a mix.

    Args:
        mix: what the recipe says.
        groups: the names of the groups that the text has.
        sizes: the positions of each.
        row_tokens: of a row.
        positions: how many the run will see in all, or None where that is not known.

    Raises:
        InputError: a group is not there or has no text, the most epochs don't fill the run, or the run's length is
            needed and not known.
    """
    if mix.needs_length and positions is None:
        raise InputError(
            "a mix with stages or most epochs needs a run of known length",
            'give the budget in "steps", "tokens" or "epochs"',
        )
    size = np.asarray(sizes, dtype=np.int64)
    ends = np.array([stage.until for stage in mix.stages] or [1.0]) * (positions or np.inf)
    if mix.stages:
        weights = np.stack([_weights(stage.weights, groups, size) for stage in mix.stages])
    elif mix.weights is not None:
        weights = _weights(mix.weights, groups, size)[None]
    else:
        weights = (size.astype(float) ** (1 / (mix.temperature or 1.0)))[None]
    shares = weights / weights.sum(1, keepdims=True)
    if mix.epochs:
        assert positions is not None
        most = np.full(len(groups), np.inf)
        for which, epochs in _members(mix.epochs, groups):
            most[which] = epochs * size[which]
        shares = _capped(shares, ends, most, groups, positions)
    total = int(size[shares.max(axis=0) > 0].sum())
    if total < row_tokens:
        raise InputError(
            f"the groups of the mix give {total:,} positions to learn from, which does not fill one row of {row_tokens:,}",
            "add text, or make row_tokens smaller",
        )
    return Schedule(tuple(groups), size, ends, shares, min(total, max(total // 8, LEAST_ROWS * row_tokens)))


def _weights(weights: Mapping[str, float], groups: Sequence[str], size: Any) -> Any:
    """The weight of each group: what is given to several is divided by their sizes."""
    result = np.zeros(len(groups))
    for (which, weight), name in zip(_members(weights, groups), weights, strict=True):
        if weight > 0 and not size[which].sum():
            raise InputError(
                f'the mix gives "{name}" a weight, but it has no text to train on', "leave it out"
            )
        result[which] = weight * size[which] / max(1, size[which].sum())
    return result


def _members(table: Mapping[str, float], groups: Sequence[str]) -> list[tuple[list[int], float]]:
    """The groups that each name of a table means, and the number beside it."""
    owner: dict[int, str] = {}
    result = []
    for name, number in table.items():
        which = [i for i, group in enumerate(groups) if name == group or name in group.split("/")]
        if not which:
            known = dict.fromkeys([*groups, *(part for group in groups for part in group.split("/"))])
            raise InputError(
                f'the mix names "{name}", but there is no such group of text', did_you_mean(name, known)
            )
        for i in which:
            if i in owner:
                raise InputError(
                    f'the mix names "{groups[i]}" as "{owner[i]}" and as "{name}"',
                    "name sources, or languages, not both",
                )
            owner[i] = name
        result.append((which, number))
    return result


def _capped(shares: Any, ends: Any, most: Any, groups: Sequence[str], positions: int) -> Any:
    """Shares in which no group is seen more often than it may: its weight falls until it fits, in all stages alike."""
    lengths = np.diff(ends, prepend=0.0)
    used = shares.max(axis=0) > 0
    if most[used].sum() < positions * (1 - 1e-9):
        raise InputError(
            f"the run sees {positions:,} tokens, and with these most epochs there are {most[used].sum():,.0f}",
            "raise mix.epochs, or make the budget smaller",
        )
    factors = np.ones(shares.shape[1])
    for _ in range(10_000):
        scaled = shares * factors
        sums = scaled.sum(1, keepdims=True)
        seen = (lengths[:, None] * scaled / sums).sum(0)
        over = seen > most * (1 + 1e-9)
        if not over.any():
            return scaled / sums
        factors[over] *= most[over] / seen[over]
    raise InputError(
        f"in the stages of the mix, {', '.join(name for name, is_over in zip(groups, over, strict=True) if is_over)} "
        "can't stay within mix.epochs",
        "give a stage other groups beside it, or raise mix.epochs",
    )
