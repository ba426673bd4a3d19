"""Tokens from those around them, and what is masked together."""

import dataclasses
import itertools
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.config import from_dict, to_dict
from gristmill.corpus import CorpusConfig
from gristmill.errors import InputError
from gristmill.objectives import words
from gristmill.objectives.choosing import Masking
from gristmill.objectives.masked import Masked
from gristmill.objectives.words import Names, Text, has_chinese, words_go_on
from gristmill.pipeline import Recipe, settle
from gristmill.rng import stream
from gristmill.rows import Rows
from gristmill.tokenizer.tokenizer import Tokenizer
from gristmill.tokenizer.training import TokenizerConfig, train
from gristmill.train.settings import PretrainSettings
from gristmill.vocabulary import Vocabulary
from tests.objectives.suite import (
    SPECIAL,
    TEXTS,
    VOCABULARY,
    check_objective,
    example_rows,
    frame,
    modernbert_config,
    pack,
)

CLS, SEP, MASK = (SPECIAL[name] for name in ("cls", "sep", "mask"))


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_masked_is_an_objective(unit):
    objective = Masked(unit=unit)
    check_objective(objective, hiding=dataclasses.replace(objective, random_share=0.2))


def test_it_is_one_with_names_and_with_local_layers_too():
    """A letter of a name can't be exchanged without what is masked changing: names are not in what hides."""
    objective = Masked(rate=0.15, entities=("God", "the LORD"))
    hiding = Masked(rate=0.15, mask_share=1.0, random_share=0.0)
    check_objective(objective, modernbert_config(), hiding=hiding)


# --- how many -------------------------------------------------------------------------------------------------------


def test_the_batch_is_the_text_with_some_tokens_masked():
    rows = example_rows("encoder", 0)
    batch = Masked(rate=0.3).prepare(rows, stream(0, "masked"))
    chosen = batch.weights != 0
    assert torch.equal(batch.tokens[~chosen], batch.targets[~chosen])
    assert not (batch.targets == MASK).any()
    at = np.flatnonzero(rows.segments[0] == 1)
    assert batch.targets[0, at].tolist()[1:-1] == rows.tokens[0, at].tolist()[1:-1]


@settings(max_examples=30)
@given(rate=st.floats(0.0, 1.0), seed=st.integers(0, 1000))
def test_of_each_row_the_share_that_the_rate_asks_for_is_chosen_and_one_token_at_least(rate, seed):
    batch = Masked(rate=rate).prepare(example_rows("encoder", 0), stream(seed, "rate"))
    eligible = torch.from_numpy(VOCABULARY.is_ordinary)[batch.targets] & (batch.segments != 0)
    counts, wanted = batch.weights.sum(1), rate * eligible.sum(1)
    assert ((counts - wanted).abs() < 1).logical_or(counts == 1).all()
    assert counts.min() >= 1


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("entities", [(), ("God", "the earth", "the")])
def test_the_rate_holds_in_expectation_whatever_is_masked_together(unit, entities):
    objective, rows = Masked(rate=0.2, unit=unit, entities=entities), example_rows("encoder", 0, 256)
    shares = []
    for draw in range(300):
        batch = objective.prepare(rows, stream(0, "expectation", draw))
        eligible = torch.from_numpy(VOCABULARY.is_ordinary)[batch.targets] & (batch.segments != 0)
        long = eligible.sum(1) > 200  # in a short row, one whole span is more than its share
        shares.append(float(batch.weights[long].sum() / eligible[long].sum()))
    error = np.std(shares) / len(shares) ** 0.5
    assert np.mean(shares) == pytest.approx(0.2, abs=max(4 * error, 0.003))


def test_a_rate_may_follow_a_schedule():
    objective, rows = Masked(rate=(0.4, 0.1)), example_rows("encoder", 0)
    counts = [float(objective.prepare(rows, stream(0, "rate"), p).weights.sum()) for p in (0.0, 0.5, 1.0)]
    assert counts == pytest.approx([counts[2] * 4, counts[2] * 2.5, counts[2]], rel=0.05)


def test_of_the_chosen_most_are_the_mask_some_are_random_and_some_are_left():
    rows = example_rows("encoder", 0)
    masked = kept = total = 0
    for draw in range(200):
        batch = Masked(rate=0.3).prepare(rows, stream(0, "fates", draw))
        chosen = batch.weights != 0
        masked += int((batch.tokens[chosen] == MASK).sum())
        kept += int((batch.tokens[chosen] == batch.targets[chosen]).sum())
        total += int(chosen.sum())
        assert torch.from_numpy(VOCABULARY.is_ordinary)[batch.tokens[chosen & (batch.tokens != MASK)]].all()
    assert masked / total == pytest.approx(0.8, abs=0.01)
    assert kept / total == pytest.approx(0.1 + 0.1 / 256, abs=0.01)  # a random byte may be the same


# --- what together --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """Rows of the Bible as subwords, and their vocabulary."""
    text = (TEXTS / "king-james.txt").read_text(encoding="utf-8")[:200_000]
    out = tmp_path_factory.mktemp("words") / "tokenizer"
    train(TokenizerConfig(vocab_size=600), [text], out)
    tokenizer = Tokenizer.from_directory(out)
    vocabulary = tokenizer.vocabulary()
    documents = [text[i : i + 500] for i in range(0, 20_000, 500)]
    cls, sep = vocabulary.id("cls"), vocabulary.id("sep")
    rows = pack([[cls, *tokenizer.encode(d), sep] for d in documents], row_tokens=128)
    return dataclasses.replace(rows, vocabulary=vocabulary)


def words_of(rows: Rows, row: int) -> list[list[int]]:
    """The columns of each word of a row, by its spaces and punctuation, said once more in the plainest way."""
    found: list[list[int]] = []
    before = ""
    for column, token in enumerate(rows.tokens[row]):
        piece = rows.words.pieces[token].decode()
        if piece and piece[0].isalpha() and before and before[-1].isalpha():
            found[-1].append(column)
        else:
            found.append([column])
        before = piece
    return found


def test_whole_words_are_masked_or_none_of_their_pieces(bpe):
    batch = Masked(rate=0.2, unit="word", mask_share=1.0, random_share=0.0).prepare(bpe, stream(0, "words"))
    of_several = 0
    for row in range(len(bpe.tokens)):
        for columns in words_of(bpe, row):
            eligible = bpe.words.is_ordinary[batch.targets[row, columns].numpy()]
            weights = batch.weights[row, columns].numpy()[eligible]
            assert weights.min(initial=1) == weights.max(initial=0) or not len(weights)
            of_several += len(weights) > 1 and bool(weights.all())
    assert of_several > 20


def test_spans_are_a_few_words_as_long_as_in_the_paper():
    """Joshi et al. 2020, section 3.1: a mean of 3.8 words, and ten at most."""
    vocabulary = Vocabulary(pieces=[b" word", b"", b"", b""], special={"mask": 1, "cls": 2, "sep": 3})
    rows = Rows(
        tokens=np.zeros((1, 5000), dtype=np.int64),
        segments=np.ones((1, 5000), dtype=np.int64),
        following=np.full((1, 5000), -1),
        vocabulary=vocabulary,
    )
    lengths = []
    for draw in range(40):
        batch = Masked(rate=0.02, unit="span").prepare(rows, stream(0, "spans", draw))
        lengths += [len(list(run)) for on, run in itertools.groupby(batch.weights[0].tolist()) if on]
    # spans that happen to touch count as one
    assert np.mean(lengths) == pytest.approx(3.8, abs=0.25)
    assert np.percentile(lengths, 97) <= 10


def test_a_span_has_one_fate_and_the_letters_of_a_word_each_their_own():
    rows = example_rows("encoder", 0)
    mixed = {}
    for unit in ("word", "span"):
        batch = Masked(rate=0.3, unit=unit, mask_share=0.5, random_share=0.0).prepare(rows, stream(0, "fate"))
        chosen = (batch.weights != 0).numpy()
        edges = chosen[:, 1:] & chosen[:, :-1] & (rows.segments[:, 1:] == rows.segments[:, :-1])
        masked = (batch.tokens == MASK).numpy()
        mixed[unit] = float((masked[:, 1:] != masked[:, :-1])[edges].mean())
    assert mixed["word"] > 0.4
    assert mixed["span"] < 0.1  # where two spans touch


def test_names_are_masked_whole_and_first():
    text = "And Moses said unto the children of Israel, Behold. " * 6
    rows = pack([frame(text, "encoder")], row_tokens=len(text) + 2)
    objective = Masked(rate=0.2, entities=("Moses", "the children of Israel"), entity_share=1.0)
    batch = objective.prepare(rows, stream(0, "names"))
    chosen = (batch.weights[0] != 0).numpy()
    starts = [i for i in range(len(text)) if text.startswith(("Moses", "the children of Israel"), i)]
    whole = 0
    for start in starts:
        size = 5 if text.startswith("Moses", start) else 22
        of_name = chosen[1 + start : 1 + start + size]
        assert of_name.all() or not of_name.any()
        whole += int(of_name.sum())
    assert whole == chosen.sum()  # all that is masked is in a name
    fates = {tuple((batch.tokens[0, 1 + s : 6 + s] == MASK).tolist()) for s in starts}
    assert fates <= {(True,) * 5, (False,) * 5}


def test_names_take_their_share_and_no_more():
    text = "And Moses said unto Aaron, It is I. " * 20
    rows = pack([frame(text, "encoder")], row_tokens=len(text) + 2)
    shares = []
    for draw in range(100):
        batch = Masked(rate=0.1, entities=("Moses", "Aaron"), entity_share=0.5).prepare(
            rows, stream(0, "share", draw)
        )
        chosen = (batch.weights[0] != 0).numpy()[1:-1]
        inside = np.array(
            [name in text[max(0, i - 4) : i + 5] for i in range(len(text)) for name in ("Moses",)]
        )
        inside |= np.array(["Aaron" in text[max(0, i - 4) : i + 5] for i in range(len(text))])
        shares.append(chosen[inside].sum() / chosen.sum())
    # of the other half some falls on names too: they are 28 % of the text
    assert np.mean(shares) == pytest.approx(0.5 + 0.5 * 0.21, abs=0.05)


def test_names_may_come_from_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("Moses\n\n李白\n", encoding="utf-8")
    objective = Masked(entities=tmp_path / "names.txt")
    held, goes_on = objective.names.in_text("Moses, 李白")
    assert held.tolist() == [True] * 5 + [False] * 2 + [True] * 2
    assert goes_on.tolist() == [False] + [True] * 4 + [False] * 3 + [True]
    with pytest.raises(InputError, match=r"other\.txt can't be read"):
        Masked(entities=tmp_path / "other.txt")


def test_a_settled_recipe_has_the_names_themselves_and_needs_their_file_no_more(tmp_path):
    (tmp_path / "names.txt").write_text("Moses\n\n李白\n", encoding="utf-8")
    table = {"entities": str(tmp_path / "names.txt")}
    objectives = [
        from_dict(PretrainSettings, {"objective": {"name": name, **settings}}).objective
        for name, settings in (("masked", table), *((n, {"masking": table}) for n in ("detect", "hybrid")))
    ]
    recipes = [
        Recipe(name="any", corpus=CorpusConfig(sources=("any.txt",)), pretrain=PretrainSettings(objective=o))
        for o in objectives
    ]
    settled = [settle(recipe).pretrain.objective for recipe in recipes]
    (tmp_path / "names.txt").unlink()
    for objective in settled:
        written = to_dict(objective)
        assert written.get("masking", written)["entities"] == ["Moses", "李白"]
        assert from_dict(PretrainSettings, {"objective": written}).objective == objective


def test_a_name_does_not_end_inside_a_word_and_the_longest_counts():
    held, _ = Names(("Ann", "Ann Lee")).in_text("Annual, Ann Lees, Ann Lee, Joann")
    assert "".join("x" if inside else "." for inside in held) == "........xxx.......xxxxxxx......."


# --- words ----------------------------------------------------------------------------------------------------------


def cut(text: str, chinese: str = "characters") -> list[str]:
    """A text at its word boundaries."""
    tokens = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
    whole = Text(tokens, VOCABULARY)
    goes_on = whole.tokens_go_on(words_go_on(whole, chinese=chinese))
    pieces: list[bytes] = []
    for byte, joined in zip(text.encode(), goes_on, strict=True):
        pieces = [*pieces[:-1], pieces[-1] + bytes([byte])] if joined else [*pieces, bytes([byte])]
    return [piece.decode() for piece in pieces]


def test_words_are_letters_and_digits_with_the_apostrophes_between_them():
    assert cut("Don't say 'naïve', it’s 1984…") == [
        *("Don't", " ", "say", " ", "'", "naïve", "'", ",", " ", "it’s", " ", "1984", "…")
    ]
    assert cut("床前明月光") == list("床前明月光")


def test_chinese_words_are_those_of_jieba():
    pytest.importorskip("jieba")
    words.jieba_words.cache_clear()
    text = json.loads((TEXTS / "tang-300.jsonl").read_text(encoding="utf-8").splitlines()[0])["text"]
    assert "".join(cut(text, "jieba")) == text
    assert cut("我们在北京大学学习语言模型，GPT也学。", "jieba") == [
        *("我们", "在", "北京大学", "学习", "语言", "模型", "，", "GPT", "也", "学", "。")
    ]


def test_chinese_words_without_jieba_are_refused_before_work_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    words.jieba_words.cache_clear()
    chinese = dataclasses.replace(VOCABULARY, pieces=[*VOCABULARY.pieces, "床".encode()])
    assert has_chinese(chinese.pieces)
    assert has_chinese([b"a", "。床".encode()[:-1]])  # a character may be spread over tokens
    assert not has_chinese([*VOCABULARY.pieces, "naïve Ω žluťoučký かな 한글 。".encode()])
    with pytest.raises(InputError, match="not installed") as caught:
        Masked(unit="word").check_vocabulary(chinese)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("pip install jieba")
    Masked(unit="word").check_vocabulary(VOCABULARY)
    Masked(unit="word", chinese="characters").check_vocabulary(chinese)
    Masked().check_vocabulary(chinese)


def test_a_stray_chinese_character_is_a_word_without_jieba(monkeypatch):
    """A tokenizer without a token for it passes the check, and training does not stop at the first one."""
    monkeypatch.setitem(sys.modules, "jieba", None)
    Masked(unit="word").check_vocabulary(VOCABULARY)
    assert cut("the 月光 of", "jieba") == ["the", " ", "月", "光", " ", "of"]


def test_words_of_a_tokenizer_without_spaces_are_refused():
    without = Vocabulary(pieces=[b"a", b"b", b"", b"", b""], special={"mask": 2, "cls": 3, "sep": 4})
    with pytest.raises(InputError, match="no token holds a space"):
        Masked(unit="word").check_vocabulary(without)


@settings(max_examples=60)
@given(text=st.text(max_size=60), data=st.data())
def test_words_are_the_same_however_the_text_is_cut_into_tokens(text, data):
    raw = text.encode("utf-8", "replace")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=10)) | {0, len(raw)})
    pieces = [raw[a:b] for a, b in itertools.pairwise(cuts)]
    vocabulary = Vocabulary(pieces=pieces, special={})
    coarse, fine = (
        Text(np.arange(len(pieces)), vocabulary),
        Text(np.array([*raw], dtype=np.int64), VOCABULARY),
    )
    goes_on = fine.tokens_go_on(words_go_on(fine, chinese="characters"))
    assert coarse.text == fine.text
    told = coarse.tokens_go_on(words_go_on(coarse, chinese="characters"))
    assert told.tolist() == [bool(goes_on[start]) for start in cuts[:-1]][: len(pieces)]


# --- pieces of documents --------------------------------------------------------------------------------------------


def test_every_piece_begins_with_cls_and_ends_with_sep_unless_it_is_very_short():
    rows = Rows(
        tokens=np.array([[*range(97, 107), CLS, *range(97, 102), 97, 98, 0, 0]]),
        segments=np.array([[1] * 10 + [2] * 6 + [3] * 2 + [0] * 2]),
        following=np.full((1, 20), -1),
        vocabulary=VOCABULARY,
    )
    batch = Masked(rate=0.5).prepare(rows, stream(0, "frames"))
    assert batch.targets.tolist() == [
        [
            CLS,
            *range(98, 106),
            SEP,
            CLS,
            *range(97, 102),
            97,
            98,
            0,
            0,
        ]  # the middle one was stored with its own
    ]
    plain = dataclasses.replace(rows, vocabulary=dataclasses.replace(VOCABULARY, special={"mask": MASK}))
    assert Masked().prepare(plain, stream(0, "frames")).targets.tolist() == rows.tokens.tolist()


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(InputError, match="more than everything") as caught:
        Masking(mask_share=0.8, random_share=0.5)
    assert caught.value.hint == "set random_share to 0.2 or less"
    with pytest.raises(InputError, match=r"rate is 15\.0"):
        Masking(rate=15.0)
