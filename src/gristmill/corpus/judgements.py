"""What models that a user has trained say of texts: how good they are, and how well they are foretold.

Each is a second look: every text is given a figure once, a whole number, which is kept beside the texts under the hash of
the model; thresholds are applied afterwards. A model is an artifact that a recipe names, or is learned on the way from
sources that it names, and is then kept in the corpus, in `models/`.

A model does not judge texts in a language that it has not learned: they are kept, and counted. Nor does a classifier
judge texts that it has learned to be bad because they were drawn as a sample of the corpus: there are two then, each has
learned from one half of the sample, and judges the other half of the corpus.
"""

import contextlib
import dataclasses
import fractions
import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from gristmill.artifact import Artifact, hash_file, open_artifact, write_json
from gristmill.config import to_dict
from gristmill.corpus import perplexity, quality, quality_training
from gristmill.corpus.decisions import Decisions
from gristmill.corpus.deduplicate import Units
from gristmill.corpus.engine import EngineSettings
from gristmill.corpus.files import find_files
from gristmill.corpus.language import Language
from gristmill.corpus.looks import look_at, spread
from gristmill.corpus.normalise import digest_of
from gristmill.corpus.perplexity import NgramConfig, NgramModel
from gristmill.corpus.quality import HIGHEST_SCORE, QualityClassifier
from gristmill.corpus.quality_training import QualityConfig
from gristmill.errors import InputError

__all__ = [
    "MODELS",
    "PERPLEXITY",
    "QUALITY",
    "Judges",
    "PerplexitySettings",
    "QualitySettings",
    "border",
]

FORMAT = 1
"""Raised whenever the same text and model would give another figure, or the same sources another model."""
MODELS, REPORT = "models", "report.json"
QUALITY, PERPLEXITY = "quality", "perplexity"
"""The reasons of what is dropped, the names of the looks, and those of the tables of a recipe."""
LEAST_DOCUMENTS = 10
"""A classifier has learned a language of which each class had so many documents."""
LEAST_SHARE = 0.02
"""An n-gram model has learned a language that was so much of its text."""
SAMPLE_BYTES = 100_000_000
"""So much of a corpus, at most, is held in memory as a sample of it."""
_THOUSAND = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """The `[corpus.quality]` table: a classifier gives each text a score from 0 to 1000."""

    model: str | None = None
    """A classifier that `gristmill corpus quality` has trained."""
    good: tuple[str, ...] | None = None
    """In place of a model: files, folders and globs of good documents that one is trained on, some hundred."""
    bad: tuple[str, ...] | None = None
    """The same of bad ones; where none are named, a sample of the corpus stands for them."""
    text_column: str | None = None
    """The column or key that holds the text of these."""
    minimum: int | None = None
    """Texts with a lower score are dropped. Without it and `keep` nothing is, and the scores are reported."""
    keep: float | None = None
    """Or: of the text of each language the best share that is kept; 0.5 keeps half of it."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        _check_sources(self.model, {"good": self.good, "bad": self.bad})
        _check_share(self.keep)
        if self.bad is not None and self.good is None:
            raise InputError("there are bad documents and no good ones", 'set good = ["…"] as well')
        if self.minimum is not None and not 0 <= self.minimum <= HIGHEST_SCORE:
            raise InputError(f"minimum is {self.minimum}, expected a score from 0 to {HIGHEST_SCORE}")
        if self.minimum is not None and self.keep is not None:
            raise InputError("there are both `minimum` and `keep`", "leave one of them out")
        if not self.is_used and (self.minimum, self.keep, self.text_column) != (None, None, None):
            raise InputError(
                "there is a threshold, and nothing that gives scores",
                'set model = "DIRECTORY", or good = ["…"] to train one',
            )

    @property
    def is_used(self) -> bool:
        """Whether there is anything that gives scores."""
        return self.model is not None or self.good is not None

    @property
    def training(self) -> QualityConfig:
        """What a classifier is trained on where no model is named."""
        assert self.good is not None
        if self.bad is None:
            return QualityConfig(seed=self.good, text_column=self.text_column)
        return QualityConfig(good=self.good, bad=self.bad, text_column=self.text_column)

    def check(self) -> None:
        """Looks for what it names, so that what is missing is missed before work starts."""
        with _named_by(QUALITY):
            if self.model is not None:
                QualityClassifier.read(_artifact(self.model, quality.KIND, verify=True).path)
            for sources in (self.good, self.bad):
                _sources_of(sources or ())

    @property
    def decided_by(self) -> Mapping[str, Any]:
        """What beside the settings decides the outcome, or in place of them: hashes of what they name."""
        return _decided_by(self.model, quality.KIND, (*(self.good or ()), *(self.bad or ())))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerplexitySettings:
    """The `[corpus.perplexity]` table: an n-gram model says how many bits a text takes for each character."""

    model: str | None = None
    """A model that `gristmill corpus perplexity` has trained."""
    trained_on: tuple[str, ...] | None = None
    """In place of a model: files, folders and globs of text that the corpus should be like, a megabyte or more."""
    text_column: str | None = None
    """The column or key that holds the text of these."""
    maximum: float | dict[Language, float] | None = None
    """Texts that take more bits for a character are dropped; {en = 3.0, zh = 11.0} has regard to languages, as a Chinese
    character takes some four times as many. Without it, `minimum` and `keep` nothing is dropped, and the bits are
    reported."""
    minimum: float | dict[Language, float] | None = None
    """Texts that take fewer are dropped: they repeat themselves, or what the model was trained on."""
    keep: float | None = None
    """In place of `maximum`: of the text of each language the share that is kept, what is best foretold."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        _check_sources(self.model, {"trained_on": self.trained_on})
        _check_share(self.keep)
        given = {"maximum": self.maximum, "minimum": self.minimum}
        for name, value in given.items():
            for bits in value.values() if isinstance(value, Mapping) else [value]:
                if bits is not None and not 0 < bits <= _THOUSAND:
                    raise InputError(
                        f"{name} is {bits}, expected bits for each character",
                        "build without it first: `gristmill corpus show` prints what texts take",
                    )
        if self.maximum is not None and self.keep is not None:
            raise InputError("there are both `maximum` and `keep`", "leave one of them out")
        for language in (None, "en", "zh", "mixed", "other"):
            least, most = (_limit(value, language) for value in (self.minimum, self.maximum))
            if least is not None and most is not None and least > most:
                raise InputError(f"minimum is {least}, above the maximum, {most}: no text is left")
        if not self.is_used and (*given.values(), self.keep, self.text_column) != (None,) * 4:
            raise InputError(
                "there is a threshold, and no model",
                'set model = "DIRECTORY", or trained_on = ["…"] to train one',
            )

    @property
    def is_used(self) -> bool:
        """Whether there is a model."""
        return self.model is not None or self.trained_on is not None

    @property
    def training(self) -> NgramConfig:
        """What a model is trained on where none is named."""
        assert self.trained_on is not None
        return NgramConfig(sources=self.trained_on, text_column=self.text_column)

    def check(self) -> None:
        """Looks for what it names, so that what is missing is missed before work starts."""
        with _named_by(PERPLEXITY):
            if self.model is not None:
                NgramModel.read(_artifact(self.model, perplexity.KIND, verify=True).path)
            _sources_of(self.trained_on or ())

    @property
    def decided_by(self) -> Mapping[str, Any]:
        """What beside the settings decides the outcome, or in place of them: hashes of what they name."""
        return _decided_by(self.model, perplexity.KIND, self.trained_on or ())


def border(figures: Int[np.ndarray, " texts"], sizes: Int[np.ndarray, " texts"], keep: float) -> int:
    """Returns the lowest figure that is kept where the highest are, so that they have this share of the sizes at least.

    It is as high as can be; equal figures are kept or dropped together. There is a text at least.
    """
    order = np.argsort(-figures.astype(np.int64), kind="stable")
    reached = np.cumsum(sizes[order].astype(np.int64))
    wanted = -(-fractions.Fraction(keep) * int(reached[-1]) // 1)
    return int(figures[order[int(np.searchsorted(reached, int(wanted)))]])


class Judges:
    """The models of a corpus in the making, and what they decide."""

    def __init__(
        self, quality: QualitySettings, perplexity: PerplexitySettings, directory: Path, before: Path
    ) -> None:
        """Takes the settings of a recipe, the directory of the corpus, and of the one that stood there before.

        What that one has learned from the same sources is not learned again.
        """
        self._quality, self._perplexity = quality, perplexity
        self._directory, self._before = directory / MODELS, before / MODELS

    def learn(self) -> None:
        """Learns, before the corpus is read, what takes nothing of it.

        Raises:
            InputError: the sources have too little text to learn from.
        """
        if self._quality.good is not None and self._quality.bad is not None:
            self._classifiers(None)
        elif self._quality.good is not None:
            with _named_by(QUALITY):
                count = len(quality_training.examples_of(self._quality.training))
                quality_training.check_count(count, "good")
        if self._perplexity.is_used:
            self._ngrams()

    def drop(self, decisions: Decisions, engine: EngineSettings) -> dict[str, Any]:
        """Drops documents that score too low, or take too many bits or too few; returns what there is to say about it.

        Those that are dropped already have no part in the shares of `keep`.
        """
        said = {}
        if self._quality.is_used:
            said[QUALITY] = self._drop_by_quality(decisions, engine)
        if self._perplexity.is_used:
            said[PERPLEXITY] = self._drop_by_perplexity(decisions, engine)
        return said

    def _drop_by_quality(self, decisions: Decisions, engine: EngineSettings) -> dict[str, Any]:
        settings, models = self._quality, self._classifiers(decisions.units)
        learned = set.intersection(*(_languages_of(model) for model in models))
        judged = _Judged(decisions, _scores(decisions, models, engine), learned)
        limits: dict[str, int] = {}
        too_low = np.zeros(len(decisions.keys), dtype=bool)
        for language, which in judged.by_language():
            least = settings.minimum
            if settings.keep is not None:
                least = border(judged.figures[which], judged.sizes[which], settings.keep)
            if least is not None:
                limits[language] = least
                too_low |= which & (judged.figures < least)
        decisions.drop(QUALITY, too_low)
        return {
            "models": [model.content for model in models],
            "scores": judged.percentiles(),
            "minimum_score": limits,
            "not_judged": judged.not_judged,
            "training": [
                {name: model.report[name] for name in ("labels", "documents", "area_under_curve")}
                for model in models
            ],
            "warnings": [
                *dict.fromkeys(warning for model in models for warning in model.report["warnings"]),
                *judged.warnings("the classifier"),
            ],
        }

    def _drop_by_perplexity(self, decisions: Decisions, engine: EngineSettings) -> dict[str, Any]:
        settings, model = self._perplexity, self._ngrams()
        sizes = model.report["training"]["languages"]
        learned = {name for name, size in sizes.items() if size >= LEAST_SHARE * sum(sizes.values())}
        judged = _Judged(decisions, _millibits(decisions, model, engine), learned)
        lowest: dict[str, int] = {}
        highest: dict[str, int] = {}
        too_low, too_high = (np.zeros(len(decisions.keys), dtype=bool) for _ in range(2))
        for language, which in judged.by_language():
            least, most = (_limit(value, language) for value in (settings.minimum, settings.maximum))
            if least is not None:
                lowest[language] = -(-_thousandths(least) // 1)
                too_low |= which & (judged.figures < lowest[language])
            rest = which & ~too_low
            if most is not None:
                highest[language] = _thousandths(most) // 1
            elif settings.keep is not None and rest.any():
                highest[language] = -border(-judged.figures[rest], judged.sizes[rest], settings.keep)
            if language in highest:
                too_high |= which & (judged.figures > highest[language])
        decisions.drop(PERPLEXITY, too_low | too_high)
        return {
            "model": model.content,
            "millibits_per_character": judged.percentiles(),
            "minimum_millibits": lowest,
            "maximum_millibits": highest,
            "too_low": int(too_low.sum()),
            "too_high": int(too_high.sum()),
            "not_judged": judged.not_judged,
            "training": {**model.report["training"], "held_out": model.report["held_out"]},
            "warnings": judged.warnings("the n-gram model"),
        }

    def _classifiers(self, units: Units | None) -> list["_Model"]:
        """Returns the classifier, trained if it is not; two where samples of the corpus, of these units, are its bad texts.

        The first then judges what has an even hash, and has learned from what has an odd one, and the second the rest.
        """
        settings = self._quality
        if settings.model is not None:
            return [_named(settings.model, quality.KIND)]
        config, what = settings.training, {"training": settings.training, **settings.decided_by}
        if units is None or settings.bad is not None:
            return [self._learned(QUALITY, what, functools.partial(_fitted, config))]
        models = []
        for parity in (1, 0):
            places, digest = _sampled(units, parity)
            learn = functools.partial(_fitted, config, units, places)
            models.append(self._learned(QUALITY, {**what, "sample": digest}, learn))
        return models

    def _ngrams(self) -> "_Model":
        settings = self._perplexity
        if settings.model is not None:
            return _named(settings.model, perplexity.KIND)

        def learn() -> tuple[NgramModel, dict[str, Any]]:
            config = settings.training
            chosen, held_out = perplexity.texts_of(config)
            model = perplexity.train_on(chosen, characters=config.characters, least=config.least)
            return model, perplexity.report_on(model, chosen, held_out)

        return self._learned(PERPLEXITY, {"training": settings.training, **settings.decided_by}, learn)

    def _learned(
        self, name: str, what: Mapping[str, Any], learn: Callable[[], tuple[Any, dict[str, Any]]]
    ) -> "_Model":
        """Returns the model that is kept under the hash of what it is learned from, learned if there is none."""
        digest = hashlib.sha256(json.dumps([FORMAT, to_dict(what)], sort_keys=True).encode()).hexdigest()
        home, before = (place / f"{name}-{digest[:16]}" for place in (self._directory, self._before))
        if not _is_whole(home):
            if _is_whole(before):
                with _written_to(home) as draft:
                    shutil.copytree(before, draft, dirs_exist_ok=True)
            else:
                with _named_by(name):
                    model, report = learn()
                with _written_to(home) as draft:
                    model.write(draft)
                    files = {file.name: hash_file(file) for file in sorted(draft.iterdir())}
                    write_json(draft / REPORT, {"files": files, **report})
        report = json.loads((home / REPORT).read_text(encoding="utf-8"))
        content = hashlib.sha256(json.dumps(report["files"], sort_keys=True).encode()).hexdigest()
        return _Model(home.resolve(), content, report)


# --- looking --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Quality:
    """Looks how good texts are. Of two classifiers the first judges those with an even hash, the second the others."""

    homes: tuple[str, ...]
    contents: tuple[str, ...]

    @property
    def name(self) -> str:
        return QUALITY

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"format": FORMAT, "models": self.contents}

    def columns(self, data: Any, offsets: Any) -> dict[str, Any]:
        scores = np.zeros(len(offsets) - 1, dtype=np.int32)
        raw = [data[start:end] for start, end in itertools.pairwise(offsets.tolist())]
        parities = np.array(
            [_parity(text) for text in raw] if len(self.homes) > 1 else [0] * len(raw), np.int64
        )
        for parity, (home, content) in enumerate(zip(self.homes, self.contents, strict=True)):
            which = np.flatnonzero(parities == parity)
            mine = np.concatenate([np.zeros(0, np.uint8), *(raw[i] for i in which)])
            borders = np.concatenate([[0], np.cumsum(np.diff(offsets)[which])]).astype(np.int64)
            scores[which] = _read_classifier(home, content).scores_of_buffer(mine, borders)
        return {"document": np.arange(len(scores)), "score": scores}


@dataclasses.dataclass(frozen=True)
class _Perplexity:
    """Looks how well texts are foretold."""

    home: str
    content: str

    @property
    def name(self) -> str:
        return PERPLEXITY

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"format": FORMAT, "model": self.content}

    def columns(self, data: Any, offsets: Any) -> dict[str, Any]:
        millibits = _read_ngrams(self.home, self.content).millibits_by_character(data, offsets)
        return {"document": np.arange(len(millibits)), "millibits": millibits.astype(np.int32)}


def _parity(text: Any) -> int:
    """Returns the last bit of the attribute `hash_2` of a text, given its bytes."""
    return digest_of(text.tobytes().decode())[15] & 1


# once for each process and model: `content` tells one that was learned anew in the same place
@functools.lru_cache(maxsize=2)
def _read_classifier(home: str, content: str) -> QualityClassifier:
    return QualityClassifier.read(Path(home))


@functools.lru_cache(maxsize=1)
def _read_ngrams(home: str, content: str) -> NgramModel:
    return NgramModel.read(Path(home))


def _scores(
    decisions: Decisions, models: Sequence["_Model"], engine: EngineSettings
) -> Int[np.ndarray, " documents"]:
    """Returns the score of each document."""
    look = _Quality(tuple(str(model.home) for model in models), tuple(model.content for model in models))
    tables = list(look_at(decisions.units, look, engine).tables())
    scores: Int[np.ndarray, " documents"] = spread(tables, decisions.units.documents, "score", 0)
    return scores


def _millibits(
    decisions: Decisions, model: "_Model", engine: EngineSettings
) -> Int[np.ndarray, " documents"]:
    """Returns how many bits each document takes for a character, in thousandths."""
    tables = list(look_at(decisions.units, _Perplexity(str(model.home), model.content), engine).tables())
    millibits: Int[np.ndarray, " documents"] = spread(tables, decisions.units.documents, "millibits", 0)
    return millibits


class _Judged:
    """The figures of all documents, and which of them are judged: those still kept, in a language that was learned."""

    def __init__(
        self, decisions: Decisions, figures: Int[np.ndarray, " documents"], learned: set[str]
    ) -> None:
        self.figures = figures
        self.sizes = decisions.attribute("bytes").astype(np.int64)
        languages = np.array(decisions.attribute("language"), dtype=object)
        kept = decisions.kept
        present = {str(name): kept & (languages == name) for name in sorted(set(languages[kept].tolist()))}
        self._judged = {name: which for name, which in present.items() if name in learned}
        self.not_judged = {name: int(w.sum()) for name, w in present.items() if name not in learned}
        """The languages that were not learned, and how many documents are in each."""

    def by_language(self) -> Iterator[tuple[str, Bool[np.ndarray, " documents"]]]:
        """Yields each language that was learned, and which documents in it are judged."""
        yield from self._judged.items()

    def percentiles(self) -> dict[str, dict[str, int]]:
        """Returns how the figures of what is judged are distributed in each language."""
        names = ("p10", "p25", "median", "p75", "p90")
        return {
            language: dict(zip(names, map(int, found), strict=True))
            for language, which in self.by_language()
            for found in [np.percentile(self.figures[which], (10, 25, 50, 75, 90), method="nearest")]
        }

    def warnings(self, who: str) -> list[str]:
        """Returns a sentence about what is not judged."""
        if not self.not_judged:
            return []
        counts = ", ".join(f"{count} {language}" for language, count in self.not_judged.items())
        return [f"{who} has not learned the languages of some documents, which it leaves alone: {counts}"]


# --- models ---------------------------------------------------------------------------------------------------------


class _Model(NamedTuple):
    """Where a model lies, and the report on it."""

    home: Path
    content: str
    """A hash of its files."""
    report: Mapping[str, Any]


def _fitted(
    config: QualityConfig, units: Units | None = None, places: Int[np.ndarray, " documents"] | None = None
) -> tuple[QualityClassifier, dict[str, Any]]:
    """Returns a classifier and the report on it; a seed is told from the documents at some places of a corpus."""
    unlabelled = () if units is None or places is None else _texts(units, places)
    return quality_training.fit_to(config, quality_training.examples_of(config, unlabelled))


def _languages_of(model: _Model) -> set[str]:
    """Returns the languages that a classifier has learned."""
    documents = model.report["checks"]["languages"]
    return {
        language
        for language, count in documents["good"].items()
        if min(count, documents["bad"].get(language, 0)) >= LEAST_DOCUMENTS
    }


def _named(path: str, kind: str) -> _Model:
    opened = _artifact(path, kind, verify=False)  # that is done when settings are checked
    return _Model(opened.path.resolve(), opened.manifest.content_hash, opened.manifest.metrics)


def _is_whole(home: Path) -> bool:
    """Whether a model stands there with the bytes that it was written with."""
    try:
        report = json.loads((home / REPORT).read_text(encoding="utf-8"))
        return all(hash_file(home / name) == value for name, value in report["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextlib.contextmanager
def _written_to(home: Path) -> Iterator[Path]:
    """Gives a directory to write to, which becomes `home` when all is written."""
    draft = home.with_name(f".{home.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    draft.replace(home)


@contextlib.contextmanager
def _named_by(table: str) -> Iterator[None]:
    """Says of which table of a recipe an error is."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"corpus.{table}: {error.message}", error.hint) from None


def _sampled(units: Units, parity: int) -> tuple[Int[np.ndarray, " documents"], str]:
    """Returns the places, ascending, of a random sample of all that was read, equal texts once, and a hash of it.

    What is dropped later changes nothing about it. It is drawn by the second half of the hash of a text, and of texts in
    which that is odd (1) or even (0); the first half decides about validation.
    """
    import pyarrow.parquet

    empty = pyarrow.table({"hash_2": np.array([], np.uint64), "bytes": np.array([], np.int64)})
    tables = [pyarrow.parquet.read_table(file, columns=["hash_2", "bytes"]) for file in units.attributes]
    table = pyarrow.concat_tables([empty, *tables])
    hashes, chosen = np.unique(table["hash_2"].to_numpy(), return_index=True)  # the first of equal ones
    is_there = table["bytes"].to_numpy()[chosen] > 0  # what was forgotten has no text
    which = is_there & (hashes & np.uint64(1) == parity)
    hashes, chosen = hashes[which], chosen[which]
    reached = np.cumsum(table["bytes"].to_numpy()[chosen])
    count = min(QualityConfig(seed=("",)).most_documents, int((reached <= SAMPLE_BYTES).sum()))
    digest = hashlib.sha256(hashes[:count].astype("<u8").tobytes()).hexdigest()
    return np.sort(chosen[:count]), digest


def _texts(units: Units, places: Int[np.ndarray, " documents"]) -> Iterator[tuple[str, str]]:
    """Yields the texts of documents, given their places, ascending, and the files they are from."""
    import pyarrow.parquet

    first = 0
    for path, documents in zip(units.texts, units.documents, strict=True):
        rows = places[(places >= first) & (places < first + documents)] - first
        first += documents
        begin = 0
        with pyarrow.parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups if len(rows) else 0):
                count = file.metadata.row_group(group).num_rows
                wanted = rows[(rows >= begin) & (rows < begin + count)] - begin
                begin += count
                if len(wanted):
                    table = file.read_row_group(group, columns=["text", "source"]).take(wanted)
                    yield from zip(table["text"].to_pylist(), table["source"].to_pylist(), strict=True)


# --- settings -------------------------------------------------------------------------------------------------------


def _check_sources(model: str | None, sources: Mapping[str, tuple[str, ...] | None]) -> None:
    given = [name for name, value in sources.items() if value is not None]
    if model is not None and given:
        raise InputError(
            f"there are both a model and {' and '.join(given)}", "leave one of them out: a model is trained"
        )
    for name in given:
        if not sources[name]:
            raise InputError(f"{name} is empty", "name files, folders or globs")


def _check_share(keep: float | None) -> None:
    if keep is not None and not 0 < keep <= 1:
        raise InputError(f"keep is {keep}, expected a share above 0, up to 1", "0.5 keeps half")


def _artifact(path: str, kind: str, *, verify: bool) -> Artifact:
    return open_artifact(Path(path).expanduser(), kind, verify=verify)


def _sources_of(sources: Sequence[str]) -> Mapping[str, str]:
    """Returns the hash of each file; none where there are no sources."""
    return {file.name: hash_file(file.path) for file in find_files(sources).files} if sources else {}


def _decided_by(model: str | None, kind: str, sources: Sequence[str]) -> Mapping[str, Any]:
    if model is not None:  # where it lies does not matter
        return {"model": _artifact(model, kind, verify=False).manifest.content_hash}
    return {"contents": _sources_of(sources)} if sources else {}


def _limit(value: float | Mapping[Any, float] | None, language: str | None) -> float | None:
    return value.get(language) if isinstance(value, Mapping) else value


def _thousandths(bits: float) -> fractions.Fraction:
    """Returns a number of bits as it is written, in thousandths."""
    return fractions.Fraction(repr(bits)) * _THOUSAND
