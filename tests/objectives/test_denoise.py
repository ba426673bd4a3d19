"""Denoising: the target is the text whatever the noise, and each noise does what its name says."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.objectives.denoise import Denoise
from gristmill.objectives.sentences import sentence_ends
from gristmill.rng import stream
from gristmill.vocabulary import Vocabulary
from tests.objectives.rewritten import (
    BOS,
    EOS,
    PIECES,
    decoder_input,
    documents,
    rows_of_pieces,
    source,
    target,
)
from tests.objectives.suite import SPECIAL, VOCABULARY, check_objective, tiny_config

MASK = SPECIAL["mask"]
NONE = {"sentence_shuffling": 0.0, "infilling": 0.0}
"""No noise at all."""


def noisy(objective: Denoise, text: bytes | list[int], copies: int = 1) -> list[list[int]]:
    """The sources made of a text, without the special tokens at its ends."""
    batch = objective.prepare(documents(text, copies), stream(0, "noise"))
    sources = [source(batch, row) for row in range(copies)]
    assert all((read[0], read[-1]) == (BOS, EOS) for read in sources)
    assert all(target(batch, row) == [*text, EOS] for row in range(copies))
    return [read[1:-1] for read in sources]


@pytest.mark.parametrize("family", ["transformer", "t5"])
def test_denoise_is_an_objective(family):
    config = tiny_config("encoder-decoder", family=family)
    check_objective(Denoise(), config, source_shows_targets=True, predicts_special=True)


# --- nothing is lost ------------------------------------------------------------------------------------------------


@given(pieces=PIECES)
def test_without_noise_the_source_is_a_copy(pieces):
    batch = Denoise(**NONE).prepare(rows_of_pieces(pieces), np.random.default_rng(0))
    for row, texts in enumerate(pieces):
        for number, text in enumerate(texts, 1):
            assert source(batch, row, number) == text
            assert target(batch, row, number) == (text[1:] if text[0] == BOS else text)


@given(
    pieces=PIECES,
    seed=st.integers(0, 1 << 30),
    shares=st.tuples(*[st.floats(0.0, 1.0)] * 4),
    single=st.tuples(*[st.floats(0.0, 0.33)] * 3),
    mean_length=st.floats(0.1, 10.0),
)
def test_the_target_is_the_text_under_any_noise(pieces, seed, shares, single, mean_length):
    shuffling, reordering, infilling, insertion = shares
    masking, replacement, deletion = single
    objective = Denoise(
        sentence_shuffling=shuffling,
        reordering=reordering,
        infilling=infilling,
        mean_length=mean_length,
        masking=masking,
        replacement=replacement,
        deletion=deletion,
        insertion=insertion,
    )
    batch = objective.prepare(rows_of_pieces(pieces), np.random.default_rng(seed))
    for row, texts in enumerate(pieces):
        for number, text in enumerate(texts, 1):
            read, written = source(batch, row, number), target(batch, row, number)
            assert written == (text[1:] if text[0] == BOS else text)
            assert decoder_input(batch, row, number) == [BOS, *written[:-1]][: len(written)]
            assert len(read) <= len(text), "sources fit where the rows fit"
            assert [t for t in read if t in (BOS, EOS)] == [t for t in text if t in (BOS, EOS)]
            if text[-1] == EOS:
                assert read[-1] == EOS
    assert torch.equal(batch.weights != 0, batch.segments != 0), "all of the text counts"


# --- each noise -----------------------------------------------------------------------------------------------------

TEXT = [i % 250 for i in range(400)]


def test_masking_puts_the_mask_in_place_of_a_share_of_the_tokens():
    sources = np.array(noisy(Denoise(**NONE, masking=0.15), TEXT, copies=50))
    assert (sources == MASK).mean() == pytest.approx(0.15, abs=0.01)
    assert ((sources == MASK) | (sources == TEXT)).all()


def test_replacement_puts_random_text_in_place_of_a_share_of_the_tokens():
    sources = np.array(noisy(Denoise(**NONE, replacement=0.15), TEXT, copies=50))
    # one in 256 random tokens is the one that was there
    assert (sources != TEXT).mean() == pytest.approx(0.15 * 255 / 256, abs=0.01)
    assert sources.max() < 256
    assert len(np.unique(sources[sources != TEXT])) > 200


def test_deletion_leaves_out_a_share_of_the_tokens():
    sources = noisy(Denoise(**NONE, deletion=0.15), list(range(250)), copies=80)
    assert np.mean([len(read) for read in sources]) == pytest.approx(0.85 * 250, rel=0.01)
    assert all(read == sorted(set(read)) for read in sources), "what is there stands in order"


def test_insertion_adds_random_text_where_there_is_room():
    sources = noisy(Denoise(**NONE, deletion=0.3, insertion=0.2), [7] * 400, copies=50)
    assert np.mean([len(read) for read in sources]) == pytest.approx(400 * 0.7 * 1.2, rel=0.01)
    strange = [token for read in sources for token in read if token != 7]
    assert len(strange) / 50 == pytest.approx(400 * 0.7 * 0.2 * 255 / 256, rel=0.05)
    assert max(strange) < 256
    assert len(set(strange)) > 200


def test_without_room_insertion_pushes_the_end_out():
    (read,) = noisy(Denoise(**NONE, insertion=0.2), [*[7] * 350, *[8] * 50])
    assert len(read) == 400
    assert read.count(8) < 10
    assert read.count(7) > 310


def test_masking_replacement_and_deletion_hit_each_token_once():
    objective = Denoise(**NONE, masking=0.5, replacement=0.25, deletion=0.25)
    (read,) = noisy(objective, [7] * 2000)
    assert read.count(MASK) == pytest.approx(1000, rel=0.1)
    assert len(read) == pytest.approx(1500, rel=0.1)
    assert read.count(7) < 20


def test_infilling_leaves_out_a_share_in_spans_of_the_mean_length():
    objective = Denoise(sentence_shuffling=0.0, infilling=0.3, mean_length=3.0)
    sources = noisy(objective, list(range(250)), copies=80)
    masks = np.mean([read.count(MASK) for read in sources])
    for read in sources:
        kept = [token for token in read if token != MASK]
        assert len(kept) == 250 - 75, "exactly the share"
        assert kept == sorted(set(kept))
    # Poisson lengths up to the first that reaches 75, so about half a span more than 75 / 3
    assert masks == pytest.approx(75 / 3 + 0.5, rel=0.05)


def test_lengths_of_spans_are_poisson_distributed():
    objective = Denoise(sentence_shuffling=0.0, infilling=0.1, mean_length=1.0)
    lengths: Counter[int] = Counter()
    for read in noisy(objective, list(range(250)), copies=200):
        for i in range(1, len(read) - 1):
            before, token, after = read[i - 1 : i + 2]
            if token == MASK and MASK not in (before, after):
                lengths[after - before - 1] += 1
    total = sum(lengths.values())
    expected = {0: 0.368, 1: 0.368, 2: 0.184, 3: 0.061}
    assert {n: lengths[n] / total for n in expected} == pytest.approx(expected, abs=0.03)


def test_reordering_shuffles_tokens_near_their_place():
    objective = Denoise(**NONE, reordering=0.5, reordering_window=4)
    moved = 0.0
    for read in noisy(objective, list(range(250)), copies=40):
        assert sorted(read) == list(range(250))
        away = np.abs(np.array(read) - np.arange(250))
        assert away.max() == 3
        moved += (away > 0).mean() / 40
    assert moved == pytest.approx(0.5 * 3 / 4, abs=0.03), "one in four of a shuffled window stays"


SENTENCES = st.lists(
    st.sampled_from(
        [
            "He sat. ",
            "Who? ",
            "“No!” ",
            "It is 3.14 m. ",
            "A line\n",
            "子曰。",
            "「何也？」",
            "不亦乐乎！",
            "\n\n",
        ]
    ),
    min_size=1,
    max_size=8,
)


@given(sentences=SENTENCES, seed=st.integers(0, 1 << 30))
def test_sentence_shuffling_is_a_permutation_of_the_sentences(sentences, seed):
    # a blank belongs to the sentence after it
    text = "".join(sentences).rstrip(" ").encode()
    objective = Denoise(infilling=0.0)
    batch = objective.prepare(documents(text), np.random.default_rng(seed))
    read = bytes(source(batch)[1:-1])
    assert Counter(cut_into_sentences(text)) == Counter(cut_into_sentences(read, text))


def cut_into_sentences(text: bytes, original: bytes | None = None) -> list[bytes]:
    """The sentences of a text, or of a permutation of the sentences of `original`, found greedily and checked."""
    if original is None:
        ends = (
            np.flatnonzero(sentence_ends(np.frombuffer(text, dtype=np.uint8).astype(np.int64), VOCABULARY))
            + 1
        )
        bounds = [0, *[end for end in ends.tolist() if end < len(text)], len(text)]
        return [text[a:b] for a, b in itertools.pairwise(bounds)]
    left = Counter(cut_into_sentences(original))
    found = []
    while text:
        # the longest first: no sentence is the beginning of two others that are both there
        sentence = max((s for s, n in left.items() if n and text.startswith(s)), key=len)
        left[sentence] -= 1
        found.append(sentence)
        text = text[len(sentence) :]
    return found


def test_sentences_are_shuffled_in_a_share_of_the_texts():
    text = b"One. Two. Three. Four. Five. Six."
    sources = noisy(Denoise(infilling=0.0, sentence_shuffling=0.4), text, copies=500)
    assert np.mean([bytes(read) != text for read in sources]) == pytest.approx(0.4, abs=0.06)
    first = Counter(bytes(read)[:4] for read in noisy(Denoise(infilling=0.0), text, copies=600))
    assert first[b"One."] == pytest.approx(100, abs=40), "each is first as often"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He sat. She left!\nWho knew?", ["He sat.", " She left!", "\n", "Who knew?"]),
        ('It is 3.14 m. "So?" he said (slowly.) Then...', ["It is 3.14 m.", ' "So?"', " he said (slowly.)", " Then..."]),
        ("子曰：“学而时习之。”不亦说乎？！有朋", ["子曰：“学而时习之。”", "不亦说乎？！", "有朋"]),
        ("first line\n\nthird line", ["first line\n\n", "third line"]),
    ],
)  # fmt: skip
def test_sentences_end_at_full_stops_before_a_space_in_chinese_ones_and_at_lines(text, sentences):
    assert [sentence.decode() for sentence in cut_into_sentences(text.encode())] == sentences


def test_where_no_token_has_a_space_every_full_stop_ends_a_sentence():
    words = Vocabulary(pieces=[b"he", b"sat", b".", b"she", b"left"], special={})
    ends = sentence_ends(np.array([0, 1, 2, 3, 4, 2]), words)
    assert ends.tolist() == [False, False, True, False, False, True]


def test_a_sentence_may_end_inside_a_token():
    words = Vocabulary(
        pieces=[b"he sat", b". S", b"he left", "。」".encode(), b"\xe3\x80", b"\x82"], special={}
    )
    ends = sentence_ends(np.array([0, 1, 2, 3, 0, 4, 5, 0]), words)
    assert ends.tolist() == [False, True, False, True, False, False, True, False]


# --- settings -------------------------------------------------------------------------------------------------------


def test_noise_follows_a_schedule():
    objective = Denoise(**NONE, masking=(0.5, 0.1))
    shares = [
        np.mean(
            [t == MASK for t in source(objective.prepare(documents(TEXT * 5), stream(0, "noise"), progress))]
        )
        for progress in (0.0, 0.5, 1.0)
    ]
    assert shares == pytest.approx([0.5, 0.3, 0.1], abs=0.04)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"infilling": 1.2}, "infilling is 1.2"),
        ({"masking": (0.1, -0.1)}, "masking is"),
        ({"masking": 0.5, "deletion": 0.6}, "together hit 1.10 of the tokens"),
        ({"masking": (0.0, 0.9, 0.0), "deletion": (0.0, 0.9, 0.0)}, "together hit 1.80 of the tokens"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Denoise(**wrong)
