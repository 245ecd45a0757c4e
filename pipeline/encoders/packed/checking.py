"""Whether a device's kernels compute what they should, asked each time a model is loaded.

Each part runs once on small random texts in the model's own shapes, beside the CPU's float32; it also compiles what
would else compile in the middle of the first unit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.encoders.packed.cpu import CpuKernels
from pipeline.encoders.packed.kernels import Kernels, Norm, Shape
from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.relative import RelativeBias
from pipeline.exceptions import ModelError

LENGTHS = [130, 64, 17, 1]
"""Tokens of the texts: more than a kernel's block and fewer, a whole one, and the least."""
SHORT = 2
"""The last so many stand alone as well: attention in a batch of short texts is another kernel."""
TOLERANCES = {torch.float32: 1e-4, torch.float16: 0.005, torch.bfloat16: 0.04}
"""Largest difference to float32, of 1 and the number itself: some roundings of each type; wrong is off by about 1."""

Part = Callable[[Kernels], Tensor]


def check_kernels(kernels: Kernels, model: str, shape: Shape) -> None:
    """Compare each part with the CPU's.

    Raises:
        ModelError: one cannot run here, or differs.
    """
    for name, part in _parts(shape, kernels.dtype).items():
        try:
            found = part(kernels).float().cpu()
        except torch.OutOfMemoryError:
            raise  # no fault of the kernel
        except kernels.failures as error:
            reason = str(error).partition("\n")[0]
            raise _refusal(model, f"the {name} kernel cannot run: {reason}") from error
        expected = part(CpuKernels(torch.float32))
        difference = float(((found - expected).abs() / (1 + expected.abs())).max())
        allowed = TOLERANCES[kernels.dtype]
        if not difference <= allowed:  # also where it is not a number
            raise _refusal(model, f"the {name} kernel is off by {difference:.2g}, where {allowed:.2g} is allowed")


def _refusal(model: str, reason: str) -> ModelError:
    return ModelError(model, f"its packed forward fails its check here: {reason}; set encoder.backend: padded")


def _parts(shape: Shape, dtype: torch.dtype) -> dict[str, Part]:
    """Return each part as a function of the kernels, on inputs that `dtype` holds exactly."""
    draw, tokens = torch.Generator().manual_seed(0), sum(LENGTHS)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=draw).to(dtype).float()

    qkv, x, y = random(tokens, 3 * shape.inner), random(tokens, shape.width), random(tokens, shape.width)
    weight = (random(shape.width, shape.width) * shape.width**-0.5).to(dtype).float()
    bias = random(shape.width) if shape.layer_norm else None
    gain, table = 1 + random(shape.width) / 10, random(32, shape.heads)

    def attention(kernels: Kernels) -> Tensor:
        relative = RelativeBias(table, max(LENGTHS), 128).to(kernels.device) if shape.relative else None
        results = []
        for lengths in (LENGTHS, LENGTHS[-SHORT:]):
            packing, (rows,) = kernels.send(Packing(lengths), torch.arange(sum(lengths)))
            given = kernels.keep(qkv, rounded=True)[rows]
            found = kernels.attend(given, packing, shape.heads, scale=shape.scale, bias=relative)
            results.append(found[: sum(lengths)].clone())
        return torch.cat(results)

    def activation(kernels: Kernels) -> Tensor:
        product = kernels.product(weight, bias, name="up", activation="gelu" if shape.layer_norm else "relu")
        return product(kernels.keep(x, rounded=True))

    def norm(kernels: Kernels) -> Tensor:
        product, given = kernels.product(weight, bias, name="down"), kernels.keep(y, rounded=True)
        scaled = Norm(weight=kernels.keep(gain), bias=None if bias is None else kernels.keep(bias), epsilon=1e-6)
        results = []
        for exact in (False, True):
            residual = kernels.keep(x, rounded=shape.layer_norm).clone()
            results.append(kernels.add_norm(residual, product, given, scaled, exact=exact).float())
        return torch.cat(results if shape.layer_norm else [*results, residual])

    return {"attention": attention, "activation": activation, "norm": norm}
