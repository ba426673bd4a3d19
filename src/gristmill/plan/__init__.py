"""Before a run: how large a model, how often the text, and what will come of it.

A few runs of a few hundredths of the cost fix the law of the text (`law`); what it says of the recipe, and of smaller and
larger models for the same budget, is the plan. Where the text is repeated, one pilot is made with dropout and noise too, and
says whether they help. Time is measured by doing some steps of each size (`pilots`).
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Interval

from gristmill import pipeline
from gristmill.artifact import Artifact, exclusive, write_json
from gristmill.augment.tokens import Noise
from gristmill.compare import compare, shared_stages
from gristmill.compare.collect import OWN_LOSS
from gristmill.compare.settings import model_config, settled_objective
from gristmill.config import from_dict
from gristmill.errors import InputError
from gristmill.model.count import parameter_counts
from gristmill.pipeline import Listener, Recipe
from gristmill.plan.law import EXPONENTS, REGULARISATION, Law, Point, best_epochs, fit_law, fit_overfitting
from gristmill.plan.pilots import Pilot, Rehearsal, active_parameters, pilot_table, pilots, rehearse, resized
from gristmill.train.schedule import Budget, parse_budget
from gristmill.train.settings import resolve_batch

__all__ = ["PlanSettings", "plan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """The `[plan]` table."""

    share: Annotated[float, Interval(gt=0, le=0.5)] = 0.05
    """Of the operations of the recipe's run, about what the small runs may take together."""
    sizes: tuple[Annotated[float, Gt(0)], ...] = (0.5, 0.75, 1.0, 1.5, 2.0)
    """Depths that are looked at, as multiples of the recipe's."""


def plan(
    table: Mapping[str, Any],
    directory: Path,
    listener: Listener,
    *,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Returns what will come of a recipe, and of other sizes for the same budget; what it costs is a share of the run.

    Args:
        table: the recipe's tables, `[plan]` among them where its defaults will not do.
        directory: where the runs lie that the plan is made of; what is there is not done again.
        listener: told of stages and runs.
        jobs: pilots at a time.

    Raises:
        InputError: something does not fit; losses of the objective can't be compared.
        RunError: a pilot failed.
    """
    settings = from_dict(PlanSettings, table.get("plan", {}), "plan")
    table = {key: value for key, value in table.items() if key != "plan"}
    recipe = pipeline.settle(from_dict(Recipe, table))
    if not settled_objective(recipe).comparable_over_time:
        raise InputError(
            "the loss of replaced-token detection is no law's: how hard its task is depends on the generator",
            'plan with objective = "masked"',
        )
    pipeline.check_recipe(recipe, directory)
    with exclusive(directory):
        stages = shared_stages(recipe, directory, {}, listener, None)
        unique = stages["shards"].manifest.metrics["splits"]["train"]["tokens"]
        budget = parse_budget(recipe.pretrain.budget)
        recipes = _sizes(recipe, settings, directory)
        listener.say("timing some steps of each size")
        times = {depth: rehearse(each, stages, directory) for depth, each in recipes.items()}
        own = _tokens(recipe, stages, budget, unique, times[recipe.model.depth])
        flops = own * 6 * active_parameters(recipe, stages)
        plain = not recipe.pretrain.dropout and recipe.pretrain.noise == Noise()
        chosen = pilots(recipe, stages, settings.share * flops, own / unique, regularise=plain)
    law, points = _law(table, recipe, chosen, stages["corpus"].path, directory, listener, jobs)
    options = [
        _option(each, stages, law, unique, times[depth], budget, flops) for depth, each in recipes.items()
    ]
    best = best_epochs(float(unique), active_parameters(recipe, stages), law.exponents)
    facts = {
        "name": recipe.name,
        "budget": recipe.pretrain.budget,
        "unique_tokens": unique,
        "law": dataclasses.asdict(law),
        "pilots": [
            {
                **pilot._asdict(),
                "unique_tokens": round(point.unique),
                "loss": point.loss,
                "expected": law.loss(point.parameters, point.tokens, point.unique),
            }
            for pilot, point in zip(chosen, points, strict=True)
        ],
        "best_epochs": best if math.isfinite(best) else None,
        "regularisation": _regularisation(points),
        "share_of_flops": sum(pilot.flops for pilot in chosen) / flops,
        "options": options,
        "best": min(options, key=lambda option: option["loss"])["depth"],
        "depth": recipe.model.depth,
    }
    write_json(directory / "plan.json", facts)
    return facts


def _sizes(recipe: Recipe, settings: PlanSettings, directory: Path) -> dict[int, Recipe]:
    """The recipe with each depth that is looked at and fits into memory; its own always."""
    found = {}
    for times in (1.0, *settings.sizes):
        depth = max(1, round(times * recipe.model.depth))
        each = dataclasses.replace(recipe, model=resized(recipe.model, depth))
        try:
            pipeline.check_recipe(each, directory)
        except InputError:
            continue
        found[depth] = each
    return dict(sorted(found.items()))


def _tokens(
    recipe: Recipe, stages: Mapping[str, Artifact], budget: Budget, unique: int, time: Rehearsal
) -> float:
    """How many tokens a recipe's budget is."""
    rows, _ = resolve_batch(recipe.pretrain, model_config(recipe, stages))
    batch = rows * recipe.pretrain.row_tokens
    if budget.unit == "seconds":
        spent = min(recipe.pretrain.validations * time.validation_seconds, 0.1 * budget.amount)
        return max(batch, (budget.amount - spent) / time.step_seconds * batch)
    steps = {
        "tokens": budget.amount / batch,
        "steps": budget.amount,
        "epochs": budget.amount * unique / batch,
    }
    return float(math.ceil(steps[budget.unit]) * batch)


def _law(
    table: Mapping[str, Any], recipe: Recipe, chosen: list[Pilot], corpus: Path, directory: Path, listener: Listener,
    jobs: int | None,
) -> tuple[Law, list[Point]]:  # fmt: skip
    comparison = dict(table) | {
        "compare": {
            "candidates": pilot_table(recipe, chosen, corpus), "seeds": 1, "equal": "nothing", "held_out_pieces": 1,
            "one_tokenizer": True,
        }
    }  # fmt: skip
    made = compare(comparison, directory, listener, jobs=jobs)
    rows = json.loads((made.path / "comparison.json").read_text(encoding="utf-8"))["rows"]
    points = [
        Point(
            parameters=pilot.parameters,
            tokens=float(row["figures"]["tokens"]["mean"]),
            unique=float(row["figures"]["unique tokens"]["mean"]),
            loss=row["figures"][OWN_LOSS]["mean"],
            regularised=pilot.regularised,
        )
        for pilot, row in zip(chosen, rows, strict=True)
    ]
    plain = [point for point in points if not point.regularised]
    return fit_law(plain, fit_overfitting(plain, EXPONENTS)), points


def _regularisation(points: list[Point]) -> dict[str, Any] | None:
    """What dropout and noise did to the pilot that was made with and without them; None where none was."""
    with_it = next((point for point in points if point.regularised), None)
    if with_it is None:
        return None
    twin = dataclasses.replace(with_it, regularised=False)
    without = next(p for p in points if dataclasses.replace(p, loss=twin.loss) == twin)
    return {
        "settings": REGULARISATION,
        "epochs": with_it.tokens / with_it.unique,
        "loss": with_it.loss,
        "without": without.loss,
        "helps": with_it.loss < without.loss,
    }


def _option(
    recipe: Recipe, stages: Mapping[str, Artifact], law: Law, unique: int, time: Rehearsal, budget: Budget, flops: float
) -> dict[str, Any]:  # fmt: skip
    """What will come of one size: for the time of a budget of time, for the operations of any other."""
    parameters = active_parameters(recipe, stages)
    config = model_config(recipe, stages)
    rows, _ = resolve_batch(recipe.pretrain, config)
    batch = rows * recipe.pretrain.row_tokens
    if budget.unit == "seconds":
        tokens = _tokens(recipe, stages, budget, unique, time)
    else:
        tokens = max(batch, math.ceil(flops / (6 * parameters) / batch) * batch)
    steps = tokens / batch
    return {
        "depth": config.layers,
        "width": config.width,
        "parameters": parameter_counts(config)["total"],
        "tokens": round(tokens),
        "epochs": tokens / unique,
        "loss": law.loss(parameters, float(tokens), float(unique)),
        "seconds": budget.amount
        if budget.unit == "seconds"
        else steps * time.step_seconds + recipe.pretrain.validations * time.validation_seconds,
    }
