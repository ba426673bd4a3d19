"""Small runs of a recipe that fix the law of its text, and a few steps of the real one that fix its time."""

import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gristmill import pipeline
from gristmill.artifact import Artifact
from gristmill.compare.settings import model_config
from gristmill.config import to_dict
from gristmill.model.config import ModelSettings
from gristmill.pipeline import Quiet, Recipe
from gristmill.train.settings import flops_of_token, resolve_batch

__all__ = ["Pilot", "Rehearsal", "pilots", "rehearse", "resized"]

LEAST_STEPS = 60
"""Of a pilot: with fewer, its loss says more of its warm-up than of its text."""
LENGTHS = 4.0
"""The longer pilots of a size see so many times the tokens of the shorter ones."""
REHEARSED_STEPS = 16
ROUND_WIDTH = 32


class Pilot(NamedTuple):
    """A small run."""

    depth: int
    tokens: int
    parameters: float
    """As the law counts them."""
    flops: float


class Rehearsal(NamedTuple):
    """How long the parts of a run take."""

    step_seconds: float
    validation_seconds: float


def resized(model: ModelSettings, depth: int) -> ModelSettings:
    """Returns the same model with another depth; a width that was given keeps its ratio to it."""
    changes: dict[str, Any] = {"depth": depth}
    ratio = depth / model.depth
    if model.encoder_depth is not None:
        changes["encoder_depth"] = max(1, round(model.encoder_depth * ratio))
    if model.width is not None:
        changes["width"] = max(ROUND_WIDTH, round(model.width * ratio / ROUND_WIDTH) * ROUND_WIDTH)
    return dataclasses.replace(model, **changes)


def active_parameters(recipe: Recipe, stages: Mapping[str, Artifact]) -> float:
    """Returns the parameters that the law counts: those that multiply something for each token."""
    return flops_of_token(recipe.pretrain, model_config(recipe, stages)) / 6


def pilots(recipe: Recipe, stages: Mapping[str, Artifact], flops: float) -> list[Pilot]:
    """Returns the runs to make before one, for about as many operations: two sizes, of two lengths each.

    They are as long as that allows, and at least LEAST_STEPS.
    """

    def at(depth: int) -> Recipe:
        return dataclasses.replace(recipe, model=resized(recipe.model, depth))

    depth = recipe.model.depth
    depths = sorted({max(1, depth // 3), max(2, (2 * depth) // 3) if depth > 2 else 2})
    found = []
    costs = {d: 6 * active_parameters(at(d), stages) for d in depths}
    rows, _ = resolve_batch(recipe.pretrain, model_config(at(depths[0]), stages))
    batch = rows * recipe.pretrain.row_tokens
    shortest = max(LEAST_STEPS * batch, flops / ((1 + LENGTHS) * sum(costs.values())))
    for d in depths:
        for times in (1.0, LENGTHS):
            tokens = math.ceil(shortest * times / batch) * batch
            found.append(Pilot(d, tokens, costs[d] / 6, tokens * costs[d]))
    return found


def rehearse(recipe: Recipe, stages: Mapping[str, Artifact], directory: Path) -> Rehearsal:
    """Returns how long a step of a recipe's model takes, and a validation, measured by doing some.

    The machine is used as the run itself would use it: nothing else runs beside.
    """
    settings = dataclasses.replace(
        recipe.pretrain, budget=f"{REHEARSED_STEPS} steps", validations=1, checkpoint_seconds=1e9
    )
    out = directory / "rehearsals" / f"{recipe.model.depth}"
    made = pipeline.pretrain(
        recipe.model, settings, shards=stages["shards"], tokenizer=stages["tokenizer"], out=out, seed=recipe.seed,
        listener=Quiet(),
    )  # fmt: skip
    lines = [
        json.loads(line) for line in (made.path / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    at = [line["elapsed_seconds"] for line in lines]
    steps = [b - a for a, b in itertools.pairwise(at)][2:-1]  # the first ones still warm up caches
    step = statistics.median(steps)
    return Rehearsal(step, max(0.0, at[-1] - at[-2] - step))


def pilot_table(recipe: Recipe, chosen: Sequence[Pilot]) -> dict[str, Any]:
    """Returns the candidates of a comparison that makes the pilots."""
    return {
        f"depth {p.depth}, {p.tokens} tokens": {
            "model": {k: v for k, v in to_dict(resized(recipe.model, p.depth)).items() if v is not None},
            "pretrain": {"budget": f"{p.tokens} tokens", "validations": 1},
        }
        for p in chosen
    }
