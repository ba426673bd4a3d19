"""Real weights, published greedy text: llama2.c's stories260K says its 565 characters, exactly."""

import pytest

from gristmill.generate import SamplingSettings, complete, load_run, prepare
from gristmill.generate.portable import export_run, import_model

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def stories(shared_data, tmp_path_factory):
    folder = shared_data / "weights_stories260k"
    out = tmp_path_factory.mktemp("stories") / "model"
    import_model(folder / "stories260K.bin", out, tokenizer=folder / "tok512.bin")
    return load_run(out)


@pytest.fixture(scope="module")
def expected(shared_data):
    return (
        (shared_data / "weights_stories260k" / "expected_greedy.txt").read_text(encoding="utf-8").rstrip("\n")
    )


def test_the_expected_characters_come_out(stories, expected):
    settings = SamplingSettings(max_new_tokens=256, temperature=0.0)
    (completion,) = complete(prepare(stories.model), stories.tokenizer, [""], settings)
    assert len(expected) == 565
    assert completion.text == expected


def test_the_exported_directory_says_the_same(stories, expected, tmp_path):
    transformers = pytest.importorskip("transformers")
    export_run(stories, tmp_path / "exported")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    settings = SamplingSettings(max_new_tokens=60, temperature=0.0)
    for prompt in ("", "Tom and his dog"):
        tokens = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=60, do_sample=False)
        (ours,) = complete(prepare(stories.model), stories.tokenizer, [prompt], settings)
        assert tokenizer.decode(tokens[0], skip_special_tokens=True) == prompt + ours.text
    assert expected.startswith("Once upon a time")
