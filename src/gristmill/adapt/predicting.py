"""A task model, and what it says of rows: read in parts, answered in their order."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, final

import torch

from gristmill.adapt.adapting import KIND
from gristmill.adapt.base import PROMPT, TASK
from gristmill.adapt.encoding import Encoder
from gristmill.adapt.net import Net, Precision, narrow
from gristmill.adapt.prompts import SoftPrompt
from gristmill.adapt.tables import Row
from gristmill.adapt.task import Task
from gristmill.artifact import open_artifact
from gristmill.batch import Visibility
from gristmill.config import Part, from_dict
from gristmill.errors import CorruptArtifact
from gristmill.generate.load import HEAD, TOKENIZER
from gristmill.model.checkpoint import load_model, read_tensors
from gristmill.tokenizer import Tokenizer
from gristmill.train.trainer import pick_device

__all__ = ["Predictor"]

ROWS_AT_A_TIME = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stored:
    """What `task.json` says."""

    task: Annotated[Task[Any], Part("adapt.tasks")]
    outputs: tuple[str, ...]
    maximum_tokens: int
    visibility: str
    precision: Precision = "float32"
    prompt: "_StoredPrompt | None" = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StoredPrompt:
    """What a soft prompt was made with."""

    tokens: int
    deep: bool


@final
class Predictor:
    """A task model, ready to answer."""

    def __init__(
        self, directory: Path, *, precision: Precision | None = None, device: torch.device | None = None
    ) -> None:
        """Reads what `gristmill adapt` wrote.

        Args:
            directory: that of the task model.
            precision: in which layers compute; by default as when it was judged.
            device: where; by default a GPU where there is one.

        Raises:
            InputError: the directory is something else.
            CorruptArtifact: a file was changed or cut off.
        """
        self.artifact = artifact = open_artifact(directory, KIND)
        stored = from_dict(_Stored, json.loads((artifact.path / TASK).read_text(encoding="utf-8")))
        self.task, self.outputs = stored.task, stored.outputs
        device = device or pick_device("auto")
        model = load_model(artifact.path, device=device)
        narrow(model, precision or stored.precision)
        tokenizer = Tokenizer.from_directory(artifact.path / TOKENIZER)
        prompt = None
        if stored.prompt is not None:
            prompt = SoftPrompt(model, stored.prompt.tokens, deep=stored.prompt.deep, seed=0)
            prompt.install(model)
        head = self.task.head(model.config, self.outputs, dropout=0.0, seed=0)
        for part, name in ((head, HEAD), (prompt, PROMPT)):
            if part is None:
                continue
            try:
                part.load_state_dict(read_tensors(artifact.path / name))
            except RuntimeError as error:
                raise CorruptArtifact(f"{artifact.path / name} does not fit {TASK}: {error}") from None
            part.to(device)
        self.net = Net(
            model=model,
            tokenizer=tokenizer,
            visibility=Visibility(stored.visibility),
            head=head,
            prompt=prompt,
        )
        self.net.train(False)
        self.encoder = Encoder(tokenizer.vocabulary(), model.config, stored.maximum_tokens)

    def rows(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """Yields each row with what is predicted for it, in their order; no more than some are in memory.

        Raises:
            InputError: a row has no text; the message names it.
        """
        waiting = iter(rows)
        while part := list(itertools.islice(waiting, ROWS_AT_A_TIME)):
            yield from zip(part, self._answers(part), strict=True)

    def texts(self, texts: Iterable[str]) -> Iterator[Mapping[str, Any]]:
        """Yields what is predicted for each text."""
        column = getattr(self.task, "text", "text")
        for _, answer in self.rows(Row(f"text {i}", {str(column): text}) for i, text in enumerate(texts, 1)):
            yield answer

    def _answers(self, rows: list[Row]) -> list[Mapping[str, Any]]:
        # labels may be there, and are none of its business
        examples = [example.unlabelled() for example in self.task.read(rows, labelled=False)]
        items = self.task.items(examples, self.net.tokenizer, self.encoder, self.outputs)
        return self.task.answers(self.net, items, examples, self.outputs)
