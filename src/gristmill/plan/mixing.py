"""The search for a mix: small runs on drawn mixtures, a law of them, the best mixture, and whether it is one."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float

from gristmill import pipeline
from gristmill.artifact import Artifact, exclusive, open_artifact, write_json
from gristmill.compare import compare, shared_stages
from gristmill.compare.settings import laid_over, model_config, settled_objective
from gristmill.config import from_dict
from gristmill.corpus.shards import Shards
from gristmill.errors import InputError, did_you_mean
from gristmill.evaluate.comparing import mean_interval, welch
from gristmill.generate import load_run
from gristmill.objectives.trained import objective_of
from gristmill.pipeline import Listener, Recipe
from gristmill.plan.mixtures import best_mixture, draw_mixtures, fit_mixing, left_out_correlation
from gristmill.plan.pilots import LEAST_STEPS, active_parameters, model_table, resized
from gristmill.train.schedule import parse_budget
from gristmill.train.settings import resolve_batch
from gristmill.train.validate import score_documents

__all__ = ["MixSearch", "search_mix"]

PROXY = 0.5
"""The depth of the small runs, as a share of the recipe's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixSearch:
    """The `[mix_search]` table: what the search may take, and what the mix is for."""

    share: Annotated[float, Interval(gt=0, le=0.5)] = 0.05
    """Of the operations of the recipe's own run, what all small runs may take together."""
    runs: Annotated[int, Ge(4)] = 16
    """How many mixtures are tried."""
    seeds: Annotated[int, Ge(1)] = 3
    """How many times the text as it is and the chosen mix are trained, to see whether they differ."""
    epochs: Annotated[float, Gt(0)] = 4.0
    """How often any group may be seen in the recipe's own run at most."""
    target: str | None = None
    """The group, source or language whose held-out text counts; by default all of it."""


def search_mix(
    table: Mapping[str, Any], directory: Path, listener: Listener, *, jobs: int | None = None
) -> dict[str, Any]:
    """Returns the mix that small runs speak for, and what they measured.

    Args:
        table: the recipe's tables, `[mix_search]` among them where its defaults will not do.
        directory: where the runs lie; what is there is not done again.
        listener: told of stages and runs.
        jobs: runs at a time.

    Raises:
        InputError: there is one group, the budget is in wall time, or the share does not pay for the runs.
    """
    search = from_dict(MixSearch, table.get("mix_search", {}), "mix_search")
    table = {key: value for key, value in table.items() if key != "mix_search"}
    recipe = pipeline.settle(from_dict(Recipe, dict(table)))
    if not settled_objective(recipe).comparable_over_time:
        raise InputError(
            "the loss of replaced-token detection can't be compared", 'search with objective = "masked"'
        )
    if recipe.pretrain.mix is not None:
        raise InputError(
            "the recipe has a mix already", "leave [pretrain.mix] out: it is what is searched for"
        )
    if recipe.corpus.valid_fraction == 0:
        raise InputError("there is no validation text", "set corpus.valid_fraction above 0")
    pipeline.check_recipe(recipe, directory)
    with exclusive(directory):
        stages = shared_stages(recipe, directory, {}, listener, None)
        shards = stages["shards"].manifest.metrics
        names: list[str] = shards["groups"]
        sizes = np.array(shards["splits"]["train"]["group_tokens"], dtype=float)
        used = [i for i in range(len(names)) if sizes[i] > 0]
        names, sizes = [names[i] for i in used], sizes[used]
        tokens = _tokens(recipe, sizes.sum())
        most = np.minimum(1.0, search.epochs * sizes / tokens)
        mixtures = draw_mixtures(sizes, search.runs, recipe.seed, most)
        weights, counted = _weights(search.target, stages["shards"], names, used)
        proxy, proxy_tokens, flops, runs = _proxy(recipe, stages, tokens, search)
    tried = {f"mix {i}": _changes(names, mixture) for i, mixture in enumerate(mixtures)}
    losses = _losses(
        _base(table, proxy, proxy_tokens), tried, 1, directory, listener, jobs, stages["shards"], used
    )
    measured = np.array([losses[name][0] for name in tried])[:, counted]
    law = fit_mixing(mixtures, measured)
    best = best_mixture(law, weights, most, mixtures[0])
    pair = {"as it is": _changes(names, mixtures[0]), "chosen": _changes(names, best)}
    again = _losses(
        _base(table, proxy, proxy_tokens),
        pair,
        search.seeds,
        directory,
        listener,
        jobs,
        stages["shards"],
        used,
    )
    plain, chosen = (
        [float(each[counted] @ weights) for each in again[name]] for name in ("as it is", "chosen")
    )
    difference, interval, p = welch(chosen, plain)
    facts = {
        "name": recipe.name,
        "groups": names,
        "tokens": sizes.astype(int).tolist(),
        "natural": mixtures[0].tolist(),
        "weights": [round(float(each), 4) for each in best],
        "runs": [
            {"shares": mixture.tolist(), "loss": float(each @ weights)}
            for mixture, each in zip(mixtures, measured, strict=True)
        ],
        "left_out_correlation": left_out_correlation(mixtures, measured, weights),
        "as_it_is": dataclasses.asdict(mean_interval(plain)),
        "chosen": dataclasses.asdict(mean_interval(chosen)),
        "difference": {"mean": difference, "interval": interval, "p": p},
        "share_of_flops": flops * runs / (tokens * 6 * active_parameters(recipe, stages)),
        "target": search.target,
        "epochs": search.epochs,
    }
    write_json(directory / "mix.json", facts)
    return facts


def _tokens(recipe: Recipe, unique: float) -> float:
    """How many tokens the recipe's own run sees."""
    budget = parse_budget(recipe.pretrain.budget)
    if budget.unit == "seconds":
        raise InputError(
            "a budget of wall time does not say how much text is seen, which a mix depends on",
            'write pretrain.budget = "50M tokens"',
        )
    rows, _ = resolve_batch(recipe.pretrain, pipeline.config_of(recipe.model, recipe.pretrain, 4096))
    each = {"tokens": 1.0, "epochs": unique, "steps": float(rows * recipe.pretrain.row_tokens)}
    return budget.amount * each[budget.unit]


def _weights(
    target: str | None, shards: Artifact, names: list[str], used: list[int]
) -> tuple[Float[np.ndarray, " groups"], list[int]]:
    """How much each group's held-out loss counts, and which have any: by their tokens, those of the target alone."""
    valid = np.array(shards.manifest.metrics["splits"]["valid"]["group_tokens"], dtype=float)[used]
    if target is not None:
        known = dict.fromkeys([*names, *(part for name in names for part in name.split("/"))])
        if target not in known:
            raise InputError(f'there is no group "{target}"', did_you_mean(target, known))
        valid = np.where([target == name or target in name.split("/") for name in names], valid, 0.0)
    counted = [i for i in range(len(names)) if valid[i] > 0]
    if not counted:
        raise InputError(f'there is no held-out text of "{target}"', "set corpus.valid_fraction higher")
    weights: Float[np.ndarray, " groups"] = valid[counted] / valid[counted].sum()
    return weights, counted


def _proxy(
    recipe: Recipe, stages: Mapping[str, Artifact], tokens: float, search: MixSearch
) -> tuple[Recipe, int, float, int]:
    """The recipe of the small runs, the tokens that each sees, its operations, and how many there are."""
    proxy = dataclasses.replace(
        recipe, model=resized(recipe.model, max(1, round(PROXY * recipe.model.depth)))
    )
    runs = search.runs + 2 * search.seeds
    cost = 6 * active_parameters(proxy, stages)
    whole = tokens * 6 * active_parameters(recipe, stages)
    rows, _ = resolve_batch(proxy.pretrain, model_config(proxy, stages))
    batch = rows * proxy.pretrain.row_tokens
    steps = math.floor(search.share * whole / runs / cost / batch)
    if steps < LEAST_STEPS:
        needed = math.ceil(1000 * LEAST_STEPS * batch * cost * runs / whole) / 1000
        raise InputError(
            f"{100 * search.share:g} % of the run pays for {steps} steps of each of {runs} small runs, and {LEAST_STEPS} tell "
            "something",
            f"set mix_search.share = {needed:g}"
            if needed <= 0.5
            else "set mix_search.runs lower, or model.depth or pretrain.budget higher: so short a run tells as much itself",
        )
    return proxy, steps * batch, steps * batch * cost, runs


def _changes(names: list[str], shares: Float[np.ndarray, " groups"]) -> dict[str, Any]:
    return {"pretrain": {"mix": {"weights": {n: float(s) for n, s in zip(names, shares, strict=True)}}}}


def _base(table: Mapping[str, Any], proxy: Recipe, tokens: int) -> dict[str, Any]:
    return laid_over(
        table,
        {"model": model_table(proxy.model), "pretrain": {"budget": f"{tokens} tokens", "validations": 1}},
    )


def _losses(
    base: Mapping[str, Any], candidates: Mapping[str, Any], seeds: int, directory: Path, listener: Listener,
    jobs: int | None, shards: Artifact, used: list[int],
) -> dict[str, list[Float[np.ndarray, " groups"]]]:  # fmt: skip
    """The held-out loss on each group of each candidate and seed: 0 where a group has no held-out text."""
    table = dict(base) | {"compare": {"candidates": dict(candidates), "seeds": seeds, "held_out_pieces": 1}}
    made = compare(table, directory, listener, jobs=jobs)
    seeds_of = json.loads((made.path / "comparison.json").read_text(encoding="utf-8"))["curves"]
    found: dict[str, list[Float[np.ndarray, " groups"]]] = {}
    for key in seeds_of:
        name, seed = key.rsplit("/", 1)
        model = open_artifact(
            directory / "cells" / name / f"seed-{seed}" / "model", "checkpoint", verify=False
        )
        found.setdefault(name, []).append(_of_groups(model, shards, used))
    return found


def _of_groups(model: Artifact, shards: Artifact, used: list[int]) -> Float[np.ndarray, " groups"]:
    """The nats per token of a model on the held-out text of each group, kept beside it once they are known."""
    path = model.path.parent / "groups.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if facts.get("model") != model.manifest.content_hash:
        loaded = load_run(model.path)
        settings = model.manifest.config["pretrain"]
        store = Shards(shards).split("valid")
        scores = score_documents(
            loaded.model, store, row_tokens=settings["row_tokens"], vocabulary=loaded.tokenizer.vocabulary(),
            objective=objective_of(model.manifest.config),
        )  # fmt: skip
        nats = np.bincount(store.groups, weights=scores.nats, minlength=max(used) + 1)
        tokens = np.bincount(store.groups, weights=scores.tokens, minlength=max(used) + 1)
        facts = {
            "model": model.manifest.content_hash,
            "nats_per_token": (nats / np.maximum(tokens, 1)).tolist(),
        }
        write_json(path, facts)
    return np.array(facts["nats_per_token"])[used]
