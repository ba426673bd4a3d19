"""Masked-model paraphrase: words are hidden, and a model of ours writes others that fit there.

An encoder or a hybrid decoder tells one token for each gap (Wu et al. 2019, arXiv:1812.06705, without its label
embeddings), so words of one token are replaced by words of one token. Some of them at a time, so that later ones see the
earlier. An encoder-decoder writes what it likes in each gap (`generate.infilling`), so runs of words are replaced.

A word stays as it is where the model finds nothing else likely enough. What a model thinks likely need not mean the same:
"good" and "bad" fit in the same places. So for labelled texts this changes labels now and then, and should be tried.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, final

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval, Le
from jaxtyping import Bool, Int

from gristmill import rng
from gristmill.errors import InputError
from gristmill.evaluate.embed import padded
from gristmill.evaluate.scoring import (
    Asked,
    asking_for,
    batches_by_length,
    check_head,
    in_float32,
    word_starts,
)
from gristmill.generate.infilling import Sentinels, infill, way_for
from gristmill.generate.load import Loaded
from gristmill.generate.sampling import SamplingSettings
from gristmill.objectives.trained import objective_of
from gristmill.tokenizer.framing import frame
from gristmill.vocabulary import Vocabulary

__all__ = ["InPlaceParaphrase", "InfilledParaphrase", "ParaphraseSettings", "Rewritten", "paraphrase_for"]

GAP = "\ue0ff"
"""Marks a gap in a text: a character of the private use area, which no text that means something has."""
_RUN = 3
"""An encoder-decoder is shown gaps of one word to so many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParaphraseSettings:
    """How much is rewritten, and how boldly."""

    rate: Annotated[float, Interval(ge=0, le=1)] = 0.15
    """Share of the words that are hidden."""
    least_probability: Annotated[float, Interval(ge=0, le=1)] = 0.02
    """A word is replaced by one that the model finds at least so likely; otherwise it stays. For encoders."""
    turns: Annotated[int, Gt(0)] = 2
    """Words are hidden in so many turns, so that later ones are chosen to fit the earlier. For encoders."""
    temperature: Annotated[float, Ge(0)] = 1.0
    """Below 1 likely words are taken more often; 0 takes the likeliest."""
    top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    """Words come from the likeliest that together have this probability."""
    batch: Annotated[int, Gt(0)] = 16
    """Texts at a time, for encoder-decoders."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        for name, holds, expected in (
            ("rate", 0 <= self.rate <= 1, "0 to 1"),
            ("least_probability", 0 <= self.least_probability <= 1, "0 to 1"),
            ("turns", self.turns >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("batch", self.batch >= 1, "at least 1"),
        ):
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)}, expected {expected}")


class Rewritten(NamedTuple):
    """A text that was rewritten."""

    text: str
    changes: int
    """Words or runs of words that are other ones now."""


def paraphrase_for(loaded: Loaded, settings: ParaphraseSettings) -> "InPlaceParaphrase | InfilledParaphrase":
    """Returns what rewrites texts with a model.

    Raises:
        InputError: the model can't tell hidden words, or its tokenizer does not say where words begin.
    """
    objective = objective_of(loaded.artifact.manifest.config)
    check_head(loaded.config)
    asking = asking_for(objective, loaded.config)
    if asking is None:
        raise InputError(
            "a causal decoder can't rewrite words in the middle of a text: it has not seen what follows",
            'train a model with objective "masked", "hybrid" or "spans"; or use `gristmill corpus teach`, which goes on',
        )
    if not loaded.tokenizer.vocabulary().has_spaces:
        raise InputError(
            "the tokens of this model hold no spaces, so a text can't be put together again as it was",
            'use a model whose tokenizer keeps spaces: tokenizer.kind = "bpe"',
        )
    if asking.at_once:
        return InPlaceParaphrase(loaded, settings)
    way_for(objective, loaded.tokenizer)
    return InfilledParaphrase(loaded, settings)


@final
class InPlaceParaphrase:
    """By an encoder or a hybrid decoder: words of one token become others."""

    by: Literal["masked model"] = "masked model"

    def __init__(self, loaded: Loaded, settings: ParaphraseSettings) -> None:
        """Takes a model that tells hidden tokens in place."""
        self._model, self._tokenizer, self._settings = (
            in_float32(loaded.model).eval(),
            loaded.tokenizer,
            settings,
        )
        self._vocabulary = loaded.tokenizer.vocabulary()
        asking = asking_for(objective_of(loaded.artifact.manifest.config), loaded.config)
        assert asking is not None
        self._asking = asking
        self._frame = frame(self._vocabulary.special, loaded.config.kind)
        limit = loaded.config.maximum_positions if loaded.config.core == "transformer" else 512
        # queries of a factorization order stand behind the text
        self._window = max(
            8, min(limit // 2 if asking.where.startswith("at a query") else limit, 512) - self._frame.size
        )
        self._words = _words_of(self._vocabulary)

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Rewritten]:
        """Returns each text rewritten: a function of the text and its seed, up to the rounding of batches."""
        tokens = [np.array(ids, dtype=np.int64) for ids in self._tokenizer.encode_batch(list(texts))]
        told = [_text_of(ids, self._vocabulary) == text for ids, text in zip(tokens, texts, strict=True)]
        generators = [rng.stream(seed, "paraphrase") for seed in seeds]
        originals = [each.copy() for each in tokens]
        hidden = [self._hidden(*each) for each in zip(tokens, generators, strict=True)]
        # what a tokenizer changes can't be put back
        hidden = [places if exact else places[:0] for places, exact in zip(hidden, told, strict=True)]
        for turn in range(self._settings.turns):
            jobs = [
                _Job(number, begin, min(len(ids), begin + self._window), places)
                for number, (ids, chosen) in enumerate(zip(tokens, hidden, strict=True))
                for begin, places in _windows(chosen[turn :: self._settings.turns], self._window)
            ]
            self._fill(jobs, tokens, originals, generators)
        return [
            Rewritten(_text_of(now, self._vocabulary) if exact else text, int((now != before).sum()))
            for now, before, exact, text in zip(tokens, originals, told, texts, strict=True)
        ]

    def _hidden(self, tokens: Int[np.ndarray, " N"], generator: np.random.Generator) -> Any:
        """Which tokens are to be replaced, in random order: words of one token, none beside another."""
        if not len(tokens):
            return np.zeros(0, dtype=np.int64)
        starts = word_starts(self._vocabulary, tokens)
        # without a space before it, what fits could be the end of a word as well
        words = self._words.is_word & (self._words.has_space | self._words.is_chinese)
        alone = starts & np.append(starts[1:], True) & words[tokens]
        chosen = np.flatnonzero(alone & (generator.random(len(tokens)) < self._settings.rate))
        apart = chosen[np.concatenate([[True], np.diff(chosen) > 1])[: len(chosen)]]
        return generator.permutation(apart)

    def _fill(
        self,
        jobs: Sequence["_Job"],
        tokens: Sequence[Int[np.ndarray, " _"]],
        originals: Sequence[Int[np.ndarray, " _"]],
        generators: Sequence[np.random.Generator],
    ) -> None:
        lengths = np.array([job.end - job.begin for job in jobs], dtype=np.int64) + self._frame.size
        order = np.argsort(lengths, kind="stable")
        found: dict[int, Any] = {}
        for rows in batches_by_length(lengths[order], 4096):
            chosen = [int(i) for i in order[rows]]
            chances = self._chances([jobs[i] for i in chosen], tokens)
            first = 0
            for i in chosen:
                count = len(jobs[i].places)
                found[i] = chances[first : first + count]
                first += count
        for i, job in enumerate(jobs):  # in their own order: what is drawn does not depend on the batches
            for place, row in zip(job.places.tolist(), found[i], strict=True):
                text = tokens[job.number]
                text[place] = self._drawn(row, int(originals[job.number][place]), generators[job.number])

    @torch.inference_mode()
    def _chances(self, jobs: Sequence["_Job"], tokens: Sequence[Int[np.ndarray, " _"]]) -> Any:
        framed, segments = padded(
            [tokens[job.number][job.begin : job.end].tolist() for job in jobs], self._frame
        )
        hidden = torch.zeros(framed.shape, dtype=torch.bool)
        for row, job in enumerate(jobs):
            hidden[row, torch.from_numpy(np.sort(job.places) - job.begin + len(self._frame.before))] = True
        batch = self._asking.batch(
            Asked(tokens=framed, segments=segments, hidden=hidden, wanted=hidden), self._vocabulary
        ).to(next(self._model.parameters()).device)
        states = self._asking.states(self._model, batch)[batch.weights > 0]
        return self._model.logits(states).float().softmax(-1).cpu().numpy().astype(np.float64)

    def _drawn(self, chances: Any, original: int, generator: np.random.Generator) -> int:
        """Another word that fits, or the same where none is likely enough."""
        settings, words = self._settings, self._words
        number = generator.random()
        chances = chances[: len(words.is_word)]
        fits = (
            words.is_word
            & (words.has_space == words.has_space[original])
            & (chances >= settings.least_probability)
        )
        fits &= words.is_chinese == words.is_chinese[original]
        fits[original] = False
        able = np.flatnonzero(fits)
        if not len(able):
            return original
        able = able[np.argsort(-chances[able], kind="stable")]
        if settings.temperature == 0:
            return int(able[0])
        weights = chances[able] ** (1 / settings.temperature)
        weights = weights / weights.sum()
        before = np.cumsum(weights) - weights
        weights = np.where(before < settings.top_p, weights, 0.0)
        sums = np.cumsum(weights)
        return int(able[min(int(np.searchsorted(sums, number * sums[-1], side="right")), len(able) - 1)])


@final
class InfilledParaphrase:
    """By an encoder-decoder: runs of words become what it writes there."""

    by: Literal["encoder-decoder"] = "encoder-decoder"

    def __init__(self, loaded: Loaded, settings: ParaphraseSettings) -> None:
        """Takes a model that was trained to fill gaps."""
        self._loaded, self._settings = loaded, settings
        self._vocabulary = loaded.tokenizer.vocabulary()
        self._way = way_for(objective_of(loaded.artifact.manifest.config), loaded.tokenizer)
        limit = 512 if loaded.config.positions == "relative" else loaded.config.maximum_positions
        self._window = max(8, limit - 2)
        self._most_gaps = len(loaded.tokenizer.sentinels) or 100

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Rewritten]:
        """Returns each text rewritten: a function of the text and its seed, up to the rounding of batches."""
        pieces = [
            self._pieces(text, rng.stream(seed, "gaps")) for text, seed in zip(texts, seeds, strict=True)
        ]
        asked = [
            (number, nth)
            for number, each in enumerate(pieces)
            for nth, piece in enumerate(each)
            if piece.gaps
        ]
        settings = SamplingSettings(
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            max_new_tokens=max((self._room(pieces[n][nth]) for n, nth in asked), default=1),
        )
        fillings = infill(
            self._loaded.model, self._loaded.tokenizer, [pieces[n][nth].shown for n, nth in asked], settings,
            way=self._way, gap=GAP, batch_size=self._settings.batch,
            seeds=[rng.derive(seeds[n], "infill", nth) for n, nth in asked],
        ) if asked else []  # fmt: skip
        written = dict(zip(asked, fillings, strict=True))
        return [
            _joined([
                (piece, written.get((number, nth))) for nth, piece in enumerate(each)
            ])
            for number, each in enumerate(pieces)
        ]  # fmt: skip

    def _room(self, piece: "_Piece") -> int:
        """How many tokens an answer may have: enough for some in each gap and, where it is told again, for the text."""
        gaps = 12 * len(piece.gaps) + 8
        told = 0 if isinstance(self._way, Sentinels) else len(self._loaded.tokenizer.encode(piece.text))
        return gaps + told

    def _pieces(self, text: str, generator: np.random.Generator) -> list["_Piece"]:
        """The text in pieces that the model can read, with gaps in them."""
        if GAP in text:
            return [_Piece(text, "", ())]
        tokens = np.array(self._loaded.tokenizer.encode(text), dtype=np.int64)
        if _text_of(tokens, self._vocabulary) != text:  # what its tokenizer changes can't be put back
            return [_Piece(text, "", ())]
        found = []
        for first in range(0, len(tokens), self._window):
            part = tokens[first : first + self._window]
            found.append(self._piece(part, generator))
        return found or [_Piece(text, "", ())]

    def _piece(self, tokens: Int[np.ndarray, " N"], generator: np.random.Generator) -> "_Piece":
        starts = np.flatnonzero(word_starts(self._vocabulary, tokens))
        ends = np.append(starts[1:], len(tokens))
        runs: list[tuple[int, int]] = []
        word = 1  # the first word stays: what stands before a gap tells what it is about
        while word < len(starts) and len(runs) < self._most_gaps:
            size = int(generator.integers(1, _RUN + 1))
            # a run of two words on average, so half as often
            if generator.random() < self._settings.rate / (1 + (_RUN - 1) / 2) and word + size <= len(starts):
                runs.append((int(starts[word]), int(ends[word + size - 1])))
                word += size + 1
            else:
                word += 1
        shown, gaps, last = [], [], 0
        for begin, end in runs:
            gap = _text_of(tokens[begin:end], self._vocabulary)
            if not gap.strip() or "\ufffd" in gap or "\n" in gap:
                continue
            shown += [_text_of(tokens[last:begin], self._vocabulary), GAP]
            gaps.append(gap)
            last = end
        shown.append(_text_of(tokens[last:], self._vocabulary))
        return _Piece(_text_of(tokens, self._vocabulary), "".join(shown), tuple(gaps))


class _Piece(NamedTuple):
    text: str
    shown: str
    """With gaps in it."""
    gaps: tuple[str, ...]
    """What stood there."""


class _Job(NamedTuple):
    """A stretch of a text, and which of its tokens are asked for, as places in the text."""

    number: int
    begin: int
    end: int
    places: Int[np.ndarray, " places"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Words:
    """What can be put in place of a word."""

    is_word: Bool[np.ndarray, " V"]
    """Letters and nothing else, with or without a space before them."""
    has_space: Bool[np.ndarray, " V"]
    is_chinese: Bool[np.ndarray, " V"]


def _words_of(vocabulary: Vocabulary) -> _Words:
    texts = []
    for piece in vocabulary.pieces:
        try:
            texts.append(piece.decode())
        except UnicodeDecodeError:
            texts.append("")
    return _Words(
        np.array([text.removeprefix(" ").isalpha() for text in texts]),
        np.array([text.startswith(" ") for text in texts]),
        np.array([any("\u3400" <= character <= "\u9fff" for character in text) for text in texts]),
    )


def _windows(places: Int[np.ndarray, " places"], size: int) -> Iterator[tuple[int, Int[np.ndarray, " part"]]]:
    """Yields where each stretch begins that has some of the places in it, and these."""
    places = np.sort(places)
    for begin in np.unique(places // size).tolist():
        yield begin * size, places[places // size == begin]


def _text_of(tokens: Int[np.ndarray, " N"], vocabulary: Vocabulary) -> str:
    return b"".join(vocabulary.pieces[token] for token in tokens.tolist()).decode("utf-8", "replace")


def _joined(parts: Sequence[tuple[_Piece, Any]]) -> Rewritten:
    """The pieces with what was written in their gaps; where an answer is no good, the piece as it was."""
    texts, changes = [], 0
    for piece, filling in parts:
        is_good = (
            filling is not None
            and filling.gaps is not None
            and filling.finish == "end"
            and all(_may_stand(gap, before) for gap, before in zip(filling.gaps, piece.gaps, strict=True))
        )
        texts.append(filling.text if is_good else piece.text)
        changes += sum(a != b for a, b in zip(filling.gaps, piece.gaps, strict=True)) if is_good else 0
    return Rewritten("".join(texts), changes)


def _may_stand(gap: str, before: str) -> bool:
    """Whether what was written in a gap can be text in place of what stood there."""
    return bool(gap.strip()) and "\n" not in gap and "\ufffd" not in gap and len(gap) <= 3 * len(before) + 10
