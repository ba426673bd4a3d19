"""Text as readers see it: characters with what belongs to them, so that nothing cuts an accent or an emoji apart.

After Unicode's extended grapheme clusters (UAX 29), from what the standard library knows: combining marks and variation
selectors stay with what they stand on, as do skin tones; emoji that are joined stay together, two regional indicators
are one flag, Hangul letters one syllable. Left out are the few letters that bind what comes after them (Prepend), and
conjuncts of Indic scripts, which that rule joins since Unicode 15.1.
"""

import unicodedata

__all__ = ["graphemes"]

JOINER = "\u200d"


def graphemes(text: str) -> list[str]:
    r"""Returns the graphemes of a text, which together are the text: "e\u0301t" -> ["e\u0301", "t"]."""
    found: list[str] = []
    for character in text:
        if ("\u3400" <= character <= "\u9fff" or character < "\u0300") and character != "\n":
            found.append(character)  # by far the most: none of these joins what stands before
        elif found and _joins(found[-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def _joins(before: str, character: str) -> bool:
    last = before[-1]
    if unicodedata.category(last) in ("Cc", "Zl", "Zp"):
        return last == "\r" and character == "\n"
    if _extends(character):
        return True
    if last == JOINER:
        return _is_picture(before[0]) and _is_picture(character)
    if _is_regional(last) and _is_regional(character):
        return len(before) == 1
    return _is_syllable(last, character)


def _extends(character: str) -> bool:
    return (
        unicodedata.category(character)[0] == "M"
        or character in "\u200c\u200d\uff9e\uff9f"
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # the letters of a flag's name
    )


def _is_picture(character: str) -> bool:
    return unicodedata.category(character) == "So" and not _is_regional(character)


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_syllable(last: str, character: str) -> bool:
    before, after = _hangul(last), _hangul(character)
    return (before == "L" and after in ("L", "V", "LV", "LVT")) or (
        (before in ("V", "LV") and after in ("V", "T")) or (before in ("T", "LVT") and after == "T")
    )


def _hangul(character: str) -> str:
    """What it is of a syllable: leading consonant, vowel, trailing consonant, or all of it."""
    if "가" <= character <= "힣":
        return "LV" if (ord(character) - 0xAC00) % 28 == 0 else "LVT"
    for kind, ranges in (
        ("L", (("\u1100", "\u115f"), ("\ua960", "\ua97c"))),
        ("V", (("\u1160", "\u11a7"), ("\ud7b0", "\ud7c6"))),
        ("T", (("\u11a8", "\u11ff"), ("\ud7cb", "\ud7fb"))),
    ):
        if any(first <= character <= last for first, last in ranges):
            return kind
    return ""
