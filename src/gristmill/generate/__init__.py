"""Text from a model: prefill, decode, sample, stream."""

from gristmill.generate.completing import Completion, Piece, complete, stream, stream_tokens
from gristmill.generate.decoding import Decoder, State, decode_one_token, prefill, prepare
from gristmill.generate.load import Loaded, load_run
from gristmill.generate.sampling import SamplingSettings

__all__ = [
    "Completion",
    "Decoder",
    "Loaded",
    "Piece",
    "SamplingSettings",
    "State",
    "complete",
    "decode_one_token",
    "load_run",
    "prefill",
    "prepare",
    "stream",
    "stream_tokens",
]
