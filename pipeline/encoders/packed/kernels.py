"""What a padding-free forward asks of a device. The families are written once, over these few parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.products import Activation, Product
from pipeline.encoders.packed.relative import RelativeBias


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A LayerNorm, or without `bias` an RMSNorm; float32 [width]."""

    weight: Tensor
    bias: Tensor | None = None
    epsilon: float

    def of(self, x: Tensor) -> Tensor:
        """Normalise float32 [tokens, width]."""
        if self.bias is None:
            return nn.functional.rms_norm(x, x.shape[1:], self.weight, self.epsilon)
        normed: Tensor = nn.functional.layer_norm(x, x.shape[1:], self.weight, self.bias, self.epsilon)
        return normed


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a model's layers: `inner` is the width of all heads together; `scale` of the scores, None as usual.

    `layer_norm` says which norm it has, and with it GELU and biases, or ReLU and none; `relative` whether scores have
    a relative bias.
    """

    width: int
    inner: int
    heads: int
    layer_norm: bool
    relative: bool
    scale: float | None = None


class Kernels(Protocol):
    """The parts of a forward on one device, in one dtype of its matrix products.

    States [tokens, width] may have rows of no text at their end. A LayerNorm gives the next residual, an RMSNorm only
    what the next product reads.
    """

    device: torch.device
    dtype: torch.dtype
    failures: tuple[type[Exception], ...]
    """What a part raises that cannot run on the device."""

    def keep(self, weights: Tensor, *, rounded: bool = False) -> Tensor:
        """Bring float32 weights to the device; `rounded` allows the dtype of the products."""

    def product(self, weight: Tensor, bias: Tensor | None, *, name: str, activation: Activation = "none") -> Product:
        """Build a matrix product of float32 weight [out, in] and bias [out], whose results may share memory by name."""

    def send(self, packing: Packing, *numbers: Tensor) -> tuple[Packing, tuple[Tensor, ...]]:
        """Bring a batch to the device: how it lies, and int64 [tokens], lengthened by zeros where that is faster."""

    def norm(self, x: Tensor, norm: Norm, plus: Tensor | None = None) -> Tensor:
        """Normalise x, or the sum of x and another."""

    def add_norm(self, x: Tensor, product: Product, y: Tensor, norm: Norm, *, exact: bool = False) -> Tensor:
        """Add the product of y to the residual x and normalise the sum.

        An RMSNorm leaves the sum in x; after a LayerNorm x is of no use. `exact` returns float32.
        """

    def attend(
        self, qkv: Tensor, packing: Packing, heads: int, *, scale: float | None = None, bias: RelativeBias | None = None
    ) -> Tensor:
        """Attend within each text: [tokens, 3 * width], queries, keys and values side by side, to [tokens, width].

        `scale` is that of the scores, one over the root of a head's width when None. Rows after the last text are
        finite.
        """
