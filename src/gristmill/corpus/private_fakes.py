"""Surrogates: a value of the same shape that belongs to nobody, the same one for the same value and key.

Everything is drawn from HMAC-SHA256 of the kind and the value without its writing (spaces, hyphens, case), so that
138-0013-8000 and 13800138000 become one fake in two writings. Where a range is kept for fiction, for documents or for
nobody, the fake lies there; RANGES says which. A small range (100 numbers in each North American area) can give two
values one fake; a DNI, a CPF and an IP address for documents have nothing better.
"""

import functools
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence

from gristmill.corpus import private_numbers as numbers

__all__ = ["FOLD", "RANGES", "fake"]

FOLD = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: 0x20}
"""Full-width characters and their ASCII forms."""

RANGES = {
    "email": "below example.com, example.net, example.org (RFC 2606)",
    "phone": "North America 555-0100 to 555-0199; Britain 01632 960xxx, 020 7946 0xxx, 07700 900xxx and such (Ofcom); "
    "France 01 99 00 xx xx and such (ARCEP); Chinese mobiles from 161, 163, 164, 168, 169 (not given out), landlines whose "
    "number begins with 1; other countries +999 (ITU: reserved)",
    "bank_card": "the first six digits of the network's published test card, and Luhn's digit",
    "iban": "bank 0000 or XXXX, and the check digits",
    "id_number": "China: province 99; Taiwan: 0 behind the letter; Hong Kong: Q; US: 9xx-01 to 9xx-49; UK: QQ, as in its "
    "published examples; Spain: above 99 million, or Z9; Brazil: any with right check digits",
    "ip": "198.18.0.0/15 (RFC 2544) and 2001:db8::/32 (RFC 3849)",
    "plate": "I behind the province, which no plate has",
    "address": "streets and towns made up of syllables; US ZIP 000xx; British postcodes with letters that none has",
    "name": "made up; one of the given names that are common where it is known as one, of the same gender",
}
"""Kind -> where its fakes lie."""


def fake(kind: str, value: str, key: bytes) -> str:
    """Returns the surrogate of a value. It never equals the value."""
    maker, value = _MAKERS.get(kind, _shaped), value.translate(FOLD)
    for attempt in range(16):
        made = maker(value, functools.partial(_Draw, key, f"{kind}{attempt or ''}"))
        if made != value:
            return made
    return f"[{kind.upper()}]"  # an empty shape, such as one that has no letter and no digit


class _Draw:
    """Numbers that only the holder of the key can tell, by the value they are drawn for."""

    def __init__(self, key: bytes, label: str, identity: str) -> None:
        self._key, self._seed, self._count, self._bytes = key, f"{label}\0{identity}".encode(), 0, b""

    def below(self, n: int) -> int:
        """Returns the next number from 0 to n - 1."""
        if len(self._bytes) < 8:
            self._bytes = hmac.digest(self._key, self._seed + self._count.to_bytes(4, "big"), hashlib.sha256)
            self._count += 1
        drawn, self._bytes = self._bytes[:8], self._bytes[8:]
        return int.from_bytes(drawn, "big") % n

    def one(self, things: Sequence[str]) -> str:
        return things[self.below(len(things))]

    def digits(self, n: int) -> str:
        return "".join(str(self.below(10)) for _ in range(n))


_Drawer = Callable[[str], _Draw]
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwz", "aeiou"


def _shape(text: str, draw: _Draw) -> str:
    """Returns letters for letters and digits for digits; the rest stays."""
    return "".join(
        draw.one("0123456789") if c.isdigit()
        else draw.one("ABCDEFGHJKLMNPQRSTUVWXYZ") if "A" <= c <= "Z"
        else draw.one("abcdefghijklmnopqrstuvwxyz") if c.isalpha() and c.isascii()
        else c
        for c in text
    )  # fmt: skip


def _spelt(text: str, draw: _Draw) -> str:
    """Returns something that can be spoken, in the shape of a text: letters for letters, digits for digits."""
    made, is_vowel = [], bool(draw.below(2))
    for c in text:
        if c.isdigit():
            made.append(draw.one("0123456789"))
        elif c.isalpha():
            letter = draw.one(_VOWELS if is_vowel else _CONSONANTS)
            made.append(letter.upper() if c.isupper() else letter)
            is_vowel = not is_vowel
        else:
            made.append(c)
    return "".join(made)


def _fill(text: str, digits: str) -> str:
    """Returns the text with these in the place of its last digits, as many."""
    left = list(digits)
    made = [left.pop() if c.isdigit() and left else c for c in reversed(text)]
    return "".join(reversed(made))


def _shaped(value: str, drawer: _Drawer) -> str:
    made = _shape(value, drawer(value))
    return "1" + made[1:] if value.isdigit() and made[0] == "0" else made


def _secret(value: str, drawer: _Drawer) -> str:
    """A key keeps what its issuer puts before it, a block its frame."""
    kept = re.match(
        r"-----BEGIN [A-Z ]+-----|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-(?:ant-|proj-)?|[sr]k_(?:live|test)_|AIza"
        r"|ya29\.|hf_|npm_|pypi-AgE|SG\.|LTAI|AKID|dop_v1_|shpat_",
        value,
    )  # fmt: skip
    first = kept.end() if kept else 0
    last = value.rfind("-----END") if value.startswith("-----BEGIN") else len(value)
    draw = drawer(value)
    if re.search(r"eyJ[\w-]+\.eyJ", value):
        return ".eyJ".join(
            _shape(part, draw) if i else "eyJ" + _shape(part[3:], draw)
            for i, part in enumerate(value.split(".eyJ"))
        )
    if value.startswith(("dop_v1_", "shpat_")):
        return value[:first] + "".join(draw.one("0123456789abcdef") for _ in value[first:])
    return value[:first] + _shape(value[first:last], draw) + value[last:]


def _user(value: str, drawer: _Drawer) -> str:
    user, _, password = value.partition(":")
    return (
        f"{_spelt(user, drawer('user ' + user.lower()))}:{_shape(password, drawer('password ' + password))}"
    )


def _email(value: str, drawer: _Drawer) -> str:
    """The same domain becomes the same domain."""
    local, _, domain = value.partition("@")
    draw = drawer("domain " + domain.lower())
    host = f"{_spelt('xxxxxx', draw)}.example.{draw.one(('com', 'net', 'org'))}"
    name = _spelt(local.lower(), drawer("local " + value.lower()))
    if len(local) < 6:
        name += _spelt("x" * (6 - len(local)), drawer("more " + value.lower()))
    return f"{name}@{host}"


_TEST_CARDS = {
    "visa": "424242", "mastercard": "555555", "american express": "378282", "discover": "601111", "diners": "305693",
    "jcb": "356600", "unionpay": "620000", "maestro": "676977", "mir": "220000", "icbc": "955880",
}  # fmt: skip
"""As payment processors publish them for testing; the last three are prefixes only."""


def _card(value: str, drawer: _Drawer) -> str:
    digits = re.sub(r"\D", "", value)
    start = _TEST_CARDS[numbers.card_issuer(digits) or "visa"]
    if numbers.card_issuer(digits) == "maestro":
        start = "676300"
    made = start + drawer(digits).digits(len(digits) - 7)
    return _fill(value, made + str(numbers.luhn_check(made)))


def _iban(value: str, drawer: _Drawer) -> str:
    plain = value.replace(" ", "")
    bank = "".join("0" if c.isdigit() else "X" for c in plain[4:8])
    account = bank + _shape(plain[8:], drawer(plain))
    made = iter(plain[:2] + numbers.iban_check(plain[:2], account) + account)
    return "".join(c if c == " " else next(made) for c in value)


def _identity(value: str, drawer: _Drawer) -> str:
    plain = re.sub(r"[^0-9A-Za-z]", "", value).upper()
    made = next((make(plain, drawer(plain)) for form, make in _IDENTITIES if form.fullmatch(plain)), None)
    if made is None:
        return _shape(value, drawer(plain))
    characters = iter(made)
    return "".join(next(characters) if c.isalnum() else c for c in value)


def _cn_id(text: str, draw: _Draw) -> str:
    day = f"{1950 + draw.below(55)}{1 + draw.below(12):02d}{1 + draw.below(28):02d}"
    region = numbers.UNUSED_CN_PROVINCE + f"{1 + draw.below(9999):04d}"
    if len(text) == 15:
        return region + day[2:] + draw.digits(3)
    made = region + day + draw.digits(3)
    return made + numbers.mod_11_2_check(made)


def _ssn(_: str, draw: _Draw) -> str:
    return f"9{draw.digits(2)}{1 + draw.below(49):02d}{1 + draw.below(9999):04d}"


def _tw_id(_: str, draw: _Draw) -> str:
    made = draw.one("ABCDEFGHJKLMNPQRSTUVXY") + "0" + draw.digits(7)
    return made + str(numbers.tw_check(made))


def _hk_id(text: str, draw: _Draw) -> str:
    made = "Q" * (len(text) - 7) + draw.digits(6)
    return made + numbers.hk_check(made)


def _dni(text: str, draw: _Draw) -> str:
    if text[0] in "XYZ":
        made = "9" + draw.digits(6)
        return "Z" + made + numbers.dni_letter("2" + made)
    made = "99" + draw.digits(6)
    return made + numbers.dni_letter(made)


def _cpf(_: str, draw: _Draw) -> str:
    made = draw.digits(9)
    return made + numbers.cpf_check(made)


_IDENTITIES: tuple[tuple[re.Pattern[str], Callable[[str, _Draw], str]], ...] = (
    (re.compile(r"\d{17}[\dX]|\d{15}"), _cn_id),
    (re.compile(r"\d{11}"), _cpf),
    (re.compile(r"\d{9}"), _ssn),
    (re.compile(r"[A-Z]{2}\d{6}[A-D]"), lambda _, draw: f"QQ{draw.digits(6)}{draw.one('ABCD')}"),
    (re.compile(r"[A-Z]\d{9}"), _tw_id),
    (re.compile(r"[XYZ]\d{7}[A-Z]|\d{8}[A-Z]"), _dni),
    (re.compile(r"[A-Z]{1,2}\d{6}[\dA]"), _hk_id),
)


def _ip(value: str, drawer: _Drawer) -> str:
    draw = drawer(value.lower())
    if ":" in value:
        return "2001:db8:" + ":".join(f"{1 + draw.below(0xFFFF):x}" for _ in range(6))
    return f"198.{18 + draw.below(2)}.{draw.below(256)}.{draw.below(256)}"


_EXTENSION = re.compile(r"(?<=\d)(?: ?(?:x|ext\.?|extension)| ?转|轉).*$")
_CN_LANDLINE = re.compile(r"\(?0(?:10|2[0-57-9]|[3-9]\d\d)(?:\) ?-?|[ -])[1-9]\d{2,3}-?\d{4}(?:-\d{1,5})?")


def _phone(value: str, drawer: _Drawer) -> str:
    tail = _EXTENSION.search(value)
    number = value[: tail.start()] if tail else value
    rest = value[len(number) :]
    is_landline = _CN_LANDLINE.fullmatch(number) is not None
    if is_landline and re.search(r"\d{4}-\d{1,5}$", number) and len(re.sub(r"\D", "", number)) > 12:
        number, _, extension = number.rpartition("-")
        rest = f"-{extension}{rest}"
    digits = re.sub(r"\D", "", number)
    made = _telephone(digits, number, is_landline, drawer)
    return _fill(number, made) + (_fill(rest, drawer("extension " + rest).digits(len(rest))) if rest else "")


def _telephone(digits: str, number: str, is_landline: bool, drawer: _Drawer) -> str:
    """Returns the last digits of the fake, without what is kept before them."""
    is_abroad = number.lstrip("(").startswith("+")
    if mobile := re.fullmatch(r"(?:00)?(?:86)?(1[3-9]\d{9})", digits):
        draw = drawer("cn " + mobile[1])
        return "16" + draw.one("13489") + draw.digits(8)
    if is_landline:
        draw = drawer("cn " + digits)
        area = draw.one(("010", "020", "021", "022", "023", "024", "025", "027", "028", "029"))
        local = len(digits) - (3 if digits[:2] in ("01", "02") else 4)
        if digits[:2] not in ("01", "02"):
            area = f"0{3 + draw.below(7)}{draw.digits(2)}"
        return area + "1" + draw.digits(local - 1)
    if digits.startswith("400") and len(digits) == 10:
        return drawer("hotline " + digits).digits(7)
    if re.fullmatch(r"1?[2-9]\d\d[2-9]\d{6}", digits) and (not is_abroad or digits[0] == "1"):
        draw = drawer("nanp " + digits[-10:])
        code = 200 + draw.below(800)
        code += code % 100 == 11  # 211 to 911 are no areas
        return f"{code}55501{draw.digits(2)}"
    if (
        french := re.fullmatch(r"(?:33)?0?([1-9]\d{8})", digits)
        if re.match(r"0\d[ .]\d\d[ .]|\+33", number)
        else None
    ):
        draw = drawer("fr " + french[1])
        return draw.one(("19900", "26191", "35301", "46571", "53649", "63998")) + draw.digits(4)
    if british := re.fullmatch(r"(?:440?|0)([1-37-8]\d{8,9})", digits):
        draw, national = drawer("uk " + british[1]), british[1]
        start = {"7": "7700900", "2": "2079460", "1": "1632960", "3": "3069990", "8": "8081570"}[national[0]]
        return (start + draw.digits(3))[: len(national)] if len(national) == 10 else "163296" + draw.digits(3)
    draw = drawer("other " + digits)
    if is_abroad:
        return "999" + draw.digits(len(digits) - 3)
    if len(digits) == 7:
        return "55501" + draw.digits(2)
    return digits[0] + draw.digits(len(digits) - 1) if len(digits) > 8 else "1" + draw.digits(len(digits) - 1)


def _plate(value: str, drawer: _Drawer) -> str:
    draw = drawer(value.replace("·", "").replace("•", ""))
    made = draw.one("京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼") + "I"
    return made + _shape(value[2:], draw)


# --- names and addresses --------------------------------------------------------------------------------------------

WOMEN = (  # noqa: SIM905
    "Alice Amelia Anna Barbara Beth Carol Catherine Charlotte Clara Diana Dorothy Eleanor Elizabeth Emily Emma Eva Grace Hannah "
    "Helen Irene Jane Janet Jessica Joan Julia Karen Kate Laura Linda Lisa Lucy Margaret Maria Mary Nancy Nina Olivia Patricia "
    "Rachel Rebecca Ruth Sarah Sophie Susan Teresa Victoria"
).split()
MEN = (  # noqa: SIM905
    "Adam Albert Andrew Anthony Benjamin Brian Charles Christopher Daniel David Edward Eric Frank George Gregory Harold Henry Hugh "
    "Jack James Jason John Joseph Kevin Lawrence Leonard Mark Martin Matthew Michael Nathan Neil Oliver Oscar Patrick Paul Peter "
    "Philip Raymond Richard Robert Roger Samuel Stephen Thomas Walter William"
).split()
_HEADS = (  # noqa: SIM905
    "Ash Beck Birch Black Brad Bram Bran Brook Cal Carl Cole Cran Dal Dun East Elm Far Fern Glen Gran Green Hal Hart Haw Hazel "
    "Hol Kel Kings Lang Lin Long Mar Mill Moor Nor Oak Pem Red Rock Sal Sel Stan Sut Thorn Wal West Whit Win Wood"
).split()
_TAILS = "bourne bridge bury by combe cott dale den field ford ham hurst ley low more ridge stead stone ton well wick worth".split()  # noqa: SIM905
_SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严"
_DOUBLE_SURNAMES = (
    "欧阳",
    "上官",
    "司马",
    "诸葛",
    "司徒",
    "东方",
    "皇甫",
    "令狐",
    "慕容",
    "尉迟",
    "夏侯",
    "公孙",
)
_WOMEN_HAN = "芳娜敏静丽艳娟霞秀燕玲桂英红玉萍婷雪琳慧莹兰倩颖洁梅琴云莲真环雅"
_MEN_HAN = "伟强磊军洋勇杰涛超明刚平辉鹏华飞鑫波斌宇浩凯健俊帆帅建国峰龙林志文海"
_PLACES_HAN_FIRST = "青云松竹清明安永兴和福长宁康泰平景秀锦碧枫梧荷梅桃柳金银玉星月辰望临"
_PLACES_HAN_SECOND = "溪岭湖泉谷峰川洲林原冈塘河桥屏港湾岩泽阳阴山坪墩坡陵浦渡潭"


def _word(text: str, draw: _Draw) -> str:
    """Returns a surname or the name of a place, in the case of the text."""
    made = draw.one(_HEADS) + draw.one(_TAILS)
    return made.upper() if text.isupper() and len(text) > 1 else made.lower() if text.islower() else made


def _name(value: str, drawer: _Drawer) -> str:
    """Word by word, so that "Jane Doe" and "Jane" stay the same person; a Chinese name by surname and given name."""
    if "\u4e00" <= value[0] <= "\u9fff":
        return _han_name(value, drawer)
    return re.sub(r"[^\W\d_]+", lambda match: _name_word(match[0], drawer(match[0].lower())), value)


def _name_word(word: str, draw: _Draw) -> str:
    if len(word) == 1:
        return draw.one("ABCDEFGHJKLMNPRSTW") if word.isupper() else draw.one("abcdefghjklmnprstw")
    for names in (WOMEN, MEN):
        if word.capitalize() in names:
            made = draw.one([name for name in names if name != word.capitalize()])
            return made.upper() if word.isupper() else made
    return _word(word, draw)


def _han_name(value: str, drawer: _Drawer) -> str:
    size = 2 if value[:2] in _DOUBLE_SURNAMES and len(value) > 2 else 1
    surname, given = value[:size], value[size:]
    draw = drawer("surname " + surname)
    made = draw.one(_DOUBLE_SURNAMES) if size == 2 else draw.one(_SURNAMES)
    is_woman, is_man = (any(c in given for c in signs) for signs in (_WOMEN_HAN, _MEN_HAN))
    pool = (
        _WOMEN_HAN
        if is_woman and not is_man
        else _MEN_HAN
        if is_man and not is_woman
        else _WOMEN_HAN + _MEN_HAN
    )
    draw = drawer("given " + given)
    return made + "".join(draw.one(pool) if "\u4e00" <= c <= "\u9fff" else c for c in given)


_KEPT = frozenset(
    (  # noqa: SIM905
        "Street St Avenue Ave Road Rd Boulevard Blvd Lane Ln Drive Dr Court Ct Place Pl Square Sq Terrace Highway Hwy Parkway Pkwy "
        "Circle Cir Crescent Cres Close Way Mews Gardens Turnpike Plaza Broadway Quay Wharf N S E W NE NW SE SW North South East "
        "West Northeast Northwest Southeast Southwest Apt Apartment Suite Ste Unit Floor Room Rm Flat P O PO Box Post Office Mt of de la"
    ).split()
)
_STATES = (  # noqa: SIM905
    "AL AK AZ AR CA CO CT DC DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN "
    "TX UT VT VA WA WV WI WY"
).split()
_PART = re.compile(
    r"(?P<postcode>[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}$)|(?P<zip>(?<=[A-Z]{2} )\d{5}(?:-\d{4})?)|(?P<ordinal>\d{1,3}(?:st|nd|rd|th))"
    r"|(?P<number>\d+)|(?P<word>[A-Za-z][A-Za-z'’]*)"
)
_ENDS = "特别行政区|自治区|自治州|街道|(?:大街|大道|路|街|道)(?:[东西南北中])?(?:[一二三四五六七八九十]段)?|胡同|新村|花园|小区|社区|大厦|广场|公寓|[巷弄里村庄屯苑园]"
_HAN_PART = re.compile(
    r"(?P<unit>(?:[一二三四五六七八九十]段)?(?<=\d)(?:号院|号楼|號樓|[号號弄巷栋棟幢座层層楼樓室组户之]|单元|單元))"
    rf"|(?P<name>[\u4e00-\u9fff]+?)(?P<end>{_ENDS}|[省市州盟区區县縣旗镇鎮乡鄉])(?!(?:{_ENDS})\d)"
    r"|(?P<number>\d+)|(?P<letter>[A-Za-z])"
)


def _address(value: str, drawer: _Drawer) -> str:
    if re.search("[\u4e00-\u9fff]", value):
        return _HAN_PART.sub(lambda match: _han_part(match, drawer), value)
    return _PART.sub(lambda match: _part(match, drawer), value)


def _number(text: str, draw: _Draw) -> str:
    return str(1 + draw.below(9)) + draw.digits(len(text) - 1)


def _part(match: re.Match[str], drawer: _Drawer) -> str:
    text, draw = match[0], drawer(f"{match.lastgroup} {match[0].lower()}")
    if match.lastgroup == "postcode":
        return _shape(text[:-3], draw) + draw.digits(1) + draw.one("CIKMOV") + draw.one("CIKMOV")
    if match.lastgroup == "zip":
        return "000" + draw.digits(2) + (f"-{draw.digits(4)}" if "-" in text else "")
    if match.lastgroup == "ordinal":
        return f"{4 + draw.below(17)}th"
    if match.lastgroup == "number":
        return _number(text, draw)
    if text in _KEPT:
        return text
    if text in _STATES:
        return draw.one(_STATES)
    return draw.one("ABCDEFGHJKLMNPRST") if len(text) == 1 else _word(text, draw)


def _han_part(match: re.Match[str], drawer: _Drawer) -> str:
    if match["unit"]:
        return match[0]
    if match["number"]:
        return _number(match[0], drawer("number " + match[0]))
    if match["letter"]:
        return drawer("letter " + match[0]).one("ABCDEFGH")
    draw = drawer("place " + match["name"])
    return draw.one(_PLACES_HAN_FIRST) + draw.one(_PLACES_HAN_SECOND) + match["end"]


_MAKERS: dict[str, Callable[[str, _Drawer], str]] = {
    "secret": _secret,
    "url_user": _user,
    "email": _email,
    "bank_card": _card,
    "iban": _iban,
    "id_number": _identity,
    "ip": _ip,
    "ip_local": _ip,
    "phone": _phone,
    "plate": _plate,
    "address": _address,
    "name": _name,
}
