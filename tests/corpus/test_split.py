import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gristmill.corpus.split import plan_split

CAP = 8_000_000


def hashes_of(count: int) -> list[int]:
    return [
        int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:8], "big") for number in range(count)
    ]


def test_about_the_fraction_that_was_asked_for() -> None:
    hashes = hashes_of(20_000)
    plan = plan_split(hashes, [100] * 20_000, valid_fraction=0.05, valid_maximum_bytes=CAP)
    assert 900 < sum(value < plan.threshold for value in hashes) < 1100
    assert plan.cut_document is None


def test_more_documents_move_none_to_the_other_side() -> None:
    hashes = hashes_of(2000)
    few, many = (
        plan_split(hashes[:count], [10] * count, valid_fraction=0.1, valid_maximum_bytes=CAP)
        for count in (1000, 2000)
    )
    assert all((value < few.threshold) == (value < many.threshold) for value in hashes[:1000])


def test_the_lowest_hash_is_validation_where_none_is_low_enough() -> None:
    hashes = [3 << 62, 1 << 63, 3 << 61, *[(1 << 64) - 1 - number for number in range(30)]]
    plan = plan_split(hashes, [10] * 33, valid_fraction=0.001, valid_maximum_bytes=CAP)
    assert [value for value in hashes if value < plan.threshold] == [3 << 61]


def test_the_cap_sends_the_highest_of_the_chosen_back_to_training() -> None:
    hashes = hashes_of(1000)
    plan = plan_split(hashes, [100] * 1000, valid_fraction=0.5, valid_maximum_bytes=1050)
    assert [value for value in sorted(hashes) if value < plan.threshold] == sorted(hashes)[:10]
    one = plan_split(hashes, [100] * 1000, valid_fraction=0.5, valid_maximum_bytes=1)
    assert sum(value < one.threshold for value in hashes) == 1


def test_one_document_or_a_huge_one_among_few_is_cut() -> None:
    assert plan_split([7], [1000], valid_fraction=0.1, valid_maximum_bytes=CAP) == (0, 0, 0.1)
    assert plan_split([7], [1000], valid_fraction=0.1, valid_maximum_bytes=50) == (0, 0, 0.05)
    assert plan_split([7, 8, 9], [10, 1000, 10], valid_fraction=0.1, valid_maximum_bytes=CAP) == (0, 1, 0.1)
    assert (
        plan_split(hashes_of(5), [100] * 5, valid_fraction=0.1, valid_maximum_bytes=CAP).cut_document is None
    )


def test_no_validation_where_none_is_wanted() -> None:
    assert plan_split(hashes_of(3), [1] * 3, valid_fraction=0.0, valid_maximum_bytes=CAP) == (0, None, 0.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 10**6)),
        min_size=2,
        max_size=50,
        unique_by=lambda pair: pair[0],
    ),
    st.floats(0.001, 0.999),
    st.integers(1, 10**7),
)
def test_both_sides_hold_something_and_order_does_not_matter(
    documents: list[tuple[int, int]], fraction: float, cap: int
) -> None:
    def held_out(ordered: list[tuple[int, int]]) -> set[int]:
        plan = plan_split(
            *map(list, zip(*ordered, strict=True)), valid_fraction=fraction, valid_maximum_bytes=cap
        )  # type: ignore[arg-type]
        if plan.cut_document is not None:
            assert 0 < plan.cut_fraction <= fraction
            return {-1}
        return {value for value, _ in ordered if value < plan.threshold}

    valid = held_out(documents)
    assert 0 < len(valid) < len(documents)
    assert held_out(documents[::-1]) == valid
