"""Texts from a teacher: a model of ours goes on from beginnings, and what it writes trains another one.

Text number i begins with a prompt and is drawn with a seed that both follow from (seed, i), so any part can be made by
itself. (Kim and Rush 2016, arXiv:1606.07947, for sequences of a teacher as training data; Hinton et al. 2015.)
"""

import dataclasses
import heapq
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

from annotated_types import Ge, Gt, Le

from gristmill import rng
from gristmill.artifact import Artifact
from gristmill.corpus.decode import UnreadableError
from gristmill.corpus.files import SourceFile, find_files, open_stream
from gristmill.corpus.provenance import LICENCES
from gristmill.corpus.read import ReadOptions, Record, inspect, records
from gristmill.corpus.store import Corpus
from gristmill.errors import InputError
from gristmill.generate.completing import Completion, complete
from gristmill.generate.decoding import prepare
from gristmill.generate.load import Loaded
from gristmill.generate.sampling import SamplingSettings
from gristmill.synthesis.writer import FilterSettings, Made, Progress, write_made
from gristmill.tokenizer import Tokenizer

__all__ = [
    "Prompt",
    "Sampling",
    "TeachConfig",
    "licence_of",
    "prompts_of_corpus",
    "prompts_of_files",
    "teach",
]

_ENDS = ".!?…。！？"
_CLOSING = "\"')]”’»」』）"
_CHARACTERS_PER_TOKEN = 64
"""More than tokens have on average in any language; so much of a document is looked at for its first tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a teacher's tokens are drawn; what they mean, `generate.sampling.SamplingSettings` says."""

    max_new_tokens: Annotated[int, Gt(0)] = 256
    """The most tokens that are added to a prompt."""
    temperature: Annotated[float, Ge(0)] = 1.0
    """As the model has learned it; below 1 texts are safer and more alike."""
    top_k: Annotated[int, Gt(0)] | None = None
    """Draw from the k likeliest tokens only."""
    top_p: Annotated[float, Gt(0), Le(1)] | None = 0.95
    """Draw from the likeliest tokens that together have this probability."""
    min_p: Annotated[float, Gt(0), Le(1)] | None = None
    """Draw from tokens at least this likely relative to the likeliest."""
    repetition_penalty: Annotated[float, Gt(0)] = 1.0
    """Above 1, tokens that were there before become less likely."""

    def __post_init__(self) -> None:
        """Checks the numbers."""
        self.settings()

    def settings(self) -> SamplingSettings:
        """Returns them as generation takes them."""
        return SamplingSettings(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeachConfig:
    """What a teacher writes, and what of it is kept."""

    documents: Annotated[int, Gt(0)] = 1000
    """Texts that are made; some are dropped afterwards."""
    prompt_tokens: Annotated[int, Ge(1)] = 16
    """From a corpus: so much of a document's beginning is the prompt."""
    keep_prompt: bool = True
    """Whether a text begins with its prompt, or after it."""
    unfinished: Literal["cut", "keep", "drop"] = "cut"
    """What becomes of a text that was not at its end after `max_new_tokens`: it is cut after its last sentence."""
    licence: str | None = None
    """What is written as the licence of each text; otherwise that of the document that its prompt is from."""
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    """How tokens are drawn."""
    filters: FilterSettings = dataclasses.field(default_factory=FilterSettings)
    """What is dropped."""
    part_documents: Annotated[int, Gt(0)] = 64
    """Texts that are written together: what a killed run makes again at most."""
    batch: Annotated[int, Gt(0)] = 16
    """Texts that are continued at a time."""

    def __post_init__(self) -> None:
        """Checks what the types do not."""
        for name in ("documents", "prompt_tokens", "part_documents", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a text begins with, and where that comes from."""

    text: str
    source: str
    """The file that it stands in."""
    document: str | None = None
    """The id of the corpus's document."""
    licence: str | None = None


def teach(
    teacher: Loaded,
    prompts: Sequence[Prompt],
    config: TeachConfig,
    out: Path,
    *,
    against: Sequence[Corpus] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Artifact:
    """Returns the texts that a teacher writes after prompts, in the directory `out`.

    Prompts are taken in turn, each pass through them in an order of its own.

    Args:
        teacher: a decoder.
        prompts: beginnings; an empty one lets it begin by itself.
        config: how much is written, and how.
        out: the artifact's directory. A run that was killed goes on there.
        against: corpora whose training texts must not be copied.
        seed: all that is random derives from it.
        progress: is told how many texts have been made.

    Raises:
        InputError: there are no prompts, or the model does not continue texts.
    """
    if not prompts:
        raise InputError("there are no prompts", "name a corpus or a file of beginnings: --prompts")
    settings = dataclasses.asdict(config)
    for name in ("documents", "part_documents", "filters"):
        del settings[name]
    beginnings = [dataclasses.asdict(prompt) for prompt in prompts]
    settings["prompts"] = rng.derive(0, "prompts", *(repr(sorted(each.items())) for each in beginnings))
    return write_made(
        out,
        _Teacher(teacher, prompts, config, seed),
        count=config.documents,
        part_texts=config.part_documents,
        filters=config.filters,
        known=((document.id, document.text) for corpus in against for document in corpus.documents("train")),
        config={"by": "teacher", **settings},
        parents={"teacher": teacher.artifact, **_parents(against)},
        seed=seed,
        progress=progress,
    )


def prompts_of_corpus(
    corpus: Corpus, tokenizer: Tokenizer, *, tokens: int, most: int, seed: int = 0
) -> list[Prompt]:
    """Returns the beginnings of training documents, each so many tokens long: of so many documents, drawn at random.

    Which ones, and their order, depend on the documents and the seed. A document without more than that is left out.
    """

    def beginnings() -> Iterator[tuple[int, str, Any]]:
        for document in corpus.documents("train"):
            beginning = document._replace(text=document.text[: tokens * _CHARACTERS_PER_TOKEN])
            yield rng.derive(seed, "prompt", document.id), document.id, beginning

    found = []
    # a few more than needed, for those that are too short
    for _, _, document in heapq.nsmallest(2 * most + 16, beginnings(), key=lambda each: each[:2]):
        ids = tokenizer.encode(document.text)
        if len(ids) <= tokens:
            continue
        data = b"".join(tokenizer.token_bytes(token) for token in ids[:tokens])
        beginning = data.decode("utf-8", "ignore")  # the last token may be half a character
        if beginning.strip():
            found.append(
                Prompt(
                    text=beginning, source=document.source, document=document.id, licence=licence_of(document.metadata)
                )
            )  # fmt: skip
    return found[:most]


def prompts_of_files(sources: Sequence[str], text_column: str | None = None) -> list[Prompt]:
    """Returns the prompts of files: each line of a plain text, each row of a table, each document of other formats.

    Raises:
        InputError: a file is not there or can't be read, or there is nothing in them.
    """
    found = [
        Prompt(text=text, source=file.name, licence=licence_of(metadata))
        for file, text, metadata in rows_of(sources, text_column)
        if text.strip()
    ]
    if not found:
        raise InputError(f"there are no prompts in {', '.join(sources)}", "write one on each line")
    return found


def rows_of(
    sources: Sequence[str], text_column: str | None = None
) -> Iterator[tuple[SourceFile, str, dict[str, Any]]]:
    """Yields the texts of files and what else their rows hold; of plain text each line is one.

    Raises:
        InputError: a file can't be read.
    """
    options = ReadOptions(text_column)
    for file in find_files(sources).files:
        try:
            layout = inspect(file, options)
            with open_stream(file) as stream:
                for item in records(stream, file, layout, options):
                    if not isinstance(item, Record):
                        continue
                    texts: Iterable[str] = [item.text]
                    if file.format == "text":
                        texts = (line for line in item.text.replace("\r\n", "\n").split("\n") if line.strip())
                    for text in texts:
                        yield file, text, item.metadata
        except UnreadableError as error:
            raise InputError(error.message, error.hint or "leave it out") from None


def licence_of(metadata: dict[str, Any]) -> str | None:
    """Returns the licence that stands in a document's metadata, if one does."""
    return next(
        (str(metadata[name]) for name in metadata if name.lower() in LICENCES and metadata[name]), None
    )


def _parents(against: Sequence[Corpus]) -> dict[str, Artifact]:
    return {f"against_{number}": corpus.artifact for number, corpus in enumerate(against, start=1)}


@final
class _Teacher:
    """Makes texts by their numbers."""

    def __init__(self, teacher: Loaded, prompts: Sequence[Prompt], config: TeachConfig, seed: int) -> None:
        self._decoder, self._tokenizer = prepare(teacher.model), teacher.tokenizer
        self._model = teacher.artifact.manifest.content_hash
        self._prompts, self._config, self._seed = prompts, config, seed
        self._orders: dict[int, Any] = {}

    def __call__(self, numbers: range) -> list[Made]:
        prompts = [self._prompt(number) for number in numbers]
        completions = complete(
            self._decoder,
            self._tokenizer,
            [prompt.text for prompt in prompts],
            self._config.sampling.settings(),
            batch_size=self._config.batch,
            seeds=[rng.derive(self._seed, "teach", number) for number in numbers],
        )
        return [self._made(*each) for each in zip(numbers, prompts, completions, strict=True)]

    def _prompt(self, number: int) -> Prompt:
        turn, place = divmod(number, len(self._prompts))
        if turn not in self._orders:
            self._orders = {turn: rng.stream(self._seed, "prompts", turn).permutation(len(self._prompts))}
        return self._prompts[int(self._orders[turn][place])]

    def _made(self, number: int, prompt: Prompt, completion: Completion) -> Made:
        config, text, reason = self._config, completion.text, ""
        if completion.finish == "length" and config.unfinished != "keep":
            text = "" if config.unfinished == "drop" else _finished(text)
            reason = "" if text else "unfinished"
        begins_at = len(prompt.text) if config.keep_prompt else 0
        sampling = {
            name: value for name, value in dataclasses.asdict(config.sampling).items() if value is not None
        }
        origin: dict[str, Any] = {
            "by": "teacher", "model": self._model, "seed": self._seed, "prompt": prompt.text,
            "prompt_source": prompt.source, "finish": completion.finish, **sampling,
        }  # fmt: skip
        if prompt.document is not None:
            origin["prompt_document"] = prompt.document
        licence = config.licence or prompt.licence
        return Made(
            number=number,
            text=(prompt.text if config.keep_prompt else "") + (text or completion.text),
            begins_at=begins_at,
            columns={**({"licence": licence} if licence else {}), "synthetic": origin},
            reason=reason,
        )


def _finished(text: str) -> str:
    """The text up to the end of its last sentence; "" where none ends."""
    last = max(text.rfind(end) for end in _ENDS)
    line = text.rfind("\n")
    if max(last, line) < 0:
        return ""
    end = last + 1 if last > line else line
    while end < len(text) and last > line and text[end] in _CLOSING:
        end += 1
    return text[:end].rstrip()
