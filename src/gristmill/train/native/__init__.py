"""The compiled part of the optimizer, where this machine has a C compiler."""

import functools
from pathlib import Path

from gristmill.model.native import Kernels, library

__all__ = ["PARTS", "kernels"]

SOURCE = Path(__file__).with_name("adam.c")
PARTS = 64
"""Sums of squares are over so many parts, as in the file."""


@functools.cache
def kernels() -> Kernels | None:
    """Returns the functions of `adam.c`, or None where they can't be had."""
    found = library(SOURCE)
    return None if found is None else Kernels(found)
