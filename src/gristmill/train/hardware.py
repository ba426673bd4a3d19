"""What this machine is, and how fast it multiplies matrices: asked and measured, not assumed."""

import ctypes
import dataclasses
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "Peak",
    "describe_machine",
    "has_bfloat16_units",
    "keep_memory",
    "matmul_peak",
    "median_seconds",
    "peak_memory_bytes",
    "resident_bytes",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peak:
    """Floating-point operations per second of a large matrix product on this machine, now."""

    float32: float
    bfloat16: float

    def of(self, dtype: torch.dtype) -> float:
        """Returns the peak for a dtype."""
        return self.bfloat16 if dtype == torch.bfloat16 else self.float32


def matmul_peak(device: torch.device, seconds: float = 0.3) -> Peak:
    """Measures both peaks; the best of several products, for a machine that others use too is never at its peak."""
    return Peak(**{
        name: _measure(dtype, device, seconds) for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    })  # fmt: skip


def has_bfloat16_units(device: torch.device, peak: Peak | None = None) -> bool:
    """Returns whether a device multiplies bfloat16 faster than float32: by its features, or else as measured."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if _cpu_flags() & {"amx_bf16", "avx512_bf16"}:
        return True
    peak = peak or matmul_peak(device, 0.15)
    return peak.bfloat16 >= 1.2 * peak.float32


def _measure(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or best == float("inf"):
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Returns processor, cores, memory, accelerator and versions, for reports. No paths, no host name."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpu": torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else None,
        "features": [f for f in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f in _cpu_flags()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def resident_bytes() -> int:
    """Returns this process's resident memory now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def peak_memory_bytes() -> int:
    """Returns the most memory that this process has held resident; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_memory() -> None:
    """Tells glibc to keep freed memory in the process instead of handing each large block back at once.

    A training step frees and takes the same large blocks again and again; fetched anew from the system, their pages are
    cleared each time, which cost a tenth of a step. Elsewhere than on glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    trim_threshold, mmap_threshold = -1, -3  # names of mallopt(3)
    library.mallopt(
        mmap_threshold, 32 << 20
    )  # the largest that it takes; larger blocks come and go as before
    library.mallopt(trim_threshold, 2**31 - 1)


def median_seconds(function: Any, repetitions: int = 3) -> float:
    """Returns the median time of a call, after one that does not count."""
    function()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _cpu_name() -> str:
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    return next((set(line.split()) for line in _cpuinfo().splitlines() if line.startswith("flags")), set())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
