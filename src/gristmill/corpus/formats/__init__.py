"""Readers of what is more than rows and plain text: pages, archives, dumps, documents.

A module for each, imported when the first such file is met. What a reader needs beyond this package is in the extra
`documents`; that it is there is checked before any work is done.
"""

import importlib.util
from collections.abc import Iterable

from gristmill.errors import InputError

__all__ = ["NEEDS", "require"]

NEEDS = {
    "html": ("trafilatura",),
    "warc": ("trafilatura", "pypdf"),
    "pdf": ("pypdf",),
    "rest": ("docutils",),
}
"""Format -> the modules that its reader imports. What is not named here needs none."""


def require(formats: Iterable[str]) -> None:
    """Makes sure that all that these formats need is installed.

    Raises:
        InputError: something is not; the message names the formats, the hint what to install.
    """
    missing: dict[str, list[str]] = {}
    for name in sorted(set(formats)):
        for module in NEEDS.get(name, ()):
            if importlib.util.find_spec(module) is None:
                missing.setdefault(module, []).append(name)
    if missing:
        wanted = ", ".join(f"{module} (for {', '.join(names)})" for module, names in sorted(missing.items()))
        raise InputError(
            f"the sources need packages that are not installed: {wanted}",
            'pip install "gristmill[documents]", or leave such files out with exclude',
        )
