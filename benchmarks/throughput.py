"""Training throughput beside nanoGPT's float32 loop, at equal size, rows and row length.

    python benchmarks/throughput.py --nanogpt PATH/TO/nanoGPT [--rounds 5]

nanoGPT (github.com/karpathy/nanoGPT) is fetched by you; its model.py and its AdamW are used as they are, in eager
float32. Ours is the trainer's own step: batches, forward, backward, clipping, optimizer. The two take turns in one
process; the median of the rounds counts.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import print_table, write_result

from gristmill.corpus.shards import TokenStore
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.count import parameter_counts, training_flops_per_token
from gristmill.train.hardware import matmul_peak
from gristmill.train.loader import Loader
from gristmill.train.optimizer import Optimizer
from gristmill.train.optimizers.adamw import AdamW
from gristmill.train.optimizers.muon import Muon
from gristmill.train.schedule import Plan
from gristmill.train.settings import PretrainSettings
from gristmill.train.trainer import Trainer
from gristmill.vocabulary import Vocabulary

# name, layers, width, heads, row tokens, rows, vocabulary
SIZES = [
    ("1M", 4, 128, 4, 256, 16, 65),
    ("10M", 6, 384, 6, 256, 16, 65),
    ("30M", 8, 512, 8, 512, 16, 8192),
]


def nanogpt_step(layers, width, heads, T, B, V):
    """Returns a function that does one step of nanoGPT, and its parameter count."""
    from model import GPT, GPTConfig

    model = GPT(
        GPTConfig(
            block_size=T, vocab_size=V, n_layer=layers, n_head=heads, n_embd=width, dropout=0.0, bias=False
        )
    )
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    tokens = torch.randint(V, (B, T + 1))

    def step():
        _, loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, sum(p.numel() for p in model.parameters())


def our_step(layers, width, heads, T, B, V, *, optimizer, precision, folder):
    """Returns a function that does one step of our trainer, and the model's config."""
    config = resolve(ModelSettings(depth=layers, width=width, heads=heads), vocab_size=V, row_tokens=T)
    rng = np.random.default_rng(0)
    tokens = rng.integers(V, size=64 * B * T).astype(np.uint16)
    (folder / "ids.txt").write_text("random\n")
    store = TokenStore(
        tokens, np.array([0, len(tokens)]), np.array([len(tokens)], dtype=np.int32), folder / "ids.txt"
    )
    settings = PretrainSettings(
        budget="100000 steps",
        row_tokens=T,
        batch_tokens=B * T,
        precision=precision,
        optimizer=optimizer,
        device="cpu",
    )
    trainer = Trainer(
        directory=folder,
        model_config=config,
        settings=settings,
        train=store,
        valid=store,
        vocabulary=Vocabulary(pieces=[b"x"] * V, special={}),
        seed=0,
    )
    trainer.decisions = {
        "precision": precision,
        "peak_flops": {"float32": 1.0, "bfloat16": 1.0},
        "seconds_per_step": 1.0,
        "plans": [],
    }
    trainer.model = trainer._new_model(getattr(torch, precision))
    trainer.optimizer = Optimizer.of(trainer.model, optimizer)
    trainer.loader = Loader(
        store, trainer.objective, row_tokens=T, rows=trainer.rows, micro_rows=trainer.micro_rows, seed=0
    )
    from gristmill.train.loader import Cursor

    trainer.step, trainer.tokens, trainer.cursor, trainer.average = 0, 0, Cursor(0, 0), None
    trainer.plan = Plan.trapezoid(100000, warmup=0.1, cooldown=0.5, final=0)

    def step():
        from gristmill.train.trainer import clip

        batch = trainer.loader.step(trainer.cursor, trainer.step, 1000)
        gradients, *_ = trainer._gradients(trainer.model, batch)
        clip(gradients, settings.gradient_clip)
        trainer.optimizer.step(gradients, trainer.plan.scale(trainer.step))
        trainer.step, trainer.cursor = trainer.step + 1, batch.after

    return step, config, trainer


def timed(step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="1M,10M,30M")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.nanogpt))
    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
    results = []
    for name, layers, width, heads, T, B, V in SIZES:
        if name not in arguments.sizes.split(","):
            continue
        shape = (layers, width, heads, T, B, V)
        with tempfile.TemporaryDirectory() as folder:
            theirs, their_parameters = nanogpt_step(*shape)
            ours = {}
            for label, optimizer, precision in (
                ("AdamW, bfloat16", AdamW(), "bfloat16"),
                ("Muon, bfloat16", Muon(), "bfloat16"),
                *([("AdamW, float32", AdamW(), "float32")] if name == "1M" else []),
            ):
                inner = Path(folder) / label.replace(", ", "-")
                inner.mkdir()
                ours[label] = our_step(*shape, optimizer=optimizer, precision=precision, folder=inner)
            times: dict[str, list[float]] = {"nanoGPT": [], **{label: [] for label in ours}}
            peaks = []
            for round_ in range(arguments.rounds + 1):
                peaks.append(matmul_peak(torch.device("cpu"), 0.2))
                for label, step in (
                    ("nanoGPT", theirs),
                    *((label, entry[0]) for label, entry in ours.items()),
                ):
                    spent = timed(step)
                    if round_:  # the first one warms up
                        times[label].append(spent)
            for _, _, trainer in ours.values():
                trainer.loader.__exit__()
        config = next(iter(ours.values()))[1]
        flops = training_flops_per_token(config, T)
        peak = {"float32": max(p.float32 for p in peaks), "bfloat16": max(p.bfloat16 for p in peaks)}
        base = statistics.median(times["nanoGPT"])
        for label, seconds in times.items():
            median = statistics.median(seconds)
            precision = "float32" if "float32" in label or label == "nanoGPT" else "bfloat16"
            results.append(
                {
                    "size": name,
                    "system": label if label == "nanoGPT" else f"gristmill, {label}",
                    "parameters": their_parameters
                    if label == "nanoGPT"
                    else parameter_counts(config)["total"],
                    "rows": B,
                    "row_tokens": T,
                    "step_seconds": round(median, 4),
                    "best_seconds": round(min(seconds), 4),
                    "tokens_per_second": round(B * T / median),
                    "times_nanogpt": round(base / median, 2),
                    "share_of_peak": round(B * T / median * flops / peak[precision], 3),
                    "peak_gflops": round(peak[precision] / 1e9),
                }
            )
            print(results[-1], flush=True)
    write_result("throughput", results, rounds=arguments.rounds)
    print_table(list(results[0]), [list(row.values()) for row in results])


if __name__ == "__main__":
    main()
