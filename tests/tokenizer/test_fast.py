"""The quick encoder gives what the exact one gives, and is not used where it does not."""

import itertools
import json
import sys
import types

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from gristmill import config
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train
from gristmill.tokenizer.fast import encoder
from gristmill.tokenizer.splitting import one_cut, splitters

KINDS = ["bpe", "bytes", "characters", "unigram", "wordpiece"]
TEXTS = ["the cat and the hat sat on the mat 12 \n\n" * 30, "明月光明月光，地上霜。" * 30, "Ünïcödé 🤗 " * 9]


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    for kind in KINDS:
        train(config.from_dict(TokenizerConfig, {"kind": kind}), TEXTS, root / kind)
    return {kind: Tokenizer.from_directory(root / kind) for kind in KINDS}


def encoded(encode, texts):
    ids, offsets = encode(texts)
    return [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
@example(["<|bos|> the <|eos|>", "", "e\u0301\u0301 \u0301é", "a" * 300])
def test_the_ids_of_every_kind_are_those_of_the_exact_encoder(all_kinds, texts):
    for kind, tokenizer in all_kinds.items():
        assert encoded(encoder(tokenizer), texts) == tokenizer.encode_batch(texts), kind


CUT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(
        st.sampled_from([*"aé中。、あー한\u0301 \n\r\t\u3000059〇Ⅻ⺀㋿.“'", "12345", "  "]), max_size=24
    ).map("".join),
)


@given(CUT, st.integers(0, 3), st.booleans())
def test_one_pattern_cuts_as_several_do_one_after_the_other(text, digits, cjk):
    cuts = splitters(split_digits=digits, split_cjk=cjk)
    patterns = [json.loads(cut.__getstate__())["pattern"]["Regex"] for cut in cuts]
    one = pre_tokenizers.Split(Regex(one_cut(patterns)), "isolated")
    assert one.pre_tokenize_str(text) == pre_tokenizers.Sequence(cuts).pre_tokenize_str(text)


def test_cuts_that_are_not_ours_are_left_alone():
    assert one_cut(["x"]) is None
    assert one_cut([r"\p{N}"]) is None
    assert one_cut([]) is None


def test_a_bpe_is_encoded_by_fastokens(all_kinds):
    pytest.importorskip("fastokens")
    said = []
    ids, _ = encoder(all_kinds["bpe"], said.append)(["the cat", "明月。\n光 2〇3 。"])
    assert said == []
    assert ids.dtype == np.uint32  # tokenizers' ids come as Python's


@pytest.mark.parametrize("wrong_from", [0, 20])
def test_ids_that_differ_are_noticed_and_not_used(all_kinds, monkeypatch, wrong_from):
    tokenizer, calls = all_kinds["bpe"], []

    class Wrong:
        @staticmethod
        def from_json_str(text):
            return Wrong()

        def encode_batch_flat(self, texts, **_):
            calls.append(len(texts))
            lists = tokenizer.encode_batch(texts)
            if sum(calls) > wrong_from:
                lists = [[*ids[:-1], 0] for ids in lists]
            return (
                np.array([i for ids in lists for i in ids], "<u4").tobytes(),
                np.cumsum([0, *map(len, lists)]).astype("<u8").tobytes(),
            )

    monkeypatch.setitem(sys.modules, "fastokens", types.SimpleNamespace(Tokenizer=Wrong))
    said = []
    encode = encoder(tokenizer, said.append)
    assert encoded(encode, ["the cat", "sat"]) == tokenizer.encode_batch(["the cat", "sat"])
    assert said == ["fastokens gives other ids for this tokenizer: tokenizers encodes it, more slowly"]
    assert encoded(encode, ["the hat"]) == tokenizer.encode_batch(["the hat"])


def test_half_a_surrogate_pair_is_named_by_the_quick_encoder_too(all_kinds):
    with pytest.raises(Exception, match="half a surrogate pair"):
        encoder(all_kinds["bpe"])(["ok", "\ud800"])
