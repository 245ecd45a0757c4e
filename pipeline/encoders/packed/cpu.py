"""The parts of a padding-free forward on a CPU: products in the spec's dtype, all between them in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.encoders.packed.attention import self_attention
from pipeline.encoders.packed.kernels import Norm
from pipeline.encoders.packed.packing import Buffers, Packing
from pipeline.encoders.packed.products import Activation, Product, build_product, rows_to_fill
from pipeline.encoders.packed.relative import RelativeBias


class CpuKernels:
    """Torch's and oneDNN's, into memory that is used again."""

    device = torch.device("cpu")
    failures: tuple[type[Exception], ...] = (RuntimeError,)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self._buffers = dtype, Buffers()

    def keep(self, weights: Tensor, *, rounded: bool = False) -> Tensor:  # noqa: ARG002 - residuals are float32
        """Return the weights as they are."""
        return weights

    def product(self, weight: Tensor, bias: Tensor | None, *, name: str, activation: Activation = "none") -> Product:
        """Build a product by the library that is fastest here."""
        return build_product(weight, bias, self.dtype, self._buffers, name=name, activation=activation)

    def send(self, packing: Packing, *numbers: Tensor) -> tuple[Packing, tuple[Tensor, ...]]:
        """Add tokens of no text where the products are faster with them."""
        more = rows_to_fill(len(numbers[0]), self.dtype)
        return packing, tuple(nn.functional.pad(each, (0, more)) for each in numbers) if more else numbers

    def norm(self, x: Tensor, norm: Norm, plus: Tensor | None = None) -> Tensor:
        """Normalise in float32."""
        return norm.of(x if plus is None else x + plus)

    def add_norm(self, x: Tensor, product: Product, y: Tensor, norm: Norm, *, exact: bool = False) -> Tensor:  # noqa: ARG002
        """Add and normalise in float32."""
        product.add_to(x, y)
        return norm.of(x)

    def attend(
        self, qkv: Tensor, packing: Packing, heads: int, *, scale: float | None = None, bias: RelativeBias | None = None
    ) -> Tensor:
        """Attend by torch's attention, texts of equal length together."""
        context = self._buffers.take("context", len(qkv), qkv.shape[1] // 3, qkv.dtype)
        return self_attention(qkv, packing, heads, context, scale=scale, bias=bias)
