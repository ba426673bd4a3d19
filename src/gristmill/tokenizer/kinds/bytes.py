"""One token per byte of UTF-8, whose id is the byte: nothing to learn (as in ByT5, Xue et al. 2022)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tokenizers import Tokenizer, decoders, models

from gristmill.tokenizer.kinds import Sample
from gristmill.tokenizer.splitting import BYTE_OF, byte_level

__all__ = ["Bytes"]


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Bytes."""

    smallest_size: ClassVar[int] = 256

    def train(self, sample: Sample) -> Any:
        """Returns the tokenizer; the sample plays no part."""
        result = Tokenizer(models.BPE(vocab=dict(BYTE_OF), merges=[]))
        result.pre_tokenizer = byte_level([])
        result.decoder = decoders.ByteLevel()
        return result


EXPORT = Bytes
