"""The training loop as a whole, on the shipped text."""

import json
import math

import numpy as np
import pytest
import torch

from gristmill import plugins
from gristmill.errors import InputError, RunError
from gristmill.model.build import make_model
from gristmill.model.checkpoint import load_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.objectives import detect
from gristmill.objectives.base import Objective
from gristmill.objectives.hybrid import Hybrid
from gristmill.objectives.masked import Masked
from gristmill.rows import Rows
from gristmill.train.loader import Cursor, Loader
from gristmill.train.settings import PretrainSettings, resolve_batch
from gristmill.train.validate import DocumentScores, score_documents
from tests.train.tiny import byte_store, byte_vocabulary, paragraphs, tiny_model, tiny_trainer


def losses(trainer) -> list[float]:
    return [json.loads(line)["loss_nats"] for line in trainer.curve.read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_the_loss_falls(tmp_path, optimizer, family):
    from gristmill.config import from_dict

    settings = from_dict(PretrainSettings, {"optimizer": optimizer})
    trainer = tiny_trainer(
        tmp_path / "m",
        budget="40 steps",
        optimizer=settings.optimizer,
        model=tiny_model(family=family, ngrams=False),
    )
    trained = trainer.run()
    first, last = np.mean(losses(trainer)[:5]), np.mean(losses(trainer)[-5:])
    assert first > 4.5  # ln 258 = 5.55 at the start
    assert last < first - 0.8
    assert trained.validation.nats_per_token < first


def test_the_saved_model_has_the_validation_loss_that_was_reported(tmp_path):
    trainer = tiny_trainer(tmp_path / "m", budget="12 steps", precision="float32")
    trained = trainer.run()
    model = load_model(tmp_path / "m")
    store = byte_store(paragraphs(11)[8:], tmp_path, "again")
    scores = score_documents(model, store, row_tokens=32, vocabulary=byte_vocabulary())
    assert scores.nats_per_token == pytest.approx(trained.validation.nats_per_token, rel=1e-5)
    assert trained.metrics["best"]["nats_per_token"] == pytest.approx(
        trained.validation.nats_per_token, rel=1e-5
    )


def test_validation_counts_every_byte_once_and_no_end_token(tmp_path):
    texts = paragraphs(3)
    store = byte_store(texts, tmp_path, "valid")
    model = load_untrained()
    scores = score_documents(model, store, row_tokens=32, vocabulary=byte_vocabulary())
    assert scores.tokens.tolist() == [len(text.encode()) for text in texts]
    assert scores.text_bytes.tolist() == scores.tokens.tolist()
    assert scores.bits_per_byte == pytest.approx(scores.nats_per_token / math.log(2))


def test_validation_does_not_depend_on_how_many_rows_are_scored_at_a_time(tmp_path):
    store = byte_store(paragraphs(4), tmp_path, "valid")
    model = load_untrained()
    few, many = (
        score_documents(model, store, row_tokens=32, vocabulary=byte_vocabulary(), batch_tokens=n)
        for n in (32, 4096)
    )
    np.testing.assert_allclose(few.nats, many.nats, rtol=1e-5)


def load_untrained():
    from gristmill.model.transformer import Transformer

    model = Transformer(tiny_model())
    model.initialise(torch.Generator().manual_seed(0))
    return model.eval()


def objective_named(name: str) -> Objective:
    kind = plugins.load("objectives", name)
    # few sentinels are in the tests' vocabulary
    objective: Objective = kind(sentinels=5) if name == "spans" else kind()
    return objective


@pytest.mark.parametrize("name", plugins.names("objectives"))
def test_what_is_learnt_does_not_depend_on_how_much_is_in_memory_at_a_time(tmp_path, name):
    store = byte_store(paragraphs(8), tmp_path, "train")
    steps = []
    for micro in (1, 2, 4):
        with Loader(
            store,
            objective_named(name),
            row_tokens=128,
            rows=4,
            micro_rows=micro,
            seed=0,
            vocabulary=byte_vocabulary(),
        ) as loader:
            step = loader.step(Cursor(0, 0), 0, 10)
        assert [len(batch.tokens) for batch in step.batches] == [micro] * (4 // micro)
        steps.append(step)
    for field in ("tokens", "targets", "weights", "segments"):
        whole, *others = (torch.cat([getattr(batch, field) for batch in step.batches]) for step in steps)
        assert all(torch.equal(whole, other) for other in others)


@pytest.mark.parametrize("name", ["causal", "hybrid", "masked", "next_sentence", "detect", "denoise"])
def test_micro_batches_do_not_change_the_gradient(tmp_path, monkeypatch, name):
    """Rows have other numbers of masked tokens and of pairs; what a generator draws is here its first guess."""
    monkeypatch.setattr(
        detect, "_said", lambda model, states, seed: (states @ model.output_weight.T).argmax(-1)
    )
    objective, results = objective_named(name), []
    config = objective.refine(tiny_model(family=objective.family, ngrams=name == "causal", row_tokens=128))
    for micro in (1, 2, 4):
        trainer = tiny_trainer(
            tmp_path / str(micro),
            dropout=0.0,
            objective=objective,
            model=config,
            row_tokens=128,
            batch_tokens=512,
        )
        settings = {"row_tokens": 128, "rows": 4, "micro_rows": micro, "seed": 0}
        with Loader(
            trainer.train_store, trainer.objective, **settings, vocabulary=trainer.vocabulary
        ) as loader:
            step = loader.step(Cursor(0, 0), 0, 10)
        assert len(step.batches) == 4 // micro
        if name == "next_sentence":
            assert sum(len(batch.pairs.labels) for batch in step.batches) >= 2
        model = make_model(config)
        model.initialise(torch.Generator().manual_seed(0))
        gradients, loss, parts = trainer._gradients(model.eval(), step)
        gradients = {name: g.to_dense() if g.is_sparse else g for name, g in gradients.items()}
        results.append((loss, parts, gradients))
    for loss, parts, gradients in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-6)
        assert parts == pytest.approx(results[0][1], rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][2][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "kept"), [("masked", 1), ("detect", 3)])
def test_the_weights_that_are_kept_are_the_best_or_the_last_where_losses_are_not_comparable(
    tmp_path, monkeypatch, name, kept
):
    """A detector's task grows harder as its generator learns: here every validation is worse than the one before."""
    objective = objective_named(name)
    trainer = tiny_trainer(
        tmp_path / "m",
        objective=objective,
        model=objective.refine(tiny_model(family=objective.family, ngrams=False)),
        budget="3 steps",
        validations=3,
    )
    losses = iter([1.0, 2.0, 3.0, 1.0])

    def score(model, maximum_rows=None):
        one = np.ones(1)
        return DocumentScores(nats=next(losses) * one, tokens=one, text_bytes=one)

    monkeypatch.setattr(trainer, "_score", score)
    assert trainer.run().metrics["best"]["step"] == kept
    assert (tmp_path / "m" / "last.safetensors").exists() == (kept != 3)


def test_a_validation_of_rows_of_two_kinds_counts_them_alike_and_tells_both(tmp_path):
    objective = Hybrid(causal_share=0.5)
    config = objective.refine(tiny_model(ngrams=False))
    trained = tiny_trainer(
        tmp_path / "m", objective=objective, model=config, budget="4 steps", validations=1
    ).run()
    scores = trained.validation
    assert set(scores.parts_nats) == {"causal", "masked"}
    # all tokens count once, but those of special tokens and of what rows begin with
    assert scores.tokens.sum() == pytest.approx(scores.text_bytes.sum())
    assert scores.tokens.sum() > 0.8 * sum(len(text.encode()) for text in paragraphs(11)[8:])
    low, high = sorted(scores.parts_nats.values())
    assert low < scores.nats_per_token < high
    assert scores.nats_per_token == pytest.approx((low + high) / 2, rel=0.02)
    last = json.loads((tmp_path / "m" / "curve.jsonl").read_text().splitlines()[-1])
    assert last["validation_parts_nats"] == trained.metrics["validation_parts_nats"] == scores.parts_nats


def test_padding_does_not_change_the_loss():
    from gristmill.objectives.causal import Causal

    model, objective, rng = load_untrained(), Causal(), np.random.default_rng(0)
    tokens = np.arange(10, 18)[None]
    plain = Rows(tokens=tokens, segments=np.ones((1, 8), dtype=np.int64), following=tokens + 1)
    wide = np.zeros((1, 13), dtype=np.int64)
    padded = Rows(tokens=wide.copy(), segments=wide.copy(), following=np.full((1, 13), -1))
    padded.tokens[:, :8], padded.segments[:, :8], padded.following[:, :8] = tokens, 1, tokens + 1
    a, b = (objective.loss(model, objective.prepare(rows, rng)) for rows in (plain, padded))
    assert float(a.weight) == float(b.weight) == 8
    torch.testing.assert_close(a.total_nats, b.total_nats)


@pytest.mark.parametrize(
    ("budget", "steps"), [("7 steps", 7), ("1000 tokens", 8), ("1 epoch", None), ("0.5 epochs", None)]
)
def test_a_budget_decides_the_number_of_steps(tmp_path, budget, steps):
    trainer = tiny_trainer(tmp_path / "m", budget=budget)
    trained = trainer.run()
    if steps is None:
        assert trained.metrics["epochs"] == pytest.approx(float(budget.split()[0]), abs=0.06)
    else:
        assert trained.metrics["steps"] == steps


def test_a_budget_of_wall_time_is_kept(tmp_path):
    trained = tiny_trainer(tmp_path / "m", budget="6 s", average=0.0).run()
    # the clock of a shared machine: generous, but it would catch a plan that is not corrected
    assert 3 < trained.metrics["elapsed_seconds"] < 12
    plans = json.loads((tmp_path / "m" / "plan.json").read_text())["plans"]
    assert plans[-1]["plan"]["knots"][-1][0] == trained.metrics["steps"]


@pytest.mark.parametrize(
    ("timed", "chosen", "seconds"),
    [
        ([1.0, 0.4], "bfloat16", 0.4),
        ([1.0, 3.0, 1.1, 0.4], "bfloat16", 0.4),  # it stood still once, while bfloat16 was timed
        ([1.0, 3.0, 0.9, 2.0, 1.2, 1.5], "float32", 0.9),
    ],
)
def test_a_machine_that_stands_still_for_a_moment_does_not_decide_the_precision(
    tmp_path, monkeypatch, timed, chosen, seconds
):
    from gristmill.train import trainer

    times = iter(timed)
    monkeypatch.setattr(trainer, "median_seconds", lambda *_: next(times))
    monkeypatch.setattr(trainer, "has_bfloat16_units", lambda *_: True)
    made = tiny_trainer(tmp_path / "m", budget="2 steps", precision="auto", micro_batch_tokens=128)
    made.run()
    assert made.decisions["precision"] == chosen
    assert made.decisions["seconds_per_step"] == seconds
    assert next(times, None) is None


def test_a_loss_that_is_not_finite_stops_with_step_documents_and_advice(tmp_path):
    from gristmill.train.optimizers.adamw import AdamW

    trainer = tiny_trainer(
        tmp_path / "m",
        budget="50 steps",
        checkpoint_seconds=1e-6,
        optimizer=AdamW(learning_rate=1e30),
        average=0.0,
    )
    with pytest.raises(RunError, match=r"at step \d+; the batch held the documents train-\d") as caught:
        trainer.run()
    assert "learning_rate" in str(caught.value.hint)
    assert "stands" in caught.value.message


def test_a_corpus_smaller_than_a_row_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match="row"):
        tiny_trainer(
            tmp_path / "m", row_tokens=100_000, batch_tokens=100_000, model=tiny_model(row_tokens=100_000)
        ).run()


def test_steps_are_a_function_of_where_they_begin(tmp_path):
    from gristmill.objectives.causal import Causal

    store = byte_store(paragraphs(8), tmp_path, "train")

    def steps(jump: bool) -> list[torch.Tensor]:
        cursor, seen = Cursor(0, 0), []
        with Loader(store, Causal(), row_tokens=32, rows=4, micro_rows=2, seed=3) as loader:
            for number in range(60):
                step = loader.step(cursor, number, 10)
                seen.append(torch.cat([batch.tokens for batch in step.batches]))
                cursor = step.after
                if jump:  # a loader of its own for each step, as after a resume
                    loader._next = None
                    loader._plans.clear()
        return seen

    straight, resumed = steps(False), steps(True)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_the_batch_follows_from_the_width_unless_it_is_given():
    config = resolve(ModelSettings(depth=8), vocab_size=1000, row_tokens=256)
    rows, micro = resolve_batch(PretrainSettings(), config)
    assert rows * 256 == 8192
    assert rows % micro == 0
    assert resolve_batch(PretrainSettings(batch_tokens=2048, micro_batch_tokens=512), config) == (8, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "soon"}, "budget"),
        ({"batch_tokens": 100, "row_tokens": 256}, "does not hold one row"),
        ({"warmup": 0.6, "cooldown": 0.6}, "more than the whole run"),
    ],
)
def test_settings_that_contradict_themselves_are_refused_with_a_hint(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        PretrainSettings(**settings)
    assert caught.value.hint


def test_a_gpu_that_is_not_there_is_refused_by_name():
    from gristmill.train.trainer import pick_device

    if torch.cuda.is_available():
        assert pick_device("cuda").type == "cuda"
    else:
        with pytest.raises(InputError, match="no GPU"):
            pick_device("cuda")


def test_a_full_disk_is_named_and_the_checkpoint_before_stands(tmp_path, monkeypatch):
    import safetensors
    import safetensors.torch

    from gristmill.train import state

    save, calls = safetensors.torch.save_file, {"count": 0}

    def save_file(tensors, path, metadata=None):
        calls["count"] += 1
        if calls["count"] == 4:
            raise safetensors.SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )
        save(tensors, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)
    trainer = tiny_trainer(tmp_path / "m", budget="20 steps", checkpoint_seconds=1e-6, validations=1)
    with pytest.raises(RunError, match="no space left on the disk") as caught:
        trainer.run()
    assert "run the same command again" in str(caught.value.hint)
    newest, damaged = state.newest_checkpoint(trainer.checkpoints)
    assert newest is not None
    assert newest.name == "step-00000003"
    assert damaged == []
    monkeypatch.undo()
    _, facts = state.read_checkpoint(newest)
    again = tiny_trainer(tmp_path / "m", budget="20 steps", validations=1).run()
    assert again.metrics["resumed"] == 1
    # what the attempt that died has cost is not forgotten
    assert again.earlier == {name: facts[name] for name in ("elapsed_seconds", "cpu_seconds")}
    assert min(again.earlier.values()) > 0


def test_a_checkpoint_without_cpu_seconds_is_resumed(tmp_path):
    """As versions wrote them that did not count those."""

    class StopError(Exception):
        pass

    def stop(progress):
        if progress.step == 8:
            raise StopError

    settings = {"budget": "12 steps", "checkpoint_seconds": 1e-6, "validations": 1}
    trainer = tiny_trainer(tmp_path / "m", hooks=(stop,), **settings)
    with pytest.raises(StopError):
        trainer.run()
    for path in trainer.checkpoints.glob("step-*/state.json"):
        facts = json.loads(path.read_text())
        del facts["cpu_seconds"]
        path.write_text(json.dumps(facts))
    again = tiny_trainer(tmp_path / "m", **settings).run()
    assert (again.metrics["steps"], again.metrics["resumed"]) == (12, 1)
    assert again.earlier["cpu_seconds"] == 0.0
    assert again.earlier["elapsed_seconds"] > 0


def test_a_resumed_run_follows_corrections_that_its_own_clock_would_not_have_made(tmp_path):
    """Rates follow the share that is done: a plan that is not followed shows in what is masked."""

    class StopError(Exception):
        pass

    def slow_until_twenty(progress):
        if progress.step == 10:
            first.save_checkpoint()
        if progress.step >= 12:
            first._seconds_per_step = (
                0.5  # more than a hundredth of the budget: the plan is looked at in every step
            )
        if progress.step == 20:
            raise StopError

    def stop_at_twenty(progress):
        if progress.step == 20:
            raise StopError

    objective = Masked(rate=(0.9, 0.1))
    settings = {
        "objective": objective,
        "model": tiny_model(family=objective.family, ngrams=False),
        "budget": "20 s",
        "validations": 1,
        "checkpoint_seconds": 1e9,
    }
    first = tiny_trainer(tmp_path / "m", hooks=[slow_until_twenty], **settings)
    with pytest.raises(StopError):
        first.run()
    noted = [json.loads(line) for line in first.curve.read_text().splitlines()]
    corrected = [entry["from_step"] for entry in first.decisions["plans"]]
    assert any(step % 10 for step in corrected if 10 < step < 20)
    second = tiny_trainer(tmp_path / "m", hooks=[stop_at_twenty], **settings)
    with pytest.raises(StopError):
        second.run()
    repeated = [json.loads(line) for line in second.curve.read_text().splitlines()]
    for name in ("step", "tokens", "loss_nats", "learning_rate"):
        assert [line[name] for line in repeated] == [line[name] for line in noted]


def test_a_resumed_wall_time_run_follows_the_plan_that_was_written_down(tmp_path):
    class StopError(Exception):
        pass

    def stop(progress):
        if progress.step == 25:
            raise StopError

    first = tiny_trainer(tmp_path / "m", budget="20 s", hooks=[stop], checkpoint_seconds=0.2)
    with pytest.raises(StopError):
        first.run()
    decisions = json.loads((tmp_path / "m" / "plan.json").read_text())
    seen = []
    second = tiny_trainer(tmp_path / "m", budget="20 s", hooks=[lambda p: seen.append(p.learning_rate_scale)])
    noted = [json.loads(line) for line in second.curve.read_text().splitlines()]
    second.run()
    repeated = json.loads(second.curve.read_text().splitlines()[24])
    assert repeated["step"] == 25
    assert repeated["learning_rate"] == noted[24]["learning_rate"]
    assert repeated["loss_nats"] == noted[24]["loss_nats"]
    after = json.loads((tmp_path / "m" / "plan.json").read_text())
    assert after["plans"][: len(decisions["plans"])] == decisions["plans"]
    assert after["precision"] == decisions["precision"]
