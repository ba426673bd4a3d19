"""Writes src/gristmill/augment/data/: how frequent Chinese characters are, and which look alike.

    pip install jieba opencc-python-reimplemented pillow
    apt-get install fonts-noto-cjk
    python tools/make_character_tables.py --out src/gristmill/augment/data

Run once, by hand; the result is committed.

- Frequencies are those of the words in jieba's dictionary (MIT), a word's count given to each of its characters. For
  traditional text the words are first converted by OpenCC (Apache-2.0), with its rules for phrases.
- Look-alikes are measured: each character is drawn in Noto Sans CJK SC (SIL OFL 1.1, which leaves free what is made with
  the font), blurred, and compared with every other one by the correlation of their pixels; one may be moved by a pixel.
  No list of anybody's is used. Two ways to write the same character are left out.
"""

import argparse
import collections
from pathlib import Path

import jieba
import numpy as np
import opencc
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONT = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
FACE = 2  # of the collection: SC
SIZE = 32  # pixels
BLUR = 1.0  # pixels: a stroke may be a little elsewhere
ALIKE = 0.6  # the least correlation; tests/augment has known pairs, and says how many of them this finds
MOST = 6  # look-alikes of a character
SHIFTS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
RARE = 1.0  # of a million characters; rarer ones are in neither table
BLOCK = 512


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    characters = charset()
    written = write_frequencies(arguments.out / "frequencies.tsv", characters)
    write_lookalikes(arguments.out / "lookalikes.tsv", written, arguments.font)


def charset() -> list[str]:
    """All characters of GB 2312, and the frequent ones of Big5 (its level 1)."""
    simplified = {_decoded("gb2312", a, b) for a in range(0xB0, 0xF8) for b in range(0xA1, 0xFF)}
    traditional = {
        _decoded("big5", a, b)
        for a in range(0xA4, 0xC7)
        for b in (*range(0x40, 0x7F), *range(0xA1, 0xFF))
        if (a, b) <= (0xC6, 0x7E)
    }
    return sorted((simplified | traditional) - {""})


def _decoded(encoding: str, *pair: int) -> str:
    return bytes(pair).decode(encoding, errors="ignore")


def write_frequencies(path: Path, characters: list[str]) -> list[str]:
    """Returns the characters that the dictionary has."""
    counts = [collections.Counter[str](), collections.Counter[str]()]
    converter = opencc.OpenCC("s2t")
    for line in Path(jieba.__file__).with_name("dict.txt").read_text(encoding="utf-8").splitlines():
        word, count, *_ = line.split(" ")
        for counter, written in zip(counts, (word, converter.convert(word)), strict=True):
            for character in written:
                counter[character] += int(count)
    totals = [sum(counter.values()) / 1e6 for counter in counts]
    lines = [
        "# Characters, and how many of a million characters of simplified and of traditional Chinese text they are.",
        "# Made by tools/make_character_tables.py from the dictionary of jieba 0.42 (Copyright 2013 Sun Junyi, MIT",
        "# License), converted to traditional characters by OpenCC (Copyright 2010-2024 Carbo Kuo, Apache License 2.0).",
    ]
    for character in characters:
        shares = [
            counter[character] / total if counter[character] else 0.0
            for counter, total in zip(counts, totals, strict=True)
        ]
        if max(shares) >= RARE:
            cells = [f"{share:.3g}" for share in shares]
            lines.append("\t".join([character, *cells]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines) - 3} characters")
    return [line.split("\t")[0] for line in lines[3:]]


def write_lookalikes(path: Path, characters: list[str], font: Path) -> None:
    drawn = normalised(drawings(characters, font))
    simplified = [opencc.OpenCC("t2s").convert(character) for character in characters]
    lines = [
        "# Characters, and those that look like them, the most alike first.",
        "# Made by tools/make_character_tables.py: measured on drawings in Noto Sans CJK SC (SIL Open Font License 1.1).",
        "# Apache License 2.0, as the project.",
    ]
    for begin in range(0, len(characters), BLOCK):
        block = drawn[begin : begin + BLOCK].reshape(-1, SIZE, SIZE)
        likeness = np.max([normalised(np.roll(block, by, (1, 2))) @ drawn.T for by in SHIFTS], axis=0)
        for at, of_character in enumerate(likeness, begin):
            best = [
                characters[i]
                for i in np.argsort(-of_character, kind="stable")[: 3 * MOST]
                if of_character[i] >= ALIKE and simplified[i] != simplified[at]
            ]
            if best:
                lines.append(f"{characters[at]}\t{''.join(best[:MOST])}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines) - 3} characters")


def drawings(characters: list[str], font: Path) -> np.ndarray:
    """One row of pixels for each character, less their mean."""
    face = ImageFont.truetype(str(font), 4 * SIZE, index=FACE)
    pixels = np.empty((len(characters), SIZE * SIZE), dtype=np.float32)
    for row, character in zip(pixels, characters, strict=True):
        image = Image.new("L", (4 * SIZE, 4 * SIZE))
        ImageDraw.Draw(image).text((2 * SIZE, 2 * SIZE), character, fill=255, font=face, anchor="mm")
        small = image.resize((SIZE, SIZE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(BLUR))
        row[:] = np.asarray(small, dtype=np.float32).ravel()
    return pixels - pixels.mean(1, keepdims=True)


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    rows = pixels.reshape(len(pixels), -1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
