"""Shares of groups of text: what is asked for is what is seen, and every pass sees each piece once."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gristmill.config import from_dict
from gristmill.corpus.mix import LEAST_ROWS, Mix, schedule
from gristmill.corpus.rows import plan_round
from gristmill.errors import InputError


def counted(plan, group_of, groups):
    """Positions of each group in a plan."""
    return np.bincount(group_of[plan.documents], weights=plan.lengths, minlength=groups)


def rounds(lengths, group_of, mix, count, *, row_tokens=32, positions=None, seed=0):
    groups = int(group_of.max()) + 1
    members = [np.flatnonzero(group_of == g) for g in range(groups)]
    sizes = [int((lengths[m] - 1).sum()) for m in members]
    plan = schedule(mix, [f"g{i}" for i in range(groups)], sizes, row_tokens=row_tokens, positions=positions)
    for number in range(count):
        begins, ends = plan.window(number)
        yield (
            plan,
            plan_round(
                lengths, row_tokens, members=members, begins=begins, ends=ends, seed=seed, number=number
            ),
        )


@pytest.fixture
def texts():
    rng = np.random.default_rng(3)
    lengths = rng.lognormal(5, 1.5, 3000).astype(int) + 2
    return lengths, (np.arange(3000) % 10 > 7).astype(int)


def test_every_round_has_the_shares_that_were_asked_for_to_a_few_pieces(texts):
    lengths, group_of = texts
    for plan, found in rounds(lengths, group_of, Mix(weights={"g0": 1.0, "g1": 3.0}), 12):
        seen = counted(found, group_of, 2)
        assert abs(seen.sum() / plan.round_positions - 1) < 0.03
        assert abs(seen[1] / seen.sum() - 0.75) < 0.03
        assert found.padding_share < 0.01


def test_a_pass_over_a_group_sees_each_of_its_positions_once_whatever_the_rounds(texts):
    lengths, group_of = texts
    found = list(rounds(lengths, group_of, Mix(), 16))
    plan = found[0][0]
    per_pass = plan.sizes.sum() / plan.round_positions
    assert per_pass == pytest.approx(8, rel=1e-3)
    places = []
    for _, part in found[:8]:
        for document, start, length in zip(part.documents, part.starts, part.lengths, strict=True):
            places.append((document, start, length))
    seen = np.zeros(int((lengths - 1).sum()) + 1)
    begins = np.cumsum(lengths - 1) - (lengths - 1)
    for document, start, length in places:
        seen[begins[document] + start] += 1
        seen[begins[document] + start + length] -= 1
    times = np.cumsum(seen)[:-1]
    assert times.max() == 1
    assert times.mean() > 0.999  # the eighth round may end a few positions before the pass does


def test_the_second_pass_is_cut_and_ordered_otherwise(texts):
    lengths, group_of = texts
    found = [part for _, part in rounds(lengths, group_of, Mix(), 16)]
    assert set(zip(found[0].documents, found[0].starts, strict=True)) != set(
        zip(found[8].documents, found[8].starts, strict=True)
    )


def test_a_round_follows_from_its_number_the_seed_and_the_settings(texts):
    lengths, group_of = texts
    one, two = (list(rounds(lengths, group_of, Mix(temperature=3.0), 3))[2][1] for _ in range(2))
    assert (one.documents == two.documents).all()
    assert (one.starts == two.starts).all()
    assert (one.row_offsets == two.row_offsets).all()
    other = list(rounds(lengths, group_of, Mix(temperature=3.0), 3, seed=1))[2][1]
    assert not np.array_equal(one.documents, other.documents)


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.8), (2.0, 2 / 3), (1e6, 0.5)])
def test_temperature_evens_sizes_out(temperature, share):
    plan = schedule(Mix(temperature=temperature), ["a", "b"], [800, 200], row_tokens=8, positions=None)
    assert plan.shares[0, 0] == pytest.approx(share, rel=1e-5)


def test_a_group_is_not_seen_more_often_than_it_may_and_the_others_take_the_rest():
    mix = Mix(weights={"a": 1.0, "b": 1.0, "c": 2.0}, epochs={"a": 2.0})
    plan = schedule(mix, ["a", "b", "c"], [1000, 50_000, 50_000], row_tokens=8, positions=40_000)
    seen = plan.epochs_by(40_000) * plan.sizes
    assert seen == pytest.approx([2000, 38_000 / 3, 76_000 / 3])


def test_a_curriculum_changes_the_shares_where_its_stages_end():
    table = {"stages": [{"until": 0.5, "weights": {"a": 1}}, {"until": 1.0, "weights": {"a": 1, "b": 3}}]}
    plan = schedule(from_dict(Mix, table), ["a", "b"], [100, 100], row_tokens=8, positions=1000)
    assert plan.epochs_by(500).tolist() == [5.0, 0.0]
    assert plan.epochs_by(1000).tolist() == [6.25, 3.75]
    assert plan.epochs_by(1200).tolist() == [6.75, 5.25]  # a run that goes on stays in its last stage


def test_a_mix_names_groups_by_source_or_by_language():
    groups, sizes = ["books/en", "books/zh", "web/en"], [300, 100, 200]
    by_source = schedule(Mix(weights={"books": 1.0, "web": 1.0}), groups, sizes, row_tokens=8, positions=None)
    assert by_source.shares[0] == pytest.approx([0.375, 0.125, 0.5])
    by_language = schedule(Mix(weights={"en": 1.0, "zh": 3.0}), groups, sizes, row_tokens=8, positions=None)
    assert by_language.shares[0] == pytest.approx([0.15, 0.75, 0.1])
    with pytest.raises(InputError, match='names "books/en" as "books" and as "en"'):
        schedule(Mix(weights={"books": 1.0, "en": 3.0}), groups, sizes, row_tokens=8, positions=None)
    capped = Mix(weights={"books": 1.0, "web": 1.0}, epochs={"zh": 0.5})
    plan = schedule(capped, groups, sizes, row_tokens=8, positions=1000)
    assert plan.epochs_by(1000)[1] == pytest.approx(0.5)


@given(
    sizes=st.lists(st.integers(1, 10**9), min_size=1, max_size=6),
    temperature=st.floats(0.5, 100),
    rounds=st.integers(1, 50),
)
def test_windows_follow_each_other_without_a_gap(sizes, temperature, rounds):
    assume(sum(sizes) >= 16)  # a row can be filled
    names = [str(i) for i in range(len(sizes))]
    plan = schedule(Mix(temperature=temperature), names, sizes, row_tokens=16, positions=None)
    assert plan.round_positions == min(sum(sizes), max(sum(sizes) // 8, LEAST_ROWS * 16))
    for number in range(rounds):
        assert (plan.window(number)[1] == plan.window(number + 1)[0]).all()
    seen = plan.epochs_by(rounds * plan.round_positions) * plan.sizes
    assert seen.sum() == pytest.approx(rounds * plan.round_positions)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"weights": {"a": 1}, "temperature": 2.0}, "mix has weights and temperature"),
        ({"weights": {"a": 0}}, "all 0"),
        ({"stages": [{"until": 0.5, "weights": {"a": 1}}]}, "stages of a mix end at 0.5"),
        ({"weights": {"x": 1}}, 'names "x", but there is no such group'),
        ({"weights": {"empty": 1}}, '"empty" a weight, but it has no text'),
        (
            {"epochs": {"a": 1, "b": 1}},
            "the run sees 100,000 tokens, and with these most epochs there are 3,000",
        ),
    ],
)
def test_what_does_not_fit_is_refused(table, message):
    with pytest.raises(InputError, match=message):
        schedule(from_dict(Mix, table), ["a", "b", "empty"], [1000, 2000, 0], row_tokens=8, positions=100_000)


def test_a_run_of_unknown_length_has_no_stages():
    with pytest.raises(InputError, match="needs a run of known length"):
        schedule(Mix(epochs={"a": 2.0}), ["a"], [100], row_tokens=8, positions=None)
