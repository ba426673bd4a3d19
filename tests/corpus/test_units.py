"""Units of work: all is covered once, and a new file moves the borders of its neighbours only."""

import io
import itertools
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gristmill.corpus import units as module
from gristmill.corpus.decode import Encoding
from gristmill.corpus.files import SourceFile, Stream, find_files, open_stream
from gristmill.corpus.read import Layout, ReadOptions, inspect, records
from gristmill.corpus.units import LEAST_BYTES, MOST_BYTES, plan_units


def file(name, format="text", compression=""):
    return SourceFile(name, Path(name), format, compression)


def pieces(units):
    return [piece for unit in units for piece in unit.pieces]


@given(st.lists(st.integers(0, 3 * MOST_BYTES), max_size=60))
def test_every_byte_is_in_one_unit_in_the_order_of_the_files(sizes):
    files = [file(f"{i:03d}.jsonl", "json_lines") for i in range(len(sizes))]
    units = plan_units(files, [(size, 0) for size in sizes])
    assert [unit.number for unit in units] == list(range(len(units)))
    expected = []
    for one, size in zip(files, sizes, strict=True):
        mine = [piece for piece in pieces(units) if piece.file == one]
        if size <= MOST_BYTES:
            assert [(piece.start, piece.end) for piece in mine] == [(0, None)]
        else:
            assert mine[0].start == 0
            assert mine[-1].end == size
            assert all(a.end == b.start for a, b in itertools.pairwise(mine))
        expected += mine
    assert pieces(units) == expected
    for unit in units:
        assert sum(piece.size_bytes for piece in unit.pieces) <= 2 * MOST_BYTES


def test_a_new_file_moves_the_borders_of_its_neighbours_only():
    files = [file(f"{i:04d}.txt") for i in range(3000)]
    stamps = [(LEAST_BYTES // 40, 0)] * len(files)
    before = {unit.pieces for unit in plan_units(files, stamps)}
    changed = sorted([*files, file("1500-new.txt")])
    after = {unit.pieces for unit in plan_units(changed, [stamps[0]] * len(changed))}
    assert len(before) > 30
    assert len(after - before) <= 2


@given(st.integers(1, 9), st.lists(st.text(max_size=30), min_size=1, max_size=30))
def test_ranges_of_a_file_have_each_record_once(parts, texts):
    data = "".join(json.dumps({"text": text or "x"}, ensure_ascii=False) + "\n" for text in texts).encode()
    one = file("a.jsonl", "json_lines")
    borders = [len(data) * i // parts for i in range(parts + 1)]

    def read(start, end):
        stream = io.BufferedReader(io.BytesIO(data))
        layout = Layout(encoding=Encoding("utf-8", 0, ""), text_column="text")
        return [
            (r.text, r.start, r.end)
            for r in records(Stream(stream, stream), one, layout, ReadOptions(), start, end)
        ]

    whole = read(0, None)
    assert [text for text, _, _ in whole] == [text or "x" for text in texts]
    assert [r for a, b in itertools.pairwise(borders) for r in read(a, b)] == whole


def test_a_big_file_of_lines_is_read_in_parts_that_together_are_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    path = tmp_path / "big.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {i} " * (i % 7 + 1)}) + "\n" for i in range(200)))
    found = find_files([str(path)]).files
    units = plan_units(found, [module.stamp_of(path)])
    assert len(units) > 5
    layout = inspect(found[0], ReadOptions())
    seen = []
    for piece in pieces(units):
        with open_stream(found[0]) as stream:
            seen += [r.text for r in records(stream, found[0], layout, ReadOptions(), piece.start, piece.end)]
    assert seen == [f"document {i} " * (i % 7 + 1) for i in range(200)]
