"""How much text is the best choice of epochs and noise worth, on a slice of books and of novels?

    python benchmarks/multiplier.py --data PATH/TO/data --folder WORK

For each text twice, five seeds: "default" compares with the recipe as it comes (4 epochs of the slice, and of each larger
amount of text 4 epochs too), so a step may take more steps; "equal tokens" gives every run what 16 epochs of the slice
take. Steps are chosen by two seeds that are not among the five. A multiplier of 1.5 says: what this recipe reaches on the
slice, the plain one reaches on 1.5 times the text (gristmill/compare/multiplier.py).

Writes benchmarks/results/multiplier.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import print_table, write_result

TEXTS = {"en": "pretrain_en_books", "zh": "pretrain_zh_novels"}
SLICE_BYTES = 1_500_000
CHOOSING, SEEDS = 100, 5
"""The first seed of those that choose, and how many measure."""
CURVES = {"default": (0.5, 1.0, 2.0, 4.0), "equal tokens": (0.5, 1.0, 1.5, 2.0, 3.0)}
NOISES: dict[str, dict[str, Any]] = {
    "": {},
    "replace 5 %": {"noise": {"replace": 0.05}},
    "replace 15 %": {"noise": {"replace": 0.15}},
    "mask 15 %": {"noise": {"mask": 0.15}},
    "dropout 10 %": {"dropout": 0.1},
    "replace 10 %, dropout 10 %": {"noise": {"replace": 0.1}, "dropout": 0.1},
}


def steps_of(kind: str) -> dict[str, Any]:
    """What is tried."""
    if kind == "equal tokens":
        return {name: {"pretrain": changes} for name, changes in NOISES.items() if name}
    return {
        ", ".join(filter(None, (f"{epochs} epochs", name))): {
            "pretrain": {"budget": f"{epochs} epochs", **changes}
        }
        for epochs in (8, 16, 32)
        for name, changes in NOISES.items()
        if (epochs == 16 or not name or "dropout" in name)
    }


def table_of(text: str, kind: str, documents: Path, tokens: int) -> dict[str, Any]:
    """The recipe of a trial."""
    times = CURVES[kind]
    return {
        "name": f"multiplier-{text}",
        "corpus": {"sources": [str(documents)], "valid_fraction": 0.06},
        "tokenizer": {"vocab_size": 4096},
        "model": {"depth": 3, "width": 160},
        "pretrain": {
            "budget": "4 epochs" if kind == "default" else f"{tokens} tokens", "row_tokens": 128, "batch_tokens": 2048,
            "validations": 8, "precision": "bfloat16",
        },
        "trial": {"text": 1 / max(times), "curve": list(times), "equal": "nothing" if kind == "default" else "tokens"},
    }  # fmt: skip


def documents_of(text: str, data: Path, folder: Path) -> Path:
    """Pieces of the text of some 8 kB each, four slices of them: whole books are too long to divide."""
    import pyarrow

    target = folder / f"{text}.jsonl"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    pieces, size = [], 0
    with pyarrow.input_stream(str(data / TEXTS[text] / "train.jsonl.zst"), compression="zstd") as stream:
        for line in stream.read().split(b"\n"):
            if not line or size > 4.6 * SLICE_BYTES:
                continue
            paragraphs, piece = json.loads(line)["text"].split("\n"), ""
            # some pages of each book: an author is no slice
            for paragraph in paragraphs[: max(1, len(paragraphs) // 8)]:
                piece += paragraph + "\n"
                if len(piece.encode()) > 8000:
                    pieces.append(piece)
                    size += len(piece.encode())
                    piece = ""
    target.write_text(
        "".join(json.dumps({"text": p}, ensure_ascii=False) + "\n" for p in pieces), encoding="utf-8"
    )
    return target


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
        documents = documents_of(text, arguments.data, arguments.folder)
        tokens = round(16 * SLICE_BYTES / (3.4 if text == "en" else 3.0))
        for kind in CURVES:
            table = table_of(text, kind, documents, tokens)
            home = arguments.folder / f"{text}-{kind.replace(' ', '-')}"
            first = dict(table, seed=CHOOSING)
            first["trial"] = table["trial"] | {
                "steps": steps_of(kind),
                "seeds": 2,
                "curve": [1.0, max(CURVES[kind])],
            }
            chosen_by = json.loads((trial(first, home / "choosing", Quiet()).path / "trial.json").read_text())
            best = min(chosen_by["steps"], key=lambda step: step["loss"]["mean"])["name"]
            table["trial"] |= {"steps": {best: steps_of(kind)[best]}, "seeds": SEEDS}
            facts = json.loads((trial(table, home / "measuring", Quiet()).path / "trial.json").read_text())
            rows.append({"text": text, "kind": kind, "chosen": best, "choosing": chosen_by["steps"], **facts})
            print(text, kind, best, facts["steps"][0]["multiplier"], flush=True)
    path = write_result("multiplier", rows)
    print_table(
        ["text", "compared with", "chosen", "worth text times"],
        [[r["text"], r["kind"], r["chosen"], f"{r['steps'][0]['multiplier']['mean']:.2f}"] for r in rows],
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
