"""An encoder in this process, for notebooks and scripts: the vectors a job with the same keys would write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pipeline.config import parse_job
from pipeline.encoders import precision, registry
from pipeline.encoders.base import Encoder, EncoderSpec, Preparer, Vectors
from pipeline.exceptions import ConfigError


class LoadedEncoder:
    """Both halves of an encoder; `spec` is what its keys were resolved to."""

    def __init__(self, spec: EncoderSpec, preparer: Preparer, encoder: Encoder) -> None:
        self.spec = spec
        self._preparer, self._encoder = preparer, encoder

    def encode(self, texts: Sequence[str], prompt: str | Sequence[str] | None = None) -> Vectors:
        """Encode texts to float32 [n, dimension].

        Args:
            texts: any number of texts; what is longer than the model reads is truncated.
            prompt: put before all texts, or one a text; None takes the encoder's own.

        Raises:
            ConfigError: a prompt leaves no room for its text, or nothing tells how the model pools it.
            ModelError: a hosted model's API refuses a text.
        """
        if isinstance(texts, str):
            msg = f"texts is one string, give a list of them (got {texts[:50]!r})"
            raise TypeError(msg)
        prepared = self._preparer.prepare(texts, [prompt] * len(texts) if isinstance(prompt, str) else prompt)
        full = np.flatnonzero(prepared.no_room)
        if len(full):
            raise ConfigError("encoder.prompt", f"fills all {self.spec.limit} the model reads, at text {full[0]}")
        return self._encoder.encode(prepared)


def load_encoder(model: str, *, device: Literal["auto", "cpu", "cuda"] = "auto", **encoder_keys: Any) -> LoadedEncoder:
    """Load a model with the keys of a job's `encoder` section.

    Raises:
        ConfigError: a key is unknown, has a wrong value or does not fit the model.
        ModelError: the model's files or the device cannot be used.
    """
    # a whole job, so that wrong keys are named as a job file's are
    unused = {"uri": "unused"}
    job = parse_job({"input": unused, "output": unused, "encoder": {"model": model, **encoder_keys}})
    found = precision.detect(device)
    spec = registry.resolve(job.encoder, found)
    encoder = registry.build_encoder(spec, found.kind, os.cpu_count() or 1, job.encoder.remote)
    return LoadedEncoder(spec, registry.build_preparer(spec), encoder)
