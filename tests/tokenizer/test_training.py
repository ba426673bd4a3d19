import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill import config, plugins
from gristmill.errors import InputError
from gristmill.tokenizer import Tokenizer, TokenizerConfig, train

KINDS = ["bpe", "bytes", "characters", "unigram", "wordpiece"]
LEARNING = ["bpe", "unigram", "wordpiece"]
ENGLISH = "In the beginning God created the heaven and the earth. And the earth was without form, and void. "
CHINESE = "床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。"
TEXTS = [ENGLISH * 20, CHINESE * 20, "the year 1611, the year 1612"]


def configured(**settings) -> TokenizerConfig:
    return config.from_dict(TokenizerConfig, settings)


def trained(out: Path, texts=TEXTS, **settings) -> Tokenizer:
    train(configured(**settings), texts, out)
    return Tokenizer.from_directory(out)


def test_the_kinds_are_the_files_of_the_package():
    assert plugins.names("tokenizer.kinds") == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_survives_the_manifest(kind):
    made = configured(kind=kind)
    assert config.from_dict(TokenizerConfig, json.loads(json.dumps(config.to_dict(made)))) == made


@pytest.mark.parametrize(
    ("kind", "size"), [("bpe", 300), ("unigram", 300), ("wordpiece", 560), ("characters", 255)]
)
def test_the_vocabulary_has_the_size_that_was_asked_for(kind, size, tmp_path):
    assert trained(tmp_path / "t", kind=kind, vocab_size=size).vocab_size == size


@pytest.mark.parametrize("kind", LEARNING)
def test_a_vocabulary_larger_than_the_text_supports_is_refused_and_what_stands_there_stays(kind, tmp_path):
    before = train(configured(kind="bytes"), TEXTS, tmp_path / "t")
    with pytest.raises(
        InputError, match=r"vocab_size is 50,000, but this text gives \d+ tokens at most"
    ) as caught:
        train(configured(kind=kind, vocab_size=50000), TEXTS, tmp_path / "t")
    largest = int(caught.value.message.split("gives ")[1].split(" ")[0].replace(",", ""))
    before.verify()
    assert trained(tmp_path / "largest", kind=kind, vocab_size=largest).vocab_size == largest


def test_a_vocabulary_smaller_than_its_alphabet_is_refused_before_any_text_is_read():
    with pytest.raises(
        InputError, match="vocab_size is 261, but the alphabet and the special tokens are 262"
    ):
        configured(vocab_size=261)


def test_no_text_is_an_error(tmp_path):
    with pytest.raises(InputError, match="there is no text"):
        train(TokenizerConfig(), ["", ""], tmp_path / "t")


def test_a_special_token_that_text_could_hold_is_refused(tmp_path):
    special = {"pad": "<|pad|>", "bos": "the", "eos": "<|eos|>"}
    with pytest.raises(InputError, match='bos is written "the", which is an ordinary token'):
        train(configured(special_tokens=special), TEXTS, tmp_path / "t")


def test_special_tokens_need_pad_bos_and_eos_each_its_own():
    with pytest.raises(InputError, match="has no eos"):
        configured(special_tokens={"pad": "<p>", "bos": "<b>"})
    with pytest.raises(InputError, match="there twice"):
        configured(special_tokens={"pad": "<p>", "bos": "<b>", "eos": "<b>"})


def test_a_size_that_is_left_out_grows_with_the_text(tmp_path):
    small = trained(tmp_path / "small", [ENGLISH])
    large = trained(
        tmp_path / "large", [" ".join(f"{a}{b}{c}" for a in "abcdefgh" for b in "aeiou" for c in "nrst") * 9]
    )
    assert 256 < small.vocab_size < large.vocab_size


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_bytes_in_another_process(kind, tmp_path):
    program = (
        "import sys, hashlib; from pathlib import Path; from gristmill import config;"
        "from gristmill.tokenizer import TokenizerConfig, train; text = Path(sys.argv[2]).read_text('utf-8');"
        "train(config.from_dict(TokenizerConfig, {'kind': sys.argv[1]}), [text], Path(sys.argv[3]))"
    )
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS), encoding="utf-8")
    hashes = set()
    for run in ("a", "b"):
        subprocess.run([sys.executable, "-c", program, kind, str(text), str(tmp_path / run)], check=True)
        hashes.add(hashlib.sha256((tmp_path / run / "tokenizer.json").read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_a_corpus_larger_than_the_sample_is_sampled_by_hash_in_order(tmp_path):
    texts = [f"document {i} " * 30 for i in range(200)]
    artifact = train(configured(maximum_sample_bytes=20_000), texts, tmp_path / "t")
    read = artifact.manifest.metrics["read"]
    assert read["documents"] == 200
    assert read["text_bytes"] == sum(map(len, texts))
    assert 19_000 < read["sample_bytes"] <= 20_000


def test_compression_is_measured_by_language(tmp_path):
    validation = [("en", ENGLISH), ("zh", CHINESE), ("en", ENGLISH)]
    metrics = train(configured(kind="bytes"), TEXTS, tmp_path / "t", validation=validation).manifest.metrics
    assert metrics["languages"] == {
        "en": {
            "text_bytes": 2 * len(ENGLISH),
            "characters": 2 * len(ENGLISH),
            "tokens": 2 * len(ENGLISH),
            "bytes_per_token": 1.0,
            "tokens_per_character": 1.0,
        },
        "zh": {
            "text_bytes": 3 * len(CHINESE),
            "characters": len(CHINESE),
            "tokens": 3 * len(CHINESE),
            "bytes_per_token": 1.0,
            "tokens_per_character": 3.0,
        },
    }


@pytest.mark.parametrize("kind", LEARNING)
def test_digits_and_chinese_characters_are_split_as_set(kind, tmp_path):
    texts = ["1234\n5678\n明月\n" * 50]
    apart = trained(tmp_path / "apart", texts, kind=kind)
    assert [text for _, text in apart.pieces("1234明月")] == ["1", "2", "3", "4", "明", "月"]
    together = trained(tmp_path / "together", texts, kind=kind, split_digits=3, split_cjk=False)
    assert [text for _, text in together.pieces("1234")] == ["123", "4"]
    assert [text for _, text in together.pieces("明月")] == ["明月"]


def test_characters_are_one_token_each(tmp_path):
    tokenizer = trained(tmp_path / "t", kind="characters")
    assert [text for _, text in tokenizer.pieces("a 月龍")] == ["a", "·", "月", "<0xE9>", "<0xBE>", "<0x8D>"]


def test_bytes_are_their_own_ids(tmp_path):
    assert trained(tmp_path / "t", kind="bytes").encode("é!") == [0xC3, 0xA9, 0x21]


def test_the_shipped_texts_compress(demo_texts, tmp_path):
    texts = [path.read_text("utf-8")[:100_000] for path in sorted(demo_texts.glob("*.*"))]
    tokenizer = trained(tmp_path / "t", texts)
    assert tokenizer.measure([ENGLISH]).bytes_per_token > 2.5
    assert tokenizer.measure([CHINESE]).bytes_per_token > 2.0
