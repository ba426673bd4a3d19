"""What candidates have or get equally much of: parameters, tokens or operations, and how operations are counted."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from unittest import mock

import torch
from torch import Tensor

from gristmill import pipeline
from gristmill.artifact import Artifact
from gristmill.compare.settings import ROUNDING, Comparison, amount_of, model_config, settled_objective
from gristmill.corpus.shards import Shards
from gristmill.errors import InputError
from gristmill.model import ops
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings
from gristmill.model.count import parameter_counts, training_flops_per_token
from gristmill.pipeline import Recipe
from gristmill.tokenizer import Tokenizer
from gristmill.train.loader import Cursor, Loader
from gristmill.train.settings import resolve_batch

__all__ = ["fit_parameters", "flops_per_token", "with_equal_budgets", "with_equal_parameters"]

STEP = 8
"""Sizes of feed-forward layers that are fitted to a number of parameters are multiples of this."""


def with_equal_parameters(
    recipes: Mapping[str, Recipe], comparison: Comparison, sizes: Mapping[str, int]
) -> dict[str, Recipe]:
    """Returns the recipes with models of `compare.parameters` each, or as they are where it is not set."""
    if comparison.parameters is None:
        return dict(recipes)
    return {
        name: dataclasses.replace(
            recipe, model=fit_parameters(recipe, comparison.parameters, sizes[name], name)
        )
        for name, recipe in recipes.items()
    }


def fit_parameters(recipe: Recipe, wanted: int, vocab_size: int, name: str) -> ModelSettings:
    """Returns the model's settings with the inner size that brings its parameters nearest to a number.

    Raises:
        InputError: no size comes within 2 %.
    """

    def sized(steps: int) -> ModelSettings:
        return dataclasses.replace(recipe.model, feed_forward=STEP * steps)

    def count(steps: int) -> int:
        return parameter_counts(pipeline.config_of(sized(steps), recipe.pretrain, vocab_size))["total"]

    low, high = 1, 2
    while count(high) < wanted and high < 1 << 16:
        high *= 2
    while low < high:  # the smallest size with at least so many parameters
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= wanted else (middle + 1, high)
    best = min((max(low - 1, 1), low), key=lambda steps: abs(count(steps) - wanted))
    if abs(count(best) - wanted) > ROUNDING * wanted:
        raise InputError(
            f"candidate {name}: the nearest to compare.parameters = {wanted:,} is {count(best):,}",
            "set its model.depth or model.width so that layers take about what is left",
        )
    return sized(best)


def with_equal_budgets(
    recipes: Mapping[str, Recipe], comparison: Comparison, flops: Mapping[str, float]
) -> dict[str, Recipe]:
    """Returns the recipes with budgets of as many operations as the reference's, or as they are where tokens are equal."""
    if comparison.equal != "flops":
        return dict(recipes)
    tokens = amount_of(recipes[comparison.first]).tokens
    assert tokens is not None  # checked when the recipe was read
    work = tokens * flops[comparison.first]
    return {
        name: dataclasses.replace(
            recipe,
            pretrain=dataclasses.replace(recipe.pretrain, budget=f"{round(work / flops[name])} tokens"),
        )
        for name, recipe in recipes.items()
    }


# --- operations -----------------------------------------------------------------------------------------------------


def flops_per_token(recipe: Recipe, stages: Mapping[str, Artifact]) -> float:
    """Returns the operations of matrix products for each token of text, forward and backward, counted on one step.

    Of attention they are those of what positions see, whichever kernel computes it. A rate that follows a schedule is
    taken halfway.
    """
    from torch.utils.flop_counter import FlopCounterMode

    config = model_config(recipe, stages)
    if config.core != "transformer":  # its recurrence is no product that the counter knows
        return float(training_flops_per_token(config, recipe.pretrain.row_tokens))
    objective = settled_objective(recipe)
    rows, micro = resolve_batch(recipe.pretrain, config)
    model = make_model(config).train()
    model.initialise(torch.Generator().manual_seed(0))
    with Loader(
        Shards(stages["shards"]).split("train"), objective, row_tokens=recipe.pretrain.row_tokens, rows=rows,
        micro_rows=micro, seed=recipe.seed,
        vocabulary=Tokenizer.from_directory(stages["tokenizer"].path).vocabulary(),
    ) as loader:  # fmt: skip
        step = loader.step(Cursor(0, 0), 1, 2)
    with FlopCounterMode(display=False) as counter, _attention_counted() as attention:
        for batch in step.batches:
            objective.loss(model, batch, 0).total_nats.backward()
    return float((counter.get_total_flops() + sum(attention)) / step.tokens)


@contextlib.contextmanager
def _attention_counted() -> Iterator[list[float]]:
    """While entered, the operations of attention are counted instead of done: the list gets those of each call.

    A counter of what is done would miss fused kernels and count what a slower one does in vain, so that the same model
    would cost more on one machine than on another. Each of H heads multiplies 2 K numbers for a score and as many for
    its value, and twice both backward.
    """
    found: list[float] = []

    def counted(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        spans: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        scale: float | int | None = None,
        shared: object = None,
    ) -> Tensor:
        B, H, T, K = q.shape
        factor = 12 if torch.is_grad_enabled() else 4
        found.append(float(factor * H * K * _pairs_seen(B, T, k.shape[2], mask, spans)))
        # no values that mean anything, but gradients that flow to all three
        return q.transpose(1, 2).reshape(B, T, H * K) + k.mean() + v.mean()

    with mock.patch.object(ops, "attend", counted):
        yield found


def _pairs_seen(B: int, T: int, S: int, mask: Tensor | None, spans: tuple[Tensor, Tensor] | None) -> int:
    """How many (query, key) pairs there are in all rows where the query sees the key (see `ops.attend`)."""
    if mask is None and spans is None:
        return B * sum(range(S - T + 1, S + 1))
    if mask is None:
        assert spans is not None
        return int((spans[1] - spans[0]).clamp(min=0).sum())
    visible = mask.expand(B, 1, T, S)[:, 0]
    if spans is not None:
        visible = visible & ops.within(spans, S)
    return int(visible.sum())
