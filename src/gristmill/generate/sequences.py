"""What an encoder-decoder writes about a source: the likeliest token each time, drawn, or searched for with beams.

    state = read(model, [[1, 17, 4, 2], [1, 9, 2]])
    logits, state = write_one_token(model, state, torch.tensor([start, start]))
    logits, state = write_one_token(model, state, logits.argmax(-1))

Sources are padded on the right and seen up to their own length. All that is written begins in the same column, so
the decoder's cache has no padding. `generate_sequences` and `search_sequences` are the loops around these steps;
greedy and beam search give the tokens that `generate` of transformers gives for the exported model.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar, final

import torch
from annotated_types import Gt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gristmill import rng
from gristmill.errors import InputError
from gristmill.generate.sampling import SamplingSettings, choose, samplers
from gristmill.model.base import Memory, Model
from gristmill.model.transformer import Transformer

__all__ = [
    "BeamSettings",
    "Found",
    "Rule",
    "State",
    "Written",
    "generate_sequences",
    "keep_rows",
    "read",
    "search_sequences",
    "write_one_token",
]

Rule = Callable[[Sequence[int]], Bool[Tensor, " V"]]
"""Which tokens may come after those that were written so far."""

IMPOSSIBLE = -1e9
"""The score of a beam that is not there yet, as in transformers; a sum of log-probabilities never gets so low."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSettings:
    """How the best of many sequences is searched for.

    Raises:
        InputError: on construction, when a number is out of its range.
    """

    beams: Annotated[int, Gt(0)] = 4
    """Sequences that are kept on the way, and complete ones that are found for each source."""
    length_penalty: float = 1.0
    """A sequence's score is its log-probability divided by its tokens to this power: more favours long ones."""
    max_new_tokens: Annotated[int, Gt(0)] = 256
    """The most tokens that are written, the end token among them."""

    def __post_init__(self) -> None:
        for name in ("beams", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)!r}, expected at least 1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written about one source."""

    tokens: tuple[int, ...]
    """The start token left out, an end token included."""
    finish: Literal["end", "length"]
    """Why it ended: with the end token, or because there were as many tokens as there may be."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found(Written):
    """One of the sequences that a search found."""

    score: float
    """The sum of its tokens' log-probabilities, divided by their number to the power of the length penalty."""


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What was read, and what has been written about it so far. Its tensors are never changed."""

    memory: Memory
    cache: tuple[tuple[Float[Tensor, "B G T K"], Float[Tensor, "B G T K"]], ...] | None
    """Keys and values of what was written, for each layer; None before the first token."""
    length: int
    """Tokens that were written, the start token among them."""


@torch.inference_mode()
def read(model: Transformer, sources: Sequence[Sequence[int]]) -> State:
    """Reads sources of at least one token each."""
    device = model.embedding.weight.device
    lengths = torch.tensor([len(source) for source in sources], dtype=torch.int32, device=device)
    S = int(lengths.max())
    tokens = torch.zeros(len(sources), S, dtype=torch.long, device=device)
    for row, source in enumerate(sources):
        tokens[row, : len(source)] = torch.tensor(source, device=device)
    last = lengths[:, None].expand(-1, S)
    states = model.encode(tokens, spans=(torch.zeros_like(last), last))
    return State(model.remember(states, (torch.zeros_like(last[:, :1]), last[:, :1])), None, 0)


@torch.inference_mode()
def write_one_token(
    model: Transformer, state: State, tokens: Int[Tensor, " B"]
) -> tuple[Float[Tensor, "B V"], State]:
    """Adds a token to each sequence, the start token first, and returns the scores of what comes after it."""
    layers = range(model.config.layers)
    caches = [_Layer(None if state.cache is None else state.cache[layer]) for layer in layers]
    hidden = model(
        tokens[:, None],
        positions=torch.full_like(tokens, state.length)[:, None],
        memory=state.memory,
        caches=caches,
    )
    cache = tuple((layer.keys, layer.values) for layer in caches)
    return model.logits(hidden[:, -1]), State(state.memory, cache, state.length + 1)


@torch.inference_mode()
def keep_rows(state: State, rows: Sequence[int]) -> State:
    """Returns the state of some of the sequences, in this order; a row may be there more than once."""
    index = torch.tensor(rows, device=state.memory.keys_values[0][0].device)
    memory = [(keys[index], values[index]) for keys, values in state.memory.keys_values]
    spans = state.memory.spans
    assert spans is not None
    kept = dataclasses.replace(state, memory=Memory(memory, (spans[0][index], spans[1][index])))
    return _reordered(kept, rows)


def generate_sequences(
    model: Model,
    sources: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    start: int,
    end: int | None,
    rules: Sequence[Rule] | None = None,
    batch_size: int = 16,
    seeds: Sequence[int] | None = None,
) -> list[Written]:
    """Returns what the model writes about each source, in their order: drawn, or the likeliest at temperature 0.

    Args:
        model: an encoder-decoder.
        sources: token ids, with the tokens around them that sources had in training.
        settings: how tokens are drawn; the same seed and source give the same tokens, whatever other sources there
            are. A repetition penalty counts what was written. `stop` is not possible here: tokens have no text.
        start: the token that the decoder reads first.
        end: the token that ends a sequence, if any.
        rules: for each source, which tokens may come next.
        batch_size: sources that are read together.
        seeds: one for each source, in place of that of the settings.

    Raises:
        InputError: the model is of another kind, or a source is empty, too long or of another vocabulary.
    """
    if settings.stop:
        raise InputError("a stop string is given, but what is generated here are tokens", "leave stop out")
    checked, limit = _check(model, sources, settings.max_new_tokens)
    seen: Counter[tuple[int, ...]] = Counter()
    rows = []
    for index, source in enumerate(sources):
        key = tuple(source)
        seed = rng.derive(settings.seed, "write", " ".join(map(str, key)), seen[key])
        if seeds is not None:
            seed = seeds[index]
        seen[key] += 1
        rows.append(_Row(key, [start], None if rules is None else rules[index], seed))
    for batch in _batches(rows, batch_size):
        _write(checked, batch, settings, end, limit)
    return [row.written(end) for row in rows]


def search_sequences(
    model: Model,
    sources: Sequence[Sequence[int]],
    settings: BeamSettings,
    *,
    start: int,
    end: int | None,
    rules: Sequence[Rule] | None = None,
    batch_size: int = 16,
) -> list[list[Found]]:
    """Returns the best sequences that a beam search finds for each source, the best first.

    The search stops where it has as many complete sequences as beams, and the best of those on the way, were it
    complete, would not be better than the worst of them. Arguments and errors are those of `generate_sequences`.
    """
    checked, limit = _check(model, sources, settings.max_new_tokens)
    searches = [
        _Search(tuple(source), settings, end, None if rules is None else rules[index])
        for index, source in enumerate(sources)
    ]
    for batch in _batches(searches, batch_size):
        _search(checked, batch, start, limit)
    return [search.best_first() for search in searches]


@final
class _Layer:
    """One layer's cache in one step."""

    def __init__(self, before: tuple[Tensor, Tensor] | None) -> None:
        self._before = before
        self.keys = self.values = torch.empty(0)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self._before is not None:
            keys = torch.cat((self._before[0], keys), dim=2)
            values = torch.cat((self._before[1], values), dim=2)
        self.keys, self.values = keys, values
        return keys, values


@final
class _Row:
    """One source, and what is written about it by drawing."""

    def __init__(self, source: tuple[int, ...], tokens: list[int], rule: Rule | None, seed: int) -> None:
        self.source, self.tokens, self.rule = source, tokens, rule
        self.generator = torch.Generator().manual_seed(seed)

    def written(self, end: int | None) -> Written:
        tokens = tuple(self.tokens[1:])
        return Written(tokens=tokens, finish="end" if tokens[-1] == end else "length")


def _write(
    model: Transformer, batch: list[_Row], settings: SamplingSettings, end: int | None, limit: int
) -> None:
    change = samplers(settings)
    state = read(model, [row.source for row in batch])
    for _ in range(limit):
        last = torch.tensor([row.tokens[-1] for row in batch], device=model.embedding.weight.device)
        logits, state = write_one_token(model, state, last)
        scores = _obey(logits.float(), [(row.rule, row.tokens[1:]) for row in batch])
        for sampler in change:
            scores = sampler(scores, [row.tokens for row in batch])
        chosen = choose(scores, None if settings.greedy else [row.generator for row in batch])
        for row, token in zip(batch, chosen.tolist(), strict=True):
            row.tokens.append(token)
        going = [index for index, row in enumerate(batch) if row.tokens[-1] != end]
        if not going:
            return
        if len(going) < len(batch):  # what is finished is not computed any further
            batch, state = [batch[index] for index in going], keep_rows(state, going)


@final
class _Search:
    """The beams of one source."""

    def __init__(
        self, source: tuple[int, ...], settings: BeamSettings, end: int | None, rule: Rule | None
    ) -> None:
        self.source, self.rule = source, rule
        self.beams: list[list[int]] = [[] for _ in range(settings.beams)]
        # the beams are still the same: candidates come from the first alone
        self.scores = [0.0, *[IMPOSSIBLE] * (settings.beams - 1)]
        self.origins = list(range(settings.beams))
        """Which beam of the step before each one continues."""
        self.finished = False
        self._found: list[Found] = []
        self._settings, self._end = settings, end

    def step(self, candidates: list[tuple[float, int, int]], *, full: bool) -> None:
        """Goes on with the best of some (score, beam, token), best first; `full` where none may get longer."""
        count, going = self._settings.beams, []
        for rank, (score, beam, token) in enumerate(candidates):
            if score <= IMPOSSIBLE / 2:
                break
            tokens = [*self.beams[beam], token]
            if token != self._end and not full:
                going.append((score, beam, tokens))
            elif rank < count:  # candidates beyond are there so that enough of them go on
                self._add(tokens, score)
        if not going or self._good_enough(*going[0]):
            self.finished = True
            return
        going = going[:count]
        going += [(IMPOSSIBLE, going[0][1], going[0][2])] * (count - len(going))
        self.scores, self.origins, self.beams = (list(column) for column in zip(*going, strict=True))

    def best_first(self) -> list[Found]:
        return self._found

    def _add(self, tokens: list[int], score: float) -> None:
        finish: Literal["end", "length"] = "end" if tokens[-1] == self._end else "length"
        found = Found(tokens=tuple(tokens), finish=finish, score=self._penalised(score, len(tokens)))
        self._found = sorted([*self._found, found], key=lambda each: -each.score)[: self._settings.beams]

    def _good_enough(self, score: float, _: int, tokens: list[int]) -> bool:
        if len(self._found) < self._settings.beams:
            return False
        return self._penalised(score, len(tokens)) <= self._found[-1].score

    def _penalised(self, score: float, tokens: int) -> float:
        return float(score / tokens**self._settings.length_penalty)


def _search(model: Transformer, batch: list[_Search], start: int, limit: int) -> None:
    N = len(batch[0].beams)
    each = [index for index in range(len(batch)) for _ in range(N)]
    state = keep_rows(read(model, [search.source for search in batch]), each)
    tokens = torch.full((len(batch) * N,), start, device=model.embedding.weight.device)
    for length in range(1, limit + 1):
        logits, state = write_one_token(model, state, tokens)
        log_probs = logits.float().log_softmax(-1)
        log_probs = _obey(log_probs, [(search.rule, beam) for search in batch for beam in search.beams])
        before = torch.tensor([search.scores for search in batch], device=tokens.device)
        totals = (log_probs.view(len(batch), N, -1) + before[:, :, None]).flatten(1)
        best = totals.topk(min(2 * N, totals.shape[1]), dim=1)
        V = logits.shape[1]
        for search, scores, places in zip(batch, best.values.tolist(), best.indices.tolist(), strict=True):
            search.step(
                [(score, *divmod(place, V)) for score, place in zip(scores, places, strict=True)],
                full=length == limit,
            )
        going = [index for index, search in enumerate(batch) if not search.finished]
        if not going:
            return
        if len(going) < len(batch):
            batch, state = [batch[index] for index in going], keep_rows(state, _blocks(going, N))
        # beams of one source share what was read: only what they have written moves
        origins = [index * N + beam for index, search in enumerate(batch) for beam in search.origins]
        state = _reordered(state, origins)
        tokens = torch.tensor([beam[-1] for search in batch for beam in search.beams], device=tokens.device)


def _blocks(indices: Sequence[int], size: int) -> list[int]:
    """The rows of some sources, each of which has as many: ([0, 2], 2) -> [0, 1, 4, 5] for two beams each."""
    return [index * size + row for index in indices for row in range(size)]


def _reordered(state: State, rows: Sequence[int]) -> State:
    if state.cache is None:
        return state
    index = torch.tensor(rows, device=state.cache[0][0].device)
    return dataclasses.replace(
        state, cache=tuple((keys[index], values[index]) for keys, values in state.cache)
    )


def _obey(
    scores: Float[Tensor, "B V"], rows: Sequence[tuple[Rule | None, Sequence[int]]]
) -> Float[Tensor, "B V"]:
    """The scores without what the rules do not allow after the tokens so far."""
    if all(rule is None for rule, _ in rows):
        return scores
    scores = scores.clone()
    for row, (rule, tokens) in enumerate(rows):
        if rule is not None:
            scores[row].masked_fill_(~rule(tokens).to(scores.device), -torch.inf)
    return scores


_Job = TypeVar("_Job", _Row, _Search)


def _batches(rows: Sequence[_Job], size: int) -> list[list[_Job]]:
    """Rows with sources of like length together, so that little of a batch is padding."""
    ordered = sorted(rows, key=lambda row: len(row.source))
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]


def _check(model: Model, sources: Sequence[Sequence[int]], max_new_tokens: int) -> tuple[Transformer, int]:
    """Returns the model as what it is, and how many tokens it may write."""
    config = model.config
    if config.kind != "encoder-decoder" or not isinstance(model, Transformer):
        raise InputError(
            f'a model of kind "{config.kind}" has no source to read and write about',
            "a decoder continues prompts (`gristmill generate`); an encoder fills in single tokens",
        )
    unbounded = config.positions == "relative"  # distances beyond the last bucket share it
    for source in sources:
        if not source:
            raise InputError("a source is empty", "give at least one token")
        if not unbounded and len(source) > config.maximum_positions:
            raise InputError(
                f"a source has {len(source):,} tokens, the model reads {config.maximum_positions:,} at most",
                "shorten it, or split it into several",
            )
        if not 0 <= min(source) <= max(source) < config.vocab_size:
            raise InputError(
                f"a source has a token {max(source):,}, the model knows {config.vocab_size:,}",
                "encode it with the model's own tokenizer",
            )
    return model, max_new_tokens if unbounded else min(max_new_tokens, config.maximum_positions)
