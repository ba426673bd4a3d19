"""What can go wrong, and what to do about it.

    GristmillError            every error that this package raises on purpose; has .message and .hint
    ├── InputError            the recipe, a file or an option is wrong; exit status 2
    │   └── CorruptArtifact   an artifact's bytes are not those that its manifest names
    └── RunError              the input was right, the run failed; exit status 1

A message says what was found and what was expected; the hint says the next step.
"""

import difflib
from collections.abc import Iterable

__all__ = ["CorruptArtifact", "GristmillError", "InputError", "RunError", "did_you_mean"]


class GristmillError(Exception):
    """An error with a message (what was found, what was expected) and a hint (the next step)."""

    exit_status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\nhint: {hint}")
        self.message = message
        self.hint = hint


class InputError(GristmillError):
    """The recipe, a file or an option is wrong: found before work starts wherever that is possible."""

    exit_status = 2


class CorruptArtifact(InputError):  # noqa: N818 - a state of a file; the tree above reads as nouns
    """A file in an artifact is missing, truncated or changed: its hash is not the manifest's."""


class RunError(GristmillError):
    """The input was right, but the run failed (a loss that is not finite, a full disk)."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a hint that names the nearest of `known`, or lists them all when none is near."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return "known: " + ", ".join(choices) if choices else "there are none"
