"""What self-training can fit without a neural network: the corpus's classifier of quality, for any two classes.

The fine-tuned probe is the other one (`evaluate.probe.ProbeFit`).
"""

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from gristmill.augment.selftraining import Example, hold_out
from gristmill.corpus.quality import HIGHEST_SCORE, QualityClassifier
from gristmill.corpus.quality_training import Example as Document
from gristmill.corpus.quality_training import fit
from gristmill.errors import InputError

__all__ = ["QualityFit", "QualityPredictor"]


@final
class QualityPredictor:
    """A classifier of quality as a predictor of two classes; nothing in it is random, so passes are the same."""

    def __init__(self, classifier: QualityClassifier, classes: tuple[str, str]) -> None:
        """Takes the classes with the one that the score is for last."""
        self.classifier = classifier
        self._classes = classes

    @property
    def classes(self) -> tuple[str, ...]:
        """The two classes."""
        return self._classes

    def probabilities(self, texts: Sequence[str], passes: int = 1) -> Float[np.ndarray, "passes N classes"]:
        """Returns the scores as probabilities; they are thousandths, so none is nearer to 0 or 1 than half of one."""
        share = np.clip(self.classifier.scores(texts) / HIGHEST_SCORE, 0.0005, 0.9995)
        return np.repeat(np.stack([1 - share, share], axis=1)[None], passes, axis=0)


@final
class QualityFit:
    """Fits the classifier of quality: logistic regression over words and pairs, with probabilities by Platt's method.

    With seed 0 it learns from all examples; with another it leaves out a fifth of each class, drawn at random (Buehlmann
    and Yu 2002, subagging), since the fit itself has nothing random.
    """

    def __init__(self, *, folds: int = 5) -> None:
        """Takes the parts of the cross validation that chooses how strongly it is regularised."""
        self.folds = folds

    def __call__(self, examples: Sequence[Example], seed: int) -> QualityPredictor:
        """Returns a predictor for the two classes of the examples.

        Raises:
            InputError: there are not two classes, too few examples of one, or nothing tells them apart.
        """
        classes = sorted({example.label for example in examples})
        if len(classes) != 2:
            raise InputError(
                f"the classifier of quality tells two classes apart, and there are {len(classes)}",
                "fine-tune a model for more of them",
            )
        if seed:
            examples, _ = hold_out(examples, 0.2, seed=seed)
        documents = [Document(example.text, example.label == classes[1]) for example in examples]
        classifier, _ = fit(documents, folds=self.folds)
        return QualityPredictor(classifier, (classes[0], classes[1]))
