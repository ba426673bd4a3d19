"""Check digits against the examples of their standards, and what one wrong digit does to them."""

import hypothesis
import hypothesis.strategies as st
import pytest

from gristmill.corpus import private_numbers as numbers

# As the SWIFT registry of IBANs, the networks' test cards, GB 11643 and the issuing authorities print them.
CARDS = (  # noqa: SIM905
    "4111111111111111 4012888888881881 4242424242424242 5555555555554444 5105105105105100 2223003122003222 378282246310005 "
    "371449635398431 6011111111111117 6011000990139424 30569309025904 38520000023237 3530111333300000 3566002020360505 6200000000000005"
).split()
IBANS = (  # noqa: SIM905
    "AD1200012030200359100100 AE070331234567890123456 AT611904300234573201 BE68539007547034 BR1800360305000010009795493C1 "
    "CH9300762011623852957 CZ6508000000192000145399 DE89370400440532013000 DK5000400440116243 EE382200221020145685 "
    "ES9121000418450200051332 FI2112345600000785 FR1420041010050500013M02606 GB29NWBK60161331926819 GI75NWBK000000007099453 "
    "GR1601101250000000012300695 HR1210010051863000160 HU42117730161111101800000000 IE29AIBK93115212345678 IL620108000000099999999 "
    "IS140159260076545510730339 IT60X0542811101000000123456 KW81CBKU0000000000001234560101 LI21088100002324013AA LT121000011101001000 "
    "LU280019400644750000 LV80BANK0000435195001 MC5811222000010123456789030 MT84MALT011000012345MTLCAST001S MU17BOMM0101101030300200000MUR "
    "NL91ABNA0417164300 NO9386011117947 PL61109010140000071219812874 PT50000201231234567890154 RO49AAAA1B31007593840000 "
    "SA0380000000608010167519 SE4550000000058398257466 SI56263300012039086 SK3112000000198742637541 SM86U0322509800000000270100 "
    "TN5910006035183598478831 TR330006100519786457841326"
).split()


@pytest.mark.parametrize("number", CARDS)
def test_published_cards_are_cards(number: str) -> None:
    assert numbers.is_card(number)


@pytest.mark.parametrize("number", IBANS)
def test_the_registrys_examples_are_ibans(number: str) -> None:
    assert numbers.is_iban(number)


def test_the_worked_examples_of_the_standards() -> None:
    assert numbers.luhn_check("7992739871") == 3
    assert numbers.mod_11_2_check("0794") == "0"  # ISO 7064's example
    assert numbers.mod_11_2_check("11010519491231002") == "X"  # GB 11643's examples
    assert numbers.mod_11_2_check("44052418800101001") == "4"
    assert numbers.is_cn_id("11010519491231002X")
    assert numbers.iban_check("GB", "WEST12345698765432") == "82"
    assert numbers.hk_check("G123456") == "A"
    assert numbers.tw_check("A12345678") == 9
    assert numbers.dni_letter("12345678") == "Z"
    assert numbers.cpf_check("111444777") == "35"


_DIGITS = st.text("0123456789", min_size=12, max_size=18)
_PLACE = st.integers(0, 11)
_OTHER = st.integers(1, 9)


@hypothesis.given(_DIGITS, _PLACE, _OTHER)
def test_one_wrong_digit_is_always_seen(digits: str, place: int, shift: int) -> None:
    wrong = digits[:place] + str((int(digits[place]) + shift) % 10) + digits[place + 1 :]
    assert numbers.luhn_check(wrong) != numbers.luhn_check(digits)
    assert numbers.mod_11_2_check(wrong) != numbers.mod_11_2_check(digits)
    assert numbers.iban_check("DE", wrong) != numbers.iban_check("DE", digits)


@hypothesis.given(_DIGITS, _PLACE)
def test_two_digits_that_changed_places_are_seen_by_the_moduli(digits: str, place: int) -> None:
    hypothesis.assume(place + 1 < len(digits) and digits[place] != digits[place + 1])
    wrong = digits[:place] + digits[place + 1] + digits[place] + digits[place + 2 :]
    assert numbers.mod_11_2_check(wrong) != numbers.mod_11_2_check(digits)
    assert numbers.iban_check("DE", wrong) != numbers.iban_check("DE", digits)


@pytest.mark.parametrize("text", ["000123456", "666123456", "123003456", "123450000"])
def test_social_security_numbers_that_were_never_given_out(text: str) -> None:
    assert not numbers.is_ssn(text)


@pytest.mark.parametrize("text", ["BG123456A", "DA123456A", "AO123456A", "ZZ123456A"])
def test_prefixes_that_no_insurance_number_has(text: str) -> None:
    assert not numbers.is_nino(text)


@pytest.mark.parametrize(
    "text", ["990105194912310021", "110105194902300021", "000105194912310021", "1101051949123100"]
)
def test_residents_numbers_need_a_province_a_date_and_their_length(text: str) -> None:
    assert not numbers.is_cn_id(text)
