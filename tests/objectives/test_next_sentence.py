"""Masked tokens, and which text follows which."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from gristmill.errors import InputError
from gristmill.objectives.base import hidden_states
from gristmill.objectives.choosing import Masking
from gristmill.objectives.next_sentence import NextSentence
from gristmill.objectives.sentences import sentence_ends
from gristmill.rng import stream
from gristmill.rows import Rows
from tests.objectives.suite import (
    SPECIAL,
    TEXTS,
    VOCABULARY,
    check_objective,
    example_rows,
    frame,
    pack,
    random_model,
    tiny_config,
)

CLS, SEP = SPECIAL["cls"], SPECIAL["sep"]
UNMASKED = Masking(rate=0.0)


@pytest.mark.parametrize(("task", "row_tokens"), [("next", 256), ("order", 512)])
def test_next_sentence_is_an_objective(task, row_tokens):
    """In rows of bytes that are long enough for a few sentences."""
    objective = NextSentence(task=task)
    hiding = dataclasses.replace(objective, masking=Masking(random_share=0.2))
    check_objective(objective, hiding=hiding, part="masked", row_tokens=row_tokens)


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Twenty documents of the shipped text, most of them cut into two pieces."""
    text = (TEXTS / "king-james.txt").read_text(encoding="utf-8")
    return pack([frame(text[i : i + 700], "encoder") for i in range(3000, 43_000, 2000)], row_tokens=500)


def pairs_of(rows: Rows, task: str, draw: int) -> list[tuple[bytes, bytes, int, tuple[int, int]]]:
    """The two texts of each pair, its label, and the row and segment where it stands."""
    batch = NextSentence(task=task, masking=UNMASKED).prepare(rows, stream(0, "pairs", draw))
    assert batch.pairs is not None
    assert batch.token_types is not None
    found = []
    for row, column, label in zip(
        batch.pairs.rows.tolist(), batch.pairs.columns.tolist(), batch.pairs.labels.tolist(), strict=True
    ):
        segment = int(batch.segments[row, column])
        at = batch.segments[row] == segment
        tokens, types = batch.targets[row][at].tolist(), batch.token_types[row][at].tolist()
        assert tokens[0] == CLS
        assert tokens[-1] == SEP
        middle = tokens.index(SEP)
        assert types == [0] * (middle + 1) + [1] * (len(tokens) - middle - 1)
        found.append((bytes(tokens[1:middle]), bytes(tokens[middle + 1 : -1]), label, (row, segment)))
    return found


def stored(rows: Rows, where: tuple[int, int]) -> bytes:
    """The text that a piece had."""
    row, segment = where
    tokens = rows.tokens[row][rows.segments[row] == segment]
    return bytes(tokens[tokens < 256].tolist())


def test_the_second_text_follows_the_first_or_is_another_documents(rows):
    labels = []
    for draw in range(10):
        for one, other, label, where in pairs_of(rows, "next", draw):
            own = stored(rows, where)
            assert one in own
            assert (one + other in own) == (label == 0)
            if label == 1:
                document = rows.documents[where[0]][where[1] - 1]
                donors = {
                    rows.documents[row][segment - 1]
                    for row in range(len(rows.tokens))
                    for segment in range(1, int(rows.segments[row].max()) + 1)
                    if other in stored(rows, (row, segment))
                }
                assert donors
                assert donors != {document}
            labels.append(label)
    assert len(labels) > 150
    assert np.mean(labels) == pytest.approx(0.5, abs=0.1)


def test_every_second_text_begins_a_sentence(rows):
    """One that did not would tell that it is another document's."""
    pieces = [  # a line end stands for [CLS]: a document begins with a sentence
        (b"\n" if CLS in rows.tokens[row][rows.segments[row] == segment] else b"")
        + stored(rows, (row, segment))
        for row in range(len(rows.tokens))
        for segment in range(1, int(rows.segments[row].max()) + 1)
    ]
    labels = []
    for draw in range(10):
        for _, other, label, _ in pairs_of(rows, "next", draw):
            before = [piece[:at] for piece in pieces for at in _places(other, piece)]
            assert any(head.endswith((b"\n", b".", b"!", b"?")) for head in before)
            labels.append(label)
    assert 80 < sum(labels) < len(labels) - 80


def _places(text: bytes, piece: bytes) -> list[int]:
    return [at for at in range(len(piece)) if piece.startswith(text, at)]


def test_how_the_second_text_ends_does_not_tell_whose_it_is():
    """Whole documents: the true second text lacks but its last token, and so do the others."""
    text = (
        "It is one. This is the second sentence! And is that all? No; there is a last one, which is longer."
    )
    rows = pack([frame(f"{number}. {text}", "encoder") for number in range(12)], row_tokens=128)
    ends = [(label, other[-4:]) for draw in range(10) for _, other, label, _ in pairs_of(rows, "next", draw)]
    of_others = {end for label, end in ends if label == 1}
    assert {end for label, end in ends if label == 0} == {b"nger"}
    assert b"nger" in of_others
    assert of_others <= {b"nger", b" all", b"ence"}


def test_a_piece_that_shares_its_memory_with_no_other_makes_pairs():
    """The rows of a step are prepared together: pairs come from all of them."""
    text = (TEXTS / "king-james.txt").read_text(encoding="utf-8")
    rows = pack([frame(text[i : i + 300], "encoder") for i in range(3000, 11_000, 1000)], row_tokens=302)
    alone = [one.pairs for one in NextSentence().prepare(rows, stream(0, "alone")).split(1)]
    assert sum(len(pairs.labels) for pairs in alone if pairs is not None) >= 6
    assert all(bool((pairs.rows == 0).all()) for pairs in alone if pairs is not None)


def test_a_sentence_ends_at_the_end_of_its_document():
    tokens = np.array(
        [*frame("One. Two", "encoder"), *frame("Three?", "encoder"), *frame("Four.", "encoder")]
    )
    ends = np.flatnonzero(sentence_ends(tokens, VOCABULARY))
    assert [bytes(tokens[: end + 1][tokens[: end + 1] < 256].tolist()) for end in ends] == [
        b"One.",
        b"One. TwoThree?",
        b"One. TwoThree?Four.",
    ]


def test_texts_are_cut_where_a_sentence_ends(rows):
    for one, _, _, _ in pairs_of(rows, "next", 0):
        assert one.rstrip(b"\n")[-1:] in b".!?" or one.endswith(b"\n")


def test_the_order_of_two_texts_of_whole_sentences_is_turned_in_half_of_the_pairs(rows):
    labels = []
    for draw in range(10):
        for one, other, label, where in pairs_of(rows, "order", draw):
            together = one + other if label == 0 else other + one
            own = stored(rows, where)
            assert together in own
            for text in (one, other):
                assert text[-1:] in b".!?\n"
                start = own.index(text)
                assert start == 0 or own[start - 1 : start] in (b".", b"!", b"?", b"\n")
            labels.append(label)
    assert len(labels) > 80
    assert np.mean(labels) == pytest.approx(0.5, abs=0.12)


def test_what_was_no_whole_sentence_leaves_padding_that_belongs_to_nobody(rows):
    batch = NextSentence(task="order").prepare(rows, stream(0, "padding"))
    padding = batch.segments == 0
    assert padding.sum() > (rows.segments == 0).sum()
    assert not batch.tokens[padding].any()
    for segments in batch.segments.tolist():  # each document is still in one place
        met = [segment for segment, _ in itertools.groupby(segments) if segment]
        assert met == sorted(set(met))


def test_short_pieces_and_pieces_of_one_sentence_make_no_pair():
    documents = [
        b"Too short.",
        b"There is no end to it " * 4,
        b"One. And two, and three, and four, and five.",
    ]
    rows = pack([frame(text, "encoder") for text in [*documents, *documents]], row_tokens=64)
    batch = NextSentence().prepare(rows, stream(0, "short"))
    assert batch.pairs is not None
    for row, column in zip(batch.pairs.rows.tolist(), batch.pairs.columns.tolist(), strict=True):
        assert bytes(batch.targets[row, column + 1 : column + 5].tolist()) == b"One."
    assert (batch.weights.sum(1) >= 1).all()


def test_of_one_long_document_the_other_texts_are_those_of_other_rows():
    text = (TEXTS / "king-james.txt").read_text(encoding="utf-8")[3000:5000]
    rows = pack([frame(text, "encoder")], row_tokens=128)
    labels = [label for draw in range(10) for _, _, label, _ in pairs_of(rows, "next", draw)]
    assert set(labels) == {0, 1}


@torch.no_grad()
def test_without_a_single_pair_the_loss_is_that_of_the_masked_tokens():
    rows = pack([frame(b"no sentence ever ends here, nor here, nor anywhere", "encoder")], row_tokens=50)
    objective = NextSentence()
    model = random_model(objective.refine(tiny_config("encoder")))
    loss = objective.loss(model, objective.prepare(rows, stream(0, "none")))
    assert loss.parts["pair"][1] == 0
    assert loss.total_nats == loss.parts["masked"][0]


@torch.no_grad()
def test_the_loss_is_the_mean_of_the_masked_tokens_plus_that_of_the_pairs(rows):
    objective = NextSentence()
    model = random_model(objective.refine(tiny_config("encoder")))
    batch = objective.prepare(rows, stream(0, "loss"))
    loss = objective.loss(model, batch)
    masked, pair = (nats / weight for nats, weight in loss.parts.values())
    torch.testing.assert_close(loss.mean_nats, masked + pair)
    # the pairs' mean is that over all of them
    assert batch.pairs is not None
    assert len(batch.pairs.labels) > 10
    scores = model.pair_logits(hidden_states(model, batch)[batch.pairs.rows, batch.pairs.columns])
    torch.testing.assert_close(pair, torch.nn.functional.cross_entropy(scores, batch.pairs.labels))


def test_a_family_without_a_place_for_pairs_is_refused():
    with pytest.raises(InputError, match='"modernbert" has none') as caught:
        NextSentence().refine(tiny_config("encoder", family="modernbert"))
    assert caught.value.hint is not None
    assert 'model.family = "bert"' in caught.value.hint


def test_the_rows_that_it_is_given_stay_as_they_are():
    rows = example_rows("encoder", 0)
    before = rows.tokens.copy()
    NextSentence(task="order").prepare(rows, stream(0, "pure"))
    assert np.array_equal(rows.tokens, before)


@pytest.mark.parametrize("task", ["next", "order"])
def test_any_piece_of_any_text_can_be_prepared(task):
    """Pieces of one sentence, of sentence ends alone, and that begin in the middle of a sentence."""
    objective = NextSentence(task=task)
    for few in (
        [b"a" * 40 + b". "],
        [b"." * 60],
        [b"word " * 30 + b"end.", b"Yes. No. " * 9, b"x"],
        [b"no end at all " * 40],
    ):
        framed = [[CLS, *document, SEP] for document in few * 6]
        for row_tokens in (24, 64):
            batch = objective.prepare(pack(framed, row_tokens=row_tokens), stream(0, "any"))
            assert batch.pairs is not None
            assert set(batch.pairs.labels.tolist()) <= {0, 1}
