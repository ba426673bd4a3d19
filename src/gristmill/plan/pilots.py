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
from gristmill.model.config import MULTIPLE, ModelSettings
from gristmill.pipeline import Quiet, Recipe
from gristmill.plan.law import REGULARISATION, REPEATED
from gristmill.train.settings import flops_of_token, resolve_batch

__all__ = ["Pilot", "Rehearsal", "model_table", "pilots", "rehearse", "resized", "shrunk"]

LEAST_STEPS = 100
"""Of a pilot: with fewer, its loss says more of its warm-up than of its text."""
LENGTHS = 4.0
"""The longer pilots of a size see so many times the tokens of the shorter ones."""
MOST_EPOCHS = 32
"""No pilot repeats its text more often: what another epoch is worth is next to nothing by then."""
REHEARSED_STEPS = 16
ROUND_WIDTH = 32
RATIOS = (1 / 3, 2 / 3)
"""Of depth and width of the pilots' models to the recipe's."""
LEAST_DEPTH = 2
"""Of a pilot: what a text repeats in itself takes two layers to be copied (Olsson et al. 2022, arXiv 2209.11895)."""


class Pilot(NamedTuple):
    """A small run."""

    ratio: float
    """Its model's size as a share of the recipe's."""
    depth: int
    width: int
    tokens: int
    parameters: float
    """As the law counts them."""
    flops: float
    fraction: float = 1.0
    """Of the text, that it sees."""
    regularised: bool = False
    """Whether it is trained with `law.REGULARISATION` too."""

    @property
    def name(self) -> str:
        """What the run is called."""
        parts = [f"{self.depth} x {self.width}", f"{self.tokens} tokens"]
        if self.fraction < 1:
            parts.append(f"of {self.fraction:.3g} of the text")
        return ", ".join([*parts, "regularised"] if self.regularised else parts)


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


def shrunk(model: ModelSettings, ratio: float) -> ModelSettings:
    """Returns the model of a pilot: depth and width are multiplied, but it has LEAST_DEPTH layers, if the model has."""
    depth = max(min(LEAST_DEPTH, model.depth), round(model.depth * ratio))
    width = (model.width or MULTIPLE * model.depth) * ratio
    encoder = model.encoder_depth
    return dataclasses.replace(
        model,
        depth=depth,
        width=max(ROUND_WIDTH, round(width / ROUND_WIDTH) * ROUND_WIDTH),
        encoder_depth=None if encoder is None else max(min(LEAST_DEPTH, encoder), round(encoder * ratio)),
    )


def model_table(model: ModelSettings) -> dict[str, Any]:
    """Returns the `[model]` table that says the same."""
    return {key: value for key, value in to_dict(model).items() if value is not None}


def active_parameters(recipe: Recipe, stages: Mapping[str, Artifact]) -> float:
    """Returns the parameters that the law counts: those that multiply something for each token."""
    return flops_of_token(recipe.pretrain, model_config(recipe, stages)) / 6


def pilots(
    recipe: Recipe, stages: Mapping[str, Artifact], flops: float, epochs: float, *, regularise: bool
) -> list[Pilot]:
    """Returns the runs to make before one, for about as many operations.

    Two sizes, each of two lengths, and the smaller one as long as the run itself if that is not too long. Where the run
    repeats its text, the longer ones see so little of it that they repeat it as often; and with `regularise` the larger of
    them is made once more, with dropout and noise. All are as long as the operations allow, and at least LEAST_STEPS.
    """
    models = {ratio: dataclasses.replace(recipe, model=shrunk(recipe.model, ratio)) for ratio in RATIOS}
    configs = {ratio: model_config(each, stages) for ratio, each in models.items()}
    costs = {ratio: 6 * active_parameters(each, stages) for ratio, each in models.items()}
    small, large = RATIOS
    rows, _ = resolve_batch(recipe.pretrain, configs[small])
    batch = rows * recipe.pretrain.row_tokens
    unique = stages["shards"].manifest.metrics["splits"]["train"]["tokens"]
    wanted = [(small, 1.0, False), (small, LENGTHS, False), (large, 1.0, False), (large, LENGTHS, False)]
    repeats = epochs > REPEATED
    wanted.append((small, LENGTHS**2, repeats))
    if repeats:
        wanted.append((large, LENGTHS, True))
    again = repeats and regularise
    cost = sum(times * costs[ratio] for ratio, times, _ in wanted) + LENGTHS * costs[large] * again
    shortest = max(LEAST_STEPS * batch, flops / cost)

    def pilot(ratio: float, times: float, repeated: bool, regularised: bool = False) -> Pilot:
        tokens = math.ceil(min(shortest * times, max(epochs * unique, LENGTHS * shortest)) / batch) * batch
        fraction = min(1.0, tokens / (min(epochs, MOST_EPOCHS) * unique)) if repeated else 1.0
        return Pilot(
            ratio, configs[ratio].layers, configs[ratio].width, tokens, costs[ratio] / 6, tokens * costs[ratio],
            float(f"{fraction:.3g}"), regularised,
        )  # fmt: skip

    found = list(dict.fromkeys(pilot(*each) for each in wanted))  # of a short run, long pilots are alike
    return [*found, pilot(large, LENGTHS, True, True)] if again else found


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


def pilot_table(recipe: Recipe, chosen: Sequence[Pilot], corpus: Path) -> dict[str, Any]:
    """Returns the candidates of a comparison that makes the pilots; `corpus` is the recipe's, and holds out text for all."""
    held_out, whole = recipe.corpus.held_out or str(corpus), recipe.corpus.fraction
    return {
        p.name: {
            "model": model_table(shrunk(recipe.model, p.ratio)),
            "pretrain": {
                "budget": f"{p.tokens} tokens", "validations": 1, **(REGULARISATION if p.regularised else {}),
            },
            "corpus": {"held_out": held_out, "fraction": p.fraction * whole} if p.fraction < 1 else {},
        }
        for p in chosen
    }  # fmt: skip
