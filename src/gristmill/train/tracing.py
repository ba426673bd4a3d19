"""From a token of a run's shards, or of a batch that it was trained on, back to the file that the token came from."""

from pathlib import Path
from typing import Any, NamedTuple

from gristmill.artifact import Artifact, open_artifact
from gristmill.config import from_dict
from gristmill.corpus.provenance import Trace, document_of_token, trace
from gristmill.corpus.shards import Shards
from gristmill.corpus.store import Corpus
from gristmill.errors import InputError
from gristmill.model.config import ModelConfig
from gristmill.tokenizer import Tokenizer
from gristmill.train.loader import Loader, schedule_of
from gristmill.train.settings import PretrainSettings, default_objective, resolve_batch

__all__ = ["TracedToken", "as_json", "token_of_step", "trace_token"]


class TracedToken(NamedTuple):
    """A token, and where it came from."""

    split: str
    position: int
    """In the shards."""
    token: int
    piece: str
    """The token as text."""
    is_edge: bool
    """Whether it is bos or eos, which no file has."""
    trace: Trace


def trace_token(shards: Shards, split: str, position: int) -> TracedToken:
    """Returns where a stored token came from: the shards know their corpus and their tokenizer.

    Raises:
        InputError: there is no such token, or the corpus is gone or was replaced since.
    """
    corpus = Corpus(_parent(shards.artifact, "corpus"))
    tokenizer = Tokenizer.from_directory(_parent(shards.artifact, "tokenizer").path)
    store = shards.split(split)
    document, place = document_of_token(store, position)
    begin, end = int(store.offsets[document]), int(store.offsets[document + 1])
    token = int(store.tokens[position])
    is_edge = position in (begin, end - 1)
    before = (
        b"".join(map(tokenizer.token_bytes, store.tokens[begin + 1 : position].tolist())) if place else b""
    )
    found = trace(corpus, int(store.keys[document]), before)
    piece = (
        tokenizer.name(token) if is_edge else tokenizer.token_bytes(token).decode("utf-8", "backslashreplace")
    )
    return TracedToken(split, position, token, piece, is_edge, found)


def token_of_step(checkpoint: Artifact, step: int, row: int, position: int) -> tuple[Shards, int]:
    """Returns the shards of a trained model, and which of their training tokens stood in a place of a step's batch.

    The batch as it is before the objective hides or moves anything; steps count from 1, rows and positions from 0.

    Raises:
        InputError: the run had no such step, row or position, or padding stood there.
    """
    shards = Shards(_parent(checkpoint, "shards"))
    settings = from_dict(PretrainSettings, checkpoint.manifest.config["pretrain"])
    config = from_dict(ModelConfig, checkpoint.manifest.config["model"])
    objective = settings.objective or default_objective(config.kind)
    rows, micro_rows = resolve_batch(settings, config)
    store = shards.split("train")
    steps = checkpoint.manifest.metrics["steps"]
    for name, value, first, last in (
        ("step", step, 1, steps), ("row", row, 0, rows - 1), ("position", position, 0, settings.row_tokens - 1)
    ):  # fmt: skip
        if not first <= value <= last:
            raise InputError(
                f"there is no {name} {value:,} in this run", f"it has {name}s {first} to {last:,}"
            )
    with Loader(
        store, objective, row_tokens=settings.row_tokens, rows=rows, micro_rows=micro_rows,
        seed=checkpoint.manifest.seed, mix=schedule_of(settings, store, objective, rows),
    ) as loader:  # fmt: skip
        place = int(loader.places(step)[row, position])
    if place < 0:
        raise InputError(
            f"row {row} of step {step:,} has padding at position {position}", "name a place before it"
        )
    return shards, place


def as_json(found: TracedToken) -> dict[str, Any]:
    """Returns a traced token as JSON values."""
    from gristmill.corpus import provenance

    return {**found._asdict(), "trace": provenance.as_json(found.trace)}


def _parent(artifact: Artifact, role: str) -> Artifact:
    entry = artifact.manifest.parents.get(role)
    if entry is None:
        raise InputError(f"{artifact.path} names no {role} that it was made of")
    path = (artifact.path / entry["path"]).resolve()
    parent = open_artifact(Path(path), verify=False)
    if parent.manifest.content_hash != entry["content_hash"]:
        raise InputError(
            f"the {role} {path} was replaced since {artifact.path} was made",
            "what it was made of is in replaced/ beside it",
        )
    return parent
