"""The rest of a text from its beginning."""

import numpy as np
import pytest

from gristmill.errors import InputError
from gristmill.objectives.causal import Causal
from gristmill.objectives.prefix import Prefix
from gristmill.rng import stream
from tests.objectives.suite import check_objective, example_rows


def test_prefix_is_an_objective():
    check_objective(Prefix(), predicts_special=True)


def test_each_piece_has_its_prefix_and_tells_what_follows_it():
    rows = example_rows("decoder", 1)
    batch, causal = Prefix().prepare(rows, stream(0, "prefix")), Causal().prepare(rows, stream(0, "any"))
    assert batch.prefix is not None
    prefixes = []
    for row, segments in enumerate(rows.segments):
        for segment in range(1, int(segments.max()) + 1):
            at = np.flatnonzero(segments == segment)
            size = int(batch.prefix[row, at].sum())
            prefixes.append(size / len(at))
            assert batch.prefix[row, at[:size]].all()
            # the last token of the prefix tells the first one that follows; those before it are told nothing
            assert batch.weights[row, at].tolist() == [0.0] * (size - 1) + [1.0] * (len(at) - size + 1)
    assert len(set(prefixes)) > len(prefixes) // 2
    assert (batch.targets == causal.targets).all()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1 / 64), (0.5, 0.5), (1.0, 1.0)])
def test_the_share_is_how_much_of_a_text_is_prefix(share, expected):
    rows = example_rows("decoder", 1)
    full = (rows.segments == rows.segments[:, :1]).all(1) & (rows.segments[:, 0] != 0)
    batch = Prefix(share=(share, share)).prepare(rows, stream(0, "prefix"))
    assert batch.prefix is not None
    sizes = batch.prefix[full].float().mean(1)
    assert len(sizes)
    assert sizes.sub(expected).abs().max() <= 1 / 64


def test_shares_that_are_no_range_are_refused():
    with pytest.raises(InputError, match="no range"):
        Prefix(share=(0.7, 0.1))
