"""Matrix products with their bias, activation and residual, by the library that is fastest on this processor.

With AVX-512 that is oneDNN, in float32 (twice as fast as torch's own MKL on AMD processors) as in bfloat16: it
fuses bias and exact GELU, by the operator that torch's own compiler emits. Without AVX-512 MKL is the faster one,
and oneDNN's fused GELU costs a third of the product. Both compute the same function, to within float32's rounding.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from pipeline.encoders.packed.packing import Buffers

Activation = Literal["none", "gelu", "relu"]
ROW_MULTIPLE = 64
"""oneDNN keeps memory for each number of rows it has multiplied: with any number a replica's heap grows for hours."""
TYPICAL_ROWS = 1024
"""What weights are laid out for beforehand; other numbers of rows are multiplied as well, to the same bits."""


class Product(Protocol):
    """y = act(x W^T + b)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply [tokens, in] to [tokens, out], in the dtype of the weights; valid until the next call."""

    def add_to(self, residual: Tensor, x: Tensor) -> None:
        """Add the product, without activation, to float32 [tokens, out] in place."""


def build_product(
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    buffers: Buffers,
    *,
    name: str,
    activation: Activation = "none",
) -> Product:
    """Choose the library for weight [out, in] and bias [out]; results share the buffer `name`."""
    weight, bias = weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype)
    if prefers_onednn(torch.backends.cpu.get_cpu_capability(), dtype):
        return OneDnnProduct(weight, bias, activation)
    return TorchProduct(weight, bias, activation, buffers, name)


def prefers_onednn(capability: str, dtype: torch.dtype) -> bool:
    """Tell whether oneDNN is the faster library, and able to: `capability` is torch's name of the vector unit."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and capability.startswith("AVX512") and dtype in (torch.float32, torch.bfloat16)


def rows_to_fill(rows: int, dtype: torch.dtype) -> int:
    """Return how many rows to add where oneDNN multiplies, up to a multiple of `ROW_MULTIPLE`."""
    onednn = prefers_onednn(torch.backends.cpu.get_cpu_capability(), dtype)
    return -rows % ROW_MULTIPLE if onednn else 0


class OneDnnProduct:
    """A product with its bias and activation fused, of weights laid out once in oneDNN's own order (3 to 4 %)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)  # noqa: SLF001 - as below
        self._bias, self._activation = bias, activation

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply [tokens, in] to [tokens, out]."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - what torch.compile emits
            x.to(self._weight.dtype), self._weight, self._bias, self._activation, [], "none"
        )
        return out

    def add_to(self, residual: Tensor, x: Tensor) -> None:
        """Add the product to a float32 residual, in place."""
        residual.add_(self(x))


class TorchProduct:
    """A product by torch's own matrix library, into memory that is used again."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: Activation, buffers: Buffers, name: str
    ) -> None:
        self._weight, self._bias, self._activation = weight.T, bias, activation
        self._buffers, self._name = buffers, name

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply [tokens, in] to [tokens, out]."""
        weight = self._weight
        out = self._buffers.take(self._name, len(x), weight.shape[1], weight.dtype)
        x = x.to(weight.dtype)
        if self._bias is None:
            torch.mm(x, weight, out=out)
        else:
            torch.addmm(self._bias, x, weight, out=out)
        if self._activation == "gelu":
            torch.ops.aten.gelu_(out)
        elif self._activation == "relu":
            nn.functional.relu_(out)
        return out

    def add_to(self, residual: Tensor, x: Tensor) -> None:
        """Add the product to a float32 residual, in place."""
        if self._weight.dtype != residual.dtype:
            residual.add_(self(x))
            return
        if self._bias is not None:
            residual.add_(self._bias)
        residual.addmm_(x, self._weight)
