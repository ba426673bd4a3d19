"""XML as a stream of events, safe to read from anybody: no entities, and bounds on depth and on the size of a tag."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable
from xml.parsers import expat

from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.formats.common import one_line

__all__ = ["End", "Event", "Readable", "Start", "Text", "events"]

_CHUNK_BYTES = 64 << 10
_MOST_TAG_BYTES = 4 << 20
_MOST_DEPTH = 1000


@runtime_checkable
class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """Returns at most so many bytes, none at the end."""
        ...


class Start(NamedTuple):
    """The start of an element: its namespace, a space and its name; the byte where its tag begins."""

    name: str
    attributes: dict[str, str]
    place: int


class End(NamedTuple):
    """The end of an element; the byte where its end tag begins."""

    name: str
    place: int


class Text(NamedTuple):
    """A piece of text; there may be several in a row."""

    text: str


Event = Start | End | Text


def events(stream: Readable) -> Iterator[Event]:
    """Yields the elements and texts of a document.

    Raises:
        UnreadableError: it is not well-formed, breaks off, or declares entities, which could expand to anything.
    """
    waiting: list[Event] = []
    depth = 0
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_DEPTH:
            raise UnreadableError(
                f"its XML is more than {_MOST_DEPTH} elements deep", "leave the file out with exclude"
            )
        waiting.append(Start(name, attributes, parser.CurrentByteIndex))

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        waiting.append(End(name, parser.CurrentByteIndex))

    def entity(*_: object) -> None:
        raise UnreadableError("its XML declares entities", "leave the file out with exclude, or save it anew")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: waiting.append(Text(text))
    parser.EntityDeclHandler = entity
    fed = 0
    while True:
        data = stream.read(_CHUNK_BYTES)
        fed += len(data)
        try:
            parser.Parse(data, not data)
        except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: encodings
            yield from waiting
            what = "breaks off" if not data and fed else "is not well-formed"
            raise UnreadableError(f"its XML {what}: {one_line(error)}", "get the file again") from None
        yield from waiting
        waiting.clear()
        if not data:
            return
        if fed - parser.CurrentByteIndex > _MOST_TAG_BYTES:  # expat keeps a tag until it ends
            raise UnreadableError("its XML has a tag of more than 4 MiB", "leave the file out with exclude")
