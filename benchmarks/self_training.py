"""What self-training buys: a classifier with few labels, and the same that also learns from what it labels itself.

    python benchmarks/self_training.py --data PATH/TO/shared/data [--seeds 5] [--labels 50]

The classifier of quality (words and pairs) on a sentiment set whose training labels are hidden but for a few; the test
set is looked at once for each way. Nothing is chosen by it: the first way has the default settings. As many labels of each class are drawn. The
classifier refuses labels from which nothing can be told for certain; such seeds are counted, and left out.
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write_result

from gristmill import rng
from gristmill.augment.fits import QualityFit
from gristmill.augment.selftraining import Example, Predictor, SelfTrainingSettings, hold_out, self_train
from gristmill.errors import InputError

WAYS: dict[str, tuple[SelfTrainingSettings, float]] = {
    "default": (SelfTrainingSettings(), 0.0),
    "five folds": (SelfTrainingSettings(folds=5), 0.0),
    "three members agree": (SelfTrainingSettings(members=3, threshold=0.95), 0.0),
    "a fifth held out": (SelfTrainingSettings(), 0.2),
}
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Of Student's distribution, by the number of differences."""


def examples(data: Path, name: str, split: str) -> list[Example]:
    with gzip.open(data / name / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Example(row["text"], str(row["label"])) for row in rows if row["text"].strip()]


def accuracy(predictor: Predictor, truth: Sequence[Example]) -> float:
    mean = predictor.probabilities([example.text for example in truth]).mean(axis=0)
    found = [predictor.classes[i] for i in mean.argmax(axis=1).tolist()]
    return float(np.mean([label == example.label for label, example in zip(found, truth, strict=True)]))


def measure(
    train: Sequence[Example], test: Sequence[Example], labels: int, seed: int
) -> list[dict[str, Any]]:
    order = rng.stream(seed, "labels").permutation(len(train)).tolist()
    classes = sorted({example.label for example in train})
    # as many of each class: the classifier wants twenty, and counts both the same
    chosen = [
        i for name in classes for i in [i for i in order if train[i].label == name][: labels // len(classes)]
    ]
    labelled, taken = [train[i] for i in chosen], set(chosen)
    hidden = [train[i] for i in order if i not in taken]
    rows = []
    for way, (settings, share) in WAYS.items():
        began = time.process_time()
        learned, held_out = hold_out(labelled, share, seed=seed)
        try:
            alone = accuracy(QualityFit(folds=3)(labelled, 0), test)
            trained = self_train(
                QualityFit(folds=3), learned, [e.text for e in hidden], settings, validation=held_out, seed=0
            )
        except InputError as error:
            rows.append({"way": way, "seed": seed, "refused": error.message})
            continue
        right = [label.label == hidden[label.index].label for label in trained.pseudo_labels]
        rows.append(
            {
                "way": way, "seed": seed, "alone": alone, "self_trained": accuracy(trained.predictor, test),
                "pseudo_labels": len(right), "of_these_right": float(np.mean(right)) if right else None,
                "best_round": trained.best, "rounds": len(trained.rounds) - 1, "stopped": trained.stopped,
                "cpu_seconds": round(time.process_time() - began, 1),
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5, choices=sorted(T_95))
    parser.add_argument("--labels", type=int, nargs="+", default=[50])
    parser.add_argument("--set", default="zh_sentiment_waimai")
    arguments = parser.parse_args()
    train, test = (examples(arguments.data, arguments.set, split) for split in ("train", "test"))
    facts: dict[str, Any] = {"set": arguments.set, "train": len(train), "test": len(test)}
    facts["all_labels"] = accuracy(QualityFit(folds=3)(train, 0), test)
    every, table = [], []
    for labels in arguments.labels:
        rows = []
        for seed in range(arguments.seeds):
            rows += measure(train, test, labels, seed)
            print(f"{labels} labels, seed {seed}", file=sys.stderr, flush=True)
        every += [{"labels": labels, **row} for row in rows]
        for way in WAYS:
            told = [row for row in rows if row["way"] == way and "refused" not in row]
            differences = np.array([row["self_trained"] - row["alone"] for row in told])
            refused = len(rows) // len(WAYS) - len(told)
            if len(told) < 2:
                table.append([labels, way, len(told), refused, *["-"] * 5])
                continue
            half = T_95[len(told)] * differences.std(ddof=1) / np.sqrt(len(told))
            table.append([
                labels, way, len(told), refused, f"{np.mean([r['alone'] for r in told]):.3f}",
                f"{np.mean([r['self_trained'] for r in told]):.3f}", f"{differences.mean():+.3f} ± {half:.3f}",
                round(np.mean([r["pseudo_labels"] for r in told])),
                f"{np.mean([r['of_these_right'] for r in told if r['pseudo_labels']] or [np.nan]):.3f}",
            ])  # fmt: skip
    print_table(
        [
            "labels",
            "way",
            "seeds",
            "refused",
            "alone",
            "self-trained",
            "difference (95 %)",
            "pseudo-labels",
            "right",
        ],
        table,
    )
    print(f"all {len(train):,} labels: {facts['all_labels']:.3f}")
    write_result(f"self_training_{arguments.set}", every, **facts)


if __name__ == "__main__":
    main()
