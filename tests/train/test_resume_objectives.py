"""Every objective: a run that dies twice, once in a later epoch, ends in the bytes of one that did not."""

import pytest

from gristmill import plugins
from gristmill.artifact import hash_file
from gristmill.model.config import ModelSettings, resolve
from tests.train.tiny import VOCABULARY, tiny_trainer

pytestmark = pytest.mark.slow

CASES = [(name, None) for name in plugins.names("objectives")] + [("causal", "lstm"), ("causal", "gru")]


class KilledError(Exception):
    """The process is gone."""


def trainer(folder, name: str, family: str | None, hooks=()):
    kind = plugins.load("objectives", name)
    # few sentinels are in the tests' vocabulary
    objective = kind(sentinels=5) if name == "spans" else kind()
    heads = None if family in ("lstm", "gru") else 2
    settings = ModelSettings(family=family or kind.family, depth=2, width=32, heads=heads)
    config = objective.refine(resolve(settings, vocab_size=VOCABULARY, row_tokens=64))
    return tiny_trainer(
        folder,
        model=config,
        objective=objective,
        row_tokens=64,
        micro_batch_tokens=64,
        batch_tokens=128,
        budget="2 epochs",
        checkpoint_seconds=1e-9,
        validations=2,
        hooks=hooks,
    )


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_run_that_died_twice_ends_in_the_same_bytes(name, family, tmp_path):
    whole = tmp_path / "whole" / "model"
    trainer(whole, name, family).run()
    broken = tmp_path / "broken" / "model"
    steps: list[int] = []

    def die_at(step: int):
        def hook(progress):
            steps.append(progress.step)
            if progress.step == step:
                raise KilledError

        return hook

    first = trainer(broken, name, family, [die_at(3)])
    with pytest.raises(KilledError):
        first.run()
    second_death = max(4, first.plan.steps - 3)  # in the last epoch
    with pytest.raises(KilledError):
        trainer(broken, name, family, [die_at(second_death)]).run()
    trainer(broken, name, family, [die_at(-1)]).run()
    assert max(steps) == first.plan.steps
    assert len(steps) > first.plan.steps  # some steps were done again
    hashes = [{f.name: hash_file(f) for f in folder.glob("*.safetensors")} for folder in (whole, broken)]
    assert hashes[0] == hashes[1]
