import json
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill import config
from gristmill.artifact import open_artifact
from gristmill.errors import CorruptArtifact, InputError
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train

KINDS = ["bpe", "bytes", "characters", "unigram", "wordpiece"]
TEXTS = [
    "the cat and the hat sat on the mat ## # \n\n" * 30,
    "明月光明月光，地上霜。" * 30,
    "Ünïcödé 🤗 12 " * 9,
]
HARD = "  Hello ##a # ## <|bos|> <0x41> 12345 中文かな한글 \r\n\r\t\x00 e\u0301\u0301 \u0301é 🤗👩‍👩‍👧 \u200f\ufeff\U0010ffff  "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    for kind in KINDS:
        train(config.from_dict(TokenizerConfig, {"kind": kind}), TEXTS, root / kind)
    return root


@pytest.fixture(scope="module")
def all_kinds(folder):
    return {kind: Tokenizer.from_directory(folder / kind) for kind in KINDS}


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example(HARD)
@example("#" * 9 + "the##the")
@example("a" * 300)
def test_any_text_comes_back_exactly_from_every_kind(all_kinds, text):
    for kind, tokenizer in all_kinds.items():
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text, kind
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode(), kind


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_text_are_text(all_kinds, kind):
    tokenizer = all_kinds[kind]
    text = "<|bos|>the cat<|eos|><|pad|>"
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode([tokenizer.special["bos"], *ids, tokenizer.special["eos"]]) == text


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_names_and_the_last_ids(all_kinds, kind):
    tokenizer = all_kinds[kind]
    names = ("pad", "bos", "eos", "mask", "cls", "sep")
    assert dict(tokenizer.special) == {name: tokenizer.vocab_size - 6 + i for i, name in enumerate(names)}
    assert {tokenizer.token_bytes(i) for i in tokenizer.special.values()} == {b""}


def test_half_a_surrogate_pair_is_named_as_what_it_is(all_kinds):
    with pytest.raises(InputError, match=r"half a surrogate pair \(U\+D800\) at character 2"):
        all_kinds["bpe"].encode("ab\ud800")


def test_a_batch_is_encoded_as_its_texts_are(all_kinds):
    for tokenizer in all_kinds.values():
        assert tokenizer.encode_batch([HARD, "", "the cat"]) == [
            tokenizer.encode(t) for t in (HARD, "", "the cat")
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_the_directory_and_gives_the_same_ids(folder, all_kinds, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers and its imports deprecate is not ours to repair
        auto = pytest.importorskip("transformers").AutoTokenizer
        theirs = auto.from_pretrained(folder / kind)
    ours = all_kinds[kind]
    text = HARD.replace("<|bos|>", "")
    assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
    assert theirs.encode(text) == [ours.special["bos"], *ours.encode(text)]
    assert theirs.decode(ours.encode(text)) == text
    assert len(theirs) == ours.vocab_size
    assert {name: getattr(theirs, f"{name}_token_id") for name in ours.special} == dict(ours.special)


def test_a_saved_tokenizer_is_the_same_tokenizer(all_kinds, tmp_path):
    for kind, tokenizer in all_kinds.items():
        (tmp_path / kind).mkdir()
        tokenizer.save(tmp_path / kind)
        again = Tokenizer.from_directory(tmp_path / kind)
        assert (again.sha256, again.special, again.encode(HARD)) == (
            tokenizer.sha256,
            tokenizer.special,
            tokenizer.encode(HARD),
        )


def test_a_split_shows_spaces_and_bytes(all_kinds):
    assert [text for _, text in all_kinds["bytes"].pieces(" é\n")] == ["·", "<0xC3>", "<0xA9>", "↵"]


def test_a_changed_file_is_found_before_use(folder, tmp_path):
    train(TokenizerConfig(), TEXTS, tmp_path / "t")
    file = tmp_path / "t" / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace("the", "thx", 1), "utf-8")
    with pytest.raises(CorruptArtifact, match=r"tokenizer\.json"):
        Tokenizer.from_directory(tmp_path / "t")
    with pytest.raises(CorruptArtifact):
        open_artifact(tmp_path / "t")


def test_a_directory_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is not a tokenizer"):
        Tokenizer.from_directory(tmp_path)


def test_special_names_are_read_from_either_file_of_hugging_face(all_kinds, tmp_path):
    all_kinds["bytes"].save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    names = {
        "bos_token": {"content": "<|bos|>"},
        "eos_token": "<|eos|>",
        "additional_special_tokens": ["<|cls|>"],
    }
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    assert dict(Tokenizer.from_directory(tmp_path).special) == {"bos": 257, "eos": 258}
