from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.formats import html
from gristmill.corpus.formats.common import Broken, Record

pytest.importorskip("trafilatura")

# The beginning of the Civil Code of China, and of a poem by Lu Zhaolin.
LAW = (
    "为了保护民事主体的合法权益，调整民事关系，维护社会和经济秩序，适应中国特色社会主义发展要求，弘扬社会主义核心价值观，根据宪法，制定本法。"
    "民法调整平等主体的自然人、法人和非法人组织之间的人身关系和财产关系。"
)
POEM = "白玉誰家郎，回車渡天津。看花東上陌，驚動洛陽人。秦川雄帝宅，函谷壯皇居。綺殿千尋起，離宮百雉餘。連薨遙接漢，飛觀迥凌虛。雲日隱層闕，風煙出綺疏。"
ENGLISH = (
    "Attila, frequently referred to as Attila the Hun, was the ruler of the Huns from 434 until his death in March 453. "
    "Attila was a leader of the Hunnic Empire, which stretched from the Ural River to the Rhine River and from the Danube "
    "River to the Baltic Sea. During his reign, he was one of the most feared enemies of the Roman Empires."
)


def page(text: str, charset: str | None = None, title: str = "Title") -> str:
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">' if charset else ""
    return (
        f"<!DOCTYPE html><html><head>{meta}<title>{title}</title></head><body>"
        '<div id="nav"><ul><li><a href="/">Start</a></li><li><a href="/login">Log in</a></li></ul></div>'
        f'<div class="content"><h1>{title}</h1><p>{text}</p><p>{text[: len(text) // 2]}</p></div>'
        '<div id="footer"><a href="/imprint">Imprint</a></div></body></html>'
    )


def read(data: bytes, declared: str | None = None) -> Record | Broken:
    return html.document(data, html.encoding_of(data, declared))


@pytest.mark.parametrize(
    ("text", "codec", "says", "found"),
    [
        (LAW, "gb18030", "gb2312", "gb18030"),
        (LAW, "gb18030", None, "gb18030"),
        (LAW, "gb18030", "utf-8", "gb18030"),
        (LAW, "gb18030", "big5", "gb18030"),
        (LAW, "gb18030", "iso-8859-1", "gb18030"),
        (LAW, "gb18030", "windows-1251", "gb18030"),
        (LAW, "gb18030", "no-such-charset", "gb18030"),
        (LAW, "utf-8", "gbk", "utf-8"),
        (LAW, "utf-8", "iso-8859-1", "utf-8"),
        (POEM, "big5", "big5", "cp950"),
        (POEM, "big5", "gb2312", "big5"),
        (POEM, "big5", None, "big5"),
        (POEM, "utf-16", "utf-8", "utf-16-le"),
        ("Ça déjà vu à la crème brûlée, où l’été " * 5, "cp1252", "iso-8859-1", "cp1252"),
        ("Съешь же ещё этих мягких французских булок " * 5, "cp1251", "windows-1251", "cp1251"),
        (
            "いろはにほへと ちりぬるを わかよたれそ 色は匂へど散りぬるを" * 5,
            "shift_jis",
            "Shift_JIS",
            "cp932",
        ),
        ("いろはにほへと ちりぬるを わかよたれそ 色は匂へど散りぬるを" * 5, "euc-jp", "euc-jp", "euc_jp"),
        (
            "いろはにほへと ちりぬるを わかよたれそ 色は匂へど散りぬるを" * 5,
            "iso2022_jp",
            "iso-2022-jp",
            "iso2022_jp",
        ),
        ("키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다 " * 5, "cp949", "euc-kr", "cp949"),
    ],
)
def test_a_page_is_decoded_as_what_it_is(text: str, codec: str, says: str | None, found: str) -> None:
    data = page(text, says).encode(codec)
    assert html.encoding_of(data).name == found
    record = read(data)
    assert isinstance(record, Record)
    assert text.strip() in record.text


def test_the_http_header_is_asked_first_and_believed_no_more_than_the_page() -> None:
    data = page("Съешь же ещё этих мягких французских булок " * 5).encode("koi8-r")
    assert html.encoding_of(data, "koi8-r").name == "koi8-r"
    assert html.encoding_of(page(LAW).encode("gb18030"), "utf-8").name == "gb18030"
    with pytest.raises(UnreadableError, match="encoding is none of"):  # nothing says what it is: no guess
        html.encoding_of(data)


def test_a_broken_character_does_not_lose_the_page() -> None:
    data = page(LAW).encode().replace("民法".encode(), "民法".encode()[:-1], 1)
    encoding = html.encoding_of(data)
    assert (encoding.name, encoding.evidence[-7:]) == ("utf-8", "FFFD: 1")
    record = html.document(data, encoding)
    assert isinstance(record, Record)
    assert "\ufffd" in record.text
    data = page(LAW, "gb2312").encode("gb18030").replace("合法".encode("gb18030"), b"\xff\xff", 1)
    assert html.encoding_of(data).name == "gb18030"


@pytest.mark.parametrize(
    "charset", ["utf-7", "idna", "unicode_escape", "base64", "rot13", "undefined", "zip"]
)
def test_a_page_can_not_ask_for_a_codec_that_is_none(charset: str) -> None:
    assert html.encoding_of(page(LAW, charset).encode()).name == "utf-8"
    assert html.encoding_of(page(LAW, charset).encode("gb18030")).name == "gb18030"


@pytest.mark.parametrize("text", [ENGLISH, LAW, POEM])
def test_the_main_text_is_kept_and_the_menu_is_not(text: str) -> None:
    record = read(page(text).encode())
    assert isinstance(record, Record)
    assert record.text.startswith(f"Title\n{text}\n")
    assert "Log in" not in record.text
    assert "Imprint" not in record.text
    assert record.start == 0
    assert record.end == len(page(text).encode())


def test_what_a_page_says_of_itself() -> None:
    head = '<meta property="article:published_time" content="2019-03-04T05:06:07Z"><link rel="canonical" href="https://a.org/b">'
    licence = '<p>Under <a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a></p></body>'
    source = page(ENGLISH, title="The Hun").replace("</title>", f"</title>{head}").replace("</body>", licence)
    record = read(source.encode())
    assert isinstance(record, Record)
    assert record.metadata == {
        "title": "The Hun",
        "url": "https://a.org/b",
        "date": "2019-03-04",
        "license": "CC BY 4.0",
    }


LOGIN = (
    "<html><body><form><h1>Sign in</h1><label>User name</label><input name=u><label>Password</label><input type=password>"
    '<button>Log in</button></form><a href="/forgot">Forgot password?</a><p>© 2024 Example Inc., all rights reserved.</p></body></html>'
)


@pytest.mark.parametrize(
    "source",
    [
        LOGIN,
        "",
        "   \n",
        "<html></html>",
        "<html><body><script>var a = 'text, in a script.';</script></body></html>",
        "<!--" * 1000,
    ],
)
def test_a_page_without_a_text_says_so(source: str) -> None:
    item = read(source.encode())
    assert isinstance(item, Broken)
    assert item.reason == "no text"
    assert "no main text" in item.message


def test_lines_break_where_the_page_breaks_them() -> None:
    body = f"<p>{ENGLISH.replace(', ', ',' + chr(10) + '   ')}</p><pre>def f():\n    return 1\n</pre><p>{LAW.replace('，', '，' + chr(10), 2)}</p><p>a<br>b</p>"
    record = read(f"<html><body><article>{body}</article></body></html>".encode())
    assert isinstance(record, Record)
    assert record.text == f"{ENGLISH}\ndef f():\n    return 1\n{LAW}\na\nb\n"


def test_short_texts_are_texts() -> None:
    for text in (
        "The shop is closed on Monday, the third of May.",
        "本店五月三日星期一休息，星期二照常营业。",
    ):
        item = read(f"<html><body><h1>x</h1><div>{text}</div></body></html>".encode())
        assert isinstance(item, Record)
        assert text in item.text


def test_a_fragment_is_a_page() -> None:
    item = read(f"<p>{ENGLISH}</p>".encode())
    assert isinstance(item, Record)
    assert item.text.strip() == ENGLISH


@pytest.mark.parametrize("tag", ["div", "b", "ul><li", "table><tr><td", "blockquote", "span", "font"])
def test_deep_nesting_is_survived(tag: str) -> None:
    item = read(f"<html><body><p>{ENGLISH}</p>{f'<{tag}>' * 20_000}{ENGLISH}</body></html>".encode())
    assert isinstance(item, Broken | Record)


def test_a_page_of_nothing_but_tags_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MAXIMUM_TAGS", 1000)
    item = read(b"<i>a</i>" * 501)
    assert isinstance(item, Broken)
    assert (item.reason, item.message) == ("too large", "a page of 1,002 tags")


def test_an_xhtml_page_with_entities_expands_none() -> None:
    bomb = '<!DOCTYPE html [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'
    source = (
        '<?xml version="1.0" encoding="utf-8"?>'
        + bomb
        + page(ENGLISH + " &b; &c;").removeprefix("<!DOCTYPE html>")
    )
    item = read(source.encode())
    assert isinstance(item, Record)
    assert "aaaa" not in item.text
    assert "root:" not in item.text


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    st.lists(
        st.sampled_from(
            [
                b"<p>",
                b"<div",
                b">",
                b"</",
                b"&",
                b"\0",
                b"\x1b$B",
                b"~{",
                "中".encode("gb18030"),
                b"\xff",
                b"a, b ",
            ]
        )
    )
)
def test_any_bytes_give_a_text_or_a_reason(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    try:
        item = read(data)
    except UnreadableError:
        return
    assert isinstance(item, Broken | Record)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "codec", "says"),
    [
        ("text.gb18030.txt", "gb18030", "big5"),
        ("text.big5.txt", "big5", "gb2312"),
        ("text.big5.txt", "big5", "big5"),
    ],
)
def test_real_texts_in_pages(name: str, codec: str, says: str, shared_data: Path) -> None:
    text = (shared_data / "raw_formats" / name).read_bytes().decode(codec)
    lines = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    source = f"<html><head><meta charset={says}></head><body><article>{lines}</article></body></html>"
    record = read(source.encode(codec))
    assert isinstance(record, Record)
    assert "".join(record.text.split()) == "".join(text.split())


@pytest.mark.shared_data
def test_a_real_page(shared_data: Path) -> None:
    record = read((shared_data / "raw_formats/page.html").read_bytes())
    assert isinstance(record, Record)
    assert record.metadata["title"] == "The Stanford Question Answering Dataset"
    assert record.text.startswith("The Amazon rainforest (Portuguese: Floresta Amazônica or Amazônia;")
