"""Trains the tiny model in a process of its own, which may be told to die at a named moment.

    python -m tests.train.run_tiny FOLDER [MOMENT STEP]

MOMENT: "mid-accumulation" kills after the first micro-batch of a step; "in-checkpoint" while a checkpoint's tensors are
being written; "after-tensors" between a checkpoint's tensors and its rename; "in-best" while the best weights are
being written; "at-end" after the last step, before the weights are saved;
"after-save" after that; "in-hash" while the artifact is hashed; "between-renames" before it is put in place.
"""

import os
import signal
import sys
from pathlib import Path

from gristmill import artifact
from gristmill.model import checkpoint
from gristmill.train import state, trainer
from tests.train.tiny import tiny_trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, step: int) -> None:  # noqa: C901 - one branch for each moment
    if moment == "mid-accumulation":
        prepare = trainer.Trainer._one_step
        calls = {"count": 0}

        def one_step(self):
            if self.step == step:
                loss = type(self.objective).loss

                def dying(objective, *arguments):
                    calls["count"] += 1
                    if calls["count"] == 2:
                        die()
                    return loss(objective, *arguments)

                type(self.objective).loss = dying
            prepare(self)

        trainer.Trainer._one_step = one_step
    elif moment in ("in-checkpoint", "in-best"):
        save = checkpoint.write_tensors

        def write_tensors(tensors, path):
            is_best = "best" in Path(path).name
            if is_best == (moment == "in-best") and at_step() >= step:
                Path(path).write_bytes(b"half a file")
                die()
            save(tensors, path)

        state.write_tensors = trainer.write_tensors = write_tensors
    elif moment == "after-tensors":
        write = state.write_json

        def write_json(path, facts):
            if at_step() >= step:
                die()
            write(path, facts)

        state.write_json = write_json
    elif moment == "at-end":
        trainer.Trainer._finish = lambda self: die()
    elif moment == "after-save":
        save_model = trainer.save_model
        trainer.save_model = lambda *arguments: (save_model(*arguments), die())
    elif moment == "in-hash":
        artifact._hash_json = lambda value: die() if "model.safetensors" in str(value) else key_hash(value)
    elif moment == "between-renames":
        artifact._replace_directory = lambda partial, path: die()


def at_step() -> int:
    return CURRENT.step


key_hash = artifact._hash_json

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        arm(sys.argv[2], int(sys.argv[3]))
    parts = {"kind": "checkpoint", "format_version": 1, "config": {}, "keep_partial": True}
    with artifact.draft(folder / "model", **parts) as work:
        CURRENT = tiny_trainer(work.path, budget="2.5 epochs", checkpoint_seconds=1e-3)
        CURRENT.run()
