"""The tokenizer that everything else uses: a `tokenizers.Tokenizer`, its special ids by name, and exact bytes."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import tokenizers

from gristmill.artifact import MANIFEST, open_artifact, write_text
from gristmill.errors import InputError
from gristmill.tokenizer.splitting import BYTE_OF
from gristmill.vocabulary import Vocabulary

__all__ = ["Compression", "Tokenizer", "sentinel"]

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_BATCH_TEXTS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compression:
    """How much text the tokens of a text hold."""

    text_bytes: int
    characters: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token: more is shorter sequences."""
        return self.text_bytes / self.tokens if self.tokens else 0.0

    @property
    def tokens_per_character(self) -> float:
        """Tokens per character."""
        return self.tokens / self.characters if self.characters else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts and the ratios, rounded for print."""
        return {
            **dataclasses.asdict(self),
            "bytes_per_token": round(self.bytes_per_token, 4),
            "tokens_per_character": round(self.tokens_per_character, 4),
        }


@final
class Tokenizer:
    """Text to token ids and back. Special tokens are never read out of text: `<|bos|>` in a text is text."""

    def __init__(self, inner: Any, special: Mapping[str, int], chat_template: str | None = None) -> None:
        """Takes a `tokenizers.Tokenizer`, and the ids of its special tokens by name (bos, eos, ...).

        With a `chat_template`, a text in Jinja, stock tokenizers write conversations; it is kept and saved.
        """
        inner.encode_special_tokens = True
        inner.no_padding()
        inner.no_truncation()
        self._inner = inner
        self._layout = json.loads(inner.to_str())
        self.special: Mapping[str, int] = MappingProxyType(dict(special))
        self.chat_template = chat_template

    @classmethod
    def from_directory(cls, path: Path) -> "Tokenizer":
        """Reads `tokenizer.json`, ours or any other of Hugging Face's, and the names of its special tokens.

        Raises:
            InputError: there is none, or it can't be read; CorruptArtifact when it is ours and was changed.
        """
        path = Path(path)
        if (path / MANIFEST).is_file():
            open_artifact(path)
        try:
            inner = tokenizers.Tokenizer.from_str((path / TOKENIZER_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{path} holds no {TOKENIZER_FILE}",
                "make one with `gristmill tokenizer train SOURCES --out DIR`",
            ) from None
        except Exception as error:  # the library raises bare Exceptions for a bad file
            raise InputError(f"{path / TOKENIZER_FILE} is not a tokenizer: {error}") from None
        return cls(inner, _special_ids(path, inner), _chat_template(path))

    def with_chat_template(self, chat_template: str) -> "Tokenizer":
        """Returns the tokenizer with another chat template."""
        return Tokenizer(self._inner, self.special, chat_template)

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json` and the `tokenizer_config.json` that `transformers.AutoTokenizer` reads."""
        write_text(path / TOKENIZER_FILE, self._inner.to_str(pretty=True))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **{f"{name}_token": self._inner.id_to_token(i) for name, i in self.special.items()},
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        write_text(path / CONFIG_FILE, json.dumps(config, ensure_ascii=False, indent=2) + "\n")

    def to_json(self) -> str:
        """Returns what stands in `tokenizer.json`."""
        text: str = self._inner.to_str()
        return text

    @property
    def vocab_size(self) -> int:
        """One more than the highest id, special tokens among them."""
        return max(self._inner.get_vocab().values(), default=-1) + 1

    @functools.cached_property
    def sentinels(self) -> tuple[int, ...]:
        """The ids of <extra_id_0>, <extra_id_1>, ..., as far as they go without a gap."""
        found: list[int] = []
        while (i := self._inner.token_to_id(sentinel(len(found)))) is not None:
            found.append(i)
        return tuple(found)

    def vocabulary(self) -> Vocabulary:
        """Returns what the tokens stand for, which is all that objectives need."""
        return Vocabulary(pieces=tuple(self._bytes), special=self.special, sentinels=self.sentinels)

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of `tokenizer.json` and of the special tokens' names."""
        names = json.dumps(sorted(self.special.items()))
        return hashlib.sha256(f"{self._inner.to_str()}\n{names}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without special tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Returns the ids of each text, encoded on every core.

        Raises:
            InputError: a text has half a surrogate pair, which no encoding of Unicode can write.
        """
        with _naming_unwritable(texts):
            encodings = self._inner.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_places(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Returns the ids of each text, and which characters each stands for: the first, and that behind the last.

        Raises:
            InputError: a text has half a surrogate pair, which no encoding of Unicode can write.
        """
        with _naming_unwritable(texts):
            encodings = self._inner.encode_batch(texts, add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    @functools.cached_property
    def spelled(self) -> Mapping[str, int]:
        """All special tokens, also those without a name, as they are spelled, and their ids."""
        return {entry["content"]: entry["id"] for entry in self._layout["added_tokens"] if entry["special"]}

    def encode_spelled(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Returns ids and places as `encode_with_places`, but special tokens that are spelled out are read as such.

        So stock tokenizers read every text. It is for texts that were put together, not for what people type.
        """
        with _naming_unwritable(texts):
            encodings = self._reading_special.encode_batch(texts, add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    @functools.cached_property
    def _reading_special(self) -> Any:
        inner = tokenizers.Tokenizer.from_str(self._inner.to_str())
        inner.encode_special_tokens = False
        return inner

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special tokens are left out, broken UTF-8 becomes U+FFFD."""
        text: str = self._inner.decode(list(ids), skip_special_tokens=True)
        return text

    def token_bytes(self, id: int) -> bytes:
        """Returns the bytes that a token stands for; none for a special token.

        Where a word's first token and a later one differ only in how they are joined (a `tokenizer.json` from
        elsewhere that is not byte-level), these are the bytes of the token inside a text.
        """
        if not 0 <= id < len(self._bytes):
            raise InputError(f"there is no token {id}: the vocabulary has {self.vocab_size:,}")
        return self._bytes[id]

    def name(self, id: int) -> str:
        """Returns the token as the vocabulary spells it."""
        return self._inner.id_to_token(id) or ""

    def pieces(self, text: str) -> list[tuple[int, str]]:
        """Returns each token's id and a form to look at: `·` is a space, `<0xE4>` a byte of a larger character."""
        return [(i, _visible(self.token_bytes(i))) for i in self.encode(text)]

    def measure(self, texts: Iterable[str]) -> Compression:
        """Returns how many tokens the texts take."""
        text_bytes = characters = tokens = 0
        batch: list[str] = []

        def count() -> int:
            ids = self.encode_batch(batch)
            batch.clear()
            return sum(map(len, ids))

        for text in texts:
            text_bytes += len(text.encode(errors="surrogatepass"))
            characters += len(text)
            batch.append(text)
            if len(batch) == _BATCH_TEXTS:
                tokens += count()
        return Compression(text_bytes=text_bytes, characters=characters, tokens=tokens + count())

    def longest_tokens(self, count: int = 12) -> list[tuple[int, str]]:
        """Returns the tokens that stand for the most bytes, longest first, in the form of `pieces`."""
        ids = sorted(range(len(self._bytes)), key=lambda i: (-len(self._bytes[i]), i))
        return [(i, _visible(self._bytes[i])) for i in ids[:count]]

    def describe(self) -> dict[str, Any]:
        """Returns what can be said of the tokenizer without a text, as JSON values."""
        return {
            "model": self._layout["model"]["type"],
            "vocab_size": self.vocab_size,
            "special_tokens": {name: {"id": i, "text": self.name(i)} for name, i in self.special.items()},
            "longest_tokens": [{"id": i, "text": text} for i, text in self.longest_tokens()],
            "sha256": self.sha256,
        }

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        special = {entry["id"] for entry in self._layout["added_tokens"] if entry["special"]}
        added = {entry["id"] for entry in self._layout["added_tokens"]}
        to_bytes = _byte_reader(self._layout)
        result = [b""] * self.vocab_size
        for token, i in self._inner.get_vocab().items():
            if i not in special:
                result[i] = token.encode() if i in added else to_bytes(token)
        return result


def sentinel(number: int) -> str:
    """Returns how the token of the so-manieth span left out is written, as in T5."""
    return f"<extra_id_{number}>"


def _byte_reader(layout: dict[str, Any]) -> Any:
    """Returns the function from a token's spelling to its bytes, as the file's decoder joins tokens."""
    model, decoders = layout["model"], _types(layout.get("decoder"))
    continuing = model.get("continuing_subword_prefix") or ""

    def byte_level(token: str) -> bytes:
        token = token.removeprefix(continuing)
        return bytes(BYTE_OF[c] for c in token) if all(c in BYTE_OF for c in token) else token.encode()

    def plain(token: str) -> bytes:
        if (byte := _BYTE_TOKEN.fullmatch(token)) and model.get("byte_fallback"):
            return bytes([int(byte[1], 16)])
        token = token.removeprefix(continuing)
        return (token.replace("▁", " ") if decoders & {"Metaspace", "Replace"} else token).encode()

    return byte_level if "ByteLevel" in decoders | _types(layout.get("pre_tokenizer")) else plain


def _types(part: Any) -> set[str]:
    """The types of a decoder or pre-tokenizer and of those in its sequence."""
    if not isinstance(part, dict):
        return set()
    inner = part.get("decoders") or part.get("pretokenizers") or []
    return {part["type"]}.union(*map(_types, inner))


def _special_ids(path: Path, inner: Any) -> dict[str, int]:
    """The special tokens by name, as `tokenizer_config.json` or the older `special_tokens_map.json` has them."""
    special: dict[str, int] = {}
    for name in ("special_tokens_map.json", CONFIG_FILE):
        try:
            table = json.loads((path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise InputError(f"{path / name} is not valid JSON: {error}") from None
        for key, value in table.items():
            text = value.get("content") if isinstance(value, dict) else value
            if (
                key.endswith("_token")
                and isinstance(text, str)
                and (i := inner.token_to_id(text)) is not None
            ):
                special[key.removesuffix("_token")] = i
    return special


def _chat_template(path: Path) -> str | None:
    """The Jinja text with which stock tokenizers write conversations: in a file of its own, or in the config."""
    with contextlib.suppress(FileNotFoundError):
        return (path / TEMPLATE_FILE).read_text(encoding="utf-8")
    try:
        found = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8")).get("chat_template")
    except FileNotFoundError:
        return None
    return found if isinstance(found, str) else None


@contextlib.contextmanager
def _naming_unwritable(texts: Iterable[str]) -> Iterator[None]:
    try:
        yield
    except (TypeError, UnicodeEncodeError):
        for text in texts:
            _check_writable(text)
        raise


def _check_writable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text has half a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start:,}",
            'text that is broken in this way can be repaired with text.encode("utf-16", "surrogatepass")'
            '.decode("utf-16", "replace")',
        ) from None


def _visible(data: bytes) -> str:
    """The bytes as text where they are whole printable characters, spaces and line ends marked, else as `<0xE4>`."""
    shown = []
    for character in data.decode("utf-8", "surrogateescape"):
        if "\udc80" <= character <= "\udcff":
            shown.append(f"<0x{ord(character) - 0xDC00:02X}>")
        elif character in _MARKS:
            shown.append(_MARKS[character])
        elif character.isprintable():
            shown.append(character)
        else:
            shown.extend(f"<0x{byte:02X}>" for byte in character.encode())
    return "".join(shown)


_MARKS = {" ": "·", "\n": "↵", "\t": "→"}
