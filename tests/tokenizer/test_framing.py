"""What stands around texts, for tokenizers made here and elsewhere."""

import pytest

from gristmill.errors import InputError
from gristmill.tokenizer.framing import Frame, document_frame, frame, start_token

OURS = {"pad": 0, "bos": 1, "eos": 2, "mask": 3, "cls": 4, "sep": 5}
BERT = {"unk": 0, "pad": 1, "cls": 2, "sep": 3, "mask": 4}
GPT2 = {"bos": 9, "eos": 9}
T5 = {"pad": 0, "eos": 1, "unk": 2}
QWEN = {"eos": 7, "pad": 8}


@pytest.mark.parametrize(
    ("special", "kind", "expected"),
    [
        (OURS, "encoder", Frame((4,), (5,))),
        (OURS, "encoder-decoder", Frame((1,), (2,))),
        (OURS, "decoder", Frame((1,), (2,))),
        (BERT, "encoder", Frame((2,), (3,))),
        (GPT2, "decoder", Frame((9,), (9,))),
        (QWEN, "decoder", Frame((7,), (7,))),
        (T5, "encoder-decoder", Frame((), (1,))),
        (T5, "encoder", Frame((), (1,))),
        ({"cls": 1, "bos": 2}, "encoder", Frame((2,), ())),
        ({}, "encoder", Frame((), ())),
    ],
)
def test_a_stored_document_stands_between_the_tokens_of_its_kind(special, kind, expected):
    assert document_frame(special, kind) == expected


@pytest.mark.parametrize("special", [OURS, GPT2, QWEN])
def test_a_decoder_reads_the_beginning_and_never_the_end(special):
    stored = document_frame(special, "decoder")
    assert frame(special, "decoder") == Frame(stored.before, ())


@pytest.mark.parametrize("kind", ["encoder", "encoder-decoder"])
def test_what_reads_only_reads_what_was_stored(kind):
    assert frame(OURS, kind) == document_frame(OURS, kind)


def test_tokens_are_put_between():
    assert Frame((4,), (5,)).around([7, 8]) == [4, 7, 8, 5]
    assert Frame((4,), (5,)).size == 2


def test_an_answer_begins_with_bos_or_else_with_pad():
    assert start_token(OURS) == 1
    assert start_token(T5) == 0
    with pytest.raises(InputError, match="no token that an answer begins with"):
        start_token({"eos": 2})


@pytest.mark.parametrize("of", [frame, document_frame])
def test_a_decoder_without_a_token_that_begins_a_text_is_refused(of):
    with pytest.raises(InputError, match="no token that begins a text"):
        of({"pad": 0, "mask": 1}, "decoder")
