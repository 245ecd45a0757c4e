"""A model tried on one text: it loads, and what it returns is a vector."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from pipeline.config import EncoderConfig
from pipeline.encoders.precision import Device
from pipeline.encoders.registry import build_encoder, build_preparer, resolve
from pipeline.exceptions import ModelError

TEXT = "One short text."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTrial:
    """What encoded the text; `seconds` include finding and loading the model."""

    model: str
    revision: str | None
    dimension: int
    dtype: str
    backend: str
    device: str
    seconds: float


def try_model(config: EncoderConfig, device: Device) -> ModelTrial:
    """Find, load and use a model in this process.

    Raises:
        ConfigError: a key does not fit the model, or the API of a hosted one refuses the key.
        ModelError: its files or weights cannot be used, or its vector is none.
    """
    started = time.perf_counter()
    spec = resolve(config, device)
    encoder = build_encoder(spec, device.kind, os.cpu_count() or 1, config.remote)
    vectors = encoder.encode(build_preparer(spec).prepare([TEXT]))
    if vectors.shape != (1, spec.dimension) or not np.isfinite(vectors).all() or not vectors.any():
        raise ModelError(config.model, f"returned no usable vector for {TEXT!r} in {spec.dtype}; try another dtype")
    return ModelTrial(
        model=spec.model,
        revision=spec.revision,
        dimension=spec.dimension,
        dtype=spec.dtype,
        backend=spec.backend,
        device=device.kind,
        seconds=round(time.perf_counter() - started, 2),
    )
