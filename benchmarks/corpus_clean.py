"""The whole cleaning of a corpus: documents for a CPU-second, beside datatrove's filters, and how many decisions are equal.

Ours is a build from JSON lines with everything: reading, normalising, all rules of quality, languages, personal data, exact
duplicates and near ones, each of them compared, the texts written and hashed. It is done in one process, which has built a
small corpus of other texts before (imports, tables, the compiled kernels). Datatrove's are its filters of the same rules
(Gopher's quality and repetition, C4, FineWeb, in Chinese with FineWeb-2's thresholds) and its formatter of e-mail
and IP addresses, of texts that are in memory: no reading or writing, no languages (its model is a download), no
duplicates. They work on the first documents of each set.

The sets: English web pages and articles and Chinese ones as they are, and the same divided at the ends of lines into
documents of some 1.1 kB, which is what web pages and manuals had in which other tools were measured.

Equal decisions: of all decisions of one of the filters about one document (our normalised texts, both sides), the share that
is the same.

    python benchmarks/corpus_clean.py --data PATH/TO/data [--peer-python PATH/TO/python]

`--peer-python` is an interpreter with `datatrove`, `spacy` and `jieba`, where this one has none.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SETS = {
    "English web": ("en", ("pretrain_en_web/c4_demo.jsonl.gz", "pretrain_en_web/wiki_demo.jsonl.gz"), None),
    "English articles": ("en", ("pretrain_en_wikipedia/train.jsonl.zst",), None),
    "English web and articles, 1.1 kB": (
        "en",
        (
            "pretrain_en_web/c4_demo.jsonl.gz",
            "pretrain_en_web/wiki_demo.jsonl.gz",
            "pretrain_en_wikipedia/train.jsonl.zst",
        ),
        680,
    ),
    "Chinese manuals": ("zh", ("pretrain_zh_docs/train.jsonl.zst",), None),
    "Chinese laws and articles": ("zh", ("pretrain_zh_laws/train.jsonl.zst", "pretrain_zh_wiki/train.jsonl.zst"), None),
    "Chinese laws and novels, 1.1 kB": (
        "zh",
        ("pretrain_zh_laws/train.jsonl.zst", "pretrain_zh_novels/train.jsonl.zst"),
        290,
    ),
}  # fmt: skip
"""Name -> language, files, and how many characters a document has at least where texts are divided."""
KINDS = (
    "secret", "url_user", "email", "iban", "bank_card", "id_number", "ip", "plate", "passport", "account", "phone", "address",
)  # fmt: skip
SHARED = {"en": ("gopher_quality", "gopher_repetition", "c4", "fineweb"), "zh": ("gopher_quality", "gopher_repetition", "fineweb")}  # fmt: skip


# --- texts ----------------------------------------------------------------------------------------------------------


def read(data: Path, names: Sequence[str], least: int | None, most_bytes: int) -> list[str]:
    """Returns the first texts of some files, an equal share of the bytes from each, divided if they are to be."""
    import pyarrow

    texts = []
    for name in names:
        left = most_bytes // len(names)
        with pyarrow.input_stream(str(data / name)) as file:
            for line in file.read().decode().split("\n"):
                for text in pieces(json.loads(line)["text"], least) if line and left > 0 else ():
                    left -= len(text.encode())
                    texts.append(text)
    return texts


def pieces(text: str, least: int | None) -> Iterator[str]:
    """Yields a text, or runs of its lines of so many characters at least."""
    if least is None:
        yield text
        return
    lines: list[str] = []
    size = 0
    for line in text.split("\n"):
        lines.append(line)
        size += len(line)
        if size >= least:
            yield "\n".join(lines)
            lines, size = [], 0
    if size:
        yield "\n".join(lines)


# --- ours -----------------------------------------------------------------------------------------------------------


def full_clean(source: Path, workers: int = 1) -> Any:
    """Returns the config of a build with everything."""
    from gristmill.corpus.build import CorpusConfig
    from gristmill.corpus.deduplicate import DedupSettings
    from gristmill.corpus.engine import EngineSettings
    from gristmill.corpus.rules import SETS as RULES
    from gristmill.corpus.rules import RuleSettings
    from gristmill.corpus.scrub import ScrubSettings

    return CorpusConfig(
        sources=(str(source),), rules=RuleSettings(sets=RULES, languages=("en", "zh", "mixed")),
        scrub=ScrubSettings(kinds=KINDS), dedup=DedupSettings(), engine=EngineSettings(workers=workers),
    )  # fmt: skip


def clean(texts: Sequence[str], folder: Path) -> dict[str, Any]:
    """Returns what building a corpus of these texts takes, and what is left of them."""
    from gristmill.corpus.build import build

    folder.mkdir()
    source = folder / "texts.jsonl"
    with source.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    began = time.process_time()
    metrics = build(full_clean(source), folder / "corpus").manifest.metrics
    seconds = time.process_time() - began
    return {"seconds": seconds, "kept": metrics["documents"], "dropped": metrics["dropped"], "edits": metrics["edits"]}  # fmt: skip


def decisions(texts: Sequence[str]) -> dict[str, list[bool]]:
    """Returns whether each set of our rules keeps each text."""
    from gristmill.corpus.features import FEATURES, features
    from gristmill.corpus.rules import SETS as RULES
    from gristmill.corpus.rules import RuleSettings, judge

    figures = dict(zip(FEATURES, features(texts).T, strict=True))
    return {name: (judge(figures, RuleSettings(sets=(name,))).codes == 0).tolist() for name in RULES}


# --- datatrove's ----------------------------------------------------------------------------------------------------


def peer(file: Path, language: str) -> dict[str, Any]:
    """Returns what datatrove's filters and formatter take for some texts, and what each filter keeps."""
    from corpus_rules import FINEWEB_2
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.formatters import PIIFormatter

    texts = json.loads(file.read_text(encoding="utf-8"))
    if language == "en":
        filters = {
            "gopher_quality": GopherQualityFilter(), "gopher_repetition": GopherRepetitionFilter(),
            "c4": C4QualityFilter(), "fineweb": FineWebQualityFilter(),
        }  # fmt: skip
    else:
        code = "zho_Hani"
        filters = {
            "gopher_quality": GopherQualityFilter(language=code, **FINEWEB_2["quality"]),
            "gopher_repetition": GopherRepetitionFilter(language=code, **FINEWEB_2["repetition"]),
            "c4": C4QualityFilter(language=code), "fineweb": FineWebQualityFilter(language=code, **FINEWEB_2["fineweb"]),
        }  # fmt: skip
    formatter = PIIFormatter()
    for one in filters.values():  # models are loaded
        one.filter(Document(text="A mill. 磨坊。", id="0"))
    began = time.process_time()
    kept = {
        name: [one.filter(Document(text=text, id="0")) is True for text in texts]
        for name, one in filters.items()
    }
    for text in texts:
        formatter.format(text)
    return {"seconds": time.process_time() - began, "kept": kept}


def by_peer(texts: Sequence[str], language: str, python: str, folder: Path) -> dict[str, Any]:
    """Returns the same, found in a process of its own."""
    file = folder / "peer.json"
    file.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    command = [python, "-W", "ignore", __file__, "--peer", str(file), "--language", language]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


# --- both -----------------------------------------------------------------------------------------------------------


def row_of(
    name: str, texts: Sequence[str], language: str, few: int, python: str, folder: Path
) -> dict[str, Any]:
    """Returns the figures of a set."""
    from gristmill.corpus.normalise import normalise

    size = sum(len(text.encode()) for text in texts)
    ours = clean(texts, folder / name)
    row = {
        "set": name, "documents": len(texts), "bytes_a_document": round(size / len(texts)),
        "documents_a_cpu_second": round(len(texts) / ours["seconds"]),
        "megabytes_a_cpu_second": round(size / 1e6 / ours["seconds"], 2), "kept": ours["kept"],
        "duplicates": sum(ours["dropped"].get(why, {"documents": 0})["documents"] for why in ("duplicate", "near duplicate")),
        "private": sum(ours["edits"].values()),
    }  # fmt: skip
    if few:
        chosen = [text for text in (normalise(text).text for text in texts[: 2 * few]) if text][:few]
        theirs = by_peer(chosen, language, python, folder)
        mine = decisions(chosen)
        same = [
            a == b for each in SHARED[language] for a, b in zip(mine[each], theirs["kept"][each], strict=True)
        ]
        row |= {
            "datatrove_documents": len(chosen), "datatrove": round(len(chosen) / theirs["seconds"], 1),
            "times": round(row["documents_a_cpu_second"] * theirs["seconds"] / len(chosen), 1),
            "equal": round(sum(same) / len(same), 4),
        }  # fmt: skip
    return row


def main() -> None:
    """Runs it all and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--megabytes", type=float, default=40, help="of each set, at most")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer-documents", type=int, default=300, help="of each set; 0 does without")
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--language", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peer(options.peer, options.language)))
        return
    from common import print_table, write_result

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        warm = read(options.data, ("pretrain_en_peps/train.jsonl.zst",), None, 1_000_000)
        clean([*warm, *warm], Path(folder, "warm"))
        for name, (language, files, least) in SETS.items():
            texts = read(options.data, files, least, int(options.megabytes * 1e6))
            rows.append(
                row_of(name, texts, language, options.peer_documents, options.peer_python, Path(folder))
            )
            print(json.dumps(rows[-1], ensure_ascii=False))
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    if not options.dry:
        print(write_result("corpus_clean", rows))


if __name__ == "__main__":
    main()
