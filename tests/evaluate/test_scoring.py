"""Sentence scores of every kind of model, each against the plainest way to compute it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tests.evaluate.models import BOS, CLS, EOS, FIRST_SENTINEL, MASK, PIECES, SEP, VOCABULARY, random_model

from gristmill import plugins
from gristmill.batch import Visibility
from gristmill.config import to_dict
from gristmill.errors import InputError
from gristmill.evaluate.scoring import (
    ByGenerator,
    BySentinel,
    Discriminated,
    InOrder,
    InPlace,
    LeftToRight,
    OneBefore,
    Pseudo,
    Rewritten,
    alone,
    asking_for,
    can_fill,
    rest_of_word,
    scoring_for,
    scorings_for,
    sentence_scores,
    word_starts,
)
from gristmill.model.base import Model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.visibility import cross_spans, segment_spans
from gristmill.objectives.base import TokenObjective, hidden_states
from gristmill.objectives.causal import Causal
from gristmill.objectives.hybrid import Hybrid
from gristmill.objectives.permuted import predict_given
from gristmill.objectives.trained import objective_of
from gristmill.vocabulary import Vocabulary

TEXTS = [[0, 1, 2, 7, 8], [0, 3, 4, 5, 6, 7, 2], [9], [4, 5, 6], [0, 1, 2, 7, 8]]


WAYS = {
    "causal": ("qwen3", LeftToRight()),
    "causal with learned positions": ("gpt2", LeftToRight()),
    "recurrent": ("lstm", LeftToRight()),
    "masked": ("bert", Pseudo(InPlace(), alone)),
    "masked within words": ("modernbert", Pseudo(InPlace())),
    "hybrid": ("qwen3", Pseudo(OneBefore())),
    "permuted": ("modernbert", Pseudo(InOrder())),
    "spans": ("t5", Pseudo(BySentinel())),
    "denoise": ("transformer", Pseudo(Rewritten())),
}
MODELS: dict[str, Model] = {}


def model_of(name: str) -> Model:
    if name not in MODELS:
        MODELS[name] = random_model(WAYS[name][0])
    return MODELS[name]


def scores(name: str, texts: list[list[int]], **settings: int) -> np.ndarray:
    return sentence_scores(model_of(name), VOCABULARY, texts, how=WAYS[name][1], **settings)


def log_softmax(model: Model, hidden: torch.Tensor) -> torch.Tensor:
    return model.logits(hidden).double().log_softmax(-1)


# --- each way against a loop over single tokens -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["causal", "causal with learned positions", "recurrent"])
@torch.no_grad()
def test_left_to_right_is_the_log_likelihood_without_the_end(name):
    expected = []
    for text in TEXTS:
        row = torch.tensor([[BOS, *text]])
        each = log_softmax(model_of(name), model_of(name)(row[:, :-1]))[0]
        expected.append(float(each[range(len(text)), text].sum()))
    np.testing.assert_allclose(scores(name, TEXTS), expected, rtol=1e-5)


@torch.no_grad()
def test_the_pseudo_log_likelihood_masks_each_token_in_turn():
    model, expected = model_of("masked"), []
    for text in TEXTS:
        total = 0.0
        for i, token in enumerate(text):
            masked = torch.tensor([[CLS, *text[:i], MASK, *text[i + 1 :], SEP]])
            total += float(log_softmax(model, model(masked))[0, i + 1, token])
        expected.append(total)
    np.testing.assert_allclose(scores("masked", TEXTS), expected, rtol=1e-5)


UNLIKELY = [0, 3, 4, 5, 6, 7, 2]


def asked_one_by_one(answer) -> float:
    """The sum over the tokens of "The dog unlikely sleeps" of what `answer(token's place, hidden places)` says."""
    later = {2: [3, 4], 3: [4], 5: [6]}
    return sum(answer(i, [i, *later.get(i, [])]) for i in range(len(UNLIKELY)))


def with_masks(hidden: list[int]) -> list[int]:
    return [MASK if i in hidden else token for i, token in enumerate(UNLIKELY)]


@torch.no_grad()
def test_within_words_the_later_pieces_are_masked_too():
    model = model_of("masked within words")

    def answer(i: int, hidden: list[int]) -> float:
        row = torch.tensor([[CLS, *with_masks(hidden), SEP]])
        return float(log_softmax(model, model(row))[0, i + 1, UNLIKELY[i]])

    assert scores("masked within words", [UNLIKELY])[0] == pytest.approx(asked_one_by_one(answer), rel=1e-5)


@torch.no_grad()
def test_a_hybrid_reads_one_position_before_the_mask_and_sees_all():
    model = model_of("hybrid")

    def answer(i: int, hidden: list[int]) -> float:
        row = torch.tensor([[BOS, *with_masks(hidden)]])
        spans = segment_spans(torch.ones_like(row), Visibility.FULL)
        return float(log_softmax(model, model(row, spans=spans))[0, i, UNLIKELY[i]])

    assert scores("hybrid", [UNLIKELY])[0] == pytest.approx(asked_one_by_one(answer), rel=1e-5)


@torch.no_grad()
def test_a_permuted_model_is_asked_at_a_query_of_its_own():
    model = model_of("permuted")

    def answer(i: int, hidden: list[int]) -> float:
        row = torch.tensor([[CLS, *UNLIKELY, SEP]])
        wanted = torch.tensor([[False, *(j in hidden for j in range(len(UNLIKELY))), False]])
        batch = predict_given(row, torch.ones_like(row), wanted, MASK)
        at = batch.weights[0].nonzero()[0, 0]
        return float(log_softmax(model, hidden_states(model, batch))[0, at, UNLIKELY[i]])

    assert scores("permuted", [UNLIKELY])[0] == pytest.approx(asked_one_by_one(answer), rel=1e-5)


@torch.no_grad()
def test_of_a_span_left_out_the_first_token_is_read_after_its_sentinel():
    model = model_of("spans")

    def answer(i: int, hidden: list[int]) -> float:
        source = [BOS, *UNLIKELY[:i], FIRST_SENTINEL, *UNLIKELY[i + len(hidden) :], EOS]
        memory = model.remember(model.encode(torch.tensor([source])))
        written = model(torch.tensor([[BOS, FIRST_SENTINEL]]), memory=memory)
        return float(log_softmax(model, written)[0, 1, UNLIKELY[i]])

    assert scores("spans", [UNLIKELY])[0] == pytest.approx(asked_one_by_one(answer), rel=1e-5)


@torch.no_grad()
def test_a_denoising_model_writes_the_text_again_and_knows_what_it_has_written():
    model = model_of("denoise")

    def answer(i: int, hidden: list[int]) -> float:
        source = torch.tensor([[BOS, *UNLIKELY[:i], MASK, *UNLIKELY[i + len(hidden) :], EOS]])
        text = torch.tensor([[BOS, *UNLIKELY[:-1]]])
        memory = model.remember(
            model.encode(source), cross_spans(torch.ones_like(text), torch.ones_like(source))
        )
        return float(log_softmax(model, model(text, memory=memory))[0, i, UNLIKELY[i]])

    assert scores("denoise", [UNLIKELY])[0] == pytest.approx(asked_one_by_one(answer), rel=1e-5)


@torch.no_grad()
def test_a_detector_says_that_nothing_was_replaced():
    model = random_model("bert", generator_layers=1)
    text = torch.tensor([[CLS, *UNLIKELY, SEP]])
    expected = torch.log1p(-model.detect(model(text)).double().sigmoid())[0, 1:-1].sum()
    found = sentence_scores(model, VOCABULARY, [UNLIKELY], how=Discriminated())[0]
    assert found == pytest.approx(float(expected), rel=1e-5)


@torch.no_grad()
def test_a_detectors_generator_is_asked_at_its_mask():
    model = random_model("bert", generator_layers=1)
    total = 0.0
    for i, token in enumerate(UNLIKELY):
        row = torch.tensor([[CLS, *with_masks([i]), SEP]])
        total += float(log_softmax(model, model.propose(row))[0, i + 1, token])
    found = sentence_scores(model, VOCABULARY, [UNLIKELY], how=Pseudo(ByGenerator(), alone))[0]
    assert found == pytest.approx(total, rel=1e-5)


# --- what holds for every way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WAYS)
def test_the_probabilities_of_all_texts_of_one_token_sum_to_one(name):
    """So no way lets the token be seen by what predicts it."""
    every = [[i] for i in range(VOCABULARY.size)]
    assert np.exp(scores(name, every)).sum() == pytest.approx(1.0, abs=1e-5)


def test_the_likelihoods_of_all_texts_of_two_tokens_sum_to_one():
    every = [[i, j] for i in range(VOCABULARY.size) for j in range(VOCABULARY.size)]
    assert np.exp(scores("causal", every)).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", WAYS)
def test_a_score_depends_on_its_text_alone(name):
    together = scores(name, TEXTS, batch_tokens=30)
    np.testing.assert_allclose([scores(name, [text])[0] for text in TEXTS], together, rtol=1e-5)
    assert together[0] == together[-1]  # the same text, and the same bits


def test_no_texts_have_no_scores():
    assert scores("causal", []).shape == (0,)


def test_scores_are_of_float32_and_sums_of_float64_whatever_the_weights_are_stored_as():
    narrow = random_model("qwen3").bfloat16()
    wide = random_model("qwen3")
    wide.load_state_dict(narrow.state_dict())
    expected = sentence_scores(wide, VOCABULARY, TEXTS, how=LeftToRight())
    found = sentence_scores(narrow, VOCABULARY, TEXTS, how=LeftToRight())
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)
    assert narrow.compute_dtype == torch.bfloat16  # the model that was given stays as it was


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["un", "like", "ly"], [1, 0, 0]),
        (["The", " cat", "s", " sleep", "."], [1, 1, 0, 1, 1]),
        (["don", "'", "t", " '", "t"], [1, 0, 0, 1, 1]),
        (["(", "the", " co", "-", "op", ")"], [1, 1, 1, 1, 1, 1]),
        (["19", "84", "th"], [1, 0, 0]),
        (["床前", "明", "月光"], [1, 1, 1]),
        (["GPT", "模", "型"], [1, 1, 1]),
        (["caf", "és"], [1, 0]),
        (["new", "\n", "line", "  ", "end"], [1, 1, 1, 1, 1]),
        (["При", "вет"], [1, 0]),
    ],
)
def test_where_words_begin(pieces, expected):
    vocabulary = Vocabulary(pieces=[b" ", *(piece.encode() for piece in pieces)], special={})
    assert word_starts(vocabulary, range(1, len(pieces) + 1)).tolist() == [bool(e) for e in expected]


def test_a_token_that_begins_inside_a_character_goes_on_with_it():
    character = "猫".encode()
    vocabulary = Vocabulary(pieces=[b" " + character[:1], character[1:], character[:2], b"\xff"], special={})
    assert word_starts(vocabulary, [0, 1, 2, 1]).tolist() == [True, False, True, False]
    assert word_starts(vocabulary, [3, 3]).tolist() == [True, True]  # bytes that are no text are signs


def test_what_is_hidden_is_the_rest_of_the_word():
    texts = [UNLIKELY, [2, 2]]
    assert rest_of_word(VOCABULARY, texts).tolist() == [
        [0, 0, 1], [0, 1, 2], [0, 2, 5], [0, 3, 5], [0, 4, 5], [0, 5, 7], [0, 6, 7], [1, 0, 2], [1, 1, 2],
    ]  # fmt: skip
    assert alone(VOCABULARY, texts).tolist() == [
        *([0, i, i + 1] for i in range(7)),
        [1, 0, 1],
        [1, 1, 2],
    ]


# --- which way suits which model --------------------------------------------------------------------------------------

EXPECTED = {
    "causal": {"left_to_right": LeftToRight()},
    "prefix": {"left_to_right": LeftToRight()},
    "hybrid": {
        "left_to_right": LeftToRight(),
        "pseudo_within_words": Pseudo(OneBefore()),
        "pseudo": Pseudo(OneBefore(), alone),
    },
    "masked": {"pseudo_within_words": Pseudo(InPlace()), "pseudo": Pseudo(InPlace(), alone)},
    "next_sentence": {"pseudo_within_words": Pseudo(InPlace()), "pseudo": Pseudo(InPlace(), alone)},
    "permuted": {"pseudo_within_words": Pseudo(InOrder()), "pseudo": Pseudo(InOrder(), alone)},
    "spans": {"pseudo_within_words": Pseudo(BySentinel()), "pseudo": Pseudo(BySentinel(), alone)},
    "denoise": {"pseudo_within_words": Pseudo(Rewritten()), "pseudo": Pseudo(Rewritten(), alone)},
    "detect": {
        "discriminated": Discriminated(),
        "pseudo_within_words": Pseudo(ByGenerator()),
        "pseudo": Pseudo(ByGenerator(), alone),
    },
}


@pytest.mark.parametrize("name", plugins.names("objectives"))
def test_the_way_follows_from_the_objective(name):
    objective = plugins.load("objectives", name)()
    config = resolve(ModelSettings(family=objective.family, depth=1, width=32), vocab_size=40, row_tokens=24)
    ways = scorings_for(objective, objective.refine(config))
    assert ways == EXPECTED[name]
    assert scoring_for(objective, config) == next(iter(ways.values()))
    assert config.kind in scoring_for(objective, config).kinds
    assert objective_of({"pretrain": {"objective": to_dict(objective)}}) == objective


def test_without_an_objective_the_kind_decides():
    assert scoring_for(None, model_of("causal").config) == LeftToRight()
    assert scoring_for(None, model_of("masked").config) == Pseudo(InPlace())
    assert scoring_for(None, model_of("spans").config) == Pseudo(BySentinel())
    with pytest.raises(InputError, match='"spans" or "denoise"'):
        scoring_for(None, model_of("denoise").config)  # a translator, most likely
    assert objective_of({"model": {}}) is None


def test_an_objective_of_the_users_own_says_how_its_model_is_asked():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Own(TokenObjective):
        kinds = frozenset({"decoder", "encoder-decoder"})
        family = "qwen3"
        hidden = "one before"

        def prepare(self, rows, rng, progress=0.0):
            raise NotImplementedError

    assert list(scorings_for(Own(), model_of("causal").config)) == [
        "left_to_right",
        "pseudo_within_words",
        "pseudo",
    ]
    assert asking_for(Own(), model_of("causal").config) == OneBefore()


def test_where_tokens_hold_no_spaces_words_are_not_a_way():
    """As of an imported BERT: its WordPiece takes the spaces away."""
    pieces = Vocabulary(pieces=[b"the", b"cat", b"s", b""], special={"mask": 3})
    config = model_of("masked").config
    assert scorings_for(None, config, pieces) == {"pseudo": Pseudo(InPlace(), alone)}
    assert scoring_for(None, config, pieces) == Pseudo(InPlace(), alone)
    assert next(iter(scorings_for(None, config, VOCABULARY))) == "pseudo_within_words"


@pytest.mark.parametrize(
    ("name", "objective", "possible"),
    [
        ("masked", None, True),
        ("spans", None, True),
        ("hybrid", Hybrid(), True),
        ("causal", Causal(), False),
        ("causal", None, False),
        ("denoise", None, False),
    ],
)
def test_which_models_tell_what_is_hidden(name, objective, possible):
    assert can_fill(objective, model_of(name).config) is possible


def test_a_trunk_without_a_head_tells_nothing():
    trunk = random_model("bert", head="linear", output_bias=False).config
    assert not can_fill(None, trunk)
    with pytest.raises(InputError, match="no head that predicts tokens"):
        scorings_for(None, trunk)


@torch.no_grad()
def test_a_tokenizer_without_bos_begins_what_is_written_with_pad_as_t5_does():
    pad = VOCABULARY.special["eos"]
    vocabulary = Vocabulary(
        pieces=VOCABULARY.pieces, special={"pad": pad, "eos": SEP}, sentinels=VOCABULARY.sentinels
    )
    model, expected = model_of("spans"), 0.0
    for i, token in enumerate(TEXTS[3]):
        source = [*TEXTS[3][:i], FIRST_SENTINEL, *TEXTS[3][i + 1 :], SEP]
        memory = model.remember(model.encode(torch.tensor([source])))
        written = model(torch.tensor([[pad, FIRST_SENTINEL]]), memory=memory)
        expected += float(log_softmax(model, written)[0, 1, token])
    how = Pseudo(BySentinel(), alone)
    assert sentence_scores(model, vocabulary, [TEXTS[3]], how=how)[0] == pytest.approx(expected, rel=1e-5)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how", "texts", "message"),
    [
        ("masked", LeftToRight(), TEXTS, "a model of kind encoder can't be scored by log-likelihood"),
        (
            "causal",
            Pseudo(InPlace()),
            TEXTS,
            "a model of kind decoder can't be scored by pseudo-log-likelihood",
        ),
        ("causal", LeftToRight(), [[0], []], "text 1 is empty"),
        ("causal with learned positions", LeftToRight(), [[0] * 40], "40 tokens, and the model handles 24"),
    ],
)
def test_what_can_not_be_scored_is_refused_before_work(name, how, texts, message):
    with pytest.raises(InputError, match=message):
        sentence_scores(model_of(name), VOCABULARY, texts, how=how)


def test_a_trunk_without_a_head_is_refused():
    with pytest.raises(InputError, match="no head that predicts tokens"):
        sentence_scores(
            random_model("bert", head="linear", output_bias=False), VOCABULARY, TEXTS, how=Pseudo(InPlace())
        )


@pytest.mark.parametrize(
    ("name", "how", "vocabulary", "message"),
    [
        ("masked", Pseudo(InPlace(), alone), Vocabulary(pieces=PIECES, special={}), 'no "mask" token'),
        (
            "spans",
            Pseudo(BySentinel(), alone),
            Vocabulary(pieces=PIECES, special={"bos": 0}),
            "no sentinel tokens",
        ),
        (
            "masked",
            Pseudo(InPlace()),
            Vocabulary(pieces=[b"un", b"like"] * 5, special={"mask": 3}),
            "hold no spaces",
        ),
    ],
)
def test_a_vocabulary_without_what_the_question_needs_is_refused(name, how, vocabulary, message):
    with pytest.raises(InputError, match=message):
        sentence_scores(model_of(name), vocabulary, [[0, 1]], how=how)


def test_a_uniform_model_gives_each_token_the_same():
    model = random_model("qwen3")
    with torch.no_grad():
        (model.embedding if model.output is None else model.output).weight.zero_()
    found = sentence_scores(model, VOCABULARY, TEXTS, how=LeftToRight())
    np.testing.assert_allclose(found, [-len(text) * math.log(VOCABULARY.size) for text in TEXTS], rtol=1e-6)
