"""Chinese characters: how frequent each is, and which look alike."""

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

__all__ = ["Weighted", "frequencies", "frequent", "is_chinese", "is_traditional", "lookalikes"]

DATA = Path(__file__).parent / "data"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """Strings, some of which are drawn more often."""

    strings: tuple[str, ...]
    sums: Float[np.ndarray, " N"]
    """The weights added up, up to each string."""

    @classmethod
    def of(cls, strings: Iterable[str], weights: Iterable[float]) -> "Weighted":
        """Returns strings with their weights, without those that have none."""
        pairs = [(string, weight) for string, weight in zip(strings, weights, strict=True) if weight > 0]
        return cls(
            tuple(string for string, _ in pairs), np.cumsum([weight for _, weight in pairs], dtype=np.float64)
        )

    def draw(self, rng: np.random.Generator) -> str:
        """Returns one of them."""
        at = int(np.searchsorted(self.sums, rng.random() * self.sums[-1], side="right"))
        return self.strings[min(at, len(self.strings) - 1)]


def is_chinese(grapheme: str) -> bool:
    """Returns whether it is a Chinese character, alone."""
    return len(grapheme) == 1 and (
        "\u4e00" <= grapheme <= "\u9fff"
        or "\u3400" <= grapheme <= "\u4dbf"
        or "\U00020000" <= grapheme <= "\U0003ffff"
    )


@functools.cache
def frequencies() -> dict[str, tuple[float, float]]:
    """Returns how many of a million characters each is, in simplified and in traditional text."""
    return {
        character: (float(simplified), float(traditional))
        for character, simplified, traditional in _table("frequencies.tsv")
    }


@functools.cache
def frequent(*, traditional: bool) -> Weighted:
    """Returns all characters of a script by how frequent they are."""
    table = frequencies()
    return Weighted.of(table, (_if_common(counts[traditional]) for counts in table.values()))


@functools.cache
def lookalikes(*, traditional: bool) -> dict[str, str]:
    """Returns the characters of a script that look like each, the most alike first."""
    common = set(frequent(traditional=traditional).strings)
    table = {
        character: "".join(one for one in alike if one in common)
        for character, alike in _table("lookalikes.tsv")
    }
    return {character: alike for character, alike in table.items() if alike}


def is_traditional(text: str) -> bool:
    """Returns whether a text has more characters that are typical of traditional text than such of simplified text."""
    balance = 0
    for character in text:
        simplified, traditional = frequencies().get(character, (0.0, 0.0))
        balance += (traditional > 10 * simplified) - (simplified > 10 * traditional)
    return balance > 0


def _if_common(count: float) -> float:
    """The dictionary that is counted has some words of the other script."""
    return count if count >= 1 else 0.0


def _table(name: str) -> Iterable[list[str]]:
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.split("\t")
