"""Prompts in, text out: the loop around prefill and decode_one_token."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, Protocol, final, runtime_checkable

import torch

from gristmill import rng
from gristmill.errors import InputError
from gristmill.generate.decoding import Decoder, context_start, decode_one_token, keep_rows, prefill
from gristmill.generate.sampling import SamplingSettings, choose, samplers
from gristmill.generate.streaming import TextStream

__all__ = [
    "Completion",
    "Piece",
    "Vocabulary",
    "complete",
    "complete_tokens",
    "prompt_tokens",
    "stream",
    "stream_tokens",
]


@runtime_checkable
class Vocabulary(Protocol):
    """What generation needs of a tokenizer."""

    @property
    def special(self) -> Mapping[str, int]:
        """Ids of special tokens by name."""

    @property
    def vocab_size(self) -> int:
        """One more than the highest id; a model may have more rows than that."""

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids."""

    def token_bytes(self, id: int) -> bytes:
        """Returns the bytes that a token stands for; none for a special token."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How one prompt was continued."""

    prompt: str
    text: str
    """What comes after the prompt, without the stop string."""
    tokens: tuple[int, ...]
    """What the model said, an end token or the tokens of a stop string included."""
    prompt_tokens: int
    finish: Literal["end", "stop", "length"]
    """Why it ended: the model ended the text, a stop string came, or `max_new_tokens` were there."""
    dropped_tokens: int
    """The oldest tokens that the last token no longer saw, because the model's positions were used up."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Text that one prompt has gained, as soon as it is certain; the last piece carries the completion."""

    index: int
    text: str
    completion: Completion | None = None


def complete(
    decoder: Decoder,
    tokenizer: Vocabulary,
    prompts: Sequence[str],
    settings: SamplingSettings,
    *,
    batch_size: int = 16,
    seeds: Sequence[int] | None = None,
) -> list[Completion]:
    """Returns how the model continues each prompt, in their order; arguments are those of `stream`."""
    done: dict[int, Completion] = {}
    for piece in stream(decoder, tokenizer, prompts, settings, batch_size=batch_size, seeds=seeds):
        if piece.completion is not None:
            done[piece.index] = piece.completion
    return [done[index] for index in range(len(prompts))]


def stream(
    decoder: Decoder,
    tokenizer: Vocabulary,
    prompts: Sequence[str],
    settings: SamplingSettings,
    *,
    batch_size: int = 16,
    seeds: Sequence[int] | None = None,
) -> Iterator[Piece]:
    """Yields the text of each prompt as it comes, `batch_size` prompts at a time.

    With `seeds`, one for each prompt, that of the settings is not used.

    Raises:
        InputError: a prompt is empty and the tokenizer has no token that begins a text.
    """
    seen: Counter[str] = Counter()
    waiting = []
    for index, prompt in enumerate(prompts):
        tokens = prompt_tokens(tokenizer, prompt)
        if not tokens:
            raise InputError("an empty prompt has no tokens to go on from", "give at least one character")
        # the seed goes by the prompt and how often it came before, not by its place among others
        seed = rng.derive(settings.seed, "generate", prompt, seen[prompt]) if seeds is None else seeds[index]
        seen[prompt] += 1
        waiting.append(_Sequence(index, prompt, tokens, settings, seed, decoder.window))
    for first in range(0, len(waiting), batch_size):
        yield from _decode_batch(decoder, tokenizer, waiting[first : first + batch_size], settings)


def complete_tokens(
    decoder: Decoder,
    tokenizer: Vocabulary,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    batch_size: int = 16,
    ends: Collection[int] = (),
) -> list[Completion]:
    """Returns how the model continues each prompt, in their order; arguments are those of `stream_tokens`."""
    done: dict[int, Completion] = {}
    for piece in stream_tokens(decoder, tokenizer, prompts, settings, batch_size=batch_size, ends=ends):
        if piece.completion is not None:
            done[piece.index] = piece.completion
    return [done[index] for index in range(len(prompts))]


def stream_tokens(
    decoder: Decoder,
    tokenizer: Vocabulary,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    batch_size: int = 16,
    ends: Collection[int] = (),
) -> Iterator[Piece]:
    """Yields what comes after prompts that are tokens already, special ones among them: a text of its own.

    Args:
        decoder: the model.
        tokenizer: whose tokens these are.
        prompts: at least one token each.
        settings: how tokens are drawn.
        batch_size: prompts at a time.
        ends: tokens that end a text, besides the tokenizer's eos.
    """
    seen: Counter[str] = Counter()
    waiting = []
    for index, tokens in enumerate(prompts):
        name = " ".join(map(str, tokens))
        seed = rng.derive(settings.seed, "generate", name, seen[name])
        seen[name] += 1
        waiting.append(_Sequence(index, "", list(tokens), settings, seed, decoder.window))
    for first in range(0, len(waiting), batch_size):
        yield from _decode_batch(decoder, tokenizer, waiting[first : first + batch_size], settings, ends)


def prompt_tokens(tokenizer: Vocabulary, prompt: str) -> list[int]:
    """Returns the tokens that a prompt begins with: bos, as every document did in training, and its text.

    Where bos and eos are one token, as in GPT-2, texts begin with nothing.
    """
    bos = tokenizer.special.get("bos")
    if bos is None or bos == tokenizer.special.get("eos"):
        return tokenizer.encode(prompt)
    return [bos, *tokenizer.encode(prompt)]


def _decode_batch(
    decoder: Decoder,
    tokenizer: Vocabulary,
    batch: "list[_Sequence]",
    settings: SamplingSettings,
    ends: Collection[int] = (),
) -> Iterator[Piece]:
    change, ending = samplers(settings), {*ends, tokenizer.special.get("eos")}
    logits, state = prefill(decoder, [s.tokens for s in batch], room_tokens=settings.max_new_tokens)
    while True:
        scores = logits.float()
        for sampler in change:
            scores = sampler(scores, [s.tokens for s in batch])
        chosen = choose(scores, None if settings.greedy else [s.generator for s in batch])
        for sequence, token in zip(batch, chosen.tolist(), strict=True):
            data = b"" if token in ending else _token_bytes(tokenizer, token, sequence)
            piece = sequence.add(token, data, ends=token in ending)
            if piece is not None:
                yield piece
        going = [row for row, sequence in enumerate(batch) if not sequence.finished]
        if not going:
            return
        if len(going) < len(batch):  # what is finished is not computed any further
            batch, state, chosen = [batch[row] for row in going], keep_rows(state, going), chosen[going]
        logits, state = decode_one_token(decoder, state, chosen)


def _token_bytes(tokenizer: Vocabulary, token: int, sequence: "_Sequence") -> bytes:
    if token >= tokenizer.vocab_size:
        return b""
    data = tokenizer.token_bytes(token)
    first = not sequence.prompt and len(sequence.tokens) == sequence.prompt_tokens
    if first and data[:1] == b" " and not tokenizer.decode([token]).startswith(" "):
        return data[1:]  # SentencePiece puts a space before every text, and takes it off again
    return data


@final
class _Sequence:
    """One prompt on its way: its tokens, its text so far, its own randomness."""

    def __init__(
        self,
        index: int,
        prompt: str,
        tokens: list[int],
        settings: SamplingSettings,
        seed: int,
        window: int | None,
    ) -> None:
        self.prompt, self.tokens, self.prompt_tokens = prompt, tokens, len(tokens)
        self.generator = torch.Generator().manual_seed(seed)
        self.finished = False
        self._index, self._limit, self._window = index, len(tokens) + settings.max_new_tokens, window
        self._stream, self._text = TextStream(settings.stop), ""

    def add(self, token: int, data: bytes, *, ends: bool) -> Piece | None:
        """Adds a token and returns the text that it makes certain, if any."""
        self.tokens.append(token)
        full = len(self.tokens) == self._limit
        text = self._stream.push(data, final=ends or full)
        self._text += text
        self.finished = ends or full or self._stream.stopped
        if not self.finished:
            return Piece(self._index, text) if text else None
        completion = Completion(
            prompt=self.prompt,
            text=self._text,
            tokens=tuple(self.tokens[self.prompt_tokens :]),
            prompt_tokens=self.prompt_tokens,
            finish="stop" if self._stream.stopped else "end" if ends else "length",
            dropped_tokens=0 if self._window is None else context_start(len(self.tokens) - 1, self._window),
        )
        return Piece(self._index, text, completion)
