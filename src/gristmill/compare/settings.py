"""The `[compare]` table and each candidate's own recipe, and all that is checked before training starts."""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt

from gristmill import pipeline
from gristmill.artifact import Artifact
from gristmill.config import from_dict, to_dict
from gristmill.errors import InputError, did_you_mean
from gristmill.evaluate.minimal_pairs import read_pairs
from gristmill.evaluate.probe import ProbeSettings, read_examples
from gristmill.model.config import ModelConfig, resolve
from gristmill.objectives.base import Objective
from gristmill.pipeline import Recipe
from gristmill.tokenizer import Tokenizer
from gristmill.train.schedule import Budget, parse_budget
from gristmill.train.settings import resolve_batch

__all__ = [
    "Amount",
    "Comparison",
    "amount_of",
    "check_lengths",
    "digest",
    "laid_over",
    "model_config",
    "named",
    "open_comparison",
    "settled_objective",
]

ROUNDING = 0.02
"""What differs by no more than this share is equal: steps and layers can not be divided."""
USELESS = ("name", "seed", "samples")
"""Keys of a recipe that a candidate can't change: nothing that is compared would."""
Positive = Annotated[int, Gt(0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The `[compare]` table: what is compared, how often, and by what."""

    candidates: dict[str, Any]
    """Name -> the tables of the recipe that it changes."""
    seeds: Positive = 3
    """How many times each is trained; the recipe's seed is the first."""
    equal: Literal["tokens", "flops", "nothing"] = "tokens"
    """What all candidates get equally much of: tokens of text, operations of matrix products, or nothing: then each
    has the budget that it says."""
    one_tokenizer: bool = False
    """Whether all have the tokenizer that the reference's text makes, not each its own."""
    parameters: Positive | None = None
    """Parameters that every candidate has, as nearly as feed-forward layers can be fitted; by default as they come."""
    reference: str | None = None
    """The candidate that the others are compared with, and whose operations set an equal budget of FLOPs; by default
    the first. In a column that it has no figure in, it is the first that has one."""
    pairs: tuple[str, ...] = ()
    """Folders of linguistic minimal pairs, BLiMP for instance."""
    pairs_per_paradigm: Positive | None = None
    """At most so many pairs of each paradigm; by default all."""
    held_out_pieces: Positive = 200
    """So many pieces of validation text, two or three sentences each, are scored in every way that a model can be."""
    probe: ProbeSettings | None = None
    """A labelled task that each model is fine-tuned on."""

    def __post_init__(self) -> None:
        if len(self.candidates) < 1:
            raise InputError("there is nothing to compare", "write compare.candidates.causal = { … }")
        for name in self.candidates:
            if not name or any(c in name for c in '/\\:*?"<>|') or name.startswith("."):
                raise InputError(
                    f'the candidate "{name}" does not name a directory', "use letters and digits"
                )
        if self.reference is not None and self.reference not in self.candidates:
            raise InputError(
                f'there is no candidate "{self.reference}"',
                did_you_mean(self.reference, list(self.candidates)),
            )
        for folder in self.pairs:
            if not Path(folder).is_dir():
                raise InputError(f"there is no folder of minimal pairs {folder}", "name one, or leave it out")
        names = [Path(folder).name for folder in self.pairs]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise InputError(
                f'two folders of minimal pairs are called "{doubled[0]}", and a column is called as its folder is',
                "rename one",
            )

    @property
    def first(self) -> str:
        """The candidate that the others are compared with."""
        return self.reference or next(iter(self.candidates))


def open_comparison(table: Mapping[str, Any]) -> tuple[Recipe, Comparison, dict[str, Recipe]]:
    """Returns the recipe, what it compares, and each candidate's own recipe, everything checked.

    Raises:
        InputError: there is no `[compare]` table, a candidate's settings do not fit (it is named), budgets are not
            equal, or a file of minimal pairs or labelled texts is not what it should be.
    """
    if "compare" not in table:
        raise InputError("the recipe has no [compare] table", "`gristmill run` is for recipes of one model")
    base = {key: value for key, value in table.items() if key != "compare"}
    comparison = from_dict(Comparison, table["compare"], "compare")
    recipes, amounts = {}, {}
    for name, changes in comparison.candidates.items():
        if not isinstance(changes, Mapping):
            raise InputError(f"compare.candidates.{name} is no table", '{ pretrain.objective = "causal" }')
        with named(name):
            if useless := [key for key in USELESS if key in changes]:
                raise InputError(
                    f'"{useless[0]}" is no setting of a candidate',
                    "compare.seeds says how often each is trained, with the same seeds"
                    if useless[0] == "seed"
                    else "leave it out",
                )
            recipes[name] = pipeline.settle(from_dict(Recipe, laid_over(base, changes)))
            amounts[name] = amount_of(recipes[name])
    _check_amounts(comparison, amounts)
    _check_files(comparison)
    # one tokenizer for all: with as many sentinels as the most demanding of them needs
    most = max(recipe.tokenizer.sentinels for recipe in recipes.values())
    recipes = {
        name: dataclasses.replace(r, tokenizer=dataclasses.replace(r.tokenizer, sentinels=most))
        for name, r in recipes.items()
    }
    return from_dict(Recipe, base), comparison, recipes


# --- one candidate --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def named(name: str, what: str = "candidate") -> Iterator[None]:
    """Says of what is wrong inside which candidate it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what} {name}: {error.message}", error.hint) from None


def laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes laid over it, table by table; a part that is changed by name is replaced whole."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        replaced = isinstance(value, Mapping) and "name" in value
        if isinstance(value, Mapping) and isinstance(before, Mapping) and not replaced:
            result[key] = laid_over(before, value)
        else:
            result[key] = value
    return result


def settled_objective(recipe: Recipe) -> Objective:
    """Returns the objective of a candidate's recipe, which `open_comparison` settled."""
    assert recipe.pretrain.objective is not None
    return recipe.pretrain.objective


def model_config(recipe: Recipe, stages: Mapping[str, Artifact]) -> ModelConfig:
    """Returns the shape of a candidate's model, whose vocabulary the finished stages know."""
    return pipeline.config_of(recipe.model, recipe.pretrain, stages["shards"].manifest.metrics["vocab_size"])


def digest(value: Any) -> str:
    """Returns a short hash of settings: the same for the same, whatever their order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


# --- budgets --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amount:
    """How much a candidate's own recipe trains it."""

    budget: Budget
    tokens: int | None
    """In whole steps; None where that can't be known before the text is read, or ever."""
    text: str
    """Epochs of which text, in which tokens."""

    def __str__(self) -> str:
        if self.tokens is None:
            return f"{self.budget.amount:g} {self.budget.unit} of its own text"
        return f"{self.tokens:,} tokens"


def amount_of(recipe: Recipe) -> Amount:
    """Returns how much text a recipe trains its model on."""
    budget, tokens = parse_budget(recipe.pretrain.budget), None
    if budget.unit in ("steps", "tokens"):
        row_tokens = recipe.pretrain.row_tokens
        rows, _ = resolve_batch(
            recipe.pretrain, resolve(recipe.model, vocab_size=4096, row_tokens=row_tokens)
        )
        steps = budget.amount / (1 if budget.unit == "steps" else rows * row_tokens)
        tokens = max(2, math.ceil(steps)) * rows * row_tokens
    text = digest({"corpus": to_dict(recipe.corpus), "tokenizer": to_dict(recipe.tokenizer)})
    return Amount(budget=budget, tokens=tokens, text=text)


def _check_amounts(comparison: Comparison, amounts: Mapping[str, Amount]) -> None:
    """Refuses budgets with which candidates would not get equally much."""
    reference = amounts[comparison.first]
    for name, amount in amounts.items():
        if amount.budget.unit == "seconds":
            raise InputError(
                f"candidate {name}: a budget of wall time gives each candidate what it has time for, not equally much",
                'write pretrain.budget = "5M tokens"',
            )
        if comparison.equal == "nothing":
            continue
        if comparison.equal == "flops":
            if reference.tokens is None:
                raise InputError(
                    'compare.equal = "flops" needs a budget in tokens, but that of '
                    f"{comparison.first} is in {reference.budget.unit}",
                    'write pretrain.budget = "5M tokens": the reference gets them, the others what costs as much',
                )
            if amount.budget != reference.budget:
                raise InputError(
                    f'candidate {name}: with compare.equal = "flops" its budget follows from that of {comparison.first}',
                    "leave its pretrain.budget out",
                )
        elif not _equal(amount, reference):
            raise InputError(
                f'compare.equal = "tokens", but {comparison.first} gets {reference}, and {name} {amount}',
                'give all the same pretrain.budget, such as "5M tokens", of many steps; or set compare.equal = "flops"',
            )


def _equal(a: Amount, b: Amount) -> bool:
    if a.tokens is None or b.tokens is None:
        return (a.budget, a.text) == (b.budget, b.text)
    return abs(a.tokens - b.tokens) <= ROUNDING * max(a.tokens, b.tokens)


# --- what is measured with ------------------------------------------------------------------------------------------


def _check_files(comparison: Comparison) -> None:
    """Reads what is measured with, so that a line that is wrong does not come to light after hours of training."""
    for folder in comparison.pairs:
        read_pairs(Path(folder), limit=comparison.pairs_per_paradigm)
    if comparison.probe is not None:
        classes = {example.label for example in read_examples(Path(comparison.probe.train))}
        if len(classes) < 2:
            raise InputError(
                f"all texts of {comparison.probe.train} have the label {classes.pop()}, so there is nothing to tell apart",
                "a probe needs examples of two classes at least",
            )
        read_examples(Path(comparison.probe.test))


def check_lengths(
    recipes: Mapping[str, Recipe], comparison: Comparison, shared: Mapping[str, Mapping[str, Artifact]]
) -> None:
    """Refuses minimal pairs that a model can't read whole.

    Raises:
        InputError: a sentence is longer than a candidate's model is.
    """
    longest: dict[tuple[Path, str], tuple[int, str]] = {}
    for name, recipe in recipes.items():
        config = model_config(recipe, shared[name])
        if config.core != "transformer":
            continue
        path = shared[name]["tokenizer"].path
        for folder in comparison.pairs:
            if (path, folder) not in longest:
                longest[path, folder] = _longest(path, folder, comparison.pairs_per_paradigm)
            tokens, sentence = longest[path, folder]
            if tokens + 2 > config.maximum_positions:
                raise InputError(
                    f'candidate {name}: "{sentence[:60]}" of {folder} has {tokens:,} tokens, and the model handles '
                    f"{config.maximum_positions:,} positions, two special ones among them",
                    f"set model.maximum_positions = {tokens + 2}, or leave the folder out",
                )


def _longest(tokenizer: Path, folder: str, limit: int | None) -> tuple[int, str]:
    pairs = read_pairs(Path(folder), limit=limit)
    sentences = list(dict.fromkeys(sentence for pair in pairs for sentence in (pair.good, pair.bad)))
    encoded = Tokenizer.from_directory(tokenizer).encode_batch(sentences)
    return max(zip(map(len, encoded), sentences, strict=True))
