"""The preparing half of a hosted model: the texts as they are sent, and about how many tokens they have."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoders.base import EncoderSpec, PreparedTexts
from pipeline.encoders.remote.batches import typical_tokens


class RemotePreparer:
    """Joins prompt and text, and cuts at `encoder.remote.max_chars`."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._prompt = spec.prompt
        self._limit: int | None = spec.hosted["max_chars"] if spec.hosted else None

    def prepare(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> PreparedTexts:
        """Join and cut; `no_room` bool is true where the prompt alone fills the limit."""
        if prompts is None:
            prompts = [self._prompt] * len(texts)
        full = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
        lost = [0 if self._limit is None else max(len(text) - self._limit, 0) for text in full]
        sent = pa.array([text[: len(text) - cut] for text, cut in zip(full, lost, strict=True)], pa.large_string())
        sizes = pc.binary_length(sent).to_pylist()
        rows = {
            "n_tokens": pa.nulls(len(full), pa.int32()),
            "tokens_estimate": pa.array(map(typical_tokens, sizes), pa.int32()),
            "truncated": pa.array([cut > 0 for cut in lost], pa.bool_()),
            "chars": pa.array(map(len, full), pa.int32()),
            "chars_lost": pa.array(lost, pa.int32()),
            "no_room": pa.array([bool(prompt) and self._full(prompt) for prompt in prompts], pa.bool_()),
            "text": sent,
        }
        return PreparedTexts(rows=rows, token_ids=pa.array([], pa.int32()))

    def _full(self, prompt: str) -> bool:
        return self._limit is not None and len(prompt) >= self._limit
