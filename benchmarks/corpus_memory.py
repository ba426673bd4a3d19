"""Memory of a corpus build on a gigabyte of text and on four, and whether a killed build ends as one that was not.

The text: the shared English and Chinese sets hold some 200 MB, so that a gigabyte has to be made of them. Sentences (lines, where
there are no sentences) of a hundred documents of one set are put into a bag, shuffled with a seed, and dealt out again into
documents of 200 to 5,000 bytes; every ninth word or so (Chinese: every ninth character) is replaced by another one from
the bag. So no document is the copy of another, or near it, however often a set is gone through, while words, lengths, lines
and scripts are those of real text. On purpose one document in fifty is then written again as it is, and one in fifty
with a fiftieth of its words changed. The smaller input is the beginning of the larger one.

Memory: the resident set of the process that builds and of all that it starts, added up, looked at twenty times a second; what
two processes share is counted twice. The build has everything: all rules, languages, personal data, duplicates.

Killed: the same build of the smaller input, whose process is killed (signal 9) at five random moments of as many runs, and then
left alone. Every file of the corpus has to have the bytes of the one that was never killed; the manifest, which says when
that was and what it cost, has to agree in everything else.

    python benchmarks/corpus_memory.py --data PATH/TO/data --folder SCRATCH [--gigabytes 1]
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus_clean import full_clean

SETS = (
    "pretrain_en_wikipedia/train.jsonl.zst", "pretrain_zh_novels/train.jsonl.zst", "pretrain_en_books/train.jsonl.zst",
    "pretrain_zh_laws/train.jsonl.zst", "pretrain_en_peps/train.jsonl.zst", "pretrain_zh_docs/train.jsonl.zst",
)  # fmt: skip
SENTENCE = re.compile(r".+?(?:[.!?][\"”’)]*(?= )|[。！？]|\n|$)", re.DOTALL)
WORD = re.compile(r"[A-Za-z]{2,}|[\u4e00-\u9fff]")
LOOKS_A_SECOND = 20
KILLS = 5


# --- text -----------------------------------------------------------------------------------------------------------


def texts_of(data: Path, name: str) -> Iterator[str]:
    """Yields the texts of a set, without holding all of them."""
    import pyarrow

    with pyarrow.input_stream(str(data / name)) as file:
        rest = b""
        while block := file.read(1 << 20):
            *lines, rest = (rest + block).split(b"\n")
            yield from (json.loads(line)["text"] for line in lines if line)
        if rest.strip():
            yield json.loads(rest)["text"]


def dealt(texts: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Yields documents of the shuffled sentences of some texts, with words replaced."""
    sentences = [piece for text in texts for piece in SENTENCE.findall(text) if piece.strip()]
    words = [
        word for sentence in sentences[:: max(1, len(sentences) // 2000)] for word in WORD.findall(sentence)
    ]
    if len(words) < 100:
        return
    rng.shuffle(sentences)
    place = 0
    while place < len(sentences):
        wanted, parts, size = rng.randint(200, 5000), [], 0
        while size < wanted and place < len(sentences):
            parts.append(sentences[place])
            size += len(sentences[place].encode())
            place += 1
        yield changed("".join(parts), 1 / 9, words, rng)


def changed(text: str, share: float, words: Sequence[str], rng: random.Random) -> str:
    """Returns a text with a share of its words replaced by others."""
    pieces, done = [], 0
    gap = max(1, round(2 / share) - 1)
    left = rng.randint(1, gap)
    for match in WORD.finditer(text):
        left -= 1
        if left == 0:
            pieces += [text[done : match.start()], words[int(rng.random() * len(words))]]
            done, left = match.end(), rng.randint(1, gap)
    return "".join([*pieces, text[done:]])


def made(data: Path) -> Iterator[str]:
    """Yields documents without end, always the same ones."""
    turn = 0
    while True:
        for name in SETS:
            rng = random.Random(f"{turn} {name}")
            waiting: list[str] = []
            for text in texts_of(data, name):
                waiting.append(text)
                if len(waiting) < 100 and sum(map(len, waiting)) < 2_000_000:
                    continue
                for document in dealt(waiting, rng):
                    yield document
                    if rng.random() < 1 / 50:
                        yield document
                    if rng.random() < 1 / 50:
                        yield changed(document, 1 / 50, WORD.findall(document) or ["x"], rng)
                waiting = []
        turn += 1


def write_inputs(data: Path, folder: Path, sizes: Sequence[int]) -> dict[str, int]:
    """Writes files of JSON lines, part after part of a tenth of the first size; returns what there is."""
    folder.mkdir(parents=True)
    part_bytes = max(1, sizes[0] // 10)
    documents = written = part = 0
    file = (folder / "part-0000.jsonl").open("w", encoding="utf-8")
    for text in made(data):
        file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        documents += 1
        written += len(text.encode())
        if written >= part_bytes * (part + 1):
            file.close()
            part += 1
            if written >= sizes[-1]:
                break
            file = (folder / f"part-{part:04}.jsonl").open("w", encoding="utf-8")
    return {"documents": documents, "bytes": written, "parts": part}


# --- building -------------------------------------------------------------------------------------------------------


def start(source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """Starts a build in a process of its own."""
    arguments = ["--build", str(source), "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen([sys.executable, "-W", "ignore", __file__, *arguments], stdout=subprocess.DEVNULL)


def tree_bytes(process: int) -> int:
    """Returns the resident sets of a process and of all below it."""
    children: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            resident[int(entry.name)] = page * int((entry / "statm").read_text().split()[1])
        except (OSError, IndexError):  # it has ended
            continue
        children.setdefault(parent, []).append(int(entry.name))
    total, waiting = 0, [process]
    while waiting:
        one = waiting.pop()
        total += resident.get(one, 0)
        waiting += children.get(one, [])
    return total


def watched(source: Path, out: Path, workers: int) -> dict[str, Any]:
    """Returns what a build takes: the highest memory, and when that was, and its time."""
    began = time.monotonic()
    process = start(source, out, workers)
    peak, at = 0, 0.0
    while process.poll() is None:
        now = tree_bytes(process.pid)
        if now > peak:
            peak, at = now, time.monotonic() - began
        time.sleep(1 / LOOKS_A_SECOND)
    if process.returncode:
        raise SystemExit(f"the build of {source} failed")
    metrics = json.loads((out / "manifest.json").read_text())
    return {
        "peak_megabytes": round(peak / 1e6), "peak_at_share_of_the_time": round(at / (time.monotonic() - began), 2),
        "elapsed_seconds": round(time.monotonic() - began, 1), "cpu_seconds": metrics["cost"]["cpu_seconds"],
        "read": metrics["metrics"]["read"]["documents"], "kept": metrics["metrics"]["documents"],
        "duplicates": {
            why: entry["documents"] for why, entry in metrics["metrics"]["dropped"].items() if "duplicate" in why
        },
    }  # fmt: skip


def killed(source: Path, out: Path, workers: int, seconds: float, seed: int) -> list[float]:
    """Builds with five kills; returns after how many seconds each came, as far as there was something to kill."""
    rng = random.Random(seed)
    moments = []
    for _ in range(KILLS):
        process = start(source, out, workers)
        moment = rng.uniform(0.03, 0.3) * seconds
        try:
            process.wait(moment)
            break  # it was done
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(round(moment, 1))
    if start(source, out, workers).wait():
        raise SystemExit(f"the build of {source} failed after it was killed")
    return moments


def hashes(out: Path) -> dict[str, str]:
    """Returns the hash of each file, of the manifest without what tells when and how long."""
    found = {}
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        data = file.read_bytes()
        if file.name == "manifest.json":
            table = json.loads(data)
            data = json.dumps(
                {name: table[name] for name in table if name not in ("created_at", "cost")}
            ).encode()
        found[file.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def main() -> None:
    """Runs it all and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, help="for some ten times the larger input; emptied at the end")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the smaller input")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        from gristmill.corpus.build import build

        build(full_clean(options.build, options.workers), options.out)
        return
    from common import print_table, write_result

    folder = options.folder / "corpus_memory"
    small = int(options.gigabytes * 1e9)
    facts_of_input = folder / f"input {options.gigabytes:g}.json"
    # it is there when the input is whole, which takes a while
    if not facts_of_input.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        made_of = write_inputs(options.data, folder / "large", (small, 4 * small))
        (folder / "small").mkdir()
        for file in sorted((folder / "large").iterdir())[:10]:
            os.link(file, folder / "small" / file.name)
        facts_of_input.write_text(json.dumps(made_of))
    made_of = json.loads(facts_of_input.read_text())
    for name in ("1x", "4x", "again"):
        shutil.rmtree(folder / name, ignore_errors=True)
    rows = []
    for name, size in (("1x", small), ("4x", 4 * small)):
        source = folder / ("small" if name == "1x" else "large")
        rows.append(
            {"input": name, "gigabytes": size / 1e9, **watched(source, folder / name, options.workers)}
        )
        print(json.dumps(rows[-1]))
    growth = rows[1]["peak_megabytes"] / rows[0]["peak_megabytes"] - 1
    moments = killed(
        folder / "small", folder / "again", options.workers, rows[0]["elapsed_seconds"], options.seed
    )
    one, two = hashes(folder / "1x"), hashes(folder / "again")
    facts = {
        "made": made_of, "workers": options.workers, "growth": round(growth, 4), "killed_after_seconds": moments,
        "files": len(one), "files_that_differ": [name for name in {*one, *two} if one.get(name) != two.get(name)],
    }  # fmt: skip
    print(json.dumps(facts))
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    if not options.dry:
        print(write_result("corpus_memory", rows, **facts))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
