"""Personal data: how much of it is found, how much is found that is none, and what the search costs.

    python benchmarks/private.py --data PATH/TO/shared/data     # writes benchmarks/results/private.json

Planted values are made here from a seed by the published rules of their kind, in the forms in which people write them,
and put between two sentences of real documents, half of them behind a word that announces them. Decoys are values of
the same shape with a wrong check digit, and the numbers that texts are full of: ISBNs, order numbers, times, versions.
Where Faker and phonenumbers are installed their values are planted too. The other values and the rules have one author, so
their recall says only that nothing broke. Those of Faker and phonenumbers say more, but are no held-out test either: rules
were changed after looking at what was missed of Faker's values, and of phonenumbers' national forms (0.21 found alone and
0.79 behind a word before that). Only its numbers with a country's code were not looked at.

What is found in texts without planted values has been looked at by hand (REVIEWED), up to 100 finds of a kind.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from common import print_table, write_result

from gristmill.corpus import private_numbers as numbers
from gristmill.corpus.features import packed
from gristmill.corpus.private import KINDS, Names, find_spans, spans_of_buffer, to_characters

SETS = {
    "en web (C4)": "pretrain_en_web/c4_demo.jsonl.gz",
    "en Wikipedia": "pretrain_en_wikipedia/train.jsonl.zst",
    "en novels": "pretrain_en_books/train.jsonl.zst",
    "en technical (PEPs)": "pretrain_en_peps/train.jsonl.zst",
    "zh Wikipedia": "pretrain_zh_wiki/train.jsonl.zst",
    "zh technical": "pretrain_zh_docs/train.jsonl.zst",
    "zh laws": "pretrain_zh_laws/train.jsonl.zst",
    "zh novels": "pretrain_zh_novels/train.jsonl.zst",
}
MOST_CHARACTERS = 60_000_000
"""Of each set, at most so many are searched for what is found that is none."""
PLANTED = 200
DOCUMENT_BYTES = 1100

REVIEWED: dict[tuple[str, str], tuple[int, int, str]] = {
    ("en web (C4)", "phone"): (24, 0, "businesses and services"),
    ("en web (C4)", "address"): (4, 0, "one is a town with its ZIP code"),
    ("en web (C4)", "email"): (7, 0, ""),
    ("en Wikipedia", "address"): (
        188,
        2,
        "nearly all of buildings and dead people; false: 80 Years My Way, 604 AD St",
    ),
    ("en Wikipedia", "phone"): (6, 0, "services"),
    ("en Wikipedia", "ip"): (3, 0, "two name servers, an editor"),
    ("en Wikipedia", "email"): (2, 0, "mailing lists"),
    ("en novels", "address"): (23, 0, "of invented people"),
    ("en technical (PEPs)", "email"): (1470, 0, "authors and mailing lists"),
    ("en technical (PEPs)", "ip"): (2, 0, "public servers"),
    ("zh Wikipedia", "address"): (8, 0, "two begin some characters too early"),
    ("zh technical", "secret"): (18, 8, "all from a manual's examples; false: abcd1234 and MyPassw0rd!"),
    ("zh technical", "url_user"): (9, 0, "all from a manual's examples, such as root:123456"),
    ("zh technical", "ip"): (4, 0, "all from a manual's examples"),
    ("zh technical", "email"): (27, 0, "all at example.com"),
    ("zh laws", "phone"): (1, 0, "the forest fire service"),
    ("zh laws", "address"): (1, 0, "a village whose name the court left out"),
}
"""(Set, kind) -> how many finds there were, how many of those looked at are none, what they are."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument(
        "--show", nargs=2, metavar=("SET", "KIND"), help="print up to 100 finds and write nothing"
    )
    options = parser.parse_args()
    if options.show:
        show(options.data, *options.show)
        return
    facts = {
        "speed": [speed(options.data, name) for name in (*list(SETS)[:2], "zh Wikipedia", "zh technical")],
        "found_where_little_is": list(finds_of_sets(options.data)),
        "enterprise": list(enterprise(options.data)),
    }
    rows = list(planted(options.data))
    write_result("private", rows, **facts)
    for title, table in (("planted", rows), *facts.items()):
        print(f"\n## {title}\n")
        columns = list(table[0])
        print_table(columns, [[row.get(column) for column in columns] for row in table])


def texts_of(data: Path, name: str, most: int = MOST_CHARACTERS) -> list[str]:
    texts, size = [], 0
    with pyarrow.input_stream(str(data / SETS[name]), compression="detect") as stream:
        for line in stream.read().splitlines():
            if size >= most:
                break
            texts.append(json.loads(line)["text"])
            size += len(texts[-1])
    return texts


# --- what it costs --------------------------------------------------------------------------------------------------


def speed(data: Path, name: str) -> dict[str, Any]:
    """Documents of some 1.1 kB, all of them and those without a find."""
    documents = []
    for text in texts_of(data, name, 2_000_000):
        encoded = text.encode()
        documents += [
            encoded[i : i + DOCUMENT_BYTES].decode("utf-8", "ignore")
            for i in range(0, len(encoded), DOCUMENT_BYTES)
        ]
    found = spans_of_buffer(*packed(documents))
    without = [text for i, text in enumerate(documents) if i not in set(found.documents.tolist())]
    return {
        "set": name,
        "documents": len(documents),
        "without_a_find": len(without),
        "microseconds_per_document": seconds(documents),
        "microseconds_without_a_find": seconds(without),
    }


def seconds(documents: list[str]) -> float:
    """Microseconds of CPU for 1.1 kB, the median of five."""
    data, offsets = packed(documents)
    spent = []
    for _ in range(5):
        begun = time.process_time()
        spans_of_buffer(data, offsets)
        spent.append((time.process_time() - begun) / len(data) * DOCUMENT_BYTES * 1e6)
    return round(sorted(spent)[2], 1)


# --- what is found where little is ----------------------------------------------------------------------------------


def finds_of_sets(data: Path) -> Iterator[dict[str, Any]]:
    for name in SETS:
        texts = texts_of(data, name)
        million = sum(map(len, texts)) / 1e6
        found = spans_of_buffer(*packed(texts))
        counts = Counter(list(KINDS)[kind] for kind in found.kinds)
        for kind in KINDS:
            if not counts[kind] and kind != "phone":
                continue
            row = {
                "set": name, "million_characters": round(million, 2), "kind": kind, "finds": counts[kind],
                "finds_per_million": round(counts[kind] / million, 2),
            }  # fmt: skip
            if counts[kind]:
                reviewed = REVIEWED.get((name, kind))
                stale = reviewed is not None and reviewed[0] != counts[kind]
                row |= (
                    {
                        "looked_at": None,
                        "false": None,
                        "what": "not looked at" if reviewed is None else "changed since",
                    }
                    if reviewed is None or stale
                    else {"looked_at": min(100, counts[kind]), "false": reviewed[1], "what": reviewed[2]}
                )
            else:
                row |= {"looked_at": 0, "false": 0, "what": ""}
            yield row


def show(data: Path, name: str, kind: str) -> None:
    """Prints finds with what stands around them, for a person to judge."""
    texts = texts_of(data, name)
    found = spans_of_buffer(*packed(texts), [kind])
    chosen = sorted(random.Random(0).sample(range(len(found.kinds)), min(100, len(found.kinds))))
    for i in chosen:
        text = texts[found.documents[i]]
        (span,) = to_characters(text, *(column[i : i + 1] for column in found[1:]))
        around = (
            text[max(0, span.start - 30) : span.start],
            text[span.start : span.end],
            text[span.end : span.end + 20],
        )
        print(" | ".join(part.replace("\n", "⏎") for part in around))


# --- planted --------------------------------------------------------------------------------------------------------

Make = Callable[[random.Random], str]
_EN_GIVEN = "Jane Omar Priya Chloe Liam Noah Ivy Marta Sven Aisha Kofi Elena".split()  # noqa: SIM905
_EN_FAMILY = "Doe Haddad Sharma Martin Byrne Okafor Lindqvist Rossi Novak Fischer".split()  # noqa: SIM905
_HOSTS = "acme-corp.com northwind.co.uk fabrikam.de contoso.io mail.univ-lyon.fr stadtwerke.at gmail.com outlook.com".split()  # noqa: SIM905
_STREETS = (
    "Maple Oakwood Elmhurst Cedar Riverside Mill Church Station Victoria Granville Lakeshore Sunset".split()  # noqa: SIM905
)
_CITIES = (
    ("Denver", "CO", "802"),
    ("Austin", "TX", "787"),
    ("Portland", "OR", "972"),
    ("Boston", "MA", "021"),
    ("Tampa", "FL", "336"),
)
_HAN_CITIES = (
    "广东省深圳市南山区",
    "浙江省杭州市西湖区",
    "北京市朝阳区",
    "成都市武侯区",
    "江苏省苏州市工业园区",
    "南京市鼓楼区",
    "山东省青岛市市南区",
    "",
)
_HAN_ROADS = (
    "科苑南路",
    "文三路",
    "建国路",
    "人民南路",
    "星湖街",
    "中山北路",
    "香港中路",
    "解放大道",
    "新华大街",
    "东风巷",
)
_PROVINCES = "110105 310115 440305 330106 510107 320102 370202 420106 610113 120101".split()  # noqa: SIM905
_MOBILE = "130 131 133 135 136 137 138 139 150 151 152 155 157 158 159 166 173 176 177 180 181 182 185 186 187 188 189 191 198 199".split()  # noqa: SIM905


def digits(r: random.Random, n: int) -> str:
    return "".join(r.choice("0123456789") for _ in range(n))


def letters(r: random.Random, n: int, of: str = "abcdefghijklmnopqrstuvwxyz") -> str:
    return "".join(r.choice(of) for _ in range(n))


def one(r: random.Random, *forms: str) -> str:
    return r.choice(forms)


def email(r: random.Random) -> str:
    given, family = r.choice(_EN_GIVEN).lower(), r.choice(_EN_FAMILY)
    return (
        one(
            r,
            f"{given}.{family.lower()}",
            f"{given[0]}{family}",
            f"{given}_{digits(r, 2)}",
            f"{given}+news",
            digits(r, 9),
        )
        + "@"
        + r.choice(_HOSTS)
    )


def email_zh(r: random.Random) -> str:
    local = one(r, digits(r, 9), f"{letters(r, 6)}{digits(r, 3)}", f"{letters(r, 4)}_{letters(r, 3)}")
    return local + r.choice("@@@＠") + r.choice(("qq.com", "163.com", "126.com", "sina.com.cn", "pku.edu.cn"))


def phone_us(r: random.Random) -> str:
    a, e, s = (
        f"{r.randint(2, 9)}0{r.randint(2, 9)}",
        f"{r.randint(2, 9)}{digits(r, 1)}{r.randint(2, 9)}",
        digits(r, 4),
    )
    return one(r, f"({a}) {e}-{s}", f"{a}-{e}-{s}", f"{a}.{e}.{s}", f"+1 {a} {e} {s}", f"1-{a}-{e}-{s}", f"+1{a}{e}{s}",
               f"{a}-{e}-{s} ext. {digits(r, 3)}", f"({a}){e}-{s}")  # fmt: skip


def phone_uk(r: random.Random) -> str:
    m, g = digits(r, 6), digits(r, 7)
    return one(r, f"07{r.randint(4, 9)}{digits(r, 2)} {m}", f"+44 7{r.randint(4, 9)}{digits(r, 2)} {m}", f"020 7{g[:3]} {g[3:]}", f"(020) 7{g[:3]} {g[3:]}",
               f"+44 (0)20 7{g[:3]} {g[3:]}", f"0161 {g[:3]} {g[3:]}", f"01632 {m}", f"07{r.randint(4, 9)}{digits(r, 2)}{m}")  # fmt: skip


def phone_world(r: random.Random) -> str:
    d = digits(r, 12)
    return one(r, f"+49 30 {d[:7]}", f"+33 6 {d[:2]} {d[2:4]} {d[4:6]} {d[6:8]}", f"+81-3-{d[:4]}-{d[4:8]}", f"+91 9{d[:4]} {d[4:9]}", f"+61 4{d[:2]} {d[2:5]} {d[5:8]}",
               f"+34 6{d[:8]}", f"+55 11 9{d[:4]}-{d[4:8]}", f"0{r.randint(1, 5)} {d[:2]} {d[2:4]} {d[4:6]} {d[6:8]}", f"+852 {r.randint(2, 9)}{d[:3]} {d[3:7]}")  # fmt: skip


def mobile_zh(r: random.Random) -> str:
    p, d = r.choice(_MOBILE), digits(r, 8)
    wide = f"{p}{d}".translate({ord("0") + i: ord("０") + i for i in range(10)})
    return one(
        r,
        p + d,
        p + d,
        f"{p}-{d[:4]}-{d[4:]}",
        f"{p} {d[:4]} {d[4:]}",
        f"+86 {p}{d}",
        f"+86-{p}-{d[:4]}-{d[4:]}",
        f"(+86){p}{d}",
        wide,
    )


def landline_zh(r: random.Random) -> str:
    area, local = r.choice(
        (
            ("010", digits(r, 7)),
            ("021", digits(r, 7)),
            ("0755", digits(r, 7)),
            ("0531", digits(r, 7)),
            ("0898", digits(r, 6)),
        )
    )
    local = r.choice("2345678") + local
    return one(
        r,
        f"{area}-{local}",
        f"({area}){local}",
        f"（{area}）{local}",
        f"{area} {local}",
        f"{area}-{local}-{digits(r, 3)}",
        f"{area}-{local}转{digits(r, 4)}",
        f"+86 {area[1:]} {local}",
    )


def card(r: random.Random) -> str:
    start, n = r.choice(
        (
            ("4", 16),
            ("51", 16),
            ("2221", 16),
            ("34", 15),
            ("6011", 16),
            ("62", 19),
            ("622202", 19),
            ("3530", 16),
        )
    )
    made = start + digits(r, n - len(start) - 1)
    made += str(numbers.luhn_check(made))
    fours = " ".join(made[i : i + 4] for i in range(0, n, 4))
    return one(
        r,
        made,
        fours if n != 15 else f"{made[:4]} {made[4:10]} {made[10:]}",
        fours.replace(" ", "-") if n == 16 else made,
    )


def iban(r: random.Random) -> str:
    country, account = r.choice((("DE", digits(r, 18)), ("GB", letters(r, 4, "ABCDEFGHKLMNOP") + digits(r, 14)), ("FR", digits(r, 23)), ("ES", digits(r, 20)),
                                 ("NL", letters(r, 4, "ABCDEFGHIN") + digits(r, 10)), ("NO", digits(r, 11)), ("MT", letters(r, 4, "MALT") + digits(r, 23))))  # fmt: skip
    made = country + numbers.iban_check(country, account) + account
    return one(r, made, " ".join(made[i : i + 4] for i in range(0, len(made), 4)))


def cn_id(r: random.Random) -> str:
    made = (
        r.choice(_PROVINCES)
        + f"{r.randint(1940, 2015)}{r.randint(1, 12):02d}{r.randint(1, 28):02d}"
        + digits(r, 3)
    )
    made += numbers.mod_11_2_check(made)
    return one(r, made, made, made.lower(), f"{made[:6]} {made[6:14]} {made[14:]}")


def ssn(r: random.Random) -> str:
    return (
        f"{r.choice([*range(1, 666), *range(667, 900)]):03d}-{r.randint(1, 99):02d}-{r.randint(1, 9999):04d}"
    )


def nino(r: random.Random) -> str:
    a, d, z = r.choice(("AB", "CE", "JK", "MW", "PX", "SZ")), digits(r, 6), r.choice("ABCD")
    return one(r, f"{a}{d}{z}", f"{a} {d[:2]} {d[2:4]} {d[4:]} {z}")


def tw_id(r: random.Random) -> str:
    made = letters(r, 1, "ABCDEFGHJKLMNPQRSTUVXY") + r.choice("12") + digits(r, 7)
    return made + str(numbers.tw_check(made))


def hk_id(r: random.Random) -> str:
    made = letters(r, 1, "ABCDEFGHKMPRSVYZ") + digits(r, 6)
    return f"{made}({numbers.hk_check(made)})"


def dni(r: random.Random) -> str:
    made = digits(r, 8)
    return one(r, made + numbers.dni_letter(made), f"{made}-{numbers.dni_letter(made)}")


def ip(r: random.Random) -> str:
    return f"{r.choice((3, 8, 13, 18, 23, 34, 52, 66, 77, 81, 91, 104, 118, 142, 185, 212))}.{r.randint(0, 255)}.{r.randint(0, 255)}.{r.randint(1, 254)}"


def ip_6(r: random.Random) -> str:
    groups = [f"{r.randint(1, 0xFFFF):x}" for _ in range(6)]
    return one(
        r,
        f"2a0{r.randint(1, 9)}:{':'.join(groups[:3])}::{groups[3]}",
        f"2001:{0x4000 + r.randint(0, 0xFFF):x}:" + ":".join(groups),
    )


def url_user(r: random.Random) -> str:
    return f"{r.choice(_EN_GIVEN).lower()}:{letters(r, 5)}{digits(r, 3)}{r.choice('!-_%x')}"


def secret(r: random.Random) -> str:
    both = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return one(r, "AKIA" + letters(r, 16, both[:26] + "234567"), "ghp_" + letters(r, 36, both), "sk-" + letters(r, 48, both), "xoxb-" + digits(r, 11) + "-" + letters(r, 24, both),
               "AIza" + letters(r, 35, both), "LTAI" + letters(r, 20, both), "sk_live_" + letters(r, 24, both), "glpat-" + letters(r, 20, both))  # fmt: skip


def address_us(r: random.Random) -> str:
    city, state, zip_3 = r.choice(_CITIES)
    street = f"{r.randint(1, 9999)} {one(r, '', 'N. ', 'West ')}{r.choice(_STREETS)} {one(r, 'Street', 'St', 'Ave', 'Avenue', 'Road', 'Blvd', 'Lane', 'Drive', 'Ct')}"
    return one(
        r,
        street,
        f"{street}, Apt {r.randint(1, 40)}",
        f"{street}, {city}, {state} {zip_3}{digits(r, 2)}",
        f"{street}, Suite {r.randint(100, 900)}, {city}, {state} {zip_3}{digits(r, 2)}",
    )


def address_uk(r: random.Random) -> str:
    street = f"{r.randint(1, 180)} {r.choice(_STREETS)} {one(r, 'Road', 'Street', 'Lane', 'Close', 'Gardens', 'Crescent')}"
    town = one(r, "London SW1A 2AB", "Leeds LS1 4DT", "Bristol BS8 1TH", "Oxford OX1 3QD")
    return one(r, street, f"{street}, {town}", f"Flat {r.randint(1, 20)}, {street}, {town}")


def address_zh(r: random.Random) -> str:
    head = r.choice(_HAN_CITIES) + r.choice(_HAN_ROADS) + f"{r.randint(1, 999)}号"
    return one(r, head, head, f"{head}{r.randint(1, 30)}号楼{r.randint(1, 6)}单元{r.randint(101, 2605)}室", f"{head}{r.choice('ABCD')}座{r.randint(101, 2605)}室",
               f"{head}阳光花园{r.randint(1, 20)}栋{r.randint(101, 2605)}室")  # fmt: skip


def plate(r: random.Random) -> str:
    start = r.choice("京沪粤浙苏川鲁鄂湘闽") + r.choice("ABCDE")
    return one(
        r,
        f"{start}{digits(r, 5)}",
        f"{start}·{r.choice('ABCDFGHJK')}{digits(r, 4)}",
        f"{start}D{digits(r, 5)}",
        f"{start}{digits(r, 2)}{r.choice('ABCDEFGH')}{digits(r, 2)}",
    )


# kind, value, sentences where it stands alone, sentences with a word that announces it
KINDS_EN: dict[str, tuple[str, Make, tuple[str, ...], tuple[str, ...]]] = {
    "email": ("email", email, ("You reach us under {}.", "({}) wrote this."), ("E-mail: {}",)),
    "phone, US": ("phone", phone_us, ("You reach us under {}.", "Our office ({}) is open."), ("Call {} today.", "Phone: {}")),
    "phone, UK": ("phone", phone_uk, ("You reach us under {}.", "Our office ({}) is open."), ("Call {} today.", "Tel: {}")),
    "phone, others": ("phone", phone_world, ("You reach us under {}.", "Our office, {}, is open."), ("Call {} today.", "Fax {}")),
    "bank card": ("bank_card", card, ("It was paid with {}.",), ("Card number: {}", "my visa {} expired")),
    "IBAN": ("iban", iban, ("Please pay to {} now.",), ("IBAN: {}",)),
    "US social security": ("id_number", ssn, ("She wrote {} there.",), ("SSN: {}",)),
    "UK national insurance": ("id_number", nino, ("She wrote {} there.",), ("NI number {}.",)),
    "Spanish DNI": ("id_number", dni, ("She wrote {} there.",), ("DNI: {}",)),
    "IPv4": ("ip", ip, ("The login came {} again.", "{} - - GET /index.html"), ("from IP address {}:",)),
    "IPv6": ("ip", ip_6, ("The login came {} again.",), ("from IP address {}.",)),
    "user in a URL": ("url_user", url_user, ("git clone https://{}@git.acme.test/repo.git",), ("postgres://{}@db.acme.test:5432/x",)),
    "key": ("secret", secret, ("export X={}\n", '"{}",'), ("api_key: {}",)),
    "address, US": ("address", address_us, ("They moved to {}.", "{} is for sale."), ("Address: {}\n",)),
    "address, UK": ("address", address_uk, ("They moved to {}.", "{} is for sale."), ("Address: {}\n",)),
}  # fmt: skip
KINDS_ZH: dict[str, tuple[str, Make, tuple[str, ...], tuple[str, ...]]] = {
    "email": ("email", email_zh, ("请发到{}即可。",), ("邮箱：{}，",)),
    "mobile": ("phone", mobile_zh, ("有事找我{}。", "王先生（{}）"), ("手机：{}，", "电话{}。")),
    "landline": ("phone", landline_zh, ("有事找我{}。", "王先生 {} "), ("电话：{}，", "传真{}。")),
    "bank card": ("bank_card", card, ("请转到{}这里。",), ("银行卡号：{}，",)),
    "resident's ID": ("id_number", cn_id, ("张三，{}，男。",), ("身份证号码：{}，",)),
    "Taiwan ID": ("id_number", tw_id, ("王小明，{}，男。",), ("身分證字號：{}。",)),
    "Hong Kong ID": ("id_number", hk_id, ("陳大文，{}，男。",), ("香港身份證號碼{}。",)),
    "plate": ("plate", plate, ("一辆{}停在门口。",), ("车牌号：{}。",)),
    "address": ("address", address_zh, ("他住在{}。", "公司位于{}，很近。", "包裹寄往{}，请查收。"), ("地址：{}。",)),
    "QQ": ("account", lambda r: str(r.randint(10**5, 10**10 - 1)), ("加QQ{}聊。",), ("QQ号：{}，", "QQ: {}")),
    "WeChat": ("account", lambda r: letters(r, 1) + letters(r, 5) + one(r, "_", "-", "") + digits(r, 3), ("微信号：{}。",), ("微信：{}，",)),
    "passport": ("passport", lambda r: r.choice(("E", "G", "EA")) + digits(r, 7) + digits(r, 1), ("护照号{}，",), ("护照号码：{}。",)),
}  # fmt: skip
DECOYS: dict[str, Make] = {
    "card, wrong check digit": lambda r: broken(r, card),
    "IBAN, wrong digit": lambda r: broken(r, iban),
    "resident's ID, wrong digit": lambda r: broken(r, cn_id),
    "ISBN": lambda r: one(r, f"978-7-{digits(r, 3)}-{digits(r, 5)}-{digits(r, 1)}", f"0-{digits(r, 3)}-{digits(r, 5)}-{digits(r, 1)}", f"978{digits(r, 10)}"),
    "order number": lambda r: one(r, f"{digits(r, 4)}-{digits(r, 6)}", f"PO{digits(r, 8)}", f"2023{digits(r, 12)}", f"#{digits(r, 7)}", digits(r, 8), digits(r, 9)),
    "time": lambda r: one(r, f"2019-{r.randint(10, 12)}-{r.randint(10, 28)} {r.randint(10, 23)}:{r.randint(10, 59)}:{r.randint(10, 59)}", str(r.randint(10**9, 2 * 10**9)), str(r.randint(10**12, 2 * 10**12)), "1998-2003"),
    "amount": lambda r: one(r, f"{r.randint(1, 999)},{digits(r, 3)},{digits(r, 3)}", f"${digits(r, 3)}.{digits(r, 2)}", f"{r.random():.12f}", f"{r.randint(10**6, 10**9)} bytes", f"{r.randint(10**10, 10**11)}元"),
    "version": lambda r: one(r, f"version {r.randint(1, 90)}.{r.randint(0, 99)}.{r.randint(0, 99)}.{r.randint(0, 99)}", f"v{r.randint(1, 9)}.{r.randint(0, 9)}.{r.randint(0, 9)}.{r.randint(0, 9)}"),
    "hash": lambda r: letters(r, r.choice((8, 32, 40, 64)), "0123456789abcdef"),
    "11 digits": lambda r: digits(r, 11),
    "13 to 19 digits": lambda r: digits(r, r.randint(13, 19)),
}  # fmt: skip


def broken(r: random.Random, make: Make) -> str:
    """A value with one digit that is another."""
    value = make(r)
    places = [i for i, c in enumerate(value) if c.isdigit() and i > 6]
    place = r.choice(places)
    return value[:place] + str((int(value[place]) + r.randint(1, 9)) % 10) + value[place + 1 :]


def planted(data: Path) -> Iterator[dict[str, Any]]:
    english, chinese = (
        [text for text in texts_of(data, name) if len(text) > 400] for name in ("en web (C4)", "zh technical")
    )
    for language, texts, kinds in (("en", english, KINDS_EN), ("zh", chinese, KINDS_ZH)):
        for label, (kind, make, alone, announced) in kinds.items():
            r = random.Random(f"{language} {label}")
            found: Counter[str] = Counter()
            for n in range(PLANTED):
                value = make(r)
                carrier = r.choice(announced if n % 2 else alone)
                outcome = plant(r, r.choice(texts), carrier, value, kind)
                found.update(outcome)
                found["alone"] += n % 2 == 0 and outcome["whole"]
            yield {
                "language": language, "kind": label, "planted": PLANTED, "recall": round(found["whole"] / PLANTED, 3),
                "recall_without_a_word": round(found["alone"] / (PLANTED / 2), 3), "exactly": round(found["exact"] / PLANTED, 3),
                "as_another_kind": found["other"], "new_elsewhere": found["new"],
            }  # fmt: skip
    for label, make in DECOYS.items():
        r = random.Random(label)
        found = Counter()
        for n in range(PLANTED):
            texts = chinese if n % 2 else english
            value = make(r)
            carrier = (
                one(r, "{} ", "It is {} there. ", "no. {}, ")
                if texts is english
                else one(r, "编号{}，", "这是{}。", "{} ")
            )
            found.update(plant(r, r.choice(texts), carrier, value, ""))
        yield {
            "language": "both", "kind": f"decoy: {label}", "planted": PLANTED, "recall": None, "recall_without_a_word": None,
            "exactly": None, "as_another_kind": found["other"], "new_elsewhere": found["new"],
        }  # fmt: skip
    yield from from_faker(english, chinese)
    yield from from_phonenumbers(english)


def plant(r: random.Random, text: str, carrier: str, value: str, kind: str) -> Counter[str]:
    """Puts a value between two sentences and counts: found whole, exactly, as something else, and what is new elsewhere."""
    borders = [match.end() for match in re.finditer(r"[.!?]\s|[。！？\n]", text)] or [len(text)]
    place = r.choice(borders)
    window = max(0, place - 1500), min(len(text), place + 1500)
    before, after = text[window[0] : place], text[place : window[1]]
    start = len(before) + carrier.index("{}")
    end = start + len(value)
    known = {before[span.start : span.end] for span in find_spans(before)} | {
        after[span.start : span.end] for span in find_spans(after)
    }
    made = before + carrier.format(value) + ("\n" if carrier.endswith("}") else " ") + after
    counts: Counter[str] = Counter()
    for span in find_spans(made):
        if span.start < end and span.end > start:
            if span.kind == kind and span.start <= start and span.end >= end:
                counts["whole"] += 1
                counts["exact"] += (span.start, span.end) == (start, end)
            else:
                counts["other"] += span.kind != kind
        elif made[span.start : span.end] not in known:
            counts["new"] += 1
    return counts


def from_faker(english: list[str], chinese: list[str]) -> Iterator[dict[str, Any]]:
    """The same with the values of Faker, a library that makes test data."""
    try:
        import faker
    except ImportError:
        print("Faker is not installed: its values are left out")
        return
    for locale, texts, carrier, kinds in (
        ("en_US", english, "It is {} there.", {"email": "email", "phone_number": "phone", "ssn": "id_number", "credit_card_number": "bank_card", "iban": "iban", "address": "address", "ipv4_public": "ip"}),
        # its British insurance numbers are of a form that is never given out
        ("en_GB", english, "It is {} there.", {"phone_number": "phone", "address": "address"}),
        ("fr_FR", english, "It is {} there.", {"phone_number": "phone", "iban": "iban"}),
        ("de_DE", english, "It is {} there.", {"phone_number": "phone"}),
        ("zh_CN", chinese, "这是{}。", {"email": "email", "phone_number": "phone", "ssn": "id_number", "address": "address"}),
    ):  # fmt: skip
        faker.Faker.seed(1)
        source, r = faker.Faker(locale), random.Random(locale)
        for name, kind in kinds.items():
            found: Counter[str] = Counter()
            for _ in range(PLANTED):
                found.update(plant(r, r.choice(texts), carrier, str(getattr(source, name)()), kind))
            yield {
                "language": locale, "kind": f"Faker: {name}", "planted": PLANTED, "recall": round(found["whole"] / PLANTED, 3),
                "recall_without_a_word": None, "exactly": round(found["exact"] / PLANTED, 3), "as_another_kind": found["other"],
                "new_elsewhere": found["new"],
            }  # fmt: skip


def from_phonenumbers(texts: list[str]) -> Iterator[dict[str, Any]]:
    """The example numbers of some 245 countries and territories, in the forms of a library that knows all plans."""
    try:
        import phonenumbers
    except ImportError:
        print("phonenumbers is not installed: its numbers are left out")
        return
    r = random.Random("phonenumbers")
    for form in ("INTERNATIONAL", "E164", "NATIONAL"):
        for label, carrier in (("alone", "You reach us under {}."), ("behind a word", "Phone: {}")):
            found: Counter[str] = Counter()
            for region in sorted(phonenumbers.SUPPORTED_REGIONS):
                for of_type in (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE):
                    number = phonenumbers.example_number_for_type(region, of_type)
                    if number is not None:
                        value = phonenumbers.format_number(
                            number, getattr(phonenumbers.PhoneNumberFormat, form)
                        )
                        found["planted"] += 1
                        found.update(plant(r, r.choice(texts), carrier, value, "phone"))
            yield {
                "language": "all", "kind": f"phonenumbers: {form.lower()}, {label}", "planted": found["planted"],
                "recall": round(found["whole"] / found["planted"], 3), "recall_without_a_word": None,
                "exactly": round(found["exact"] / found["planted"], 3), "as_another_kind": found["other"],
                "new_elsewhere": found["new"],
            }  # fmt: skip


# --- en_pii_enterprise ----------------------------------------------------------------------------------------------


def enterprise(data: Path) -> Iterator[dict[str, Any]]:
    """Passages of made-up company documents; "yes" is on reviews of employees and notes about customers' accounts.

    The gold is about the document, not about anything in it: of 50 passages of the test set with "yes" that were read,
    45 had a person's name, none had anything else of KINDS, and 5 had neither. What is counted is whether a passage has
    any find.
    """
    from gristmill.corpus.private_fakes import MEN, WOMEN

    for split in ("train", "test"):
        with pyarrow.input_stream(
            str(data / "en_pii_enterprise" / f"{split}.jsonl.gz"), compression="detect"
        ) as stream:
            rows = [json.loads(line) for line in stream.read().splitlines()]
        texts = [row["query"].split("'''\n", 1)[1].rsplit("\n'''", 1)[0] for row in rows]
        gold = np.array([row["gold"] for row in rows], dtype=bool)
        for label, taggers in (
            ("rules", ()),
            ("rules, and a list of 96 common given names", (Names([*WOMEN, *MEN]),)),
        ):
            found = spans_of_buffer(*packed(texts), taggers=taggers)
            has = np.isin(np.arange(len(texts)), found.documents)
            yield {
                "split": split, "with": label, "passages": len(texts), "gold_yes": int(gold.sum()),
                "precision": round(float((gold & has).sum() / max(1, has.sum())), 3),
                "recall": round(float((gold & has).sum() / gold.sum()), 3),
                "finds": dict(Counter(list(KINDS)[kind] for kind in found.kinds)),
            }  # fmt: skip


if __name__ == "__main__":
    main()
