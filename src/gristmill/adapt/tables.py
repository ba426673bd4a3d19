"""Labelled data as people have it: rows of named fields, whatever the file.

JSON lines, an array of JSON objects, CSV, TSV and parquet are read as a corpus is (encodings, quotes, compression). Besides:

- columns of tokens and tags (CoNLL), a sentence up to an empty line: `tokens`, and `tags` from the last column; a line
  -DOCSTART- begins another `document`
- the JSON of SQuAD, whose questions become rows: `id`, `title`, `context`, `question`, `answers`

Labels are dear, so a row that can't be read is an error here, not a row that is left out.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.corpus.decode import decode, detect
from gristmill.corpus.files import SourceFile, find_files, open_stream
from gristmill.corpus.read import Broken, ReadOptions, read_some, table_rows
from gristmill.errors import InputError, did_you_mean

__all__ = ["Row", "field_of", "read_table"]

COLUMNS = (".conll", ".conllu", ".bio", ".bmes", ".iob", ".iob2", ".ner", ".txt")
_DOCUMENT = "-DOCSTART-"
_MOST_BYTES = 1 << 30
"""Of a file of columns, or of one JSON object: those are read at once."""


class Row(NamedTuple):
    """A row, and where it stands: "train.csv, row 12"."""

    place: str
    fields: Mapping[str, Any]


def read_table(source: str) -> Iterator[Row]:
    """Yields the rows of a file, of a folder's files, or of those that a glob names.

    Raises:
        InputError: there is none, or one can't be read: the message names file and row.
    """
    if Path(source).is_file() and _is_columns(source):
        yield from _columns(source)
        return
    for file in find_files([source]).files:
        if file.format == "json" and (table := _squad(file)) is not None:
            yield from table
            continue
        if file.format not in ("json_lines", "json", "csv", "tsv", "parquet"):
            raise InputError(
                f"{file.name} is no table of labelled data",
                "expected .jsonl, .json, .csv, .tsv, .parquet, or columns of tokens and tags (.conll)",
            )
        for number, row in enumerate(table_rows(file, ReadOptions()), 1):
            if isinstance(row, Broken):
                raise InputError(f"{file.name}, row {number}: {row.message}", "mend this row, or take it out")
            yield Row(f"{file.name}, row {number}", row)


def field_of(row: Row, name: str) -> Any:
    """Returns a field of a row.

    Raises:
        InputError: it has none of that name, or nothing in it.
    """
    value = row.fields.get(name)
    if value is None:
        known = [key for key, other in row.fields.items() if other is not None]
        raise InputError(f'{row.place}: there is nothing in "{name}"', did_you_mean(name, known))
    return value


def _is_columns(source: str) -> bool:
    name = source.lower()
    for ending in (".gz", ".bz2", ".xz", ".zst"):
        name = name.removesuffix(ending)
    return name.endswith(COLUMNS)


def _text_of(file: SourceFile) -> str:
    with open_stream(file) as stream:
        data = b"".join(itertools.takewhile(bool, iter(lambda: read_some(stream.content, file), b"")))
    encoding = detect(data, complete=True)
    found = decode(data[encoding.mark_bytes :], encoding.name)
    if found is None or found.repairs:
        raise InputError(
            f"{file.name} is not {encoding.name} throughout: {found.note if found else 'most of it is not'}",
            "write it as UTF-8",
        )
    return found.text


def _columns(source: str) -> Iterator[Row]:
    compression = next(
        (ending for ending in (".gz", ".bz2", ".xz", ".zst") if source.lower().endswith(ending)), ""
    )
    file = SourceFile(source, Path(source), "text", compression)  # type: ignore[arg-type]
    lines = _text_of(file).split("\n")
    separator = "\t" if any("\t" in line for line in lines[:1000]) else None
    is_conllu = ".conllu" in source.lower()
    width, document, sentence = 0, 0, 0
    cells: list[Sequence[str]] = []
    for number, line in enumerate([*lines, ""], 1):
        line = line.rstrip("\r")
        if line.startswith(_DOCUMENT):
            document += 1
        elif is_conllu and line.startswith("#"):
            continue
        elif line.strip():
            found = line.split(separator)
            width = width or len(found)
            if len(found) != width or width < 2 or not all(found):
                raise InputError(
                    f"{source}, line {number}: {len(found)} columns, expected {max(width, 2)}",
                    "each line is a token and its tag, with a tab or white space between; an empty line ends a sentence",
                )
            cells.append(found)
            continue
        if cells:
            sentence += 1
            columns = list(zip(*cells, strict=True))
            fields = {f"column_{i}": list(column) for i, column in enumerate(columns, 1)}
            fields |= {
                "tokens": fields["column_2" if is_conllu else "column_1"],
                "tags": fields[f"column_{width}"],
            }
            yield Row(
                f"{source}, sentence {sentence}", {**fields, **({"document": document} if document else {})}
            )
            cells = []


def _squad(file: SourceFile) -> Iterator[Row] | None:
    """The questions of a file in the form of SQuAD; None where it has another form."""
    with open_stream(file) as stream:
        head = read_some(stream.content, file).lstrip(b"\xef\xbb\xbf \r\n\t")
    if not head.startswith(b"{"):
        return None
    try:
        whole = json.loads(_text_of(file))
    except ValueError:
        return None
    if not isinstance(whole, dict) or not isinstance(whole.get("data"), list):
        return None
    return _questions(file.name, whole["data"])


def _questions(name: str, articles: Sequence[Any]) -> Iterator[Row]:
    if not all(isinstance(article, dict) for article in articles):
        raise InputError(
            f'{name}: "data" does not hold objects', "expected the form of SQuAD, or an array of rows"
        )
    for number, article in enumerate(articles, 1):
        if "paragraphs" not in article:  # rows in an envelope
            yield Row(f"{name}, row {number}", article)
            continue
        for order, paragraph in enumerate(article["paragraphs"], 1):
            place = f"{name}, article {number}, paragraph {order}"
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("context"), str):
                raise InputError(f'{place}: there is no "context"', "expected the form of SQuAD")
            for question in paragraph.get("qas", []):
                if not isinstance(question, dict) or not isinstance(question.get("question"), str):
                    raise InputError(f'{place}: there is no "question"', "expected the form of SQuAD")
                yield Row(
                    f"{place}, question {question.get('id', '?')}",
                    {
                        "id": question.get("id"),
                        "title": article.get("title"),
                        "context": paragraph["context"],
                        "question": question["question"],
                        "answers": _side_by_side(question),
                    },
                )


def _side_by_side(question: Mapping[str, Any]) -> Any:
    """The answers of a question as two lists; None where nothing is said of any."""
    answers = question.get("answers", [] if question.get("is_impossible") else None)
    if not isinstance(answers, list) or not all(isinstance(each, Mapping) for each in answers):
        return answers
    return {name: [each.get(name) for each in answers] for name in ("text", "answer_start")}
