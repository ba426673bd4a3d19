"""`gristmill predict`: what a task model says of rows."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gristmill.adapt.tables import Row

__all__ = ["command"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=str)
@click.option("--out", type=click.Path(path_type=Path), help="File of JSON lines; by default stdout.")
def command(model: Path, file: str, out: Path | None) -> None:
    """Answer every row of FILE (.jsonl, .csv, .tsv, .parquet, .conll, or - for JSON lines on stdin) with MODEL.

    \b
      gristmill predict runs/intents new.jsonl --out answers.jsonl
      echo '{"text": "how much is on my account"}' | gristmill predict runs/intents -

    Each row comes back with what was predicted, in its order.

    Next: gristmill report MODEL
    """
    import contextlib
    import json
    import os

    from gristmill.adapt.predicting import Predictor
    from gristmill.adapt.tables import read_table
    from gristmill.artifact import disk_errors

    predictor = Predictor(model)
    rows = _from_stdin() if file == "-" else read_table(file)
    partial = None if out is None else out.with_name(f".{out.name}.{os.getpid()}.tmp")
    count = 0
    with contextlib.ExitStack() as stack:
        target = sys.stdout
        if partial is not None and out is not None:
            stack.enter_context(disk_errors(out))
            stack.callback(partial.unlink, missing_ok=True)
            target = stack.enter_context(partial.open("w", encoding="utf-8"))
        for row, answer in predictor.rows(rows):
            print(json.dumps({**row.fields, "predicted": answer}, ensure_ascii=False), file=target)
            count += 1
        if partial is not None and out is not None:
            target.flush()
            os.fsync(target.fileno())
            partial.replace(out)
    if out is not None:
        click.echo(f"{count:,} rows answered: {out}", err=True)


def _from_stdin() -> "Iterator[Row]":
    import json

    from gristmill.adapt.tables import Row
    from gristmill.errors import InputError

    for number, line in enumerate(sys.stdin.buffer, 1):
        place = f"stdin, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{place}: broken JSON: {error}", "write one object on each line") from None
        if not isinstance(row, dict):
            raise InputError(f"{place}: not an object", 'write {"text": "…"} on each line')
        yield Row(place, row)
