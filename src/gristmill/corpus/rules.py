"""Rules of quality: a document is dropped where a figure of its text is on the wrong side of a threshold.

A figure is a count of `features.FEATURES`, or the quotient of two. It is compared by multiplying integers, so that a
decision is the same on every machine. Nothing is dropped unless a recipe names a set of rules:

    gopher_quality      words, their length, symbols, bullets, stop words (Rae et al. 2021, arXiv 2112.11446, A.1.1)
    gopher_repetition   repeated lines, paragraphs and runs of words (the same, table A1)
    c4                  placeholders, code, too few sentences (Raffel et al. 2020, JMLR 21(140), section 2.2)
    fineweb             lines that do not end, short lines, repeated lines (Penedo et al. 2024, arXiv 2406.17557, 3.6)

Where datatrove's code and a paper differ, datatrove's is taken, as the corpora that people know were made with it:

    gopher_quality      signs of punctuation are words below a share of words
    gopher_repetition   of what is repeated the first occurrence is not counted; the paper counts all of them
    c4                  lines of three words, five sentences; the paper has lines of five words, three sentences
    fineweb             repeated lines beyond 0.01 (so appendix E.4 of the paper; its section 3.6 says 0.1), and new
                        lines for each word, which the paper has not

The script of a text decides which rules of a set it is judged by, never a language flag:

    english    Latin script with the words that no English text goes without, and texts without any letter
    chinese    Chinese characters outweigh Latin words; a word is then one character, and rules about words make no
               sense: those whose names begin with chinese_ stand in for them
    spaced     all other scripts and languages that have spaces: what does not depend on English words
    unspaced   Kana, Thai, Khmer …: what does not depend on words at all

Chinese thresholds come from FineWeb-2 (its cmn_Hani configuration, as tuned by Penedo et al. 2025, arXiv 2506.20920),
MAP-NEO (its Chinese filter, Zhang et al. 2024, arXiv 2405.19327) and ChineseWebText (Chen et al. 2023, arXiv
2311.01149). FineWeb-2 counts jieba's words, of which one is 1.6 of our units (1.5 in novels, 1.6 in an encyclopedia,
1.9 in laws), so its thresholds for each word are divided by that.

All of them together keep 99.1 of 100 laws and as many chapters of novels. They are made for prose: of 100 classical
poems gopher_quality drops 72, for two of eight frequent characters and for 50 characters, the others 3 to 9; of 100
pages of technical documentation, half of which is code, 29 to 55. Laws and novels that were wholly spoiled (repeated
lines, menus, symbols, strings of keywords) they drop without exception, and those whose second half repeats itself or is
a menu with them; half a text of symbols or keywords they keep. benchmarks/corpus_rules.py says how they were spoiled.
"""

import dataclasses
import decimal
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, UInt8, UInt64

from gristmill.corpus.features import FEATURES
from gristmill.corpus.language import (
    HAN_WEIGHT,
    OF_LANGUAGE,
    OF_SCRIPT,
    Language,
    Script,
    languages_of,
    script_of,
)
from gristmill.errors import InputError, did_you_mean

__all__ = [
    "RULES",
    "SETS",
    "Described",
    "Rule",
    "RuleSettings",
    "Verdicts",
    "Writing",
    "all_reasons",
    "columns_of",
    "describe",
    "judge",
    "writings_of",
]

SETS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
Writing = Literal["english", "chinese", "spaced", "unspaced"]
Figures = Any
"""What gives the numbers of a feature by its name, one a document: a dictionary, or an Arrow table of attributes."""

LANGUAGE = "language"
"""The reason of what is in none of the languages that are wanted."""
SCRIPT = "script"
"""The reason of what is in none of the scripts that are wanted."""
_MILLION = 10**6
_MOST = {False: 10**9, True: 1000}
"""The greatest threshold of a count, and of a quotient: 64 bits hold what they are multiplied to."""


class Rule(NamedTuple):
    """A named threshold: "minimum" drops what is below, "maximum" what is above."""

    set: str
    name: str
    top: Mapping[str, int]
    """The features that are added up, each with its factor."""
    per: Mapping[str, int]
    """What the sum is divided by, likewise; empty where the count itself is compared."""
    threshold: float
    writings: tuple[Writing, ...]
    source: str

    @property
    def key(self) -> str:
        """The name that a report prints, such as gopher_quality.minimum_words."""
        return f"{self.set}.{self.name}"

    @property
    def is_minimum(self) -> bool:
        """Whether what is below the threshold is dropped."""
        return "minimum_" in self.name


_ENGLISH: tuple[Writing, ...] = ("english",)
_CHINESE: tuple[Writing, ...] = ("chinese",)
_SPACED: tuple[Writing, ...] = ("english", "spaced")
_NOT_CHINESE: tuple[Writing, ...] = ("english", "spaced", "unspaced")
_NOT_ENGLISH: tuple[Writing, ...] = ("chinese", "spaced", "unspaced")
_ALL: tuple[Writing, ...] = get_args(Writing)
_GOPHER, _TABLE, _C4, _FINEWEB = (
    "Gopher A.1.1",
    "Gopher table A1",
    "C4 2.2",
    "FineWeb 3.6",
)
_OURS = "ours: measured on Chinese laws, novels and an encyclopedia, and on spoiled texts"


def _rules(set: str, *rows: tuple[Any, ...]) -> tuple[Rule, ...]:
    def terms(given: str | Mapping[str, int]) -> Mapping[str, int]:
        return ({given: 1} if given else {}) if isinstance(given, str) else given

    return tuple(
        Rule(set, name, terms(top), terms(per), float(threshold), writings, source)
        for name, top, per, threshold, writings, source in rows
    )


RULES: tuple[Rule, ...] = (
    *_rules(
        "gopher_quality",
        ("minimum_words", "spelled_words", "", 50, _NOT_CHINESE, _GOPHER),
        ("maximum_words", "spelled_words", "", 100_000, _NOT_CHINESE, _GOPHER),
        ("chinese_minimum_characters", "spelled_words", "", 50, _CHINESE, "MAP-NEO: 50 characters"),
        ("chinese_maximum_characters", "spelled_words", "", 160_000, _CHINESE, f"{_GOPHER}: 100,000 words"),
        ("minimum_word_length", "spelled_characters", "spelled_words", 3, _ENGLISH, _GOPHER),
        ("maximum_word_length", "spelled_characters", "spelled_words", 10, _ENGLISH, _GOPHER),
        ("chinese_minimum_han", "han", "spelled_words", 0.3, _CHINESE, "ChineseWebText: 0.3 of the characters; here a Latin word is one"),
        ("chinese_maximum_digits", "digits", {"letters": 1, "digits": 1}, 0.3, _CHINESE, "MAP-NEO: of what is no punctuation"),
        ("maximum_hashes", "hashes", "words", 0.1, _ALL, _GOPHER),
        ("maximum_ellipses", "ellipses", "words", 0.1, _ALL, _GOPHER),
        ("maximum_bullet_lines", "bullet_lines", "lines", 0.9, _ALL, _GOPHER),
        ("maximum_ellipsis_lines", "ellipsis_lines", "lines", 0.3, _ALL, _GOPHER),
        ("minimum_alphabetic_words", "alphabetic_words", "words", 0.8, _SPACED, _GOPHER),
        ("chinese_minimum_letters", "alphabetic_words", "words", 0.6, _CHINESE, f"{_OURS} (FineWeb-2: 0.735 of words, 0.82 of ours)"),
        ("chinese_minimum_punctuation", "punctuation", "", 1, _CHINESE, "MAP-NEO: more than none"),
        ("minimum_stop_words", "stop_words", "", 2, _ENGLISH, _GOPHER),
        ("chinese_minimum_stop_words", "han_stop_words", "", 2, _CHINESE, "FineWeb-2: two of 22; here of 8, 的是在不了有之而"),
    ),
    *_rules(
        "gopher_repetition",
        ("maximum_repeated_paragraphs", "repeated_paragraphs", "paragraphs", 0.3, _ALL, _TABLE),
        ("maximum_repeated_paragraph_characters", "repeated_paragraph_characters", "characters", 0.2, _ALL, _TABLE),
        ("maximum_repeated_lines", "repeated_blocks", "blocks", 0.3, _ALL, _TABLE),
        ("maximum_repeated_line_characters", "repeated_block_characters", "characters", 0.2, _ALL, _TABLE),
        ("maximum_top_2", "top_2", "characters", 0.2, _SPACED, _TABLE),
        ("maximum_top_3", "top_3", "characters", 0.18, _SPACED, _TABLE),
        ("maximum_top_4", "top_4", "characters", 0.16, _SPACED, _TABLE),
        ("maximum_repeated_5", "repeated_5", "characters", 0.15, _SPACED, _TABLE),
        ("maximum_repeated_6", "repeated_6", "characters", 0.14, _SPACED, _TABLE),
        ("maximum_repeated_7", "repeated_7", "characters", 0.13, _SPACED, _TABLE),
        ("maximum_repeated_8", "repeated_8", "characters", 0.12, _SPACED, _TABLE),
        ("maximum_repeated_9", "repeated_9", "characters", 0.11, _SPACED, _TABLE),
        ("maximum_repeated_10", "repeated_10", "characters", 0.1, _SPACED, _TABLE),
        # a pair of characters with the space that is counted between them is three, of which two are its own
        ("chinese_maximum_top_2", {"top_2": 2}, {"characters": 3}, 0.2, _CHINESE, "MAP-NEO: of characters"),
        ("chinese_maximum_top_3", {"top_3": 3}, {"characters": 5}, 0.18, _CHINESE, "MAP-NEO: of characters"),
        ("chinese_maximum_top_4", {"top_4": 4}, {"characters": 7}, 0.16, _CHINESE, "MAP-NEO: of characters"),
        *(
            (f"chinese_maximum_repeated_{n}", f"repeated_{n}", "characters", threshold, _CHINESE, f"{_OURS} (MAP-NEO: 0.6 throughout)")
            for n, threshold in ((5, 0.6), (6, 0.56), (7, 0.52), (8, 0.48), (9, 0.44), (10, 0.4))
        ),
    ),
    *_rules(
        "c4",
        ("maximum_lorem_ipsum", "c4_lorem_ipsum", "", 0, _ALL, _C4),
        ("maximum_brackets", "c4_brackets", "", 0, _ALL, _C4),
        ("minimum_sentences", "c4_sentences", "", 5, _NOT_CHINESE, f"{_C4}, by datatrove"),
        ("chinese_minimum_sentences", "c4_sentences", "", 2, _CHINESE, "MAP-NEO: more than one"),
    ),
    *_rules(
        "fineweb",
        ("minimum_ended_lines", "ended_lines", "written_lines", 0.12, _NOT_CHINESE, _FINEWEB),
        ("chinese_minimum_ended_lines", "ended_lines", "written_lines", 0.106, _CHINESE, "FineWeb-2"),
        ("maximum_short_lines", "short_lines", "written_lines", 0.67, _ENGLISH, _FINEWEB),
        ("maximum_repeated_line_characters", "repeated_line_characters", {"characters": 1, "newlines": -1}, 0.01, _ENGLISH, f"{_FINEWEB}, E.4"),
        ("other_maximum_repeated_line_characters", "repeated_line_characters", {"characters": 1, "newlines": -1}, 0.1, _NOT_ENGLISH, "FineWeb-2"),
        ("maximum_newlines", "newlines", "words", 0.3, _SPACED, "datatrove"),
        ("chinese_maximum_newlines", "newlines", "words", 0.11, _CHINESE, "FineWeb-2: 0.178 of words"),
    ),
)  # fmt: skip
"""All rules, set by set, each set in the order in which they are tried."""

_BY_SET = {name: {rule.name: rule for rule in RULES if rule.set == name} for name in SETS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """The `[corpus.rules]` table."""

    sets: tuple[str, ...] = ()
    """Which rules documents are judged by: gopher_quality, gopher_repetition, c4, fineweb; none drops nothing."""
    change: dict[str, dict[str, float | int | bool]] = dataclasses.field(default_factory=dict)
    """Other thresholds: gopher_quality.minimum_words = 20; false does without a rule."""
    languages: tuple[Language, ...] = ()
    """Languages that are kept: en, zh, mixed, other; all of them where none is named."""
    scripts: tuple[Script, ...] = ()
    """Scripts that are kept: latin, simplified, traditional, both (of these two), han (Chinese without a character that
    tells), unspaced (Kana, Thai, …), other, none (no letters); all of them where none is named."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        for name in self.sets:
            if name not in SETS:
                raise InputError(f'there is no set of rules "{name}"', did_you_mean(name, SETS))
        if len(set(self.sets)) < len(self.sets):
            raise InputError(f"a set of rules is named twice: {', '.join(self.sets)}")
        for name in self.languages:
            if name not in get_args(Language):
                raise InputError(
                    f'languages: "{name}" is none that is told', did_you_mean(name, get_args(Language))
                )
        for script in self.scripts:
            if script not in get_args(Script):
                raise InputError(
                    f'scripts: "{script}" is none that is told', did_you_mean(script, get_args(Script))
                )
        for name, changes in self.change.items():
            self._check(name, changes)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is dropped."""
        return not (self.sets or self.languages or self.scripts)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in use, in the order in which they are tried."""
        chosen = []
        for name in self.sets:
            changes = self.change.get(name, {})
            for rule in _BY_SET[name].values():
                threshold = changes.get(rule.name, rule.threshold)
                if not isinstance(threshold, bool):
                    chosen.append(rule._replace(threshold=float(threshold)))
        return tuple(chosen)

    def _check(self, name: str, changes: Mapping[str, float | int | bool]) -> None:
        if name not in SETS:
            raise InputError(f'change: there is no set of rules "{name}"', did_you_mean(name, SETS))
        if name not in self.sets:
            raise InputError(f"change: {name} is not in use", f'name it in sets: sets = ["{name}"]')
        for rule, threshold in changes.items():
            where = f"change: {name}.{rule}"
            if rule not in _BY_SET[name]:
                raise InputError(f'change: {name} has no rule "{rule}"', did_you_mean(rule, _BY_SET[name]))
            if threshold is True:
                raise InputError(
                    f"{where} is true, expected a number or false", "leave it out to keep the rule as it is"
                )
            most = _MOST[bool(_BY_SET[name][rule].per)]
            if threshold is not False and not 0 <= threshold <= most:
                raise InputError(
                    f"{where} is {threshold}, expected 0 to {most}", "false does without the rule"
                )
            if threshold is not False and _millionths(float(threshold)) is None:
                raise InputError(f"{where} is {threshold}, expected six decimals at most")


class Verdicts(NamedTuple):
    """Why each document is dropped."""

    codes: UInt8[np.ndarray, " documents"]
    """The number of the first rule that drops it, in `names`; 0 where it is kept."""
    names: tuple[str, ...]
    """"" and then the keys of the rules in use."""


class Described(NamedTuple):
    """A line of the table of rules."""

    rule: str
    drops: str
    """What it drops, in the names of the features."""
    writings: tuple[Writing, ...]
    threshold: float | None
    """None where the settings do without it."""
    usual: float
    source: str


def judge(figures: Figures, settings: RuleSettings) -> Verdicts:
    """Returns for each document the first rule that drops it; `columns_of` says which figures that takes."""
    names, found = _apply(figures, settings)
    codes = np.zeros(len(_column(figures, "characters")), dtype=np.uint8)
    for i in range(len(found), 0, -1):
        codes[found[i - 1]] = i
    return Verdicts(codes, ("", *names))


def all_reasons(
    figures: Figures, settings: RuleSettings
) -> tuple[UInt64[np.ndarray, " documents"], tuple[str, ...]]:
    """Returns a bit for each rule that would drop a document, the first of the names the lowest, and their names.

    So a report can tell what each rule would drop alone.
    """
    names, found = _apply(figures, settings)
    bits = np.zeros(len(_column(figures, "characters")), dtype=np.uint64)
    for i, dropped in enumerate(found):
        bits |= dropped.astype(np.uint64) << np.uint64(i)
    return bits, names


def columns_of(settings: RuleSettings) -> tuple[str, ...]:
    """Returns the features that `judge` looks at, in their order."""
    rules = settings.rules
    used = {"characters", *(name for rule in rules for name in (*rule.top, *rule.per))}
    if not settings.is_empty:
        used |= {*(OF_SCRIPT if settings.scripts else OF_LANGUAGE)}
    return tuple(name for name in FEATURES if name in used)


def describe(settings: RuleSettings | None = None) -> list[Described]:
    """Returns a line for each rule of the sets in use, or of all sets: what it drops, in which writing, and its source."""
    if settings is None:
        settings = RuleSettings(sets=SETS)
    in_use = {rule.key: rule.threshold for rule in settings.rules}
    lines = []
    for rule in (rule for name in settings.sets for rule in _BY_SET[name].values()):
        threshold = in_use.get(rule.key)
        shown = rule.threshold if threshold is None else threshold
        per = f" / {_sum(rule.per)}" if rule.per else ""
        drops = f"{_sum(rule.top)}{per} {'<' if rule.is_minimum else '>'} {shown:g}"
        lines.append(Described(rule.key, drops, rule.writings, threshold, rule.threshold, rule.source))
    return lines


def writings_of(figures: Figures) -> dict[Writing, Bool[np.ndarray, " documents"]]:
    """Returns which documents are judged as what. Each is judged as one."""
    language = _languages(figures)
    han, latin, letters, unspaced = (
        _column(figures, name) for name in ("han", "latin", "letters", "unspaced")
    )
    has_letters, has_no_spaces = letters > 0, 2 * (unspaced + han) > letters
    is_other = (language == "other") & has_letters
    is_chinese = (language == "zh") | ((language == "mixed") & (HAN_WEIGHT * han > latin))
    return {
        "english": ~is_other & ~(is_chinese & has_letters),
        "chinese": is_chinese & has_letters,
        "spaced": is_other & ~has_no_spaces,
        "unspaced": is_other & has_no_spaces,
    }


def _languages(figures: Figures) -> Any:
    return np.array(languages_of(_matrix(figures, OF_LANGUAGE)), dtype="U5")


def _scripts(figures: Figures) -> Any:
    return np.array(script_of(_matrix(figures, OF_SCRIPT)), dtype="U11")


def _matrix(figures: Figures, names: Sequence[str]) -> Any:
    """Some features, in their columns; the others are 0."""
    columns = {name: _column(figures, name) for name in names}
    matrix = np.zeros((len(columns["letters"]), len(FEATURES)), dtype=np.int64)
    for i, name in enumerate(FEATURES):
        if name in columns:
            matrix[:, i] = columns[name]
    return matrix


def _apply(
    figures: Figures, settings: RuleSettings
) -> tuple[tuple[str, ...], list[Bool[np.ndarray, " documents"]]]:
    """Returns the names of the rules in use and which documents each of them drops."""
    rules = settings.rules
    names: list[str] = []
    found: list[Bool[np.ndarray, " documents"]] = []
    if settings.languages:
        names.append(LANGUAGE)
        found.append(~np.isin(_languages(figures), settings.languages))
    if settings.scripts:
        names.append(SCRIPT)
        found.append(~np.isin(_scripts(figures), settings.scripts))
    writings = writings_of(figures) if rules else {}
    for rule in rules:
        names.append(rule.key)
        found.append(np.logical_or.reduce([writings[name] for name in rule.writings]) & _drops(rule, figures))
    return tuple(names), found


def _drops(rule: Rule, figures: Figures) -> Bool[np.ndarray, " documents"]:
    """Whether the figure of each document is on the wrong side. What has nothing to be divided by is kept."""
    threshold = _millionths(rule.threshold)
    assert threshold is not None
    left = _MILLION * _added(rule.top, figures)
    right = threshold * _added(rule.per, figures) if rule.per else np.int64(threshold)
    dropped: Bool[np.ndarray, " documents"] = left < right if rule.is_minimum else left > right
    return dropped


def _added(terms: Mapping[str, int], figures: Figures) -> Any:
    return np.sum([factor * _column(figures, name) for name, factor in terms.items()], axis=0)


def _column(figures: Figures, name: str) -> Any:
    return np.asarray(figures[name]).astype(np.int64)


def _millionths(threshold: float) -> int | None:
    """Returns a threshold as it is written, in millionths; None where it is no whole number of them."""
    exact = decimal.Decimal(repr(threshold)) * _MILLION
    return int(exact) if exact == int(exact) else None


def _sum(terms: Mapping[str, int]) -> str:
    parts = [f"{'' if abs(factor) == 1 else f'{abs(factor)} '}{name}" for name, factor in terms.items()]
    signs = [" - " if factor < 0 else " + " for factor in terms.values()]
    joined = parts[0] + "".join(sign + part for sign, part in zip(signs[1:], parts[1:], strict=True))
    return f"({joined})" if len(parts) > 1 else joined
