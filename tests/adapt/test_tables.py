"""Labelled data in the files that people have."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from gristmill.adapt.tables import Row, field_of, read_table
from gristmill.errors import InputError

ROWS = [{"text": 'say "hi", 你好', "label": "greeting"}, {"text": "a\tb", "label": "转账"}]


def fields(path: Path) -> list[Any]:
    return [row.fields for row in read_table(str(path))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_same_rows_come_of_each_kind_of_file(tmp_path: Path, encoding: str) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding=encoding)
    (tmp_path / "b.json").write_text(json.dumps(ROWS), encoding="utf-8")
    (tmp_path / "c.csv").write_text(
        'text,label\n"say ""hi"", 你好",greeting\n"a\tb",转账\n', encoding="utf-8"
    )
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "f.json").write_text(json.dumps({"version": 1, "data": ROWS}), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert fields(path) == ROWS, path.name
    assert [row.place for row in read_table(str(tmp_path / "d.parquet"))][
        1
    ] == f"{tmp_path / 'd.parquet'}, row 2"


CONLL = """-DOCSTART- -X- O O

EU NNP I-NP B-ORG
rejects VBZ I-VP O

Peter NNP I-NP B-PER
Blackburn NNP I-NP I-PER
"""


def test_columns_of_tokens_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "eng.train.txt"
    path.write_text(CONLL)
    first, second = read_table(str(path))
    assert (first.fields["tokens"], first.fields["tags"]) == (["EU", "rejects"], ["B-ORG", "O"])
    assert second.place.endswith("eng.train.txt, sentence 2")
    assert (second.fields["column_3"], second.fields["document"]) == (["I-NP", "I-NP"], 1)


def test_tabs_and_windows_line_ends_and_a_missing_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "w.bio").write_bytes("张\tB-PER\r\n三\tI-PER\r\n\r\n好\tO".encode())
    assert [(row["tokens"], row["tags"]) for row in fields(tmp_path / "w.bio")] == [
        (["张", "三"], ["B-PER", "I-PER"]),
        (["好"], ["O"]),
    ]


def test_questions_of_squad(tmp_path: Path) -> None:
    answers = [{"text": "Normans", "answer_start": 4}]
    paragraph = {
        "context": "The Normans",
        "qas": [
            {"id": "q1", "question": "Who?", "answers": answers},
            {"id": "q2", "question": "When?", "answers": [], "is_impossible": True},
        ],
    }
    (tmp_path / "dev-v2.0.json").write_text(
        json.dumps({"version": "v2.0", "data": [{"title": "N", "paragraphs": [paragraph]}]})
    )
    first, second = read_table(str(tmp_path / "dev-v2.0.json"))
    assert first.fields["answers"] == {"text": ["Normans"], "answer_start": [4]}
    assert second.fields["answers"] == {"text": [], "answer_start": []}
    assert second.place.endswith("article 1, paragraph 1, question q2")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.conll", "EU B-ORG\nrejects\n", "a.conll, line 2: 1 columns, expected 2"),
        ("a.conll", "EU\nrejects\n", "a.conll, line 1: 1 columns, expected 2"),
        ("a.conll", "EU\tB-ORG\n\tO\n", "a.conll, line 2: 2 columns, expected 2"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "a.jsonl, row 2: line 2: Expecting value"),
        ("a.jsonl", '{"text": "a"}\n[1]\n', "a.jsonl, row 2: line 2: not an object"),
        ("a.csv", "text,label\na,b,c\n", "a.csv, row 1: byte 11: 3 cells, expected 2"),
        ("a.md", "text", "a.md is no table of labelled data"),
        ("a.json", '{"data": [1]}', '"data" does not hold objects'),
        ("a.json", '{"data": [{"paragraphs": [{}]}]}', 'article 1, paragraph 1: there is no "context"'),
    ],
)
def test_what_can_not_be_read_is_named_by_file_and_row(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        list(read_table(str(tmp_path / name)))
    assert message in error.value.message
    assert error.value.hint


def test_a_field_that_is_missing_is_named_with_a_near_one() -> None:
    row = Row("a.csv, row 3", {"texts": "a", "label": None})
    assert field_of(row, "texts") == "a"
    for name in ("text", "label"):
        with pytest.raises(InputError, match=f'a.csv, row 3: there is nothing in "{name}"'):
            field_of(row, name)
