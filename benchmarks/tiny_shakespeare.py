"""Tiny Shakespeare by characters: our recipe beside nanoGPT's own CPU recipe, in one run.

    python benchmarks/tiny_shakespeare.py --text input.txt --nanogpt PATH/TO/nanoGPT [--seeds 5] [--ablation]

Writes benchmarks/results/tiny_shakespeare.json. `--ablation` adds runs of 15 seconds with and without n-gram embeddings.
"""

import argparse
import json
import math
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import RESULTS, print_table, write_result

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "tiny_shakespeare.toml"
TARGET = 1.8857
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
NANOGPT = [
    "config/train_shakespeare_char.py",
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=1",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=2000",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
]
SMALL = [
    "model.depth=2", "model.width=128", "model.heads=2", "model.feed_forward=352", "pretrain.validations=1",
]  # fmt: skip
FIFTEEN = ['pretrain.budget="15 min"', "model.ngrams.dropout=0.4", "pretrain.dropout=0.05"]


def ours(text: Path, folder: Path, seed: int, overrides: list[str], *, ngrams: bool = True) -> dict:
    """Runs our recipe and returns its loss and curve."""
    recipe = folder.parent / "recipe.toml"
    content = RECIPE.read_text(encoding="utf-8")
    if not ngrams:
        content = re.sub(r"\[model\.ngrams\]\n(?:[^\[\n].*\n)*", "", content)
        assert "ngrams" not in content
    recipe.write_text(content, encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        "from gristmill.cli import main; main()",
        "pretrain",
        str(recipe),
        "--out",
        str(folder),
    ]
    sets = [f'corpus.sources=["{text}"]', f"seed={seed}", *overrides]
    subprocess.run(command + [part for item in sets for part in ("--set", item)], check=True)
    metrics = json.loads((folder / "model" / "manifest.json").read_text())["metrics"]
    curve = [json.loads(line) for line in (folder / "model" / "curve.jsonl").read_text().splitlines()]
    points = [
        (c["elapsed_seconds"], c["validation_nats_per_token"])
        for c in curve
        if "validation_nats_per_token" in c
    ]
    reached = next((seconds for seconds, nats in points if nats <= TARGET), None)
    return {
        "seed": seed,
        "nats": metrics["validation"]["nats_per_token"],
        "seconds": metrics["elapsed_seconds"],
        "reached": reached,
        "curve": points,
        "tokens": metrics["tokens"],
        "steps": metrics["steps"],
        "parameters": metrics["parameters"],
    }


def nanogpt(repository: Path, text: Path) -> dict:
    """Runs nanoGPT's CPU recipe as its README gives it and returns its own estimates of the validation loss."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nanoGPT"
        shutil.copytree(repository, copy, ignore=shutil.ignore_patterns(".git"))
        data = copy / "data" / "shakespeare_char"
        content = text.read_text(encoding="utf-8")
        characters = sorted(set(content))
        ids = {c: i for i, c in enumerate(characters)}
        tokens = np.array([ids[c] for c in content], dtype=np.uint16)
        cut = int(0.9 * len(tokens))
        tokens[:cut].tofile(data / "train.bin")
        tokens[cut:].tofile(data / "val.bin")
        meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": ids}
        (data / "meta.pkl").write_bytes(pickle.dumps(meta))
        process = subprocess.Popen(
            [sys.executable, "-u", "train.py", *NANOGPT],
            cwd=copy,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.STDOUT,
        )
        began, points = None, []
        assert process.stdout is not None
        for line in process.stdout:
            began = began or (time.perf_counter() if line.startswith("step 0") else None)
            if (match := re.match(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)", line)) and began:
                points.append((time.perf_counter() - began, float(match[2])))
                print(line.strip(), flush=True)
        assert process.wait() == 0
    reached = next((seconds for seconds, nats in points if nats <= TARGET), None)
    return {"nats": points[-1][1], "seconds": points[-1][0], "reached": reached, "curve": points}


def summary(name: str, runs: list[dict]) -> dict:
    losses = [run["nats"] for run in runs]
    mean, reached = statistics.mean(losses), [run["reached"] for run in runs if run["reached"] is not None]
    interval = "one seed"
    if len(losses) > 1:
        from statistics import stdev

        half = STUDENT[len(losses)] * stdev(losses) / math.sqrt(len(losses))
        interval = f"{mean - half:.4f} to {mean + half:.4f}"
    return {
        "run": name,
        "seeds": len(runs),
        "validation_nats": mean,
        "interval": interval,
        "seconds": statistics.mean(run["seconds"] for run in runs),
        "seconds_to_1.8857": f"{statistics.mean(reached):.1f}"
        if len(reached) == len(runs)
        else "not reached",
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 11))
    parser.add_argument("--fifteen", action="store_true", help="Add the fifteen-minute run.")
    parser.add_argument(
        "--ablation", action="store_true", help="Add runs of 15 seconds with and without n-grams."
    )
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    text = arguments.text.resolve()
    kept = RESULTS / "tiny_shakespeare.json"
    rows = {r["run"]: r for r in json.loads(kept.read_text())["rows"]} if kept.exists() else {}

    def record(name: str, runs: list[dict]) -> None:
        rows[name] = summary(name, runs)
        write_result("tiny_shakespeare", list(rows.values()))
        print_table(
            ["run", "loss", "seconds", "to 1.8857"],
            [[r["run"], r["validation_nats"], r["seconds"], r["seconds_to_1.8857"]] for r in rows.values()],
        )

    def several(name: str, seeds: int, overrides: list[str], **options: bool) -> None:
        runs = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(ours(text, Path(folder) / "run", seed, overrides, **options))
        record(name, runs)

    record("nanoGPT, its CPU recipe", [nanogpt(arguments.nanogpt, text)])
    several("gristmill, 10 seconds, a smaller model", 3, ['pretrain.budget="10 s"', *SMALL])
    several("gristmill, 3 minutes", arguments.seeds, [])
    if arguments.ablation:
        short = ['pretrain.budget="15 s"', *SMALL]
        several("gristmill, 15 seconds, a smaller model", 5, short)
        several("the same without n-grams", 5, short, ngrams=False)
    if arguments.fifteen:
        several("gristmill, 15 minutes", 1, FIFTEEN)


if __name__ == "__main__":
    main()
