"""The step of `decoding.c`: a single sequence's next token in one call."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gristmill.model.native import library
from gristmill.model.transformer import LayerNorm, Rotary, Transformer

__all__ = ["NativeStep", "native_step"]

SOURCE = Path(__file__).with_name("decoding.c")


def _fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Sizes(ctypes.Structure):
    _fields_ = (
        *_fields(
            "layers width heads kv_heads head_size inner vocabulary layer_norm qk_norm rotary gated",
            ctypes.c_long,
        ),
        ("epsilon", ctypes.c_float),
    )


class _LayerWeights(ctypes.Structure):
    _fields_ = _fields(
        "qkv out up down attention_norm attention_shift feed_forward_norm feed_forward_shift "
        "qkv_bias out_bias up_bias down_bias query_norm key_norm",
        ctypes.c_void_p,
    )


def native_step(model: Transformer) -> "NativeStep | None":
    """Returns the compiled step of a model, or None: no compiler, not a CPU, or weights stored in another way."""
    dtype = model.compute_dtype
    matrices = [module.weight for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    usable = (
        dtype in (torch.float32, torch.bfloat16)
        and model.output_weight.dtype == dtype
        and all(m.device.type == "cpu" and m.dtype == dtype and m.is_contiguous() for m in matrices)
    )
    compiled = library(SOURCE) if usable else None
    return None if compiled is None else NativeStep(model, compiled)


@final
class NativeStep:
    """Calls `decode` of decoding.c with the addresses of a model's weights, which it keeps alive."""

    def __init__(self, model: Transformer, compiled: ctypes.CDLL) -> None:
        config = model.config
        self._kept: list[Tensor] = []
        self._function = (
            compiled.decode_bf16 if model.compute_dtype == torch.bfloat16 else compiled.decode_f32
        )
        self._function.restype = None
        self._sizes = _Sizes(
            *(
                config.layers,
                config.width,
                config.heads,
                config.kv_heads,
                config.head_size,
                config.feed_forward,
            ),
            *(config.vocab_size, config.norm == "layer", config.qk_norm, config.positions == "rotary"),
            *(config.activation == "swiglu", config.norm_epsilon),
        )
        blocks: list[Any] = list(model.blocks)
        self._layers = (_LayerWeights * config.layers)(*(self._layer(block) for block in blocks))
        assert model.norm is not None  # decoders are pre-norm
        self._norm = self._narrow(cast(Tensor, model.norm.weight))
        self._shift = self._narrow(model.norm.bias) if isinstance(model.norm, LayerNorm) else None
        self._output = self._address(model.output_weight)
        tables = (
            Rotary(config.head_size, config.rotary_base)(config.maximum_positions, torch.device("cpu"))
            if config.positions == "rotary"
            else ()
        )
        self._tables = [self._address(table.contiguous()) for table in tables]
        self._vocabulary, self._row_bytes = config.vocab_size, 4 * (config.head_size // 2)
        self._window, self._inner = config.maximum_positions, 2 * config.feed_forward
        self._heads, self._values = config.heads, (2 * config.heads + 2 * config.kv_heads) * config.head_size

    def __call__(
        self,
        embedded: Float[Tensor, "1 D"],
        cache: Sequence[Float[Tensor, "1 N S K"]],
        *,
        first: int,
        column: int,
    ) -> Float[Tensor, "1 V"]:
        """Stores the keys and values of the token that is embedded, and returns the scores of what comes after it.

        It stands in `column`, and sees the columns from `first` on.
        """
        x = embedded.float().contiguous().clone()
        columns = cache[0].shape[2]
        logits = torch.empty(1, self._vocabulary)
        scratch = torch.empty(self._values + self._inner + self._heads * columns)
        caches = (ctypes.c_void_p * len(cache))(*(layer[0, 0, first].data_ptr() for layer in cache))
        rows: list[Any] = [
            ctypes.c_void_p(table + (column - first) * self._row_bytes) for table in self._tables
        ] or [
            None,
            None,
        ]
        self._function(
            ctypes.byref(self._sizes), self._layers, caches, ctypes.c_void_p(self._norm), ctypes.c_void_p(self._shift),
            ctypes.c_void_p(self._output), *rows, ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(logits.data_ptr()),
            ctypes.c_void_p(scratch.data_ptr()), ctypes.c_long(column - first), ctypes.c_long(columns),
        )  # fmt: skip
        return logits

    def _layer(self, block: Any) -> _LayerWeights:
        attention, inner = block.attention, block.feed_forward
        norms = [block.attention_norm, block.feed_forward_norm]
        scales = [
            address
            for norm in norms
            for address in (self._narrow(norm.weight), self._narrow(getattr(norm, "bias", None)))
        ]
        linears = [attention.qkv, attention.out, inner.up, inner.down]
        gains = [None if norm is None else norm.weight for norm in (attention.query_norm, attention.key_norm)]
        return _LayerWeights(
            *(self._address(linear.weight) for linear in linears),
            *scales,
            *(self._narrow(linear.bias) for linear in linears),
            *map(self._narrow, gains),
        )

    def _narrow(self, vector: Tensor | None) -> int | None:
        """The address of a vector in float32, as the C code reads all but the matrices."""
        return None if vector is None else self._address(vector.detach().float().contiguous())

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()
