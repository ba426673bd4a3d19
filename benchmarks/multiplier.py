"""How much text is the best choice of epochs, noise and mix worth, on a slice of books and of novels?

    python benchmarks/multiplier.py --data PATH/TO/data --folder WORK

The choice is automatic: every step below is tried once with a seed that is not among the five, and the one with the lowest
loss is measured beside the recipe as it comes: 4 epochs of the slice, and of each other amount of text 4 epochs too. So
a step may take more steps than what it is compared with; what more epochs alone are worth is among what is tried.
A multiplier of 1.5 says: what this recipe reaches on the slice, the plain one reaches on 1.5 times the text
(gristmill/compare/multiplier.py). Half "from elsewhere" is a mix with other text of the language, as many bytes or four
times as many, which is none of what the multiplier counts: who has a little text of their own can mix in what is free.

Writes benchmarks/results/multiplier.json.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import print_table, write_result

TEXTS = {"en": "pretrain_en_books", "zh": "pretrain_zh_novels"}
ELSEWHERE = {"en": ("pretrain_en_wikipedia",), "zh": ("pretrain_zh_wiki", "pretrain_zh_poetry")}
"""What is mixed in; of a set that is too short, all, and then the next."""
SLICE_BYTES = 250_000
PIECE_BYTES = 4000
CHOOSING, SEEDS = 100, 5
"""The seed of those that choose, and how many measure."""
AMOUNTS = (0.5, 1.0, 2.0, 4.0)
BUDGET = "4 epochs"
NOISES: dict[str, dict[str, Any]] = {
    "replace 15 %": {"noise": {"replace": 0.15}},
    "mask 15 %": {"noise": {"mask": 0.15}},
    "dropout 10 %": {"dropout": 0.1},
    "replace 10 %, dropout 10 %": {"noise": {"replace": 0.1}, "dropout": 0.1},
}
STRONGEST = "replace 10 %, dropout 10 %"
MIXES = {"half from elsewhere": 1, "half from four times as much elsewhere": 4}
"""How many times the slice's bytes there are of the other text."""


def steps_of(text: str, data: Path, folder: Path) -> dict[str, Any]:
    """What is tried: the epochs are of the slice."""
    steps = {}
    for epochs, noises in ((8, ("", STRONGEST)), (16, ("", *NOISES)), (32, (STRONGEST,))):
        for name in noises:
            steps[_named(f"{epochs} epochs", name)] = {
                "pretrain": {"budget": f"{epochs} epochs", **NOISES.get(name, {})}
            }
    own = documents_of((TEXTS[text],), data, folder)
    for mix, times in MIXES.items():
        other = documents_of(ELSEWHERE[text], data, folder, times)
        for epochs, name in ((8, ""), (8, STRONGEST), (16, STRONGEST)):
            steps[_named(f"{epochs} epochs", mix, name)] = {
                "corpus": {"sources": {"slice": [str(own)], "elsewhere": [str(other)]}},
                "pretrain": {
                    "mix": {"weights": {"slice": 0.5, "elsewhere": 0.5}},
                    "budget": f"{2 * epochs / (1 + times):g} epochs",  # of both: half of it is the slice's
                    **NOISES.get(name, {}),
                },
            }
    return steps


def _named(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def table_of(text: str, documents: Path) -> dict[str, Any]:
    """The recipe of a trial."""
    return {
        "name": f"multiplier-{text}",
        "corpus": {"sources": {"slice": [str(documents)]}, "valid_fraction": 0.1},
        "tokenizer": {"vocab_size": 2048},
        "model": {"depth": 2, "width": 96},
        "pretrain": {
            "budget": BUDGET, "row_tokens": 128, "batch_tokens": 1024, "validations": 1, "precision": "bfloat16",
        },
    }  # fmt: skip


def documents_of(names: Sequence[str], data: Path, folder: Path, times: int = 1) -> Path:
    """Pieces of some 4 kB of one text after the other, of four slices, or that times as much."""
    import pyarrow

    is_own = names[0] in TEXTS.values()
    target = folder / f"{names[0]}{'' if times == 1 else f'-{times}'}.jsonl"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    pieces, size, piece = [], 0, ""
    for name in names:
        with pyarrow.input_stream(str(data / name / "train.jsonl.zst"), compression="zstd") as stream:
            lines = stream.read().split(b"\n")
        for line in filter(None, lines):
            if size > 4.6 * times * SLICE_BYTES:
                break
            paragraphs = json.loads(line)["text"].split("\n")
            if is_own:  # of books some pages each: an author is no slice
                paragraphs, piece = paragraphs[: max(1, len(paragraphs) // 8)], ""
            for paragraph in paragraphs:
                piece += paragraph + "\n"
                if len(piece.encode()) > PIECE_BYTES:
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
        documents = documents_of((TEXTS[text],), arguments.data, arguments.folder)
        steps = steps_of(text, arguments.data, arguments.folder)
        home = arguments.folder / text
        table = table_of(text, documents)
        first = table | {
            "seed": CHOOSING,
            "trial": {"text": 0.25, "curve": [1.0, 4.0], "equal": "nothing", "steps": steps, "seeds": 1},
        }
        chosen_by = facts_of(trial(first, home / "choosing", Quiet()))["steps"]
        best = min(chosen_by, key=lambda step: step["loss"]["mean"])["name"]
        measured = table | {
            "trial": {
                "text": 0.25, "curve": list(AMOUNTS), "equal": "nothing", "steps": {best: steps[best]}, "seeds": SEEDS,
            }
        }  # fmt: skip
        facts = facts_of(trial(measured, home / "measured", Quiet()))
        rows.append({**facts, "text": TEXTS[text], "chosen": best, "choosing": chosen_by})
        print(text, best, facts["steps"][0]["multiplier"], flush=True)
    path = write_result("multiplier", rows)
    print_table(
        ["text", "chosen", "worth text times"],
        [[r["text"], r["chosen"], f"{r['steps'][0]['multiplier']['mean']:.2f}"] for r in rows],
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
