"""The special tokens around a text: the same in training and in every use of the model after it.

                       before         after
    encoder            [CLS]          [SEP]        where the tokenizer has both; else as an encoder-decoder's
    decoder            bos, or eos    eos, or bos  (a text that is read, and not stored, has no end)
    encoder-decoder    bos            eos          each where there is one: T5's and Marian's texts begin with nothing

Prompts are another matter: see `generate.completing.prompt_tokens`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import final

from gristmill.errors import InputError

__all__ = ["Frame", "document_frame", "frame", "start_token"]


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens between which a text stands."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.before) + len(self.after)

    def around(self, tokens: Sequence[int]) -> list[int]:
        """Returns a text's tokens between them."""
        return [*self.before, *tokens, *self.after]


def frame(special: Mapping[str, int], kind: str) -> Frame:
    """Returns what stands around a text as a model of a kind reads it; a decoder is never given the end.

    Args:
        special: ids of the tokenizer's special tokens by name.
        kind: "decoder", "encoder" or "encoder-decoder" (its encoder is meant).

    Raises:
        InputError: the model is a decoder, and the tokenizer has no token that begins a text.
    """
    stored = document_frame(special, kind)
    return Frame(stored.before, ()) if kind == "decoder" else stored


def document_frame(special: Mapping[str, int], kind: str) -> Frame:
    """Returns what stands around a document as it is stored for a model of a kind; arguments as those of `frame`.

    Raises:
        InputError: the model is a decoder, and the tokenizer has no token that begins a text.
    """
    if kind == "decoder":
        ends = [special[name] for name in ("bos", "eos") if name in special]
        if not ends:
            raise InputError(
                "the tokenizer has no token that begins a text, so its first token can't be predicted",
                'add bos = "<|bos|>" to [tokenizer.special_tokens], and train it again',
            )
        return Frame((ends[0],), (ends[-1],))
    names = ("cls", "sep") if kind == "encoder" and {"cls", "sep"} <= set(special) else ("bos", "eos")
    before, after = ((special[name],) if name in special else () for name in names)
    return Frame(before, after)


def start_token(special: Mapping[str, int]) -> int:
    """Returns what the decoder of an encoder-decoder reads first: bos, else pad as in T5 and Marian.

    Raises:
        InputError: the tokenizer has neither.
    """
    start = special.get("bos", special.get("pad"))
    if start is None:
        raise InputError(
            "the tokenizer has no token that an answer begins with",
            "it needs a bos or a pad token: give the model's own tokenizer",
        )
    return start
