"""Lines and paragraphs that stand in many documents are cut, save where they stand first."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gristmill.corpus import passages as module
from gristmill.corpus.edits import Edit, apply_edits
from gristmill.corpus.features import packed
from gristmill.corpus.passages import LEAST_BYTES, passages_of_buffer

LINES = st.lists(
    st.sampled_from(["", " ", "}", "a short one", "Copyright 2020 by the authors", "版权所有，未经许可不得转载。", "  Copyright 2020  by the authors"]),
    max_size=12,
).map("\n".join)  # fmt: skip


def found(texts, kind="line"):
    """Each passage as (document, text without white space, hash)."""
    data, offsets = packed(texts)
    result = []
    for document, start, end, value in zip(*passages_of_buffer(data[:-1], offsets, kind), strict=True):
        passage = texts[document].encode()[start:end].decode()
        result.append((int(document), "".join(passage.split()), int(value)))
    return result


@given(st.lists(LINES, max_size=6))
def test_lines_that_are_long_enough_are_found_and_equal_ones_have_equal_hashes(texts):
    expected = [
        (i, "".join(line.split()))
        for i, text in enumerate(texts)
        for line in text.split("\n")
        if len("".join(line.split()).encode()) >= LEAST_BYTES
    ]
    result = found(texts)
    assert [(document, line) for document, line, _ in result] == expected
    by_line = {line: value for _, line, value in result}
    assert all(by_line[line] == value for _, line, value in result)
    assert len(set(by_line.values())) == len(by_line)


def test_a_paragraph_ends_with_a_blank_line():
    text = "The first paragraph has\ntwo lines.\n\nThe second paragraph has one.\n"
    assert [passage for _, passage, _ in found([text], "paragraph")] == [
        "Thefirstparagraphhastwolines.",
        "Thesecondparagraphhasone.",
    ]


def test_hashes_do_not_depend_on_where_a_passage_stands(monkeypatch):
    line = "A line that stands in more than one place.\n"
    texts = ["x" * 1000 + "\n" + line, line, "\n\n" + line + line]
    one = {value for _, passage, value in found(texts) if passage.startswith("Aline")}
    monkeypatch.setattr(module, "_PIECE_BYTES", 10)
    assert {value for _, passage, value in found(texts) if passage.startswith("Aline")} == one
    assert len(one) == 1


def test_edits_are_made_in_bytes_and_give_whole_characters():
    text = "前 A line 后\nrest"
    start = len("前 ".encode())
    assert (
        apply_edits(
            text,
            [Edit(start, start + 6, "[X]", "x"), Edit(len(text.encode()) - 4, len(text.encode()), "", "y")],
        )
        == "前 [X] 后\n"
    )


def test_many_lines_hash_apart():
    texts = ["\n".join(f"this is line number {i:06d}" for i in range(20_000))]
    values = [value for _, _, value in found(texts)]
    assert len(set(values)) == 20_000
    assert np.unique(np.array(values, np.uint64) % np.uint64(64), return_counts=True)[1].min() > 200
