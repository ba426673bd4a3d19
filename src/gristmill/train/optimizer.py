"""Updating weights: float32 masters, and a rule for each kind of parameter.

    matrices of the blocks        Muon (Jordan 2024, kellerjordan.github.io/posts/muon) or AdamW
    embeddings, gains, biases     AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101)
    tables of n-grams             Adagrad on the rows that a step touched (Duchi et al. 2011)

All state is in named tensors, so that a checkpoint holds it and a resumed run goes on to the same bytes.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from gristmill.model.base import Model
from gristmill.train.native import PARTS, kernels

__all__ = [
    "AdamRule",
    "MuonRule",
    "Optimizer",
    "OptimizerSettings",
    "RowRule",
    "Rule",
    "norm_of",
    "orthogonalise",
    "shrunk",
]


class Rule(abc.ABC):
    """Abstract. Turns gradients into updates of the masters of the parameters it was given."""

    state: dict[str, Tensor]

    @abc.abstractmethod
    def step(self, gradients: Mapping[str, Tensor], scale: float, step: int, shrink: float = 1.0) -> None:
        """Updates the masters in place; `scale` multiplies the learning rate, `shrink` gradients, `step` counts from 1."""


class OptimizerSettings(abc.ABC):
    """Abstract. The settings of an optimizer, which builds the rules for a model's parameters."""

    @abc.abstractmethod
    def rules(
        self, masters: Mapping[str, Tensor], *, width: int, fused: Mapping[str, Sequence[int]]
    ) -> list[Rule]:
        """Returns the rules that together cover every master.

        Args:
            masters: float32, by the parameters' names.
            width: of the residual stream; learning rates may follow it.
            fused: rows of each matrix in the parameters that hold several, one below the other.
        """


@final
class Optimizer:
    """The masters of a model's parameters, and the rules that update them.

    A parameter that is already float32 is its own master; a bfloat16 one is a copy, refreshed after each step.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], rules: Callable[[Mapping[str, Tensor]], list[Rule]]
    ) -> None:
        """Takes the parameters by name, and what makes rules for their masters."""
        self.parameters = dict(parameters)
        self.masters = {
            name: p.detach() if p.dtype == torch.float32 else p.detach().float()
            for name, p in self.parameters.items()
        }
        self.rules = rules(self.masters)
        self.steps = 0

    @classmethod
    def of(cls, model: Model, settings: OptimizerSettings) -> "Optimizer":
        """Returns the optimizer of all of a model's parameters."""
        return cls(
            dict(model.named_parameters()),
            lambda masters: settings.rules(masters, width=model.config.width, fused=model.fused_matrices()),
        )

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], scale: float, shrink: float = 1.0) -> None:
        """Makes one step with the learning rate and the gradients multiplied."""
        self.steps += 1
        for rule in self.rules:
            rule.step(gradients, scale, self.steps, shrink)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the masters into the parameters that are stored narrower."""
        narrow = [(p, self.masters[name]) for name, p in self.parameters.items() if p.dtype != torch.float32]
        if narrow:
            torch._foreach_copy_([p for p, _ in narrow], [m for _, m in narrow])

    def state(self) -> dict[str, Tensor]:
        """Returns every tensor that a checkpoint needs, by name."""
        tensors = {f"master.{name}": master for name, master in self.masters.items()}
        for i, rule in enumerate(self.rules):
            tensors |= {f"rule{i}.{name}": tensor for name, tensor in rule.state.items()}
        return tensors

    @torch.no_grad()
    def load_masters(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over weights by name; the rules' state stays as it is."""
        for name, master in self.masters.items():
            master.copy_(tensors[name])
        self.refresh()

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Takes over what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])
        self.steps = steps
        self.refresh()


@final
class AdamRule(Rule):
    """AdamW with decoupled weight decay on the names that ask for it."""

    def __init__(
        self,
        masters: Mapping[str, Tensor],
        *,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        begins_after: int = 0,
    ) -> None:
        """Takes the masters, and after how many steps of the optimizer they begin to be updated."""
        self.masters = dict(masters)
        self.learning_rate = learning_rate
        self.begins_after = begins_after
        self.state = {
            f"{kind}.{n}": torch.zeros_like(m) for n, m in masters.items() for kind in ("mean", "square")
        }
        self.betas, self.epsilon = betas, 1e-10
        # gains and biases are not decayed
        self.decay = {n: weight_decay if m.dim() > 1 else 0.0 for n, m in masters.items()}

    def step(self, gradients: Mapping[str, Tensor], scale: float, step: int, shrink: float = 1.0) -> None:
        """Updates every master."""
        step -= self.begins_after
        if step < 1:
            return
        rate = self.learning_rate * scale
        size = rate / (1 - self.betas[0] ** step)
        root = (1 - self.betas[1] ** step) ** -0.5
        native = kernels()
        for n, master in self.masters.items():
            gradient, mean, square = gradients[n], self.state[f"mean.{n}"], self.state[f"square.{n}"]
            numbers = (shrink, 1 - rate * self.decay[n], size, root, *self.betas, self.epsilon)
            if (
                native is not None
                and master.device.type == "cpu"
                and gradient.dtype in (torch.bfloat16, torch.float32)
                and master.is_contiguous()
            ):
                native.typed(
                    "adam", gradient.contiguous(), master, mean, square, master.numel(), *map(float, numbers)
                )
            else:
                plain_adam(gradient, master, mean, square, *numbers)


def plain_adam(  # noqa: PLR0913 - the arguments of the compiled function
    gradient: Tensor, master: Tensor, mean: Tensor, square: Tensor, shrink: float, keep: float, size: float, root: float,
    beta1: float, beta2: float, epsilon: float,
) -> None:  # fmt: skip
    """Updates a master and the running means of its gradient and of the gradient's square, in place.

    Args:
        gradient: as wide as the master, of any floating type.
        master: float32.
        mean: of gradients.
        square: mean of their squares.
        shrink: multiplies the gradient.
        keep: multiplies the master first: decoupled weight decay.
        size: the learning rate, divided by what `mean` lacks for its start from zero.
        root: multiplies the square root of `square`, for the same reason.
        beta1: how much of `mean` is kept.
        beta2: how much of `square` is kept.
        epsilon: added to the root.
    """
    g = gradient.float() * shrink
    mean.mul_(beta1).add_(g, alpha=1 - beta1)
    square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    master.mul_(keep).addcdiv_(mean, square.sqrt().mul_(root).add_(epsilon), value=-size)


def norm_of(gradients: Mapping[str, Tensor]) -> float:
    """Returns the Euclidean norm of all gradients together; of sparse ones the values count that are there."""
    native, total = kernels(), 0.0
    sums = torch.empty(PARTS, dtype=torch.float64)
    others = []
    for gradient in gradients.values():
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        if (
            native is not None
            and values.device.type == "cpu"
            and values.dtype in (torch.bfloat16, torch.float32)
        ):
            native.typed("squares", values.contiguous(), sums, values.numel())
            total += float(sums.sum())
        else:
            others.append(torch.linalg.vector_norm(values.float()))
    if others:
        total += float(torch.stack([each.to(others[0].device) for each in others]).square().sum())
    return math.sqrt(total) if total >= 0 else math.nan


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """A matrix inside a master: queries, keys and values are one tensor but three matrices."""

    name: str
    first: int
    last: int
    transposed: bool

    def of(self, tensor: Tensor) -> Tensor:
        piece = tensor[self.first : self.last]
        return piece.T if self.transposed else piece


@final
class MuonRule(Rule):
    """Momentum whose direction is made orthogonal: every singular value of an update is about 1.

    Matrices of one shape are worked on together. Wide ones are transposed, so that the products of the iteration are
    on the smaller side.
    """

    def __init__(
        self,
        masters: Mapping[str, Tensor],
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        iterations: int,
        fused: Mapping[str, Sequence[int]],
    ) -> None:
        self.masters = dict(masters)
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.iterations = iterations
        self.groups: dict[str, list[_Piece]] = {}
        for name, master in masters.items():
            at = 0
            for rows in fused.get(name, [len(master)]):
                transposed = rows < master.shape[1]
                shape = (master.shape[1], rows) if transposed else (rows, master.shape[1])
                self.groups.setdefault("x".join(map(str, shape)), []).append(
                    _Piece(name, at, at + rows, transposed)
                )
                at += rows
        self.state = {
            f"momentum.{shape}": torch.stack(
                [torch.zeros_like(p.of(self.masters[p.name])) for p in pieces]
            ).contiguous()
            for shape, pieces in self.groups.items()
        }

    def step(self, gradients: Mapping[str, Tensor], scale: float, step: int, shrink: float = 1.0) -> None:
        """Updates every matrix."""
        rate = self.learning_rate * scale
        momentum = min(
            self.momentum, 0.85 + (self.momentum - 0.85) * step / 300
        )  # Jordan's warm-up of the momentum
        for shape, pieces in self.groups.items():
            g = torch.stack([p.of(gradients[p.name]) for p in pieces]).float().mul_(shrink)
            buffer = self.state[f"momentum.{shape}"]
            buffer.lerp_(g, 1 - momentum)
            g.lerp_(buffer, momentum)  # Nesterov
            update = orthogonalise(g, self.iterations)
            for piece, direction in zip(pieces, update, strict=True):
                matrix = piece.of(self.masters[piece.name])
                matrix.mul_(1 - rate * self.weight_decay)
                rows, columns = (matrix.shape[1], matrix.shape[0]) if piece.transposed else matrix.shape
                # the root keeps the size of what the matrix adds to its output the same for all shapes
                matrix.add_(direction, alpha=-rate * max(1.0, rows / columns) ** 0.5)


@final
class RowRule(Rule):
    """Adagrad on the rows of a table that a step touched; the others cost nothing."""

    def __init__(self, masters: Mapping[str, Tensor], *, learning_rate: float) -> None:
        self.masters = dict(masters)
        self.learning_rate = learning_rate
        self.state = {f"square.{name}": torch.zeros_like(master) for name, master in masters.items()}

    def step(self, gradients: Mapping[str, Tensor], scale: float, step: int, shrink: float = 1.0) -> None:
        """Updates the touched rows of every table."""
        for name, master in self.masters.items():
            gradient = gradients[name].coalesce()
            rows, squares = gradient.indices()[0], self.state[f"square.{name}"]
            values = gradient.values() * shrink
            total = squares[rows].addcmul_(values, values)
            squares[rows] = total
            master[rows] = master[rows].addcdiv_(
                values, total.sqrt_().add_(1e-10), value=-self.learning_rate * scale
            )


def shrunk(norm: float, largest: float) -> float:
    """Returns what gradients of a norm are multiplied with so that it is at most `largest` (0: no limit)."""
    return largest / norm if largest and norm > largest else 1.0


# Coefficients of the quintic iterations of the Polar Express (Amsel et al. 2025, arXiv:2505.16932, section 3)
_POLAR = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)


def orthogonalise(g: Tensor, iterations: int) -> Tensor:
    """Returns U V^T of each matrix U S V^T in a stack (N, rows, columns), approximately: singular values near 1.

    Rows must be at least as many as columns. Works in bfloat16: the iteration corrects its own rounding.
    """
    x = g.bfloat16()
    x = x / (torch.linalg.vector_norm(x.float(), dim=(-2, -1), keepdim=True) * 1.01 + 1e-7).bfloat16()
    for i, (a, b, c) in enumerate(_POLAR[:iterations]):
        if (
            i < iterations - 1
        ):  # the paper's safety against rounding: singular values just above 1 would diverge
            a, b, c = a / 1.01, b / 1.01**3, c / 1.01**5
        s = torch.bmm(x.mT, x)
        s = torch.baddbmm(s, s, s, beta=b, alpha=c)
        x = torch.baddbmm(x, x, s, beta=a)
    return x
