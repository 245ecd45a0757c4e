"""Attention over texts that lie end to end, each seeing only itself."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.relative import RelativeBias


def self_attention(
    qkv: Tensor,
    packing: Packing,
    heads: int,
    out: Tensor,
    *,
    scale: float | None = None,
    bias: RelativeBias | None = None,
) -> Tensor:
    """Attend within each text; texts of equal length that stand together share one call, without a mask.

    Args:
        qkv: [tokens, 3 * width], queries, keys and values of each token side by side.
        packing: how the texts lie.
        heads: attention heads.
        out: [tokens, width] that the result is written to, of the dtype of `qkv`; rows after the last text become 0.
        scale: of the scores; one over the root of a head's width when None.
        bias: added to the scores.

    Returns:
        `out`.
    """
    width = out.shape[1]
    for start, texts, length in packing.runs():
        tokens = slice(start, start + texts * length)
        query, key, value = qkv[tokens].view(texts, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mask = None
        if bias is not None:
            key, value, mask = key.flip(2), value.flip(2), bias.for_reversed_keys(length)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        out[tokens].view(texts, length, heads, width // heads).copy_(attended.transpose(1, 2))
    out[sum(packing.lengths) :] = 0
    return out
