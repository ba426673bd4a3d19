"""What a model would put where a text has gaps: the likeliest tokens, with their probabilities.

How each kind of model is asked is in `scoring.py`. An encoder or a hybrid tells all gaps in one pass, each as if the
others stayed open. An encoder-decoder tells the first token of a span whose length it does not know, so its gaps are
told one after another, from left to right: each with the likeliest tokens in those before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gristmill.errors import InputError
from gristmill.evaluate.embed import padded
from gristmill.evaluate.scoring import (
    Asked,
    Asking,
    asking_for,
    check_head,
    check_texts,
    in_float32,
)
from gristmill.model.base import Model
from gristmill.model.config import ModelConfig
from gristmill.objectives.base import Objective
from gristmill.tokenizer.framing import Frame, frame
from gristmill.vocabulary import Vocabulary

__all__ = ["Guess", "check_fills", "fill", "gap_token"]


class Guess(NamedTuple):
    """A token that could stand in a gap."""

    id: int
    text: str
    probability: float
    """Among all tokens of the vocabulary, special ones too, which are never offered."""


@torch.no_grad()
def fill(
    model: Model,
    vocabulary: Vocabulary,
    tokens: Sequence[int],
    *,
    objective: Objective | None = None,
    top_k: int = 5,
) -> list[list[Guess]]:
    """Returns for each gap of a text, from left to right, the likeliest tokens, the likeliest first.

    Args:
        model: an encoder, a decoder that was trained as a hybrid, or an encoder-decoder.
        vocabulary: what the tokens stand for.
        tokens: a text's ids without special tokens, but for those that are the gaps: each mask token is one, and so
            is each sentinel.
        objective: what the model was trained with; None for weights from elsewhere.
        top_k: how many tokens to return for each gap.

    Raises:
        InputError: the model can't fill gaps, the text has none or is longer than the model takes.
    """
    asking = check_fills(objective, model.config)
    if top_k < 1:
        raise InputError(f"top_k is {top_k}, expected at least 1")
    check_texts(model.config, [tokens])
    gaps = {vocabulary.special.get("mask"), *vocabulary.sentinels}
    holes = [i for i, token in enumerate(tokens) if token in gaps]
    if not holes:
        raise InputError("the text has no gap to fill", "put the mask token where one is")
    model = in_float32(model)
    was_training = model.training
    model.eval()
    edges = frame(vocabulary.special, model.config.kind)
    filled, found = list(tokens), []
    for asked in [holes] if asking.at_once else [[hole] for hole in holes]:
        still_open = [hole for hole in holes if hole >= asked[0]]
        chances = _chances(model, vocabulary, asking, _asked(filled, still_open, asked, edges))
        found += [_likeliest(row, vocabulary, top_k) for row in chances]
        for hole, guesses in zip(asked, found[-len(asked) :], strict=True):
            filled[hole] = guesses[0].id
    model.train(was_training)
    return found


def check_fills(objective: Objective | None, config: ModelConfig) -> Asking:
    """Returns how a model that was trained with an objective fills gaps.

    Raises:
        InputError: it can't.
    """
    check_head(config)
    asking = asking_for(objective, config)
    if asking is None:
        raise InputError(
            "a causal decoder can't fill in: it has not seen what follows",
            "use `gristmill generate`, or a model that was trained to fill in",
        )
    return asking


def gap_token(vocabulary: Vocabulary) -> int:
    """Returns the token that stands for a gap in what `fill` is given: the mask, or else the first sentinel.

    Raises:
        InputError: the tokenizer has neither.
    """
    if "mask" not in vocabulary.special and vocabulary.sentinels:
        return vocabulary.sentinels[0]
    return vocabulary.id("mask")


def _asked(tokens: Sequence[int], hidden: Sequence[int], wanted: Sequence[int], edges: Frame) -> Asked:
    framed, segments = padded([tokens], edges)

    def at(places: Sequence[int]) -> Bool[Tensor, "1 T"]:
        chosen = torch.zeros(framed.shape, dtype=torch.bool)
        chosen[0, [len(edges.before) + place for place in places]] = True
        return chosen

    return Asked(tokens=framed, segments=segments, hidden=at(hidden), wanted=at(wanted))


def _chances(model: Model, vocabulary: Vocabulary, asking: Asking, asked: Asked) -> Float[Tensor, "gaps V"]:
    """The probabilities of all tokens at what is wanted, in the order of the text."""
    batch = asking.batch(asked, vocabulary).to(next(model.parameters()).device)
    hidden = asking.states(model, batch)[batch.weights > 0]
    return model.logits(hidden).double().softmax(-1).cpu()


def _likeliest(chances: Float[Tensor, " V"], vocabulary: Vocabulary, count: int) -> list[Guess]:
    ordinary: Int[Tensor, " tokens"] = torch.from_numpy(vocabulary.ordinary)
    best = chances[ordinary].topk(min(count, len(ordinary)))
    return [
        Guess(id, vocabulary.pieces[id].decode("utf-8", "replace"), probability)
        for id, probability in zip(ordinary[best.indices].tolist(), best.values.tolist(), strict=True)
    ]
