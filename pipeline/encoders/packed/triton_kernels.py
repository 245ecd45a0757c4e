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

KEYS = 64
"""Keys that a program of attention reads at a time."""
WIDE_HEAD = 128
"""From here on 64 queries are as many as registers and shared memory hold."""
LOG2_E = 1.4426950408889634
"""Scores and biases are scaled to be exponents of two, for which the device has an instruction."""


def attention_sizes(head: int, longest: int) -> dict[str, int]:
    """Return the constants of a program of attention for heads of some width and texts of up to `longest` tokens.

    More queries read keys and values less often, which is what long texts should wait for: a prediction from the number
    of instructions, not timed yet. Without a bound on registers the compiler takes so many that half as many programs
    fit; with it nothing is spilled on Hopper, and a few words on Ampere.
    """
    rows = 128 if longest > KEYS and head < WIDE_HEAD else 64
    return {
        "ROWS": rows,
        "KEYS": KEYS,
        "num_warps": rows // 16,
        "num_stages": 2,
        "maxnreg": 128 if head < WIDE_HEAD else 255,
    }


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
    head = width // heads
    sizes = attention_sizes(head, packing.longest)
    out = torch.empty((tokens, width), dtype=qkv.dtype, device=qkv.device)
    blocks = triton.cdiv(packing.longest, sizes["ROWS"])
    _attend[(len(packing.lengths) * blocks, heads)](
        qkv,
        packing.starts,
        qkv if bias is None else bias.exponents,
        out,
        (head**-0.5 if scale is None else scale) * LOG2_E,
        blocks,
        0 if bias is None else bias.longest,
        HEADS=heads,
        HEAD=head,
        BIASED=bias is not None,
        **sizes,
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
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):
    width: tl.constexpr = HEADS * HEAD
    text = tl.program_id(0) // blocks
    head = tl.program_id(1)
    begin = tl.load(starts + text)
    length = tl.load(starts + text + 1) - begin
    first_row = (tl.program_id(0) % blocks) * ROWS
    if first_row >= length:
        return  # the batch has longer texts
    rows, dims = first_row + tl.arange(0, ROWS), tl.arange(0, HEAD)
    inside = (rows < length)[:, None]
    # tokens times their numbers pass 32 bits in a batch, in a text they do not
    queries = qkv + begin.to(tl.int64) * (3 * width) + head * HEAD
    query = tl.load(queries + rows[:, None] * (3 * width) + dims[None, :], inside, 0.0)
    keys = queries + width
    biases = table + head * (2 * longest - 1) + longest - 1 + first_row

    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, HEAD], tl.float32)
    whole = length // KEYS * KEYS
    for first in range(0, whole, KEYS):
        most, total, mixed = _see(
            most, total, mixed, query, keys, biases, scale, first, KEYS, width, KEYS, BIASED, WHOLE=True
        )
    for first in range(whole, length, KEYS):
        left = length - first
        most, total, mixed = _see(
            most, total, mixed, query, keys, biases, scale, first, left, width, KEYS, BIASED, WHOLE=False
        )
    mixed = mixed / total[:, None]
    to = out + begin.to(tl.int64) * width + head * HEAD
    tl.store(to + rows[:, None] * width + dims[None, :], mixed.to(out.dtype.element_ty), inside)


@triton.jit
def _see(
    most,
    total,
    mixed,
    query,
    keys,
    biases,
    scale,
    first,
    left,
    WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    BIASED: tl.constexpr,
    WHOLE: tl.constexpr,
):
    # take in the keys from `first` on, of which `left` are the text's; `WHOLE` says that all are, and needs no masks
    places, dims = tl.arange(0, KEYS), tl.arange(0, query.shape[1])
    present = places < left
    keys += first * (3 * WIDTH)
    keys_at = keys + places[None, :] * (3 * WIDTH) + dims[:, None]
    values_at = keys + WIDTH + places[:, None] * (3 * WIDTH) + dims[None, :]
    key = tl.load(keys_at) if WHOLE else tl.load(keys_at, present[None, :], 0.0)
    value = tl.load(values_at) if WHOLE else tl.load(values_at, present[:, None], 0.0)
    scores = tl.dot(query, key) * scale
    if BIASED:
        # in 64 bits, so that constants stay apart as offsets of the loads; the table reaches as far as whole blocks do
        apart = tl.arange(0, query.shape[0]).to(tl.int64)[:, None] - places.to(tl.int64)[None, :]
        scores += tl.load(biases - first + apart)
    if not WHOLE:
        scores = tl.where(present[None, :], scores, float("-inf"))
    peak = tl.maximum(most, tl.max(scores, 1))
    weights = tl.exp2(scores - peak[:, None])
    shrink = tl.exp2(most - peak)
    total = total * shrink + tl.sum(weights, 1)
    mixed = tl.dot(weights.to(value.dtype), value, mixed * shrink[:, None])
    return peak, total, mixed


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
