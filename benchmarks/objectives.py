"""Memory of each objective beside a stock Trainer run, and whether padding costs anything.

    python benchmarks/objectives.py --data PATH/TO/data

Memory: peak resident memory of training at 30M parameters, 16 rows of 512 tokens, on real books, each in a process of
its own: every objective as this project trains it by default (its precision, its micro-batches), and the stock
`transformers` Trainer (float32, AdamW, all 16 rows at once, its default) on the class of the same kind.

Unpadded: masked training of the same model on documents of mixed length (poems of 20 tokens beside articles of a
thousand) and on one endless document whose rows are full: tokens of text a second, interleaved in one run.

Writes benchmarks/results/objectives.json. Needs `accelerate`.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from common import in_process, print_table, write_result

DEPTH, WIDTH, VOCABULARY, ROW, ROWS = 8, 512, 8192, 512, 16
DEPTHS = {"modernbert": 12}
"""Where 8 layers have far fewer than 30M parameters."""
PEER = {
    "causal": "causal", "prefix": "causal", "hybrid": "causal", "masked": "masked", "next_sentence": "masked",
    "permuted": "masked", "detect": "masked", "spans": "sequence", "denoise": "sequence",
}  # fmt: skip


def prepare(data: Path, folder: Path) -> None:
    """A corpus of books, another of mixed lengths, a tokenizer for both, and their shards."""
    from gristmill.config import from_dict
    from gristmill.pipeline import Quiet, Recipe, run_stage, settle

    sources = {
        "books": [str(data / "pretrain_en_books" / "valid.jsonl.zst")],
        "mixed": [
            str(data / "pretrain_en_wikipedia" / "valid.jsonl.zst"),
            str(data / "pretrain_zh_poetry" / "train.jsonl.zst"),
        ],
    }
    for name, files in sources.items():
        recipe = settle(
            from_dict(
                Recipe,
                {
                    "name": name,
                    "corpus": {"sources": files, "valid_fraction": 0.02},
                    "tokenizer": {"vocab_size": VOCABULARY, "sentinels": 100},
                    "pretrain": {"objective": "masked", "row_tokens": ROW},
                },
            )
        )
        stages = {}
        for stage in ("corpus", "tokenizer", "shards"):
            stages[stage] = run_stage(stage, recipe, folder / name / stage, stages, Quiet())


def trainer(
    folder: Path, text: str, objective: str, work: Path, whole: bool = False, precision: str = "auto"
):
    """Our trainer on one of the two texts, ready to make steps; `whole` makes one document of it."""
    import numpy as np

    from gristmill import plugins
    from gristmill.corpus.shards import Shards
    from gristmill.model.config import ModelSettings, resolve
    from gristmill.tokenizer import Tokenizer
    from gristmill.train.settings import PretrainSettings
    from gristmill.train.trainer import Trainer

    kind = plugins.load("objectives", objective)
    encoder_decoder = "encoder-decoder" in kind.kinds
    vocabulary = Tokenizer.from_directory(folder / text / "tokenizer").vocabulary()
    depth = DEPTHS.get(kind.family, DEPTH)
    size = {"depth": depth // 2, "encoder_depth": depth // 2} if encoder_decoder else {"depth": depth}
    model = ModelSettings(family=kind.family, width=WIDTH, **size)
    config = kind().refine(resolve(model, vocab_size=vocabulary.size, row_tokens=ROW))
    shards = Shards(folder / text / "shards")
    store = shards.split("train")
    if whole:
        ends = np.array([0, store.offsets[-1]])
        sizes = np.array([store.text_bytes.sum()])
        store = dataclasses.replace(store, offsets=ends, text_bytes=sizes)
    settings = PretrainSettings(
        objective=kind(),
        budget="1000 steps",
        row_tokens=ROW,
        batch_tokens=ROW * ROWS,
        checkpoint_seconds=1e9,
        precision=precision,
    )
    work.mkdir(parents=True, exist_ok=True)
    return Trainer(
        directory=work, model_config=config, settings=settings, train=store, valid=shards.split("valid"),
        vocabulary=vocabulary, seed=0,
    )  # fmt: skip


def memory_of_ours(folder: Path, objective: str) -> dict:
    from gristmill.train.hardware import peak_memory_bytes

    with tempfile.TemporaryDirectory() as work:
        made = trainer(folder, "books", objective, Path(work) / "model")
        with made._open():
            made._prepare()
            for _ in range(4):
                made._one_step()
        parameters = sum(p.numel() for p in made.model.parameters())
        return {
            "bytes": peak_memory_bytes(),
            "parameters": parameters,
            "precision": made.decisions["precision"],
            "micro_rows": made.micro_rows,
        }


def memory_of_stock(folder: Path, kind: str) -> dict:
    """A few steps of the stock Trainer on the class of a kind, 16 rows of 512 at a time."""
    import numpy as np
    import transformers

    from gristmill.corpus.shards import Shards
    from gristmill.train.hardware import peak_memory_bytes

    store = Shards(folder / "books" / "shards").split("train")
    rows = np.asarray(store.tokens[: ROWS * 4 * ROW], dtype=np.int64).reshape(-1, ROW)
    data = [{"input_ids": row, "labels": row} for row in rows]
    heads = WIDTH // 64
    common = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_attention_heads": heads}
    if kind == "causal":
        config = transformers.Qwen3Config(
            **common, num_hidden_layers=DEPTH, intermediate_size=1408, head_dim=64, num_key_value_heads=heads,
            max_position_embeddings=ROW, tie_word_embeddings=True,
        )  # fmt: skip
        model = transformers.Qwen3ForCausalLM(config)
    elif kind == "masked":
        config = transformers.BertConfig(
            **common, num_hidden_layers=DEPTH, intermediate_size=4 * WIDTH, max_position_embeddings=ROW
        )
        model = transformers.BertForMaskedLM(config)
    else:
        config = transformers.T5Config(
            vocab_size=VOCABULARY, d_model=WIDTH, num_heads=heads, d_kv=64, d_ff=1408, num_layers=DEPTH // 2,
            num_decoder_layers=DEPTH // 2, feed_forward_proj="gated-gelu", decoder_start_token_id=0,
        )  # fmt: skip
        model = transformers.T5ForConditionalGeneration(config)
        # what T5's own preparation makes of 512 tokens: the text without its spans, and the spans
        data = [{"input_ids": row[:460], "labels": row[:116]} for row in rows]
    with tempfile.TemporaryDirectory() as work:
        arguments = transformers.TrainingArguments(
            output_dir=work, per_device_train_batch_size=ROWS, max_steps=3, use_cpu=True, save_strategy="no",
            report_to=[], disable_tqdm=True,
        )  # fmt: skip
        transformers.Trainer(
            model=model, args=arguments, train_dataset=data, data_collator=transformers.default_data_collator
        ).train()
    return {"bytes": peak_memory_bytes(), "parameters": sum(p.numel() for p in model.parameters())}


def unpadded(folder: Path) -> dict:
    """Text tokens a second on mixed documents and on full rows, step by step in turn."""
    with tempfile.TemporaryDirectory() as work:
        sides = {}
        precision = "auto"
        for name, whole in (("mixed", False), ("full rows", True)):
            made = trainer(folder, "mixed", "masked", Path(work) / name, whole, precision)
            made._open()
            made._prepare()
            precision = made.decisions["precision"]  # both in the same
            sides[name] = made
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for round_number in range(14):
            for name, made in sides.items():
                tokens, started = made.tokens, time.perf_counter()
                made._one_step()
                if round_number >= 2:
                    speeds[name].append((made.tokens - tokens) / (time.perf_counter() - started))
        padding = sides["mixed"].loader.plan(0).padding_share
        lengths = sides["mixed"].train_store.lengths
        for made in sides.values():
            made.loader.__exit__()
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "tokens_per_second": medians,
        "ratio": medians["mixed"] / medians["full rows"],
        "precision": precision,
        "padding_share": padding,
        "document_tokens": {f"{q} %": int(v) for q, v in zip((5, 50, 95), quantiles(lengths), strict=True)},
    }


def quantiles(lengths):
    import numpy as np

    return np.quantile(lengths, (0.05, 0.5, 0.95))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, *rest = arguments.step
        work = {"ours": memory_of_ours, "stock": memory_of_stock, "unpadded": unpadded}[step]
        print(json.dumps(work(arguments.folder, *rest)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    prepare(arguments.data, folder)
    common = ["--data", str(arguments.data), "--folder", str(folder), "--step"]
    even = in_process(__file__, *common, "unpadded")
    stock = {kind: in_process(__file__, *common, "stock", kind) for kind in ("causal", "masked", "sequence")}
    rows = []
    for objective, kind in PEER.items():
        ours = in_process(__file__, *common, "ours", objective)
        rows.append({"objective": objective, "ours": ours, "stock": {"kind": kind, **stock[kind]}})
    path = write_result("objectives", rows, unpadded=even, rows_of=ROW, rows_in_a_step=ROWS)
    print_table(
        ["objective", "parameters", "ours, MB", "rows at a time", "stock Trainer, MB"],
        [
            [
                row["objective"],
                f"{row['ours']['parameters'] / 1e6:.1f}M",
                f"{row['ours']['bytes'] / 1e6:,.0f}",
                row["ours"]["micro_rows"],
                f"{row['stock']['bytes'] / 1e6:,.0f}",
            ]
            for row in rows
        ],
    )
    print(f"mixed documents against full rows: {even['ratio']:.3f} ({even['padding_share']:.2%} padding)")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
