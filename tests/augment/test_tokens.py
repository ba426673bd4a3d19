"""Noise of tokens: what is read changes, what is to be said stays the true text."""

import contextlib
import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill import config as recipes
from gristmill.augment import tokens as tokens_module
from gristmill.augment.tokens import Noise
from gristmill.batch import Batch
from gristmill.corpus.shards import TokenStore
from gristmill.errors import InputError
from gristmill.objectives.causal import Causal
from gristmill.objectives.denoise import Denoise
from gristmill.objectives.detect import Detect
from gristmill.objectives.hybrid import Hybrid
from gristmill.objectives.masked import Masked
from gristmill.objectives.next_sentence import NextSentence
from gristmill.objectives.permuted import Permuted
from gristmill.objectives.prefix import Prefix
from gristmill.objectives.spans import Spans
from gristmill.rng import derive, stream
from gristmill.train.loader import Cursor, Loader
from gristmill.vocabulary import Vocabulary
from tests.objectives.suite import VOCABULARY, example_rows, frame, pack, same, tensors

OBJECTIVES = [
    Causal(), Prefix(), Hybrid(), Masked(), Detect(), NextSentence(), Permuted(), Spans(), Denoise(),
]  # fmt: skip
BOS, MASK = 0, 1
TEXT = 2  # the first id of text
NUMBERS = Vocabulary(
    pieces=[b"", b"", *[b"%d " % i for i in range(TEXT, 20_000)]], special={"bos": BOS, "mask": MASK}
)
"""A vocabulary that is long enough for texts in which every token is one more than the token before it."""
SHARES = st.sampled_from([0.0, 0.05, 0.3, 0.6, 1.0])


def prepared(objective, name="batch"):
    rows = example_rows(next(iter(objective.kinds)), objective.lookahead)
    return objective.prepare(rows, stream(0, name), 0.5)


def counting(lengths: list[int], row_tokens: int = 32) -> Batch:
    """A causal batch of documents in which each token is one more than the token before it, and no two are the same."""
    ends = np.cumsum(lengths) + TEXT
    documents = [[BOS, *range(end - n, end)] for n, end in zip(lengths, ends.tolist(), strict=True)]
    rows = dataclasses.replace(pack(documents, row_tokens=row_tokens, lookahead=1), vocabulary=NUMBERS)
    return Causal().prepare(rows, stream(0, "counting"))


def noisy(noise: Noise, batch: Batch, seed: int = 0, progress: float = 0.5) -> Batch:
    return noise.apply(batch, derive(seed, "noise"), progress, NUMBERS)


def pieces(batch: Batch) -> dict[tuple[int, int], tuple[list[int], list[int]]]:
    """The tokens and targets of each piece that is in the batch, by its row and segment."""
    found = {}
    for row, segments in enumerate(batch.segments.tolist()):
        for segment in set(segments) - {0}:
            inside = batch.segments[row] == segment
            assert batch.weights[row][inside].eq(1).all()
            found[row, segment] = batch.tokens[row][inside].tolist(), batch.targets[row][inside].tolist()
    return found


LENGTHS = st.lists(st.integers(2, 70), min_size=3, max_size=12).filter(lambda lengths: sum(lengths) >= 32)


# --- noise that leaves every token in its place ---------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_what_is_to_be_said_stays_as_it_is_under_every_objective(objective):
    batch = prepared(objective)
    noise = Noise(mask=0.3, replace=0.3)
    noise.check(objective)
    after = noise.apply(batch, derive(0, "noise"), 0.5, VOCABULARY)
    before, now = tensors(batch), tensors(after)
    changed = {name for name in before if not torch.equal(before[name], now[name])}
    assert changed == ({"tokens", "source.tokens"} if batch.source is not None else {"tokens"})
    for name, segments in [
        ("tokens", batch.segments),
        *([("source.tokens", batch.source.segments)] if batch.source else []),
    ]:
        touched = before[name] != now[name]
        assert torch.from_numpy(VOCABULARY.is_ordinary)[before[name][touched]].all(), (
            "special tokens are never touched"
        )
        assert (segments[touched] != 0).all(), "nor is padding"
        new = now[name][touched]
        assert ((new == VOCABULARY.id("mask")) | torch.from_numpy(VOCABULARY.is_ordinary)[new]).all()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_no_noise_gives_the_same_bytes(objective):
    batch = prepared(objective)
    for noise in (Noise(), Noise(mask=(0.0, 0.0), replace=0.0)):
        after = noise.apply(batch, derive(0, "noise"), 0.3, VOCABULARY)
        assert {name: t.numpy().tobytes() for name, t in tensors(after).items()} == {
            name: t.numpy().tobytes() for name, t in tensors(batch).items()
        }


@pytest.mark.parametrize("name", ["mask", "replace", "delete", "swap", "insert"])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
def test_the_rate_is_that_of_independent_draws(name, rate):
    """Within five standard deviations of the binomial distribution."""
    batch = counting([500] * 38, row_tokens=501)
    text = int((batch.tokens >= TEXT).sum())
    after = noisy(Noise(**{name: rate}), batch)
    if name == "delete":
        hits = text - int((after.tokens >= TEXT).sum())
    elif name == "insert":
        # what is new is not followed by its own successor; of 1 + rate tokens one is in the row
        hits = int(((after.targets != after.tokens + 1) & (after.tokens >= TEXT)).sum()) * (1 + rate)
    else:
        hits = int((after.tokens != batch.tokens).sum())
    draws = text if name != "swap" else text / 2  # pairs
    expected = rate * text * (499 / 500 if name == "swap" else 1)  # the first or the last has no neighbour
    deviation = np.sqrt(rate * (1 - rate) / draws) * text
    assert abs(hits - expected) < 5 * deviation


def test_a_token_has_one_fate():
    batch = counting([500] * 20, row_tokens=501)
    after = noisy(Noise(mask=0.5, replace=0.5), batch)
    text = batch.tokens >= TEXT
    assert (after.tokens != batch.tokens)[text].float().mean() > 0.99, (
        "but for those that are replaced by themselves"
    )
    assert (after.tokens[text] == MASK).float().mean() == pytest.approx(0.5, abs=0.03)


def test_random_tokens_are_drawn_as_often_as_they_are_in_the_text_or_each_as_often():
    document = frame("aaab" * 2000, "decoder")
    batch = Causal().prepare(pack([document], row_tokens=64, lookahead=1), stream(0, "drawn"))

    def new(noise: Noise) -> torch.Tensor:
        after = noise.apply(batch, derive(0, "noise"), 0.0, VOCABULARY)
        return after.tokens[after.tokens != batch.tokens]

    unigram = Noise(replace=0.5).apply(batch, derive(0, "noise"), 0.0, VOCABULARY)
    frequency = (unigram.tokens == ord("b")).sum() / (batch.segments != 0).sum()
    assert frequency == pytest.approx(0.25, abs=0.02), "another order of the same letters"
    assert set(new(Noise(replace=0.5)).tolist()) == {ord("a"), ord("b")}
    assert len(new(Noise(replace=0.5, drawn="uniform")).unique()) == 256


def test_rates_follow_the_share_of_the_training_that_is_done():
    batch = counting([500] * 20, row_tokens=501)
    noise = Noise(mask=(0.4, 0.0), replace=(0.0, 0.2, 0.0))
    masked = [int((noisy(noise, batch, progress=p).tokens == MASK).sum()) for p in (0.0, 0.5, 1.0)]
    assert masked == [pytest.approx(4000, rel=0.05), pytest.approx(2000, rel=0.08), 0]
    assert same(noisy(noise, batch, progress=1.0), batch)


# --- noise that moves tokens ----------------------------------------------------------------------------------------


def test_the_examples_of_the_description():
    """<bos> a b c d e, as ids 0 2 3 4 5 6 and 7 in another row; under some seed each example is what happens."""
    text, targets = [0, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7]
    batch = Batch(
        tokens=torch.tensor([text]),
        targets=torch.tensor([targets]),
        weights=torch.ones(1, 6),
        segments=torch.ones(1, 6, dtype=torch.int64),
        visibility=counting([40]).visibility,
    )

    def outcomes(seeds: int = 300, **rates: float) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
        drawn = [noisy(Noise(**rates), batch, seed) for seed in range(seeds)]
        sizes = [int((one.segments != 0).sum()) for one in drawn]
        return {
            (tuple(one.tokens[0, :n].tolist()), tuple(one.targets[0, :n].tolist()))
            for one, n in zip(drawn, sizes, strict=True)
        }

    assert ((0, 2, MASK, 4, 5, 6), (2, 3, 4, 5, 6, 7)) in outcomes(mask=0.2)
    assert ((0, 2, 5, 4, 3, 6), (2, 3, 4, 5, 6, 7)) in outcomes(5000, replace=0.3)
    assert ((0, 2, 4, 5, 6), (2, 3, 5, 6, 7)) in outcomes(delete=0.2)
    assert ((0, 2, 4, 3, 5, 6), (2, 3, 5, 5, 6, 7)) in outcomes(swap=0.3)
    # x = 6 after b, and no room: one other token is left out, here e
    assert ((0, 2, 3, 6, 4, 5), (2, 3, 4, 4, 5, 6)) in outcomes(insert=0.2)


@settings(max_examples=40)
@given(lengths=LENGTHS, delete=SHARES, swap=SHARES, seed=st.integers(0, 1 << 30))
def test_the_target_is_the_token_after_the_furthest_that_was_read(lengths, delete, swap, seed):
    batch = counting(lengths)
    before, after = pieces(batch), pieces(noisy(Noise(delete=delete, swap=swap), batch, seed))
    assert before.keys() == after.keys(), "no piece is lost"
    for name, (tokens, targets) in after.items():
        assert set(tokens) <= set(before[name][0]), "what is read in a piece is of that piece"
        assert len(set(tokens)) == len(tokens)
        assert set(targets) <= set(before[name][1])
        # a document's own tokens count up, so the next one is one more; its first one is its own answer
        first = before[name][1][0] - 1
        furthest = np.maximum.accumulate([first if token == BOS else token for token in tokens])
        assert targets == (furthest + 1).tolist()


@settings(max_examples=40)
@given(lengths=LENGTHS, rates=st.tuples(SHARES, SHARES, SHARES), seed=st.integers(0, 1 << 30))
def test_no_target_has_been_read_and_all_are_of_their_piece(lengths, rates, seed):
    insert, delete, swap = rates
    batch = counting(lengths)
    # nothing that is inserted is text of the batch: what was read is then known
    noise = Noise(insert=insert, delete=delete, swap=swap, drawn="uniform")
    shown = noise.apply(batch, derive(seed, "noise"), 0.5, STRANGE)
    before, after = pieces(batch), pieces(shown)
    assert before.keys() == after.keys()
    for name, (tokens, targets) in after.items():
        own = before[name]
        assert len(tokens) <= len(own[0]), "no piece grows"
        assert set(targets) <= set(own[1])
        assert targets == sorted(targets), "it goes forward"
        for place, target in enumerate(targets):
            assert target not in tokens[: place + 1]
        kept = [token for token in tokens if token < FIRST_STRANGE]
        assert set(kept) <= set(own[0])
        if BOS in own[0]:
            assert tokens[0] == BOS
    for row in shown.segments.tolist():
        filled = [segment for segment in row if segment]
        assert row == [*filled, *[0] * (len(row) - len(filled))], "padding stands at the end"
        assert filled == sorted(filled)
    padding = shown.segments == 0
    assert not shown.tokens[padding].any()
    assert not shown.weights[padding].any()


FIRST_STRANGE = 19_000


class _Strange(Vocabulary):
    """Text that is in no document is all that is ever drawn."""

    ordinary = np.arange(FIRST_STRANGE, 20_000)


STRANGE = _Strange(pieces=NUMBERS.pieces, special=NUMBERS.special)


def test_what_is_inserted_asks_for_the_token_that_comes_next():
    batch = counting([20, 20], row_tokens=21)
    asks_again = []
    for seed in range(40):
        shown = Noise(insert=0.1, drawn="uniform").apply(batch, derive(seed, "noise"), 0.5, STRANGE)
        for tokens, targets in pieces(shown).values():
            asks_again += [
                targets[place] == targets[place - 1]
                for place in range(1, len(tokens))
                if tokens[place] >= FIRST_STRANGE
            ]
    assert len(asks_again) > 80
    assert np.mean(asks_again) > 0.85, "but where what stood before it was left out to make room"


def test_room_for_what_is_inserted_is_made_anywhere_in_the_piece():
    """Each token of the text is left out as often; the end of a document is not the one that suffers."""
    batch = counting([60] * 16, row_tokens=60)
    first = batch.targets[:, :1]
    missing = np.zeros(60)
    for seed in range(150):
        shown = Noise(insert=0.1, drawn="uniform").apply(batch, derive(seed, "noise"), 0.5, STRANGE)
        for row, begin in zip(shown.targets.tolist(), first.ravel().tolist(), strict=True):
            asked = {target - begin for target in row if begin <= target < begin + 60}
            missing[[place for place in range(60) if place not in asked]] += 1
    share = missing / (150 * len(batch.tokens))
    assert share.mean() == pytest.approx(0.1, abs=0.02)
    assert share[-6:].mean() < 1.5 * share.mean()


def test_moving_tokens_is_refused_where_targets_are_not_the_next_tokens():
    for objective in OBJECTIVES:
        for name in ("delete", "insert", "swap"):
            noise = Noise(**{name: (0.0, 0.1)})
            if isinstance(objective, Causal | Prefix):
                noise.check(objective)
                noise.apply(prepared(objective), derive(0, "noise"), 1.0, VOCABULARY)
            else:
                with pytest.raises(InputError, match=f"noise.{name} moves tokens"):
                    noise.check(objective)


def test_a_prefix_stays_the_beginning_of_its_piece():
    batch = prepared(Prefix())
    after = Noise(delete=0.3, insert=0.2, swap=0.2).apply(batch, derive(0, "noise"), 0.5, VOCABULARY)
    assert (after.prefix & (after.segments != 0)).any()
    for row in range(len(after.tokens)):
        for segment in set(after.segments[row].tolist()) - {0}:
            flags = after.prefix[row][after.segments[row] == segment].int()
            assert flags.tolist() == sorted(flags.tolist(), reverse=True)


# --- the two ways to compute it -------------------------------------------------------------------------------------

KINDS = ("mask", "replace", "delete", "insert", "swap")


@settings(max_examples=60)
@given(
    lengths=LENGTHS,
    rates=st.lists(st.sampled_from([0.0, 0.05, 0.3]), min_size=5, max_size=5),
    drawn=st.sampled_from(["unigram", "uniform"]),
    seed=st.integers(0, 1 << 30),
)
def test_c_and_numpy_agree_to_the_bit(lengths, rates, drawn, seed):
    if tokens_module._compiled() is None:
        pytest.skip("there is no compiler")
    batch = counting(lengths, row_tokens=31)
    noise = Noise(**dict(zip(KINDS, rates, strict=True)), drawn=drawn)
    compiled = noisy(noise, batch, seed)
    with without_compiler():
        assert same(noisy(noise, batch, seed), compiled)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_c_and_numpy_agree_under_every_objective(objective):
    batch, noise = prepared(objective), Noise(mask=0.3, replace=0.3)
    compiled = noise.apply(batch, derive(0, "noise"), 0.5, VOCABULARY)
    with without_compiler():
        assert same(noise.apply(batch, derive(0, "noise"), 0.5, VOCABULARY), compiled)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_a_loader_may_write_over_what_an_objective_prepares(objective):
    """What noise is written over lies in memory of its own, not in the rows' or another tensor's."""
    rows = example_rows(next(iter(objective.kinds)), objective.lookahead)
    read = [rows.tokens.copy(), rows.segments.copy(), rows.following.copy()]
    whole = tensors(objective.prepare(rows, stream(0, "batch"), 0.5))
    for name in {"tokens", "targets", "weights", "source.tokens"} & whole.keys():
        others = {other: tensor.clone() for other, tensor in whole.items() if other != name}
        assert whole[name].is_contiguous()
        whole[name].fill_(7)
        assert all(torch.equal(whole[other], tensor) for other, tensor in others.items()), name
    assert all(
        np.array_equal(old, new)
        for old, new in zip(read, [rows.tokens, rows.segments, rows.following], strict=True)
    )


@contextlib.contextmanager
def without_compiler():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens_module, "_compiled", lambda: None)
        yield


def test_random_tokens_are_text_even_where_there_is_hardly_any():
    """A step of padding and special tokens with two tokens of text: nothing else is ever drawn."""
    batch = counting([500] * 4, row_tokens=501)
    tokens = torch.full_like(batch.tokens, BOS)
    tokens[0, 10], tokens[1, 20] = 50, 60
    batch = dataclasses.replace(batch, tokens=tokens)
    for seed in range(50):
        after = noisy(Noise(replace=1.0), batch, seed)
        assert {int(after.tokens[0, 10]), int(after.tokens[1, 20])} <= {50, 60}
        assert int((after.tokens != BOS).sum()) == 2


# --- determinism ----------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(seed=st.integers(0, 1 << 62), step=st.integers(0, 1 << 40))
def test_noise_is_a_function_of_seed_and_step(seed, step):
    batch = counting([40, 90, 13])
    noise = Noise(mask=0.1, replace=0.1, delete=0.1, insert=0.1, swap=0.1)
    before = {name: tensor.clone() for name, tensor in tensors(batch).items()}
    one, other = (noise.apply(batch, derive(seed, "noise", step), 0.2, NUMBERS) for _ in range(2))
    assert same(one, other)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(batch).items()), (
        "nothing given is changed"
    )
    assert not same(one, noise.apply(batch, derive(seed, "noise", step + 1), 0.2, NUMBERS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noisy(Causal):
    """What a loader does with noise: it follows `prepare`, and comes before the split."""

    noise: Noise

    def prepare(self, rows, rng, progress=0.0):
        return self.noise.apply(
            super().prepare(rows, rng, progress), int(rng.integers(1 << 62)), progress, rows.words
        )


def test_what_fits_into_memory_decides_nothing_of_the_noise(tmp_path):
    (tmp_path / "train.documents.txt").write_text("".join(f"{name}\n" for name in range(8)))
    lengths = np.array([40, 70, 90, 30, 50, 66, 41, 77])
    store = TokenStore(
        np.arange(TEXT, TEXT + lengths.sum()).astype(np.uint16),
        np.concatenate([[0], np.cumsum(lengths)]),
        lengths.astype(np.int32),
        tmp_path / "train",
    )
    objective = Noisy(noise=Noise(mask=0.1, delete=0.1, insert=0.1, swap=0.1))

    def steps(micro_rows: int) -> list[dict[str, list]]:
        sizes = {"row_tokens": 32, "rows": 4, "micro_rows": micro_rows}
        with Loader(store, objective, seed=3, vocabulary=NUMBERS, **sizes) as loader:
            first = loader.step(Cursor(0, 0), 0, 10)
            both = [first, loader.step(first.after, 1, 10)]
        return [
            {
                name: torch.cat([tensors(batch)[name] for batch in step.batches]).tolist()
                for name in ("tokens", "targets", "weights", "segments")
            }
            for step in both
        ]

    whole = steps(4)
    assert whole == steps(2) == steps(1)
    assert any(MASK in row for row in whole[0]["tokens"])


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_come_from_a_recipe():
    table = {"mask": 0.1, "replace": [0.05, 0.0], "drawn": "uniform"}
    noise = recipes.from_dict(Noise, table, "pretrain.noise")
    assert noise == Noise(mask=0.1, replace=(0.05, 0.0), drawn="uniform")
    assert recipes.from_dict(Noise, recipes.to_dict(noise)) == noise
    assert set(recipes.to_dict(noise)) <= set(recipes.field_docs(Noise))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"mask": 1.1}, "mask is 1.1"),
        ({"swap": (0.1, -0.1)}, "swap is"),
        ({"mask": (0.0, 0.9, 0.0), "replace": 0.2}, "hit 1.10 of the tokens"),
    ],
)
def test_shares_that_are_none_are_refused(rates, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Noise(**rates)


def test_a_mask_token_has_to_be_there_only_if_it_is_used():
    without = Vocabulary(pieces=NUMBERS.pieces, special={"bos": BOS})
    Noise(replace=0.1).check_vocabulary(without)
    with pytest.raises(InputError, match='no "mask" token'):
        Noise(mask=(0.1, 0.0)).check_vocabulary(without)
