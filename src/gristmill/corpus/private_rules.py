"""What personal data looks like: for each trigger (a digit, an @, a long token) the rules that are tried there.

A rule takes a window of text and where in it the trigger stands, and returns where the find begins and ends. Rules of
one trigger are tried in their order, the most certain first.

Sources: the numbering plans as ITU (E.164), NANPA, Ofcom, ARCEP and China's MIIT publish them; the formats of keys as
their issuers document them; RFC 5321 and 1035 for e-mail, IANA's registries for IP addresses.
"""

import collections
import ipaddress
import math
import re
from collections.abc import Callable
from typing import NamedTuple

from gristmill.corpus import private_numbers as numbers

__all__ = [
    "ADDRESSES",
    "ASSIGNED",
    "BLOCKS",
    "CODES",
    "CONTEXT",
    "CONTEXT_WORDS",
    "EVIDENCE",
    "HAN_ADDRESSES",
    "IPS",
    "KEY_STARTS",
    "MAIL",
    "NUMBERS",
    "TOKENS",
    "WIDE",
    "Place",
    "Rule",
]

Place = tuple[int, int] | None


class Rule(NamedTuple):
    """One form of one kind."""

    kind: str
    evidence: str
    """What makes it so, in a word or two: what a person is shown."""
    find: Callable[[str, int], Place]
    first: str = ""
    """The characters that it can begin with; empty: any."""


# A number is no part of a longer one, of a word, of a price or of a file's name. (ASCII: a Chinese character is a border.)
_LEFT = r"(?<![\w$€£¥#@~^\\=])(?<![\w][-/])(?<!\d[.,:])(?<!\d[ ]-)"
_RIGHT = r"(?![\w@%])(?!-\w)(?![.,:]\d)(?!/\d)(?! ?(?:元|万|萬|亿|億|字节|bytes|KB|MB|GB|ms|km|kg))"
_GROUP_LEFT, _NO_GROUP = _LEFT + r"(?<!\d )", r"(?! \d)"  # nor one of the groups of an account's number
_EXTENSION = r"(?:(?: ?(?:x|ext\.?|extension)|-| ?转|轉) ?\d{1,5}(?![\w-]))?"


def _form(
    pattern: str, accepts: Callable[[str], bool] = lambda _: True, left: str = _LEFT, flags: int = re.ASCII
) -> Callable[[str, int], Place]:
    """A rule that is a pattern which begins at the trigger, and a test of what it matched (or of its group `v`)."""
    compiled = re.compile(left + pattern, flags)
    group = compiled.groupindex.get("v", 0)

    def find(window: str, place: int) -> Place:
        match = compiled.match(window, place)
        if match is None or not accepts(match[group]):
            return None
        start, end = match.span(group)
        return start + (
            match[group][0] == "(" and ")" not in match[group]
        ), end  # (… ends behind what was found

    return find


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _compact(text: str) -> str:
    return re.sub(r"[ -]", "", text)


# --- numbers: cards, identity numbers, telephones -------------------------------------------------------------------

_CARD = (
    r"(?:\d{4}(?P<a>[ -])\d{4}(?P=a)\d{4}(?P=a)\d{4}(?:(?P=a)\d{3})?|\d{4}(?P<b>[ -])\d{6}(?P=b)\d{4,5}|\d{6} \d{13}"
    r"|\d{14,16}|\d{19})" + _RIGHT
)
_COUNTRIES = (
    r"(?:1|7|20|27|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-69]\d|3[578]\d|42\d|5[09]\d|6[789]\d"
    r"|8[05789]\d|9[679]\d"
    r"|9[ .\-()]{0,2}9[ .\-()]{0,2}9)"  # a fake's, in whatever groups
)
_CN_AREA = r"(?:10|2[0-57-9]|[3-9]\d\d)"


_SAMPLES = ("1234567890", "0123456789", "123456789", "12345678", "1234567")


def _has_digits(least: int, most: int) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        digits = _digits(re.split(r"[x转轉e]", text)[0])
        return least <= len(digits) <= most and digits not in _SAMPLES

    return accepts


def _is_card(text: str) -> bool:
    digits = _digits(text)
    # a bare number of 19 digits that begins with 4 is a visa card seldom and a database's id often
    return numbers.is_card(digits) and (len(digits) != 19 or len(text) > 19 or digits[0] != "4")


def _is_mobile(text: str) -> bool:
    return not text.isdigit() or len(text) != 11 or int(text) % (1 << 20) != 0  # 17179869184 is 16 GiB


def _is_nanp(text: str) -> bool:
    digits = _digits(re.split(r"[xe]", text)[0])
    return numbers.is_nanp(digits[-10:])


def _is_national(text: str) -> bool:
    return _has_digits(10, 11)(text)


NUMBERS = (
    Rule("id_number", "check digit", _form(r"\d{6}(?P<a>[ -]?)\d{8}(?P=a)\d{3}[\dXx]" + _RIGHT,
                                           lambda text: numbers.is_cn_id(_compact(text).upper())), "123456789"),
    Rule("bank_card", "check digit", _form(_CARD, _is_card), "23456789"),
    Rule("id_number", "check digit", _form(r"\d{3}\.\d{3}\.\d{3}-\d{2}" + _RIGHT, lambda text: numbers.is_cpf(_digits(text)))),
    Rule("id_number", "form", _form(r"\d{3}-\d{2}-\d{4}" + _RIGHT, lambda text: numbers.is_ssn(_digits(text)))),
    Rule("phone", "form", _form(r"(?:\(?\+?(?:00)?86\)?[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}" + _RIGHT, _is_mobile),
         "+(0168"),
    Rule("phone", "form", _form(r"(?:\+1[ .-]?|(?:00)?1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d(?P<a>[.-]))[2-9]\d\d[.-]\d{4}" + _EXTENSION + _RIGHT,
                                _is_nanp), "+(0123456789"),
    Rule("phone", "form", _form(rf"\(?0{_CN_AREA}(?:\) ?-?|[ -])[1-9]\d{{2,3}}[ -]?\d{{4}}{_EXTENSION}{_RIGHT}{_NO_GROUP}", _has_digits(10, 17), _GROUP_LEFT), "(0"),
    Rule("phone", "form", _form(rf"(?:\(0\d{{1,5}}\) ?\d{{3,8}}(?:[ -]\d{{2,4}})?|\([1-9]\d\) ?9?\d{{4}}-\d{{4}}){_EXTENSION}{_RIGHT}", _has_digits(8, 13)), "("),
    Rule("phone", "form", _form(r"[48]00(?:-\d{3}-\d{4}|-\d{4}-\d{3}| \d{3} \d{4})" + _RIGHT), "48"),
    Rule("phone", "form", _form(r"0[1-9](?P<a>[ .])\d\d(?:(?P=a)\d\d){3}" + _RIGHT), "0"),
    Rule("phone", "form", _form(r"\(?0(?:7\d{9}|(?:1\d{2,4}|2\d{1,3}|[378]\d{2,3})(?:\) ?|[ -])\d{3,8}(?:[ -]\d{3,4})?)" + _RIGHT + _NO_GROUP,
                                _is_national, _GROUP_LEFT), "(0"),
    Rule("phone", "form", _form(rf"0[1-9]\d{{0,3}}[ -]\d{{2,4}}[ -]\d{{2,4}}(?:[ -]\d{{2,4}})?{_EXTENSION}{_RIGHT}{_NO_GROUP}", _has_digits(9, 11),
                                _GROUP_LEFT), "0"),
    Rule("phone", "form", _form(rf"\+\(?{_COUNTRIES}\)?(?:(?: ?\(0\))?[ .\-/()]{{0,3}}\d){{6,12}}{_EXTENSION}{_RIGHT}", _has_digits(8, 15)), "+"),
)  # fmt: skip

# --- numbers that a word before them must announce ------------------------------------------------------------------

CONTEXT_WORDS = re.compile(
    (
        "tel|phone|fax|mob|cell|call|dial|text|whatsapp|hotline|contact|电话|電話|手机|手機|传真|傳真|热线|熱線|致电|拨打|座机|固话|联系方式"
        "|qq|微信|passport|护照|護照|ssn|social security|身份证|身份證|证件号|card|visa|卡号|卡號|银行卡|信用卡|借记卡|储蓄卡"
    ).encode()
)
"""A cheap test of what stands before a number, in lower case; the rules look more closely."""
CONTEXT_BYTES = 40

_FILLER = r"[^\w\n]{0,3}(?:(?:no|nos|number|us|me|him|her|at|on|is|was|now|today|号码|號碼|号|为|是|卡号|ID)[^\w\n]{0,3}){0,3}$"


def _announced(
    words: str, pattern: str, accepts: Callable[[str], bool] = lambda _: True
) -> Callable[[str, int], Place]:
    """A rule that holds behind certain words only."""
    before = re.compile(rf"(?:(?<![a-z])(?:{words})){_FILLER}", re.IGNORECASE)
    after = _form(pattern, accepts, left=r"(?<![\d.])")

    def find(window: str, place: int) -> Place:
        found = after(window, place)
        return found if found and before.search(window, max(0, found[0] - 36), found[0]) else None

    return find


_PHONE_WORDS = (
    "tel|telephone|phone|fax|mobile|mob|cell|cellphone|call|calling|dial|text|whatsapp|hotline|contact"
    "|电话|電話|手机|手機|传真|傳真|热线|熱線|致电|拨打|座机|固话|联系方式"
)
_PASSPORT = Rule(
    "passport", "word before", _announced("passport|护照|護照", r"(?:[A-Z]{1,2}\d{6,8}|\d{9})" + _RIGHT)
)
CONTEXT = (
    Rule("id_number", "word before", _announced("身份证|身份證|证件号|身份证件", r"\d{15}" + _RIGHT, numbers.is_cn_id)),
    Rule("id_number", "word before", _announced("ssn|social security", r"\d{3}[ -]?\d{2}[ -]?\d{4}" + _RIGHT,
                                                lambda text: numbers.is_ssn(_digits(text)))),
    Rule("bank_card", "word before", _announced("card|visa|mastercard|卡号|卡號|银行卡|信用卡|借记卡|储蓄卡", r"\d{12,19}" + _RIGHT, numbers.is_card)),
    Rule("account", "word before", _announced(r"qq群?|qq ?/ ?微信|微信|微信 ?/ ?qq", r"[1-9]\d{4,10}" + _RIGHT)),
    _PASSPORT,
    Rule("phone", "word before", _announced(_PHONE_WORDS, r"(?:\+|\()?\d(?:[ .\-()/]{0,2}\d){6,14}" + _EXTENSION + _RIGHT,
                                            _has_digits(7, 15))),
)  # fmt: skip

# --- numbers with letters -------------------------------------------------------------------------------------------

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}", re.ASCII)


def _iban(window: str, place: int) -> Place:
    match = _IBAN.match(window, place)
    if match is None:
        return None
    wanted, end = numbers.IBAN_LENGTHS.get(match[0][:2], 0), match.start()
    for _ in range(wanted):  # what follows behind a space can look like its continuation
        end += 1 + (window[end : end + 1] == " ")
    found = window[match.start() : end]
    whole = end <= match.end() and not re.match(r"\w", window[end : end + 1], re.ASCII)
    return (match.start(), end) if wanted and whole and numbers.is_iban(found.replace(" ", "")) else None


_PROVINCE_SIGNS = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_CODE_LEFT = r"(?<![A-Za-z0-9])"
CODES = (
    Rule("iban", "check digit", _iban),
    Rule("id_number", "form", _form(r"[A-Z]{2}(?P<a> ?)\d\d(?P=a)\d\d(?P=a)\d\d(?P=a)[A-D](?![\w-])", numbers.is_nino, _CODE_LEFT)),
    Rule("id_number", "check digit", _form(r"[A-Z]\d{9}(?![\w-])", numbers.is_tw_id, _CODE_LEFT)),
    Rule("id_number", "check digit", _form(r"[A-Z]{1,2}\d{6}\([\dA]\)", lambda text: numbers.is_hk_id(text.replace("(", "")[:-1]), _CODE_LEFT)),
    Rule("id_number", "check digit", _form(r"[XYZ]-?\d{7}-?[A-Z](?![\w-])", lambda text: numbers.is_dni(_compact(text)), _CODE_LEFT)),
    Rule("id_number", "check digit", _form(r"\d{8}-?[A-Z](?![\w-])", lambda text: numbers.is_dni(_compact(text)), _LEFT)),
    _PASSPORT,
    Rule("plate", "form", _form(rf"[{_PROVINCE_SIGNS}][A-Z][·•]?(?=[A-Z]{{0,4}}\d)[A-HJ-NP-Z0-9]{{4,5}}[A-HJ-NP-Z0-9挂学警港澳](?![\w-])",
                                lambda text: sum(c.isdigit() for c in text) > 2, "")),
)  # fmt: skip

# --- IP addresses ---------------------------------------------------------------------------------------------------

_QUAD = re.compile(r"(?<![\w.-])(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|(?![\w.])|(?=\.(?!\d)))){4}(?!-\w)(?!/\d)", re.ASCII)  # fmt: skip
_VERSION = re.compile(r"(?:v|ver|version|versions|release|build|version of|版本|版|§|section|rev|[A-Za-z]+-)[\s:=(]*$", re.IGNORECASE)  # fmt: skip
_HOST = re.compile(r"(?:\bips?\b|address|host|server|from|ping|dns|地址|主机|服务器|节点|//)[^\w\n]{0,3}(?:is|was|为|是)?[^\w\n]{0,3}$", re.IGNORECASE)  # fmt: skip
_SIX = re.compile(r"(?<![\w:.])[0-9a-fA-F]{4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:])", re.ASCII)
_SMALL = 64


def _ip_rule(is_wanted: Callable[[ipaddress.IPv4Address | ipaddress.IPv6Address], bool]) -> Callable[[str, int], Place]:  # fmt: skip
    def find(window: str, place: int) -> Place:
        match = _QUAD.match(window, place) or _SIX.match(window, place)
        if match is None:
            return None
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            return None
        if address.version == 4:
            before = window[max(0, place - 24) : place]
            small = all(part < _SMALL for part in address.packed)  # as likely a version
            if _VERSION.search(before) or (small and not _HOST.search(before)):
                return None
        return match.span() if is_wanted(address) else None

    return find


_GLOBAL_SIX = ipaddress.ip_network("2000::/3")


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if address.version == 6 and (
        address not in _GLOBAL_SIX or int(address) % (1 << 96) == 0
    ):  # 2006:: in reST
        return False
    return address.is_global and not address.is_multicast


IPS = (
    Rule("ip", "form", _ip_rule(_is_public)),
    Rule("ip_local", "form", _ip_rule(lambda address: not _is_public(address) and int(address) > 1)),
)

# --- street addresses -----------------------------------------------------------------------------------------------

_STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Highway|Hwy"
    "|Parkway|Pkwy|Circle|Cir|Crescent|Cres|Close|Way|Mews|Gardens|Turnpike|Plaza|Broadway|Quay|Wharf"
)
_SHORT_STREETS = "St|Ave|Rd|Blvd|Ln|Dr|Ct|Pl|Sq|Hwy|Pkwy|Cir|Cres"
_POINTS = "N|S|E|W|NE|NW|SE|SW|North|South|East|West|Northeast|Northwest|Southeast|Southwest"
_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|DC|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR"
    "|PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|PR|GU|VI|AA|AE|AP"
)
_WORD = r"[A-Z][A-Za-z'’]+"
_UNIT = r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Floor|Room|Rm|Flat|#)\.? ?#?[\dA-Z][\w-]{0,5})?"
_TOWN = rf"(?:(?:,|\n|,\n|) ?(?:{_WORD}[ -]){{0,2}}{_WORD},? (?:(?:{_STATES}),? \d{{5}}(?:-\d{{4}})?|[A-Z]{{1,2}}\d[A-Z\d]? \d[A-Z]{{2}})(?!\w))?"
_STREET = re.compile(
    rf"(?<![\w$€£¥#.,:/'’-])(?P<number>\d{{1,5}})(?:[A-Za-z]|-\d{{1,5}})?(?P<comma>,?) (?:(?:{_POINTS})\.? )?"
    rf"(?:(?:{_WORD}|\d{{1,3}}(?:st|nd|rd|th)|[A-Z]\.|St\.|Mt\.|de|la|of) ){{1,4}}?(?:(?:{_SHORT_STREETS})\.(?= ?[,\n\da-z])|(?:{_STREETS})\b(?!['’]|-\w))"
    rf"(?: (?:{_POINTS})\b\.?)?{_UNIT}(?P<town>{_TOWN})",
    re.ASCII,
)
_BOX = re.compile(rf"(?:(?i:p\.? ?o\.?) ?|Post Office )Box \d{{1,6}}(?!\w){_TOWN}", re.ASCII)
_ZIP = re.compile(rf"(?:{_WORD}[ -]){{0,2}}{_WORD},? (?:{_STATES}),? \d{{5}}(?:-\d{{4}})?(?![\w-])", re.ASCII)
_YEAR_BEFORE = re.compile(
    r"(?:\b(?:in|since|by|of|until|till|during|around|circa|late|early|mid|the|after|before)|[,(]) $", re.IGNORECASE
)  # fmt: skip
_BEFORE_COMMA = re.compile(r"(?:\b(?:at|to|of|[Nn]o\.?)|[.\n;]|^) ?$")  # 7, Hammersmith Terrace
_NO_STREET = re.compile(
    r" (?:First|Second|Third|Last|Best|Next|Only|Supreme|High|County|District|Superior|Federal|S\.) (?:Place|Way|Court|Close|Ct)|^\d+ Mile Road"
)


_FLAT = re.compile(r"\b(?:Flat|Unit|Apt\.?|Apartment|Suite|Room) [\w-]{1,5}(?:,|\n|,\n) ?$", re.ASCII)
_POSTCODE = r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}(?!\w)"
_LINES = re.compile(  # any street, where a town and its code stand in the next lines
    rf"(?<![\w$€£¥#.,:/'’-])\d{{1,5}}[A-Za-z]? (?:{_WORD} ){{0,3}}{_WORD}\.?{_UNIT}(?:,|\n|,\n) ?"
    rf"(?:(?:{_WORD}[ -]){{0,2}}{_WORD}, ?(?:{_STATES}),? \d{{5}}(?:-\d{{4}})?(?!\w)"
    rf"|(?:(?:{_WORD}[ -]){{0,2}}{_WORD}(?:,|\n|,\n| ) ?){{1,2}}{_POSTCODE})",
    re.ASCII,
)


def _lines(window: str, place: int) -> Place:
    match = _LINES.match(window, place)
    flat = _FLAT.search(window, max(0, place - 24), place) if match else None
    return (flat.start() if flat else place, match.end()) if match else None


def _street(window: str, place: int) -> Place:
    match = _STREET.match(window, place)
    if match is None or _NO_STREET.search(match[0]):
        return None
    is_year = len(match["number"]) == 4 and "1500" <= match["number"] <= "2099" and not match["town"]
    if match["comma"] and (is_year or not _BEFORE_COMMA.search(window, max(0, place - 5), place)):
        return None
    if is_year and _YEAR_BEFORE.search(window, max(0, place - 12), place):
        return None
    flat = _FLAT.search(window, max(0, place - 24), place)
    start = flat.start() if flat else place
    return start, match.end() if _is_zip(match["town"]) else match.start("town")


_ZIPS = {
    state: digit
    for digit, states in enumerate(
        ("CT MA ME NH NJ RI VT PR", "DE NY PA", "DC MD NC SC VA WV", "AL FL GA MS TN", "IN KY MI OH", "IA MN MT ND SD WI",
         "IL KS MO NE", "AR LA OK TX", "AZ CO ID NM NV UT WY", "AK CA HI OR WA")
    )
    for state in states.split()
}  # fmt: skip
_STATE_AND_ZIP = re.compile(r"([A-Z]{2}),? (\d)(\d{4})(?:-\d{4})?$")


def _is_zip(text: str) -> bool:
    """Whether a ZIP code at the end of a text, if there is one, lies in its state, or is one of the fakes (000..)."""
    match = _STATE_AND_ZIP.search(text)
    return (
        match is None
        or match[1] not in _ZIPS
        or _ZIPS[match[1]] == int(match[2])
        or text[-5:].startswith("000")
    )


def _around(pattern: re.Pattern[str], reach: int, near: re.Pattern[str]) -> Callable[[str, int], Place]:
    """A rule that is a pattern which begins before the trigger; `near`, quick to see, ends or begins there."""

    def find(window: str, place: int) -> Place:
        if not near.search(window, max(0, place - 4), place + 5):
            return None
        for match in pattern.finditer(window, max(0, place - reach)):
            if match.start() > place:
                break
            if match.end() > place:
                return match.span() if _is_zip(match[0]) else None
        return None

    return find


ADDRESSES = (
    Rule("address", "form", _street),
    Rule("address", "form", _lines),
    Rule("address", "form", _around(_BOX, 18, re.compile(r"Box \d"))),
    Rule("address", "form", _around(_ZIP, 50, re.compile(r" \d{5}$"))),
)

_HAN = "\u4e00-\u9fff"
_ADMIN = "省|自治区|自治區|特别行政区|市|自治州|州|盟|区|區|县|縣|旗|镇|鎮|乡|鄉|街道"
_ROAD_ENDS = "大街|大道|胡同|新村|花园|花園|小区|小區|社区|大厦|大廈|广场|廣場|公寓|路|街|道|巷|弄|里|村|庄|屯|苑|园|园区"
_ROAD = re.compile(
    rf"[{_HAN}A-Za-z0-9]{{1,8}}(?:{_ROAD_ENDS})(?:[东西南北中東]|[一二三四五六七八九十\d]{{1,3}}(?:段|巷|里|弄|期|区))?$"
)
_NO_ROAD = re.compile(
    r"(?:线路|電路|电路|铁路|公路|思路|道路|马路|回路|支路|一路|网路|网络|通道|频道|跑道|管道|隧道|轨道|街道|车道|航道|渠道|知道|报道|哪里|这里|那里|公里|海里|英里|万里|千里|百里|华里|十里)$"
)
_LEAD = re.compile(
    r"位于|位於|坐落于|坐落在|住在|居住于|居住在|现住|家住|搬到|搬至|迁至|迁到|设在|设于|来到|前往|寄到|寄往|送到|送至|快递到|收货地址|通讯地址|联系地址|注册地址|办公地址|家庭住址|户籍地|住址|住所|地址|地点|在|于(?!洪|都|田)|於|到|是|为|從|从(?!化)|往|至(?!善|诚|德)|去|的|了|与|與|及|驻|以|^今"
)
_TAIL_UNIT = r"(?:号院|号楼|號樓|号|號|弄|巷|栋|棟|幢|座|单元|單元|层|層|楼|樓|室|组|户|之)"
_TAIL = re.compile(
    rf"(?:\d{{1,5}}(?:[-—]\d{{1,5}})*|[一二三四五六七八九十百〇零两]{{1,6}}){_TAIL_UNIT}(?!线|線|文|令|召|称|码|院士)"
    rf"(?:(?:[A-Za-z]|\d{{1,5}}(?:-\d{{1,5}})*){_TAIL_UNIT}|[A-Z]座|之\d{{1,3}}|[{_HAN}]{{2,8}}(?:大厦|大廈|广场|廣場|公寓|花园|小区|中心)(?=[A-Z]?\d|[A-Z]座)|\d{{3,4}}(?![\d年月日人元]))*"
)
_PROVINCES = re.compile(
    "北京|天津|上海|重庆|重慶|河北|山西|内蒙古|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|广西|海南|四川|贵州|云南|西藏|陕西|甘肃|青海|宁夏|新疆|香港|澳门|台湾|臺灣|台北|臺北|新北|桃园|台中|臺中|台南|臺南|高雄"
)


def _han_address(window: str, place: int) -> Place:
    tail = _TAIL.match(window, place)
    if tail is None:
        return None
    begin = place
    while begin > 0 and place - begin < 40 and _belongs(window, begin - 1):
        begin -= 1
    before = window[begin:place]
    if not _ROAD.search(before) or _NO_ROAD.search(before):
        return None
    province = _PROVINCES.search(before)
    if province and re.search(_ADMIN, before[province.end() :]):
        return begin + province.start(), tail.end()
    for lead in _LEAD.finditer(before):
        if _ROAD.search(before[lead.end() :]):
            begin = place - len(before) + lead.end()
    admin = re.search(_ADMIN, window[begin:place])
    begin = max(begin, begin + admin.start() - 6 if admin else place - 8)
    return (begin, tail.end()) if _ROAD.search(window[begin:place]) else None


def _belongs(window: str, place: int) -> bool:
    c = window[place]
    if c == " ":
        return place > 0 and window[place - 1] in "省市区县區縣镇乡"
    return "\u4e00" <= c <= "\u9fff" or (c.isascii() and (c.isalnum() or c == "-"))


HAN_ADDRESSES = (Rule("address", "form", _han_address),)

# --- e-mail, keys, passwords: bytes would do, but one kind of rule is simpler --------------------------------------

_LOCAL = "!#$%&'*+-.0123456789=?ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz{|}~"
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+(?:[A-Za-z]{2,24}|xn--[A-Za-z0-9-]{2,20})(?![A-Za-z0-9_-]|@)"
)
_NO_DOMAINS = frozenset(
    "png jpg jpeg gif svg webp js ts css html htm json xml py rb go java md txt pdf yaml yml sh sql log conf service".split()  # noqa: SIM905
)
_USER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<v>[^\s/@:\"'<>]{1,64}:[^\s/@\"'<>]{1,64})$")
_HIDDEN = re.compile(
    r"\*{2}|x{3}|X{3}|\.{3}|…|[<>{}()\[\]$]|your|example|EXAMPLE|placeholder|changeme|dummy", re.IGNORECASE
)
_NO_PASSWORDS = frozenset("password passwd pass pwd secret user username token 密码".split())  # noqa: SIM905


def _mail(window: str, place: int) -> Place:
    domain = _DOMAIN.match(window, place + 1)
    if domain is None or domain[0].rpartition(".")[2].lower() in _NO_DOMAINS:
        return None
    before = window[max(0, place - 65) : place]
    local = before[len(before.rstrip(_LOCAL)) :].lstrip("!#$%&'*+-./=?^`{|}~")
    for sign in ("mailto=", "="):  # email=a@b.example in a query
        local = local.rpartition(sign)[2]
    if (
        not local
        or len(local) > 64
        or local[-1] == "."
        or ".." in local
        or set(local.lower()) == {"x"}
        or local in ("git", "hg")
    ):
        return None
    return place - len(local), domain.end()


def _user(window: str, place: int) -> Place:
    match = _USER.search(window, max(0, place - 160), place)
    if match is None:
        return None
    password = match["v"].partition(":")[2]
    return None if password.lower() in _NO_PASSWORDS or _HIDDEN.search(password) else match.span("v")


MAIL = (Rule("url_user", "form", _user), Rule("email", "form", _mail))

_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}|glpat-[\w-]{20,64}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,250}|sk-(?:ant-|proj-)?[\w-]{20,200}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,128}|AIza[\w-]{35}"
    r"|ya29\.[\w-]{20,400}|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}|hf_[A-Za-z]{30,40}|npm_[A-Za-z0-9]{36}"
    r"|pypi-AgE[\w-]{50,250}|SG\.[\w-]{16,32}\.[\w-]{16,64}|LTAI[A-Za-z0-9]{12,26}|AKID[A-Za-z0-9]{16,40}|dop_v1_[a-f0-9]{64}"
    r"|shpat_[a-f0-9]{32})(?![\w-])",
    re.ASCII,
)
KEY_STARTS = re.compile(
    rb"AKI[AD]|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|[sr]k_(?:live|test)_|AIza|ya29|eyJ|hf_|npm_|pypi-AgE|SG\.|LTAI|dop_v1|shpat_"
)
"""A cheap test of a token in bytes: what _KEYS begins with."""
_TOKEN = re.compile(r"[\w.+/=-]*", re.ASCII)
_BLOCK_BEGIN = re.compile(r"-----BEGIN (?P<what>[A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?)-----")
_BLOCK_BODY = re.compile(r"[A-Za-z0-9+/=\s:,.()-]{16,}")


def _entropy(text: str) -> float:
    """Bits per character."""
    counts = collections.Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


_WORDS = re.compile(r"[a-z]{3,}[_-][a-z]{3,}[_-][a-z]{3,}")


def _block(window: str, place: int) -> Place:
    begin = _BLOCK_BEGIN.match(window, max(0, window.rfind("-----BEGIN ", 0, place)))
    if begin is None or begin.end() < place:
        return None
    last = f"-----END {begin['what']}-----"
    end = window.find(last, begin.end())
    body = _BLOCK_BODY.fullmatch(window, begin.end(), end) if end >= 0 else None
    return (begin.start(), end + len(last)) if body and "-----BEGIN" not in body[0] else None


def _key(window: str, place: int) -> Place:
    match = _KEYS.search(window, place, _TOKEN.match(window, place).end())  # type: ignore[union-attr]
    if match is None or _HIDDEN.search(match[0]) or _WORDS.search(match[0]) or _entropy(match[0]) < 3.2:
        return None
    if not re.search(r"\d", match[0]) and not match[0].startswith(("AKIA", "ASIA")):
        return None
    return match.span()


BLOCKS = (Rule("secret", "form", _block),)
TOKENS = (Rule("secret", "form", _key),)
WIDE = re.compile(rb"\xef\xbc(?:[\x90-\x99]|\xa0|\x88[0+])")
"""A full-width digit, or @, or a bracket before an area's code."""

_ACCOUNT = re.compile(
    r"(?:微信|wechat|weixin)(?:号|號| ?ID)?[:： ]{0,2}[:：][:： ]{0,2}(?P<v>[A-Za-z][-_A-Za-z0-9]{5,19})(?![\w.@-])",
    re.IGNORECASE | re.ASCII,
)
_ASSIGNED = re.compile(
    r"(?P<what>pass(?:word|wd|code|phrase)|pwd|secret(?:[_ -]?key)?|(?:api|access|auth|private)[_ -]?(?:key|token)|token|密码|密碼|口令)"
    r"[\"'`]?\s?(?:=>|[:=：])\s?[\"'`“]?(?P<v>[\w!@#$%^&*+/=.~-]{6,80})(?![\w(\[{]|\.\w)",
    re.IGNORECASE | re.ASCII,
)


def _assigned(window: str, place: int) -> Place:
    matches = _ASSIGNED.finditer(window, max(0, place - 24))
    match = next((match for match in matches if match.start() < place <= match.start("v")), None)
    if match is None or _HIDDEN.search(match["v"]):
        return None
    value = match["v"].rstrip(".")
    classes = sum(bool(re.search(c, value)) for c in ("[a-z]", "[A-Z]", "[0-9]", r"[^\w]"))
    is_password = match["what"].lower().startswith(("pass", "pwd", "密", "口"))
    if not re.search("[0-9]", value) or not re.search("[A-Za-z]", value) or classes < 2:
        return None
    if not is_password and (len(value) < 16 or _entropy(value) < 3.0):
        return None
    if re.search(r"[a-z]{3}[.-][a-z]{3}|^0x|_[a-z]+_|^v?\d+\.\d", value):  # a name, a file, a number
        return None
    return match.start("v"), match.start("v") + len(value)


def _account(window: str, place: int) -> Place:
    matches = _ACCOUNT.finditer(window, max(0, place - 12))
    return next((match.span("v") for match in matches if match.start() < place <= match.start("v")), None)


ASSIGNED = (
    Rule("account", "word before", _account),
    Rule("secret", "word before", _assigned),
)

EVIDENCE = ("check digit", "form", "word before", "list", "tagger")
"""What makes a find one: in the order of their numbers in arrays."""
