"""A transformer encoder: a forward that gives each token a state, then pooling and heads in float32."""

from __future__ import annotations

import logging
from collections import deque
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.encoders.base import EncoderSpec, PreparedTexts, Progress, Vectors
from pipeline.encoders.forward import pooling
from pipeline.encoders.forward.feeding import Feed
from pipeline.exceptions import ModelError

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]


class Forward(Protocol):
    """Token ids to token states; how batches form and whether they are padded is its own."""

    def batches(self, lengths: npt.NDArray[np.int32], max_tokens: int, /) -> list[Rows]:
        """Group texts of these lengths, a pure function, longest first; row numbers a batch."""

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Run int64 [tokens] of the host, texts of `lengths` end to end, to float32 [tokens, width] on the device."""


class TransformerEncoder:
    """One loaded copy of a model with its pooling and heads."""

    def __init__(self, spec: EncoderSpec, forward: Forward, device: torch.device) -> None:
        self._spec, self._forward, self._device = spec, forward, device
        self._heads, self._feed = pooling.build_heads(spec, device), Feed(device)
        self._modes = spec.heads[0]["modes"]

    @torch.inference_mode()
    def encode(self, prepared: PreparedTexts, progress: Progress | None = None) -> Vectors:
        """Encode to float32 [n, dimension], in the order given; a text without any token becomes 0.

        On a GPU batches are only launched; the host waits once, for all of them. A batch that does not fit the
        device's memory, which shows when it is launched, halves the token budget for the rest of the texts.

        Raises:
            ModelError: one text alone does not fit.
        """
        texts = _Texts(prepared)
        vectors = self._room(len(texts.lengths))
        budget = self._spec.max_batch_tokens
        waiting = deque(self._batches(texts, np.flatnonzero(texts.lengths), budget))
        while waiting:
            rows = waiting[0]
            try:
                self._batch(texts, rows, vectors)
            except torch.OutOfMemoryError as error:
                if len(rows) == 1:
                    reason = f"a text of {texts.lengths[rows[0]]} tokens alone does not fit the device's memory"
                    raise ModelError(self._spec.model, reason) from error
                budget = max(budget // 2, 1)
                logger.warning(
                    "out of memory with %d texts; the unit goes on with %d tokens a batch", len(rows), budget
                )
                waiting = deque(self._batches(texts, np.concatenate(waiting), budget))
                continue
            waiting.popleft()
            if progress is not None:
                lengths = texts.lengths[rows]
                progress(len(rows), int(lengths.sum()), room=self._places(lengths, budget))
        return self._feed.fetch(vectors).numpy()

    def _places(self, lengths: npt.NDArray[np.int32], budget: int) -> int:
        """Return how many tokens a batch of these texts had room for: its budget, or what padding makes of them."""
        if self._spec.backend == "packed":
            return max(budget, int(lengths.sum()))  # a text alone may be longer
        return len(lengths) * int(lengths.max())

    def _batches(self, texts: _Texts, rows: Rows, budget: int) -> list[Rows]:
        return [rows[batch] for batch in self._forward.batches(texts.lengths[rows], budget)]

    def _room(self, count: int) -> Tensor:
        """Make room for a unit's vectors on the device."""
        try:
            return torch.zeros((count, self._spec.dimension), device=self._device)
        except torch.OutOfMemoryError as error:
            reason = f"{count} vectors do not fit the device's memory beside the model; set a smaller output.unit_rows"
            raise ModelError(self._spec.model, reason) from error

    def _batch(self, texts: _Texts, rows: Rows, vectors: Tensor) -> None:
        """Encode some texts into their rows of the vectors."""
        lengths = torch.from_numpy(texts.lengths[rows].astype(np.int64))
        skipped = texts.prompt_tokens[rows].astype(np.int64)
        spans = pooling.spans(lengths, self._modes, torch.from_numpy(skipped) if skipped.any() else None)
        states = self._forward.states(torch.from_numpy(texts.tokens(rows)), lengths.tolist())
        found = pooling.pool(states, spans.to(self._feed), self._modes)
        for head in self._heads:
            found = head(found)
        (places,) = self._feed.send(torch.from_numpy(rows))
        vectors.index_copy_(0, places, found)


class _Texts:
    """A unit's tokens, and where each text's begin."""

    def __init__(self, prepared: PreparedTexts) -> None:
        self.lengths = prepared.n_tokens
        self.prompt_tokens = np.asarray(prepared.rows["prompt_tokens"])
        self._ids = np.asarray(prepared.token_ids)
        self._starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    def tokens(self, rows: Rows) -> Rows:
        """Return the tokens of some texts end to end, int64 [tokens]."""
        lengths = self.lengths[rows]
        shift = self._starts[rows] - (np.cumsum(lengths, dtype=np.int64) - lengths)
        tokens: Rows = self._ids[np.arange(lengths.sum(dtype=np.int64)) + np.repeat(shift, lengths)].astype(np.int64)
        return tokens
