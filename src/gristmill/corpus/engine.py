"""Where the work of a corpus is done: here, in processes of this machine, or on a Ray cluster.

Two things are asked of an engine: to call a function for each of many items, and to group numbers. Neither carries
text. Calls go to processes of ours, or are tasks of Ray; numbers are sorted here, or grouped by Daft on Ray. With one worker
nothing is started, and the results are the same to the byte.
"""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Int

from gristmill.corpus.worker import Worker, WorkerDiedError
from gristmill.errors import InputError, RunError

__all__ = ["EngineSettings", "groups", "run_all"]

Item = TypeVar("Item")
_ATTEMPTS = 2
PART_DOCUMENTS = 2_000_000
"""So many documents' hashes are grouped at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """The `[corpus.engine]` table: how many work, and where. None of it changes the corpus."""

    name: Literal["native", "ray"] = "native"
    """"native": processes on this machine. "ray": a Ray cluster, that of `address` or one on this machine."""
    workers: Annotated[int, Ge(1)] | None = None
    """How many work at a time; by default one for each core."""
    address: str | None = None
    """Of a Ray cluster, ray://host:10001 for instance."""

    @property
    def resolved_workers(self) -> int:
        """How many work at a time."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    work: Callable[[Item], dict[str, Any]],
    items: Sequence[Item],
    settings: EngineSettings,
    *,
    name_of: Callable[[Item], str],
    is_done: Callable[[Item], dict[str, Any] | None],
) -> Iterator[dict[str, Any]]:
    """Calls `work` for each item that is not done and yields what it returns, as they are finished.

    `work` writes its outcome to the disk, whole or not at all, before it returns; `is_done` finds it there, so that a
    run that was killed does again what was being done and no more. Work whose worker dies is given to another once.

    Raises:
        RunError: an item's workers died twice; what is finished stays.
    """
    waiting = []
    for item in items:
        found = is_done(item)
        if found is None:
            waiting.append(item)
        else:
            yield found
    workers = min(settings.resolved_workers, len(waiting))
    if settings.name == "ray" and waiting:
        yield from _on_ray(work, waiting, settings, name_of)
    elif workers > 1:
        yield from _in_processes(work, waiting, workers, name_of)
    else:
        yield from map(work, waiting)


def _in_processes(
    work: Callable[[Item], dict[str, Any]],
    items: Sequence[Item],
    workers: int,
    name_of: Callable[[Item], str],
) -> Iterator[dict[str, Any]]:
    """Each of some threads has a process that it asks for one outcome after the other."""
    owned = threading.local()
    started: list[Worker] = []
    ending = threading.Event()

    def outcome_of(item: Item) -> dict[str, Any]:
        reason = ""
        for _ in range(_ATTEMPTS):
            if getattr(owned, "worker", None) is None:
                owned.worker = Worker()
                started.append(owned.worker)
            try:
                outcome: dict[str, Any] = owned.worker.call(work, item)
            except WorkerDiedError as error:
                reason, owned.worker = str(error), None
                if ending.is_set():
                    break
            else:
                return outcome
        raise _died(name_of(item), reason)

    with ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(outcome_of, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            ending.set()
            for worker in started:
                worker.kill()
            threads.shutdown(cancel_futures=True)
            for worker in started:
                worker.close()


def _on_ray(
    work: Callable[[Item], dict[str, Any]],
    items: Sequence[Item],
    settings: EngineSettings,
    name_of: Callable[[Item], str],
) -> Iterator[dict[str, Any]]:
    ray = _ray(settings)
    task = ray.remote(work).options(num_cpus=1, max_retries=_ATTEMPTS - 1)
    running = {task.remote(item): item for item in items}
    while running:
        (ready,), _ = ray.wait(list(running), num_returns=1)
        item = running.pop(ready)
        try:
            yield ray.get(ready)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            raise _died(name_of(item), str(error).splitlines()[0]) from None
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None


def _died(name: str, reason: str) -> RunError:
    return RunError(
        f"a worker died {_ATTEMPTS} times while {name} was read: {reason}",
        "it may be short of memory: set corpus.engine.workers lower; the same command goes on from here",
    )


def _ray(settings: EngineSettings) -> Any:
    """Ray, connected to the cluster that the settings name, or to one of this machine's; it tells its makers nothing."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError:
        raise InputError('the engine "ray" is not installed', 'pip install "gristmill[ray]"') from None
    if not ray.is_initialized():
        ray.init(
            address=settings.address, num_cpus=None if settings.address else settings.resolved_workers,
            include_dashboard=False, log_to_driver=False, configure_logging=False,
        )  # fmt: skip
    return ray


@contextlib.contextmanager
def _quiet_daft(settings: EngineSettings) -> Iterator[Any]:
    """Daft without telemetry and progress bars, on the runner that the settings name."""
    os.environ |= {"DO_NOT_TRACK": "1", "DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}
    import daft

    if settings.name == "ray":
        _ray(settings)
        daft.set_runner_ray(settings.address, noop_if_initialized=True)
    yield daft


def groups(
    files: Sequence[Path], column: str, settings: EngineSettings, *, documents: int
) -> Iterator[tuple[Int[np.ndarray, " keys"], Int[np.ndarray, " groups"]]]:
    """Yields the keys of rows that share a value other than 0 in a column of parquet files, in parts of bounded memory.

    Of each part: the keys, group after group, ascending in each, and how many each group has. `documents` is the number
    of rows in all. The order of the groups is that of their first keys within a part.
    """
    parts = max(1, -(-documents // PART_DOCUMENTS))
    found = (
        _by_daft(files, column, settings, parts)
        if settings.name == "ray"
        else _by_sorting(files, column, parts)
    )
    for keys, counts in found:
        if len(keys):
            yield _sorted_groups(keys, counts)


def _by_sorting(files: Sequence[Path], column: str, parts: int) -> Iterator[tuple[Any, Any]]:
    """Yields the keys of each part, group after group, and how many each group has. Only what is in groups is moved."""
    nothing = np.array([], np.int64), np.array([], np.uint64)
    for part in range(parts):
        pieces = [nothing, *(_columns(file, column, part, parts) for file in files)]
        keys, values = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        del pieces
        order = np.argsort(values)
        values = values[order]
        same = values[1:] == values[:-1]
        is_in_group = np.zeros(len(values), dtype=bool)
        is_in_group[1:] |= same
        is_in_group[:-1] |= same
        keys, values = keys[order[is_in_group]], values[is_in_group]
        firsts = np.flatnonzero(np.diff(values, prepend=~values[:1]))
        yield keys, np.diff(firsts, append=len(values))


def _columns(file: Path, column: str, part: int, parts: int) -> tuple[Any, Any]:
    """The keys of a file's rows, and their values in a column, where these are of a part and not 0."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table_file:  # a quarter of what read_table takes
        table = table_file.read(columns=["key", column], use_threads=False)
    keys, values = table["key"].to_numpy(), table[column].to_numpy()
    chosen = values != 0
    if parts > 1:
        chosen &= values % np.uint64(parts) == part
    return keys[chosen], values[chosen]


def _by_daft(
    files: Sequence[Path], column: str, settings: EngineSettings, parts: int
) -> Iterator[tuple[Any, Any]]:
    """Yields the same, grouped by Daft."""
    with _quiet_daft(settings) as daft:
        frame = daft.read_parquet([str(file) for file in files]).select("key", column)
        value = daft.col(column)
        for part in range(parts):
            chosen = (
                frame.where((value != 0) & (value % parts == part)) if parts > 1 else frame.where(value != 0)
            )
            found = chosen.groupby(column).agg(
                daft.col("key").list_agg().alias("keys"), daft.col("key").count().alias("count")
            )
            table = found.where(daft.col("count") > 1).select("keys", "count").to_arrow()
            keys = table["keys"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            yield keys.astype(np.int64), table["count"].to_numpy().astype(np.int64)


def _sorted_groups(keys: Any, counts: Any) -> tuple[Any, Any]:
    group = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((keys, group))
    keys = keys[order]
    firsts = keys[np.cumsum(counts) - counts]
    by_first = np.argsort(firsts, kind="stable")
    rank = np.empty_like(by_first)
    rank[by_first] = np.arange(len(by_first))
    order = np.argsort(rank[group], kind="stable")
    return keys[order], counts[by_first]
