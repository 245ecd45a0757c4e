"""A transformer encoder: a forward that gives each token a state, then pooling and heads in float32."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.encoders import pooling
from pipeline.encoders.base import EncoderSpec, PreparedTexts, Progress, Vectors


class Forward(Protocol):
    """Token ids to token states; how batches form and whether they are padded is its own."""

    def batches(self, lengths: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int64]]:
        """Group texts of these lengths, a pure function; row numbers a batch."""

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Run int64 [tokens], texts of `lengths` end to end, to float32 [tokens, width]."""


class TransformerEncoder:
    """One loaded copy of a model with its pooling and heads."""

    def __init__(self, spec: EncoderSpec, forward: Forward, device: torch.device) -> None:
        self._dimension, self._forward, self._device = spec.dimension, forward, device
        self._heads = pooling.build_heads(spec, device)
        self._modes = spec.heads[0]["modes"]

    @torch.inference_mode()
    def encode(self, prepared: PreparedTexts, progress: Progress | None = None) -> Vectors:
        """Encode to float32 [n, dimension], in the order given."""
        lengths = prepared.n_tokens
        tokens = torch.from_numpy(np.array(prepared.token_ids, dtype=np.int64))
        prompt_tokens = torch.from_numpy(np.array(prepared.rows["prompt_tokens"], dtype=np.int64))
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        vectors = np.empty((len(lengths), self._dimension), np.float32)
        for rows in self._forward.batches(lengths):
            ids = torch.cat([tokens[starts[row] : starts[row] + lengths[row]] for row in rows])
            vectors[rows] = self._batch(ids, lengths[rows].tolist(), prompt_tokens[rows]).cpu().numpy()
            if progress is not None:
                progress(len(rows), len(ids))
        return vectors

    def _batch(self, ids: Tensor, lengths: list[int], prompt_tokens: Tensor) -> Tensor:
        states = self._forward.states(ids.to(self._device), lengths)
        skipped = prompt_tokens.to(self._device) if bool(prompt_tokens.any()) else None
        vectors = pooling.pool(states, torch.tensor(lengths, device=self._device), self._modes, skipped)
        for head in self._heads:
            vectors = head(vectors)
        return vectors
