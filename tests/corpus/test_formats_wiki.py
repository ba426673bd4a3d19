import io

import hypothesis
import hypothesis.strategies as st
import pytest

from gristmill.corpus.decode import Encoding, UnreadableError
from gristmill.corpus.formats import wiki
from gristmill.corpus.formats.common import Broken, Record
from gristmill.corpus.formats.wikitext import plain_text

UTF8 = Encoding("utf-8", 0, "ASCII")
HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">'
    "<siteinfo><sitename>Wikipedia</sitename><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>"
)


def dump_page(title: str, text: str, space: int = 0, extra: str = "", model: str = "wikitext") -> str:
    return (
        f"<page><title>{title}</title><ns>{space}</ns><id>7</id>{extra}<revision><id>99</id><timestamp>2020-01-02T03:04:05Z"
        f"</timestamp><contributor><username>A</username><id>5</id></contributor><model>{model}</model>"
        f'<text bytes="9" xml:space="preserve">{text}</text></revision></page>'
    )


def read(data: str | bytes) -> list[Record | Broken]:
    return list(wiki.pages(io.BytesIO(data.encode() if isinstance(data, str) else data)))


def test_the_articles_of_a_dump_and_nothing_else() -> None:
    attila = dump_page(
        "Attila the Hun", "'''Attila''' was the ruler of the [[Huns]].&lt;ref&gt;X&lt;/ref&gt;"
    )
    data = (
        HEAD
        + attila
        + dump_page("Talk:Attila", "I disagree.", 1)
        + dump_page("Attilla", "#REDIRECT [[Attila]]", extra='<redirect title="Attila" />')
        + dump_page("Common.js", "var a = 1;", model="javascript")
        + dump_page("Empty", "{{Infobox}}")
        + "</mediawiki>"
    )
    first, empty, passed = read(data)
    assert first == Record(
        "Attila the Hun\n\nAttila was the ruler of the Huns.\n",
        len(HEAD),
        len(HEAD) + len(attila),
        {
            "title": "Attila the Hun",
            "page": "7",
            "date": "2020-01-02T03:04:05Z",
            "url": "https://en.wikipedia.org/wiki/Attila_the_Hun",
        },
    )
    assert isinstance(empty, Broken)
    assert isinstance(passed, Broken)
    assert (empty.reason, empty.message, passed.reason) == (
        "no text",
        "Empty: no text beside templates",
        "no text",
    )
    assert passed.message == (
        "pages that are no articles: 1 of another content model, 1 of another namespace, 1 redirects"
    )


def test_of_a_history_the_last_revision_counts() -> None:
    older = "<revision><id>1</id><timestamp>2001-01-01T00:00:00Z</timestamp><text>Old.</text></revision>"
    (record,) = read(HEAD + dump_page("A", "New text.", extra=older) + "</mediawiki>")
    assert isinstance(record, Record)
    assert (record.text, record.metadata["date"]) == ("A\n\nNew text.\n", "2020-01-02T03:04:05Z")


def test_places_are_bytes_where_characters_are_not() -> None:
    one, two = dump_page("匈奴", "匈奴是古代游牧民族。"), dump_page("秦", "秦朝是中国历史上的朝代。")
    data = (HEAD + one + "\n" + two + "</mediawiki>").encode()
    assert [data[item.start : item.end].decode() for item in read(data)] == [one, two]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("<rss><channel/></rss>", "XML of another kind .<rss>.*dump of MediaWiki"),
        ("<html xmlns='http://www.w3.org/1999/xhtml'/>", "XML of another kind"),
        ("no xml", "not well-formed"),
        ("", "breaks off|not well-formed"),
        ("<a>" * 2000, "XML of another kind|deep"),
        (HEAD + "<a>" * 2000, "1000 elements deep"),
        (HEAD + "<page><title>A</title>", "breaks off"),
        (f"{HEAD}<page a='{'x' * (5 << 20)}", "a tag of more than 4 MiB"),
        (
            '<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + HEAD + "&b;</mediawiki>",
            "declares entities",
        ),
        (
            '<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + HEAD + "&x;</mediawiki>",
            "declares entities",
        ),
        ('<?xml version="1.0" encoding="gb18030"?>' + HEAD + "</mediawiki>", "not well-formed"),
    ],
)
def test_other_and_broken_xml_is_refused_with_a_reason(data: str, match: str) -> None:
    with pytest.raises(UnreadableError, match=match):
        read(data)


def test_what_came_before_the_break_is_kept() -> None:
    seen: list[Record | Broken] = []
    with pytest.raises(UnreadableError, match="breaks off"):
        seen.extend(wiki.pages(io.BytesIO((HEAD + dump_page("A", "Text.") + "<page>").encode())))
    seen = []
    items = wiki.pages(io.BytesIO((HEAD + dump_page("A", "Text.") + "<page>").encode()))
    assert isinstance(next(items), Record)
    with pytest.raises(UnreadableError):
        next(items)


def test_an_enormous_page_costs_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiki, "MAXIMUM_CHARACTERS", 100_000)
    large, small = read(
        HEAD + dump_page("L", "long text " * 100_000) + dump_page("S", "Short text.") + "</mediawiki>"
    )
    assert (large.reason, isinstance(small, Record)) == ("too large", True)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Attila''' and ''the'' '''''Huns'''''", "Attila and the Huns"),
        (
            "[[Huns]], [[Rome|the city]], [[Rome (city)|]], [[Hun]]s, [[Rome#History]]",
            "Huns, the city, Rome, Huns, Rome",
        ),
        ("a[[File:A.jpg|thumb|A [[b]] and [[c|d]]]] b[[Category:C]] [[:Category:D]]", "a b Category:D"),
        ("[[de:Attila]]x [[Re:Zero]] [[文件:甲.jpg|缩略图|说明]]乙", "x Re:Zero 乙"),
        ("a<ref>{{cite|b}}</ref> c<ref name=x/>, d<ref name=y>e", "a c, de"),
        ("a {{template|{{nested|x}}\n|y=[[z|w]]}} b", "a b"),
        ("{{lang|la|ave}}, {{nowrap|5 km}}, {{convert|10|mi|km}}, 1{{snd}}2", "ave, 5 km, 10 mi, 1 – 2"),
        ("A ({{IPA|x}}; {{lang-fr|Attila}}) b", "A (Attila) b"),
        ("{{quote|I came.|Caesar}} {{abbr|c.|circa}}", "I came. c."),
        ("甲（{{lang|en|}}，{{bd|1}}）乙", "甲乙"),
        ("a\n{| class=x\n! h\n|-\n| b || {{c}}\n|}\nd", "a\n\nd"),
        ("{{Infobox\n| a = b\n|}}\nText.", "Text."),
        ("a <!-- b\n\n c --> d", "a d"),
        ("<math>x^2 \\{ | \\}</math> <code>[[a]]</code> <nowiki>''b''</nowiki>", "$x^2 \\{ | \\}$ [[a]] b"),
        ("<syntaxhighlight lang=c>\n  if (a) {{\n    b;\n</syntaxhighlight>", "  if (a) {{\n    b;"),
        ("H<sub>2</sub>O &amp; &lt;b&gt; &nbsp;c<br />d", "H2O & <b> c\nd"),
        ("* a\n** b\n# c\n# d\n: e\n; f", "- a\n- b\n1. c\n2. d\ne\nf"),
        (
            "-{zh-hant:電腦; zh-hans:计算机}-和-{A|zh-cn:软件;zh-tw:軟體}-与-{字}--{H|zh-cn:x;}-",
            "计算机和软件与字",
        ),
        ("1990-{{x}}, {a}-b", "1990-, {a}-b"),
        ("[http://a.org text] [https://b.org] http://c.org [1]", "text http://c.org [1]"),
        ("__NOTOC__a", "a"),
        ("a {{ b [[c]] never closed", "a b c never closed"),
        ("a ]] }} b\n|}\nc", "a b\n\nc"),
    ],
)
def test_markup_to_text(markup: str, text: str) -> None:
    assert plain_text(markup) == text + "\n"


def test_sections_without_text_lose_their_headings() -> None:
    markup = "Lead.\n== A ==\n=== B ===\nText.\n== C ==\n{{x}}\n== D ==\n=== E ===\n{{reflist}}\n"
    assert plain_text(markup) == "Lead.\n\nA\n\nB\n\nText.\n"


@hypothesis.given(
    st.lists(
        st.sampled_from([
            "{{", "}}", "{|", "|}", "[[", "]]", "|", "-{", "}-", "<ref>", "</ref>", "<!--", "-->", "<nowiki>", "<pre>", "\n", "==", "''", "a",
            "中", "[http://x ", "]", "\x01", "\x02", "<", ">", "#", "*", "(", ")", "&#1;", "&amp;", "İ",
        ])
    ).map("".join)
)  # fmt: skip
def test_any_markup_gives_a_text(markup: str) -> None:
    text = plain_text(markup)
    assert "\x01" not in text
    assert "\x02" not in text
    assert text == "" or (text.strip() and text.endswith("\n"))


@pytest.mark.parametrize(
    "piece", ["{{a|", "[[a|", "<ref>a ", "<!-- ", "{|\n|", "-{a:b;", "[http://a ", "<nowiki>", "''", "( "]
)
def test_what_is_never_closed_takes_no_more_than_linear_time(piece: str) -> None:
    plain_text(piece * 20_000)  # a quadratic step would take minutes


SHARD = (
    '<doc id="841" url="http://en.wikipedia.org/wiki?curid=841" title="Attila">\nAttila\n\nAttila was a ruler &lt;b&gt;.\n\n</doc>\n'
    '<doc id="842" url="http://x/?a=1&amp;b=2" title="Aegean &quot;Sea&quot;">\nAegean Sea\n\n中文\n</doc>\n'
)


def test_what_wikiextractor_wrote() -> None:
    data = SHARD.encode()
    one, two = wiki.extracted(io.BytesIO(data), UTF8)
    assert isinstance(one, Record)
    assert isinstance(two, Record)
    assert one.text == "Attila\n\nAttila was a ruler <b>.\n\n"
    assert two.text == "Aegean Sea\n\n中文\n" == data[two.start : two.end].decode()
    assert one.metadata == {"title": "Attila", "url": "http://en.wikipedia.org/wiki?curid=841", "page": "841"}
    assert two.metadata == {"title": 'Aegean "Sea"', "url": "http://x/?a=1&b=2", "page": "842"}


def test_a_shard_that_breaks_off_or_holds_other_things() -> None:
    cut = list(wiki.extracted(io.BytesIO(SHARD.encode()[:100]), UTF8))
    assert [type(item) for item in cut] == [Record]
    mixed = SHARD.replace("</doc>\n", "</doc>\nstray\n", 1).encode().replace("中".encode(), b"\xff")
    assert [
        item.reason if isinstance(item, Broken) else "" for item in wiki.extracted(io.BytesIO(mixed), UTF8)
    ] == [
        "",
        "broken record",
        "undecodable",
    ]
