"""Checkpoints in and out, and everything that is refused on the way."""

import json
import shutil
import struct

import pytest
import safetensors.torch
import torch

from gristmill.artifact import draft
from gristmill.config import from_dict, to_dict
from gristmill.errors import CorruptArtifact, InputError
from gristmill.generate import SamplingSettings, complete, load_run, prepare
from gristmill.generate.load import CHECKPOINT, FORMAT
from gristmill.generate.portable import export_run, import_model
from gristmill.model.checkpoint import save_model
from gristmill.model.config import ModelSettings, NgramSettings, resolve
from gristmill.model.transformer import Transformer
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train

TEXT = "The mill turns. 床前明月光，疑是地上霜。 It grinds 1984 grains.\n"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return train(
        from_dict(TokenizerConfig, {"kind": "bytes"}), [TEXT], tmp_path_factory.mktemp("words") / "tokenizer"
    ).path


def make_run(path, words, model_settings=ModelSettings(depth=1, width=32, heads=2)):  # noqa: B008
    tokenizer = Tokenizer.from_directory(words)
    config = resolve(model_settings, vocab_size=tokenizer.vocab_size, row_tokens=32)
    model = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    model.initialise(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    with draft(path / "model", kind=CHECKPOINT, format_version=FORMAT, config=to_dict(config)) as work:
        save_model(work.path, config, model.state_dict())
        (work.path / "tokenizer").mkdir()
        tokenizer.save(work.path / "tokenizer")
    return path


@pytest.fixture
def run(tmp_path, words):
    return make_run(tmp_path / "run", words)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_the_exported_directory_says_what_we_say(family, tmp_path, words):
    transformers = pytest.importorskip("transformers")
    loaded = load_run(
        make_run(tmp_path / "run", words, ModelSettings(family=family, depth=1, width=32, heads=2))
    )
    result = export_run(loaded, tmp_path / "out")
    assert sorted(result["files"]) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for prompt in ("The mill", "床前", ""):
        inputs = tokenizer(prompt, return_tensors="pt")
        theirs = model.generate(**inputs, max_new_tokens=20, do_sample=False)[
            0, inputs["input_ids"].shape[1] :
        ]
        (ours,) = complete(
            prepare(loaded.model),
            loaded.tokenizer,
            [prompt],
            SamplingSettings(max_new_tokens=20, temperature=0.0),
        )
        assert theirs.tolist() == list(ours.tokens)


def test_what_is_exported_can_be_imported_again(run, tmp_path):
    pytest.importorskip("transformers")
    loaded = load_run(run)
    export_run(loaded, tmp_path / "out")
    import_model(tmp_path / "out", tmp_path / "again")
    again = load_run(tmp_path / "again")
    assert again.config == loaded.config
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.model.state_dict().values(), loaded.model.state_dict().values(), strict=True)
    )
    assert again.tokenizer.encode(TEXT) == loaded.tokenizer.encode(TEXT)


def test_an_export_says_nothing_on_the_terminal(run, tmp_path, capfd):
    pytest.importorskip("transformers")
    export_run(load_run(run), tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_an_export_never_overwrites_unasked(run, tmp_path):
    pytest.importorskip("transformers")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export_run(load_run(run), out)
    assert (out / "mine.txt").read_text() == "mine"
    export_run(load_run(run), out, force=True)
    assert not (out / "mine.txt").exists()


def test_an_export_of_what_transformers_has_not_is_refused_and_leaves_nothing(tmp_path, words):
    run = make_run(
        tmp_path / "run", words, ModelSettings(depth=1, width=32, ngrams=NgramSettings(buckets=64))
    )
    with pytest.raises(InputError, match="n-gram"):
        export_run(load_run(run), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_only_encoders_are_exported_for_embeddings(run, tmp_path):
    with pytest.raises(InputError, match="of kind decoder"):
        export_run(load_run(run), tmp_path / "out", pooling="mean")
    assert not (tmp_path / "out").exists()


def test_changed_weights_are_found_before_use(run):
    path = run / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="hash differs"):
        load_run(run)


def test_truncated_weights_are_found_before_use(run):
    path = run / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptArtifact, match="bytes, expected"):
        load_run(run)


def test_a_run_that_is_not_there_or_not_finished_is_said_to_be(tmp_path):
    with pytest.raises(InputError, match="there is no run"):
        load_run(tmp_path / "none")
    (tmp_path / "started").mkdir()
    with pytest.raises(InputError, match="holds no model"):
        load_run(tmp_path / "started")
    (tmp_path / "started" / ".model.partial").mkdir()
    with pytest.raises(InputError, match="not finished") as caught:
        load_run(tmp_path / "started")
    assert "gristmill run" in caught.value.hint


def test_an_import_refuses_pickles(tmp_path, words):
    source = tmp_path / "theirs"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (source / "pytorch_model.bin").write_bytes(b"\x80\x02")
    for path in (source, source / "pytorch_model.bin"):
        with pytest.raises(InputError) as caught:
            import_model(path, tmp_path / "out", tokenizer=words)
        assert "pickles are not loaded" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, 'of type "mamba"'),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "scales rotary positions"),
        ({"num_hidden_layers": 2}, "no tensor"),
        ({"hidden_size": 64}, "do not fit the config"),
    ],
)
def test_an_import_refuses_what_this_core_does_not_do(run, tmp_path, change, message):
    pytest.importorskip("transformers")
    export_run(load_run(run), tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        import_model(tmp_path / "theirs", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_import_refuses_truncated_and_unknown_tensors(run, tmp_path):
    pytest.importorskip("transformers")
    theirs = tmp_path / "theirs"
    export_run(load_run(run), theirs)
    weights = safetensors.torch.load_file(theirs / "model.safetensors")
    safetensors.torch.save_file({**weights, "extra": torch.zeros(1)}, theirs / "model.safetensors")
    with pytest.raises(InputError, match="extra"):
        import_model(theirs, tmp_path / "out")
    path = theirs / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CorruptArtifact, match="not a whole safetensors file"):
        import_model(theirs, tmp_path / "out")


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 28, b"text that is no model, and is long enough to have a header"]
)
def test_an_import_refuses_what_is_no_llama2c_file(data, tmp_path, words):
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"model\.bin"):
        import_model(tmp_path / "model.bin", tmp_path / "out", tokenizer=words)


def test_a_truncated_llama2c_file_is_found(tmp_path, words):
    (tmp_path / "model.bin").write_bytes(struct.pack("<7i", 8, 16, 1, 2, 2, 32, 16) + b"\0" * 400)
    with pytest.raises(CorruptArtifact, match="promises"):
        import_model(tmp_path / "model.bin", tmp_path / "out", tokenizer=words)


def test_an_import_needs_a_tokenizer_that_the_model_knows(run, tmp_path, words):
    pytest.importorskip("transformers")
    export_run(load_run(run), tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        import_model(tmp_path / "theirs", tmp_path / "out")
    larger = shutil.copytree(words, tmp_path / "larger")
    (larger / "manifest.json").unlink()
    layout = json.loads((larger / "tokenizer.json").read_text())
    layout["added_tokens"].append({**layout["added_tokens"][-1], "id": 5000, "content": "<|more|>"})
    layout["model"]["vocab"]["<|more|>"] = 5000
    (larger / "tokenizer.json").write_text(json.dumps(layout))
    with pytest.raises(CorruptArtifact, match="5,001 tokens"):
        import_model(tmp_path / "theirs", tmp_path / "out", tokenizer=larger)
