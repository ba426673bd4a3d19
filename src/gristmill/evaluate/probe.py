"""A fine-tuned probe: how well a small labelled set is learned from what pretraining left.

A linear head on the mean of the hidden states tells the class, and all weights are trained with it (Devlin et al.
2019, section 3.2). The model is read as `visibility_for` says: causally, unless it saw whole texts in training; of an
encoder-decoder the encoder is used alone. A copy is trained, never the model that is given.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, final

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float, Int
from torch import Tensor, nn

from gristmill import rng
from gristmill.augment import selftraining
from gristmill.batch import Visibility
from gristmill.errors import InputError
from gristmill.evaluate.embed import padded, pooled, read
from gristmill.evaluate.minimal_pairs import json_lines
from gristmill.evaluate.scoring import BATCH_TOKENS, batches_by_length
from gristmill.metrics.intervals import wilson_interval
from gristmill.model.base import Model
from gristmill.model.build import make_model
from gristmill.objectives.base import Objective
from gristmill.objectives.trained import visibility_for
from gristmill.tokenizer import Tokenizer
from gristmill.tokenizer.framing import Frame, frame
from gristmill.train.schedule import Plan
from gristmill.vocabulary import Vocabulary

__all__ = [
    "Example",
    "FittedProbe",
    "Labelled",
    "ProbeFit",
    "ProbeSettings",
    "encode",
    "fit_probe",
    "probe",
    "probe_figures",
    "probe_labelled",
    "read_examples",
]

Positive = Annotated[int, Gt(0)]
Share = Annotated[float, Interval(ge=0, le=1)]

BATCHES_SORTED = 16
"""So many batches are drawn at a time and sorted by length: what is near in length is together, and order random."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """A probe task: its files, and how the model is fine-tuned on them."""

    train: str
    """A file of JSON lines with `text` and `label`; `.gz` is read too."""
    test: str
    """Likewise; nothing is chosen by it."""
    limit: Positive | None = 2000
    """The most training examples, drawn at random but the same for every model and seed."""
    epochs: Positive = 4
    """Passes over the training examples."""
    learning_rate: Annotated[float, Gt(0)] = 0.0005
    """The highest; it rises for a tenth of the steps and then falls to 0."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """Of AdamW, on matrices and embeddings."""
    batch_examples: Positive = 32
    """Examples in a step."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Share of what is added to the residual stream that is dropped while fine-tuning."""
    maximum_tokens: Annotated[int, Ge(8)] = 128
    """Longer texts are cut at their end."""

    def __post_init__(self) -> None:
        for name in (self.train, self.test):
            if not Path(name).is_file():
                raise InputError(
                    f"there is no file of labelled texts {name}", "a path begins where the command runs"
                )


WARMUP, GRADIENT_CLIP = 0.1, 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A text and the class that it is of."""

    text: str
    label: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Texts as tokens, without special tokens, and the class of each."""

    tokens: Sequence[Sequence[int]]
    labels: Sequence[str]


def probe(
    model: Model,
    tokenizer: Tokenizer,
    settings: ProbeSettings,
    *,
    objective: Objective | None = None,
    seed: int,
) -> dict[str, Any]:
    """Returns how well a copy of the model tells the classes of a task after fine-tuning: see `probe_labelled`.

    Args:
        model: any kind.
        tokenizer: its tokenizer.
        settings: the task's files, and how to fine-tune.
        objective: what the model was trained with, which says how it may read; None for weights from elsewhere.
        seed: of the head, the order of the examples, and dropout.

    Raises:
        InputError: a file is not there or has no labelled texts.
    """
    train = read_examples(Path(settings.train))
    if settings.limit is not None and settings.limit < len(train):
        # files are often sorted by class
        chosen = rng.stream(0, "probe examples").permutation(len(train))[: settings.limit]
        train = [train[i] for i in sorted(chosen.tolist())]
    return probe_labelled(
        model,
        tokenizer.vocabulary(),
        settings,
        encode(tokenizer, train),
        encode(tokenizer, read_examples(Path(settings.test))),
        seed=seed,
        visibility=visibility_for(objective, model.config),
    )


def read_examples(path: Path) -> list[Example]:
    """Returns the labelled texts of a file.

    Raises:
        InputError: there is no such file, or a line of it has no text and label.
    """
    examples = []
    for where, row in json_lines(path):
        text, label = row.get("text"), row.get("label")
        if not isinstance(text, str) or not isinstance(label, str | int):
            raise InputError(
                f'{where} has no "text" with a "label"; it has {", ".join(sorted(row)) or "nothing"}',
                'each line should be like {"text": "I liked it.", "label": "positive"}',
            )
        if text.strip():
            examples.append(Example(text=text, label=str(label)))
    if not examples:
        raise InputError(f"{path} holds no labelled texts")
    return examples


def encode(tokenizer: Tokenizer, examples: Sequence[Example]) -> Labelled:
    """Returns the examples as tokens."""
    return Labelled(
        tokens=tokenizer.encode_batch([example.text for example in examples]),
        labels=[example.label for example in examples],
    )


def probe_labelled(
    model: Model,
    vocabulary: Vocabulary,
    settings: ProbeSettings,
    train: Labelled,
    test: Labelled,
    *,
    seed: int,
    visibility: Visibility | None = None,
) -> dict[str, Any]:
    """Returns the figures of `probe_figures` on the test set after fine-tuning on the training set.

    A function of its arguments alone: the head, the order of examples and dropout derive from the seed.

    Raises:
        InputError: there is nothing to learn from, or one class only.
    """
    fitted = fit_probe(model, vocabulary, settings, train, seed=seed, visibility=visibility)
    likeliest = fitted.probabilities(test.tokens)[0].argmax(axis=1)
    predicted = [fitted.classes[i] for i in likeliest.tolist()]
    return {
        **probe_figures(predicted, test.labels, majority=Counter(train.labels).most_common(1)[0][0]),
        "classes": len(fitted.classes),
        "chance": 1 / len(fitted.classes),
        "train_examples": len(train.tokens),
        "train_examples_cut": fitted.cut,
    }


@final
class FittedProbe:
    """A fine-tuned copy of a model that tells classes."""

    def __init__(
        self,
        classifier: "_Classifier",
        classes: Sequence[str],
        edges: Frame,
        settings: ProbeSettings,
        cut: int,
    ) -> None:
        """Takes what `fit_probe` has trained, and how many of its texts were longer than it reads."""
        self.classes, self.cut = tuple(classes), cut
        self._classifier, self._edges, self._settings = classifier, edges, settings

    def probabilities(
        self, texts: Sequence[Sequence[int]], passes: int = 1
    ) -> Float[np.ndarray, "passes N classes"]:
        """Returns the softmax of its scores for texts as tokens; surer than it is right, as fine-tuned models are.

        Several passes are with dropout, each with another (Gal and Ghahramani 2016, arXiv:1506.02142); one is without.
        """
        cut, _ = _cut(texts, self._settings, self._classifier.model, self._edges)
        scores = np.stack(
            [_scores(self._classifier, cut, self._edges, None if passes == 1 else n) for n in range(passes)]
        )
        raised = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares: Float[np.ndarray, "passes N classes"] = raised / raised.sum(axis=2, keepdims=True)
        return shares


def fit_probe(
    model: Model,
    vocabulary: Vocabulary,
    settings: ProbeSettings,
    train: Labelled,
    *,
    seed: int,
    visibility: Visibility | None = None,
) -> FittedProbe:
    """Returns a copy of a model, fine-tuned on labelled texts: a function of its arguments alone.

    Raises:
        InputError: there is nothing to learn from, or one class only.
    """
    classes = sorted(set(train.labels))
    if len(classes) < 2:
        raise InputError(
            f"the training examples have {len(classes)} class, so there is nothing to tell apart"
        )
    visibility = visibility or visibility_for(None, model.config)
    classifier = _Classifier(model, len(classes), visibility, settings.dropout, seed)
    edges = frame(vocabulary.special, model.config.kind)
    texts, cut = _cut(train.tokens, settings, model, edges)
    numbers = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([numbers[label] for label in train.labels])
    _fine_tune(classifier, texts, labels, edges, settings, seed)
    return FittedProbe(classifier, classes, edges, settings, cut)


@final
class ProbeFit:
    """Fine-tunes copies of a model on texts with labels, as self-training asks for (`augment.selftraining.Fit`)."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        settings: ProbeSettings,
        *,
        objective: Objective | None = None,
    ) -> None:
        """Takes a model and how to fine-tune it; the files in the settings are not read."""
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._visibility = visibility_for(objective, model.config)

    def __call__(self, examples: Sequence[selftraining.Example], seed: int) -> selftraining.Predictor:
        """Returns a predictor of the examples' classes."""
        train = encode(self._tokenizer, [Example(text=e.text, label=e.label) for e in examples])
        vocabulary = self._tokenizer.vocabulary()
        fitted = fit_probe(
            self._model, vocabulary, self._settings, train, seed=seed, visibility=self._visibility
        )
        return _TextPredictor(fitted, self._tokenizer)


@final
class _TextPredictor:
    """A fitted probe that is given texts."""

    def __init__(self, fitted: FittedProbe, tokenizer: Tokenizer) -> None:
        self._fitted, self._tokenizer = fitted, tokenizer

    @property
    def classes(self) -> tuple[str, ...]:
        return self._fitted.classes

    def probabilities(self, texts: Sequence[str], passes: int = 1) -> Float[np.ndarray, "passes N classes"]:
        return self._fitted.probabilities(self._tokenizer.encode_batch(list(texts)), passes)


def probe_figures(predicted: Sequence[str], truth: Sequence[str], *, majority: str) -> dict[str, Any]:
    """Returns accuracy with its interval (Wilson), macro F1, and what a constant answer gets, as JSON values.

    Macro F1 is the mean over the classes that occur in the truth or among the predictions of 2 tp / (2 tp + fp + fn).
    `most_predicted` is the share of the class that is predicted most: near 1, nothing was learned whatever the
    accuracy is.

    Args:
        predicted: a class for each example.
        truth: the right one.
        majority: the class of most training examples, which the `majority` baseline always answers.
    """
    right = sum(p == t for p, t in zip(predicted, truth, strict=True))
    f1 = []
    for name in sorted({*predicted, *truth}):
        both = sum(p == t == name for p, t in zip(predicted, truth, strict=True))
        f1.append(2 * both / (predicted.count(name) + truth.count(name)))
    return {
        "accuracy": right / len(truth),
        "interval": list(wilson_interval(right, len(truth))),
        "macro_f1": math.fsum(f1) / len(f1),
        "majority": sum(t == majority for t in truth) / len(truth),
        "most_predicted": Counter(predicted).most_common(1)[0][1] / len(truth),
        "test_examples": len(truth),
    }


# --- fine-tuning ------------------------------------------------------------------------------------------------------


@final
class _Classifier(nn.Module):
    """A copy of a model, and a linear head on the mean of its hidden states."""

    def __init__(self, model: Model, classes: int, visibility: Visibility, dropout: float, seed: int) -> None:
        super().__init__()
        self.visibility = visibility
        self.model = make_model(model.config, dropout=dropout)
        self.model.load_state_dict(model.state_dict())
        self.head = nn.Linear(model.config.width, classes)
        generator = torch.Generator().manual_seed(rng.derive(seed, "probe head"))
        with torch.no_grad():
            self.head.weight.normal_(0.0, 0.02, generator=generator)
            self.head.bias.zero_()
        for name, parameter in self.model.named_parameters():
            # gradients of n-gram tables are sparse, and what is in them was learned from far more text
            parameter.requires_grad_(not name.startswith("ngrams"))
        self.to(next(model.parameters()).device)

    def forward(
        self, tokens: Int[Tensor, "B T"], segments: Int[Tensor, "B T"], dropout_seed: int = 0
    ) -> Float[Tensor, "B classes"]:
        """Returns the scores of the classes."""
        hidden = read(self.model, tokens, segments, self.visibility, dropout_seed)
        scores: Tensor = self.head(pooled(hidden, segments, "mean", self.visibility))
        return scores


def _fine_tune(
    classifier: _Classifier,
    texts: Sequence[Sequence[int]],
    labels: Int[Tensor, " N"],
    edges: Frame,
    settings: ProbeSettings,
    seed: int,
) -> None:
    parameters = [p for p in classifier.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
    device = classifier.head.weight.device
    steps = settings.epochs * -(-len(texts) // settings.batch_examples)
    plan = Plan.trapezoid(steps, warmup=WARMUP, cooldown=1 - WARMUP, final=0.0)
    lengths = np.array([len(text) for text in texts])
    classifier.train()
    step = 0
    for epoch in range(settings.epochs):
        for chosen in _batches(lengths, settings.batch_examples, rng.stream(seed, "probe order", epoch)):
            tokens, segments = (x.to(device) for x in padded([texts[i] for i in chosen], edges))
            scores = classifier(tokens, segments, rng.derive(seed, "probe dropout", step))
            loss = F.cross_entropy(scores, labels[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * plan.scale(step)
            optimizer.step()
            step += 1


def _batches(
    lengths: Int[np.ndarray, " N"], size: int, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, " batch"]]:
    """Draws each example once, in batches of examples that are of nearly one length, in random order."""
    order = generator.permutation(len(lengths))
    batches = []
    for first in range(0, len(order), size * BATCHES_SORTED):
        drawn = order[first : first + size * BATCHES_SORTED]
        drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
        batches += [drawn[i : i + size] for i in range(0, len(drawn), size)]
    for i in generator.permutation(len(batches)).tolist():
        yield batches[i]


@torch.no_grad()
def _scores(
    classifier: _Classifier, texts: Sequence[Sequence[int]], edges: Frame, dropout_pass: int | None
) -> Float[np.ndarray, "N classes"]:
    """The scores of the classes for each text, with dropout where a pass is named."""
    classifier.train(dropout_pass is not None)
    device = classifier.head.weight.device
    lengths = np.array([len(text) for text in texts], dtype=np.int64) + edges.size
    order = np.argsort(lengths, kind="stable")
    scores = np.empty((len(texts), classifier.head.out_features), dtype=np.float32)
    for number, rows in enumerate(batches_by_length(lengths[order], BATCH_TOKENS)):
        tokens, segments = (x.to(device) for x in padded([texts[i] for i in order[rows]], edges))
        seed = 0 if dropout_pass is None else rng.derive(dropout_pass, "probe vote", number)
        scores[order[rows]] = classifier(tokens, segments, seed).cpu().numpy()
    classifier.eval()
    return scores


def _cut(
    texts: Sequence[Sequence[int]], settings: ProbeSettings, model: Model, edges: Frame
) -> tuple[list[Sequence[int]], int]:
    """The texts at the length that the settings and the model allow, and how many were longer."""
    most = settings.maximum_tokens
    if model.config.core == "transformer":
        most = min(most, model.config.maximum_positions - edges.size)
    return [text[:most] for text in texts], sum(len(text) > most for text in texts)
