"""Which forward runs a model: the padding-free one where it computes this model on this device, else the padded one."""

from __future__ import annotations

import logging

from pipeline.config import EncoderConfig
from pipeline.encoders.architecture.families import Architecture
from pipeline.encoders.precision import Device
from pipeline.exceptions import ConfigError

logger = logging.getLogger(__name__)

_GPU_DTYPES = {"bert": "float16", "t5": "bfloat16", "rotary": "bfloat16"}
"""What the GPU kernels compute, by kind of forward: for BERT bfloat16 rounds more, the others may overflow float16."""
_GPU_HEADS = (32, 64, 128)
"""Numbers a head that the GPU kernels are tested with."""


def choose(config: EncoderConfig, architecture: Architecture, dtype: str, device: Device) -> tuple[str, str | None]:
    """Return `packed` or `padded`, and why it is padded where nobody asked for that.

    Raises:
        ConfigError: packed was asked for and cannot run.
    """
    reason = unpackable(architecture, dtype, device)
    if config.backend == "packed" and reason is not None:
        raise ConfigError("encoder.backend", f"{reason}; use auto or padded")
    if config.backend == "padded":
        return "padded", None
    if reason is None:
        return "packed", None
    logger.warning("%s runs padded: %s", config.model, reason)
    return "padded", reason


def unpackable(architecture: Architecture, dtype: str, device: Device) -> str | None:
    """Say why a model cannot run without padding; None where it can."""
    kind = architecture.packed
    if kind is None:
        return f"there is no packed forward of {architecture.model_type!r} as it is configured"
    if device.kind == "cpu":
        return "there is no packed forward in float16 on a CPU" if dtype == "float16" else None
    if device.lacks is not None:
        return f"there is no packed forward on this GPU: {device.lacks}"
    if dtype != _GPU_DTYPES[kind]:
        fitting = _GPU_DTYPES[kind]
        return f"on a GPU there is no packed forward of {architecture.model_type!r} in {dtype}, only in {fitting}"
    if architecture.head_width not in _GPU_HEADS:
        return f"on a GPU there is no packed forward with heads of {architecture.head_width}, only of 32, 64 and 128"
    return None
