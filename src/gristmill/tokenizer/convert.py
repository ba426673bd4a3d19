"""Tokenizers made elsewhere: llama2.c's binary file, GPT-2's pair of files, and BERT's list of words.

A directory with a `tokenizer.json` needs no conversion: `Tokenizer.from_directory` reads it.
"""

import json
import struct
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Inner

from gristmill.errors import InputError
from gristmill.tokenizer.tokenizer import Tokenizer

__all__ = ["from_bert", "from_gpt2", "from_llama2c"]


def from_llama2c(path: Path) -> Tokenizer:
    """Returns the tokenizer in a file of llama2.c (`tok512.bin`): SentencePiece's BPE with byte fallback.

    The file is an int32, then per token a float32 score, an int32 length and the bytes. The ids are its order:
    unk, bos, eos, 256 bytes, pieces. Text is encoded with a space before it, and the pair whose union scores
    highest is joined first, so a merge's rank is the rank of its result.
    """
    pieces = _read_llama2c(path)
    names = [piece for _, piece in pieces]
    names[:3] = ["<unk>", "<s>", "</s>"]  # bos and eos are stored with line ends around them, for print
    vocabulary: dict[str, int] = {}
    for i, name in enumerate(names):
        vocabulary.setdefault(name, i)
    ranked = sorted(range(259, len(names)), key=lambda i: (-pieces[i][0], i))
    merges = [
        (names[i][:cut], names[i][cut:])
        for i in ranked
        for cut in range(1, len(names[i]))
        if names[i][:cut] in vocabulary and names[i][cut:] in vocabulary
    ]
    model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    inner = Inner(model)
    inner.normalizer = normalizers.Prepend(" ")
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return _finish(inner, {"unk": "<unk>", "bos": "<s>", "eos": "</s>"})


def from_gpt2(folder: Path) -> Tokenizer:
    """Returns the tokenizer in `encoder.json` and `vocab.bpe`, as GPT-2 was published."""
    try:
        vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no tokenizer of GPT-2: {error}", "it has encoder.json and vocab.bpe"
        ) from None
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    inner = Inner(models.BPE(vocab=vocabulary, merges=[(left, right) for left, right in pairs]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return _finish(inner, {"bos": "<|endoftext|>", "eos": "<|endoftext|>"})


def from_bert(folder: Path) -> Tokenizer:
    """Returns the tokenizer in `vocab.txt`, as BERT was published: WordPiece, a token to a line, in the order of ids.

    Whether text is lowercased is in `tokenizer_config.json`; without one it is, as BERT's tokenizer does it (Devlin et
    al. 2019, arXiv:1810.04805, and the published code).
    """
    try:
        words = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        path = folder / "tokenizer_config.json"
        stated = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no tokenizer of BERT: {error}", "it has vocab.txt") from None
    special = {}
    for name in ("unk", "pad", "cls", "sep", "mask"):
        text = stated.get(f"{name}_token", f"[{name.upper()}]")
        special[name] = text["content"] if isinstance(text, dict) else text
    if missing := sorted(set(special.values()) - set(words)):
        raise InputError(
            f"{folder / 'vocab.txt'} is not a vocabulary of BERT: it has no {', '.join(missing)}",
            "a directory with a tokenizer.json is read as it is",
        )
    vocabulary = {word: i for i, word in enumerate(words)}
    inner = Inner(models.WordPiece(vocab=vocabulary, unk_token=special["unk"]))
    inner.normalizer = normalizers.BertNormalizer(
        lowercase=stated.get("do_lower_case", True),
        strip_accents=stated.get("strip_accents"),
        handle_chinese_chars=stated.get("tokenize_chinese_chars", True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##")
    inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special.values()])
    return Tokenizer(inner, {name: vocabulary[text] for name, text in special.items()})


def _finish(inner: Any, special: dict[str, str]) -> Tokenizer:
    inner.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in dict.fromkeys(special.values())]
    )
    ids = {name: inner.token_to_id(text) for name, text in special.items()}
    if ids["bos"] != ids["eos"]:  # GPT-2 begins with nothing
        inner.post_processor = processors.TemplateProcessing(
            single=[special["bos"], "$A"],
            pair=[special["bos"], "$A", "$B:1"],
            special_tokens=[(special["bos"], ids["bos"])],
        )
    return Tokenizer(inner, ids)


def _read_llama2c(path: Path) -> list[tuple[float, str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the tokenizer {path} can't be read: {error.strerror}") from None
    pieces = []
    place = 4
    try:
        while place < len(data):
            score, length = struct.unpack_from("<fi", data, place)
            place += 8
            text = data[place : place + length]
            if length < 0 or len(text) < length:
                raise ValueError(f"a token at byte {place:,} has {length:,} bytes")
            pieces.append((score, text.decode()))
            place += length
    except (struct.error, ValueError) as error:
        raise InputError(f"{path} is not a tokenizer of llama2.c: {error}") from None
    if len(pieces) < 259 or pieces[3][1] != "<0x00>":
        raise InputError(f"{path} is not a tokenizer of llama2.c: it has no byte tokens")
    return pieces
