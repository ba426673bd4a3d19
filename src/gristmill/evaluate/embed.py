"""Texts as vectors: one for each, made of a model's hidden states."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gristmill.batch import Batch, Visibility
from gristmill.errors import InputError
from gristmill.evaluate.scoring import (
    BATCH_TOKENS,
    batches_by_length,
    check_texts,
    in_float32,
)
from gristmill.model.base import Model
from gristmill.model.config import ModelConfig
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import segment_positions, segment_spans
from gristmill.objectives.base import hidden_states
from gristmill.objectives.trained import visibility_for
from gristmill.tokenizer.framing import Frame, frame
from gristmill.vocabulary import Vocabulary

__all__ = ["POOLINGS", "Pooling", "embed", "normalised", "padded", "pooled", "read"]

Pooling = Literal["mean", "cls", "last"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")


@torch.no_grad()
def embed(
    model: Model,
    vocabulary: Vocabulary,
    texts: Sequence[Sequence[int]],
    *,
    pooling: Pooling = "mean",
    visibility: Visibility | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Float[np.ndarray, "texts D"]:
    """Returns a vector for each text, in float32, not normalised (see `normalised`).

    Args:
        model: any kind; of an encoder-decoder the encoder reads.
        vocabulary: what the tokens stand for.
        texts: token ids of each, without special tokens.
        pooling: "mean" of all positions (as in sentence-transformers, special tokens among them; but where each
            position sees only what stands before, the first special token has seen no text and is left out); "cls" is
            the state of the [CLS] before the text; "last" that of the last token, which alone has seen all of a text
            that is read from left to right.
        visibility: how the text is read, from `visibility_for`; by default as suits the model's kind.
        batch_tokens: positions in a pass.

    Raises:
        InputError: the pooling does not suit how the model reads, a text is empty or longer than the model takes.
    """
    visibility = visibility or visibility_for(None, model.config)
    _check_pooling(pooling, model.config, visibility, vocabulary)
    check_texts(model.config, texts)
    model = in_float32(model)
    was_training = model.training
    model.eval()
    edges = frame(vocabulary.special, model.config.kind)
    device = next(model.parameters()).device
    lengths = np.array([len(text) for text in texts], dtype=np.int64) + edges.size
    order = np.argsort(lengths, kind="stable")
    vectors = np.empty((len(texts), model.config.width), dtype=np.float32)
    for rows in batches_by_length(lengths[order], batch_tokens):
        tokens, segments = (x.to(device) for x in padded([texts[i] for i in order[rows]], edges))
        hidden = read(model, tokens, segments, visibility)
        vectors[order[rows]] = pooled(hidden, segments, pooling, visibility).cpu().numpy()
    model.train(was_training)
    return vectors


def _check_pooling(
    pooling: Pooling, config: ModelConfig, visibility: Visibility, vocabulary: Vocabulary
) -> None:
    if pooling == "cls":
        if config.kind != "encoder" or visibility is not Visibility.FULL:
            raise InputError(
                f'pooling "cls" needs an encoder, but this model is of kind {config.kind}: what stands before a text '
                "learned nothing about it",
                'use pooling "mean"',
            )
        if not {"cls", "sep"} <= set(vocabulary.special):
            raise InputError(
                'pooling "cls" needs a tokenizer with [CLS] and [SEP] tokens, and this one has none',
                'use pooling "mean"',
            )
    if pooling == "last" and visibility is not Visibility.CAUSAL:
        raise InputError(
            'pooling "last" is for models that read from left to right; in this one all positions see all of the text',
            'use pooling "mean"',
        )


def normalised(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Returns the vectors at length 1, so that their products are cosines."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float[np.ndarray, "N D"] = vectors / np.maximum(lengths, 1e-12)
    return unit


def read(
    model: Model,
    tokens: Int[Tensor, "B T"],
    segments: Int[Tensor, "B T"],
    visibility: Visibility,
    dropout_seed: int = 0,
) -> Float[Tensor, "B T D"]:
    """Returns the hidden states of texts as the model reads them: of an encoder-decoder, the encoder's."""
    if model.config.kind == "encoder-decoder":
        assert isinstance(model, Transformer)
        return model.encode(
            tokens,
            spans=segment_spans(segments, Visibility.FULL),
            positions=segment_positions(segments),
            dropout_seed=dropout_seed,
        )
    batch = Batch(
        tokens=tokens,
        targets=tokens,
        weights=torch.zeros(tokens.shape, device=tokens.device),
        # padding comes last, and causal positions do not see it
        segments=segments if visibility is not Visibility.CAUSAL else torch.ones_like(segments),
        visibility=visibility,
    )
    return hidden_states(model, batch, dropout_seed)


def pooled(
    hidden: Float[Tensor, "B T D"],
    segments: Int[Tensor, "B T"],
    pooling: Pooling,
    visibility: Visibility,
) -> Float[Tensor, "B D"]:
    """Returns one vector for each row, in float32; padding does not count."""
    if pooling == "cls":
        return hidden[:, 0].float()
    if pooling == "last":
        last = segments.sum(1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float()
    weights = segments.float()
    if visibility is Visibility.CAUSAL:
        weights = weights.clone()
        weights[:, 0] = 0.0
    return (hidden.float() * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


def padded(texts: Sequence[Sequence[int]], edges: Frame) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Returns tokens between their special tokens, and segments: 1, and 0 for the padding on the right."""
    rows = [edges.around(text) for text in texts]
    width = max(len(row) for row in rows)
    tokens, segments = torch.zeros(2, len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        segments[i, : len(row)] = 1
    return tokens, segments
