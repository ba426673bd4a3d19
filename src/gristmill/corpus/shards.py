"""Shards: the token ids of every document, one flat memory-mapped file per split.

An artifact of kind "shards" holds, for each split: `train.tokens.bin` (little-endian uint16 or uint32),
`train.offsets.npy` (where each document begins), `train.text_bytes.npy` (its text's size in UTF-8), `train.keys.npy`
(where in the corpus it stands), `train.groups.npy` (the group of text that it belongs to) and `train.documents.txt` (its
id, one per line). A stored document is `[bos] ids [eos]`.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from jaxtyping import Int, Integer

from gristmill.artifact import Artifact, artifact_key, draft, find, open_artifact
from gristmill.errors import CorruptArtifact, InputError, did_you_mean

__all__ = ["Encode", "Item", "Shards", "TokenStore", "write_shards"]

KIND = "shards"
FORMAT_VERSION = 2
BATCH_CHARACTERS = 1 << 20  # encoded at once: enough for every core, small beside a training step
Progress = Callable[[str, int, int | None], None]
Encode = Callable[[list[str]], tuple[Integer[np.ndarray, " tokens"], Integer[np.ndarray, " texts_and_one"]]]
"""Texts to the ids of all of them, one after the other, and where each begins; without bos and eos."""


class Item(NamedTuple):
    """A document to be stored."""

    id: str
    text: str
    key: int = 0
    """Where in the corpus it stands."""
    group: int = 0
    """Which of the groups of text it belongs to."""


@dataclass(frozen=True)
class TokenStore:
    """The tokens of one split: document d is `tokens[offsets[d]:offsets[d + 1]]`."""

    tokens: Integer[np.ndarray, " tokens"]
    """Memory-mapped, read-only."""
    offsets: Int[np.ndarray, " documents_and_one"]
    text_bytes: Int[np.ndarray, " documents"]
    """The size of each document's text in UTF-8, what bits per byte divides by."""
    path: Path
    """Of the split's files, without their endings."""
    group_names: tuple[str, ...] = ()

    @property
    def lengths(self) -> Int[np.ndarray, " documents"]:
        """The stored tokens of each document, bos and eos among them."""
        return np.diff(self.offsets)

    @functools.cached_property
    def document_ids(self) -> tuple[str, ...]:
        """The id of each document in the corpus, read when first asked for."""
        return tuple(_beside(self.path, "documents.txt").read_text(encoding="utf-8").splitlines())

    @functools.cached_property
    def keys(self) -> Int[np.ndarray, " documents"]:
        """Where each document stands in the corpus."""
        return np.asarray(np.load(_beside(self.path, "keys.npy")))

    @functools.cached_property
    def groups(self) -> Integer[np.ndarray, " documents"]:
        """The group of text that each document belongs to, a place in `group_names`."""
        return np.asarray(np.load(_beside(self.path, "groups.npy")))


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
        path = self.artifact.path / name
        offsets = np.load(_beside(path, "offsets.npy"))
        tokens_path = _beside(path, "tokens.bin")
        dtype = np.dtype(self.artifact.manifest.metrics["dtype"]).newbyteorder("<")
        total = int(offsets[-1])
        if tokens_path.stat().st_size != total * dtype.itemsize:
            raise CorruptArtifact(
                f"{tokens_path} has {tokens_path.stat().st_size:,} bytes, expected {total * dtype.itemsize:,}",
                f"move {self.artifact.path} away and run the same command again: only this stage is rebuilt",
            )
        # An empty file can't be mapped.
        tokens = np.memmap(tokens_path, dtype=dtype, mode="r") if total else np.empty(0, dtype)
        groups = tuple(self.artifact.manifest.metrics["groups"])
        return TokenStore(tokens, offsets, np.load(_beside(path, "text_bytes.npy")), path, groups)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def write_shards(  # noqa: PLR0913 - what the stage reads, each by name
    out: Path,
    *,
    documents: Mapping[str, Iterable[Item]],
    encode: Encode,
    bos: int,
    eos: int,
    vocab_size: int,
    groups: Sequence[str] = ("",),
    config: Any = None,
    parents: Mapping[str, Artifact] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Artifact:
    """Encodes every document of every split and returns the shards, those that stand at `out` if they are the same.

    Args:
        out: where the artifact will be.
        documents: split -> its documents, streamed.
        encode: texts to token ids, without bos and eos.
        bos: stored before each document.
        eos: stored after each document.
        vocab_size: every id is below it; up to 65,536 an id takes two bytes.
        groups: the names of the groups of text.
        config: what else decides the content, for the manifest.
        parents: the corpus and the tokenizer.
        seed: for the manifest; nothing here is random.
        progress: called with ("encode SPLIT", documents done, None).
    """
    settings = {
        "bos": bos,
        "eos": eos,
        "vocab_size": vocab_size,
        "groups": list(groups),
        "settings": config,
    }
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
        for split, items in documents.items():
            writer = _SplitWriter(work.path / split, dtype, bos=bos, eos=eos, vocab_size=vocab_size)
            with (
                _beside(writer.path, "tokens.bin").open("wb") as tokens,
                _beside(writer.path, "documents.txt").open("w", encoding="utf-8") as ids,
            ):
                for batch in _batches(items):
                    writer.write(batch, *encode([item.text for item in batch]), tokens, ids)
                    if progress is not None:
                        progress(f"encode {split}", writer.documents, None)
            splits[split] = writer.finish(len(groups))
        work.metrics.update({
            "dtype": dtype.name, "vocab_size": vocab_size, "groups": list(groups), "splits": splits,
        })  # fmt: skip
    return open_artifact(out, KIND, verify=False)  # hashed a moment ago


class _SplitWriter:
    """Appends the documents of one split; only a few numbers of each stay in memory."""

    def __init__(self, path: Path, dtype: np.dtype[Any], *, bos: int, eos: int, vocab_size: int) -> None:
        self.path, self.dtype = path, dtype
        self.bos, self.eos, self.vocab_size = bos, eos, vocab_size
        self.documents = 0
        # of each batch: stored lengths, bytes of text, keys, groups
        self._columns: list[tuple[Any, Any, Any, Any]] = []

    def write(self, batch: list[Item], body: Any, offsets: Any, tokens: Any, ids: TextIO) -> None:
        """Appends documents, given the ids of all their texts and where each begins."""
        lengths = np.diff(offsets.astype(np.int64))
        if len(lengths) != len(batch) or int(lengths.sum()) != len(body):
            raise ValueError(f"{len(batch)} texts were encoded to {len(lengths)} of {len(body)} ids")
        if len(body) and not 0 <= int(body.min()) <= int(body.max()) < self.vocab_size:
            wrong = int(np.flatnonzero((body < 0) | (body >= self.vocab_size))[0])
            name = batch[int(np.searchsorted(offsets, wrong, side="right")) - 1].id
            raise ValueError(f"document {name} has token {body[wrong]}, but vocab_size is {self.vocab_size}")
        if not max(self.bos, self.eos) < self.vocab_size:
            raise ValueError(f"bos {self.bos} or eos {self.eos} is beyond vocab_size {self.vocab_size}")
        stored = np.empty(len(body) + 2 * len(batch), dtype=self.dtype)
        ends = np.cumsum(lengths + 2)
        is_edge = np.zeros(len(stored), dtype=bool)
        for places, edge in ((ends - lengths - 2, self.bos), (ends - 1, self.eos)):
            stored[places] = edge
            is_edge[places] = True
        stored[~is_edge] = body
        for item in batch:
            if item.id != " ".join(item.id.splitlines()):
                raise ValueError(f"the document id {item.id!r} is not one line")
        tokens.write(stored.tobytes())
        ids.writelines(f"{item.id}\n" for item in batch)
        sizes, keys, groups = (
            [len(item.text.encode()) for item in batch],
            [item.key for item in batch],
            [item.group for item in batch],
        )
        self._columns.append((
            lengths + 2, np.array(sizes, np.int64), np.array(keys, np.int64), np.array(groups, np.uint16)
        ))  # fmt: skip
        self.documents += len(batch)

    def finish(self, groups: int) -> dict[str, Any]:
        """Writes what was kept of each document, and returns the split's figures."""
        none = (np.array([], np.int64),) * 3 + (np.array([], np.uint16),)
        lengths, text_bytes, keys, of_group = (
            np.concatenate(column) for column in zip(none, *self._columns, strict=True)
        )
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        for name, column in (
            ("offsets", offsets),
            ("text_bytes", text_bytes),
            ("keys", keys),
            ("groups", of_group),
        ):
            np.save(_beside(self.path, f"{name}.npy"), column)
        text_tokens = int(offsets[-1]) - 2 * len(text_bytes)
        total_bytes = int(text_bytes.sum())
        return {
            "tokens": int(offsets[-1]),
            "documents": len(text_bytes),
            "text_bytes": total_bytes,
            "bytes_per_token": round(total_bytes / text_tokens, 4) if text_tokens else None,
            "group_tokens": np.bincount(of_group, weights=lengths, minlength=groups).astype(int).tolist(),
        }


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += len(item.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
