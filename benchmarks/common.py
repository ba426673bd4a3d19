"""What the benchmarks share: where results go, and what machine they are from."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, rows: Any, **facts: Any) -> Path:
    """Writes benchmarks/results/NAME.json with the machine's description and the load before."""
    from gristmill.train.hardware import describe_machine

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    table = {
        "measured_at": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "load_average": round(os.getloadavg()[0], 2),
        **facts,
        "rows": rows,
    }
    path.write_text(json.dumps(table, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return path


def print_table(columns: list[str], rows: list[list[Any]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
