"""Which tokens to mask, and what to put in their place: what every objective with masks has in common."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import numpy as np
from annotated_types import Gt, Interval
from jaxtyping import Bool, Float, Int

from gristmill.errors import InputError
from gristmill.objectives.base import Objective, Rate, at, average
from gristmill.objectives.pieces import check_shares
from gristmill.objectives.words import Names, Text, has_chinese, has_jieba, words_go_on
from gristmill.vocabulary import Vocabulary

__all__ = ["Masking", "MaskingObjective", "framed", "maskable", "piece_bounds"]

SHORTEST_FRAMED = 8
"""Pieces of documents that are shorter keep all of their tokens."""

Share = Annotated[float, Interval(ge=0, le=1)]
_Masking = TypeVar("_Masking", bound="Masking")
_MaskingObjective = TypeVar("_MaskingObjective", bound="MaskingObjective")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masking:
    """Which tokens are hidden from the model, how many, and what stands in their place."""

    rate: Rate = (0.3, 0.15)
    """Share of the tokens that is predicted; two or more numbers are gone through in the course of the training.
    0.15 is BERT's; many predictions early and an easier text later is GPT-BERT's (Charpentier and Samuel 2024)."""
    mask_share: Share = 0.8
    """Of these, the share that the mask token stands for."""
    random_share: Share = 0.1
    """Of these, the share that a random token stands for; the rest are left as they are (Devlin et al. 2019)."""
    unit: Literal["token", "word", "span"] = "token"
    """What is masked as a whole: a token, a word, or a few words side by side (Joshi et al. 2020)."""
    chinese: Literal["jieba", "characters"] = "jieba"
    """How Chinese text is cut into words: by jieba, or each character is one. Without jieba (`pip install jieba`) a
    tokenizer that was trained on Chinese is refused; a stray character in other text is then a word."""
    span_stop: Annotated[float, Interval(gt=0, le=1)] = 0.2
    """For spans: after each word the chance that the span ends there; lengths are geometric."""
    span_longest: Annotated[int, Gt(0)] = 10
    """For spans: the most words in one."""
    entities: tuple[str, ...] | Path = ()
    """Names that are masked as a whole and before other text, listed, or in a file with one in each line
    (Sun et al. 2019, ERNIE)."""
    entity_share: Share = 0.5
    """Share of the masked tokens that is taken from these names, as long as the text has so many."""

    def __post_init__(self) -> None:
        check_shares(rate=self.rate)
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise InputError(
                f"mask_share = {self.mask_share} and random_share = {self.random_share} are more than everything",
                f"set random_share to {1 - self.mask_share:g} or less",
            )
        _ = self.names  # a list that can't be read is found before work starts

    @functools.cached_property
    def names(self) -> Names:
        """The entities."""
        if not isinstance(self.entities, Path):
            return Names(self.entities)
        try:
            lines = self.entities.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the list of entities {self.entities} can't be read: {error}",
                "it is a text file in UTF-8 with one name in each line",
            ) from None
        return Names([line.strip() for line in lines])

    def settled(self: _Masking) -> _Masking:
        """Returns the same with the names themselves in place of the file that lists them."""
        return dataclasses.replace(self, entities=self.names.listed)

    def check_words(self, vocabulary: Vocabulary) -> None:
        """Refuses to cut text into words where that can't be done, before work starts.

        Raises:
            InputError: no token holds a space, or some hold Chinese characters and jieba is not installed.
        """
        if self.unit == "token":
            return
        if not vocabulary.has_spaces:
            raise InputError(
                f'unit = "{self.unit}" needs to know where words begin, and in this tokenizer no token holds a space',
                'use unit = "token", or a tokenizer from `gristmill tokenizer train`',
            )
        if self.chinese == "jieba" and has_chinese(vocabulary.pieces) and not has_jieba():
            raise InputError(
                "Chinese text is cut into words by jieba, which is not installed",
                'pip install jieba, or set chinese = "characters": each character is then a word',
            )

    def mask(
        self,
        tokens: Int[np.ndarray, "B T"],
        segments: Int[np.ndarray, "B T"],
        eligible: Bool[np.ndarray, "B T"],
        vocabulary: Vocabulary,
        rng: np.random.Generator,
        progress: float,
    ) -> tuple[Int[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
        """Returns the tokens with some of them masked, and which were chosen.

        Of each row's eligible tokens the share that `rate` asks for is chosen, exactly where the unit is a token and
        in expectation where it is longer; one unit at least. Among the chosen are those that are left as they are.
        """
        at_all = np.flatnonzero(eligible)
        ids, rows = tokens.ravel()[at_all], at_all // tokens.shape[1]
        goes_on = np.diff(at_all, prepend=-2) == 1
        goes_on[1:] &= np.diff(segments.ravel()[at_all]) == 0
        goes_on[1:] &= np.diff(rows) == 0
        joined, named = self._joined(tokens.ravel(), at_all, vocabulary)
        units = np.cumsum(~(joined & goes_on)) - 1
        if self.unit == "span":
            units = self._spans(units, np.cumsum(~goes_on), named, rng)[units]
        sizes = np.bincount(units)
        first = np.cumsum(sizes) - sizes
        in_name = np.zeros(len(sizes), dtype=bool)
        in_name[units[named]] = True
        budgets = at(self.rate, progress) * np.bincount(rows, minlength=len(tokens))
        taken = self._take(sizes, rows[first], in_name, budgets, rng)[units]
        fate = rng.random(len(ids))
        # names and spans have one fate; the pieces of a word each their own, as in BERT's code for whole words
        fate = np.where(named | (self.unit == "span"), fate[first][units], fate)
        ordinary = vocabulary.ordinary[rng.integers(len(vocabulary.ordinary), size=len(ids))]
        changed = np.where(fate < self.mask_share, vocabulary.id("mask"), ordinary)
        changed = np.where(fate < self.mask_share + self.random_share, changed, ids)
        masked, chosen = tokens.copy(), np.zeros(tokens.shape, dtype=bool)
        masked.ravel()[at_all] = np.where(taken, changed, ids)
        chosen.ravel()[at_all] = taken
        return masked, chosen

    def _joined(
        self, tokens: Int[np.ndarray, " N"], at_all: Int[np.ndarray, " E"], vocabulary: Vocabulary
    ) -> tuple[Bool[np.ndarray, " E"], Bool[np.ndarray, " E"]]:
        """Which eligible tokens are in one word, or name, with the token before them, and which are in a name."""
        if self.unit == "token" and not self.entities:
            nothing = np.zeros(len(at_all), dtype=bool)
            return nothing, nothing
        text = Text(tokens, vocabulary)
        in_name, same_name = self.names.in_text(text.text)
        named, goes_on = text.tokens_with(in_name), text.tokens_go_on(same_name)
        if self.unit == "token":
            # a name is one unit, but elsewhere a character that is spread over tokens is not
            goes_on &= named
        else:
            goes_on |= text.tokens_go_on(words_go_on(text, chinese=self.chinese))
        return goes_on[at_all], named[at_all]

    def _spans(
        self,
        words: Int[np.ndarray, " E"],
        runs: Int[np.ndarray, " E"],
        named: Bool[np.ndarray, " E"],
        rng: np.random.Generator,
    ) -> Int[np.ndarray, " words"]:
        """The span of each word: the text is cut into spans of random lengths, of which some are then chosen.

        Lengths up to `span_longest` have the probabilities of the geometric distribution, scaled to 1, which gives
        the mean of 3.8 words that SpanBERT reports. Marks, and spaces that are tokens of their own, count as words; a
        name is a span of its own. `runs` number the text without breaks that each token is in.
        """
        lengths = np.arange(1, self.span_longest + 1)
        chances = self.span_stop * (1 - self.span_stop) ** (lengths - 1)
        first = np.flatnonzero(np.diff(words, prepend=-1))  # the first token of each word
        run_begins = np.flatnonzero(np.diff(runs[first], prepend=-1))  # the first word of each run
        run_of_word = np.repeat(np.arange(len(run_begins)), np.diff(np.append(run_begins, len(first))))
        drawn = np.cumsum(rng.choice(lengths, size=len(first), p=chances / chances.sum()))
        before = np.append(0, drawn)[run_begins]
        # span k of a run ends where the lengths drawn for the run up to k end; those beyond the run are not there
        ends = run_begins[run_of_word] + drawn - before[run_of_word]
        inside = ends < np.append(run_begins[1:], len(first))[run_of_word]
        begins = named[first]
        begins[1:] |= named[first][:-1]
        begins[run_begins] = True
        begins[ends[inside]] = True
        return np.cumsum(begins) - 1

    def _take(
        self,
        sizes: Int[np.ndarray, " U"],
        rows: Int[np.ndarray, " U"],
        in_name: Bool[np.ndarray, " U"],
        budgets: Float[np.ndarray, " B"],
        rng: np.random.Generator,
    ) -> Bool[np.ndarray, " U"]:
        """Which units are chosen: names first, up to their share, then any."""
        taken = np.zeros(len(sizes), dtype=bool)
        if in_name.any():
            taken[in_name] = _up_to(self.entity_share * budgets, sizes[in_name], rows[in_name], rng)
            budgets = budgets - np.bincount(rows[taken], sizes[taken], minlength=len(budgets))
        left = ~taken
        taken[left] = _up_to(budgets, sizes[left], rows[left], rng)
        without = np.bincount(rows, minlength=len(budgets)).astype(bool)
        without[rows[taken]] = False
        if without.any():
            shuffled = rng.permutation(len(rows))
            _, at_first = np.unique(rows[shuffled], return_index=True)
            candidates = shuffled[at_first]
            taken[candidates[without[rows[candidates]]]] = True
        return taken


class MaskingObjective(Objective):
    """Abstract. Objectives that mask tokens, as their setting `masking` says."""

    special: ClassVar[tuple[str, ...]] = ("mask",)
    masking: Masking

    @property
    def scored_share(self) -> float:
        """What is masked."""
        return average(self.masking.rate)

    def settled(self: _MaskingObjective) -> _MaskingObjective:
        """Returns the objective with the names that it masks, where it was given a file of them."""
        return dataclasses.replace(self, masking=self.masking.settled())  # type: ignore[type-var]

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Refuses a vocabulary without the special tokens, or one whose text can't be cut into words.

        Raises:
            InputError: something is missing.
        """
        super().check_vocabulary(vocabulary)
        self.masking.check_words(vocabulary)


def _up_to(
    budgets: Float[np.ndarray, " B"],
    sizes: Int[np.ndarray, " U"],
    rows: Int[np.ndarray, " U"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, " U"]:
    """Units in random order until each row's budget is spent.

    The one that would exceed it is taken with the chance that makes the expected number of tokens the budget itself.
    """
    order = np.argsort(rows + rng.random(len(rows)))
    ordered_rows, ordered = rows[order], sizes[order]
    before = np.cumsum(ordered) - ordered
    begins = np.flatnonzero(np.diff(ordered_rows, prepend=-1))
    before -= np.repeat(before[begins], np.diff(np.append(begins, len(rows))))
    taken = np.zeros(len(rows), dtype=bool)
    taken[order] = rng.random(len(rows)) * ordered < budgets[ordered_rows] - before
    return taken


def maskable(
    tokens: Int[np.ndarray, "B T"], segments: Int[np.ndarray, "B T"], vocabulary: Vocabulary
) -> Bool[np.ndarray, "B T"]:
    """Returns which positions hold text: neither padding nor a special token."""
    eligible: Bool[np.ndarray, "B T"] = vocabulary.is_ordinary[tokens] & (segments != 0)
    return eligible


def piece_bounds(
    segments: Int[np.ndarray, "B T"],
) -> tuple[Int[np.ndarray, " pieces"], Int[np.ndarray, " pieces"]]:
    """Returns where each piece begins and where the next one may begin, in the rows one after another."""
    edges = np.ones((len(segments), segments.shape[1] + 1), dtype=bool)
    edges[:, 1:-1] = segments[:, 1:] != segments[:, :-1]
    first, after = np.flatnonzero(edges[:, :-1]), np.flatnonzero(edges[:, 1:]) + 1
    real = segments.ravel()[first] != 0
    return first[real], after[real]


def framed(
    tokens: Int[np.ndarray, "B T"], segments: Int[np.ndarray, "B T"], vocabulary: Vocabulary
) -> Int[np.ndarray, "B T"]:
    """Returns the tokens with [CLS] first and [SEP] last in each piece of a document.

    A document is stored with them; a piece that begins or ends inside a document gives them the place of a token,
    unless it is very short. So every text looks to the model as texts will.
    """
    if not {"cls", "sep"} <= vocabulary.special.keys():
        return tokens
    first, after = piece_bounds(segments)
    long = after - first >= SHORTEST_FRAMED
    tokens = tokens.copy()
    tokens.ravel()[first[long]] = vocabulary.id("cls")
    tokens.ravel()[after[long] - 1] = vocabulary.id("sep")
    return tokens
