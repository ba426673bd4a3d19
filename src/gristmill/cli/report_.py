"""`gristmill report`: the report of a run or of a task model as one HTML page and JSON."""

from pathlib import Path

import click

from gristmill.cli._common import json_option, print_json


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it; by default RUN/report.")
@json_option
def command(run: Path, out: Path | None, as_json: bool) -> None:
    """Write the report of a run, or of a task model, as one HTML page and JSON.

    \b
      gristmill report runs/demo
      gristmill report runs/intents
      gristmill report runs/demo --json > numbers.json

    The page opens offline in any browser. A stage that has not run is shown so.

    Next: `gristmill generate RUN "In the beginning"`.
    """
    from gristmill.report import build_report, read_report

    report = build_report(run, out or run / "report")
    facts = read_report(report)
    if as_json:
        print_json(facts)
        return
    if facts.get("kind") == "adapted":
        for name, found in facts["result"]["figures"].items():
            interval = found["interval"]
            between = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            click.echo(f"{facts['name']}: {name} {found['mean']:.3f}{between}")
        click.echo(str(report.path / "report.html"))
        return
    bits = (facts["overall"] or {}).get("bits_per_byte")
    if bits is not None:
        interval = facts["overall"].get("bits_per_byte_interval")
        between = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        click.echo(f"{facts['name']}: {bits:.3f} bits per byte{between}")
    click.echo(str(report.path / "report.html"))
