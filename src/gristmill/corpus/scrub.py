"""Personal data is found in every text and replaced, when texts are read out, in those that are kept."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gristmill.corpus.deduplicate import Units
from gristmill.corpus.edits import Edit, Edits
from gristmill.corpus.engine import EngineSettings
from gristmill.corpus.looks import look_at
from gristmill.corpus.private import KINDS, Method, Names, spans_of_buffer
from gristmill.corpus.private_fakes import fake
from gristmill.errors import InputError, did_you_mean

__all__ = ["ScrubSettings", "scrub"]

FORMAT = 1
"""Raised whenever the same text would give other spans."""
LEAST_KEY_BYTES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScrubSettings:
    """The `[corpus.scrub]` table."""

    kinds: tuple[str, ...] = ()
    """What is replaced: secret, url_user, email, iban, bank_card, id_number, ip, ip_local, plate, passport, account, phone,
    address, name; by default nothing."""
    method: Method = "mask"
    """By what: "mask" writes [EMAIL]; "surrogate" a made-up value of the same shape, the same one for the same value."""
    key_file: str | None = None
    """A file with at least 16 secret bytes that surrogates are made with: who has them can tell which value was which."""
    names: str | None = None
    """A file with names of persons, one in a line, for the kind "name"."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        for kind in self.kinds:
            if kind not in KINDS:
                raise InputError(f'scrub.kinds: there is no kind "{kind}"', did_you_mean(kind, KINDS))
        if ("name" in self.kinds) != (self.names is not None):
            raise InputError(
                'scrub: the kind "name" and the file `names` go together',
                'scrub.names = "names.txt", with one name in a line, and "name" among scrub.kinds',
            )
        if self.method == "surrogate" and self.key_file is None:
            raise InputError(
                "scrub: surrogates need a key, or anybody could undo them",
                "head -c 32 /dev/urandom > surrogates.key, keep it secret, and set scrub.key_file",
            )

    def check(self) -> None:
        """Reads what it names, so that what is missing is missed before work starts."""
        self.read_names()
        self.read_key()

    def read_names(self) -> tuple[str, ...]:
        """Returns the names of the list."""
        if self.names is None:
            return ()
        lines = (line.strip() for line in _read(self.names).decode("utf-8", "replace").splitlines())
        return tuple(dict.fromkeys(line for line in lines if line))

    def read_key(self) -> bytes:
        """Returns the key of surrogates."""
        if self.method == "mask" or self.key_file is None:
            return b""
        key = _read(self.key_file)
        if len(key) < LEAST_KEY_BYTES:
            raise InputError(
                f"scrub.key_file: {self.key_file} has {len(key)} bytes, expected {LEAST_KEY_BYTES} or more",
                f"head -c 32 /dev/urandom > {self.key_file}",
            )
        return key

    @property
    def decided_by(self) -> Mapping[str, Any]:
        """What beside the settings decides the outcome: hashes of the files that they name."""
        files = {"names": "\n".join(self.read_names()).encode(), "key": self.read_key()}
        return {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if data}


@dataclasses.dataclass(frozen=True)
class _Private:
    """Looks for personal data."""

    kinds: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return "private"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"format": FORMAT, "kinds": self.kinds, "names": self.names}

    def columns(self, data: Any, offsets: Any) -> dict[str, Any]:
        taggers = (Names(self.names),) if self.names else ()
        found = spans_of_buffer(data, offsets, self.kinds, taggers)
        return {
            "document": found.documents,
            "kind": found.kinds,
            "start": found.starts,
            "end": found.ends,
            "evidence": found.evidence,
        }


def scrub(
    units: Units, settings: ScrubSettings, kept: Any, edits: Edits, texts: Any, engine: EngineSettings
) -> None:
    """Adds an edit for each piece of personal data in kept documents.

    Args:
        units: whose texts are looked at.
        settings: of the recipe.
        kept: whether each document is.
        edits: where they are added; what is cut already is not replaced.
        texts: a function from documents, ascending, to pairs of a document and its text.
        engine: where the work is done.
    """
    found = look_at(units, _Private(settings.kinds, settings.read_names()), engine)
    key, kinds = settings.read_key(), tuple(KINDS)
    for documents, rows in _of_kept(found.tables(), units, kept):
        values = dict(texts(sorted(set(documents)))) if settings.method == "surrogate" else {}
        raw = {document: text.encode() for document, text in values.items()}
        for document, kind, start, end in zip(documents, *rows, strict=True):
            name = kinds[kind]
            if settings.method == "mask":
                replacement = f"[{name.upper()}]"
            else:
                replacement = fake(name, raw[document][start:end].decode(), key)
            edits.add(document, Edit(start, end, replacement, name))


def _of_kept(tables: Iterator[Any], units: Units, kept: Any) -> Iterator[tuple[list[int], list[list[int]]]]:
    """The spans of kept documents, unit by unit: the document of each, and kind, start and end."""
    first = 0
    for table, count in zip(tables, units.documents, strict=True):
        document = table["document"].to_numpy() + first
        chosen = kept[document]
        yield (
            document[chosen].tolist(),
            [table[name].to_numpy()[chosen].tolist() for name in ("kind", "start", "end")],
        )
        first += count


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} can't be read: {error.strerror}", "see [corpus.scrub] in the recipe"
        ) from None
