"""The loss on a whole set of documents, document by document."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Int

from gristmill.corpus.rows import plan_epoch, read_rows
from gristmill.corpus.shards import TokenStore
from gristmill.model import ops
from gristmill.model.transformer import Transformer
from gristmill.objectives.base import hidden_states
from gristmill.objectives.causal import Causal

__all__ = ["DocumentScores", "score_documents"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DocumentScores:
    """What each document's text costs. Tokens that stand for no text (the end of a document) are not counted."""

    nats: Float[np.ndarray, " documents"]
    tokens: Int[np.ndarray, " documents"]
    text_bytes: Int[np.ndarray, " documents"]

    @property
    def nats_per_token(self) -> float:
        """Mean loss; its exponential is the perplexity."""
        return float(self.nats.sum() / max(1, self.tokens.sum()))

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of UTF-8 text: comparable between tokenizers."""
        return float(self.nats.sum() / np.log(2) / max(1, self.text_bytes.sum()))


@torch.no_grad()
def score_documents(
    model: Transformer,
    store: TokenStore,
    *,
    row_tokens: int,
    end_token: int,
    batch_tokens: int = 8192,
    maximum_rows: int | None = None,
) -> DocumentScores:
    """Returns the nats of every document under a causal model, rows cut as in training, in document order.

    A document longer than a row is cut into rows that do not overlap; each begins without context. With
    `maximum_rows` only the first rows are scored: the documents are then not whole, which is for timing alone.
    """
    was_training = model.training
    model.eval()
    plan = plan_epoch(np.diff(store.offsets), row_tokens, seed=0, epoch=0, shuffle=False)
    objective, rng = Causal(), np.random.default_rng(0)
    documents = len(store.offsets) - 1
    nats, tokens = np.zeros(documents), np.zeros(documents, dtype=np.int64)
    device = next(model.parameters()).device
    rows_at_a_time = max(1, batch_tokens // row_tokens)
    wanted = min(plan.rows, maximum_rows or plan.rows)
    for first in range(0, wanted, rows_at_a_time):
        rows = read_rows(store, plan, np.arange(first, min(first + rows_at_a_time, wanted)))
        batch = objective.prepare(rows, rng).to(device)
        hidden = hidden_states(model, batch).flatten(0, 1)
        _, each = ops.cross_entropy(
            hidden, model.output_weight, batch.targets.flatten(), batch.weights.flatten()
        )
        counts = ((batch.weights > 0) & (batch.targets != end_token)).flatten().cpu().numpy()
        which = _documents_of_positions(rows.segments, rows.documents)[counts]
        np.add.at(nats, which, each.double().cpu().numpy()[counts])
        np.add.at(tokens, which, 1)
    model.train(was_training)
    return DocumentScores(nats=nats, tokens=tokens, text_bytes=store.text_bytes.astype(np.int64))


def _documents_of_positions(segments: np.ndarray, documents: tuple[tuple[int, ...], ...]) -> np.ndarray:
    table = np.zeros((len(documents), max(len(row) for row in documents) + 1), dtype=np.int64)
    for i, row in enumerate(documents):
        table[i, 1 : len(row) + 1] = row
    return np.take_along_axis(table, segments, axis=1).ravel()
