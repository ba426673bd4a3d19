"""Every kind of model through the verbs that use one, and every input that is refused, as they are typed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.cli.verbs import run_verb, written
from tests.conftest import REPOSITORY

from gristmill.artifact import open_artifact
from gristmill.cli import main
from gristmill.config import from_dict, read_toml
from gristmill.errors import InputError
from gristmill.pipeline import Quiet, Recipe, pretrain, settle

pytestmark = pytest.mark.slow

TINY = """
name = "tiny"

[corpus]
sources = ["{texts}/king-james.txt"]
document_separator = "%"

[tokenizer]
vocab_size = 600

[model]
depth = 1
width = 32

[pretrain]
budget = "4 steps"
row_tokens = 64
batch_tokens = 512
validations = 1
precision = "float32"
threads = 1
"""

MADE = {
    "encoder": ["model.family=bert", "pretrain.objective=masked"],
    "encoder-decoder": ["model.family=t5", "pretrain.objective=spans"],
    "hybrid": ["pretrain.objective=hybrid"],
    "lstm": ["model.family=lstm"],
}
FILLING = ["encoder", "encoder-decoder", "hybrid"]
WRITING = ["hybrid", "lstm"]

GAPPED = "In the ___ God created the ___ and the earth."
WHOLE = "In the beginning God created the heaven and the earth."
LONG = "and God saw that it was good " * 40
LONG_GAPPED = f"{LONG}___"


def done(capsys, *arguments: str | Path) -> str:
    status, out, err = run_verb(capsys, *arguments)
    assert status == 0, err
    return out


def refused(capsys, *arguments: str | Path) -> tuple[str, str]:
    """Runs a verb that has to refuse, and returns its error and its hint."""
    status, out, err = run_verb(capsys, *arguments)
    assert (status, out) == (2, ""), err
    error, _, hint = err.partition("\nhint: ")
    assert error.rpartition("error: ")[1], err
    return error, hint


def with_sets(changes: list[str]) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def import_without(capsys, token: str, exported: Path, folder: Path) -> None:
    """Imports what was exported as folder/"back", its tokenizer without one of its special tokens."""
    source = folder / "theirs"
    shutil.copytree(exported, source)
    path = source / "tokenizer_config.json"
    stated = json.loads(path.read_text())
    stated.pop(token)
    path.write_text(json.dumps(stated))
    done(capsys, "import", source, "--out", folder / "back")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return written(TINY, tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, recipe) -> Callable[[str], Path]:
    """The run of each kind, trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        if not (folder / name).exists():
            with pytest.raises(SystemExit) as ended:
                main(["pretrain", str(recipe), "--out", str(folder / name), *with_sets(MADE[name])])
            assert not ended.value.code
        return folder / name

    return run


@pytest.fixture(scope="module")
def exported(tmp_path_factory, trained) -> Callable[[str], Path]:
    """A directory of transformers for each kind, written when it is first asked for."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("exported")

    def export(name: str) -> Path:
        if not (folder / name).exists():
            with pytest.raises(SystemExit) as ended:
                main(["export", str(trained(name)), "--out", str(folder / name)])
            assert not ended.value.code
        return folder / name

    return export


# --- what works -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "verb"),
    [("encoder", "fill"), ("encoder-decoder", "fill"), ("hybrid", "generate"), ("lstm", "generate")],
)
def test_pretrain_ends_with_a_command_that_the_model_can_follow(name, verb, recipe, trained, capsys):
    path = trained(name)
    out = done(capsys, "pretrain", recipe, "--out", path, *with_sets(MADE[name]))
    last = out.splitlines()[-1]
    assert last.startswith(f"next: gristmill {verb} {path} ")
    done(capsys, verb, path, last.split('"')[1])


@pytest.mark.parametrize("name", FILLING)
def test_fill_shows_the_likeliest_tokens_for_each_gap(name, trained, capsys):
    found = json.loads(done(capsys, "fill", trained(name), GAPPED, "--top-k", "3", "--json"))
    assert len(found["gaps"]) == 2
    for guesses in found["gaps"]:
        chances = [guess["probability"] for guess in guesses]
        assert len(chances) == 3
        assert 1 > chances[0] >= chances[1] >= chances[2] > 0
    assert (found["filled"] is not None) == (name == "encoder-decoder")
    shown = done(capsys, "fill", trained(name), GAPPED.replace("___", "＿"), "--gap", "＿")
    assert [line for line in shown.splitlines() if line.startswith("gap")] == ["gap 1", "gap 2"]


def test_an_encoder_decoder_also_writes_the_gaps_in_full(trained, capsys):
    filled = json.loads(done(capsys, "fill", trained("encoder-decoder"), GAPPED, "--json"))["filled"]
    assert filled.startswith("In the")
    assert " God created the" in filled
    assert filled.endswith(" and the earth.")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("encoder", "pseudo_within_words"),
        ("encoder-decoder", "pseudo_within_words"),
        ("hybrid", "left_to_right"),
        ("lstm", "left_to_right"),
    ],
)
def test_score_gives_a_number_for_each_text_in_the_way_that_suits_the_model(name, how, trained, capsys):
    texts = [WHOLE, "And the evening."]
    lines = [json.loads(line) for line in done(capsys, "score", trained(name), *texts, "--json").splitlines()]
    assert [(line["text"], line["how"]) for line in lines] == [(text, how) for text in texts]
    assert all(line["nats"] < 0 and line["tokens"] > 1 for line in lines)


def test_a_vocabulary_without_spaces_is_scored_token_by_token(exported, tmp_path, capsys):
    """As of BERT as it was published: a list of words, of which some go on others."""
    source = tmp_path / "theirs"
    shutil.copytree(exported("encoder"), source)
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "in", "the", "begin", "##ning", "god", "."]
    (source / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    done(capsys, "import", source, "--out", tmp_path / "back")
    line = json.loads(done(capsys, "score", tmp_path / "back", "In the beginning God.", "--json"))
    assert (line["how"], line["tokens"]) == ("pseudo", 6)
    error, hint = refused(capsys, "score", tmp_path / "back", "In", "--how", "pseudo_within_words")
    assert 'not scored by "pseudo_within_words"' in error
    assert '"pseudo"' in hint or "known: pseudo" in hint


def test_score_takes_another_way_by_name(trained, capsys):
    for name, how in (("hybrid", "pseudo"), ("encoder", "pseudo"), ("encoder-decoder", "pseudo")):
        line = json.loads(done(capsys, "score", trained(name), WHOLE, "--how", how, "--json"))
        assert line["how"] == how


@pytest.mark.parametrize("name", MADE)
def test_embed_gives_a_vector_for_each_text_alone_or_as_an_array(name, trained, tmp_path, capsys):
    lines = done(capsys, "embed", trained(name), WHOLE, "Amen.", "--normalise").splitlines()
    vectors = np.array([json.loads(line)["vector"] for line in lines])
    assert vectors.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    done(capsys, "embed", trained(name), "Amen.", "--normalise", "--out", tmp_path / "one.npy")
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), vectors[1:], rtol=1e-4, atol=1e-6)


def test_embed_takes_the_pooling_that_suits_the_model(trained, capsys):
    for name, pooling in (("encoder", "cls"), ("lstm", "last")):
        (line,) = done(capsys, "embed", trained(name), WHOLE, "--pooling", pooling).splitlines()
        assert len(json.loads(line)["vector"]) == 32


@pytest.mark.parametrize("name", WRITING)
def test_generate_goes_on_from_a_prompt(name, trained, capsys):
    found = done(capsys, "generate", trained(name), "In the", "--max-new-tokens", "4", "--greedy", "--json")
    assert json.loads(found)["prompt"] == "In the"
    assert len(json.loads(found)["tokens"]) <= 4


@pytest.mark.parametrize(
    ("name", "objective"),
    [("encoder", "masked"), ("encoder-decoder", "spans"), ("hybrid", "hybrid"), ("lstm", "causal")],
)
def test_evaluate_measures_by_the_models_own_objective(name, objective, trained, tmp_path, capsys):
    (tmp_path / "psalm.txt").write_text("The LORD is my shepherd; I shall not want.\n" * 20, encoding="utf-8")
    found = json.loads(done(capsys, "evaluate", trained(name), tmp_path / "psalm.txt", "--json"))
    assert (found["objective"], found["row_tokens"]) == (objective, 64)
    assert 0 < found["overall"]["nats_per_token"] < 10


@pytest.mark.parametrize("name", FILLING)
def test_what_is_exported_comes_back_and_is_asked_as_before(name, trained, exported, tmp_path, capsys):
    source = exported(name)
    out = done(capsys, "import", source, "--out", tmp_path / "back")
    verb, text = ("generate", "Once upon a time") if name == "hybrid" else ("fill", "Once upon a ___")
    assert out.splitlines()[-1] == f'next: gristmill {verb} {tmp_path / "back"} "{text}"'
    done(capsys, verb, tmp_path / "back", text)
    before, after = (
        json.loads(done(capsys, "score", path, WHOLE, "--json"))
        for path in (trained(name), tmp_path / "back")
    )
    assert after == {**before, "nats": pytest.approx(before["nats"], rel=1e-5)}


def test_an_encoder_decoder_without_bos_is_used_as_t5_is(exported, tmp_path, capsys):
    import_without(capsys, "bos_token", exported("encoder-decoder"), tmp_path)
    (tmp_path / "psalm.txt").write_text("The LORD is my shepherd; I shall not want.\n" * 20, encoding="utf-8")
    found = json.loads(done(capsys, "evaluate", tmp_path / "back", tmp_path / "psalm.txt", "--json"))
    assert found["objective"] == "spans"
    assert found["overall"]["tokens"] > 10
    assert len(json.loads(done(capsys, "fill", tmp_path / "back", GAPPED, "--json"))["gaps"]) == 2
    assert json.loads(done(capsys, "score", tmp_path / "back", WHOLE, "--json"))["nats"] < 0


def test_an_encoder_is_exported_for_sentence_transformers(trained, tmp_path, capsys):
    pytest.importorskip("transformers")
    out = done(capsys, "export", trained("encoder"), "--out", tmp_path / "out", "--pooling", "mean")
    assert out.splitlines()[-1] == f'next: sentence_transformers.SentenceTransformer("{tmp_path / "out"}")'
    assert (tmp_path / "out" / "modules.json").is_file()


def test_a_trunk_without_a_head_is_imported_for_embeddings(exported, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    source = tmp_path / "trunk"
    shutil.copytree(exported("encoder"), source)
    transformers.AutoModel.from_pretrained(source, add_pooling_layer=False).save_pretrained(source)
    out = done(capsys, "import", source, "--out", tmp_path / "back")
    assert out.splitlines()[-1] == f'next: gristmill embed {tmp_path / "back"} "Once upon a time"'
    done(capsys, "embed", tmp_path / "back", WHOLE)
    for verb, text in (("fill", GAPPED), ("score", WHOLE)):
        error, hint = refused(capsys, verb, tmp_path / "back", text)
        assert "no head that predicts tokens" in error
        assert "embeddings" in hint


# --- an objective on the wrong kind, a family that can't express a setting ---------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            ["model.family=bert", "pretrain.objective=causal"],
            'objective "causal" needs a decoder, but model.kind is "encoder"',
            'use objective "detect", "masked"',
        ),
        (
            ["model.family=qwen3", "pretrain.objective=masked"],
            'objective "masked" needs an encoder, but model.kind is "decoder"',
            'set model.family = "modernbert" (or leave it out), or use objective "causal"',
        ),
        (
            ["model.kind=encoder", "pretrain.objective=spans"],
            'objective "spans" needs an encoder-decoder, but model.kind is "encoder"',
            'set model.family = "t5"',
        ),
        (
            ["model.family=t5", "pretrain.objective=hybrid"],
            'objective "hybrid" needs a decoder, but model.kind is "encoder-decoder"',
            'use objective "denoise" or "spans"',
        ),
        (
            ["model.family=lstm", "pretrain.objective=hybrid"],
            'objective "hybrid" needs attention, but the family "lstm" has none',
            'use objective "causal"',
        ),
        (
            ["model.family=modernbert", "pretrain.objective=next_sentence"],
            'needs a family with a head for pairs, and "modernbert" has none',
            'set model.family = "bert"',
        ),
    ],
)
def test_an_objective_on_the_wrong_kind(changes, message, hint, recipe, tmp_path, capsys):
    error, told = refused(capsys, "run", recipe, "--out", tmp_path / "run", *with_sets(changes))
    assert message in error
    assert hint in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (["family=gpt2", "kind=encoder"], 'the family "gpt2" is a model of kind decoder', "bert, modernbert"),
        (
            ["family=gpt2", "kv_heads=2", "heads=4"],
            "does not share keys and values",
            "leave model.kv_heads out",
        ),
        (["family=t5", "rotary_base=1000.0"], "has no rotary positions", "leave model.rotary_base out"),
        (["family=bert", "window=16"], "has no local layers", "leave model.window out"),
        (["family=bert", "tied=false"], "has its output tied", "leave model.tied out"),
        (["family=bert", "encoder_depth=2"], "is no encoder-decoder", "leave model.encoder_depth out"),
        (["family=bert", "ngrams.buckets=64"], "has no n-gram embeddings", "leave model.ngrams out"),
        (["family=lstm", "heads=2"], "has no attention heads", "leave model.heads out"),
        (["family=gru", "maximum_positions=512"], "has no positions", "leave model.maximum_positions out"),
        (
            ["family=modernbert", "window=16", "global_every=1"],
            "model.window = 16 is of no use",
            "model.global_every = 2 or more",
        ),
    ],
)
def test_a_setting_that_the_family_can_not_express(changes, message, hint, recipe, tmp_path, capsys):
    sets = with_sets([f"model.{change}" for change in changes])
    error, told = refused(capsys, "run", recipe, "--out", tmp_path / "run", *sets)
    assert message in error
    assert hint in told
    assert not (tmp_path / "run").exists()


# --- a checkpoint of another family, a vocabulary mismatch --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "claimed", "message"),
    [
        ("encoder", "gpt2", "n_embd is None"),
        ("encoder-decoder", "bert", "architectures names T5ForConditionalGeneration"),
        ("hybrid", "t5", "num_heads is None"),
    ],
)
def test_a_checkpoint_of_another_family_than_it_claims(name, claimed, message, exported, tmp_path, capsys):
    source = tmp_path / "theirs"
    shutil.copytree(exported(name), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": claimed}))
    error, hint = refused(capsys, "import", source, "--out", tmp_path / "back")
    assert message in error
    assert "of one model, of a family" in hint or "name the class that wrote the weights" in hint
    assert not (tmp_path / "back").exists()


def test_a_checkpoint_of_a_family_that_is_not_known(exported, tmp_path, capsys):
    source = tmp_path / "theirs"
    shutil.copytree(exported("encoder"), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    error, hint = refused(capsys, "import", source, "--out", tmp_path / "back")
    assert 'of type "mamba"' in error
    assert "bert" in hint


def test_weights_of_another_run(trained, tmp_path, capsys):
    mixed = tmp_path / "mixed"
    shutil.copytree(trained("encoder"), mixed)
    shutil.copy(trained("hybrid") / "model" / "model.safetensors", mixed / "model" / "model.safetensors")
    error, _ = refused(capsys, "fill", mixed, GAPPED)
    assert "model.safetensors" in error


def test_a_tokenizer_with_more_tokens_than_the_model_knows(exported, trained, tmp_path, capsys):
    source = exported("encoder")
    larger = tmp_path / "larger"
    shutil.copytree(trained("encoder") / "model" / "tokenizer", larger)
    (larger / "manifest.json").unlink(missing_ok=True)
    layout = json.loads((larger / "tokenizer.json").read_text(encoding="utf-8"))
    layout["added_tokens"].append({**layout["added_tokens"][-1], "id": 5000, "content": "<|more|>"})
    layout["model"]["vocab"]["<|more|>"] = 5000
    (larger / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    error, hint = refused(capsys, "import", source, "--out", tmp_path / "back", "--tokenizer", larger)
    assert "the tokenizer has 5,001 tokens, the model knows 600" in error
    assert "--tokenizer" in hint


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (
            "encoder-decoder",
            "written with another tokenizer",
        ),  # the same size: its sentinels are others' pieces
        ("smaller", "are of a vocabulary of 600 tokens, and the tokenizer"),
    ],
)
def test_shards_that_another_tokenizer_has_written(of, message, recipe, trained, tmp_path, capsys):
    run = trained("encoder")
    if of == "smaller":
        other = tmp_path / "other"
        done(
            capsys, "tokenizer", "train", REPOSITORY / "recipes" / "texts" / "king-james.txt",
            "--out", other, "--set", "vocab_size=500",
        )  # fmt: skip
    else:
        other = trained(of) / "tokenizer"
    settled = settle(from_dict(Recipe, read_toml(recipe)))
    with pytest.raises(InputError, match=message) as caught:
        pretrain(
            settled.model,
            settled.pretrain,
            shards=open_artifact(run / "shards"),
            tokenizer=open_artifact(other),
            out=tmp_path / "model",
            seed=0,
            listener=Quiet(),
        )
    assert "that the shards were written with" in str(caught.value.hint)
    assert not (tmp_path / "model").exists()


# --- a tokenizer without a mask token ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "token"),
    [
        (["pretrain.objective=masked"], "mask"),
        (["pretrain.objective=hybrid"], "mask"),
        (["pretrain.objective=permuted"], "mask"),
        (["pretrain.objective=detect"], "mask"),
        (["pretrain.objective=denoise"], "mask"),
        (["pretrain.objective=next_sentence", "tokenizer.special_tokens.mask=<m>"], "cls"),
    ],
)
def test_a_recipe_whose_tokenizer_lacks_a_token(changes, token, tmp_path, recipe, capsys):
    bare = tmp_path / "bare.toml"
    tokens = '[tokenizer.special_tokens]\npad = "<p>"\nbos = "<b>"\neos = "<e>"\n'
    bare.write_text(f"{recipe.read_text()}\n{tokens}", encoding="utf-8")
    error, hint = refused(capsys, "run", bare, "--out", tmp_path / "run", *with_sets(changes))
    assert f"needs a tokenizer with a {token} token" in error
    assert f'add {token} = "<|{token}|>"' in hint
    assert not (tmp_path / "run").exists()


def test_an_imported_encoder_whose_tokenizer_has_no_mask(exported, tmp_path, capsys):
    import_without(capsys, "mask_token", exported("encoder"), tmp_path)
    for verb, text in (("fill", GAPPED), ("score", WHOLE)):
        error, hint = refused(capsys, verb, tmp_path / "back", text)
        assert 'the tokenizer has no "mask" token' in error
        assert "mask" in hint


# --- what a kind can't be asked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "verb", "arguments", "message", "hint"),
    [
        ("encoder", "generate", [WHOLE], "an encoder does not continue texts", "gristmill fill"),
        (
            "encoder-decoder",
            "generate",
            [WHOLE],
            "an encoder-decoder does not continue texts",
            "gristmill fill",
        ),
        ("encoder", "chat", [], "an encoder does not continue texts", "gristmill fill"),
        ("lstm", "fill", [GAPPED], "a causal decoder can't fill in", "gristmill generate"),
        ("encoder", "fill", [WHOLE], "has no gap", 'mark what is to be filled in with "___"'),
        ("encoder", "score", [WHOLE, "--how", "left_to_right"], 'not scored by "left_to_right"', "pseudo"),
        ("lstm", "score", [WHOLE, "--how", "pseudo"], 'not scored by "pseudo"', "left_to_right"),
        ("hybrid", "score", [WHOLE, "--how", "pseud"], 'not scored by "pseud"', 'did you mean "pseudo"?'),
        ("encoder", "score", [""], "text 0 is empty", "leave it out"),
        ("encoder", "embed", [""], "text 0 is empty", "leave it out"),
        ("hybrid", "embed", [WHOLE, "--pooling", "cls"], 'pooling "cls" needs an encoder', '"mean"'),
        ("encoder", "embed", [WHOLE, "--pooling", "last"], "read from left to right", '"mean"'),
        (
            "lstm",
            "export",
            ["--out", "OUT"],
            'the family "lstm" has no class in transformers',
            "use it with gristmill",
        ),
        (
            "hybrid",
            "export",
            ["--out", "OUT", "--pooling", "mean"],
            "the model is of kind decoder",
            "without pooling",
        ),
    ],
)
def test_what_a_kind_can_not_be_asked(name, verb, arguments, message, hint, trained, tmp_path, capsys):
    run = trained(name)
    out = tmp_path / "out"
    error, told = refused(capsys, verb, run, *(out if each == "OUT" else each for each in arguments))
    assert message in error
    assert hint in told
    assert not out.exists()


# --- sequences past the position limit --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder", "encoder-decoder", "hybrid"])
@pytest.mark.parametrize(("verb", "text"), [("fill", LONG_GAPPED), ("score", LONG), ("embed", LONG)])
def test_a_text_past_the_position_limit(name, verb, text, trained, capsys):
    run = trained(name)
    error, hint = refused(capsys, verb, run, text)
    assert "tokens, and the model handles 64 positions" in error
    assert "cut the text, or train with a larger model.maximum_positions" in hint


@pytest.mark.parametrize("verb", ["score", "embed"])
def test_a_recurrent_model_has_no_position_limit(verb, trained, capsys):
    run = trained("lstm")
    assert done(capsys, verb, run, LONG)


def test_rows_past_the_position_limit(recipe, trained, tmp_path, capsys):
    error, hint = refused(
        capsys, "run", recipe, "--out", tmp_path / "run", *with_sets(["model.maximum_positions=32"])
    )
    assert "model.maximum_positions = 32 is less than pretrain.row_tokens = 64" in error
    assert "raise it" in hint
    run = trained("encoder")
    error, hint = refused(capsys, "evaluate", run, "--row-tokens", "100")
    assert "--row-tokens is 100, but the model has 64 positions" in error
    assert hint.strip() == "give 64 or less"


@pytest.mark.parametrize("name", ["encoder", "encoder-decoder"])
def test_a_prompt_past_the_position_limit_is_refused_before_training(name, recipe, tmp_path, capsys):
    out = tmp_path / "run"
    prompts = f"samples.prompts={json.dumps([GAPPED, LONG_GAPPED])}"
    status, printed, err = run_verb(capsys, "run", recipe, "--out", out, *with_sets([*MADE[name], prompts]))
    assert (status, printed) == (2, "")
    assert "prompt 2 of samples.prompts has " in err
    assert "the model handles 64" in err
    assert "set model.maximum_positions = " in err
    assert (out / "tokenizer").is_dir()
    assert not (out / "shards").exists()
