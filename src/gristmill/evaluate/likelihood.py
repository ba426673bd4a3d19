"""How likely a model finds texts: nats per token, perplexity and bits per byte, each with an interval."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.corpus.shards import TokenStore
from gristmill.errors import InputError
from gristmill.metrics.intervals import ratio_interval
from gristmill.model.base import Model
from gristmill.objectives.base import Objective
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.framing import document_frame
from gristmill.train.settings import default_objective
from gristmill.train.validate import DocumentScores, score_documents

__all__ = ["Scored", "figures", "score_texts"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One document's text, and where it is from."""

    text: str
    source: str
    language: str


def score_texts(
    model: Model,
    tokenizer: Tokenizer,
    documents: Sequence[Scored],
    *,
    row_tokens: int,
    objective: Objective | None = None,
) -> DocumentScores:
    """Returns what each document costs under an objective, in rows of `row_tokens` that do not overlap, as in validation.

    Without an objective it is the one that the kind of model is trained with by default: causal for decoders.

    Raises:
        InputError: there is no text, or the tokenizer lacks a special token.
    """
    if not any(document.text for document in documents):
        raise InputError("there is no text to measure")
    objective = objective or default_objective(model.config.kind)
    vocabulary = tokenizer.vocabulary()
    objective.check_vocabulary(vocabulary)
    edges = document_frame(tokenizer.special, model.config.kind)
    encoded = [edges.around(ids) for ids in tokenizer.encode_batch([document.text for document in documents])]
    store = TokenStore(
        tokens=np.concatenate([np.array(ids, dtype=np.int64) for ids in encoded]),
        offsets=np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])]),
        text_bytes=np.array([len(document.text.encode()) for document in documents], dtype=np.int64),
        path=Path("unused"),
    )
    return score_documents(model, store, row_tokens=row_tokens, vocabulary=vocabulary, objective=objective)


def figures(
    scores: DocumentScores, *, seed: int, languages: Sequence[str] = (), sources: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the figures overall and, where a label is given for each document, by language and by source."""
    result: dict[str, Any] = {"overall": _figure(scores, np.ones(len(scores.tokens), dtype=bool), seed)}
    for name, labels in (("by_language", languages), ("by_source", sources)):
        if labels:
            table = np.array(labels)
            result[name] = {label: _figure(scores, table == label, seed) for label in _by_size(table, scores)}
    return result


def _by_size(labels: np.ndarray, scores: DocumentScores) -> Iterable[str]:
    sizes = {label: int(scores.text_bytes[labels == label].sum()) for label in dict.fromkeys(labels.tolist())}
    return sorted((label for label, size in sizes.items() if size), key=lambda label: -sizes[label])


def _figure(scores: DocumentScores, chosen: np.ndarray, seed: int) -> dict[str, Any]:
    counted = chosen & (scores.tokens > 0)
    nats, tokens, text_bytes = scores.nats[counted], scores.tokens[counted], scores.text_bytes[counted]
    per_token = float(nats.sum() / max(1, tokens.sum()))
    figure: dict[str, Any] = {
        "documents": int(counted.sum()),
        "tokens": round(tokens.sum()),
        "text_bytes": round(text_bytes.sum()),
        "nats_per_token": per_token,
        "perplexity": math.exp(min(per_token, 700.0)),
        "bits_per_byte": float(nats.sum() / math.log(2) / max(1, text_bytes.sum())),
    }
    for name, over, under in (
        ("nats_per_token_interval", nats, tokens),
        ("bits_per_byte_interval", nats / math.log(2), text_bytes),
    ):
        interval = ratio_interval(over, under, seed=seed) if len(over) else None
        figure[name] = None if interval is None else list(interval)
    return figure
