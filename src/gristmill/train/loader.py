"""From packed rows to batches, off the training thread; where it stands is two numbers."""

import dataclasses
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Int

from gristmill.augment.tokens import Noise
from gristmill.batch import Batch
from gristmill.corpus.mix import Schedule, schedule
from gristmill.corpus.rows import Plan, places_of_rows, plan_epoch, plan_round, read_rows
from gristmill.corpus.shards import TokenStore
from gristmill.objectives.base import Objective
from gristmill.rng import derive, stream
from gristmill.train.schedule import parse_budget
from gristmill.train.settings import PretrainSettings
from gristmill.vocabulary import Vocabulary

__all__ = ["Cursor", "Loader", "Step", "schedule_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """The next row to be read. Rows are a function of (seed, epoch), so nothing else has to be kept."""

    epoch: int
    """Of a mix: the round."""
    row: int


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """The micro-batches of one optimizer step, and where the next step begins."""

    batches: tuple[Batch, ...]
    documents: tuple[str, ...]
    """The ids of the documents in it, for messages."""
    tokens: int
    """Positions that are not padding."""
    after: Cursor


class Loader:
    """Prepares each step while the one before it is computed. A context manager: it owns a thread."""

    def __init__(  # noqa: PLR0913 - all but two named
        self,
        store: TokenStore,
        objective: Objective,
        *,
        row_tokens: int,
        rows: int,
        micro_rows: int,
        seed: int,
        vocabulary: Vocabulary | None = None,
        mix: Schedule | None = None,
        noise: Noise | None = None,
    ) -> None:
        self.store, self.objective, self.row_tokens = store, objective, row_tokens
        self.vocabulary, self.noise = vocabulary, noise
        self.rows, self.micro_rows, self.seed = rows, micro_rows, seed
        self._lengths = np.diff(store.offsets)
        self._mix = mix
        self._members = [np.flatnonzero(store.groups == i) for i in range(len(mix.groups))] if mix else []
        self._plans: dict[int, Plan] = {}
        self._planning = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._next: tuple[Cursor, int, int, Future[Step]] | None = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def step(self, cursor: Cursor, number: int, steps: int) -> Step:
        """Returns step `number` of `steps` beginning at `cursor`: a pure function of them, of the seed and the data."""
        if self._next is not None and self._next[:3] == (cursor, number, steps):
            result = self._next[3].result()
        else:  # also where a plan of wall time was corrected: rates may follow the share that is done
            result = self._pool.submit(self._prepare, cursor, number, steps).result()
        following = self._pool.submit(self._prepare, result.after, number + 1, steps)
        self._next = (result.after, number + 1, steps, following)
        return result

    def places(self, number: int) -> Int[np.ndarray, "B T"]:
        """Returns where in the store each token of a step stands, counted from step 1: -1 for padding.

        Of the rows as they are before the objective hides or moves anything.
        """
        cursor, skip = Cursor(0, 0), (number - 1) * self.rows
        while skip >= (rows := self.plan(cursor.epoch).rows):
            cursor, skip = Cursor(cursor.epoch + 1, 0), skip - rows
        parts, _ = self._rows_from(Cursor(cursor.epoch, skip))
        return np.concatenate([places_of_rows(self.store, plan, rows) for plan, rows in parts])

    def plan(self, epoch: int) -> Plan:
        """Returns the rows of an epoch, or of a round of a mix; the last two asked for are kept."""
        with self._planning:  # asked from the training thread too
            return self._planned(epoch)

    def _planned(self, epoch: int) -> Plan:
        if epoch not in self._plans:
            while len(self._plans) > 1:
                self._plans.pop(min(self._plans))
            self._plans[epoch] = self._make(epoch)
        return self._plans[epoch]

    def _make(self, epoch: int) -> Plan:
        lookahead = self.objective.lookahead
        if self._mix is None:
            return plan_epoch(
                self._lengths, self.row_tokens, seed=self.seed, epoch=epoch, lookahead=lookahead
            )
        begins, ends = self._mix.window(epoch)
        return plan_round(
            self._lengths, self.row_tokens, members=self._members, begins=begins, ends=ends, seed=self.seed,
            number=epoch, lookahead=lookahead,
        )  # fmt: skip

    def _rows_from(self, cursor: Cursor) -> tuple[list[tuple[Plan, Int[np.ndarray, " _"]]], Cursor]:
        """The rows of a step that begins at a cursor, by the plan that they belong to, and where the next one begins."""
        parts, missing = [], self.rows
        while missing:  # a step may reach over the end of an epoch
            plan = self.plan(cursor.epoch)
            taken = min(missing, plan.rows - cursor.row)
            if taken:  # a round may be empty
                parts.append((plan, np.arange(cursor.row, cursor.row + taken)))
            missing -= taken
            end = cursor.row + taken == plan.rows
            cursor = Cursor(cursor.epoch + 1, 0) if end else Cursor(cursor.epoch, cursor.row + taken)
        return parts, cursor

    def _prepare(self, cursor: Cursor, number: int, steps: int) -> Step:
        chosen, cursor = self._rows_from(cursor)
        parts = [read_rows(self.store, plan, rows) for plan, rows in chosen]
        rows = dataclasses.replace(
            parts[0],
            tokens=np.concatenate([p.tokens for p in parts]),
            segments=np.concatenate([p.segments for p in parts]),
            following=np.concatenate([p.following for p in parts]),
            documents=sum((p.documents for p in parts), ()),
            vocabulary=self.vocabulary,
        )
        # prepared as a whole and then split: how much fits into memory decides nothing of what is learnt
        rng = stream(self.seed, "objective", number)
        progress = min(1.0, number / max(1, steps))
        batch = self.objective.prepare(rows, rng, progress)
        if self.noise is not None and self.vocabulary is not None:
            batch = self.noise.into(batch, derive(self.seed, "noise", number), progress, self.vocabulary)
        documents = [self.store.document_ids[d] for row in rows.documents for d in row]
        return Step(
            batches=batch.split(self.micro_rows),
            documents=tuple(dict.fromkeys(documents)),
            tokens=int((rows.segments != 0).sum()),
            after=cursor,
        )


def schedule_of(
    settings: PretrainSettings, store: TokenStore, objective: Objective, rows: int
) -> Schedule | None:
    """Returns the schedule of a recipe's mix over some shards, if it has one. `rows` are those of a step."""
    if settings.mix is None:
        return None
    positions = np.maximum(store.lengths - objective.lookahead, 0)
    sizes = np.bincount(store.groups, weights=positions, minlength=len(store.group_names)).astype(int)
    budget = parse_budget(settings.budget)
    amounts = {"steps": rows * settings.row_tokens, "tokens": 1, "epochs": int(sizes.sum())}
    each = amounts.get(budget.unit)
    return schedule(
        settings.mix, store.group_names, sizes.tolist(), row_tokens=settings.row_tokens,
        positions=None if each is None else math.ceil(budget.amount * each),
    )  # fmt: skip
