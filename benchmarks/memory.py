"""Resident memory of training and generating, and the time of `gristmill --help`; each in a process of its own.

    python benchmarks/memory.py

Writes benchmarks/results/memory.json.
"""

import os
import statistics
import subprocess
import sys
import time

from common import print_table, write_result

TRAIN = """
import sys, tempfile, pathlib
sys.path.insert(0, "benchmarks")
from throughput import our_step
from gristmill.train.hardware import keep_memory, peak_memory_bytes
from gristmill.train.optimizers.{kind} import EXPORT
keep_memory()
step, config, trainer = our_step(8, 512, 8, 512, 16, 8192, optimizer=EXPORT(), precision="bfloat16", folder=pathlib.Path(tempfile.mkdtemp()))
for _ in range(4):
    step()
trainer.loader.__exit__()
print(peak_memory_bytes(), trainer.micro_rows)
"""
GENERATE = """
import torch
from gristmill.generate.decoding import decode_one_token, prefill, prepare
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.checkpoint import load_model, save_model
from gristmill.model.transformer import Transformer
from gristmill.train.hardware import peak_memory_bytes, resident_bytes
import pathlib, sys, tempfile
folder = pathlib.Path(sys.argv[1])
if not (folder / "model.json").exists():
    model = Transformer(resolve(ModelSettings(depth=8, width=512), vocab_size=8192, row_tokens=512))
    model.initialise(torch.Generator().manual_seed(0))
    save_model(folder, model.config, model.state_dict())
else:
    before = resident_bytes()
    model = load_model(folder)
    decoder = prepare(model)
    with torch.inference_mode():
        logits, state = prefill(decoder, [list(range(16))], room_tokens=256)
        for _ in range(256):
            logits, state = decode_one_token(decoder, state, logits.argmax(-1))
    weights = sum(p.numel() * 4 for p in model.parameters())
    c = model.config
    cache = 2 * c.layers * c.kv_heads * c.head_size * 272 * 4
    print(peak_memory_bytes() - before, weights, cache)
"""


def run(code: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


def main() -> None:
    import tempfile

    rows = []
    for kind in ("muon", "adamw"):
        peak, micro = map(int, run(TRAIN.format(kind=kind)).split())
        rows.append(
            {
                "what": f"training 30M parameters, 16 rows of 512 ({micro} at a time), {kind}: peak resident memory",
                "figure": f"{peak / 1e6:,.0f} MB",
                "goal": "under 2,000 MB",
            }
        )
    with tempfile.TemporaryDirectory() as folder:
        run(GENERATE, folder)
        used, weights, cache = map(int, run(GENERATE, folder).split())
    rows.append(
        {
            "what": f"generating with 30M parameters, float32: memory above the process, times weights plus cache ({(weights + cache) / 1e6:.0f} MB)",
            "figure": f"{used / (weights + cache):.2f}",
            "goal": "under 2.2",
        }
    )
    times = []
    for _ in range(9):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "from gristmill.cli import main; main(['--help'])"],
            check=True,
            capture_output=True,
        )
        times.append(time.perf_counter() - started)
    rows.append(
        {
            "what": "`gristmill --help`, median of 9",
            "figure": f"{statistics.median(times):.2f} s",
            "goal": "under 0.3 s",
        }
    )
    write_result("memory", rows)
    print_table(list(rows[0]), [list(row.values()) for row in rows])


if __name__ == "__main__":
    main()
