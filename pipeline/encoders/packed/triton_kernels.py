"""Two GPU kernels in Triton: attention within each text with a relative bias, and sum and norm in one pass.

With TRITON_INTERPRET=1 the same code runs on a CPU, which is how the tests see it. Sums are float32 throughout.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.encoders.packed.kernels import Norm
from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.relative import RelativeBias

BLOCK = 64
"""Queries of a program, and keys it reads at a time."""


def attend(
    qkv: Tensor, packing: Packing, heads: int, *, scale: float | None = None, bias: RelativeBias | None = None
) -> Tensor:
    """Attend within each text.

    Args:
        qkv: [tokens, 3 * width], queries, keys and values of each token side by side, contiguous.
        packing: how the texts lie, with `starts`.
        heads: attention heads, of a width that is a power of two from 16.
        scale: of the scores; one over the root of a head's width when None.
        bias: added to the scores.

    Returns:
        [tokens, width], of the dtype of `qkv`.
    """
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    out = torch.empty((tokens, width), dtype=qkv.dtype, device=qkv.device)
    blocks = triton.cdiv(max(packing.lengths), BLOCK)
    _attend[(len(packing.lengths) * blocks, heads)](
        qkv,
        packing.starts,
        qkv if bias is None else bias.table,
        out,
        (width // heads) ** -0.5 if scale is None else scale,
        blocks,
        0 if bias is None else bias.longest,
        HEADS=heads,
        HEAD=width // heads,
        BIASED=bias is not None,
        BLOCK=BLOCK,
        num_warps=4,
        num_stages=2,
    )
    return out


# not specialized: else a batch of another shape would compile the kernel again in the middle of a unit
@triton.jit(do_not_specialize=["blocks", "longest"])
def _attend(
    qkv,
    starts,
    table,
    out,
    scale,
    blocks,
    longest,
    HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    BIASED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    text = tl.program_id(0) // blocks
    head = tl.program_id(1)
    start = tl.load(starts + text)
    length = tl.load(starts + text + 1) - start
    rows = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < length
    dims = tl.arange(0, HEAD)
    # tokens times their numbers pass 32 bits in wide models
    of_rows = (start + rows).to(tl.int64)
    query = tl.load(qkv + of_rows[:, None] * (3 * HEADS * HEAD) + head * HEAD + dims[None, :], inside[:, None], 0.0)

    most = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, HEAD], tl.float32)
    # a block behind its text's end has no query and reads no key
    end = tl.where((tl.program_id(0) % blocks) * BLOCK < length, length, 0)
    for first in range(0, end, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        present = columns < length
        keys_at = qkv + (start + columns).to(tl.int64) * (3 * HEADS * HEAD) + (HEADS + head) * HEAD
        key = tl.load(keys_at[None, :] + dims[:, None], present[None, :], 0.0)
        scores = tl.dot(query, key) * scale
        if BIASED:
            places = rows[:, None] - columns[None, :] + longest - 1
            both = inside[:, None] & present[None, :]
            scores += tl.load(table + head * (2 * longest - 1) + places, both, 0.0)
        scores = tl.where(present[None, :], scores, float("-inf"))
        peak = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp(scores - peak[:, None])
        shrink = tl.exp(most - peak)
        value = tl.load(keys_at[:, None] + HEADS * HEAD + dims[None, :], present[:, None], 0.0)
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value)
        most = peak
    mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
    to = out + of_rows[:, None] * (HEADS * HEAD) + head * HEAD + dims[None, :]
    tl.store(to, mixed.to(out.dtype.element_ty), inside[:, None])


def add_norm(x: Tensor, y: Tensor, norm: Norm, dtype: torch.dtype) -> Tensor:
    """Normalise x + y, both [tokens, width] and contiguous, to a tensor of `dtype`; an RMSNorm leaves the sum in x."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    width = x.shape[1]
    block = triton.next_power_of_2(width)
    _add_norm[(len(x),)](
        x,
        y,
        norm.weight,
        norm.weight if norm.bias is None else norm.bias,
        out,
        norm.epsilon,
        WIDTH=width,
        BLOCK=block,
        LAYER=norm.bias is not None,
        num_warps=min(max(block // 256, 1), 8),
    )
    return out


@triton.jit
def _add_norm(x, y, weight, bias, out, epsilon, WIDTH: tl.constexpr, BLOCK: tl.constexpr, LAYER: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    here = tl.program_id(0).to(tl.int64) * WIDTH + columns
    total = tl.load(x + here, inside, 0.0).to(tl.float32) + tl.load(y + here, inside, 0.0).to(tl.float32)
    if LAYER:
        total = tl.where(inside, total - tl.sum(total, 0) / WIDTH, 0.0)
    else:
        tl.store(x + here, total, inside)
    normed = total / tl.sqrt(tl.sum(total * total, 0) / WIDTH + epsilon)
    normed *= tl.load(weight + columns, inside, 0.0)
    if LAYER:
        normed += tl.load(bias + columns, inside, 0.0)
    tl.store(out + here, normed.to(out.dtype.element_ty), inside)
