import struct

import pytest

from gristmill.errors import InputError
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.convert import from_bert, from_gpt2, from_llama2c


def write_llama2c(path, pieces):
    names = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    data = struct.pack("<i", max(map(len, names)))
    for i, name in enumerate(names):
        data += struct.pack("<fi", -float(i), len(name.encode())) + name.encode()
    path.write_bytes(data)


def llama2c_encode(pieces, text):
    """The loop of llama2.c's tokenizer.c: join the pair with the highest score until there is none."""
    ids = {}
    for i, (_, name) in enumerate(pieces):
        ids.setdefault(name, i)
    tokens = []
    for character in " " + text:
        tokens += [ids[character]] if character in ids else [3 + byte for byte in character.encode()]
    while True:
        pairs = [
            (i, ids.get(pieces[tokens[i]][1] + pieces[tokens[i + 1]][1])) for i in range(len(tokens) - 1)
        ]
        joined = [(pieces[j][0], -i, j) for i, j in pairs if j is not None]
        if not joined:
            return tokens
        _, place, best = max(joined)
        tokens[-place : -place + 2] = [best]


def test_a_file_of_llama2c_gives_its_ids_in_its_order(tmp_path):
    write_llama2c(tmp_path / "tok.bin", [" a", "ab", " ", "a", "b"])
    tokenizer = from_llama2c(tmp_path / "tok.bin")
    assert tokenizer.encode("ab b!") == [259, 263, 261, 263, 3 + ord("!")]
    assert tokenizer.decode(tokenizer.encode("  ab é\n")) == "  ab é\n"
    assert dict(tokenizer.special) == {"unk": 0, "bos": 1, "eos": 2}
    assert tokenizer.token_bytes(3 + 0xE4) == b"\xe4"
    tokenizer.save(tmp_path)
    assert Tokenizer.from_directory(tmp_path).encode("ab b!") == tokenizer.encode("ab b!")


def test_a_file_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "tok.bin").write_bytes(b"no tokenizer at all, by any means")
    with pytest.raises(InputError, match=r"not a tokenizer of llama2\.c"):
        from_llama2c(tmp_path / "tok.bin")
    with pytest.raises(InputError, match="can't be read"):
        from_llama2c(tmp_path / "absent.bin")
    with pytest.raises(InputError, match="holds no tokenizer of GPT-2"):
        from_gpt2(tmp_path)


@pytest.mark.shared_data
def test_the_tokenizer_of_stories260k_gives_the_ids_of_llama2c(shared_data):
    from gristmill.tokenizer.convert import _read_llama2c

    folder = shared_data / "weights_stories260k"
    tokenizer, pieces = from_llama2c(folder / "tok512.bin"), _read_llama2c(folder / "tok512.bin")
    story = (folder / "expected_greedy.txt").read_text("utf-8")
    for text in (story, "  x\n\ny", "aaaaaaa mmmm eeee sss", "Hello 世界 ▁ <0x0A> <s>"):
        assert tokenizer.encode(text) == llama2c_encode(pieces, text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.shared_data
def test_the_files_of_gpt2_give_the_ids_of_gpt2(shared_data):
    tokenizer = from_gpt2(shared_data / "vocab_gpt2_bpe")
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.vocab_size == 50257
    assert tokenizer.special["eos"] == 50256
    assert tokenizer.decode(tokenizer.encode(story := "Once, 1234 – 中文\r\n <|endoftext|>")) == story


def test_a_list_of_words_gives_their_ids_in_its_order(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "mill", "##er", "磨", "The"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = from_bert(tmp_path)
    assert tokenizer.encode("The  miller磨 ground") == [5, 6, 7, 8, 1]
    assert dict(tokenizer.special) == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    (tmp_path / "tokenizer_config.json").write_text(
        '{"do_lower_case": false, "mask_token": {"content": "mill"}}'
    )
    tokenizer = from_bert(tmp_path)
    assert tokenizer.encode("The") == [9]
    assert tokenizer.special["mask"] == 6


def test_a_list_of_other_words_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no tokenizer of BERT"):
        from_bert(tmp_path)
    (tmp_path / "vocab.txt").write_text("<s>\n</s>\nthe\n")
    with pytest.raises(InputError, match=r"no \[CLS\], \[MASK\], \[PAD\], \[SEP\], \[UNK\]"):
        from_bert(tmp_path)
