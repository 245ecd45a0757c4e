"""How the texts of one batch lie end to end: what every kernel of a padding-free forward is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, groupby

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """Texts end to end without padding.

    `lengths` has the tokens of each, in order, on the host, and `longest` the most of them; `starts`, where a device
    needs it, each text's first token and the end, int32 [texts + 1].
    """

    lengths: list[int]
    starts: Tensor | None = None
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        # once a batch, and not by each layer
        object.__setattr__(self, "longest", max(self.lengths, default=0))

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield texts of equal length that stand together: first token, number of texts, tokens of each."""
        start = 0
        for length, run in groupby(self.lengths):
            texts = sum(1 for _ in run)
            yield start, texts, length
            start += texts * length

    def host_starts(self) -> Tensor:
        """Return `starts`, on the host."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32)

    def positions(self) -> Tensor:
        """Number each text's tokens from 0, int64 [tokens]."""
        return self.cumulated(torch.ones(sum(self.lengths), dtype=torch.int64)) - 1

    def cumulated(self, counts: Tensor) -> Tensor:
        """Sum int64 [tokens] up along each text, each token included."""
        lengths = torch.tensor(self.lengths)
        totals = counts.cumsum(0)
        before = torch.cat([totals.new_zeros(1), totals])[lengths.cumsum(0) - lengths]
        return totals - before.repeat_interleave(lengths)


class Buffers(threading.local):
    """Memory that every layer and every batch uses again, named by its use; each thread has its own.

    Without it each product would take fresh pages from the system, and a replica's heap would grow for hours.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, rows: int, width: int, dtype: torch.dtype) -> Tensor:
        """Return [rows, width] of any content; what was taken under the same name before is overwritten."""
        kept = self._kept.get(name)
        if kept is None or kept.numel() < rows * width:
            kept = self._kept[name] = torch.empty(rows * width, dtype=dtype)
        return kept[: rows * width].view(rows, width)
