"""Shards of a corpus of which something was forgotten: what is the same is copied, and the rest is encoded."""

import collections
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.artifact import Artifact
from gristmill.corpus.documents import ROW_BITS
from gristmill.corpus.edits import read_edits
from gristmill.corpus.shards import Encode, Item, Shards, TokenStore, write_shards
from gristmill.corpus.store import Corpus

__all__ = ["Resharded", "reshard"]

Progress = Callable[[str, int, int | None], None]


class Resharded(NamedTuple):
    """Shards that were written again."""

    path: Path
    documents: int
    encoded: int
    """How many of the documents were made tokens of; the tokens of the others were copied."""


def reshard(
    shards: Artifact,
    corpus: Corpus,
    before: Corpus | None,
    tokenizer: Artifact,
    encode: Encode,
    *,
    progress: Progress | None = None,
) -> Resharded:
    """Writes shards again in their place, the same bytes as `write_shards` would give for the corpus and the tokenizer.

    Args:
        shards: those to be replaced.
        corpus: what they are to hold.
        before: the corpus that they were made of, where it is still there: without it everything is encoded.
        tokenizer: that they were made with.
        encode: of this tokenizer.
        progress: called with ("encode SPLIT", documents done, None).
    """
    opened = Shards(shards)
    is_same = _unchanged(before, corpus)
    # validation text of another corpus has that one's edits
    borrowed = any(one is not None and one.validation is not None for one in (before, corpus))
    waiting: collections.deque[Any] = collections.deque()
    counts = collections.Counter[str]()

    def items(split: Any) -> Iterator[Item]:
        store = opened.split(split)
        is_ours = split != "valid" or not borrowed
        places = {key: i for i, key in enumerate(store.keys.tolist()) if is_ours and is_same(key)}
        for item in map(Item._make, corpus.items(split)):
            place = places.get(item.key)
            known = place is not None and store.document_ids[place] == item.id
            waiting.append(_tokens_of(store, place) if known and place is not None else None)
            counts["copied" if known else "encoded"] += 1
            yield item

    def encode_or_copy(texts: list[str]) -> tuple[Any, Any]:
        stored = [waiting.popleft() for _ in texts]
        fresh = [text for text, tokens in zip(texts, stored, strict=True) if tokens is None]
        ids, offsets = encode(fresh) if fresh else (np.array([], np.int64), np.zeros(1, np.int64))
        pieces = iter(np.split(np.asarray(ids), np.asarray(offsets[1:-1], np.int64)) if fresh else [])
        parts = [next(pieces) if tokens is None else tokens for tokens in stored]
        lengths = np.cumsum([0, *map(len, parts)])
        return np.concatenate([np.asarray(part, np.int64) for part in parts]), lengths

    config = shards.manifest.config
    written = write_shards(
        shards.path,
        documents={split: items(split) for split in shards.manifest.metrics["splits"]},
        encode=encode_or_copy,
        bos=config["bos"],
        eos=config["eos"],
        vocab_size=config["vocab_size"],
        groups=corpus.groups,
        config=config["settings"],
        parents={"corpus": corpus.artifact, "tokenizer": tokenizer},
        seed=shards.manifest.seed,
        progress=progress,
    )
    return Resharded(written.path, counts.total(), counts["encoded"])


def _tokens_of(store: TokenStore, document: int) -> Any:
    """The stored tokens of a document without bos and eos."""
    return store.tokens[store.offsets[document] + 1 : store.offsets[document + 1] - 1]


def _unchanged(before: Corpus | None, now: Corpus) -> Callable[[int], bool]:
    """Returns whether the document of a key has the same text in both corpora: the same unit, the same edits."""
    if before is None:
        return lambda key: False
    units = {int(name[:8], 16) >> 1: name for name in set(before.units) & set(now.units)}
    others = {cut.key for cut in (before.cut, now.cut) if cut is not None}
    for prefix, name in units.items():
        old, new = (read_edits(corpus.artifact.path, name) for corpus in (before, now))
        rows = {row for row in old.keys() | new.keys() if _at(old, row) != _at(new, row)}
        others |= {(prefix << ROW_BITS) + row for row in rows}
    return lambda key: key >> ROW_BITS in units and key not in others


def _at(edits: Mapping[int, Any], row: int) -> Any:
    return edits.get(row, [])
