"""Every objective: a run that dies twice, once in a later epoch, ends in the bytes of one that did not."""

import json

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
    # texts that are pairs consist of a few sentences
    row_tokens = 192 if name == "next_sentence" else 64
    config = objective.refine(resolve(settings, vocab_size=VOCABULARY, row_tokens=row_tokens))
    return tiny_trainer(
        folder,
        model=config,
        objective=objective,
        row_tokens=row_tokens,
        micro_batch_tokens=row_tokens,
        batch_tokens=2 * row_tokens,
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
    if name == "next_sentence":
        lines = [json.loads(line) for line in (whole / "curve.jsonl").read_text().splitlines()]
        assert sum(line["parts_nats"]["pair"] > 0 for line in lines) > len(lines) / 2
    hashes = [{f.name: hash_file(f) for f in folder.glob("*.safetensors")} for folder in (whole, broken)]
    assert hashes[0] == hashes[1]
