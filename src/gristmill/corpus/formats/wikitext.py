"""The markup of MediaWiki to plain text: one pass over its tokens and one over its lines.

Links keep what they show; templates go, but those that only dress a text keep it; references, tables, galleries, files
and categories go; formulas and code stay. Every step is linear in the length: the deepest nesting that is followed is
bounded, and a tag that never closes is looked for once.
"""

import html
import re
from collections.abc import Callable

__all__ = ["plain_text"]

_MOST_DEPTH = 60
_TOKEN = re.compile(
    r"<!--|</?[A-Za-z][^<>]*>|\{\{|\}\}|^[ \t:*#]*\{\||^[ \t]*\|\}(?!\})|\[\[|\]\]|-\{(?!\{)|\}-|\[(?=(?:https?:)?//)|\]",
    re.M,
)
_TAG = re.compile(r"<(/?)([A-Za-z][\w-]*)")
_DROPPED = frozenset((
    "ref", "references", "gallery", "timeline", "imagemap", "score", "graph", "mapframe", "maplink", "templatestyles",
    "templatedata", "section", "hiero", "includeonly", "inputbox", "categorytree", "indicator", "style",
    "script",
))  # fmt: skip
_VERBATIM = frozenset((
    "nowiki", "pre", "code", "syntaxhighlight", "source", "math", "chem", "ce", "tt",
))  # fmt: skip
_ENCLOSING = _DROPPED | _VERBATIM
_OPENINGS = {"}}": "{{", "|}": "{|", "]]": "[[", "}-": "-{", "]": "["}
# Templates that stand in a sentence: which of their unnamed parts is the text, counted from the end or the beginning.
_LAST = frozenset((
    "nowrap", "nobr", "nobold", "small", "big", "smaller", "larger", "lang", "transl", "transliteration", "langx", "sic",
    "not_a_typo", "em", "strong", "keep_together", "lj", "linktext",
))  # fmt: skip
_FIRST = frozenset((
    "abbr", "tooltip", "ill", "interlanguage_link", "link-en", "internal_link_helper", "le", "nihongo", "zh-hans", "zh-hant",
    "quote", "blockquote", "cquote", "quotation", "poemquote",
))  # fmt: skip
_SIGNS = {
    "!": "|", "=": "=", "snd": " – ", "spnd": " – ", "spaced_ndash": " – ", "ndash": "–", "mdash": "—", "–": "–", "—": "—",
    "nbsp": " ", "space": " ", "'": "'", "·": " · ", "•": " • ", "dot": " · ", "bold_div": "", "times": "×", "circa": "c. ",
    "c.": "c. ", "fl.": "fl. ", "born": "born ", "died": "died ", "reign": "r. ",
}  # fmt: skip
_DROPPED_SPACES = frozenset((
    "file", "image", "media", "category", "文件", "檔案", "档案", "图像", "圖像", "分类", "分類", "category_talk", "datei", "bild",
    "kategorie", "fichier", "catégorie", "archivo", "categoría", "файл", "категория", "ファイル", "カテゴリ",
))  # fmt: skip
_INTERWIKI = re.compile(r"[a-z]{2,3}(?:-[a-z-]{2,12})?|simple")
_VARIANTS = ("zh-hans", "zh-cn", "zh", "zh-sg", "zh-my", "zh-hant", "zh-tw", "zh-hk", "zh-mo")
_HEADING = re.compile(r"(={1,6})[ \t]*(.+?)[ \t]*={1,6}[ \t]*")
_LIST = re.compile(r"([*#:;]+)[ \t]*(.*)")
_QUOTES = re.compile("'{2,5}")
_SWITCH = re.compile(r"__[A-Z]{3,30}__")
_EMPTY_BRACKETS = re.compile(r"[ \t]*\([ \t,;:/、，；：]*\)|（[\s,;:/、，；：]*）")
_BRACKET_LEFT = re.compile(r"([(（])[ \t,;:、，；：]+")
_SPACES = re.compile(r"[ \t]{2,}")
_SPACE_BEFORE = re.compile(r"[ \t]([,;.](?:\s|$))")
_BLANKS = re.compile(r"\n{3,}")


class _Frame:
    """Something that is open: its opening token and what is in it so far."""

    __slots__ = ("opening", "parts")

    def __init__(self, opening: str) -> None:
        self.opening = opening
        self.parts: list[str] = []


def plain_text(markup: str) -> str:
    """Returns the text of a page, "" where there is none. What is written badly is kept rather than guessed at."""
    lines = _lines(html.unescape(_without_markup(markup)))
    text = _BLANKS.sub("\n\n", "\n".join(_without_empty_sections(lines))).strip()
    return text.replace(_KEPT, "") + "\n" if text else ""


_KEPT = "\x01"
"""Stands at the beginning of lines of code, which are left as they are."""
_SECTION = "\x02"
"""Stands at the beginning of headings, with a digit for their level behind it, until empty ones are gone."""


def _without_markup(markup: str) -> str:
    markup = markup.replace(_KEPT, "").replace(_SECTION, "")
    stack = [_Frame("")]
    closers = _Closers(markup)
    place = 0
    while match := _TOKEN.search(markup, place):
        stack[-1].parts.append(markup[place : match.start()])
        token = match.group().strip(" \t:*#\n") if match.group()[0] != "<" else match.group()
        place = match.end()
        if token == "<!--":
            end = closers.find("-->", place)
            place = len(markup) if end < 0 else end + 3
        elif token[0] == "<":
            place = _tag(token, match.start(), place, markup, stack[-1].parts, closers)
        elif token in _OPENINGS:
            _close(token, stack)
        elif len(stack) <= _MOST_DEPTH:
            stack.append(_Frame(token))
        # deeper than anybody writes: the token is dropped, what it encloses stays
    stack[-1].parts.append(markup[place:])
    while len(stack) > 1:  # never closed: a text that was begun badly is still a text
        frame = stack.pop()
        stack[-1].parts += frame.parts
    return "".join(stack[0].parts)


class _Closers:
    """Finds closing tags, and remembers which are nowhere ahead."""

    def __init__(self, markup: str) -> None:
        self._markup = markup
        self._lower = markup.lower() if len(markup.lower()) == len(markup) else markup
        self._absent: set[str] = set()

    def find(self, closer: str, place: int) -> int:
        if closer in self._absent:
            return -1
        found = self._lower.find(closer, place)
        if found < 0:
            self._absent.add(closer)
        return found


def _tag(token: str, start: int, place: int, markup: str, parts: list[str], closers: _Closers) -> int:
    """Takes a tag, with what it encloses where that is no markup, and returns the place behind."""
    match = _TAG.match(token)
    assert match is not None
    closing, name = match.group(1), match.group(2).lower()
    if name in ("br", "hr", "p", "div", "li", "tr", "blockquote", "center", "poem"):
        parts.append("\n")
    if closing or token.endswith("/>") or name not in _ENCLOSING:
        return place
    end = closers.find(f"</{name}", place)
    if end < 0:
        return place
    behind = markup.find(">", end)
    if name in _VERBATIM:
        parts.append(_verbatim(name, markup[place:end]))
    return len(markup) if behind < 0 else behind + 1


def _verbatim(name: str, content: str) -> str:
    if name == "math":
        return f"${' '.join(content.split())}$"
    if "\n" in content.strip():
        return "\n" + "\n".join(_KEPT + line for line in content.strip("\n").split("\n")) + "\n"
    return content.strip() if name != "nowiki" else content


def _close(token: str, stack: list[_Frame]) -> None:
    """Ends the innermost thing that this token closes; what is still open within it was never closed."""
    opening = _OPENINGS[token]
    depth = next((i for i in range(len(stack) - 1, 0, -1) if stack[i].opening == opening), 0)
    if opening in ("[", "-{") and depth != len(stack) - 1:
        depth = 0  # a bracket in a text
    if not depth:
        if token in ("]", "}-"):
            stack[-1].parts.append(token)
        return
    while len(stack) > depth + 1:
        frame = stack.pop()
        stack[-1].parts += frame.parts
    frame = stack.pop()
    stack[-1].parts.append(_RENDER[opening]("".join(frame.parts)))


def _template(content: str) -> str:
    parts = [part.strip() for part in content.split("|")]
    name = parts[0].lower().replace(" ", "_")
    if name in _SIGNS:
        return _SIGNS[name] + (
            parts[1] if len(parts) > 1 and name in ("circa", "c.", "fl.", "born", "died") else ""
        )
    unnamed = [
        part.partition("=")[2] if part.startswith(("1=", "2=", "text=")) else part for part in parts[1:]
    ]
    unnamed = [part for part in unnamed if not re.match(r"[\w -]+=", part)]
    if not unnamed:
        return ""
    if name in _FIRST:
        return unnamed[0]
    if name in _LAST or name.startswith("lang-"):
        return unnamed[-1]
    if name in ("convert", "cvt") and len(unnamed) > 1:
        return f"{unnamed[0]} {unnamed[1]}"
    if name.startswith(("formatnum:", "as_of", "lc:", "uc:")):
        return parts[0].partition(":")[2] or f"as of {unnamed[0]}"
    return ""


def _link(content: str) -> str:
    target, bar, shown = content.partition("|")
    target = target.strip()
    space, colon, _ = target.partition(":")
    key = space.strip().lower().replace(" ", "_")
    if colon and space and (key in _DROPPED_SPACES or (not bar and _INTERWIKI.fullmatch(space))):
        return ""
    if bar:
        shown = shown.rpartition("|")[2] if "|" in shown else shown
        return shown.strip() or re.sub(r"^[^:]*:|\s*[(（][^()（）]*[)）]$|,.*$", "", target)
    return target.removeprefix(":").replace("_", " ").partition("#")[0] or target.removeprefix("#")


def _external(content: str) -> str:
    return content.partition(" ")[2].strip()


def _variant(content: str) -> str:
    """Returns one of the spellings in Chinese that -{zh-hans:…; zh-hant:…}- offers, simplified where there is one."""
    flags, bar, rest = content.partition("|")
    if bar:
        if set(flags.strip().upper().split(";")) & {"H", "T", "-", "D"}:
            return ""
        content = rest
    spellings = {}
    for part in content.split(";"):
        key, colon, value = part.partition(":")
        if colon and key.strip().lower() in _VARIANTS:
            spellings[key.strip().lower()] = value.strip()
    return next((spellings[key] for key in _VARIANTS if key in spellings), content if not spellings else "")


_RENDER: dict[str, Callable[[str], str]] = {
    "{{": _template,
    "{|": lambda _: "",
    "[[": _link,
    "[": _external,
    "-{": _variant,
}


def _lines(text: str) -> list[str]:
    """Returns the lines without the signs of headings, lists and quotes, and without what templates left behind."""
    lines: list[str] = []
    number = 0
    for line in text.split("\n"):
        if line.startswith(_KEPT):
            lines.append(line)
            continue
        line = _tidied(_SWITCH.sub("", _QUOTES.sub("", line)).rstrip())
        heading = _HEADING.fullmatch(line)
        item = _LIST.fullmatch(line)
        number = number + 1 if item and item.group(1)[-1] == "#" else 0
        if heading:
            lines += ["", f"{_SECTION}{len(heading.group(1))}{heading.group(2)}", ""]
        elif item:
            sign = {"*": "- ", "#": f"{number}. "}.get(item.group(1)[-1], "")
            lines.append(sign + item.group(2) if item.group(2) else "")
        elif line.lstrip().startswith("|"):  # of a table that was begun by a template
            continue
        else:
            lines.append(line.strip())
    return lines


def _tidied(line: str) -> str:
    line = _EMPTY_BRACKETS.sub("", _SPACES.sub(" ", line.replace("\xa0", " ")))
    return _SPACE_BEFORE.sub(r"\1", _BRACKET_LEFT.sub(r"\1", line))


def _without_empty_sections(lines: list[str]) -> list[str]:
    """Returns the lines without headings under which nothing is left."""
    kept: list[str] = []
    level = 0  # of the next heading that is kept
    text_follows = False
    for line in reversed(lines):
        if not line.startswith(_SECTION):
            text_follows = text_follows or bool(line.strip())
            kept.append(line)
            continue
        this = int(line[1])
        if text_follows or level > this:  # a section within it has text
            kept.append(line[2:])
            level, text_follows = this, False
    return kept[::-1]
