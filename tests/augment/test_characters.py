"""Noise of characters: what each operator does to real sentences, and what none of them may do."""

import importlib.util
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import config as recipes
from gristmill import plugins
from gristmill.augment.characters import CharacterNoise, Edit, edited, moved
from gristmill.augment.chinese import frequencies, frequent, is_chinese, is_traditional, lookalikes
from gristmill.augment.graphemes import graphemes
from gristmill.augment.operators.base import Text
from gristmill.errors import InputError
from gristmill.rng import stream

ENGLISH = "In the beginning God created the heaven and the earth.\nAnd the earth was without form, and void;"
TRADITIONAL = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"
SIMPLIFIED = "欲共柳花低诉，怕柳花轻薄，不解伤春。\n念楚乡旅宿，柔情别绪，谁与温存。"
EXTRA = {"homophone": "pypinyin", "script": "opencc"}
OPERATORS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in EXTRA and importlib.util.find_spec(EXTRA[name]) is None,
            reason="pip install gristmill[augment]",
        ),
    )
    for name in plugins.names("augment.operators")
]
THERE = tuple(
    name
    for name in plugins.names("augment.operators")
    if name not in EXTRA or importlib.util.find_spec(EXTRA[name]) is not None
)
TEXTS = st.text(
    alphabet=st.sampled_from(
        "aéZ9.,; \n\t\r中国發，。　Ａジ" + "e\u0301" + "\u200d👩🔬🏽❤\ufe0f🇩🇪" + "한\u1112\u1161"
    ),
    max_size=40,
)


def noisy(operator: str, text: str, rate: float = 0.25, seed: int = 1) -> str:
    return CharacterNoise(rate=rate, operators=(operator,)).apply(text, stream(seed, "noise"))


# --- golden examples ------------------------------------------------------------------------------------------------

GOLDEN: dict[str, tuple[str, str, str]] = {
    "case": (
        "iN tHe beGInning God creatED The Heaven and thE earth.\naNd the eArtH Was withoUt foRm, and void;",
        "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。",
        "欲共柳花低诉，怕柳花轻薄，不解伤春。\n念楚乡旅宿，柔情别绪，谁与温存。",
    ),
    "delete": (
        " te benning God creat he eaven and th earth\nd the ert as withot fom, and void",
        "山，黃河入。\n欲窮千目，更上一層樓。",
        "花诉，怕柳薄，不解伤。\n念楚乡旅宿，柔绪谁与。",
    ),
    "homoglyph": (
        "Іn tһe begіnning God creatеԁ the һeaven and thе earth.\nΑnd the eаrtһ ԝas withoυt form, and void;",
        "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。",
        "欲共柳花低诉，怕柳花轻薄，不解伤春。\n念楚乡旅宿，柔情别绪，谁与温存。",
    ),
    "homophone": (
        "In the beginning God created the heaven and the earth.\nAnd the earth was without form, and void;",
        "敗日一山今，黃河入還六。\n欲窮千李目，更上一層樓。",
        "域工刘花地诉，怕柳化清薄，不解伤醇。\n念楚乡旅宿，柔青鳖绪，谁与文村。",
    ),
    "insert": (
        "IBnx thue begcionning God createade tmhe hmeaven and they earth.\nANnzd the eaprthm wjas withoumt fortm, and void;",
        "白學日中依作山盡有，黃河入海全流年。\n欲窮千里鬆目，更上一層樓。",
        "欲景共索柳吃花低山诉，怕柳花可轻犀薄，不解伤春面。\n念楚乡旅宿，柔情萍别科绪，谁与温宫存基。",
    ),
    "keyboard": (
        "Um tbe bey8nning God creatre 6he geaven and thw earth.\nZbd the ezrtj qas withoyt foem, and void;",
        "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。",
        "欲共柳花低诉，怕柳花轻薄，不解伤春。\n念楚乡旅宿，柔情别绪，谁与温存。",
    ),
    "lookalike": (
        "In the beginning God created the heaven and the earth.\nAnd the earth was without form, and void;",
        "曰石攸山晝，黃河入侮潦。\n欲窮千莖目，更上一層樓。",
        "歙兵榔花抵诉，怕柳芷烃薄，不解伤泰。\n念楚乡旅宿，柔慎钊绪，谁与混弃。",
    ),
    "replace": (
        "Bx tue beconning God creatae mhe meaven and thy earth.\nNzd the eprtm jas withomt fotm, and void;",
        "學中作山有，黃河入全年。\n欲窮千鬆目，更上一層樓。",
        "景索吃花山诉，怕柳可犀薄，不解伤面。\n念楚乡旅宿，柔萍科绪，谁与宫基。",
    ),
    "script": (
        "In the beginning God created the heaven and the earth.\nAnd the earth was without form, and void;",
        "白日依山尽，黃河入海流。\n欲窮千里目，更上一層樓。",
        "欲共柳花低诉，怕柳花輕薄，不解伤春。\n念楚乡旅宿，柔情別绪，谁与溫存。",
    ),
    "swap": (
        "nI teh beignning God creatde hte ehaven and the earth.\nnAd the erath aws withotu fomr, and void;",
        "日白山依盡，黃河入流海。\n欲窮千目里，更上一層樓。",
        "共欲花柳诉低，怕柳轻花薄，不解伤春。\n念楚乡旅宿，柔别情绪，谁与存温。",
    ),
    "width": (
        "Ｉｎ tｈe beｇｉnning God creatｅｄ ｔhe ｈeaven and thｅ earth．\nＡｎd the eａrtｈ ｗas withoｕt foｒm, and void；",
        "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。",
        "欲共柳花低诉，怕柳花轻薄，不解伤春。\n念楚乡旅宿，柔情别绪,谁与温存。",
    ),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_real_sentences(operator):
    texts = (ENGLISH, TRADITIONAL, SIMPLIFIED)
    assert tuple(noisy(operator, text) for text in texts) == GOLDEN[operator]


# --- what holds for all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_as_many_characters_are_changed_as_the_rate_says(operator, rate):
    """Within five standard deviations of the binomial distribution; neighbours are not swapped twice."""
    text = "\n".join([ENGLISH, TRADITIONAL.replace("白", "的"), SIMPLIFIED, "ＡＢＣ，１２"] * 60)
    noise = CharacterNoise(rate=rate, operators=(operator,))
    able = sum(
        writer is not None for writer in plugins.load("augment.operators", operator)().writers(Text.of(text))
    )
    assert able > 500
    edits = noise.edits(text, stream(0, "rate"))
    slack = 5 * np.sqrt(able * rate * (1 - rate))
    assert len(edits) < able * rate + slack
    assert len(edits) > able * rate / (1 + rate * (operator == "swap")) - slack
    assert all(edit.written != text[edit.begin : edit.end] for edit in edits)


@given(
    text=TEXTS,
    rate=st.sampled_from([0.1, 0.5, 1.0]),
    seed=st.integers(0, 1 << 30),
    names=st.sets(st.sampled_from(THERE), min_size=1),
)
def test_no_text_is_emptied_and_no_grapheme_torn(text, rate, seed, names):
    noise = CharacterNoise(rate=rate, operators=tuple(sorted(names)))
    edits = noise.edits(text, stream(seed, "noise"))
    after = edited(text, edits)
    assert after == noise.apply(text, stream(seed, "noise")), "it is a function of text and seed"
    after.encode()  # no half of a surrogate pair
    lines, lines_after = text.splitlines(), after.splitlines()
    assert len(lines) == len(lines_after)
    for line, line_after in zip(lines, lines_after, strict=True):
        assert bool(line.strip()) == bool(line_after.strip())
    borders = {0, *np.cumsum([len(grapheme) for grapheme in graphemes(text)]).tolist()}
    end = 0
    for edit in edits:
        assert end <= edit.begin < edit.end, "in order, and none over another"
        assert {edit.begin, edit.end} <= borders
        end = edit.end


@given(
    text=TEXTS,
    rate=st.sampled_from([0.1, 0.4]),
    seed=st.integers(0, 1 << 30),
    ends=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_spans_move_with_the_text(text, rate, seed, ends):
    begin, end = (min(place, len(text)) for place in sorted(ends))
    edits = CharacterNoise(rate=rate).edits(text, stream(seed, "noise"))
    after = edited(text, edits)
    assert moved(0, edits) == 0
    assert moved(len(text), edits) == len(after)
    assert moved(begin, edits) <= moved(end, edits)
    if not any(edit.begin < end and edit.end > begin for edit in edits):
        assert after[moved(begin, edits) : moved(end, edits)] == text[begin:end]


def test_a_span_keeps_what_is_changed_inside_of_it():
    text = "call Anna now"
    swapped = [Edit(5, 7, "nA", "swap"), Edit(9, 10, "", "delete")]
    assert edited(text, swapped) == "call nAnanow"
    assert [moved(place, swapped) for place in (5, 9)] == [5, 9]
    inserted = [Edit(0, 1, "cx", "insert"), Edit(8, 9, "ay", "insert")]
    after = edited(text, inserted)
    assert after == "cxall Annay now"
    assert after[moved(5, inserted) : moved(9, inserted)] == "Annay"


def test_no_noise_changes_nothing():
    for text in ("", "\n", ENGLISH, TRADITIONAL):
        assert CharacterNoise(rate=0.0, operators=THERE).apply(text, stream(0, "noise")) == text


def test_a_line_keeps_something_when_all_of_it_would_go():
    assert noisy("delete", "a\nbc\n\n 国 ", rate=1.0) == "a\nb\n\n 国 "


# --- graphemes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "whole",
    ["e\u0301", "👩\u200d🔬", "👍🏽", "🇩🇪", "❤\ufe0f", "1\ufe0f\u20e3", "\r\n", "\u1112\u1161\u11ab", "가\u11a8", "ｶ\uff9e", "葛\U000e0100"],
)  # fmt: skip
def test_what_readers_see_as_one_is_one(whole):
    assert graphemes("a" + whole + "b") == ["a", whole, "b"]


@given(text=TEXTS)
def test_graphemes_are_those_of_unicode(text):
    regex = pytest.importorskip("regex")
    assert graphemes(text) == regex.findall(r"\X", text)


# --- single operators -----------------------------------------------------------------------------------------------


def drawn(operator: str, text: str, times: int = 400) -> list[str]:
    noise, rng = CharacterNoise(rate=1.0, operators=(operator,)), stream(0, "drawn")
    return [noise.apply(text, rng) for _ in range(times)]


def test_keys_are_missed_by_one():
    assert set(drawn("keyboard", "g")) == set("ftyhvb")
    assert set(drawn("keyboard", "Q")) == set("WA")
    assert set(drawn("keyboard", "5")) == set("46rt")
    assert drawn("keyboard", "中，é", 1) == ["中，é"]


def test_case_leaves_alone_what_has_none():
    assert noisy("case", "aÉß1中ж", rate=1.0) == "Aéß1中Ж"


def test_homoglyphs_are_other_characters_of_other_scripts_or_digits():
    for letter in "ABCEHKMOPTXaceopxy":
        for double in set(drawn("homoglyph", letter, 40)):
            assert double != letter
            assert double.isdigit() or "LATIN" not in unicodedata.name(double)


def test_width_is_what_compatibility_takes_away():
    text = "abc, 123; １２３，ＡＢＣ"
    turned = noisy("width", text, rate=1.0)
    assert turned == "ａｂｃ， １２３； 123,ABC"
    assert unicodedata.normalize("NFKC", turned) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize(
    ("character", "kind"), [("k", "Ll"), ("K", "Lu"), ("7", "Nd"), ("ж", "Ll"), ("な", "Lo")]
)
def test_another_character_is_of_the_same_kind(character, kind):
    others = set(drawn("replace", character))
    assert character not in others
    assert {unicodedata.category(other) for other in others} == {kind}
    assert len(others) >= 9
    assert {pair[0] for pair in drawn("insert", character, 20)} == {character}


def test_other_chinese_characters_are_drawn_by_how_frequent_they_are():
    others = drawn("replace", "鲸", 2000)
    assert all(map(is_chinese, others))
    share = others.count("的") / len(others)
    expected = frequencies()["的"][0] / 1e6
    assert share == pytest.approx(expected, abs=5 * np.sqrt(expected / 2000))


def test_texts_are_known_by_their_characters():
    assert is_traditional(TRADITIONAL)
    assert not is_traditional(SIMPLIFIED)
    assert not is_traditional(ENGLISH)
    simplified, traditional = (set(frequent(traditional=script).strings) for script in (False, True))
    assert {"国", "发", "这"} <= simplified - traditional
    assert {"國", "發", "這"} <= traditional - simplified


def test_homophones_sound_as_the_word_has_it():
    pytest.importorskip("pypinyin")
    banks, walks = ({text[-1] for text in drawn("homophone", word)} for word in ("银行", "步行"))
    assert "航" in banks
    assert "型" in walks
    assert not banks & walks
    assert all(character in frequent(traditional=False).strings for character in banks | walks)
    counts = {c: drawn("homophone", "试", 2000).count(c) for c in "是嗜"}
    assert counts["是"] > 20 * counts["嗜"], "a frequent one is more likely"


def test_homophones_are_of_the_script_of_the_text():
    pytest.importorskip("pypinyin")
    in_traditional = {text[4] for text in drawn("homophone", "黃河樓頭發")}
    assert in_traditional
    assert all(frequencies()[character][1] >= 1 for character in in_traditional)


KNOWN = [
    "己已",
    "已巳",
    "未末",
    "土士",
    "人入",
    "日曰",
    "天夭",
    "大太",
    "大犬",
    "拨拔",
    "晴睛",
    "侯候",
    "戊戌",
    "戌戍",
    "免兔",
    "鸟乌",
    "王玉",
    "今令",
    "牛午",
    "干千",
    "刀力",
    "辨辩",
    "请清",
    "情晴",
    "折拆",
    "治冶",
    "住往",
    "幻幼",
    "处外",
    "喝渴",
    "祟崇",
    "茶荼",
    "拣栋",
    "徒徙",
    "孤弧",
    "狐孤",
    "遣遗",
    "衷哀",
    "候喉",
    "拍柏",
    "抱泡",
    "跑泡",
    "峰蜂",
    "场扬",
    "怀坏",
    "师帅",
    "历厉",
    "准淮",
    "菅管",
    "竟竞",
    "厂广",
    "元无",
    "甲由",
    "由田",
    "申甲",
    "目自",
    "白百",
    "木本",
    "本术",
    "名各",
    "失矢",
    "贝见",
    "鳥烏",
    "爾雨",
    "體禮",
    "間問",
    "問聞",
    "買賣",
    "書晝",
    "晝畫",
]
"""Pairs that are often taken for one another."""


def test_known_pairs_are_look_alikes():
    tables = [lookalikes(traditional=script) for script in (False, True)]
    found = [
        a + b for a, b in KNOWN if any(b in table.get(a, "") or a in table.get(b, "") for table in tables)
    ]
    assert len(found) / len(KNOWN) >= 0.85, sorted(set(KNOWN) - set(found))


def test_the_most_alike_is_drawn_most():
    first, *others = lookalikes(traditional=False)["末"]
    assert first == "未"
    texts = drawn("lookalike", "末")
    assert set(texts) == {first, *others}
    assert texts.count(first) == max(map(texts.count, texts))


def test_the_other_script_is_that_of_opencc():
    opencc = pytest.importorskip("opencc")
    assert noisy("script", SIMPLIFIED, rate=1.0) == opencc.OpenCC("s2t").convert(SIMPLIFIED)
    assert noisy("script", TRADITIONAL, rate=1.0) == opencc.OpenCC("t2s").convert(TRADITIONAL)
    assert noisy("script", "头发发现", rate=1.0) == "頭髮發現", "by the word"


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_come_from_a_recipe():
    table = {"rate": 0.1, "operators": ["swap", "case"]}
    noise = recipes.from_dict(CharacterNoise, table)
    assert noise == CharacterNoise(rate=0.1, operators=("swap", "case"))
    assert recipes.to_dict(noise) == table
    assert set(table) <= set(recipes.field_docs(CharacterNoise))


def test_what_is_not_there_is_refused(monkeypatch):
    with pytest.raises(InputError, match='no operator called "keybord"') as caught:
        CharacterNoise(operators=("keybord",))
    assert "keyboard" in caught.value.hint
    with pytest.raises(InputError, match="no operators"):
        CharacterNoise(operators=())
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "pypinyin" else SPEC(name)
    )
    with pytest.raises(InputError, match='"homophone" needs pypinyin') as caught:
        CharacterNoise(operators=("homophone",))
    assert "gristmill[augment]" in caught.value.hint


SPEC = importlib.util.find_spec
