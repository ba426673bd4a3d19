"""Back-translation: a text goes into another language and comes back as another wording (Sennrich et al. 2016).

Two encoder-decoders that the user has trained or imported, one for each way. A text is translated line by line and sentence
by sentence; what stands between sentences stays. A sentence is kept as it was where an answer does not come to its end, or
is much longer or shorter than what it translates: so a bad model gives back the text and no nonsense.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Any, final

from annotated_types import Ge, Gt, Le

from gristmill import rng
from gristmill.errors import InputError
from gristmill.generate.load import Loaded
from gristmill.generate.sampling import SamplingSettings
from gristmill.generate.sequences import generate_sequences
from gristmill.synthesis.paraphrase import Rewritten
from gristmill.tokenizer.framing import frame, start_token

__all__ = ["BackTranslation", "TranslationSettings", "sentences_of"]

_SENTENCE = re.compile(r"[^\n]*?(?:[.!?…]+[\"')\]”’»]*(?=\s|\Z)|[。！？…]+[”’」』）]*|(?=\n)|\Z)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationSettings:
    """How texts go there and back."""

    temperature: Annotated[float, Ge(0)] = 0.8
    """Of both ways: below 1 nearer to the likeliest, 0 the likeliest, which is the same each time."""
    top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    """Tokens come from the likeliest that together have this probability."""
    prefix: str = ""
    """What stands before each sentence on the way there, for models that are told what to do by it."""
    back_prefix: str = ""
    """The same on the way back."""
    most_tokens: Annotated[int, Gt(0)] = 128
    """A sentence that is longer stays as it is."""
    longest: Annotated[float, Gt(1)] = 2.0
    """An answer may have so many times the characters of the sentence that comes back, or one so-manieth."""
    batch: Annotated[int, Gt(0)] = 16
    """Sentences at a time."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise InputError("temperature is 0 or more, and top_p above 0 and at most 1")
        if self.most_tokens < 1 or self.batch < 1 or self.longest <= 1:
            raise InputError("most_tokens and batch are at least 1, and longest is above 1")


@final
class BackTranslation:
    """Rewrites texts by two models."""

    by = "back-translation"

    def __init__(self, there: Loaded, back: Loaded, settings: TranslationSettings) -> None:
        """Takes the model of each way.

        Raises:
            InputError: one of them is no encoder-decoder.
        """
        for way, loaded in (("there", there), ("back", back)):
            if loaded.config.kind != "encoder-decoder":
                raise InputError(
                    f'the model on the way {way} is of kind "{loaded.config.kind}", and translating takes an '
                    "encoder-decoder",
                    "train or import one for each direction; one encoder or encoder-decoder alone paraphrases (no --back)",
                )
        self._ways = (_Way(there, settings.prefix, settings), _Way(back, settings.back_prefix, settings))
        self._settings = settings

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Rewritten]:
        """Returns each text there and back: a function of the text and its seed, up to the rounding of batches."""
        split = [sentences_of(text) for text in texts]
        places = [
            (number, nth)
            for number, parts in enumerate(split)
            for nth, part in enumerate(parts)
            if part.strip() and any(character.isalpha() for character in part)
        ]
        sentences = [split[number][nth].strip() for number, nth in places]
        now: list[str | None] = list(sentences)
        for way, translate in enumerate(self._ways):
            alive = [i for i, sentence in enumerate(now) if sentence is not None]
            written = translate(
                [str(now[i]) for i in alive],
                [rng.derive(seeds[places[i][0]], "translate", way, places[i][1]) for i in alive],
            )
            for i, sentence in zip(alive, written, strict=True):
                now[i] = sentence
        changes = [0] * len(texts)
        for (number, nth), before, after in zip(places, sentences, now, strict=True):
            if after is not None and after != before and self._is_like(before, after):
                split[number][nth] = split[number][nth].replace(before, after, 1)
                changes[number] += 1
        return [Rewritten("".join(parts), count) for parts, count in zip(split, changes, strict=True)]

    def _is_like(self, before: str, after: str) -> bool:
        ratio = len(after) / len(before)
        return 1 / self._settings.longest <= ratio <= self._settings.longest and "\ufffd" not in after


def sentences_of(text: str) -> list[str]:
    r"""Returns the sentences of a text, white space before each with it; together they are the text.

    "One. Two!\nThree" -> ["One.", " Two!", "\n", "Three"]
    """
    found, at = [], 0
    while at < len(text):
        end = at + 1
        if text[at] != "\n":
            matched = _SENTENCE.match(text, at)
            end = max(end, matched.end()) if matched else len(text)
        found.append(text[at:end])
        at = end
    return found


@final
class _Way:
    """One direction."""

    def __init__(self, loaded: Loaded, prefix: str, settings: TranslationSettings) -> None:
        self._model, self._tokenizer, self._prefix = loaded.model.eval(), loaded.tokenizer, prefix
        self._edges = frame(loaded.tokenizer.special, "encoder-decoder")
        self._start, self._end = start_token(loaded.tokenizer.special), loaded.tokenizer.special.get("eos")
        config = loaded.config
        limit = settings.most_tokens if config.positions == "relative" else config.maximum_positions
        self._most = min(settings.most_tokens, limit - self._edges.size)
        self._settings = settings

    def __call__(self, sentences: Sequence[str], seeds: Sequence[int]) -> list[str | None]:
        """Returns the translation of each sentence; None where there is none."""
        ids = self._tokenizer.encode_batch([self._prefix + sentence for sentence in sentences])
        able = [i for i, tokens in enumerate(ids) if 0 < len(tokens) <= self._most]
        written: list[str | None] = [None] * len(sentences)
        if not able:
            return written
        longest = max(len(ids[i]) for i in able)
        settings: Any = SamplingSettings(
            temperature=self._settings.temperature, top_p=self._settings.top_p,
            max_new_tokens=int(self._settings.longest * longest) + 8,
        )  # fmt: skip
        answers = generate_sequences(
            self._model, [self._edges.around(ids[i]) for i in able], settings, start=self._start, end=self._end,
            batch_size=self._settings.batch, seeds=[seeds[i] for i in able],
        )  # fmt: skip
        for i, answer in zip(able, answers, strict=True):
            text = self._tokenizer.decode([token for token in answer.tokens if token != self._end]).strip()
            written[i] = " ".join(text.split()) if answer.finish == "end" and text else None
        return written
