"""Writing a text about another: translations, summaries, titles, classical Chinese in modern words.

    encoder-decoder  the encoder reads  prefix source           the decoder writes  target eos
    decoder          reads              bos prefix source sep   and writes          target eos

The loss is that of the target alone. A source that is too long is cut at its end. Of several targets each is learned, and what is
written is compared with all of them.

Figures, all with intervals over examples: nats and perplexity of a token of the targets; chrF; BLEU, for Chinese targets by
characters; ROUGE, of several targets that which is nearest, as in rouge-score; exact, the share of texts that are the same.
"""

import dataclasses
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, final

import numpy as np
from annotated_types import Gt, Interval, MinLen

from gristmill.adapt.encoding import Encoder
from gristmill.adapt.net import Net
from gristmill.adapt.tables import Row, field_of
from gristmill.adapt.task import Example, Figure, Item, Mistake, Result
from gristmill.adapt.tasks.classification import texts_of
from gristmill.adapt.writing import (
    Said,
    WritingTask,
    end_of,
    grouped,
    item_of,
    likelihood,
    nats_of,
    prompt_of,
    prompt_room,
    shortened,
    write,
)
from gristmill.errors import InputError
from gristmill.generate.completing import prompt_tokens
from gristmill.metrics.intervals import ratio_interval, wilson_interval
from gristmill.metrics.summaries import ROUGES, rouge_scores
from gristmill.metrics.translations import bleu, chrf
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.framing import frame

__all__ = ["Comparison", "SequenceExample", "Sequences", "check_comparisons", "compared", "furthest"]

Comparison = Literal["chrf", "bleu", "rouge", "exact"]
SHOWN = 5
_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclasses.dataclass(frozen=True)
class SequenceExample(Example):
    """A text, and what is to be written about it: one text, or several that are as good; none where that is not known."""

    source: str
    targets: tuple[str, ...]

    @property
    def key(self) -> str:
        """The source."""
        return self.source

    def unlabelled(self) -> "SequenceExample":
        """Returns the source alone."""
        return dataclasses.replace(self, targets=())


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequences(WritingTask[SequenceExample]):
    """A text for each text."""

    source: str = "src"
    """The column of what is read."""
    target: str = "tgt"
    """The column of what is written: a text, or a list of texts of which each is right."""
    prefix: str = ""
    """What stands before every source, such as "Translate to Chinese: "."""
    separator: str = "\n"
    """What stands between source and target, for decoders alone."""
    metrics: Annotated[tuple[Comparison, ...], MinLen(1)] = ("chrf", "bleu")
    """What is written is compared by these; BLEU needs sacrebleu."""
    max_new_tokens: Annotated[int, Gt(0)] = 128
    """The most tokens of an answer. For decoders so many, but at most half of `maximum_tokens`, are kept free behind a source."""
    beams: Annotated[int, Gt(0)] = 1
    """How many answers are kept on the way to the best, by encoder-decoders; 1 takes the likeliest token each time."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of each target that is spread over the vocabulary in training, so that the model is less sure; 0.1 is usual."""

    @property
    def text(self) -> str:
        """The column that a text stands in that comes alone."""
        return self.source

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[SequenceExample]:
        """Returns the examples of rows.

        Raises:
            InputError: a source or a target is missing, empty, or no text.
        """
        return [
            SequenceExample(
                row.place, texts_of(row, self.source)[0], _targets(row, self.target) if labelled else ()
            )
            for row in rows
        ]

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether a model can write, and whether what it writes can be compared.

        Raises:
            InputError: it can't.
        """
        super().check(config, tokenizer)
        check_comparisons(self.metrics)
        if self.beams > 1 and config.kind == "decoder":
            raise InputError(
                f"task.beams = {self.beams}, but the base is a decoder, which writes the likeliest token each time",
                "set task.beams = 1, or take an encoder-decoder",
            )
        if config.kind == "decoder" and not self.separator:
            raise InputError(
                "without a separator a decoder can't tell where the source ends",
                'set task.separator = "\\n"',
            )

    def items(
        self,
        examples: Sequence[SequenceExample],
        tokenizer: Tokenizer,
        encoder: Encoder,
        outputs: Sequence[str],
    ) -> list[Item]:
        """Returns an item for each target of each example, or one without a target.

        Raises:
            InputError: prefix and separator leave no room for a source.
        """
        decodes = encoder.kind == "decoder"
        room = prompt_room(encoder, self.max_new_tokens) if decodes else encoder.maximum_tokens
        prompts = self._prompts([each.source for each in examples], tokenizer, encoder.kind)
        answers = tokenizer.encode_batch([target for each in examples for target in each.targets])
        waiting = iter(answers)
        found: list[Item] = []
        for number, (example, prompt) in enumerate(zip(examples, prompts, strict=True)):
            cut, whole = 0, len(prompt)
            if whole > room:
                prompt = self._shortened(example, tokenizer, encoder.kind, room)
                cut = whole - len(prompt)
            left = encoder.maximum_tokens - (len(prompt) if decodes else 0)
            told: list[list[int] | None] = [[*next(waiting), end_of(tokenizer)] for _ in example.targets]
            found += [item_of(prompt, each, number, room=left, cut=cut) for each in told or [None]]
        return found

    def answers(
        self, net: Net, items: Sequence[Item], examples: Sequence[SequenceExample], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Returns what is written about each source, and where targets are known how likely those are."""
        groups = grouped(items)
        prompts = [prompt_of(group[0]) for group in groups]
        texts = write(net, prompts, max_new_tokens=self.max_new_tokens, beams=self.beams)
        found: list[Mapping[str, Any]] = [{"text": text} for text in texts]
        known = [i for i, example in enumerate(examples) if example.targets]
        said = iter(nats_of(net, [item for i in known for item in groups[i]]))
        for i in known:
            each = [next(said) for _ in groups[i]]
            nats, tokens = sum(one.nats for one in each), sum(one.tokens for one in each)
            found[i] = {**found[i], "target_nats": nats, "target_tokens": tokens}
        return found

    def result(self, examples: Sequence[SequenceExample], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns how near what was written is to the targets, and how likely those are."""
        texts = [each["text"] for each in predictions]
        said = [Said(each["target_nats"], each["target_tokens"]) for each in predictions]
        figures, notes = compared(texts, [example.targets for example in examples], self.metrics)
        shown = [
            f"{example.source.strip()}\n  written: {text}\n  wanted:  {example.targets[0].strip()}\n"
            for example, text in list(zip(examples, texts, strict=True))[:SHOWN]
        ]
        return Result({**figures, **likelihood(said)}, "\n".join([*shown, *notes]))

    def mistakes(
        self, examples: Sequence[SequenceExample], predictions: Sequence[Mapping[str, Any]]
    ) -> list[Mistake]:
        """Returns what is not as one of the targets, that with the least chrF first."""
        return furthest(
            [(example.place, example.source, example.targets) for example in examples],
            [each["text"] for each in predictions],
        )

    def _prompts(self, sources: Sequence[str], tokenizer: Tokenizer, kind: str) -> list[list[int]]:
        behind = self.separator if kind == "decoder" else ""
        texts = [f"{self.prefix}{source}{behind}" for source in sources]
        if kind == "decoder":
            before = prompt_tokens(tokenizer, "")
            return [[*before, *tokens] for tokens in tokenizer.encode_batch(texts)]
        around = frame(tokenizer.special, kind).around
        return [around(tokens) for tokens in tokenizer.encode_batch(texts)]

    def _shortened(self, example: SequenceExample, tokenizer: Tokenizer, kind: str, room: int) -> list[int]:
        def prompt(source: str) -> list[int]:
            return self._prompts([source], tokenizer, kind)[0]

        shorter = shortened(example.source, tokenizer, lambda source: len(prompt(source)), room)
        if shorter is None:
            raise InputError(
                f"{example.place}: prefix and separator have {len(prompt('')):,} tokens, and a source with them may have {room:,}",
                "shorten task.prefix, lower task.max_new_tokens, or raise maximum_tokens",
            )
        return prompt(shorter)


def check_comparisons(metrics: Sequence[Comparison]) -> None:
    """Looks whether texts can be compared in these ways.

    Raises:
        InputError: a library is missing.
    """
    if "bleu" in metrics and importlib.util.find_spec("sacrebleu") is None:
        raise InputError(
            "BLEU needs sacrebleu",
            'pip install "gristmill[translation]", or set task.metrics = ["chrf"]',
        )


def compared(
    texts: Sequence[str], targets: Sequence[Sequence[str]], metrics: Sequence[Comparison]
) -> tuple[dict[str, Figure], list[str]]:
    """Returns how near texts are to those that were wanted, and what has to be the same for figures to be compared."""
    figures: dict[str, Figure] = {}
    notes = []
    for name in metrics:
        if name == "exact":
            same = sum(
                any(text.split() == each.split() for each in several)
                for text, several in zip(texts, targets, strict=True)
            )
            figures["exact"] = Figure(same / len(texts), wilson_interval(same, len(texts)))
        elif name == "rouge":
            figures |= _rouge(texts, targets)
            notes.append("ROUGE: F1, no stemming; Chinese by characters")
        elif name == "bleu":
            score = bleu(texts, targets, "zh" if _is_chinese(targets) else "13a")
            figures["BLEU"] = Figure(score.value, score.interval)
            notes.append(f"BLEU: {score.signature}")
        else:
            score = chrf(texts, targets)
            figures["chrF"] = Figure(score.value, score.interval)
            notes.append(f"chrF: {score.signature}")
    return figures, notes


def furthest(wanted: Sequence[tuple[str, str, Sequence[str]]], texts: Sequence[str]) -> list[Mistake]:
    """Returns texts that are none of those that were wanted, that with the least chrF first.

    Args:
        wanted: of each its place, what was asked, and the texts that are right.
        texts: what was written.
    """
    found = [
        (chrf([text], [several]).value, Mistake(place, asked, several[0], text))
        for (place, asked, several), text in zip(wanted, texts, strict=True)
        if text.split() not in [each.split() for each in several]
    ]
    return [mistake for _, mistake in sorted(found, key=lambda entry: entry[0])]


def _rouge(texts: Sequence[str], targets: Sequence[Sequence[str]]) -> dict[str, Figure]:
    rows = [
        [rouge_scores(text, each) for each in several] for text, several in zip(texts, targets, strict=True)
    ]
    found = {}
    for name in ROUGES[:3]:
        best = 100 * np.array([max(each[name] for each in row) for row in rows])
        shown = name.replace("rouge", "ROUGE-")
        found[shown] = Figure(float(best.mean()), ratio_interval(best, np.ones(len(best)), seed=0))
    return found


def _is_chinese(targets: Sequence[Sequence[str]]) -> bool:
    text = "".join(several[0] for several in targets)
    return 2 * len(_CHINESE.findall(text)) > len(_LETTER.findall(text))


def _targets(row: Row, column: str) -> tuple[str, ...]:
    value = field_of(row, column)
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(
            f'{row.place}: "{column}" is {value!r}, expected a text', "mend this row, or take it out"
        )
    return tuple(texts)


EXPORT = Sequences
