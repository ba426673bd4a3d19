"""What the benchmarks share: where results go, and what machine they are from."""

import json
import os
import shutil
import statistics
import subprocess
import sys
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


def in_process(script: str, *arguments: str) -> dict[str, Any]:
    """Runs a script with these arguments in a process of its own and returns the JSON that it prints last."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, *arguments], check=True, stdout=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def adapted(recipe: dict[str, Any], out: Path) -> dict[str, Any]:
    """Returns the facts of an adaptation; its model is not kept."""
    from gristmill.adapt.adapting import AdaptRecipe, adapt
    from gristmill.config import from_dict

    made = adapt(from_dict(AdaptRecipe, recipe), out)
    facts: dict[str, Any] = json.loads((made.path / "result.json").read_text(encoding="utf-8"))
    shutil.rmtree(made.path)
    return facts


def interval(values: list[float]) -> list[float] | None:
    """Returns the ends of the 95 % interval of a mean over seeds (Student's t); None of a single one."""
    import scipy.stats

    if len(values) < 2:
        return None
    reach = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return [statistics.fmean(values) - reach, statistics.fmean(values) + reach]


def print_table(columns: list[str], rows: list[list[Any]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
