"""How much text is the best choice of epochs, noise and mix worth, on a slice of books and of novels?

    python benchmarks/multiplier.py --data PATH/TO/data --folder WORK

The choice is automatic: every step below is tried once with a seed that is not among the five, and the one with the lowest
loss is measured. "default" compares it with the recipe as it comes (4 epochs of the slice, and of each other amount of
text 4 epochs too), so the step may take more steps; "equal tokens" gives every run as many tokens as the step takes.
A multiplier of 1.5 says: what this recipe reaches on the slice, the plain one reaches on 1.5 times the text
(gristmill/compare/multiplier.py). Half "from elsewhere" is a mix: as many bytes of other text of the language, which is
none of what the multiplier counts.

Writes benchmarks/results/multiplier.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import print_table, write_result

TEXTS = {"en": "pretrain_en_books", "zh": "pretrain_zh_novels"}
ELSEWHERE = {"en": "pretrain_en_wikipedia", "zh": "pretrain_zh_wiki"}
SLICE_BYTES = 250_000
CHOOSING, SEEDS = 100, 5
"""The seed of those that choose, and how many measure."""
AMOUNTS = {"default": (0.5, 1.0, 2.0, 4.0), "equal tokens": (1.0, 2.0, 4.0)}
NOISES: dict[str, dict[str, Any]] = {
    "replace 15 %": {"noise": {"replace": 0.15}},
    "mask 15 %": {"noise": {"mask": 0.15}},
    "dropout 10 %": {"dropout": 0.1},
    "replace 10 %, dropout 10 %": {"noise": {"replace": 0.1}, "dropout": 0.1},
}
STRONGEST = "replace 10 %, dropout 10 %"


def steps_of(elsewhere: Path, documents: Path) -> dict[str, Any]:
    """What is tried: the epochs are of the slice."""
    steps = {}
    for epochs in (8, 16, 32):
        for name, changes in {"": {}, **NOISES}.items():
            if epochs == 16 or name in ("", STRONGEST):
                steps[", ".join(filter(None, (f"{epochs} epochs", name)))] = {
                    "pretrain": {"budget": f"{epochs} epochs", **changes}
                }
    mixed = {
        "corpus": {"sources": {"slice": [str(documents)], "elsewhere": [str(elsewhere)]}},
        "pretrain": {"mix": {"weights": {"slice": 0.5, "elsewhere": 0.5}}},
    }
    for name in ("", STRONGEST):
        steps[", ".join(filter(None, ("16 epochs, half from elsewhere", name)))] = {
            "corpus": mixed["corpus"],
            "pretrain": {**mixed["pretrain"], "budget": "8 epochs", **NOISES.get(name, {})},
        }  # 8 epochs of both, of which the slice is half
    return steps


def table_of(text: str, documents: Path, budget: str) -> dict[str, Any]:
    """The recipe of a trial."""
    return {
        "name": f"multiplier-{text}",
        "corpus": {"sources": {"slice": [str(documents)]}, "valid_fraction": 0.1},
        "tokenizer": {"vocab_size": 2048},
        "model": {"depth": 2, "width": 96},
        "pretrain": {
            "budget": budget, "row_tokens": 128, "batch_tokens": 1024, "validations": 1, "precision": "bfloat16",
        },
    }  # fmt: skip


def documents_of(name: str, data: Path, folder: Path) -> Path:
    """Pieces of a text of some 4 kB each, four slices of them: whole books are too long to divide."""
    import pyarrow

    target = folder / f"{name}.jsonl"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    pieces, size = [], 0
    with pyarrow.input_stream(str(data / name / "train.jsonl.zst"), compression="zstd") as stream:
        for line in stream.read().split(b"\n"):
            if not line or size > 4.6 * SLICE_BYTES:
                continue
            paragraphs, piece = json.loads(line)["text"].split("\n"), ""
            # of books some pages each: an author is no slice
            most = max(1, len(paragraphs) // 8) if name in TEXTS.values() else len(paragraphs)
            for paragraph in paragraphs[:most]:
                piece += paragraph + "\n"
                if len(piece.encode()) > 4000:
                    pieces.append(piece)
                    size += len(piece.encode())
                    piece = ""
    target.write_text(
        "".join(json.dumps({"text": p}, ensure_ascii=False) + "\n" for p in pieces), encoding="utf-8"
    )
    return target


def facts_of(made: Any) -> dict[str, Any]:
    """What a trial found."""
    found: dict[str, Any] = json.loads((made.path / "trial.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    from gristmill.compare.trial import trial
    from gristmill.pipeline import Quiet

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--texts", nargs="*", default=list(TEXTS))
    arguments = parser.parse_args()
    rows = []
    for text in arguments.texts:
        documents = documents_of(TEXTS[text], arguments.data, arguments.folder)
        steps = steps_of(documents_of(ELSEWHERE[text], arguments.data, arguments.folder), documents)
        home = arguments.folder / text
        table = table_of(text, documents, "4 epochs")
        first = table | {
            "seed": CHOOSING,
            "trial": {"text": 0.25, "curve": [1.0, 4.0], "equal": "nothing", "steps": steps, "seeds": 1},
        }
        chosen_by = facts_of(trial(first, home / "choosing", Quiet()))["steps"]
        best = min(chosen_by, key=lambda step: step["loss"]["mean"])
        for kind, amounts in AMOUNTS.items():
            budget = "4 epochs" if kind == "default" else f"{best['tokens']} tokens"
            step = steps[best["name"]]
            if kind != "default":
                step = step | {"pretrain": step["pretrain"] | {"budget": budget}}
            table = table_of(text, documents, budget) | {
                "trial": {
                    "text": 0.25, "curve": list(amounts), "equal": "nothing" if kind == "default" else "tokens",
                    "steps": {best["name"]: step}, "seeds": SEEDS,
                }
            }  # fmt: skip
            facts = facts_of(trial(table, home / kind.replace(" ", "_"), Quiet()))
            rows.append({"text": text, "kind": kind, "chosen": best["name"], "choosing": chosen_by, **facts})
            print(text, kind, best["name"], facts["steps"][0]["multiplier"], flush=True)
    path = write_result("multiplier", rows)
    print_table(
        ["text", "compared with", "chosen", "worth text times"],
        [[r["text"], r["kind"], r["chosen"], f"{r['steps'][0]['multiplier']['mean']:.2f}"] for r in rows],
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
