"""Trains the tiny model in a process of its own, which may be told to die at a named moment.

    python -m tests.train.run_tiny FOLDER [MOMENT STEP]

MOMENT: "mid-accumulation" kills after the first micro-batch of a step; "in-checkpoint" while a checkpoint's tensors are
being written; "after-tensors" between a checkpoint's tensors and its rename; "in-best" while the best weights are
being written; "at-end" after the last step, before the weights are saved.
"""

import os
import signal
import sys
from pathlib import Path

import safetensors.torch

from gristmill.train import state, trainer
from tests.train.tiny import tiny_trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, step: int) -> None:
    if moment == "mid-accumulation":
        prepare = trainer.Trainer._one_step
        calls = {"count": 0}

        def one_step(self):
            if self.step == step:
                loss = type(self.settings.objective).loss

                def dying(objective, *arguments):
                    calls["count"] += 1
                    if calls["count"] == 2:
                        die()
                    return loss(objective, *arguments)

                type(self.settings.objective).loss = dying
            prepare(self)

        trainer.Trainer._one_step = one_step
    elif moment in ("in-checkpoint", "in-best"):
        save = safetensors.torch.save_file

        def save_file(tensors, path, metadata=None):
            is_best = "best" in Path(path).name
            if is_best == (moment == "in-best") and at_step() >= step:
                Path(path).write_bytes(b"half a file")
                die()
            save(tensors, path, metadata)

        safetensors.torch.save_file = save_file
    elif moment == "after-tensors":
        write = state.write_json

        def write_json(path, facts):
            if at_step() >= step:
                die()
            write(path, facts)

        state.write_json = write_json
    elif moment == "at-end":
        trainer.Trainer._finish = lambda self: die()


def at_step() -> int:
    return CURRENT.step if hasattr(CURRENT, "step") else -1


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    CURRENT = tiny_trainer(folder / "model", budget="2.5 epochs", checkpoint_seconds=1e-3)
    if len(sys.argv) > 2:
        arm(sys.argv[2], int(sys.argv[3]))
    CURRENT.run()
