"""reStructuredText as docutils parses it, and what Sphinx adds to it, to plain text.

Nothing that a document asks for is done: no file is included, no raw HTML passed, no configuration read. What docutils does
not know (Sphinx's roles and directives) keeps its text, but for those that stand for something made elsewhere.
"""

import functools
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from gristmill.corpus.decode import Encoding
from gristmill.corpus.formats.common import (
    Block,
    Broken,
    Record,
    Row,
    join_blocks,
    join_lines,
    one_line,
    preview,
)

__all__ = ["MAXIMUM_BYTES", "document"]

MAXIMUM_BYTES = 4 << 20
"""docutils reads 0.3 MB in a second."""
_MOST_DEPTH = 5
_UNKNOWN = re.compile(r'(?:Unknown directive type|Error in) "([^"]+)"')
_MADE_ELSEWHERE = re.compile(
    r"toctree|index|auto\w+|literalinclude|include|figure|image|graphviz|inheritance-diagram|plot|tabularcolumns|"
    r"currentmodule|module|highlight|default-domain|only|ifconfig|raw|contents|bibliography|jupyter-execute"
)
_CODE = (
    "code-block",
    "code",
    "sourcecode",
    "prompt",
    "ipython",
    "testcode",
    "testoutput",
    "doctest",
    "productionlist",
    "parsed-literal",
)
_DIRECTIVE = re.compile(r"\.\. (?:\|[^|\n]*\|[ \t]+)?[\w:+.\-]+::[ \t]*(.*)")
_OPTION = re.compile(r":[\w\- ]+:(?:[ \t].*)?")
_ROLE = re.compile(r"^(?::[\w+.:\-]+:)?`(.*)`(?::[\w+.:\-]+:)?$", re.S)
_TARGET = re.compile(r"^(.*?)\s*<[^<>]*>$", re.S)
# The header of a Python Enhancement Proposal, as in mail.
_HEADER = re.compile(r"\A\ufeff?\s*(?:[A-Z][A-Za-z-]*:[ \t]*.*\n(?:[ \t]+\S.*\n)*){2,}(?=\s*\n)")
_FIELD = re.compile(r"^([A-Z][A-Za-z-]*):[ \t]*(.*(?:\n[ \t]+\S.*)*)", re.M)


def document(data: bytes, encoding: Encoding) -> Record | Broken:
    """Returns the text of a document, with its title, and its date where it has one."""
    start, end = encoding.mark_bytes, len(data)
    try:
        source = data[start:].decode(encoding.name)
    except UnicodeDecodeError as error:
        message = f"byte {start + error.start:,} is not {encoding.name}: {error.reason}"
        return Broken(
            "undecodable", message, start, end, preview(data[start:].decode(encoding.name, "replace"))
        )
    try:
        text, metadata = _text(source)
    except Exception as error:  # of a library that is given what anybody wrote; RecursionError among them
        message = f"docutils can't read it: {type(error).__name__}: {one_line(error)}"
        return Broken("broken document", message, start, end, preview(source))
    return Record(text, start, end, metadata)


def _text(source: str) -> tuple[str, Row]:
    source = source.replace("\r\n", "\n")
    metadata: Row = {}
    header = _HEADER.match(source)
    if header is not None:
        fields = {name.lower(): " ".join(value.split()) for name, value in _FIELD.findall(header.group())}
        metadata = {
            name: fields[key] for name, key in (("title", "title"), ("date", "created")) if fields.get(key)
        }
        source = source[header.end() :]
    tree = _parsed(source)
    blocks = list(_blocks(tree, _MOST_DEPTH))
    if header is not None and "title" in metadata:
        blocks.insert(0, Block(metadata["title"]))
    found = tree.get("title")
    if found and "title" not in metadata:
        metadata["title"] = " ".join(found.split())
    for name, value in _fields(tree):
        if name == "date" and "date" not in metadata:
            metadata["date"] = value
    return join_blocks(blocks), metadata


def _parsed(source: str) -> Any:
    from docutils.core import publish_doctree

    return publish_doctree(source, settings_overrides=_settings())


@functools.cache
def _settings() -> dict[str, Any]:
    return {
        "_disable_config": True, "file_insertion_enabled": False, "raw_enabled": False, "warning_stream": False, "report_level": 3,
        "halt_level": 5, "traceback": True, "input_encoding": "unicode", "output_encoding": "unicode", "smart_quotes": False,
        "syntax_highlight": "none", "sectsubtitle_xform": False, "doctitle_xform": True, "docinfo_xform": True, "strip_comments": True,
        "line_length_limit": MAXIMUM_BYTES, "exit_status_level": 5, "embed_stylesheet": False,
    }  # fmt: skip


def _fields(tree: Any) -> Iterator[tuple[str, str]]:
    from docutils import nodes

    for info in tree.findall(nodes.docinfo):
        for field in info:
            if isinstance(field, nodes.field):
                yield field[0].astext().strip().lower(), " ".join(field[1].astext().split())
            else:
                yield type(field).__name__, " ".join(field.astext().split())


def _blocks(node: Any, depth: int) -> Iterator[Block]:
    """Yields what can be read of a node, in order; `depth` bounds how often unknown directives are parsed again."""
    from docutils import nodes

    for child in node.children:
        if isinstance(child, nodes.system_message):
            yield from _unknown(child, depth)
        elif isinstance(child, nodes.docinfo | nodes.comment | nodes.Invisible | nodes.image | nodes.raw) or (
            isinstance(child, nodes.topic) and "contents" in child["classes"]
        ):
            continue
        elif isinstance(child, nodes.literal_block | nodes.doctest_block | nodes.math_block):
            yield Block(child.astext().strip("\n"))
        elif isinstance(child, nodes.line_block):
            yield Block(_verse(child))
        elif isinstance(child, nodes.TextElement):
            yield Block(join_lines(_inline(child)))
        elif isinstance(child, nodes.bullet_list | nodes.enumerated_list):
            yield from _items(child, depth)
        elif isinstance(child, nodes.row):
            cells = (
                " ".join(block.text.replace("\n", " ") for block in _blocks(cell, depth)) for cell in child
            )
            yield Block(" | ".join(cells), "table")
        elif isinstance(child, nodes.footnote | nodes.citation):
            label = next((part.astext() for part in child if isinstance(part, nodes.label)), "")
            body = [block.text for block in _blocks(child, depth)]
            yield Block(f"[{label}] " + " ".join(text for text in body if text != label), "notes")
        else:
            yield from _blocks(child, depth)


def _items(items: Any, depth: int) -> Iterator[Block]:
    from docutils import nodes

    number = items.get("start", 1)
    for item in items:
        blocks = list(_blocks(item, depth))
        sign = f"{number}." if isinstance(items, nodes.enumerated_list) else "-"
        number += 1
        if blocks:
            yield Block(f"{sign} {blocks[0].text}", "list")
            yield from (Block(textwrap.indent(block.text, "  "), block.group) for block in blocks[1:])


def _verse(node: Any) -> str:
    from docutils import nodes

    return "\n".join(
        textwrap.indent(_verse(child), "  ") if isinstance(child, nodes.line_block) else _inline(child)
        for child in node
    )


def _inline(node: Any) -> str:
    """Returns the text of a paragraph, with the text of roles that docutils does not know."""
    from docutils import nodes

    parts = []
    for child in node.children:
        if isinstance(child, nodes.Text):
            parts.append(child.astext())
        elif isinstance(child, nodes.problematic):
            parts.append(_role(child.astext()))
        elif isinstance(child, nodes.footnote_reference | nodes.citation_reference):
            parts.append(f"[{child.astext()}]")
        elif not isinstance(child, nodes.image | nodes.raw):
            parts.append(_inline(child))
    return "".join(parts)


def _role(source: str) -> str:
    r"""Returns what `:role:\`title <target>\`` shows, and anything else as it is."""
    match = _ROLE.match(source)
    if match is None:
        return source
    titled = _TARGET.match(match.group(1))
    return (
        titled.group(1) if titled and titled.group(1) else match.group(1).removeprefix("~").removeprefix("!")
    )


def _unknown(message: Any, depth: int) -> Iterator[Block]:
    """Yields the text of a directive that docutils does not know, and what it could not read (a broken table)."""
    from docutils import nodes

    found = _UNKNOWN.search(message.astext())
    source = next((child.astext() for child in message if isinstance(child, nodes.literal_block)), "")
    lines = source.split("\n")
    head = _DIRECTIVE.match(lines[0])
    if head is None:
        yield Block(source)
        return
    if found is None or depth == 0 or _MADE_ELSEWHERE.fullmatch(found.group(1).rpartition(":")[2]):
        return
    body = textwrap.dedent("\n".join(lines[1:])).split("\n")
    while body and (not body[0].strip() or _OPTION.fullmatch(body[0].strip())):
        body.pop(0)
    text = "\n".join(body)
    if found.group(1) in _CODE:
        yield Block(text.rstrip())
        return
    title = head.group(1).strip()
    if "`" in title:
        text = f"{title}\n\n{text}"
    elif title:
        yield Block(title)
    yield from _blocks(_parsed(text), depth - 1)
