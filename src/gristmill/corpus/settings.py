"""The `[corpus]` table of a recipe."""

import dataclasses
import re
from typing import Annotated, Literal

from annotated_types import Interval

from gristmill.corpus.contamination import ContaminationSettings
from gristmill.corpus.decode import newline_of
from gristmill.corpus.deduplicate import DedupSettings
from gristmill.corpus.engine import EngineSettings
from gristmill.corpus.judgements import PerplexitySettings, QualitySettings
from gristmill.corpus.read import ReadOptions
from gristmill.corpus.rules import RuleSettings
from gristmill.corpus.scrub import ScrubSettings
from gristmill.errors import InputError

__all__ = ["CorpusConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The [corpus] table of a recipe."""

    sources: tuple[str, ...] | dict[str, tuple[str, ...]]
    """Files, folders (with all that is below them), globs and URLs; `gristmill corpus build --help` lists the formats.
    Or a table of them by name, which a mix can weigh: sources = {books = ["books/"], web = ["web/*.jsonl"]}."""
    exclude: tuple[str, ...] = ()
    """Patterns such as "README*"; a file or folder whose name or path matches one is left out."""
    forgotten: str | None = None
    """A list that `gristmill corpus forget` writes: what is on it is left out. That beside the corpus is always obeyed."""
    text_column: str | None = None
    """The column or key that holds the text; found by its name or its length where it is not given."""
    encoding: str | None = None
    """The encoding of all files; found out for each file where it is not given."""
    header: Literal["detect", "present", "absent"] = "detect"
    """Whether the first row of a .csv or .tsv names its columns; without a header they are column_1, column_2, …"""
    document_separator: str | None = None
    """Regular expression for whole lines that divide a text file into documents: "" is a blank line, "%" fortunes."""
    on_error: Literal["skip", "fail"] = "skip"
    """What to do about a broken row or an unreadable file: leave it out and count it, or stop."""
    minimum_characters: int = 1
    """Shorter documents are dropped; white space around a text does not count."""
    valid_fraction: float = 0.05
    """The share of the documents (of the text, where there is only one) that is held out for validation."""
    valid_maximum_bytes: int = 8_000_000
    """Validation text beyond this goes to training instead."""
    held_out: str | None = None
    """The directory of another corpus of this text, whose validation text is this one's too. What of it is here, and what
    is superfluous beside it, is left out: models that learned from either can be measured on the same."""
    fraction: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """The share of the documents, by their bytes, that is used: what would less text give? Validation text stays."""

    rules: RuleSettings = dataclasses.field(default_factory=RuleSettings)
    """What of the documents is good enough; by default all."""
    quality: QualitySettings = dataclasses.field(default_factory=QualitySettings)
    """What a classifier that you train says is good enough; by default there is none."""
    perplexity: PerplexitySettings = dataclasses.field(default_factory=PerplexitySettings)
    """What an n-gram model of your own text foretells well enough; by default there is none."""
    contamination: ContaminationSettings = dataclasses.field(default_factory=ContaminationSettings)
    """Which evaluation sets must not be in the text."""
    scrub: ScrubSettings = dataclasses.field(default_factory=ScrubSettings)
    """Which personal data is replaced."""
    dedup: DedupSettings = dataclasses.field(default_factory=DedupSettings)
    """What of the documents is superfluous."""
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    """Where the work is done."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if not 0 <= self.valid_fraction < 1:
            raise InputError(
                f"valid_fraction is {self.valid_fraction}, expected 0 to 1", "0.05 holds out a twentieth"
            )
        if self.minimum_characters < 1 or self.valid_maximum_bytes < 1:
            raise InputError("minimum_characters and valid_maximum_bytes are at least 1")
        if self.encoding is not None:
            newline_of(self.encoding)
        try:
            re.compile(self.document_separator or "")
        except re.error as error:
            raise InputError(
                f'document_separator "{self.document_separator}" is no regular expression: {error}',
                r'special characters need a backslash: document_separator = "\\*\\*\\*"',
            ) from None

    @property
    def reading(self) -> ReadOptions:
        """How the sources are read."""
        return ReadOptions(self.text_column, self.encoding, self.header, self.document_separator)
