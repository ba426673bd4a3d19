"""The recipe, resolved into stages: text -> corpus -> tokenizer -> shards -> model -> evaluation -> report.

Each stage writes one directory below the run's; one whose inputs and settings are unchanged is not run again.
"""

import dataclasses
import itertools
import json
import platform
import shlex
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from annotated_types import Ge

import gristmill
from gristmill import plugins, rng
from gristmill.artifact import Artifact, artifact_key, draft, exclusive, find, open_artifact, write_json
from gristmill.config import to_dict
from gristmill.corpus import Corpus, CorpusConfig, Document
from gristmill.corpus import build as build_corpus
from gristmill.corpus.shards import Item, Shards, write_shards
from gristmill.errors import InputError
from gristmill.evaluate.fill import fill, gap_token
from gristmill.evaluate.likelihood import figures
from gristmill.generate import Loaded, SamplingSettings, complete, load_run, prepare
from gristmill.generate.infilling import GAP, split_at_gaps
from gristmill.model.config import FAMILY_OF_KIND, ModelConfig, ModelSettings, resolve
from gristmill.model.count import parameter_counts
from gristmill.report import build_report
from gristmill.tokenizer import Tokenizer, TokenizerConfig
from gristmill.tokenizer import train as train_tokenizer
from gristmill.tokenizer.fast import encoder
from gristmill.tokenizer.framing import document_frame, frame
from gristmill.train.hardware import describe_machine, matmul_peak
from gristmill.train.schedule import parse_budget
from gristmill.train.settings import (
    PretrainSettings,
    default_objective,
    flops_of_token,
    memory_of,
    resolve_batch,
)
from gristmill.train.trainer import Hook, Trainer, pick_device
from gristmill.train.validate import score_documents

__all__ = [
    "Listener",
    "Quiet",
    "Recipe",
    "SampleSettings",
    "check_prompts",
    "check_recipe",
    "config_of",
    "explain",
    "pretrain",
    "run",
    "settle",
]

CHECKPOINT_FORMAT = 1
EVALUATION_FORMAT = 1
OPERATIONAL = ("threads", "checkpoint_seconds")
"""Settings that a run may be resumed with other values of."""
TYPICAL_UTILISATION = 0.35
"""Of the measured peak, for predicting time before a run: between what the smallest and larger models reach."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """The `[samples]` table: what the finished model is asked to continue."""

    prompts: tuple[str, ...] = ()
    """Beginnings of texts; by default the first words of validation documents, of each language."""
    per_prompt: Annotated[int, Ge(1)] = 1
    """How many continuations of each."""
    sampling: SamplingSettings = dataclasses.field(
        default_factory=lambda: SamplingSettings(max_new_tokens=200)
    )
    """How they are drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One file that describes the whole life of a model."""

    name: str
    """Names the run and its directory."""
    corpus: CorpusConfig
    """What text goes in."""
    seed: Annotated[int, Ge(0)] = 0
    """All randomness derives from it."""
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    """How text becomes tokens."""
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    """What is trained."""
    pretrain: PretrainSettings = dataclasses.field(default_factory=PretrainSettings)
    """How, and for how long."""
    samples: SampleSettings = dataclasses.field(default_factory=SampleSettings)
    """What it is asked to write at the end."""

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in '/\\:*?"<>|') or self.name.startswith("."):
            raise InputError(
                f'name = "{self.name}" does not name a directory', 'use letters and digits: name = "mine"'
            )


@runtime_checkable
class Listener(Protocol):
    """Who wants to know how a run goes on; the command line shows it."""

    def stage(self, name: str, path: Path) -> None:
        """A stage begins."""

    def done(self, name: str, artifact: Artifact, *, again: bool) -> None:
        """A stage is finished; `again` says that it was run now, not found from before."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Something goes forward."""

    def say(self, message: str) -> None:
        """Something that the user should know."""

    def hooks(self) -> tuple[Hook, ...]:
        """What is called after every training step."""


class Quiet:
    """A listener that shows nothing."""

    def stage(self, name: str, path: Path) -> None:
        """A stage begins."""

    def done(self, name: str, artifact: Artifact, *, again: bool) -> None:
        """A stage is finished."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Something goes forward."""

    def say(self, message: str) -> None:
        """Something that the user should know."""

    def hooks(self) -> tuple[Hook, ...]:
        """What is called after every training step: nothing."""
        return ()


STAGES = ("corpus", "tokenizer", "shards", "model", "evaluation", "report")


def run(
    recipe: Recipe, directory: Path, listener: Listener, *, command: Sequence[str] = (), until: str = "report"
) -> Path:
    """Does every stage of a recipe in a directory, up to `until`, and returns the directory.

    Raises:
        InputError: something in the recipe can't be done; found before work starts where that is possible.
        RunError: a stage failed; those before it are finished, and training resumes from its last checkpoint.
    """
    recipe = settle(recipe)
    check_recipe(recipe, directory)
    with exclusive(directory):
        _write_run_file(recipe, directory, command)
        stages: dict[str, Artifact] = {}
        for name in STAGES[: STAGES.index(until) + 1]:
            path = directory / name
            before = _content(path)
            listener.stage(name, path)
            stages[name] = run_stage(name, recipe, path, stages, listener)
            if name == "tokenizer":
                check_prompts(recipe, Tokenizer.from_directory(path))
            listener.done(name, stages[name], again=before != stages[name].manifest.content_hash)
    return directory


def run_stage(
    name: str, recipe: Recipe, out: Path, stages: dict[str, Artifact], listener: Listener
) -> Artifact:
    """Does one stage of a recipe, whose earlier stages are given by name, and returns what stands at `out` then."""
    return _RUNNERS[name](recipe, out, stages, listener)


def settle(recipe: Recipe) -> Recipe:
    """Returns the recipe with objective, family and sentinel tokens decided where it leaves them open.

    The objective decides the family, or the family's kind the objective; both need not be named. A file that the
    objective's settings name is read: what is done depends on what it holds now, and a model needs it no more.
    """
    model, settings = recipe.model, recipe.pretrain
    objective = settings.objective
    if objective is None:
        kind = model.kind or "decoder"
        if model.family is not None:
            kind = plugins.load("model.families", model.family).kind
        objective = default_objective(kind)
    if model.family is None:
        fitting = model.kind is None or model.kind in objective.kinds
        family = objective.family if fitting else FAMILY_OF_KIND[str(model.kind)]
        model = dataclasses.replace(model, family=family)
    tokenizer = recipe.tokenizer
    if tokenizer.sentinels < objective.sentinels:
        tokenizer = dataclasses.replace(tokenizer, sentinels=objective.sentinels)
    return dataclasses.replace(
        recipe,
        model=model,
        tokenizer=tokenizer,
        pretrain=dataclasses.replace(settings, objective=objective.settled()),
    )


def check_recipe(recipe: Recipe, directory: Path) -> None:
    """Finds what can be found wrong before any work: sizes, the family, the device, memory and disk."""
    config = _provisional_config(recipe)
    settings = recipe.pretrain
    device = pick_device(settings.device)
    assert settings.objective is not None  # settled
    settings.noise.check(settings.objective)
    needed_tokens = (*settings.objective.special, *settings.noise.special)
    missing = [name for name in needed_tokens if name not in recipe.tokenizer.special_tokens]
    if missing:
        raise InputError(
            f"the objective needs a tokenizer with a {missing[0]} token, and [tokenizer.special_tokens] has none",
            f'add {missing[0]} = "<|{missing[0]}|>" to it, or leave the table out',
        )
    if recipe.corpus.valid_fraction == 0:
        raise InputError("there is no validation text", "set corpus.valid_fraction above 0")
    needed = memory_of(settings, config)
    memory = describe_machine().get("memory_bytes")
    if device.type == "cpu" and memory and needed > 0.95 * memory:
        raise InputError(
            f"training this model takes about {needed / 1e9:.1f} GB of memory, and the machine has {memory / 1e9:.1f} GB",
            "set model.depth or model.width lower",
        )
    folder = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    free, checkpoints = (
        shutil.disk_usage(folder).free,
        56 * parameter_counts(config)["total"],
    )  # three, and the best
    if free < checkpoints:
        raise InputError(
            f"checkpoints take about {checkpoints / 1e9:.1f} GB, and the disk of {directory} has {free / 1e9:.1f} GB free",
            "free some space, or choose another directory with --out",
        )


def check_prompts(recipe: Recipe, tokenizer: Tokenizer) -> None:
    """Finds what of `[samples]` the finished model could not be asked, as soon as there are tokens.

    Raises:
        InputError: a prompt with gaps is longer than a model that sees all of it takes.
    """
    config = _provisional_config(recipe)
    if config.kind == "decoder":
        return  # it goes on from the end of a longer prompt
    for number, prompt in enumerate(recipe.samples.prompts, 1):
        if GAP not in prompt:
            continue  # its beginning is taken
        pieces = [tokenizer.encode(piece) for piece in split_at_gaps(prompt, GAP)]
        tokens = sum(map(len, pieces)) + len(pieces) - 1 + frame(tokenizer.special, config.kind).size
        if tokens > config.maximum_positions:
            raise InputError(
                f"prompt {number} of samples.prompts has {tokens:,} tokens, special tokens among them, and the model "
                f"handles {config.maximum_positions:,}",
                f"cut it, or set model.maximum_positions = {tokens}",
            )


def pretrain(
    model: ModelSettings,
    settings: PretrainSettings,
    *,
    shards: Artifact,
    tokenizer: Artifact,
    out: Path,
    seed: int,
    listener: Listener,
) -> Artifact:
    """Trains a model on shards and returns its checkpoint; goes on where an interrupted run stopped."""
    parts = checkpoint_parts(model, settings, shards=shards, tokenizer=tokenizer, seed=seed)
    config, settings = _model_and_settings(model, settings, shards)
    existing = find(out, artifact_key(**parts))
    if existing is not None:
        return existing
    vocabulary = Tokenizer.from_directory(tokenizer.path).vocabulary()
    _check_belonging(shards, tokenizer, vocabulary.size)
    opened = Shards(shards)
    valid = opened.split("valid") if "valid" in opened.splits else None
    if valid is None or not valid.text_bytes.sum():
        raise InputError("there is no validation text", "set corpus.valid_fraction above 0")
    with draft(out, keep_partial=True, **parts) as work:
        trainer = Trainer(
            directory=work.path,
            model_config=config,
            settings=settings,
            train=opened.split("train"),
            valid=valid,
            vocabulary=vocabulary,
            seed=seed,
            say=listener.say,
            hooks=listener.hooks(),
        )
        trained = trainer.run()
        _copy_tokenizer(tokenizer, work.path / "tokenizer")
        validation = figures(trained.validation, seed=seed)["overall"]
        work.metrics.update({**trained.metrics, "validation": validation})
        work.cost.update(trained.earlier)
    return open_artifact(out, "checkpoint", verify=False)


def _check_belonging(shards: Artifact, tokenizer: Artifact, vocab_size: int) -> None:
    """Refuses shards that another tokenizer has written: their ids stand for other text."""
    written, size = shards.manifest.parents.get("tokenizer"), shards.manifest.metrics["vocab_size"]
    if size != vocab_size:
        raise InputError(
            f"the shards {shards.path} are of a vocabulary of {size:,} tokens, and the tokenizer {tokenizer.path} has "
            f"{vocab_size:,}",
            "give the tokenizer that the shards were written with",
        )
    if written is not None and written["content_hash"] != tokenizer.manifest.content_hash:
        raise InputError(
            f"the shards {shards.path} were written with another tokenizer than {tokenizer.path}",
            "give the tokenizer that the shards were written with, or write them anew",
        )


def checkpoint_parts(
    model: ModelSettings, settings: PretrainSettings, *, shards: Artifact, tokenizer: Artifact, seed: int
) -> dict[str, Any]:
    """Returns what decides a checkpoint: its artifact is found again by these."""
    config, settings = _model_and_settings(model, settings, shards)
    return {
        "kind": "checkpoint",
        "format_version": CHECKPOINT_FORMAT,
        "config": {
            "model": to_dict(config),
            # how often it is saved, and by how many threads, is no part of what is computed
            "pretrain": {k: v for k, v in to_dict(settings).items() if k not in OPERATIONAL},
        },
        "parents": {"shards": shards, "tokenizer": tokenizer},
        "seed": seed,
    }


def _model_and_settings(
    model: ModelSettings, settings: PretrainSettings, shards: Artifact
) -> tuple[ModelConfig, PretrainSettings]:
    config = config_of(model, settings, shards.manifest.metrics["vocab_size"])
    objective = settings.objective or default_objective(config.kind)
    return config, dataclasses.replace(settings, objective=objective)


def config_of(model: ModelSettings, settings: PretrainSettings, vocab_size: int) -> ModelConfig:
    """Returns the model that two tables describe, with what its objective adds, for a vocabulary of a size.

    Raises:
        InputError: sizes contradict each other, or the objective can't train such a model.
    """
    config = resolve(model, vocab_size=vocab_size, row_tokens=settings.row_tokens)
    objective = settings.objective or default_objective(config.kind)
    objective.check(config)
    return objective.refine(config)


def explain(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """Returns every number that follows from a recipe, measured where that takes a second, before anything runs."""
    recipe = settle(recipe)
    check_recipe(recipe, directory)
    shards = _existing(directory / "shards", "shards")
    config = _provisional_config(recipe)
    settings = recipe.pretrain
    if shards is not None:
        config = dataclasses.replace(config, vocab_size=shards.manifest.metrics["vocab_size"])
    rows, micro = resolve_batch(settings, config)
    batch_tokens = rows * settings.row_tokens
    counts = parameter_counts(config)
    flops_per_token = flops_of_token(settings, config)
    peak = matmul_peak(pick_device(settings.device))
    best = max(peak.float32, peak.bfloat16) if settings.precision != "float32" else peak.float32
    speed = TYPICAL_UTILISATION * best / flops_per_token
    train_tokens = shards.manifest.metrics["splits"]["train"]["tokens"] if shards else None
    budget = parse_budget(settings.budget)
    tokens = {
        "steps": budget.amount * batch_tokens,
        "tokens": budget.amount,
        "seconds": budget.amount * speed,
        "epochs": budget.amount * train_tokens if train_tokens else None,
    }[budget.unit]
    return {
        "recipe": to_dict(recipe),
        "stages": {name: "done" if _existing(directory / name, None) else "to do" for name in STAGES},
        "model": {**to_dict(config), "parameters": counts},
        "batch": {"tokens": batch_tokens, "rows": rows, "micro_batch_rows": micro},
        "train_tokens": train_tokens,
        "flops_per_token": flops_per_token,
        "peak_flops": dataclasses.asdict(peak),
        "memory_bytes": memory_of(settings, config),
        "predicted": {
            "utilisation": TYPICAL_UTILISATION,
            "tokens_per_second": round(speed),
            "tokens": None if tokens is None else round(tokens),
            "steps": None if tokens is None else round(tokens / batch_tokens),
            "epochs": None if tokens is None or not train_tokens else round(tokens / train_tokens, 2),
            "flops": None if tokens is None else tokens * flops_per_token,
            "seconds": None if tokens is None else round(tokens / speed),
        },
    }


# --- the stages -----------------------------------------------------------------------------------------------------


def _run_corpus(recipe: Recipe, out: Path, _: dict[str, Artifact], listener: Listener) -> Artifact:
    return build_corpus(recipe.corpus, out, seed=recipe.seed, progress=listener.progress)


def _run_tokenizer(recipe: Recipe, out: Path, stages: dict[str, Artifact], listener: Listener) -> Artifact:
    corpus = Corpus(stages["corpus"])
    return train_tokenizer(
        recipe.tokenizer,
        corpus.texts("train"),
        out,
        validation=((d.language, d.text) for d in corpus.documents("valid")),
        parents={"corpus": stages["corpus"]},
        seed=recipe.seed,
        progress=listener.progress,
    )


def _run_shards(recipe: Recipe, out: Path, stages: dict[str, Artifact], listener: Listener) -> Artifact:
    corpus = Corpus(stages["corpus"])
    tokenizer = Tokenizer.from_directory(stages["tokenizer"].path)
    # both sides have a token: those that are trained here have bos and eos at least
    edges = document_frame(tokenizer.special, _provisional_config(recipe).kind)

    def items(split: Any) -> Iterator[Item]:
        return itertools.starmap(Item, corpus.items(split))

    return write_shards(
        out,
        documents={"train": items("train"), "valid": items("valid")},
        encode=encoder(tokenizer, listener.say),
        groups=corpus.groups,
        bos=edges.before[0],
        eos=edges.after[0],
        vocab_size=tokenizer.vocab_size,
        parents={"corpus": stages["corpus"], "tokenizer": stages["tokenizer"]},
        progress=listener.progress,
    )


def _run_model(recipe: Recipe, out: Path, stages: dict[str, Artifact], listener: Listener) -> Artifact:
    return pretrain(
        recipe.model,
        recipe.pretrain,
        shards=stages["shards"],
        tokenizer=stages["tokenizer"],
        out=out,
        seed=recipe.seed,
        listener=listener,
    )


def _run_evaluation(recipe: Recipe, out: Path, stages: dict[str, Artifact], listener: Listener) -> Artifact:
    parts: dict[str, Any] = {
        "kind": "evaluation",
        "format_version": EVALUATION_FORMAT,
        "config": {"samples": to_dict(recipe.samples), "row_tokens": recipe.pretrain.row_tokens},
        "parents": {name: stages[name] for name in ("model", "corpus", "shards")},
        "seed": recipe.seed,
    }
    existing = find(out, artifact_key(**parts))
    if existing is not None:
        return existing
    with draft(out, **parts) as work:
        loaded = load_run(stages["model"].path)
        documents = list(Corpus(stages["corpus"]).documents("valid"))
        listener.progress("validation documents", 0, None)
        scores = score_documents(
            loaded.model,
            Shards(stages["shards"]).split("valid"),
            row_tokens=recipe.pretrain.row_tokens,
            vocabulary=loaded.tokenizer.vocabulary(),
            objective=recipe.pretrain.objective,
        )
        work.metrics.update(
            figures(
                scores,
                seed=recipe.seed,
                languages=[document.language for document in documents],
                sources=[Path(document.source).name for document in documents],
            )
        )
        # whether these figures are the text's own, or of what was hidden of it
        work.metrics["whole"] = recipe.pretrain.objective is None or recipe.pretrain.objective.whole
        listener.progress("samples", 0, None)
        if loaded.config.kind == "decoder":
            lines = _continuations(recipe.samples, loaded, documents)
        else:
            lines = _fillings(recipe, loaded, documents)
        with (work.path / "samples.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return open_artifact(out, "evaluation", verify=False)


def _continuations(
    settings: SampleSettings, loaded: Loaded, documents: Sequence[Document]
) -> list[dict[str, Any]]:
    """What a decoder writes after each prompt."""
    prompts = settings.prompts or _openings(documents)
    repeated = [prompt for prompt in prompts for _ in range(settings.per_prompt)]
    return [
        {
            "prompt": c.prompt,
            "continuation": c.text,
            "finish": c.finish,
            "settings": to_dict(settings.sampling),
        }
        for c in complete(prepare(loaded.model), loaded.tokenizer, repeated, settings.sampling)
    ]


def _fillings(recipe: Recipe, loaded: Loaded, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """What a model that reads puts into gaps: of the prompts that have some, or of the beginnings of documents."""
    tokenizer, vocabulary = loaded.tokenizer, loaded.tokenizer.vocabulary()
    hole = gap_token(vocabulary)
    asked = []
    for prompt in recipe.samples.prompts or _openings(documents, characters=90):
        if GAP in prompt:
            pieces = [tokenizer.encode(piece) for piece in split_at_gaps(prompt, GAP)]
            truth: list[str | None] = [None] * (len(pieces) - 1)
        else:
            tokens = tokenizer.encode(prompt)[: min(24, loaded.config.maximum_positions - 2)]
            hidden = [i for i in range(2, len(tokens), 6) if vocabulary.is_ordinary[tokens[i]]]
            edges = [-1, *hidden, len(tokens)]
            pieces = [list(tokens[a + 1 : b]) for a, b in itertools.pairwise(edges)]
            truth = [tokenizer.decode([tokens[i]]) for i in hidden]
        if len(pieces) > 1:
            asked.append((pieces, truth))
    lines = []
    for pieces, truth in asked:
        tokens = [token for piece in pieces for token in (hole, *piece)][1:]
        gaps = fill(loaded.model, vocabulary, tokens, objective=recipe.pretrain.objective, top_k=3)
        lines.append(
            {
                "pieces": [tokenizer.decode(piece) for piece in pieces],
                "gaps": [
                    {"truth": true, "guesses": [[g.text, round(g.probability, 4)] for g in guesses]}
                    for true, guesses in zip(truth, gaps, strict=True)
                ],
            }
        )
    return lines


def _run_report(_: Recipe, out: Path, __: dict[str, Artifact], ___: Listener) -> Artifact:
    return build_report(out.parent, out)


_RUNNERS = {
    "corpus": _run_corpus,
    "tokenizer": _run_tokenizer,
    "shards": _run_shards,
    "model": _run_model,
    "evaluation": _run_evaluation,
    "report": _run_report,
}


def _openings(documents: Sequence[Document], *, each: int = 2, characters: int = 24) -> tuple[str, ...]:
    """Beginnings of validation documents, some of each language, the same for the same corpus."""
    found: dict[str, list[str]] = {}
    for document in sorted(documents, key=lambda d: rng.derive(0, "openings", d.id)):
        here = found.setdefault(document.language, [])
        opening = document.text[:characters]
        if (
            len(document.text) > characters
            and not document.text[characters].isspace()
            and " " in opening.strip()
        ):
            opening = opening.rsplit(" ", 1)[0]  # English stops at a word's end
        if document.language == "zh":
            opening = document.text[: characters // 4]
        if len(here) < each and opening.strip():
            here.append(opening.strip())
    return tuple(opening for openings in found.values() for opening in openings)


def _copy_tokenizer(tokenizer: Artifact, target: Path) -> None:
    """A checkpoint carries its tokenizer, so that it can be moved alone."""
    target.mkdir(exist_ok=True)
    for name in tokenizer.manifest.files:
        shutil.copyfile(tokenizer.path / name, target / name)


def _provisional_config(recipe: Recipe) -> ModelConfig:
    """The model with the vocabulary that the recipe names, or a guess: sizes are checked before the text is read."""
    return config_of(recipe.model, recipe.pretrain, recipe.tokenizer.vocab_size or 4096)


def _write_run_file(recipe: Recipe, directory: Path, command: Sequence[str]) -> None:
    path = directory / "run.json"
    table = {
        "name": recipe.name,
        "command": shlex.join(command),
        "recipe": to_dict(recipe),
        "machine": describe_machine(),
        "versions": {"gristmill": gristmill.__version__, "python": platform.python_version()},
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if path.is_file():
        try:
            before = json.loads(path.read_text())
        except ValueError:
            before = {}
        if before.get("recipe") == table["recipe"]:
            table["started_at"] = before.get("started_at", table["started_at"])
    write_json(path, table)


def _existing(path: Path, kind: str | None) -> Artifact | None:
    try:
        return open_artifact(path, kind, verify=False)
    except InputError:
        return None


def _content(path: Path) -> str | None:
    existing = _existing(path, None)
    return existing.manifest.content_hash if existing else None
