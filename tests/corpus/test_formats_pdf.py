import io
import zlib
from collections.abc import Callable, Sequence

import hypothesis
import hypothesis.strategies as st
import pytest

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.formats import pdf
from gristmill.corpus.formats.common import Broken, Record

pypdf = pytest.importorskip("pypdf")


def make_pdf(
    pages: Sequence[str], information: str = "", contents: Callable[[str], bytes] | None = None
) -> bytes:
    """Returns a PDF with these lines on its pages: a font whose codes are UTF-16 with a map that says so."""
    objects: dict[int, bytes] = {}
    cmap = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <0000> <FFFF> endcodespacerange "
        + b" ".join(
            b"1 beginbfchar <%04X> <%04X> endbfchar" % (ord(c), ord(c)) for c in sorted(set("".join(pages)))
        )
        + b" endcmap end end"
    )
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R >>"
    kids = b" ".join(b"%d 0 R" % (10 + 2 * i) for i in range(len(pages)))
    objects[2] = b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(pages))
    objects[3] = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Any /Encoding /Identity-H /DescendantFonts [4 0 R] /ToUnicode 5 0 R >>"
    )
    objects[4] = (
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Any /DW 500 /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) "
        b"/Supplement 0 >> >>"
    )
    objects[5] = stream(cmap)
    objects[6] = f"<< {information} >>".encode()
    for i, page in enumerate(pages):
        objects[10 + 2 * i] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents %d 0 R /Resources << /Font << /F 3 0 R >> >> >>"
            % (11 + 2 * i)
        )
        objects[11 + 2 * i] = stream((contents or drawn)(page))
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n")
    places = {}
    for number, body in sorted(objects.items()):
        places[number] = out.tell()
        out.write(b"%d 0 obj\n%b\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 1\n0000000000 65535 f \n")
    for number, place in sorted(places.items()):
        out.write(b"%d 1\n%010d 00000 n \n" % (number, place))
    out.write(
        b"trailer << /Root 1 0 R /Info 6 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF\n"
        % (max(objects) + 1, start)
    )
    return out.getvalue()


def stream(data: bytes) -> bytes:
    packed = zlib.compress(data)
    return b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(packed), packed)


def drawn(page: str) -> bytes:
    lines = b"".join(
        b"<%b> Tj 0 -14 Td " % line.encode("utf-16-be").hex().encode() for line in page.split("\n") if line
    )
    return b"BT /F 12 Tf 50 750 Td " + lines + b"ET"


def read(data: bytes) -> Record | Broken:
    return pdf.document(io.BytesIO(data))


ENGLISH = """Attila, frequently referred to as Attila the Hun, was the ruler of
the Huns from 434 until his death in March 453. Attila was a leader
of the Hunnic Empire, which stretched from the Ural River to the
Rhine River and from the Danube River to the Baltic Sea. He was a feared ene-
my of Rome.
During his reign, he crossed the Danube twice and plundered the
Balkans, but was unable to take Constantinople."""
PARAGRAPHS = """Attila, frequently referred to as Attila the Hun, was the ruler of the Huns from 434 until his death in March 453. Attila was a leader of the Hunnic Empire, which stretched from the Ural River to the Rhine River and from the Danube River to the Baltic Sea. He was a feared enemy of Rome.

During his reign, he crossed the Danube twice and plundered the Balkans, but was unable to take Constantinople.
"""
LAW = """为了保护民事主体的合法权益，调整民事关系，维护社会和经济秩序，
适应中国特色社会主义发展要求，弘扬社会主义核心价值观，根据宪法，
制定本法。
第二条 民法调整平等主体的自然人、法人和非法人组织之间的人身关系
和财产关系。"""
LAW_PARAGRAPHS = """为了保护民事主体的合法权益，调整民事关系，维护社会和经济秩序，适应中国特色社会主义发展要求，弘扬社会主义核心价值观，根据宪法，制定本法。

第二条 民法调整平等主体的自然人、法人和非法人组织之间的人身关系和财产关系。
"""


def test_the_text_of_a_pdf_in_paragraphs_with_what_it_says_of_itself() -> None:
    data = make_pdf([ENGLISH], "/Title (The Hun) /CreationDate (D:20190304050607Z)")
    assert read(data) == Record(
        PARAGRAPHS, 0, len(data), {"title": "The Hun", "date": "2019-03-04", "pages": 1}
    )


def test_chinese_lines_are_joined_without_spaces() -> None:
    record = read(make_pdf([LAW]))
    assert isinstance(record, Record)
    assert record.text == LAW_PARAGRAPHS


def test_a_paragraph_goes_on_over_the_page_and_running_lines_go() -> None:
    lines = ENGLISH.split("\n")
    pages = ["\n".join(["The Hun", *lines[i:], *lines[:i], f"- {i + 1} -"]) for i in range(6)]
    record = read(make_pdf(pages))
    assert isinstance(record, Record)
    assert "The Hun\n" not in record.text
    assert "- 3 -" not in record.text
    assert record.text.count("Attila, frequently") == 6
    same = pdf.paragraphs(["\n".join(lines)] * 6)  # all of it is repeated: then nothing is
    assert same.count("Attila, frequently") == 6
    two = pdf.paragraphs(["\n".join(lines[:3]), "\n".join(lines[3:])])
    assert two == PARAGRAPHS


def test_verse_tables_lists_and_slides_keep_their_lines() -> None:
    verse = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\nRough winds do shake the darling buds"
    table = (
        "Sales of the company in 2019 and 2020 by region 1,234.5 6,789.0\n"
        + "North 2019 12,345 67,890 98,765 43,210 11 22 33 44 55\n" * 3
    )
    items = "• The first item of a list is rather long and fills a whole line here\n• The second\n1. third"
    for text in (verse, table.strip(), items, "白玉誰家郎，\n回車渡天津。\n看花東上陌，"):
        assert pdf.paragraphs([text]).split() == text.split()
        assert pdf.paragraphs([text]).count("\n\n") == text.count("\n"), text


def test_a_scan_has_no_text() -> None:
    item = read(make_pdf(["", "", ""]))
    assert isinstance(item, Broken)
    assert (item.reason, item.message) == (
        "no text layer (a scan?)",
        "3 pages without text: recognise it (OCR) first",
    )
    record = read(make_pdf([ENGLISH, ""]))
    assert isinstance(record, Record)
    assert record.metadata == {"pages": 2, "pages_without_text": 1}
    assert isinstance(read(make_pdf([])), Broken)


def encrypted(data: bytes, user: str, owner: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(user_password=user, owner_password=owner, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_what_is_protected_with_a_password() -> None:
    with pytest.raises(UnreadableError, match="protected with a password") as caught:
        read(encrypted(make_pdf([ENGLISH]), "secret", "more"))
    assert caught.value.hint == "save it without one"
    record = read(encrypted(make_pdf([ENGLISH]), "", "owner"))  # anybody may read it, not change it
    assert isinstance(record, Record)
    assert record.text == PARAGRAPHS


def test_what_is_no_pdf() -> None:
    for data in (b"", b"plain text " * 500, b"PK\x03\x04" + bytes(100)):
        with pytest.raises(UnreadableError, match="it is no PDF"):
            read(data)
    with pytest.raises(UnreadableError, match="pypdf can't read it"):
        read(b"%PDF-1.7\n" + b"garbage " * 100)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.999])
def test_a_pdf_that_breaks_off_gives_a_text_or_a_reason(share: float) -> None:
    data = make_pdf([ENGLISH, LAW, ENGLISH])
    try:
        item = read(data[: int(share * len(data))])
    except UnreadableError:
        return
    assert isinstance(item, Broken | Record)


def test_one_broken_page_does_not_lose_the_others() -> None:
    data = make_pdf([ENGLISH, LAW])
    packed = zlib.compress(drawn(LAW))
    assert packed in data
    item = read(data.replace(packed, b"\xff" * len(packed)))
    assert isinstance(item, Record)
    assert "Attila" in item.text
    assert item.metadata["pages"] == 2


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MAXIMUM_OPERATORS", 1000)
    item = read(make_pdf([ENGLISH] * 3, contents=lambda page: drawn(page) + b" q Q" * 1000))
    assert isinstance(item, Broken)
    assert (item.reason, item.message) == ("too large", "more than 1,000 drawing operators")
    monkeypatch.setattr(pdf, "MAXIMUM_CHARACTERS", 1000)
    monkeypatch.setattr(pdf, "MAXIMUM_OPERATORS", 1_000_000)
    item = read(make_pdf([ENGLISH] * 3))
    assert isinstance(item, Broken)
    assert item.message == "more than 1,000 characters"


def test_a_stream_that_expands_enormously_is_not_expanded() -> None:
    data = make_pdf(
        [ENGLISH, "bomb"], contents=lambda page: drawn(page) if page != "bomb" else b" " * (80 << 20)
    )
    assert len(data) < 1 << 20
    item = read(data)
    assert isinstance(item, Record)
    assert item.metadata["pages"] == 2


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.integers(0, 5000), st.binary(min_size=1, max_size=8))
def test_damaged_bytes_give_a_text_or_a_reason(place: int, damage: bytes) -> None:
    data = SMALL
    place %= len(data)
    try:
        item = read(data[:place] + damage + data[place + len(damage) :])
    except UnreadableError:
        return
    assert isinstance(item, Broken | Record)


SMALL = make_pdf(["Attila was the ruler of the Huns."])
