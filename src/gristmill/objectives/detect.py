"""Tell which tokens a small masked language model has replaced (Clark et al. 2020, ELECTRA, arXiv:2003.10555).

A generator proposes tokens for masked places; the model, which is kept, tells for every token whether it is the
original. So it learns from all positions and not from the masked ones alone:

    tokens     <cls> the  <mask>  cooked  the  <mask>  <sep>        what the generator reads
    targets    <cls> the   chef   cooked  the   meal   <sep>        what it should say where the weight is 1
    weights    0     0     1      0       0     1      0
    replaced   <cls> the   chef   cooked  the   day    <sep>        what it said, and the model reads
    told       0     0     0      0       0     1      0            what the model should say: only "day" is new

Generator and model share their embeddings and, since the paper's generator has the output of a masked language model,
its layer before the output matrix (`ModelConfig.head`) too belongs to the generator here: the model's own output is
the detector. The generator is as wide as the model and has fewer layers, as in DeBERTaV3 (He et al. 2021,
arXiv:2111.09543); ELECTRA's is as deep and narrower.
"""

import dataclasses
import math
from typing import Annotated, ClassVar, final

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float, Int
from torch import Tensor

from gristmill import plugins
from gristmill.batch import Batch, Loss, Visibility
from gristmill.errors import InputError
from gristmill.model import ops
from gristmill.model.base import Model
from gristmill.model.config import Kind, ModelConfig
from gristmill.model.family import Family
from gristmill.model.transformer import Transformer
from gristmill.model.visibility import segment_positions, segment_spans
from gristmill.objectives.base import HowHidden, Rate, Scores, hidden_states
from gristmill.objectives.choosing import Masking, MaskingObjective, Share, framed, maskable
from gristmill.rows import Rows

__all__ = ["Detect", "ForGenerator"]

SAMPLING = 0x9E3779B9
"""Tells the seed of what the generator says from that of dropout."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ForGenerator(Masking):
    """What a generator has to replace: settings that a recipe leaves out are the paper's."""

    rate: Rate = 0.15
    """Share of the tokens that the generator says anew; two or more numbers are gone through in the training."""
    mask_share: Share = 1.0
    """Of these, the share that the mask token stands for: all of them in the paper."""
    random_share: Share = 0.0
    """Of these, the share that a random token stands for."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Detect(MaskingObjective):
    """Replaced-token detection, with its generator trained beside."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"encoder"})
    family: ClassVar[str] = "bert"
    # the better the generator, the harder to tell what it has replaced
    comparable_over_time: ClassVar[bool] = False
    hidden: ClassVar[HowHidden] = "by generator"

    masking: ForGenerator = dataclasses.field(default_factory=ForGenerator)
    """What the generator has to replace; by default 0.15 of the tokens, which are all masked, as in the paper."""
    generator_depth: Annotated[float, Gt(0), Interval(ge=0, le=1)] = 0.5
    """Layers of the generator as a share of the model's, rounded up; a half as in DeBERTaV3. One that is as good as
    the model leaves it too hard a task (section 3.2 of the paper)."""
    detection_weight: Annotated[float, Ge(0)] = 50.0
    """What a nat of detection counts beside a nat of the generator: there are far fewer to be had (section 3.1)."""

    def prepare(self, rows: Rows, rng: np.random.Generator, progress: float = 0.0) -> Batch:
        """Returns the batch that the generator reads; what it is to say are the originals."""
        segments, vocabulary = rows.segments.astype(np.int64), rows.words
        tokens = framed(rows.tokens.astype(np.int64), segments, vocabulary)
        eligible, real = maskable(tokens, segments, vocabulary), segments != 0
        masked, chosen = self.masking.mask(tokens, segments, eligible, vocabulary, rng, progress)
        return Batch(
            tokens=torch.from_numpy(masked),
            targets=torch.from_numpy(tokens),
            weights=torch.from_numpy(chosen).float(),
            segments=torch.from_numpy(segments),
            visibility=Visibility.FULL,
            # the mean over all tokens beside the mean over the masked ones, also in a part of this batch
            detection_weights=torch.from_numpy(real * (chosen.sum() / max(1, real.sum()))).float(),
        )

    def loss(self, model: Model, batch: Batch, dropout_seed: int = 0) -> Loss:
        """Returns the generator's nats and the detector's, so that their means add up: generator + weight * detector.

        What the generator says is drawn by `dropout_seed`; no gradient goes through it.
        """
        assert batch.detection_weights is not None
        replaced, generated, masked = _replace(model, batch, dropout_seed)
        weights = batch.detection_weights.flatten()
        detected, _ = _detect(model, batch, replaced, weights, dropout_seed)
        return Loss(
            total_nats=generated + self.detection_weight * detected,
            weight=masked,
            parts={
                "generator": (generated.detach(), masked),
                "detector": (detected.detach(), weights.sum()),
            },
        )

    @torch.no_grad()
    def scores(self, model: Model, batch: Batch) -> Scores:
        """Returns the nats of telling whether each token was replaced."""
        replaced, _, _ = _replace(model, batch, 0)
        real = (batch.segments != 0).float()
        _, nats = _detect(model, batch, replaced, real.flatten(), 0)
        return Scores(nats.view(real.shape), real)

    def refine(self, config: ModelConfig) -> ModelConfig:
        """Returns the config with a generator and a detector.

        Raises:
            InputError: the family has no place for them.
        """
        family: Family = plugins.load("model.families", config.family)
        if not family.detection_head:
            raise InputError(
                f'objective "detect" needs a family with a head for replaced tokens, and "{config.family}" has none',
                f'set model.family = "{self.family}" (or leave it out)',
            )
        return dataclasses.replace(config, generator_layers=math.ceil(self.generator_depth * config.layers))


def _replace(
    model: Model, batch: Batch, dropout_seed: int
) -> tuple[Int[Tensor, "B T"], Float[Tensor, ""], Float[Tensor, ""]]:
    """The text with what the generator says in masked places, the nats that it pays, and how many places there are."""
    assert isinstance(model, Transformer)
    hidden = model.propose(
        batch.tokens,
        spans=segment_spans(batch.segments, batch.visibility),
        positions=segment_positions(batch.segments),
        dropout_seed=dropout_seed ^ SAMPLING,
    )
    weights = batch.weights.flatten()
    # a number of rows that is seldom new, as in the other objectives' losses
    size = min(len(weights), -(-int((weights != 0).sum()) // 256) * 256)
    chosen = torch.argsort(weights == 0, stable=True)[:size]
    originals, weights = batch.targets.flatten(), weights[chosen]
    states = model.to_output(hidden.flatten(0, 1)[chosen])
    total, _ = ops.cross_entropy(states, model.output_weight, originals[chosen], weights, model.output_bias)
    said = _said(model, states.detach(), dropout_seed ^ SAMPLING)
    replaced = originals.index_copy(0, chosen, torch.where(weights != 0, said, originals[chosen]))
    return replaced.view(batch.targets.shape), total, weights.sum()


@torch.no_grad()
def _said(model: Transformer, states: Float[Tensor, "N D"], seed: int) -> Int[Tensor, " N"]:
    """Tokens drawn from what the generator expects, without its scores in memory all at once."""
    generator = torch.Generator(states.device).manual_seed(seed)
    matrix = model.output_weight.to(states.dtype)
    bias = None if model.output_bias is None else model.output_bias.to(states.dtype)
    drawn = [
        torch.multinomial(F.linear(part, matrix, bias).float().softmax(-1), 1, generator=generator)[:, 0]
        for part in torch.split(states, max(1, ops.CHUNK_ELEMENTS // len(matrix)))
    ]
    return torch.cat(drawn)


def _detect(
    model: Model,
    batch: Batch,
    replaced: Int[Tensor, "B T"],
    weights: Float[Tensor, " N"],
    dropout_seed: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
    """The nats of telling which tokens are not the original ones, summed and one by one."""
    assert isinstance(model, Transformer)
    hidden = hidden_states(model, dataclasses.replace(batch, tokens=replaced), dropout_seed)
    return ops.binary_cross_entropy(
        model.detect(hidden).flatten(), (replaced != batch.targets).flatten(), weights
    )


EXPORT = Detect
