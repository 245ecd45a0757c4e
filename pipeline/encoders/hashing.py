"""A deterministic encoder without a model: vectors are a hash of prompt and text.

For tests, dry runs and scale measurements: equal texts give equal vectors, and which text a vector
belongs to can be checked without any model. A delay, which cannot change vectors, stands in for a model's time.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline import failpoints
from pipeline.encoders.architecture.modules import require_width
from pipeline.encoders.base import EncoderSpec, PreparedTexts, Progress, Vectors
from pipeline.exceptions import ConfigError

PREFIX = "hashing:"
MAX_DIMENSION = 8192
_MODEL = re.compile(r"hashing:(\d{1,5})(?:\?delay_ms_per_1000_rows=(\d{1,7}))?", re.ASCII)


def resolve(model: str, prompt: str, truncate_dim: int | None = None) -> EncoderSpec:
    """Build the spec of `hashing:DIMENSION` or `hashing:DIMENSION?delay_ms_per_1000_rows=MILLISECONDS`.

    What is kept of a vector by `truncate_dim` is what fewer dimensions would give: SHAKE-256 is a stream.
    """
    dimension, _ = _parse(model)
    require_width(truncate_dim, dimension)
    return EncoderSpec(
        kind="hashing",
        model=model,
        revision=None,
        folder="",
        files={},
        model_type="hashing",
        dimension=truncate_dim or dimension,
        max_seq_length=0,
        lower_case=False,
        prompt=prompt,
        heads=[{"type": "normalize"}],
        dtype="float32",
        backend="hashing",
        max_batch_tokens=4096,
        flops_per_token=1,
    )


def _parse(model: str) -> tuple[int, int]:
    """Return dimension and delay in milliseconds a thousand rows."""
    match = _MODEL.fullmatch(model)
    if match is None or not 1 <= int(match[1]) <= MAX_DIMENSION:
        form = f"write hashing:DIMENSION, 1 to {MAX_DIMENSION}, and after it ?delay_ms_per_1000_rows=N if you like"
        raise ConfigError("encoder.model", f"{form} (got {model!r})")
    return int(match[1]), int(match[2] or 0)


class HashingEncoder:
    """Both halves of the hashing encoder; a token is a run of non-space characters."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec

    def prepare(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> PreparedTexts:
        """Join prompt and text and count words."""
        if prompts is None:
            prompts = [self._spec.prompt] * len(texts)
        full = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
        rows = {
            "n_tokens": pa.array([len(text.split()) for text in full], pa.int32()),
            "truncated": pa.array([False] * len(full), pa.bool_()),
            "chars": pa.array([len(text) for text in full], pa.int32()),
            "chars_lost": pa.array([0] * len(full), pa.int32()),
            "text": pa.array(full, pa.large_string()),
        }
        return PreparedTexts(rows=rows, token_ids=pa.array([], pa.int32()))

    def encode(self, prepared: PreparedTexts, progress: Progress | None = None) -> Vectors:
        """Hash each text with SHAKE-256 to signed 16-bit values and normalise, float32 [n, dimension]."""
        size = self._spec.dimension
        texts = prepared.rows["text"].to_pylist()
        for text in texts:
            failpoints.hit("encode.text", text=text)
        hashed = b"".join(hashlib.shake_256(text.encode()).digest(2 * size) for text in texts)
        values = np.frombuffer(hashed, "<i2").reshape(-1, size).astype(np.float32)
        values[:, 0] += np.float32(0.5)  # never a zero vector
        time.sleep(_parse(self._spec.model)[1] / 1000 * len(values) / 1000)
        if progress is not None:
            tokens = int(prepared.n_tokens.sum())
            progress(len(values), tokens, room=tokens)
        vectors: Vectors = values / np.linalg.norm(values, axis=1, keepdims=True)
        return vectors
