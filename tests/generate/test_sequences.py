"""What an encoder-decoder writes: with a cache as without, alone as in company, and as transformers writes it."""

import dataclasses
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.noisy import noisy

from gristmill.artifact import draft
from gristmill.config import from_dict, to_dict
from gristmill.errors import InputError
from gristmill.generate.load import CHECKPOINT, FORMAT, load_run
from gristmill.generate.portable import export_run
from gristmill.generate.sampling import SamplingSettings
from gristmill.generate.sequences import (
    BeamSettings,
    Written,
    generate_sequences,
    keep_rows,
    read,
    search_sequences,
    write_one_token,
)
from gristmill.model.checkpoint import save_model
from gristmill.model.config import ModelSettings, resolve
from gristmill.model.exchange import to_transformers
from gristmill.model.transformer import Transformer
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train

VOCAB, LENGTH = 40, 64
PAD, BOS, EOS = 0, 1, 2

KINDS = {
    # few buckets and a short reach, so that what is written goes through all of them
    "t5": (ModelSettings(family="t5", depth=2, width=32, heads=4), {"relative_buckets": 8, "relative_distance": 9}),
    "transformer": (ModelSettings(family="transformer", depth=2, encoder_depth=1, width=32, heads=4), {}),
    "learned positions": (ModelSettings(family="transformer", depth=1, width=32, heads=4), {"positions": "learned"}),
    "rotary positions": (
        ModelSettings(family="t5", depth=1, width=32, heads=4),
        {"positions": "rotary", "rotary_base": 10_000.0, "kv_heads": 2, "attention_scale": True},
    ),
}  # fmt: skip


def random_model(kind: str) -> Transformer:
    model_settings, changes = KINDS[kind]
    config = resolve(model_settings, vocab_size=VOCAB, row_tokens=LENGTH)
    return noisy(Transformer(dataclasses.replace(config, **changes)), 0.15, seed=3)


MODELS = {kind: random_model(kind) for kind in KINDS}

SOURCES = [
    torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (1, 5, 9, 14, 22, 30)
]

token_lists = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30)


@torch.inference_mode()
def recomputed(model: Transformer, source: list[int], written: list[int]) -> torch.Tensor:
    """The scores after each token that was written, alone and without a cache."""
    memory = model.remember(model.encode(torch.tensor([source])))
    return model.logits(model(torch.tensor([written]), memory=memory)[0])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(
    sources=st.lists(token_lists, min_size=1, max_size=4), steps=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_cached_writing_in_company_equals_recomputing_everything_alone(kind, sources, steps, seed):
    model = MODELS[kind]
    generator = torch.Generator().manual_seed(seed)
    written = torch.randint(VOCAB, (len(sources), steps), generator=generator)
    state, cached = read(model, sources), []
    for tokens in written.T:
        logits, state = write_one_token(model, state, tokens)
        cached.append(logits)
    for row, (source, sequence) in enumerate(zip(sources, written.tolist(), strict=True)):
        expected = recomputed(model, source, sequence)
        torch.testing.assert_close(torch.stack(cached)[:, row], expected, rtol=1e-5, atol=1e-5)


def test_rows_can_be_left_out_and_repeated():
    model = MODELS["t5"]
    first = torch.tensor([7, 8, 9])
    _, state = write_one_token(model, read(model, [[1, 2, 3], [4], [5, 6, 7, 8, 9]]), first)
    every, _ = write_one_token(model, state, torch.tensor([3, 4, 5]))
    some, _ = write_one_token(model, keep_rows(state, [2, 0, 2]), torch.tensor([5, 3, 5]))
    torch.testing.assert_close(some, every[[2, 0, 2]], rtol=1e-5, atol=1e-5)


def test_a_state_is_not_changed_by_writing_on():
    model = MODELS["transformer"]
    _, state = write_one_token(model, read(model, [[3, 4]]), torch.tensor([BOS]))
    once, _ = write_one_token(model, state, torch.tensor([5]))
    write_one_token(model, state, torch.tensor([6]))
    again, _ = write_one_token(model, state, torch.tensor([5]))
    assert torch.equal(once, again)


GREEDY = SamplingSettings(max_new_tokens=24, temperature=0.0)
SAMPLED = SamplingSettings(max_new_tokens=8, temperature=1.0, top_p=None, seed=3)


@settings(max_examples=6)
@given(st.lists(token_lists, min_size=1, max_size=4), st.integers(1, 3))
def test_what_is_drawn_for_a_source_depends_on_nothing_else(sources, batch_size):
    model = MODELS["t5"]
    together = generate_sequences(model, sources, SAMPLED, start=BOS, end=EOS, batch_size=batch_size)
    for index, source in enumerate(sources):
        if source not in sources[:index]:
            assert together[index] == generate_sequences(model, [source], SAMPLED, start=BOS, end=EOS)[0]


def test_the_same_source_twice_is_answered_twice_when_drawing_and_once_when_greedy():
    model = MODELS["transformer"]
    one, two = generate_sequences(model, [[5, 6], [5, 6]], SAMPLED, start=BOS, end=None)
    assert one.tokens != two.tokens
    one, two = generate_sequences(model, [[5, 6], [5, 6]], GREEDY, start=BOS, end=None)
    assert one == two


def test_a_sequence_ends_with_the_end_token_or_at_its_length():
    model = MODELS["transformer"]
    (whole,) = generate_sequences(model, [[5, 6, 7]], GREEDY, start=BOS, end=None)
    assert (len(whole.tokens), whole.finish) == (24, "length")
    end = whole.tokens[3]
    (ended,) = generate_sequences(model, [[5, 6, 7]], GREEDY, start=BOS, end=end)
    first = whole.tokens.index(end)
    assert ended == Written(tokens=whole.tokens[: first + 1], finish="end")


def test_no_more_is_written_than_the_model_has_positions():
    for family, expected in (("transformer", 6), ("t5", 9)):  # relative positions have no end
        config = resolve(ModelSettings(family=family, depth=1, width=32), vocab_size=VOCAB, row_tokens=6)
        model = Transformer(config).eval()
        model.initialise(torch.Generator().manual_seed(0))
        long = SamplingSettings(max_new_tokens=9, temperature=0.0)
        (written,) = generate_sequences(model, [[5]], long, start=BOS, end=None)
        assert len(written.tokens) == expected


def test_bfloat16_weights_score_close_to_float32():
    model = random_model("t5")
    _, state = write_one_token(model, read(model, SOURCES), torch.full((len(SOURCES),), BOS))
    expected, _ = write_one_token(model, state, torch.full((len(SOURCES),), 5))
    model = model.bfloat16()
    _, state = write_one_token(model, read(model, SOURCES), torch.full((len(SOURCES),), BOS))
    logits, _ = write_one_token(model, state, torch.full((len(SOURCES),), 5))
    assert float((logits.float() - expected).abs().max() / expected.abs().max()) < 0.05


def test_rules_decide_what_may_come_next():
    def even(tokens):
        return torch.arange(VOCAB) % 2 == len(tokens) % 2

    odd = generate_sequences(MODELS["t5"], [[5]], GREEDY, start=BOS, end=None, rules=[even])[0]
    beams = search_sequences(
        MODELS["t5"], [[5]], BeamSettings(max_new_tokens=6), start=BOS, end=None, rules=[even]
    )[0]
    for sequence in (odd, *beams):
        assert [token % 2 for token in sequence.tokens] == [i % 2 for i in range(len(sequence.tokens))]


def test_one_beam_is_greedy():
    sources = [[5, 6, 7], [8]]
    greedy = generate_sequences(MODELS["t5"], sources, GREEDY, start=BOS, end=EOS)
    beams = search_sequences(
        MODELS["t5"], sources, BeamSettings(beams=1, max_new_tokens=24), start=BOS, end=EOS
    )
    assert [best[0].tokens for best in beams] == [written.tokens for written in greedy]


@torch.inference_mode()
def test_a_search_orders_what_it_finds_by_its_score_which_is_the_penalised_log_probability():
    model, source = MODELS["transformer"], [5, 6, 7]
    (found,) = search_sequences(
        model, [source], BeamSettings(beams=3, length_penalty=0.6, max_new_tokens=9), start=BOS, end=EOS
    )
    assert len({each.tokens for each in found}) == 3
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    for each in found:
        log_probs = recomputed(model, source, [BOS, *each.tokens[:-1]]).log_softmax(-1)
        total = sum(float(log_probs[i, token]) for i, token in enumerate(each.tokens))
        assert each.score == pytest.approx(total / len(each.tokens) ** 0.6, rel=1e-5)


transformers = pytest.importorskip("transformers")


@pytest.fixture(params=["t5", "transformer"], scope="module")
def model_and_stock(request, tmp_path_factory):
    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    model, directory = random_model(request.param), tmp_path_factory.mktemp("export")
    last = model.blocks[-1].feed_forward_norm if model.norm is None else model.norm
    with torch.no_grad():
        # where the output is the embedding, and no sign is turned, a token is followed by itself for ever
        last.weight.normal_(generator=torch.Generator().manual_seed(5))
        model.embedding.weight[EOS] = 1.3 * model.embedding.weight[7]  # an end that comes sometimes
    to_transformers(model, directory, {"bos": BOS, "eos": EOS, "pad": PAD})
    yield model, transformers.AutoModelForSeq2SeqLM.from_pretrained(directory).eval()
    transformers.utils.logging.set_verbosity(before)


def stock_tokens(stock, sources, **options):
    """What `generate` writes about padded sources, from the start token to the end token."""
    width = max(map(len, sources))
    padded = torch.tensor([source + [PAD] * (width - len(source)) for source in sources])
    mask = torch.tensor([[1] * len(source) + [0] * (width - len(source)) for source in sources])
    out = stock.generate(input_ids=padded, attention_mask=mask, do_sample=False, max_new_tokens=20, **options)
    found = []
    for row in out.tolist():
        assert row[0] == BOS
        tokens = row[1:]
        found.append(tuple(tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens))
    return found


def test_greedy_writes_what_transformers_writes_token_for_token(model_and_stock):
    model, stock = model_and_stock
    short = SamplingSettings(max_new_tokens=20, temperature=0.0)
    ours = generate_sequences(model, SOURCES, short, start=BOS, end=EOS, batch_size=4)
    assert [written.tokens for written in ours] == stock_tokens(stock, SOURCES)
    assert {written.finish for written in ours} == {"end", "length"}


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
@pytest.mark.parametrize("beams", [2, 4])
def test_beam_search_finds_what_transformers_finds(model_and_stock, beams, length_penalty):
    model, stock = model_and_stock
    wanted = BeamSettings(beams=beams, length_penalty=length_penalty, max_new_tokens=20)
    ours = search_sequences(model, SOURCES, wanted, start=BOS, end=EOS, batch_size=4)
    stocks = stock_tokens(stock, SOURCES, num_beams=beams, length_penalty=length_penalty)
    assert [found[0].tokens for found in ours] == stocks


@pytest.mark.parametrize("beams", [2, 4])
def test_the_other_sequences_that_are_found_are_those_of_transformers_too(model_and_stock, beams):
    model, stock = model_and_stock
    wanted = BeamSettings(beams=beams, max_new_tokens=20)
    ours = search_sequences(model, SOURCES, wanted, start=BOS, end=EOS)
    every = stock_tokens(stock, SOURCES, num_beams=beams, num_return_sequences=beams)
    assert [each.tokens for found in ours for each in found] == every


@pytest.mark.parametrize("family", ["t5", "transformer"])
def test_an_exported_run_reads_texts_and_writes_as_we_do(family, tmp_path):
    folder = train(
        from_dict(TokenizerConfig, {"kind": "bytes", "sentinels": 2}), ["A text."], tmp_path / "words"
    ).path
    tokenizer = Tokenizer.from_directory(folder)
    model_settings = ModelSettings(family=family, depth=1, width=32, heads=2)
    config = resolve(model_settings, vocab_size=tokenizer.vocab_size, row_tokens=LENGTH)
    model = Transformer(config).eval()
    model.initialise(torch.Generator().manual_seed(0))
    with draft(
        tmp_path / "run" / "model", kind=CHECKPOINT, format_version=FORMAT, config=to_dict(config)
    ) as work:
        save_model(work.path, config, model.state_dict())
        (work.path / "tokenizer").mkdir()
        tokenizer.save(work.path / "tokenizer")
    export_run(load_run(tmp_path / "run"), tmp_path / "out")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = words(["A text.", "床前明月光，"], return_tensors="pt", padding=True)
    stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    theirs = stock.generate(**inputs, do_sample=False, max_new_tokens=12)
    bos, eos = tokenizer.special["bos"], tokenizer.special["eos"]
    sources = [[bos, *tokenizer.encode(text), eos] for text in ("A text.", "床前明月光，")]
    short = SamplingSettings(max_new_tokens=12, temperature=0.0)
    ours = generate_sequences(model, sources, short, start=bos, end=eos)
    for row, written in zip(theirs.tolist(), ours, strict=True):
        assert tuple(row[1 : 1 + len(written.tokens)]) == written.tokens


def test_what_can_not_be_read_is_refused():
    decoder = Transformer(resolve(ModelSettings(depth=1, width=32, heads=2), vocab_size=VOCAB, row_tokens=8))
    refusals = [
        (decoder, [[5]], 'kind "decoder" has no source'),
        (MODELS["t5"], [[5], []], "a source is empty"),
        (MODELS["transformer"], [[5] * (LENGTH + 1)], "65 tokens, the model reads 64 at most"),
        (MODELS["t5"], [[VOCAB]], "a token 40, the model knows 40"),
    ]
    for model, sources, message in refusals:
        with pytest.raises(InputError, match=message):
            generate_sequences(model, sources, GREEDY, start=BOS, end=EOS)
        with pytest.raises(InputError, match=message):
            search_sequences(model, sources, BeamSettings(), start=BOS, end=EOS)
    with pytest.raises(InputError, match="a stop string is given"):
        generate_sequences(MODELS["t5"], [[5]], SamplingSettings(stop=("x",)), start=BOS, end=EOS)
    with pytest.raises(InputError, match="beams is 0"):
        BeamSettings(beams=0)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_about_no_source(kind):
    with pytest.raises(ValueError, match="writes about a source"):
        MODELS[kind](torch.tensor([[BOS, 5, 7]]))
