"""A run over a mix: what it sees follows from its step, and is what the recipe asks for."""

import pytest
import torch

from gristmill.corpus.mix import Mix, Stage, schedule
from gristmill.errors import InputError
from gristmill.objectives.causal import Causal
from gristmill.train.loader import Cursor, Loader
from tests.train.tiny import byte_store, paragraphs, tiny_trainer


class StoppedError(Exception):
    pass


def stop_at(step):
    def hook(progress):
        if progress.step == step:
            raise StoppedError

    return hook


def test_a_step_of_a_mix_is_the_same_wherever_reading_begins(tmp_path):
    store = byte_store(paragraphs(12), tmp_path, "train")
    mix = schedule(
        Mix(weights={"even": 1.0, "odd": 4.0}), store.group_names, [1000, 1000], row_tokens=32, positions=None
    )
    settings = {"row_tokens": 32, "rows": 4, "micro_rows": 2, "seed": 1, "mix": mix}
    with Loader(store, Causal(), **settings) as loader:
        cursor, steps, cursors = Cursor(0, 0), [], []
        for number in range(1, 60):
            cursors.append(cursor)
            steps.append(loader.step(cursor, number, 60))
            cursor = steps[-1].after
    assert cursor.epoch > 0  # a step reaches over the end of a round
    with Loader(store, Causal(), **settings) as again:
        for number in (40, 7, 59):
            found = again.step(cursors[number - 1], number, 60)
            assert found.after == steps[number - 1].after
            for one, two in zip(found.batches, steps[number - 1].batches, strict=True):
                assert (one.tokens == two.tokens).all()
            places = again.places(number)  # and every token is known by its place in the store
            tokens = torch.cat([batch.tokens for batch in found.batches]).numpy()
            assert (store.tokens[places[places >= 0]] == tokens[places >= 0]).all()
            assert (places >= 0).sum() == found.tokens


def test_a_killed_run_over_a_mix_ends_in_the_same_weights(tmp_path):
    settings = {
        "budget": "60 steps", "checkpoint_seconds": 1e-6,
        "mix": Mix(stages=(Stage(until=0.5, weights={"even": 1.0}), Stage(until=1.0, weights={"even": 1.0, "odd": 3.0}))),
    }  # fmt: skip
    straight = tiny_trainer(tmp_path / "one", **settings)
    straight.run()
    for step in (17, 41):
        with pytest.raises(StoppedError):
            tiny_trainer(tmp_path / "two", hooks=[stop_at(step)], **settings).run()
    assert tiny_trainer(tmp_path / "two", **settings).run().metrics["resumed"] == 2
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_budget_in_epochs_is_as_much_text_whatever_the_shares(tmp_path):
    plain = tiny_trainer(tmp_path / "one", budget="3 epochs")
    mixed = tiny_trainer(tmp_path / "two", budget="3 epochs", mix=Mix(weights={"odd": 1.0}))
    steps = [trainer.run().metrics["steps"] for trainer in (plain, mixed)]
    assert abs(steps[0] - steps[1]) <= 2


def test_a_mix_that_does_not_fit_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(InputError, match='names "od", but there is no such group'):
        tiny_trainer(tmp_path / "one", mix=Mix(weights={"od": 1.0})).run()
    with pytest.raises(InputError, match="needs a run of known length"):
        tiny_trainer(tmp_path / "two", mix=Mix(epochs={"odd": 1.0}), budget="5 s").run()
