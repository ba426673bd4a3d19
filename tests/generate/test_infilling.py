"""Gaps in a text, filled."""

import re

import numpy as np
import pytest
import torch

from gristmill.batch import Batch
from gristmill.errors import InputError
from gristmill.generate.infilling import Mask, Sentinels, infill, way_for
from gristmill.generate.sampling import SamplingSettings
from gristmill.generate.sequences import BeamSettings, Written
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.transformer import Transformer
from gristmill.objectives.base import TokenObjective
from gristmill.objectives.causal import Causal
from gristmill.objectives.denoise import Denoise
from gristmill.objectives.spans import Spans
from gristmill.rows import Rows
from gristmill.tokenizer.framing import frame
from gristmill.vocabulary import Vocabulary

TEXTS = ["one cat sat on the mat", "two dogs ran to the old house", "three birds flew over a wide blue sea"]
WORDS = sorted({word for text in TEXTS for word in re.findall(r" ?\w+", text)})


class WordTokens:
    """A tokenizer whose tokens are words with the space before them."""

    special = {"pad": 0, "bos": 1, "eos": 2, "mask": 3}  # noqa: RUF012
    sentinels = (4, 5, 6)
    vocab_size = 7 + len(WORDS)

    def encode(self, text: str) -> list[int]:
        return [7 + WORDS.index(word) for word in re.findall(r" ?\w+", text)]

    def decode(self, ids: list[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode()

    def token_bytes(self, id: int) -> bytes:
        return WORDS[id - 7].encode() if 7 <= id < self.vocab_size else b""


TOKENIZER = WordTokens()
VOCABULARY = Vocabulary(
    pieces=[TOKENIZER.token_bytes(id) for id in range(TOKENIZER.vocab_size)],
    special=TOKENIZER.special,
    sentinels=TOKENIZER.sentinels,
)
GREEDY = SamplingSettings(max_new_tokens=24, temperature=0.0)
SPANS = Spans(rate=0.4, mean_length=2.0, sentinels=3)
DENOISE = Denoise(infilling=0.4, mean_length=2.0, sentence_shuffling=0.0)
BY_MASK = Mask(mask=3, end=2)


def batch_of(objective) -> Batch:
    """All texts in one row, four times with other gaps."""
    documents = [[1, *TOKENIZER.encode(text), 2] for text in TEXTS]
    tokens = np.tile(np.concatenate(documents), (4, 1))
    segments = np.tile(np.repeat([1, 2, 3], [len(document) for document in documents]), (4, 1))
    rows = Rows(tokens=tokens, segments=segments, following=np.full_like(tokens, -1), vocabulary=VOCABULARY)
    return objective.prepare(rows, np.random.default_rng(3))


def gapped(batch: Batch) -> list[tuple[list[int], list[int], str]]:
    """Each source of a batch, its target, and the source as a text with gaps."""
    found = []
    for row in range(len(batch.tokens)):
        for segment in (1, 2, 3):
            source = batch.source.tokens[row][batch.source.segments[row] == segment].tolist()
            target = batch.targets[row][batch.segments[row] == segment].tolist()
            shown = [" ___" if 3 <= token < 7 else TOKENIZER.decode([token]) for token in source]
            found.append((source, target, "".join(shown)))
    return found


def random_model(family: str) -> Transformer:
    settings = ModelSettings(family=family, depth=1, width=64, heads=2)
    # a model may have more rows than there are tokens
    model = Transformer(resolve(settings, vocab_size=TOKENIZER.vocab_size + 3, row_tokens=64))
    model.initialise(torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(("objective", "way"), [(SPANS, way_for(None, TOKENIZER)), (DENOISE, BY_MASK)])
def test_gaps_are_shown_and_answers_read_as_in_training(objective, way):
    batch = batch_of(objective)
    assert (batch.tokens[:, 0] == TOKENIZER.special["bos"]).all()
    for index, (source, target, text) in enumerate(gapped(batch)):
        pieces = [piece.rstrip(" ") for piece in text.split("___")]
        edges = frame(TOKENIZER.special, "encoder-decoder")
        assert edges.around(way.source([TOKENIZER.encode(piece) for piece in pieces])) == source
        filling = way.filling(TOKENIZER, pieces, Written(tokens=tuple(target), finish="end"))
        original = TEXTS[index % 3]
        assert filling.text == original
        assert "".join(a + b for a, b in zip(pieces, (*filling.gaps, ""), strict=True)) == original


@pytest.mark.parametrize(
    ("objective", "family", "way"), [(SPANS, "t5", None), (DENOISE, "transformer", BY_MASK)]
)
def test_a_model_that_learned_some_texts_with_gaps_fills_them(objective, family, way):
    model, batch = random_model(family), batch_of(objective)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(100):
        optimizer.zero_grad()
        objective.loss(model, batch).mean_nats.backward()
        optimizer.step()
    texts = [text for _, _, text in gapped(batch)]
    for settings in (GREEDY, BeamSettings(beams=2, max_new_tokens=24)):
        fillings = infill(model.eval(), TOKENIZER, texts, settings, way=way)
        assert [filling.text for filling in fillings] == TEXTS * 4
        assert {filling.finish for filling in fillings} == {"end"}


@pytest.fixture(scope="module")
def model() -> Transformer:
    wild = random_model("t5")
    with torch.no_grad():
        for parameter in wild.parameters():
            parameter.add_(torch.randn_like(parameter))
    return wild.eval()


def test_an_answer_keeps_its_form_whatever_the_model_is(model):
    drawn = SamplingSettings(max_new_tokens=60, temperature=1.0, top_p=None, seed=1)
    texts = ["one ___ sat ___ the ___ mat", "___", "two dogs ___"]
    for text, filling in zip(texts, infill(model, TOKENIZER, texts, drawn), strict=True):
        assert len(filling.gaps) == text.count("___")
        expected = text
        for gap in filling.gaps:
            expected = re.sub(" ?___", gap, expected, count=1)
        assert filling.text == expected


def test_texts_do_not_influence_each_other(model):
    texts = ["one cat ___ the mat", "two ___ ran ___ old house", "___"]
    together = infill(model, TOKENIZER, texts, GREEDY)
    assert together == [infill(model, TOKENIZER, [text], GREEDY)[0] for text in texts]


def test_the_objective_says_how_gaps_are_shown_and_without_one_the_tokenizer():
    class OnlyMask(WordTokens):
        sentinels = ()

    assert way_for(None, TOKENIZER) == way_for(SPANS, TOKENIZER) == Sentinels((4, 5, 6), 2)
    assert way_for(DENOISE, TOKENIZER) == BY_MASK
    assert way_for(None, OnlyMask()) == BY_MASK
    with pytest.raises(InputError, match="neither sentinel tokens"):
        way_for(SPANS, OnlyMask())
    with pytest.raises(InputError, match='objective "causal", which leaves no gaps'):
        way_for(Causal(), TOKENIZER)
    assert Sentinels((4, 5), 2).source([[8], [9, 10], []]) == [8, 4, 9, 10, 5]
    assert Mask(mask=3, end=2).source([[8], [9, 10], []]) == [8, 3, 9, 10, 3]


@pytest.mark.parametrize(
    ("hidden", "way"), [("by sentinel", Sentinels((4, 5, 6), 2)), ("rewritten", BY_MASK)]
)
def test_an_objective_of_the_users_own_says_how_gaps_are_shown(hidden, way):
    class Own(TokenObjective):
        kinds = frozenset({"encoder-decoder"})

        def prepare(self, rows, rng, progress=0.0):
            raise NotImplementedError

    Own.hidden = hidden
    assert way_for(Own(), TOKENIZER) == way


def test_an_answer_that_changes_the_text_around_the_gaps_has_no_gaps():
    way, pieces = Mask(3, 2), ["one cat", " the mat"]
    answer = Written(tokens=(*TOKENIZER.encode("one cat ran to the mat"), 2), finish="end")
    assert way.filling(TOKENIZER, pieces, answer).gaps == (" ran to",)
    other = Written(tokens=(*TOKENIZER.encode("two cat ran to the mat"), 2), finish="end")
    assert way.filling(TOKENIZER, pieces, other).gaps is None


class Bare(WordTokens):
    special = {"eos": 2}  # noqa: RUF012
    sentinels = ()


class NoStart(WordTokens):
    special = {"eos": 2}  # noqa: RUF012


def test_what_can_not_be_filled_is_refused(model):
    refusals = [
        (TOKENIZER, "one cat", 'the text "one cat" has no gap'),
        (TOKENIZER, "one ___ cat ___ sat ___ on ___", "4 gaps, and the tokenizer has 3 sentinel tokens"),
        (Bare(), "one ___", "neither sentinel tokens nor a mask token"),
        (NoStart(), "one ___", "no token that an answer begins with"),
    ]
    for tokenizer, text, message in refusals:
        with pytest.raises(InputError, match=message):
            infill(model, tokenizer, [text], GREEDY)
    decoder = Transformer(resolve(ModelSettings(depth=1, width=32, heads=2), vocab_size=40, row_tokens=8))
    with pytest.raises(InputError, match='kind "decoder" has no source'):
        infill(decoder, TOKENIZER, ["one ___"], GREEDY)
