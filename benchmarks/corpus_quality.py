"""Learned quality on real text: what a classifier makes of 50 to 400 labelled documents, what the perplexity of a small
model tells, which languages are recognised, and how fast.

    python benchmarks/corpus_quality.py --data PATH/TO/shared/data [--only classifier perplexity language speed]

py3langid and lingua are measured where they can be imported.
"""

import argparse
import io
import json
import random
import time
from pathlib import Path

import numpy as np
import pyarrow
from common import print_table, write_result

from gristmill.corpus.features import features, packed
from gristmill.corpus.language import languages_of, script_of
from gristmill.corpus.perplexity import train_on
from gristmill.corpus.quality_training import Example, area_interval, area_under_curve, fit

SIZES = (50, 100, 200, 400)
REPEATS = 3
HELD_OUT = 100


def texts(data: Path, name: str, key: str = "text", most: int | None = None) -> list[str]:
    codec = "gzip" if name.endswith(".gz") else "zstd"
    found: list[str] = []
    with pyarrow.input_stream(str(data / name), compression=codec) as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            if len(found) == most:
                break
            if json.loads(line)[key].strip():
                found.append(json.loads(line)[key])
    return found


def cut(long: list[str], short: list[str], generator: random.Random) -> list[str]:
    """Returns an excerpt of each text, as long as one of the others."""
    found = []
    for text in long:
        size = len(generator.choice(short))
        start = generator.randrange(max(1, len(text) - size))
        found.append(text[start : start + size])
    return found


def tasks(data: Path) -> dict[str, tuple[list[str], list[str]]]:
    generator = random.Random(0)
    web = texts(data, "pretrain_en_web/c4_demo.jsonl.gz")
    wiki = texts(data, "pretrain_en_wikipedia/train.jsonl.zst", most=300)
    reviews = texts(data, "zh_reviews_shopping/train.jsonl.gz", most=3000)[::10]
    laws = texts(data, "pretrain_zh_laws/train.jsonl.zst", most=600)[::2]
    passages = list(dict.fromkeys(texts(data, "zh_qa_cmrc2018/train.jsonl.gz", "context")))[:300]
    return {
        "Wikipedia, web (C4)": (wiki, web),
        "Wikipedia, web (C4), of equal lengths": (cut(wiki, web, generator), web),
        "laws, shopping reviews (Chinese), of equal lengths": (cut(laws, reviews, generator), reviews),
        "encyclopaedia, shopping reviews (Chinese), of equal lengths": (
            cut(passages, reviews, generator),
            reviews,
        ),
    }


def classifier(data: Path) -> list[dict]:
    rows = []
    for name, (good, bad) in tasks(data).items():
        for size in SIZES:
            areas, inside, seconds, warnings = [], 0, [], []
            for repeat in range(REPEATS):
                generator = random.Random(repeat)
                sides = [generator.sample(side, len(side)) for side in (good, bad)]
                training = [
                    Example(t, k == 0) for k, side in enumerate(sides) for t in side[HELD_OUT:][: size // 2]
                ]
                began = time.process_time()
                made, report = fit(training)
                seconds.append(time.process_time() - began)
                scores = made.scores([text for side in sides for text in side[:HELD_OUT]])
                areas.append(area_under_curve(scores, np.arange(2 * HELD_OUT) < HELD_OUT))
                low, high = report["area_under_curve"]["interval"]
                inside += low <= areas[-1] <= high
                warnings = report["warnings"]
            rows.append({
                "task": name, "labelled": size, "area": round(float(np.mean(areas)), 4),
                "least": round(min(areas), 4), "inside_interval": f"{inside}/{REPEATS}",
                "training_cpu_seconds": round(float(np.median(seconds)), 2), "length_alone": report["checks"]["length_alone"],
                "one_unit_alone": report["checks"]["one_unit_alone"],
                "telling": {kind: [e["text"] for e in report["telling"][kind][:8]] for kind in ("good", "bad")},
                "warnings": warnings,
            })  # fmt: skip
            print(rows[-1]["task"], size, rows[-1]["area"], rows[-1]["training_cpu_seconds"], flush=True)
    print_table(
        ["task", "labelled", "area under the curve", "CPU seconds"],
        [[r["task"], r["labelled"], r["area"], r["training_cpu_seconds"]] for r in rows],
    )
    return rows


def spoiled(text: str, kind: str, generator: random.Random) -> str:
    if kind == "words in disorder":
        words = text.split() if text.isascii() or " " in text[:200] else list(text)
        generator.shuffle(words)
        return (" " if " " in text[:200] else "").join(words)
    if kind == "one character in twenty wrong":
        letters = sorted(set(text))
        return "".join(generator.choice(letters) if generator.random() < 0.05 else c for c in text)
    return text


def perplexity(data: Path) -> list[dict]:
    rows = []
    wiki = texts(data, "pretrain_en_wikipedia/train.jsonl.zst", most=300)
    laws = texts(data, "pretrain_zh_laws/train.jsonl.zst", most=500)
    english = texts(data, "pretrain_en_wikipedia/valid.jsonl.zst", most=100)
    web = texts(data, "pretrain_en_web/c4_demo.jsonl.gz", most=100)
    generator = random.Random(0)
    for name, training, good in (("Wikipedia", wiki, english), ("laws", laws[100:], laws[:100])):
        began = time.process_time()
        model = train_on(training)
        seconds = time.process_time() - began
        good = [text[:1000] for text in good]
        likes = model.millibits(good)
        others = {
            kind: [spoiled(t, kind, generator) for t in good]
            for kind in ("words in disorder", "one character in twenty wrong")
        }
        if name == "Wikipedia":
            others["web (C4)"] = [text[:1000] for text in web]
        for kind, bad in others.items():
            values = np.concatenate([-likes, -model.millibits(bad)])
            area = area_under_curve(values, np.arange(len(values)) < len(good))
            rows.append({
                "seed": name, "training_bytes": sum(len(t.encode()) for t in training), "training_cpu_seconds": round(seconds, 1),
                "against": kind, "median_millibits": [int(np.median(likes)), int(np.median(model.millibits(bad)))],
                "area": round(area, 4), "interval": [round(v, 3) for v in area_interval(area, len(good), len(bad))],
            })  # fmt: skip
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    return rows


def language(data: Path) -> list[dict]:
    german = texts(data, "en_de_multi30k/valid.jsonl.gz", "de")
    sets = [
        ("Wikipedia", "en", texts(data, "pretrain_en_wikipedia/valid.jsonl.zst")),
        ("web (C4)", "en", texts(data, "pretrain_en_web/c4_demo.jsonl.gz")),
        ("books", "en", texts(data, "pretrain_en_books/valid.jsonl.zst")),
        ("sentences of 6 words", "en", texts(data, "en_zh_tatoeba/train.jsonl.gz", "en", 2000)),
        ("captions of 12 words", "en", texts(data, "en_de_multi30k/valid.jsonl.gz", "en")),
        ("film reviews, a sentence", "en", texts(data, "en_sentiment_mr/valid.jsonl.gz")),
        ("sentences of 8 characters", "zh", texts(data, "en_zh_tatoeba/train.jsonl.gz", "zh", 2000)),
        ("Wikipedia", "zh", texts(data, "pretrain_zh_wiki/train.jsonl.zst")),
        ("laws", "zh", texts(data, "pretrain_zh_laws/train.jsonl.zst", most=300)),
        ("novels", "zh", texts(data, "pretrain_zh_novels/train.jsonl.zst", most=300)),
        ("poetry", "zh", texts(data, "pretrain_zh_poetry/train.jsonl.zst", most=2000)),
        ("shopping reviews", "zh", texts(data, "zh_reviews_shopping/test.jsonl.gz")),
        ("German captions of 11 words", "other", german),
        ("five German captions", "other", [" ".join(german[i : i + 5]) for i in range(0, 1000, 5)]),
    ]
    others = _others()
    rows = []
    for name, right, sample in sets:
        figures = features(sample)
        found = languages_of(figures)
        scripts = script_of(figures)
        row = {
            "texts": name,
            "language": right,
            "count": len(sample),
            "gristmill": round(found.count(right) / len(found), 4),
        }
        for other, label in others.items():
            few = [text[:2000] for text in sample[:300]]
            row[other] = round(sum(label(text) == right for text in few) / len(few), 4)
        row["scripts"] = (
            {s: scripts.count(s) for s in ("simplified", "traditional", "both", "han")}
            if right == "zh"
            else None
        )
        rows.append(row)
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    return rows


def _others() -> dict:
    found = {}

    def short(code: str) -> str:
        return code if code in ("en", "zh") else "other"

    try:
        import py3langid

        found["py3langid"] = lambda text: short(py3langid.classify(text)[0])
    except ImportError:
        pass
    try:
        import lingua

        detector = lingua.LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()
        found["lingua, low accuracy"] = lambda text: short(
            detected.iso_code_639_1.name.lower() if (detected := detector.detect_language_of(text)) else ""
        )
    except ImportError:
        pass
    return found


def speed(data: Path) -> list[dict]:
    pool = texts(data, "pretrain_en_web/c4_demo.jsonl.gz") + texts(
        data, "pretrain_zh_novels/train.jsonl.zst", most=50
    )
    joined = " ".join(pool)
    documents = [joined[i : i + 1000] for i in range(0, len(joined) - 1000, 1000)]
    buffer, offsets = packed(documents)
    good, bad = tasks(data)["Wikipedia, web (C4)"]
    made, _ = fit([Example(t, True) for t in good[:50]] + [Example(t, False) for t in bad[:50]])
    model = train_on(texts(data, "pretrain_en_wikipedia/train.jsonl.zst", most=200))
    figures = features(documents)
    rows = []
    for name, work in (
        ("quality", lambda: made.scores_of_buffer(buffer, offsets)),
        ("perplexity", lambda: model.millibits_of_buffer(buffer, offsets)),
        ("language, of features", lambda: (languages_of(figures), script_of(figures))),
    ):
        work()
        times = []
        for _ in range(5):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
        seconds = float(np.median(times))
        rows.append({
            "what": name, "documents": len(documents), "bytes_each": round(int(offsets[-1]) / len(documents)),
            "documents_per_cpu_second": round(len(documents) / seconds), "megabytes_per_cpu_second": round(int(offsets[-1]) / seconds / 1e6, 1),
        })  # fmt: skip
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parts = {"classifier": classifier, "perplexity": perplexity, "language": language, "speed": speed}
    parser.add_argument("--only", nargs="*", choices=list(parts), default=list(parts))
    options = parser.parse_args()
    results = {name: parts[name](options.data) for name in options.only}
    if len(results) == len(parts):
        print(write_result("corpus_quality", results, sizes=SIZES, repeats=REPEATS, held_out=2 * HELD_OUT))


if __name__ == "__main__":
    main()
