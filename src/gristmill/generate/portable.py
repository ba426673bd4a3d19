"""Models in and out: a directory that stock transformers loads, and checkpoints made of what others trained."""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gristmill.artifact import Artifact, disk_errors, draft, hash_file, open_artifact, write_json
from gristmill.config import to_dict
from gristmill.errors import CorruptArtifact, InputError, RunError
from gristmill.generate.completing import prompt_tokens
from gristmill.generate.load import CHECKPOINT, FORMAT, TOKENIZER, Loaded
from gristmill.model.base import Model
from gristmill.model.checkpoint import save_model
from gristmill.model.config import ModelConfig
from gristmill.model.exchange import (
    Pooling,
    from_llama2c,
    from_transformers,
    to_sentence_transformers,
    to_transformers,
)
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.convert import from_bert, from_gpt2
from gristmill.tokenizer.convert import from_llama2c as tokenizer_from_llama2c
from gristmill.tokenizer.framing import Frame, frame

__all__ = [
    "PROBE",
    "compare_tokens",
    "export_run",
    "facts",
    "import_model",
    "placed",
    "refuse_to_overwrite",
    "write_tokenizer",
]

PROBE = "In 1984, 3 naïve cats\n\tsat — “so what?” 床前明月光，疑是地上霜。 🙂"
"""Text with a bit of everything, on which the exported tokenizer has to agree with ours."""


def export_run(
    loaded: Loaded, out: Path, *, pooling: Pooling | None = None, force: bool = False
) -> dict[str, Any]:
    """Writes a directory that a stock class and `AutoTokenizer` load, and returns what was compared.

    The logits are compared with the stock class, and the tokens of a text with the stock tokenizer: for a decoder it
    begins every text with bos as `gristmill generate` does, so greedy texts are the same; for an encoder it puts
    between [CLS] and [SEP] what stood there in training, and for an encoder-decoder between bos and eos. The directory appears whole.

    Args:
        loaded: the model and its tokenizer.
        out: the directory to write.
        pooling: how `SentenceTransformer(out)` makes an encoder's embeddings; None leaves its files out.
        force: replace what is in the directory.

    Raises:
        InputError: `out` is not empty, the model has parts that the stock class does not, or is no encoder and there
            is `pooling`.
        RunError: logits or tokens differ.
    """
    if pooling is not None and loaded.config.kind != "encoder":
        raise InputError(
            f"sentence-transformers loads encoders, and the model is of kind {loaded.config.kind}",
            "export it without pooling",
        )
    with placed(out, force) as directory:
        if pooling is not None:
            to_sentence_transformers(loaded.config, directory, pooling=pooling)
        difference = to_transformers(loaded.model.float(), directory, dict(loaded.tokenizer.special))
        edges = _frame(loaded.tokenizer, loaded.config)
        maximum = None if loaded.config.kind == "decoder" else loaded.config.maximum_positions
        write_tokenizer(loaded.tokenizer, loaded.config, directory, edges, maximum_tokens=maximum)
        theirs = _stock_tokenizer(directory)(PROBE)["input_ids"]
        compare_tokens([theirs], [edges.around(loaded.tokenizer.encode(PROBE))])
    return facts(out, loaded.config, loaded.artifact, difference)


@contextlib.contextmanager
def placed(out: Path, force: bool) -> Iterator[Path]:
    """Yields a directory that stands at `out`, whole, when nothing has gone wrong; transformers is quiet meanwhile.

    Raises:
        InputError: `out` is not empty.
    """
    refuse_to_overwrite(out, force)
    partial = out.parent / f".{out.name}.partial"
    with disk_errors(out):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            with _quiet_transformers():
                yield partial
            if out.exists():
                shutil.rmtree(out)
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def facts(out: Path, config: ModelConfig, artifact: Artifact, difference: float) -> dict[str, Any]:
    """Returns what there is to say of an export."""
    return {
        "path": str(out),
        "family": config.family,
        "largest_logit_difference": difference,
        "source_content_hash": artifact.manifest.content_hash,
        "files": {
            str(file.relative_to(out)): file.stat().st_size
            for file in sorted(out.rglob("*"))
            if file.is_file()
        },
    }


def import_model(source: Path, out: Path, *, tokenizer: Path | None = None, force: bool = False) -> Artifact:
    """Makes a checkpoint of a directory of transformers (safetensors only) or of a llama2.c file.

    Args:
        source: the directory, or the file.
        out: the checkpoint's directory.
        tokenizer: a directory with a `tokenizer.json` (or GPT-2's pair of files, or BERT's `vocab.txt`), or a
            llama2.c tokenizer; by default the source directory.
        force: move what stands at `out` to `replaced/` beside it.

    Raises:
        InputError: the source is missing, of an unknown family, a pickle, or has no tokenizer.
        CorruptArtifact: a file is truncated or does not fit its config.
    """
    refuse_to_overwrite(out, force)
    if not source.exists():
        raise InputError(f"there is no {source}", "name a directory of transformers, or a llama2.c .bin file")
    if source.is_dir():
        model, files = _read_directory(source), sorted(source.glob("*.safetensors"))
    elif source.suffix in (".pt", ".pth", ".pkl", ".ckpt") or source.name == "pytorch_model.bin":
        raise InputError(
            f"{source} is a pickle, which can run any code when it is read; pickles are not loaded",
            "save it with safe_serialization=True, and name the directory",
        )
    else:
        model, files = from_llama2c(source), [source]
    words = _read_tokenizer(tokenizer or source)
    if words.vocab_size > model.config.vocab_size:
        raise CorruptArtifact(
            f"the tokenizer has {words.vocab_size:,} tokens, the model knows {model.config.vocab_size:,}",
            "give the model's own tokenizer with --tokenizer",
        )
    config = {
        "imported": {file.name: hash_file(file) for file in files},
        "tokenizer": words.sha256,
        "model": to_dict(model.config),
    }
    with draft(out, kind=CHECKPOINT, format_version=FORMAT, config=config) as work:
        save_model(work.path, model.config, model.state_dict())
        (work.path / TOKENIZER).mkdir()
        words.save(work.path / TOKENIZER)
        work.metrics |= {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "vocab_size": words.vocab_size,
        }
    return open_artifact(out, CHECKPOINT)


def refuse_to_overwrite(out: Path, force: bool) -> None:
    """Raises InputError where something stands at `out` that was not meant to go."""
    if out.is_file():
        raise InputError(f"{out} is a file, expected a directory's name")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise InputError(f"{out} is not empty", "choose another --out, or add --force to replace it")


def _read_directory(source: Path) -> Model:
    try:
        return from_transformers(source)
    except InputError as error:
        if error.hint is not None:
            raise
        raise type(error)(
            error.message,
            "config.json and the weights have to be of one model, of a family that `gristmill list families` names",
        ) from None


def _read_tokenizer(path: Path) -> Tokenizer:
    if path.is_file() and path.suffix == ".bin":
        if path.name.startswith("tok"):
            return tokenizer_from_llama2c(path)
        raise InputError(
            f"{path.name} has no tokenizer in it",
            "name its tokenizer too: --tokenizer tok512.bin (or a directory)",
        )
    if not (path / "tokenizer.json").is_file():
        if (path / "encoder.json").is_file():
            return from_gpt2(path)
        if (path / "vocab.txt").is_file():
            return from_bert(path)
    return Tokenizer.from_directory(path)


def _frame(tokenizer: Tokenizer, config: ModelConfig) -> Frame:
    """What the stock tokenizer puts around a text: of a decoder's, what `gristmill generate` puts before a prompt."""
    if config.kind == "decoder":
        return Frame(tuple(prompt_tokens(tokenizer, "")), ())
    return frame(tokenizer.special, config.kind)


def write_tokenizer(
    tokenizer: Tokenizer,
    config: ModelConfig,
    directory: Path,
    edges: Frame,
    *,
    between: tuple[int, ...] | None = None,
    closing: tuple[int, ...] | None = None,
    maximum_tokens: int | None = None,
    pad: str | None = None,
) -> None:
    """Writes the tokenizer's files, with a template that puts special tokens around texts and pairs of texts.

    Args:
        tokenizer: ours.
        config: of the model that reads the tokens.
        directory: exists.
        edges: what stands around a text.
        between: what stands between the texts of a pair; by default what stands behind a text.
        closing: what stands behind a pair; by default what stands behind a text.
        maximum_tokens: where `truncation=True` cuts.
        pad: the token that padding is written with, where the tokenizer has none of its own.
    """
    tokenizer.save(directory)
    stated: dict[str, Any] = {}
    if maximum_tokens is not None:
        types = ["token_type_ids"] if config.token_types else []
        stated |= {
            "model_input_names": ["input_ids", *types, "attention_mask"],
            "model_max_length": maximum_tokens,
        }
    if pad is not None:
        stated["pad_token"] = pad
    if stated:
        path = directory / "tokenizer_config.json"
        write_json(path, json.loads(path.read_text(encoding="utf-8")) | stated)
    path = directory / "tokenizer.json"
    layout = json.loads(path.read_text(encoding="utf-8"))
    between = edges.after if between is None else between
    closing = edges.after if closing is None else closing

    def said(tokens: tuple[int, ...], text: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": tokenizer.name(token), "type_id": text}} for token in tokens]

    before, one, other = (
        said(edges.before, 0),
        *({"Sequence": {"id": x, "type_id": i}} for i, x in enumerate("AB")),
    )
    tokens = (*edges.before, *between, *edges.after, *closing)
    layout["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*before, one, *said(edges.after, 0)],
        "pair": [*before, one, *said(between, 0), other, *said(closing, 1)],
        "special_tokens": {
            name: {"id": name, "ids": [token], "tokens": [name]}
            for name, token in ((tokenizer.name(token), token) for token in dict.fromkeys(tokens))
        },
    }
    write_json(path, layout)


def compare_tokens(theirs: Sequence[Sequence[int]], ours: Sequence[Sequence[int]]) -> None:
    """Compares what the exported tokenizer makes of texts with what ours does.

    Raises:
        RunError: they differ.
    """
    for other, mine in zip(theirs, ours, strict=True):
        if list(other) != list(mine):
            at = next(
                (i for i, pair in enumerate(zip(other, mine, strict=False)) if pair[0] != pair[1]), len(mine)
            )
            raise RunError(
                f"the exported tokenizer splits a text differently from token {at} on: {other[at : at + 3]}, "
                f"ours {mine[at : at + 3]}",
                "nothing was written; please report this with the run's tokenizer.json",
            )


def _stock_tokenizer(directory: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(directory)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keeps the progress bars, notes and look-ups of transformers away while it only checks local files."""
    try:
        from transformers.utils import logging as theirs
    except ImportError:
        yield  # to_transformers says what to install
        return
    before, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    offline = os.environ.get("HF_HUB_OFFLINE")
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        theirs.set_verbosity(before)
        if bars:
            theirs.enable_progress_bar()
        if offline is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = offline
