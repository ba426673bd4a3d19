"""Writes recipes/mixed/: a folder as an office has them, in small, from the texts in recipes/texts.

    python tools/make_mixed_texts.py

    word/      chapters of Genesis as Word files, one of them saved twice with a few words changed; a letter
    web/       Ruth and Jonah as web pages with menus and footers; one page says that it is in UTF-8 and is not; a login
    chinese/   poems in GB18030, a text file for every twenty
    junk/      what lies around in every such folder: a picture that is called .txt, an empty file, a file that breaks off

It needs python-docx. The same texts give the same bytes.
"""

import gzip
import html
import io
import json
import zipfile
from pathlib import Path

import docx

ROOT = Path(__file__).resolve().parents[1] / "recipes"
MENU = "".join(
    f'<li><a href="/{name.lower()}">{name}</a></li>' for name in ("Home", "Books", "News", "Contact")
)
LETTER = """Dear reader,

the chapters in this folder were typed from the edition of 1611, one chapter in a file, without the numbers of the verses.
If you find a slip of the pen, please write to typist@example.org or call +1 202 555 0143. Corrections are collected until
the end of the month, and whoever sends the most of them is mentioned in the preface of the next edition.

We have not changed the spelling of names. Where the edition has two spellings of one name, both are kept, as the printer
left them. The chapters of the other books are on our pages, and the poems in the folder beside this one.
"""


def main() -> None:
    chapters = (ROOT / "texts/king-james.txt").read_text(encoding="utf-8").split("\n%\n")
    genesis = chapters[:10]
    ruth = [part for part in chapters if "Boaz" in part or "Elimelech" in part][:4]
    jonah = [part for part in chapters if "Jonah" in part][:4]
    out = ROOT / "mixed"
    for number, text in enumerate(genesis, 1):
        word(out / f"word/genesis {number:02d}.docx", f"Genesis, chapter {number}", text)
    again = (
        genesis[2]
        .replace("the serpent", "that serpent", 2)
        .replace("And the LORD God", "Then the LORD God", 1)
    )
    word(out / "word/genesis 03 (final) v2.docx", "Genesis, chapter 3", again)
    word(out / "word/letter.docx", "To the reader", LETTER)
    for number, text in enumerate(ruth + jonah, 1):
        page(out / f"web/{number}.html", f"Page {number}", text)
    tang, song = (lines(ROOT / f"texts/{name}.jsonl") for name in ("tang-300", "song-300"))
    says, poems = '<meta charset="utf-8">', "".join(f"<p>{text}</p>" for text in tang[200:215])
    write(
        out / "web/poems.htm",
        f"<html><head>{says}<title>唐詩</title></head><body>{poems}</body></html>".encode("gb18030"),
    )
    write(
        out / "web/login.html",
        b"<html><body><form><input name=user><input type=password></form></body></html>",
    )
    for name, texts in (("tang", tang[:200]), ("song", song[:200])):
        for number in range(0, 200, 20):
            write(
                out / f"chinese/{name} {number // 20}.txt",
                "\n".join(texts[number : number + 20]).encode("gb18030"),
            )
    write(out / "junk/picture.txt", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)) * 4)
    write(out / "junk/empty.txt", b"")
    write(
        out / "junk/half.jsonl.gz",
        gzip.compress(json.dumps({"text": genesis[0]}).encode() * 20, mtime=0)[:300],
    )


def lines(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def word(path: Path, title: str, text: str) -> None:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "DRAFT"
    document.core_properties.title = title
    document.add_heading(title, 1)
    for part in text.split("\n\n"):
        document.add_paragraph(" ".join(part.split()))
    saved, packed = io.BytesIO(), io.BytesIO()
    document.save(saved)
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            if not name.startswith(("docProps/thumbnail", "customXml")):
                after.writestr(zipfile.ZipInfo(name), before.read(name), zipfile.ZIP_DEFLATED)
    write(path, packed.getvalue())


def page(path: Path, title: str, text: str) -> None:
    sentences = text.strip().split(". ")
    parts = [". ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5)]
    body = "\n".join(f"<p>{html.escape(part)}.</p>" for part in parts)
    whole = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body>\n'
        f"<header><nav><ul>{MENU}</ul></nav></header>\n<main><article><h1>{title}</h1>\n{body}\n</article></main>\n"
        "<footer>© Example Press. All rights reserved. Privacy. Cookies.</footer></body></html>\n"
    )
    write(path, whole.encode())


if __name__ == "__main__":
    main()
