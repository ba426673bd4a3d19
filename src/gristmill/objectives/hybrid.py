"""Predict the next token from those before it in some rows, and masked tokens from all others in the rest.

GPT-BERT (Charpentier and Samuel 2024, arXiv:2410.24159): one decoder, and both kinds of rows in each batch. A masked
token is told one position before it, so that every position says what comes next, whatever it sees. Two rows of one
text; the first is causal, in the second b and d are masked:

    tokens     <bos> a   b   c   d           <bos>  a  <mask>  c  <mask>
    targets    a     b   c   d   <eos>         a    b    c     d   <eos>
    prefix     0     0   0   0   0             1    1    1     1    1      (seen by all)
    weights    1     1   1   1   1             0   2.5   0    2.5   0      (a row counts as many tokens as it has)

The model that comes out writes text like any decoder, and tells a masked token from both sides.
"""

import dataclasses
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from gristmill.batch import Batch, Loss, Visibility
from gristmill.model.base import Model
from gristmill.model.config import Kind
from gristmill.objectives.base import (
    HowHidden,
    Rate,
    Scores,
    at,
    average,
    hidden_states,
    token_loss,
    token_scores,
)
from gristmill.objectives.choosing import Masking, MaskingObjective, maskable
from gristmill.objectives.pieces import check_shares
from gristmill.rows import Rows

__all__ = ["Hybrid"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Hybrid(MaskingObjective):
    """Causal and masked next-token prediction together; a `causal_share` of 1 or 0 is one of them alone."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"decoder"})
    family: ClassVar[str] = "qwen3"
    lookahead: ClassVar[int] = 1
    hidden: ClassVar[HowHidden] = "one before"
    reads_whole: ClassVar[bool] = True

    causal_share: Rate = 0.5
    """Share of the rows that is causal. 0.0625 is the paper's, for a model that reads its text a thousand times. One
    that read it ten times lost nothing on minimal pairs by more causal rows (BabyLM 2025: 71.7 % against 71.3 %), and
    it is they that teach it to write."""
    masking: Masking = dataclasses.field(default_factory=Masking)
    """What is masked in the other rows."""

    def __post_init__(self) -> None:
        check_shares(causal_share=self.causal_share)

    @property
    def scored_share(self) -> float:
        """Every token of the causal rows, and what is masked in the others."""
        causal = average(self.causal_share)
        return causal + (1 - causal) * average(self.masking.rate)

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the batch of causal and of masked rows; which are which is drawn."""
        tokens, segments = rows.tokens.astype(np.int64), rows.segments.astype(np.int64)
        wanted = int(at(self.causal_share, progress) * len(tokens) + rng.random())
        causal = np.zeros(len(tokens), dtype=bool)
        causal[rng.permutation(len(tokens))[:wanted]] = True
        eligible = maskable(tokens, segments, rows.words) & ~causal[:, None]
        # nothing in its segment stands before the first token to tell it
        eligible[:, 0] = False
        eligible[:, 1:] &= segments[:, 1:] == segments[:, :-1]
        masked, chosen = self.masking.mask(tokens, segments, eligible, rows.words, rng, progress)
        followed = rows.following >= 0
        told = np.zeros_like(chosen)
        told[:, :-1] = chosen[:, 1:]
        worth = (followed & ~causal[:, None]).sum() / max(1, told.sum())
        weights = np.where(causal[:, None], followed, told * worth)
        return Batch(
            tokens=torch.from_numpy(masked),
            targets=torch.from_numpy(rows.following.astype(np.int64)).clamp(min=0),
            weights=torch.from_numpy(weights).float(),
            segments=torch.from_numpy(segments),
            visibility=Visibility.PREFIX,
            prefix=torch.from_numpy((segments != 0) & ~causal[:, None]),
        )

    def loss(self, model: Model, batch: Batch, dropout_seed: int = 0) -> Loss:
        """Returns the weighted sum of nats; its parts are the causal and the masked rows."""
        hidden = hidden_states(model, batch, dropout_seed)
        losses = {
            name: token_loss(
                model, dataclasses.replace(batch, weights=batch.weights * of_rows[:, None]), hidden
            )
            for name, of_rows in _halves(batch).items()
            if bool(of_rows.any())
        }
        return Loss(
            total_nats=torch.stack([loss.total_nats for loss in losses.values()]).sum(),
            weight=batch.weights.sum(),
            parts={name: (loss.total_nats.detach(), loss.weight) for name, loss in losses.items()},
        )

    def scores(self, model: Model, batch: Batch) -> Scores:
        """Returns the nats of each target that counts, in rows of both kinds, which count alike."""
        scores = token_scores(model, batch, hidden_states(model, batch))
        parts = {name: scores.counted & of_rows[:, None] for name, of_rows in _halves(batch).items()}
        return Scores(scores.nats, scores.weights, parts)


def _halves(batch: Batch) -> dict[str, Tensor]:
    """The rows of each kind."""
    assert batch.prefix is not None
    masked = batch.prefix.any(1)
    return {"causal": ~masked, "masked": masked}


EXPORT = Hybrid
