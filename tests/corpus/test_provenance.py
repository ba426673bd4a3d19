"""Every token of the shards leads back to the byte of the file that it came from."""

import json

import numpy as np
import pytest

from gristmill.corpus import Corpus, CorpusConfig, build
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.corpus.provenance import as_json, document_of_token, trace
from gristmill.corpus.shards import Item, Shards, write_shards
from gristmill.errors import InputError

FOOTER = "All rights reserved by the publishers of this page\n"


@pytest.fixture
def made(tmp_path):
    """Files of several kinds, as a corpus and as shards of bytes."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_bytes("\r\n\r\nEin Anfang, 床前明月光。\r\nSecond line é.\r\n".encode("gb18030"))
    (folder / "b.md").write_text("Plain text, as it is.\n" + FOOTER + "The end of b.\n")
    (folder / "c.md").write_text("Other text, as it was.\n" + FOOTER + "The end of c.\n")
    rows = [
        {"text": "A row with a licence of its own", "license": "CC0-1.0"},
        {"text": "A row with a licence of its own"},
    ]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = CorpusConfig(
        sources={"all": (str(folder),)}, valid_fraction=0.0, dedup=DedupSettings(lines=1, near=False)
    )
    corpus = Corpus(build(config, tmp_path / "corpus"))

    def encode(texts):
        data = [text.encode() for text in texts]
        return np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)])

    shards = write_shards(
        tmp_path / "shards", documents={"train": (Item(*item) for item in corpus.items("train"))}, encode=encode,
        bos=256, eos=257, vocab_size=258, groups=corpus.groups,
    )  # fmt: skip
    return folder, corpus, Shards(shards).split("train")


def test_each_token_of_a_plain_text_leads_to_its_byte(made):
    folder, corpus, store = made
    seen = set()
    for position in range(len(store.tokens)):
        token = int(store.tokens[position])
        document, place = document_of_token(store, position)
        if token > 255 or store.document_ids[document] == "":
            continue
        begin = int(store.offsets[document]) + 1
        before = bytes(store.tokens[begin:position].astype(np.uint8))
        found = trace(corpus, int(store.keys[document]), before)
        assert found.text_byte == place - 1
        if found.source.endswith((".md", ".txt")):
            assert found.byte is not None
            raw = (folder / found.source.rsplit("/", 1)[-1]).read_bytes()
            if found.source.endswith(".md"):
                assert raw[found.byte] == token
            elif token < 128 and token != 10:
                assert raw[found.byte] == token  # of other characters GB18030 has other bytes
            seen.add(found.source.rsplit("/", 1)[-1])
        else:
            assert found.byte is None
    assert seen == {"a.txt", "b.md", "c.md"}


def test_a_document_knows_its_record_its_licence_its_edits_and_what_it_replaced(made):
    _, corpus, store = made
    by_name = {}
    for key in store.keys.tolist():
        found = trace(corpus, key)
        by_name[found.source.rsplit("/", 1)[-1]] = found
    row = by_name["d.jsonl"]
    assert (row.licence, row.group, row.split) == ("CC0-1.0", "all/en", "train")
    assert [(d["reason"], d["cover"]) for d in row.duplicates] == [("duplicate", 1.0)]
    assert [edit.reason for edit in by_name["c.md"].edits] == ["repeated line"]
    assert by_name["b.md"].edits == []
    assert json.dumps(as_json(by_name["c.md"]))


def test_a_source_that_was_moved_leaves_the_rest_of_the_trace(made):
    folder, corpus, store = made
    for file in folder.iterdir():
        file.rename(file.with_name("moved-" + file.name))
    found = trace(corpus, int(store.keys[0]), b"Ein")
    assert (found.byte, found.text_byte) == (None, 3)
    assert found.source.endswith("a.txt")


def test_what_is_not_there_is_named(made):
    _, corpus, store = made
    with pytest.raises(InputError, match="there is no token"):
        document_of_token(store, len(store.tokens))
    with pytest.raises(InputError, match="has no document 12345"):
        trace(corpus, 12345)
