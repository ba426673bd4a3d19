"""What does a step of the corpus buy? The same small model with and without it, on equal budget and seeds.

A trial is a recipe with a table `[trial]` that names steps, each a few settings:

    [trial.steps]
    rules = { corpus.rules.sets = ["gopher_quality"] }
    noise = { pretrain.noise.mask = 0.1 }

Each is tried on a part of the text, and so is the recipe as it is; that is trained on less and on more of the text too,
so that what a step buys can be said in text: what it reaches, more text would have reached. All have the tokenizer that
the part makes, and are measured on the same held-out text, that of the whole corpus with near duplicates out.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from gristmill import pipeline
from gristmill.artifact import (
    Artifact,
    artifact_key,
    draft,
    exclusive,
    find,
    open_artifact,
    write_json,
    write_text,
)
from gristmill.compare import compare
from gristmill.compare.collect import OWN_LOSS
from gristmill.compare.multiplier import multiplier
from gristmill.compare.settings import laid_over, named, settled_objective
from gristmill.config import from_dict, to_dict
from gristmill.corpus import build
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.errors import InputError
from gristmill.pipeline import Listener, Recipe
from gristmill.report.trial import render_trial

__all__ = ["Trial", "trial"]

TRIAL_FORMAT = 1
AS_IT_IS = "as it is"
FIXED = ("tokenizer", "seed", "name", "samples")
"""Tables of a recipe that a step can't change: losses would not be comparable, or not differ."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """The `[trial]` table: what is tried, on how much of the text, how often."""

    steps: dict[str, Any]
    """Name -> the tables of the recipe that it changes."""
    text: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """The share of the text that steps are tried on; the rest shows what more text is worth."""
    curve: tuple[Annotated[float, Gt(0)], ...] = (0.5, 1.0, 1.5, 2.0)
    """How many times that share the recipe is trained on as it is; 1 is among them."""
    seeds: Annotated[int, Ge(1)] = 5
    """How many times each is trained."""
    equal: Literal["tokens", "flops", "nothing"] = "tokens"
    """What all get equally much of: tokens, operations, or nothing, so that a step can have another budget."""
    proxy: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Tables that make the recipe's model a small one: { model.depth = 4, pretrain.budget = "2M tokens" }."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if not self.steps:
            raise InputError(
                "there is nothing to try", 'write trial.steps.rules = { corpus.rules.sets = ["fineweb"] }'
            )
        if AS_IT_IS in self.steps or any(name.startswith("x ") for name in self.steps):
            raise InputError(f'steps are not called "{AS_IT_IS}" or "x …": so is what they are compared with')
        if 1.0 not in self.curve or len(set(self.curve)) < 2:
            raise InputError(
                f"trial.curve is {list(self.curve)}",
                "it holds 1 and at least one other amount: [0.5, 1, 1.5, 2]",
            )
        if max(self.curve) * self.text > 1 + 1e-9:
            raise InputError(
                f"the curve goes to {max(self.curve):g} times {self.text:g} of the text, and there is no more than all",
                f"set trial.text to {math.floor(1e6 / max(self.curve)) / 1e6:g} or less",
            )
        for step, changes in self.steps.items():
            if not isinstance(changes, Mapping):
                raise InputError(f"trial.steps.{step} is no table", '{ corpus.rules.sets = ["fineweb"] }')
            if key := next((key for key in FIXED if key in changes), None):
                raise InputError(
                    f'the step "{step}" changes {key}, which is the same for all',
                    "leave it out; or try it with `gristmill compare`",
                )

    @property
    def amounts(self) -> dict[str, float]:
        """The candidates that are the recipe as it is, and how many times the share of the text each has."""
        return {AS_IT_IS if times == 1.0 else f"x {times:g}": times for times in sorted(set(self.curve))}


def trial(
    table: Mapping[str, Any], directory: Path, listener: Listener, *, jobs: int | None = None
) -> Artifact:
    """Trains what a trial asks for and returns what each step buys.

    Args:
        table: the recipe's tables, `[trial]` among them.
        directory: where everything lies; what is there and still right is not done again.
        listener: told of stages and finished runs.
        jobs: runs at a time; by default one for each GPU, or for each core as far as there is memory.

    Raises:
        InputError: something does not fit; found before training.
        RunError: runs failed; the others are finished and stay.
    """
    if "trial" not in table:
        raise InputError(
            "the recipe has no [trial] table", "write [trial.steps] and what to try: rules = { … }"
        )
    settings = from_dict(Trial, table["trial"], "trial")
    base = {key: value for key, value in table.items() if key != "trial"}
    recipe = _checked(base, settings)
    with exclusive(directory):
        path = directory / "held_out" / "corpus"
        before = (path / "manifest.json").is_file()
        listener.stage("corpus", path)
        dedup = recipe.corpus.dedup
        with_near = dataclasses.replace(dedup, near=dedup.near or DedupSettings().near)
        reference = build(
            dataclasses.replace(recipe.corpus, dedup=with_near, fraction=1.0), path, seed=recipe.seed,
            progress=listener.progress,
        )  # fmt: skip
        listener.done("corpus", reference, again=not before)
    compared = compare(_comparison(base, settings, path), directory, listener, jobs=jobs)
    return _write(recipe.name, settings, compared, directory / "trial")


def _checked(base: Mapping[str, Any], settings: Trial) -> Recipe:
    """The recipe as it is, when it and every step have been found to fit."""
    recipe = pipeline.settle(from_dict(Recipe, laid_over(base, settings.proxy)))
    if not settled_objective(recipe).comparable_over_time:
        raise InputError(
            "losses of replaced-token detection can't be compared: each run has its own generator",
            'set trial.proxy.pretrain.objective = "masked"',
        )
    if recipe.corpus.held_out is not None or recipe.corpus.fraction != 1:
        raise InputError("corpus.held_out and corpus.fraction are what a trial sets", "leave them out")
    if recipe.corpus.valid_fraction == 0:
        raise InputError("there is no validation text", "set corpus.valid_fraction above 0")
    for step, changes in settings.steps.items():
        with named(step, "step"):
            changed = pipeline.settle(from_dict(Recipe, laid_over(laid_over(base, settings.proxy), changes)))
            for what, own, other in (
                ("objective", settled_objective(changed), settled_objective(recipe)),
                ("row_tokens", changed.pretrain.row_tokens, recipe.pretrain.row_tokens),
            ):
                if own != other:
                    raise InputError(
                        f"it changes pretrain.{what}, so that its loss is another figure",
                        "try it with `gristmill compare`",
                    )
            if "fraction" in changes.get("corpus", {}) or "held_out" in changes.get("corpus", {}):
                raise InputError(
                    "corpus.held_out and corpus.fraction are what a trial sets", "leave them out"
                )
    return recipe


def _comparison(base: Mapping[str, Any], settings: Trial, held_out: Path) -> dict[str, Any]:
    """The table of the comparison that a trial is."""
    part = {"corpus": {"fraction": settings.text}}
    candidates = {
        name: {"corpus": {"fraction": min(1.0, times * settings.text)}}
        for name, times in settings.amounts.items()
    }
    candidates |= {name: laid_over(part, changes) for name, changes in settings.steps.items()}
    common = laid_over(laid_over(base, settings.proxy), {"corpus": {"held_out": str(held_out)}})
    return common | {
        "compare": {
            "candidates": candidates, "seeds": settings.seeds, "equal": settings.equal, "one_tokenizer": True,
            "reference": AS_IT_IS,
        }
    }  # fmt: skip


def _write(name: str, settings: Trial, compared: Artifact, out: Path) -> Artifact:
    """Writes figures and page of a trial, unless they are there, and returns it."""
    parts: dict[str, Any] = {
        "kind": "trial",
        "format_version": TRIAL_FORMAT,
        "config": {"trial": to_dict(settings)},
        "parents": {"comparison": compared},
    }
    existing = find(out, artifact_key(**parts))
    if existing is not None:
        return existing
    facts = worth(name, settings, json.loads((compared.path / "comparison.json").read_text(encoding="utf-8")))
    with draft(out, **parts) as work:
        write_json(work.path / "trial.json", facts)
        write_text(work.path / "trial.html", render_trial(facts))
        work.metrics.update({step["name"]: step["multiplier"]["mean"] for step in facts["steps"]})
    return open_artifact(out, "trial", verify=False)


def worth(name: str, settings: Trial, compared: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what each step buys, given the facts of the comparison that measured it."""
    figures = {row["name"]: row["figures"] for row in compared["rows"]}
    curve = {times: figures[each][OWN_LOSS]["values"] for each, times in settings.amounts.items()}
    unique = {each: figures[each]["unique tokens"]["mean"] for each in figures}
    return {
        "name": name,
        "seeds": settings.seeds,
        "text": settings.text,
        "equal": compared["equal"],
        "machine": compared["machine"],
        "curve": [
            {
                "amount": times,
                "unique_tokens": round(unique[each]),
                "tokens": round(figures[each]["tokens"]["mean"]),
                "loss": figures[each][OWN_LOSS],
            }
            for each, times in settings.amounts.items()
        ],
        "steps": [
            {
                "name": step,
                "changes": to_dict(settings.steps[step]),
                "unique_tokens": round(unique[step]),
                "tokens": round(figures[step]["tokens"]["mean"]),
                "loss": figures[step][OWN_LOSS],
                "cpu_seconds": figures[step]["CPU seconds"]["mean"]
                / figures[AS_IT_IS]["CPU seconds"]["mean"],
                "multiplier": dataclasses.asdict(multiplier(curve, figures[step][OWN_LOSS]["values"])),
            }
            for step in settings.steps
        ],
    }
