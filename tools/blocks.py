"""What generated blocks of the documentation share: results, tables, machines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def of(name: str) -> Callable[[Callable[[dict[str, Any]], str]], Callable[[bool], str]]:
    """A block in one language, written from one file of results; before that is there it says so."""

    def block(write: Callable[[dict[str, Any]], str]) -> Callable[[bool], str]:
        def written(_: bool) -> str:
            table = result(name)
            return "not measured yet" if table is None else write(table)

        return written

    return block


def markdown(columns: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def machine(table: dict[str, Any]) -> str:
    m = table["machine"]
    return f"{m['cpu']}, {m.get('cores', m.get('threads'))} cores, torch {m['torch']}, measured on {table.get('measured_at', '')}"
