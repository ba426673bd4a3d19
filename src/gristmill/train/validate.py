"""The loss on a whole set of documents, document by document."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Num

from gristmill.corpus.rows import plan_epoch, read_rows
from gristmill.corpus.shards import TokenStore
from gristmill.model.base import Model
from gristmill.objectives.base import Objective
from gristmill.objectives.causal import Causal
from gristmill.rng import stream
from gristmill.vocabulary import Vocabulary

__all__ = ["DocumentScores", "score_documents"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DocumentScores:
    """What each document's text costs. Tokens that stand for no text (the end of a document) are not counted."""

    nats: Float[np.ndarray, " documents"]
    tokens: Num[np.ndarray, " documents"]
    """Those that were predicted: all of them under `causal`, a sample of them under `masked`; each counts as in training,
    so that under `hybrid` a masked row is as many tokens as it has."""
    text_bytes: Num[np.ndarray, " documents"]
    """The size of what was predicted, in UTF-8; each token counts as in `tokens`."""
    parts_nats: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The mean loss of each part that the objective reports on its own."""

    @property
    def nats_per_token(self) -> float:
        """Mean loss; its exponential is the perplexity."""
        return float(self.nats.sum() / max(1, self.tokens.sum()))

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of the text that was predicted: comparable between tokenizers, not between objectives.

        What a model is told before it predicts differs: all that stands before, or most of what stands around.
        """
        return float(self.nats.sum() / np.log(2) / max(1, self.text_bytes.sum()))


@torch.no_grad()
def score_documents(
    model: Model,
    store: TokenStore,
    *,
    row_tokens: int,
    vocabulary: Vocabulary,
    objective: Objective | None = None,
    batch_tokens: int = 8192,
    maximum_rows: int | None = None,
) -> DocumentScores:
    """Returns the nats of every document under an objective (causal if none), in document order.

    A document longer than a row is cut into rows that do not overlap; each begins without context. What an objective
    draws at random, which tokens are masked for instance, is the same in every validation of the same documents.
    With `maximum_rows` only the first rows are scored: the documents are then not whole, which is for timing alone.
    """
    was_training = model.training
    model.eval()
    objective = objective or Causal()
    lengths = np.diff(store.offsets)
    plan = plan_epoch(lengths, row_tokens, seed=0, epoch=0, shuffle=False, lookahead=objective.lookahead)
    documents = len(lengths)
    nats, tokens, text_bytes = np.zeros((3, documents))
    parts: dict[str, Float[np.ndarray, " 2"]] = {}
    device = next(model.parameters()).device
    rows_at_a_time = max(1, batch_tokens // row_tokens)
    wanted = min(plan.rows, maximum_rows or plan.rows)
    for first in range(0, wanted, rows_at_a_time):
        rows = read_rows(store, plan, np.arange(first, min(first + rows_at_a_time, wanted)))
        rows = dataclasses.replace(rows, vocabulary=vocabulary)
        batch = objective.prepare(rows, stream(0, "validation", first), 1.0)
        scores = objective.scores(model, batch.to(device))
        targets = batch.targets.numpy()
        weights = scores.weights.double().cpu().numpy() * vocabulary.is_ordinary[targets]
        counts = weights != 0
        which = _documents_of_positions(batch.segments.numpy(), rows.documents)[counts.ravel()]
        each, weights = scores.nats.double().cpu().numpy()[counts], weights[counts]
        np.add.at(nats, which, each * weights)
        np.add.at(tokens, which, weights)
        np.add.at(text_bytes, which, vocabulary.lengths[targets[counts]] * weights)
        for name, positions in scores.parts.items():
            inside = positions.cpu().numpy()[counts]
            sums = np.array([(each * weights)[inside].sum(), weights[inside].sum()])
            parts[name] = parts.get(name, np.zeros(2)) + sums
    model.train(was_training)
    if objective.whole and wanted == plan.rows:
        text_bytes = store.text_bytes.astype(np.float64)  # exact also where tokens overlap in bytes
    means = {name: float(total / weight) for name, (total, weight) in parts.items() if weight}
    return DocumentScores(nats=nats, tokens=tokens, text_bytes=text_bytes, parts_nats=means)


def _documents_of_positions(segments: np.ndarray, documents: tuple[tuple[int, ...], ...]) -> np.ndarray:
    table = np.zeros((len(documents), max(len(row) for row in documents) + 1), dtype=np.int64)
    for i, row in enumerate(documents):
        table[i, 1 : len(row) + 1] = row
    return np.take_along_axis(table, segments, axis=1).ravel()
