"""Writes recipes/texts/ from three unpacked packages of public registries. Run once, by hand; the result is committed.

    apt-get download bible-kjv bible-kjv-text
    dpkg -x bible-kjv_*.deb bible && dpkg -x bible-kjv-text_*.deb bible
    npm pack chinese-poetry@2.0.1 && tar xzf chinese-poetry-2.0.1.tgz
    python tools/make_demo_texts.py --bible bible --poems package --out recipes/texts

The King James text is stored in a compressed form of its own, so the `bible` program prints it.
"""

import argparse
import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Narrative books, whole: prose that runs on. The last verse says where a book ends.
BOOKS = {
    "genesis": "Gen1:1-Gen50:26",
    "ruth": "Ruth1:1-Ruth4:22",
    "1-samuel": "1Sam1:1-1Sam31:13",
    "jonah": "Jonah1:1-Jonah4:11",
    "luke": "Luke1:1-Luke24:53",
}
NOTE = re.compile(r"\s*[(（][^()（）]*[)）]")  # variant readings, which the poems themselves do not have
VERSE = re.compile(r"^(?P<chapter>\d?[A-Z][a-z]+\d+):\d+ (?P<text>.+)$")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo texts from unpacked packages.")
    parser.add_argument("--bible", type=Path, required=True, help="where both Debian packages were unpacked")
    parser.add_argument("--poems", type=Path, required=True, help="the folder `package` of the npm package")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chapters = [text for verses in BOOKS.values() for text in _chapters(arguments.bible, verses)]
    write(arguments.out / "king-james.txt", "\n%\n".join(chapters) + "\n")
    for name, poems in (("tang-300", _tang(arguments.poems)), ("song-300", _song(arguments.poems))):
        lines = (json.dumps(poem, ensure_ascii=False) for poem in poems)
        write(arguments.out / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
    print(f"{path}: {len(text.encode()):,} bytes, {len(text):,} characters")


def _chapters(unpacked: Path, verses: str) -> Iterator[str]:
    """Yields each chapter as one paragraph, without the numbers of the verses."""
    program, library = unpacked / "usr/bin/bible", unpacked / "usr/lib"
    # -f turns formatting off: one verse a line, after its reference
    printed = subprocess.run(
        [program, "-f", "-p", library, verses], capture_output=True, text=True, check=True
    ).stdout
    matches = [VERSE.match(line) for line in printed.splitlines()]
    if not matches or None in matches:
        raise SystemExit(f"{verses}: the program printed something that is no verse:\n{printed[:500]}")
    for _, chapter in itertools.groupby(matches, key=lambda match: match["chapter"]):
        yield " ".join(match["text"].strip() for match in chapter)


def _tang(package: Path) -> Iterator[dict[str, Any]]:
    book = json.loads((package / "dist/mengxue/tangshisanbaishou.json").read_text(encoding="utf-8"))
    for part in book["content"]:
        for poem in part["content"]:
            yield _poem(part["type"], poem["chapter"], poem["author"], poem["paragraphs"])


def _song(package: Path) -> Iterator[dict[str, Any]]:
    for poem in json.loads((package / "dist/songci/宋词三百首.json").read_text(encoding="utf-8")):
        yield _poem("宋词", poem["rhythmic"], poem["author"], poem["paragraphs"])


def _poem(kind: str, title: str, author: str, lines: list[str]) -> dict[str, Any]:
    text = NOTE.sub("", "\n".join([title, *lines]))
    return {"title": title, "author": author, "kind": kind, "text": text}


if __name__ == "__main__":
    main()
