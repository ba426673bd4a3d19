"""Tokenizers made elsewhere: llama2.c's binary file, and GPT-2's pair of files.

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

__all__ = ["from_gpt2", "from_llama2c"]


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
