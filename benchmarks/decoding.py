"""Decoding one sequence: tokens per second of gristmill and of transformers' `generate`, same weights, same CPU.

    python benchmarks/decoding.py                 # writes benchmarks/results/decoding.json
    python benchmarks/decoding.py --rounds 3 --new-tokens 128 --threads 1

The two take turns in one process, float32 against float32, greedy, one sequence, with a cache; the best and the
median round are shown. Random weights: decoding costs the same whatever they are. Beside it the ceiling: how fast
this machine reads the weights once per token and does nothing else. bfloat16 is a line of its own.
"""

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers

from gristmill.generate.decoding import decode_one_token, prefill, prepare
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.model.transformer import Transformer

PROMPT_TOKENS = 16
SIZES = {
    "10M": ModelSettings(family="qwen3", depth=6, width=384, tied=True),
    "30M": ModelSettings(family="qwen3", depth=8, width=512, tied=True),
}
VOCAB = {"10M": 2048, "30M": 8192}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "decoding.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    rows = [measure(size, options) for size in options.sizes]
    result = {
        "machine": machine(),
        "new_tokens": options.new_tokens,
        "prompt_tokens": PROMPT_TOKENS,
        "sizes": rows,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'size':>6} {'parameters':>11} {'who':>26} {'tokens/s (median)':>18} {'best':>8} {'times':>6}")
    for row in rows:
        base = row["tokens_per_second"]["transformers"]["median"]
        for who, speed in row["tokens_per_second"].items():
            print(
                f"{row['size']:>6} {row['parameters']:>11,} {who:>26} {speed['median']:>18.1f} {speed['best']:>8.1f} "
                f"{speed['median'] / base:>6.2f}"
            )


def measure(size: str, options: argparse.Namespace) -> dict[str, object]:
    config = resolve(SIZES[size], vocab_size=VOCAB[size], row_tokens=1024)
    model = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    model.initialise(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        to_transformers(model, Path(folder), {})
        stock = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = torch.randint(config.vocab_size, (1, PROMPT_TOKENS), generator=generator)
    half = Transformer(config).eval()
    half.load_state_dict(model.state_dict())
    half.bfloat16()
    weights = [p.detach() for p in model.parameters() if p.dim() == 2]

    def theirs() -> list[int]:
        new = stock.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=options.new_tokens,
            min_new_tokens=options.new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return new[0, PROMPT_TOKENS:].tolist()

    def ours(which: Transformer) -> list[int]:
        decoder = prepare(which)
        logits, state = prefill(decoder, prompt.tolist(), room_tokens=options.new_tokens)
        new = []
        for _ in range(options.new_tokens - 1):
            token = logits.argmax(-1)
            new.append(int(token))
            logits, state = decode_one_token(decoder, state, token)
        return [*new, int(logits.argmax(-1))]

    @torch.inference_mode()
    def ceiling() -> list[int]:
        xs = {w.shape[1]: torch.ones(1, w.shape[1]) for w in weights}
        for _ in range(options.new_tokens // 4):
            for w in weights:
                torch.mm(xs[w.shape[1]], w.t())
        return []

    agree = theirs() == ours(model)
    whos = {
        "transformers": theirs,
        "gristmill": lambda: ours(model),
        "gristmill, bfloat16": lambda: ours(half),
        "reading the weights only": ceiling,
    }
    seconds: dict[str, list[float]] = {who: [] for who in whos}
    for _ in range(options.rounds):
        for who, function in whos.items():
            started = time.perf_counter()
            function()
            seconds[who].append((time.perf_counter() - started) * (4 if function is ceiling else 1))
    speeds = {
        who: {
            "median": round(options.new_tokens / statistics.median(spent), 1),
            "best": round(options.new_tokens / min(spent), 1),
        }
        for who, spent in seconds.items()
    }
    return {
        "size": size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "same_tokens": agree,
        "tokens_per_second": speeds,
        "peak_resident_bytes_of_the_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def machine() -> dict[str, object]:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        name = next(
            (line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line),
            name,
        )
    return {
        "cpu": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
