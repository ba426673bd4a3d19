"""What holds for every objective: `check_objective(MyObjective(), config)`.

Rows are packed from the shipped text as bytes, with the special tokens that a recipe gives each kind of model. The
tests of an objective name, for each of the checks, what of it does not apply and why.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gristmill import config as recipes
from gristmill.batch import Batch, Pairs, Source
from gristmill.corpus.rows import plan_epoch, read_rows
from gristmill.corpus.shards import TokenStore
from gristmill.errors import InputError
from gristmill.model.build import make_model
from gristmill.model.config import Kind, ModelConfig, ModelSettings, resolve
from gristmill.model.transformer import Transformer
from gristmill.objectives.base import Objective, hidden_states
from gristmill.rng import stream
from gristmill.rows import Rows
from gristmill.vocabulary import Vocabulary
from tests.noisy import noisy

TEXTS = Path(__file__).resolve().parents[2] / "recipes" / "texts"
SPECIAL = {"bos": 256, "eos": 257, "pad": 258, "mask": 259, "cls": 260, "sep": 261}
SENTINELS = 100
ROW_TOKENS = 64

VOCABULARY = Vocabulary(
    pieces=[*(bytes([i]) for i in range(256)), *[b""] * (len(SPECIAL) + SENTINELS)],
    special=SPECIAL,
    sentinels=range(262, 262 + SENTINELS),
)

"""Bytes, the special tokens that training makes, and sentinels."""

FRAME: dict[Kind, tuple[str, str]] = {
    "decoder": ("bos", "eos"),
    "encoder": ("cls", "sep"),
    "encoder-decoder": ("bos", "eos"),
}
"""What stands before and after the text of each document."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """An objective, a model, and what of the checks is not as it usually is."""

    objective: Objective
    config: ModelConfig
    hiding: Objective
    """The same objective with settings under which no predicted token is left as it is."""
    part: str | None = None
    """Which part of the loss `scores` itemises; None: the total."""
    source_shows_targets: bool = False
    """The source is the text itself, damaged (BART): a token that was not hit can be copied."""
    predicts_special: bool = False
    """Special tokens count among the targets."""
    untrained: tuple[str, ...] = ()
    """Beginnings of the names of parameters that get no gradient."""
    row_tokens: int = ROW_TOKENS
    """Longer rows for an objective that needs several sentences in one."""
    draws: bool = False
    """The loss draws numbers, others for each batch: a generator says something."""
    falls_to: float = 0.8
    """What the loss comes down to in 60 steps, as a share of its start."""

    def prepare(self, rows: Rows, *name: str | int) -> Batch:
        return self.objective.prepare(rows, stream(0, "objective", *name))


def check_objective(
    objective: Objective,
    config: ModelConfig | None = None,
    *,
    hiding: Objective | None = None,
    **exceptions: Any,
) -> None:
    """Runs every check; `exceptions` are fields of `Case`."""
    config = objective.refine(config or tiny_config(next(iter(objective.kinds))))
    case = Case(objective=objective, config=config, hiding=hiding or objective, **exceptions)
    for check in CHECKS:
        check(case)


# --- models and rows ------------------------------------------------------------------------------------------------


def tiny_config(kind: Kind, **settings: Any) -> ModelConfig:
    """The smallest model of a kind: qwen3, bert, or t5; `settings` are fields of `ModelSettings`."""
    families: dict[Kind, str] = {"decoder": "qwen3", "encoder": "bert", "encoder-decoder": "t5"}
    wanted = ModelSettings(**{"family": families[kind], "depth": 2, "width": 32, "heads": 2, **settings})
    # learned positions have to be there for longer rows
    return resolve(wanted, vocab_size=VOCABULARY.size, row_tokens=8 * ROW_TOKENS)


def modernbert_config() -> ModelConfig:
    """An encoder with rotary positions, of whose two layers one sees eight positions to each side."""
    return tiny_config("encoder", family="modernbert", window=8, global_every=2)


def random_model(config: ModelConfig, *, noise: float = 0.2) -> Transformer:
    """A model in float32 whose blocks are not the identity, as they are at the start of training."""
    model = noisy(make_model(config), noise)
    assert isinstance(model, Transformer)
    return model


def pack(documents: list[list[int]], *, row_tokens: int, lookahead: int = 0, seed: int = 0) -> Rows:
    """Returns documents of token ids as packed rows."""
    lengths = np.array([len(document) for document in documents])
    store = TokenStore(
        tokens=np.concatenate([np.array(document, dtype=np.uint16) for document in documents]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        text_bytes=lengths.astype(np.int32),
        path=Path("unread"),
    )
    plan = plan_epoch(lengths, row_tokens, seed=seed, epoch=0, lookahead=lookahead)
    rows = read_rows(store, plan, np.arange(plan.rows))
    return dataclasses.replace(rows, vocabulary=VOCABULARY)


def frame(text: str | bytes, kind: Kind) -> list[int]:
    """Returns the ids of a document as it is stored for a kind of model."""
    first, last = FRAME[kind]
    return [SPECIAL[first], *(text if isinstance(text, bytes) else text.encode()), SPECIAL[last]]


@functools.cache
def example_rows(kind: Kind, lookahead: int, row_tokens: int = ROW_TOKENS) -> Rows:
    """Rows with several documents in one, documents that go on in another row, and padding."""
    text = (TEXTS / "king-james.txt").read_text(encoding="utf-8")
    sizes = [size * row_tokens // ROW_TOKENS for size in (21, 150, 17, 33, 70, 12, 40, 9)]
    starts = np.cumsum([2000, *sizes])
    documents = [frame(text[s : s + n], kind) for s, n in zip(starts, sizes, strict=False)]
    rows = pack(documents, row_tokens=row_tokens, lookahead=lookahead)
    assert (rows.segments == 0).any()
    assert rows.segments.max() > 2
    for array in (rows.tokens, rows.segments, rows.following):
        array.flags.writeable = False  # prepare changes nothing that it is given
    return rows


def rows_of(case: Case) -> Rows:
    return example_rows(case.config.kind, case.objective.lookahead, case.row_tokens)


def tensors(batch: Batch | Source | Pairs, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor of a batch by its name."""
    found = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            found[prefix + field.name] = value
        elif isinstance(value, Source | Pairs):
            found |= tensors(value, f"{field.name}.")
    return found


def same(one: Batch, other: Batch) -> bool:
    ours, theirs = tensors(one), tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- the checks -----------------------------------------------------------------------------------------------------


def check_settings_come_back_from_a_recipe(case: Case) -> None:
    table = recipes.to_dict(case.objective)
    assert table.pop("name") == type(case.objective).__module__.rsplit(".", 1)[-1]
    assert recipes.from_dict(type(case.objective), table) == case.objective
    described = recipes.field_docs(type(case.objective))
    assert set(table) <= set(described), "a docstring below each field becomes the reference"


def check_other_kinds_and_vocabularies_are_refused(case: Case) -> None:
    case.objective.check(case.config)
    case.objective.check_vocabulary(VOCABULARY)
    kinds: tuple[Kind, ...] = ("decoder", "encoder", "encoder-decoder")
    for kind in set(kinds) - case.objective.kinds:
        with pytest.raises(InputError, match=r"model\.kind"):
            case.objective.check(tiny_config(kind))
    if case.objective.special:
        with pytest.raises(InputError, match=case.objective.special[0]):
            case.objective.check_vocabulary(Vocabulary(pieces=VOCABULARY.pieces, special={}))


def check_prepare_is_a_pure_function(case: Case) -> None:
    rows = rows_of(case)
    before = [array.copy() for array in (rows.tokens, rows.segments, rows.following)]
    for progress in (0.0, 0.5, 1.0):
        one, other = (case.objective.prepare(rows, stream(7, "twice"), progress) for _ in range(2))
        assert same(one, other)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(before, (rows.tokens, rows.segments, rows.following), strict=True)
    )


def check_shapes_types_and_ranges(case: Case) -> None:
    batch = case.prepare(rows_of(case), "shapes")
    shape = batch.tokens.shape
    assert len(shape) == 2
    for name, tensor in tensors(batch).items():
        if "." not in name:
            assert tensor.shape == shape, name
        floats, bools = name.endswith("weights"), name == "prefix"
        assert tensor.dtype == (torch.float32 if floats else torch.bool if bools else torch.int64), name
    for ids in (batch.tokens, batch.targets, *([batch.source.tokens] if batch.source else [])):
        assert int(ids.min()) >= 0
        assert int(ids.max()) < case.config.vocab_size


def check_weights_leave_out_padding_and_special_tokens(case: Case) -> None:
    for draw in range(5):
        batch = case.prepare(rows_of(case), "weights", draw)
        counted = batch.weights != 0
        assert counted.any()
        assert not counted[batch.segments == 0].any()
        if not case.predicts_special:
            assert torch.from_numpy(VOCABULARY.is_ordinary)[batch.targets[counted]].all()


@torch.no_grad()
def check_no_target_is_visible_where_it_is_predicted(case: Case) -> None:
    """Another letter at a place of the text changes the target there, and not the state that it is told from."""
    rows, model = rows_of(case), random_model(case.config)
    letters = np.argwhere((rows.tokens >= ord("a")) & (rows.tokens <= ord("z")))
    places = stream(0, "places").permutation(letters)[:60]
    batch = case.hiding.prepare(rows, stream(0, "hidden"))
    states = hidden_states(model, batch)
    tested = 0
    for row, column in places:
        other = case.hiding.prepare(_with_another_letter(rows, row, column), stream(0, "hidden"))
        assert other.tokens.shape == batch.tokens.shape
        if case.source_shows_targets:
            other = dataclasses.replace(other, source=batch.source)
        predicts = (other.targets != batch.targets) & (batch.weights != 0)
        if predicts.any():
            torch.testing.assert_close(
                hidden_states(model, other)[predicts], states[predicts], rtol=1e-5, atol=1e-5
            )
            tested += 1
        if tested == 8:
            return
    assert tested >= 3, "hardly any token was predicted"


def _with_another_letter(rows: Rows, row: int, column: int) -> Rows:
    """The rows with another letter at a place, also where it is named as the token that follows."""
    tokens, following = rows.tokens.copy(), rows.following.copy()
    tokens[row, column] = ord("a") + (tokens[row, column] - ord("a") + 7) % 26
    if column and rows.segments[row, column - 1] == rows.segments[row, column]:
        following[row, column - 1] = tokens[row, column]
    return dataclasses.replace(rows, tokens=tokens, following=following)


@torch.no_grad()
def check_segments_never_see_each_other(case: Case) -> None:
    model = random_model(case.config)
    batch = case.prepare(rows_of(case), "segments")
    row = int(batch.segments.amax(1).argmax())
    assert batch.segments[row].max() >= 2
    segment = 1
    mine = batch.segments[row] == segment
    noise = np.random.default_rng(0)

    def scrambled(tokens: Tensor, where: Tensor) -> Tensor:
        tokens = tokens.clone()
        tokens[row, where] = torch.from_numpy(noise.choice(VOCABULARY.ordinary, int(where.sum())))
        return tokens

    source = batch.source
    if source is not None:
        source = dataclasses.replace(source, tokens=scrambled(source.tokens, source.segments[row] == segment))
    other = dataclasses.replace(batch, tokens=scrambled(batch.tokens, mine), source=source)
    moved = (hidden_states(model, other) - hidden_states(model, batch)).abs().amax(-1)
    theirs = batch.segments != 0
    theirs[row] &= ~mine
    assert moved[row, mine].max() > 1e-3, "the model sees nothing at all"
    assert moved[theirs].max() < 1e-5


@torch.no_grad()
def check_the_loss_is_the_weighted_mean_of_the_scores(case: Case) -> None:
    model = random_model(case.config)
    batch = case.prepare(rows_of(case), "scores")
    loss, scores = case.objective.loss(model, batch), case.objective.scores(model, batch)
    total, weight = (loss.total_nats, loss.weight) if case.part is None else loss.parts[case.part]
    weights = torch.where(batch.weights != 0, batch.weights, 1.0) * scores.counted
    assert scores.counted.any()
    assert not scores.counted[batch.segments == 0].any()
    torch.testing.assert_close(
        total / weight, (scores.nats * weights).sum() / weights.sum(), rtol=1e-5, atol=1e-5
    )


def check_the_rows_of_a_batch_add_up_to_it(case: Case) -> None:
    """What fits into memory at a time changes neither the loss nor its gradient."""
    batch = case.prepare(rows_of(case), "split")
    apart = batch.split(1)
    assert torch.equal(torch.cat([one.tokens for one in apart]), batch.tokens)
    assert same(batch.split(len(batch.tokens))[0], batch)
    if case.draws:
        return

    def summed(
        batches: Iterable[Batch],
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
        model = random_model(case.config)
        losses = [case.objective.loss(model, one) for one in batches]
        total = torch.stack([loss.total_nats for loss in losses]).sum()
        total.backward()
        parts = {
            name: tuple(sum(loss.parts[name][i] for loss in losses if name in loss.parts) for i in (0, 1))
            for name in losses[0].parts
        }
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return total.detach(), gradients, parts

    (whole, gradients, parts), (total, added, added_parts) = summed([batch]), summed(apart)
    torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-5)
    for name, of_part in added_parts.items():
        torch.testing.assert_close(of_part, parts[name], rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(added[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


@torch.no_grad()
def check_padding_does_not_change_the_loss(case: Case) -> None:
    model = random_model(case.config)
    batch = case.prepare(rows_of(case), "padding")
    loss, padded = (case.objective.loss(model, b) for b in (batch, _padded(batch, 9)))
    torch.testing.assert_close(padded.total_nats, loss.total_nats, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded.weight, loss.weight)


def _padded(batch: Batch, columns: int) -> Batch:
    def wider(part: Any) -> Any:
        values = {
            field.name: torch.nn.functional.pad(value, (0, columns))
            for field in dataclasses.fields(part)
            if isinstance(value := getattr(part, field.name), Tensor)
        }
        return dataclasses.replace(part, **values)

    wide: Batch = wider(batch)
    return dataclasses.replace(wide, source=wider(batch.source)) if batch.source is not None else wide


def check_gradients_reach_every_parameter(case: Case) -> None:
    model = random_model(case.config)
    loss = case.objective.loss(model, case.prepare(rows_of(case), "gradients"))
    loss.mean_nats.backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert [name for name in without if not name.startswith(case.untrained or ("-",))] == []
    assert all(any(name.startswith(start) for name in without) for start in case.untrained)
    assert not any(tensor.requires_grad for part in loss.parts.values() for tensor in part)


def check_the_loss_falls(case: Case) -> None:
    """Sixty steps on a few rows of the text, which are masked (or cut, or shuffled) anew each time."""
    model = make_model(case.config)
    model.initialise(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rows, losses = rows_of(case), []
    for step in range(60):
        loss = case.objective.loss(model, case.prepare(rows, "falls", step)).mean_nats
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    first, last = np.mean(losses[:3]), np.mean(losses[-10:])
    assert last < case.falls_to * first, f"{first:.2f} -> {last:.2f} nats"


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_settings_come_back_from_a_recipe,
    check_other_kinds_and_vocabularies_are_refused,
    check_prepare_is_a_pure_function,
    check_shapes_types_and_ranges,
    check_weights_leave_out_padding_and_special_tokens,
    check_no_target_is_visible_where_it_is_predicted,
    check_segments_never_see_each_other,
    check_the_loss_is_the_weighted_mean_of_the_scores,
    check_the_rows_of_a_batch_add_up_to_it,
    check_padding_does_not_change_the_loss,
    check_gradients_reach_every_parameter,
    check_the_loss_falls,
)
