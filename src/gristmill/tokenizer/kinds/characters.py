"""One token per character: ASCII, and what the text has beyond it; any other character as its UTF-8 bytes."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenizers import Tokenizer, decoders, models

from gristmill.tokenizer.kinds import Sample

__all__ = ["Characters"]

_ASCII = [chr(code) for code in range(0x80)]
# UTF-8 never has the bytes C0, C1 and F5 to FF; those below 80 are ASCII characters.
_BYTES = [f"<0x{byte:02X}>" for byte in (*range(0x80, 0xC0), *range(0xC2, 0xF5))]


@dataclass(frozen=True, kw_only=True)
class Characters:
    """Characters, with byte fallback."""

    smallest_size: ClassVar[int] = len(_ASCII) + len(_BYTES)

    def train(self, sample: Sample) -> Any:
        """Returns the tokenizer of the most frequent characters, of all that are frequent enough by default."""
        counts: Counter[str] = Counter()
        for text in sample.texts:
            counts.update(text)
        found = sorted(
            (-count, c) for c, count in counts.items() if c > "\x7f" and count >= sample.minimum_frequency
        )
        room = None if sample.size is None else sample.size - self.smallest_size
        vocabulary = [*_ASCII, *_BYTES, *(c for _, c in found[:room])]
        result = Tokenizer(
            models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], byte_fallback=True)
        )
        result.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        return result


EXPORT = Characters
