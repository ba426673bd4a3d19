import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.metrics import intervals
from gristmill.metrics.intervals import Interval, ratio_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "total", "expected"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_agrees_with_published_values(
    successes: int, total: int, expected: tuple[float, float]
) -> None:
    assert wilson_interval(successes, total) == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_proportion_and_stays_between_0_and_1(counts: tuple[int, int]) -> None:
    successes, total = counts
    low, high = wilson_interval(successes, total)
    assert 0 <= low <= successes / total <= high <= 1
    mirrored = wilson_interval(total - successes, total)
    assert (low, high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))


def test_wilson_covers_the_true_proportion() -> None:
    draws = np.random.default_rng(0).binomial(60, 0.1, size=3000)
    covered = np.mean([low <= 0.1 <= high for low, high in (wilson_interval(int(k), 60) for k in draws)])
    assert 0.94 <= covered <= 0.98  # 0.966 exactly, by summing the binomial


@pytest.mark.parametrize(("successes", "total"), [(1, 0), (-1, 5), (6, 5)])
def test_what_is_not_a_proportion_is_refused(successes: int, total: int) -> None:
    with pytest.raises(ValueError, match="is not a proportion"):
        wilson_interval(successes, total)


def test_documents_that_agree_leave_no_doubt() -> None:
    assert ratio_interval([10.0, 30.0, 5.0], [5, 15, 2.5], seed=3) == Interval(2.0, 2.0)


def test_fewer_than_two_documents_have_no_interval() -> None:
    assert ratio_interval([3.0], [2.0], seed=0) is None
    assert ratio_interval([], [], seed=0) is None
    assert ratio_interval([3.0, 1.0], [0.0, 0.0], seed=0) is None


def test_a_document_without_text_is_drawn_with_the_others() -> None:
    interval = ratio_interval([4.0, 1.0, 6.0], [2.0, 0.0, 3.0], seed=0)
    assert interval is not None
    assert 2.0 <= interval.low < 2.2 < interval.high < 4.0


def test_the_interval_is_a_pure_function_of_the_seed() -> None:
    nats, tokens = _documents(50, np.random.default_rng(5))
    assert ratio_interval(nats, tokens, seed=1) == ratio_interval(list(nats), list(tokens), seed=1)
    assert ratio_interval(nats, tokens, seed=1) != ratio_interval(nats, tokens, seed=2)


def test_the_width_is_that_of_the_delta_method() -> None:
    nats, tokens = _documents(2000, np.random.default_rng(7))
    interval = ratio_interval(nats, tokens, seed=0, resamples=4000)
    ratio = nats.sum() / tokens.sum()
    error = math.sqrt(np.mean((nats - ratio * tokens) ** 2) / len(nats)) / tokens.mean()
    assert interval is not None
    assert interval.low == pytest.approx(ratio - 1.96 * error, rel=0.002)
    assert interval.high == pytest.approx(ratio + 1.96 * error, rel=0.002)


def test_the_interval_covers_the_true_ratio() -> None:
    generator = np.random.default_rng(11)
    truth = 2.5  # E[nats] / E[tokens], see _documents
    trials = [ratio_interval(*_documents(60, generator), seed=i, resamples=500) for i in range(400)]
    covered = np.mean([i is not None and i.low <= truth <= i.high for i in trials])
    assert 0.90 <= covered <= 0.98


def test_drawing_tokens_instead_of_documents_would_be_too_sure() -> None:
    """Tokens of a document share its difficulty; the clustered interval is the wider one, and the right one."""
    generator = np.random.default_rng(2)
    difficulty = generator.normal(2.5, 0.5, size=40)
    tokens = np.abs(difficulty.repeat(100) + generator.normal(0, 0.3, size=4000))
    whole = ratio_interval(tokens.reshape(40, 100).sum(1), np.full(40, 100), seed=0)
    single = ratio_interval(tokens, np.ones(4000), seed=0)
    assert whole is not None
    assert single is not None
    assert whole.high - whole.low > 4 * (single.high - single.low)


def test_many_documents_are_drawn_in_groups_with_the_same_width(monkeypatch: pytest.MonkeyPatch) -> None:
    nats, tokens = _documents(6000, np.random.default_rng(1))
    exact = ratio_interval(nats, tokens, seed=0)
    monkeypatch.setattr(intervals, "MOST_CLUSTERS", 1000)
    grouped = ratio_interval(nats, tokens, seed=0)
    assert exact is not None
    assert grouped is not None
    assert grouped.high - grouped.low == pytest.approx(exact.high - exact.low, rel=0.12)
    assert (grouped.low + grouped.high) / 2 == pytest.approx((exact.low + exact.high) / 2, rel=0.002)


def test_memory_is_bounded_by_drawing_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    nats, tokens = _documents(30, np.random.default_rng(1))
    whole = ratio_interval(nats, tokens, seed=0)
    monkeypatch.setattr(intervals, "CELLS_AT_ONCE", 100)
    assert ratio_interval(nats, tokens, seed=0) == pytest.approx(whole, rel=1e-12)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.1, 1e6)), min_size=2, max_size=20))
def test_the_interval_lies_within_the_ratios_of_the_documents(pairs: list[tuple[float, float]]) -> None:
    nats, sizes = zip(*pairs, strict=True)
    interval = ratio_interval(nats, sizes, seed=0, resamples=50)
    ratios = np.divide(nats, sizes)
    assert interval is not None
    slack = 1e-9 * (1 + ratios.max())
    assert ratios.min() - slack <= interval.low <= interval.high <= ratios.max() + slack


@pytest.mark.parametrize(
    ("nats", "tokens"), [([1.0, 2.0], [1.0]), ([1.0, 2.0], [1.0, -1.0]), ([1.0, math.nan], [1.0, 1.0])]
)
def test_sums_that_make_no_ratio_are_refused(nats: list[float], tokens: list[float]) -> None:
    with pytest.raises(ValueError, match=r"denominators|finite"):
        ratio_interval(nats, tokens, seed=0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson_interval(1, 2, confidence=confidence)


def _documents(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lengths that vary a lot, and a difficulty per document around 2.5 nats per token."""
    tokens = np.ceil(generator.lognormal(5, 0.6, size=count))
    return tokens * generator.normal(2.5, 0.4, size=count), tokens
