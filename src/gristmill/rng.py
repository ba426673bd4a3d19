"""One seed, many named streams.

Randomness is never taken from a global generator. A stream is named by what it is for and by where it is
(`stream(seed, "order", epoch)`), so that what happens at step 1000 does not depend on how many numbers were
drawn before it: a resumed run draws the same.
"""

import hashlib

import numpy as np

__all__ = ["derive", "stream"]


def derive(seed: int, *name: str | int) -> int:
    """Returns a 63-bit seed for the stream `name`, a pure function of its arguments.

    `derive(0, "dropout", 17)` seeds a `torch.Generator`; `stream` gives the NumPy generator of the same name.
    """
    # Escaped, so that ("a", "b") and ("a/b",) are two streams: a name may be a document's id.
    parts = [str(part).replace("\\", "\\\\").replace("/", "\\/") for part in (seed, *name)]
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """Returns the NumPy generator of the stream `name`, always at its start."""
    return np.random.Generator(np.random.PCG64(derive(seed, *name)))
