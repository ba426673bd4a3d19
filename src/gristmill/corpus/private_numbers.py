"""Numbers that carry their own proof: check digits, lengths and ranges of cards, accounts and identity numbers.

All functions take strings without spaces and hyphens, letters in upper case. A number that `private_fakes` makes up is
accepted too (it has right check digits in a range that nobody is given), so that a fake is found where its original was.
"""

import datetime
import functools
import re

__all__ = [
    "IBAN_LENGTHS",
    "card_issuer",
    "cpf_check",
    "dni_letter",
    "hk_check",
    "iban_check",
    "is_card",
    "is_cn_id",
    "is_cpf",
    "is_dni",
    "is_hk_id",
    "is_iban",
    "is_nanp",
    "is_nino",
    "is_ssn",
    "is_tw_id",
    "luhn_check",
    "mod_11_2_check",
    "tw_check",
]

# Issuer's prefixes (ISO/IEC 7812, as the networks publish them) and how many digits their numbers have.
_ISSUERS = (
    ("american express", re.compile(r"3[47]"), (15,)),
    ("diners", re.compile(r"3(?:0[0-59]|[689])"), (14, 16, 17, 18, 19)),
    ("jcb", re.compile(r"35(?:2[89]|[3-8]\d)"), (16, 17, 18, 19)),
    ("visa", re.compile(r"4"), (13, 16, 19)),
    ("mastercard", re.compile(r"5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)"), (16,)),
    ("maestro", re.compile(r"50(?:18|20|38)|5893|6304|6759|676[1-3]"), (12, 13, 14, 15, 16, 17, 18, 19)),
    ("mir", re.compile(r"220[0-4]"), (16, 17, 18, 19)),
    ("discover", re.compile(r"6011|64[4-9]|65"), (16, 17, 18, 19)),
    ("unionpay", re.compile(r"62|81"), (16, 17, 18, 19)),
    ("icbc", re.compile(r"9558"), (19,)),  # older debit cards of China's largest bank
)

# The lengths of the SWIFT registry of IBANs.
IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        "15": "NO", "16": "BE", "18": "DK FI FK FO GL NL SD", "19": "MK SI", "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA", "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST", "26": "IS TR",
        "27": "BI DJ FR GR IT MC MR SM", "28": "AL AZ BY CY DO GT HN HU LB NI PL SV",
        "29": "BR EG PS QA UA", "30": "JO KW MU YE", "31": "MT SC", "32": "LC", "33": "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip

_CN_PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83 91".split()  # noqa: SIM905
)
"""The first two digits of GB/T 2260, and 83 and 91 for residents from Taiwan and from abroad."""
UNUSED_CN_PROVINCE = "99"
"""No province has it: fakes do."""
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_TW_LETTERS = "ABCDEFGHJKLMNPQRSTUVXYWZIO"
"""In the order of their values, from 10."""


def luhn_check(digits: str) -> int:
    """Returns the check digit that Luhn's formula (ISO/IEC 7812-1, annex B) puts behind these digits."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 - place % 2)
        total += value - 9 if value > 9 else value
    return -total % 10


def card_issuer(digits: str) -> str | None:
    """Returns the network whose prefix and length a card's number has, if one has."""
    for name, prefix, lengths in _ISSUERS:
        if len(digits) in lengths and prefix.match(digits):
            return name
    return None


def is_card(digits: str) -> bool:
    """Whether this is the number of a payment card: Luhn's check digit, an issuer's prefix and its length."""
    return (
        card_issuer(digits) is not None
        and len(set(digits)) > 1
        and luhn_check(digits[:-1]) == int(digits[-1])
    )


def iban_check(country: str, account: str) -> str:
    """Returns the two check digits of an IBAN (ISO 13616: ISO 7064, mod 97-10)."""
    return f"{98 - int(_in_digits(account + country + '00')) % 97:02d}"


def is_iban(text: str) -> bool:
    """Whether this is an IBAN: its country's length and the check digits."""
    return IBAN_LENGTHS.get(text[:2]) == len(text) and text[2:4] == iban_check(text[:2], text[4:])


def mod_11_2_check(digits: str) -> str:
    """Returns the check character of ISO 7064, mod 11-2, behind these digits: 0 to 9 or X."""
    total = 0
    for digit in digits:
        total = (total + int(digit)) * 2 % 11
    return "0123456789X"[(12 - total) % 11]


def is_cn_id(text: str) -> bool:
    """Whether this is a Chinese resident's number (GB 11643): a province, a date of birth, the check character.

    The form of 15 digits, given out until 1999, has no check character.
    """
    if text[:2] not in _CN_PROVINCES and text[:2] != UNUSED_CN_PROVINCE:
        return False
    if len(text) == 15:
        return text[2:6] != "0000" and _is_date("19" + text[6:12])
    return len(text) == 18 and _is_date(text[6:14]) and mod_11_2_check(text[:17]) == text[17]


def tw_check(text: str) -> int:
    """Returns the last digit of a Taiwanese number, given the letter and the eight digits before it."""
    value = _TW_LETTERS.index(text[0]) + 10
    total = value // 10 + 9 * (value % 10) + sum((8 - i) * int(digit) for i, digit in enumerate(text[1:9]))
    return -total % 10


def is_tw_id(text: str) -> bool:
    """Whether this is a Taiwanese citizen's or resident's number; 0 behind the letter is nobody's."""
    return text[1] in "01289" and tw_check(text) == int(text[9])


def hk_check(text: str) -> str:
    """Returns the check character of a Hong Kong identity card, given one or two letters and six digits."""
    values = [36] * (len(text) == 7) + [int(c) if c.isdigit() else ord(c) - 55 for c in text]
    return "0123456789A"[-sum((9 - i) * value for i, value in enumerate(values)) % 11]


def is_hk_id(text: str) -> bool:
    """Whether this is the number of a Hong Kong identity card."""
    return hk_check(text[:-1]) == text[-1]


def is_ssn(digits: str) -> bool:
    """Whether this can be a US social security number, a taxpayer's number (9..), or one of the fakes (9.., 01-49)."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and group != "00" and serial != "0000"


def is_nino(text: str) -> bool:
    """Whether this can be a British national insurance number, or its form for examples (QQ, as HMRC writes them)."""
    first, second = text[0], text[1]
    if text[:2] == "QQ":
        return True
    return not (
        first in "DFIQUV" or second in "DFIOQUV" or text[:2] in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
    )


def dni_letter(digits: str) -> str:
    """Returns the letter behind the digits of a Spanish DNI, or behind a NIE's with X, Y, Z as 0, 1, 2."""
    return _DNI_LETTERS[int(digits) % 23]


def is_dni(text: str) -> bool:
    """Whether this is a Spanish DNI (eight digits and a letter) or NIE (X, Y or Z, seven digits and a letter)."""
    digits = str("XYZ".find(text[0])) + text[1:-1] if text[0] in "XYZ" else text[:-1]
    return dni_letter(digits) == text[-1]


def cpf_check(digits: str) -> str:
    """Returns the two check digits of a Brazilian CPF, given its nine digits."""
    for _ in range(2):
        total = sum((len(digits) + 1 - i) * int(digit) for i, digit in enumerate(digits))
        digits += str(-total % 11 % 10)
    return digits[9:]


def is_cpf(digits: str) -> bool:
    """Whether this is a Brazilian CPF."""
    return len(set(digits)) > 1 and cpf_check(digits[:9]) == digits[9:]


def is_nanp(digits: str) -> bool:
    """Whether ten digits are a telephone number of North America's plan: neither area nor exchange begins with 0 or 1."""
    area, exchange = digits[:3], digits[3:6]
    return area[0] in "23456789" and exchange[0] in "23456789" and area[1:] != "11" and exchange[1:] != "11"


def _in_digits(text: str) -> str:
    return "".join(str(int(c, 36)) for c in text)


@functools.lru_cache(1 << 12)
def _is_date(text: str) -> bool:
    try:
        day = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return 1900 <= day.year <= 2100
