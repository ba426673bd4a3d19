"""Does a plan come true? Loss and time of ten recipes, foretold by `gristmill plan` and then measured.

    python benchmarks/planner.py --data PATH/TO/data --folder WORK fit
    python benchmarks/planner.py --data PATH/TO/data --folder WORK foretell

`fit`: runs of several sizes, lengths and amounts of unique text on an English encyclopedia and Chinese novels, and the exponents that fit
all of them best (gristmill/plan/law.py, EXPONENTS). `foretell`: ten recipes of other texts, sizes and lengths, each
planned at 5 % of its operations and then run; nothing of them enters the exponents.

Runs of `fit` go beside each other; those of `foretell`, whose time counts, one after the other. What is finished is not done
again. Writes benchmarks/results/planner_fit.json and planner.json.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from common import print_table, write_result

SIZES = ((1, 64), (2, 96), (3, 128))
"""Depth and width."""
LENGTHS = (100_000, 400_000, 1_200_000)
FRACTIONS = {"en": (1.0, 0.03, 0.008), "zh": (1.0, 0.03, 0.008)}
"""Of the text: all of it, so that nothing is repeated, and little."""
FITTED = {"en": "pretrain_en_wikipedia/train.jsonl.zst", "zh": "pretrain_zh_novels/train.jsonl.zst"}

RECIPES: dict[str, tuple[tuple[str, ...], int, int, str]] = {
    "books": (("pretrain_en_books",), 3, 160, "2M tokens"),
    "books, wide": (("pretrain_en_books",), 3, 224, "2M tokens"),
    "web": (("pretrain_en_web",), 3, 160, "2M tokens"),
    "speeches": (("pretrain_en_speeches",), 3, 128, "2M tokens"),
    "proposals": (("pretrain_en_peps",), 3, 160, "2M tokens"),
    "Chinese encyclopedia": (("pretrain_zh_wiki",), 3, 160, "2M tokens"),
    "laws": (("pretrain_zh_laws",), 3, 160, "2M tokens"),
    "manuals": (("pretrain_zh_docs",), 4, 160, "2M tokens"),
    "poems": (("pretrain_zh_poetry",), 3, 128, "2M tokens"),
    "both languages": (("pretrain_en_web", "pretrain_zh_wiki"), 4, 160, "2M tokens"),
}
"""Name -> folders of text, depth, width, budget."""


def recipe(name: str, sources: list[str], depth: int, width: int, budget: str) -> dict[str, Any]:
    """The tables of a recipe."""
    return {
        "name": name,
        "corpus": {"sources": sources, "valid_fraction": 0.02, "valid_maximum_bytes": 400_000},
        "tokenizer": {"vocab_size": 2048},
        "model": {"depth": depth, "width": width},
        "pretrain": {
            "budget": budget, "row_tokens": 128, "batch_tokens": 1024, "validations": 4, "precision": "bfloat16",
        },
    }  # fmt: skip


def points_of(text: str, data: Path, folder: Path) -> list[Any]:
    """The grid of one text, measured."""
    from gristmill.compare import compare
    from gristmill.compare.collect import OWN_LOSS
    from gristmill.config import from_dict
    from gristmill.corpus import CorpusConfig, build
    from gristmill.pipeline import Quiet, Recipe, config_of, settle
    from gristmill.plan.law import REGULARISATION, Point
    from gristmill.train.settings import flops_of_token

    source = [str(data / FITTED[text])]
    base = recipe(f"fit-{text}", source, 2, 96, "1M tokens")
    held_out = folder / text / "held_out"
    build(CorpusConfig(sources=tuple(source), valid_fraction=0.02, valid_maximum_bytes=400_000), held_out)
    base["corpus"] |= {"held_out": str(held_out)}
    candidates = {
        f"{depth}x{width}, {length}, {fraction}": {
            "model": {"depth": depth, "width": width},
            "corpus": {"fraction": fraction},
            "pretrain": {"budget": f"{length} tokens", "validations": 1},
        }
        for depth, width in SIZES
        for length in LENGTHS
        for fraction in FRACTIONS[text]
    }
    candidates |= {
        f"{name}, regularised": each | {"pretrain": each["pretrain"] | REGULARISATION}
        for name, each in candidates.items()
        if each["corpus"]["fraction"] < 1 and each["model"]["depth"] > 1 and "100000" not in name
    }
    table = base | {
        "compare": {
            "candidates": candidates, "seeds": 1, "equal": "nothing", "one_tokenizer": True, "held_out_pieces": 1,
        }
    }  # fmt: skip
    made = compare(table, folder / text, Quiet())
    facts = json.loads((made.path / "comparison.json").read_text(encoding="utf-8"))
    points = []
    for row in facts["rows"]:
        settled = settle(
            from_dict(Recipe, {k: v for k, v in facts["settings"][row["name"]].items() if v is not None})
        )
        config = config_of(settled.model, settled.pretrain, 2048)
        points.append(
            Point(
                parameters=flops_of_token(settled.pretrain, config) / 6,
                tokens=row["figures"]["tokens"]["mean"],
                unique=row["figures"]["unique tokens"]["mean"],
                loss=row["figures"][OWN_LOSS]["mean"],
                regularised="regularised" in row["name"],
            )
        )
    return points


def fit(data: Path, folder: Path) -> None:
    """Measures the grids and writes the exponents that fit them best."""
    from gristmill.plan.law import PUBLISHED, fit_exponents, fit_law, fit_overfitting

    texts = {text: points_of(text, data, folder) for text in FITTED}
    plain = {text: [p for p in points if not p.regularised] for text, points in texts.items()}
    pairs = []
    for points in plain.values():
        once = [p for p in points if p.tokens <= p.unique]
        small = [
            p for p in once if p.parameters < max(q.parameters for q in once) and p.tokens < max(LENGTHS) / 2
        ]
        pairs.append((small, [p for p in once if p.tokens > max(LENGTHS) / 2]))
    found, error = fit_exponents(pairs, PUBLISHED)
    laws = {text: fit_law(points, fit_overfitting(points, found)) for text, points in plain.items()}
    rows = [
        {
            **dataclasses.asdict(p),
            "text": text,
            "expected": None if p.regularised else laws[text].loss(p.parameters, p.tokens, p.unique),
        }
        for text, points in texts.items()
        for p in points
    ]
    path = write_result(
        "planner_fit", rows, exponents=dataclasses.asdict(found), relative_error=error,
        overfitting={text: law.exponents.overfitting for text, law in laws.items()},
    )  # fmt: skip
    print(
        found,
        f"small runs foretell large ones with a relative error of {error:.4f}",
        f"written to {path}",
        sep="\n",
    )


def foretell(data: Path, folder: Path) -> None:
    """Plans and runs the ten recipes."""
    from gristmill.config import from_dict
    from gristmill.pipeline import Quiet, Recipe, run
    from gristmill.plan import plan

    rows = []
    for name, (folders, depth, width, budget) in RECIPES.items():
        files = [file for each in folders for file in sorted((data / each).glob("*.jsonl.*"))]
        sources = [str(file) for file in files if "valid" not in file.name]
        table = recipe(name, sources, depth, width, budget)
        home = folder / name.replace(" ", "_").replace(",", "")
        foretold = plan(table, home / "plan", Quiet())
        option = next(each for each in foretold["options"] if each["depth"] == depth)
        started = time.perf_counter()
        run(from_dict(Recipe, table), home / "run", Quiet(), until="model")
        spent = time.perf_counter() - started
        metrics = json.loads((home / "run" / "model" / "manifest.json").read_text(encoding="utf-8"))[
            "metrics"
        ]
        loss, seconds = metrics["validation"]["nats_per_token"], metrics["elapsed_seconds"]
        rows.append(
            {
                "recipe": name, "depth": depth, "width": width, "budget": budget, "epochs": option["epochs"],
                "share_of_flops": foretold["share_of_flops"], "loss": loss, "foretold_loss": option["loss"],
                "loss_error": option["loss"] / loss - 1, "seconds": seconds, "foretold_seconds": option["seconds"],
                "seconds_error": option["seconds"] / seconds - 1, "wall_seconds": spent,
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    path = write_result("planner", rows)
    print_table(
        ["recipe", "epochs", "share", "loss", "foretold", "off", "seconds", "foretold", "off"],
        [
            [
                r["recipe"], f"{r['epochs']:.1f}", f"{r['share_of_flops']:.1%}", f"{r['loss']:.3f}", f"{r['foretold_loss']:.3f}",
                f"{r['loss_error']:+.1%}", f"{r['seconds']:.0f}", f"{r['foretold_seconds']:.0f}", f"{r['seconds_error']:+.1%}",
            ]
            for r in rows
        ],
    )  # fmt: skip
    print(f"written to {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("what", choices=("fit", "foretell"))
    arguments = parser.parse_args()
    {"fit": fit, "foretell": foretell}[arguments.what](arguments.data, arguments.folder)


if __name__ == "__main__":
    main()
