import io
import struct
import zipfile
from typing import Any

import pytest

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.formats import docx
from gristmill.corpus.formats.common import Broken, Record
from gristmill.corpus.formats.numbering import Level, Numbering

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
MC = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def make_docx(body: str, **parts: str) -> bytes:
    """Returns a Word file with this body and these parts (styles, numbering, footnotes) beside it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("_rels/.rels", relations({"officeDocument": "word/document.xml"}))
        file.writestr("word/_rels/document.xml.rels", relations({name: f"{name}.xml" for name in parts}))
        file.writestr("word/document.xml", f"<w:document {W} {MC}><w:body>{body}</w:body></w:document>")
        for name, content in parts.items():
            file.writestr(f"word/{name}.xml", content)
    return out.getvalue()


def relations(targets: dict[str, str]) -> str:
    items = "".join(
        f'<Relationship Id="r{i}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for i, (kind, target) in enumerate(targets.items())
    )
    return f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{items}</Relationships>'


def read(data: bytes) -> Record | Broken:
    return docx.document(io.BytesIO(data))


def text_of(body: str, **parts: str) -> str:
    record = read(make_docx(body, **parts))
    assert isinstance(record, Record), record
    return record.text


def p(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def numbered(text: str, number: int, level: int = 0) -> str:
    return p(text, f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def test_what_another_program_writes_is_read() -> None:
    writer: Any = pytest.importorskip("docx")
    document = writer.Document()
    document.core_properties.title = "A report"
    document.add_heading("Report", 0)
    document.add_heading("First", 1)
    paragraph = document.add_paragraph("Plain, ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run("\tand").add_break()
    paragraph.add_run("more")
    paragraph.add_run(" hidden").font.hidden = True
    for style, items in (("List Bullet", ("one", "two")), ("List Number", ("first", "second"))):
        for item in items:
            document.add_paragraph(item, style=style)
    table = document.add_table(rows=2, cols=2)
    for row in range(2):
        for column in range(2):
            table.cell(row, column).text = f"c{row}{column}"
    document.add_paragraph("中文段落。")
    layout = document.add_table(rows=1, cols=1)
    layout.cell(0, 0).text = "a frame"
    layout.cell(0, 0).add_paragraph("of two paragraphs")
    out = io.BytesIO()
    document.save(out)
    assert read(out.getvalue()) == Record(
        "Report\n\nFirst\n\nPlain, bold\tand\nmore\n\n- one\n- two\n1. first\n2. second\n\nc00 | c01\nc10 | c11\n\n中文段落。\n\n"
        "a frame\n\nof two paragraphs\n",
        0,
        len(out.getvalue()),
        {"title": "A report", "date": "2013-12-23"},
    )


def test_what_nobody_sees_is_left_out() -> None:
    body = (
        "<w:p><w:pPr><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr>"
        "<w:ins><w:r><w:t>kept</w:t></w:r></w:ins><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom>"
        "<w:r><w:instrText>PAGE</w:instrText></w:r><w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
        "<w:r><w:rPr><w:vanish w:val='0'/></w:rPr><w:t>, shown</w:t></w:r>"
        "<w:r><w:ruby><w:rt><w:r><w:t>hàn</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>汉</w:t></w:r></w:rubyBase></w:ruby></w:r>"
        "<w:hyperlink><w:r><w:t>字</w:t></w:r></w:hyperlink></w:p>"
    )
    assert text_of(body) == "kept, shown汉字\n"


def test_a_text_box_is_read_once() -> None:
    box = "<w:txbxContent><w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>in the box</w:t></w:r></w:p></w:txbxContent>"
    body = (
        "<w:p><w:r><w:t>before</w:t></w:r><w:r><mc:AlternateContent><mc:Choice>"
        f"{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:r><w:r><w:t>, after</w:t></w:r></w:p>"
    )
    assert text_of(body) == "in the box\n\nbefore, after\n"


def test_tables_are_rows_and_nested_ones_part_of_their_cell() -> None:
    inner = f"<w:tbl><w:tr><w:tc>{p('x')}</w:tc><w:tc>{p('y')}</w:tc></w:tr></w:tbl>"
    body = (
        f"<w:tbl><w:tr><w:tc>{p('a')}{p('b')}</w:tc><w:tc>{p('c')}</w:tc></w:tr>"
        f"<w:tr><w:tc>{p('')}</w:tc><w:tc>{inner}{p('d')}</w:tc></w:tr></w:tbl>{p('end')}"
    )
    assert text_of(body) == "a b | c\nx | y\n\nd\n\nend\n"


NUMBERING = (
    f"<w:numbering {W}><w:abstractNum w:abstractNumId='1'>"
    "<w:lvl w:ilvl='0'><w:start w:val='1'/><w:numFmt w:val='chineseCounting'/><w:lvlText w:val='第%1条'/></w:lvl>"
    "<w:lvl w:ilvl='1'><w:start w:val='1'/><w:numFmt w:val='decimal'/><w:lvlText w:val='%1.%2'/></w:lvl></w:abstractNum>"
    "<w:abstractNum w:abstractNumId='2'><w:lvl w:ilvl='0'><w:numFmt w:val='bullet'/><w:lvlText w:val='\uf0b7'/></w:lvl></w:abstractNum>"
    "<w:num w:numId='1'><w:abstractNumId w:val='1'/></w:num><w:num w:numId='2'><w:abstractNumId w:val='2'/></w:num>"
    "<w:num w:numId='3'><w:abstractNumId w:val='1'/><w:lvlOverride w:ilvl='0'><w:startOverride w:val='11'/></w:lvlOverride></w:num>"
    "</w:numbering>"
)


def test_numbers_that_word_counts_are_in_the_text() -> None:
    body = (
        numbered("甲", 1) + numbered("乙", 1) + numbered("sub", 1, 1) + numbered("丙", 1) + numbered("sub", 1, 1) + numbered("point", 2)
        + numbered("丁", 3) + numbered("none", 0) + numbered("unknown", 77)
    )  # fmt: skip
    assert text_of(body, numbering=NUMBERING) == (
        "第一条 甲\n第二条 乙\n二.1 sub\n第三条 丙\n三.1 sub\n- point\n第十一条 丁\n\nnone\n\nunknown\n"
    )


@pytest.mark.parametrize(
    ("kind", "figures"),
    [
        ("decimal", ["1", "2", "27"]),
        ("decimalZero", ["01", "02", "27"]),
        ("lowerLetter", ["a", "b", "aa"]),
        ("upperRoman", ["I", "II", "XXVII"]),
        ("chineseCountingThousand", ["一", "二", "二十七"]),
        ("somethingElse", ["1", "2", "27"]),
    ],
)
def test_kinds_of_numbers(kind: str, figures: list[str]) -> None:
    lists = Numbering({"s": {0: Level(kind, "(%1)")}}, {"n": "s"}, {})
    labels = [lists.label("n", 0) for _ in range(27)]
    assert [labels[0], labels[1], labels[26]] == [f"({figure})" for figure in figures]


def test_styles_number_headings_and_mark_the_table_of_contents() -> None:
    styles = (
        f"<w:styles {W}><w:style w:styleId='H'><w:name w:val='heading 1'/><w:pPr><w:numPr><w:numId w:val='1'/></w:numPr></w:pPr></w:style>"
        "<w:style w:styleId='H2'><w:name w:val='Mine'/><w:basedOn w:val='H'/></w:style>"
        "<w:style w:styleId='T'><w:name w:val='toc 1'/></w:style><w:style w:styleId='L'><w:name w:val='L'/><w:basedOn w:val='L'/></w:style>"
        "</w:styles>"
    )
    body = "".join(
        p(text, f"<w:pStyle w:val='{style}'/>")
        for text, style in (("Contents 1", "T"), ("one", "H"), ("two", "H2"), ("x", "L"))
    )
    assert text_of(body, styles=styles, numbering=NUMBERING) == "第一条 one\n\n第二条 two\n\nx\n"


def test_notes_stand_at_the_end_with_their_numbers() -> None:
    notes = f"<w:footnotes {W}><w:footnote w:id='-1'>{p('---')}</w:footnote><w:footnote w:id='2'>{p('The note.')}</w:footnote></w:footnotes>"
    body = "<w:p><w:r><w:t>Text</w:t></w:r><w:r><w:footnoteReference w:id='2'/></w:r><w:r><w:t>.</w:t></w:r></w:p>"
    assert text_of(body, footnotes=notes) == "Text[1].\n\n[1] The note.\n"


def test_a_document_of_pictures_has_no_text() -> None:
    item = read(make_docx("<w:p/>"))
    assert isinstance(item, Broken)
    assert item.reason == "no text"


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@pytest.mark.parametrize(
    ("data", "match", "hint"),
    [
        (b"", "it is no Word file", "save it as .docx"),
        (b"<html>saved by Word", "it is no Word file", "save it as .docx"),
        (b"{\\rtf1 text}", "it is RTF, whatever its ending says", "save it as .docx"),
        (OLE + bytes(2000), "a file of an old Word", "save it as .docx"),
        (
            OLE + bytes(2000) + "EncryptedPackage".encode("utf-16-le"),
            "protected with a password",
            "without one",
        ),
        (b"PK\x03\x04" + bytes(100), "no whole Word file", "get the file again"),
        (make_docx(p("text"))[:-30], "no whole Word file", "get the file again"),
        (make_docx(p("text"))[:200], "no whole Word file", "get the file again"),
        (make_docx("<w:p>"), "its XML is not well-formed", "get the file again"),
        (make_docx("<w:tbl>" * 2000), "1000 elements deep", "exclude"),
    ],
)
def test_what_is_no_word_file_says_what_to_do(data: bytes, match: str, hint: str) -> None:
    with pytest.raises(UnreadableError, match=match) as caught:
        read(data)
    assert hint in (caught.value.hint or "")


def test_a_zip_that_is_no_word_file() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.txt", "text")
    with pytest.raises(UnreadableError, match="a zip, but no Word file"):
        read(out.getvalue())


def test_a_part_that_expands_enormously_is_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx, "MAXIMUM_BYTES", 16 << 20)
    data = make_docx(p("text") + " " * docx.MAXIMUM_BYTES)
    assert len(data) < 1 << 20
    with pytest.raises(UnreadableError, match="expands to more than"):
        read(data)


def test_a_header_that_lies_about_the_size_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx, "MAXIMUM_BYTES", 1 << 20)
    data = make_docx(p("text") + " " * (2 << 20))
    size = struct.pack(
        "<I", len(f"<w:document {W} {MC}><w:body>{p('text')}</w:body></w:document>") + (2 << 20)
    )
    assert data.count(size) == 2
    with pytest.raises(UnreadableError, match=r"expands to more than|no whole Word file"):
        read(data.replace(size, struct.pack("<I", 500)))


def test_entities_are_refused_before_they_expand() -> None:
    out = io.BytesIO()
    bomb = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(
            "word/document.xml",
            bomb + f"<w:document {W}><w:body><w:p><w:r><w:t>&b;</w:t></w:r></w:p></w:body></w:document>",
        )
    with pytest.raises(UnreadableError, match="declares entities"):
        read(out.getvalue())
