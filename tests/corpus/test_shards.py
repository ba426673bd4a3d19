import numpy as np
import pytest

from gristmill.artifact import open_artifact
from gristmill.corpus.shards import Item, Shards, write_shards
from gristmill.errors import CorruptArtifact, InputError

BOS, EOS = 256, 257
DOCUMENTS = {
    "train": [Item("one", "the cat", 7, 1), Item("two", "明月", 8, 0), Item("three", "", 5, 1)],
    "valid": [Item("four", "a hat")],
}


def encode(texts):
    data = [text.encode() for text in texts]
    return np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)])


def written(out, documents=DOCUMENTS, **settings):
    arguments = {
        "encode": encode,
        "bos": BOS,
        "eos": EOS,
        "vocab_size": 258,
        "groups": ["a", "b"],
        **settings,
    }
    return write_shards(out, documents=documents, **arguments)


def test_every_document_is_stored_between_bos_and_eos(tmp_path):
    store = Shards(written(tmp_path / "s")).split("train")
    stored = [store.tokens[a:b].tolist() for a, b in zip(store.offsets, store.offsets[1:], strict=False)]
    assert stored == [[BOS, *text.encode(), EOS] for _, text, *_ in DOCUMENTS["train"]]
    assert store.document_ids == ("one", "two", "three")
    assert store.text_bytes.tolist() == [7, 6, 0]
    assert store.lengths.tolist() == [9, 8, 2]
    assert store.keys.tolist() == [7, 8, 5]
    assert [store.group_names[group] for group in store.groups] == ["b", "a", "b"]
    assert isinstance(store.tokens, np.memmap)


def test_the_manifest_counts_tokens_documents_and_bytes(tmp_path):
    assert written(tmp_path / "s").manifest.metrics == {
        "dtype": "uint16",
        "vocab_size": 258,
        "groups": ["a", "b"],
        "splits": {
            "train": {
                "tokens": 19,
                "documents": 3,
                "text_bytes": 13,
                "bytes_per_token": 1.0,
                "group_tokens": [8, 11],
            },
            "valid": {
                "tokens": 7,
                "documents": 1,
                "text_bytes": 5,
                "bytes_per_token": 1.0,
                "group_tokens": [7, 0],
            },
        },
    }


def test_ids_take_two_bytes_where_they_fit_and_else_four(tmp_path):
    large = written(
        tmp_path / "large",
        vocab_size=65537,
        encode=lambda texts: (np.array([65535, 65536] * len(texts)), np.arange(len(texts) + 1) * 2),
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
        return encode(texts)

    seen = []
    many = {"train": (Item(str(i), "four") for i in range(7))}
    artifact = written(tmp_path / "s", many, encode=watched, progress=lambda *args: seen.append(args))
    assert sizes == [3, 3, 1]
    assert seen == [("encode train", 3, None), ("encode train", 6, None), ("encode train", 7, None)]
    assert Shards(artifact).split("train").document_ids == tuple("0123456")


def test_unchanged_parents_are_not_encoded_again(tmp_path):
    parent = written(tmp_path / "parent")
    first = written(tmp_path / "s", parents={"corpus": parent})
    again = written(tmp_path / "s", {"train": iter([])}, parents={"corpus": parent})
    assert again.manifest == first.manifest


def test_an_id_outside_the_vocabulary_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="document two has token 230, but vocab_size is 200"):
        written(tmp_path / "s", vocab_size=200, bos=0, eos=1)
    with pytest.raises(ValueError, match="bos 256 or eos 257 is beyond"):
        written(tmp_path / "s", vocab_size=257)
    assert not (tmp_path / "s").exists()


def test_a_split_without_documents_is_empty(tmp_path):
    store = Shards(written(tmp_path / "s", {"train": [Item("a", "b")], "valid": []})).split("valid")
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
