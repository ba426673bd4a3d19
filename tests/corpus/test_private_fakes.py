"""Surrogates of personal data: whose they are, how they stay the same, what they keep."""

import hypothesis
import hypothesis.strategies as st
import pytest
from tests.corpus.test_private import EXAMPLES, KEY

from gristmill.corpus import private_numbers as numbers
from gristmill.corpus.private import KINDS, find_spans, replace
from gristmill.corpus.private_fakes import RANGES, fake


@pytest.mark.parametrize(("kind", "value", "sentence"), EXAMPLES)
def test_a_surrogate_is_of_its_kind_and_never_the_value(kind: str, value: str, sentence: str) -> None:
    made = fake(kind, value, KEY)
    assert made != value
    wanted = "ip_local" if kind == "ip" else kind  # ranges for documents are no public addresses
    text = sentence.format(made)
    assert (wanted, made) in [
        (span.kind, text[span.start : span.end]) for span in find_spans(text, list(KINDS))
    ]


@hypothesis.given(st.sampled_from(EXAMPLES), st.binary(min_size=1, max_size=40))
def test_a_surrogate_depends_on_the_value_and_the_key_only(example: tuple[str, str, str], key: bytes) -> None:
    kind, value, _ = example
    assert fake(kind, value, key) == fake(kind, value, key) != value


def test_another_key_gives_other_surrogates() -> None:
    same = [value for kind, value, _ in EXAMPLES if fake(kind, value, b"one") == fake(kind, value, b"two")]
    assert same == []


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("phone", "138-0013-8000", "+86 13800138000"),
        ("phone", "(212) 555-0123", "+1 212-555-0123"),
        ("phone", "020 7946 0958", "+44 20 7946 0958"),
        ("bank_card", "4111 1111 1111 1111", "4111111111111111"),
        ("iban", "GB82 WEST 1234 5698 7654 32", "GB82WEST12345698765432"),
        ("id_number", "11010519491231002x", "110105 19491231 002X"),
        ("email", "Jane.Doe@Acme.test", "jane.doe@acme.test"),
        ("email", "jane＠acme．test", "jane@acme.test"),
    ],
)
def test_one_value_in_two_writings_becomes_one_surrogate(kind: str, one: str, other: str) -> None:
    made = ["".join(c for c in fake(kind, value, KEY).lower() if c.isalnum()) for value in (one, other)]
    assert made[0][-9:] == made[1][-9:]


@hypothesis.given(st.from_regex(r"[0-9]{8}", fullmatch=True), st.binary(min_size=1, max_size=8))
def test_fakes_lie_where_nobody_is(digits: str, key: bytes) -> None:
    assert fake("phone", "138" + digits, key)[:3] in ("161", "163", "164", "168", "169")
    assert fake("phone", f"(212) 5{digits[:2]}-{digits[2:6]}", key)[5:12] == " 555-01"
    resident = "440106" + "19800101" + digits[:3]
    made = fake("id_number", resident + numbers.mod_11_2_check(resident), key)
    assert made[:2] == numbers.UNUSED_CN_PROVINCE
    assert numbers.is_cn_id(made)
    card = "622202" + digits + "1"
    made = fake("bank_card", card + str(numbers.luhn_check(card)), key)
    assert made.startswith("620000")
    assert numbers.is_card(made)
    account = "37040044" + digits + "00"
    made = fake("iban", "DE" + numbers.iban_check("DE", account) + account, key)
    assert made[4:8] == "0000"
    assert numbers.is_iban(made)
    made = fake("id_number", f"{int(digits[:3]) % 600 + 1:03d}-12-{digits[4:]}", key)
    assert made[0] == "9"
    assert 1 <= int(made[4:6]) <= 49


def test_the_parts_of_a_name_and_of_an_address_keep_their_surrogates() -> None:
    jane, doe = fake("name", "Jane Doe", KEY).split()
    assert fake("name", "Jane", KEY) == jane
    assert fake("name", "DOE", KEY) == doe.upper()
    assert fake("name", "王小明", KEY)[0] == fake("name", "王芳", KEY)[0] != "王"
    one, other = (fake("address", f"北京市海淀区{road}", KEY) for road in ("人民路12号", "中关村大街27号3楼"))
    assert one[:6] == other[:6]
    assert other[-2] != "3" or other[-1] == "楼"
    assert (
        fake("email", "a.long@acme.test", KEY).split("@")[1]
        == fake("email", "b.other@acme.test", KEY).split("@")[1]
    )


def test_joins_survive_the_replacement() -> None:
    texts = ["Ask jane.doe@acme.test.", "jane.doe@acme.test answered john@acme.test"]
    first, second = (replace(text, find_spans(text), "surrogate", KEY) for text in texts)
    name = first.removeprefix("Ask ").removesuffix(".")
    assert second.startswith(f"{name} answered ")
    assert second.split("@")[-1] == name.split("@")[1]


def test_different_values_rarely_meet() -> None:
    assert len({fake("phone", f"138{n:08d}", KEY) for n in range(500)}) == 500
    assert len({fake("email", f"user{n}@acme.test", KEY) for n in range(500)}) == 500


def test_every_range_is_of_a_kind() -> None:
    assert set(RANGES) <= set(KINDS)


@pytest.mark.parametrize("value", ["***", "…", "(", "号"])
def test_a_value_without_letters_and_digits_is_masked(value: str) -> None:
    assert fake("account", value, KEY) == "[ACCOUNT]"
