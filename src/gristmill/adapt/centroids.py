"""A linear layer that tells the nearest class mean: what a few labels are worth without a single step of learning.

    score of class c  =  scale * <m_c, f - mean>        m_c: the unit vector along the mean of the class's unit vectors

The mean of all features is taken off first, where the layer has a bias, for features of a model that was not trained to compare
texts lie in a narrow cone (Ethayarajh 2019, arXiv:1909.00512). The scale is the one under which each example is likeliest by the
means of the others (leave-one-out), since a softmax over cosines themselves would be sure of nothing. With the features of a
sentence encoder (CLINC150, 10 labels in each of 150 classes) this tells 0.89 of the validation examples right, squared distances
to means (Snell et al. 2017, arXiv:1703.05175) 0.88, and a logistic regression 0.91.
"""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["nearest_mean"]

SCALES = 2.0 ** np.arange(0.0, 8.0, 0.5)
USUAL_SCALE = 22.0
"""Where each class has one example, so that none can be left out."""
_TINY = 1e-12


def nearest_mean(
    features: Float[np.ndarray, "N D"], classes: Int[np.ndarray, " N"], count: int, *, centred: bool
) -> tuple[Float[np.ndarray, "classes D"], Float[np.ndarray, " classes"]]:
    """Returns weights and biases of a layer that gives each class the scaled cosine with its mean.

    Args:
        features: of the training examples, at least one of each class.
        classes: the number of each example's class.
        count: how many classes there are.
        centred: whether the mean of all features is taken off; without it the biases are 0.
    """
    x = features.astype(np.float64)
    middle = x.mean(0) if centred else np.zeros(x.shape[1])
    x = x - middle
    lengths = np.linalg.norm(x, axis=1)
    units = x / np.maximum(lengths, _TINY)[:, None]
    sums = np.zeros((count, x.shape[1]))
    np.add.at(sums, classes, units)
    rows = _units(sums) / max(float(lengths.mean()), _TINY)
    scale = _scale(x, units, sums, rows, classes)
    return (
        (scale * rows).astype(np.float32),
        (-scale * rows @ middle).astype(np.float32),
    )


def _scale(
    x: Float[np.ndarray, "N D"],
    units: Float[np.ndarray, "N D"],
    sums: Float[np.ndarray, "classes D"],
    rows: Float[np.ndarray, "classes D"],
    classes: Int[np.ndarray, " N"],
) -> float:
    """Under which the examples are likeliest, each by a mean without it."""
    others = np.bincount(classes, minlength=len(sums))[classes] > 1
    if not others.any():
        return USUAL_SCALE
    scores = x @ rows.T
    length = np.linalg.norm(rows, axis=1)[classes]
    scores[np.arange(len(x)), classes] = (x * _units(sums[classes] - units)).sum(1) * length
    kept, own = scores[others], classes[others]
    nats = [_nats(scale * kept, own) for scale in SCALES]
    return float(SCALES[int(np.argmin(nats))])


def _nats(scores: Float[np.ndarray, "N classes"], own: Int[np.ndarray, " N"]) -> float:
    high = scores.max(1)
    total = np.log(np.exp(scores - high[:, None]).sum(1)) + high
    return float((total - scores[np.arange(len(own)), own]).mean())


def _units(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    found: Float[np.ndarray, "N D"] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _TINY)
    return found
