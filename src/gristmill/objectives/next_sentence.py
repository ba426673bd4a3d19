"""Tell masked tokens, and whether the second of two texts follows the first (Devlin et al. 2019, section 3.1).

Each piece of a document is cut in two at the end of a sentence, and takes the place that it had in its row:

    tokens       <cls> It  <mask>  .  <sep>  She  went  <mask>  .  <sep>
    targets      <cls> It  rained  .  <sep>  She  went   out    .  <sep>
    weights      0     0   1       0  0      0    0      1      0  0
    token_types  0     0   0       0  0      1    1      1      1  1
    pairs        0 (it follows), told from <cls>

Task "next" (BERT, arXiv:1810.04805): the second text is that of another document in half of the pairs. Task "order"
(Lan et al. 2020, ALBERT, arXiv:1909.11942, section 3.1): the two change places in half of the pairs, which topic alone
can't tell.
"""

import dataclasses
from typing import ClassVar, Literal, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int

from gristmill import plugins
from gristmill.batch import Batch, Loss, Pairs, Visibility
from gristmill.errors import InputError
from gristmill.model.base import Model
from gristmill.model.config import Kind, ModelConfig
from gristmill.model.family import Family
from gristmill.model.transformer import Transformer
from gristmill.objectives.base import (
    HowHidden,
    Scores,
    hidden_states,
    token_loss,
    token_scores,
)
from gristmill.objectives.choosing import Masking, MaskingObjective, framed, maskable, piece_bounds
from gristmill.objectives.sentences import sentence_ends
from gristmill.rows import Rows

__all__ = ["NextSentence"]

SHORTEST_PAIR = 16
"""Pieces with fewer tokens are masked and make no pair."""

DONORS = 16
"""How many other pieces are looked at for a text that begins and ends as the true one does."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class NextSentence(MaskingObjective):
    """Masked language modelling together with next-sentence or sentence-order prediction, as BERT was trained."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder"})
    family: ClassVar[str] = "bert"
    special: ClassVar[tuple[str, ...]] = ("mask", "cls", "sep")
    hidden: ClassVar[HowHidden] = "in place"

    task: Literal["next", "order"] = "next"
    """What is told of a pair: whether the second text follows the first, or whether the two stand in order. Texts
    in order consist of whole sentences, so "order" leaves about 15 % of rows of 256 tokens empty."""
    masking: Masking = dataclasses.field(default_factory=Masking)
    """What is masked in both texts."""

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the batch of pairs, some of their tokens masked."""
        vocabulary = rows.words
        made = self._pairs(rows, rng)
        eligible = maskable(made.tokens, made.segments, vocabulary)
        masked, chosen = self.masking.mask(made.tokens, made.segments, eligible, vocabulary, rng, progress)
        places, pairs = divmod(made.first, rows.tokens.shape[1]), len(made.labels)
        return Batch(
            tokens=torch.from_numpy(masked),
            targets=torch.from_numpy(made.tokens),
            weights=torch.from_numpy(chosen).float(),
            segments=torch.from_numpy(made.segments),
            visibility=Visibility.FULL,
            token_types=torch.from_numpy(made.types),
            pairs=Pairs(
                rows=torch.from_numpy(places[0]),
                columns=torch.from_numpy(places[1]),
                labels=torch.from_numpy(made.labels),
                # the mean over the pairs beside the mean over the masked tokens, also in a part of this batch
                weights=torch.full((pairs,), int(chosen.sum()) / max(1, pairs)),
            ),
        )

    def loss(self, model: Model, batch: Batch, dropout_seed: int = 0) -> Loss:
        """Returns nats whose mean is that of the masked tokens plus that of the pairs, as BERT adds them."""
        assert isinstance(model, Transformer)
        assert batch.pairs is not None
        pairs = batch.pairs
        hidden = hidden_states(model, batch, dropout_seed)
        masked = token_loss(model, batch, hidden)
        scores = model.pair_logits(hidden[pairs.rows, pairs.columns])
        told = (F.cross_entropy(scores, pairs.labels, reduction="none") * pairs.weights).sum()
        return Loss(
            total_nats=masked.total_nats + told,
            weight=masked.weight,
            parts={
                "masked": (masked.total_nats.detach(), masked.weight),
                "pair": (told.detach(), pairs.weights.sum()),
            },
        )

    def scores(self, model: Model, batch: Batch) -> Scores:
        """Returns the nats of the masked tokens."""
        return token_scores(model, batch, hidden_states(model, batch))

    def refine(self, config: ModelConfig) -> ModelConfig:
        """Returns the config with a head for pairs.

        Raises:
            InputError: the family has no place for one.
        """
        family: Family = plugins.load("model.families", config.family)
        if not family.pair_head:
            raise InputError(
                f'objective "next_sentence" needs a family with a head for pairs, and "{config.family}" has none',
                f'set model.family = "{self.family}" (or leave it out), or use objective "masked"',
            )
        return dataclasses.replace(config, pair_head=True)

    def _pairs(self, rows: Rows, rng: np.random.Generator) -> "_Made":
        """Every piece as a pair, where it makes one; the others are framed and stay as they are."""
        vocabulary, segments = rows.words, rows.segments.astype(np.int64)
        pieces = _Pieces.of(rows)
        made = framed(rows.tokens.astype(np.int64), segments, vocabulary)
        types = np.zeros_like(made)
        cls, sep = vocabulary.id("cls"), vocabulary.id("sep")
        found: list[tuple[int, int]] = []
        make = {"next": _next, "order": _order}[self.task]
        # as many numbers for each piece, whatever becomes of it
        for piece, draw in enumerate(rng.random((len(pieces.first), 4))):
            first, after = int(pieces.first[piece]), int(pieces.after[piece])
            pair = make(pieces, piece, draw) if after - first >= SHORTEST_PAIR else None
            if pair is None:
                continue
            one, other, label = pair
            second, end = first + 2 + len(one), first + 3 + len(one) + len(other)
            made.ravel()[first:end] = np.concatenate([[cls], one, [sep], other, [sep]])
            types.ravel()[second:end] = 1
            made.ravel()[end:after] = segments.ravel()[end:after] = 0
            found.append((first, label))
        places = np.array(found, dtype=np.int64).reshape(-1, 2)
        return _Made(made, segments, types, places[:, 0], places[:, 1])


class _Made(NamedTuple):
    tokens: Int[np.ndarray, "B T"]
    segments: Int[np.ndarray, "B T"]
    types: Int[np.ndarray, "B T"]
    first: Int[np.ndarray, " N"]
    """Where each pair begins, in the rows one after another."""
    labels: Int[np.ndarray, " N"]


class _Pieces(NamedTuple):
    """The pieces of documents in the rows, laid one after another."""

    tokens: Int[np.ndarray, " BT"]
    ordinary: Bool[np.ndarray, " BT"]
    ends: Bool[np.ndarray, " BT"]
    """Whether a sentence ends with a token."""
    first: Int[np.ndarray, " pieces"]
    after: Int[np.ndarray, " pieces"]
    rows: Int[np.ndarray, " pieces"]
    documents: Int[np.ndarray, " pieces"]
    """The document of each piece; where rows do not tell, every piece counts as one."""

    @classmethod
    def of(cls, rows: Rows) -> "_Pieces":
        tokens = rows.tokens.ravel().astype(np.int64)
        first, after = piece_bounds(rows.segments)
        in_rows = first // rows.tokens.shape[1]
        numbers = rows.segments.ravel()[first]
        documents = [
            rows.documents[row][number - 1] if rows.documents else -1 - piece
            for piece, (row, number) in enumerate(zip(in_rows.tolist(), numbers.tolist(), strict=True))
        ]
        return cls(
            tokens=tokens,
            ordinary=rows.words.is_ordinary[tokens],
            ends=sentence_ends(tokens, rows.words),
            first=first,
            after=after,
            rows=in_rows,
            documents=np.array(documents, dtype=np.int64),
        )

    def text(self, piece: int) -> slice:
        """Where the text of a piece stands, which is what is between its first token and its last."""
        return slice(int(self.first[piece]) + 1, int(self.after[piece]) - 1)

    def cuts(self, piece: int) -> Int[np.ndarray, " cuts"]:
        """After how many tokens of a piece's text a sentence ends."""
        return np.flatnonzero(self.ends[self.text(piece)]) + 1


_Pair = tuple[Int[np.ndarray, " M"], Int[np.ndarray, " N"], int]


def _next(pieces: _Pieces, piece: int, draw: Float[np.ndarray, " 4"]) -> _Pair | None:
    """A text and what follows it, or what follows in another document: label 1."""
    text, cuts = pieces.tokens[pieces.text(piece)], pieces.cuts(piece)
    room = len(text) - 1  # a place is needed for the [SEP] between the two
    cut = _cut(cuts, 0, room, draw[0])
    if cut is None:
        return None
    other = _foreign(pieces, piece, room - cut, draw)
    if other is None:
        return None  # without another text to draw there would be but one answer
    return (text[:cut], text[cut:room], 0) if draw[1] < 0.5 else (text[:cut], other, 1)


def _foreign(
    pieces: _Pieces, piece: int, size: int, draw: Float[np.ndarray, " 4"]
) -> Int[np.ndarray, " N"] | None:
    """Up to `size` tokens of another document that begin and end as the piece's own second text does.

    They begin with a sentence. Where the piece is the end of its document, its own text lacks but the last token of a
    sentence, and so do these: how a text ends would else tell whether it follows.
    """
    others = pieces.documents != pieces.documents[piece]
    if not others.any():  # one long document: what stands elsewhere in it
        others = pieces.rows != pieces.rows[piece]
    donors = np.flatnonzero(others & (pieces.after - pieces.first - 2 >= size))
    for donor in np.roll(donors, -int(draw[2] * len(donors)))[:DONORS].tolist():
        text, cuts = pieces.tokens[pieces.text(donor)], pieces.cuts(donor)
        first = int(pieces.first[donor])
        starts = np.append(0, cuts) if not pieces.ordinary[first] or pieces.ends[first] else cuts
        starts = starts[starts <= len(text) - size]
        if not len(starts):
            continue
        start = int(starts[int(draw[3] * len(starts))])
        end = start + size
        if not pieces.ordinary[pieces.after[piece] - 1]:
            end = int(cuts[cuts <= end + 1].max(initial=0)) - 1
        if end - start >= max(1, size // 2):
            return text[start:end]
    return None


def _order(pieces: _Pieces, piece: int, draw: Float[np.ndarray, " 4"]) -> _Pair | None:
    """Two texts that follow each other, in order or (label 1) not.

    They consist of whole sentences: if one began or ended in the middle of one, that would tell which is which.
    """
    text, cuts = pieces.tokens[pieces.text(piece)], pieces.cuts(piece)
    if not len(cuts):
        return None
    begins = 0 if not pieces.ordinary[pieces.first[piece]] else int(cuts[0])
    fitting = cuts[cuts <= min(len(text), begins + len(text) - 1)]
    if not len(fitting):
        return None  # one sentence fills the whole piece
    ends = int(fitting[-1])
    cut = _cut(fitting, begins, ends, draw[0])
    if cut is None or ends - begins < len(text) // 2:
        return None
    one, other = text[begins:cut], text[cut:ends]
    return (one, other, 0) if draw[1] < 0.5 else (other, one, 1)


def _cut(cuts: Int[np.ndarray, " cuts"], begins: int, ends: int, draw: float) -> int | None:
    """The cut that is nearest to a random place, with an eighth of the text at least on either side of it."""
    least = max(1, (ends - begins) // 8)
    cuts = cuts[(cuts >= begins + least) & (cuts <= ends - least)]
    return int(cuts[np.abs(cuts - begins - draw * (ends - begins)).argmin()]) if len(cuts) else None


EXPORT = NextSentence
