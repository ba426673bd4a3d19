"""Making vectors whose products tell which texts say the same: for similarity, search and clustering.

What a row says, and what is learned from it:

    text1, text2              the two say the same           the second is told from those of all other rows
    text1, text2, negatives   likewise                       and from these, which are near and yet wrong
    text1, text2, score       how near the two are           the order of the scores; with `positive_from` pairs from there on
                                                             say the same, and the others only stand among the wrong ones
    text, label               a class                        another text of the class is told from those of other classes
    text                      nothing                        the text is told from others when dropout hides other parts of it

Telling is the cross-entropy of a softmax over cosines: InfoNCE (van den Oord et al. 2018, arXiv:1807.03748, section 2.3) with the
other texts of a step as wrong ones (Reimers and Gurevych 2019, arXiv:1908.10084), without labels SimCSE (Gao et al. 2021,
arXiv:2104.08821). The order of scores is learned as in CoSENT (Huang et al. 2024, doi:10.1109/TASLP.2024.3402087): a softplus over
all pairs of pairs. A text that is the same as the right one, or of its class, is no wrong one.

More examples in a step are more wrong ones, and a harder task: set tune.batch_examples, and so high a tune.micro_batch_tokens that a
step is not divided, for a part knows its own texts alone.
"""

import dataclasses
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Gt
from jaxtyping import Bool, Float
from torch import Tensor

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.tables import Row
from gristmill.adapt.task import Example, Figure, Item, Result, Task
from gristmill.adapt.tasks.classification import texts_of
from gristmill.adapt.tasks.similarity import RatedExample, Similarity
from gristmill.adapt.vectors import Pooling, Vectors
from gristmill.batch import Loss
from gristmill.errors import InputError
from gristmill.metrics.intervals import ratio_interval, wilson_interval
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer

__all__ = ["Embeddings", "VectorExample", "ranks"]

NEAR = 10
"""How far down the list of the nearest a text still counts as found."""
DIGITS = 7
"""Of the numbers of a vector, as they are written."""
QUERIES_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class VectorExample(Example):
    """A text or a pair of texts, and what is known of it."""

    texts: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    label: str = ""
    score: float | None = None

    @property
    def key(self) -> str:
        """The text, or both."""
        return "\n".join(self.texts)

    @property
    def kind(self) -> str:
        """The class."""
        return self.label

    @property
    def group(self) -> str:
        """The first text: what is asked for in one split is not asked for in another."""
        return self.texts[0]

    def unlabelled(self) -> "VectorExample":
        """Returns the text or texts alone."""
        return VectorExample(self.place, self.texts)


class Said(NamedTuple):
    """What an item is of its example."""

    part: Literal["anchor", "positive", "negative"]
    label: str = ""
    score: float | None = None


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Embeddings(Task[VectorExample]):
    """A vector of length 1 for each text."""

    pair: tuple[str, str] = ("text1", "text2")
    """The columns of two texts that say the same, or of which a score says how near they are."""
    score: str = "score"
    """The column of that number, where there is one; 0 and 1 will do."""
    positive_from: float | None = None
    """Pairs with at least this score say the same; by default what is learned of scores is their order."""
    negatives: str = "negatives"
    """The column of texts, a list or one, that are near the first text and yet wrong; there need be none."""
    text: str = "text"
    """The column of a text that stands alone, in rows without pairs."""
    label: str = "label"
    """The column of its class, where it has one; "" is to pass over classes."""
    pooling: Pooling | None = None
    """Of what the vector is made: all positions ("mean"), the "first" or the "last". By default the mean, of decoders the last."""
    temperature: Annotated[float, Gt(0)] = 0.05
    """Cosines are divided by it: the smaller, the more the nearest wrong texts count."""

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[VectorExample]:
        """Returns the examples of rows.

        Raises:
            InputError: a text is missing or empty, a score is no number, or negatives are no texts.
        """
        return [
            self._pair(row, labelled)
            if row.fields.get(self.pair[0]) is not None
            else self._single(row, labelled)
            for row in rows
        ]

    def _pair(self, row: Row, labelled: bool) -> VectorExample:
        texts = texts_of(row, self.pair)
        if not labelled:
            return VectorExample(row.place, texts)
        value, label = row.fields.get(self.score), row.fields.get(self.label)
        if value is None and label is not None:
            raise InputError(
                f'{row.place}: a pair with "{self.label}" {label!r}, and without "{self.score}": do the two say the same?',
                f'if it is a number that says how near they are: task.score = "{self.label}"; '
                'if all pairs say the same, whatever it is: task.label = ""',
            )
        try:
            score = None if value is None else float(value)
        except (TypeError, ValueError):
            score = math.nan
        if score is not None and not math.isfinite(score):
            raise InputError(f'{row.place}: "{self.score}" is {value!r}, expected a number', "mend this row")
        return VectorExample(row.place, texts, self._negatives(row), "", score)

    def _negatives(self, row: Row) -> tuple[str, ...]:
        found = row.fields.get(self.negatives)
        listed = [] if found is None else [found] if isinstance(found, str) else found
        if not isinstance(listed, list) or not all(isinstance(text, str) and text.strip() for text in listed):
            raise InputError(
                f'{row.place}: "{self.negatives}" is {found!r}, expected texts',
                'a list: ["…", "…"], or one text',
            )
        return tuple(listed)

    def _single(self, row: Row, labelled: bool) -> VectorExample:
        if row.fields.get(self.text) is None:
            known = ", ".join(sorted(key for key, value in row.fields.items() if value is not None))
            raise InputError(
                f'{row.place}: there is neither "{self.pair[0]}" nor "{self.text}"',
                f'it has: {known}; name the columns: task.pair = ["…", "…"], or task.text = "…"',
            )
        label = row.fields.get(self.label) if labelled else None
        if isinstance(label, list | dict):
            raise InputError(f'{row.place}: "{self.label}" is {label!r}, expected one class', "mend this row")
        return VectorExample(row.place, texts_of(row, self.text), (), "" if label is None else str(label))

    def outputs(self, examples: Sequence[VectorExample]) -> tuple[str, ...]:
        """Returns nothing: a vector has no names.

        Raises:
            InputError: nothing can be told apart.
        """
        scores = {example.score for example in examples if example.score is not None}
        if len(scores) == len({example.score for example in examples}):  # nothing but pairs with scores
            if self.positive_from is None and len(scores) < 2:
                raise InputError(
                    f"all pairs have the score {min(scores, default=0)}, so there is no order to learn",
                    'if all of them say the same, name no scores: task.score = ""',
                )
            if self.positive_from is not None and max(scores) < self.positive_from:
                raise InputError(
                    f"no pair has a score of {self.positive_from:g} or more: the highest is {max(scores):g}",
                    "lower task.positive_from",
                )
        labels = {example.label for example in examples}
        if len(labels) == 1 and "" not in labels:
            raise InputError(
                "the training examples have one class, so there is nothing to tell apart",
                'add examples of another class, or pass over classes: task.label = ""',
            )
        if len({example.texts for example in examples}) < 2:
            raise InputError("there is one text, so there is nothing to tell it from", "add examples")
        return ()

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether the model has the position that vectors are to be made of.

        Raises:
            InputError: it has not.
        """
        if self.pooling == "first" and (
            config.kind != "encoder" or not {"cls", "sep"} <= set(tokenizer.special)
        ):
            raise InputError(
                'pooling = "first" reads the [CLS] of an encoder, and this model has none that has read the text',
                'set task.pooling = "mean"',
            )
        if self.pooling == "last" and config.kind != "decoder":
            raise InputError(
                'pooling = "last" is for decoders, whose last position alone has read all of the text',
                'set task.pooling = "mean"',
            )

    # --- learning ---------------------------------------------------------------------------------------------------

    def items(
        self,
        examples: Sequence[VectorExample],
        tokenizer: Tokenizer,
        encoder: Encoder,
        outputs: Sequence[str],
    ) -> list[Item]:
        """Returns an item for each text of an example; of a class also one for the next text of it, in an order that is no one's."""
        follows = _followers(examples)
        parts: list[tuple[int, str, Said]] = []
        for number, example in enumerate(examples):
            parts.append((number, example.texts[0], Said("anchor", example.label, example.score)))
            positive = [*example.texts[1:], *([follows[number]] if example.label else [])]
            parts += [(number, text, Said("positive", example.label)) for text in positive]
            parts += [(number, text, Said("negative")) for text in example.negatives]
        tokens = tokenizer.encode_batch([text for _, text, _ in parts])
        return [
            Item(encoder.text(ids), said, number)
            for ids, (number, _, said) in zip(tokens, parts, strict=True)
        ]

    def head(self, config: ModelConfig, outputs: Sequence[str], *, dropout: float, seed: int) -> Vectors:
        """Returns what makes a vector of a text's states."""
        return Vectors(self.pooling or ("last" if config.kind == "decoder" else "mean"))

    def loss(self, net: Net, items: Sequence[Item], dropout_seed: int = 0) -> Loss:
        """Returns the loss of a batch: the right text told from the wrong ones, and the order of scores."""
        ordered = self.positive_from is None
        anchors = [
            item
            for item in items
            if item.target.part == "anchor" and (ordered or self._is_positive(item.target.score))
        ]
        numbers = {item.example for item in anchors}
        right = {item.example: item for item in items if item.target.part == "positive"}
        seconds = [
            right.get(item.example, item) for item in anchors
        ]  # the same text again: dropout hides other parts
        wrong = [item for item in items if item.target.part == "negative"]
        wrong += [item for number, item in right.items() if number not in numbers]
        vectors = net.scores([*anchors, *seconds, *wrong], dropout_seed)
        cosines = vectors[: len(anchors)] @ vectors[len(anchors) :].T / self.temperature
        told = self._told(anchors, cosines, _excluded(anchors, seconds, wrong).to(cosines.device))
        order = self._ordered(anchors, cosines.diagonal())
        return Loss(total_nats=told.total_nats + order.total_nats, weight=told.weight + order.weight)

    def _told(
        self,
        anchors: Sequence[Item],
        cosines: Float[Tensor, "N candidates"],
        excluded: Bool[Tensor, "N candidates"],
    ) -> Loss:
        """The cross-entropy of telling the right text, for examples whose texts say the same."""
        weights = torch.tensor(
            [item.weight * self._is_positive(item.target.score) for item in anchors], device=cosines.device
        )
        own = torch.arange(len(anchors), device=cosines.device)
        losses = F.cross_entropy(cosines.masked_fill(excluded, -math.inf), own, reduction="none")
        return Loss(total_nats=(losses * weights).sum(), weight=weights.sum())

    def _ordered(self, anchors: Sequence[Item], cosines: Float[Tensor, " N"]) -> Loss:
        """How far the order of cosines is from that of scores; for examples that have one, and no bound that makes them positives."""
        known = [i for i, item in enumerate(anchors) if item.target.score is not None]
        if self.positive_from is not None or not known:
            return Loss(total_nats=cosines.sum() * 0.0, weight=torch.zeros((), device=cosines.device))
        scores = torch.tensor([anchors[i].target.score for i in known], device=cosines.device)
        cosines = cosines[known]
        lower_minus_higher = (cosines[None] - cosines[:, None])[scores[:, None] > scores[None]]
        loss = torch.logsumexp(torch.cat([cosines.new_zeros(1), lower_minus_higher]), 0)
        weight = torch.tensor(float(len(known)), device=cosines.device)
        return Loss(total_nats=loss * weight, weight=weight)

    def _is_positive(self, score: float | None) -> bool:
        return score is None or (self.positive_from is not None and score >= self.positive_from)

    # --- answering --------------------------------------------------------------------------------------------------

    def answers(
        self, net: Net, items: Sequence[Item], examples: Sequence[VectorExample], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Returns the vector of each text, and of a pair both vectors and their cosine."""
        asked = [
            item
            for item in items
            if item.target.part == "anchor"
            or (item.target.part == "positive" and len(examples[item.example].texts) == 2)
        ]
        found: list[list[np.ndarray]] = [[] for _ in examples]
        for item, vector in zip(asked, net.scores_of(asked), strict=True):
            found[item.example].append(vector.astype(np.float64))
        return [
            {"embedding": np.round(each[0], DIGITS).tolist()}
            if len(each) == 1
            else {
                "similarity": float(each[0] @ each[1]),
                "embeddings": [np.round(vector, DIGITS).tolist() for vector in each],
            }
            for each in found
        ]

    def result(self, examples: Sequence[VectorExample], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns how well cosines follow scores, and how often the nearest of the other texts is a right one.

        What is searched are the second texts of all pairs, or all texts of a class but the one that is asked with; right are those of
        a pair with the text, or of its class. A text counts as found at 10 where any right one is among the nearest ten. Of texts of
        which nothing is known there is only their uniformity: minus the logarithm of the mean of exp(-2 d²) over all distances d
        (Wang and Isola 2020, arXiv:2005.10242), which says how evenly they fill the space, and nothing of their meaning.
        """
        figures: dict[str, Figure] = {}
        notes = []
        rated = [i for i, example in enumerate(examples) if example.score is not None]
        if rated:
            said = [{"score": predictions[i]["similarity"]} for i in rated]
            pairs = [RatedExample(examples[i].place, examples[i].texts, examples[i].score) for i in rated]
            figures |= Similarity().result(pairs, said).figures
            notes.append(f"{len(rated):,} pairs with scores")
        found, searched = self._found(examples, predictions)
        if found:
            reciprocal = [1 / rank for rank in found]
            for name, depth in (("accuracy@1", 1), (f"recall@{NEAR}", NEAR)):
                hits = sum(rank <= depth for rank in found)
                figures[name] = Figure(hits / len(found), wilson_interval(hits, len(found)))
            interval = ratio_interval(reciprocal, np.ones(len(found)), seed=0)
            figures["MRR"] = Figure(sum(reciprocal) / len(found), interval)
            notes.append(f"{len(found):,} texts searched for among {searched:,}")
        if not figures:
            vectors = np.array([each["embedding"] for each in predictions if "embedding" in each])
            figures["uniformity"] = Figure(_uniformity(vectors))
            notes.append(
                f"{len(vectors):,} texts of which nothing is known: how good vectors are tell pairs, scores or classes"
            )
        return Result(figures, "\n".join(notes))

    def _found(
        self, examples: Sequence[VectorExample], predictions: Sequence[Mapping[str, Any]]
    ) -> tuple[list[int], int]:
        """The rank of the nearest right text of each example that has one, and how many were searched."""
        pairs = [i for i, example in enumerate(examples) if len(example.texts) == 2]
        asked = [i for i in pairs if self._is_positive(examples[i].score)]
        found: list[int] = []
        searched = 0
        if asked:
            texts = {examples[i].texts[1]: predictions[i]["embeddings"][1] for i in pairs}
            numbers = {text: number for number, text in enumerate(texts)}
            right = defaultdict(set)
            for i in asked:
                right[examples[i].texts[0]].add(numbers[examples[i].texts[1]])
            queries = np.array([predictions[i]["embeddings"][0] for i in asked])
            found += ranks(
                queries, np.array(list(texts.values())), [sorted(right[examples[i].texts[0]]) for i in asked]
            )
            searched += len(texts)
        classed = [i for i, example in enumerate(examples) if example.label]
        members = defaultdict(list)
        for place, i in enumerate(classed):
            members[examples[i].label].append(place)
        if classed:
            vectors = np.array([predictions[i]["embedding"] for i in classed])
            others = [
                [each for each in members[examples[i].label] if each != place]
                for place, i in enumerate(classed)
            ]
            known = [place for place, each in enumerate(others) if each]
            found += ranks(vectors[known], vectors, [others[place] for place in known], without=known)
            searched += len(classed) - 1
        return found, searched


def ranks(
    queries: Float[np.ndarray, "N D"],
    candidates: Float[np.ndarray, "M D"],
    right: Sequence[Sequence[int]],
    without: Sequence[int] | None = None,
) -> list[int]:
    """Returns the rank of the nearest right candidate of each query, from 1; of equals a wrong one stands before.

    Args:
        queries: of length 1.
        candidates: of length 1.
        right: the numbers of the candidates that are right for each query, one at least.
        without: the number of a candidate for each query that is not searched: the query itself.
    """
    found: list[int] = []
    for first in range(0, len(queries), QUERIES_AT_ONCE):
        cosines = queries[first : first + QUERIES_AT_ONCE] @ candidates.T
        for row, scores in enumerate(cosines, first):
            best = scores[right[row]].max()
            wrong = scores >= best
            wrong[right[row]] = False
            if without is not None:
                wrong[without[row]] = False
            found.append(1 + int(wrong.sum()))
    return found


def _followers(examples: Sequence[VectorExample]) -> dict[int, str]:
    """The text that follows each in its class, in the order of their hashes; the first follows the last."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        if example.label:
            members[example.label].append(number)
    found = {}
    for numbers in members.values():
        numbers.sort(
            key=lambda i: hashlib.sha256(examples[i].texts[0].encode("utf-8", "surrogatepass")).digest()
        )
        for number, after in zip(numbers, [*numbers[1:], numbers[0]], strict=True):
            found[number] = examples[after].texts[0]
    return found


def _excluded(
    anchors: Sequence[Item], seconds: Sequence[Item], wrong: Sequence[Item]
) -> Bool[Tensor, "N candidates"]:
    """Which candidates are no wrong ones for an anchor although they are not its own: the same text again, or one of its class."""
    numbers: dict[Any, int] = {}

    def of(things: Iterable[Any]) -> Tensor:
        return torch.tensor([numbers.setdefault(thing, len(numbers)) for thing in things])

    candidates = [*seconds, *wrong]
    texts = of(item.encoded.tokens for item in candidates)
    labels = of(item.target.label or (i,) for i, item in enumerate(candidates))
    asked = of(item.encoded.tokens for item in anchors)
    excluded = (asked[:, None] == texts) | (texts[: len(anchors), None] == texts)
    excluded |= labels[: len(anchors), None] == labels
    excluded[torch.arange(len(anchors)), torch.arange(len(anchors))] = False
    return excluded


def _uniformity(vectors: Float[np.ndarray, "N D"]) -> float:
    if len(vectors) < 2:
        return 0.0
    vectors = vectors[:2000]
    squared = 2 - 2 * (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return float(-np.log(np.exp(-2 * squared).mean()))


EXPORT = Embeddings
