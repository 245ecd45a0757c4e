"""Matrix products through oneDNN, with bias and exact GELU in the same pass.

On AMD processors torch's float32 linear goes through a slow path of MKL; oneDNN is twice as fast at the same
exactness. The operator is the one torch's own compiler emits. Builds without oneDNN use plain torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Product:
    """y = x W^T + b, optionally through GELU (erf); weights kept in the dtype of the product."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, *, gelu: bool = False) -> None:
        self._weight, self._bias = weight.to(dtype).contiguous(), bias.to(dtype)
        self._gelu = gelu
        self._fused = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply [tokens, in] to [tokens, out], in the dtype of the weights."""
        x = x.to(self._weight.dtype)
        if self._fused:
            after = "gelu" if self._gelu else "none"
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, after, [], "none")  # noqa: SLF001
            return out
        out = nn.functional.linear(x, self._weight, self._bias)
        return nn.functional.gelu(out) if self._gelu else out
