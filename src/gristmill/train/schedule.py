"""How long to train, and how fast to learn at each step.

The learning rate rises linearly, holds, and falls linearly to the end ("trapezoid", Hägele et al. 2024,
arXiv:2405.18392; a cool-down over the whole run is the linear decay of Defazio et al. 2023, arXiv:2310.07831). The
plan is a list of knots between which the rate is interpolated. A budget in wall time is turned into steps
by the speed measured so far, and corrected while training; each correction changes only what lies ahead and is written
down, so that a resumed run follows the same plan.
"""

import bisect
import dataclasses
import math
import re
from typing import Any, Literal

from gristmill.errors import InputError

__all__ = ["Budget", "Plan", "parse_budget"]

_UNITS = {
    "s": ("seconds", 1.0), "sec": ("seconds", 1.0), "second": ("seconds", 1.0), "min": ("seconds", 60.0),
    "minute": ("seconds", 60.0), "h": ("seconds", 3600.0), "hour": ("seconds", 3600.0), "day": ("seconds", 86400.0),
    "step": ("steps", 1.0), "token": ("tokens", 1.0), "epoch": ("epochs", 1.0),
}  # fmt: skip
_MULTIPLES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """An amount of training, in one of four units."""

    amount: float
    unit: Literal["steps", "tokens", "epochs", "seconds"]


def parse_budget(text: str) -> Budget:
    """Returns the budget that a text such as "3 min", "2000 steps", "10M tokens" or "4 epochs" stands for."""
    match = re.fullmatch(r"\s*(\d[\d_,]*(?:\.\d+)?|\.\d+)\s*([kmbKMB]?)\s*([a-zA-Z]+?)s?\s*", text)
    hint = 'write for example "3 min", "2000 steps", "10M tokens" or "4 epochs"'
    if match is None:
        raise InputError(f'the budget "{text}" is not an amount with a unit', hint)
    number, multiple, unit = match.groups()
    if unit.lower() not in _UNITS and (multiple + unit).lower() in _UNITS:  # "3 min": the m is not a million
        multiple, unit = "", multiple + unit
    if unit.lower() not in _UNITS:
        raise InputError(f'the budget "{text}" has an unknown unit "{unit}"', hint)
    name, size = _UNITS[unit.lower()]
    amount = float(number.replace(",", "").replace("_", "")) * _MULTIPLES[multiple.lower()] * size
    if amount <= 0 or not math.isfinite(amount):
        raise InputError(f'the budget "{text}" is nothing', hint)
    return Budget(amount=amount, unit=name)  # type: ignore[arg-type]


class Plan:
    """Steps in all, and the learning rate's scale at each of them."""

    def __init__(self, knots: list[tuple[int, float]], cooldown_from: int) -> None:
        self.knots = knots
        """(step, scale), by step; the last one is the end."""
        self.cooldown_from = cooldown_from

    @classmethod
    def trapezoid(cls, steps: int, *, warmup: float, cooldown: float, final: float) -> "Plan":
        """Returns the plan that rises for a share `warmup` of the steps and falls to `final` for a share `cooldown`."""
        rise = max(1, round(warmup * steps))
        fall = max(rise, steps - max(1, round(cooldown * steps)))
        return cls([(0, 0.0), (rise, 1.0), *([(fall, 1.0)] if fall > rise else []), (steps, final)], fall)

    @property
    def steps(self) -> int:
        """How many steps the run has."""
        return self.knots[-1][0]

    def scale(self, step: int) -> float:
        """Returns the learning rate's scale for step number `step`, from 0: that of the middle of the step."""
        return self._at(step + 0.5)

    def _at(self, at: float) -> float:
        i = bisect.bisect_right([s for s, _ in self.knots], at)
        if i == 0 or i == len(self.knots):
            return self.knots[min(i, len(self.knots) - 1)][1]
        (a, low), (b, high) = self.knots[i - 1], self.knots[i]
        return low + (high - low) * (at - a) / (b - a)

    def refit(self, step: int, steps: int, *, cooldown: float) -> "Plan":
        """Returns a plan that is the same up to `step` and ends at `steps`.

        Before the cool-down its beginning moves with the end; inside it, the rate falls from where it is.
        """
        steps = max(steps, step + 1)
        final = self.knots[-1][1]
        past = [knot for knot in self.knots[:-1] if knot[0] <= step]
        if step < self.cooldown_from:
            rise = next((knot for knot in self.knots if knot[1] == 1.0), self.knots[-1])
            fall = max(step, rise[0], steps - max(1, round(cooldown * steps)))
            ahead = [rise] if rise[0] > step else []
            return Plan(
                [*past, *ahead, *([(fall, 1.0)] if fall > rise[0] else []), (max(steps, fall + 1), final)],
                fall,
            )
        past = [knot for knot in past if knot[0] < step]
        return Plan([*past, (step, self._at(float(step))), (steps, final)], self.cooldown_from)

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as JSON values."""
        return {"knots": [list(knot) for knot in self.knots], "cooldown_from": self.cooldown_from}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Plan":
        """Returns the plan that `to_json` wrote."""
        return cls([(int(step), float(scale)) for step, scale in table["knots"]], int(table["cooldown_from"]))
