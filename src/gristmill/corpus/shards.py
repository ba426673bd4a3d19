"""Shards: the token ids of every document, one flat memory-mapped file per split.

An artifact of kind "shards" holds, for each split: `train.tokens.bin` (little-endian uint16 or uint32),
`train.offsets.npy` (where each document begins), `train.text_bytes.npy` (its text's size in UTF-8) and
`train.documents.txt` (its id, one per line). A stored document is `[bos] ids [eos]`.
"""

import array
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Int, Integer

from gristmill.artifact import Artifact, artifact_key, draft, find, open_artifact
from gristmill.errors import CorruptArtifact, InputError, did_you_mean

__all__ = ["Shards", "TokenStore", "write_shards"]

KIND = "shards"
FORMAT_VERSION = 1
BATCH_CHARACTERS = 1 << 20  # encoded at once: enough for every core, small beside a training step
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class TokenStore:
    """The tokens of one split: document d is `tokens[offsets[d]:offsets[d + 1]]`."""

    tokens: Integer[np.ndarray, " tokens"]
    """Memory-mapped, read-only."""
    offsets: Int[np.ndarray, " documents_and_one"]
    text_bytes: Int[np.ndarray, " documents"]
    """The size of each document's text in UTF-8, what bits per byte divides by."""
    ids_path: Path

    @property
    def lengths(self) -> Int[np.ndarray, " documents"]:
        """The stored tokens of each document, bos and eos among them."""
        return np.diff(self.offsets)

    @functools.cached_property
    def document_ids(self) -> tuple[str, ...]:
        """The id of each document in the corpus, read when first asked for."""
        return tuple(self.ids_path.read_text(encoding="utf-8").splitlines())


class Shards:
    """The finished shards of a corpus."""

    def __init__(self, artifact: Artifact | Path) -> None:
        """Takes an open artifact, or a path whose files are then verified."""
        self.artifact = open_artifact(artifact, KIND) if isinstance(artifact, Path) else artifact
        if self.artifact.kind != KIND:
            raise InputError(f"{self.artifact.path} is a {self.artifact.kind}, expected {KIND}")

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, sorted."""
        return tuple(sorted(self.artifact.manifest.metrics["splits"]))

    def split(self, name: str) -> TokenStore:
        """Returns the tokens of a split, mapped, not read."""
        if name not in self.splits:
            raise InputError(f'{self.artifact.path} has no split "{name}"', did_you_mean(name, self.splits))
        path = self.artifact.path
        offsets = np.load(path / f"{name}.offsets.npy")
        tokens_path = path / f"{name}.tokens.bin"
        dtype = np.dtype(self.artifact.manifest.metrics["dtype"]).newbyteorder("<")
        total = int(offsets[-1])
        if tokens_path.stat().st_size != total * dtype.itemsize:
            raise CorruptArtifact(
                f"{tokens_path} has {tokens_path.stat().st_size:,} bytes, expected {total * dtype.itemsize:,}",
                f"move {path} away and run the same command again: only this stage is rebuilt",
            )
        # An empty file can't be mapped.
        tokens = np.memmap(tokens_path, dtype=dtype, mode="r") if total else np.empty(0, dtype)
        return TokenStore(
            tokens, offsets, np.load(path / f"{name}.text_bytes.npy"), path / f"{name}.documents.txt"
        )


def write_shards(  # noqa: PLR0913 - what the stage reads, each by name
    out: Path,
    *,
    documents: Mapping[str, Iterable[tuple[str, str]]],
    encode_batch: Callable[[list[str]], list[list[int]]],
    bos: int,
    eos: int,
    vocab_size: int,
    config: Any = None,
    parents: Mapping[str, Artifact] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Artifact:
    """Encodes every document of every split and returns the shards, those that stand at `out` if they are the same.

    Args:
        out: where the artifact will be.
        documents: split -> its documents as (id, text), streamed.
        encode_batch: texts to token ids, without bos and eos.
        bos: stored before each document.
        eos: stored after each document.
        vocab_size: every id is below it; up to 65,536 an id takes two bytes.
        config: what else decides the content, for the manifest.
        parents: the corpus and the tokenizer.
        seed: for the manifest; nothing here is random.
        progress: called with ("encode SPLIT", documents done, None).
    """
    settings = {"bos": bos, "eos": eos, "vocab_size": vocab_size, "settings": config}
    parts = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "config": settings,
        "parents": parents,
        "seed": seed,
    }
    if parents and (same := find(out, artifact_key(**parts))) is not None:  # type: ignore[arg-type]
        return same
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    with draft(out, **parts) as work:  # type: ignore[arg-type]
        splits = {}
        for split, pairs in documents.items():
            writer = _SplitWriter(work.path, split, dtype, bos=bos, eos=eos, vocab_size=vocab_size)
            with writer.tokens_path.open("wb") as tokens, writer.ids_path.open("w", encoding="utf-8") as ids:
                for batch in _batches(pairs):
                    writer.write(batch, encode_batch([text for _, text in batch]), tokens, ids)
                    if progress is not None:
                        progress(f"encode {split}", len(writer.text_bytes), None)
            splits[split] = writer.finish()
        work.metrics.update({"dtype": dtype.name, "vocab_size": vocab_size, "splits": splits})
    return open_artifact(out, KIND, verify=False)  # hashed a moment ago


class _SplitWriter:
    """Appends the documents of one split; only the offsets and sizes stay in memory, 12 bytes per document."""

    def __init__(
        self, folder: Path, split: str, dtype: np.dtype[Any], *, bos: int, eos: int, vocab_size: int
    ) -> None:
        self.folder, self.split, self.dtype = folder, split, dtype
        self.bos, self.eos, self.vocab_size = bos, eos, vocab_size
        self.tokens_path = folder / f"{split}.tokens.bin"
        self.ids_path = folder / f"{split}.documents.txt"
        self.offsets = array.array("q", [0])
        self.text_bytes = array.array("i")

    def write(self, batch: list[tuple[str, str]], encoded: list[list[int]], tokens: Any, ids: TextIO) -> None:
        for (name, text), body in zip(batch, encoded, strict=True):
            stored = np.array([self.bos, *body, self.eos], dtype=np.int64)
            if int(stored.max()) >= self.vocab_size or int(stored.min()) < 0:
                raise ValueError(
                    f"document {name} has token {stored.max()}, but vocab_size is {self.vocab_size}"
                )
            if name != " ".join(name.splitlines()):
                raise ValueError(f"the document id {name!r} is not one line")
            tokens.write(stored.astype(self.dtype).tobytes())
            ids.write(name + "\n")
            self.offsets.append(self.offsets[-1] + len(stored))
            self.text_bytes.append(len(text.encode()))

    def finish(self) -> dict[str, Any]:
        """Writes the offsets and sizes, and returns the split's figures."""
        offsets = np.array(self.offsets, dtype=np.int64)
        text_bytes = np.array(self.text_bytes, dtype=np.int32)
        np.save(self.folder / f"{self.split}.offsets.npy", offsets)
        np.save(self.folder / f"{self.split}.text_bytes.npy", text_bytes)
        text_tokens = int(offsets[-1]) - 2 * len(text_bytes)
        total_bytes = int(text_bytes.sum(dtype=np.int64))
        return {
            "tokens": int(offsets[-1]),
            "documents": len(text_bytes),
            "text_bytes": total_bytes,
            "bytes_per_token": round(total_bytes / text_tokens, 4) if text_tokens else None,
        }


def _batches(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    characters = 0
    for pair in pairs:
        batch.append(pair)
        characters += len(pair[1])
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
