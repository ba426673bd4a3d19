"""Texts written anew: every row of some files once or several times over, with what else it holds, its label for one.

What rewrites them is a model of ours (`paraphrase`, `translation`) or, where there is none, noise in characters
(`augment.characters`), which needs no model and says less.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

from annotated_types import Ge, Gt, Le

from gristmill import rng
from gristmill.artifact import Artifact
from gristmill.augment.characters import CharacterNoise
from gristmill.errors import InputError
from gristmill.generate.load import Loaded
from gristmill.synthesis.paraphrase import ParaphraseSettings, Rewritten, paraphrase_for
from gristmill.synthesis.teaching import rows_of
from gristmill.synthesis.translation import BackTranslation, TranslationSettings
from gristmill.synthesis.writer import FilterSettings, Made, Progress, write_made

__all__ = ["RewriteConfig", "Row", "characters", "read_rows", "rewrite", "rewriter_for"]

Rewriter = Callable[[Sequence[str], Sequence[int]], Sequence[Rewritten]]
"""Rewrites texts, each with its own seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewriteConfig:
    """How texts are written anew."""

    copies: Annotated[int, Ge(1)] = 1
    """How often each text is."""
    paraphrase: ParaphraseSettings = dataclasses.field(default_factory=ParaphraseSettings)
    """With one model."""
    translation: TranslationSettings = dataclasses.field(default_factory=TranslationSettings)
    """With two."""
    characters: CharacterNoise = dataclasses.field(default_factory=CharacterNoise)
    """Without any."""
    near: Annotated[float, Gt(0), Le(1)] | Literal[False] = False
    """Drop a text where another one, rewritten or not, has this share of it; a paraphrase is nearly what it was made of,
    so by default only one that is the same."""
    part_texts: Annotated[int, Gt(0)] = 64
    """Texts that are written together: what a killed run makes again at most."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        if self.copies < 1 or self.part_texts < 1:
            raise InputError("copies and part_texts are at least 1")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A text and what else its row holds."""

    text: str
    columns: dict[str, Any]
    source: str


def read_rows(sources: Sequence[str], text_column: str | None = None) -> list[Row]:
    """Returns the rows of files; of plain text each line is one.

    Raises:
        InputError: a file is not there or can't be read, or there is nothing in them.
    """
    found = [
        Row(text, metadata, file.name)
        for file, text, metadata in rows_of(sources, text_column)
        if text.strip()
    ]
    if not found:
        raise InputError(f"there are no texts in {', '.join(sources)}", "look at what the files hold")
    return found


def rewriter_for(config: RewriteConfig, models: Sequence[Loaded]) -> tuple[str, Rewriter]:
    """Returns what rewrites texts with no model, one, or two (there and back), and what it is called.

    Raises:
        InputError: the models can't do it.
    """
    if not models:
        return "characters", characters(config.characters)
    if len(models) == 1:
        paraphrase = paraphrase_for(models[0], config.paraphrase)
        return paraphrase.by, paraphrase
    translation = BackTranslation(models[0], models[1], config.translation)
    return translation.by, translation


def characters(noise: CharacterNoise) -> Rewriter:
    """Returns what rewrites texts by noise in their characters."""

    def rewriter(texts: Sequence[str], seeds: Sequence[int]) -> list[Rewritten]:
        found = []
        for text, seed in zip(texts, seeds, strict=True):
            after = noise.apply(text, rng.stream(seed, "characters"))
            found.append(Rewritten(after, int(after != text)))
        return found

    return rewriter


def rewrite(
    rows: Sequence[Row],
    config: RewriteConfig,
    out: Path,
    *,
    models: Sequence[Loaded] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Artifact:
    """Returns the rows with their texts written anew, in the directory `out`; a run that was killed goes on there.

    Row r's copy c is text number r * copies + c. Texts that come out as they were are dropped as "unchanged".

    Raises:
        InputError: the models can't do it.
    """
    by, rewriter = rewriter_for(config, models)
    names = ("there", "back") if len(models) > 1 else ("model",)
    settings = {
        "by": by, "copies": config.copies, "rows": _identity(rows),
        "settings": dataclasses.asdict(_settings_of(config, len(models))),
    }  # fmt: skip
    return write_made(
        out,
        _Maker(rows, config, by, rewriter, models, seed),
        count=len(rows) * config.copies,
        part_texts=config.part_texts,
        filters=FilterSettings(minimum_characters=1, rules=(), near=config.near),
        known=((f"{row.source} {number}", row.text) for number, row in enumerate(rows)),
        config=settings,
        parents={name: loaded.artifact for name, loaded in zip(names, models, strict=False)},
        seed=seed,
        progress=progress,
    )


def _settings_of(config: RewriteConfig, models: int) -> Any:
    return (config.characters, config.paraphrase, config.translation)[min(models, 2)]


def _identity(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.text, sorted(row.columns.items(), key=lambda item: item[0]))).encode())
    return digest.hexdigest()


@final
class _Maker:
    """Makes texts by their numbers."""

    def __init__(
        self,
        rows: Sequence[Row],
        config: RewriteConfig,
        by: str,
        rewriter: Rewriter,
        models: Sequence[Loaded],
        seed: int,
    ) -> None:
        self._rows, self._config, self._by, self._rewriter, self._seed = rows, config, by, rewriter, seed
        self._models = [loaded.artifact.manifest.content_hash for loaded in models]

    def __call__(self, numbers: range) -> list[Made]:
        rows = [self._rows[number // self._config.copies] for number in numbers]
        seeds = [rng.derive(self._seed, "rewrite", number) for number in numbers]
        rewritten = self._rewriter([row.text for row in rows], seeds)
        return [self._made(*each) for each in zip(numbers, rows, rewritten, strict=True)]

    def _made(self, number: int, row: Row, rewritten: Rewritten) -> Made:
        origin = {
            "by": self._by, "models": self._models, "seed": self._seed, "source": row.source,
            "row": number // self._config.copies, "changes": rewritten.changes,
            "original": hashlib.sha256(row.text.strip().encode()).digest()[:8].hex(),
        }  # fmt: skip
        reason = "unchanged" if rewritten.text.strip() == row.text.strip() else ""
        return Made(
            number=number, text=rewritten.text, columns={**row.columns, "synthetic": origin}, reason=reason
        )
