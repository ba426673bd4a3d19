"""The compiled kernels of `kernels.c`, where this machine has a C compiler.

They are compiled in some seconds, once for each machine and version, into the user's cache folder. Without a
compiler everything works through plain torch operations; whoever prints says so once.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["Kernels", "kernels", "library"]

SOURCE = Path(__file__).with_name("kernels.c")
HEADER = Path(__file__).with_name("storage.h")

# -ffast-math without the assumption that nothing is infinite or NaN: a diverging loss has to be seen
FLAGS = [
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-freciprocal-math",
    "-fopenmp",
    "-fPIC",
]
WIDE_VECTORS = "-mprefer-vector-width=512"  # gcc and clang prefer 256 bits where a processor has 512


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


@functools.cache
def kernels() -> Kernels | None:
    """Returns the compiled kernels of training, or None where `library` has none."""
    found = library(SOURCE)
    return None if found is None else Kernels(found)


@functools.cache
def library(source: Path) -> ctypes.CDLL | None:
    """Returns a compiled C file, or None where it can't be had (no compiler, another system than Linux).

    GRISTMILL_NATIVE=0 in the environment does without.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if os.environ.get("GRISTMILL_NATIVE") == "0" or platform.system() != "Linux" or compiler is None:
        return None
    identity = source.read_text() + HEADER.read_text() + " ".join([*FLAGS, WIDE_VECTORS]) + compiler + _cpu()
    name = f"{source.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    for folder in _folders():
        target = folder / name
        try:
            if not target.is_file():
                _compile(compiler, source, target)
            return ctypes.CDLL(str(target))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _compile(compiler: str, source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    wide = [WIDE_VECTORS] if "avx512" in _cpu() else []
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / "kernels.o"
        subprocess.run(
            [compiler, *FLAGS, *wide, f"-I{HEADER.parent}", "-c", str(source), "-o", str(built)],
            check=True,
            capture_output=True,
            timeout=120,
        )
        # linked without -fopenmp: the symbols resolve to the OpenMP that torch has loaded; two would fight for cores
        shared = built.with_suffix(".so")
        subprocess.run(
            [compiler, "-shared", str(built), "-o", str(shared), "-lm"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        shared.replace(target)


def _folders() -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [cache / "gristmill", Path(tempfile.gettempdir()) / f"gristmill-{os.getuid()}"]


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    return next((line for line in text.splitlines() if line.startswith("flags")), platform.machine())


def _argument(value: Tensor | int | float | None) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(value)
