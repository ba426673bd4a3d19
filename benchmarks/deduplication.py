"""Near-duplicates: what is found of planted ones, and how much text that stands nowhere else is lost.

Sides: gristmill, where bands nominate and what would be lost decides; the same bands with connected components and no
check; and Daft's MinHash (112 hashes of five words, 14 bands of 8) with connected components, as its documentation shows
it and as datatrove and data-juicer do it. Gristmill first by its defaults (`near` and `edited` of its settings), then with
a share alone, at several shares, and with other shares where words were changed here and there: the curve that the
defaults were chosen from.

Planted: a copy of each document with 1, 2 or 5 % of its words (Chinese: characters) replaced by others from the same
texts; found is a pair of which not both stay. Lost, of natural near-duplicates: the share of the units (words, Chinese
characters) of what was removed that stand in no run of five units of what stays, in the text that each was removed
for and in all of it.

The first build of a set reads it, so the CPU-seconds of the defaults have the reading in them, the others' not.

    python benchmarks/deduplication.py --data PATH/TO/data [--texts FOLDER]
"""

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import scipy.sparse
import scipy.sparse.csgraph
from common import print_table, write_result

from gristmill.corpus.build import CorpusConfig, build
from gristmill.corpus.decisions import DECISIONS
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.corpus.features import packed
from gristmill.corpus.near import bands_of_buffer, cover, shingles
from gristmill.corpus.normalise import normalise
from gristmill.corpus.store import LAYOUT

RATES = (0.01, 0.02, 0.05)
SHARES = (0.85, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.97)
EDITED = ((0.95, 0.85), (0.95, 0.88), (0.97, 0.9), (0.94, 0.9))
Removed = dict[int, int]
"""Document -> the one that it was removed for."""


class Outcome(NamedTuple):
    """What a method removes, and the CPU-seconds that it took."""

    removed: Removed
    seconds: float


def settings() -> dict[str, DedupSettings]:
    """Returns all settings that are tried, by what they are called."""
    usual = DedupSettings()
    tried = {f"gristmill, near {usual.near}, edited {usual.edited} (default)": usual}
    tried |= {f"gristmill, near {share}": DedupSettings(near=share, edited=False) for share in SHARES}
    return tried | {
        f"gristmill, near {near}, edited {edited}": DedupSettings(near=near, edited=edited)
        for near, edited in EDITED
    }


def texts_of(folder: Path, limit: int) -> Iterator[str]:
    """Yields the normalised texts of a data set."""
    for path in sorted(folder.glob("train.jsonl*")):
        with pyarrow.input_stream(str(path)) as file:
            for line in file.read().decode().split("\n"):
                if line and limit:
                    limit -= 1
                    yield normalise(json.loads(line)["text"]).text


def edited(text: str, rate: float, is_chinese: bool, others: Sequence[str], rng: random.Random) -> str:
    """Returns a text with a share of its words or Chinese characters replaced."""
    pieces = list(text) if is_chinese else re.split(r"(\s+)", text)
    places = [i for i, p in enumerate(pieces) if (("一" <= p <= "鿿") if is_chinese else p.strip())]
    for i in rng.sample(places, min(len(places), max(1, round(rate * len(places))))):
        pieces[i] = rng.choice(others)
    return "".join(pieces)


def by_gristmill(texts: Sequence[str]) -> dict[str, Outcome]:
    """Returns what a corpus of these texts drops as near duplicates under all settings. It is read once."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "texts.jsonl")
        with source.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        found = {}
        for name, dedup in settings().items():
            began = time.process_time()
            config = CorpusConfig(sources=(str(source),), dedup=dedup, valid_fraction=0.0)
            built = build(config, Path(folder, "corpus")).path
            found[name] = Outcome(removed_in(built), time.process_time() - began)
        return found


def removed_in(built: Path) -> Removed:
    """Returns what a corpus says was dropped beside what."""
    import pyarrow.parquet

    units = json.loads((built / LAYOUT).read_text())["units"]
    tables = [pyarrow.parquet.read_table(built / DECISIONS / f"{unit['name']}.parquet") for unit in units]
    firsts = np.cumsum([0, *(table.num_rows for table in tables)])
    unit_of = {int(unit["name"][:8], 16) >> 1: i for i, unit in enumerate(units)}
    removed = {}
    for first, table in zip(firsts, tables, strict=False):
        for row, by in enumerate(table["by"].to_pylist()):
            if by >= 0:
                removed[int(first) + row] = int(firsts[unit_of[by >> 32]]) + (by & 0xFFFFFFFF)
    return removed


def by_components(bands: Any) -> Removed:
    """Returns all but the first of each connected component of texts that share a band."""
    ones, twos = [np.array([], np.int64)], [np.array([], np.int64)]
    for column in bands.T:
        order = np.argsort(column, kind="stable")
        same = (column[order][1:] == column[order][:-1]) & (column[order][1:] != 0)
        ones.append(order[:-1][same])
        twos.append(order[1:][same])
    edges = (np.concatenate(ones), np.concatenate(twos))
    graph = scipy.sparse.coo_matrix((np.ones(len(edges[0]), bool), edges), shape=(len(bands), len(bands)))
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return {i: int(first[group]) for i, group in enumerate(label.tolist()) if first[group] != i}


def by_our_bands(texts: Sequence[str]) -> Removed:
    """Returns what our bands join, unchecked."""
    return by_components(bands_of_buffer(*packed(texts)))


def by_daft(texts: Sequence[str]) -> Removed:
    """Returns what Daft's MinHash of five words joins, unchecked."""
    import daft

    frame = daft.from_pydict({"text": list(texts)}).select(
        daft.col("text").minhash(num_hashes=112, ngram_size=5, seed=1).alias("hashes")
    )
    hashes = np.array(frame.to_pydict()["hashes"], dtype=np.uint32).reshape(len(texts), 14, 8)
    multipliers = np.random.default_rng(0).integers(1, 1 << 62, 8, dtype=np.uint64) | np.uint64(1)
    return by_components((hashes.astype(np.uint64) * multipliers).sum(-1, dtype=np.uint64))


def by_all(texts: Sequence[str]) -> dict[str, Outcome]:
    """Returns what each method removes of some texts."""
    found = by_gristmill(texts)
    for name, method in (("the same bands, unchecked", by_our_bands), ("Daft's MinHash, unchecked", by_daft)):
        began = time.process_time()
        removed = method(texts)
        found[name] = Outcome(removed, time.process_time() - began)
    return found


def found_of(texts: list[str], rate: float, chinese: bool) -> dict[str, float]:
    """Returns for each method the share of planted pairs of which not both stay."""
    rng = random.Random(round(rate * 1000))
    pool = list("".join(texts[:200])) if chinese else " ".join(texts[:200]).split()
    others = [p for p in pool if not chinese or "一" <= p <= "鿿"]
    copies = [edited(text, rate, chinese, others, rng) for text in texts]
    pairs = [(i, i + len(texts)) for i in range(len(texts))]
    return {
        name: round(float(np.mean([a in removed or b in removed for a, b in pairs])), 4)
        for name, (removed, _) in by_all([*texts, *copies]).items()
    }


def lost_of(removed: Removed, texts: Sequence[str]) -> tuple[float, float]:
    """Returns the share of removed text that the text it was removed for has not, and that nothing has which stays."""
    found, counts = shingles(texts)
    parts = np.split(found, np.cumsum(counts)[:-1])
    stays = np.unique(np.concatenate([part for i, part in enumerate(parts) if i not in removed]))
    units = beside = anywhere = 0.0
    for i, by in removed.items():
        size = len(parts[i])
        units += size
        beside += size * (1 - cover(np.isin(parts[i], parts[by])))
        place = np.minimum(np.searchsorted(stays, parts[i]), len(stays) - 1)  # they are sorted, and many
        anywhere += size * (1 - cover(stays[place] == parts[i]))
    return beside / max(units, 1), anywhere / max(units, 1)


def main() -> None:
    """Runs it all and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=Path, help="a folder of text files with natural near-duplicates")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    english = [text[:1500] for text in texts_of(options.data / "pretrain_en_wikipedia", options.documents)]
    novels = "".join(texts_of(options.data / "pretrain_zh_novels", 400))
    chinese = [novels[i : i + 218] for i in range(0, 218 * options.documents, 218)]
    natural = {"pretrain_zh_laws": list(texts_of(options.data / "pretrain_zh_laws", 1 << 30))}
    if options.texts:
        files = sorted(
            path for path in options.texts.rglob("*") if path.is_file() and path.stat().st_size < 200_000
        )
        read = (normalise(path.read_bytes().decode("utf-8", "replace")).text for path in files)
        natural["other texts"] = list(
            dict.fromkeys(text for text in read if len(text) > 200 and "\ufffd" not in text)
        )
    rows: dict[str, dict[str, Any]] = {}
    for language, texts in (("English", english), ("Chinese", chinese)):
        for rate in RATES:
            for name, share in found_of(texts, rate, language == "Chinese").items():
                row = rows.setdefault(name, {"method": name})
                row.setdefault(f"found, {language}", {})[str(rate)] = share
    for source, texts in natural.items():
        texts = list(dict.fromkeys(texts))
        for name, (removed, seconds) in by_all(texts).items():
            beside, anywhere = lost_of(removed, texts)
            rows[name][f"lost, {source}"] = {
                "documents": len(texts), "removed": len(removed), "beside": round(beside, 4),
                "anywhere": round(anywhere, 4), "cpu_seconds": round(seconds, 1),
            }  # fmt: skip
    table = list(rows.values())
    print_table(list(table[0]), [list(row.values()) for row in table])
    if not options.dry:
        print(write_result("deduplication", table, documents=options.documents))


if __name__ == "__main__":
    main()
