"""How long until the loss that a stock `transformers` Trainer run ends with: masked and causal, on real books.

    python benchmarks/against_trainer.py --books PATH/TO/pretrain_en_books [--tokens 4000000] [--seeds 3]

Both sides train the same published class (ModernBertForMaskedLM, Qwen3ForCausalLM) of the same sizes from scratch, on the
same texts with the same tokenizer. The stock side: float32, the Trainer's default AdamW, rows of concatenated text
as in its own run_mlm.py and run_clm.py, with the learning rate, warm-up and batch that such small models want (its
default rate of 5e-5 is for fine-tuning and is far worse). Ours: this project's defaults, and a third or a sixth of
the wall time that the stock run took. At the end both models are measured by the same code on the same validation
texts, for `masked` under the same masks (15 %).

Writes benchmarks/results/against_trainer.json; with --folder, a run that was stopped goes on. Needs `accelerate`.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from common import in_process, print_table, write_result

DEPTH, WIDTH, HEADS, VOCABULARY, ROW, BATCH_ROWS = 4, 192, 3, 8192, 128, 32
FEED_FORWARD = {"masked": 512, "causal": 512}
FAMILY = {"masked": "modernbert", "causal": "qwen3"}
STOCK_RATE = 1e-3


def prepare(books: Path, folder: Path) -> None:
    """Corpus, tokenizer and shards, as a recipe makes them."""
    from gristmill.config import from_dict
    from gristmill.pipeline import Quiet, Recipe, run_stage, settle

    for what in ("masked", "causal"):
        recipe = settle(from_dict(Recipe, recipe_table(what, books, "1 epochs")))
        stages = {}
        for name in ("corpus", "tokenizer", "shards"):
            path = folder / (f"shards-{what}" if name == "shards" else name)
            stages[name] = run_stage(name, recipe, path, stages, Quiet())


def recipe_table(what: str, books: Path, budget: str, seed: int = 0) -> dict:
    return {
        "name": what,
        "seed": seed,
        "corpus": {
            "sources": [str(books / "train.jsonl.zst"), str(books / "valid.jsonl.zst")],
            "valid_fraction": 0.01,
        },
        "tokenizer": {"vocab_size": VOCABULARY},
        "model": {
            "family": FAMILY[what],
            "depth": DEPTH,
            "width": WIDTH,
            "heads": HEADS,
            "feed_forward": FEED_FORWARD[what],
            "maximum_positions": ROW,
            "tied": True,
        },
        "pretrain": {
            "objective": what,
            "budget": budget,
            "row_tokens": ROW,
            "batch_tokens": ROW * BATCH_ROWS,
            "validations": 2,
        },
    }


def stock(what: str, folder: Path, tokens: int) -> float:
    """Trains the stock class with the stock Trainer, saves it, and returns the seconds that training took."""
    import numpy as np
    import torch
    import transformers

    from gristmill.corpus.shards import Shards
    from gristmill.tokenizer import Tokenizer

    transformers.set_seed(0)
    tokenizer = Tokenizer.from_directory(folder / "tokenizer")
    store = Shards(folder / f"shards-{what}").split("train")
    flat = np.asarray(store.tokens[: len(store.tokens) // ROW * ROW], dtype=np.int64).reshape(-1, ROW)
    sizes = {
        "vocab_size": tokenizer.vocab_size, "hidden_size": WIDTH, "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS, "intermediate_size": FEED_FORWARD[what], "max_position_embeddings": ROW,
    }  # fmt: skip
    if what == "masked":
        special = {
            f"{name}_token_id": tokenizer.special[name] for name in ("pad", "bos", "eos", "cls", "sep")
        }
        config = transformers.ModernBertConfig(**sizes, **special)
        model = transformers.ModernBertForMaskedLM(config)
        words = transformers.PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
        collator = transformers.DataCollatorForLanguageModeling(words, mlm_probability=0.15)
        data = [{"input_ids": row} for row in flat]
    else:
        config = transformers.Qwen3Config(
            **sizes, head_dim=WIDTH // HEADS, num_key_value_heads=HEADS, tie_word_embeddings=True
        )
        model = transformers.Qwen3ForCausalLM(config)
        collator = transformers.default_data_collator
        data = [{"input_ids": row, "labels": row} for row in flat]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / f"stock-{what}-work"), per_device_train_batch_size=BATCH_ROWS,
        max_steps=tokens // (ROW * BATCH_ROWS), learning_rate=STOCK_RATE, warmup_steps=50, use_cpu=True,
        save_strategy="no", report_to=[], logging_steps=200, disable_tqdm=True, dataloader_num_workers=0,
    )  # fmt: skip
    torch.set_num_threads(os.cpu_count() or 1)
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    model.save_pretrained(folder / f"stock-{what}")
    return seconds


def ours(what: str, folder: Path, books: Path, name: str, seconds: float, seed: int) -> dict:
    """Trains for so many seconds by this project's defaults and returns what its manifest says."""
    from gristmill.artifact import open_artifact
    from gristmill.config import from_dict
    from gristmill.pipeline import Quiet, Recipe, pretrain, settle

    recipe = settle(from_dict(Recipe, recipe_table(what, books, f"{seconds:.1f} s", seed)))
    artifact = pretrain(
        recipe.model,
        recipe.pretrain,
        shards=open_artifact(folder / f"shards-{what}", verify=False),
        tokenizer=open_artifact(folder / "tokenizer", verify=False),
        out=folder / name,
        seed=seed,
        listener=Quiet(),
    )
    return artifact.manifest.metrics


def measured(what: str, folder: Path, name: str, framing: str) -> float:
    """The loss on the validation texts, nats per predicted token, in float32 and under the same masks for all.

    Ours reads each piece of a text between [CLS] and [SEP], the stock run rows of running text: `framing` "framed"
    measures the one way, "running" the other, and the stock model gets the better of the two.
    """
    import dataclasses

    from gristmill.corpus.shards import Shards
    from gristmill.model.checkpoint import load_model
    from gristmill.model.exchange import from_transformers
    from gristmill.objectives.causal import Causal
    from gristmill.objectives.masked import Masked
    from gristmill.tokenizer import Tokenizer
    from gristmill.train.validate import score_documents

    path = folder / name
    vocabulary = Tokenizer.from_directory(folder / "tokenizer").vocabulary()
    if framing == "running":
        special = {token: i for token, i in vocabulary.special.items() if token not in ("cls", "sep")}
        vocabulary = dataclasses.replace(vocabulary, special=special)
    model = load_model(path) if (path / "model.json").is_file() else from_transformers(path)
    return score_documents(
        model,
        Shards(folder / f"shards-{what}").split("valid"),
        row_tokens=ROW,
        vocabulary=vocabulary,
        objective=Masked(rate=0.15) if what == "masked" else Causal(),
    ).nats_per_token


def once(kept: Path, common: list[str], *step: str) -> dict:
    """What a step printed, now or in an earlier run with the same folder."""
    if not kept.is_file():
        kept.write_text(json.dumps(in_process(__file__, *common, "--step", *step)))
    return json.loads(kept.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--times", type=float, nargs="*", default=[3.0, 6.0], help="how much sooner ours has to be done"
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=["masked", "causal"])
    parser.add_argument("--step", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, what, *rest = arguments.step
        if step == "stock":
            print(json.dumps({"seconds": stock(what, arguments.folder, arguments.tokens)}))
        elif step == "ours":
            name, seconds, seed = rest
            made = ours(what, arguments.folder, arguments.books, name, float(seconds), int(seed))
            print(json.dumps(made, default=str))
        else:
            print(json.dumps({"nats": measured(what, arguments.folder, *rest)}))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    prepare(arguments.books, folder)
    common = ["--books", str(arguments.books), "--tokens", str(arguments.tokens), "--folder", str(folder)]
    rows = []
    for what in ("masked", "causal") if arguments.only is None else (arguments.only,):
        seconds = once(folder / f"stock-{what}.json", common, "stock", what)["seconds"]
        theirs = min(
            in_process(__file__, *common, "--step", "measure", what, f"stock-{what}", framing)["nats"]
            for framing in ("framed", "running")
        )
        for times in arguments.times:
            runs = []
            for seed in range(arguments.seeds):
                name = f"ours-{what}-{times:g}-{seed}"
                metrics = once(
                    folder / f"{name}.json", common, "ours", what, name, str(seconds / times), str(seed)
                )
                nats = in_process(__file__, *common, "--step", "measure", what, name, "framed")["nats"]
                runs.append(
                    {
                        "seed": seed,
                        "nats": nats,
                        "seconds": metrics["elapsed_seconds"],
                        "tokens": metrics["tokens"],
                        "precision": metrics["precision"]["compute"],
                        "parameters": metrics["parameters"]["total"],
                    }
                )
            rows.append(
                {
                    "objective": what,
                    "stock": {"nats": theirs, "seconds": seconds, "tokens": arguments.tokens},
                    "ours": runs,
                    "sooner": seconds / statistics.mean(run["seconds"] for run in runs),
                    "all_below": all(run["nats"] <= theirs for run in runs),
                }
            )
    path = write_result(
        "against_trainer" if arguments.only is None else f"against_trainer_{arguments.only}",
        rows,
        sizes={"depth": DEPTH, "width": WIDTH, "vocabulary": VOCABULARY, "row_tokens": ROW},
        stock_learning_rate=STOCK_RATE,
    )
    print_table(
        [
            "objective",
            "stock: nats, seconds",
            "ours: nats by seed",
            "ours: seconds",
            "sooner",
            "below the stock loss",
        ],
        [
            [
                row["objective"],
                f"{row['stock']['nats']:.3f}, {row['stock']['seconds']:.0f}",
                " ".join(f"{run['nats']:.3f}" for run in row["ours"]),
                " ".join(f"{run['seconds']:.0f}" for run in row["ours"]),
                f"{row['sooner']:.2f}",
                row["all_below"],
            ]
            for row in rows
        ],
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
