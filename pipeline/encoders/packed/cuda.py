"""The parts of a padding-free forward on a GPU.

float16 throughout for models whose norms bound their activations, whose residual is float16 too; with an RMSNorm the
residual is float32. Nothing here makes the host wait for the device.
"""

from __future__ import annotations

from dataclasses import replace
from subprocess import CalledProcessError

import torch
from torch import Tensor
from triton.errors import TritonError

from pipeline.encoders.forward.feeding import Feed
from pipeline.encoders.packed import triton_kernels
from pipeline.encoders.packed.kernels import Norm
from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.products import Activation, Product
from pipeline.encoders.packed.relative import RelativeBias


class CudaKernels:
    """cuBLAS, torch's flash attention, and Triton where these lack something."""

    failures: tuple[type[Exception], ...] = (RuntimeError, TritonError, CalledProcessError)

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._feed = Feed(device)

    def keep(self, weights: Tensor, *, rounded: bool = False) -> Tensor:
        """Bring weights to the device."""
        return weights.to(self.device, self.dtype if rounded else torch.float32)

    def product(self, weight: Tensor, bias: Tensor | None, *, name: str, activation: Activation = "none") -> Product:  # noqa: ARG002
        """Build a product by cuBLAS."""
        kept = None if bias is None else self.keep(bias, rounded=True)
        return CudaProduct(self.keep(weight, rounded=True), kept, activation)

    def send(self, packing: Packing, *numbers: Tensor) -> tuple[Packing, tuple[Tensor, ...]]:
        """Bring a batch to the device."""
        starts, *sent = self._feed.send(packing.host_starts(), *numbers)
        return replace(packing, starts=starts), tuple(sent)

    def norm(self, x: Tensor, norm: Norm, plus: Tensor | None = None) -> Tensor:
        """Normalise x, or the sum of x and another, for the next product."""
        return norm.of(x) if plus is None else triton_kernels.add_norm(x, plus, norm, self.dtype)

    def add_norm(self, x: Tensor, product: Product, y: Tensor, norm: Norm, *, exact: bool = False) -> Tensor:
        """Multiply, then add and normalise in one pass."""
        return triton_kernels.add_norm(x, product(y), norm, torch.float32 if exact else self.dtype)

    def attend(
        self, qkv: Tensor, packing: Packing, heads: int, *, scale: float | None = None, bias: RelativeBias | None = None
    ) -> Tensor:
        """Attend by torch's flash attention where there is no bias, which it cannot add."""
        if bias is None and scale is None and self.device.type == "cuda":
            return flash_attend(qkv, packing, heads)
        return triton_kernels.attend(qkv, packing, heads, scale=scale, bias=bias)


def flash_attend(qkv: Tensor, packing: Packing, heads: int) -> Tensor:
    """Attend by the operator below torch.nn.attention.varlen, whose own arguments change from version to version."""
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    query, key, value = qkv.view(tokens, 3, heads, width // heads).unbind(1)
    attended: Tensor = torch.ops.aten._flash_attention_forward(  # noqa: SLF001
        *(query, key, value, packing.starts, packing.starts, packing.longest, packing.longest),
        dropout_p=0.0,
        is_causal=False,
        return_debug_mask=False,
    )[0]
    return attended.reshape(tokens, width)


class CudaProduct:
    """A product whose bias and ReLU are its epilogue; exact GELU, which cuBLAS lacks, is a pass over its result."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
        self._weight, self._bias, self._activation = weight.T, bias, activation
        if activation == "relu" and bias is None:
            self._bias = weight.new_zeros(len(weight))  # the epilogue has a bias

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply [tokens, in] to [tokens, out]."""
        x = x.to(self._weight.dtype)
        if self._bias is None:
            return torch.mm(x, self._weight)
        if self._activation == "relu":
            # its other activation, use_gelu, is the approximation by tanh
            return torch._addmm_activation(self._bias, x, self._weight)  # noqa: SLF001
        out = torch.addmm(self._bias, x, self._weight)
        return torch.ops.aten.gelu_(out) if self._activation == "gelu" else out

    def add_to(self, residual: Tensor, x: Tensor) -> None:
        """Add the product to a residual, in place."""
        residual.add_(self(x))
