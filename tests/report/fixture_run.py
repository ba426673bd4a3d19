"""A run made of real artifacts with invented numbers: what the stages write, without the work."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gristmill.artifact import Artifact, draft, open_artifact

ENGLISH = (
    "In the beginning God created the heaven and the earth. And the earth was without form, and void. " * 20
)
CHINESE = "床前明月光，疑是地上霜。举头望明月，低头思故乡。白日依山尽，黄河入海流。" * 20


def make_run(run: Path, *, steps: int = 1200, hostile: bool = False) -> Path:
    """Writes a whole run below `run`; `hostile` puts markup wherever a user's text can come through."""
    bad = '<script>alert("x")</script>&amp;' if hostile else ""
    run.mkdir(parents=True, exist_ok=True)
    corpus = _corpus(run, bad)
    tokenizer = _tokenizer(run, corpus)
    shards = _stage(
        run,
        "shards",
        "shards",
        {"corpus": corpus, "tokenizer": tokenizer},
        SHARDS,
        {"train.tokens.bin": "0" * 999},
    )
    model = _model(run, shards, tokenizer, steps, bad)
    _stage(
        run,
        "evaluation",
        "evaluation",
        {"model": model, "shards": shards},
        _evaluation(bad),
        {"samples.jsonl": _samples(bad)},
    )
    (run / "run.json").write_text(json.dumps(_run(bad)), encoding="utf-8")
    return run


SHARDS = {
    "splits": {
        "train": {"documents": 1187, "tokens": 214_330, "rows": 419, "padding_share": 0.0009},
        "valid": {"documents": 64, "tokens": 11_870, "rows": 24, "padding_share": 0.034},
    },
    "row_tokens": 512,
}


def figures(nats: float, bits: float, reach: float, documents: int, tokens: int) -> dict[str, Any]:
    return {
        "nats_per_token": nats,
        "nats_per_token_interval": [nats - reach, nats + reach],
        "bits_per_byte": bits,
        "bits_per_byte_interval": [bits - reach, bits + reach],
        "documents": documents,
        "tokens": tokens,
        "text_bytes": tokens * 3,
    }


def _corpus(run: Path, bad: str) -> Artifact:
    metrics = {
        "documents": 1251,
        "characters": 512_300,
        "text_bytes": 662_118,
        "read": {"files": 3, "bytes": 690_442, "documents": 1293},
        "splits": {
            "train": {"documents": 1187, "characters": 486_200, "text_bytes": 628_907},
            "valid": {"documents": 64, "characters": 26_100, "text_bytes": 33_211},
        },
        "sources": [
            {
                "path": f"texts/kjv-genesis{bad}.txt",
                "format": "txt",
                "encoding": "utf-8",
                "documents": 50,
                "text_bytes": 410_221,
            },
            {
                "path": "texts/tang300.jsonl",
                "format": "jsonl",
                "encoding": "gb18030",
                "documents": 320,
                "text_bytes": 122_004,
            },
            {
                "path": "texts/song.csv.gz",
                "format": "csv",
                "encoding": "utf-8",
                "documents": 881,
                "text_bytes": 129_893,
            },
        ],
        "languages": {
            "en": {"documents": 50, "text_bytes": 410_221},
            "zh": {"documents": 1199, "text_bytes": 250_100},
            "other": {"documents": 2, "text_bytes": 1_797},
        },
        "dropped": {
            "exact duplicate": {"documents": 38, "text_bytes": 7_310},
            f"empty{bad}": {"documents": 4, "text_bytes": 0},
        },
        "changed": {"mojibake": 3, "nfc": 0, "control": 12},
        "lengths": {"median": 66},
    }
    return _stage(
        run,
        "corpus",
        "corpus",
        {},
        metrics,
        {"documents-00000.parquet": ENGLISH + CHINESE, "dropped.jsonl": "{}\n"},
    )


def _tokenizer(run: Path, corpus: Artifact) -> Artifact:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([ENGLISH, CHINESE], trainer)
    metrics = {
        "vocab_size": 4096,
        "languages": {"en": {"bytes_per_token": 3.61}, "zh": {"bytes_per_token": 2.74}},
    }
    return _stage(
        run, "tokenizer", "tokenizer", {"corpus": corpus}, metrics, {"tokenizer.json": tokenizer.to_str()}
    )


def _model(run: Path, shards: Artifact, tokenizer: Artifact, steps: int, bad: str) -> Artifact:
    generator = np.random.default_rng(0)
    curve = []
    for step in range(1, steps + 1):
        done = step / steps
        smooth = 1.9 + 6.4 * math.exp(-9 * done**0.6) + 0.25 * (1 - done)
        seconds = 0.142 * step + (2.0 if step > steps // 2 else 0.0)
        line: dict[str, Any] = {
            "step": step,
            "tokens": step * 2048,
            "elapsed_seconds": seconds,
            "loss_nats": smooth + generator.normal(0, 0.07),
            "learning_rate": 0.004 * min(1.0, step / (0.05 * steps), (1.0001 - done) / 0.4),
            "tokens_per_second": 14_400 + generator.normal(0, 420) - (3000 if 0.48 < done < 0.52 else 0),
        }
        if step % (steps // 12) == 0 or step == 1:
            line["validation_nats_per_token"] = smooth + 0.06 + max(0.0, done - 0.85) * 0.5
            line["validation_bits_per_byte"] = line["validation_nats_per_token"] / math.log(2) / 3.2
        curve.append(json.dumps(line))
    metrics = {
        "parameters": {"total": 3_412_224, "embedding": 1_048_576, "non_embedding": 2_363_648},
        "flops_per_token": 21_300_000,
        "memory_peak_bytes": 812_000_000,
        "steps": steps,
        "tokens": steps * 2048,
        "epochs": steps * 2048 / 214_330,
        "elapsed_seconds": 172.4,
        "tokens_per_second": 14_256.0,
        "utilisation": 0.465,
        "peak_flops": {"float32": 189e9, "bfloat16": 653e9},
        "precision": {
            "compute": "bfloat16",
            "reason": "this processor multiplies bfloat16 3.5 times faster (AMX)",
        },
        "validation": figures(2.16, 1.412, 0.031, 64, 11_870),
        "best": {"step": steps - steps // 12, "nats_per_token": 2.143},
        "resumed": 1,
    }
    config = {
        "model": {
            "family": "qwen3",
            "layers": 4,
            "width": 256,
            "heads": 4,
            "tied": True,
            "rotary_base": 10000.0,
        },
        "pretrain": {
            "budget": "3 min",
            "optimizer": {"name": "muon", "weight_decay": 0.1},
            "row_tokens": 512,
        },
    }
    files = {
        "curve.jsonl": "\n".join(curve) + "\n",
        "model.safetensors": "weights",
    }
    return _stage(
        run, "model", "checkpoint", {"shards": shards, "tokenizer": tokenizer}, metrics, files, config
    )


def _samples(bad: str) -> str:
    samples = [
        {
            "prompt": f"In the beginning{bad}",
            "continuation": f" of the reign of the king, the people went out from the city, and they said unto him,\nBehold, we are thy servants{bad}.",
            "settings": {"temperature": 0.8, "top_p": 0.95, "seed": 1, "maximum_tokens": 64},
        },
        {
            "prompt": "明月",
            "continuation": "何时照我还，江南春水绿如蓝。\n故人不见青山外，一夜东风到客船。",
            "settings": {"temperature": 0.8, "top_p": 0.95, "seed": 2, "maximum_tokens": 64},
        },
    ]
    return "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples)


def _evaluation(bad: str) -> dict[str, Any]:
    return {
        "overall": figures(2.16, 1.412, 0.031, 64, 11_870),
        "by_language": {
            "en": figures(2.31, 1.342, 0.052, 4, 6_100),
            "zh": figures(2.01, 1.533, 0.044, 60, 5_770),
        },
        "by_source": {
            f"texts/kjv-genesis{bad}.txt": figures(2.31, 1.342, 0.052, 4, 6_100),
            "texts/tang300.jsonl": figures(1.97, 1.498, 0.071, 18, 1_900),
            "texts/song.csv.gz": figures(2.03, 1.551, 0.055, 42, 3_870),
        },
    }


def _run(bad: str) -> dict[str, Any]:
    return {
        "name": f"demo{bad}",
        "recipe": {
            "name": "demo",
            "seed": 0,
            "tokenizer": {"kind": "bpe"},
            "model": {"family": "qwen3", "depth": 4},
        },
        "command": f"gristmill run recipes/demo.toml{bad}",
        "machine": {
            "cpu": "Intel Xeon Platinum 8488C",
            "cores": 2,
            "memory_bytes": 25_282_000_000,
            "gpu": None,
            "features": ["amx_bf16", "avx512_bf16"],
        },
        "versions": {"gristmill": "0.1.0", "python": "3.11.2", "torch": "2.13.0"},
        "started_at": "2026-11-22T04:27:33+00:00",
    }


def _stage(
    run: Path,
    name: str,
    kind: str,
    parents: dict[str, Artifact],
    metrics: dict[str, Any],
    files: dict[str, str],
    config: Any = None,
) -> Artifact:
    with draft(
        run / name, kind=kind, format_version=1, config=config or {"invented": True}, parents=parents
    ) as work:
        for file, text in files.items():
            (work.path / file).write_text(text, encoding="utf-8")
        work.metrics |= metrics
        work.cost |= {
            "elapsed_seconds": {"model": 172.4}.get(name, 1.3),
            "cpu_seconds": {"model": 340.2}.get(name, 1.9),
        }
    return open_artifact(run / name)
