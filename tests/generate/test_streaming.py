"""Text comes out in whole characters, and never a part of a stop string."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gristmill.generate.streaming import TextStream


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def run(stream: TextStream, parts: list[bytes]) -> list[str]:
    return [stream.push(part, final=i == len(parts) - 1) for i, part in enumerate(parts)]


def test_a_character_comes_with_its_last_byte():
    stream = TextStream()
    assert [stream.push(bytes([byte])) for byte in "床".encode()] == ["", "", "床"]


def test_a_stop_is_found_across_tokens_and_ends_the_text_before_it():
    stream = TextStream(["\n\n"])
    assert [stream.push(data) for data in (b"one\n", b"two\n", b"\nthree", b"four")] == [
        "one",
        "\ntwo",
        "",
        "",
    ]
    assert stream.stopped


def test_text_that_only_began_like_a_stop_is_not_lost():
    stream = TextStream(["abcd"])
    assert [stream.push(b"xab"), stream.push(b"ab"), stream.push(b"c", final=True)] == ["x", "ab", "abc"]


def test_bytes_that_are_no_text_become_replacement_characters():
    stream = TextStream()
    assert stream.push(b"a\xff") + stream.push(b"b\xe5", final=True) == "a\ufffdb\ufffd"


@given(st.text(max_size=20), st.lists(st.integers(0, 100), max_size=8))
def test_any_cutting_of_the_bytes_gives_the_same_text(text, cuts):
    out = run(TextStream(), pieces(text.encode(), cuts))
    assert "".join(out) == text
    assert "\ufffd" in text or not any("\ufffd" in part for part in out)


@given(
    st.text("ab\n", max_size=20),
    st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 100), max_size=8),
)
def test_the_text_ends_at_the_earliest_stop_however_it_is_cut(text, stops, cuts):
    stream = TextStream(stops)
    shown = "".join(run(stream, pieces(text.encode(), cuts)))
    first = min((text.find(stop) for stop in stops if stop in text), default=None)
    assert not any(stop in shown for stop in stops)
    assert stream.stopped == (first is not None)
    if first is None:
        assert shown == text
    else:
        assert text.startswith(shown)
