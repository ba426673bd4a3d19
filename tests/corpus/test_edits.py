"""Edits: who comes first decides, what is applied, and what is written, however many are in memory as objects."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.corpus import edits as module
from gristmill.corpus.deduplicate import Units
from gristmill.corpus.edits import Edit, Edits, apply_edits, read_edits

TEXT = "0123456789é中x"
SIZE = len(TEXT.encode())
BORDERS = [i for i in range(SIZE + 1) if i == SIZE or TEXT.encode()[i] & 0xC0 != 0x80]
EDITS = st.tuples(
    st.integers(0, 5),
    st.builds(
        lambda ends, text, reason: Edit(min(ends), max(ends), text, reason),
        st.tuples(st.sampled_from(BORDERS), st.sampled_from(BORDERS)).filter(lambda ends: ends[0] != ends[1]),
        st.sampled_from(["", "[X]", "é"]),
        st.sampled_from(["one", "two"]),
    ),
)


@given(st.lists(EDITS, max_size=20), st.sampled_from([1, 3, 1000]))
def test_the_first_of_edits_that_overlap_is_made_and_written(tmp_path_factory, wanted, most_open):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_OPEN", most_open)
        check(tmp_path_factory.mktemp("edits"), wanted)


def check(folder, wanted):
    edits = Edits(Units(Path("nowhere"), ("a", "b"), (2, 4)))
    expected: dict[int, list[Edit]] = {}
    for document, edit in wanted:
        mine = expected.setdefault(document, [])
        is_free = all(edit.end <= other.start or edit.start >= other.end for other in mine)
        assert edits.add(document, edit) == is_free
        if is_free:
            mine.append(edit)
            mine.sort()
        assert edits.apply(document, TEXT) == apply_edits(TEXT, mine)
    expected = {document: mine for document, mine in expected.items() if mine}
    assert edits.documents.tolist() == sorted(expected)
    assert sum(edits.made.values()) == sum(map(len, expected.values()))
    edits.write(folder)
    found = {row: list(mine) for row, mine in read_edits(folder, "a").items()}
    found |= {2 + row: list(mine) for row, mine in read_edits(folder, "b").items()}
    assert found == expected
    assert all(edits.apply(document, TEXT) == apply_edits(TEXT, mine) for document, mine in expected.items())
