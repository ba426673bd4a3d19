"""A letter that looks the same and is another one: Latin, Cyrillic, Greek, digits.

The pairs are among those that Unicode lists as confusable (UTS 39).
"""

import dataclasses
import functools
from typing import final

from gristmill.augment.operators.base import Operator, Text, Writer, one_of

__all__ = ["Homoglyph"]

ALIKE = (
    *(
        "AАΑ",
        "BВΒ",
        "CС",
        "EЕΕ",
        "FϜ",
        "GԌ",
        "HНΗ",
        "IІΙl1",
        "JЈ",
        "KКΚ",
        "MМΜ",
        "NΝ",
        "OОΟ0",
        "PРΡ",
        "QԚ",
        "SЅ",
    ),
    *(
        "TТΤ",
        "VѴ",
        "WԜ",
        "XХΧ",
        "YҮΥ",
        "ZΖ",
        "aа",
        "cсϲ",
        "dԁ",
        "eе",
        "hһ",
        "iі",
        "jј",
        "oоο0",
        "pрρ",
        "qԛ",
        "sѕ",
    ),
    *("uυ", "vνѵ", "wԝ", "xх", "yу"),
)
"""Letters that look alike; each stands for the others of its group."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Homoglyph(Operator):
    """Letters and digits that have a double."""

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns the doubles of each letter."""
        doubles = _doubles()
        return [doubles.get(grapheme) for grapheme in text.graphemes]


EXPORT = Homoglyph


@functools.cache
def _doubles() -> dict[str, Writer]:
    found: dict[str, str] = {}
    for group in ALIKE:
        for letter in group:
            found[letter] = found.get(letter, "") + group.replace(letter, "")
    return {letter: one_of(others) for letter, others in found.items()}
