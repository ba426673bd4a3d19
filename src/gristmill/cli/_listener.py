"""What a run shows while it works: a line for each stage, and a bar for training, on stderr."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.artifact import Artifact
    from gristmill.train.trainer import Hook, Progress

__all__ = ["Console"]

LINE_SECONDS = 15.0
"""Without a terminal, a line about training is printed this often."""


class Console:
    """Shows a run on stderr; a `gristmill.pipeline.Listener`. A context manager: it owns the bar."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            transient=True,
        )
        self._task: Any = None
        self._began = 0.0
        self._said_at = 0.0
        self._validation = ""

    def __enter__(self) -> "Console":
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def stage(self, name: str, path: Path) -> None:
        """A stage begins."""
        self._began = time.monotonic()
        self._drop()

    def done(self, name: str, artifact: "Artifact", *, again: bool) -> None:
        """A stage is finished."""
        self._drop()
        spent = f"{time.monotonic() - self._began:.1f} s" if again else "unchanged"
        self._console.print(f"[bold]{name:<11}[/] {_summary(name, artifact)}  [dim]{spent}[/]")

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Something goes forward."""
        share = f"{100 * done / total:.0f} %" if total else (f"{done:,}" if done else "")
        self._show(what, done, total, share)

    def say(self, message: str) -> None:
        """Something that the user should know."""
        from rich.markup import escape

        self._console.print(f"[dim]{'':<11} {escape(message)}[/]")

    def hooks(self) -> "tuple[Hook, ...]":
        """What is called after every training step."""
        return (self._training,)

    def _training(self, progress: "Progress") -> None:
        p = progress
        if p.validation is not None:
            v = p.validation
            self._validation = f"valid {v.nats_per_token:.3f} nats/token, {v.bits_per_byte:.3f} bits/byte"
        text = (
            f"step {p.step:,}/{p.steps:,}  loss {p.loss_nats:.3f}  {p.tokens_per_second:,.0f} tokens/s  "
            f"{100 * p.utilisation:.0f} % of peak  {_duration(p.remaining_seconds)} left"
        )
        if self._console.is_terminal:
            self._show("train", p.step, p.steps, text)
            if p.validation is not None:
                self._console.print(f"[dim]{'':<11} step {p.step:,}: {self._validation}[/]")
        elif p.validation is not None or time.monotonic() - self._said_at > LINE_SECONDS:
            self._said_at = time.monotonic()
            self._console.print(
                f"{'':<11} {text}" + (f"  {self._validation}" if p.validation is not None else "")
            )

    def _show(self, what: str, done: int, total: int | None, text: str) -> None:
        if not self._console.is_terminal:
            return
        if self._task is None:
            self._task = self._bars.add_task(what, total=total, text=text)
        self._bars.update(self._task, description=what, completed=done, total=total, text=text)

    def _drop(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


def _summary(name: str, artifact: "Artifact") -> str:
    m = artifact.manifest.metrics
    try:
        return _SUMMARIES[name](m) if name in _SUMMARIES else str(artifact.path)
    except (KeyError, TypeError):
        return str(artifact.path)


def _corpus(m: dict[str, Any]) -> str:
    dropped = sum(entry["documents"] for entry in m["dropped"].values())
    languages = ", ".join(m["languages"])
    tail = f", {dropped:,} dropped" if dropped else ""
    return f"{m['documents']:,} documents, {m['text_bytes'] / 1e6:.2f} MB ({languages}){tail}"


def _tokenizer(m: dict[str, Any]) -> str:
    each = ", ".join(f"{name} {entry['bytes_per_token']:.2f}" for name, entry in m["languages"].items())
    return f"{m['vocab_size']:,} tokens; bytes per token: {each}"


def _shards(m: dict[str, Any]) -> str:
    return ", ".join(f"{name} {entry['tokens']:,} tokens" for name, entry in m["splits"].items())


def _model(m: dict[str, Any]) -> str:
    return (
        f"{m['parameters']['total'] / 1e6:.1f}M parameters, {m['steps']:,} steps, {m['epochs']:.1f} epochs, "
        f"{m['tokens_per_second']:,.0f} tokens/s ({100 * m['utilisation']:.0f} % of peak, {m['precision']['compute']})"
    )


def _evaluation(m: dict[str, Any]) -> str:
    overall = m["overall"]
    interval = overall["bits_per_byte_interval"]
    between = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{overall['bits_per_byte']:.3f} bits per byte{between}, {overall['nats_per_token']:.3f} nats per token"


_SUMMARIES = {
    "corpus": _corpus, "tokenizer": _tokenizer, "shards": _shards, "model": _model, "evaluation": _evaluation,
}  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
