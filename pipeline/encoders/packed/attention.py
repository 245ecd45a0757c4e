"""Attention over texts that lie end to end, each seeing only itself."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn


def self_attention(qkv: Tensor, lengths: list[int], heads: int) -> Tensor:
    """Attend within each text; texts of equal length that stand together share one call, without a mask.

    Args:
        qkv: [tokens, 3 * width], queries, keys and values of each token side by side.
        lengths: tokens of each text, in order.
        heads: attention heads.

    Returns:
        [tokens, width], of the dtype of `qkv`.
    """
    width = qkv.shape[1] // 3
    out = torch.empty(len(qkv), width, dtype=qkv.dtype)
    start = 0
    for length, run in groupby(lengths):
        texts = sum(1 for _ in run)
        end = start + texts * length
        query, key, value = qkv[start:end].view(texts, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        out[start:end].view(texts, length, heads, width // heads).copy_(attended.transpose(1, 2))
        start = end
    return out
