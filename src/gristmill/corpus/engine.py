"""Where the work of a corpus is done: here, in processes of this machine, or on a Ray cluster.

Two things are asked of an engine: to call a function for each of many items, and to group numbers. Neither carries
text. Daft does both; with one worker nothing is started, and the results are the same to the byte.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Int

from gristmill.errors import InputError, RunError

__all__ = ["EngineSettings", "groups", "run_all"]

Item = TypeVar("Item")
_ATTEMPTS = 2
PART_DOCUMENTS = 4_000_000
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

    `work` writes its outcome to the disk, whole or not at all, before it returns; `is_done` finds it there, so that
    what a dead worker leaves is done by another. A worker that dies twice over the same work ends the run.

    Raises:
        RunError: workers died, on different items or on one; what is finished stays.
    """
    waiting = []
    for item in items:
        found = is_done(item)
        if found is None:
            waiting.append(item)
        else:
            yield found
    workers = min(settings.resolved_workers, len(waiting))
    if workers <= 1 and settings.name == "native":
        for item in waiting:
            yield work(item)
        return
    for attempt in range(_ATTEMPTS):
        if not waiting:
            return
        done: set[int] = set()
        try:
            for index, outcome in _by_daft(work, waiting, settings, workers):
                done.add(index)
                yield outcome
        except _WorkerDied as error:
            left = [item for i, item in enumerate(waiting) if i not in done]
            finished = {i: is_done(item) for i, item in enumerate(left)}
            yield from (outcome for outcome in finished.values() if outcome is not None)
            waiting = [item for i, item in enumerate(left) if finished[i] is None]
            if attempt + 1 == _ATTEMPTS and waiting:
                raise RunError(
                    f"a worker died while {name_of(waiting[0])} was read: {error}",
                    "it may be short of memory: set corpus.engine.workers lower; the same command goes on from here",
                ) from None
        else:
            return


class _WorkerDied(Exception):
    """A process of the engine is gone."""


@contextlib.contextmanager
def _quiet_daft(settings: EngineSettings) -> Iterator[Any]:
    """Daft without telemetry and progress bars, on the runner that the settings name."""
    os.environ |= {"DO_NOT_TRACK": "1", "DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}
    import daft

    if settings.name == "ray":
        try:
            import ray
        except ModuleNotFoundError:
            raise InputError('the engine "ray" is not installed', 'pip install "gristmill[ray]"') from None
        if not ray.is_initialized():
            ray.init(
                address=settings.address, num_cpus=None if settings.address else settings.resolved_workers,
                include_dashboard=False, log_to_driver=False, configure_logging=False,
            )  # fmt: skip
        daft.set_runner_ray(settings.address, noop_if_initialized=True)
    yield daft


def _by_daft(
    work: Callable[[Item], dict[str, Any]], items: Sequence[Item], settings: EngineSettings, workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    with _quiet_daft(settings) as daft:
        call = _caller(daft, work, items, workers)
        frame = daft.from_pydict({"index": list(range(len(items)))})
        if settings.name == "ray":
            frame = frame.into_partitions(len(items))
        frame = frame.select(call(frame["index"]).alias("outcome"))
        try:
            for row in frame.iter_rows(results_buffer_size=1):
                outcome = json.loads(row["outcome"])
                yield outcome["index"], outcome["value"]
        except Exception as error:
            text = str(error)
            if (
                "closed the connection" in text
                or "WorkerCrashed" in text
                or "ActorDied" in text
                or "OutOfMemory" in text
            ):
                raise _WorkerDied(text.splitlines()[0][:200]) from error
            raise


def groups(
    files: Sequence[Path], column: str, settings: EngineSettings, *, documents: int
) -> Iterator[tuple[Int[np.ndarray, " keys"], Int[np.ndarray, " groups"]]]:
    """Yields the keys of rows that share a value other than 0 in a column of parquet files, in parts of bounded memory.

    Of each part: the keys, group after group, ascending in each, and how many each group has. `documents` is the number
    of rows in all. The order of the groups is that of their first keys within a part.
    """
    parts = max(1, documents // PART_DOCUMENTS)
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
            if table.num_rows:
                yield _sorted_groups(table["keys"].combine_chunks(), table["count"].to_numpy())


def _sorted_groups(lists: Any, counts: Any) -> tuple[Any, Any]:
    counts = counts.astype(np.int64)
    keys = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    group = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((keys, group))
    keys = keys[order]
    firsts = keys[np.cumsum(counts) - counts]
    by_first = np.argsort(firsts, kind="stable")
    rank = np.empty_like(by_first)
    rank[by_first] = np.arange(len(by_first))
    order = np.argsort(rank[group], kind="stable")
    return keys[order], counts[by_first]


def _caller(daft: Any, work: Callable[[Item], dict[str, Any]], items: Sequence[Item], workers: int) -> Any:
    """A Daft function from the index of an item to the JSON of its outcome, in processes of its own."""

    class Caller:
        def __init__(self, work: Callable[[Item], dict[str, Any]], items: Sequence[Item]) -> None:
            self.work, self.items = work, items

        def __call__(self, index: Any) -> list[str]:
            return [json.dumps({"index": i, "value": self.work(self.items[i])}) for i in index.to_pylist()]

    Caller.__call__ = daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)(Caller.__call__)
    return daft.cls(Caller, use_process=True, max_concurrency=workers)(work, list(items))


def temporary(path: Path) -> Path:
    """Returns where a file is written before it is renamed: two workers never use the same."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
