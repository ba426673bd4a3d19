"""Decoding with a state instead of a cache: what a recurrent model has read is as large after a book as after a word."""

import dataclasses
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gristmill.batch import Visibility
from gristmill.generate.decoding import Decoder, State
from gristmill.model.recurrence import find_runs
from gristmill.model.recurrent import Recurrent, States
from gristmill.model.visibility import segment_spans

__all__ = ["RecurrentDecoder", "RecurrentState"]


@final
@dataclasses.dataclass(frozen=True, slots=True)
class RecurrentState(State):
    """What each layer carries for each sequence."""

    layers: States
    lengths: tuple[int, ...]

    def keep_rows(self, rows: Sequence[int]) -> "RecurrentState":
        """Returns the state of some of the sequences."""
        index = torch.tensor(rows, device=self.layers[0][0].device)
        layers = tuple(tuple(part[index] for part in layer) for layer in self.layers)
        return RecurrentState(layers, tuple(self.lengths[row] for row in rows))


@final
@dataclasses.dataclass(frozen=True, slots=True)
class RecurrentDecoder(Decoder):
    """A recurrent model; nothing has to be prepared."""

    model: Recurrent

    @property
    def window(self) -> None:
        """It sees, as far as its state holds it, all that it has read."""
        return None

    def prefill(
        self, sequences: Sequence[Sequence[int]], *, room_tokens: int
    ) -> tuple[Float[Tensor, "B V"], RecurrentState]:
        """Returns the scores of what comes after each sequence, and the layers' state there."""
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        B, T = len(sequences), int(lengths.max())
        device = self.model.embedding.weight.device
        tokens = torch.zeros(B, T, dtype=torch.long, device=device)
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = torch.tensor(sequence, device=device)
        segments = (torch.arange(T) < lengths[:, None]).long().to(device)
        runs = find_runs(segment_spans(segments, Visibility.CAUSAL)[0])
        hidden, states = self.model.read(tokens, runs)
        # which run is a row's own: the one that begins where the row does
        own = torch.zeros(B * T, dtype=torch.long, device=device)
        own[runs.first] = torch.arange(len(runs.first), device=device)
        chosen = own[torch.arange(B, device=device) * T]
        layers = tuple(tuple(part[chosen] for part in layer) for layer in states)
        logits = self.model.logits(hidden[torch.arange(B, device=device), lengths.to(device) - 1])
        return logits, RecurrentState(layers, tuple(lengths.tolist()))

    def decode_one_token(
        self, state: State, tokens: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B V"], RecurrentState]:
        """Returns the scores of what comes after one more token of each sequence, and the state then."""
        assert isinstance(state, RecurrentState)
        hidden, layers = self.model.step(tokens, state.layers)
        return self.model.logits(hidden), RecurrentState(layers, tuple(n + 1 for n in state.lengths))
