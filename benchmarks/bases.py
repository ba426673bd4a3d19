"""What each objective's base model is worth on three tasks, beside recurrent baselines, random weights and words alone.

    gristmill compare recipes/compare_objectives.toml                      # the bases: hours on two cores
    python benchmarks/bases.py --data PATH/TO/shared/data --runs runs/compare_objectives [--jobs 2]

Every candidate of that comparison (equal tokens, about equal parameters, three seeds) is fine-tuned on sentiment (MR), intents
(CLINC150, 20 labels of each class) and names (wikigold). The learning rate is chosen for each candidate and task by the validation
examples of the first seed, out of RATES; all else is the same. Test examples are looked at once for each model. The baselines are a
logistic regression on TF-IDF of words and pairs of words, and for names one on the word, its neighbours, its ends and its shape; their
strength of regularisation is chosen by the same validation examples. Cells that are in the results file are not repeated.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import RESULTS, in_process, print_table, write_result

NAME = "bases"
RATES = (3e-4, 1e-3)
NOTHING, WORDS = "random weights", "words alone"


@dataclasses.dataclass(frozen=True)
class Job:
    """A task on a part of a data set."""

    folder: str
    task: str
    epochs: int
    most: int | None = None
    per_class: int | None = None
    valid: bool = True


JOBS = {
    "sentiment": Job("en_sentiment_mr", "classification", 5, most=3000),
    "intents": Job("en_intent_clinc150", "classification", 10, per_class=20),
    "names": Job("en_ner_wikigold", "tagging", 8, valid=False),
}


def recipe(job: Job, data: Path, base: str, rate: float, seed: int) -> dict[str, Any]:
    folder = data / job.folder
    table: dict[str, Any] = {
        "name": "cell", "base": base, "task": job.task, "seed": seed,
        "data": {"train": str(folder / "train.jsonl.gz"), "test": str(folder / "test.jsonl.gz")},
        "tune": {"epochs": job.epochs, "learning_rate": rate},
    }  # fmt: skip
    if job.valid:
        table["data"]["valid"] = str(folder / "valid.jsonl.gz")
    if job.per_class:
        table["data"]["per_class"] = job.per_class
    return table


def cell(arguments: argparse.Namespace) -> dict[str, Any]:
    """One base on one task."""
    import torch

    from gristmill.adapt import adapting
    from gristmill.config import from_dict

    torch.set_num_threads(1)
    job = JOBS[arguments.job]
    settled = from_dict(
        adapting.AdaptRecipe, recipe(job, arguments.data, arguments.base, arguments.rate, arguments.seed)
    )
    if job.most is not None:
        settled = _fewer(settled, job.most, arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        made = adapting.adapt(settled, Path(folder) / "out")
        facts = json.loads((made.path / "result.json").read_text(encoding="utf-8"))
    first = next(iter(facts["figures"]))
    (one,) = facts["seeds"]
    return {
        "figure": first, "test": facts["figures"][first]["mean"], "valid": one["valid"][first],
        "seconds": one["elapsed_seconds"], "parameters": facts["weights"]["model"],
    }  # fmt: skip


def _fewer(settled: Any, most: int, data: Path) -> Any:
    """The recipe with the first so many rows in an order drawn with the seed."""
    import gzip

    from gristmill import rng

    source = Path(settled.data.train)
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = file.read().splitlines()
    order = rng.stream(settled.seed, "some").permutation(len(rows)).tolist()
    target = Path(tempfile.mkdtemp()) / "train.jsonl"
    target.write_text("\n".join(rows[i] for i in order[:most]), encoding="utf-8")
    return dataclasses.replace(settled, data=dataclasses.replace(settled.data, train=str(target)))


def words(job: Job, data: Path, seed: int) -> dict[str, Any]:
    """Logistic regression on what stands in the text."""
    import numpy as np
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from gristmill.adapt import adapting
    from gristmill.config import from_dict

    settled = from_dict(adapting.AdaptRecipe, recipe(job, data, "nowhere", 1e-3, seed))
    splits = adapting.prepare(settled if job.most is None else _fewer(settled, job.most, data))
    task = settled.task
    parts = (splits.train, splits.valid, splits.test)
    vectorizer: Any
    if job.task == "classification":
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        given: list[Any] = [[each.texts[0] for each in part] for part in parts]
        labels = [[each.label for each in part] for part in parts]
    else:
        vectorizer = DictVectorizer()
        given = [[_clues(each, i) for each in part for i in range(len(each.words))] for part in parts]
        labels = [[tag for each in part for tag in each.tags] for part in parts]
    features = [vectorizer.fit_transform(given[0]), *(vectorizer.transform(each) for each in given[1:])]
    found = []
    for strength in (0.3, 1.0, 3.0, 10.0, 30.0):
        model = LogisticRegression(C=strength, max_iter=2000).fit(features[0], labels[0])
        results = []
        for part, known in zip(parts[1:], features[1:], strict=True):
            said = model.predict(known).tolist()
            if job.task == "classification":
                answers: list[Any] = [{"label": label} for label in said]
            else:
                ends = np.cumsum([len(each.words) for each in part])
                answers = [
                    {"tags": said[end - len(each.words) : end]} for each, end in zip(part, ends, strict=True)
                ]
            results.append(task.result(part, answers).figures)
        first = next(iter(results[0]))
        found.append((results[0][first].value, results[1][first].value))
    valid, test = max(found)
    return {
        "figure": first,
        "test": test,
        "valid": valid,
        "seconds": 0.0,
        "parameters": features[0].shape[1] * len(splits.outputs),
    }


def _clues(example: Any, i: int) -> dict[str, Any]:
    texts = [example.text[a:b] for a, b in example.words]
    word = texts[i]
    shape = "".join("X" if c.isupper() else "x" if c.islower() else "0" if c.isdigit() else c for c in word)
    clues = {"word": word.lower(), "shape": shape, "first": i == 0}
    clues |= {f"begins {n}": word[:n].lower() for n in (1, 2, 3)} | {
        f"ends {n}": word[-n:].lower() for n in (1, 2, 3)
    }
    for step in (-2, -1, 1, 2):
        clues[f"at {step}"] = texts[i + step].lower() if 0 <= i + step < len(texts) else ""
    return clues


def untrained(like: Path) -> str:
    """A directory with a model of the same shape whose weights are random."""
    import torch

    from gristmill.generate.load import load_run
    from gristmill.model.exchange import to_transformers

    loaded = load_run(like)
    loaded.model.initialise(torch.Generator().manual_seed(0))
    folder = Path(tempfile.mkdtemp())
    to_transformers(loaded.model, folder, dict(loaded.tokenizer.special))
    loaded.tokenizer.save(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        made = (
            words(JOBS[arguments.job], arguments.data, arguments.seed)
            if arguments.base == WORDS
            else cell(arguments)
        )
        print(json.dumps(made))
        return
    path = RESULTS / f"{NAME}.json"
    rows: list[dict[str, Any]] = (
        json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    )
    done = {(row["base"], row["job"], row["rate"], row["seed"]) for row in rows}
    bases = sorted(p.name for p in (arguments.runs / "cells").iterdir() if p.is_dir())
    nothing = untrained(arguments.runs / "cells" / "causal" / "seed-0")

    def place(base: str, seed: int) -> str:
        fixed = {WORDS: WORDS, NOTHING: nothing}
        return fixed.get(base) or str(arguments.runs / "cells" / base / f"seed-{seed}")

    def run(wanted: list[tuple[str, str, float, int]]) -> None:
        left = [each for each in wanted if each not in done]
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            futures = {}
            for base, job, rate, seed in left:
                given = [
                    "--data",
                    str(arguments.data),
                    "--runs",
                    str(arguments.runs),
                    "--job",
                    job,
                    "--seed",
                    str(seed),
                ]
                given += ["--base", place(base, seed), "--rate", str(rate)]
                futures[pool.submit(in_process, __file__, *given)] = (base, job, rate, seed)
            for future in concurrent.futures.as_completed(futures):
                base, job, rate, seed = futures[future]
                rows.append({"base": base, "job": job, "rate": rate, "seed": seed, **future.result()})
                done.add((base, job, rate, seed))
                write_result(
                    NAME, sorted(rows, key=lambda r: (r["base"], r["job"], r["seed"], r["rate"])), rates=RATES
                )
                print(rows[-1], file=sys.stderr, flush=True)

    names = [*bases, NOTHING]
    run([(WORDS, job, 0.0, seed) for job in JOBS for seed in range(arguments.seeds)])
    run([(base, job, rate, 0) for base in names for job in JOBS for rate in RATES])
    first = {(r["base"], r["job"], r["rate"]): r["valid"] for r in rows if r["seed"] == 0}
    best = {
        (base, job): max(RATES, key=lambda rate: first[base, job, rate]) for base in names for job in JOBS
    }
    run(
        [
            (base, job, best[base, job], seed)
            for base in names
            for job in JOBS
            for seed in range(1, arguments.seeds)
        ]
    )
    print_table(*table(rows))


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Returns columns and rows: the mean over seeds on each task, with the rate that was chosen."""
    from scipy.stats import t

    figures = {row["job"]: row["figure"] for row in rows}
    columns = ["base", "parameters", *(f"{job}: {figures[job]}" for job in JOBS if job in figures), "mean"]
    found = []
    for base in dict.fromkeys(row["base"] for row in rows):
        own = [row for row in rows if row["base"] == base]
        cells, means = [], []
        for job in JOBS:
            by_rate: dict[float, list[dict[str, Any]]] = {}
            for row in own:
                if row["job"] == job:
                    by_rate.setdefault(row["rate"], []).append(row)
            if not by_rate:
                cells.append("")
                continue
            chosen = max(by_rate.values(), key=lambda each: next(r["valid"] for r in each if r["seed"] == 0))
            values = [row["test"] for row in chosen]
            mean, shown = statistics.fmean(values), f"{statistics.fmean(values):.3f}"
            if len(values) > 1:
                reach = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
                shown += f" ± {reach:.3f}"
            cells.append(shown)
            means.append(mean)
        size = own[0]["parameters"]
        found.append(
            (
                statistics.fmean(means),
                [
                    base,
                    "" if base == WORDS else f"{size / 1e6:.1f}M",
                    *cells,
                    f"{statistics.fmean(means):.3f}",
                ],
            )
        )
    return columns, [row for _, row in sorted(found, key=lambda each: -each[0])]


if __name__ == "__main__":
    main()
