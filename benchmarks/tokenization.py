"""From jsonl to shards: megabytes of text for a CPU-second, beside encode_batch of `tokenizers`, with the same ids.

Ours is the whole way: the lines are read and parsed, the texts encoded (by fastokens, where it is installed and gives the
same ids), and the shards written and hashed. Of `tokenizers` only encode_batch is counted, with the texts in memory. Both
encode with the same byte-level BPE, which is trained on a tenth of the text; the ids of every document are compared.
Each side has its threads; CPU-seconds of all of them count.

    python benchmarks/tokenization.py --data PATH/TO/data [--megabytes 50]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from common import print_table, write_result

from gristmill.corpus.shards import Item, Shards, write_shards
from gristmill.tokenizer.fast import encoder
from gristmill.tokenizer.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train

SETS = {
    "English": ("pretrain_en_wikipedia/train.jsonl.zst", "pretrain_en_books/train.jsonl.zst"),
    "Chinese": ("pretrain_zh_novels/train.jsonl.zst", "pretrain_zh_laws/train.jsonl.zst"),
}
BATCH_CHARACTERS = 1 << 20


def texts_of(data: Path, name: str, most_bytes: int) -> Iterator[str]:
    """Yields the first texts of a set, so many bytes of them; a longer text is divided at its line feeds."""
    with pyarrow.input_stream(str(data / name)) as file:
        for line in file.read().decode().split("\n"):
            for text in divided(json.loads(line)["text"]) if line else ():
                most_bytes -= len(text.encode())
                if most_bytes < 0:
                    return
                yield text


def divided(text: str, size: int = 20_000) -> Iterator[str]:
    """Yields pieces of some thousand characters, as documents are."""
    while len(text) > 2 * size and (end := text.find("\n", size) + 1):
        yield text[:end]
        text = text[end:]
    yield text


def items_of(file: Path) -> Iterator[Item]:
    """Yields the documents of a file of JSON lines."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            yield Item(str(number), json.loads(line)["text"])


def by_gristmill(file: Path, tokenizer: Tokenizer, folder: Path, said: list[str]) -> tuple[Any, float]:
    """Returns the ids of each document, and the CPU-seconds."""
    encode = encoder(tokenizer, said.append)
    began = time.process_time()
    shards = write_shards(
        folder, documents={"train": items_of(file)}, encode=encode, bos=tokenizer.special["bos"],
        eos=tokenizer.special["eos"], vocab_size=tokenizer.vocab_size,
    )  # fmt: skip
    seconds = time.process_time() - began
    store = Shards(shards).split("train")
    return np.split(np.asarray(store.tokens), store.offsets[1:-1]), seconds


def by_tokenizers(texts: list[str], tokenizer: Tokenizer) -> tuple[list[list[int]], float]:
    """Returns the same of the library."""
    import tokenizers

    inner = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    inner.encode_special_tokens = True
    found: list[list[int]] = []
    seconds = 0.0
    batch: list[str] = []
    for number, text in enumerate(texts):
        batch.append(text)
        if sum(map(len, batch)) >= BATCH_CHARACTERS or number == len(texts) - 1:
            began = time.process_time()
            encoded = inner.encode_batch(batch, add_special_tokens=False)
            seconds += time.process_time() - began
            found += [one.ids for one in encoded]
            batch = []
    return found, seconds


def row_of(
    language: str, data: Path, megabytes: float, vocab_size: int | None, folder: Path
) -> dict[str, Any]:
    """Returns the figures of a language."""
    most = int(megabytes * 1e6)
    texts = [text for name in SETS[language] for text in texts_of(data, name, most // len(SETS[language]))]
    sample = texts[::10]
    tokenizer = Tokenizer.from_directory(
        train(TokenizerConfig(vocab_size=vocab_size), sample, folder / "tokenizer").path
    )
    file = folder / "texts.jsonl"
    file.write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8"
    )
    size = sum(len(text.encode()) for text in texts)
    said: list[str] = []
    theirs, their_seconds = by_tokenizers(texts, tokenizer)
    ours, seconds = by_gristmill(file, tokenizer, folder / "shards", said)
    equal = [np.array_equal(mine[1:-1], other) for mine, other in zip(ours, theirs, strict=True)]
    return {
        "language": language, "documents": len(texts), "megabytes": round(size / 1e6, 1), "vocab_size": tokenizer.vocab_size,
        "tokens": sum(map(len, theirs)), "megabytes_a_cpu_second": round(size / 1e6 / seconds, 2),
        "tokenizers": round(size / 1e6 / their_seconds, 2), "times": round(their_seconds / seconds, 1),
        "documents_with_the_same_ids": sum(equal), "said": said,
    }  # fmt: skip


def main() -> None:
    """Runs it all and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=50, help="of each language")
    parser.add_argument("--vocab-size", type=int, help="left out, it follows from the text, as by default")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    rows = []
    for language in SETS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(language, options.data, options.megabytes, options.vocab_size, Path(folder)))
        print(json.dumps(rows[-1], ensure_ascii=False))
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    if not options.dry:
        versions = {name: version_of(name) for name in ("tokenizers", "fastokens")}
        print(write_result("tokenization", rows, versions=versions))


def version_of(name: str) -> str | None:
    """Returns the version of a package, None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
