import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.rng import derive, stream


def test_streams_never_change() -> None:
    """Golden values: a change here changes every run ever made from a recipe."""
    assert derive(0) == 2033344993903900207
    assert derive(0, "dropout", 17) == 2751831844728170516
    assert derive(1, "dropout", 17) == 4341369278497597898
    assert stream(0, "order", 0).permutation(8).tolist() == [5, 4, 2, 0, 3, 1, 7, 6]
    assert stream(7, "order", 3).random(2).tolist() == [0.3116562808719142, 0.8093945153986115]


def test_a_stream_starts_at_its_start_however_much_was_drawn_elsewhere() -> None:
    first = stream(3, "order", 5).random(4)
    stream(3, "order", 4).random(1000)
    assert stream(3, "order", 5).random(4).tolist() == first.tolist()


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.text(alphabet="ab/\\1", max_size=3), max_size=3).map(tuple)),
        min_size=2,
        max_size=8,
        unique=True,
    )
)
def test_two_names_are_two_streams(names: list[tuple[int, tuple[str, ...]]]) -> None:
    seeds = [derive(seed, *name) for seed, name in names]
    assert len(set(seeds)) == len(seeds)


@given(st.integers(-(2**40), 2**63), st.text())
def test_a_seed_fits_into_torch_and_numpy(seed: int, name: str) -> None:
    assert 0 <= derive(seed, name) < 2**63


@pytest.mark.parametrize("pair", list(itertools.combinations(range(4), 2)))
def test_streams_of_neighbouring_steps_are_not_correlated(pair: tuple[int, int]) -> None:
    a, b = (stream(0, "dropout", step).standard_normal(20_000) for step in pair)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(20_000)
