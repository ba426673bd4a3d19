"""Personal data in texts: what is found, what is not, and what stands in its place."""

import itertools
import re
from collections.abc import Sequence

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from gristmill.corpus.features import packed
from gristmill.corpus.private import (
    KINDS,
    Names,
    Span,
    Tagger,
    find_spans,
    replace,
    spans_of_buffer,
    to_characters,
)
from gristmill.errors import InputError

KEY = b"a key for tests"

# kind, value, a sentence around it; numbers are from ranges for fiction, published examples, or made up here
EXAMPLES = [
    ("email", "john.smith+x@mail.acme-corp.co.uk", "Write to {}."),
    ("email", "zhangsan＠１６３．com", "邮箱：{}，谢谢"),
    ("email", "lisi@qq.com", "请发到{}。"),
    ("phone", "13800138000", "手机{}，"),
    ("phone", "138-0013-8000", "手机{}，"),
    ("phone", "138 00138000", "手机{}，"),
    ("phone", "１３８００１３８０００", "电话：{}。"),
    ("phone", "+86 138 0013 8000", "({})"),
    ("phone", "0755-26013388", "座机：{}。"),
    ("phone", "(010) 62345678", "致电{}。"),
    ("phone", "010-62345678转801", "致电{}。"),
    ("phone", "400-810-8888", "热线{}。"),
    ("phone", "62345678", "电话：{}。"),
    ("phone", "(212) 555-0123", "Call {}."),
    ("phone", "212-555-0123 ext. 12", "Call {}, please"),
    ("phone", "+1 212 555 0123", "at {}\n"),
    ("phone", "212.555.0123", "at {}\n"),
    ("phone", "2125550123", "Phone: {}\n"),
    ("phone", "555-0123", "call me at {}\n"),
    ("phone", "020 7946 0958", "It is {}."),
    ("phone", "+44 (0)20 7946 0958", "It is {}."),
    ("phone", "07700 900123", "It is {}."),
    ("phone", "01632 960123", "It is {}."),
    ("phone", "01 99 00 12 34", "à Paris, {}."),
    ("phone", "+49 30 1234567", "In Berlin {}."),
    ("phone", "+39\u00a006\u00a01234567", "A Roma {}."),
    ("bank_card", "4111111111111111", "Card {} was charged."),
    ("bank_card", "5555-5555-5555-4444", "Card {} was charged."),
    ("bank_card", "3782 822463 10005", "Card {} was charged."),
    ("bank_card", "6200000000000005", "卡号{}。"),
    ("iban", "GB82 WEST 1234 5698 7654 32", "Pay to {} PLEASE."),
    ("iban", "DE89370400440532013000", "Pay to {}."),
    ("id_number", "11010519491231002X", "身份证号{}。"),
    ("id_number", "110105 19491231 002X", "身份证号{}。"),
    ("id_number", "A123456789", "身分證字號 {}。"),
    ("id_number", "A123456(3)", "HKID {}."),
    ("id_number", "536-22-8726", "SSN {}."),
    ("id_number", "536228726", "SSN: {}."),
    ("id_number", "QQ 12 34 56 C", "NI number {}."),
    ("id_number", "12345678Z", "DNI {}."),
    ("id_number", "X1234567L", "NIE {}."),
    ("id_number", "529.982.247-25", "CPF {}."),
    ("ip", "52.34.11.9", "from {} today"),
    ("ip", "2a00:1450:4001:81b::200e", "from {} today"),
    ("ip_local", "192.168.1.1", "from {} today"),
    ("url_user", "bob:hunter22", "git clone https://{}@git.acme.test/x"),
    ("secret", "AKIAQZ7RTY2MPL5KX3VN", "aws_access_key_id = {}\n"),
    ("secret", "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", "export GH={}\n"),
    ("secret", "Hunter2xyz", "password: {}\n"),
    ("secret", "Abc12345", "密码：{}，"),
    ("secret", "abcdef0123456789ABCDEF", 'token="{}"'),
    ("secret", "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA12345\n-----END RSA PRIVATE KEY-----", "\n{}\n"),
    ("address", "1600 Pennsylvania Avenue NW, Washington, DC 20500", "He lives at {}."),
    ("address", "221B Baker Street", "He lives at {}, London."),
    ("address", "5 West 42nd Street, Apt 4B", "He lives at {}."),
    ("address", "12 High Street, Oxford OX1 4BG", "He lives at {}."),
    ("address", "P.O. Box 123, Springfield, IL 62701", "Write to {}."),
    ("address", "北京市海淀区中关村大街27号中关村大厦3层", "他住在{}，"),
    ("address", "上海市浦东新区世纪大道100号", "公司位于{}。"),
    ("address", "台北市中正區重慶南路一段122號3樓", "地址：{}。"),
    ("address", "人民路十二号", "我家在{}。"),
    ("account", "zhang_san88", "微信号：{}，"),
    ("account", "123456789", "QQ：{}，"),
    ("plate", "京A12345", "车牌{}，"),
    ("plate", "粤B·D12345", "车牌{}，"),
    ("passport", "E12345678", "护照号{}，"),
    ("passport", "123456789", "passport no. {}, "),
]  # fmt: skip

NOTHING = [
    "In 1998 Wall Street fell, and in February 2011, Times Square became smoke-free.",
    "1998-2003, 2003-04-05 12:30:45, 1,234,567, 3.14159265358979, $415-555, 100 000 000",
    "version 1.2.3.4, v10.20.30.40, 3.36.10.0, Chrome/91.0.4472.124, 1.2.3",
    "ISBN 978-7-302-14800-1, 0-306-40615-2, ISSN 1234-5679, doi 10.1000/182",
    "16 GiB are 17179869184 bytes; 4111111111111112 has a wrong check digit; GB82 WEST 1234 5698 7654 33 too",
    "11010519491231002Y 110105194913310021 000-12-3456 666-12-3456 12345678A 529.982.247-26",
    "logo@2x.png, git@github.com:a/b, @user, user@localhost, python-dev@ and 8 Mile Road, 130 S. Ct. 3020",
    "password: str, token = get_token(), key: value, password=your_password1, secret: ${SECRET_1}, password: ****",
    "国发〔1998〕12号，第123号，轨道交通2号线，第三章第12条，铁路12号线，10月1日，2008年8月8日20时",
    "std::string a::b 12:34:56 de:ad:be:ef:00:11 http://host:8080/path/13912345678 id=13912345678",
    "mysql://root:password@db/x https://user:{password}@host",
]  # fmt: skip


def values_of(text: str, taggers: Sequence[Tagger] = ()) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in find_spans(text, list(KINDS), taggers)]


@pytest.mark.parametrize(("kind", "value", "sentence"), EXAMPLES)
def test_each_form_of_each_kind_is_found_whole(kind: str, value: str, sentence: str) -> None:
    assert values_of(sentence.format(value)) == [(kind, value)]


@pytest.mark.parametrize("text", NOTHING)
def test_what_looks_alike_is_left_alone(text: str) -> None:
    assert values_of(text) == []


def test_every_kind_has_an_example() -> None:
    assert {kind for kind, _, _ in EXAMPLES} == set(KINDS) - {"name"}


def test_local_addresses_are_found_only_when_asked_for() -> None:
    assert find_spans("ping 192.168.1.1") == []


def test_evidence_says_what_makes_it_one() -> None:
    spans = find_spans("card 4111111111111111, call 555-0123 or 212-555-0199")
    assert [(span.kind, span.evidence) for span in spans] == [
        ("bank_card", "check digit"), ("phone", "word before"), ("phone", "form"),
    ]  # fmt: skip


def test_names_of_a_list_are_found_as_whole_words_and_the_longest_first() -> None:
    names = Names(["Ann", "Ann Lee", "王小明", "欧阳娜"])
    text = "Ann Lee met Anna, Ann and 王小明的老师欧阳娜。"
    assert values_of(text, taggers=[names]) == [
        ("name", "Ann Lee"), ("name", "Ann"), ("name", "王小明"), ("name", "欧阳娜"),
    ]  # fmt: skip


def test_what_a_tagger_marks_gives_way_to_what_is_certain() -> None:
    text = "é jane@acme.test Jane"
    spans = find_spans(text, taggers=[lambda text: [Span("name", 2, 6), Span("name", 17, 21)]])
    assert spans == [Span("email", 2, 16, "form"), Span("name", 17, 21, "tagger")]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match='"mail" is no kind'):
        find_spans("", ["mail"])


def test_a_batch_finds_what_its_texts_have_each_by_itself() -> None:
    texts = [sentence.format(value) for _, value, sentence in EXAMPLES] + NOTHING + ["", "号", "1", "@"]
    found = spans_of_buffer(*packed(texts))
    for number, text in enumerate(texts):
        mine = found.documents == number
        columns = (found.kinds[mine], found.starts[mine], found.ends[mine], found.evidence[mine])
        assert to_characters(text, *columns) == find_spans(text)


def test_a_key_is_found_behind_many_beginnings_of_one() -> None:
    block = "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA12345\n-----END PRIVATE KEY-----"
    assert values_of("-----BEGIN PRIVATE KEY-----" * 200 + "\n" + block) == [("secret", block)]


def test_texts_that_touch_do_not_make_a_number_together() -> None:
    data, _ = packed(["call 212-555", "-0123 now"])
    assert len(spans_of_buffer(data, np.array([0, 12, 21])).kinds) == 0
    assert len(spans_of_buffer(data, np.array([0, 21])).kinds) == 1


def test_a_text_of_several_pieces_has_the_finds_on_their_borders_once() -> None:
    number = "，电话138-0013-8000，"
    for shift in (-12, -7, -2, 0, 40):
        text = "字" * ((1 << 20) // 3 + shift) + number + "字" * 400_000 + number
        spans = find_spans(text)
        assert [text[span.start : span.end] for span in spans] == ["138-0013-8000"] * 2


_FRAGMENTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from([value for _, value, _ in EXAMPLES]),
    st.sampled_from([sentence.format(value) for _, value, sentence in EXAMPLES]),
    st.from_regex(r"[0-9+(). :@/-]{1,20}", fullmatch=True),
)
_TEXTS = (
    st.lists(_FRAGMENTS, max_size=8).map("".join).filter(lambda text: not re.search("[\ud800-\udfff]", text))
)
_WORDS = Names(["Ann", "王小明", "电话"])


@hypothesis.given(_TEXTS)
def test_spans_lie_in_the_text_in_their_order_without_overlaps(text: str) -> None:
    spans = find_spans(text, list(KINDS), [_WORDS])
    borders = [0, *(place for span in spans for place in (span.start, span.end)), len(text)]
    assert all(a <= b for a, b in itertools.pairwise(borders))
    assert all(span.start < span.end for span in spans)


@hypothesis.given(st.lists(_TEXTS, max_size=4))
@hypothesis.example(["\U00010000A123006789"])
def test_spans_in_bytes_lie_on_the_borders_of_characters(texts: list[str]) -> None:
    found = spans_of_buffer(*packed(texts), tuple(KINDS))
    for document, start, end in zip(found.documents, found.starts, found.ends, strict=True):
        assert texts[document].encode()[start:end].decode()


@hypothesis.given(_TEXTS, st.sampled_from(["mask", "surrogate"]))
def test_replacing_leaves_what_is_outside_the_spans(text: str, method: str) -> None:
    spans = find_spans(text, list(KINDS))
    done = replace(text, spans, method, KEY)  # type: ignore[arg-type]
    outside = [
        text[a:b]
        for a, b in itertools.pairwise([0, *(p for s in spans for p in (s.start, s.end)), len(text)])
    ][::2]
    pattern = "(.*)".join(re.escape(piece) for piece in outside)
    assert re.fullmatch(pattern, done, re.DOTALL)
    assert done == replace(text, spans, method, KEY)  # type: ignore[arg-type]


def test_masks_say_the_kind() -> None:
    text = "Call 212-555-0123 or write to a.b@acme.test."
    assert replace(text, find_spans(text), "mask") == "Call [PHONE] or write to [EMAIL]."


def test_surrogates_need_a_key() -> None:
    with pytest.raises(InputError, match="need a key"):
        replace("x", [], "surrogate")


def test_spans_that_overlap_are_refused() -> None:
    with pytest.raises(InputError, match="overlap at character 1"):
        replace("abc", [Span("name", 0, 2), Span("name", 1, 3)], "mask")


@pytest.mark.shared_data
def test_novels_and_laws_have_next_to_nothing(shared_data) -> None:  # type: ignore[no-untyped-def]
    import json

    import pyarrow

    for name, most in (("pretrain_zh_novels", 0), ("pretrain_zh_laws", 2)):
        with pyarrow.input_stream(
            str(shared_data / name / "train.jsonl.zst"), compression="detect"
        ) as stream:
            texts = [json.loads(line)["text"] for line in stream.read(6 << 20).splitlines()[:-1]]
        assert len(spans_of_buffer(*packed(texts)).kinds) <= most
