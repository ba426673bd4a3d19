"""C files compiled on this machine, once for each version, into the user's cache folder.

Whoever uses one has an equivalent in Python beside it: without a compiler everything works, more slowly.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["library"]

FLAGS = ("-O3", "-march=native", "-fPIC")
WIDE_VECTORS = "-mprefer-vector-width=512"  # gcc and clang prefer 256 bits where a processor has 512


@functools.cache
def library(source: Path, flags: tuple[str, ...] = (), include: Path | None = None) -> ctypes.CDLL | None:
    """Returns a compiled C file, or None where it can't be had (no compiler, another system than Linux).

    `include` is the header that it needs, if it does. GRISTMILL_NATIVE=0 in the environment does without.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if os.environ.get("GRISTMILL_NATIVE") == "0" or platform.system() != "Linux" or compiler is None:
        return None
    options = [*FLAGS, *flags, *([WIDE_VECTORS] if "avx512" in _cpu() else [])]
    identity = source.read_text() + " ".join(options) + compiler + _cpu()
    if include is not None:
        identity += include.read_text()
        options.append(f"-I{include.parent}")
    name = f"{source.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    for folder in _folders():
        target = folder / name
        try:
            if not target.is_file():
                _compile(compiler, options, source, target)
            return ctypes.CDLL(str(target))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _compile(compiler: str, options: Sequence[str], source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / "kernels.o"
        subprocess.run(
            [compiler, *options, "-c", str(source), "-o", str(built)],
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
