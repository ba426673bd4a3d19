import textwrap
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from gristmill.corpus.decode import Encoding
from gristmill.corpus.formats import rest
from gristmill.corpus.formats.common import Broken, Record

pytest.importorskip("docutils")
UTF8 = Encoding("utf-8", 0, "ASCII")


def read(source: str) -> Record:
    record = rest.document(textwrap.dedent(source).encode(), UTF8)
    assert isinstance(record, Record), record
    return record


PEP = """\
PEP: 8
Title: Style Guide for Python Code
Author: Guido van Rossum <guido@python.org>,
        Barry Warsaw <barry@python.org>
Status: Active
Created: 05-Jul-2001


Introduction
============

This document gives coding conventions for the Python code comprising
the standard library in the main Python distribution.  Please see
:pep:`style guidelines for the C code <7>` and ``code`` [1]_.

- Limit all lines
  to 79 characters.
- Two

  paragraphs.

#. first
#. second

Correct::

    foo = long_function_name(var_one, var_two)

=====  =====
Left   Right
=====  =====
1      2
=====  =====

.. a comment

.. [1] Barry's style guide.
"""


def test_a_pep() -> None:
    record = rest.document(PEP.encode(), UTF8)
    assert record == Record(
        "Style Guide for Python Code\n\nIntroduction\n\nThis document gives coding conventions for the Python code comprising the "
        "standard library in the main Python distribution.  Please see style guidelines for the C code and code [1].\n\n"
        "- Limit all lines to 79 characters.\n- Two\n\n  paragraphs.\n\n1. first\n2. second\n\nCorrect:\n\n"
        "foo = long_function_name(var_one, var_two)\n\nLeft | Right\n1 | 2\n\n[1] Barry's style guide.\n",
        0,
        len(PEP.encode()),
        {"title": "Style Guide for Python Code", "date": "05-Jul-2001"},
    )


def test_what_sphinx_adds_keeps_its_text() -> None:
    record = read("""\
        Title
        =====

        :date: 2020-01-02

        See :ref:`the section <label>`, :class:`~a.B` and :py:func:`f`.

        .. toctree::
           :maxdepth: 2

           one
           two

        .. automodule:: a.b
           :members:

        .. versionadded:: 3.5
           The *argument*.

        .. code-block:: python
           :linenos:

           def f():
               return 1

        .. function:: f(x)
           :noindex:

           Returns :term:`x`.

           .. seealso:: `other`
        """)
    assert record.text == (
        "Title\n\nSee the section, a.B and f.\n\n3.5\n\nThe argument.\n\ndef f():\n    return 1\n\nf(x)\n\nReturns x.\n\nother\n"
    )
    assert record.metadata == {"title": "Title", "date": "2020-01-02"}


def test_chinese_lines_are_joined_without_spaces() -> None:
    assert read("民法调整平等主体的\n自然人之间的人身关系。\nIn English\ntoo.\n").text == (
        "民法调整平等主体的自然人之间的人身关系。 In English too.\n"
    )


def test_verse_keeps_its_lines() -> None:
    assert read("| 白玉誰家郎，\n| 回車渡天津。\n|   看花\n").text == "白玉誰家郎，\n回車渡天津。\n  看花\n"


def test_nothing_is_included_and_no_html_is_passed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret text")
    record = read(f"""\
        Before.

        .. include:: {secret}

        .. literalinclude:: {secret}

        .. raw:: html
           :file: {secret}

        .. raw:: html

           <b>secret text</b>

        .. csv-table::
           :file: {secret}

        .. image:: {secret}

        After.
        """)
    assert record.text == "Before.\n\nAfter.\n"


@pytest.mark.parametrize(
    "source",
    [
        "Title\n==\n\nText with `broken *markup ``here |and| there_.\n",
        "Title\n=====\n\nSub\n---\n\nTitle again, wrong\n~~~~~\n\nSub\n^^^\n\nText.\n",
        "=====  ====\nbroken table\n=====\n",
        ".. note::\n\nText.\n",
        "* a\nb\n",
        "A\n" * 3,
    ],
)
def test_broken_markup_is_no_reason_to_lose_a_text(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(source).text.strip()
    assert capsys.readouterr() == ("", "")


def test_depth_and_length_are_survived() -> None:
    for source in (
        "> " * 2000,
        "".join("  " * depth + "* a\n\n" for depth in range(150)),
        "a" * 200_000,
        "*" * 5000,
        ".. x::\n   " * 100,
    ):
        assert isinstance(rest.document(source.encode(), UTF8), Broken | Record)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    st.lists(
        st.sampled_from(
            [
                "\n",
                "\n\n",
                "  ",
                "* ",
                "a ",
                "::",
                ".. ",
                "x:: ",
                "`",
                "_",
                ":r:",
                "===",
                "|",
                "+--+",
                "[1]_",
                "中",
                "\0",
                "\x0c",
            ]
        )
    ).map("".join)
)
def test_any_text_gives_a_text_or_a_reason(source: str) -> None:
    assert isinstance(rest.document(source.encode(), UTF8), Broken | Record)


def test_bytes_that_are_not_text() -> None:
    item = rest.document(b"good text\n\xff", UTF8)
    assert isinstance(item, Broken)
    assert (item.reason, item.message) == ("undecodable", "byte 10 is not utf-8: invalid start byte")


@pytest.mark.shared_data
def test_a_real_pep(shared_data: Path) -> None:
    source = (shared_data / "raw_formats/pep.rst").read_bytes()
    record = rest.document(source, UTF8)
    assert isinstance(record, Record)
    assert len(record.text) > 0.85 * len(source)
    for markup in (":pep:", ".. code", "``", "]_", "====", "`_"):
        assert markup not in record.text
