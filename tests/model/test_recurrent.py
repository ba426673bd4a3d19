"""LSTM and GRU: torch's equations, exact in packed rows, trained as every other model is."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noisy import noisy
from tests.train.tiny import VOCABULARY, tiny_trainer

from gristmill.artifact import hash_file
from gristmill.batch import Visibility
from gristmill.errors import InputError
from gristmill.model import recurrence
from gristmill.model.base import is_matrix
from gristmill.model.build import make_model
from gristmill.model.checkpoint import load_model, save_model, write_tensors
from gristmill.model.config import ModelConfig, ModelSettings, NgramSettings, resolve
from gristmill.model.count import parameter_counts
from gristmill.model.exchange import from_transformers, to_transformers
from gristmill.model.recurrence import find_runs
from gristmill.model.recurrent import GRU, LSTM, Recurrent
from gristmill.model.visibility import segment_spans
from gristmill.objectives.masked import Masked

VOCAB, LENGTH = 40, 14
FAMILIES = ["lstm", "gru"]

STOCK = {"lstm": (LSTM, torch.nn.LSTM), "gru": (GRU, torch.nn.GRU)}


@pytest.fixture(params=["compiled", "torch"])
def how(request, monkeypatch) -> str:
    """Both ways in which a recurrence is computed."""
    if request.param == "torch":
        monkeypatch.setattr(recurrence, "_kernels", lambda: None)
    elif recurrence._kernels() is None:
        pytest.skip("this machine has no C compiler")
    return request.param


def small(family: str, **changes) -> ModelConfig:
    model_settings = ModelSettings(family=family, depth=2, width=24, feed_forward=20)
    config = resolve(model_settings, vocab_size=VOCAB, row_tokens=LENGTH)
    return dataclasses.replace(config, **changes)


def random_model(family: str, seed: int = 0) -> Recurrent:
    return noisy(Recurrent(small(family)), 0.3, seed=seed)


MODELS = {family: random_model(family) for family in FAMILIES}


# --- the equations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("inputs", "size"), [(24, 20), (32, 64), (7, 33)])
def test_a_recurrence_is_that_of_torch_in_values_and_gradients(family, how, inputs, size):
    ours_class, stock_class = STOCK[family]
    torch.manual_seed(0)
    ours, stock = ours_class(inputs, size), stock_class(inputs, size, batch_first=True)
    with torch.no_grad():
        if family == "gru":
            ours.state_bias.normal_()
            # torch has a second bias for r and z as well, which says nothing that the first does not
            stock.bias_hh_l0.copy_(torch.cat([torch.zeros(2 * size), ours.state_bias]))
        else:
            stock.bias_hh_l0.zero_()
        stock.weight_ih_l0.copy_(ours.input.weight)
        stock.weight_hh_l0.copy_(ours.state.weight)
        stock.bias_ih_l0.copy_(ours.input.bias)
    x = torch.randn(5, 9, inputs)
    ours_x, stock_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours_y, ours_end = ours(ours_x, find_runs(torch.zeros(5, 9, dtype=torch.int32)))
    stock_y, stock_end = stock(stock_x)
    torch.testing.assert_close(ours_y, stock_y, rtol=1e-5, atol=1e-6)
    for ours_part, stock_part in zip(ours_end, stock_end if family == "lstm" else (stock_end,), strict=True):
        torch.testing.assert_close(ours_part, stock_part[0], rtol=1e-5, atol=1e-6)
    told = torch.randn(5, 9, size)
    (ours_y * told).sum().backward()
    (stock_y * told).sum().backward()
    pairs = [
        (ours_x.grad, stock_x.grad),
        (ours.input.weight.grad, stock.weight_ih_l0.grad),
        (ours.state.weight.grad, stock.weight_hh_l0.grad),
        (ours.input.bias.grad, stock.bias_ih_l0.grad),
    ]
    if family == "gru":
        pairs.append((ours.state_bias.grad, stock.bias_hh_l0.grad[2 * size :]))
    for ours_grad, stock_grad in pairs:
        torch.testing.assert_close(ours_grad, stock_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_weights_give_close_to_what_float32_gives(family, how):
    model = random_model(family)
    tokens = torch.randint(VOCAB, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    expected = model(tokens).detach()
    for name, parameter in model.named_parameters():
        if is_matrix(name, parameter):
            parameter.data = parameter.data.bfloat16()
    hidden = model(tokens)
    assert hidden.dtype == torch.bfloat16
    assert float((hidden.detach().float() - expected).abs().max() / expected.abs().max()) < 0.05
    hidden.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_do_not_depend_on_the_number_of_threads(family, dtype):
    tokens = torch.randint(VOCAB, (9, 40), generator=torch.Generator().manual_seed(1))
    segments = (tokens == 0).long().cumsum(1) + 1
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            model = random_model(family)
            cell = model.blocks[0].recurrence.to(dtype)
            x = model.embedding(tokens).to(dtype)
            y, end = cell(x, find_runs(segment_spans(segments, Visibility.CAUSAL)[0]))
            results.append([y, *end])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


# --- packed rows ------------------------------------------------------------------------------------------------------


@st.composite
def packed(draw):
    """Tokens and segments of three rows: documents side by side, padding on the right or the left."""
    rows = []
    for _ in range(3):
        lengths = draw(st.lists(st.integers(1, LENGTH), min_size=1, max_size=4))
        documents = [number for number, length in enumerate(lengths, 1) for _ in range(length)][:LENGTH]
        padding = [0] * (LENGTH - len(documents))
        rows.append(padding + documents if draw(st.booleans()) else documents + padding)
    seed = draw(st.integers(0, 1000))
    tokens = torch.randint(VOCAB, (3, LENGTH), generator=torch.Generator().manual_seed(seed))
    return tokens, torch.tensor(rows)


@torch.no_grad()
def outputs(family: str, tokens: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    return MODELS[family](tokens, spans=segment_spans(segments, Visibility.CAUSAL))


def test_runs_are_the_segments_the_longest_first_and_each_padding_alone():
    segments = torch.tensor([[1, 1, 2, 2, 2, 0, 0], [0, 0, 1, 1, 1, 1, 1]])
    runs = find_runs(segment_spans(segments, Visibility.CAUSAL)[0])
    assert runs.first.tolist() == [9, 2, 0, 5, 6, 7, 8]
    assert runs.sizes.tolist() == [5, 3, 2, 1, 1, 1, 1]
    assert runs.last.tolist() == [13, 4, 1, 5, 6, 7, 8]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15)
@given(data=packed())
def test_a_document_packed_among_others_gives_what_it_gives_alone(family, data):
    tokens, segments = data
    together = outputs(family, tokens, segments)
    for row in range(3):
        for segment in range(1, int(segments[row].max()) + 1):
            here = segments[row] == segment
            alone = MODELS[family](tokens[row, here][None])[0].detach()
            torch.testing.assert_close(together[row, here], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15)
@given(
    data=packed(), row=st.integers(0, 2), changed=st.integers(0, LENGTH - 1), token=st.integers(0, VOCAB - 1)
)
def test_a_token_changes_nothing_but_what_follows_in_its_document(family, data, row, changed, token):
    tokens, segments = data
    other = tokens.clone()
    other[row, changed] = token
    before, after = outputs(family, tokens, segments), outputs(family, other, segments)
    follows = (segments[row] == segments[row, changed]) & (torch.arange(LENGTH) >= changed)
    if segments[row, changed] == 0:
        follows = torch.arange(LENGTH) == changed
    elsewhere = torch.ones(3, LENGTH, dtype=torch.bool)
    elsewhere[row] = ~follows
    torch.testing.assert_close(after[elsewhere], before[elsewhere], rtol=0, atol=0)
    if token != tokens[row, changed]:  # it does change what follows, if only a little when it is long past
        assert bool((after[row, follows] != before[row, follows]).any(-1)[:2].all())


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15)
@given(data=packed(), padding=st.integers(1, 5), order=st.permutations(range(3)))
def test_padding_and_the_order_of_rows_do_not_matter(family, data, padding, order):
    tokens, segments = data
    plain = outputs(family, tokens, segments)
    wide = [torch.nn.functional.pad(part[list(order)], (padding, 0)) for part in (tokens, segments)]
    moved = outputs(family, *wide)[:, padding:]
    real = segments[list(order)] != 0
    torch.testing.assert_close(moved[real], plain[list(order)][real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_agree_on_packed_rows_in_gradients_too(family, monkeypatch):
    if recurrence._kernels() is None:
        pytest.skip("this machine has no C compiler")
    tokens = torch.randint(VOCAB, (6, LENGTH), generator=torch.Generator().manual_seed(2))
    segments = (tokens < 6).long().cumsum(1)
    spans = segment_spans(segments, Visibility.CAUSAL)
    told = torch.randn(6, LENGTH, 24, generator=torch.Generator().manual_seed(3))
    gradients = []
    for kernels in (recurrence._kernels(), None):
        monkeypatch.setattr(recurrence, "_kernels", lambda kernels=kernels: kernels)
        model = random_model(family)
        (model(tokens, spans=spans) * told).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_depth_of_the_dial_costs_about_what_it_costs_a_transformer(family, depth):
    ours, theirs = (
        parameter_counts(resolve(ModelSettings(family=name, depth=depth), vocab_size=8192, row_tokens=256))[
            "total"
        ]
        for name in (family, "qwen3")
    )
    assert ours == pytest.approx(theirs, rel=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_a_layer_but_its_norm_is_counted_as_what_mixes_positions(family):
    counts = parameter_counts(small(family))
    parts = {name: count for name, count in counts.items() if count}
    assert set(parts) == {"token_embedding", "attention", "norms", "total"}


@pytest.mark.parametrize(("family", "gates"), [("lstm", 4), ("gru", 3)])
def test_each_gate_is_a_matrix_of_its_own_to_the_optimizer(family, gates):
    model = MODELS[family]
    expected = {
        f"blocks.{layer}.recurrence.{matrix}.weight": [20] * gates
        for layer in range(2)
        for matrix in ("input", "state")
    }
    assert model.fused_matrices() == expected
    matrices = {name for name, parameter in model.named_parameters() if is_matrix(name, parameter)}
    assert matrices == set(expected) | {f"blocks.{layer}.recurrence.out.weight" for layer in range(2)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_model_hands_embeddings_through(family):
    """Every block is the identity at first."""
    model = Recurrent(small(family))
    model.initialise(torch.Generator().manual_seed(0))
    tokens = torch.arange(6)[None]
    torch.testing.assert_close(model(tokens), model.norm(model.embedding(tokens)), rtol=0, atol=0)


def test_forget_gates_begin_open():
    model = Recurrent(small("lstm"))
    model.initialise(torch.Generator().manual_seed(0))
    assert model.blocks[1].recurrence.input.bias.tolist() == [0.0] * 20 + [1.0] * 20 + [0.0] * 40


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_follows_its_seed_and_only_in_training(family):
    model = make_model(small(family), dropout=0.5)
    model.load_state_dict(MODELS[family].state_dict())
    tokens = torch.arange(10)[None]
    expected = MODELS[family](tokens)
    torch.testing.assert_close(model.eval()(tokens, dropout_seed=1), expected, rtol=0, atol=0)
    model.train()
    first, again, other = (model(tokens, dropout_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_comes_back_from_the_disk(family, tmp_path):
    save_model(tmp_path, MODELS[family].config, MODELS[family].state_dict())
    again = load_model(tmp_path)
    assert isinstance(again, Recurrent)
    tokens = torch.arange(9)[None]
    torch.testing.assert_close(again(tokens), MODELS[family](tokens), rtol=0, atol=0)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visibility", [Visibility.FULL, Visibility.PREFIX])
def test_looking_ahead_is_refused(visibility):
    segments = torch.ones(1, 5, dtype=torch.long)
    prefix = torch.tensor([[True, True, True, False, False]])
    with pytest.raises(InputError, match='"lstm" sees only what stands before'):
        MODELS["lstm"](torch.arange(5)[None], spans=segment_spans(segments, visibility, prefix))


def test_masks_are_refused():
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    with pytest.raises(InputError, match='"gru" has no attention'):
        MODELS["gru"](torch.arange(4)[None], mask=mask)


def test_objectives_that_need_attention_are_refused():
    with pytest.raises(InputError, match='"masked" needs an encoder'):
        Masked().check(small("lstm"))


def test_n_gram_embeddings_are_refused():
    with pytest.raises(InputError, match="n-gram"):
        resolve(ModelSettings(family="gru", ngrams=NgramSettings()), vocab_size=VOCAB, row_tokens=8)
    with pytest.raises(InputError, match="n-gram"):
        Recurrent(small("gru", ngrams=NgramSettings()))


@pytest.mark.parametrize("family", FAMILIES)
def test_there_is_no_stock_class_to_export_to_or_to_import_from(family, tmp_path):
    with pytest.raises(InputError, match=f'"{family}" has no class in transformers'):
        to_transformers(MODELS[family], tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    write_tensors({"embedding": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f'"{family}" has no class in transformers'):
        from_transformers(tmp_path)


# --- training ---------------------------------------------------------------------------------------------------------


def trained(family: str) -> ModelConfig:
    return resolve(ModelSettings(family=family, depth=2, width=32), vocab_size=VOCABULARY, row_tokens=32)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_lowers_the_loss(family, precision, tmp_path):
    trainer = tiny_trainer(tmp_path / "model", model=trained(family), precision=precision, budget="30 steps")
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "model" / "curve.jsonl").read_text().splitlines()]
    # 256 bytes are worth 5.5 nats each before anything is learned
    assert lines[0]["loss_nats"] > 5.0
    assert lines[-1]["validation_nats_per_token"] < 3.3


class StopError(Exception):
    pass


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interrupted_run_ends_in_the_same_bytes(family, tmp_path):
    def run(folder, *, stop_at: int | None = None):
        trainer = tiny_trainer(folder, model=trained(family), budget="9 steps", checkpoint_seconds=1e-6)
        saved = trainer.save_checkpoint

        def save_and_stop():
            path = saved()
            if trainer.step == stop_at:
                raise StopError
            return path

        trainer.save_checkpoint = save_and_stop
        trainer.run()

    run(tmp_path / "whole" / "model")
    for stop_at in (2, 5):
        with pytest.raises(StopError):
            run(tmp_path / "parts" / "model", stop_at=stop_at)
    run(tmp_path / "parts" / "model")
    whole, parts = (hash_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert parts == whole
