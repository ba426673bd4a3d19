import gzip
import io
import zlib

import hypothesis
import hypothesis.strategies as st
import pytest

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.formats import archive
from gristmill.corpus.formats.common import Broken, Record

pytest.importorskip("trafilatura")

ENGLISH = (
    "Attila, frequently referred to as Attila the Hun, was the ruler of the Huns from 434 until his death in March 453. "
    "Attila was a leader of the Hunnic Empire, which stretched from the Ural River to the Rhine River and from the Danube "
    "River to the Baltic Sea. During his reign, he was one of the most feared enemies of the Roman Empires."
)
LAW = "为了保护民事主体的合法权益，调整民事关系，维护社会和经济秩序，适应中国特色社会主义发展要求，弘扬社会主义核心价值观，根据宪法，制定本法。"


def page(text: str) -> str:
    return f"<html><head><title>T</title></head><body><p>{text}</p><p>{text}</p></body></html>"


def warc(body: bytes, kind: str = "response", url: str = "http://a.org/x", **fields: str) -> bytes:
    names = {"WARC-Type": kind, "WARC-Target-URI": url, "WARC-Date": "2021-02-03T04:05:06Z"}
    names |= {"Content-Length": str(len(body))} | {
        key.replace("_", "-"): value for key, value in fields.items()
    }
    names.setdefault(
        "Content-Type", "application/http; msgtype=response" if kind == "response" else "text/plain"
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + body + b"\r\n\r\n"


def http(body: bytes, status: str = "200 OK", **fields: str) -> bytes:
    fields.setdefault("Content_Type", "text/html")
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def read(data: bytes) -> list[Record | Broken]:
    return list(archive.pages(io.BytesIO(data)))


INFO = warc(b"software: x\r\n", "warcinfo", Content_Type="application/warc-fields")


def test_a_page_is_named_by_its_bytes_in_the_archive() -> None:
    one, two = warc(http(page(ENGLISH).encode())), warc(http(page(LAW).encode()), url="<http://b.cn/>")
    data = INFO + one + warc(b"GET / HTTP/1.1\r\n\r\n", "request") + two
    first, second = read(data)
    assert first == Record(
        f"{ENGLISH}\n{ENGLISH}\n",
        len(INFO),
        len(INFO) + len(one) - 4,
        {"url": "http://a.org/x", "date": "2021-02-03T04:05:06Z", "title": "T"},
    )
    assert isinstance(second, Record)
    assert second.metadata["url"] == "http://b.cn/"
    assert data[second.start : second.end] == two[:-4]


def chunked(body: bytes) -> bytes:
    pieces = [body[place : place + 100] for place in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (page(ENGLISH).encode(), {}),
        (chunked(page(ENGLISH).encode()), {"Transfer_Encoding": "chunked"}),
        (page(ENGLISH).encode(), {"Transfer_Encoding": "chunked"}),
        (gzip.compress(page(ENGLISH).encode()), {"Content_Encoding": "gzip"}),
        (page(ENGLISH).encode(), {"Content_Encoding": "gzip"}),
        (zlib.compress(page(ENGLISH).encode()), {"Content_Encoding": "deflate"}),
        (raw_deflate(page(ENGLISH).encode()), {"Content_Encoding": "deflate"}),
        (
            chunked(gzip.compress(page(ENGLISH).encode())),
            {"Transfer_Encoding": "chunked", "Content_Encoding": "gzip"},
        ),
        (page(ENGLISH).encode(), {"Content_Encoding": "br"}),
        (page(ENGLISH).encode(), {"Content_Type": ""}),
        (page(ENGLISH).encode(), {"Content_Type": 'Text/HTML; charset="utf-8"'}),
        (page(ENGLISH).encode("utf-16"), {"Content_Type": "text/html; charset=utf-16"}),
    ],
)
def test_however_a_page_was_sent(body: bytes, fields: dict[str, str]) -> None:
    (record,) = read(warc(http(body, **fields)))
    assert isinstance(record, Record)
    assert record.text == f"{ENGLISH}\n{ENGLISH}\n"


def test_the_charset_of_the_http_header_counts() -> None:
    text = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 3
    body = page(text.strip()).encode("koi8-r")
    (record,) = read(warc(http(body, Content_Type="text/html; charset=koi8-r")))
    assert isinstance(record, Record)
    assert record.text.split("\n")[0] == text.strip()
    (item,) = read(warc(http(body)))
    assert isinstance(item, Broken)
    assert (item.reason, "encoding is none of" in item.message) == ("unreadable page", True)


def test_texts_of_common_crawl_and_plain_resources() -> None:
    items = read(
        warc(ENGLISH.encode(), "conversion")
        + warc(LAW.encode("gb18030"), "resource", Content_Type="text/plain; charset=gbk")
        + warc(page(LAW).encode(), "resource", Content_Type="text/html")
        + warc(http(LAW.encode(), Content_Type="text/plain"))
    )
    assert [item.text for item in items if isinstance(item, Record)] == [ENGLISH, LAW, f"{LAW}\n{LAW}\n", LAW]


def test_what_is_no_text_is_counted_and_no_problem() -> None:
    items = read(
        warc(http(b"\x89PNG", Content_Type="image/png"))
        + warc(http(page(ENGLISH).encode(), "404 Not Found"))
        + warc(http(b"<html><body><a href=/>Home</a></body></html>"))
        + warc(b"", "revisit")
    )
    assert [item.reason for item in items if isinstance(item, Broken)] == ["no text"] * 3
    assert [item.message.split(": ")[1] for item in items if isinstance(item, Broken)] == [
        "image/png",
        "HTTP status 404",
        "the page has no main text (a login page, a menu, a script?)",
    ]


def test_damage_loses_what_is_damaged() -> None:
    good = warc(http(page(ENGLISH).encode()))
    lying = good.replace(b"Content-Length: ", b"Content-Length: 1", 1)
    assert [type(item) for item in read(good + b"garbage\r\n" * 5 + good)] == [Record, Broken, Record]
    gap = read(good + b"garbage\r\n" * 5 + good)[1]
    assert (gap.start, gap.end) == (len(good), len(good) + 45)
    no_length = good.replace(b"Content-Length", b"Content-Lenght", 1)
    assert [type(item) for item in read(no_length + good)] == [Broken, Broken, Record]
    short = good.replace(b"Content-Length: ", b"Content-Length: 0", 1).replace(str(len(good)).encode(), b"10")
    assert isinstance(read(short + good)[-1], Record)
    with pytest.raises(EOFError, match="middle of a record"):
        read(good + lying)
    with pytest.raises(EOFError, match="middle of a record"):
        read(good[:-20])
    with pytest.raises(UnreadableError, match="no web archive"):
        read(b"plain text\n" * 100)
    assert read(b"") == []


def test_a_page_that_expands_enormously_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAXIMUM_MESSAGE_BYTES", 1 << 20)
    (bomb,) = read(warc(http(gzip.compress(bytes(8 << 20)), Content_Encoding="gzip")))
    assert isinstance(bomb, Broken)
    assert "expands to more than" in bomb.message
    (large,) = read(warc(http(bytes(2 << 20))))
    assert (large.reason, large.start) == ("too large", 0)  # type: ignore[union-attr]


@hypothesis.given(
    st.lists(
        st.sampled_from([
            b"WARC/1.0\r\n", b"WARC-Type: response\r\n", b"Content-Length: 40\r\n", b"Content-Length: 99999\r\n", b"\r\n", b"\xff\0",
            b"Content-Type: application/http\r\n", b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\n", b"<html>",
        ])
    )
)  # fmt: skip
def test_any_bytes_give_records_or_a_reason(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    try:
        items = read(data)
    except (UnreadableError, EOFError):
        return
    assert all(0 <= item.start <= item.end <= len(data) for item in items)
