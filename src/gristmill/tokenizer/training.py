"""Training a tokenizer, and the figures that go into its manifest."""

import dataclasses
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

from tokenizers import AddedToken, processors

from gristmill.artifact import Artifact, artifact_key, draft, find, open_artifact
from gristmill.config import Part
from gristmill.errors import InputError
from gristmill.rng import derive
from gristmill.tokenizer.kinds import Kind, Sample
from gristmill.tokenizer.kinds.bpe import Bpe
from gristmill.tokenizer.splitting import splitters
from gristmill.tokenizer.tokenizer import Compression, Tokenizer, sentinel

__all__ = ["TokenizerConfig", "train"]

KIND = "tokenizer"
FORMAT_VERSION = 1
CHUNK_CHARACTERS = 1 << 16  # what is sampled as a whole; a longer document is cut at a line or a space
Progress = Callable[[str, int, int | None], None]


def _default_special_tokens() -> dict[str, str]:
    return {name: f"<|{name}|>" for name in ("pad", "bos", "eos", "mask", "cls", "sep")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What kind of tokenizer to train, and how text is cut before."""

    kind: Annotated[Kind, Part("tokenizer.kinds")] = dataclasses.field(default_factory=Bpe)
    """The kind of vocabulary, by name, or a table with the name and the kind's own settings."""
    vocab_size: int | None = None
    """All tokens, the special ones among them; left out, it is derived from the size of the text."""
    special_tokens: dict[str, str] = dataclasses.field(default_factory=_default_special_tokens)
    """Name -> how it is written; pad, bos and eos are needed."""
    sentinels: int = 0
    """Tokens that stand for a span left out, <extra_id_0> and so on; an objective that needs them has them made."""
    split_digits: int = 1
    """The most digits in one token; 0 leaves numbers whole."""
    split_cjk: bool = True
    """Whether each Han, Kana and Hangul character stands alone, so that no token holds two."""
    minimum_frequency: int = 2
    """How often a pair (or a character) must occur to become a token."""
    maximum_sample_bytes: int = 200_000_000
    """How much text the vocabulary is learned from; of a larger corpus, a sample drawn by hash."""

    def __post_init__(self) -> None:
        """Checks what can be checked before any text is read."""
        for name, least in (
            ("split_digits", 0), ("minimum_frequency", 1), ("maximum_sample_bytes", 1), ("sentinels", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {least}")
        missing = [name for name in ("pad", "bos", "eos") if not self.special_tokens.get(name)]
        if missing:
            raise InputError(f"special_tokens has no {missing[0]}", f'add {missing[0]} = "<|{missing[0]}|>"')
        texts = list(self.special_tokens.values())
        if twice := next((text for text in texts if texts.count(text) > 1 or not text), None):
            raise InputError(f'the special token "{twice}" is there twice', "each needs a text of its own")
        smallest = self.kind.smallest_size + len(texts) + self.sentinels
        if self.vocab_size is not None and self.vocab_size < smallest:
            raise InputError(
                f"vocab_size is {self.vocab_size:,}, but the alphabet and the special tokens are {smallest:,}",
                f"set vocab_size to {smallest:,} or more, or leave it out",
            )


def train(
    config: TokenizerConfig,
    texts: Iterable[str],
    out: Path,
    *,
    validation: Iterable[tuple[str, str]] = (),
    parents: Mapping[str, Artifact] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Artifact:
    """Trains a tokenizer and returns its artifact, the one that stands at `out` if it would be the same.

    Args:
        config: the settings.
        texts: what to learn from, read once.
        out: where the artifact will be.
        validation: (language, text), on which compression is measured.
        parents: the corpus, usually.
        seed: draws the sample of a text larger than `maximum_sample_bytes`.
        progress: called with what is being done, how much of it is, and of how much.

    Raises:
        InputError: the text is empty, or gives fewer tokens than `vocab_size`; nothing is overwritten then.
    """
    parts = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "config": config,
        "parents": parents,
        "seed": seed,
    }
    if parents and (same := find(out, artifact_key(**parts))) is not None:  # type: ignore[arg-type]
        return same
    report = progress or (lambda what, done, total: None)
    report("read", 0, None)
    sample, read = _sample(texts, config.maximum_sample_bytes, seed)
    report("learn", 0, None)
    tokenizer = _learn(config, sample)
    with draft(out, **parts) as work:  # type: ignore[arg-type]
        tokenizer.save(work.path)
        report("measure", 0, None)
        work.metrics.update(
            {
                "vocab_size": tokenizer.vocab_size,
                "special_tokens": dict(tokenizer.special),
                "read": read,
                "languages": {name: c.to_dict() for name, c in _measure(tokenizer, validation).items()},
            }
        )
    return open_artifact(out, KIND, verify=False)  # hashed a moment ago


def _learn(config: TokenizerConfig, texts: list[str]) -> Tokenizer:
    special = config.special_tokens
    sentinels = [sentinel(i) for i in range(config.sentinels)]
    added = len(special) + len(sentinels)
    wanted = None if config.vocab_size is None else config.vocab_size - added
    sample = Sample(
        texts=texts,
        cuts=splitters(split_digits=config.split_digits, split_cjk=config.split_cjk),
        size=wanted,
        minimum_frequency=config.minimum_frequency,
    )
    inner = config.kind.train(sample)
    learned = inner.get_vocab_size()
    if wanted is not None and learned < wanted:
        largest = learned + added
        raise InputError(
            f"vocab_size is {config.vocab_size:,}, but this text gives {largest:,} tokens at most",
            f"set vocab_size to {largest:,} or less or leave it out, or add text",
        )
    vocabulary = inner.get_vocab()
    for name, text in [*special.items(), *((text, text) for text in sentinels)]:
        if text in vocabulary:
            raise InputError(
                f'the special token {name} is written "{text}", which is an ordinary token of this text',
                f'write it in a way that no text does: {name} = "<|{name}|>"',
            )
    inner.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in (*special.values(), *sentinels)]
    )
    ids = {name: inner.token_to_id(text) for name, text in special.items()}
    # For `transformers`, whose encode then begins with bos, as every document did in training; ours leaves it out.
    inner.post_processor = processors.TemplateProcessing(
        single=[special["bos"], "$A"],
        pair=[special["bos"], "$A", "$B:1"],
        special_tokens=[(special["bos"], ids["bos"])],
    )
    return Tokenizer(inner, ids)


def _sample(texts: Iterable[str], maximum_bytes: int, seed: int) -> tuple[list[str], dict[str, int]]:
    """The chunks whose hashes are the smallest that fit, in order, and how much was read: one pass, bounded memory."""
    kept: list[tuple[int, int, str]] = []  # a heap with the largest hash on top
    kept_bytes = total_bytes = index = documents = 0
    for text in texts:
        documents += 1
        for chunk in _chunks(text):
            size = len(chunk.encode(errors="surrogatepass"))
            total_bytes += size
            kept_bytes += size
            heapq.heappush(kept, (-derive(seed, "sample", index), index, chunk))
            index += 1
            while kept_bytes > maximum_bytes and len(kept) > 1:
                kept_bytes -= len(heapq.heappop(kept)[2].encode(errors="surrogatepass"))
    if not total_bytes:
        raise InputError("there is no text to train a tokenizer on", "give files or a corpus that hold text")
    chunks = [chunk for _, _, chunk in sorted(kept, key=lambda entry: entry[1])]
    return chunks, {"documents": documents, "text_bytes": total_bytes, "sample_bytes": kept_bytes}


def _chunks(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > CHUNK_CHARACTERS:
        end = start + CHUNK_CHARACTERS
        cut = max(text.rfind("\n", start, end), text.rfind(" ", start, end))
        end = cut if cut > start else end
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _measure(tokenizer: Tokenizer, validation: Iterable[tuple[str, str]]) -> dict[str, Compression]:
    """Compression by language, with the text held a batch at a time."""
    totals: dict[str, Compression] = {}
    batch: dict[str, list[str]] = {}
    characters = 0

    def count() -> None:
        for language, texts in batch.items():
            new, old = tokenizer.measure(texts), totals.get(language)
            totals[language] = (
                new
                if old is None
                else Compression(
                    text_bytes=old.text_bytes + new.text_bytes,
                    characters=old.characters + new.characters,
                    tokens=old.tokens + new.tokens,
                )
            )
        batch.clear()

    for language, text in validation:
        batch.setdefault(language, []).append(text)
        characters += len(text)
        if characters > 1 << 20:
            count()
            characters = 0
    count()
    return dict(sorted(totals.items(), key=lambda item: -item[1].text_bytes))
