"""How likely a model of any kind finds sentences: exact where it reads left to right, else a pseudo-log-likelihood.

What a model can be asked follows from what it was trained for:

    objective               a token's log-probability is read
    causal, prefix          from all that stands before it: the sum is the sentence's log-likelihood
    hybrid                  likewise; or, with the token masked and all else seen, one position before it
    masked, next_sentence   at the mask in its place, all else seen
    permuted                at a query that sees all else (its own token it never sees)
    spans                   after the sentinel that stands for it in the source
    denoise                 in the text that is written again, after the true tokens before it; the source has a mask
    detect                  there is none: the log-probability that the token was not replaced stands in its place

Masked once for each token, these sum to the pseudo-log-likelihood (Salazar et al. 2020, arXiv:1910.14659, section 2).
It finds words of several tokens too likely, since their other pieces give each one away; so by default the later
tokens of the same word are masked as well (Kauf and Ivanova 2023, arXiv:2305.10588: "within-word left-to-right").

What all ways share, so that figures can be compared with published ones: a sentence stands between the special tokens
that documents were trained with, and those are not scored, the end neither; the sum is not divided by the length;
nothing precedes the first word, no space either.
"""

import abc
import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gristmill.batch import Batch, Source, Visibility
from gristmill.config import to_dict
from gristmill.errors import InputError
from gristmill.model.base import Model
from gristmill.model.config import Kind, ModelConfig
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import segment_positions, segment_spans
from gristmill.objectives.base import HowHidden, Objective, hidden_states, token_scores
from gristmill.objectives.permuted import predict_given
from gristmill.objectives.words import Text, words_go_on
from gristmill.tokenizer.framing import Frame, frame, start_token
from gristmill.vocabulary import Vocabulary

__all__ = [
    "Asked",
    "Asking",
    "ByGenerator",
    "BySentinel",
    "Discriminated",
    "InOrder",
    "InPlace",
    "LeftToRight",
    "OneBefore",
    "Pseudo",
    "Rewritten",
    "Scoring",
    "alone",
    "asking_for",
    "batches_by_length",
    "can_fill",
    "check_head",
    "check_texts",
    "in_float32",
    "name_of",
    "rest_of_word",
    "scoring_for",
    "scorings_for",
    "sentence_scores",
    "word_starts",
]

BATCH_TOKENS = 4096
"""Positions in a pass: more are no faster on a CPU, and take more memory."""


@torch.no_grad()
def sentence_scores(
    model: Model,
    vocabulary: Vocabulary,
    texts: Sequence[Sequence[int]],
    *,
    how: "Scoring",
    batch_tokens: int = BATCH_TOKENS,
) -> Float[np.ndarray, " texts"]:
    """Returns the (pseudo-)log-likelihood of each text in nats, a number below 0.

    Logits and their softmax are float32 whatever the weights are stored as, and sums float64: bfloat16 tells sums
    near 100 apart in steps of a half, so pairs of sentences would often be ties. Equal texts are scored once, so their
    scores are equal.

    Args:
        model: any kind; computed in float32, as a copy where its weights are stored in less.
        vocabulary: what the tokens stand for.
        texts: token ids of each, without special tokens.
        how: what the model is asked, from `scoring_for`.
        batch_tokens: positions in a pass.

    Raises:
        InputError: the model is of a kind that can't be asked so, a text is empty or longer than the model takes, or
            the vocabulary lacks a special token.
    """
    _check(model.config, texts, how)
    if not texts:
        return np.zeros(0)
    model = in_float32(model)
    was_training = model.training
    model.eval()
    unique = {ids: i for i, ids in enumerate(dict.fromkeys(map(tuple, texts)))}
    edges = how.frame(vocabulary, model.config)
    framed = _Flat([edges.around(ids) for ids in unique])
    questions = how.questions(vocabulary, list(unique))
    questions[:, 1:] += len(edges.before)
    lengths = framed.lengths[questions[:, 0]]
    order = np.lexsort((questions[:, 1], lengths))
    totals = np.zeros(len(unique))
    device = next(model.parameters()).device
    for rows in batches_by_length(lengths[order], batch_tokens):
        which, first, after = questions[order[rows]].T
        batch = how.batch(framed.asked(which, first, after), vocabulary).to(device)
        np.add.at(totals, which, how.log_probabilities(model, batch).cpu().numpy())
    model.train(was_training)
    return totals[[unique[tuple(ids)] for ids in texts]]


def _check(config: ModelConfig, texts: Sequence[Sequence[int]], how: "Scoring") -> None:
    if config.kind not in how.kinds:
        raise InputError(
            f"a model of kind {config.kind} can't be scored by {how.protocol.partition(';')[0]}",
            "let `scoring_for` choose the way that suits the model's objective",
        )
    check_head(config)
    check_texts(config, texts)


def check_head(config: ModelConfig) -> None:
    """Refuses an encoder that was imported without the head that predicts tokens.

    Raises:
        InputError: it has none.
    """
    if config.kind == "encoder" and config.head == "linear":
        raise InputError(
            f'this model of the family "{config.family}" has no head that predicts tokens',
            "import a checkpoint with its masked-language-model head, or use the model for embeddings",
        )


def check_texts(config: ModelConfig, texts: Sequence[Sequence[int]]) -> None:
    """Refuses texts that a model can't read, by their number.

    Raises:
        InputError: one is empty, or with two special tokens longer than the model takes.
    """
    for i, ids in enumerate(texts):
        if not len(ids):
            raise InputError(f"text {i} is empty", "leave it out")
        if len(ids) + 2 > config.maximum_positions and config.core == "transformer":
            raise InputError(
                f"text {i} has {len(ids):,} tokens, and the model handles {config.maximum_positions:,} positions, "
                "special tokens among them",
                "cut the text, or train with a larger model.maximum_positions",
            )


def in_float32(model: Model) -> Model:
    """Returns the model, or a copy of it where its weights are stored in less than float32."""
    narrow = any(p.dtype != torch.float32 for p in model.parameters())
    return copy.deepcopy(model).float() if narrow else model


def batches_by_length(lengths: Int[np.ndarray, " N"], batch_tokens: int) -> list[slice]:
    """Cuts ascending lengths into batches of at most so many positions, padding to the longest among them."""
    cuts, first = [], 0
    for i, length in enumerate(lengths.tolist()):
        if i > first and length * (i + 1 - first) > batch_tokens:
            cuts.append(slice(first, i))
            first = i
    return [*cuts, slice(first, len(lengths))] if len(lengths) else []


# --- what a model is asked ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Framed texts, what of them the model must not see, and what it is asked for."""

    tokens: Int[Tensor, "B T"]
    """As they are, nothing masked yet; any id where there is padding."""
    segments: Int[Tensor, "B T"]
    """1, and 0 for padding."""
    hidden: Bool[Tensor, "B T"]
    wanted: Bool[Tensor, "B T"]


class Asking(abc.ABC):
    """Abstract. How a model is asked for hidden tokens while it sees the others."""

    kinds: ClassVar[frozenset[Kind]]
    where: ClassVar[str]
    """In words, where the answer is read."""
    at_once: ClassVar[bool] = True
    """Whether it may be asked for several tokens of a text in one pass."""

    @abc.abstractmethod
    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the batch whose weighted positions predict the wanted tokens, in the order of their columns."""

    def states(self, model: Model, batch: Batch) -> Float[Tensor, "B T D"]:
        """Returns the hidden states from which those positions predict."""
        return hidden_states(model, batch)


@final
@dataclasses.dataclass(frozen=True)
class InPlace(Asking):
    """At the mask that stands for the token (Devlin et al. 2019)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder"})
    where: ClassVar[str] = "at the mask"

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the texts, masks in place of what is hidden."""
        return Batch(
            tokens=asked.tokens.masked_fill(asked.hidden, vocabulary.id("mask")),
            targets=asked.tokens,
            weights=asked.wanted.float(),
            segments=asked.segments,
            visibility=Visibility.FULL,
        )


@final
@dataclasses.dataclass(frozen=True)
class ByGenerator(Asking):
    """At the mask, by the small generator that proposes replacements (Clark et al. 2020)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder"})
    where: ClassVar[str] = "at the mask, by the generator"

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the texts, masks in place of what is hidden."""
        return InPlace().batch(asked, vocabulary)

    def states(self, model: Model, batch: Batch) -> Float[Tensor, "B T D"]:
        """Returns the generator's hidden states."""
        assert isinstance(model, Transformer)
        return model.propose(
            batch.tokens,
            spans=segment_spans(batch.segments, Visibility.FULL),
            positions=segment_positions(batch.segments),
        )


@final
@dataclasses.dataclass(frozen=True)
class OneBefore(Asking):
    """One position before the mask, all positions seeing all (Charpentier and Samuel 2024, arXiv:2410.24159)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"decoder"})
    where: ClassVar[str] = "one position before the mask"

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the texts, masks in place of what is hidden; every target is that of the position after."""
        return Batch(
            tokens=asked.tokens.masked_fill(asked.hidden, vocabulary.id("mask")),
            targets=asked.tokens.roll(-1, dims=1),
            weights=asked.wanted.roll(-1, dims=1).float(),
            segments=asked.segments,
            visibility=Visibility.FULL,
        )


@final
@dataclasses.dataclass(frozen=True)
class InOrder(Asking):
    """At a query of its own, what is hidden being last in the factorization order (Yang et al. 2019)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder"})
    where: ClassVar[str] = "at a query that comes last"

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the texts with a query for each hidden token; those for tokens that nobody wants do not count."""
        batch = predict_given(asked.tokens, asked.segments, asked.hidden, vocabulary.id("mask"))
        T = asked.tokens.shape[1]
        # training rounds the number of queries up; of short texts that would be most of the row
        used = T + int(asked.hidden.sum(1).max())
        kept = {name: getattr(batch, name)[:, :used] for name in _BY_POSITION}
        counted = (kept["weights"] > 0) & asked.wanted.gather(1, kept["positions"].clamp(max=T - 1))
        return dataclasses.replace(batch, **{**kept, "weights": counted.float()})


_BY_POSITION = ("tokens", "targets", "weights", "segments", "positions", "ranks", "reach")


@final
@dataclasses.dataclass(frozen=True)
class BySentinel(Asking):
    """In what an encoder-decoder writes after the sentinel that stands for the span (Raffel et al. 2020).

    The decoder reads its start token and the sentinel, and the log-probability is the token's alone: neither that of
    the sentinel, which is the same for all texts, nor that of the span ending there (as in BabyLM's enc_dec_mask).
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder-decoder"})
    where: ClassVar[str] = "after the sentinel"
    at_once: ClassVar[bool] = False

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns sources with a sentinel for each run of hidden tokens; what is wanted begins the first run."""
        if not vocabulary.sentinels:
            raise InputError(
                "the tokenizer has no sentinel tokens, which stand for what is left out",
                "set tokenizer.sentinels = 100 and train it again",
            )
        sentinels = torch.tensor(list(vocabulary.sentinels))
        begins = _run_starts(asked.hidden)
        number = (begins.cumsum(1) - 1).clamp(0, len(sentinels) - 1)
        source = _shortened(torch.where(begins, sentinels[number], asked.tokens), asked, begins)
        B = len(asked.tokens)
        start = torch.full((B,), start_token(vocabulary.special))
        sentinel = sentinels[0].expand(B)
        return Batch(
            tokens=torch.stack([start, sentinel], dim=1),
            targets=torch.stack([sentinel, asked.tokens[asked.wanted]], dim=1),
            weights=torch.tensor([0.0, 1.0]).repeat(B, 1),
            segments=torch.ones(B, 2, dtype=torch.long),
            visibility=Visibility.CAUSAL,
            source=source,
        )


@final
@dataclasses.dataclass(frozen=True)
class Rewritten(Asking):
    """In the text that an encoder-decoder writes again, given its true tokens so far (Lewis et al. 2020).

    In the source one mask stands for each run of hidden tokens, as in text infilling.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder-decoder"})
    where: ClassVar[str] = "in the text written again"
    at_once: ClassVar[bool] = False

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns sources with masks, and the whole texts as what is written."""
        begins = _run_starts(asked.hidden)
        source = _shortened(asked.tokens.masked_fill(begins, vocabulary.id("mask")), asked, begins)
        # what is written after the last wanted token is not needed
        used = int(asked.wanted.any(0).nonzero().max()) + 1
        return Batch(
            tokens=asked.tokens[:, : used - 1],
            targets=asked.tokens[:, 1:used],
            weights=asked.wanted[:, 1:used].float(),
            # what is written is causal, so padding behind it may count as text
            segments=torch.ones_like(asked.segments[:, 1:used]),
            visibility=Visibility.CAUSAL,
            source=source,
        )


def _run_starts(hidden: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    begins = hidden.clone()
    begins[:, 1:] &= ~hidden[:, :-1]
    return begins


def _shortened(tokens: Int[Tensor, "B T"], asked: Asked, begins: Bool[Tensor, "B T"]) -> Source:
    """The tokens that are seen and one for each hidden run, moved together; what is left over is padding."""
    kept = (~asked.hidden | begins) & (asked.segments != 0)
    order = torch.argsort(~kept, dim=1, stable=True)
    S = int(kept.sum(1).max())
    return Source(
        tokens=tokens.gather(1, order)[:, :S],
        segments=asked.segments.masked_fill(~kept, 0).gather(1, order)[:, :S],
    )


# --- what is summed -------------------------------------------------------------------------------------------------


Questions = Int[np.ndarray, "questions 3"]
"""For each question the number of a text, the first of its tokens that is hidden, and the first after that one that is
not. The first one is what is asked, or all of them are."""


_SUMMED = "summed over a text's tokens, special ones not scored, no space before the text"


class Scoring(abc.ABC):
    """Abstract. What is asked about a text, and what the answers' sum is."""

    kinds: ClassVar[frozenset[Kind]]

    @property
    @abc.abstractmethod
    def protocol(self) -> str:
        """In words, for print beside every figure; up to the first semicolon what is scored."""

    @abc.abstractmethod
    def questions(self, vocabulary: Vocabulary, texts: Sequence[Sequence[int]]) -> Questions:
        """Returns what is asked about each text."""

    @abc.abstractmethod
    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the batch that asks, a row for each question."""

    def frame(self, vocabulary: Vocabulary, config: ModelConfig) -> Frame:
        """Returns what stands around a text."""
        return frame(vocabulary.special, config.kind)

    def log_probabilities(self, model: Model, batch: Batch) -> Float[Tensor, " B"]:
        """Returns each row's sum of log-probabilities, in float64."""
        scores = token_scores(model, batch, self.states(model, batch))
        return -(scores.nats.double() * scores.counted).sum(1)

    def states(self, model: Model, batch: Batch) -> Float[Tensor, "B T D"]:
        """Returns the hidden states that predict."""
        return hidden_states(model, batch)


@final
@dataclasses.dataclass(frozen=True)
class LeftToRight(Scoring):
    """The log-likelihood: each token given those before it, the first given the token that begins a text."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"decoder"})

    @property
    def protocol(self) -> str:
        """In words."""
        return f"log-likelihood, left to right; {_SUMMED}"

    def questions(self, vocabulary: Vocabulary, texts: Sequence[Sequence[int]]) -> Questions:
        """Returns one question about each text, which is about all of it."""
        return _whole(texts)

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the texts, each position's target being the next token."""
        return Batch(
            tokens=asked.tokens[:, :-1],
            targets=asked.tokens[:, 1:],
            weights=asked.hidden[:, 1:].float(),
            # no position sees what comes after it, so padding there may count as text: rows all alike are faster
            segments=torch.ones_like(asked.segments[:, 1:]),
            visibility=Visibility.CAUSAL,
        )


def alone(vocabulary: Vocabulary, texts: Sequence[Sequence[int]]) -> Questions:
    """Returns a question for each token that hides it alone (Salazar et al. 2020)."""
    which, places = _places(texts)
    return np.stack([which, places, places + 1], axis=1)


def rest_of_word(vocabulary: Vocabulary, texts: Sequence[Sequence[int]]) -> Questions:
    """Returns a question for each token that hides it and the later tokens of its word (Kauf and Ivanova 2023)."""
    which, places = _places(texts)
    starts = word_starts(vocabulary, np.concatenate([np.asarray(text) for text in texts])) | (places == 0)
    bounds = np.append(np.flatnonzero(starts), len(places))
    here = np.arange(len(places))
    ends = bounds[np.searchsorted(bounds, here, side="right")]
    return np.stack([which, places, places + ends - here], axis=1)


def _whole(texts: Sequence[Sequence[int]]) -> Questions:
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return np.stack([np.arange(len(texts)), np.zeros_like(lengths), lengths], axis=1)


def _places(texts: Sequence[Sequence[int]]) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
    """Each token's text, and its place in it."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    which = np.repeat(np.arange(len(texts)), lengths)
    return which, np.arange(len(which)) - (np.cumsum(lengths) - lengths)[which]


@final
@dataclasses.dataclass(frozen=True)
class Pseudo(Scoring):
    """The pseudo-log-likelihood: each token given all others, or all but the rest of its word."""

    ask: Asking
    hiding: Callable[[Vocabulary, Sequence[Sequence[int]]], Questions] = rest_of_word
    """What is hidden with each token: `alone` or `rest_of_word`."""

    @property
    def kinds(self) -> frozenset[Kind]:  # type: ignore[override]
        """The kinds of model that can be asked so."""
        return self.ask.kinds

    @property
    def protocol(self) -> str:
        """In words."""
        within = ", within words left to right" if self.hiding is rest_of_word else ""
        return f"pseudo-log-likelihood {self.ask.where}{within}; {_SUMMED}"

    def questions(self, vocabulary: Vocabulary, texts: Sequence[Sequence[int]]) -> Questions:
        """Returns a question for each token."""
        return self.hiding(vocabulary, texts)

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the batch that asks."""
        return self.ask.batch(asked, vocabulary)

    def states(self, model: Model, batch: Batch) -> Float[Tensor, "B T D"]:
        """Returns the hidden states that predict."""
        return self.ask.states(model, batch)


@final
@dataclasses.dataclass(frozen=True)
class Discriminated(Scoring):
    """The log-probability that no token was replaced, each judged on its own by the detector, in one pass.

    No likelihood, but it ranks sentences, and by the model that is kept instead of the generator (Clark et al. 2020).
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder"})

    @property
    def protocol(self) -> str:
        """In words."""
        return f"log-probability that no token was replaced; {_SUMMED}"

    def questions(self, vocabulary: Vocabulary, texts: Sequence[Sequence[int]]) -> Questions:
        """Returns one question about each text, which is about all of it."""
        return _whole(texts)

    def batch(self, asked: Asked, vocabulary: Vocabulary) -> Batch:
        """Returns the texts as they are."""
        return Batch(
            tokens=asked.tokens,
            targets=asked.tokens,
            weights=asked.hidden.float(),
            segments=asked.segments,
            visibility=Visibility.FULL,
        )

    def log_probabilities(self, model: Model, batch: Batch) -> Float[Tensor, " B"]:
        """Returns each row's sum of the log-probabilities that a token is the original one."""
        assert isinstance(model, Transformer)
        replaced = model.detect(hidden_states(model, batch)).double()
        return (torch.nn.functional.logsigmoid(-replaced) * batch.weights).sum(1)


# --- which way suits a model ----------------------------------------------------------------------------------------

_ASKING: dict[HowHidden, Asking] = {
    "in place": InPlace(),
    "one before": OneBefore(),
    "in order": InOrder(),
    "by sentinel": BySentinel(),
    "rewritten": Rewritten(),
    "by generator": ByGenerator(),
}


def scorings_for(
    objective: Objective | None, config: ModelConfig, vocabulary: Vocabulary | None = None
) -> dict[str, Scoring]:
    """Returns every way that suits a model trained with an objective, by name, the one to prefer first.

    Without an objective (weights from elsewhere), or with one that does not say, the kind decides. Ways that need
    what a vocabulary lacks are left out where it is given: where words begin is not told by tokens without spaces
    (WordPiece).

    Raises:
        InputError: nothing is known about what an encoder-decoder writes, or the model can't be asked at all.
    """
    check_head(config)
    asking = asking_for(objective, config)
    ways: dict[str, Scoring] = {}
    if config.kind == "decoder":
        ways["left_to_right"] = LeftToRight()
    if isinstance(asking, ByGenerator):
        ways["discriminated"] = Discriminated()
    if asking is not None and (vocabulary is None or vocabulary.has_spaces):
        ways["pseudo_within_words"] = Pseudo(asking)
    if asking is not None:
        ways["pseudo"] = Pseudo(asking, alone)
    return ways


def asking_for(objective: Objective | None, config: ModelConfig) -> Asking | None:
    """Returns how a model that was trained with an objective is asked for hidden tokens, or None where it can't be.

    Raises:
        InputError: nothing is known about what an encoder-decoder writes.
    """
    if objective is not None and objective.hidden is not None:
        return _ASKING[objective.hidden]
    if config.kind == "decoder":
        return None
    if config.kind == "encoder":
        return ByGenerator() if config.generator_layers else InPlace()
    if config.relative_buckets:
        return BySentinel()
    raise InputError(
        f'the encoder-decoder of the family "{config.family}" was not trained here with an objective that is known, '
        "so what it can be asked is not either",
        'models trained with "spans" or "denoise" can be; any encoder-decoder gives embeddings: `gristmill embed`',
    )


def can_fill(objective: Objective | None, config: ModelConfig) -> bool:
    """Returns whether a model that was trained with an objective tells hidden tokens."""
    try:
        check_head(config)
        return asking_for(objective, config) is not None
    except InputError:
        return False


def scoring_for(
    objective: Objective | None, config: ModelConfig, vocabulary: Vocabulary | None = None
) -> Scoring:
    """Returns the way to score texts that suits a model trained with an objective: the first of `scorings_for`."""
    return next(iter(scorings_for(objective, config, vocabulary).values()))


def name_of(objective: Objective | None) -> str:
    """Returns the name of an objective as a recipe writes it, or "" where there is none."""
    return "" if objective is None else str(to_dict(objective)["name"])


# --- words ----------------------------------------------------------------------------------------------------------


def word_starts(vocabulary: Vocabulary, text: Sequence[int] | np.ndarray) -> Bool[np.ndarray, " tokens"]:
    """Returns whether each token begins a word, as whole-word masking has them (`objectives/words.py`).

    A word is a run of letters, digits and apostrophes between them; a Chinese character is one by itself, and so is
    every other sign. A token belongs to the word of its first character; one that begins inside a character goes on.

        >>> pieces = [b"The", b" cat", b"s", b".", " 地".encode(), "上".encode()]
        >>> word_starts(Vocabulary(pieces=pieces, special={}), range(6)).tolist()
        [True, True, False, True, True, True]

    Raises:
        InputError: no token holds a space, so where words begin is not told by the tokens' bytes.
    """
    if not vocabulary.has_spaces:
        raise InputError(
            "the tokens of this vocabulary hold no spaces, so where words begin can't be told",
            "score with Pseudo(..., alone), which hides each token alone",
        )
    characters = Text(np.asarray(text, dtype=np.int64), vocabulary)
    return ~characters.tokens_go_on(words_go_on(characters, chinese="characters"))


# --- rows of unequal length -----------------------------------------------------------------------------------------


class _Flat:
    """Texts end to end, from which batches are cut."""

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        self.lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self._tokens = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])

    def asked(
        self, which: Int[np.ndarray, " B"], first: Int[np.ndarray, " B"], after: Int[np.ndarray, " B"]
    ) -> Asked:
        """Returns texts side by side, the columns from `first` to before `after` hidden, and `first` wanted."""
        lengths = self.lengths[which]
        columns = np.arange(lengths.max())
        inside = columns < lengths[:, None]
        places = np.where(inside, self._starts[which][:, None] + columns, 0)
        return Asked(
            tokens=torch.from_numpy(np.where(inside, self._tokens[places], 0)),
            segments=torch.from_numpy(inside.astype(np.int64)),
            hidden=torch.from_numpy((columns >= first[:, None]) & (columns < after[:, None])),
            wanted=torch.from_numpy(columns == first[:, None]),
        )
