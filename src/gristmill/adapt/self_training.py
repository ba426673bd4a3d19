"""Self-training: a model labels what nobody has labelled, and another learns from what it is sure of.

    labelled examples -> teacher -> labels of the unlabelled rows -> the surest of each class
    base + labelled examples + these -> student, which is the next teacher

Each student begins with the base again, not with its teacher, so that what a teacher has got wrong is not where it begins (Du et al.
2021, arXiv:2010.02194), and it may learn under noise that the teacher did not have: dropout, `[augment]` (Xie et al. 2020,
arXiv:1911.04252: noisy student). The round that is best by the validation examples is kept; a worse one ends it.

What goes wrong for others is bounded: a label has to be sure, classes are taken from one by one, so that none swallows the others
(Zou et al. 2018, arXiv:1810.07911), texts that stand among the training examples keep the labels that people gave, and those of
validation and test are left out, so that nothing is learned of what is judged by.
"""

import dataclasses
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, final

from annotated_types import Gt, Interval

from gristmill.adapt.data import plain
from gristmill.adapt.tables import read_table
from gristmill.adapt.task import Task
from gristmill.artifact import write_json
from gristmill.errors import InputError

__all__ = ["Pool", "PseudoLabel", "SelfTraining", "chosen", "labels_of", "pool_of", "said_of"]

Positive = Annotated[int, Gt(0)]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTraining:
    """What is labelled by the model itself, and how much of that is believed."""

    unlabelled: str
    """Rows without labels: a file, a folder or a glob, as those of `data`. Labels that are there only tell how right it was."""
    rounds: Positive = 1
    """How often a student becomes a teacher."""
    threshold: Annotated[float, Interval(ge=0, le=1)] = 0.7
    """The least probability of a label that is learned from."""
    share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Of the rows that are told to be of a class, the share of the surest that are learned from."""
    per_class: Positive | None = None
    """No more of each class than these."""
    weight: Annotated[float, Gt(0)] = 1.0
    """How much such a label counts beside one that a person gave."""
    epochs: Positive | None = None
    """Passes of a student, which has more to read; by default `tune.epochs`."""


class Pool(NamedTuple):
    """What can be labelled."""

    examples: list[Any]
    """Without labels."""
    true: list[Any]
    """The same with the labels that were there all along, which nothing learns from."""
    left_out: Mapping[str, int]
    """How many rows, and why."""


class PseudoLabel(NamedTuple):
    """A label that a model gave."""

    number: int
    """Of the example in its pool."""
    example: Any
    """With the label."""
    confidence: float


def pool_of(task: Task[Any], settings: SelfTraining, train: Sequence[Any], judged: Sequence[Any]) -> Pool:
    """Returns the examples that can be labelled, each text once.

    Args:
        task: reads them.
        settings: names the files.
        train: what has labels; such a text keeps its own.
        judged: validation and test examples, whose texts nothing may be learned of.

    Raises:
        InputError: a file or a row can't be read, or nothing is left.
    """
    if type(task).labelled is Task.labelled:
        raise InputError("what this task predicts is not learned from", "take out the table [self_training]")
    trained, asked = ({plain(each.key) for each in some} for some in (train, judged))
    seen: set[str] = set()
    left_out: Counter[str] = Counter()
    true = []
    for example in task.read(read_table(settings.unlabelled), labelled=False):
        key = plain(example.key)
        if key in asked:
            left_out["in validation or test"] += 1
        elif key in trained:
            left_out["in training"] += 1
        elif key in seen:
            left_out["there before"] += 1
        else:
            seen.add(key)
            true.append(example)
    if not true:
        raise InputError(
            f"{settings.unlabelled} has no text that is not in the labelled data as well",
            "name another file: self_training.unlabelled",
        )
    return Pool([example.unlabelled() for example in true], true, dict(left_out))


def chosen(
    task: Task[Any],
    settings: SelfTraining,
    pool: Pool,
    predictions: Sequence[Mapping[str, Any]],
) -> list[PseudoLabel]:
    """Returns the surest labels of each class, in the order of the pool.

    Raises:
        InputError: what this task predicts can't be learned from.
    """
    by_kind: dict[str, list[PseudoLabel]] = defaultdict(list)
    for number, (example, prediction) in enumerate(zip(pool.examples, predictions, strict=True)):
        labelled, confidence = task.labelled(example, prediction)
        by_kind[labelled.kind].append(PseudoLabel(number, labelled, confidence))
    found = []
    for labels in by_kind.values():
        labels.sort(key=lambda label: (-label.confidence, label.number))
        most = min(math.ceil(settings.share * len(labels) - 1e-9), settings.per_class or len(labels))
        found += [label for label in labels[:most] if label.confidence >= settings.threshold]
    return sorted(found, key=lambda label: label.number)


def said_of(pool: Pool, labels: Sequence[PseudoLabel]) -> dict[str, Any]:
    """Returns how many labels there are, of which classes and how sure, and how right where that is known."""
    known = [
        label.example.kind == pool.true[label.number].kind for label in labels if pool.true[label.number].kind
    ]
    confidence = [label.confidence for label in labels]
    return {
        "pseudo_labels": len(labels),
        "by_class": dict(sorted(Counter(label.example.kind for label in labels).items())),
        "confidence": {"least": min(confidence), "mean": statistics.fmean(confidence)} if labels else None,
        "right": sum(known) / len(known) if known else None,
    }


def labels_of(
    file: Path,
    task: Task[Any],
    settings: SelfTraining,
    pool: Pool,
    ask: Callable[[], Sequence[Mapping[str, Any]]],
) -> list[PseudoLabel]:
    """Returns the labels that a file keeps from a run that was interrupted, or else chooses them and keeps them there.

    Raises:
        InputError: what this task predicts can't be learned from.
    """
    if not file.is_file():
        said = ask()
        labels = chosen(task, settings, pool, said)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, [{"number": each.number, "prediction": said[each.number]} for each in labels])
        return labels
    found = []
    for each in json.loads(file.read_text(encoding="utf-8")):
        labelled, confidence = task.labelled(pool.examples[each["number"]], each["prediction"])
        found.append(PseudoLabel(each["number"], labelled, confidence))
    return found
