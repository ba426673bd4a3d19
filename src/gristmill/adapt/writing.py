"""Tasks whose answers the model writes: what is learned of a text, and how the model writes one.

                     read                             learned
    decoder          bos prompt answer eos            the answer and its end, each token from all before it
    encoder-decoder  (bos) prompt eos | start answer  the answer and its end, which the decoder writes

Examples stand side by side in one row, so no position is padding; positions of different ones never see each other, and a target
sees the source of its own example alone. Decoders read from left to right, also those that saw prefixes whole in pretraining: so
they do wherever they write.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gristmill.adapt.encoding import Encoded, Encoder, Item, evened, in_parts, pack
from gristmill.adapt.net import PREDICTION_TOKENS, Net
from gristmill.adapt.task import Example, Figure, Task
from gristmill.batch import Batch, Loss, Source, Visibility
from gristmill.errors import InputError
from gristmill.generate.completing import complete_tokens
from gristmill.generate.decoding import prepare
from gristmill.generate.sampling import SamplingSettings
from gristmill.generate.sequences import BeamSettings, generate_sequences, search_sequences
from gristmill.metrics.intervals import ratio_interval
from gristmill.model.base import Model
from gristmill.model.config import Kind, ModelConfig
from gristmill.objectives.base import hidden_states, token_loss, token_scores
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.framing import start_token

__all__ = [
    "Said",
    "WritingTask",
    "end_of",
    "grouped",
    "item_of",
    "likelihood",
    "nats_of",
    "prompt_of",
    "prompt_room",
    "read_items",
    "shortened",
    "write",
]

E = TypeVar("E", bound=Example)
LOGITS_AT_A_TIME = 1 << 24
"""Scores over the vocabulary that are in memory at a time where all of them are needed."""
WRITTEN_AT_A_TIME = 32
"""Texts that are written at a time."""


class Said(NamedTuple):
    """How likely the model finds what it is to write."""

    nats: float
    tokens: int


class WritingTask(Task[E]):
    """Abstract. A task without a head: the model learns to write those tokens of its items that are marked.

    The target of an item says of each of its tokens whether it is one. Of an encoder-decoder, what stands before `encoded.second`
    is read by the encoder, and the rest is written.
    """

    chosen_by = "loss"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"decoder", "encoder-decoder"})
    label_smoothing: float = 0.0

    def outputs(self, examples: Sequence[E]) -> tuple[str, ...]:
        """Returns nothing: it is texts that are written."""
        return ()

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether a model can write, and end what it writes.

        Raises:
            InputError: it is an encoder, or of another kind than this task is for; or its tokenizer has no end.
        """
        name = type(self).__module__.rpartition(".")[2]
        if config.kind not in self.kinds:
            raise InputError(
                f'the task "{name}" needs a model that writes, and this base is of kind "{config.kind}"',
                f"set base to a model of kind {' or '.join(sorted(self.kinds))}",
            )
        end_of(tokenizer)
        if config.kind == "encoder-decoder":
            start_token(tokenizer.special)

    def loss(self, net: Net, items: Sequence[Item], dropout_seed: int = 0) -> Loss:
        """Returns the cross-entropy of all tokens that are to be written; smoothed in training, where that is set."""
        batch, hidden = read_items(net, items, dropout_seed)
        if self.label_smoothing and net.model.training:
            return _smoothed(net.model, batch, hidden, self.label_smoothing)
        return token_loss(net.model, batch, hidden)


def end_of(tokenizer: Tokenizer) -> int:
    """Returns the token that ends what is written.

    Raises:
        InputError: the tokenizer has none.
    """
    if "eos" not in tokenizer.special:
        raise InputError(
            "the tokenizer has no token that ends a text, so the model could not stop writing",
            'name it: eos_token = "…" in tokenizer_config.json, or [tokenizer.special_tokens] of the recipe of its run',
        )
    return tokenizer.special["eos"]


def prompt_room(encoder: Encoder, max_new_tokens: int) -> int:
    """Returns how many tokens a prompt may have, so that as many as may be written fit behind it, at most half of all."""
    return encoder.maximum_tokens - min(max_new_tokens, encoder.maximum_tokens // 2)


def shortened(text: str, tokenizer: Tokenizer, size: Callable[[str], int], room: int) -> str | None:
    """Returns the longest beginning of a text, or about, with which something is no larger than a room.

    Args:
        text: what may be cut at its end.
        tokenizer: in whose tokens it is cut.
        size: how large the whole is with some beginning of the text.
        room: how large it may be.

    Returns:
        None where not even a token of the text fits.
    """
    ((_, places),) = tokenizer.encode_with_places([text])
    kept, shorter = len(places), text
    while (excess := size(shorter) - room) > 0:
        kept -= excess
        if kept <= 0:
            return None
        shorter = text[: places[kept - 1][1]]
    return shorter


def item_of(
    prompt: Sequence[int], answer: Sequence[int] | None, number: int, *, room: int, cut: int = 0
) -> Item:
    """Returns a prompt and what is to be written after it, as far as there is room for that.

    Args:
        prompt: with the special tokens around it.
        answer: with its end; None where it is not known.
        number: of the example.
        room: the most tokens of the answer.
        cut: how many tokens of the prompt are gone.
    """
    told = tuple(answer or ())[:room]
    tokens = (*prompt, *told)
    lost = cut + len(answer or ()) - len(told)
    target = np.arange(len(tokens)) >= len(prompt)
    return Item(Encoded(tokens, 0, len(prompt), lost), target, number)


def prompt_of(item: Item) -> tuple[int, ...]:
    """Returns what the model reads before it writes."""
    return item.encoded.tokens[: item.encoded.second]


def grouped(items: Iterable[Item]) -> list[list[Item]]:
    """Returns the items of each example."""
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: item.example)]


@torch.no_grad()
def nats_of(net: Net, items: Sequence[Item]) -> list[Said]:
    """Returns how likely the model finds what is to be written in each item."""
    found: list[Said] = []
    for part in in_parts(items, PREDICTION_TOKENS):
        batch, hidden = read_items(net, part, 0)
        scores = token_scores(net.model, batch, hidden)
        owners = (batch.segments[0] - 1).cpu()
        counted = scores.counted[0].cpu()
        nats = torch.zeros(len(part), dtype=torch.float64)
        nats.index_add_(0, owners[counted], scores.nats[0].cpu()[counted].double())
        counts = torch.bincount(owners[counted], minlength=len(part))
        found += [Said(float(n), int(count)) for n, count in zip(nats, counts, strict=True)]
    return found


def likelihood(said: Sequence[Said]) -> dict[str, Figure]:
    """Returns the nats of a token that was to be written, and the perplexity, with intervals over examples."""
    nats, tokens = [each.nats for each in said], [each.tokens for each in said]
    mean = sum(nats) / max(1, sum(tokens))
    interval = ratio_interval(nats, tokens, seed=0)
    raised = None if interval is None else type(interval)(*np.exp(interval).tolist())
    return {
        "nats per token": Figure(mean, interval),
        "perplexity": Figure(float(np.exp(mean)), raised),
    }


def write(
    net: Net,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    beams: int = 1,
    ends: Collection[int] = (),
    stop: Sequence[str] = (),
) -> list[str]:
    """Returns what the model writes after each prompt: the likeliest token each time, or the best of some beams.

    Args:
        net: a model that writes.
        prompts: with the special tokens around them.
        max_new_tokens: the most tokens of an answer, the end among them.
        beams: how many sequences are kept on the way, of an encoder-decoder.
        ends: tokens that end an answer besides the tokenizer's own.
        stop: texts before which an answer of a decoder ends.
    """
    if not prompts:
        return []
    if net.model.config.kind == "decoder":
        settings = SamplingSettings(max_new_tokens=max_new_tokens, temperature=0.0, stop=tuple(stop))
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # little of a batch is padding
        done = complete_tokens(
            prepare(net.model), net.tokenizer, [prompts[i] for i in order], settings,
            batch_size=WRITTEN_AT_A_TIME, ends=ends,
        )  # fmt: skip
        texts = dict(zip(order, (each.text.strip() for each in done), strict=True))
        return [texts[i] for i in range(len(prompts))]
    return [net.tokenizer.decode(tokens).strip() for tokens in _written(net, prompts, max_new_tokens, beams)]


def _written(
    net: Net, prompts: Sequence[Sequence[int]], max_new_tokens: int, beams: int
) -> Iterator[tuple[int, ...]]:
    start, end = start_token(net.tokenizer.special), end_of(net.tokenizer)
    if beams == 1:
        settings = SamplingSettings(max_new_tokens=max_new_tokens, temperature=0.0)
        drawn = generate_sequences(
            net.model, prompts, settings, start=start, end=end, batch_size=WRITTEN_AT_A_TIME
        )
        yield from (each.tokens for each in drawn)
        return
    searched = BeamSettings(beams=beams, max_new_tokens=max_new_tokens)
    found = search_sequences(
        net.model, prompts, searched, start=start, end=end, batch_size=max(1, WRITTEN_AT_A_TIME // beams)
    )
    yield from (each[0].tokens for each in found)


# --- what a model makes of items --------------------------------------------------------------------------------------


def read_items(net: Net, items: Sequence[Item], dropout_seed: int) -> tuple[Batch, Float[Tensor, "1 T D"]]:
    """Returns items side by side, and the hidden states from which their tokens are told; segments count items from 1."""
    if net.model.config.kind == "encoder-decoder":
        batch = _with_sources(items, start_token(net.tokenizer.special)).to(net.device)
        hidden = hidden_states(net.model, evened(batch), dropout_seed)
        return batch, hidden[:, : batch.tokens.shape[1]]
    # the last token of an item is only ever a target
    packed = pack([_without_last(item.encoded) for item in items], Visibility.CAUSAL, token_types=False)
    targets = torch.tensor([[token for item in items for token in item.encoded.tokens[1:]]])
    batch = _weighted(packed.batch, targets, [item.target[1:] * item.weight for item in items])
    packed = packed._replace(batch=batch.to(net.device))
    return packed.batch, net.hidden(packed, dropout_seed)[None]


def _with_sources(items: Sequence[Item], start: int) -> Batch:
    sources = [Encoded(prompt_of(item), 0, 0, 0) for item in items]
    written = [item.encoded.tokens[item.encoded.second :] for item in items]
    read = pack(sources, Visibility.FULL, token_types=False).batch
    shifted = [Encoded((start, *tokens[:-1]), 0, 0, 0) for tokens in written]
    batch = pack(shifted, Visibility.CAUSAL, token_types=False).batch
    targets = torch.tensor([[token for tokens in written for token in tokens]])
    weights = [item.target[item.encoded.second :] * item.weight for item in items]
    source = Source(tokens=read.tokens, segments=read.segments)
    return _weighted(batch, targets, weights, source)


def _without_last(encoded: Encoded) -> Encoded:
    return Encoded(encoded.tokens[:-1], encoded.first, encoded.second, encoded.cut)


def _weighted(
    batch: Batch, targets: Tensor, weights: Sequence[np.ndarray], source: Source | None = None
) -> Batch:
    return Batch(
        tokens=batch.tokens,
        targets=targets,
        weights=torch.from_numpy(np.concatenate(weights).astype(np.float32))[None],
        segments=batch.segments,
        visibility=batch.visibility,
        source=source,
    )


def _smoothed(model: Model, batch: Batch, hidden: Float[Tensor, "1 T D"], smoothing: float) -> Loss:
    """Cross-entropy with a share of each target spread evenly over the vocabulary (Szegedy et al. 2016, section 7)."""
    weights = batch.weights.flatten()
    chosen: Bool[Tensor, " T"] = weights != 0
    rows, targets, weights = hidden.flatten(0, 1)[chosen], batch.targets.flatten()[chosen], weights[chosen]

    def some(rows: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        scores = model.logits(rows).float()
        nats = F.cross_entropy(scores, targets, reduction="none", label_smoothing=smoothing)
        return (nats * weights).sum()

    size = max(1, LOGITS_AT_A_TIME // model.config.vocab_size)
    parts = zip(*(torch.split(each, size) for each in (rows, targets, weights)), strict=True)
    totals = [checkpoint(some, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return Loss(total_nats=torch.stack(totals).sum(), weight=weights.sum())
