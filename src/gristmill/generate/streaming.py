"""Tokens in, text out, as soon as it is certain: whole characters, and nothing that may turn out to be a stop."""

import codecs
from collections.abc import Sequence
from typing import final

__all__ = ["TextStream"]


@final
class TextStream:
    r"""Turns the bytes of tokens into text.

    A character whose bytes are spread over several tokens comes out with the last of them; bytes that are no
    UTF-8 come out as U+FFFD. Text that could be the beginning of a stop string is held back until it is certain.

        stream = TextStream(stop=["\n\n"])
        stream.push(b"one\n")  -> "one"     # the line end may be half of the stop
        stream.push(b"two\n")  -> "\ntwo"
        stream.push(b"\nthree") -> ""       # stream.stopped is now True
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, data: bytes, *, final: bool = False) -> str:
        """Adds the bytes of a token (of the last one if `final`) and returns the text that is now certain."""
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(data, final)
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        certain = len(text) if final else self._certain(text)
        self._held = text[certain:]
        return text[:certain]

    def _certain(self, text: str) -> int:
        """How many characters can't belong to a stop: where the longest end that begins a stop starts."""
        longest = max(map(len, self._stop), default=1) - 1
        for at in range(max(0, len(text) - longest), len(text)):
            if any(stop.startswith(text[at:]) for stop in self._stop):
                return at
        return len(text)
