"""The compiled kernels of `kernels.c`, where this machine has a C compiler.

Without one everything works through plain torch operations; whoever prints says so once.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gristmill.native

__all__ = ["Kernels", "kernels", "library"]

SOURCE = Path(__file__).with_name("kernels.c")
HEADER = Path(__file__).with_name("storage.h")

# -ffast-math without the assumption that nothing is infinite or NaN: a diverging loss has to be seen

# -ffast-math without the assumption that nothing is infinite or NaN: a diverging loss has to be seen
FLAGS = (
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-freciprocal-math",
    "-fopenmp",
)


class Kernels:
    """The functions of `kernels.c`, called with tensors and numbers."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __call__(self, name: str, *arguments: Tensor | int | float | None) -> None:
        """Calls a function; tensors are passed by address and must be contiguous."""
        getattr(self._library, name)(*map(_argument, arguments))

    def typed(self, name: str, tensor: Tensor, *arguments: Tensor | int | float | None) -> None:
        """Calls the variant of a function for the storage type of `tensor`, its first argument."""
        suffix = "bf16" if tensor.dtype == torch.bfloat16 else "f32"
        self(f"{name}_{suffix}", tensor, *arguments)


def library(source: Path) -> ctypes.CDLL | None:
    """Returns a compiled C file of tensor kernels, or None where it can't be had."""
    return gristmill.native.library(source, FLAGS, HEADER)


@functools.cache
def kernels() -> Kernels | None:
    """Returns the compiled kernels of training, or None where `library` has none."""
    found = library(SOURCE)
    return None if found is None else Kernels(found)


def _argument(value: Tensor | int | float | None) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(value)
