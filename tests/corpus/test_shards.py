import numpy as np
import pytest

from gristmill.artifact import open_artifact
from gristmill.corpus.shards import Shards, write_shards
from gristmill.errors import CorruptArtifact, InputError

BOS, EOS = 256, 257
DOCUMENTS = {"train": [("one", "the cat"), ("two", "明月"), ("three", "")], "valid": [("four", "a hat")]}


def encode_batch(texts):
    return [list(text.encode()) for text in texts]


def written(out, documents=DOCUMENTS, **settings):
    arguments = {"encode_batch": encode_batch, "bos": BOS, "eos": EOS, "vocab_size": 258, **settings}
    return write_shards(out, documents=documents, **arguments)


def test_every_document_is_stored_between_bos_and_eos(tmp_path):
    store = Shards(written(tmp_path / "s")).split("train")
    stored = [store.tokens[a:b].tolist() for a, b in zip(store.offsets, store.offsets[1:], strict=False)]
    assert stored == [[BOS, *text.encode(), EOS] for _, text in DOCUMENTS["train"]]
    assert store.document_ids == ("one", "two", "three")
    assert store.text_bytes.tolist() == [7, 6, 0]
    assert store.lengths.tolist() == [9, 8, 2]
    assert isinstance(store.tokens, np.memmap)


def test_the_manifest_counts_tokens_documents_and_bytes(tmp_path):
    assert written(tmp_path / "s").manifest.metrics == {
        "dtype": "uint16",
        "vocab_size": 258,
        "splits": {
            "train": {"tokens": 19, "documents": 3, "text_bytes": 13, "bytes_per_token": 1.0},
            "valid": {"tokens": 7, "documents": 1, "text_bytes": 5, "bytes_per_token": 1.0},
        },
    }


def test_ids_take_two_bytes_where_they_fit_and_else_four(tmp_path):
    large = written(
        tmp_path / "large", vocab_size=65537, encode_batch=lambda texts: [[65535, 65536] for _ in texts]
    )
    store = Shards(large).split("train")
    assert store.tokens.dtype == np.dtype("<u4")
    assert store.tokens[:4].tolist() == [BOS, 65535, 65536, EOS]
    assert Shards(written(tmp_path / "small", vocab_size=65536)).split("train").tokens.dtype == np.dtype(
        "<u2"
    )


def test_the_same_documents_give_the_same_bytes(tmp_path):
    assert written(tmp_path / "a").manifest.content_hash == written(tmp_path / "b").manifest.content_hash


def test_documents_are_streamed_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("gristmill.corpus.shards.BATCH_CHARACTERS", 10)
    sizes = []

    def watched(texts):
        sizes.append(len(texts))
        return encode_batch(texts)

    seen = []
    many = {"train": ((str(i), "four") for i in range(7))}
    artifact = written(tmp_path / "s", many, encode_batch=watched, progress=lambda *args: seen.append(args))
    assert sizes == [3, 3, 1]
    assert seen == [("encode train", 3, None), ("encode train", 6, None), ("encode train", 7, None)]
    assert Shards(artifact).split("train").document_ids == tuple("0123456")


def test_unchanged_parents_are_not_encoded_again(tmp_path):
    parent = written(tmp_path / "parent")
    first = written(tmp_path / "s", parents={"corpus": parent})
    again = written(tmp_path / "s", {"train": iter([])}, parents={"corpus": parent})
    assert again.manifest == first.manifest


def test_an_id_outside_the_vocabulary_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="document one has token"):
        written(tmp_path / "s", vocab_size=257)
    assert not (tmp_path / "s").exists()


def test_a_split_without_documents_is_empty(tmp_path):
    store = Shards(written(tmp_path / "s", {"train": [("a", "b")], "valid": []})).split("valid")
    assert (len(store.tokens), store.offsets.tolist(), store.document_ids) == (0, [0], ())


def test_an_unknown_split_is_an_error_that_names_the_known(tmp_path):
    with pytest.raises(InputError, match='no split "test"'):
        Shards(written(tmp_path / "s")).split("test")


def test_a_truncated_shard_is_found_before_use(tmp_path):
    artifact = written(tmp_path / "s")
    tokens = tmp_path / "s" / "train.tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(CorruptArtifact, match=r"train\.tokens\.bin"):
        open_artifact(tmp_path / "s", "shards")
    with pytest.raises(CorruptArtifact, match=r"train\.tokens\.bin has 36 bytes, expected 38"):
        Shards(artifact).split("train")
