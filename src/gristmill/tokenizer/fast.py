"""Many texts to ids quickly: by fastokens where it is installed and gives the same ids, else by `tokenizers`.

fastokens reads the same `tokenizer.json` and is some ten times as fast, and again four times where our cuts are written
as one pattern. Whether it gives the same is not taken on trust: it is asked about texts that tokenizers differ on, and
about the beginning of what is to be encoded.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gristmill.tokenizer.splitting import one_cut
from gristmill.tokenizer.tokenizer import Tokenizer

__all__ = ["encoder"]

Encode = Callable[[list[str]], tuple[Any, Any]]
TRIED_CHARACTERS = 50_000
_TRIALS = (
    "",
    " ",
    "\r\n\r\n\t  \n  x\n",
    "it's they'LL don’t 'tis ''",
    "1234567 3.14159 1,000 ١٢٣ Ⅻ ½",
    "e\u0301 é e\u0301\u0323 \u200bx\u200d \ufeff \u00a0y",
    "\U0001f469\u200d\U0001f4bb\U0001f1ee\U0001f1f1 ☃",
    "明月几时有?把酒问青天。 ｆｕｌｌ　ｗｉｄｔｈ「々〇」",
    "他说。\n“好”！\n\n  二〇〇8年 1〇2  3、 。ー\u3000\u3000ok",
    "ひらがなカタカナ한국어 हिन्दी ไทย עברית العربية Ελληνικά Привет",
    "def f(x):\n    return x**2  # §\n\n\n\n",
    "https://example.org/a?b=c&d=%20 <p>&amp;</p> $x_1^{2}$ C++ /* */",
    "a" * 300 + " " * 300 + "!" * 300 + "\n" * 300,
    "\x00\x01\x7f\x85\ufffd",
)


def encoder(tokenizer: Tokenizer, say: Callable[[str], None] = lambda message: None) -> Encode:
    """Returns a function from texts to the ids of all of them, one after the other, and where each begins.

    The ids are those of `Tokenizer.encode_batch`. `say` is told where fastokens is there and can't be used.
    """
    fast = _fastokens(tokenizer, say)
    is_tried = False

    def encode(texts: list[str]) -> tuple[Any, Any]:
        nonlocal fast, is_tried
        if fast is not None and not is_tried:
            sample = [text[:TRIED_CHARACTERS] for text in texts[:50]]
            total = itertools.accumulate(map(len, sample))
            few = [text for text, upto in zip(sample, total, strict=True) if upto <= 2 * TRIED_CHARACTERS]
            fast, is_tried = (fast if _same(tokenizer, fast, few, say) else None), True
        return fast(texts) if fast is not None else _flat(tokenizer.encode_batch(texts))

    return encode


def _fastokens(tokenizer: Tokenizer, say: Callable[[str], None]) -> Encode | None:
    try:
        import fastokens
    except ImportError:
        return None
    try:
        inner = fastokens.Tokenizer.from_json_str(_with_one_cut(tokenizer.to_json()))
    except Exception as error:  # it has one kind of error for all that it does not support
        say(
            f"fastokens does not read this tokenizer ({_one_line(error)}): tokenizers encodes it, more slowly"
        )
        return None

    def encode(texts: list[str]) -> tuple[Any, Any]:
        try:
            ids, offsets = inner.encode_batch_flat(texts, add_special_tokens=False, split_special_tokens=True)
        except (TypeError, UnicodeEncodeError):
            return _flat(tokenizer.encode_batch(texts))  # which says what is wrong with the texts
        return np.frombuffer(ids, dtype="<u4"), np.frombuffer(offsets, dtype="<u8").astype(np.int64)

    special = [tokenizer.name(i) for i in tokenizer.special.values()]
    return encode if _same(tokenizer, encode, [*_TRIALS, *special, "".join(special)], say) else None


def _with_one_cut(text: str) -> str:
    """Returns a `tokenizer.json` whose cuts, where they are ours, are one; any other as it is."""
    layout = json.loads(text)
    steps = (layout["pre_tokenizer"] or {}).get("pretokenizers", [])
    if (
        len(steps) < 2
        or any(step["type"] != "Split" for step in steps[:-1])
        or steps[-1]["type"] != "ByteLevel"
    ):
        return text
    cuts = [{**step, "pattern": ""} for step in steps[:-1]]
    pattern = one_cut([step["pattern"].get("Regex", "") for step in steps[:-1]])
    if pattern is None or any(cut != cuts[0] for cut in cuts) or cuts[0]["behavior"] != "Isolated":
        return text
    steps[:-1] = [{**steps[0], "pattern": {"Regex": pattern}}]
    return json.dumps(layout, ensure_ascii=False)


def _same(tokenizer: Tokenizer, encode: Encode, texts: Sequence[str], say: Callable[[str], None]) -> bool:
    ids, offsets = encode(list(texts))
    expected, places = _flat(tokenizer.encode_batch(list(texts)))
    same = np.array_equal(ids, expected) and np.array_equal(offsets, places)
    if not same:
        say("fastokens gives other ids for this tokenizer: tokenizers encodes it, more slowly")
    return same


def _flat(encoded: list[list[int]]) -> tuple[Any, Any]:
    ids = np.fromiter(itertools.chain.from_iterable(encoded), dtype=np.int64, count=sum(map(len, encoded)))
    return ids, np.cumsum([0, *map(len, encoded)])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
