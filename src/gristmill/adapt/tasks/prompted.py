"""Telling the class of a text by the word that a model would write in a gap: with few labels, or none.

    template  "{text} It was {mask}."                 words  pos = "great", neg = "terrible"
    encoder   the masks' log-probabilities of each word (Schick and Schütze 2021, arXiv:2001.07676: PET)
    decoder   those of each word behind the template, which ends with the gap (Brown et al. 2020, arXiv:2005.14165)
    enc.-dec. those of each word behind the sentinel that stands in the gap

A word of several tokens has as many masks, all read at once; a decoder reads its tokens one after the other. A class with several
words has the mean of their probabilities. Space before the gap belongs to the word, as byte-level tokenizers have it.

The loss is the cross-entropy of the scores of the classes, so that a few labels fine-tune the model in any way that learns some of
its weights; with `tune.epochs = 0` none is needed. Labelled examples may stand before each text (`shots`), and the scores of a
template without content may be subtracted (`calibration`).
"""

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor

from gristmill import rng
from gristmill.adapt.encoding import Encoded, Encoder, in_parts
from gristmill.adapt.net import PREDICTION_TOKENS, Net
from gristmill.adapt.tables import Row
from gristmill.adapt.task import Item, Result, Task, summed, weights_of
from gristmill.adapt.tasks.classification import Classification, TextExample, changed, likeliest_class
from gristmill.augment.characters import Edit
from gristmill.batch import Batch, Loss, Source, Visibility
from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.objectives.base import hidden_states
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.framing import start_token

__all__ = ["Prompted", "Shot"]

_FIELD = re.compile(r"\{(\w*)\}")
GAP = "mask"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shot:
    """An example that stands before each text."""

    texts: tuple[str, ...]
    """Its text, or both."""
    label: str
    """Its class."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompted(Task[TextExample]):
    """One class for each text, or pair of texts, by the word in the gap of a template."""

    template: str
    """What the model reads: "{text}" is the text ("{a}" and "{b}" those of a pair), and "{mask}" where the word goes."""
    words: Mapping[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """The word or words of each class; by default the names of the classes, with spaces for underscores."""
    text: str | tuple[str, str] = "text"
    """The column of the text, or of both texts of a pair."""
    label: str = "label"
    """The column of the class."""
    length: Literal["mean", "sum"] = "mean"
    """Of a word of several tokens: the mean of their log-probabilities, or the sum, which prefers short words."""
    calibration: tuple[str, ...] = ()
    """Texts that say nothing; their scores are subtracted. [""] is PMI (Holtzman et al. 2021, arXiv:2104.08315), and
    ["N/A", "[MASK]", ""] contextual calibration (Zhao et al. 2021, arXiv:2102.09690)."""
    shots: Annotated[int, Ge(0)] = 0
    """So many training examples stand before each text: of each class as many, drawn with the seed."""
    between: str = "\n\n"
    """What stands between them."""
    examples: tuple[Shot, ...] = ()
    """The examples themselves, in place of some that are drawn."""

    reads_prompts = True
    untrained = True

    def __post_init__(self) -> None:
        fields = Counter(_FIELD.findall(self.template))
        wanted = {GAP, *self._sides}
        unknown = sorted(set(fields) - wanted)
        shown = " and ".join(f"{{{name}}}" for name in (*self._sides, GAP))
        if unknown or any(fields[name] != 1 for name in wanted):
            found = f"it names {{{unknown[0]}}}" if unknown else "it does not"
            raise InputError(
                f'task.template = "{self.template}" should hold {shown} once each, and {found}',
                'write for example "{text} It was {mask}.", and of two texts "{a}? {mask}, {b}"',
            )
        for shot in self.examples:
            if len(shot.texts) != len(self._sides) or (self.words and shot.label not in self.words):
                raise InputError(
                    f'task.examples: "{shot.label}" has {len(shot.texts)} texts, or is no class of task.words',
                    f"each example has {len(self._sides)} and one of the classes",
                )

    def read(self, rows: Iterable[Row], *, labelled: bool) -> list[TextExample]:
        """Returns the examples of rows.

        Raises:
            InputError: a text is missing or empty, or a class is.
        """
        return Classification(text=self.text, label=self.label).read(rows, labelled=labelled)

    def outputs(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        """Returns the classes, sorted: those that have words, else those of the examples.

        Raises:
            InputError: there are fewer than two, or an example's class has no words.
        """
        if not self.words:
            return Classification().outputs(examples)
        for example in examples:
            if example.label not in self.words:
                raise InputError(
                    f'{example.place}: there is no word for the class "{example.label}"',
                    "add it to [task.words], or take this example out",
                )
        if len(self.words) < 2:
            raise InputError(
                "task.words has one class, so there is nothing to tell apart", "add words of another"
            )
        return tuple(sorted(self.words))

    def settled(self, examples: Sequence[TextExample], seed: int) -> "Prompted":
        """Returns the task with the examples that stand before each text.

        Raises:
            InputError: there are fewer.
        """
        if not self.shots or self.examples:
            return self
        if len(examples) < self.shots:
            raise InputError(
                f"task.shots = {self.shots}, and there are {len(examples)} training examples",
                "set fewer",
            )
        order = [examples[i] for i in rng.stream(seed, "shots").permutation(len(examples)).tolist()]
        before: Counter[str] = Counter()
        turns = []
        for example in order:  # of each class the first, then of each the second, ...
            turns.append(before[str(example.label)])
            before[str(example.label)] += 1
        chosen = sorted(np.argsort(turns, kind="stable")[: self.shots].tolist())
        return dataclasses.replace(
            self, examples=tuple(Shot(texts=order[i].texts, label=str(order[i].label)) for i in chosen)
        )

    def check(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        """Looks whether a model writes words into gaps.

        Raises:
            InputError: it doesn't, or the gap is where it can't.
        """
        if config.kind == "decoder" and not self.template.rstrip().endswith(f"{{{GAP}}}"):
            raise InputError(
                f'a decoder writes behind what it reads, and in task.template = "{self.template}" something follows {{mask}}',
                "end the template with {mask}",
            )
        if config.kind == "encoder":
            tokenizer.vocabulary().id("mask")
            if config.head == "linear" or config.generator_layers:
                raise InputError(
                    f'this model of the family "{config.family}" has no head that predicts tokens',
                    'start from one with its masked-language-model head, or set task = "classification"',
                )
        if config.kind == "encoder-decoder" and not tokenizer.sentinels:
            raise InputError(
                "the tokenizer has no sentinel that could stand in the gap",
                'start from a model that was trained with "spans", or set task = "classification"',
            )

    def items(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, encoder: Encoder, outputs: Sequence[str]
    ) -> list[Item]:
        """Returns the items of each example: one for all words of one token, more where words have several.

        Raises:
            InputError: a class has no words or those of another, or the template leaves no room for a text.
        """
        numbers = {name: i for i, name in enumerate(outputs)}
        for example in examples:
            if example.label is not None and example.label not in numbers:
                raise InputError(
                    f'{example.place}: there is no word for the class "{example.label}"',
                    "add it to [task.words], or take this example out",
                )
        words = self._words(tokenizer, encoder.kind, outputs)
        empty = [
            Item(encoded, question, -number)
            for number, text in enumerate(self.calibration, 1)
            for encoded, question in self._asked((text,) * len(self._sides), words, None, tokenizer, encoder)
        ]
        words = words._replace(empty=tuple(empty))
        return [
            Item(encoded, question, number)
            for number, example in enumerate(examples)
            for encoded, question in self._asked(
                example.texts, words, numbers.get(str(example.label)), tokenizer, encoder
            )
        ]

    def noised(self, example: TextExample, change: Callable[[str], Sequence[Edit]]) -> TextExample:
        """Returns an example with its texts changed."""
        return dataclasses.replace(example, texts=changed(example.texts, change))

    def labelled(self, example: TextExample, prediction: Mapping[str, Any]) -> tuple[TextExample, float]:
        """Returns an example with the class that is predicted, and its probability."""
        return dataclasses.replace(example, label=str(prediction["label"])), float(prediction["probability"])

    def loss(self, net: Net, items: Sequence[Item], dropout_seed: int = 0) -> Loss:
        """Returns the cross-entropy of each example's class."""
        scores = self._scores(net, items, dropout_seed)
        firsts = [next(group) for _, group in itertools.groupby(items, key=lambda item: item.example)]
        targets = torch.tensor([item.target.label for item in firsts], device=scores.device)
        return summed(F.cross_entropy(scores, targets, reduction="none"), weights_of(firsts, scores))

    @torch.no_grad()
    def answers(
        self, net: Net, items: Sequence[Item], examples: Sequence[TextExample], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Returns the likeliest class of each example, and its share of the probability of all classes."""
        if not items:
            return []
        scores = [self._scores(net, part).cpu().numpy() for part in in_parts(items, PREDICTION_TOKENS)]
        return likeliest_class(np.concatenate(scores), outputs)

    def result(self, examples: Sequence[TextExample], predictions: Sequence[Mapping[str, Any]]) -> Result:
        """Returns accuracy, and F1 on macro and weighted average."""
        return Classification().result(examples, predictions)

    # --- what the model reads -----------------------------------------------------------------------------------------

    @property
    def _sides(self) -> tuple[str, ...]:
        return ("text",) if isinstance(self.text, str) else ("a", "b")

    @property
    def _parts(self) -> tuple[list[str], list[str]]:
        """The template up to the gap and behind it: texts, and between each two of them the name of a field."""
        parts = _FIELD.split(self.template)
        gap = next(i for i in range(1, len(parts), 2) if parts[i] == GAP)
        return parts[:gap], parts[gap + 1 :]

    def _words_of(self, name: str) -> tuple[str, ...]:
        given = self.words.get(name, name.replace("_", " "))
        return tuple(word.strip() for word in ((given,) if isinstance(given, str) else given))

    def _words(self, tokenizer: Tokenizer, kind: str, outputs: Sequence[str]) -> "_Words":
        """The words of all classes as tokens, in groups that are asked for at once."""
        before = self._parts[0][-1]
        space = "" if before == before.rstrip() else " "
        every = [(number, word) for number, name in enumerate(outputs) for word in self._words_of(name)]
        tokens = [tuple(each) for each in tokenizer.encode_batch([space + word for _, word in every])]
        seen: dict[tuple[int, ...], int] = {}
        for (owner, word), each in zip(every, tokens, strict=True):
            if not each or tokenizer.special.get("unk") in each:
                raise InputError(
                    f'the tokenizer does not know the word "{word}" of the class "{outputs[owner]}"',
                    "give the class another: [task.words]",
                )
            other = seen.setdefault(each, owner)
            if other != owner:
                raise InputError(
                    f'the classes "{outputs[other]}" and "{outputs[owner]}" have the same word "{word}"',
                    "give them different ones: [task.words]",
                )
        if len({owner for owner, _ in every}) < len(outputs):
            raise InputError("a class has no words", "give each class one: [task.words]")
        # as many masks can stand for words of as many tokens; what is read token by token has to agree up to the last
        groups: dict[Any, list[int]] = {}
        for number, each in enumerate(tokens):
            groups.setdefault(len(each) if kind == "encoder" else each[:-1], []).append(number)
        return _Words(
            owners=np.array([owner for owner, _ in every]),
            groups=tuple(
                _Group(np.array(members), np.array([tokens[i] for i in members]))
                for members in groups.values()
            ),
        )

    def _asked(
        self, texts: Sequence[str], words: "_Words", label: int | None, tokenizer: Tokenizer, encoder: Encoder
    ) -> Iterator[tuple[Encoded, "_Question"]]:
        """What the model reads for each group of words, and where its answers stand."""
        before, after = self._parts
        sides = dict(zip(self._sides, texts, strict=True))
        shown = [self._shown(shot) for shot in self.examples if shot.texts != tuple(texts)]
        before[-1] = before[-1].rstrip()  # it is a part of the word
        before[0] = self.between.join([*shown, before[0]])
        pieces = _tokens(before, sides, tokenizer), _tokens(after, sides, tokenizer)
        for number, group in enumerate(words.groups):
            count, read = group.tokens.shape[1], group.tokens[0, :-1].tolist()
            gap, written = read, ()
            if encoder.kind == "encoder":
                gap = [tokenizer.special["mask"]] * count
            elif encoder.kind == "encoder-decoder":
                gap = [tokenizer.sentinels[0]]
                written = (start_token(tokenizer.special), *gap, *read)
            head, tail = _cut(pieces, encoder.room - len(gap))
            encoded = encoder.text([*head, *gap, *tail])
            first = encoded.first + len(head) - (encoder.kind == "decoder")
            yield encoded, _Question(words, number, 1 if written else first, written, label)

    def _shown(self, shot: Shot) -> str:
        """An example with its word in the gap."""
        sides = {**dict(zip(self._sides, shot.texts, strict=True)), GAP: self._words_of(shot.label)[0]}
        parts = _FIELD.split(self.template)
        return "".join(sides[part].strip() if i % 2 else part for i, part in enumerate(parts))

    # --- what it says of the words ------------------------------------------------------------------------------------

    def _scores(self, net: Net, items: Sequence[Item], dropout_seed: int = 0) -> Float[Tensor, "N classes"]:
        """The score of each class, for each example: a log-probability, or how far it is above that without content."""
        words: _Words = items[0].target.words
        asked = [*items, *words.empty]
        rows = np.cumsum([i > 0 and asked[i].example != asked[i - 1].example for i in range(len(asked))])
        places, tokens, cells, lengths = [], [], [], []
        first = 0
        for row, item in zip(rows, asked, strict=True):
            group = words.groups[item.target.group]
            count, length = group.tokens.shape
            places.append(np.tile(np.arange(first, first + length), count))
            tokens.append(group.tokens.ravel())
            cells.append(np.repeat(row * len(words.owners) + group.members, length))
            lengths.append(np.full(count * length, length))
            first += length
        at, of, into, divisor = (
            torch.from_numpy(np.concatenate(each)).to(net.device) for each in (places, tokens, cells, lengths)
        )
        said = net.model.logits(_states(net, asked, dropout_seed)).float().log_softmax(-1)[at, of]
        if self.length == "mean":
            said = said / divisor
        size = int(rows[-1]) + 1
        of_words = torch.zeros(size * len(words.owners), device=said.device).index_add(0, into, said)
        of_words = of_words.view(size, -1)
        owners = torch.from_numpy(words.owners).to(said.device)
        scores = torch.stack(
            [_log_mean_exp(of_words[:, owners == number], 1) for number in range(int(owners.max()) + 1)], 1
        )
        if not words.empty:
            return scores
        count = size - len(self.calibration)
        return scores[:count] - _log_mean_exp(scores[count:].log_softmax(-1), 0)


class _Group(NamedTuple):
    """Words that one item is asked for."""

    members: Int[np.ndarray, " words"]
    """Their numbers among all."""
    tokens: Int[np.ndarray, "words length"]


class _Words(NamedTuple):
    """The words of all classes."""

    owners: Int[np.ndarray, " words"]
    """The class of each."""
    groups: tuple[_Group, ...]
    empty: tuple[Item, ...] = ()
    """The template around texts that say nothing."""


class _Question(NamedTuple):
    """What an item is asked."""

    words: _Words
    group: int
    first: int
    """Which position says the first token of the words: of the text, or of what an encoder-decoder writes."""
    written: tuple[int, ...]
    """What an encoder-decoder has written before."""
    label: int | None


class _Tokens(NamedTuple):
    """A part of the template, filled."""

    ids: list[int]
    sides: list[str]
    """Of which text each token is; "" where it is of the template."""


def _tokens(parts: Sequence[str], sides: Mapping[str, str], tokenizer: Tokenizer) -> _Tokens:
    """Fills parts of a template, of which every second one is the name of a text."""
    whole = ""
    owners: list[str] = []
    for i, part in enumerate(parts):
        written = sides[part].strip() if i % 2 else part
        whole += written
        owners += [part if i % 2 else ""] * len(written)
    if not whole:
        return _Tokens([], [])
    ((ids, places),) = tokenizer.encode_with_places([whole])
    inside = [
        owners[start] if end > start and len(set(owners[start:end])) == 1 else "" for start, end in places
    ]
    return _Tokens(list(ids), inside)


def _cut(pieces: Sequence[_Tokens], room: int) -> tuple[list[int], ...]:
    """The tokens of each piece, without the last ones of the longer text where they are too many.

    Raises:
        InputError: the template alone is too long.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for number, piece in enumerate(pieces):
        for place, side in enumerate(piece.sides):
            if side:
                found.setdefault(side, []).append((number, place))
    excess = sum(len(piece.ids) for piece in pieces) - room
    dropped = set()
    for _ in range(excess):
        longest = max(found.values(), key=len, default=[])
        if len(longest) < 2:
            raise InputError(
                f"the template and the examples before the text leave no room: there are {room} tokens for all",
                "set fewer task.shots, a shorter task.template, or a higher maximum_tokens",
            )
        dropped.add(longest.pop())
    return tuple(
        [token for place, token in enumerate(piece.ids) if (number, place) not in dropped]
        for number, piece in enumerate(pieces)
    )


def _states(net: Net, items: Sequence[Item], dropout_seed: int) -> Float[Tensor, "Q D"]:
    """The hidden states that say the tokens of the words, one item after the other."""
    kind = net.model.config.kind
    if kind == "decoder":  # what it is asked for stands behind the text, so it must not see all of it
        net = dataclasses.replace(net, visibility=Visibility.CAUSAL)
    packed = net.pack(items)
    starts = packed.starts.numpy()
    if kind == "encoder-decoder":
        lengths = np.array([len(item.target.written) for item in items])
        starts = np.cumsum(lengths) - lengths
        tokens = torch.tensor([[token for item in items for token in item.target.written]])
        segments = torch.from_numpy(np.repeat(np.arange(1, len(items) + 1), lengths))[None]
        batch = Batch(
            tokens=tokens, targets=tokens, weights=torch.zeros(tokens.shape), segments=segments,
            visibility=Visibility.CAUSAL,
        ).to(net.device)  # fmt: skip
        source = Source(tokens=packed.batch.tokens, segments=packed.batch.segments)
        hidden = hidden_states(net.model, dataclasses.replace(batch, source=source), dropout_seed)[0]
    else:
        hidden = net.hidden(packed, dropout_seed)
    places = np.concatenate([
        start + item.target.first + np.arange(item.target.words.groups[item.target.group].tokens.shape[1])
        for start, item in zip(starts, items, strict=True)
    ])  # fmt: skip
    return hidden[torch.from_numpy(places).to(hidden.device)]


def _log_mean_exp(x: Float[Tensor, "N M"], dim: int) -> Float[Tensor, " _"]:
    found: Tensor = x.logsumexp(dim) - math.log(x.shape[dim])
    return found


EXPORT = Prompted
