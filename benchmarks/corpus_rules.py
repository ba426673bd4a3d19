"""Rules of quality beside datatrove's filters, what they do to spoiled Chinese, and how well evaluation items are found.

    python benchmarks/corpus_rules.py --data PATH/TO/data [--documents 200]

English: the share of documents about which Gopher's quality and repetition rules, C4's and FineWeb's decide as datatrove's
filters do, each alone and all together, and the documents a CPU-second of both, features included.

Chinese: the same beside datatrove with the thresholds of FineWeb-2's configuration cmn_Hani (jieba's words there, single
characters here); then what the rules drop of good texts, and of texts that were spoiled by a stated procedure, as a whole or
in their second half.

Contamination: items of evaluation sets are put into real documents, as they are, with a change at every hundredth or
twentieth unit, and with other capitals, width and punctuation; the share that is found. Then what is found in the real
documents by themselves, with an excerpt of each to judge by, and the documents a CPU-second.

Writes benchmarks/results/corpus_rules.json, unless --dry. Needs `datatrove`, `spacy` and `jieba`.
"""

import argparse
import gzip
import io
import itertools
import json
import random
import re
import time
from pathlib import Path

import numpy as np
from common import print_table, write_result

ENGLISH = (
    "pretrain_en_web/c4_demo",
    "pretrain_en_web/wiki_demo",
    "pretrain_en_wikipedia/train",
    "pretrain_en_peps/train",
)
CHINESE = (
    "pretrain_zh_wiki",
    "pretrain_zh_docs",
    "pretrain_zh_laws",
    "pretrain_zh_novels",
    "pretrain_zh_poetry",
)
SYMBOLS = "★◆●■▲※→♥♪☆◇○□△←↑↓♀♂≡∞≈+|=~^$<>"
FINEWEB_2 = {
    "repetition": {
        "dup_para_frac": 0, "dup_line_char_frac": 0, "dup_para_char_frac": 0, "dup_line_frac": 0.287,
        "top_n_grams": ((2, 0.256), (3, 0.201), (4, 0.171)),
        "dup_n_grams": ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.14), (10, 0.127)),
    },
    "fineweb": {"short_line_thr": 999, "char_duplicates_ratio": 0.1, "line_punct_thr": 0.106, "new_line_ratio": 0.178},
    "quality": {
        "min_avg_word_length": 1, "max_avg_word_length": 5, "max_non_alpha_words_ratio": 0.735, "min_stop_words": 2,
        "stop_words": list("的年在月是和日了於·為有被人中为他與後也而由"),
    },
}  # fmt: skip
"""huggingface/fineweb-2, configs/cmn_Hani.yml and fineweb-2-pipeline.py."""


def read(data: Path, name: str, count: int) -> list[str]:
    """The first texts of a set."""
    import pyarrow

    path = data / f"{name}.jsonl.zst"
    packed_lines = (
        pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        if path.exists()
        else gzip.GzipFile(data / f"{name}.jsonl.gz")
    )
    with packed_lines, io.TextIOWrapper(packed_lines, encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, count)]


def ours(texts: list[str]) -> tuple[dict[str, np.ndarray], float]:
    """Whether each set of rules keeps each text, and the CPU-seconds of the features and all decisions."""
    from gristmill.corpus.features import FEATURES, features
    from gristmill.corpus.rules import SETS, RuleSettings, judge

    features(["warm"])
    start = time.process_time()
    figures = dict(zip(FEATURES, features(texts).T, strict=True))
    kept = {name: judge(figures, RuleSettings(sets=(name,))).codes == 0 for name in SETS}
    return kept, time.process_time() - start


def theirs(texts: list[str], filters: dict[str, object]) -> tuple[dict[str, np.ndarray], float]:
    """The same of datatrove's filters."""
    from datatrove.data import Document

    for one in filters.values():  # models are loaded
        one.filter(Document(text="A mill. 磨坊。", id="0"))
    start = time.process_time()
    kept = {
        name: np.array([one.filter(Document(text=text, id="0")) is True for text in texts])
        for name, one in filters.items()
    }
    return kept, time.process_time() - start


def english(data: Path, documents: int) -> list[dict[str, object]]:
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = {
        "gopher_quality": GopherQualityFilter(), "gopher_repetition": GopherRepetitionFilter(),
        "c4": C4QualityFilter(), "fineweb": FineWebQualityFilter(),
    }  # fmt: skip
    rows = []
    total: dict[str, list[np.ndarray]] = {}
    for name in ENGLISH:
        texts = read(data, name, documents)
        mine, seconds = ours(texts)
        other, other_seconds = theirs(texts, filters)
        for each in filters:
            total.setdefault(each, []).append(mine[each] == other[each])
        total.setdefault("all", []).append(together(mine) == together(other))
        rows.append({
            "set": name, "documents": len(texts), "megabytes": round(sum(len(t.encode()) for t in texts) / 1e6, 2),
            "equal": {each: share(parts[-1]) for each, parts in total.items()},
            "kept": share(together(mine)), "kept_by_datatrove": share(together(other)),
            "documents_a_cpu_second": round(len(texts) / seconds),
            "documents_a_cpu_second_datatrove": round(len(texts) / other_seconds),
        })  # fmt: skip
    rows.append({
        "set": "all", "documents": sum(row["documents"] for row in rows),
        "equal": {each: share(np.concatenate(parts)) for each, parts in total.items()},
    })  # fmt: skip
    return rows


def chinese(data: Path, documents: int) -> list[dict[str, object]]:
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    filters = {
        "gopher_quality": GopherQualityFilter(language="zho_Hani", **FINEWEB_2["quality"]),
        "gopher_repetition": GopherRepetitionFilter(language="zho_Hani", **FINEWEB_2["repetition"]),
        "fineweb": FineWebQualityFilter(language="zho_Hani", **FINEWEB_2["fineweb"]),
    }
    rows = []
    for name in CHINESE:
        texts = read(data, f"{name}/train", documents)
        mine, seconds = ours(texts)
        other, other_seconds = theirs(texts, filters)
        rows.append({
            "set": name, "documents": len(texts),
            "equal": {each: share(mine[each] == other[each]) for each in filters},
            "kept": {each: share(mine[each]) for each in mine},
            "kept_by_datatrove": {each: share(other[each]) for each in other},
            "documents_a_cpu_second": round(len(texts) / seconds),
            "documents_a_cpu_second_datatrove": round(len(texts) / other_seconds),
        })  # fmt: skip
    return rows


def together(kept: dict[str, np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce(list(kept.values()))


def share(which: np.ndarray) -> float:
    return round(float(which.mean()), 4)


# --- spoiled text ---------------------------------------------------------------------------------------------------


def sentences(text: str) -> list[str]:
    return [piece.strip() for piece in re.split("(?<=[。！？；])", text) if piece.strip()]


def lines_again(text: str, rng: random.Random) -> str:
    """Three of its sentences, thirty lines of them in any order."""
    few = rng.sample(sentences(text), 3)
    return "\n".join(rng.choice(few) for _ in range(30)) + "\n"


def sentences_again(text: str, rng: random.Random) -> str:
    """Its first twenty sentences three times, in one line."""
    return "".join(sentences(text)[:20]) * 3 + "\n"


def menu(text: str, rng: random.Random) -> str:
    """Sixty beginnings of clauses, two to six characters long, a line each."""
    return "\n".join(entries(text, rng)) + "\n"


def menu_bar(text: str, rng: random.Random) -> str:
    """The same in one line, divided by bars."""
    return " | ".join(entries(text, rng)) + "\n"


def entries(text: str, rng: random.Random) -> list[str]:
    runs = re.findall("[\u4e00-\u9fff]{2,}", text)
    return [run[: rng.randint(2, 6)] for run in rng.sample(runs, min(60, len(runs)))]


def symbol_soup(text: str, rng: random.Random) -> str:
    """Every second character or so is a symbol."""
    return "".join(rng.choice(SYMBOLS) if not c.isspace() and rng.random() < 0.5 else c for c in text[:2000])


def keyword_spam(text: str, rng: random.Random) -> str:
    """Ten of its most frequent pairs of characters, three hundred times in any order."""
    runs = re.findall("[\u4e00-\u9fff]+", text)
    counts: dict[str, int] = {}
    for pair in (run[i : i + 2] for run in runs for i in range(len(run) - 1)):
        counts[pair] = counts.get(pair, 0) + 1
    few = sorted(counts, key=lambda pair: (-counts[pair], pair))[:10]
    return "".join(rng.choice(few) + rng.choice("，、 ") for _ in range(300)) + "\n"


SPOILED = (lines_again, sentences_again, menu, menu_bar, symbol_soup, keyword_spam)


def beginning(text: str, size: int) -> str:
    """Whole lines of a text, as many characters or a few more."""
    end = text.find("\n", size)
    return text if end < 0 else text[: end + 1]


def spoiled(data: Path, documents: int) -> list[dict[str, object]]:
    """What is dropped of laws and novels that were spoiled, wholly and in their second half."""
    rows = []
    for name in ("pretrain_zh_laws", "pretrain_zh_novels"):
        texts = [text for text in read(data, f"{name}/train", 2 * documents) if len(sentences(text)) >= 20][
            :documents
        ]
        for spoil in SPOILED:
            rng = random.Random(1)
            whole = [spoil(text, rng) for text in texts]
            half = [beginning(text, len(bad)) + bad for text, bad in zip(texts, whole, strict=True)]
            for part, changed in (("whole", whole), ("half", half)):
                kept, _ = ours(changed)
                dropped = {each: share(~which) for each, which in kept.items()} | {
                    "all": share(~together(kept))
                }
                rows.append(
                    {
                        "set": name,
                        "spoiled": spoil.__name__,
                        "part": part,
                        "texts": len(changed),
                        "dropped": dropped,
                    }
                )
    return rows


# --- contamination --------------------------------------------------------------------------------------------------

EVALUATION = {
    "eval_en_arc_easy": ("test", "query"), "eval_en_gsm8k": ("test", "context"), "eval_en_lambada": ("test", "context"),
    "eval_en_piqa": ("test", "query"), "eval_en_boolq": ("test", "query"), "eval_en_blimp": ("test", "good"),
    "eval_en_winogender": ("test", "query"), "eval_en_winograd": ("test", "context_options"),
    "eval_en_copa": ("test", "query"), "eval_zh_xcopa": ("test", "premise"), "eval_zh_zhoblimp": ("test", "good"),
    "zh_qa_cmrc2018": ("valid", "question"), "zh_qa_cmrc2018 passages": ("valid", "context"),
}  # fmt: skip
CLEAN = (*ENGLISH, "pretrain_en_books/train", *(f"{name}/train" for name in CHINESE))
OTHER_SIGNS = str.maketrans({
    ",": "，", ".": "。", "?": "？", "!": "！", ":": "：", ";": "；", "(": "（", ")": "）", "'": "’", '"': "”", " ": "\u3000",
    "，": ", ", "。": ". ", "？": "? ", "！": "! ", "：": ": ", "；": "; ", "（": " (", "）": ") ", "、": ", ", "“": '"', "”": '"',
} | {chr(point): chr(point + 0xFEE0) for point in (*range(0x30, 0x3A), *range(0x61, 0x67))})  # fmt: skip
"""Punctuation, spaces, digits and some letters in another width."""


def changed(text: str, share: float, rng: random.Random) -> str:
    """The text with this share of its units replaced by another of its units, left out, or preceded by one."""
    from gristmill.corpus.contamination import fold, units

    start, end, weight = units(fold(text))
    pieces = [text[a:b] for a, b in zip(start, end, strict=True)]
    out, at = [], 0
    for a, b, piece in zip(start.tolist(), end.tolist(), pieces, strict=True):
        out.append(text[at:a])
        at = b
        what = rng.random()
        if what >= share:
            out.append(piece)
        elif what < share / 2:
            out.append(rng.choice(pieces))
        elif what < share * 3 / 4:
            space = "" if weight[0] < 8 else " "
            out.append(rng.choice(pieces) + space + piece)
    return "".join([*out, text[at:]])


def other_looks(text: str, rng: random.Random) -> str:
    return text.upper().translate(OTHER_SIGNS) if rng.random() < 0.5 else text.translate(OTHER_SIGNS)


PLANTED = {
    "as it is": lambda text, rng: text,
    "changed 1 %": lambda text, rng: changed(text, 0.01, rng),
    "changed 5 %": lambda text, rng: changed(text, 0.05, rng),
    "other looks": other_looks,
}


def evaluation_index(data: Path) -> object:
    from gristmill.corpus.contamination import EvaluationSet, index_of, read_items

    items = []
    for name, (split, column) in EVALUATION.items():
        path = data / name.split()[0] / f"{split}.jsonl.gz"
        items += read_items(EvaluationSet(files=(str(path),), columns=(column,), name=name))
    return index_of(items)


def contamination(data: Path, documents: int) -> dict[str, list[dict[str, object]]]:
    from gristmill.corpus.contamination import dropped, find, rows, settle
    from gristmill.corpus.features import packed

    start = time.process_time()
    index = evaluation_index(data)
    print(
        f"{len(index.items)} items indexed in {time.process_time() - start:.1f} CPU-seconds, {index.short} too short"
    )
    searched = {owner for owners in index.parts for owner in owners}
    recall = []
    for name in EVALUATION:
        all_items = [i for i, item in enumerate(index.items) if item.set == name]
        chosen = [i for i in all_items if i in searched]
        rng = random.Random(2)
        chosen = rng.sample(chosen, min(documents, len(chosen)))
        hosts = read(data, "pretrain_zh_laws/train" if "zh" in name else "pretrain_en_web/c4_demo", 300)
        row = {
            "set": name,
            "items": len(all_items),
            "long_enough": share(np.isin(all_items, list(searched))),
            "planted": len(chosen),
        }
        for way, change in PLANTED.items():
            texts = []
            for i in chosen:
                host = rng.choice(hosts)
                place = rng.randrange(len(host))
                texts.append(f"{host[:place]}\n{change(index.items[i].parts[0], rng)}\n{host[place:]}")
            found = rows(index, settle(index, find(index, *packed(texts))))
            pairs = {(hit["document"], hit["set"], hit["item"]) for hit in found if hit["kind"] != "common"}
            row[way] = share(np.array([
                (n, name, index.items[i].number) in pairs for n, i in enumerate(chosen)
            ]))  # fmt: skip
        recall.append(row)
    clean = []
    for name in CLEAN:
        texts = read(data, name, 5 * documents)
        buffers = packed(texts)
        start = time.process_time()
        findings = settle(index, find(index, *buffers))
        seconds = time.process_time() - start
        hits = [hit for hit in rows(index, findings) if hit["kind"] != "common"]
        clean.append({
            "set": name, "documents": len(texts), "flagged": len(dropped(findings)),
            "items": sorted({hit["set"] for hit in hits}),
            "documents_a_cpu_second": round(len(texts) / seconds),
            "megabytes_a_cpu_second": round(int(buffers[1][-1]) / 1e6 / seconds, 1),
            "excerpts": [
                f"{hit['kind']} {hit['cover']:.2f}: {texts[hit['document']][hit['spans'][0]['start'] :][:80]!r}" for hit in hits[:20]
            ],
        })  # fmt: skip
    return {"planted": recall, "clean": clean}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=200, help="of each set")
    parser.add_argument("--parts", nargs="*", choices=["english", "chinese", "spoiled", "contamination"])
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    parts = {
        "english": lambda: english(options.data, options.documents),
        "chinese": lambda: chinese(options.data, options.documents),
        "spoiled": lambda: spoiled(options.data, options.documents),
        "contamination": lambda: contamination(options.data, options.documents),
    }
    rows: dict[str, list[dict[str, object]]] = {}
    for name in options.parts or parts:
        found = parts[name]()
        rows |= found if isinstance(found, dict) else {name: found}
    for table in rows.values():
        columns = list(table[0])
        print_table(columns, [[row.get(column, "") for column in columns] for row in table])
        print()
    if not options.dry:
        write_result("corpus_rules", rows, documents=options.documents)


if __name__ == "__main__":
    main()
