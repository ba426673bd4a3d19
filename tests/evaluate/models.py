"""A vocabulary of a few words and tiny random models of every kind, which the tests of evaluation share."""

import dataclasses

import torch

from gristmill.model.base import Model
from gristmill.model.build import make_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.vocabulary import Vocabulary

PIECES = [b"The", b" cat", b"s", b" dog", b" un", b"like", b"ly", b" sleep", b".", "猫".encode(), b"\n"]
BOS, EOS, MASK, CLS, SEP, FIRST_SENTINEL = (len(PIECES) + i for i in range(6))
VOCABULARY = Vocabulary(
    pieces=[*PIECES, *[b""] * 8],
    special={"bos": BOS, "eos": EOS, "mask": MASK, "cls": CLS, "sep": SEP},
    sentinels=range(FIRST_SENTINEL, FIRST_SENTINEL + 3),
)


def random_model(family: str, **changes: object) -> Model:
    settings = ModelSettings(family=family, depth=2, width=32, heads=None if family == "lstm" else 2)
    config = resolve(settings, vocab_size=VOCABULARY.size, row_tokens=24)
    model = make_model(dataclasses.replace(config, **changes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # not as training begins: blocks that add nothing see nothing
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.dim() == 1))
    return model.eval()
